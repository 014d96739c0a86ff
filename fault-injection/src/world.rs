//! One simulated world: replicas, disks, clients and the network between them, under one clock.
//!
//! A world is a queue of happenings, ordered by time and, within a time, by when they were put
//! there. All randomness comes from the plan's seed. After every happening the checkers look at
//! what it changed.

mod copies;
mod faults;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{decode, encode};
use elea_protocol::id::{ClientId, ReplicaId, SessionId, Slot};
use elea_protocol::membership::Membership;
use elea_protocol::message::{DiskHealth, Message, ToClient, ToReplica, Transport};
use elea_protocol::replica::{Driver, Event, Target};

use self::copies::Copied;
use crate::check::{Bounds, Checker, standing};
use crate::client_side::Clients;
use crate::coverage::Coverage;
use crate::founding::Founding;
use crate::inspect::{self, Lens};
use crate::keys::Keyring;
use crate::network::{Machine, Network, Party};
use crate::node::{Clock, Fabric, Node, Outbound};
use crate::patron::{Patron, Wants};
use crate::plan::{Fault, Plan};
use crate::rng::Rng;
use crate::subject::Subject;
use crate::trace::Trace;
use crate::villain::{self, Puppet};
use crate::violation::{Violation, demand};

/// More happenings than this mean that a world runs away.
const STEPS_MAX: u64 = 1_000_000;

/// How long a turn of long work takes.
const TURN: u64 = 500;

/// Makes the randomness for the state that a cluster begins with another one than that of the rest.
const FOUNDING: u64 = 0x0000_0f0d_0000;

/// A replica that is woken so often without time going by never sleeps again.
const SPIN_MAX: u32 = 10_000;

enum Happening {
    /// Bytes arrive.
    Arrival { from: Party, to: Party, bytes: Bytes, kind: &'static str },
    /// A replica's deadline.
    Wake { machine: Machine, token: u64 },
    /// A sync of this incarnation is done.
    Synced { machine: Machine, incarnation: u64 },
    /// A client process' deadline.
    ClientWake { index: u16, token: u64 },
    /// An honest client submits something.
    Load { index: u16 },
    /// A hostile client does something.
    Attack { index: u16 },
    /// From the plan.
    Fault(Fault),
}

struct Scheduled {
    at: u64,
    sequence: u64,
    happening: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// See the [module](self).
pub struct World<S: Subject> {
    /// What it was made from.
    pub plan: Plan,
    /// The cluster.
    pub membership: Arc<Membership>,
    /// The machines: one for each replica, by their ids, and then the twins.
    pub nodes: Vec<Node<S>>,
    /// The links.
    pub network: Network,
    /// The checkers.
    pub checker: Checker,
    /// What was seen.
    pub coverage: Coverage,
    /// What happened.
    pub trace: Trace,
    /// Everybody who is not a replica.
    pub clients: Clients,
    /// The state that the cluster begins with, if it does.
    pub founding: Option<Arc<Founding>>,
    /// Which machines do not list which clients.
    unlisted: BTreeSet<(Machine, u16)>,
    /// Who is to crash while it fetches a state: when so many pieces are there, and for how long.
    ambushes: BTreeMap<Machine, (usize, u64)>,
    /// What somebody makes a backup of, by the replica that it is copied from.
    copies: BTreeMap<Machine, Copied<S::App>>,
    now: u64,
    steps: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    wakes: BTreeMap<Party, (u64, u64)>,
    spins: (u64, u32),
    loads_left: u64,
    stopped: Vec<bool>,
    rng: Rng,
}

impl<S: Subject> World<S> {
    /// A world of this plan, at its beginning.
    ///
    /// # Errors
    /// A replica does not start.
    ///
    /// # Panics
    /// Where the plan is not one that can be: it names a villain that does not exist, say.
    pub fn new(plan: Plan, verbose: bool) -> Result<Self, Violation> {
        let mut rng = Rng::new(plan.seed ^ 0x00e1_ea00);
        let replicas = usize::from(plan.size.replicas());
        let parties = plan.patrons.len() + plan.hostiles.len();
        let keys = Keyring::new(&mut rng, replicas, parties, plan.real_signatures);
        let membership = Membership::new(
            "simulated",
            plan.size.faulty(),
            keys.replica_keys(),
            None,
            keys.scheme.clone(),
        )
        .expect("a plan makes a sound cluster");
        // Of its own randomness, so that the others' is what it is without a state.
        let founding = plan
            .begins_with_state
            .then(|| Arc::new(Founding::of::<S>(Rng::new(plan.seed ^ FOUNDING))));
        let membership = Arc::new(match &founding {
            Some(founding) => membership.beginning_with(founding.digest),
            None => membership,
        });
        plan.tuning.check().expect("a plan has sound settings");
        let nodes = machines(&plan, &membership, &keys, founding.as_ref(), &mut rng);
        let mut network = Network::new(plan.link, rng.fork());
        for (from, to, link) in &plan.special {
            network.set(*from, *to, *link);
        }
        for (from, to) in &plan.walls {
            network.wall(*from, *to);
        }
        network.late_orders = plan.late_orders;
        let clients = Clients::new(&plan, &membership, &keys, &mut rng);
        let bounds = Bounds::new(&plan.tuning, plan.size, parties.max(1));
        let honest = clients.patrons.iter().map(Patron::id).collect();
        let mut world = Self {
            checker: Checker::new(
                membership.clone(),
                honest,
                plan.tuning.rules.max_sessions,
                bounds,
            ),
            coverage: Coverage::default(),
            trace: Trace::new(verbose),
            now: 0,
            steps: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            wakes: BTreeMap::new(),
            spins: (0, 0),
            loads_left: 0,
            stopped: vec![false; nodes.len()],
            rng,
            plan,
            membership,
            nodes,
            network,
            clients,
            founding,
            ambushes: BTreeMap::new(),
            copies: BTreeMap::new(),
            unlisted: BTreeSet::new(),
        };
        if world.plan.lists_clients {
            let membership = world.listing(&[]);
            world.nodes.iter_mut().for_each(|node| node.list_clients(membership.clone()));
        }
        world.begin()?;
        Ok(world)
    }

