//! A session from its first frame to its end.

use bytes::Bytes;
use corelane_model::limits::{HELLO_TIMEOUT, PRODUCE_BUNDLE_BATCHES_MAX, SESSION_BUDGET_BYTES, SESSION_REQUESTS_MAX};
use corelane_model::{
    CatalogVersion, CorrelationId, ErrorCode, Incarnation, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex,
    SessionId, ShardId, StartAt, SubscriptionId, TopicId, WallMillis,
};
use corelane_session::{Facts, Refused, Request, Session, Step, TokenDigest};
use corelane_wire::{
    Body, CreateTopic, Credit, DurableEnds, FindOffset, Frame, FrameDecoder, FrameKind, Goaway, Hello, Metadata,
    OutFrame, Ping, Pong, Produce, ProduceAnswers, ProduceMany, Refusal, Settings, Start, Subscribe, Welcome, decode,
    encode, encode_with,
};
use proptest::prelude::*;

fn facts(tokens: &[TokenDigest]) -> Facts<'_> {
    Facts {
        incarnation: Incarnation(7),
        shards: 4,
        shard: ShardId(2),
        catalog_version: CatalogVersion(9),
        wall: WallMillis(1000),
        tokens,
    }
}

fn frame_of(out: OutFrame) -> Frame {
    let bytes: Vec<u8> = out.into_pieces().flat_map(|piece| piece.to_vec()).collect();
    let mut decoder = FrameDecoder::default();
    decoder.push(Bytes::from(bytes));
    decoder.poll_frame().expect("a frame of ours is well formed").expect("a frame of ours is whole")
}

fn frame<B: Body>(correlation: u64, body: &B) -> Frame {
    frame_of(encode(CorrelationId(correlation), body))
}

fn hello() -> Hello {
    Hello { version_min: 1, version_max: 3, session: (1, 2), client: "t".repeat(70), token: String::new() }
}

fn open() -> Session {
    let mut session = Session::new(Now::default());
    let Step::Reply(_) = session.handle(facts(&[]), frame(1, &hello())) else { panic!("hello is fine") };
    session
}

fn produce(correlation: u64, bytes: usize) -> Frame {
    let body = Produce { topic: 3, partition: 1, acks: 1 };
    frame_of(encode_with(CorrelationId(correlation), &body, vec![Bytes::from(vec![0; bytes])]))
}

fn closed(session: &mut Session, tokens: &[TokenDigest], frame: Frame) -> Refused {
    let Step::Close(refused) = session.handle(facts(tokens), frame) else { panic!("the connection goes on") };
    assert!(matches!(session.handle(facts(tokens), self::frame(9, &hello())), Step::Ignored));
    assert!(!session.is_open());
    refused
}

fn refusal(step: Step) -> (u64, ErrorCode, String) {
    let Step::Reply(out) = step else { panic!("not refused: {step:?}") };
    let frame = frame_of(out);
    let body: Refusal = decode(&frame).expect("a refusal");
    (frame.head.correlation.0, ErrorCode::from_wire(body.code), body.text)
}

#[test]
fn hello_is_answered_with_what_a_client_must_know() {
    let mut session = Session::new(Now::default());
    let Step::Reply(out) = session.handle(facts(&[]), frame(5, &hello())) else { panic!("hello is fine") };
    let answer = frame_of(out);
    assert_eq!(answer.head.correlation.0, 5);
    let welcome: Welcome = decode(&answer).unwrap();
    assert_eq!((welcome.version, welcome.incarnation, welcome.shards, welcome.shard), (1, 7, 4, 2));
    assert_eq!((welcome.catalog_version, welcome.wall_ms), (9, 1000));
    let (id, client) = session.client().unwrap();
    assert_eq!((id, client.len()), (SessionId(1 << 64 | 2), 64));
    assert_eq!(session.deadline(), None);
}

