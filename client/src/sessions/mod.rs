//! Sessions: which ones a client uses, and when the cluster may forget them.
//!
//! Every session lives in the replicated state until its client retires it, and a client may have
//! few of them. So they are used again where that is safe, and retired where it is not. The rules
//! are in [`Book`], which is pure; [`SessionFile`] shares a book among the processes of one host,
//! and a client that was given no file shares one among the clients of its process that have the
//! same key.
//!
//! # The rules
//!
//! - A session is **leased** to one process at a time. Each holds a lock on a small file for as
//!   long as it lives, so that the kernel itself tells when it was killed.
//! - A holder that says goodbye, with all its numbers executed, leaves the session **free**: the
//!   next process goes on with the next number. So the usual case takes as many sessions as there
//!   are processes at one time.
//! - A holder that was killed, or gave up on a request, leaves a number whose fate is unknown.
//!   Its session is **retiring**: never used again, and to be forgotten by the cluster.
//! - Sessions are forgotten by a *floor*, which each request carries: executing it drops all
//!   sessions below. A weak request that was acknowledged, but is not final, could be lost by
//!   that, so the floor is the lowest session that is free, leased, or retiring and not *settled*.
//!   A session is settled when all its acknowledged weak requests are known to be final: a strong
//!   quorum of replicas is asked. What was never acknowledged may be dropped.
//! - Free sessions below a retiring one would hold the floor down for ever. They retire, too.
//! - The highest weak request acknowledged is written down *before* its caller hears of it.
//! - Session ids grow, whatever the clock does.
//!
//! # When the file is lost
//!
//! Without the file nobody knows which older sessions of the key still hold acknowledged requests
//! that are not final, so the floor must not rise: the book is *pinned*, with floor 0. Nothing can
//! be lost so, but nothing is retired either, and in the end the cluster refuses new sessions.
//! The pin goes when the cluster is seen [quiet](crate::NodeStatus): **all** replicas, in one view,
//! report one history, all of it under a commit certificate, and nothing pending. Then everything
//! that any correct replica ever executed for anybody is final. A client looks for that when it
//! connects with a pinned book, and now and then afterwards. In a cluster that is never quiet, or has a dead replica, an operator
//! who knows better says so with [`SessionFile::unpin`].
//!
//! A quiet cluster also settles what no report can: a process that had many requests under way was
//! killed after a later one was acknowledged and before an earlier one reached any replica, so that
//! its session has a gap for ever. It is looked for as well when many sessions are in use.
//!
//! A new key's file is made by [`SessionFile::create`], which is why `elea init` makes it; a file
//! that is missing is a lost one. One written before the host last booted is a lost one as well,
//! since it is not forced to disk: that would cost each command more than the cluster does.

mod book;
mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use elea_protocol::id::{ClientId, Digest, RequestNumber, WallTime};

pub use book::{Book, Leased, Parting};
pub use file::{SessionError, SessionFile};

use file::FileLease;

/// Where a client takes its sessions from.
#[derive(Clone, Debug)]
pub(crate) enum Sessions {
    File(Arc<SessionFile>),
    Memory(Arc<Mutex<Book>>),
}

/// A session in use.
#[derive(Debug)]
pub(crate) struct Lease {
    pub leased: Leased,
    holder: Holder,
    noted: RequestNumber,
}

#[derive(Debug)]
enum Holder {
    File(FileLease),
    Memory(Arc<Mutex<Book>>),
}

type Books = Mutex<BTreeMap<(Digest, ClientId), Arc<Mutex<Book>>>>;

/// One book for each cluster and key of this process, so that clients side by side with one key
/// do not retire each other's sessions.
static BOOKS: LazyLock<Books> = LazyLock::new(Books::default);

/// This process, for those who were given no file.
static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);

impl Sessions {
    pub fn in_memory(genesis: Digest, client: ClientId) -> Self {
        let mut books = BOOKS.lock().unwrap_or_else(PoisonError::into_inner);
        let book = books
            .entry((genesis, client))
            .or_insert_with(|| Arc::new(Mutex::new(Book::lost(&genesis))));
        Self::Memory(Arc::clone(book))
    }

    /// Does `change` to the book, under its lock.
    pub fn with<T>(&self, change: impl FnOnce(&mut Book) -> T) -> Result<T, SessionError> {
        match self {
            Self::File(file) => file.with(change),
            Self::Memory(book) => {
                Ok(change(&mut book.lock().unwrap_or_else(PoisonError::into_inner)))
            }
        }
    }

    /// A number that all who share these sessions have in common, and nobody else has.
    pub fn instance(&self) -> Result<u64, SessionError> {
        match self {
            Self::File(file) => file.instance(),
            Self::Memory(_) => Ok(*PROCESS),
        }
    }

    pub fn lease(&self, now: WallTime, random: u16) -> Result<Lease, SessionError> {
        let (leased, holder) = match self {
            Self::File(file) => {
                let (leased, lease) = file.lease(now, random)?;
                (leased, Holder::File(lease))
            }
            Self::Memory(book) => {
                let mut locked = book.lock().unwrap_or_else(PoisonError::into_inner);
                (locked.lease(now, random), Holder::Memory(Arc::clone(book)))
            }
        };
        Ok(Lease { leased, holder, noted: RequestNumber(0) })
    }
}

impl Lease {
    /// Writes down, before anybody hears of it, that weak requests up to this one were
    /// acknowledged and are not final.
    pub fn note_acknowledged(&mut self, through: RequestNumber) -> Result<(), SessionError> {
        if through <= self.noted {
            return Ok(());
        }
        match &mut self.holder {
            Holder::File(lease) => lease.note_acknowledged(through)?,
            Holder::Memory(_) => {}
        }
        self.noted = through;
        Ok(())
    }

    /// Gives the session back.
    pub fn release(self, parting: Parting) -> Result<(), SessionError> {
        let session = self.leased.session;
        match self.holder {
            Holder::File(lease) => lease.release(parting),
            Holder::Memory(book) => {
                let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                book.release(session, parting);
                Ok(())
            }
        }
    }
}
