//! What a session counts.

/// Counters of one connection; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Frames that came in.
    pub frames: u64,
    /// Requests that were refused with a code, produce frames included.
    pub refusals: u64,
}
