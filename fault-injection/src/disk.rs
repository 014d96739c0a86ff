//! A replica's disk: what is written, what is on it, and what a crash takes away.
//!
//! Records are bytes in an append-only tail, each with its length and a checksum, as a real store
//! would write them. A sync covers what was written when it began, and only what it covers is read
//! back and applied. A crash keeps what was synced and a prefix, chosen by the seed, of
//! what was not; the record in which the prefix ends may be *torn*, with some of its bytes there
//! and others not. Recovery must then drop it, whole.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{Digest, Life, ReplicaId, Slot, View};
use elea_protocol::message::{
    CommitCertificate, Linked, Mismatch, Position, SignedRequest, SlotEntry, StableProof, Standing,
    StateHead, StatePart,
};
use elea_protocol::replica::{
    Adopted, Aside, EnteredView, Ground, Mark, Record, Recovered, Settled, StoredState,
};
use elea_protocol::rows::{Changes, MemoryRows, RowsView};

use crate::rng::Rng;
use crate::violation::{Violation, demand};

/// Length and checksum before each record.
const HEADER: usize = 12;

/// What all records on a disk come to, applied one after the other.
#[derive(Clone, Default)]
struct Contents {
    /// The state that the stored history begins with, where that is not slot 1.
    state: Option<State>,
    /// The rows that the cluster begins with, until a later state takes their place.
    initial: Option<MemoryRows>,
    /// What the next state changes, as far as it was told; of none that is told after a crash.
    settling: Option<(Position, Changes)>,
    /// A state that is being fetched.
    incoming: Option<State>,
    /// The slots above it, or from slot 1 on.
    slots: Vec<(Digest, SlotEntry)>,
    entered: Option<EnteredView>,
    voted: Slot,
    lock: Option<CommitCertificate>,
    aside: BTreeMap<Digest, Aside>,
    stable: Option<StableProof>,
    orphans: Vec<Arc<SignedRequest>>,
    evidence: Vec<Evidence>,
    standing: Standing,
    lives: BTreeMap<ReplicaId, Life>,
    mismatches: Vec<Mismatch>,
    stamps: u64,
    /// The highest slot of a history that a state was put in place of.
    replaced: Slot,
    /// The hash of every slot that ever was part of the stored history. Only looked up in.
    ever: HashSet<Digest>,
}

/// A state, or as much of it as was fetched.
#[derive(Clone)]
struct State {
    head: StateHead,
    pieces: BTreeMap<StatePart, Bytes>,
    rows: MemoryRows,
}

impl State {
    fn at(&self) -> Position {
        self.head.stable.position()
    }

    fn view(&self) -> RowsView {
        Arc::new(self.rows.clone())
    }

    fn stored(&self) -> StoredState {
        let pieces = self.pieces.iter().map(|(part, bytes)| (*part, bytes.clone())).collect();
        StoredState { head: self.head.clone(), pieces, rows: self.view() }
    }
}

/// What is on disk since a sync.
#[derive(Debug)]
pub struct Synced {
    /// All up to this mark.
    pub mark: Mark,
    /// The rows of states, by the marks of the records that changed them for good.
    pub rows: Vec<(Mark, RowsView)>,
}

/// What a crash took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// How many records are gone for good.
    pub records: usize,
    /// Whether a part of one was left behind.
    pub is_torn: bool,
}

/// See the [module](self).
#[derive(Clone, Default)]
pub struct Disk {
    contents: Contents,
    /// What is written and not applied yet.
    tail: Vec<u8>,
    /// The records in the tail, with their lengths there.
    unsynced: VecDeque<(Mark, usize)>,
    written: Mark,
    synced: Mark,
    syncing: Option<Mark>,
    /// Whether the replica was an observer already before the last sync.
    was_observer: bool,
    /// Whether a replica with a vote ran on it before the present start.
    has_run: bool,
}

fn broken(who: ReplicaId, what: impl std::fmt::Display) -> Violation {
    Violation::new("records", format!("{who}: {what}"))
}

