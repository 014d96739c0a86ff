//! What a merge of long histories costs the others: `cargo run --release -p elea-protocol --example long_merge`.
//!
//! One replica of four has a history of its own, of so many slots above a common one; two others have
//! begun view 2 with another one, as long. It fetches that, gives up its own and executes the
//! other, and between any two of its events a client asks for something. Printed is what that costs while
//! only orders come besides, and in each part of the merge, and how long the longest other event takes.

#![expect(clippy::disallowed_methods, reason = "it measures time, and decides nothing by it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use elea_protocol::application::{Application, BadChunk, Context, Restore, Snapshot};
use elea_protocol::edition::Editions;
use elea_protocol::history::extend;
use elea_protocol::id::{
    Digest, Instant, Now, ReplicaId, RequestNumber, SessionId, Slot, View, WallTime,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Branch, Level, Linked, Message, NewView, NewViewHeader, NonDeterminism, Order, OrderHeader,
    Position, Request, SignedRequest, SlotEntry, ViewChange, Wanted, batch_digest, changes_digest,
};
use elea_protocol::replica::{Action, Event, Recovered, Replica, Setup};
use elea_protocol::rows::{RowsView, Unreadable};
use elea_protocol::seal::sign;
use elea_protocol::signature::{Ed25519, SecretKey, Signer};
use elea_protocol::tuning::Tuning;

type Failure = Box<dyn Error>;

/// An application without a state.
struct Nothing;

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

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

const CLIENT: u8 = 9;

struct Cluster {
    membership: Arc<Membership>,
    replica: Replica<Nothing>,
    now: Now,
    asked: u64,
}

impl Cluster {
    fn new() -> Result<Self, Failure> {
        let keys = (1..=4).map(|n| key(n).public_key()).collect();
        let clients = Some([key(CLIENT).public_key().into()].into());
        let ed25519 = Arc::new(Ed25519::default());
        let membership = Arc::new(Membership::new("long", 1, keys, clients, ed25519)?);
        let mut tuning = Tuning::default();
        tuning.rules.max_speculative_slots = 1 << 20;
        tuning.rules.max_speculative_bytes = 1 << 40;
        let now = Now { instant: Instant(1), wall: WallTime(1_000_000) };
        let signer = Arc::new(key(2));
        let setup = Setup {
            id: ReplicaId(1),
            membership: membership.clone(),
            signer,
            tuning,
            editions: Editions::with(1..=1),
            seed: [0; 32],
        };
        let none = std::iter::empty::<Result<_, Infallible>>();
        let replica = Replica::start(setup, Nothing, Recovered::default(), none, now)?;
        Ok(Self { membership, replica, now, asked: 0 })
    }

    fn handle(&mut self, event: Event) -> (Vec<Action>, Duration) {
        let mut actions = Vec::new();
        self.now.instant.0 += 1;
        let begin = Clock::now();
        self.replica.handle(self.now, event, &mut actions);
        (actions, begin.elapsed())
    }

    fn hear(&mut self, from: u8, message: Message) -> Result<(Vec<Action>, Duration), Failure> {
        let message = self.membership.open_message(message)?;
        Ok(self.handle(Event::Peer { from: ReplicaId(from), message }))
    }

    fn request(&self, session: u64, number: u64) -> Arc<SignedRequest> {
        let body = Request {
            client: key(CLIENT).public_key().into(),
            session: SessionId(session),
            number: RequestNumber(number),
            level: Level::Weak,
            want_final: false,
            operations: vec![Bytes::from_static(b"y")],
        };
        SignedRequest::sign(&key(CLIENT), self.membership.genesis(), body)
    }

    /// A client asks for something new. How long that takes the replica, with the check of its signature.
    fn ask(&mut self) -> Result<Duration, Failure> {
        self.asked += 1;
        let (session, number) = (100 + self.asked / 100, self.asked % 100 + 1);
        let request = self.request(session, number);
        let begin = Clock::now();
        let request = self.membership.open_request(request)?;
        self.handle(Event::Request(request));
        Ok(begin.elapsed())
    }

    /// The history of view 0 grows by so many slots.
    fn grow(&mut self, count: u64) -> Result<(), Failure> {
        let first = self.replica.head().slot.0 + 1;
        for number in first..first + count {
            let request = self.request(7, number);
            let choices = NonDeterminism {
                time: WallTime(1_000_000),
                seed: [0; 16],
                ..NonDeterminism::default()
            };
            let requests = vec![request.digest()];
            let batch = batch_digest(&choices, &requests);
            let head = self.replica.head();
            let (view, slot) = (View(0), head.slot.next());
            let header = OrderHeader { view, slot, hash: extend(&head.hash, &batch), batch };
            let order = Order { header, choices, requests };
            let genesis = self.membership.genesis();
            let order = sign(&key(1), genesis, ReplicaId(0), order).into_inner();
            let request = self.membership.open_request(request)?;
            self.handle(Event::Request(request));
            self.hear(0, Message::Order(order))?;
        }
        Ok(())
    }

