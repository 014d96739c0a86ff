//! The replica: one state machine, [`Event`] in, [`Action`]s out.
//!
//! The driver reads both clocks once an event, hands the event in, and carries out the actions in
//! their order. It decides nothing. What must not be forgotten goes out as [`Action::Append`] with
//! a [`Mark`]; every send names the mark it has to wait for, so no driver can let a vote out before
//! what it rests on is on disk. Between events the driver sleeps until [`Replica::deadline`].
//!
//! | file | what is in it |
//! |---|---|
//! | `intake` | requests as they come: what is refused, and what waits |
//! | `primary`, `backup` | what goes into the next slot, and when; which orders are followed |
//! | `acceptance` | a slot is recorded, executed and answered |
//! | `execution` | application and sessions, slot by slot, with the way back |
//! | `sessions` | names, windows, what is forgotten; what makes a request execute once |
//! | `pending` | requests that wait to be ordered, and their passing on |
//! | `orphans` | those of them that were executed in an abandoned history |
//! | `commit`, `ballots`, `lock` | commit points, votes, certificates, the lock, committed replies |
//! | `checkpoint`, `stable`, `states` | votes for a state, stability, what is given up, states at hand |
//! | `answer` | what clients are told, from execution and from memory |
//! | `view_change` | asking for another view: what others say, causes, campaigns; in `patience` what time brings about, in `new_view` how views begin |
//! | `merge` | the rule for entering a view; proofs of divergence |
//! | `adoption` | adopting another history, in turns |
//! | `branch`, `trail` | histories that are not the own one, fetched from their end downwards, and what is remembered of them |
//! | `turns` | long work, a little at a time |
//! | `transfer`, `offers` | a checkpoint's state instead of the slots that led to it; another one where nothing comes |
//! | `settle` | the same on the disk |
//! | `fetch` | what is missing of the own history: asking, answering, being answered |
//! | `admission` | which clients are admitted, where replicas list different ones |
//! | `clocks` | what time it is, and which clock is wrong |
//! | `waits` | what is measured, and the waits that follow from it |
//! | `status` | where the others stand, and sending again what may have been lost |
//! | `standing` | whether this replica may vote; first starts, lost disks, quarantine |
//! | `record`, `outbox`, `start` | what is on disk, what leaves after it, and starting from it |
//! | `due`, `stamps` | what is done at a certain time; numbers on words that must not be played back |
//! | `invariant` | what is asserted after every event |

mod acceptance;
mod admission;
mod adoption;
mod answer;
mod backup;
mod ballots;
mod branch;
mod checkpoint;
mod clocks;
mod commit;
mod counters;
mod due;
mod entered;
mod event;
mod execution;
mod fetch;
mod footprint;
mod intake;
mod invariant;
mod lock;
mod merge;
mod offers;
mod orphans;
mod outbox;
mod pacing;
mod passing_on;
mod pending;
mod primary;
mod record;
mod sessions;
mod settle;
mod shares;
mod stable;
mod stamps;
mod standing;
mod start;
mod states;
mod status;
mod trail;
mod transfer;
mod turns;
mod view_change;
mod votes;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use self::adoption::{Adopting, Preparation};
use self::backup::OrdersAhead;
use self::ballots::Ballots;
use self::branch::Branches;
pub use self::counters::Counters;
use self::due::Due;
use self::entered::Entered;
pub use self::event::{Action, Event, Mark, Target};
use self::execution::Undone;
pub use self::execution::{Execution, RESULT_BYTES_MAX, SLOT_RESULT_BYTES_MAX};
use self::fetch::Fetching;
pub use self::footprint::Footprint;
use self::lock::Lock;
use self::outbox::Outbox;
use self::pending::Pending;
use self::primary::Pipeline;
pub use self::record::{
    Adopted, Aside, EnteredView, Ground, Record, Recovered, Settled, StateHead, StoredState,
};
pub use self::sessions::{Admission, Kept, Known, Sessions};
use self::settle::Settling;
use self::shares::Shares;
use self::stable::Stable;
use self::stamps::Stamps;
use self::standing::Office;
pub use self::standing::{Doubt, Quarantine};
pub use self::start::StartError;
use self::states::States;
use self::status::Peer;
use self::transfer::Arriving;
use self::turns::Turn;
use self::view_change::Changing;
use self::waits::Waits;
use crate::application::Application;
use crate::evidence::Evidence;
use crate::history::History;
use crate::id::{Digest, Instant, Now, ReplicaId, RequestName, Slot, View};
use crate::membership::Membership;
use crate::message::{CommitCertificate, Message, Position, StableProof};
use crate::quorum::ClusterSize;
use crate::seal::Signer;
use crate::tuning::Tuning;

