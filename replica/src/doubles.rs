//! Keys that are in use in two places at once.
//!
//! Two processes with one replica's key contradict each other, and two hosts with one client's key
//! retire each other's sessions. Each hello names the process, or the host, that it comes from. One that
//! was heard, then another one, then the first one again: so both lived at the time of the second. A
//! process that was started again never comes back as the one before.
//!
//! Nobody is punished for it: which of the two is the right one, only their owner can know.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use elea_protocol::message::Origin;

use crate::counters::{Counter, Counters};

/// How long it is told of after it was last so.
const TOLD: Duration = Duration::from_secs(60);

/// So many places of one key are remembered.
const PLACES: usize = 8;

/// So many keys, beside those of connections that are open.
const KEYS: usize = 4096;

/// So many are told of.
const TOLD_MAX: usize = 64;

/// Where each key was heard.
pub(crate) struct Doubles {
    counters: Arc<Counters>,
    keys: Mutex<BTreeMap<Origin, Arc<Key>>>,
}

#[derive(Default)]
struct Key {
    /// Where it was heard last.
    last: AtomicU64,
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    /// Where it was heard, the newest last, each place once.
    places: VecDeque<u64>,
    /// When it was last heard in one place after another one.
    doubled: Option<Instant>,
}

/// One connection's key and place.
pub(crate) struct Voice {
    doubles: Arc<Doubles>,
    origin: Origin,
    instance: u64,
    key: Arc<Key>,
}

impl Key {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn is_told(&self) -> bool {
        self.doubled.is_some_and(|at| at.elapsed() < TOLD)
    }
}

impl Doubles {
    pub(crate) fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { counters, keys: Mutex::default() })
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<Origin, Arc<Key>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that has proved whose it is.
    pub(crate) fn voice(self: &Arc<Self>, origin: Origin, instance: u64) -> Voice {
        let mut keys = self.keys();
        if keys.len() >= KEYS && !keys.contains_key(&origin) {
            keys.retain(|_, key| Arc::strong_count(key) > 1 || key.history().is_told());
        }
        let key = Arc::clone(keys.entry(origin).or_default());
        Voice { doubles: Arc::clone(self), origin, instance, key }
    }

    /// Notes that somebody else was told of another process with this replica's own key.
    pub(crate) fn told_of(&self, me: Origin) {
        let key = Arc::clone(self.keys().entry(me).or_default());
        key.history().doubled = Some(Instant::now());
        self.counters.warn(
            Counter::KeyUsedTwice,
            "another process uses this replica's key: stop one of the two, and never run them with two data folders",
        );
    }

    /// The keys that were in use in two places not long ago.
    pub(crate) fn told(&self) -> Vec<Origin> {
        let keys = self.keys();
        let told = keys.iter().filter(|(_, key)| key.history().is_told());
        let mut told: Vec<_> = told.map(|(origin, _)| *origin).collect();
        told.sort_unstable();
        told.truncate(TOLD_MAX);
        told
    }
}

impl Voice {
    /// Something came over this connection that was sent after it had been let in, so whoever sent it
    /// lives.
    pub(crate) fn heard(&self) {
        if self.key.last.load(Ordering::Relaxed) == self.instance {
            return;
        }
        let mut history = self.key.history();
        self.key.last.store(self.instance, Ordering::Relaxed);
        let before = history.places.iter().position(|place| *place == self.instance);
        match before {
            Some(place) => {
                history.places.remove(place);
                history.doubled = Some(Instant::now());
                let why = format_args!(
                    "the key of {} is in use in two places at once: stop one of the two",
                    self.origin
                );
                self.doubles.counters.warn(Counter::KeyUsedTwice, why);
            }
            None if history.places.len() >= PLACES => drop(history.places.pop_front()),
            None => {}
        }
        history.places.push_back(self.instance);
    }

    /// Whether its key is in use in two places.
    pub(crate) fn is_doubled(&self) -> bool {
        self.key.history().is_told()
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{ClientId, ReplicaId};

    use super::*;

    #[test]
    fn a_restart_is_no_double_and_one_that_is_heard_between_two_words_of_another_is() {
        let counters = Arc::<Counters>::default();
        let doubles = Doubles::new(Arc::clone(&counters));
        let origin = Origin::Replica(ReplicaId(2));
        let (first, second) = (doubles.voice(origin, 1), doubles.voice(origin, 2));
        first.heard();
        first.heard();
        second.heard();
        second.heard();
        let third = doubles.voice(origin, 3);
        third.heard();
        assert_eq!(doubles.told(), [], "three processes, one after the other");
        // Connections change, places do not.
        doubles.voice(origin, 2).heard();
        assert_eq!(doubles.told(), [origin]);
        assert!(first.is_doubled());
        assert_eq!(counters.get(Counter::KeyUsedTwice), 1);
    }

    #[test]
    fn keys_of_the_past_are_forgotten_and_those_in_use_are_not() {
        let doubles = Doubles::new(Arc::default());
        let origin = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            Origin::Client(ClientId(id))
        };
        let kept = doubles.voice(origin(0), 1);
        kept.heard();
        for n in 1..2 * KEYS {
            doubles.voice(origin(n), 1).heard();
        }
        assert!(doubles.keys().len() <= KEYS);
        doubles.voice(origin(0), 2).heard();
        kept.heard();
        assert_eq!(doubles.told(), [origin(0)]);
    }
}
