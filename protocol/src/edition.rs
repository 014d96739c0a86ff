//! Which version of the rules a slot is executed by (protocol.md, 2.14).
//!
//! A program that is updated may execute differently, and replicas are updated one after the other. So
//! each slot names its edition, and every replica that executes it does so by the same rules, whichever
//! program it runs, and also when the slot is executed anew.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::codec::Sink;

/// The editions of the protocol's own rules that this crate executes: what it makes of requests, sessions and
/// checkpoints. A change of them is a new edition; the old one stays until no history holds it.
pub const PROTOCOL_EDITIONS: RangeInclusive<u16> = 1..=1;

/// The rules by which a slot is executed: the protocol's own, and those of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Edition {
    /// One of [`PROTOCOL_EDITIONS`].
    pub protocol: u16,
    /// One of [`Application::editions`](crate::application::Application::editions).
    pub application: u16,
}

impl Edition {
    /// What every cluster begins with.
    pub const FIRST: Self = Self { protocol: 1, application: 1 };

    /// Whether a slot of this edition may follow on one of that: neither number is lower.
    #[must_use]
    pub const fn may_follow(self, before: Self) -> bool {
        self.protocol >= before.protocol && self.application >= before.application
    }

    /// Of these the highest but `index`, number by number; none where they are fewer.
    pub(crate) fn ranked(all: impl IntoIterator<Item = Self>, index: usize) -> Option<Self> {
        let all: Vec<Self> = all.into_iter().collect();
        let ranked = |number: fn(&Self) -> u16| {
            let mut numbers: Vec<u16> = all.iter().map(number).collect();
            numbers.sort_unstable_by(|a, b| b.cmp(a));
            numbers.get(index).copied()
        };
        let (protocol, application) = (ranked(|one| one.protocol)?, ranked(|one| one.application)?);
        Some(Self { protocol, application })
    }

    /// The higher of both, number by number.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            protocol: self.protocol.max(other.protocol),
            application: self.application.max(other.application),
        }
    }

    /// The lower of both, number by number.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            protocol: self.protocol.min(other.protocol),
            application: self.application.min(other.application),
        }
    }

    pub(crate) fn write(&self, to: &mut impl Sink) {
        to.put(&self.protocol.to_le_bytes());
        to.put(&self.application.to_le_bytes());
    }
}

impl Default for Edition {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.protocol, self.application)
    }
}

/// What a program can execute: each number from that of the lowest edition to that of the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Editions {
    /// The lower ends.
    pub lowest: Edition,
    /// The upper ends.
    pub newest: Edition,
}

impl Editions {
    /// Those of this crate with an application that executes these.
    #[must_use]
    pub const fn with(application: RangeInclusive<u16>) -> Self {
        let protocol = PROTOCOL_EDITIONS;
        Self {
            lowest: Edition { protocol: *protocol.start(), application: *application.start() },
            newest: Edition { protocol: *protocol.end(), application: *application.end() },
        }
    }

    /// Whether slots of this edition can be executed.
    #[must_use]
    pub const fn include(&self, edition: Edition) -> bool {
        edition.may_follow(self.lowest) && self.newest.may_follow(edition)
    }

    pub(crate) fn write(&self, to: &mut impl Sink) {
        self.lowest.write(to);
        self.newest.write(to);
    }
}

impl fmt::Display for Editions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.newest {
            self.newest.fmt(f)
        } else {
            write!(f, "{} to {}", self.lowest, self.newest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn edition(protocol: u16, application: u16) -> Edition {
        Edition { protocol, application }
    }

    #[test]
    fn neither_number_ever_falls() {
        assert!(edition(1, 2).may_follow(edition(1, 2)) && edition(2, 2).may_follow(edition(1, 2)));
        assert!(
            !edition(2, 1).may_follow(edition(1, 2)) && !edition(1, 9).may_follow(edition(2, 1))
        );
        assert_eq!(edition(1, 5).min(edition(2, 4)), edition(1, 4));
        assert_eq!(edition(1, 5).max(edition(2, 4)), edition(2, 5));
        let all = [edition(1, 5), edition(2, 4), edition(0, 9)];
        assert_eq!(Edition::ranked(all, 1), Some(edition(1, 5)));
        assert_eq!(Edition::ranked(all, 3), None);
    }

    #[test]
    fn a_program_executes_what_lies_between_its_ends_number_by_number() {
        let editions = Editions { lowest: edition(1, 3), newest: edition(2, 5) };
        for included in [edition(1, 3), edition(2, 3), edition(1, 5)] {
            assert!(editions.include(included), "{included}");
        }
        for other in [edition(0, 3), edition(1, 2), edition(3, 3), edition(1, 6), edition(0, 4)] {
            assert!(!editions.include(other), "{other}");
        }
        assert_eq!(editions.to_string(), "1.3 to 2.5");
        assert_eq!(Editions::with(4..=4).to_string(), "1.4");
    }
}
