//! What can be wrong with an endpoint's configuration.

/// Why an endpoint cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// QUIC protects its first packets with AES-128-GCM of TLS 1.3; the TLS configuration lacks it.
    #[error("the TLS configuration has no TLS 1.3 cipher suite for QUIC's first packets")]
    NoInitialCipherSuite,
}
