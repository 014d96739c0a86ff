//! Elea: its replicas as processes, and its client library.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use elea_client::files::{load_cluster, load_key};
use elea_client::{Cluster, Level, Options, Strong, Weak};
use elea_kv::{Get, Put};
use elea_processes::environment;
use elea_processes::folder::Folder;
use elea_processes::replica::attach;
use elea_protocol::id::ReplicaId;

use crate::Outcome;
use crate::how::How;
use crate::server::{Server, free_ports};

/// How long it may take until all replicas serve.
const START: Duration = Duration::from_secs(60);

/// How long giving a session back may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is done for an answer.
pub const DOES: &str = "N = 3f + 1 replicas that trust nobody; every request is signed by its client and checked by every replica, \
     every order, vote and answer signed; every replica executes it and has it in its log, forced to disk; strong: 2f + 1 \
     replicas have signed a certificate and as many the answer, weak: f + 1 the answer, and the client has checked all of \
     that";

/// The cluster.
pub struct Elea {
    /// Its replicas.
    pub servers: Vec<Server>,
    cluster: Cluster,
    folder: Folder,
}

impl Elea {
    /// Starts all replicas and waits until they serve.
    pub async fn start(program: &Path, dir: &Path, replicas: u8) -> Outcome<Self> {
        let mut init = tokio::process::Command::new(program);
        init.arg("init").arg(dir).args(["--replicas", &replicas.to_string()]);
        init.stdout(Stdio::null());
        if !init.status().await?.success() {
            return Err("elea init failed".into());
        }
        let folder = Folder::at(dir);
        let path = folder.cluster();
        let mut file = load_cluster(&path)?;
        let ports = free_ports(usize::from(replicas))?;
        file.addresses = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        fs::write(&path, file.to_text())?;
        let mut servers = Vec::new();
        for id in (0..replicas).map(ReplicaId) {
            let mut command = folder.place(id).command(Command::new(program));
            attach(environment::clear(&mut command));
            servers.push(Server::start(command, &folder.log(id))?);
        }
        let elea = Self { servers, cluster: (&file).into(), folder };
        let first = elea.connect(How::Strong, false).await?;
        let patient = Client { inner: first.inner.with_timeout(START), ..first };
        patient.put(String::from("ready"), Bytes::new()).await?;
        patient.close().await;
        Ok(elea)
    }

    async fn connect(&self, how: How, own_connections: bool) -> Outcome<Client> {
        let key = load_key(self.folder.client_key(0))?;
        let options = Options { own_connections, ..Options::default() };
        let inner = elea_client::Client::with_options(&self.cluster, key, options).await?;
        Ok(Client { inner, how })
    }

    /// Clients, each with sessions of its own, and with connections of its own where that is wanted.
    pub async fn clients(&self, count: usize, how: How, apart: bool) -> Outcome<Vec<Client>> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.connect(how, apart).await?);
        }
        Ok(clients)
    }

    /// One client, which all use.
    pub async fn sharing(&self, count: usize, how: How) -> Outcome<Vec<Client>> {
        Ok(vec![self.connect(how, false).await?; count])
    }

    /// A replica that is not the primary.
    pub async fn backup(&self) -> Outcome<usize> {
        let client = self.connect(How::Strong, false).await?;
        let all = client.inner.status().await;
        client.close().await;
        let view = all.iter().filter_map(|(_, status)| Some(status.as_ref().ok()?.view)).max();
        let view = view.ok_or("no replica says how it is")?;
        let primary = view.primary(self.cluster.membership.size().replicas());
        Ok((usize::from(primary.0) + 1) % self.servers.len())
    }
}

/// A client, or one that others hold as well.
#[derive(Clone, Debug)]
pub struct Client {
    inner: elea_client::Client,
    how: How,
}

impl Client {
    /// Writes.
    pub async fn put(&self, key: String, value: Bytes) -> Result<(), String> {
        let put = Put::new(key, value);
        match self.how {
            How::Strong => self.inner.strong(put).await.map(|Strong { result, .. }| result),
            How::Weak => self.inner.weak(put).await.map(|Weak { result, .. }| result),
        }
        .map_err(|error| error.to_string())?
        .map(drop)
        .map_err(|refused| format!("refused: {refused:?}"))
    }

    /// Reads.
    pub async fn get(&self, key: String) -> Result<(), String> {
        let get = Get::new(key);
        let level = match self.how {
            How::Strong => Level::Strong,
            How::Weak => Level::Weak,
        };
        let read = self.inner.read(level, get).await.map_err(|error| error.to_string())?;
        match read.result {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(String::from("no value")),
            Err(refused) => Err(format!("refused: {refused:?}")),
        }
    }

    /// Gives its session back.
    pub async fn close(self) {
        self.inner.with_timeout(FAREWELL).close().await;
    }
}
