//! Shards driven with frames, on files in memory.

mod lifecycle;
mod produce;
mod records;
mod subscribe;
mod topics;
mod world;
