//! What a correct replica's history may hold: I4, I6, and the rules for a slot; and that nothing it
//! executed is lost: I5.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use elea_protocol::edition::{Edition, Editions};
use elea_protocol::id::{ClientId, Digest, ReplicaId, RequestName, RequestNumber, Slot};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Batch, Past, Position, SignedRequest, SlotEntry};

use crate::disk::Disk;
use crate::inspect::{Look, Seen};
use crate::restate;
use crate::violation::{Violation, demand};

/// Which histories there are, as far as whoever asks can know.
pub trait Ancestry {
    /// Whether some correct replica had the history that ends in `hash`.
    fn knows(&self, hash: &Digest) -> bool;

    /// The hash at `slot` of the history that ends in `hash`, where that is known.
    fn ancestor(&self, hash: Digest, slot: Slot) -> Option<Digest>;

    /// Whether the history that ends in `high` goes through `low`.
    fn extends(&self, high: Position, low: Position) -> bool {
        if low.slot >= high.slot {
            return low == high;
        }
        self.ancestor(high.hash, low.slot) == Some(low.hash)
    }
}

impl Ancestry for Histories {
    fn knows(&self, hash: &Digest) -> bool {
        *hash == self.genesis || self.links.contains_key(hash)
    }

    fn ancestor(&self, hash: Digest, slot: Slot) -> Option<Digest> {
        let mut at = hash;
        loop {
            if slot == Slot::GENESIS {
                return Some(self.genesis);
            }
            let link = self.links.get(&at)?;
            if link.slot <= slot {
                return (link.slot == slot).then_some(at);
            }
            at = link.previous;
        }
    }
}

/// A slot of some history, known by its hash.
#[derive(Clone)]
struct Link {
    slot: Slot,
    previous: Digest,
    batch: Arc<Batch>,
}

/// What a replica's history was when it was last looked at.
#[derive(Clone, Default)]
struct Mirror {
    /// From slot 1 on.
    hashes: Vec<Digest>,
    names: HashMap<RequestName, Slot>,
    /// The last slot that was no longer in memory: what is stable never changes.
    base: usize,
    /// Requests of honest clients that it executed and took back, with the slot that held them.
    orphans: BTreeMap<RequestName, Digest>,
}

/// Every history that a correct replica ever had, and where each replica stands in them.
#[derive(Clone)]
pub struct Histories {
    genesis: Digest,
    replicas: u8,
    honest: BTreeSet<ClientId>,
    /// How many sessions a client may have; of more than that some leave, and what is sent in them then is
    /// never executed.
    max_sessions: u64,
    links: HashMap<Digest, Link>,
    /// Slots that replicas executed and gave up before anybody looked: they may have answered them.
    passed: HashMap<Digest, (Slot, Batch)>,
    mirrors: Vec<Mirror>,
    states: HashMap<Digest, (ReplicaId, Digest)>,
    /// Slots that correct replicas took back while they ran, or lost in a crash.
    pub taken_back: u64,
    /// Requests that were taken back, and had to be kept.
    pub orphaned: u64,
    /// Histories that went on from a state further ahead.
    pub jumps: u64,
}

impl Histories {
    /// Nobody has a history yet. Requests of these clients must not be lost.
    #[must_use]
    pub fn new(
        genesis: Digest,
        replicas: u8,
        honest: BTreeSet<ClientId>,
        max_sessions: u64,
    ) -> Self {
        Self {
            genesis,
            replicas,
            honest,
            max_sessions,
            links: HashMap::new(),
            passed: HashMap::new(),
            mirrors: vec![Mirror::default(); usize::from(replicas)],
            states: HashMap::new(),
            taken_back: 0,
            orphaned: 0,
            jumps: 0,
        }
    }

    fn mirror(&mut self, who: ReplicaId) -> &mut Mirror {
        &mut self.mirrors[usize::from(who.0)]
    }

    fn hash_of(&self, mirror: &Mirror, slot: usize) -> Digest {
        slot.checked_sub(1).map_or(self.genesis, |index| mirror.hashes[index])
    }

    /// Slots that a correct replica executed, one upon the other, whether or not it has them still.
    pub fn passed(&mut self, slots: Vec<(Slot, Digest, SlotEntry)>) {
        for (slot, hash, entry) in slots {
            let batch = Batch { choices: entry.choices, requests: entry.requests };
            self.passed.insert(hash, (slot, batch));
        }
    }

