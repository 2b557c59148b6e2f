//! `corelane queue redrive`: dead letters back, step by step.

use std::io::{IsTerminal, Write};
use std::pin::pin;

use clap::Args;
use corelane::{QueueError, Queues};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Named, outcome};
use crate::bounds::at_least;
use crate::command::examples;
use crate::failure::{Failure, Outcome};

/// Put the dead letters of a queue back into its topic, from where they are handed out again.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane queue redrive jobs -g workers         all that there are now",
        "corelane queue redrive jobs -g workers -n 1    one, to see whether it works",
        "corelane queue redrive jobs -g workers --json",
    ),
    after_help = "It goes in steps of at most 1,024 records. Interrupted, it ends after the step that is under way; whenever and \
                  however it ends, the next redrive goes on there."
)]
pub(super) struct Redrive {
    #[command(flatten)]
    named: Named,
    /// At most this many.
    #[arg(short = 'n', long, value_name = "N", value_parser = at_least(1))]
    count: Option<u64>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// How the steps ended.
enum Ended {
    Done,
    Interrupted,
    Failed(QueueError),
}

impl Redrive {
    pub(super) async fn run(self, queues: &Queues) -> Outcome {
        let Named { group, topic } = &self.named;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut steps = outcome(queues.redrive_steps(group, topic, self.count))?;
        let mut progress = Progress::default();
        let (mut records, mut is_asked_to_end) = (0, false);
        let ended = loop {
            let step = {
                let mut next = pin!(steps.next());
                loop {
                    tokio::select! {
                        step = &mut next => break step,
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    // Whoever says it twice does not wait for the step.
                    if std::mem::replace(&mut is_asked_to_end, true) {
                        return Err(interrupted(records, topic));
                    }
                }
            };
            records = steps.records();
            match step {
                None => break Ended::Done,
                Some(Err(error)) => break Ended::Failed(error),
                Some(Ok(_)) if is_asked_to_end => break Ended::Interrupted,
                Some(Ok(_)) => progress.show(records),
            }
        };
        progress.finish();
        match ended {
            Ended::Done => self.print(records),
            Ended::Interrupted => Err(interrupted(records, topic)),
            Ended::Failed(error) if records == 0 => outcome(Err(error)),
            Ended::Failed(error) => {
                let why = outcome::<()>(Err(error)).err().map(|failure| failure.to_string()).unwrap_or_default();
                Err(Failure::failed(format!(
                    "{why}; {} before, and the next redrive goes on there",
                    put_back(records, topic)
                )))
            }
        }
    }

    fn print(&self, records: u64) -> Outcome {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", json!({ "records": records }))?;
        } else {
            writeln!(out, "{}", put_back(records, &self.named.topic))?;
        }
        Ok(())
    }
}

fn put_back(records: u64, topic: &str) -> String {
    let noun = if records == 1 { "record" } else { "records" };
    format!("{records} {noun} put back into {topic}")
}

fn interrupted(records: u64, topic: &str) -> Failure {
    Failure::interrupted(format!("interrupted: {}; the next redrive goes on there", put_back(records, topic)))
}

/// One line on a terminal that is written again with each step.
#[derive(Default)]
struct Progress {
    is_shown: bool,
}

impl Progress {
    fn show(&mut self, records: u64) {
        let mut err = std::io::stderr();
        if err.is_terminal() {
            self.is_shown = true;
            let _untold = write!(err, "\r{records} put back …").and_then(|()| err.flush());
        }
    }

    fn finish(&self) {
        if self.is_shown {
            let _untold = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
