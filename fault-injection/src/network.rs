//! What happens to bytes between two parties.
//!
//! Each link loses, doubles and delays by chances of its own; a link between two parties that are
//! cut off from each other loses everything. Nothing here looks into a message except for the
//! filters of a scripted trace, which know its kind.

use std::collections::{BTreeMap, BTreeSet};

use elea_protocol::id::ReplicaId;

use crate::rng::Rng;

/// A machine with a replica on it. The first machine of each replica has the number of its id; the
/// second one of a replica that has two, its twin, has a number above those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine(pub u8);

impl Machine {
    /// It, as a sender or receiver.
    #[must_use]
    pub fn party(self) -> Party {
        Party::Replica(self.0)
    }

    /// Its place among all machines.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl From<ReplicaId> for Machine {
    /// Its first one.
    fn from(id: ReplicaId) -> Self {
        Self(id.0)
    }
}

/// Who sends or receives: a replica by its [`Machine`], or one of the client processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A replica, by the number of its machine.
    Replica(u8),
    /// A client process.
    Client(u16),
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replica(id) => write!(f, "r{id}"),
            Self::Client(index) => write!(f, "c{index}"),
        }
    }
}

/// How a link behaves. Times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The least a message takes.
    pub delay: u64,
    /// What comes on top, anything from 0 to this. A jitter above the time between two messages
    /// reorders them.
    pub jitter: u64,
    /// Messages lost in a thousand.
    pub loss: u32,
    /// Messages delivered twice in a thousand.
    pub duplication: u32,
    /// How many bytes pass in a millisecond, one message after the other; 0 for any number.
    pub bytes_per_ms: u64,
}

impl Link {
    /// Nothing is lost and everything takes the same time.
    #[must_use]
    pub fn steady(delay: u64) -> Self {
        Self { delay, jitter: 0, loss: 0, duplication: 0, bytes_per_ms: 0 }
    }
}

/// Orders that take longer than all that is measured: as of primaries that are slow to make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// How much longer.
    pub by: u64,
    /// Those that leave before this.
    pub until: u64,
}

/// A filter of a scripted trace: the next `left` messages that match are lost.
#[derive(Clone, Debug)]
pub struct Drop {
    /// The sender, or any.
    pub from: Option<Party>,
    /// The receiver, or any.
    pub to: Option<Party>,
    /// The kind, or any.
    pub kind: Option<String>,
    /// How many more; `None` for all.
    pub left: Option<u64>,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    usual: Link,
    special: BTreeMap<(Party, Party), Link>,
    cut: BTreeSet<(Party, Party)>,
    /// Cut for good: no healing ends it.
    walls: BTreeSet<(Party, Party)>,
    /// Filters, in the order in which they were set.
    pub drops: Vec<Drop>,
    /// By how much every order is late, and until when, for a reason that nothing else meets.
    pub late_orders: Option<Lateness>,
    /// When a link with a rate is free again.
    busy: BTreeMap<(Party, Party), u64>,
    rng: Rng,
    /// For pulses: they go between all other messages, and should not change what becomes of them.
    of_pulses: Rng,
    /// Messages lost so far.
    pub lost: u64,
    /// Messages delivered twice so far.
    pub doubled: u64,
}

impl Network {
    /// A network in which every link is `usual`.
    #[must_use]
    pub fn new(usual: Link, rng: Rng) -> Self {
        let of_pulses = rng.clone().fork();
        Self {
            usual,
            special: BTreeMap::new(),
            cut: BTreeSet::new(),
            walls: BTreeSet::new(),
            drops: Vec::new(),
            late_orders: None,
            busy: BTreeMap::new(),
            rng,
            of_pulses,
            lost: 0,
            doubled: 0,
        }
    }

    /// Gives one direction of a link a behaviour of its own.
    pub fn set(&mut self, from: Party, to: Party, link: Link) {
        self.special.insert((from, to), link);
    }

    /// Cuts both directions between two parties.
    pub fn cut(&mut self, one: Party, other: Party) {
        self.cut.insert((one, other));
        self.cut.insert((other, one));
    }

    /// From now on exactly these directions are cut, beside those that are cut for good.
    pub fn split(&mut self, cuts: &[(Party, Party)]) {
        self.cut = cuts.iter().copied().collect();
    }

    /// Cuts a direction for good.
    pub fn wall(&mut self, from: Party, to: Party) {
        self.walls.insert((from, to));
    }

    /// Takes back all cuts and filters; the links stay as they are.
    pub fn join(&mut self) {
        self.cut.clear();
        self.drops.clear();
    }

    /// From now on nothing is lost or doubled. Slow links stay slow.
    pub fn heal(&mut self) {
        self.join();
        for link in self.special.values_mut().chain([&mut self.usual]) {
            (link.loss, link.duplication) = (0, 0);
        }
    }

