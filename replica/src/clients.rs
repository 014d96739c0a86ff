//! Who is connected, and where an answer goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use elea_protocol::id::{ClientId, SessionId};
use elea_protocol::message::ToClient;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::counters::{Counter, Counters};
use crate::limits::Limits;
use crate::recent::Recent;
use crate::weight;

/// The connections of all clients.
pub(crate) struct Clients {
    limits: Limits,
    counters: Arc<Counters>,
    /// Signatures of one client that may be checked at the same time.
    checks_per_client: usize,
    /// Bytes of answers of all that wait to be written.
    answers: AtomicUsize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    clients: HashMap<ClientId, Client>,
    /// All that have a descriptor.
    seats: usize,
    /// For the next connection.
    id: u64,
}

struct Client {
    /// By id.
    connections: BTreeMap<u64, Arc<Queue>>,
    /// Which connections are answered for a session, by their ids.
    answered: HashMap<SessionId, Vec<u64>>,
    /// Those that have a descriptor, by id; none is evicted twice.
    seats: BTreeMap<u64, CancellationToken>,
    /// What its connections share; outlives each of them, not the last one.
    common: Arc<Common>,
}

/// What all connections of one client share.
struct Common {
    /// Signatures are checked in the order in which they came, and a client has at most half of the threads at
    /// work: whoever waits beside it gets the next turn.
    checks: Semaphore,
    questions: Mutex<Bucket>,
    /// When it was told last that there is no room.
    busy: Mutex<Option<Instant>>,
    /// Bytes of answers that wait to be written.
    answers: AtomicUsize,
}

impl Common {
    fn busy(&self) -> MutexGuard<'_, Option<Instant>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens that come back at a rate, up to what five seconds bring.
struct Bucket {
    tokens: f64,
    since: Instant,
}

/// So many seconds' worth of questions may be saved up.
const SAVED_UP: f64 = 5.0;

/// So long nothing is read of a client that was told that there is no room: what it sends meanwhile would
/// find none either, and be read and checked for nothing.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A question that was not answered for so long is no reason not to hear another one.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

impl Bucket {
    fn new(rate: u32) -> Self {
        Self { tokens: f64::from(rate) * SAVED_UP, since: Instant::now() }
    }

