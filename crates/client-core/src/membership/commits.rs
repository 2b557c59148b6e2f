//! Commits of a member: the newest offset of each partition, one frame under way.

use std::collections::BTreeMap;

use corelane_model::limits::{FRAME_BODY_BYTES_MAX, GROUP_COMMIT_METADATA_BYTES_MAX, GROUP_COMMIT_PARTITIONS_MAX};
use corelane_model::{Generation, Offset, PartitionId};

use crate::{CommitError, CommitKey, GroupNews};

/// Bytes of one offset in a frame beside its metadata.
const OFFSET_BYTES: usize = 48;
/// Bytes of offsets that one frame carries; its head, names and padding have the rest.
const FRAME_OFFSETS_BYTES: usize = FRAME_BODY_BYTES_MAX as usize / 2;

const _: () = assert!(OFFSET_BYTES + GROUP_COMMIT_METADATA_BYTES_MAX <= FRAME_OFFSETS_BYTES);

/// The newest offset that is to be committed for a partition, and the commits that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) turn: Generation,
    pub(crate) offset: Offset,
    pub(crate) metadata: String,
    /// Commits that somebody holds a ticket for.
    keys: Option<(CommitKey, CommitKey)>,
    /// Whether it goes into a frame of its own, because a frame with others was refused.
    is_alone: bool,
}

/// Commits that left in one frame.
#[derive(Debug)]
pub(crate) struct InFlight {
    id: u64,
    entries: BTreeMap<PartitionId, Entry>,
}

/// Offsets of one frame, with their metadata.
pub(crate) type Offsets = Vec<(PartitionId, Offset, String)>;

/// All commits of a member that are not settled.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    pending: BTreeMap<PartitionId, Entry>,
    in_flight: Vec<InFlight>,
    next_id: u64,
    next_key: u64,
    told_below: CommitKey,
}

impl Commits {
    /// The number of the next commit of the application.
    pub(crate) const fn next_key(&mut self) -> CommitKey {
        self.next_key += 1;
        CommitKey(self.next_key)
    }

    /// An offset is to be committed; it takes the place of an older one that has not left.
    pub(crate) fn add(
        &mut self,
        partition: PartitionId,
        turn: Generation,
        offset: Offset,
        metadata: String,
        key: Option<CommitKey>,
    ) {
        let keys = key.map(|key| (key, key));
        let new = Entry { turn, offset, metadata, keys, is_alone: false };
        match self.pending.get_mut(&partition) {
            Some(old) => {
                let is_alone = old.is_alone;
                *old = Entry { keys: join(old.keys, new.keys), is_alone, ..new };
            }
            None => {
                self.pending.insert(partition, new);
            }
        }
    }

    /// Whether an offset of a partition is not settled.
    pub(crate) fn has(&self, partition: PartitionId) -> bool {
        self.pending.contains_key(&partition)
            || self.in_flight.iter().any(|frame| frame.entries.contains_key(&partition))
    }

    /// Whether something waits to leave.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether a frame is under way.
    pub(crate) const fn is_under_way(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Takes what leaves in one frame: all that waits, as far as it fits. `None` when nothing does.
    pub(crate) fn take_frame(&mut self) -> Option<(u64, Offsets)> {
        let mut entries = BTreeMap::new();
        let mut bytes = 0;
        while let Some((&partition, entry)) = self.pending.first_key_value() {
            bytes += OFFSET_BYTES + entry.metadata.len();
            let is_full = FRAME_OFFSETS_BYTES < bytes || GROUP_COMMIT_PARTITIONS_MAX <= entries.len();
            if !entries.is_empty() && (is_full || entry.is_alone) {
                break;
            }
            let (_, entry) = self.pending.pop_first().expect("just looked at");
            let is_alone = entry.is_alone;
            entries.insert(partition, entry);
            if is_alone {
                break;
            }
        }
        if entries.is_empty() {
            return None;
        }
        self.next_id += 1;
        let frame = entries.iter().map(|(&partition, entry)| (partition, entry.offset, entry.metadata.clone()));
        let frame = frame.collect();
        self.in_flight.push(InFlight { id: self.next_id, entries });
        Some((self.next_id, frame))
    }

    fn take_in_flight(&mut self, id: u64) -> Option<InFlight> {
        let at = self.in_flight.iter().position(|frame| frame.id == id)?;
        Some(self.in_flight.remove(at))
    }

    /// A frame's commits are durable.
    pub(crate) fn on_done(&mut self, id: u64) {
        drop(self.take_in_flight(id));
    }

    /// A frame was lost or put off: what is not overtaken by now waits again.
    pub(crate) fn put_back(&mut self, id: u64) {
        let Some(frame) = self.take_in_flight(id) else { return };
        for (partition, entry) in frame.entries {
            self.put_back_entry(partition, entry);
        }
    }

    fn put_back_entry(&mut self, partition: PartitionId, entry: Entry) {
        let later = self.in_flight.iter_mut().find_map(|frame| frame.entries.get_mut(&partition));
        match self.pending.get_mut(&partition).or(later) {
            // The newer offset stands for this one too.
            Some(newer) => newer.keys = join(newer.keys, entry.keys),
            None => drop(self.pending.insert(partition, entry)),
        }
    }

    /// All that was under way is lost with its connection.
    pub(crate) fn put_all_back(&mut self) {
        // The newest first, so that older ones find it.
        while let Some(frame) = self.in_flight.pop() {
            for (partition, entry) in frame.entries {
                self.put_back_entry(partition, entry);
            }
        }
    }

    /// A frame was refused for something about one of its partitions: it is found by sending each alone.
    pub(crate) fn on_refused(&mut self, id: u64, mut error: impl FnMut(PartitionId) -> CommitError) -> Vec<GroupNews> {
        let Some(frame) = self.take_in_flight(id) else { return Vec::new() };
        let is_single = frame.entries.len() == 1;
        let mut news = Vec::new();
        for (partition, mut entry) in frame.entries {
            if is_single {
                news.extend(failure(partition, entry.keys, error(partition)));
            } else {
                entry.is_alone = true;
                self.put_back_entry(partition, entry);
            }
        }
        news
    }

    /// A partition's turn is over: what waits for it will not be committed.
    pub(crate) fn forget(&mut self, partition: PartitionId) -> Option<GroupNews> {
        let entry = self.pending.remove(&partition)?;
        failure(partition, entry.keys, CommitError::Lost { partition })
    }

    /// Drops what waits and is of a turn that is over.
    pub(crate) fn retain(&mut self, is_of_turn: impl Fn(PartitionId, Generation) -> bool) -> Vec<GroupNews> {
        let stale = self.pending.extract_if(.., |&partition, entry| !is_of_turn(partition, entry.turn));
        stale.filter_map(|(p, entry)| failure(p, entry.keys, CommitError::Lost { partition: p })).collect()
    }

    /// The membership is over, or begins anew: nothing of this will be heard of again.
    pub(crate) fn fail_all(&mut self, mut error: impl FnMut(PartitionId) -> CommitError) -> Vec<GroupNews> {
        self.put_all_back();
        let pending = std::mem::take(&mut self.pending);
        pending.into_iter().filter_map(|(partition, entry)| failure(partition, entry.keys, error(partition))).collect()
    }

    /// Says that commits are settled, if more are than was said before.
    pub(crate) fn settled(&mut self) -> Option<GroupNews> {
        let under_way = self.in_flight.iter().flat_map(|frame| frame.entries.values());
        let first = self.pending.values().chain(under_way).filter_map(|entry| entry.keys).map(|(first, _)| first).min();
        let below = first.unwrap_or(CommitKey(self.next_key + 1));
        if self.told_below < below {
            self.told_below = below;
            return Some(GroupNews::CommitsSettled { below });
        }
        None
    }
}

fn join(a: Option<(CommitKey, CommitKey)>, b: Option<(CommitKey, CommitKey)>) -> Option<(CommitKey, CommitKey)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    }
}

