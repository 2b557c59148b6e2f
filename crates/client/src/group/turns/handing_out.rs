//! How what has come is handed out: batch by batch, to the application as owner or as standby.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use corelane_client_core::{SubscriptionError, SubscriptionKey};
use corelane_model::{Generation, Offset, PartitionId};
use corelane_record::{RecordBatch, split_batch};

use crate::Batch;
use crate::group::{Event, FollowedBatch, GroupBatch, GroupConsumer, GroupError};

/// Batches of one push that were not handed out yet.
#[derive(Debug)]
pub(in crate::group) struct Run {
    pub(super) subscription: SubscriptionKey,
    pub(super) bytes: Bytes,
    pub(super) from: Offset,
    pub(super) high_watermark: Offset,
}

/// The batch that the application works on.
#[derive(Clone, Copy, Debug)]
pub(in crate::group) struct InHand {
    pub(in crate::group) id: PartitionId,
    pub(in crate::group) subscription: SubscriptionKey,
    pub(in crate::group) end: Offset,
    pub(in crate::group) bytes: u64,
    pub(in crate::group) role: Role,
}

/// As what the application works on a batch.
#[derive(Clone, Copy, Debug)]
pub(in crate::group) enum Role {
    Owner { turn: Generation, records: u32, since: Instant },
    Standby,
}

/// What a look at the first batch of a run leads to.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Cut {
    Event(Result<Event, GroupError>),
    /// It is none of the application's, and the rest may be.
    Skipped(Run),
    Nothing,
}

impl GroupConsumer {
    /// Cuts the next batch off a run; what is left stays for the next call. A run of a turn that is over is dropped.
    pub(in crate::group) fn next_of(&mut self, mut run: Run) -> Option<Result<Event, GroupError>> {
        loop {
            match self.cut(run) {
                Cut::Event(event) => return Some(event),
                Cut::Skipped(rest) => run = rest,
                Cut::Nothing => return None,
            }
        }
    }

    fn cut(&mut self, mut run: Run) -> Cut {
        let subscription = run.subscription;
        let followed = self.following.by_subscription(subscription);
        let owned = self.turns.by_subscription.get(&subscription).copied();
        let Some(id) = owned.or(followed) else { return Cut::Nothing };
        let whole = run.bytes.clone();
        let Some(bytes) = split_batch(&mut run.bytes).expect("the machine has checked the heads") else {
            return Cut::Nothing;
        };
        let taken = bytes.len() as u64;
        let records = match RecordBatch::parse(bytes) {
            Ok(records) => records,
            Err(error) => {
                self.handle.shared.act(|inner, _| inner.core.unsubscribe(subscription));
                self.on_ended(subscription, SubscriptionError::Batch(error));
                return Cut::Nothing;
            }
        };
        let batch = Batch::new(id.index, records, run.from, run.high_watermark);
        if owned.is_none() {
            self.current = Some(run);
            let event = self.hand_out_followed((id, subscription), batch, taken);
            return event.map_or(Cut::Nothing, Cut::Event);
        }
        match self.turns.by_id.get(&id).and_then(|turn| turn.missed.clone()) {
            Some(missed) if batch.base_offset() < missed.end => self.catch_up(id, missed, (run, whole), batch, taken),
            _ => self.hand_out(id, run, batch, taken),
        }
    }

    /// A batch begins among what the state has missed: what is done of it comes as to a standby, the rest as to the owner.
    fn catch_up(
        &mut self,
        id: PartitionId,
        missed: Range<Offset>,
        (mut run, whole): (Run, Bytes),
        batch: Batch,
        taken: u64,
    ) -> Cut {
        let (subscription, is_split) = (run.subscription, missed.end < batch.end_offset());
        let bytes = if is_split { 0 } else { taken };
        if is_split {
            run.bytes = whole;
            run.from = missed.end;
        }
        if let Some(turn) = self.turns.by_id.get_mut(&id).filter(|_| missed.end <= batch.end_offset()) {
            turn.missed = None;
        }
        let batch = batch.between(missed);
        if batch.is_empty() {
            self.handle.shared.act(|inner, _| inner.core.consumed(subscription, bytes));
            return Cut::Skipped(run);
        }
        let Some(turn) = self.turns.by_id.get(&id) else { return Cut::Nothing };
        let partition = Arc::clone(&turn.partition);
        self.in_hand = Some(InHand { id, subscription, end: batch.end_offset(), bytes, role: Role::Standby });
        self.current = Some(run);
        Cut::Event(Ok(Event::Followed(FollowedBatch { partition, batch })))
    }

    fn hand_out(&mut self, id: PartitionId, run: Run, batch: Batch, taken: u64) -> Cut {
        let Some(turn) = self.turns.by_id.get_mut(&id) else { return Cut::Nothing };
        let end = batch.end_offset();
        let start = turn.read.as_ref().map_or_else(|| batch.base_offset().max(run.from), |read| read.start);
        turn.read = Some(start..end);
        if turn.uncommitted.replace(end).is_none() {
            self.turns.touched.push(id);
        }
        let batch = GroupBatch { partition: Arc::clone(&turn.partition), id, turn: turn.turn, batch };
        let records = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let role = Role::Owner { turn: batch.turn, records, since: Instant::now() };
        self.in_hand = Some(InHand { id, subscription: run.subscription, end, bytes: taken, role });
        self.current = Some(run);
        // Behind the batch: asking for it would else finish a batch that nobody has seen.
        self.ready.extend(self.turns.is_news(id, batch.lag()).map(Ok));
        Cut::Event(Ok(Event::Batch(batch)))
    }
}
