//! One seed, from its beginning to its verdict.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use bytes::Bytes;
use elea_protocol::application::Application;
use elea_protocol::id::{Digest, RequestName, Slot};
use elea_protocol::message::{Level, Standing};
use elea_protocol::replica::Replica;
use elea_protocol::rows::RowsView;
use serde::Serialize;

use crate::check::linear::{Decided, EnvironmentOp, StrongOp};
use crate::check::{Executed, reexecute};
use crate::coverage::Coverage;
use crate::network::Machine;
use crate::patron::{Patron, Story};
use crate::plan::{Component, Judgement, Plan};
use crate::subject::Subject;
use crate::violation::{Violation, demand};
use crate::world::World;

/// How long a healed world has until everybody agrees, and a component until its client is answered,
/// in microseconds of its time.
const PATIENCE: u64 = 60_000_000;

/// How long clients go on asking once the faults are over.
const LATE: u64 = 500_000;

/// How long a world goes on after that, to see that it stays so.
const AFTERWARDS: u64 = 500_000;

const SECOND: u64 = 1_000_000;

/// What became of a world.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What happened in it, as one digest.
    pub digest: String,
    /// How many happenings there were.
    pub steps: u64,
    /// How long it took, in its own milliseconds.
    pub world_ms: u64,
    /// What it saw.
    pub coverage: Coverage,
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// What happened, in lines, where they were wanted.
    #[serde(skip)]
    pub lines: Vec<String>,
}

/// Runs the world of a plan. A panic of the core is a violation like any other.
#[must_use]
pub fn plan<S: Subject>(plan: Plan, verbose: bool) -> Report {
    let seed = plan.seed;
    let mut world = match catching(|| World::<S>::new(plan, verbose)) {
        Ok(world) => world,
        Err(violation) => {
            return Report {
                seed,
                digest: String::new(),
                steps: 0,
                world_ms: 0,
                coverage: Coverage::default(),
                violation: Some(violation),
                lines: Vec::new(),
            };
        }
    };
    let violation = catching(|| drive(&mut world)).err();
    Report {
        seed,
        digest: world.trace.digest(),
        steps: world.steps(),
        world_ms: world.now() / 1000,
        coverage: world.full_coverage(),
        violation,
        lines: world.trace.lines().to_vec(),
    }
}

fn drive<S: Subject>(world: &mut World<S>) -> Result<(), Violation> {
    run_until(world, world.plan.heal_at)?;
    let component = world.plan.component.clone();
    // A cluster that is only beginning needs a strong quorum, once: what is promised to parts of it
    // is promised to voters.
    if let Some(component) = component.filter(|component| are_voters(world, component)) {
        let until = world.now() + LATE;
        world.enclose(&component, until)?;
        run_until(world, until)?;
        let rule = if component.level == Level::Weak { "L1" } else { "L2" };
        wait(world, rule, |world| neglect(world, &component))?;
        world.coverage.mark(match component.level {
            Level::Weak => "component answered: weak",
            Level::Strong => "component answered: strong",
        });
    }
    let until = world.now() + LATE;
    world.heal(until)?;
    if let Some(judgement) = world.plan.judgement {
        judge(world, judgement)?;
    }
    wait(world, "liveness", discord)?;
    run_until(world, world.now() + AFTERWARDS)?;
    // A villain may have come with one more request of a hostile client meanwhile.
    wait(world, "I9", discord)?;
    verdict(world)
}

/// How fast the world is, now that its faults are over.
fn judge<S: Subject>(world: &mut World<S>, judgement: Judgement) -> Result<(), Violation> {
    match judgement {
        Judgement::NoHangover { from, until } => {
            let before = mean_wait(world, from, until);
            let begin = world.now() + SECOND;
            run_until(world, begin)?;
            let after = ask_for(world, 3 * SECOND)?;
            // Of some dozens of waits for random syncs the mean is not quite the same.
            let bound = before * 11 / 10 + 1_000;
            demand(after <= bound, "hangover", || {
                format!(
                    "answers took {before} us before the faults, and take {after} us after them"
                )
            })?;
            world.coverage.mark("no hangover");
        }
        Judgement::Lazy { bound, after } => {
            // Time to find out, and for patience to come back.
            ask_for(world, after)?;
            let mean = ask_for(world, 10 * SECOND)?;
            demand(mean <= bound, "L3", || {
                format!("answers take {mean} us in the mean, and should take {bound} us at most")
            })?;
            world.coverage.mark("no lazier than L3 allows");
        }
        Judgement::Steady { views, later } => {
            let before = highest_view(world);
            demand(before <= views, "waits", || {
                format!("v{before} was entered, although nothing is wrong but slow")
            })?;
            ask_for(world, 20 * SECOND)?;
            let after = highest_view(world);
            demand(after <= before + later, "waits", || {
                format!("v{after} was entered after v{before}, although nothing is wrong but slow")
            })?;
            world.coverage.mark("no view for nothing");
        }
    }
    Ok(())
}

