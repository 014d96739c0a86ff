//! Whatever liars say and in whatever order words arrive.

use proptest::prelude::*;

use super::*;
use crate::quorum::Strength;

/// Fewer than a weak quorum lie, each whatever it likes; the others tell one story.
#[derive(Clone, Debug)]
enum Word {
    Honest { by: u8, committed: bool },
    Lie { by: u8, committed: bool, view: u64, slot: u64, result: u8 },
    Refusal { by: u8, reason: u8 },
    Busy { by: u8 },
    Wake,
}

fn word(replicas: u8, faulty: u8) -> impl Strategy<Value = Word> {
    prop_oneof![
        4 => (faulty..replicas, any::<bool>())
            .prop_map(|(by, committed)| Word::Honest { by, committed }),
        4 => (0..faulty, any::<bool>(), 0..3u64, 1..3u64, 0..3u8).prop_map(
            |(by, committed, view, slot, result)| Word::Lie { by, committed, view, slot, result }
        ),
        1 => (0..faulty, 0..6u8).prop_map(|(by, reason)| Word::Refusal { by, reason }),
        1 => (0..replicas).prop_map(|by| Word::Busy { by }),
        1 => Just(Word::Wake),
    ]
}

fn reason(number: u8) -> RefusalReason {
    [
        RefusalReason::SessionRetired,
        RefusalReason::WindowExceeded,
        RefusalReason::SessionTooFar,
        RefusalReason::NameUsed,
        RefusalReason::ResultForgotten,
        RefusalReason::HistoryFull,
    ][usize::from(number)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The answer is the honest story, it comes exactly when enough told it, and every receipt
    /// verifies for what it is said to prove.
    #[test]
    fn liars_below_a_weak_quorum_neither_forge_nor_stop_an_answer(
        (replicas, faulty) in prop_oneof![Just((4u8, 1u8)), Just((6, 1)), Just((7, 2))],
        strong: bool,
        followed: bool,
        words in prop::collection::vec(word(7, 2), 0..40),
    ) {
        let mut world = World::of(replicas, faulty, |_| {});
        let level = if strong { Level::Strong } else { Level::Weak };
        let follow = if followed { Follow::Yes } else { Follow::No };
        let (ticket, requests) = world.submit(level, follow);
        let request = &requests[0];
        let honest = [Says::speculative("true"), Says::committed("true")];
        let mut told = [BTreeSet::new(), BTreeSet::new()];
        let mut answered = 0;
        let mut finals_seen = 0;
        for word in words {
            let actions = match word {
                Word::Honest { by, committed } if by < replicas && by >= faulty => {
                    told[usize::from(committed)].insert(by);
                    world.hear(by, request, &honest[usize::from(committed)])
                }
                Word::Lie { by, committed, view, slot, result } if by < faulty => {
                    // A liar may also tell the truth, and is then as good as anybody.
                    let kind =
                        if committed { ReplyKind::Committed } else { ReplyKind::Speculative };
                    let results = vec![["true", "lie", "other lie"][usize::from(result)]];
                    world.hear(by, request, &Says { kind, view, slot, results, ..honest[0].clone() })
                }
                Word::Refusal { by, reason: number } if by < faulty => {
                    world.refuse(by, request, reason(number))
                }
                Word::Busy { by } => {
                    let name = request.body().name();
                    world.handle(Event::Busy { from: ReplicaId(by), name })
                }
                Word::Wake if world.client.deadline().is_some() => world.wake().1,
                _ => continue,
            };
            prop_assert!(failures(&actions).is_empty());
            for (which, answer) in answers(&actions) {
                prop_assert_eq!(which, ticket);
                prop_assert_eq!(texts(&answer.results), vec!["true".to_owned()]);
                prop_assert_eq!((answer.slot, answer.view), (Slot(1), View(0)));
                prop_assert_eq!(answer.receipt.verify(&world.membership), Ok(answer.proven));
                answered += 1;
            }
            for (which, finality) in finals(&actions) {
                prop_assert_eq!((which, finality), (ticket, Finality::Same));
                finals_seen += 1;
            }
            let size = world.membership.size();
            let enough = |kind: usize, strength| size.suffices(told[kind].len(), strength);
            let finally = enough(1, Strength::Strong);
            let weakly = enough(0, Strength::Weak) || enough(1, Strength::Weak);
            prop_assert!(answered <= 1 && finals_seen <= 1);
            if finally || weakly && !strong {
                prop_assert_eq!(answered, 1, "enough honest replicas told it");
            }
            if strong && told[1].len() + usize::from(faulty) < size.quorum(Strength::Strong) {
                prop_assert_eq!(answered, 0, "even with all liars there are too few");
            }
            if !strong && told[0].is_empty() && told[1].is_empty() {
                prop_assert_eq!(answered, 0, "no honest replica told anything");
            }
            if followed && !strong && finally {
                prop_assert_eq!(finals_seen, 1);
            }
        }
    }

    /// Whatever is submitted, cancelled and answered, the window holds, every ticket is answered
    /// at most once, with its own operation's result, and once all is answered nothing is left.
    #[test]
    fn every_submission_gets_its_own_result(
        groups in prop::collection::vec((1..5usize, any::<bool>(), any::<bool>()), 1..12),
        window in 1..4u64,
    ) {
        let mut world = World::of(4, 1, |setup| setup.window = window);
        let mut expected = BTreeMap::new();
        let mut cancelled = BTreeSet::new();
        let mut open: Vec<Arc<SignedRequest>> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut queue: Vec<Action> = Vec::new();
        for (count, strong, cancel) in groups {
            let level = if strong { Level::Strong } else { Level::Weak };
            let mut all = Vec::new();
            for _ in 0..count {
                let text = format!("op {}", world.next_ticket);
                let one = world.submission(level, Follow::No, &text);
                expected.insert(one.ticket, text);
                all.push(one);
            }
            let last = all[count - 1].ticket;
            queue.extend(world.handle(Event::Submit(all)));
            if cancel {
                cancelled.insert(last);
                queue.extend(world.handle(Event::Cancel(last)));
            }
        }
        for _ in 0..1000 {
            open.extend(sent(&queue));
            queue.clear();
            let Some(request) = open.pop() else { break };
            for by in 0..3 {
                let reply = Reply {
                    kind: ReplyKind::Committed,
                    view: View(0),
                    slot: Slot(request.body().number.0),
                    hash: Digest::default(),
                    name: request.body().name(),
                    request: request.digest(),
                    index: 0,
                    results: Results::Full(request.body().operations.clone()),
                };
                let reply = world.sign(by, reply);
                queue.extend(world.handle(Event::Reply { from: ReplicaId(by), reply }));
            }
            for (ticket, answer) in answers(&queue) {
                prop_assert!(seen.insert(ticket), "answered twice");
                prop_assert!(!cancelled.contains(&ticket));
                prop_assert_eq!(&texts(&answer.results), &[expected[&ticket].clone()]);
            }
        }
        let all: BTreeSet<_> = expected.keys().copied().collect();
        prop_assert_eq!(&seen | &cancelled, all);
        prop_assert_eq!((world.client.in_flight(), world.client.queued()), (0, 0));
        prop_assert!(world.client.is_whole());
    }
}
