//! A state of the model: machines, letters under way, and what the checkers remember.
//!
//! Nothing in here is ordered by time. Of two situations that print the same, every replica behaves
//! the same for ever, the same letters are under way, and correct replicas have signed the same
//! things; that is all that the rules are about, so one of the two need not be explored. Counters
//! and the order in which things came about are not part of it.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use elea_protocol::id::ReplicaId;
use elea_protocol::message::{Message, ToClient};
use elea_protocol::replica::{Event, Mark, Setup, Target};

use super::answers::Answers;
use super::cast::Cast;
use super::letter::{Letter, Place, Step, Words, blend, print_of};
use super::machine::Machine;
use crate::check::Checker;
use crate::disk::Synced;
use crate::inspect::Lens;
use crate::node::Outbound;
use crate::violation::{Violation, demand};

/// A state of the model. A copy is cheap: what a step does not touch is shared.
#[derive(Clone)]
pub struct Situation {
    /// The machines, by their indices.
    pub machines: Vec<Arc<Machine>>,
    /// Letters under way, oldest first. They arrive in any order, or never.
    pub flying: Vec<Arc<Letter>>,
    /// The simulator's checkers.
    pub checker: Arc<Checker>,
    /// What clients could have been told.
    pub answers: Arc<Answers>,
    /// The rule that is broken, if one is. Nothing happens after that.
    pub broken: Option<Violation>,
    /// The prints of all letters and replies ever sent.
    sent: Arc<BTreeSet<u64>>,
    print: u64,
}

impl PartialEq for Situation {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Hash for Situation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.print);
    }
}

impl fmt::Debug for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for machine in &self.machines {
            let (core, head) = (&machine.core, machine.core.head());
            let lock = core.lock().map(elea_protocol::message::CommitCertificate::rank);
            write!(f, "{} in {} head {} {:?}", machine.id, core.entered(), head.slot, head.hash)?;
            write!(f, " lock {lock:?} stable {}; ", core.stable())?;
        }
        write!(f, "{} letters under way", self.flying.len())
    }
}

impl Situation {
    /// Nothing has happened, and the clients' requests are under way.
    ///
    /// # Errors
    /// A replica does not start.
    pub fn new(cast: &Cast) -> Result<Self, Violation> {
        let mut situation = Self {
            machines: cast
                .places
                .iter()
                .map(|place| cast.machine(*place))
                .collect::<Result<_, _>>()?,
            flying: Vec::new(),
            checker: Arc::new(cast.checker()),
            answers: Arc::default(),
            broken: None,
            sent: Arc::default(),
            print: 0,
        };
        for (request, reached) in &cast.requests {
            let words = Arc::new(Words::Request(request.clone()));
            let print = print_of(&*words);
            for index in reached.iter() {
                situation.send(Letter::new(cast.places[*index], words.clone(), print));
            }
        }
        situation.imprint();
        Ok(situation)
    }

    /// The machines of correct replicas.
    pub fn correct(&self, cast: &Cast) -> impl Iterator<Item = &Machine> {
        let liars = &cast.liars;
        self.machines.iter().map(|machine| &**machine).filter(|one| !liars.contains(&one.id))
    }

