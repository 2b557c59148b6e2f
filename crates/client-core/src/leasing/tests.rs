use corelane_model::limits::QUEUE_VERDICTS_WAITING_MAX;
use corelane_model::{GroupName, TopicName};

use super::*;

const A: ConnectionKey = ConnectionKey(1);
const B: ConnectionKey = ConnectionKey(2);
const SESSION: Duration = Duration::from_secs(9);

const fn at(millis: u64) -> MonotonicNanos {
    MonotonicNanos(millis * 1_000_000)
}

const fn range(first: u64, count: u32) -> LeaseRange {
    LeaseRange { partition: 0, first, count, attempt: 1 }
}

fn joining() -> Leasing {
    let settings = QueueMemberSettings {
        credit_records: 100,
        credit_bytes: 1000,
        ..QueueMemberSettings::new(GroupName::parse("work").unwrap(), TopicName::parse("jobs").unwrap())
    };
    Leasing::new(settings, MemberId(7), at(5000))
}

fn joined() -> Leasing {
    let mut leasing = joining();
    assert_eq!(poll(&mut leasing, at(0), Some(A)), [LeaseAsk::Join { records: 100, bytes: 1000 }]);
    leasing.on_joined(at(0), A, (3, 4), SESSION);
    assert!(matches!(leasing.take_news()[..], [QueueNews::Joined { member: MemberId(7), partitions: 4 }]));
    leasing
}

/// On a connection that has room for whatever is said.
fn poll(leasing: &mut Leasing, now: MonotonicNanos, connection: Option<ConnectionKey>) -> Vec<LeaseAsk> {
    leasing.poll(now, connection, usize::MAX)
}

fn deliver(leasing: &mut Leasing, now: MonotonicNanos, on: ConnectionKey, leases: Vec<LeaseRange>) -> DeliveryKey {
    leasing.on_delivered(now, on, (leases, Bytes::new()), 400, (Duration::from_secs(2), Duration::from_secs(2)));
    match leasing.take_news().pop() {
        Some(QueueNews::Delivered { delivery, .. }) => delivery,
        other => panic!("{other:?}"),
    }
}

fn sent(asks: &[LeaseAsk]) -> Vec<(Verdict, Vec<LeaseRange>, u32, u64)> {
    let verdict = |ask: &LeaseAsk| match ask {
        LeaseAsk::Verdict { said, records, bytes, .. } => {
            Some((said.verdict.clone(), said.leases.clone(), *records, *bytes))
        }
        _ => None,
    };
    asks.iter().filter_map(verdict).collect()
}

#[test]
fn acknowledgements_carry_the_room_that_they_make() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 10)]);
    leasing.say(at(1), delivery, &[range(0, 4)], &Verdict::Ack);
    assert_eq!(sent(&poll(&mut leasing, at(1), Some(A))), [(Verdict::Ack, vec![range(0, 4)], 4, 0)]);
    leasing.say(at(1), delivery, &[range(4, 6)], &Verdict::Ack);
    assert_eq!(sent(&poll(&mut leasing, at(1), Some(A))), [(Verdict::Ack, vec![range(4, 6)], 6, 400)]);
    // Said twice, it makes no room twice.
    leasing.say(at(1), delivery, &[range(4, 6)], &Verdict::Ack);
    assert_eq!(leasing.held(), (0, 0));
    assert_eq!(leasing.room, Room::default());
}

#[test]
fn room_that_was_refused_with_a_verdict_is_told_again() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 10)]);
    leasing.say(at(1), delivery, &[range(0, 10)], &Verdict::Ack);
    let asks = poll(&mut leasing, at(1), Some(A));
    assert_eq!(sent(&asks), [(Verdict::Ack, vec![range(0, 10)], 10, 400)]);
    let LeaseAsk::Verdict { id, .. } = asks[0] else { panic!("{asks:?}") };
    let refused = |code| (code, "no".to_owned());
    leasing.on_refused(LeaseAsked::Verdict(id), refused(ErrorCode::Busy), at(50), MemberId(8));
    let asks = poll(&mut leasing, at(50), Some(A));
    assert_eq!(sent(&asks), [(Verdict::Ack, vec![range(0, 10)], 10, 400)], "the same once more");
    let LeaseAsk::Verdict { id, .. } = asks[0] else { panic!("{asks:?}") };
    leasing.on_refused(LeaseAsked::Verdict(id), refused(ErrorCode::InvalidSetting), at(60), MemberId(8));
    assert_eq!(poll(&mut leasing, at(60), Some(A)), [LeaseAsk::Credit { records: 10, bytes: 400 }], "by itself");
}

