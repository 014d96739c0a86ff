//! What a checker found.

use std::fmt;

/// A broken promise. It ends the run.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Which rule: `I1` to `I10` of the specification, or one of the harness' own, see
    /// [`crate::check`].
    pub rule: String,
    /// Who and what, in a sentence.
    pub what: String,
}

impl Violation {
    /// A violation of `rule`.
    pub fn new(rule: &str, what: impl Into<String>) -> Self {
        Self { rule: rule.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// `Ok` where the rule holds.
pub fn demand(
    holds: bool,
    rule: &str,
    otherwise: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::new(rule, otherwise())) }
}
