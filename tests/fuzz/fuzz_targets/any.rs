//! Hands libFuzzer's input to the body that `CORELANE_FUZZ_TARGET` names (see `cargo xtask fuzz list`).
#![no_main]

use std::sync::LazyLock;

use corelane_sim::fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("CORELANE_FUZZ_TARGET").expect("CORELANE_FUZZ_TARGET names a target");
    TARGETS.iter().find(|target| target.name == name).expect("`cargo xtask fuzz list` names the targets")
});

fuzz_target!(|input: &[u8]| {
    (TARGET.body)(input);
});