#[test]
fn leases_that_are_over_make_room_and_late_words_are_still_said() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 60)]);
    assert_eq!(leasing.next_deadline(true), Some(at(2000)));
    assert_eq!(poll(&mut leasing, at(2000), Some(A)), [LeaseAsk::Credit { records: 60, bytes: 400 }]);
    let key = leasing.say(at(2001), delivery, &[range(0, 60)], &Verdict::Ack);
    let asks = poll(&mut leasing, at(2001), Some(A));
    assert_eq!(sent(&asks), [(Verdict::Ack, vec![range(0, 60)], 0, 0)]);
    let LeaseAsk::Verdict { id, .. } = asks[0] else { panic!("{asks:?}") };
    leasing.on_verdict(id, vec![range(0, 60)]);
    let news = leasing.take_news();
    assert!(
        matches!(&news[0], QueueNews::Refused { verdicts, error: VerdictError::LeaseOver, .. } if *verdicts == (key..=key))
    );
    assert!(matches!(news[1], QueueNews::Settled { below } if key < below));
}

#[test]
fn an_extended_lease_lasts_longer() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 1)]);
    leasing.say(at(1000), delivery, &[range(0, 1)], &Verdict::Extend { lease: Duration::from_secs(3) });
    let asks = poll(&mut leasing, at(2500), Some(A));
    assert_eq!(sent(&asks).len(), 1);
    assert_eq!(leasing.held(), (1, 400), "it is extended to 4 s");
    poll(&mut leasing, at(4000), Some(A));
    assert_eq!(leasing.held(), (0, 0));
}

#[test]
fn on_another_connection_it_joins_again_and_says_again_what_was_not_answered() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 10)]);
    leasing.say(at(1), delivery, &[range(0, 4)], &Verdict::Ack);
    poll(&mut leasing, at(1), Some(A));
    leasing.on_lost(A);
    assert!(poll(&mut leasing, at(2), None).is_empty());
    assert_eq!(poll(&mut leasing, at(3), Some(B)), [LeaseAsk::Join { records: 94, bytes: 600 }]);
    leasing.on_joined(at(3), B, (3, 4), SESSION);
    assert_eq!(sent(&poll(&mut leasing, at(3), Some(B))), [(Verdict::Ack, vec![range(0, 4)], 0, 0)]);
    leasing.on_delivered(at(3), A, (vec![range(50, 1)], Bytes::new()), 1, (SESSION, SESSION));
    assert!(leasing.take_news().is_empty(), "of an earlier conversation");
}

#[test]
fn a_member_that_was_put_out_comes_back_with_nothing() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 10)]);
    leasing.say(at(1), delivery, &[range(0, 4)], &Verdict::Ack);
    leasing.on_fenced(FenceReason::SessionExpired, MemberId(8));
    let news = leasing.take_news();
    assert!(matches!(news[0], QueueNews::Refused { error: VerdictError::Fenced(_), .. }));
    assert!(matches!(news[1], QueueNews::Lost { reason: FenceReason::SessionExpired }));
    assert_eq!(leasing.member, MemberId(8));
    assert_eq!(poll(&mut leasing, at(2), Some(A)), [LeaseAsk::Join { records: 100, bytes: 1000 }]);
}

#[test]
fn a_deleted_queue_ends_the_membership() {
    let mut leasing = joined();
    leasing.on_fenced(FenceReason::GroupDeleted, MemberId(8));
    assert!(leasing.is_over);
    let news = leasing.take_news();
    let error = Some(MembershipError::Fenced(FenceReason::GroupDeleted));
    assert!(matches!(news.last(), Some(QueueNews::Ended { error: found }) if *found == error));
}

#[test]
fn leaving_waits_for_the_last_words() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 10)]);
    leasing.say(at(1), delivery, &[range(0, 10)], &Verdict::Ack);
    leasing.leave(at(5000));
    let asks = poll(&mut leasing, at(1), Some(A));
    let [LeaseAsk::Verdict { id, .. }] = asks[..] else { panic!("{asks:?}") };
    assert!(poll(&mut leasing, at(1), Some(A)).is_empty());
    leasing.on_verdict(id, Vec::new());
    assert_eq!(poll(&mut leasing, at(1), Some(A)), [LeaseAsk::Leave]);
    leasing.on_left();
    assert!(matches!(leasing.take_news().last(), Some(QueueNews::Ended { error: None })));
}

