//! Every limit of the product. Limits that depend on each other are asserted at compile time.

use std::time::Duration;

/// Unit of direct I/O: positions and lengths of writes are multiples of it.
pub const BLOCK_BYTES: u64 = 4096;

/// Shards of one broker: byte 0 of a connection id names the shard.
pub const SHARDS_MAX: usize = 256;

/// Topics of one broker.
pub const TOPICS_MAX: usize = 100_000;
/// Bytes of the catalog when it is encoded as one snapshot: a journal entry holds it whole.
pub const CATALOG_BYTES_MAX: u64 = 3 << 20;
/// Partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: u32 = 16_384;
/// Partitions of one broker.
pub const PARTITIONS_MAX: u64 = 200_000;
/// Bytes of a topic's name, as in Kafka.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Bytes of one record batch, head included.
pub const BATCH_BYTES_MAX: u32 = 1 << 20;
/// Records of one batch.
pub const BATCH_RECORDS_MAX: u32 = 65_536;
/// Headers of one record.
pub const RECORD_HEADERS_MAX: usize = 64;
/// Bytes of a batch's values after decompression.
pub const BATCH_VALUES_BYTES_MAX: u32 = 16 << 20;
/// What a batch may cost beyond its records: a frame's room beside the batch.
pub const FRAME_BODY_BYTES_MAX: u32 = 256 << 10;
/// Bytes of one frame after its head: body and attached record batches.
pub const FRAME_BYTES_MAX: u32 = BATCH_BYTES_MAX + FRAME_BODY_BYTES_MAX;
/// Bytes of a bearer token.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Bytes of one journal file.
pub const JOURNAL_FILE_BYTES: u64 = 16 << 20;
/// Journal files of one shard by default.
pub const JOURNAL_FILES_DEFAULT: u32 = 16;
/// Journal files of one shard at least: one written, one being made ready, one settling, one to spare.
pub const JOURNAL_FILES_MIN: u32 = 4;
/// Bytes of one journal entry, head and padding included.
pub const JOURNAL_ENTRY_BYTES_MAX: u64 = 4 << 20;
/// The outcome of an append whose durable end is to follow waits for it so long, so that both leave in one packet.
pub const OUTCOME_HOLD: Duration = Duration::from_micros(500);
/// Rounds whose journal entries may be in flight together.
pub const JOURNAL_FLUSHES_MAX: usize = 4;
/// A round with at least this many bytes is written while others are in flight; a smaller one waits for company.
pub const JOURNAL_FLUSH_EAGER_BYTES: u64 = 64 << 10;
/// While more input is known to wait, the rounds of one burst are gathered into an entry of this many bytes at most.
pub const JOURNAL_GATHER_BYTES: u64 = 4 * JOURNAL_FLUSH_EAGER_BYTES;
/// Syncs of one journal that may be in flight together; what is written meanwhile shares the next.
pub const JOURNAL_SYNCS_MAX: usize = 2;
/// Bytes of a checkpoint that one round carries, one larger item excepted.
pub const JOURNAL_CHECKPOINT_ROUND_BYTES: u64 = 64 << 10;
/// An idle journal writes its closing mark after this time.
pub const JOURNAL_QUIET: Duration = Duration::from_millis(100);
/// A journal file that could not be created is tried again after this time.
pub const JOURNAL_CREATE_RETRY: Duration = Duration::from_secs(1);
/// Bytes of one read of recovery.
pub const JOURNAL_READ_BYTES: u32 = 1 << 20;
/// Reads of one shard's recovery that are in flight or wait to be parsed.
pub const JOURNAL_READS_MAX: usize = 8;
/// Journal files of one shard at most.
pub const JOURNAL_FILES_MAX: u32 = 1024;
/// Damaged places of a journal that a recovery report lists, and damaged batches of one place that it names.
pub const JOURNAL_DAMAGE_MAX: usize = 1024;

