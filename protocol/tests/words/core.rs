//! One replica, fed by hand: what a lying primary, peer or client cannot make it do.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::application::{Application, BadChunk, Context, Restore, Snapshot};
use elea_protocol::edition::Editions;
use elea_protocol::history::extend;
use elea_protocol::id::{
    ClientId, Digest, Instant, Now, ReplicaId, RequestNumber, SessionId, Slot, View, WallTime,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Branch, Checkpoint, Commit, Echo, Fetch, Level, Message, NewView, NewViewHeader,
    NonDeterminism, Order, OrderHeader, Position, Pulse, REQUEST_BYTES_MAX, RefusalReason, Request,
    Requests, SignedRequest, SlotEntry, Slots, StableProof, StatePart, Status, ToClient,
    ViewChange, Wanted, batch_digest, changes_digest,
};
use elea_protocol::replica::{Action, Counters, Event, Mark, Recovered, Replica, Setup, Target};
use elea_protocol::rows::{RowsView, Unreadable};
use elea_protocol::signature::{Signed, Signer};
use elea_protocol::tuning::Tuning;

use crate::members::{cluster, key, say, stable_proof};

/// An application without a state.
pub(crate) struct Nothing;

impl Application for Nothing {
    type Snapshot = Self;
    type Restore = Self;

    fn execute(&mut self, _: &Context, operation: &Bytes) -> Bytes {
        operation.clone()
    }

    fn end_slot(&mut self, _: Slot) {}

    fn undo_to(&mut self, _: Slot) {}

    fn make_permanent(&mut self, _: Slot) {}

    fn digest(&mut self) -> Digest {
        Digest::default()
    }

    fn snapshot(&self) -> Self {
        Self
    }

    fn restore(&self, _: Digest) -> Self {
        Self
    }

    fn open(&mut self, _: Slot, _: Digest, _: RowsView) -> Result<(), Unreadable> {
        Ok(())
    }
}

impl Snapshot for Nothing {
    fn digest(&self) -> Digest {
        Digest::default()
    }

    fn chunks(&self) -> u32 {
        1
    }

    fn chunk(&self, _: u32) -> Option<Bytes> {
        None
    }
}

impl Restore for Nothing {
    fn accept(&mut self, _: u32, _: &Bytes) -> Result<(), BadChunk> {
        Err(BadChunk)
    }

    fn missing(&self) -> Option<u32> {
        Some(0)
    }
}

pub(crate) const WALL: u64 = 1_000_000;

const ONE: Editions = Editions::with(1..=1);

