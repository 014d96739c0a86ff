//! The driver of one simulated replica: what the shell does in earnest, and a check on the core.
//!
//! It carries out actions in their order, holds back what rests on records that are not on disk
//! yet, and complains where the core breaks the contract between them: marks count up by one, and
//! nothing waits for a mark that was never written.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::edition::Editions;
use elea_protocol::evidence::Evidence;
use elea_protocol::id::{
    ClientId, Digest, Instant, Life, Now, ReplicaId, SessionId, Slot, WallTime,
};
use elea_protocol::membership::Membership;
use elea_protocol::message::{Message, SlotEntry, Standing, ToClient};
use elea_protocol::replica::{Action, Event, Mark, Record, Replica, Setup, Target};
use elea_protocol::signature::Signer;
use elea_protocol::tuning::Tuning;

use crate::check::Pieces;
use crate::disk::{Disk, Loss, Synced};
use crate::founding::Founding;
use crate::inspect;
use crate::network::{Machine, Party};
use crate::rng::Rng;
use crate::subject::Subject;
use crate::villain::{Deed, Lair, Villain};
use crate::violation::{Violation, demand};

/// Where all wall clocks stand when a world begins, in microseconds since 1970.
pub const EPOCH_MICROS: u64 = 1_700_000_000_000_000;

/// The clocks of one machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// How far the wall clock was off when it was last set, in microseconds.
    pub skew: i64,
    /// When that was.
    pub set_at: u64,
    /// How fast it runs, in thousandths.
    pub rate: u32,
    /// What the monotonic clock shows when the world begins.
    pub start: u64,
}

impl Clock {
    /// One that is off by so much when the world begins, and runs as it should.
    #[must_use]
    pub fn off_by(skew: i64, start: u64) -> Self {
        Self { skew, set_at: 0, rate: 1000, start }
    }

    /// Somebody sets the wall clock, and makes it run at this rate from then on.
    pub fn set(&mut self, time: u64, skew: i64, rate: u32) {
        (self.skew, self.set_at, self.rate) = (skew, time, rate);
    }

    /// What it shows at `time` of the world.
    #[must_use]
    pub fn at(&self, time: u64) -> Now {
        let gone = time.saturating_sub(self.set_at) * u64::from(self.rate) / 1000;
        let wall = (EPOCH_MICROS + self.set_at + gone).saturating_add_signed(self.skew) / 1000;
        Now { instant: Instant(self.start + time), wall: WallTime(wall) }
    }

    /// When it shows `instant`.
    #[must_use]
    pub fn when(&self, instant: Instant) -> u64 {
        instant.0.saturating_sub(self.start)
    }
}

/// Something on its way out of a replica.
#[derive(Clone, Debug)]
pub enum Outbound {
    /// To all other replicas or one of them.
    Peers(Target, Message),
    /// To a client.
    Client(ClientId, Option<SessionId>, ToClient),
    /// A villain's own bytes.
    Raw(Party, Bytes),
    /// A proof, for the operator.
    Accusation(Evidence),
}

impl Outbound {
    /// Carries out an action of replica `who`: a record is written to its disk, and everything else
    /// is answered, with the record that must be on the disk before it may leave.
    ///
    /// # Errors
    /// The core breaks its contract with the driver: it miscounts its records, or waits for one that
    /// it never wrote.
    pub fn of(
        who: ReplicaId,
        action: Action,
        disk: &mut Disk,
    ) -> Result<Option<(Mark, Self)>, Violation> {
        let (after, outbound) = match action {
            Action::Append { mark, record } => {
                disk.append(who, mark, &record)?;
                return Ok(None);
            }
            Action::Send { to, message, after } => (after, Self::Peers(to, message)),
            Action::Answer { client, session, message, after } => {
                (after, Self::Client(client, session, message))
            }
            Action::Accuse(evidence) => (Mark::NONE, Self::Accusation(evidence)),
        };
        demand(after <= disk.written(), "marks", || {
            format!("{who} waits for mark {}, which it never wrote", after.0)
        })?;
        Ok(Some((after, outbound)))
    }
}

/// Everything that a replica needs to be started, again and again.
pub struct Fabric {
    /// Of which cluster.
    pub membership: Arc<Membership>,
    /// Its key.
    pub signer: Arc<dyn Signer>,
    /// Its settings.
    pub tuning: Tuning,
    /// Its clocks.
    pub clock: Clock,
    /// A villain in whose hands it is.
    pub villain: Option<Box<dyn Villain>>,
    /// Whether another machine runs a replica of the same identity.
    pub is_twin: bool,
    /// Whether its disk will be lost.
    pub is_careless: bool,
    /// Whether this is the first start of the cluster, so that it does not know yet whether it may
    /// vote.
    pub is_new: bool,
    /// The state that the cluster begins with, if it does.
    pub founding: Option<Arc<Founding>>,
    /// For its seeds, for what crashes take, and for its villain.
    pub rng: Rng,
}

