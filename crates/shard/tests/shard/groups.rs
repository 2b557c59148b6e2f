//! Consumer groups at their coordinators.

use corelane_model::{ErrorCode, GroupName, Incarnation, StartAt, TopicSettings};
use corelane_shard::{Boot, Event, ShardConfig, ShardExport};
use corelane_wire::{
    AlterGroup, AlterTopic, AlterTopicAnswer, CreateTopic, CreateTopicAnswer, DeleteGroup, DeleteTopic, DescribeGroup,
    DescribeGroupAnswer, DrainGroup, FetchOffsets, FetchOffsetsAnswer, GroupDone, ListGroups, ListGroupsAnswer,
    Metadata, MetadataAnswer, OffsetReset, RemoveStaticMember, ResetOffsets, ResumeGroup, TopicDone, TruncatePartition,
};

use crate::members::{Member, join_of, settle};
use crate::records::batch;
use crate::world::{Client, Disk, World, config};

fn restart(world: World, incarnation: u64, was_clean: bool) -> World {
    let shards = world.shards.len();
    let configs = (0..shards)
        .map(|shard| ShardConfig { incarnation: Incarnation(incarnation), was_clean, ..config(shard, shards) })
        .collect();
    let mut world = World::start(configs, world.into_disks());
    world.run();
    assert_eq!(world.ready.len(), shards, "{:?}", world.failed);
    world
}

/// A topic with that many records in each partition.
fn filled(world: &mut World, client: Client, name: &str, partitions: u32, records: u64) -> u64 {
    let topic = world.create(client, name, partitions);
    for partition in 0..partitions {
        for record in 0..records {
            world.produce(client, topic, partition, record, batch(&["x"]));
        }
    }
    world.run();
    assert!(world.outcomes(client).iter().all(|(_, outcome)| outcome.is_ok()));
    topic
}

fn offsets(world: &mut World, client: Client, group: &str) -> Vec<(u32, u64, String)> {
    let body = FetchOffsets { group: group.to_owned(), after: None, partitions: Vec::new() };
    let answer: FetchOffsetsAnswer = world.ask(client, &body).expect("the group is there");
    assert!(!answer.is_cut);
    answer.offsets.into_iter().map(|offset| (offset.partition, offset.offset, offset.metadata)).collect()
}

fn describe(world: &mut World, client: Client, group: &str) -> Result<DescribeGroupAnswer, (ErrorCode, String)> {
    let body = DescribeGroup {
        group: group.to_owned(),
        after_member: None,
        most_members: 100,
        after_partition: None,
        most_partitions: 100,
    };
    world.ask(client, &body)
}

/// The shard that coordinates a group.
fn home_of(world: &mut World, client: Client, group: &str) -> usize {
    let names = vec!["__groups".to_owned()];
    let metadata: MetadataAnswer = world.ask(client, &Metadata { names }).expect("it is served");
    let home = GroupName::parse(group).expect("a good name").home();
    usize::from(metadata.topics[0].shards[home.0 as usize])
}

#[test]
fn members_on_any_shard_share_the_partitions_and_move_them_without_a_barrier() {
    let mut world = World::new(3);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 6, 3);
    let mut first = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    assert_eq!(first.partitions(), (0..6).map(|index| (topic, index)).collect::<Vec<_>>());
    assert!(first.owned.values().all(|&(_, committed)| committed.is_none()));
    let other = world.connect(2);
    let mut second = Member::join(&mut world, other, &join_of("lobby", 2, &["inputs"])).unwrap();
    first.hear(&mut world);
    assert_eq!(
        (first.owned.len(), first.revoking.len(), second.owned.len()),
        (3, 3, 0),
        "only what moves is asked for"
    );
    let moving: Vec<_> = first.revoking.iter().copied().collect();
    first.commit(&mut world, &moving.iter().map(|&partition| (partition, 2)).collect::<Vec<_>>()).unwrap();
    first.give_up(&mut world, moving[0], b"what I know").unwrap();
    second.hear(&mut world);
    assert_eq!(second.partitions(), [moving[0]]);
    assert_eq!(second.owned[&moving[0]].1, Some(2), "the new owner begins at the committed offset");
    assert_eq!(second.handed_over, [(moving[0], "what I know".into())]);
    settle(&mut world, &mut [&mut first, &mut second]);
    assert_eq!((first.owned.len(), second.owned.len()), (3, 3));
    assert!(first.owned.keys().all(|partition| !second.owned.contains_key(partition)));
}

