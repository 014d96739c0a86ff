//! Random sequences of records, in random groups, on the store and on a model of it in memory.
//!
//! The model applies each record by itself, as its documentation says, and knows nothing of
//! groups, keys and overlays: what the store has to get right is exactly that these do not show.

use super::*;

/// SplitMix64: a seed names a run for good.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

type Pieces = BTreeMap<StatePart, Bytes>;

/// What all records so far come to.
#[derive(Default)]
struct Model {
    state: Option<(StateHead, Pieces)>,
    incoming: Option<(Position, Pieces)>,
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
}

impl Model {
    fn base(&self) -> u64 {
        self.state.as_ref().map_or(0, |(head, _)| head.stable.slot().0)
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
            Record::Chunk { at, part, bytes } => match (&mut self.state, &mut self.incoming) {
                (Some((head, pieces)), _) if head.stable.position() == at => {
                    pieces.insert(part, bytes);
                }
                (_, Some((known, pieces))) if *known == at => {
                    pieces.insert(part, bytes);
                }
                (_, incoming) => *incoming = Some((at, Pieces::from([(part, bytes)]))),
            },
            Record::Settled(head) => {
                let (at, pieces) = self.incoming.take().expect("pieces come first");
                assert_eq!(at, head.stable.position());
                self.slots.drain(..usize::try_from(at.slot.0 - self.base()).expect("few"));
                self.state = Some((*head, pieces));
            }
            Record::Evidence(evidence) => {
                if !self.evidence.contains(&evidence) {
                    self.evidence.push(*evidence);
                }
            }
            Record::Standing(standing) => self.standing = Some(standing),
            Record::Lives(lives) => self.lives = lives,
            Record::Mismatches(mismatches) => self.mismatches = mismatches,
        }
    }

    fn adopt(&mut self, adopted: Adopted) {
        match adopted.ground {
            Ground::Common(slot) => self.truncate(slot.0),
            Ground::State(head) => {
                let (at, pieces) = self.incoming.take().expect("pieces come first");
                assert_eq!(at, head.stable.position());
                self.stable = Some(head.stable.clone());
                self.slots.clear();
                self.state = Some((*head, pieces));
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
        let chunks = |pieces: &Pieces| pieces.clone().into_iter().collect();
        let state = self.state.as_ref();
        Recovered {
            entered: self.entered.clone(),
            state: state.map(|(head, p)| StoredState { head: head.clone(), chunks: chunks(p) }),
            lock: self.lock.clone(),
            voted: self.voted,
            stable: self.stable.clone(),
            orphans: self.orphans.values().cloned().collect(),
            evidence,
            standing: self.standing.unwrap_or(Standing::New),
            lives: self.lives.clone(),
            mismatches: self.mismatches.clone(),
        }
    }

    /// The store holds what the model does, and nothing beside it.
    fn assert_is(&self, store: &Store, mut recovered: Recovered) {
        sort(&mut recovered.evidence);
        assert_same(recovered, self.recovered());
        let slots: Vec<_> = store.history().map(|read| read.expect("sound")).collect();
        assert!(slots == self.slots, "{} slots, not {}", slots.len(), self.slots.len());
        let incoming = self.incoming.as_ref().map_or(0, |(_, pieces)| pieces.len());
        let in_place = self.state.as_ref().map_or(0, |(_, pieces)| pieces.len());
        assert_eq!(keys(&store.history), self.slots.len());
        assert_eq!(keys(&store.aside), self.aside.len());
        assert_eq!(keys(&store.state), incoming + in_place);
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
        let (base, head) = (self.model.base(), self.model.head());
        match self.dice.below(16) {
            0..=5 => {
                let at = if self.dice.one_in(6) && head > base {
                    self.dice.between(base + 1, head)
                } else {
                    head + 1
                };
                let tag = self.tag();
                self.write(slot(at, tag));
            }
            6 => {
                let (at, tag) = (self.dice.between(base + 1, head + 5), self.tag());
                self.write(Record::Aside(aside(at, tag)));
            }
            7 | 8 => {
                let certificate = lock(self.dice.between(1, head + 1));
                self.write(Record::Lock(certificate));
            }
            9 => {
                let proof = stable(self.dice.between(1, head + 1), self.tags);
                self.write(Record::Stable(Box::new(proof)));
            }
            10 | 11 => {
                let slot = self.dice.between(base, head);
                self.adopt(Ground::Common(Slot(slot)), slot);
            }
            12 if self.dice.one_in(2) && head > base => self.settle(base + 1, head),
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
                // Of one that will never be whole, or of the one in place.
                let at = match &self.model.state {
                    Some((head, _)) if self.dice.one_in(4) => head.stable.position(),
                    _ => {
                        let tag = self.dice.below(3);
                        Position { slot: Slot(base + 1 + tag), hash: hash(tag) }
                    }
                };
                self.chunk(at);
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

    fn chunk(&mut self, at: Position) {
        let index = u32::try_from(self.dice.below(3)).expect("small");
        let part = match self.dice.below(3) {
            0 => StatePart::Last,
            1 => StatePart::Sessions(index),
            _ => StatePart::Application(index),
        };
        let bytes = Bytes::copy_from_slice(&self.dice.next().to_be_bytes());
        self.write(Record::Chunk { at, part, bytes });
    }

    fn settle(&mut self, lowest: u64, highest: u64) {
        let (slot, tag) = (self.dice.between(lowest, highest), self.tag());
        let head = head(slot, tag);
        for _ in 0..self.dice.between(1, 6) {
            self.chunk(head.stable.position());
        }
        self.write(Record::Settled(Box::new(head)));
    }

    fn transfer(&mut self) {
        let tag = self.tag();
        let slot = self.model.base() + self.dice.between(1, 12);
        let head = head(slot, tag);
        for _ in 0..self.dice.between(1, 6) {
            self.chunk(head.stable.position());
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
            store.commit(group).expect("written");
            group.iter().for_each(|record| model.apply(record));
            let recovered = if dice.one_in(8) || rest.is_empty() {
                let index = store.index.clone();
                drop(store);
                let (opened, recovered) = open();
                store = opened;
                assert_eq!(store.index, index);
                recovered
            } else {
                store.recovered().expect("sound")
            };
            model.assert_is(&store, recovered);
        }
    }
}
