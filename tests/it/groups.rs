//! Consumer groups through a running broker: from a program's side and from the command line.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use corelane::{
    Client, CommitError, Event, FenceReason, GroupBatch, GroupConsumer, GroupError, MembershipError, Offset,
    PartitionIndex, Record, ResetPolicy, StartAt, TopicPartition, TopicSettings,
};

use crate::DEADLINE;
use crate::broker::{Broker, Place, Running, wait_until};

/// A program against a broker of its own.
pub(crate) struct Lab {
    address: String,
}

impl Lab {
    pub(crate) async fn client(&self) -> Client {
        corelane::connect(&self.address).await.unwrap()
    }
}

pub(crate) fn with_lab<F: Future<Output = ()>>(program: impl FnOnce(Lab) -> F) {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    let pin = std::fs::read_to_string(place.path().join("run/corelane").join(broker.quic.port().to_string())).unwrap();
    let lab = Lab { address: format!("corelane://{}?pin={}", broker.quic, pin.trim()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, program(lab)).await }).expect("within the deadline");
}

pub(crate) async fn produce(client: &Client, topic: &str, partitions: u32, numbers: std::ops::Range<u32>) {
    let producer = client.producer(topic).open().await.unwrap();
    let mut tickets = Vec::new();
    for number in numbers {
        let value = number.to_le_bytes();
        let record = Record::new(&value).partition(PartitionIndex(number % partitions));
        tickets.push(producer.reserve(&record).await.send(record).unwrap());
    }
    for ticket in tickets {
        ticket.stored().await.unwrap();
    }
}

async fn member(client: &Client, group: &str, topic: &str) -> GroupConsumer {
    let builder = client.group(group).topics([topic]).reset(ResetPolicy::Earliest).manual_commit();
    builder.session_timeout(Duration::from_secs(1)).join().await.unwrap()
}

/// What came of all records, by partition.
#[derive(Default)]
struct Seen {
    offsets: BTreeMap<PartitionIndex, BTreeSet<u64>>,
}

impl Seen {
    fn count(&self) -> usize {
        self.offsets.values().map(BTreeSet::len).sum()
    }
}

/// Reads and commits until `is_enough`; checks that each turn is in order.
async fn work(consumer: &mut GroupConsumer, seen: &RefCell<Seen>, is_enough: impl Fn(&Seen) -> bool) {
    let mut next: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    while !is_enough(&seen.borrow()) {
        // Others may bring what is missing, so that nothing comes here.
        let Ok(event) = tokio::time::timeout(Duration::from_millis(20), consumer.next()).await else { continue };
        match event.unwrap().unwrap() {
            Event::Batch(batch) => {
                take(&batch, &mut next, &mut seen.borrow_mut());
                consumer.commit_batch(&batch);
            }
            Event::Assigned(assigned) => next.retain(|known, _| assigned.iter().all(|one| *one.partition != *known)),
            _ => {}
        }
    }
}

fn take(batch: &GroupBatch, next: &mut BTreeMap<TopicPartition, Offset>, seen: &mut Seen) {
    for record in batch {
        let expected = next.insert((**batch.topic_partition()).clone(), record.offset.advance(1));
        assert!(expected.is_none_or(|expected| expected == record.offset), "a turn is in order and without gaps");
        seen.offsets.entry(batch.partition()).or_default().insert(record.offset.0);
    }
}

async fn next_matching<T>(consumer: &mut GroupConsumer, mut find: impl FnMut(Event) -> Option<T>) -> T {
    loop {
        if let Some(found) = find(consumer.next().await.unwrap().unwrap()) {
            return found;
        }
    }
}

fn assigned(event: Event) -> Option<Vec<TopicPartition>> {
    match event {
        Event::Assigned(assigned) => Some(assigned.iter().map(|one| (*one.partition).clone()).collect()),
        _ => None,
    }
}

