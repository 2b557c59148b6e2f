//! `corelane topic …`.

mod settings;
mod truncate;

use std::io::Write;

use clap::{Args, Subcommand};
use corelane::{Admin, TopicDescription};
use corelane_broker::quantity::ByteSize;
use corelane_model::TopicClass;
use corelane_model::limits::TOPIC_PARTITIONS_MAX;
use serde_json::{Value, json};

use self::settings::{Class, SettingsArgs};
use super::examples;
use crate::bounds::within;
use crate::failure::{Failure, Outcome, refused};
use crate::table;
use crate::target::{SharedTarget, run};

/// Create, list, describe, alter, truncate and delete topics, while the broker runs.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane topic create inputs -p 8 --retention 7d   eight partitions",
    "corelane topic list                                what is there",
    "corelane topic describe inputs                     partition by partition",
))]
pub(crate) struct Topic {
    #[command(flatten)]
    target: SharedTarget,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    List(List),
    Describe(Describe),
    Alter(Alter),
    Truncate(truncate::Truncate),
    Delete(Delete),
}

/// Create a topic.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane topic create inputs -p 8                  durable, for a week",
    "corelane topic create log --retention-bytes 10GiB  bounded by size too",
    "corelane topic create profiles --cleanup compact   newest of each key stays",
    "corelane topic create states --class latest        newest, in memory only",
))]
struct Create {
    /// Its name: 1 to 249 of a-z A-Z 0-9 . _ -
    name: String,
    /// How many partitions; records with one key stay in one partition, in order.
    #[arg(short, long, default_value_t = 1, value_name = "N", value_parser = within(1, TOPIC_PARTITIONS_MAX))]
    partitions: u32,
    /// What its records survive.
    #[arg(long, value_enum, default_value_t = Class::Durable)]
    class: Class,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// List all topics.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane topic list",
    "corelane topic list --json",
    "corelane topic list --broker 127.0.0.1:9000",
))]
struct List {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Describe a topic: its settings, and its partitions with owner, offsets and sizes.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane topic describe inputs",
    "corelane topic describe inputs --json",
    "corelane topic describe inputs --broker 127.0.0.1:9000",
))]
struct Describe {
    /// Its name.
    name: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Change a topic: more partitions, or other settings. With more partitions keys go to other partitions than before.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane topic alter inputs -p 16                  more partitions",
    "corelane topic alter inputs --retention 2d         keep for less long",
    "corelane topic alter inputs --retention forever    keep everything",
))]
struct Alter {
    /// Its name.
    name: String,
    /// The new number of partitions; never fewer than today.
    #[arg(short, long, value_name = "N", value_parser = within(1, TOPIC_PARTITIONS_MAX))]
    partitions: Option<u32>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Delete a topic and its records.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane topic delete inputs",
    "corelane topic delete inputs --broker 127.0.0.1:9000",
    "corelane topic truncate inputs --before end   to keep the topic",
))]
struct Delete {
    /// Its name.
    name: String,
}

impl Topic {
    pub(crate) fn run(self) -> Outcome {
        if let Action::Alter(alter) = &self.action {
            alter.check()?;
        }
        run(async {
            let client = self.target.connect().await?;
            let admin = client.admin();
            let outcome = match self.action {
                Action::Create(create) => create.run(&admin).await,
                Action::List(list) => list.run(&admin).await,
                Action::Describe(describe) => describe.run(&admin).await,
                Action::Alter(alter) => alter.run(&admin).await,
                Action::Truncate(truncate) => truncate.run(&admin).await,
                Action::Delete(delete) => admin.delete_topic(&delete.name).await.map_err(refused),
            };
            drop(admin);
            client.close().await;
            outcome
        })
    }
}

impl Create {
    async fn run(self, admin: &Admin) -> Outcome {
        let settings = self.settings.create(self.class.into()).map_err(Failure::usage)?;
        admin.create_topic(&self.name, self.partitions, settings).await.map_err(refused)?;
        Ok(())
    }
}

impl List {
    async fn run(self, admin: &Admin) -> Outcome {
        let list = admin.list_topics().await.map_err(refused)?;
        let topics = &list.topics;
        let mut out = std::io::stdout().lock();
        if self.json {
            let objects = topics.iter().map(|topic| {
                json!({
                    "name": topic.name.as_str(),
                    "id": topic.topic.0,
                    "partitions": topic.partitions(),
                    "settings": settings_json(&topic.settings),
                })
            });
            let topics: Value = objects.collect();
            writeln!(out, "{:#}", json!({ "topics": topics, "is_cut": list.is_cut }))?;
            return cut(list.is_cut);
        }
        let rows: Vec<Vec<String>> = topics
            .iter()
            .map(|topic| {
                vec![topic.name.to_string(), topic.partitions().to_string(), settings::describe(&topic.settings)]
            })
            .collect();
        table::print(&mut out, &["TOPIC", "PARTITIONS", "SETTINGS"], &rows)?;
        cut(list.is_cut)
    }
}

/// Says on standard error that a list is not whole.
fn cut(is_cut: bool) -> Outcome {
    if is_cut {
        writeln!(std::io::stderr(), "warning: there are more topics than one answer holds; the list is cut")?;
    }
    Ok(())
}

fn settings_json(settings: &corelane_model::TopicSettings) -> Value {
    json!({
        "class": settings::class(settings),
        "cleanup": settings::cleanup(settings),
        "tombstone_ms": settings.needs_keys().then_some(settings.tombstone_ms),
        "retention_ms": settings.retention_ms,
        "retention_bytes": settings.retention_bytes,
        "segment_bytes": (settings.class == TopicClass::Durable).then_some(settings.segment_bytes),
        "dedup_window_ms": settings.dedup_window_ms,
        "dedup_count": settings.dedup_count,
    })
}

