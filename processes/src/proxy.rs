//! A way between two parties that can be cut: what a demo and a test of partitions need.
//!
//! A cut closes the connections there are. New ones are still taken, and then held: whoever dials
//! hears nothing, as from the other side of a broken network. When the way is healed they go
//! through at once, so nobody has to wait for a redial.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::acceptor::{Acceptor, let_through};

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
    acceptor: Acceptor,
    switch: watch::Sender<Switch>,
}

impl Proxy {
    /// Opens a way to `target`, at a port of this machine that the system chooses.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn open(target: String) -> io::Result<Self> {
        let (switch, state) = watch::channel(Switch::default());
        let carry = move |near| carry(near, target.clone(), state.clone());
        let acceptor = Acceptor::open(Ipv4Addr::LOCALHOST.into(), carry).await?;
        Ok(Self { acceptor, switch })
    }

    /// Where to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
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

/// Carries one connection until either end closes it or the way is cut.
async fn carry(mut near: TcpStream, target: String, mut state: watch::Receiver<Switch>) {
    let open = |switch: &Switch| (!switch.is_cut).then_some(switch.cuts);
    let Some(cuts) = let_through(&near, &mut state, open).await else { return };
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
