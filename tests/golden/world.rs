//! Four replicas of the key-value store in one thread, and a life in which a replica writes every kind of record.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use elea_fault_injection::disk::Disk;
use elea_kv::{
    Add, Append, Cas, Command as _, Compare, Delete, EDITIONS, Incr, KeyValueStore, Put, Txn,
};
use elea_protocol::edition::Editions;
use elea_protocol::id::{
    ClientId, Digest, Instant, Life, Now, ReplicaId, RequestNumber, SessionId, Slot, View, WallTime,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Commit, DiskHealth, Level, Linked, Message, Mismatch, NodeStatus, Position, Request,
    SignedRequest, SlotEntry, Standing, StateDigests, Transport,
};
use elea_protocol::replica::{
    Action, Aside, Driver, Event, Ground, Record, Replica, Setup, StoredState, Target,
};
use elea_protocol::seal::sign;
use elea_protocol::signature::{Ed25519, SecretKey, Signer};
use elea_protocol::tuning::{Rules, Tuning};

/// Whose store it is.
pub const ME: ReplicaId = ReplicaId(1);

/// One that is ahead of it in the end.
pub const ANOTHER: ReplicaId = ReplicaId(2);

/// Who signs two votes for one slot.
const LIAR: ReplicaId = ReplicaId(3);

const SESSION: SessionId = SessionId(1 << 16);

/// Up to here all have one history.
const LONG_GONE: Slot = Slot(8);

/// More events than this life has.
const EVENTS_MAX: usize = 20_000;

pub fn key(of: ReplicaId) -> SecretKey {
    SecretKey::from_bytes(&[of.0 + 1; 32])
}

pub fn client_key() -> SecretKey {
    SecretKey::from_bytes(&[9; 32])
}

pub fn membership() -> Arc<Membership> {
    let replicas = (0..4).map(|id| key(ReplicaId(id)).public_key()).collect();
    let clients = Some([ClientId::from(client_key().public_key())].into());
    let scheme = Arc::new(Ed25519::default());
    Arc::new(Membership::new("golden", 1, replicas, clients, scheme).expect("sound"))
}

/// Of replicas whose states take the place of slots early, and that keep few of these.
pub fn tuning() -> Tuning {
    let rules = Rules { checkpoint_interval: 4, max_kept_result: 64, ..Rules::default() };
    Tuning { rules, settle_bytes: 1, retained_slots: 1, retained_bytes: 1, ..Tuning::default() }
}

pub fn setup(of: ReplicaId) -> Setup {
    Setup {
        id: of,
        membership: membership(),
        signer: Arc::new(key(of)),
        tuning: tuning(),
        editions: Editions::with(EDITIONS),
        seed: [of.0; 32],
    }
}

/// What a replica has written, each group what one event came to.
pub type Groups = Vec<Vec<Record>>;

/// Something that happens to a replica.
struct Letter {
    to: ReplicaId,
    /// `None` where it comes from its own disk.
    from: Option<ReplicaId>,
    event: Event,
}

struct Machine {
    replica: Replica<KeyValueStore>,
    disk: Disk,
    groups: Groups,
    is_cut_off: bool,
}

/// The four of them.
struct World {
    membership: Arc<Membership>,
    now: Now,
    machines: Vec<Machine>,
    letters: VecDeque<Letter>,
    requests: u64,
    events: usize,
}

impl World {
    fn new() -> Self {
        let now = Now { instant: Instant(1), wall: WallTime(1_700_000_000_000) };
        let machine = |id: u8| {
            let (me, life) = (ReplicaId(id), Life([id + 1; 16]));
            let disk = Disk::made(me, Standing::New, life);
            let (application, none) = (KeyValueStore::new(), std::iter::empty());
            let replica =
                Replica::start::<Infallible>(setup(me), application, disk.recovered(), none, now);
            let groups = vec![vec![Record::Lives([(me, life)].into())]];
            Machine { replica: replica.expect("a new disk"), disk, groups, is_cut_off: false }
        };
        Self {
            membership: membership(),
            now,
            machines: (0..4).map(machine).collect(),
            letters: VecDeque::new(),
            requests: 0,
            events: 0,
        }
    }