#[test]
fn members_share_a_topic_through_a_death_and_a_leave() {
    const EACH: u32 = 2_000;
    with_lab(async |lab| {
        let client = lab.client().await;
        client.admin().create_topic("work", 8, TopicSettings::default()).await.unwrap();
        let seen = RefCell::new(Seen::default());
        let mut a = member(&client, "g", "work").await;
        // A client of its own, so that its death is that of a process.
        let doomed = lab.client().await;
        let mut b = member(&doomed, "g", "work").await;
        let mut c = member(&client, "g", "work").await;
        produce(&client, "work", 8, 0..EACH).await;
        let all = |count: u32| move |seen: &Seen| seen.count() == count as usize;
        tokio::join!(work(&mut a, &seen, all(EACH)), work(&mut b, &seen, all(EACH)), work(&mut c, &seen, all(EACH)));
        let held: Vec<usize> = [&a, &b, &c].map(|consumer| consumer.partitions().count()).into();
        assert_eq!((held.iter().sum::<usize>(), held.iter().max()), (8, Some(&3)), "{held:?}");

        drop((b, doomed));
        produce(&client, "work", 8, 0..EACH).await;
        tokio::join!(work(&mut a, &seen, all(2 * EACH)), work(&mut c, &seen, all(2 * EACH)));

        c.close().await.unwrap();
        produce(&client, "work", 8, 0..EACH).await;
        work(&mut a, &seen, all(3 * EACH)).await;
        assert_eq!(a.partitions().count(), 8);
        a.commit().durable().await.unwrap();
        let group = client.groups().describe("g").await.unwrap();
        assert_eq!((group.lag(), group.members.len()), (Some(0), 1), "{group:?}");
        a.close().await.unwrap();
    });
}

#[test]
fn a_static_member_restarts_without_a_rebalance() {
    with_lab(async |lab| {
        let client = lab.client().await;
        client.admin().create_topic("work", 4, TopicSettings::default()).await.unwrap();
        let join = |id: &'static str| client.group("g").topics(["work"]).static_id(id).join();
        let (mut a, mut b) = (join("a").await.unwrap(), join("b").await.unwrap());
        while a.partitions().count() != 2 || b.partitions().count() != 2 {
            let _a = tokio::time::timeout(Duration::from_millis(20), a.next()).await;
            let _b = tokio::time::timeout(Duration::from_millis(20), b.next()).await;
        }
        let held: BTreeSet<_> = a.partitions().map(|partition| (**partition).clone()).collect();
        let generation = client.groups().describe("g").await.unwrap().summary.generation;
        a.detach().await.unwrap();
        let mut a = join("a").await.unwrap();
        let again = next_matching(&mut a, assigned).await;
        assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), held);
        assert_eq!(client.groups().describe("g").await.unwrap().summary.generation, generation);
        assert!(b.try_next().is_none(), "others notice nothing");

        // A newer process of the same name takes the place, and the older hears why.
        let mut newer = join("a").await.unwrap();
        let error = loop {
            if let Err(error) = a.next().await.unwrap() {
                break error;
            }
        };
        let reason = MembershipError::Fenced(FenceReason::StaticIdTaken);
        assert_eq!(error, GroupError::Membership { group: "g".to_owned(), error: reason });
        assert!(a.next().await.is_none());
        assert_eq!(a.commit().durable().await, Err(CommitError::Ended));
        assert_eq!(next_matching(&mut newer, assigned).await.len(), 2);
    });
}

