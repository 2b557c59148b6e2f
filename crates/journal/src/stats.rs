//! What a journal counts. Plain numbers; whoever scrapes copies them.

/// Counters of one journal since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Entries handed to the disk.
    pub entries_total: u64,
    /// Items in them.
    pub items_total: u64,
    /// Their bytes with padding.
    pub written_bytes_total: u64,
    /// Padding and heads among them.
    pub padding_bytes_total: u64,
    /// Checkpoint items among them.
    pub checkpoint_bytes_total: u64,
    /// Syncs issued.
    pub syncs_total: u64,
    /// Closing marks and other entries without an item.
    pub marks_total: u64,
    /// Rounds that joined a later entry because enough was in flight.
    pub rounds_joined_total: u64,
    /// Rounds that joined a later entry because more input was known to wait.
    pub rounds_gathered_total: u64,
    /// Rounds that waited for a file to be ready.
    pub rounds_starved_total: u64,
    /// Files begun.
    pub files_begun_total: u64,
    /// Files created.
    pub files_created_total: u64,
    /// Files that could not be created.
    pub creates_failed_total: u64,
    /// Files given back for recycling.
    pub files_recycled_total: u64,
    /// Checkpoints that became durable.
    pub checkpoints_total: u64,
    /// Bytes from the oldest entry needed to the end.
    pub used_bytes: u64,
    /// Bytes that the ring holds at most.
    pub ring_bytes: u64,
    /// How many of these users may fill; the rest is for settling, checkpoints and other changes.
    pub room_bytes: u64,
}
