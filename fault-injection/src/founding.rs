//! The state that some clusters begin with, as if it came from a backup of another cluster.

use bytes::Bytes;
use elea_protocol::application::{Application, Context, Restore, Snapshot};
use elea_protocol::id::{ClientId, Digest, RequestNumber, SessionId, Slot, WallTime};
use elea_protocol::message::Level;
use elea_protocol::rows::MemoryRows;

use crate::rng::Rng;
use crate::subject::Subject;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Founding {
    /// What made the state, for checkers that know operations and no states.
    pub operations: Vec<Bytes>,
    /// What each of them answered.
    pub results: Vec<Bytes>,
    /// The digest of the state, which the cluster file names.
    pub digest: Digest,
    /// What every disk of the cluster holds before the first start.
    pub rows: MemoryRows,
}

impl Founding {
    /// The state after a few operations.
    ///
    /// # Panics
    /// Where the application refuses the chunks of its own state.
    #[must_use]
    pub fn of<S: Subject>(mut rng: Rng) -> Self {
        let mut application = S::application(false);
        let slot = Slot(1);
        let operations: Vec<Bytes> =
            (0..rng.between(5, 30)).map(|_| S::operation(&mut rng)).collect();
        let seed = rng.bytes();
        let results = (0..)
            .zip(&operations)
            .map(|(index, operation)| {
                let context = Context {
                    slot,
                    index,
                    client: ClientId([0; 32]),
                    session: SessionId(0),
                    number: RequestNumber(1),
                    time: WallTime(0),
                    seed,
                    level: Level::Strong,
                    edition: 1,
                };
                application.execute(&context, operation)
            })
            .collect();
        application.end_slot(slot);
        application.make_permanent(slot);
        let digest = application.digest();
        let snapshot = application.snapshot();
        // As `elea restore` does it: the rows are made of chunks that were checked.
        let mut restore = application.restore(digest);
        let mut rows = MemoryRows::default();
        for index in 0..snapshot.chunks() {
            let chunk = snapshot.chunk(index).expect("the state is in memory");
            restore.accept(index, &chunk).expect("a chunk of this state");
            let made = restore.rows(index, &chunk);
            rows.apply(made.into_iter().map(|(key, value)| (key, Some(value))));
        }
        rows.apply(restore.rest().into_iter().map(|(key, value)| (key, Some(value))));
        Self { operations, results, digest, rows }
    }
}
