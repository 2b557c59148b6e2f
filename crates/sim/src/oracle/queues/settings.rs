//! What a queue's settings are, as far as can be told from outside, while an operator alters them.
//!
//! An alteration may hold from its arrival at the broker on; when it is answered it does, and what held before does not.

use std::time::Duration;

use corelane_model::{MonotonicNanos, QueueSettings};
use corelane_wire::{DescribeQueueAnswer, QueueChange};

use super::{HANDLING, Queues, Ticket, Violation, broken};

/// A description is gathered for so long at most: it may say what held before.
const DESCRIBING: Duration = Duration::from_millis(1_500);

/// Settings that the queue may have had.
#[derive(Debug)]
struct Version {
    settings: QueueSettings,
    /// What asked for them, if that was not answered.
    ticket: Option<Ticket>,
    from: MonotonicNanos,
    until: Option<MonotonicNanos>,
}

/// All settings that a queue may have had.
#[derive(Debug)]
pub(super) struct KnownSettings {
    versions: Vec<Version>,
}

impl Version {
    /// Whether it may have held at a moment from `since` on.
    fn may_hold(&self, since: MonotonicNanos) -> bool {
        self.until.is_none_or(|until| since <= until.after(HANDLING))
    }
}

impl KnownSettings {
    pub(super) fn new(settings: QueueSettings) -> Self {
        Self { versions: vec![Version { settings, ticket: None, from: MonotonicNanos(0), until: None }] }
    }

    /// Settings that never change: what the order of keys goes by.
    pub(super) fn first(&self) -> &QueueSettings {
        &self.versions[0].settings
    }

    /// An alteration arrives.
    pub(super) fn on_asked(&mut self, now: MonotonicNanos, ticket: Ticket, change: &QueueChange) {
        let wish = change.to_model().expect("the operator names what there is");
        let settings = self.first().with(&wish);
        self.versions.push(Version { settings, ticket: Some(ticket), from: now, until: None });
    }

    /// It was answered: it holds. Whether it was an alteration of this queue.
    pub(super) fn on_answered(&mut self, now: MonotonicNanos, ticket: Ticket) -> bool {
        let Some(altered) = self.versions.iter_mut().find(|version| version.ticket == Some(ticket)) else {
            return false;
        };
        altered.ticket = None;
        let from = altered.from;
        let earlier = self.versions.iter_mut().filter(|version| version.from.after(HANDLING) < from);
        earlier.for_each(|version| version.until = version.until.or(Some(now)));
        true
    }

    pub(super) fn on_refused(&mut self, ticket: Ticket) {
        self.versions.retain(|version| version.ticket != Some(ticket));
    }

    fn possible(&self, since: MonotonicNanos) -> impl Iterator<Item = &QueueSettings> {
        self.versions.iter().filter(move |version| version.may_hold(since)).map(|version| &version.settings)
    }

    /// How long a record rests at least that failed at that moment or later.
    pub(super) fn least_rest(&self, since: MonotonicNanos, attempt: u32) -> Duration {
        self.possible(since).map(|settings| settings.backoff.after(attempt)).min().unwrap_or_default()
    }

    /// Whether this failure is the last that may be, at that moment and since.
    pub(super) fn is_surely_last(&self, since: MonotonicNanos, attempt: u32) -> bool {
        self.possible(since).all(|settings| settings.delivery_limit.is_some_and(|limit| limit <= attempt))
    }

    /// Whether a record that failed often enough for this many deliveries at that moment or later may be handed out.
    pub(super) fn may_deliver(&self, since: MonotonicNanos, attempt: u32) -> bool {
        self.possible(since).any(|settings| settings.delivery_limit.is_none_or(|limit| attempt <= limit))
    }

    /// Whether a lease of so long may be given at the moment at which it was.
    pub(super) fn may_lease(&self, given: MonotonicNanos, lease: Duration) -> bool {
        self.possible(given).any(|settings| settings.visibility == lease)
    }

    /// Whether a record may be a dead letter after so many deliveries because it has failed as often as it may.
    pub(super) fn is_due(&self, deliveries: u64) -> bool {
        let mut limits = self.versions.iter().filter_map(|version| version.settings.delivery_limit);
        // One that is lowered is below what a record may have failed before.
        let is_altered = 1 < self.versions.len();
        limits.any(|limit| u64::from(limit) == deliveries || (is_altered && u64::from(limit) < deliveries))
    }

    /// Whether a record that was given up for good may have been handed out so often.
    pub(super) fn may_be_early(&self, deliveries: u64) -> bool {
        let mut limits = self.versions.iter().map(|version| version.settings.delivery_limit);
        1 < self.versions.len() || limits.any(|limit| limit.is_none_or(|limit| deliveries <= u64::from(limit)))
    }
}

impl Queues {
    /// Somebody is told what the queue is.
    pub(super) fn on_described(&self, now: MonotonicNanos, told: &DescribeQueueAnswer) -> Result<(), Violation> {
        let Some((name, view)) = self.views.iter().find(|(name, _)| name.group == told.summary.group) else {
            return Ok(());
        };
        let since = MonotonicNanos(now.0.saturating_sub(u64::try_from(DESCRIBING.as_nanos()).expect("a second")));
        let mut possible = view.settings.possible(since).map(QueueChange::from);
        if !told.summary.broken.is_empty() || possible.any(|settings| settings == told.settings) {
            return Ok(());
        }
        let settings = &told.settings;
        let known = view.settings.possible(since).collect::<Vec<_>>();
        Err(broken(name, format!("it says that its settings are {settings:?}, they may be {known:?}")))
    }
}
