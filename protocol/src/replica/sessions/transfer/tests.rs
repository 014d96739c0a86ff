//! Tables sent in chunks: what comes out, and what is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::super::page::Page;
use super::super::part::of_session;
use super::super::tests::request;
use super::super::{Kept, Known};
use super::*;
use crate::codec::FRAME_MAX;
use crate::id::{ClientId, RequestNumber, SessionId, Slot};
use crate::message::{OPERATIONS_MAX, Position, Results};
use crate::trie::CHUNK_WEIGHT_MAX;

const RULES: Rules = Rules {
    max_sessions: 3,
    max_clients: 6,
    session_window: 5,
    max_kept_result: 300_000,
    kept_bytes: 3 << 20,
    checkpoint_interval: 4,
    max_speculative_slots: 8,
    max_speculative_bytes: 1 << 20,
};

fn digest_of(frozen: &FrozenSessions) -> Digest {
    frozen.sessions.tree.digest()
}

/// A request that asks to be executed, and what comes out if it is.
#[derive(Clone, Debug)]
struct Step {
    client: u8,
    session: u64,
    number: u64,
    results: Vec<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let size =
        prop_oneof![4 => 0..100usize, 2 => 100_000..290_000usize, 1 => 290_000..320_000usize];
    (0..7u8, 1..6u64, 1..20u64, prop::collection::vec(size, 1..3))
        .prop_map(|(client, session, number, results)| Step { client, session, number, results })
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..most)
}

/// From pages of one number to those of many.
fn rules() -> impl Strategy<Value = Rules> {
    let kept = prop_oneof![Just(64u64), Just(30_000), Just(300_000)];
    (kept, 1..12u64).prop_map(|(max_kept_result, session_window)| Rules {
        max_kept_result,
        session_window,
        ..RULES
    })
}

fn kept(slot: u64, sizes: &[usize]) -> Kept {
    let fill = slot.to_le_bytes()[0];
    Kept {
        at: Position { slot: Slot(slot), hash: Digest([fill; 32]) },
        index: u32::from(fill % 3),
        request: Digest([!fill; 32]),
        results: Results::Full(sizes.iter().map(|size| vec![fill; *size].into()).collect()),
    }
}

/// Executes what is admitted, one request a slot, and answers which were.
fn execute(sessions: &mut Sessions, from: u64, steps: &[Step]) -> Vec<bool> {
    let mut admitted = Vec::new();
    for (slot, step) in (from..).zip(steps) {
        let request = request(step.client, step.session, step.number);
        let admits = sessions.refusal(&request).is_none();
        admitted.push(admits);
        if admits {
            sessions.execute(&request, kept(slot, &step.results));
            sessions.end_slot();
        }
    }
    admitted
}

fn table(rules: Rules, steps: &[Step]) -> Sessions {
    let mut sessions = Sessions::new(rules);
    execute(&mut sessions, 1, steps);
    sessions
}

/// Sessions of several clients that weigh several chunks, with parts of every kind.
fn sample() -> FrozenSessions {
    let mut sessions = Sessions::new(RULES);
    let mut slot = 0;
    for client in 0..5 {
        for session in 1..=2 {
            // The gap at 3 makes two intervals, and the seventh result pushes out the first two.
            for number in [1, 2, 4, 5, 6, 7, 8] {
                slot += 1;
                let sizes = [usize::from(client) * 20_000, 7];
                sessions.execute(&request(client, session, number), kept(slot, &sizes));
            }
        }
    }
    sessions.freeze()
}

fn verdict(frozen: &FrozenSessions, index: u32, chunk: &[u8]) -> Result<(), BadChunk> {
    let chunk = Bytes::copy_from_slice(chunk);
    SessionsRestore::new(frozen.sessions.rules, digest_of(frozen)).accept(index, &chunk)
}

fn restored(frozen: &FrozenSessions, order: impl IntoIterator<Item = u32>) -> SessionsRestore {
    let mut restore = SessionsRestore::new(frozen.sessions.rules, digest_of(frozen));
    for index in order {
        let chunk = frozen.chunk(index).expect("within the table");
        assert_eq!(restore.accept(index, &chunk), Ok(()));
    }
    restore
}