/// One replica of four, and everybody else's keys.
pub(crate) struct Bench {
    pub(crate) membership: Arc<Membership>,
    pub(crate) replica: Replica<Nothing>,
    pub(crate) now: Now,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::of(ReplicaId(1))
    }

    pub(crate) fn of(id: ReplicaId) -> Self {
        Self::tuned(id, Tuning::default())
    }

    /// One that lists these clients.
    pub(crate) fn listing(id: ReplicaId, clients: BTreeSet<ClientId>) -> Self {
        Self::made(id, Tuning::default(), cluster("bench").listing(clients), ONE)
    }

    pub(crate) fn tuned(id: ReplicaId, tuning: Tuning) -> Self {
        Self::made(id, tuning, cluster("bench"), ONE)
    }

    /// One whose program executes these editions.
    pub(crate) fn executing(id: ReplicaId, editions: Editions) -> Self {
        Self::made(id, Tuning::default(), cluster("bench"), editions)
    }

    fn made(id: ReplicaId, tuning: Tuning, membership: Membership, editions: Editions) -> Self {
        let membership = Arc::new(membership);
        let now = Now { instant: Instant(1), wall: WallTime(WALL) };
        let setup = Setup {
            id,
            membership: membership.clone(),
            signer: Arc::new(key(id.0 + 1)),
            tuning,
            editions,
            seed: [0; 32],
        };
        let none = std::iter::empty::<Result<_, Infallible>>();
        let replica = Replica::start(setup, Nothing, Recovered::default(), none, now)
            .expect("an empty store is sound");
        Self { membership, replica, now }
    }

    pub(crate) fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.now.instant.0 += 1;
        self.replica.handle(self.now, event, &mut actions);
        actions
    }

    pub(crate) fn hear(&mut self, message: Message) -> Vec<Action> {
        self.hear_from(0, message)
    }

    pub(crate) fn hear_from(&mut self, from: u8, message: Message) -> Vec<Action> {
        let message = self.membership.open_message(message).expect("signed and within bounds");
        self.handle(Event::Peer { from: ReplicaId(from), message })
    }

    pub(crate) fn ask(&mut self, request: &Arc<SignedRequest>) -> Vec<Action> {
        let request = self.membership.open_request(request.clone()).expect("it verifies");
        self.handle(Event::Request(request))
    }

    pub(crate) fn request(&self, number: u64, operation: &'static [u8]) -> Arc<SignedRequest> {
        let client = key(9);
        let body = Request {
            client: client.public_key().into(),
            session: SessionId(7),
            number: RequestNumber(number),
            level: Level::Weak,
            want_final: false,
            operations: vec![Bytes::from_static(operation)],
        };
        SignedRequest::sign(&client, self.membership.genesis(), body)
    }

    /// An order that extends `before`, by the holder of key `by + 1`.
    pub(crate) fn order(
        &self,
        by: u8,
        before: Position,
        time: u64,
        requests: &[&Arc<SignedRequest>],
    ) -> (Message, Position) {
        let choices = NonDeterminism { time: WallTime(time), ..NonDeterminism::default() };
        self.order_with(by, before, choices, requests)
    }

    /// The same with other choices.
    pub(crate) fn order_with(
        &self,
        by: u8,
        before: Position,
        choices: NonDeterminism,
        requests: &[&Arc<SignedRequest>],
    ) -> (Message, Position) {
        let requests: Vec<Digest> = requests.iter().map(|request| request.digest()).collect();
        let batch = batch_digest(&choices, &requests);
        let slot = before.slot.next();
        let hash = extend(&before.hash, &batch);
        let header = OrderHeader { view: View(0), slot, hash, batch };
        let order = Order { header, choices, requests };
        (Message::Order(say(&self.membership, by, order)), Position { slot, hash })
    }

    pub(crate) fn head(&self) -> Position {
        self.replica.head()
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.replica.counters()
    }
}

pub(crate) fn refusals(actions: &[Action]) -> Vec<RefusalReason> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Answer { message: ToClient::Refusal(refusal), .. } => Some(refusal.body.reason),
            _ => None,
        })
        .collect()
}

fn replies(actions: &[Action]) -> usize {
    actions
        .iter()
        .filter(|action| matches!(action, Action::Answer { message: ToClient::Replies(_), .. }))
        .count()
}

#[test]
fn an_order_with_its_request_is_executed_and_answered() {
    let mut bench = Bench::new();
    let request = bench.request(1, b"a");
    let (order, head) = bench.order(0, bench.head(), WALL, &[&request]);
    bench.hear(order);
    assert_eq!(bench.head().slot, Slot(0), "the request is not here yet");
    let actions = bench.ask(&request);
    assert_eq!((bench.head(), replies(&actions)), (head, 1));
    assert!(matches!(actions[0], Action::Append { .. }), "the record comes first: {actions:?}");
}