#[test]
fn what_moves_is_handed_over_and_no_longer_committed_by_the_old_owner() {
    with_lab(async |lab| {
        let client = lab.client().await;
        client.admin().create_topic("work", 2, TopicSettings::default()).await.unwrap();
        produce(&client, "work", 2, 0..20).await;
        let mut a = member(&client, "g", "work").await;
        let mut batches: BTreeMap<TopicPartition, GroupBatch> = BTreeMap::new();
        while batches.len() < 2 {
            if let Event::Batch(batch) = a.next().await.unwrap().unwrap() {
                a.commit_record(&batch, Offset(4));
                batches.insert((**batch.topic_partition()).clone(), batch);
            }
        }
        let mut b = member(&client, "g", "work").await;
        let going = next_matching(&mut a, |event| match event {
            Event::Revoking { partitions, deadline } => Some((partitions, deadline)),
            _ => None,
        });
        let (going, deadline) = going.await;
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(Duration::from_secs(30) < left && left <= Duration::from_secs(61), "a minute is the default: {left:?}");
        assert_eq!(going.len(), 1);
        a.give_up(&going[0], Some("match 7 at tick 40".into())).unwrap();
        let (start, blob) = next_matching(&mut b, |event| match event {
            Event::Assigned(mut assigned) => assigned.pop().map(|one| (one.start, one.blob)),
            _ => None,
        })
        .await;
        assert_eq!(start.start_at(), Some(StartAt::Offset(Offset(5))), "it begins at the committed offset");
        assert_eq!(blob.as_deref(), Some(&b"match 7 at tick 40"[..]));

        let refused = a.commit_batch(&batches[&*going[0]]).durable().await;
        assert!(matches!(refused, Err(CommitError::Lost { .. })), "{refused:?}");
        let (id, kept) = batches.iter().find(|(partition, _)| **partition != *going[0]).unwrap();
        a.commit_batch(kept).durable().await.unwrap();
        let group = client.groups().describe("g").await.unwrap();
        let committed: BTreeMap<u32, Option<u64>> =
            group.partitions.iter().map(|partition| (partition.partition, partition.committed)).collect();
        assert_eq!(committed, BTreeMap::from([(going[0].partition.0, Some(5)), (id.partition.0, Some(10))]));
        let first = next_matching(&mut b, |event| match event {
            Event::Batch(batch) => batch.iter().next().map(|record| record.offset),
            _ => None,
        });
        assert_eq!(first.await, Offset(5));
    });
}

