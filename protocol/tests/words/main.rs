//! The protocol from outside: what is signed, what is let in, and what a replica cannot be made to do.

mod admission;
mod core;
mod editions;
mod frames;
mod liar;
mod members;
mod proofs;
mod rejections;
mod signatures;
mod vectors;
mod views;