    /// The cluster, with a list of all clients but these.
    fn listing(&self, without: &[u16]) -> Arc<Membership> {
        let clients = self.plan.patrons.len() + self.plan.hostiles.len();
        let clients = (0..u16::try_from(clients).expect("few clients"))
            .filter(|client| !without.contains(client))
            .map(|client| self.clients.id_of(client));
        Arc::new(self.membership.listing(clients.collect()))
    }

    fn begin(&mut self) -> Result<(), Violation> {
        for machine in self.plan.machines() {
            self.nodes[machine.index()].start(0)?;
            self.after_replica(machine, Vec::new())?;
        }
        for (at, fault) in self.plan.faults.clone() {
            self.push(at, Happening::Fault(fault));
        }
        if self.plan.heal_at != u64::MAX {
            let until = self.plan.heal_at;
            let loads: Vec<u64> = self.plan.patrons.iter().map(|patron| patron.loads).collect();
            self.schedule_loads(&loads, until);
            for index in 0..u16::try_from(self.plan.hostiles.len()).expect("few clients") {
                for _ in 0..self.rng.between(3, 12) {
                    let at = self.rng.between(0, until);
                    self.push(at, Happening::Attack { index });
                }
            }
        }
        self.mark_plan();
        Ok(())
    }

    /// So many loads of each honest client, from now on and before `until`.
    fn schedule_loads(&mut self, loads: &[u64], until: u64) {
        for (index, count) in loads.iter().enumerate() {
            let index = u16::try_from(index).expect("few clients");
            for _ in 0..*count {
                let at = self.rng.between(self.now, until);
                self.loads_left += 1;
                self.push(at, Happening::Load { index });
            }
        }
    }

    /// A load of each honest client every `pause`, from now on and before `until`.
    pub fn load_evenly(&mut self, until: u64, pause: u64) {
        for index in 0..u16::try_from(self.plan.patrons.len()).expect("few clients") {
            let mut at = self.now;
            while at < until {
                self.loads_left += 1;
                self.push(at, Happening::Load { index });
                at += pause;
            }
        }
    }

