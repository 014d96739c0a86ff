use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::application::BadChunk;

type Model = BTreeMap<Digest, Leaf<u16>>;

/// Keys that share long prefixes beside ordinary ones, so that paths are long and leaves move.
fn key() -> impl Strategy<Value = Digest> {
    prop_oneof![
        (0u16..400).prop_map(|n| Digest(Sha256::digest(n.to_le_bytes()).into())),
        (0usize..64, 0u8..4).prop_map(|(depth, value)| {
            let mut key = [0x11; 32];
            key[depth / 2] = value;
            Digest(key)
        }),
    ]
}

/// Weights from those of many leaves a chunk to those of one leaf that is a chunk of its own.
fn leaf() -> impl Strategy<Value = Leaf<u16>> {
    let limit = u32::try_from(CHUNK_WEIGHT_MAX).expect("small");
    let weight =
        prop_oneof![4 => 1..1000u32, 4 => 1..limit, 1 => Just(limit), 1 => limit..limit * 3];
    (any::<[u8; 32]>(), weight, any::<u16>()).prop_map(|(digest, weight, value)| Leaf {
        digest: Digest(digest),
        weight,
        value,
    })
}

fn model() -> impl Strategy<Value = Model> {
    prop::collection::btree_map(key(), leaf(), 0..80)
}

fn trie_of<'a>(leaves: impl IntoIterator<Item = (&'a Digest, &'a Leaf<u16>)>) -> MerkleTrie<u16> {
    let mut trie = MerkleTrie::new();
    for (key, leaf) in leaves {
        trie.insert(*key, *leaf);
    }
    trie
}

fn contents(trie: &MerkleTrie<u16>) -> Model {
    trie.iter().map(|(key, leaf)| (*key, *leaf)).collect()
}

fn chunk_of(trie: &MerkleTrie<u16>, index: u32) -> (Proof, Vec<(Digest, Leaf<u16>)>) {
    let (proof, leaves) = trie.chunk(index).expect("within the trie");
    (proof, leaves.map(|(key, leaf)| (*key, *leaf)).collect())
}

fn verdict(
    root: Digest,
    index: u32,
    proof: &Proof,
    leaves: &[(Digest, Leaf<u16>)],
) -> Result<bool, BadChunk> {
    Assembly::new(root).accept(index, proof, leaves.iter().copied())
}

/// The digest, the weight and the chunks of a subtree, restated from the module's documentation.
fn dumb(leaves: &[(Digest, Leaf<u16>)], depth: usize) -> Summary {
    let weight = leaves.iter().map(|(_, leaf)| u64::from(leaf.weight)).sum();
    match leaves {
        [] => Summary { digest: Empty.digest(), weight, chunks: 1 },
        [(key, leaf)] => {
            Summary { digest: LeafOf(key, &leaf.digest, leaf.weight).digest(), weight, chunks: 1 }
        }
        _ => {
            let children: Vec<(u8, Summary)> = (0..16u8)
                .filter_map(|n| {
                    let below: Vec<_> = leaves
                        .iter()
                        .filter(|(key, _)| nibble(key, depth) == usize::from(n))
                        .copied()
                        .collect();
                    (!below.is_empty()).then(|| (n, dumb(&below, depth + 1)))
                })
                .collect();
            let parts = children.iter().map(|(_, child)| child.chunks).sum();
            let chunks = if weight > CHUNK_WEIGHT_MAX { parts } else { 1 };
            Summary { digest: BranchOf(&children).digest(), weight, chunks }
        }
    }
}

fn listed(model: &Model) -> Vec<(Digest, Leaf<u16>)> {
    model.iter().map(|(key, leaf)| (*key, *leaf)).collect()
}

#[test]
fn the_empty_trie_has_a_fixed_digest_and_one_empty_chunk() {
    let trie = MerkleTrie::<u16>::new();
    expect_test::expect!["97ddb26d2714062f"].assert_eq(&trie.digest().to_string()[..16]);
    assert_eq!((trie.len(), trie.chunks()), (0, 1));
    let (proof, leaves) = chunk_of(&trie, 0);
    assert!(leaves.is_empty());
    assert!(trie.chunk(1).is_none());
    let mut assembly = Assembly::<u16>::new(trie.digest());
    assert_eq!(assembly.missing(), Some(0));
    assert_eq!(assembly.accept(1, &proof, []), Err(BadChunk));
    assert_eq!(assembly.accept(0, &proof, []), Ok(true));
    assert_eq!(assembly.missing(), None);
    assert!(assembly.finish().expect("whole").is_empty());
}

#[test]
fn a_digest_is_the_same_in_every_release() {
    let key = |n: u8| Digest(Sha256::digest([n]).into());
    let leaf = |n: u8| Leaf { digest: key(n ^ 0xff), weight: u32::from(n) + 1, value: 0 };
    let model: Model = (0..40).map(|n| (key(n), leaf(n))).collect();
    expect_test::expect!["bd75a6002f2f630be0314b2cea61f5be7fffe61c12f3aac3f90b9e439303ce43"]
        .assert_eq(&trie_of(&model).digest().to_string());
}

