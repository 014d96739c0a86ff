//! The replica: one state machine, [`Event`] in, [`Action`]s out.
//!
//! The driver reads both clocks once an event, hands the event in, and carries out the actions in
//! their order. It decides nothing. What must not be forgotten goes out as [`Action::Append`] with
//! a [`Mark`]; every send names the mark it has to wait for, so no driver can let a vote out before
//! what it rests on is on disk. Between events the driver sleeps until [`Replica::deadline`].
//!
//! | file | what is in it |
//! |---|---|
//! | `ordering` | the primary's batches; a backup's checks of orders; acceptance of a slot |
//! | `execution` | application and sessions, slot by slot, with the way back |
//! | `sessions` | names, windows, what is forgotten; what makes a request execute once |
//! | `pending` | requests that wait to be ordered, and their passing on |
//! | `orphans` | those of them that were executed in an abandoned history |
//! | `commit` | commit points, votes, certificates, the lock, committed replies |
//! | `checkpoint` | votes for a state, stability, what is given up |
//! | `answer` | what clients are told, from execution and from memory |
//! | `view_change` | asking for another view: what others say, causes, campaigns; in `patience` what time brings about, in `new_view` how views begin |
//! | `merge` | the rule for entering a view; proofs of divergence |
//! | `adoption` | adopting another history, in turns |
//! | `branch`, `trail` | histories that are not the own one, fetched from their end downwards, and what is remembered of them |
//! | `turns` | long work, a little at a time |
//! | `transfer` | a checkpoint's state instead of the slots that led to it |
//! | `settle` | the same on the disk |
//! | `fetch` | what is missing of the own history: asking, answering, being answered |
//! | `admission` | which clients are admitted, where replicas list different ones |
//! | `clocks` | what time it is, and which clock is wrong |
//! | `waits` | what is measured, and the waits that follow from it |
//! | `status` | where the others stand, and sending again what may have been lost |
//! | `standing` | whether this replica may vote; first starts, lost disks, quarantine |
//! | `record`, `start` | what is on disk, and starting from it |
//! | `invariant` | what is asserted after every event |

mod admission;
mod adoption;
mod answer;
mod branch;
mod checkpoint;
mod clocks;
mod commit;
mod counters;
mod execution;
mod fetch;
mod invariant;
mod merge;
mod offers;
mod ordering;
mod orphans;
mod pacing;
mod passing_on;
mod pending;
mod record;
mod sessions;
mod settle;
mod shares;
mod standing;
mod start;
mod status;
mod trail;
mod transfer;
mod turns;
mod view_change;
mod votes;
mod waits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use self::adoption::{Adopting, Preparation};
use self::branch::Branches;
pub use self::counters::Counters;
use self::execution::Undone;
pub use self::execution::{Execution, RESULT_BYTES_MAX, SLOT_RESULT_BYTES_MAX};
use self::fetch::Fetching;
use self::ordering::{Ahead, UnderWay};
use self::pacing::Pacing;
use self::pending::Pending;
pub use self::record::{
    Adopted, Aside, EnteredView, Ground, Record, Recovered, Settled, StateHead, StoredState,
};
pub use self::sessions::{Admission, Kept, Known, Sessions};
use self::settle::Settling;
use self::shares::Shares;
use self::standing::Office;
pub use self::standing::{Doubt, Quarantine};
pub use self::start::StartError;
use self::status::Peer;
use self::transfer::{Served, States, Transfer, Whole};
use self::turns::Turn;
use self::view_change::Changing;
use self::votes::Votes;
use self::waits::Waits;
use crate::application::Application;
use crate::evidence::Evidence;
use crate::history::History;
use crate::id::{ClientId, Digest, Instant, Now, ReplicaId, RequestName, SessionId, Slot, View};
use crate::membership::Membership;
use crate::message::{
    Checkpoint, Commit, CommitCertificate, Disagreement, DiskHealth, Message, NewView, Origin,
    Position, SignedRequest, StableProof, ToClient,
};
use crate::quorum::ClusterSize;
use crate::rows::{RowsView, Unreadable};
use crate::seal::{Signed, Signer, Verified};
use crate::tuning::Tuning;

