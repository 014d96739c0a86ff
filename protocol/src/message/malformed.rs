//! What is wrong with a message that is refused.

/// A part of a message that breaks a bound or contradicts another part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl Malformed {
    /// `Ok` where the bound holds.
    pub(crate) fn unless(holds: bool, otherwise: &'static str) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self(otherwise)) }
    }
}
