//! What the generators of all campaigns share: a plan being made, and the trouble to put into it.

use elea_protocol::edition::Editions;
use elea_protocol::id::ReplicaId;
use elea_protocol::message::Level;
use elea_protocol::quorum::{ClusterSize, Strength};
use elea_protocol::tuning::{Rules, Tuning};

use super::shape::{self, Shape};
use super::{Component, Fault, MILLI, NEVER_MS, PatronPlan, Plan, Taste};
use crate::hostile;
use crate::network::{Link, Machine, Party};
use crate::rng::Rng;
use crate::villain;

/// Makes the randomness for first starts another one than that of the rest.
const FIRST_STARTS: u64 = 0x0057_a27e_d000;
const ROT: u64 = 0x0000_0207_0000;
const FOUNDINGS: u64 = 0x00f0_0d1d_0000;
const TURNS: u64 = 0x0000_7412_2000;
const NEWER_VILLAINS: u64 = 0x0000_7e3e_4000;
const QUIET: u64 = 0x0000_0901_e700;
const PASSING_ON: u64 = 0x0fa5_5ed0_0000;
const HOGS: u64 = 0x0000_4095_0000;
const FETCHING: u64 = 0x00fe_7c41_0000;
const ONE_SHOTS: u64 = 0x0001_5407_0000;
const LISTS: u64 = 0x0000_1157_0000;
const CLOCKS: u64 = 0x0000_c10c_0000;
const FULL_DISKS: u64 = 0x0000_f011_0000;
const STOPS: u64 = 0x0000_5709_0000;
const UPDATES: u64 = 0x0009_da7e_5000;

/// In microseconds.
const HOUR: u64 = 3_600_000_000;

/// The settings of simulated replicas: small limits, so that they are reached.
fn small_tuning(rng: &mut Rng) -> Tuning {
    let checkpoint_interval = *rng.pick(&[4, 8, 16]);
    let weak_view_delay_ms = rng.between(50, 150);
    let mut tuning = Tuning {
        rules: Rules {
            max_sessions: rng.between(8, 10),
            max_clients: 64,
            session_window: rng.between(6, 24),
            max_kept_result: 4096,
            kept_bytes: 1 << 20,
            checkpoint_interval,
            max_speculative_slots: 1024,
            max_speculative_bytes: 1 << 30,
        },
        commit_interval: *rng.pick(&[1, 4, 8]),
        commit_delay_ms: rng.between(5, 30),
        checkpoint_delay_ms: NEVER_MS,
        status_interval_ms: rng.between(100, 250),
        request_timeout_ms: rng.between(200, 600),
        request_timeout_min_ms: 0,
        request_timeout_max_ms: 8000,
        view_change_timeout_ms: rng.between(300, 800),
        view_change_timeout_max_ms: 4000,
        weak_view_delay_ms,
        fetch_grace_ms: rng.between(2, 10),
        fetch_retry_ms: rng.between(30, 100),
        max_clock_drift_ms: 400,
        pipeline_slots: rng.between(1, 3),
        batch_wait_ms: rng.between(1, 10),
        batch_requests: *rng.pick(&[1, 4, 64]),
        batch_bytes: 1 << 18,
        pending_max: *rng.pick(&[24, 64, 256]),
        pending_per_client: *rng.pick(&[8, 32]),
        pending_bytes: 4 << 20,
        pass_on_bytes: 4 << 10,
        orders_ahead: rng.between(4, 16),
        retained_slots: *rng.pick(&[1, 4, 64]),
        settle_bytes: *rng.pick(&[0, 2000, 10_000, 1 << 30]),
        retained_bytes: 1 << 14,
        transfer_bytes_per_ms: 64,
        turn_slots: 256,
    };
    tuning.request_timeout_min_ms = tuning.request_timeout_ms / 4;
    tuning
}