/// Bytes of a segment by default.
pub const SEGMENT_BYTES_DEFAULT: u64 = 128 << 20;
/// Bytes of a segment at least.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Bytes of a segment at most.
pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;
/// The longest retention that can be asked for, a hundred years; without a limit ask for none.
pub const TOPIC_RETENTION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// The smallest bound of a partition in bytes: a batch and a segment of the least size fit.
pub const TOPIC_RETENTION_BYTES_MIN: u64 = SEGMENT_BYTES_MIN;
/// The largest bound of a partition in bytes that can be asked for; without a limit ask for none.
pub const TOPIC_RETENTION_BYTES_MAX: u64 = 1 << 50;
/// Payload of one extent at most: settling writes no more at a time.
pub const EXTENT_BYTES_MAX: u64 = 1 << 20;
/// Partitions that one turn of settling makes durable together.
pub const SETTLE_PARTITIONS_MAX: usize = 64;
/// Bytes of record batches that one turn of settling takes.
pub const SETTLE_TURN_BYTES_MAX: u64 = 8 << 20;
/// Record batches that one turn of settling takes while there is no hurry: some 500 µs of the shard's time.
pub const SETTLE_TURN_BATCHES_MAX: usize = 2048;
/// A shard with nothing to do begins a turn of settling so much before its time, so that it does not fall into the next
/// edge of a tick: ticks of down to 40 a second.
pub const SETTLE_EARLY: Duration = Duration::from_millis(25);
/// From this fill of the journal's ring on, in thousandths, settling takes what it needs, whoever feels it.
pub const SETTLE_HURRY_PERMILLE: u64 = 500;
/// Syncs of segments that run at once.
pub const SETTLE_SYNCS_MAX: usize = 8;
/// Settling begins at this fill of the journal's ring, in thousandths, and its pace rises linearly from there.
pub const SETTLE_FILL_MIN_PERMILLE: u64 = 250;
/// Bytes a second that settling takes when the ring is full: more than any disk that we know gives.
pub const SETTLE_PACE_BYTES_MAX: u64 = 4 << 30;
/// How long settling waits after the disk was full or a segment failed, at first and at most.
pub const SETTLE_RETRY_MIN: Duration = Duration::from_millis(50);
/// See [`SETTLE_RETRY_MIN`].
pub const SETTLE_RETRY_MAX: Duration = Duration::from_secs(5);
/// Retention looks at one partition at most this often.
pub const RETENTION_INTERVAL: Duration = Duration::from_millis(100);
/// Partitions that one round looks at for retention.
pub const RETENTION_PARTITIONS_MAX: usize = 256;
/// Deletions of files that are in flight at once.
pub const DELETES_IN_FLIGHT_MAX: usize = 8;
/// Bytes of one change of the catalog.
pub const CATALOG_CHANGE_BYTES_MAX: usize = 256 << 10;
/// Changes of one shard (catalog, log starts, leases) that wait for room in its journal.
pub const CHANGES_WAITING_MAX: usize = 4096;

/// Reads of segments of one shard that are in flight at once.
pub const READS_IN_FLIGHT_MAX: usize = 16;
/// Fetches of one shard that wait for such reads.
pub const READS_WAITING_MAX: usize = 16_384;
/// Reads that go ahead of a sequential reader.
pub const READ_AHEAD_RUNS_MAX: u8 = 4;

/// A pass of compaction begins when this part of a partition's sealed bytes, in thousandths, was seen by none: what is
/// written anew is then at most about as much as what was written.
pub const COMPACT_DIRTY_PERMILLE: u64 = 500;
/// Partitions that compaction looks at in one round.
pub const COMPACT_LOOKS_MAX: usize = 64;
/// Compaction looks for partitions that are due at most this often.
pub const COMPACT_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of batches that compaction works through in one round, one larger batch excepted: half a millisecond of small
/// records.
pub const COMPACT_ROUND_BYTES: u64 = 64 << 10;
/// Compaction waits this long between two rounds of it, so that it takes a small part of a shard: 16 MiB a second.
pub const COMPACT_PAUSE: Duration = Duration::from_millis(4);
/// After a read, a write or a sync of compaction failed, it leaves everything alone for this long.
pub const COMPACT_RETRY: Duration = Duration::from_secs(10);
/// Bytes of memory that compaction counts for each key beside the key.
pub const COMPACT_KEY_COST_BYTES: u64 = 64;

/// Segments of one partition; at the limit the active one grows on.
pub const PARTITION_SEGMENTS_MAX: usize = 65_536;
/// Ranges of damaged offsets that one partition tells apart.
pub const PARTITION_CORRUPT_RANGES_MAX: usize = 256;

