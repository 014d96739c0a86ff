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
    Branch, Campaign, Certificate, CommitCertificate, Hello, HelloBody, InTree, Knock, KnockBody,
    Malformed, Message, NewView, Order, Origin, ReplyVote, SignedRequest, SlotEntry, Slots,
    StableProof, StateHead, ViewChange, Vote, Voted,
};
use crate::signature::{Claim, PublicKey, Signature, Signed, Signer};

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

/// What was read and is within its bounds, with the signatures in it, which nobody has checked yet.
#[derive(Debug)]
#[must_use]
pub struct Unchecked<T> {
    value: T,
    claims: Vec<Claim>,
}

impl Membership {
    /// Checks the signatures of many at once, which is cheaper than one by one. Answers in their order.
    pub fn open_all<T>(&self, all: Vec<Unchecked<T>>) -> Vec<Result<Verified<T>, Rejection>> {
        let claims: Vec<Claim> = all.iter().flat_map(|one| &one.claims).copied().collect();
        let mut verdicts = self.scheme().verify_all(&claims).into_iter();
        let open = |Unchecked { value, claims }: Unchecked<T>| {
            // All of its verdicts are taken, whatever they are: what follows are those of the next one.
            let good = verdicts.by_ref().take(claims.len()).filter(|is_good| *is_good).count();
            if good == claims.len() { Ok(Verified(value)) } else { Err(Rejection::BadSignature) }
        };
        all.into_iter().map(open).collect()
    }

    fn open_one<T>(
        &self,
        Unchecked { value, claims }: Unchecked<T>,
    ) -> Result<Verified<T>, Rejection> {
        self.are_good(&claims)?;
        Ok(Verified(value))
    }

    fn are_good(&self, claims: &[Claim]) -> Result<(), Rejection> {
        let is_good = match claims {
            [claim] => self.scheme().verify(claim),
            claims => self.scheme().verify_all(claims) == vec![true; claims.len()],
        };
        if is_good { Ok(()) } else { Err(Rejection::BadSignature) }
    }
}

/// Finds the bounds of what is read, and the signatures in it.
struct Reading<'a> {
    membership: &'a Membership,
    claims: Vec<Claim>,
}

