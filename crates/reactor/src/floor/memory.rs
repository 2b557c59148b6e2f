//! The floor under everything: how fast memory is copied.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes of the source and of the target: beyond any cache of a small machine.
const BUFFER_BYTES: usize = 64 << 20;

/// Bytes a second that one core copies, over about `duration`.
#[must_use]
pub fn measure_memory_copy(duration: Duration) -> f64 {
    let source = vec![0x5a_u8; BUFFER_BYTES];
    let mut target = vec![0_u8; BUFFER_BYTES];
    let start = Instant::now();
    let mut copied = 0_u64;
    while start.elapsed() < duration {
        target.copy_from_slice(black_box(&source));
        black_box(&mut target);
        copied += BUFFER_BYTES as u64;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53rd bit")]
    let bytes = copied as f64;
    bytes / start.elapsed().as_secs_f64()
}
