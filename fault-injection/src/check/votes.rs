//! What replicas sign: I1, I3 and I7, and with [`Completed`] I2.
//!
//! Nothing here knows the simulator. The methods in the present tense ([`Votes::orders`]) are for
//! words that are seen in the sequence in which they left the replica; those in the past tense
//! ([`Votes::ordered`]) are for words that were found anywhere, as on the wires between real
//! processes, where two connections of one replica have no common sequence.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::message::{
    Checkpoint, Commit, CommitCertificate, NewViewHeader, Position, StableProof, ViewChange,
};
use elea_protocol::quorum::ClusterSize;

use super::{Ancestry, Completed, Histories};
use crate::violation::{Violation, demand};

/// Everything one correct replica ever signed and sent.
#[derive(Clone, Default)]
struct Said {
    orders: HashMap<(View, Slot), Digest>,
    commits: HashMap<(View, Slot), Digest>,
    checkpoints: HashMap<(View, Slot), (Digest, Digest)>,
    new_views: HashMap<View, NewViewHeader>,
    suspected: BTreeSet<View>,
    /// View changes, by their stamps.
    changes: BTreeSet<u64>,
    newest_view: View,
    /// The view entered and its entry slot, as it runs.
    entered: View,
    entries: BTreeMap<View, Slot>,
    lock: Option<(View, Slot)>,
}

/// Votes and certificates of a world.
#[derive(Clone)]
pub struct Votes {
    /// A strong quorum, stated a second time: any two share more than `f` members.
    strong: usize,
    said: Vec<Said>,
    /// Who voted for what, correct or not.
    tallies: HashMap<(View, Slot, Digest), BTreeSet<ReplicaId>>,
    /// What is certified, by view and slot.
    certified: BTreeMap<View, BTreeMap<Slot, Digest>>,
    stable: BTreeMap<Slot, (Digest, Digest)>,
    /// What must be in every later history.
    pub completed: Completed,
    /// Certificates that the votes of the world could make.
    pub certificates: u64,
}

impl Votes {
    /// Nobody has voted.
    #[must_use]
    pub fn new(size: ClusterSize) -> Self {
        let (n, f) = (usize::from(size.replicas()), usize::from(size.faulty()));
        let strong = (1..=n).find(|q| 2 * q > n + f).unwrap_or(n);
        Self {
            strong,
            said: vec![Said::default(); n],
            tallies: HashMap::new(),
            certified: BTreeMap::new(),
            stable: BTreeMap::new(),
            completed: Completed::new(n, f),
            certificates: 0,
        }
    }

    fn said(&mut self, who: ReplicaId) -> &mut Said {
        &mut self.said[usize::from(who.0)]
    }

    /// A correct replica says that it stands in `view`, or signs something of it.
    ///
    /// # Errors
    /// I7: it stood higher before.
    pub fn stands(&mut self, who: ReplicaId, view: View) -> Result<(), Violation> {
        let said = self.said(who);
        demand(said.newest_view <= view, "I7", || {
            format!("{who} signs something of {view} after something of {}", said.newest_view)
        })?;
        said.newest_view = view;
        Ok(())
    }

    /// A correct replica orders.
    ///
    /// # Errors
    /// I7: it ordered something else there.
    pub fn orders(
        &mut self,
        who: ReplicaId,
        view: View,
        slot: Slot,
        hash: Digest,
    ) -> Result<(), Violation> {
        if self.ordered(who, view, slot, hash)? { self.stands(who, view) } else { Ok(()) }
    }

    /// An order of a correct replica was found, in whatever sequence and whoever passed it on.
    /// Answers whether it is a new one.
    ///
    /// # Errors
    /// I7: it ordered something else there.
    pub fn ordered(
        &mut self,
        who: ReplicaId,
        view: View,
        slot: Slot,
        hash: Digest,
    ) -> Result<bool, Violation> {
        let (first, is_new) = once(&mut self.said(who).orders, (view, slot), hash);
        demand(first == hash, "I7", || {
            format!("{who} orders {first:?} and {hash:?} for slot {slot} of {view}")
        })?;
        Ok(is_new)
    }

