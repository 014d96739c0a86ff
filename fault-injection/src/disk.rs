//! A replica's disk: what is written, what is on it, and what a crash takes away.
//!
//! Records are encoded when they are written and decoded when they are synced, as a real store
//! would. A sync covers what was written when it began; a crash keeps what was synced and a
//! prefix, chosen by the seed, of what was not.

use std::collections::VecDeque;

use bytes::Bytes;
use elea_protocol::codec;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{Digest, ReplicaId, Slot};
use elea_protocol::message::{
    CheckpointCertificate, CommitCertificate, SLOTS_MAX, SlotEntry, Slots,
};
use elea_protocol::replica::{Mark, Record, Recovered};

use crate::rng::Rng;
use crate::violation::{Violation, demand};

/// See the [module](self).
#[derive(Default)]
pub struct Disk {
    slots: Vec<(Digest, SlotEntry)>,
    lock: Option<CommitCertificate>,
    stable: Option<CheckpointCertificate>,
    evidence: Vec<Evidence>,
    unsynced: VecDeque<(Mark, Bytes)>,
    written: Mark,
    synced: Mark,
    syncing: Option<Mark>,
}

impl Disk {
    /// Takes a record of the running replica.
    ///
    /// # Errors
    /// Marks must count up by one, and a record must survive being encoded.
    pub fn append(&mut self, who: ReplicaId, mark: Mark, record: &Record) -> Result<(), Violation> {
        demand(mark.0 == self.written.0 + 1, "marks", || {
            format!("{who} writes mark {} after mark {}", mark.0, self.written.0)
        })?;
        let bytes = codec::encode(record)
            .map_err(|error| Violation::new("records", format!("{who}: {error}")))?;
        self.written = mark;
        self.unsynced.push_back((mark, bytes));
        Ok(())
    }

    /// Begins a sync, if there is something to sync and none is under way. Answers what it covers.
    pub fn begin_sync(&mut self) -> Option<Mark> {
        if self.syncing.is_some() || self.unsynced.is_empty() {
            return None;
        }
        self.syncing = Some(self.written);
        self.syncing
    }

    /// The sync under way is done.
    ///
    /// # Errors
    /// A record does not decode, or leaves a hole in the history.
    pub fn finish_sync(&mut self, who: ReplicaId) -> Result<Mark, Violation> {
        let up_to = self.syncing.take().unwrap_or(self.synced);
        while let Some((mark, bytes)) = self.unsynced.pop_front_if(|(mark, _)| *mark <= up_to) {
            self.apply(who, &bytes)?;
            self.synced = mark;
        }
        Ok(self.synced)
    }

    fn apply(&mut self, who: ReplicaId, bytes: &Bytes) -> Result<(), Violation> {
        let record: Record = codec::decode(bytes)
            .map_err(|error| Violation::new("records", format!("{who}: {error}")))?;
        match record {
            Record::Slot { slot, hash, entry } => {
                let index = usize::try_from(slot.0).unwrap_or(usize::MAX).wrapping_sub(1);
                demand(index <= self.slots.len(), "records", || {
                    format!("{who} writes slot {slot} above {} slots", self.slots.len())
                })?;
                self.slots.truncate(index);
                self.slots.push((hash, entry));
            }
            Record::Lock(certificate) => self.lock = Some(certificate),
            Record::Stable(certificate) => self.stable = Some(certificate),
            Record::Evidence(evidence) => self.evidence.push(evidence),
        }
        Ok(())
    }

    /// The power goes. Answers how many records were lost for good.
    ///
    /// # Errors
    /// As [`Disk::finish_sync`].
    pub fn crash(&mut self, who: ReplicaId, rng: &mut Rng) -> Result<usize, Violation> {
        let kept = rng.between(0, self.unsynced.len() as u64);
        for _ in 0..kept {
            if let Some((_, bytes)) = self.unsynced.pop_front() {
                self.apply(who, &bytes)?;
            }
        }
        let lost = self.unsynced.len();
        self.unsynced.clear();
        (self.written, self.synced, self.syncing) = (Mark::NONE, Mark::NONE, None);
        Ok(lost)
    }

    /// The last mark written.
    #[must_use]
    pub fn written(&self) -> Mark {
        self.written
    }