#[test]
fn wrong_greetings_close_with_a_reason() {
    let tokens = [TokenDigest::of("secret")];
    let check = |tokens: &[TokenDigest], frame: Frame, code, text: &str| {
        let refused = closed(&mut Session::new(Now::default()), tokens, frame);
        assert_eq!(refused.code, code);
        assert!(refused.text.contains(text), "{refused}");
    };
    check(&[], frame(1, &Ping { payload: 1 }), ErrorCode::UnexpectedFrame, "must be a hello, not Ping");
    let newer = Hello { version_min: 2, version_max: 4, ..hello() };
    check(&[], frame(1, &newer), ErrorCode::UnsupportedVersion, "versions 1 to 1, the client 2 to 4");
    let empty = Hello { version_min: 1, version_max: 0, ..hello() };
    check(&[], frame(1, &empty), ErrorCode::UnsupportedVersion, "1 to 0");
    check(&tokens, frame(1, &hello()), ErrorCode::Unauthenticated, "carries none");
    let wrong = Hello { token: "guess".to_owned(), ..hello() };
    check(&tokens, frame(1, &wrong), ErrorCode::Unauthenticated, "not one that this broker knows");
    let long = Hello { token: "x".repeat(5000), ..hello() };
    check(&tokens, frame(1, &long), ErrorCode::Unauthenticated, "not one that this broker knows");
    let mut other = frame(1, &hello());
    other.head.version = 2;
    check(&[], other, ErrorCode::UnsupportedVersion, "version 2 of frame kind Hello");
    let mut broken = frame(1, &hello());
    broken.body = broken.body.slice(..5);
    check(&[], broken, ErrorCode::Malformed, "body of a Hello frame is malformed");
    let right = Hello { token: "secret".to_owned(), ..hello() };
    let mut session = Session::new(Now::default());
    assert!(matches!(session.handle(facts(&tokens), frame(1, &right)), Step::Reply(_)));
}

#[test]
fn silence_ends_a_connection_that_has_not_said_hello() {
    let mut session = Session::new(Now::default());
    let deadline = session.deadline().unwrap();
    assert_eq!(deadline, MonotonicNanos(0).after(HELLO_TIMEOUT));
    let at = |monotonic| Now { monotonic, wall: WallMillis(0) };
    assert_eq!(session.on_deadline(at(MonotonicNanos(deadline.0 - 1))), None);
    assert_eq!(session.on_deadline(at(deadline)).unwrap().code, ErrorCode::TimedOut);
    assert_eq!(session.deadline(), None);
    assert_eq!(open().on_deadline(at(deadline)), None);
}

#[test]
fn frames_that_have_no_place_close() {
    for (frame, code) in [
        (frame(1, &hello()), ErrorCode::UnexpectedFrame),
        (frame(1, &Goaway { within_ms: 1 }), ErrorCode::UnexpectedFrame),
        (
            frame_of(encode_with(
                CorrelationId(1),
                &Credit { subscription: 1, bytes: 1 },
                vec![Bytes::from_static(b"x")],
            )),
            ErrorCode::Malformed,
        ),
    ] {
        assert_eq!(closed(&mut open(), &[], frame).code, code);
    }
    let mut old = produce(1, 10);
    old.head.version = 9;
    assert_eq!(closed(&mut open(), &[], old).code, ErrorCode::UnsupportedVersion);
    let mut cut = produce(1, 10);
    cut.body = cut.body.slice(1..);
    assert_eq!(closed(&mut open(), &[], cut).code, ErrorCode::Malformed);
}

#[test]
fn a_ping_comes_back() {
    let Step::Reply(out) = open().handle(facts(&[]), frame(8, &Ping { payload: 42 })) else { panic!("no pong") };
    assert_eq!(decode::<Pong>(&frame_of(out)).unwrap().payload, 42);
}

#[test]
fn requests_come_out_typed() {
    let mut session = open();
    let mut request = |frame| match session.handle(facts(&[]), frame) {
        Step::Request(request) => request,
        step => panic!("no request: {step:?}"),
    };
    let partition = PartitionId::new(TopicId(3), PartitionIndex(1));
    let Request::Produce(found) = request(produce(4, 10)) else { panic!("no produce") };
    assert_eq!((found.correlation, found.partition, found.batch.len()), (CorrelationId(4), partition, 10));
    let names = vec!["a".to_owned()];
    assert_eq!(
        request(frame(5, &Metadata { names: names.clone() })),
        Request::Metadata { correlation: CorrelationId(5), names }
    );
    let start = Start::from(StartAt::Time(WallMillis(-5)));
    assert_eq!(
        request(frame(6, &FindOffset { topic: 3, partition: 1, start, isolation: 1 })),
        Request::FindOffset {
            correlation: CorrelationId(6),
            partition,
            start: StartAt::Time(WallMillis(-5)),
            isolation: corelane_model::Isolation::Committed
        }
    );
    let subscribe = Subscribe { subscription: 1, topic: 3, partition: 1, start, credit: 0 };
    let Request::Subscribe { credit, .. } = request(frame(7, &subscribe)) else { panic!("no subscribe") };
    assert_eq!(credit, corelane_model::limits::SUBSCRIPTION_CREDIT_BYTES_DEFAULT);
}