/// A point in the sequence of durable records of one run. `Mark::NONE` is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

impl Mark {
    /// Depends on no record.
    pub const NONE: Self = Self(0);
}

/// Everything that can happen to a replica.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer sent something, on a connection that it proved to be its own.
    Peer {
        /// Whose connection it was; not who signed what the message holds.
        from: ReplicaId,
        /// What came.
        message: Verified<Message>,
    },
    /// A client sent a request.
    Request(Verified<Arc<SignedRequest>>),
    /// A client asks what became of one of its sessions.
    AskSession {
        /// Who asks; known from the connection.
        client: ClientId,
        /// Its session.
        session: SessionId,
    },
    /// A client or operator asks which proofs of misbehaviour the replica holds.
    AskEvidence {
        /// Who asks.
        client: ClientId,
    },
    /// A client or operator asks how the replica is.
    AskStatus {
        /// Who asks.
        client: ClientId,
        /// To be sent back.
        nonce: u64,
        /// What the driver has counted, to be told beside the core's own.
        counters: Vec<(String, u64)>,
        /// How the driver's disk is.
        disk: DiskHealth,
        /// Whose keys it hears in two places at once.
        doubled: Vec<Origin>,
        /// Whom the driver does not speak to, for their settings.
        disagreements: Vec<Disagreement>,
    },
    /// Every record up to this mark is on disk.
    Synced(Mark),
    /// The record of this mark is on disk, which was a [`Record::Settled`] or the last
    /// [`Record::Rows`] of a state, and these are the rows of that state as they are now.
    Rows(Mark, RowsView),
    /// The driver found that the stored state is not what was written.
    Unreadable(Unreadable),
    /// Whether the disk is full, so that nothing more gets durable until it has room.
    DiskFull(bool),
    /// The [deadline](Replica::deadline) has come, or some other time.
    Tick,
}

