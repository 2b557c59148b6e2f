//! Shards driven with frames, on files in memory.

mod broken_queues;
mod committed_readers;
mod conflation;
mod damaged_homes;
mod dead_letters;
mod early_members;
mod ends;
mod full_homes;
mod group_histories;
mod groups;
mod inquiries;
mod large_groups;
mod late_transactions;
mod lifecycle;
mod members;
mod newer_connections;
mod produce;
mod queue_transactions;
mod queues;
mod records;
mod stopped_homes;
mod subscribe;
mod topics;
mod transactions;
mod world;
