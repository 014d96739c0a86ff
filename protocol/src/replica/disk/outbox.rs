//! What leaves the core, and on which records it rests.
//!
//! Records and messages leave in the order in which they were made. A message names the last record that has to be
//! on disk before it leaves, so nothing is said that could be forgotten.

use crate::evidence::Evidence;
use crate::id::{ClientId, SessionId};
use crate::message::{Message, ToClient};
use crate::replica::{Action, Mark, Record, Target};

/// The actions of the event being handled, and how far the disk is.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Outbox {
    actions: Vec<Action>,
    /// The last record appended, and the last one known to be on disk.
    appended: Mark,
    synced: Mark,
    /// Whether nothing gets durable any more, for want of room.
    is_disk_full: bool,
}

impl Outbox {
    /// The record that was appended last: what is said now rests on it, as a rule.
    pub(in crate::replica) fn appended(&self) -> Mark {
        self.appended
    }

    /// Whether this record, and all before it, are known to be on disk.
    pub(in crate::replica) fn is_synced(&self, mark: Mark) -> bool {
        mark <= self.synced
    }

    /// Whether nothing gets durable any more, for want of room.
    pub(in crate::replica) fn is_disk_full(&self) -> bool {
        self.is_disk_full
    }

    pub(in crate::replica) fn append(&mut self, record: Record) -> Mark {
        self.appended = Mark(self.appended.0 + 1);
        self.actions.push(Action::Append { mark: self.appended, record });
        self.appended
    }

    pub(in crate::replica) fn send(&mut self, to: Target, message: Message, after: Mark) {
        self.actions.push(Action::Send { to, message, after });
    }

    pub(in crate::replica) fn answer(
        &mut self,
        client: ClientId,
        session: Option<SessionId>,
        message: ToClient,
        after: Mark,
    ) {
        self.actions.push(Action::Answer { client, session, message, after });
    }

    pub(in crate::replica) fn accuse(&mut self, evidence: Evidence) {
        self.actions.push(Action::Accuse(evidence));
    }

    pub(in crate::replica) fn note_synced(&mut self, mark: Mark) {
        self.synced = self.synced.max(mark);
    }

    pub(in crate::replica) fn note_disk_full(&mut self, is_full: bool) {
        self.is_disk_full = is_full;
    }

    /// What was gathered, in its order.
    pub(in crate::replica) fn hand_over(&mut self, actions: &mut Vec<Action>) {
        actions.append(&mut self.actions);
    }

    /// Nobody waits for what was made of records that are on disk already.
    pub(super) fn begin(&mut self) {
        *self = Self { is_disk_full: self.is_disk_full, ..Self::default() };
    }

    /// # Panics
    /// Where the driver says that something is on disk which was never appended.
    #[track_caller]
    pub(in crate::replica) fn assert_invariants(&self) {
        assert!(self.synced <= self.appended, "synced what was never appended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Requests;

    fn message() -> Message {
        Message::Requests(Requests(Vec::new()))
    }

    #[test]
    fn records_and_words_leave_once_and_in_the_order_in_which_they_were_made() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.append(Record::Stamps(1)), Mark(1));
        outbox.send(Target::Others, message(), outbox.appended());
        assert_eq!(outbox.append(Record::Stamps(2)), Mark(2));
        let mut actions = Vec::new();
        outbox.hand_over(&mut actions);
        let marks = actions.iter().map(|action| match action {
            Action::Append { mark, .. } => ("append", *mark),
            Action::Send { after, .. } => ("send", *after),
            Action::Answer { .. } | Action::Accuse(_) => panic!("that was not made"),
        });
        let expected = [("append", Mark(1)), ("send", Mark(1)), ("append", Mark(2))];
        assert!(marks.eq(expected), "{actions:?}");
        outbox.hand_over(&mut actions);
        assert_eq!(actions.len(), 3);
    }

    #[test]
    fn what_is_on_disk_stays_there() {
        let mut outbox = Outbox::default();
        assert!(outbox.is_synced(Mark::NONE) && !outbox.is_synced(Mark(1)));
        for stamp in 1..=3 {
            outbox.append(Record::Stamps(stamp));
        }
        outbox.note_synced(Mark(2));
        outbox.note_synced(Mark(1));
        assert!(outbox.is_synced(Mark(2)) && !outbox.is_synced(Mark(3)));
        outbox.assert_invariants();
        outbox.begin();
        assert_eq!(outbox.appended(), Mark::NONE);
    }

    #[test]
    #[should_panic(expected = "synced what was never appended")]
    fn a_driver_that_has_more_on_disk_than_it_was_given_is_found_out() {
        let mut outbox = Outbox::default();
        let mark = outbox.append(Record::Stamps(1));
        outbox.note_synced(Mark(mark.0 + 1));
        outbox.assert_invariants();
    }
}