#[test]
fn orders_that_break_a_rule_are_counted_and_leave_the_slot_open() {
    let mut bench = Bench::new();
    let (first, second) = (bench.request(1, b"a"), bench.request(2, b"b"));
    bench.ask(&first);
    bench.ask(&second);
    let genesis = bench.head();

    let (by_a_backup, _) = bench.order(2, genesis, WALL, &[&first]);
    bench.hear(by_a_backup);
    assert_eq!(bench.counters().order_not_from_primary, 1);

    let nowhere = Position { hash: Digest([7; 32]), ..genesis };
    let (off_chain, _) = bench.order(0, nowhere, WALL, &[&first]);
    bench.hear(off_chain);
    assert_eq!(bench.counters().order_off_chain, 1);

    let (twice, _) = bench.order(0, genesis, WALL, &[&first, &first]);
    bench.hear(twice);
    assert_eq!(bench.counters().order_breaks_rules, 1);

    let (good, at_one) = bench.order(0, genesis, WALL, &[&first]);
    bench.hear(good.clone());
    assert_eq!(bench.head(), at_one, "the slot stayed open for an order that is right");

    let (again, _) = bench.order(0, at_one, WALL, &[&first]);
    bench.hear(again);
    // What was executed has left, so the order waits for a request that nobody will accept.
    assert_eq!(bench.head(), at_one);
    let repeat = bench.membership.open_message(Message::Requests(Requests(vec![first.clone()])));
    bench.handle(Event::Peer { from: ReplicaId(0), message: repeat.expect("it verifies") });
    assert_eq!(bench.head(), at_one);
    assert_eq!(bench.counters().order_breaks_rules, 2);
    assert_eq!(bench.replica.footprint().pending, 1, "only the second request waits");

    let (earlier, _) = bench.order(0, at_one, WALL - 1, &[&second]);
    bench.hear(earlier);
    assert_eq!((bench.head(), bench.counters().order_breaks_rules), (at_one, 3));

    bench.hear(good);
    assert_eq!(bench.counters().order_repeated, 1);
}

#[test]
fn an_order_ahead_of_the_clock_waits_for_it() {
    let mut bench = Bench::new();
    let request = bench.request(1, b"a");
    bench.ask(&request);
    let drift = Tuning::default().max_clock_drift_ms;
    let (order, head) = bench.order(0, bench.head(), WALL + drift + 500, &[&request]);
    bench.hear(order);
    assert_eq!((bench.head().slot, bench.counters().order_ahead_of_clock), (Slot(0), 1));
    let at = bench.replica.deadline().expect("it comes back");
    assert!(at <= bench.now.instant.after_ms(500));
    bench.now.wall.0 += 500;
    bench.handle(Event::Tick);
    assert_eq!(bench.head(), head);
}

#[test]
fn two_orders_for_one_slot_convict_the_primary() {
    let mut bench = Bench::new();
    let (first, second) = (bench.request(1, b"a"), bench.request(2, b"b"));
    bench.ask(&first);
    let genesis = bench.head();
    let (one, head) = bench.order(0, genesis, WALL, &[&first]);
    let (other, _) = bench.order(0, genesis, WALL, &[&second]);
    bench.hear(one);
    let actions = bench.hear(other);
    assert_eq!(bench.head(), head);
    let [evidence] = bench.replica.evidence() else { panic!("one proof") };
    assert_eq!(evidence.culprit(), ReplicaId(0));
    assert!(bench.membership.open_evidence(evidence.clone()).is_ok());
    assert!(actions.iter().any(|action| matches!(action, Action::Accuse(_))));
}

#[test]
fn floods_of_future_slots_and_votes_stay_within_their_bounds() {
    let mut bench = Bench::new();
    let request = bench.request(1, b"a");
    let limit = Tuning::default().orders_ahead;
    for n in (2..=2 * limit).chain([u64::MAX - 1]) {
        let before = Position { slot: Slot(n), hash: Digest([1; 32]) };
        let (order, _) = bench.order(0, before, WALL, &[&request]);
        bench.hear(order);
        let body = Commit { view: View(0), slot: Slot(n), hash: Digest([1; 32]) };
        bench.hear(Message::Commit(say(&bench.membership, 2, body)));
    }
    let footprint = bench.replica.footprint();
    assert!(footprint.orders_ahead as u64 <= limit);
    assert!(footprint.commit_votes <= 256);
    assert!(bench.counters().order_too_far > limit / 2);
    assert!(bench.counters().votes_dropped > 0);
    // It still serves: the next order is taken as ever.
    bench.ask(&request);
    let (order, head) = bench.order(0, bench.head(), WALL, &[&request]);
    bench.hear(order);
    assert_eq!(bench.head(), head);
}

#[test]
fn an_order_of_more_than_a_slot_may_hold_is_dropped_before_all_of_it_is_here() {
    let mut bench = Bench::new();
    let large: &'static [u8] = vec![0; REQUEST_BYTES_MAX - 1024].leak();
    let requests: Vec<_> = (1..=4).map(|number| bench.request(number, large)).collect();
    let named: Vec<_> = requests.iter().collect();
    let (order, _) = bench.order(0, bench.head(), WALL, &named);
    bench.hear(order);
    for request in &requests[..3] {
        assert_eq!(bench.counters().order_breaks_rules, 0);
        bench.hear(Message::Requests(Requests(vec![request.clone()])));
    }
    assert_eq!(bench.counters().order_breaks_rules, 1, "the fourth is still missing");
    assert_eq!(bench.replica.footprint().pending, 0, "and what was fetched for it is let go");
}

