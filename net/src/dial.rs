//! Dialling an address that may have several places behind it.
//!
//! A name may lead to addresses of which some are dead, some swallow what is sent to them, and some
//! belong to somebody else. They are tried in the manner of RFC 8305: families take turns, each attempt
//! gets a head start, and none has to fail before the next begins. What ends the race is not that a
//! connection opened, which a middlebox may do in anybody's name, but that whoever answers is the one
//! who is looked for.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

/// The head start of each attempt before the next one.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// So many addresses of one name are tried; a name service may answer with any number.
pub const ADDRESSES_MAX: usize = 16;

/// Finds the addresses of a name.
pub trait Resolve: Send + Sync {
    /// All addresses of `host:port`, the best first.
    fn resolve(&self, address: &str) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// Asks the system, as everybody does.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host(address).await?.collect())
    }
}

/// The way to one `host:port`, with what was learnt about it.
#[derive(Debug)]
pub struct Dialler<R = SystemResolver> {
    address: String,
    resolver: R,
    known: Mutex<Known>,
}

/// What earlier dials have shown.
#[derive(Debug, Default)]
struct Known {
    /// The address that worked last. It is tried first.
    worked: Option<SocketAddr>,
    /// What the name was last, for when the name service does not answer.
    addresses: Vec<SocketAddr>,
}

/// Why no address of a name could be used: one reason for each that was tried.
#[derive(Debug)]
pub struct Failed<E>(pub Vec<(Option<SocketAddr>, E)>);

impl<E: std::fmt::Display> std::fmt::Display for Failed<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reasons: Vec<_> = self.0.iter().map(|(_, why)| why.to_string()).collect();
        if let Some(first) = reasons.first()
            && reasons.iter().all(|reason| reason == first)
        {
            return f.write_str(first);
        }
        for (n, ((at, _), reason)) in self.0.iter().zip(&reasons).enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            match at {
                Some(at) => write!(f, "{comma}{at} {reason}")?,
                None => write!(f, "{comma}{reason}")?,
            }
        }
        Ok(())
    }
}

impl Dialler {
    /// The way to `host:port`.
    #[must_use]
    pub fn new(address: String) -> Self {
        Self::with(address, SystemResolver)
    }
}

impl<R: Resolve> Dialler<R> {
    /// The same with a name service of one's own.
    #[must_use]
    pub fn with(address: String, resolver: R) -> Self {
        Self { address, resolver, known: Mutex::default() }
    }

    /// The `host:port` that is dialled.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials until somebody is found who is the right one.
    ///
    /// `open` listens to a new connection until it knows whom it reached, `finish` says who dials and is
    /// let in. Several are opened side by side, but only one at a time is finished, so that whoever is
    /// dialled is not greeted twice. Each step of each attempt may take as long as `patience`; what took
    /// longer fails with [`io::ErrorKind::TimedOut`].
    ///
    /// # Errors
    /// Why not, for each address.
    pub async fn dial<O, D, E, Opening, Finishing>(
        &self,
        patience: Duration,
        open: impl Fn(TcpStream) -> Opening,
        finish: impl Fn(O) -> Finishing,
    ) -> Result<D, Failed<E>>
    where
        E: From<io::Error>,
        Opening: Future<Output = Result<O, E>>,
        Finishing: Future<Output = Result<D, E>>,
    {
        let addresses = self.addresses(patience).await;
        let addresses = addresses.map_err(|error| Failed(vec![(None, error.into())]))?;
        let attempt = async |at| {
            let opened = async { open(TcpStream::connect(at).await?).await };
            (at, in_time(patience, opened).await)
        };
        let mut waiting = addresses.into_iter();
        let mut opening = FuturesUnordered::new();
        let mut failed = Vec::new();
        loop {
            // Whoever comes next need not wait for a head start of one that has failed.
            let next = waiting.next();
            let has_more = next.is_some();
            opening.extend(next.map(&attempt));
            if opening.is_empty() {
                return Err(Failed(failed));
            }
            let opened = tokio::select! {
                biased;
                opened = opening.next() => opened,
                () = sleep(ATTEMPT_DELAY), if has_more => None,
            };
            let Some((at, opened)) = opened else { continue };
            let done = match opened {
                Ok(opened) => in_time(patience, finish(opened)).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(done) => {
                    self.known().worked = Some(at);
                    return Ok(done);
                }
                Err(error) => failed.push((Some(at), error)),
            }
        }
    }

    /// The addresses in the order in which they are tried.
    async fn addresses(&self, patience: Duration) -> io::Result<Vec<SocketAddr>> {
        let found = in_time(patience, self.resolver.resolve(&self.address)).await;
        let mut known = self.known();
        match found {
            Ok(found) => known.addresses = found,
            // Names move seldom, and name services fail.
            Err(_) if !known.addresses.is_empty() => {}
            Err(error) => return Err(error),
        }
        let order = in_order(&known.addresses, known.worked);
        match order.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(order),
        }
    }
}

async fn in_time<T, E: From<io::Error>>(
    patience: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
    timeout(patience, work).await.unwrap_or_else(late)
}

