//! A client's connection: its requests, verified, to the core, and the answers back.
//!
//! Reading and writing are two tasks: a client that sends much before it reads is not kept from
//! sending, and one that never reads keeps nobody else waiting. It loses its connection when
//! for too long not one byte could be written.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use elea_protocol::codec::{self, Canonical as _};
use elea_protocol::id::ClientId;
use elea_protocol::message::{
    Farewell, NoReply, Query, SignedQueryReply, SignedReply, SignedRequest, ToClient, ToReplica,
};
use elea_protocol::replica::Event;
use elea_protocol::seal::{Rejection, Unchecked};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::clients::{Admission, Answers};
use crate::counters::{Counter, frame_counter, rejection_counter};
use crate::doubles::Voice;
use crate::frames::{self, FrameError, Reader, Writer};
use crate::inbox::Room;
use crate::limits::OVERHEAD;
use crate::shell::Shell;
use crate::waiting::Turn;
use crate::weight;

/// Signatures of so many requests are checked at a time: a millisecond, which others may have to wait.
const REQUESTS_GROUP: usize = 64;

/// So many answers are taken from the queue at a time.
const ANSWERS_GROUP: usize = 512;

/// Replies are merged into one frame up to about so many bytes.
const MERGED_BYTES: usize = 256 << 10;

/// Serves a client until it closes, misbehaves, stops reading or the replica stops.
pub(crate) async fn serve(
    shell: &Shell,
    client: ClientId,
    turn: Turn,
    voice: &Voice,
    mut reader: Reader,
    mut writer: Writer,
) {
    let (admission, answers, seat) = match shell.clients.admit(client) {
        Ok(admitted) => admitted,
        Err(counter) => {
            shell.counters.warn(counter, format_args!("{client:?} has to wait"));
            tokio::select! {
                () = turn.evicted.cancelled() => {}
                () = frames::farewell(reader, &mut writer, Farewell::TooManyConnections) => {}
            }
            return;
        }
    };
    drop(turn);
    shell.counters.count(Counter::ClientsAdmitted);
    tracing::debug!(?client, "client connected");
    if frames::write(&mut writer, &ToClient::Welcome).await.is_err() {
        return;
    }
    let broken = CancellationToken::new();
    let writing = tokio::spawn(write(writer, answers, broken.clone()));
    let word = tokio::select! {
        biased;
        () = shell.stopping.cancelled() => Some(Farewell::Stopping),
        () = broken.cancelled() => None,
        () = seat.evicted.cancelled() => {
            // Its descriptor is given away already.
            writing.abort();
            None
        }
        word = receive(shell, &admission, voice, &mut reader) => word,
    };
    tracing::debug!(?client, farewell = ?word, "client disconnected");
    // It makes room only at the very end. Without the admission the writer ends when it has written what is queued.
    drop(admission);
    match writing.await {
        Ok(Ok(mut writer)) => {
            let Some(word) = word else { return };
            tokio::select! {
                () = seat.evicted.cancelled() => {}
                () = frames::farewell(reader, &mut writer, word) => {}
            }
        }
        Ok(Err(Broken::TooSlow)) => {
            let why = format_args!("{client:?} did not read its answers in time");
            shell.counters.warn(Counter::ClientTooSlow, why);
        }
        Ok(Err(Broken::Gone)) | Err(_) => {}
    }
}

