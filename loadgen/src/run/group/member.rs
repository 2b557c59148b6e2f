//! One member of a group: a connection of its own, at most M messages a second.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use corelane::{Client, Event, GroupConsumer, ResetPolicy};
use tokio::sync::mpsc::UnboundedReceiver;

use super::watch_partitions::Watch;
use super::{AWAY, Counts, RunOptions};
use crate::pacer::RateLimit;
use crate::run::connect;

/// What a member is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Leave in order, come back soon.
    Restart,
    /// Be killed. Only a member process can be.
    Die,
    /// The run is over.
    Leave,
}

/// How a member joins.
#[derive(Clone, Debug)]
pub struct Join {
    /// The topic that it subscribes to.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Its static id, where it has one.
    pub static_id: Option<String>,
    /// Its session time-out.
    pub session_timeout: Duration,
}

impl Join {
    /// Connects and joins.
    pub(super) async fn join(&self, options: &RunOptions) -> anyhow::Result<(Client, GroupConsumer)> {
        let client = connect(options, "corelane-bench-member").await?;
        let mut builder = client
            .group(&self.group)
            .topics([&self.topic])
            .reset(ResetPolicy::Earliest)
            .session_timeout(self.session_timeout)
            .manual_commit();
        if let Some(id) = &self.static_id {
            builder = builder.static_id(id);
        }
        let consumer = builder.join().await?;
        Ok((client, consumer))
    }
}

/// A member within this process.
pub(super) struct GroupMember {
    pub(super) number: u32,
    pub(super) join: Join,
    /// What it takes at most, messages a second.
    pub(super) rate_max: Option<u32>,
    pub(super) options: RunOptions,
    pub(super) counts: Arc<Counts>,
    pub(super) watch: Arc<Watch>,
}

/// What a member found.
#[derive(Debug, Default)]
pub(super) struct MemberEnd {
    pub(super) number: u32,
    pub(super) consumed: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

impl MemberEnd {
    pub(super) fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    pub(super) fn fail(&mut self, error: &impl std::fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

impl GroupMember {
    /// Connects and joins.
    pub(super) async fn join(&self) -> anyhow::Result<(Client, GroupConsumer)> {
        self.join.join(&self.options).await
    }

    /// Reads until it is told to leave.
    pub(super) async fn run(
        self,
        (mut client, mut consumer): (Client, GroupConsumer),
        mut commands: UnboundedReceiver<Command>,
    ) -> MemberEnd {
        let mut end = MemberEnd::new(self.number);
        let mut limit = self.rate_max.map(RateLimit::new);
        let begin = Instant::now();
        loop {
            let command = tokio::select! {
                biased;
                command = commands.recv() => command.unwrap_or(Command::Leave),
                event = consumer.next() => {
                    match event {
                        Some(Ok(event)) => {
                            if let Some(wait) = self.take(&mut consumer, &event, &mut end, &mut limit, begin) {
                                tokio::time::sleep(wait).await;
                            }
                        }
                        Some(Err(error)) => end.fail(&error),
                        None => return end,
                    }
                    continue;
                }
            };
            let is_coming_back = command == Command::Restart;
            let is_static = self.join.static_id.is_some();
            let left = if is_coming_back && is_static { consumer.detach().await } else { consumer.close().await };
            if let Err(error) = left {
                end.fail(&error);
            }
            client.close().await;
            if !is_coming_back {
                return end;
            }
            tokio::time::sleep(AWAY).await;
            match self.join().await {
                Ok(joined) => (client, consumer) = joined,
                Err(error) => {
                    end.fail(&error);
                    return end;
                }
            }
        }
    }

    /// Takes an event in; returns how long the member must pause to keep its rate.
    fn take(
        &self,
        consumer: &mut GroupConsumer,
        event: &Event,
        end: &mut MemberEnd,
        limit: &mut Option<RateLimit>,
        begin: Instant,
    ) -> Option<Duration> {
        match event {
            Event::Batch(batch) => {
                let records = batch.iter().map(|record| (record.key, record.value));
                let took = self.watch.on_records(batch.partition().0, records);
                consumer.commit_batch(batch);
                end.consumed += took;
                self.counts.consumed.fetch_add(took, Ordering::Relaxed);
                let now = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                limit.as_mut().map(|limit| limit.take(now, took)).filter(|wait| !wait.is_zero())
            }
            Event::Assigned(assigned) => {
                for one in assigned {
                    self.watch.on_assigned(self.number, one.partition.partition.0);
                }
                None
            }
            _ => None,
        }
    }
}