/// A machine with a replica on it.
pub struct Node<S: Subject> {
    /// Which machine.
    pub machine: Machine,
    /// Which replica it is. Twins share it.
    pub id: ReplicaId,
    /// `None` while it is down.
    pub core: Option<Replica<S::App>>,
    /// Its disk.
    pub disk: Disk,
    /// Its clocks.
    pub clock: Clock,
    /// Whether its disk is full.
    pub is_full: bool,
    /// How often it was started.
    pub incarnation: u64,
    /// What its cores counted before they crashed.
    pub past: Vec<(&'static str, u64)>,
    /// What it fetched of states.
    pub pieces: Pieces,
    founding: Option<Arc<Founding>>,
    membership: Arc<Membership>,
    signer: Arc<dyn Signer>,
    tuning: Tuning,
    /// What its program executes, from the next start on.
    pub editions: Editions,
    villain: Option<Box<dyn Villain>>,
    is_twin: bool,
    is_careless: bool,
    was_voter: bool,
    lair: Lair,
    rng: Rng,
    held: VecDeque<(Mark, Outbound)>,
    /// Slots executed since somebody last looked. Some of them may be in the history no more.
    passing: Vec<(Slot, Digest, SlotEntry)>,
}

impl<S: Subject> Node<S> {
    /// A machine with an empty disk, switched off.
    #[must_use]
    pub fn new(machine: Machine, id: ReplicaId, fabric: Fabric) -> Self {
        let Fabric {
            membership,
            signer,
            tuning,
            clock,
            villain,
            is_twin,
            is_careless,
            is_new,
            founding,
            mut rng,
        } = fabric;
        let lair = Lair {
            id,
            membership: membership.clone(),
            signer: signer.clone(),
            rng: rng.fork(),
            now: clock.at(0),
        };
        let disk =
            if is_new { Disk::made(id, Standing::New, Life(rng.bytes())) } else { Disk::default() };
        let disk = disk.beginning_with(founding.as_ref().map(|founding| founding.rows.clone()));
        Self {
            machine,
            id,
            core: None,
            disk,
            clock,
            is_full: false,
            incarnation: 0,
            past: Vec::new(),
            pieces: Pieces::default(),
            founding,
            membership,
            signer,
            tuning,
            editions: Editions::with(1..=1),
            villain,
            is_twin,
            is_careless,
            was_voter: false,
            lair,
            rng,
            held: VecDeque::new(),
            passing: Vec::new(),
        }
    }

    /// The cluster as this replica knows it.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// From the next start on it is one of this cluster, with another list of clients.
    pub fn list_clients(&mut self, membership: Arc<Membership>) {
        self.membership = membership.clone();
        self.lair.membership = membership;
    }

    /// Whether no villain has it in hand, nobody else is the same replica, and its disk lasts.
    #[must_use]
    pub fn is_correct(&self) -> bool {
        self.villain.is_none() && !self.is_twin && !self.is_careless
    }

    /// Whether it took part once and lost its disk, so that it must never vote again.
    #[must_use]
    pub fn has_lost_its_vote(&self) -> bool {
        self.was_voter
    }

    /// Somebody takes the disk out and puts an empty one in. With `is_known` there is something
    /// beside the disk that tells of the life before; else the replica has to find out. Where the
    /// cluster begins with a state, that is put on the new disk, as without it nobody starts.
    pub fn lose_disk(&mut self, is_known: bool) {
        self.was_voter |= self.disk.standing() == Standing::Voter;
        let standing = if is_known { Standing::Observer } else { Standing::New };
        let initial = self.founding.as_ref().map(|founding| founding.rows.clone());
        self.disk = Disk::made(self.id, standing, Life(self.rng.bytes())).beginning_with(initial);
        self.pieces = Pieces::default();
    }

    /// A row of the stored state is spoilt, if there is one. Answers whether there is.
    pub fn rot(&mut self) -> bool {
        self.disk.rot(&mut self.rng)
    }

    /// Whether it is one of two machines of one replica.
    #[must_use]
    pub fn is_twin(&self) -> bool {
        self.is_twin
    }

    /// The villain's name.
    #[must_use]
    pub fn villain(&self) -> Option<&'static str> {
        self.villain.as_ref().map(|villain| villain.name())
    }

