//! `corelane queue …`.

mod consume;
mod exec;
mod redrive;
mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use corelane::{Backoff, Dispatch, MembershipError, QueueError, QueueWish, Queues};
use corelane_broker::quantity::Span;
use corelane_model::TopicName;
use corelane_model::limits::{
    QUEUE_BACKOFF_STEPS_MAX, QUEUE_DELAY_MAX, QUEUE_DELIVERY_LIMIT_MAX, QUEUE_VISIBILITY_MAX, QUEUE_VISIBILITY_MIN,
};
use serde_json::json;

use super::examples;
use super::group::tell;
use crate::bounds::{check, within};
use crate::failure::{Failure, Outcome, refused_as, refused_request};
use crate::target::{SharedTarget, run};

/// Work on topics as shared queues: each record goes to one member for a while, and to another if it is not acknowledged.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane queue consume jobs -g workers            print and acknowledge",
    "corelane queue describe jobs -g workers           backlog, leases, members",
    "corelane queue redrive jobs -g workers            dead letters back",
))]
pub(crate) struct Queue {
    #[command(flatten)]
    target: SharedTarget,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Consume(Box<consume::Consume>),
    List(List),
    Describe(Describe),
    Alter(Alter),
    Redrive(redrive::Redrive),
    Delete(Delete),
}

/// Which queue.
#[derive(Clone, Debug, Args)]
struct Named {
    /// The topic.
    topic: String,
    /// The group whose queue it is.
    #[arg(short = 'g', long = "group", value_name = "GROUP")]
    group: String,
}

/// How a queue is to be.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Queue")]
struct Wishes {
    /// How long a member has a record before it goes to another [default: 30s].
    #[arg(
        long,
        value_name = "TIME",
        value_parser = within(Span(QUEUE_VISIBILITY_MIN), Span(QUEUE_VISIBILITY_MAX))
    )]
    visibility: Option<Span>,
    /// Who gets the next record: round-robin, random, weighted or least-response-time [default: round-robin].
    #[arg(long, value_name = "DISPATCH", value_parser = Dispatch::parse)]
    dispatch: Option<Dispatch>,
    /// Whether records of one key are handed out one after the other [default: false].
    #[arg(long, value_name = "BOOL")]
    order_per_key: Option<bool>,
    /// Deliveries of one record before it becomes a dead letter, 0 for ever [default: 0]; needs --dead-letter.
    #[arg(long, value_name = "N", value_parser = within(0, QUEUE_DELIVERY_LIMIT_MAX))]
    delivery_limit: Option<u32>,
    /// How long a record rests after each failure, such as 1s,5s,1m; or FIRST..CAP, doubling [default: 1s..1m].
    #[arg(long, value_name = "TIMES", value_parser = backoff)]
    backoff: Option<Backoff>,
    /// The topic that dead letters go to.
    #[arg(long, value_name = "TOPIC", value_parser = TopicName::parse)]
    dead_letter: Option<TopicName>,
}

fn backoff(text: &str) -> Result<Backoff, String> {
    let span = within(Span(Duration::ZERO), Span(QUEUE_DELAY_MAX));
    let Some((first, cap)) = text.split_once("..") else {
        let steps: Vec<Duration> = text.split(',').map(|step| Ok(span(step)?.0)).collect::<Result<_, String>>()?;
        check(&steps.len(), &1, &QUEUE_BACKOFF_STEPS_MAX).map_err(|wrong| format!("the number of times {wrong}"))?;
        return Ok(Backoff::Steps(steps));
    };
    let (first, cap) = (span(first)?, span(cap)?);
    if cap < first {
        return Err(format!("in FIRST..CAP the first time of {first} is above the cap of {cap}; write {cap}..{first}"));
    }
    Ok(Backoff::Exponential { first: first.0, cap: cap.0 })
}

impl Wishes {
    fn to_model(&self) -> QueueWish {
        QueueWish {
            visibility: self.visibility.map(|span| span.0),
            dispatch: self.dispatch,
            order_per_key: self.order_per_key,
            delivery_limit: self.delivery_limit,
            backoff: self.backoff.clone(),
            dead_letter: self.dead_letter.clone(),
        }
    }
}