    /// What comes of a step; `None` where nothing does. A letter that changes nothing stays under
    /// way: as long as it changes nothing it makes no difference when it arrives.
    #[must_use]
    pub fn after(&self, cast: &Cast, step: &Step) -> Option<Self> {
        let mut next = self.clone();
        match next.take(cast, step) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(violation) => next.broken = Some(violation),
        }
        next.imprint();
        Some(next)
    }

    /// The same, and a letter less is under way.
    #[must_use]
    pub fn without(&self, letter: &Letter) -> Self {
        let mut next = self.clone();
        next.flying.retain(|other| other.print != letter.print);
        next.imprint();
        next
    }

    fn take(&mut self, cast: &Cast, step: &Step) -> Result<bool, Violation> {
        match step {
            Step::Deliver(letter) => {
                let Some(event) = cast.open(letter)? else { return Ok(false) };
                self.flying.retain(|other| other.print != letter.print);
                self.hand(cast, letter.to, event)
            }
            Step::Tick(place) => {
                Arc::make_mut(&mut self.machines[place.index]).pass_time();
                self.hand(cast, *place, Event::Tick)?;
                Ok(true)
            }
            Step::Leave(place) => {
                Arc::make_mut(&mut self.machines[place.index]).leaves += 1;
                self.hand(cast, *place, Event::Leave)?;
                Ok(true)
            }
            Step::Restart(place) => {
                self.start_again(cast, *place, Machine::restart)?;
                Ok(true)
            }
            Step::Fall(letter) => {
                let Some(event) = cast.open(letter)? else { return Ok(false) };
                self.flying.retain(|other| other.print != letter.print);
                self.fall(cast, letter.to, event)
            }
        }
    }

    fn start_again(
        &mut self,
        cast: &Cast,
        place: Place,
        start: impl FnOnce(&mut Machine, Setup) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let machine = Arc::make_mut(&mut self.machines[place.index]);
        let setup = cast.setup(place, machine.restarts + 1, &machine.disk);
        start(machine, setup)?;
        machine.imprint();
        if !cast.liars.contains(&place.id) {
            Arc::make_mut(&mut self.checker).crashed(place.id, &machine.disk)?;
            self.look(place)?;
        }
        Ok(())
    }

    /// Hands an event to a machine whose power goes before the next sync. Answers whether anything left before
    /// that: else it is as if the event had never come, and the machine had started again.
    fn fall(&mut self, cast: &Cast, place: Place, event: Event) -> Result<bool, Violation> {
        let machine = Arc::make_mut(&mut self.machines[place.index]);
        let mut held = machine.handle(event)?;
        let synced = machine.disk.synced();
        self.look(place)?;
        if self.release(cast, place, &mut held, synced)? {
            return Ok(false);
        }
        self.start_again(cast, place, Machine::fall)?;
        Ok(true)
    }

    /// Hands an event to a machine, and everything that follows from it there. Answers whether
    /// anything did.
    fn hand(&mut self, cast: &Cast, place: Place, event: Event) -> Result<bool, Violation> {
        let before = self.machines[place.index].print();
        let is_correct = !cast.liars.contains(&place.id);
        let mut held: Vec<(Mark, Outbound)> = Vec::new();
        let mut next = VecDeque::from([event]);
        let mut silent = true;
        while let Some(event) = next.pop_front() {
            let machine = Arc::make_mut(&mut self.machines[place.index]);
            held.extend(machine.handle(event)?);
            if is_correct {
                self.look(place)?;
            }
            // As a driver does: what waits for no sync leaves first.
            let synced = self.machines[place.index].disk.synced();
            silent &= self.release(cast, place, &mut held, synced)?;
            let machine = Arc::make_mut(&mut self.machines[place.index]);
            if let Some(Synced { mark, rows }) = machine.sync()? {
                if is_correct {
                    Arc::make_mut(&mut self.checker).synced(place.id, &machine.disk)?;
                }
                silent &= self.release(cast, place, &mut held, mark)?;
                next.extend(rows.into_iter().map(|(mark, rows)| Event::Rows(mark, rows)));
                next.push_back(Event::Synced(mark));
            }
        }
        let machine = Arc::make_mut(&mut self.machines[place.index]);
        machine.imprint();
        Ok(!silent || machine.print() != before)
    }

    fn look(&mut self, place: Place) -> Result<(), Violation> {
        let machine = Arc::make_mut(&mut self.machines[place.index]);
        let checker = Arc::make_mut(&mut self.checker);
        if checker.look(place.id, &Lens(&machine.core))? {
            let head = machine.core.head();
            let state = machine.core.state_digest();
            checker.histories.state(place.id, head.hash, state)?;
        }
        Ok(())
    }

    /// Lets out what waits for no more than `synced`. Answers whether there was nothing.
    fn release(
        &mut self,
        cast: &Cast,
        place: Place,
        held: &mut Vec<(Mark, Outbound)>,
        synced: Mark,
    ) -> Result<bool, Violation> {
        let ready: Vec<_> = held.extract_if(.., |(after, _)| *after <= synced).collect();
        let silent = ready.is_empty();
        ready.into_iter().try_for_each(|(_, outbound)| self.say(cast, place, outbound))?;
        Ok(silent)
    }

    fn say(&mut self, cast: &Cast, place: Place, outbound: Outbound) -> Result<(), Violation> {
        let id = place.id;
        let is_correct = !cast.liars.contains(&id);
        let disk = &self.machines[place.index].disk;
        match outbound {
            Outbound::Peers(target, message) => {
                let checker = Arc::make_mut(&mut self.checker);
                if is_correct {
                    checker.message_leaves(id, &message, disk)?;
                }
                let to = |other: &Place| match target {
                    Target::Others => other.id != id,
                    Target::One(one) => other.id == one && one != id,
                };
                let echoes = if is_correct { cast.echoes(&message) } else { Vec::new() };
                self.post(cast, id, message, to)?;
                for (liar, echo) in echoes {
                    self.post(cast, liar, echo, |other| !cast.liars.contains(&other.id))?;
                }
            }
            Outbound::Client(_, _, answer) if is_correct => {
                Arc::make_mut(&mut self.checker).answer_leaves(id, &answer, disk)?;
                let ToClient::Replies(replies) = answer else { return Ok(()) };
                let answers = Arc::make_mut(&mut self.answers);
                for signed in &replies {
                    Arc::make_mut(&mut self.sent).insert(print_of(signed));
                    let histories = &self.checker.histories;
                    answers.hear(id, &signed.reply, &cast.liars, cast.strong(), histories)?;
                }
            }
            Outbound::Accusation(evidence) => {
                let culprit = evidence.culprit();
                demand(!is_correct || cast.liars.contains(&culprit), "I7", || {
                    format!("{id} has proof against {culprit}, which is correct: {evidence:?}")
                })?;
            }
            Outbound::Client(..) | Outbound::Raw(..) => {}
        }
        Ok(())
    }

    /// Puts a message under way. The checkers count it at once, as if it had arrived: it can.
    fn post(
        &mut self,
        cast: &Cast,
        from: ReplicaId,
        message: Message,
        to: impl Fn(&Place) -> bool,
    ) -> Result<(), Violation> {
        if matches!(message, Message::Pulse(_)) {
            // How long things take is for the scene to say: time passes here when it wants it to.
            return Ok(());
        }
        if cast.correct().any(&to) {
            Arc::make_mut(&mut self.checker).message_arrives(&message)?;
        }
        let words = Arc::new(Words::Peer(from, Box::new(message)));
        let print = print_of(&*words);
        for place in cast.places.iter().filter(|place| to(place)) {
            self.send(Letter::new(*place, words.clone(), print));
        }
        Ok(())
    }

    fn send(&mut self, letter: Letter) {
        if self.flying.iter().any(|known| known.print == letter.print) {
            return;
        }
        // Where somebody stood once is of no interest to whoever can hear where it stands now.
        self.flying.retain(|known| !known.is_outdated_by(&letter));
        if letter.words.kind() != "status" && !self.sent.contains(&letter.print) {
            Arc::make_mut(&mut self.sent).insert(letter.print);
        }
        self.flying.push(Arc::new(letter));
    }

    /// Opens a scene here: what was done to come here is not counted.
    pub fn reset_counts(&mut self) {
        for machine in self.machines.iter_mut().map(Arc::make_mut) {
            (machine.ticks, machine.restarts, machine.leaves) = (0, 0, 0);
            machine.imprint();
        }
        self.imprint();
    }

    /// Takes the fingerprint anew.
    pub fn imprint(&mut self) {
        let mut flying: Vec<u64> = self.flying.iter().map(|letter| letter.print).collect();
        flying.sort_unstable();
        let sent = self.sent.iter().fold(0, |sum: u64, print| sum.wrapping_add(*print));
        let mut prints: Vec<u64> = self.machines.iter().map(|machine| machine.print()).collect();
        prints.extend(flying);
        prints.extend([sent, u64::from(self.broken.is_some())]);
        self.print = blend(&prints);
    }
}
