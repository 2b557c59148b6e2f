//! Each topic in contiguous runs.

use crate::{Assignor, Problem};

/// Each topic's partitions in contiguous runs, the first members one longer where it does not come out even.
#[derive(Clone, Copy, Debug)]
pub struct Range;

impl Assignor for Range {
    fn assign(&self, problem: &Problem<'_>) -> Vec<Option<usize>> {
        let mut assigned = vec![None; problem.partitions.len()];
        for (topic, range) in problem.topics() {
            let members = problem.subscribers(topic);
            if members.is_empty() {
                continue;
            }
            let (each, longer) = (range.len() / members.len(), range.len() % members.len());
            let mut at = range.start;
            for (place, &member) in members.iter().enumerate() {
                let run = each + usize::from(place < longer);
                assigned[at..at + run].fill(Some(member));
                at += run;
            }
        }
        assigned
    }
}
