//! What waits for the core: one lane for the disk, one for questions how the replica is, two for each
//! peer, and one for each client.
//!
//! Peers come before clients and take turns with each other, and what is small and waited for comes before
//! what is large ([`Lane`]). Clients take turns by bytes, so what one has sent does not stand before what
//! another sends. So neither a flood of requests nor one talkative peer keeps the others from being heard.
//!
//! Whoever puts something in sees to it that the core looks after it: by itself, where nobody is at it, or by having the
//! core's thread woken ([`Inbox::attend`]).
//!
//! Every lane is bounded in bytes, by room that an event carries until the core has taken it: a peer's
//! connection waits for room, and with it, by TCP, the peer, except for what is large, which is dropped without
//! room, or it would hold up what comes behind it; a client without any is told `Busy`. A
//! client may have no more waiting than there is room left for all others ([`Intake`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use elea_protocol::id::{ClientId, ReplicaId};
use elea_protocol::replica::{Event, Mark};
use elea_protocol::rows::{RowsView, Unreadable};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::Limits;
use crate::weight::Lane;

/// What the core hears of the disk.
#[derive(Debug)]
pub(crate) enum Word {
    /// Everything up to this mark is on it.
    Synced(Mark),
    /// The rows of states that are complete by now.
    Rows(Vec<(Mark, RowsView)>),
    /// Whether it is full.
    Full(bool),
}

/// So many requests are handed to the core at a time: after them it looks at its peers again.
const CLIENT_GROUP: usize = 64;

/// The same of peers' messages, of all peers together, before it looks at its deadline again.
const PEER_GROUP: usize = 256;

/// Questions how the replica is that may wait. They are answered whatever the disk does.
const QUESTIONS: usize = 256;

/// So many bytes of clients' requests end a group.
const CLIENT_GROUP_BYTES: usize = 1 << 20;

/// Peers' messages of the large kind in one group, of all peers together.
const BULK_GROUP: usize = 16;

/// So many bytes a client's turn is worth.
const QUANTUM: usize = 16 << 10;

/// Room for an event, given back when the core has handled it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Room(Held);

#[derive(Debug)]
enum Held {
    Peer(#[expect(dead_code, reason = "it is dropped")] OwnedSemaphorePermit),
    Client(Share),
}

/// How many bytes wait of each client. What one may have is what is left for all others, so that alone
/// it gets half, and the less the more there are; whoever comes finds room.
#[derive(Debug)]
struct Intake {
    all_max: usize,
    client_max: usize,
    held: Mutex<(usize, HashMap<ClientId, usize>)>,
}

/// What one event takes of it.
#[derive(Debug)]
struct Share {
    intake: Arc<Intake>,
    client: ClientId,
    bytes: usize,
}

impl Intake {
    fn held(&self) -> MutexGuard<'_, (usize, HashMap<ClientId, usize>)> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, client: ClientId, bytes: usize) -> Option<Share> {
        let mut held = self.held();
        let left = self.all_max.saturating_sub(held.0);
        let own = held.1.get(&client).copied().unwrap_or_default();
        let most = if own == 0 { left } else { left.min(self.client_max) };
        if bytes > left || own + bytes > most {
            return None;
        }
        held.0 += bytes;
        *held.1.entry(client).or_default() += bytes;
        Some(Share { intake: Arc::clone(self), client, bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.intake.held();
        held.0 -= self.bytes;
        if let Some(own) = held.1.get_mut(&self.client) {
            *own -= self.bytes;
            if *own == 0 {
                held.1.remove(&self.client);
            }
        }
    }
}

/// What waits of each client, in turn.
#[derive(Default)]
struct ClientLanes {
    lanes: HashMap<ClientId, ClientLane>,
    /// Whose turn is next. Each is in here once.
    turns: VecDeque<ClientId>,
}

#[derive(Default)]
struct ClientLane {
    queue: VecDeque<Queued>,
    /// What is left of its turn.
    bytes: usize,
}

impl ClientLanes {
    fn push(&mut self, client: ClientId, queued: Queued) {
        let lane = self.lanes.entry(client).or_default();
        if lane.queue.is_empty() {
            self.turns.push_back(client);
        }
        lane.queue.push_back(queued);
    }

