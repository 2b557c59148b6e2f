//! One reader: a connection of its own, a judge of its own, histograms of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use corelane::{Client, Consumer, PartitionIndex, StartAt};
use tokio::sync::watch;

use super::Counts;
use crate::measure::Latency;
use crate::pacer::RateLimit;
use crate::plan::{Plan, ReaderPlan, Reading};
use crate::slice::{SlicedLatency, Slices};
use crate::verify::Verifier;

/// A reader that has subscribed.
pub(crate) struct Reader {
    plan: ReaderPlan,
    consumer: Option<Consumer>,
    /// Keeps the connection.
    _client: Client,
    verifier: Option<Verifier>,
    counts: Arc<Counts>,
    reading: Reading,
}

/// What a reader found.
#[derive(Debug)]
pub(crate) struct ReaderEnd {
    pub(crate) verifier: Verifier,
    pub(crate) latency: Latency,
    /// When the last good message came, in nanoseconds since the origin; 0 when reading comes afterwards.
    pub(crate) last: u64,
}

impl Reader {
    /// Subscribes to the partitions of `plan` from their beginning.
    pub(crate) async fn open(
        client: &Client,
        topic: &str,
        reader: &ReaderPlan,
        plan: &Plan,
        counts: Arc<Counts>,
    ) -> anyhow::Result<Self> {
        let partitions = reader.partitions.iter().map(|&partition| PartitionIndex(partition));
        let consumer = client.consumer(topic).partitions(partitions).from(StartAt::Earliest).open().await?;
        let verifier = Verifier::new(plan.streams.len(), plan.streams_of(reader));
        Ok(Self {
            plan: reader.clone(),
            consumer: Some(consumer),
            _client: client.clone(),
            verifier: Some(verifier),
            counts,
            reading: plan.reading,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.plan.name
    }

    pub(crate) const fn rate_max(&self) -> Option<u32> {
        self.plan.rate_max
    }

    /// Reads until it is told to stop.
    pub(crate) async fn run(
        mut self,
        origin: Instant,
        slices: Arc<Slices>,
        mut stop: watch::Receiver<bool>,
    ) -> (Self, ReaderEnd) {
        let mut latency = SlicedLatency::new(slices);
        let mut consumer = self.consumer.take().expect("a reader runs once");
        let verifier = self.verifier.take().expect("a reader runs once");
        let mut end = ReaderEnd { verifier, latency: Latency::default(), last: 0 };
        let mut limit = self.plan.rate_max.map(RateLimit::new);
        loop {
            let next = tokio::select! {
                biased;
                next = consumer.next() => next,
                _ = stop.changed() => None,
            };
            let Some(next) = next else {
                return (self, ReaderEnd { latency: latency.finish(), ..end });
            };
            let batch = match next {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(reader = %self.plan.name, %error, "a subscription ended");
                    continue;
                }
            };
            let now = nanos(origin.elapsed());
            let before = end.verifier.consumed();
            for record in &batch {
                if let Some(due) = end.verifier.judge(record.key, record.value)
                    && self.reading == Reading::Live
                {
                    latency.record(due.0, now.saturating_sub(due.0), 1);
                    end.last = now;
                }
            }
            let took = end.verifier.consumed() - before;
            self.counts.consumed.fetch_add(took, Ordering::Relaxed);
            drop(batch);
            if let Some(wait) = limit.as_mut().map(|limit| limit.take(now, took))
                && !wait.is_zero()
            {
                tokio::time::sleep(wait).await;
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
