//! What time brings about, and what is known of the others.
//!
//! | file | what is in it |
//! |---|---|
//! | `due`, `turns` | what is done at a certain time; long work, a little at a time |
//! | `waits`, `pace` | what is measured, and the waits that follow from it; of answers to what is asked for |
//! | `clocks` | what time it is, and which clock is wrong |
//! | `stamps` | numbers on words that must not be played back |
//! | `peer` | what is known of another replica, where it stands above all |
//! | `status` | telling the others where this one stands, and sending again what may have been lost |

mod clocks;
mod due;
mod pace;
mod peer;
mod stamps;
mod status;
mod turns;
mod waits;

pub(super) use self::due::Due;
pub(super) use self::pace::{Pace, Question};
pub(super) use self::peer::Peer;
pub(super) use self::stamps::Stamps;
pub(super) use self::turns::Turn;
pub(super) use self::waits::Waits;
