//! Recovery from bytes in memory: for whoever examines a journal without running it.

use bytes::Bytes;

use crate::{
    Fault, Journal, JournalConfig, JournalDone, JournalError, JournalOp, JournalOutput, JournalResult, Recovered,
    RecoveryReport,
};

/// Recovers a journal from the contents of its files, slot by slot; `None` where there is no file. Never panics, whatever
/// the bytes are, and holds no more than they hold.
///
/// # Errors
/// [`JournalError`] when the bytes are another journal's, a newer version's, or contradict their checksums.
pub fn recover_images(
    config: JournalConfig,
    images: &[Option<Bytes>],
) -> Result<(Vec<Recovered>, RecoveryReport), JournalError> {
    let mut journal = Journal::new(config);
    let mut items = Vec::new();
    loop {
        while let Some(item) = journal.poll_recovered() {
            items.push(item);
        }
        match journal.poll_output() {
            Some(JournalOutput::Recovered(report)) => return Ok((items, report)),
            Some(JournalOutput::Failed(error)) => return Err(error),
            Some(_) => {}
            None => {
                let effect = journal.poll_effect().expect("a recovery that waits has asked for something");
                let image = images.get(effect.slot.0 as usize).and_then(Option::as_ref);
                journal.on_done(effect.id, answer(image, &effect.op));
            }
        }
    }
}

fn answer(image: Option<&Bytes>, op: &JournalOp) -> JournalResult {
    match (op, image) {
        (JournalOp::Length, image) => Ok(JournalDone::Length(image.map(|bytes| bytes.len() as u64))),
        (JournalOp::Read { position, length }, Some(bytes)) => {
            let start = usize::try_from(*position).map_or(bytes.len(), |start| start.min(bytes.len()));
            let end = start.saturating_add(*length as usize).min(bytes.len());
            Ok(JournalDone::Read(bytes.slice(start..end)))
        }
        (JournalOp::Sync, Some(_)) => Ok(JournalDone::Done),
        // Recovery writes nothing but what is there.
        (JournalOp::Write { .. }, Some(_)) => Ok(JournalDone::Written(op.write_bytes())),
        (JournalOp::Read { .. } | JournalOp::Sync | JournalOp::Write { .. }, None) => Err(Fault::NotFound),
        (JournalOp::Create { .. }, _) => Err(Fault::Os { errno: 30 }),
    }
}
