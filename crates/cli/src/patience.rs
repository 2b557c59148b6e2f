//! When a command that waits says so.

use std::time::Duration;

use tokio::time::Instant;

/// After this time a user is told that the broker does not answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a reader has been without its broker.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    since: Option<Instant>,
    is_told: bool,
}

impl Absence {
    /// Whether this is the moment to tell: once for each time that the broker is away for long.
    pub(crate) fn look(&mut self, now: Instant, is_connected: bool) -> bool {
        if is_connected {
            *self = Self::default();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let tells = !self.is_told && since + PATIENCE <= now;
        self.is_told |= tells;
        tells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_is_told_once_when_it_is_long_and_again_after_a_return() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut absence = Absence::default();
        assert!(!absence.look(after(0), true));
        assert!(!absence.look(after(1), false) && !absence.look(after(5), false));
        assert!(absence.look(after(6), false));
        assert!(!absence.look(after(60), false), "it was told");
        assert!(!absence.look(after(61), true) && !absence.look(after(62), false));
        assert!(absence.look(after(67), false), "another one");
    }
}
