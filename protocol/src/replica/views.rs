//! Another view begins, and two histories become one.
//!
//! | file | what is in it |
//! |---|---|
//! | `entered` | the view entered, and at which slot |
//! | `view_change` | what others say of views; below it what is remembered of that, and what follows from it: causes, campaigns, patience, new views, resigning, being kept out |
//! | `view_change/tending` | where everything that waits for other histories is looked after |
//! | `path` | how far a history can be followed, and what it stands on |
//! | `branch`, `trail` | histories that are not the own one, fetched from their end downwards, and what is remembered of them |
//! | `entering` | the rule for entering a view |
//! | `divergent`, `divergence`, `proofs` | who follows another history of the same view; what the two prove; the proofs that are kept |
//! | `bygone` | positions that the own history does not hold, and since when it includes them |
//! | `adoption` | adopting another history, or executing the own one again, in turns |

mod adoption;
mod branch;
mod bygone;
mod divergence;
mod divergent;
mod entered;
mod entering;
mod path;
mod proofs;
mod trail;
mod view_change;

pub(super) use self::adoption::{Adopting, Preparation};
pub(super) use self::branch::{Branches, Credit, Side};
pub(super) use self::bygone::{Bygone, Inclusion};
pub(super) use self::divergent::Divergent;
pub(super) use self::entered::Entered;
pub(super) use self::path::{Footing, Path, Reach};
pub(super) use self::proofs::Proofs;
pub(super) use self::view_change::Changing;
