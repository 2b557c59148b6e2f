//! Where a file lies.

use std::path::{Path, PathBuf};

use corelane_storage::FileName;

/// The path of a file below the data directory.
pub(super) fn of(root: &Path, name: FileName) -> PathBuf {
    match name {
        FileName::Journal { shard, slot } => root.join("journal").join(shard.to_string()).join(slot.to_string()),
        FileName::Segment { partition, base, rewrite } => root
            .join("topics")
            .join(partition.topic.to_string())
            .join(partition.index.to_string())
            .join(if rewrite == 0 { format!("{base}.segment") } else { format!("{base}-{rewrite}.segment") }),
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{Offset, PartitionId, PartitionIndex, ShardId, TopicId};

    use super::*;

    #[test]
    fn paths_are_those_of_the_documentation() {
        let journal = FileName::Journal { shard: ShardId(1), slot: 12 };
        assert_eq!(of(Path::new("/d"), journal), Path::new("/d/journal/1/12"));
        let partition = PartitionId::new(TopicId(7), PartitionIndex(3));
        let segment = FileName::Segment { partition, base: Offset(900), rewrite: 0 };
        assert_eq!(of(Path::new("/d"), segment), Path::new("/d/topics/7/3/900.segment"));
        let segment = FileName::Segment { partition, base: Offset(900), rewrite: 2 };
        assert_eq!(of(Path::new("/d"), segment), Path::new("/d/topics/7/3/900-2.segment"));
    }
}