/// FNV-1a: it tells a torn record from a whole one, and nobody forges a disk here.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The first record in these bytes and how many of them it takes; `None` where it is torn.
fn first_record(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let body = rest.get(..length)?;
    (checksum(body) == u64::from_le_bytes(*sum)).then_some((body, HEADER + length))
}

impl Contents {
    /// Where the stored history begins: the end of the state before its first slot.
    fn base(&self) -> Option<Position> {
        self.state.as_ref().map(State::at)
    }

    fn base_slot(&self) -> Slot {
        self.base().map_or(Slot::GENESIS, |base| base.slot)
    }

    fn head_slot(&self) -> Slot {
        self.base_slot().plus(self.slots.len() as u64)
    }

    fn hash_at(&self, slot: Slot) -> Option<Digest> {
        let base = self.base();
        if let Some(base) = base
            && base.slot == slot
        {
            return Some(base.hash);
        }
        let above = slot.0.checked_sub(self.base_slot().0)?.checked_sub(1)?;
        self.slots.get(usize::try_from(above).ok()?).map(|(hash, _)| *hash)
    }

    /// Lets go of the slots above this one.
    fn truncate(&mut self, slot: Slot) -> Result<(), String> {
        let base = self.base_slot();
        if slot < base || slot > self.head_slot() {
            let head = self.head_slot();
            return Err(format!("keeps slots up to {slot}, of a history from {base} to {head}"));
        }
        self.slots.truncate(usize::try_from(slot.since(base)).unwrap_or(usize::MAX));
        Ok(())
    }

    fn push(&mut self, hash: Digest, entry: SlotEntry) {
        self.ever.insert(hash);
        self.slots.push((hash, entry));
    }

    /// Whether this slot follows the end of the stored history; of a history from slot 1 on the
    /// hash before it is the cluster's and not known here.
    fn is_next(&self, at: Position, previous: Digest) -> bool {
        let head = self.head_slot();
        at.slot == head.next() && self.hash_at(head).is_none_or(|hash| hash == previous)
    }

    /// Answers the rows of a state, where they have changed for good.
    fn apply(&mut self, record: Record) -> Result<Option<RowsView>, String> {
        match record {
            Record::Slot { slot, hash, entry } => {
                let before = Slot(slot.0.saturating_sub(1));
                self.truncate(before)?;
                self.push(hash, entry);
            }
            Record::Aside(aside) => {
                self.aside.insert(aside.at.hash, aside);
            }
            Record::Lock(certificate) => self.lock(certificate)?,
            Record::Stable(proof) => self.stable = Some(*proof),
            Record::Adopted(adopted) => self.adopt(*adopted)?,
            Record::Orphans { add, remove } => {
                for orphan in add {
                    if self.orphans.iter().all(|known| known.digest() != orphan.digest()) {
                        self.orphans.push(orphan);
                    }
                }
                self.orphans.retain(|orphan| !remove.contains(&orphan.digest()));
            }
            Record::Fetching(head) => {
                let (pieces, rows) = (BTreeMap::new(), MemoryRows::default());
                self.incoming = Some(State { head: *head, pieces, rows });
            }
            Record::Piece { at, part, bytes } => {
                self.incoming_at(at)?.pieces.insert(part, bytes);
            }
            Record::Rows { at, rows, whole } => {
                let incoming = self.incoming_at(at)?;
                incoming.rows.apply(rows.into_iter().map(|(key, value)| (key, Some(value))));
                return Ok(whole.then(|| incoming.view()));
            }
            Record::Settling { at, first, changes } => {
                if first {
                    self.settling = Some((at, Vec::new()));
                }
                let settling = self.settling.as_mut().filter(|(of, _)| *of == at);
                let settling = settling.ok_or("a part of what another checkpoint changes")?;
                settling.1.extend(changes);
            }
            Record::Settled(settled) => return self.settle(*settled).map(Some),
            Record::Evidence(evidence) => self.evidence.push(*evidence),
            Record::Standing(standing) => self.standing = standing,
            Record::Lives(lives) => self.lives = lives,
            Record::Mismatches(mismatches) => self.mismatches = mismatches,
            Record::Stamps(stamps) => self.stamps = stamps,
        }
        Ok(None)
    }

