//! A replica that means well.

use super::Villain;

/// Does all that its core does, and its application loses a key now and then.
///
/// Its core must notice, with the next stable checkpoint, that its own state is another one, and
/// put the certified one in its place: a page in `tests/traces/checkpoints` shows it. Until then its
/// votes and replies are wrong, which others cannot tell from lies.
#[derive(Default)]
pub struct BadMemory;

impl Villain for BadMemory {
    fn name(&self) -> &'static str {
        "bad-memory"
    }

    fn has_bad_memory(&self) -> bool {
        true
    }
}