/// The numbers below `count`, in an order that follows from `seed`.
fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by_cached_key(|n| {
        Sha256::digest([seed, u64::from(*n)].map(u64::to_le_bytes).concat())
    });
    order
}

/// Everything that the table answers, about names that it knows and about others.
fn answers(sessions: &Sessions) -> Vec<String> {
    let mut answers = vec![format!("{} {}", sessions.len(), sessions.is_empty())];
    for client in 0..7 {
        let id = ClientId([client; 32]);
        answers.push(format!("{} {}", sessions.floor(&id), sessions.opening(&id)));
        for session in 1..6 {
            answers.push(format!("{:?}", sessions.executed_through(&id, SessionId(session))));
            for number in 1..22 {
                let request = request(client, session, number);
                answers.push(match sessions.known(&request.name()) {
                    Known::Open => "open".to_owned(),
                    Known::Kept(kept) => format!("{:?} {}", kept.at, kept.results.size()),
                    Known::Forgotten => "forgotten".to_owned(),
                });
                answers.push(format!("{:?}", sessions.refusal(&request)));
            }
        }
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_restored_table_answers_and_goes_on_like_the_one_that_was_sent(
        rules in rules(),
        before in steps(90),
        after in steps(30),
        seed in any::<u64>(),
    ) {
        let mut sent = table(rules, &before);
        let frozen = sent.freeze();
        let count = frozen.chunks();
        prop_assert_eq!(frozen.chunk(count), None);
        let mut order = shuffled(count, seed);
        order.extend(shuffled(count, !seed));

        let mut restore = SessionsRestore::new(rules, digest_of(&frozen));
        prop_assert_eq!(restore.total(), None);
        let mut held = BTreeSet::new();
        for index in order {
            let lowest = (0..count).find(|n| !held.contains(n));
            prop_assert_eq!(restore.missing(), lowest);
            let chunk = frozen.chunk(index).expect("within the table");
            prop_assert_eq!(restore.accept(index, &chunk), Ok(()));
            prop_assert_eq!(restore.total(), Some(count));
            held.insert(index);
        }
        prop_assert_eq!(restore.missing(), None);
        let mut restored = restore.finish().expect("whole");

        prop_assert_eq!(restored.digest(), digest_of(&frozen));
        prop_assert_eq!(restored.len(), sent.len());
        prop_assert_eq!(&restored.clients, &sent.clients);
        prop_assert_eq!(answers(&restored), answers(&sent));

        let from = 1 + before.len() as u64;
        for (slot, step) in (from..).zip(after) {
            let step = std::slice::from_ref(&step);
            let admitted = execute(&mut sent, slot, step);
            prop_assert_eq!(execute(&mut restored, slot, step), admitted);
            prop_assert_eq!(restored.digest(), sent.digest());
        }
        let (again, sent) = (restored.freeze(), sent.freeze());
        prop_assert_eq!(again.chunks(), sent.chunks());
        for index in 0..sent.chunks() {
            prop_assert_eq!(again.chunk(index), sent.chunk(index));
        }
    }

    #[test]
    fn the_tree_holds_the_parts_of_the_table_and_nothing_else(
        rules in rules(),
        before in steps(60),
        after in steps(60),
    ) {
        let mut sessions = table(rules, &before);
        let _ = sessions.digest();
        execute(&mut sessions, 1 + before.len() as u64, &after);
        let _ = sessions.digest();
        let mut names = BTreeSet::new();
        if !sessions.is_empty() {
            names.insert(PartName::Openings);
        }
        for (client, content) in &sessions.clients {
            names.insert(PartName::Client(*client));
            for (session, content) in &content.sessions {
                names.extend(of_session(*client, *session, content, &rules));
            }
        }
        let in_tree: BTreeSet<_> = sessions.tree.iter().map(|(_, leaf)| leaf.value).collect();
        prop_assert_eq!(in_tree, names);
        for (key, leaf) in &sessions.tree {
            let part = sessions.part(&leaf.value).expect("named by the tree");
            prop_assert_eq!(part.name(), leaf.value);
            prop_assert_eq!(part.name().digest(), *key);
            prop_assert_eq!(part.leaf(), *leaf);
            let bytes = codec::encode(&part).expect("small").len();
            let weight = part.weight() as usize;
            prop_assert!((bytes..bytes + 32).contains(&weight), "{bytes} bytes weigh {weight}");
        }
    }

    #[test]
    fn a_frozen_table_stays_as_it_was(before in steps(40), after in steps(40)) {
        let mut sessions = table(RULES, &before);
        let frozen = sessions.freeze();
        let chunks: Vec<_> = (0..frozen.chunks()).map(|index| frozen.chunk(index)).collect();
        execute(&mut sessions, 1 + before.len() as u64, &after);
        let _ = sessions.digest();
        prop_assert_eq!(digest_of(&frozen), table(RULES, &before).digest());
        for (index, chunk) in (0..).zip(chunks) {
            prop_assert_eq!(frozen.chunk(index), chunk);
        }
    }

    #[test]
    fn bytes_that_are_no_chunk_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut sessions = Sessions::new(RULES);
        sessions.execute(&request(0, 1, 1), kept(1, &[3]));
        prop_assert_eq!(verdict(&sessions.freeze(), 0, &bytes), Err(BadChunk));
    }
}

