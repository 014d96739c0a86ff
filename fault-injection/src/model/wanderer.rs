//! Which of the possible steps a random path takes.
//!
//! Where every step is as likely as every other one, all paths look alike: many letters, few
//! deadlines, nobody ever alone. So each path has a temper of its own: how often time passes, and
//! who hears whom for a while.

use stateright::Chooser;

use super::Cluster;
use super::letter::Step;
use super::situation::Situation;
use crate::rng::Rng;

/// See the [module](self).
#[derive(Clone)]
pub struct Wanderer;

/// One path's temper.
pub struct Temper {
    rng: Rng,
    /// Of a thousand steps, how many are ticks.
    ticks: u32,
    /// A bit for each replica: those with equal bits hear each other.
    parts: u64,
    /// For so many steps the parts are apart.
    apart: u64,
}

impl Temper {
    fn likes(&mut self, step: &Step, ticks: bool) -> bool {
        match step {
            Step::Deliver(letter) => {
                let side = |id: u8| self.parts >> id & 1;
                let from = letter.words.from();
                let heard = from.is_none_or(|from| side(from.0) == side(letter.to.id.0));
                !ticks && (heard || self.apart == 0)
            }
            Step::Tick(_) => ticks,
            Step::Leave(_) | Step::Restart(_) | Step::Fall(_) => self.rng.one_in(16),
        }
    }
}

impl Chooser<Cluster> for Wanderer {
    type State = Temper;

    fn new_state(&self, seed: u64) -> Temper {
        let mut rng = Rng::new(seed);
        let ticks = *rng.pick(&[20, 60, 200]);
        let parts = rng.next_u64();
        let apart = *rng.pick(&[0, 20, 60]);
        Temper { rng, ticks, parts, apart }
    }

    fn choose_initial_state(&self, _temper: &mut Temper, _initial: &[Situation]) -> usize {
        0
    }

    fn choose_action(&self, temper: &mut Temper, _at: &Situation, steps: &[Step]) -> usize {
        let ticks = temper.rng.per_mille(temper.ticks);
        temper.apart = temper.apart.saturating_sub(1);
        let mut order: Vec<usize> = (0..steps.len()).collect();
        temper.rng.shuffle(&mut order);
        let liked = order.iter().find(|index| temper.likes(&steps[**index], ticks));
        *liked.unwrap_or(&order[0])
    }
}
