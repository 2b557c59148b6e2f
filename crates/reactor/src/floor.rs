//! Floors: what the machine can do without a broker, measured with the same loop, the same QUIC and the same file executor
//! that the broker uses.

mod disk;
mod memory;
mod server;
mod udp;

use std::io;

pub use disk::{DiskConfig, DiskOperation, DiskPath, DiskSamples, measure_disk};
pub use memory::measure_memory_copy;
pub use server::{FloorServerConfig, serve};
pub use udp::measure_udp;

/// Why a floor could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The loop could not be started.
    #[error(transparent)]
    Start(#[from] crate::StartError),
    /// A port could not be had.
    #[error(transparent)]
    Bind(#[from] crate::BindError),
    /// The loop failed.
    #[error(transparent)]
    Shard(#[from] crate::ShardFailure),
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file effect failed.
    #[error("a file effect failed: {0}")]
    File(#[from] corelane_storage::FileError),
}
