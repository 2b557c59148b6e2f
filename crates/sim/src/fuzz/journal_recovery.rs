//! Recovery of a journal from files with anything in them.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_commitlog::LogState;
use corelane_journal::{
    ENTRY_HEAD_BYTES, ENTRY_MAGIC, Item, Journal, JournalConfig, JournalDone, JournalId, JournalOp, JournalOutput,
    JournalResult, body_crc, recover_images,
};
use corelane_model::limits::BLOCK_BYTES;
use corelane_model::{
    LeaderEpoch, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ProducerId, ShardId, TopicId, WallMillis,
};
use corelane_record::{BatchBuilder, Compression, ProducerStamp, SealedBatch, Stamp};

use super::Target;

pub(super) const TARGET: Target =
    Target { name: "journal_recovery", about: "recovery of a journal from damaged files", body, seeds, repair };

const FILE_BYTES: u64 = 64 << 10;
const FILES: u32 = 4;
const CONFIG: JournalConfig = JournalConfig {
    id: JournalId { data: 0x0123_4567_89ab_cdef, shard: ShardId(1) },
    files: FILES,
    file_bytes: FILE_BYTES,
};
/// Slot, block and length of a patch.
const PATCH_HEAD_BYTES: usize = 4;

/// Patches over files of zeros: slot, block, length in two bytes, bytes.
fn body(input: &[u8]) -> bool {
    let mut files: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for patch in patches(input) {
        let (slot, block, bytes) = (input[patch.start - 4], input[patch.start - 3], &input[patch]);
        let file = files.entry(slot % 5).or_insert_with(|| vec![0; usize::try_from(FILE_BYTES).expect("it fits")]);
        let at = (usize::from(block) * 4096).min(file.len());
        let end = file.len().min(at + bytes.len());
        file[at..end].copy_from_slice(&bytes[..end - at]);
    }
    let images = (0..5).map(|slot| files.remove(&slot).map(Bytes::from)).collect::<Vec<_>>();
    match recover_images(CONFIG, &images) {
        Ok((items, _)) => {
            for found in &items {
                if let Item::State { state, .. } = &found.item {
                    std::hint::black_box(LogState::decode(state).is_ok());
                }
            }
            !items.is_empty()
        }
        Err(error) => {
            std::hint::black_box(error.to_string());
            false
        }
    }
}

/// Where in the input the bytes of each patch lie.
fn patches(input: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(head) = input.get(at..at + PATCH_HEAD_BYTES) {
        let start = at + PATCH_HEAD_BYTES;
        let end = input.len().min(start + usize::from(u16::from_le_bytes([head[2], head[3]])));
        ranges.push(start..end);
        at = end;
    }
    ranges
}

