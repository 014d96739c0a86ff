//! Everybody in a world who is not a replica: honest processes first, hostile ones after them.

use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::client::Timing;
use elea_protocol::id::{ClientId, ReplicaId, SessionId};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Position, ToClient};

use crate::coverage::Coverage;
use crate::hostile::Hostile;
use crate::keys::Keyring;
use crate::network::Party;
use crate::patron::{Patron, Wants};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::subject::Subject;
use crate::violation::Violation;

/// See the [module](self).
pub struct Clients {
    /// The honest ones.
    pub patrons: Vec<Patron>,
    hostiles: Vec<Hostile>,
}

/// How patient simulated clients are: less than real ones, so that they come again more often.
pub const TIMING: Timing = Timing { first_retry_ms: 150, max_retry_ms: 1200, stall_ms: 700 };

impl Clients {
    /// The clients of a plan.
    #[must_use]
    pub fn new(plan: &Plan, membership: &Arc<Membership>, keys: &Keyring, rng: &mut Rng) -> Self {
        let window = plan.tuning.rules.session_window;
        let patrons = plan
            .patrons
            .iter()
            .enumerate()
            .map(|(index, planned)| {
                let key = planned.key_of.map_or(index, usize::from);
                let (membership, signer) = (membership.clone(), keys.clients[key].clone());
                Patron::new(membership, signer, *planned, window, TIMING, rng.fork())
            })
            .collect();
        let hostiles = plan
            .hostiles
            .iter()
            .enumerate()
            .map(|(index, kind)| {
                let signer = keys.clients[plan.patrons.len() + index].clone();
                let victim = keys.clients[0].public_key().into();
                Hostile::new(kind, signer, victim, plan, *membership.genesis(), rng.fork())
            })
            .collect();
        Self { patrons, hostiles }
    }

    /// Whether this process is an honest one.
    #[must_use]
    pub fn is_honest(&self, index: u16) -> bool {
        usize::from(index) < self.patrons.len()
    }

    /// Whose process it is.
    #[must_use]
    pub fn id_of(&self, index: u16) -> ClientId {
        let index = usize::from(index);
        match self.patrons.get(index) {
            Some(patron) => patron.id(),
            None => self.hostiles[index - self.patrons.len()].id(),
        }
    }

    /// The processes of a client.
    #[must_use]
    pub fn parties_of(&self, client: &ClientId, _session: Option<SessionId>) -> Vec<Party> {
        let all = self.patrons.len() + self.hostiles.len();
        (0..u16::try_from(all).expect("few clients"))
            .filter(|index| self.id_of(*index) == *client)
            .map(Party::Client)
            .collect()
    }

    /// An honest process submits something.
    ///
    /// # Errors
    /// As [`Patron::load`].
    pub fn load<S: Subject>(&mut self, index: u16, time: u64) -> Result<Wants, Violation> {
        self.patrons[usize::from(index)].load(time, S::operation, S::only_reads)
    }

    /// A hostile one does something: from whom, to whom, what.
    pub fn attack(&mut self, index: u16) -> Vec<(Party, u8, Bytes)> {
        let party = self.patrons.len() + usize::from(index);
        let party = Party::Client(u16::try_from(party).expect("few clients"));
        let shots = self.hostiles[usize::from(index)].act();
        shots.into_iter().map(|(to, bytes)| (party, to, bytes)).collect()
    }

    /// A hostile process learns which piece of a state it lacks of those that it copies from a replica.
    pub fn note_lacking(&mut self, index: u16, replica: u8, piece: Option<(Position, u32)>) {
        let index = usize::from(index).checked_sub(self.patrons.len());
        if let Some(hostile) = index.and_then(|index| self.hostiles.get_mut(index)) {
            hostile.note_lacking(replica, piece);
        }
    }

    /// Words arrive at a process. Hostile ones do not listen.
    ///
    /// # Errors
    /// As [`Patron::hear`].
    pub fn hear(
        &mut self,
        index: u16,
        time: u64,
        from: ReplicaId,
        words: ToClient,
    ) -> Result<Wants, Violation> {
        match self.patrons.get_mut(usize::from(index)) {
            Some(patron) => patron.hear(time, from, words),
            None => Ok(Wants::default()),
        }
    }

    /// When a process wants to be woken.
    #[must_use]
    pub fn wake_at(&self, index: u16) -> Option<u64> {
        self.patrons.get(usize::from(index)).and_then(Patron::wake_at)
    }

    /// The time has come.
    ///
    /// # Errors
    /// As [`Patron::wake`].
    pub fn wake(&mut self, index: u16, time: u64) -> Result<Wants, Violation> {
        match self.patrons.get_mut(usize::from(index)) {
            Some(patron) => patron.wake(time),
            None => Ok(Wants::default()),
        }
    }

    /// Submissions of honest clients that are not done with.
    #[must_use]
    pub fn open(&self) -> usize {
        self.patrons.iter().map(Patron::open).sum()
    }

    /// What the honest ones counted.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        self.patrons.iter().for_each(|patron| coverage.absorb(&patron.coverage));
        coverage
    }
}
