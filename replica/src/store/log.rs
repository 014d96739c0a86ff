//! The log: where a group of records is durable before it is in the tables.
//!
//! A group is written behind the last one, and synced: one write and one sync of one file, whatever the tables
//! are busy with. They follow when they can ([`Applier`](super::applier)), many groups at a time.
//!
//! There are two files, `log-0` and `log-1`, which take turns. When one has [`SIDE_BYTES`] the other one is written
//! from its beginning, as soon as the tables have all that is in it; until then no group is written, so that
//! the log has a bound, and with it what waits in memory. Nothing is made, removed or renamed meanwhile, and a file
//! grows in steps and stays as large. What it grows by is written with zeros, and not only set aside: where the blocks
//! have been written before, a sync has the bytes to write and nothing else, and takes two thirds of the time.
//!
//! ```text
//! frame: "ELG1" | group u64 | length u64 | XXH3 of the payload, u128 | payload
//! ```
//!
//! Numbers are little-endian; the seed of the checksum comes from the genesis, the replica and the group. Groups
//! are numbered without a gap for as long as the store lives. A file is read from its beginning as long as frames are whole and each has the number after the one before: what comes behind that
//! is older, or was never synced. Then the tables are given what they lack. Where a frame is damaged, what was in
//! it and behind it is missed: there is a gap to the other file, or to the number of the last group synced, which
//! stands in a file of its own, the *witness*. That one is not synced: it may lag behind after a power cut,
//! but never lead. Where the operator left it to the system when the disk is written, what a power cut leaves may
//! have holes; then all behind the first is gone.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use elea_protocol::id::{Digest, ReplicaId, Slot};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::StoreError;
use super::error::is_shortage;
use super::layout::{Present, Redo, Space, seal, unseal};
use super::opening::{is_damage, unusable};
use crate::config::Durability;

/// The names of the two files.
const NAMES: [&str; 2] = ["log-0", "log-1"];

/// The file that names the last group synced.
pub(super) const WITNESS: &str = "synced";

/// When a file has so many bytes it is the other one's turn.
pub(super) const SIDE_BYTES: u64 = 32 << 20;

/// A file gets so much room at a time.
const STEP: u64 = 1 << 20;

const MAGIC: [u8; 4] = *b"ELG1";
const HEADER: usize = 4 + 8 + 8 + 16;

/// How far the tables have come.
#[derive(Debug, Default)]
pub(super) struct Taken {
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    /// All groups up to this one are in the tables, and on disk.
    group: u64,
    /// No more has to be: what is left is for the next start.
    is_stopping: bool,
    /// No more will be, and why, if it was a failure.
    over: Option<Result<(), StoreError>>,
}

impl Taken {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here can be left half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn group(&self) -> u64 {
        self.known().group
    }

    pub(super) fn set(&self, group: u64) {
        self.known().group = group;
        self.changed.notify_all();
    }

    /// Nobody writes any more.
    pub(super) fn stop(&self) {
        self.known().is_stopping = true;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.known().is_stopping
    }

    /// Nothing more is taken. Only the first word counts.
    pub(super) fn end(&self, how: Result<(), StoreError>) {
        self.known().over.get_or_insert(how);
        self.changed.notify_all();
    }

    /// Waits until the tables have this group. `Err` where they never will, with why if that is known.
    fn wait_for(&self, group: u64) -> Result<(), Option<StoreError>> {
        let waits = |known: &mut Known| known.group < group && known.over.is_none();
        let known = self.changed.wait_while(self.known(), waits);
        let known = known.unwrap_or_else(PoisonError::into_inner);
        if known.group >= group {
            return Ok(());
        }
        Err(known.over.clone().and_then(Result::err))
    }
}

/// The two files, and the witness beside them.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    sides: [Side; 2],
    /// Which of them is written.
    active: usize,
    /// Where the next frame begins in it.
    end: u64,
    /// The number of the last group.
    pub(super) group: u64,
    /// Frames of others are none.
    seed: u64,
    witness: File,
    durability: Durability,
    pub(super) taken: Arc<Taken>,
    /// Kept from one group to the next.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Side {
    file: File,
    /// How long the file is.
    len: u64,
    /// The last group in it; 0 where all of it is in the tables.
    last: u64,
}

