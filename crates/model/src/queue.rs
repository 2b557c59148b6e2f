//! What people choose for a shared queue.

use std::fmt;
use std::time::Duration;

use crate::TopicName;
use crate::limits::{
    QUEUE_BACKOFF_STEPS_MAX, QUEUE_DELAY_MAX, QUEUE_DELIVERY_LIMIT_MAX, QUEUE_VISIBILITY_DEFAULT, QUEUE_VISIBILITY_MAX,
    QUEUE_VISIBILITY_MIN,
};

/// Name of the header by which a producer delays a record of a shared queue: milliseconds since the Unix epoch at which
/// it may be handed out, as decimal text. What is no number is not looked at, and the record is handed out at once.
pub const HEADER_DELIVER_AT: &str = "corelane-deliver-at";
/// Name of the header by which a dead letter says why it is one.
pub const HEADER_DEAD_REASON: &str = "corelane-dead-reason";
/// Name of the header of a dead letter with the number of its deliveries, as decimal text.
pub const HEADER_DEAD_DELIVERIES: &str = "corelane-dead-deliveries";
/// Name of the header of a dead letter with the group in whose queue it died.
pub const HEADER_DEAD_GROUP: &str = "corelane-dead-group";
/// Name of the header of a dead letter with the topic that it comes from.
pub const HEADER_DEAD_TOPIC: &str = "corelane-dead-topic";
/// Name of the header of a dead letter with the partition that it comes from, as decimal text.
pub const HEADER_DEAD_PARTITION: &str = "corelane-dead-partition";
/// Name of the header of a dead letter with the offset that it had, as decimal text.
pub const HEADER_DEAD_OFFSET: &str = "corelane-dead-offset";
/// Name of the header of a dead letter that says when it failed first: milliseconds since the Unix epoch, decimal text.
pub const HEADER_DEAD_FIRST_FAILED: &str = "corelane-dead-first-failed";

/// What every header of a dead letter begins with; redrive takes them off again.
pub const HEADER_DEAD_PREFIX: &str = "corelane-dead-";

/// Who gets the next record of a shared queue, among the members with credit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dispatch {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Anybody.
    Random,
    /// As many as their declared weights say.
    Weighted,
    /// Who would be done with it first, by the time that it reports for a record and what it has in hand.
    LeastResponseTime,
}

impl Dispatch {
    /// Every way.
    pub const ALL: &'static [Self] = &[Self::RoundRobin, Self::Random, Self::Weighted, Self::LeastResponseTime];

    /// Its name on the command line and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::Weighted => "weighted",
            Self::LeastResponseTime => "least-response-time",
        }
    }

    /// The way of that name.
    ///
    /// # Errors
    /// There is none; the error names those that there are.
    pub fn parse(name: &str) -> Result<Self, QueueSettingsError> {
        let found = Self::ALL.iter().copied().find(|dispatch| dispatch.name() == name);
        found.ok_or_else(|| QueueSettingsError::Dispatch { name: name.to_owned() })
    }
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How long a record that failed rests before it is handed out again, in whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// `first` after the first failure, twice as long after each further one, never longer than `cap`.
    Exponential {
        /// After the first failure.
        first: Duration,
        /// At most.
        cap: Duration,
    },
    /// The time for each failure in turn; the last one holds for all further ones.
    Steps(Vec<Duration>),
}

impl Default for Backoff {
    fn default() -> Self {
        Self::Exponential { first: Duration::from_secs(1), cap: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// How long a record rests that has failed so often, counted from 1.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        match self {
            Self::Exponential { first, cap } => {
                let doublings = failures.saturating_sub(1).min(31);
                first.saturating_mul(1 << doublings).min(*cap)
            }
            Self::Steps(steps) => {
                let at = (failures.saturating_sub(1) as usize).min(steps.len().saturating_sub(1));
                steps.get(at).copied().unwrap_or_default()
            }
        }
    }
}

/// The settings of a shared queue. Times are whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// How long a member has a record before it goes to another.
    pub visibility: Duration,
    /// Who gets the next record.
    pub dispatch: Dispatch,
    /// Whether records of one key are handed out one after the other. It cannot be changed later.
    pub order_per_key: bool,
    /// How often a record is handed out before it becomes a dead letter; `None` is for ever.
    pub delivery_limit: Option<u32>,
    /// How long a record rests after a failure.
    pub backoff: Backoff,
    /// Where dead letters go.
    pub dead_letter: Option<TopicName>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            visibility: QUEUE_VISIBILITY_DEFAULT,
            dispatch: Dispatch::default(),
            order_per_key: false,
            delivery_limit: None,
            backoff: Backoff::default(),
            dead_letter: None,
        }
    }
}

/// What somebody wants of a queue's settings; what is `None` is left to the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueWish {
    /// See [`QueueSettings::visibility`].
    pub visibility: Option<Duration>,
    /// See [`QueueSettings::dispatch`].
    pub dispatch: Option<Dispatch>,
    /// See [`QueueSettings::order_per_key`].
    pub order_per_key: Option<bool>,
    /// See [`QueueSettings::delivery_limit`]; 0 is for ever.
    pub delivery_limit: Option<u32>,
    /// See [`QueueSettings::backoff`].
    pub backoff: Option<Backoff>,
    /// See [`QueueSettings::dead_letter`].
    pub dead_letter: Option<TopicName>,
}