/// Producers that one partition remembers.
pub const PARTITION_PRODUCERS_MAX: usize = 1024;
/// Latest batches of a producer that a partition remembers, hence batches that it may have in flight.
pub const PRODUCER_BATCHES_MAX: usize = 64;
/// Transactions that one partition remembers: those that are open, and aborted ones until retention has passed them.
pub const PARTITION_TRANSACTIONS_MAX: usize = 4096;
/// What such a transaction takes of a shard's memory, about: in its partition's log, and while it is open also among what the
/// shard waits to hear a decision about.
pub const PARTITION_TRANSACTION_BYTES: u64 = 128;
/// One part in so many of a shard's memory is for the transactions that its partitions remember.
pub const TRANSACTIONS_MEMORY_PART: u64 = 64;
/// A partition that has to forget producers early keeps those in memory that were heard of within this time: twice as long as
/// the SDK sends a batch again, unless it is told otherwise.
pub const PRODUCER_SPARED: Duration = Duration::from_secs(120);
/// A partition forgets a producer that was silent for this long.
pub const PRODUCER_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Offsets of a memory partition are leased durably in blocks of this many.
pub const OFFSET_LEASE: u64 = 1 << 20;
/// Producer ids are leased to a shard durably in blocks of this many.
pub const PRODUCER_ID_LEASE: u64 = 1024;

/// Message ids of one partition that are remembered when its topic names no count, and the largest count.
pub const DEDUP_COUNT_MAX: u64 = 1 << 20;
/// The longest time for which a topic remembers message ids.
pub const DEDUP_WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// What a remembered message id takes of memory, about.
pub const DEDUP_ID_BYTES: u64 = 96;
/// Bytes of one read while the message ids of a partition are read back, and of all of them in a round.
pub const DEDUP_READ_BYTES: u32 = 256 << 10;
/// See [`DEDUP_READ_BYTES`].
pub const DEDUP_ROUND_BYTES: u64 = 1 << 20;
/// A partition whose message ids did not fit into memory, or could not be read, is tried again after this time.
pub const DEDUP_RETRY: Duration = Duration::from_secs(1);

/// Ring of one memory partition when its topic says nothing.
pub const MEMORY_RING_BYTES_DEFAULT: u64 = 16 << 20;

/// Keys of one partition of class `latest`.
pub const LATEST_KEYS_MAX: usize = 1 << 20;
/// What a record of class `latest` counts against its partition's bound beside its value and twice its key: its place in the
/// map of keys, and a batch of its own.
pub const LATEST_RECORD_COST_BYTES: u64 = 192;

/// Connections of one shard.
pub const SHARD_CONNECTIONS_MAX: usize = 16_384;
/// Subscriptions of one connection.
pub const SESSION_SUBSCRIPTIONS_MAX: usize = 65_536;
/// Subscriptions of one partition, over all connections: each is looked at when the partition's durable end moves.
pub const PARTITION_SUBSCRIPTIONS_MAX: usize = 16_384;
/// Producer ids of one connection that are known to be its client's; more of them are looked at again.
pub const SESSION_PRODUCERS_MAX: usize = 1024;
/// Requests of one connection that wait for an answer.
pub const SESSION_REQUESTS_MAX: usize = 1024;
/// Bytes that one connection may have taken in and not yet passed on.
pub const SESSION_BUDGET_BYTES: u64 = 16 << 20;
/// Streams from one peer at once: a control stream, 64 produce streams, and room for admin calls.
pub const SESSION_STREAMS_MAX: u32 = 256;
/// Produce or push streams of one connection; with more partitions than that they share streams.
pub const SESSION_DATA_STREAMS_MAX: u32 = 64;
/// Partitions of one connection that have a produce stream of their own; with more of them all share
/// [`PRODUCE_STREAMS_SHARED`] streams, and one that has nothing under way may change streams.
pub const PRODUCE_STREAMS_OWN: u32 = SESSION_DATA_STREAMS_MAX;
/// Produce streams that partitions share when there are many.
pub const PRODUCE_STREAMS_SHARED: u8 = 16;
/// Batches of one produce bundle at most.
pub const PRODUCE_BUNDLE_BATCHES_MAX: usize = 1024;
/// A client closes a bundle at so many batches: the broker begins with the first bundle while others are still made, and what
/// a lost packet holds up is no more than this.
pub const PRODUCE_BUNDLE_BATCHES: usize = 64;
/// A client closes a bundle at so many bytes of batches; a batch of more than a quarter of it leaves alone, uncopied.
pub const PRODUCE_BUNDLE_BYTES: usize = 16 << 10;
/// Subscriptions of one push bundle at most.
pub const PUSH_BUNDLE_SUBSCRIPTIONS: usize = 128;
/// Bytes of batches of one push bundle at most; a push of more than a quarter of it leaves alone, uncopied.
pub const PUSH_BUNDLE_BYTES: usize = 16 << 10;
/// Subscriptions that are taken one after another and have no push stream to themselves share one in runs of so many: what
/// they are pushed at the same time leaves in one bundle.
pub const PUSH_STREAM_RUN: u64 = 16;
/// Bytes of credit that a subscription may hold.
pub const SUBSCRIPTION_CREDIT_BYTES_MAX: u64 = 64 << 20;
/// Credit of a subscription that asks for none.
pub const SUBSCRIPTION_CREDIT_BYTES_DEFAULT: u64 = 4 << 20;
/// Bytes that one push frame carries, one larger batch excepted.
pub const PUSH_BYTES: u32 = 256 << 10;