    /// Whether a replica ordered something in this view that is nowhere in what it `remembers`.
    pub fn has_ordered_beyond(
        &mut self,
        who: ReplicaId,
        view: View,
        remembers: impl Fn(&Digest) -> bool,
    ) -> bool {
        let mut orders = self.said(who).orders.iter();
        orders.any(|((of, _), hash)| *of == view && !remembers(hash))
    }

    /// A correct replica begins a view.
    ///
    /// # Errors
    /// I7: it began it otherwise before.
    pub fn begins(&mut self, who: ReplicaId, header: NewViewHeader) -> Result<(), Violation> {
        if self.begun(who, header)? { self.stands(who, header.view) } else { Ok(()) }
    }

    /// A new view of a correct replica was found, as [`Votes::ordered`] finds orders.
    ///
    /// # Errors
    /// I7: it began it otherwise, too.
    pub fn begun(&mut self, who: ReplicaId, header: NewViewHeader) -> Result<bool, Violation> {
        let view = header.view;
        let (first, is_new) = once(&mut self.said(who).new_views, view, header);
        demand(first == header, "I7", || {
            format!("{who} begins {view} twice: {first:?} and {header:?}")
        })?;
        Ok(is_new)
    }

    /// A correct replica suspects the primary of the view it has entered, or of a later one that it may not
    /// enter: so that tells nothing of where it stands.
    ///
    /// # Errors
    /// I7: it has entered a later one.
    pub fn suspects(&mut self, who: ReplicaId, view: View) -> Result<(), Violation> {
        let said = self.said(who);
        let is_new = said.suspected.insert(view);
        demand(!is_new || said.newest_view <= view, "I7", || {
            format!("{who} suspects {view} after it signed something of {}", said.newest_view)
        })
    }

    /// A correct replica asks for a view.
    ///
    /// # Errors
    /// I7: it names a view as entered that is below one that it has entered.
    pub fn campaigns(&mut self, who: ReplicaId, change: &ViewChange) -> Result<(), Violation> {
        if self.said(who).changes.insert(change.stamp) {
            self.stands(who, change.entered)?;
        }
        Ok(())
    }

    /// A correct replica has entered a view at this slot, as far as it knows.
    ///
    /// # Errors
    /// I7: it was in a later view, or entered this one at another slot.
    pub fn entered(&mut self, who: ReplicaId, view: View, slot: Slot) -> Result<(), Violation> {
        let said = self.said(who);
        demand(said.entered <= view, "I7", || {
            format!("{who} goes back from {} to {view}", said.entered)
        })?;
        said.entered = view;
        let first = *said.entries.entry(view).or_insert(slot);
        demand(first == slot, "I7", || format!("{who} entered {view} at {first} and at {slot}"))
    }

    /// A correct replica votes for a prefix.
    ///
    /// # Errors
    /// I7: it voted for another one, or below the slot at which it entered the view; I1: with this
    /// vote two are certified.
    pub fn commits(
        &mut self,
        who: ReplicaId,
        commit: Commit,
        histories: Option<&Histories>,
    ) -> Result<(), Violation> {
        if self.committed(who, commit)? {
            self.stands(who, commit.view)?;
        }
        let said = self.said(who);
        let entry = said.entries.get(&commit.view).copied().unwrap_or_default();
        demand(commit.slot >= entry, "I7", || {
            format!("{who} entered {} at {entry} and votes at {}", commit.view, commit.slot)
        })?;
        match histories {
            Some(histories) => self.tally(who, commit, histories),
            None => Ok(()),
        }
    }

    /// A vote of a correct replica was found, as [`Votes::ordered`] finds orders.
    ///
    /// # Errors
    /// I7: it voted for another prefix.
    pub fn committed(&mut self, who: ReplicaId, commit: Commit) -> Result<bool, Violation> {
        let Commit { view, slot, hash } = commit;
        let (first, is_new) = once(&mut self.said(who).commits, (view, slot), hash);
        demand(first == hash, "I7", || {
            format!("{who} votes for {first:?} and {hash:?} at slot {slot} of {view}")
        })?;
        Ok(is_new)
    }

