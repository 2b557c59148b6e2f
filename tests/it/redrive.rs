//! Dead letters on their way back, in more steps than one.

use std::collections::BTreeMap;

use corelane::{ErrorCode, Nack, QueueError, RequestError, TopicSettings};

use crate::broker::{Broker, Place, Running, wait_until};
use crate::queues::{describe, produce, with_client};

const LETTERS: u32 = 2_500;

/// A broker whose queue has given up that many records.
fn give_up(place: &Place, broker: &Broker<'_>) {
    with_client(place, broker, async |client| {
        client.admin().create_topic("jobs", 2, TopicSettings::default()).await.unwrap();
        client.admin().create_topic("jobs.dead", 3, TopicSettings::default()).await.unwrap();
        produce(&client, "jobs", 0..LETTERS).await;
        let builder = client.queue("workers", "jobs").dead_letter("jobs.dead");
        let mut consumer = builder.credit(LETTERS, 1 << 20).join().await.unwrap();
        let (mut given_up, mut last) = (0, None);
        while given_up < LETTERS as usize {
            let leased = consumer.next().await.unwrap().unwrap();
            given_up += leased.len();
            last = Some(consumer.nack(&leased, Nack::because("no such player").dead()));
        }
        last.expect("there are some").durable().await.unwrap();
        consumer.close().await.unwrap();
    });
    wait_until(|| describe(broker, "workers")["dead"] == LETTERS);
}

/// How often each value stands in the topic.
fn count(broker: &Broker<'_>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for line in broker.good(&["consume", "jobs", "--until", "end"], b"").lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

/// A step is asked for and not heard of, a client dies, another is interrupted: each dead letter is put back once.
#[test]
fn a_redrive_that_is_given_up_and_begun_again_puts_everything_back_once() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    give_up(&place, &broker);
    with_client(&place, &broker, async |client| {
        let mut steps = client.queues().redrive_steps("workers", "jobs", Some(1_500)).unwrap();
        let first = steps.next().await.unwrap().unwrap();
        assert!(0 < first && first <= 1_024, "a step of {first} records");
        let more = steps.next().await.unwrap().unwrap();
        assert_eq!(steps.records(), first + more);
        assert!(steps.records() <= 1_500, "no more than was asked for");
    });
    let quic = broker.quic.to_string();
    drop(Running::start(&place, &["queue", "redrive", "jobs", "-g", "workers", "--broker", &quic]));
    // A step that nobody waits for any more may be under way.
    let mut rest = broker.run(&["queue", "redrive", "jobs", "-g", "workers"], b"");
    wait_until(|| {
        let is_refused = rest.err.contains("putting dead letters back already");
        if is_refused {
            rest = broker.run(&["queue", "redrive", "jobs", "-g", "workers"], b"");
        }
        !is_refused
    });
    let rest = rest.good();
    assert!(rest.ends_with(" put back into jobs\n"), "{rest}");
    let counts = count(&broker);
    assert_eq!(counts.len(), LETTERS as usize);
    let wrong: Vec<_> = counts.iter().filter(|&(_, &count)| count != 2).collect();
    assert!(wrong.is_empty(), "not back once: {wrong:?}");
    assert_eq!(broker.good(&["queue", "redrive", "jobs", "-g", "workers"], b""), "0 records put back into jobs\n");
}

/// The client repeats what is refused for a moment. A redrive runs for as long as it runs: who asks for another hears at once.
#[test]
fn a_second_redrive_is_refused_at_once_while_one_runs() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    give_up(&place, &broker);
    with_client(&place, &broker, async |client| {
        let step = async || {
            let mut steps = client.queues().redrive_steps("workers", "jobs", None).unwrap();
            steps.next().await.expect("a step is an answer")
        };
        // They leave in one packet; the first has to read, to write and to sync.
        let (first, second) = tokio::join!(step(), step());
        assert!(first.is_ok(), "{first:?}");
        let refused = second.unwrap_err();
        assert!(refused.to_string().contains("putting dead letters back already"), "{refused}");
        let code = ErrorCode::RedriveRunning;
        assert!(
            matches!(&refused, QueueError::Request(RequestError::Refused { code: told, .. }) if *told == code),
            "{refused:?}"
        );
    });
}

#[test]
fn a_redrive_of_many_letters_tells_how_many_there_were() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    give_up(&place, &broker);
    let line = ["queue", "redrive", "jobs", "-g", "workers"];
    let some = broker.good(&[&line[..], &["-n", "1100"]].concat(), b"");
    assert_eq!(some, "1100 records put back into jobs\n");
    assert_eq!(broker.good(&line, b""), "1400 records put back into jobs\n");
}
