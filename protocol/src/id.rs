//! Identifiers: small types that cannot be mixed up.
//!
//! None of them converts silently from an integer: where a number becomes a slot or a view, the
//! code says so.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A member of the cluster: its index in the cluster file, below `N`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u8);

/// The period in which one replica is primary. Views only grow.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct View(pub u64);

impl View {
    /// The view every cluster starts in.
    pub const ZERO: Self = Self(0);

    /// The replica that orders requests in this view, of a cluster of `n` replicas (`n > 0`).
    #[must_use]
    pub fn primary(self, n: u8) -> ReplicaId {
        let index = self.0 % u64::from(n);
        ReplicaId(u8::try_from(index).expect("a remainder of a u8 fits a u8"))
    }

    /// The view after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A position in the history. Slot 0 is the genesis and holds no batch.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u64);

impl Slot {
    /// The slot before the first batch.
    pub const GENESIS: Self = Self(0);

    /// The slot after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// This slot moved `by` slots towards the future.
    #[must_use]
    pub fn plus(self, by: u64) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// How many slots lie between `earlier` and this one; 0 where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A client: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub [u8; 32]);

/// One run of a client, or of one of its processes: a generation, which the cluster gives out, and
/// 32 random bits, which tell apart what is opened at one time. Later sessions of a client have
/// no lower generations.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The last generation.
    pub const GENERATION_MAX: u64 = u32::MAX as u64;

    /// The lowest session of a generation, which is at most [`SessionId::GENERATION_MAX`].
    #[must_use]
    pub fn first_of(generation: u64) -> Self {
        Self(generation << 32)
    }

    /// A session of the same generation.
    #[must_use]
    pub fn told_apart_by(self, random: u32) -> Self {
        Self(Self::first_of(self.generation()).0 | u64::from(random))
    }

    /// Its generation.
    #[must_use]
    pub fn generation(self) -> u64 {
        self.0 >> 32
    }

    /// The session after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The `t` of a request: counts up from 1 within its session.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestNumber(pub u64);

impl RequestNumber {
    /// The first number of every session.
    pub const FIRST: Self = Self(1);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What makes a request once-only: a name is executed at most once in any history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestName {
    /// Who asked.
    pub client: ClientId,
    /// In which of its sessions.
    pub session: SessionId,
    /// The request's number in the session.
    pub number: RequestNumber,
}

/// One life of a replica: drawn at random when its data folder is made, and kept in there. A
/// replica that lost its folder comes back with another one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life(pub [u8; 16]);

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A SHA-256 value.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

/// A point on the driver's monotonic clock, in microseconds since a start of its choice.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// This point `millis` milliseconds later.
    #[must_use]
    pub fn after_ms(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1000)))
    }

    /// Microseconds since `earlier`; 0 where `earlier` is later.
    #[must_use]
    pub fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall-clock time in milliseconds since 1970. Clocks of replicas differ; safety never rests on it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WallTime(pub u64);

/// Both clocks, read once an event by the driver and handed to the core.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Now {
    /// For time-outs.
    pub instant: Instant,
    /// For the time that goes into history.
    pub wall: WallTime,
}

/// Lower-case hex, for logs and JSON.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// Reads what [`hex`] writes. `None` where it is not hex of exactly `N` bytes.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|pair| {
            let pair = str::from_utf8(pair).ok()?;
            pair.bytes()
                .all(|b| b.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(pair, 16).ok())?
        })
        .collect();
    bytes?.try_into().ok()
}

macro_rules! display {
    ($($type:ty, $prefix:literal;)*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
display! {
    ReplicaId, "r";
    View, "v";
    Slot, "";
    SessionId, "s";
    RequestNumber, "t";
    Instant, "";
    WallTime, "";
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..4]))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c:{}", hex(&self.0[..4]))
    }
}

impl fmt::Debug for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}/{}", self.client, self.session, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_back_and_refuses_everything_else() {
        assert_eq!(unhex::<3>(&hex(&[0, 171, 255])), Some([0, 171, 255]));
        for bad in ["", "0", "00ab", "00abffff", "00abfg", "+0abff", "00é f"] {
            assert_eq!(unhex::<3>(bad), None, "{bad}");
        }
    }

    #[test]
    fn views_take_turns() {
        assert_eq!(View(0).primary(4), ReplicaId(0));
        assert_eq!(View(7).primary(4), ReplicaId(3));
        assert_eq!(View(u64::MAX).primary(7), ReplicaId(1));
    }
}