/// A new view of its primary, asked for by that one and another, with this head.
fn new_view(bench: &Bench, view: u64, head: Position) -> Message {
    let view = View(view);
    let by = view.primary(4);
    let change = |id: u8| {
        let (lock, stable, entered) = (None, Slot(0), View(0));
        let body = ViewChange { view, campaign: view, entered, lock, stable, head, stamp: view.0 };
        say(&bench.membership, id, body)
    };
    let changes = vec![change(by.0), change((by.0 + 1) % 4)];
    let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
    Message::NewView(say(&bench.membership, by.0, NewView { header, changes }))
}

#[test]
fn new_views_of_one_liar_keep_nobody_elses_out() {
    let mut bench = Bench::new();
    let nowhere = Position { slot: Slot(9), hash: Digest([9; 32]) };
    for view in [4, 8, 12, 16, 20] {
        bench.hear(new_view(&bench, view, nowhere));
        assert_eq!(bench.replica.entered(), View(0), "what it stands on is not to be had");
    }
    assert_eq!(bench.replica.footprint().new_views, 2);
    bench.hear(new_view(&bench, 2, bench.head()));
    assert_eq!(bench.replica.entered(), View(2));
}

#[test]
fn old_numbers_used_names_and_the_window_are_refused_with_a_word() {
    let mut bench = Bench::new();
    let first = bench.request(1, b"a");
    bench.ask(&first);
    let (order, _) = bench.order(0, bench.head(), WALL, &[&first]);
    bench.hear(order);
    assert_eq!(replies(&bench.ask(&first)), 1, "the same request is answered from memory");
    let other_content = bench.request(1, b"b");
    assert_eq!(refusals(&bench.ask(&other_content)), [RefusalReason::NameUsed]);
    let window = Tuning::default().rules.session_window;
    let at_the_edge = bench.request(1 + window, b"c");
    assert!(refusals(&bench.ask(&at_the_edge)).is_empty());
    for beyond in [2 + window, u64::MAX] {
        let beyond = bench.request(beyond, b"d");
        assert_eq!(refusals(&bench.ask(&beyond)), [RefusalReason::WindowExceeded]);
    }
    assert_eq!(bench.counters().executed_requests, 1);
}

#[test]
fn of_two_contents_under_one_name_the_one_that_is_ordered_stays() {
    let mut bench = Bench::new();
    let (one, other) = (bench.request(1, b"a"), bench.request(1, b"b"));
    bench.ask(&one);
    bench.ask(&other);
    assert_eq!(bench.replica.footprint().pending, 2);
    let (order, _) = bench.order(0, bench.head(), WALL, &[&other]);
    let actions = bench.hear(order);
    assert_eq!(refusals(&actions), [RefusalReason::NameUsed]);
    assert_eq!(bench.replica.footprint().pending, 0);
}

#[test]
fn a_history_that_no_order_covers_is_not_believed_and_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let request = bench.request(1, b"a");
    let choices =
        NonDeterminism { time: WallTime(WALL), seed: [0; 16], ..NonDeterminism::default() };
    let entry = SlotEntry { choices, requests: vec![request], order: None };
    bench.hear(Message::Slots(Slots { from: Slot(1), entries: vec![entry], certificate: None }));
    assert_eq!((bench.head().slot, bench.counters().useless_answers), (Slot(0), 1));
    assert_eq!(bench.replica.footprint().pending, 0);
}

