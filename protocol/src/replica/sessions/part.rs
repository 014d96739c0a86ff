//! The table in parts: what a leaf of its tree stands for, and what is sent to rebuild it.
//!
//! A client can fill its sessions with more results than a frame holds, so that neither a client
//! nor a session can be the unit that is sent. A part is a client without its sessions, a session
//! without its results, or the results of one *page* of a session: of as many consecutive request
//! numbers as are sure to fit a chunk. One more tells of all sessions that were ever opened. Parts know nothing of
//! each other. Which there are, and that
//! they fit together, is for the digest of the whole tree to say.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::client::Session;
use super::openings::Openings;
use super::page::{KEPT_WEIGHT, LENGTH_WEIGHT, PART_WEIGHT, Page};
use super::{Kept, Sessions};
use crate::codec::{Canonical, Sink};
use crate::id::{ClientId, RequestNumber, SessionId, Slot};
use crate::message::Results;
use crate::trie::Leaf;
use crate::tuning::Rules;

/// What the openings take.
const OPENINGS_WEIGHT: usize = 32;
/// What an interval takes.
const INTERVAL_WEIGHT: usize = 16;
/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PartName {
    Openings,
    Client(ClientId),
    Session(ClientId, SessionId),
    Results(ClientId, SessionId, Page),
}

impl Canonical for PartName {
    const TAG: &'static str = "session-part-name";

    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Client(client) => {
                to.put_u8(0);
                to.put_client(client);
            }
            Self::Session(client, session) => {
                to.put_u8(1);
                to.put_client(client);
                to.put_u64(session.0);
            }
            Self::Results(client, session, page) => {
                to.put_u8(2);
                to.put_client(client);
                to.put_u64(session.0);
                to.put_u64(page.0);
            }
            Self::Openings => to.put_u8(3),
        }
    }
}

/// A part as it is hashed and as it is sent.
///
/// The digest covers it as it stands. Lists are not brought into order and nothing is left out
/// before it is hashed, so that of all byte strings one alone is the right part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    Client {
        client: ClientId,
        floor: SessionId,
    },
    Session {
        client: ClientId,
        session: SessionId,
        /// See [`Executed`](super::executed::Executed).
        executed: Vec<(u64, u64)>,
        /// See [`Session::used`].
        used: Slot,
    },
    Results {
        client: ClientId,
        session: SessionId,
        page: Page,
        kept: Vec<(RequestNumber, Arc<Kept>)>,
    },
    Openings {
        generation: u64,
        opened: u64,
        horizon: SessionId,
    },
}

/// The name is not in it: it is the key of the leaf, which the leaf's digest covers as well.
impl Canonical for Part {
    const TAG: &'static str = "session-part";

    fn write(&self, to: &mut impl Sink) {
        match self {
            Self::Client { floor, .. } => {
                to.put_u8(0);
                to.put_u64(floor.0);
            }
            Self::Session { executed, used, .. } => {
                to.put_u8(1);
                to.put_u64(used.0);
                to.put_len(executed.len());
                for (start, end) in executed {
                    to.put_u64(*start);
                    to.put_u64(*end);
                }
            }
            Self::Results { kept, .. } => {
                to.put_u8(2);
                to.put_len(kept.len());
                for (number, Kept { at, index, request, results }) in
                    kept.iter().map(|(number, kept)| (number, &**kept))
                {
                    to.put_u64(number.0);
                    to.put_u64(at.slot.0);
                    to.put_digest(&at.hash);
                    to.put_u64(u64::from(*index));
                    to.put_digest(request);
                    // Full and forgotten results have one digest. If only that were covered, a
                    // peer could send each result as forgotten, and a client that asks again
                    // would never learn what came out. What is kept follows from the history and
                    // the rules, so all correct replicas agree about it.
                    to.put_u8(match results {
                        Results::Full(_) => 0,
                        Results::Forgotten(_) => 1,
                    });
                    to.put_digest(&results.digest());
                }
            }
            Self::Openings { generation, opened, horizon } => {
                to.put_u8(3);
                to.put_u64(*generation);
                to.put_u64(*opened);
                to.put_u64(horizon.0);
            }
        }
    }
}

impl Part {
    pub(super) fn name(&self) -> PartName {
        match self {
            Self::Client { client, .. } => PartName::Client(*client),
            Self::Session { client, session, .. } => PartName::Session(*client, *session),
            Self::Results { client, session, page, .. } => {
                PartName::Results(*client, *session, *page)
            }
            Self::Openings { .. } => PartName::Openings,
        }
    }

    /// At least the bytes it takes to send it, and not many more.
    pub(super) fn weight(&self) -> u32 {
        let bytes = match self {
            Self::Client { .. } => PART_WEIGHT,
            Self::Openings { .. } => OPENINGS_WEIGHT,
            Self::Session { executed, .. } => PART_WEIGHT + INTERVAL_WEIGHT * executed.len(),
            Self::Results { kept, .. } => {
                let each = |kept: &Kept| {
                    let count = match &kept.results {
                        Results::Full(results) => 1 + results.len(),
                        Results::Forgotten(_) => 0,
                    };
                    KEPT_WEIGHT + LENGTH_WEIGHT * count + kept.results.size()
                };
                PART_WEIGHT + kept.iter().map(|(_, kept)| each(kept)).sum::<usize>()
            }
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    pub(super) fn leaf(&self) -> Leaf<PartName> {
        Leaf { digest: self.digest(), weight: self.weight(), value: self.name() }
    }
}

/// The parts that a session makes.
pub(super) fn of_session(
    client: ClientId,
    id: SessionId,
    session: &Session,
    rules: &Rules,
) -> impl Iterator<Item = PartName> {
    let pages = session.pages(rules).into_iter();
    std::iter::once(PartName::Session(client, id))
        .chain(pages.map(move |page| PartName::Results(client, id, page)))
}

impl Sessions {
    /// One part of the table; `None` where the table has none of this name.
    pub(super) fn part(&self, name: &PartName) -> Option<Part> {
        match *name {
            PartName::Client(client) => {
                let floor = self.clients.get(&client)?.floor;
                Some(Part::Client { client, floor })
            }
            PartName::Session(client, session) => {
                let Session { executed, used, kept: _ } = self.session(&client, session)?;
                Some(Part::Session { client, session, executed: executed.intervals(), used: *used })
            }
            PartName::Results(client, session, page) => {
                let kept = self.session(&client, session)?.kept_on(page, &self.rules);
                (!kept.is_empty()).then_some(Part::Results { client, session, page, kept })
            }
            PartName::Openings => {
                let Openings { generation, opened, horizon } = self.openings;
                let is_new = self.openings == Openings::default();
                (!is_new).then_some(Part::Openings { generation, opened, horizon })
            }
        }
    }
}