    /// A correct replica votes for a state.
    ///
    /// # Errors
    /// I7: it voted for another one.
    pub fn checkpoints(&mut self, who: ReplicaId, vote: Checkpoint) -> Result<(), Violation> {
        if self.vouched(who, vote)? { self.stands(who, vote.view) } else { Ok(()) }
    }

    /// A vote of a correct replica for a state was found, as [`Votes::ordered`] finds orders.
    ///
    /// # Errors
    /// I7: it voted for another state.
    pub fn vouched(&mut self, who: ReplicaId, vote: Checkpoint) -> Result<bool, Violation> {
        let word = (vote.hash, vote.state);
        let at = (vote.view, vote.slot);
        let (first, is_new) = once(&mut self.said(who).checkpoints, at, word);
        demand(first == word, "I7", || {
            format!("{who} votes for two states at slot {} of {}", vote.slot, vote.view)
        })?;
        Ok(is_new)
    }

    /// Somebody's vote, correct or not, is in the world.
    ///
    /// # Errors
    /// I1: it makes a certificate that contradicts another.
    pub fn tally(
        &mut self,
        who: ReplicaId,
        commit: Commit,
        histories: &impl Ancestry,
    ) -> Result<(), Violation> {
        let Commit { view, slot, hash } = commit;
        let voters = self.tallies.entry((view, slot, hash)).or_default();
        if voters.insert(who) && voters.len() == self.strong {
            self.certificate(commit, histories)?;
        }
        Ok(())
    }

    /// A certificate with good signatures is in the world.
    ///
    /// # Errors
    /// As [`Votes::certificate`].
    pub fn seen(
        &mut self,
        certificate: &CommitCertificate,
        histories: &impl Ancestry,
    ) -> Result<(), Violation> {
        let commit = certificate.body;
        let voters = self.tallies.entry((commit.view, commit.slot, commit.hash)).or_default();
        voters.extend(certificate.votes.keys());
        self.certificate(commit, histories)
    }

    /// There is a certificate for this.
    ///
    /// # Errors
    /// I1: another of the same view contradicts it.
    pub fn certificate(
        &mut self,
        commit: Commit,
        histories: &impl Ancestry,
    ) -> Result<(), Violation> {
        let Commit { view, slot, hash } = commit;
        let certified = self.certified.entry(view).or_default();
        let other = certified.get(&slot).copied();
        if other == Some(hash) {
            return Ok(());
        }
        let conflict = |at: Slot, one: Digest, two: Digest| {
            Violation::new(
                "I1",
                format!("{view} has two certificates for slot {at}: {one:?}, {two:?}"),
            )
        };
        if let Some(other) = other {
            return Err(conflict(slot, other, hash));
        }
        demand(histories.knows(&hash), "I1", || {
            format!("a certificate for slot {slot} of {view} covers what no correct replica had")
        })?;
        let below = certified.range(..slot).next_back().map(|(slot, hash)| (*slot, *hash));
        let above = certified.range(slot..).next().map(|(slot, hash)| (*slot, *hash));
        if let Some((at, known)) = below
            && let Some(mine) = histories.ancestor(hash, at)
            && mine != known
        {
            return Err(conflict(at, known, mine));
        }
        if let Some((_, known)) = above
            && let Some(theirs) = histories.ancestor(known, slot)
            && theirs != hash
        {
            return Err(conflict(slot, theirs, hash));
        }
        certified.insert(slot, hash);
        self.certificates += 1;
        self.completed.certified(view, Position { slot, hash }, histories)
    }

    /// A state is certified.
    ///
    /// # Errors
    /// I3: another is, at the same slot; I1 or I2: so is another history.
    pub fn stable(
        &mut self,
        proof: &StableProof,
        histories: &impl Ancestry,
    ) -> Result<(), Violation> {
        let vote = proof.checkpoint.body;
        self.state(vote)?;
        self.seen(&proof.cover, histories)?;
        self.completed.stable(vote.view, proof.position(), histories)
    }

