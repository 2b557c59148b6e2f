//! Order per key: records of one key stand in a line, by the hash of the key.

use corelane_model::limits::QUEUE_KEY_LINES;

/// The last record that was read of each line. Who stands behind whom is in the slots.
#[derive(Clone, Debug)]
pub(crate) struct KeyLines {
    /// One more than the offset; 0 is nobody.
    last: Box<[u64]>,
}

impl KeyLines {
    pub(crate) fn new() -> Self {
        Self { last: vec![0; QUEUE_KEY_LINES].into_boxed_slice() }
    }

    /// Puts a record at the end of its line. Who stood there before, if anybody.
    pub(crate) fn join(&mut self, key: u32, offset: u64) -> Option<u64> {
        let line = &mut self.last[key as usize % QUEUE_KEY_LINES];
        std::mem::replace(line, offset + 1).checked_sub(1)
    }
}
