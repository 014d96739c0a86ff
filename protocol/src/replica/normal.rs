//! The normal case: a request becomes a slot, and a slot final.
//!
//! | file | what is in it |
//! |---|---|
//! | `intake` | requests as they come: what is refused, and what waits |
//! | `pending`, `orphans` | requests that wait to be ordered; those of them that were executed in an abandoned history |
//! | `shares` | which part of the suffix is whose |
//! | `passing_on`, `named` | what waits here is passed on to the others, or named; what they named |
//! | `admission`, `client_lists` | which clients are admitted, where replicas list different ones |
//! | `editions` | by which rules slots are executed, while programs are updated one after the other |
//! | `primary`, `pipeline`, `gathering`, `pacing` | what goes into the next slot, and when; the primary's own slots until they are done; waiting for company; pauses between what is heavy |
//! | `backup` | which orders are followed, and those above the head |
//! | `acceptance` | a slot is recorded, executed and answered |
//! | `execution` | application and sessions, slot by slot, with the way back |
//! | `answer` | what clients are told, from execution and from memory |
//! | `queries` | what clients are told of the state without a slot |
//! | `commit`, `ballots`, `votes`, `lock` | commit points, votes cast and heard, certificates, the lock |
//! | `fetch`, `fetching` | asking for what is missing, slots and requests of the own history above all, and what was asked for; answering whoever asks |
//! | `budget` | how much whoever asks may be sent |

mod acceptance;
mod admission;
mod answer;
mod backup;
mod ballots;
mod budget;
mod client_lists;
mod commit;
mod editions;
mod execution;
mod fetch;
mod fetching;
mod gathering;
mod intake;
mod lock;
mod named;
mod orphans;
mod pacing;
mod passing_on;
mod pending;
mod pipeline;
mod primary;
mod queries;
mod shares;
mod votes;

pub(super) use self::backup::{OrdersAhead, header_of};
pub(super) use self::ballots::Ballots;
pub(super) use self::budget::{BUDGET_LEAST, Budget};
pub(super) use self::client_lists::PeerClients;
pub(super) use self::editions::Common;
pub(super) use self::execution::Undone;
pub use self::execution::{Execution, RESULT_BYTES_MAX, SLOT_RESULT_BYTES_MAX};
pub(super) use self::fetching::Fetching;
pub(super) use self::lock::Lock;
pub(super) use self::named::Named;
pub(super) use self::pending::Pending;
pub(super) use self::pipeline::Pipeline;
pub(super) use self::queries::Queries;
pub(super) use self::shares::Shares;
pub(super) use self::votes::Heard;
