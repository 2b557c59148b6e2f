//! Records that leave the broker for a member.

use bytes::Bytes;
use corelane_model::queue::HEADER_DELIVER_AT;
use corelane_model::{MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, TopicId, WallMillis};
use corelane_record::{Record, RecordBatch, split_batch};
use corelane_wire as wire;

use super::super::{Oracle, Source, Violation};
use super::redrive::is_marked;
use super::{HANDLING, Handed, Lease, Place, QueueName, View, broken, display, singles};
use crate::oracle::groups::MemberName;
use crate::{RecordId, payload};

/// One record on its way to a member.
struct Given<'a> {
    member: MemberName,
    place: Place,
    attempt: u32,
    lease: std::time::Duration,
    /// When it was given: before it had to be read, if it had to.
    at: MonotonicNanos,
    id: RecordId,
    record: &'a Record<'a>,
}

impl Oracle {
    /// Records leave the broker for a member.
    ///
    /// # Errors
    /// Another has one of them, or it is done, or its turn has not come; or it is not the record of that place.
    pub(super) fn on_handed_out(
        &mut self,
        now: Now,
        told: &wire::QueueDeliver,
        attachment: &Bytes,
    ) -> Result<(), Violation> {
        let name = QueueName { group: told.group.clone(), topic: TopicId(told.topic) };
        let mut bytes = attachment.clone();
        let mut leases = singles(&told.leases);
        let wrong = || broken(&name, "a delivery is not what its leases say".to_owned());
        while let Some(batch) = split_batch(&mut bytes).map_err(|_| wrong())? {
            let batch = RecordBatch::parse(batch).map_err(|_| wrong())?;
            for record in batch.iter() {
                let (place, attempt) = leases.next().ok_or_else(wrong)?;
                let id = payload::identify(&record).ok_or_else(wrong)?;
                let [lease, left] = [told.lease_ms, told.left_ms].map(std::time::Duration::from_millis);
                let gone = u64::try_from(lease.saturating_sub(left).as_nanos()).expect("a lease is short");
                let at = MonotonicNanos(now.monotonic.0.saturating_sub(gone));
                let given = Given { member: told.member, place, attempt, lease, at, id, record: &record };
                self.on_given(now, &name, &given)?;
            }
        }
        if leases.next().is_some() { Err(wrong()) } else { Ok(()) }
    }

    fn on_given(&mut self, now: Now, name: &QueueName, given: &Given<'_>) -> Result<(), Violation> {
        let (partition, offset) = (PartitionIndex(given.place.0), Offset(given.place.1));
        let partition = PartitionId::new(name.topic, partition);
        self.on_found(partition, offset, given.id)?;
        self.transactions.on_shown(partition, offset, given.id)?;
        let queues = &mut self.queues;
        let broken = |what| broken(name, format!("{partition} offset {offset}: {what}"));
        if !queues.is_clock_loose
            && let Some(at) = deliver_at(given.record).filter(|at| now.wall < *at)
        {
            return Err(broken(format!("it is handed out {} ms before its time", at.millis_since(now.wall))));
        }
        let may_be_out = |member| queues.lives.get(&member).is_none_or(|life| life.may_be_out(now.monotonic));
        let is_out = |member| queues.is_deaf || may_be_out(member);
        let log_start = self.ledgers[&partition].log_start;
        let Some(view) = queues.views.get_mut(name) else { return Ok(()) };
        if !view.settings.may_lease(given.at, given.lease) {
            return Err(broken(format!("it is handed out for {:?}, which is none of the queue's times", given.lease)));
        }
        if is_marked(given.record) {
            return Err(broken("it says that it is dead".to_owned()));
        }
        if self.ledgers[&partition].copies.is_some() {
            view.redrives.on_seen(given.id, given.record).map_err(broken)?;
        }
        view.give(queues.since, now.monotonic, given, log_start, is_out).map_err(broken)
    }

    /// A record stands where something says that it does.
    pub(super) fn on_found(&mut self, partition: PartitionId, offset: Offset, id: RecordId) -> Result<(), Violation> {
        let ledger = self.ledgers.get_mut(&partition).expect("queues consume topics that exist");
        if !ledger.sent.contains(&id) {
            return Err(Violation::Foreign { partition, offset, what: "the record was never sent to this partition" });
        }
        if ledger.refused.contains(&id) {
            return Err(Violation::Revenant { partition, offset, record: id });
        }
        ledger.place(partition, offset, id, Source::Shown)
    }
}

