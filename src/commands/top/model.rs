//! How a cluster is, from a sequence of what its replicas say: pure, so that any sequence can be told to it.
//!
//! What a replica says is believed as far as that replica is: it can misplace itself, and nobody else. Rates and views are
//! such that one of `f + 1` says them, so that no liar makes them up. What is proven was checked before it comes here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use elea_protocol::id::{ReplicaId, View, hex};
use elea_protocol::membership::Membership;
use elea_protocol::message::{DiskHealth, NodeStatus, Standing};
use elea_protocol::quorum::{ClusterSize, Strength};

use super::histories::{Change, Histories, Shown, alike};
use super::picture::{self, Kind, Line, Picture};
use super::trail::Trail;
use crate::commands::evidence::{Charge, names};
use crate::commands::status::{Row, standing};

/// So much of what happened is remembered, of all kinds together.
const LINES_MAX: usize = 200;

/// So many rates are.
const RATES_MAX: usize = 120;

/// Over so long a rate is taken, since what is counted comes in batches.
const RATE_OVER: Duration = Duration::from_secs(2);

/// When something was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Since the first look.
    pub since: Duration,
    /// Milliseconds of the wall clock.
    pub wall: u64,
}

/// What is known of a replica.
#[derive(Debug)]
struct Known {
    address: String,
    /// What it said last.
    said: NodeStatus,
    trail: Trail,
    why_not: Option<String>,
    /// How many requests it had executed, at some moments.
    executed: VecDeque<(Duration, u64)>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Model {
    cluster: String,
    size: ClusterSize,
    known: BTreeMap<ReplicaId, Known>,
    /// Of those that never answered: where they should be, and why they did not.
    unheard: BTreeMap<ReplicaId, (String, String)>,
    histories: Histories,
    charges: BTreeMap<Charge, Vec<ReplicaId>>,
    log: VecDeque<Line>,
    rates: VecDeque<f64>,
    merges: u64,
    views: u64,
    highest: View,
    /// When it was looked last; never at first.
    now: Option<Moment>,
}

impl Model {
    /// Of a cluster of which nothing was heard yet.
    pub fn new(membership: &Membership) -> Self {
        Self {
            cluster: membership.name().to_owned(),
            size: membership.size(),
            known: BTreeMap::new(),
            unheard: BTreeMap::new(),
            histories: Histories::default(),
            charges: BTreeMap::new(),
            log: VecDeque::new(),
            rates: VecDeque::new(),
            merges: 0,
            views: 0,
            highest: View(0),
            now: None,
        }
    }

    /// All replicas were asked, and said this.
    pub fn look(&mut self, now: Moment, rows: &[Row]) {
        let is_first = self.now.replace(now).is_none();
        let mut entered = BTreeMap::<View, Vec<ReplicaId>>::new();
        for row in rows {
            let before = self.known.get(&row.id).map(|known| known.said.view);
            self.hear(row);
            let after = self.known.get(&row.id).map(|known| known.said.view);
            if let (Some(before), Some(after)) = (before, after)
                && before != after
            {
                entered.entry(after).or_default().push(row.id);
            }
        }
        self.tell_views(&entered);
        self.count_views(is_first);
        self.tell_histories();
        self.measure();
    }

    /// What is proven, with those who hold the proofs.
    pub fn convict(&mut self, charges: BTreeMap<Charge, Vec<ReplicaId>>) {
        for (charge, holders) in &charges {
            if !self.charges.contains_key(charge) {
                self.tell(Kind::Evidence, charge_words(charge, holders));
            }
        }
        // Who does not answer now held them before.
        self.charges.extend(charges);
    }

    /// How many proofs replicas say that they hold, as far as they answer.
    pub fn claimed_proofs(&self) -> BTreeMap<ReplicaId, u64> {
        self.here().map(|(id, known)| (id, known.said.evidence)).collect()
    }

    fn here(&self) -> impl Iterator<Item = (ReplicaId, &Known)> {
        let here = self.known.iter().filter(|(_, known)| known.why_not.is_none());
        here.map(|(id, known)| (*id, known))
    }

    fn tell(&mut self, kind: Kind, text: String) {
        self.log.push_back(Line { at: self.wall(), kind, text });
        if self.log.len() > LINES_MAX {
            self.forget();
        }
    }

    /// Forgets the oldest line of the kind that there is most of: a replica that changes all the time shows that, and
    /// hides nothing else.
    fn forget(&mut self) {
        let mut kinds = BTreeMap::<Kind, usize>::new();
        for line in &self.log {
            *kinds.entry(line.kind).or_default() += 1;
        }
        let most = kinds.into_iter().max_by_key(|(_, lines)| *lines).map(|(kind, _)| kind);
        if let Some(at) = self.log.iter().position(|line| Some(line.kind) == most) {
            self.log.remove(at);
        }
    }

