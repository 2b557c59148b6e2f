//! A workload as data: which messages are due when, on which streams, and who reads what.

use std::time::Duration;

use corelane_model::{MonotonicNanos, TopicClass};

use crate::stamp::StreamIndex;

/// A topic that the run makes for itself and deletes at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// What it is for; the topic's name is made of it and the run's id.
    pub role: &'static str,
    /// Its partitions.
    pub partitions: u32,
    /// Its class.
    pub class: TopicClass,
}

/// A stream of numbered messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// Index into [`Plan::topics`].
    pub topic: usize,
    /// The partition that its messages go to.
    pub partition: u32,
}

/// One reader: it sees every message of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderPlan {
    /// For the report.
    pub name: String,
    /// Index into [`Plan::topics`].
    pub topic: usize,
    /// The partitions that it reads.
    pub partitions: Vec<u32>,
    /// It takes at most so many messages a second; `None` takes all that come.
    pub rate_max: Option<u32>,
}

/// When the readers of a plan read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// While messages are sent, each as soon as it can.
    #[default]
    Live,
    /// When every message has its last word, from the beginning: for workloads that ask when messages are stored. A reader
    /// beside the producer would take the generator's core from it; every message is judged all the same.
    Afterwards,
}

/// A message that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Nanoseconds since the run's origin.
    pub at: MonotonicNanos,
    /// Its stream.
    pub stream: StreamIndex,
    /// Its bytes.
    pub size: u32,
}

/// The messages of a run in the order in which they are due.
pub type Schedule = Box<dyn Iterator<Item = Due> + Send>;

/// A whole workload.
pub struct Plan {
    /// Its name.
    pub scenario: String,
    /// The topics.
    pub topics: Vec<TopicPlan>,
    /// The streams, by [`StreamIndex`].
    pub streams: Vec<StreamPlan>,
    /// The readers.
    pub readers: Vec<ReaderPlan>,
    /// When they read.
    pub reading: Reading,
    /// The messages.
    pub schedule: Schedule,
    /// How many messages there are.
    pub planned: u64,
    /// Length of a tick; a message that leaves later than a twentieth of it after it was due is late.
    pub tick: Duration,
    /// How long the schedule lasts.
    pub duration: Duration,
    /// What the readers should have taken each second if nothing held anybody back.
    pub ideal_per_s: f64,
    /// Budget for send to consumed, where the scenario has one: p99 and p99.9.
    pub budget: Option<(Duration, Duration)>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("scenario", &self.scenario)
            .field("topics", &self.topics)
            .field("streams", &self.streams.len())
            .field("readers", &self.readers.len())
            .field("planned", &self.planned)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// How many messages the readers are to see together when `sent` holds the number sent on each stream.
    #[must_use]
    pub fn deliveries(&self, sent: &[u32]) -> u64 {
        self.readers
            .iter()
            .map(|reader| self.streams_of(reader).map(|stream| u64::from(sent[stream.0 as usize])).sum::<u64>())
            .sum()
    }

    /// The streams that a reader sees.
    pub fn streams_of<'a>(&'a self, reader: &'a ReaderPlan) -> impl Iterator<Item = StreamIndex> + 'a {
        (0_u32..).zip(&self.streams).filter_map(|(index, stream)| {
            (stream.topic == reader.topic && reader.partitions.contains(&stream.partition))
                .then_some(StreamIndex(index))
        })
    }
}
