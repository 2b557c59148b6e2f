//! Boot: configuration, placement on cores, admin listener, signals, supervision, shutdown.
//!
//! [`start`] turns a checked [`Config`] into a [`Running`] broker; the program `corelane serve`, the demo and tests all go
//! through it. Everything here runs on plain threads before, beside and after the shards: it reads clocks, files and the
//! environment, and it decides nothing about records.
//!
//! It must not know: what a frame or a record holds, how a journal is written, or anything of tokio.

pub mod config;
pub mod quantity;

pub mod access;
pub mod admin;
pub mod certificate;
pub mod data;
pub mod doctor;
pub mod log;
pub mod signals;

mod placement;

pub use config::{Config, Machine, Problem, Problems, RawConfig};
