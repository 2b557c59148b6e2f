//! Certificates.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::address::{parse_pin, show_pin};
use crate::{Address, ConnectError, Trust};

/// How connections to one broker are made safe.
pub(crate) struct Tls {
    pub(crate) config: Arc<quinn::crypto::rustls::QuicClientConfig>,
    /// The digest of the certificate that was refused last, for the error's text.
    refused: Arc<Mutex<Option<String>>>,
    expected: Expected,
}

/// Where trust comes from, for the error's text.
#[derive(Clone, Debug)]
enum Expected {
    File { path: PathBuf, pin: String },
    Pin(String),
    Authority(PathBuf),
}

impl Tls {
    /// Reads what the address calls for. Reads again at each connection attempt, because a broker that is set up anew
    /// writes another fingerprint.
    pub(crate) fn for_address(address: &Address) -> Result<Self, ConnectError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has cipher suites of TLS 1.3");
        let refused = Arc::default();
        let (mut config, expected) = match &address.trust {
            Trust::Authority(path) => {
                let config = builder.with_root_certificates(read_authorities(path)?).with_no_client_auth();
                (config, Expected::Authority(path.clone()))
            }
            Trust::Pin(_) | Trust::Development => {
                let (pin, expected) = match &address.trust {
                    Trust::Pin(pin) => (*pin, Expected::Pin(show_pin(pin))),
                    _ => {
                        let (pin, path) = read_development_pin(address)?;
                        (pin, Expected::File { path, pin: show_pin(&pin) })
                    }
                };
                let verifier = PinVerifier { pin, provider, refused: Arc::clone(&refused) };
                let config =
                    builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
                (config, expected)
            }
        };
        config.alpn_protocols = vec![corelane_wire::ALPN.to_vec()];
        let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).expect("ring has QUIC's initial suite");
        Ok(Self { config: Arc::new(config), refused, expected })
    }

    /// What to tell about a handshake that failed over its certificate.
    pub(crate) fn explain(&self, address: &Address, detail: &str) -> String {
        let shown = self.refused.lock().expect("no panic while it is held").clone().unwrap_or_default();
        match &self.expected {
            Expected::File { path, pin } => format!(
                "the broker at {address} shows certificate {shown}, but {} says {pin}: another broker uses the port, or \
                 the file is old",
                path.display()
            ),
            Expected::Pin(pin) => {
                format!("the broker at {address} shows certificate {shown}, but the address says {pin}")
            }
            Expected::Authority(path) => format!(
                "the certificate of the broker at {address} was not accepted with the authorities in {}: {detail}",
                path.display()
            ),
        }
    }
}

fn read_authorities(path: &Path) -> Result<RootCertStore, ConnectError> {
    let unusable = |reason: String| ConnectError::Authorities { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

/// Where a broker of this user writes its fingerprint, best place first.
fn development_pin_paths(port: u16) -> Vec<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = directory("HOME").map(|home| home.join(".local/state"));
    let bases = [directory("XDG_RUNTIME_DIR"), state].into_iter().flatten();
    bases.map(|base| base.join("corelane").join(port.to_string())).collect()
}

fn read_development_pin(address: &Address) -> Result<([u8; 32], PathBuf), ConnectError> {
    if !address.is_loopback() {
        return Err(ConnectError::NoTrust { address: address.to_string() });
    }
    let paths = development_pin_paths(address.port);
    for path in &paths {
        if let Ok(text) = std::fs::read_to_string(path) {
            let pin = parse_pin(&text)
                .map_err(|error| ConnectError::PinFile { path: path.clone(), reason: error.to_string() })?;
            return Ok((pin, path.clone()));
        }
    }
    Err(ConnectError::NoPinFile { address: address.to_string(), looked_at: paths })
}

/// Accepts one certificate and no other; names and dates do not matter then.
#[derive(Debug)]
struct PinVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
    refused: Arc<Mutex<Option<String>>>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = ring::digest::digest(&ring::digest::SHA256, end_entity);
        if digest.as_ref() == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        *self.refused.lock().expect("no panic while it is held") = Some(show_pin(digest.as_ref()));
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
