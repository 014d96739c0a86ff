//! What is shown after sequences of statuses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use elea_protocol::edition::{Edition, Editions};
use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::membership::Membership;
use elea_protocol::message::{DiskHealth, NodeStatus, Pace, Position, Standing, Transport};
use elea_protocol::signature::{Ed25519, SecretKey, Signer as _};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::model::{Model, Moment};
use super::picture::{Kind, Picture};
use super::terminal;
use crate::commands::evidence::Charge;
use crate::commands::status::Row;

/// Slots up to here are the same on all branches.
const COMMON: u64 = 20;

fn at(branch: u8, slot: u64) -> Position {
    let branch = if slot <= COMMON { 0 } else { branch };
    let mut hash = [branch; 32];
    hash[..8].copy_from_slice(&slot.to_be_bytes());
    Position { slot: Slot(slot), hash: Digest(hash) }
}

/// A replica in a view, with its head on a branch, and certified up to here.
fn said(view: u64, head: (u8, u64), lock: u64) -> NodeStatus {
    NodeStatus {
        nonce: 0,
        standing: Standing::Voter,
        quarantined: false,
        mismatches: Vec::new(),
        view: View(view),
        primary: View(view).primary(4),
        campaign: None,
        head: at(head.0, head.1),
        lock: Some((View(view), at(head.0, lock))),
        stable: Slot(lock / 2),
        state: Digest([0; 32]),
        sessions: 0,
        pending: 0,
        divergent: Vec::new(),
        evidence: 0,
        transport: Transport::Encrypted,
        disk: DiskHealth::Sound,
        transfer: None,
        refused: Vec::new(),
        doubled: Vec::new(),
        clocks: Vec::new(),
        clock_tolerance_ms: 5000,
        disagreements: Vec::new(),
        other_lists: Vec::new(),
        edition: Editions::with(1..=1).newest,
        editions: Editions::with(1..=1),
        common_edition: Edition { protocol: 1, application: 1 },
        pace: Pace::default(),
        counters: vec![("executed_requests".to_owned(), head.1.saturating_mul(10))],
    }
}

/// A model that is told something twice a second.
struct Told {
    model: Model,
    looks: u32,
}

impl Told {
    fn new() -> Self {
        let keys = (1..=4).map(|n| SecretKey::from_bytes(&[n; 32]).public_key()).collect();
        let membership = Membership::new("town", 1, keys, None, Arc::new(Ed25519::default()));
        Self { model: Model::new(&membership.expect("sound keys")), looks: 0 }
    }

    fn look(&mut self, all: [Result<NodeStatus, &str>; 4]) -> Picture {
        let since = Duration::from_millis(500) * self.looks;
        let row = |(id, said): (u8, Result<NodeStatus, &str>)| Row {
            id: ReplicaId(id),
            address: format!("host{id}:7100"),
            said: said.map_err(str::to_owned),
        };
        let rows: Vec<Row> = (0..).zip(all).map(row).collect();
        self.looks += 1;
        self.model.look(Moment { since, wall: 1000 * u64::from(self.looks) }, &rows);
        self.model.picture()
    }

    /// The same, as often as it takes to be believed.
    fn look_again(&mut self, all: &[NodeStatus; 4]) -> Picture {
        self.look(all.clone().map(Ok));
        self.look(all.clone().map(Ok))
    }

    /// Four that have one history, then two and two.
    fn split(&mut self) -> Picture {
        let picture = self.look_again(&[(); 4].map(|()| said(0, (0, 20), 18)));
        assert_eq!((picture.histories, picture.merges, picture.tolerance), (1, 0, 1));
        self.look_again(&[
            said(0, (1, 25), 18),
            said(0, (1, 24), 18),
            said(2, (2, 28), 18),
            said(2, (2, 25), 18),
        ])
    }
}

fn lines(picture: &Picture, kind: Kind) -> Vec<&str> {
    picture.log.iter().filter(|line| line.kind == kind).map(|line| &*line.text).collect()
}

fn histories(picture: &Picture) -> String {
    let of = |replica: &super::picture::Replica| {
        replica.said.as_ref().map_or_else(|| "-".to_owned(), |said| said.history.clone())
    };
    picture.replicas.iter().map(of).collect()
}

#[test]
fn who_is_behind_or_in_an_older_view_has_the_same_history() {
    let mut told = Told::new();
    told.look_again(&[
        said(0, (0, 10), 5),
        said(0, (0, 12), 5),
        said(0, (0, 9), 5),
        said(0, (0, 12), 5),
    ]);
    // The last one hears nothing of the new view, and of what is certified there.
    for head in 13..40 {
        let here = || Ok(said(1, (1, head), head - 1));
        let picture = told.look([here(), here(), here(), Ok(said(0, (0, 12), 5))]);
        assert_eq!((picture.histories, &*histories(&picture)), (1, "AAAA"), "{head}");
        assert_eq!(picture.replicas[3].said.as_ref().and_then(|said| said.shared), None);
    }
    let picture = told.model.picture();
    assert_eq!(lines(&picture, Kind::View), ["r0, r1, r2 entered view 1, with the primary r1"]);
    assert_eq!((picture.views, lines(&picture, Kind::Split).len()), (1, 0));
}

