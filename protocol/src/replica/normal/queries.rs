//! Queries: what operations that change nothing would come to, found out without a slot.
//!
//! A replica answers with the slots of its own history after which they come to that (4.11). A strong query's last one is
//! covered by a certificate of the view entered, and where the results are newer than that they are kept until one
//! covers them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::execution::RESULT_BYTES_MAX;
use crate::application::{Application, Queried};
use crate::codec::Canonical as _;
use crate::id::{ClientId, Digest, Instant, SessionId, Slot, View};
use crate::message::{
    Level, NoReply, Past, Position, Query, QueryReply, SignedQueryReply, ToClient,
};
use crate::replica::views::Inclusion;
use crate::replica::{Mark, Replica};
use crate::seal::sign_replies;

/// So many replies at most wait for a certificate, and so many bytes of results.
const KEPT: usize = 1024;
const KEPT_BYTES: usize = 16 << 20;

/// What a reply takes at most in a frame beside its results.
const REPLY_BYTES: usize = 4096;

/// How long one waits, in ms. Whoever asked has had the operations ordered by then.
const KEPT_MS: u64 = 2_000;

/// Whose query it was.
#[derive(Clone, Copy, Debug)]
struct Asker {
    client: ClientId,
    session: SessionId,
    query: Digest,
}

/// Results that no certificate covers yet.
#[derive(Clone, Debug)]
struct Kept {
    asker: Asker,
    found: Instant,
    view: View,
    /// The end of the history in which they were found.
    head: Position,
    from: Slot,
    /// What the last slot must not be below.
    after: Slot,
    /// Whether it was asked with a past, so that the reply has to name the history.
    names_history: bool,
    results: Vec<Bytes>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.results.iter().map(Bytes::len).sum()
    }
}

/// The replies that wait for a certificate, oldest first.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct Queries {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The view and the certified slot at which they were last looked at.
    seen: (View, Slot),
}

impl Queries {
    pub(in crate::replica) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Keeps one, and answers those that have to make room.
    fn keep(&mut self, kept: Kept) -> Vec<Asker> {
        self.bytes += kept.bytes();
        self.kept.push_back(kept);
        let mut gone = Vec::new();
        while self.kept.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.bytes();
            gone.push(oldest.asker);
        }
        gone
    }

    /// Whether anything may have changed for those that wait.
    fn is_due(&mut self, view: View, certified: Slot) -> bool {
        let now = (view, certified);
        !self.kept.is_empty() && std::mem::replace(&mut self.seen, now) != now
    }

    fn take(&mut self) -> VecDeque<Kept> {
        self.bytes = 0;
        std::mem::take(&mut self.kept)
    }
}

/// What becomes of a query.
enum Found {
    Reply(QueryReply, Mark),
    Later(Kept),
    Nothing(NoReply),
}

impl<A: Application> Replica<A> {
    pub(in crate::replica) fn on_queries(&mut self, queries: Vec<(ClientId, Query)>) {
        let mut replies = Vec::new();
        for (client, query) in queries {
            let asker = Asker { client, session: query.session, query: query.digest() };
            match self.found(asker, &query) {
                Found::Reply(reply, after) => replies.push((asker, reply, after)),
                Found::Later(kept) => {
                    self.counters.queries_kept += 1;
                    let gone = self.queries.keep(kept);
                    for asker in gone {
                        self.leave_unanswered(asker, NoReply::Unable);
                    }
                    // As for a strong request: somebody waits for a certificate.
                    self.vote_commit();
                }
                Found::Nothing(why) => self.leave_unanswered(asker, why),
            }
        }
        self.note_trouble();
        self.send_query_replies(replies);
    }

    /// Whether it knows what the history it is in comes to.
    fn may_answer_queries(&self) -> bool {
        self.may_vote() && !self.is_adopting() && self.execution.application().trouble().is_none()
    }

    fn found(&self, asker: Asker, query: &Query) -> Found {
        if !self.may_answer_queries() {
            return Found::Nothing(NoReply::Unable);
        }
        let edition = self.history.choices().edition;
        let application = self.execution.application();
        let Some(Queried { results, since }) =
            application.query(edition.application, &query.operations)
        else {
            return Found::Nothing(NoReply::Unable);
        };
        let head = self.history.head();
        let from = since.unwrap_or(head.slot).min(head.slot);
        // Before it was gone over to this edition, they came to what they came to by another one.
        let from = if self.is_all_of(edition, from) { from } else { head.slot };
        let from = match query.past.as_ref().map(|past| self.includes(past)) {
            None => from,
            Some(Inclusion::Since(since)) => from.max(since),
            Some(Inclusion::NotYet) => return Found::Nothing(NoReply::NotYet),
            Some(Inclusion::Unknown) => return Found::Nothing(NoReply::Unknown),
        };
        let (found, view, after) = (self.now.instant, self.entered(), query.after);
        let names_history = query.past.is_some();
        let kept = Kept { asker, found, view, head, from, after, names_history, results };
        if head.slot < after || kept.bytes() > RESULT_BYTES_MAX {
            return Found::Nothing(NoReply::Unable);
        }
        match query.level {
            Level::Weak => {
                // Nothing is said of what may be forgotten.
                let (to, after) = (head.slot, self.outbox.appended().max(self.votes_after()));
                Found::Reply(self.query_reply(kept, to), after)
            }
            Level::Strong => self.strong_query_reply(kept),
        }
    }

