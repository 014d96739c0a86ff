//! What is signed and checked: the only way in.
//!
//! A [`Verified`] value is made here and nowhere else: by signing it oneself, or by checking what
//! somebody else signed. The state machines take nothing that is not `Verified`, so no path can
//! forget a check.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use crate::codec::Canonical;
use crate::evidence::Evidence;
use crate::id::{Digest, ReplicaId};
use crate::membership::Membership;
use crate::merkle::Tree;
use crate::message::{
    Branch, Campaign, Certificate, CommitCertificate, Hello, HelloBody, Knock, KnockBody,
    Malformed, Message, NewView, Order, Origin, Reply, ReplyRoot, ReplyVote, SignedReply,
    SignedRequest, SlotEntry, Slots, StableProof, ViewChange, Vote,
};
use crate::signature::{PublicKey, Signature, Signed, Signer};

/// Something whose signatures and bounds have been checked, all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The value; what it asserts has been said by whom it names.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Why something was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Rejection {
    /// The signature is not by whom it names, or over other bytes, or of another cluster.
    #[error("the signature does not verify")]
    BadSignature,
    /// No such replica, or not a client of this cluster.
    #[error("the signer is not known to this cluster")]
    UnknownSigner,
    /// A client key of small order, under which anybody can sign.
    #[error("the signer's key is weak")]
    WeakKey,
    /// A bound is broken or a part contradicts another.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
}

/// Signs a statement as replica `by`.
pub fn sign<T: Canonical>(
    signer: &dyn Signer,
    genesis: &Digest,
    by: ReplicaId,
    body: T,
) -> Verified<Signed<T>> {
    let signature = signer.sign(&body.signing_digest(genesis));
    Verified(Signed { body, by, signature })
}

impl Membership {
    fn check(
        &self,
        by: ReplicaId,
        digest: &Digest,
        signature: &Signature,
    ) -> Result<(), Rejection> {
        let key = self.replica_key(by).ok_or(Rejection::UnknownSigner)?;
        check_key(self, key, digest, signature)
    }

    fn check_signed<T: Canonical>(&self, signed: &Signed<T>) -> Result<(), Rejection> {
        self.check(signed.by, &signed.body.signing_digest(self.genesis()), &signed.signature)
    }

    fn check_certificate<V: Vote>(&self, certificate: &Certificate<V>) -> Result<(), Rejection> {
        certificate.check(self.size())?;
        let digest = certificate.body.signing_digest(self.genesis());
        certificate.votes.iter().try_for_each(|(by, vote)| self.check(*by, &digest, vote))
    }

    /// Whether the client is listed here is no question of this: its name is its key, and what other
    /// replicas pass on, or have in their histories, can be of clients that they list.
    fn check_request(&self, request: &SignedRequest) -> Result<(), Rejection> {
        request.body().check()?;
        let client = request.body().client;
        let key = PublicKey::from(client);
        // Listed clients were checked when the cluster file was read.
        let is_known = !self.is_open() && self.admits(&client);
        if !is_known && !self.scheme().is_sound(&key) {
            return Err(Rejection::WeakKey);
        }
        check_key(self, &key, &request.signing_digest(self.genesis()), request.signature())
    }

    fn check_order(&self, order: &Signed<Order>) -> Result<(), Rejection> {
        order.body.check()?;
        self.check_signed(order)
    }

    fn check_slots(&self, slots: &Slots) -> Result<(), Rejection> {
        slots.check()?;
        slots.entries.iter().try_for_each(|entry| self.check_entry(entry))?;
        slots.certificate.iter().try_for_each(|certificate| self.check_certificate(certificate))
    }

    fn check_entry(&self, entry: &SlotEntry) -> Result<(), Rejection> {
        entry.order.iter().try_for_each(|order| self.check_order(order))?;
        entry.requests.iter().try_for_each(|request| self.check_request(request))
    }

