//! What leaves the replica, once it may: to the links of peers and the connections of clients.
//!
//! Called by whoever has the core and by the store's thread, it only ever puts something into a bounded queue
//! or drops and counts it. Encoding happens later, on the runtime's threads.

use std::sync::Arc;

use elea_protocol::id::{ClientId, SessionId};
use elea_protocol::message::{Message, ToClient};
use elea_protocol::replica::Target;

use crate::clients::Clients;
use crate::measures::Measures;
use crate::peer_link::{Link, Parcel};
use crate::weight;

/// Something on its way out.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// To replicas.
    ToPeers { to: Target, message: Message },
    /// To a client.
    ToClient { client: ClientId, session: Option<SessionId>, message: ToClient },
}

impl Outgoing {
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::ToPeers { message, .. } => weight::message(message),
            Self::ToClient { message, .. } => weight::answer(message),
        }
    }
}

/// All ways out.
pub(crate) struct Outbound {
    /// By replica id; `None` at the own.
    pub(crate) links: Vec<Option<Link>>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) measures: Arc<Measures>,
}

impl Outbound {
    /// Queues it where it belongs.
    pub(crate) fn send(&self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::ToPeers { to, message } => {
                tracing::trace!(kind = message.kind(), ?to, "send");
                let parcel = Arc::new(Parcel::new(message));
                match to {
                    Target::Others => {
                        self.links.iter().flatten().for_each(|link| link.send(&parcel));
                    }
                    Target::One(id) => {
                        // The core has no reason to send to itself or to nobody.
                        if let Some(Some(link)) = self.links.get(usize::from(id.0)) {
                            link.send(&parcel);
                        }
                    }
                }
            }
            Outgoing::ToClient { client, session, message } => {
                self.measures.answers(&message);
                self.clients.answer(&client, session, message);
            }
        }
    }
}
