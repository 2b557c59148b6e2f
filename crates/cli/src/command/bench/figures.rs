//! `corelane bench crash|start|idle|sustained|join|commit`: figures that need brokers of their own.

use std::path::PathBuf;

use clap::Args;
use corelane_broker::quantity::{ByteSize, Span};
use corelane_loadgen::figure::{commit, crash, idle, join, start, sustained};
use corelane_loadgen::server::ServerOptions;

use super::floor::{block_on, eprintln_step};
use super::lab::Lab;
use super::{Output, Repeat, failure};
use crate::bounds::within;
use crate::claim::Claim;
use crate::command::examples;
use crate::failure::{Failure, Outcome};

/// Kill a broker under load, again and again, and look for what it had acknowledged.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench crash                   fifty times",
        "corelane bench crash --rounds 5        five times",
        "corelane bench crash --data /mnt/nvme  on another disk",
    )
)]
pub(crate) struct Crash {
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = within(1_u32, 10_000))]
    rounds: u32,
    #[command(flatten)]
    own: Own,
}

/// How long a broker takes until it is ready after it was killed with a full journal.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench start                      with 1 GiB and with 10 GiB",
        "corelane bench start --written 512MiB     with less",
        "corelane bench start --rounds 9           more often",
    )
)]
pub(crate) struct Start {
    /// Bytes to write first; the second measurement writes ten times as much.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    written: ByteSize,
    /// Starts after each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = within(1_u32, 1_000))]
    rounds: u32,
    #[command(flatten)]
    own: Own,
}

/// What an idle partition costs in memory.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench idle                       10,000 partitions",
        "corelane bench idle --partitions 1000     fewer",
        "corelane bench idle --json idle.json      for a program",
    )
)]
pub(crate) struct Idle {
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = within(1_u32, 16_384))]
    partitions: u32,
    #[command(flatten)]
    own: Own,
}

/// Ingest for so long that settling is part of it, and how full the journal was meanwhile.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench sustained                  a minute",
        "corelane bench sustained --duration 10m   ten",
        "corelane bench sustained --json sus.json  for a program",
    )
)]
pub(crate) struct Sustained {
    /// How long.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    duration: Span,
    #[command(flatten)]
    own: Own,
}

/// What it costs a large group, and others, that a member joins.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench join                       the 1,000th, 1,000 partitions",
        "corelane bench join --members 100         a smaller group",
        "corelane bench join --rounds 9            more often",
    )
)]
pub(crate) struct Join {
    /// Members, the one that joins included.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = within(2_u32, 4096))]
    members: u32,
    /// Partitions of the group's topic.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = within(1_u32, 16_384))]
    partitions: u32,
    /// Connections that the members share.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = within(1_u32, 256))]
    connections: u32,
    /// Rounds: each puts load beside the group twice, once undisturbed.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = within(1_u32, 1_000))]
    rounds: u32,
    /// How long each load is.
    #[arg(long, value_name = "TIME", default_value = "3s")]
    duration: Span,
    #[command(flatten)]
    repeat: Repeat,
    #[command(flatten)]
    own: Own,
}

/// How many committed offsets a second a group takes.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench commit                     each of 2,000,000 records",
        "corelane bench commit --records 100000    fewer",
        "corelane bench commit --rounds 9          more often",
    )
)]
pub(crate) struct Commit {
    /// Records that are read and committed one by one.
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = within(1_u64, 1_000_000_000))]
    records: u64,
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = within(1_u32, 1_000))]
    rounds: u32,
    #[command(flatten)]
    own: Own,
}

/// What these benches share.
#[derive(Debug, Args)]
struct Own {
    /// A directory on the disk to use; the bench makes one of its own in there, named after it, and removes nothing but what
    /// it left in that. A cache directory when it is left out.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Own {
    /// A broker in a directory of the bench's own, which is its as long as the claim is there.
    fn broker(&self, name: &str) -> Outcome<(Claim, ServerOptions)> {
        self.output.check()?;
        let lay_out = || {
            let lab = Lab::open(self.data.clone())?;
            let claim = lab.claim(name)?;
            let options = ServerOptions { data: claim.data(), ..lab.broker(name)? };
            anyhow::Ok((claim, options))
        };
        lay_out().map_err(failure)
    }
}

impl Crash {
    pub(crate) fn run(self) -> Outcome {
        let (_claim, options) = self.own.broker("crash")?;
        let is_quiet = self.own.output.is_quiet();
        let show = |crashes: &crash::Crashes| {
            if !is_quiet {
                eprintln_step(&format!("kill {} of {}", crashes.rounds, self.rounds));
            }
        };
        let crashes = block_on(crash::measure(&options, self.rounds, show)).map_err(failure)?;
        let text = format!(
            "killed {} times: {} records acknowledged as stored, {} found, lost {}, duplicated {}, reordered {}, gaps {}, \
             corrupt {}\n",
            crashes.rounds,
            crashes.stored,
            crashes.found,
            crashes.lost,
            crashes.duplicated,
            crashes.reordered,
            crashes.gaps,
            crashes.corrupt
        );
        self.own.output.write(&crashes, &text)?;
        let faults = crashes.lost + crashes.duplicated + crashes.reordered + crashes.gaps + crashes.corrupt;
        if faults == 0 { Ok(()) } else { Err(Failure::failed("a crash cost records")) }
    }
}

