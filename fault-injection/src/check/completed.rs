//! I2: what is complete is in every later certified history, and in every stable one.
//!
//! A prefix is *complete* in a view if a strong quorum held certificates of that view that cover
//! it while the view was the one they had entered. At least `Q - f` of those are correct, and that
//! is all that the argument rests on; so as soon as so many correct replicas hold one, durably or
//! having said so, the rule is demanded. A stable checkpoint shows the same.

use std::collections::BTreeMap;

use elea_protocol::id::{Digest, ReplicaId, Slot, View};
use elea_protocol::message::Position;

use super::Ancestry;
use crate::violation::{Violation, demand};

/// See the module.
#[derive(Clone)]
pub struct Completed {
    /// `Q - f`, stated a second time.
    needed: usize,
    /// The highest position that each correct replica held covered, by view.
    held: BTreeMap<View, BTreeMap<ReplicaId, Position>>,
    /// The highest position that is complete, by view.
    complete: BTreeMap<View, Position>,
    /// The lowest position certified, by view. The others of the view lie above it on one history.
    lowest: BTreeMap<View, Position>,
    stable: BTreeMap<Slot, Digest>,
}

impl Completed {
    /// Nothing is complete.
    #[must_use]
    pub fn new(replicas: usize, faulty: usize) -> Self {
        let strong = (replicas + faulty) / 2 + 1;
        Self {
            needed: strong - faulty,
            held: BTreeMap::new(),
            complete: BTreeMap::new(),
            lowest: BTreeMap::new(),
            stable: BTreeMap::new(),
        }
    }

    /// How many views have something that is complete in them.
    #[must_use]
    pub fn views(&self) -> usize {
        self.complete.len()
    }

    /// A correct replica that has entered `view` holds a certificate of it that covers `at`: it is
    /// on its disk, or it has said so.
    ///
    /// # Errors
    /// I2: with that it is complete, and something contradicts it.
    pub fn holds(
        &mut self,
        who: ReplicaId,
        view: View,
        at: Position,
        histories: &impl Ancestry,
    ) -> Result<(), Violation> {
        let holders = self.held.entry(view).or_default();
        if holders.get(&who).is_some_and(|known| known.slot >= at.slot) {
            return Ok(());
        }
        holders.insert(who, at);
        let mut positions: Vec<Position> = holders.values().copied().collect();
        positions.sort_unstable_by_key(|at| std::cmp::Reverse(at.slot));
        match positions.get(self.needed - 1) {
            Some(complete) => self.complete(view, *complete, histories),
            None => Ok(()),
        }
    }

    fn complete(
        &mut self,
        view: View,
        at: Position,
        histories: &impl Ancestry,
    ) -> Result<(), Violation> {
        if self.complete.get(&view).is_some_and(|known| known.slot >= at.slot) {
            return Ok(());
        }
        self.complete.insert(view, at);
        for (later, certified) in self.lowest.range(View(view.0 + 1)..) {
            covered(histories, (view, at), (*later, *certified))?;
        }
        let stable = self.stable.iter().map(|(slot, hash)| Position { slot: *slot, hash: *hash });
        stable.into_iter().try_for_each(|stable| agree(histories, (view, at), stable))
    }

    /// A certificate is formed.
    ///
    /// # Errors
    /// I2: it leaves out what was complete in an earlier view.
    pub fn certified(
        &mut self,
        view: View,
        at: Position,
        histories: &impl Ancestry,
    ) -> Result<(), Violation> {
        if self.lowest.get(&view).is_some_and(|known| known.slot <= at.slot) {
            return Ok(());
        }
        self.lowest.insert(view, at);
        self.complete.range(..view).try_for_each(|(earlier, complete)| {
            covered(histories, (*earlier, *complete), (view, at))
        })
    }