fn bundle(lengths: &[u32], columns: [usize; 3], attachment: usize) -> Frame {
    let body = ProduceMany {
        acks: 1,
        topics: vec![3; columns[0]],
        partitions: (0..).take(columns[1]).collect(),
        lengths: lengths.to_vec(),
        correlations: (50..).take(columns[2]).collect(),
    };
    frame_of(encode_with(CorrelationId(0), &body, vec![Bytes::from(vec![7; attachment])]))
}

#[test]
fn a_bundle_comes_out_as_its_batches() {
    let step = open().handle(facts(&[]), bundle(&[4, 0, 6], [3; 3], 10));
    let Step::Request(Request::ProduceMany(batches)) = step else { panic!("no bundle: {step:?}") };
    let found: Vec<_> = batches.iter().map(|one| (one.correlation.0, one.partition.index.0, one.batch.len())).collect();
    assert_eq!(found, [(50, 0, 4), (51, 1, 0), (52, 2, 6)]);
}

#[test]
fn a_bundle_that_does_not_hold_together_closes() {
    let many = u32::try_from(PRODUCE_BUNDLE_BATCHES_MAX).unwrap() + 1;
    for frame in [
        bundle(&[4, 6], [2; 3], 9),
        bundle(&[4, 6], [2; 3], 11),
        bundle(&[4, u32::MAX], [2; 3], 10),
        bundle(&[4, 6], [1, 2, 2], 10),
        bundle(&[4, 6], [2, 3, 2], 10),
        bundle(&[4, 6], [2, 2, 0], 10),
        bundle(&[], [0; 3], 0),
        bundle(&vec![1; many as usize], [many as usize; 3], many as usize),
    ] {
        assert_eq!(closed(&mut open(), &[], frame).code, ErrorCode::Malformed);
    }
}

#[test]
fn a_bundle_is_held_against_the_budget_batch_by_batch() {
    let mut session = open();
    let bytes = 64 << 10;
    let frame = || bundle(&[bytes; 16], [16; 3], 16 * bytes as usize);
    let mut taken = 0;
    let last = loop {
        let step = session.handle(facts(&[]), frame());
        let Step::Request(Request::ProduceMany(batches)) = step else { panic!("no bundle: {step:?}") };
        taken += batches.len() as u64;
        if batches.len() < 16 {
            break batches.len();
        }
    };
    assert_eq!(taken, SESSION_BUDGET_BYTES / (u64::from(bytes) + 256));
    let answers: ProduceAnswers = decode(&frame_of(session.poll_frame().unwrap())).unwrap();
    let refused: Vec<_> = answers.answers.iter().map(|one| (one.correlation, ErrorCode::from_wire(one.code))).collect();
    let expected: Vec<_> = (50 + last as u64..66).map(|correlation| (correlation, ErrorCode::Busy)).collect();
    assert_eq!(refused, expected);
}

#[test]
fn acks_that_are_not_known_refuse_each_batch_of_a_bundle() {
    let mut session = open();
    let body = ProduceMany {
        acks: 9,
        topics: vec![1; 2],
        partitions: vec![0; 2],
        lengths: vec![1; 2],
        correlations: vec![7, 8],
    };
    let frame = frame_of(encode_with(CorrelationId(0), &body, vec![Bytes::from_static(b"ab")]));
    assert!(matches!(session.handle(facts(&[]), frame), Step::Gathered));
    let answers: ProduceAnswers = decode(&frame_of(session.poll_frame().unwrap())).unwrap();
    let code = ErrorCode::InvalidSetting.to_wire();
    assert_eq!(
        answers.answers.iter().map(|one| (one.correlation, one.code)).collect::<Vec<_>>(),
        [(7, code), (8, code)]
    );
    assert_eq!(session.waiting(), (0, 0));
}

#[test]
fn an_outcome_may_wait_for_its_end_until_anything_else_is_to_be_told() {
    let taken = |session: &mut Session, correlation| {
        let body = Produce { topic: 3, partition: 1, acks: 1 };
        let batch = vec![Bytes::from_static(b"x")];
        let step = session.handle(facts(&[]), frame_of(encode_with(CorrelationId(correlation), &body, batch)));
        assert!(matches!(step, Step::Request(_)), "{step:?}");
    };
    let appended = (Offset(5), WallMillis(50));
    let mut session = open();
    assert!(session.is_all_early(), "nothing is gathered");
    for other in 0..3 {
        taken(&mut session, 10);
        session.answer_produce_early(CorrelationId(10), 1, appended);
        assert!(session.is_all_early() && session.is_gathering());
        let frames = match other {
            0 => {
                session.tell_durable(PartitionId::new(TopicId(3), PartitionIndex(1)), Offset(6));
                2
            }
            1 => {
                taken(&mut session, 11);
                session.answer_produce(CorrelationId(11), 1, Ok(appended));
                1
            }
            _ => {
                taken(&mut session, 11);
                session.answer_produce(CorrelationId(11), 1, Err(&Refused::new(ErrorCode::Busy, "why")));
                1
            }
        };
        assert!(!session.is_all_early());
        let first: ProduceAnswers = decode(&frame_of(session.poll_frame().unwrap())).unwrap();
        assert_eq!((first.answers[0].correlation, first.answers[0].base_offset), (10, 5));
        let rest = std::iter::from_fn(|| session.poll_frame()).count();
        assert_eq!(1 + rest, frames);
        assert!(session.is_all_early() && !session.is_gathering());
    }
    assert_eq!(session.waiting(), (0, 0));
}