/// Takes in messages until the connection has to close; gives back what to say.
async fn receive(
    shell: &Shell,
    admission: &Admission,
    voice: &Voice,
    reader: &mut Reader,
) -> Option<Farewell> {
    let client = admission.client;
    let misbehaved = |counter, what: &dyn std::fmt::Display| {
        shell.counters.warn(counter, format_args!("{client:?}: {what}"));
        Some(Farewell::Misbehaviour)
    };
    let mut requests = Requests::default();
    loop {
        // What was read already does not rest with it.
        if requests.is_empty() {
            admission.rest().await;
        }
        let read = frames::read_to_replica(reader).await;
        // Whatever else comes finds the requests before it taken.
        if !matches!(read, Ok((ToReplica::Request(_) | ToReplica::Query(_), _)))
            && let Err(rejection) = requests.take(shell, admission).await
        {
            return misbehaved(rejection_counter(rejection), &rejection);
        }
        let (message, bytes) = match read {
            Ok(read) => read,
            Err(FrameError::Closed | FrameError::Io(_)) => return None,
            Err(error) => return misbehaved(frame_counter(&error), &error),
        };
        voice.heard();
        // Room comes first: a request that finds none is not worth its check.
        let find_room = || shell.inbox.client_room(client, bytes + OVERHEAD);
        let mut room = find_room();
        if room.is_none() && !requests.is_empty() {
            // Those before it may be what takes it up.
            if let Err(rejection) = requests.take(shell, admission).await {
                return misbehaved(rejection_counter(rejection), &rejection);
            }
            room = find_room();
        }
        match (message, room) {
            (ToReplica::Request(request), _) if request.body().client != client => {
                return misbehaved(Counter::RequestForeign, &"another client's request");
            }
            (ToReplica::Request(request), None) => {
                shell.counters.count(Counter::RequestBusy);
                admission.answer(ToClient::Busy(request.body().name()));
            }
            (ToReplica::Request(request), Some(room)) => {
                if let Err(rejection) = requests.push(shell, admission, request, room).await {
                    return misbehaved(rejection_counter(rejection), &rejection);
                }
            }
            (ToReplica::Query(query), room) => {
                if let Err(malformed) = query.check() {
                    return misbehaved(rejection_counter(malformed.into()), &malformed);
                }
                match room {
                    Some(room) => requests.ask(query, room),
                    None => {
                        shell.counters.count(Counter::RequestBusy);
                        let digest = query.digest();
                        admission.answer(ToClient::NoQueryReply(
                            query.session,
                            digest,
                            NoReply::Unable,
                        ));
                    }
                }
            }
            (
                question @ (ToReplica::AskSession(_)
                | ToReplica::AskStatus(_)
                | ToReplica::AskEvidence
                | ToReplica::AskState
                | ToReplica::AskPiece { .. }),
                room,
            ) => take_question(shell, admission, question, room).await,
            (
                ToReplica::Knock(_)
                | ToReplica::Hello(_)
                | ToReplica::Terms(_)
                | ToReplica::Peer(_)
                | ToReplica::Part(_),
                _,
            ) => {
                let what = &"sent what only a replica, or a new connection, sends";
                return misbehaved(Counter::MessageMisplaced, what);
            }
        }
        // What has been received already is checked together; for more nobody waits.
        if (requests.len() >= REQUESTS_GROUP || !frames::holds_next(reader))
            && let Err(rejection) = requests.take(shell, admission).await
        {
            return misbehaved(rejection_counter(rejection), &rejection);
        }
    }
}

/// Requests and queries that were read, with their room. The signatures of requests are to be checked.
#[derive(Default)]
struct Requests {
    unchecked: Vec<(Unchecked<Arc<SignedRequest>>, Room)>,
    queries: Vec<(Query, Room)>,
}

