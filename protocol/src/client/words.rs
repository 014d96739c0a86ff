//! What replicas said about one request, and whether enough of them say the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::id::{Digest, ReplicaId, Slot, View};
use crate::message::{Reply, ReplyKind, ReplyVote, Results, SignedReply};
use crate::quorum::{ClusterSize, Strength, Tally};
use crate::receipt::Receipt;

/// Bytes of results that are kept for the sake of one replica, over all requests of a session. A
/// reply beyond that counts, but its results are taken from somebody else: a liar who sends large
/// ones wastes this much and no more.
pub(super) const RESULT_BYTES_PER_REPLICA: usize = 64 << 20;

/// One replica's reply, without the results.
#[derive(Clone, Debug)]
struct Word {
    view: View,
    slot: Slot,
    hash: Digest,
    index: u32,
    results: Digest,
    vote: ReplyVote,
}

impl Word {
    fn matches(&self, other: &Self) -> bool {
        let Self { view, slot, hash, index, results, vote: _ } = self;
        (*view, *slot, *hash, *index, *results)
            == (other.view, other.slot, other.hash, other.index, other.results)
    }
}

/// Results, kept once however many replicas sent them.
#[derive(Debug)]
struct Body {
    results: Vec<Bytes>,
    size: usize,
    /// On whose account.
    charged: ReplicaId,
}

/// How many bytes of results are kept on each replica's account.
#[derive(Debug, Default)]
pub(super) struct Accounts(BTreeMap<ReplicaId, usize>);

impl Accounts {
    pub(super) fn charge(&mut self, replica: ReplicaId, size: usize) -> bool {
        let account = self.0.entry(replica).or_default();
        let fits = account.saturating_add(size) <= RESULT_BYTES_PER_REPLICA;
        if fits {
            *account += size;
        }
        fits
    }

    pub(super) fn release(&mut self, replica: ReplicaId, size: usize) {
        if let Some(account) = self.0.get_mut(&replica) {
            *account = account.saturating_sub(size);
        }
    }
}

/// All that was said about one request.
#[derive(Debug, Default)]
pub(super) struct Words {
    speculative: Tally<Word>,
    committed: Tally<Word>,
    bodies: BTreeMap<Digest, Body>,
    /// Whether results were sent for which there was no room.
    turned_away: bool,
}

/// Enough replicas agree.
#[derive(Debug)]
pub(super) enum Agreed {
    /// What they say, with their votes.
    With(Box<Receipt>),
    /// The digest of the results is known, but not the results.
    WithoutResults,
}

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It counts.
    Counted,
    /// The same replica has spoken for a higher view already.
    Stale,
    /// It has not one result for each operation.
    Malformed,
}

impl Words {
    fn tally(&self, kind: ReplyKind) -> &Tally<Word> {
        match kind {
            ReplyKind::Speculative => &self.speculative,
            ReplyKind::Committed => &self.committed,
        }
    }

    /// Takes a replica's reply to a request of so many operations. It replaces what the same
    /// replica said before in the same or a lower view.
    pub fn hear(
        &mut self,
        signed: SignedReply,
        operations: usize,
        accounts: &mut Accounts,
    ) -> Heard {
        let SignedReply { reply, vote } = signed;
        let by = vote.by;
        let results = reply.results.digest();
        if let Results::Full(full) = &reply.results
            && full.len() != operations
        {
            return Heard::Malformed;
        }
        if self.tally(reply.kind).word(by).is_some_and(|word| word.view > reply.view) {
            return Heard::Stale;
        }
        let Reply { kind, view, slot, hash, index, .. } = reply;
        let word = Word { view, slot, hash, index, results, vote };
        match kind {
            ReplyKind::Speculative => self.speculative.hear(by, word),
            ReplyKind::Committed => self.committed.hear(by, word),
        };
        let size = reply.results.size();
        if let Results::Full(full) = reply.results
            && !self.bodies.contains_key(&results)
        {
            if accounts.charge(by, size) {
                self.bodies.insert(results, Body { results: full, size, charged: by });
            } else {
                self.turned_away = true;
            }
        }
        self.drop_unmentioned(accounts);
        Heard::Counted
    }

    /// Results that no replica's newest word mentions are of no use.
    fn drop_unmentioned(&mut self, accounts: &mut Accounts) {
        let both = || self.speculative.iter().chain(self.committed.iter());
        let mentioned: BTreeSet<Digest> = both().map(|(_, word)| word.results).collect();
        self.bodies.retain(|digest, body| {
            let keep = mentioned.contains(digest);
            if !keep {
                accounts.release(body.charged, body.size);
            }
            keep
        });
    }

    /// The best set of replies of this kind that match, if they are a quorum of this strength.
    pub fn agreed(
        &self,
        size: ClusterSize,
        kind: ReplyKind,
        strength: Strength,
        like: impl FnOnce(Results) -> Reply,
        genesis: Digest,
    ) -> Option<Agreed> {
        let tally = self.tally(kind);
        let (word, voters) = tally.iter().find_map(|(_, word)| {
            Some((word, tally.quorum(size, strength, |other| other.matches(word))?))
        })?;
        let Some(body) = self.bodies.get(&word.results) else {
            return Some(Agreed::WithoutResults);
        };
        let Word { view, slot, hash, index, .. } = *word;
        let named = like(Results::Full(body.results.clone()));
        let voted = tally.iter().filter(|(id, _)| voters.contains(id));
        Some(Agreed::With(Box::new(Receipt {
            genesis,
            reply: Reply { kind, view, slot, hash, index, ..named },
            votes: voted.map(|(_, word)| word.vote.clone()).collect(),
        })))
    }

    /// Whether results were sent for which there was no room; asked once, then forgotten.
    pub fn take_turned_away(&mut self) -> bool {
        std::mem::take(&mut self.turned_away)
    }

    /// The most replies of this kind that match.
    pub fn most_matching(&self, kind: ReplyKind) -> usize {
        let tally = self.tally(kind);
        let matching = |word: &Word| tally.iter().filter(|(_, w)| w.matches(word)).count();
        tally.iter().map(|(_, word)| matching(word)).max().unwrap_or(0)
    }

    /// Everyone who replied.
    pub fn heard(&self) -> BTreeSet<ReplicaId> {
        self.speculative.iter().chain(self.committed.iter()).map(|(id, _)| id).collect()
    }

    /// Forgets everything.
    pub fn clear(&mut self, accounts: &mut Accounts) {
        self.speculative.clear();
        self.committed.clear();
        self.drop_unmentioned(accounts);
    }
}
