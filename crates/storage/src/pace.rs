//! How fast settling goes: a straight line from nothing at a quarter of the ring to everything at its end, so that there
//! is no cliff for producers to fall from.

use std::time::Duration;

use corelane_model::limits::{SETTLE_FILL_MIN_PERMILLE, SETTLE_PACE_BYTES_MAX};

/// Fill of a bound, in thousandths; at most 1,000.
pub(crate) fn permille(used: u64, bound: u64) -> u64 {
    if bound <= used { 1000 } else { used.saturating_mul(1000) / bound }
}

/// Bytes a second at this fill, in thousandths; 0 up to the fill at which settling begins.
pub(crate) fn pace(fill_permille: u64) -> u64 {
    let over = fill_permille.min(1000).saturating_sub(SETTLE_FILL_MIN_PERMILLE);
    SETTLE_PACE_BYTES_MAX / (1000 - SETTLE_FILL_MIN_PERMILLE) * over
}

/// How long a turn of so many bytes takes at this pace; `None` when there is no pace.
pub(crate) fn turn_time(bytes: u64, pace: u64) -> Option<Duration> {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(if pace == 0 { return None } else { pace });
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_a_straight_line_from_a_quarter() {
        assert_eq!(pace(0), 0);
        assert_eq!(pace(250), 0);
        let step = pace(251);
        assert!(0 < step);
        assert_eq!(pace(500), step * 250);
        assert_eq!(pace(1000), step * 750);
        assert_eq!(pace(5000), pace(1000));
    }

    #[test]
    fn a_turn_takes_its_bytes_over_the_pace() {
        assert_eq!(turn_time(1 << 20, 0), None);
        assert_eq!(turn_time(1 << 20, 1 << 20), Some(Duration::from_secs(1)));
        assert_eq!(turn_time(0, 1), Some(Duration::ZERO));
    }
}