/// Everything a replica asks of the world, in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Write this record; tell with [`Event::Synced`] when it and all before it are on disk.
    Append {
        /// One above the last.
        mark: Mark,
        /// What to write.
        record: Record,
    },
    /// Send to replicas, not before `after` is on disk.
    Send {
        /// To whom.
        to: Target,
        /// What.
        message: Message,
        /// What it rests on.
        after: Mark,
    },
    /// Send to a client, on every connection of its that used this session, or on all of them
    /// where no session is named; not before `after` is on disk.
    Answer {
        /// To whom.
        client: ClientId,
        /// For which of its sessions.
        session: Option<SessionId>,
        /// What.
        message: ToClient,
        /// What it rests on.
        after: Mark,
    },
    /// Somebody was caught; the proof is also kept.
    Accuse(Evidence),
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every other replica.
    Others,
    /// One of them.
    One(ReplicaId),
}

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
    /// The view entered, what made it begin, and the slot it was entered at: no vote of this view
    /// lies below.
    entered: View,
    new_view: Option<Signed<NewView>>,
    entry_slot: Slot,
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
    /// The highest certificate shown by each replica that ranks above the lock.
    candidates: BTreeMap<ReplicaId, CommitCertificate>,
    lock: Option<CommitCertificate>,
    /// Whether it lies on another history than the own. It is in memory only then.
    lock_aside: bool,
    stable: Option<StableProof>,
    pending: Pending,
    shares: Shares,
    /// Orders of the entered view above the head.
    ahead: BTreeMap<Slot, Ahead>,
    commits: Votes<Commit>,
    checkpoints: Votes<Checkpoint>,
    /// The highest certificates for slots that are not executed yet.
    certified_ahead: Option<CommitCertificate>,
    stable_ahead: Option<StableProof>,
    /// The highest slots voted for in the entered view.
    voted_commit: Slot,
    /// Where votes were cast on a history that was given up within the view, up to it. Durable.
    voted_floor: Slot,
    voted_checkpoint: Slot,
    /// States at checkpoint slots above the stable one, and stable ones kept for others.
    taken: States<A::Snapshot>,
    served: VecDeque<Served<A::Snapshot>>,
    /// A state that is on its way here, and one that is here and not in place yet.
    transfer: Option<Transfer<A::Restore>>,
    ready: Option<Whole>,
    /// Whether the own state could not be read, or is not the certified one, so that nothing may rest on it.
    distrusted: bool,
    /// How the disk is kept small.
    settling: Settling,
    peers: BTreeMap<ReplicaId, Peer>,
    waits: Waits,
    divergent: BTreeSet<ReplicaId>,
    fetching: Fetching,
    /// The primary's slots that are not durable or not certified yet, oldest first.
    under_way: VecDeque<UnderWay>,
    last_ordered: Instant,
    pacing: Pacing,
    /// The last record appended, and the last one known to be on disk.
    appended: Mark,
    synced: Mark,
    commit_at: Option<Instant>,
    /// When the state after a head that stays certified and alone is voted for.
    quiet_at: Option<Instant>,
    status_at: Instant,
    last_stamp: u64,
    /// Up to where stamps may be used, and the record that says so.
    stamps_reserved: u64,
    stamps_after: Mark,
    /// Whether nothing gets durable any more, for want of room.
    disk_full: bool,
    seeds_drawn: u64,
    evidence: Vec<Evidence>,
    counters: Counters,
    out: Vec<Action>,
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
            entered,
            new_view,
            entry_slot,
            office,
            changing,
            history,
            execution,
            undone,
            branches,
            preparation,
            adopting,
            turn,
            candidates,
            lock,
            lock_aside,
            stable,
            pending,
            // It follows from the history.
            shares: _,
            ahead,
            commits,
            checkpoints,
            certified_ahead,
            stable_ahead,
            voted_commit,
            voted_floor,
            voted_checkpoint,
            taken,
            served,
            transfer,
            ready,
            distrusted,
            settling,
            peers,
            waits,
            divergent,
            fetching,
            under_way,
            last_ordered,
            pacing,
            appended,
            synced,
            commit_at,
            quiet_at,
            status_at,
            last_stamp,
            stamps_reserved,
            stamps_after,
            disk_full,
            seeds_drawn,
            evidence,
            counters: _,
            out: _,
        } = self;
        f.debug_struct("Replica")
            .field("now", now)
            .field("entered", entered)
            .field("new_view", new_view)
            .field("entry_slot", entry_slot)
            .field("office", office)
            .field("changing", changing)
            .field("history", history)
            .field("execution", execution)
            .field("undone", undone)
            .field("branches", branches)
            .field("preparation", preparation)
            .field("adopting", adopting)
            .field("turn", turn)
            .field("candidates", candidates)
            .field("lock", lock)
            .field("lock_aside", lock_aside)
            .field("stable", stable)
            .field("pending", pending)
            .field("ahead", ahead)
            .field("commits", commits)
            .field("checkpoints", checkpoints)
            .field("certified_ahead", certified_ahead)
            .field("stable_ahead", stable_ahead)
            .field("voted_commit", voted_commit)
            .field("voted_floor", voted_floor)
            .field("voted_checkpoint", voted_checkpoint)
            .field("taken", taken)
            .field("served", served)
            .field("transfer", transfer)
            .field("ready", ready)
            .field("distrusted", distrusted)
            .field("settling", settling)
            .field("peers", peers)
            .field("waits", waits)
            .field("divergent", divergent)
            .field("fetching", fetching)
            .field("under_way", under_way)
            .field("last_ordered", last_ordered)
            .field("pacing", pacing)
            .field("appended", appended)
            .field("synced", synced)
            .field("commit_at", commit_at)
            .field("quiet_at", quiet_at)
            .field("status_at", status_at)
            .field("last_stamp", last_stamp)
            .field("stamps_reserved", stamps_reserved)
            .field("stamps_after", stamps_after)
            .field("disk_full", disk_full)
            .field("seeds_drawn", seeds_drawn)
            .field("evidence", evidence)
            .finish_non_exhaustive()
    }
}

