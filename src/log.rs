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
    /// Begins to log, as the environment says.
    ///
    /// # Errors
    /// `ELEA_LOG_FORMAT` names no format.
    pub fn start() -> Result<Self, Failure> {
        let levels =
            EnvFilter::try_from_env(environment::LOG).unwrap_or_else(|_| EnvFilter::new(LEVELS));
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
