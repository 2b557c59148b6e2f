//! Requests beside producing and reading: topics come, change and go, logs are truncated, offsets are looked up.

use std::time::Duration;

use corelane_client_core::{Answer, OperationKey, Request, TopicInfo};
use corelane_model::{
    Now, Offset, PartitionId, PartitionIndex, StartAt, TopicClass, TopicName, TopicSettings, WallMillis,
};

use super::{Client, Todo, Wish};
use crate::{Oracle, Violation};

/// Names of topics that come and go.
const SCRATCH_TOPICS: u64 = 3;

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Which topics there are.
    List,
    /// A change whose answer says nothing more.
    Change,
    /// The log start of a partition was to be raised.
    Truncate { partition: PartitionId },
    /// Which offset a position means.
    Find,
}

impl Client {
    /// The broker's list of topics.
    pub(crate) fn on_topics(&mut self, oracle: &mut Oracle, found: Vec<TopicInfo>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for info in found {
            let Some(topic) = self.topics.iter().position(|(name, ..)| *name == info.name) else { continue };
            if self.topics[topic].2.is_some() {
                continue;
            }
            let plan = self.topics[topic].1;
            for index in 0..info.partitions() {
                let partition = PartitionId::new(info.topic, PartitionIndex(index));
                oracle.open_partition(partition, plan.class, plan.compacted_ms.is_some());
                let grace = Duration::from_millis(plan.settings().tombstone_ms);
                oracle.keep_deletions(partition, (!self.is_jumping).then_some(grace));
                if self.plan.is_consumer {
                    let from = (plan.class == TopicClass::Durable).then_some(Offset::ZERO);
                    oracle.on_reader(self.number, partition, self.plan.isolation, from);
                    wishes.push((Duration::from_micros(self.random.skewed(1..50_000)), Todo::Read { partition }));
                    wishes.extend(self.keyed.wish(partition, plan.class));
                }
            }
            self.topics[topic].2 = Some(info);
            if 0 < self.plan.records {
                wishes.push((Duration::from_micros(self.random.skewed(1..50_000)), Todo::Open { topic }));
            }
        }
        wishes
    }

    /// Creates what is missing, if that is this client's task, and looks again.
    pub(crate) fn create_missing(&mut self, now: Now, oracle: &mut Oracle) -> Vec<Wish> {
        let missing = self.topics.iter().filter(|(_, _, info)| info.is_none());
        let missing = missing.map(|(name, plan, _)| (name.clone(), *plan)).collect::<Vec<_>>();
        if missing.is_empty() {
            let mut wishes = Vec::new();
            if 0 < self.plan.records {
                wishes.push((Duration::ZERO, Todo::Send));
            }
            if self.transactor.is_some() {
                wishes.push((Duration::ZERO, Todo::Transact { turn: 0 }));
            }
            if self.number == 0 && !self.churn.is_zero() {
                wishes.push((self.churn, Todo::Manage));
            }
            wishes.extend(self.begin_party());
            wishes.extend(self.begin_queue(oracle));
            wishes.extend(self.begin_pipeline());
            wishes.extend(self.begin_to_operate());
            return wishes;
        }
        if self.number == 0 {
            for (name, plan) in missing {
                let settings = plan.settings();
                let request = Request::CreateTopic { name, partitions: plan.partitions, settings };
                let operation = self.core.request(now, request);
                self.operations.insert(operation, Asked::Change);
            }
        }
        vec![(Duration::from_micros(self.random.skewed(10_000..400_000)), Todo::Begin)]
    }

    /// Something that an operator might do.
    pub(super) fn manage(&mut self, now: Now, oracle: &mut Oracle) -> Vec<Wish> {
        if self.left == 0 {
            return Vec::new();
        }
        let scratch = TopicName::parse(&format!("scratch-{}", self.random.within(0..SCRATCH_TOPICS))).expect("a name");
        let topic = self.random.index(self.topics.len());
        let (name, plan, Some(info)) = self.topics[topic].clone() else { return vec![(self.churn, Todo::Manage)] };
        let index = self.random.within(0..u64::from(info.partitions()));
        let partition = PartitionId::new(info.topic, PartitionIndex(u32::try_from(index).expect("few")));
        let retention_ms = Some(self.random.within(30..300) * 24 * 3_600_000);
        let settings = match plan.compacted_ms {
            Some(_) => plan.settings(),
            None => TopicSettings { retention_ms, ..plan.settings() },
        };
        let (request, asked) = match self.random.within(0..6) {
            0 => (Request::AlterTopic { name, partitions: None, settings: Some(settings) }, Asked::Change),
            1 => (Request::CreateTopic { name: scratch, partitions: 2, settings }, Asked::Change),
            2 => (Request::DeleteTopic { name: scratch }, Asked::Change),
            // What is truncated takes its message ids along.
            3 if plan.class == TopicClass::Durable && !plan.has_ids && !plan.is_kept => {
                let before = oracle.slowest_reader(partition);
                let before = Offset(self.random.within(0..before.0 + 1));
                oracle.on_truncating(partition, before);
                let request =
                    Request::TruncatePartition { topic: name, partition: partition.index, before: Some(before) };
                (request, Asked::Truncate { partition })
            }
            4 => (Request::DescribeTopic { name, from: PartitionIndex(0), most: 100 }, Asked::Change),
            _ => {
                let ago = i64::try_from(self.random.skewed(0..20_000)).expect("seconds");
                let start = StartAt::Time(WallMillis(now.wall.0 - ago));
                let isolation = corelane_model::Isolation::Uncommitted;
                (Request::FindOffset { topic: name, partition: partition.index, start, isolation }, Asked::Find)
            }
        };
        let operation = self.core.request(now, request);
        self.operations.insert(operation, asked);
        let churn = u64::try_from(self.churn.as_micros()).expect("seconds");
        vec![(Duration::from_micros(self.random.skewed(1..churn * 2)), Todo::Manage)]
    }

    /// A request was answered, or came to nothing.
    pub(crate) fn on_done(
        &mut self,
        now: Now,
        oracle: &mut Oracle,
        operation: OperationKey,
        answer: Option<Answer>,
    ) -> Result<Vec<Wish>, Violation> {
        let asked = self.operations.remove(&operation).expect("an operation is answered once");
        match (asked, answer) {
            (Asked::List, Some(Answer::Topics { topics, .. })) => {
                let mut wishes = self.on_topics(oracle, topics);
                wishes.extend(self.create_missing(now, oracle));
                Ok(wishes)
            }
            (Asked::List, None) => Ok(vec![(Duration::from_millis(50), Todo::Begin)]),
            (Asked::List, Some(answer)) => panic!("a list of topics was asked for, not {answer:?}"),
            (Asked::Truncate { partition }, Some(Answer::Truncated { log_start })) => {
                oracle.on_truncated(partition, log_start);
                Ok(Vec::new())
            }
            (Asked::Find, Some(Answer::Offset { offset, log_start, high_watermark })) => {
                if log_start <= offset && offset <= high_watermark {
                    Ok(Vec::new())
                } else {
                    let client = self.number;
                    let what = format!("offset {offset} for a time is outside of [{log_start}, {high_watermark}]");
                    Err(Violation::Unreadable { client, what })
                }
            }
            (Asked::Change | Asked::Truncate { .. } | Asked::Find, _) => Ok(Vec::new()),
        }
    }
}
