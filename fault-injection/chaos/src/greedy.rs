//! Clients with a key that want more than their share, and what a quiet client beside them feels.
//!
//! They do nothing that a client may not do, only without end. None of them may cost another client its
//! service, or the primary its office.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use elea_client::{Client, Cluster, Command as _, Options};
use elea_fault_injection::violation::Violation;
use elea_kv::{Get, Put};
use elea_net::Connection;
use elea_processes::caller::call;
use elea_protocol::cluster_file::ClusterFile;
use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::id::{ClientId, ReplicaId, RequestNumber, SessionId};
use elea_protocol::message::{
    Level, Origin, Request, SignedRequest, ToClient, ToReplica, Transport,
};
use elea_protocol::signature::{SecretKey, Signer as _};
use futures::stream::SplitSink;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// What such a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Greed {
    /// Has 128 requests of 1.9 MiB open, and sends them to everybody again and again.
    Hog,
    /// Reads large values, and never what it is answered.
    Deaf,
    /// Asks how the replicas are as fast as it can.
    Asker,
}

impl Greed {
    /// As it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hog => "hog",
            Self::Deaf => "deaf",
            Self::Asker => "asker",
        }
    }
}

/// Requests open at a time: the window of a session.
const OPEN: u64 = 128;

/// Two values of this size in a request make 1.9 MiB.
const VALUE_BYTES: usize = 990_000;

/// A greedy client is at work until this is dropped.
pub struct Greedy {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    greed: Greed,
    file: ClusterFile,
    key: SecretKey,
    session: SessionId,
    /// Requests that nobody has answered, as frames.
    open: Mutex<BTreeMap<u64, Bytes>>,
    busy: AtomicU64,
    answered: AtomicU64,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Bytes>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> ClientId {
        self.key.public_key().into()
    }

    fn request(&self, number: u64) -> Bytes {
        let value = vec![b'v'; VALUE_BYTES];
        let operations = match self.greed {
            Greed::Hog => {
                vec![Put::new("hog", value.clone()).encode(), Put::new("hog", value).encode()]
            }
            Greed::Deaf | Greed::Asker => vec![Get::new("large").encode()],
        };
        let body = Request {
            client: self.client(),
            session: self.session,
            number: RequestNumber(number),
            level: Level::Weak,
            want_final: false,
            operations,
        };
        let request = SignedRequest::sign(&self.key, self.file.membership.genesis(), body);
        codec::encode(&ToReplica::Request(request)).expect("it fits a frame")
    }

