//! What both views show, as it is drawn and as the page is sent it.

use serde::Serialize;

/// How a cluster is, and what was seen to happen to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Picture {
    /// Its name.
    pub cluster: String,
    /// When it was like that, in milliseconds of the wall clock.
    pub at: u64,
    /// How many may be faulty.
    pub faulty: u8,
    /// How many a weak answer needs.
    pub weak: usize,
    /// How many a strong one needs.
    pub strong: usize,
    /// Histories of which a replica that answers has one.
    pub histories: usize,
    /// How often two were seen to become one.
    pub merges: u64,
    /// Views that were seen to begin.
    pub views: u64,
    /// How many more voters may be lost before strong requests wait; how many are missing, if it is below zero.
    pub tolerance: i64,
    /// Requests executed a second, where that is known, the newest last.
    pub rates: Vec<f64>,
    /// The first slot that is shown, and the last one.
    pub axis: (u64, u64),
    /// In the order of their ids.
    pub replicas: Vec<Replica>,
    /// What is proven, of whom.
    pub charges: Vec<Charge>,
    /// What was seen to happen, the newest last.
    pub log: Vec<Line>,
}

/// How a replica is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replica {
    /// Its number.
    pub id: u8,
    /// Where it should be.
    pub address: String,
    /// Why it did not answer, if it did not.
    pub why_not: Option<String>,
    /// What it said, last.
    pub said: Option<Said>,
    /// Whether somebody holds a proof against it.
    pub is_convicted: bool,
}

/// What a replica says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Said {
    /// Whether it votes, in a word.
    pub standing: &'static str,
    /// The view that it has entered.
    pub view: u64,
    /// The primary of that.
    pub primary: u8,
    /// The view that it asks for.
    pub campaign: Option<u64>,
    /// The slot at the end of its history.
    pub head: u64,
    /// The beginning of the hash of it.
    pub hash: String,
    /// The last slot that a strong quorum has certified.
    pub lock: u64,
    /// The last one that will never be undone.
    pub stable: u64,
    /// Which of the histories it has: `A`, `B`, …
    pub history: String,
    /// Up to here its history is the same as all others, where there are others.
    pub shared: Option<u64>,
    /// How its connections are protected.
    pub transport: &'static str,
    /// Proofs that it says it holds.
    pub evidence: u64,
}

/// What is proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Charge {
    /// Who did it.
    pub culprit: u8,
    /// What it is, in one line.
    pub text: String,
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When, in milliseconds of the wall clock.
    pub at: u64,
    /// Of which kind.
    pub kind: Kind,
    /// What happened.
    pub text: String,
}

/// What kinds of things are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Histories parted.
    Split,
    /// Histories became one.
    Merge,
    /// A view began.
    View,
    /// Somebody was convicted.
    Evidence,
    /// A replica went, came back, or stands otherwise.
    Replica,
}

impl Picture {
    /// Whether strong requests are answered, and what that can bear, in words.
    pub fn tolerance_words(&self) -> String {
        match self.tolerance {
            lack @ ..0 => format!("strong requests wait: {} too few of one history", -lack),
            0 => "strong requests are answered, and none more may fail".to_owned(),
            more => format!("strong requests are answered, and {more} more may fail"),
        }
    }

    /// How many requests were executed in the last second, if it is known.
    pub fn rate(&self) -> Option<f64> {
        self.rates.last().copied()
    }
}
