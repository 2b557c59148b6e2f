//! Clock, disk, network of frames, faults, workload, oracle and checkers: the whole broker but its input and output,
//! in one thread, from one seed.
//!
//! The machines are the real ones: two shards with their storage, journal and logs, and the decisions of several
//! clients. What the world does around them (time, disks, connections, the channels between shards) is simulated and
//! may fail in every way that is written in docs/testing.md. The same seed gives the same run to the byte.
//!
//! This crate must not know sockets, files, threads' timing or the clock of the machine.

mod broker;
mod client;
mod describe;
mod disk;
pub mod fuzz;
mod network;
mod oracle;
mod payload;
mod queue;
mod random;
mod run;
mod scenario;
mod trace;
mod world;

pub use disk::{Disk, DiskFault};
pub use oracle::{
    Claim, Fate, KeyViolation, Oracle, ReadSpan, RecordId, Source, TransactionKey, TransactionViolation, Violation,
};
pub use queue::Queue;
pub use random::Random;
pub use run::{Report, Seeds, Summary, find, run, run_all};
pub use scenario::{
    ClientPlan, DiskFaults, GroupPlan, HoldUps, NetworkFaults, OperatorPlan, PipelinePlan, QueuePlan, Scenario,
    TopicPlan, TransactionPlan,
};
pub use trace::{Detail, Trace};
