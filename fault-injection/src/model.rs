//! Model checking: the real core, explored state by state with `stateright`.
//!
//! A seed of the [simulator](crate::world) is one path through what can happen. Here every path is
//! meant, within bounds: from the situations in [`scene`], letters arrive in any order or never,
//! time passes on any machine, machines start again, and a liar says what it likes to whom it
//! likes. The replicas are [`Replica`]s and not a model of them;
//! what is modelled is the world around them:
//!
//! | file | what is in it |
//! |---|---|
//! | `scene` | where explorations begin, and their bounds |
//! | `opening` | how the opening of a scene is played |
//! | `cast` | identities, settings and requests of a scene |
//! | `situation` | a state: machines, letters, checkers; and what follows from a step |
//! | `machine` | one replica with its disk, which syncs at once, or not before the power goes |
//! | `letter` | what is under way, in words |
//! | `liars` | what is said by who holds a key and keeps no rule |
//! | `answers` | what clients could have been told |
//! | `wanderer` | which of the steps a random path takes |
//! | `explore` | breadth first within bounds, or at random for a long time |
//!
//! The rules are those of [`check`](crate::check), fed with everything that leaves a replica, and
//! asked in every state.

mod answers;
mod cast;
pub mod explore;
mod letter;
mod liars;
mod machine;
mod opening;
pub mod scene;
mod situation;
mod wanderer;

use std::sync::Arc;

use elea_protocol::edition::Edition;
use elea_protocol::replica::Replica;
use stateright::{Model, Property};

pub use self::cast::Cast;
pub use self::letter::{Letter, Place, Step, Words};
pub use self::scene::{Limits, Scene};
pub use self::situation::Situation;
use crate::inspect;
use crate::journal::Journal;
use crate::violation::Violation;

/// A scene, ready to be explored.
pub struct Cluster {
    cast: Arc<Cast>,
    bounds: Limits,
    start: Situation,
    /// Whether a letter that changes nothing is gone when it arrives. A search leaves it under way
    /// and has fewer states; a random path would try it again and again.
    discards: bool,
    /// How the opening came to where the exploration begins, in words.
    pub opening: Vec<String>,
}

impl Cluster {
    /// Where the exploration begins.
    #[must_use]
    pub fn start(&self) -> &Situation {
        &self.start
    }

    /// Plays the scene's opening, up to where a rule is broken in it, if one is.
    ///
    /// # Errors
    /// A replica does not start.
    pub fn new(scene: &Scene, bounds: Limits) -> Result<Self, Violation> {
        let cast = Arc::new(Cast::new(scene));
        let start = Situation::new(&cast)?;
        let mut cluster =
            Self { cast, bounds, start: start.clone(), discards: false, opening: Vec::new() };
        let (start, opening) = cluster.open(scene.opening, start);
        (cluster.start, cluster.opening) = (start, opening);
        Ok(cluster)
    }

    /// What a correct core counted, by the counter's name, most of all of them.
    fn counted(&self, situation: &Situation, name: &str) -> u64 {
        let correct = situation.correct(&self.cast);
        correct.map(|machine| count_of(&machine.core, name)).max().unwrap_or(0)
    }
}

/// What a core counted under this name since it started.
fn count_of(core: &Replica<Journal>, name: &str) -> u64 {
    let counters = inspect::counters(core).into_iter();
    counters.filter(|(known, _)| *known == name).map(|(_, count)| count).sum()
}

fn keeps(situation: &Situation, rules: &[&str]) -> bool {
    situation.broken.as_ref().is_none_or(|found| !rules.contains(&found.rule.as_str()))
}

/// The rules that have a property of their own. What else can be broken is the harness' own.
const NAMED: &[&str] =
    &["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I10", "strong", "durable", "core"];

impl Model for Cluster {
    type State = Situation;
    type Action = Step;

    fn init_states(&self) -> Vec<Situation> {
        vec![self.start.clone()]
    }