    /// Brings the mirror of a replica up to date and checks what is new in it. Answers whether
    /// anything is.
    ///
    /// # Errors
    /// I4, I5, I6, `orders`, `requests` or `time`.
    pub fn follow(
        &mut self,
        who: ReplicaId,
        core: &dyn Look,
        membership: &Membership,
    ) -> Result<bool, Violation> {
        let changed = self.catch_up(who, core, membership)?;
        self.nothing_is_lost(who, core)?;
        Ok(changed)
    }

    fn catch_up(
        &mut self,
        who: ReplicaId,
        core: &dyn Look,
        membership: &Membership,
    ) -> Result<bool, Violation> {
        let head = core.head();
        let mirror = &self.mirrors[usize::from(who.0)];
        let length = usize::try_from(head.slot.0).unwrap_or(usize::MAX);
        if mirror.hashes.len() == length && self.hash_of(mirror, length) == head.hash {
            return Ok(false);
        }
        let base = core.base();
        let below = usize::try_from(base.slot.0).unwrap_or(usize::MAX);
        if mirror.hashes.len() < below || self.hash_of(mirror, below) != base.hash {
            self.jump(who, base, membership, core.editions())?;
        }
        let mirror = &self.mirrors[usize::from(who.0)];
        let stable = mirror.base;
        let mut common = length.min(mirror.hashes.len());
        while common > below
            && core.hash_at(Slot(common as u64)) != Some(self.hash_of(mirror, common))
        {
            common -= 1;
        }
        demand(common >= stable, "I6", || {
            format!(
                "{who} changed its history above slot {common}, and it was stable up to {stable}"
            )
        })?;
        self.cut(who, common, true);
        self.mirror(who).base = stable.max(below);
        for slot in common + 1..=length {
            let slot = Slot(slot as u64);
            let seen = core.slot(slot).ok_or_else(|| {
                Violation::new(
                    "I6",
                    format!("{who} has its head at {} and no slot {slot}", head.slot),
                )
            })?;
            self.append(who, slot, seen, membership, core.editions())?;
        }
        let mirror = &self.mirrors[usize::from(who.0)];
        demand(self.hash_of(mirror, length) == head.hash, "I6", || {
            format!("{who} has head {:?} at {}, its chain ends otherwise", head.hash, head.slot)
        })?;
        Ok(true)
    }

    /// The replica's memory begins at a slot that the mirror does not have so: it took much at once,
    /// or a whole state. The slots up to there are as others had them: they are certified, so some
    /// correct replica had.
    fn jump(
        &mut self,
        who: ReplicaId,
        base: Position,
        membership: &Membership,
        own: Editions,
    ) -> Result<(), Violation> {
        let mirror = &self.mirrors[usize::from(who.0)];
        let mut above = Vec::new();
        let mut at = base.hash;
        let mut slot = usize::try_from(base.slot.0).unwrap_or(usize::MAX);
        while slot > mirror.hashes.len() || self.hash_of(mirror, slot) != at {
            let link = self.links.get(&at).filter(|link| link.slot.0 == slot as u64);
            let link = link.ok_or_else(|| {
                let what = format!("{who} gave up slot {slot}, which no correct replica ever had");
                Violation::new("I6", what)
            })?;
            let seen = Seen { hash: at, batch: link.batch.clone(), order: None };
            above.push((link.slot, seen));
            at = link.previous;
            slot -= 1;
        }
        demand(slot >= mirror.base, "I6", || {
            format!(
                "{who} changed its history above slot {slot}, and it was stable up to {}",
                mirror.base
            )
        })?;
        self.jumps += 1;
        self.cut(who, slot, true);
        for (slot, seen) in above.into_iter().rev() {
            self.append(who, slot, seen, membership, own)?;
        }
        Ok(())
    }

