//! The wall clocks of replicas, which can be set while these run.
//!
//! The machine has one wall clock, and it is not for a test to set. libfaketime stands between a
//! process and its clock instead: it reads from a file, again and again, how far the clock is off and how
//! fast it runs. The monotonic clock is left alone.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use elea_fault_injection::rng::Rng;
use elea_protocol::id::ReplicaId;

/// Where it is looked for: as Debian, Fedora and Arch have it.
const PLACES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// Why clocks are left alone where it is not there.
pub const MISSING: &str =
    "libfaketime is not installed (Debian: apt-get install faketime), so no clock can be set";

/// So long after a file is written every process that reads it goes by it: libfaketime reads it once a
/// second.
pub const READ_WITHIN: Duration = Duration::from_secs(2);

/// Clocks that differ by less than this agree, in seconds: half of `max_clock_drift_ms` as it is by
/// default.
const AGREE_WITHIN: u64 = 5;

/// Where libfaketime is, to be loaded by processes; `None` where it is not installed.
#[must_use]
pub fn library() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|place| place.exists())
}

/// The clocks of all replicas of a cluster.
#[derive(Clone, Debug)]
pub struct Clocks {
    library: PathBuf,
    folder: PathBuf,
}

impl Clocks {
    /// Clocks that are right, of so many replicas, kept in this folder, which is made. `None` where there
    /// is no libfaketime.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(folder: &Path, replicas: u8) -> io::Result<Option<Self>> {
        let Some(clocks) = Self::kept_in(folder) else { return Ok(None) };
        fs::create_dir_all(folder)?;
        (0..replicas).try_for_each(|id| clocks.set(ReplicaId(id), &Setting::RIGHT))?;
        Ok(Some(clocks))
    }

    /// Those that are kept in this folder already.
    #[must_use]
    pub fn kept_in(folder: &Path) -> Option<Self> {
        Some(Self { library: library()?, folder: folder.to_owned() })
    }

    /// Where a replica's clock is kept.
    #[must_use]
    pub fn file(&self, id: ReplicaId) -> PathBuf {
        self.folder.join(format!("clock-of-{}", id.0))
    }

    /// Sets a clock, whether its replica runs or not.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, id: ReplicaId, setting: &Setting) -> io::Result<()> {
        // A reader must not find half of it.
        let next = self.folder.join(format!("clock-of-{}.next", id.0));
        fs::write(&next, setting.to_text())?;
        fs::rename(next, self.file(id))
    }

    /// To be loaded by processes.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.library.clone()
    }

    /// What a replica's process must find in its environment, with [`Self::library`] loaded.
    #[must_use]
    pub fn variables(&self, id: ReplicaId) -> Vec<(&'static str, OsString)> {
        vec![
            ("FAKETIME_TIMESTAMP_FILE", self.file(id).into()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// The same with the library.
    #[must_use]
    pub fn environment(&self, id: ReplicaId) -> Vec<(&'static str, OsString)> {
        let mut all = self.variables(id);
        all.push(("LD_PRELOAD", self.library.clone().into()));
        all
    }
}

/// How a clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// How far it is off, in seconds.
    seconds: i64,
    /// How fast it runs from the start of its process on, in thousandths.
    rate: u32,
}

impl Setting {
    /// One that is right.
    pub const RIGHT: Self = Self { seconds: 0, rate: 1000 };

    /// One that is off by so many seconds.
    #[must_use]
    pub fn off_by(seconds: i64) -> Self {
        Self { seconds, rate: 1000 }
    }

    /// One that is wrong: by some seconds, by days, or at another speed.
    pub fn wrong(rng: &mut Rng) -> Self {
        let most = *rng.pick(&[20, 3600, 30 * 86_400]);
        let far = i64::try_from(rng.between(6, most)).expect("a month");
        let seconds = if rng.between(0, 1) == 0 { far } else { -far };
        match rng.between(0, 3) {
            0 => Self { seconds: 0, rate: *rng.pick(&[500, 2000]) },
            _ => Self { seconds, rate: 1000 },
        }
    }

    /// One for many at once: a few minutes off, so that the next time can be further ahead than time
    /// was ever pushed.
    pub fn wrong_for_many(rng: &mut Rng) -> Self {
        let far = i64::try_from(rng.between(20, 600)).expect("minutes");
        // Ahead is what leaves traces when it is set right.
        Self::off_by(if rng.one_in(4) { -far } else { far })
    }

    /// Whether two replicas with clocks that are set so go by the same time, and go on doing so.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let is_steady = self.rate == 1000 && other.rate == 1000;
        is_steady && self.seconds.abs_diff(other.seconds) < AGREE_WITHIN
    }

    /// In words, for the report.
    #[must_use]
    pub fn words(&self) -> String {
        match self.rate {
            1000 => format!("{:+} s", self.seconds),
            rate => format!("{:.1} times as fast", f64::from(rate) / 1000.0),
        }
    }

    fn to_text(self) -> String {
        match self.rate {
            1000 => format!("{:+}\n", self.seconds),
            rate => format!("{:+} x{:.3}\n", self.seconds, f64::from(rate) / 1000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use elea_protocol::tuning::Tuning;

    use super::*;

    #[test]
    fn clocks_are_set_in_the_words_of_libfaketime() {
        assert_eq!(Setting::RIGHT.to_text(), "+0\n");
        assert_eq!(Setting { seconds: -3600, rate: 1000 }.to_text(), "-3600\n");
        assert_eq!(Setting { seconds: 0, rate: 500 }.to_text(), "+0 x0.500\n");
        let mut rng = Rng::new(1);
        let wrong: Vec<Setting> = (0..64).map(|_| Setting::wrong(&mut rng)).collect();
        assert!(wrong.iter().all(|setting| *setting != Setting::RIGHT));
        assert!(wrong.iter().any(|setting| setting.rate != 1000));
        assert!(wrong.iter().any(|setting| setting.seconds < 0));
    }

    #[test]
    fn clocks_agree_that_are_off_by_about_the_same_and_keep_their_speed() {
        let off = Setting::off_by;
        assert!(off(60).agrees_with(&off(60)) && off(-2).agrees_with(&off(2)));
        assert!(!off(5).agrees_with(&Setting::RIGHT) && !off(i64::MIN).agrees_with(&off(i64::MAX)));
        let fast = Setting { seconds: 0, rate: 2000 };
        assert!(!fast.agrees_with(&fast) && !Setting::RIGHT.agrees_with(&fast));
        assert_eq!(AGREE_WITHIN * 2000, Tuning::default().max_clock_drift_ms);
        let mut rng = Rng::new(2);
        let mut many = (0..64).map(|_| Setting::wrong_for_many(&mut rng));
        assert!(many.all(|setting| !setting.agrees_with(&Setting::RIGHT)));
    }
}
