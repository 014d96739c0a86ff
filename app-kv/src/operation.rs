//! What a client asks for, as it is encoded.
//!
//! New variants go to the end, for replicas read the bytes of older clients.

use serde::{Deserialize, Serialize};

use crate::step::{Add, Append, Cas, Delete, Get, Incr, Members, Put, Remove, Scan, Step};
use crate::txn::Txn;

/// One operation, as it is encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// A single step.
    Step(Step),
    /// Steps under a condition.
    Txn(Txn),
}

macro_rules! operations {
    ($($command:ident)*) => {$(
        impl From<$command> for Operation {
            fn from(command: $command) -> Self {
                Self::Step(command.into())
            }
        }
    )*};
}
operations! { Get Put Delete Cas Incr Append Add Remove Members Scan }

impl From<Step> for Operation {
    fn from(step: Step) -> Self {
        Self::Step(step)
    }
}

impl From<Txn> for Operation {
    fn from(txn: Txn) -> Self {
        Self::Txn(txn)
    }
}
