//! What is known of another replica.

use super::clocks::ClockHeard;
use crate::edition::Edition;
use crate::id::{Instant, Slot, View};
use crate::message::{Fetch, Message, Position, Status};
use crate::replica::normal::{Budget, Named, PeerClients};
use crate::replica::views::Credit;
use crate::signature::Signed;

/// What is known of another replica.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Peer {
    newest: Option<Newest>,
    /// Its newest fetch.
    fetch: Option<Signed<Fetch>>,
    word: Option<Word>,
    /// The end of its history that is being followed, where that is not the own one in the same view.
    pursued: Option<Position>,
    /// When it was last shown how far its own stamps were.
    shown: Option<Instant>,
    /// What may be fetched on its word.
    credit: Credit,
    /// What is known of its list of clients.
    clients: PeerClients,
    /// What it said itself of its program: the newest edition that this executes, and the newest that it has known all
    /// to execute. Words that others show do not count: to who has just started they could be old ones.
    editions: Option<(Edition, Edition)>,
    /// What waits there, as it said last.
    named: Named,
    /// What it may still be sent in answers.
    budget: Budget,
    /// Pieces of states that it sent and that were not of the certified state.
    pieces_refused: u64,
}

/// Its newest status, and when that came.
#[derive(Clone, Debug)]
struct Newest {
    status: Signed<Status>,
    at: Instant,
}

/// Its newest word on views, from a status or a view change, by the stamp on it.
#[derive(Clone, Copy, Debug)]
struct Word {
    stamp: u64,
    entered: View,
    campaign: Option<View>,
}

impl Peer {
    // ---- what it says ----

    /// A status comes from it. Answers with the one before; or with how far it is behind its newest one, where it is not
    /// newer.
    pub(super) fn hears(
        &mut self,
        status: &Signed<Status>,
        now: Instant,
    ) -> Result<Option<Status>, u64> {
        let before = self.status().copied();
        if let Some(known) = before.filter(|known| known.stamp >= status.body.stamp) {
            return Err(known.stamp - status.body.stamp);
        }
        self.newest = Some(Newest { status: status.clone(), at: now });
        let Status { stamp, entered, campaign, .. } = status.body;
        self.speaks(stamp, entered, campaign);
        Ok(before)
    }

    /// It fetches something. Answers with how far it is behind its newest fetch, where this one is not newer.
    pub(in crate::replica) fn fetches(&mut self, fetch: &Signed<Fetch>) -> Result<(), u64> {
        let newest = self.fetch.as_ref().map_or(0, |newest| newest.body.stamp);
        match newest.checked_sub(fetch.body.stamp) {
            Some(behind) => Err(behind),
            None => {
                self.fetch = Some(fetch.clone());
                Ok(())
            }
        }
    }

    /// It asks for a view.
    pub(in crate::replica) fn campaigns(&mut self, stamp: u64, entered: View, campaign: View) {
        self.speaks(stamp, entered, Some(campaign));
    }

    fn speaks(&mut self, stamp: u64, entered: View, campaign: Option<View>) {
        // No stamp is 0.
        if stamp > self.word.map_or(0, |word| word.stamp) {
            self.word = Some(Word { stamp, entered, campaign });
        }
    }

    fn status(&self) -> Option<&Status> {
        self.signed_status().map(|status| &status.body)
    }

    /// Its newest status, to be passed on.
    pub(in crate::replica) fn signed_status(&self) -> Option<&Signed<Status>> {
        self.newest.as_ref().map(|newest| &newest.status)
    }

    /// That or its newest fetch, whichever has the higher stamp, to be shown to itself, unless that was done within the
    /// last `interval_ms`.
    pub(super) fn show_newest(&mut self, now: Instant, interval_ms: u64) -> Option<Message> {
        let stamp = self.status().map_or(0, |status| status.stamp);
        let fetch = self.fetch.as_ref().filter(|fetch| fetch.body.stamp > stamp);
        let newest = match fetch {
            Some(fetch) => Message::Fetch(fetch.clone()),
            None => Message::Status(self.signed_status()?.clone()),
        };
        if self.shown.is_some_and(|shown| shown.after_ms(interval_ms) > now) {
            return None;
        }
        self.shown = Some(now);
        Some(newest)
    }