    /// After how long a message of this kind and length, sent at `now`, arrives: not at all, once, or
    /// twice.
    pub fn arrivals(
        &mut self,
        now: u64,
        from: Party,
        to: Party,
        kind: &str,
        bytes: usize,
    ) -> Vec<u64> {
        let link = self.special.get(&(from, to)).copied().unwrap_or(self.usual);
        let mut arrivals = self.delays(link, from, to, kind);
        if let Some(late) = self.late_orders.filter(|late| kind == "order" && now < late.until) {
            arrivals.iter_mut().for_each(|delay| *delay += late.by);
        }
        if link.bytes_per_ms > 0 && !arrivals.is_empty() {
            let takes = bytes as u64 * 1000 / link.bytes_per_ms;
            let free = self.busy.entry((from, to)).or_default();
            *free = (*free).max(now) + takes;
            let waits = *free - now;
            arrivals.iter_mut().for_each(|delay| *delay += waits);
        }
        arrivals
    }

    fn delays(&mut self, link: Link, from: Party, to: Party, kind: &str) -> Vec<u64> {
        if kind == "pulse" {
            std::mem::swap(&mut self.rng, &mut self.of_pulses);
            let delays = self.draw(link, from, to, kind);
            std::mem::swap(&mut self.rng, &mut self.of_pulses);
            return delays;
        }
        self.draw(link, from, to, kind)
    }

    fn draw(&mut self, link: Link, from: Party, to: Party, kind: &str) -> Vec<u64> {
        // Always the same number of draws, so that a filter does not change the rest of a world.
        let (lost, doubled) = (self.rng.per_mille(link.loss), self.rng.per_mille(link.duplication));
        let (first, second) = (self.rng.between(0, link.jitter), self.rng.between(0, link.jitter));
        let cut = self.cut.contains(&(from, to)) || self.walls.contains(&(from, to));
        if lost || cut || self.filtered(from, to, kind) {
            self.lost += 1;
            return Vec::new();
        }
        if doubled {
            self.doubled += 1;
            return vec![link.delay + first, link.delay + second];
        }
        vec![link.delay + first]
    }

    fn filtered(&mut self, from: Party, to: Party, kind: &str) -> bool {
        let matching = self.drops.iter_mut().find(|drop| {
            drop.left != Some(0)
                && drop.from.is_none_or(|party| party == from)
                && drop.to.is_none_or(|party| party == to)
                && drop.kind.as_deref().is_none_or(|wanted| wanted == kind)
        });
        if let Some(drop) = matching {
            drop.left = drop.left.map(|left| left - 1);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_as_many_as_it_was_told() {
        let mut network = Network::new(Link::steady(5), Rng::new(1));
        let (a, b) = (Party::Replica(0), Party::Replica(1));
        network.drops.push(Drop {
            from: Some(a),
            to: None,
            kind: Some("order".into()),
            left: Some(1),
        });
        assert_eq!(network.arrivals(0, a, b, "commit", 100), [5]);
        assert!(network.arrivals(0, a, b, "order", 100).is_empty());
        assert_eq!(network.arrivals(0, a, b, "order", 100), [5]);
        network.cut(a, b);
        assert!(network.arrivals(0, b, a, "commit", 100).is_empty());
        network.heal();
        assert_eq!(network.arrivals(0, b, a, "commit", 100), [5]);
    }

    #[test]
    fn a_split_has_directions_and_a_wall_outlives_healing() {
        let mut network = Network::new(Link::steady(5), Rng::new(1));
        let (a, b) = (Party::Replica(0), Party::Replica(1));
        network.split(&[(a, b)]);
        assert!(network.arrivals(0, a, b, "commit", 100).is_empty());
        assert_eq!(network.arrivals(0, b, a, "commit", 100), [5]);
        network.split(&[(b, a)]);
        assert_eq!(network.arrivals(0, a, b, "commit", 100), [5]);
        network.wall(a, b);
        network.heal();
        assert!(network.arrivals(0, a, b, "commit", 100).is_empty());
        assert_eq!(network.arrivals(0, b, a, "commit", 100), [5]);
    }

    #[test]
    fn a_slow_line_takes_one_message_after_the_other() {
        let link = Link { bytes_per_ms: 10, ..Link::steady(5) };
        let mut network = Network::new(link, Rng::new(1));
        let (a, b) = (Party::Replica(0), Party::Replica(1));
        assert_eq!(network.arrivals(0, a, b, "slots", 100), [10_005]);
        assert_eq!(network.arrivals(4_000, a, b, "pulse", 10), [7_005]);
        assert_eq!(network.arrivals(4_000, b, a, "pulse", 10), [1_005]);
        assert_eq!(network.arrivals(50_000, a, b, "slots", 100), [10_005]);
    }
}
