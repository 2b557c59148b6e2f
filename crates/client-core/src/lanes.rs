//! Which produce stream a batch takes, and bundles of batches that leave on one stream together.
//!
//! A frame for each batch costs client and broker some microseconds; of a thousand partitions that each get one record on
//! the same edge of a tick that is most of the tick. So what leaves in one round on one stream leaves in one frame.

use bytes::Bytes;
use corelane_model::limits::{
    PRODUCE_BUNDLE_BATCHES, PRODUCE_BUNDLE_BYTES, PRODUCE_STREAMS_OWN, PRODUCE_STREAMS_SHARED,
};
use corelane_model::{Acks, CorrelationId, PartitionId};
use corelane_wire::{OutFrame, Produce, ProduceMany, encode_with};

/// A batch of at least so many bytes leaves alone: copying it into a bundle would cost more than a frame of its own.
const ALONE_BYTES: usize = PRODUCE_BUNDLE_BYTES / 4;

/// The bytes of a sealed batch.
#[derive(Debug)]
pub(crate) enum SealedBytes {
    /// It is copied into a bundle whenever it leaves: nobody else holds its memory.
    Own(Vec<u8>),
    /// It leaves alone, uncopied.
    Shared(Bytes),
}

impl From<Vec<u8>> for SealedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() < ALONE_BYTES { Self::Own(bytes) } else { Self::Shared(Bytes::from(bytes)) }
    }
}

impl std::ops::Deref for SealedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// A batch on its way to a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parcel<'a> {
    pub(crate) partition: PartitionId,
    pub(crate) acks: Acks,
    pub(crate) correlation: CorrelationId,
    pub(crate) bytes: &'a SealedBytes,
}

/// The produce streams of one connection.
///
/// While few partitions use the connection each has a stream of its own, so that a lost packet holds up one of them only.
/// When there are more than that, all share a few streams, and whatever may choose takes the one that is filled at the
/// moment. A partition may choose when it has nothing under way: else its batches could overtake each other.
#[derive(Debug)]
pub(crate) struct Lanes {
    own_max: u32,
    /// Partitions that came so far, up to one more than can have a stream of their own.
    partitions: u32,
    /// The stream for those that may choose.
    shared: u8,
    bundles: Vec<Bundle>,
    /// Streams with a bundle that has not left, in the order in which they were begun.
    open: Vec<u8>,
}

/// What has gathered for one stream in this round.
#[derive(Debug)]
struct Bundle {
    columns: ProduceMany,
    /// The batches in one run of bytes: a stream goes through a list of pieces again and again.
    attachment: Vec<u8>,
    /// Bytes of the last bundle, as a guess at the next one's.
    bytes_before: usize,
}

impl Lanes {
    pub(crate) fn new(own_max: u32) -> Self {
        Self {
            own_max: own_max.min(PRODUCE_STREAMS_OWN),
            partitions: 0,
            shared: 0,
            bundles: Vec::new(),
            open: Vec::new(),
        }
    }

    /// The stream for a partition's next batch. `known` is the one that it had last on this connection; `is_free` says
    /// that nothing of it is under way.
    pub(crate) fn choose(&mut self, known: Option<u8>, is_free: bool) -> u8 {
        let Some(known) = known else {
            assert!(is_free, "what is under way has a stream");
            if self.own_max <= self.partitions {
                self.partitions = self.own_max + 1;
                return self.shared;
            }
            self.partitions += 1;
            return u8::try_from(self.partitions - 1).expect("there are fewer than 256 data streams");
        };
        if is_free && self.own_max < self.partitions { self.shared } else { known }
    }

    /// Puts a batch behind what has gathered for a stream; frames that leave at once go to `send`, in order.
    pub(crate) fn push(&mut self, stream: u8, parcel: Parcel<'_>, mut send: impl FnMut(u8, OutFrame)) {
        let slot = usize::from(stream);
        while self.bundles.len() <= slot {
            self.bundles.push(Bundle::new());
        }
        let acks = acks_to_wire(parcel.acks);
        let bundle = &self.bundles[slot];
        let is_alone = matches!(parcel.bytes, SealedBytes::Shared(_));
        if 0 < bundle.len() && (is_alone || bundle.columns.acks != acks) {
            self.close(stream, &mut send);
        }
        if let Parcel { partition, correlation, bytes: SealedBytes::Shared(bytes), .. } = parcel {
            let body = Produce { topic: partition.topic.0, partition: partition.index.0, acks };
            return send(stream, encode_with(correlation, &body, vec![bytes.clone()]));
        }
        let bundle = &mut self.bundles[slot];
        if bundle.len() == 0 {
            self.open.push(stream);
        }
        bundle.push(acks, parcel);
        // Closed as soon as another batch might not fit, so that whoever may choose takes the next stream.
        if PRODUCE_BUNDLE_BATCHES <= bundle.len() || PRODUCE_BUNDLE_BYTES < bundle.attachment.len() + ALONE_BYTES {
            self.close(stream, &mut send);
        }
    }