fn deliver_at(record: &Record<'_>) -> Option<WallMillis> {
    let (_, value) = record.headers().find(|(name, _)| *name == HEADER_DELIVER_AT)?;
    std::str::from_utf8(value?).ok()?.parse().ok().map(WallMillis)
}

impl View {
    fn give(
        &mut self,
        since: MonotonicNanos,
        now: MonotonicNanos,
        given: &Given<'_>,
        log_start: Offset,
        is_out: impl Fn(MemberName) -> bool,
    ) -> Result<(), String> {
        let Given { place, attempt, member, .. } = *given;
        let key = given.record.key.filter(|_| self.settings.first().order_per_key).map(<[u8]>::to_vec);
        let record = self.records.entry(place).or_default();
        if let Some(key) = key.clone() {
            let line = self.lines.entry((place.0, key)).or_default();
            line.insert(place.1);
            // What was truncated counts as done, whoever has it.
            *line = line.split_off(&log_start.0);
        }
        let is_late = record.lease.as_ref().is_some_and(|lease| lease.is_after(now, attempt));
        // Its member had it before the broker was started anew, and said at once that it is done: that went a shorter way than
        // this frame.
        let is_overtaken = record.done.is_some_and(|(done, at)| done == attempt && now < at.after(HANDLING));
        if is_out(member) || is_late || is_overtaken {
            // Another may have had the record meanwhile, whose frame did not have to go as far.
            return Ok(());
        }
        record.may_go(now, given, &is_out)?;
        // What came back as if it had not been handed out was within the limit when it first was.
        let is_back = record.lease.as_ref().is_some_and(|lease| lease.attempt == attempt);
        let since = record.lease.as_ref().map_or(since, |lease| lease.left);
        if !is_back && !self.settings.may_deliver(since, attempt) {
            return Err(format!("it is handed out for the {attempt}th time, beyond the limit"));
        }
        if let Some(key) = key {
            self.check_turn(now, place, key, &is_out)?;
        }
        let ends = now.after(given.lease);
        let extensions = std::collections::BTreeMap::new();
        let lease = Lease { member, attempt, left: now, ends, extensions, is_given_back: false };
        self.records.get_mut(&place).expect("it is there").lease = Some(lease);
        Ok(())
    }

    /// Of its key nothing is on the way, and nothing behind it went before.
    fn check_turn(
        &self,
        now: MonotonicNanos,
        (partition, offset): Place,
        key: Vec<u8>,
        is_out: &impl Fn(MemberName) -> bool,
    ) -> Result<(), String> {
        let line = &self.lines[&(partition, key)];
        for &other in line.iter().filter(|other| **other != offset) {
            let record = &self.records[&(partition, other)];
            let lease = record.lease.as_ref();
            if offset < other && (record.is_done || lease.is_some()) {
                return Err(format!("it is handed out after offset {other} of its key"));
            }
            if record.acks == 0
                && let Some(lease) = lease.filter(|lease| lease.is_sure(now) && !is_out(lease.member))
            {
                let owner = display(lease.member);
                return Err(format!("it is handed out while {owner} has offset {other} of its key"));
            }
        }
        Ok(())
    }
}

impl Lease {
    /// Whether this is a newer delivery, whose frame has just overtaken that of an older one.
    fn is_after(&self, now: MonotonicNanos, attempt: u32) -> bool {
        attempt < self.attempt && now < self.left.after(HANDLING)
    }
}

impl Handed {
    /// Whether anything speaks against handing the record out.
    fn may_go(
        &self,
        now: MonotonicNanos,
        given: &Given<'_>,
        is_out: &impl Fn(MemberName) -> bool,
    ) -> Result<(), String> {
        let (attempt, member) = (given.attempt, display(given.member));
        let refuse = |why: &str| Err(format!("it is handed out to {member} for the {attempt}th time, {why}"));
        if self.is_done {
            return refuse("though its acknowledgement was answered");
        }
        if self.is_condemned {
            return refuse("though it was given up for good");
        }
        if !self.letters.is_empty() {
            return refuse("though it is a dead letter");
        }
        if attempt <= self.failures {
            return refuse(&format!("though {} failures were answered", self.failures));
        }
        if now < self.rests_until {
            return refuse(&format!("{:?} before its rest is over", self.rests_until.since(now)));
        }
        let Some(lease) = &self.lease else { return Ok(()) };
        if attempt < lease.attempt {
            return refuse(&format!("after the {}th", lease.attempt));
        }
        if lease.is_sure(now) && !is_out(lease.member) {
            return refuse(&format!("while {} has it", display(lease.member)));
        }
        Ok(())
    }
}
