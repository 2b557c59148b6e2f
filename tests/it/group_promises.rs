//! What docs/groups.md promises, seen through a running broker: what a death leaves behind, bounds, shares, offsets that age.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corelane::{
    Client, CommitError, ErrorCode, Event, GroupBatch, GroupBuilder, GroupChange, GroupConsumer, GroupError, Offset,
    ResetPolicy, Strategy, TopicSettings, WallMillis,
};

use crate::broker::{Broker, Place, Running, wait_until};
use crate::groups::{produce, with_lab};

/// A member that commits by hand, and is missed soon.
fn member(client: &Client, group: &str) -> GroupBuilder {
    client.group(group).topics(["work"]).manual_commit().session_timeout(Duration::from_secs(1))
}

/// The next batch that has records.
async fn next_batch(consumer: &mut GroupConsumer) -> GroupBatch {
    loop {
        if let Event::Batch(batch) = consumer.next().await.unwrap().unwrap() {
            return batch;
        }
    }
}

/// So many records, of any partition, as offsets.
async fn read(consumer: &mut GroupConsumer, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        offsets.extend(next_batch(consumer).await.iter().map(|record| record.offset.0));
    }
    offsets
}

async fn topic(client: &Client, partitions: u32) {
    client.admin().create_topic("work", partitions, TopicSettings::default()).await.unwrap();
}

/// Lets members take in what they are told until each has so many partitions.
async fn share(members: &mut [&mut GroupConsumer], counts: &[usize]) {
    while members.iter().map(|member| member.partitions().count()).ne(counts.iter().copied()) {
        for member in members.iter_mut() {
            let _event = tokio::time::timeout(Duration::from_millis(20), member.next()).await;
        }
    }
}

#[test]
fn a_member_that_dies_before_its_first_commit_leaves_its_records_to_the_next() {
    with_lab(async |lab| {
        let client = lab.client().await;
        topic(&client, 1).await;
        produce(&client, "work", 1, 0..5).await;
        // Its reset policy is the default: it begins behind what is there. A client of its own dies like a process.
        let doomed = lab.client().await;
        let mut first = member(&doomed, "g").join().await.unwrap();
        share(&mut [&mut first], &[1]).await;
        wait_for_lag(&client, Some(0)).await;
        produce(&client, "work", 1, 0..10).await;
        assert_eq!(read(&mut first, 10).await, (5..15).collect::<Vec<_>>());
        drop((first, doomed));
        wait_for_lag(&client, Some(10)).await;
        let mut second = member(&client, "g").join().await.unwrap();
        assert_eq!(read(&mut second, 10).await, (5..15).collect::<Vec<_>>());
    });
}

async fn wait_for_lag(client: &Client, lag: Option<u64>) {
    while client.groups().describe("g").await.unwrap().lag() != lag {
        tokio::task::yield_now().await;
    }
}

#[test]
fn every_commit_mode_loses_nothing_when_member_and_broker_are_killed() {
    const MODES: [&str; 3] = ["each", "batch", "auto"];
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    let fill = |broker: &Broker<'_>, count: u32| {
        for mode in MODES {
            broker.good(&["produce", mode], crate::round_trip::numbers(0..count).as_bytes());
        }
    };
    let join = |broker: &Broker<'_>, mode: &str| {
        let member = ["consume", mode, "-g", mode, "--commit", mode, "--reset", "earliest", "-f", "%o\\n"];
        let others = ["--session-timeout", "1s", "--broker", &broker.quic.to_string()];
        Running::start(&place, &[&member[..], &others].concat())
    };
    let offsets = |member: &Running| member.lines().iter().map(|line| line.parse().unwrap()).collect::<Vec<u64>>();
    let committed = |broker: &Broker<'_>, mode: &str| {
        let described = broker.good(&["group", "describe", mode, "--json"], b"");
        let described: serde_json::Value = serde_json::from_str(&described).unwrap();
        described["partitions"][0]["committed"].as_u64()
    };
    for mode in MODES {
        broker.good(&["topic", "create", mode, "-p", "1"], b"");
    }
    fill(&broker, 100);
    let mut members = MODES.map(|mode| join(&broker, mode));
    members.iter_mut().for_each(|member| member.read(|lines| 100 <= lines.len()));
    let first = members.each_ref().map(offsets);
    drop(members);
    let before = MODES.map(|mode| committed(&broker, mode).unwrap());
    let broker = broker.kill_and_start(&["--shards", "2"]);
    fill(&broker, 50);
    let mut members = MODES.map(|mode| join(&broker, mode));
    for (at, mode) in MODES.into_iter().enumerate() {
        members[at].read(|lines| lines.last().is_some_and(|line| line == "149"));
        assert_eq!(first[at], (0..100).collect::<Vec<_>>(), "{mode}");
        let second = offsets(&members[at]);
        let begin = second[0];
        assert!(before[at] <= begin && begin <= 100, "{mode}: {begin} after {} was committed", before[at]);
        assert_eq!(second, (begin..150).collect::<Vec<_>>(), "{mode}");
        wait_until(|| committed(&broker, mode) == Some(150));
    }
}

