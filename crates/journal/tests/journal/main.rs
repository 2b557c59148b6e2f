//! The journal over a disk in memory that loses what was not synced and tears what was in flight.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod damage;
mod disk;
mod fixtures;
mod histories;
mod owner;
mod rounds;
