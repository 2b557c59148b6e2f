//! Names of files in the data directory: a pure function there and back.

use std::path::PathBuf;

use corelane_model::{Offset, PartitionId, PartitionIndex, ShardId, TopicId};

use crate::FileName;

/// Digits of an offset in a file's name: all 64-bit numbers, so that names sort as offsets do.
const OFFSET_DIGITS: usize = 20;

impl FileName {
    /// Where the file lies, relative to the data directory.
    ///
    /// `journal/<shard>/<slot>` and `topics/<topic>/<partition>/<base offset in 20 digits>.segment`, with `-<rewrite>` before
    /// the point for one that compaction wrote.
    #[must_use]
    pub fn relative_path(&self) -> PathBuf {
        match self {
            Self::Journal { shard, slot } => format!("journal/{shard}/{slot}").into(),
            Self::Segment { partition, base, rewrite } => {
                let anew = if *rewrite == 0 { String::new() } else { format!("-{rewrite}") };
                let directory = format!("topics/{}/{}", partition.topic, partition.index);
                format!("{directory}/{:0OFFSET_DIGITS$}{anew}.segment", base.0).into()
            }
        }
    }

    /// What the file at this path is; `None` when the path is not one that [`FileName::relative_path`] gives.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let name = match (parts.next()?, parts.next()?, parts.next()?) {
            ("journal", shard, slot) => {
                Self::Journal { shard: ShardId(parse_number(shard)?), slot: parse_number(slot)? }
            }
            ("topics", topic, index) => {
                let name = parts.next()?.strip_suffix(".segment")?;
                let (digits, rewrite) = match name.split_once('-') {
                    Some((digits, anew)) => (digits, parse_number(anew).filter(|&rewrite| rewrite != 0)?),
                    None => (name, 0),
                };
                if digits.len() != OFFSET_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                    return None;
                }
                Self::Segment {
                    partition: PartitionId::new(TopicId(parse_number(topic)?), PartitionIndex(parse_number(index)?)),
                    base: Offset(digits.parse().ok()?),
                    rewrite,
                }
            }
            _ => return None,
        };
        if parts.next().is_none() { Some(name) } else { None }
    }
}

/// A decimal number as `Display` writes it: no sign, no leading zeros.
fn parse_number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let is_canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|digit| digit.is_ascii_digit()));
    if is_canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_where_operators_expect_them() {
        let journal = FileName::Journal { shard: ShardId(3), slot: 15 };
        assert_eq!(journal.relative_path().to_str(), Some("journal/3/15"));
        let partition = PartitionId::new(TopicId(7), PartitionIndex(2));
        let segment = FileName::Segment { partition, base: Offset(1234), rewrite: 0 };
        assert_eq!(segment.relative_path().to_str(), Some("topics/7/2/00000000000000001234.segment"));
        let segment = FileName::Segment { partition, base: Offset(1234), rewrite: 3 };
        assert_eq!(segment.relative_path().to_str(), Some("topics/7/2/00000000000000001234-3.segment"));
    }

    #[test]
    fn what_is_no_name_of_ours_is_refused() {
        for path in [
            "",
            "journal",
            "journal/0",
            "journal/256/0",
            "journal/01/0",
            "journal/+1/0",
            "journal/0/0/0",
            "topics/1/0/5.segment",
            "topics/1/0/00000000000000000005",
            "topics/1/0/+0000000000000000005.segment",
            "topics/1/0/99999999999999999999.segment",
            "topics/1/0/00000000000000000005-0.segment",
            "topics/1/0/00000000000000000005-01.segment",
            "topics/1/0/00000000000000000005-.segment",
            "topics/1/00/00000000000000000005.segment",
            "/topics/1/0/00000000000000000005.segment",
        ] {
            assert_eq!(FileName::parse(path), None, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(shard: u8, slot: u32, topic: u64, index: u32, base: u64, rewrite: u32) {
            let partition = PartitionId::new(TopicId(topic), PartitionIndex(index));
            for name in [
                FileName::Journal { shard: ShardId(shard), slot },
                FileName::Segment { partition, base: Offset(base), rewrite },
            ] {
                let path = name.relative_path();
                prop_assert_eq!(FileName::parse(path.to_str().expect("names are ASCII")), Some(name));
            }
        }
    }
}
