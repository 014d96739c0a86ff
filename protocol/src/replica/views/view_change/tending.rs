//! Looking after everything that waits for other histories, until nothing more is possible with what is here, or
//! eight times in one event.
//!
//! One place does all of it, since each step may make another one possible: a lock that was raised lets a
//! view be entered, a state that is whole lets a lock be raised. Then the histories that are still missing are
//! wished for.

use super::super::branch::Wish;
use super::super::path::{Footing, Reach};
use crate::application::Application;
use crate::id::{ReplicaId, Slot};
use crate::message::{CommitCertificate, Position};
use crate::replica::Replica;
use crate::replica::time::Peer;

impl<A: Application> Replica<A> {
    /// Raises the lock to the highest certificate whose batches are here.
    fn tend_candidates(&mut self) {
        for (from, certificate) in self.lock.highest_candidates() {
            match self.reach(certificate.position()) {
                Reach::Whole(path) => {
                    self.lock.forget_candidate(from);
                    self.raise_lock(certificate, &path);
                    return;
                }
                Reach::Never => {
                    self.lock.forget_candidate(from);
                }
                Reach::Lacks(_) | Reach::NotYet => {}
            }
        }
    }

    /// Where the lock is of the view entered and its history extends the own, its slots are the
    /// next ones: the certificate stands in for orders.
    fn extend_to_lock(&mut self) {
        let lock = self.lock.aside().filter(|lock| lock.body.view == self.entered());
        let Some(end) = lock.map(CommitCertificate::position) else {
            return;
        };
        let Reach::Whole(path) = self.reach(end) else { return };
        if path.footing != Footing::Common(self.history.head().slot) || !self.executes_along(&path)
        {
            return;
        }
        for slot in (path.footing.slot().next().0..=path.top().0).map(Slot) {
            let Some((at, side)) = self.side_on(&path, slot) else { return };
            let side = side.clone();
            if self.must_wait_for_state() {
                return;
            }
            if self.history.goes_through(at) {
                // The slot before let one through that waited here.
                continue;
            }
            if !self.turn.take() {
                return;
            }
            let order = side.order.filter(|order| order.body.header.view == self.entered());
            self.accept(at.hash, side.batch, order);
        }
    }

    /// The histories that are wanted now, with who has them.
    fn wishes(&self) -> Vec<Wish> {
        let mut wishes: Vec<Wish> = Vec::new();
        let mut wish = |end: Position, holder: ReplicaId, word: Option<ReplicaId>| {
            if end.slot == Slot::GENESIS {
                return;
            }
            match wishes.iter_mut().find(|wish| wish.end == end) {
                Some(known) => {
                    known.holders.push(holder);
                    // What is proved needs nobody's word.
                    known.word = known.word.and(word);
                }
                None => wishes.push(Wish { end, holders: vec![holder], word }),
            }
        };
        for (from, certificate) in self.lock.candidates() {
            wish(certificate.position(), *from, None);
        }
        for (view, new_view) in self.changing.offered.iter() {
            wish(new_view.body.header.head, new_view.by, Some(new_view.by));
            for (id, peer) in &self.peers {
                if peer.entered() == Some(view) {
                    wish(new_view.body.header.head, *id, Some(new_view.by));
                }
            }
        }
        let changes = self.own_views().into_iter().flat_map(|view| self.gathered_changes(view));
        for change in changes {
            if let Some(lock) = &change.body.lock {
                wish(lock.position(), change.by, None);
            }
            wish(change.body.head, change.by, Some(change.by));
        }
        if !self.proof_against(self.entered()) {
            for id in self.divergent.iter() {
                if let Some(end) = self.peers.get(id).and_then(Peer::pursued) {
                    wish(end, *id, Some(*id));
                }
            }
        }
        let aside = self.lock.aside().filter(|lock| lock.body.view == self.entered());
        if let Some(lock) = aside {
            for id in self.size.members().filter(|id| *id != self.setup.id) {
                wish(lock.position(), id, None);
            }
        }
        if let Some(whole) = self.arriving.ready() {
            for id in self.size.members().filter(|id| *id != self.setup.id) {
                wish(whole.proof.cover.position(), id, None);
            }
        }
        wishes
    }

    /// Who follows another history in the view entered: one end after the other, each to the end, however
    /// often that one says another. So an honest history is followed although it goes on meanwhile.
    fn pursue(&mut self) {
        let patience = 2 * usize::from(self.size.replicas());
        let ids: Vec<ReplicaId> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get(&id) else { continue };
            let head = peer.position_in(self.entered()).filter(|_| self.divergent.contains(&id));
            let open = peer.pursued().filter(|end| {
                let is_open = matches!(self.reach(*end), Reach::Lacks(_) | Reach::NotYet);
                is_open && self.branches.asked_in_vain(*end) < patience
            });
            let pursued = head.and(open).or(head);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.pursue(pursued);
            }
        }
    }

    /// Looks after everything that is fetched, and does what has become possible with it.
    pub(in crate::replica) fn tend_views(&mut self) {
        if !self.changing.is_busy()
            && self.lock.candidates().is_empty()
            && self.divergent.is_empty()
            && self.arriving.is_empty()
            && !self.is_distrusted()
            && !self.has_to_go_back()
            && self.branches.is_empty()
        {
            self.branches.clear();
            self.note_kept_out(None);
            return;
        }
        self.go_back_to_stable();
        if self.is_adopting() {
            return;
        }
        self.follow_trails();
        self.pursue();
        // Each step may make another one possible.
        for _ in 0..8 {
            let before = (self.entered(), self.lock.rank(), self.stable());
            self.tend_candidates();
            self.extend_to_lock();
            self.tend_transfer();
            if self.is_adopting() {
                return;
            }
            // One at a time: what the first one has not carried out yet would be lost.
            let is_preparing = self.enter_offered();
            if !is_preparing && !self.is_adopting() {
                self.begin_views();
            }
            if self.is_adopting() {
                return;
            }
            let proven = self.proof_against(self.entered());
            for id in self.divergent.to_vec().into_iter().filter(|_| !proven) {
                let end = self.peers.get(&id).and_then(Peer::pursued);
                if let Some(end) = end {
                    self.prove_divergence(end);
                }
            }
            self.reconsider();
            let after = (self.entered(), self.lock.rank(), self.stable());
            if after == before {
                break;
            }
        }
        let wishes = self.wishes();
        self.fetch_branches(&wishes);
    }
}
