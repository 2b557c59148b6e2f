//! The log of one partition: its ends, and what must hold between them.

use corelane_model::{LeaderEpoch, Offset, PartitionId, TopicClass, TopicSettings, WallMillis};

use crate::cache::BatchCache;
use crate::ids::IdWindow;
use crate::latest::Latest;
use crate::settle::Settling;
use crate::{CorruptRange, LogState, LogStats, Segment};

/// One partition's log. See the crate's page for what it decides and what it does not know.
///
/// An empty log takes a few hundred bytes: there are ten thousands of them.
#[derive(Clone, Debug)]
pub struct CommitLog {
    pub(crate) partition: PartitionId,
    pub(crate) settings: TopicSettings,
    pub(crate) state: LogState,
    /// Exclusive end of what is on disk, in the journal or in segments; on a memory topic of what is in memory.
    pub(crate) durable_end: Offset,
    /// Exclusive end of what was attached after it was appended.
    pub(crate) attached_end: Offset,
    /// Batches above the settled end, and below it while the note of their settling is not durable; all batches of a
    /// memory log.
    pub(crate) cache: BatchCache,
    /// What a log of class `latest` keeps, in place of the cache.
    pub(crate) latest: Option<Box<Latest>>,
    /// The settle plan that is under way.
    pub(crate) settling: Option<Settling>,
    pub(crate) stats: LogStats,
    /// Message ids, when the topic deduplicates by them.
    pub(crate) ids: Option<Box<IdWindow>>,
}

const _: () = assert!(size_of::<CommitLog>() <= 512);

impl CommitLog {
    /// A log that goes on where `state` ends; a new one with `LogState::default()`.
    ///
    /// Until [`CommitLog::finish_recovery`] it only takes what is replayed, unless the state has nothing unsettled.
    #[must_use]
    pub fn new(partition: PartitionId, settings: TopicSettings, state: LogState) -> Self {
        let end = state.log_end;
        let log = Self {
            partition,
            settings,
            state,
            durable_end: end,
            attached_end: end,
            cache: BatchCache::default(),
            latest: (settings.class == TopicClass::Latest).then(Box::default),
            settling: None,
            stats: LogStats::default(),
            ids: IdWindow::for_settings(&settings),
        };
        log.check();
        log
    }

    /// Which partition it is.
    #[must_use]
    pub const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The topic's settings as the log applies them.
    #[must_use]
    pub const fn settings(&self) -> &TopicSettings {
        &self.settings
    }

    /// Applies changed settings from the next decision on. The class of a topic never changes.
    pub fn set_settings(&mut self, settings: TopicSettings) {
        assert_eq!(settings.class, self.settings.class, "the class of a topic does not change");
        if self.settings.dedup_window_ms != settings.dedup_window_ms
            || self.settings.dedup_count != settings.dedup_count
        {
            // A wider window needs ids that were forgotten.
            self.ids = IdWindow::for_settings(&settings);
        }
        self.settings = settings;
        if !self.settings.class.is_durable() {
            self.keep_ring_bound();
        }
        self.check();
    }

    /// The first offset that can be read.
    #[must_use]
    pub const fn log_start(&self) -> Offset {
        self.state.log_start
    }

    /// Exclusive end of what lies in segments, by the notes in the journal, or was given up. Equal to the log start on a
    /// memory topic.
    #[must_use]
    pub const fn settled_end(&self) -> Offset {
        self.state.settled_end
    }

    /// Exclusive end of what survives a crash, contiguous; on a memory topic of what is in memory. Never moves back.
    #[must_use]
    pub const fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// The offset that the next record gets.
    #[must_use]
    pub const fn log_end(&self) -> Offset {
        self.state.log_end
    }

