//! Who waits for what replicas say.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use elea_protocol::client::Awaiting;
use elea_protocol::id::{RequestName, RequestNumber, SessionId};
use elea_protocol::message::ReplyKind;
use tokio::sync::mpsc;

use crate::link::Inbound;

type Sender = mpsc::UnboundedSender<Inbound>;

/// The clients that share connections, and what each waits for. What nobody waits for is dropped before its signature is
/// checked.
#[derive(Debug, Default)]
pub(crate) struct Audience(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By the numbers of their seats.
    clients: HashMap<u64, Sender>,
    next: u64,
    sessions: HashMap<SessionId, Session>,
}

/// A session that a client listens to.
#[derive(Debug)]
struct Session {
    seat: u64,
    to: Sender,
    awaited: HashMap<RequestNumber, Awaiting>,
}

impl Audience {
    /// A client, and where it hears what is said to it.
    pub fn join(audience: &Arc<Self>) -> (Seat, mpsc::UnboundedReceiver<Inbound>) {
        let (to, heard) = mpsc::unbounded_channel();
        let mut inner = audience.write();
        let number = inner.next;
        inner.next += 1;
        inner.clients.insert(number, to.clone());
        drop(inner);
        (Seat { audience: Arc::clone(audience), number, to }, heard)
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody waits for a reply of this kind to this request.
    pub fn wants(&self, name: &RequestName, kind: ReplyKind) -> bool {
        match self.read().awaited(name) {
            Some(Awaiting::Any) => true,
            Some(Awaiting::Committed) => kind == ReplyKind::Committed,
            Some(Awaiting::Nothing) | None => false,
        }
    }

    /// Whether anybody waits for anything about this request.
    pub fn holds(&self, name: &RequestName) -> bool {
        self.read().awaited(name).is_some()
    }

    /// Whether anybody uses this session.
    pub fn listens(&self, session: SessionId) -> bool {
        self.read().sessions.contains_key(&session)
    }

    /// Tells whoever uses this session.
    pub fn tell(&self, session: SessionId, inbound: Inbound) {
        if let Some(session) = self.read().sessions.get(&session) {
            // A client that has gone leaves a moment later.
            let _ = session.to.send(inbound);
        }
    }

    /// Tells everybody.
    pub fn tell_all(&self, inbound: &Inbound) {
        for to in self.read().clients.values() {
            let _ = to.send(inbound.clone());
        }
    }
}

impl Inner {
    fn awaited(&self, name: &RequestName) -> Option<&Awaiting> {
        self.sessions.get(&name.session)?.awaited.get(&name.number)
    }
}

/// A client in the audience; dropped, it and its sessions are gone.
#[derive(Debug)]
pub(crate) struct Seat {
    audience: Arc<Audience>,
    number: u64,
    to: Sender,
}

impl Seat {
    /// Hears from now on what is said of this session, which is no other client's.
    pub fn listen(&self, session: SessionId) {
        let (seat, to) = (self.number, self.to.clone());
        let new = || Session { seat, to, awaited: HashMap::new() };
        self.audience.write().sessions.entry(session).or_insert_with(new);
    }

    /// Hears no more of it.
    pub fn leave(&self, session: SessionId) {
        let mut inner = self.audience.write();
        if inner.sessions.get(&session).is_some_and(|known| known.seat == self.number) {
            inner.sessions.remove(&session);
        }
    }

    /// What is waited for of a request in a session that is listened to.
    pub fn awaits(&self, session: SessionId, number: RequestNumber, what: Awaiting) {
        let mut inner = self.audience.write();
        let Some(session) = inner.sessions.get_mut(&session) else { return };
        match what {
            Awaiting::Nothing => session.awaited.remove(&number),
            what => session.awaited.insert(number, what),
        };
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.audience.write();
        inner.clients.remove(&self.number);
        inner.sessions.retain(|_, session| session.seat != self.number);
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{ClientId, ReplicaId};

    use super::*;
    use crate::link::Said;

    fn name(session: u64, number: u64) -> RequestName {
        RequestName {
            client: ClientId([1; 32]),
            session: SessionId(session),
            number: RequestNumber(number),
        }
    }

    fn word(session: u64) -> Inbound {
        Inbound { from: ReplicaId(0), said: Said::Busy(name(session, 1)), permit: None }
    }

    #[test]
    fn each_client_hears_of_its_own_sessions_and_what_is_for_all() {
        let audience = Arc::new(Audience::default());
        let (ann, mut to_ann) = Audience::join(&audience);
        let (bob, mut to_bob) = Audience::join(&audience);
        ann.listen(SessionId(1));
        bob.listen(SessionId(2));
        audience.tell(SessionId(1), word(1));
        audience.tell(SessionId(3), word(3));
        assert!(to_ann.try_recv().is_ok() && to_bob.try_recv().is_err());
        audience.tell_all(&word(9));
        assert!(to_ann.try_recv().is_ok() && to_bob.try_recv().is_ok());
        // A session is no other client's to give up.
        bob.leave(SessionId(1));
        audience.tell(SessionId(1), word(1));
        assert!(to_ann.try_recv().is_ok());
        ann.leave(SessionId(1));
        audience.tell(SessionId(1), word(1));
        assert!(to_ann.try_recv().is_err());
    }

    #[test]
    fn replies_are_wanted_as_long_as_somebody_waits_for_them() {
        let audience = Arc::new(Audience::default());
        let (ann, _heard) = Audience::join(&audience);
        let wants = |kind| audience.wants(&name(1, 7), kind);
        ann.awaits(SessionId(1), RequestNumber(7), Awaiting::Any);
        assert!(!wants(ReplyKind::Committed), "nobody listens to the session");
        ann.listen(SessionId(1));
        ann.awaits(SessionId(1), RequestNumber(7), Awaiting::Any);
        assert!(wants(ReplyKind::Speculative) && wants(ReplyKind::Committed));
        ann.listen(SessionId(1));
        assert!(audience.holds(&name(1, 7)), "to listen twice is to listen");
        ann.awaits(SessionId(1), RequestNumber(7), Awaiting::Committed);
        assert!(!wants(ReplyKind::Speculative) && wants(ReplyKind::Committed));
        ann.awaits(SessionId(1), RequestNumber(7), Awaiting::Nothing);
        assert!(!audience.holds(&name(1, 7)));
        ann.awaits(SessionId(1), RequestNumber(8), Awaiting::Any);
        drop(ann);
        assert!(!audience.holds(&name(1, 8)), "a client takes with it what it waits for");
    }
}