    /// One is answered, and the next one is opened for it.
    fn answered(&self, number: u64) {
        if self.open().remove(&number).is_some() {
            let next = number + OPEN;
            let frame = self.request(next);
            self.open().insert(next, frame);
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

type Wire = Framed<Connection, LengthDelimitedCodec>;

impl Greedy {
    /// Starts one, with a connection to every replica.
    #[must_use]
    pub fn start(greed: Greed, file: &ClusterFile, key: SecretKey) -> Self {
        let shared = Arc::new(Shared {
            greed,
            file: file.clone(),
            key,
            // Of the first generation, which lasts as long as a measurement.
            session: SessionId(rand::random::<u32>().into()),
            open: Mutex::default(),
            busy: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        });
        if greed != Greed::Asker {
            let open = (1..=OPEN).map(|number| (number, shared.request(number))).collect();
            *shared.open() = open;
        }
        let mut tasks = JoinSet::new();
        for replica in 0..file.addresses.len() {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                loop {
                    // It is thrown out now and then, and comes back.
                    let _ = shared.plague(replica).await;
                    sleep(Duration::from_millis(50)).await;
                }
            });
        }
        Self { shared, tasks }
    }

    /// How often it was told that there is no room.
    #[must_use]
    pub fn busy(&self) -> u64 {
        self.shared.busy.load(Ordering::Relaxed)
    }

    /// How many of its requests were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends it, and waits until it is gone.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Shared {
    async fn plague(&self, replica: usize) -> Option<()> {
        let wire = self.connect(replica).await?;
        let (sink, mut stream) = wire.split();
        if self.greed == Greed::Deaf {
            return self.send(sink).await;
        }
        let read = async {
            while let Some(Ok(frame)) = stream.next().await {
                match codec::decode(&frame).ok()? {
                    ToClient::Busy(_) => {
                        self.busy.fetch_add(1, Ordering::Relaxed);
                    }
                    ToClient::Replies(replies) => {
                        replies.iter().for_each(|signed| self.answered(signed.reply.name.number.0));
                    }
                    _ => {}
                }
            }
            Some(())
        };
        tokio::select! {
            ended = read => ended,
            ended = self.send(sink) => ended,
        }
    }

    async fn connect(&self, replica: usize) -> Option<Wire> {
        let at =
            (ReplicaId(u8::try_from(replica).ok()?), self.file.addresses.get(replica)?.as_str());
        let origin = Origin::Client(self.client());
        let (membership, transport) = (&self.file.membership, Transport::Encrypted);
        let connection = call(membership, at, origin, &self.key, transport).await.ok()?;
        let frames = LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec();
        Some(Framed::new(connection, frames))
    }

    async fn send(&self, mut sink: SplitSink<Wire, Bytes>) -> Option<()> {
        let question = codec::encode(&ToReplica::AskStatus(1)).ok()?;
        loop {
            if self.greed == Greed::Asker {
                for _ in 0..100 {
                    sink.feed(question.clone()).await.ok()?;
                }
                sink.flush().await.ok()?;
                // Ten thousand a second.
                sleep(Duration::from_millis(10)).await;
                continue;
            }
            let open: Vec<Bytes> = self.open().values().cloned().collect();
            for frame in open {
                sink.send(frame).await.ok()?;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// How often, and how long, the quiet client is watched at least, alone and beside each of the others.
const WATCHED: usize = 200;
const WATCHED_FOR: Duration = Duration::from_secs(10);

/// Measures the strong puts of a quiet client on a running cluster: alone, then beside each greedy one,
/// then alone again.
///
/// # Errors
/// The quiet client is not served.
pub async fn measure(
    file: &ClusterFile,
    quiet: SecretKey,
    greedy: &SecretKey,
    beside: &[Greed],
) -> Result<Json, Violation> {
    let options = Options { timeout: Duration::from_secs(60), ..Options::default() };
    let client = Client::with_options(&Cluster::from(file), quiet, options).await;
    let client = client.map_err(|error| Violation::new("service", error.to_string()))?;
    let large = Put::new("large", vec![b'v'; VALUE_BYTES]);
    client.strong(large).await.map_err(|error| Violation::new("service", error.to_string()))?;
    watch(&client).await?;
    let alone = watch(&client).await?;
    let row = |beside: &str, took: &Took| {
        json!({
            "beside": beside,
            "median_ms": took.median,
            "p90_ms": took.p90,
            "p99_ms": took.p99,
            "ratio": took.median / alone.median,
        })
    };
    let mut found = vec![row("nobody", &alone)];
    for greed in beside.iter().copied() {
        let at_work = Greedy::start(greed, file, SecretKey::from_bytes(&greedy.to_bytes()));
        sleep(Duration::from_secs(2)).await;
        let mut row = row(greed.name(), &watch(&client).await?);
        row["busy"] = at_work.busy().into();
        row["answered"] = at_work.answered().into();
        found.push(row);
        at_work.stop().await;
        sleep(Duration::from_secs(2)).await;
    }
    found.push(row("nobody, again", &watch(&client).await?));
    Ok(json!(found))
}

/// How long strong puts took, in ms.
struct Took {
    median: f64,
    p90: f64,
    p99: f64,
}

async fn watch(client: &Client) -> Result<Took, Violation> {
    let mut took = Vec::new();
    let begun = Instant::now();
    while took.len() < WATCHED || begun.elapsed() < WATCHED_FOR {
        let start = Instant::now();
        let put = client.strong(Put::new("quiet", took.len().to_string())).await;
        put.map_err(|error| Violation::new("service", error.to_string()))?;
        took.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    let of = |percent: usize| took[took.len() * percent / 100];
    Ok(Took { median: of(50), p90: of(90), p99: of(99) })
}
