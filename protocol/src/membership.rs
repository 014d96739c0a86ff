//! Who belongs to a cluster: what the cluster file says, checked once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::codec::{Canonical, Sink};
use crate::id::{ClientId, Digest, ReplicaId};
use crate::message::CLIENTS_MAX;
use crate::quorum::{BadSize, ClusterSize};
use crate::signature::{PublicKey, Scheme};

/// The longest cluster name, in bytes.
pub const NAME_MAX: usize = 128;

/// The members of a cluster and their keys; fixed for its life.
///
/// Its [genesis digest](Membership::genesis) covers the name, `f` and the replicas' keys, not
/// their addresses: a replica may move. It does not cover the client list either: who may speak
/// is up to each operator, though replicas that disagree about it will not make progress with
/// such a client's requests.
///
/// A cluster may begin with the state of another one. Then the digest covers that state, too: who
/// starts from another one is in another cluster.
#[derive(Clone)]
pub struct Membership {
    name: String,
    size: ClusterSize,
    replicas: Vec<PublicKey>,
    clients: Option<BTreeSet<ClientId>>,
    client_list: Digest,
    initial_state: Option<Digest>,
    genesis: Digest,
    scheme: Arc<dyn Scheme>,
}

/// Why a cluster cannot be made of these members.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMembership {
    /// The numbers do not fit.
    #[error(transparent)]
    Size(#[from] BadSize),
    /// The name is empty or longer than [`NAME_MAX`].
    #[error("the cluster's name must have 1 to {NAME_MAX} bytes, not {0}")]
    Name(usize),
    /// Not a point of the curve, or of small order: anybody could sign for it.
    #[error("the public key of replica {0} is weak or not a key")]
    WeakReplicaKey(ReplicaId),
    /// The same of a client.
    #[error("the client key {0} is weak or not a key")]
    WeakClientKey(ClientId),
    /// More than [`CLIENTS_MAX`].
    #[error("{0} clients are listed; there may be {CLIENTS_MAX}")]
    Clients(usize),
    /// One key would vote twice.
    #[error("replicas {0} and {1} have the same public key")]
    SharedKey(ReplicaId, ReplicaId),
}

struct Genesis<'a> {
    name: &'a str,
    faulty: u8,
    replicas: &'a [PublicKey],
    initial_state: Option<&'a Digest>,
}

impl Canonical for Genesis<'_> {
    const TAG: &'static str = "genesis";

    fn write(&self, to: &mut impl Sink) {
        to.put_bytes(self.name.as_bytes());
        to.put_u8(self.faulty);
        to.put_len(self.replicas.len());
        self.replicas.iter().for_each(|key| to.put(&key.0));
        // Last, so that a cluster without one has the digest that it always had: before this all
        // is of known length, and so the two cannot be taken for each other.
        if let Some(state) = self.initial_state {
            to.put_digest(state);
        }
    }
}

/// Who may use a cluster, by the keys in their order; `None` is everybody.
pub(crate) struct ClientList<'a>(pub(crate) Option<&'a BTreeSet<ClientId>>);

impl Canonical for ClientList<'_> {
    const TAG: &'static str = "client-list";

    fn write(&self, to: &mut impl Sink) {
        match self.0 {
            None => to.put_u8(0),
            Some(clients) => {
                to.put_u8(1);
                to.put_len(clients.len());
                clients.iter().for_each(|client| to.put_client(client));
            }
        }
    }
}

