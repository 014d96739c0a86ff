//! The thread that owns the core. It waits for events and the core's deadline, and for nothing
//! else: what the core wants done goes into queues that take it at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elea_protocol::application::Application;
use elea_protocol::id::{self, Now, ReplicaId};
use elea_protocol::message::Standing;
use elea_protocol::replica::{Action, Doubt, Event, Quarantine, Replica};
use tokio::sync::watch;

use crate::certified::Certified;
use crate::clock::Clock;
use crate::counters::{Counter, Counters};
use crate::inbox::{Inbox, Woken};
use crate::outbound::{Outbound, Outgoing};
use crate::store_thread::StoreQueue;

/// A deadline that has passed and stays is looked at no more often than this.
const IDLE: Duration = Duration::from_millis(1);

/// Everything the core's actions lead to.
pub(crate) struct Router {
    pub(crate) store: StoreQueue,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) certified: Arc<Certified>,
    /// What the replica may do.
    pub(crate) standing: watch::Sender<Standing>,
    /// Whether everything that it knows to be final is in a stable state.
    pub(crate) settled: watch::Sender<bool>,
}

impl Router {
    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Append { mark, record } => self.store.append(mark, record),
            Action::Send { to, message, after } => {
                let outgoing = Outgoing::ToPeers { to, message };
                if let Some(outgoing) = self.store.hold(after, outgoing) {
                    self.outbound.send(outgoing);
                }
            }
            Action::Answer { client, session, message, after } => {
                let outgoing = Outgoing::ToClient { client, session, message };
                if let Some(outgoing) = self.store.hold(after, outgoing) {
                    self.outbound.send(outgoing);
                }
            }
            Action::Accuse(evidence) => {
                let culprit = evidence.culprit();
                self.counters.warn(
                    Counter::Accusations,
                    format_args!("{culprit} contradicted itself; the proof is kept"),
                );
            }
        }
    }
}

/// Runs the core until the inbox is closed. Dropping the router then ends the store's thread.
pub(crate) fn run<A: Application>(
    mut replica: Replica<A>,
    inbox: &Inbox,
    mut router: Router,
    clock: Clock,
    backlog_max: usize,
) {
    let mut group = Vec::new();
    let mut actions = Vec::new();
    let mut not_before = Instant::now();
    let mut doubted = false;
    let mut wrong_clocks = WrongClocks::default();
    let mut slow = SlowDisk::default();
    explain(replica.standing());
    loop {
        let deadline = replica.deadline().and_then(|at| clock.at(at));
        let wake_at = deadline.map(|at| at.max(not_before));
        // With the disk far behind, taking in more would only grow what waits for it.
        let intake = router.store.backlog() <= backlog_max;
        if inbox.take(wake_at, intake, &mut group) == Woken::Closed {
            return;
        }
        for queued in group.drain(..) {
            let now = clock.now();
            replica.handle(now, queued.event, &mut actions);
            actions.drain(..).for_each(|action| router.carry_out(action));
        }
        router.standing.send_if_modified(|known| {
            let standing = replica.standing();
            let is_new = *known != standing;
            if is_new {
                *known = standing;
                explain(standing);
            }
            is_new
        });
        router.settled.send_if_modified(|known| {
            std::mem::replace(known, replica.is_settled()) != replica.is_settled()
        });
        slow.look(replica.sync_time());
        if doubted != replica.in_quarantine().is_some() {
            doubted = !doubted;
            explain_doubt(replica.in_quarantine());
        }
        wrong_clocks.look(&replica, clock.now());
        if let Some(lock) = replica.lock().filter(|lock| lock.body.view == replica.entered()) {
            router.certified.tell(lock.body.view, lock.body.slot);
        }
        if replica.deadline().is_some_and(|at| at <= clock.now().instant) {
            replica.handle(clock.now(), Event::Tick, &mut actions);
            actions.drain(..).for_each(|action| router.carry_out(action));
            not_before = Instant::now() + IDLE;
        }
    }
}

