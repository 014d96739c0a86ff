//! Which replicas have one history, and how that changes: histories part, and become one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use elea_protocol::id::{ReplicaId, Slot};

use super::trail::{Relation, Trail};

/// So long two replicas that cannot be compared count as having one history: while a view changes they are in two
/// views for a moment.
const DOUBT: Duration = Duration::from_secs(3);

/// So often a grouping has to be seen, since replicas are not asked at the very same instant and a merge takes its time.
const SEEN: u32 = 2;

/// After so many looks of which no two agree the last one counts: a liar that changes all the time hides nothing.
const UNSETTLED: u32 = 4;

/// Which of the histories at hand, from 0.
pub type Name = usize;

/// A replica and what it has shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    pub id: ReplicaId,
    pub trail: &'a Trail,
    /// Whether it answered just now.
    pub is_here: bool,
}

/// What became of histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These have another history than those, after this slot.
    Parted { these: BTreeSet<ReplicaId>, those: BTreeSet<ReplicaId>, after: Slot },
    /// What these had is one history again with what those have; they had parted after this slot.
    Merged { these: BTreeSet<ReplicaId>, those: BTreeSet<ReplicaId>, after: Slot },
}

/// A history that replicas have.
#[derive(Clone, Debug)]
struct History {
    /// Who has it, or had it when last heard of.
    members: BTreeSet<ReplicaId>,
    /// Where it parted from the one that it was seen to part from.
    parted: Slot,
}

type Grouping = Vec<BTreeSet<ReplicaId>>;

/// Whether two replicas have one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    One,
    Parted,
    Doubt,
}

