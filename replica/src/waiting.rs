//! Connections that have not yet proved who they are, and which of them make room.
//!
//! Whoever dials has time for two small frames, and for a handshake where the first one is good. The number of such connections
//! is bounded, and somebody without a key can fill any bound. So those without a key must not be able to
//! cost those with one their place. Being quick does not help: whoever is far away needs a
//! round trip to answer, and in that time a flood may bring any number of newer connections.
//!
//! Therefore whoever has a key *knocks*: a signed word that needs no challenge, and so arrives together
//! with the connection itself. There are three kinds of places:
//!
//! | who | places | who makes room |
//! |---|---|---|
//! | strangers: nobody that could be told from others | as many as the descriptors allow | the oldest from the address with the most |
//! | a peer that knocked | [`PEER_PLACES`] for each | its own oldest, from the address with the most |
//! | a client that knocked | a quarter of as many as strangers have, for each | as above; where those of all clients are used up, that of the client with the most |
//!
//! So a connection is a stranger's for as long as it takes to read what came with it, wherever its owner
//! is, and however many others come: only that many new ones that are accepted within *that* moment can
//! push it out. A knock lets nobody in; that is for the hello alone, which signs the challenge.
//! Whoever once saw a knock may say it again: it gets one of the places of that one owner, and pushes out
//! none that came from elsewhere as long as its own address has more. In an open cluster every key is as
//! good as none, and a client that knocks there remains a stranger.
//!
//! A connection that is turned away keeps its place until it is closed, so that those to whom a last word
//! is said are counted as well.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use elea_protocol::message::Origin;
use tokio_util::sync::CancellationToken;

use crate::counters::{Counter, Counters};

/// Connections of one peer that have knocked and not yet proved who they are. A peer has one under way,
/// or a few where this replica's name has several addresses, and may have given up as many that are not closed here
/// yet.
pub(crate) const PEER_PLACES: usize = 4;

/// A connection that has not yet proved who it is.
struct Place {
    from: IpAddr,
    /// Cancelled when it has to make room.
    evicted: CancellationToken,
}

/// Connections of one kind, oldest first.
#[derive(Default)]
struct Places(BTreeMap<u64, Place>);

impl Places {
    /// Closes the oldest of those from the address with the most.
    fn make_room(&mut self) {
        let mut counts = HashMap::<IpAddr, usize>::new();
        for place in self.0.values() {
            *counts.entry(place.from).or_default() += 1;
        }
        let most = counts.values().copied().max();
        let oldest = self.0.iter().find(|(_, place)| counts.get(&place.from).copied() == most);
        if let Some((id, place)) = oldest.map(|(id, place)| (*id, place)) {
            place.evicted.cancel();
            self.0.remove(&id);
        }
    }
}

/// The connections that have not yet proved who they are.
pub(crate) struct Waiting {
    max: usize,
    counters: Arc<Counters>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    strangers: Places,
    /// Those that knocked, by who they say they are.
    known: BTreeMap<Origin, Places>,
}

/// One of them. Dropping it makes room.
pub(crate) struct Turn {
    waiting: Arc<Waiting>,
    id: u64,
    knocked: Option<Origin>,
    /// Cancelled when it has to make room.
    pub(crate) evicted: CancellationToken,
}

impl Open {
    /// The client with the most connections that knocked, where clients have so many in all.
    fn crowded(&self, max: usize) -> Option<Origin> {
        let clients = self.known.iter().filter(|(origin, _)| matches!(origin, Origin::Client(_)));
        let all: usize = clients.clone().map(|(_, places)| places.0.len()).sum();
        let most = clients.max_by_key(|(_, places)| places.0.len())?;
        (all >= max).then_some(*most.0)
    }
}

