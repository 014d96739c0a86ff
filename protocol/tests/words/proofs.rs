//! Proofs of misbehaviour: what convicts, and that nobody can be framed.

use std::sync::Arc;

use elea_protocol::codec::{Canonical, decode, encode};
use elea_protocol::evidence::{Evidence, FORK_LINKS_MAX, Fork};
use elea_protocol::history::extend;
use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::membership::Membership;
use elea_protocol::message::{
    Commit, CommitCertificate, Message, NewViewHeader, OrderHeader, Position,
};
use elea_protocol::signature::{Claim, PublicKey, Scheme, Signed};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::members::{
    BAD_SIGNATURE, UNKNOWN_SIGNER, bad_votes, certificate, cluster, keys, say, verdict,
};

const NOTHING: &str = "evidence without a contradiction";

/// Replica 1 is its primary.
const VIEW: View = View(5);

/// A history: the batch of slot `n` is `batches[n - 1]`.
#[derive(Clone, Debug)]
struct Chain {
    batches: Vec<Digest>,
    /// By slot, the genesis first.
    hashes: Vec<Digest>,
}

impl Chain {
    /// With batches told apart by one byte.
    fn of(batches: impl IntoIterator<Item = u8>) -> Self {
        let batches: Vec<_> = batches.into_iter().map(|batch| Digest([batch; 32])).collect();
        let mut hashes = vec![Digest([0xee; 32])];
        for (before, batch) in batches.iter().enumerate() {
            hashes.push(extend(&hashes[before], batch));
        }
        Self { batches, hashes }
    }

    fn at(&self, slot: usize) -> Position {
        Position { slot: Slot(slot as u64), hash: self.hashes[slot] }
    }

    /// How this history goes from `low` to `high`.
    fn fork(&self, low: usize, high: usize) -> Fork {
        Fork { hash: self.hashes[low], links: self.batches[low..high].to_vec() }
    }
}

/// Two histories that differ from slot 3 on.
fn two_histories() -> (Chain, Chain) {
    (Chain::of([1, 2, 3, 4, 5]), Chain::of([1, 2, 13, 14, 15]))
}

/// What somebody says, and who says so.
#[derive(Clone, Copy, Debug)]
struct Word {
    by: u8,
    /// Whose key it is signed with.
    key: u8,
    view: View,
    at: Position,
}

impl Word {
    /// By the primary of [`VIEW`].
    fn of_primary(at: Position) -> Self {
        Self { by: 1, key: 1, view: VIEW, at }
    }

    fn sign<T: Canonical>(self, body: T) -> Signed<T> {
        Signed { by: ReplicaId(self.by), ..say(&cluster("here"), self.key, body) }
    }

    fn order(self) -> Signed<OrderHeader> {
        let Position { slot, hash } = self.at;
        self.sign(OrderHeader { view: self.view, slot, hash, batch: Digest([3; 32]) })
    }

    fn vote(self) -> Signed<Commit> {
        let Position { slot, hash } = self.at;
        self.sign(Commit { view: self.view, slot, hash })
    }

    fn new_view(self) -> Signed<NewViewHeader> {
        self.sign(NewViewHeader { view: self.view, head: self.at, changes: Digest([3; 32]) })
    }
}

/// The proofs that two statements make.
fn pairs(a: Word, b: Word) -> [Evidence; 3] {
    [
        Evidence::Orders(a.order(), b.order()),
        Evidence::Commits(a.vote(), b.vote()),
        Evidence::NewViews(a.new_view(), b.new_view()),
    ]
}

/// By replicas 0, 2 and 3: no more than are needed, so that each vote counts.
fn certified(view: View, at: Position) -> CommitCertificate {
    let Position { slot, hash } = at;
    certificate(&cluster("here"), Commit { view, slot, hash }, &[0, 2, 3])
}