#[test]
fn halves_with_histories_of_their_own_are_two_and_a_merge_is_seen_once() {
    let mut told = Told::new();
    let picture = told.split();
    assert_eq!((picture.histories, picture.merges, &*histories(&picture)), (2, 0, "AABB"));
    assert_eq!(
        lines(&picture, Kind::Split),
        ["r2, r3 and r0, r1 have parted, after slot 18 or later"]
    );
    assert_eq!(picture.replicas[0].said.as_ref().and_then(|said| said.shared), Some(18));
    // No strong quorum has one history.
    assert_eq!(picture.tolerance, -1);

    // They do not change over at the same moment.
    let merged = || Ok(said(4, (1, 40), 18));
    told.look([merged(), Ok(said(0, (1, 26), 18)), merged(), Ok(said(2, (2, 29), 18))]);
    let picture = told.look_again(&[(); 4].map(|()| said(4, (1, 41), 40)));
    assert_eq!((picture.histories, picture.merges, &*histories(&picture)), (1, 1, "AAAA"));
    let merge = ["r2, r3 and r0, r1 have one history again; parted after slot 18 or later"];
    assert_eq!(lines(&picture, Kind::Merge), merge);
    assert_eq!((lines(&picture, Kind::Split).len(), picture.tolerance), (1, 1));
}

#[test]
fn halves_that_show_no_slot_in_common_are_two_after_some_time() {
    let mut told = Told::new();
    told.look_again(&[(); 4].map(|()| said(0, (0, 20), 18)));
    let mut seen = Vec::new();
    for n in 0..12 {
        let (north, south) = (21 + 2 * n, 22 + 2 * n);
        let picture = told.look([
            Ok(said(0, (1, north), 18)),
            Ok(said(0, (1, north), 18)),
            Ok(said(2, (2, south), 18)),
            Ok(said(2, (2, south), 18)),
        ]);
        seen.push(picture.histories);
    }
    assert_eq!((seen.first(), seen.last()), (Some(&1), Some(&2)));
    assert!(seen.is_sorted(), "{seen:?}");
}

#[test]
fn a_liar_misplaces_itself_alone_and_is_convicted_by_a_proof() {
    let mut told = Told::new();
    told.look_again(&[(); 4].map(|()| said(0, (0, 10), 8)));
    for n in 0..20 {
        let honest = || Ok(said(0, (0, 11 + n), 10 + n));
        // It is on another branch each time, names all others, and says of views that there are none.
        let mut lie = said(1000 + n, (3, 21 + 40 * (n % 2)), 0);
        lie.divergent = vec![ReplicaId(0), ReplicaId(1), ReplicaId(2)];
        lie.counters = vec![("executed_requests".to_owned(), u64::MAX / 2 * (n % 2))];
        lie.evidence = 1;
        let picture = told.look([honest(), honest(), honest(), Ok(lie)]);
        assert!(histories(&picture).starts_with("AAA"), "{picture:?}");
        assert!(picture.rate().is_none_or(|rate| rate < 1000.0) && picture.tolerance >= 0);
        // That it says so convicts nobody.
        assert!(picture.charges.is_empty() && picture.views == 0);
    }
    assert_eq!(told.model.claimed_proofs()[&ReplicaId(3)], 1);
    let charge = Charge { culprit: ReplicaId(3), view: View(0), kind: "two votes for one slot" };
    for _ in 0..2 {
        told.model.convict(BTreeMap::from([(charge, vec![ReplicaId(0), ReplicaId(2)])]));
    }
    let picture = told.model.picture();
    let words = "r3: two votes for one slot, in view 0; held by r0, r2";
    assert_eq!(lines(&picture, Kind::Evidence), [words]);
    assert_eq!((&*picture.charges[0].text, picture.charges.len()), (words, 1));
    assert!(picture.replicas[3].is_convicted && !picture.replicas[0].is_convicted);
    assert!(picture.log.len() <= 200, "a liar fills no memory");
}

#[test]
fn a_replica_that_is_gone_is_shown_with_what_it_said_last_and_why() {
    let mut told = Told::new();
    let here = || Ok(said(0, (0, 20), 18));
    let away = || Err("cannot be reached: refused");
    told.look([here(), here(), here(), away()]);
    let picture = told.look([here(), here(), away(), away()]);
    assert_eq!((picture.tolerance, picture.histories, &*histories(&picture)), (-1, 1, "AAA-"));
    assert_eq!(picture.replicas[2].why_not.as_deref(), Some("cannot be reached: refused"));
    assert_eq!(picture.replicas[2].said.as_ref().map(|said| said.head), Some(20));
    assert!(picture.replicas[3].said.is_none() && picture.replicas[3].why_not.is_some());
    told.look([here(), here(), here(), here()]);
    let picture = told.look([here(), here(), here(), here()]);
    let seen = [
        "r3 does not answer: cannot be reached: refused",
        "r2 does not answer: cannot be reached: refused",
        "r2 answers again",
        "r3 answers",
    ];
    assert_eq!(lines(&picture, Kind::Replica), seen);
    assert_eq!((picture.tolerance, &*histories(&picture)), (1, "AAAA"));
    let nobody = told.look([away(), away(), away(), away()]);
    assert_eq!((nobody.histories, nobody.tolerance), (0, -3));
}

