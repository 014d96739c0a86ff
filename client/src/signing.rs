//! Requests are signed here: those of all clients that share connections, many with one signature.
//!
//! A signature costs its maker 25 µs, and each replica that checks it more. Clients that wait for answers get those of
//! one slot at one time, and ask for the next thing at one time. So what is to be signed waits until all whose turn it
//! is now have had it, and is signed [together](SignedRequest::sign_all). What is alone waits for nobody.

use std::sync::Arc;

use elea_protocol::id::Digest;
use elea_protocol::message::{Request, SIGNED_TOGETHER_MAX, SignedRequest};
use elea_protocol::signature::Signer;
use tokio::sync::mpsc;
use tokio::task::yield_now;

/// With so many bytes of operations no more is signed together: what is small is not to wait until all that is
/// large is hashed.
const BYTES_TOGETHER: usize = 256 << 10;

/// Where a client hears of its requests that are signed.
pub(crate) type SignedFor = mpsc::UnboundedSender<Arc<SignedRequest>>;

/// A request to be signed, and for whom.
#[derive(Debug)]
struct Unsigned {
    request: Request,
    to: SignedFor,
}

/// The way to the task that signs. It ends when nobody has the way any more.
#[derive(Clone, Debug)]
pub(crate) struct Signing(mpsc::UnboundedSender<Unsigned>);

impl Signing {
    /// A task that signs with this key.
    pub fn start(signer: Arc<dyn Signer>, genesis: Digest) -> Self {
        let (to, waiting) = mpsc::unbounded_channel();
        tokio::spawn(sign(signer, genesis, waiting));
        Self(to)
    }

    /// Has a request signed.
    pub fn sign(&self, request: Request, to: &SignedFor) {
        // The task ends after all who can ask it only.
        let _ = self.0.send(Unsigned { request, to: to.clone() });
    }
}

async fn sign(
    signer: Arc<dyn Signer>,
    genesis: Digest,
    mut waiting: mpsc::UnboundedReceiver<Unsigned>,
) {
    while let Some(first) = waiting.recv().await {
        yield_now().await;
        let mut bytes = first.request.operation_bytes();
        let mut all = vec![first];
        while all.len() < SIGNED_TOGETHER_MAX as usize
            && bytes < BYTES_TOGETHER
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.request.operation_bytes();
            all.push(next);
        }
        let (requests, to): (Vec<_>, Vec<_>) =
            all.into_iter().map(|one| (one.request, one.to)).unzip();
        let signed = SignedRequest::sign_all(&*signer, &genesis, requests);
        for (to, signed) in to.into_iter().zip(signed) {
            // A client that has gone needs it no more.
            let _ = to.send(signed);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use elea_protocol::id::{RequestNumber, SessionId};
    use elea_protocol::membership::Membership;
    use elea_protocol::message::Level;
    use elea_protocol::signature::{Ed25519, SecretKey};

    use super::*;

    fn request(session: u64, number: u64) -> Request {
        Request {
            client: SecretKey::from_bytes(&[9; 32]).public_key().into(),
            session: SessionId(session),
            number: RequestNumber(number),
            level: Level::Weak,
            want_final: false,
            operations: vec![Bytes::from_static(b"x")],
        }
    }

    /// On one thread it is certain what waits when the task has its turn.
    #[tokio::test]
    async fn what_waits_at_one_time_is_signed_together_and_each_gets_its_own() {
        let keys = (1..=4).map(|n| SecretKey::from_bytes(&[n; 32]).public_key()).collect();
        let cluster = Membership::new("here", 1, keys, None, Arc::new(Ed25519::default()));
        let cluster = cluster.expect("four sound keys");
        let key = Arc::new(SecretKey::from_bytes(&[9; 32]));
        let signing = Signing::start(key, *cluster.genesis());
        let (to, mut left) = mpsc::unbounded_channel();
        let (other, mut right) = mpsc::unbounded_channel();
        for number in 1..=u64::from(SIGNED_TOGETHER_MAX) {
            signing.sign(request(1, number), &to);
        }
        signing.sign(request(2, 1), &other);
        signing.sign(request(1, 1000), &to);
        for number in 1..=u64::from(SIGNED_TOGETHER_MAX) {
            let signed = left.recv().await.expect("it is signed");
            assert_eq!(signed.body(), &request(1, number));
            assert_eq!(signed.path().leaves, SIGNED_TOGETHER_MAX);
            cluster.open_request(signed).expect("a good signature");
        }
        let second = right.recv().await.expect("it is signed");
        assert_eq!((second.body(), second.path().leaves), (&request(2, 1), 2));
        cluster.open_request(second).expect("a good signature");
        signing.sign(request(2, 2), &other);
        let alone = right.recv().await.expect("it is signed");
        assert_eq!((alone.body(), alone.path().leaves), (&request(2, 2), 1));
    }
}