impl Reading<'_> {
    fn claim(
        &mut self,
        by: ReplicaId,
        digest: Digest,
        signature: Signature,
    ) -> Result<(), Rejection> {
        let key = *self.membership.replica_key(by).ok_or(Rejection::UnknownSigner)?;
        self.claims.push(Claim { key, digest, signature });
        Ok(())
    }

    fn signed<T: Canonical>(&mut self, signed: &Signed<T>) -> Result<(), Rejection> {
        let digest = signed.body.signing_digest(self.membership.genesis());
        self.claim(signed.by, digest, signed.signature)
    }

    fn certificate<V: Vote>(&mut self, certificate: &Certificate<V>) -> Result<(), Rejection> {
        certificate.check(self.membership.size())?;
        let digest = certificate.body.signing_digest(self.membership.genesis());
        certificate.votes.iter().try_for_each(|(by, vote)| self.claim(*by, digest, *vote))
    }

    /// Whether the client is listed here is no question of this: its name is its key, and what other
    /// replicas pass on, or have in their histories, can be of clients that they list.
    fn request(&mut self, request: &SignedRequest) -> Result<(), Rejection> {
        request.body().check()?;
        let (membership, client) = (self.membership, request.body().client);
        let key = PublicKey::from(client);
        // Listed clients were checked when the cluster file was read.
        let is_known = !membership.is_open() && membership.admits(&client);
        if !is_known && !membership.scheme().is_sound(&key) {
            return Err(Rejection::WeakKey);
        }
        self.claims.push(request.claim(membership.genesis())?);
        Ok(())
    }

    fn order(&mut self, order: &Signed<Order>) -> Result<(), Rejection> {
        order.body.check()?;
        self.signed(order)
    }

    fn slots(&mut self, slots: &Slots) -> Result<(), Rejection> {
        slots.check()?;
        slots.entries.iter().try_for_each(|entry| self.entry(entry))?;
        slots.certificate.iter().try_for_each(|certificate| self.certificate(certificate))
    }

    fn entry(&mut self, entry: &SlotEntry) -> Result<(), Rejection> {
        entry.order.iter().try_for_each(|order| self.order(order))?;
        entry.requests.iter().try_for_each(|request| self.request(request))
    }

    fn branch(&mut self, branch: &Branch) -> Result<(), Rejection> {
        branch.check()?;
        branch.slots.iter().try_for_each(|linked| self.entry(&linked.entry))?;
        branch.stable.iter().try_for_each(|proof| self.stable(proof))
    }

    fn stable(&mut self, proof: &StableProof) -> Result<(), Rejection> {
        proof.check(self.membership.size())?;
        self.certificate(&proof.checkpoint)?;
        self.certificate(&proof.cover)
    }

    /// The bounds of the view change are found by whoever reads the message that holds it.
    fn change(&mut self, change: &Signed<ViewChange>) -> Result<(), Rejection> {
        self.signed(change)?;
        change.body.lock.iter().try_for_each(|lock| self.certificate(lock))
    }

    fn campaign(&mut self, campaign: &Campaign) -> Result<(), Rejection> {
        campaign.check(self.membership.size())?;
        self.change(&campaign.change)?;
        campaign.suspects.iter().try_for_each(|suspect| self.signed(suspect))?;
        campaign.proof.iter().try_for_each(|proof| self.evidence(proof))?;
        campaign.others.iter().try_for_each(|change| self.change(change))
    }

    fn new_view(&mut self, new_view: &Signed<NewView>) -> Result<(), Rejection> {
        let size = self.membership.size();
        new_view.body.check(size)?;
        let primary = new_view.body.header.view.primary(size.replicas());
        Malformed::unless(new_view.by == primary, "a new view of another than its primary")?;
        self.signed(new_view)?;
        new_view.body.changes.iter().try_for_each(|change| self.change(change))
    }

    fn evidence(&mut self, evidence: &Evidence) -> Result<(), Rejection> {
        let mut inner = Reading { membership: self.membership, claims: Vec::new() };
        match evidence {
            Evidence::Orders(a, b) => [a, b].into_iter().try_for_each(|s| inner.signed(s))?,
            Evidence::Commits(a, b) => [a, b].into_iter().try_for_each(|s| inner.signed(s))?,
            Evidence::NewViews(a, b) => [a, b].into_iter().try_for_each(|s| inner.signed(s))?,
            Evidence::OrderRefuted(order, certificate, _) => {
                inner.signed(order)?;
                inner.certificate(certificate)?;
            }
            Evidence::NewViewRefuted(new_view, certificate, _) => {
                inner.signed(new_view)?;
                inner.certificate(certificate)?;
            }
        }
        // Cheap things first: a fork is up to thousands of hashes.
        self.membership.are_good(&inner.claims)?;
        Malformed::unless(evidence.contradicts_itself(), "evidence without a contradiction")?;
        Ok(())
    }

    fn message(&mut self, message: &Message) -> Result<(), Rejection> {
        let size = self.membership.size();
        match message {
            Message::Order(order) => self.order(order),
            Message::Commit(commit) => {
                commit.body.check()?;
                self.signed(commit)
            }
            Message::Certificate(certificate) => self.certificate(certificate),
            Message::Checkpoint(checkpoint) => {
                checkpoint.body.check()?;
                self.signed(checkpoint)
            }
            Message::Stable(proof) => self.stable(proof),
            Message::Status(status) => {
                status.body.check()?;
                self.signed(status)
            }
            Message::Fetch(fetch) => {
                fetch.body.check()?;
                self.signed(fetch)
            }
            Message::Requests(requests) => {
                requests.check()?;
                requests.0.iter().try_for_each(|request| self.request(request))
            }
            Message::Clients(clients) => Ok(clients.check()?),
            // What it names is checked when it comes.
            Message::Waiting(waiting) => Ok(waiting.check()?),
            Message::Slots(slots) => self.slots(slots),
            Message::Branch(branch) => self.branch(branch),
            // Checked against the certified digest by whoever asked for it.
            Message::State(_) => Ok(()),
            Message::Suspect(suspect) => {
                suspect.body.check()?;
                self.signed(suspect)
            }
            Message::Campaign(campaign) => self.campaign(campaign),
            Message::NewView(new_view) => self.new_view(new_view),
            Message::Evidence(evidence) => self.evidence(evidence),
            Message::Enrol(enrol) => self.signed(enrol),
            Message::Enrolled(enrolled) => {
                enrolled.body.check(size)?;
                self.signed(enrolled)
            }
            Message::Pulse(pulse) => {
                pulse.body.check(size)?;
                self.signed(pulse)
            }
        }
    }
}

impl Membership {
    /// Reads something, and finds its bounds and its signatures.
    fn read<T>(
        &self,
        value: T,
        read: impl FnOnce(&mut Reading<'_>, &T) -> Result<(), Rejection>,
    ) -> Result<Unchecked<T>, Rejection> {
        let mut reading = Reading { membership: self, claims: Vec::new() };
        read(&mut reading, &value)?;
        Ok(Unchecked { value, claims: reading.claims })
    }

    /// Reads a client's request: its bounds, and that the client may speak here.
    ///
    /// # Errors
    /// One of these does not hold.
    pub fn read_request(
        &self,
        request: Arc<SignedRequest>,
    ) -> Result<Unchecked<Arc<SignedRequest>>, Rejection> {
        if !self.admits(&request.body().client) {
            return Err(Rejection::UnknownSigner);
        }
        self.read(request, |reading, request| reading.request(request))
    }

    /// Reads a message from a peer: the bounds of its kind. Of a proof of misbehaviour everything is checked.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn read_message(&self, message: Message) -> Result<Unchecked<Message>, Rejection> {
        self.read(message, |reading, message| reading.message(message))
    }