#[test]
fn values_of_later_versions_are_refused_by_name() {
    let mut session = open();
    let settings = Settings { class: 9, ..corelane_model::TopicSettings::default().into() };
    let create = CreateTopic { name: "a".to_owned(), partitions: 1, settings };
    let (correlation, code, text) = refusal(session.handle(facts(&[]), frame(3, &create)));
    assert_eq!((correlation, code), (3, ErrorCode::InvalidSetting));
    assert!(text.contains("class 9"), "{text}");
    let start = Start { kind: 7, value: 0 };
    let (_, code, text) =
        refusal(session.handle(facts(&[]), frame(4, &FindOffset { topic: 1, partition: 0, start, isolation: 0 })));
    assert_eq!(code, ErrorCode::InvalidSetting);
    assert!(text.contains("kind 7"), "{text}");
    let body = Produce { topic: 3, partition: 1, acks: 5 };
    let step =
        session.handle(facts(&[]), frame_of(encode_with(CorrelationId(6), &body, vec![Bytes::from_static(b"x")])));
    assert!(matches!(step, Step::Gathered));
    let answers: ProduceAnswers = decode(&frame_of(session.poll_frame().unwrap())).unwrap();
    assert_eq!(ErrorCode::from_wire(answers.answers[0].code), ErrorCode::InvalidSetting);
    assert_eq!(answers.texts, [(0, "acks of 5 are not known; 0 (received) and 1 (stored) are".to_owned())]);
    assert_eq!(session.waiting(), (0, 0));
}

#[test]
fn requests_and_bytes_are_bounded_and_come_back() {
    let mut session = open();
    let ask = |i| frame(i, &Metadata { names: Vec::new() });
    for i in 0..SESSION_REQUESTS_MAX as u64 {
        assert!(matches!(session.handle(facts(&[]), ask(i)), Step::Request(_)));
    }
    assert_eq!(refusal(session.handle(facts(&[]), ask(5000))).1, ErrorCode::Busy);
    session.refuse(CorrelationId(0), &Refused::new(ErrorCode::Busy, "x"));
    assert!(matches!(session.handle(facts(&[]), ask(5001)), Step::Request(_)));

    let mut taken = 0;
    while matches!(session.handle(facts(&[]), produce(taken, 1 << 20)), Step::Request(_)) {
        taken += 1;
    }
    assert_eq!(taken, SESSION_BUDGET_BYTES / (1 << 20) - 1, "each frame costs a little more than its batch");
    let answers: ProduceAnswers = decode(&frame_of(session.poll_frame().unwrap())).unwrap();
    assert_eq!(ErrorCode::from_wire(answers.answers[0].code), ErrorCode::Busy);
    session.answer_produce(CorrelationId(0), 1 << 20, Ok((Offset(0), WallMillis(0))));
    assert!(matches!(session.handle(facts(&[]), produce(99, 1 << 20)), Step::Request(_)));
}

#[test]
fn a_subscription_id_is_taken_once() {
    let mut session = open();
    let subscribe = |id| {
        let start = Start::from(StartAt::Earliest);
        frame(1, &Subscribe { subscription: id, topic: 3, partition: 1, start, credit: 10 })
    };
    assert!(matches!(session.handle(facts(&[]), subscribe(4)), Step::Request(_)));
    session.open_subscription(SubscriptionId(4), PartitionId::default(), ShardId(1));
    assert_eq!(refusal(session.handle(facts(&[]), subscribe(4))).1, ErrorCode::SubscriptionExists);
    assert_eq!(session.close_subscription(SubscriptionId(4)).unwrap().owner, ShardId(1));
    assert!(matches!(session.handle(facts(&[]), subscribe(4)), Step::Request(_)));
    let start = Start::from(StartAt::Earliest);
    let greedy = Subscribe { subscription: 5, topic: 3, partition: 1, start, credit: u64::MAX };
    assert_eq!(refusal(session.handle(facts(&[]), frame(1, &greedy))).1, ErrorCode::InvalidSetting);
}

