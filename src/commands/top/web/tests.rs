//! The page, to its browser and to whoever is not meant.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::http::HEAD_BYTES;

/// Machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page of no cluster.
async fn page() -> (SocketAddr, Arc<Served>) {
    let Page { listener, at, served } = Page::open("127.0.0.1:0").await.expect("a port");
    let shared = Arc::clone(&served);
    tokio::spawn(async move { accept(&listener, &shared).await });
    (at, served)
}

async fn connect(at: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.expect("it listens");
    // It may be closed before it has read all of it.
    let _ = stream.write_all(request.as_bytes()).await;
    stream
}

/// Everything that is answered.
async fn ask(at: SocketAddr, request: &str) -> String {
    let mut stream = connect(at, request).await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("it answers in time");
    String::from_utf8(answer).expect("text")
}

async fn get(at: SocketAddr, path: &str, more: &str) -> String {
    ask(at, &format!("GET {path} HTTP/1.1\r\nhost: {at}\r\n{more}\r\n")).await
}

/// Reads a stream until it has said this.
async fn says(stream: &mut TcpStream, what: &str) -> String {
    let mut said = String::new();
    while !said.contains(what) {
        let mut bytes = [0; 1024];
        let read =
            timeout(PATIENCE, stream.read(&mut bytes)).await.expect("in time").expect("it lives");
        assert!(read > 0, "it ended: {said}");
        said += &String::from_utf8_lossy(&bytes[..read]);
    }
    said
}

fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test]
async fn the_page_is_three_files_that_nothing_else_may_be_added_to() {
    let (at, _served) = page().await;
    for (path, kind, holds) in [
        ("/", "text/html", "data-histories"),
        ("/top.css", "text/css", "prefers-color-scheme"),
        ("/top.js", "text/javascript", "new EventSource"),
    ] {
        let answer = get(at, path, "").await;
        assert!(
            code(&answer) == "200" && answer.contains(kind) && answer.contains(holds),
            "{answer}"
        );
        assert!(answer.contains("content-security-policy: default-src 'self';"), "{answer}");
        assert!(!answer.to_lowercase().contains("set-cookie"), "{answer}");
    }
    for path in ["/elsewhere", "/../Cargo.toml", "/top.js/"] {
        assert_eq!(code(&get(at, path, "").await), "404", "{path}");
    }
    // What the policy forbids would not be run.
    let index = str::from_utf8(INDEX).expect("text");
    let is_inline = |part: &str| part.starts_with("style=") || part.starts_with("on");
    assert!(!index.split_whitespace().any(is_inline) && !index.contains("<style"), "{index}");
}

#[tokio::test]
async fn only_names_of_this_machine_are_answered() {
    let (at, served) = page().await;
    let with = |host: &str| format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:9999", "[::1]:7181"] {
        assert_eq!(code(&ask(at, &with(host)).await), "200", "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "192.0.2.1",
        "",
        "[",
        ":7181",
        "127.0.0.1.evil.example",
        "é",
    ] {
        assert_eq!(code(&ask(at, &with(host)).await), "421", "{host}");
    }
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        let answer = ask(at, request).await;
        assert!(["400", "421"].contains(&code(&answer)), "{request}: {answer}");
    }
    assert_eq!(served.picture.receiver_count(), 0);
}

#[tokio::test]
async fn pages_of_others_are_not_told_how_the_cluster_is() {
    let (at, served) = page().await;
    for more in [
        "origin: http://evil.example\r\n",
        "origin: null\r\n",
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-site\r\n",
    ] {
        assert_eq!(code(&get(at, "/events", more).await), "403", "{more}");
    }
    assert_eq!(served.picture.receiver_count(), 0);
    // A link to the page is no harm.
    assert_eq!(code(&get(at, "/", "sec-fetch-site: cross-site\r\n").await), "200");
}

#[tokio::test]
async fn nothing_but_reading_is_answered_and_heads_are_bounded() {
    let (at, _served) = page().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for path in ["/", "/events"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: {at}\r\ncontent-length: 0\r\n\r\n");
            assert_eq!(code(&ask(at, &request).await), "405", "{method} {path}");
        }
    }
    let long = format!("x: {}\r\n", "y".repeat(HEAD_BYTES));
    assert_eq!(code(&get(at, "/", &long).await), "431");
    let many: String = (0..1000).map(|n| format!("x{n}: y\r\n")).collect();
    assert_eq!(code(&get(at, "/", &many).await), "431");
    for nonsense in [
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "\u{0}\u{1}\u{2}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = ask(at, nonsense).await;
        assert!(answer.is_empty() || code(&answer).starts_with('4'), "{nonsense:?}: {answer}");
    }
    assert_eq!(code(&get(at, "/", "").await), "200", "it serves others all the same");
}

#[tokio::test]
async fn viewers_share_what_is_seen_and_are_bounded() {
    let (at, served) = page().await;
    let request = format!("GET /events HTTP/1.1\r\nhost: {at}\r\n\r\n");
    let mut viewers = Vec::new();
    for n in 1..=VIEWERS {
        let mut viewer = connect(at, &request).await;
        assert!(says(&mut viewer, "text/event-stream").await.contains("200 OK"));
        viewers.push(viewer);
        assert_eq!(served.picture.receiver_count(), n);
    }
    let refused = get(at, "/events", "").await;
    assert!(code(&refused) == "503" && refused.contains("16 look already"), "{refused}");
    served.picture.send_replace(Some("{\"n\":1}".into()));
    for viewer in &mut viewers {
        says(viewer, "data: {\"n\":1}\n\n").await;
    }
    // Nobody looks any more, so nobody is asked any more.
    drop(viewers);
    let gone = async {
        while served.picture.receiver_count() > 0 {
            served.picture.send_replace(Some("{}".into()));
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("it is noticed that they are gone");
    let mut viewer = connect(at, &request).await;
    says(&mut viewer, "text/event-stream").await;
}
