//! One replica of the model: the real core with a disk that syncs at once, or not before the power goes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use elea_protocol::id::{Instant, Now, ReplicaId, WallTime};
use elea_protocol::replica::{Event, Mark, Replica, Setup};

use super::letter::{blend, print_of};
use crate::disk::{Disk, Synced};
use crate::journal::Journal;
use crate::node::{EPOCH_MICROS, Outbound};
use crate::rng::Rng;
use crate::violation::Violation;

/// A replica, with everything that belongs to it alone. A copy goes its own way.
#[derive(Clone)]
pub struct Machine {
    /// Which replica.
    pub id: ReplicaId,
    /// The real thing.
    pub core: Replica<Journal>,
    /// What it finds when it starts again.
    pub disk: Disk,
    /// How often time passed on it since the scene opened.
    pub ticks: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// How often it was told that it is going to be stopped.
    pub leaves: u32,
    /// How often what it had just written was lost with that.
    pub falls: u32,
    /// Its own clock, in microseconds: those of different machines have nothing to do with each
    /// other, except that they all stay within the drift allowed.
    clock: u64,
    /// Whether it may start again, so that what is on its disk matters.
    may_restart: bool,
    print: u64,
}

fn now(clock: u64) -> Now {
    Now { instant: Instant(clock), wall: WallTime((EPOCH_MICROS + clock) / 1000) }
}

impl Machine {
    /// A replica that starts for the first time.
    ///
    /// # Errors
    /// It does not start.
    pub fn new(setup: Setup, may_restart: bool) -> Result<Self, Violation> {
        let id = setup.id;
        let disk = Disk::default();
        let core = start(setup, &disk, 0)?;
        let mut machine = Self {
            id,
            core,
            disk,
            ticks: 0,
            restarts: 0,
            leaves: 0,
            falls: 0,
            clock: 0,
            may_restart,
            print: 0,
        };
        machine.imprint();
        Ok(machine)
    }

    /// Its fingerprint, as it was when [`Machine::imprint`] was called last.
    #[must_use]
    pub fn print(&self) -> u64 {
        self.print
    }

    /// Takes the fingerprint anew.
    pub fn imprint(&mut self) {
        let stored = match self.may_restart {
            true => print_of(&(self.disk.recovered(), self.disk.slots())),
            false => 0,
        };
        let counts = [self.ticks, self.restarts, self.leaves].map(u64::from);
        self.print = blend(&[print_of(&self.core), stored, counts[0] << 32 | counts[1], counts[2]]);
    }

    /// Lets its clock go on to its next deadline. The event that follows is a tick.
    pub fn pass_time(&mut self) {
        let deadline = self.core.deadline().map_or(self.clock, |instant| instant.0);
        self.clock = self.clock.max(deadline);
        self.ticks += 1;
    }

    /// Forgets everything that is not on its disk, and starts again.
    ///
    /// # Errors
    /// It does not start from what it wrote itself.
    pub fn restart(&mut self, setup: Setup) -> Result<(), Violation> {
        // Everything is synced between events, or lost: nothing is torn, and no choice is the seed's.
        self.disk.crash(self.id, &mut Rng::new(0))?;
        self.core = start(setup, &self.disk, self.clock)?;
        self.restarts += 1;
        Ok(())
    }

    /// Starts again without what was written since the last sync.
    ///
    /// # Errors
    /// As [`Machine::restart`].
    pub fn fall(&mut self, setup: Setup) -> Result<(), Violation> {
        self.disk.lose_unsynced();
        self.falls += 1;
        self.restart(setup)
    }

    /// Hands an event to the core. Answers what it wants to say, each with what it waits for.
    ///
    /// # Errors
    /// The core breaks its contract with the driver, or one of its own assertions.
    pub fn handle(&mut self, event: Event) -> Result<Vec<(Mark, Outbound)>, Violation> {
        let mut actions = Vec::new();
        let now = now(self.clock);
        // A core that panicked is never used again: the situation is broken, and nothing follows.
        catch_unwind(AssertUnwindSafe(|| self.core.handle(now, event, &mut actions))).map_err(
            |cause| {
                let words = cause.downcast_ref::<String>().cloned();
                let words = words.or(cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let words = words.unwrap_or_default();
                Violation::new("core", format!("{} panics: {words}", self.id))
            },
        )?;
        let mut said = Vec::new();
        for action in actions {
            said.extend(Outbound::of(self.id, action, &mut self.disk)?);
        }
        Ok(said)
    }

    /// Syncs what was written. `None` where there was nothing.
    ///
    /// # Errors
    /// A record contradicts those before it.
    pub fn sync(&mut self) -> Result<Option<Synced>, Violation> {
        match self.disk.begin_sync() {
            None => Ok(None),
            Some(_) => self.disk.finish_sync(self.id).map(Some),
        }
    }
}

fn start(setup: Setup, disk: &Disk, clock: u64) -> Result<Replica<Journal>, Violation> {
    let id = setup.id;
    let slots = disk.slots().into_iter().map(Ok::<_, std::convert::Infallible>);
    Replica::start(setup, Journal::default(), disk.recovered(), slots, now(clock))
        .map_err(|error| Violation::new("restart", format!("{id}: {error}")))
}
