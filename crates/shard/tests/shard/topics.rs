//! Topics created, looked at, altered and deleted while shards run.

use corelane_model::{ErrorCode, StartAt, TopicSettings};
use corelane_wire::{
    AlterTopic, AlterTopicAnswer, CreateTopic, CreateTopicAnswer, DeleteTopic, DescribeTopic, DescribeTopicAnswer,
    Metadata, MetadataAnswer, TopicDone,
};

use crate::records::batch;
use crate::world::World;

pub(crate) fn named(name: &str) -> DeleteTopic {
    DeleteTopic { name: name.to_owned() }
}

#[test]
fn a_topic_is_known_everywhere_when_its_creator_hears_of_it() {
    let mut world = World::new(3);
    let client = world.connect(1);
    let topic = world.create(client, "inputs", 6);
    for shard in 0..3 {
        let other = world.connect(shard);
        let metadata: MetadataAnswer = world.ask(other, &Metadata { names: Vec::new() }).unwrap();
        assert_eq!((metadata.catalog_version, metadata.shards, metadata.is_cut), (1, 3, false));
        assert_eq!(metadata.topics[0].topic, topic);
        assert_eq!(metadata.topics[0].shards, [0, 1, 2, 0, 1, 2]);
        assert_eq!(world.status(shard).partitions, 2);
    }
    let names = vec!["inputs".to_owned(), "none".to_owned()];
    let some: MetadataAnswer = world.ask(client, &Metadata { names }).unwrap();
    assert_eq!(some.topics.len(), 1);
}

#[test]
fn nothing_is_said_before_the_change_is_durable() {
    let mut world = World::new(2);
    let client = world.connect(1);
    world.are_syncs_held = true;
    let settings = TopicSettings::default().into();
    let asked = world.send(client, &CreateTopic { name: "inputs".to_owned(), partitions: 1, settings });
    world.run();
    let metadata: MetadataAnswer = world.ask(client, &Metadata { names: Vec::new() }).unwrap();
    assert_eq!(metadata.topics.len(), 0);
    assert!(world.answer::<CreateTopicAnswer>(client, asked).is_none());
    world.let_files_go();
    world.run();
    assert_eq!(world.answer::<CreateTopicAnswer>(client, asked).unwrap().unwrap().catalog_version, 1);
}

#[test]
fn many_at_once_are_made_one_after_another() {
    let mut world = World::new(2);
    let client = world.connect(1);
    let asked: Vec<u64> = (0..50)
        .map(|i| {
            let settings = TopicSettings::default().into();
            world.send(client, &CreateTopic { name: format!("topic-{}", i % 40), partitions: 2, settings })
        })
        .collect();
    world.run();
    let made: Vec<_> =
        asked.into_iter().map(|id| world.answer::<CreateTopicAnswer>(client, id).expect("it is answered")).collect();
    assert!(made[..40].iter().all(Result::is_ok));
    assert!(made[40..].iter().all(|made| made.as_ref().is_err_and(|(code, _)| *code == ErrorCode::TopicExists)));
    let metadata: MetadataAnswer = world.ask(client, &Metadata { names: Vec::new() }).unwrap();
    assert_eq!(metadata.topics.len(), 40);
}

#[test]
fn partitions_are_added_and_settings_change() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 1);
    let alter = |partitions, settings| AlterTopic { name: "inputs".to_owned(), partitions, settings };
    let answer: AlterTopicAnswer = world.ask(client, &alter(Some(3), None)).unwrap();
    assert!(answer.keys_moved);
    let settings = TopicSettings { retention_ms: None, ..TopicSettings::default() };
    let answer: AlterTopicAnswer = world.ask(client, &alter(None, Some(settings.into()))).unwrap();
    assert!(!answer.keys_moved);
    for partition in 0..3 {
        world.produce(client, topic, partition, u64::from(partition), batch(&["a"]));
    }
    world.run();
    let mut outcomes = world.outcomes(client);
    outcomes.sort_unstable();
    assert_eq!(outcomes, [(0, Ok(0)), (1, Ok(0)), (2, Ok(0))]);
    let (code, text) = world.ask::<_, AlterTopicAnswer>(client, &alter(Some(2), None)).unwrap_err();
    assert_eq!(code, ErrorCode::InvalidSetting);
    assert!(text.contains("3 partitions"), "{text}");
}

