//! What is known of the other replicas' lists of clients.

use std::collections::BTreeSet;

use crate::codec::Canonical;
use crate::id::{ClientId, Digest, Instant};
use crate::membership::{ClientList, Membership};

/// How long it takes until a peer's list is asked for again, in ms. A liar could show a new one in each
/// status.
const ASK_AGAIN_MS: u64 = 2000;

/// Another replica's list, as far as it is not the own one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PeerList {
    /// It takes everybody.
    Open,
    /// It takes these, where here everybody is taken.
    Only(BTreeSet<ClientId>),
    /// It lists these besides, and these not.
    Listed { more: BTreeSet<ClientId>, fewer: BTreeSet<ClientId> },
}

/// What is known of another replica's list.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct PeerClients {
    /// Its digest, by the newest status.
    digest: Option<Digest>,
    /// What the digest stands for, where that is another list than the own one.
    list: Option<PeerList>,
    asked: Option<Instant>,
}

impl PeerClients {
    /// A status tells of its list. Answers whether that has to be asked for.
    pub(super) fn hears(&mut self, digest: Digest, own: &Membership, now: Instant) -> bool {
        if self.digest != Some(digest) {
            self.digest = Some(digest);
            let is_open = digest == ClientList(None).digest() && digest != *own.client_list();
            self.list = is_open.then_some(PeerList::Open);
        }
        let due = self.asked.is_none_or(|asked| asked.after_ms(ASK_AGAIN_MS) <= now);
        let wants = self.list.is_none() && digest != *own.client_list() && due;
        if wants {
            self.asked = Some(now);
        }
        wants
    }

    /// Its list came, asked for. `false` where it is not the one that it named, or the own one.
    pub(super) fn learn(&mut self, listed: BTreeSet<ClientId>, own: &Membership) -> bool {
        let digest = ClientList(Some(&listed)).digest();
        if self.digest != Some(digest) || digest == *own.client_list() {
            return false;
        }
        self.list = Some(match own.clients() {
            None => PeerList::Only(listed),
            Some(known) => PeerList::Listed {
                more: listed.difference(known).copied().collect(),
                fewer: known.difference(&listed).copied().collect(),
            },
        });
        true
    }

    /// Whether it is known to be another one than the own.
    pub(super) fn differs(&self, own: &Membership) -> bool {
        self.digest.as_ref().is_some_and(|list| list != own.client_list())
    }

    /// Some of the clients that it lists and the own one does not, and the other way round.
    pub(super) fn differences(&self, most: usize) -> (Vec<ClientId>, Vec<ClientId>) {
        let few = |clients: &BTreeSet<ClientId>| clients.iter().take(most).copied().collect();
        match &self.list {
            Some(PeerList::Listed { more, fewer }) => (few(more), few(fewer)),
            Some(PeerList::Open | PeerList::Only(_)) | None => (Vec::new(), Vec::new()),
        }
    }

    /// Whether it lists a client; `None` where that is not known.
    pub(super) fn lists(&self, client: &ClientId, own: &Membership) -> Option<bool> {
        if self.digest.as_ref()? == own.client_list() {
            return Some(own.admits(client));
        }
        Some(match self.list.as_ref()? {
            PeerList::Open => true,
            PeerList::Only(listed) => listed.contains(client),
            PeerList::Listed { more, fewer } => {
                more.contains(client) || (own.admits(client) && !fewer.contains(client))
            }
        })
    }
}
