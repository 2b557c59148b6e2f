//! `--from`: where `consume` starts.

use std::str::FromStr;

use corelane_broker::quantity::{QuantityError, Span};
use corelane_model::{Offset, StartAt, WallMillis};

/// A start as a person writes it; a time may be relative to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Earliest,
    Latest,
    Offset(u64),
    /// This long ago.
    Ago(Span),
    /// Milliseconds since the Unix epoch.
    Time(i64),
}

/// Why a text is no start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FromError {
    /// Nothing that we know.
    #[error(
        "{0:?} is no start; write earliest, latest, an offset such as 42, a time ago such as -5m, or @ and milliseconds since 1970"
    )]
    Form(String),
    /// A time ago that is no time.
    #[error(transparent)]
    Ago(#[from] QuantityError),
}

impl FromStr for From {
    type Err = FromError;

    fn from_str(text: &str) -> Result<Self, FromError> {
        let form = || FromError::Form(text.to_owned());
        match text {
            "earliest" | "beginning" => Ok(Self::Earliest),
            "latest" | "end" => Ok(Self::Latest),
            _ => {
                if let Some(ago) = text.strip_prefix('-') {
                    return Ok(Self::Ago(ago.parse()?));
                }
                if let Some(millis) = text.strip_prefix('@') {
                    return millis.parse().map(Self::Time).map_err(|_| form());
                }
                text.parse().map(Self::Offset).map_err(|_| form())
            }
        }
    }
}

impl From {
    /// The start in the words of the model, when it is `now`.
    pub(crate) fn to_model(self, now: WallMillis) -> StartAt {
        match self {
            Self::Earliest => StartAt::Earliest,
            Self::Latest => StartAt::Latest,
            Self::Offset(offset) => StartAt::Offset(Offset(offset)),
            Self::Ago(span) => {
                let millis = i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX);
                StartAt::Time(WallMillis(now.0.saturating_sub(millis)))
            }
            Self::Time(millis) => StartAt::Time(WallMillis(millis)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(text: &str) -> Result<StartAt, FromError> {
        text.parse::<From>().map(|from| from.to_model(WallMillis(1_000_000)))
    }

    #[test]
    fn starts_are_read_as_people_write_them() {
        assert_eq!(start("earliest"), Ok(StartAt::Earliest));
        assert_eq!(start("latest"), Ok(StartAt::Latest));
        assert_eq!(start("42"), Ok(StartAt::Offset(Offset(42))));
        assert_eq!(start("-5m"), Ok(StartAt::Time(WallMillis(700_000))));
        assert_eq!(start("@123"), Ok(StartAt::Time(WallMillis(123))));
    }

    #[test]
    fn wrong_starts_say_what_would_be_right() {
        assert!(start("yesterday").unwrap_err().to_string().contains("earliest, latest"));
        assert!(start("-5").unwrap_err().to_string().contains("5m"));
        assert!(start("@noon").is_err());
        assert!(start("").is_err());
    }
}
