//! `cargo xtask ci` and `cargo xtask fix`.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::{fuzz, root, simulate, tidy};

type Step = (&'static str, fn() -> anyhow::Result<()>);

/// Features that are off by default; the tests run without them.
const FEATURES: &str = "corelane/serde";

/// In the order of how soon they fail.
const STEPS: &[Step] = &[
    ("fmt", fmt),
    ("tidy", tidy::run),
    ("clippy", clippy),
    ("doc", doc),
    ("sim smoke", simulate::smoke),
    ("sim seeds", simulate::regressions),
    ("planted bugs", simulate::planted),
    ("fuzz bodies", fuzz::smoke),
    ("libFuzzer package", libfuzzer),
];

/// Runs every step, stops at the first that fails, and says how long each took.
pub(crate) fn check() -> anyhow::Result<()> {
    let begun = Instant::now();
    for (name, step) in STEPS {
        println!("ci: {name} …");
        let from = Instant::now();
        step().with_context(|| format!("step {name:?} failed"))?;
        println!("ci: {name} ok, {:.1} s", from.elapsed().as_secs_f64());
    }
    println!("ci: all {} steps ok, {:.1} s", STEPS.len(), begun.elapsed().as_secs_f64());
    Ok(())
}

/// Formats, and lets clippy apply what it is sure of.
pub(crate) fn fix() -> anyhow::Result<()> {
    cargo(&["fmt", "--all"], &[])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"], &[])?;
    cargo(&["fmt", "--all"], &[])
}

fn fmt() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])
}

fn clippy() -> anyhow::Result<()> {
    cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--features", FEATURES, "--", "-D", "warnings"], &[])
}

fn doc() -> anyhow::Result<()> {
    cargo(&["doc", "--locked", "--workspace", "--no-deps", "--features", FEATURES], &[("RUSTDOCFLAGS", "-D warnings")])
}

/// The package for libFuzzer stands outside the workspace. Its versions are the workspace's, and what is only checked needs
/// neither a C++ compiler nor a library to link.
fn libfuzzer() -> anyhow::Result<()> {
    let folder = root().join("tests/fuzz");
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    let arguments = ["check", "--quiet", "--manifest-path", "tests/fuzz/Cargo.toml", "--target-dir", "target"];
    cargo(&arguments, &[("CUSTOM_LIBFUZZER_PATH", "tests/fuzz/not-linked.a")])
}

/// Runs cargo at the top of the repository.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What `cargo run` sets for this program must not leak into the build that it starts.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command.current_dir(root()).args(arguments).envs(environment.iter().copied());
    let status = command.status().with_context(|| format!("cannot start cargo {}", arguments.join(" ")))?;
    if !status.success() {
        bail!("cargo {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
