//! What every connection is set up with.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A connection whose other end does not acknowledge anything for so long is dead. By itself TCP would
/// go on for a quarter of an hour, asking ever more rarely, also when the network has long been back;
/// and where nothing is sent it would never notice, and whoever is gone would keep its place.
pub const SILENCE: Duration = Duration::from_secs(10);

/// So many bytes at most wait in the system until the line takes them: what lies there can be neither
/// seen nor overtaken.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 << 10;

/// How long the other end of a slow line may acknowledge nothing that it was sent as a whole. TCP takes a
/// receiver that makes room for a little at a time for one that takes nothing, so this is long; whoever
/// really takes nothing is found out by the [writer](crate::Patient).
#[cfg(target_os = "linux")]
const SLOW_LINE: Duration = Duration::from_secs(120);

/// There may be a slow line between here and the other end: what moves is enough.
pub fn bear_a_slow_line(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        // Where this fails, the connection is one with less patience.
        let _ = SockRef::from(stream).set_tcp_user_timeout(Some(SLOW_LINE));
    }
}

/// Sets up a socket that was connected. On it nothing may move for `patience`.
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
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    }
    Ok(())
}
