//! Dead letters on their way back, step by step.

use corelane_client_core::{QueueAnswer, QueueRequest, RequestError};
use corelane_wire::RedriveQueue;

use crate::{QueueError, Queues};

/// A redrive that is asked for step by step; from [`Queues::redrive_steps`]. Between two steps, and when it is dropped, each
/// dead letter is either back or still to be put back.
#[derive(Debug)]
#[must_use = "nothing happens before `next`"]
pub struct RedriveSteps {
    queues: Queues,
    request: RedriveQueue,
    /// How many more may be put back.
    left: u64,
    records: u64,
    is_over: bool,
}

impl RedriveSteps {
    pub(crate) const fn new(queues: Queues, group: String, topic: String, most: Option<u64>) -> Self {
        let left = match most {
            Some(most) => most,
            None => u64::MAX,
        };
        let request = RedriveQueue { group, topic, most: left, partition: 0, end: None };
        Self { queues, request, left, records: 0, is_over: left == 0 }
    }

    /// Takes a step, of at most 1,024 records and about a second: how many records it put back, all durable. `None` when
    /// nothing is left to do. What dies again meanwhile is left for another redrive. Dropped before it answers, it is carried
    /// out all the same.
    ///
    /// # Errors
    /// There is no such queue, it has no dead-letter topic, another redrive of it runs, something went wrong at the broker,
    /// or there is no answer. It is over then; what was put back stays, and another redrive goes on there.
    pub async fn next(&mut self) -> Option<Result<u64, QueueError>> {
        if self.is_over {
            return None;
        }
        // Until there is a good answer.
        self.is_over = true;
        let answer = match self.queues.ask(QueueRequest::Redrive(self.request.clone())).await {
            Ok(QueueAnswer::Redriven(answer)) => answer,
            Ok(_) => return Some(Err(RequestError::Malformed.into())),
            Err(error) => return Some(Err(error.into())),
        };
        self.records += answer.records;
        if !answer.stopped.is_empty() {
            return Some(Err(QueueError::RedriveStopped { text: answer.stopped }));
        }
        self.left = self.left.saturating_sub(answer.records);
        self.is_over = answer.is_over || self.left == 0;
        (self.request.most, self.request.partition, self.request.end) = (self.left, answer.partition, answer.end);
        Some(Ok(answer.records))
    }

    /// How many records the steps have put back until now.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }
}
