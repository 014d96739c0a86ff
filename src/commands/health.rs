//! `elea health`: whether one replica is well, by what its admin listener says.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::Health;
use crate::failure::{Failure, Outcome};

/// Longer than the listener itself waits for the replica.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than it ever says.
const ANSWER_MAX: u64 = 64 << 10;

/// Asks, and fails with what it hears.
pub async fn run(args: &Health) -> Outcome {
    let path = match (args.ready, args.weak) {
        (false, _) => "/livez",
        (true, false) => "/readyz",
        (true, true) => "/readyz?weak",
    };
    let address = &args.admin;
    let failed = |why: String| {
        Failure::unavailable(format!(
            "the admin listener at {address} does not answer ({why}): does a replica run with `--admin {address}`?"
        ))
    };
    let answer = timeout(PATIENCE, ask(address, path)).await;
    let answer = answer.map_err(|_| failed(format!("nothing came in {} s", PATIENCE.as_secs())))?;
    let (code, words) = answer.map_err(|error| failed(error.to_string()))?;
    match code {
        200 => Ok(()),
        503 => Err(Failure::unavailable(words)),
        code => {
            Err(failed(format!("status {code}, which no admin listener of this program gives")))
        }
    }
}

/// The status and the first line of what is answered.
async fn ask(address: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: elea\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    parse(&answer).ok_or_else(|| io::Error::other("what listens there does not speak HTTP"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((code, body.lines().next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_line_and_what_is_none_is_not_taken_for_one() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nits disk\n";
        assert_eq!(parse(answer), Some((503, "its disk".to_owned())));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n"), Some((200, String::new())));
        for none in
            ["", "SSH-2.0\r\n\r\n", "HTTP/1.1 20", "HTTP/1.1 abc d\r\n\r\n", "HTTP/1.1 200 OK\r\n"]
        {
            assert_eq!(parse(none), None, "{none:?}");
        }
    }
}