    /// Since when the own history includes all of a past.
    fn includes(&self, past: &Past) -> Inclusion {
        let base = self.history.base().slot;
        let read = past.read().iter().map(|at| match self.history.goes_through(*at) {
            true => Inclusion::Since(at.slot),
            false => self.bygone.includes(base, *at),
        });
        let written = past.written().iter().map(|written| self.sessions().executed_by(written));
        read.chain(written).fold(Inclusion::Since(Slot::GENESIS), Inclusion::and)
    }

    /// Whether all that was abandoned has been executed again.
    pub(in crate::replica) fn tend_bygone(&mut self) {
        if self.pending.orphans().len() == 0 && !self.is_adopting() && !self.is_distrusted() {
            self.bygone.note_none_left(self.history.head().slot);
        }
    }

    fn query_reply(&self, kept: Kept, to: Slot) -> QueryReply {
        let Kept { asker, view, from, names_history, results, .. } = kept;
        let Asker { session, query, .. } = asker;
        let slots = if names_history { QueryReply::slots_to_name(from, to) } else { Vec::new() };
        let position = |slot| Some(Position { slot, hash: self.hash_at_or_below(slot)? });
        let positions = slots.into_iter().filter_map(position).collect();
        QueryReply { view, session, query, from, to, positions, results }
    }

    /// The hash of the own history after a slot, as far as it is remembered.
    fn hash_at_or_below(&self, slot: Slot) -> Option<Digest> {
        let below = || self.bygone.hash_below(self.history.base().slot, slot);
        let genesis = (slot == Slot::GENESIS).then(|| *self.setup.membership.genesis());
        genesis.or_else(|| self.history.hash_at(slot)).or_else(below)
    }

    /// What is certified is said, what may be is kept. Without a certificate of this view nothing is known to be
    /// certified, but that an empty history has nothing that could be.
    fn strong_query_reply(&self, kept: Kept) -> Found {
        let certified = self.certified();
        if certified == Slot::GENESIS && kept.head.slot > Slot::GENESIS {
            return Found::Later(kept);
        }
        let to = certified.min(kept.head.slot);
        if to < kept.from.max(kept.after) {
            return Found::Later(kept);
        }
        let after = self.lock.mark().max(self.view.mark()).max(self.votes_after());
        Found::Reply(self.query_reply(kept, to), after)
    }

    /// Answers what a certificate has come to cover, and gives up what is of a history that was left.
    pub(in crate::replica) fn tend_queries(&mut self) {
        if !self.queries.is_due(self.entered(), self.certified()) {
            return;
        }
        let mut replies = Vec::new();
        let now = self.now.instant;
        for kept in self.queries.take() {
            let asker = kept.asker;
            let is_own = kept.view == self.entered()
                && self.may_answer_queries()
                && self.history.goes_through(kept.head);
            if !is_own || kept.found.after_ms(KEPT_MS) <= now {
                self.leave_unanswered(asker, NoReply::Unable);
                continue;
            }
            match self.strong_query_reply(kept) {
                Found::Reply(reply, after) => replies.push((asker, reply, after)),
                // There was room for them before.
                Found::Later(kept) => drop(self.queries.keep(kept)),
                Found::Nothing(why) => self.leave_unanswered(asker, why),
            }
        }
        self.send_query_replies(replies);
    }

    /// Whoever asked hears at once that it has to have the operations ordered, or to ask again.
    fn leave_unanswered(&mut self, asker: Asker, why: NoReply) {
        let Asker { client, session, query } = asker;
        self.counters.queries_unanswered += 1;
        let message = ToClient::NoQueryReply(session, query, why);
        self.outbox.answer(client, Some(session), message, Mark::NONE);
    }

    /// Signs them together, and sends each when what it rests on is on disk.
    fn send_query_replies(&mut self, replies: Vec<(Asker, QueryReply, Mark)>) {
        if replies.is_empty() {
            return;
        }
        self.counters.queries_answered += replies.len() as u64;
        let genesis = self.setup.membership.genesis();
        let (ways, replies): (Vec<_>, Vec<_>) = replies
            .into_iter()
            .map(|(asker, reply, after)| ((asker.client, asker.session, after), reply))
            .unzip();
        let signed = sign_replies(&*self.setup.signer, genesis, self.setup.id, replies);
        let mut by_way: BTreeMap<_, Vec<SignedQueryReply>> = BTreeMap::new();
        for (way, reply) in ways.into_iter().zip(signed) {
            by_way.entry(way).or_default().push(reply);
        }
        for ((client, session, after), replies) in by_way {
            for replies in in_frames(replies) {
                let message = ToClient::QueryReplies(replies);
                self.outbox.answer(client, Some(session), message, after);
            }
        }
    }
}

/// Replies in their order, so many together as fit a frame.
fn in_frames(replies: Vec<SignedQueryReply>) -> Vec<Vec<SignedQueryReply>> {
    let mut frames: Vec<Vec<SignedQueryReply>> = Vec::new();
    let mut bytes = 0;
    for reply in replies {
        let more =
            REPLY_BYTES + reply.reply.results.iter().map(|result| result.len() + 8).sum::<usize>();
        match frames.last_mut().filter(|_| bytes + more <= RESULT_BYTES_MAX) {
            Some(frame) => {
                frame.push(reply);
                bytes += more;
            }
            None => {
                frames.push(vec![reply]);
                bytes = more;
            }
        }
    }
    frames
}