fn highest_view<S: Subject>(world: &World<S>) -> u64 {
    world.correct().filter_map(|node| Some(node.core.as_ref()?.entered().0)).max().unwrap_or(0)
}

/// The honest clients ask for something for so long; answers how long that took in the mean.
fn ask_for<S: Subject>(world: &mut World<S>, micros: u64) -> Result<u64, Violation> {
    let (from, until) = (world.now(), world.now() + micros);
    world.load_evenly(until, SECOND / 10);
    run_until(world, until + SECOND)?;
    Ok(mean_wait(world, from, until))
}

/// How long what was asked for in this time took in the mean, or has taken so far. What need not be ordered tells
/// nothing of a primary.
fn mean_wait<S: Subject>(world: &World<S>, from: u64, until: u64) -> u64 {
    let now = world.now();
    let stories = world.clients.patrons.iter().flat_map(|patron| patron.stories.values());
    let waits: Vec<u64> = stories
        .filter(|story| !story.is_query && (from..until).contains(&story.asked))
        .map(|story| {
            let told = story.answered.as_ref().or(story.finally.as_ref());
            told.map_or(now, |told| told.at) - story.asked
        })
        .collect();
    waits.iter().sum::<u64>() / (waits.len() as u64).max(1)
}

/// Lets time go by until nothing is missing.
fn wait<S: Subject>(
    world: &mut World<S>,
    rule: &str,
    missing: impl Fn(&World<S>) -> Option<String>,
) -> Result<(), Violation> {
    let until = world.now() + PATIENCE;
    while let Some(what) = missing(world) {
        demand(world.now() < until, rule, || what)?;
        run_until(world, world.now() + 50_000)?;
    }
    Ok(())
}

/// Whether all members of a component have found out that they may vote, before it is cut off.
fn are_voters<S: Subject>(world: &World<S>, component: &Component) -> bool {
    let may_vote = |machine: &Machine| {
        let node = &world.nodes[machine.index()];
        node.disk.standing() == Standing::Voter
    };
    component.members.iter().all(may_vote)
}

/// What the client of a component is still waiting for.
fn neglect<S: Subject>(world: &World<S>, component: &Component) -> Option<String> {
    let patron = &world.clients.patrons[usize::from(component.client)];
    if patron.open() == 0 {
        return None;
    }
    let members: Vec<String> = component
        .members
        .iter()
        .filter_map(|machine| {
            let node = &world.nodes[machine.index()];
            Some(format!("{} {}", node.id, standing(node.core.as_ref()?)))
        })
        .collect();
    Some(format!(
        "a {:?} client in a component with {members:?} waits in vain: {}",
        component.level,
        patron.complaint()
    ))
}

/// Where a replica stands, in a few words.
fn standing<A: Application>(core: &Replica<A>) -> String {
    let head = core.head();
    let lock = core.lock().map_or(0, |lock| lock.body.slot.0);
    let (entered, stable) = (core.entered(), core.stable());
    let campaign = core.campaign().map(|view| format!(" for {view}")).unwrap_or_default();
    let may = match core.standing() {
        Standing::Voter if core.may_vote() => "",
        Standing::Voter => " in quarantine",
        other => other.word(),
    };
    format!(
        "{may} {entered}{campaign} head {} {:?} lock {lock} stable {stable}",
        head.slot, head.hash
    )
}

/// Lets everything up to `time` happen.
///
/// # Errors
/// A rule is broken.
pub fn run_until<S: Subject>(world: &mut World<S>, time: u64) -> Result<(), Violation> {
    while world.next_at().is_some_and(|at| at <= time) {
        world.step()?;
    }
    world.pass_until(time);
    Ok(())
}

