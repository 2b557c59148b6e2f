//! Offsets of a group are put somewhere else, or the group is deleted, mostly after it was drained.
//!
//! ```text
//!            answered, or not                          some more
//!   Drain ─────────────────────▶ Put ──▶ Look ─────────────────▶ Put
//!     ▲                           │       │ else
//!     └── again                   │       ▼
//!                                 │     Resume ── answered, or no such group ──▶ (over)
//!        beside live members: ────┴──▶ (over)
//! ```

use corelane_client_core::{Answer, GroupRequest, Request, RequestError};
use corelane_model::{ErrorCode, GroupName, Offset, PartitionId};
use corelane_wire::{DeleteGroup, DrainGroup, FetchOffsets, OffsetReset, ResetOffsets, ResumeGroup};

use crate::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Drain,
    Put,
    Delete,
    Look,
    Resume,
}

/// What an operator is at with a group.
#[derive(Debug)]
pub(super) struct Moving {
    step: Step,
    /// It asked to drain, so it has to resume.
    is_to_resume: bool,
}

impl Moving {
    pub(super) fn draw(random: &mut Random) -> Self {
        let step = match random.within(0..6) {
            // What is asked beside live members has to be refused.
            0 => Step::Put,
            1 => Step::Delete,
            _ => Step::Drain,
        };
        Self { step, is_to_resume: false }
    }

    /// Only resumes.
    pub(super) const fn resuming() -> Self {
        Self { step: Step::Resume, is_to_resume: true }
    }

    /// What is to be asked next, if anything.
    pub(super) fn request(
        &mut self,
        group: &GroupName,
        is_calm: bool,
        random: &mut Random,
        draw_places: impl FnOnce(&mut Random) -> Vec<(PartitionId, Option<Offset>)>,
    ) -> Option<Request> {
        if is_calm {
            if !self.is_to_resume {
                return None;
            }
            self.step = Step::Resume;
        }
        let group = group.as_str().to_owned();
        let request = match self.step {
            Step::Drain => {
                self.is_to_resume = true;
                GroupRequest::Drain(DrainGroup { group })
            }
            Step::Put => {
                let reset = |(partition, offset): (PartitionId, Option<Offset>)| OffsetReset {
                    topic: partition.topic.0,
                    partition: partition.index.0,
                    offset: offset.map(|offset| offset.0),
                    metadata: String::new(),
                };
                let resets = draw_places(random).into_iter().map(reset).collect();
                GroupRequest::ResetOffsets(ResetOffsets { group, may_create: random.is_one_in(2), resets })
            }
            Step::Delete => GroupRequest::Delete(DeleteGroup { group }),
            Step::Look => GroupRequest::FetchOffsets(FetchOffsets { group, after: None, partitions: Vec::new() }),
            Step::Resume => GroupRequest::Resume(ResumeGroup { group }),
        };
        Some(Request::Group(request))
    }

    /// What comes after an answer, or after none.
    pub(super) fn go_on(mut self, random: &mut Random, answer: &Result<Answer, RequestError>) -> Option<Self> {
        let is_gone = matches!(answer, Err(RequestError::Refused { code: ErrorCode::UnknownGroup, .. }));
        self.step = match self.step {
            Step::Drain if answer.is_err() && random.is_one_in(2) => Step::Drain,
            Step::Drain if random.is_one_in(4) => Step::Delete,
            Step::Drain => Step::Put,
            Step::Delete if answer.is_ok() => return None,
            Step::Put | Step::Delete | Step::Look if !self.is_to_resume => return None,
            Step::Put => Step::Look,
            Step::Look if random.is_one_in(3) => Step::Put,
            Step::Look | Step::Delete => Step::Resume,
            Step::Resume if answer.is_ok() || is_gone => return None,
            Step::Resume => Step::Resume,
        };
        Some(self)
    }
}
