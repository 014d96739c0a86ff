//! Random sequences of records, in random groups, on the store and on a model of it in memory.
//!
//! The model applies each record by itself, as its documentation says, and knows nothing of
//! groups, keys and overlays: what the store has to get right is exactly that these do not show.

use elea_protocol::rows::Changes;

use super::*;
use crate::dice::Dice;

/// A state, or what there is of it.
#[derive(Clone)]
struct State {
    head: StateHead,
    pieces: BTreeMap<StatePart, Bytes>,
    rows: BTreeMap<Bytes, Bytes>,
}

impl State {
    fn new(head: StateHead) -> Self {
        Self { head, pieces: BTreeMap::new(), rows: BTreeMap::new() }
    }

    fn change(&mut self, changes: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) {
        for (key, value) in changes {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    fn assert_is(&self, stored: Option<StoredState>) {
        let stored = stored.expect("a state");
        assert_eq!(stored.head, self.head);
        assert_eq!(stored.pieces.into_iter().collect::<BTreeMap<_, _>>(), self.pieces);
        assert_eq!(all_rows(&stored.rows), self.rows.clone().into_iter().collect::<Vec<_>>());
    }
}

/// What all records so far come to.
#[derive(Default)]
struct Model {
    state: Option<State>,
    settling: Option<Changes>,
    incoming: Option<State>,
    slots: Vec<(Digest, SlotEntry)>,
    entered: Option<EnteredView>,
    lock: Option<CommitCertificate>,
    voted: Slot,
    aside: BTreeMap<Digest, Aside>,
    stable: Option<StableProof>,
    orphans: BTreeMap<Digest, Arc<SignedRequest>>,
    evidence: Vec<Evidence>,
    standing: Option<Standing>,
    lives: BTreeMap<ReplicaId, Life>,
    mismatches: Vec<Mismatch>,
    stamps: u64,
}

impl Model {
    fn base(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.head.stable.slot().0)
    }

    fn head(&self) -> u64 {
        self.base() + self.slots.len() as u64
    }

    fn truncate(&mut self, slot: u64) {
        let kept = usize::try_from(slot - self.base()).expect("few");
        assert!(kept <= self.slots.len(), "the test makes valid records only");
        self.slots.truncate(kept);
    }

    fn apply(&mut self, record: &Record) {
        match record.clone() {
            Record::Slot { slot, hash, entry } => {
                self.truncate(slot.0 - 1);
                self.slots.push((hash, entry));
            }
            Record::Aside(aside) => {
                self.aside.insert(aside.at.hash, aside);
            }
            Record::Lock(certificate) => self.lock = Some(certificate),
            Record::Stable(proof) => self.stable = Some(*proof),
            Record::Adopted(adopted) => self.adopt(*adopted),
            Record::Orphans { add, remove } => {
                self.orphans.extend(add.into_iter().map(|orphan| (orphan.digest(), orphan)));
                self.orphans.retain(|digest, _| !remove.contains(digest));
            }
            Record::Fetching(head) => self.incoming = Some(State::new(*head)),
            Record::Piece { part, bytes, .. } => {
                self.incoming.as_mut().expect("fetched").pieces.insert(part, bytes);
            }
            Record::Rows { rows, .. } => {
                let rows = rows.into_iter().map(|(key, value)| (key, Some(value)));
                self.incoming.as_mut().expect("fetched").change(rows);
            }
            Record::Settling { first, changes, .. } => {
                let settling = self.settling.take().filter(|_| !first);
                self.settling.insert(settling.unwrap_or_default()).extend(changes);
            }
            Record::Settled(settled) => {
                let Settled { head, pieces, changes } = *settled;
                let slot = head.stable.slot().0;
                self.slots.drain(..usize::try_from(slot - self.base()).expect("few"));
                let before = self.state.take();
                let state = self.state.insert(State::new(head));
                state.rows = before.map(|state| state.rows).unwrap_or_default();
                state.pieces = pieces.into_iter().collect();
                state.change(self.settling.take().unwrap_or_default());
                state.change(changes);
            }
            Record::Evidence(evidence) => {
                if !self.evidence.contains(&evidence) {
                    self.evidence.push(*evidence);
                }
            }
            Record::Standing(standing) => self.standing = Some(standing),
            Record::Lives(lives) => self.lives = lives,
            Record::Mismatches(mismatches) => self.mismatches = mismatches,
            Record::Stamps(stamps) => self.stamps = stamps,
        }
    }

    fn adopt(&mut self, adopted: Adopted) {
        match adopted.ground {
            Ground::Common(slot) => self.truncate(slot.0),
            Ground::State(head) => {
                let state = self.incoming.take().expect("it comes first");
                assert_eq!(state.head, *head);
                self.stable = Some(head.stable.clone());
                self.slots.clear();
                self.state = Some(state);
            }
        }
        for hash in adopted.slots {
            let Aside { at, linked } = self.aside[&hash].clone();
            assert_eq!(at.slot.0, self.head() + 1);
            self.slots.push((hash, linked.entry));
        }
        self.entered = adopted.entered.or(self.entered.take());
        self.lock = adopted.lock;
        self.voted = adopted.voted;
        self.aside.clear();
    }

    fn recovered(&self) -> Recovered {
        let mut evidence = self.evidence.clone();
        sort(&mut evidence);
        Recovered {
            entered: self.entered.clone(),
            state: None,
            initial: None,
            incoming: None,
            lock: self.lock.clone(),
            voted: self.voted,
            stable: self.stable.clone(),
            orphans: self.orphans.values().cloned().collect(),
            evidence,
            standing: self.standing.unwrap_or(Standing::New),
            lives: self.lives.clone(),
            mismatches: self.mismatches.clone(),
            stamps: self.stamps,
            has_run: self.standing.is_some_and(|standing| standing != Standing::New),
        }
    }

    /// The store holds what the model does, and nothing beside it.
    fn assert_is(&self, store: &Store, mut recovered: Recovered) {
        sort(&mut recovered.evidence);
        for (expected, found) in
            [(&self.state, recovered.state.take()), (&self.incoming, recovered.incoming.take())]
        {
            match expected {
                Some(state) => state.assert_is(found),
                None => assert!(found.is_none()),
            }
        }
        assert_same(recovered, self.recovered());
        let slots: Vec<_> = store.history().map(|read| read.expect("sound")).collect();
        assert!(slots == self.slots, "{} slots, not {}", slots.len(), self.slots.len());
        let states = || self.state.iter().chain(&self.incoming);
        let pieces: usize = states().map(|state| state.pieces.len()).sum();
        assert_eq!(keys(&store.tables.history), self.slots.len());
        assert_eq!(keys(&store.tables.aside), self.aside.len());
        assert_eq!(keys(&store.tables.state), pieces);
        assert_eq!(store.tables.rows.len(), states().count());
    }
}

/// In whatever order: it is no part of what is stored.
fn sort(evidence: &mut [Evidence]) {
    evidence.sort_by_cached_key(|evidence| codec::encode(evidence).expect("small"));
}

/// Records that a replica could write, one after the other.
struct Scribe {
    dice: Dice,
    model: Model,
    /// No two slots, states or views are the same.
    tags: u64,
    records: Vec<Record>,
}

impl Scribe {
    fn tag(&mut self) -> u64 {
        self.tags += 1;
        self.tags
    }