/// Families take turns, beginning with that of the first; what worked comes before all.
fn in_order(found: &[SocketAddr], worked: Option<SocketAddr>) -> Vec<SocketAddr> {
    let begins_with_6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.iter().partition(|at| at.is_ipv6() == begins_with_6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order: Vec<SocketAddr> = worked.filter(|at| found.contains(at)).into_iter().collect();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            break;
        }
        for at in pair.into_iter().flatten() {
            if !order.contains(&at) {
                order.push(at);
            }
        }
    }
    order.truncate(ADDRESSES_MAX);
    order
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Long enough that no attempt of a test may last until it is over.
    const PATIENCE: Duration = Duration::from_secs(600);

    /// A name service that answers with a list, or not at all.
    struct Book(Mutex<Option<Vec<SocketAddr>>>);

    impl Resolve for &Book {
        async fn resolve(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
            let entry = self.0.lock().expect("no panic").clone();
            entry.ok_or_else(|| io::Error::other("the name service is away"))
        }
    }

    fn book(addresses: &[SocketAddr]) -> Book {
        Book(Mutex::new(Some(addresses.to_vec())))
    }

    /// A place where connections open only for as long as it has room, which it has no more: what is
    /// sent to it is lost.
    async fn black_hole() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.3:0".parse().expect("sound")).expect("a port");
        let listener = socket.listen(1).expect("it listens");
        let at = listener.local_addr().expect("bound");
        let mut guests = Vec::new();
        while let Ok(guest) = timeout(Duration::from_millis(200), TcpStream::connect(at)).await {
            guests.push(guest.expect("it has room"));
        }
        (at, guests, listener)
    }

    /// Somebody who says `word` to whoever dials, and counts who answered it.
    async fn host(word: &'static [u8]) -> (SocketAddr, std::sync::Arc<[AtomicUsize; 2]>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("bound");
        let counts = std::sync::Arc::new([const { AtomicUsize::new(0) }; 2]);
        let counting = std::sync::Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counting[0].fetch_add(1, Ordering::SeqCst);
                let counting = std::sync::Arc::clone(&counting);
                tokio::spawn(async move {
                    let _ = stream.write_all(word).await;
                    let mut answer = [0; 2];
                    if stream.read_exact(&mut answer).await.is_ok() {
                        counting[1].fetch_add(1, Ordering::SeqCst);
                        let _ = stream.write_all(b"in").await;
                    }
                    let _ = stream.read_u8().await;
                });
            }
        });
        (at, counts)
    }

    async fn open(mut stream: TcpStream) -> io::Result<TcpStream> {
        let mut word = [0; 2];
        stream.read_exact(&mut word).await?;
        match &word {
            b"me" => Ok(stream),
            _ => Err(io::Error::other("somebody else")),
        }
    }

    async fn finish(mut stream: TcpStream) -> io::Result<SocketAddr> {
        stream.write_all(b"hi").await?;
        let mut word = [0; 2];
        stream.read_exact(&mut word).await?;
        stream.peer_addr()
    }

    #[tokio::test]
    async fn dead_deaf_silent_and_foreign_addresses_keep_nobody_from_the_right_one() {
        // Nobody listens there: the port is free again.
        let dead = TcpListener::bind("127.0.0.2:0").await.expect("a port").local_addr();
        let dead = dead.expect("bound");
        let (deaf, _guests, _listener) = black_hole().await;
        let (silent, _) = host(b"").await;
        let (foreign, _) = host(b"no").await;
        let (right, counts) = host(b"me").await;
        let book = book(&[deaf, silent, dead, foreign, right]);
        let dialler = Dialler::with(String::from("town:1"), &book);
        assert_eq!(dialler.dial(PATIENCE, open, finish).await.expect("found"), right);
        assert_eq!(counts[1].load(Ordering::SeqCst), 1, "it is greeted once");

        // It is remembered, also when the name service is away, and nobody else is asked first.
        *book.0.lock().expect("no panic") = None;
        assert_eq!(in_order(&dialler.known().addresses, Some(right))[0], right);
        assert_eq!(dialler.dial(PATIENCE, open, finish).await.expect("found"), right);
        assert_eq!(counts[0].load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn where_nobody_is_right_each_address_has_its_reason() {
        let (foreign, _) = host(b"no").await;
        let dead = TcpListener::bind("127.0.0.2:0").await.expect("a port").local_addr();
        let book = book(&[foreign, dead.expect("bound")]);
        let dialler = Dialler::with(String::from("town:1"), &book);
        let failed = dialler.dial(PATIENCE, open, finish).await.expect_err("nobody");
        let text = failed.to_string();
        assert!(text.contains(&format!("{foreign} somebody else")), "{text}");
        assert_eq!(failed.0.len(), 2, "{text}");
        *book.0.lock().expect("no panic") = Some(Vec::new());
        let failed = dialler.dial(PATIENCE, open, finish).await.expect_err("nobody");
        assert_eq!(failed.to_string(), "the name has no address");
    }

    #[tokio::test]
    async fn of_two_that_are_right_one_alone_is_greeted() {
        let (one, one_counts) = host(b"me").await;
        let (two, two_counts) = host(b"me").await;
        let book = book(&[one, two]);
        let dialler = Dialler::with(String::from("town:1"), &book);
        assert_eq!(dialler.dial(PATIENCE, open, finish).await.expect("found"), one);
        let greeted = [&one_counts, &two_counts].map(|counts| counts[1].load(Ordering::SeqCst));
        assert_eq!(greeted, [1, 0]);
    }

    #[test]
    fn families_take_turns_what_worked_is_first_and_the_number_is_bounded() {
        let at = |text: &str| -> SocketAddr { text.parse().expect("sound") };
        let (a, b) = (at("[::1]:1"), at("[::2]:1"));
        let (c, d) = (at("1.0.0.1:1"), at("1.0.0.2:1"));
        assert_eq!(in_order(&[a, b, c, d], None), [a, c, b, d]);
        assert_eq!(in_order(&[c, a, b, c], None), [c, a, b]);
        assert_eq!(in_order(&[a, b, c, d], Some(d)), [d, a, c, b]);
        assert_eq!(in_order(&[a], Some(d)), [a], "what is no longer its address is not used");
        let many: Vec<_> = (0..100).map(|n| at(&format!("1.0.0.{n}:1"))).collect();
        assert_eq!(in_order(&many, None).len(), ADDRESSES_MAX);
    }
}