    fn mark_plan(&mut self) {
        if self.plan.is_first_start {
            self.coverage.mark("first start");
        }
        if self.plan.begins_with_state {
            self.coverage.mark("cluster begins with a state");
        }
        if self.plan.real_signatures {
            self.coverage.mark("real signatures");
        }
        let drift = i64::try_from(self.plan.tuning.max_clock_drift_ms).unwrap_or(i64::MAX) * 1000;
        if self.plan.skews.iter().any(|skew| skew.abs() > drift) {
            self.coverage.mark("clock beyond drift");
        }
        for (_, name) in &self.plan.villains {
            self.coverage.mark(&format!("villain {name}"));
        }
        for kind in &self.plan.hostiles {
            self.coverage.mark(&format!("hostile {kind}"));
        }
        for _ in &self.plan.twins {
            self.coverage.mark("twins");
        }
        for shape in &self.plan.shapes {
            self.coverage.mark(shape);
        }
    }

    /// The world's time, in microseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// How many happenings there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Loads of honest clients that are still to come.
    #[must_use]
    pub fn loads_left(&self) -> u64 {
        self.loads_left
    }

    /// The first machine of a replica.
    #[must_use]
    pub fn node(&self, id: ReplicaId) -> &Node<S> {
        &self.nodes[usize::from(id.0)]
    }

    /// All machines of a replica.
    fn machines_of(&self, id: ReplicaId) -> impl Iterator<Item = Machine> + use<S> {
        let machines: Vec<Machine> =
            self.nodes.iter().filter(|node| node.id == id).map(|node| node.machine).collect();
        machines.into_iter()
    }

    /// Correct replicas that are up.
    pub fn correct(&self) -> impl Iterator<Item = &Node<S>> {
        self.nodes.iter().filter(|node| node.is_correct() && node.core.is_some())
    }

    /// Replicas that lost their vote with their disk, and are up.
    pub fn observers(&self) -> impl Iterator<Item = &Node<S>> {
        let lost = |node: &&Node<S>| node.has_lost_its_vote() && node.villain().is_none();
        self.nodes.iter().filter(lost).filter(|node| node.core.is_some())
    }

    fn push(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        let scheduled = Scheduled { at: at.max(self.now), sequence: self.sequence, happening };
        self.queue.push(Reverse(scheduled));
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(scheduled)| scheduled.at)
    }

    /// Lets time go by without anything happening.
    pub fn pass_until(&mut self, time: u64) {
        self.now = self.now.max(time);
    }

    /// The next thing happens. Answers `false` where nothing is left.
    ///
    /// # Errors
    /// A rule is broken.
    pub fn step(&mut self) -> Result<bool, Violation> {
        let Some(Reverse(scheduled)) = self.queue.pop() else { return Ok(false) };
        self.now = scheduled.at;
        self.steps += 1;
        demand(self.steps < STEPS_MAX, "liveness", || {
            format!("{STEPS_MAX} steps and no end: somebody talks too much")
        })?;
        match scheduled.happening {
            Happening::Arrival { from, to, bytes, kind } => self.arrive(from, to, &bytes, kind)?,
            Happening::Wake { machine, token } => {
                if self.is_current(machine.party(), token) {
                    self.guard_against_spinning(machine)?;
                    self.hand(machine, Event::Tick)?;
                }
            }
            Happening::Synced { machine, incarnation } => self.synced(machine, incarnation)?,
            Happening::ClientWake { index, token } => {
                if self.is_current(Party::Client(index), token) {
                    let wants = self.clients.wake(index, self.now)?;
                    self.after_client(index, wants)?;
                }
            }
            Happening::Load { index } => {
                self.loads_left -= 1;
                let wants = self.clients.load::<S>(index, self.now)?;
                self.after_client(index, wants)?;
            }
            Happening::Attack { index } => {
                for (party, to, bytes) in self.clients.attack(index) {
                    self.coverage.mark("attack");
                    for machine in self.machines_of(ReplicaId(to)) {
                        self.transmit(party, machine.party(), &bytes, "request");
                    }
                }
            }
            Happening::Fault(fault) => self.inflict(&fault)?,
        }
        Ok(true)
    }