    fn write(&mut self, record: Record) {
        self.model.apply(&record);
        self.records.push(record);
    }

    fn step(&mut self) {
        let (base, end) = (self.model.base(), self.model.head());
        match self.dice.below(16) {
            0..=5 => {
                let at = if self.dice.one_in(6) && end > base {
                    self.dice.between(base + 1, end)
                } else {
                    end + 1
                };
                let tag = self.tag();
                self.write(slot(at, tag));
            }
            6 => {
                let (at, tag) = (self.dice.between(base + 1, end + 5), self.tag());
                self.write(Record::Aside(aside(at, tag)));
            }
            7 | 8 => {
                let certificate = lock(self.dice.between(1, end + 1));
                self.write(Record::Lock(certificate));
            }
            9 => {
                let proof = stable(self.dice.between(1, end + 1), self.tags);
                self.write(Record::Stable(Box::new(proof)));
            }
            10 | 11 => {
                let slot = self.dice.between(base, end);
                self.adopt(Ground::Common(Slot(slot)), slot);
            }
            12 if self.dice.one_in(2) && end > base => self.settle(base + 1, end),
            12 => self.transfer(),
            13 => {
                let few = |dice: &mut Dice| {
                    let many = dice.below(4);
                    (0..many).map(|_| request(dice.below(9), 1)).collect::<Vec<_>>()
                };
                let (add, remove) = (few(&mut self.dice), few(&mut self.dice));
                let remove = remove.iter().map(|orphan| orphan.digest()).collect();
                self.write(Record::Orphans { add, remove });
            }
            14 => {
                // It may never be whole, or go on later.
                if self.model.incoming.is_none() || self.dice.one_in(4) {
                    let (slot, tag) = (base + 1 + self.dice.below(9), self.tag());
                    self.write(Record::Fetching(Box::new(head(slot, tag))));
                }
                self.fetch();
            }
            _ if self.dice.one_in(2) => self.office(),
            _ => {
                let accused = proof(self.dice.below(5));
                self.write(Record::Evidence(Box::new(accused)));
            }
        }
    }

