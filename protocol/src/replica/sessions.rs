//! Who asked what, and what came out: the part of the replicated state that makes every request
//! execute at most once.
//!
//! The table is a persistent map: a copy of the whole costs as much as a copy of a pointer, which
//! is how a slot's effect on it is undone. Its digest is that of a tree over its
//! [parts](self::part), and costs what changed.

mod part;
#[cfg_attr(not(test), expect(dead_code, reason = "state transfer is not wired up yet"))]
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use self::part::{Page, PartName};
pub(crate) use self::transfer::{FrozenSessions, SessionsRestore};
use crate::codec::Canonical;
use crate::id::{ClientId, Digest, RequestName, RequestNumber, SessionId, Slot};
use crate::message::{Position, RefusalReason, Request, Results};
use crate::trie::MerkleTrie;
use crate::tuning::Rules;

/// What is remembered of an executed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where it was executed.
    pub at: Position,
    /// The position of its first operation among those of the slot.
    pub index: u32,
    /// The digest of its content.
    pub request: Digest,
    /// What came out.
    pub results: Results,
}

/// The numbers executed, as intervals with both ends included, ascending and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Executed(BTreeMap<u64, u64>);

impl Executed {
    fn contains(&self, number: RequestNumber) -> bool {
        self.0.range(..=number.0).next_back().is_some_and(|(_, end)| number.0 <= *end)
    }

    fn insert(&mut self, number: RequestNumber) {
        if self.contains(number) {
            return;
        }
        let number = number.0;
        let mut start = number;
        let mut end = number;
        if let Some((before, before_end)) = self.0.range(..number).next_back()
            && before_end.saturating_add(1) >= number
        {
            start = *before;
            end = end.max(*before_end);
        }
        if let Some(after_end) = number.checked_add(1).and_then(|next| self.0.remove(&next)) {
            end = end.max(after_end);
        }
        self.0.insert(start, end);
    }

    /// The lowest number not executed.
    fn lowest_open(&self) -> RequestNumber {
        match self.0.first_key_value() {
            Some((&1, &end)) => RequestNumber(end.saturating_add(1)),
            Some(_) | None => RequestNumber::FIRST,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    executed: Executed,
    kept: OrdMap<RequestNumber, Arc<Kept>>,
    /// The highest slot of a request whose results are no longer kept.
    forgotten: Slot,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Client {
    floor: SessionId,
    sessions: BTreeMap<SessionId, Arc<Session>>,
}

/// Whether a name was executed, and what is still known of it.
#[derive(Clone, Debug)]
pub enum Known {
    /// Not in this history.
    Open,
    /// Executed, and this came out.
    Kept(Arc<Kept>),
    /// Executed, too long ago for its results to be kept.
    Forgotten,
}

/// All sessions of all clients.
#[derive(Clone, Debug)]
pub struct Sessions {
    rules: Rules,
    clients: OrdMap<ClientId, Arc<Client>>,
    /// Over the parts of the table, except that those in `touched` are as they were.
    tree: MerkleTrie<PartName>,
    /// What changed, came or went since the tree was last brought up to date.
    touched: OrdSet<PartName>,
    count: u64,
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            clients: OrdMap::new(),
            tree: MerkleTrie::default(),
            touched: OrdSet::new(),
            count: 0,
        }
    }

    /// How many sessions there are, of all clients together.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn session(&self, client: &ClientId, id: SessionId) -> Option<&Session> {
        self.clients.get(client)?.sessions.get(&id).map(|session| &**session)
    }

    /// The client, which there is from now on.
    fn client_mut(&mut self, id: ClientId) -> &mut Client {
        Arc::make_mut(self.clients.entry(id).or_default())
    }

    /// The session, which there is from now on.
    fn session_mut(&mut self, client: ClientId, id: SessionId) -> &mut Session {
        let client = Arc::make_mut(self.clients.entry(client).or_default());
        Arc::make_mut(client.sessions.entry(id).or_insert_with(|| {
            self.count += 1;
            Arc::default()
        }))
    }

    /// The client's floor: its sessions below are retired.
    #[must_use]
    pub fn floor(&self, client: &ClientId) -> SessionId {
        self.clients.get(client).map_or(SessionId::default(), |client| client.floor)
    }

    /// What is known of a name.
    #[must_use]
    pub fn known(&self, name: &RequestName) -> Known {
        match self.session(&name.client, name.session) {
            Some(session) if session.executed.contains(name.number) => {
                session.kept.get(&name.number).cloned().map_or(Known::Forgotten, Known::Kept)
            }
            Some(_) | None => Known::Open,
        }
    }

