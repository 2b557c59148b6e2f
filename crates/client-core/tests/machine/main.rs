//! The machine against a model of a broker: frames in and out, lost connections, restarts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod broker;
mod chaos;
mod coordinator;
mod delivery;
mod ends;
mod groups;
mod heartbeats;
mod members;
mod operations;
mod places;
mod put_off;
mod reading;
mod verdicts;
mod world;
