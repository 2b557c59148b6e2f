//! Names that people choose.

use std::fmt;

use crate::limits::TOPIC_NAME_BYTES_MAX;

/// Name of a topic: 1 to 249 of `a-z A-Z 0-9 . _ -`, not `.` or `..`, as Kafka allows them; names that begin with two
/// underscores belong to the broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Box<str>);

/// What the names of the broker's own topics begin with.
const INTERNAL: &str = "__";

/// Why a name cannot be a topic's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("a topic name needs at least one character")]
    Empty,
    /// Over the limit.
    #[error("topic name of {len} bytes is over the limit of {limit} bytes")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A character outside the alphabet.
    #[error("topic name has {found:?} at byte {at}; allowed are a-z A-Z 0-9 . _ -")]
    Character {
        /// The first offender.
        found: char,
        /// Where it stands.
        at: usize,
    },
    /// A name that file systems treat specially.
    #[error("topic name {name:?} is reserved by file systems")]
    Dots {
        /// `.` or `..`.
        name: String,
    },
    /// A name of the broker's own.
    #[error("topic names that begin with two underscores belong to the broker")]
    Internal,
}

impl TopicName {
    /// Checks a name that came from outside.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let name = Self::parse_any(name)?;
        if name.is_internal() { Err(NameError::Internal) } else { Ok(name) }
    }

    /// Checks a name that may be one of the broker's own topics.
    ///
    /// # Errors
    /// The first other rule that it breaks.
    pub fn parse_any(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if TOPIC_NAME_BYTES_MAX < name.len() {
            return Err(NameError::TooLong { len: name.len(), limit: TOPIC_NAME_BYTES_MAX });
        }
        if let Some((at, found)) =
            name.char_indices().find(|(_, c)| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        {
            return Err(NameError::Character { found, at });
        }
        if name == "." || name == ".." {
            return Err(NameError::Dots { name: name.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// Whether the topic is the broker's own: its name begins with `__`.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.0.starts_with(INTERNAL)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        assert!(TopicName::parse("match-7.inputs_A").is_ok());
        assert_eq!(TopicName::parse(""), Err(NameError::Empty));
        assert_eq!(TopicName::parse("a/b"), Err(NameError::Character { found: '/', at: 1 }));
        assert_eq!(TopicName::parse("__groups"), Err(NameError::Internal));
        assert!(TopicName::parse_any("__groups").is_ok_and(|name| name.is_internal()));
        assert!(TopicName::parse_any("_groups").is_ok_and(|name| !name.is_internal()));
        assert!(TopicName::parse(&"x".repeat(249)).is_ok());
        assert_eq!(TopicName::parse(&"x".repeat(250)), Err(NameError::TooLong { len: 250, limit: 249 }));
        assert!(matches!(TopicName::parse(".."), Err(NameError::Dots { .. })));
    }
}
