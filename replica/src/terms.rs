//! With whom this replica disagrees on what decides results, and what it says of that.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use elea_protocol::id::ReplicaId;
use elea_protocol::message::{Difference, Disagreement, Terms, WireVersions};

/// The own terms, and who has others.
pub(crate) struct Agreement {
    own: Terms,
    others: Mutex<BTreeMap<ReplicaId, Vec<Difference>>>,
}

impl Agreement {
    pub(crate) fn new(own: Terms) -> Self {
        Self { own, others: Mutex::default() }
    }

    pub(crate) fn own(&self) -> &Terms {
        &self.own
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Vec<Difference>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a peer's terms. Answers whether they are the own ones.
    pub(crate) fn compare(&self, peer: ReplicaId, theirs: &Terms) -> bool {
        self.note(peer, self.own.differences(theirs))
    }

    /// Takes note that a peer's program speaks no version of frames that is spoken here.
    pub(crate) fn note_versions(&self, peer: ReplicaId, here: WireVersions, there: WireVersions) {
        let settings = vec![Difference {
            name: String::from("wire_version"),
            here: Some(here.to_string()),
            there: Some(there.to_string()),
        }];
        self.note(peer, settings);
    }

    /// What differs is told in the log when it becomes known, and not each time that the two try again.
    fn note(&self, peer: ReplicaId, settings: Vec<Difference>) -> bool {
        let mut others = self.others();
        if settings.is_empty() {
            if others.remove(&peer).is_some() {
                tracing::info!(%peer, "its settings are the ones here again");
            }
            return true;
        }
        if others.get(&peer) != Some(&settings) {
            tracing::error!(
                %peer,
                "SETTINGS DIFFER: {}; what decides results must be the same everywhere, so the two \
                 do not speak to each other (docs/operations.md, \"Settings that differ\")",
                told(&settings),
            );
            others.insert(peer, settings);
        }
        false
    }

    /// With whom there is none.
    pub(crate) fn disagreements(&self) -> Vec<Disagreement> {
        let others = self.others();
        let each = others.iter().map(|(replica, settings)| Disagreement {
            replica: *replica,
            settings: settings.clone(),
        });
        each.collect()
    }
}

fn told(settings: &[Difference]) -> String {
    settings.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
