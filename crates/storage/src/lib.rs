//! Log and journal effects turned into file effects: cache, settling, extents, file names.
mod file;
pub use file::{FileDone, FileEffect, FileError, FileName, FileOp, FileOutcome, IoId, Urgency};
