//! What a member said of its leases: gathered, a few frames under way, settled in the end.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use corelane_model::limits::{
    QUEUE_RANGES_MAX, QUEUE_VERDICTS_MIXED_UNDER_WAY, QUEUE_VERDICTS_UNDER_WAY, QUEUE_VERDICTS_WAITING_MAX,
};
use corelane_wire::LeaseRange;

use crate::{QueueNews, Verdict, VerdictError, VerdictKey};

/// Ranges in one frame.
const FRAME_RANGES: usize = QUEUE_RANGES_MAX / 2;

/// The same said of several ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) verdict: Verdict,
    pub(crate) leases: Vec<LeaseRange>,
    first: VerdictKey,
    last: VerdictKey,
}

impl Said {
    const fn keys(&self) -> RangeInclusive<VerdictKey> {
        self.first..=self.last
    }
}

/// Everything that was said and is not settled.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    pending: VecDeque<Said>,
    /// Ranges of all of them.
    pending_ranges: usize,
    under_way: Vec<(u64, Said)>,
    next_id: u64,
    newest: VerdictKey,
    told_below: VerdictKey,
}

impl Verdicts {
    /// Whether so many ranges more may wait to leave.
    ///
    /// # Errors
    /// They may not; nothing is said of them.
    pub(crate) fn check_room(&self, leases: &[LeaseRange]) -> Result<(), VerdictError> {
        let (waiting, limit) = (self.pending_ranges + leases.len(), QUEUE_VERDICTS_WAITING_MAX);
        if limit < waiting { Err(VerdictError::TooMany { waiting, limit }) } else { Ok(()) }
    }

    /// A key for something that is not said.
    pub(crate) fn skip(&mut self) -> VerdictKey {
        self.newest.0 += 1;
        self.newest
    }

    /// Something is said of leases.
    pub(crate) fn add(&mut self, verdict: &Verdict, leases: &[LeaseRange]) -> VerdictKey {
        let key = self.skip();
        let mut left = leases;
        if let Some(said) = self.pending.back_mut()
            && said.verdict == *verdict
        {
            let room = FRAME_RANGES.saturating_sub(said.leases.len()).min(left.len());
            let (fits, rest) = left.split_at(room);
            let before = said.leases.len();
            fits.iter().for_each(|&range| push(&mut said.leases, range));
            self.pending_ranges += said.leases.len() - before;
            if 0 < room {
                said.last = key;
            }
            left = rest;
        }
        for ranges in left.chunks(FRAME_RANGES) {
            let said = Said { verdict: verdict.clone(), leases: ranges.to_vec(), first: key, last: key };
            self.pending_ranges += said.leases.len();
            self.pending.push_back(said);
        }
        key
    }

    /// Whether something waits and may leave.
    pub(crate) fn is_ready(&self) -> bool {
        let most = if 1 < self.pending.len() { QUEUE_VERDICTS_MIXED_UNDER_WAY } else { QUEUE_VERDICTS_UNDER_WAY };
        !self.pending.is_empty() && self.under_way.len() < most
    }

