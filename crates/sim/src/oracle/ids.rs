//! Records with message ids that anybody may send again.

use corelane_model::{PartitionId, PartitionIndex};

use super::Oracle;
use crate::RecordId;

/// Records that are kept for repetition by others.
const KEPT_MAX: usize = 400;

/// A record with an id that left once: it may stand in its partition once at most, whoever sends it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeatable {
    pub(crate) record: RecordId,
    pub(crate) topic: usize,
    pub(crate) partition: PartitionIndex,
    pub(crate) length: u64,
}

impl Oracle {
    /// A record was stored, or nobody knows whether it was.
    pub(crate) fn on_repeatable(&mut self, repeatable: Repeatable) {
        if self.repeatables.len() < KEPT_MAX {
            self.repeatables.push(repeatable);
        }
    }

    /// What others may send again.
    pub(crate) fn repeatables(&self) -> &[Repeatable] {
        &self.repeatables
    }

    /// Nobody knows whether the record is in the log, and it may come there later than what was sent behind it.
    pub(crate) fn on_repeated_late(&mut self, partition: PartitionId, record: RecordId) {
        self.ledger(partition).late.insert(record);
    }
}
