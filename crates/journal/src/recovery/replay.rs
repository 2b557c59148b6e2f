//! Reads entries in order and decides what a place without a good entry means.

use bytes::Bytes;
use corelane_model::limits::BLOCK_BYTES;

use super::Recovered;
use super::claims::Claims;
use super::reader::Reader;
use super::report::{Damage, RecoveryReport};
use super::rewrite::Rewrite;
use crate::effect::Effects;
use crate::entry::{ENTRY_HEAD_BYTES, EntryContext, EntryFlags, EntryView, head_link};
use crate::{
    EntryError, FileSequence, Items, JournalConfig, JournalError, JournalIoId, JournalPosition, JournalResult, RingSlot,
};

/// A file that is replayed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlannedFile {
    pub(super) slot: RingSlot,
    pub(super) length: u64,
    pub(super) sequence: FileSequence,
    /// What its first entry names as the entry before it, if its first block says.
    pub(super) previous_crc: Option<u32>,
    /// What its first entry calls durable, likewise.
    pub(super) durable: Option<JournalPosition>,
    /// The disk refuses its first block.
    pub(super) is_refused: bool,
}

/// What lies at a place.
enum Look {
    /// It is not read yet.
    Wait,
    /// A good entry that follows the last one, and its bytes with the padding.
    Good(EntryView, Bytes),
    /// Something else. A whole head may still say how long it is, and is reported to the damage by name.
    Bad { bytes: u64, entry: Option<(Bytes, u32)> },
    /// The file ends.
    FileEnd,
}

/// The replay of a journal's files, oldest first.
#[derive(Debug)]
pub(super) struct Replay {
    config: JournalConfig,
    files: Vec<PlannedFile>,
    reader: Reader,
    rewrite: Rewrite,
    claims: Claims,
    /// The end of a file that may have been begun behind all others, in a slot whose first block the disk refuses.
    hidden: Option<JournalPosition>,
    file: usize,
    at: u64,
    /// Head CRC of the entry before this place, damaged or not; `None` before the first and when its head is lost.
    last_link: Option<u32>,
    /// Head CRC of the last good entry: what the next file will name.
    good_link: u32,
    items: Option<(JournalPosition, Items)>,
    damage: Option<Damage>,
    checkpoint_begun: bool,
    is_done: bool,
    report: RecoveryReport,
}

impl Replay {
    pub(super) fn new(
        config: JournalConfig,
        files: Vec<PlannedFile>,
        claims: Claims,
        hidden: Option<JournalPosition>,
    ) -> Self {
        let reader = Reader::new(files.iter().map(|file| (file.slot, file.length)));
        let mut report = RecoveryReport { files: u32::try_from(files.len()).expect("few files"), ..Default::default() };
        let oldest = JournalPosition::new(claims.oldest, 0);
        if let Some(first) = files.first()
            && claims.oldest < first.sequence
            && first.previous_crc != Some(0)
        {
            let to = JournalPosition::new(first.sequence, 0);
            report.push(Damage { to, is_incomplete: true, ..Damage::new(oldest) });
        }
        Self {
            config,
            files,
            reader,
            rewrite: Rewrite::default(),
            claims,
            hidden,
            file: 0,
            at: 0,
            last_link: None,
            good_link: 0,
            items: None,
            damage: None,
            checkpoint_begun: false,
            is_done: false,
            report,
        }
    }

    pub(super) fn files(&self) -> &[PlannedFile] {
        &self.files
    }

    pub(super) const fn is_done(&self) -> bool {
        self.is_done
    }

    pub(super) const fn last_link(&self) -> u32 {
        self.good_link
    }

    pub(super) fn take_report(&mut self) -> RecoveryReport {
        std::mem::take(&mut self.report)
    }

    pub(super) fn issue(&mut self, effects: &mut Effects) {
        self.reader.issue(effects);
    }

    /// A read or a write completed.
    ///
    /// # Errors
    /// [`JournalError::Rewrite`] and [`JournalError::ShortRewrite`].
    pub(super) fn on_done(&mut self, id: JournalIoId, result: JournalResult) -> Result<(), JournalError> {
        if !self.rewrite.on_done(id, &result)? {
            self.reader.on_done(id, result);
        }
        Ok(())
    }

    /// Writes the heads again that were believed although nothing says that they are on disk, unless their entries were
    /// written again. A torn entry's head may have said which files are free, and one of them is overwritten next.
    pub(super) fn rewrite_claims(&mut self, effects: &mut Effects) {
        for witness in self.claims.take_unproven() {
            self.rewrite.push(witness.slot, witness.position, witness.block, effects);
        }
        self.report.rewritten_bytes = self.rewrite.bytes();
    }

