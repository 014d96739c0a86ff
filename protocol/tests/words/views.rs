//! Suspicions, statuses, view changes and new views: each bound and each signature of theirs.

use elea_protocol::codec::Canonical;
use elea_protocol::edition::Editions;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{Digest, Life, ReplicaId, Slot, View, WallTime};
use elea_protocol::message::{
    Campaign, Commit, CommitCertificate, Enrol, Enrolled, Message, NewView, NewViewHeader,
    Position, Status, Suspect, VIEW_MAX, ViewChange, changes_digest,
};
use elea_protocol::signature::Signed;

use crate::members::{
    BAD_SIGNATURE, UNKNOWN_SIGNER, bad_votes, certificate, cluster, say, verdict,
};

const BEYOND: &str = "a view beyond all views";
/// Also said where one is of no member.
const TWO_SUSPICIONS: &str = "two suspicions of one replica";
const TWO_CHANGES: &str = "two view changes of one replica";

/// Replica 1 is its primary.
const NEXT: View = View(5);

fn position(slot: u64) -> Position {
    Position { slot: Slot(slot), hash: Digest([7; 32]) }
}

/// By replicas 0, 2 and 3, of what [`position`] says.
fn lock(view: u64, slot: u64) -> CommitCertificate {
    let Position { slot, hash } = position(slot);
    certificate(&cluster("here"), Commit { view: View(view), slot, hash }, &[0, 2, 3])
}

fn change() -> ViewChange {
    let (entered, lock) = (View(2), Some(lock(2, 6)));
    let (stable, head, stamp) = (Slot(3), position(8), 99);
    ViewChange { view: NEXT, campaign: View(9), entered, lock, stable, head, stamp }
}

fn says<T: Canonical>(by: u8, body: T) -> Signed<T> {
    say(&cluster("here"), by, body)
}

fn suspect(by: u8) -> Signed<Suspect> {
    says(by, Suspect::of(View(2)))
}

/// By replica 1; 2 suspects the primary, too, and 2 and 3 asked before.
fn campaign() -> Campaign {
    Campaign {
        change: says(1, change()),
        suspects: vec![suspect(1), suspect(2)],
        proof: None,
        others: vec![says(2, change()), says(3, ViewChange { lock: None, ..change() })],
    }
}

/// Signed by the primary of `view`.
fn new_view(view: View, head: Position, changes: Vec<Signed<ViewChange>>) -> Signed<NewView> {
    let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
    says(view.primary(4).0, NewView { header, changes })
}

fn campaign_verdict(campaign: Campaign) -> String {
    verdict(Message::Campaign(Box::new(campaign)))
}