/// The proofs that a statement and a certificate make.
fn refuted(word: Word, certificate: &CommitCertificate, fork: &Fork) -> [Evidence; 2] {
    let (certificate, fork) = (certificate.clone(), fork.clone());
    [
        Evidence::OrderRefuted(word.order(), certificate.clone(), fork.clone()),
        Evidence::NewViewRefuted(word.new_view(), certificate, fork),
    ]
}

/// A good proof of each kind against replica 1.
fn one_of_each() -> Vec<Evidence> {
    let (one, other) = two_histories();
    let word = Word::of_primary(one.at(3));
    let mut all = pairs(word, Word::of_primary(other.at(3))).to_vec();
    all.extend(refuted(word, &certified(VIEW, other.at(5)), &other.fork(3, 5)));
    all
}

#[track_caller]
fn judge(evidence: impl IntoIterator<Item = Evidence>, expected: &str) {
    for evidence in evidence {
        let told = format!("{evidence:?}");
        assert_eq!(verdict(Message::Evidence(Box::new(evidence))), expected, "{told}");
    }
}

#[test]
fn each_kind_convicts_who_signed_it_and_votes_convict_nobody_as_a_primary() {
    for evidence in one_of_each() {
        judge([evidence.clone()], "good");
        assert_eq!((evidence.culprit(), evidence.view()), (ReplicaId(1), VIEW));
        let of_a_primary = !matches!(evidence, Evidence::Commits(..));
        assert_eq!(evidence.convicts_primary(4), of_a_primary, "{evidence:?}");
        assert!(!evidence.convicts_primary(3), "of three replicas another one leads view 5");
    }
}

#[test]
fn two_statements_convict_who_made_both_about_one_thing() {
    let (one, other) = two_histories();
    let good = Word::of_primary(other.at(3));
    for (second, expected) in [
        (good, "good"),
        (Word { at: one.at(3), ..good }, NOTHING),
        (Word { view: View(9), ..good }, NOTHING),
        (Word { by: 2, key: 2, ..good }, NOTHING),
        (Word { key: 2, ..good }, BAD_SIGNATURE),
        (Word { by: 2, ..good }, BAD_SIGNATURE),
        (Word { by: 4, key: 4, ..good }, UNKNOWN_SIGNER),
    ] {
        let first = Word::of_primary(one.at(3));
        judge(pairs(first, second), expected);
        judge(pairs(second, first), expected);
    }
    // Of a view there is one beginning, but slots there are many.
    let [orders, votes, new_views] = pairs(good, Word::of_primary(one.at(4)));
    judge([orders, votes], NOTHING);
    judge([new_views], "good");
    let (order, new_view) = (good.order(), good.new_view());
    let again = good.sign(OrderHeader { batch: Digest([4; 32]), ..order.body });
    judge([Evidence::Orders(order, again)], NOTHING);
    let again = good.sign(NewViewHeader { changes: Digest([4; 32]), ..new_view.body });
    judge([Evidence::NewViews(new_view, again)], "good");
}

