//! One record within the window.

use corelane_model::MonotonicNanos;

/// What becomes of a record.
///
/// ```text
///            read                        its turn                         acknowledged
///   ───────────────▶ Fresh ───────────────────────────────▶ Leased ────────────────────────▶ Done
///     │ │              ▲                                    │  ▲  │                            ▲
///     │ │              │ (Again)        time-out, member    │  │  │ failed for good,           │
///     │ │              │ ◀── gone, failed without a rest ───┘  │  │ or as often as may be      │
///     │ │              │                                       │  ▼                            │
///     │ │              │ ◀──── Delayed ◀── failed ─────────────┘ Dying ── its dead letter ─────┘
///     │ │                         ▲                                       is durable
///     │ └─ delivery time to come ─┘
///     └─ one of its key is before it: Held, until that one is done; then as if it was read
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// To be handed out when the hand-out comes to it.
    Fresh,
    /// To be handed out; it stands in the queue of those that the hand-out has passed.
    Again,
    /// It rests until a moment.
    Delayed,
    /// It waits for one of its key.
    Held,
    /// A member has it.
    Leased,
    /// It is on its way to the dead-letter topic.
    Dying,
    /// It is done, and waits only for those before it.
    Done,
}

impl State {
    pub(crate) const COUNT: usize = 7;
}

// docs/queues.md says what a window costs.
const _: () = assert!(size_of::<Slot>() == 24);

/// A record that was read and is not below the done end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Leased: when that ends. Delayed and held: before when it is not handed out.
    pub(crate) until: MonotonicNanos,
    /// What it takes off a member's credit.
    pub(crate) bytes: u32,
    /// Distance to the next record of its line of keys; 0 if there is none (yet).
    pub(crate) next: u32,
    /// Deliveries so far, with the one that is under way.
    pub(crate) attempts: u16,
    /// Seat of the member that has it.
    pub(crate) seat: u16,
    pub(crate) state: State,
    /// Its delivery time is farther off than a queue waits: it is given up, or handed out as if it had none.
    pub(crate) is_too_far: bool,
}

impl Slot {
    /// Whether the member on this seat has it, in this delivery.
    pub(crate) fn is_leased(&self, seat: u16, attempt: u32) -> bool {
        self.state == State::Leased && self.seat == seat && u32::from(self.attempts) == attempt
    }

    /// Its bytes if it could be handed out and never was.
    pub(crate) fn fresh_bytes(&self) -> u64 {
        let is_ready = matches!(self.state, State::Fresh | State::Again);
        if is_ready && self.attempts == 0 { u64::from(self.bytes) } else { 0 }
    }

    /// An offset without a record.
    pub(crate) const fn done() -> Self {
        Self { state: State::Done, ..Self::fresh(0) }
    }

    /// A record that was just read and that nothing holds up.
    pub(crate) const fn fresh(bytes: u32) -> Self {
        let until = MonotonicNanos(0);
        Self { until, bytes, next: 0, attempts: 0, seat: 0, state: State::Fresh, is_too_far: false }
    }
}
