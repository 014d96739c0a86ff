//! Checkpoints, and states instead of the slots that led to them.
//!
//! | file | what is in it |
//! |---|---|
//! | `checkpoint` | votes for a state, stability, what is given up |
//! | `stable` | what is never undone, and whether the own state is right |
//! | `states`, `serving` | the own states at hand; how they are taken and given |
//! | `transfer`, `offers` | a state on its way here; others on offer, for when nothing comes |
//! | `trust` | the own state is found to be wrong, or right again |
//! | `settle` | how the disk is kept small |

mod checkpoint;
mod offers;
mod serving;
mod settle;
mod stable;
mod states;
mod transfer;
mod trust;

pub(super) use self::settle::Settling;
pub(super) use self::stable::Stable;
pub(super) use self::states::{States, Taken};
pub(super) use self::transfer::{Arriving, Transfer, Whole};
