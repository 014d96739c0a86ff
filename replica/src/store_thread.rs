//! The thread that writes the store's log: group commit, and the gate before everything that must not be
//! said before it is on disk.
//!
//! It takes all that has queued up, writes the records of it in one batch with one fsync, then lets
//! go of what was held back for them, in its order, and tells the core. While it waits for the disk
//! the next group queues up, so the slower the disk, the larger the groups. When the disk fails, it
//! lets go of nothing more: the replica falls silent before it can say what it may forget. When the
//! disk is full it waits for room: what is written, and with it every vote, waits too, while what
//! rests on nothing new is answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use elea_protocol::replica::{Mark, Record};

use crate::counters::{Counter, Counters};
use crate::inbox::Word;
use crate::measures::Measures;
use crate::outbound::Outgoing;
use crate::store::{Staged, StoreError, ToTables, Writer};
use crate::weight;

/// How often it is looked whether a full disk has room again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where records go. The store, or what stands for it in tests.
pub(crate) trait Disk: Send + 'static {
    /// What was written and is to be handed on.
    type Written;

    /// Writes a group of records, all or nothing, and waits until they are durable.
    fn write(&mut self, records: &[Record]) -> Result<Self::Written, StoreError>;

    /// Hands on what was written, of which everybody knows by now. `first` is the mark of its first record.
    fn hand_on(&mut self, first: Mark, written: Self::Written);

    /// Whether there is room for another group.
    fn has_room(&self) -> bool;
}

/// The log of the store, and the tables behind it.
pub(crate) struct LogThenTables {
    pub(crate) writer: Writer,
    pub(crate) tables: ToTables,
    pub(crate) measures: Arc<Measures>,
}

impl Disk for LogThenTables {
    type Written = Option<Staged>;

    fn write(&mut self, records: &[Record]) -> Result<Self::Written, StoreError> {
        let begin = Instant::now();
        let written = self.writer.write(records)?;
        self.measures.synced(records.len(), begin.elapsed());
        Ok(written)
    }

    fn hand_on(&mut self, first: Mark, written: Self::Written) {
        if let Some(staged) = written {
            self.tables.hand_over(first, staged);
        }
    }

    fn has_room(&self) -> bool {
        self.writer.has_room()
    }
}

enum Job {
    Append(Mark, Record),
    Hold(Mark, Outgoing),
}

#[derive(Default)]
struct Progress {
    /// All up to this mark is on disk, and all that was held for it has been let go.
    synced: AtomicU64,
    /// About how many bytes wait for the disk.
    backlog: AtomicUsize,
}

/// The core's end. Dropping it ends the thread, after everything queued has been written.
pub(crate) struct StoreQueue {
    jobs: Sender<Job>,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
    /// How many bytes may be held back. On a full disk that would not end.
    held_max: usize,
    /// Records appended last; what rests on an older one may be let out when that one is synced.
    appended: Mark,
}

impl StoreQueue {
    pub(crate) fn append(&mut self, mark: Mark, record: Record) {
        debug_assert!(mark > self.appended, "marks only grow");
        self.appended = mark;
        self.queue(weight::record(&record), Job::Append(mark, record));
    }

    /// Keeps something back until `after` is on disk. Gives it back if it is there already.
    pub(crate) fn hold(&mut self, after: Mark, outgoing: Outgoing) -> Option<Outgoing> {
        if after.0 <= self.progress.synced.load(Ordering::Acquire) {
            return Some(outgoing);
        }
        if self.backlog() > self.held_max {
            // As on any way out: the protocol repairs what is lost.
            self.counters.count(Counter::SendQueueFull);
            return None;
        }
        self.queue(outgoing.weight(), Job::Hold(after, outgoing));
        None
    }

    fn queue(&self, bytes: usize, job: Job) {
        self.progress.backlog.fetch_add(bytes, Ordering::Relaxed);
        // The thread is gone only after the disk failed: then nothing is to be written or said.
        let _ = self.jobs.send(job);
    }

    /// About how many bytes wait for the disk.
    pub(crate) fn backlog(&self) -> usize {
        self.progress.backlog.load(Ordering::Relaxed)
    }
}

/// The thread's end.
pub(crate) struct StoreThread<D> {
    disk: D,
    jobs: Receiver<Job>,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
    /// Held back, in the order in which it was said.
    held: VecDeque<(Mark, Outgoing)>,
}

