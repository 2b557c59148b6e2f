//! Golden bytes of format version 1: entries with an item of each kind, and one with a whole checkpoint.

use bytes::Bytes;
use corelane_journal::{
    EntryContext, EntryFlags, EntryView, FileSequence, Item, Journal, JournalDone, JournalOp, JournalOutput,
    JournalPosition,
};
use corelane_model::{
    Decision, LeaderEpoch, MonotonicNanos, Now, Offset, ProducerEpoch, ProducerId, Transaction, WallMillis,
};

use crate::owner::{config, partition};

fn path(name: &str) -> String {
    format!("{}/../../tests/fixtures/1/{name}.bin", env!("CARGO_MANIFEST_DIR"))
}

fn items() -> Vec<Item> {
    let partition = partition(3);
    vec![
        Item::Batch { partition, batch: Bytes::from_static(b"the bytes of a stamped record batch") },
        Item::Settled { partition, end: Offset(1000), changes: Bytes::from_static(b"changes of the segment list") },
        Item::LogStart { partition, offset: Offset(500) },
        Item::Catalog { change: Bytes::from_static(b"a change of the catalog") },
        Item::OffsetLease { partition, until: Offset(1 << 20) },
        Item::ProducerLease { until: ProducerId(2048) },
        Item::Epoch { partition, epoch: LeaderEpoch(2), start: Offset(1001) },
    ]
}

fn checkpoint_items() -> Vec<Item> {
    vec![
        Item::State { partition: partition(3), state: Bytes::from_static(b"the state of a partition") },
        Item::CatalogSnapshot { snapshot: Bytes::from_static(b"the whole catalog") },
        Item::ProducerLease { until: ProducerId(2048) },
    ]
}

fn transaction_items() -> Vec<Item> {
    let end = |epoch, decision| Item::TransactionEnd {
        partition: partition(3),
        transaction: Transaction::new(ProducerId(77), ProducerEpoch(epoch)),
        decision,
        first: Offset(1001),
        end: Offset(1004),
    };
    vec![end(258, Decision::Commit), end(259, Decision::Abort)]
}

/// The entries as a new journal writes them, one behind the other.
fn entries() -> [(&'static str, Bytes); 3] {
    let mut journal = Journal::new(config(4));
    let first = write(&mut journal, |journal| {
        for item in items() {
            assert!(journal.make_room(item.encoded_bytes()));
            journal.add_item(&item);
        }
    });
    let second = write(&mut journal, |journal| {
        for item in checkpoint_items() {
            assert!(0 < journal.checkpoint_room() && journal.make_room(item.encoded_bytes()));
            journal.add_checkpoint_item(&item);
        }
        journal.finish_checkpoint();
    });
    let third = write(&mut journal, |journal| {
        for item in transaction_items() {
            assert!(journal.make_room(item.encoded_bytes()));
            journal.add_item(&item);
        }
    });
    [("journal-entry", first), ("journal-checkpoint", second), ("journal-transaction-end", third)]
}

/// One round: its entry, written and synced.
fn write(journal: &mut Journal, mut add: impl FnMut(&mut Journal)) -> Bytes {
    let now = Now { monotonic: MonotonicNanos(1), wall: WallMillis(1_700_000_000_000) };
    let mut written = Bytes::new();
    let mut is_added = false;
    loop {
        assert_eq!(journal.poll_recovered(), None);
        if journal.is_running() && !is_added {
            add(journal);
            is_added = true;
        }
        drop(journal.finish_round(now));
        while let Some(effect) = journal.poll_effect() {
            let done = match effect.op {
                JournalOp::Length => JournalDone::Length(None),
                JournalOp::Write { pieces, .. } => {
                    written = Bytes::from(pieces.concat());
                    JournalDone::Written(written.len() as u64)
                }
                _ => JournalDone::Done,
            };
            journal.on_done(effect.id, Ok(done));
        }
        while let Some(output) = journal.poll_output() {
            if let JournalOutput::Durable { .. } = output {
                return written;
            }
        }
    }
}

#[test]
fn bytes_are_those_of_the_fixtures() {
    for (name, bytes) in entries() {
        let golden = std::fs::read(path(name)).unwrap();
        assert_eq!(bytes, golden, "{name} is written in another way than format version 1 says");
    }
}

#[test]
fn the_fixtures_open() {
    let mut position = JournalPosition::new(FileSequence::FIRST, 0);
    let mut link = 0;
    let whole = EntryFlags(EntryFlags::CHECKPOINT_FIRST.0 | EntryFlags::CHECKPOINT.0 | EntryFlags::CHECKPOINT_LAST.0);
    for (name, flags, items) in [
        ("journal-entry", EntryFlags::default(), items()),
        ("journal-checkpoint", whole, checkpoint_items()),
        ("journal-transaction-end", EntryFlags::default(), transaction_items()),
    ] {
        let bytes = Bytes::from(std::fs::read(path(name)).unwrap());
        let context = EntryContext { journal: config(4).id, position, bytes_left: 1 << 20 };
        let view = EntryView::parse(&bytes, &context).unwrap();
        assert_eq!((view.head.flags, view.head.previous_crc, view.head.durable), (flags, link, durable(position)));
        assert_eq!(view.items().collect::<Result<Vec<_>, _>>().unwrap(), items);
        (position, link) = (view.head.end(), view.link);
    }
}

/// What was durable when the entry at `position` was submitted: everything, except that nothing was before the first.
fn durable(position: JournalPosition) -> JournalPosition {
    if position.byte() == 0 { JournalPosition::ZERO } else { position }
}

#[test]
#[ignore = "writes the fixtures of a new format version"]
fn write_fixtures() {
    for (name, bytes) in entries() {
        std::fs::write(path(name), bytes).unwrap();
    }
}