    /// This state is certified.
    ///
    /// # Errors
    /// I3: another is, at the same slot.
    pub fn state(&mut self, vote: Checkpoint) -> Result<(), Violation> {
        let word = (vote.hash, vote.state);
        let first = *self.stable.entry(vote.slot).or_insert(word);
        demand(first == word, "I3", || {
            format!("two stable checkpoints at slot {}: {first:?} and {word:?}", vote.slot)
        })
    }

    /// A correct replica holds this lock.
    ///
    /// # Errors
    /// I7: it had a higher one; I1: it contradicts another certificate.
    pub fn lock(
        &mut self,
        who: ReplicaId,
        commit: Commit,
        histories: &impl Ancestry,
    ) -> Result<(), Violation> {
        let rank = (commit.view, commit.slot);
        let said = self.said(who);
        if said.lock == Some(rank) {
            return Ok(());
        }
        demand(said.lock <= Some(rank), "I7", || {
            format!("{who} gives up its lock {:?} for {rank:?}", said.lock)
        })?;
        said.lock = Some(rank);
        // Its own vote may still wait for its disk, as everything does that rests on the lock.
        let voters = self.tallies.get(&(commit.view, commit.slot, commit.hash));
        let others = voters.map_or(0, |voters| voters.iter().filter(|id| **id != who).count());
        demand(others + 1 >= self.strong, "I1", || {
            format!("{who} is locked on slot {} without a strong quorum of votes", commit.slot)
        })?;
        self.certificate(commit, histories)
    }

    /// A replica lost its memory, and its disk has it in this view: its lock may be an older one, as
    /// long as nothing rested on it, and it may enter later views anew.
    pub fn crashed(&mut self, who: ReplicaId, entered: View) {
        let said = self.said(who);
        said.lock = None;
        said.entered = entered;
        said.entries.retain(|view, _| *view <= entered);
    }
}