    /// Something about what the replica may do.
    fn office(&mut self) {
        let record = match self.dice.below(3) {
            0 => Record::Standing(match self.dice.below(3) {
                0 => Standing::Voter,
                1 => Standing::New,
                _ => Standing::Observer,
            }),
            1 => {
                let tag = self.dice.below(4) as u8;
                let mut lives = self.model.lives.clone();
                lives.insert(ReplicaId(tag), Life([self.dice.below(9) as u8; 16]));
                Record::Lives(lives)
            }
            _ if self.dice.below(2) == 0 => Record::Stamps(self.dice.between(1, 1 << 50)),
            _ => {
                let (slot, tag) = (self.dice.between(1, 9), self.dice.below(9));
                let own = StateDigests { application: hash(tag), sessions: hash(tag + 1) };
                let mut mismatches = self.model.mismatches.clone();
                mismatches.push(Mismatch { certified: stable(slot, tag), own });
                Record::Mismatches(mismatches)
            }
        };
        self.write(record);
    }

    fn bytes(&mut self) -> Bytes {
        Bytes::copy_from_slice(&self.dice.next().to_be_bytes())
    }

    fn part(&mut self) -> StatePart {
        match self.dice.below(4) {
            0 => StatePart::Last,
            index => StatePart::Sessions(index as u32),
        }
    }

    /// Few keys, so that they meet.
    fn key(&mut self) -> Bytes {
        Bytes::copy_from_slice(&[self.dice.below(6) as u8])
    }

    /// More of the state that is being fetched.
    fn fetch(&mut self) {
        let Some(at) = self.model.incoming.as_ref().map(|state| state.head.stable.position())
        else {
            return;
        };
        if self.dice.one_in(2) {
            let (part, bytes) = (self.part(), self.bytes());
            self.write(Record::Piece { at, part, bytes });
        } else {
            let rows = (0..self.dice.below(4)).map(|_| (self.key(), self.bytes())).collect();
            let whole = self.dice.one_in(3);
            self.write(Record::Rows { at, rows, whole });
        }
    }

