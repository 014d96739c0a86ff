//! Asking for what is missing of the histories that are wished for, and letting go of those that nobody wishes for.

use std::collections::{BTreeMap, BTreeSet};

use super::super::path::Reach;
use super::super::trail::Trail;
use super::{Asked, Wish};
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
        let wait = self.answer_wait_ms(&self.fetching.pace);
        self.branches.oldest_asked().map(|since| since.after_ms(wait))
    }

    /// Fetches what the wishes lack, and lets go of what nobody wishes for.
    pub(in crate::replica::views) fn fetch_branches(&mut self, wishes: &[Wish]) {
        let now = self.now.instant;
        self.keep_trails(wishes);
        let most = self.credit_max();
        let wait = self.answer_wait_ms(&self.fetching.pace);
        let mut asks = Vec::new();
        let mut open = BTreeMap::new();
        let mut is_late = false;
        for wish in wishes {
            let Reach::Lacks(below) = self.reach(wish.end) else { continue };
            let known = self.branches.asked.remove(&wish.end);
            let credit = wish.word.map(|id| &mut self.peers.entry(id).or_default().credit);
            if credit.is_some_and(|credit| !credit.is_left(now, most)) {
                // What it said before came to nothing. It is asked for again when there is credit.
                let is_new = known.as_ref().is_none_or(|asked| asked.below.is_some());
                self.counters.branches_over_credit += u64::from(is_new);
                let turn = known.map_or(0, |asked| asked.turn);
                open.insert(wish.end, Asked { below: None, since: now, turn });
                continue;
            }
            let turn = match known {
                // It came nearer: go on with who helped.
                Some(asked) if asked.below != Some(below) => asked.turn,
                Some(asked) if asked.since.after_ms(wait) > now => {
                    open.insert(wish.end, asked);
                    continue;
                }
                Some(asked) => {
                    is_late |= asked.below.is_some();
                    asked.turn + 1
                }
                None => 0,
            };
            asks.push((self.holder(wish, turn), below));
            open.insert(wish.end, Asked { below: Some(below), since: now, turn });
        }
        self.branches.asked = open;
        if is_late {
            self.fetching.pace.missed();
        }
        // Two wishes may lack the same.
        let mut sent = BTreeSet::new();
        for (to, below) in asks {
            let Some(to) = to.filter(|to| sent.insert((*to, below))) else { continue };
            self.counters.branch_fetches += 1;
            let known = self.history.locator();
            self.ask(Some(to), Wanted::Branch { head: below, known });
        }
    }

    /// Every wish has a trail, and what nobody wishes for goes. The longest of what goes rests for a
    /// while: a head moves on, and who wishes for the next one finds below it what is here already.
    fn keep_trails(&mut self, wishes: &[Wish]) {
        let lock = self.lock.aside().map(CommitCertificate::position);
        let wanted: BTreeSet<Position> =
            wishes.iter().map(|wish| wish.end).chain(lock).chain(self.prepared_end()).collect();
        let gone = self.branches.trails.extract_if(.., |end, _| !wanted.contains(end));
        let gone: Vec<Trail> = gone.map(|(_, trail)| trail).collect();
        for trail in gone {
            let word = trail.word().filter(|_| trail.len() > 0);
            if let Some(peer) = word.and_then(|id| self.peers.get_mut(&id)) {
                peer.credit.note_vain();
            }
            let resting = self.branches.resting.take();
            let is_longer = resting.as_ref().is_none_or(|resting| resting.len() < trail.len());
            let (stays, goes) =
                if is_longer { (Some(trail), resting) } else { (resting, Some(trail)) };
            self.branches.resting = stays;
            self.branches.leaving.extend(goes);
        }
        for wish in wishes {
            if let Some(trail) = self.branches.trails.get_mut(&wish.end) {
                trail.rest_on(wish.word);
            }
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
        if !self.branches.trails.values().any(lacks) {
            self.branches.leaving.extend(self.branches.resting.take());
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
