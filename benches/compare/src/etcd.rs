//! etcd: its members as processes, and a client that speaks what little of its API is measured.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::Outcome;
use crate::how::How;
use crate::server::{Server, free_ports};

/// How many members: as many as survive one of them that crashes.
const MEMBERS: usize = 3;

/// How long it may take until there is a leader.
const START: Duration = Duration::from_secs(60);

/// What is done for an answer.
pub const DOES: &str = "3 members that trust each other and their clients; nothing is signed or authenticated; a put is in \
     the logs of two members, forced to disk, and is executed by the leader before the answer; one member answers";

/// The cluster.
pub struct Etcd {
    /// Its members.
    pub servers: Vec<Server>,
    endpoints: Vec<Endpoint>,
}

impl Etcd {
    /// Starts all members and waits for a leader.
    pub async fn start(program: &Path, dir: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(dir)?;
        let ports = free_ports(2 * MEMBERS)?;
        let (clients, peers) = ports.split_at(MEMBERS);
        let all: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(member, port)| format!("m{member}=http://127.0.0.1:{port}"))
            .collect();
        let mut servers = Vec::new();
        let mut endpoints = Vec::new();
        for (member, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
            let mut command = Command::new(program);
            command.args(["--name", &format!("m{member}"), "--log-level", "error"]);
            command.arg("--data-dir").arg(dir.join(format!("m{member}")));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
            command.stdin(Stdio::null());
            servers.push(Server::start(command, &dir.join(format!("m{member}.log")))?);
            endpoints.push(Endpoint::from_shared(client)?.tcp_nodelay(true));
        }
        let etcd = Self { servers, endpoints };
        let begin = Instant::now();
        loop {
            let client = Client { channel: etcd.endpoint(0)?.connect_lazy(), serializable: false };
            match client.put(String::from("ready"), Bytes::new()).await {
                Ok(()) => return Ok(etcd),
                Err(error) if begin.elapsed() > START => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn endpoint(&self, number: usize) -> Outcome<&Endpoint> {
        Ok(self.endpoints.get(number % MEMBERS).ok_or("no members")?)
    }

    /// Clients with a connection each.
    pub async fn clients(&self, count: usize, how: How) -> Outcome<Vec<Client>> {
        let mut clients = Vec::new();
        for number in 0..count {
            let channel = self.endpoint(number)?.connect().await?;
            clients.push(Client { channel, serializable: how == How::Weak });
        }
        Ok(clients)
    }

    /// Clients that share one connection to each member.
    pub async fn sharing(&self, count: usize, how: How) -> Outcome<Vec<Client>> {
        let mut channels = Vec::new();
        for endpoint in &self.endpoints {
            channels.push(endpoint.connect().await?);
        }
        let all = channels.into_iter().cycle().take(count);
        let client = |channel| Client { channel, serializable: how == How::Weak };
        Ok(all.map(client).collect())
    }

    /// A member that does not lead.
    pub async fn follower(&self) -> Outcome<usize> {
        for number in 0..MEMBERS {
            let channel = self.endpoint(number)?.connect().await?;
            let status: Status =
                call(channel, "/etcdserverpb.Maintenance/Status", Nothing {}).await?;
            let own = status.header.map_or(0, |header| header.member_id);
            if own != status.leader {
                return Ok(number);
            }
        }
        Err("every member leads".into())
    }
}

/// A client, which asks one member.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    serializable: bool,
}

impl Client {
    /// Writes.
    pub async fn put(&self, key: String, value: Bytes) -> Result<(), String> {
        let put = Put { key: key.into(), value };
        call::<_, Answer>(self.channel.clone(), "/etcdserverpb.KV/Put", put).await.map(drop)
    }

    /// Reads.
    pub async fn get(&self, key: String) -> Result<(), String> {
        let range = Range { key: key.into(), serializable: self.serializable };
        let found: Found = call(self.channel.clone(), "/etcdserverpb.KV/Range", range).await?;
        if found.values.is_empty() { Err(String::from("no value")) } else { Ok(()) }
    }
}

async fn call<Q, A>(channel: Channel, path: &'static str, question: Q) -> Result<A, String>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| error.to_string())?;
    let codec = ProstCodec::<Q, A>::default();
    let request = tonic::Request::new(question);
    let answer = grpc.unary(request, PathAndQuery::from_static(path), codec).await;
    Ok(answer.map_err(|status| status.message().to_owned())?.into_inner())
}

// What is used of etcd's messages, by the numbers of their fields (its `rpc.proto` and `kv.proto`).

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Range {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(message, repeated, tag = "2")]
    values: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}
