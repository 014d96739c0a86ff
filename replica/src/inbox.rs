//! What waits for the core: one lane for the disk, one for questions how the replica is, one for each
//! peer, one for all clients.
//!
//! Peers come before clients and take turns with each other, so neither a flood of requests nor one
//! talkative peer keeps the others from being heard. Every lane is bounded in bytes, by permits that
//! an event carries until the core has taken it: a peer's connection waits for a permit, and with
//! it, by TCP, the peer; a client without one is told `Busy`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use elea_protocol::id::ReplicaId;
use elea_protocol::replica::{Event, Mark};
use elea_protocol::rows::{RowsView, Unreadable};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many requests are handed to the core at a time: after them it looks at its peers again.
const CLIENT_GROUP: usize = 64;

/// The same of peers' messages, of all peers together, before it looks at its deadline again.
const PEER_GROUP: usize = 256;

/// Questions how the replica is that may wait. They are answered whatever the disk does.
const QUESTIONS: usize = 256;

/// Room for an event, given back when the core has handled it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Room {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

/// An event with the room it takes.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) event: Event,
    _room: Option<Room>,
}

/// Why [`Inbox::take`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// With events, or because the time had come.
    Running,
    /// There is nothing more to do: the replica stops.
    Closed,
}

#[derive(Default)]
struct Lanes {
    synced: Option<Mark>,
    rows: Vec<(Mark, RowsView)>,
    unreadable: Option<Unreadable>,
    questions: VecDeque<Event>,
    peers: Vec<VecDeque<Queued>>,
    clients: VecDeque<Queued>,
    /// The peer whose turn it is.
    turn: usize,
    closed: bool,
    /// The core sleeps: only then is it worth a system call to wake it.
    asleep: bool,
}

/// The queue before the core.
pub(crate) struct Inbox {
    lanes: Mutex<Lanes>,
    wake: Condvar,
    peer_room: Vec<Arc<Semaphore>>,
    client_room: Arc<Semaphore>,
}

