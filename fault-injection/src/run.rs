//! One seed, from its beginning to its verdict.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use serde::Serialize;

use crate::check::reexecute;
use crate::coverage::Coverage;
use crate::plan::{Goal, Plan};
use crate::subject::Subject;
use crate::violation::{Violation, demand};
use crate::world::World;

/// How long a healed world has until everybody agrees, in microseconds of its time.
const PATIENCE: u64 = 60_000_000;

/// How long a world goes on after that, to see that it stays so.
const AFTERWARDS: u64 = 500_000;

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

/// Runs the world of a seed.
#[must_use]
pub fn seed<S: Subject>(seed: u64, verbose: bool) -> Report {
    plan::<S>(Plan::swarm(seed), verbose)
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
    let heal_at = world.plan.heal_at;
    run_until(world, heal_at)?;
    match world.plan.goal {
        Goal::SafetyOnly => run_until(world, heal_at + 2 * AFTERWARDS),
        Goal::Convergence => {
            let mut at = heal_at;
            while discord(world).is_some() {
                at += 50_000;
                if at > heal_at + PATIENCE {
                    let what = discord(world).unwrap_or_default();
                    return Err(Violation::new("liveness", what));
                }
                run_until(world, at)?;
            }
            run_until(world, at + AFTERWARDS)?;
            verdict(world)
        }
    }
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

/// Why the world is not at rest yet.
fn discord<S: Subject>(world: &World<S>) -> Option<String> {
    let heads: Vec<String> = world
        .correct()
        .filter_map(|node| {
            let core = node.core.as_ref()?;
            let lock = core.lock().map_or(0, |lock| lock.commit.slot.0);
            Some(format!("{} {} {:?} lock {lock}", node.id, core.head().slot, core.head().hash))
        })
        .collect();
    let mut positions = world.correct().filter_map(|node| {
        let core = node.core.as_ref()?;
        let lock = core.lock().map_or(0, |lock| lock.commit.slot.0);
        Some((core.head(), lock == core.head().slot.0))
    });
    let first = positions.next();
    let agreed = first.is_none_or(|(head, locked)| {
        locked && positions.all(|(other, locked)| locked && other == head)
    });
    let open = world.clients.open();
    // What waits at a correct replica may still be ordered: hostile clients' requests, too.
    let waiting: usize =
        world.correct().filter_map(|node| Some(node.core.as_ref()?.footprint().pending)).sum();
    if agreed && open == 0 && waiting == 0 {
        return None;
    }
    let complaints: Vec<String> =
        world.clients.patrons.iter().map(crate::patron::Patron::complaint).collect();
    Some(format!(
        "{open} submissions open, {waiting} requests waiting, heads {heads:?}; {complaints:?}"
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
    let mut fresh = S::application();
    let executed = reexecute(&world.checker.histories, head.hash, &mut fresh)?;
    world.checker.outcomes.check(&executed)?;
    let mut states = Vec::new();
    for node in &mut world.nodes {
        if let (true, Some(core)) = (node.is_correct(), &mut node.core) {
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
