//! Whether clients were served when they were owed it.
//!
//! From the faults that it makes itself, the harness knows at each instant which replicas serve,
//! which of them are connected, and whom each client reaches: the [`Timeline`]. An operation is
//! *owed* an answer where the same `f + 1` replicas (`Q` for a strong one) were up and connected with each
//! other and with its client, in both directions, from some time before it was asked for until its
//! bound had passed. Whether it is owed depends on that and on nothing that the cluster did: an
//! operation that is answered quickly is judged by the same span of time as one that is never
//! answered.
//!
//! What may be doubted is not owed: a replica counts as down from before it is struck until it has said
//! that it is ready, a way as broken until it is whole. Where the network or the disks of those
//! replicas are slow, the bound and the time before it grow with that.

pub mod timeline;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use elea_client::Level;
use elea_protocol::quorum::{ClusterSize, Strength};
use serde_json::{Value as Json, json};

pub use self::timeline::{Look, Timeline};
use crate::meter::index;

/// What is demanded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// How long an answer may take.
    pub bound: Duration,
    /// How long replicas must have been connected before.
    pub grace: Duration,
    /// The share of answers that must come in time, in percent.
    pub least: f64,
}

impl Default for Terms {
    fn default() -> Self {
        Self { bound: Duration::from_secs(3), grace: Duration::from_secs(3), least: 99.0 }
    }
}

/// So many of a hundred operations must be owed, or the run has shown nothing.
const OWED_PERCENT: u64 = 10;

/// And so many in all.
const OWED_LEAST: u64 = 50;

/// Late answers that are told one by one.
const SHOWN: usize = 200;

/// What one task asks for at its own pace and what is asked for steadily are told apart: whoever
/// waits for an answer asks for nothing meanwhile, and so counts a long outage once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many in a second, whatever becomes of them.
    Steady,
    /// The next one when the last one is answered.
    Eager,
}

/// One operation. Times are microseconds since the clients began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The number of the client.
    pub client: usize,
    /// For which answer.
    pub level: Level,
    /// How it came to be asked for.
    pub pace: Pace,
    /// Since the start of the run, in microseconds.
    pub at: u64,
    /// When the answer came, if one did.
    pub answered: Option<u64>,
    /// What it and its answer weigh.
    pub bytes: u64,
}

/// All operations of a run.
#[derive(Debug, Default)]
pub struct Requests(Mutex<Vec<Asked>>);

impl Requests {
    fn inner(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One is over.
    pub fn push(&self, asked: Asked) {
        self.inner().push(asked);
    }

    /// All of them so far.
    #[must_use]
    pub fn all(&self) -> Vec<Asked> {
        self.inner().clone()
    }
}

/// An answer that was owed and came too late, or never.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Late {
    /// To what.
    pub asked: Asked,
    /// How long it should have taken at most.
    pub bound: Duration,
}

/// How operations of one kind were served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Share {
    /// How many there were.
    pub asked: u64,
    /// How many were owed an answer.
    pub owed: u64,
    /// How many of those had it in time.
    pub in_time: u64,
}

impl Share {
    /// In percent.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    pub fn percent(&self) -> f64 {
        100.0 * self.in_time as f64 / (self.owed.max(1)) as f64
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Steady operations, weak and strong.
    pub steady: [Share; 2],
    /// All others, weak and strong.
    pub eager: [Share; 2],
    /// What was late, by the time it was asked for.
    pub late: Vec<Late>,
}

impl Service {
    /// Judges all operations.
    #[must_use]
    pub fn judge(terms: &Terms, size: ClusterSize, timeline: &Timeline, all: &[Asked]) -> Self {
        let mut look = Look::at(timeline);
        let mut service = Self::default();
        for asked in all {
            let shares = match asked.pace {
                Pace::Steady => &mut service.steady,
                Pace::Eager => &mut service.eager,
            };
            let share = &mut shares[index(asked.level)];
            share.asked += 1;
            let Some(bound) = owed(terms, size, &mut look, asked) else { continue };
            share.owed += 1;
            let took = asked.answered.map(|answered| answered.saturating_sub(asked.at));
            if took.is_some_and(|took| took <= micros(bound)) {
                share.in_time += 1;
            } else {
                service.late.push(Late { asked: *asked, bound });
            }
        }
        service.late.sort_by_key(|late| late.asked.at);
        service
    }

