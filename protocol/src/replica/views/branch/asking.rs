//! Asking for what is missing of the histories that are wished for, and letting go of those that nobody wishes for.

use std::collections::BTreeSet;

use super::super::path::Reach;
use super::super::trail::Trail;
use super::Wish;
use crate::application::Application;
use crate::id::{Instant, ReplicaId};
use crate::message::{CommitCertificate, Position, SLOTS_MAX, Wanted};
use crate::replica::Replica;

/// The least credit that a replica may have.
const CREDIT_LEAST: u64 = 16 * SLOTS_MAX as u64;

impl<A: Application> Replica<A> {
    /// How many slots may be fetched on the word of one replica at once.
    fn credit_max(&self) -> u64 {
        (2 * self.branch_max() as u64).max(CREDIT_LEAST)
    }

    /// When somebody else is asked for what does not come.
    pub(in crate::replica) fn branch_fetch_at(&self) -> Option<Instant> {
        let wait = self.answer_wait_ms(self.fetching.pace());
        self.branches.oldest_asked().map(|since| since.after_ms(wait))
    }

    /// Fetches what the wishes lack, and lets go of what nobody wishes for.
    pub(in crate::replica::views) fn fetch_branches(&mut self, wishes: &[Wish]) {
        let now = self.now.instant;
        self.keep_trails(wishes);
        let most = self.credit_max();
        let wait = self.answer_wait_ms(self.fetching.pace());
        let mut asks = Vec::new();
        let mut lacking = BTreeSet::new();
        let mut is_late = false;
        for wish in wishes {
            let Reach::Lacks(below) = self.reach(wish.end) else { continue };
            lacking.insert(wish.end);
            let credit = wish.word.map(|id| self.peers.entry(id).or_default().credit_mut());
            if credit.is_some_and(|credit| !credit.is_left(now, most)) {
                // What it said before came to nothing.
                let is_new = self.branches.questions_mut().put_off(wish.end, now);
                self.counters.branches_over_credit += u64::from(is_new);
                continue;
            }
            let turn = self.branches.questions_mut().ask(wish.end, below, now, wait);
            let Some(turn) = turn else { continue };
            is_late |= turn.is_again;
            asks.push((self.holder(wish, turn.count), below));
        }
        self.branches.questions_mut().retain(&lacking);
        if is_late {
            self.fetching.missed();
        }
        // Two wishes may lack the same.
        let mut sent = BTreeSet::new();
        for (to, below) in asks {
            let Some(to) = to.filter(|to| sent.insert((*to, below))) else { continue };
            self.counters.branch_fetches += 1;
            self.fetching.asks_for_branch_of(to, now);
            let known = self.history.locator();
            self.ask(Some(to), Wanted::Branch { head: below, known });
        }
    }

    /// Every wish has a trail, and what nobody wishes for goes.
    fn keep_trails(&mut self, wishes: &[Wish]) {
        let lock = self.lock.aside().map(CommitCertificate::position);
        let wanted: BTreeSet<Position> =
            wishes.iter().map(|wish| wish.end).chain(lock).chain(self.prepared_end()).collect();
        for word in self.branches.retain(&wanted) {
            if let Some(peer) = self.peers.get_mut(&word) {
                peer.credit_mut().note_vain();
            }
        }
        for wish in wishes {
            self.branches.rest_on(wish.end, wish.word);
            if self.branches.trail(wish.end).is_none()
                && let Reach::Lacks(_) = self.reach(wish.end)
            {
                let mut trail = Trail::new(wish.end, wish.word);
                self.follow(&mut trail, 0);
                self.branches.put_back(trail);
            }
        }
        let lacks = |trail: &Trail| match self.reach(trail.end()) {
            Reach::Lacks(_) | Reach::NotYet => true,
            Reach::Whole(_) | Reach::Never => false,
        };
        if !self.branches.trails().any(lacks) {
            self.branches.end_rest();
        }
        self.let_go();
    }

    fn holder(&self, wish: &Wish, turn: usize) -> Option<ReplicaId> {
        let me = self.setup.id;
        let first: BTreeSet<ReplicaId> = wish.holders.iter().copied().collect();
        let rest = self.size.members().filter(|id| !first.contains(id));
        let all: Vec<ReplicaId> =
            wish.holders.iter().copied().chain(rest).filter(|id| *id != me).collect();
        all.get(turn % all.len().max(1)).copied()
    }
}