fn failure(partition: PartitionId, keys: Option<(CommitKey, CommitKey)>, error: CommitError) -> Option<GroupNews> {
    let (first, last) = keys?;
    Some(GroupNews::CommitFailed { partition, commits: first..=last, error })
}

#[cfg(test)]
mod tests {
    use corelane_model::{PartitionIndex, TopicId};

    use super::*;

    fn partition(index: u32) -> PartitionId {
        PartitionId::new(TopicId(1), PartitionIndex(index))
    }

    fn add(commits: &mut Commits, index: u32, offset: u64) -> CommitKey {
        let key = commits.next_key();
        commits.add(partition(index), Generation(1), Offset(offset), String::new(), Some(key));
        key
    }

    fn below(news: &Option<GroupNews>) -> Option<u64> {
        match news {
            Some(GroupNews::CommitsSettled { below }) => Some(below.0),
            _ => None,
        }
    }

    #[test]
    fn only_the_newest_offset_leaves_and_settles_all_before() {
        let mut commits = Commits::default();
        for offset in 1..=1000 {
            add(&mut commits, 0, offset);
        }
        let (id, frame) = commits.take_frame().unwrap();
        assert_eq!(frame, [(partition(0), Offset(1000), String::new())]);
        assert_eq!(below(&commits.settled()), Some(1), "nothing is settled yet");
        commits.on_done(id);
        assert_eq!(below(&commits.settled()), Some(1001));
    }

    #[test]
    fn a_lost_frame_never_takes_a_newer_offset_back() {
        let mut commits = Commits::default();
        add(&mut commits, 0, 5);
        let (first, _) = commits.take_frame().unwrap();
        add(&mut commits, 0, 9);
        commits.put_back(first);
        let (second, frame) = commits.take_frame().unwrap();
        assert_eq!(frame, [(partition(0), Offset(9), String::new())]);
        commits.on_done(second);
        assert_eq!(below(&commits.settled()), Some(3));
    }

    #[test]
    fn a_refusal_hits_only_the_partition_that_it_is_about() {
        let mut commits = Commits::default();
        add(&mut commits, 0, 5);
        add(&mut commits, 1, 6);
        let (id, frame) = commits.take_frame().unwrap();
        assert_eq!(frame.len(), 2);
        assert!(commits.on_refused(id, |partition| CommitError::Lost { partition }).is_empty());
        let (first, frame) = commits.take_frame().unwrap();
        assert_eq!(frame, [(partition(0), Offset(5), String::new())]);
        let news = commits.on_refused(first, |partition| CommitError::Lost { partition });
        assert!(matches!(news[..], [GroupNews::CommitFailed { .. }]), "{news:?}");
        let (second, frame) = commits.take_frame().unwrap();
        assert_eq!(frame, [(partition(1), Offset(6), String::new())]);
        commits.on_done(second);
        assert_eq!(below(&commits.settled()), Some(3));
    }

    #[test]
    fn frames_keep_their_bounds() {
        let mut commits = Commits::default();
        for index in 0..100 {
            commits.add(partition(index), Generation(1), Offset(1), "m".repeat(GROUP_COMMIT_METADATA_BYTES_MAX), None);
        }
        let mut count = 0;
        while let Some((id, frame)) = commits.take_frame() {
            assert!(frame.iter().map(|(_, _, text)| text.len() + OFFSET_BYTES).sum::<usize>() <= FRAME_OFFSETS_BYTES);
            count += frame.len();
            commits.on_done(id);
        }
        assert_eq!(count, 100);
    }
}
