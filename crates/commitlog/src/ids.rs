//! What the log remembers of message ids, so that a message that an application sends again is not appended again.

use std::collections::{BTreeMap, VecDeque};

use corelane_model::limits::{DEDUP_COUNT_MAX, DEDUP_ID_BYTES};
use corelane_model::{Now, Offset, TopicSettings, WallMillis};
use corelane_record::{BatchHead, MessageId};

use crate::{Append, AppendError, CommitLog, TimeLookup};

/// Records whose message ids are to be read back, half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// Where to read on.
    pub next: Offset,
    /// Where it ends.
    pub end: Offset,
}

/// Whether a log knows the message ids that it should know.
///
/// ```text
///            begin_ids                     read_ids up to the end
///  Unread ─────────────▶ Reading ───────────────────────────────▶ Ready
///    ▲                      │                                       │
///    └── give_up_ids ───────┴── settings changed, process restarted ┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdState {
    /// The topic does not deduplicate.
    Off,
    /// Nothing was read yet.
    Unread,
    /// The log is being read; batches with an id have to wait.
    Reading(IdRange),
    /// Batches with an id can be judged.
    Ready,
}

/// The message ids of a partition's latest records, bounded by count and by age.
#[derive(Clone, Debug)]
pub(crate) struct IdWindow {
    state: IdState,
    window_ms: Option<u64>,
    count: u64,
    /// Oldest first.
    order: VecDeque<(MessageId, Offset, WallMillis)>,
    known: BTreeMap<MessageId, (Offset, WallMillis)>,
}

impl IdWindow {
    pub(crate) fn for_settings(settings: &TopicSettings) -> Option<Box<Self>> {
        settings.has_message_ids().then(|| {
            Box::new(Self {
                state: IdState::Unread,
                window_ms: settings.dedup_window_ms,
                count: settings.dedup_count.unwrap_or(DEDUP_COUNT_MAX).min(DEDUP_COUNT_MAX),
                order: VecDeque::new(),
                known: BTreeMap::new(),
            })
        })
    }

    /// Forgets what is too old at `now` or not among the latest records of a log that ends at `log_end`.
    fn expire(&mut self, now: WallMillis, log_end: Offset) {
        while let Some(&(id, offset, at)) = self.order.front() {
            let is_old = self.window_ms.is_some_and(|window| window <= now.millis_since(at));
            if !is_old && log_end.0 <= offset.0.saturating_add(self.count) {
                return;
            }
            self.order.pop_front();
            if self.known.get(&id).is_some_and(|&(known, _)| known == offset) {
                self.known.remove(&id);
            }
        }
    }

    /// Remembers an id. When it is known already, its earlier record was too old when this one was appended, or nobody
    /// looked then: the later one counts.
    fn insert(&mut self, id: MessageId, offset: Offset, at: WallMillis) {
        if let Some(&(_, last, _)) = self.order.back() {
            assert!(last < offset, "offset {offset} comes behind {last}");
        }
        self.order.push_back((id, offset, at));
        self.known.insert(id, (offset, at));
    }

    fn clear(&mut self) {
        (self.order, self.known) = (VecDeque::new(), BTreeMap::new());
    }
}

impl CommitLog {
    /// Whether message ids can be judged.
    #[must_use]
    pub fn id_state(&self) -> IdState {
        self.ids.as_ref().map_or(IdState::Off, |ids| ids.state)
    }

    /// Memory that message ids take, about.
    #[must_use]
    pub fn id_bytes(&self) -> u64 {
        self.ids.as_ref().map_or(0, |ids| ids.order.len() as u64 * DEDUP_ID_BYTES)
    }

    /// Begins to read message ids back, from the oldest record whose id has to be known: in a log that has none at once
    /// [`IdState::Ready`]. Batches without an id may be appended meanwhile.
    pub fn begin_ids(&mut self, now: Now) -> IdState {
        let (log_start, end) = (self.log_start(), self.log_end());
        let Some(ids) = &self.ids else { return IdState::Off };
        if ids.state != IdState::Unread {
            return ids.state;
        }
        let by_count = Offset(end.0.saturating_sub(ids.count));
        let by_time = ids.window_ms.map_or(Offset::ZERO, |window| {
            let moment = self.append_timestamp().max(now.wall).0.saturating_sub_unsigned(window);
            match self.offset_for_time(WallMillis(moment)) {
                TimeLookup::At(offset) | TimeLookup::Segment { segment: offset, .. } => offset,
            }
        });
        let next = log_start.max(by_count).max(by_time);
        let range = IdRange { next, end };
        #[cfg(planted)]
        let range = if corelane_model::planted::is_planted(corelane_model::planted::Bug::ForgetMessageIds) {
            IdRange { next: end, end }
        } else {
            range
        };
        self.read_ids(now, range, &[])
    }

    /// Takes in message ids that were read back, in the order of their records, and where to read on.
    pub fn read_ids(&mut self, now: Now, range: IdRange, found: &[(MessageId, Offset, WallMillis)]) -> IdState {
        let (moment, log_end) = (self.append_timestamp().max(now.wall), self.log_end());
        let Some(ids) = &mut self.ids else { return IdState::Off };
        for &(id, offset, at) in found {
            ids.insert(id, offset, at);
        }
        ids.expire(moment, log_end);
        ids.state = if range.next < range.end { IdState::Reading(range) } else { IdState::Ready };
        ids.state
    }

    /// What was read back is of no use; it has to begin anew.
    pub fn give_up_ids(&mut self) {
        if let Some(ids) = &mut self.ids {
            ids.clear();
            ids.state = IdState::Unread;
        }
    }

    /// Forgets message ids that are too old.
    pub fn expire_ids(&mut self, now: Now) {
        let (moment, log_end) = (self.append_timestamp().max(now.wall), self.log_end());
        if let Some(ids) = &mut self.ids {
            ids.expire(moment, log_end);
        }
    }

    /// The earlier append of the message that this batch brings, if the log remembers it. The producer's sequence goes on
    /// behind the batch then, and nothing else moves.
    ///
    /// Panics unless ids are [`IdState::Ready`].
    ///
    /// # Errors
    /// The producer is fenced.
    pub fn judge_id(&mut self, now: Now, head: &BatchHead, id: MessageId) -> Result<Option<Append>, AppendError> {
        assert_eq!(self.id_state(), IdState::Ready, "message ids of {} are judged", self.partition());
        self.expire_ids(now);
        let Some(&(base_offset, append_timestamp)) = self.ids.as_ref().and_then(|ids| ids.known.get(&id)) else {
            return Ok(None);
        };
        if let Err(error @ AppendError::ProducerFenced { .. }) = self.state.producers.judge(head) {
            self.stats.refused_batches += 1;
            return Err(error);
        }
        self.state.producers.pass(head);
        self.stats.duplicate_batches += 1;
        Ok(Some(Append::Duplicate { base_offset, append_timestamp, end_offset: base_offset.advance(1) }))
    }

    /// Remembers the id of a message that was appended.
    pub fn remember_id(&mut self, id: MessageId, offset: Offset, at: WallMillis) {
        let log_end = self.log_end();
        if let Some(ids) = &mut self.ids {
            ids.insert(id, offset, at);
            ids.expire(at, log_end);
        }
    }
}