#[test]
fn a_certificate_refutes_what_lies_on_another_history_of_its_view() {
    let (one, other) = two_histories();
    let elsewhere = Digest([9; 32]);
    let mut swapped = other.fork(3, 5);
    swapped.links.reverse();
    let mut short = other.fork(3, 5);
    short.links.pop();
    let mut long = other.fork(3, 5);
    long.links.push(elsewhere);
    let end = Position { slot: Slot(u64::MAX), hash: elsewhere };
    for (said, certified_in, at, fork, expected) in [
        (one.at(3), VIEW, other.at(5), other.fork(3, 5), "good"),
        (one.at(5), VIEW, other.at(3), one.fork(3, 5), "good"),
        (one.at(4), VIEW, other.at(4), other.fork(4, 4), "good"),
        // Of another view.
        (one.at(3), View(4), other.at(5), other.fork(3, 5), NOTHING),
        (one.at(3), View(6), other.at(5), other.fork(3, 5), NOTHING),
        // On one history.
        (other.at(3), VIEW, other.at(5), other.fork(3, 5), NOTHING),
        (one.at(2), VIEW, other.at(5), other.fork(2, 5), NOTHING),
        (one.at(5), VIEW, other.at(1), one.fork(1, 5), NOTHING),
        (one.at(4), VIEW, one.at(4), one.fork(4, 4), NOTHING),
        // Not how the history goes.
        (one.at(3), VIEW, other.at(5), one.fork(3, 5), NOTHING),
        (one.at(4), VIEW, other.at(4), one.fork(4, 4), NOTHING),
        (one.at(3), VIEW, other.at(5), Fork { hash: elsewhere, ..other.fork(3, 5) }, NOTHING),
        (one.at(3), VIEW, other.at(5), swapped, NOTHING),
        // Not of the right length.
        (one.at(3), VIEW, other.at(5), short, NOTHING),
        (one.at(3), VIEW, other.at(5), long, NOTHING),
        (one.at(3), VIEW, other.at(5), other.fork(4, 5), NOTHING),
        (one.at(3), VIEW, other.at(5), other.fork(2, 5), NOTHING),
        (one.at(3), VIEW, other.at(5), Fork::default(), NOTHING),
        (one.at(3), VIEW, end, Fork::default(), NOTHING),
        (end, VIEW, other.at(3), other.fork(3, 5), NOTHING),
    ] {
        let certificate = certified(certified_in, at);
        judge(refuted(Word::of_primary(said), &certificate, &fork), expected);
    }
}

#[test]
fn a_refutation_needs_the_signature_and_the_votes() {
    let (one, other) = two_histories();
    let (certificate, fork) = (certified(VIEW, other.at(5)), other.fork(3, 5));
    let good = Word::of_primary(one.at(3));
    for (votes, expected) in bad_votes(&certificate.votes) {
        judge(refuted(good, &CommitCertificate { votes, ..certificate.clone() }, &fork), expected);
    }
    for (word, expected) in [
        (Word { key: 2, ..good }, BAD_SIGNATURE),
        (Word { by: 2, ..good }, BAD_SIGNATURE),
        (Word { by: 4, key: 4, ..good }, UNKNOWN_SIGNER),
    ] {
        judge(refuted(word, &certificate, &fork), expected);
    }
    // Who leads another view is a liar, too, but nobody followed it.
    for evidence in refuted(Word { by: 2, key: 2, ..good }, &certificate, &fork) {
        judge([evidence.clone()], "good");
        assert_eq!(evidence.culprit(), ReplicaId(2));
        assert!(!evidence.convicts_primary(4));
    }
}

#[test]
fn a_fork_has_no_more_links_than_allowed() {
    let most = FORK_LINKS_MAX + 1;
    let long = Chain::of((0..=most).map(|slot| (slot % 251) as u8));
    let lie = Position { hash: Digest([9; 32]), ..long.at(1) };
    for (high, expected) in [(most, "good"), (most + 1, NOTHING)] {
        let (top, fork) = (long.at(high), long.fork(1, high));
        judge(refuted(Word::of_primary(lie), &certified(VIEW, top), &fork), expected);
        judge(refuted(Word::of_primary(top), &certified(VIEW, lie), &fork), expected);
    }
}

/// The bits of the encoding whose change leaves a proof that is still let in.
fn idle_bits(here: &Membership, proof: &Evidence, bits: impl Iterator<Item = usize>) -> Vec<usize> {
    let bytes = encode(proof).expect("a proof is small").to_vec();
    let still_good = |bit: &usize| {
        let mut changed = bytes.clone();
        changed[*bit / 8] ^= 1 << (*bit % 8);
        decode::<Evidence>(&changed).is_ok_and(|changed| here.open_evidence(changed).is_ok())
    };
    bits.filter(still_good).collect()
}