#[test]
fn a_status_that_lies_costs_a_question_now_and_then() {
    let mut bench = Bench::new();
    let head = Position { slot: Slot(u64::MAX), hash: Digest([1; 32]) };
    for stamp in [u64::MAX, 5, u64::MAX] {
        let (entered, stable) = (View(0), Slot(0));
        let body = standing_at(entered, head, stable, stamp);
        bench.hear(Message::Status(say(&bench.membership, 2, body)));
    }
    assert_eq!(bench.counters().stale_stamp, 2);
    let begin = bench.now.instant;
    while bench.now.instant.micros_since(begin) < 10_000_000 {
        let at = bench.replica.deadline().expect("a status is always due");
        bench.now.instant = bench.now.instant.max(at);
        bench.handle(Event::Tick);
    }
    let asked = bench.counters().slot_fetches;
    assert!((1..=60).contains(&asked), "{asked} questions in ten seconds");
}

fn standing_at(entered: View, head: Position, stable: Slot, stamp: u64) -> Status {
    Status {
        entered,
        campaign: None,
        head,
        lock: None,
        stable,
        convicted: 0,
        clients: Digest::default(),
        newest_edition: Editions::with(1..=1).newest,
        common_edition: Editions::with(1..=1).newest,
        wall: WallTime(0),
        stamp,
    }
}

#[test]
fn who_stands_still_far_below_in_the_same_view_is_sent_the_new_view_for_there_may_be_two() {
    let mut tuning = Tuning { retained_slots: 5, ..Tuning::default() };
    tuning.rules.checkpoint_interval = 4;
    let mut bench = Bench::tuned(ReplicaId(1), tuning);
    write(&mut bench, 20);
    let proof = certified_by_others(&mut bench);
    bench.hear(Message::Stable(Box::new(proof)));
    bench.hear(new_view(&bench, 2, bench.head()));
    assert_eq!(bench.replica.entered(), View(2));
    let mut stamp = 0;
    let mut hears_of = |bench: &mut Bench, slot| {
        stamp += 1;
        let head = Position { slot: Slot(slot), hash: Digest([9; 32]) };
        let (entered, stable) = (View(2), Slot(0));
        let body = standing_at(entered, head, stable, stamp);
        let actions = bench.hear(Message::Status(say(&bench.membership, 3, body)));
        let is_new_view = |action: &Action| {
            matches!(
                action,
                Action::Send { to: Target::One(ReplicaId(3)), message: Message::NewView(_), .. }
            )
        };
        actions.iter().any(is_new_view)
    };
    // Slots up to 15 are given up. It says so twice before it is believed to stand still.
    assert!(!hears_of(&mut bench, 3));
    assert!(hears_of(&mut bench, 3));
    assert!(!hears_of(&mut bench, 4));
    assert!(!hears_of(&mut bench, 40), "it is ahead");
    assert!(!hears_of(&mut bench, 40));
}

#[test]
fn a_primary_never_orders_what_its_backups_would_refuse() {
    // A session's own order puts its requests into other places than those in which they came.
    let mut bench = Bench::of(ReplicaId(0));
    let of = |session, number| {
        let client = key(9);
        let body =
            Request { session: SessionId(session), ..bench.request(number, b"x").body().clone() };
        SignedRequest::sign(&client, bench.membership.genesis(), body)
    };
    let (first, x, y, z) = (of(1, 1), of(10, 2), of(5, 1), of(10, 1));
    let second = of(1, 2);
    let mut orders = Vec::new();
    let mut mark = 0;
    for request in [&first, &second, &x, &y, &z] {
        note(&bench.ask(request), &mut orders, &mut mark);
    }
    for _ in 0..4 {
        let synced = Event::Synced(Mark(mark));
        note(&bench.handle(synced), &mut orders, &mut mark);
    }
    assert!(orders.iter().any(|order| order.body.requests.contains(&z.digest())));
    let mut backup = Bench::new();
    for request in [&first, &second, &x, &y, &z] {
        backup.ask(request);
    }
    for order in orders {
        backup.hear(Message::Order(order));
    }
    assert_eq!((backup.head(), backup.counters().order_breaks_rules), (bench.head(), 0));
}

fn note(actions: &[Action], orders: &mut Vec<Signed<Order>>, mark: &mut u64) {
    for action in actions {
        match action {
            Action::Append { mark: appended, .. } => *mark = appended.0,
            Action::Send { message: Message::Order(order), .. } => orders.push(order.clone()),
            _ => {}
        }
    }
}