    fn is_current(&mut self, party: Party, token: u64) -> bool {
        let current = self.wakes.get(&party).is_some_and(|(_, known)| *known == token);
        if current {
            self.wakes.remove(&party);
        }
        current
    }

    fn guard_against_spinning(&mut self, machine: Machine) -> Result<(), Violation> {
        self.spins =
            if self.spins.0 == self.now { (self.now, self.spins.1 + 1) } else { (self.now, 0) };
        demand(self.spins.1 < SPIN_MAX, "liveness", || {
            format!("{} wants to be woken again and again at one time", machine.party())
        })
    }

    fn arm(&mut self, party: Party, wake_at: Option<u64>) {
        let Some(at) = wake_at.map(|at| at.max(self.now)) else { return };
        if self.wakes.get(&party).is_some_and(|(known, _)| *known <= at) {
            return;
        }
        let token = self.sequence + 1;
        self.wakes.insert(party, (at, token));
        self.push(
            at,
            match party {
                Party::Replica(id) => Happening::Wake { machine: Machine(id), token },
                Party::Client(index) => Happening::ClientWake { index, token },
            },
        );
    }

    // ---- replicas ----

    fn hand(&mut self, machine: Machine, event: Event) -> Result<(), Violation> {
        let released = self.nodes[machine.index()].handle(self.now, event)?;
        self.after_replica(machine, released)
    }

    fn synced(&mut self, machine: Machine, incarnation: u64) -> Result<(), Violation> {
        let node = &mut self.nodes[machine.index()];
        if node.incarnation != incarnation || node.core.is_none() {
            return Ok(());
        }
        let was_at_its_beginning = node.disk.is_at_its_beginning();
        let released = node.synced(self.now)?;
        if node.is_correct() {
            self.checker.synced(node.id, &node.disk)?;
        }
        let line = format_args!("{} synced", machine.party());
        self.trace.note(self.now, &[b'S', machine.0], line);
        if was_at_its_beginning && !node.disk.is_at_its_beginning() {
            self.coverage.mark(match node.disk.replaced() {
                Slot::GENESIS => "state of the beginning settled",
                _ => "state of the beginning replaced by a fetched one",
            });
        }
        self.after_replica(machine, released)?;
        self.fetching(machine)
    }

    /// What has to be done after a replica did something: check, send, sync, wake.
    fn after_replica(
        &mut self,
        machine: Machine,
        released: Vec<Outbound>,
    ) -> Result<(), Violation> {
        self.check(machine)?;
        for outbound in released {
            self.release(machine, outbound)?;
        }
        let node = &mut self.nodes[machine.index()];
        if node.core.is_some() && !node.is_full && node.disk.begin_sync().is_some() {
            let incarnation = node.incarnation;
            let slowest = self.plan.sync_max[machine.index()];
            let delay = self.rng.between(slowest / 4, slowest);
            self.push(self.now + delay, Happening::Synced { machine, incarnation });
        }
        let node = &self.nodes[machine.index()];
        let mut wake_at = node.wake_at();
        if node.core.as_ref().is_some_and(|core| core.is_at_work()) {
            // What takes turns takes time, and other things happen meanwhile.
            wake_at = Some(self.now + TURN);
        }
        self.arm(machine.party(), wake_at);
        Ok(())
    }

    fn check(&mut self, machine: Machine) -> Result<(), Violation> {
        let node = &mut self.nodes[machine.index()];
        if node.villain().is_some() {
            return Ok(());
        }
        let (id, is_correct) = (node.id, node.is_correct());
        let passing = node.take_passing();
        let Some(core) = &mut node.core else { return Ok(()) };
        let head = core.head();
        let line = format_args!("{} head {} {:?}", machine.party(), head.slot, head.hash);
        if !is_correct {
            // A twin, or one whose disk is lost: its histories need not follow each other.
            self.trace.say(self.now, line);
            return Ok(());
        }
        self.checker.histories.passed(passing);
        if self.checker.look(id, &Lens(core))? {
            if core.history().choices().edition.application > 1 {
                self.coverage.mark("edition raised");
            }
            let state = core.state_digest();
            if core.in_quarantine().is_none() {
                self.checker.histories.state(id, head.hash, state)?;
            }
            let mut bytes = vec![b'H', id.0];
            bytes.extend(head.hash.0);
            bytes.extend(state.0);
            self.trace.note(self.now, &bytes, line);
        }
        Ok(())
    }