    /// Whether nothing waits and nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.under_way.is_empty()
    }

    /// What leaves in the next frame, with the number that its answer is told by.
    pub(crate) fn take_frame(&mut self) -> Option<(u64, Said)> {
        if !self.is_ready() {
            return None;
        }
        let said = self.pending.pop_front()?;
        self.pending_ranges -= said.leases.len();
        self.next_id += 1;
        self.under_way.push((self.next_id, said.clone()));
        Some((self.next_id, said))
    }

    fn take(&mut self, id: u64) -> Option<Said> {
        let at = self.under_way.iter().position(|(under_way, _)| *under_way == id)?;
        Some(self.under_way.remove(at).1)
    }

    /// A frame was carried out, but for these leases.
    pub(crate) fn on_answer(&mut self, id: u64, refused: Vec<LeaseRange>) -> Option<QueueNews> {
        let said = self.take(id)?;
        (!refused.is_empty()).then(|| QueueNews::Refused {
            verdicts: said.keys(),
            leases: refused,
            error: VerdictError::LeaseOver,
        })
    }

    /// Nothing of a frame was carried out, and it is of no use to repeat it.
    pub(crate) fn on_refused(&mut self, id: u64, error: VerdictError) -> Option<QueueNews> {
        let said = self.take(id)?;
        Some(QueueNews::Refused { verdicts: said.keys(), leases: said.leases, error })
    }

    /// A frame goes again.
    pub(crate) fn put_back(&mut self, id: u64) {
        let Some(said) = self.take(id) else { return };
        self.pending_ranges += said.leases.len();
        self.pending.push_back(said);
        self.pending.make_contiguous().sort_by_key(|said| said.first);
    }

    /// All frames under way go again.
    pub(crate) fn put_all_back(&mut self) {
        self.pending_ranges += self.under_way.iter().map(|(_, said)| said.leases.len()).sum::<usize>();
        self.pending.extend(self.under_way.drain(..).map(|(_, said)| said));
        self.pending.make_contiguous().sort_by_key(|said| said.first);
    }

    /// Nothing comes of anything that is not settled.
    pub(crate) fn fail_all(&mut self, error: &VerdictError) -> Vec<QueueNews> {
        self.put_all_back();
        self.pending_ranges = 0;
        let refused =
            |said: Said| QueueNews::Refused { verdicts: said.keys(), leases: said.leases, error: error.clone() };
        self.pending.drain(..).map(refused).collect()
    }

    /// The news that more is settled, if so.
    pub(crate) fn settled(&mut self) -> Option<QueueNews> {
        let open = self.pending.iter().chain(self.under_way.iter().map(|(_, said)| said)).map(|said| said.first).min();
        let below = open.unwrap_or(VerdictKey(self.newest.0 + 1));
        let is_new = self.told_below < below && 0 < self.newest.0;
        self.told_below = self.told_below.max(below);
        is_new.then_some(QueueNews::Settled { below })
    }
}

