//! Listening at an address, wherever on this machine it leads.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use tokio::net::{TcpListener, TcpStream, lookup_host};

/// Sockets that listen at every address of one name: who dials it takes whichever it reaches.
#[derive(Debug)]
pub struct Listening {
    sockets: Vec<TcpListener>,
    /// The socket whose turn it is, so that a busy one does not keep the others waiting.
    turn: AtomicUsize,
}

impl From<TcpListener> for Listening {
    fn from(socket: TcpListener) -> Self {
        Self { sockets: vec![socket], turn: AtomicUsize::new(0) }
    }
}

impl Listening {
    /// Listens at `host:port`. A name may have several addresses: those that are of this machine are
    /// listened at. With port 0 the system chooses one, the same for all.
    ///
    /// # Errors
    /// None of them is of this machine, or one is in use.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let mut sockets = Vec::new();
        let mut seen = Vec::new();
        let mut foreign = None;
        let mut chosen = None;
        for mut at in lookup_host(address).await? {
            if let (0, Some(port)) = (at.port(), chosen) {
                at.set_port(port);
            }
            if seen.contains(&at) {
                continue;
            }
            seen.push(at);
            match TcpListener::bind(at).await {
                Ok(socket) => {
                    chosen = Some(socket.local_addr()?.port());
                    sockets.push(socket);
                }
                // It must not look as if all were well where another process takes its connections.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(error) => foreign = Some(error),
            }
        }
        if sockets.is_empty() {
            return Err(foreign.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
        Ok(Self { sockets, turn: AtomicUsize::new(0) })
    }

    /// Where it listens: the first address, where there are several.
    ///
    /// # Errors
    /// As the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sockets
            .first()
            .map_or_else(|| Err(io::ErrorKind::NotConnected.into()), |socket| socket.local_addr())
    }

    /// The next connection. May be dropped and called again without losing one.
    ///
    /// # Errors
    /// As the system says.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let count = self.sockets.len();
        poll_fn(|context| {
            let first = self.turn.load(Ordering::Relaxed);
            for place in (first..first + count).map(|place| place % count) {
                if let Poll::Ready(accepted) = self.sockets[place].poll_accept(context) {
                    self.turn.store((place + 1) % count, Ordering::Relaxed);
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_of_a_name_is_listened_at_and_what_is_in_use_is_told() {
        let listening = Listening::bind("localhost:0").await.expect("a port");
        let port = listening.local_addr().expect("bound").port();
        let all: Vec<_> = lookup_host(("localhost", port)).await.expect("known").collect();
        for at in all {
            // A machine may have no IPv6, whatever its hosts file says.
            if !listening.sockets.iter().any(|socket| socket.local_addr().is_ok_and(|a| a == at)) {
                continue;
            }
            let (dialled, accepted) = tokio::join!(TcpStream::connect(at), listening.accept());
            dialled.expect("it listens there");
            accepted.expect("accepted");
        }
        let again = Listening::bind(&format!("localhost:{port}")).await;
        assert_eq!(again.map_err(|error| error.kind()).err(), Some(io::ErrorKind::AddrInUse));
        // An address for documentation, which no machine has.
        assert!(Listening::bind("192.0.2.1:0").await.is_err());
    }
}
