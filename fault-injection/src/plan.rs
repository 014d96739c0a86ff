//! What a world is like: everything that a seed decides before it begins.
//!
//! A *swarm*: each seed switches whole kinds of trouble on or off, so that some worlds have none of
//! a kind and some have little else. What is left out of a world is as important as what is in it,
//! since one kind of trouble can hide another.

use elea_protocol::id::ReplicaId;
use elea_protocol::quorum::ClusterSize;
use elea_protocol::tuning::{Rules, Tuning};

use crate::hostile;
use crate::network::{Link, Party};
use crate::rng::Rng;
use crate::villain;

/// Something that is done to the world at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power of a replica goes.
    Crash(ReplicaId),
    /// It comes back.
    Restart(ReplicaId),
    /// It goes for good.
    Stop(ReplicaId),
    /// Two replicas hear nothing of each other.
    Cut(ReplicaId, ReplicaId),
    /// All cuts end.
    Join,
}

/// What a world must show at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Everything: healed and quiet, all agree and everybody is answered.
    Convergence,
    /// Nothing contradicts itself. Without view changes a faulty primary can stop the rest.
    SafetyOnly,
}

/// A world, before it begins. Times are in microseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all of it comes from.
    pub seed: u64,
    /// `n` and `f`.
    pub size: ClusterSize,
    /// Ed25519, or the cheap scheme.
    pub real_signatures: bool,
    /// The same for all replicas.
    pub tuning: Tuning,
    /// How links are.
    pub link: Link,
    /// Links that are different.
    pub special: Vec<(Party, Party, Link)>,
    /// What happens when, in order.
    pub faults: Vec<(u64, Fault)>,
    /// When the network heals and what crashed comes back.
    pub heal_at: u64,
    /// Who is Byzantine, and how.
    pub villains: Vec<(ReplicaId, &'static str)>,
    /// How far each wall clock is off.
    pub skews: Vec<i64>,
    /// How long a sync takes on each replica, at most.
    pub sync_max: Vec<u64>,
    /// For each honest client process, how many sessions and how many loads.
    pub patrons: Vec<(usize, u64)>,
    /// The hostile clients.
    pub hostiles: Vec<&'static str>,
    /// What the end must show.
    pub goal: Goal,
}

const MILLI: u64 = 1000;

/// The settings of simulated replicas: small limits, so that they are reached.
#[must_use]
pub fn small_tuning(rng: &mut Rng) -> Tuning {
    let checkpoint_interval = *rng.pick(&[4, 8, 16]);
    Tuning {
        rules: Rules {
            max_sessions: rng.between(7, 9),
            max_clients: 64,
            session_window: rng.between(6, 24),
            max_kept_result: 4096,
            checkpoint_interval,
            max_speculative_slots: 1024,
        },
        commit_interval: *rng.pick(&[1, 4, 8]),
        commit_delay_ms: rng.between(5, 30),
        status_interval_ms: rng.between(100, 250),
        request_timeout_ms: rng.between(200, 600),
        fetch_grace_ms: rng.between(2, 10),
        fetch_retry_ms: rng.between(30, 100),
        max_clock_drift_ms: 400,
        pipeline_slots: rng.between(1, 3),
        batch_wait_ms: rng.between(1, 10),
        batch_requests: *rng.pick(&[1, 4, 64]),
        batch_bytes: 1 << 16,
        pending_max: *rng.pick(&[24, 64, 256]),
        pending_per_client: *rng.pick(&[8, 32]),
        pending_bytes: 4 << 20,
        orders_ahead: rng.between(4, 16),
        retained_slots: *rng.pick(&[1, 4, 64]),
    }
}

