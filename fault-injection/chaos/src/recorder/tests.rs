//! The recorder is fed what no correct replica says, and must complain.

use std::sync::Arc;

use bytes::Bytes;
use elea_fault_injection::keys::Keyring;
use elea_fault_injection::rng::Rng;
use elea_protocol::codec::{self, Canonical};
use elea_protocol::edition::{Edition, Editions};
use elea_protocol::history::extend;
use elea_protocol::id::{
    ClientId, Digest, ReplicaId, RequestName, RequestNumber, SessionId, Slot, View, WallTime,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Checkpoint, Commit, CommitCertificate, DiskHealth, Message, NodeStatus, Order, OrderHeader,
    Pace, Position, Reply, ReplyKind, Results, Standing, Status, Suspect, ToClient, ToReplica,
    Transport, batch_digest,
};
use elea_protocol::seal::{sign, sign_replies};
use elea_protocol::signature::Signed;

use super::Ear;
use crate::tap::{Heard, Party, Wire};

const A: Digest = Digest([1; 32]);
const B: Digest = Digest([2; 32]);

struct Stage {
    keys: Keyring,
    membership: Membership,
    ear: Ear,
}

impl Stage {
    fn new() -> Self {
        let keys = Keyring::new(&mut Rng::new(3), 4, 1, false);
        let scheme = Arc::clone(&keys.scheme);
        let membership = Membership::new("stage", 1, keys.replica_keys(), None, scheme);
        let membership = membership.expect("sound");
        let ear = Ear::new(&membership);
        Self { keys, membership, ear }
    }

    fn signed<T: Canonical>(&self, by: u8, body: T) -> Signed<T> {
        let signer = &*self.keys.replicas[usize::from(by)];
        sign(signer, self.membership.genesis(), ReplicaId(by), body).into_inner()
    }

    /// A frame from one replica to its neighbour; answers with the rules that it breaks.
    fn bytes(&mut self, from: Party, by_dialler: bool, frame: Bytes) -> Vec<String> {
        let to = if from == Party::Replica(ReplicaId(0)) { ReplicaId(1) } else { ReplicaId(0) };
        let before = self.ear.record().violations.len();
        self.ear.take(Heard::Frame { wire: Wire { from, to }, by_dialler, frame });
        let violations = self.ear.record().violations[before..].iter();
        violations.map(|violation| violation.rule.clone()).collect()
    }

    fn hears(&mut self, from: u8, message: Message) -> Vec<String> {
        let frame = codec::encode(&ToReplica::Peer(message)).expect("small");
        self.bytes(Party::Replica(ReplicaId(from)), true, frame)
    }

    fn commit(&mut self, by: u8, view: u64, slot: u64, hash: Digest) -> Vec<String> {
        let vote = self.signed(by, Commit { view: View(view), slot: Slot(slot), hash });
        self.hears(by, Message::Commit(vote))
    }

    fn status(&mut self, by: u8, entered: u64, slot: u64, stamp: u64) -> Vec<String> {
        let status = Status {
            entered: View(entered),
            campaign: None,
            head: Position { slot: Slot(slot), hash: A },
            lock: None,
            stable: Slot(0),
            convicted: 0,
            clients: Digest::default(),
            newest_edition: Editions::with(1..=1).newest,
            common_edition: Editions::with(1..=1).newest,
            wall: WallTime(0),
            stamp,
        };
        let status = self.signed(by, status);
        self.hears(by, Message::Status(status))
    }

    /// r0 answers a client.
    fn reply(&mut self, kind: ReplyKind, slot: u64, hash: Digest, result: &str) -> Vec<String> {
        let reply = Reply {
            kind,
            view: View(0),
            slot: Slot(slot),
            hash,
            name: RequestName {
                client: ClientId([7; 32]),
                session: SessionId(1),
                number: RequestNumber(1),
            },
            request: A,
            index: 0,
            results: Results::Full(vec![Bytes::from(result.to_owned())]),
        };
        let genesis = self.membership.genesis();
        let replies = sign_replies(&*self.keys.replicas[0], genesis, ReplicaId(0), vec![reply]);
        let frame = codec::encode(&ToClient::Replies(replies)).expect("small");
        self.bytes(Party::Client(0), false, frame)
    }

    fn restart(&mut self, who: u8) {
        self.ear.take(Heard::Restarted(ReplicaId(who)));
    }
}

#[test]
fn two_votes_for_one_slot_contradict_each_other_also_across_a_restart() {
    let mut stage = Stage::new();
    assert!(stage.commit(1, 0, 3, A).is_empty());
    assert!(stage.commit(1, 0, 3, A).is_empty());
    stage.restart(1);
    assert_eq!(stage.commit(1, 0, 3, B), ["I7"]);
    assert!(stage.commit(2, 0, 3, A).is_empty());
    assert_eq!(stage.ear.record().count("commit_votes"), 2);
}

#[test]
fn a_vote_in_a_certificate_contradicts_one_on_the_wire() {
    let mut stage = Stage::new();
    let commit = Commit { view: View(0), slot: Slot(3), hash: B };
    let votes = (1..4).map(|by| (ReplicaId(by), stage.signed(by, commit).signature)).collect();
    assert!(stage.commit(2, 0, 3, A).is_empty());
    let certificate = Message::Certificate(CommitCertificate { body: commit, votes });
    assert_eq!(stage.hears(0, certificate), ["I7"]);
}

#[test]
fn two_orders_for_one_slot_contradict_each_other() {
    let mut stage = Stage::new();
    let order = |stage: &Stage, request: Digest| {
        let choices = Default::default();
        let batch = batch_digest(&choices, &[request]);
        let hash = extend(stage.membership.genesis(), &batch);
        let header = OrderHeader { view: View(0), slot: Slot(1), hash, batch };
        stage.signed(0, Order { header, choices, requests: vec![request] })
    };
    let (one, other) = (order(&stage, A), order(&stage, B));
    assert!(stage.hears(0, Message::Order(one)).is_empty());
    assert_eq!(stage.ear.lineage.linked(), 1);
    assert_eq!(stage.hears(0, Message::Order(other)), ["I7"]);
}