    /// Nothing of what is written again is still on its way.
    pub(super) const fn is_rewritten(&self) -> bool {
        self.rewrite.is_idle()
    }

    /// The files where something was written again.
    pub(super) fn rewritten_slots(&self) -> impl Iterator<Item = RingSlot> {
        self.rewrite.slots().iter().copied()
    }

    /// The next item; `None` when more has to be read or everything is through.
    ///
    /// # Errors
    /// [`JournalError::Item`] when an entry that passes its checksums holds what this version does not know.
    pub(super) fn poll_item(&mut self, effects: &mut Effects) -> Result<Option<Recovered>, JournalError> {
        loop {
            if let Some((position, items)) = &mut self.items {
                let position = *position;
                match items.next() {
                    Some(Ok(item)) => return Ok(Some(Recovered { position, item })),
                    Some(Err(error)) => return Err(JournalError::Item { position, error }),
                    None => self.items = None,
                }
            }
            if self.is_done {
                return Ok(None);
            }
            if self.files.is_empty() {
                self.end();
                continue;
            }
            if let Some(file) = self.successor() {
                self.go_to(file);
            }
            self.reader.skip_to(self.file, self.at);
            self.reader.issue(effects);
            match self.look() {
                Look::Wait => return Ok(None),
                Look::Good(..) if self.rewrite.is_full() => return Ok(None),
                Look::Good(view, bytes) => self.accept(&view, bytes, effects),
                Look::Bad { bytes, entry } => self.on_bad(bytes, entry),
                Look::FileEnd => self.on_bad(0, None),
            }
        }
    }

    fn position(&self) -> JournalPosition {
        let byte = u32::try_from(self.at).expect("a file is shorter than 4 GiB");
        JournalPosition::new(self.files[self.file].sequence, byte)
    }

    fn look(&self) -> Look {
        let bytes_left = self.files[self.file].length.saturating_sub(self.at);
        if bytes_left < BLOCK_BYTES {
            return Look::FileEnd;
        }
        let block = usize::try_from(BLOCK_BYTES).expect("a block is small");
        let Some(first) = self.reader.get(self.file, self.at, block) else { return Look::Wait };
        let context = EntryContext { journal: self.config.id, position: self.position(), bytes_left };
        let nothing = Look::Bad { bytes: BLOCK_BYTES, entry: None };
        let Ok(head) = context.check(&first) else { return nothing };
        let length = usize::try_from(head.entry_bytes()).expect("an entry fits in memory");
        let Some(bytes) = self.reader.get(self.file, self.at, length) else { return Look::Wait };
        match EntryView::parse(&bytes, &context) {
            Ok(view) if self.is_next(&view) => Look::Good(view, bytes),
            Err(EntryError::BodyCrc { .. }) => {
                let body = bytes.slice(ENTRY_HEAD_BYTES..ENTRY_HEAD_BYTES + head.body_bytes as usize);
                Look::Bad { bytes: head.entry_bytes(), entry: Some((body, head_link(&bytes))) }
            }
            Ok(_) | Err(_) => nothing,
        }
    }

    fn is_next(&self, view: &EntryView) -> bool {
        #[cfg(planted)]
        if corelane_model::planted::is_planted(corelane_model::planted::Bug::TrustRecycledBlock) {
            return true;
        }
        self.damage.is_some() || self.last_link.is_none_or(|link| view.head.previous_crc == link)
    }

    fn accept(&mut self, view: &EntryView, bytes: Bytes, effects: &mut Effects) {
        let position = self.position();
        if self.claims.durable <= position {
            self.rewrite_entry(position, bytes, effects);
        }
        if let Some(mut damage) = self.damage.take() {
            damage.to = position;
            self.report.push(damage);
        }
        let flags = view.head.flags;
        self.checkpoint_begun |= flags.contains(EntryFlags::CHECKPOINT_FIRST);
        if flags.contains(EntryFlags::CHECKPOINT_LAST) && self.checkpoint_begun {
            self.checkpoint_begun = false;
            self.report.checkpoints += 1;
        }
        self.report.was_clean = flags.contains(EntryFlags::CLEAN);
        self.report.entries += 1;
        self.report.bytes += view.head.entry_bytes();
        self.last_link = Some(view.link);
        self.good_link = view.link;
        self.at += view.head.entry_bytes();
        self.report.end = self.position();
        self.items = Some((position, view.items()));
    }

