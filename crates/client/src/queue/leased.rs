//! Records that a member has for a while.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corelane_client_core::DeliveryKey;
use corelane_model::{Offset, PartitionIndex};
use corelane_record::{RecordBatch, Records};
use corelane_wire::LeaseRange;

use crate::RecordView;

/// One record's lease: this member has it, for a while. Hand it to [`crate::QueueConsumer::ack`] and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    delivery: DeliveryKey,
    /// The record's partition.
    pub partition: PartitionIndex,
    /// Its offset.
    pub offset: Offset,
    /// Which delivery of it this is, from 1.
    pub attempt: u32,
}

impl Lease {
    const fn range(self) -> LeaseRange {
        LeaseRange { partition: self.partition.0, first: self.offset.0, count: 1, attempt: self.attempt }
    }
}

/// One lease, or all of what came together: what [`crate::QueueConsumer::ack`] and the like take.
#[derive(Clone, Debug)]
pub struct Leases {
    pub(super) delivery: DeliveryKey,
    ranges: Ranges,
}

#[derive(Clone, Debug)]
enum Ranges {
    One([LeaseRange; 1]),
    Many(Arc<[LeaseRange]>),
}

impl Leases {
    pub(super) fn ranges(&self) -> &[LeaseRange] {
        match &self.ranges {
            Ranges::One(one) => one,
            Ranges::Many(many) => many,
        }
    }
}

impl From<Lease> for Leases {
    fn from(lease: Lease) -> Self {
        Self { delivery: lease.delivery, ranges: Ranges::One([lease.range()]) }
    }
}

impl From<&Leased> for Leases {
    fn from(leased: &Leased) -> Self {
        Self { delivery: leased.delivery, ranges: Ranges::Many(Arc::clone(&leased.ranges)) }
    }
}

/// Records that came together, each leased to this member until [`Self::expires`]. Lends its records in place.
#[derive(Clone, Debug)]
pub struct Leased {
    delivery: DeliveryKey,
    ranges: Arc<[LeaseRange]>,
    records: RecordBatch,
    expires: Instant,
    lease: Duration,
}

impl Leased {
    pub(super) const fn new(
        delivery: DeliveryKey,
        ranges: Arc<[LeaseRange]>,
        records: RecordBatch,
        (expires, lease): (Instant, Duration),
    ) -> Self {
        Self { delivery, ranges, records, expires, lease }
    }

    /// The records, each with its lease.
    #[must_use]
    pub fn iter(&self) -> LeasedRecords<'_> {
        LeasedRecords { delivery: self.delivery, ranges: &self.ranges, at: 0, records: self.records.iter() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().len()
    }

    /// Whether there are none, which does not happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Until when this member has them, unless it says that it needs longer. The broker's clock decides; this one began
    /// to run a little later.
    #[must_use]
    pub const fn expires(&self) -> Instant {
        self.expires
    }

    /// For how long this member has them: the queue's visibility time-out when they were handed out. Who works on them for
    /// longer says so with [`crate::QueueConsumer::extend`], well before: at each third of it, say.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.lease
    }
}

impl<'a> IntoIterator for &'a Leased {
    type Item = LeasedRecord<'a>;
    type IntoIter = LeasedRecords<'a>;

    fn into_iter(self) -> LeasedRecords<'a> {
        self.iter()
    }
}

/// A record with its lease.
#[derive(Clone, Debug)]
pub struct LeasedRecord<'a> {
    /// The lease.
    pub lease: Lease,
    record: RecordView<'a>,
}

impl<'a> Deref for LeasedRecord<'a> {
    type Target = RecordView<'a>;

    fn deref(&self) -> &RecordView<'a> {
        &self.record
    }
}

/// Iterates over a [`Leased`].
#[derive(Clone, Debug)]
pub struct LeasedRecords<'a> {
    delivery: DeliveryKey,
    ranges: &'a [LeaseRange],
    /// How many of the first range were given.
    at: u32,
    records: Records<'a>,
}

impl<'a> Iterator for LeasedRecords<'a> {
    type Item = LeasedRecord<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = self.records.next()?;
        let (range, rest) = self.ranges.split_first()?;
        let offset = Offset(range.first + u64::from(self.at));
        let partition = PartitionIndex(range.partition);
        let lease = Lease { delivery: self.delivery, partition, offset, attempt: range.attempt };
        self.at += 1;
        if self.at == range.count {
            (self.ranges, self.at) = (rest, 0);
        }
        record.offset = offset;
        Some(LeasedRecord { lease, record })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.records.size_hint()
    }
}

impl ExactSizeIterator for LeasedRecords<'_> {}

/// The leases of the next `count` records; `None` when there are not so many.
pub(super) fn take_ranges(
    leases: &mut std::collections::VecDeque<LeaseRange>,
    count: u32,
) -> Option<Arc<[LeaseRange]>> {
    let mut taken = Vec::new();
    let mut left = count;
    while 0 < left {
        let range = leases.front_mut()?;
        let part = range.count.min(left);
        taken.push(LeaseRange { count: part, ..*range });
        left -= part;
        range.count -= part;
        range.first += u64::from(part);
        if range.count == 0 {
            leases.pop_front();
        }
    }
    Some(taken.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_cut_where_batches_end() {
        let range = |first, count| LeaseRange { partition: 0, first, count, attempt: 2 };
        let mut leases = [range(5, 3), range(10, 4)].into();
        assert_eq!(*take_ranges(&mut leases, 2).unwrap(), [range(5, 2)]);
        assert_eq!(*take_ranges(&mut leases, 3).unwrap(), [range(7, 1), range(10, 2)]);
        assert!(take_ranges(&mut leases, 3).is_none());
    }
}
