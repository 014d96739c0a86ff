//! The Elea protocol, pure: messages, the replica's state machine and the client's.
//!
//! No clock, disk, socket or thread is in here. Time and randomness come in as arguments, bytes
//! come in decoded and verified, and everything a replica wants of the world goes out as a list
//! of [actions](replica::Action), each send with the durable record it depends on.
//!
//! Start with [`replica`] for what a replica does, [`client`] for what a client does, and
//! `docs/protocol.md` for why.

// The core has no function that is longer than a screen.
#![warn(clippy::too_many_lines)]
// Nothing from outside makes it panic; where it panics, it says which of its own rules is broken.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::unwrap_used))]

pub mod address;
pub mod application;
pub mod client;
pub mod cluster_file;
pub mod codec;
pub mod edition;
pub(crate) mod estimate;
pub mod evidence;
pub mod history;
pub mod id;
pub mod membership;
pub mod merkle;
pub mod message;
pub mod quorum;
pub mod receipt;
pub mod replica;
pub mod rows;
pub mod seal;
pub mod signature;
pub mod trie;
pub mod tuning;