/// Why the world is not at rest yet: somebody is not answered, not everything is executed and
/// final everywhere, or clients have more to ask for.
fn discord<S: Subject>(world: &World<S>) -> Option<String> {
    let mut heads = BTreeSet::new();
    let (mut waiting, mut is_final, mut all_vote) = (0, true, true);
    for core in world.correct().filter_map(|node| node.core.as_ref()) {
        waiting += core.orderable();
        all_vote &= core.may_vote();
    }
    // An observer follows: what it has is what the others have, and is final.
    all_vote &= world.observers().all(|node| node.disk.standing() == Standing::Observer);
    let followers = world.correct().chain(world.observers());
    for core in followers.filter_map(|node| node.core.as_ref()) {
        let head = core.head();
        heads.insert(head);
        let locked = core.lock().map_or(Slot::GENESIS, |lock| lock.body.slot);
        is_final &= locked >= head.slot;
    }
    let (open, left) = (world.clients.open(), world.loads_left());
    if heads.len() <= 1 && is_final && all_vote && open == 0 && waiting == 0 && left == 0 {
        return None;
    }
    let standings: Vec<String> = world
        .correct()
        .chain(world.observers())
        .filter_map(|node| Some(format!("{} {}", node.id, standing(node.core.as_ref()?))))
        .collect();
    let complaints: Vec<String> = world.clients.patrons.iter().map(Patron::complaint).collect();
    Some(format!(
        "{open} submissions open, {waiting} requests waiting, {standings:?}; {complaints:?}"
    ))
}

/// Healed and quiet: I5, I8 and I9.
fn verdict<S: Subject>(world: &mut World<S>) -> Result<(), Violation> {
    let heads: Vec<_> =
        world.correct().filter_map(|node| Some(node.core.as_ref()?.head())).collect();
    let Some(&head) = heads.first() else { return Ok(()) };
    demand(heads.iter().all(|other| *other == head), "I9", || {
        "correct replicas part again".to_owned()
    })?;
    let mut fresh = S::application(false);
    if let Some(founding) = &world.founding {
        let rows: RowsView = Arc::new(founding.rows.clone());
        let opened = fresh.open(Slot::GENESIS, founding.digest, rows);
        opened
            .map_err(|why| Violation::new("restart", format!("the state to begin with: {why}")))?;
    }
    let mut seen = seen_strongly(world);
    let executed = reexecute(&world.checker.histories, head.hash, &mut fresh, |slot, fresh| {
        seen.remove(&slot)
            .into_iter()
            .flatten()
            .try_for_each(|seen| hold_against(fresh, slot, seen))
    })?;
    demand(seen.is_empty(), "I8", || {
        format!("read after slots that never were: {:?}", seen.keys())
    })?;
    world.checker.outcomes.check(&executed)?;
    check_strong(world, head.hash, &executed)?;
    let mut states = Vec::new();
    for node in &mut world.nodes {
        let follows = node.villain().is_none() && (node.is_correct() || node.has_lost_its_vote());
        if let (true, Some(core)) = (follows, &mut node.core) {
            states.push((node.id, core.state_digest()));
        }
    }
    demand(states.windows(2).all(|pair| pair[0].1 == pair[1].1), "I9", || {
        format!("correct replicas have one history and these states: {states:?}")
    })?;
    for node in world.correct() {
        let mismatches = node.count("state_mismatch");
        demand(mismatches == 0, "I3", || {
            format!("{} is correct and found {mismatches} certified states not its own", node.id)
        })?;
    }
    let observers = world.observers().count();
    world.coverage.add("observer caught up", u64::try_from(observers).unwrap_or(u64::MAX));
    let expected = S::describe(&fresh);
    for node in world.correct() {
        let Some(core) = &node.core else { continue };
        let found = S::describe(core.application());
        demand(found == expected, "I9", || {
            format!("{} ends in {found}, a re-execution in {expected}", node.id)
        })?;
    }
    Ok(())
}

/// What was read strongly: operations and results.
type Read = (Vec<Bytes>, Vec<Bytes>);

/// What clients were told without a slot, and strongly, by the slots after which it was so.
fn seen_strongly<S: Subject>(world: &World<S>) -> BTreeMap<Slot, Vec<Read>> {
    let mut by_slot: BTreeMap<Slot, Vec<Read>> = BTreeMap::new();
    let stories = world.clients.patrons.iter().flat_map(|patron| patron.stories.values());
    for story in stories.filter(|story| story.level == Level::Strong) {
        if let Some((_, seen)) = &story.seen {
            let read = (story.operations.clone(), seen.results.clone());
            by_slot.entry(seen.slot).or_default().push(read);
        }
    }
    by_slot
}

/// I8: it is what the final history has after that slot.
fn hold_against<A: Application>(
    application: &A,
    slot: Slot,
    (operations, results): Read,
) -> Result<(), Violation> {
    let found = application.query(1, &operations).map(|found| found.results);
    demand(found.as_ref() == Some(&results), "I8", || {
        format!("{operations:?} came to {results:?} after slot {slot}; executed anew: {found:?}")
    })
}