    fn of(&self, id: ReplicaId) -> &Machine {
        &self.machines[usize::from(id.0)]
    }

    /// From now on nobody hears this replica, and it hears nobody.
    fn cut_off(&mut self, id: ReplicaId) {
        self.machines[usize::from(id.0)].is_cut_off = true;
        let is_lost =
            |letter: &Letter| letter.from.is_some_and(|from| from == id || letter.to == id);
        self.letters.retain(|letter| !is_lost(letter));
    }

    fn connect(&mut self, id: ReplicaId) {
        self.machines[usize::from(id.0)].is_cut_off = false;
    }

    fn handle(&mut self, id: ReplicaId, event: Event) {
        self.events += 1;
        assert!(self.events < EVENTS_MAX, "it goes on for ever");
        let machine = &mut self.machines[usize::from(id.0)];
        let mut actions = Vec::new();
        machine.replica.handle(self.now, event, &mut actions);
        let (mut group, mut sent) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::Append { mark, record } => {
                    machine.disk.append(id, mark, &record).expect("marks count up");
                    group.push(record);
                }
                Action::Send { to, message, .. } => sent.push((to, message)),
                Action::Answer { .. } | Action::Accuse(_) => {}
            }
        }
        let is_cut_off = machine.is_cut_off;
        if !group.is_empty() {
            machine.groups.push(group);
            machine.disk.begin_sync();
            let synced = machine.disk.finish_sync(id).expect("records that follow");
            let rows = synced.rows.into_iter().map(|(mark, rows)| Event::Rows(mark, rows));
            for event in rows.chain([Event::Synced(synced.mark)]) {
                self.letters.push_back(Letter { to: id, from: None, event });
            }
        }
        for (to, message) in sent.into_iter().filter(|_| !is_cut_off) {
            self.send(id, to, &message);
        }
    }

    fn send(&mut self, from: ReplicaId, to: Target, message: &Message) {
        for id in (0..4).map(ReplicaId) {
            let is_meant = match to {
                Target::Others => id != from,
                Target::One(one) => id == one,
            };
            if is_meant && !self.of(id).is_cut_off {
                let message = self.membership.open_message(message.clone()).expect("honest");
                let event = Event::Peer { from, message };
                self.letters.push_back(Letter { to: id, from: Some(from), event });
            }
        }
    }

    /// What is next happens: a letter arrives, or time passes until somebody's deadline.
    fn step(&mut self) {
        if let Some(Letter { to, event, .. }) = self.letters.pop_front() {
            self.now.instant.0 += 50;
            return self.handle(to, event);
        }
        let deadlines = self.machines.iter().zip(0..).map(|(machine, id)| {
            (machine.replica.deadline().expect("a status is always due"), ReplicaId(id))
        });
        let (at, id) = deadlines.min().expect("four of them");
        let before = self.now.instant;
        self.now.instant = before.max(at);
        self.now.wall.0 += (self.now.instant.0 - before.0) / 1000;
        self.handle(id, Event::Tick);
    }

    fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            self.step();
        }
    }

    /// A client asks these replicas for something.
    fn ask(&mut self, of: &[u8], level: Level, operation: Bytes) -> Arc<SignedRequest> {
        self.requests += 1;
        let signer = client_key();
        let body = Request {
            client: signer.public_key().into(),
            session: SESSION,
            number: RequestNumber(self.requests),
            level,
            want_final: false,
            operations: vec![operation],
        };
        let request = SignedRequest::sign(&signer, self.membership.genesis(), body);
        for id in of {
            let event = self.membership.open_request(request.clone()).expect("signed");
            self.handle(ReplicaId(*id), Event::Request(event));
        }
        request
    }

    /// The same, and these replicas execute it, in a slot of its own.
    fn execute(&mut self, by: &[u8], level: Level, operation: Bytes) {
        let head = |world: &Self, id: u8| world.of(ReplicaId(id)).replica.head();
        let before = head(self, by[0]).slot;
        self.ask(by, level, operation);
        self.until(|world| by.iter().all(|id| head(world, *id).slot > before));
    }

    /// They go on until each has a state in the place of its slots.
    fn settle(&mut self, by: &[u8]) {
        let settled = |world: &Self, id: u8| {
            let records = world.of(ReplicaId(id)).groups.iter().flatten();
            records.filter(|record| matches!(record, Record::Settled(_))).count()
        };
        let before: Vec<usize> = by.iter().map(|id| settled(self, *id)).collect();
        let is_quiet = |world: &Self, id: u8| {
            let replica = &world.of(ReplicaId(id)).replica;
            replica.stable() == replica.head().slot
        };
        while by.iter().zip(&before).any(|(id, before)| settled(self, *id) == *before) {
            self.execute(by, Level::Weak, Incr::new("stock/bolts", 1).encode());
            self.until(|world| by.iter().all(|id| is_quiet(world, *id)));
        }
    }

    fn status(&mut self, id: ReplicaId) -> NodeStatus {
        let driver = Driver {
            counters: Vec::new(),
            transport: Transport::Encrypted,
            disk: DiskHealth::Sound,
            doubled: Vec::new(),
            disagreements: Vec::new(),
        };
        self.machines[usize::from(id.0)].replica.status(0, driver)
    }

    fn wrote(&self, id: ReplicaId, is_it: impl Fn(&Record) -> bool) -> bool {
        self.of(id).groups.iter().flatten().any(is_it)
    }
}

