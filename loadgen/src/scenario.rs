//! The workloads that the load generator knows.

mod duel;
mod edge;
mod nxm;
pub(crate) mod queue;
mod replay;

pub use duel::{DUEL_TICKS_PER_S, Duel};
pub use edge::Edge;
pub use nxm::NxM;
pub use queue::QueueLoad;
pub use replay::Replay;