    fn rewrite_entry(&mut self, position: JournalPosition, bytes: Bytes, effects: &mut Effects) {
        let slot = self.files[self.file].slot;
        self.claims.on_rewritten(position);
        #[cfg(planted)]
        if corelane_model::planted::is_planted(corelane_model::planted::Bug::TrustUnproven) {
            return self.rewrite.trust(slot);
        }
        self.rewrite.push(slot, position, bytes, effects);
    }

    /// There is no good entry here: `bytes` of something, or the end of the file when they are 0.
    fn on_bad(&mut self, bytes: u64, entry: Option<(Bytes, u32)>) {
        if let Some(file) = self.continuation() {
            return self.go_to(file);
        }
        let position = self.position();
        let is_beyond = self.claims.durable <= position;
        if is_beyond && self.damage.is_none() {
            self.doubt_end(bytes, entry.as_ref().map(|(body, _)| body));
            return self.end();
        }
        let damage = self.damage.get_or_insert_with(|| Damage::new(position));
        self.last_link = None;
        self.checkpoint_begun = false;
        match entry {
            Some((body, link)) if !is_beyond => {
                damage.name(&body);
                self.last_link = Some(link);
            }
            Some(_) | None => damage.is_incomplete = true,
        }
        // What lies beyond the durable position and is not good was never promised; only a later file can go on.
        if !is_beyond && bytes != 0 {
            self.at += bytes;
            return;
        }
        match self.file + 1 {
            next if next < self.files.len() && !(is_beyond && self.at == 0) => self.go_to(next),
            _ => {
                self.doubt_end(bytes, None);
                self.end();
            }
        }
    }

    /// The file whose first entry names the last good one as the entry before it. When recovery cut a tail there and a
    /// later one did so again, several do, and only the last was written on.
    fn continuation(&self) -> Option<usize> {
        let link = self.last_link?;
        (self.file + 1..self.files.len()).rev().find(|file| self.files[*file].previous_crc == Some(link))
    }

    /// The file that was begun here by a recovery: it names the last good entry, and calls what came up to here durable and no
    /// more. What follows the entry in its own file was not there then. It may be now: the disk refused to read it, or a
    /// write of a process that was gone reached it late.
    fn successor(&self) -> Option<usize> {
        let (link, here) = (self.last_link?, self.position());
        let is_begun_here = |file: &PlannedFile| file.durable == Some(here) && file.previous_crc == Some(link);
        self.files[self.file + 1..].iter().rposition(is_begun_here).map(|index| self.file + 1 + index)
    }

    /// Nothing says that anything was promised from here on. Where the disk refuses to say what is here, or what the file
    /// begins with that would be the next, nothing says that it was not.
    fn doubt_end(&mut self, bytes: u64, body: Option<&Bytes>) {
        let here = self.position();
        let is_refused = bytes != 0 && self.reader.is_unreadable(self.file, self.at, bytes);
        let refused = is_refused.then(|| (self.files[self.file], self.reader.refused_end(self.file)));
        let later = self.files[self.file + 1..].iter().filter(|file| file.is_refused).map(|file| (*file, file.length));
        let ends = refused.into_iter().chain(later).map(|(file, end)| {
            JournalPosition::new(file.sequence, u32::try_from(end).expect("a file is shorter than 4 GiB"))
        });
        let Some(end) = ends.chain(self.hidden).max() else { return };
        let mut damage = self.damage.take().unwrap_or_else(|| Damage::new(here));
        if let Some(body) = body.filter(|_| is_refused) {
            damage.name(body);
        }
        damage.is_incomplete = true;
        damage.to = damage.to.max(end).max(self.claims.end);
        self.damage = Some(damage);
    }

    fn go_to(&mut self, file: usize) {
        self.file = file;
        self.at = 0;
    }

    fn end(&mut self) {
        self.is_done = true;
        let mut end = self.report.end;
        if let Some(mut damage) = self.damage.take() {
            damage.to = damage.to.max(self.claims.durable);
            end = end.max(damage.to);
            self.report.push(damage);
            self.report.was_clean = false;
        }
        let seen = self.claims.end;
        if end < seen {
            let start = if end.sequence() == seen.sequence() { end.byte() } else { 0 };
            self.report.torn_bytes = u64::from(seen.byte() - start);
        }
        self.report.unreadable_bytes = self.reader.unreadable_bytes();
    }
}