#[test]
fn keys_that_differ_in_the_last_nibble_alone_are_told_apart() {
    let mut trie = MerkleTrie::new();
    let leaf = Leaf { digest: Digest([9; 32]), weight: 1, value: 0u16 };
    let low = Digest([7; 32]);
    let mut high = low;
    high.0[31] = 8;
    trie.insert(low, leaf);
    let alone = trie.digest();
    trie.insert(high, leaf);
    assert!(trie.contains(&low) && trie.contains(&high));
    assert_eq!(trie.remove(&high), Some(leaf));
    assert_eq!((trie.digest(), trie.len()), (alone, 1));
}

#[test]
fn an_unshared_trie_is_written_in_place() {
    let mut trie = MerkleTrie::new();
    let leaf = Leaf { digest: Digest([9; 32]), weight: 1, value: 0u16 };
    trie.insert(Digest([1; 32]), leaf);
    trie.insert(Digest([2; 32]), leaf);
    let address = |trie: &MerkleTrie<u16>| trie.root.as_ref().map(Arc::as_ptr);
    let before = address(&trie);
    trie.insert(Digest([3; 32]), leaf);
    assert_eq!(address(&trie), before);
    let kept = trie.clone();
    trie.insert(Digest([4; 32]), leaf);
    assert_ne!(address(&trie), before);
    assert_eq!(address(&kept), before);
}

