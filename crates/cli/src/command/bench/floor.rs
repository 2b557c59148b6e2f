//! `corelane bench floor`: what this machine can do without a broker.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use corelane::{Acks, ShardId, connect_bare};
use corelane_broker::certificate;
use corelane_broker::config::Certificate;
use corelane_loadgen::disk::Disk;
use corelane_loadgen::figure::{consume, ingest};
use corelane_loadgen::measure::{Latency, Percentiles};
use corelane_model::CorrelationId;
use corelane_reactor::floor::{
    DiskConfig, DiskOperation, DiskPath, DiskSamples, measure_disk, measure_memory_copy, measure_udp,
};
use corelane_wire::{FRAME_HEAD_BYTES, FrameHead, Ping, encode};
use serde::Serialize;

use super::lab::{Bare, Lab};
use super::{Output, failure};
use crate::command::examples;
use crate::failure::{Failure, Outcome};
use crate::target::run;

/// Measure what is possible here: UDP, bare QUIC by the broker's own loop, direct I/O, memory.
///
/// What is measured runs on the first core that this process may use, the generator on the last.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench floor                     about half a minute",
        "corelane bench floor --json floor.json   for a program",
        "corelane bench floor --data /mnt/nvme    on another disk",
    )
)]
pub(crate) struct Floor {
    /// A directory on the disk to measure; the bench makes `floor` in there. A cache directory when it is left out.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Sizes of the writes that are measured.
const SIZES: [(&str, usize); 3] = [("4KiB", 4 << 10), ("64KiB", 64 << 10), ("1MiB", 1 << 20)];
const UDP_ROUND_TRIPS: usize = 20_000;
const DISK_WRITES: usize = 2_000;
const DISK_READS: usize = 1_000;
/// Reads under way at once, as the broker's read-ahead has them.
const READ_DEPTH: usize = 4;
const ECHO: Duration = Duration::from_secs(2);
const STREAM: Duration = Duration::from_secs(3);
const WARM_UP: usize = 50;

/// What the machine can do. Times are in microseconds.
#[derive(Debug, Serialize)]
struct Floors {
    udp_round_trip_us: Percentiles,
    quic_echo_us: Percentiles,
    quic_ingest_records_per_s: f64,
    quic_egress_bytes_per_s: f64,
    /// Overwrite and fdatasync, by size and by way.
    disk_write_sync_us: BTreeMap<String, BTreeMap<&'static str, Percentiles>>,
    disk_read_bytes_per_s: f64,
    memory_copy_bytes_per_s: f64,
    disk: Disk,
    cores: (Option<usize>, Option<usize>),
}

impl Floor {
    pub(crate) fn run(self) -> Outcome {
        self.output.check()?;
        let floors = self.measure().map_err(failure)?;
        self.output.write(&floors, &text(&floors).map_err(Failure::failed)?)
    }

    fn measure(&self) -> anyhow::Result<Floors> {
        let root = Lab::open(self.data.clone())?;
        let claim = root.claim("floor")?;
        let lab = Lab { directory: claim.data(), ..root };
        std::fs::create_dir_all(&lab.directory)?;
        let step = |name: &str| {
            if !self.output.is_quiet() {
                eprintln_step(name);
            }
        };
        step("UDP round trip");
        let udp = measure_udp(UDP_ROUND_TRIPS, lab.server_cpu)?;
        step("QUIC echo, ingest, egress");
        let bare = lab.bare()?;
        let echo = echo(&bare, ECHO)?;
        let ingest = bare_ingest(&bare, STREAM)?;
        let egress = bare_egress(&bare, STREAM)?;
        bare.stop()?;
        let mut writes = BTreeMap::new();
        for (name, bytes) in SIZES {
            step(&format!("overwrite and fdatasync of {name}"));
            let by = |path| write_sync(&lab, bytes, path).map(|samples| percentiles(&samples.total));
            writes.insert(
                name.to_owned(),
                BTreeMap::from([("reactor", by(DiskPath::Reactor)?), ("pwrite", by(DiskPath::Plain)?)]),
            );
        }
        step("reads");
        Ok(Floors {
            udp_round_trip_us: percentiles(&udp),
            quic_echo_us: echo.percentiles(),
            quic_ingest_records_per_s: ingest,
            quic_egress_bytes_per_s: egress,
            disk_write_sync_us: writes,
            disk_read_bytes_per_s: read(&lab)?,
            memory_copy_bytes_per_s: measure_memory_copy(Duration::from_millis(500)),
            disk: Disk::of(&lab.directory),
            cores: (lab.server_cpu, lab.client_cpu),
        })
    }
}

/// What a file of [`Floor`] says, by the way to each number in it.
pub(super) fn read_file(path: &Path) -> anyhow::Result<corelane_loadgen::report::Floors> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let what = || format!("{name} is not what `corelane bench floor --json FILE` writes");
    let value: serde_json::Value = serde_json::from_slice(&bytes).with_context(what)?;
    let mut numbers = corelane_loadgen::report::Floors::new();
    gather("", &value, &mut numbers);
    anyhow::ensure!(numbers.contains_key("quic_echo_us.p50"), what());
    numbers.retain(|way, _| !way.starts_with("cores") && !way.ends_with("samples"));
    Ok(numbers)
}