impl Side {
    /// Makes the file as long as this, with zeros.
    fn grow(&mut self, len: u64) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.len))?;
        io::copy(&mut io::repeat(0).take(len.saturating_sub(self.len)), &mut file)?;
        self.len = len;
        Ok(())
    }
}

impl Log {
    /// Opens the log in this folder. Each group that it has above `tables`, the last one that the tables
    /// have, is handed to `take`, in order, with whether it is the last one. When that has answered to the last one
    /// all are on disk there too, so that the log begins anew.
    pub(super) fn open(
        path: &Path,
        (genesis, owner): (&Digest, ReplicaId),
        durability: Durability,
        tables: u64,
        mut take: impl FnMut(Redo, bool) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let open = |name: &str| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path.join(name)).map_err(|error| unusable(path, &error))
        };
        let side = |name: &str| {
            let file = open(name)?;
            let len = file.metadata().map_err(|error| unusable(path, &error))?.len();
            Ok(Side { file, len, last: 0 })
        };
        let mut log = Self {
            path: path.into(),
            sides: [side(NAMES[0])?, side(NAMES[1])?],
            active: 0,
            end: 0,
            group: tables,
            seed: xxh3_64(&[&genesis.0[..], &[owner.0]].concat()),
            witness: open(WITNESS)?,
            durability,
            taken: Arc::default(),
            buffer: Vec::new(),
        };
        log.recover(&mut take)?;
        log.check_witness()?;
        log.taken.set(log.group);
        log.clear().map_err(|error| log.unwritten(&error))?;
        // That they are there must be on disk before what is in them is said to be.
        let folder = File::open(path).and_then(|folder| folder.sync_all());
        folder.map_err(|error| unusable(path, &error))?;
        Ok(log)
    }

    fn damaged(&self, what: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.to_string() }
    }

    /// Why a file could not be read.
    fn unreadable(&self, error: &io::Error) -> StoreError {
        if is_damage(error) { self.damaged(error) } else { unusable(&self.path, error) }
    }

    fn unwritten(&self, error: &io::Error) -> StoreError {
        if is_shortage(error) {
            return unusable(&self.path, error);
        }
        StoreError::WriteFailed { path: self.path.clone(), reason: error.to_string() }
    }

    fn recover(
        &mut self,
        take: &mut impl FnMut(Redo, bool) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut runs: Vec<Frames<'_>> =
            self.sides.iter().map(|side| Frames::new(side, self.seed)).collect();
        // The one with the lower numbers was written before.
        let mut first = Vec::new();
        for run in &mut runs {
            first.push(run.next().map_err(|error| self.unreadable(&error))?);
        }
        let mut all: Vec<_> = first.into_iter().zip(runs).collect();
        all.sort_by_key(|(first, _)| first.as_ref().map(|(group, _)| *group));
        let mut last = self.group;
        let mut waiting: Option<Redo> = None;
        for (first, mut run) in all {
            let mut frame = first;
            while let Some((group, payload)) = frame {
                if group > last + 1 && self.durability == Durability::Sync {
                    let what =
                        format!("its log has group {group}, and none between that and {last}");
                    return Err(self.damaged(what));
                }
                if group > last + 1 {
                    break;
                }
                if group == last + 1 {
                    let redo = decode(&payload);
                    let redo =
                        redo.ok_or_else(|| self.damaged("a group in its log is malformed"))?;
                    last = group;
                    if let Some(redo) = waiting.replace(redo) {
                        take(redo, false)?;
                    }
                }
                frame = run.next().map_err(|error| self.unreadable(&error))?;
            }
        }
        if let Some(redo) = waiting {
            take(redo, true)?;
        }
        self.group = last;
        Ok(())
    }

    /// Begins anew: nothing that was here before can be taken for what follows what is written from now on.
    fn clear(&mut self) -> io::Result<()> {
        for side in self.sides.iter().filter(|side| side.len > 0) {
            side.file.write_all_at(&[0; HEADER], 0)?;
            side.file.sync_data()?;
        }
        Ok(())
    }

    /// Nothing that was synced may be gone.
    fn check_witness(&mut self) -> Result<(), StoreError> {
        let mut stored = Vec::new();
        let read = (&self.witness).read_to_end(&mut stored);
        read.map_err(|error| match is_shortage(&error) {
            true => unusable(&self.path, &error),
            false => self.damaged(error),
        })?;
        // It is empty before the first group, and may be torn after a power cut.
        let synced = unseal::<u64>(WITNESS, &[], &stored).unwrap_or(0);
        if synced > self.group {
            let (group, lost) = (self.group, synced - self.group);
            let what = format!("its log ends after group {group}, and {lost} more were synced");
            return Err(self.damaged(what));
        }
        Ok(())
    }

    /// Notes that the last group is on disk.
    pub(super) fn bear_witness(&mut self) -> io::Result<()> {
        let stored = seal(WITNESS, &[], &self.group).map_err(io::Error::other)?;
        self.witness.seek(SeekFrom::Start(0))?;
        self.witness.write_all(&stored)
    }

    /// Writes the next group. When this returns it is on disk, or, with [`Durability::Os`], in the hands of the
    /// operating system.
    pub(super) fn append(&mut self, redo: &Redo) -> Result<u64, StoreError> {
        if self.end >= SIDE_BYTES {
            self.turn()?;
        }
        let group = self.group + 1;
        self.buffer.clear();
        self.buffer.resize(HEADER, 0);
        encode(redo, &mut self.buffer);
        let (header, payload) = self.buffer.split_at_mut(HEADER);
        header.copy_from_slice(&frame_header(self.seed, group, payload));
        self.write().map_err(|error| self.unwritten(&error))?;
        self.group = group;
        self.end += self.buffer.len() as u64;
        self.sides[self.active].last = group;
        // What only the operating system has may be lost with it, by the operator's choice.
        if self.durability == Durability::Sync {
            self.bear_witness().map_err(|error| self.unwritten(&error))?;
        }
        // One large group is no reason to hold as much memory for good.
        self.buffer.shrink_to(usize::try_from(STEP).unwrap_or(usize::MAX));
        Ok(group)
    }

    fn write(&mut self) -> io::Result<()> {
        let end = self.end + self.buffer.len() as u64;
        let side = &mut self.sides[self.active];
        if end > side.len {
            side.grow(end.next_multiple_of(STEP))?;
        }
        side.file.write_all_at(&self.buffer, self.end)?;
        match self.durability {
            Durability::Sync => side.file.sync_data(),
            Durability::Os => Ok(()),
        }
    }

    /// Goes on at the beginning of the other file.
    fn turn(&mut self) -> Result<(), StoreError> {
        let other = 1 - self.active;
        let waited = self.taken.wait_for(self.sides[other].last);
        let interrupted = || StoreError::Interrupted { path: self.path.clone() };
        waited.map_err(|why| why.unwrap_or_else(interrupted))?;
        // Not as large for good as the largest group that was ever written.
        let side = &mut self.sides[other];
        if side.len > 2 * SIDE_BYTES {
            let cut = side.file.set_len(SIDE_BYTES);
            cut.map_err(|error| unusable(&self.path, &error))?;
            side.len = SIDE_BYTES;
        }
        (self.active, self.end) = (other, 0);
        Ok(())
    }
}