    /// View 2 begins with this head, at the wish of replicas 2 and 0.
    fn new_view(&self, head: Position) -> Message {
        let (view, genesis) = (View(2), self.membership.genesis());
        let change = |id: u8| {
            let (lock, stable, entered) = (None, Slot(0), View(0));
            let body = ViewChange { view, campaign: view, entered, lock, stable, head, stamp: 1 };
            sign(&key(id + 1), genesis, ReplicaId(id), body).into_inner()
        };
        let changes = vec![change(2), change(0)];
        let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
        let new_view = NewView { header, changes };
        Message::NewView(sign(&key(3), genesis, ReplicaId(2), new_view).into_inner())
    }
}

/// The other history.
struct Chain {
    slots: BTreeMap<Position, Linked>,
    head: Position,
}

impl Chain {
    fn new(cluster: &Cluster, count: u64) -> Self {
        let mut slots = BTreeMap::new();
        let mut head = cluster.replica.head();
        for number in 1..=count {
            let choices = NonDeterminism {
                time: WallTime(1_000_000),
                seed: [1; 16],
                ..NonDeterminism::default()
            };
            let requests = vec![cluster.request(8, number)];
            let digests: Vec<Digest> = requests.iter().map(|request| request.digest()).collect();
            let previous = head.hash;
            let hash = extend(&previous, &batch_digest(&choices, &digests));
            head = Position { slot: head.slot.next(), hash };
            let entry = SlotEntry { choices, requests, order: None };
            slots.insert(head, Linked { previous, entry });
        }
        Self { slots, head }
    }

    fn answer(&self, head: Position) -> Option<Message> {
        let mut at = head;
        let mut slots = Vec::new();
        while slots.len() < 256
            && let Some(linked) = self.slots.get(&at)
        {
            at = Position { slot: Slot(at.slot.0 - 1), hash: linked.previous };
            slots.push(linked.clone());
        }
        (!slots.is_empty()).then_some(Message::Branch(Branch { head, slots, stable: None }))
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<(), Failure> {
    let count = std::env::args().nth(1).map_or(Ok(100_000), |count| count.parse())?;
    let mut cluster = Cluster::new()?;
    let other = Chain::new(&cluster, count);
    cluster.grow(count)?;
    let mut before = Vec::new();
    for _ in 0..200 {
        // Other work is in between, as it is later.
        cluster.grow(16)?;
        before.push(cluster.ask()?);
    }
    let before = median(before);
    println!("{count} slots given up, and as many adopted");
    println!("a client's event while only orders come besides: {before:?}");

    let begin = Clock::now();
    let new_view = cluster.new_view(other.head);
    let (mut open, mut own) = cluster.hear(2, new_view)?;
    let mut longest = (own, "at first");
    let mut parts: [(&str, Vec<Duration>); 3] = [
        ("it is fetched", Vec::new()),
        ("it is prepared", Vec::new()),
        ("it is executed", Vec::new()),
    ];
    while cluster.replica.entered() != View(2) || cluster.replica.is_adopting() {
        let heads: Vec<Position> = std::mem::take(&mut open)
            .into_iter()
            .filter_map(|action| match action {
                Action::Send { message: Message::Fetch(fetch), .. } => match fetch.body.wanted {
                    Wanted::Branch { head, .. } => Some(head),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        let part = if cluster.replica.is_adopting() { 2 } else { usize::from(heads.is_empty()) };
        parts[part].1.push(cluster.ask()?);
        let (actions, took) = match heads.first().and_then(|head| other.answer(*head)) {
            Some(answer) => cluster.hear(2, answer)?,
            None => cluster.handle(Event::Tick),
        };
        open = actions;
        own += took;
        let is_done = cluster.replica.entered() == View(2) && !cluster.replica.is_adopting();
        let part = match part {
            2 if is_done => "when it is done",
            1 if cluster.replica.is_adopting() => "when it is adopted",
            part => parts[part].0,
        };
        if took > longest.0 {
            longest = (took, part);
        }
    }
    for (name, times) in parts {
        let (events, median) = (times.len(), median(times));
        let ratio = median.as_secs_f64() / before.as_secs_f64();
        println!("while {name}: {median:?}, {ratio:.2} times as long ({events} events)");
    }
    let (longest, part) = longest;
    println!("the longest other event, {part}: {longest:?}; all: {own:?} of {:?}", begin.elapsed());
    Ok(())
}
