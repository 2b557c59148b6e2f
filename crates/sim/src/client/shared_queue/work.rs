//! What members do with records.

use std::collections::BTreeSet;
use std::time::Duration;

use corelane_client_core::{ClientCore, DeliveryKey, QueueMemberKey, Verdict};
use corelane_model::Now;
use corelane_wire::LeaseRange;

use super::{Open, QueueTodo, QueueWorker, Wish};
use crate::RecordId;

/// The longest time that work takes, in milliseconds, mostly.
const WORK_MS: u64 = 60;
/// The same when faults are over: a member that has room for one record at a time has thousands of them before it, and what
/// is bad in between, and has to come to their end.
const CALM_WORK_MS: u64 = 10;

/// What a member says of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// They are done.
    Ack,
    /// They failed, and rest for this time or as long as the queue says.
    Nack { delay_ms: Option<u64> },
    /// They failed for good.
    Dead,
    /// They take so many milliseconds longer.
    Extend { lease_ms: u64 },
    /// Nothing: their time runs out.
    Nothing,
}

impl QueueWorker {
    /// What becomes of records that came, some of them together, and when.
    pub(super) fn plan_work(
        &mut self,
        member: QueueMemberKey,
        delivery: DeliveryKey,
        records: &[(LeaseRange, RecordId)],
    ) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut rest = records;
        while let Some(((lease, record), after)) = rest.split_first() {
            let is_bad = self.plan.is_bad(*record);
            let together = if is_bad { 0 } else { self.random.skewed(0..12) };
            let follows = |(at, (other, id)): (u64, &(LeaseRange, RecordId))| {
                let is_next = other.partition == lease.partition && other.first == lease.first + at;
                is_next && other.attempt == lease.attempt && !self.plan.is_bad(*id)
            };
            let more = (1..=together).zip(after).take_while(|&next| follows(next)).count();
            let count = u32::try_from(more + 1).expect("few");
            let lease = LeaseRange { count, ..*lease };
            let (word, most_ms) = if is_bad { self.word_of_bad() } else { self.word() };
            let (delay, todo) = self.soon(most_ms, QueueTodo::Say { member, delivery, lease, word });
            wishes.push((delay, todo));
            rest = &after[more..];
        }
        wishes
    }

    /// What a member says of good records, and how long it takes at most, in milliseconds.
    fn word(&mut self) -> (Word, u64) {
        let visibility = u64::try_from(self.plan.settings.visibility.as_millis()).expect("seconds");
        if self.is_calm {
            return (Word::Ack, CALM_WORK_MS);
        }
        match self.random.within(0..32) {
            0 => (Word::Nothing, WORK_MS),
            // Some are slower than they may be.
            1 | 2 => (Word::Ack, visibility * 3),
            3 | 4 => (Word::Extend { lease_ms: self.random.skewed(20..visibility * 2) }, visibility),
            5 | 6 => (self.nack(), WORK_MS),
            7 if self.plan.settings.dead_letter.is_some() => (Word::Dead, WORK_MS),
            _ => (Word::Ack, WORK_MS),
        }
    }

    /// What a member says of bad records: they fail as long as others can be done beside them.
    fn word_of_bad(&mut self) -> (Word, u64) {
        let settings = &self.plan.settings;
        let holds_up = settings.order_per_key && self.is_calm;
        let may_have_no_limit = settings.delivery_limit.is_none() || self.is_altered;
        if may_have_no_limit && (holds_up || self.is_relenting) {
            return (Word::Ack, CALM_WORK_MS);
        }
        let (most_ms, silence_rarity) = if self.is_calm { (CALM_WORK_MS, 30) } else { (WORK_MS, 6) };
        (if self.random.is_one_in(silence_rarity) { Word::Nothing } else { self.nack() }, most_ms)
    }

    fn nack(&mut self) -> Word {
        Word::Nack { delay_ms: self.random.is_one_in(2).then(|| self.random.skewed(0..1_200)) }
    }

    /// A member says what it has to say, unless it is gone.
    pub(super) fn say(
        &mut self,
        core: &mut ClientCore,
        now: Now,
        (key, delivery, lease): (QueueMemberKey, DeliveryKey, LeaseRange),
        word: Word,
    ) -> Vec<Wish> {
        let nack = |delay, is_dead| Verdict::Nack { delay, is_dead, reason: "it does not work".to_owned() };
        let verdict = match word {
            Word::Ack => Verdict::Ack,
            Word::Nack { delay_ms } => nack(delay_ms.map(Duration::from_millis), false),
            Word::Dead => nack(None, true),
            Word::Extend { lease_ms } => Verdict::Extend { lease: Duration::from_millis(lease_ms) },
            Word::Nothing => return Vec::new(),
        };
        let Some(member) = self.members.get_mut(&key) else { return Vec::new() };
        if verdict == Verdict::Ack && self.random.is_one_in(3) {
            core.measure_leases(key, u32::try_from(self.random.skewed(1..50_000)).expect("small"));
        }
        let Some(said) = core.say_of_leases(now, key, delivery, &[lease], &verdict) else { return Vec::new() };
        let is_ack = verdict == Verdict::Ack;
        member.open.insert(said.key, Open { lease, is_ack, refused: BTreeSet::new() });
        match word {
            Word::Extend { lease_ms } => {
                let word = if self.random.is_one_in(4) { Word::Nothing } else { Word::Ack };
                vec![self.soon(lease_ms * 2, QueueTodo::Say { member: key, delivery, lease, word })]
            }
            _ => Vec::new(),
        }
    }
}
