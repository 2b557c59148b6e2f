//! Errors of the SDK's shell; those of the machine are re-exported beside them.

use std::path::PathBuf;

use corelane_client_core::{ConnectFailure, RequestError, SubscriptionError};
use corelane_model::{NameError, TopicName};

use crate::{AddressError, Record};

/// Why a client could not connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address does not make sense.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An address beyond this machine, without a reason to trust whoever answers there.
    #[error(
        "{address} is not this machine: add ?pin=sha256:… with the fingerprint that the broker prints at its start, or \
         ?ca=FILE with the authority of its certificate"
    )]
    NoTrust {
        /// The address.
        address: String,
    },
    /// No broker of this user has left a fingerprint for that port.
    #[error(
        "no broker of this user runs at {address}: {}; start one with `corelane serve`, or add ?pin=sha256:… to the address",
        no_fingerprint(.looked_at)
    )]
    NoPinFile {
        /// The address.
        address: String,
        /// Where it was looked for; nowhere when neither `XDG_RUNTIME_DIR` nor `HOME` is set.
        looked_at: Vec<PathBuf>,
    },
    /// The file with the fingerprint holds something else.
    #[error("{} holds no fingerprint: {reason}", path.display())]
    PinFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file with authorities is of no use.
    #[error("no authority could be read from {}: {reason}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file with the token is of no use.
    #[error("no token could be read from {}: {reason}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The host has no address.
    #[error("host {host} has no address: {reason}")]
    UnknownHost {
        /// The host.
        host: String,
        /// What the resolver says.
        reason: String,
    },
    /// No socket.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The port is closed: the machine itself says that nothing listens there.
    #[error(
        "no broker runs at {address}: nothing listens on that port; start one with `corelane serve`. One that was killed \
         leaves its fingerprint behind, and that is no harm"
    )]
    NothingListens {
        /// The address.
        address: String,
    },
    /// Nobody answered in time.
    #[error("no answer from a broker at {address} within {seconds} s: {reason}")]
    Unreachable {
        /// The address.
        address: String,
        /// How long was waited.
        seconds: u64,
        /// What is known.
        reason: String,
    },
    /// The peer is not to be trusted, or does not let this client in.
    #[error(transparent)]
    Refused(ConnectFailure),
}

impl ConnectError {
    /// Whether the same may work later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::NothingListens { .. }
            | Self::NoPinFile { .. }
            | Self::UnknownHost { .. }
            | Self::Socket(_) => true,
            Self::Refused(failure) => failure.is_retriable(),
            Self::Address(_)
            | Self::NoTrust { .. }
            | Self::PinFile { .. }
            | Self::Authorities { .. }
            | Self::Token { .. } => false,
        }
    }
}

/// Why a record was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError<'a> {
    /// The send buffer has no room; here is the record back. Wait with [`crate::Producer::reserve`], or drop it.
    #[error("the send buffer is full")]
    Full(Record<'a>),
    /// The record cannot be sent at all.
    #[error(transparent)]
    Refused(corelane_client_core::SendError),
}

impl SendError<'_> {
    /// Whether the same record may be taken later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Refused(error) => error.is_retriable(),
        }
    }
}

/// Why a producer or a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name cannot be a topic's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The broker refused, or did not answer.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Error {
    /// Whether the same may work later, and cannot be carried out twice.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Name(_) => false,
            Self::Request(error) => error.is_retriable(),
        }
    }
}

/// Why a consumer could not be opened, or has no more batches of a partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// The name cannot be a topic's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The topic could not be asked about.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A partition's subscription ended; the consumer goes on with its other partitions. Everything before the end was
    /// handed out; behind damage a new consumer can read on, see [`SubscriptionError::damaged`].
    #[error("topic {topic} partition {partition}: {error}")]
    Subscription {
        /// Its topic.
        topic: TopicName,
        /// The partition.
        partition: corelane_model::PartitionIndex,
        /// Why.
        error: SubscriptionError,
    },
}

impl ConsumeError {
    /// Whether the same may work later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Name(_) => false,
            Self::Request(error) => error.is_retriable(),
            Self::Subscription { error, .. } => error.is_retriable(),
        }
    }
}

fn no_fingerprint(looked_at: &[PathBuf]) -> String {
    if looked_at.is_empty() {
        return "neither XDG_RUNTIME_DIR nor HOME is set, so that nobody knows where its fingerprint would be"
            .to_owned();
    }
    let paths: Vec<_> = looked_at.iter().map(|path| path.display().to_string()).collect();
    format!("there is no fingerprint at {}", paths.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_that_is_nowhere_says_why() {
        let said = |looked_at: &[&str]| {
            let looked_at = looked_at.iter().map(PathBuf::from).collect();
            ConnectError::NoPinFile { address: "127.0.0.1:7420".to_owned(), looked_at }.to_string()
        };
        assert!(said(&[]).contains("neither XDG_RUNTIME_DIR nor HOME is set"), "{}", said(&[]));
        assert!(said(&["/a", "/b"]).contains("no fingerprint at /a or /b;"), "{}", said(&["/a", "/b"]));
    }
}