#[test]
fn the_internal_topic_is_the_broker_s_own() {
    let mut world = World::new(2);
    let client = world.connect(1);
    let topic = world.create(client, "inputs", 1);
    let none: MetadataAnswer = world.ask(client, &Metadata { names: vec!["__groups".to_owned()] }).unwrap();
    assert!(none.topics.is_empty(), "it is made when it is first needed");
    Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    let all: MetadataAnswer = world.ask(client, &Metadata { names: Vec::new() }).unwrap();
    assert_eq!(all.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["inputs"]);
    let own: MetadataAnswer = world.ask(client, &Metadata { names: vec!["__groups".to_owned()] }).unwrap();
    let internal = own.topics[0].topic;
    assert_eq!(own.topics[0].shards.len(), 64);
    let name = || "__groups".to_owned();
    let settings = TopicSettings::default().into();
    let refused = |answer: Result<(), (ErrorCode, String)>, code: ErrorCode| {
        let (found, text) = answer.expect_err("it is refused");
        assert_eq!(found, code, "{text}");
        assert!(text.contains("broker"), "{text}");
    };
    let create = CreateTopic { name: name(), partitions: 1, settings };
    refused(world.ask::<_, CreateTopicAnswer>(client, &create).map(drop), ErrorCode::InvalidTopicName);
    let alter = AlterTopic { name: name(), partitions: Some(65), settings: None };
    refused(world.ask::<_, AlterTopicAnswer>(client, &alter).map(drop), ErrorCode::InvalidTopicName);
    let delete = DeleteTopic { name: name() };
    refused(world.ask::<_, TopicDone>(client, &delete).map(drop), ErrorCode::InvalidTopicName);
    let truncate = TruncatePartition { topic: internal, partition: 0, before: u64::MAX };
    refused(world.ask::<_, TopicDone>(client, &truncate).map(drop), ErrorCode::Forbidden);
    refused(world.subscribe(client, 1, internal, 0, StartAt::Earliest, 1 << 20).map(drop), ErrorCode::Forbidden);
    world.produce(client, internal, 0, 7, batch(&["x"]));
    world.run();
    assert_eq!(world.outcomes(client), [(7, Err(ErrorCode::Forbidden))]);
    let pattern = corelane_wire::JoinGroup { pattern: Some(".*".to_owned()), ..join_of("all", 2, &[]) };
    let member = Member::join(&mut world, client, &pattern).unwrap();
    assert_eq!(member.partitions(), [(topic, 0)]);
}

#[test]
fn nothing_is_said_before_it_is_durable_and_a_crash_forgets_only_what_was_not_said() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 2, 5);
    let mut member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    member.commit(&mut world, &[((topic, 0), 4), ((topic, 1), 3)]).unwrap();
    world.are_syncs_held = true;
    let late = world.send(client, &member.commit_of(&[((topic, 0), 5)]));
    let fetch = FetchOffsets { group: "lobby".to_owned(), after: None, partitions: Vec::new() };
    world.run();
    let fetched = world.send(client, &fetch);
    world.run();
    assert!(world.answer::<GroupDone>(client, late).is_none());
    assert!(world.answer::<FetchOffsetsAnswer>(client, fetched).is_none(), "offsets are told when they are durable");
    world.let_files_go();
    world.run();
    assert!(world.answer::<GroupDone>(client, late).unwrap().is_ok());
    let fetched = world.answer::<FetchOffsetsAnswer>(client, fetched).unwrap().unwrap();
    assert_eq!(fetched.offsets.iter().map(|offset| offset.offset).collect::<Vec<_>>(), [5, 3]);

    let mut world = restart(world, 2, false);
    let client = world.connect(1);
    let told = offsets(&mut world, client, "lobby");
    assert_eq!(told, [(0, 5, "at 5".to_owned()), (1, 3, "at 3".to_owned())]);
    // The member is still one, and is told anew what it has.
    member.client = client;
    member.owned.clear();
    member.heartbeat(&mut world).unwrap();
    assert_eq!(member.owned.values().map(|&(_, committed)| committed).collect::<Vec<_>>(), [Some(5), Some(3)]);
    member.commit(&mut world, &[((topic, 1), 5)]).unwrap();
}

