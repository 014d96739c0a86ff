//! Villains that lie about where they stand and ask for other views all the time.

use std::collections::BTreeMap;

use elea_protocol::id::{ReplicaId, Slot, View, WallTime};
use elea_protocol::message::{
    Campaign, Message, NewView, NewViewHeader, Position, Status, Suspect, VIEW_MAX, ViewChange,
    changes_digest,
};
use elea_protocol::replica::{Action, Event};
use elea_protocol::signature::Signed;

use super::notes::{Notes, Pace, Stamps};
use super::{Deed, EDITION, LIES, Lair, Villain, tell};

/// Reports heads, locks, campaigns, views and stable slots that it does not have, to each replica
/// others, and seldom the truth.
///
/// It attacks everything that a status sets going: fetches, what is sent again, who is alone in a
/// view and who is followed. A status proves nothing, so nothing may come of it.
#[derive(Default)]
pub struct FalseStatus {
    notes: Notes,
    stamps: Stamps,
    pace: Pace,
}

impl FalseStatus {
    /// What its clock shows, as it says: mostly something else.
    fn wall(&self, lair: &mut Lair) -> WallTime {
        let own = lair.now.wall.0;
        WallTime(match lair.rng.between(0, 4) {
            0 => own,
            1 => 0,
            2 => u64::MAX,
            3 => own.saturating_sub(lair.rng.between(0, 3_600_000)),
            _ => own.saturating_add(lair.rng.between(0, 3_600_000)),
        })
    }

    fn lie(&mut self, lair: &mut Lair) -> Status {
        let entered = self.notes.entered();
        let stable = self.notes.stable_slot();
        let head = self.notes.head(lair);
        let lock = self.notes.lock().map(|lock| lock.at());
        let stamp = self.stamps.next(lair);
        let (clients, wall) = (*lair.membership.client_list(), self.wall(lair));
        let mut status = Status {
            entered,
            campaign: None,
            head,
            lock,
            stable,
            convicted: 0,
            clients,
            newest_edition: EDITION,
            common_edition: EDITION,
            wall,
            stamp,
        };
        for _ in 0..lair.rng.between(1, 2) {
            let far = *lair.rng.pick(&[1, 4, 100, 1 << 50]);
            match lair.rng.between(0, 7) {
                7 => {
                    status.newest_edition = *lair.rng.pick(&LIES);
                    status.common_edition = *lair.rng.pick(&LIES);
                }
                0 => status.head.hash = lair.invented(),
                1 => {
                    let slot = Slot(head.slot.0 + lair.rng.between(1, far));
                    status.head = Position { slot, hash: lair.invented() };
                }
                2 => {
                    let at = Position { slot: head.slot.next(), hash: lair.invented() };
                    status.lock = Some((View(entered.0 + lair.rng.between(0, far)), at));
                }
                3 => status.campaign = Some(View(entered.0 + lair.rng.between(1, far))),
                4 => status.entered = View(entered.0 + lair.rng.between(1, far)),
                5 => status.stable = head.slot,
                _ => {
                    let hash = *lair.membership.genesis();
                    status.head = Position { slot: Slot::GENESIS, hash };
                    status.lock = None;
                }
            }
        }
        status.stable = status.stable.min(status.head.slot);
        status.campaign = status.campaign.filter(|campaign| *campaign > status.entered);
        status
    }
}

impl Villain for FalseStatus {
    fn name(&self) -> &'static str {
        "false-status"
    }

    fn does(&mut self, lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        let is_status = matches!(action, Action::Send { message: Message::Status(_), .. });
        if !is_status || lair.rng.one_in(8) {
            deeds.push(Deed::Act(action));
        }
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if !self.pace.is_due(lair, 10, 60) {
            return;
        }
        for to in lair.others() {
            let status = self.lie(lair);
            tell(&[to], Message::Status(lair.sign(status)), deeds);
        }
    }
}

/// Suspects, asks for and begins views with numbers at the end of all numbers, just beyond it, one
/// after the other, and such that it has entered itself.
///
/// It attacks arithmetic, and memory that is kept for each view.
#[derive(Default)]
pub struct HugeViews {
    notes: Notes,
    stamps: Stamps,
    next: u64,
    heard: Option<Signed<ViewChange>>,
    pace: Pace,
}

impl HugeViews {
    fn view(&mut self, lair: &mut Lair) -> View {
        let near_end = lair.rng.between(0, 8);
        match lair.rng.between(0, 5) {
            0 => View(VIEW_MAX.0 - near_end),
            1 => View(VIEW_MAX.0 + near_end),
            2 => View(u64::MAX - near_end),
            3 => self.notes.entered(),
            _ => {
                self.next += 1;
                View(self.next)
            }
        }
    }

