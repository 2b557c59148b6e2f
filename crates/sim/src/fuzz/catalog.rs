//! The catalog's changes and snapshots as they come from a journal.

use corelane_catalog::{
    Catalog, CatalogChange, decode_change, decode_snapshot, encode_change, encode_snapshot, shards_of,
};
use corelane_model::{TopicClass, TopicSettings};

use super::{Target, no_repair};

pub(super) const TARGET: Target =
    Target { name: "catalog", about: "a snapshot and changes, decoded and applied", body, seeds, repair: no_repair };

/// Pieces, each after its length in two bytes: a snapshot, then changes.
fn body(input: &[u8]) -> bool {
    let mut pieces = pieces(input);
    std::hint::black_box(shards_of(input).is_ok());
    let Some(snapshot) = pieces.next() else { return false };
    let mut catalog = match decode_snapshot(snapshot) {
        Ok(catalog) => catalog,
        Err(_) => Catalog::new(2),
    };
    let mut count = 0_u32;
    for piece in pieces {
        if let Ok(change) = decode_change(piece) {
            assert_eq!(
                decode_change(&encode_change(&change, 2)).as_ref(),
                Ok(&change),
                "a change survives its encoding"
            );
            count += u32::from(catalog.apply(&change).is_ok());
        }
    }
    let again = decode_snapshot(&encode_snapshot(&catalog)).expect("a catalog survives its encoding");
    assert_eq!(again.version(), catalog.version(), "a catalog survives its encoding");
    assert_eq!(again.topics().len(), catalog.topics().len(), "a catalog survives its encoding");
    0 < count
}

fn pieces(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (piece, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        rest = tail;
        Some(piece)
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let mut catalog = Catalog::new(2);
    let first = encode_snapshot(&catalog);
    let settings = TopicSettings::default();
    let memory = TopicSettings { class: TopicClass::Memory, retention_ms: Some(2000), ..settings };
    let mut changes = Vec::new();
    let mut make = |catalog: &mut Catalog, change: CatalogChange| {
        catalog.apply(&change).expect("a planned change applies");
        changes.push(encode_change(&change, 2));
    };
    let change = catalog.plan_create("inputs", 8, settings).expect("a good topic");
    make(&mut catalog, change);
    let change = catalog.plan_create("states", 3, memory).expect("a good topic");
    make(&mut catalog, change);
    let change = catalog.plan_alter("inputs", Some(12), None).expect("more partitions");
    make(&mut catalog, change);
    let second = encode_snapshot(&catalog);
    let change = catalog.plan_delete("states").expect("it exists");
    make(&mut catalog, change);
    let last = changes.last().cloned().unwrap_or_default();
    vec![join(std::iter::once(first).chain(changes)), join([second, last])]
}

fn join(pieces: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut input = Vec::new();
    for piece in pieces {
        input.extend_from_slice(&u16::try_from(piece.len()).expect("seeds are small").to_le_bytes());
        input.extend_from_slice(&piece);
    }
    input
}
