//! Records handed to a command: the lease lasts as long as the command runs.

use std::future::pending;
use std::io::Write;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use corelane::{Lease, Leased, LeasedRecord, Nack, QueueConsumer, VerdictError, VerdictTicket};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Named;
use crate::failure::{Failure, Outcome};

/// Parts of a lease; it is extended after each, so that two extensions may be late.
const LEASE_PARTS: u32 = 3;

/// One record after the other goes to a command.
pub(super) struct Hand<'a> {
    named: &'a Named,
    command: &'a str,
    /// What was said of the record before, while its answer is not here.
    said: Option<(Lease, VerdictTicket)>,
    /// Records that a command was given and of which nothing can be said any more.
    lost: u64,
}

impl<'a> Hand<'a> {
    pub(super) const fn new(named: &'a Named, command: &'a str) -> Self {
        Self { named, command, said: None, lost: 0 }
    }

    /// Waits until what was said of the record before is durable; tells people if nothing came of it.
    pub(super) async fn settle(&mut self) {
        let Some((lease, ticket)) = &self.said else { return };
        let (lease, settled) = (*lease, ticket.durable().await);
        self.said = None;
        if let Err(error) = settled {
            self.lose(lease, &error);
        }
    }

    /// What the whole came to, once everything is settled.
    pub(super) fn finish(self) -> Outcome {
        let Named { topic, group } = self.named;
        let lost = match self.lost {
            0 => return Ok(()),
            1 => "1 record was".to_owned(),
            many => format!("{many} records were"),
        };
        Err(Failure::failed(format!(
            "{lost} not acknowledged; leases that end because this machine is too busy to extend them in time can be longer: \
             corelane queue alter {topic} -g {group} --visibility TIME"
        )))
    }

    fn lose(&mut self, lease: Lease, error: &VerdictError) {
        self.lost += 1;
        let (topic, Lease { partition, offset, .. }) = (&self.named.topic, lease);
        let _untold = writeln!(std::io::stderr(), "corelane: not acknowledged: {topic} {partition}@{offset}: {error}");
    }

    /// Hands a record of those that came together to the command, waits for its end, and says of the record what that
    /// means, unless its lease was lost meanwhile.
    pub(super) async fn hand_over(
        &mut self,
        consumer: &QueueConsumer,
        leased: &Leased,
        record: &LeasedRecord<'_>,
    ) -> Outcome {
        let (lease, command) = (record.lease, self.command);
        let child = self.start(record)?;
        let mut ended = pin!(feed(child, record.value.unwrap_or_default()));
        let part = (leased.lease() / LEASE_PARTS).max(Duration::from_millis(1));
        let mut parts = interval_at(Instant::from_std(leased.expires()) - leased.lease().saturating_sub(part), part);
        parts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut extension, mut is_lost) = (None, false);
        let status = loop {
            tokio::select! {
                status = &mut ended => break status,
                _ = parts.tick(), if !is_lost => extension = Some(consumer.extend(lease, leased.lease())),
                Err(error) = answer(extension.as_ref()), if !is_lost => {
                    extension = None;
                    // What the broker refused for another reason is said again after the next part.
                    if !matches!(error, VerdictError::Refused { .. }) {
                        self.lose(lease, &error);
                        is_lost = true;
                    }
                }
            }
        };
        let status = status.map_err(|error| Failure::failed(format!("{command:?}: {error}")))?;
        if !is_lost {
            let ticket = if status.success() {
                consumer.ack(lease)
            } else {
                consumer.nack(lease, Nack::because(format!("the command ended with {status}")))
            };
            self.said = Some((lease, ticket));
        }
        Ok(())
    }

    fn start(&self, record: &LeasedRecord<'_>) -> Outcome<Child> {
        tokio::process::Command::new("sh")
            .args(["-c", self.command])
            .env("CORELANE_KEY", String::from_utf8_lossy(record.key.unwrap_or_default()).replace('\0', ""))
            .env("CORELANE_PARTITION", record.lease.partition.0.to_string())
            .env("CORELANE_OFFSET", record.lease.offset.0.to_string())
            .env("CORELANE_ATTEMPT", record.lease.attempt.to_string())
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::failed(format!("cannot start {:?}: {error}", self.command)))
    }
}

/// Gives a command its input and waits for its end.
async fn feed(mut child: Child, value: &[u8]) -> std::io::Result<ExitStatus> {
    if let Some(mut input) = child.stdin.take() {
        // A command may end without reading what it gets.
        drop(input.write_all(value).await);
    }
    child.wait().await
}

/// Waits until an extension is answered.
async fn answer(extension: Option<&VerdictTicket>) -> Result<(), VerdictError> {
    match extension {
        Some(ticket) => ticket.durable().await,
        None => pending().await,
    }
}
