//! `corelane topic truncate`: every partition is looked at before the first is cut.

use std::io::Write;

use clap::Args;
use corelane::{Admin, PartitionDescription, TopicDescription};
use corelane_model::{Offset, PartitionIndex};

use crate::bounds::partition_index;
use crate::command::examples;
use crate::failure::{Failure, Outcome, refused};

/// Drop the oldest records of a topic.
///
/// When an offset lies beyond the end of one of the partitions, nothing is cut. A partition that begins behind the offset already
/// stays as it is.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane topic truncate inputs --before end        everything that is stored",
    "corelane topic truncate inputs -p 3 --before 1000  partition 3 up to 999",
    "corelane topic truncate inputs -p 3 --before end   all of partition 3",
))]
pub(super) struct Truncate {
    /// Its name.
    name: String,
    /// Only this partition; all when it is left out.
    #[arg(short, long, value_name = "PARTITION", value_parser = partition_index())]
    partition: Option<u32>,
    /// The first offset that stays, or `end`.
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    before: Before,
}

/// Where a truncation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    End,
    Offset(u64),
}

impl std::str::FromStr for Before {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "end" => Ok(Self::End),
            _ => text.parse().map(Self::Offset).map_err(|_| "write an offset such as 1000, or end".to_owned()),
        }
    }
}

/// What is to be done with one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Everything before the offset goes, or everything durable.
    Cut { partition: u32, before: Option<Offset> },
    /// What is to go is gone.
    Leave { partition: u32, log_start: u64 },
}

impl Truncate {
    pub(super) async fn run(self, admin: &Admin) -> Outcome {
        let topic = admin.describe_topic(&self.name).await.map_err(refused)?;
        let steps = self.steps(&topic)?;
        // What is done does not hang on whether somebody reads about it.
        let mut printed = Ok(());
        for step in steps {
            let line = match step {
                Step::Cut { partition, before } => {
                    let log_start = self.cut(admin, partition, before).await?;
                    format!("partition {partition} starts at offset {log_start}")
                }
                Step::Leave { partition, log_start } => {
                    format!("partition {partition} starts at offset {log_start} already")
                }
            };
            printed = printed.and_then(|()| writeln!(std::io::stdout(), "{line}"));
        }
        Ok(printed?)
    }

    async fn cut(&self, admin: &Admin, partition: u32, before: Option<Offset>) -> Outcome<Offset> {
        let cut = admin.truncate(&self.name, PartitionIndex(partition), before).await;
        // Retention may have been faster, or the shard be gone since.
        cut.map_err(|error| refused(error).about(&format!("partition {partition} of topic {} was not cut", self.name)))
    }

    /// What to do with each partition.
    ///
    /// # Errors
    /// One cannot be cut there, or nothing is known of it.
    fn steps(&self, topic: &TopicDescription) -> Outcome<Vec<Step>> {
        let (name, count) = (&topic.name, topic.partition_count);
        let wanted = match self.partition {
            Some(partition) if count <= partition => {
                return Err(Failure::failed(format!(
                    "topic {name} has no partition {partition}; its number of partitions is {count}, counted from 0"
                )));
            }
            Some(partition) => partition..partition + 1,
            None => 0..count,
        };
        let mut steps = Vec::new();
        let mut beyond: Vec<&PartitionDescription> = Vec::new();
        for partition in wanted {
            let Before::Offset(before) = self.before else {
                steps.push(Step::Cut { partition, before: None });
                continue;
            };
            let Some(known) = topic.partitions.iter().find(|known| known.partition == partition) else {
                return Err(Failure::failed(format!(
                    "nothing was cut: partition {partition} of topic {name} did not say in time where it begins and ends; \
                     try again"
                )));
            };
            if known.durable_end < before {
                beyond.push(known);
            } else if before <= known.log_start {
                steps.push(Step::Leave { partition, log_start: known.log_start });
            } else {
                steps.push(Step::Cut { partition, before: Some(Offset(before)) });
            }
        }
        match beyond[..] {
            [] => Ok(steps),
            [first, ..] => Err(self.refuse_beyond(first, beyond.len() - 1)),
        }
    }

    fn refuse_beyond(&self, found: &PartitionDescription, others: usize) -> Failure {
        let PartitionDescription { partition, log_start, durable_end, .. } = found;
        let others = match others {
            0 => String::new(),
            1 => ", and of one more partition".to_owned(),
            more => format!(", and of {more} more partitions"),
        };
        Failure::failed(format!(
            "nothing was cut: --before lies beyond the end of partition {partition} of topic {}, which goes from {log_start} to \
             {durable_end}{others}; write {durable_end} at most, or end, or name another partition with -p",
            self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{TopicId, TopicName, TopicSettings};

    use super::*;

    /// A topic whose partitions have these log starts and ends.
    fn topic(ranges: &[(u64, u64)]) -> TopicDescription {
        let partition = |(&(log_start, end), partition)| PartitionDescription {
            partition,
            shard: 0,
            log_start,
            durable_end: end,
            log_end: end,
            settled_end: log_start,
            unsettled_bytes: 0,
            disk_bytes: 0,
            segments: 1,
            corrupt: Vec::new(),
            conflated: 0,
        };
        TopicDescription {
            name: TopicName::parse("inputs").unwrap(),
            topic: TopicId(1),
            settings: TopicSettings::default(),
            partition_count: u32::try_from(ranges.len()).unwrap(),
            partitions: ranges.iter().zip(0..).map(partition).collect(),
        }
    }

    fn steps(topic: &TopicDescription, partition: Option<u32>, before: &str) -> Result<Vec<Step>, String> {
        let truncate = Truncate { name: "inputs".to_owned(), partition, before: before.parse().unwrap() };
        truncate.steps(topic).map_err(|failure| failure.to_string())
    }

    #[test]
    fn every_partition_is_looked_at_before_one_is_cut() {
        let topic = topic(&[(0, 10), (7, 20), (2, 3), (0, 0)]);
        let refused = steps(&topic, None, "5").unwrap_err();
        let parts =
            ["nothing was cut", "partition 2 of topic inputs", "from 2 to 3, and of one more partition", "3 at most"];
        assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
        let cut = Step::Cut { partition: 0, before: Some(Offset(5)) };
        assert_eq!(steps(&topic, Some(0), "5"), Ok(vec![cut]));
        assert_eq!(steps(&topic, Some(1), "5"), Ok(vec![Step::Leave { partition: 1, log_start: 7 }]));
        assert_eq!(steps(&topic, None, "end").unwrap().len(), 4);
        assert!(steps(&topic, Some(4), "5").unwrap_err().contains("no partition 4"));
    }

    #[test]
    fn a_partition_that_says_nothing_stops_it_before_the_first_cut() {
        let mut topic = topic(&[(0, 10), (0, 10)]);
        topic.partitions.pop();
        let refused = steps(&topic, None, "5").unwrap_err();
        assert!(refused.contains("nothing was cut") && refused.contains("partition 1"), "{refused}");
    }

    #[test]
    fn what_is_no_offset_says_what_would_be_right() {
        for wrong in ["-1", "latest", ""] {
            let told = wrong.parse::<Before>().unwrap_err();
            assert!(told.contains("an offset such as 1000, or end"), "{told}");
        }
    }
}