    /// Starts the replica from its disk.
    ///
    /// # Errors
    /// It does not start from what it wrote itself.
    pub fn start(&mut self, time: u64) -> Result<(), Violation> {
        let in_bad_memory = self.villain.as_ref().is_some_and(|villain| villain.has_bad_memory());
        let setup = Setup {
            id: self.id,
            membership: self.membership.clone(),
            signer: self.signer.clone(),
            tuning: self.tuning,
            editions: self.editions,
            seed: self.rng.bytes(),
        };
        let slots = self.disk.slots().into_iter().map(Ok::<_, std::convert::Infallible>);
        let core = Replica::start(
            setup,
            S::application(in_bad_memory),
            self.disk.recovered(),
            slots,
            self.clock.at(time),
        )
        .map_err(|error| Violation::new("restart", format!("{}: {error}", self.id)))?;
        self.core = Some(core);
        self.incarnation += 1;
        Ok(())
    }

    /// The power goes. Answers what it cost.
    ///
    /// # Errors
    /// As [`Disk::crash`].
    pub fn crash(&mut self) -> Result<Loss, Violation> {
        self.note_counters();
        self.core = None;
        self.held.clear();
        let loss = self.disk.crash(self.id, &mut self.rng)?;
        self.pieces.crashes(self.disk.fetching());
        Ok(loss)
    }

    /// What its cores counted under this name, those included that crashed.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        let present = self.core.as_ref().map(inspect::counters).unwrap_or_default();
        let all = present.into_iter().chain(self.past.iter().copied());
        all.filter(|(known, _)| *known == name).map(|(_, count)| count).sum()
    }

    fn note_counters(&mut self) {
        let Some(core) = &self.core else { return };
        for (name, count) in inspect::counters(core) {
            match self.past.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += count,
                None => self.past.push((name, count)),
            }
        }
    }

    /// The slots executed since this was last asked for.
    pub fn take_passing(&mut self) -> Vec<(Slot, Digest, SlotEntry)> {
        std::mem::take(&mut self.passing)
    }

    /// When it wants to be woken, in the world's time.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let of_core = self.core.as_ref()?.deadline();
        let of_villain = self.villain.as_ref().and_then(|villain| villain.wakes());
        of_core.into_iter().chain(of_villain).min().map(|instant| self.clock.when(instant))
    }

    /// Hands an event to the replica and answers what leaves the machine now.
    ///
    /// # Errors
    /// The core breaks its contract with the driver.
    pub fn handle(&mut self, time: u64, event: Event) -> Result<Vec<Outbound>, Violation> {
        let mut released = Vec::new();
        let Some(core) = &mut self.core else { return Ok(released) };
        let now = self.clock.at(time);
        let mut actions = Vec::new();
        let Some(villain) = &mut self.villain else {
            self.pieces.fetches(core.transferring().map(|progress| progress.slot));
            self.pieces.arrives(&event);
            core.handle(now, event, &mut actions);
            for action in actions {
                self.carry_out(action, &mut released)?;
            }
            return Ok(released);
        };
        self.lair.now = now;
        let (mut events, mut deeds) = (Vec::new(), Vec::new());
        villain.hears(&mut self.lair, event, &mut events);
        for event in events {
            core.handle(now, event, &mut actions);
        }
        for action in actions {
            villain.does(&mut self.lair, action, &mut deeds);
        }
        villain.stirs(&mut self.lair, &mut deeds);
        for deed in deeds {
            match deed {
                Deed::Act(action) => self.carry_out(action, &mut released)?,
                Deed::Whisper { to, bytes } => released.push(Outbound::Raw(to, bytes)),
            }
        }
        Ok(released)
    }

    fn carry_out(&mut self, action: Action, released: &mut Vec<Outbound>) -> Result<(), Violation> {
        if let Action::Append { mark, record } = &action {
            if let Record::Slot { slot, hash, entry } = record {
                self.passing.push((*slot, *hash, entry.clone()));
            }
            self.pieces.writes(*mark, record);
        }
        let Some((after, outbound)) = Outbound::of(self.id, action, &mut self.disk)? else {
            return Ok(());
        };
        if after <= self.disk.synced() {
            released.push(outbound);
        } else {
            self.held.push_back((after, outbound));
        }
        Ok(())
    }

    /// A sync is done: answers what it lets out, in order, and what the core says to it.
    ///
    /// # Errors
    /// As [`Disk::finish_sync`] and [`Node::handle`].
    pub fn synced(&mut self, time: u64) -> Result<Vec<Outbound>, Violation> {
        let Synced { mark, rows } = self.disk.finish_sync(self.id)?;
        let (out, held) = self.held.drain(..).partition(|(after, _)| *after <= mark);
        self.held = held;
        let out: VecDeque<(Mark, Outbound)> = out;
        let mut released: Vec<Outbound> = out.into_iter().map(|(_, outbound)| outbound).collect();
        for (mark, rows) in rows {
            released.extend(self.handle(time, Event::Rows(mark, rows))?);
        }
        released.extend(self.handle(time, Event::Synced(mark))?);
        Ok(released)
    }

    /// Messages held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}