#[test]
fn requests_missing_slot_after_slot_are_each_asked_for_after_the_grace() {
    let mut bench = Bench::new();
    let mut before = bench.head();
    let requests: Vec<_> = (1..=10).map(|number| bench.request(number, b"x")).collect();
    for request in &requests {
        let (order, after) = bench.order(0, before, WALL, &[request]);
        bench.hear(order);
        before = after;
    }
    let begin = bench.now.instant;
    while bench.head() != before {
        bench.now.instant = bench.replica.deadline().expect("it asks").max(bench.now.instant);
        for action in bench.handle(Event::Tick) {
            if let Action::Send { message: Message::Fetch(_), .. } = action {
                let wanted = requests[usize::try_from(bench.head().slot.0).expect("few")].clone();
                bench.hear(Message::Requests(Requests(vec![wanted])));
            }
        }
    }
    let millis = bench.now.instant.micros_since(begin) / 1000;
    assert!(millis < 5 * Tuning::default().fetch_grace_ms, "{millis} ms for ten slots");
}

/// Executes `count` slots of one request each and gives back the history.
pub(crate) fn write(bench: &mut Bench, count: u64) -> Vec<SlotEntry> {
    assert_eq!(bench.head().slot, Slot(0), "requests are numbered from 1 on");
    write_more(bench, count)
}

/// The same, after what was written before.
pub(crate) fn write_more(bench: &mut Bench, count: u64) -> Vec<SlotEntry> {
    let before = bench.head().slot.0;
    let entry = |number| {
        let request = bench.request(number, b"x");
        let (order, _) = bench.order(0, bench.head(), WALL, &[&request]);
        bench.ask(&request);
        bench.hear(order.clone());
        let Message::Order(order) = order else { unreachable!("it is an order") };
        let choices = order.body.choices;
        SlotEntry { choices, requests: vec![request], order: Some(order) }
    };
    (before + 1..=before + count).map(entry).collect()
}

/// Others certify the history and the state that this replica has.
fn certified_by_others(bench: &mut Bench) -> StableProof {
    let (view, Position { slot, hash }) = (View(0), bench.head());
    let checkpoint = Checkpoint { view, slot, hash, state: bench.replica.state_digest() };
    stable_proof(&bench.membership, checkpoint, Commit { view, slot, hash })
}

#[test]
fn a_replica_further_behind_than_its_suffix_may_be_long_catches_up() {
    let mut tuning = Tuning::default();
    tuning.rules.checkpoint_interval = 4;
    let mut ahead = Bench::tuned(ReplicaId(2), tuning);
    let entries = write(&mut ahead, 20);
    let stable = Message::Stable(Box::new(certified_by_others(&mut ahead)));

    // By bytes the limit is two checkpoints where so many slots come to more.
    for (slots, bytes) in [(8, u64::MAX), (1 << 20, 1)] {
        tuning.rules.max_speculative_slots = slots;
        tuning.rules.max_speculative_bytes = bytes;
        let mut behind = Bench::tuned(ReplicaId(1), tuning);
        let from = Slot(1);
        let slots = Message::Slots(Slots { from, entries: entries.clone(), certificate: None });
        behind.hear(slots.clone());
        assert_eq!(behind.head().slot, Slot(8), "nothing shows yet that more may be executed");
        behind.hear(stable.clone());
        behind.hear(slots);
        assert_eq!(behind.head(), ahead.head());
        assert_eq!(behind.replica.stable(), ahead.head().slot);
    }
}

#[test]
fn a_replica_whose_state_is_gone_follows_for_two_suffixes_and_no_further() {
    let mut tuning = Tuning::default();
    tuning.rules.checkpoint_interval = 4;
    tuning.rules.max_speculative_slots = 8;
    let mut ahead = Bench::of(ReplicaId(2));
    let entries = write(&mut ahead, 40);
    let certificate = Some(certified_by_others(&mut ahead).cover);
    let slots = Message::Slots(Slots { from: Slot(1), entries, certificate });
    for (is_gone, head) in [(false, 40), (true, 16)] {
        let mut behind = Bench::tuned(ReplicaId(1), tuning);
        if is_gone {
            behind.handle(Event::Unreadable(Unreadable("a damaged row".to_owned())));
        }
        behind.hear(slots.clone());
        assert_eq!(behind.head().slot, Slot(head));
    }
}