/// Appends a range, as one with the last where it follows it.
fn push(leases: &mut Vec<LeaseRange>, range: LeaseRange) {
    match leases.last_mut() {
        Some(last)
            if last.partition == range.partition
                && last.attempt == range.attempt
                && last.first + u64::from(last.count) == range.first
                && last.count.checked_add(range.count).is_some() =>
        {
            last.count += range.count;
        }
        _ => leases.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(first: u64, count: u32) -> LeaseRange {
        LeaseRange { partition: 0, first, count, attempt: 1 }
    }

    fn settled(verdicts: &mut Verdicts) -> Option<u64> {
        match verdicts.settled() {
            Some(QueueNews::Settled { below }) => Some(below.0),
            _ => None,
        }
    }

    #[test]
    fn what_follows_each_other_is_one_range() {
        let mut verdicts = Verdicts::default();
        for offset in 0..100 {
            verdicts.add(&Verdict::Ack, &[range(offset, 1)]);
        }
        let (_, said) = verdicts.take_frame().unwrap();
        assert_eq!(said.leases, [range(0, 100)]);
        assert_eq!(said.keys(), VerdictKey(1)..=VerdictKey(100));
    }

    #[test]
    fn another_verdict_is_another_frame_and_order_holds() {
        let mut verdicts = Verdicts::default();
        let nack = Verdict::Nack { delay: None, is_dead: false, reason: "no".into() };
        verdicts.add(&Verdict::Ack, &[range(0, 1)]);
        verdicts.add(&nack, &[range(1, 1)]);
        verdicts.add(&Verdict::Ack, &[range(2, 1)]);
        let (first, said) = verdicts.take_frame().unwrap();
        assert_eq!(said.verdict, Verdict::Ack);
        let (second, said) = verdicts.take_frame().unwrap();
        assert_eq!(said.verdict, nack);
        assert!(verdicts.take_frame().is_none(), "two are under way");
        assert_eq!(settled(&mut verdicts), Some(1));
        verdicts.on_answer(second, Vec::new());
        assert_eq!(settled(&mut verdicts), None, "the first is not settled");
        verdicts.on_answer(first, Vec::new());
        assert_eq!(settled(&mut verdicts), Some(3));
    }

    #[test]
    fn what_can_gather_no_more_leaves_sooner() {
        let mut verdicts = Verdicts::default();
        let nack = Verdict::Nack { delay: None, is_dead: false, reason: "no".into() };
        for offset in 0..40 {
            verdicts.add(if offset % 2 == 0 { &Verdict::Ack } else { &nack }, &[range(offset * 2, 1)]);
        }
        let frames: Vec<_> = std::iter::from_fn(|| verdicts.take_frame()).collect();
        assert_eq!(frames.len(), QUEUE_VERDICTS_MIXED_UNDER_WAY);
        assert!(frames.iter().map(|(_, said)| said.leases[0].first).is_sorted());
        verdicts.on_answer(frames[0].0, Vec::new());
        assert!(verdicts.take_frame().is_some() && verdicts.take_frame().is_none());
    }

    #[test]
    fn after_a_lost_connection_everything_goes_again_in_order() {
        let mut verdicts = Verdicts::default();
        let extend = Verdict::Extend { lease: std::time::Duration::from_secs(1) };
        verdicts.add(&Verdict::Ack, &[range(0, 1)]);
        verdicts.add(&extend, &[range(1, 1)]);
        assert!(verdicts.take_frame().is_some() && verdicts.take_frame().is_some());
        verdicts.add(&Verdict::Ack, &[range(2, 1)]);
        verdicts.put_all_back();
        let order: Vec<_> = std::iter::from_fn(|| {
            let (id, said) = verdicts.take_frame()?;
            verdicts.on_answer(id, Vec::new());
            Some(said.verdict)
        })
        .collect();
        assert_eq!(order, [Verdict::Ack, extend, Verdict::Ack]);
        assert_eq!(settled(&mut verdicts), Some(4));
        assert!(verdicts.is_empty());
    }

    #[test]
    fn what_waits_to_leave_is_counted_until_it_has_left() {
        let mut verdicts = Verdicts::default();
        let nack = Verdict::Nack { delay: None, is_dead: false, reason: "no".into() };
        let fills = |verdicts: &Verdicts, count: usize| {
            let room = QUEUE_VERDICTS_WAITING_MAX - count;
            verdicts.check_room(&vec![range(0, 1); room]).is_ok()
                && verdicts.check_room(&vec![range(0, 1); room + 1]).is_err()
        };
        assert!(fills(&verdicts, 0));
        for offset in 0..10 {
            verdicts
                .add(if offset % 2 == 0 { &Verdict::Ack } else { &nack }, &[range(offset, 1), range(offset + 50, 1)]);
        }
        assert!(fills(&verdicts, 20));
        verdicts.add(&nack, &[range(10, 1), range(11, 1)]);
        assert!(fills(&verdicts, 21), "one range where they follow each other");
        let (first, _) = verdicts.take_frame().unwrap();
        let (second, _) = verdicts.take_frame().unwrap();
        assert!(fills(&verdicts, 17));
        verdicts.put_back(first);
        assert!(fills(&verdicts, 19));
        verdicts.on_answer(second, Vec::new());
        assert!(fills(&verdicts, 19));
        verdicts.take_frame().unwrap();
        verdicts.put_all_back();
        assert!(fills(&verdicts, 19));
        verdicts.fail_all(&VerdictError::Ended);
        assert!(fills(&verdicts, 0));
    }

    #[test]
    fn a_verdict_of_more_ranges_than_a_frame_holds_is_cut() {
        let mut verdicts = Verdicts::default();
        let many: Vec<_> = (0..FRAME_RANGES as u64 * 2 + 1).map(|i| range(i * 2, 1)).collect();
        verdicts.add(&Verdict::Ack, &many);
        let mut seen = 0;
        while let Some((id, said)) = verdicts.take_frame() {
            assert!(said.leases.len() <= FRAME_RANGES);
            seen += said.leases.len();
            assert_eq!(settled(&mut verdicts).unwrap_or(1), 1);
            verdicts.on_answer(id, Vec::new());
        }
        assert_eq!(seen, many.len());
        assert_eq!(settled(&mut verdicts), Some(2));
    }
}
