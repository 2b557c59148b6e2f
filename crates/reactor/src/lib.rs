//! Composes quic and shard: files, UDP, timers and the mesh by glommio; the measurement of floors; process set-up.
//!
//! Each shard is one glommio executor on one core, and one loop: datagrams go to the QUIC endpoint, its frames and all other
//! completions go to the shard as events, the round is finished, the shard's effects are carried out, packets leave. This
//! is the only crate that awaits on a shard, the only one that knows glommio, and the only one with `unsafe`.
//!
//! From outside: [`prepare_process`], [`Sockets::bind`], [`Cluster::start`], then the [`Handle`] from plain threads. It decides
//! nothing about records, topics or sessions.
#![cfg(target_os = "linux")]

mod bell;
mod board;
mod clock;
mod cluster;
mod files;
pub mod floor;
mod heartbeat;
mod machine;
mod mesh;
mod park;
mod process;
mod round;
mod socket;
mod spin;
mod stats;
mod steering;
mod udp;

pub use board::ShardFailure;
pub use cluster::{Cluster, Handle, ReactorConfig, StartError};
pub use process::{prepare_process, probe_io_uring};
pub use socket::{BindError, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES, ShardSocket, Sockets};
pub use spin::Spin;
pub use stats::ReactorStats;
