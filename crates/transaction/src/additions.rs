//! Participants that a transaction gets after its first round: a record for those that are new, so that what is written of a
//! transaction grows with its participants and not with their square.
//!
//! ```text
//!   open, {a}      + {b, c}      + {d}         ending, {a, b, c, d}      − −
//!   id's record    addition 0    addition 1    id's record               additions 0 and 1 are removed
//! ```
//! What takes part in an open transaction is what stands in its record and in the additions that name it. The id's record, when
//! it is written again, has all of it, and removes them; those that a crash keeps from being removed name another transaction
//! than goes on, or one that is decided, and go with the next record.

use std::collections::{BTreeMap, BTreeSet};

use corelane_model::Transaction;
use corelane_model::limits::TRANSACTION_PARTICIPANTS_MAX;

use crate::encoding::{encode_addition, encode_addition_key, encode_key};
use crate::{Coordinator, Participant, Phase};

/// Additions that one transactional id may have. A transaction has fewer, but a crash may leave some of the one before; where
/// there is no number left, the id's record is written in place of the next.
pub(crate) const ADDITIONS_MAX: u16 = 1024;
const _: () = assert!(TRANSACTION_PARTICIPANTS_MAX <= ADDITIONS_MAX as usize);

/// Additions as they were read, by their numbers.
pub(crate) type Additions = BTreeMap<u16, (Transaction, BTreeSet<Participant>)>;

impl Coordinator {
    /// Writes what changed in the round: the id's record, or only who is new in its transaction.
    pub(crate) fn append_round(&mut self, is_changed: bool, entered: &BTreeSet<Participant>) {
        let is_full = self.additions == ADDITIONS_MAX && !entered.is_empty();
        if is_changed || is_full {
            let (key, value) = (encode_key(&self.id), self.encode_value());
            self.append(key, value);
            for number in 0..std::mem::take(&mut self.additions) {
                self.append(encode_addition_key(&self.id, number), None);
            }
        } else if !entered.is_empty() {
            let open = self.current.expect("what goes on has a name");
            let key = encode_addition_key(&self.id, self.additions);
            self.additions += 1;
            self.append(key, Some(encode_addition(open, entered)));
        }
    }

    fn append(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.stats.appended_records += 1;
        self.stats.appended_bytes += (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
        self.outbox.append(key, value);
    }

    /// Takes in the additions that were read beside the id's record.
    pub(crate) fn restore_additions(&mut self, additions: Additions) {
        self.additions = additions.last_key_value().map_or(0, |(&number, _)| number + 1);
        let current = self.current;
        let Phase::Open { participants, .. } = &mut self.phase else { return };
        let of_current = additions.into_values().filter(|(of, _)| Some(*of) == current);
        for participant in of_current.flat_map(|(_, participants)| participants) {
            // No coordinator wrote more.
            if participants.len() < TRANSACTION_PARTICIPANTS_MAX {
                participants.insert(participant);
            }
        }
    }
}
