//! What a command ends with when it does not succeed: one sentence, a kind, and an exit code.

use std::fmt;

/// Why a command did not succeed. The exit codes are a contract: scripts branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The operation was executed and said no: the key is absent, the comparison failed.
    Refused,
    /// The command line, a file, or the machine: nothing was asked of the cluster, or the cluster
    /// will never take what was asked.
    Usage,
    /// Not enough replicas answered in time.
    Unavailable,
    /// Somebody was caught, or a receipt or a backup does not verify.
    Misbehaviour,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
            Self::Misbehaviour => 4,
        }
    }

    /// The word in `{"error":{"kind":…}}`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Usage => "usage",
            Self::Unavailable => "unavailable",
            Self::Misbehaviour => "misbehaviour",
        }
    }
}

/// A failure to tell the user about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which exit code.
    pub kind: Kind,
    /// One sentence: what happened and what to do.
    pub message: String,
    /// Whether what was printed already says so in JSON.
    told: bool,
}

impl Failure {
    /// Something the user has to put right.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Too few replicas.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// A proof, or the lack of one.
    pub fn misbehaviour(message: impl Into<String>) -> Self {
        Self::new(Kind::Misbehaviour, message)
    }

    /// The operation's own no.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), told: false }
    }

    /// The same with one more thing to know.
    #[must_use]
    pub fn with(self, more: &str) -> Self {
        Self { message: format!("{}; {more}", self.message), ..self }
    }

    /// The same, where the object on stdout shows it: there is one object for one command.
    #[must_use]
    pub fn told(self) -> Self {
        Self { told: true, ..self }
    }

    /// The value of `error` in JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "kind": self.kind.word(), "message": self.line() })
    }

    /// Whatever made the message, it stays one line: that is what scripts and logs count on.
    fn line(&self) -> String {
        self.message.lines().collect::<Vec<_>>().join("; ")
    }

    /// Writes the sentence to stderr and, with `--json`, the object to stdout.
    pub fn report(&self, json: bool) {
        eprintln!("elea: {}", self.line());
        if json && !self.told {
            crate::output::line(&serde_json::json!({ "error": self.to_json() }).to_string());
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What every command returns.
pub type Outcome = Result<(), Failure>;
