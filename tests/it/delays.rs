//! What happens when time has passed: records of a shared queue that wait for theirs, and records that get old.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corelane::{Record, TopicSettings};

use crate::admin::get;
use crate::broker::{Broker, Place, wait_until};
use crate::queues::with_client;
use crate::round_trip::{numbers, values};

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
fn a_delayed_record_of_a_shared_queue_comes_when_its_time_has_come_and_not_before() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    with_client(&place, &broker, async |client| {
        client.admin().create_topic("jobs", 1, TopicSettings::default()).await.unwrap();
        let mut consumer = client.queue("workers", "jobs").credit(16, 1 << 20).join().await.unwrap();
        let producer = client.producer("jobs").open().await.unwrap();
        let due = now_ms() + 1500;
        let text = due.to_string();
        let later = [("corelane-deliver-at", Some(text.as_bytes()))];
        producer.send(Record::new("later").header(&later)).unwrap().stored().await.unwrap();
        producer.send(Record::new("now")).unwrap().stored().await.unwrap();
        let mut came = Vec::new();
        while came.len() < 2 {
            let leased = consumer.next().await.unwrap().unwrap();
            for record in leased.iter() {
                let is_late = record.value == Some(b"later");
                assert!(!is_late || due <= now_ms(), "it came {} ms before its time", due - now_ms());
                came.push(is_late);
                consumer.ack(record.lease).durable().await.unwrap();
            }
        }
        came.sort_unstable();
        assert_eq!(came, [false, true], "each comes once");
        consumer.close().await.unwrap();
    });
}

#[test]
fn records_over_their_age_go_and_others_stay() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "brief", "-p", "1", "--retention", "1s"], b"");
    broker.good(&["topic", "create", "long", "-p", "1", "--retention", "1d"], b"");
    for topic in ["brief", "long"] {
        broker.good(&["produce", topic], numbers(0..100).as_bytes());
    }
    let log_start = |topic: &str| {
        let text = broker.good(&["topic", "describe", topic, "--json"], b"");
        let topic: serde_json::Value = serde_json::from_str(&text).unwrap();
        topic["partitions"][0]["log_start"].as_u64().unwrap()
    };
    wait_until(|| log_start("brief") == 100);
    assert_eq!(values(&broker, "brief"), Vec::<String>::new());
    assert_eq!((log_start("long"), values(&broker, "long").len()), (0, 100));
    // Offsets go on, also over the end of the broker.
    broker.kill();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "alter", "brief", "--retention", "1d"], b"");
    broker.good(&["produce", "brief"], b"after\n");
    assert_eq!(broker.good(&["consume", "brief", "--until", "end", "-f", "%o %s"], b""), "100 after");
}

#[test]
fn what_is_said_with_a_commit_is_there_after_a_crash() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    with_client(&place, &broker, async |client| {
        client.admin().create_topic("inputs", 1, TopicSettings::default()).await.unwrap();
        let producer = client.producer("inputs").open().await.unwrap();
        for value in ["a", "b", "c"] {
            producer.send(Record::new(value)).unwrap().stored().await.unwrap();
        }
        let builder = client.group("readers").topics(["inputs"]).reset(corelane::ResetPolicy::Earliest);
        let mut member = builder.manual_commit().session_timeout(Duration::from_secs(1)).join().await.unwrap();
        loop {
            if let corelane::Event::Batch(batch) = member.next().await.unwrap().unwrap() {
                member.commit_to(&batch, corelane::Offset(1), "tick 512, snapshot 7").durable().await.unwrap();
                break;
            }
        }
    });
    broker.kill();
    let broker = Broker::start(&place, &["--shards", "2"]);
    with_client(&place, &broker, async |client| {
        let committed = client.groups().committed("readers", "inputs").await.unwrap();
        let committed = committed.values().map(|one| (one.offset.0, one.metadata.as_str())).collect::<Vec<_>>();
        assert_eq!(committed, [(1, "tick 512, snapshot 7")]);
    });
}

#[test]
fn a_delivery_time_in_other_units_is_refused_or_a_dead_letter_and_holds_nobody_up() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    let micros = format!("corelane-deliver-at={}000", now_ms());
    let told = broker.run(&["produce", "jobs", "-H", &micros], b"x\n").bad(2);
    assert!(told.contains("over the limit of 7d"), "{told}");
    let told = broker.run(&["produce", "jobs", "--delay", "8d"], b"x\n").bad(2);
    assert!(told.contains("8d is not between 0ms and 7d"), "{told}");
    with_client(&place, &broker, async |client| {
        for topic in ["jobs", "plain", "dead"] {
            client.admin().create_topic(topic, 1, TopicSettings::default()).await.unwrap();
        }
        let text = format!("{}000", now_ms());
        let far = [("corelane-deliver-at", Some(text.as_bytes()))];
        for topic in ["jobs", "plain"] {
            let producer = client.producer(topic).open().await.unwrap();
            let week = Duration::from_secs(7 * 24 * 3600);
            let refused = producer.send(Record::new("x").delay(week + Duration::from_secs(1))).unwrap_err();
            assert!(refused.to_string().contains("over the limit of 7 days"), "{refused}");
            producer.send(Record::new("far").header(&far)).unwrap().stored().await.unwrap();
            producer.send(Record::new("now")).unwrap().stored().await.unwrap();
        }
        let mut jobs = client.queue("workers", "jobs").dead_letter("dead").join().await.unwrap();
        let leased = jobs.next().await.unwrap().unwrap();
        assert_eq!(leased.iter().map(|record| record.value).collect::<Vec<_>>(), [Some(&b"now"[..])]);
        jobs.ack(&leased).durable().await.unwrap();
        let mut plain = client.queue("others", "plain").join().await.unwrap();
        let mut came = 0;
        while came < 2 {
            let leased = plain.next().await.unwrap().unwrap();
            came += leased.len();
            assert!(leased.iter().any(|record| record.headers().any(|(name, _)| name == "corelane-deliver-at")));
            plain.ack(&leased).durable().await.unwrap();
        }
        jobs.close().await.unwrap();
        plain.close().await.unwrap();
    });
    let letter = broker.good(&["consume", "dead", "-n", "1", "-f", "%s %h"], b"");
    let reason = "corelane-dead-reason=its delivery time is more than 7 days after it was appended";
    assert!(letter.starts_with("far ") && letter.contains(reason), "{letter}");
    let (_, metrics) = get(broker.admin, "/metrics");
    for (group, topic) in [("workers", "jobs"), ("others", "plain")] {
        let line = format!("corelane_queue_far_delivery_times_total{{group=\"{group}\",topic=\"{topic}\"}} 1");
        assert!(metrics.contains(&line), "{line} is missing in {metrics}");
    }
}