    /// Checks a stable checkpoint's certificates: the bounds, the quorums and every signature.
    ///
    /// # Errors
    /// See [`Rejection`].
    pub fn open_stable(&self, proof: StableProof) -> Result<Verified<StableProof>, Rejection> {
        self.open_one(self.read(proof, |reading, proof| reading.stable(proof))?)
    }

    /// Checks what there is to know of a state before its pieces: that a strong quorum certified just this.
    ///
    /// # Errors
    /// It did not.
    pub fn open_state_head(&self, head: StateHead) -> Result<Verified<StateHead>, Rejection> {
        let StateHead { stable, digests } = head;
        let stable = self.open_stable(stable)?.into_inner();
        let is_its_own = digests.digest() == stable.checkpoint.body.state;
        Malformed::unless(is_its_own, "digests of another state")?;
        Ok(Verified(StateHead { stable, digests }))
    }

    /// Checks a statement of a replica: its signature only, where its kind has no bounds.
    ///
    /// # Errors
    /// The signer is not a member, or did not sign this.
    pub fn open<T: Canonical>(&self, signed: Signed<T>) -> Result<Verified<Signed<T>>, Rejection> {
        self.open_one(self.read(signed, |reading, signed| reading.signed(signed))?)
    }

    /// Checks a client's request: bounds, that the client may speak here, and its signature.
    ///
    /// # Errors
    /// One of these does not hold.
    pub fn open_request(
        &self,
        request: Arc<SignedRequest>,
    ) -> Result<Verified<Arc<SignedRequest>>, Rejection> {
        self.open_one(self.read_request(request)?)
    }

    /// Checks a commit certificate: a strong quorum of distinct members signed one commit.
    ///
    /// # Errors
    /// There are too few signatures, or one of them does not verify.
    pub fn open_certificate(
        &self,
        certificate: CommitCertificate,
    ) -> Result<Verified<CommitCertificate>, Rejection> {
        self.open_one(
            self.read(certificate, |reading, certificate| reading.certificate(certificate))?,
        )
    }

    /// Checks a replica's reply to a client.
    ///
    /// # Errors
    /// A bound does not hold, or the reply is not in the tree that its replica signed.
    pub fn open_reply<R: InTree>(&self, signed: Voted<R>) -> Result<Verified<Voted<R>>, Rejection> {
        let (by, digest, signature) = self.root(&signed)?;
        self.open_one(self.read(signed, |reading, _| reading.claim(by, digest, signature))?)
    }

    /// [`Membership::open_reply`] for many replies of few trees: each root is checked once.
    ///
    /// # Errors
    /// As there.
    pub fn open_reply_cached<R: InTree>(
        &self,
        signed: Voted<R>,
        roots: &mut VerifiedRoots,
    ) -> Result<Verified<Voted<R>>, Rejection> {
        let root = self.root(&signed)?;
        if roots.holds(&root) {
            return Ok(Verified(signed));
        }
        let opened = self.open_reply(signed)?;
        roots.insert(root);
        Ok(opened)
    }

    fn root<R: InTree>(&self, signed: &Voted<R>) -> Result<Root, Rejection> {
        let Voted { reply, vote: ReplyVote { by, path, signature } } = signed;
        reply.check()?;
        let root = path.root(reply.leaf())?;
        let digest = R::signing_digest(reply.shared(), path.leaves, root, self.genesis());
        Ok((*by, digest, *signature))
    }

    /// Checks a proof of misbehaviour: both signatures, and that the statements contradict each
    /// other.
    ///
    /// # Errors
    /// It proves nothing.
    pub fn open_evidence(&self, evidence: Evidence) -> Result<Verified<Evidence>, Rejection> {
        self.open_one(self.read(evidence, |reading, evidence| reading.evidence(evidence))?)
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
        self.are_good(&[Claim { key, digest, signature: hello.signature }])?;
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
        self.are_good(&[Claim { key, digest, signature: knock.signature }])?;
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
        self.open_one(self.read_message(message)?)
    }
}

/// Signs all replies that make one tree with one signature.
///
/// # Panics
/// Where there are none, or they [are not of one tree](InTree::Shared).
pub fn sign_replies<R: InTree>(
    signer: &dyn Signer,
    genesis: &Digest,
    by: ReplicaId,
    replies: Vec<R>,
) -> Vec<Voted<R>> {
    let shared = replies.first().expect("at least one reply").shared();
    assert!(replies.iter().all(|reply| reply.shared() == shared), "replies of two trees");
    let tree = Tree::new(replies.iter().map(InTree::leaf).collect());
    let leaves = tree.path(0).leaves;
    let signature = signer.sign(&R::signing_digest(shared, leaves, tree.root(), genesis));
    let voted = |(position, reply)| {
        let path = tree.path(position);
        Voted { reply, vote: ReplyVote { by, path, signature } }
    };
    replies.into_iter().enumerate().map(voted).collect()
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