/// Keeps the first value of a key. Answers with that, and whether there was none before.
fn once<K: Eq + Hash, V: Copy>(map: &mut HashMap<K, V>, key: K, value: V) -> (V, bool) {
    match map.entry(key) {
        Entry::Occupied(known) => (*known.get(), false),
        Entry::Vacant(room) => (*room.insert(value), true),
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::tests::Stage;
    use super::*;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    fn votes() -> Votes {
        Votes::new(ClusterSize::new(4, 1).expect("a valid size"))
    }

    fn rule(found: Result<(), Violation>) -> String {
        found.expect_err("a violation").rule
    }

    #[test]
    fn two_orders_two_votes_or_two_states_for_one_slot_break_i7() {
        let who = ReplicaId(0);
        let mut votes = votes();
        let (view, slot) = (View(0), Slot(3));
        assert!(votes.orders(who, view, slot, A).is_ok());
        assert!(votes.orders(who, view, slot, A).is_ok());
        assert_eq!(rule(votes.orders(who, view, slot, B)), "I7");
        assert!(votes.commits(who, Commit { view, slot, hash: A }, None).is_ok());
        assert_eq!(rule(votes.commits(who, Commit { view, slot, hash: B }, None)), "I7");
        let vote = Checkpoint { view, slot, hash: A, state: A };
        assert!(votes.checkpoints(who, vote).is_ok());
        assert_eq!(rule(votes.checkpoints(who, Checkpoint { state: B, ..vote })), "I7");
        assert!(votes.stands(who, View(2)).is_ok());
        assert_eq!(rule(votes.stands(who, View(1))), "I7");
    }

    fn header(view: u64, hash: Digest) -> NewViewHeader {
        let head = Position { slot: Slot(3), hash };
        NewViewHeader { view: View(view), head, changes: A }
    }

    #[test]
    fn two_new_views_for_one_view_break_i7() {
        let who = ReplicaId(1);
        let mut votes = votes();
        assert!(votes.begins(who, header(1, A)).is_ok());
        assert!(votes.begins(who, header(1, A)).is_ok());
        assert_eq!(rule(votes.begins(who, header(1, B))), "I7");
        assert!(votes.begins(who, header(5, B)).is_ok());
        assert_eq!(rule(votes.begins(who, header(3, B))), "I7", "it is in a later view");
    }

    #[test]
    fn a_vote_below_the_entry_slot_breaks_i7() {
        let who = ReplicaId(1);
        let mut votes = votes();
        assert!(votes.entered(who, View(2), Slot(5)).is_ok());
        let commit = |slot| Commit { view: View(2), slot: Slot(slot), hash: A };
        assert!(votes.commits(who, commit(5), None).is_ok());
        assert_eq!(rule(votes.commits(who, commit(4), None)), "I7");
        assert_eq!(rule(votes.entered(who, View(2), Slot(4))), "I7");
        assert_eq!(rule(votes.entered(who, View(1), Slot(0))), "I7");
        votes.crashed(who, View(0));
        assert!(votes.entered(who, View(1), Slot(1)).is_ok(), "what was not on disk is undone");
    }

    #[test]
    fn nothing_new_is_said_in_a_view_that_was_left() {
        let who = ReplicaId(1);
        let mut votes = votes();
        assert!(votes.suspects(who, View(1)).is_ok());
        assert!(votes.stands(who, View(2)).is_ok());
        assert!(votes.suspects(who, View(1)).is_ok(), "said before");
        assert_eq!(rule(votes.suspects(who, View(0))), "I7");
        assert!(votes.suspects(who, View(3)).is_ok() && votes.stands(who, View(2)).is_ok());
        let change = ViewChange {
            view: View(4),
            campaign: View(4),
            entered: View(1),
            lock: None,
            stable: Slot(0),
            head: Position { slot: Slot(3), hash: A },
            stamp: 7,
        };
        assert_eq!(rule(votes.campaigns(who, &change)), "I7");
        let commit = Commit { view: View(1), slot: Slot(3), hash: A };
        assert_eq!(rule(votes.commits(who, commit, None)), "I7");
        assert_eq!(rule(votes.orders(who, View(1), Slot(3), A)), "I7");
    }

    #[test]
    fn certificates_of_one_view_for_two_histories_break_i1() {
        let stage = Stage::new();
        let mut histories = stage.histories();
        let left = stage.chain(&[&[1], &[2]], 0);
        let right = stage.chain(&[&[3], &[2]], 0);
        for (who, fake) in [(ReplicaId(1), &left), (ReplicaId(2), &right)] {
            histories.follow(who, fake, &stage.membership).expect("sound");
        }
        let commit = |fake: &super::super::histories::tests::Fake, slot: u64| Commit {
            view: View(0),
            slot: Slot(slot),
            hash: fake.slots[usize::try_from(slot).expect("small") - 1].hash,
        };
        let mut same_slot = votes();
        assert!(same_slot.certificate(commit(&left, 2), &histories).is_ok());
        assert_eq!(rule(same_slot.certificate(commit(&right, 2), &histories)), "I1");
        let mut lower = votes();
        assert!(lower.certificate(commit(&left, 2), &histories).is_ok());
        assert_eq!(rule(lower.certificate(commit(&right, 1), &histories)), "I1");
        let mut by_votes = votes();
        for who in 0..3 {
            by_votes.tally(ReplicaId(who), commit(&left, 1), &histories).expect("one history");
        }
        for who in [0, 2] {
            by_votes.tally(ReplicaId(who), commit(&right, 2), &histories).expect("too few");
        }
        let found = by_votes.tally(ReplicaId(3), commit(&right, 2), &histories);
        assert_eq!(rule(found), "I1");
    }

    #[test]
    fn two_stable_states_at_one_slot_break_i3() {
        let mut votes = votes();
        let vote = Checkpoint { view: View(0), slot: Slot(8), hash: A, state: A };
        assert!(votes.state(vote).is_ok());
        assert!(votes.state(Checkpoint { view: View(1), ..vote }).is_ok());
        assert_eq!(rule(votes.state(Checkpoint { state: B, ..vote })), "I3");
    }

    #[test]
    fn a_lock_without_votes_is_found() {
        let stage = Stage::new();
        let mut histories = stage.histories();
        let fake = stage.chain(&[&[1]], 0);
        histories.follow(ReplicaId(1), &fake, &stage.membership).expect("sound");
        let commit = Commit { view: View(0), slot: Slot(1), hash: fake.slots[0].hash };
        assert_eq!(rule(votes().lock(ReplicaId(1), commit, &histories)), "I1");
    }
}