    /// Exclusive end of what consumers may read. Equal to the durable end until replication exists: a record of a
    /// durable topic that could be lost is not shown, or two records could be seen at one offset.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        #[cfg(planted)]
        if corelane_model::planted::is_planted(corelane_model::planted::Bug::VisibleBeforeDurable) {
            return self.attached_end;
        }
        self.durable_end
    }

    /// Term of the leader that appends now.
    #[must_use]
    pub const fn leader_epoch(&self) -> LeaderEpoch {
        self.state.leader_epoch
    }

    /// The newest append timestamp.
    #[must_use]
    pub const fn append_timestamp(&self) -> WallMillis {
        self.state.append_timestamp
    }

    /// Its segments, oldest first; only the last one may be active.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.state.segments
    }

    /// Offsets that are lost to damage, in order.
    #[must_use]
    pub fn corrupt(&self) -> &[CorruptRange] {
        self.state.corrupt.as_slice()
    }

    /// Offsets that a segment should hold and that were found damaged when it was read: from now on they are reported and
    /// not looked for.
    pub fn on_corrupt(&mut self, range: CorruptRange) {
        let range = CorruptRange { first: range.first.max(self.log_start()), end: range.end };
        if range.first < range.end {
            self.state.corrupt.add(range);
        }
    }

    /// What must be known after a restart, as of now: for checkpoints.
    #[must_use]
    pub const fn state(&self) -> &LogState {
        &self.state
    }

    /// Counters since the log was opened.
    #[must_use]
    pub const fn stats(&self) -> &LogStats {
        &self.stats
    }

    /// Bytes of batches in memory.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        match &self.latest {
            Some(latest) => latest.memory_bytes(),
            None => self.cache.bytes(),
        }
    }

    /// Bytes of its segments' files.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.state.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.bytes))
    }

    /// Bytes that the log itself takes, without the batches, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.cache.list_bytes()
            + self.state.segments.capacity() * size_of::<Segment>()
            + self.state.producers.memory_bytes()
            + usize::try_from(self.state.transactions.memory_bytes()).unwrap_or(usize::MAX)
    }

    /// What holds before and after each change.
    #[inline]
    pub(crate) fn check(&self) {
        let LogState { log_start, settled_end, log_end, .. } = self.state;
        let (durable_end, attached_end) = (self.durable_end, self.attached_end);
        let is_start_settled = log_start <= settled_end && settled_end <= durable_end;
        if !(is_start_settled && durable_end <= attached_end && attached_end <= log_end) {
            self.fail_check();
        }
        if cfg!(debug_assertions) {
            self.check_lists();
        }
    }

    /// Says which of the ends are out of order. Out of the way, since each batch has them looked at several times.
    #[cold]
    #[inline(never)]
    fn fail_check(&self) -> ! {
        let LogState { log_start, settled_end, log_end, .. } = self.state;
        let (durable_end, attached_end) = (self.durable_end, self.attached_end);
        assert!(log_start <= settled_end, "log start {log_start} is beyond the settled end {settled_end}");
        assert!(settled_end <= durable_end, "settled end {settled_end} is beyond the durable end {durable_end}");
        assert!(durable_end <= attached_end, "durable end {durable_end} is beyond the attached end {attached_end}");
        panic!("attached end {attached_end} is beyond the log end {log_end}");
    }

    /// What can be seen only by looking into lists: memory that a batch of a quiet partition would have to wait for.
    fn check_lists(&self) {
        let LogState { settled_end, log_end, .. } = self.state;
        let attached_end = self.attached_end;
        if let Some(first) = self.state.transactions.first_open() {
            assert!(first < log_end, "a transaction is open from {first}, beyond the log end {log_end}");
        }
        if let Some(latest) = &self.latest {
            latest.check();
        }
        if let Some(first) = self.cache.front() {
            let is_noted = self.settling.is_some_and(|settling| settling.is_noted);
            assert!(is_noted || settled_end < first.end, "batch up to {} is kept below {settled_end}", first.end);
        }
        if let Some(last) = self.cache.back() {
            assert!(last.end <= attached_end, "batch up to {} is beyond the attached end {attached_end}", last.end);
        }
        if let Some(last) = self.state.segments.last() {
            assert!(last.end <= settled_end, "segment up to {} is beyond the settled end {settled_end}", last.end);
        }
    }
}