#[test]
fn a_chunk_with_any_byte_changed_left_out_or_added_is_refused() {
    let frozen = sample();
    assert!(frozen.chunks() >= 3, "{} chunks", frozen.chunks());
    for index in 0..frozen.chunks() {
        let chunk = frozen.chunk(index).expect("within the table");
        assert_eq!(verdict(&frozen, index, &chunk), Ok(()));
        // Every byte where a chunk begins and ends, and a sample of those between.
        let edge = 400.min(chunk.len());
        let stride = (chunk.len() / 97).max(1);
        let sampled = (0..edge)
            .chain((edge..chunk.len() - edge.min(chunk.len())).step_by(stride))
            .chain(chunk.len() - edge..chunk.len());
        for at in sampled {
            let mut altered = chunk.to_vec();
            altered[at] ^= 1 << (at % 8);
            assert_eq!(verdict(&frozen, index, &altered), Err(BadChunk), "byte {at}");
        }
        assert_eq!(verdict(&frozen, index, &chunk[..chunk.len() - 1]), Err(BadChunk));
        assert_eq!(verdict(&frozen, index, &[&chunk[..], &[0]].concat()), Err(BadChunk));
    }
}

#[test]
fn a_chunk_is_refused_under_another_number_and_for_another_table() {
    let frozen = sample();
    let mut other = frozen.sessions.clone();
    other.execute(&request(0, 2, 3), kept(99, &[1]));
    let other = other.freeze();
    for index in 0..frozen.chunks() {
        let chunk = frozen.chunk(index).expect("within the table");
        for wrong in (0..=frozen.chunks()).chain([u32::MAX]).filter(|wrong| *wrong != index) {
            assert_eq!(verdict(&frozen, wrong, &chunk), Err(BadChunk));
        }
        assert_eq!(verdict(&other, index, &chunk), Err(BadChunk));
    }
}

/// Refuses every chunk in which `tamper` finds what it wants to change.
fn refuses(lie: &str, tamper: impl Fn(&mut Vec<Part>) -> bool) {
    let frozen = sample();
    let mut told = 0;
    for index in 0..frozen.chunks() {
        let chunk = frozen.chunk(index).expect("within the table");
        let Chunk { proof, mut parts } = codec::decode(&chunk).expect("our own");
        if tamper(&mut parts) {
            told += 1;
            let bytes = codec::encode(&Chunk { proof, parts }).expect("small");
            assert_ne!(bytes, chunk, "{lie}");
            assert_eq!(verdict(&frozen, index, &bytes), Err(BadChunk), "{lie}");
        }
    }
    assert!(told > 0, "nowhere to tell of {lie}");
}

/// Puts more parts where they belong, so that a chunk is refused for having them at all.
fn add(parts: &mut Vec<Part>, more: impl IntoIterator<Item = Part>) -> bool {
    parts.extend(more);
    parts.sort_by_key(|part| part.name().digest());
    true
}

fn intervals(parts: &mut [Part]) -> Option<&mut Vec<(u64, u64)>> {
    parts.iter_mut().find_map(|part| match part {
        Part::Session { executed, .. } => Some(executed),
        Part::Client { .. } | Part::Results { .. } | Part::Openings { .. } => None,
    })
}

