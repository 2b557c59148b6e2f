//! Standby members through a running broker: warm when they take over, from a program's side and from the command line.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Child;
use std::time::Duration;

use corelane::{
    Client, Event, GroupChange, GroupConsumer, Offset, PartitionIndex, ResetPolicy, StartAt, TopicSettings,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::broker::wait_until;
use crate::broker::{Broker, Place};
use crate::groups::{produce, with_lab};

async fn standby(client: &Client) -> GroupConsumer {
    let builder = client.group("g").topics(["work"]).reset(ResetPolicy::Earliest).manual_commit();
    builder.session_timeout(Duration::from_secs(1)).follow_standbys(StartAt::Earliest).join().await.unwrap()
}

/// What one member has seen.
#[derive(Default)]
struct Seen {
    followed: BTreeMap<PartitionIndex, Vec<u64>>,
    owned: BTreeMap<PartitionIndex, Vec<u64>>,
    /// Where a partition began that was taken over, and how far it had been followed.
    begun: BTreeMap<PartitionIndex, (Option<StartAt>, Option<Offset>)>,
    stands_by: Vec<PartitionIndex>,
}

/// Takes what is there; commits no further than `end` in each partition.
async fn take(consumer: &mut GroupConsumer, seen: &mut Seen, end: Offset) {
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(20), consumer.next()).await {
        match event.unwrap().unwrap() {
            Event::Batch(batch) => {
                seen.owned.entry(batch.partition()).or_default().extend(batch.iter().map(|record| record.offset.0));
                consumer.commit_to(&batch, batch.end_offset().min(end), "").durable().await.unwrap();
            }
            Event::Followed(batch) => {
                seen.followed.entry(batch.partition()).or_default().extend(batch.iter().map(|record| record.offset.0));
            }
            Event::Assigned(assigned) => {
                seen.begun
                    .extend(assigned.iter().map(|one| (one.partition.partition, (one.start.start_at(), one.followed))));
            }
            Event::Standby(partitions) => {
                seen.stands_by = partitions.iter().map(|partition| partition.partition).collect();
            }
            Event::Revoking { .. } | Event::Lost { .. } | Event::Lagging { .. } | Event::Missed { .. } => {}
        }
    }
}

#[test]
fn a_standby_takes_over_where_the_group_is_and_knows_how_far_it_followed() {
    with_lab(async |lab| {
        let client = lab.client().await;
        client.admin().create_topic("work", 2, TopicSettings::default()).await.unwrap();
        let change = GroupChange { standbys: Some(1), ..GroupChange::default() };
        client.groups().alter("g", change).await.unwrap();
        // A client of its own, so that its death is that of a process.
        let doomed = lab.client().await;
        let (mut a, mut b) = (standby(&doomed).await, standby(&client).await);
        let (mut of_a, mut of_b) = (Seen::default(), Seen::default());
        while of_a.stands_by.len() != 1 || of_b.stands_by.len() != 1 {
            take(&mut a, &mut of_a, Offset(u64::MAX)).await;
            take(&mut b, &mut of_b, Offset(u64::MAX)).await;
        }
        produce(&client, "work", 2, 0..200).await;
        let moves = of_b.stands_by[0];
        while of_b.followed.get(&moves).map_or(0, Vec::len) != 100 || of_a.owned.get(&moves).map_or(0, Vec::len) != 100
        {
            take(&mut a, &mut of_a, Offset(60)).await;
            take(&mut b, &mut of_b, Offset(u64::MAX)).await;
        }
        assert_eq!(of_b.followed[&moves], (0..100).collect::<Vec<_>>());
        assert!(!of_b.owned.contains_key(&moves));
        let described = client.groups().describe("g").await.unwrap();
        let committed = described.partitions.iter().find(|partition| partition.partition == moves.0);
        assert_eq!(committed.unwrap().committed, Some(60), "a standby commits nothing");

        drop((a, doomed));
        while of_b.owned.get(&moves).map_or(0, Vec::len) != 40 {
            take(&mut b, &mut of_b, Offset(u64::MAX)).await;
        }
        assert_eq!(of_b.begun[&moves], (Some(StartAt::Offset(Offset(60))), Some(Offset(100))));
        assert_eq!(of_b.owned[&moves], (60..100).collect::<Vec<_>>(), "it begins at the committed offset");
        assert_eq!(of_b.followed[&moves].len(), 100);
        assert_eq!(of_b.stands_by, []);
    });
}

fn end(mut member: Child) {
    kill_process(Pid::from_child(&member), Signal::INT).unwrap();
    assert_eq!(member.wait().unwrap().code(), Some(0));
}

#[test]
fn the_command_line_follows_and_takes_over() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "work", "-p", "1"], b"");
    broker.good(&["group", "alter", "g", "--standbys", "1"], b"");
    let address = broker.quic.to_string();
    let member = |out: &str| {
        let out = place.path().join(out);
        let line = ["consume", "work", "-g", "g", "--reset", "earliest", "--follow-standbys", "earliest"];
        let mut command = place.command(&[&line[..], &["-f", "%r %o\\n", "--broker", &address]].concat());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(out.with_extension("err")).unwrap());
        command.spawn().unwrap()
    };
    let printed = |out: &str| std::fs::read_to_string(place.path().join(out)).unwrap();
    let lines = |role: &str, offsets: std::ops::Range<u64>| -> String {
        offsets.map(|offset| format!("{role} {offset}\n")).collect()
    };
    let owner = member("owner");
    broker.good(&["produce", "work"], b"1\n2\n3\n4\n5\n");
    wait_until(|| printed("owner") == lines("owner", 0..5));
    let standby = member("standby");
    wait_until(|| printed("standby") == lines("standby", 0..5));
    end(owner);
    broker.good(&["produce", "work"], b"6\n7\n");
    wait_until(|| printed("standby") == lines("standby", 0..5) + &lines("owner", 5..7));
    end(standby);
}