impl Plan {
    /// The world of this seed.
    ///
    /// # Panics
    /// Never: the sizes it chooses are valid.
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let replicas = *rng.pick(&[4, 4, 4, 4, 4, 5, 6, 7]);
        let size = ClusterSize::most_tolerant(replicas).expect("a valid size");
        let faulty_primary = rng.one_in(12);
        let link = Link {
            delay: rng.between(100, 2 * MILLI),
            jitter: if rng.one_in(3) { 0 } else { rng.between(100, 20 * MILLI) },
            loss: if rng.one_in(3) {
                0
            } else {
                u32::try_from(rng.between(1, 200)).expect("small")
            },
            duplication: if rng.one_in(2) { 0 } else { 50 },
        };
        let heal_at = rng.between(800, 2000) * MILLI;
        let mut plan = Self {
            seed,
            size,
            real_signatures: rng.one_in(16),
            tuning: small_tuning(rng),
            link,
            special: Vec::new(),
            faults: Vec::new(),
            heal_at,
            villains: Vec::new(),
            skews: (0..replicas).map(|_| rng.between(0, 300) as i64 * 1000 - 150_000).collect(),
            sync_max: (0..replicas)
                .map(|_| match rng.between(0, 7) {
                    0..=1 => 0,
                    2..=5 => rng.between(100, 5 * MILLI),
                    _ => rng.between(10, 80) * MILLI,
                })
                .collect(),
            patrons: (0..rng.between(1, 3))
                .map(|_| (rng.index(3) + 1, rng.between(3, 12)))
                .collect(),
            hostiles: Vec::new(),
            goal: if faulty_primary { Goal::SafetyOnly } else { Goal::Convergence },
        };
        if rng.one_in(2) {
            plan.hostiles = (0..rng.between(1, 2)).map(|_| rng.pick(hostile::KINDS).0).collect();
        }
        plan.choose_faulty(rng, faulty_primary);
        plan.choose_outages(rng);
        plan.choose_slow(rng);
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Up to `f` replicas that are Byzantine, stopped for good or hopelessly late.
    fn choose_faulty(&mut self, rng: &mut Rng, faulty_primary: bool) {
        let mut budget = self.size.faulty();
        if faulty_primary {
            let (name, ..) = *rng.pick(villain::PRIMARIES);
            self.villains.push((ReplicaId(0), name));
            budget -= 1;
        }
        let mut backups: Vec<u8> = (1..self.size.replicas()).collect();
        rng.shuffle(&mut backups);
        for id in backups.into_iter().take(usize::from(budget)) {
            match rng.between(0, 9) {
                0..=1 => {}
                2 => {
                    let at = rng.between(0, self.heal_at);
                    self.faults.push((at, Fault::Stop(ReplicaId(id))));
                }
                3 => self.skews[usize::from(id)] = -700_000,
                _ => {
                    let (name, ..) = *rng.pick(villain::BACKUPS);
                    self.villains.push((ReplicaId(id), name));
                }
            }
        }
    }

    /// Crashes with restarts, and cuts. The primary stays up: there is no other one yet.
    fn choose_outages(&mut self, rng: &mut Rng) {
        let replicas = self.size.replicas();
        if rng.one_in(2) {
            for _ in 0..rng.between(1, 4) {
                let id = u8::try_from(rng.between(1, u64::from(replicas) - 1)).expect("a replica");
                let at = rng.between(0, self.heal_at);
                let back = at + rng.between(1, 400 * MILLI);
                self.faults.push((at, Fault::Crash(ReplicaId(id))));
                self.faults.push((back.min(self.heal_at), Fault::Restart(ReplicaId(id))));
            }
        }
        if rng.one_in(2) {
            for _ in 0..rng.between(1, 2) {
                let at = rng.between(0, self.heal_at);
                let mut all: Vec<u8> = (0..replicas).collect();
                rng.shuffle(&mut all);
                let (left, right) = all.split_at(rng.index(usize::from(replicas) - 1) + 1);
                for one in left {
                    for other in right {
                        self.faults.push((at, Fault::Cut(ReplicaId(*one), ReplicaId(*other))));
                    }
                }
                self.faults.push((at + rng.between(10, 500) * MILLI, Fault::Join));
            }
        }
    }

    fn choose_slow(&mut self, rng: &mut Rng) {
        if !rng.one_in(3) {
            return;
        }
        let slow = Party::Replica(
            u8::try_from(rng.between(0, u64::from(self.size.replicas()) - 1)).expect("a replica"),
        );
        let link = Link { delay: self.link.delay + 40 * MILLI, ..self.link };
        for other in (0..self.size.replicas()).map(Party::Replica) {
            self.special.push((other, slow, link));
            self.special.push((slow, other, link));
        }
    }

    /// A quiet world of `replicas`, for scripted traces: every message takes one millisecond, every
    /// sync none, and nobody misbehaves.
    ///
    /// # Panics
    /// Where no cluster has so many replicas.
    #[must_use]
    pub fn quiet(replicas: u8) -> Self {
        let size = ClusterSize::most_tolerant(replicas).expect("a valid size");
        Self {
            seed: 1,
            size,
            real_signatures: false,
            tuning: Tuning::default(),
            link: Link::steady(MILLI),
            special: Vec::new(),
            faults: Vec::new(),
            heal_at: u64::MAX,
            villains: Vec::new(),
            skews: vec![0; usize::from(replicas)],
            sync_max: vec![0; usize::from(replicas)],
            patrons: Vec::new(),
            hostiles: Vec::new(),
            goal: Goal::Convergence,
        }
    }
}
