use elea_protocol::message::{Commit, Reply, ReplyVote, Results, SignedReply};
use elea_protocol::quorum::ClusterSize;
use elea_protocol::replica::{Mark, Record};
use elea_protocol::seal::sign;
use elea_protocol::signature::Signature;
use elea_protocol::tuning::Tuning;

use super::histories::tests::{Fake, Stage};
use super::*;

const ME: ReplicaId = ReplicaId(1);

fn checker(stage: &Stage) -> Checker {
    let size = ClusterSize::new(4, 1).expect("a valid size");
    let bounds = Bounds::new(&Tuning::default(), size, 1);
    let honest = BTreeSet::from([stage.keys.client_id(0)]);
    Checker::new(Arc::new(stage.membership.clone()), honest, 8, bounds)
}

/// A disk with these records, synced.
fn disk(records: Vec<Record>) -> Disk {
    let mut disk = Disk::default();
    for (mark, record) in (1..).zip(&records) {
        disk.append(ME, Mark(mark), record).expect("in order");
    }
    disk.begin_sync();
    disk.finish_sync(ME).expect("sound");
    disk
}

fn slots(fake: &Fake) -> Vec<Record> {
    let entry = |seen: &crate::inspect::Seen| SlotEntry {
        choices: seen.batch.choices,
        requests: seen.batch.requests.clone(),
        order: seen.order.clone(),
    };
    (1..)
        .zip(&fake.slots)
        .map(|(slot, seen)| Record::Slot { slot: Slot(slot), hash: seen.hash, entry: entry(seen) })
        .collect()
}

fn commit(stage: &Stage, fake: &Fake, view: u64, slot: u64) -> Message {
    let hash = fake.slots[usize::try_from(slot).expect("small") - 1].hash;
    let commit = Commit { view: View(view), slot: Slot(slot), hash };
    let signer = &*stage.keys.replicas[usize::from(ME.0)];
    Message::Commit(sign(signer, stage.membership.genesis(), ME, commit).into_inner())
}

fn rule(found: Result<(), Violation>) -> String {
    found.expect_err("a violation").rule
}

#[test]
fn a_vote_rests_on_its_slot_and_on_its_view() {
    let stage = Stage::new();
    let fake = stage.chain(&[&[1], &[2]], 0);
    let mut checker = checker(&stage);
    checker.look(ME, &fake).expect("sound");
    let whole = disk(slots(&fake));
    let short = disk(slots(&fake)[..1].to_vec());
    assert_eq!(checker.message_leaves(ME, &commit(&stage, &fake, 0, 2), &whole), Ok(()));
    let early = checker.message_leaves(ME, &commit(&stage, &fake, 0, 2), &short);
    assert_eq!(rule(early), "durable");
    let of_later_view = commit(&stage, &fake, 3, 2);
    assert_eq!(rule(checker.message_leaves(ME, &of_later_view, &whole)), "durable");
}

#[test]
fn a_committed_reply_rests_on_a_lock_of_its_view() {
    let stage = Stage::new();
    let fake = stage.chain(&[&[1], &[2]], 0);
    let mut checker = checker(&stage);
    checker.look(ME, &fake).expect("sound");
    let reply = Reply {
        kind: ReplyKind::Committed,
        view: View(0),
        slot: Slot(2),
        hash: fake.slots[1].hash,
        name: stage.request(2).body().name(),
        request: stage.request(2).digest(),
        index: 0,
        results: Results::Full(Vec::new()),
    };
    let path = elea_protocol::merkle::Path { position: 0, leaves: 1, siblings: Vec::new() };
    let vote = ReplyVote { by: ME, path, signature: Signature([0; 64]) };
    let answer = ToClient::Replies(vec![SignedReply { reply, vote }]);
    let lock = |slot: usize| {
        let commit =
            Commit { view: View(0), slot: Slot(slot as u64), hash: fake.slots[slot - 1].hash };
        let certificate = CommitCertificate { body: commit, votes: BTreeMap::new() };
        Record::Lock(certificate)
    };
    let with = |lock: Option<Record>| disk(slots(&fake).into_iter().chain(lock).collect());
    assert_eq!(rule(checker.answer_leaves(ME, &answer, &with(None))), "durable");
    assert_eq!(rule(checker.answer_leaves(ME, &answer, &with(Some(lock(1))))), "durable");
    assert_eq!(checker.answer_leaves(ME, &answer, &with(Some(lock(2)))), Ok(()));
}