/// In half of the worlds quiet heads are made stable.
fn checkpoint_delay(world: u64) -> u64 {
    let mut rng = Rng::new(world ^ QUIET);
    if rng.one_in(2) { NEVER_MS } else { *rng.pick(&[5, 20, 100, 250]) }
}

/// How bad the network is while there are faults.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Almost nothing is lost.
    Fair,
    /// Up to a fifth is.
    Foul,
}

/// See the [module](self).
pub struct Draft {
    pub plan: Plan,
    pub rng: Rng,
    /// Replicas that are correct and stay so: no villains, no twins, none that stop for good and
    /// none whose clock is off.
    sound: Vec<Machine>,
}

impl Draft {
    /// The world of a seed in the campaign whose number is `campaign`, without any trouble yet.
    ///
    /// # Panics
    /// Never: the sizes it chooses are valid.
    pub fn new(campaign: u64, seed: u64, weather: Weather) -> Self {
        let mut rng = Rng::new(seed ^ (campaign << 56));
        let replicas = *rng.pick(&[4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 7, 7, 7, 10]);
        let size = ClusterSize::most_tolerant(replicas).expect("a valid size");
        let loss = match weather {
            Weather::Fair if rng.one_in(2) => 0,
            Weather::Fair => rng.between(1, 20),
            Weather::Foul if rng.one_in(3) => 0,
            Weather::Foul => rng.between(1, 200),
        };
        let link = Link {
            delay: rng.between(100, 2 * MILLI),
            jitter: if rng.one_in(3) { 0 } else { rng.between(100, 20 * MILLI) },
            loss: u32::try_from(loss).expect("small"),
            duplication: if rng.one_in(2) { 0 } else { 50 },
            bytes_per_ms: 0,
        };
        let machines = usize::from(replicas);
        let plan = Plan {
            seed,
            size,
            twins: Vec::new(),
            real_signatures: rng.one_in(24),
            tuning: Tuning {
                checkpoint_delay_ms: checkpoint_delay(seed ^ (campaign << 48)),
                ..small_tuning(&mut rng)
            },
            link,
            special: Vec::new(),
            walls: Vec::new(),
            faults: Vec::new(),
            heal_at: 0,
            component: None,
            // Of its own randomness, like everything about lost disks: so worlds stay what they were.
            is_first_start: Rng::new(seed ^ (campaign << 48) ^ FIRST_STARTS).one_in(2),
            begins_with_state: Rng::new(seed ^ (campaign << 48) ^ FOUNDINGS).one_in(4),
            lists_clients: false,
            careless: Vec::new(),
            villains: Vec::new(),
            puppet: None,
            skews: (0..machines).map(|_| rng.between(0, 300) as i64 * 1000 - 150_000).collect(),
            sync_max: (0..machines).map(|_| sync_max(&mut rng)).collect(),
            patrons: Vec::new(),
            hostiles: Vec::new(),
            judgement: None,
            late_orders: None,
            shapes: Vec::new(),
        };
        let sound = (0..replicas).map(Machine).collect();
        let mut plan = plan;
        // Of its own randomness: short merges take turns, too, in half of the worlds.
        let mut turns = Rng::new(seed ^ (campaign << 48) ^ TURNS);
        plan.tuning.turn_slots = *turns.pick(&[1, 2, 8, 256, 256, 256]);
        Self { plan, rng, sound }
    }

    /// The plan, complete.
    pub fn done(mut self) -> Plan {
        let heal_at = self.plan.heal_at;
        for (at, _) in &mut self.plan.faults {
            *at = (*at).min(heal_at);
        }
        // A stable sort: what was drafted first happens first.
        self.plan.faults.sort_by_key(|(at, _)| *at);
        self.plan
    }

    pub fn machines(&self) -> Vec<Machine> {
        self.plan.machines().collect()
    }

    fn clients(&self) -> u16 {
        u16::try_from(self.plan.patrons.len() + self.plan.hostiles.len()).expect("few clients")
    }

    pub fn fault(&mut self, at: u64, fault: Fault) {
        self.plan.faults.push((at, fault));
    }

