//! A way between two parties that can be cut: what a demo and a test of partitions need.
//!
//! A cut closes the connections there are. New ones are still taken, and then held: whoever dials
//! hears nothing, as from the other side of a broken network. When the way is healed they go
//! through at once, so nobody has to wait for a redial.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// Connections of one way at a time. More wait in the system's queue until one of them ends.
const CONNECTIONS_MAX: usize = 64;

/// A pause after the system gave no connection, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Whether the way is open, and how often it was cut: a connection does not outlive a cut that was
/// healed before its task could look.
#[derive(Clone, Copy, Debug, Default)]
struct Switch {
    is_cut: bool,
    cuts: u64,
}

/// A listener that passes everything on to one address. Dropping it closes all of it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    switch: watch::Sender<Switch>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Opens a way to `target`, at a port of this machine that the system chooses.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn open(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (switch, state) = watch::channel(Switch::default());
        let task = tokio::spawn(serve(listener, target, state));
        Ok(Self { address, switch, task })
    }

    /// Where to dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections, and lets none through until it is healed.
    pub fn cut(&self) {
        self.switch.send_modify(|switch| *switch = Switch { is_cut: true, cuts: switch.cuts + 1 });
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        self.switch.send_modify(|switch| switch.is_cut = false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections are tasks of that task: they end with it.
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: String, state: watch::Receiver<Switch>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(carry(stream, target.clone(), state.clone()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until either end closes it or the way is cut.
async fn carry(mut near: TcpStream, target: String, mut state: watch::Receiver<Switch>) {
    let Some(cuts) = opened(&near, &mut state).await else { return };
    let through = async {
        let mut far = TcpStream::connect(target).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        // Its buffers are of fixed size: who does not read slows down who writes.
        copy_bidirectional(&mut near, &mut far).await
    };
    tokio::select! {
        biased;
        // However it ends, the end of the connection is what the parties see of it.
        _ = state.wait_for(|switch| switch.cuts != cuts) => {}
        _ = through => {}
    }
}

/// Waits until the way is open; answers with the number of cuts there were. `None` if the dialler
/// gave up meanwhile.
async fn opened(near: &TcpStream, state: &mut watch::Receiver<Switch>) -> Option<u64> {
    let gone = async {
        if let Ok(1..) = near.peek(&mut [0]).await {
            std::future::pending().await
        }
    };
    tokio::select! {
        biased;
        switch = state.wait_for(|switch| !switch.is_cut) => switch.ok().map(|switch| switch.cuts),
        () = gone => None,
    }
}