#[test]
fn groups_move_to_another_number_of_shards() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 4, 5);
    for group in 0..20 {
        let join = join_of(&format!("group-{group}"), group, &["inputs"]);
        let mut member = Member::join(&mut world, client, &join).unwrap();
        member.commit(&mut world, &[((topic, 1), group % 6)]).unwrap();
    }
    let shards = 3;
    let configs = (0..2)
        .map(|shard| ShardConfig { boot: Boot::Export, incarnation: Incarnation(2), ..config(shard, 2) })
        .collect();
    let mut old = World::start(configs, world.into_disks());
    old.run();
    assert_eq!(old.drained.len(), 2);
    let exports: Vec<ShardExport> = (0..2)
        .map(|shard| match old.admin(shard, corelane_shard::AdminQuery::Export) {
            corelane_shard::AdminAnswer::Export(Some(export)) => *export,
            answer => panic!("{answer:?}"),
        })
        .collect();
    let imports = corelane_shard::reshard(&exports, shards).unwrap();
    let segments = Disk::merge_segments(old.into_disks(), usize::from(shards));
    let configs = imports.into_iter().enumerate().map(|(shard, import)| ShardConfig {
        boot: Boot::Import(Box::new(import)),
        incarnation: Incarnation(3),
        ..config(shard, usize::from(shards))
    });
    let mut world = World::start(configs.collect(), segments);
    world.run();
    let client = world.connect(2);
    for group in 0..20 {
        let told = offsets(&mut world, client, &format!("group-{group}"));
        assert_eq!(told, [(1, group % 6, format!("at {}", group % 6))]);
    }
}

#[test]
fn a_commit_beyond_the_end_is_refused_by_whoever_owns_the_partition() {
    let mut world = World::new(3);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 3, 2);
    let mut member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    for partition in 0..3 {
        member.commit(&mut world, &[((topic, partition), 2)]).unwrap();
        let (code, text) = member.commit(&mut world, &[((topic, partition), 3)]).unwrap_err();
        assert_eq!(code, ErrorCode::OffsetOutOfRange);
        assert!(text.contains("offset 3") && text.contains("end 2"), "{text}");
        assert!(text.contains(&format!("of partition {partition} of topic inputs is")), "{text}");
        world.produce(client, topic, partition, 0, batch(&["x"]));
        world.run();
        member.commit(&mut world, &[((topic, partition), 3)]).unwrap();
    }
    let (code, text) = member.commit(&mut world, &[((topic, 0), 1), ((topic, 1), 9)]).unwrap_err();
    assert_eq!(code, ErrorCode::OffsetOutOfRange, "{text}");
    assert!(offsets(&mut world, client, "lobby").iter().all(|&(_, offset, _)| offset == 3), "all or none are taken");
}

#[test]
fn requests_of_a_member_keep_their_order_when_one_waits_for_another_shard() {
    let mut world = World::new(3);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 3, 5);
    let member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    let home = home_of(&mut world, client, "lobby");
    let elsewhere = (0..3_u32).find(|&partition| partition as usize % 3 != home).unwrap();
    let first = world.send(client, &member.commit_of(&[((topic, elsewhere), 5)]));
    let second = world.send(client, &member.commit_of(&[((topic, elsewhere), 1)]));
    let left = world.send(client, &member.leave_of(false));
    world.run();
    assert!(world.answer::<GroupDone>(client, first).unwrap().is_ok());
    assert!(world.answer::<GroupDone>(client, second).unwrap().is_ok());
    assert!(world.answer::<GroupDone>(client, left).unwrap().is_ok());
    assert_eq!(offsets(&mut world, client, "lobby"), [(elsewhere, 1, "at 1".to_owned())], "the last one counts");
}

#[test]
fn silence_ends_a_session_and_the_others_take_over() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.create(client, "inputs", 4);
    let mut first = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    let other = world.connect(1);
    let mut second = Member::join(&mut world, other, &join_of("lobby", 2, &["inputs"])).unwrap();
    settle(&mut world, &mut [&mut first, &mut second]);
    assert_eq!(first.owned.len(), 2);
    for _ in 0..4 {
        world.pass(3_000_000_000);
        second.heartbeat(&mut world).unwrap();
    }
    assert_eq!(second.owned.len(), 4);
    first.hear(&mut world);
    assert_eq!(first.fenced.as_ref().map(|&(reason, _)| reason), Some(1));
    let (code, text) = first.heartbeat(&mut world).unwrap_err();
    assert_eq!(code, ErrorCode::SessionExpired);
    assert!(text.contains("silent"), "{text}");
    let (code, _) = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap_err();
    assert_eq!(code, ErrorCode::SessionExpired, "another life needs another id");
}

