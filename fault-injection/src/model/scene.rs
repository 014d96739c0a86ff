//! Where explorations begin: situations that matter, and how to come there.
//!
//! From the very beginning a breadth-first search sees little but the first few orders. A scene
//! has an opening, played move by move, and the search begins where it ends.

use elea_protocol::message::Level::{self, Strong, Weak};

/// A part of an opening. Machines are meant by their indices.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    /// These machines hear everything of these kinds that comes from these replicas or, where
    /// nobody is named, from clients, until there is nothing more.
    Hear(&'static [usize], &'static [&'static str], &'static [u8]),
    /// Among these machines, which run these replicas, everything arrives.
    HearAll(&'static [usize], &'static [u8]),
    /// Time passes on a machine, so often.
    Wait(usize, usize),
    /// Time passes on a machine until its core counts one more of these.
    Until(usize, &'static str),
    /// What replicas said and nobody heard yet is lost.
    Lose,
    /// The same of what was said to these machines.
    LoseTo(&'static [usize]),
}

/// How far an exploration goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How often time passes on each machine.
    pub ticks: u32,
    /// How often machines start again, all together.
    pub restarts: u32,
    /// How many of them are told that they are going to be stopped.
    pub leaves: u32,
    /// The highest view that correct replicas enter.
    pub view: u64,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// For the command line.
    pub name: &'static str,
    /// In a sentence.
    pub about: &'static str,
    /// Which replica runs on each machine. One that is named twice has a twin.
    pub machines: &'static [u8],
    /// Who lies.
    pub liars: &'static [u8],
    /// Which machines are put back to an older program when they start again, unless what is on their disk takes the newer one.
    /// Where none is, there is one program.
    pub put_back: &'static [usize],
    /// What clients ask for, and which machines hear of it.
    pub requests: &'static [(Level, &'static str, &'static [usize])],
    /// How to come to where the exploration begins.
    pub opening: &'static [Move],
    /// Its bounds.
    pub bounds: Limits,
}

const ALL: &[u8] = &[0, 1, 2, 3];
const CLIENTS: &[u8] = &[];

/// All scenes whose rules must hold.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "orders",
        about: "two orders are out and not committed; r3 votes for everything and every side",
        machines: &[0, 1, 2],
        liars: &[3],
        put_back: &[],
        requests: &[(Strong, "incr a 1", &[0, 1, 2]), (Weak, "append a x", &[0, 1, 2])],
        opening: &[Move::Hear(&[0], &["request"], CLIENTS)],
        bounds: Limits { ticks: 4, restarts: 0, leaves: 0, view: 2 },
    },
    Scene {
        name: "forgotten",
        about: "nothing is ordered yet, and a primary may crash and forget what it has just ordered",
        machines: &[0, 1, 2],
        liars: &[3],
        put_back: &[],
        requests: &[(Strong, "incr a 1", &[0, 1]), (Weak, "append a x", &[0, 2])],
        opening: &[Move::Hear(&[1, 2], &["request"], CLIENTS)],
        bounds: Limits { ticks: 3, restarts: 1, leaves: 0, view: 2 },
    },
    Scene {
        name: "leaving",
        about: "two orders are out and not committed; replicas are told that they are going to be stopped, and start again",
        machines: &[0, 1, 2],
        liars: &[3],
        put_back: &[],
        requests: &[(Strong, "incr a 1", &[0, 1, 2]), (Weak, "append a x", &[0, 1, 2])],
        opening: &[Move::Hear(&[0], &["request"], CLIENTS)],
        bounds: Limits { ticks: 3, restarts: 1, leaves: 2, view: 3 },
    },
    Scene {
        name: "put-back",
        about: "all are known to execute a newer edition, and nothing of it is ordered; r3 may be put back to a program that \
                does not",
        machines: ALL,
        liars: &[],
        put_back: &[3],
        requests: &[(Strong, "incr a 1", &[0, 3]), (Weak, "append a x", &[0, 1])],
        opening: &[
            Move::Wait(0, 1),
            Move::Wait(1, 1),
            Move::Wait(2, 1),
            Move::Wait(3, 1),
            Move::Hear(&[0, 1, 2, 3], &["status"], ALL),
            Move::Lose,
        ],
        bounds: Limits { ticks: 3, restarts: 1, leaves: 0, view: 2 },
    },
    Scene {
        name: "equivocation",
        about: "r0 and its twin have ordered different requests for slot 1",
        machines: &[0, 0, 1, 2, 3],
        liars: &[0],
        put_back: &[],
        requests: &[(Strong, "incr a 1", &[0, 2, 3]), (Strong, "append a x", &[1, 4])],
        opening: &[Move::Hear(&[0, 1], &["request"], CLIENTS)],
        bounds: Limits { ticks: 4, restarts: 0, leaves: 0, view: 2 },
    },
    Scene {
        name: "halves",
        about: "r0 and r3 went on in view 0, r1 and r2 in a weak view 1; the network heals",
        machines: ALL,
        liars: &[],
        put_back: &[],
        requests: &[
            (Weak, "incr a 1", &[0, 3]),
            (Weak, "append a x", &[1, 2]),
            (Strong, "append a y", &[0, 1]),
        ],
        opening: &[
            Move::HearAll(&[0, 3], &[0, 3]),
            Move::HearAll(&[1, 2], &[1, 2]),
            Move::Until(1, "suspicions"),
            Move::Until(2, "suspicions"),
            Move::HearAll(&[1, 2], &[1, 2]),
            Move::Lose,
            Move::Until(1, "new_views_made"),
            Move::HearAll(&[1, 2], &[1, 2]),
        ],
        bounds: Limits { ticks: 3, restarts: 1, leaves: 0, view: 2 },
    },
    Scene {
        name: "bridge",
        about: "r0 went on alone in view 0; with the votes of the liar r3, r1 and r2 committed in \
                a weak view 1",
        machines: &[0, 1, 2],
        liars: &[3],
        put_back: &[],
        requests: &[(Weak, "incr a 1", &[0]), (Strong, "append a x", &[1, 2])],
        opening: &[
            Move::HearAll(&[0], &[]),
            Move::HearAll(&[1, 2], &[1, 2]),
            Move::Until(1, "suspicions"),
            Move::Until(2, "suspicions"),
            Move::HearAll(&[1, 2], &[1, 2]),
            Move::Lose,
            Move::Until(1, "new_views_made"),
            Move::HearAll(&[1, 2], &[1, 2, 3]),
        ],
        bounds: Limits { ticks: 4, restarts: 1, leaves: 0, view: 2 },
    },
    Scene {
        name: "lock",
        about: "r0 and r1 answered for slot 1 with the liar r3; r2 never heard of it and wants \
                another view",
        machines: &[0, 1, 2],
        liars: &[3],
        put_back: &[],
        requests: &[(Strong, "incr a 1", &[0, 1]), (Strong, "append a x", &[2])],
        opening: &[
            Move::HearAll(&[0, 1], &[0, 1, 3]),
            Move::LoseTo(&[2]),
            Move::HearAll(&[2], &[]),
            Move::Until(2, "suspicions"),
        ],
        bounds: Limits { ticks: 3, restarts: 1, leaves: 0, view: 3 },
    },
    Scene {
        name: "lock-ignored",
        about: "as `lock`, and r2 has begun view 2 with the liar alone, on a history without the \
                slot",
        machines: &[0, 1, 2],
        liars: &[3],
        put_back: &[],
        requests: &[(Strong, "incr a 1", &[0, 1]), (Strong, "append a x", &[2])],
        opening: &[
            Move::HearAll(&[0, 1], &[0, 1, 3]),
            Move::LoseTo(&[2]),
            Move::HearAll(&[2], &[]),
            Move::Until(2, "suspicions"),
            Move::HearAll(&[2], &[3]),
            Move::Until(2, "campaigns"),
            Move::HearAll(&[2], &[3]),
            Move::Lose,
            Move::Until(2, "new_views_made"),
        ],
        bounds: Limits { ticks: 3, restarts: 1, leaves: 0, view: 3 },
    },
    Scene {
        name: "two-new-views",
        about: "r1 and its twin each begin view 1, with different histories",
        machines: &[0, 1, 1, 2, 3],
        liars: &[1],
        put_back: &[],
        requests: &[(Strong, "incr a 1", &[0, 1, 3]), (Weak, "append a x", &[2, 3, 4])],
        opening: &[
            Move::HearAll(&[0, 1, 3], &[]),
            Move::Hear(&[1, 3], &["order"], &[0]),
            Move::Lose,
            Move::HearAll(&[2, 3, 4], &[]),
            Move::Until(3, "suspicions"),
            Move::Until(4, "suspicions"),
            Move::Hear(&[1, 2, 3, 4], &["suspect"], &[2, 3]),
            Move::Hear(&[1], &["campaign"], &[2]),
            Move::Hear(&[2], &["campaign"], &[3]),
            Move::Lose,
            Move::Until(1, "new_views_made"),
            Move::Until(2, "new_views_made"),
        ],
        bounds: Limits { ticks: 3, restarts: 0, leaves: 0, view: 2 },
    },
];

impl Scene {
    /// The scene of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENES.iter().find(|scene| scene.name == name)
    }
}
