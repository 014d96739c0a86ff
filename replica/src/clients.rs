//! Who is connected, and where an answer goes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use elea_protocol::id::{ClientId, SessionId};
use elea_protocol::message::ToClient;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::counters::{Counter, Counters};
use crate::limits::Limits;
use crate::weight;

/// The connections of all clients.
pub(crate) struct Clients {
    limits: Limits,
    counters: Arc<Counters>,
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
    connections: Vec<Arc<Queue>>,
    /// Those that have a descriptor, by id; none is evicted twice.
    seats: BTreeMap<u64, CancellationToken>,
    /// Its share of the room before the core; outlives a connection, not the last one.
    share: Arc<Semaphore>,
}

/// The way to one connection's writer.
struct Queue {
    id: u64,
    answers: mpsc::Sender<ToClient>,
    bytes: Arc<AtomicUsize>,
    /// The sessions it used, the newest last.
    sessions: Mutex<VecDeque<SessionId>>,
}

/// A connection that was let in. Dropping it ends its writer once that has written what is queued.
pub(crate) struct Admission {
    clients: Arc<Clients>,
    pub(crate) client: ClientId,
    queue: Arc<Queue>,
    pub(crate) share: Arc<Semaphore>,
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
    bytes: Arc<AtomicUsize>,
}

impl Answers {
    /// Waits for answers and takes up to `limit` of them. None are left when it takes none.
    pub(crate) async fn take(&mut self, group: &mut Vec<ToClient>, limit: usize) -> usize {
        let taken = self.answers.recv_many(group, limit).await;
        let bytes = group.iter().map(weight::answer).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        taken
    }
}

impl Clients {
    pub(crate) fn new(limits: Limits, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { limits, counters, open: Mutex::default() })
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
            connections: Vec::new(),
            seats: BTreeMap::new(),
            share: Arc::new(Semaphore::new(self.limits.intake_bytes_per_client)),
        });
        let (answers, receiver) = mpsc::channel(self.limits.answers_queued);
        let bytes = Arc::<AtomicUsize>::default();
        let sessions = Mutex::default();
        let queue = Arc::new(Queue { id, answers, bytes: Arc::clone(&bytes), sessions });
        entry.connections.push(Arc::clone(&queue));
        let share = Arc::clone(&entry.share);
        let evicted = CancellationToken::new();
        entry.seats.insert(id, evicted.clone());
        open.id += 1;
        open.seats += 1;
        let admission = Admission { clients: Arc::clone(self), client, queue, share };
        let seat = Seat { clients: Arc::clone(self), client, id, evicted };
        Ok((admission, Answers { answers: receiver, bytes }, seat))
    }

    /// Queues an answer on every connection of the client that used the session, or on all of
    /// them where none is named.
    pub(crate) fn answer(&self, client: &ClientId, session: Option<SessionId>, message: ToClient) {
        let receivers: Vec<Arc<Queue>> = {
            let open = self.open();
            let connections = open.clients.get(client).map(|entry| entry.connections.iter());
            let used = |queue: &&Arc<Queue>| session.is_none_or(|session| queue.used(session));
            connections.into_iter().flatten().filter(used).cloned().collect()
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
        let weight = weight::answer(&message);
        let queued = queue.bytes.fetch_add(weight, Ordering::Relaxed);
        let has_room = queued + weight <= self.limits.answer_bytes_queued;
        if !has_room || queue.answers.try_send(message).is_err() {
            queue.bytes.fetch_sub(weight, Ordering::Relaxed);
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

impl Queue {
    fn sessions(&self) -> MutexGuard<'_, VecDeque<SessionId>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self, session: SessionId) -> bool {
        self.sessions().contains(&session)
    }
}

impl Admission {
    /// The connection has used this session: answers for it go there from now on.
    pub(crate) fn uses(&self, session: SessionId) {
        let mut sessions = self.queue.sessions();
        if sessions.back() == Some(&session) {
            return;
        }
        sessions.retain(|known| *known != session);
        sessions.push_back(session);
        if sessions.len() > self.clients.limits.sessions_per_connection {
            sessions.pop_front();
        }
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
            entry.connections.retain(|queue| queue.id != self.queue.id);
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
}