impl Membership {
    /// A cluster of these replicas, of which at most `faulty` are Byzantine. `clients` lists who
    /// may use it; `None` opens it to everybody, up to the tuning's `max_clients`.
    ///
    /// # Errors
    /// See [`BadMembership`].
    pub fn new(
        name: impl Into<String>,
        faulty: u8,
        replicas: Vec<PublicKey>,
        clients: Option<BTreeSet<ClientId>>,
        scheme: Arc<dyn Scheme>,
    ) -> Result<Self, BadMembership> {
        let name = name.into();
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(BadMembership::Name(name.len()));
        }
        let count = u8::try_from(replicas.len()).unwrap_or(u8::MAX);
        let size = ClusterSize::new(count, faulty)?;
        for (id, key) in size.members().zip(&replicas) {
            if !scheme.is_sound(key) {
                return Err(BadMembership::WeakReplicaKey(id));
            }
            if let Some((other, _)) =
                size.members().zip(&replicas).find(|(other, k)| *other < id && *k == key)
            {
                return Err(BadMembership::SharedKey(other, id));
            }
        }
        if let Some(count) = clients.as_ref().map(BTreeSet::len).filter(|n| *n > CLIENTS_MAX) {
            return Err(BadMembership::Clients(count));
        }
        if let Some(weak) =
            clients.iter().flatten().find(|client| !scheme.is_sound(&PublicKey::from(**client)))
        {
            return Err(BadMembership::WeakClientKey(*weak));
        }
        let initial_state = None;
        let genesis =
            Genesis { name: &name, faulty, replicas: &replicas, initial_state: None }.digest();
        let client_list = ClientList(clients.as_ref()).digest();
        Ok(Self { name, size, replicas, clients, client_list, initial_state, genesis, scheme })
    }

    /// The cluster of the same members that begins with the application's state of this digest: a
    /// backup's. It is another cluster, with another genesis digest.
    #[must_use]
    pub fn beginning_with(self, state: Digest) -> Self {
        let genesis = Genesis {
            name: &self.name,
            faulty: self.size.faulty(),
            replicas: &self.replicas,
            initial_state: Some(&state),
        };
        let genesis = genesis.digest();
        Self { initial_state: Some(state), genesis, ..self }
    }

    /// The digest of the application's state before slot 1; `None` where it begins empty.
    #[must_use]
    pub fn initial_state(&self) -> Option<&Digest> {
        self.initial_state.as_ref()
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `n` and `f`.
    #[must_use]
    pub fn size(&self) -> ClusterSize {
        self.size
    }

    /// `h_0`; part of every signature, so that no message of another cluster verifies here.
    #[must_use]
    pub fn genesis(&self) -> &Digest {
        &self.genesis
    }

    /// The key of a member.
    #[must_use]
    pub fn replica_key(&self, id: ReplicaId) -> Option<&PublicKey> {
        self.replicas.get(usize::from(id.0))
    }

    /// The member with this key.
    #[must_use]
    pub fn replica_with_key(&self, key: &PublicKey) -> Option<ReplicaId> {
        self.size.members().zip(&self.replicas).find(|(_, k)| *k == key).map(|(id, _)| id)
    }

    /// The digest of the list of clients. It is no part of the [genesis digest](Self::genesis).
    #[must_use]
    pub fn client_list(&self) -> &Digest {
        &self.client_list
    }

    /// The clients listed; `None` where anybody may speak.
    #[must_use]
    pub fn clients(&self) -> Option<&BTreeSet<ClientId>> {
        self.clients.as_ref()
    }

    /// Whether any client may speak.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.clients.is_none()
    }

    /// Whether this client may speak.
    #[must_use]
    pub fn admits(&self, client: &ClientId) -> bool {
        self.clients.as_ref().is_none_or(|clients| clients.contains(client))
    }

    /// The same cluster, with this list of clients, of which none may be weak.
    #[must_use]
    pub fn listing(&self, clients: BTreeSet<ClientId>) -> Self {
        let client_list = ClientList(Some(&clients)).digest();
        Self { clients: Some(clients), client_list, ..self.clone() }
    }

    /// The same cluster, whose signatures are checked by what `wrap` makes of the present scheme: a
    /// cache in front of it, for one. The answers must stay the same.
    #[must_use]
    pub fn with_scheme(&self, wrap: impl FnOnce(Arc<dyn Scheme>) -> Arc<dyn Scheme>) -> Self {
        Self { scheme: wrap(Arc::clone(&self.scheme)), ..self.clone() }
    }

    /// How signatures are checked here.
    #[must_use]
    pub fn scheme(&self) -> &dyn Scheme {
        &*self.scheme
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("name", &self.name)
            .field("size", &self.size)
            .field("genesis", &self.genesis)
            .finish_non_exhaustive()
    }
}
