//! Reading: the broker pushes within the bytes of credit that a subscription holds.

use corelane_model::{Offset, StartAt, WallMillis};

use crate::body::body;

/// A start position on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct Start {
    /// 0 earliest, 1 latest, 2 offset, 3 time.
    pub kind: u8,
    /// The offset, or the milliseconds since the Unix epoch as their two's complement; else 0.
    pub value: u64,
}

impl From<StartAt> for Start {
    fn from(start: StartAt) -> Self {
        match start {
            StartAt::Earliest => Self { kind: 0, value: 0 },
            StartAt::Latest => Self { kind: 1, value: 0 },
            StartAt::Offset(offset) => Self { kind: 2, value: offset.0 },
            StartAt::Time(moment) => Self { kind: 3, value: moment.0.cast_unsigned() },
        }
    }
}

impl Start {
    /// The position in the words of the model; `None` when its kind is of another version.
    #[must_use]
    pub const fn to_model(self) -> Option<StartAt> {
        match self.kind {
            0 => Some(StartAt::Earliest),
            1 => Some(StartAt::Latest),
            2 => Some(StartAt::Offset(Offset(self.value))),
            3 => Some(StartAt::Time(WallMillis(self.value.cast_signed()))),
            _ => None,
        }
    }
}

body! {
    /// Subscribes to one partition.
    Subscribe (Subscribe, 1) {
        /// Chosen by the client, unique on its connection.
        subscription: u64,
        /// The topic.
        topic: u64,
        /// The partition.
        partition: u32,
        /// Where to start.
        start: Start,
        /// Bytes of record batches that may be pushed before more credit comes.
        credit: u64,
    }

    /// Answers [`Subscribe`]; pushes follow on a push stream.
    SubscribeAnswer (SubscribeAnswer, 1) {
        /// The first offset that will be pushed.
        offset: u64,
        /// Log start offset at that moment.
        log_start: u64,
        /// High watermark at that moment.
        high_watermark: u64,
    }

    /// Adds to a subscription's credit.
    Credit (Credit, 1) {
        /// The subscription.
        subscription: u64,
        /// More bytes.
        bytes: u64,
    }

    /// Ends a subscription; what is under way still arrives. There is no answer.
    Unsubscribe (Unsubscribe, 1) {
        /// The subscription.
        subscription: u64,
    }

    /// Record batches of one subscription, whole and in order; they are the attachment, one after another. The first
    /// may begin before the offset that was asked for: the reader skips records.
    Push (Push, 1) {
        /// The subscription.
        subscription: u64,
        /// High watermark when the frame was made: the lag is its distance to the last record.
        high_watermark: u64,
    }

    /// What several [`Push`] frames of one stream would carry: a bundle. The columns are as long as each other, not empty, and
    /// the lengths add up to the attachment; anything else is malformed. A subscription may come more than once.
    PushMany (PushMany, 1) {
        /// The subscription of each part.
        subscriptions: Vec<u64>,
        /// Its high watermark when the frame was made.
        high_watermarks: Vec<u64>,
        /// The bytes of its record batches in the attachment.
        lengths: Vec<u32>,
    }

    /// A subscription that had been taken ended by itself. It comes on the subscription's push stream, after everything
    /// that was pushed.
    SubscriptionEnded (SubscriptionEnded, 1) {
        /// The subscription.
        subscription: u64,
        /// A [`corelane_model::ErrorCode`].
        code: u16,
        /// First offset and exclusive end: for `CorruptLog` of the damaged records, for `OffsetOutOfRange` of the log, that
        /// is log start offset and high watermark.
        range: Option<(u64, u64)>,
        /// What happened and what to do.
        text: String,
    }
}