    fn check_branch(&self, branch: &Branch) -> Result<(), Rejection> {
        branch.check()?;
        branch.slots.iter().try_for_each(|linked| self.check_entry(&linked.entry))?;
        branch.stable.iter().try_for_each(|proof| self.check_stable(proof))
    }

    /// Checks a stable checkpoint's certificates: the bounds, the quorums and every signature.
    ///
    /// # Errors
    /// See [`Rejection`].
    pub fn open_stable(&self, proof: StableProof) -> Result<Verified<StableProof>, Rejection> {
        self.check_stable(&proof)?;
        Ok(Verified(proof))
    }

    fn check_stable(&self, proof: &StableProof) -> Result<(), Rejection> {
        proof.check(self.size())?;
        self.check_certificate(&proof.checkpoint)?;
        self.check_certificate(&proof.cover)
    }

    /// The bounds of the view change are checked by whoever checks the message that holds it.
    fn check_change(&self, change: &Signed<ViewChange>) -> Result<(), Rejection> {
        self.check_signed(change)?;
        change.body.lock.iter().try_for_each(|lock| self.check_certificate(lock))
    }

    fn check_campaign(&self, campaign: &Campaign) -> Result<(), Rejection> {
        campaign.check(self.size())?;
        self.check_change(&campaign.change)?;
        campaign.suspects.iter().try_for_each(|suspect| self.check_signed(suspect))?;
        campaign.proof.iter().try_for_each(|proof| self.check_evidence(proof))?;
        campaign.others.iter().try_for_each(|change| self.check_change(change))
    }

    fn check_new_view(&self, new_view: &Signed<NewView>) -> Result<(), Rejection> {
        new_view.body.check(self.size())?;
        let primary = new_view.body.header.view.primary(self.size().replicas());
        Malformed::unless(new_view.by == primary, "a new view of another than its primary")?;
        self.check_signed(new_view)?;
        new_view.body.changes.iter().try_for_each(|change| self.check_change(change))
    }

    fn check_evidence(&self, evidence: &Evidence) -> Result<(), Rejection> {
        // Cheap things first: a fork is up to thousands of hashes.
        match evidence {
            Evidence::Orders(a, b) => [a, b].into_iter().try_for_each(|s| self.check_signed(s))?,
            Evidence::Commits(a, b) => [a, b].into_iter().try_for_each(|s| self.check_signed(s))?,
            Evidence::NewViews(a, b) => {
                [a, b].into_iter().try_for_each(|s| self.check_signed(s))?
            }
            Evidence::OrderRefuted(order, certificate, _) => {
                self.check_signed(order)?;
                self.check_certificate(certificate)?;
            }
            Evidence::NewViewRefuted(new_view, certificate, _) => {
                self.check_signed(new_view)?;
                self.check_certificate(certificate)?;
            }
        }
        Malformed::unless(evidence.contradicts_itself(), "evidence without a contradiction")?;
        Ok(())
    }

    /// Checks a statement of a replica: its signature only, where its kind has no bounds.
    ///
    /// # Errors
    /// The signer is not a member, or did not sign this.
    pub fn open<T: Canonical>(&self, signed: Signed<T>) -> Result<Verified<Signed<T>>, Rejection> {
        self.check_signed(&signed)?;
        Ok(Verified(signed))
    }

    /// Checks a client's request: bounds, that the client may speak here, and its signature.
    ///
    /// # Errors
    /// One of these does not hold.
    pub fn open_request(
        &self,
        request: Arc<SignedRequest>,
    ) -> Result<Verified<Arc<SignedRequest>>, Rejection> {
        if !self.admits(&request.body().client) {
            return Err(Rejection::UnknownSigner);
        }
        self.check_request(&request)?;
        Ok(Verified(request))
    }

    /// Checks a commit certificate: a strong quorum of distinct members signed one commit.
    ///
    /// # Errors
    /// There are too few signatures, or one of them does not verify.
    pub fn open_certificate(
        &self,
        certificate: CommitCertificate,
    ) -> Result<Verified<CommitCertificate>, Rejection> {
        self.check_certificate(&certificate)?;
        Ok(Verified(certificate))
    }

