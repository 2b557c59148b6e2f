//! `corelane group …`.

mod show;

use std::io::Write;

use clap::{Args, Subcommand};
use corelane::{GroupChange, Groups, PartitionIndex};
use corelane_broker::quantity::Span;
use corelane_model::Strategy;
use corelane_model::limits::{GROUP_RETENTION_MAX, GROUP_RETENTION_MIN, GROUP_STANDBYS_MAX};
use serde_json::{Value, json};

use super::consume::group::outcome;
use super::consume::{Wanted, wall_clock};
use super::examples;
use crate::bounds::{partition_index, within};
use crate::failure::{Failure, Outcome, refused};
use crate::start::From;
use crate::target::{SharedTarget, run};

#[expect(clippy::cast_possible_truncation, reason = "3")]
const STANDBYS_MAX: u8 = GROUP_STANDBYS_MAX as u8;

/// List, describe, move, drain, alter and delete consumer groups, while they run.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane group list                            what is there",
    "corelane group describe scores                 members, offsets and lag",
    "corelane group seek scores inputs --to -5m     the last five minutes again",
))]
pub(crate) struct Group {
    #[command(flatten)]
    target: SharedTarget,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(List),
    Describe(Describe),
    Seek(Seek),
    Reset(Reset),
    Drain(Drain),
    Resume(Resume),
    Alter(Alter),
    Delete(Delete),
}

/// List all groups.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane group list",
    "corelane group list --json",
    "corelane group list --broker 127.0.0.1:9000",
))]
struct List {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Describe a group: its members, and its partitions with owner, committed offset and lag.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane group describe scores",
    "corelane group describe scores --json",
    "corelane group describe scores --broker 127.0.0.1:9000",
    "watch -n1 corelane group describe scores       lag as it falls",
))]
struct Describe {
    /// Its name.
    group: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Put committed offsets somewhere else; nobody may have the partitions: stop the members, or drain the group.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane group seek scores inputs --to earliest   everything again",
    "corelane group seek scores inputs -p 3 --to 1000  partition 3 from 1000 on",
    "corelane group seek scores inputs --to -5m        the last five minutes again",
))]
struct Seek {
    /// The group; it is made if there is none.
    group: String,
    /// The topic.
    topic: String,
    /// Only this partition; may be given several times. All when it is left out.
    #[arg(short, long = "partition", value_name = "PARTITION", value_parser = partition_index())]
    partitions: Vec<u32>,
    /// Where to: earliest, latest, an offset, a time ago such as -5m, or @ and milliseconds since 1970.
    #[arg(long, value_name = "START", allow_hyphen_values = true)]
    to: From,
    /// Which records the members read: the latest of committed ones lies before the first open transaction.
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Wanted::Uncommitted)]
    isolation: Wanted,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
}

/// Forget committed offsets, so that members begin by their reset policy; nobody may have the partitions.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane group reset scores inputs             all partitions of inputs",
    "corelane group reset scores inputs -p 3        partition 3",
    "corelane group seek scores inputs --to latest  to name the place instead",
))]
struct Reset {
    /// The group.
    group: String,
    /// The topic.
    topic: String,
    /// Only this partition; may be given several times. All when it is left out.
    #[arg(short, long = "partition", value_name = "PARTITION", value_parser = partition_index())]
    partitions: Vec<u32>,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
}

/// Ask everything back from the members and wait until nobody has anything. They stay, and nobody may join until resume.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane group drain scores",
    "corelane group drain scores && corelane group seek scores inputs --to earliest",
    "corelane group resume scores                   to go on",
))]
struct Drain {
    /// The group.
    group: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Assign again after a drain.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane group resume scores",
    "corelane group resume scores --broker 127.0.0.1:9000",
    "corelane group drain scores                    the other way",
))]
struct Resume {
    /// The group.
    group: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Change a group's settings while its members go on.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane group alter scores --strategy weighted    by declared capacity",
    "corelane group alter scores --standbys 1           one member follows each",
    "corelane group alter scores --retention 30d        keep offsets for longer",
))]
struct Alter {
    /// The group; it is made if there is none.
    group: String,
    /// How partitions are assigned: range, round-robin, sticky, cooperative-sticky, weighted or least-response-time.
    #[arg(long, value_name = "STRATEGY", value_parser = Strategy::parse)]
    strategy: Option<Strategy>,
    /// How many members follow each partition so that they can take it over warm, 0 to 3.
    #[arg(long, value_name = "N", value_parser = within(0, STANDBYS_MAX))]
    standbys: Option<u8>,
    /// How long committed offsets are kept without members.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = within(Span(GROUP_RETENTION_MIN), Span(GROUP_RETENTION_MAX))
    )]
    retention: Option<Span>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Delete a group without members, or a drained one, with its committed offsets; or a static member that will not come
