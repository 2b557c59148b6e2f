//! SIGTERM and SIGINT: the first asks for a shutdown, the second ends the process at once.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit code of a process that a second signal ended.
pub const EXIT_SECOND_SIGNAL: i32 = 130;

/// Somebody wants the broker to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Who, for the log.
    pub(crate) reason: String,
}

/// Where notices come together.
#[derive(Debug)]
pub(crate) struct Notices {
    /// For whoever has something to say.
    pub(crate) sender: Sender<Notice>,
    /// For the main thread.
    pub(crate) receiver: Receiver<Notice>,
}

impl Default for Notices {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }
}

/// Begins to listen: the first signal becomes a notice, the second ends the process with [`EXIT_SECOND_SIGNAL`].
///
/// # Errors
/// The operating system refuses.
pub(crate) fn watch(sender: Sender<Notice>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut arrivals = signals.forever();
        if let Some(signal) = arrivals.next() {
            let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
            // Without a receiver the broker is gone already, and the next signal ends the rest.
            let _nobody_waits = sender.send(Notice { reason: format!("{name} arrived") });
        }
        if arrivals.next().is_some() {
            tracing::warn!("a second signal arrived: ending at once");
            std::process::exit(EXIT_SECOND_SIGNAL);
        }
    })?;
    Ok(())
}