/// Bytes that may wait to be sent on one connection before its subscriptions pause. What was pushed by then stays in
/// memory until the peer takes it, so this bounds what a slow reader costs.
pub const SESSION_SEND_BYTES_MAX: u64 = 16 << 20;

/// Messages between two shards that wait; the channel's capacity.
pub const MESH_MESSAGES_MAX: usize = 8192;

/// A connection that says nothing for this long is closed.
pub const CONNECTION_IDLE: Duration = Duration::from_secs(30);
/// A connection must say hello within this time.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a QUIC packet's UDP payload that every connection begins with: what fits into Ethernet's 1,500 with IPv6 and
/// some room for tunnels.
pub const QUIC_MTU_BYTES: u16 = 1452;
/// Bytes of a QUIC packet's UDP payload that a connection looks for on its path, which loopback and networks with jumbo frames
/// carry: ten such packets, what a client hands over at once, stay below the 65,535 bytes of one transmit.
pub const QUIC_MTU_BYTES_MAX: u16 = 6_500;
/// Bytes that a peer may send on one stream beyond what was read from it.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes that a peer may send on all streams beyond what was read from them.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes that are kept for retransmission until a peer acknowledges them.
pub const CONNECTION_SEND_WINDOW_BYTES: u64 = 8 << 20;
/// The windows of a connection that nothing was sent to yet, in each direction, and the least that later ones may be: room
/// for a hello with the longest token.
pub const CONNECTION_WINDOW_BYTES_MIN: u32 = 16 << 10;
/// One part in so many of a shard's memory is for its connections: what waits to be sent and frames that are not whole.
pub const CONNECTIONS_MEMORY_PART: u64 = 8;
/// The windows of a connection are one part in so many of that share, divided by how many connections there are.
pub const CONNECTION_WINDOW_PART: u64 = 16;
/// A connection whose frames wait may hold this many bytes however many others do; above it only what is left is shared.
pub const CONNECTION_HELD_BYTES_MIN: u64 = 64 << 10;
/// Bytes of frames that wait for a peer's flow control; a connection that would need more is closed.
pub const CONNECTION_QUEUE_BYTES_MAX: usize = 128 << 20;
/// Bytes that are read from one connection in one round, so that no connection fills a round alone.
pub const CONNECTION_ROUND_BYTES: usize = 1 << 20;
/// Handshakes of one shard under way; beyond it a client must first prove its address.
pub const SHARD_HANDSHAKES_MAX: usize = 1024;
/// What was sent before a close must be acknowledged within this time.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Internal partitions that transactional ids are spread over; never changes, or they would lose their home.
pub const TRANSACTION_HOMES: u32 = 64;
/// Partitions and groups of one transaction.
pub const TRANSACTION_PARTICIPANTS_MAX: usize = 1024;
/// A transaction that is not decided within its time-out is aborted; a client may choose no less than this.
pub const TRANSACTION_TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// The time-out of a transaction whose client chooses none.
pub const TRANSACTION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// The longest time-out of a transaction: readers of committed records may wait that long.
pub const TRANSACTION_TIMEOUT_MAX: Duration = Duration::from_secs(900);
/// Transactions that one shard asks about at once, of those that it has open and may have missed the end of.
pub const TRANSACTION_INQUIRIES_MAX: usize = 256;
/// It asks no more of them for this long then.
pub const TRANSACTION_INQUIRY_PAUSE: Duration = Duration::from_millis(10);
/// One that was not answered, or that goes on, is asked about again after this time, and each time after twice as long.
pub const TRANSACTION_INQUIRY_AGAIN_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
pub const TRANSACTION_INQUIRY_AGAIN_MAX: Duration = Duration::from_secs(60);
/// Batches of one transaction that the SDK has on their way; sending waits for room beyond it.
pub const TRANSACTION_BATCHES_IN_FLIGHT: usize = 32;
/// A transactional id that was not used for this long is forgotten.
pub const TRANSACTIONAL_ID_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Answers of one transactional id that wait until what they say is durable.
pub const TRANSACTION_WAITING_MAX: usize = 4096;

