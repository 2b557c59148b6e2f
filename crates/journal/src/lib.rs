//! One shard's journal: entries, flushes, checkpoints, recycling, replay.
