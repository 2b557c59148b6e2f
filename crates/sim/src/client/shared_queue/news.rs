//! What members are told.

use bytes::Bytes;
use corelane_client_core::{QueueMemberKey, QueueNews, VerdictKey};
use corelane_record::{RecordBatch, split_batch};
use corelane_wire::LeaseRange;

use super::{Client, Open, QueueTodo, QueueWorker, Wish};
use crate::oracle::queues::broken;
use crate::{Oracle, RecordId, Violation, payload};

impl Client {
    /// News of a membership.
    ///
    /// # Errors
    /// It breaks a promise of shared queues.
    pub(crate) fn on_queue_news(
        &mut self,
        oracle: &Oracle,
        key: QueueMemberKey,
        news: QueueNews,
    ) -> Result<Vec<Wish>, Violation> {
        let worker = self.shared_queue.as_mut().expect("only members hear of queues");
        if worker.is_retired || !worker.members.contains_key(&key) {
            return Ok(Vec::new());
        }
        match news {
            QueueNews::Delivered { delivery, leases, bytes, .. } => match records_of(&leases, bytes) {
                Some(records) => Ok(worker.plan_work(key, delivery, &records)),
                None => Err(worker.broken("what a member is sent is not what its leases say".to_owned())),
            },
            QueueNews::Settled { below } => worker.on_settled(oracle, key, below).map(|()| Vec::new()),
            QueueNews::Refused { verdicts, leases, .. } => {
                let open = &mut worker.members.get_mut(&key).expect("just looked at").open;
                open.range_mut(verdicts).for_each(|(_, open)| open.refuse(&leases));
                Ok(Vec::new())
            }
            QueueNews::Ended { .. } => worker.on_ended(key),
            QueueNews::Joined { .. } | QueueNews::Lost { .. } => Ok(Vec::new()),
        }
    }
}

impl Open {
    /// These leases are refused, or all if none is named.
    fn refuse(&mut self, leases: &[LeaseRange]) {
        let LeaseRange { partition, first, count, attempt } = self.lease;
        let is_meant = |offset: u64, range: &LeaseRange| {
            let is_inside = range.first <= offset && offset < range.first + u64::from(range.count);
            is_inside && (range.partition, range.attempt) == (partition, attempt)
        };
        let offsets = first..first + u64::from(count);
        let meant = offsets.filter(|&offset| leases.is_empty() || leases.iter().any(|range| is_meant(offset, range)));
        self.refused.extend(meant);
    }
}

impl QueueWorker {
    fn broken(&self, what: String) -> Violation {
        broken(self.name.as_ref().expect("it has begun"), what)
    }

    /// What was acknowledged and not refused is done.
    fn on_settled(&mut self, oracle: &Oracle, key: QueueMemberKey, below: VerdictKey) -> Result<(), Violation> {
        let name = self.name.as_ref().expect("it has begun");
        let open = &mut self.members.get_mut(&key).expect("just looked at").open;
        let left = open.split_off(&below);
        let settled = std::mem::replace(open, left);
        for Open { lease, refused, .. } in settled.into_values().filter(|open| open.is_ack) {
            let offsets = lease.first..lease.first + u64::from(lease.count);
            for offset in offsets.filter(|offset| !refused.contains(offset)) {
                oracle.queues.on_told_done(name, (lease.partition, offset))?;
            }
        }
        Ok(())
    }

    /// A membership is over: somebody else takes the seat.
    fn on_ended(&mut self, key: QueueMemberKey) -> Result<Vec<Wish>, Violation> {
        let member = self.members.remove(&key).expect("just looked at");
        if let Some((verdict, _)) = member.open.first_key_value() {
            return Err(self.broken(format!("a membership ends without a word of verdict {}", verdict.0)));
        }
        if self.seats[member.seat] != Some(key) {
            return Ok(Vec::new());
        }
        self.seats[member.seat] = None;
        Ok(vec![self.soon(300, QueueTodo::Join { seat: member.seat })])
    }
}

/// Each lease with its record; `None` if they do not belong together.
fn records_of(leases: &[LeaseRange], mut bytes: Bytes) -> Option<Vec<(LeaseRange, RecordId)>> {
    let mut singles = leases.iter().flat_map(|range| {
        (range.first..range.first + u64::from(range.count)).map(|first| LeaseRange { first, count: 1, ..*range })
    });
    let mut records = Vec::new();
    while let Some(batch) = split_batch(&mut bytes).ok()? {
        for record in RecordBatch::parse(batch).ok()?.iter() {
            records.push((singles.next()?, payload::identify(&record)?));
        }
    }
    singles.next().is_none().then_some(records)
}
