//! A deterministic world for Elea's state machines: one seed is one whole world.
//!
//! The replicas and clients in it are the real cores. The clock, the network, the disks and the
//! Byzantine ones are made here, and [checkers](check) look at every step. Villains wrap a correct
//! core from outside; nothing in shipped code knows that it is in a simulation.
//!
//! Start with [`plan`] for what a seed decides, [`world`] for what happens, and [`run`] for the
//! verdict.

pub mod campaign;
pub mod check;
pub mod client_side;
pub mod coverage;
pub mod disk;
pub mod founding;
pub mod fuzz;
pub mod hostile;
pub mod inspect;
pub mod journal;
pub mod keys;
pub mod model;
pub mod mutants;
pub mod network;
pub mod node;
pub mod patron;
pub mod plan;
pub mod restate;
pub mod rng;
pub mod run;
pub mod script;
pub mod subject;
pub mod trace;
pub mod villain;
pub mod violation;
pub mod world;
