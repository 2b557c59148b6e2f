//! The load generator: scenarios, an open-loop pacer, workers, measuring, reports.
//!
//! Latency counts from the moment at which a message was *due*, not from the moment at which it left: a stalled broker
//! cannot hide its stall. The generator's own lateness is measured too, and a slice of a run in which it was late does not
//! count. What is consumed is verified: every message once, in order per key, unchanged.

pub mod disk;
pub mod figure;
pub mod measure;
pub mod pacer;
pub mod patience;
pub mod plan;
pub mod progress;
pub mod report;
pub mod run;
pub mod scenario;
pub mod server;
pub mod slice;
pub mod stamp;
pub mod stolen;
pub mod trace;
pub mod verify;