proptest! {
    #[test]
    fn shape_and_digest_depend_on_the_content_alone(
        model in model(),
        removed in model(),
        order in any::<u64>(),
    ) {
        let straight = trie_of(&model);
        prop_assert_eq!(straight.summary(), dumb(&listed(&model), 0));
        prop_assert_eq!(straight.len(), model.len());
        prop_assert_eq!(&contents(&straight), &model);

        let mut shuffled: Vec<_> = model.iter().chain(&removed).collect();
        shuffled.sort_by_cached_key(|(key, leaf)| {
            Sha256::digest([&key.0[..], &leaf.digest.0, &order.to_le_bytes()].concat())
        });
        let mut trie = trie_of(shuffled);
        let _ = trie.digest();
        for key in removed.keys() {
            trie.remove(key);
        }
        for (key, leaf) in &model {
            trie.insert(*key, *leaf);
        }
        prop_assert_eq!(trie.summary(), straight.summary());
        prop_assert_eq!(trie.len(), straight.len());
    }

    #[test]
    fn every_step_answers_like_a_map_and_clones_stay_as_they_were(
        steps in prop::collection::vec((key(), prop::option::of(leaf()), any::<bool>()), 0..60),
    ) {
        let mut trie = MerkleTrie::new();
        let mut model = Model::new();
        let mut kept = Vec::new();
        for (key, write, keep) in steps {
            if keep {
                kept.push((trie.clone(), model.clone()));
            }
            match write {
                Some(leaf) => prop_assert_eq!(trie.insert(key, leaf), model.insert(key, leaf)),
                None => prop_assert_eq!(trie.remove(&key), model.remove(&key)),
            }
            prop_assert_eq!(trie.get(&key), model.get(&key));
            prop_assert_eq!(trie.summary(), dumb(&listed(&model), 0));
        }
        for (trie, model) in kept {
            prop_assert_eq!(contents(&trie), model.clone());
            prop_assert_eq!(trie.summary(), dumb(&listed(&model), 0));
        }
    }

    #[test]
    fn removing_undoes_inserting(model in model(), key in key(), leaf in leaf()) {
        let mut trie = trie_of(&model);
        let before = trie.digest();
        let replaced = trie.insert(key, leaf);
        prop_assert_eq!(replaced, model.get(&key).copied());
        match replaced {
            Some(old) => prop_assert_eq!(trie.insert(key, old), Some(leaf)),
            None => prop_assert_eq!(trie.remove(&key), Some(leaf)),
        }
        prop_assert_eq!(trie.digest(), before);
    }

    #[test]
    fn different_contents_have_different_digests(one in model(), other in model()) {
        let same = listed(&one).iter().map(|(k, l)| (*k, l.digest, l.weight))
            .eq(listed(&other).iter().map(|(k, l)| (*k, l.digest, l.weight)));
        prop_assert_eq!(trie_of(&one).digest() == trie_of(&other).digest(), same);
    }

    #[test]
    fn chunks_partition_the_trie_and_restore_it_in_any_order(
        model in model(),
        order in any::<u64>(),
    ) {
        let trie = trie_of(&model);
        let mut order: Vec<u32> = (0..trie.chunks()).map(|n| (order.rotate_left(n) as u32, n))
            .collect::<BTreeMap<_, _>>().into_values().collect();
        order.extend((0..trie.chunks()).rev());
        let mut assembly = Assembly::new(trie.digest());
        let mut leaves_seen = 0;
        let mut held = BTreeSet::new();
        for index in order {
            let lowest = (0..).find(|n| !held.contains(n)).expect("endless");
            if held.len() < trie.chunks() as usize {
                prop_assert_eq!(assembly.missing(), Some(lowest));
            }
            let (proof, leaves) = chunk_of(&trie, index);
            let weight: u64 = leaves.iter().map(|(_, leaf)| u64::from(leaf.weight)).sum();
            prop_assert!(weight <= CHUNK_WEIGHT_MAX || leaves.len() == 1);
            let new = held.insert(index);
            leaves_seen += if new { leaves.len() } else { 0 };
            prop_assert_eq!(assembly.accept(index, &proof, leaves), Ok(new));
        }
        prop_assert!(trie.chunk(trie.chunks()).is_none());
        prop_assert_eq!(leaves_seen, model.len());
        prop_assert_eq!(assembly.missing(), None);
        let restored = assembly.finish().expect("whole");
        prop_assert_eq!(restored.digest(), trie.digest());
        prop_assert_eq!(restored.len(), trie.len());
        prop_assert_eq!(contents(&restored), model);
    }

    #[test]
    fn a_chunk_with_an_altered_missing_or_extra_leaf_is_refused(
        model in model(),
        chunk in any::<Index>(),
        at in any::<Index>(),
        key in key(),
        other in leaf(),
    ) {
        let trie = trie_of(&model);
        let root = trie.digest();
        let index = u32::try_from(chunk.index(trie.chunks() as usize)).expect("small");
        let (proof, leaves) = chunk_of(&trie, index);
        prop_assert_eq!(verdict(root, index, &proof, &leaves), Ok(true));
        prop_assert_eq!(verdict(root, index.wrapping_add(1), &proof, &leaves), Err(BadChunk));
        prop_assert_eq!(verdict(root, index.wrapping_sub(1), &proof, &leaves), Err(BadChunk));
        prop_assert_eq!(verdict(Digest([3; 32]), index, &proof, &leaves), Err(BadChunk));

        if leaves.iter().all(|(held, _)| *held != key) {
            let mut extra = leaves.clone();
            extra.push((key, other));
            extra.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(verdict(root, index, &proof, &extra), Err(BadChunk));
        }
        if !leaves.is_empty() {
            let at = at.index(leaves.len());
            let mut missing = leaves.clone();
            missing.remove(at);
            prop_assert_eq!(verdict(root, index, &proof, &missing), Err(BadChunk));

            let mut altered = leaves.clone();
            altered[at].1.digest.0[at % 32] ^= 1;
            prop_assert_eq!(verdict(root, index, &proof, &altered), Err(BadChunk));

            let mut heavier = leaves.clone();
            heavier[at].1.weight += 1;
            prop_assert_eq!(verdict(root, index, &proof, &heavier), Err(BadChunk));

            let mut renamed = leaves.clone();
            renamed[at].0.0[31] ^= 1;
            prop_assert_eq!(verdict(root, index, &proof, &renamed), Err(BadChunk));

            let mut repeated = leaves.clone();
            repeated.insert(at, leaves[at]);
            prop_assert_eq!(verdict(root, index, &proof, &repeated), Err(BadChunk));
        }
        if leaves.len() > 1 {
            let mut reversed = leaves.clone();
            reversed.reverse();
            prop_assert_eq!(verdict(root, index, &proof, &reversed), Err(BadChunk));
        }
    }

    /// Among them are proofs that are too long, that name a way twice, and that lie about a
    /// sibling's weight or chunks to shift the numbers of the chunks.
    #[test]
    fn a_proof_with_any_byte_changed_is_refused(
        model in model(),
        chunk in any::<Index>(),
        at in any::<Index>(),
        flip in 1..=255u8,
    ) {
        let trie = trie_of(&model);
        let index = u32::try_from(chunk.index(trie.chunks() as usize)).expect("small");
        let (proof, leaves) = chunk_of(&trie, index);
        let mut bytes = crate::codec::encode(&proof).expect("small").to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(altered) = crate::codec::decode::<Proof>(&bytes) {
            prop_assert_eq!(verdict(trie.digest(), index, &altered, &leaves), Err(BadChunk));
        }
    }
}

/// A client that looks for keys with a common prefix gets one deep path and no large chunk.
#[test]
fn keys_chosen_to_share_a_prefix_do_not_make_a_large_chunk() {
    let weight = u32::try_from(CHUNK_WEIGHT_MAX / 2).expect("small");
    let mut trie = MerkleTrie::new();
    for n in 0..32u8 {
        let mut key = [0xab; 32];
        key[31] = n;
        trie.insert(Digest(key), Leaf { digest: Digest([n; 32]), weight, value: 0 });
    }
    assert_eq!(trie.chunks(), 32);
    let mut assembly = Assembly::new(trie.digest());
    for index in 0..32 {
        let (proof, leaves) = chunk_of(&trie, index);
        assert_eq!(leaves.len(), 1);
        assert_eq!(assembly.accept(index, &proof, leaves), Ok(true));
    }
    assert_eq!(assembly.finish().map(|trie| trie.digest()), Some(trie.digest()));
}