/// The same words in the mouth of another, and other words under the same signature. `stranger`
/// is what is said where nobody knows the signer.
fn forgeries<T: Clone>(
    good: &Signed<T>,
    other: T,
    stranger: &'static str,
) -> [(Signed<T>, &'static str); 3] {
    [
        (Signed { by: ReplicaId(0), ..good.clone() }, BAD_SIGNATURE),
        (Signed { by: ReplicaId(4), ..good.clone() }, stranger),
        (Signed { body: other, ..good.clone() }, BAD_SIGNATURE),
    ]
}

#[test]
fn a_suspicion_names_a_view_that_can_be_and_its_signer() {
    for (view, expected) in
        [(View(0), "good"), (VIEW_MAX, "good"), (VIEW_MAX.next(), BEYOND), (View(u64::MAX), BEYOND)]
    {
        assert_eq!(verdict(Message::Suspect(says(1, Suspect::of(view)))), expected, "{view}");
    }
    for (forged, expected) in forgeries(&suspect(2), Suspect::of(View(3)), UNKNOWN_SIGNER) {
        assert_eq!(verdict(Message::Suspect(forged)), expected);
    }
}

#[test]
fn a_status_keeps_its_bounds() {
    let good = Status {
        entered: View(2),
        campaign: None,
        head: position(5),
        lock: None,
        stable: Slot(5),
        convicted: 0,
        clients: Digest::default(),
        newest_edition: Editions::with(1..=1).newest,
        common_edition: Editions::with(1..=1).newest,
        wall: WallTime(0),
        stamp: 1,
    };
    let asks = |entered, campaign| Status { entered, campaign, ..good };
    let locked = |view, slot| Status { lock: Some((View(view), position(slot))), ..good };
    for (status, expected) in [
        (good, "good"),
        (asks(View(2), Some(View(3))), "good"),
        (asks(View(VIEW_MAX.0 - 1), Some(VIEW_MAX)), "good"),
        (asks(VIEW_MAX, None), "good"),
        (asks(VIEW_MAX, Some(VIEW_MAX.next())), BEYOND),
        (asks(VIEW_MAX.next(), None), BEYOND),
        (asks(View(2), Some(View(2))), "a campaign for a view entered"),
        (asks(View(2), Some(View(1))), "a campaign for a view entered"),
        // Its canonical bytes are those of no campaign.
        (asks(View(0), Some(View(0))), "a campaign for a view entered"),
        (locked(1, 1), "good"),
        // Of a view that nobody lets it enter.
        (locked(9, 9), "good"),
        (locked(1, 0), "a lock at slot 0"),
        (Status { stable: Slot(6), ..good }, "a head below the stable slot"),
    ] {
        assert_eq!(verdict(Message::Status(says(1, status))), expected, "{status:?}");
    }
    for (forged, expected) in
        forgeries(&says(2, good), asks(View(2), Some(View(3))), UNKNOWN_SIGNER)
    {
        assert_eq!(verdict(Message::Status(forged)), expected);
    }
}

#[test]
fn a_life_is_told_by_a_member_and_of_a_member() {
    let (life, other) = (Life([1; 16]), Life([2; 16]));
    assert_eq!(verdict(Message::Enrol(says(1, Enrol { life }))), "good");
    for (forged, expected) in
        forgeries(&says(2, Enrol { life }), Enrol { life: other }, UNKNOWN_SIGNER)
    {
        assert_eq!(verdict(Message::Enrol(forged)), expected);
    }
    let of = |replica| Enrolled { replica: ReplicaId(replica), life };
    assert_eq!(verdict(Message::Enrolled(says(1, of(3)))), "good");
    assert_eq!(verdict(Message::Enrolled(says(1, of(4)))), "a life of no member");
    for (forged, expected) in forgeries(&says(2, of(0)), of(1), UNKNOWN_SIGNER) {
        assert_eq!(verdict(Message::Enrolled(forged)), expected);
    }
}

#[test]
fn a_view_change_keeps_its_bounds_wherever_it_travels() {
    let good = change();
    let with_lock = |lock| ViewChange { lock: Some(lock), ..change() };
    let mut cases = vec![
        (good.clone(), "good"),
        (ViewChange { lock: None, ..good.clone() }, "good"),
        (ViewChange { entered: View(4), ..good.clone() }, "good"),
        (ViewChange { entered: View(5), ..good.clone() }, "a view change for a view entered"),
        (ViewChange { entered: View(6), ..good.clone() }, "a view change for a view entered"),
        (ViewChange { campaign: View(9), ..good.clone() }, "good"),
        (ViewChange { campaign: View(4), ..good.clone() }, "a view change above its campaign"),
        (ViewChange { view: View(10), ..good.clone() }, "a view change above its campaign"),
        (ViewChange { campaign: VIEW_MAX.next(), ..good.clone() }, BEYOND),
        (ViewChange { campaign: View(u64::MAX - 2), ..good.clone() }, BEYOND),
        (ViewChange { stable: Slot(8), ..good.clone() }, "good"),
        (ViewChange { stable: Slot(9), ..good.clone() }, "a head below the stable slot"),
        (with_lock(lock(4, 6)), "good"),
        (with_lock(lock(5, 6)), "a lock of the view asked for"),
        (with_lock(lock(6, 6)), "a lock of the view asked for"),
        (with_lock(lock(2, 0)), "a commit for slot 0"),
    ];
    for (votes, expected) in bad_votes(&lock(2, 6).votes) {
        cases.push((with_lock(CommitCertificate { votes, ..lock(2, 6) }), expected));
    }
    for (change, expected) in cases {
        let told = format!("{change:?}");
        let changes = vec![
            says(1, change.clone()),
            says(2, ViewChange { view: change.view, ..good.clone() }),
        ];
        assert_eq!(
            verdict(Message::NewView(new_view(change.view, position(8), changes))),
            expected,
            "{told}"
        );
        let others = vec![says(1, change.clone())];
        assert_eq!(campaign_verdict(Campaign { others, ..campaign() }), expected, "{told}");
        let change = says(3, change);
        assert_eq!(campaign_verdict(Campaign { change, ..campaign() }), expected, "{told}");
    }
    // What the signature does not cover proves itself, and what it covers cannot be exchanged.
    let more_votes = certificate(&cluster("here"), lock(2, 6).body, &[0, 1, 2, 3]);
    let mut exchanged = says(1, good.clone());
    exchanged.body.lock = Some(more_votes);
    assert_eq!(campaign_verdict(Campaign { change: exchanged, ..campaign() }), "good");
    let others = [
        with_lock(lock(3, 6)),
        with_lock(lock(2, 7)),
        ViewChange { lock: None, ..good.clone() },
        ViewChange { head: position(9), ..good.clone() },
        ViewChange { stable: Slot(4), ..good.clone() },
        ViewChange { stamp: 100, ..good.clone() },
        ViewChange { entered: View(3), ..good.clone() },
        ViewChange { view: View(6), ..good.clone() },
    ];
    for other in others {
        let told = format!("{other:?}");
        for (change, expected) in forgeries(&says(1, good.clone()), other.clone(), UNKNOWN_SIGNER) {
            assert_eq!(campaign_verdict(Campaign { change, ..campaign() }), expected, "{told}");
        }
        for (change, expected) in forgeries(&says(1, good.clone()), other, TWO_CHANGES) {
            let others = vec![change];
            assert_eq!(campaign_verdict(Campaign { others, ..campaign() }), expected, "{told}");
        }
    }
}

#[test]
fn a_campaign_brings_one_word_a_replica_and_proofs_that_hold() {
    let vote =
        |by, hash| says(by, Commit { view: View(2), slot: Slot(6), hash: Digest([hash; 32]) });
    let suspects = |suspects| Campaign { suspects, ..campaign() };
    let others = |others| Campaign { others, ..campaign() };
    let proof = |a, b| Campaign { proof: Some(Box::new(Evidence::Commits(a, b))), ..campaign() };
    let far = says(2, Suspect::of(VIEW_MAX.next()));
    let all = |from: fn(u8) -> Signed<ViewChange>| (0..4).map(from).collect::<Vec<_>>();
    let mut cases = vec![
        (campaign(), "good"),
        (Campaign { suspects: vec![], others: vec![], ..campaign() }, "good"),
        (suspects((0..4).map(suspect).collect()), "good"),
        (suspects((0..5).map(suspect).collect()), TWO_SUSPICIONS),
        (suspects(vec![suspect(2), suspect(2)]), TWO_SUSPICIONS),
        (suspects(vec![suspect(2), says(2, Suspect::of(View(3)))]), TWO_SUSPICIONS),
        (suspects(vec![suspect(1), far]), BEYOND),
        (others(all(|by| says(by, change()))), "good"),
        (others(vec![says(4, change())]), TWO_CHANGES),
        (others(vec![says(2, change()), says(2, change())]), TWO_CHANGES),
        (
            others(vec![says(2, change()), says(2, ViewChange { stamp: 100, ..change() })]),
            TWO_CHANGES,
        ),
        (Campaign { change: says(4, change()), ..campaign() }, UNKNOWN_SIGNER),
        (proof(vote(3, 1), vote(3, 2)), "good"),
        (proof(vote(3, 1), vote(3, 1)), "evidence without a contradiction"),
        (proof(vote(3, 1), vote(2, 2)), "evidence without a contradiction"),
        (proof(vote(3, 1), Signed { by: ReplicaId(3), ..vote(2, 2) }), BAD_SIGNATURE),
    ];
    for (forged, expected) in forgeries(&suspect(3), Suspect::of(View(3)), TWO_SUSPICIONS) {
        cases.push((suspects(vec![suspect(1), forged]), expected));
    }
    for (campaign, expected) in cases {
        let told = format!("{campaign:?}");
        assert_eq!(campaign_verdict(campaign), expected, "{told}");
    }
}

#[test]
fn a_new_view_is_built_on_what_it_shows() {
    const NOT_THE_BASE: &str = "a head that does not extend the base";
    let by = |replica, view, slot| {
        says(replica, ViewChange { lock: Some(lock(view, slot)), ..change() })
    };
    let unlocked = |replica| says(replica, ViewChange { lock: None, ..change() });
    let starts = |head, changes| new_view(NEXT, head, changes);
    let elsewhere = |slot| Position { hash: Digest([8; 32]), ..position(slot) };
    let two = || vec![by(1, 2, 6), by(2, 2, 6)];
    let with = |third| [two(), vec![third]].concat();
    let good = starts(position(8), two());
    let other_header = |change: fn(&mut NewViewHeader)| {
        let mut body = good.body.clone();
        change(&mut body.header);
        says(1, body)
    };
    let view_zero = (0..2).map(|by| says(by, ViewChange { view: View(0), ..change() })).collect();
    let mut cases = vec![
        (good.clone(), "good"),
        (starts(position(8), (0..4).map(|replica| by(replica, 2, 6)).collect()), "good"),
        // Where it begins.
        (starts(position(6), two()), "good"),
        (starts(elsewhere(6), two()), NOT_THE_BASE),
        (starts(position(5), two()), NOT_THE_BASE),
        (starts(elsewhere(7), two()), "good"),
        (starts(position(u64::MAX), two()), "good"),
        (starts(position(0), vec![unlocked(1), unlocked(2)]), "good"),
        (starts(position(5), vec![unlocked(1), by(2, 2, 6)]), NOT_THE_BASE),
        (starts(position(6), vec![unlocked(1), by(2, 2, 6)]), "good"),
        // The base is of the highest view, and only then of the highest slot.
        (starts(position(4), with(by(0, 3, 4))), "good"),
        (starts(elsewhere(4), with(by(0, 3, 4))), NOT_THE_BASE),
        (starts(position(8), with(by(0, 2, 9))), NOT_THE_BASE),
        // By whom and for what.
        (starts(position(8), vec![]), "a new view built on too little"),
        (starts(position(8), vec![by(1, 2, 6)]), "a new view built on too little"),
        (
            starts(position(8), vec![by(0, 2, 6), by(2, 2, 6)]),
            "a new view without its primary's view change",
        ),
        (starts(position(8), with(by(2, 2, 6))), TWO_CHANGES),
        (starts(position(8), with(unlocked(2))), TWO_CHANGES),
        (starts(position(8), with(by(4, 2, 6))), TWO_CHANGES),
        (
            starts(position(8), with(says(3, ViewChange { view: View(9), ..change() }))),
            "a view change for another view",
        ),
        (
            starts(position(8), with(says(3, ViewChange { view: View(4), ..change() }))),
            "a view change for another view",
        ),
        (new_view(View(0), position(8), view_zero), "a new view 0"),
        (new_view(VIEW_MAX.next(), position(8), two()), BEYOND),
        (says(2, good.body.clone()), "a new view of another than its primary"),
        (says(0, good.body.clone()), "a new view of another than its primary"),
        (says(4, good.body.clone()), "a new view of another than its primary"),
        (Signed { signature: by(1, 2, 6).signature, ..good.clone() }, BAD_SIGNATURE),
        (other_header(|header| header.changes = Digest([9; 32])), "other view changes"),
        (
            other_header(|header| {
                let reversed: Vec<_> = (1..=2).rev().map(|by| says(by, change())).collect();
                header.changes = changes_digest(&reversed);
            }),
            "other view changes",
        ),
    ];
    // Each signature in it counts, also where the digest of the header is right.
    let other = ViewChange { stamp: 100, ..change() };
    for (forged, expected) in forgeries(&by(3, 2, 6), other, TWO_CHANGES) {
        cases.push((starts(position(8), with(forged)), expected));
    }
    // One that was signed cannot be given another content.
    for head in [position(9), elsewhere(8)] {
        let mut forged = good.clone();
        forged.body.header.head = head;
        cases.push((forged, BAD_SIGNATURE));
    }
    for (new_view, expected) in cases {
        let told = format!("{new_view:?}");
        assert_eq!(verdict(Message::NewView(new_view)), expected, "{told}");
    }
}

#[test]
fn the_digest_of_view_changes_covers_all_but_the_votes_of_locks() {
    let changes = vec![says(1, change()), says(2, change())];
    let digest = changes_digest(&changes);
    let mut other_votes = changes.clone();
    let votes = certificate(&cluster("here"), lock(2, 6).body, &[0, 1, 2]).votes;
    other_votes[0].body.lock.iter_mut().for_each(|lock| lock.votes = votes.clone());
    assert_eq!(changes_digest(&other_votes), digest);
    let stamped = |by, stamp| says(by, ViewChange { stamp, ..change() });
    for other in [
        vec![says(2, change()), says(1, change())],
        vec![says(1, change()), says(3, change())],
        vec![says(1, change())],
        vec![says(1, change()), stamped(2, 100)],
    ] {
        assert_ne!(changes_digest(&other), digest);
    }
}