/// Internal partitions that consumer groups are spread over; never changes, or groups would lose their home.
pub const GROUP_HOMES: u32 = 64;
/// Bytes of a consumer group's name and of a member's static id.
pub const GROUP_NAME_BYTES_MAX: usize = 249;
/// Members of one consumer group.
pub const GROUP_MEMBERS_MAX: usize = 4096;
/// Topics that one subscription names.
pub const GROUP_SUBSCRIPTION_TOPICS_MAX: usize = 1024;
/// Bytes of a subscription's pattern.
pub const GROUP_PATTERN_BYTES_MAX: usize = 1024;
/// What a member may declare as its capacity; 1 is the least.
pub const GROUP_CAPACITY_MAX: u32 = 1_000_000;
/// A member that is silent for its session time-out has died; it may choose no less than this.
pub const GROUP_SESSION_TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// The session time-out of a member that chooses none.
pub const GROUP_SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest session time-out.
pub const GROUP_SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(1800);
/// A member must give up what was revoked within its rebalance time-out; it may choose no less than this.
pub const GROUP_REBALANCE_TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// The rebalance time-out of a member that chooses none.
pub const GROUP_REBALANCE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// The longest rebalance time-out.
pub const GROUP_REBALANCE_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// A group that balances by response time looks at the reports at most this often.
pub const GROUP_SHIFT_INTERVAL: Duration = Duration::from_secs(10);
/// A partition moves for response time when it then costs less by at least this many thousandths.
pub const GROUP_SHIFT_GAIN_PERMILLE: u64 = 200;
/// Standby members of one partition.
pub const GROUP_STANDBYS_MAX: usize = 3;
/// Partitions of a group that an assignment moves in one round, and members that are told in one: it goes on in the next.
pub const GROUP_STEP_MAX: usize = 32;
/// Rounds for which members are told nothing while an assignment goes on, so that they are not told of each part of it.
pub const GROUP_UNTOLD_ROUNDS_MAX: u32 = 32;
/// Bytes of the metadata of one committed offset.
pub const GROUP_COMMIT_METADATA_BYTES_MAX: usize = 4096;
/// Partitions of one commit.
pub const GROUP_COMMIT_PARTITIONS_MAX: usize = 16_384;
/// Partitions with a committed offset in one group.
pub const GROUP_OFFSETS_MAX: usize = 200_000;
/// Bytes that the old owner of a partition hands over to the new one.
pub const GROUP_HANDOVER_BYTES_MAX: usize = 64 << 10;
/// Bytes of one group that were handed over and not yet taken.
pub const GROUP_HANDOVERS_BYTES_MAX: usize = 16 << 20;
/// Members that were put out of a group and are still told why.
pub const GROUP_FENCED_MAX: usize = 1024;
/// Answers of one group that wait until what they say is durable.
pub const GROUP_WAITING_MAX: usize = 65_536;
/// Committed offsets of a group without members are kept this long when the group says nothing.
pub const GROUP_RETENTION_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The least time that committed offsets of a group without members are kept.
pub const GROUP_RETENTION_MIN: Duration = Duration::from_secs(1);
/// The longest time that committed offsets of a group without members are kept: ten years.
pub const GROUP_RETENTION_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Members of one shared queue.
pub const QUEUE_MEMBERS_MAX: usize = 4096;
/// The least time for which a member has a record of a shared queue.
pub const QUEUE_VISIBILITY_MIN: Duration = Duration::from_millis(50);
/// For how long a member has a record when the queue says nothing.
pub const QUEUE_VISIBILITY_DEFAULT: Duration = Duration::from_secs(30);
/// The longest time for which a member has a record without asking for more.
pub const QUEUE_VISIBILITY_MAX: Duration = Duration::from_secs(12 * 3600);
/// Deliveries of one record before it becomes a dead letter, at most.
pub const QUEUE_DELIVERY_LIMIT_MAX: u32 = 1000;
/// Deliveries of one record are counted up to this number.
pub const QUEUE_DELIVERIES_COUNTED_MAX: u32 = 8191;
/// Steps of a back-off that is a list.
pub const QUEUE_BACKOFF_STEPS_MAX: usize = 32;
/// The longest back-off, the longest delay that a negative acknowledgement may ask for, and how far behind its append a
/// record's delivery time may be.
pub const QUEUE_DELAY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// By how much more a delivery time may be behind the append, since a producer's clock is not the broker's.
pub const QUEUE_DELAY_SLACK: Duration = Duration::from_secs(300);
/// Records of one partition between the first that is not done and the last that may be handed out. While one record is
/// stuck, so many behind it go on.
pub const QUEUE_WINDOW_RECORDS: u64 = 65_536;
/// Bytes of one partition that a queue has asked for or has, and has not handed out.
pub const QUEUE_READ_AHEAD_BYTES: u64 = 1 << 20;
/// The same for one queue with many partitions, each of which gets an equal part.
pub const QUEUE_READS_BYTES: u64 = 16 << 20;
/// But no partition gets less than this.
pub const QUEUE_READ_AHEAD_BYTES_MIN: u64 = 64 << 10;
/// Bytes of batches that a queue keeps in memory for records that members have or will have; each partition has an equal
/// part. What was dropped is read again when it is needed.
pub const QUEUE_HELD_BYTES: u64 = 32 << 20;
/// The part of one partition at least: one batch stays, whatever its size.
pub const QUEUE_HELD_BYTES_MIN: u64 = 2 << 20;
/// The part of one partition at most.
pub const QUEUE_HELD_BYTES_MAX: u64 = 8 << 20;
/// Records that a member may have been sent and not made room for.
pub const QUEUE_CREDIT_RECORDS_MAX: u32 = 65_536;
/// The same in bytes.
pub const QUEUE_CREDIT_BYTES_MAX: u64 = 64 << 20;
/// Records that one member gets before it is the next one's turn, when there are enough for everybody.
pub const QUEUE_TURN_RECORDS: u64 = 64;
/// Lines in which records of one partition wait for their key, by hash: keys of one line wait for each other.
pub const QUEUE_KEY_LINES: usize = 16_384;
/// Bytes of the reason in a negative acknowledgement.
pub const QUEUE_REASON_BYTES_MAX: usize = 256;
/// Bytes of what the client of a consumer group's member says of itself.
pub const GROUP_CLIENT_BYTES_MAX: usize = 256;
/// Bytes of what a member's client says of itself.
pub const QUEUE_CLIENT_BYTES_MAX: usize = 256;
/// Answers of one queue that wait until what they say is durable.
pub const QUEUE_WAITING_MAX: usize = 65_536;
/// Records that one request may name by ranges of leases.
pub const QUEUE_REQUEST_LEASES_MAX: u64 = 1 << 18;
/// Records of one partition that a queue keeps account of at most, while those that may be handed out are fewer.
pub const QUEUE_RING_RECORDS: u64 = 4 * QUEUE_WINDOW_RECORDS;
/// Ranges of leases in one request.
pub const QUEUE_RANGES_MAX: usize = 8192;
/// Dead letters of one queue that are on their way to their topic at once.
pub const QUEUE_DEAD_LETTERS_MAX: usize = 256;
/// A dead letter that could not be appended is tried again after this time.
pub const QUEUE_DEAD_LETTER_RETRY: Duration = Duration::from_secs(1);
/// Dead letters that one step of a redrive puts back at most; a client asks for the next.
pub const QUEUE_REDRIVE_RECORDS: u64 = 1024;
/// A step of a redrive looks for no more dead letters after this time, so that it is answered long before anybody gives up.
pub const QUEUE_REDRIVE_TIME: Duration = Duration::from_secs(1);
/// Frames with verdicts that a member has under way: while they are, what is said gathers for the next, so that a busy member
/// has few of them.
pub const QUEUE_VERDICTS_UNDER_WAY: usize = 2;
/// The same as long as something else was said behind what waits, so that it can gather no more: waiting for answers, two
/// frames for each way there and back, a member that says one thing and another in turn would speak of leases that are over.
pub const QUEUE_VERDICTS_MIXED_UNDER_WAY: usize = 16;
/// Frames with verdicts that all members of one connection have under way; a member beyond it waits for an answer to another.
/// The rest of what may wait for answers on a connection is for everything else.
pub const QUEUE_VERDICTS_CONNECTION_MAX: usize = SESSION_REQUESTS_MAX / 2;
/// Ranges of leases that a member has said something of, and that have not left. What it has in hand can be acknowledged or
/// failed record by record while the broker is away; asking for more time can be said as often again.
pub const QUEUE_VERDICTS_WAITING_MAX: usize = 2 * QUEUE_CREDIT_RECORDS_MAX as usize;
/// Members that were put out of a queue and are still told why.
pub const QUEUE_FENCED_MAX: usize = 1024;

