//! Session guarantees for weak reads: read your writes, and monotonic reads.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use elea_protocol::application::Command as Operation;
use elea_protocol::client::{Ask, Follow, Seen};
use elea_protocol::codec;
use elea_protocol::id::{Digest, ReplicaId, hex, unhex};
use elea_protocol::message::{Level, NoReply, Past as Names};
use elea_protocol::receipt::Receipt;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep_until};

use crate::error::{Behind, Error, PastError, ReplicaNote};
use crate::handle::{Client, Read, decode};
use crate::owner::{Given, Work};

/// What a token begins with.
const TOKEN: &str = "elea-past-1-";

/// So many bytes of a token tell that it is whole.
const CHECK: usize = 4;

/// How long is waited at first until replicas that lack something are asked again, and how long at most.
const FIRST_NAP: Duration = Duration::from_millis(10);
const LONGEST_NAP: Duration = Duration::from_millis(500);

/// What somebody has seen of a cluster, for [reads](Client::read_after) that do not fall behind it, whichever replicas answer,
/// whatever views and merges lie between. Of Terry et al. (1994) these are *read your writes* and, but for a past
/// [of writes](Past::of_writes), *monotonic reads*.
///
/// It can be handed on as text (it is `Display` and `FromStr`), to the next process or another user: who reads after it sees at least as
/// much. It has a bounded size, well below 16 KiB of text.
///
/// What a past asks for may be more than the replicas that can be reached know. Of a write they know as long as its session
/// is remembered; of what was read, as long as `f + 1` of them remember the history that it was read from: about the last
/// 65,536 slots, and as many that merges abandoned, since they last started, and only those that had it themselves. So a past
/// is for a session of work, not for the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    names: Names,
    /// The cluster's genesis digest, once something of it was seen.
    cluster: Option<Digest>,
    only_writes: bool,
}

/// What a token says.
#[derive(Serialize, Deserialize)]
struct Token {
    cluster: Option<Digest>,
    only_writes: bool,
    names: Names,
}

/// Why a text is no [`Past`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no past: it is a line that begins with `elea-past-1-`, and has to be whole")]
pub struct BadPast;

impl Past {
    /// Nothing was seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing was seen, and only what is written will count: reads see what was written before, and nothing of what other
    /// reads saw. It asks for less, so it is answered in more situations.
    #[must_use]
    pub fn of_writes() -> Self {
        Self { only_writes: true, ..Self::default() }
    }

    /// A request was answered: what is read from now on includes it.
    ///
    /// ```no_run
    /// # use elea_client::{Client, Command, Level, Past};
    /// # async fn example(client: Client, put: impl Command, get: impl Command) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut past = Past::new();
    /// past.wrote(&client.weak(put).await?.receipt)?;
    /// let read = client.read_after(&mut past, Level::Weak, get).await?; // has the put in it
    /// # drop(read);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// There is no room, or it is about another cluster. It is as it was.
    pub fn wrote(&mut self, receipt: &Receipt) -> Result<(), PastError> {
        self.is_of(&receipt.genesis)?;
        let name = receipt.reply.name;
        if !self.names.note_written(name.client, name.session, name.number) {
            return Err(PastError::Full);
        }
        self.cluster = Some(receipt.genesis);
        Ok(())
    }

    /// Whether something of the cluster with this genesis digest can be noted.
    ///
    /// # Errors
    /// It is about another one.
    pub fn is_of(&self, genesis: &Digest) -> Result<(), PastError> {
        let is_same = self.cluster.is_none_or(|cluster| cluster == *genesis);
        is_same.then_some(()).ok_or(PastError::OtherCluster)
    }

    /// What was seen in either.
    ///
    /// # Errors
    /// There is no room, or they are of different clusters. It is as it was.
    pub fn join(&mut self, other: &Self) -> Result<(), PastError> {
        other.cluster.map_or(Ok(()), |cluster| self.is_of(&cluster))?;
        let names = self.names.clone().joined(&other.names).ok_or(PastError::Full)?;
        let cluster = self.cluster.or(other.cluster);
        *self = Self { names, cluster, only_writes: self.only_writes && other.only_writes };
        Ok(())
    }
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, cluster, only_writes } = self.clone();
        let bytes =
            codec::encode(&Token { cluster, only_writes, names }).map_err(|_| fmt::Error)?;
        let check = Sha256::digest(&bytes);
        write!(f, "{TOKEN}{}{}", hex(&bytes), hex(&check[..CHECK]))
    }
}

impl FromStr for Past {
    type Err = BadPast;

    fn from_str(text: &str) -> Result<Self, BadPast> {
        let bytes = text.trim().strip_prefix(TOKEN).and_then(unhex_all).ok_or(BadPast)?;
        let at = bytes.len().checked_sub(CHECK).ok_or(BadPast)?;
        let (bytes, check) = bytes.split_at(at);
        if Sha256::digest(bytes)[..CHECK] != *check {
            return Err(BadPast);
        }
        let token: Token = codec::decode(bytes).map_err(|_| BadPast)?;
        let Token { cluster, only_writes, names } = token;
        names.check().map_err(|_| BadPast)?;
        Ok(Self { names, cluster, only_writes })
    }
}

/// The bytes of a text of any length.
fn unhex_all(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| unhex::<1>(std::str::from_utf8(pair).ok()?).map(|[byte]| byte);
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}

