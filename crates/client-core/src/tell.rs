//! Last words about batches, and what they free.

use std::collections::VecDeque;

use crate::{BatchKey, ClientSettings, ClientStats, DeliveryError, Effect, Placement, SendError};

/// The bounded send buffer: what was taken and not delivered.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: u64,
    records: u64,
    /// Bytes and records that were promised and not used.
    reserved: (u64, u64),
}

/// Room in the send buffer for one record of so many bytes; give it to [`crate::ClientCore::send_reserved`] or back to
/// [`crate::ClientCore::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "room that is not given back is lost"]
pub struct Reservation {
    bytes: u64,
}

impl Buffer {
    pub(crate) fn check(&self, charge: u64, settings: &ClientSettings) -> Result<(), SendError> {
        let bytes = self.bytes + self.reserved.0;
        let records = self.records + self.reserved.1;
        // One record always fits into an empty buffer, however small the buffer was made.
        let is_full = settings.buffer_bytes_max < bytes + charge || settings.buffer_records_max <= records;
        if is_full && 0 < records {
            let (bytes_max, records_max) = (settings.buffer_bytes_max, settings.buffer_records_max);
            return Err(SendError::Full { bytes, bytes_max, records, records_max });
        }
        Ok(())
    }

    pub(crate) fn reserve(&mut self, charge: u64) -> Reservation {
        self.reserved.0 += charge;
        self.reserved.1 += 1;
        Reservation { bytes: charge }
    }

    pub(crate) fn release(&mut self, reservation: &Reservation) {
        self.reserved.0 -= reservation.bytes;
        self.reserved.1 -= 1;
    }

    pub(crate) fn take(&mut self, charge: u64) {
        self.bytes += charge;
        self.records += 1;
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) const fn records(&self) -> u64 {
        self.records
    }
}

/// Where a queue says what became of its batches.
#[derive(Debug)]
pub(crate) struct Tell<'a> {
    pub(crate) effects: &'a mut VecDeque<Effect>,
    pub(crate) buffer: &'a mut Buffer,
    pub(crate) stats: &'a mut ClientStats,
}

impl Tell<'_> {
    pub(crate) fn received(&mut self, batch: BatchKey, placement: Placement) {
        self.effects.push_back(Effect::Received { batch, placement });
    }

    pub(crate) fn delivered(
        &mut self,
        batch: BatchKey,
        placement: Placement,
        is_stored: bool,
        records: u32,
        charge: u64,
    ) {
        self.free(records, charge);
        self.stats.records_delivered += u64::from(records);
        self.effects.push_back(Effect::Delivered { batch, placement, is_stored });
    }

    pub(crate) fn failed(&mut self, batch: BatchKey, records: u32, detached: u32, charge: u64, error: DeliveryError) {
        self.free(records, charge);
        self.stats.records_failed += u64::from(records);
        self.stats.detached_failed += u64::from(detached);
        self.effects.push_back(Effect::Failed { batch, detached, error });
    }

    fn free(&mut self, records: u32, charge: u64) {
        self.buffer.records =
            self.buffer.records.checked_sub(u64::from(records)).expect("a batch's records were taken");
        self.buffer.bytes = self.buffer.bytes.checked_sub(charge).expect("a batch's bytes were taken");
    }
}
