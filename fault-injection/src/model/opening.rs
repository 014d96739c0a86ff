//! How the opening of a scene is played.

use super::letter::{Letter, Step};
use super::scene::Move;
use super::situation::Situation;
use super::{Cluster, count_of};

/// The most ticks until something that is waited for.
const PATIENCE: usize = 32;

impl Cluster {
    /// Plays the opening. Answers where it ends, and every step on the way.
    pub(super) fn open(&self, opening: &[Move], mut at: Situation) -> (Situation, Vec<String>) {
        let mut told = Vec::new();
        for part in opening {
            match *part {
                Move::Hear(machines, kinds, from) => {
                    let wanted = |letter: &Letter| {
                        let sender = letter.words.from();
                        machines.contains(&letter.to.index)
                            && kinds.contains(&letter.words.kind())
                            && sender.map_or(from.is_empty(), |id| from.contains(&id.0))
                    };
                    self.hear(&mut at, &mut told, wanted);
                }
                Move::HearAll(machines, from) => {
                    let wanted = |letter: &Letter| {
                        let sender = letter.words.from();
                        machines.contains(&letter.to.index)
                            && sender.is_none_or(|id| from.contains(&id.0))
                    };
                    self.hear(&mut at, &mut told, wanted);
                }
                Move::Wait(machine, times) => {
                    for _ in 0..times {
                        let step = Step::Tick(self.cast.places[machine]);
                        self.play(&mut at, &mut told, &step);
                    }
                }
                Move::Until(machine, counter) => {
                    let step = Step::Tick(self.cast.places[machine]);
                    let count = |at: &Situation| count_of(&at.machines[machine].core, counter);
                    let before = count(&at);
                    for _ in 0..PATIENCE {
                        if count(&at) == before {
                            self.play(&mut at, &mut told, &step);
                        }
                    }
                }
                Move::Lose => {
                    told.push("what replicas said and nobody heard yet is lost".into());
                    at.flying.retain(|letter| letter.words.from().is_none());
                }
                Move::LoseTo(machines) => {
                    told.push(format!("what was said to the machines {machines:?} is lost"));
                    at.flying.retain(|letter| {
                        letter.words.from().is_none() || !machines.contains(&letter.to.index)
                    });
                }
            }
        }
        at.reset_counts();
        (at, told)
    }

    fn hear(&self, at: &mut Situation, told: &mut Vec<String>, wanted: impl Fn(&Letter) -> bool) {
        loop {
            let letters: Vec<_> =
                at.flying.iter().filter(|letter| wanted(letter)).cloned().collect();
            let heard =
                letters.into_iter().any(|letter| self.play(at, told, &Step::Deliver(letter)));
            if !heard {
                return;
            }
        }
    }

    fn play(&self, at: &mut Situation, told: &mut Vec<String>, step: &Step) -> bool {
        if at.broken.is_some() {
            return false;
        }
        let Some(next) = at.after(&self.cast, step) else { return false };
        *at = next;
        told.push(format!("{step:?}"));
        true
    }
}