impl Client {
    /// Finds out what a command that [changes nothing](Operation::only_reads) comes to, in a history that includes all that was
    /// seen before, and adds what is seen now. A weak read then has the session guarantees of a [`Past`]; a strong one sees the
    /// weak writes of its past besides, which a [strong read](Client::read) may miss.
    ///
    /// It is not ordered like other operations where replicas do not agree: they are asked again until they do, or until the
    /// [timeout](crate::Options::timeout). So it waits for a merge that has to bring what was seen in another part, and for a
    /// replica that is behind.
    ///
    /// ```no_run
    /// # use elea_client::{Client, Command, Level, Past};
    /// # async fn example(client: Client, get: impl Command, handed_on: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut past: Past = handed_on.parse()?;
    /// let read = client.read_after(&mut past, Level::Weak, get).await?;
    /// println!("not older than what the other one saw: hand on {past}");
    /// # drop(read);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Behind`](Error::Behind) where too few replicas that can be reached include what was seen, or can tell;
    /// [`OutOfBounds`](Error::OutOfBounds) for a command that may change something; else as [`weak`](Client::weak) and
    /// [`strong`](Client::strong). The past is as it was.
    pub async fn read_after<C: Operation>(
        &self,
        past: &mut Past,
        level: Level,
        command: C,
    ) -> Result<Read<C>, Error> {
        let genesis = self.genesis();
        if !command.only_reads() {
            return Err(Error::OutOfBounds);
        }
        past.is_of(&genesis)?;
        let start = Instant::now();
        let deadline = start + self.timeout();
        let (mut nap, mut heard) = (FIRST_NAP, None);
        loop {
            let (operations, nonce, alone) = (vec![command.encode()], rand::random(), false);
            let names = Some(past.names.clone());
            let work =
                |ticket| Work::Ask(Ask { ticket, level, operations, past: names, nonce, alone });
            match (self.work_until(deadline, Follow::No, work).await, heard) {
                (Ok((Given::Seen(Seen { results, view, slot, at: Some(at) }), _)), _) => {
                    let result = decode(&command, &results)?;
                    past.cluster = Some(genesis);
                    if !past.only_writes {
                        past.names.note_read(at);
                    }
                    return Ok(Read { result, slot, view, ordered: None });
                }
                (Ok((Given::NotSeen(without), _)), _) => {
                    let again = Instant::now() + nap;
                    nap = (nap * 2).min(LONGEST_NAP);
                    if again >= deadline {
                        return Err(self.behind(start, &without));
                    }
                    heard = Some(without);
                    sleep_until(again).await;
                }
                // It was about to be asked once more.
                (Err(Error::NotEnoughReplicas(_)), Some(without)) => {
                    return Err(self.behind(start, &without));
                }
                (Err(error), _) => return Err(error),
                (Ok((Given::Answer(_) | Given::Seen(_), _)), _) => {
                    unreachable!("who asks with a past is answered by a history")
                }
            }
        }
    }

    fn behind(&self, start: Instant, without: &BTreeMap<ReplicaId, NoReply>) -> Error {
        let replicas = self.replicas().into_iter().map(|(id, address, note)| {
            let why = match (note, without.get(&id)) {
                (ReplicaNote::Failed(why), _) => why,
                (_, Some(why)) => why.to_string(),
                (ReplicaNote::Connecting, None) => "not connected yet".into(),
                (ReplicaNote::Connected, None) => "answered, or was not heard in time".into(),
            };
            (id, address, why)
        });
        Error::Behind(Box::new(Behind { waited: start.elapsed(), replicas: replicas.collect() }))
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::id::{ClientId, RequestNumber, SessionId, Slot};
    use elea_protocol::message::Position;

    use super::*;

    fn past() -> Past {
        let mut past = Past { cluster: Some(Digest([9; 32])), ..Past::new() };
        past.names.note_read(Position { slot: Slot(7), hash: Digest([3; 32]) });
        assert!(past.names.note_written(ClientId([1; 32]), SessionId(5), RequestNumber(2)));
        past
    }

    #[test]
    fn a_past_is_handed_on_as_text_and_only_as_a_whole() {
        let past = past();
        let text = past.to_string();
        assert_eq!(format!("{text}\n").parse(), Ok(past));
        for at in 0..text.len() {
            let mut bent = text.clone().into_bytes();
            bent[at] = if bent[at] == b'0' { b'1' } else { b'0' };
            let bent = String::from_utf8(bent).expect("it is ASCII");
            assert_eq!(bent.parse::<Past>(), Err(BadPast), "{bent}");
        }
        for length in 0..text.len() {
            assert_eq!(text[..length].parse::<Past>(), Err(BadPast));
        }
        assert_eq!("elea-past-1-ä".parse::<Past>(), Err(BadPast));
    }

    #[test]
    fn pasts_of_different_clusters_are_not_joined() {
        let mut one = past();
        let other = Past { cluster: Some(Digest([8; 32])), ..Past::new() };
        assert_eq!(one.join(&other), Err(PastError::OtherCluster));
        assert_eq!(one, past());
        assert_eq!(one.join(&Past::of_writes()), Ok(()));
        assert_eq!(one, past(), "who has read anything goes on reading after it");
    }
}
