//! A whole cluster, with one replica that does what the bytes say.

use elea_fault_injection::fuzz;
use elea_fault_injection::rng::Rng;
use elea_fault_injection::subject::JournalWorld;

/// The most bytes of one input: a world with more to do lasts too long.
const BYTES_MAX: usize = 2048;

/// Every rule holds after every step, and everybody agrees in the end.
pub(crate) fn world(bytes: &[u8]) {
    let bytes = bytes.get(..BYTES_MAX).unwrap_or(bytes);
    if let Err(violation) = fuzz::world::<JournalWorld>(bytes) {
        panic!("{violation}");
    }
}

/// Without structure: there is no input without a meaning.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut rng = Rng::new(1);
    (0..16).map(|index| (0..32 << (index / 4)).map(|_| rng.bytes::<1>()[0]).collect()).collect()
}
