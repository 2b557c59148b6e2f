//! Batches of a transaction that are on their way.

use std::collections::VecDeque;

use corelane_client_core::{Answer, Request, RequestError};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::client::Handle;

/// Batches that were not answered, in the order in which they left.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    batches: VecDeque<oneshot::Receiver<Result<Answer, RequestError>>>,
}

impl InFlight {
    /// A batch leaves; those of one partition stay in order.
    pub(super) fn begin(&mut self, handle: &Handle, request: Request) {
        self.batches.push_back(crate::admin::begin(handle, request));
    }

    /// Waits until fewer than `limit` are on their way; all before them are durable then. May be dropped at any time.
    ///
    /// # Errors
    /// The first that was refused or not answered; those behind it are still on their way.
    pub(super) async fn wait(&mut self, limit: usize) -> Result<(), RequestError> {
        while limit <= self.batches.len() {
            let Some(first) = self.batches.front_mut() else { break };
            let answered = first.await.unwrap_or(Err(RequestError::Closed));
            self.batches.pop_front();
            answered?;
        }
        Ok(())
    }

    /// Takes what is answered already.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub(super) fn look(&mut self) -> Result<(), RequestError> {
        while let Some(first) = self.batches.front_mut() {
            let answered = match first.try_recv() {
                Ok(answered) => answered,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => Err(RequestError::Closed),
            };
            self.batches.pop_front();
            answered?;
        }
        Ok(())
    }
}
