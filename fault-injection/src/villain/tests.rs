//! Every villain in a small cluster of true cores, on a bad network, without the world around it.

use std::collections::BTreeSet;

use elea_protocol::codec::decode;
use elea_protocol::edition::Editions;
use elea_protocol::id::{Instant, RequestNumber, SessionId, WallTime};
use elea_protocol::message::{Level, Request, SignedRequest};
use elea_protocol::quorum::ClusterSize;
use elea_protocol::replica::{Mark, Recovered, Replica, Setup};
use elea_protocol::tuning::{Rules, Tuning};

use super::*;
use crate::journal::Journal;
use crate::keys::Keyring;

const REPLICAS: u8 = 4;

#[test]
fn names_are_unique_and_are_the_villains_own() {
    let names: BTreeSet<&str> = ALL.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names.len(), ALL.len());
    for (name, what, _, make) in ALL {
        assert_eq!(make().name(), *name);
        assert!(named(name).is_some());
        assert!(!what.is_empty());
    }
    assert!(named("nobody").is_none());
}

#[test]
fn the_next_own_view_is_led_by_oneself() {
    let mob = Mob::new("mute", 2, 1);
    for view in 0..20 {
        let own = mob.lair.own_view_after(View(view), view % 3);
        assert!(own > View(view) && mob.lair.leads(own));
    }
    let (lower, upper) = mob.lair.halves();
    assert_eq!((lower.len(), upper.len()), (1, 2));
}

/// Enough messages for several views and checkpoints.
#[test]
fn every_villain_survives_a_bad_network() {
    let mut kinds = BTreeSet::new();
    for (seed, (name, ..)) in (1..).zip(ALL) {
        // As the first primary, and as one that has to wait for its turn.
        for place in [0, 2] {
            let mut mob = Mob::new(name, place, seed);
            mob.run(1000);
            assert!(mob.heard >= 1000, "{name} at {place} heard too little");
            kinds.append(&mut mob.kinds);
        }
    }
    // Or the villains were never tempted.
    for kind in ["order", "commit", "checkpoint", "status", "fetch", "campaign", "new-view"] {
        assert!(kinds.contains(kind), "nobody ever said {kind}");
    }
}

/// Four replicas, one of them a villain's, and a client.
struct Mob {
    cores: Vec<Replica<Journal>>,
    villain: Box<dyn Villain>,
    lair: Lair,
    client: Arc<dyn Signer>,
    numbers: u64,
    mail: Vec<(ReplicaId, ReplicaId, Bytes)>,
    now: Now,
    rng: Rng,
    heard: u32,
    kinds: BTreeSet<&'static str>,
}

impl Mob {
    fn new(name: &str, place: u8, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let size = ClusterSize::most_tolerant(REPLICAS).expect("a valid size");
        let keys = Keyring::new(&mut rng, usize::from(REPLICAS), 1, false);
        let membership =
            Membership::new("mob", size.faulty(), keys.replica_keys(), None, keys.scheme.clone())
                .expect("a sound cluster");
        let membership = Arc::new(membership);
        let now = Now { instant: Instant(1_000_000), wall: WallTime(1_700_000_000_000) };
        let tuning = Tuning {
            rules: Rules { checkpoint_interval: 4, ..Rules::default() },
            commit_interval: 2,
            commit_delay_ms: 5,
            status_interval_ms: 20,
            request_timeout_ms: 100,
            request_timeout_min_ms: 100,
            view_change_timeout_ms: 100,
            view_change_timeout_max_ms: 1000,
            weak_view_delay_ms: 20,
            batch_requests: 2,
            ..Tuning::default()
        };
        let cores = size
            .members()
            .map(|id| {
                let setup = Setup {
                    id,
                    membership: membership.clone(),
                    signer: keys.replicas[usize::from(id.0)].clone(),
                    tuning,
                    editions: Editions::with(1..=1),
                    seed: rng.bytes(),
                };
                let slots = std::iter::empty::<Result<_, std::convert::Infallible>>();
                Replica::start(setup, Journal::default(), Recovered::default(), slots, now)
                    .expect("an empty disk")
            })
            .collect();
        let lair = Lair {
            id: ReplicaId(place),
            membership,
            signer: keys.replicas[usize::from(place)].clone(),
            rng: rng.fork(),
            now,
        };
        let villain = named(name).expect("a known villain");
        let client = keys.clients[0].clone();
        let (mail, kinds) = (Vec::new(), BTreeSet::new());
        Self { cores, villain, lair, client, numbers: 0, mail, now, rng, heard: 0, kinds }
    }