/// Numbers below `value`, each named by its way.
fn gather(way: &str, value: &serde_json::Value, numbers: &mut corelane_loadgen::report::Floors) {
    if let Some(number) = value.as_f64() {
        numbers.insert(way.to_owned(), number);
    }
    for (name, below) in value.as_object().into_iter().flatten() {
        let dot = if way.is_empty() { "" } else { "." };
        gather(&format!("{way}{dot}{name}"), below, numbers);
    }
}

/// Where a long bench is, on standard error.
#[expect(clippy::print_stderr, reason = "progress is for the person at the terminal")]
pub(crate) fn eprintln_step(name: &str) {
    eprintln!("measuring {name} …");
}

/// Round trips of one ping on a bare connection.
pub(crate) fn echo(bare: &Bare, duration: Duration) -> anyhow::Result<Latency> {
    run(async { echo_loop(&bare.address, duration).await.map_err(failure) }).map_err(|error| anyhow::anyhow!("{error}"))
}

async fn echo_loop(address: &str, duration: Duration) -> anyhow::Result<Latency> {
    let (connection, _endpoint) = connect_bare(address, ShardId(0)).await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let mut latency = Latency::default();
    let start = Instant::now();
    let mut buffer = vec![0; 4096];
    let mut count = 0_usize;
    while start.elapsed() < duration {
        let sent = Instant::now();
        let frame = encode(CorrelationId(count as u64), &Ping { payload: count as u64 });
        send.write_all(&frame.front).await?;
        receive.read_exact(&mut buffer[..FRAME_HEAD_BYTES]).await?;
        let head: &[u8; FRAME_HEAD_BYTES] = buffer[..FRAME_HEAD_BYTES].try_into()?;
        let length = FrameHead::parse(head)?.length as usize;
        receive.read_exact(buffer.get_mut(..length).context("a pong is small")?).await?;
        if WARM_UP <= count {
            latency.record(sent.elapsed());
        }
        count += 1;
    }
    Ok(latency)
}

/// Records a second that the bare server acknowledges.
pub(crate) fn bare_ingest(bare: &Bare, duration: Duration) -> anyhow::Result<f64> {
    block_on(ingest::measure(&bare.address, "floor", Acks::Received, duration))
}

/// Bytes a second that the bare server pushes.
pub(crate) fn bare_egress(bare: &Bare, duration: Duration) -> anyhow::Result<f64> {
    Ok(block_on(consume::measure(&bare.address, "floor", u64::MAX, duration))?.bytes_per_s())
}

/// Overwrites and syncs, one after another.
pub(crate) fn write_sync(lab: &Lab, bytes: usize, path: DiskPath) -> anyhow::Result<DiskSamples> {
    disk(lab, DiskOperation::WriteSync, bytes, path, DISK_WRITES, 1)
}

/// Bytes a second of reads by the broker's file executor.
pub(crate) fn read(lab: &Lab) -> anyhow::Result<f64> {
    let samples = disk(lab, DiskOperation::Read, 1 << 20, DiskPath::Reactor, DISK_READS, READ_DEPTH)?;
    #[expect(clippy::cast_precision_loss, reason = "a few gibibytes")]
    let bytes = (DISK_READS << 20) as f64;
    Ok(bytes / samples.elapsed.as_secs_f64())
}

fn disk(
    lab: &Lab,
    operation: DiskOperation,
    bytes: usize,
    path: DiskPath,
    count: usize,
    depth: usize,
) -> anyhow::Result<DiskSamples> {
    let directory = lab.directory.join("floor");
    std::fs::create_dir_all(&directory)?;
    let tls = certificate::identity(&Certificate::Development, &directory)?.tls;
    let cpu = lab.server_cpu;
    Ok(measure_disk(&DiskConfig { directory, cpu, operation, path, bytes, count, depth, tls })?)
}

/// Runs a figure of the load generator on this thread.
pub(crate) fn block_on<T>(figure: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(figure)
}

pub(crate) fn percentiles(nanos: &[u64]) -> Percentiles {
    let mut latency = Latency::default();
    nanos.iter().skip(WARM_UP.min(nanos.len() / 10)).for_each(|&nanos| latency.record_nanos(nanos));
    latency.percentiles()
}

fn text(floors: &Floors) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let mut row = |name: &str, row: &Percentiles| {
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        writeln!(out, "{name:<36} p50 {:>9} µs   p99 {:>9} µs", cell(row.p50), cell(row.p99))
    };
    row("UDP round trip", &floors.udp_round_trip_us)?;
    row("bare QUIC echo", &floors.quic_echo_us)?;
    for (size, ways) in &floors.disk_write_sync_us {
        for (way, samples) in ways {
            row(&format!("overwrite + fdatasync {size} ({way})"), samples)?;
        }
    }
    writeln!(
        out,
        "{:<36} {:>13.2} M records/s",
        "bare QUIC ingest 100 x 100 B",
        floors.quic_ingest_records_per_s / 1e6
    )?;
    for (name, rate) in [
        ("bare QUIC egress", floors.quic_egress_bytes_per_s),
        ("direct reads of 1 MiB", floors.disk_read_bytes_per_s),
        ("memory copy", floors.memory_copy_bytes_per_s),
    ] {
        writeln!(out, "{name:<36} {:>13.0} MB/s", rate / 1e6)?;
    }
    writeln!(out, "disk: {}", floors.disk)?;
    Ok(out)
}