impl Waiting {
    /// Takes in `max` strangers at a time, and as many clients that knocked.
    pub(crate) fn new(max: usize, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { max, counters, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_eviction(&self, of: &str) {
        let what = format_args!("too many connections {of} do not prove who they are; closing one");
        self.counters.warn(Counter::HandshakeEvicted, what);
    }

    /// Takes in a new one, at the cost of an older one.
    pub(crate) fn enter(self: &Arc<Self>, from: IpAddr) -> Turn {
        let evicted = CancellationToken::new();
        let mut open = self.open();
        let id = open.next;
        open.next += 1;
        if open.strangers.0.len() >= self.max {
            open.strangers.make_room();
            self.tell_eviction("of strangers");
        }
        open.strangers.0.insert(id, Place { from, evicted: evicted.clone() });
        Turn { waiting: Arc::clone(self), id, knocked: None, evicted }
    }

    /// Closes one stranger's connection, since the system has no more descriptors.
    pub(crate) fn make_room(&self) {
        self.open().strangers.make_room();
    }
}

impl Turn {
    /// From now on it has one of the places of this owner.
    pub(crate) fn knock(&mut self, origin: Origin) {
        let waiting = Arc::clone(&self.waiting);
        let mut open = waiting.open();
        let Some(place) = open.strangers.0.remove(&self.id) else { return };
        let (most, crowded) = match origin {
            Origin::Replica(_) => (PEER_PLACES, None),
            Origin::Client(_) => ((waiting.max / 4).max(1), open.crowded(waiting.max)),
        };
        if let Some(places) = crowded.and_then(|crowded| open.known.get_mut(&crowded)) {
            places.make_room();
            waiting.tell_eviction("of clients");
        }
        let places = open.known.entry(origin).or_default();
        if places.0.len() >= most {
            places.make_room();
            waiting.tell_eviction("of one owner");
        }
        places.0.insert(self.id, place);
        self.knocked = Some(origin);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut open = self.waiting.open();
        match self.knocked {
            None => drop(open.strangers.0.remove(&self.id)),
            Some(origin) => {
                let places = open.known.entry(origin).or_default();
                places.0.remove(&self.id);
                if places.0.is_empty() {
                    open.known.remove(&origin);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{ClientId, ReplicaId};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const PEER: Origin = Origin::Replica(ReplicaId(1));

    fn waiting(max: usize) -> Arc<Waiting> {
        Waiting::new(max, Arc::default())
    }

    fn client(n: u8) -> Origin {
        Origin::Client(ClientId([n; 32]))
    }

    fn knocked(waiting: &Arc<Waiting>, from: IpAddr, origin: Origin) -> Turn {
        let mut turn = waiting.enter(from);
        turn.knock(origin);
        turn
    }

    fn evicted(turns: &[Turn]) -> Vec<bool> {
        turns.iter().map(|turn| turn.evicted.is_cancelled()).collect()
    }

    #[test]
    fn no_number_of_strangers_costs_one_that_knocked_its_place() {
        let waiting = waiting(4);
        let known = [knocked(&waiting, HERE, PEER), knocked(&waiting, HERE, client(1))];
        let strangers: Vec<Turn> = (0..100).map(|_| waiting.enter(HERE)).collect();
        assert_eq!(evicted(&known), [false, false]);
        assert_eq!(strangers.iter().filter(|turn| !turn.evicted.is_cancelled()).count(), 4);
    }

    #[test]
    fn the_oldest_of_the_address_with_the_most_makes_room() {
        let waiting = waiting(3);
        let turns: Vec<Turn> = [THERE, HERE, HERE].map(|from| waiting.enter(from)).into();
        let _newer = waiting.enter(HERE);
        assert_eq!(evicted(&turns), [false, true, false]);
    }

    #[test]
    fn an_owner_has_places_of_its_own_and_a_repeated_knock_costs_none_from_elsewhere() {
        let waiting = waiting(8);
        let peer = knocked(&waiting, THERE, PEER);
        let others = [knocked(&waiting, HERE, client(1)), knocked(&waiting, HERE, client(2))];
        let echoes: Vec<Turn> = (0..20).map(|_| knocked(&waiting, HERE, PEER)).collect();
        assert!(!peer.evicted.is_cancelled());
        assert_eq!(evicted(&others), [false, false]);
        let left = echoes.iter().filter(|turn| !turn.evicted.is_cancelled()).count();
        assert_eq!(left + 1, PEER_PLACES);
        // Two places for each client, as many as strangers have for all.
        let one = [0; 3].map(|_| knocked(&waiting, HERE, client(3)));
        assert_eq!(evicted(&one), [true, false, false]);
        let more: Vec<Turn> = (4..10).map(|n| knocked(&waiting, HERE, client(n))).collect();
        assert_eq!(evicted(&one), [true, true, false]);
        drop((one, more, others, echoes, peer));
        assert!(waiting.open().known.is_empty() && waiting.open().strangers.0.is_empty());
    }
}
