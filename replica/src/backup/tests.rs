//! Backup files from hostile hands: damaged, cut short, made up, and put together from others.
//!
//! A file that is not what was written is never accepted. Whoever changes a file can also make the
//! digest at its end right again: what is accepted then is still the state that the replicas
//! certified, and no other.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use elea_protocol::application::{BadChunk, Context};
use elea_protocol::id::{Slot, View};
use elea_protocol::message::{
    Checkpoint, CheckpointCertificate, Commit, CommitCertificate, StableProof, StateDigests,
};
use elea_protocol::rows::{RowsView, Unreadable};
use elea_protocol::signature::{Ed25519, Signature, Signer};
use elea_protocol::tuning::Tuning;

use elea_protocol::codec::Canonical as _;

use super::*;
use crate::dice::Dice;

/// A state of cells, of which each is a chunk after the one with the digests of them all.
#[derive(Clone)]
struct Cells(Vec<Bytes>);

fn digest_of(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn digest_of_all(cells: &[Digest]) -> Digest {
    digest_of(&cells.iter().flat_map(|cell| cell.0).collect::<Vec<u8>>())
}

impl Cells {
    fn digests(&self) -> Vec<Digest> {
        self.0.iter().map(|cell| digest_of(cell)).collect()
    }
}

impl Snapshot for Cells {
    fn digest(&self) -> Digest {
        digest_of_all(&self.digests())
    }

    fn chunks(&self) -> u32 {
        1 + u32::try_from(self.0.len()).expect("few")
    }

    fn chunk(&self, index: u32) -> Option<Bytes> {
        match usize::try_from(index).ok()?.checked_sub(1) {
            None => codec::encode(&self.digests()).ok(),
            Some(cell) => self.0.get(cell).cloned(),
        }
    }
}

struct Assembly {
    digest: Digest,
    expected: Option<Vec<Digest>>,
    there: BTreeMap<u32, Bytes>,
}

impl Restore for Assembly {
    fn accept(&mut self, index: u32, chunk: &Bytes) -> Result<(), BadChunk> {
        if index == 0 {
            let digests: Vec<Digest> = codec::decode(chunk).map_err(|_| BadChunk)?;
            let right = digest_of_all(&digests) == self.digest;
            self.expected = right.then_some(digests);
            return if right { Ok(()) } else { Err(BadChunk) };
        }
        let expected = self.expected.as_ref().and_then(|all| all.get(index as usize - 1));
        if expected != Some(&digest_of(chunk)) {
            return Err(BadChunk);
        }
        self.there.insert(index, chunk.clone());
        Ok(())
    }

    fn missing(&self) -> Option<u32> {
        let Some(expected) = &self.expected else { return Some(0) };
        let all = 1..=u32::try_from(expected.len()).expect("few");
        all.into_iter().find(|index| !self.there.contains_key(index))
    }
}

impl Application for Cells {
    type Snapshot = Self;
    type Restore = Assembly;

    fn execute(&mut self, _: &Context, operation: &Bytes) -> Bytes {
        operation.clone()
    }

    fn end_slot(&mut self, _: Slot) {}

    fn undo_to(&mut self, _: Slot) {}

    fn make_permanent(&mut self, _: Slot) {}

    fn digest(&mut self) -> Digest {
        Snapshot::digest(self)
    }

    fn snapshot(&self) -> Self {
        self.clone()
    }

    fn restore(&self, digest: Digest) -> Assembly {
        Assembly { digest, expected: None, there: BTreeMap::new() }
    }

    fn open(&mut self, _: Slot, _: Digest, _: RowsView) -> Result<(), Unreadable> {
        Ok(())
    }
}

/// A cluster of four with keys of its own.
fn cluster(tag: u8) -> (ClusterFile, Vec<SecretKey>) {
    let keys: Vec<_> = (0..4).map(|id| SecretKey::from_bytes(&[16 * tag + id; 32])).collect();
    let public = keys.iter().map(SecretKey::public_key).collect();
    let name = format!("town-{tag}");
    let membership = Membership::new(name, 1, public, None, Arc::new(Ed25519::default()));
    let cluster = ClusterFile {
        membership: membership.expect("a sound cluster"),
        addresses: (1..5).map(|port| format!("127.0.0.1:{port}")).collect(),
        clients: None,
        tuning: Tuning::default(),
        durability: Durability::default(),
        application: Default::default(),
    };
    (cluster, keys)
}

/// What three of the four certified: the state after this slot.
fn head(cluster: &ClusterFile, keys: &[SecretKey], slot: u64, state: &Cells) -> StateHead {
    let genesis = cluster.membership.genesis();
    let digests =
        StateDigests { application: Snapshot::digest(state), sessions: digest_of(b"sessions") };
    let (view, slot, hash) = (View(3), Slot(slot), digest_of(&slot.to_be_bytes()));
    let checkpoint = Checkpoint { view, slot, hash, state: digests.digest() };
    let commit = Commit { view, slot, hash };
    let votes = |digest: Digest| -> BTreeMap<ReplicaId, Signature> {
        (0..3).map(|id| (ReplicaId(id), keys[usize::from(id)].sign(&digest))).collect()
    };
    let checkpoint_votes = votes(checkpoint.signing_digest(genesis));
    let stable = StableProof {
        checkpoint: CheckpointCertificate { body: checkpoint, votes: checkpoint_votes },
        cover: CommitCertificate { body: commit, votes: votes(commit.signing_digest(genesis)) },
    };
    StateHead { stable, digests }
}

/// A backup as it was written, in its parts.
#[derive(Clone)]
struct Written {
    text: Vec<u8>,
    head: Vec<u8>,
    chunks: Vec<Vec<u8>>,
}

impl Written {
    fn of(tag: u8, slot: u64, cells: &[&[u8]]) -> Self {
        let (cluster, keys) = cluster(tag);
        let state = Cells(cells.iter().map(|cell| Bytes::copy_from_slice(cell)).collect());
        let head = head(&cluster, &keys, slot, &state);
        let written = Self {
            text: cluster.to_text().into_bytes(),
            head: codec::encode(&head).expect("small").to_vec(),
            chunks: (0..state.chunks()).map_while(|i| state.chunk(i)).map(|c| c.to_vec()).collect(),
        };
        // These are the bytes that a backup has.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("backup");
        assert!(write_part(&path, &cluster, &head, &state).is_ok());
        assert_eq!(fs::read(path).expect("just written"), written.bytes());
        written
    }

    /// The file, with the right digest at its end.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let length = |part: &[u8]| u32::try_from(part.len()).expect("small").to_le_bytes();
        for part in [&self.text, &self.head] {
            bytes.extend(length(part));
            bytes.extend(part);
        }
        bytes.extend(u32::try_from(self.chunks.len()).expect("few").to_le_bytes());
        for chunk in &self.chunks {
            bytes.extend(length(chunk));
            bytes.extend(chunk);
        }
        sealed(bytes)
    }
}

