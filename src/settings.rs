//! What a replica is run with: what the command line and the environment say, then what a file of its own says, then what
//! is usual.
//!
//! The file is local: no other replica has to have the same, and nobody else reads it. What all have to agree on is in the
//! cluster file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use elea_protocol::message::Transport;
use elea_replica::Limits;
use serde::Deserialize;

use crate::cli::Replica;
use crate::failure::Failure;

/// No such file is longer.
const BYTES_MAX: u64 = 1 << 20;

/// What may stand in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Local {
    cluster: Option<PathBuf>,
    key: Option<PathBuf>,
    group_key: bool,
    data: Option<PathBuf>,
    mark: Option<PathBuf>,
    listen: Option<String>,
    admin: Option<String>,
    transport: Option<Transport>,
    log: Option<String>,
    limits: Limits,
}

impl Local {
    /// Reads a file. Paths in it begin at its own folder.
    ///
    /// # Errors
    /// It cannot be read, or says something else than it may; the sentence names the line.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let unreadable = |why: &dyn std::fmt::Display| {
            Failure::usage(format!("the replica's own file {shown} cannot be read ({why})"))
        };
        let length = fs::metadata(path).map_err(|error| unreadable(&error))?.len();
        if length > BYTES_MAX {
            return Err(unreadable(&"it is longer than any such file"));
        }
        let text = fs::read_to_string(path).map_err(|error| unreadable(&error))?;
        let mut local = toml::from_str::<Self>(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text[..start].matches('\n').count() + 1;
            Failure::usage(format!("{shown}, line {line}: {}", error.message()))
        })?;
        local
            .limits
            .check()
            .map_err(|bad| Failure::usage(format!("{shown}, table [limits]: {bad}")))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for place in [&mut local.cluster, &mut local.key, &mut local.data, &mut local.mark] {
            // A path that is absolute stays what it is.
            *place = place.take().map(|place| folder.join(place));
        }
        Ok(local)
    }

    /// Whether a text is meant as such a file, and not as a cluster file, which has none of these words at its top.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        let table = text.parse::<toml::Table>().unwrap_or_default();
        let words =
            ["key", "group_key", "data", "mark", "listen", "admin", "transport", "log", "limits"];
        table.get("cluster").is_some_and(toml::Value::is_str)
            || words.iter().any(|word| table.contains_key(*word))
    }

    /// The cluster file and the key that it names; of the key also whether its group may read it.
    #[must_use]
    pub fn files(&self) -> (Option<&Path>, Option<(&Path, bool)>) {
        (self.cluster.as_deref(), self.key.as_deref().map(|key| (key, self.group_key)))
    }

    /// What is logged, where the environment says nothing.
    #[must_use]
    pub fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }

    /// What it says otherwise than another one and cannot be changed while a replica runs.
    #[must_use]
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let pairs = [
            ("cluster", self.cluster == other.cluster),
            ("key", self.key == other.key),
            ("group_key", self.group_key == other.group_key),
            ("data", self.data == other.data),
            ("mark", self.mark == other.mark),
            ("listen", self.listen == other.listen),
            ("admin", self.admin == other.admin),
            ("transport", self.transport == other.transport),
            ("limits", self.limits == other.limits),
        ];
        pairs.into_iter().filter(|(_, is_equal)| !is_equal).map(|(name, _)| name).collect()
    }
}

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster file.
    pub cluster: PathBuf,
    /// The replica's key.
    pub key: PathBuf,
    /// Whether the key's group may read it.
    pub group_key: bool,
    /// Where it keeps its data.
    pub data: PathBuf,
    /// Where it notes that the key was used; beside the key, where nothing is said.
    pub mark: Option<PathBuf>,
    /// Where it listens, if not at its address in the cluster file.
    pub listen: Option<String>,
    /// Where its operator finds it.
    pub admin: Option<String>,
    /// How connections are protected.
    pub transport: Transport,
    /// How much it takes.
    pub limits: Limits,
}

impl Settings {
    /// What the command line says, and behind it a file.
    ///
    /// # Errors
    /// Neither says what has to be known.
    pub fn of(args: &Replica, local: Local) -> Result<Self, Failure> {
        let needed = |what: Option<PathBuf>, word: &str| {
            what.ok_or_else(|| {
                Failure::usage(format!(
                    "a replica needs its {word}: name it with --{word}, or as `{word}` in a file that --config names"
                ))
            })
        };
        Ok(Self {
            cluster: needed(args.cluster.clone().or(local.cluster), "cluster")?,
            key: needed(args.key.clone().or(local.key), "key")?,
            group_key: args.group_key || local.group_key,
            data: needed(args.data.clone().or(local.data), "data")?,
            mark: args.mark.clone().or(local.mark),
            listen: args.listen.clone().or(local.listen),
            admin: args.admin.clone().or(local.admin),
            transport: args.transport.or(local.transport).unwrap_or_default(),
            limits: limits(args, local.limits),
        })
    }
}

fn limits(args: &Replica, mut limits: Limits) -> Limits {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if let Some(pause) = args.scrub_pause {
        limits.scrub_pause_ms = millis(pause);
    }
    if let Some(mebibytes) = args.scrub_rate {
        limits.scrub_bytes_per_second = mebibytes << 20;
    }
    if let Some(mebibytes) = args.disk_reserve {
        limits.disk_reserve_bytes = mebibytes << 20;
    }
    limits
}
