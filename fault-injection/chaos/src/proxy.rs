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

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use elea_processes::acceptor::{Acceptor, let_through};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::condition::Treatment;
use crate::line::State;
use crate::pump::{self, Speaker};
use crate::tap::{Heard, Hears, Tap, Wire};

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
}

impl Way {
    /// Opens a way at this address, at a port that the system chooses.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn open(wire: Wire, at: IpAddr, hears: Hears) -> io::Result<Self> {
        let (state, told) = watch::channel(State::default());
        let (listening, _) = watch::channel([0; 2]);
        let carrier = Arc::new(Carrier { wire, hears, state: told, listening: listening.clone() });
        let carry = move |near| Arc::clone(&carrier).carry(near);
        Ok(Self { wire, acceptor: Acceptor::open(at, carry).await?, state, listening })
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
    state: watch::Receiver<State>,
    listening: watch::Sender<[usize; 2]>,
}

impl Carrier {
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
        let deaths = *self.state.borrow();
        let there = Speaker {
            is_dialler: true,
            deaths: deaths.diallers_dead,
            state: self.state.clone(),
            listening: self.listening.clone(),
            tap: Tap::new(self.wire, true, self.hears.clone()),
        };
        let back = Speaker {
            is_dialler: false,
            deaths: deaths.replicas_dead,
            tap: Tap::new(self.wire, false, self.hears.clone()),
            state: self.state.clone(),
            listening: self.listening.clone(),
        };
        let (mut near_read, mut near_write) = near.into_split();
        let (mut far_read, mut far_write) = far.into_split();
        let was_reset = tokio::select! {
            biased;
            _ = state.wait_for(|state| state.resets != resets) => true,
            _ = async {
                tokio::join!(
                    pump::carry(&mut near_read, &mut far_write, there),
                    pump::carry(&mut far_read, &mut near_write, back),
                )
            } => false,
        };
        if was_reset {
            // So that both ends see a reset and no clean end. Where it fails, they see that.
            let _ = near_read.as_ref().set_zero_linger();
            let _ = far_read.as_ref().set_zero_linger();
            let _ = self.hears.send(Heard::Reset(self.wire)).await;
        }
    }
}