    fn take(&mut self, group: &mut Vec<Queued>) {
        let (mut count, mut bytes) = (0, 0);
        while count < CLIENT_GROUP
            && bytes < CLIENT_GROUP_BYTES
            && let Some(client) = self.turns.front().copied()
            && let Some(lane) = self.lanes.get_mut(&client)
            && let Some(cost) = lane.queue.front().map(Queued::bytes)
        {
            if lane.bytes < cost {
                lane.bytes += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            lane.bytes -= cost;
            (count, bytes) = (count + 1, bytes + cost);
            group.extend(lane.queue.pop_front());
            if lane.queue.is_empty() {
                self.lanes.remove(&client);
                self.turns.pop_front();
            }
        }
    }
}

/// An event with the room it takes.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) event: Event,
    /// Given back when it is dropped.
    pub(crate) room: Option<Room>,
}

impl Queued {
    fn bytes(&self) -> usize {
        match &self.room {
            Some(Room(Held::Client(share))) => share.bytes,
            Some(Room(Held::Peer(_))) | None => 0,
        }
    }
}

/// Why [`Inbox::wait`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// There are events, or the time has come.
    Running,
    /// There is nothing more to do: the replica stops.
    Closed,
}

/// What the core takes in now. The disk's own word, and questions how the replica is, it always takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appetite {
    /// Anything else. Not while the disk is behind.
    pub(crate) intake: bool,
    /// What is large. Only where there is time for it.
    pub(crate) bulk: bool,
    /// What clients sent. Not before it is done with what they asked.
    pub(crate) clients: bool,
}

/// What the core waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Until when, if nothing happens.
    pub(crate) until: Option<Instant>,
    /// Whether it takes in what comes. While the disk is behind it hears of that alone, and questions how the replica is.
    pub(crate) intake: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self { until: None, intake: true }
    }
}

/// Whoever has the core look after what came, if nobody else does.
type Attendant = Box<dyn Fn(&Inbox) + Send + Sync>;

#[derive(Default)]
struct Lanes {
    synced: Option<Mark>,
    rows: Vec<(Mark, RowsView)>,
    unreadable: Option<Unreadable>,
    disk_full: Option<bool>,
    /// The replica is going to be stopped.
    leaves: bool,
    questions: VecDeque<Event>,
    control: PeerLanes,
    bulk: PeerLanes,
    clients: ClientLanes,
    closed: bool,
    wish: Wish,
    /// The core's thread sleeps, and until when it meant to: only then is it worth a system call to wake it.
    asleep: Option<Option<Instant>>,
}

/// One lane for each peer.
#[derive(Default)]
struct PeerLanes {
    lanes: Vec<VecDeque<Queued>>,
    /// The peer whose turn it is.
    turn: usize,
}

impl PeerLanes {
    fn new(peers: u8) -> Self {
        Self { lanes: (0..peers).map(|_| VecDeque::new()).collect(), turn: 0 }
    }

    fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    fn take(&mut self, limit: usize, group: &mut Vec<Queued>) {
        let count = self.lanes.len();
        let (mut empty_in_a_row, mut taken) = (0, 0);
        while empty_in_a_row < count && taken < limit {
            match self.lanes.get_mut(self.turn).and_then(VecDeque::pop_front) {
                Some(queued) => {
                    group.push(queued);
                    taken += 1;
                    empty_in_a_row = 0;
                }
                None => empty_in_a_row += 1,
            }
            self.turn = (self.turn + 1) % count;
        }
    }
}

/// The room that is left for one peer's messages.
struct PeerRoom {
    control: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
}