/// What a replica is made of, beside its application.
#[derive(Clone)]
pub struct Setup {
    /// Which one it is.
    pub id: ReplicaId,
    /// Of which cluster.
    pub membership: Arc<Membership>,
    /// Its key pair.
    pub signer: Arc<dyn Signer>,
    /// Checked by the maker.
    pub tuning: Tuning,
    /// For the seeds it chooses as primary; from a good source, new at each start.
    pub seed: [u8; 32],
}

/// A replica of the application `A`. A copy goes its own way from where the original stands.
#[derive(Clone)]
pub struct Replica<A: Application> {
    setup: Setup,
    size: ClusterSize,
    /// Both clocks at the event being handled.
    now: Now,
    view: Entered,
    /// Whether it may vote.
    office: Office,
    changing: Changing,
    history: History,
    execution: Execution<A>,
    undone: Undone,
    branches: Branches,
    /// A history that is about to be adopted, and one that was and is not executed to its end yet.
    preparation: Option<Preparation>,
    adopting: Option<Adopting>,
    turn: Turn,
    lock: Lock,
    stable: Stable,
    pending: Pending,
    shares: Shares,
    ahead: OrdersAhead,
    ballots: Ballots,
    states: States<A::Snapshot>,
    arriving: Arriving<A::Restore>,
    /// How the disk is kept small.
    settling: Settling,
    peers: BTreeMap<ReplicaId, Peer>,
    waits: Waits,
    divergent: BTreeSet<ReplicaId>,
    fetching: Fetching,
    pipeline: Pipeline,
    outbox: Outbox,
    stamps: Stamps,
    due: Due,
    evidence: Vec<Evidence>,
    counters: Counters,
}

/// Everything that decides what it does next: two that read the same behave the same. What never
/// changes is left out, and what is only counted.
impl<A> fmt::Debug for Replica<A>
where
    A: Application + fmt::Debug,
    A::Snapshot: fmt::Debug,
    A::Restore: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setup: _,
            size: _,
            now,
            view,
            office,
            changing,
            history,
            execution,
            undone,
            branches,
            preparation,
            adopting,
            turn,
            lock,
            stable,
            pending,
            // It follows from the history.
            shares: _,
            ahead,
            ballots,
            states,
            arriving,
            settling,
            peers,
            waits,
            divergent,
            fetching,
            pipeline,
            outbox,
            stamps,
            due,
            evidence,
            counters: _,
        } = self;
        f.debug_struct("Replica")
            .field("now", now)
            .field("view", view)
            .field("office", office)
            .field("changing", changing)
            .field("history", history)
            .field("execution", execution)
            .field("undone", undone)
            .field("branches", branches)
            .field("preparation", preparation)
            .field("adopting", adopting)
            .field("turn", turn)
            .field("lock", lock)
            .field("stable", stable)
            .field("pending", pending)
            .field("ahead", ahead)
            .field("ballots", ballots)
            .field("states", states)
            .field("arriving", arriving)
            .field("settling", settling)
            .field("peers", peers)
            .field("waits", waits)
            .field("divergent", divergent)
            .field("fetching", fetching)
            .field("pipeline", pipeline)
            .field("outbox", outbox)
            .field("stamps", stamps)
            .field("due", due)
            .field("evidence", evidence)
            .finish_non_exhaustive()
    }
}