    /// What is not as it should be, if anything is.
    ///
    /// # Errors
    /// In words.
    pub fn verdict(&self, terms: &Terms) -> Result<(), String> {
        for (pace, shares) in [("steady", &self.steady), ("eager", &self.eager)] {
            for (level, share) in ["weak", "strong"].iter().zip(shares) {
                let (asked, owed) = (share.asked, share.owed);
                if owed < OWED_LEAST || owed * 100 < asked * OWED_PERCENT {
                    return Err(format!(
                        "{owed} of {asked} {pace} {level} operations were owed an answer: too few to \
                         show anything"
                    ));
                }
                if share.percent() < terms.least {
                    return Err(format!(
                        "{} of {owed} {pace} {level} operations that were owed an answer had it in \
                         time: {:.2} %, and {} % are due",
                        share.in_time,
                        share.percent(),
                        terms.least
                    ));
                }
            }
        }
        Ok(())
    }

    /// For the report.
    #[must_use]
    pub fn to_json(&self, terms: &Terms) -> Json {
        let share = |share: &Share| {
            json!({
                "asked": share.asked,
                "owed": share.owed,
                "in_time": share.in_time,
                "percent": (share.percent() * 1000.0).round() / 1000.0,
            })
        };
        let late = |late: &Late| {
            let took = late.asked.answered.map(|answered| answered.saturating_sub(late.asked.at));
            json!({
                "client": late.asked.client,
                "level": if index(late.asked.level) == 0 { "weak" } else { "strong" },
                "steady": late.asked.pace == Pace::Steady,
                "asked": seconds(late.asked.at),
                "took": took.map(seconds),
                "bound": late.bound.as_secs_f64(),
                "bytes": late.asked.bytes,
            })
        };
        json!({
            "bound_seconds": terms.bound.as_secs_f64(),
            "grace_seconds": terms.grace.as_secs_f64(),
            "percent_due": terms.least,
            "weak": { "steady": share(&self.steady[0]), "eager": share(&self.eager[0]) },
            "strong": { "steady": share(&self.steady[1]), "eager": share(&self.eager[1]) },
            "late": self.late.iter().take(SHOWN).map(late).collect::<Vec<_>>(),
            "late_spells": self.spells().into_iter().map(Spell::to_json).collect::<Vec<_>>(),
        })
    }

    /// Late answers that follow each other closely are one spell.
    #[must_use]
    pub fn spells(&self) -> Vec<Spell> {
        let mut spells: Vec<Spell> = Vec::new();
        for late in &self.late {
            let (at, level) = (late.asked.at, index(late.asked.level));
            match spells.last_mut() {
                Some(spell) if at.saturating_sub(spell.to) < SPELL => {
                    spell.to = at;
                    spell.count[level] += 1;
                }
                _ => {
                    let mut spell = Spell { from: at, to: at, count: [0; 2] };
                    spell.count[level] += 1;
                    spells.push(spell);
                }
            }
        }
        spells
    }
}

/// So long may nothing late be asked for within one spell, in microseconds.
const SPELL: u64 = 2_000_000;

/// A time in which answers were owed and late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spell {
    /// When the first of them was asked for.
    pub from: u64,
    /// And the last.
    pub to: u64,
    /// How many, weak and strong.
    pub count: [u64; 2],
}

impl Spell {
    fn to_json(self) -> Json {
        json!({
            "from": seconds(self.from),
            "to": seconds(self.to),
            "weak": self.count[0],
            "strong": self.count[1],
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn seconds(micros: u64) -> f64 {
    (micros / 1000) as f64 / 1000.0
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// How long its answer may take; `None` where none is owed.
fn owed(terms: &Terms, size: ClusterSize, look: &mut Look<'_>, asked: &Asked) -> Option<Duration> {
    let count = size.quorum(match asked.level {
        Level::Weak => Strength::Weak,
        Level::Strong => Strength::Strong,
    });
    let mut allowance = Duration::ZERO;
    loop {
        // Times grow with what is slow in them, and then there may be more in them.
        let (before, after) = (micros(terms.grace + allowance), micros(terms.bound + allowance));
        let from = i64::try_from(asked.at).ok()?.checked_sub_unsigned(before)?;
        let slowness = look.connected(asked.client, count, from, asked.at.saturating_add(after))?;
        let needed = slowness.allowance(asked.bytes);
        if needed <= allowance {
            return Some(terms.bound + allowance);
        }
        allowance = needed;
    }
}

#[cfg(test)]
mod tests;
