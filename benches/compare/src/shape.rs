//! Shapes of load: how many ask, and for what.

use clap::ValueEnum;

/// A shape of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Shape {
    /// One client that waits for each answer.
    One,
    /// 64 clients, each of which waits for each answer.
    #[value(name = "clients-64")]
    Clients64,
    /// 1,000 of them.
    #[value(name = "clients-1000")]
    Clients1000,
    /// One instance of the library with 256 operations under way.
    #[value(name = "library-256")]
    Library256,
    /// 64 clients that read.
    #[value(name = "gets-64")]
    Gets64,
    /// 64 clients that write 1 KiB.
    #[value(name = "kib-1")]
    Kib1,
    /// 64 clients that write 16 KiB.
    #[value(name = "kib-16")]
    Kib16,
    /// 64 clients, from the moment on in which one member that stood still for a while goes on.
    #[value(name = "heal")]
    Heal,
}

/// Bytes of a value where nothing else is said.
const VALUE: usize = 100;

impl Shape {
    /// All of them.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Its name on the command line and in reports.
    pub fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it is, in a phrase.
    pub fn says(self) -> &'static str {
        match self {
            Self::One => "1 client, 1 outstanding",
            Self::Clients64 => "64 clients, 1 outstanding each",
            Self::Clients1000 => "1,000 clients, 1 outstanding each",
            Self::Library256 => "256 outstanding, one instance of Elea's library",
            Self::Gets64 => "64 clients that read, 1 outstanding each",
            Self::Kib1 => "64 clients, values of 1 KiB",
            Self::Kib16 => "64 clients, values of 16 KiB",
            Self::Heal => "64 clients, from when a member that stood still goes on",
        }
    }

    /// How many loops ask, each for one thing at a time.
    pub fn loops(self) -> usize {
        match self {
            Self::One => 1,
            Self::Clients1000 => 1000,
            Self::Library256 => 256,
            _ => 64,
        }
    }

    /// Bytes of each value.
    pub fn value(self) -> usize {
        match self {
            Self::Kib1 => 1 << 10,
            Self::Kib16 => 16 << 10,
            _ => VALUE,
        }
    }
}
