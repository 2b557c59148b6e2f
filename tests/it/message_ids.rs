//! Message ids over real crashes.

use crate::broker::{Broker, Place};
use crate::round_trip::{numbers, values};

#[test]
fn a_message_is_there_once_however_often_it_is_sent_and_the_broker_is_killed() {
    let place = Place::new();
    let produce = ["produce", "orders", "-K", ":", "--message-id-from", "key"];
    let lines: String = (0..300).map(|number| format!("order-{number}:{number}\n")).collect();
    for round in 0..4 {
        // Another number of shards moves partitions, and their ids with them.
        let broker = Broker::start(&place, &["--shards", if round == 2 { "1" } else { "2" }]);
        if round == 0 {
            broker.good(&["topic", "create", "orders", "-p", "4", "--dedup-window", "1h"], b"");
        }
        // All of it again, and ten more.
        let more: String = (0..10).map(|number| format!("more-{round}-{number}:{}\n", 1000 + number)).collect();
        broker.good(&produce, (lines.clone() + &more + &lines).as_bytes());
        assert_eq!(values(&broker, "orders").len(), 300 + 10 * (round + 1), "round {round}");
        broker.kill();
    }
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "alter", "orders", "--no-dedup"], b"");
    broker.good(&produce, lines.as_bytes());
    assert_eq!(values(&broker, "orders").len(), 640);
    let described = broker.good(&["topic", "describe", "orders"], b"");
    assert!(!described.contains("dedup"), "{described}");
}

#[test]
fn what_deduplication_cannot_do_is_refused_by_name() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    let refused = broker.run(&["topic", "create", "keys", "--cleanup", "compact", "--dedup-count", "10"], b"").bad(1);
    assert!(refused.contains("cleanup delete"), "{refused}");
    let refused = broker.run(&["topic", "create", "keys", "--dedup-window", "8d"], b"").bad(2);
    assert!(refused.contains("8d is not between 1ms and 7d"), "{refused}");
    broker.good(&["topic", "create", "chat", "-p", "1", "--class", "memory", "--dedup-count", "5"], b"");
    let described = broker.good(&["topic", "describe", "chat"], b"");
    assert!(described.contains("dedup-count 5"), "{described}");
    // The window of five records is passed by six others.
    let once = ["produce", "chat", "-H", "message-id=x"];
    broker.good(&once, b"a\n");
    broker.good(&once, b"a\n");
    broker.good(&["produce", "chat"], numbers(0..5).as_bytes());
    broker.good(&once, b"a\n");
    assert_eq!(values(&broker, "chat").len(), 7);
}

#[test]
fn an_id_without_a_key_leads_to_its_partition_whoever_sends_it_again() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "orders", "-p", "8", "--dedup-window", "1h"], b"");
    let lines =
        |numbers: &mut dyn Iterator<Item = u32>| numbers.map(|number| format!("order-{number}\n")).collect::<String>();
    let produce = ["produce", "orders", "--message-id-from", "value"];
    broker.good(&produce, lines(&mut (0..40)).as_bytes());
    // Another producer, in another order: what may go anywhere goes elsewhere.
    broker.good(&produce, lines(&mut (0..40).rev()).as_bytes());
    assert_eq!(values(&broker, "orders").len(), 40);
}
