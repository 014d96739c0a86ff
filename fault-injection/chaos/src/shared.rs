//! What all clients share, and what they all do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use elea_client::{Command, Done, Error, Level, Weak};
use elea_fault_injection::rng::Rng;
use elea_fault_injection::violation::Violation;
use elea_kv::Refused;
use elea_protocol::message::Position;
use elea_protocol::receipt::Receipt;

use crate::ledger::Ledger;
use crate::meter::Meter;
use crate::registers::Registers;
use crate::service::{Asked, Pace, Requests};

/// Entries of one book.
pub const BOOK: u64 = 100;

/// What all clients share.
#[derive(Default)]
pub struct Shared {
    /// What was promised.
    pub ledger: Ledger,
    /// What several of them read and write.
    pub registers: Registers,
    /// How much was answered.
    pub meter: Meter,
    /// What was asked for, for the judge of service.
    pub requests: Requests,
    violations: Mutex<Vec<Violation>>,
    is_over: AtomicBool,
}

impl Shared {
    /// Something that should not be.
    pub fn complain(&self, violation: Violation) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
    }

    /// The application refused what it must not refuse.
    pub fn refused(&self, key: &str, what: &str, why: &Refused) {
        self.complain(Violation::new("refused", format!("{key} refuses {what}: {why}")));
    }

    /// What was complained of.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether clients should stop.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Clients should stop.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// A client asks for this now.
    #[must_use]
    pub fn asks(&self, client: usize, level: Level, pace: Pace, bytes: u64) -> Asked {
        Asked { client, level, pace, at: self.meter.micros(), answered: None, bytes }
    }

    /// And has its answer now, or none.
    pub fn has(&self, asked: Asked, is_answered: bool) {
        let answered = is_answered.then(|| self.meter.micros());
        if is_answered {
            self.meter.answered(asked.level, asked.at);
        }
        self.requests.push(Asked { answered, ..asked });
    }

    /// A final answer names the history it lies on.
    pub fn is_final(&self, receipt: &Receipt) {
        self.ledger.is_final(Position { slot: receipt.reply.slot, hash: receipt.reply.hash });
    }
}

/// About as long as `pause`.
pub async fn rest(pause: Duration, rng: &mut Rng) {
    let most = u64::try_from(pause.as_micros() * 2).unwrap_or(u64::MAX);
    tokio::time::sleep(Duration::from_micros(rng.between(0, most))).await;
}

/// Counts it; what only a mistake can cause is a complaint.
pub fn unanswered(shared: &Shared, level: Level, error: &Error) {
    shared.meter.failed(level);
    if let Error::Undecodable(_) | Error::OutOfBounds | Error::Configuration(_) = error {
        shared.complain(Violation::new("answer", error.to_string()));
    }
}

/// What a weak answer became, once it is final.
pub async fn finality<C, T>(
    weak: Weak<C>,
) -> Result<(Result<T, Refused>, (u64, u32), Arc<Receipt>), Error>
where
    C: Command<Output = Result<T, Refused>> + Clone,
    T: Clone,
{
    let (result, version) = (weak.result.clone(), weak.version);
    Ok(match weak.finality().await? {
        Done::Same { receipt } => (result, (version.0.0, version.1), receipt),
        Done::Reordered { result, version, receipt } => (result, (version.0.0, version.1), receipt),
    })
}