#[test]
fn two_votes_for_a_state_contradict_each_other() {
    let mut stage = Stage::new();
    let vote = |stage: &Stage, state| {
        stage.signed(1, Checkpoint { view: View(0), slot: Slot(128), hash: A, state })
    };
    let (one, other) = (vote(&stage, A), vote(&stage, B));
    assert!(stage.hears(1, Message::Checkpoint(one)).is_empty());
    assert_eq!(stage.hears(1, Message::Checkpoint(other)), ["I7"]);
}

#[test]
fn an_answer_for_another_history_than_was_voted_for_is_found() {
    let mut stage = Stage::new();
    assert!(stage.commit(0, 0, 3, A).is_empty());
    assert_eq!(stage.reply(ReplyKind::Speculative, 3, B, "x"), ["I7"]);
    assert!(stage.reply(ReplyKind::Speculative, 4, A, "x").is_empty());
    assert_eq!(stage.reply(ReplyKind::Committed, 4, A, "y"), ["state"]);
}

#[test]
fn a_replica_that_forgot_what_it_answered_for_is_found_after_its_restart() {
    let mut stage = Stage::new();
    assert!(stage.reply(ReplyKind::Speculative, 9, A, "x").is_empty());
    assert!(stage.status(0, 0, 7, 1).is_empty(), "an older word may come later");
    stage.restart(0);
    assert_eq!(stage.status(0, 0, 8, 2), ["I7"]);
    assert!(stage.status(0, 0, 9, 3).is_empty());
    assert!(stage.status(0, 1, 8, 4).is_empty(), "another view may have another history");
}

#[test]
fn a_replica_that_forgot_its_lock_is_found_after_its_restart() {
    let mut stage = Stage::new();
    assert!(stage.reply(ReplyKind::Committed, 2, A, "x").is_empty());
    stage.restart(0);
    assert_eq!(stage.status(0, 1, 9, 1), ["I7"]);
}

#[test]
fn a_replica_that_forgot_its_view_is_found_after_its_restart() {
    let mut stage = Stage::new();
    assert!(stage.status(1, 5, 9, 1).is_empty());
    let suspect = |stage: &Stage, view| Message::Suspect(stage.signed(1, Suspect::of(view)));
    let late = suspect(&stage, View(4));
    assert!(stage.hears(1, late).is_empty(), "an older word may come later");
    stage.restart(1);
    let forgetful = suspect(&stage, View(3));
    assert_eq!(stage.hears(1, forgetful), ["I7"]);
    assert_eq!(stage.status(1, 2, 9, 2), ["I7"]);
}

#[test]
fn what_another_signed_is_not_believed() {
    let mut stage = Stage::new();
    let mut vote = stage.signed(1, Commit { view: View(0), slot: Slot(3), hash: A });
    vote.by = ReplicaId(2);
    assert_eq!(stage.hears(2, Message::Commit(vote)), ["signature"]);
    let honest = stage.reply(ReplyKind::Speculative, 4, A, "x");
    assert!(honest.is_empty());
}

#[test]
fn an_accusation_is_a_violation() {
    let mut stage = Stage::new();
    let status = |count| NodeStatus {
        nonce: 1,
        standing: Standing::Voter,
        quarantined: false,
        mismatches: Vec::new(),
        view: View(0),
        primary: ReplicaId(0),
        campaign: None,
        head: Position { slot: Slot(0), hash: A },
        lock: None,
        stable: Slot(0),
        state: A,
        sessions: 0,
        pending: 0,
        divergent: Vec::new(),
        evidence: 0,
        transport: Transport::Plain,
        disk: DiskHealth::Sound,
        transfer: None,
        clocks: Vec::new(),
        clock_tolerance_ms: 5000,
        disagreements: Vec::new(),
        other_lists: Vec::new(),
        edition: Editions::with(1..=1).newest,
        editions: Editions::with(1..=1),
        common_edition: Edition { protocol: 1, application: 1 },
        refused: Vec::new(),
        doubled: Vec::new(),
        pace: Pace::default(),
        counters: vec![("merges".into(), 2), ("message_bad_signature".into(), count)],
    };
    for (count, broken) in [(0, &[][..]), (1, &["honest"][..])] {
        let signed = Box::new(stage.signed(0, status(count)));
        let frame = codec::encode(&ToClient::Status(signed)).expect("small");
        assert_eq!(stage.bytes(Party::Client(0), false, frame), broken);
    }
    // What was counted before a restart and after it is added up.
    let (to, mut record) = tokio::sync::oneshot::channel();
    stage.restart(0);
    let signed = Box::new(stage.signed(0, status(0)));
    let frame = codec::encode(&ToClient::Status(signed)).expect("small");
    assert!(stage.bytes(Party::Client(0), false, frame).is_empty());
    stage.ear.take(Heard::Report(to));
    assert_eq!(record.try_recv().expect("at once").counted["merges"], 4);
}

#[test]
fn garbage_is_counted_and_never_a_panic() {
    let mut stage = Stage::new();
    let mut rng = Rng::new(9);
    for length in 0..200 {
        let bytes: Vec<u8> = (0..length).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
        for by_dialler in [true, false] {
            let _ = stage.bytes(Party::Replica(ReplicaId(2)), by_dialler, bytes.clone().into());
        }
    }
    assert!(stage.ear.record().count("frames_malformed") > 300);
    assert!(stage.ear.record().broken > 300);
}
