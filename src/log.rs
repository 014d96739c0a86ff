//! What a replica logs, and how.

use std::fmt;
use std::sync::Arc;

use elea_processes::environment;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt as lines, reload};

use crate::failure::Failure;

/// What is logged where `ELEA_LOG` says nothing: of the store's own workings only what went wrong.
const LEVELS: &str = "info,fjall=warn,lsm_tree=warn,value_log=warn";

/// What is to be logged: as the environment says, which is closest to whoever starts the replica, or as its file does.
fn wanted(of_file: Option<&str>) -> String {
    let of_environment = std::env::var(environment::LOG).ok();
    let is_sound = |levels: &String| !levels.is_empty() && EnvFilter::try_new(levels).is_ok();
    of_environment.filter(is_sound).unwrap_or_else(|| of_file.unwrap_or(LEVELS).to_owned())
}

/// Sets what is logged while the replica runs.
#[derive(Clone)]
pub struct Log {
    filter: Arc<reload::Handle<EnvFilter, Registry>>,
}

/// A list of levels that is none.
#[derive(Debug, thiserror::Error)]
#[error("`{levels}` is no list of `module=level`: {why}")]
pub struct BadLevels {
    levels: String,
    why: String,
}

impl Log {
    /// Begins to log, as the environment says, or these levels where it says nothing.
    ///
    /// # Errors
    /// `ELEA_LOG_FORMAT` names no format, or the levels are none.
    pub fn start(levels: Option<&str>) -> Result<Self, Failure> {
        let levels = EnvFilter::try_new(wanted(levels));
        let levels = levels.map_err(|error| {
            Failure::usage(format!("what is to be logged is no list of `module=level`: {error}"))
        })?;
        let (filter, handle) = reload::Layer::new(levels);
        let plain = lines::layer().with_writer(std::io::stderr).with_ansi(false);
        let lines = match std::env::var(environment::LOG_FORMAT).as_deref() {
            Err(_) | Ok("" | "text") => plain.boxed(),
            Ok("json") => plain.json().flatten_event(true).boxed(),
            Ok(other) => {
                let name = environment::LOG_FORMAT;
                return Err(Failure::usage(format!(
                    "{name} is `{other}`, and there are the formats `text` and `json`"
                )));
            }
        };
        // It fails only where there is a subscriber already, and this process has one main function.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        Ok(Self { filter: Arc::new(handle) })
    }

    /// Sets what is logged as at a start with these levels.
    ///
    /// # Errors
    /// They are none.
    pub fn use_levels(&self, levels: Option<&str>) -> Result<(), BadLevels> {
        self.set_levels(&wanted(levels))
    }

    /// What is logged.
    pub fn levels(&self) -> String {
        // The subscriber lives as long as the process.
        self.filter.with_current(EnvFilter::to_string).unwrap_or_default()
    }

    /// Sets what is logged.
    ///
    /// # Errors
    /// It is no list of levels.
    pub fn set_levels(&self, levels: &str) -> Result<(), BadLevels> {
        let bad =
            |why: &dyn fmt::Display| BadLevels { levels: levels.into(), why: why.to_string() };
        if levels.is_empty() {
            return Err(bad(&"it is empty"));
        }
        let filter = EnvFilter::try_new(levels).map_err(|error| bad(&error))?;
        self.filter.reload(filter).map_err(|error| bad(&error))
    }
}
