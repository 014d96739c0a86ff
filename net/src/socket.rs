//! What every connection is set up with.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A connection whose other end does not acknowledge anything for so long is dead. By itself TCP would
/// go on for a quarter of an hour, asking ever more rarely, also when the network has long been back;
/// and where nothing is sent it would never notice, and whoever is gone would keep its place.
pub const SILENCE: Duration = Duration::from_secs(10);

/// So many bytes that are not sent yet the system takes on a connection.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// Sets up a socket that was connected. A write on it may take as long as `patience`.
///
/// # Errors
/// As the system says.
pub fn prepare(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    // A vote is a small packet that somebody waits for: frames that wait for each other's
    // acknowledgements would cost 40 ms each.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(SILENCE / 2).with_interval(SILENCE / 4).with_retries(2),
    )?;
    #[cfg(target_os = "linux")]
    {
        // This counts also while the other end has no room for more.
        socket.set_tcp_user_timeout(Some(SILENCE.max(patience)))?;
        // What the system has taken nothing overtakes. What is under way is not limited by this.
        socket.set_tcp_notsent_lowat(UNSENT)?;
    }
    Ok(())
}