#[test]
fn a_stalled_shard_hears_who_waited_before_it_expires_anybody() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.create(client, "inputs", 4);
    let mut member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    // Nothing runs for a minute; then the deadline comes one round before the heartbeat.
    world.now.monotonic.0 += 60_000_000_000;
    world.run();
    member.heartbeat(&mut world).unwrap();
    world.pass(5_000_000_000);
    member.heartbeat(&mut world).unwrap();
    world.pass(20_000_000_000);
    assert_eq!(member.heartbeat(&mut world).unwrap_err().0, ErrorCode::SessionExpired);
}

#[test]
fn a_static_member_comes_back_to_its_partitions_without_a_new_generation() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.create(client, "inputs", 4);
    let named = |id, static_id: &str| corelane_wire::JoinGroup {
        static_id: Some(static_id.to_owned()),
        ..join_of("lobby", id, &["inputs"])
    };
    let mut first = Member::join(&mut world, client, &named(1, "one")).unwrap();
    let other = world.connect(1);
    let mut second = Member::join(&mut world, other, &named(2, "two")).unwrap();
    settle(&mut world, &mut [&mut first, &mut second]);
    let generation = first.generation;
    let had = first.partitions();
    let _: GroupDone = world.ask(client, &first.leave_of(true)).unwrap();
    world.disconnect(client);
    let client = world.connect(1);
    let again = Member::join(&mut world, client, &named(3, "one")).unwrap();
    assert_eq!((again.partitions(), again.generation), (had, generation));
    let newest = Member::join(&mut world, client, &named(4, "one")).unwrap();
    assert_eq!(newest.generation, generation);
    let mut loser = again;
    loser.hear(&mut world);
    assert_eq!(loser.fenced.map(|(reason, _)| reason), Some(3), "the newer one takes the place");
    let remove = RemoveStaticMember { group: "lobby".to_owned(), static_id: "two".to_owned() };
    let _: GroupDone = world.ask(client, &remove).unwrap();
    assert_eq!(describe(&mut world, client, "lobby").unwrap().members.len(), 1);
}

#[test]
fn new_partitions_and_topics_are_picked_up_and_deleted_ones_let_go() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let first_topic = filled(&mut world, client, "match-1", 2, 3);
    let join = corelane_wire::JoinGroup { pattern: Some("match-[0-9]+".to_owned()), ..join_of("all", 1, &["chat"]) };
    let mut member = Member::join(&mut world, client, &join).unwrap();
    assert_eq!(member.owned.len(), 2);
    let alter = AlterTopic { name: "match-1".to_owned(), partitions: Some(3), settings: None };
    let _: AlterTopicAnswer = world.ask(client, &alter).unwrap();
    member.hear(&mut world);
    assert_eq!(member.owned.len(), 3);
    world.create(client, "match-22", 2);
    world.create(client, "other", 2);
    world.create(client, "chat", 1);
    member.hear(&mut world);
    assert_eq!(member.owned.len(), 6);
    member.commit(&mut world, &[((first_topic, 0), 2)]).unwrap();
    let _: TopicDone = world.ask(client, &DeleteTopic { name: "match-1".to_owned() }).unwrap();
    member.hear(&mut world);
    assert_eq!(member.owned.len(), 3);
    assert!(offsets(&mut world, client, "all").is_empty());
}