fn page(parts: &mut [Part]) -> Option<&mut Vec<(RequestNumber, Arc<Kept>)>> {
    parts.iter_mut().find_map(|part| match part {
        Part::Results { kept, .. } => Some(kept),
        Part::Client { .. } | Part::Session { .. } | Part::Openings { .. } => None,
    })
}

#[test]
fn every_lie_about_what_was_executed_is_found() {
    type Tamper = fn(&mut Vec<(u64, u64)>);
    let lies: [(&str, Tamper); 8] = [
        ("intervals out of order", |intervals| intervals.reverse()),
        ("an interval twice", |intervals| intervals.push(intervals[1])),
        ("overlapping intervals", |intervals| intervals[0].1 = 5),
        ("touching intervals", |intervals| *intervals = vec![(1, 1), (2, 2), (4, 8)]),
        ("an empty interval", |intervals| intervals.push((9, 8))),
        ("the interval of number 0", |intervals| intervals[0].0 = 0),
        ("more executed", |intervals| intervals[1].1 += 1),
        ("nothing executed", Vec::clear),
    ];
    for (lie, tamper) in lies {
        refuses(lie, |parts| intervals(parts).map(tamper).is_some());
    }
}

#[test]
fn every_lie_about_results_is_found() {
    type Tamper = fn(&mut Vec<(RequestNumber, Arc<Kept>)>);
    fn first(page: &mut [(RequestNumber, Arc<Kept>)]) -> &mut Kept {
        Arc::make_mut(&mut page[0].1)
    }
    let lies: [(&str, Tamper); 9] = [
        ("full results as forgotten", |page| {
            let kept = first(page);
            kept.results = Results::Forgotten(kept.results.digest());
        }),
        ("other results", |page| first(page).results = Results::Full(vec!["made up".into()])),
        ("results that were never there", |page| {
            first(page).results = Results::Forgotten(Digest([1; 32]));
        }),
        ("another slot", |page| first(page).at.slot.0 += 1),
        ("another index", |page| first(page).index += 1),
        ("another request", |page| first(page).request = Digest([7; 32])),
        ("results of another number", |page| page[0].0 = RequestNumber(1)),
        ("results twice", |page| page.push(page[0].clone())),
        ("an empty page", Vec::clear),
    ];
    for (lie, tamper) in lies {
        refuses(lie, |parts| page(parts).map(tamper).is_some());
    }
    refuses("more results than the window", |parts| {
        page(parts).is_some_and(|page| {
            let one = page[0].clone();
            page.extend((100..120).map(|number| (RequestNumber(number), Arc::clone(&one.1))));
            true
        })
    });
}

#[test]
fn every_lie_about_which_parts_there_are_is_found() {
    let client = ClientId([0; 32]);
    let session = |id| Part::Session {
        client,
        session: SessionId(id),
        executed: vec![(1, 1)],
        used: Slot(0),
    };
    refuses("one session more", |parts| add(parts, [session(3)]));
    refuses("more sessions than a client may have", |parts| add(parts, (3..20).map(session)));
    let stranger = Part::Client { client: ClientId([9; 32]), floor: SessionId(0) };
    refuses("one client more", |parts| add(parts, [stranger.clone()]));
    refuses("a part twice", |parts| add(parts, parts.first().cloned()));
    refuses("a part less", |parts| parts.pop().is_some());
    refuses("no part", |parts| {
        parts.clear();
        true
    });
    refuses("parts out of order", |parts| {
        parts.reverse();
        parts.len() > 1
    });
    refuses("another floor", |parts| {
        parts.iter_mut().any(|part| match part {
            Part::Client { floor, .. } => {
                floor.0 += 1;
                true
            }
            Part::Session { .. } | Part::Results { .. } | Part::Openings { .. } => false,
        })
    });
    refuses("another last use", |parts| {
        parts.iter_mut().any(|part| match part {
            Part::Session { used, .. } => {
                used.0 -= 1;
                true
            }
            Part::Client { .. } | Part::Results { .. } | Part::Openings { .. } => false,
        })
    });
    refuses("other openings", |parts| {
        parts.iter_mut().any(|part| match part {
            Part::Openings { opened, .. } => {
                *opened += 1;
                true
            }
            Part::Client { .. } | Part::Session { .. } | Part::Results { .. } => false,
        })
    });
}

