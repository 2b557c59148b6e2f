//! `corelane serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use corelane_broker::config::FileError;
use corelane_broker::quantity::{ByteSize, Span};
use corelane_broker::{Config, Machine, RawConfig, Running};
use corelane_model::limits::{JOURNAL_FILES_MAX, JOURNAL_FILES_MIN, SHARDS_MAX};

use super::examples;
use crate::bounds::within;
use crate::failure::{Failure, Outcome};

/// The largest number of a core that Linux gives.
const CORE_MAX: usize = 8191;

/// Run a broker until SIGTERM or SIGINT.
///
/// Prints one line `ready quic=ADDRESS admin=ADDRESS shards=N` on standard output when it accepts clients; the log goes to
/// standard error. The first signal makes everything durable and ends with 0, a second ends at once with 130.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane serve                                 on loopback, on every core",
    "corelane serve --data /srv/corelane --shards 1 another place, one core",
    "corelane serve --listen 0.0.0.0:7420 --token-file FILE   for other machines",
))]
pub(crate) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

/// The settings of a broker; docs/configuration.md has them in full.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// TOML file with these settings, `_` for `-`; what the command line says goes before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory [default: $XDG_DATA_HOME/corelane, else ~/.local/share/corelane].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// UDP address for clients [default: 127.0.0.1:7420].
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// TCP address for /healthz, /readyz, /metrics and /status [default: 127.0.0.1:7421].
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    admin: Option<SocketAddr>,
    /// Shards, a core each [default: the cores that the broker may use].
    #[arg(long, value_name = "N", value_parser = within(1, SHARDS_MAX))]
    shards: Option<usize>,
    /// Cores for the shards, such as 0,1 [default: by affinity].
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = within(0, CORE_MAX))]
    cores: Option<Vec<usize>>,
    /// Memory for records and sessions, such as 2GiB [default: a quarter of what there is].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Journal files of 16 MiB for each shard [default: 16, fewer with little memory].
    #[arg(long, value_name = "N", value_parser = within(JOURNAL_FILES_MIN, JOURNAL_FILES_MAX))]
    journal_files: Option<u32>,
    /// Tokens that clients may show, one a line.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Let anybody in, also beyond loopback.
    #[arg(long)]
    insecure_no_auth: bool,
    /// Let anybody read metrics and status, also beyond loopback.
    #[arg(long)]
    insecure_admin: bool,
    /// Certificate chain, PEM [default: a development certificate].
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Time that a shutdown may take [default: 20s].
    #[arg(long, value_name = "TIME")]
    drain: Option<Span>,
    /// What is logged [default: info].
    #[arg(long, value_name = "LEVEL", env = "CORELANE_LOG")]
    log: Option<String>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:7420 or [::1]:7420".to_owned())
}

impl Settings {
    /// These settings over those of the file, held against the machine.
    pub(crate) fn config(self, machine: &Machine) -> Outcome<Config> {
        let file = self.config.as_deref().map_or_else(|| Ok(RawConfig::default()), RawConfig::read);
        let file = match file {
            Ok(file) => file,
            Err(error @ FileError::Read { .. }) => return Err(Failure::failed(error)),
            Err(FileError::Parse { path, error }) => {
                let rest = self.raw().over((*error.rest).clone());
                let mut told = FileError::Parse { path, error }.to_string();
                if let Err(problems) = Config::check(rest, machine) {
                    told = format!("{told}\n{problems}");
                }
                return Err(Failure::usage(told));
            }
        };
        Config::check(self.raw().over(file), machine).map_err(Failure::usage)
    }

    fn raw(self) -> RawConfig {
        RawConfig {
            data: self.data,
            listen: self.listen,
            admin: self.admin,
            shards: self.shards,
            cores: self.cores,
            memory: self.memory,
            journal_files: self.journal_files,
            token_file: self.token_file,
            insecure_no_auth: self.insecure_no_auth.then_some(true),
            insecure_admin: self.insecure_admin.then_some(true),
            tls_certificate: self.tls_certificate,
            tls_key: self.tls_key,
            drain: self.drain,
            log: self.log,
        }
    }
}

/// The one line on standard output: whoever started us waits for it.
fn announce(running: &Running) {
    let mut out = std::io::stdout();
    let line = format!("ready quic={} admin={} shards={}", running.quic(), running.admin(), running.shard_count());
    // Nobody listens, so nobody waits.
    let _unheard = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl Serve {
    pub(crate) fn run(self) -> Outcome {
        let config = self.settings.config(&Machine::this())?;
        corelane_broker::serve(&config, announce).map_err(Failure::failed)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use corelane_broker::config::SETTINGS;

    #[test]
    fn every_setting_is_an_option_of_serve() {
        let command = super::super::Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for setting in SETTINGS {
            let long = setting.name.replace('_', "-");
            assert!(serve.get_arguments().any(|arg| arg.get_long() == Some(&long)), "--{long} is missing");
        }
    }
}
