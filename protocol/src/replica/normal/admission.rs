//! Which clients are admitted, where replicas list different ones.
//!
//! A client's signature can always be checked, for its name is its key. The list says only whose
//! requests are wanted, and every operator has one of their own: while a client is being added or taken
//! off, they differ. A request stands in a slot if a correct replica lists its client; so a
//! replica that does not know a client goes by what `f + 1` others list, and nobody waits for what the
//! others would not accept.

use std::collections::BTreeSet;

use crate::application::Application;
use crate::id::{ClientId, Digest, ReplicaId};
use crate::message::{Clients, OtherList, Wanted};
use crate::quorum::Strength;
use crate::replica::Replica;
use crate::replica::time::Peer;

/// So many clients are named of each difference between two lists.
const NAMED: usize = 8;

impl<A: Application> Replica<A> {
    /// How many others list a client, and how many are known not to.
    fn others_who_list(&self, client: &ClientId) -> (usize, usize) {
        let own = &self.setup.membership;
        let said = self.peers.values().filter_map(|peer| peer.clients().lists(client, own));
        said.fold((0, 0), |(yes, no), lists| if lists { (yes + 1, no) } else { (yes, no + 1) })
    }

    /// Whether a replica lists a client; `None` where that is not known.
    pub(in crate::replica) fn lists_client(
        &self,
        id: ReplicaId,
        client: &ClientId,
    ) -> Option<bool> {
        let own = &self.setup.membership;
        if id == self.setup.id {
            return Some(own.admits(client));
        }
        self.peers.get(&id)?.clients().lists(client, own)
    }

    /// Whether anybody is known to have another list than the own one.
    pub(in crate::replica) fn lists_differ(&self) -> bool {
        let own = &self.setup.membership;
        self.peers.values().any(|peer| peer.clients().differs(own))
    }

    /// Whether a request of this client may stand in an order: it is listed here, or by `f + 1` others.
    pub(in crate::replica) fn is_admitted(&self, client: &ClientId) -> bool {
        let enough = |(yes, _)| self.size.suffices(yes, Strength::Weak);
        self.setup.membership.admits(client) || enough(self.others_who_list(client))
    }

    /// Whether all may be expected to accept an order of this client: `f + 1` list it, or, as long as
    /// nobody is known not to, this replica does. A backup waits for no other ones.
    pub(in crate::replica) fn may_be_ordered(&self, client: &ClientId) -> bool {
        let listed = self.setup.membership.admits(client);
        let (yes, no) = self.others_who_list(client);
        self.size.suffices(yes + usize::from(listed), Strength::Weak) || (listed && no == 0)
    }

    /// Whether a request is not taken from a client that is listed here: it may not be ordered, or too few others know the
    /// client for the answers that it needs.
    pub(super) fn is_stranger(&self, client: &ClientId, strength: Strength) -> bool {
        !self.may_be_ordered(client) || self.is_known_to_few(client, strength)
    }

    /// Whether so many are known not to list a client that its requests cannot be answered. Whose list is not known yet may
    /// list it: a replica that has just started refuses nobody.
    pub(super) fn is_known_to_few(&self, client: &ClientId, strength: Strength) -> bool {
        let listed = self.setup.membership.admits(client);
        let (_, no) = self.others_who_list(client);
        let could = usize::from(self.size.replicas()).saturating_sub(no + usize::from(!listed));
        !self.size.suffices(could, strength)
    }

    /// A peer's status names its list.
    pub(in crate::replica) fn hear_of_list(&mut self, from: ReplicaId, digest: Digest) {
        let (own, now) = (&self.setup.membership, self.now.instant);
        let peer = self.peers.entry(from).or_default();
        if peer.clients_mut().hears(digest, own, now) {
            self.ask(Some(from), Wanted::Clients);
        }
    }

    /// A peer sends its list, asked for.
    pub(in crate::replica) fn on_clients(&mut self, from: ReplicaId, clients: Clients) {
        let listed: BTreeSet<ClientId> = clients.0.into_iter().collect();
        let own = &self.setup.membership;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if !peer.clients_mut().learn(listed, own) {
            self.counters.useless_answers += 1;
            return;
        }
        self.advance();
    }

    /// Sends the own list, if there is one.
    pub(super) fn list_to_serve(&self) -> Option<Clients> {
        self.setup.membership.clients().map(|clients| Clients(clients.iter().copied().collect()))
    }

    /// Whose lists are other ones, for the operator.
    pub(super) fn other_lists(&self) -> Vec<OtherList> {
        let own = &self.setup.membership;
        let other = |(id, peer): (&ReplicaId, &Peer)| {
            let (not_here, not_there) = peer.clients().differences(NAMED);
            let differs = peer.clients().differs(own);
            differs.then_some(OtherList { replica: *id, not_there, not_here })
        };
        self.peers.iter().filter_map(other).collect()
    }
}
