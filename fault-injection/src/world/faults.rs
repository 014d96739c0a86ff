//! What is done to a world: crashes and restarts, lost disks, cuts, and the end of all of it.

use std::collections::btree_map::Entry;

use elea_protocol::replica::{Event, Replica};
use elea_protocol::rows::Unreadable;

use super::{Happening, World};
use crate::network::Machine;
use crate::plan::{Component, Fault};
use crate::subject::Subject;
use crate::violation::Violation;

impl<S: Subject> World<S> {
    /// Does something to the world.
    ///
    /// # Errors
    /// A replica does not start again from its disk.
    pub fn inflict(&mut self, fault: &Fault) -> Result<(), Violation> {
        let words = format!("{fault:?}");
        self.trace.note(self.now, words.as_bytes(), format_args!("{words}"));
        match fault {
            Fault::Crash(machine) => self.crash(*machine)?,
            Fault::Leave(machine) => self.leave(*machine)?,
            Fault::Stop(machine) => {
                self.stopped[machine.index()] = true;
                self.coverage.mark("stopped for good");
                self.crash(*machine)?;
            }
            Fault::LoseDisk(machine) => self.lose_disk(*machine)?,
            Fault::Rot(machine) => {
                self.crash(*machine)?;
                if self.nodes[machine.index()].rot() {
                    self.coverage.mark("stored state spoilt");
                }
            }
            Fault::Scrub(machine) => {
                let node = &mut self.nodes[machine.index()];
                if node.core.is_some() && node.rot() {
                    self.coverage.mark("spoilt state found while running");
                    self.scrub(*machine)?;
                }
            }
            Fault::FillDisk(machine) => self.set_full(*machine, true)?,
            Fault::MakeRoom(machine) => self.set_full(*machine, false)?,
            Fault::CrashFetching { machine, pieces, down } => {
                self.ambushes.insert(*machine, (*pieces, *down));
            }
            Fault::Restart(machine) => self.restart(*machine)?,
            Fault::Blackout => {
                self.coverage.mark("crash of all");
                for machine in self.plan.machines() {
                    self.crash(machine)?;
                }
            }
            Fault::Split(cuts) => {
                self.coverage.mark("cut");
                self.network.split(cuts);
            }
            Fault::Join => self.network.join(),
            Fault::Lists { machine, without } => {
                self.crash(*machine)?;
                self.unlisted.retain(|(of, _)| of != machine);
                self.unlisted.extend(without.iter().map(|client| (*machine, *client)));
                let membership = self.listing(without);
                self.nodes[machine.index()].list_clients(membership);
                self.restart(*machine)?;
            }
            Fault::Update { machine, editions } => {
                self.coverage.mark("program updated");
                self.crash(*machine)?;
                self.nodes[machine.index()].editions = *editions;
                self.restart(*machine)?;
            }
            Fault::SetClock { machine, skew, rate } => {
                self.coverage.mark("clock set");
                if *rate != 1000 {
                    self.coverage.mark("clock at another speed");
                }
                self.nodes[machine.index()].clock.set(self.now, *skew, *rate);
            }
        }
        Ok(())
    }

    fn set_full(&mut self, machine: Machine, is_full: bool) -> Result<(), Violation> {
        let node = &mut self.nodes[machine.index()];
        if std::mem::replace(&mut node.is_full, is_full) == is_full {
            return Ok(());
        }
        if is_full {
            self.coverage.mark("disk full");
        }
        if self.nodes[machine.index()].core.is_none() {
            return Ok(());
        }
        self.hand(machine, Event::DiskFull(is_full))
    }

    /// The driver of a replica that runs finds that the stored state is not what was written.
    ///
    /// # Errors
    /// What comes of it breaks a rule.
    pub fn scrub(&mut self, machine: Machine) -> Result<(), Violation> {
        if self.nodes[machine.index()].core.is_none() {
            return Ok(());
        }
        self.hand(machine, Event::Unreadable(Unreadable("scrubbed".to_owned())))
    }

