//! The journal over a disk in memory that loses what was not synced and tears what was in flight.

mod damage;
mod disk;
mod fixtures;
mod histories;
mod owner;
mod rounds;
