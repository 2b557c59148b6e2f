//! The settings of a topic as they are written on the command line.

use std::time::Duration;

use clap::{Args, ValueEnum};
use corelane_broker::quantity::{ByteSize, QuantityError, Span};
use corelane_model::limits::{
    DEDUP_COUNT_MAX, DEDUP_WINDOW_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, TOPIC_RETENTION_BYTES_MAX,
    TOPIC_RETENTION_BYTES_MIN, TOPIC_RETENTION_MAX,
};
use corelane_model::{Cleanup, TopicClass, TopicSettings};

use crate::bounds::{Bounded, within};

/// What a topic's records survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Class {
    /// On disk: a stored record survives a crash.
    Durable,
    /// In memory, bounded, with a time to live: gone with the broker.
    Memory,
    /// The newest record of each key, in memory, bounded: gone with the broker.
    Latest,
}

impl From<Class> for TopicClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Durable => Self::Durable,
            Class::Memory => Self::Memory,
            Class::Latest => Self::Latest,
        }
    }
}

/// How old records of a durable topic go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CleanupArg {
    /// By age and size, oldest first.
    Delete,
    /// When a newer record of the same key is stored; the newest stays for ever.
    Compact,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound<T> {
    Unlimited,
    At(T),
}

/// A parser of limits from `least` to `most`, or none.
fn limit<T>(least: T, most: T) -> impl Fn(&str) -> Result<Bound<T>, String> + Clone + Send + Sync + 'static
where
    T: Bounded<Err = QuantityError>,
{
    let within = within(least, most);
    move |text| match text {
        "unlimited" | "forever" | "none" => Ok(Bound::Unlimited),
        _ => within(text).map(Bound::At),
    }
}

const RETENTION_MIN: Span = Span(Duration::from_millis(1));
const RETENTION_MAX: Span = Span(TOPIC_RETENTION_MAX);
const RETENTION_BYTES_MIN: ByteSize = ByteSize(TOPIC_RETENTION_BYTES_MIN);
const RETENTION_BYTES_MAX: ByteSize = ByteSize(TOPIC_RETENTION_BYTES_MAX);
const SEGMENT_MIN: ByteSize = ByteSize(SEGMENT_BYTES_MIN);
const SEGMENT_MAX: ByteSize = ByteSize(SEGMENT_BYTES_MAX);

impl<T> Bound<T> {
    fn map<U>(self, map: impl FnOnce(T) -> U) -> Option<U> {
        match self {
            Self::Unlimited => None,
            Self::At(value) => Some(map(value)),
        }
    }
}

/// Settings that are given; the others stay as they are.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SettingsArgs {
    /// Keep the records of a durable topic this long, or `forever` [default: 7d].
    #[arg(long, value_name = "TIME", conflicts_with = "ttl", value_parser = limit(RETENTION_MIN, RETENTION_MAX))]
    retention: Option<Bound<Span>>,
    /// Drop what is oldest in a partition that holds more than this, or `unlimited` [default: unlimited; memory topics
    /// 16MiB].
    #[arg(long, value_name = "SIZE", value_parser = limit(RETENTION_BYTES_MIN, RETENTION_BYTES_MAX))]
    retention_bytes: Option<Bound<ByteSize>>,
    /// Seal a segment at this size [default: 128MiB].
    #[arg(long, value_name = "SIZE", value_parser = within(SEGMENT_MIN, SEGMENT_MAX))]
    segment_bytes: Option<ByteSize>,
    /// Keep the records of a topic in memory this long [default: until the partition is full].
    #[arg(long, value_name = "TIME", value_parser = within(RETENTION_MIN, RETENTION_MAX))]
    ttl: Option<Span>,
    /// How old records of a durable topic go [default: delete].
    #[arg(long, value_enum)]
    cleanup: Option<CleanupArg>,
    /// Keep the null value that took a key away from a compacted or latest topic this long [default: 1d; latest 1m].
    #[arg(long, value_name = "TIME", value_parser = within(Span(Duration::ZERO), RETENTION_MAX))]
    tombstones: Option<Span>,
    /// Take no second record with a message id that was seen within this time, at most 7d.
    #[arg(long, value_name = "TIME", value_parser = within(RETENTION_MIN, Span(DEDUP_WINDOW_MAX)))]
    dedup_window: Option<Span>,
    /// Take no second record with a message id that is among so many latest records of its partition [default with
    /// --dedup-window: 1048576].
    #[arg(long, value_name = "N", value_parser = within(1, DEDUP_COUNT_MAX))]
    dedup_count: Option<u64>,
    /// Forget message ids, and take every record.
    #[arg(long, conflicts_with_all = ["dedup_window", "dedup_count"])]
    no_dedup: bool,
}

