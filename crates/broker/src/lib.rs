//! Boot: configuration, placement on cores, admin listener, signals, supervision, shutdown.
//!
//! [`start`] turns a checked [`Config`] into a [`Running`] broker, for a demo or a test inside another program; [`serve()`] is
//! the whole life of a broker's process. Everything here runs on plain threads before, beside and after the shards: it
//! reads clocks, files and the environment, and it decides nothing about records.
//!
//! It must not know: what a frame or a record holds, how a journal is written, or anything of tokio.

pub mod access;
pub mod admin;
pub mod certificate;
pub mod config;
pub mod data;
pub mod doctor;
pub mod log;
pub mod quantity;
pub mod signals;

mod boot;
mod layout;
mod moving;
mod placement;
mod serve;
mod shards;

pub use boot::{Running, StartError, Stopped, start};
pub use config::{Config, Machine, Problem, Problems, RawConfig};
pub use corelane_reactor::{ShardFailure, prepare_process};
pub use moving::MovingError;
pub use serve::{ServeError, serve};
