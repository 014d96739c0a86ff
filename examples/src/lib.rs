//! An application of its own beside the key-value store: [`counter`]. The other examples need none and are
//! programs, in `src/bin`.

pub mod counter;