    /// I5, as far as one replica can break it: what it executed for an honest client is in its
    /// history, or waits to be.
    fn nothing_is_lost(&mut self, who: ReplicaId, core: &dyn Look) -> Result<(), Violation> {
        let max_sessions = self.max_sessions;
        let Mirror { names, orphans, .. } = &mut self.mirrors[usize::from(who.0)];
        orphans.retain(|name, _| !names.contains_key(name));
        // Unless the session has left, which takes that many others.
        orphans.retain(|name, _| {
            core.waits(name) || !sessions_may_have_left(names.keys(), &name.client, max_sessions)
        });
        for (name, hash) in orphans.iter() {
            demand(core.waits(name), "I5", || {
                format!("{who} executed {name:?} in slot {hash:?}, and has it no more")
            })?;
        }
        Ok(())
    }

    /// I12: whether the history that ends in `at` includes a past. Answers whether all that was read lies on it as it was
    /// read; what does not was moved by a merge.
    ///
    /// # Errors
    /// A request that was seen is not executed in it.
    pub fn includes(&self, who: &str, at: Position, past: &Past) -> Result<bool, Violation> {
        demand(self.knows(&at.hash) && self.slot_of(&at.hash) == at.slot, "I12", || {
            format!("{who} names {at:?}, which no correct replica ever had")
        })?;
        let lacks = |name: &RequestName, of: &str| {
            format!("{who}: the history up to {at:?} is said to include {of}, and lacks {name:?}")
        };
        for one in past.written() {
            for number in (one.first.0..=one.last.0).map(RequestNumber) {
                let name = RequestName { client: one.client, session: one.session, number };
                demand(self.executes(at, &name, None), "I12", || lacks(&name, "what was written"))?;
            }
        }
        let mut as_read = true;
        for read in past.read() {
            let mut hash = read.hash;
            while self.ancestor(at.hash, self.slot_of(&hash)) != Some(hash) {
                as_read = false;
                let link = self.links.get(&hash).ok_or_else(|| {
                    Violation::new(
                        "I12",
                        format!("{who} says that {read:?} is included: nobody had it"),
                    )
                })?;
                for request in &link.batch.requests {
                    let (name, content) = (request.body().name(), Some(request.digest()));
                    let is_executed = self.executes(at, &name, content);
                    demand(is_executed, "I12", || lacks(&name, "what was read"))?;
                }
                hash = link.previous;
            }
        }
        Ok(as_read)
    }

    fn slot_of(&self, hash: &Digest) -> Slot {
        self.links.get(hash).map(|link| link.slot).unwrap_or_default()
    }

    /// Whether a request, with this content if one is named, is executed in the history that ends in `at`.
    fn executes(&self, at: Position, name: &RequestName, content: Option<Digest>) -> bool {
        let holds = |batch: &Batch| {
            let is_it = |request: &Arc<SignedRequest>| {
                request.body().name() == *name && content.is_none_or(|one| one == request.digest())
            };
            batch.requests.iter().any(is_it)
        };
        let end = usize::try_from(at.slot.0).unwrap_or(usize::MAX);
        let goes_through =
            |mirror: &&Mirror| end <= mirror.hashes.len() && self.hash_of(mirror, end) == at.hash;
        if let Some(mirror) = self.mirrors.iter().find(goes_through) {
            let slot = mirror.names.get(name).filter(|slot| **slot <= at.slot);
            return slot.is_some_and(|slot| {
                let hash = self.hash_of(mirror, usize::try_from(slot.0).unwrap_or(usize::MAX));
                self.links.get(&hash).is_some_and(|link| holds(&link.batch))
            });
        }
        self.batches(at.hash).iter().any(|(_, batch)| holds(batch))
    }

    /// Shortens the mirror of a replica. What it then has no more is an orphan, if it must be kept.
    fn cut(&mut self, who: ReplicaId, length: usize, keep: bool) {
        let cut = self.mirror(who).hashes.split_off(length);
        self.taken_back += cut.len() as u64;
        for hash in cut {
            let Some(link) = self.links.get(&hash) else { continue };
            let batch = link.batch.clone();
            for request in &batch.requests {
                let name = request.body().name();
                let is_orphan = keep && self.honest.contains(&name.client);
                let mirror = self.mirror(who);
                mirror.names.remove(&name);
                if is_orphan {
                    mirror.orphans.insert(name, hash);
                    self.orphaned += 1;
                }
            }
        }
    }

