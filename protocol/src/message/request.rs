//! The client's request.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::codec::{Canonical, Sink};
use crate::id::{ClientId, Digest, RequestName, RequestNumber, SessionId};
use crate::merkle::{Path, Tree};
use crate::quorum::Strength;
use crate::signature::{Claim, Signature, Signer};

/// The most operations one request may carry.
pub const OPERATIONS_MAX: usize = 1024;

/// The most bytes the operations of one request may have together.
pub const REQUEST_BYTES_MAX: usize = 2 << 20;

/// The most requests of a client that one signature covers: the path of each has at most 6 digests.
pub const SIGNED_TOGETHER_MAX: u32 = 64;

/// About what an operation takes in memory beside its bytes while it can be undone: its results, what
/// undoes it, and the branches of the state's hashes that it changes.
pub const OPERATION_WEIGHT: usize = 2 << 10;

/// The most that [what the application says](crate::application::Application::weight) of its
/// operations counts for one request.
pub const APPLICATION_WEIGHT_MAX: u64 = 3 << 20;

/// What a client wants to know when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// `f + 1` replicas executed it: never lost, but its place may still change.
    Weak,
    /// `2f + 1` replicas hold a commit certificate for it: final, and linearizable.
    Strong,
}

/// Client to all replicas: "execute these operations, in this order, once".
///
/// Signed by the client, alone or [together](SignedRequest::sign_all) with others. A receiver that may order, orders it; the others keep it until it is
/// ordered, and pass it on where that takes too long. Bounds: [`OPERATIONS_MAX`],
/// [`REQUEST_BYTES_MAX`], at least one operation, `number >= 1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks.
    pub client: ClientId,
    /// In which of its sessions.
    pub session: SessionId,
    /// Counts up from 1 within the session.
    pub number: RequestNumber,
    /// Which answer the client waits for.
    pub level: Level,
    /// Whether a weak request's final result is to be sent, too.
    pub want_final: bool,
    /// What to do. The application reads the bytes.
    pub operations: Vec<Bytes>,
}

impl Request {
    /// What makes it once-only.
    #[must_use]
    pub fn name(&self) -> RequestName {
        RequestName { client: self.client, session: self.session, number: self.number }
    }

    /// The bytes of its operations together.
    #[must_use]
    pub fn operation_bytes(&self) -> usize {
        self.operations.iter().map(Bytes::len).sum()
    }

    /// At least the bytes it takes in a frame, signature included: what limits on batches, answers
    /// and queues count, since a request of empty operations is not empty.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        384 + 8 * self.operations.len() + self.operation_bytes()
    }

    /// About what it takes in memory while it is executed and can be undone, in bytes, given
    /// [what the application says](crate::application::Application::weight) of each operation. What a slot
    /// and a suffix may have of it is a rule, so that all replicas must agree on this.
    fn weight(&self, of: impl Fn(&Bytes) -> u64) -> u64 {
        let own = self.wire_bytes() + OPERATION_WEIGHT * self.operations.len();
        let of_application = self.operations.iter().map(of).fold(0, u64::saturating_add);
        own as u64 + of_application.min(APPLICATION_WEIGHT_MAX)
    }

    /// Whether somebody waits for a certificate that covers it.
    #[must_use]
    pub fn wants_commit(&self) -> bool {
        self.level == Level::Strong || self.want_final
    }

    /// So many replicas have to answer it as make this quorum.
    #[must_use]
    pub fn strength(&self) -> Strength {
        if self.wants_commit() { Strength::Strong } else { Strength::Weak }
    }

    /// Whether the bounds hold.
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(!self.operations.is_empty(), "a request without operations")?;
        Malformed::unless(self.operations.len() <= OPERATIONS_MAX, "too many operations")?;
        Malformed::unless(self.operation_bytes() <= REQUEST_BYTES_MAX, "a request too large")?;
        Malformed::unless(self.number >= RequestNumber::FIRST, "request number 0")
    }
}

impl Canonical for Request {
    const TAG: &'static str = "request";

    fn write(&self, to: &mut impl Sink) {
        to.put_client(&self.client);
        to.put_u64(self.session.0);
        to.put_u64(self.number.0);
        to.put_u8(match self.level {
            Level::Weak => 0,
            Level::Strong => 1,
        });
        to.put_u8(u8::from(self.want_final));
        to.put_len(self.operations.len());
        self.operations.iter().for_each(|operation| to.put_bytes(operation));
    }
}