#[test]
fn lies_leave_no_trace() {
    let frozen = sample();
    let mut restore = SessionsRestore::new(RULES, digest_of(&frozen));
    for index in 0..frozen.chunks() {
        let good = frozen.chunk(index).expect("within the table");
        let mut bad = good.to_vec();
        *bad.last_mut().expect("not empty") ^= 1;
        assert_eq!(restore.accept(index, &bad.into()), Err(BadChunk));
        assert_eq!(restore.missing(), Some(index));
        assert_eq!(restore.accept(index, &good), Ok(()));
    }
    let mut restored = restore.finish().expect("whole");
    assert_eq!(restored.clients, frozen.sessions.clients);
    assert_eq!(restored.digest(), digest_of(&frozen));
}

#[test]
fn a_table_with_a_chunk_missing_is_incomplete() {
    let frozen = sample();
    assert!(SessionsRestore::new(RULES, digest_of(&frozen)).finish().is_none());
    for missing in 0..frozen.chunks() {
        let restore = restored(&frozen, (0..frozen.chunks()).filter(|index| *index != missing));
        assert_eq!(restore.missing(), Some(missing));
        assert!(restore.finish().is_none());
    }
}

#[test]
fn the_empty_table_is_one_chunk() {
    let frozen = Sessions::new(RULES).freeze();
    assert_eq!(frozen.chunks(), 1);
    let restore = restored(&frozen, [0]);
    assert_eq!((restore.missing(), restore.total()), (None, Some(1)));
    assert!(restore.finish().expect("whole").is_empty());
}

/// One client of a cluster with the widest limits, whose results no frame could hold together.
#[test]
fn a_client_that_keeps_more_than_a_frame_holds_can_be_sent() {
    let rules =
        Rules { session_window: 4096, max_kept_result: 1 << 20, kept_bytes: 1 << 30, ..RULES };
    let mut sessions = Sessions::new(rules);
    for number in 1..=12 {
        sessions.execute(&request(0, 1, number), kept(number, &[1 << 20]));
    }
    let many_empty = [0; OPERATIONS_MAX];
    for number in 13..=1200 {
        sessions.execute(&request(0, 1, number), kept(number, &many_empty));
    }
    let frozen = sessions.freeze();
    let chunks: Vec<_> = (0..frozen.chunks()).filter_map(|index| frozen.chunk(index)).collect();
    assert!(chunks.iter().map(Bytes::len).sum::<usize>() > 2 * FRAME_MAX);
    assert!(chunks.iter().all(|chunk| chunk.len() < FRAME_MAX / 4));
    let restored = restored(&frozen, (0..frozen.chunks()).rev()).finish().expect("whole");
    assert_eq!(restored.clients, sessions.clients);
}

#[test]
fn a_full_page_fits_a_chunk_unless_it_is_of_one_number() {
    for max_kept_result in [64u32, 4096, 100_000, 400_000, 1 << 20] {
        let rules = Rules { max_kept_result: u64::from(max_kept_result), ..RULES };
        let mut sizes = [0; OPERATIONS_MAX];
        sizes[0] = max_kept_result as usize;
        let full = Arc::new(kept(1, &sizes));
        let first = Page::of(RequestNumber(0), &rules);
        let numbers = (0..).map(RequestNumber).take_while(|n| Page::of(*n, &rules) == first);
        let kept: Vec<_> = numbers.map(|number| (number, Arc::clone(&full))).collect();
        let count = kept.len();
        let (client, session) = (ClientId([1; 32]), SessionId(1));
        let weight = Part::Results { client, session, page: first, kept }.weight();
        assert!(u64::from(weight) <= CHUNK_WEIGHT_MAX || count == 1, "{max_kept_result}");
        assert!((weight as usize) < FRAME_MAX / 4, "{max_kept_result}");
    }
}

