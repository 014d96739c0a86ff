//! Clients that ask for much with little: what their requests cost, in work and in memory, whatever mix of
//! commands they send. Everything is counted, nothing is timed.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use elea_kv::{
    Add, Answer, Append, Cas, Command, Compare, Delete, Get, Incr, KeyValueStore, Limits, Members,
    Operation, Put, Quantity, Reason, Refused, Relation, Remove, Scan, Txn,
};
use elea_protocol::application::{Application, Snapshot};
use elea_protocol::id::{Digest, Slot};
use elea_protocol::message::{APPLICATION_WEIGHT_MAX, OPERATION_WEIGHT};
use elea_protocol::rows::{Changes, MemoryRows, Row, Rows, RowsView, Unreadable};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::dumb::Dumb;
use crate::world::{digest, restored, version, within};

/// Rows that count how many of them are read, and their bytes.
#[derive(Debug)]
struct Counted {
    rows: MemoryRows,
    reads: Arc<Reads>,
}

#[derive(Debug, Default)]
struct Reads {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Reads {
    fn note(&self, bytes: usize) {
        self.rows.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn so_far(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Rows for Counted {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        let found = self.rows.get(key)?;
        self.reads.note(found.as_ref().map_or(0, |value| value.len()));
        Ok(found)
    }

    fn range<'a>(
        &'a self,
        from: &[u8],
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Row, Unreadable>> + 'a> {
        Box::new(self.rows.range(from, to).inspect(|row| {
            self.reads.note(row.as_ref().map_or(0, |(key, value)| key.len() + value.len()));
        }))
    }
}

type Request = Vec<Operation>;

/// A replica's store with its disk.
struct Replica {
    store: KeyValueStore,
    rows: MemoryRows,
    reads: Arc<Reads>,
    /// The last slot, and the last one whose state is on disk.
    head: u64,
    stored: u64,
    /// What each slot above that weighs, with the state after it.
    slots: Vec<(u64, <KeyValueStore as Application>::Snapshot)>,
    requests: u64,
}

impl Replica {
    fn new() -> Self {
        Self {
            store: KeyValueStore::new(),
            rows: MemoryRows::default(),
            reads: Arc::default(),
            head: 0,
            stored: 0,
            slots: Vec::new(),
            requests: 0,
        }
    }

    fn slot(&mut self, requests: &[Request]) -> Vec<Answer> {
        self.head += 1;
        let mut answers = Vec::new();
        let (mut index, mut weight) = (0, 0);
        for request in requests {
            self.requests += 1;
            let encoded: Vec<_> = request.iter().map(Command::encode).collect();
            for (operation, bytes) in request.iter().zip(&encoded) {
                let context = within(version(self.head, index), self.requests);
                let result = self.store.execute(&context, bytes);
                answers.push(operation.decode(&result).expect("its answer"));
                index += 1;
            }
            let of_store: u64 = encoded.iter().map(|bytes| self.store.weight(bytes)).sum();
            weight += of_store.min(APPLICATION_WEIGHT_MAX);
            weight += (OPERATION_WEIGHT * request.len()) as u64;
        }
        self.store.end_slot(Slot(self.head));
        self.slots.push((weight, self.store.snapshot()));
        answers
    }

    /// One request in a slot of its own.
    fn one(&mut self, request: &[Operation]) -> Vec<Answer> {
        self.slot(&[request.to_vec()])
    }

    fn undo_to(&mut self, slot: u64) {
        self.store.undo_to(Slot(slot));
        self.slots.truncate((slot - self.stored) as usize);
        self.head = slot;
    }

    fn view(&self) -> RowsView {
        Arc::new(Counted { rows: self.rows.clone(), reads: self.reads.clone() })
    }

    /// The state of a slot becomes permanent and goes to the disk. Answers the most bytes that a part
    /// of the changes had.
    fn settle(&mut self, slot: u64) -> usize {
        self.store.make_permanent(Slot(slot));
        let (_, snapshot) =
            self.slots.drain(..(slot - self.stored) as usize).next_back().expect("new");
        let mut most = 0;
        for part in 0.. {
            let changes = self.store.changes(&snapshot, part).expect("readable");
            let Some(changes) = changes else { break };
            let size = |(key, value): &(Bytes, Option<Bytes>)| {
                key.len() + value.as_ref().map_or(0, |value| value.len())
            };
            most = most.max(changes.iter().map(size).sum());
            self.rows.apply(changes);
        }
        self.store.stored(Slot(slot), self.view());
        self.stored = slot;
        most
    }