    /// Checks a replica's reply to a client.
    ///
    /// # Errors
    /// The reply is not in the tree that its replica signed.
    pub fn open_reply(&self, signed: SignedReply) -> Result<Verified<SignedReply>, Rejection> {
        let digest = signed.reply.signing_digest(&signed.vote.path, self.genesis())?;
        self.check(signed.vote.by, &digest, &signed.vote.signature)?;
        Ok(Verified(signed))
    }

    /// [`Membership::open_reply`] for many replies of few trees: each root is checked once.
    ///
    /// # Errors
    /// As there.
    pub fn open_reply_cached(
        &self,
        signed: SignedReply,
        roots: &mut VerifiedRoots,
    ) -> Result<Verified<SignedReply>, Rejection> {
        let digest = signed.reply.signing_digest(&signed.vote.path, self.genesis())?;
        let root = (signed.vote.by, digest, signed.vote.signature);
        if !roots.holds(&root) {
            self.check(signed.vote.by, &digest, &signed.vote.signature)?;
            roots.insert(root);
        }
        Ok(Verified(signed))
    }

    /// Checks a proof of misbehaviour: both signatures, and that the statements contradict each
    /// other.
    ///
    /// # Errors
    /// It proves nothing.
    pub fn open_evidence(&self, evidence: Evidence) -> Result<Verified<Evidence>, Rejection> {
        self.check_evidence(&evidence)?;
        Ok(Verified(evidence))
    }

    /// Checks the answer to a challenge: signed by the origin it names, who may speak here, for
    /// this connection to this replica.
    ///
    /// # Errors
    /// One of these does not hold.
    pub fn open_hello(
        &self,
        hello: Hello,
        me: ReplicaId,
        nonce: &[u8; 32],
    ) -> Result<Verified<Hello>, Rejection> {
        Malformed::unless(
            hello.body.to == me && hello.body.nonce == *nonce,
            "a hello for another connection",
        )?;
        let key = self.key_of(&hello.body.origin)?;
        let digest = hello.body.signing_digest(self.genesis());
        check_key(self, &key, &digest, &hello.signature)?;
        Ok(Verified(hello))
    }

    /// Checks what a connection says before it is challenged: signed by the origin it names, who may
    /// speak here, for this replica.
    ///
    /// # Errors
    /// One of these does not hold.
    pub fn open_knock(&self, knock: Knock, me: ReplicaId) -> Result<Verified<Knock>, Rejection> {
        Malformed::unless(knock.body.to == me, "a knock at another replica")?;
        let key = self.key_of(&knock.body.origin)?;
        let digest = knock.body.signing_digest(self.genesis());
        check_key(self, &key, &digest, &knock.signature)?;
        Ok(Verified(knock))
    }

    /// The key of whoever dials, if they may speak here.
    fn key_of(&self, origin: &Origin) -> Result<PublicKey, Rejection> {
        let key = match *origin {
            Origin::Replica(id) => *self.replica_key(id).ok_or(Rejection::UnknownSigner)?,
            Origin::Client(id) if self.admits(&id) => id.into(),
            Origin::Client(_) => return Err(Rejection::UnknownSigner),
        };
        if self.scheme().is_sound(&key) { Ok(key) } else { Err(Rejection::WeakKey) }
    }

