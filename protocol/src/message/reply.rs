//! What replicas answer clients.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Malformed;
use crate::codec::{Canonical, Sink, begin};
use crate::id::{ClientId, Digest, ReplicaId, RequestName, RequestNumber, SessionId, Slot, View};
use crate::merkle::Path;
use crate::signature::Signature;

/// What a reply asserts of the slot it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReplyKind {
    /// "I executed it there": Zyzzyva's and Zeno's SPECRESPONSE.
    Speculative,
    /// "I hold a commit certificate of this view that covers it."
    Committed,
}

/// The results of a request, one for each of its operations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Results {
    /// As the application gave them.
    Full(Vec<Bytes>),
    /// Their digest alone: they were large and are no longer kept.
    Forgotten(Digest),
}

struct ResultList<'a>(&'a [Bytes]);

impl Canonical for ResultList<'_> {
    const TAG: &'static str = "results";

    fn write(&self, to: &mut impl Sink) {
        to.put_len(self.0.len());
        self.0.iter().for_each(|result| to.put_bytes(result));
    }
}

impl Results {
    /// The digest of full results.
    #[must_use]
    pub fn digest_of(results: &[Bytes]) -> Digest {
        ResultList(results).digest()
    }

    /// The digest by which results are compared; the same for full and forgotten ones.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Full(results) => Self::digest_of(results),
            Self::Forgotten(digest) => *digest,
        }
    }

    /// The bytes they take.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Full(results) => results.iter().map(Bytes::len).sum(),
            Self::Forgotten(_) => 32,
        }
    }
}

/// Takes the results of a request one by one and lets go of all of them once they are too many
/// bytes: from then on it only hashes.
pub(crate) struct ResultCollector {
    count: usize,
    most: usize,
    size: usize,
    whole: Vec<Bytes>,
    hash: Option<Sha256>,
}

impl ResultCollector {
    /// For `count` results of at most `most` bytes together.
    pub(crate) fn new(count: usize, most: usize) -> Self {
        Self { count, most, size: 0, whole: Vec::with_capacity(count), hash: None }
    }

    pub(crate) fn add(&mut self, result: Bytes) {
        if let Some(hash) = &mut self.hash {
            hash.put_bytes(&result);
            return;
        }
        self.size += result.len();
        self.whole.push(result);
        if self.size > self.most {
            let mut hash = begin(ResultList::TAG);
            hash.put_len(self.count);
            self.whole.drain(..).for_each(|result| hash.put_bytes(&result));
            self.hash = Some(hash);
        }
    }

    pub(crate) fn finish(self) -> Results {
        match self.hash {
            None => Results::Full(self.whole),
            Some(hash) => Results::Forgotten(Digest(hash.finalize().into())),
        }
    }
}

/// Replica to client: "in `view`, the request has this place and these results".
///
/// A client is answered by a quorum of replies that are equal in all fields: a weak one of either
/// kind shows that a correct replica executed it, a strong one of committed ones that it is final.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reply {
    /// How much it promises.
    pub kind: ReplyKind,
    /// The view the replica has entered.
    pub view: View,
    /// The slot that holds the request.
    pub slot: Slot,
    /// The hash of the history up to that slot.
    pub hash: Digest,
    /// The request's name.
    pub name: RequestName,
    /// The digest of its content: of two contents under one name, which one this is about.
    pub request: Digest,
    /// The position of its first operation among all operations of the slot.
    pub index: u32,
    /// What came out.
    pub results: Results,
}

struct ReplyLeaf<'a>(&'a Reply);

impl Canonical for ReplyLeaf<'_> {
    const TAG: &'static str = "reply-leaf";

    fn write(&self, to: &mut impl Sink) {
        let Reply { kind: _, view: _, slot: _, hash: _, name, request, index, results } = self.0;
        to.put_client(&name.client);
        to.put_u64(name.session.0);
        to.put_u64(name.number.0);
        to.put_digest(request);
        to.put_u64(u64::from(*index));
        to.put_digest(&results.digest());
    }
}

/// What one signature covers: all replies of one kind for one slot in one view.
struct ReplyRoot {
    view: View,
    slot: Slot,
    hash: Digest,
    leaves: u32,
    root: Digest,
}

/// [`ReplyRoot`] under the tag of its kind, so that a speculative root is no committed one.
struct Kind<const COMMITTED: bool>(ReplyRoot);

impl<const COMMITTED: bool> Canonical for Kind<COMMITTED> {
    const TAG: &'static str = if COMMITTED { "committed-replies" } else { "speculative-replies" };

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(self.0.view.0);
        to.put_u64(self.0.slot.0);
        to.put_digest(&self.0.hash);
        to.put_u64(u64::from(self.0.leaves));
        to.put_digest(&self.0.root);
    }
}

/// What a replica says to clients, many at a time under one signature: each is a leaf of a [tree](crate::merkle).
pub trait InTree {
    /// What all that are in one tree have in common.
    type Shared: Copy + PartialEq;

    /// See [`InTree::Shared`].
    fn shared(&self) -> Self::Shared;

