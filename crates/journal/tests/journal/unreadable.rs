//! A disk, or a way of reading it, that answers nothing but errors.

use bytes::BytesMut;
use corelane_journal::{Fault, Journal, JournalDone, JournalError, JournalOp, JournalOutput};

use crate::owner::{FILE_BYTES, config};

/// What becomes of a journal whose files are there and answer each read with this.
fn outcome(read: impl Fn(u32) -> Result<JournalDone, Fault>) -> Option<JournalOutput> {
    let mut journal = Journal::new(config(4));
    for _ in 0..1000 {
        while let Some(effect) = journal.poll_effect() {
            let result = match effect.op {
                JournalOp::Length => Ok(JournalDone::Length((effect.slot.0 < 4).then_some(FILE_BYTES))),
                JournalOp::Read { length, .. } => read(length),
                _ => Ok(JournalDone::Done),
            };
            journal.on_done(effect.id, result);
        }
        let output = journal.poll_output();
        if output.is_some() {
            return output;
        }
        assert!(journal.poll_recovered().is_none(), "there is nothing in it");
    }
    None
}

#[test]
fn a_journal_that_cannot_be_read_at_all_is_not_taken_for_a_new_one() {
    let unreadable = outcome(|_| Err(Fault::Os { errno: 95 }));
    let is_examine =
        |error: &JournalError| matches!(error, JournalError::Examine { fault: Fault::Os { errno: 95 }, .. });
    assert!(matches!(&unreadable, Some(JournalOutput::Failed(error)) if is_examine(error)), "{unreadable:?}");
    let zeroed = outcome(|length| Ok(JournalDone::Read(BytesMut::zeroed(length as usize).freeze())));
    assert!(matches!(&zeroed, Some(JournalOutput::Recovered(_))), "{zeroed:?}");
}