#[test]
fn a_silent_member_says_that_it_is_alive() {
    let mut leasing = joined();
    assert_eq!(leasing.next_deadline(true), Some(at(3000)));
    assert_eq!(poll(&mut leasing, at(3000), Some(A)), [LeaseAsk::Credit { records: 0, bytes: 0 }]);
    assert_eq!(leasing.next_deadline(true), Some(at(6000)));
}

#[test]
fn a_join_that_is_not_answered_in_time_ends() {
    let mut leasing = joining();
    poll(&mut leasing, at(0), Some(A));
    poll(&mut leasing, at(5000), Some(A));
    let news = leasing.take_news();
    let error = Some(MembershipError::TimedOut { was_sent: true });
    assert!(matches!(&news[..], [QueueNews::Ended { error: found }] if *found == error));
}

#[test]
fn whoever_leaves_before_the_join_is_answered_leaves_when_it_is() {
    let mut leasing = joining();
    poll(&mut leasing, at(0), Some(A));
    leasing.leave(at(900));
    assert_eq!(poll(&mut leasing, at(1), Some(A)), [], "the topic has no id yet");
    leasing.on_joined(at(2), A, (3, 4), SESSION);
    assert_eq!(poll(&mut leasing, at(2), Some(A)), [LeaseAsk::Leave]);
    assert_eq!(leasing.topic, 3);
    leasing.on_left();
    assert!(matches!(leasing.take_news()[..], [QueueNews::Ended { error: None }]));
}

#[test]
fn whoever_leaves_and_is_not_let_in_is_gone() {
    let mut leasing = joining();
    poll(&mut leasing, at(0), Some(A));
    leasing.leave(at(900));
    leasing.on_refused(LeaseAsked::Join, (ErrorCode::Busy, "later".into()), at(5), MemberId(8));
    assert!(matches!(leasing.take_news()[..], [QueueNews::Ended { error: None }]));
}

#[test]
fn what_had_to_be_read_first_is_had_for_what_is_left_of_the_time() {
    let mut leasing = joined();
    let (lease, left) = (Duration::from_secs(2), Duration::from_millis(700));
    leasing.on_delivered(at(100), A, (vec![range(0, 1)], Bytes::new()), 400, (lease, left));
    let news = leasing.take_news();
    let Some(QueueNews::Delivered { expires, lease: whole, .. }) = news.last() else { panic!("{news:?}") };
    assert_eq!((*expires, *whole), (at(800), lease));
}

#[test]
fn a_refusal_tells_what_became_of_the_leases() {
    let text = |code| VerdictError::Refused { code, text: "no".to_owned() }.to_string();
    assert_eq!(text(ErrorCode::NoDeadLetterTopic), "no (NoDeadLetterTopic); the leases are what they were");
    assert!(text(ErrorCode::StorageFailed).contains("may have been carried out"), "{}", text(ErrorCode::StorageFailed));
}

#[test]
fn a_member_that_leaves_says_it_again_on_another_connection() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 10)]);
    let key = leasing.say(at(1), delivery, &[range(0, 10)], &Verdict::Ack);
    leasing.leave(at(5000));
    assert_eq!(sent(&poll(&mut leasing, at(1), Some(A))).len(), 1);
    leasing.on_lost(A);
    assert_eq!(poll(&mut leasing, at(2), None), []);
    let asks = poll(&mut leasing, at(3), Some(B));
    assert_eq!(sent(&asks), [(Verdict::Ack, vec![range(0, 10)], 0, 0)], "what was not answered");
    let LeaseAsk::Verdict { id, .. } = asks[0] else { panic!("{asks:?}") };
    leasing.on_verdict(id, Vec::new());
    assert_eq!(poll(&mut leasing, at(4), Some(B)), [LeaseAsk::Leave]);
    // The answer to that may be lost too.
    leasing.on_lost(B);
    assert_eq!(poll(&mut leasing, at(5), Some(A)), [LeaseAsk::Leave]);
    leasing.on_refused(LeaseAsked::Leave, (ErrorCode::UnknownQueueMember, "gone".into()), at(50), MemberId(8));
    let news = leasing.take_news();
    assert!(
        matches!(news[..], [QueueNews::Settled { below }, QueueNews::Ended { error: None }] if key < below),
        "{news:?}"
    );
}

