//! Tests of group commit and of the gate, with a disk that the test holds in its hand.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use elea_protocol::id::{ClientId, Digest, RequestName, RequestNumber, SessionId, Slot, View};
use elea_protocol::message::{Commit, CommitCertificate, ToClient};

use super::*;

/// What happened, in its order.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// A group of so many records reached the disk.
    Written(usize),
    Released(u64),
    Synced(u64),
    /// Beginning with this mark so many.
    HandedOn(u64, usize),
    Full(bool),
}

/// Writes a group when the test says how that ends.
struct SlowDisk {
    seen: Sender<Seen>,
    verdicts: Receiver<Result<(), StoreError>>,
    is_full: Arc<AtomicBool>,
}

impl Disk for SlowDisk {
    type Written = usize;

    fn write(&mut self, records: &[Record]) -> Result<usize, StoreError> {
        self.seen.send(Seen::Written(records.len())).expect("the test listens");
        self.verdicts.recv().expect("the test decides").map(|()| records.len())
    }

    fn hand_on(&mut self, first: Mark, written: usize) {
        self.seen.send(Seen::HandedOn(first.0, written)).expect("the test listens");
    }

    fn has_room(&self) -> bool {
        !self.is_full.load(Ordering::Acquire)
    }
}

struct Test {
    queue: StoreQueue,
    seen: Receiver<Seen>,
    verdicts: Sender<Result<(), StoreError>>,
    thread: JoinHandle<Result<(), StoreError>>,
    counters: Arc<Counters>,
    is_full: Arc<AtomicBool>,
}

/// So much may be held back.
const HELD: usize = 1 << 20;

fn test() -> Test {
    let (sender, seen) = channel();
    let (verdicts, receiver) = channel();
    let counters = Arc::<Counters>::default();
    let is_full = Arc::<AtomicBool>::default();
    let disk = SlowDisk { seen: sender.clone(), verdicts: receiver, is_full: Arc::clone(&is_full) };
    let (queue, work) = store_queue(disk, Arc::clone(&counters), HELD);
    let thread = thread::spawn(move || {
        let released = sender.clone();
        work.run(
            move |outgoing| {
                let Outgoing::ToClient { message: ToClient::Busy(name), .. } = outgoing else {
                    unreachable!("not held here")
                };
                released.send(Seen::Released(name.number.0)).expect("the test listens");
            },
            move |word| {
                let seen = match word {
                    Word::Full(is_full) => Seen::Full(is_full),
                    Word::Synced(mark) => Seen::Synced(mark.0),
                    Word::Rows(_) => unreachable!("it comes from the tables"),
                };
                sender.send(seen).expect("the test listens");
            },
            || {},
        )
    });
    Test { queue, seen, verdicts, thread, counters, is_full }
}

fn record() -> Record {
    let commit = Commit { view: View(0), slot: Slot(1), hash: Digest([0; 32]) };
    let certificate = CommitCertificate { body: commit, votes: Default::default() };
    Record::Lock(certificate)
}

fn word(number: u64) -> Outgoing {
    let client = ClientId([0; 32]);
    let name = RequestName { client, session: SessionId(0), number: RequestNumber(number) };
    Outgoing::ToClient { client, session: None, message: ToClient::Busy(name) }
}

impl Test {
    fn append(&mut self, mark: u64) {
        self.queue.append(Mark(mark), record());
    }

    fn hold(&mut self, mark: u64, number: u64) -> bool {
        self.queue.hold(Mark(mark), word(number)).is_none()
    }

    fn next(&self) -> Seen {
        self.seen.recv().expect("the thread lives")
    }
}

#[test]
fn nothing_is_let_go_before_its_mark_and_what_queues_up_meanwhile_is_one_group() {
    let mut test = test();
    assert!(!test.hold(0, 1), "what rests on nothing goes out at once");
    test.append(1);
    assert!(test.hold(1, 2));
    assert_eq!(test.next(), Seen::Written(1));
    // While the disk is busy.
    for mark in 2..=4 {
        test.append(mark);
    }
    assert!(test.hold(4, 3));
    assert!(test.hold(1, 4), "the disk has not said so yet");
    assert!(test.hold(3, 5));
    assert!(test.seen.try_recv().is_err(), "nothing before the disk is done");
    test.verdicts.send(Ok(())).expect("the disk waits");
    // All that rests on the first group, also what was said after the disk had begun.
    assert_eq!([test.next(), test.next()], [Seen::Released(2), Seen::Released(4)]);
    assert_eq!([test.next(), test.next()], [Seen::Synced(1), Seen::HandedOn(1, 1)]);
    assert_eq!(test.next(), Seen::Written(3));
    test.verdicts.send(Ok(())).expect("the disk waits");
    let order = [test.next(), test.next(), test.next(), test.next()];
    // Everybody knows before it goes on.
    let handed_on = Seen::HandedOn(2, 3);
    assert_eq!(order, [Seen::Released(3), Seen::Released(5), Seen::Synced(4), handed_on]);
    assert!(!test.hold(4, 6), "what is synced already needs no wait");
    drop(test.queue);
    assert_eq!(test.thread.join().expect("no panic"), Ok(()));
    assert_eq!(test.counters.get(Counter::StoreCommits), 2);
    assert_eq!(test.counters.get(Counter::StoreRecords), 4);
}

