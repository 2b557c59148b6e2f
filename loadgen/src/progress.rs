//! Progress on the terminal, on standard error, and only where somebody looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that follows a run by its time.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for a run of this name and length; hidden where standard error is no terminal or `is_quiet`.
    #[must_use]
    pub fn new(name: &str, length: Duration, is_quiet: bool) -> Self {
        let bar = ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        if is_quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style =
            ProgressStyle::with_template("{prefix:<16} {bar:32} {percent:>3} %  {msg}").expect("a valid template");
        bar.set_style(style);
        bar.set_prefix(name.to_owned());
        Self { bar }
    }

    /// Shows where the run is.
    pub fn update(&self, elapsed: Duration, sent: u64, consumed: u64) {
        self.bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_message(format!("sent {sent}, consumed {consumed}"));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