/// I8, judged by what clients saw: the one place where the checker of linearizability is called.
///
/// What was final when it was answered is a strong operation. Everything else that may have been
/// executed is environment: weak requests of honest clients, and what hostile ones got into the
/// history. Hostile requests that are not in the final history were in no strong one.
fn check_strong<S: Subject>(
    world: &mut World<S>,
    head: Digest,
    executed: &HashMap<RequestName, Executed>,
) -> Result<(), Violation> {
    let (mut strong, mut environment) = (Vec::new(), Vec::new());
    for (client, patron) in (0u32..).zip(&world.clients.patrons) {
        for story in patron.stories.values() {
            let Story { asked, level, .. } = *story;
            let operations = story.operations.clone();
            if let Some((at, seen)) = &story.seen {
                // A weak one reads what may still change: it has no place among strong operations.
                if level == Level::Strong {
                    strong.push(StrongOp {
                        client,
                        asked,
                        answered: Some(*at),
                        operations,
                        results: Some(seen.results.clone()),
                        place: Some((seen.slot.0, u32::MAX)),
                    });
                }
            } else if let Some(told) = &story.finally {
                strong.push(StrongOp {
                    client,
                    asked,
                    answered: Some(told.at),
                    operations,
                    results: Some(told.results.clone()),
                    place: Some((told.slot.0, told.index)),
                });
            } else if level == Level::Strong {
                // Who is told that the results are no longer kept, or that the session has left, is
                // not told that it is final: a merge may still move it, or bring it.
                let (answered, results, place) = (None, None, None);
                strong.push(StrongOp { client, asked, answered, operations, results, place });
            } else {
                // Only where the first answer stands in the final history are its results those of
                // that history.
                let place = story.answered.as_ref().and_then(|told| executed.get(&told.name));
                let stood = story
                    .answered
                    .as_ref()
                    .filter(|told| place.is_some_and(|place| place.hash == told.hash));
                environment.push(EnvironmentOp {
                    client,
                    asked,
                    operations,
                    results: stood.map(|told| told.results.clone()),
                    place: match stood {
                        Some(told) => Some((told.slot.0, told.index)),
                        None => place.map(|place| (place.slot.0, place.index)),
                    },
                });
            }
        }
    }
    let honest: Vec<_> = world.clients.patrons.iter().map(Patron::id).collect();
    if let Some(founding) = &world.founding {
        environment.push(EnvironmentOp {
            client: u32::MAX,
            asked: 0,
            operations: founding.operations.clone(),
            results: Some(founding.results.clone()),
            place: Some((0, 0)),
        });
    }
    for (_, batch) in world.checker.histories.batches(head) {
        for request in batch.requests.iter().map(|request| request.body()) {
            let place = executed.get(&request.name());
            if !honest.contains(&request.client) {
                environment.push(EnvironmentOp {
                    client: u32::MAX,
                    asked: 0,
                    operations: request.operations.clone(),
                    results: place.map(|place| place.results.clone()),
                    place: place.map(|place| (place.slot.0, place.index)),
                });
            }
        }
    }
    world.coverage.mark(match S::check_strong(&strong, &environment)? {
        Decided::Linearizable => "linearizable",
        Decided::Unknown => "linearizability not decided",
    });
    Ok(())
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Turns a panic into a violation: of the rule whose number the message begins with, if it does.
fn catching<T>(run: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_ours = LAST_PANIC.with(|last| match &mut *last.borrow_mut() {
                Some(message) => {
                    *message = info.to_string();
                    true
                }
                None => false,
            });
            if !is_ours {
                usual(info);
            }
        }));
    });
    LAST_PANIC.with(|last| *last.borrow_mut() = Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    let message = LAST_PANIC.with(|last| last.borrow_mut().take()).unwrap_or_default();
    outcome.unwrap_or_else(|_| {
        let text = message.split_once(":\n").map_or(message.as_str(), |(_, text)| text);
        let numbered = text
            .split_once(": ")
            .filter(|(rule, _)| rule.strip_prefix('I').is_some_and(|n| n.parse::<u8>().is_ok()));
        Err(Violation::new(numbered.map_or("panic", |(rule, _)| rule), message.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_violation_of_the_rule_it_names() {
        let named = catching::<()>(|| panic!("I4: a name twice")).expect_err("it panics");
        assert_eq!(named.rule, "I4");
        let other = catching::<()>(|| panic!("something else")).expect_err("it panics");
        assert_eq!(other.rule, "panic");
    }
}
