//! The workloads that the load generator knows.

mod duel;
mod edge;
mod nxm;
mod replay;

pub use duel::{DUEL_TICKS_PER_S, Duel};
pub use edge::Edge;
pub use nxm::NxM;
pub use replay::Replay;
