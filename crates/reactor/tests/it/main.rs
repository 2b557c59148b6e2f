//! The loop against a client of another make: quinn on tokio.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod client;
mod floors;
