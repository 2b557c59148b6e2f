//! Error codes of the protocol. The number goes over the wire; the text beside it is for people.

/// What a client can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request may succeed later, as it is.
    Later,
    /// Ask for fresh metadata first, then try again.
    Refresh,
    /// The same request will fail again.
    Never,
    /// The connection is of no more use.
    Close,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $retry:ident;)*) => {
        /// Why a request was refused. Numbers are never reused; 0 is "no error" and not in the list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code for a number from the wire; a number of a later version reads as [`ErrorCode::Unknown`].
            #[must_use]
            pub const fn from_wire(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::Unknown,
                }
            }

            /// What the client can do about it.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self {
                    $(Self::$name => Retry::$retry,)*
                }
            }
        }
    };
}

codes! {
    /// A number that this version does not know.
    Unknown = 1, Never;
    /// The frame or its body is malformed.
    Malformed = 2, Close;
    /// The frame is over the limit.
    FrameTooLarge = 3, Close;
    /// The peer speaks no version that we speak.
    UnsupportedVersion = 4, Close;
    /// A frame kind that this version does not know, or that has no place here.
    UnexpectedFrame = 5, Close;
    /// The token is missing or wrong.
    Unauthenticated = 6, Close;
    /// The request is beyond what the session may do.
    Forbidden = 7, Never;
    /// There is no such topic.
    UnknownTopic = 16, Refresh;
    /// The topic has no such partition.
    UnknownPartition = 17, Refresh;
    /// A topic of that name exists already.
    TopicExists = 18, Never;
    /// The name cannot be a topic's.
    InvalidTopicName = 19, Never;
    /// A setting is out of its bounds; the text names both.
    InvalidSetting = 20, Never;
    /// A limit of the broker is reached; the text names it.
    LimitReached = 21, Never;
    /// The record batch is malformed or fails its checksum.
    CorruptBatch = 32, Never;
    /// The record batch is over the limit.
    BatchTooLarge = 33, Never;
    /// A batch of this producer is missing before this one.
    OutOfSequence = 34, Never;
    /// A newer epoch of this producer exists.
    ProducerFenced = 35, Never;
    /// The partition no longer knows this producer: take a new epoch.
    UnknownProducer = 36, Never;
    /// The offset is outside the log; the text names the bounds, and the end of a subscription has them as numbers.
    OffsetOutOfRange = 37, Never;
    /// Bytes on disk are damaged here; the text names the offsets, and the end of a subscription has them as numbers. The
    /// rest of the log is readable.
    CorruptLog = 38, Never;
    /// The topic keeps the newest record of each key, and a record has no key.
    KeyMissing = 39, Never;
    /// A batch of several records, one of which has a message id, in a topic that deduplicates: such a record travels alone.
    SeveralMessageIds = 46, Never;
    /// A budget is used up at the moment; nothing was taken.
    Busy = 48, Later;
    /// The disk is full; nothing was taken.
    StorageFull = 49, Later;
    /// The shard's journal failed, or a home's log never takes what was decided there: neither takes anything until the broker
    /// restarts; what is durable can be read.
    StorageFailed = 50, Never;
    /// The shard is recovering its journal.
    Recovering = 51, Later;
    /// The broker is shutting down.
    ShuttingDown = 52, Later;
    /// The request waited longer than it may.
    TimedOut = 53, Later;
    /// The subscription id is in use on this connection.
    SubscriptionExists = 64, Never;
    /// There is no such subscription on this connection.
    UnknownSubscription = 65, Never;
    /// The topic or partition was deleted while it was in use.
    Deleted = 66, Refresh;
    /// The name cannot be a consumer group's, a static id or a strategy.
    InvalidGroupName = 80, Never;
    /// There is no such consumer group.
    UnknownGroup = 81, Never;
    /// The group does not know this member: join again.
    UnknownMember = 82, Refresh;
    /// The member id cannot be used (again): it is another life's, or another static id's. Join under a fresh one.
    MemberFenced = 83, Refresh;
    /// The generation is older than the partition's assignment, or one that the group never had; nothing was taken.
    StaleGeneration = 84, Refresh;
    /// The partition belongs to another member of the group, or to none.
    NotPartitionOwner = 85, Refresh;
    /// The group has members, or the partition has an owner, and the request needs that it has none.
    GroupInUse = 86, Later;
    /// The group is being drained and assigns nothing.
    GroupDraining = 87, Later;
    /// The members of a group use one strategy; the text names both.
    StrategyMismatch = 88, Never;
    /// The subscription resolves to no topic.
    NothingSubscribed = 89, Never;
    /// The group has no committed offset for the partition, and its reset policy is to say so.
    NoCommittedOffset = 90, Never;
    /// The member was put out of its group because it was silent for longer than its session time-out. It must drop what it
    /// holds and may join again under a fresh member id.
    SessionExpired = 91, Refresh;
    /// The member was put out of its group because it did not give up a partition within its rebalance time-out. As with
    /// [`Self::SessionExpired`].
    RebalanceTimedOut = 92, Refresh;
    /// The member was put out of its group because a newer one joined with its static id, which it must not join with again.
    StaticIdTaken = 93, Never;
    /// The pattern of a subscription is no regular expression, or needs more room than one may; the text says where and why.
    InvalidPattern = 94, Never;
    /// There is no such shared queue.
    UnknownQueue = 112, Never;
    /// The queue does not know this member, or put it out: join again under a new member id.
    UnknownQueueMember = 113, Refresh;
    /// The name is in use as a shared queue, and cannot be a consumer group's too.
    GroupIsQueue = 114, Never;
    /// The name is in use as a consumer group, and cannot be a shared queue's too.
    QueueIsGroup = 115, Never;
    /// The queue has other settings than the ones that were asked for; the text names both.
    QueueSettingsMismatch = 116, Never;
    /// The queue has members, and the request needs that it has none.
    QueueInUse = 117, Later;
    /// The queue has no dead-letter topic, and the request needs one.
    NoDeadLetterTopic = 118, Never;
    /// Dead letters of the queue are being put back already; it takes as long as it takes.
    RedriveRunning = 119, Later;
    /// The text cannot be a transactional id.
    InvalidTransactionalId = 160, Never;
    /// There is no such transactional id, or it has another producer by now: initialise it.
    UnknownTransaction = 161, Never;
    /// The transaction was decided, perhaps by its time-out: nothing more can be done in it.
    TransactionEnded = 162, Never;
    /// The producer has a transaction open and the batch is not of it, or of one where there can be none.
    TransactionMismatch = 163, Never;
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_wire(code.to_wire()), code);
        }
        assert_eq!(ErrorCode::from_wire(0), ErrorCode::Unknown);
        assert_eq!(ErrorCode::from_wire(60_000), ErrorCode::Unknown);
    }
}
