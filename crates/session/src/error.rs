//! Why a request is refused or a connection closed.

use corelane_model::ErrorCode;
use corelane_wire::BodyError;

/// A code for programs and a text for people that says what was wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub text: String,
}

impl Refused {
    /// Joins the two.
    #[must_use]
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<BodyError> for Refused {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::Kind { .. } => ErrorCode::UnexpectedFrame,
            BodyError::Version { .. } => ErrorCode::UnsupportedVersion,
            BodyError::Malformed { .. } => ErrorCode::Malformed,
        };
        Self::new(code, error.to_string())
    }
}