    /// A replica lost its memory: what it executed, and what was not on its disk, may be gone.
    /// Nothing can have left that rested on it.
    pub fn crashed(&mut self, who: ReplicaId, disk: &Disk) {
        let below =
            disk.base().map_or(0, |base| usize::try_from(base.slot.0).unwrap_or(usize::MAX));
        let mirror = self.mirror(who);
        mirror.orphans.retain(|_, hash| disk.ever_held(hash));
        let above =
            mirror.hashes.iter().skip(below).take_while(|hash| disk.ever_held(hash)).count();
        let durable = (below + above).min(mirror.hashes.len());
        // That a later state was stable may not be on the disk yet: the history is executed from the one that is.
        mirror.base = mirror.base.min(below).min(durable);
        self.cut(who, durable, false);
    }

    fn append(
        &mut self,
        who: ReplicaId,
        slot: Slot,
        seen: Seen,
        membership: &Membership,
        own: Editions,
    ) -> Result<(), Violation> {
        let mirror = &self.mirrors[usize::from(who.0)];
        let previous = self.hash_of(mirror, mirror.hashes.len());
        let batch = restate::batch(&seen.batch);
        demand(restate::link(&previous, &batch) == seen.hash, "I6", || {
            format!("{who} has {:?} at {slot}, which is not the digest of its batch", seen.hash)
        })?;
        if let Some(order) = &seen.order {
            let header = &order.body.header;
            let primary = header.view.primary(self.replicas);
            demand(order.by == primary, "orders", || {
                format!("{who} took an order for slot {slot} from {}, not {primary}", order.by)
            })?;
            let same = (header.slot, header.hash, header.batch) == (slot, seen.hash, batch);
            demand(same, "orders", || {
                format!("{who} keeps an order for slot {slot} that is about something else")
            })?;
        }
        let (choices, before) = (seen.batch.choices, self.links.get(&previous));
        let before = before.map(|link| link.batch.choices).unwrap_or_default();
        demand(before.time <= choices.time, "time", || {
            format!("{who}: slot {slot} is older than the slot before")
        })?;
        let Edition { protocol, application } = before.edition;
        let falls =
            choices.edition.protocol < protocol || choices.edition.application < application;
        demand(!falls, "editions", || {
            format!(
                "{who}: slot {slot} is of edition {}, after {}",
                choices.edition, before.edition
            )
        })?;
        demand(own.include(choices.edition), "editions", || {
            format!("{who} executes slot {slot} of edition {}, and knows {own}", choices.edition)
        })?;
        if !self.knows(&seen.hash) {
            demand(!seen.batch.requests.is_empty(), "requests", || {
                format!("{who} has nothing in slot {slot}")
            })?;
            for request in &seen.batch.requests {
                // Not by the way that replicas go, which may be what is wrong.
                let claim = request.claim(membership.genesis());
                let is_signed = claim.is_ok_and(|claim| membership.scheme().verify(&claim));
                let good = is_signed && membership.open_request(request.clone()).is_ok();
                demand(good, "requests", || {
                    format!("{who} has in slot {slot} a request that no client signed")
                })?;
            }
            let link = Link { slot, previous, batch: seen.batch.clone() };
            self.links.insert(seen.hash, link);
        }
        let mirror = self.mirror(who);
        for request in &seen.batch.requests {
            let name = request.body().name();
            if let Some(first) = mirror.names.insert(name, slot) {
                let what = format!("{who} executed {name:?} in slot {first} and in slot {slot}");
                return Err(Violation::new("I4", what));
            }
        }
        mirror.hashes.push(seen.hash);
        Ok(())
    }

    /// What a replica's state was after its head.
    ///
    /// # Errors
    /// `state`: another replica had another state there.
    pub fn state(&mut self, who: ReplicaId, at: Digest, state: Digest) -> Result<(), Violation> {
        let (other, theirs) = *self.states.entry(at).or_insert((who, state));
        demand(theirs == state, "state", || {
            format!("{who} and {other} have one history up to {at:?} and two states")
        })
    }

    /// The last slot of the history that ends in `hash`, and what it holds, if a correct replica
    /// ever executed it.
    #[must_use]
    pub fn batch_at(&self, hash: &Digest) -> Option<(Slot, &Batch)> {
        let link = self.links.get(hash).map(|link| (link.slot, &*link.batch));
        link.or_else(|| self.passed.get(hash).map(|(slot, batch)| (*slot, batch)))
    }