fn pair(one: ReplicaId, other: ReplicaId) -> (ReplicaId, ReplicaId) {
    (one.min(other), one.max(other))
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Histories {
    known: BTreeMap<Name, History>,
    /// Since when two cannot be compared.
    unclear: BTreeMap<(ReplicaId, ReplicaId), Duration>,
    /// A grouping that is not the one known, how often it was seen in a row, and for how many looks there was another
    /// one than is known.
    coming: Option<(Grouping, u32, u32)>,
}

impl Histories {
    /// Looks at what all have shown by now, and says what has changed.
    pub fn look(&mut self, now: Duration, all: &[Shown<'_>]) -> Vec<Change> {
        let grouping = self.group(now, all);
        if !self.is_settled(&grouping) {
            return Vec::new();
        }
        self.coming = None;
        self.rename(grouping, all)
    }

    /// Which of them a replica has.
    pub fn of(&self, id: ReplicaId) -> Option<Name> {
        let mut all = self.known.iter();
        all.find(|(_, history)| history.members.contains(&id)).map(|(name, _)| *name)
    }

    /// All that somebody has, with who does.
    pub fn iter(&self) -> impl Iterator<Item = (Name, &BTreeSet<ReplicaId>)> {
        self.known.iter().map(|(name, history)| (*name, &history.members))
    }

    /// Puts each replica with others that have its history, those first that have come furthest; and then together whom
    /// nothing but doubt keeps apart.
    fn group(&mut self, now: Duration, all: &[Shown<'_>]) -> Grouping {
        let mut all = all.to_vec();
        all.sort_by_key(|shown| (!shown.is_here, Reverse(shown.trail.reach()), shown.id));
        let mut verdicts = BTreeMap::new();
        for (at, one) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                verdicts.insert(pair(one.id, other.id), self.verdict(now, one, other));
            }
        }
        let verdict = |one: ReplicaId, other: ReplicaId| verdicts[&pair(one, other)];
        let mut groups = Grouping::new();
        for Shown { id, .. } in all {
            let fits = |group: &BTreeSet<ReplicaId>| {
                let mut all = group.iter().map(|other| verdict(id, *other));
                all.clone().all(|verdict| verdict != Verdict::Parted)
                    && all.any(|verdict| verdict == Verdict::One)
            };
            match groups.iter_mut().find(|group| fits(group)) {
                Some(group) => drop(group.insert(id)),
                None => groups.push(BTreeSet::from([id])),
            }
        }
        let mut grouping = Grouping::new();
        for group in groups {
            let have_parted = |other: &BTreeSet<ReplicaId>| {
                let mut all =
                    group.iter().flat_map(|one| other.iter().map(|other| verdict(*one, *other)));
                all.any(|verdict| verdict == Verdict::Parted)
            };
            match grouping.iter_mut().find(|other| !have_parted(other)) {
                Some(other) => other.extend(group),
                None => grouping.push(group),
            }
        }
        grouping.sort();
        grouping
    }

    fn verdict(&mut self, now: Duration, one: &Shown<'_>, other: &Shown<'_>) -> Verdict {
        let pair = pair(one.id, other.id);
        match one.trail.relation(other.trail) {
            Relation::Unclear if one.is_here && other.is_here => {
                let since = *self.unclear.entry(pair).or_insert(now);
                if now.saturating_sub(since) < DOUBT { Verdict::Doubt } else { Verdict::Parted }
            }
            // The last word of who is away does not say what it would say now.
            Relation::Unclear if self.of(one.id) == self.of(other.id) => Verdict::Doubt,
            Relation::Unclear => Verdict::Parted,
            relation => {
                self.unclear.remove(&pair);
                if relation == Relation::One { Verdict::One } else { Verdict::Parted }
            }
        }
    }

    /// Whether it is to be believed that this is how they are grouped now.
    fn is_settled(&mut self, grouping: &Grouping) -> bool {
        if self.known.is_empty() {
            return true;
        }
        let mut known: Grouping = self.iter().map(|(_, members)| members.clone()).collect();
        known.sort();
        if known == *grouping {
            self.coming = None;
            return false;
        }
        // Who was never heard of before parts from nobody.
        let (seen, looks) = match self.coming.take() {
            Some((coming, seen, looks)) if coming == *grouping => (seen + 1, looks + 1),
            Some((_, _, looks)) => (1, looks + 1),
            None => (1, 1),
        };
        self.coming = Some((grouping.clone(), seen, looks));
        seen >= SEEN || looks >= UNSETTLED
    }

    /// Gives each group the name of the history that most of it had, and tells what is new and what has ended.
    fn rename(&mut self, grouping: Grouping, all: &[Shown<'_>]) -> Vec<Change> {
        let before = std::mem::take(&mut self.known);
        let mut pairs: Vec<(usize, Name, usize)> = Vec::new();
        for (at, group) in grouping.iter().enumerate() {
            let common = |history: &History| history.members.intersection(group).count();
            pairs.extend(before.iter().map(|(name, history)| (common(history), *name, at)));
        }
        pairs.retain(|(common, ..)| *common > 0);
        pairs.sort_by_key(|(common, name, _)| (Reverse(*common), *name));
        let mut names = BTreeMap::<usize, Name>::new();
        for (_, name, at) in pairs {
            if !names.contains_key(&at) && !names.values().any(|taken| *taken == name) {
                names.insert(at, name);
            }
        }
        let mut changes = Vec::new();
        for (at, members) in grouping.iter().enumerate().filter(|(at, _)| names.contains_key(at)) {
            let parted = before[&names[&at]].parted;
            self.known.insert(names[&at], History { members: members.clone(), parted });
        }
        for (at, members) in grouping.iter().enumerate().filter(|(at, _)| !names.contains_key(at)) {
            changes.extend(self.begin(members, &before, &grouping, at, all));
        }
        changes.extend(self.ended(&before));
        changes
    }

    /// A group that has no history of before.
    fn begin(
        &mut self,
        members: &BTreeSet<ReplicaId>,
        before: &BTreeMap<Name, History>,
        grouping: &Grouping,
        at: usize,
        all: &[Shown<'_>],
    ) -> Option<Change> {
        let is_free = |name: &Name| !self.known.contains_key(name) && !before.contains_key(name);
        let name = (0..).find(is_free)?;
        // The one that they left, or any.
        let left = before.iter().find(|(_, history)| !history.members.is_disjoint(members));
        let left = left.and_then(|(name, _)| self.known.get(name)).map(|history| &history.members);
        let those =
            left.or_else(|| grouping.iter().enumerate().find(|(n, _)| *n < at).map(|(_, g)| g));
        let those = those.cloned().unwrap_or_default();
        let parted = alike(all, members, &those);
        self.known.insert(name, History { members: members.clone(), parted });
        let these = members.clone();
        (!those.is_empty()).then_some(Change::Parted { these, those, after: parted })
    }

    /// What became of histories that nobody has any more.
    fn ended(&self, before: &BTreeMap<Name, History>) -> Vec<Change> {
        let ended = before.iter().filter(|(name, _)| !self.known.contains_key(*name));
        let merged = ended.filter_map(|(_, history)| {
            let those = before.get(&self.of(*history.members.first()?)?)?;
            // One of the two was seen to part from the other; what was there at the beginning parted from nothing.
            let after = history.parted.max(those.parted);
            Some(Change::Merged {
                these: history.members.clone(),
                those: those.members.clone(),
                after,
            })
        });
        merged.collect()
    }
}

/// Up to which slot the histories of these and those are certainly the same.
pub fn alike(all: &[Shown<'_>], these: &BTreeSet<ReplicaId>, those: &BTreeSet<ReplicaId>) -> Slot {
    let of = |ids: &BTreeSet<ReplicaId>| -> Vec<&Trail> {
        all.iter().filter(|shown| ids.contains(&shown.id)).map(|shown| shown.trail).collect()
    };
    let (these, those) = (of(these), of(those));
    let pairs = these.iter().flat_map(|one| those.iter().map(|other| one.alike(other)));
    // Who shares more with some of them shares it with all.
    pairs.max().unwrap_or(Slot::GENESIS)
}
