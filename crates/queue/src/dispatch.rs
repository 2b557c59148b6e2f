//! Whose turn it is.

use corelane_model::Dispatch;
use corelane_model::limits::QUEUE_TURN_RECORDS;

use crate::Queue;

/// A xorshift generator: chance that replays.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let scaled = (u128::from(self.0) * end as u128) >> 64;
        usize::try_from(scaled).expect("it is below the end")
    }
}

/// What a record adds to the pass of a member with weight 1.
const PASS: u64 = 1 << 24;

/// A member that reported no time yet counts as this quick, so that it soon gets something to report about.
const MICROS_UNKNOWN: u64 = 1;

impl Queue {
    /// Puts a member with credit into the list.
    pub(crate) fn list_member(&mut self, seat: u16) {
        let pass = self.pass;
        let member = self.members.at(seat);
        if !member.is_listed {
            // Who had no credit for a while does not get all that it has missed at once.
            member.pass = member.pass.max(pass);
        }
        self.members.list(seat);
    }

    /// Takes the member whose turn it is out of the list, with how many records it gets when so many are ready.
    pub(crate) fn next_member(&mut self, ready: u64) -> Option<(u16, u64)> {
        loop {
            let at = self.choose()?;
            let seat = match self.settings.dispatch {
                Dispatch::RoundRobin => self.members.listed.pop_front(),
                Dispatch::Random | Dispatch::Weighted | Dispatch::LeastResponseTime => {
                    self.members.listed.swap_remove_back(at)
                }
            };
            let seat = seat.expect("the choice is in the list");
            let others = self.members.listed.len() as u64;
            let member = self.members.at(seat);
            member.is_listed = false;
            if member.has_credit() {
                self.pass = self.pass.max(member.pass);
                let share = ready.div_ceil(others + 1).clamp(1, QUEUE_TURN_RECORDS);
                return Some((seat, self.turn(share)));
            }
        }
    }

    /// Where records differ in whom they are best given to, turns are short.
    const fn turn(&self, share: u64) -> u64 {
        match self.settings.dispatch {
            Dispatch::RoundRobin => share,
            Dispatch::Random | Dispatch::Weighted | Dispatch::LeastResponseTime => share.div_ceil(4),
        }
    }

    /// A member got so many records in its turn.
    pub(crate) fn end_turn(&mut self, seat: u16, taken: u64) {
        let member = self.members.at(seat);
        member.pass += taken * (PASS / u64::from(member.weight)).max(1);
        self.members.list(seat);
    }

    /// A place in the list. By weight and by response time it looks at all that are in it.
    fn choose(&mut self) -> Option<usize> {
        let listed = &self.members.listed;
        let least = |score: &dyn Fn(u16) -> u64| {
            let scores = listed.iter().enumerate().map(|(at, &seat)| (score(seat), at));
            scores.min().map(|(_, at)| at)
        };
        match self.settings.dispatch {
            _ if listed.is_empty() => None,
            Dispatch::RoundRobin => Some(0),
            Dispatch::Random => Some(self.chance.below(listed.len())),
            Dispatch::Weighted => least(&|seat| self.members.get(seat).map_or(0, |member| member.pass)),
            Dispatch::LeastResponseTime => least(&|seat| {
                self.members.get(seat).map_or(0, |member| {
                    let micros = member.micros.map_or(MICROS_UNKNOWN, u64::from);
                    (member.leased + 1).saturating_mul(micros)
                })
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_even_and_replays() {
        let mut counts = [0u32; 7];
        let (mut chance, mut again) = (Chance::new(5), Chance::new(5));
        for _ in 0..70_000 {
            let at = chance.below(7);
            assert_eq!(at, again.below(7));
            counts[at] += 1;
        }
        assert!(counts.iter().all(|&count| (9_500..10_500).contains(&count)), "{counts:?}");
    }
}
