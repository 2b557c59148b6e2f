//! A stopwatch for micro benches: the median of several rounds, in nanoseconds for each call.

use std::time::{Duration, Instant};

const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(50);

/// Measures `body` and prints a line, if this is `cargo bench` and the name was asked for or none was; else runs it once.
#[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
#[expect(clippy::cast_precision_loss, reason = "counts of a short run are far below 2^52")]
pub(crate) fn run(name: &str, mut body: impl FnMut()) {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    if !arguments.iter().any(|argument| argument == "--bench") {
        body();
        return;
    }
    let mut wanted = arguments.iter().filter(|argument| !argument.starts_with("--")).peekable();
    if wanted.peek().is_some() && !wanted.any(|wanted| name.contains(wanted.as_str())) {
        return;
    }
    let mut rounds = (0..ROUNDS)
        .map(|_| {
            let (start, mut calls) = (Instant::now(), 0_u64);
            while start.elapsed() < ROUND {
                for _ in 0..16 {
                    body();
                }
                calls += 16;
            }
            start.elapsed().as_nanos() as f64 / calls as f64
        })
        .collect::<Vec<_>>();
    rounds.sort_by(f64::total_cmp);
    let (least, median, most) = (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
    println!("{name:<24} {median:>10.1} ns  ({least:.1} to {most:.1})");
}