/// Why settings of a shared queue are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueSettingsError {
    /// No dispatch of this version.
    #[error("there is no dispatch {name:?}; there are round-robin, random, weighted and least-response-time")]
    Dispatch {
        /// What was asked for.
        name: String,
    },
    /// A number is out of its bounds.
    #[error("{setting} of {value} is out of bounds: {min} to {max}")]
    OutOfBounds {
        /// Which one.
        setting: &'static str,
        /// What was asked for.
        value: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// There is nowhere to put what reached the limit.
    #[error("a delivery limit of {limit} needs a dead-letter topic")]
    NoDeadLetterTopic {
        /// The limit.
        limit: u32,
    },
}

/// Whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn in_bounds(setting: &'static str, value: u64, min: u64, max: u64) -> Result<(), QueueSettingsError> {
    if min <= value && value <= max {
        Ok(())
    } else {
        Err(QueueSettingsError::OutOfBounds { setting, value, min, max })
    }
}

impl QueueSettings {
    /// Holds the settings against their bounds.
    ///
    /// # Errors
    /// The first that is out of them.
    pub fn check(&self) -> Result<(), QueueSettingsError> {
        let (least, most) = (millis(QUEUE_VISIBILITY_MIN), millis(QUEUE_VISIBILITY_MAX));
        in_bounds("visibility time-out in milliseconds", millis(self.visibility), least, most)?;
        match &self.backoff {
            Backoff::Exponential { first, cap } => {
                in_bounds("longest back-off in milliseconds", millis(*cap), 0, millis(QUEUE_DELAY_MAX))?;
                in_bounds("first back-off in milliseconds", millis(*first), 0, millis(*cap))?;
            }
            Backoff::Steps(steps) => {
                in_bounds("steps of the back-off", steps.len() as u64, 1, QUEUE_BACKOFF_STEPS_MAX as u64)?;
                for step in steps {
                    in_bounds("step of the back-off in milliseconds", millis(*step), 0, millis(QUEUE_DELAY_MAX))?;
                }
            }
        }
        if let Some(limit) = self.delivery_limit {
            in_bounds("delivery limit", limit.into(), 1, QUEUE_DELIVERY_LIMIT_MAX.into())?;
            if self.dead_letter.is_none() {
                return Err(QueueSettingsError::NoDeadLetterTopic { limit });
            }
        }
        Ok(())
    }

    /// These settings with a wish fulfilled. The outcome is not checked.
    #[must_use]
    pub fn with(&self, wish: &QueueWish) -> Self {
        Self {
            visibility: wish.visibility.unwrap_or(self.visibility),
            dispatch: wish.dispatch.unwrap_or(self.dispatch),
            order_per_key: wish.order_per_key.unwrap_or(self.order_per_key),
            delivery_limit: match wish.delivery_limit {
                None => self.delivery_limit,
                Some(limit) => (limit != 0).then_some(limit),
            },
            backoff: wish.backoff.clone().unwrap_or_else(|| self.backoff.clone()),
            dead_letter: wish.dead_letter.clone().or_else(|| self.dead_letter.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn back_off_doubles_up_to_its_cap() {
        let backoff = Backoff::Exponential { first: ms(100), cap: ms(1_000) };
        let times: Vec<_> = (1..=6).map(|failures| backoff.after(failures).as_millis()).collect();
        assert_eq!(times, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.after(u32::MAX), ms(1_000));
    }

    #[test]
    fn the_last_step_holds_for_all_further_failures() {
        let backoff = Backoff::Steps(vec![ms(5), ms(1), ms(9)]);
        let times: Vec<_> = (1..=5).map(|failures| backoff.after(failures).as_millis()).collect();
        assert_eq!(times, [5, 1, 9, 9, 9]);
    }

    #[test]
    fn a_limit_needs_a_place_for_dead_letters() {
        let mut settings = QueueSettings { delivery_limit: Some(3), ..QueueSettings::default() };
        assert_eq!(settings.check(), Err(QueueSettingsError::NoDeadLetterTopic { limit: 3 }));
        settings.dead_letter = Some(TopicName::parse("dead").unwrap());
        assert_eq!(settings.check(), Ok(()));
        settings.visibility = ms(1);
        assert!(matches!(settings.check(), Err(QueueSettingsError::OutOfBounds { value: 1, .. })));
    }

    #[test]
    fn a_wish_leaves_what_it_does_not_name() {
        let wish = QueueWish { delivery_limit: Some(0), order_per_key: Some(true), ..QueueWish::default() };
        let before = QueueSettings { delivery_limit: Some(3), visibility: ms(700), ..QueueSettings::default() };
        let after = before.with(&wish);
        assert_eq!(after, QueueSettings { delivery_limit: None, order_per_key: true, ..before });
    }
}
