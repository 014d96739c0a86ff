//! What all ways between two parties stand on: connections are taken, whatever becomes of them, and held for as
//! long as the way is not open.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// Connections of one acceptor at a time. More wait in the system's queue until one of them ends.
const CONNECTIONS_MAX: usize = 64;

/// A pause after the system gave no connection, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Takes connections at one address. Dropping it closes all of them.
#[derive(Debug)]
pub struct Acceptor {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Acceptor {
    /// Takes connections at this address, at a port that the system chooses, and has each carried in a task of
    /// its own.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn open<C, F>(at: IpAddr, carry: C) -> io::Result<Self>
    where
        C: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((at, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { address, task: tokio::spawn(serve(listener, carry)) })
    }

    /// Where to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // The connections are tasks of that task: they end with it.
        self.task.abort();
    }
}

async fn serve<C, F>(listener: TcpListener, carry: C)
where
    C: Fn(TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(carry(stream));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Holds a connection until the way's state lets it through; answers with what that says of it. `None` if the
/// dialler gave up meanwhile, or there is no way any more.
pub async fn let_through<S, T>(
    near: &TcpStream,
    state: &mut watch::Receiver<S>,
    open: impl Fn(&S) -> Option<T>,
) -> Option<T> {
    let gone = async {
        if let Ok(1..) = near.peek(&mut [0]).await {
            std::future::pending().await
        }
    };
    tokio::select! {
        biased;
        state = state.wait_for(|state| open(state).is_some()) => state.ok().and_then(|state| open(&state)),
        () = gone => None,
    }
}
