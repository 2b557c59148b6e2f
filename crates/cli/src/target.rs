//! Which broker a command talks to.

use clap::Args;
use corelane::{Client, ConnectError};

use crate::failure::{Failure, Outcome};

macro_rules! target {
    ($(#[doc = $doc:literal])+ $name:ident, global = $is_global:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Args)]
        pub(crate) struct $name {
            /// The broker: HOST:PORT, or corelane://HOST:PORT?pin=sha256:… or ?ca=FILE beyond this machine.
            #[arg(
                long,
                global = $is_global,
                value_name = "HOST:PORT",
                env = "CORELANE_BROKER",
                default_value = "127.0.0.1:7420"
            )]
            broker: String,
            /// File with the token to show.
            #[arg(long, global = $is_global, value_name = "FILE", env = "CORELANE_TOKEN_FILE")]
            token_file: Option<String>,
        }

        impl $name {
            /// The address with everything that was said about it.
            pub(crate) fn address(&self) -> String {
                address(&self.broker, self.token_file.as_deref())
            }

            /// A client of the broker.
            pub(crate) async fn connect(&self) -> Outcome<Client> {
                connect(&self.address()).await
            }
        }
    };
}

target! {
    /// Where the broker of a command is.
    Target, global = false
}

target! {
    /// Where the broker of all subcommands of a command is: they take the options as it does.
    SharedTarget, global = true
}

fn address(broker: &str, token_file: Option<&str>) -> String {
    match token_file {
        None => broker.to_owned(),
        Some(file) => {
            let joint = if broker.contains('?') { '&' } else { '?' };
            format!("{broker}{joint}token-file={file}")
        }
    }
}

async fn connect(address: &str) -> Outcome<Client> {
    corelane::connect(address).await.map_err(|error| match error {
        ConnectError::Address(_) => Failure::usage(error),
        // Nobody was asked: a file that was named is of no use.
        ConnectError::Token { .. } | ConnectError::Authorities { .. } => Failure::failed(error),
        other => Failure::unreachable(other),
    })
}

/// Runs a client command to its end, on this thread alone.
pub(crate) fn run<T>(command: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(command)
}