    /// The whole history that ends in `hash`, from slot 1 on.
    #[must_use]
    pub fn batches(&self, hash: Digest) -> Vec<(Position, Arc<Batch>)> {
        let mut batches = Vec::new();
        let mut at = hash;
        while let Some(link) = self.links.get(&at) {
            batches.push((Position { slot: link.slot, hash: at }, link.batch.clone()));
            at = link.previous;
        }
        batches.reverse();
        batches
    }

    /// Whether a replica's history holds the request.
    #[must_use]
    pub fn holds(&self, who: ReplicaId, name: &RequestName) -> bool {
        self.mirrors[usize::from(who.0)].names.contains_key(name)
    }
}

/// Whether a history that holds these requests has more sessions of a client than it may have.
pub(super) fn sessions_may_have_left<'a>(
    names: impl Iterator<Item = &'a RequestName>,
    client: &ClientId,
    max_sessions: u64,
) -> bool {
    let of_client = names.filter(|name| name.client == *client);
    let sessions: BTreeSet<_> = of_client.map(|name| name.session).collect();
    sessions.len() as u64 > max_sessions
}

#[cfg(test)]
pub(super) mod tests {
    use elea_protocol::id::{RequestNumber, SessionId, View, WallTime};
    use elea_protocol::merkle::Path;
    use elea_protocol::message::{
        Commit, Level, NonDeterminism, Order, OrderHeader, Request, SignedRequest,
    };
    use elea_protocol::seal::sign;

    use super::*;
    use crate::keys::Keyring;
    use crate::rng::Rng;

    /// A made-up replica: what the checkers would see of one.
    #[derive(Clone)]
    pub struct Fake {
        pub slots: Vec<Seen>,
        /// The numbers of requests that wait.
        pub waiting: Vec<u64>,
        /// Slots that are no longer in memory.
        pub given_up: u64,
        genesis: Digest,
    }

    impl Look for Fake {
        fn head(&self) -> Position {
            let hash = self.slots.last().map_or(Digest::default(), |seen| seen.hash);
            Position { slot: Slot(self.slots.len() as u64), hash }
        }
        fn entered(&self) -> (View, Slot) {
            (View::ZERO, Slot::GENESIS)
        }
        fn base(&self) -> Position {
            let slot = Slot(self.given_up);
            Position { slot, hash: self.hash_at(slot).unwrap_or(self.genesis) }
        }
        fn waits(&self, name: &RequestName) -> bool {
            self.waiting.contains(&name.number.0)
        }
        fn hash_at(&self, slot: Slot) -> Option<Digest> {
            self.slot(slot).map(|seen| seen.hash)
        }
        fn slot(&self, slot: Slot) -> Option<Seen> {
            let index = usize::try_from(slot.0).ok()?.checked_sub(1)?;
            self.slots.get(index).cloned()
        }
        fn editions(&self) -> Editions {
            Editions::with(1..=1)
        }
        fn lock(&self) -> Option<Commit> {
            None
        }
        fn footprint(&self) -> Vec<(&'static str, usize)> {
            Vec::new()
        }
    }

    pub struct Stage {
        pub keys: Keyring,
        pub membership: Membership,
    }

    impl Stage {
        pub fn new() -> Self {
            let keys = Keyring::new(&mut Rng::new(1), 4, 1, false);
            let membership =
                Membership::new("check", 1, keys.replica_keys(), None, keys.scheme.clone())
                    .expect("a sound cluster");
            Self { keys, membership }
        }

        pub fn request(&self, number: u64) -> Arc<SignedRequest> {
            let body = Request {
                client: self.keys.client_id(0),
                session: SessionId(1),
                number: RequestNumber(number),
                level: Level::Weak,
                want_final: false,
                operations: vec!["incr x 1".into()],
            };
            SignedRequest::sign(&*self.keys.clients[0], self.membership.genesis(), body)
        }

