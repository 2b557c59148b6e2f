//! What one connection may cost when memory is shared by all.

use corelane_model::limits::{
    CONNECTION_HELD_BYTES_MIN, CONNECTION_SEND_WINDOW_BYTES, CONNECTION_WINDOW_BYTES, CONNECTION_WINDOW_BYTES_MIN,
    CONNECTION_WINDOW_PART, SESSION_SEND_BYTES_MAX,
};

/// The memory of all connections of an endpoint.
///
/// What they hold, frames that wait to be sent and frames that are not whole yet, is counted to the byte in
/// [`crate::QuicStats::held_bytes`]. Windows are promises to peers and cannot be taken back: each connection gets, with the
/// first frame that is sent to it, a part that shrinks with their number. So all windows together stay below the share if
/// connections come and go in any order: connections `2^k` to `2^(k+1)` promise at most a sixteenth of it in each
/// direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    bytes: u64,
}

impl Share {
    pub(crate) const fn new(bytes: u64) -> Self {
        Self { bytes }
    }

    /// How many connections have room for the smallest windows.
    pub(crate) fn connections_max(self) -> usize {
        usize::try_from(self.bytes / (2 * u64::from(CONNECTION_WINDOW_BYTES_MIN))).unwrap_or(usize::MAX).max(1)
    }

    /// The window of a connection that is one of so many.
    fn window(self, open: u64) -> u64 {
        self.bytes / CONNECTION_WINDOW_PART / open.max(1).next_power_of_two()
    }

    /// What the peer may send beyond what was read.
    pub(crate) fn receive_window(self, open: u64) -> u32 {
        u32::try_from(self.window(open)).unwrap_or(u32::MAX).clamp(CONNECTION_WINDOW_BYTES_MIN, CONNECTION_WINDOW_BYTES)
    }

    /// What may be on its way to the peer.
    pub(crate) fn send_window(self, open: u64) -> u64 {
        self.window(open).clamp(u64::from(CONNECTION_WINDOW_BYTES_MIN), CONNECTION_SEND_WINDOW_BYTES)
    }

    /// What may wait for one connection before its pushes pause, while all together hold `held`: as much as is left. So
    /// any number of slow readers come to rest at equal parts, and there is always room for one more.
    pub(crate) fn queue_max(self, held: u64) -> u64 {
        self.bytes.saturating_sub(held).clamp(CONNECTION_HELD_BYTES_MIN, SESSION_SEND_BYTES_MAX)
    }

    /// Whether more is held than there is: then the connection that holds most is closed.
    pub(crate) const fn is_over(self, held: u64) -> bool {
        self.bytes < held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stay_below_the_share_in_whatever_order_connections_come() {
        for bytes in [16_u64 << 20, 64 << 20, 1 << 30] {
            let share = Share::new(bytes);
            let windows: u64 = (1..=share.connections_max() as u64)
                .map(|open| share.send_window(open).max(u64::from(share.receive_window(open))))
                .filter(|&window| u64::from(CONNECTION_WINDOW_BYTES_MIN) < window)
                .sum();
            assert!(windows < bytes, "{windows} of {bytes}");
        }
    }

    #[test]
    fn slow_readers_come_to_rest_below_the_share() {
        let share = Share::new(64 << 20);
        for readers in [1_u64, 2, 7, 100, 500] {
            let mut held = vec![0_u64; usize::try_from(readers).unwrap()];
            loop {
                let mut has_grown = false;
                for reader in 0..held.len() {
                    let all: u64 = held.iter().sum();
                    if held[reader] <= share.queue_max(all) {
                        held[reader] += 4096;
                        has_grown = true;
                    }
                }
                if !has_grown {
                    break;
                }
            }
            assert!(!share.is_over(held.iter().sum()), "{readers} readers");
        }
    }
}
