//! The thread that takes the log into the tables.
//!
//! What it is given is durable already, so nobody waits for it: not for what fjall does to its files, which takes a
//! dozen syncs at times, and not for a sync of its own. It gathers groups for a moment and takes them together, which
//! saves writing again and again what each of them changes. What completes a state is taken at once, since its rows
//! are waited for. When it is told to end it leaves the rest to the next start.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use elea_protocol::replica::Mark;
use elea_protocol::rows::RowsView;

use super::layout::Redo;
use super::log::Taken;
use super::tables::Tables;
use super::{Staged, StoreError};

/// How long groups are gathered.
const GATHER: Duration = Duration::from_millis(100);

/// So many bytes are enough.
pub(super) const GATHER_BYTES: usize = 4 << 20;

/// A group of the log on its way into the tables.
struct Group {
    number: u64,
    redo: Redo,
    /// The marks of records that complete states, and the generations of these.
    completed: Vec<(Mark, u64)>,
}

/// Where groups are handed over.
pub(crate) struct ToTables {
    groups: Sender<Group>,
    taken: Arc<Taken>,
}

impl ToTables {
    /// Hands over what is in the log. `first` is the mark of the first of its records.
    pub(crate) fn hand_over(&self, first: Mark, staged: Staged) {
        let Staged { number, redo, completed } = staged;
        let mark = |(place, generation): (usize, u64)| (Mark(first.0 + place as u64), generation);
        let completed = completed.into_iter().map(mark).collect();
        // The thread is gone only after it failed, which it has said itself. What is in the log is not lost.
        let _ = self.groups.send(Group { number, redo, completed });
    }
}

impl Drop for ToTables {
    fn drop(&mut self) {
        self.taken.stop();
    }
}

/// The thread's work.
pub(crate) struct Applier {
    tables: Tables,
    groups: Receiver<Group>,
    taken: Arc<Taken>,
    /// The folder's.
    _lock: Arc<File>,
}

/// The tables behind a queue.
pub(super) fn applier(tables: Tables, taken: Arc<Taken>, lock: Arc<File>) -> (ToTables, Applier) {
    let (sender, groups) = channel();
    let to = ToTables { groups: sender, taken: Arc::clone(&taken) };
    (to, Applier { tables, groups, taken, _lock: lock })
}

impl Applier {
    /// Works until there is nobody any more who hands anything over. `tell` tells how many more groups are in the
    /// tables, and of rows that are complete with them.
    pub(crate) fn run(
        mut self,
        tell: impl FnMut(u64, Vec<(Mark, RowsView)>),
    ) -> Result<(), StoreError> {
        // However it ends, nobody waits for it any longer.
        let over = Over(Arc::clone(&self.taken));
        let done = self.take_all(tell);
        over.0.end(done.clone());
        done
    }

    fn take_all(
        &mut self,
        mut tell: impl FnMut(u64, Vec<(Mark, RowsView)>),
    ) -> Result<(), StoreError> {
        let mut before = self.taken.group();
        while let Some(Group { number, redo, completed }) = self.gather() {
            // Whatever was handed over before the end is still in the queue then.
            if self.taken.is_stopping() {
                return Ok(());
            }
            let generations = completed.iter().map(|(_, generation)| *generation);
            let views = self.tables.take(redo, generations)?;
            self.taken.set(number);
            let rows: Vec<_> = completed
                .into_iter()
                .filter_map(|(mark, generation)| Some((mark, views.get(&generation)?.clone())))
                .collect();
            tell(number - before, rows);
            before = number;
        }
        Ok(())
    }

    /// What there is after a while; `None` at the end.
    fn gather(&mut self) -> Option<Group> {
        let mut all = self.groups.recv().ok()?;
        let until = Instant::now() + GATHER;
        while all.completed.is_empty() && all.redo.weight < GATHER_BYTES {
            match self.groups.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(next) => {
                    all.number = next.number;
                    all.redo.merge(next.redo);
                    all.completed.extend(next.completed);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        Some(all)
    }
}

/// Says that nothing more is taken, also after a panic.
struct Over(Arc<Taken>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.end(Ok(()));
    }
}