#[test]
fn a_member_that_leaves_repeats_what_was_refused_for_a_while() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 10)]);
    leasing.say(at(1), delivery, &[range(0, 10)], &Verdict::Ack);
    leasing.leave(at(5000));
    let asks = poll(&mut leasing, at(1), Some(A));
    let LeaseAsk::Verdict { id, .. } = asks[0] else { panic!("{asks:?}") };
    leasing.on_refused(LeaseAsked::Verdict(id), (ErrorCode::Busy, "later".into()), at(50), MemberId(8));
    assert_eq!(poll(&mut leasing, at(2), Some(A)), []);
    assert_eq!(leasing.next_deadline(true), Some(at(50)));
    assert_eq!(sent(&poll(&mut leasing, at(50), Some(A))).len(), 1);
}

#[test]
fn a_member_that_leaves_while_no_connection_is_there_waits_for_one() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 10)]);
    leasing.on_lost(A);
    leasing.say(at(1), delivery, &[range(0, 10)], &Verdict::Ack);
    leasing.leave(at(5000));
    assert_eq!(poll(&mut leasing, at(2), None), []);
    assert_eq!(sent(&poll(&mut leasing, at(3), Some(B))), [(Verdict::Ack, vec![range(0, 10)], 10, 400)]);
}

#[test]
fn a_leave_that_cannot_be_taken_now_is_asked_again() {
    let mut leasing = joined();
    leasing.leave(at(5_000));
    assert_eq!(poll(&mut leasing, at(1), Some(A)), [LeaseAsk::Leave]);
    leasing.on_refused(LeaseAsked::Leave, (ErrorCode::Busy, "no".to_owned()), at(50), MemberId(8));
    assert!(!leasing.is_over && poll(&mut leasing, at(49), Some(A)).is_empty());
    assert_eq!(leasing.next_deadline(true), Some(at(50)));
    assert_eq!(poll(&mut leasing, at(50), Some(A)), [LeaseAsk::Leave]);
    assert_eq!(leasing.next_deadline(true), Some(at(5_000)));
    leasing.on_refused(LeaseAsked::Leave, (ErrorCode::UnknownQueueMember, "no".to_owned()), at(60), MemberId(8));
    assert!(leasing.is_over, "there is nothing to leave");
}

#[test]
fn beyond_the_room_of_its_connection_a_member_waits_without_asking_for_time() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 10)]);
    let nack = Verdict::Nack { delay: None, is_dead: false, reason: String::new() };
    for offset in 0..6 {
        leasing.say(at(1), delivery, &[range(offset * 2, 1)], if offset % 2 == 0 { &Verdict::Ack } else { &nack });
    }
    assert!(leasing.poll(at(1), Some(A), 0).is_empty() && leasing.is_crowded());
    assert!(at(1_000) <= leasing.next_deadline(true).unwrap(), "an answer to another wakes it");
    assert_eq!(sent(&leasing.poll(at(2), Some(A), 3)).len(), 3);
    assert!(leasing.is_crowded());
    assert_eq!(sent(&leasing.poll(at(3), Some(A), 3)).len(), 2, "the last waits for answers to its own");
    assert!(!leasing.is_crowded());
}

#[test]
fn more_than_may_wait_to_be_said_is_refused_and_the_leases_stay() {
    let mut leasing = joined();
    let delivery = deliver(&mut leasing, at(0), A, vec![range(0, 100)]);
    let many: Vec<_> = (0..QUEUE_VERDICTS_WAITING_MAX as u64).map(|place| range(place * 2, 1)).collect();
    leasing.say(at(1), delivery, &many, &Verdict::Extend { lease: Duration::from_secs(1) });
    let held = leasing.held();
    let key = leasing.say(at(1), delivery, &[range(0, 1)], &Verdict::Ack);
    let news = leasing.take_news();
    let limit = QUEUE_VERDICTS_WAITING_MAX;
    let is_told = |news: &QueueNews| {
        matches!(news, QueueNews::Refused { verdicts, error: VerdictError::TooMany { waiting, .. }, .. }
            if *verdicts == (key..=key) && *waiting == limit + 1)
    };
    assert!(news.iter().any(is_told), "{news:?}");
    assert_eq!(leasing.held(), held);
    assert!(!poll(&mut leasing, at(1), Some(A)).is_empty());
    let taken = leasing.say(at(2), delivery, &[range(0, 1)], &Verdict::Ack);
    assert!(key < taken && leasing.take_news().is_empty(), "there is room again");
}
