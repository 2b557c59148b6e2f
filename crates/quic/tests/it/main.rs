//! Two endpoints on a simulated wire, in the manner of quinn's `Pair`.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod pair;
mod streams;
