//! The replica: one state machine, [`Event`] in, [`Action`]s out.
//!
//! The driver reads both clocks once an event, hands the event in, and carries out the actions in
//! their order. It decides nothing. What must not be forgotten goes out as [`Action::Append`] with
//! a [`Mark`]; every send names the mark it has to wait for, so no driver can let a vote out before
//! what it rests on is on disk. Between events the driver sleeps until [`Replica::deadline`].
//!
//! | room | what is in it |
//! |---|---|
//! | `normal` | a request becomes a slot, and a slot final |
//! | `views` | another view begins, and two histories become one |
//! | `state` | checkpoints, and states instead of slots |
//! | `disk` | what is written, what rests on it, starting from it, and what may be signed then |
//! | `time` | what time brings about, and what is known of the others |
//!
//! Each says at its door what its files are for. Outside the rooms is what all of them need: `sessions`, which makes a
//! request execute once; `event`; `invariant`, what is asserted after every event; and what is shown of a
//! replica: `inspection`, `footprint`, `counters`.

mod counters;
mod disk;
mod event;
mod footprint;
mod inspection;
mod invariant;
mod normal;
mod sessions;
mod state;
mod time;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::counters::Counters;
pub use self::disk::{
    Adopted, Aside, Doubt, EnteredView, Ground, Quarantine, Record, Recovered, Settled, StartError,
    StoredState,
};
use self::disk::{Office, Outbox};
pub use self::event::{Action, Driver, Event, Mark, Target};
pub use self::footprint::Footprint;
use self::normal::{
    Ballots, Budget, Common, Fetching, Lock, OrdersAhead, Pending, Pipeline, Queries, Shares,
    Undone,
};
pub use self::normal::{Execution, RESULT_BYTES_MAX, SLOT_RESULT_BYTES_MAX};
pub use self::sessions::{Admission, Kept, Known, Sessions};
use self::state::{Arriving, Settling, Stable, States};
use self::time::{Due, Peer, Stamps, Turn, Waits};
use self::views::{Adopting, Branches, Bygone, Changing, Divergent, Entered, Preparation, Proofs};
use crate::application::Application;
use crate::edition::Editions;
use crate::evidence::Evidence;
use crate::history::History;
use crate::id::{Instant, Now, ReplicaId};
use crate::membership::Membership;
use crate::message::Message;
use crate::quorum::ClusterSize;
use crate::signature::Signer;
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
    /// What its program can execute: [`Editions::with`] those of the application.
    pub editions: Editions,
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
    preparation: Preparation,
    adopting: Adopting,
    turn: Turn,
    lock: Lock,
    /// Which editions all replicas execute.
    common: Common,
    stable: Stable,
    pending: Pending,
    queries: Queries,
    bygone: Bygone,
    shares: Shares,
    ahead: OrdersAhead,
    ballots: Ballots,
    states: States<A::Snapshot>,
    arriving: Arriving<A::Restore>,
    /// How the disk is kept small.
    settling: Settling,
    peers: BTreeMap<ReplicaId, Peer>,
    waits: Waits,
    divergent: Divergent,
    fetching: Fetching,
    pipeline: Pipeline,
    outbox: Outbox,
    stamps: Stamps,
    due: Due,
    proofs: Proofs,
    /// What all clients together may be given of states.
    lending: Budget,
    counters: Counters,
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
            | Event::Queries(_)
            | Event::AskSession { .. }
            | Event::AskStatus { .. }
            | Event::AskEvidence { .. }
            | Event::AskState { .. }
            | Event::AskPiece { .. } => (0, true),
            Event::Synced(_) => (0, false),
            Event::Peer { .. }
            | Event::Rows(..)
            | Event::Unreadable(_)
            | Event::DiskFull(_)
            | Event::Leave
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
        self.tend_bygone();
        self.tend_queries();
        self.turn.end();
        self.counters.turn_steps = self.turn.done();
        self.assert_invariants();
        self.outbox.hand_over(actions);
    }

    fn take_up(&mut self, event: Event) {
        match event {
            Event::Peer { from, message } => self.on_message(from, message.into_inner()),
            Event::Request(request) => self.on_request(request.into_inner()),
            Event::Queries(queries) => self.on_queries(queries),
            Event::AskSession { client, session } => self.answer_session(client, session),
            Event::AskStatus { client, nonce, driver } => {
                self.answer_status(client, nonce, driver);
            }
            Event::AskEvidence { client } => self.answer_evidence(client),
            Event::AskState { client } => self.answer_state(client),
            Event::AskPiece { client, at, index } => self.answer_piece(client, at, index),
            Event::Synced(mark) => {
                self.outbox.note_synced(mark);
                self.waits.synced(mark, self.now.instant);
                self.settle_on();
            }
            Event::Rows(mark, rows) => self.on_rows(mark, rows),
            Event::Unreadable(why) => self.distrust(&why),
            Event::DiskFull(is_full) => self.on_disk_full(is_full),
            Event::Leave => self.on_leave(),
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
            Message::Status(status) => self.on_status(from, &status),
            Message::Fetch(fetch) => self.on_fetch(&fetch),
            Message::Waiting(waiting) => self.on_waiting(from, &waiting),
            Message::Clients(clients) => self.on_clients(from, clients),
            Message::Requests(requests) => {
                let next = (self.entered(), self.history.head().slot.next());
                self.fetching.note_requests(from, next, self.now.instant);
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
        let matters = self.note_proof(&evidence);
        let is_first = self.proofs.note(&evidence);
        if !is_first && !matters {
            return;
        }
        if is_first {
            self.counters.proofs += 1;
            self.append(Record::Evidence(Box::new(evidence.clone())));
            self.outbox.accuse(evidence.clone());
        }
        self.send_at_once(Target::Others, Message::Evidence(Box::new(evidence)));
        self.reconsider();
    }
}
