//! What every connection needs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use elea_net::Identity;
use elea_protocol::id::ReplicaId;
use elea_protocol::membership::Membership;
use elea_protocol::message::{Transport, WireVersions};
use elea_protocol::replica::{Driver, Setup};
use elea_protocol::signature::Signer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::back::Back;
use crate::certified::Certified;
use crate::clients::Clients;
use crate::counters::Counters;
use crate::doubles::Doubles;
use crate::inbox::Inbox;
use crate::limits::Limits;
use crate::store::Files;
use crate::terms::Agreement;
use crate::waiting::Waiting;

/// What every connection needs.
pub(crate) struct Shell {
    pub(crate) me: ReplicaId,
    pub(crate) membership: Arc<Membership>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    pub(crate) agreement: Arc<Agreement>,
    /// Which versions of frames it speaks.
    pub(crate) wire: WireVersions,
    pub(crate) files: Files,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) certified: Arc<Certified>,
    pub(crate) clients: Arc<Clients>,
    /// Signs for this replica that it is the one that was reached.
    pub(crate) signer: Arc<dyn Signer>,
    /// Proves in a handshake that it is; `None` where connections are plain.
    pub(crate) identity: Option<Identity>,
    /// This process, among all that may ever have used the key.
    pub(crate) instance: u64,
    pub(crate) doubles: Arc<Doubles>,
    /// By peer id: the connection that it dialled last, for what is to be said to it.
    pub(crate) backs: Vec<watch::Sender<Option<Back>>>,
    /// By peer: cancelled when it dials anew.
    pub(crate) peers: Mutex<HashMap<ReplicaId, CancellationToken>>,
    pub(crate) waiting: Arc<Waiting>,
    /// No connection is accepted any more.
    pub(crate) no_more: CancellationToken,
    /// Connections say farewell.
    pub(crate) stopping: CancellationToken,
}

impl Shell {
    pub(crate) fn new(
        setup: &Setup,
        (transport, wire): (Transport, WireVersions),
        limits: Limits,
        counters: &Arc<Counters>,
        agreement: Arc<Agreement>,
        files: Files,
    ) -> Self {
        let replicas = setup.membership.size().replicas();
        Self {
            me: setup.id,
            membership: Arc::clone(&setup.membership),
            limits,
            counters: Arc::clone(counters),
            agreement,
            wire,
            files,
            inbox: Arc::new(Inbox::new(replicas, &limits)),
            certified: Arc::default(),
            clients: Clients::new(limits, Arc::clone(counters)),
            signer: Arc::clone(&setup.signer),
            identity: (transport == Transport::Encrypted).then(|| identity(&setup.signer, wire)),
            instance: rand::random(),
            doubles: Doubles::new(Arc::clone(counters)),
            backs: (0..replicas).map(|_| watch::channel(None).0).collect(),
            peers: Mutex::new(HashMap::new()),
            waiting: Waiting::new(limits.handshakes, Arc::clone(counters)),
            no_more: CancellationToken::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// What is known beside the core.
    pub(crate) fn driver(&self) -> Driver {
        Driver {
            counters: self.counters.all(),
            transport: self.transport(),
            disk: self.files.health(),
            doubled: self.doubles.told(),
            disagreements: self.agreement.disagreements(),
        }
    }

    /// How connections are protected.
    pub(crate) fn transport(&self) -> Transport {
        match self.identity {
            Some(_) => Transport::Encrypted,
            None => Transport::Plain,
        }
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.handshake_timeout_ms)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.write_timeout_ms)
    }

    /// Has what is to be said to a peer go over this connection where there is no better way.
    pub(crate) fn offer(&self, peer: ReplicaId, back: &Back) {
        if let Some(way) = self.backs.get(usize::from(peer.0)) {
            way.send_replace(Some(back.clone()));
        }
    }

    pub(crate) fn peers(&self) -> MutexGuard<'_, HashMap<ReplicaId, CancellationToken>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(signer: &Arc<dyn Signer>, wire: WireVersions) -> Identity {
    let (key, signer) = (signer.public_key().0, Arc::clone(signer));
    let prove = move |transcript: &[u8]| signer.sign_handshake(transcript).map(|signed| signed.0);
    Identity::new(key, prove, &wire.application_protocols())
}
