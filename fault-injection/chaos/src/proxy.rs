//! A way between two parties that can be made as bad as a network can be, and that hears all that
//! passes.
//!
//! Every party dials every replica through a way of its own, so each ordered pair can be treated
//! by itself, and each direction of it. What a speaker wrote is heard *before* anything is done
//! with it: a recorder knows a word at least as early as anybody else does, and also knows those
//! that a fault then swallows.
//!
//! A dialler whose way is cut, or whose replica is down, is not refused: its connection is taken
//! and held, as on the other side of a broken network, and goes on by itself when it can.

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use elea_processes::acceptor::{Acceptor, let_through};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::condition::Treatment;
use crate::line::State;
use crate::pump::{self, Sockets};
use crate::seals::Ends;
use crate::tap::{Heard, Hears, Tap, Wire};
use crate::voice::Speaker;

/// How long a connection to a replica of this machine may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A listener that passes everything on to one replica. Dropping it closes all of it.
#[derive(Debug)]
pub struct Way {
    /// Who dials whom.
    pub wire: Wire,
    acceptor: Acceptor,
    state: watch::Sender<State>,
    /// How many are listening to the dialler and to the replica.
    listening: watch::Sender<[usize; 2]>,
    /// How many bits turned.
    turned: Arc<AtomicU64>,
}

impl Way {
    /// Opens a way at this address, at a port that the system chooses. With `ends` what is said on it is encrypted, and
    /// opened where anybody wants to hear it or it is to be spoilt.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn open(
        wire: Wire,
        at: IpAddr,
        hears: Hears,
        ends: Option<Ends>,
    ) -> io::Result<Self> {
        let (state, told) = watch::channel(State::default());
        let (listening, _) = watch::channel([0; 2]);
        let turned = Arc::default();
        let carrier = Arc::new(Carrier {
            wire,
            hears,
            ends,
            state: told,
            listening: listening.clone(),
            turned: Arc::clone(&turned),
        });
        let carry = move |near| Arc::clone(&carrier).carry(near);
        Ok(Self { wire, acceptor: Acceptor::open(at, carry).await?, state, listening, turned })
    }

    /// Where to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Changes what the way does.
    pub fn set(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Treats what passes so from now on. What no longer waits passes at once.
    pub fn treat(&self, treatment: Treatment) {
        self.state.send_if_modified(|state| {
            let before = (state.is_cut, state.there, state.back);
            let Treatment { is_cut, there, back, .. } = treatment;
            if before == (is_cut, there, back) {
                return false;
            }
            // Whoever is connected has to notice that the way is closed.
            state.resets += u64::from(is_cut && !state.is_cut);
            (state.is_cut, state.there, state.back) = (is_cut, there, back);
            true
        });
    }

    /// Resets all connections.
    pub fn reset(&self) {
        self.set(|state| state.resets += 1);
    }

    /// Where the replica listens, while it runs.
    #[must_use]
    pub fn target(&self) -> Option<SocketAddr> {
        self.state.borrow().target
    }

    /// How many bits turned on it.
    #[must_use]
    pub fn turned(&self) -> u64 {
        self.turned.load(Ordering::Relaxed)
    }

    /// The dialler is dead. Returns when all that it ever wrote was heard.
    pub async fn dialler_died(&self) {
        self.set(|state| state.diallers_dead += 1);
        self.heard_out(0).await;
    }

    /// The replica is dead, and nobody listens where it did. Returns when all that it ever wrote
    /// was heard.
    pub async fn replica_died(&self) {
        self.set(|state| {
            state.replicas_dead += 1;
            state.target = None;
        });
        self.heard_out(1).await;
    }

    async fn heard_out(&self, speaker: usize) {
        // The sender is ours, so this cannot fail.
        let _ = self.listening.subscribe().wait_for(|count| count[speaker] == 0).await;
    }
}

/// What every connection of a way needs.
struct Carrier {
    wire: Wire,
    hears: Hears,
    ends: Option<Ends>,
    state: watch::Receiver<State>,
    listening: watch::Sender<[usize; 2]>,
    turned: Arc<AtomicU64>,
}

impl Carrier {
    /// Whether anybody looks into what passes. Nobody else is to stand between those who speak.
    fn is_opened(&self) -> bool {
        let state = self.state.borrow();
        !self.hears.is_closed() || state.there.spoils_states || state.back.spoils_states
    }

    /// Carries one connection until either end closes it or it is reset.
    async fn carry(self: Arc<Self>, near: TcpStream) {
        let mut state = self.state.clone();
        let open = |state: &State| {
            let target = state.target.filter(|_| !state.is_cut)?;
            Some((target, state.resets))
        };
        let Some((target, resets)) = let_through(&near, &mut state, open).await else { return };
        let Ok(Ok(far)) = timeout(DIAL_TIMEOUT, TcpStream::connect(target)).await else { return };
        if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
            return;
        }
        let speaker = |is_dialler| {
            let tap = Tap::new(self.wire, is_dialler, self.hears.clone());
            Speaker::new(is_dialler, &self.state, &self.listening, tap)
        };
        let speakers = [speaker(true), speaker(false)];
        let ends = self.ends.as_ref().filter(|_| self.is_opened());
        let mut sockets = Sockets { near: near.into_split(), far: far.into_split() };
        let was_reset = tokio::select! {
            biased;
            _ = state.wait_for(|state| state.resets != resets) => true,
            () = pump::carry(&mut sockets, speakers, ends, &self.turned) => false,
        };
        if was_reset {
            // So that both ends see a reset and no clean end. Where it fails, they see that.
            let _ = sockets.near.0.as_ref().set_zero_linger();
            let _ = sockets.far.0.as_ref().set_zero_linger();
            let _ = self.hears.send(Heard::Reset(self.wire)).await;
        }
    }
}
