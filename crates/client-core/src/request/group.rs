//! Requests about consumer groups, and their answers.

use corelane_model::{CorrelationId, Generation};
use corelane_wire::{
    AlterGroup, DeleteGroup, DescribeGroup, DescribeGroupAnswer, DrainGroup, FetchOffsets, FetchOffsetsAnswer, Frame,
    GroupDone, ListGroups, ListGroupsAnswer, OutFrame, RemoveStaticMember, ResetOffsets, ResumeGroup, decode, encode,
};

/// A request about consumer groups, in the words of the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what its frame says")]
pub enum GroupRequest {
    List(ListGroups),
    Describe(DescribeGroup),
    FetchOffsets(FetchOffsets),
    ResetOffsets(ResetOffsets),
    Alter(AlterGroup),
    Drain(DrainGroup),
    Resume(ResumeGroup),
    Delete(DeleteGroup),
    RemoveStaticMember(RemoveStaticMember),
}

/// The answer to a [`GroupRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAnswer {
    /// To [`GroupRequest::List`].
    Groups(ListGroupsAnswer),
    /// To [`GroupRequest::Describe`].
    Description(Box<DescribeGroupAnswer>),
    /// To [`GroupRequest::FetchOffsets`].
    Offsets(FetchOffsetsAnswer),
    /// To all others: it is done.
    Done {
        /// The group's generation at that moment.
        generation: Generation,
    },
}

impl GroupRequest {
    /// Whether it changes nothing and may be repeated.
    pub(crate) const fn is_read(&self) -> bool {
        matches!(self, Self::List(_) | Self::Describe(_) | Self::FetchOffsets(_))
    }

    pub(crate) fn encode(&self, correlation: CorrelationId) -> OutFrame {
        match self {
            Self::List(body) => encode(correlation, body),
            Self::Describe(body) => encode(correlation, body),
            Self::FetchOffsets(body) => encode(correlation, body),
            Self::ResetOffsets(body) => encode(correlation, body),
            Self::Alter(body) => encode(correlation, body),
            Self::Drain(body) => encode(correlation, body),
            Self::Resume(body) => encode(correlation, body),
            Self::Delete(body) => encode(correlation, body),
            Self::RemoveStaticMember(body) => encode(correlation, body),
        }
    }

    /// The answer that belongs to it; `None` if the frame is anything else.
    pub(crate) fn read_answer(&self, frame: &Frame) -> Option<GroupAnswer> {
        Some(match self {
            Self::List(_) => GroupAnswer::Groups(decode::<ListGroupsAnswer>(frame).ok()?),
            Self::Describe(_) => GroupAnswer::Description(Box::new(decode::<DescribeGroupAnswer>(frame).ok()?)),
            Self::FetchOffsets(_) => GroupAnswer::Offsets(decode::<FetchOffsetsAnswer>(frame).ok()?),
            _ => GroupAnswer::Done { generation: Generation(decode::<GroupDone>(frame).ok()?.generation) },
        })
    }
}