        pub fn chain(&self, batches: &[&[u64]], by: u8) -> Fake {
            let mut previous = *self.membership.genesis();
            let mut slots = Vec::new();
            for (index, numbers) in batches.iter().enumerate() {
                let requests: Vec<_> = numbers.iter().map(|n| self.request(*n)).collect();
                let choices = NonDeterminism {
                    time: WallTime(5),
                    seed: [0; 16],
                    ..NonDeterminism::default()
                };
                let batch = Batch { choices, requests };
                let digest = restate::batch(&batch);
                let hash = restate::link(&previous, &digest);
                let header = OrderHeader {
                    view: View(0),
                    slot: Slot(index as u64 + 1),
                    hash,
                    batch: digest,
                };
                let order = Order { header, choices, requests: batch.request_digests() };
                let signer = &*self.keys.replicas[usize::from(by)];
                let genesis = self.membership.genesis();
                let order = sign(signer, genesis, ReplicaId(by), order).into_inner();
                slots.push(Seen { hash, batch: Arc::new(batch), order: Some(order) });
                previous = hash;
            }
            let genesis = *self.membership.genesis();
            Fake { slots, waiting: Vec::new(), given_up: 0, genesis }
        }

        pub fn histories(&self) -> Histories {
            Histories::new(
                *self.membership.genesis(),
                4,
                BTreeSet::from([self.keys.client_id(0)]),
                8,
            )
        }
    }

    fn rule(found: Result<bool, Violation>) -> String {
        found.expect_err("a violation").rule
    }

    const ONE: ReplicaId = ReplicaId(1);

    #[test]
    fn a_name_executed_twice_breaks_i4_and_one_undone_does_not() {
        let stage = Stage::new();
        let mut histories = stage.histories();
        let first = stage.chain(&[&[1], &[2, 3]], 0);
        assert_eq!(histories.follow(ONE, &first, &stage.membership), Ok(true));
        assert_eq!(histories.follow(ONE, &first, &stage.membership), Ok(false));
        let other = stage.chain(&[&[1], &[3], &[2]], 0);
        assert_eq!(histories.follow(ONE, &other, &stage.membership), Ok(true));
        assert_eq!(histories.taken_back, 1);
        let twice = stage.chain(&[&[1], &[3], &[2], &[3]], 0);
        assert_eq!(rule(histories.follow(ONE, &twice, &stage.membership)), "I4");
    }

    #[test]
    fn what_was_taken_back_waits_or_breaks_i5() {
        let stage = Stage::new();
        let first = stage.chain(&[&[1], &[2], &[3]], 0);
        let mut other = stage.chain(&[&[1], &[3]], 0);
        let mut histories = stage.histories();
        histories.follow(ONE, &first, &stage.membership).expect("sound");
        other.waiting = vec![2];
        assert_eq!(histories.follow(ONE, &other, &stage.membership), Ok(true));
        assert_eq!(histories.orphaned, 2);
        other.waiting.clear();
        assert_eq!(rule(histories.follow(ONE, &other, &stage.membership)), "I5", "a step later");
        let whole = stage.chain(&[&[1], &[3], &[2]], 0);
        assert_eq!(histories.follow(ONE, &whole, &stage.membership), Ok(true));
        // Of a client that keeps to no rules, nothing is demanded.
        let mut histories = Histories::new(*stage.membership.genesis(), 4, BTreeSet::new(), 8);
        histories.follow(ONE, &first, &stage.membership).expect("sound");
        assert_eq!(histories.follow(ONE, &other, &stage.membership), Ok(true));
    }

    /// With the first two slots on it.
    fn disk(fake: &Fake) -> Disk {
        use elea_protocol::message::SlotEntry;
        use elea_protocol::replica::{Mark, Record};
        let mut disk = Disk::default();
        for (mark, seen) in (1..).zip(&fake.slots[..2]) {
            let Seen { hash, batch, order } = seen.clone();
            let (choices, requests) = (batch.choices, batch.requests.clone());
            let entry = SlotEntry { choices, requests, order };
            let record = Record::Slot { slot: Slot(mark), hash, entry };
            disk.append(ONE, Mark(mark), &record).expect("in order");
        }
        disk.begin_sync();
        disk.finish_sync(ONE).expect("sound");
        disk
    }