impl Start {
    pub(crate) fn run(self) -> Outcome {
        let (_claim, options) = self.own.broker("start")?;
        let mut starts = Vec::new();
        let mut text = String::new();
        for bytes in [self.written.0, self.written.0.saturating_mul(10)] {
            if !self.own.output.is_quiet() {
                eprintln_step(&format!("starts after {} MiB were written", bytes >> 20));
            }
            let start = block_on(start::measure(&options, bytes, self.rounds)).map_err(failure)?;
            let median = corelane_loadgen::figure::median(&start.ready_s);
            text += &format!(
                "{:>6} MiB written, {:>6} MiB on disk, {:>4} MiB of them in the journal (a default one holds {}): \
                 ready after {median:.3} s (median of {})\n",
                start.written_bytes >> 20,
                start.disk_bytes >> 20,
                start.journal_bytes >> 20,
                start.journal_default_bytes >> 20,
                start.ready_s.len()
            );
            starts.push(start);
        }
        self.own.output.write(&starts, &text)
    }
}

impl Idle {
    pub(crate) fn run(self) -> Outcome {
        let (_claim, options) = self.own.broker("idle")?;
        let idle = block_on(idle::measure(&options, self.partitions)).map_err(failure)?;
        let text = format!(
            "{} partitions: resident {} KiB before, {} KiB after, {:.0} bytes a partition; {} KiB after a restart\n",
            idle.partitions,
            idle.before_bytes >> 10,
            idle.after_bytes >> 10,
            idle.bytes_per_partition,
            idle.restarted_bytes >> 10
        );
        self.own.output.write(&idle, &text)
    }
}

impl Join {
    pub(crate) fn run(self) -> Outcome {
        let (_claim, options) = self.own.broker("join")?;
        let is_quiet = self.own.output.is_quiet();
        let show = |step: &str| {
            if !is_quiet {
                eprintln_step(step);
            }
        };
        let bench = join::JoinBench {
            members: self.members,
            partitions: self.partitions,
            connections: self.connections,
            rounds: self.rounds,
            load: self.duration.0,
            patience: self.repeat.patience.0,
        };
        let joins = block_on(join::measure(&options, bench, show)).map_err(failure)?;
        let median = |figures: &[f64]| match figures {
            [] => "unknown".to_owned(),
            figures => format!("{:.1}", corelane_loadgen::figure::median(figures)),
        };
        let longest = joins.settled_ms.iter().copied().fold(0.0, f64::max);
        let text = format!(
            "{} members over {} partitions, the first {} after {:.1} s; {} joins\n\
             settled after {} ms (median), {longest:.1} ms at most; broker busy for {} ms a join and leave\n\
             p99 of others: {} µs undisturbed, {} µs while a member joins and leaves (medians of {} rounds; {} void)\n",
            joins.members,
            joins.partitions,
            joins.members - 1,
            joins.assembled_s,
            joins.settled_ms.len(),
            median(&joins.settled_ms),
            median(&joins.busy_ms),
            median(&joins.p99_quiet_us),
            median(&joins.p99_joining_us),
            joins.p99_quiet_us.len(),
            joins.void_rounds,
        );
        self.own.output.write(&joins, &text)
    }
}

impl Commit {
    pub(crate) fn run(self) -> Outcome {
        let (_claim, options) = self.own.broker("commit")?;
        let mut rounds = Vec::new();
        let mut text = String::new();
        for _ in 0..self.rounds {
            let commits = block_on(commit::measure(&options, self.records)).map_err(failure)?;
            text += &format!(
                "{} commits in {:.2} s: {:.0} a second, all durable; {} offsets were written for them\n",
                commits.commits, commits.seconds, commits.commits_per_s, commits.written
            );
            rounds.push(commits);
        }
        let rates: Vec<f64> = rounds.iter().map(|round| round.commits_per_s).collect();
        text += &format!("median: {:.0} a second\n", corelane_loadgen::figure::median(&rates));
        self.own.output.write(&rounds, &text)
    }
}

impl Sustained {
    pub(crate) fn run(self) -> Outcome {
        let (_claim, options) = self.own.broker("sustained")?;
        let duration = self.duration.0;
        if duration.is_zero() {
            return Err(Failure::usage("a run of no duration measures nothing; try --duration 60s"));
        }
        let sustained = block_on(sustained::measure(&options, duration)).map_err(failure)?;
        let fill = &sustained.journal_fill_permille;
        let (first, second) = fill.split_at(fill.len() / 2);
        let most = |half: &[f64]| half.iter().copied().fold(0.0, f64::max) / 10.0;
        let text = format!(
            "{:.2} M records/s stored for {} s; the journal was at most {:.1} % full in the first half, {:.1} % in the second\n",
            sustained.records_per_s / 1e6,
            sustained.seconds,
            most(first),
            most(second)
        );
        self.own.output.write(&sustained, &text)
    }
}