    fn settle(&mut self, lowest: u64, highest: u64) {
        let (slot, tag) = (self.dice.between(lowest, highest), self.tag());
        let pieces: BTreeMap<_, _> =
            (0..self.dice.below(4)).map(|_| (self.part(), self.bytes())).collect();
        let head = head(slot, tag);
        // What is begun for one checkpoint may be given up and begun anew.
        for part in 0..self.dice.below(4) {
            let (at, first) = (head.stable.position(), part == 0 || self.dice.one_in(4));
            let changes = self.changes();
            self.write(Record::Settling { at, first, changes });
        }
        let (pieces, changes) = (pieces.into_iter().collect(), self.changes());
        self.write(Record::Settled(Box::new(Settled { head, pieces, changes })));
    }

    fn changes(&mut self) -> Changes {
        let changes: BTreeMap<_, _> = (0..self.dice.below(6))
            .map(|_| (self.key(), (!self.dice.one_in(3)).then(|| self.bytes())))
            .collect();
        changes.into_iter().collect()
    }

    fn transfer(&mut self) {
        let tag = self.tag();
        // Also of the very slot of the state in place: that is how a damaged one is repaired.
        let slot = (self.model.base() + self.dice.below(12)).max(1);
        let head = head(slot, tag);
        self.write(Record::Fetching(Box::new(head.clone())));
        for _ in 0..self.dice.between(1, 6) {
            self.fetch();
        }
        self.adopt(Ground::State(Box::new(head)), slot);
    }

    /// The slots aside may have been written long ago, or just now.
    fn adopt(&mut self, ground: Ground, below: u64) {
        let mut slots = Vec::new();
        for at in below + 1..=below + self.dice.below(4) {
            let mut known = self.model.aside.values().filter(|aside| aside.at.slot.0 == at);
            let hash = match known.next() {
                Some(aside) => aside.at.hash,
                None => {
                    let tag = self.tag();
                    self.write(Record::Aside(aside(at, tag)));
                    hash(tag)
                }
            };
            slots.push(hash);
        }
        let view = self.tag();
        let entered = self.dice.one_in(2).then(|| entered(view, below));
        let lock = self.dice.one_in(2).then(|| lock(below + 1));
        let voted = Slot(self.dice.below(9));
        self.write(Record::Adopted(Box::new(Adopted { entered, ground, slots, lock, voted })));
    }
}

#[test]
fn the_store_holds_what_the_records_come_to_however_they_are_grouped() {
    for seed in 0..24 {
        println!("seed {seed}");
        let mut scribe =
            Scribe { dice: Dice(seed), model: Model::default(), tags: 1000, records: Vec::new() };
        while scribe.records.len() < 120 {
            scribe.step();
        }
        let Scribe { mut dice, records, .. } = scribe;
        let folder = TempDir::new().expect("a folder");
        // What the system holds back from the disk is not what is tested here.
        let open = || Store::open(folder.path(), &GENESIS, ME, Durability::Os).expect("sound");
        let (mut store, recovered) = open();
        let mut model = Model::default();
        model.assert_is(&store, recovered);
        let mut left = records.as_slice();
        let longest = dice.between(1, 24);
        while !left.is_empty() {
            let many = usize::try_from(dice.between(1, longest)).expect("small");
            let (group, rest) = left.split_at(many.min(left.len()));
            left = rest;
            let views = store.commit(group).expect("written");
            group.iter().for_each(|record| model.apply(record));
            let states = || model.state.iter().chain(&model.incoming);
            for (place, view) in views {
                assert!(matches!(group[place], Record::Settled(_) | Record::Rows { .. }));
                let rows: BTreeMap<_, _> = all_rows(&view).into_iter().collect();
                assert!(states().any(|state| state.rows == rows), "{rows:?}");
            }
            // A crash takes what is settled in part, and a replica begins anew after it.
            let is_whole = model.settling.is_none();
            let recovered = if (is_whole && dice.one_in(8)) || rest.is_empty() {
                let index = store.writer.index.clone();
                drop(store);
                let (opened, recovered) = open();
                store = opened;
                assert_eq!(store.writer.index, index);
                recovered
            } else {
                store.tables.recovered().expect("sound")
            };
            model.assert_is(&store, recovered);
        }
    }
}