#[test]
fn rates_are_what_a_correct_replica_executes_and_survive_a_restart() {
    let mut told = Told::new();
    for head in 1..=10 {
        told.look([(); 4].map(|()| Ok(said(0, (0, head), 0))));
    }
    // Ten requests a slot, two slots a second.
    assert_eq!(told.model.picture().rate(), Some(20.0));
    // One counts from zero again, one has stopped, and one makes it up.
    let mut anew = said(0, (0, 11), 0);
    anew.counters.clear();
    let mut lie = said(0, (0, 11), 0);
    lie.counters[0].1 = u64::MAX;
    let picture = told.look([Ok(said(0, (0, 11), 0)), Ok(anew), Err("gone"), Ok(lie)]);
    assert_eq!(picture.rate(), Some(20.0));
}

/// The letters of a lane without its name.
fn lane(text: &str, id: u8) -> String {
    let title =
        text.lines().position(|line| line.starts_with("slots")).expect("lanes have a title");
    let mut lanes = text.lines().skip(title);
    let lane = lanes.find_map(|line| line.strip_prefix(&format!("r{id}"))).expect("a lane");
    let mut marks: Vec<char> = lane.trim().chars().collect();
    marks.dedup();
    marks.into_iter().collect()
}

#[test]
fn a_frame_shows_replicas_and_slots_and_what_happened() {
    let mut told = Told::new();
    let picture = told.split();
    let text = terminal::text(&picture, 90);
    for line in [
        "town: 4 replicas, of which 1 may lie                                          00:00:04 UTC",
        "strong requests wait: 1 too few of one history",
        "replica standing    view   primary head               lock     stable   history connection",
        "r0      voter       0      itself  25 00000000        18       9        A       encrypted",
        "r3      voter       2      r2      25 00000000        18       9        B       encrypted",
        "00:00:04 UTC  r2, r3 and r0, r1 have parted, after slot 18 or later",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    assert!(text.contains("histories 2   merges 0   new views 1"), "{text}");
    // What never is undone, what is certified, and what is of one side alone.
    for (id, marks) in [(0, "█▓aA"), (1, "█▓aA"), (2, "█▓bB"), (3, "█▓bB")] {
        assert_eq!(lane(&text, id), marks, "r{id}\n{text}");
    }
    let narrow = terminal::text(&picture, 40);
    assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");

    let picture = told.look_again(&[(); 4].map(|()| said(4, (1, 41), 40)));
    let text = terminal::text(&picture, 90);
    assert!(
        text.contains("r2, r3 and r0, r1 have one history again; parted after slot 18 or later"),
        "{text}"
    );
    assert_eq!(lane(&text, 2), "█▓▒", "{text}");
}

#[test]
fn a_terminal_of_any_size_is_drawn_on() {
    let mut told = Told::new();
    let nothing = told.look([(); 4].map(|()| Err("gone\u{1b}[31m")));
    let picture = told.split();
    for (width, height) in [(90, 24), (200, 60), (30, 5), (8, 2), (1, 1)] {
        for picture in [None, Some(&nothing), Some(&picture)] {
            let mut screen = Terminal::new(TestBackend::new(width, height)).expect("no terminal");
            screen.draw(|frame| terminal::draw(frame, picture)).expect("it is drawn");
            let shown: String =
                screen.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
            assert!(!shown.contains('\u{1b}'), "{shown:?}");
            if height == 24 {
                assert!(shown.contains("q quits"), "{shown}");
            }
        }
    }
}

#[test]
fn a_replica_that_makes_things_up_moves_no_lane_but_its_own_and_hides_nothing() {
    let mut told = Told::new();
    let before = told.split();
    assert_eq!(lines(&before, Kind::Split).len(), 1);
    let mut picture = before.clone();
    for look in 0..1000 {
        let mut liar = said(3 + look, (3, u64::MAX - look), 0);
        liar.quarantined = look % 2 == 0;
        let honest = [said(0, (1, 25), 18), said(0, (1, 24), 18), said(2, (2, 28), 18)];
        let [a, b, c] = honest.map(Ok);
        picture = told.look([a, b, c, Ok(liar)]);
    }
    assert_eq!(picture.axis, (1, 28), "the others are there to be seen");
    let first = lines(&before, Kind::Split)[0];
    assert!(lines(&picture, Kind::Split).contains(&first), "{:?}", picture.log);
    assert!(picture.log.len() <= 200);
}