    /// The head of its history, by its newest status.
    pub(in crate::replica) fn head(&self) -> Option<Position> {
        self.status().map(|status| status.head)
    }

    /// The head it reported in this view.
    pub(in crate::replica) fn head_in(&self, view: View) -> Slot {
        self.position_in(view).map_or(Slot::GENESIS, |head| head.slot)
    }

    /// The same, with its hash.
    pub(in crate::replica) fn position_in(&self, view: View) -> Option<Position> {
        self.status().filter(|status| status.entered == view).map(|status| status.head)
    }

    /// What its wall clock showed.
    pub(super) fn clock(&self) -> Option<ClockHeard> {
        let newest = self.newest.as_ref()?;
        Some(ClockHeard { wall: newest.status.body.wall, at: newest.at })
    }

    /// It has said this itself, on its own connection.
    pub(super) fn tells_of_editions(&mut self, newest: Edition, common: Edition) {
        self.editions = Some((newest, common));
    }

    /// The newest edition that its program executes.
    pub(in crate::replica) fn newest_edition(&self) -> Option<Edition> {
        self.editions.map(|(newest, _)| newest)
    }

    /// The newest edition that it has known all to execute.
    pub(in crate::replica) fn common_edition(&self) -> Option<Edition> {
        self.editions.map(|(_, common)| common)
    }

    /// Whether it gave a sign of life not longer ago than this.
    pub(in crate::replica) fn heard_within(&self, now: Instant, millis: u64) -> bool {
        self.newest.as_ref().is_some_and(|newest| now <= newest.at.after_ms(millis))
    }

    /// The view it has entered, by its newest word.
    pub(in crate::replica) fn entered(&self) -> Option<View> {
        self.word.map(|word| word.entered)
    }

    /// The view it asks for, by its newest word.
    pub(in crate::replica) fn campaign(&self) -> Option<View> {
        self.word.and_then(|word| word.campaign)
    }

    // ---- what is fetched from it ----

    /// The end of its history that is being followed.
    pub(in crate::replica) fn pursued(&self) -> Option<Position> {
        self.pursued
    }

    /// Follows this end of its history, or none.
    pub(in crate::replica) fn pursue(&mut self, end: Option<Position>) {
        self.pursued = end;
    }

    /// What may be fetched on its word.
    pub(in crate::replica) fn credit_mut(&mut self) -> &mut Credit {
        &mut self.credit
    }

    /// What waits there, as it said last.
    pub(in crate::replica) fn named(&self) -> &Named {
        &self.named
    }

    pub(in crate::replica) fn named_mut(&mut self) -> &mut Named {
        &mut self.named
    }

    /// What waits there, to be [put back](Peer::keep_named).
    pub(in crate::replica) fn take_named(&mut self) -> Named {
        std::mem::take(&mut self.named)
    }

    pub(in crate::replica) fn keep_named(&mut self, named: Named) {
        self.named = named;
    }

    /// How many pieces of states it sent that were not of the certified state.
    pub(in crate::replica) fn pieces_refused(&self) -> u64 {
        self.pieces_refused
    }

    /// It sent one.
    pub(in crate::replica) fn refuse_piece(&mut self) {
        self.pieces_refused += 1;
    }

    // ---- what it is told ----

    /// What it may still be sent in answers.
    pub(in crate::replica) fn budget_mut(&mut self) -> &mut Budget {
        &mut self.budget
    }

    // ---- whom it lists ----

    /// What is known of its list of clients.
    pub(in crate::replica) fn clients(&self) -> &PeerClients {
        &self.clients
    }

