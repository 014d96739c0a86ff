//! The variables that the program `elea` looks at.

use std::process::Command;

/// The cluster file, where none is named.
pub const CLUSTER: &str = "ELEA_CLUSTER";

/// The client's key file, where none is named.
pub const KEY: &str = "ELEA_KEY";

/// The file by which commands with one key share their sessions, where none is named.
pub const SESSIONS: &str = "ELEA_SESSIONS";

/// Whether a key file may be one that a group reads.
pub const GROUP_KEY: &str = "ELEA_GROUP_KEY";

/// How connections are protected, where nothing else is said.
pub const TRANSPORT: &str = "ELEA_TRANSPORT";

/// How much a replica logs.
pub const LOG: &str = "ELEA_LOG";

/// As what: `text` or `json`.
pub const LOG_FORMAT: &str = "ELEA_LOG_FORMAT";

/// Where a replica's admin listener is, where nothing else is said.
pub const ADMIN: &str = "ELEA_ADMIN";

/// Keeps all of them from a command, so that what it does follows from its words alone.
pub fn clear(command: &mut Command) -> &mut Command {
    for name in [CLUSTER, KEY, SESSIONS, GROUP_KEY, TRANSPORT, LOG, LOG_FORMAT, ADMIN] {
        command.env_remove(name);
    }
    command
}