/// A queue and the thread's work behind it.
pub(crate) fn store_queue<D: Disk>(
    disk: D,
    counters: Arc<Counters>,
    held_max: usize,
) -> (StoreQueue, StoreThread<D>) {
    let (sender, jobs) = mpsc::channel();
    let progress = Arc::<Progress>::default();
    let queue = StoreQueue {
        jobs: sender,
        progress: Arc::clone(&progress),
        counters: Arc::clone(&counters),
        held_max,
        appended: Mark::NONE,
    };
    (queue, StoreThread { disk, jobs, progress, counters, held: VecDeque::new() })
}

impl<D: Disk> StoreThread<D> {
    /// Works until the queue is dropped, or the disk fails. `release` lets something out, `tell` tells the
    /// core how the disk is, and `attend` has it look after what it was told.
    pub(crate) fn run(
        mut self,
        mut release: impl FnMut(Outgoing),
        mut tell: impl FnMut(Word),
        mut attend: impl FnMut(),
    ) -> Result<(), StoreError> {
        let mut next = Group::default();
        loop {
            if next.records.is_empty() {
                match self.jobs.recv() {
                    Ok(job) => self.take(job, &mut next),
                    Err(_) => return Ok(()),
                }
            }
            self.take_all(&mut next);
            if next.records.is_empty() {
                // The mark was synced between the core's look and its word.
                let synced = Mark(self.progress.synced.load(Ordering::Acquire));
                self.let_go(synced, &mut release);
                continue;
            }
            let was_full = !self.disk.has_room();
            if was_full {
                tell(Word::Full(true));
                attend();
                if !self.wait_for_room(&mut next, &mut release) {
                    return Ok(());
                }
            }
            let group = std::mem::take(&mut next);
            let written = self.disk.write(&group.records)?;
            if was_full {
                tracing::info!("the disk has room again, and what waited for it is written");
                tell(Word::Full(false));
                attend();
            }
            // Marks count up by one, and the group ends with its last.
            let first = Mark(group.last.0 + 1 - group.records.len() as u64);
            self.counters.count(Counter::StoreCommits);
            self.counters.add(Counter::StoreRecords, group.records.len() as u64);
            // What was said while the disk was busy may rest on this very group: a word comes a
            // moment after its record, and must not wait for another turn of the disk.
            self.take_all(&mut next);
            self.let_go(group.last, &mut release);
            // Only now: whoever sees the mark may overtake what was held for it.
            self.progress.synced.store(group.last.0, Ordering::Release);
            self.progress.backlog.fetch_sub(group.bytes, Ordering::Relaxed);
            tell(Word::Synced(group.last));
            self.disk.hand_on(first, written);
            attend();
        }
    }

    /// Waits until the disk has room. `false` when the replica stops before: what is in the group
    /// then is not written, and nothing that rests on it was said.
    fn wait_for_room(&mut self, group: &mut Group, release: &mut impl FnMut(Outgoing)) -> bool {
        while !self.disk.has_room() {
            self.counters
                .warn(Counter::DiskFull, "the disk is full: nothing counts until it has room");
            match self.jobs.recv_timeout(LOOK_AGAIN) {
                Ok(job) => self.take(job, group),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            self.take_all(group);
            let synced = Mark(self.progress.synced.load(Ordering::Acquire));
            self.let_go(synced, release);
        }
        true
    }

    fn take_all(&mut self, group: &mut Group) {
        while let Ok(job) = self.jobs.try_recv() {
            self.take(job, group);
        }
    }

    fn take(&mut self, job: Job, group: &mut Group) {
        match job {
            Job::Append(mark, record) => {
                group.bytes += weight::record(&record);
                group.records.push(record);
                group.last = mark;
            }
            Job::Hold(after, outgoing) => self.held.push_back((after, outgoing)),
        }
    }

    /// Lets go of what rests on nothing above `synced`.
    fn let_go(&mut self, synced: Mark, release: &mut impl FnMut(Outgoing)) {
        let mut released = 0;
        let mut kept = VecDeque::new();
        for (after, outgoing) in self.held.drain(..) {
            if after <= synced {
                released += outgoing.weight();
                release(outgoing);
            } else {
                kept.push_back((after, outgoing));
            }
        }
        self.held = kept;
        self.progress.backlog.fetch_sub(released, Ordering::Relaxed);
    }
}

/// The records of one commit.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    /// The mark of the last one.
    last: Mark,
    bytes: usize,
}

#[cfg(test)]
mod tests;
