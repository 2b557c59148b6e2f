//! Numbers that are leased durably in blocks ahead of need, so that none is handed out twice over a restart.

/// Numbers from `next` on of which those below `durable` may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The end of what the journal is known to hold.
    pub(crate) durable: u64,
    /// The end of what was asked of the journal.
    pub(crate) asked: u64,
}

impl Lease {
    /// A lease whose numbers below `until` are used up.
    pub(crate) const fn used_up(until: u64) -> Self {
        Self { durable: until, asked: until }
    }

    /// The new end to ask for when `next` has used up half of the block; nothing while that is on its way.
    pub(crate) fn wish(&mut self, next: u64, block: u64) -> Option<u64> {
        let is_due = self.asked == self.durable && self.durable.saturating_sub(next) <= block / 2;
        if !is_due {
            return None;
        }
        self.asked = self.asked.max(next) + block;
        Some(self.asked)
    }

    /// The journal holds it.
    pub(crate) fn on_durable(&mut self, until: u64) {
        self.durable = self.durable.max(until);
        self.asked = self.asked.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_when_half_of_it_is_used() {
        let mut lease = Lease::used_up(100);
        assert_eq!(lease.wish(100, 10), Some(110));
        assert_eq!(lease.wish(100, 10), None);
        lease.on_durable(110);
        assert_eq!(lease.wish(104, 10), None);
        assert_eq!(lease.wish(105, 10), Some(120));
        lease.on_durable(120);
        assert_eq!(lease, Lease { durable: 120, asked: 120 });
    }
}