/// Why settings do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A time to live is for memory.
    #[error("--ttl is for topics of class memory or latest, this one is durable: write --retention")]
    TtlOfDurable,
    /// Retention by time is for disks.
    #[error("--retention is for topics of class durable, this one is in memory: write --ttl")]
    RetentionOfMemory,
    /// Memory has no segments.
    #[error("--segment-bytes is for topics of class durable, this one is in memory and has no segments")]
    SegmentsOfMemory,
    /// Memory is bounded.
    #[error("--retention-bytes unlimited is for topics of class durable: a memory topic has a bound, such as 64MiB")]
    UnlimitedMemory,
    /// Compaction is for disks.
    #[error("--cleanup is for topics of class durable; --class latest keeps the newest record of each key in memory")]
    CleanupOfMemory,
    /// Compaction keeps the newest record of each key.
    #[error(
        "--retention and --retention-bytes are for --cleanup delete: a compacted topic keeps the newest record of each key"
    )]
    RetentionOfCompacted,
    /// Only compaction knows null values.
    #[error("--tombstones is for --cleanup compact and --class latest")]
    TombstonesWithoutCompaction,
}

impl SettingsArgs {
    /// Whether nothing was given.
    pub(crate) const fn is_empty(&self) -> bool {
        self.retention.is_none()
            && self.retention_bytes.is_none()
            && self.segment_bytes.is_none()
            && self.ttl.is_none()
            && self.cleanup.is_none()
            && self.tombstones.is_none()
            && self.dedup_window.is_none()
            && self.dedup_count.is_none()
            && !self.no_dedup
    }

    /// The settings of a new topic.
    pub(crate) fn create(&self, class: TopicClass) -> Result<TopicSettings, SettingsError> {
        let base = match class {
            TopicClass::Durable => TopicSettings::default(),
            TopicClass::Memory => TopicSettings::memory(),
            TopicClass::Latest => TopicSettings::latest(),
        };
        self.alter(base)
    }

    /// The settings of a topic that has these today.
    pub(crate) fn alter(&self, mut settings: TopicSettings) -> Result<TopicSettings, SettingsError> {
        let is_memory = !settings.class.is_durable();
        let millis = |span: Span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
        self.alter_cleanup(&mut settings)?;
        if self.no_dedup {
            (settings.dedup_window_ms, settings.dedup_count) = (None, None);
        }
        settings.dedup_window_ms = self.dedup_window.map(millis).or(settings.dedup_window_ms);
        settings.dedup_count = self.dedup_count.or(settings.dedup_count);
        if let Some(ttl) = self.ttl {
            if !is_memory {
                return Err(SettingsError::TtlOfDurable);
            }
            settings.retention_ms = Some(millis(ttl));
        }
        if let Some(retention) = self.retention {
            if is_memory {
                return Err(SettingsError::RetentionOfMemory);
            }
            settings.retention_ms = retention.map(millis);
        }
        if let Some(bytes) = self.retention_bytes {
            if is_memory && bytes == Bound::Unlimited {
                return Err(SettingsError::UnlimitedMemory);
            }
            settings.retention_bytes = bytes.map(|bytes| bytes.0);
        }
        if let Some(bytes) = self.segment_bytes {
            if is_memory {
                return Err(SettingsError::SegmentsOfMemory);
            }
            settings.segment_bytes = bytes.0;
        }
        Ok(settings)
    }

