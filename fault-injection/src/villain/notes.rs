//! What villains keep: the history that their core tells its disk, what they overhear, and clocks
//! for their deeds. Everything here is bounded: a world runs for a long time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use elea_protocol::id::{Digest, Instant, Slot, View};
use elea_protocol::message::{
    CommitCertificate, Linked, Message, Position, SignedRequest, SlotEntry, StableProof,
};
use elea_protocol::replica::{Action, Aside, Event, Ground, Record};

use super::Lair;

/// Slots remembered of the own history, of histories left, and of others seen.
const SLOTS_KEPT: usize = 256;

/// Requests remembered.
const REQUESTS_KEPT: usize = 48;

/// What a core writes to its disk is all that is worth knowing of it.
#[derive(Default)]
pub struct Notes {
    entered: View,
    /// The end of the history below the first slot kept; the genesis where there is none.
    ground: Option<Position>,
    slots: BTreeMap<Slot, (Digest, SlotEntry)>,
    aside: BTreeMap<Digest, Aside>,
    left: VecDeque<(Position, Linked)>,
    lock: Option<CommitCertificate>,
    stable: Option<StableProof>,
}

impl Notes {
    /// Takes note of what the core does.
    pub fn take(&mut self, action: &Action) {
        let Action::Append { record, .. } = action else { return };
        match record {
            Record::Slot { slot, hash, entry } => self.put(*slot, *hash, entry.clone()),
            Record::Aside(aside) => {
                if self.aside.len() >= SLOTS_KEPT {
                    self.aside.pop_first();
                }
                self.aside.insert(aside.at.hash, aside.clone());
            }
            Record::Lock(certificate) => self.lock = Some(certificate.clone()),
            Record::Stable(proof) => self.stable = Some((**proof).clone()),
            Record::Adopted(adopted) => {
                if let Some(entered) = &adopted.entered {
                    self.entered = entered.view();
                }
                match &adopted.ground {
                    Ground::Common(slot) => self.cut(slot.next()),
                    Ground::State(head) => {
                        self.cut(Slot::GENESIS);
                        self.ground = Some(head.stable.position());
                        self.stable = Some(head.stable.clone());
                    }
                }
                for hash in &adopted.slots {
                    if let Some(aside) = self.aside.get(hash).cloned() {
                        self.put(aside.at.slot, *hash, aside.linked.entry);
                    }
                }
                self.aside.clear();
                if adopted.lock.is_some() {
                    self.lock.clone_from(&adopted.lock);
                }
            }
            Record::Orphans { .. }
            | Record::Stamps(_)
            | Record::Fetching(_)
            | Record::Piece { .. }
            | Record::Rows { .. }
            | Record::Settling { .. }
            | Record::Settled(_)
            | Record::Evidence(_)
            | Record::Standing(_)
            | Record::Lives(_)
            | Record::Mismatches(_) => {}
        }
    }

    fn put(&mut self, slot: Slot, hash: Digest, entry: SlotEntry) {
        self.cut(slot);
        self.slots.insert(slot, (hash, entry));
        if self.slots.len() > SLOTS_KEPT
            && let Some((slot, (hash, _))) = self.slots.pop_first()
        {
            self.ground = Some(Position { slot, hash });
        }
    }

    /// Lets go of the slots from this one on.
    fn cut(&mut self, from: Slot) {
        let gone = self.slots.split_off(&from);
        let mut previous = self
            .slots
            .last_key_value()
            .map(|(_, (hash, _))| *hash)
            .or(self.ground.map(|at| at.hash));
        for (slot, (hash, entry)) in gone {
            // Only of slot 1 nothing says here what is before it.
            if let Some(previous) = previous {
                if self.left.len() >= SLOTS_KEPT {
                    self.left.pop_front();
                }
                self.left.push_back((Position { slot, hash }, Linked { previous, entry }));
            }
            previous = Some(hash);
        }
    }

    /// The view that the core has entered.
    pub fn entered(&self) -> View {
        self.entered
    }

    /// The core's lock.
    pub fn lock(&self) -> Option<&CommitCertificate> {
        self.lock.as_ref()
    }

    /// The core's lock, if a view change for `view` may carry it.
    pub fn lock_below(&self, view: View) -> Option<CommitCertificate> {
        self.lock.clone().filter(|lock| lock.body.view < view)
    }

