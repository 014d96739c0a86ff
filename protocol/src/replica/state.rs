//! Checkpoints, and states instead of the slots that led to them.
//!
//! | file | what is in it |
//! |---|---|
//! | `checkpoint` | votes for a state, stability, what is given up |
//! | `stable` | what is never undone, and whether the own state is right |
//! | `states`, `serving` | the own states at hand; how they are taken and given |
//! | `transfer`, `pieces`, `sources`, `offers` | a state on its way here: what is here of it, whom the rest is asked of, and others on offer, for when nothing comes |
//! | `arriving`, `fetching`, `installing` | the one that is fetched and the one that is here whole; fetching the one, putting the other in place |
//! | `trust` | the own state is found to be wrong, or right again |
//! | `settle` | how the disk is kept small |

mod arriving;
mod checkpoint;
mod fetching;
mod installing;
mod offers;
mod pieces;
mod serving;
mod settle;
mod sources;
mod stable;
mod states;
mod transfer;
mod trust;

pub(super) use self::arriving::Arriving;
pub(super) use self::settle::Settling;
pub(super) use self::stable::Stable;
pub(super) use self::states::{States, Taken};
pub(super) use self::transfer::{Transfer, Whole};