    /// Some moment while there are faults.
    pub fn moment(&mut self) -> u64 {
        self.rng.between(0, self.plan.heal_at)
    }

    /// Honest clients, each with a load of up to `loads`.
    pub fn patrons(&mut self, most: u64, loads: u64) {
        let count = self.rng.between(most.min(2), most);
        for _ in 0..count {
            let patron = PatronPlan {
                sessions: self.rng.index(2) + 1,
                loads: self.rng.between(loads.min(3), loads),
                late_loads: self.rng.between(0, 2),
                taste: Taste::Mixed,
                one_shot: false,
                key_of: None,
            };
            self.plan.patrons.push(patron);
        }
        self.one_shots();
    }

    /// Now and then two places where processes with one key come and go and keep nothing, more of them than
    /// a client may have sessions. Of its own randomness, so that worlds stay what they were.
    fn one_shots(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ ONE_SHOTS);
        if !rng.one_in(3) {
            return;
        }
        self.plan.shapes.push("one-shot clients");
        // Few results, and in some worlds few sessions.
        self.plan.tuning.rules.kept_bytes = rng.between(2, 24) * 1100;
        let first = u16::try_from(self.plan.patrons.len()).expect("few clients");
        let loads = *rng.pick(&[3, 8, 20]);
        for key_of in [None, Some(first)] {
            self.plan.patrons.push(PatronPlan {
                sessions: 0,
                loads: rng.between(2, loads),
                late_loads: rng.between(0, 3),
                taste: *rng.pick(&[Taste::Mixed, Taste::Mixed, Taste::Weak]),
                one_shot: true,
                key_of,
            });
        }
    }

    pub fn hostiles(&mut self) {
        let count = self.rng.between(1, 2);
        self.plan.hostiles = (0..count).map(|_| self.rng.pick(hostile::KINDS).0).collect();
        // Of its own randomness, so that worlds without it stay what they were.
        let mut rng = Rng::new(self.plan.seed ^ HOGS);
        if rng.one_in(4) {
            let at = rng.index(self.plan.hostiles.len());
            self.plan.hostiles[at] = rng.pick(hostile::GREEDY).0;
        }
    }

    /// Requests are passed on by name more often than in a cluster whose requests are larger.
    pub fn passes_on(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ PASSING_ON);
        self.plan.tuning.pass_on_bytes = *rng.pick(&[0, 150, 4096]);
    }

    /// Takes a replica out of the sound ones.
    fn spoil(&mut self) -> Option<Machine> {
        let at = (!self.sound.is_empty()).then(|| self.rng.index(self.sound.len()))?;
        Some(self.sound.remove(at))
    }

    /// Up to `count` villains.
    pub fn villains(&mut self, count: u8) {
        for _ in 0..count {
            let Some(machine) = self.spoil() else { return };
            let name = villain::pick(&mut self.rng);
            let mut newer =
                Rng::new(self.plan.seed ^ (u64::from(machine.0) << 56) ^ NEWER_VILLAINS);
            let name = villain::pick_newer(&mut newer).unwrap_or(name);
            self.plan.villains.push((ReplicaId(machine.0), name));
        }
    }

    /// Up to `count` that stop for good; the first primary rather often.
    pub fn stopped(&mut self, count: u8) {
        for _ in 0..count {
            let first = self.sound.first() == Some(&Machine(0)) && self.rng.one_in(2);
            let machine = if first { Some(self.sound.remove(0)) } else { self.spoil() };
            let Some(machine) = machine else { return };
            let at = self.moment();
            self.fault(at, Fault::Stop(machine));
        }
    }

    /// One that loses its disk, once or twice, and comes back.
    pub fn lost_disk(&mut self) {
        let Some(machine) = self.spoil() else { return };
        self.plan.careless.push(ReplicaId(machine.0));
        let earliest = self.plan.heal_at / 4;
        for _ in 0..self.rng.between(1, 2) {
            let at = self.rng.between(earliest, self.plan.heal_at);
            let back = at + self.rng.between(1, 400) * MILLI;
            self.fault(at, Fault::LoseDisk(machine));
            self.fault(back, Fault::Restart(machine));
        }
    }

    /// Now and then the disk of one spoils what is on it. Of its own randomness, so that worlds stay
    /// what they were.
    pub fn rot(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ ROT);
        if self.sound.is_empty() || !rng.one_in(5) {
            return;
        }
        let machine = *rng.pick(&self.sound);
        for _ in 0..rng.between(1, 3) {
            let at = rng.between(self.plan.heal_at / 4, self.plan.heal_at);
            let back = at + rng.between(1, 300) * MILLI;
            self.fault(at, Fault::Rot(machine));
            self.fault(back, Fault::Restart(machine));
        }
        if rng.one_in(2) {
            let at = rng.between(self.plan.heal_at / 4, self.plan.heal_at);
            self.fault(at, Fault::Scrub(machine));
        }
    }

    /// Now and then disks are full for a while. Of its own randomness, so that worlds stay what they were.
    pub fn full_disks(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ FULL_DISKS);
        if !rng.one_in(5) {
            return;
        }
        for _ in 0..rng.between(1, 4) {
            let machine = *rng.pick(&self.machines());
            let at = rng.between(0, self.plan.heal_at);
            let room = at + rng.between(1, 900) * MILLI;
            self.fault(at, Fault::FillDisk(machine));
            self.fault(room, Fault::MakeRoom(machine));
        }
    }

    /// Now and then replicas are stopped as operators do it, one after the other: told before, and a little later gone.
    /// Of its own randomness, so that worlds stay what they were.
    pub fn planned_stops(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ STOPS);
        if !rng.one_in(5) {
            return;
        }
        let mut at = rng.between(0, self.plan.heal_at / 2);
        for machine in self.machines() {
            let stop = at + rng.between(1, 200) * MILLI;
            let back = stop + rng.between(1, 200) * MILLI;
            self.fault(at, Fault::Leave(machine));
            self.fault(stop, Fault::Crash(machine));
            self.fault(back, Fault::Restart(machine));
            at = back + rng.between(1, 100) * MILLI;
        }
    }

    /// Now and then whoever fetches a state crashes while it does. Of its own randomness, so that
    /// worlds stay what they were.
    pub fn crashes_while_fetching(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ FETCHING);
        if !rng.one_in(3) {
            return;
        }
        for machine in self.machines() {
            let at = rng.between(0, self.plan.heal_at / 2);
            let (pieces, down) = (rng.index(5) + 1, rng.between(1, 60) * MILLI);
            self.fault(at, Fault::CrashFetching { machine, pieces, down });
        }
    }

    /// One whose clock is far behind, or ahead.
    pub fn lost_clock(&mut self) {
        let Some(machine) = self.spoil() else { return };
        self.plan.skews[machine.index()] = if self.rng.one_in(2) { -700_000 } else { 700_000 };
    }

    /// In a third of the worlds clocks are set, run too slow or too fast, or jump to and fro. Some stay
    /// wrong when the network heals. Of its own randomness, so that worlds stay what they were.
    pub fn clocks(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ CLOCKS);
        if !rng.one_in(3) {
            return;
        }
        let mut machines = self.machines();
        rng.shuffle(&mut machines);
        let (name, machines) = match rng.between(0, 4) {
            0 => {
                self.all_clocks_ahead(&mut rng, &machines);
                return;
            }
            1 => ("clock: one strobes", &machines[..1]),
            2 => ("clock: half strobe", &machines[..machines.len() / 2]),
            3 => ("clock: all strobe", &machines[..]),
            _ => {
                self.site_off(&mut rng, &machines[..machines.len() / 2]);
                return;
            }
        };
        self.plan.shapes.push(name);
        for machine in machines {
            for _ in 0..rng.between(1, 8) {
                let at = rng.between(0, self.plan.heal_at);
                let fault = set_clock(&mut rng, *machine);
                self.fault(at, fault);
            }
            // Who is not among few stays as wrong as it is, unless it is needed.
            if machines.len() > 1 || self.plan.component.is_some() {
                self.clock_right(self.plan.heal_at, *machine);
            }
        }
    }

    /// In a sixth of the worlds a client is being added: some replicas do not list it at first, and are
    /// started anew with it one after the other. Of its own randomness, so that worlds stay what they
    /// were.
    pub fn client_rolled_out(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ LISTS);
        if !rng.one_in(6) || self.plan.patrons.is_empty() {
            return;
        }
        self.plan.lists_clients = true;
        self.plan.shapes.push("client rolled out");
        let client = u16::try_from(rng.index(self.plan.patrons.len())).expect("few clients");
        for machine in self.machines() {
            if rng.one_in(2) {
                self.fault(0, Fault::Lists { machine, without: vec![client] });
                let listed_at = rng.between(0, self.plan.heal_at);
                self.fault(listed_at, Fault::Lists { machine, without: Vec::new() });
            }
        }
    }

    /// In a sixth of the worlds programs are updated, one after the other. Of its own randomness.
    pub fn programs_updated(&mut self) {
        let mut rng = Rng::new(self.plan.seed ^ UPDATES);
        if !rng.one_in(6) {
            return;
        }
        self.plan.shapes.push("programs updated");
        for machine in self.machines() {
            let at = rng.between(0, self.plan.heal_at);
            self.fault(at, Fault::Update { machine, editions: Editions::with(1..=2) });
        }
    }

    fn clock_right(&mut self, at: u64, machine: Machine) {
        self.fault(at, Fault::SetClock { machine, skew: 0, rate: 1000 });
    }

    /// All clocks are ahead, and at some moment they are set right.
    fn all_clocks_ahead(&mut self, rng: &mut Rng, machines: &[Machine]) {
        self.plan.shapes.push("clock: all ahead, then right");
        let skew = i64::try_from(rng.between(HOUR / 60, HOUR)).expect("an hour");
        let right_at = rng.between(0, self.plan.heal_at);
        for machine in machines {
            self.fault(0, Fault::SetClock { machine: *machine, skew, rate: 1000 });
            let later = rng.between(0, 300) * MILLI;
            self.clock_right(right_at + later, *machine);
        }
    }

    /// The clocks of up to half of the machines are off by the same from some moment on, and in some
    /// worlds right again later.
    fn site_off(&mut self, rng: &mut Rng, machines: &[Machine]) {
        self.plan.shapes.push("clock: a site is off");
        let far = i64::try_from(rng.between(HOUR / 3600, HOUR)).expect("an hour");
        let skew = if rng.one_in(2) { far } else { -far };
        let at = rng.between(0, self.plan.heal_at);
        let right_at = rng.one_in(2).then(|| rng.between(at, self.plan.heal_at));
        // In a component of just enough all are needed.
        let right_at = right_at.or(self.plan.component.as_ref().map(|_| self.plan.heal_at));
        for machine in machines {
            self.fault(at, Fault::SetClock { machine: *machine, skew, rate: 1000 });
            if let Some(right_at) = right_at {
                self.clock_right(right_at, *machine);
            }
        }
    }

    /// Up to `count` replicas that exist twice. The two machines reach different parts of the
    /// network, with some overlap, for good.
    pub fn twins(&mut self, count: u8) {
        let mut doubled = Vec::new();
        for _ in 0..count {
            doubled.extend(self.spoil());
        }
        for first in doubled {
            let second = Machine(u8::try_from(self.machines().len()).expect("few machines"));
            self.plan.twins.push(ReplicaId(first.0));
            self.plan.skews.push(self.rng.between(0, 300) as i64 * 1000 - 150_000);
            self.plan.sync_max.push(sync_max(&mut self.rng));
            let clients = (0..self.clients()).map(Party::Client);
            let others: Vec<Party> = (0..self.plan.size.replicas())
                .map(|number| Machine(number).party())
                .filter(|party| *party != first.party())
                .chain(clients)
                .collect();
            for party in others {
                let (to_first, to_second) = match self.rng.between(0, 9) {
                    0..=3 => (true, false),
                    4..=7 => (false, true),
                    8 => (true, true),
                    _ => {
                        // It hears one of them and is heard by the other.
                        self.plan.walls.push((party, first.party()));
                        self.plan.walls.push((second.party(), party));
                        continue;
                    }
                };
                for (reached, twin) in [(to_first, first), (to_second, second)] {
                    if !reached {
                        self.plan.walls.push((party, twin.party()));
                        self.plan.walls.push((twin.party(), party));
                    }
                }
            }
        }
    }

    /// Crashes with restarts, of anybody.
    pub fn crashes(&mut self, most: u64) {
        for _ in 0..self.rng.between(1, most) {
            let machines = self.machines();
            let machine = *self.rng.pick(&machines);
            let at = self.moment();
            let back = at + self.rng.between(1, 700 * MILLI);
            self.fault(at, Fault::Crash(machine));
            self.fault(back, Fault::Restart(machine));
        }
    }

    /// All machines lose their power at once, and come back one by one.
    pub fn blackout(&mut self) {
        let at = self.moment();
        self.fault(at, Fault::Blackout);
        for machine in self.machines() {
            let back = at + self.rng.between(1, 300 * MILLI);
            self.fault(back, Fault::Restart(machine));
        }
    }

    /// One replica whose links are all slow, or one link that is.
    pub fn slow(&mut self) {
        let machines = self.machines();
        let slow = self.rng.pick(&machines).party();
        let delay = self.plan.link.delay + self.rng.between(10, 60) * MILLI;
        let link = Link { delay, ..self.plan.link };
        let only = self.rng.one_in(2).then(|| self.rng.pick(&machines).party());
        for other in machines.iter().map(|machine| machine.party()) {
            if other != slow && only.is_none_or(|only| only == other) {
                self.plan.special.push((other, slow, link));
                self.plan.special.push((slow, other, link));
            }
        }
    }

    /// From `from` to `until` the network is in parts of this shape, without a pause or flapping.
    pub fn episode(&mut self, from: u64, until: u64, shape: Shape, flapping: bool) {
        self.plan.shapes.push(shape.name);
        if !flapping {
            self.fault(from, Fault::Split(shape.cuts));
            self.fault(until, Fault::Join);
            return;
        }
        self.plan.shapes.push("flapping");
        let mut at = from;
        while at < until {
            self.fault(at, Fault::Split(shape.cuts.clone()));
            at += self.rng.between(10, 250) * MILLI;
            self.fault(at, Fault::Join);
            at += self.rng.between(1, 120) * MILLI;
        }
    }

    /// Partitions of any shape, one after the other, each of up to `longest`, with pauses.
    pub fn partitions(&mut self, longest: u64) {
        let mut at = self.rng.between(0, self.plan.heal_at / 3);
        while at < self.plan.heal_at {
            let until = at + self.rng.between(50 * MILLI, longest);
            let machines = self.machines();
            let primary = Machine(self.rng.index(3) as u8);
            let clients = self.clients();
            let shape = shape::any(&mut self.rng, &machines, clients, primary);
            let flapping = self.rng.one_in(5);
            self.episode(at, until, shape, flapping);
            at = until + self.rng.between(10, 800) * MILLI;
        }
    }

    /// Two parts, each with at least `f + 1` sound replicas where there are enough of them.
    pub fn two_sides(&mut self) -> Shape {
        let weak = self.plan.size.quorum(Strength::Weak);
        let mut sound = self.sound.clone();
        self.rng.shuffle(&mut sound);
        let mut left: Vec<Machine> = sound.drain(..weak.min(sound.len())).collect();
        let mut right: Vec<Machine> = sound.drain(..weak.min(sound.len())).collect();
        let rest: Vec<Machine> = self
            .machines()
            .into_iter()
            .filter(|machine| !left.contains(machine) && !right.contains(machine))
            .collect();
        for machine in rest {
            if self.rng.one_in(2) { left.push(machine) } else { right.push(machine) }
        }
        let parties = |side: Vec<Machine>| side.into_iter().map(Machine::party).collect();
        let clients = self.clients();
        shape::sides(&mut self.rng, "two live sides", parties(left), parties(right), clients)
    }

    /// After the faults, a part of the network with exactly enough sound replicas for `level`, and
    /// with a client of its own that asks for nothing else.
    pub fn component(&mut self, level: Level) {
        let (strength, taste, name) = match level {
            Level::Weak => (Strength::Weak, Taste::Weak, "component: weak"),
            Level::Strong => (Strength::Strong, Taste::Strong, "component: strong"),
        };
        let enough = self.plan.size.quorum(strength);
        if self.sound.len() < enough {
            return;
        }
        let mut members = self.sound.clone();
        self.rng.shuffle(&mut members);
        members.truncate(enough);
        let faulty: Vec<Machine> = self
            .machines()
            .into_iter()
            .filter(|machine| {
                let is_twin = self.plan.twins.contains(&self.plan.replica_on(*machine));
                is_twin
                    || self.plan.careless.contains(&ReplicaId(machine.0))
                    || self.plan.villains.iter().any(|(id, _)| id.0 == machine.0)
            })
            .collect();
        let bridges = faulty.into_iter().filter(|_| !self.rng.one_in(3)).collect();
        // It takes the number of the next client: nobody else may have that one yet.
        assert!(self.plan.hostiles.is_empty(), "hostile clients are numbered after honest ones");
        let client = u16::try_from(self.plan.patrons.len()).expect("few clients");
        let loads = self.rng.between(2, 5);
        self.plan.patrons.push(PatronPlan {
            sessions: 1,
            loads: if self.rng.one_in(2) { 0 } else { self.rng.between(1, 5) },
            late_loads: 0,
            taste,
            one_shot: Rng::new(self.plan.seed ^ ONE_SHOTS ^ 1).one_in(3),
            key_of: None,
        });
        self.plan.shapes.push(name);
        self.plan.component = Some(Component { members, bridges, client, level, loads });
    }

    /// A limit on speculation that is soon reached: a part without a strong quorum gets full.
    pub fn short_suffix(&mut self) {
        let rules = &mut self.plan.tuning.rules;
        if self.rng.one_in(2) {
            rules.max_speculative_slots = rules.checkpoint_interval * self.rng.between(2, 3);
            self.plan.shapes.push("short suffix");
        } else {
            rules.max_speculative_bytes = self.rng.between(1, 128) << 10;
            self.plan.shapes.push("light suffix");
        }
    }
}

/// A clock is set anywhere from 1970 to the year 9000, mostly nearer; and sometimes to another speed.
fn set_clock(rng: &mut Rng, machine: Machine) -> Fault {
    let most = *rng.pick(&[MILLI * 500, HOUR / 360, HOUR, HOUR]);
    let far = i64::try_from(rng.between(0, most)).expect("an hour");
    let skew = match rng.between(0, 19) {
        0 => -1_700_000_000_000_000,
        1 => 220_000_000_000_000_000,
        2..=10 => far,
        _ => -far,
    };
    let rate = *rng.pick(&[1000, 1000, 500, 2000]);
    Fault::SetClock { machine, skew, rate }
}

/// How long a sync takes on one machine: nothing on some, long on others.
fn sync_max(rng: &mut Rng) -> u64 {
    match rng.between(0, 7) {
        0..=1 => 0,
        2..=5 => rng.between(100, 5 * MILLI),
        _ => rng.between(10, 80) * MILLI,
    }
}