impl Describe {
    async fn run(self, admin: &Admin) -> Outcome {
        let topic = admin.describe_topic(&self.name).await.map_err(refused)?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", description_json(&topic))?;
            return Ok(());
        }
        writeln!(out, "topic {} (id {}): {}", topic.name, topic.topic, settings::describe(&topic.settings))?;
        let mut head = vec![
            "PARTITION",
            "SHARD",
            "LOG START",
            "SETTLED END",
            "DURABLE END",
            "LOG END",
            "UNSETTLED",
            "DISK",
            "SEGMENTS",
        ];
        let mut rows: Vec<Vec<String>> = topic
            .partitions
            .iter()
            .map(|partition| {
                vec![
                    partition.partition.to_string(),
                    partition.shard.to_string(),
                    partition.log_start.to_string(),
                    partition.settled_end.to_string(),
                    partition.durable_end.to_string(),
                    partition.log_end.to_string(),
                    ByteSize(partition.unsettled_bytes).to_string(),
                    ByteSize(partition.disk_bytes).to_string(),
                    partition.segments.to_string(),
                ]
            })
            .collect();
        if topic.settings.class == TopicClass::Latest {
            head.push("CONFLATED");
            rows.iter_mut()
                .zip(&topic.partitions)
                .for_each(|(row, partition)| row.push(partition.conflated.to_string()));
        }
        table::print(&mut out, &head, &rows)?;
        for partition in &topic.partitions {
            for (first, end) in &partition.corrupt {
                writeln!(out, "partition {}: offsets {first} to {end} are damaged on disk", partition.partition)?;
            }
        }
        let missing = topic.partition_count as usize - topic.partitions.len();
        if missing != 0 {
            writeln!(out, "{missing} partitions did not answer in time")?;
        }
        Ok(())
    }
}

fn description_json(topic: &TopicDescription) -> Value {
    let is_latest = topic.settings.class == TopicClass::Latest;
    let partitions = topic.partitions.iter().map(|partition| {
        json!({
            "partition": partition.partition,
            "shard": partition.shard,
            "log_start": partition.log_start,
            "settled_end": partition.settled_end,
            "durable_end": partition.durable_end,
            "log_end": partition.log_end,
            "unsettled_bytes": partition.unsettled_bytes,
            "disk_bytes": partition.disk_bytes,
            "segments": partition.segments,
            "corrupt": partition.corrupt,
            "conflated_records": is_latest.then_some(partition.conflated),
        })
    });
    json!({
        "name": topic.name.as_str(),
        "id": topic.topic.0,
        "settings": settings_json(&topic.settings),
        "partition_count": topic.partition_count,
        "partitions": partitions.collect::<Value>(),
    })
}

impl Alter {
    /// What makes no sense needs no broker to say so.
    fn check(&self) -> Outcome {
        if self.partitions.is_none() && self.settings.is_empty() {
            return Err(Failure::usage(
                "nothing to change: give -p, --retention, --retention-bytes, --segment-bytes, --ttl, --cleanup, \
                 --tombstones, --dedup-window, --dedup-count or --no-dedup",
            ));
        }
        Ok(())
    }

    async fn run(self, admin: &Admin) -> Outcome {
        let settings = if self.settings.is_empty() {
            None
        } else {
            let today = admin.describe_topic(&self.name).await.map_err(refused)?.settings;
            Some(self.settings.alter(today).map_err(Failure::usage)?)
        };
        let keys_moved = admin.alter_topic(&self.name, self.partitions, settings).await.map_err(refused)?;
        if keys_moved {
            let mut err = std::io::stderr().lock();
            writeln!(
                err,
                "warning: keys go to other partitions from now on; records of one key that are there already stay where \
                 they are, so their order across this change is lost"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::TopicSettings;

    use super::*;

    /// A setting in the text and the field of the JSON that says the same.
    const SETTINGS: [(&str, &str); 9] = [
        ("class", "class"),
        ("cleanup", "cleanup"),
        ("retention", "retention_ms"),
        ("ttl", "retention_ms"),
        ("tombstones", "tombstone_ms"),
        ("retention-bytes", "retention_bytes"),
        ("segment-bytes", "segment_bytes"),
        ("dedup-window", "dedup_window_ms"),
        ("dedup-count", "dedup_count"),
    ];

    #[test]
    fn text_and_json_tell_the_same_settings() {
        let kinds =
            [TopicSettings::default(), TopicSettings::compacted(), TopicSettings::memory(), TopicSettings::latest()];
        for kind in kinds {
            for (window, count) in [(None, None), (Some(60_000), Some(7))] {
                let settings = TopicSettings { dedup_window_ms: window, dedup_count: count, ..kind };
                let (text, json) = (settings::describe(&settings), settings_json(&settings));
                let told: Vec<&str> = text.split(", ").filter_map(|part| part.split(' ').next()).collect();
                let field = |name: &str| SETTINGS.iter().find(|setting| setting.0 == name).map(|setting| setting.1);
                for name in &told {
                    let field = field(name).unwrap_or_else(|| panic!("{name} has no field: {text}"));
                    assert!(json.get(field).is_some(), "{name} is not in {json}");
                }
                for (field, value) in json.as_object().unwrap() {
                    let is_told = SETTINGS.iter().any(|setting| setting.1 == field && told.contains(&setting.0));
                    // What a durable topic does without a word in the text.
                    let is_default = field == "cleanup" && value == "delete";
                    assert!(is_told || value.is_null() || is_default, "{field} is not in {text}");
                }
            }
        }
    }
}