/// What two of the four have written: the one whose store it is, and another one that is ahead of it.
pub struct Lives {
    pub mine: Groups,
    pub another: Groups,
    /// How the first one is in the end.
    pub status: NodeStatus,
}

/// What in so short a life does not come by itself, as it would look.
fn with_the_rest(mut mine: Groups, another: &Groups, state: &StoredState) -> Groups {
    // Of a larger state most of the changes come ahead.
    for group in &mut mine {
        let place = group.iter().position(|record| matches!(record, Record::Settled(_)));
        let Some(place) = place else { continue };
        let Record::Settled(settled) = &mut group[place] else { unreachable!("it is one") };
        let (at, half) = (settled.head.stable.position(), settled.changes.len() / 2);
        let later = settled.changes.split_off(half);
        let changes = std::mem::replace(&mut settled.changes, later);
        group.insert(place, Record::Settling { at, first: true, changes });
    }
    // A slot of the others' history that it has fetched, and whose history it has not adopted yet.
    let own: BTreeMap<Slot, Digest> = slots(&mine).map(|(slot, hash, _)| (slot, hash)).collect();
    let aside = slots(another).find_map(|(slot, hash, entry)| {
        let previous = *own.get(&Slot(slot.0.checked_sub(1)?))?;
        let linked = Linked { previous, entry: entry.clone() };
        let is_other = slot > LONG_GONE && own.get(&slot) != Some(&hash);
        is_other.then_some(Aside { at: Position { slot, hash }, linked })
    });
    // It was wrong once, and has been given the certified state since.
    let certified = mine.iter().flatten().find_map(|record| match record {
        Record::Stable(proof) => Some((**proof).clone()),
        _ => None,
    });
    let (aside, certified) = (aside.expect("there is one"), certified.expect("it has some"));
    let own = StateDigests { application: Digest([8; 32]), sessions: Digest([9; 32]) };
    let mismatches = vec![Mismatch { certified, own }];
    mine.push(vec![Record::Aside(aside), Record::Mismatches(mismatches)]);

    // All of a state that is the protocol's own, and some rows of the application's: of a larger one some chunks would
    // be there and others not.
    let at = state.head.stable.position();
    mine.push(vec![Record::Fetching(Box::new(state.head.clone()))]);
    for (part, bytes) in &state.pieces {
        mine.push(vec![Record::Piece { at, part: *part, bytes: bytes.clone() }]);
    }
    let rows = state.rows.range(&[], Bound::Unbounded).map(|row| row.expect("in memory"));
    mine.push(vec![Record::Rows { at, rows: rows.take(2).collect(), whole: false }]);
    mine
}