/// How often it is looked for clocks that are wrong, and how often one that stays so is told again.
const CLOCKS_EVERY_MS: u64 = 1000;
const CLOCKS_TOLD_EVERY_MS: u64 = 60_000;

/// Whose clocks are known to be wrong, and when that was told.
#[derive(Default)]
struct WrongClocks {
    looked: Option<id::Instant>,
    told: BTreeMap<ReplicaId, id::Instant>,
}

impl WrongClocks {
    /// Tells of clocks that have become wrong, now and then of those that stay so, and when one is right.
    fn look<A: Application>(&mut self, replica: &Replica<A>, now: Now) {
        let now = now.instant;
        if self.looked.is_some_and(|looked| now < looked.after_ms(CLOCKS_EVERY_MS)) {
            return;
        }
        self.looked = Some(now);
        let tolerance = replica.clock_tolerance_ms();
        for (peer, ahead) in replica.clocks() {
            if ahead.unsigned_abs() <= tolerance {
                if self.told.remove(&peer).is_some() {
                    tracing::info!(replica = %peer, "the clock is right again");
                }
                continue;
            }
            let known = self.told.get(&peer);
            if known.is_none_or(|told| told.after_ms(CLOCKS_TOLD_EVERY_MS) <= now) {
                self.told.insert(peer, now);
                let own =
                    if peer == replica.id() { "the own clock, that of" } else { "the clock of" };
                let seconds = Duration::from_millis(ahead.unsigned_abs()).as_secs_f64();
                let way = if ahead > 0 { "ahead of" } else { "behind" };
                tracing::warn!(
                    "CLOCK: {own} {peer} is {seconds:.1} s {way} what the others' show; set it right"
                );
            }
        }
    }
}

/// Says when the disk has become slow, much slower, or fast again.
#[derive(Default)]
struct SlowDisk {
    /// What was said last, in microseconds; 0 where it is not slow.
    said: u64,
}

/// A disk that takes so many microseconds for a write is slow.
const SLOW_SYNC: u64 = 250_000;

impl SlowDisk {
    fn look(&mut self, sync: Option<u64>) {
        let Some(sync) = sync else { return };
        let seconds = Duration::from_micros(sync).as_secs_f64();
        if sync >= SLOW_SYNC && sync >= 2 * self.said {
            self.said = sync;
            tracing::warn!("the disk is slow: a write takes {seconds:.2} s to be on it");
        } else if self.said > 0 && sync < SLOW_SYNC / 2 {
            self.said = 0;
            tracing::info!("the disk is as fast again as it should be: {seconds:.3} s a write");
        }
    }
}

/// Says in a sentence what the replica may do.
fn explain(standing: Standing) {
    match standing {
        Standing::Voter => tracing::info!("this replica votes"),
        Standing::New => tracing::info!(
            "the data folder is new: this replica votes when a strong quorum has said that it \
             never heard of it before"
        ),
        Standing::Observer => tracing::warn!(
            "OBSERVER: this replica took part before and its data folder was lost; it follows and \
             serves its peers, and never votes again (docs/operations.md, \"A lost disk\")"
        ),
    }
}

/// Says in a sentence that the replica doubts its own state, or no longer does.
fn explain_doubt(quarantine: Option<&Quarantine>) {
    match quarantine.map(|quarantine| &quarantine.doubt) {
        Some(Doubt::State(slot)) => tracing::error!(
            "QUARANTINE: the state after slot {slot} is not the one that a strong quorum \
             certified; this replica neither votes nor answers clients until it has fetched that"
        ),
        Some(Doubt::Store(what)) => tracing::error!(
            "QUARANTINE: the store is damaged ({what}); this replica neither votes nor answers \
             clients until its state is a certified one"
        ),
        None => tracing::warn!("the state is the certified one again: the quarantine is over"),
    }
}
