//! Who asked what, and what came out: the part of the replicated state that makes every request
//! execute at most once.
//!
//! The table is a persistent map: a copy of the whole costs as much as a copy of a pointer, which
//! is how a slot's effect on it is undone. Its digest is that of a tree over its
//! [parts](self::part), and costs what changed.
//!
//! # What is forgotten, and when
//!
//! No client says when a session may go: the table does, by rule, from nothing but the history.
//!
//! - *Results* first. Of each session the newest `session_window` are kept, and of each client as
//!   many as come to `kept_bytes`: those of the session that has rested longest leave first. What was
//!   executed is still known.
//! - *Sessions* of which a client has more than `max_sessions` leave at the end of a slot, the one
//!   that has rested longest first, and *clients* beyond `max_clients` likewise.
//! - What remains of those is a *floor*: a session that is not in the table is new if its id lies
//!   at or above the floor, and refused as retired below it. The floor lies above every session
//!   that ever left, so that nothing is executed twice.
//! - New sessions are numbered from what the table says ([`Sessions::opening`]), with ids that grow
//!   as sessions are opened. So a floor lies well below whatever was opened lately, here or in
//!   another part of the network.

mod admission;
mod client;
mod executed;
mod openings;
mod page;
mod part;
mod transfer;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

pub use self::admission::Admission;
use self::client::{Client, Session};
use self::openings::Openings;
use self::part::PartName;
pub(crate) use self::transfer::{FrozenSessions, SessionsRestore};
use crate::codec::Canonical;
use crate::id::{ClientId, Digest, RequestName, RequestNumber, SessionId, Slot};
use crate::message::{Position, RefusalReason, Request, Results, Written};
use crate::replica::views::Inclusion;
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

/// Whether a name was executed, and what is still known of it.
#[derive(Clone, Debug)]
pub enum Known {
    /// Not in this history, or in a session that has left the table.
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
    /// All clients, the one that has rested longest first.
    resting: OrdSet<(Slot, ClientId)>,
    openings: Openings,
    /// Whose sessions have become more in the slot that is being executed.
    opened_by: OrdSet<ClientId>,
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
            resting: OrdSet::new(),
            openings: Openings::default(),
            opened_by: OrdSet::new(),
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

    /// A session of this client that lies below and is not in the table has left it.
    #[must_use]
    pub fn floor(&self, client: &ClientId) -> SessionId {
        self.clients.get(client).map_or(self.openings.horizon, |client| client.floor)
    }

    /// From where on new sessions of this client are to lie.
    #[must_use]
    pub fn opening(&self, client: &ClientId) -> SessionId {
        self.openings.opening(self.floor(client))
    }

    /// All requests of a session up to this one have been executed; `None` for a session that is
    /// not in the table.
    #[must_use]
    pub fn executed_through(&self, client: &ClientId, id: SessionId) -> Option<RequestNumber> {
        Some(RequestNumber(self.session(client, id)?.executed.lowest_open().0 - 1))
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

    /// Whether nothing was executed under a name: it is not known, and its session has not left.
    #[must_use]
    pub fn may_be_new(&self, name: &RequestName) -> bool {
        match self.session(&name.client, name.session) {
            Some(session) => !session.executed.contains(name.number),
            None => name.session >= self.floor(&name.client),
        }
    }

    /// Whether all of these are executed, and then a slot by which they were.
    pub(in crate::replica) fn executed_by(&self, written: &Written) -> Inclusion {
        let Written { client, session, first, last } = written;
        match self.session(client, *session) {
            Some(known) if known.executed.contains_all(*first, *last) => {
                Inclusion::Since(known.executed_by(*first, *last))
            }
            None if *session < self.floor(client) => Inclusion::Unknown,
            _ => Inclusion::NotYet,
        }
    }

    /// A check of the requests of one slot.
    #[must_use]
    pub fn admission(&self) -> Admission<'_> {
        Admission::new(self)
    }

    /// Why this request could not stand in the next slot, if it could not.
    #[must_use]
    pub fn refusal(&self, request: &Request) -> Option<RefusalReason> {
        self.admission().admit(request).err()
    }

    /// Enters an executed request. The caller has made sure that it may be executed.
    ///
    /// # Panics
    /// I4: where its name is executed already, or lies in a session that has left.
    pub(crate) fn execute(&mut self, request: &Request, kept: Kept) {
        let (name, slot) = (request.name(), kept.at.slot);
        let id = name.client;
        let floor = self.floor(&id);
        let client = self.clients.entry(id).or_insert_with(|| {
            self.touched.insert(PartName::Client(id));
            Arc::new(Client::new(floor))
        });
        let client = Arc::make_mut(client);
        let before = client.used();
        let changed = client.execute(&name, kept, &self.rules);
        self.resting.remove(&(before, id));
        self.resting.insert((slot, id));
        if changed.opened {
            self.count += 1;
            self.openings.note(&self.rules);
            self.opened_by.insert(id);
            self.touched.insert(PartName::Openings);
        }
        self.touched.insert(PartName::Session(id, name.session));
        let pages = changed.pages.into_iter();
        self.touched.extend(pages.map(|(session, page)| PartName::Results(id, session, page)));
    }

    /// All requests of a slot have been entered: what there is too much of leaves.
    ///
    /// Not before, since the requests of one slot are admitted against the state before it: a
    /// session that leaves in the middle of a slot might be used in the rest of it. Answers how many
    /// sessions left.
    pub(crate) fn end_slot(&mut self) -> u64 {
        let before = self.count;
        for id in std::mem::take(&mut self.opened_by) {
            self.retire_sessions(id);
        }
        while self.clients.len() as u64 > self.rules.max_clients
            && let Some((_, rested)) = self.resting.remove_min()
        {
            self.retire_client(rested);
        }
        before - self.count
    }

    fn retire_sessions(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let client = Arc::make_mut(client);
        while let Some((session, content)) = client.retire_one(&self.rules) {
            self.count -= 1;
            self.touched.insert(PartName::Client(id));
            self.touched.extend(part::of_session(id, session, &content, &self.rules));
        }
    }

    fn retire_client(&mut self, id: ClientId) {
        let client = self.clients.remove(&id).expect("every client rests");
        self.count -= client.sessions.len() as u64;
        self.openings.horizon = self.openings.horizon.max(client.horizon());
        self.touched.extend([PartName::Openings, PartName::Client(id)]);
        for (session, content) in &client.sessions {
            self.touched.extend(part::of_session(id, *session, content, &self.rules));
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
}

#[cfg(test)]
mod tests;