    fn release(&mut self, machine: Machine, outbound: Outbound) -> Result<(), Violation> {
        let from = machine.party();
        match outbound {
            Outbound::Peers(target, message) => self.tell_peers(machine, target, message)?,
            Outbound::Client(client, session, answer) => {
                self.tell_client(machine, &client, session, &answer)?;
            }
            Outbound::Raw(Party::Replica(to), bytes) => {
                for machine in self.machines_of(ReplicaId(to)) {
                    self.transmit(from, machine.party(), &bytes, "raw");
                }
            }
            Outbound::Raw(to, bytes) => self.transmit(from, to, &bytes, "raw"),
            Outbound::Accusation(evidence) => {
                self.coverage.mark(&format!("evidence: {}", evidence.kind()));
                let node = &self.nodes[machine.index()];
                let (id, is_correct) = (node.id, node.is_correct());
                let culprit = evidence.culprit();
                let guilty = !self.node(culprit).is_correct();
                demand(guilty || !is_correct, "I7", || {
                    format!("{id} has proof against {culprit}, which is correct: {evidence:?}")
                })?;
                let line = format_args!("{id} accuses {culprit}");
                self.trace.note(self.now, &[b'E', id.0, culprit.0], line);
            }
        }
        Ok(())
    }

    fn tell_peers(
        &mut self,
        machine: Machine,
        target: Target,
        message: Message,
    ) -> Result<(), Violation> {
        let node = &mut self.nodes[machine.index()];
        let id = node.id;
        if node.is_correct() {
            self.checker.message_leaves(id, &message, &node.disk)?;
        }
        if node.villain().is_none() {
            standing::message_leaves(id, &message, &node.disk, node.has_lost_its_vote())?;
            node.pieces.message_leaves(id, &message)?;
        }
        let kind = message.kind();
        let seen = match &message {
            Message::Slots(_) => Some("slots sent"),
            Message::Branch(_) => Some("branch sent"),
            Message::State(_) => Some("state sent"),
            Message::Evidence(_) => Some("evidence sent"),
            _ => None,
        };
        seen.into_iter().for_each(|seen| self.coverage.mark(seen));
        let bytes = to_bytes(id, &ToReplica::Peer(message))?;
        for to in self.plan.machines() {
            let other = self.plan.replica_on(to);
            let meant = match target {
                Target::Others => other != id,
                Target::One(one) => other == one && other != id,
            };
            if meant {
                self.transmit(machine.party(), to.party(), &bytes, kind);
            }
        }
        Ok(())
    }

    fn tell_client(
        &mut self,
        machine: Machine,
        client: &ClientId,
        session: Option<SessionId>,
        answer: &ToClient,
    ) -> Result<(), Violation> {
        let node = &mut self.nodes[machine.index()];
        let id = node.id;
        if node.is_correct() {
            self.checker.answer_leaves(id, answer, &node.disk)?;
        }
        if node.villain().is_none() {
            standing::answer_leaves(id, answer, &node.disk, node.has_lost_its_vote())?;
        }
        let kind = match answer {
            ToClient::Refusal(refusal) => {
                self.coverage.mark(&format!("refused {:?}", refusal.body.reason));
                "refusal"
            }
            ToClient::Replies(_) => "reply",
            ToClient::QueryReplies(_) | ToClient::NoQueryReply(..) => "query reply",
            ToClient::Busy(_) => "busy",
            _ => "answer",
        };
        let bytes = to_bytes(id, answer)?;
        for party in self.clients.parties_of(client, session) {
            self.transmit(machine.party(), party, &bytes, kind);
        }
        Ok(())
    }

    /// Puts bytes on a link.
    pub fn transmit(&mut self, from: Party, to: Party, bytes: &Bytes, kind: &'static str) {
        let arrivals = self.network.arrivals(self.now, from, to, kind, bytes.len());
        match arrivals.len() {
            0 => self.coverage.mark("message lost"),
            1 => {}
            _ => self.coverage.mark("message doubled"),
        }
        for delay in arrivals {
            let bytes = bytes.clone();
            self.push(self.now + delay, Happening::Arrival { from, to, bytes, kind });
        }
    }