impl Inbox {
    pub(crate) fn new(peers: u8, peer_bytes: usize, client_bytes: usize) -> Self {
        let lanes =
            Lanes { peers: (0..peers).map(|_| VecDeque::new()).collect(), ..Lanes::default() };
        Self {
            lanes: Mutex::new(lanes),
            wake: Condvar::new(),
            peer_room: (0..peers).map(|_| Arc::new(Semaphore::new(peer_bytes))).collect(),
            client_room: Arc::new(Semaphore::new(client_bytes)),
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
        let asleep = std::mem::take(&mut lanes.asleep);
        drop(lanes);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Waits until this peer's lane has room. `None` when the replica stops.
    pub(crate) async fn peer_room(&self, from: ReplicaId, bytes: usize) -> Option<Room> {
        let lane = Arc::clone(self.peer_room.get(usize::from(from.0))?);
        let permit = lane.acquire_many_owned(narrow(bytes)).await.ok()?;
        Some(Room { _permits: [Some(permit), None] })
    }

    /// Room for a client's event, from its own share and from all clients'; `None` where either
    /// is used up.
    pub(crate) fn client_room(&self, share: &Arc<Semaphore>, bytes: usize) -> Option<Room> {
        let own = Arc::clone(share).try_acquire_many_owned(narrow(bytes)).ok()?;
        let all = Arc::clone(&self.client_room).try_acquire_many_owned(narrow(bytes)).ok()?;
        Some(Room { _permits: [Some(own), Some(all)] })
    }

    /// Queues a peer's event.
    pub(crate) fn put_peer(&self, from: ReplicaId, event: Event, room: Room) {
        self.put(|lanes| {
            if let Some(lane) = lanes.peers.get_mut(usize::from(from.0)) {
                lane.push_back(Queued { event, _room: Some(room) });
            }
        });
    }

    /// Queues a client's event.
    pub(crate) fn put_client(&self, event: Event, room: Room) {
        self.put(|lanes| lanes.clients.push_back(Queued { event, _room: Some(room) }));
    }

    /// Tells the core how far the disk is, of which only the newest mark counts, and the rows of
    /// states that are complete by now.
    pub(crate) fn synced(&self, mark: Mark, rows: Vec<(Mark, RowsView)>) {
        self.put(|lanes| {
            lanes.rows.extend(rows);
            lanes.synced = lanes.synced.max(Some(mark));
        });
    }

    /// Tells the core that the stored state is damaged.
    pub(crate) fn unreadable(&self, why: Unreadable) {
        self.put(|lanes| lanes.unreadable = Some(why));
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
        is_taken
    }

    /// Ends the core's thread after the group it is at; whoever waits for room stops waiting.
    pub(crate) fn close(&self) {
        self.put(|lanes| lanes.closed = true);
        self.peer_room.iter().for_each(|room| room.close());
        self.client_room.close();
    }

    /// Takes a group of events into `group`, or waits for one until `deadline`. While the disk is
    /// behind (`intake` is false) only its own word is taken, and questions how the replica is.
    pub(crate) fn take(
        &self,
        deadline: Option<Instant>,
        intake: bool,
        group: &mut Vec<Queued>,
    ) -> Woken {
        let mut lanes = self.lanes();
        loop {
            if lanes.closed {
                return Woken::Closed;
            }
            lanes.drain(intake, group);
            if !group.is_empty() {
                return Woken::Running;
            }
            lanes.asleep = true;
            lanes = match deadline {
                None => self.wake.wait(lanes).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        lanes.asleep = false;
                        return Woken::Running;
                    }
                    let waited = self.wake.wait_timeout(lanes, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            lanes.asleep = false;
        }
    }
}

impl Lanes {
    fn drain(&mut self, intake: bool, group: &mut Vec<Queued>) {
        let rows = self.rows.drain(..).map(|(mark, rows)| Event::Rows(mark, rows));
        group.extend(rows.map(|event| Queued { event, _room: None }));
        if let Some(mark) = self.synced.take() {
            group.push(Queued { event: Event::Synced(mark), _room: None });
        }
        let unreadable = self.unreadable.take().map(Event::Unreadable);
        let others = unreadable.into_iter().chain(self.questions.drain(..));
        group.extend(others.map(|event| Queued { event, _room: None }));
        if !intake {
            return;
        }
        let count = self.peers.len();
        let mut empty_in_a_row = 0;
        let mut taken = 0;
        while empty_in_a_row < count && taken < PEER_GROUP {
            match self.peers.get_mut(self.turn).and_then(VecDeque::pop_front) {
                Some(queued) => {
                    group.push(queued);
                    taken += 1;
                    empty_in_a_row = 0;
                }
                None => empty_in_a_row += 1,
            }
            self.turn = (self.turn + 1) % count;
        }
        let requests = self.clients.len().min(CLIENT_GROUP);
        group.extend(self.clients.drain(..requests));
    }
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{ClientId, SessionId};

    use super::*;

    fn ask(session: u64) -> Event {
        Event::AskSession { client: ClientId([0; 32]), session: SessionId(session) }
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

    fn room(inbox: &Inbox, share: &Arc<Semaphore>) -> Room {
        inbox.client_room(share, 1).expect("room")
    }

    #[test]
    fn the_disk_comes_first_then_peers_in_turn_then_clients() {
        let inbox = Inbox::new(2, 100, 100);
        let share = Arc::new(Semaphore::new(100));
        inbox.put_client(ask(20), room(&inbox, &share));
        for n in 0..3 {
            inbox.put_peer(ReplicaId(0), ask(n), room(&inbox, &share));
        }
        inbox.put_peer(ReplicaId(1), ask(10), room(&inbox, &share));
        inbox.synced(Mark(5), Vec::new());
        inbox.synced(Mark(4), Vec::new());
        let mut group = Vec::new();
        assert_eq!(inbox.take(None, true, &mut group), Woken::Running);
        assert_eq!(sessions(&group), [1_000_005, 0, 10, 1, 2, 20]);
    }

    #[test]
    fn while_the_disk_is_behind_only_its_word_is_taken() {
        let inbox = Inbox::new(1, 100, 100);
        let share = Arc::new(Semaphore::new(100));
        inbox.put_client(ask(1), room(&inbox, &share));
        let mut group = Vec::new();
        let passed = Some(Instant::now());
        assert_eq!(inbox.take(passed, false, &mut group), Woken::Running);
        assert!(group.is_empty());
        inbox.synced(Mark(1), Vec::new());
        inbox.take(passed, false, &mut group);
        assert_eq!(sessions(&group), [1_000_001]);
    }

    #[test]
    fn a_client_beyond_its_share_finds_no_room_until_the_core_has_taken_its_events() {
        let inbox = Inbox::new(1, 100, 15);
        let (one, other) = (Arc::new(Semaphore::new(10)), Arc::new(Semaphore::new(10)));
        inbox.put_client(ask(1), inbox.client_room(&one, 10).expect("room"));
        assert!(inbox.client_room(&one, 1).is_none(), "its own share is used up");
        assert!(inbox.client_room(&other, 6).is_none(), "everybody's room is used up");
        assert_eq!(other.available_permits(), 10, "a failed try takes nothing");
        assert!(inbox.client_room(&other, 5).is_some());
        let mut group = Vec::new();
        inbox.take(None, true, &mut group);
        group.clear();
        assert!(inbox.client_room(&one, 10).is_some());
    }

    #[test]
    fn closing_wakes_the_core_and_everybody_who_waits_for_room() {
        let inbox = Arc::new(Inbox::new(1, 1, 1));
        let core = {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || inbox.take(None, true, &mut Vec::new()))
        };
        inbox.close();
        assert_eq!(core.join().expect("no panic"), Woken::Closed);
        let waiting = futures::executor::block_on(inbox.peer_room(ReplicaId(0), 1));
        assert!(waiting.is_none());
    }
}