    /// A checkpoint is stable.
    ///
    /// # Errors
    /// I2: it lies on another history than what is complete.
    pub fn stable(
        &mut self,
        view: View,
        at: Position,
        histories: &impl Ancestry,
    ) -> Result<(), Violation> {
        self.stable.insert(at.slot, at.hash);
        self.complete(view, at, histories)?;
        self.complete
            .iter()
            .try_for_each(|(view, complete)| agree(histories, (*view, *complete), at))
    }
}

fn covered(
    histories: &impl Ancestry,
    (view, complete): (View, Position),
    (later, certified): (View, Position),
) -> Result<(), Violation> {
    demand(histories.extends(certified, complete), "I2", || {
        format!(
            "slot {} {:?} is complete in {view}, and the certificate of {later} for slot {} {:?} \
             does not cover it",
            complete.slot, complete.hash, certified.slot, certified.hash
        )
    })
}

fn agree(
    histories: &impl Ancestry,
    (view, complete): (View, Position),
    stable: Position,
) -> Result<(), Violation> {
    let (low, high) =
        if stable.slot <= complete.slot { (stable, complete) } else { (complete, stable) };
    demand(histories.extends(high, low), "I2", || {
        format!(
            "slot {} {:?} is complete in {view}, and the history that is stable at {} {:?} is \
             another",
            complete.slot, complete.hash, stable.slot, stable.hash
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::Histories;
    use super::super::histories::tests::{Fake, Stage};
    use super::*;

    fn at(fake: &Fake, slot: u64) -> Position {
        let index = usize::try_from(slot).expect("small") - 1;
        Position { slot: Slot(slot), hash: fake.slots[index].hash }
    }

    /// Two histories that part after slot 1.
    fn fork() -> (Histories, Fake, Fake) {
        let stage = Stage::new();
        let mut histories = stage.histories();
        let left = stage.chain(&[&[1], &[2], &[3]], 0);
        let right = stage.chain(&[&[1], &[3], &[2]], 0);
        for (who, fake) in [(ReplicaId(1), &left), (ReplicaId(2), &right)] {
            histories.follow(who, fake, &stage.membership).expect("sound");
        }
        (histories, left, right)
    }

    fn rule(found: Result<(), Violation>) -> String {
        found.expect_err("a violation").rule
    }

    #[test]
    fn a_later_certificate_that_leaves_out_what_is_complete_breaks_i2() {
        let (histories, left, right) = fork();
        let held = |completed: &mut Completed| {
            completed.holds(ReplicaId(0), View(0), at(&left, 3), &histories).expect("one of two");
            completed.holds(ReplicaId(1), View(0), at(&left, 2), &histories)
        };
        let mut completed = Completed::new(4, 1);
        held(&mut completed).expect("nothing contradicts it");
        // Slot 3 is not complete: slot 2 is enough to be covered, and below it is not.
        assert_eq!(completed.certified(View(1), at(&left, 2), &histories), Ok(()));
        assert_eq!(rule(completed.certified(View(2), at(&left, 1), &histories)), "I2");
        assert_eq!(rule(completed.certified(View(3), at(&right, 3), &histories)), "I2");
        // The other way round: the certificate is there first.
        let mut completed = Completed::new(4, 1);
        completed.certified(View(1), at(&right, 2), &histories).expect("nothing is complete");
        assert_eq!(rule(held(&mut completed)), "I2");
        // And what one replica alone holds may be left out.
        let mut completed = Completed::new(4, 1);
        completed.holds(ReplicaId(0), View(0), at(&left, 3), &histories).expect("one of two");
        assert_eq!(completed.certified(View(1), at(&right, 3), &histories), Ok(()));
    }

    #[test]
    fn a_stable_history_without_what_is_complete_breaks_i2() {
        let (histories, left, right) = fork();
        let mut completed = Completed::new(4, 1);
        completed.stable(View(0), at(&left, 2), &histories).expect("the first");
        assert_eq!(completed.stable(View(1), at(&left, 3), &histories), Ok(()));
        assert_eq!(rule(completed.stable(View(1), at(&right, 3), &histories)), "I2");
        assert_eq!(rule(completed.certified(View(2), at(&left, 2), &histories)), "I2");
    }
}