/// Puts right the checksums of every entry that a patch begins with, and ties each to the one before.
fn repair(input: &mut [u8]) {
    let mut previous: Option<[u8; 4]> = None;
    for patch in patches(input) {
        let entry = &mut input[patch];
        if entry.len() < ENTRY_HEAD_BYTES || entry[..4] != ENTRY_MAGIC.to_le_bytes() {
            continue;
        }
        if let Some(crc) = previous {
            entry[64..68].copy_from_slice(&crc);
        }
        let length = u32::from_le_bytes([entry[60], entry[61], entry[62], entry[63]]) as usize;
        let mut body = entry[ENTRY_HEAD_BYTES..].to_vec();
        body.resize(length.min(1 << 16), 0);
        entry[68..76].copy_from_slice(&body_crc(&body).to_le_bytes());
        let crc = crc32c::crc32c(&entry[..76]).to_le_bytes();
        entry[76..80].copy_from_slice(&crc);
        previous = Some(crc);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    [(6, true), (40, false), (400, true)].map(|(rounds, is_closed)| to_input(&journal(rounds, is_closed))).to_vec()
}

/// States that a checkpoint of the seeds holds.
pub(super) fn states() -> Vec<Bytes> {
    let images = journal(40, true).into_values().map(|file| Some(Bytes::from(file))).collect::<Vec<_>>();
    let items = recover_images(CONFIG, &images).map(|(items, _)| items).unwrap_or_default();
    let states = items.into_iter().filter_map(|found| match found.item {
        Item::State { state, .. } => Some(state),
        _ => None,
    });
    states.collect()
}

/// Every entry as a patch, without the zeros behind it.
fn to_input(files: &BTreeMap<u32, Vec<u8>>) -> Vec<u8> {
    let mut entries = Vec::new();
    for (slot, file) in files {
        let mut block = 0;
        while let Some(entry) = file.get(block * 4096..) {
            if entry.len() < ENTRY_HEAD_BYTES || entry[..4] != ENTRY_MAGIC.to_le_bytes() {
                break;
            }
            let body = u32::from_le_bytes([entry[60], entry[61], entry[62], entry[63]]) as usize;
            let length = (ENTRY_HEAD_BYTES + body).min(entry.len());
            let sequence = u32::from_le_bytes([entry[32], entry[33], entry[34], entry[35]]);
            let mut patch = vec![u8::try_from(*slot).expect("few slots"), u8::try_from(block).expect("small files")];
            patch.extend_from_slice(&u16::try_from(length).expect("small entries").to_le_bytes());
            patch.extend_from_slice(&entry[..length]);
            entries.push(((sequence, block), patch));
            block += length.div_ceil(4096);
        }
    }
    entries.sort();
    entries.into_iter().flat_map(|(_, patch)| patch).collect()
}

/// The files of a journal after so many rounds.
fn journal(rounds: u64, is_closed: bool) -> BTreeMap<u32, Vec<u8>> {
    let mut journal = Journal::new(CONFIG);
    let mut files = BTreeMap::new();
    let mut is_running = false;
    let mut done = 0;
    let mut offset = 0;
    for moment in 1.. {
        let now = Now { monotonic: MonotonicNanos(moment * 1_000_000_000), wall: WallMillis(1_700_000_000_000) };
        assert!(moment < 10_000, "the journal comes to an end");
        while journal.poll_recovered().is_some() {}
        if is_running && done < rounds {
            done += 1;
            add(&mut journal, done, &mut offset);
            if done == rounds && is_closed {
                journal.close();
            }
        }
        drop(journal.finish_round(now));
        let mut was_idle = true;
        while let Some(effect) = journal.poll_effect() {
            was_idle = false;
            let result = carry_out(&mut files, effect.slot.0, effect.op);
            journal.on_done(effect.id, result);
        }
        while let Some(output) = journal.poll_output() {
            match output {
                JournalOutput::Recovered(_) => is_running = true,
                JournalOutput::Durable { end } => journal.release(end),
                JournalOutput::CheckpointWanted => checkpoint(&mut journal, offset),
                JournalOutput::Closed => return files,
                JournalOutput::CreateFailed { .. } => {}
                JournalOutput::Failed(error) => panic!("a journal on a good disk fails: {error}"),
            }
        }
        if was_idle && done == rounds && !is_closed {
            return files;
        }
    }
    files
}

const PARTITION: PartitionId = PartitionId::new(TopicId(1), PartitionIndex(0));

fn add(journal: &mut Journal, round: u64, offset: &mut u64) {
    let mut builder = BatchBuilder::new(Compression::None);
    let pushed = builder.push(WallMillis(1_700_000_000_000), None, Some(&[7; 200]), &[]);
    assert!(pushed.is_ok(), "a small record fits");
    let batch = SealedBatch::parse(builder.finish(ProducerStamp::default())).expect("a built batch is sealed");
    if journal.is_room(Item::batch_bytes(batch.bytes().len())) {
        let stamp = Stamp {
            base_offset: Offset(*offset),
            append_timestamp: WallMillis(1_700_000_000_000),
            leader_epoch: LeaderEpoch(1),
        };
        journal.add_batch(PARTITION, &batch, stamp);
        *offset += 1;
    }
    let item = match round % 5 {
        0 => Item::Settled { partition: PARTITION, end: Offset(*offset), changes: Bytes::from_static(b"segments") },
        1 => Item::LogStart { partition: PARTITION, offset: Offset(1) },
        2 => Item::ProducerLease { until: ProducerId(2048) },
        3 => Item::Epoch { partition: PARTITION, epoch: LeaderEpoch(2), start: Offset(*offset) },
        _ => Item::Catalog { change: Bytes::from_static(b"a change") },
    };
    if journal.make_room(item.encoded_bytes()) {
        journal.add_item(&item);
    }
}

fn checkpoint(journal: &mut Journal, offset: u64) {
    let mut state = Vec::new();
    LogState::starting_at(Offset(offset)).encode(&mut state);
    let items = [
        Item::State { partition: PARTITION, state: Bytes::from(state) },
        Item::CatalogSnapshot { snapshot: Bytes::from_static(b"a snapshot") },
    ];
    for item in items {
        if journal.make_room(item.encoded_bytes()) && 0 < journal.checkpoint_room() {
            journal.add_checkpoint_item(&item);
        }
    }
    journal.finish_checkpoint();
}

fn carry_out(files: &mut BTreeMap<u32, Vec<u8>>, slot: u32, op: JournalOp) -> JournalResult {
    let size = |bytes: u64| usize::try_from(bytes).expect("files are small");
    Ok(match op {
        JournalOp::Create { length } => {
            files.insert(slot, vec![0; size(length)]);
            JournalDone::Done
        }
        JournalOp::Write { position, pieces } => {
            let bytes = pieces.concat();
            assert!((bytes.len() as u64).is_multiple_of(BLOCK_BYTES), "a write is whole blocks");
            let file = files.get_mut(&slot).expect("it was created");
            file[size(position)..size(position) + bytes.len()].copy_from_slice(&bytes);
            JournalDone::Written(bytes.len() as u64)
        }
        JournalOp::Sync => JournalDone::Done,
        JournalOp::Read { position, length } => {
            let file = &files[&slot];
            let start = size(position).min(file.len());
            JournalDone::Read(Bytes::copy_from_slice(&file[start..file.len().min(start + length as usize)]))
        }
        JournalOp::Length => JournalDone::Length(files.get(&slot).map(|file| file.len() as u64)),
    })
}