/// These bytes with their digest behind them.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = digest_of(&bytes);
    bytes.extend(digest.0);
    bytes
}

/// What is believed of a backup: of which cluster it is, the end of its history, and its rows.
type Believed = (Digest, Position, Digest, Vec<Row>);

fn reads(bytes: impl Read) -> Result<Believed, String> {
    let mut rows = Vec::new();
    let read = || {
        read_from(bytes, Path::new("hostile"), &Cells(Vec::new()), &mut |more| {
            rows.extend(more);
            Ok(())
        })
    };
    let backup = catch_unwind(AssertUnwindSafe(read)).expect("no file makes it panic");
    let backup = backup.map_err(|error| {
        assert!(error.is_invalid(), "{error}");
        error.to_string()
    })?;
    Ok((*backup.cluster.membership.genesis(), backup.at, backup.state, rows))
}

fn two_backups() -> (Written, Written) {
    let one = Written::of(1, 64, &[b"a long first cell", b"second", b"", b"fourth"]);
    (one, Written::of(2, 128, &[b"other", b"second", b"cells"]))
}

/// Something that is not this file any more, but nearly so.
fn bent(dice: &mut Dice, right: &[u8]) -> Vec<u8> {
    let mut bytes = right.to_vec();
    let end = bytes.len() as u64;
    for _ in 0..dice.between(1, 3) {
        let at = dice.below(bytes.len() as u64) as usize;
        let to = at + dice.below((bytes.len() - at) as u64 + 1).min(dice.between(1, 64)) as usize;
        match dice.below(7) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = dice.next() as u8,
            2 => drop(bytes.drain(at..to)),
            3 => bytes.truncate(at.max(1)),
            4 => {
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => bytes.extend((0..dice.between(1, 40)).map(|_| dice.next() as u8)),
            _ => {
                // A length or a number, most likely.
                let at = at.min(bytes.len().saturating_sub(4));
                let number = [0, 1, u32::MAX, 1 << 31, end as u32, FRAME_MAX as u32 + 1];
                let number = number[dice.below(6) as usize].to_le_bytes();
                let most = bytes.len() - at;
                bytes[at..at + most.min(4)].copy_from_slice(&number[..most.min(4)]);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

#[test]
fn a_backup_that_is_not_what_was_written_is_never_accepted() {
    let right = two_backups().0.bytes();
    assert!(reads(&*right).is_ok());
    let mut dice = Dice(7);
    for byte in 0..right.len() {
        let mut bytes = right.clone();
        let bit = dice.below(8);
        bytes[byte] ^= 1 << bit;
        assert!(reads(&*bytes).is_err(), "bit {bit} of byte {byte} is flipped");
    }
    for length in 0..right.len() {
        assert!(reads(&right[..length]).is_err(), "only {length} bytes are left");
    }
    for round in 0..2000 {
        let bytes = bent(&mut dice, &right);
        assert!(bytes == right || reads(&*bytes).is_err(), "round {round}");
    }
}

#[test]
fn bytes_of_any_kind_are_no_backup() {
    let mut dice = Dice(8);
    for _ in 0..4000 {
        let mut bytes = if dice.one_in(4) { Vec::new() } else { MAGIC.to_vec() };
        bytes.extend((0..dice.below(400)).map(|_| dice.next() as u8));
        // Small numbers, so that what follows them is looked at, too.
        for at in (0..bytes.len()).filter(|at| at % 4 != 2) {
            if dice.one_in(2) && at > MAGIC.len() {
                bytes[at] = 0;
            }
        }
        assert!(reads(&*sealed(bytes)).is_err());
    }
}

/// Whoever changes a file makes the digest at its end right again.
#[test]
fn what_is_accepted_of_a_forger_is_what_replicas_certified() {
    let (one, other) = two_backups();
    let certified = [&one, &other].map(|written| reads(&*written.bytes()).expect("a backup"));
    let mut accepted = 0;
    let mut judge = |bytes: &[u8], how: &dyn std::fmt::Debug| match reads(bytes) {
        Ok(believed) => {
            accepted += 1;
            assert!(certified.contains(&believed), "{how:?}: {believed:?}");
        }
        Err(words) => assert!(words.contains("does not verify"), "{words}"),
    };
    let mut dice = Dice(9);
    for round in 0..1500 {
        let body = one.bytes();
        let body = &body[..body.len() - 32];
        judge(&sealed(bent(&mut dice, body)), &round);
    }
    for round in 0..1500 {
        let mut mixed = one.clone();
        if dice.one_in(2) {
            mixed.text.clone_from(&other.text);
        }
        if dice.one_in(2) {
            mixed.head.clone_from(&other.head);
        }
        if dice.one_in(2) {
            mixed.chunks.clone_from(&other.chunks);
        }
        for _ in 0..dice.below(3) {
            let at = dice.below(mixed.chunks.len() as u64) as usize;
            let to = dice.below(mixed.chunks.len() as u64) as usize;
            match dice.below(4) {
                0 => mixed.chunks.swap(at, to),
                1 => mixed.chunks.insert(at, mixed.chunks[to].clone()),
                2 if mixed.chunks.len() > 1 => drop(mixed.chunks.remove(at)),
                _ => mixed.chunks[at] = other.chunks[dice.below(4) as usize].clone(),
            }
        }
        judge(&mixed.bytes(), &round);
    }
    assert!(accepted > 100, "the parts were put together as they belong {accepted} times");
}

/// A reader that sees how much room it is offered.
struct Metered<R> {
    from: R,
    given: usize,
    offered: usize,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.offered = self.offered.max(to.len());
        let given = self.from.read(to)?;
        self.given += given;
        Ok(given)
    }
}

#[test]
fn a_length_that_is_announced_takes_no_memory_before_the_bytes_are_there() {
    let (one, _) = two_backups();
    let text = u32::try_from(one.text.len()).expect("small").to_le_bytes();
    let head = u32::try_from(one.head.len()).expect("small").to_le_bytes();
    let starts: [&[&[u8]]; 3] = [
        &[MAGIC],
        &[MAGIC, &text, &one.text],
        &[MAGIC, &text, &one.text, &head, &one.head, &9u32.to_le_bytes()],
    ];
    for (part, start) in starts.into_iter().enumerate() {
        let most = if part == 0 { TEXT_MAX } else { FRAME_MAX };
        let announce =
            |length: u32| [&start.concat()[..], &length.to_le_bytes(), &[7; 100]].concat();
        // As much as may be, and little of it there.
        let bytes = announce(u32::try_from(most).expect("a length"));
        let mut metered = Metered { from: &*bytes, given: 0, offered: 0 };
        assert!(reads(&mut metered).is_err());
        assert_eq!(metered.given, bytes.len());
        assert!(metered.offered <= 1 << 16, "room for {} bytes at once", metered.offered);
        // More than may be, and all of it there: nothing of it is read.
        for length in [most as u64 + 1, u64::from(u32::MAX)] {
            let bytes = announce(u32::try_from(length).expect("a length"));
            let endless = Cursor::new(&bytes).chain(io::repeat(7));
            let mut metered = Metered { from: endless, given: 0, offered: 0 };
            assert!(reads(&mut metered).is_err());
            assert!(metered.given <= bytes.len(), "{} bytes were read", metered.given);
        }
    }
}

/// The number of chunks is believed only as far as they are there.
#[test]
fn a_number_of_chunks_that_is_announced_takes_no_time_and_no_memory() {
    let (one, _) = two_backups();
    let mut few = one.clone();
    few.chunks.clear();
    let bytes = few.bytes();
    let body = &bytes[..bytes.len() - 32 - 4];
    let mut bytes = body.to_vec();
    bytes.extend(u32::MAX.to_le_bytes());
    assert!(reads(&*sealed(bytes)).is_err());
    assert!(reads(&*few.bytes()).expect_err("no chunks").contains("chunk 0 is missing"));
}
