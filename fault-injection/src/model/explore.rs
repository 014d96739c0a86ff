//! Runs explorations and tells what they came to.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use stateright::{Checker as _, Expectation, HasDiscoveries, Model as _};

use super::scene::SCENES;
use super::wanderer::Wanderer;
use super::{Cluster, Limits, Scene};
use crate::violation::Violation;

/// The most steps of a random path.
const PATH_MAX: usize = 1000;

/// How an exploration goes about it.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Every state, nearest first, until so many were looked at or all within this depth were. With
    /// one thread it is the same every time.
    Breadth {
        /// How many states, at most.
        states: usize,
        /// How many steps from the opening, at most.
        depth: usize,
    },
    /// Paths at random, each to its end, for so long.
    Walks {
        /// Where the randomness comes from.
        seed: u64,
        /// How long.
        time: Duration,
    },
}

/// A rule that does not hold, and what has to happen for that.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Broken {
    /// Which rule, and who and what.
    pub violation: Violation,
    /// Every step from the very beginning, in words.
    pub steps: Vec<String>,
}

/// What an exploration came to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Findings {
    /// The scene.
    pub scene: &'static str,
    /// `breadth` or `walks`.
    pub way: &'static str,
    /// States that were looked at.
    pub states: usize,
    /// Different ones among them; of walks it is not counted.
    pub unique: Option<usize>,
    /// The longest path.
    pub depth: usize,
    /// How long it took.
    pub seconds: f64,
    /// What was seen that it is about.
    pub reached: Vec<&'static str>,
    /// What was not.
    pub missed: Vec<&'static str>,
    /// The rules that do not hold.
    pub broken: Vec<Broken>,
}

/// An exploration to be made.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// From where.
    pub scene: &'static Scene,
    /// How far the exploration goes.
    pub bounds: Limits,
    /// In which order states are visited.
    pub way: Way,
}

/// Random paths go so much further than the search by breadth: a few views more, and time enough
/// for them.
fn widened(bounds: Limits) -> Limits {
    let Limits { ticks, restarts, leaves, view } = bounds;
    Limits { ticks: ticks + 12, restarts: restarts + 1, leaves, view: view + 2 }
}

/// Each scene, or this one, breadth first to so many states, and then at random for so many
/// minutes, all together.
#[must_use]
pub fn tasks(name: Option<&str>, minutes: u64, states: usize, seed: u64) -> Vec<Task> {
    let scenes = SCENES.iter().filter(|scene| name.is_none_or(|name| scene.name == name));
    let scenes: Vec<&'static Scene> = scenes.collect();
    let each = minutes * 60 / scenes.len().max(1) as u64;
    let breadth = Way::Breadth { states, depth: usize::MAX };
    let walks = Way::Walks { seed, time: Duration::from_secs(each) };
    let search = scenes.iter().map(|scene| Task { scene, bounds: scene.bounds, way: breadth });
    let wander =
        scenes.iter().map(|scene| Task { scene, bounds: widened(scene.bounds), way: walks });
    search.chain(wander.filter(|_| each > 0)).collect()
}

/// Makes an exploration.
#[must_use]
pub fn explore(task: &Task, threads: usize) -> Findings {
    let Task { scene, bounds, way } = *task;
    let began = Instant::now();
    let mut findings = Findings {
        scene: scene.name,
        way: if matches!(way, Way::Breadth { .. }) { "breadth" } else { "walks" },
        states: 0,
        unique: None,
        depth: 0,
        seconds: 0.0,
        reached: Vec::new(),
        missed: Vec::new(),
        broken: Vec::new(),
    };
    let mut cluster = match Cluster::new(scene, bounds) {
        Ok(cluster) => cluster,
        Err(violation) => {
            findings.broken.push(Broken { violation, steps: Vec::new() });
            return findings;
        }
    };
    cluster.discards = matches!(way, Way::Walks { .. });
    let opening = cluster.opening.clone();
    let checker = cluster.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    match way {
        Way::Breadth { states, depth } => {
            let checker = checker.target_state_count(states).target_max_depth(depth).spawn_bfs();
            conclude(&mut findings, &opening, checker.join());
        }
        Way::Walks { seed, time } => {
            let checker = checker.timeout(time).target_max_depth(PATH_MAX);
            let checker = checker.spawn_simulation(seed, Wanderer);
            conclude(&mut findings, &opening, checker.join());
        }
    }
    findings.seconds = began.elapsed().as_secs_f64();
    findings
}

fn conclude(
    findings: &mut Findings,
    opening: &[String],
    checker: impl stateright::Checker<Cluster>,
) {
    findings.states = checker.state_count();
    // On random paths the checker does not compare one path's states with another's.
    findings.unique = (findings.way == "breadth").then(|| checker.unique_state_count());
    findings.depth = checker.max_depth();
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        let found = discoveries.get(property.name);
        match (&property.expectation, found) {
            (Expectation::Always, Some(path)) => {
                let steps = path.clone().into_actions();
                let steps = steps.iter().map(|step| format!("{step:?}"));
                let steps = opening.iter().cloned().chain(steps).collect();
                let violation = path.last_state().broken.clone();
                let violation = violation.unwrap_or_else(|| Violation::new(property.name, ""));
                findings.broken.push(Broken { violation, steps });
            }
            (Expectation::Sometimes, Some(_)) => findings.reached.push(property.name),
            (Expectation::Sometimes, None) => findings.missed.push(property.name),
            _ => {}
        }
    }
}

/// How a scene opens, step by step, and where it ends.
#[must_use]
pub fn describe_opening(scene: &Scene) -> String {
    let mut text = format!("{}: {}\n", scene.name, scene.about);
    match Cluster::new(scene, scene.bounds) {
        Ok(cluster) => {
            for (number, step) in (1..).zip(&cluster.opening) {
                writeln!(text, "  {number:>4}  {step}").expect("writing to a String");
            }
            let start = cluster.start();
            writeln!(text, "  then {start:?}").expect("writing to a String");
            if let Some(violation) = &start.broken {
                writeln!(text, "  BROKEN {violation}").expect("writing to a String");
            }
        }
        Err(violation) => writeln!(text, "  BROKEN {violation}").expect("writing to a String"),
    }
    text
}

/// The findings in words.
#[must_use]
pub fn describe(findings: &Findings) -> String {
    let Findings { scene, way, states, unique, depth, seconds, reached, missed, broken } = findings;
    let different = unique.map(|unique| format!(", {unique} of them different"));
    let different = different.unwrap_or_default();
    let mut text =
        format!("{scene}, {way}: {states} states{different}, depth {depth}, {seconds:.1} s\n");
    let mut list = |name: &str, items: &[&str]| {
        if !items.is_empty() {
            writeln!(text, "  {name}: {}", items.join(", ")).expect("writing to a String");
        }
    };
    list("reached", reached);
    list("not reached", missed);
    for Broken { violation, steps } in broken {
        writeln!(text, "  BROKEN {violation}\n  what has to happen:").expect("a String");
        for (number, step) in (1..).zip(steps) {
            writeln!(text, "  {number:>4}  {step}").expect("writing to a String");
        }
    }
    text
}
