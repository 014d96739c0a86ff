//! What a world needs to know of the application it replicates.

use bytes::Bytes;
use elea_protocol::application::Application;

use crate::check::linear::{self, Decided, EnvironmentOp, StrongOp};
use crate::journal::Journal;
use crate::rng::Rng;
use crate::violation::Violation;

/// The most steps of the search for a linearization.
const SEARCH_STEPS: u64 = 200_000;

/// An application under test and a source of operations for it.
pub trait Subject: 'static {
    /// The application.
    type App: Application;

    /// A fresh one, in the state before slot 1. In bad memory it may lose something now and then,
    /// if it knows how to.
    fn application(in_bad_memory: bool) -> Self::App;

    /// The state in words or as a digest: equal states, equal words.
    fn describe(application: &Self::App) -> String;

    /// An operation. Keys are few, so that operations meet.
    fn operation(rng: &mut Rng) -> Bytes;

    /// Whether an operation changes nothing, so that clients need not have it ordered.
    fn only_reads(operation: &Bytes) -> bool;

    /// Whether strong operations are linearizable, where there is a sequential model of it.
    ///
    /// # Errors
    /// I8: they are not.
    fn check_strong(
        _strong: &[StrongOp],
        _environment: &[EnvironmentOp],
    ) -> Result<Decided, Violation> {
        Ok(Decided::Unknown)
    }
}

/// Worlds of the [`Journal`].
pub struct JournalWorld;

impl Subject for JournalWorld {
    type App = Journal;

    fn application(in_bad_memory: bool) -> Journal {
        if in_bad_memory { Journal::in_bad_memory() } else { Journal::default() }
    }

    fn describe(application: &Journal) -> String {
        application.describe()
    }

    fn operation(rng: &mut Rng) -> Bytes {
        let key = rng.between(0, 3);
        let text = match rng.between(0, 9) {
            0 | 1 => format!("put k{key} {}", rng.between(0, 99)),
            2 | 3 => format!("get k{key}"),
            4..=6 => format!("incr k{key} {}", rng.between(1, 9)),
            7 => format!("append log {} ", rng.between(0, 99)),
            8 => format!("draw k{key}"),
            _ => "nonsense".into(),
        };
        text.into()
    }

    fn only_reads(operation: &Bytes) -> bool {
        operation.starts_with(b"get ")
    }

    fn check_strong(
        strong: &[StrongOp],
        environment: &[EnvironmentOp],
    ) -> Result<Decided, Violation> {
        linear::check_strong(strong, environment, SEARCH_STEPS)
    }
}