#[test]
fn a_proof_with_any_bit_changed_proves_nothing() {
    let here = cluster("here");
    for proof in one_of_each() {
        let bits = 8 * encode(&proof).expect("a proof is small").len();
        assert_eq!(idle_bits(&here, &proof, 0..bits), [], "{proof:?}");
    }
}

/// Takes every signature for good: what is left to check is the contradiction.
struct Trusting;

impl Scheme for Trusting {
    fn verify(&self, _: &Claim) -> bool {
        true
    }

    fn is_sound(&self, _: &PublicKey) -> bool {
        true
    }
}

/// Whether anything can be made of two statements of one view by who knows both histories: with
/// any hash and any stretch of batches in them.
fn is_provable(said: Position, certified_at: Position, known: [&Chain; 2]) -> bool {
    let trusting = Membership::new("here", 1, keys(), None, Arc::new(Trusting)).expect("four keys");
    let opens = |evidence| trusting.open_evidence(evidence).is_ok();
    let word = Word::of_primary(said);
    let [orders, votes, _] = pairs(word, Word::of_primary(certified_at));
    let refutations = refuted(word, &certified(VIEW, certified_at), &Fork::default());
    let refutable = |hash: &Digest, links: &[Digest]| {
        refutations.clone().into_iter().any(|mut proof| {
            if let Evidence::OrderRefuted(.., fork) | Evidence::NewViewRefuted(.., fork) =
                &mut proof
            {
                *fork = Fork { hash: *hash, links: links.to_vec() };
            }
            opens(proof)
        })
    };
    let stretches: Vec<&[Digest]> = known
        .iter()
        .flat_map(|chain| {
            let ends = 0..=chain.batches.len();
            ends.flat_map(move |end| (0..=end).map(move |begin| &chain.batches[begin..end]))
        })
        .collect();
    let mut hashes = known.iter().flat_map(|chain| &chain.hashes);
    opens(orders)
        || opens(votes)
        || hashes.any(|hash| stretches.iter().any(|links| refutable(hash, links)))
}

/// Few different batches, so that histories often begin alike and repeat themselves.
fn batches() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..2u8, 0..6)
}

proptest! {
    #[test]
    fn any_fork_is_proven_by_a_proof_of_which_every_bit_counts(
        common in batches(),
        tails in [batches(), batches()],
        ends in [any::<Index>(), any::<Index>()],
        bits in prop::collection::vec(any::<Index>(), 8),
    ) {
        let here = cluster("here");
        let parts = common.len() + 1;
        let [one, other] = [0, 1].map(|which| {
            Chain::of([&common[..], &[which as u8], &tails[which]].concat())
        });
        let [said, top] = [0, 1].map(|which| parts + ends[which].index(tails[which].len() + 1));
        let fork =
            if said <= top { other.fork(said, top) } else { one.fork(top, said) };
        let certificate = certified(VIEW, other.at(top));
        for proof in refuted(Word::of_primary(one.at(said)), &certificate, &fork) {
            prop_assert!(here.open_evidence(proof.clone()).is_ok());
            let all = 8 * encode(&proof).expect("a proof is small").len();
            let bits = bits.iter().map(|bit| bit.index(all));
            prop_assert_eq!(idle_bits(&here, &proof, bits), []);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_said_of_one_history_is_never_a_proof(one in batches(), other in batches()) {
        let (one, other) = (Chain::of(one), Chain::of(other));
        let common = one.hashes.iter().zip(&other.hashes).take_while(|(a, b)| a == b).count();
        for said in 1..one.hashes.len() {
            for top in 1..one.hashes.len() {
                prop_assert!(!is_provable(one.at(said), one.at(top), [&one, &other]));
            }
            for top in 1..other.hashes.len() {
                let fork = said >= common && top >= common;
                prop_assert_eq!(is_provable(one.at(said), other.at(top), [&one, &other]), fork);
            }
        }
    }
}