    fn actions(&self, state: &Situation, actions: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        actions.extend(state.flying.iter().cloned().map(Step::Deliver));
        let restarts: u32 = state.machines.iter().map(|machine| machine.restarts).sum();
        let may_restart = |id| restarts < self.bounds.restarts && !self.cast.liars.contains(&id);
        let leaves: u32 = state.machines.iter().map(|machine| machine.leaves).sum();
        let may_leave = leaves < self.bounds.leaves;
        let falls = state.flying.iter().filter(|letter| may_restart(letter.to.id));
        actions.extend(falls.cloned().map(Step::Fall));
        for place in &self.cast.places {
            if state.machines[place.index].ticks < self.bounds.ticks {
                actions.push(Step::Tick(*place));
            }
            if may_leave && !self.cast.liars.contains(&place.id) {
                actions.push(Step::Leave(*place));
            }
            if may_restart(place.id) {
                actions.push(Step::Restart(*place));
            }
        }
    }

    fn next_state(&self, state: &Situation, step: Step) -> Option<Situation> {
        match (state.after(&self.cast, &step), step) {
            (None, Step::Deliver(letter)) if self.discards => Some(state.without(&letter)),
            (next, _) => next,
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1 one history per view", |_, at| keeps(at, &["I1"])),
            Property::always("I2 completed is forever", |_, at| keeps(at, &["I2"])),
            Property::always("I3 stable agreement", |_, at| keeps(at, &["I3"])),
            Property::always("I4 exactly once", |_, at| keeps(at, &["I4"])),
            Property::always("I5 nothing lost", |_, at| keeps(at, &["I5"])),
            Property::always("I6 chain", |_, at| keeps(at, &["I6"])),
            Property::always("I7 no contradiction", |_, at| keeps(at, &["I7"])),
            Property::always("I10 bounded", |_, at| keeps(at, &["I10"])),
            Property::always("final answers agree", |_, at| keeps(at, &["strong"])),
            Property::always("what is said is on disk", |_, at| keeps(at, &["durable"])),
            Property::always("the core's own assertions", |_, at| keeps(at, &["core"])),
            Property::always("every other rule", |_, at: &Situation| {
                at.broken.as_ref().is_none_or(|found| NAMED.contains(&found.rule.as_str()))
            }),
            Property::sometimes("a later view", |me, at| me.counted(at, "views_entered") > 0),
            Property::sometimes("a weak view", |me, at| me.counted(at, "weak_views_entered") > 0),
            Property::sometimes("a merge", |me, at| me.counted(at, "merges") > 0),
            Property::sometimes("an orphan", |me, at| me.counted(at, "orphans") > 0),
            Property::sometimes("a commit certificate", |me, at| {
                me.counted(at, "certificates") > 0
            }),
            Property::sometimes("a certificate of a later view", |me: &Self, at: &Situation| {
                let locks = at.correct(&me.cast).filter_map(|machine| machine.core.lock());
                locks.into_iter().any(|lock| lock.body.view.0 > 0)
            }),
            Property::sometimes("an equivocation proved", |me, at| me.counted(at, "proofs") > 0),
            Property::sometimes("a lock aside", |me, at| me.counted(at, "locks_aside") > 0),
            Property::sometimes("a stable checkpoint", |me, at| {
                me.counted(at, "checkpoints_stable") > 0
            }),
            Property::sometimes("a final answer", |_, at: &Situation| at.answers.finals() > 0),
            Property::sometimes("a restart", |_, at: &Situation| {
                at.machines.iter().any(|machine| machine.restarts > 0)
            }),
            Property::sometimes("a newer edition", |_, at: &Situation| {
                let newer = |edition: Edition| edition.application > 1;
                at.machines.iter().any(|machine| newer(machine.core.history().choices().edition))
            }),
            Property::sometimes("a view handed on", |me, at| {
                me.counted(at, "resignations") > 0
                    && at.machines.iter().any(|machine| machine.leaves > 0)
            }),
            Property::sometimes("something said and forgotten", |_, at: &Situation| {
                at.machines.iter().any(|machine| machine.falls > 0)
            }),
        ]
    }

    fn within_boundary(&self, state: &Situation) -> bool {
        let view = state.correct(&self.cast).map(|machine| machine.core.entered().0).max();
        view.unwrap_or(0) <= self.bounds.view
    }
}

#[cfg(test)]
mod tests;