    fn hear(&mut self, row: &Row) {
        let id = row.id;
        match (&row.said, self.known.get_mut(&id)) {
            (Ok(said), Some(known)) => {
                let was_away = known.why_not.take().is_some();
                let (before, after) = (standing(&known.said), standing(said));
                known.trail.follow(said);
                known.said = said.clone();
                if was_away {
                    self.tell(Kind::Replica, format!("{id} answers again"));
                }
                if before != after {
                    self.tell(Kind::Replica, format!("{id} is {after} now, and was {before}"));
                }
            }
            (Ok(said), None) => {
                let known = Known {
                    address: row.address.clone(),
                    said: said.clone(),
                    trail: Trail::new(id, said),
                    why_not: None,
                    executed: VecDeque::new(),
                };
                self.known.insert(id, known);
                if self.unheard.remove(&id).is_some() {
                    self.tell(Kind::Replica, format!("{id} answers"));
                }
            }
            (Err(why), Some(known)) => {
                let was_here = known.why_not.replace(why.clone()).is_none();
                // Where it goes on after a start nothing was executed yet.
                known.executed.clear();
                if was_here {
                    self.tell(Kind::Replica, format!("{id} does not answer: {why}"));
                }
            }
            (Err(why), None) => {
                let is_new = self.unheard.insert(id, (row.address.clone(), why.clone())).is_none();
                if is_new {
                    self.tell(Kind::Replica, format!("{id} does not answer: {why}"));
                }
            }
        }
    }

    /// Views that replicas have entered since the last look.
    fn tell_views(&mut self, entered: &BTreeMap<View, Vec<ReplicaId>>) {
        for (view, ids) in entered {
            let primary = view.primary(self.size.replicas());
            let text =
                format!("{} entered view {}, with the primary {primary}", names(ids), view.0);
            self.tell(Kind::View, text);
        }
    }

    /// A view has begun where `f + 1` are in it or beyond: then one of them is no liar.
    fn count_views(&mut self, is_first: bool) {
        let mut views: Vec<View> = self.here().map(|(_, known)| known.said.view).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        let Some(begun) = views.get(self.size.quorum(Strength::Weak) - 1) else { return };
        if *begun > self.highest && !is_first {
            self.views += 1;
        }
        self.highest = self.highest.max(*begun);
    }

    fn since(&self) -> Duration {
        self.now.unwrap_or_default().since
    }

    fn wall(&self) -> u64 {
        self.now.unwrap_or_default().wall
    }

    fn shown(&self) -> Vec<Shown<'_>> {
        let all = self.known.iter();
        all.map(|(id, known)| Shown {
            id: *id,
            trail: &known.trail,
            is_here: known.why_not.is_none(),
        })
        .collect()
    }

    fn tell_histories(&mut self) {
        let mut histories = std::mem::take(&mut self.histories);
        let changes = histories.look(self.since(), &self.shown());
        self.histories = histories;
        for change in changes {
            match change {
                Change::Parted { these, those, after } => self.tell(
                    Kind::Split,
                    format!(
                        "{} and {} have parted, after slot {after} or later",
                        all(&these),
                        all(&those)
                    ),
                ),
                Change::Merged { these, those, after } => {
                    self.merges += 1;
                    let (these, those) = (all(&these), all(&those));
                    self.tell(
                        Kind::Merge,
                        format!(
                            "{these} and {those} have one history again; parted after slot {after} or later"
                        ),
                    );
                }
            }
        }
    }

