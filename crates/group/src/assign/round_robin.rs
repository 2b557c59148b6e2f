//! All partitions in turn.

use crate::{Assignor, Problem};

/// All partitions of all topics dealt out in turn; a member that does not subscribe to a topic is passed over, and the
/// turn goes on behind who was given the last one.
#[derive(Clone, Copy, Debug)]
pub struct RoundRobin;

impl Assignor for RoundRobin {
    fn assign(&self, problem: &Problem<'_>) -> Vec<Option<usize>> {
        let mut assigned = vec![None; problem.partitions.len()];
        let mut turn = 0;
        for (topic, range) in problem.topics() {
            let members = problem.subscribers(topic);
            if members.is_empty() {
                continue;
            }
            for owner in &mut assigned[range] {
                let place = members.partition_point(|&member| member < turn) % members.len();
                *owner = Some(members[place]);
                turn = members[place] + 1;
            }
        }
        assigned
    }
}