    #[test]
    fn what_was_on_no_disk_may_be_lost_in_a_crash_and_the_rest_breaks_i5() {
        let stage = Stage::new();
        let fake = stage.chain(&[&[1], &[2], &[3]], 0);
        let disk = disk(&fake);
        let mut histories = stage.histories();
        histories.follow(ONE, &fake, &stage.membership).expect("sound");
        histories.crashed(ONE, &disk);
        let two = stage.chain(&[&[1], &[2]], 0);
        assert!(histories.follow(ONE, &two, &stage.membership).is_ok());
        histories.crashed(ONE, &disk);
        let one = stage.chain(&[&[1]], 0);
        assert_eq!(rule(histories.follow(ONE, &one, &stage.membership)), "I5");
    }

    #[test]
    fn after_a_crash_a_history_is_executed_again_from_the_state_on_the_disk() {
        let stage = Stage::new();
        let three = Fake { given_up: 2, ..stage.chain(&[&[1], &[2], &[3]], 0) };
        let disk = disk(&three);
        let mut histories = stage.histories();
        let whole = Fake { given_up: 0, ..three.clone() };
        histories.follow(ReplicaId(2), &whole, &stage.membership).expect("sound");
        histories.follow(ONE, &three, &stage.membership).expect("sound");
        let mut one = stage.chain(&[&[1]], 0);
        one.waiting = vec![2, 3, 4];
        assert_eq!(rule(histories.clone().follow(ONE, &one, &stage.membership)), "I6");
        histories.crashed(ONE, &disk);
        assert_eq!(histories.follow(ONE, &one, &stage.membership), Ok(true));
    }

    #[test]
    fn a_state_that_no_correct_replica_had_breaks_i6_and_one_that_another_had_does_not() {
        let stage = Stage::new();
        let mut histories = stage.histories();
        let mut ahead = stage.chain(&[&[1], &[2], &[3], &[4]], 0);
        ahead.given_up = 3;
        let mine = stage.chain(&[&[1], &[4]], 0);
        histories.follow(ONE, &mine, &stage.membership).expect("sound");
        assert_eq!(rule(histories.follow(ONE, &ahead, &stage.membership)), "I6");
        let whole = Fake { given_up: 0, ..ahead.clone() };
        histories.follow(ReplicaId(2), &whole, &stage.membership).expect("sound");
        assert_eq!(histories.follow(ONE, &ahead, &stage.membership), Ok(true));
        assert_eq!(histories.jumps, 1);
        // What was stable stays.
        assert_eq!(rule(histories.follow(ONE, &mine, &stage.membership)), "I6");
    }

    #[test]
    fn a_broken_chain_breaks_i6() {
        let stage = Stage::new();
        let mut bent = stage.chain(&[&[1], &[2]], 0);
        bent.slots[1].hash.0[0] ^= 1;
        assert_eq!(rule(stage.histories().follow(ONE, &bent, &stage.membership)), "I6");
        let mut swapped = stage.chain(&[&[1], &[2]], 0);
        swapped.slots[0].batch = swapped.slots[1].batch.clone();
        assert_eq!(rule(stage.histories().follow(ONE, &swapped, &stage.membership)), "I6");
    }

    #[test]
    fn an_order_of_a_backup_in_a_history_is_found() {
        let stage = Stage::new();
        let usurped = stage.chain(&[&[1]], 2);
        assert_eq!(rule(stage.histories().follow(ONE, &usurped, &stage.membership)), "orders");
    }

    #[test]
    fn a_request_that_no_client_signed_is_found() {
        let stage = Stage::new();
        let mut forged = stage.chain(&[&[1]], 0);
        let request = stage.request(1);
        let body = request.body().clone();
        let signature = elea_protocol::signature::Signature([0; 64]);
        let batch = Batch {
            choices: forged.slots[0].batch.choices,
            requests: vec![Arc::new(SignedRequest::from_parts(body, signature, Path::lone()))],
        };
        forged.slots[0].batch = Arc::new(batch);
        assert_eq!(rule(stage.histories().follow(ONE, &forged, &stage.membership)), "requests");
    }

    #[test]
    fn two_states_after_one_history_are_found() {
        let stage = Stage::new();
        let mut histories = stage.histories();
        let at = Digest([1; 32]);
        assert!(histories.state(ReplicaId(0), at, Digest([2; 32])).is_ok());
        assert!(histories.state(ONE, at, Digest([2; 32])).is_ok());
        let found = histories.state(ReplicaId(2), at, Digest([3; 32])).expect_err("differs");
        assert_eq!(found.rule, "state");
    }
}
