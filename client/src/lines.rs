//! The connections that the clients of one process share.
//!
//! Clients with one key have in common what makes them known to a replica, and what one of them is told is about its
//! own sessions and nobody else's. So they share one connection to each replica: what they send at one time is
//! [signed](crate::signing) and leaves together, and what a replica signs once for many of them is checked once. The
//! first client that is connected makes the connections; they end with the last one. A replica answers a connection
//! for so many sessions only, so beyond [`MEMBERS_MAX`] clients the next ones make connections anew.
//!
//! What lives on another runtime, or was given other addresses for the replicas, has connections of its own.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use elea_net::Identity;
use elea_protocol::id::{ClientId, Digest};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Transport, WireVersions};
use elea_protocol::signature::Signer;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::audience::{Audience, Seat};
use crate::connection::Connection;
use crate::link::{Inbound, Link, Links};
use crate::signing::Signing;

/// Connections to all replicas of a cluster, and who listens to them.
#[derive(Debug)]
pub(crate) struct Lines {
    pub links: Links,
    pub signing: Signing,
    audience: Arc<Audience>,
    _end: DropGuard,
}

/// What clients that share connections have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Common {
    genesis: Digest,
    client: ClientId,
    /// The same for all who share the sessions of the key.
    instance: u64,
    addresses: Vec<String>,
    transport: Transport,
    runtime: runtime::Id,
}

/// So many clients share connections: a replica with many connections answers each for the 64 sessions that it
/// used last, and a client mostly uses one.
const MEMBERS_MAX: usize = 64;

/// Those to which the next client may be added.
static LINES: LazyLock<Mutex<HashMap<Common, Weak<Lines>>>> = LazyLock::new(Mutex::default);

/// Whose connections they are, and where they lead.
pub(crate) struct Ends<'a> {
    pub membership: &'a Arc<Membership>,
    pub addresses: &'a [String],
    pub signer: &'a Arc<dyn Signer>,
    pub transport: Transport,
    pub instance: u64,
}

impl Ends<'_> {
    /// The own key, where connections are encrypted.
    fn identity(&self) -> Option<Identity> {
        let (key, signer) = (self.signer.public_key().0, Arc::clone(self.signer));
        let prove =
            move |transcript: &[u8]| signer.sign_handshake(transcript).map(|signed| signed.0);
        let is_encrypted = self.transport == Transport::Encrypted;
        is_encrypted.then(|| Identity::new(key, prove, &WireVersions::OWN.application_protocols()))
    }
}

impl Lines {
    /// Connections that are shared with whoever has the same ends, or new ones.
    pub fn shared(ends: &Ends<'_>) -> Arc<Self> {
        let common = Common {
            genesis: *ends.membership.genesis(),
            client: ends.signer.public_key().into(),
            instance: ends.instance,
            addresses: ends.addresses.to_vec(),
            transport: ends.transport,
            runtime: runtime::Handle::current().id(),
        };
        let mut all = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        // Each member holds it once.
        let known = all.get(&common).filter(|lines| lines.strong_count() < MEMBERS_MAX);
        if let Some(lines) = known.and_then(Weak::upgrade) {
            return lines;
        }
        let lines = Self::new(ends);
        all.retain(|_, lines| lines.strong_count() > 0);
        all.insert(common, Arc::downgrade(&lines));
        lines
    }

    /// Connections of nobody else.
    pub fn new(ends: &Ends<'_>) -> Arc<Self> {
        let members = ends.membership.size().members();
        let links: Links = members
            .zip(ends.addresses)
            .map(|(replica, address)| Arc::new(Link::new(replica, address.clone())))
            .collect();
        let identity = ends.identity();
        let expecting = |replica| {
            let identity = identity.as_ref()?;
            let key = ends.membership.replica_key(replica).expect("a member has a key");
            Some(identity.expecting(key.0))
        };
        let audience = Arc::new(Audience::default());
        let end = CancellationToken::new();
        for link in links.iter() {
            let connection = Connection {
                link: Arc::clone(link),
                membership: Arc::clone(ends.membership),
                signer: Arc::clone(ends.signer),
                expecting: expecting(link.id),
                instance: ends.instance,
                audience: Arc::clone(&audience),
                end: end.clone(),
            };
            tokio::spawn(connection.run());
        }
        let signing = Signing::start(Arc::clone(ends.signer), *ends.membership.genesis());
        Arc::new(Self { links, signing, audience, _end: end.drop_guard() })
    }

    /// A place for one more client, and where it hears what is for it.
    pub fn join(&self) -> (Seat, mpsc::UnboundedReceiver<Inbound>) {
        Audience::join(&self.audience)
    }
}
