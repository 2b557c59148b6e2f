//! One partition's log: append, durable end, fetch plan, settling, retention, duplicate detection.
//!
//! [`CommitLog`] decides and does no I/O: it says which offset a batch gets and whether it was seen before, which bytes
//! answer a read, which go into a segment next and which segments may go. It knows neither the journal nor any file;
//! positions in the journal and segments are numbers to it. What it must remember over a restart is [`LogState`].
//!
//! ```text
//!   log start        settled end          durable end       attached end     log end
//!       │  segments       │  cache, on disk    │  cache, under  │  stamped, not  │
//!       │  (and perhaps a │  in the journal    │  way to disk   │  yet copied    │
//!       └─────────────────┴────────────────────┴────────────────┴────────────────┘
//! ```

mod append;
mod cache;
mod compaction;
mod corrupt;
mod error;
mod fetch;
mod ids;
mod latest;
mod log;
mod producers;
mod recovery;
mod retention;
mod segment;
mod settle;
mod state;
mod stats;
mod transactions;
mod varint;

pub use append::Append;
pub use compaction::{CompactionPlan, CompactionResult};
pub use corrupt::CorruptRange;
pub use error::{AppendError, ReplayError, StateError, TruncateError};
pub use fetch::{Fetch, TimeLookup};
pub use ids::{IdRange, IdState};
pub use log::CommitLog;
pub use producers::ProducerTable;
pub use recovery::Shutdown;
pub use retention::Retention;
pub(crate) use segment::SEGMENT_FILE_BYTES_MAX;
pub use segment::{Segment, SegmentName};
pub use settle::{SegmentChoice, Settle, Settled};
pub use state::{LogState, OFFSET_MAX};
pub use stats::LogStats;
pub use transactions::{TransactionEnd, Transactions};