    /// Lets everything leave that has gathered.
    pub(crate) fn flush(&mut self, mut send: impl FnMut(u8, OutFrame)) {
        while let Some(&stream) = self.open.first() {
            self.close(stream, &mut send);
        }
    }

    fn close(&mut self, stream: u8, send: &mut impl FnMut(u8, OutFrame)) {
        self.open.retain(|&open| open != stream);
        send(stream, self.bundles[usize::from(stream)].close());
        if stream == self.shared && self.own_max < self.partitions {
            self.shared = (self.shared + 1) % PRODUCE_STREAMS_SHARED;
        }
    }
}

impl Bundle {
    const fn new() -> Self {
        let columns = ProduceMany {
            acks: 0,
            topics: Vec::new(),
            partitions: Vec::new(),
            lengths: Vec::new(),
            correlations: Vec::new(),
        };
        Self { columns, attachment: Vec::new(), bytes_before: 0 }
    }

    const fn len(&self) -> usize {
        self.columns.correlations.len()
    }

    fn push(&mut self, acks: u8, parcel: Parcel<'_>) {
        self.columns.acks = acks;
        self.columns.topics.push(parcel.partition.topic.0);
        self.columns.partitions.push(parcel.partition.index.0);
        self.columns.lengths.push(u32::try_from(parcel.bytes.len()).expect("a batch has a limit of bytes"));
        self.columns.correlations.push(parcel.correlation.0);
        if self.attachment.is_empty() {
            self.attachment.reserve_exact(self.bytes_before.max(parcel.bytes.len()));
        }
        self.attachment.extend_from_slice(parcel.bytes);
    }

    /// The frame; the bundle is empty afterwards.
    fn close(&mut self) -> OutFrame {
        let ProduceMany { acks, topics, partitions, correlations, .. } = &self.columns;
        self.bytes_before = self.attachment.len();
        let attachment = vec![Bytes::from(std::mem::take(&mut self.attachment))];
        let frame = if let ([topic], [partition], [correlation]) = (&topics[..], &partitions[..], &correlations[..]) {
            let body = Produce { topic: *topic, partition: *partition, acks: *acks };
            encode_with(CorrelationId(*correlation), &body, attachment)
        } else {
            encode_with(CorrelationId(0), &self.columns, attachment)
        };
        let ProduceMany { topics, partitions, lengths, correlations, .. } = &mut self.columns;
        topics.clear();
        partitions.clear();
        lengths.clear();
        correlations.clear();
        frame
    }
}

const fn acks_to_wire(acks: Acks) -> u8 {
    match acks {
        Acks::Received => 0,
        Acks::Stored => 1,
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{PartitionIndex, TopicId};

    use super::*;

    fn parcel(index: u32, bytes: &SealedBytes) -> Parcel<'_> {
        Parcel {
            partition: PartitionId::new(TopicId(1), PartitionIndex(index)),
            acks: Acks::Stored,
            correlation: CorrelationId(u64::from(index)),
            bytes,
        }
    }

    /// Streams and batches of the frames that pushing so many batches of `bytes` and a flush give.
    fn frames(lanes: &mut Lanes, batches: u32, bytes: usize) -> Vec<(u8, usize)> {
        let mut sent = Vec::new();
        let mut send = |stream: u8, frame: OutFrame| {
            let attached = frame.attachment.iter().map(Bytes::len).sum::<usize>();
            sent.push((stream, attached / bytes));
        };
        for index in 0..batches {
            let stream = lanes.choose(None, true);
            lanes.push(stream, parcel(index, &SealedBytes::from(vec![7; bytes])), &mut send);
        }
        lanes.flush(&mut send);
        sent
    }

    #[test]
    fn few_partitions_have_streams_of_their_own() {
        assert_eq!(frames(&mut Lanes::new(3), 3, 100), [(0, 1), (1, 1), (2, 1)]);
    }

    #[test]
    fn many_leave_in_bundles_on_stream_after_stream() {
        assert_eq!(frames(&mut Lanes::new(0), 150, 100), [(0, 64), (1, 64), (2, 22)]);
        assert_eq!(frames(&mut Lanes::new(0), 12, 3_000), [(0, 5), (1, 5), (2, 2)]);
    }

    #[test]
    fn a_large_batch_leaves_alone() {
        assert_eq!(frames(&mut Lanes::new(0), 2, ALONE_BYTES), [(0, 1), (0, 1)]);
    }

    #[test]
    fn what_is_under_way_stays_where_it_is() {
        let mut lanes = Lanes::new(1);
        assert_eq!(lanes.choose(None, true), 0);
        assert_eq!(lanes.choose(Some(0), true), 0, "there is no crowd");
        lanes.choose(None, true);
        lanes.shared = 5;
        assert_eq!(lanes.choose(Some(0), false), 0);
        assert_eq!(lanes.choose(Some(0), true), 5);
    }
}