fn frame_header(seed: u64, group: u64, payload: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[4..12].copy_from_slice(&group.to_le_bytes());
    header[12..20].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let sum = xxh3_128_with_seed(payload, seed ^ group);
    header[20..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The frames of one file, from its beginning.
struct Frames<'a> {
    side: &'a Side,
    seed: u64,
    at: u64,
    before: Option<u64>,
}

impl<'a> Frames<'a> {
    fn new(side: &'a Side, seed: u64) -> Self {
        Self { side, seed, at: 0, before: None }
    }

    /// The next group and its number; `None` where no more of them follow.
    fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        let mut header = [0; HEADER];
        let left = self.side.len.saturating_sub(self.at);
        let Some(room) = left.checked_sub(HEADER as u64) else { return Ok(None) };
        self.side.file.read_exact_at(&mut header, self.at)?;
        let number = |range: std::ops::Range<usize>| {
            let bytes = header.get(range).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        let (group, len) = (number(4..12), number(12..20));
        let is_next = self.before.is_none_or(|before| group == before.wrapping_add(1));
        if header[..4] != MAGIC || !is_next || len > room {
            return Ok(None);
        }
        let mut payload = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.side.file.read_exact_at(&mut payload, self.at + HEADER as u64)?;
        if header != frame_header(self.seed, group, &payload) {
            return Ok(None);
        }
        self.at += HEADER as u64 + len;
        self.before = Some(group);
        Ok(Some((group, payload)))
    }
}

const NONE: u64 = u64::MAX;
const GONE: u32 = u32::MAX;

/// The payload: what there is when it is done, then each keyspace that changes, with its keys.
fn encode(redo: &Redo, to: &mut Vec<u8>) {
    let Present { era, base, ground, incoming } = redo.present;
    for number in [era, base.0, ground.unwrap_or(NONE), incoming.unwrap_or(NONE)] {
        to.extend_from_slice(&number.to_le_bytes());
    }
    for (space, changes) in &redo.spaces {
        let (tag, generation) = match space {
            Space::History => (0, 0),
            Space::Meta => (1, 0),
            Space::Aside => (2, 0),
            Space::Orphans => (3, 0),
            Space::State => (4, 0),
            Space::Evidence => (5, 0),
            Space::Rows(generation) => (6, *generation),
        };
        to.push(tag);
        to.extend_from_slice(&generation.to_le_bytes());
        to.extend_from_slice(&narrow(changes.len()).to_le_bytes());
        for (key, change) in changes {
            let value = change.as_deref().unwrap_or_default();
            let len = if change.is_some() { narrow(value.len()) } else { GONE };
            to.extend_from_slice(&narrow(key.len()).to_le_bytes());
            to.extend_from_slice(&len.to_le_bytes());
            to.extend_from_slice(key);
            to.extend_from_slice(value);
        }
    }
}

/// A group is bounded by what may wait for the disk, far below this.
fn narrow(len: usize) -> u32 {
    u32::try_from(len).ok().filter(|len| *len != GONE).expect("I10: a group is small")
}

/// `None` where this is no payload.
fn decode(mut from: &[u8]) -> Option<Redo> {
    let mut number = || -> Option<u64> {
        let (bytes, rest) = from.split_first_chunk()?;
        from = rest;
        Some(u64::from_le_bytes(*bytes))
    };
    let (era, base, ground, incoming) = (number()?, Slot(number()?), number()?, number()?);
    let some = |generation: u64| (generation != NONE).then_some(generation);
    let present = Present { era, base, ground: some(ground), incoming: some(incoming) };
    let mut redo = Redo { present, ..Redo::default() };
    while let Some((tag, rest)) = from.split_first() {
        let (generation, rest) = rest.split_first_chunk()?;
        let space = match (tag, u64::from_le_bytes(*generation)) {
            (0, 0) => Space::History,
            (1, 0) => Space::Meta,
            (2, 0) => Space::Aside,
            (3, 0) => Space::Orphans,
            (4, 0) => Space::State,
            (5, 0) => Space::Evidence,
            (6, generation) => Space::Rows(generation),
            _ => return None,
        };
        let (count, rest) = rest.split_first_chunk()?;
        from = rest;
        for _ in 0..u32::from_le_bytes(*count) {
            let (key_len, rest) = from.split_first_chunk()?;
            let (value_len, rest) = rest.split_first_chunk()?;
            let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
            let value_len = Some(u32::from_le_bytes(*value_len)).filter(|len| *len != GONE);
            let (value, rest) = rest.split_at_checked(value_len.unwrap_or(0) as usize)?;
            from = rest;
            let change = value_len.map(|_| Bytes::copy_from_slice(value));
            redo.put(space, Bytes::copy_from_slice(key), change);
        }
    }
    Some(redo)
}

#[cfg(test)]
mod tests;