    /// Checks a message from a peer: the bounds of its kind and every signature in it.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn open_message(&self, message: Message) -> Result<Verified<Message>, Rejection> {
        match &message {
            Message::Order(order) => self.check_order(order)?,
            Message::Commit(commit) => {
                commit.body.check()?;
                self.check_signed(commit)?;
            }
            Message::Certificate(certificate) => self.check_certificate(certificate)?,
            Message::Checkpoint(checkpoint) => {
                checkpoint.body.check()?;
                self.check_signed(checkpoint)?;
            }
            Message::Stable(proof) => self.check_stable(proof)?,
            Message::Status(status) => {
                status.body.check()?;
                self.check_signed(status)?;
            }
            Message::Fetch(fetch) => {
                fetch.body.check()?;
                self.check_signed(fetch)?;
            }
            Message::Requests(requests) => {
                requests.check()?;
                requests.0.iter().try_for_each(|request| self.check_request(request))?;
            }
            Message::Clients(clients) => clients.check()?,
            // What it names is checked when it comes.
            Message::Waiting(waiting) => waiting.check()?,
            Message::Slots(slots) => self.check_slots(slots)?,
            Message::Branch(branch) => self.check_branch(branch)?,
            // Checked against the certified digest by whoever asked for it.
            Message::State(_) => {}
            Message::Suspect(suspect) => {
                suspect.body.check()?;
                self.check_signed(suspect)?;
            }
            Message::Campaign(campaign) => self.check_campaign(campaign)?,
            Message::NewView(new_view) => self.check_new_view(new_view)?,
            Message::Evidence(evidence) => self.check_evidence(evidence)?,
            Message::Enrol(enrol) => self.check_signed(enrol)?,
            Message::Enrolled(enrolled) => {
                enrolled.body.check(self.size())?;
                self.check_signed(enrolled)?;
            }
            Message::Pulse(pulse) => {
                pulse.body.check(self.size())?;
                self.check_signed(pulse)?;
            }
        }
        Ok(Verified(message))
    }
}

fn check_key(
    membership: &Membership,
    key: &PublicKey,
    digest: &Digest,
    signature: &Signature,
) -> Result<(), Rejection> {
    if membership.scheme().verify(key, digest, signature) {
        Ok(())
    } else {
        Err(Rejection::BadSignature)
    }
}

/// Signs all replies of one kind for one slot with one signature.
///
/// All replies must be of the same kind, view, slot and hash.
///
/// # Panics
/// Where there are no replies, or they differ in these.
pub fn sign_replies(
    signer: &dyn Signer,
    genesis: &Digest,
    by: ReplicaId,
    replies: Vec<Reply>,
) -> Vec<SignedReply> {
    let first = replies.first().expect("at least one reply");
    let (kind, view, slot, hash) = (first.kind, first.view, first.slot, first.hash);
    assert!(
        replies.iter().all(|r| (r.kind, r.view, r.slot, r.hash) == (kind, view, slot, hash)),
        "one tree holds the replies of one slot"
    );
    let tree = Tree::new(replies.iter().map(Reply::leaf).collect());
    let leaves = tree.path(0).leaves;
    let digest =
        ReplyRoot { view, slot, hash, leaves, root: tree.root() }.signing_digest(kind, genesis);
    let signature = signer.sign(&digest);
    replies
        .into_iter()
        .enumerate()
        .map(|(position, reply)| {
            let path = tree.path(position);
            SignedReply { reply, vote: ReplyVote { by, path, signature } }
        })
        .collect()
}

/// Signs the answer to a challenge.
pub fn sign_hello(signer: &dyn Signer, genesis: &Digest, body: HelloBody) -> Hello {
    Hello { body, signature: signer.sign(&body.signing_digest(genesis)) }
}

/// Signs what is said before a challenge.
pub fn sign_knock(signer: &dyn Signer, genesis: &Digest, body: KnockBody) -> Knock {
    Knock { body, signature: signer.sign(&body.signing_digest(genesis)) }
}

/// Roots of reply trees whose signatures were found good, the newest [`VerifiedRoots::KEPT`].
#[derive(Debug, Default)]
pub struct VerifiedRoots {
    known: BTreeSet<Root>,
    order: VecDeque<Root>,
}

type Root = (ReplicaId, Digest, Signature);

impl VerifiedRoots {
    /// How many are kept.
    pub const KEPT: usize = 1024;

    fn holds(&self, root: &Root) -> bool {
        self.known.contains(root)
    }

    fn insert(&mut self, root: Root) {
        if self.known.insert(root) {
            self.order.push_back(root);
        }
        if self.order.len() > Self::KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}
