//! What may stand in the next slot.

use std::collections::BTreeSet;

use super::Sessions;
use crate::id::{RequestName, RequestNumber};
use crate::message::{RefusalReason, Request};

/// Checks the requests of one slot, one after the other.
///
/// All is checked against the state before the slot, but for repeated names. That is a little stricter than
/// request by request, and spares the check an execution.
pub struct Admission<'a> {
    sessions: &'a Sessions,
    names: BTreeSet<RequestName>,
}

impl<'a> Admission<'a> {
    pub(super) fn new(sessions: &'a Sessions) -> Self {
        Self { sessions, names: BTreeSet::new() }
    }
}

impl Admission<'_> {
    /// Whether the request may come next in the slot; if so, its name counts for those that follow.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admit(&mut self, request: &Request) -> Result<(), RefusalReason> {
        let name = request.name();
        let table = self.sessions;
        let session = table.session(&name.client, name.session);
        let floor = table.floor(&name.client);
        if session.is_none() && name.session < floor {
            return Err(RefusalReason::SessionRetired);
        }
        if session.is_none() && table.openings.is_too_far(name.session, floor) {
            return Err(RefusalReason::SessionTooFar);
        }
        let executed = session.is_some_and(|session| session.executed.contains(name.number));
        let repeated = self.names.contains(&name);
        if repeated || executed {
            return Err(RefusalReason::NameUsed);
        }
        let lowest = session.map_or(RequestNumber::FIRST, |session| session.executed.lowest_open());
        if name.number.0 - lowest.0.min(name.number.0) >= table.rules.session_window {
            return Err(RefusalReason::WindowExceeded);
        }
        self.names.insert(name);
        Ok(())
    }
}
