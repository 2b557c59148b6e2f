//! Why bytes are not a record batch, and why a record does not go into one.

use crate::Compression;

/// Why bytes are not a record batch that this version accepts. The same bytes will be refused again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a head, or than the head announces.
    #[error("record batch of {needed} bytes is cut off after {len} bytes")]
    Truncated {
        /// The bytes that are there.
        len: usize,
        /// The bytes that the batch needs; of the head alone when that is not whole.
        needed: usize,
    },
    /// More bytes than the head announces.
    #[error("record batch of {needed} bytes is followed by {excess} bytes that do not belong to it")]
    Excess {
        /// The bytes that the head announces, itself included.
        needed: usize,
        /// The bytes beyond.
        excess: usize,
    },
    /// The first four bytes are not a record batch's.
    #[error("{found:#010x} is not the magic number of a record batch")]
    Magic {
        /// What stands there.
        found: u32,
    },
    /// The head fails its checksum.
    #[error("head of a record batch has checksum {computed:#010x}, but says {stated:#010x}")]
    HeadChecksum {
        /// What the head says.
        stated: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A version of the head that this build does not know.
    #[error("record batch is of version {found}, this build reads version {known}")]
    Version {
        /// What the head says.
        found: u8,
        /// What this build reads.
        known: u8,
    },
    /// A codec of the payload that this build does not accept.
    #[error("record batch has codec {found}, this build reads codec {known}")]
    Codec {
        /// What the head says.
        found: u8,
        /// What this build reads.
        known: u8,
    },
    /// A flag that this build does not know, or that has no place here.
    #[error("record batch has flags {found:#06x}, accepted here are {accepted:#06x}")]
    Flags {
        /// What the head says.
        found: u16,
        /// What is accepted.
        accepted: u16,
    },
    /// A batch of a transaction without a producer.
    #[error("record batch is of a transaction, but names no producer")]
    NobodysTransaction,
    /// A reserved field of the head is not zero.
    #[error("reserved bytes in the head of a record batch are not zero")]
    Reserved,
    /// Over [`corelane_model::limits::BATCH_BYTES_MAX`].
    #[error("record batch of {len} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Bytes of head and payload.
        len: u64,
        /// The limit.
        limit: u32,
    },
    /// Offsets go back, or are not those of the span.
    #[error("offsets of a record batch do not go up from 0 to the end of its span of {span}")]
    Offsets {
        /// What the head says.
        span: u32,
    },
    /// No record, or over [`corelane_model::limits::BATCH_RECORDS_MAX`].
    #[error("record batch of {count} records is outside 1 to {limit} records")]
    RecordCount {
        /// What the head says.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// Fewer offsets than records, or holes where none may be.
    #[error("record batch of {count} records spans {span} offsets")]
    OffsetSpan {
        /// Offsets that the batch takes.
        span: u32,
        /// Its records.
        count: u32,
    },
    /// The payload fails its checksum.
    #[error("payload of a record batch has checksum {computed:#010x}, but the head says {stated:#010x}")]
    PayloadChecksum {
        /// What the head says.
        stated: u32,
        /// What the payload gives.
        computed: u32,
    },
    /// The payload is not an archive of columns.
    #[error("payload of a record batch is malformed")]
    Archive,
    /// The number column does not have what head and flags call for.
    #[error("number column of a record batch has {found} entries, {count} records call for {needed}")]
    ColumnLength {
        /// Entries that are there.
        found: usize,
        /// Entries that must be there.
        needed: usize,
        /// Records that the head announces.
        count: u32,
    },
    /// The ends of a column go back, stand over a null, or do not meet the column's length.
    #[error("{column} ends of a record batch do not fit its {len} bytes")]
    Ends {
        /// Which column.
        column: &'static str,
        /// Bytes of that column.
        len: usize,
    },
    /// Keys or headers although the flags say that there are none.
    #[error("record batch has {len} bytes of {column} that its flags deny")]
    Unannounced {
        /// Which column.
        column: &'static str,
        /// Bytes of that column.
        len: usize,
    },
    /// No record has the head's max timestamp, or one lies outside 64 bits.
    #[error("timestamps of a record batch do not fit the head's max timestamp")]
    Timestamps,
    /// A record's headers cannot be read.
    #[error("headers of record {record} of a record batch are malformed")]
    Headers {
        /// Its place in the batch.
        record: u32,
    },
    /// Over [`corelane_model::limits::RECORD_HEADERS_MAX`].
    #[error("record {record} of a record batch has more than {limit} headers")]
    HeaderCount {
        /// Its place in the batch.
        record: u32,
        /// The limit.
        limit: usize,
    },
    /// Values over [`corelane_model::limits::BATCH_VALUES_BYTES_MAX`] after decompression.
    #[error("values of {len} bytes are over the limit of {limit} bytes")]
    ValuesTooLarge {
        /// Bytes after decompression.
        len: u64,
        /// The limit.
        limit: u32,
    },
    /// The values do not decompress to what their ends say. Found by readers only: a broker does not decompress.
    #[error("{compression:?} values of a record batch do not decompress to the {len} bytes that their ends call for")]
    Decompress {
        /// How they are compressed.
        compression: Compression,
        /// Bytes that must come out.
        len: usize,
    },
}

/// Why a record does not go into a batch. The batch is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// It goes into the next batch: finish this one and push it again.
    #[error("the record batch is full")]
    Full,
    /// It goes into no batch.
    #[error("record of {len} bytes makes a batch over the limit of {limit} bytes")]
    RecordTooLarge {
        /// Bytes of a batch of this record alone.
        len: u64,
        /// The limit.
        limit: u32,
    },
    /// Over [`corelane_model::limits::RECORD_HEADERS_MAX`].
    #[error("record with {count} headers is over the limit of {limit} headers")]
    TooManyHeaders {
        /// Its headers.
        count: usize,
        /// The limit.
        limit: usize,
    },
}