#[test]
fn slots_above_a_state_that_somebody_fetches_are_kept_as_far_as_a_suffix_may_go() {
    for (most, kept) in [(1 << 16, 24), (8, 8)] {
        let mut tuning = Tuning { retained_slots: 5, ..Tuning::default() };
        tuning.rules.checkpoint_interval = 4;
        tuning.rules.max_speculative_slots = most;
        let mut bench = Bench::tuned(ReplicaId(1), tuning);
        let grow = |bench: &mut Bench| {
            write_more(bench, 4);
            let proof = certified_by_others(bench);
            bench.hear(Message::Stable(Box::new(proof)));
        };
        (0..5).for_each(|_| grow(&mut bench));
        assert_eq!((bench.replica.stable(), bench.replica.footprint().slots), (Slot(20), 5));
        let wanted = Wanted::State { at: bench.head(), part: StatePart::Last };
        let fetch = say(&bench.membership, 3, Fetch { wanted, room: 1 << 20, stamp: 1 });
        let answer = bench.hear(Message::Fetch(fetch));
        assert!(matches!(&answer[..], [Action::Send { message: Message::State(_), .. }]));
        (0..6).for_each(|_| grow(&mut bench));
        assert_eq!((bench.replica.stable(), bench.replica.footprint().slots), (Slot(44), kept));
        // It has what it wanted, or is gone.
        bench.now.instant = bench.now.instant.after_ms(60_000);
        grow(&mut bench);
        assert_eq!(bench.replica.footprint().slots, 5);
    }
}

#[test]
fn a_history_that_takes_more_memory_than_one_may_is_not_fetched() {
    let mut tuning = Tuning { retained_bytes: 1000, ..Tuning::default() };
    tuning.rules.checkpoint_interval = 2;
    let mut ahead = Bench::tuned(ReplicaId(2), tuning);
    write(&mut ahead, 20);
    let head = ahead.head();
    // Certified in a later view: then it may be another history than the own one, and is fetched as one.
    let (view, Position { slot, hash }) = (View(4), head);
    let checkpoint = Checkpoint { view, slot, hash, state: ahead.replica.state_digest() };
    let stable = stable_proof(&ahead.membership, checkpoint, Commit { view, slot, hash });
    let wanted = Wanted::Branch { head, known: Vec::new() };
    let fetch = say(&ahead.membership, 3, Fetch { wanted, room: 1 << 20, stamp: 1 });
    let answer = ahead.hear(Message::Fetch(fetch));
    let [Action::Send { message: Message::Branch(branch), .. }] = &answer[..] else {
        panic!("one answer: {answer:?}")
    };
    assert_eq!(branch.slots.len(), 20);

    // A slot takes between 512 and 1024 bytes. The four uppermost ones do not count.
    for (bytes, slots, goes_on) in [(1000, 4, true), (1000, 10, false), (10_000, 10, true)] {
        tuning.rules.max_speculative_bytes = bytes;
        let mut behind = Bench::tuned(ReplicaId(1), tuning);
        behind.hear(Message::Stable(Box::new(stable.clone())));
        assert_eq!(behind.counters().branch_fetches, 1);
        let mut part = branch.clone();
        part.slots.truncate(slots);
        behind.hear(Message::Branch(part));
        assert_eq!(behind.counters().branch_fetches > 1, goes_on, "{slots} slots, {bytes} bytes");
    }
}

