//! Which ids new sessions are to have.

use crate::id::SessionId;
use crate::tuning::Rules;

/// So many generations above the present one a session may lie. Parts of a network count apart, so
/// that one may be ahead of another by what it opened alone. Without a limit one client could open a session with
/// the highest of all ids, and when it left nobody unknown could ever open another.
const AHEAD_MAX: u64 = 1 << 16;

/// Counts the sessions that were ever opened, in generations: new sessions take the present one, and what
/// is opened later has no lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Openings {
    pub generation: u64,
    /// Sessions opened in this generation.
    pub opened: u64,
    /// Above every session of the clients that have left the table.
    pub horizon: SessionId,
}

impl Openings {
    /// A session was opened.
    pub fn note(&mut self, rules: &Rules) {
        self.opened += 1;
        // A generation is short beside what a client may have: a floor comes to lie in one only when
        // the client has opened several since.
        if self.opened >= (rules.max_sessions / 8).max(1) {
            self.generation = (self.generation + 1).min(SessionId::GENERATION_MAX);
            self.opened = 0;
        }
    }

    /// The least generation for new sessions of a client with this floor.
    fn above(&self, floor: SessionId) -> u64 {
        let beyond = if floor == SessionId::default() { 0 } else { floor.generation() + 1 };
        self.generation.max(beyond).min(SessionId::GENERATION_MAX)
    }

    /// From where on new sessions of a client with this floor are to lie.
    pub fn opening(&self, floor: SessionId) -> SessionId {
        SessionId::first_of(self.above(floor))
    }

    /// Whether a session lies so far up that nobody can have been told to open it.
    pub fn is_too_far(&self, session: SessionId, floor: SessionId) -> bool {
        session.generation() > self.above(floor).saturating_add(AHEAD_MAX)
    }
}