    fn alter_cleanup(&self, settings: &mut TopicSettings) -> Result<(), SettingsError> {
        if self.cleanup.is_some() && !settings.class.is_durable() {
            return Err(SettingsError::CleanupOfMemory);
        }
        match self.cleanup {
            Some(CleanupArg::Delete) => settings.cleanup = Cleanup::Delete,
            Some(CleanupArg::Compact) => {
                settings.cleanup = Cleanup::Compact;
                (settings.retention_ms, settings.retention_bytes) = (None, None);
            }
            None => {}
        }
        let is_compacted = settings.cleanup == Cleanup::Compact;
        if is_compacted && (self.retention.is_some() || self.retention_bytes.is_some()) {
            return Err(SettingsError::RetentionOfCompacted);
        }
        if let Some(tombstones) = self.tombstones {
            if !settings.needs_keys() {
                return Err(SettingsError::TombstonesWithoutCompaction);
            }
            settings.tombstone_ms = u64::try_from(tombstones.0.as_millis()).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

/// Settings in the words of the command line.
pub(crate) fn describe(settings: &TopicSettings) -> String {
    let span = |ms| Span(Duration::from_millis(ms));
    let bytes = settings.retention_bytes.map_or_else(|| "unlimited".to_owned(), |bytes| ByteSize(bytes).to_string());
    let mut dedup = String::new();
    if let Some(window) = settings.dedup_window_ms {
        dedup += &format!(", dedup-window {}", span(window));
    }
    if let Some(count) = settings.dedup_count {
        dedup += &format!(", dedup-count {count}");
    }
    let text = match settings.class {
        TopicClass::Durable if settings.cleanup == Cleanup::Compact => {
            let (tombstones, segment) = (span(settings.tombstone_ms), ByteSize(settings.segment_bytes));
            format!("class durable, cleanup compact, tombstones {tombstones}, segment-bytes {segment}")
        }
        TopicClass::Durable => {
            let time = settings.retention_ms.map_or_else(|| "forever".to_owned(), |ms| span(ms).to_string());
            let segment = ByteSize(settings.segment_bytes);
            format!("class durable, retention {time}, retention-bytes {bytes}, segment-bytes {segment}")
        }
        TopicClass::Latest => {
            let ttl = settings.retention_ms.map_or_else(|| "none".to_owned(), |ms| span(ms).to_string());
            let tombstones = span(settings.tombstone_ms);
            format!("class latest, ttl {ttl}, tombstones {tombstones}, retention-bytes {bytes}")
        }
        TopicClass::Memory => {
            let ttl = settings.retention_ms.map_or_else(|| "none".to_owned(), |ms| span(ms).to_string());
            format!("class memory, ttl {ttl}, retention-bytes {bytes}")
        }
    };
    text + &dedup
}

/// The class in the words of the command line.
pub(crate) const fn class(settings: &TopicSettings) -> &'static str {
    match settings.class {
        TopicClass::Durable => "durable",
        TopicClass::Memory => "memory",
        TopicClass::Latest => "latest",
    }
}

/// The cleanup in the words of the command line; topics in memory have none.
pub(crate) const fn cleanup(settings: &TopicSettings) -> Option<&'static str> {
    match (settings.class, settings.cleanup) {
        (TopicClass::Durable, Cleanup::Delete) => Some("delete"),
        (TopicClass::Durable, Cleanup::Compact) => Some("compact"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        settings: SettingsArgs,
    }

    fn create(class: TopicClass, line: &str) -> Result<TopicSettings, String> {
        let args = std::iter::once("x").chain(line.split_whitespace());
        let alone = Alone::try_parse_from(args).map_err(|error| error.to_string())?;
        alone.settings.create(class).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_follow_the_command_line() {
        let found =
            create(TopicClass::Durable, "--retention 7d --retention-bytes 10GiB --segment-bytes 128MiB").unwrap();
        assert_eq!(found.retention_ms, Some(7 * 86_400_000));
        assert_eq!((found.retention_bytes, found.segment_bytes), (Some(10 << 30), 128 << 20));
        let found = create(TopicClass::Durable, "--retention forever --retention-bytes unlimited").unwrap();
        assert_eq!((found.retention_ms, found.retention_bytes), (None, None));
        let found = create(TopicClass::Memory, "--ttl 2s").unwrap();
        assert_eq!((found.class, found.retention_ms), (TopicClass::Memory, Some(2000)));
        assert_eq!(describe(&found), "class memory, ttl 2s, retention-bytes 16MiB");
    }

    #[test]
    fn compacted_and_latest_topics_follow_the_command_line() {
        let found = create(TopicClass::Durable, "--cleanup compact --tombstones 1h").unwrap();
        assert_eq!(found, TopicSettings { tombstone_ms: 3_600_000, ..TopicSettings::compacted() });
        assert_eq!(describe(&found), "class durable, cleanup compact, tombstones 1h, segment-bytes 128MiB");
        assert_eq!(create(TopicClass::Durable, "--cleanup delete"), Ok(TopicSettings::default()));
        let found = create(TopicClass::Latest, "--ttl 2s").unwrap();
        assert_eq!(describe(&found), "class latest, ttl 2s, tombstones 1m, retention-bytes 16MiB");
        assert!(create(TopicClass::Latest, "--cleanup compact").unwrap_err().contains("--class latest"));
        assert!(
            create(TopicClass::Durable, "--cleanup compact --retention 2d").unwrap_err().contains("--cleanup delete")
        );
        assert!(create(TopicClass::Durable, "--tombstones 2d").unwrap_err().contains("--cleanup compact"));
        let args = SettingsArgs { cleanup: Some(CleanupArg::Delete), ..SettingsArgs::default() };
        let found = args.alter(TopicSettings::compacted()).unwrap();
        assert_eq!(found, TopicSettings { retention_ms: None, ..TopicSettings::default() });
    }

    #[test]
    fn what_does_not_go_together_says_what_would() {
        assert!(create(TopicClass::Durable, "--ttl 2s").unwrap_err().contains("--retention"));
        assert!(create(TopicClass::Memory, "--retention 2s").unwrap_err().contains("--ttl"));
        assert!(create(TopicClass::Memory, "--segment-bytes 2MiB").unwrap_err().contains("durable"));
        assert!(create(TopicClass::Memory, "--retention-bytes unlimited").unwrap_err().contains("64MiB"));
        assert!(create(TopicClass::Durable, "--retention 7").unwrap_err().contains("no unit"));
        assert!(
            create(TopicClass::Durable, "--segment-bytes 1").unwrap_err().contains("1B is not between 1MiB and 4GiB")
        );
        assert!(create(TopicClass::Durable, "--retention-bytes 5").unwrap_err().contains("5B is not between 1MiB"));
        assert!(create(TopicClass::Durable, "--dedup-window 8d").unwrap_err().contains("8d is not between 1ms and 7d"));
    }

    #[test]
    fn altering_keeps_what_is_not_said() {
        let today = TopicSettings { retention_bytes: Some(5), ..TopicSettings::default() };
        let args = SettingsArgs { segment_bytes: Some(ByteSize(1 << 20)), ..SettingsArgs::default() };
        let found = args.alter(today).unwrap();
        assert_eq!((found.retention_bytes, found.segment_bytes), (Some(5), 1 << 20));
        assert!(SettingsArgs::default().is_empty() && !args.is_empty());
    }
}
