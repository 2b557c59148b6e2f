//! Segments that compaction wrote anew: what was kept of those before is forgotten, and missing offsets are no damage.

use corelane_model::{Offset, PartitionId};

use super::{Goal, ReadKey, Reads, Reply};
use crate::ReadError;

impl Goal {
    /// The reply, with a loss that begins behind a hole counted from where the reader is: it has seen everything before.
    pub(super) fn with_hole(self, reply: Reply) -> Reply {
        match (self, reply) {
            (Self::Records { asked, .. }, Reply::Corrupt { first, end }) => {
                Reply::Corrupt { first: first.min(asked), end }
            }
            (_, reply) => reply,
        }
    }
}

impl Reads {
    /// Other segments stand in the place of those from `first` to `end`: nothing of these is kept, and who waits for them
    /// looks again. Reads that are on their way come back to nobody.
    pub(crate) fn forget_range(&mut self, partition: PartitionId, first: Offset, end: Offset) {
        self.cache.forget_range(partition, first, end);
        self.indexes.forget_range(partition, first, end);
        let range = (partition, first)..(partition, end);
        let mut waiters = Vec::new();
        let runs: Vec<_> = self.runs.range(range.clone()).map(|(&key, _)| key).collect();
        for key in runs {
            waiters.extend(self.runs.remove(&key).expect("it was just seen").waiters);
            self.forget_key(ReadKey::Run(key.0, key.1));
        }
        let scans: Vec<_> = self.scans.range(range).map(|(&key, _)| key).collect();
        for key in scans {
            waiters.extend(self.scans.remove(&key).expect("it was just seen").waiters);
            self.forget_key(ReadKey::Scan(key.0, key.1));
        }
        for waiter in waiters {
            self.answer(partition, &waiter, Err(ReadError::Gone));
        }
    }

    fn forget_key(&mut self, forgotten: ReadKey) {
        self.wanted.retain(|&key| key != forgotten);
        self.ahead.retain(|&key| key != forgotten);
    }
}
