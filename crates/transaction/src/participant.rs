//! Who takes part in a transaction.

use std::fmt;

use corelane_model::{GroupName, PartitionId};

/// Something that a transaction changes, and that has to hear what was decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Participant {
    /// A partition with batches of it.
    Partition(PartitionId),
    /// A consumer group with offsets of it.
    Group(GroupName),
}

impl fmt::Display for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(partition) => write!(f, "partition {partition}"),
            Self::Group(group) => write!(f, "group {group:?}", group = group.as_str()),
        }
    }
}