impl<A: Application> Replica<A> {
    /// Takes one event and appends what is to be done to `actions`.
    ///
    /// # Panics
    /// Where an invariant is broken: a bug of ours, never of a peer's making.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        self.now = Now { instant: now.instant.max(self.now.instant), wall: now.wall };
        let (steps, is_of_client) = match &event {
            Event::Request(_)
            | Event::AskSession { .. }
            | Event::AskStatus { .. }
            | Event::AskEvidence { .. } => (0, true),
            Event::Synced(_) => (0, false),
            Event::Peer { .. }
            | Event::Rows(..)
            | Event::Unreadable(_)
            | Event::DiskFull(_)
            | Event::Tick => (self.setup.tuning.turn_slots, false),
        };
        let was_at_work = self.turn.begin(steps);
        if self.is_adopting() {
            self.handle_meanwhile(event);
            self.carry_out();
        } else {
            self.take_up(event);
        }
        if is_of_client && (was_at_work || !self.branches.is_empty()) {
            // No client waits for other histories: the next event of another kind goes on with them.
            self.turn.wait_if(was_at_work);
        } else if !self.is_adopting() {
            self.tend_views();
        }
        self.tend_standing();
        self.order_pending();
        self.turn.end();
        self.counters.turn_steps = self.turn.done();
        self.assert_invariants();
        self.outbox.hand_over(actions);
    }

    fn take_up(&mut self, event: Event) {
        match event {
            Event::Peer { from, message } => self.on_message(from, message.into_inner()),
            Event::Request(request) => self.on_request(request.into_inner()),
            Event::AskSession { client, session } => self.answer_session(client, session),
            Event::AskStatus { client, nonce, counters, disk, doubled, disagreements } => {
                self.answer_status(client, nonce, counters, disk, doubled, disagreements);
            }
            Event::AskEvidence { client } => self.answer_evidence(client),
            Event::Synced(mark) => {
                self.outbox.note_synced(mark);
                self.waits.synced(mark, self.now.instant);
                self.settle_on();
            }
            Event::Rows(mark, rows) => self.on_rows(mark, rows),
            Event::Unreadable(why) => self.distrust(&why),
            Event::DiskFull(is_full) => self.on_disk_full(is_full),
            Event::Tick => self.on_tick(),
        }
    }

    fn on_message(&mut self, from: ReplicaId, message: Message) {
        match message {
            Message::Order(order) => self.on_order(order),
            Message::Commit(commit) => self.on_commit(&commit),
            Message::Certificate(certificate) => self.on_certificate(from, certificate),
            Message::Checkpoint(checkpoint) => self.on_checkpoint(&checkpoint),
            Message::Stable(proof) => self.on_stable(from, *proof),
            Message::Status(status) => self.on_status(&status),
            Message::Fetch(fetch) => self.on_fetch(&fetch),
            Message::Waiting(waiting) => self.on_waiting(from, &waiting),
            Message::Clients(clients) => self.on_clients(from, clients),
            Message::Requests(requests) => {
                self.fetching.pace.answered(from, self.now.instant);
                self.on_requests(from, requests);
            }
            Message::Slots(slots) => self.on_slots(from, slots),
            Message::Branch(branch) => self.on_branch(from, branch),
            Message::State(chunk) => self.on_state(from, chunk),
            Message::Suspect(suspect) => self.on_suspect(suspect),
            Message::Campaign(campaign) => self.on_campaign(from, *campaign),
            Message::NewView(new_view) => self.on_new_view(from, new_view),
            Message::Evidence(evidence) => self.on_evidence(*evidence),
            Message::Enrol(enrol) => self.on_enrol(&enrol),
            Message::Enrolled(word) => self.on_enrolled(&word),
            Message::Pulse(pulse) => self.on_pulse(&pulse),
        }
    }

    fn on_tick(&mut self) {
        self.advance();
        self.commit_when_quiet();
        self.checkpoint_when_quiet();
        self.forward_waiting();
        self.tend_patience();
        self.fetch_missing();
        self.send_status_when_due();
    }

    /// When to come back with [`Event::Tick`] if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.is_adopting() {
            return Some(self.now.instant);
        }
        [
            self.turn.waits().then_some(self.now.instant),
            Some(self.due.next()),
            self.order_at(),
            self.clock_allows_at(),
            self.forward_at(),
            self.fetch_at(),
            self.change_at(),
            self.branch_fetch_at(),
            self.transfer_at(),
            self.enrol_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Has a record written, and tells which one it is.
    fn append(&mut self, record: Record) -> Mark {
        match &record {
            Record::Slot { entry, .. } => self.settling.note_slot(entry),
            Record::Aside(aside) => self.settling.note_slot(&aside.linked.entry),
            _ => {}
        }
        let mark = self.outbox.append(record);
        self.waits.appends(mark, self.now.instant);
        mark
    }

    /// Sends when everything appended so far is on disk.
    fn send(&mut self, to: Target, message: Message) {
        self.outbox.send(to, message, self.outbox.appended());
    }

    /// Sends what rests on no record.
    fn send_at_once(&mut self, to: Target, message: Message) {
        self.outbox.send(to, message, Mark::NONE);
    }

    fn primary(&self) -> ReplicaId {
        self.entered().primary(self.size.replicas())
    }

    fn is_primary(&self) -> bool {
        self.primary() == self.setup.id
    }

    /// Keeps a proof of misbehaviour and tells of it: one a culprit is enough to convict it for
    /// good, and more would only fill memory. A proof against the primary of a view that matters
    /// is passed on in any case: the others shall leave that view, too.
    fn accuse(&mut self, evidence: Evidence) {
        self.counters.contradictions += 1;
        let culprit = evidence.culprit();
        let matters = self.note_proof(&evidence);
        let known = self.evidence.iter().any(|known| known.culprit() == culprit);
        if known && !matters {
            return;
        }
        if !known {
            self.counters.proofs += 1;
            self.evidence.push(evidence.clone());
            self.append(Record::Evidence(Box::new(evidence.clone())));
            self.outbox.accuse(evidence.clone());
        }
        self.send_at_once(Target::Others, Message::Evidence(Box::new(evidence)));
        self.reconsider();
    }

    /// Which replica this is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.setup.id
    }

    /// The view it has entered.
    #[must_use]
    pub fn entered(&self) -> View {
        self.view.view()
    }

    /// The slot it was entered at: the head that the own history then had.
    #[must_use]
    pub fn entry_slot(&self) -> Slot {
        self.view.slot()
    }

    /// The higher view it asks for, if any.
    #[must_use]
    pub fn campaign(&self) -> Option<View> {
        self.changing.campaign()
    }

    /// Whether this request waits to be ordered, or to be executed with a history that was adopted.
    #[must_use]
    pub fn waits(&self, name: &RequestName) -> bool {
        self.pending.holds(name)
            || self.adopting.as_ref().is_some_and(|adopting| adopting.holds(name))
    }

    /// How many of the requests that wait could be ordered now. The rest waits for its clients.
    #[must_use]
    pub fn orderable(&self) -> usize {
        let requests = self.pending.all();
        requests.filter(|(_, request)| self.not_orderable(request).is_none()).count()
    }

    /// The stable checkpoint, with what proves it.
    #[must_use]
    pub fn stable_proof(&self) -> Option<&StableProof> {
        self.stable.proof()
    }

    /// The end of its history.
    #[must_use]
    pub fn head(&self) -> Position {
        self.history.head()
    }

    /// The highest commit certificate whose batches it holds.
    #[must_use]
    pub fn lock(&self) -> Option<&CommitCertificate> {
        self.lock.get()
    }

    /// The last slot that will never be undone.
    #[must_use]
    pub fn stable(&self) -> Slot {
        self.stable.slot()
    }

    /// The slots in memory.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The application, as it is after the head.
    #[must_use]
    pub fn application(&self) -> &A {
        self.execution.application()
    }

    /// The sessions, as they are after the head.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        self.execution.sessions()
    }

    /// Over the application's state and the sessions, after the head.
    pub fn state_digest(&mut self) -> Digest {
        self.execution.digest()
    }

    /// The proofs of misbehaviour held.
    #[must_use]
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