const _: () = {
    // What is kept of a partition in one record: every record of the window has failed, each with an offset (the
    // distances add up to the window, so that few need more than a byte), deliveries (2), first failure (6), rest (5).
    let failed_bytes = QUEUE_WINDOW_RECORDS * (1 + 2 + 6 + 5) + QUEUE_WINDOW_RECORDS / 64;
    assert!(failed_bytes + 4096 <= BATCH_BYTES_MAX as u64);
    assert!(QUEUE_DELIVERY_LIMIT_MAX < QUEUE_DELIVERIES_COUNTED_MAX);
    assert!(QUEUE_DELIVERIES_COUNTED_MAX * 2 + 1 < 1 << 14);
    assert!(QUEUE_READ_AHEAD_BYTES_MIN <= QUEUE_READ_AHEAD_BYTES);
    assert!(QUEUE_READ_AHEAD_BYTES <= QUEUE_READS_BYTES);
    assert!(BATCH_RECORDS_MAX as u64 <= QUEUE_WINDOW_RECORDS);
    assert!(QUEUE_DELAY_MAX.as_millis() < 1 << 35);
    assert!(QUEUE_RANGES_MAX * 20 + 1024 <= FRAME_BODY_BYTES_MAX as usize);
    assert!(QUEUE_MEMBERS_MAX <= u16::MAX as usize);
    assert!(QUEUE_VERDICTS_UNDER_WAY < QUEUE_VERDICTS_MIXED_UNDER_WAY);
    assert!(QUEUE_VERDICTS_MIXED_UNDER_WAY <= QUEUE_VERDICTS_CONNECTION_MAX);
    assert!(QUEUE_VERDICTS_CONNECTION_MAX < SESSION_REQUESTS_MAX);
    assert!(QUEUE_VISIBILITY_MIN.as_nanos() < QUEUE_VISIBILITY_DEFAULT.as_nanos());
    assert!(QUEUE_VISIBILITY_DEFAULT.as_nanos() < QUEUE_VISIBILITY_MAX.as_nanos());
};