#[test]
fn wrong_wishes_are_refused_in_words_and_leave_no_group_behind() {
    let mut world = World::new(2);
    let client = world.connect(1);
    world.create(client, "inputs", 1);
    let check = |world: &mut World, join: &corelane_wire::JoinGroup, code: ErrorCode, text: &str| {
        let (found, said) = Member::join(world, client, join).unwrap_err();
        assert_eq!(found, code, "{said}");
        assert!(said.contains(text), "{said:?} does not say {text:?}");
    };
    let good = join_of("lobby", 1, &["inputs"]);
    let wish = |change: fn(&mut corelane_wire::JoinGroup)| {
        let mut join = good.clone();
        change(&mut join);
        join
    };
    check(&mut world, &join_of("lobby", 1, &["none"]), ErrorCode::NothingSubscribed, "none");
    check(&mut world, &join_of("", 1, &["inputs"]), ErrorCode::InvalidGroupName, "at least one");
    check(&mut world, &join_of("lobby", 1, &["__groups"]), ErrorCode::InvalidTopicName, "broker");
    check(&mut world, &wish(|join| join.pattern = Some("a[".into())), ErrorCode::InvalidPattern, "at byte 1");
    check(&mut world, &wish(|join| join.strategy = Some("best".into())), ErrorCode::InvalidGroupName, "round-robin");
    check(&mut world, &wish(|join| join.capacity = 0), ErrorCode::InvalidSetting, "capacity");
    check(&mut world, &wish(|join| join.session_timeout_ms = 1), ErrorCode::InvalidSetting, "session");
    let list: ListGroupsAnswer = world.ask(client, &ListGroups { after: String::new(), most: 100 }).unwrap();
    assert!(list.groups.is_empty(), "{list:?}");
    let nobody = Member::new(client, &good);
    let (code, text) = world.ask::<_, GroupDone>(client, &nobody.leave_of(false)).unwrap_err();
    assert_eq!(code, ErrorCode::UnknownMember, "{text}");
    let (code, _) = describe(&mut world, client, "lobby").unwrap_err();
    assert_eq!(code, ErrorCode::UnknownGroup);
    Member::join(&mut world, client, &good).unwrap();
    let mut other = join_of("lobby", 2, &["inputs"]);
    other.strategy = Some("range".to_owned());
    check(&mut world, &other, ErrorCode::StrategyMismatch, "cooperative-sticky");
}

#[test]
fn people_see_groups_of_all_shards_with_their_lag() {
    let mut world = World::new(3);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 3, 10);
    let mut lobby = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    lobby.commit(&mut world, &[((topic, 0), 10), ((topic, 1), 4)]).unwrap();
    for group in 0..30 {
        let join = join_of(&format!("group-{group:02}"), 100 + group, &["inputs"]);
        Member::join(&mut world, client, &join).unwrap();
    }
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let page: ListGroupsAnswer = world.ask(client, &ListGroups { after: after.clone(), most: 7 }).unwrap();
        assert!(page.missing_shards.is_empty());
        names.extend(page.groups.iter().map(|group| group.name.clone()));
        after = names.last().unwrap().clone();
        if !page.is_cut {
            break;
        }
    }
    let mut expected: Vec<String> = (0..30).map(|group| format!("group-{group:02}")).collect();
    expected.push("lobby".to_owned());
    assert_eq!(names, expected);
    world.now.wall.0 += 5_000;
    let described = describe(&mut world, client, "lobby").unwrap();
    assert_eq!((described.summary.state, described.summary.members, described.partition_count), (1, 1, 3));
    assert_eq!(described.members[0].client, "test");
    assert_eq!(described.members[0].owned, 3);
    assert_eq!(described.topics[0].name, "inputs");
    let lag: Vec<_> = described.partitions.iter().map(|part| (part.high_watermark, part.lag, part.lag_ms)).collect();
    assert_eq!(lag[0], (Some(10), Some(0), Some(0)));
    assert_eq!((lag[1].0, lag[1].1), (Some(10), Some(6)));
    assert!(lag[1].2.is_some_and(|age| (5_000..6_000).contains(&age)), "{lag:?}");
    assert_eq!((lag[2].0, lag[2].1, lag[2].2), (Some(10), None, None), "nothing was committed there");
    let total: u64 = (0..3).map(|shard| world.status(shard).group_totals.groups).sum();
    assert_eq!(total, 31);
}

