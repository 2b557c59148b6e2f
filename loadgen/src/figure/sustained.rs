//! Ingest for so long that settling and the recycling of journal files are part of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corelane::Acks;
use serde::{Deserialize, Serialize};

use crate::figure::ingest;
use crate::figure::start::{create, fresh};
use crate::server::{Server, ServerOptions, metric};

/// What a long ingest came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sustained {
    /// How long.
    pub seconds: u64,
    /// Records acknowledged as stored, a second.
    pub records_per_s: f64,
    /// How full the journal's ring was, each second, in per mille: a broker that keeps up has it flat.
    pub journal_fill_permille: Vec<f64>,
}

const FILL: &str = "corelane_storage_journal_fill_permille";
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The data is dropped as it comes, a few segments excepted, so that a long run does not fill the disk.
const RETENTION: u64 = 2 << 30;

/// Ingests into one durable partition of a fresh broker.
///
/// # Errors
/// The broker cannot be started, or a record was not delivered.
pub async fn measure(options: &ServerOptions, duration: Duration) -> anyhow::Result<Sustained> {
    fresh(&options.data)?;
    let server = Server::start(options)?;
    let address = format!("corelane://{}", server.quic);
    create(&address, "sustained", 1, Some(RETENTION)).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (is_over, admin) = (Arc::clone(&is_over), server.admin);
        move || {
            let mut fill = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                // A broker that does not answer for once leaves a second out.
                fill.extend(metric(admin, FILL).ok());
                std::thread::sleep(LOOK_EVERY);
            }
            fill
        }
    });
    let measured = ingest::measure(&address, "sustained", Acks::Stored, duration).await;
    is_over.store(true, Ordering::Release);
    let journal_fill_permille = watcher.join().map_err(|_| anyhow::anyhow!("the watcher of the journal panicked"))?;
    let records_per_s = measured?;
    server.stop()?;
    fresh(&options.data)?;
    Ok(Sustained { seconds: duration.as_secs(), records_per_s, journal_fill_permille })
}
