//! The journal over a disk in memory that loses what was not synced and tears what was in flight.
//!
//! A planted bug is switched on for the whole process, so a planted build runs nothing but the search for them.

#![cfg_attr(planted, allow(dead_code, reason = "what only other tests need"))]
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

#[cfg(not(planted))]
mod damage;
mod disk;
#[cfg(not(planted))]
mod fixtures;
mod histories;
mod owner;
#[cfg(not(planted))]
mod rounds;
#[cfg(not(planted))]
mod tail;
#[cfg(not(planted))]
mod unreadable;