/// How much memory each store of a replica holds, for the checks of I10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Requests waiting to be ordered, orphans left out.
    pub pending: usize,
    /// Requests of abandoned slots that wait to be executed again.
    pub orphans: usize,
    /// Stable states kept for others.
    pub states: usize,
    /// The bytes of their operations.
    pub pending_bytes: usize,
    /// Orders that cannot be executed yet.
    pub orders_ahead: usize,
    /// Commit votes.
    pub commit_votes: usize,
    /// Checkpoint votes.
    pub checkpoint_votes: usize,
    /// Sessions of all clients.
    pub sessions: usize,
    /// Slots of the history in memory.
    pub slots: usize,
    /// State digests remembered.
    pub digests: usize,
    /// Proofs of misbehaviour.
    pub evidence: usize,
    /// Slots of other histories.
    pub branch_slots: usize,
    /// View changes of all replicas.
    pub view_changes: usize,
    /// New views above the one entered.
    pub new_views: usize,
    /// Orders and votes of a view not entered yet.
    pub of_later_views: usize,
    /// Results remembered of operations that were undone.
    pub undone_results: usize,
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
        actions.append(&mut self.out);
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
                self.synced = self.synced.max(mark);
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
            Some(self.status_at),
            self.commit_at,
            self.quiet_at,
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

    fn append(&mut self, record: Record) {
        match &record {
            Record::Slot { entry, .. } => self.settling.note_slot(entry),
            Record::Aside(aside) => self.settling.note_slot(&aside.linked.entry),
            _ => {}
        }
        self.appended = Mark(self.appended.0 + 1);
        self.waits.appends(self.appended, self.now.instant);
        self.out.push(Action::Append { mark: self.appended, record });
    }

    /// Sends when everything appended so far is on disk.
    fn send(&mut self, to: Target, message: Message) {
        let after = self.appended;
        self.out.push(Action::Send { to, message, after });
    }

    /// Sends what rests on no record.
    fn send_at_once(&mut self, to: Target, message: Message) {
        self.out.push(Action::Send { to, message, after: Mark::NONE });
    }

    fn primary(&self) -> ReplicaId {
        self.entered.primary(self.size.replicas())
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
            self.out.push(Action::Accuse(evidence.clone()));
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
        self.entered
    }

    /// The slot it was entered at: the head that the own history then had.
    #[must_use]
    pub fn entry_slot(&self) -> Slot {
        self.entry_slot
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
        self.stable.as_ref()
    }

    /// The end of its history.
    #[must_use]
    pub fn head(&self) -> Position {
        self.history.head()
    }

    /// The highest commit certificate whose batches it holds.
    #[must_use]
    pub fn lock(&self) -> Option<&CommitCertificate> {
        self.lock.as_ref()
    }

    /// The last slot that will never be undone.
    #[must_use]
    pub fn stable(&self) -> Slot {
        self.stable.as_ref().map_or(Slot::GENESIS, StableProof::slot)
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

    /// What it holds in memory.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            pending: self.pending.len(),
            pending_bytes: self.pending.bytes(),
            orders_ahead: self.ahead.len(),
            commit_votes: self.commits.len(),
            checkpoint_votes: self.checkpoints.len(),
            sessions: usize::try_from(self.sessions().len()).unwrap_or(usize::MAX),
            slots: self.history.len(),
            digests: self.taken.len(),
            orphans: self.pending.orphans().len(),
            states: self.served.len(),
            evidence: self.evidence.len(),
            branch_slots: self.branches.len(),
            view_changes: self.changing.view_changes(),
            new_views: self.changing.new_views(),
            of_later_views: self.changing.of_later_views(),
            undone_results: self.undone.len(),
        }
    }
}