/// What a client's signature covers: a [tree](crate::merkle) whose leaves are the digests of requests, mostly of one
/// alone.
struct RequestRoot {
    leaves: u32,
    root: Digest,
}

impl Canonical for RequestRoot {
    const TAG: &'static str = "requests";

    fn write(&self, to: &mut impl Sink) {
        to.put_u64(u64::from(self.leaves));
        to.put_digest(&self.root);
    }
}

/// A request with its client's signature. The digest is computed once and kept.
///
/// One signature may cover many requests of a client, of several sessions: each has it, with its path in the
/// tree that was signed. Which others those are is of no concern to anybody: whoever has one of them
/// needs none of the others.
#[derive(Clone, Serialize, Deserialize)]
pub struct SignedRequest {
    body: Request,
    signature: Signature,
    path: Path,
    #[serde(skip)]
    digest: OnceLock<Digest>,
    #[serde(skip)]
    weight: OnceLock<u64>,
}

impl PartialEq for SignedRequest {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature && self.path == other.path && self.body == other.body
    }
}

impl Eq for SignedRequest {}

/// Its name and its content, not whether the digest was computed already.
impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = (self.body.name(), self.digest());
        f.debug_tuple("SignedRequest").field(&content).field(&self.signature).finish()
    }
}

impl SignedRequest {
    /// Signs a request with its client's key.
    pub fn sign(signer: &dyn Signer, genesis: &Digest, body: Request) -> Arc<Self> {
        let digest = body.digest();
        let root = RequestRoot { leaves: 1, root: digest };
        let signature = signer.sign(&root.signing_digest(genesis));
        Arc::new(Self { digest: digest.into(), ..Self::from_parts(body, signature, Path::lone()) })
    }

    /// Signs requests of one client, which may be of several sessions, with one signature. Answers them in their order.
    ///
    /// # Panics
    /// Where there are none, or more than [`SIGNED_TOGETHER_MAX`].
    pub fn sign_all(signer: &dyn Signer, genesis: &Digest, bodies: Vec<Request>) -> Vec<Arc<Self>> {
        assert!(bodies.len() <= SIGNED_TOGETHER_MAX as usize, "{} requests", bodies.len());
        let digests: Vec<Digest> = bodies.iter().map(Canonical::digest).collect();
        let tree = Tree::new(digests.clone());
        let root = RequestRoot { leaves: tree.path(0).leaves, root: tree.root() };
        let signature = signer.sign(&root.signing_digest(genesis));
        let signed = |(position, (body, digest)): (usize, (Request, Digest))| {
            let path = tree.path(position);
            Arc::new(Self { digest: digest.into(), ..Self::from_parts(body, signature, path) })
        };
        bodies.into_iter().zip(digests).enumerate().map(signed).collect()
    }

    /// A request with whatever signature and path: it has still to be opened.
    #[must_use]
    pub fn from_parts(body: Request, signature: Signature, path: Path) -> Self {
        Self { body, signature, path, digest: OnceLock::new(), weight: OnceLock::new() }
    }

    /// What the client asks.
    #[must_use]
    pub fn body(&self) -> &Request {
        &self.body
    }

    /// By the client.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Where it stands in the tree that was signed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The digest that names the content: it covers what the client signed, not the signature.
    #[must_use]
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| self.body.digest())
    }

    /// About what it takes in memory while it is executed and can be undone, in bytes: its own bytes,
    /// 2 KiB for each operation, and what the application says of each. It is worked out once.
    #[must_use]
    pub fn weight(&self, of: impl Fn(&Bytes) -> u64) -> u64 {
        *self.weight.get_or_init(|| self.body.weight(of))
    }

    /// What has to be true of its signature.
    ///
    /// # Errors
    /// It has no such place in a tree of so many requests.
    pub fn claim(&self, genesis: &Digest) -> Result<Claim, Malformed> {
        let leaves = self.path.leaves;
        Malformed::unless(leaves <= SIGNED_TOGETHER_MAX, "too many requests signed together")?;
        let root = self.path.root(self.digest())?;
        let digest = RequestRoot { leaves, root }.signing_digest(genesis);
        Ok(Claim { key: self.body.client.into(), digest, signature: self.signature })
    }
}
