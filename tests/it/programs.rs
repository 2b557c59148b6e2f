//! What programs do with the SDK against a broker that runs: words about leases, shares of members, values of their own.

use std::time::{Duration, Instant};

use corelane::{Backoff, Client, Deduplicate, Dispatch, Lease, Nack, Payload, QueueConsumer, Record, StartAt};
use corelane::{TopicSettings, rkyv};

use crate::broker::{Broker, Place};
use crate::queues::{produce, with_client};

/// A program with a topic of its own, `jobs`, of one partition.
fn with_jobs<F: Future<Output = ()>>(program: impl FnOnce(Client) -> F) {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    with_client(&place, &broker, async |client| {
        client.admin().create_topic("jobs", 1, TopicSettings::default()).await.unwrap();
        program(client).await;
    });
}

/// The next record's lease.
async fn one(consumer: &mut QueueConsumer) -> Lease {
    let leased = consumer.next().await.unwrap().unwrap();
    leased.iter().next().unwrap().lease
}

/// How many records each of two members gets of so many.
async fn shares(first: &mut QueueConsumer, second: &mut QueueConsumer, records: usize) -> (usize, usize) {
    let (mut own, mut other) = (0, 0);
    while own + other < records {
        tokio::select! {
            leased = first.next() => own += leased.unwrap().unwrap().len(),
            leased = second.next() => other += leased.unwrap().unwrap().len(),
        }
    }
    (own, other)
}

#[test]
fn an_extended_lease_outlasts_one_that_is_not() {
    with_jobs(async |client| {
        produce(&client, "jobs", 0..2).await;
        let queue = || client.queue("workers", "jobs").visibility(Duration::from_millis(500)).credit(1, 1 << 20);
        let (mut first, mut second) = (queue().join().await.unwrap(), queue().join().await.unwrap());
        let (kept, lost) = (one(&mut first).await, one(&mut second).await);
        first.extend(kept, Duration::from_secs(60)).durable().await.unwrap();
        let mut third = queue().join().await.unwrap();
        let again = one(&mut third).await;
        assert_eq!((again.offset, again.attempt), (lost.offset, 2), "the lease that nobody extended");
        first.ack(kept).durable().await.unwrap();
        third.ack(again).durable().await.unwrap();
    });
}

#[test]
fn members_get_shares_by_weight() {
    with_jobs(async |client| {
        let queue = |weight| client.queue("workers", "jobs").dispatch(Dispatch::Weighted).weight(weight);
        let mut strong = queue(3).join().await.unwrap();
        let mut weak = queue(1).join().await.unwrap();
        produce(&client, "jobs", 0..200).await;
        let (own, other) = shares(&mut strong, &mut weak, 200).await;
        assert!((120..=180).contains(&own), "{own} and {other} for weights of 3 and 1");
    });
}

#[test]
fn members_that_are_quick_get_more() {
    with_jobs(async |client| {
        let queue = || client.queue("workers", "jobs").dispatch(Dispatch::LeastResponseTime);
        let (mut quick, mut slow) = (queue().join().await.unwrap(), queue().join().await.unwrap());
        // Who has reported nothing gets the next when the other has one.
        produce(&client, "jobs", 0..2).await;
        for (member, millis) in [(&mut quick, 1), (&mut slow, 10)] {
            let lease = one(member).await;
            member.processed(Duration::from_millis(millis));
            member.ack(lease).durable().await.unwrap();
        }
        produce(&client, "jobs", 2..112).await;
        let (own, other) = shares(&mut quick, &mut slow, 110).await;
        assert!(3 * other < own, "{own} of the quick member, {other} of one that takes ten times as long");
    });
}

#[test]
fn rests_are_at_least_as_long_as_the_back_off_says() {
    with_jobs(async |client| {
        produce(&client, "jobs", 0..1).await;
        let steps = [200, 500].map(Duration::from_millis);
        let queue = client.queue("workers", "jobs").backoff(Backoff::Steps(steps.to_vec()));
        let mut member = queue.join().await.unwrap();
        let mut lease = one(&mut member).await;
        for (attempt, rest) in (2..).zip([steps[0], steps[1], steps[1]]) {
            let since = Instant::now();
            member.nack(lease, Nack::because("not yet"));
            lease = one(&mut member).await;
            assert_eq!(lease.attempt, attempt);
            assert!(rest <= since.elapsed(), "delivery {attempt} after {:?}, not {rest:?}", since.elapsed());
        }
    });
}

#[test]
fn a_queue_is_drained_by_a_loop_that_may_not_wait() {
    with_jobs(async |client| {
        produce(&client, "jobs", 0..50).await;
        let mut member = client.queue("workers", "jobs").join().await.unwrap();
        let mut count = 0;
        while count < 50 {
            let mut drain = member.drain(4);
            while let Some(leased) = drain.next() {
                let leased = leased.unwrap();
                count += leased.len();
                drain.consumer().ack(&leased);
            }
            tokio::task::yield_now().await;
        }
        assert!(member.drain(4).next().is_none(), "all of it came");
        member.close().await.unwrap();
    });
}

#[test]
fn a_consumer_leaves_out_what_it_has_seen() {
    with_jobs(async |client| {
        let producer = client.producer("jobs").open().await.unwrap();
        for (id, value) in [("a", "1"), ("b", "2"), ("a", "again"), ("c", "3"), ("b", "again")] {
            producer.send(Record::new(value).message_id(id)).unwrap().stored().await.unwrap();
        }
        let mut seen = Deduplicate::by_message_id(1_000);
        // A second consumer is shown all of it once more.
        for expected in [&["1", "2", "3"][..], &[]] {
            let mut consumer = client.consumer("jobs").from(StartAt::Earliest).open().await.unwrap();
            let (mut shown, mut fresh) = (0, Vec::new());
            while shown < 5 {
                let batch = consumer.next().await.unwrap().unwrap();
                shown += batch.iter().count();
                let values = seen.fresh(&batch).map(|record| str::from_utf8(record.value.unwrap()).unwrap().to_owned());
                fresh.extend(values.collect::<Vec<_>>());
            }
            assert_eq!(fresh, expected);
        }
    });
}

#[derive(rkyv::Archive, rkyv::Serialize)]
#[rkyv(crate = corelane::rkyv)]
struct Hit {
    player: u64,
    damage: u16,
}

#[test]
fn values_of_a_type_are_read_in_place_and_others_are_refused() {
    with_jobs(async |client| {
        let producer = client.producer("jobs").open().await.unwrap();
        let hit = Hit { player: 7, damage: 300 };
        producer.send_typed(&hit, Record::new("")).unwrap().stored().await.unwrap();
        producer.send(Record::new("short")).unwrap().stored().await.unwrap();
        let mut consumer = client.consumer("jobs").from(StartAt::Earliest).open().await.unwrap();
        let mut read = Vec::new();
        while read.len() < 2 {
            let batch = consumer.next().await.unwrap().unwrap();
            for record in &batch {
                let found = Hit::read(record.value.unwrap());
                read.push(found.map(|hit| (hit.player.to_native(), hit.damage.to_native())).ok());
            }
        }
        assert_eq!(read, [Some((7, 300)), None]);
    });
}