    /// Notes how much was executed, and how fast that goes.
    fn measure(&mut self) {
        let now = self.since();
        let mut rates = Vec::new();
        for known in self.known.values_mut().filter(|known| known.why_not.is_none()) {
            let counters = &known.said.counters;
            let executed = counters.iter().find(|(name, _)| name == "executed_requests");
            let executed = executed.map_or(0, |(_, count)| *count);
            // It was started anew.
            if known.executed.back().is_some_and(|(_, before)| *before > executed) {
                known.executed.clear();
            }
            known.executed.push_back((now, executed));
            while known.executed.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= RATE_OVER)
            {
                known.executed.pop_front();
            }
            if let Some((at, before)) = known.executed.front()
                && now > *at
            {
                rates.push(count(executed - before) / now.saturating_sub(*at).as_secs_f64());
            }
        }
        rates.sort_by(|a, b| b.total_cmp(a));
        if let Some(rate) = rates.get(self.size.quorum(Strength::Weak) - 1).or(rates.last()) {
            self.rates.push_back(*rate);
            while self.rates.len() > RATES_MAX {
                self.rates.pop_front();
            }
        }
    }

    /// How it is now.
    pub fn picture(&self) -> Picture {
        let here: BTreeSet<ReplicaId> = self.here().map(|(id, _)| id).collect();
        let is_shown = |members: &&BTreeSet<ReplicaId>| !members.is_disjoint(&here);
        let histories = self.histories.iter().map(|(_, members)| members).filter(is_shown).count();
        Picture {
            cluster: self.cluster.clone(),
            at: self.wall(),
            faulty: self.size.faulty(),
            weak: self.size.quorum(Strength::Weak),
            strong: self.size.quorum(Strength::Strong),
            histories,
            merges: self.merges,
            views: self.views,
            tolerance: self.tolerance(),
            rates: self.rates.iter().copied().collect(),
            axis: self.axis(),
            replicas: self.size.members().map(|id| self.replica(id)).collect(),
            charges: self.charges.iter().map(|(charge, by)| proven(charge, by)).collect(),
            log: self.log.iter().cloned().collect(),
        }
    }

    /// How many voters of one history are more than a strong quorum.
    fn tolerance(&self) -> i64 {
        let votes = |id: &ReplicaId| {
            let known = self.known.get(id).filter(|known| known.why_not.is_none());
            known.is_some_and(|Known { said, .. }| {
                said.standing == Standing::Voter
                    && !said.quarantined
                    && said.disk == DiskHealth::Sound
            })
        };
        let together =
            self.histories.iter().map(|(_, members)| members.iter().filter(|id| votes(id)).count());
        let most = together.max().unwrap_or_default();
        let strong = self.size.quorum(Strength::Strong);
        most as i64 - strong as i64
    }

    /// From where who is furthest behind is certain of its history, with a margin, to the furthest head; as far as `f + 1`
    /// are there or beyond, so that no liar makes everybody else's lane a point. What is beyond is cut off.
    fn axis(&self) -> (u64, u64) {
        let sorted = |slot: fn(&NodeStatus) -> u64| {
            let mut slots: Vec<u64> = self.here().map(|(_, known)| slot(&known.said)).collect();
            slots.sort_unstable();
            slots
        };
        let weak = self.size.quorum(Strength::Weak);
        let lowest = |slots: &[u64]| slots.iter().take(weak).next_back().copied().unwrap_or(0);
        let heads = sorted(|said| said.head.slot.0);
        let highest = heads.iter().rev().take(weak).next_back().copied().unwrap_or(0);
        // Where few answer, what is the lowest by this may be above the highest.
        let (low, high) = (lowest(&heads).min(highest), lowest(&heads).max(highest));
        let low = low.min(lowest(&sorted(|said| said.stable.0)));
        let margin = ((high - low) / 8).max(8);
        (low.saturating_sub(margin), high.max(1))
    }

    fn replica(&self, id: ReplicaId) -> picture::Replica {
        let is_convicted = self.charges.keys().any(|charge| charge.culprit == id);
        let Some(known) = self.known.get(&id) else {
            let (address, why) = self.unheard.get(&id).cloned().unwrap_or_default();
            return picture::Replica {
                id: id.0,
                address,
                why_not: Some(why),
                said: None,
                is_convicted,
            };
        };
        let said = &known.said;
        let lock = said.lock.map_or(0, |(_, at)| at.slot.0);
        let said = picture::Said {
            standing: standing(said),
            view: said.view.0,
            primary: said.primary.0,
            campaign: said.campaign.map(|view| view.0),
            head: said.head.slot.0,
            hash: hex(&said.head.hash.0[..4]),
            lock: lock.max(said.stable.0),
            stable: said.stable.0,
            history: self.histories.of(id).map_or_else(String::new, letter),
            shared: self.shared(id),
            transport: said.transport.name(),
            evidence: said.evidence,
        };
        let (address, why_not) = (known.address.clone(), known.why_not.clone());
        picture::Replica { id: id.0, address, why_not, said: Some(said), is_convicted }
    }

    /// Up to where its history is the same as all others.
    fn shared(&self, id: ReplicaId) -> Option<u64> {
        let own = self.histories.of(id)?;
        let shown = self.shown();
        let (_, members) = self.histories.iter().find(|(name, _)| *name == own)?;
        let others = self.histories.iter().filter(|(name, _)| *name != own);
        others.map(|(_, others)| alike(&shown, members, others).0).min()
    }
}

fn all(ids: &BTreeSet<ReplicaId>) -> String {
    names(&ids.iter().copied().collect::<Vec<_>>())
}

fn charge_words(charge: &Charge, holders: &[ReplicaId]) -> String {
    let Charge { culprit, view, kind } = charge;
    format!("{culprit}: {kind}, in view {}; held by {}", view.0, names(holders))
}

fn proven(charge: &Charge, holders: &[ReplicaId]) -> picture::Charge {
    picture::Charge { culprit: charge.culprit.0, text: charge_words(charge, holders) }
}

/// How a history is called: `A` for the first one.
fn letter(name: usize) -> String {
    let letter =
        u8::try_from(name).ok().filter(|name| *name < 26).map(|name| char::from(b'A' + name));
    letter.map_or_else(|| format!("{name}"), String::from)
}

fn count(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}