#[test]
fn metrics_know_the_lag_from_the_second_status_on() {
    let mut world = World::new(3);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 3, 10);
    let mut member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    member.commit(&mut world, &[((topic, 0), 10), ((topic, 1), 4), ((topic, 2), 9)]).unwrap();
    let lag = |world: &mut World| -> Vec<(String, u64, u64)> {
        let statuses: Vec<_> = (0..3).map(|shard| world.status(shard)).collect();
        world.run();
        let lags = statuses.iter().flat_map(|status| &status.groups).flat_map(|group| &group.lag);
        lags.map(|lag| (lag.topic.clone(), lag.records, lag.oldest_ms)).collect()
    };
    assert_eq!(lag(&mut world), []);
    world.now.wall.0 += 5_000;
    lag(&mut world);
    let found = lag(&mut world);
    assert_eq!(found.len(), 1, "one group with one topic: {found:?}");
    assert_eq!((found[0].0.as_str(), found[0].1), ("inputs", 7));
    assert!((5_000..6_000).contains(&found[0].2), "{found:?}");
    member.commit(&mut world, &[((topic, 1), 10), ((topic, 2), 10)]).unwrap();
    lag(&mut world);
    assert_eq!(lag(&mut world), [("inputs".to_owned(), 0, 0)]);
}

#[test]
fn operators_drain_reset_and_delete() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 2, 5);
    let mut member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    member.commit(&mut world, &[((topic, 0), 5), ((topic, 1), 5)]).unwrap();
    let reset = |offset| ResetOffsets {
        group: "lobby".to_owned(),
        may_create: false,
        resets: vec![
            OffsetReset { topic, partition: 0, offset: Some(offset), metadata: "by hand".to_owned() },
            OffsetReset { topic, partition: 1, offset: None, metadata: String::new() },
        ],
    };
    let (code, _) = world.ask::<_, GroupDone>(client, &reset(1)).unwrap_err();
    assert_eq!(code, ErrorCode::GroupInUse);
    let drain = world.send(client, &DrainGroup { group: "lobby".to_owned() });
    world.run();
    assert!(world.answer::<GroupDone>(client, drain).is_none(), "the member still has something");
    member.hear(&mut world);
    assert_eq!(member.revoking.len(), 2);
    member.report(&mut world).unwrap();
    assert!(world.answer::<GroupDone>(client, drain).unwrap().is_ok());
    let (code, text) = world.ask::<_, GroupDone>(client, &reset(6)).unwrap_err();
    assert_eq!(code, ErrorCode::OffsetOutOfRange, "{text}");
    let _: GroupDone = world.ask(client, &reset(1)).unwrap();
    assert_eq!(offsets(&mut world, client, "lobby"), [(0, 1, "by hand".to_owned())]);
    let _: GroupDone = world.ask(client, &ResumeGroup { group: "lobby".to_owned() }).unwrap();
    member.hear(&mut world);
    assert_eq!(member.owned.values().map(|&(_, committed)| committed).collect::<Vec<_>>(), [Some(1), None]);
    let alter = AlterGroup {
        group: "new".to_owned(),
        may_create: false,
        strategy: None,
        standbys: Some(1),
        retention_ms: None,
    };
    assert_eq!(world.ask::<_, GroupDone>(client, &alter).unwrap_err().0, ErrorCode::UnknownGroup);
    let _: GroupDone = world.ask(client, &AlterGroup { may_create: true, ..alter }).unwrap();
    assert_eq!(describe(&mut world, client, "new").unwrap().standbys, 1);
    let delete = DeleteGroup { group: "lobby".to_owned() };
    assert_eq!(world.ask::<_, GroupDone>(client, &delete).unwrap_err().0, ErrorCode::GroupInUse);
    let _: GroupDone = world.ask(client, &member.leave_of(false)).unwrap();
    let _: GroupDone = world.ask(client, &delete).unwrap();
    assert_eq!(describe(&mut world, client, "lobby").unwrap_err().0, ErrorCode::UnknownGroup);
    let mut world = restart(world, 2, true);
    let client = world.connect(1);
    assert_eq!(describe(&mut world, client, "lobby").unwrap_err().0, ErrorCode::UnknownGroup);
    assert_eq!(describe(&mut world, client, "new").unwrap().standbys, 1);
}