    /// What may be in memory for slots that are not on disk.
    fn bound(&self) -> u64 {
        self.slots.iter().map(|(weight, _)| weight).sum()
    }
}

/// A large value and a large set, on disk.
fn stocked(value: usize, members: u32) -> Replica {
    let mut replica = Replica::new();
    let long = Put::new("long", vec![b'x'; value]).into();
    replica.one(&[long]);
    let members: Vec<Operation> =
        (0..members).map(|n| Add::new("set", n.to_string()).into()).collect();
    for some in members.chunks(256) {
        let refused = replica.one(some).into_iter().find(Answer::said_no);
        assert_eq!(refused, None);
    }
    replica.settle(replica.head);
    replica
}

/// What the root of the trie and its first levels take, which stay in memory, and some more.
const FIXED: u64 = 64 << 10;

#[test]
fn many_small_changes_of_a_large_value_keep_what_they_write() {
    let mut replica = stocked(1_000_000, 1);
    let appends: Operation =
        (0..100).fold(Txn::new(), |txn, _| txn.then(Append::new("long", "y"))).into();
    for txn in 1..=50 {
        let answers = replica.one(std::slice::from_ref(&appends));
        assert!(matches!(&answers[..], [Answer::Txn(_)]), "{answers:?}");
        // One end of a page for a slot, and the entry: not a hundred values of a megabyte.
        let held = replica.store.held_bytes() as u64;
        assert!(held < FIXED + txn * (8 << 10), "{held} bytes after {txn}");
        assert!(held < FIXED + replica.bound());
    }
    let (_, bytes) = replica.reads.so_far();
    assert!(bytes < 64 << 10, "the value itself is not read: {bytes}");
    let length = replica.one(&[Append::new("long", "z").into()]);
    assert!(matches!(&length[..], [Answer::Step(elea_kv::Outcome::Append(done))]
        if done.length == 1_005_001));
}

#[test]
fn members_of_a_large_set_come_and_go_at_the_cost_of_their_paths() {
    let mut replica = stocked(1, 40_000);
    let (rows_before, bytes_before) = replica.reads.so_far();
    // Those that change nothing are not dearer than others: the set is on disk each time.
    let there = (0..256).map(|n| Add::new("set", (n * 100).to_string()).into());
    let absent = (0..256).map(|n| Remove::new("set", format!("absent {n}")).into());
    let answers = replica.one(&there.chain(absent).collect::<Request>());
    assert!(!answers.iter().any(Answer::said_no));
    let adds: Request = (0..512).map(|n| Add::new("set", format!("new {n}")).into()).collect();
    let answers = replica.one(&adds);
    assert!(!answers.iter().any(Answer::said_no));
    let (rows, bytes) = replica.reads.so_far();
    let (rows, bytes) = (rows - rows_before, bytes - bytes_before);
    // Four branches once or twice, the root and the entry, each less than two kilobytes.
    assert!(rows < 1024 * 12 && bytes < 1024 * (20 << 10), "{rows} rows, {bytes} bytes");
    let held = replica.store.held_bytes() as u64;
    assert!(held < FIXED + replica.bound(), "{held} of {}", replica.bound());
    // And on the disk what differs is as much.
    let before = replica.rows.clone();
    replica.settle(replica.head);
    let changed = replica
        .rows
        .iter()
        .filter(|(key, row)| before.get(key).expect("sound").as_ref() != Some(*row));
    let changed: usize = changed.map(|(key, row)| key.len() + row.len()).sum();
    assert!(changed < 512 * (8 << 10), "{changed}");
}

#[test]
fn large_sets_and_values_leave_the_disk_in_parts_that_are_bounded_and_leave_nothing() {
    let mut replica = stocked(1_000_000, 40_000);
    let rows = replica.rows.len();
    replica.one(&[Delete::new("long").into(), Delete::new("set").into()]);
    let most = replica.settle(replica.head);
    assert!(rows > 40_000 && most < 1 << 20, "{most}");
    // The root of the trie is left.
    assert_eq!(replica.rows.len(), 1);
    // Again, and each in the place of the other.
    replica.one(&[Add::new("long", "a").into(), Put::new("set", vec![0; 9000]).into()]);
    replica.settle(replica.head);
    replica.one(&[Put::new("long", vec![1; 9000]).into(), Delete::new("set").into()]);
    replica.one(&[Add::new("set", "b").into(), Add::new("set", "c").into()]);
    replica.settle(replica.head);
    replica.one(&[Delete::new("long").into(), Delete::new("set").into()]);
    replica.settle(replica.head);
    assert_eq!((replica.rows.len(), replica.store.trouble()), (1, None));
}

#[test]
fn hot_keys_do_not_gather_in_memory_what_is_on_disk() {
    let mut replica = stocked(1, 1);
    for round in 0..40u32 {
        // Always changed again before the state before is on disk.
        for half in 0..2u32 {
            let appends = Append::new("long", vec![b'x'; 12_000]).into();
            let adds = (0..50).map(|n| Add::new("set", format!("{round} {half} {n}")).into());
            replica.one(&adds.chain([appends]).collect::<Vec<_>>());
        }
        replica.settle(replica.head - 1);
        let held = replica.store.held_bytes() as u64;
        assert!(held < FIXED + replica.bound(), "{held} of {} in {round}", replica.bound());
    }
}

fn over(what: Quantity, size: u64, most: u64) -> Answer {
    Answer::Refused(Refused { reason: Reason::OverBudget { what, size, most }, step: None })
}

#[test]
fn a_request_has_a_budget_that_its_operations_share_and_the_next_one_has_its_own() {
    let limits = Limits { request_steps: 4, request_read_bytes: 100, ..Limits::default() };
    let mut replica = Replica::new();
    replica.store = KeyValueStore::with_limits(limits).expect("lower");
    replica.one(&[Put::new("k", vec![b'v'; 60]).into()]);
    let get: Operation = Get::new("k").into();
    let before = digest(&mut replica.store);
    let answers = replica.slot(&[vec![get.clone(); 3], vec![get.clone()]]);
    let refused = over(Quantity::RequestRead, 120, 100);
    assert!(!answers[0].said_no() && !answers[3].said_no());
    assert_eq!(answers[1..3], [refused.clone(), refused.clone()]);
    assert_eq!(
        Reason::OverBudget { what: Quantity::RequestRead, size: 120, most: 100 }.to_string(),
        "the number of bytes that the request reads would be 120, and 100 is the most: \
         ask for less at a time, in several requests"
    );
    let incr: Operation = Incr::new("n", 1).into();
    let steps = Txn::new().when(Compare::exists("k")).then(Incr::new("n", 1)).into();
    let answers = replica.one(&[steps, incr.clone(), incr.clone(), incr]);
    assert!(!answers[..3].iter().any(Answer::said_no));
    assert_eq!(answers[3], over(Quantity::RequestSteps, 5, 4));
    // What a transaction reads is known when it reads: then it was never there.
    replica.undo_to(2);
    let txn = Txn::new().then(Put::new("k", "new")).then(Put::new("l", vec![b'v'; 60]));
    let txn = txn.then(Get::new("l")).then(Get::new("l"));
    let answers = replica.one(&[txn.into()]);
    let reason = Reason::OverBudget { what: Quantity::RequestRead, size: 120, most: 100 };
    assert_eq!(answers, [Answer::Refused(Refused { reason, step: Some(3) })]);
    assert_eq!(digest(&mut replica.store), before);
}

#[test]
fn what_is_kept_is_refused_before_anything_is_done() {
    let mut replica = Replica::new();
    let puts = |n: usize| {
        let keys = (0..128).map(move |m| format!("{n} {m}"));
        keys.fold(Txn::new(), |txn, key| txn.then(Append::new(key, "x"))).into()
    };
    let txns: Vec<Operation> = (0..8).map(puts).collect();
    let answers = replica.one(&txns);
    // Each keeps 128 times 6 KiB and a few bytes, of which 2 KiB count for the operation: four have room in
    // 3 MiB.
    let done = answers.iter().take_while(|answer| !answer.said_no()).count();
    assert_eq!((done, replica.store.len()), (4, 4 * 128));
    assert!(matches!(
        answers[4],
        Answer::Refused(Refused {
            reason: Reason::OverBudget { what: Quantity::RequestKept, .. },
            step: None
        })
    ));
    assert!((replica.store.held_bytes() as u64) < FIXED + replica.bound());
}

#[test]
fn a_comparison_and_an_increment_of_a_large_value_read_only_what_they_need() {
    let mut replica = stocked(1_000_000, 1);
    let (_, before) = replica.reads.so_far();
    let compare = |relation, value: &'static str| Compare::value("long", relation, value);
    let txn = Txn::new()
        .when(compare(Relation::Greater, "xxx"))
        .when(compare(Relation::Less, "y"))
        .when(compare(Relation::NotEqual, "x"))
        .when(compare(Relation::NotEqual, "7"));
    let answers = replica.one(&[txn.into(), Incr::new("long", 1).into()]);
    assert!(!answers[0].said_no() && answers[1].said_no());
    let (_, after) = replica.reads.so_far();
    assert!(after - before < 64 << 10, "{}", after - before);
}

#[derive(Clone, Debug)]
enum Event {
    Slot(Vec<Request>),
    Undo(Index),
    Settle(Index),
}

fn name() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::from("long")),
        3 => Just(Bytes::from("set")),
        2 => (0u8..3).prop_map(|n| format!("value {n}").into()),
        2 => (0u8..2).prop_map(|n| format!("little set {n}").into()),
    ]
}

