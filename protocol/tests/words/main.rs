//! The words of the protocol from outside: what is signed, and what is let in.

mod rejections;
mod vectors;