#[test]
fn asked_for_slots_that_it_gave_up_a_replica_offers_the_state_instead() {
    let mut tuning = Tuning { retained_slots: 5, ..Tuning::default() };
    tuning.rules.checkpoint_interval = 4;
    let mut bench = Bench::tuned(ReplicaId(1), tuning);
    write(&mut bench, 20);
    let proof = certified_by_others(&mut bench);
    bench.hear(Message::Stable(Box::new(proof.clone())));
    assert_eq!((bench.replica.stable(), bench.replica.footprint().slots), (Slot(20), 5));
    let head = bench.head();
    let digests = vec![Digest([1; 32])];
    for (stamp, wanted, slots) in [
        (1, Wanted::Slots { from: Slot(1) }, None),
        (2, Wanted::Slots { from: Slot(15) }, None),
        (3, Wanted::Requests { slot: Slot(15), digests }, None),
        (4, Wanted::Slots { from: Slot(16) }, Some(5)),
        (5, Wanted::Slots { from: Slot(20) }, Some(1)),
    ] {
        let fetch = say(&bench.membership, 3, Fetch { wanted, room: 1 << 20, stamp });
        let actions = bench.hear(Message::Fetch(fetch.clone()));
        let [Action::Send { to: Target::One(ReplicaId(3)), message, .. }] = &actions[..] else {
            panic!("one answer: {actions:?}")
        };
        assert!(bench.membership.open_message(message.clone()).is_ok());
        match (message, slots) {
            (Message::Slots(answer), Some(count)) => assert_eq!(answer.entries.len(), count),
            (Message::Branch(answer), None) => {
                let stable = Some(Box::new(proof.clone()));
                assert_eq!(*answer, Branch { head, slots: Vec::new(), stable });
            }
            (other, _) => panic!("{fetch:?} was answered with {other:?}"),
        }
    }
}

/// The replica hears pulses of all others: the round trip takes nothing, and their disks take what they
/// say. Answers how patient that makes it with its primary, in ms.
fn patience_after(bench: &mut Bench, syncs: [u64; 3], lie: impl Fn(&mut Vec<Echo>)) -> u64 {
    let me = bench.replica.id();
    let others = bench.membership.size().members().filter(|id| *id != me);
    let others: Vec<_> = others.zip(syncs).collect();
    for round in 1..20 {
        let at = bench.replica.deadline().expect("a status is always due");
        bench.now.instant = bench.now.instant.max(at);
        let said = bench.handle(Event::Tick);
        let pulse = said.iter().find_map(|action| match action {
            Action::Send { message: Message::Pulse(pulse), .. } => Some(pulse.body.stamp),
            _ => None,
        });
        let appended = said.iter().rev().find_map(|action| match action {
            Action::Append { mark, .. } => Some(*mark),
            _ => None,
        });
        if let Some(mark) = appended {
            bench.handle(Event::Synced(mark));
        }
        for (id, sync) in &others {
            let own = pulse.map(|stamp| Echo { of: me, stamp, held: 0 });
            let mut echoes = own.into_iter().collect();
            lie(&mut echoes);
            let pulse = Pulse { stamp: round, sync: *sync, echoes };
            bench.hear(Message::Pulse(say(&bench.membership, id.0, pulse)));
        }
    }
    bench.replica.pace().patience
}

/// One of four, which has written something, so that it knows its own disk.
fn that_knows_its_disk() -> Bench {
    let mut bench = Bench::new();
    write(&mut bench, 1);
    bench.handle(Event::Synced(Mark(1)));
    bench
}

#[test]
fn no_liar_makes_a_replica_more_patient_than_a_correct_one_needs() {
    const MS: u64 = 1000;
    let least = Tuning::default().request_timeout_min_ms;
    let short = least..least + 20;
    let patience = |syncs| patience_after(&mut that_knows_its_disk(), syncs, |_| ());
    let slow_primary = patience([900 * MS, 2 * MS, 2 * MS]);
    assert!(short.contains(&slow_primary), "{slow_primary}: a primary is measured by the others");
    for lie in [0, 1, u64::MAX] {
        let patience = patience([2 * MS, lie, 2 * MS]);
        assert!(short.contains(&patience), "{lie} made it {patience}");
    }
    let all_slow = patience([900 * MS; 3]);
    assert!(all_slow >= least + 1_800, "{all_slow}: a primary may be as slow as the others");
}

#[test]
fn echoes_of_what_was_never_sent_measure_nothing() {
    let mut bench = that_knows_its_disk();
    let invented = |echoes: &mut Vec<Echo>| {
        echoes.iter_mut().for_each(|echo| echo.stamp = echo.stamp.wrapping_sub(1));
    };
    let patience = patience_after(&mut bench, [2000; 3], invented);
    assert_eq!(patience, Tuning::default().request_timeout_ms);
    assert!(bench.replica.pace().others.iter().all(|other| other.round_trip.is_none()));
}