#[test]
fn a_commit_beyond_the_end_is_refused_and_harms_nobody() {
    with_lab(async |lab| {
        let client = lab.client().await;
        topic(&client, 2).await;
        produce(&client, "work", 2, 0..20).await;
        let mut consumer = member(&client, "g").reset(ResetPolicy::Earliest).join().await.unwrap();
        let (first, second) = (next_batch(&mut consumer).await, next_batch(&mut consumer).await);
        let generation = client.groups().describe("g").await.unwrap().summary.generation;
        let refused = consumer.commit_to(&first, Offset(1_000), "").durable().await.unwrap_err();
        let CommitError::Refused { code: ErrorCode::OffsetOutOfRange, text } = &refused else { panic!("{refused}") };
        assert!(text.contains("1000") && text.contains("10"), "{text}");
        assert!(!refused.is_retriable());
        consumer.commit_batch(&first).durable().await.unwrap();
        consumer.commit_batch(&second).durable().await.unwrap();
        let group = client.groups().describe("g").await.unwrap();
        assert_eq!((group.summary.generation, group.members.len()), (generation, 1));
        assert_eq!(group.partitions.iter().map(|one| one.committed).collect::<Vec<_>>(), [Some(10), Some(10)]);
    });
}

#[test]
fn lag_grows_older_and_is_nothing_when_all_is_done() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "work", "-p", "1"], b"");
    broker.good(&["produce", "work"], crate::round_trip::numbers(0..10).as_bytes());
    let read = |count: &str| broker.good(&["consume", "work", "-g", "g", "--reset", "earliest", "-n", count], b"");
    let lag = || {
        let described = broker.good(&["group", "describe", "g", "--json"], b"");
        let described: serde_json::Value = serde_json::from_str(&described).unwrap();
        assert_eq!(described["lag_ms"], described["partitions"][0]["lag_ms"]);
        (described["lag"].as_u64().unwrap(), described["lag_ms"].as_u64().unwrap())
    };
    read("4");
    let (records, millis) = lag();
    assert_eq!(records, 6);
    wait_until(|| millis < lag().1);
    read("6");
    assert_eq!(lag(), (0, 0));
}

#[test]
fn what_is_left_for_the_next_owner_has_its_bound() {
    with_lab(async |lab| {
        let client = lab.client().await;
        topic(&client, 2).await;
        let mut a = member(&client, "g").join().await.unwrap();
        share(&mut [&mut a], &[2]).await;
        let mut b = member(&client, "g").join().await.unwrap();
        let going = loop {
            if let Event::Revoking { mut partitions, .. } = a.next().await.unwrap().unwrap() {
                break partitions.pop().unwrap();
            }
        };
        let refused = a.give_up(&going, Some(vec![7; 65_537].into())).unwrap_err();
        assert_eq!(refused, GroupError::HandOverTooLarge { len: 65_537, limit: 65_536 });
        assert!(refused.to_string().contains("65537 bytes is over the limit of 65536"), "{refused}");
        a.give_up(&going, Some(vec![7; 65_536].into())).unwrap();
        let blob = loop {
            if let Event::Assigned(mut assigned) = b.next().await.unwrap().unwrap() {
                break assigned.pop().unwrap().blob;
            }
        };
        assert_eq!(blob.map(|blob| (blob.len(), blob[65_535])), Some((65_536, 7)));
    });
}

