//! What is done with an event that comes while an adopted history is being executed.

use crate::application::Application;
use crate::id::ReplicaId;
use crate::message::{Message, Requests};
use crate::replica::{Event, Replica};

impl<A: Application> Replica<A> {
    /// An event while an adopted history is being executed. What rests on the whole of it has to wait: it
    /// is kept, or is said again when its sender hears that it is lacking here.
    pub(in crate::replica) fn handle_meanwhile(&mut self, event: Event) {
        match event {
            Event::Peer { from, message } => self.hear_meanwhile(from, message.into_inner()),
            Event::Request(request) => self.keep_unseen(Requests(vec![request.into_inner()])),
            Event::AskSession { .. } => {}
            Event::Tick => self.send_status_when_due(),
            Event::AskStatus { .. }
            | Event::AskEvidence { .. }
            | Event::AskState { .. }
            | Event::AskPiece { .. }
            | Event::Queries(_)
            | Event::Synced(_)
            | Event::Rows(..)
            | Event::Unreadable(_) => self.take_up(event),
            Event::DiskFull(is_full) => self.outbox.note_disk_full(is_full),
            Event::Leave => self.note_leaving(),
        }
    }

    fn hear_meanwhile(&mut self, from: ReplicaId, message: Message) {
        match message {
            Message::Order(order) if order.body.header.view >= self.entered() => {
                self.keep_later_order(order);
            }
            Message::Commit(vote) if vote.body.view >= self.entered() => {
                self.keep_later_commit(&vote);
            }
            Message::Requests(requests) => self.keep_unseen(requests),
            Message::Order(_)
            | Message::Commit(_)
            | Message::Certificate(_)
            | Message::Checkpoint(_)
            | Message::Stable(_)
            | Message::Clients(_)
            | Message::Slots(_)
            | Message::Branch(_)
            // It is named again.
            | Message::Waiting(_) => {}
            Message::Status(_)
            | Message::Fetch(_)
            | Message::State(_)
            | Message::Suspect(_)
            | Message::Campaign(_)
            | Message::NewView(_)
            | Message::Evidence(_)
            | Message::Enrol(_)
            | Message::Enrolled(_)
            | Message::Pulse(_) => self.on_message(from, message),
        }
    }

    /// Requests whose names may be executed a little later: they are kept within the limits, and looked at
    /// then.
    fn keep_unseen(&mut self, requests: Requests) {
        let forward_at = self.next_forward();
        for request in requests.0 {
            if !self.may_be_ordered(&request.body().client) {
                self.counters.strangers += 1;
                continue;
            }
            if self.adopting.executes(&request.body().name()) {
                // Its client asks again, and is answered when it is executed, or has been again.
                continue;
            }
            self.pending.insert(request, forward_at, false, &self.setup.tuning);
            self.adopting.note_unseen();
        }
    }
}