/// back.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane group delete scores",
    "corelane group delete scores --static-id gateway-3    only that member",
    "corelane group drain scores && corelane group delete scores",
))]
struct Delete {
    /// The group.
    group: String,
    /// Only the member of this static id; others get its partitions at once.
    #[arg(long, value_name = "ID")]
    static_id: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Group {
    pub(crate) fn run(self) -> Outcome {
        run(async {
            let client = self.target.connect().await?;
            let groups = client.groups();
            let done = match self.action {
                Action::List(list) => list.run(&groups).await,
                Action::Describe(describe) => describe.run(&groups).await,
                Action::Seek(seek) => seek.run(&groups).await,
                Action::Reset(reset) => reset.run(&groups).await,
                Action::Drain(drain) => drain.run(&groups).await,
                Action::Resume(resume) => resume.run(&groups).await,
                Action::Alter(alter) => alter.run(&groups).await,
                Action::Delete(delete) => delete.run(&groups).await,
            };
            drop(groups);
            client.close().await;
            done
        })
    }
}

impl List {
    async fn run(self, groups: &Groups) -> Outcome {
        let list = groups.list().await.map_err(refused)?;
        show::list(&list, self.json)
    }
}

impl Describe {
    async fn run(self, groups: &Groups) -> Outcome {
        let group = outcome(groups.describe(&self.group).await)?;
        show::description(&group, self.json)
    }
}

impl Seek {
    async fn run(self, groups: &Groups) -> Outcome {
        let to = self.to.to_model(wall_clock());
        let put = outcome(
            groups.seek(&self.group, &self.topic, &indexes(&self.partitions), to, self.isolation.to_model()).await,
        )?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let put = put.iter().map(|(partition, offset)| json!({ "partition": partition.0, "offset": offset.0 }));
            writeln!(out, "{:#}", put.collect::<Value>())?;
            return Ok(());
        }
        for (partition, offset) in put {
            writeln!(out, "{} partition {partition} begins at offset {offset}", self.topic)?;
        }
        Ok(())
    }
}

impl Reset {
    async fn run(self, groups: &Groups) -> Outcome {
        let forgotten = outcome(groups.reset(&self.group, &self.topic, &indexes(&self.partitions)).await)?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let forgotten = forgotten.iter().map(|partition| Value::from(partition.0));
            writeln!(out, "{:#}", forgotten.collect::<Value>())?;
            return Ok(());
        }
        for partition in forgotten {
            writeln!(out, "{} partition {partition} has no committed offset", self.topic)?;
        }
        Ok(())
    }
}

impl Drain {
    async fn run(self, groups: &Groups) -> Outcome {
        outcome(groups.drain(&self.group).await)?;
        tell(self.json, || json!({ "group": self.group, "done": "drained" }))
    }
}

impl Resume {
    async fn run(self, groups: &Groups) -> Outcome {
        outcome(groups.resume(&self.group).await)?;
        tell(self.json, || json!({ "group": self.group, "done": "resumed" }))
    }
}

impl Alter {
    async fn run(self, groups: &Groups) -> Outcome {
        let change = GroupChange {
            strategy: self.strategy,
            standbys: self.standbys,
            retention: self.retention.map(|span| span.0),
        };
        if change == GroupChange::default() {
            return Err(Failure::usage("nothing to change: give --strategy, --standbys or --retention"));
        }
        outcome(groups.alter(&self.group, change).await)?;
        tell(self.json, || {
            json!({
                "group": self.group,
                "done": "altered",
                "strategy": change.strategy.map(Strategy::name),
                "standbys": change.standbys,
                "retention_ms": change.retention.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            })
        })
    }
}

impl Delete {
    async fn run(self, groups: &Groups) -> Outcome {
        match &self.static_id {
            Some(id) => outcome(groups.remove_static(&self.group, id).await)?,
            None => outcome(groups.delete(&self.group).await)?,
        }
        tell(self.json, || json!({ "group": self.group, "done": "deleted", "static_id": self.static_id }))
    }
}

/// Says as a JSON object what was done; without `--json` silence says it.
pub(super) fn tell(is_json: bool, done: impl FnOnce() -> Value) -> Outcome {
    if is_json {
        writeln!(std::io::stdout(), "{:#}", done())?;
    }
    Ok(())
}

fn indexes(partitions: &[u32]) -> Vec<PartitionIndex> {
    partitions.iter().copied().map(PartitionIndex).collect()
}
