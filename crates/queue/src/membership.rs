//! Coming, being heard of, and going.

use std::time::Duration;

use corelane_model::limits::{QUEUE_FENCED_MAX, QUEUE_MEMBERS_MAX};
use corelane_model::{Backoff, MemberId, Now, QueueSettings, QueueWish};

use crate::member::Member;
use crate::{Answer, DeadReason, Effect, FenceReason, Join, Queue, QueueError, RequestTicket};

impl Queue {
    /// A member joins, or says again what it said; its leases stay its own and its credit is what it says now. Answered
    /// when the queue is durable and its beginning in each partition is known.
    ///
    /// # Errors
    /// The queue was deleted or has other settings, a number is out of its bounds, the member was put out, or the queue
    /// is full.
    pub fn join(&mut self, now: Now, ticket: RequestTicket, join: Join) -> Result<(), QueueError> {
        self.check_alive()?;
        join.check()?;
        self.check_wish(&join.wish)?;
        self.check_room()?;
        self.check_fenced(join.member)?;
        let seat = match self.members.seat(join.member) {
            Some(seat) => seat,
            None if self.members.len() < QUEUE_MEMBERS_MAX => {
                let would_expire = now.monotonic.after(join.session_timeout);
                let seat = self.members.insert(Member::new(join.member));
                self.sessions.insert((would_expire, seat));
                self.stats.joins += 1;
                seat
            }
            None => {
                let (would, limit) = (self.members.len() as u64 + 1, QUEUE_MEMBERS_MAX as u64);
                return Err(QueueError::Limit { what: "members", would, limit });
            }
        };
        let member = self.members.at(seat);
        member.heard = now.monotonic;
        member.client = join.client;
        member.weight = join.weight;
        member.session_timeout = join.session_timeout;
        member.credit_records = 0;
        member.credit_bytes = 0;
        member.add_credit(join.credit_records, join.credit_bytes);
        self.list_member(seat);
        self.round.joined.push(ticket);
        Ok(())
    }

    /// The member is alive and may be sent more.
    ///
    /// # Errors
    /// There is no such member.
    pub fn credit(&mut self, now: Now, member: MemberId, records: u32, bytes: u64) -> Result<(), QueueError> {
        let seat = self.hear(now, member)?;
        self.members.at(seat).add_credit(records, bytes);
        self.list_member(seat);
        Ok(())
    }

    /// The member leaves. What it has goes to others as if it had not been handed out.
    ///
    /// # Errors
    /// There is no such member.
    pub fn leave(&mut self, now: Now, ticket: RequestTicket, member: MemberId) -> Result<(), QueueError> {
        let seat = self.hear(now, member)?;
        self.check_room()?;
        for (index, offset) in self.take_leases(seat) {
            self.unlease(index, offset);
            self.return_lease(index, offset);
        }
        self.remove_member(seat);
        self.stats.leaves += 1;
        self.round.answers.push((ticket, Answer::Done));
        Ok(())
    }

    /// Something came from a member that is not carried out here; a stranger stays one.
    pub fn hear_of(&mut self, now: Now, id: MemberId) {
        if let Some(seat) = self.members.seat(id) {
            self.members.at(seat).heard = now.monotonic;
        }
    }

    /// Something came from this member. Its seat.
    pub(crate) fn hear(&mut self, now: Now, id: MemberId) -> Result<u16, QueueError> {
        self.check_alive()?;
        let Some(seat) = self.members.seat(id) else {
            self.check_fenced(id)?;
            return Err(QueueError::UnknownMember { member: id });
        };
        self.members.at(seat).heard = now.monotonic;
        Ok(seat)
    }

    fn check_fenced(&self, id: MemberId) -> Result<(), QueueError> {
        let reason = self.fenced.iter().find(|&&(fenced, _)| fenced == id);
        reason.map_or(Ok(()), |&(member, reason)| Err(QueueError::Fenced { member, reason }))
    }

    /// A member's session may be over.
    pub(crate) fn session_due(&mut self, now: Now, seat: u16) {
        let Some(member) = self.members.get(seat) else { return };
        let expires = member.expires();
        if now.monotonic < expires {
            self.sessions.insert((expires, seat));
        } else {
            self.stats.sessions_expired += 1;
            self.put_out(now, seat, FenceReason::SessionExpired);
        }
    }

    /// What the member had counts as failed and goes to others.
    pub(crate) fn put_out(&mut self, now: Now, seat: u16, reason: FenceReason) {
        for (index, offset) in self.take_leases(seat) {
            self.stats.orphaned_leases += 1;
            self.unlease(index, offset);
            self.fail(now, index, offset, None, || DeadReason::MemberGone);
        }
        let member = self.remove_member(seat).id;
        self.fenced.push_back((member, reason));
        if QUEUE_FENCED_MAX < self.fenced.len() {
            self.fenced.pop_front();
        }
        self.outbox.now(Effect::Fence { member, reason });
    }

    fn remove_member(&mut self, seat: u16) -> Member {
        let member = self.members.remove(seat);
        assert_eq!(member.leased, 0, "member {} goes with leases", member.id);
        self.sessions.retain(|&(_, armed)| armed != seat);
        member
    }

    /// What a member insists on has to be so.
    fn check_wish(&self, wish: &QueueWish) -> Result<(), QueueError> {
        let (has, asked) = (&self.settings, self.settings.with(wish));
        asked.check()?;
        let text = |settings: &QueueSettings| {
            let dead_letter = settings.dead_letter.as_ref().map_or("none", |name| name.as_str()).to_owned();
            [
                ("visibility time-out", format!("{:?}", settings.visibility)),
                ("dispatch", settings.dispatch.to_string()),
                ("order per key", settings.order_per_key.to_string()),
                (
                    "delivery limit",
                    settings.delivery_limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
                ),
                ("back-off", words_of(&settings.backoff)),
                ("dead-letter topic", dead_letter),
            ]
        };
        if *has == asked {
            return Ok(());
        }
        let pairs = text(has).into_iter().zip(text(&asked));
        let differs = pairs.into_iter().find(|((_, has), (_, asked))| has != asked);
        let ((setting, has), (_, asked)) = differs.expect("settings that differ differ in a word");
        Err(QueueError::SettingsMismatch { setting, has, asked })
    }
}

/// A back-off as people write it.
fn words_of(backoff: &Backoff) -> String {
    let words = |rest: &Duration| if rest.is_zero() { "0s".to_owned() } else { format!("{rest:?}") };
    match backoff {
        Backoff::Exponential { first, cap } => format!("{}..{}", words(first), words(cap)),
        Backoff::Steps(steps) => steps.iter().map(words).collect::<Vec<_>>().join(","),
    }
}