    fn incoming_at(&mut self, at: Position) -> Result<&mut State, String> {
        let incoming = self.incoming.as_mut().filter(|incoming| incoming.at() == at);
        incoming.ok_or_else(|| format!("a piece of a state at {} that is not fetched", at.slot))
    }

    /// The lock must not outlive what it rests on.
    fn lock(&mut self, certificate: CommitCertificate) -> Result<(), String> {
        self.lies_on(&certificate)?;
        self.lock = Some(certificate);
        Ok(())
    }

    fn lies_on(&self, lock: &CommitCertificate) -> Result<(), String> {
        let at = lock.position();
        if at.slot >= self.base_slot() && self.hash_at(at.slot) != Some(at.hash) {
            return Err(format!("a lock at {}, where the stored history is another", at.slot));
        }
        Ok(())
    }

    /// The state takes the place of the slots up to it, of which it must be the state.
    fn settle(&mut self, settled: Settled) -> Result<RowsView, String> {
        let Settled { head, pieces, changes } = settled;
        let (base, to) = (self.base_slot(), head.stable.position());
        let before = self.settling.take().filter(|(at, _)| *at == to);
        let before = before.into_iter().flat_map(|(_, changes)| changes);
        if to.slot <= base || self.hash_at(to.slot) != Some(to.hash) {
            return Err(format!("a state at {} for slots from {base} on", to.slot));
        }
        self.slots.drain(..usize::try_from(to.slot.since(base)).unwrap_or(usize::MAX));
        let initial = self.initial.take().unwrap_or_default();
        let mut rows = self.state.take().map_or(initial, |state| state.rows);
        rows.apply(before.chain(changes));
        let state = self.state.insert(State { head, pieces: pieces.into_iter().collect(), rows });
        Ok(state.view())
    }

    fn adopt(&mut self, adopted: Adopted) -> Result<(), String> {
        let Adopted { entered, ground, slots, lock, voted } = adopted;
        match ground {
            Ground::Common(slot) => self.truncate(slot)?,
            Ground::State(head) => {
                let state = self.incoming.take().ok_or("a state without its pieces")?;
                if state.at() != head.stable.position() {
                    return Err(format!("a state at {} of another's pieces", state.at().slot));
                }
                self.replaced = self.replaced.max(self.head_slot()).max(state.at().slot);
                self.stable = Some(head.stable);
                self.slots.clear();
                self.state = Some(state);
                self.initial = None;
            }
        }
        for hash in slots {
            let Aside { at, linked } =
                self.aside.get(&hash).cloned().ok_or("a history of slots that are not stored")?;
            let Linked { previous, entry } = linked;
            if at.hash != hash || !self.is_next(at, previous) {
                return Err(format!("slot {} does not follow what it is put on", at.slot));
            }
            self.push(hash, entry);
        }
        if let Some(lock) = &lock {
            self.lies_on(lock)?;
        }
        if let Some(entered) = entered {
            let before = self.entered.as_ref().map_or(View::ZERO, EnteredView::view);
            if entered.view() <= before {
                return Err(format!("{} entered after {before}", entered.view()));
            }
            self.entered = Some(entered);
        }
        self.lock = lock;
        self.voted = voted;
        self.aside.clear();
        Ok(())
    }
}

impl Disk {
    /// The disk of a replica that never wrote anything: with what the driver writes when it makes
    /// a folder.
    #[must_use]
    pub fn made(who: ReplicaId, standing: Standing, life: Life) -> Self {
        let lives = BTreeMap::from([(who, life)]);
        Self { contents: Contents { standing, lives, ..Contents::default() }, ..Self::default() }
    }

    /// The same disk, with the rows of the state that the cluster begins with, if it does.
    #[must_use]
    pub fn beginning_with(mut self, initial: Option<MemoryRows>) -> Self {
        self.contents.initial = initial;
        self
    }

    /// Whether the stored history still begins with the state that the cluster begins with.
    #[must_use]
    pub fn is_at_its_beginning(&self) -> bool {
        self.contents.initial.is_some()
    }