fn member() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => (0u32..3000).prop_map(|n| n.to_string().into()),
        1 => (0usize..4096).prop_map(|n| vec![b'm'; n].into()),
    ]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => (0usize..20).prop_map(|n| vec![b'7'; n].into()),
        3 => (0usize..9000).prop_map(|n| vec![b'y'; n].into()),
        1 => Just(vec![b'z'; 4096].into()),
        1 => (0usize..100_000).prop_map(|n| vec![b'w'; n].into()),
    ]
}

fn step() -> impl Strategy<Value = elea_kv::Step> {
    prop_oneof![
        5 => (name(), bytes()).prop_map(|(key, bytes)| Append { key, bytes }.into()),
        6 => (name(), member()).prop_map(|(key, member)| Add { key, member }.into()),
        4 => (name(), member()).prop_map(|(key, member)| Remove { key, member }.into()),
        2 => (name(), bytes()).prop_map(|(key, value)| Put { key, value }.into()),
        1 => name().prop_map(|key| Delete { key }.into()),
        1 => (name(), bytes(), bytes()).prop_map(|(k, old, new)| Cas::new(k, old, new).into()),
        1 => name().prop_map(|key| Get { key }.into()),
        1 => name().prop_map(|key| Members { key }.into()),
        1 => Just(Scan::prefix("little").into()),
        1 => name().prop_map(|key| Incr { key, by: 1 }.into()),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let repeated = (step(), 1usize..128)
        .prop_map(|(step, times)| (0..times).fold(Txn::new(), |txn, _| txn.then(step.clone())));
    let mixed = prop::collection::vec(step(), 1..30)
        .prop_map(|steps| Txn { then: steps, ..Txn::default() });
    let compared = (name(), bytes(), step()).prop_map(|(key, value, step)| {
        Txn::new().when(Compare::value(key, Relation::Less, value)).then(step)
    });
    prop_oneof![
        4 => step().prop_map(Operation::Step),
        1 => repeated.prop_map(Operation::Txn),
        1 => mixed.prop_map(Operation::Txn),
        1 => compared.prop_map(Operation::Txn),
    ]
}

/// The most bytes that the operations of a request have.
const REQUEST_BYTES: usize = 256 << 10;

fn event() -> impl Strategy<Value = Event> {
    let request = prop::collection::vec(operation(), 1..12).prop_map(|mut request| {
        let mut bytes = 0;
        request.retain(|operation| {
            let size = operation.encode().len();
            let fits = bytes + size <= REQUEST_BYTES;
            bytes += if fits { size } else { 0 };
            fits
        });
        request
    });
    prop_oneof![
        6 => prop::collection::vec(request, 1..4).prop_map(Event::Slot),
        2 => any::<Index>().prop_map(Event::Undo),
        2 => any::<Index>().prop_map(Event::Settle),
    ]
}

/// What a limit refused: the model has none.
fn is_beyond_a_limit(answer: &Answer) -> bool {
    use Reason::{OverBudget, TooLarge};
    let Answer::Refused(Refused { reason, .. }) = answer else { return false };
    matches!(reason, TooLarge { .. } | OverBudget { .. })
}

fn stored_size(rows: &MemoryRows) -> usize {
    rows.iter().map(|(key, row)| key.len() + row.len()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// One replica has everything in memory and the other one writes to its disk now and then: they
    /// answer the same, budgets included, and what the second one holds is within what its slots weigh.
    #[test]
    fn whatever_is_asked_memory_and_work_stay_within_what_was_counted(
        events in prop::collection::vec(event(), 1..20),
    ) {
        let mut replica = stocked(150_000, 1500);
        let mut twin = KeyValueStore::new();
        let first = replica.head;
        let mut model = Dumb::default();
        {
            let (long, set) = (version(1, 0), |n: u32| version(2 + u64::from(n / 256), n % 256));
            let put: Operation = Put::new("long", vec![b'x'; 150_000]).into();
            let adds = (0..1500).map(|n| (set(n), Add::new("set", n.to_string()).into()));
            for (at, operation) in [(long, put)].into_iter().chain(adds) {
                model.execute(at, &operation);
                twin.execute(&within(at, at.slot.0), &operation.encode());
            }
            for slot in 1..=first {
                twin.end_slot(Slot(slot));
            }
        }
        let mut models = vec![model];
        let mut base = first;
        for event in events {
            match event {
                Event::Slot(requests) => {
                    let read_before = replica.reads.so_far();
                    let number = replica.requests;
                    let answers = replica.slot(&requests);
                    let mut model = models.last().expect("never empty").clone();
                    let mut index = 0;
                    let mut result_bytes = 0;
                    for (n, request) in (number + 1..).zip(&requests) {
                        for operation in request {
                            let at = version(replica.head, index as u32);
                            let result = twin.execute(&within(at, n), &operation.encode());
                            result_bytes += result.len() as u64;
                            let answer = Answer::decode(&result).expect("an answer");
                            prop_assert_eq!(&answers[index], &answer, "{:?}", operation);
                            if !is_beyond_a_limit(&answer) {
                                prop_assert_eq!(answer, model.execute(at, operation));
                            }
                            index += 1;
                        }
                    }
                    twin.end_slot(Slot(replica.head));
                    models.push(model);
                    // What is read from the disk is about what is answered, and some for each step.
                    let steps: u64 = requests.iter().flatten().map(|operation| match operation {
                        Operation::Step(_) => 1,
                        Operation::Txn(txn) => (txn.compares.len() + txn.then.len()) as u64,
                    }).sum();
                    let read = replica.reads.so_far().1 - read_before.1;
                    let budgets = requests.len() as u64 * (32 << 20);
                    prop_assert!(
                        read <= steps * (64 << 10) + 4 * (budgets + result_bytes),
                        "{} bytes for {} steps", read, steps
                    );
                }
                Event::Undo(to) => {
                    let to = base + to.index((replica.head - base + 1) as usize) as u64;
                    replica.undo_to(to);
                    twin.undo_to(Slot(to));
                    models.truncate((to - base + 1) as usize);
                }
                Event::Settle(to) => {
                    if replica.head > base {
                        let to = base + 1 + to.index((replica.head - base) as usize) as u64;
                        let most = replica.settle(to);
                        prop_assert!(most < 3 << 20, "{}", most);
                        models.drain(..(to - base) as usize);
                        base = to;
                    }
                }
            }
            prop_assert_eq!(digest(&mut replica.store), digest(&mut twin));
            prop_assert_eq!(replica.store.trouble(), None);
            let held = replica.store.held_bytes() as u64;
            let bound = FIXED + replica.bound();
            prop_assert!(held <= bound, "{} bytes are held, and {} were counted", held, bound);
        }
        // What is on disk is the state, and nothing else; and it can be sent.
        if replica.head > base {
            replica.settle(replica.head);
        }
        let snapshot = replica.store.snapshot();
        let mut fresh = restored(&snapshot, replica.head, []);
        prop_assert_eq!(digest(&mut fresh), digest(&mut twin));
        let model = models.last().expect("never empty");
        for key in model.0.keys() {
            let get = Get { key: key.clone().into() };
            let members = Members { key: key.clone().into() };
            for operation in [Operation::from(elea_kv::Step::from(get)), members.into()] {
                let context = within(version(replica.head + 1, 0), 0);
                let one = replica.store.execute(&context, &operation.encode());
                prop_assert_eq!(&one, &fresh.execute(&context, &operation.encode()));
            }
        }
        let mut rows = MemoryRows::default();
        let mut other = KeyValueStore::new();
        for item in model.items() {
            crate::world::write(&mut other, item);
        }
        other.end_slot(Slot(1));
        prop_assert_eq!(digest(&mut other), digest(&mut twin));
        other.make_permanent(Slot(1));
        let whole = other.snapshot();
        let mut part = |n| other.changes(&whole, n).expect("in memory");
        let changes: Changes = (0..).map_while(&mut part).flatten().collect();
        rows.apply(changes);
        prop_assert_eq!(rows.len(), replica.rows.len());
        prop_assert_eq!(stored_size(&rows), stored_size(&replica.rows));
        prop_assert_eq!(whole.digest(), Digest::clone(&snapshot.digest()));
    }
}
