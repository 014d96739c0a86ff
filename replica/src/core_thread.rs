//! Who looks after the core: a thread of its own, which waits for events and the core's deadline, and whoever brings an
//! event while nobody does. Nothing that the core does waits: what it wants done goes into queues that take it at once.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use elea_protocol::application::Application;
use elea_protocol::id::{self, Now, ReplicaId};
use elea_protocol::message::Standing;
use elea_protocol::replica::{Action, Doubt, Driver, Event, Quarantine, Replica};
use tokio::sync::watch;

use crate::certified::Certified;
use crate::clock::Clock;
use crate::counters::{Counter, Counters};
use crate::inbox::{Appetite, Inbox, Queued, Wish, Woken};
use crate::measures::Measures;
use crate::outbound::{Outbound, Outgoing};
use crate::store_thread::StoreQueue;
use crate::watcher::Report;

/// A deadline that has passed and stays is looked at no more often than this.
const IDLE: Duration = Duration::from_millis(1);

/// Everything the core's actions lead to.
pub(crate) struct Router {
    pub(crate) store: StoreQueue,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) certified: Arc<Certified>,
    pub(crate) measures: Arc<Measures>,
    /// What the replica may do.
    pub(crate) standing: watch::Sender<Standing>,
    /// Whether everything that it knows to be final is in a stable state.
    pub(crate) all_stable: watch::Sender<bool>,
    /// Whether it was told to leave, and has.
    pub(crate) has_left: watch::Sender<bool>,
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

/// Whoever brought an event takes more groups for no longer than this, before the core's own thread goes on: what else
/// waits for that one is to go on, too.
const BROUGHT: Duration = Duration::from_micros(500);

/// So many queries are answered under one signature, and for so long at most before something else is looked at.
const QUERIES_GROUP: usize = 16;
const QUERIES_TIME: Duration = Duration::from_micros(500);

/// The core, with what it needs to go on. One thread at a time has it: the core's own, or whoever has just brought an
/// event and finds nobody at it, which saves waking a thread and waiting for it.
pub(crate) struct Core<A: Application>(Mutex<Option<AtWork<A>>>);

struct AtWork<A: Application> {
    replica: Replica<A>,
    router: Router,
    clock: Clock,
    backlog_max: usize,
    group: Vec<Queued>,
    /// Queries that wait, each an event of its own.
    queries: VecDeque<Queued>,
    actions: Vec<Action>,
    not_before: Instant,
    doubted: bool,
    wrong_clocks: WrongClocks,
    slow: SlowDisk,
}

impl<A: Application + 'static> Core<A> {
    /// A core that is looked after from now on, by its thread, which [runs](Core::run) it, and by whoever brings something.
    pub(crate) fn new(
        replica: Replica<A>,
        router: Router,
        clock: Clock,
        backlog_max: usize,
        inbox: &Inbox,
        panicked: impl Fn(Box<dyn Any + Send>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        explain(replica.standing());
        let core = Arc::new(Self(Mutex::new(Some(AtWork {
            replica,
            router,
            clock,
            backlog_max,
            group: Vec::new(),
            queries: VecDeque::new(),
            actions: Vec::new(),
            not_before: Instant::now(),
            doubted: false,
            wrong_clocks: WrongClocks::default(),
            slow: SlowDisk::default(),
        }))));
        // What is due at the start waits for no event.
        inbox.wishes(Wish { until: Some(Instant::now()), intake: true });
        let attending = Arc::clone(&core);
        inbox.attended_by(Box::new(move |inbox| {
            let attend = AssertUnwindSafe(|| attending.attend(inbox));
            // The task that brought the event is not the one that is broken.
            if let Err(panic) = catch_unwind(attend) {
                inbox.close();
                panicked(panic);
            }
        }));
        core
    }

    /// Runs the core until the inbox is closed. Dropping the router then ends the store's thread.
    pub(crate) fn run(&self, inbox: &Inbox) {
        let _end = End(self);
        while inbox.wait() == Woken::Running {
            // Who panics with it leaves nothing to go on with.
            let Ok(mut held) = self.0.lock() else { return };
            if let Some(core) = &mut *held {
                core.go_on(inbox, true);
            }
        }
    }

    /// How the replica is; `None` once it has ended. Waits until whoever has the core is done.
    pub(crate) fn look(&self, inbox: &Inbox, driver: Driver) -> Option<Report> {
        let seen = self.0.lock().ok()?.as_mut().map(|core| report(&mut core.replica, driver));
        // Whoever brought something meanwhile found the core taken, and left it to whoever has it.
        inbox.look();
        seen
    }

    /// Drops the core and all its queues. Its thread does that when it ends.
    pub(crate) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Looks after what is there, if nobody else does. Whoever does looks again before it goes.
    fn attend(&self, inbox: &Inbox) {
        if let Ok(mut held) = self.0.try_lock()
            && let Some(core) = &mut *held
        {
            let since = Instant::now();
            while core.go_on(inbox, false) && since.elapsed() < BROUGHT {}
            drop(held);
            inbox.look();
        }
    }
}

