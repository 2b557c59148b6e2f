//! Kinds of frames. An answer to a request is its kind plus one, unless it says otherwise.

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// What a frame is. Numbers are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum FrameKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl FrameKind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kind for a number from the wire, if this version knows it.
            #[must_use]
            pub const fn from_wire(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Client, control stream: the first frame.
    Hello = 1;
    /// Broker, control stream: the answer to hello.
    Welcome = 2;
    /// Broker, control stream: it shuts down; send nothing new, reconnect later.
    Goaway = 3;
    /// Broker, control stream: the answer to any request that is refused as a whole.
    Refusal = 4;
    /// Either side, control stream.
    Ping = 6;
    /// The answer to ping.
    Pong = 7;
    /// Client: which topics and partitions there are and who owns them.
    Metadata = 16;
    /// Answer.
    MetadataAnswer = 17;
    /// Client: create a topic.
    CreateTopic = 18;
    /// Answer.
    CreateTopicAnswer = 19;
    /// Client: change a topic.
    AlterTopic = 20;
    /// Answer.
    AlterTopicAnswer = 21;
    /// Client: delete a topic. Answered by [`FrameKind::TopicDone`].
    DeleteTopic = 22;
    /// Client: raise the log start of a partition. Answered by [`FrameKind::TopicDone`].
    TruncatePartition = 24;
    /// Answer to delete and truncate.
    TopicDone = 25;
    /// Client: settings and partitions of a topic in full.
    DescribeTopic = 26;
    /// Answer.
    DescribeTopicAnswer = 27;
    /// Client: a producer id.
    RequestProducerId = 28;
    /// Answer.
    ProducerIdAnswer = 29;
    /// Client: the offset for a start position.
    FindOffset = 30;
    /// Answer.
    FindOffsetAnswer = 31;
    /// Client, a produce stream: one record batch for one partition.
    Produce = 64;
    /// Broker, control stream: the outcomes of produce frames, many in one frame.
    ProduceAnswers = 65;
    /// Broker, control stream: durable ends of partitions that this connection produced to.
    DurableEnds = 66;
    /// Broker, control stream: a shard's journal failed; what was not reported durable may be lost.
    StorageStopped = 67;
    /// Client, a produce stream: record batches for several partitions, a bundle.
    ProduceMany = 68;
    /// Client, control stream: push a partition's batches.
    Subscribe = 80;
    /// Answer.
    SubscribeAnswer = 81;
    /// Client, control stream: more bytes may be pushed.
    Credit = 82;
    /// Client, control stream: push no more.
    Unsubscribe = 83;
    /// Broker, a push stream: record batches of one subscription.
    Push = 84;
    /// Broker, control stream: a subscription ended by itself.
    SubscriptionEnded = 85;
    /// Broker, a push stream: record batches of several subscriptions, a bundle.
    PushMany = 86;
    /// Client: a member joins a consumer group.
    JoinGroup = 96;
    /// Answer.
    JoinGroupAnswer = 97;
    /// Client: a member is alive. Answered by [`FrameKind::GroupDone`].
    GroupHeartbeat = 98;
    /// Client: a member gives up a partition. Answered by [`FrameKind::GroupDone`].
    GiveUp = 99;
    /// Client: a member leaves. Answered by [`FrameKind::GroupDone`].
    LeaveGroup = 100;
    /// Client: a member commits offsets. Answered by [`FrameKind::GroupDone`].
    CommitOffsets = 101;
    /// Answer to every request for a group that asks for nothing else.
    GroupDone = 102;
    /// Broker, control stream: what a member has.
    GroupAssignment = 103;
    /// Broker, control stream: what the old owner of a partition left for the new one.
    HandOver = 104;
    /// Broker, control stream: a member is no longer in its group.
    MemberFenced = 105;
    /// Client: which groups there are.
    ListGroups = 112;
    /// Answer.
    ListGroupsAnswer = 113;
    /// Client: a group in full.
    DescribeGroup = 114;
    /// Answer.
    DescribeGroupAnswer = 115;
    /// Client: committed offsets of a group.
    FetchOffsets = 116;
    /// Answer.
    FetchOffsetsAnswer = 117;
    /// Client: put committed offsets elsewhere. Answered by [`FrameKind::GroupDone`].
    ResetOffsets = 118;
    /// Client: change a group's settings. Answered by [`FrameKind::GroupDone`].
    AlterGroup = 119;
    /// Client: ask everything back. Answered by [`FrameKind::GroupDone`].
    DrainGroup = 120;
    /// Client: assign again. Answered by [`FrameKind::GroupDone`].
    ResumeGroup = 121;
    /// Client: delete a group. Answered by [`FrameKind::GroupDone`].
    DeleteGroup = 122;
    /// Client: remove a static member. Answered by [`FrameKind::GroupDone`].
    RemoveStaticMember = 123;
    /// Client: a member joins a shared queue.
    JoinQueue = 128;
    /// Answer.
    JoinQueueAnswer = 129;
    /// Client: more may be sent to a member of a queue.
    QueueCredit = 130;
    /// Broker, a push stream: records leased to a member.
    QueueDeliver = 131;
    /// Client: records are done. Answered by [`FrameKind::LeasesAnswer`].
    QueueAck = 132;
    /// Client: records failed. Answered by [`FrameKind::LeasesAnswer`].
    QueueNack = 133;
    /// Client: a member needs longer. Answered by [`FrameKind::LeasesAnswer`].
    QueueExtend = 134;
    /// Answer to whatever is said about leases.
    LeasesAnswer = 135;
    /// Client: a member leaves. Answered by [`FrameKind::QueueDone`].
    LeaveQueue = 136;
    /// Answer to every request for a queue that asks for nothing else.
    QueueDone = 137;
    /// Broker, control stream: a member is no longer in its queue.
    QueueFenced = 138;
    /// Client: which shared queues there are.
    ListQueues = 144;
    /// Answer.
    ListQueuesAnswer = 145;
    /// Client: a queue in full.
    DescribeQueue = 146;
    /// Answer.
    DescribeQueueAnswer = 147;
    /// Client: change a queue's settings. Answered by [`FrameKind::QueueDone`].
    AlterQueue = 148;
    /// Client: some dead letters back into their topic. Answered by [`FrameKind::QueueRedriven`].
    RedriveQueue = 149;
    /// Client: delete a queue. Answered by [`FrameKind::QueueDone`].
    DeleteQueue = 150;
    /// Answer to [`FrameKind::RedriveQueue`].
    QueueRedriven = 151;
    /// Client: take a transactional id over.
    InitialiseTransactions = 160;
    /// Answer.
    InitialiseTransactionsAnswer = 161;
    /// Client: stage offsets within a transaction.
    StageOffsets = 162;
    /// Answer.
    StageOffsetsAnswer = 163;
    /// Client: commit or abort a transaction.
    EndTransaction = 164;
    /// Answer.
    EndTransactionAnswer = 165;
    /// Client, control stream: push a partition's committed records. Answered by [`FrameKind::SubscribeAnswer`].
    SubscribeCommitted = 166;
    /// Broker, a push stream: records of a subscription were left out.
    Passed = 168;
}

impl FrameKind {
    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        self as u16
    }
}