    /// The last mark on disk.
    #[must_use]
    pub fn synced(&self) -> Mark {
        self.synced
    }

    /// The hash of a slot on disk.
    #[must_use]
    pub fn hash_at(&self, slot: Slot) -> Option<Digest> {
        let index = usize::try_from(slot.0).ok()?.checked_sub(1)?;
        self.slots.get(index).map(|(hash, _)| *hash)
    }

    /// The lock on disk.
    #[must_use]
    pub fn lock(&self) -> Option<&CommitCertificate> {
        self.lock.as_ref()
    }

    /// The stable checkpoint on disk.
    #[must_use]
    pub fn stable(&self) -> Option<&CheckpointCertificate> {
        self.stable.as_ref()
    }

    /// How many slots are on disk.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no slot is on disk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What a replica that starts finds beside the slots.
    #[must_use]
    pub fn recovered(&self) -> Recovered {
        Recovered {
            lock: self.lock.clone(),
            stable: self.stable.clone(),
            evidence: self.evidence.clone(),
        }
    }

    /// The stored slots from slot 1 on.
    #[must_use]
    pub fn slots(&self) -> Vec<(Digest, SlotEntry)> {
        self.slots.clone()
    }

    /// A stretch of the stored history for a peer that asked for it.
    #[must_use]
    pub fn serve(&self, from: Slot) -> Option<Slots> {
        let first = usize::try_from(from.0).ok()?.checked_sub(1)?;
        let entries: Vec<SlotEntry> =
            self.slots.iter().skip(first).take(SLOTS_MAX).map(|(_, entry)| entry.clone()).collect();
        let certificate = self.lock.clone();
        (!entries.is_empty()).then_some(Slots { from, entries, certificate })
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::message::NonDeterminism;

    use super::*;

    const ME: ReplicaId = ReplicaId(0);

    fn slot(slot: u64, hash: u8) -> Record {
        Record::Slot {
            slot: Slot(slot),
            hash: Digest([hash; 32]),
            entry: SlotEntry {
                choices: NonDeterminism::default(),
                requests: Vec::new(),
                order: None,
            },
        }
    }

    #[test]
    fn a_sync_covers_what_was_written_when_it_began() {
        let mut disk = Disk::default();
        disk.append(ME, Mark(1), &slot(1, 1)).expect("in order");
        assert_eq!(disk.begin_sync(), Some(Mark(1)));
        disk.append(ME, Mark(2), &slot(2, 2)).expect("in order");
        assert_eq!(disk.begin_sync(), None, "one at a time");
        assert_eq!(disk.finish_sync(ME), Ok(Mark(1)));
        assert_eq!(disk.len(), 1);
        assert_eq!(disk.begin_sync(), Some(Mark(2)));
    }

    #[test]
    fn a_crash_takes_what_was_not_synced_and_slots_replace_what_is_above_them() {
        let mut disk = Disk::default();
        for n in 1..=3 {
            disk.append(ME, Mark(n), &slot(n, 1)).expect("in order");
        }
        disk.begin_sync();
        disk.finish_sync(ME).expect("sound");
        disk.append(ME, Mark(4), &slot(2, 9)).expect("in order");
        let mut kept_all = false;
        let mut kept_none = false;
        for seed in 0..16 {
            let mut copy = Disk { slots: disk.slots(), ..Disk::default() };
            copy.unsynced.clone_from(&disk.unsynced);
            match copy.crash(ME, &mut Rng::new(seed)).expect("sound") {
                0 => {
                    assert_eq!((copy.len(), copy.hash_at(Slot(2))), (2, Some(Digest([9; 32]))));
                    kept_all = true;
                }
                lost => {
                    assert_eq!((lost, copy.len()), (1, 3));
                    kept_none = true;
                }
            }
        }
        assert!(kept_all && kept_none);
    }

    #[test]
    fn marks_and_slots_that_leave_a_hole_are_found() {
        let mut disk = Disk::default();
        let found = disk.append(ME, Mark(2), &slot(1, 1)).expect_err("a mark left out");
        assert_eq!(found.rule, "marks");
        disk.append(ME, Mark(1), &slot(2, 1)).expect("the mark is right");
        disk.begin_sync();
        assert_eq!(disk.finish_sync(ME).expect_err("a slot left out").rule, "records");
    }
}