    /// The leaf in the tree.
    fn leaf(&self) -> Digest;

    /// What is signed: a tree of so many leaves, with this root.
    fn signing_digest(shared: Self::Shared, leaves: u32, root: Digest, genesis: &Digest) -> Digest;

    /// Whether the bounds hold.
    ///
    /// # Errors
    /// One does not.
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

impl InTree for Reply {
    type Shared = (ReplyKind, View, Slot, Digest);

    fn shared(&self) -> Self::Shared {
        (self.kind, self.view, self.slot, self.hash)
    }

    fn leaf(&self) -> Digest {
        ReplyLeaf(self).digest()
    }

    fn signing_digest(
        (kind, view, slot, hash): Self::Shared,
        leaves: u32,
        root: Digest,
        genesis: &Digest,
    ) -> Digest {
        let root = ReplyRoot { view, slot, hash, leaves, root };
        match kind {
            ReplyKind::Speculative => Kind::<false>(root).signing_digest(genesis),
            ReplyKind::Committed => Kind::<true>(root).signing_digest(genesis),
        }
    }
}

/// A replica's word for a reply: its signature over the tree, and the reply's path in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyVote {
    /// Who says so.
    pub by: ReplicaId,
    /// Where the reply stands in the tree that was signed.
    pub path: Path,
    /// Over the root.
    pub signature: Signature,
}

/// A reply as one replica sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voted<R> {
    /// What is said.
    pub reply: R,
    /// Who says it, with the signature.
    pub vote: ReplyVote,
}

/// A reply to a request as one replica sends it.
pub type SignedReply = Voted<Reply>;

/// Why a replica will not execute a request.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    thiserror::Error,
)]
pub enum RefusalReason {
    /// The session is not known, and lies where sessions have left that were not used for long.
    #[error("the session was not used for so long that the cluster has forgotten it")]
    SessionRetired,
    /// Too far beyond the session's lowest request not yet executed.
    #[error("too many requests of the session are still open")]
    WindowExceeded,
    /// The session lies far above those that are to be opened now.
    #[error("the session has an id that the cluster does not give out yet")]
    SessionTooFar,
    /// Another content was executed under this name.
    #[error("another request was executed under the same name")]
    NameUsed,
    /// It was executed, so long ago that its results are no longer kept.
    #[error("executed, but its results are no longer kept")]
    ResultForgotten,
    #[error("too few replicas have been connected for too long: the speculative history is full")]
    /// The history above the stable checkpoint is as long as it may be: too few replicas are
    /// connected, and have been for long, for anything to become final.
    HistoryFull,
    /// Too few replicas list the client.
    #[error("too few replicas list this client")]
    UnknownClient,
}

/// Replica to client: "in my present state I will not execute this request".
///
/// A client believes a weak quorum of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// The request's name.
    pub name: RequestName,
    /// Its content.
    pub request: Digest,
    /// What stands against it.
    pub reason: RefusalReason,
}

impl Canonical for Refusal {
    const TAG: &'static str = "refusal";

    fn write(&self, to: &mut impl Sink) {
        to.put_client(&self.name.client);
        to.put_u64(self.name.session.0);
        to.put_u64(self.name.number.0);
        to.put_digest(&self.request);
        to.put_u8(match self.reason {
            RefusalReason::SessionRetired => 0,
            RefusalReason::WindowExceeded => 1,
            RefusalReason::SessionTooFar => 2,
            RefusalReason::NameUsed => 3,
            RefusalReason::ResultForgotten => 4,
            RefusalReason::HistoryFull => 5,
            RefusalReason::UnknownClient => 6,
        });
    }
}

/// Replica to client: "this I know of your session, and there a new one may lie".
///
/// It is asked for before a session is used, the first time or after a rest. It speaks of the present
/// state, and for one replica: of what replicas report a client takes the `f + 1`-th highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The client.
    pub client: ClientId,
    /// The session asked for.
    pub session: SessionId,
    /// All its requests with numbers up to this one have been executed (0: not even the first).
    pub executed_through: RequestNumber,
    /// Whether it has left the table, so that nothing is executed in it any more.
    pub has_left: bool,
    /// A new session of this client should lie in the generation that begins here.
    pub opening: SessionId,
}

impl Canonical for SessionReport {
    const TAG: &'static str = "session-report";

    fn write(&self, to: &mut impl Sink) {
        to.put_client(&self.client);
        to.put_u64(self.session.0);
        to.put_u64(self.executed_through.0);
        to.put_u8(u8::from(self.has_left));
        to.put_u64(self.opening.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_are_let_go_keep_their_digest() {
        let results: Vec<Bytes> = (1..=9u8).map(|n| Bytes::from(vec![n; 10])).collect();
        let collect = |most| {
            let mut collector = ResultCollector::new(results.len(), most);
            results.iter().for_each(|result| collector.add(result.clone()));
            collector.finish()
        };
        let whole = Results::Full(results.clone());
        assert_eq!(collect(90), whole);
        for most in [0, 35, 89] {
            assert_eq!(collect(most), Results::Forgotten(whole.digest()), "{most}");
        }
    }
}