#[test]
fn seeking_drains_and_automatic_commits() {
    with_lab(async |lab| {
        let client = lab.client().await;
        client.admin().create_topic("work", 1, TopicSettings::default()).await.unwrap();
        produce(&client, "work", 1, 0..100).await;
        let join = || {
            let builder = client.group("g").topics(["work"]).reset(ResetPolicy::Error);
            builder.auto_commit(Duration::from_millis(50)).lagging_above(10).join()
        };
        let mut consumer = join().await.unwrap();
        let partition = next_matching(&mut consumer, assigned).await.pop().unwrap();
        let error = consumer.next().await.unwrap().unwrap_err();
        assert!(matches!(error, GroupError::NoCommittedOffset { .. }), "{error}");
        consumer.seek(&partition, StartAt::Offset(Offset(40))).unwrap();
        let (mut offsets, mut lags) = (Vec::new(), Vec::new());
        while offsets.len() < 60 {
            // The face for game loops: never waits, so that somebody else has to.
            for event in consumer.drain(16) {
                match event.unwrap() {
                    Event::Batch(batch) => offsets.extend(batch.iter().map(|record| record.offset.0)),
                    Event::Lagging { lag, .. } => lags.push(lag),
                    other => panic!("{other:?}"),
                }
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(offsets, (40..100).collect::<Vec<_>>());
        assert_eq!(lags, [60], "told once, when it was more than ten behind");
        consumer.close().await.unwrap();
        let group = client.groups().describe("g").await.unwrap();
        assert_eq!(group.partitions[0].committed, Some(100), "what was finished is committed on the way out");

        // Whoever comes next begins there.
        produce(&client, "work", 1, 0..1).await;
        let mut consumer = join().await.unwrap();
        let first = next_matching(&mut consumer, |event| match event {
            Event::Batch(batch) => batch.iter().next().map(|record| record.offset),
            _ => None,
        });
        assert_eq!(first.await, Offset(100));
    });
}

#[test]
fn new_partitions_and_topics_are_picked_up() {
    with_lab(async |lab| {
        let client = lab.client().await;
        let admin = client.admin();
        admin.create_topic("match-1", 1, TopicSettings::default()).await.unwrap();
        let mut consumer = client.group("g").pattern("match-.*").reset(ResetPolicy::Earliest).join().await.unwrap();
        assert_eq!(next_matching(&mut consumer, assigned).await.len(), 1);
        admin.alter_topic("match-1", Some(3), None).await.unwrap();
        assert_eq!(next_matching(&mut consumer, assigned).await.len(), 2);
        admin.create_topic("match-2", 1, TopicSettings::default()).await.unwrap();
        let named = next_matching(&mut consumer, assigned).await;
        assert_eq!(named[0].topic.as_str(), "match-2");
        admin.create_topic("other", 1, TopicSettings::default()).await.unwrap();
        produce(&client, "match-2", 1, 0..1).await;
        let topic = next_matching(&mut consumer, |event| match event {
            Event::Batch(batch) => Some(batch.topic().to_string()),
            _ => None,
        });
        assert_eq!(topic.await, "match-2");
    });
}

#[test]
fn wrong_wishes_of_members_are_told() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "chat", "-p", "2"], b"");
    let unknown = broker.run(&["consume", "chat", "-g", "g", "--strategy", "fair"], b"").bad(2);
    assert!(unknown.contains("round-robin") && unknown.contains("least-response-time"), "{unknown}");
    let nothing = broker.run(&["consume", "--pattern", "match-.*", "-g", "g"], b"").bad(1);
    assert!(nothing.contains("match-.*") && nothing.contains("there has to be one"), "{nothing}");
    let open = broker.run(&["consume", "--pattern", "match-(", "-g", "g"], b"").bad(2);
    assert!(open.contains("at byte 6"), "{open}");
    let first = broker.run(&["consume", "chat", "-g", "picky", "--reset", "error"], b"").bad(1);
    assert!(first.contains("no committed offset") && first.contains("corelane group seek"), "{first}");
    let picky = broker.good(&["group", "describe", "picky", "--json"], b"");
    let picky: serde_json::Value = serde_json::from_str(&picky).unwrap();
    assert_eq!(picky["members"], serde_json::json!([]), "nobody waits for the session of one that gave up");
    let reset = broker.run(&["consume", "chat", "-g", "g", "--reset", "42"], b"").bad(2);
    assert!(reset.contains("earliest, latest, error"), "{reset}");
    let two = broker.run(&["consume", "chat", "other"], b"").bad(2);
    assert!(two.contains("-g GROUP"), "{two}");
    broker.run(&["group", "describe", "nobody"], b"").bad(1);

    let quic = broker.quic.to_string();
    let member = ["consume", "chat", "-g", "g", "--strategy", "range", "--broker", &quic];
    let mut running = place.command(&member).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let describe = || -> serde_json::Value {
        let done = broker.run(&["group", "describe", "g", "--json"], b"");
        if done.code == Some(0) { serde_json::from_str(&done.out).unwrap() } else { serde_json::Value::Null }
    };
    wait_until(|| describe()["owned_partitions"] == 2);
    let other = broker.run(&["consume", "chat", "-g", "g", "--strategy", "sticky"], b"").bad(1);
    assert!(other.contains("range") && other.contains("sticky"), "{other}");
    let used = broker.run(&["group", "seek", "g", "chat", "--to", "earliest"], b"").bad(1);
    assert!(used.contains("drain"), "{used}");
    broker.run(&["group", "delete", "g"], b"").bad(1);

    // An interrupted member leaves, so that nobody waits for its session.
    rustix::process::kill_process(rustix::process::Pid::from_child(&running), rustix::process::Signal::INT).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert_eq!(describe()["members"], serde_json::json!([]));
    broker.good(&["group", "delete", "g"], b"");
    broker.run(&["group", "describe", "g"], b"").bad(1);
}