const _: () = {
    assert!(GROUP_HANDOVER_BYTES_MAX + 1024 <= BATCH_BYTES_MAX as usize);
    assert!(GROUP_HANDOVER_BYTES_MAX + 1024 <= FRAME_BODY_BYTES_MAX as usize);
    assert!(GROUP_HANDOVER_BYTES_MAX <= GROUP_HANDOVERS_BYTES_MAX);
    assert!(
        GROUP_SUBSCRIPTION_TOPICS_MAX * (TOPIC_NAME_BYTES_MAX + 2) + GROUP_PATTERN_BYTES_MAX + 1024
            <= BATCH_BYTES_MAX as usize
    );
    assert!(GROUP_COMMIT_METADATA_BYTES_MAX + 1024 <= BATCH_BYTES_MAX as usize);
    assert!(PARTITIONS_MAX <= GROUP_OFFSETS_MAX as u64);
    assert!(GROUP_COMMIT_PARTITIONS_MAX <= GROUP_OFFSETS_MAX);
    assert!(GROUP_MEMBERS_MAX < GROUP_WAITING_MAX);
    assert!(GROUP_SHIFT_GAIN_PERMILLE < 1000);
    assert!(GROUP_SESSION_TIMEOUT_MIN.as_nanos() < GROUP_SESSION_TIMEOUT_DEFAULT.as_nanos());
    assert!(GROUP_SESSION_TIMEOUT_DEFAULT.as_nanos() < GROUP_SESSION_TIMEOUT_MAX.as_nanos());
    assert!(GROUP_REBALANCE_TIMEOUT_MIN.as_nanos() < GROUP_REBALANCE_TIMEOUT_DEFAULT.as_nanos());
    assert!(GROUP_REBALANCE_TIMEOUT_DEFAULT.as_nanos() < GROUP_REBALANCE_TIMEOUT_MAX.as_nanos());
    assert!(GROUP_RETENTION_MIN.as_nanos() < GROUP_RETENTION_DEFAULT.as_nanos());
    assert!(GROUP_RETENTION_DEFAULT.as_nanos() < GROUP_RETENTION_MAX.as_nanos());
};

