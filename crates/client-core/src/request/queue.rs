//! Requests about shared queues, and their answers.

use corelane_model::CorrelationId;
use corelane_wire::{
    AlterQueue, DeleteQueue, DescribeQueue, DescribeQueueAnswer, Frame, ListQueues, ListQueuesAnswer, OutFrame,
    QueueDone, QueueRedriven, RedriveQueue, decode, encode,
};

/// A request about shared queues, in the words of the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what its frame says")]
pub enum QueueRequest {
    List(ListQueues),
    Describe(DescribeQueue),
    Alter(AlterQueue),
    Redrive(RedriveQueue),
    Delete(DeleteQueue),
}

/// The answer to a [`QueueRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueAnswer {
    /// To [`QueueRequest::List`].
    Queues(ListQueuesAnswer),
    /// To [`QueueRequest::Describe`].
    Description(Box<DescribeQueueAnswer>),
    /// To [`QueueRequest::Redrive`].
    Redriven(QueueRedriven),
    /// To all others: it is done.
    Done,
}

impl QueueRequest {
    /// Whether it changes nothing and may be repeated.
    pub(crate) const fn is_read(&self) -> bool {
        matches!(self, Self::List(_) | Self::Describe(_))
    }

    pub(crate) fn encode(&self, correlation: CorrelationId) -> OutFrame {
        match self {
            Self::List(body) => encode(correlation, body),
            Self::Describe(body) => encode(correlation, body),
            Self::Alter(body) => encode(correlation, body),
            Self::Redrive(body) => encode(correlation, body),
            Self::Delete(body) => encode(correlation, body),
        }
    }

    /// The answer that belongs to it; `None` if the frame is anything else.
    pub(crate) fn read_answer(&self, frame: &Frame) -> Option<QueueAnswer> {
        Some(match self {
            Self::List(_) => QueueAnswer::Queues(decode::<ListQueuesAnswer>(frame).ok()?),
            Self::Describe(_) => QueueAnswer::Description(Box::new(decode::<DescribeQueueAnswer>(frame).ok()?)),
            Self::Redrive(_) => QueueAnswer::Redriven(decode::<QueueRedriven>(frame).ok()?),
            Self::Alter(_) | Self::Delete(_) => {
                decode::<QueueDone>(frame).ok()?;
                QueueAnswer::Done
            }
        })
    }
}
