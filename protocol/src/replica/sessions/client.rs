//! What the table holds of one client.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::Kept;
use super::executed::Executed;
use super::page::Page;
use crate::id::{RequestName, RequestNumber, SessionId, Slot};
use crate::message::Results;
use crate::tuning::Rules;

/// So many numbers are looked at one by one, to find out by when they were executed.
const FEW: usize = 64;

/// About what a kept request takes in memory beside its results, with its leaves of the tree.
const KEPT_BYTES: u64 = 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    pub executed: Executed,
    pub kept: OrdMap<RequestNumber, Arc<Kept>>,
    /// The last slot in which a request of it was executed.
    pub used: Slot,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Client {
    /// A session that is not here is new at or above it, and has left below it.
    pub floor: SessionId,
    pub sessions: OrdMap<SessionId, Arc<Session>>,
    /// All sessions, the one that has rested longest first.
    resting: OrdSet<(Slot, SessionId)>,
    /// Those that keep results, likewise.
    keeping: OrdSet<(Slot, SessionId)>,
    /// What all results come to.
    kept_bytes: u64,
}

impl Session {
    /// A slot by which these numbers were executed, all of which were: the last of theirs, where they are few and their results
    /// are kept, which is the same wherever the history is.
    pub fn executed_by(&self, first: RequestNumber, last: RequestNumber) -> Slot {
        let numbers = last.0.saturating_sub(first.0).saturating_add(1);
        let kept = self.kept.range(first..=last).take(FEW);
        let (count, newest) = kept.fold((0, Slot::GENESIS), |(count, newest), (_, kept)| {
            (count + 1, newest.max(kept.at.slot))
        });
        if count == numbers { newest } else { self.used }
    }

    /// The pages on which it keeps results.
    pub fn pages(&self, rules: &Rules) -> BTreeSet<Page> {
        self.kept.keys().map(|number| Page::of(*number, rules)).collect()
    }

    /// What it keeps on this page.
    pub fn kept_on(&self, page: Page, rules: &Rules) -> Vec<(RequestNumber, Arc<Kept>)> {
        let kept = self.kept.range(page.numbers(rules));
        kept.map(|(number, kept)| (*number, Arc::clone(kept))).collect()
    }
}

/// What the execution of a request has changed.
pub(super) struct Changed {
    /// Whether its session is new.
    pub opened: bool,
    /// Whose results.
    pub pages: BTreeSet<(SessionId, Page)>,
}

/// What a kept request counts in the bytes of its client.
fn kept_bytes(kept: &Kept) -> u64 {
    KEPT_BYTES.saturating_add(u64::try_from(kept.results.size()).unwrap_or(u64::MAX))
}

impl Client {
    /// A client of which the table knows nothing but that sessions below the floor may have left.
    pub fn new(floor: SessionId) -> Self {
        Self { floor, ..Self::default() }
    }

    /// The last slot in which a request of it was executed.
    pub fn used(&self) -> Slot {
        self.resting.get_max().map_or(Slot::GENESIS, |(slot, _)| *slot)
    }

    /// Enters an executed request.
    ///
    /// # Panics
    /// I4: where its name is executed already, or lies in a session that has left.
    pub fn execute(&mut self, name: &RequestName, kept: Kept, rules: &Rules) -> Changed {
        let (id, number, slot) = (name.session, name.number, kept.at.slot);
        let known = self.sessions.get(&id).cloned();
        let opened = known.is_none();
        assert!(!opened || id >= self.floor, "I4: {name:?} executed in a session that has left");
        let mut session = known.unwrap_or_default();
        let content = Arc::make_mut(&mut session);
        assert!(!content.executed.contains(number), "I4: {name:?} executed twice");
        content.executed.insert(number);
        let before = (std::mem::replace(&mut content.used, slot), id);
        let max_kept = usize::try_from(rules.max_kept_result).unwrap_or(usize::MAX);
        let kept = if kept.results.size() > max_kept {
            Kept { results: Results::Forgotten(kept.results.digest()), ..kept }
        } else {
            kept
        };
        self.kept_bytes += kept_bytes(&kept);
        content.kept.insert(number, Arc::new(kept));
        self.sessions.insert(id, session);
        for order in [&mut self.resting, &mut self.keeping] {
            order.remove(&before);
            order.insert((slot, id));
        }
        let mut pages = BTreeSet::from([(id, Page::of(number, rules))]);
        self.let_results_go(id, rules, &mut pages);
        Changed { opened, pages }
    }

    /// Forgets results of a session beyond its window, and results of any beyond the client's
    /// bytes.
    fn let_results_go(
        &mut self,
        executed_in: SessionId,
        rules: &Rules,
        pages: &mut BTreeSet<(SessionId, Page)>,
    ) {
        let window = usize::try_from(rules.session_window).unwrap_or(usize::MAX);
        let keeps = |client: &Self| {
            client.sessions.get(&executed_in).map_or(0, |session| session.kept.len())
        };
        while keeps(self) > window {
            pages.insert((executed_in, self.let_lowest_go(executed_in, rules)));
        }
        while self.kept_bytes > rules.kept_bytes
            && let Some((_, rested)) = self.keeping.get_min().copied()
        {
            pages.insert((rested, self.let_lowest_go(rested, rules)));
        }
    }

    /// Forgets the results of the lowest request that a session keeps; answers its page.
    fn let_lowest_go(&mut self, id: SessionId, rules: &Rules) -> Page {
        let session = self.sessions.get_mut(&id).expect("who keeps results is there");
        let session = Arc::make_mut(session);
        let lowest = session.kept.get_min().map(|(number, _)| *number);
        let lowest = lowest.expect("who is in `keeping` keeps results");
        let kept = session.kept.remove(&lowest).expect("it was just seen");
        self.kept_bytes -= kept_bytes(&kept);
        if session.kept.is_empty() {
            // An empty map may hold on to its memory.
            session.kept = OrdMap::new();
            self.keeping.remove(&(session.used, id));
        }
        Page::of(lowest, rules)
    }

    /// While there are more sessions than a client may have, takes out the one that has rested
    /// longest and raises the floor above it.
    pub fn retire_one(&mut self, rules: &Rules) -> Option<(SessionId, Arc<Session>)> {
        if self.sessions.len() as u64 <= rules.max_sessions {
            return None;
        }
        let (slot, id) = self.resting.remove_min()?;
        self.keeping.remove(&(slot, id));
        let session = self.sessions.remove(&id).expect("every session rests");
        self.kept_bytes -= session.kept.values().map(|kept| kept_bytes(kept)).sum::<u64>();
        self.floor = self.floor.max(id.next());
        Some((id, session))
    }

    /// Above every session that it ever had.
    pub fn horizon(&self) -> SessionId {
        self.sessions.get_max().map_or(self.floor, |(id, _)| self.floor.max(id.next()))
    }

    /// Works out what follows from the sessions, for one that was put together from parts.
    pub fn put_in_order(&mut self) {
        self.kept_bytes = 0;
        for (id, session) in &self.sessions {
            self.resting.insert((session.used, *id));
            if !session.kept.is_empty() {
                self.keeping.insert((session.used, *id));
            }
            self.kept_bytes += session.kept.values().map(|kept| kept_bytes(kept)).sum::<u64>();
        }
    }
}