    fn run(&mut self, events: u32) {
        // More rounds than events: the others hear something, too.
        for _ in 0..events * 64 {
            if self.heard >= events {
                return;
            }
            let micros = self.rng.between(0, 3000);
            self.pass(micros);
            match self.rng.between(0, 11) {
                0 => self.ask(),
                1 | 2 => {
                    let to = ReplicaId(u8::try_from(self.rng.index(4)).expect("small"));
                    self.hand(to, Event::Tick);
                }
                _ if self.mail.is_empty() => {}
                _ => {
                    // Mail comes in any order, some of it twice, some never.
                    let index = self.rng.index(self.mail.len().min(24));
                    let letter = match self.rng.between(0, 19) {
                        0 => self.mail[index].clone(),
                        _ => self.mail.remove(index),
                    };
                    if !self.rng.one_in(12) {
                        self.deliver(letter);
                    }
                }
            }
        }
    }

    fn pass(&mut self, micros: u64) {
        self.now.instant.0 += micros;
        self.now.wall.0 = 1_700_000_000_000 + self.now.instant.0 / 1000;
    }

    /// The client asks something of some replicas, sometimes two things under one name.
    fn ask(&mut self) {
        self.numbers += 1;
        for _ in 0..=self.rng.between(0, 1) {
            let body = Request {
                client: self.client.public_key().into(),
                session: SessionId(1 << 20),
                number: RequestNumber(self.numbers),
                level: if self.rng.one_in(2) { Level::Strong } else { Level::Weak },
                want_final: true,
                operations: vec![Bytes::from(format!("incr k {}", self.rng.between(1, 9)))],
            };
            let genesis = self.lair.membership.genesis();
            let request = SignedRequest::sign(&*self.client, genesis, body);
            for to in 0..REPLICAS {
                if !self.rng.one_in(4) {
                    let open = self.lair.membership.open_request(request.clone());
                    self.hand(ReplicaId(to), Event::Request(open.expect("signed")));
                }
            }
        }
    }

    fn deliver(&mut self, (from, to, bytes): (ReplicaId, ReplicaId, Bytes)) {
        let message = match decode::<ToReplica>(&bytes) {
            Ok(ToReplica::Peer(message)) => message,
            // Only the villain sends what is no message.
            _ => return assert_eq!(from, self.lair.id),
        };
        match self.lair.membership.open_message(message) {
            Ok(message) => {
                self.kinds.insert(message.kind());
                self.hand(to, Event::Peer { from, message });
            }
            Err(_) => assert_eq!(from, self.lair.id),
        }
    }

    fn hand(&mut self, to: ReplicaId, event: Event) {
        let mut actions = Vec::new();
        if to != self.lair.id {
            self.handle(to, event, &mut actions);
            return actions.into_iter().for_each(|action| self.carry_out(to, action));
        }
        self.heard += 1;
        self.lair.now = self.now;
        let (mut events, mut deeds) = (Vec::new(), Vec::new());
        self.villain.hears(&mut self.lair, event, &mut events);
        events.into_iter().for_each(|event| self.handle(to, event, &mut actions));
        let appended = count_appends(&actions);
        for action in actions {
            self.villain.does(&mut self.lair, action, &mut deeds);
        }
        self.villain.stirs(&mut self.lair, &mut deeds);
        let acts = deeds.iter().filter_map(|deed| match deed {
            Deed::Act(action) => Some(action),
            Deed::Whisper { .. } => None,
        });
        // The disk is not the villain's to lie to: the core would not start from it again.
        assert_eq!(count_appends(acts), appended, "{} tampers with its disk", self.villain.name());
        for deed in deeds {
            match deed {
                Deed::Act(action) => self.carry_out(to, action),
                Deed::Whisper { to: Party::Replica(other), bytes } => {
                    assert_ne!(other, to.0, "{} whispers to itself", self.villain.name());
                    self.mail.push((to, ReplicaId(other), bytes));
                }
                Deed::Whisper { .. } => {}
            }
        }
    }

    /// Everything written is on disk at once.
    fn handle(&mut self, to: ReplicaId, event: Event, actions: &mut Vec<Action>) {
        let core = &mut self.cores[usize::from(to.0)];
        core.handle(self.now, event, actions);
        let last = actions.iter().rev().find_map(|action| match action {
            Action::Append { mark, .. } => Some(*mark),
            _ => None,
        });
        if let Some(mark) = last.filter(|mark| *mark > Mark::NONE) {
            core.handle(self.now, Event::Synced(mark), actions);
        }
    }

    fn carry_out(&mut self, from: ReplicaId, action: Action) {
        let Action::Send { to, message, .. } = action else { return };
        let bytes = encode(&ToReplica::Peer(message)).expect("it fits a frame");
        for id in (0..REPLICAS).map(ReplicaId).filter(|id| *id != from) {
            if to == Target::Others || to == Target::One(id) {
                self.mail.push((from, id, bytes.clone()));
            }
        }
    }
}

fn count_appends<'a>(actions: impl IntoIterator<Item = &'a Action>) -> usize {
    actions.into_iter().filter(|action| matches!(action, Action::Append { .. })).count()
}
