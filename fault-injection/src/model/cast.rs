//! Who plays in a scene: identities, settings, and what clients ask for. None of it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::edition::Editions;
use elea_protocol::id::{ClientId, Digest, ReplicaId, RequestNumber, SessionId};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Message, Request, SignedRequest, SlotEntry};
use elea_protocol::quorum::ClusterSize;
use elea_protocol::replica::{Event, Setup};
use elea_protocol::tuning::{Rules, Tuning};

use super::letter::{Letter, Place};
use super::liars;
use super::machine::Machine;
use super::scene::Scene;
use crate::check::{Bounds, Checker};
use crate::disk::Disk;
use crate::keys::Keyring;
use crate::plan::NEVER_MS;
use crate::rng::Rng;
use crate::violation::Violation;

/// The replicas of every scene.
const REPLICAS: u8 = 4;

/// The parties of a scene: who is correct, who lies, and with which keys.
pub struct Cast {
    /// The cluster.
    pub membership: Arc<Membership>,
    /// The machines. A liar without one speaks all the same.
    pub places: Vec<Place>,
    /// Whose replies and signatures prove nothing.
    pub liars: BTreeSet<ReplicaId>,
    /// What clients ask for, each with the machines it is sent to.
    pub requests: Vec<(Arc<SignedRequest>, &'static [usize])>,
    keys: Keyring,
    tuning: Tuning,
    size: ClusterSize,
    put_back: &'static [usize],
    may_restart: bool,
}

/// Few deadlines, close to each other: it takes a few ticks to lose patience with a primary, and a
/// few more to begin a view. Checkpoints after every second slot.
fn tuning() -> Tuning {
    Tuning {
        rules: Rules { checkpoint_interval: 2, max_speculative_slots: 8, ..Rules::default() },
        commit_delay_ms: 5,
        checkpoint_delay_ms: NEVER_MS,
        status_interval_ms: 60,
        request_timeout_ms: 20,
        request_timeout_min_ms: 20,
        view_change_timeout_ms: 60,
        view_change_timeout_max_ms: 120,
        weak_view_delay_ms: 20,
        fetch_grace_ms: 1,
        fetch_retry_ms: 30,
        batch_wait_ms: 1,
        batch_requests: 1,
        pipeline_slots: 4,
        ..Tuning::default()
    }
}

impl Cast {
    /// The cast of a scene.
    ///
    /// # Panics
    /// Never: scenes are part of the source.
    #[must_use]
    pub fn new(scene: &Scene) -> Self {
        let size = ClusterSize::most_tolerant(REPLICAS).expect("a valid size");
        let keys = Keyring::new(&mut Rng::new(0xe1ea), usize::from(REPLICAS), 1, false);
        let membership = Membership::new(
            "modelled",
            size.faulty(),
            keys.replica_keys(),
            None,
            keys.scheme.clone(),
        );
        let membership = Arc::new(membership.expect("a sound cluster"));
        let tuning = tuning();
        tuning.check().expect("sound settings");
        let mut places: Vec<Place> = Vec::new();
        for (index, id) in scene.machines.iter().enumerate() {
            let id = ReplicaId(*id);
            let is_twin = places.iter().any(|place| place.id == id);
            places.push(Place { index, id, is_twin });
        }
        let requests = (1..).zip(scene.requests).map(|(number, (level, operation, reached))| {
            let body = Request {
                client: keys.client_id(0),
                session: SessionId(1),
                number: RequestNumber(number),
                level: *level,
                want_final: false,
                operations: vec![Bytes::from_static(operation.as_bytes())],
            };
            (SignedRequest::sign(&*keys.clients[0], membership.genesis(), body), *reached)
        });
        Self {
            requests: requests.collect(),
            liars: scene.liars.iter().map(|id| ReplicaId(*id)).collect(),
            put_back: scene.put_back,
            may_restart: scene.bounds.restarts > 0,
            membership,
            places,
            keys,
            tuning,
            size,
        }
    }

    /// A strong quorum, stated a second time.
    #[must_use]
    pub fn strong(&self) -> usize {
        let (replicas, faulty) = (self.size.replicas(), self.size.faulty());
        usize::from((replicas + faulty) / 2 + 1)
    }

    /// What a machine is made of, in its so-many-th life, with what is on its disk.
    #[must_use]
    pub fn setup(&self, place: Place, life: u32, disk: &Disk) -> Setup {
        let is_new = |(_, entry): &(Digest, SlotEntry)| entry.choices.edition.application > 1;
        let may_be_old = life > 0 && self.put_back.contains(&place.index);
        let newest =
            match self.put_back.is_empty() || (may_be_old && !disk.slots().iter().any(is_new)) {
                true => 1,
                false => 2,
            };
        let seed = (place.index as u64) << 32 | u64::from(life);
        Setup {
            id: place.id,
            membership: self.membership.clone(),
            signer: self.keys.replicas[usize::from(place.id.0)].clone(),
            tuning: self.tuning,
            editions: Editions::with(1..=newest),
            seed: Rng::new(seed).bytes(),
        }
    }

    /// A machine that starts for the first time.
    ///
    /// # Errors
    /// It does not start.
    pub fn machine(&self, place: Place) -> Result<Arc<Machine>, Violation> {
        Machine::new(self.setup(place, 0, &Disk::default()), self.may_restart).map(Arc::new)
    }

    /// The checkers of this cluster. Its only client is honest.
    #[must_use]
    pub fn checker(&self) -> Checker {
        let honest: BTreeSet<ClientId> = [self.keys.client_id(0)].into();
        let bounds = Bounds::new(&self.tuning, self.size, honest.len());
        Checker::new(self.membership.clone(), honest, u64::MAX, bounds)
    }

    /// The machines of correct replicas.
    pub fn correct(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| !self.liars.contains(&place.id))
    }

    /// The event that a letter is. What a liar sends may be rejected, and is no event then.
    ///
    /// # Errors
    /// `honest`: a correct sender's letter is rejected.
    pub fn open(&self, letter: &Letter) -> Result<Option<Event>, Violation> {
        match letter.open(&self.membership) {
            Ok(event) => Ok(Some(event)),
            Err(_) if letter.words.from().is_some_and(|id| self.liars.contains(&id)) => Ok(None),
            Err(error) => Err(Violation::new("honest", format!("rejected: {error}: {letter}"))),
        }
    }

    /// What the liars make of the words of a correct replica.
    #[must_use]
    pub fn echoes(&self, message: &Message) -> Vec<(ReplicaId, Message)> {
        let genesis = self.membership.genesis();
        let echo = |liar: &ReplicaId| {
            let signer = &*self.keys.replicas[usize::from(liar.0)];
            Some((*liar, liars::echo(signer, genesis, *liar, message)?))
        };
        self.liars.iter().filter_map(echo).collect()
    }
}
