//! The key-value application that Elea replicates.
//!
//! | command | does | merges |
//! |---|---|---|
//! | [`Get`] | reads a value | |
//! | [`Put`] | sets a value | the later one wins |
//! | [`Delete`] | removes a key | as `Put` |
//! | [`Cas`] | sets or removes a value if it is what was expected | one side wins |
//! | [`Incr`] | adds to an integer | all sides count |
//! | [`Append`] | appends to a value | all sides stay, in some order |
//! | [`Add`], [`Remove`] | put into a set, take out of it | all sides stay |
//! | [`Members`] | reads a set | |
//! | [`Scan`] | reads a range of keys, page by page | |
//! | [`Txn`] | compares, then does one of two lists of the above, atomically | as a whole |
//!
//! "Merges" is what becomes of two weak operations on the two sides of a partition: after it heals,
//! those of one side are executed anew behind those of the other. An operation that says what to
//! change, and not what the result should be, keeps its intent.
//!
//! # Keys, values, versions
//!
//! Keys and values are bytes. A key holds a *plain value* or a *set* of members, or is absent. An
//! integer is a plain value: everywhere it stands for its decimal text, as in `get`, `cas`,
//! `append` and comparisons, and a value whose text is a canonical decimal (no sign but `-`, no
//! leading zeros, within 64 bits) can be incremented. A set without members is an absent key.
//! Commands for sets refuse plain values and the other way round, except that `put` and `delete`
//! take whatever is there away.
//!
//! Every write has a [`Version`], the slot and index of the operation. An answer carries the
//! version that it wrote, or, for a read, the version that wrote what it read.
//!
//! # Limits
//!
//! Keys, values, members and pages have [limits](Limits), and so has what one request may cost: its operations
//! share a budget of steps, of bytes read, and of bytes kept in memory until they are final. What goes beyond
//! it is refused, and nothing of it is done. Long values are kept in pages and sets by their members, so a
//! change costs what it changes.
//!
//! # Use
//!
//! A client hands a command to the client library, which calls [`Command::encode`] and
//! [`Command::decode`]; a replica runs a [`KeyValueStore`]. Here both meet without a network:
//!
//! ```
//! use elea_kv::{Command, Incr, KeyValueStore, Put};
//! # use elea_protocol::application::{Application, Context};
//! # use elea_protocol::id::{ClientId, RequestNumber, SessionId, Slot, WallTime};
//! # use elea_protocol::message::Level;
//! # let context = |index| Context { slot: Slot(1), index, client: ClientId([0; 32]),
//! #     session: SessionId(1), number: RequestNumber(1), time: WallTime(0), seed: [0; 16],
//! #     level: Level::Weak, edition: 1 };
//! let mut store = KeyValueStore::new();
//! store.execute(&context(0), &Put::new("stock", "8").encode());
//!
//! let sell = Incr::new("stock", -1);
//! let answer = store.execute(&context(1), &sell.encode());
//! let sold = sell.decode(&answer)??;
//! assert_eq!((sold.value, sold.version.index), (7, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Each command has a constructor, and takes keys and values as text or bytes:
//!
//! ```
//! use elea_kv::{
//!     Add, Append, Cas, Delete, Get, Incr, Members, Put, Relation, Remove, Scan, Txn, Compare,
//! };
//!
//! let write = Put::new("colour", "green");
//! let read = Get::new("colour");
//! let gone = Delete::new("colour");
//! let first = Cas::create("lock/backup", "alice"); // only where it is absent
//! let hand_on = Cas::new("lock/backup", "alice", "bob"); // only where alice has it
//! let release = Cas::delete("lock/backup", "bob");
//! let sold = Incr::new("stock/bolts", -3);
//! let logged = Append::new("log", "three bolts sold\n");
//! let joins = Add::new("service/mail", "10.0.0.7:25");
//! let leaves = Remove::new("service/mail", "10.0.0.7:25");
//! let who = Members::new("service/mail");
//! let mut page = Scan::prefix("stock/").limit(100);
//! page = page.resume("stock/nuts".into()); // `Page::next` of the page before
//! # let _ = (write, read, gone, first, hand_on, release, sold, logged, joins, leaves, who, page);
//! ```
//!
//! To replicate something else, start from the counter in the examples: a whole application on one page.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod command;
mod cost;
mod execute;
mod limits;
mod operation;
mod outcome;
mod set;
mod snapshot;
mod state;
mod step;
mod store;
mod text;
mod txn;

pub use bytes::Bytes;
pub use elea_protocol::application::{Command, Undecodable};
pub use elea_protocol::id::Slot;

pub use self::limits::{BadLimits, Limits};
pub use self::operation::Operation;
pub use self::outcome::{
    Added, Answer, Appended, Counted, Found, Item, MemberList, Outcome, Page, Quantity, Reason,
    Refused, Removed, Swap, TxnOutcome, Value, Version,
};
pub use self::snapshot::{StateRestore, StateSnapshot};
pub use self::step::{Add, Append, Cas, Delete, Get, Incr, Members, Put, Remove, Scan, Step};
pub use self::store::{EDITIONS, KeyValueStore};
pub use self::txn::{Compare, Relation, Test, Txn};
