//! The catalog's bytes: golden fixtures, and garbage.

use corelane_catalog::{
    ApplyError, CATALOG_FORMAT, CATALOG_FORMAT_MIN, Catalog, CatalogChange, DecodeError, decode_change,
    decode_snapshot, encode_change, encode_snapshot, shards_of,
};
use corelane_model::{CatalogVersion, ShardId, TopicClass, TopicId, TopicName, TopicSettings};
use proptest::prelude::*;

fn changes() -> [CatalogChange; 4] {
    let memory = TopicSettings {
        class: TopicClass::Memory,
        retention_ms: Some(2000),
        retention_bytes: Some(16 << 20),
        ..TopicSettings::default()
    };
    let create = |version, topic, name, settings, shards| CatalogChange::Created {
        version: CatalogVersion(version),
        topic: TopicId(topic),
        name: TopicName::parse(name).expect("a good name"),
        settings,
        shards,
    };
    [
        create(1, 1, "match-inputs", memory, vec![ShardId(0), ShardId(1), ShardId(0)]),
        create(2, 2, "chat", TopicSettings::default(), vec![ShardId(1)]),
        CatalogChange::Altered {
            version: CatalogVersion(3),
            topic: TopicId(2),
            settings: TopicSettings { retention_ms: None, ..TopicSettings::default() },
            added: vec![ShardId(0)],
        },
        CatalogChange::Deleted { version: CatalogVersion(4), topic: TopicId(1) },
    ]
}

const SHARDS: u16 = 2;
const NAMES: [&str; 4] = ["catalog-created", "catalog-created-durable", "catalog-altered", "catalog-deleted"];

/// The catalog after the first three changes, so that a snapshot has something in it.
fn catalog() -> Catalog {
    let mut catalog = Catalog::new(SHARDS);
    changes()[..3].iter().for_each(|change| catalog.apply(change).expect("they follow"));
    catalog
}

fn path(format: u16, name: &str) -> String {
    format!("{}/../../tests/fixtures/{format}/{name}.bin", env!("CARGO_MANIFEST_DIR"))
}

fn fixture(format: u16, name: &str) -> Vec<u8> {
    std::fs::read(path(format, name)).expect("the fixture is part of the repository")
}

#[test]
fn bytes_are_those_of_the_fixtures() {
    for (name, change) in NAMES.into_iter().zip(changes()) {
        assert_eq!(encode_change(&change, SHARDS), fixture(CATALOG_FORMAT, name), "{name}");
    }
    assert_eq!(encode_snapshot(&catalog()), fixture(CATALOG_FORMAT, "catalog-snapshot"));
}

#[test]
fn the_fixtures_of_every_format_open() {
    for format in CATALOG_FORMAT_MIN..=CATALOG_FORMAT {
        for (name, change) in NAMES.into_iter().zip(changes()) {
            assert_eq!(decode_change(&fixture(format, name)).unwrap(), change, "{name} of format {format}");
        }
        assert_eq!(decode_snapshot(&fixture(format, "catalog-snapshot")).unwrap(), catalog(), "format {format}");
    }
}

#[test]
#[ignore = "writes the fixtures of a new format version"]
fn write_fixtures() {
    for (name, change) in NAMES.into_iter().zip(changes()) {
        std::fs::write(path(CATALOG_FORMAT, name), encode_change(&change, SHARDS)).unwrap();
    }
    std::fs::write(path(CATALOG_FORMAT, "catalog-snapshot"), encode_snapshot(&catalog())).unwrap();
}

#[test]
fn a_newer_format_and_a_wrong_kind_are_named() {
    let mut bytes = encode_snapshot(&catalog());
    assert_eq!(decode_change(&bytes), Err(DecodeError::Kind { found: 2, expected: 1 }));
    assert_eq!(shards_of(&bytes), Ok(SHARDS));
    bytes[0] = 9;
    assert_eq!(decode_snapshot(&bytes), Err(DecodeError::Format { found: 9, known: 2 }));
    assert_eq!(decode_snapshot(&bytes[..7]), Err(DecodeError::Short { length: 7 }));
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    // Topic 2 owned by shard 7 of 2: every byte 1 among the owners is tried as 7, one at a time.
    let good = encode_snapshot(&catalog());
    let mut refused = 0;
    for at in 8..good.len() {
        let mut bytes = good.clone();
        if bytes[at] != 1 {
            continue;
        }
        bytes[at] = 7;
        if let Err(DecodeError::Contradiction(ApplyError::NoShard { shard, shards })) = decode_snapshot(&bytes) {
            assert_eq!((shard, shards), (7, 2));
            refused += 1;
        }
    }
    assert_eq!(refused, 2, "both partitions on shard 1 were tried");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_decode_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        format in 1_u8..3,
        kind in 1_u8..3,
    ) {
        if 8 <= bytes.len() {
            bytes[..8].copy_from_slice(&[format, 0, kind, 0, 2, 0, 0, 0]);
        }
        drop(decode_change(&bytes));
        drop(decode_snapshot(&bytes));
    }

    /// Damaged encodings either are refused or say something that a catalog can be; then they encode again.
    #[test]
    fn damaged_bytes_decode_without_a_panic(at in any::<prop::sample::Index>(), byte: u8, which in 0_usize..5) {
        let mut bytes = if which == 4 { encode_snapshot(&catalog()) } else { encode_change(&changes()[which], SHARDS) };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(change) = decode_change(&bytes) {
            prop_assert_eq!(decode_change(&encode_change(&change, SHARDS)).unwrap(), change.clone());
            drop(catalog().apply(&change));
            drop(Catalog::new(SHARDS).apply(&change));
        }
        if let Ok(mut read) = decode_snapshot(&bytes) {
            prop_assert_eq!(&decode_snapshot(&encode_snapshot(&read)).unwrap(), &read);
            if let Ok(next) = read.plan_create("next", 3, TopicSettings::default()) {
                read.apply(&next).unwrap();
            }
        }
    }
}
