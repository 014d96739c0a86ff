//! That the model can fail, that it is the same every time, and that it merges what is one state.

use elea_protocol::message::Level::Strong;

use super::explore::{Findings, Task, Way, describe, explore};
use super::scene::{Move, SCENES};
use super::*;

/// More liars than any cluster of four bears: both sides of r0's lie are voted for by r1.
const TOO_MANY: Scene = Scene {
    name: "too-many",
    about: "r0 and its twin have ordered different requests for slot 1, and r1 votes for both",
    machines: &[0, 0, 2, 3],
    liars: &[0, 1],
    put_back: &[],
    requests: &[(Strong, "incr a 1", &[0, 2]), (Strong, "append a x", &[1, 3])],
    opening: &[Move::Hear(&[0, 1], &["request"], &[])],
    bounds: Limits { ticks: 0, restarts: 0, leaves: 0, view: 0 },
};

fn search(scene: &'static Scene, states: usize) -> Findings {
    let way = Way::Breadth { states, depth: usize::MAX };
    explore(&Task { scene, bounds: scene.bounds, way }, 1)
}

#[test]
fn two_liars_of_four_break_agreement_and_the_steps_are_told() {
    let findings = search(&TOO_MANY, 200_000);
    let text = describe(&findings);
    println!("{text}");
    let [broken] = &findings.broken[..] else { panic!("one rule is broken:\n{text}") };
    assert_eq!(broken.violation.rule, "I1", "{text}");
    let told = |words: &str| broken.steps.iter().any(|step| step.contains(words));
    assert!(told("r2 hears from r0: order of v0: slot 1") && told("r3 hears from r0: order"));
}

#[test]
fn one_liar_of_four_breaks_nothing_in_the_same_scene() {
    const ONE: Scene = Scene {
        machines: &[0, 0, 1, 2, 3],
        liars: &[0],
        requests: &[(Strong, "incr a 1", &[0, 2, 3]), (Strong, "append a x", &[1, 4])],
        ..TOO_MANY
    };
    let findings = search(&ONE, 10_000);
    assert!(findings.broken.is_empty(), "{}", describe(&findings));
    assert!(findings.states > 1000, "{}", describe(&findings));
}

#[test]
fn a_search_finds_the_same_every_time() {
    for scene in SCENES {
        let (first, second) = (search(scene, 1500), search(scene, 1500));
        let shape = |found: &Findings| (found.states, found.unique, found.depth);
        assert_eq!(shape(&first), shape(&second), "{}", scene.name);
        assert_eq!(first.reached, second.reached, "{}", scene.name);
    }
}

#[test]
fn steps_on_different_machines_lead_to_one_state_in_either_order() {
    let scene = Scene::named("orders").expect("a scene");
    let cluster = Cluster::new(scene, scene.bounds).expect("replicas that start");
    let mut steps = Vec::new();
    cluster.actions(cluster.start(), &mut steps);
    let hears = |id: u8| {
        let words = format!("r{id} hears from r0: order");
        let step = steps.iter().find(|step| format!("{step:?}").starts_with(&words));
        step.expect("an order is under way").clone()
    };
    let (one, two) = (hears(1), hears(2));
    let after = |first: &Step, second: &Step| {
        let next = cluster.next_state(cluster.start(), first.clone()).expect("something changes");
        cluster.next_state(&next, second.clone()).expect("something changes")
    };
    assert!(after(&one, &two) == after(&two, &one));
    assert!(after(&one, &two) != *cluster.start());
    let ticked = Step::Tick(cluster.cast.places[1]);
    assert!(after(&one, &ticked) != after(&ticked, &two));
}

#[test]
fn a_letter_that_changes_nothing_is_no_step() {
    let scene = Scene::named("orders").expect("a scene");
    let cluster = Cluster::new(scene, scene.bounds).expect("replicas that start");
    let mut steps = Vec::new();
    cluster.actions(cluster.start(), &mut steps);
    let step = steps.iter().find(|step| format!("{step:?}").contains("r1 hears from a client"));
    let step = step.expect("a request is under way").clone();
    let Step::Deliver(letter) = &step else { panic!("a letter") };
    let mut next = cluster.next_state(cluster.start(), step.clone()).expect("it is new to r1");
    assert!(next.flying.iter().all(|other| other.print != letter.print), "it has arrived");
    next.flying.push(letter.clone());
    assert!(cluster.next_state(&next, step).is_none(), "it says nothing new");
}

#[test]
fn scenes_have_names_of_their_own_and_sound_openings() {
    for scene in SCENES {
        assert_eq!(Scene::named(scene.name).map(|found| found.about), Some(scene.about));
        let cluster = Cluster::new(scene, scene.bounds).expect("replicas that start");
        assert_eq!(cluster.start().broken, None, "{}", scene.name);
        assert!(!cluster.opening.is_empty() && !cluster.start().flying.is_empty());
        let ticks: u32 = cluster.start().machines.iter().map(|machine| machine.ticks).sum();
        assert_eq!(ticks, 0, "what an opening waits is not counted");
    }
    let halves = Scene::named("halves").expect("a scene");
    let cluster = Cluster::new(halves, halves.bounds).expect("replicas that start");
    let views: Vec<u64> =
        cluster.start().machines.iter().map(|machine| machine.core.entered().0).collect();
    assert_eq!(views, [0, 1, 1, 0]);
    let lock = Scene::named("lock").expect("a scene");
    let cluster = Cluster::new(lock, lock.bounds).expect("replicas that start");
    let locked = cluster.start().machines.iter().map(|machine| machine.core.lock().is_some());
    assert_eq!(locked.collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(cluster.start().answers.finals(), 1, "with the liar's word it is answered");
}