    fn crash(&mut self, machine: Machine) -> Result<(), Violation> {
        let node = &mut self.nodes[machine.index()];
        if node.core.is_none() {
            return Ok(());
        }
        if node.core.as_ref().is_some_and(Replica::has_left) {
            self.coverage.mark("stopped when it had left");
        }
        let loss = node.crash()?;
        if node.is_correct() {
            self.checker.crashed(node.id, &node.disk)?;
            if self.checker.has_forgotten_an_order(node.id, &node.disk) {
                self.coverage.mark("order forgotten");
            }
        }
        self.wakes.remove(&machine.party());
        self.coverage.mark("crash");
        if loss.records > 0 {
            self.coverage.mark("crash with lost records");
        }
        if loss.is_torn {
            self.coverage.mark("torn write");
        }
        Ok(())
    }

    /// Whoever runs a replica is going to stop it.
    fn leave(&mut self, machine: Machine) -> Result<(), Violation> {
        if self.nodes[machine.index()].core.is_none() {
            return Ok(());
        }
        self.coverage.mark("told to leave");
        self.hand(machine, Event::Leave)
    }

    fn lose_disk(&mut self, machine: Machine) -> Result<(), Violation> {
        self.crash(machine)?;
        let is_known = !self.plan.is_first_start;
        let is_empty = self.founding.is_none();
        self.nodes[machine.index()].lose_disk(is_known);
        self.coverage.mark("disk lost");
        if !is_empty {
            self.coverage.mark("disk lost of a cluster that begins with a state");
        }
        Ok(())
    }

    fn restart(&mut self, machine: Machine) -> Result<(), Violation> {
        let node = &mut self.nodes[machine.index()];
        if node.core.is_some() || self.stopped[machine.index()] {
            return Ok(());
        }
        node.start(self.now)?;
        self.coverage.mark("restart");
        if node.disk.is_at_its_beginning() {
            self.coverage.mark("restart on the state of the beginning");
        }
        let going_on = node.core.as_ref().and_then(Replica::transferring);
        if let Some(pieces) = node.pieces.starts(going_on.map(|progress| progress.slot)) {
            self.coverage.mark("transfer resumed after a crash");
            self.coverage.add("pieces found after a crash", pieces as u64);
        }
        if self.nodes[machine.index()].is_full {
            return self.hand(machine, Event::DiskFull(true));
        }
        self.after_replica(machine, Vec::new())
    }

    /// Ends all faults but those that last for good: nothing is lost any more, cuts end, and what
    /// crashed comes back. Slow links stay slow.
    ///
    /// # Errors
    /// As [`World::inflict`].
    fn mend(&mut self) -> Result<(), Violation> {
        self.network.heal();
        self.ambushes.clear();
        for machine in self.plan.machines() {
            self.set_full(machine, false)?;
            self.restart(machine)?;
        }
        Ok(())
    }

    /// Ends the faults, but leaves the network in parts: this component, and the rest. Its client
    /// asks for more, between now and `until`.
    ///
    /// # Errors
    /// As [`World::inflict`].
    pub fn enclose(&mut self, component: &Component, until: u64) -> Result<(), Violation> {
        self.trace.note(self.now, b"enclose", format_args!("{component:?}"));
        self.mend()?;
        let parties = self.plan.parties();
        let cuts = component.cuts(&parties);
        self.network.split(&cuts);
        let mut loads = vec![0; self.plan.patrons.len()];
        loads[usize::from(component.client)] = component.loads;
        self.schedule_loads(&loads, until);
        Ok(())
    }

    /// Ends the faults. Honest clients ask for more, between now and `until`.
    ///
    /// # Errors
    /// As [`World::inflict`].
    pub fn heal(&mut self, until: u64) -> Result<(), Violation> {
        self.trace.note(self.now, b"heal", format_args!("heal"));
        self.mend()?;
        let loads: Vec<u64> = self.plan.patrons.iter().map(|patron| patron.late_loads).collect();
        self.schedule_loads(&loads, until);
        Ok(())
    }

    /// Keeps account of the states that a replica fetches, and lets it crash if it was to.
    pub(super) fn fetching(&mut self, machine: Machine) -> Result<(), Violation> {
        let node = &mut self.nodes[machine.index()];
        node.pieces.synced(node.disk.synced());
        if node.pieces.has_put_in_place(node.disk.base()) {
            self.coverage.mark("state put in place that a crash interrupted");
        }
        let count = node.pieces.count();
        if let Entry::Occupied(entry) = self.ambushes.entry(machine)
            && count >= entry.get().0
        {
            let (_, down) = entry.remove();
            self.coverage.mark("crash while fetching a state");
            self.crash(machine)?;
            self.push(self.now + down, Happening::Fault(Fault::Restart(machine)));
        }
        Ok(())
    }
}
