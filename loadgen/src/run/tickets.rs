//! The task that waits for what the broker says of each message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corelane::{Acks, Delivered};
use corelane_model::MonotonicNanos;
use tokio::sync::mpsc::UnboundedReceiver;

use super::sender::Sent;
use crate::measure::Latency;
use crate::slice::{SlicedLatency, Slices};

/// What came of all tickets.
#[derive(Debug, Default)]
pub(crate) struct TicketsEnd {
    pub(crate) received: Latency,
    pub(crate) stored: Latency,
    pub(crate) received_count: u64,
    pub(crate) stored_count: u64,
    pub(crate) failed: u64,
    pub(crate) first_failure: Option<String>,
    /// When the last message was stored, in nanoseconds since the origin.
    pub(crate) last_stored: u64,
}

/// Waits for every ticket, in the order of sending, until the sender is gone.
pub(crate) async fn collect(
    mut queue: UnboundedReceiver<Vec<Sent>>,
    origin: Instant,
    slices: Arc<Slices>,
    acks: Acks,
) -> TicketsEnd {
    let mut end = TicketsEnd::default();
    let [mut received, mut stored] = [Arc::clone(&slices), slices].map(SlicedLatency::new);
    while let Some(together) = queue.recv().await {
        for (due, ticket) in together {
            match ticket.received().await {
                Ok(delivered) => {
                    end.received_count += 1;
                    received.record(due.0, latency(origin, due, &delivered), 1);
                }
                Err(error) => {
                    end.failed += 1;
                    end.first_failure.get_or_insert_with(|| error.to_string());
                    continue;
                }
            }
            if acks == Acks::Received {
                continue;
            }
            match ticket.stored().await {
                Ok(delivered) => {
                    end.stored_count += 1;
                    stored.record(due.0, latency(origin, due, &delivered), 1);
                    let known = delivered.known_at.saturating_duration_since(origin).as_nanos();
                    end.last_stored = end.last_stored.max(u64::try_from(known).unwrap_or(u64::MAX));
                }
                Err(error) => {
                    end.failed += 1;
                    end.first_failure.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }
    TicketsEnd { received: received.finish(), stored: stored.finish(), ..end }
}

/// Nanoseconds from the due time to the moment at which the client knew.
fn latency(origin: Instant, due: MonotonicNanos, delivered: &Delivered) -> u64 {
    let known = delivered.known_at.saturating_duration_since(origin);
    u64::try_from(known.saturating_sub(Duration::from_nanos(due.0)).as_nanos()).unwrap_or(u64::MAX)
}
