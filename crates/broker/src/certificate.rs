//! The certificate that the broker shows, and how clients on the same machine come to trust it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::access::digest;
use crate::config::Certificate;
use crate::data::{DataError, write_durably};

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A PEM file that cannot be read or holds something else.
    #[error("cannot take a {what} from {}: {error}", path.display())]
    Pem {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("certificate {} cannot be used: {error}", path.display())]
    Unusable {
        /// The chain's file.
        path: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
    /// A development certificate could not be made.
    #[error("cannot make a development certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A development certificate could not be kept.
    #[error(transparent)]
    Keep(#[from] DataError),
}

/// What clients see.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For the QUIC endpoint: TLS 1.3, our protocol, this certificate.
    pub tls: Arc<rustls::ServerConfig>,
    /// `sha256:` and the hexadecimal digest of the certificate, as in `?pin=`.
    pub fingerprint: String,
    /// Whether it is the development certificate, whose fingerprint clients on this machine should find.
    pub is_development: bool,
}

/// The certificate by the configuration; a development certificate is made in `data` if it is not there.
///
/// # Errors
/// Files that cannot be read, do not hold what they should, or do not go together.
pub fn identity(certificate: &Certificate, data: &Path) -> Result<Identity, CertificateError> {
    let is_development = *certificate == Certificate::Development;
    let (chain_path, key_path) = match certificate {
        Certificate::Development => development(data)?,
        Certificate::Files { chain, key } => (chain.clone(), key.clone()),
    };
    let pem = |what, path: &Path| {
        let path = path.to_owned();
        move |error| CertificateError::Pem { what, path, error }
    };
    let chain = CertificateDer::pem_file_iter(&chain_path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem("certificate", &chain_path))?;
    let Some(leaf) = chain.first() else {
        return Err(pem("certificate", &chain_path)(rustls::pki_types::pem::Error::NoItemsFound));
    };
    let fingerprint = format!("sha256:{}", hex::encode(digest(leaf)));
    let key = PrivateKeyDer::from_pem_file(&key_path).map_err(pem("private key", &key_path))?;
    let unusable = |error| CertificateError::Unusable { path: chain_path.clone(), error };
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    tls.alpn_protocols = vec![corelane_wire::ALPN.to_vec()];
    Ok(Identity { tls: Arc::new(tls), fingerprint, is_development })
}

/// The development certificate's files, made if one is missing.
fn development(data: &Path) -> Result<(PathBuf, PathBuf), CertificateError> {
    let directory = data.join("tls");
    let (chain, key) = (directory.join("development.crt"), directory.join("development.key"));
    if chain.exists() && key.exists() {
        return Ok((chain, key));
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|error| DataError::Io {
        action: "make",
        path: directory.clone(),
        error,
    })?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    write_durably(&key, made.signing_key.serialize_pem().as_bytes())?;
    write_durably(&chain, made.cert.pem().as_bytes())?;
    Ok((chain, key))
}

/// The file that tells clients on this machine the fingerprint of the broker at a port; removed when dropped.
#[derive(Debug)]
pub struct PublishedFingerprint {
    path: PathBuf,
    text: String,
}

impl PublishedFingerprint {
    /// Writes the fingerprint under `directory`, which is made for the user alone.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn write(directory: &Path, port: u16, fingerprint: &str) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(port.to_string());
        let text = format!("{fingerprint}\n");
        let new = directory.join(format!(".{port}.{}", std::process::id()));
        fs::write(&new, &text)?;
        fs::rename(&new, &path)?;
        Ok(Self { path, text })
    }
}

impl Drop for PublishedFingerprint {
    fn drop(&mut self) {
        // Another broker may have taken the port in the meantime: its file is not ours to remove.
        if fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            let _gone_already = fs::remove_file(&self.path);
        }
    }
}

/// Where clients of this user look for fingerprints: `$XDG_RUNTIME_DIR/corelane`, else `~/.local/state/corelane`.
#[must_use]
pub fn fingerprint_directory() -> Option<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let runtime = directory("XDG_RUNTIME_DIR").filter(|path| path.is_dir());
    let base = runtime.or_else(|| directory("HOME").map(|home| home.join(".local/state")))?;
    Some(base.join("corelane"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_development_certificate_is_made_once_and_its_key_is_private() {
        let data = tempfile::tempdir().unwrap();
        let first = identity(&Certificate::Development, data.path()).unwrap();
        let second = identity(&Certificate::Development, data.path()).unwrap();
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_eq!(first.fingerprint.len(), "sha256:".len() + 64);
        assert_eq!(first.tls.alpn_protocols, [b"corelane/1"]);
        let key = fs::metadata(data.path().join("tls/development.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn files_of_an_operator_are_used_and_errors_name_them() {
        let data = tempfile::tempdir().unwrap();
        identity(&Certificate::Development, data.path()).unwrap();
        let (chain, key) = (data.path().join("tls/development.crt"), data.path().join("tls/development.key"));
        let own = identity(&Certificate::Files { chain: chain.clone(), key: key.clone() }, data.path()).unwrap();
        assert!(!own.is_development);
        let swapped = identity(&Certificate::Files { chain: key.clone(), key: chain }, data.path()).unwrap_err();
        assert!(swapped.to_string().contains("development.key"), "{swapped}");
        let missing = identity(&Certificate::Files { chain: "none.pem".into(), key }, data.path()).unwrap_err();
        assert!(missing.to_string().contains("none.pem"), "{missing}");
    }

    #[test]
    fn a_fingerprint_file_goes_with_its_broker_but_not_with_another() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("corelane");
        let first = PublishedFingerprint::write(&directory, 7420, "sha256:aa").unwrap();
        assert_eq!(fs::read_to_string(directory.join("7420")).unwrap(), "sha256:aa\n");
        let second = PublishedFingerprint::write(&directory, 7420, "sha256:bb").unwrap();
        drop(first);
        assert_eq!(fs::read_to_string(directory.join("7420")).unwrap(), "sha256:bb\n");
        drop(second);
        assert!(!directory.join("7420").exists());
    }
}
