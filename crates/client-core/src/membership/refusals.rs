//! What becomes of requests: done, put off, or refused.

use corelane_model::{ConnectionKey, ErrorCode, MemberId, MonotonicNanos, Retry};

use super::{Asked, Membership, State};
use crate::{CommitError, FenceReason, GroupNews, MembershipError};

/// What is given up with something for the next owner is tried again as long as this part of the rebalance time-out is
/// left; then it is given up without.
const GIVING_RESERVE: u32 = 4;

impl Membership {
    /// Anything but a join was answered.
    pub(crate) fn on_done(&mut self, connection: ConnectionKey, asked: Asked) {
        // Where it does not speak any more that means nothing: it has said the same again on the next connection.
        if self.conversation() != Some(connection) {
            return;
        }
        self.attempts = 0;
        match asked {
            Asked::Commit(id) => {
                self.commits.on_done(id);
                self.settle_places();
            }
            Asked::GiveUp(partition) => drop(self.giving.remove(&partition)),
            Asked::Leave => self.end(None),
            Asked::Join | Asked::Report => {}
        }
    }

    /// A request was refused. `retry_at` is when it may be repeated, `fresh` the member's next id if it needs one.
    pub(crate) fn on_refused(
        &mut self,
        (connection, asked): (ConnectionKey, Asked),
        (code, text): (ErrorCode, String),
        retry_at: MonotonicNanos,
        fresh: MemberId,
    ) {
        if self.conversation() != Some(connection) {
            return;
        }
        let is_out = matches!(code, ErrorCode::UnknownMember | ErrorCode::MemberFenced) || reason_of(code).is_some();
        let is_put_off = code.retry() == Retry::Later;
        if is_put_off || asked == Asked::Join {
            self.attempts = self.attempts.saturating_add(1);
        }
        match asked {
            Asked::Join => self.on_join_refused(code, text, retry_at, fresh),
            // What was said in a life that is over.
            _ if matches!(self.state, State::Joining { .. }) => {}
            _ if is_put_off => self.put_off(asked, text, retry_at),
            Asked::Leave => self.end(None),
            _ if is_out => self.on_fenced(reason_of(code).unwrap_or(FenceReason::Unknown), fresh),
            Asked::Report => self.is_report_due |= code == ErrorCode::StaleGeneration,
            Asked::GiveUp(partition) => {
                // The report that follows gives it up without.
                if self.giving.remove(&partition).is_some() && code == ErrorCode::LimitReached {
                    self.tell(GroupNews::HandOverRefused { partition, text });
                }
                self.is_report_due = true;
            }
            Asked::Commit(id) => {
                let is_lost = matches!(code, ErrorCode::NotPartitionOwner | ErrorCode::StaleGeneration);
                let error = |partition| match is_lost {
                    true => CommitError::Lost { partition },
                    false => CommitError::Refused { code, text: text.clone() },
                };
                let news = self.commits.on_refused(id, error);
                // What was lost without notice is told again to whoever says what it holds.
                self.is_report_due |= is_lost;
                self.tell_all(news);
                self.settle_places();
            }
        }
    }

    /// The coordinator could not take a request: it goes again.
    fn put_off(&mut self, asked: Asked, text: String, retry_at: MonotonicNanos) {
        match asked {
            Asked::Join => panic!("joins are put off in their own way"),
            Asked::Commit(id) => {
                self.commit_at = retry_at;
                self.commits.put_back(id);
            }
            Asked::Report => {
                // It may have given something up, which others wait for.
                self.is_report_due = true;
                self.say_at = retry_at;
            }
            Asked::GiveUp(partition) => {
                let Some(giving) = self.giving.get_mut(&partition) else { return };
                giving.was_sent = false;
                self.say_at = retry_at;
                // Who has not given up by the deadline is put out: rather without what was left.
                if giving.deadline < retry_at.after(self.settings.rebalance_timeout / GIVING_RESERVE) {
                    self.giving.remove(&partition);
                    self.is_report_due = true;
                    self.tell(GroupNews::HandOverRefused { partition, text });
                }
            }
            Asked::Leave => {
                if let State::Leaving { is_asked, retry_at: again, .. } = &mut self.state {
                    (*is_asked, *again) = (false, retry_at);
                }
            }
        }
    }

    fn on_join_refused(&mut self, code: ErrorCode, text: String, retry_at: MonotonicNanos, fresh: MemberId) {
        let State::Joining { deadline, .. } = self.state else { return };
        match code {
            ErrorCode::StaticIdTaken => return self.end(Some(MembershipError::Fenced(FenceReason::StaticIdTaken))),
            ErrorCode::MemberFenced | ErrorCode::SessionExpired | ErrorCode::RebalanceTimedOut => self.member = fresh,
            _ if code.retry() == Retry::Never || code.retry() == Retry::Close => {
                return self.end(Some(MembershipError::Refused { code, text }));
            }
            _ => {}
        }
        if deadline.is_some_and(|deadline| deadline <= retry_at) {
            return self.end(Some(MembershipError::Refused { code, text }));
        }
        self.state = State::Joining { asked: None, retry_at, deadline };
    }
}

/// Why a member was put out, where a refusal says so.
const fn reason_of(code: ErrorCode) -> Option<FenceReason> {
    Some(match code {
        ErrorCode::SessionExpired => FenceReason::SessionExpired,
        ErrorCode::RebalanceTimedOut => FenceReason::RebalanceTimeout,
        ErrorCode::StaticIdTaken => FenceReason::StaticIdTaken,
        ErrorCode::UnknownGroup => FenceReason::GroupDeleted,
        _ => return None,
    })
}
