//! Topics, class and settings, which shard owns which partition.