    pub(in crate::replica) fn clients_mut(&mut self) -> &mut PeerClients {
        &mut self.clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, ReplicaId, WallTime};
    use crate::message::Wanted;
    use crate::signature::Signature;

    fn at(ms: u64) -> Instant {
        Instant::default().after_ms(ms)
    }

    fn status(stamp: u64, entered: u64, campaign: Option<u64>) -> Signed<Status> {
        let body = Status {
            entered: View(entered),
            campaign: campaign.map(View),
            head: Position { slot: Slot(7), hash: Digest([1; 32]) },
            lock: None,
            stable: Slot(4),
            convicted: 0,
            clients: Digest([2; 32]),
            newest_edition: Edition::FIRST,
            common_edition: Edition::FIRST,
            wall: WallTime(stamp),
            stamp,
        };
        Signed { body, by: ReplicaId(1), signature: Signature([0; 64]) }
    }

    fn fetch(stamp: u64) -> Signed<Fetch> {
        let body = Fetch { wanted: Wanted::Slots { from: Slot(1) }, room: 0, stamp };
        Signed { body, by: ReplicaId(1), signature: Signature([0; 64]) }
    }

    #[test]
    fn a_fetch_is_answered_once() {
        let mut peer = Peer::default();
        assert_eq!(peer.fetches(&fetch(5)), Ok(()));
        assert_eq!(peer.fetches(&fetch(5)), Err(0));
        assert_eq!(peer.fetches(&fetch(3)), Err(2));
        assert_eq!(peer.fetches(&fetch(6)), Ok(()));
    }

    #[test]
    fn a_status_is_heard_once_and_none_that_is_older() {
        let mut peer = Peer::default();
        assert_eq!(peer.hears(&status(10, 1, None), at(0)), Ok(None));
        assert_eq!(peer.hears(&status(10, 2, None), at(5)), Err(0));
        assert_eq!(peer.hears(&status(7, 2, None), at(5)), Err(3));
        assert!(peer.heard_within(at(5), 5) && !peer.heard_within(at(6), 5));
        assert_eq!(peer.hears(&status(11, 1, None), at(6)), Ok(Some(status(10, 1, None).body)));
        assert_eq!(peer.clock(), Some(ClockHeard { wall: WallTime(11), at: at(6) }));
        assert_eq!((peer.head_in(View(1)), peer.head_in(View(2))), (Slot(7), Slot::GENESIS));
    }

    #[test]
    fn of_words_on_views_the_newest_counts_whatever_it_came_with() {
        let mut peer = Peer::default();
        assert_eq!((peer.entered(), peer.campaign()), (None, None));
        peer.campaigns(20, View(3), View(5));
        assert_eq!(peer.hears(&status(10, 1, None), at(0)), Ok(None));
        assert_eq!((peer.entered(), peer.campaign()), (Some(View(3)), Some(View(5))));
        assert!(peer.hears(&status(21, 4, None), at(1)).is_ok());
        assert_eq!((peer.entered(), peer.campaign()), (Some(View(4)), None));
        peer.campaigns(21, View(4), View(6));
        assert_eq!(peer.campaign(), None, "it is no newer");
    }

    #[test]
    fn whoever_is_behind_its_own_words_is_shown_the_newest_now_and_then() {
        let mut peer = Peer::default();
        assert!(peer.show_newest(at(0), 100).is_none(), "nothing is known");
        assert!(peer.hears(&status(10, 1, None), at(0)).is_ok());
        assert_eq!(peer.show_newest(at(0), 100), Some(Message::Status(status(10, 1, None))));
        assert!(peer.show_newest(at(99), 100).is_none());
        assert_eq!(peer.fetches(&fetch(12)), Ok(()));
        assert_eq!(peer.show_newest(at(100), 100), Some(Message::Fetch(fetch(12))));
        assert!(peer.hears(&status(13, 1, None), at(0)).is_ok());
        assert_eq!(peer.show_newest(at(200), 100), Some(Message::Status(status(13, 1, None))));
    }
}