    /// Of which checkpoint's state there are pieces, if one is being fetched.
    #[must_use]
    pub fn fetching(&self) -> Option<Position> {
        self.contents.incoming.as_ref().map(State::at)
    }

    /// Whether the replica was an observer before the last sync, or before it was started.
    #[must_use]
    pub fn was_observer(&self) -> bool {
        self.was_observer
    }

    /// What the replica may do, by what is on its disk.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.contents.standing
    }

    /// Takes a record of the running replica.
    ///
    /// # Errors
    /// Marks must count up by one, and a record must survive being encoded: it is no larger than a
    /// frame.
    pub fn append(&mut self, who: ReplicaId, mark: Mark, record: &Record) -> Result<(), Violation> {
        demand(mark.0 == self.written.0 + 1, "marks", || {
            format!("{who} writes mark {} after mark {}", mark.0, self.written.0)
        })?;
        let bytes = codec::encode(record).map_err(|error| broken(who, error))?;
        let length = u32::try_from(bytes.len()).map_err(|error| broken(who, error))?;
        self.tail.extend(length.to_le_bytes());
        self.tail.extend(checksum(&bytes).to_le_bytes());
        self.tail.extend(&bytes);
        self.written = mark;
        self.unsynced.push_back((mark, HEADER + bytes.len()));
        Ok(())
    }

    /// Begins a sync, if there is something to sync and none is under way. Answers what it covers.
    pub fn begin_sync(&mut self) -> Option<Mark> {
        if self.syncing.is_some() || self.synced == self.written {
            return None;
        }
        self.syncing = Some(self.written);
        self.syncing
    }

    /// The sync under way is done.
    ///
    /// # Errors
    /// A record does not decode, or contradicts those before it.
    pub fn finish_sync(&mut self, who: ReplicaId) -> Result<Synced, Violation> {
        let up_to = self.syncing.take().unwrap_or(self.synced);
        self.was_observer = self.standing() == Standing::Observer;
        let mut length = 0;
        let mut marks = Vec::new();
        while let Some((mark, bytes)) = self.unsynced.pop_front_if(|(mark, _)| *mark <= up_to) {
            length += bytes;
            marks.push(mark);
        }
        self.synced = up_to;
        let rest = self.tail.split_off(length);
        let synced = std::mem::replace(&mut self.tail, rest);
        let (left, rows) = self.replay(who, &synced)?;
        demand(left == 0, "records", || format!("{who}: {left} bytes synced and not readable"))?;
        let of_marks = marks.into_iter().zip(rows);
        let rows = of_marks.filter_map(|(mark, rows)| Some((mark, rows?))).collect();
        Ok(Synced { mark: self.synced, rows })
    }

    /// Applies the whole records in these bytes. Answers how many bytes are left, of a torn one,
    /// and for each record the rows that it changed for good.
    fn replay(
        &mut self,
        who: ReplicaId,
        mut bytes: &[u8],
    ) -> Result<(usize, Vec<Option<RowsView>>), Violation> {
        let mut rows = Vec::new();
        while let Some((body, length)) = first_record(bytes) {
            let record: Record = codec::decode(body).map_err(|error| broken(who, error))?;
            rows.push(self.contents.apply(record).map_err(|what| broken(who, what))?);
            bytes = &bytes[length..];
        }
        Ok((bytes.len(), rows))
    }

    /// What is written and not synced never gets there.
    pub fn lose_unsynced(&mut self) {
        self.tail.clear();
        self.unsynced.clear();
    }

    /// The power goes.
    ///
    /// # Errors
    /// As [`Disk::finish_sync`].
    pub fn crash(&mut self, who: ReplicaId, rng: &mut Rng) -> Result<Loss, Violation> {
        let count = self.unsynced.len();
        let kept = rng.index(count + 1);
        let mut bytes: usize = self.unsynced.iter().take(kept).map(|(_, length)| length).sum();
        if let Some((_, next)) = self.unsynced.get(kept)
            && rng.one_in(2)
        {
            // Either it ends in the middle, or all of its length is there and not all of its bytes.
            let part = rng.index(*next - 1) + 1;
            if rng.one_in(2) {
                bytes += part;
            } else {
                for byte in &mut self.tail[bytes + part.max(HEADER)..bytes + next] {
                    *byte = !*byte;
                }
                bytes += next;
            }
        }
        let tail = std::mem::take(&mut self.tail);
        let (left, _) = self.replay(who, &tail[..bytes])?;
        self.was_observer = self.standing() == Standing::Observer;
        // As the store has it: who is new never ordered anything.
        self.has_run = self.standing() != Standing::New;
        self.unsynced.clear();
        (self.written, self.synced, self.syncing) = (Mark::NONE, Mark::NONE, None);
        Ok(Loss { records: count - kept, is_torn: left > 0 })
    }

    /// A row of the stored state can no longer be read. Answers whether there is one.
    pub fn rot(&mut self, rng: &mut Rng) -> bool {
        let Some(state) = self.contents.state.as_mut().filter(|state| !state.rows.is_empty())
        else {
            return false;
        };
        let place = rng.index(state.rows.len());
        let key = state.rows.iter().nth(place).map(|(key, _)| key.clone());
        key.map(|key| state.rows.spoil(key)).is_some()
    }

    /// The last mark written.
    #[must_use]
    pub fn written(&self) -> Mark {
        self.written
    }

    /// The last mark on disk.
    #[must_use]
    pub fn synced(&self) -> Mark {
        self.synced
    }

    /// Where the stored history begins, if that is not before slot 1: the end of a state.
    #[must_use]
    pub fn base(&self) -> Option<Position> {
        self.contents.base()
    }

    /// The hash of a slot of the stored history, or of the state that it begins with. Nothing is
    /// known of the slots below that state.
    #[must_use]
    pub fn hash_at(&self, slot: Slot) -> Option<Digest> {
        self.contents.hash_at(slot)
    }

    /// The highest slot that was replaced when a state was put in place of the stored history, be
    /// it the state's or that history's own.
    #[must_use]
    pub fn replaced(&self) -> Slot {
        self.contents.replaced
    }

    /// Whether a slot of this hash was part of the stored history at any time.
    #[must_use]
    pub fn ever_held(&self, hash: &Digest) -> bool {
        self.contents.ever.contains(hash)
    }

    /// The view entered, as it is stored.
    #[must_use]
    pub fn entered(&self) -> View {
        self.contents.entered.as_ref().map_or(View::ZERO, EnteredView::view)
    }

    /// The lock on disk.
    #[must_use]
    pub fn lock(&self) -> Option<&CommitCertificate> {
        self.contents.lock.as_ref()
    }

    /// The stable checkpoint on disk.
    #[must_use]
    pub fn stable(&self) -> Option<&StableProof> {
        self.contents.stable.as_ref()
    }

    /// How many slots are on disk.
    #[must_use]
    pub fn len(&self) -> usize {
        self.contents.slots.len()
    }

    /// Whether no slot is on disk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contents.slots.is_empty()
    }

    /// What a replica that starts finds beside the slots.
    #[must_use]
    pub fn recovered(&self) -> Recovered {
        let contents = &self.contents;
        Recovered {
            entered: contents.entered.clone(),
            state: contents.state.as_ref().map(State::stored),
            initial: contents.initial.clone().map(|rows| -> RowsView { Arc::new(rows) }),
            incoming: contents.incoming.as_ref().map(State::stored),
            lock: contents.lock.clone(),
            voted: contents.voted,
            stable: contents.stable.clone(),
            orphans: contents.orphans.clone(),
            evidence: contents.evidence.clone(),
            standing: contents.standing,
            lives: contents.lives.clone(),
            mismatches: contents.mismatches.clone(),
            stamps: contents.stamps,
            has_run: self.has_run,
        }
    }

    /// The stored slots, from slot 1 or from the one after the [state](Recovered::state) on.
    #[must_use]
    pub fn slots(&self) -> Vec<(Digest, SlotEntry)> {
        self.contents.slots.clone()
    }
}

#[cfg(test)]
mod tests;