#[test]
fn a_round_leaves_in_two_frames_outcomes_first() {
    let mut session = open();
    for i in 0..3 {
        session.handle(facts(&[]), produce(i, 10));
    }
    session.tell_durable(PartitionId::new(TopicId(3), PartitionIndex(1)), Offset(7));
    session.answer_produce(CorrelationId(0), 10, Ok((Offset(5), WallMillis(50))));
    session.answer_produce(CorrelationId(2), 10, Ok((Offset(6), WallMillis(60))));
    session.answer_produce(CorrelationId(1), 10, Err(&Refused::new(ErrorCode::CorruptBatch, "why")));
    let answers: ProduceAnswers = decode(&frame_of(session.poll_frame().unwrap())).unwrap();
    assert_eq!(
        answers.answers.iter().map(|a| (a.correlation, a.base_offset, a.code)).collect::<Vec<_>>(),
        [(0, 5, 0), (2, 6, 0), (1, 0, ErrorCode::CorruptBatch.to_wire()),]
    );
    assert_eq!(answers.texts, [(2, "why".to_owned())]);
    let ends: DurableEnds = decode(&frame_of(session.poll_frame().unwrap())).unwrap();
    assert_eq!((ends.ends[0].topic, ends.ends[0].partition, ends.ends[0].end), (3, 1, 7));
    assert!(session.poll_frame().is_none());
    assert!(!session.is_gathering());
}

#[test]
fn large_rounds_are_cut_into_frames_that_fit() {
    let mut session = open();
    let long = Refused::new(ErrorCode::CorruptBatch, "ö".repeat(4000));
    for i in 0..10_000 {
        session.handle(facts(&[]), produce(i, 1));
        session.answer_produce(CorrelationId(i), 1, Err(&long));
        session.tell_durable(PartitionId::default(), Offset(i));
    }
    let (mut answers, mut ends, mut texts) = (0, 0, 0);
    while let Some(out) = session.poll_frame() {
        let frame = frame_of(out);
        assert!(frame.head.body_length <= corelane_model::limits::FRAME_BODY_BYTES_MAX);
        if frame.head.kind == FrameKind::ProduceAnswers {
            let body: ProduceAnswers = decode(&frame).unwrap();
            answers += body.answers.len();
            texts += body.texts.len();
            assert!(body.texts.iter().all(|(at, _)| (*at as usize) < body.answers.len()));
        } else {
            ends += decode::<DurableEnds>(&frame).unwrap().ends.len();
        }
    }
    assert_eq!((answers, texts, ends), (10_000, 10_000, 10_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever body and attachment come under whatever kind and version: a step, never a panic; and an answer for each
    /// request brings the budgets back to nothing.
    #[test]
    fn any_frame_leads_to_a_step(
        is_open: bool,
        frames in prop::collection::vec((0..FrameKind::ALL.len(), 0_u16..3, prop::collection::vec(any::<u8>(), 0..90), 0_usize..40), 1..8),
    ) {
        let mut session = if is_open { open() } else { Session::new(Now::default()) };
        for (kind, version, body, attachment) in frames {
            let mut frame = frame(1, &Ping { payload: 0 });
            frame.head.kind = FrameKind::ALL[kind];
            frame.head.version = version;
            frame.head.body_length = u32::try_from(body.len()).unwrap();
            frame.head.length = u32::try_from(body.len() + attachment).unwrap();
            frame.body = Bytes::from(body);
            frame.attachment = Bytes::from(vec![0; attachment]);
            match session.handle(facts(&[]), frame) {
                Step::Request(Request::Produce(produce)) => {
                    session.answer_produce(produce.correlation, produce.batch.len() as u64, Ok((Offset(0), WallMillis(0))));
                }
                Step::Request(Request::ProduceMany(batches)) => {
                    for produce in batches {
                        let bytes = produce.batch.len() as u64;
                        session.answer_produce(produce.correlation, bytes, Ok((Offset(0), WallMillis(0))));
                    }
                }
                Step::Request(Request::Credit { .. } | Request::Unsubscribe { .. }) => {}
                Step::Request(_) => drop(session.refuse(CorrelationId(1), &Refused::new(ErrorCode::Busy, "x"))),
                Step::Reply(_) | Step::Gathered | Step::Close(_) | Step::Ignored => {}
            }
            prop_assert_eq!(session.waiting(), (0, 0));
        }
        while session.poll_frame().is_some() {}
    }
}