    fn arrive(
        &mut self,
        from: Party,
        to: Party,
        bytes: &Bytes,
        kind: &'static str,
    ) -> Result<(), Violation> {
        self.trace.note(self.now, bytes, format_args!("{from} -> {to} {kind}"));
        match (from, to) {
            (_, Party::Replica(to)) => self.arrive_at_replica(from, Machine(to), bytes),
            (Party::Replica(machine), Party::Client(index)) => {
                let id = self.plan.replica_on(Machine(machine));
                let Ok(words) = decode::<ToClient>(bytes) else {
                    return self.refused_from(from, "undecodable bytes");
                };
                self.copy(Machine(machine), index, &words)?;
                let wants = self.clients.hear(index, self.now, id, words)?;
                self.after_client(index, wants)
            }
            (Party::Client(_), Party::Client(_)) => Ok(()),
        }
    }

    /// Bytes were turned away. From a correct sender they never are.
    fn refused_from(&mut self, from: Party, what: &str) -> Result<(), Violation> {
        let honest = match from {
            Party::Replica(machine) => self.nodes[usize::from(machine)].is_correct(),
            Party::Client(index) => self.clients.is_honest(index),
        };
        demand(!honest, "honest", || format!("{from} is correct and sent {what}"))
    }

    fn arrive_at_replica(
        &mut self,
        from: Party,
        to: Machine,
        bytes: &Bytes,
    ) -> Result<(), Violation> {
        let node = &self.nodes[to.index()];
        if node.core.is_none() {
            self.coverage.mark("message to a dead replica");
            return Ok(());
        }
        let (id, is_correct) = (node.id, node.is_correct());
        let words: ToReplica = match decode(bytes) {
            Ok(words) => words,
            Err(error) => {
                self.coverage.mark("message malformed");
                return self.refused_from(from, &error.to_string());
            }
        };
        let event = match (from, words) {
            (Party::Replica(machine), ToReplica::Peer(message)) => {
                // By its own list of clients, as far as that is asked.
                match self.nodes[to.index()].membership().open_message(message) {
                    Ok(message) => {
                        if is_correct {
                            self.checker.message_arrives(&message)?;
                        }
                        Event::Peer { from: self.plan.replica_on(Machine(machine)), message }
                    }
                    Err(error) => {
                        self.coverage.mark("message rejected");
                        return self.refused_from(from, &error.to_string());
                    }
                }
            }
            (Party::Client(index), _) if self.unlisted.contains(&(to, index)) => {
                self.coverage.mark("client not let in");
                return Ok(());
            }
            (Party::Client(_), ToReplica::Request(request)) => {
                if is_correct && self.checker.histories.holds(id, &request.body().name()) {
                    self.coverage.mark("request after execution");
                }
                match self.membership.open_request(request) {
                    Ok(request) => Event::Request(request),
                    Err(error) => {
                        self.coverage.mark("message rejected");
                        return self.refused_from(from, &error.to_string());
                    }
                }
            }
            (Party::Client(index), ToReplica::Query(query)) => {
                if let Err(error) = query.check() {
                    self.coverage.mark("message rejected");
                    return self.refused_from(from, &error.to_string());
                }
                self.checker.query_arrives(&query);
                Event::Queries(vec![(self.clients.id_of(index), query)])
            }
            (Party::Client(index), ToReplica::AskSession(session)) => {
                Event::AskSession { client: self.clients.id_of(index), session }
            }
            (Party::Client(index), ToReplica::AskStatus(nonce)) => Event::AskStatus {
                client: self.clients.id_of(index),
                nonce,
                driver: Driver {
                    counters: Vec::new(),
                    transport: Transport::default(),
                    disk: DiskHealth::Sound,
                    doubled: Vec::new(),
                    disagreements: Vec::new(),
                },
            },
            (Party::Client(index), ToReplica::AskState) => {
                Event::AskState { client: self.clients.id_of(index) }
            }
            (Party::Client(index), ToReplica::AskPiece { at, index: piece }) => {
                Event::AskPiece { client: self.clients.id_of(index), at, index: piece }
            }
            (Party::Client(index), ToReplica::AskEvidence) => {
                Event::AskEvidence { client: self.clients.id_of(index) }
            }
            _ => {
                self.coverage.mark("message malformed");
                return self.refused_from(from, "what only others may send");
            }
        };
        self.hand(to, event)
    }

