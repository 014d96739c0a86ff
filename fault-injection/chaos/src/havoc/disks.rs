//! What a replica must do whose disk is full, or has rotted.

use std::path::Path;

use elea_fault_injection::violation::{Violation, demand};
use elea_protocol::id::ReplicaId;

use super::Havoc;
use crate::disk::{Flip, copy, files, tables_of_rows};
use crate::fleet::{Start, harness};

impl Havoc {
    /// A replica whose disk is full waits, and says nothing that is not on its disk. With room
    /// again it goes on. Where the disk was full before it could know, it stops with a sentence.
    pub(super) async fn room_again(&mut self, who: ReplicaId) -> Result<(), Violation> {
        // The network is whole and clients write, so it has to write, too.
        self.fleet.said(who, "the disk is full", || false).await?;
        if !self.fleet.has_ended(who) {
            self.saw("waited on a full disk");
        }
        if let Some((_, disk)) = &self.means.small {
            disk.empty().map_err(harness("a disk with room"))?;
        }
        // A write that failed half way leaves the store unusable; then the replica starts again by itself, and
        // again as long as there is no room for a start either.
        let began_anew = || has_begun_anew(&self.fleet.log(who));
        self.fleet.said(who, "the disk has room again", began_anew).await?;
        if !self.fleet.has_ended(who) {
            let anew = began_anew();
            self.saw(if anew { "began anew on a full disk" } else { "went on with room again" });
            return Ok(());
        }
        let code = self.fleet.ended(who).await?.code();
        let log = self.fleet.log_end(who);
        demand(code == Some(2) && log.contains("free space"), "disk", || {
            format!("{who} ended with {code:?} on a full disk, and said: {log}")
        })?;
        self.saw("stopped on a full disk");
        self.fleet.start(&[who]).await
    }

    /// Turns a bit in what a replica stored, and starts it on that.
    pub(super) async fn rot(&mut self, who: ReplicaId) -> Result<(), Violation> {
        let sound = self.fleet.path("sound");
        let data = self.fleet.data(who).to_owned();
        // Nothing runs on this folder until it is back as it was: the copy is not an old one.
        copy(&data, &sound).map_err(harness("a copy"))?;
        let tables = tables_of_rows(&data).map_err(harness("the tables"))?;
        let is_of_rows = !tables.is_empty() && self.rng.between(0, 1) == 0;
        let files = if is_of_rows { tables } else { files(&data).map_err(harness("a store"))? };
        let flip = Flip::random(files, &mut self.rng).map_err(harness("a bit"))?;
        self.fleet.spawn(who)?;
        let started = self.fleet.ready(who).await?;
        self.after_flip(who, &flip, &sound, started).await?;
        std::fs::remove_dir_all(&sound).map_err(harness("a copy"))
    }

    /// What a replica must do that was started on a store with a turned bit: refuse with a
    /// sentence, have it repaired by the others where it is in the application's rows, or not have
    /// read it. This is the one place that knows.
    async fn after_flip(
        &mut self,
        who: ReplicaId,
        flip: &Flip,
        sound: &Path,
        started: Start,
    ) -> Result<(), Violation> {
        let data = self.fleet.data(who).to_owned();
        match started {
            Start::Refused(code, log) => {
                let is_said = log.contains("damaged") || log.contains("contradicts itself");
                demand(code == Some(2) && is_said, "disk", || {
                    format!("{who} ended with {code:?} on a damaged store ({flip:?}): {log}")
                })?;
                self.saw("refused a damaged store");
                std::fs::remove_dir_all(&data).map_err(harness("a damaged store"))?;
                copy(sound, &data).map_err(harness("a copy"))?;
            }
            Start::Ready if flip.is_of_rows() => {
                // What is repaired lies in other files.
                let is_gone = || !flip.path.exists();
                self.fleet.said(who, "the quarantine is over", is_gone).await?;
                self.fleet.said(who, "no such words", is_gone).await?;
                let log = self.fleet.log_end(who);
                demand(!self.fleet.has_ended(who), "disk", || {
                    format!("{who} did not outlive damaged rows ({flip:?}): {log}")
                })?;
                let is_told = self.fleet.log(who).contains("damaged");
                self.saw(if is_told {
                    "damaged rows repaired"
                } else {
                    "damaged rows overwritten"
                });
                return Ok(());
            }
            Start::Ready => {
                // Most likely nobody will ever read it. It may also be found while it runs, and it
                // then stops with a sentence. Its folder has new things in it by now, so it keeps
                // it, without the turned bit.
                self.saw("did not read the turned bit");
                self.fleet.kill(&[who]).await?;
                let is_undone = flip.undo().map_err(harness("a bit"))?;
                self.saw(if is_undone { "bit turned back" } else { "bit was overwritten" });
            }
        }
        self.fleet.start(&[who]).await
    }
}

/// Whether a replica whose store failed has started again by itself since.
fn has_begun_anew(log: &str) -> bool {
    let said = ["this is that start", "it is tried again"];
    let last = said.into_iter().filter_map(|said| log.rfind(said)).max();
    last.and_then(|at| log.get(at..)).is_some_and(|since| since.contains("replica started"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_fails_for_want_of_room_is_none() {
        let failed = "replica started\nelea: no space left; it is tried again\n";
        assert!(!has_begun_anew("replica started\n"));
        assert!(!has_begun_anew(failed));
        assert!(!has_begun_anew(&format!("{failed}{failed}")));
        assert!(has_begun_anew(&format!("{failed}replica started\n")));
        assert!(has_begun_anew("elea: half a write; this is that start\nreplica started\n"));
    }
}
