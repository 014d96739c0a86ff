//! The thread that takes the log into the tables.
//!
//! What it is given is durable already, so nobody waits for it: not for what fjall does to its files, which takes a
//! dozen syncs at times, and not for a sync of its own. It gathers groups for a moment and takes them together, which
//! saves writing again and again what each of them changes, and being woken for each. What completes a state is taken
//! at once, since its rows are waited for. When it is told to end it leaves the rest to the next start.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// Groups that were handed over and not taken yet.
#[derive(Default)]
struct Queue {
    handed: Mutex<Handed>,
    changed: Condvar,
}

#[derive(Default)]
struct Handed {
    groups: VecDeque<Group>,
    weight: usize,
    /// Somebody waits for what is among them, or they are enough.
    is_urgent: bool,
    /// One of the two ends is gone.
    is_closed: bool,
}

impl Handed {
    /// As many groups as are enough. What is left has been waited for.
    fn take(&mut self) -> VecDeque<Group> {
        let mut taken = VecDeque::new();
        let mut weight = 0;
        while weight < GATHER_BYTES
            && let Some(group) = self.groups.pop_front()
        {
            weight += group.redo.weight;
            taken.push_back(group);
        }
        self.weight -= weight;
        self.is_urgent = !self.groups.is_empty();
        taken
    }
}

impl Queue {
    fn handed(&self) -> MutexGuard<'_, Handed> {
        // Nothing in here can be left half done.
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, group: Group) {
        let mut handed = self.handed();
        if handed.is_closed {
            return;
        }
        handed.weight += group.redo.weight;
        handed.is_urgent |= !group.completed.is_empty() || handed.weight >= GATHER_BYTES;
        handed.groups.push_back(group);
        // Whoever gathers already is not woken for one more.
        let is_heard = handed.is_urgent || handed.groups.len() == 1;
        drop(handed);
        if is_heard {
            self.changed.notify_one();
        }
    }

    /// What there is after a while, all in one; `None` at the end.
    fn gather(&self) -> Option<Group> {
        let is_idle = |handed: &mut Handed| handed.groups.is_empty() && !handed.is_closed;
        let first = self.changed.wait_while(self.handed(), is_idle);
        let first = first.unwrap_or_else(PoisonError::into_inner);
        let gathers = |handed: &mut Handed| !handed.is_urgent && !handed.is_closed;
        let gathered = self.changed.wait_timeout_while(first, GATHER, gathers);
        let mut handed = gathered.unwrap_or_else(PoisonError::into_inner).0;
        if handed.is_closed {
            return None;
        }
        let mut groups = handed.take();
        drop(handed);
        let mut all = groups.pop_front()?;
        for next in groups {
            all.number = next.number;
            all.redo.merge(next.redo);
            all.completed.extend(next.completed);
        }
        Some(all)
    }

    fn close(&self) {
        self.handed().is_closed = true;
        self.changed.notify_one();
    }
}

/// Where groups are handed over.
pub(crate) struct ToTables {
    queue: Arc<Queue>,
    taken: Arc<Taken>,
}

impl ToTables {
    /// Hands over what is in the log. `first` is the mark of the first of its records.
    pub(crate) fn hand_over(&self, first: Mark, staged: Staged) {
        let Staged { number, redo, completed } = staged;
        let mark = |(place, generation): (usize, u64)| (Mark(first.0 + place as u64), generation);
        let completed = completed.into_iter().map(mark).collect();
        // The thread is gone only after it failed, which it has said itself. What is in the log is not lost.
        self.queue.put(Group { number, redo, completed });
    }
}

impl Drop for ToTables {
    fn drop(&mut self) {
        self.taken.stop();
        self.queue.close();
    }
}

/// The thread's work.
pub(crate) struct Applier {
    tables: Tables,
    queue: Arc<Queue>,
    taken: Arc<Taken>,
    /// The folder's.
    _lock: Arc<File>,
}

/// The tables behind a queue.
pub(super) fn applier(tables: Tables, taken: Arc<Taken>, lock: Arc<File>) -> (ToTables, Applier) {
    let queue = Arc::<Queue>::default();
    let to = ToTables { queue: Arc::clone(&queue), taken: Arc::clone(&taken) };
    (to, Applier { tables, queue, taken, _lock: lock })
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
        while let Some(Group { number, redo, completed }) = self.queue.gather() {
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
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Says that nothing more is taken, also after a panic.
struct Over(Arc<Taken>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.end(Ok(()));
    }
}
