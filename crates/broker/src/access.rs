//! Who may connect: tokens as digests.

use std::path::{Path, PathBuf};

use corelane_model::limits::TOKEN_BYTES_MAX;
use corelane_shard::TokenDigest;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The operating system refuses it.
    #[error("cannot read the token file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// Nothing in it.
    #[error("the token file {} holds no token: write one a line, for example from `openssl rand -hex 32`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A token over the limit.
    #[error("line {line} of the token file {} has {len} bytes, a token has at most {limit}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// Bytes of the token.
        len: usize,
        /// The limit.
        limit: usize,
    },
}

/// Digests of the tokens in a file: what shards compare with, so that the tokens themselves do not stay in memory.
///
/// # Errors
/// It cannot be read, holds none, or one that is too long.
pub fn read_tokens(path: &Path) -> Result<Vec<TokenDigest>, TokenError> {
    let text = std::fs::read_to_string(path).map_err(|error| TokenError::Read { path: path.to_owned(), error })?;
    let mut digests = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        if TOKEN_BYTES_MAX < token.len() {
            let (line, len, limit) = (index + 1, token.len(), TOKEN_BYTES_MAX);
            return Err(TokenError::TooLong { path: path.to_owned(), line, len, limit });
        }
        digests.push(TokenDigest::of(token));
    }
    if digests.is_empty() {
        return Err(TokenError::Empty { path: path.to_owned() });
    }
    Ok(digests)
}

/// SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<usize, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_tokens(file.path()).map(|digests| digests.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn one_token_a_line_without_blanks_and_comments() {
        assert_eq!(read("# ours\nalpha\n\n  beta  \n"), Ok(2));
        assert!(read("# none\n\n").unwrap_err().contains("holds no token"));
        assert!(read(&"x".repeat(5000)).unwrap_err().contains("line 1"));
    }

    #[test]
    fn the_digest_is_sha_256() {
        assert_eq!(hex::encode(&digest(b"abc")[..4]), "ba7816bf");
    }
}