fn report<A: Application>(replica: &mut Replica<A>, driver: Driver) -> Report {
    // Nobody sent a question, so there is no nonce to be sent back.
    let status = replica.status(0, driver);
    let (history, rules) = (replica.history(), replica.rules());
    Report {
        settled: history.base().slot,
        speculative_slots: status.head.slot.since(status.stable),
        speculative_bytes: history.weight_above(status.stable),
        speculative_slots_max: rules.max_speculative_slots,
        speculative_bytes_max: rules.max_speculative_bytes,
        status,
    }
}

/// Ends the core, whichever way its thread ends.
struct End<'a, A: Application + 'static>(&'a Core<A>);

impl<A: Application + 'static> Drop for End<'_, A> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<A: Application> AtWork<A> {
    /// Handles a group of events, if there are any, and what is due. Answers whether there were. What is large waits
    /// until there is time.
    fn go_on(&mut self, inbox: &Inbox, has_time: bool) -> bool {
        let begin = Instant::now();
        // With the disk far behind, taking in more would only grow what waits for it.
        let intake = self.router.store.backlog() <= self.backlog_max;
        // So clients take turns with their queries, too.
        let appetite = Appetite { intake, bulk: has_time, clients: self.queries.is_empty() };
        let has_some = inbox.take(appetite, &mut self.group);
        if inbox.is_closed() {
            // Nothing is due any more either: what failed is silent.
            self.group.clear();
            return false;
        }
        let mut group = std::mem::take(&mut self.group);
        for queued in group.drain(..) {
            match queued.event {
                Event::Queries(_) => self.queries.push_back(queued),
                event => self.handle(event),
            }
        }
        self.group = group;
        self.answer_queries();
        self.tell();
        if self.replica.deadline().is_some_and(|at| at <= self.clock.now().instant)
            && Instant::now() >= self.not_before
        {
            self.replica.handle(self.clock.now(), Event::Tick, &mut self.actions);
            self.actions.drain(..).for_each(|action| self.router.carry_out(action));
            self.not_before = Instant::now() + IDLE;
        }
        let until = self.replica.deadline().and_then(|at| self.clock.at(at));
        let until = until.map(|at| at.max(self.not_before));
        let has_more = !self.queries.is_empty();
        let until = if has_more { Some(Instant::now()) } else { until };
        let intake = self.router.store.backlog() <= self.backlog_max;
        inbox.wishes(Wish { until, intake });
        self.router.measures.worked(begin.elapsed());
        has_some || has_more
    }

    fn handle(&mut self, event: Event) {
        if let Event::Request(request) = &event {
            self.router.measures.asks(request.body().name());
        }
        self.replica.handle(self.clock.now(), event, &mut self.actions);
        self.actions.drain(..).for_each(|action| self.router.carry_out(action));
    }

    /// Answers queries, a few at a time under one signature, and for no longer than a moment: what peers say is not to
    /// wait for them. Their room is given back when they are answered.
    fn answer_queries(&mut self) {
        let begin = Instant::now();
        while !self.queries.is_empty() && begin.elapsed() < QUERIES_TIME {
            let count = self.queries.len().min(QUERIES_GROUP);
            let (mut queries, mut rooms) = (Vec::new(), Vec::new());
            for Queued { event, room } in self.queries.drain(..count) {
                if let Event::Queries(more) = event {
                    queries.extend(more);
                    rooms.push(room);
                }
            }
            self.handle(Event::Queries(queries));
        }
    }

    /// Tells everybody who wants to know how the replica is.
    fn tell(&mut self) {
        let Self { replica, router, .. } = self;
        router.standing.send_if_modified(|known| {
            let standing = replica.standing();
            let is_new = *known != standing;
            if is_new {
                *known = standing;
                explain(standing);
            }
            is_new
        });
        router.all_stable.send_if_modified(|known| {
            std::mem::replace(known, replica.is_all_stable()) != replica.is_all_stable()
        });
        router.has_left.send_if_modified(|known| {
            std::mem::replace(known, replica.has_left()) != replica.has_left()
        });
        self.slow.look(replica.sync_time());
        if self.doubted != replica.in_quarantine().is_some() {
            self.doubted = !self.doubted;
            explain_doubt(replica.in_quarantine());
        }
        self.wrong_clocks.look(replica, self.clock.now());
        if let Some(lock) = replica.lock().filter(|lock| lock.body.view == replica.entered()) {
            router.certified.tell(lock.body.view, lock.body.slot);
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