#[test]
fn a_topic_is_described_from_all_its_owners() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 4);
    for partition in 0..4 {
        for i in 0..=partition {
            world.produce(client, topic, partition, u64::from(i), batch(&["a"]));
        }
    }
    world.run();
    let ask = |from, most| DescribeTopic { name: "inputs".to_owned(), from, most };
    let answer: DescribeTopicAnswer = world.ask(client, &ask(0, 100)).unwrap();
    assert_eq!((answer.partition_count, answer.topic.topic), (4, topic));
    let found: Vec<_> = answer.partitions.iter().map(|p| (p.partition, p.shard, p.durable_end, p.log_end)).collect();
    assert_eq!(found, [(0, 0, 1, 1), (1, 1, 2, 2), (2, 0, 3, 3), (3, 1, 4, 4)]);
    let answer: DescribeTopicAnswer = world.ask(client, &ask(1, 2)).unwrap();
    assert_eq!(answer.partitions.iter().map(|p| p.partition).collect::<Vec<_>>(), [1, 2]);
    let answer: DescribeTopicAnswer = world.ask(client, &ask(9, u32::MAX)).unwrap();
    assert_eq!(answer.partitions.len(), 0);
    let none = DescribeTopic { name: "none".to_owned(), from: 0, most: 1 };
    assert_eq!(world.ask::<_, DescribeTopicAnswer>(client, &none).unwrap_err().0, ErrorCode::UnknownTopic);

    world.cut_off.insert(1);
    let asked = world.send(client, &ask(0, 100));
    world.run();
    assert!(world.answer::<DescribeTopicAnswer>(client, asked).is_none());
    world.pass(2_000_000_000);
    let answer: DescribeTopicAnswer = world.answer(client, asked).unwrap().unwrap();
    assert_eq!(answer.partitions.iter().map(|p| p.partition).collect::<Vec<_>>(), [0, 2]);
    world.cut_off.clear();
    world.run();
}

#[test]
fn a_deleted_topic_lets_everybody_go() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 2);
    for partition in 0..2 {
        world.subscribe(client, u64::from(partition), topic, partition, StartAt::Earliest, 1 << 20).unwrap();
        world.produce(client, topic, partition, u64::from(partition), batch(&["a"]));
    }
    world.run();
    world.inbox(client).control.clear();
    world.inbox(client).pushes.clear();
    let deleter = world.connect(1);
    let _: TopicDone = world.ask(deleter, &named("inputs")).unwrap();
    let mut ended = world.ended(client);
    ended.sort_unstable();
    assert_eq!(
        ended.iter().map(|end| (end.0, end.1)).collect::<Vec<_>>(),
        [(0, ErrorCode::Deleted), (1, ErrorCode::Deleted)]
    );
    world.produce(client, topic, 0, 5, batch(&["late"]));
    world.run();
    assert_eq!(world.outcomes(client), [(5, Err(ErrorCode::UnknownTopic))], "an id that is gone is refused at once");
    assert_eq!(world.ask::<_, TopicDone>(deleter, &named("inputs")).unwrap_err().0, ErrorCode::UnknownTopic);
    let again = world.create(client, "inputs", 2);
    assert_ne!(again, topic);
    let answer = world.subscribe(client, 0, again, 0, StartAt::Earliest, 1 << 20).unwrap();
    assert_eq!(answer.high_watermark, 0);
}

#[test]
fn deleting_answers_who_waits_for_the_disk() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 2);
    // Shard 1 stores nothing, shard 0 goes on.
    world.are_syncs_held = true;
    world.produce(client, topic, 1, 1, batch(&["a"]));
    world.pass(1_000_000);
    assert_eq!(world.outcomes(client), [(1, Ok(0))]);
    let asked = world.send(client, &named("inputs"));
    world.run();
    world.let_files_go();
    world.run();
    assert!(world.answer::<TopicDone>(client, asked).unwrap().is_ok());
    assert_eq!(world.ends(client).last(), Some(&(topic, 1, 1)));
}

#[test]
fn metadata_is_cut_to_a_frame_and_says_so() {
    let mut world = World::new(1);
    let client = world.connect(0);
    // Each row takes some 300 bytes, so that a frame does not hold them all.
    let name = |i: u32| format!("topic-{i:05}-{}", "x".repeat(200));
    for chunk in (0..5000).collect::<Vec<_>>().chunks(1000) {
        for &i in chunk {
            let settings = TopicSettings::default().into();
            world.send(client, &CreateTopic { name: name(i), partitions: 1, settings });
        }
        world.run();
    }
    let all: MetadataAnswer = world.ask(client, &Metadata { names: Vec::new() }).unwrap();
    assert!(all.is_cut && 1000 < all.topics.len(), "{} topics", all.topics.len());
    assert_eq!(all.topics[7].name, name(7));
    let last: MetadataAnswer = world.ask(client, &Metadata { names: vec![name(4999)] }).unwrap();
    assert_eq!((last.is_cut, last.topics.len()), (false, 1));
}

#[test]
fn short_questions_with_long_answers_are_answered_a_few_at_a_time() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.create(client, "inputs", 10_000);
    let names = vec!["inputs".to_owned(); 90];
    let asked: Vec<u64> = (0..50).map(|_| world.send(client, &Metadata { names: names.clone() })).collect();
    world.run();
    let answers: Vec<Result<MetadataAnswer, _>> =
        asked.into_iter().map(|asked| world.answer(client, asked).expect("each is answered")).collect();
    assert!(answers[0].is_ok(), "the first is answered whatever it takes");
    let given = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(given < 10, "{given} answers of 900 KB in one round");
    assert!(answers.iter().all(|answer| answer.as_ref().err().is_none_or(|(code, _)| *code == ErrorCode::Busy)));
    world.ask::<_, MetadataAnswer>(client, &Metadata { names }).expect("there is another round");
}