    // ---- clients ----

    /// Carries out what a client process wants.
    ///
    /// # Errors
    /// It was promised something that no correct replica can have meant.
    pub fn after_client(&mut self, index: u16, wants: Wants) -> Result<(), Violation> {
        for promise in wants.promises {
            self.checker.promised(promise)?;
        }
        for glimpse in wants.glimpses {
            if self.checker.glimpsed(&glimpse)? {
                self.coverage.mark("past: read after a merge");
            }
        }
        let from = Party::Client(index);
        for (to, message) in wants.sends {
            let kind = match &message {
                ToReplica::Request(_) => "request",
                ToReplica::Query(_) => "query",
                _ => "question",
            };
            let bytes = to_bytes(ReplicaId(u8::MAX), &message)?;
            for machine in self.plan.machines() {
                if to.is_none_or(|one| one == self.plan.replica_on(machine)) {
                    self.transmit(from, machine.party(), &bytes, kind);
                }
            }
        }
        let wake_at = self.clients.wake_at(index);
        self.arm(from, wake_at);
        Ok(())
    }

    /// Everything the world has seen, with what its cores and clients counted.
    #[must_use]
    pub fn full_coverage(&self) -> Coverage {
        let mut coverage = self.coverage.clone();
        for node in self.nodes.iter().filter(|node| node.is_correct()) {
            let present = node.core.as_ref().map(inspect::counters).unwrap_or_default();
            for (name, count) in present.into_iter().chain(node.past.iter().copied()) {
                coverage.add(&format!("core:{name}"), count);
            }
        }
        for node in self.nodes.iter().filter(|node| !node.is_correct()) {
            coverage.add("quarantine", node.count("quarantines"));
            coverage.add("quarantine ended", node.count("quarantines_ended"));
        }
        coverage.add("certificates", self.checker.votes.certificates);
        coverage.add("slots taken back", self.checker.histories.taken_back);
        coverage.absorb(&self.clients.coverage());
        coverage
    }

    /// Which client a key belongs to, for traces.
    #[must_use]
    pub fn client_named(&self, id: &ClientId) -> Option<Party> {
        self.clients.parties_of(id, None).into_iter().next()
    }
}

/// The machines of a plan, switched off.
fn machines<S: Subject>(
    plan: &Plan,
    membership: &Arc<Membership>,
    keys: &Keyring,
    founding: Option<&Arc<Founding>>,
    rng: &mut Rng,
) -> Vec<Node<S>> {
    let made = plan.machines().map(|machine| {
        let id = plan.replica_on(machine);
        let name = plan.villains.iter().find(|(villain, _)| villain.0 == machine.0);
        let puppet = plan.puppet.as_ref().filter(|(puppet, _)| puppet.0 == machine.0);
        let fabric = Fabric {
            membership: membership.clone(),
            signer: keys.replicas[usize::from(id.0)].clone(),
            tuning: plan.tuning,
            clock: Clock::off_by(plan.skews[machine.index()], rng.between(0, 1 << 40)),
            villain: match (name, puppet) {
                (Some((_, name)), _) => Some(villain::named(name).expect("a known villain")),
                (None, Some((_, script))) => Some(Box::new(Puppet::new(script.clone()))),
                (None, None) => None,
            },
            is_twin: plan.twins.contains(&id),
            is_careless: plan.careless.contains(&id),
            // The copies of one replica are different lives, of which one only may vote.
            is_new: plan.is_first_start && !plan.twins.contains(&id),
            founding: founding.cloned(),
            rng: rng.fork(),
        };
        Node::new(machine, id, fabric)
    });
    made.collect()
}

fn to_bytes<T: serde::Serialize>(who: ReplicaId, words: &T) -> Result<Bytes, Violation> {
    encode(words).map_err(|error| {
        Violation::new("honest", format!("{who} makes a message that cannot be sent: {error}"))
    })
}
