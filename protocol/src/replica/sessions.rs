//! Who asked what, and what came out: the part of the replicated state that makes every request
//! execute at most once.
//!
//! The table is a persistent map: a copy of the whole costs as much as a copy of a pointer, which
//! is how a slot's effect on it is undone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::codec::{Canonical, Sink};
use crate::id::{ClientId, Digest, RequestName, RequestNumber, SessionId, Slot};
use crate::message::{Position, RefusalReason, Request, Results};
use crate::trie::{Leaf, MerkleTrie};
use crate::tuning::Rules;

/// What is remembered of an executed request.
#[derive(Clone, Debug, PartialEq, Eq)]
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

#[derive(Clone, Debug, Default)]
struct Session {
    executed: Executed,
    kept: OrdMap<RequestNumber, Arc<Kept>>,
    /// The highest slot of a request whose results are no longer kept.
    forgotten: Slot,
}

struct SessionState<'a> {
    client: &'a ClientId,
    id: SessionId,
    session: &'a Session,
}

impl Canonical for SessionState<'_> {
    const TAG: &'static str = "session";

    fn write(&self, to: &mut impl Sink) {
        to.put_client(self.client);
        to.put_u64(self.id.0);
        to.put_u64(self.session.forgotten.0);
        to.put_len(self.session.executed.0.len());
        for (start, end) in &self.session.executed.0 {
            to.put_u64(*start);
            to.put_u64(*end);
        }
        to.put_len(self.session.kept.len());
        for (number, kept) in &self.session.kept {
            to.put_u64(number.0);
            to.put_u64(kept.at.slot.0);
            to.put_digest(&kept.at.hash);
            to.put_u64(u64::from(kept.index));
            to.put_digest(&kept.request);
            to.put_digest(&kept.results.digest());
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Client {
    floor: SessionId,
    sessions: BTreeMap<SessionId, Arc<Session>>,
}

impl Client {
    /// About the bytes it takes to send it.
    fn weight(&self) -> u32 {
        let each = |session: &Arc<Session>| 64 + 128 * session.kept.len();
        let bytes = 64 + self.sessions.values().map(each).sum::<usize>();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

struct ClientState<'a>(&'a ClientId, &'a Client);

impl Canonical for ClientState<'_> {
    const TAG: &'static str = "client-sessions";

    fn write(&self, to: &mut impl Sink) {
        to.put_client(self.0);
        to.put_u64(self.1.floor.0);
        to.put_len(self.1.sessions.len());
        for (id, session) in &self.1.sessions {
            to.put_digest(&SessionState { client: self.0, id: *id, session }.digest());
        }
    }
}

struct ClientKey<'a>(&'a ClientId);

impl Canonical for ClientKey<'_> {
    const TAG: &'static str = "client-key";

    fn write(&self, to: &mut impl Sink) {
        to.put_client(self.0);
    }
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
    /// Over the clients, without those in `touched`.
    tree: MerkleTrie,
    /// Changed since the tree was last brought up to date.
    touched: OrdSet<ClientId>,
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
        let window = usize::try_from(self.rules.session_window).unwrap_or(usize::MAX);
        let max_kept = usize::try_from(self.rules.max_kept_result).unwrap_or(usize::MAX);
        let client = Arc::make_mut(self.clients.entry(request.client).or_default());
        if request.floor > client.floor {
            client.floor = request.floor;
            let live = client.sessions.split_off(&request.floor);
            self.count -= client.sessions.len() as u64;
            client.sessions = live;
        }
        let session = client.sessions.entry(request.session).or_insert_with(|| {
            self.count += 1;
            Arc::default()
        });
        let session = Arc::make_mut(session);
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
        while session.kept.len() > window
            && let Some((lowest, oldest)) = session.kept.get_min()
        {
            let (lowest, slot) = (*lowest, oldest.at.slot);
            session.kept.remove(&lowest);
            session.forgotten = session.forgotten.max(slot);
        }
        self.touched.insert(request.client);
    }

    /// Over all of it. Costs as much as what changed since it was last asked for.
    pub fn digest(&mut self) -> Digest {
        for id in std::mem::take(&mut self.touched) {
            if let Some(client) = self.clients.get(&id) {
                let digest = ClientState(&id, client).digest();
                let leaf = Leaf { digest, weight: client.weight(), value: () };
                self.tree.insert(ClientKey(&id).digest(), leaf);
            }
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