/// List all shared queues.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane queue list",
    "corelane queue list --json",
    "corelane queue list --broker 127.0.0.1:9000",
))]
struct List {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Describe a queue: how it is set, its partitions with what is ready, leased, resting and done, and its members.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane queue describe jobs -g workers",
    "corelane queue describe jobs -g workers --json",
    "corelane queue describe jobs -g workers --broker 127.0.0.1:9000",
    "watch -n1 corelane queue describe jobs -g workers   as it empties",
))]
struct Describe {
    #[command(flatten)]
    named: Named,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Change how a queue is set while its members go on. Leases that are out keep their time.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane queue alter jobs -g workers --visibility 2m",
    "corelane queue alter jobs -g workers --backoff 1s,10s,1m",
    "corelane queue alter jobs -g workers --delivery-limit 5 --dead-letter dead",
))]
struct Alter {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    wishes: Wishes,
    /// Print what was done as a JSON object.
    #[arg(long)]
    json: bool,
}

/// Delete a queue, not its topic.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane queue delete jobs -g workers",
    "corelane queue delete jobs -g workers --force  even with members",
    "corelane topic delete jobs                     the topic itself",
))]
struct Delete {
    #[command(flatten)]
    named: Named,
    /// Even when it has members; they are put out.
    #[arg(long)]
    force: bool,
    /// Print what was done as a JSON object.
    #[arg(long)]
    json: bool,
}

impl Queue {
    pub(crate) fn run(self) -> Outcome {
        run(async {
            let client = self.target.connect().await?;
            let queues = client.queues();
            let done = match self.action {
                Action::Consume(consume) => consume.run(&client).await,
                Action::List(list) => list.run(&queues).await,
                Action::Describe(describe) => describe.run(&queues).await,
                Action::Alter(alter) => alter.run(&queues).await,
                Action::Redrive(redrive) => redrive.run(&queues).await,
                Action::Delete(delete) => delete.run(&queues).await,
            };
            drop(queues);
            client.close().await;
            done
        })
    }
}

impl List {
    async fn run(self, queues: &Queues) -> Outcome {
        show::list(&outcome(queues.list().await)?, self.json)
    }
}

impl Describe {
    async fn run(self, queues: &Queues) -> Outcome {
        let queue = outcome(queues.describe(&self.named.group, &self.named.topic).await)?;
        show::description(&queue, self.json)
    }
}

impl Alter {
    async fn run(self, queues: &Queues) -> Outcome {
        let wish = self.wishes.to_model();
        if wish == QueueWish::default() {
            return Err(Failure::usage(
                "nothing to change: give --visibility, --dispatch, --backoff or another setting",
            ));
        }
        outcome(queues.alter(&self.named.group, &self.named.topic, &wish).await)?;
        self.named.tell(self.json, "altered")
    }
}

impl Delete {
    async fn run(self, queues: &Queues) -> Outcome {
        outcome(queues.delete(&self.named.group, &self.named.topic, self.force).await)?;
        self.named.tell(self.json, "deleted")
    }
}

impl Named {
    /// Says with `--json` what was done.
    fn tell(&self, is_json: bool, done: &str) -> Outcome {
        tell(is_json, || json!({ "group": self.group, "topic": self.topic, "done": done }))
    }
}

/// The outcome of a command about queues.
fn outcome<T>(result: Result<T, QueueError>) -> Outcome<T> {
    result.map_err(|error| match &error {
        QueueError::Topic(_) | QueueError::Name(_) => Failure::usage(error),
        QueueError::Request(error) => refused_request(error),
        QueueError::Membership { error: MembershipError::Refused { code, .. }, .. } => refused_as(*code, &error),
        _ => Failure::failed(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_offs_are_read_as_people_write_them() {
        let seconds = Duration::from_secs;
        assert_eq!(backoff("1s,5s"), Ok(Backoff::Steps(vec![seconds(1), seconds(5)])));
        assert_eq!(backoff("1s..60s"), Ok(Backoff::Exponential { first: seconds(1), cap: seconds(60) }));
        assert!(backoff("soon").is_err());
        assert!(backoff("1s..").is_err());
        let wrong = backoff("5s..1s").unwrap_err();
        assert!(wrong.contains("5s is above the cap of 1s") && wrong.contains("1s..5s"), "{wrong}");
        assert_eq!(backoff("1s,8d"), Err("8d is not between 0ms and 7d".to_owned()));
        assert!(backoff(&["1s"; 33].join(",")).unwrap_err().contains("33 is not between 1 and 32"));
    }
}
