//! Tickets: what became of a record.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use corelane_client_core::{DeliveryError, Placement, ProducerKey};
use corelane_model::{Offset, PartitionIndex, TopicClass, WallMillis};

/// Where a record lies, and since when that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its partition.
    pub partition: PartitionIndex,
    /// Its offset.
    pub offset: Offset,
    /// When the broker took it.
    pub append_timestamp: WallMillis,
    /// When this client learned of it.
    pub known_at: Instant,
}

/// What is known about a batch, shared by the tickets of its records.
#[derive(Debug)]
pub(crate) struct BatchCell {
    pub(crate) producer: ProducerKey,
    class: TopicClass,
    state: Mutex<CellState>,
}

#[derive(Debug, Default)]
struct CellState {
    received: Option<(Placement, Instant)>,
    end: Option<Result<End, DeliveryError>>,
    wakers: Vec<Waker>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    placement: Placement,
    known_at: Instant,
    is_stored: bool,
}

impl BatchCell {
    pub(crate) fn new(producer: ProducerKey, class: TopicClass) -> Self {
        Self { producer, class, state: Mutex::default() }
    }

    pub(crate) fn on_received(&self, placement: Placement, now: Instant) {
        self.change(|state| state.received = Some((placement, now)));
    }

    pub(crate) fn on_delivered(&self, placement: Placement, is_stored: bool, now: Instant) {
        self.change(|state| state.end = Some(Ok(End { placement, known_at: now, is_stored })));
    }

    pub(crate) fn on_failed(&self, error: DeliveryError) {
        self.change(|state| state.end = Some(Err(error)));
    }

    fn change(&self, change: impl FnOnce(&mut CellState)) {
        let wakers = {
            let mut state = self.state.lock().expect("no panic while it is held");
            change(&mut state);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Polls what `read` looks for; wakes the task when anything changes.
    fn poll<T>(&self, context: &mut Context<'_>, read: impl FnOnce(&CellState) -> Option<T>) -> Poll<T> {
        let mut state = self.state.lock().expect("no panic while it is held");
        if let Some(found) = read(&state) {
            return Poll::Ready(found);
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits for the last word.
    pub(crate) async fn ended(&self) {
        poll_fn(|context| self.poll(context, |state| state.end.as_ref().map(|_| ()))).await;
    }
}

/// A promise about one record. It may be dropped at any time; the record is delivered all the same.
///
/// Awaiting it from several tasks, and more than once, is fine.
#[derive(Clone, Debug)]
pub struct Ticket {
    cell: Arc<BatchCell>,
    index: u32,
    partition: PartitionIndex,
}

impl Ticket {
    pub(crate) const fn new(cell: Arc<BatchCell>, index: u32, partition: PartitionIndex) -> Self {
        Self { cell, index, partition }
    }

    /// The record's partition.
    #[must_use]
    pub const fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// Waits until the partition's owner has the record in memory: it survives the loss of the connection, but not of the
    /// broker. When the producer asks for `stored`, the broker tells both together, or this one after half a millisecond.
    ///
    /// # Errors
    /// The record is not delivered; see [`DeliveryError`].
    pub async fn received(&self) -> Result<Delivered, DeliveryError> {
        poll_fn(|context| self.cell.poll(context, |state| self.read_received(state))).await
    }

    /// Waits until the record is on disk: it survives a crash. On a memory topic this means the same as
    /// [`Self::received`].
    ///
    /// # Errors
    /// The record is not delivered; [`DeliveryError::NotAsked`] when its producer only asked for `received`.
    pub async fn stored(&self) -> Result<Delivered, DeliveryError> {
        poll_fn(|context| self.cell.poll(context, |state| self.read_stored(state))).await
    }

    /// What [`Self::received`] would give, if it is known already.
    #[must_use]
    pub fn try_received(&self) -> Option<Result<Delivered, DeliveryError>> {
        self.read_received(&self.cell.state.lock().expect("no panic while it is held"))
    }

    /// What [`Self::stored`] would give, if it is known already.
    #[must_use]
    pub fn try_stored(&self) -> Option<Result<Delivered, DeliveryError>> {
        self.read_stored(&self.cell.state.lock().expect("no panic while it is held"))
    }

    fn read_received(&self, state: &CellState) -> Option<Result<Delivered, DeliveryError>> {
        match (state.received, &state.end) {
            (Some((placement, known_at)), _) => Some(Ok(self.delivered(placement, known_at))),
            (None, Some(Ok(end))) => Some(Ok(self.delivered(end.placement, end.known_at))),
            (None, Some(Err(error))) => Some(Err(error.clone())),
            (None, None) => None,
        }
    }

    fn read_stored(&self, state: &CellState) -> Option<Result<Delivered, DeliveryError>> {
        match state.end.as_ref()? {
            Ok(end) if end.is_stored || !self.cell.class.is_durable() => {
                Some(Ok(self.delivered(end.placement, end.known_at)))
            }
            Ok(_) => Some(Err(DeliveryError::NotAsked)),
            Err(error) => Some(Err(error.clone())),
        }
    }

    fn delivered(&self, placement: Placement, known_at: Instant) -> Delivered {
        Delivered {
            partition: self.partition,
            offset: placement.base_offset.advance(u64::from(self.index)),
            append_timestamp: placement.append_timestamp,
            known_at,
        }
    }
}
