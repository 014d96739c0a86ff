//! Histories that are not the own one: fetched from their end downwards, checked by their hashes.
//!
//! `(n, h_n)` names a whole history, so whoever knows the end can check each slot below it, and
//! nobody has to be believed. A branch is of use once it reaches something that is known: the own
//! history, or a state that was transferred.
//!
//! Each history that is wanted has a [`Trail`](super::trail::Trail): how far it has been followed, what its slots take, and
//! how far they were looked through. So no event walks a history again, and what an event costs does not
//! depend on how long the histories are that happen to be here. A slot goes when the last trail
//! through it goes. Both take [turns](crate::replica::time::Turn).
//!
//! What is wanted on the word of one replica alone, and proved by nothing, may be invented. So each
//! replica has a [`Credit`] of slots that may be fetched on its word. It has room for the longest history
//! that an honest one can show, and then grows slowly, the more slowly the more was fetched in vain.

mod asking;
mod branches;
mod credit;
mod following;
mod questions;
mod serving;

pub(in crate::replica) use self::branches::{Branches, Side};
pub(in crate::replica) use self::credit::Credit;
use crate::id::ReplicaId;
use crate::message::Position;

/// So many slots are followed, or let go, in one step of a turn.
const FOLLOWED_A_STEP: u64 = 16;

/// A history wanted by its end, and who has it.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) end: Position,
    pub(super) holders: Vec<ReplicaId>,
    /// On whose word alone it is wanted: nothing proves that there is such a history.
    pub(super) word: Option<ReplicaId>,
}
