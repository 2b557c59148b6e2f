//! What members say about their leases.

use std::time::Duration;

use corelane_model::limits::{
    QUEUE_DELAY_MAX, QUEUE_RANGES_MAX, QUEUE_REASON_BYTES_MAX, QUEUE_REQUEST_LEASES_MAX, QUEUE_VISIBILITY_MAX,
};
use corelane_model::{MemberId, Now};

use crate::clock::Due;
use crate::{Answer, DeadReason, LeaseRun, Queue, QueueError, RequestTicket};

/// What becomes of records that a member failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are handed out again, after this time or the queue's back-off, unless they reached the delivery limit.
    Retry(Option<Duration>),
    /// They are dead letters at once.
    Dead,
}

impl Queue {
    /// Records are done. Answered when that is durable, with those that the member did not have.
    ///
    /// # Errors
    /// There is no such member, the request is too large, or too many answers wait; nothing was taken then.
    pub fn acknowledge(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        member: MemberId,
        leases: &[LeaseRun],
        processing_micros: Option<u32>,
    ) -> Result<(), QueueError> {
        let seat = self.check_leases(now, member, leases)?;
        if let Some(micros) = processing_micros {
            self.members.at(seat).report(micros);
        }
        let mut refused = Vec::new();
        let mut taken = 0;
        for run in leases {
            taken += self.each_lease(seat, *run, &mut refused, |queue, index, offset| queue.finish(now, index, offset));
        }
        let member = self.members.at(seat);
        member.leased -= taken;
        member.acknowledged += taken;
        self.stats.acknowledged_records += taken;
        self.round.answers.push((ticket, Answer::Leases { refused }));
        Ok(())
    }

    /// Records failed. Answered when that is durable, with those that the member did not have. `reason` goes with a
    /// record that becomes a dead letter.
    ///
    /// # Errors
    /// As [`Queue::acknowledge`]; or a delay or reason is over its limit, or there is nowhere to put dead letters.
    pub fn reject(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        member: MemberId,
        leases: &[LeaseRun],
        verdict: Verdict,
        reason: &str,
    ) -> Result<(), QueueError> {
        self.check_rejection(verdict, reason)?;
        let seat = self.check_leases(now, member, leases)?;
        let mut refused = Vec::new();
        let mut taken = 0;
        for run in leases {
            taken += self.each_lease(seat, *run, &mut refused, |queue, index, offset| {
                let reason = || DeadReason::Rejected(reason.to_owned());
                match verdict {
                    Verdict::Retry(rest) => {
                        let rest = rest.unwrap_or_else(|| queue.settings.backoff.after(run.attempt));
                        queue.fail(now, index, offset, Some(rest), reason);
                    }
                    Verdict::Dead => queue.fail_for_good(now, index, offset, reason()),
                }
            });
        }
        let member = self.members.at(seat);
        member.leased -= taken;
        member.failed += taken;
        self.stats.rejected_records += taken;
        self.round.answers.push((ticket, Answer::Leases { refused }));
        Ok(())
    }

    /// The member needs longer: these leases end so long from now. Answered at once, with those that it did not have.
    ///
    /// # Errors
    /// As [`Queue::acknowledge`], or the time is over the limit.
    pub fn extend(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        member: MemberId,
        leases: &[LeaseRun],
        lease: Duration,
    ) -> Result<(), QueueError> {
        check_millis("lease in milliseconds", lease, Duration::from_millis(1), QUEUE_VISIBILITY_MAX)?;
        let seat = self.check_leases(now, member, leases)?;
        let until = now.monotonic.after(lease);
        let mut refused = Vec::new();
        for run in leases {
            let extended = self.each_lease(seat, *run, &mut refused, |queue, index, offset| {
                let slot = queue.partitions[index as usize].slot_mut(offset).expect("it is leased");
                slot.until = until;
                queue.clock.push_other(Due { at: until, partition: index, offset });
            });
            self.stats.extended_leases += extended;
        }
        self.outbox.now(crate::Effect::Answer { ticket, answer: Answer::Leases { refused } });
        Ok(())
    }

    /// Does something with each record of a run that the member has, in this delivery; the others are refused. How many
    /// it has.
    fn each_lease(
        &mut self,
        seat: u16,
        run: LeaseRun,
        refused: &mut Vec<LeaseRun>,
        mut act: impl FnMut(&mut Self, u32, u64),
    ) -> u64 {
        let Some(partition) = self.partitions.get(run.partition.0 as usize) else {
            refused.push(run);
            return 0;
        };
        let (first, end) = (run.first.0, run.first.0.saturating_add(run.count.into()));
        // What lies outside the window is nobody's; it may be long, so it is refused without being looked at.
        let (inner, outer) = (first.max(partition.done_end).min(end), end.min(partition.read_end()).max(first));
        let outer = outer.max(inner);
        refuse(refused, run, first, inner);
        let mut taken = 0;
        for offset in inner..outer {
            let slot = self.partitions[run.partition.0 as usize].slot(offset);
            let is_its = slot.is_some_and(|slot| slot.is_leased(seat, run.attempt));
            if is_its {
                act(self, run.partition.0, offset);
                taken += 1;
            } else {
                refuse(refused, run, offset, offset + 1);
            }
        }
        refuse(refused, run, outer, end);
        self.stats.refused_leases += u64::from(run.count) - taken;
        taken
    }

    fn check_leases(&mut self, now: Now, member: MemberId, leases: &[LeaseRun]) -> Result<u16, QueueError> {
        let seat = self.hear(now, member)?;
        let records = leases.iter().map(|run| u64::from(run.count)).sum();
        for (what, would, limit) in [
            ("ranges of leases in one request", leases.len() as u64, QUEUE_RANGES_MAX as u64),
            ("leases in one request", records, QUEUE_REQUEST_LEASES_MAX),
        ] {
            if limit < would {
                return Err(QueueError::Limit { what, would, limit });
            }
        }
        self.check_room()?;
        Ok(seat)
    }

    fn check_rejection(&self, verdict: Verdict, reason: &str) -> Result<(), QueueError> {
        if QUEUE_REASON_BYTES_MAX < reason.len() {
            let (would, limit) = (reason.len() as u64, QUEUE_REASON_BYTES_MAX as u64);
            return Err(QueueError::Limit { what: "bytes in a reason", would, limit });
        }
        match verdict {
            Verdict::Retry(Some(rest)) => check_millis("delay in milliseconds", rest, Duration::ZERO, QUEUE_DELAY_MAX),
            Verdict::Dead if self.settings.dead_letter.is_none() => Err(QueueError::NoDeadLetterTopic),
            Verdict::Retry(None) | Verdict::Dead => Ok(()),
        }
    }
}

/// Adds records of a run to what is refused, as few runs as can be.
fn refuse(refused: &mut Vec<LeaseRun>, run: LeaseRun, first: u64, end: u64) {
    let Ok(count) = u32::try_from(end.saturating_sub(first)) else { return };
    if count == 0 {
        return;
    }
    match refused.last_mut() {
        Some(last)
            if last.partition == run.partition
                && last.attempt == run.attempt
                && last.first.0.checked_add(last.count.into()) == Some(first)
                && last.count.checked_add(count).is_some() =>
        {
            last.count += count;
        }
        _ => refused.push(LeaseRun { first: corelane_model::Offset(first), count, ..run }),
    }
}

fn check_millis(setting: &'static str, value: Duration, min: Duration, max: Duration) -> Result<(), QueueError> {
    if min <= value && value <= max {
        return Ok(());
    }
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Err(QueueError::OutOfBounds { setting, value: millis(value), min: millis(min), max: millis(max) })
}
