//! Stories about one session, with replicas played by hand.

mod flow;
mod matching;
mod property;
mod queries;

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::id::{Instant, Now, WallTime};
use crate::message::{Reply, Results, SessionReport};
use crate::seal::{sign, sign_replies};
use crate::signature::{Ed25519, SecretKey, Signer};

const SESSION: SessionId = SessionId(70_000);

/// Four replicas or more, one client, and a clock moved by hand.
struct World {
    membership: Arc<Membership>,
    keys: Vec<SecretKey>,
    client: Client,
    now: Now,
    next_ticket: u64,
}

/// What a played replica says; the rest follows from the request.
#[derive(Clone, Debug)]
struct Says {
    kind: ReplyKind,
    view: u64,
    slot: u64,
    index: u32,
    results: Vec<&'static str>,
    forgotten: bool,
}

impl Says {
    fn speculative(result: &'static str) -> Self {
        let kind = ReplyKind::Speculative;
        Self { kind, view: 0, slot: 1, index: 0, results: vec![result], forgotten: false }
    }

    fn committed(result: &'static str) -> Self {
        Self { kind: ReplyKind::Committed, ..Self::speculative(result) }
    }
}

fn texts(results: &[Bytes]) -> Vec<String> {
    results.iter().map(|r| String::from_utf8_lossy(r).into_owned()).collect()
}

fn operation(text: &str) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(text.as_bytes())]
}

impl World {
    fn new() -> Self {
        Self::of(4, 1, |_| {})
    }

    fn of(replicas: u8, faulty: u8, adjust: impl FnOnce(&mut Setup)) -> Self {
        let keys: Vec<_> = (0..replicas).map(|n| SecretKey::from_bytes(&[n + 1; 32])).collect();
        let public = keys.iter().map(Signer::public_key).collect();
        let membership =
            Membership::new("test", faulty, public, None, Arc::new(Ed25519::default()));
        let membership = Arc::new(membership.expect("a sound cluster"));
        let mut setup = Setup {
            membership: Arc::clone(&membership),
            client: SecretKey::from_bytes(&[99; 32]).public_key().into(),
            session: SESSION,
            next: RequestNumber::FIRST,
            timing: Timing { first_retry_ms: 100, max_retry_ms: 400, stall_ms: 1000 },
            window: 8,
            pipeline: 8,
        };
        adjust(&mut setup);
        let now = Now { instant: Instant(1), wall: WallTime(1) };
        Self { membership, keys, client: Client::new(setup), now, next_ticket: 0 }
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.client.handle(self.now, event, &mut actions);
        self.sign_all(actions)
    }

    /// Signs together what is to be signed, so that what is sent then stands in its place.
    fn sign_all(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let bodies: Vec<_> = actions.iter().filter_map(to_sign).collect();
        if bodies.is_empty() {
            return actions;
        }
        let signer = SecretKey::from_bytes(&[99; 32]);
        let signed = SignedRequest::sign_all(&signer, self.membership.genesis(), bodies);
        let mut signed = signed.into_iter();
        let mut all = Vec::new();
        for action in actions {
            match (to_sign(&action), &mut signed) {
                (Some(_), signed) => {
                    let event = Event::Signed(signed.next().expect("one for each"));
                    self.client.handle(self.now, event, &mut all);
                }
                (None, _) => all.push(action),
            }
        }
        all
    }

    fn submission(&mut self, level: Level, follow: Follow, text: &str) -> Submission {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        Submission { ticket, level, follow, operations: operation(text), alone: false }
    }

    /// Submits one operation and gives back its ticket and the requests that went out.
    fn submit(&mut self, level: Level, follow: Follow) -> (Ticket, Vec<Arc<SignedRequest>>) {
        let submission = self.submission(level, follow, "op");
        let ticket = submission.ticket;
        (ticket, sent(&self.handle(Event::Submit(vec![submission]))))
    }

    fn reply(&self, by: u8, request: &SignedRequest, says: &Says) -> Verified<SignedReply> {
        let results = Results::Full(
            says.results.iter().map(|text| Bytes::from_static(text.as_bytes())).collect(),
        );
        let results = if says.forgotten { Results::Forgotten(results.digest()) } else { results };
        let reply = Reply {
            kind: says.kind,
            view: View(says.view),
            slot: Slot(says.slot),
            hash: Digest([u8::try_from(says.slot).expect("small"); 32]),
            name: request.body().name(),
            request: request.digest(),
            index: says.index,
            results,
        };
        self.sign(by, reply)
    }

    fn sign(&self, by: u8, reply: Reply) -> Verified<SignedReply> {
        let genesis = self.membership.genesis();
        let mut signed =
            sign_replies(&self.keys[usize::from(by)], genesis, ReplicaId(by), vec![reply]);
        self.membership.open_reply(signed.remove(0)).expect("signed by a member")
    }

    fn hear(&mut self, by: u8, request: &SignedRequest, says: &Says) -> Vec<Action> {
        let reply = self.reply(by, request, says);
        self.handle(Event::Reply { from: ReplicaId(by), reply })
    }

    fn refuse(&mut self, by: u8, request: &SignedRequest, reason: RefusalReason) -> Vec<Action> {
        let body = Refusal { name: request.body().name(), request: request.digest(), reason };
        let key = &self.keys[usize::from(by)];
        let signed = sign(key, self.membership.genesis(), ReplicaId(by), body);
        self.handle(Event::Refusal(signed))
    }

    fn report(
        &self,
        by: u8,
        session: SessionId,
        has_left: bool,
        generation: u64,
    ) -> Verified<Signed<SessionReport>> {
        let body = SessionReport {
            client: self.client_id(),
            session,
            executed_through: RequestNumber(3),
            has_left,
            opening: SessionId::first_of(generation),
        };
        let key = &self.keys[usize::from(by)];
        sign(key, self.membership.genesis(), ReplicaId(by), body)
    }

    fn client_id(&self) -> ClientId {
        SecretKey::from_bytes(&[99; 32]).public_key().into()
    }

    /// Lets the clock jump to the next deadline.
    fn wake(&mut self) -> (u64, Vec<Action>) {
        let deadline = self.client.deadline().expect("something is to be done later");
        let waited = deadline.micros_since(self.now.instant) / 1000;
        self.now.instant = self.now.instant.max(deadline);
        (waited, self.handle(Event::Tick))
    }
}

fn to_sign(action: &Action) -> Option<Request> {
    match action {
        Action::Sign(request) => Some(request.clone()),
        _ => None,
    }
}

/// The requests among these actions.
fn sent(actions: &[Action]) -> Vec<Arc<SignedRequest>> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send { to: None, message: ToReplica::Request(request) } => {
                Some(Arc::clone(request))
            }
            _ => None,
        })
        .collect()
}

fn answers(actions: &[Action]) -> Vec<(Ticket, Answer)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Answered { ticket, answer } => Some((*ticket, answer.clone())),
            _ => None,
        })
        .collect()
}

fn finals(actions: &[Action]) -> Vec<(Ticket, Finality)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Final { ticket, finality, .. } => Some((*ticket, finality.clone())),
            _ => None,
        })
        .collect()
}

fn failures(actions: &[Action]) -> Vec<(Ticket, Failure)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Failed { ticket, failure } => Some((*ticket, *failure)),
            _ => None,
        })
        .collect()
}
