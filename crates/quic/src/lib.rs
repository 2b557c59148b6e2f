//! A quinn-proto endpoint driven by datagrams and time.
//!
//! Datagrams and moments go in, frames and datagrams come out; there is no socket, no timer and no clock here. A round is:
//! [`Endpoint::handle_datagram`] for what arrived, [`Endpoint::handle_timeout`], [`Endpoint::read_streams`], then
//! [`Endpoint::poll_event`] until it yields nothing; after the shard's round [`Endpoint::send`] and [`Endpoint::close`],
//! then [`Endpoint::poll_transmit`] until it yields nothing.
//!
//! Which stream carries what: the client's first bidirectional stream is control, both ways; its unidirectional streams
//! carry produce frames; the broker opens unidirectional streams for pushes when they have their first frame.
//!
//! This crate knows frames by their heads only: no topic, no session. Its one exception from "no randomness" is what TLS
//! draws for its keys.

mod config;
mod connection_id;
mod deadline;
mod effect;
mod endpoint;
mod error;
mod link;
mod outlet;
mod share;
mod stats;

pub use config::{EndpointConfig, transport_config};
pub use effect::{Datagram, QuicEvent, SendStream};
pub use endpoint::Endpoint;
pub use error::ConfigError;
pub use quinn_proto::{EcnCodepoint, Transmit};
pub use stats::QuicStats;
