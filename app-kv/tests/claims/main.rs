//! What the key-value application promises, as tests of its public interface.

mod commands;
mod dumb;
mod hostile;
mod limits;
mod queries;
mod replay;
mod restore;
mod scan;
mod txn;
mod world;
