//! Names that people give to groups and members, and what they choose for them.

use std::fmt;

use crate::limits::{GROUP_HOMES, GROUP_NAME_BYTES_MAX};
use crate::{PartitionIndex, WallMillis};

/// Name of a consumer group: 1 to 249 bytes of printable characters, as Kafka allows them; control characters are not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Box<str>);

/// What a member calls itself across its restarts: 1 to 249 bytes of printable characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StaticId(Box<str>);

impl GroupName {
    /// Checks a name that came from outside.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(name: &str) -> Result<Self, GroupNameError> {
        check("group name", name)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The internal partition that keeps the group: FNV-1a of its name modulo [`GROUP_HOMES`]. It never changes, so the
    /// shard that owns that partition is the group's coordinator.
    #[must_use]
    pub fn home(&self) -> PartitionIndex {
        home_of(&self.0, GROUP_HOMES)
    }
}

impl StaticId {
    /// Checks an id that came from outside.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(id: &str) -> Result<Self, GroupNameError> {
        check("static id", id)?;
        Ok(Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for StaticId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// FNV-1a of a name modulo the number of homes.
pub(crate) fn home_of(name: &str, homes: u32) -> PartitionIndex {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = name.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    PartitionIndex(u32::try_from(hash % u64::from(homes)).expect("a remainder of 32 bits fits"))
}

pub(crate) fn check(what: &'static str, text: &str) -> Result<(), GroupNameError> {
    if text.is_empty() {
        return Err(GroupNameError::Empty { what });
    }
    if GROUP_NAME_BYTES_MAX < text.len() {
        return Err(GroupNameError::TooLong { what, len: text.len(), limit: GROUP_NAME_BYTES_MAX });
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, found)) => Err(GroupNameError::Control { what, found, at }),
        None => Ok(()),
    }
}

/// Why a text cannot name a group, a member, a strategy or a row of transactions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupNameError {
    /// Nothing in it.
    #[error("a {what} needs at least one character")]
    Empty {
        /// What it would name.
        what: &'static str,
    },
    /// Over the limit.
    #[error("{what} of {len} bytes is over the limit of {limit} bytes")]
    TooLong {
        /// What it would name.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A character that cannot be shown.
    #[error("{what} has the control character {found:?} at byte {at}")]
    Control {
        /// What it would name.
        what: &'static str,
        /// The first offender.
        found: char,
        /// Where it stands.
        at: usize,
    },
    /// No strategy of this version.
    #[error(
        "there is no strategy {name:?}; there are range, round-robin, sticky, cooperative-sticky, weighted and \
         least-response-time"
    )]
    Strategy {
        /// What was asked for.
        name: String,
    },
}

/// The rules by which partitions are assigned to the members of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// Each topic's partitions in contiguous runs, in the order of joining; equal indexes of topics with the same
    /// number of partitions and the same subscribers meet at one member.
    Range,
    /// All partitions dealt out in turn.
    RoundRobin,
    /// Balanced with the fewest moves.
    Sticky,
    /// The same as [`Strategy::Sticky`]: reconciliation revokes only what moves whatever the strategy. Both names exist
    /// because both are known.
    #[default]
    CooperativeSticky,
    /// By declared capacity, with the fewest moves.
    Weighted,
    /// By reported processing time; load moves when it pays.
    LeastResponseTime,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: &'static [Self] = &[
        Self::Range,
        Self::RoundRobin,
        Self::Sticky,
        Self::CooperativeSticky,
        Self::Weighted,
        Self::LeastResponseTime,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "round-robin",
            Self::Sticky => "sticky",
            Self::CooperativeSticky => "cooperative-sticky",
            Self::Weighted => "weighted",
            Self::LeastResponseTime => "least-response-time",
        }
    }

    /// The strategy of that name.
    ///
    /// # Errors
    /// There is none; the error names those that there are.
    pub fn parse(name: &str) -> Result<Self, GroupNameError> {
        let found = Self::ALL.iter().copied().find(|strategy| strategy.name() == name);
        found.ok_or_else(|| GroupNameError::Strategy { name: name.to_owned() })
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a member begins when the group has no committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetPolicy {
    /// At the log start.
    Earliest,
    /// At the end of what is visible.
    #[default]
    Latest,
    /// At the first record that is not older than this.
    Time(WallMillis),
    /// Nowhere: the application is told.
    Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        assert!(GroupName::parse("match maker: europe/1").is_ok());
        assert_eq!(GroupName::parse(""), Err(GroupNameError::Empty { what: "group name" }));
        assert!(StaticId::parse(&"x".repeat(249)).is_ok());
        assert!(matches!(StaticId::parse(&"x".repeat(250)), Err(GroupNameError::TooLong { len: 250, .. })));
        assert_eq!(GroupName::parse("a\nb"), Err(GroupNameError::Control { what: "group name", found: '\n', at: 1 }));
    }

    #[test]
    fn a_home_never_changes() {
        let home = |name: &str| GroupName::parse(name).unwrap().home().0;
        // FNV's own test vectors: 0xaf63dc4c8601ec8c and 0x85944171f73967e8.
        assert_eq!([home("a"), home("foobar")], [0x8c % 64, 0xe8 % 64]);
        let homes: std::collections::BTreeSet<_> = (0..1000).map(|n| home(&format!("group-{n}"))).collect();
        assert_eq!(homes.len(), 64, "a thousand groups are spread over all homes");
    }
}
