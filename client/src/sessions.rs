//! Sessions: which ones a client uses.
//!
//! A cluster remembers many sessions of a key, and forgets those that rested longest when there are
//! more. So a process may take a new one each time, as commands do that keep nothing between them: in
//! containers, say. Where something is kept, sessions are used again, which spares the cluster's memory. The
//! rules are in [`Book`], which is pure; [`SessionFile`] shares a book among the processes of one
//! host, and a client that was given no file shares one among the clients of its process that have the
//! same key.
//!
//! # The rules
//!
//! - A session is **leased** to one process at a time. Each holds a lock on a small file for as
//!   long as it lives, so that the kernel itself tells when it was killed.
//! - A holder that says goodbye, with all its numbers executed, leaves the session **free**: the
//!   next process goes on with the next number.
//! - A holder that was killed, or gave up on a request, leaves a number whose fate is unknown.
//!   Its session is never used again.
//! - The cluster is asked before a session is used, the first time and after a rest: whether it
//!   still knows that one, and where a new one may lie. No clock has a part in it.
//!
//! # When the file is lost
//!
//! Nothing is lost with it. Nor is anything lost with a file that was written before the host last booted, which
//! counts as lost: it is not forced to disk, since that would cost each command more than the
//! cluster does. A *copy* of the file is another matter: two processes that go on in one session use
//! one number for two requests, of which one is executed. Who finds that more was executed than
//! the file says takes another session, but two at one time find nothing.

mod book;
mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use elea_protocol::id::{ClientId, Digest, SessionId};

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
}

#[derive(Debug)]
enum Holder {
    File(FileLease),
    Memory(Arc<Mutex<Book>>),
}

type Books = Mutex<BTreeMap<(Digest, ClientId), Arc<Mutex<Book>>>>;

/// One book for each cluster and key of this process, so that clients that come and go with one key
/// use few sessions.
static BOOKS: LazyLock<Books> = LazyLock::new(Books::default);

/// This process, for those who were given no file.
static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);

impl Sessions {
    pub fn in_memory(genesis: Digest, client: ClientId) -> Self {
        let mut books = BOOKS.lock().unwrap_or_else(PoisonError::into_inner);
        let book = books
            .entry((genesis, client))
            .or_insert_with(|| Arc::new(Mutex::new(Book::new(&genesis))));
        Self::Memory(Arc::clone(book))
    }

    /// A session that somebody gave back, if there is one.
    pub fn lease_free(&self) -> Result<Option<Lease>, SessionError> {
        self.lease(Book::lease_free)
    }

    /// A number that all who share these sessions have in common, and nobody else has.
    pub fn instance(&self) -> Result<u64, SessionError> {
        match self {
            Self::File(file) => file.instance(),
            Self::Memory(_) => Ok(*PROCESS),
        }
    }

    /// A new session in the generation that begins at `opening`.
    pub fn lease_new(&self, opening: SessionId) -> Result<Lease, SessionError> {
        let lease = self.lease(|book| Some(book.lease_new(opening, rand::random)))?;
        Ok(lease.expect("there is always a new one"))
    }

    fn lease(
        &self,
        choose: impl FnOnce(&mut Book) -> Option<Leased>,
    ) -> Result<Option<Lease>, SessionError> {
        match self {
            Self::File(file) => {
                let lease = file.lease(choose)?;
                Ok(lease.map(|(leased, lease)| Lease { leased, holder: Holder::File(lease) }))
            }
            Self::Memory(book) => {
                let leased = choose(&mut book.lock().unwrap_or_else(PoisonError::into_inner));
                let holder = Holder::Memory(Arc::clone(book));
                Ok(leased.map(|leased| Lease { leased, holder }))
            }
        }
    }
}

impl Lease {
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
