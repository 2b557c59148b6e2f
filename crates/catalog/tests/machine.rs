//! The catalog as a machine: what is planned applies, on every shard alike, and limits are kept.

use std::collections::BTreeMap;

use corelane_catalog::{ApplyError, Catalog, CatalogChange, CatalogError, decode_change, decode_snapshot};
use corelane_catalog::{encode_change, encode_snapshot};
use corelane_model::limits::{CATALOG_BYTES_MAX, SEGMENT_BYTES_MIN, TOPIC_PARTITIONS_MAX};
use corelane_model::{CatalogVersion, ErrorCode, ShardId, TopicClass, TopicId, TopicSettings};
use proptest::prelude::*;

fn create(catalog: &mut Catalog, name: &str, partitions: u32) -> TopicId {
    let change = catalog.plan_create(name, partitions, TopicSettings::default()).expect("the topic is fine");
    catalog.apply(&change).expect("it was planned here");
    change.topic()
}

fn owners(catalog: &Catalog, name: &str) -> Vec<u8> {
    catalog.find(name).expect("it exists").shards.iter().map(|shard| shard.0).collect()
}

#[test]
fn topics_are_found_by_name_and_id_and_ids_are_never_reused() {
    let mut catalog = Catalog::new(2);
    assert_eq!(create(&mut catalog, "inputs", 4), TopicId(1));
    let gone = catalog.plan_delete("inputs").unwrap();
    catalog.apply(&gone).unwrap();
    assert!(catalog.find("inputs").is_none());
    assert_eq!(create(&mut catalog, "inputs", 4), TopicId(2));
    assert_eq!(catalog.find("inputs").unwrap().id, TopicId(2));
    assert!(catalog.topic(TopicId(1)).is_none());
    assert_eq!(catalog.next_topic(), TopicId(3));
    assert_eq!(catalog.version(), CatalogVersion(3));
}

#[test]
fn a_topic_is_spread_and_small_ones_do_not_pile_up() {
    let mut catalog = Catalog::new(2);
    create(&mut catalog, "a", 1);
    create(&mut catalog, "b", 1);
    create(&mut catalog, "c", 3);
    assert_eq!(owners(&catalog, "a"), [0]);
    assert_eq!(owners(&catalog, "b"), [1]);
    assert_eq!(owners(&catalog, "c"), [0, 1, 0]);
    let more = catalog.plan_alter("a", Some(4), None).unwrap();
    catalog.apply(&more).unwrap();
    assert_eq!(owners(&catalog, "a"), [0, 1, 0, 1]);
    assert_eq!(catalog.partitions_owned_by(ShardId(0)) + catalog.partitions_owned_by(ShardId(1)), 8);
}

#[test]
fn every_bound_is_named() {
    let mut catalog = Catalog::new(2);
    create(&mut catalog, "taken", 2);
    let settings = TopicSettings::default();
    let refusal = |result: Result<CatalogChange, CatalogError>| {
        let error = result.unwrap_err();
        (error.code(), error.to_string())
    };
    let check = |result, code, text: &str| {
        let (found, message) = refusal(result);
        assert_eq!(found, code);
        assert!(message.contains(text), "{message:?} does not name {text:?}");
    };
    check(catalog.plan_create("taken", 1, settings), ErrorCode::TopicExists, "\"taken\"");
    check(catalog.plan_create("a/b", 1, settings), ErrorCode::InvalidTopicName, "'/'");
    check(catalog.plan_create("a", 0, settings), ErrorCode::InvalidSetting, "number of partitions of 0");
    check(
        catalog.plan_create("a", TOPIC_PARTITIONS_MAX + 1, settings),
        ErrorCode::InvalidSetting,
        "out of bounds: 1 to 16384",
    );
    let small = TopicSettings { segment_bytes: 1, ..settings };
    check(catalog.plan_create("a", 1, small), ErrorCode::InvalidSetting, "segment size in bytes of 1");
    let brief = TopicSettings { retention_ms: Some(0), ..settings };
    check(catalog.plan_create("a", 1, brief), ErrorCode::InvalidSetting, "retention in milliseconds of 0");
    let narrow = TopicSettings { retention_bytes: Some(5), ..settings };
    check(catalog.plan_create("a", 1, narrow), ErrorCode::InvalidSetting, &format!("{SEGMENT_BYTES_MIN} to"));
    check(catalog.plan_alter("none", Some(2), None), ErrorCode::UnknownTopic, "\"none\"");
    check(catalog.plan_alter("taken", Some(1), None), ErrorCode::InvalidSetting, "has 2 partitions");
    let other = TopicSettings { class: TopicClass::Memory, ..settings };
    check(catalog.plan_alter("taken", None, Some(other)), ErrorCode::InvalidSetting, "class");
    check(catalog.plan_delete("none"), ErrorCode::UnknownTopic, "\"none\"");
}