/// The queue before the core.
pub(crate) struct Inbox {
    lanes: Mutex<Lanes>,
    wake: Condvar,
    attendant: OnceLock<Attendant>,
    /// By peer.
    peer_room: Vec<PeerRoom>,
    client_room: Arc<Intake>,
}

impl Inbox {
    pub(crate) fn new(peers: u8, limits: &Limits) -> Self {
        let (control, bulk) = (PeerLanes::new(peers), PeerLanes::new(peers));
        let room = || Arc::new(Semaphore::new(limits.peer_intake_bytes));
        Self {
            lanes: Mutex::new(Lanes { control, bulk, ..Lanes::default() }),
            wake: Condvar::new(),
            attendant: OnceLock::new(),
            peer_room: (0..peers).map(|_| PeerRoom { control: room(), bulk: room() }).collect(),
            client_room: Arc::new(Intake {
                all_max: limits.client_intake_bytes,
                client_max: limits.intake_bytes_per_client,
                held: Mutex::default(),
            }),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // A panic in here leaves at worst one event unqueued, and the node stops anyway.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, put: impl FnOnce(&mut Lanes)) {
        let mut lanes = self.lanes();
        if lanes.closed {
            return;
        }
        put(&mut lanes);
    }

    /// Whether the replica stops, or cannot go on.
    pub(crate) fn is_closed(&self) -> bool {
        self.lanes().closed
    }

    /// Has the core look after what was put in.
    pub(crate) fn attend(&self) {
        match self.attendant.get() {
            Some(attend) => attend(self),
            None => self.look(),
        }
    }

    /// From now on whoever puts something in calls this: it may see to it that the core looks after it at once.
    pub(crate) fn attended_by(&self, attendant: Attendant) {
        // There is one core, and it says so once.
        let _ = self.attendant.set(attendant);
    }

    /// What the core waits for from now on.
    pub(crate) fn wishes(&self, wish: Wish) {
        let mut lanes = self.lanes();
        lanes.wish = wish;
        self.wake_where_needed(lanes);
    }

    /// Has the core's thread look after what is there, if it sleeps.
    pub(crate) fn look(&self) {
        self.wake_where_needed(self.lanes());
    }

    fn wake_where_needed(&self, mut lanes: MutexGuard<'_, Lanes>) {
        let Some(until) = lanes.asleep else { return };
        let is_earlier = lanes.wish.until.is_some_and(|at| until.is_none_or(|until| at < until));
        if is_earlier || lanes.closed || lanes.has_some() {
            lanes.asleep = None;
            drop(lanes);
            self.wake.notify_one();
        }
    }

    /// Waits until this peer's lane for what is small has room. `None` when the replica stops.
    pub(crate) async fn peer_room(&self, from: ReplicaId, bytes: usize) -> Option<Room> {
        let lane = Arc::clone(&self.peer_room.get(usize::from(from.0))?.control);
        let permit = lane.acquire_many_owned(narrow(bytes)).await;
        permit.ok().map(|permit| Room(Held::Peer(permit)))
    }

    /// Room in this peer's lane for what is large, if there is any.
    pub(crate) fn bulk_room(&self, from: ReplicaId, bytes: usize) -> Option<Room> {
        let lane = Arc::clone(&self.peer_room.get(usize::from(from.0))?.bulk);
        let permit = lane.try_acquire_many_owned(narrow(bytes));
        permit.ok().map(|permit| Room(Held::Peer(permit)))
    }

    /// Room for a client's event; `None` where its share is used up.
    pub(crate) fn client_room(&self, client: ClientId, bytes: usize) -> Option<Room> {
        self.client_room.take(client, bytes).map(|share| Room(Held::Client(share)))
    }

    /// Queues a peer's event.
    pub(crate) fn put_peer(&self, from: ReplicaId, lane: Lane, event: Event, room: Room) {
        self.put(|lanes| {
            let lanes = match lane {
                Lane::Control => &mut lanes.control,
                Lane::Bulk => &mut lanes.bulk,
            };
            if let Some(lane) = lanes.lanes.get_mut(usize::from(from.0)) {
                lane.push_back(Queued { event, room: Some(room) });
            }
        });
        match lane {
            Lane::Control => self.attend(),
            // It takes its time, and is for the core's own thread.
            Lane::Bulk => self.look(),
        }
    }

    /// Queues events of a client.
    pub(crate) fn put_client(
        &self,
        client: ClientId,
        events: impl IntoIterator<Item = (Event, Room)>,
    ) {
        self.put(|lanes| {
            for (event, room) in events {
                lanes.clients.push(client, Queued { event, room: Some(room) });
            }
        });
        self.attend();
    }

    /// What the core is to hear of the disk. Of how far it is, and whether it is full, only the newest word counts.
    /// Whoever says it has other things to do first, and [attends](Inbox::attend) to it then.
    pub(crate) fn disk_says(&self, word: Word) {
        self.put(|lanes| match word {
            Word::Synced(mark) => lanes.synced = lanes.synced.max(Some(mark)),
            Word::Rows(rows) => lanes.rows.extend(rows),
            Word::Full(is_full) => lanes.disk_full = Some(is_full),
        });
    }

    /// Tells the core that the stored state is damaged.
    pub(crate) fn unreadable(&self, why: Unreadable) {
        self.put(|lanes| lanes.unreadable = Some(why));
        self.look();
    }

    /// Tells the core that the replica is going to be stopped.
    pub(crate) fn leave(&self) {
        self.put(|lanes| lanes.leaves = true);
        self.look();
    }

    /// Queues a question how the replica is. Answers whether there was room.
    pub(crate) fn put_question(&self, event: Event) -> bool {
        let mut is_taken = false;
        self.put(|lanes| {
            is_taken = lanes.questions.len() < QUESTIONS;
            if is_taken {
                lanes.questions.push_back(event);
            }
        });
        self.attend();
        is_taken
    }

    /// Ends the core's thread after the group it is at; whoever waits for room stops waiting.
    pub(crate) fn close(&self) {
        self.lanes().closed = true;
        self.look();
        self.peer_room.iter().for_each(|room| room.control.close());
    }

    /// Waits for events, or until the time has come that the core [wishes](Inbox::wishes).
    pub(crate) fn wait(&self) -> Woken {
        let mut lanes = self.lanes();
        loop {
            if lanes.closed {
                return Woken::Closed;
            }
            if lanes.has_some() {
                return Woken::Running;
            }
            let until = lanes.wish.until;
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Woken::Running;
            }
            lanes.asleep = Some(until);
            lanes = match left {
                None => self.wake.wait(lanes).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.wake.wait_timeout(lanes, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            lanes.asleep = None;
        }
    }

    /// Takes a group of events. Answers whether there was anything; there is nothing once it is closed.
    pub(crate) fn take(&self, appetite: Appetite, group: &mut Vec<Queued>) -> bool {
        let mut lanes = self.lanes();
        if !lanes.closed {
            lanes.drain(appetite, group);
        }
        !group.is_empty()
    }
}

impl Lanes {
    /// Whether there is something that the core would take now.
    fn has_some(&self) -> bool {
        let is_heard = self.synced.is_some()
            || !self.rows.is_empty()
            || self.unreadable.is_some()
            || self.disk_full.is_some()
            || self.leaves
            || !self.questions.is_empty();
        let others =
            || !(self.control.is_empty() && self.bulk.is_empty() && self.clients.turns.is_empty());
        is_heard || (self.wish.intake && others())
    }

    fn drain(&mut self, appetite: Appetite, group: &mut Vec<Queued>) {
        if let Some(mark) = self.synced.take() {
            group.push(Queued { event: Event::Synced(mark), room: None });
        }
        let rows = self.rows.drain(..).map(|(mark, rows)| Event::Rows(mark, rows));
        group.extend(rows.map(|event| Queued { event, room: None }));
        let disk_full = self.disk_full.take().map(Event::DiskFull);
        let unreadable = self.unreadable.take().map(Event::Unreadable);
        let leave = std::mem::take(&mut self.leaves).then_some(Event::Leave);
        let others = disk_full.into_iter().chain(unreadable).chain(leave);
        let others = others.chain(self.questions.drain(..));
        group.extend(others.map(|event| Queued { event, room: None }));
        if !appetite.intake {
            return;
        }
        self.control.take(PEER_GROUP, group);
        if appetite.bulk {
            self.bulk.take(BULK_GROUP, group);
        }
        if appetite.clients {
            self.clients.take(group);
        }
    }
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use elea_protocol::id::SessionId;

    use super::*;

    const ALL: Appetite = Appetite { intake: true, bulk: true, clients: true };

    const ANN: ClientId = ClientId([1; 32]);
    const BOB: ClientId = ClientId([2; 32]);
    const EVE: ClientId = ClientId([3; 32]);

    fn ask(session: u64) -> Event {
        Event::AskSession { client: ANN, session: SessionId(session) }
    }

    fn sessions(group: &[Queued]) -> Vec<u64> {
        group
            .iter()
            .map(|queued| match queued.event {
                Event::AskSession { session, .. } => session.0,
                Event::Synced(Mark(mark)) => 1_000_000 + mark,
                _ => unreachable!("not queued here"),
            })
            .collect()
    }

    fn inbox(peers: u8, client_bytes: usize) -> Inbox {
        let limits = Limits {
            peer_intake_bytes: 100,
            client_intake_bytes: client_bytes,
            intake_bytes_per_client: client_bytes,
            ..Limits::default()
        };
        Inbox::new(peers, &limits)
    }

    fn room(inbox: &Inbox) -> Room {
        inbox.client_room(EVE, 1).expect("room")
    }

    fn put(inbox: &Inbox, client: ClientId, session: u64, bytes: usize) {
        let room = inbox.client_room(client, bytes).expect("room");
        inbox.put_client(client, [(ask(session), room)]);
    }

    fn taken(inbox: &Inbox) -> Vec<u64> {
        let mut group = Vec::new();
        inbox.take(ALL, &mut group);
        sessions(&group)
    }

    #[test]
    fn the_disk_comes_first_then_what_is_small_of_peers_in_turn_then_what_is_large_then_clients() {
        let inbox = inbox(2, 100);
        put(&inbox, ANN, 20, 1);
        inbox.put_peer(ReplicaId(0), Lane::Bulk, ask(15), room(&inbox));
        for n in 0..3 {
            inbox.put_peer(ReplicaId(0), Lane::Control, ask(n), room(&inbox));
        }
        inbox.put_peer(ReplicaId(1), Lane::Control, ask(10), room(&inbox));
        inbox.disk_says(Word::Synced(Mark(5)));
        inbox.disk_says(Word::Synced(Mark(4)));
        assert_eq!(taken(&inbox), [1_000_005, 0, 10, 1, 2, 15, 20]);
    }

    #[test]
    fn bulk_that_fills_its_lane_takes_no_room_of_the_other() {
        let inbox = inbox(1, 100);
        let _all = inbox.bulk_room(ReplicaId(0), 100).expect("room");
        assert!(inbox.bulk_room(ReplicaId(0), 1).is_none());
        let small = inbox.peer_room(ReplicaId(0), 100);
        assert!(futures::executor::block_on(small).is_some());
    }

    #[test]
    fn while_the_disk_is_behind_only_its_word_is_taken() {
        let inbox = inbox(1, 100);
        put(&inbox, ANN, 1, 1);
        inbox.wishes(Wish { until: Some(Instant::now()), intake: false });
        let mut group = Vec::new();
        assert_eq!(inbox.wait(), Woken::Running, "the time has come");
        assert!(!inbox.take(Appetite { intake: false, ..ALL }, &mut group));
        inbox.wishes(Wish { until: None, intake: false });
        inbox.disk_says(Word::Synced(Mark(1)));
        assert_eq!(inbox.wait(), Woken::Running);
        assert!(inbox.take(Appetite { intake: false, ..ALL }, &mut group));
        assert_eq!(sessions(&group), [1_000_001]);
    }

    #[test]
    fn whoever_sleeps_is_woken_for_what_it_would_take_and_for_an_earlier_time() {
        let inbox = Arc::new(inbox(1, 100));
        let woken = |wake: &dyn Fn(&Inbox)| {
            let core = {
                let inbox = Arc::clone(&inbox);
                std::thread::spawn(move || inbox.wait())
            };
            while inbox.lanes().asleep.is_none() {
                std::thread::yield_now();
            }
            wake(&inbox);
            core.join().expect("no panic")
        };
        let later = Some(Instant::now() + Duration::from_secs(3600));
        inbox.wishes(Wish { until: later, intake: true });
        assert_eq!(woken(&|inbox| put(inbox, ANN, 1, 1)), Woken::Running);
        assert_eq!(taken(&inbox), [1]);
        let now = Wish { until: Some(Instant::now()), intake: true };
        assert_eq!(woken(&|inbox| inbox.wishes(now)), Woken::Running);
    }

    #[test]
    fn whoever_attends_is_called_instead_of_the_sleeper() {
        let inbox = inbox(1, 100);
        let called = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&called);
        inbox.attended_by(Box::new(move |inbox| {
            let mut group = Vec::new();
            inbox.take(Appetite { bulk: false, ..ALL }, &mut group);
            assert_eq!(sessions(&group), [7, 8]);
            count.fetch_add(1, Ordering::Relaxed);
        }));
        inbox.put_peer(ReplicaId(0), Lane::Bulk, ask(6), room(&inbox));
        assert_eq!(called.load(Ordering::Relaxed), 0, "what is large is not for whoever brings it");
        let small = |session| (ask(session), inbox.client_room(ANN, 1).expect("room"));
        inbox.put_client(ANN, [small(7), small(8)]);
        assert_eq!(called.load(Ordering::Relaxed), 1);
        assert_eq!(taken(&inbox), [6]);
    }

    #[test]
    fn a_client_has_no_more_waiting_than_there_is_room_left_for_all_others() {
        let inbox = inbox(1, 16);
        put(&inbox, ANN, 1, 8);
        assert!(inbox.client_room(ANN, 1).is_none(), "half is used up");
        put(&inbox, BOB, 2, 4);
        assert!(inbox.client_room(BOB, 1).is_none(), "half of the rest");
        put(&inbox, EVE, 3, 4);
        assert!(inbox.client_room(ClientId([4; 32]), 1).is_none(), "nothing is left");
        assert_eq!(taken(&inbox).len(), 3);
        put(&inbox, ANN, 4, 8);
    }

    #[test]
    fn clients_take_turns_by_bytes() {
        let inbox = inbox(1, 100 << 20);
        for n in 0..4 {
            put(&inbox, ANN, n, 10 * QUANTUM);
        }
        for n in 10..14 {
            put(&inbox, BOB, n, QUANTUM / 2);
        }
        assert_eq!(taken(&inbox), [10, 11, 12, 13, 0, 1, 2, 3]);
        for n in 0..20 {
            put(&inbox, ANN, n, CLIENT_GROUP_BYTES / 4);
        }
        put(&inbox, BOB, 30, 1);
        assert_eq!(taken(&inbox), [30, 0, 1, 2, 3], "and a group ends with so many bytes");
        assert_eq!(taken(&inbox).len(), 4);
    }

    #[test]
    fn closing_wakes_the_core_and_everybody_who_waits_for_room() {
        let inbox = Arc::new(inbox(1, 1));
        let core = {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || inbox.wait())
        };
        inbox.close();
        assert_eq!(core.join().expect("no panic"), Woken::Closed);
        let waiting = inbox.peer_room(ReplicaId(0), 1);
        assert!(futures::executor::block_on(waiting).is_none());
    }
}