    /// The core's stable checkpoint.
    pub fn stable(&self) -> Option<&StableProof> {
        self.stable.as_ref()
    }

    /// Its slot.
    pub fn stable_slot(&self) -> Slot {
        self.stable.as_ref().map_or(Slot::GENESIS, StableProof::slot)
    }

    fn bottom(&self, lair: &Lair) -> Position {
        let genesis = Position { slot: Slot::GENESIS, hash: *lair.membership.genesis() };
        self.ground.unwrap_or(genesis)
    }

    /// The end of the own history.
    pub fn head(&self, lair: &Lair) -> Position {
        let last = self.slots.last_key_value();
        last.map_or_else(
            || self.bottom(lair),
            |(slot, (hash, _))| Position { slot: *slot, hash: *hash },
        )
    }

    /// The own history up to this slot.
    pub fn at(&self, lair: &Lair, slot: Slot) -> Option<Position> {
        let bottom = self.bottom(lair);
        if slot == bottom.slot {
            return Some(bottom);
        }
        self.slots.get(&slot).map(|(hash, _)| Position { slot, hash: *hash })
    }

    /// Own slots from this one on.
    pub fn entries(&self, from: Slot, most: usize) -> Vec<SlotEntry> {
        self.slots.range(from..).take(most).map(|(_, (_, entry))| entry.clone()).collect()
    }

    /// Own slots from this one downwards.
    pub fn down(&self, lair: &Lair, from: Slot, most: usize) -> Vec<Linked> {
        let below = |slot: Slot| self.at(lair, Slot(slot.0.saturating_sub(1)));
        self.slots
            .range(..=from)
            .rev()
            .take(most)
            .map_while(|(slot, (_, entry))| {
                let previous = below(*slot)?.hash;
                Some(Linked { previous, entry: entry.clone() })
            })
            .collect()
    }

    /// Slots of histories that were given up, oldest first.
    pub fn left(&self) -> &VecDeque<(Position, Linked)> {
        &self.left
    }

    /// The history slots of which it knows anything.
    pub fn known(&self) -> impl DoubleEndedIterator<Item = Position> {
        self.slots.iter().map(|(slot, (hash, _))| Position { slot: *slot, hash: *hash })
    }

    /// Whether this request is in the own history.
    pub fn has_executed(&self, digest: &Digest) -> bool {
        let mut requests = self.slots.values().flat_map(|(_, entry)| &entry.requests);
        requests.any(|request| request.digest() == *digest)
    }
}

/// Requests of clients that a villain has heard of, the newest ones.
#[derive(Default)]
pub struct Overheard(VecDeque<Arc<SignedRequest>>);

impl Overheard {
    /// Takes note of what comes in.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Request(request) => self.keep(request),
            Event::Peer { message, .. } => {
                if let Message::Requests(requests) = &**message {
                    requests.0.iter().for_each(|request| self.keep(request));
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, request: &Arc<SignedRequest>) {
        if self.0.iter().any(|known| known.digest() == request.digest()) {
            return;
        }
        if self.0.len() >= REQUESTS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(request.clone());
    }

    /// All of them, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<SignedRequest>> {
        self.0.iter()
    }

    /// One that this history does not hold.
    pub fn waiting(&self, notes: &Notes) -> Option<Arc<SignedRequest>> {
        self.0.iter().find(|request| !notes.has_executed(&request.digest())).cloned()
    }
}

/// Stamps that grow, for words that shall be newer than the core's.
#[derive(Default)]
pub struct Stamps(u64);

impl Stamps {
    /// The next one.
    pub fn next(&mut self, lair: &Lair) -> u64 {
        self.0 = lair.now.wall.0.saturating_mul(1000).max(self.0.saturating_add(1));
        self.0
    }
}

/// Keeps a villain from doing something at every event: what it says makes others answer, and two
/// who always answer each other stop the world.
#[derive(Default)]
pub struct Pace(Instant);

impl Pace {
    /// Whether it is time; the next time is `least` to `most` milliseconds away.
    pub fn is_due(&mut self, lair: &mut Lair, least: u64, most: u64) -> bool {
        let now = lair.now.instant;
        let due = now >= self.0;
        if due {
            self.0 = now.after_ms(lair.rng.between(least, most));
        }
        due
    }
}
