//! One member of a queue, and the seats that they have.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use corelane_model::limits::{
    GROUP_CAPACITY_MAX, GROUP_SESSION_TIMEOUT_DEFAULT, GROUP_SESSION_TIMEOUT_MAX, GROUP_SESSION_TIMEOUT_MIN,
    QUEUE_CLIENT_BYTES_MAX, QUEUE_CREDIT_BYTES_MAX, QUEUE_CREDIT_RECORDS_MAX,
};
use corelane_model::{MemberId, MonotonicNanos, QueueWish};

use crate::{LeaseRun, QueueError};

/// What a member says when it joins.
#[derive(Clone, Debug)]
pub struct Join {
    /// Random 128 bits that the client made for this life of the member.
    pub member: MemberId,
    /// What the client says of itself.
    pub client: String,
    /// What it can do compared to others, for [`corelane_model::Dispatch::Weighted`].
    pub weight: u32,
    /// Silent for longer, it has died.
    pub session_timeout: Duration,
    /// Settings that it insists on.
    pub wish: QueueWish,
    /// Records that may be sent to it before it gives more credit.
    pub credit_records: u32,
    /// Bytes that may be sent to it before it gives more credit, one larger record excepted.
    pub credit_bytes: u64,
}

impl Join {
    /// A member with the defaults, without credit.
    #[must_use]
    pub fn new(member: MemberId) -> Self {
        Self {
            member,
            client: String::new(),
            weight: 1,
            session_timeout: GROUP_SESSION_TIMEOUT_DEFAULT,
            wish: QueueWish::default(),
            credit_records: 0,
            credit_bytes: 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), QueueError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (least, most) = (millis(GROUP_SESSION_TIMEOUT_MIN), millis(GROUP_SESSION_TIMEOUT_MAX));
        for (setting, value, min, max) in [
            ("weight", u64::from(self.weight), 1, u64::from(GROUP_CAPACITY_MAX)),
            ("session time-out in milliseconds", millis(self.session_timeout), least, most),
            ("length of the client's name", self.client.len() as u64, 0, QUEUE_CLIENT_BYTES_MAX as u64),
        ] {
            if value < min || max < value {
                return Err(QueueError::OutOfBounds { setting, value, min, max });
            }
        }
        Ok(())
    }
}

/// One member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) client: String,
    pub(crate) weight: u32,
    pub(crate) session_timeout: Duration,
    pub(crate) heard: MonotonicNanos,
    pub(crate) credit_records: u32,
    /// Below zero by less than the last record.
    pub(crate) credit_bytes: i64,
    /// Whether it stands in the list of members with credit.
    pub(crate) is_listed: bool,
    /// Records that it has.
    pub(crate) leased: u64,
    /// Leases that it was given; those that are over are dropped from time to time.
    pub(crate) given: Vec<LeaseRun>,
    /// Smoothed microseconds for a record.
    pub(crate) micros: Option<u32>,
    /// What it got, divided by its weight; only differences count.
    pub(crate) pass: u64,
    /// It got something in this round.
    pub(crate) is_served: bool,
    /// Leases of this round, and their bytes.
    pub(crate) gathered: Vec<LeaseRun>,
    pub(crate) gathered_bytes: u64,
    pub(crate) delivered: u64,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
}

impl Member {
    pub(crate) fn new(id: MemberId) -> Self {
        Self {
            id,
            client: String::new(),
            weight: 1,
            session_timeout: GROUP_SESSION_TIMEOUT_DEFAULT,
            heard: MonotonicNanos(0),
            credit_records: 0,
            credit_bytes: 0,
            is_listed: false,
            leased: 0,
            given: Vec::new(),
            micros: None,
            pass: 0,
            is_served: false,
            gathered: Vec::new(),
            gathered_bytes: 0,
            delivered: 0,
            acknowledged: 0,
            failed: 0,
        }
    }

    pub(crate) const fn has_credit(&self) -> bool {
        0 < self.credit_records && 0 < self.credit_bytes
    }

    pub(crate) fn expires(&self) -> MonotonicNanos {
        self.heard.after(self.session_timeout)
    }

    /// More may be sent, up to the limits.
    pub(crate) fn add_credit(&mut self, records: u32, bytes: u64) {
        self.credit_records = self.credit_records.saturating_add(records).min(QUEUE_CREDIT_RECORDS_MAX);
        let bytes = bytes.min(QUEUE_CREDIT_BYTES_MAX).cast_signed();
        self.credit_bytes = (self.credit_bytes + bytes).min(QUEUE_CREDIT_BYTES_MAX.cast_signed());
    }

    /// Takes the time that it reports for a record into account.
    pub(crate) fn report(&mut self, micros: u32) {
        let before = u64::from(self.micros.unwrap_or(micros));
        let smoothed = (before * 7 + u64::from(micros)).div_ceil(8);
        self.micros = Some(u32::try_from(smoothed).unwrap_or(u32::MAX).max(1));
    }
}

/// All members, each on a seat by which slots name it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    seats: Vec<Option<Member>>,
    free: Vec<u16>,
    ids: BTreeMap<MemberId, u16>,
    /// Seats of members with credit; those whose credit has gone since are dropped when their turn comes.
    pub(crate) listed: VecDeque<u16>,
}

impl Members {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn seat(&self, id: MemberId) -> Option<u16> {
        self.ids.get(&id).copied()
    }

    pub(crate) fn get(&self, seat: u16) -> Option<&Member> {
        self.seats.get(usize::from(seat))?.as_ref()
    }

    pub(crate) fn at(&mut self, seat: u16) -> &mut Member {
        self.seats[usize::from(seat)].as_mut().expect("a seat that is in use has a member")
    }

    pub(crate) fn insert(&mut self, member: Member) -> u16 {
        let seat = self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            u16::try_from(self.seats.len() - 1).expect("the limit of members is below 65,536")
        });
        self.ids.insert(member.id, seat);
        self.seats[usize::from(seat)] = Some(member);
        seat
    }

    pub(crate) fn remove(&mut self, seat: u16) -> Member {
        let member = self.seats[usize::from(seat)].take().expect("a seat that is in use has a member");
        self.ids.remove(&member.id);
        self.listed.retain(|&listed| listed != seat);
        self.free.push(seat);
        member
    }

    /// In the order of ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.ids.values().filter_map(|&seat| self.get(seat))
    }

    pub(crate) fn seats(&self) -> Vec<u16> {
        self.ids.values().copied().collect()
    }

    /// Puts a member with credit into the list, if it is not there.
    pub(crate) fn list(&mut self, seat: u16) {
        let member = self.at(seat);
        if member.has_credit() && !member.is_listed {
            member.is_listed = true;
            self.listed.push_back(seat);
        }
    }
}
