//! The task that waits for what the broker says of each message.

use std::time::{Duration, Instant};

use corelane::{Acks, Delivered};
use corelane_model::MonotonicNanos;
use tokio::sync::mpsc::UnboundedReceiver;

use super::sender::Sent;
use crate::measure::Latency;

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
pub(crate) async fn collect(mut queue: UnboundedReceiver<Vec<Sent>>, origin: Instant, acks: Acks) -> TicketsEnd {
    let mut end = TicketsEnd::default();
    while let Some(together) = queue.recv().await {
        for (due, ticket) in together {
            match ticket.received().await {
                Ok(delivered) => {
                    end.received_count += 1;
                    end.received.record(latency(origin, due, &delivered));
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
                    end.stored.record(latency(origin, due, &delivered));
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
    end
}

/// From the due time to the moment at which the client knew.
fn latency(origin: Instant, due: MonotonicNanos, delivered: &Delivered) -> Duration {
    let known = delivered.known_at.saturating_duration_since(origin);
    known.saturating_sub(Duration::from_nanos(due.0))
}
