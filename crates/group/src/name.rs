//! Names that people give to groups and members.

use std::fmt;

use corelane_model::PartitionIndex;
use corelane_model::limits::{GROUP_HOMES, GROUP_NAME_BYTES_MAX};

use crate::NameError;

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
    pub fn parse(name: &str) -> Result<Self, NameError> {
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
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let hash = self.0.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        PartitionIndex(u32::try_from(hash % u64::from(GROUP_HOMES)).expect("64 fits"))
    }
}

impl StaticId {
    /// Checks an id that came from outside.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(id: &str) -> Result<Self, NameError> {
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

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if GROUP_NAME_BYTES_MAX < text.len() {
        return Err(NameError::TooLong { what, len: text.len(), limit: GROUP_NAME_BYTES_MAX });
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, found)) => Err(NameError::Control { what, found, at }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        assert!(GroupName::parse("match maker: europe/1").is_ok());
        assert_eq!(GroupName::parse(""), Err(NameError::Empty { what: "group name" }));
        assert!(StaticId::parse(&"x".repeat(249)).is_ok());
        assert!(matches!(StaticId::parse(&"x".repeat(250)), Err(NameError::TooLong { len: 250, .. })));
        assert_eq!(GroupName::parse("a\nb"), Err(NameError::Control { what: "group name", found: '\n', at: 1 }));
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