#[test]
fn the_backlog_grows_with_what_waits_and_is_gone_when_the_disk_has_caught_up() {
    let mut test = test();
    assert_eq!(test.queue.backlog(), 0);
    test.append(1);
    test.hold(1, 1);
    assert!(test.queue.backlog() > 0);
    test.verdicts.send(Ok(())).expect("the disk waits");
    // The group may be one or two: the word may come after the first look into the queue.
    let progress = Arc::clone(&test.queue.progress);
    drop(test.queue);
    assert_eq!(test.thread.join().expect("no panic"), Ok(()));
    assert_eq!(progress.backlog.load(Ordering::Relaxed), 0);
}

#[test]
fn a_stop_writes_and_lets_go_of_all_that_is_queued() {
    let mut test = test();
    for mark in 1..=3 {
        test.append(mark);
        test.hold(mark, mark);
        test.verdicts.send(Ok(())).expect("the disk waits");
    }
    drop(test.queue);
    assert_eq!(test.thread.join().expect("no panic"), Ok(()));
    let released: Vec<_> = test
        .seen
        .try_iter()
        .filter_map(|seen| match seen {
            Seen::Released(number) => Some(number),
            _ => None,
        })
        .collect();
    assert_eq!(released, [1, 2, 3]);
}

#[test]
fn after_a_failed_write_nothing_is_let_go_and_nothing_counts_as_synced() {
    let mut test = test();
    test.append(1);
    assert_eq!(test.next(), Seen::Written(1));
    test.append(2);
    test.hold(1, 1);
    test.hold(2, 2);
    let full = StoreError::WriteFailed { path: "d".into(), reason: "no space".to_owned() };
    test.verdicts.send(Err(full.clone())).expect("the disk waits");
    assert_eq!(test.thread.join().expect("no panic"), Err(full));
    assert!(test.seen.try_recv().is_err());
    assert!(test.queue.hold(Mark(1), word(3)).is_none(), "held for ever");
    test.queue.append(Mark(3), record());
}

#[test]
fn on_a_full_disk_nothing_is_written_or_let_go_until_there_is_room() {
    let mut test = test();
    test.append(1);
    assert_eq!(test.next(), Seen::Written(1));
    test.is_full.store(true, Ordering::Release);
    test.verdicts.send(Ok(())).expect("it waits");
    assert_eq!([test.next(), test.next()], [Seen::Synced(1), Seen::HandedOn(1, 1)]);
    test.append(2);
    assert!(test.hold(2, 20), "it rests on what is not written");
    assert_eq!(test.next(), Seen::Full(true));
    // Not merely slow: the thread has looked for room and found none.
    while test.counters.get(Counter::DiskFull) == 0 {
        thread::yield_now();
    }
    assert!(!test.hold(1, 10), "what rests on older records goes out");
    assert!(test.seen.try_recv().is_err());
    // However long it takes, what is held back has a bound.
    while test.queue.backlog() <= HELD {
        assert!(test.hold(2, 30));
    }
    let dropped = test.counters.get(Counter::SendQueueFull);
    assert!(test.hold(2, 40), "dropped");
    assert_eq!(test.counters.get(Counter::SendQueueFull), dropped + 1);

    test.is_full.store(false, Ordering::Release);
    assert_eq!(test.next(), Seen::Written(1));
    test.verdicts.send(Ok(())).expect("it waits");
    assert_eq!(test.next(), Seen::Full(false));
    assert_eq!(test.next(), Seen::Released(20));
    while test.next() != Seen::Synced(2) {}
    drop(test.queue);
    assert_eq!(test.thread.join().expect("no panic"), Ok(()));
}

#[test]
fn a_stop_does_not_wait_for_room() {
    let mut test = test();
    test.is_full.store(true, Ordering::Release);
    test.append(1);
    drop(test.queue);
    assert_eq!(test.thread.join().expect("no panic"), Ok(()));
    let seen: Vec<_> = test.seen.iter().collect();
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Written(_))), "{seen:?}");
}