#[test]
fn the_command_line_moves_groups_about() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "log", "-p", "1"], b"");
    broker.good(&["produce", "log"], crate::round_trip::numbers(0..100).as_bytes());
    let read = |count: &str| {
        let consume = ["consume", "log", "-g", "g", "--reset", "earliest", "-n", count, "-f", "%o\\n"];
        broker.good(&consume, b"").lines().map(|line| line.parse::<u64>().unwrap()).collect::<Vec<_>>()
    };
    let describe = || -> serde_json::Value {
        serde_json::from_str(&broker.good(&["group", "describe", "g", "--json"], b"")).unwrap()
    };
    assert_eq!(read("5"), [0, 1, 2, 3, 4]);
    assert_eq!(describe()["partitions"][0]["committed"], 5);
    assert_eq!(describe()["lag"], 95);
    assert_eq!(read("2"), [5, 6], "it goes on where the group was");
    broker.good(&["group", "seek", "g", "log", "--to", "98"], b"");
    assert_eq!(read("2"), [98, 99]);
    broker.good(&["group", "reset", "g", "log"], b"");
    assert_eq!(read("1"), [0]);
    let list: serde_json::Value = serde_json::from_str(&broker.good(&["group", "list", "--json"], b"")).unwrap();
    assert_eq!((&list["groups"][0]["name"], &list["groups"][0]["state"]), (&"g".into(), &"empty".into()));
    broker.good(&["group", "alter", "g", "--strategy", "weighted", "--standbys", "1", "--retention", "30d"], b"");
    assert_eq!(describe()["strategy"], "weighted");
    assert_eq!(describe()["retention_ms"], 30 * 86_400_000_u64);
    broker.good(&["group", "drain", "g"], b"");
    assert_eq!(describe()["state"], "drained");
    broker.good(&["group", "resume", "g"], b"");
    assert_eq!(describe()["state"], "empty");
    assert!(broker.good(&["group", "describe", "g"], b"").contains("COMMITTED"));
    broker.good(&["group", "delete", "g"], b"");
    assert_eq!(broker.good(&["group", "list"], b"").lines().count(), 1);
}

#[test]
fn a_running_member_goes_on_from_the_committed_offsets_after_the_broker_was_killed() {
    const PARTITIONS: u64 = 3;
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "work", "-p", "3"], b"");
    let fill = |broker: &Broker<'_>| {
        for partition in ["0", "1", "2"] {
            let lines = crate::round_trip::numbers(0..200);
            broker.good(&["produce", "work", "-p", partition], lines.as_bytes());
        }
    };
    let committed = |broker: &Broker<'_>| -> Vec<u64> {
        let described = broker.good(&["group", "describe", "g", "--json"], b"");
        let described: serde_json::Value = serde_json::from_str(&described).unwrap();
        let partitions = described["partitions"].as_array().unwrap();
        partitions.iter().map(|partition| partition["committed"].as_u64().unwrap_or(0)).collect()
    };
    fill(&broker);
    let quic = broker.quic.to_string();
    let line = ["consume", "work", "-g", "g", "--reset", "earliest", "--commit", "batch", "-f", "%p %o\\n"];
    let mut member = Running::start(&place, &[&line[..], &["--broker", &quic]].concat());
    member.read(|lines| 100 <= lines.len());
    wait_until(|| 100 <= committed(&broker).iter().sum::<u64>());
    let before = committed(&broker);
    let broker = broker.kill_and_start(&["--shards", "2"]);
    fill(&broker);
    member.read(|lines| lines.iter().collect::<BTreeSet<_>>().len() == 1200);
    wait_until(|| committed(&broker) == [400, 400, 400]);
    for partition in 0..PARTITIONS {
        let mine = member.lines().iter().filter_map(|line| {
            let (at, offset) = line.split_once(' ').unwrap();
            (at == partition.to_string()).then(|| offset.parse::<u64>().unwrap())
        });
        let mut next = 0;
        for offset in mine {
            let floor = before[usize::try_from(partition).unwrap()];
            assert!(offset <= next, "partition {partition} goes from {next} to {offset}");
            assert!(offset == next || floor <= offset, "partition {partition} goes back to {offset}, before {floor}");
            next = offset + 1;
        }
        assert_eq!(next, 400);
    }
    member.interrupt();
}
