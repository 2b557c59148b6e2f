//! How many committed offsets a second a group takes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use corelane::{Event, Offset, ResetPolicy};
use serde::{Deserialize, Serialize};

use crate::figure::ingest;
use crate::figure::start::{PATIENCE, create, fresh};
use crate::server::{Server, ServerOptions};

/// Commits of one member.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commits {
    /// Commits that the application made: one for each record that it read.
    pub commits: u64,
    /// Offsets that the coordinator wrote for them: commits made while one is on its way are gathered, and the newest of a
    /// partition stands for those before it.
    pub written: u64,
    /// From the first record to the answer that the last commit is durable.
    pub seconds: f64,
    /// Commits a second.
    pub commits_per_s: f64,
}

const TOPIC: &str = "commit";
const GROUP: &str = "commit";
const WRITTEN: &str = "corelane_group_commits_total";

/// Writes `records` records to a fresh broker and reads them as the only member of a group that commits each of them by
/// itself, until the last commit is durable. Then the committed offset is asked for.
///
/// # Errors
/// The broker cannot be started, a commit was refused, or another offset is committed than the last one.
pub async fn measure(options: &ServerOptions, records: u64) -> anyhow::Result<Commits> {
    fresh(&options.data)?;
    let server = Server::start(options)?;
    let address = format!("corelane://{}", server.quic);
    create(&address, TOPIC, 1, None).await?;
    let commits = ingest::fill(&address, TOPIC, records * ingest::RECORD_BYTES as u64).await?;
    let client = super::connect(&address).await?;
    let mut consumer = client.group(GROUP).topics([TOPIC]).reset(ResetPolicy::Earliest).manual_commit().join().await?;
    let (mut first, mut last, mut seen) = (None, None, 0);
    while seen < commits {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.context("no more records come")?;
        let Event::Batch(batch) = next.context("the membership ended")?? else { continue };
        first.get_or_insert_with(Instant::now);
        for record in &batch {
            last = Some(consumer.commit_record(&batch, record.offset));
            seen += 1;
        }
    }
    last.context("nothing was read")?.durable().await?;
    let elapsed = first.map_or(Duration::ZERO, |first| first.elapsed());
    let committed: Vec<Offset> = consumer.committed().await?.values().map(|committed| committed.offset).collect();
    ensure!(committed == [Offset(commits)], "committed is {committed:?}, and {commits} was said to be");
    consumer.close().await?;
    client.close().await;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let written = server.metric(WRITTEN)? as u64;
    server.stop()?;
    fresh(&options.data)?;
    let seconds = elapsed.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts of a run stay below 2^52")]
    let commits_per_s = commits as f64 / seconds;
    Ok(Commits { commits, written, seconds, commits_per_s })
}