#[test]
fn the_log_of_a_home_stays_short_and_whole() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 4, 20);
    let mut member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    let home = home_of(&mut world, client, "lobby");
    let mut rounds = 0;
    while world.status(home).counters.group_snapshots < 3 {
        let all: Vec<_> = (0..4).map(|partition| ((topic, partition), rounds % 20)).collect();
        let mut body = member.commit_of(&all);
        body.offsets.iter_mut().for_each(|offset| offset.metadata = format!("{rounds:0>4000}"));
        let _: GroupDone = world.ask(client, &body).unwrap();
        rounds += 1;
        assert!(rounds < 1000, "the log is never shortened");
    }
    assert!(150 < rounds, "a snapshot waits until it pays: {rounds}");
    member.report(&mut world).unwrap();
    let before = offsets(&mut world, client, "lobby");
    let names = vec!["__groups".to_owned()];
    let internal: MetadataAnswer = world.ask(client, &Metadata { names }).unwrap();
    let index = GroupName::parse("lobby").unwrap().home().0;
    let described: corelane_wire::DescribeTopicAnswer = world
        .ask(client, &corelane_wire::DescribeTopic { name: internal.topics[0].name.clone(), from: index, most: 1 })
        .unwrap();
    let log = &described.partitions[0];
    assert!(0 < log.log_start && log.log_end - log.log_start < 1_000, "{log:?}");
    let mut world = restart(world, 2, false);
    let client = world.connect(0);
    assert_eq!(offsets(&mut world, client, "lobby"), before);
    member.client = client;
    member.heartbeat(&mut world).unwrap();
    assert_eq!(member.owned.len(), 4);
}

#[test]
fn a_failing_disk_answers_who_waits() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.create(client, "inputs", 4);
    let mut member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    world.are_syncs_failing = true;
    for id in 2..4 {
        let (code, text) = Member::join(&mut world, client, &join_of("lobby", id, &["inputs"])).unwrap_err();
        assert_eq!(code, ErrorCode::StorageFailed, "{text}");
    }
    assert_eq!(member.heartbeat(&mut world).unwrap_err().0, ErrorCode::StorageFailed);
}

#[test]
fn a_drain_keeps_what_was_taken_and_refuses_what_comes_later() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "inputs", 4, 5);
    let mut member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    let home = home_of(&mut world, client, "lobby");
    // A partition of the home's own shard, whose end it knows.
    let own = u32::try_from(home).unwrap();
    let named = describe(&mut world, client, "lobby").unwrap().members[0].client.clone();
    assert!(!named.is_empty());
    world.are_syncs_held = true;
    let written = world.send(client, &member.commit_of(&[((topic, own), 4)]));
    world.run();
    // This one comes in the same round as the drain.
    let taken = world.send(client, &member.commit_of(&[((topic, own), 5)]));
    if home == 0 {
        world.event(home, Event::Drain);
        world.run();
    } else {
        world.run();
        world.event(home, Event::Drain);
        world.run();
    }
    assert!(world.answer::<GroupDone>(client, written).is_none(), "nothing is said before it is durable");
    assert_eq!(member.heartbeat(&mut world).unwrap_err().0, ErrorCode::ShuttingDown);
    world.let_files_go();
    world.run();
    assert!(world.answer::<GroupDone>(client, written).unwrap().is_ok());
    assert!(world.answer::<GroupDone>(client, taken).unwrap().is_ok());
    let other = 1 - home;
    world.event(other, Event::Drain);
    world.run();
    assert_eq!(world.drained.len(), 2);
    let mut world = restart(world, 2, true);
    let client = world.connect(1);
    assert_eq!(offsets(&mut world, client, "lobby"), [(own, 5, "at 5".to_owned())]);
    assert_eq!(describe(&mut world, client, "lobby").unwrap().members[0].client, named, "it has not joined since");
}

#[test]
fn a_member_whose_words_wait_for_another_shard_is_alive() {
    let mut world = World::new(2);
    let first = world.connect(0);
    let topic = filled(&mut world, first, "inputs", 4, 5);
    Member::join(&mut world, first, &join_of("elsewhere", 1, &["inputs"])).unwrap();
    let home = home_of(&mut world, first, "lobby");
    let client = world.connect(home);
    let member = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).unwrap();
    let other = 1 - home;
    world.cut_off.insert(other);
    // The end of this partition's log is another shard's to say.
    let foreign = (topic, u32::try_from(other).unwrap());
    let commit = world.send(client, &member.commit_of(&[(foreign, 4)]));
    for _ in 0..6 {
        world.pass(4_000_000_000);
        world.send(client, &member.commit_of(&[(foreign, 5)]));
        world.run();
    }
    world.cut_off.clear();
    world.run();
    assert!(world.answer::<GroupDone>(client, commit).unwrap().is_ok(), "its session went on");
}