fn slots(groups: &Groups) -> impl Iterator<Item = (Slot, Digest, &SlotEntry)> {
    groups.iter().flatten().filter_map(|record| match record {
        Record::Slot { slot, hash, entry } => Some((*slot, *hash, entry)),
        _ => None,
    })
}

/// A life in which everything happens that leaves something on a disk.
pub fn live() -> Lives {
    let mut world = World::new();
    let (all, without_me, without_first) = ([0, 1, 2, 3], [0, 2, 3], [1, 2, 3]);
    world.until(|world| world.machines.iter().all(|machine| machine.replica.may_vote()));
    world.execute(&all, Level::Weak, Put::new("colour", "green").encode());
    world.execute(&all, Level::Strong, Add::new("towns", "Elea").encode());

    // It misses so much that it is given a state.
    world.cut_off(ME);
    world.settle(&without_me);
    world.connect(ME);
    let is_state = |record: &Record| matches!(record, Record::Adopted(adopted) if matches!(adopted.ground, Ground::State(_)));
    world.until(|world| world.wrote(ME, is_state));
    world.execute(&all, Level::Strong, Append::new("log", "three bolts sold").encode());
    world.execute(&all, Level::Weak, Cas::create("lock/backup", "alice").encode());
    world.settle(&all);
    world.execute(&all, Level::Weak, Put::new("long", vec![b'x'; 300]).encode());

    // The primary goes, and it is the next one.
    world.cut_off(ReplicaId(0));
    world.execute(&without_first, Level::Strong, Delete::new("colour").encode());
    assert_eq!(world.of(ME).replica.entered(), View(1));
    world.connect(ReplicaId(0));
    let then = Txn::new().when(Compare::exists("log")).then(Put::new("seen", "yes"));
    world.execute(&all, Level::Weak, then.encode());
    world.execute(&all, Level::Weak, Put::new("colour", "blue").encode());

    // One says two things about a slot.
    let head = world.of(ME).replica.head();
    let vote = |hash| {
        let commit = Commit { view: View(1), slot: head.slot, hash };
        sign(&key(LIAR), membership().genesis(), LIAR, commit).into_inner()
    };
    for hash in [head.hash, Digest([7; 32])] {
        let message = Message::Commit(vote(hash));
        let message = world.membership.open_message(message).expect("signed");
        world.handle(ME, Event::Peer { from: LIAR, message });
    }
    assert!(world.wrote(ME, |record| matches!(record, Record::Evidence(_))));

    // It orders what nobody else hears of, and comes back to a history without that.
    world.cut_off(ME);
    world.ask(&[ME.0], Level::Weak, Add::new("towns", "Velia").encode());
    for town in ["Samos", "Ephesus"] {
        world.execute(&without_me, Level::Strong, Add::new("towns", town).encode());
    }
    world.connect(ME);
    let is_orphaned =
        |record: &Record| matches!(record, Record::Orphans { add, .. } if !add.is_empty());
    world.until(|world| world.wrote(ME, is_orphaned));

    // The others go on, and it begins to fetch their state.
    world.cut_off(ME);
    world.settle(&without_me);
    let (mine, another) = (world.of(ME).groups.clone(), world.of(ANOTHER).groups.clone());
    let state = world.of(ANOTHER).disk.recovered().state.expect("a state took the place of slots");
    let mine = with_the_rest(mine, &another, &state);
    Lives { mine, another, status: world.status(ME) }
}
