//! Which broker a command talks to.

use clap::Args;
use corelane::{Client, ConnectError};

use crate::failure::{Failure, Outcome};

/// Where the broker is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// The broker: HOST:PORT, or corelane://HOST:PORT?pin=sha256:… or ?ca=FILE beyond this machine.
    #[arg(long, global = true, value_name = "HOST:PORT", env = "CORELANE_BROKER", default_value = "127.0.0.1:7420")]
    broker: String,
    /// File with the token to show.
    #[arg(long, global = true, value_name = "FILE", env = "CORELANE_TOKEN_FILE")]
    token_file: Option<String>,
}

impl Target {
    /// The address with everything that was said about it.
    pub(crate) fn address(&self) -> String {
        match &self.token_file {
            None => self.broker.clone(),
            Some(file) => {
                let joint = if self.broker.contains('?') { '&' } else { '?' };
                format!("{}{joint}token-file={file}", self.broker)
            }
        }
    }

    /// A client of the broker.
    pub(crate) async fn connect(&self) -> Outcome<Client> {
        corelane::connect(&self.address()).await.map_err(|error| match error {
            ConnectError::Address(_) => Failure::usage(error),
            other => Failure::unreachable(other),
        })
    }
}

/// Runs a client command to its end, on this thread alone.
pub(crate) fn run<T>(command: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(command)
}