#[test]
fn offsets_of_a_group_without_members_go_after_their_retention() {
    with_lab(async |lab| {
        let client = lab.client().await;
        topic(&client, 1).await;
        produce(&client, "work", 1, 0..10).await;
        let mut consumer = member(&client, "g").reset(ResetPolicy::Earliest).join().await.unwrap();
        let change = GroupChange { retention: Some(Duration::from_secs(1)), ..GroupChange::default() };
        client.groups().alter("g", change).await.unwrap();
        let batch = next_batch(&mut consumer).await;
        consumer.commit_batch(&batch).durable().await.unwrap();
        assert_eq!(client.groups().describe("g").await.unwrap().partitions[0].committed, Some(10));
        consumer.close().await.unwrap();
        while client.groups().describe("g").await.is_ok() {
            tokio::task::yield_now().await;
        }
        // Whoever comes under the name begins as in a new group.
        let mut consumer = member(&client, "g").reset(ResetPolicy::Earliest).join().await.unwrap();
        assert_eq!(read(&mut consumer, 10).await[0], 0);
    });
}

#[test]
fn weighted_members_share_by_what_they_declare() {
    with_lab(async |lab| {
        let client = lab.client().await;
        topic(&client, 8).await;
        let join = |capacity| member(&client, "g").strategy(Strategy::Weighted).capacity(capacity).join();
        let (mut large, mut small) = (join(3).await.unwrap(), join(1).await.unwrap());
        share(&mut [&mut large, &mut small], &[6, 2]).await;
    });
}

#[test]
fn a_slow_member_has_less_by_response_time() {
    with_lab(async |lab| {
        let client = lab.client().await;
        topic(&client, 8).await;
        let join = || {
            let builder = client.group("g").topics(["work"]).strategy(Strategy::LeastResponseTime);
            // It commits more often than its heartbeats leave.
            builder.auto_commit(Duration::from_millis(50)).session_timeout(Duration::from_secs(3)).join()
        };
        let (mut slow, mut fast) = (join().await.unwrap(), join().await.unwrap());
        // Nobody is known to be slow yet, and one partition more or less gains too little to be moved.
        share(&mut [&mut slow, &mut fast], &[5, 3]).await;
        slow.processed(Duration::from_millis(9));
        fast.processed(Duration::from_millis(3));
        // Both work all the time, until load has moved; it is looked at each ten seconds.
        let mut number = 0;
        while (slow.partitions().count(), fast.partitions().count()) != (2, 6) {
            produce(&client, "work", 8, number..number + 8).await;
            number += 8;
            for member in [&mut slow, &mut fast] {
                while tokio::time::timeout(Duration::from_millis(5), member.next()).await.is_ok() {}
            }
        }
        let described = client.groups().describe("g").await.unwrap();
        assert!(described.members.iter().all(|member| member.processing_micros.is_some()), "{described:?}");
    });
}

#[test]
fn a_group_may_begin_at_a_time() {
    with_lab(async |lab| {
        let client = lab.client().await;
        topic(&client, 2).await;
        produce(&client, "work", 2, 0..20).await;
        let clock = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let time = clock() + 1;
        while clock() < time {
            tokio::task::yield_now().await;
        }
        produce(&client, "work", 2, 0..6).await;
        let mut consumer = member(&client, "g").reset(ResetPolicy::Time(WallMillis(time))).join().await.unwrap();
        let mut offsets = read(&mut consumer, 6).await;
        offsets.sort_unstable();
        assert_eq!(offsets, [10, 10, 11, 11, 12, 12]);
    });
}

#[test]
fn a_group_goes_on_under_another_number_of_shards() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "work", "-p", "3"], b"");
    let mut seen: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut read = |broker: &Broker<'_>| {
        for partition in ["0", "1", "2"] {
            broker.good(&["produce", "work", "-p", partition], crate::round_trip::numbers(0..10).as_bytes());
        }
        let consume = ["consume", "work", "-g", "g", "--reset", "earliest", "-n", "30", "-f", "%p %o\\n"];
        for line in broker.good(&consume, b"").lines() {
            let (partition, offset) = line.split_once(' ').unwrap();
            seen.entry(partition.parse().unwrap()).or_default().push(offset.parse().unwrap());
        }
    };
    read(&broker);
    broker.kill();
    for shards in ["3", "1"] {
        let broker = Broker::start(&place, &["--shards", shards]);
        read(&broker);
        assert_eq!(broker.stop(), Some(0));
    }
    for (partition, offsets) in seen {
        assert_eq!(offsets, (0..30).collect::<Vec<_>>(), "partition {partition}");
    }
}