const _: () = {
    // Users fill three quarters of an entry at most.
    assert!(BATCH_BYTES_MAX as u64 + BLOCK_BYTES <= JOURNAL_ENTRY_BYTES_MAX / 4 * 3);
    assert!(JOURNAL_ENTRY_BYTES_MAX * 2 <= JOURNAL_FILE_BYTES);
    assert!(CATALOG_BYTES_MAX + BLOCK_BYTES <= JOURNAL_ENTRY_BYTES_MAX);
    assert!(JOURNAL_FILES_MIN <= JOURNAL_FILES_DEFAULT);
    assert!(JOURNAL_FILES_DEFAULT <= JOURNAL_FILES_MAX);
    assert!(JOURNAL_FLUSH_EAGER_BYTES < JOURNAL_ENTRY_BYTES_MAX);
    assert!(2 * JOURNAL_GATHER_BYTES <= JOURNAL_ENTRY_BYTES_MAX);
    assert!(
        JOURNAL_ENTRY_BYTES_MAX + JOURNAL_READ_BYTES as u64 <= JOURNAL_READ_BYTES as u64 * JOURNAL_READS_MAX as u64
    );
    assert!(BATCH_BYTES_MAX as u64 <= TOPIC_RETENTION_BYTES_MIN);
    assert!(BATCH_BYTES_MAX as u64 <= EXTENT_BYTES_MAX);
    assert!(EXTENT_BYTES_MAX <= SEGMENT_BYTES_MIN);
    assert!(0 < COMPACT_DIRTY_PERMILLE && COMPACT_DIRTY_PERMILLE <= 1000);
    assert!(BATCH_BYTES_MAX < BATCH_VALUES_BYTES_MAX);
    assert!(PUSH_BYTES <= FRAME_BYTES_MAX);
    assert!((FRAME_BYTES_MAX as u64) < SESSION_BUDGET_BYTES);
    assert!((FRAME_BYTES_MAX as u64) < SESSION_SEND_BYTES_MAX);
    assert!(SESSION_DATA_STREAMS_MAX < SESSION_STREAMS_MAX);
    assert!(PRODUCE_STREAMS_OWN <= SESSION_DATA_STREAMS_MAX);
    assert!(PRODUCE_STREAMS_SHARED as u32 <= SESSION_DATA_STREAMS_MAX);
    assert!(PRODUCE_BUNDLE_BATCHES <= PRODUCE_BUNDLE_BATCHES_MAX);
    assert!(TRANSACTION_BATCHES_IN_FLIGHT <= PRODUCER_BATCHES_MAX);
    assert!(PRODUCE_BUNDLE_BATCHES_MAX * 24 + 64 <= FRAME_BODY_BYTES_MAX as usize);
    assert!(PRODUCE_BUNDLE_BYTES <= BATCH_BYTES_MAX as usize);
    assert!(PUSH_BUNDLE_BYTES <= PUSH_BYTES as usize);
    assert!(PUSH_BUNDLE_SUBSCRIPTIONS * 20 + 64 <= FRAME_BODY_BYTES_MAX as usize);
    assert!(FRAME_BYTES_MAX <= STREAM_WINDOW_BYTES);
    assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
    assert!(CONNECTION_WINDOW_BYTES as u64 <= SESSION_BUDGET_BYTES);
    assert!(2 * TOKEN_BYTES_MAX < CONNECTION_WINDOW_BYTES_MIN as usize);
    assert!(CONNECTION_WINDOW_BYTES_MIN < CONNECTION_WINDOW_BYTES);
    assert!(CONNECTION_HELD_BYTES_MIN < SESSION_SEND_BYTES_MAX);
    assert!(SUBSCRIPTION_CREDIT_BYTES_MAX < CONNECTION_QUEUE_BYTES_MAX as u64);
    assert!((DEDUP_READ_BYTES as u64) < DEDUP_ROUND_BYTES);
    assert!(BLOCK_BYTES.is_power_of_two());
};