    /// A check of the requests of one slot.
    #[must_use]
    pub fn admission(&self) -> Admission<'_> {
        Admission { sessions: self, clients: BTreeMap::new(), new_clients: 0 }
    }

    /// Why this request could not stand in the next slot, if it could not.
    #[must_use]
    pub fn refusal(&self, request: &Request) -> Option<RefusalReason> {
        self.admission().admit(request).err()
    }

    /// Enters an executed request. The caller has made sure that its name is not executed yet.
    ///
    /// # Panics
    /// I4: where it is.
    pub(crate) fn execute(&mut self, request: &Request, kept: Kept) {
        let rules = self.rules;
        let window = usize::try_from(rules.session_window).unwrap_or(usize::MAX);
        let max_kept = usize::try_from(rules.max_kept_result).unwrap_or(usize::MAX);
        let (client, id) = (request.client, request.session);
        if self.clients.get(&client).is_none_or(|known| request.floor > known.floor) {
            self.raise_floor(client, request.floor);
        }
        let session = self.session_mut(client, id);
        assert!(
            !session.executed.contains(request.number),
            "I4: {:?} executed twice",
            request.name()
        );
        session.executed.insert(request.number);
        let kept = if kept.results.size() > max_kept {
            Kept { results: Results::Forgotten(kept.results.digest()), ..kept }
        } else {
            kept
        };
        session.kept.insert(request.number, Arc::new(kept));
        let mut pages = BTreeSet::from([Page::of(request.number, &rules)]);
        while session.kept.len() > window
            && let Some((lowest, oldest)) = session.kept.get_min()
        {
            let (lowest, slot) = (*lowest, oldest.at.slot);
            session.kept.remove(&lowest);
            session.forgotten = session.forgotten.max(slot);
            pages.insert(Page::of(lowest, &rules));
        }
        self.touched.insert(PartName::Session(client, id));
        self.touched.extend(pages.into_iter().map(|page| PartName::Results(client, id, page)));
    }

    /// Sets the floor of a client, which may be new, and drops its sessions below.
    fn raise_floor(&mut self, id: ClientId, floor: SessionId) {
        let client = self.client_mut(id);
        client.floor = floor;
        let live = client.sessions.split_off(&floor);
        let retired = std::mem::replace(&mut client.sessions, live);
        self.count -= retired.len() as u64;
        self.touched.insert(PartName::Client(id));
        for (session, content) in retired {
            let pages = Page::all(&content, &self.rules).into_iter();
            self.touched.insert(PartName::Session(id, session));
            self.touched.extend(pages.map(|page| PartName::Results(id, session, page)));
        }
    }

    /// Over all of it. Costs as much as what changed since it was last asked for.
    pub fn digest(&mut self) -> Digest {
        for name in std::mem::take(&mut self.touched) {
            let key = name.digest();
            match self.part(&name) {
                Some(part) => self.tree.insert(key, part.leaf()),
                None => self.tree.remove(&key),
            };
        }
        self.tree.digest()
    }

    /// How far a session's requests have been executed, and up to which number all of them lie at
    /// or below `certified`.
    #[must_use]
    pub fn progress(
        &self,
        client: &ClientId,
        id: SessionId,
        certified: Slot,
    ) -> (RequestNumber, RequestNumber) {
        let Some(session) = self.session(client, id) else {
            return (RequestNumber::default(), RequestNumber::default());
        };
        let executed = RequestNumber(session.executed.lowest_open().0 - 1);
        if session.forgotten > certified {
            // Something that is no longer kept is not final, and which number it has is unknown.
            return (executed, RequestNumber::default());
        }
        let not_final = session.kept.iter().find(|(_, kept)| kept.at.slot > certified);
        let before = not_final.map_or(executed, |(number, _)| RequestNumber(number.0 - 1));
        (executed, executed.min(before))
    }
}

#[derive(Default)]
struct Overlay {
    floor: SessionId,
    new_sessions: BTreeSet<SessionId>,
    names: BTreeSet<(SessionId, RequestNumber)>,
}

/// Checks the requests of one slot, one after the other, against the state before the slot and
/// against each other.
///
/// The window is that of the state before the slot, which is a little stricter than request by
/// request and spares the check an execution.
pub struct Admission<'a> {
    sessions: &'a Sessions,
    clients: BTreeMap<ClientId, Overlay>,
    new_clients: u64,
}

impl Admission<'_> {
    /// Whether the request may come next in the slot; if so, it counts for those that follow.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admit(&mut self, request: &Request) -> Result<(), RefusalReason> {
        let rules = &self.sessions.rules;
        let known = self.sessions.clients.get(&request.client);
        let overlay = self.clients.get(&request.client);
        if known.is_none()
            && overlay.is_none()
            && self.sessions.clients.len() as u64 + self.new_clients >= rules.max_clients
        {
            return Err(RefusalReason::TooManyClients);
        }
        let floor = known
            .map_or(SessionId::default(), |client| client.floor)
            .max(overlay.map_or(SessionId::default(), |overlay| overlay.floor));
        if request.session < floor {
            return Err(RefusalReason::SessionRetired);
        }
        let session = known.and_then(|client| client.sessions.get(&request.session));
        let repeated = overlay
            .is_some_and(|overlay| overlay.names.contains(&(request.session, request.number)));
        if repeated || session.is_some_and(|session| session.executed.contains(request.number)) {
            return Err(RefusalReason::NameUsed);
        }
        let lowest = session.map_or(RequestNumber::FIRST, |session| session.executed.lowest_open());
        if request.number.0 - lowest.0.min(request.number.0) >= rules.session_window {
            return Err(RefusalReason::WindowExceeded);
        }
        let new_floor = floor.max(request.floor);
        let is_new = session.is_none()
            && overlay.is_none_or(|overlay| !overlay.new_sessions.contains(&request.session));
        if is_new {
            let old = known.map_or(0, |client| client.sessions.range(new_floor..).count());
            let new = overlay.map_or(0, |overlay| overlay.new_sessions.range(new_floor..).count());
            if (old + new) as u64 >= rules.max_sessions {
                return Err(RefusalReason::TooManySessions);
            }
        }
        if known.is_none() && overlay.is_none() {
            self.new_clients += 1;
        }
        let overlay = self.clients.entry(request.client).or_default();
        overlay.floor = new_floor;
        overlay.names.insert((request.session, request.number));
        if is_new {
            overlay.new_sessions.insert(request.session);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