impl Requests {
    fn len(&self) -> usize {
        self.unchecked.len() + self.queries.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a query to the others.
    fn ask(&mut self, query: Query, room: Room) {
        self.queries.push((query, room));
    }

    /// Puts one to the others, if its bounds hold.
    async fn push(
        &mut self,
        shell: &Shell,
        admission: &Admission,
        request: Arc<SignedRequest>,
        room: Room,
    ) -> Result<(), Rejection> {
        match shell.membership.read_request(request) {
            Ok(request) => {
                self.unchecked.push((request, room));
                Ok(())
            }
            // It is the last one: those before it are to be taken.
            Err(rejection) => self.take(shell, admission).await.and(Err(rejection)),
        }
    }

    /// Checks them, and hands those that are good to the core, whatever the others are.
    async fn take(&mut self, shell: &Shell, admission: &Admission) -> Result<(), Rejection> {
        if self.is_empty() {
            return Ok(());
        }
        let (requests, rooms): (Vec<_>, Vec<_>) = self.unchecked.drain(..).unzip();
        let opened = if requests.is_empty() {
            Vec::new()
        } else {
            let _turn = admission.turn_to_check().await;
            shell.membership.open_all(requests)
        };
        let mut all = Ok(());
        let mut good = Vec::with_capacity(rooms.len() + self.queries.len());
        for (opened, room) in opened.into_iter().zip(rooms) {
            match opened {
                Ok(request) => {
                    admission.uses(request.body().session);
                    good.push((Event::Request(request), room));
                }
                Err(rejection) => all = Err(rejection),
            }
        }
        for (query, room) in self.queries.drain(..) {
            admission.uses(query.session);
            good.push((Event::Queries(vec![(admission.client, query)]), room));
        }
        shell.inbox.put_client(admission.client, good);
        // Else a connection with much to read would keep its thread to itself.
        yield_now().await;
        all
    }
}

/// Asks the core. There is one question at a time about the status, about proofs or about states.
async fn take_question(
    shell: &Shell,
    admission: &Admission,
    question: ToReplica,
    room: Option<Room>,
) {
    let client = admission.client;
    match (question, room) {
        (ToReplica::AskSession(session), Some(room)) => {
            admission.turn_to_ask().await;
            admission.uses(session);
            shell.inbox.put_client(client, [(Event::AskSession { client, session }, room)]);
        }
        (ToReplica::AskStatus(nonce), _) if !admission.is_asking() => {
            admission.turn_to_ask().await;
            admission.asks();
            let question = Event::AskStatus { client, nonce, driver: shell.driver() };
            if !shell.inbox.put_question(question) {
                shell.counters.count(Counter::QuestionBusy);
            }
        }
        (ToReplica::AskEvidence, Some(room)) if !admission.is_asking() => {
            ask(shell, admission, Event::AskEvidence { client }, room).await;
        }
        (ToReplica::AskState, Some(room)) if !admission.is_asking() => {
            ask(shell, admission, Event::AskState { client }, room).await;
        }
        (ToReplica::AskPiece { at, index }, Some(room)) if !admission.is_asking() => {
            ask(shell, admission, Event::AskPiece { client, at, index }, room).await;
        }
        _ => {
            shell.counters.count(Counter::QuestionBusy);
            // Refusing is cheap, but not free.
            yield_now().await;
        }
    }
}

/// Asks what is answered to those connections that asked.
async fn ask(shell: &Shell, admission: &Admission, question: Event, room: Room) {
    admission.turn_to_ask().await;
    admission.asks();
    shell.inbox.put_client(admission.client, [(question, room)]);
}

/// Why a connection can no longer be written to.
enum Broken {
    /// For longer than may be, nothing could be written.
    TooSlow,
    /// The other side is gone.
    Gone,
}

/// Writes answers until there are none left and none can come, and gives the writer back.
async fn write(
    mut writer: Writer,
    mut answers: Answers,
    broken: CancellationToken,
) -> Result<Writer, Broken> {
    // Whichever way this ends, the reader is not to go on alone.
    let _told = broken.drop_guard();
    let mut group = Vec::new();
    while answers.take(&mut group, ANSWERS_GROUP).await > 0 {
        for frame in merge(group.drain(..)) {
            frames::feed(&mut writer, frame).await?;
        }
        frames::flush(&mut writer).await?;
    }
    Ok(writer)
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TooSlow,
            _ => Self::Gone,
        }
    }
}

/// Encodes answers, neighbouring replies in one frame.
fn merge(answers: impl Iterator<Item = ToClient>) -> Vec<Bytes> {
    let mut merged = Merged::default();
    for answer in answers {
        match answer {
            ToClient::Replies(more) => {
                for reply in more {
                    merged.make_room(weight::reply(&reply), false);
                    merged.replies.push(reply);
                }
            }
            ToClient::QueryReplies(more) => {
                for reply in more {
                    merged.make_room(weight::query_reply(&reply), true);
                    merged.query_replies.push(reply);
                }
            }
            other => {
                merged.finish();
                merged.encode(&other);
            }
        }
    }
    merged.finish();
    merged.frames
}

/// Frames, and the replies of one kind or the other that make the next one.
#[derive(Default)]
struct Merged {
    frames: Vec<Bytes>,
    replies: Vec<SignedReply>,
    query_replies: Vec<SignedQueryReply>,
    bytes: usize,
}

impl Merged {
    /// Before another one of so many bytes, which is one to a query, or none.
    fn make_room(&mut self, bytes: usize, is_to_query: bool) {
        let is_other = if is_to_query { self.replies.len() } else { self.query_replies.len() } > 0;
        if is_other || self.bytes + bytes > MERGED_BYTES {
            self.finish();
        }
        self.bytes += bytes;
    }

    fn finish(&mut self) {
        if !self.replies.is_empty() {
            let replies = std::mem::take(&mut self.replies);
            self.encode(&ToClient::Replies(replies));
        }
        if !self.query_replies.is_empty() {
            let replies = std::mem::take(&mut self.query_replies);
            self.encode(&ToClient::QueryReplies(replies));
        }
        self.bytes = 0;
    }

    fn encode(&mut self, message: &ToClient) {
        // What is too large for a frame was an answer that no frame can carry: nothing to be sent.
        self.frames.extend(codec::encode(message));
    }
}