    fn change(&mut self, lair: &mut Lair, view: View) -> Signed<ViewChange> {
        let head = self.notes.head(lair);
        let body = ViewChange {
            view,
            campaign: view,
            entered: View(view.0.saturating_sub(1)).min(self.notes.entered()),
            lock: self.notes.lock_below(view),
            stable: self.notes.stable_slot().min(head.slot),
            head,
            stamp: self.stamps.next(lair),
        };
        lair.sign(body)
    }
}

impl Villain for HugeViews {
    fn name(&self) -> &'static str {
        "huge-views"
    }

    fn hears(&mut self, lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event
            && let Message::Campaign(campaign) = &**message
            && campaign.change.by != lair.id
        {
            self.heard = Some(campaign.change.clone());
        }
        to_core.push(event);
    }

    fn does(&mut self, _lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        deeds.push(Deed::Act(action));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if !self.pace.is_due(lair, 5, 40) {
            return;
        }
        let view = self.view(lair);
        let message = match lair.rng.between(0, 4) {
            0 => Message::Suspect(lair.sign(Suspect::resign(view))),
            1 => {
                // Somebody's view change for another view stands in for one for this view.
                let view = lair.own_view_after(view, 0);
                let own = self.change(lair, view);
                let changes: Vec<_> =
                    [Some(own), self.heard.clone()].into_iter().flatten().collect();
                let head = self.notes.head(lair);
                let header = NewViewHeader { view, head, changes: changes_digest(&changes) };
                Message::NewView(lair.sign(NewView { header, changes }))
            }
            _ => {
                let change = self.change(lair, view);
                let (suspects, others) = (Vec::new(), Vec::new());
                Message::Campaign(Box::new(Campaign { change, suspects, proof: None, others }))
            }
        };
        tell(&lair.some(), message, deeds);
    }
}

/// Always asks for the next views, as one that waits in vain, suspects every primary, gives up views that
/// are not its own or not yet, and sends along the oldest view changes of others that it has.
///
/// It attacks the rules of who is followed: alone it must not move anybody, and what others asked
/// for before they entered a view must not count any more (F9, F12 in schedules.md).
#[derive(Default)]
pub struct Agitator {
    notes: Notes,
    stamps: Stamps,
    oldest: BTreeMap<ReplicaId, Signed<ViewChange>>,
    suspects: BTreeMap<ReplicaId, Signed<Suspect>>,
    pace: Pace,
}

impl Villain for Agitator {
    fn name(&self) -> &'static str {
        "agitator"
    }

    fn hears(&mut self, lair: &mut Lair, event: Event, to_core: &mut Vec<Event>) {
        if let Event::Peer { message, .. } = &event {
            match &**message {
                Message::Campaign(campaign) => {
                    let change = &campaign.change;
                    // Now and then a newer one, so that some are not out of date at once.
                    if lair.rng.one_in(3) || !self.oldest.contains_key(&change.by) {
                        self.oldest.insert(change.by, change.clone());
                    }
                }
                Message::Suspect(suspect) => {
                    self.suspects.insert(suspect.by, suspect.clone());
                }
                _ => {}
            }
        }
        to_core.push(event);
    }

    fn does(&mut self, _lair: &mut Lair, action: Action, deeds: &mut Vec<Deed>) {
        self.notes.take(&action);
        deeds.push(Deed::Act(action));
    }

    fn stirs(&mut self, lair: &mut Lair, deeds: &mut Vec<Deed>) {
        if !self.pace.is_due(lair, 20, 120) {
            return;
        }
        let entered = self.notes.entered();
        // As a primary it would be believed: of this view, and at its time of one of its own.
        let later = lair.own_view_after(entered, 1);
        let given_up = if lair.rng.one_in(2) { entered } else { later };
        let suspect = lair.sign(Suspect::resign(given_up));
        tell(&lair.some(), Message::Suspect(suspect), deeds);
        let view = View(entered.0 + lair.rng.between(1, 5));
        let head = self.notes.head(lair);
        let change = ViewChange {
            view,
            campaign: view,
            entered,
            lock: self.notes.lock_below(view).filter(|_| lair.rng.one_in(2)),
            stable: self.notes.stable_slot().min(head.slot),
            head,
            stamp: self.stamps.next(lair),
        };
        let change = lair.sign(change);
        let campaign = Campaign {
            change,
            suspects: self.suspects.values().cloned().collect(),
            proof: None,
            others: self.oldest.values().cloned().collect(),
        };
        tell(&lair.others(), Message::Campaign(Box::new(campaign)), deeds);
    }
}