    fn take(&mut self, rate: u32, now: Instant) -> bool {
        let rate = f64::from(rate);
        let gained = now.saturating_duration_since(self.since).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min(rate * SAVED_UP);
        self.since = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

/// The way to one connection's writer.
struct Queue {
    id: u64,
    answers: mpsc::Sender<ToClient>,
    bytes: Arc<AtomicUsize>,
    common: Arc<Common>,
    /// The sessions it used last: those for which it is answered.
    sessions: Mutex<Recent>,
    /// When it asked how the replica is, for proofs or for a state, as long as there was no answer.
    asked: Mutex<Option<Instant>>,
}

/// A connection that was let in. Dropping it ends its writer once that has written what is queued.
pub(crate) struct Admission {
    clients: Arc<Clients>,
    pub(crate) client: ClientId,
    queue: Arc<Queue>,
}

/// A connection's descriptor. Dropping it makes room for another one.
pub(crate) struct Seat {
    clients: Arc<Clients>,
    client: ClientId,
    id: u64,
    /// Cancelled when it has to make room for a client with fewer.
    pub(crate) evicted: CancellationToken,
}

/// The writer's end of a connection's queue.
pub(crate) struct Answers {
    answers: mpsc::Receiver<ToClient>,
    clients: Arc<Clients>,
    queue: Arc<AtomicUsize>,
    common: Arc<Common>,
}

impl Answers {
    /// Waits for answers and takes up to `limit` of them. None are left when it takes none.
    pub(crate) async fn take(&mut self, group: &mut Vec<ToClient>, limit: usize) -> usize {
        let taken = self.answers.recv_many(group, limit).await;
        self.gone(group.iter().map(weight::answer).sum());
        taken
    }

    fn gone(&self, bytes: usize) {
        for held in [&*self.queue, &self.common.answers, &self.clients.answers] {
            held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.answers.close();
        while let Ok(answer) = self.answers.try_recv() {
            self.gone(weight::answer(&answer));
        }
    }
}

impl Clients {
    pub(crate) fn new(limits: Limits, counters: Arc<Counters>) -> Arc<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            limits,
            counters,
            checks_per_client: (threads / 2).max(1),
            answers: AtomicUsize::new(0),
            open: Mutex::default(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a client's connection in, or says which limit stands against it. Where all places are
    /// taken, the client with the most gives one up, if this one has fewer even then.
    pub(crate) fn admit(
        self: &Arc<Self>,
        client: ClientId,
    ) -> Result<(Admission, Answers, Seat), Counter> {
        let mut open = self.open();
        let own = open.clients.get(&client).map_or(0, |entry| entry.connections.len());
        if own >= self.limits.connections_per_client {
            return Err(Counter::ClientConnectionsFull);
        }
        if open.seats >= self.limits.connections {
            if !open.make_room(&client) {
                return Err(Counter::ConnectionsFull);
            }
            self.counters.count(Counter::ClientEvicted);
        }
        let id = open.id;
        let entry = open.clients.entry(client).or_insert_with(|| Client {
            connections: BTreeMap::new(),
            answered: HashMap::new(),
            seats: BTreeMap::new(),
            common: Arc::new(Common {
                checks: Semaphore::new(self.checks_per_client),
                questions: Mutex::new(Bucket::new(self.limits.questions_per_second)),
                busy: Mutex::default(),
                answers: AtomicUsize::new(0),
            }),
        });
        let (answers, receiver) = mpsc::channel(self.limits.answers_queued);
        let bytes = Arc::<AtomicUsize>::default();
        let common = Arc::clone(&entry.common);
        let queue = Arc::new(Queue {
            id,
            answers,
            bytes: Arc::clone(&bytes),
            common: Arc::clone(&common),
            sessions: Mutex::default(),
            asked: Mutex::default(),
        });
        entry.connections.insert(id, Arc::clone(&queue));
        let evicted = CancellationToken::new();
        entry.seats.insert(id, evicted.clone());
        open.id += 1;
        open.seats += 1;
        let admission = Admission { clients: Arc::clone(self), client, queue };
        let answers =
            Answers { answers: receiver, clients: Arc::clone(self), queue: bytes, common };
        let seat = Seat { clients: Arc::clone(self), client, id, evicted };
        Ok((admission, answers, seat))
    }

    /// Queues an answer on every connection of the client that used the session, or, where none is named, on
    /// those that asked, if it is the answer to a question, and else on all.
    pub(crate) fn answer(&self, client: &ClientId, session: Option<SessionId>, message: ToClient) {
        let receivers: Vec<Arc<Queue>> = {
            let open = self.open();
            let entry = open.clients.get(client);
            let is_answer = matches!(
                message,
                ToClient::Status(_)
                    | ToClient::Evidence(_)
                    | ToClient::State(_)
                    | ToClient::Piece { .. }
            );
            match (entry, session) {
                (None, _) => Vec::new(),
                (Some(entry), Some(session)) => entry.answered_for(session).cloned().collect(),
                (Some(entry), None) => {
                    let is_meant =
                        |queue: &&Arc<Queue>| !is_answer || queue.asked().take().is_some();
                    entry.connections.values().filter(is_meant).cloned().collect()
                }
            }
        };
        match receivers.split_last() {
            None => self.counters.count(Counter::AnswerUnclaimed),
            Some((last, others)) => {
                for queue in others {
                    self.push(queue, message.clone());
                }
                self.push(last, message);
            }
        }
    }

    fn push(&self, queue: &Queue, message: ToClient) {
        if matches!(message, ToClient::Busy(_)) {
            *queue.common.busy() = Some(Instant::now());
        }
        let weight = weight::answer(&message);
        let add = |held: &AtomicUsize| held.fetch_add(weight, Ordering::Relaxed) + weight;
        let (own, of_client, of_all) =
            (add(&queue.bytes), add(&queue.common.answers), add(&self.answers));
        let left = self.limits.all_answer_bytes_queued.saturating_sub(of_all);
        // Whoever has nothing else waiting gets what is there.
        let has_share = of_client == weight || of_client <= left + weight;
        let has_room = own <= self.limits.answer_bytes_queued
            && of_all <= self.limits.all_answer_bytes_queued
            && has_share;
        if !has_room || queue.answers.try_send(message).is_err() {
            for held in [&*queue.bytes, &queue.common.answers, &self.answers] {
                held.fetch_sub(weight, Ordering::Relaxed);
            }
            self.counters.count(Counter::AnswerDropped);
        }
    }
}

impl Open {
    /// Has the client with the most connections close its newest, for one more of this client.
    fn make_room(&mut self, newcomer: &ClientId) -> bool {
        let staying = |client: &Client| {
            client.seats.values().filter(|evicted| !evicted.is_cancelled()).count()
        };
        let own = self.clients.get(newcomer).map_or(0, staying);
        let most = self.clients.values_mut().max_by_key(|client| staying(client));
        let Some(most) = most.filter(|client| staying(client) > own + 1) else { return false };
        let newest = most.seats.values().rev().find(|evicted| !evicted.is_cancelled());
        newest.inspect(|evicted| evicted.cancel()).is_some()
    }

    /// Forgets a client of which nothing is left.
    fn tidy(&mut self, client: &ClientId) {
        let is_gone = |entry: &Client| entry.connections.is_empty() && entry.seats.is_empty();
        if self.clients.get(client).is_some_and(is_gone) {
            self.clients.remove(client);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.clients.open();
        open.seats -= 1;
        if let Some(entry) = open.clients.get_mut(&self.client) {
            entry.seats.remove(&self.id);
        }
        open.tidy(&self.client);
    }
}

impl Client {
    /// The connections that are answered for a session.
    fn answered_for(&self, session: SessionId) -> impl Iterator<Item = &Arc<Queue>> {
        let ids = self.answered.get(&session).into_iter().flatten();
        ids.filter_map(|id| self.connections.get(id))
    }

    /// A connection is no longer answered for a session.
    fn forget(&mut self, session: SessionId, id: u64) {
        if let Some(ids) = self.answered.get_mut(&session) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.answered.remove(&session);
            }
        }
    }
}

impl Queue {
    fn sessions(&self) -> MutexGuard<'_, Recent> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// The connection has used this session: answers for it go there from now on.
    pub(crate) fn uses(&self, session: SessionId) {
        if self.queue.sessions().touch(session) {
            return;
        }
        let (mut open, id) = (self.clients.open(), self.queue.id);
        let most = self.clients.limits.sessions_of_each(open.seats);
        let left = self.queue.sessions().add(session, most);
        let Some(entry) = open.clients.get_mut(&self.client) else { return };
        entry.answered.entry(session).or_default().push(id);
        left.into_iter().for_each(|left| entry.forget(left, id));
    }

    fn may_ask(&self) -> bool {
        let questions = self.queue.common.questions.lock();
        let rate = self.clients.limits.questions_per_second;
        questions.unwrap_or_else(PoisonError::into_inner).take(rate, Instant::now())
    }

    /// Waits until the client may ask another question. Nothing more is read from it meanwhile, so that
    /// nothing is lost of one that is in a hurry.
    pub(crate) async fn turn_to_ask(&self) {
        let wait = Duration::from_secs(1) / self.clients.limits.questions_per_second.max(1);
        while !self.may_ask() {
            sleep(wait).await;
        }
    }

    /// Whether this connection waits for an answer about the replica: there is one at a time.
    pub(crate) fn is_asking(&self) -> bool {
        self.queue.asked().is_some_and(|at| at.elapsed() < ANSWER_PATIENCE)
    }

    /// From now on it waits for one.
    pub(crate) fn asks(&self) {
        *self.queue.asked() = Some(Instant::now());
    }

    /// Waits while there was no room for its client just now.
    pub(crate) async fn rest(&self) {
        loop {
            let busy = *self.queue.common.busy();
            let Some(rest) = busy.and_then(|at| BUSY_PAUSE.checked_sub(at.elapsed())) else {
                return;
            };
            sleep(rest).await;
        }
    }

    /// Waits until it is this connection's turn to have a signature checked.
    pub(crate) async fn turn_to_check(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.queue.common.checks.acquire().await.ok()
    }

    /// Queues something on this connection alone.
    pub(crate) fn answer(&self, message: ToClient) {
        self.clients.push(&self.queue, message);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.clients.open();
        if let Some(entry) = open.clients.get_mut(&self.client) {
            entry.connections.remove(&self.queue.id);
            self.queue.sessions().all().for_each(|session| entry.forget(session, self.queue.id));
        }
        open.tidy(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{RequestName, RequestNumber};
    use futures::FutureExt;

    use super::*;

    const ANN: ClientId = ClientId([1; 32]);
    const BOB: ClientId = ClientId([2; 32]);

    fn busy(client: ClientId, number: u64) -> ToClient {
        let number = RequestNumber(number);
        ToClient::Busy(RequestName { client, session: SessionId(1), number })
    }

    fn clients(limits: Limits) -> (Arc<Clients>, Arc<Counters>) {
        let counters = Arc::<Counters>::default();
        (Clients::new(limits, Arc::clone(&counters)), counters)
    }

    fn queued(answers: &mut Answers) -> Vec<ToClient> {
        let mut group = Vec::new();
        let _ = answers.take(&mut group, 100).now_or_never();
        group
    }

    #[test]
    fn an_answer_goes_to_the_connections_that_used_its_session_and_to_no_other_client() {
        let (clients, counters) = clients(Limits::default());
        let (first, mut to_first, _) = clients.admit(ANN).expect("room");
        let (second, mut to_second, _) = clients.admit(ANN).expect("room");
        let (_bob, mut to_bob, _) = clients.admit(BOB).expect("room");
        first.uses(SessionId(1));
        second.uses(SessionId(2));
        second.uses(SessionId(1));
        second.uses(SessionId(3));
        clients.answer(&ANN, Some(SessionId(1)), busy(ANN, 1));
        clients.answer(&ANN, Some(SessionId(2)), busy(ANN, 2));
        clients.answer(&ANN, None, busy(ANN, 3));
        clients.answer(&ANN, Some(SessionId(9)), busy(ANN, 4));
        assert_eq!(queued(&mut to_first), [busy(ANN, 1), busy(ANN, 3)]);
        assert_eq!(queued(&mut to_second), [busy(ANN, 1), busy(ANN, 2), busy(ANN, 3)]);
        assert_eq!(queued(&mut to_bob), []);
        assert_eq!(counters.get(Counter::AnswerUnclaimed), 1);
        drop(first);
        clients.answer(&ANN, None, busy(ANN, 5));
        assert_eq!(queued(&mut to_first), []);
        assert_eq!(queued(&mut to_second), [busy(ANN, 5)]);
    }

    #[test]
    fn a_connection_is_answered_for_the_sessions_it_used_last() {
        let limits = Limits { sessions_per_connection: 2, ..Limits::default() };
        let (clients, _) = clients(limits);
        let (ann, mut answers, _) = clients.admit(ANN).expect("room");
        for session in [1, 2, 1, 3] {
            ann.uses(SessionId(session));
        }
        for session in [1, 2, 3] {
            clients.answer(&ANN, Some(SessionId(session)), busy(ANN, session));
        }
        assert_eq!(queued(&mut answers), [busy(ANN, 1), busy(ANN, 3)]);
    }

    #[test]
    fn the_more_connections_there_are_the_fewer_sessions_each_is_answered_for() {
        let (clients, _) = clients(Limits::default());
        let known = |admission: &Admission| admission.queue.sessions().all().count();
        let first = clients.admit(ANN).expect("room");
        (0..2000).for_each(|session| first.0.uses(SessionId(session)));
        assert_eq!(known(&first.0), 1024);
        let others: Vec<_> = (1..2048).map(|_| clients.admit(ANN).expect("room")).collect();
        for (number, (other, ..)) in (1u64..).zip(&others) {
            (0..100).for_each(|session| other.uses(SessionId((number << 32) + session)));
        }
        assert!(others.iter().all(|(other, ..)| known(other) == 64));
        first.0.uses(SessionId(5000));
        assert_eq!(known(&first.0), 64, "what it had when there were few is given up");
        let indexed = || clients.open().clients.get(&ANN).map_or(0, |entry| entry.answered.len());
        assert_eq!(indexed(), 2048 * 64);
        drop(others);
        assert_eq!(indexed(), 64, "nothing is left of a connection");
    }

    #[test]
    fn limits_hold_at_their_edges_and_a_closed_connection_makes_room() {
        let limits = Limits { connections: 3, connections_per_client: 2, ..Limits::default() };
        let (clients, _) = clients(limits);
        let first = clients.admit(ANN).expect("room");
        let second = clients.admit(ANN).expect("room");
        assert_eq!(clients.admit(ANN).err(), Some(Counter::ClientConnectionsFull));
        let _bob = clients.admit(BOB).expect("room");
        assert_eq!(clients.admit(BOB).err(), Some(Counter::ConnectionsFull));
        assert!(![&first, &second].iter().any(|(_, _, seat)| seat.evicted.is_cancelled()));
        drop(first);
        assert!(clients.admit(ANN).is_ok());
    }

    #[test]
    fn where_all_places_are_taken_the_client_with_the_most_gives_one_up_for_one_with_fewer() {
        let limits = Limits { connections: 4, connections_per_client: 4, ..Limits::default() };
        let (clients, counters) = clients(limits);
        let mut ann: Vec<_> = (0..4).map(|_| clients.admit(ANN).expect("room")).collect();
        let _bob = [(); 2].map(|()| clients.admit(BOB).expect("room"));
        let evicted: Vec<bool> =
            ann.iter().map(|(_, _, seat)| seat.evicted.is_cancelled()).collect();
        assert_eq!(evicted, [false, false, true, true], "the newest, and down to an equal share");
        assert_eq!(clients.admit(BOB).err(), Some(Counter::ConnectionsFull));
        assert_eq!(counters.get(Counter::ClientEvicted), 2);
        ann.truncate(2);
        assert_eq!(clients.admit(BOB).err(), Some(Counter::ConnectionsFull));
        ann.truncate(1);
        assert!(clients.admit(BOB).is_ok());
    }

    #[test]
    fn a_full_queue_drops_the_newest_and_counts_it_by_number_and_by_bytes() {
        let limits = Limits { answers_queued: 2, ..Limits::default() };
        let (few, counters) = clients(limits);
        let (_ann, mut answers, _) = few.admit(ANN).expect("room");
        for number in 1..=3 {
            few.answer(&ANN, None, busy(ANN, number));
        }
        assert_eq!(counters.get(Counter::AnswerDropped), 1);
        assert_eq!(queued(&mut answers), [busy(ANN, 1), busy(ANN, 2)]);
        few.answer(&ANN, None, busy(ANN, 4));
        assert_eq!(queued(&mut answers), [busy(ANN, 4)]);

        let weight = weight::answer(&busy(ANN, 1));
        let (small, counters) =
            clients(Limits { answer_bytes_queued: 2 * weight + 1, ..Limits::default() });
        let (_ann, mut answers, _) = small.admit(ANN).expect("room");
        for number in 1..=3 {
            small.answer(&ANN, None, busy(ANN, number));
        }
        assert_eq!(counters.get(Counter::AnswerDropped), 1);
        assert_eq!(queued(&mut answers).len(), 2);
        small.answer(&ANN, None, busy(ANN, 4));
        assert_eq!(queued(&mut answers), [busy(ANN, 4)]);
    }

    #[test]
    fn who_never_reads_has_no_more_answers_waiting_than_are_left_for_all_others() {
        let weight = weight::answer(&busy(ANN, 1));
        let limits = Limits { all_answer_bytes_queued: 8 * weight, ..Limits::default() };
        let (clients, counters) = clients(limits);
        let (_ann, mut to_ann, _) = clients.admit(ANN).expect("room");
        let (_too, to_ann_too, _) = clients.admit(ANN).expect("room");
        let (_bob, mut to_bob, _) = clients.admit(BOB).expect("room");
        for number in 1..=9 {
            clients.answer(&ANN, None, busy(ANN, number));
        }
        assert_eq!(clients.answers.load(Ordering::Relaxed), 4 * weight, "on both connections");
        for number in 1..=9 {
            clients.answer(&BOB, None, busy(BOB, number));
        }
        assert_eq!(queued(&mut to_bob).len(), 2);
        assert_eq!(counters.get(Counter::AnswerDropped), 14 + 7);
        drop(to_ann_too);
        assert_eq!(queued(&mut to_ann).len(), 2);
        assert_eq!(clients.answers.load(Ordering::Relaxed), 0, "all is given back");
    }

    #[test]
    fn questions_come_at_a_rate_and_one_at_a_time() {
        let limits = Limits { questions_per_second: 2, ..Limits::default() };
        let (clients, _) = clients(limits);
        let (ann, mut to_ann, _) = clients.admit(ANN).expect("room");
        let (_too, mut to_ann_too, _) = clients.admit(ANN).expect("room");
        ann.asks();
        assert!(ann.is_asking() && ann.may_ask());
        clients.answer(&ANN, None, ToClient::Evidence(Vec::new()));
        assert!(!ann.is_asking());
        assert_eq!(queued(&mut to_ann).len(), 1);
        assert_eq!(queued(&mut to_ann_too).len(), 0, "it did not ask");
        assert_eq!((0..100).filter(|_| ann.may_ask()).count(), 9, "five seconds' worth");
        let now = Instant::now();
        let mut bucket = Bucket::new(2);
        bucket.tokens = 0.0;
        bucket.since = now;
        assert!(!bucket.take(2, now));
        assert!(bucket.take(2, now + Duration::from_millis(500)));
        assert!(!bucket.take(2, now + Duration::from_millis(900)));
    }
}
