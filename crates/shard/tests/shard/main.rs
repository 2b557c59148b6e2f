//! Shards driven with frames, on files in memory.

mod ends;
mod lifecycle;
mod produce;
mod records;
mod subscribe;
mod topics;
mod world;