#[test]
fn the_limits_of_the_broker_hold_and_a_full_catalog_still_fits_its_entry() {
    let mut catalog = Catalog::new(4);
    let mut refused = None;
    for i in 0_u32.. {
        match catalog.plan_create(&format!("{i:x>240}"), 100, TopicSettings::default()) {
            Ok(change) => catalog.apply(&change).unwrap(),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.code(), ErrorCode::LimitReached);
    assert!(refused.to_string().contains("limit"), "{refused}");
    assert!(encode_snapshot(&catalog).len() as u64 <= CATALOG_BYTES_MAX);
}

#[test]
fn a_change_applies_only_where_it_was_planned() {
    let mut catalog = Catalog::new(2);
    let change = catalog.plan_create("a", 2, TopicSettings::default()).unwrap();
    create(&mut catalog, "b", 1);
    let before = catalog.clone();
    let refused = catalog.apply(&change).unwrap_err();
    assert_eq!(refused, ApplyError::Version { found: CatalogVersion(1), known: CatalogVersion(1) });
    let mut small = Catalog::new(1);
    assert_eq!(small.apply(&change).unwrap_err(), ApplyError::NoShard { shard: 1, shards: 1 });
    assert_eq!((catalog, small), (before, Catalog::new(1)));
}

#[test]
fn another_number_of_shards_keeps_everything_but_owners() {
    let mut catalog = Catalog::new(2);
    create(&mut catalog, "a", 5);
    create(&mut catalog, "b", 3);
    let spread = catalog.reassign(4);
    assert_eq!(spread.shards(), 4);
    assert_eq!(spread.version().0, catalog.version().0 + 1);
    assert_eq!(spread.next_topic(), catalog.next_topic());
    for topic in catalog.topics() {
        let moved = spread.topic(topic.id).unwrap();
        assert_eq!(
            (&moved.name, moved.settings, moved.shards.len()),
            (&topic.name, topic.settings, topic.shards.len())
        );
    }
    assert_eq!((0..4).map(|shard| spread.partitions_owned_by(ShardId(shard))).collect::<Vec<_>>(), [2, 2, 2, 2]);
    assert_eq!(catalog.reassign(1).partitions_owned_by(ShardId(0)), 8);
}

#[derive(Clone, Debug)]
enum Wish {
    Create(u8, u32),
    Alter(u8, u32),
    Retain(u8, u64),
    Delete(u8),
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        3 => (0_u8..8, 1_u32..40).prop_map(|(name, partitions)| Wish::Create(name, partitions)),
        2 => (0_u8..8, 1_u32..60).prop_map(|(name, partitions)| Wish::Alter(name, partitions)),
        1 => (0_u8..8, any::<u64>()).prop_map(|(name, ms)| Wish::Retain(name, ms)),
        2 => (0_u8..8).prop_map(Wish::Delete),
    ]
}

fn plan(catalog: &Catalog, wish: &Wish) -> Result<CatalogChange, CatalogError> {
    let settings = TopicSettings::default();
    let name = |number: &u8| format!("topic-{number}");
    match wish {
        Wish::Create(topic, partitions) => catalog.plan_create(&name(topic), *partitions, settings),
        Wish::Alter(topic, partitions) => catalog.plan_alter(&name(topic), Some(*partitions), None),
        Wish::Retain(topic, ms) => {
            catalog.plan_alter(&name(topic), None, Some(TopicSettings { retention_ms: Some(*ms), ..settings }))
        }
        Wish::Delete(topic) => catalog.plan_delete(&name(topic)),
    }
}

proptest! {
    /// The catalog against a map of names to numbers of partitions; a second shard that only hears of encoded changes,
    /// and a third that starts from a snapshot in the middle, come to the same.
    #[test]
    fn shards_agree_and_a_plain_map_agrees(
        shards in 1_u16..5,
        wishes in prop::collection::vec(wish(), 1..60),
        middle in 0_usize..60,
    ) {
        let mut first = Catalog::new(shards);
        let mut second = Catalog::new(shards);
        let mut third = None;
        let mut model: BTreeMap<String, usize> = BTreeMap::new();
        for (at, wish) in wishes.iter().enumerate() {
            if at == middle {
                third = Some(decode_snapshot(&encode_snapshot(&first)).unwrap());
            }
            let planned = plan(&first, wish);
            let (Wish::Create(topic, _) | Wish::Alter(topic, _) | Wish::Retain(topic, _) | Wish::Delete(topic)) = wish;
            let name = format!("topic-{topic}");
            let today = model.get(&name).copied();
            let expected = match wish {
                Wish::Create(_, partitions) => today.is_none().then_some(Some(*partitions as usize)),
                Wish::Alter(_, partitions) => {
                    today.filter(|&today| today <= *partitions as usize).map(|_| Some(*partitions as usize))
                }
                Wish::Retain(_, ms) => today.filter(|_| (1..=3_162_240_000_000).contains(ms)).map(Some),
                Wish::Delete(_) => today.map(|_| None),
            };
            prop_assert_eq!(planned.is_ok(), expected.is_some(), "{:?} of {:?}: {:?}", wish, today, planned);
            let Ok(change) = planned else { continue };
            let heard = decode_change(&encode_change(&change, shards)).unwrap();
            prop_assert_eq!(&heard, &change);
            first.apply(&change).unwrap();
            second.apply(&heard).unwrap();
            if let Some(third) = &mut third {
                third.apply(&heard).unwrap();
            }
            match expected.flatten() {
                Some(partitions) => model.insert(name, partitions),
                None => model.remove(&name),
            };
        }
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(third.as_ref().unwrap_or(&first), &first);
        let found: BTreeMap<String, usize> =
            first.topics_by_name().map(|topic| (topic.name.to_string(), topic.shards.len())).collect();
        prop_assert_eq!(found, model);
        for topic in first.topics() {
            let mut counts = vec![0_u32; usize::from(shards)];
            topic.shards.iter().for_each(|shard| counts[usize::from(shard.0)] += 1);
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            let listed: usize = (0..shards)
                .map(|shard| topic.partitions_of(ShardId(u8::try_from(shard).unwrap())).count())
                .sum();
            prop_assert_eq!(listed, topic.shards.len());
        }
    }
}
