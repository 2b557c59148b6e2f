//! A coordinator from its records.

use corelane_model::{Now, TransactionalId};

use crate::additions::Additions;
use crate::encoding::{Key, PhaseRecord, Record, decode_addition, decode_key, decode_value};
use crate::{Coordinator, DecodeError, Phase};

/// Takes the records of one id in the order in which they were appended, compacted or not, and makes the coordinator.
#[derive(Debug)]
pub struct Restore {
    id: TransactionalId,
    record: Option<Record>,
    additions: Additions,
}

impl Restore {
    /// Nothing yet.
    #[must_use]
    pub const fn new(id: TransactionalId) -> Self {
        Self { id, record: None, additions: Additions::new() }
    }

    /// One record; it replaces those before with its key.
    ///
    /// # Errors
    /// It is of another format, malformed, or another id's. Nothing is changed by it.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError> {
        let (id, key) = decode_key(key)?;
        if id != self.id {
            let (found, expected) = (id.as_str().to_owned(), self.id.as_str().to_owned());
            return Err(DecodeError::Id { found, expected });
        }
        match (key, value) {
            (Key::Id, value) => self.record = value.map(decode_value).transpose()?,
            (Key::Addition(number), Some(value)) => {
                self.additions.insert(number, decode_addition(value)?);
            }
            (Key::Addition(number), None) => {
                self.additions.remove(&number);
            }
        }
        Ok(())
    }

    /// Whether nothing but a tombstone came: the id is not in use (any more).
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.record.is_none()
    }

    /// The coordinator. A transaction that goes on has its whole time before it; the participants of one that was decided
    /// are told again.
    #[must_use]
    pub fn finish(self, now: Now) -> Coordinator {
        let mut coordinator = Coordinator::new(now, self.id);
        let Some(record) = self.record else { return coordinator };
        coordinator.timeout = record.timeout;
        coordinator.current = record.current;
        coordinator.last = record.last;
        coordinator.touched = record.touched;
        coordinator.arm_expiry(now);
        coordinator.phase = match record.phase {
            PhaseRecord::Idle if record.current.is_some() => Phase::Empty,
            PhaseRecord::Idle => Phase::Unused,
            PhaseRecord::Open { participants } => {
                Phase::Open { participants, deadline: now.monotonic.after(record.timeout) }
            }
            PhaseRecord::Ending { decision, left } => Phase::Ending { decision, left },
        };
        coordinator.restore_additions(self.additions);
        coordinator.tell_participants();
        coordinator.check();
        coordinator
    }
}
