//! What systemd is told of a service with `Type=notify`: when it serves, how it is, that it lives, and that it ends.
//!
//! The words are lines in a datagram to the socket that `NOTIFY_SOCKET` names (sd_notify(3)). Where there is none, or
//! nobody listens, nothing is said and nothing is missed.

use std::env;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use elea_protocol::message::Standing;
use elea_replica::Watcher;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::PATIENCE;

/// How often it is told how the replica is, where nobody watches more closely.
const EVERY: Duration = Duration::from_secs(10);

/// The way to systemd.
#[derive(Debug)]
pub struct Notify {
    socket: Option<UnixDatagram>,
}

impl Notify {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| connect(&name).ok());
        Self { socket }
    }

    fn say(&self, words: &str) {
        if let Some(socket) = &self.socket {
            // Whoever does not listen misses it.
            let _ = socket.send(words.as_bytes());
        }
    }

    /// It listens.
    pub fn serves(&self) {
        self.say("READY=1\nSTATUS=serves");
    }

    /// It ends.
    pub fn ends(&self) {
        self.say("STOPPING=1\nSTATUS=stops");
    }

    /// Says again and again how the replica is, and that it lives, which is what the watchdog waits for: a core that does
    /// not answer is not said to live. Ends only where there is nobody to be told.
    pub async fn keep_telling(&self, replica: watch::Receiver<Option<Watcher>>) {
        if self.socket.is_none() {
            return;
        }
        let watched = env::var("WATCHDOG_USEC").ok().and_then(|micros| micros.parse().ok());
        let half = watched.map_or(EVERY, |micros: u64| Duration::from_micros(micros / 2));
        let mut turns = interval(half.clamp(Duration::from_millis(100), EVERY));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let watcher = replica.borrow().clone();
            let Some(watcher) = watcher else {
                // It may have much to read from its disk.
                self.say("WATCHDOG=1\nSTATUS=starts");
                continue;
            };
            let Ok(Some(report)) = timeout(PATIENCE, watcher.report()).await else { continue };
            let standing = match report.status.standing {
                Standing::Voter => "votes",
                Standing::New => "waits to vote",
                Standing::Observer => "is an observer",
            };
            let doubt = if report.status.quarantined { ", in quarantine" } else { "" };
            self.say(&format!(
                "WATCHDOG=1\nSTATUS={standing}{doubt}; view {}, slot {}; in touch with {} of {} replicas",
                report.status.view.0,
                report.status.head.slot.0,
                watcher.connected(),
                watcher.size().replicas(),
            ));
        }
    }
}

fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => SocketAddr::from_abstract_name(name)?,
        #[cfg(not(target_os = "linux"))]
        Some(_) => return Err(io::ErrorKind::Unsupported.into()),
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // Nobody is to wait for whoever does not read.
    socket.set_nonblocking(true)?;
    Ok(socket)
}
