//! Who looks after a group or a shared queue while its members work.

use std::time::Duration;

use super::Scenario;
use crate::Random;

/// One in so many seeds with a group or a shared queue has an operator of them.
const OPERATOR_RARITY: u64 = 2;
/// Mixed into the draw: with this, seeds that were kept from before there were operators have none, and do what they did.
const SALT: u64 = 3181;

/// What an operator does to the scenario's group and shared queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorPlan {
    /// It puts dead letters back into the queue's topic.
    pub is_redriving: bool,
    /// It alters the queue's settings.
    pub is_altering: bool,
    /// It drains the group, puts its offsets somewhere else, deletes it.
    pub is_moving: bool,
    /// Jobs that it begins while faults happen.
    pub jobs: u64,
    /// Time between two steps, at most.
    pub pause: Duration,
    /// What it draws from.
    pub seed: u64,
}

impl Scenario {
    /// An operator in some of the seeds that have something to look after.
    pub(super) fn decide_operator(&mut self, random: &mut Random) {
        let mut random = Random::new(random.bits() ^ SALT);
        let (has_queue, has_group) = (self.queue.is_some(), self.group.is_some());
        if !random.is_one_in(OPERATOR_RARITY) || !(has_queue || has_group) {
            return;
        }
        let has_letters = self.queue.as_ref().is_some_and(|queue| queue.settings.dead_letter.is_some());
        let is_altering = has_queue && (!has_letters || random.is_one_in(2));
        self.operator = Some(OperatorPlan {
            is_redriving: has_letters,
            is_altering,
            is_moving: has_group,
            jobs: random.within(3..12),
            pause: Duration::from_millis(random.skewed(2..500)),
            seed: random.bits(),
        });
    }
}
