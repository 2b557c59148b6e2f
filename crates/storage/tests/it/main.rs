//! Storage on a disk that tears, loses, fails and runs full.

#![expect(clippy::unwrap_used, reason = "tests")]

mod age;
mod chance;
mod compaction;
mod disk;
mod faults;
mod ids;
mod latest;
mod layout;
mod life;
mod random;
mod transactions;
mod world;