#[test]
fn whether_results_are_still_there_is_part_of_the_digest() {
    let digest = |results: Results| {
        let mut sessions = Sessions::new(RULES);
        sessions.execute(&request(0, 1, 1), Kept { results, ..kept(1, &[]) });
        sessions.digest()
    };
    // Of the same weight, so that it is not the weight that tells them apart.
    let full = Results::Full(vec!["sixteen bytes ..".into()]);
    assert_ne!(digest(full.clone()), digest(Results::Forgotten(full.digest())));
}

#[test]
fn a_digest_and_a_chunk_are_the_same_in_every_release() {
    let mut sessions = Sessions::new(RULES);
    for (slot, number) in [(1, 1), (2, 2), (3, 4), (4, 5), (5, 6), (6, 7)] {
        let sizes: &[usize] = if number == 5 { &[400_000] } else { &[3, 0] };
        sessions.execute(&request(0, 2, number), kept(slot, sizes));
    }
    let frozen = sessions.freeze();
    let chunk = frozen.chunk(0).expect("the first");
    expect_test::expect!["5c757f7969543765c0e77b74fd0b43985de21c8c3c4b30b8d6cab03acb375e55"]
        .assert_eq(&digest_of(&frozen).to_string());
    expect_test::expect!["c4356689cbbb9b3464c35aee18556e1b6feecc1d6d74b114edb6d50ca953b618"]
        .assert_eq(&Digest(Sha256::digest(&chunk).into()).to_string());
}

/// Chunks travel and are stored: another encoding needs another wire version and another format of the store.
#[test]
fn a_chunk_with_parts_of_every_kind_is_encoded_as_it_was() {
    let rules = Rules { max_kept_result: 64, ..RULES };
    let mut sessions = Sessions::new(rules);
    for (slot, number) in [(0x11, 1), (0x12, 2), (0x13, 4)] {
        // The last one is too long to be kept.
        let sizes = if number == 4 { [60, 5] } else { [2, 0] };
        sessions.execute(&request(0x21, 0x2200, number), kept(slot, &sizes));
        sessions.end_slot();
    }
    let frozen = sessions.freeze();
    assert_eq!(frozen.chunks(), 1);
    let chunk = frozen.chunk(0).expect("the only one");
    let Chunk { parts, .. } = codec::decode(&chunk).expect("our own");
    let mut shown = BTreeSet::new();
    for part in &parts {
        let kind = match part {
            Part::Client { .. } => "Client",
            Part::Session { .. } => "Session",
            Part::Openings { .. } => "Openings",
            Part::Results { kept, .. } => {
                shown.extend(kept.iter().map(|(_, kept)| match kept.results {
                    Results::Full(_) => "Full",
                    Results::Forgotten(_) => "Forgotten",
                }));
                "Results"
            }
        };
        shown.insert(kind);
    }
    let all = ["Client", "Forgotten", "Full", "Openings", "Results", "Session"];
    assert_eq!(shown.into_iter().collect::<Vec<_>>(), all);
    expect_test::expect!["0000000000000000040000000000000003000000010000000000000000000000000000000000000000000000000000002121212121212121212121212121212121212121212121212121212121212121000000000000000002000000212121212121212121212121212121212121212121212121212121212121212100220000000000000000000000000000030000000000000001000000000000001100000000000000111111111111111111111111111111111111111111111111111111111111111102000000eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee00000000020000000000000002000000000000001111000000000000000002000000000000001200000000000000121212121212121212121212121212121212121212121212121212121212121200000000edededededededededededededededededededededededededededededededed00000000020000000000000002000000000000001212000000000000000004000000000000001300000000000000131313131313131313131313131313131313131313131313131313131313131301000000ecececececececececececececececececececececececececececececececec01000000b814d0d5dcf4027b0fd090a8ed7c7ac348370fbbc98ffd7cb5e49bdaa0acdf1c0100000021212121212121212121212121212121212121212121212121212121212121210022000000000000020000000000000001000000000000000200000000000000040000000000000004000000000000001300000000000000"].assert_eq(&crate::id::hex(&chunk));

    let mut restore = SessionsRestore::new(rules, digest_of(&frozen));
    assert_eq!(restore.accept(0, &chunk), Ok(()));
    assert_eq!(restore.finish().expect("whole").clients, sessions.clients);
}
