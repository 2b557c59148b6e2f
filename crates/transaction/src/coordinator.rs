//! The coordinator of one transactional id and its answers.

use std::collections::BTreeSet;
use std::time::Duration;

use corelane_model::limits::{TRANSACTION_PARTICIPANTS_MAX, TRANSACTION_TIMEOUT_MAX, TRANSACTION_TIMEOUT_MIN};
use corelane_model::{
    Decision, MonotonicNanos, Now, ProducerEpoch, ProducerId, Transaction, TransactionalId, WallMillis,
};

use crate::round::{Outbox, Round};
use crate::{Participant, RequestTicket, TransactionError, TransactionStats};

/// What a transactional id is doing.
///
/// ```text
///   Unused ──initialise──▶ Empty ──first participant joins──▶ Open
///     ▲ ▲                   │ ▲                                │ end, time-out, or initialise (abort)
///     │ │     forgotten ◀───┤ │                                ▼
///     │ └───────────────────│─┴── every participant has it ── Ending(commit | abort)
///     │  the producer had   │      the epoch is one more
///     │  all its epochs     └──initialise: another producer ──▶ Empty
///     └── a new id
/// ```
/// *Open* and *Ending* are durable before anybody acts on them. From *Ending* there is no way back: the record of it is the
/// decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no producer.
    Unused,
    /// Its producer may begin.
    Empty,
    /// A transaction goes on.
    Open {
        /// Who takes part.
        participants: BTreeSet<Participant>,
        /// When it is aborted. Not durable; a restored coordinator waits anew.
        deadline: MonotonicNanos,
    },
    /// A transaction is decided.
    Ending {
        /// How.
        decision: Decision,
        /// Who does not have that durably yet.
        left: BTreeSet<Participant>,
    },
    /// Only a tombstone is left.
    Forgotten,
}

/// An initialisation that waits until the transaction before is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Initialisation {
    ticket: RequestTicket,
    fresh: ProducerId,
    timeout: Duration,
}

/// The coordinator of one transactional id. See the crate's page for how it is driven.
#[derive(Clone, Debug)]
pub struct Coordinator {
    pub(crate) id: TransactionalId,
    pub(crate) phase: Phase,
    pub(crate) timeout: Duration,
    /// The transaction that goes on or may begin; none while there is no producer.
    pub(crate) current: Option<Transaction>,
    /// The one that was over last, so that a client whose answer was lost can ask again.
    pub(crate) last: Option<(Transaction, Decision)>,
    /// When something last happened.
    pub(crate) touched: WallMillis,
    /// When the id is forgotten if nothing happens until then.
    pub(crate) expiry: MonotonicNanos,
    pub(crate) waiting: Option<Initialisation>,
    /// Records beside the id's own that have not been removed; the next one's number.
    pub(crate) additions: u16,
    /// Who waits for the end that goes on.
    pub(crate) ends: Vec<RequestTicket>,
    pub(crate) round: Round,
    pub(crate) outbox: Outbox,
    pub(crate) stats: TransactionStats,
}

impl Coordinator {
    /// The coordinator of an id that nobody used before. Nothing is written until something happens to it.
    #[must_use]
    pub fn new(now: Now, id: TransactionalId) -> Self {
        let mut new = Self {
            id,
            phase: Phase::Unused,
            timeout: corelane_model::limits::TRANSACTION_TIMEOUT_DEFAULT,
            current: None,
            last: None,
            touched: now.wall,
            expiry: now.monotonic,
            waiting: None,
            additions: 0,
            ends: Vec::new(),
            round: Round::default(),
            outbox: Outbox::default(),
            stats: TransactionStats::default(),
        };
        new.arm_expiry(now);
        new
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &TransactionalId {
        &self.id
    }

    /// What it is doing.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The transaction that goes on or may begin.
    #[must_use]
    pub const fn current(&self) -> Option<Transaction> {
        self.current
    }

    /// The transaction that was over last, and what was decided about it.
    #[must_use]
    pub const fn last(&self) -> Option<(Transaction, Decision)> {
        self.last
    }

    /// Counters since it was made or restored.
    #[must_use]
    pub const fn stats(&self) -> &TransactionStats {
        &self.stats
    }

    /// A client takes the id over: what went on is aborted, earlier producers are shut out, and when that has taken effect
    /// everywhere it is answered with the first transaction of `fresh`, a producer id that nobody had before.
    ///
    /// # Errors
    /// The time-out is out of its bounds, or too many answers wait.
    pub fn initialise(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        fresh: ProducerId,
        timeout: Duration,
    ) -> Result<(), TransactionError> {
        assert!(fresh != ProducerId::NONE, "a producer has an id");
        let is_sound = check_timeout(timeout).and_then(|()| self.check_room());
        is_sound.inspect_err(|error| self.stats.refuse(error))?;
        if let Some(before) = self.waiting.replace(Initialisation { ticket, fresh, timeout }) {
            let error = TransactionError::Superseded { id: self.id.as_str().to_owned() };
            self.stats.refused += 1;
            self.round.refused.push((before.ticket, error));
        }
        match self.phase {
            Phase::Unused | Phase::Empty => self.begin_producer(now),
            Phase::Open { .. } => self.decide(now, Decision::Abort),
            // What was decided has to take effect first.
            Phase::Ending { .. } => {}
            Phase::Forgotten => unreachable!("there is room for answers only before the id is forgotten"),
        }
        self.check();
        Ok(())
    }

    /// The waiting initialisation has its turn.
    fn begin_producer(&mut self, now: Now) {
        let Some(Initialisation { ticket, fresh, timeout }) = self.waiting.take() else { return };
        self.timeout = timeout;
        let first = Transaction::new(fresh, ProducerEpoch(0));
        self.current = Some(first);
        self.phase = Phase::Empty;
        self.stats.initialised += 1;
        self.round.initialised.push((ticket, first));
        self.touch(now);
    }

    /// Somebody is about to take something of a transaction, which begins with its first participant. Answered when it is
    /// written down; asked again, it is answered again.
    ///
    /// # Errors
    /// The transaction is not the one that goes on or may begin, or a limit is reached. The participant must take nothing.
    pub fn join(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        transaction: Transaction,
        participant: Participant,
    ) -> Result<(), TransactionError> {
        self.check_join(transaction, &participant).inspect_err(|error| self.stats.refuse(error))?;
        if let Phase::Open { participants, .. } = &mut self.phase {
            if participants.insert(participant.clone()) {
                self.round.entered.insert(participant);
            }
        } else {
            let deadline = now.monotonic.after(self.timeout);
            self.phase = Phase::Open { participants: BTreeSet::from([participant]), deadline };
            self.touch(now);
        }
        self.round.joined.push(ticket);
        self.check();
        Ok(())
    }

    fn check_join(&self, transaction: Transaction, participant: &Participant) -> Result<(), TransactionError> {
        self.check_room()?;
        if self.current != Some(transaction) {
            return Err(self.stranger(transaction));
        }
        match &self.phase {
            Phase::Ending { decision, .. } => Err(TransactionError::Ended { asked: transaction, decision: *decision }),
            Phase::Open { participants, .. }
                if TRANSACTION_PARTICIPANTS_MAX <= participants.len() && !participants.contains(participant) =>
            {
                let (would, limit) = (participants.len() as u64 + 1, TRANSACTION_PARTICIPANTS_MAX as u64);
                Err(TransactionError::Limit { what: "partitions and groups", would, limit })
            }
            _ => Ok(()),
        }
    }

    /// The client ends its transaction. Answered when every participant has the decision durably; asked again, even after
    /// a restart, it is answered again as long as the next one has not ended.
    ///
    /// # Errors
    /// The transaction is not the one that goes on, or was decided otherwise: by its time-out, perhaps.
    pub fn end(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        transaction: Transaction,
        decision: Decision,
    ) -> Result<(), TransactionError> {
        self.check_end(transaction, decision).inspect_err(|error| self.stats.refuse(error))?;
        if self.current == Some(transaction) {
            match self.phase {
                Phase::Open { .. } => {
                    self.ends.push(ticket);
                    self.decide(now, decision);
                }
                Phase::Ending { .. } => self.ends.push(ticket),
                // Nobody took part, so there is nothing to tell. What its client sent and no longer waits for may still
                // come: it finds that the transaction is over and does not get into the next one.
                _ => {
                    self.go_on(now, transaction, decision);
                    self.round.passed.push((ticket, self.current));
                }
            }
        } else {
            let next = self.current.filter(|current| current.producer == transaction.producer);
            self.round.passed.push((ticket, next));
        }
        self.check();
        Ok(())
    }

    fn check_end(&self, transaction: Transaction, decision: Decision) -> Result<(), TransactionError> {
        self.check_room()?;
        let decided = match (&self.phase, self.last) {
            (Phase::Ending { decision, .. }, _) if self.current == Some(transaction) => Some(*decision),
            (_, Some((last, decision))) if last == transaction => Some(decision),
            _ if self.current == Some(transaction) => None,
            _ => return Err(self.stranger(transaction)),
        };
        match decided {
            Some(decided) if decided != decision => {
                Err(TransactionError::Ended { asked: transaction, decision: decided })
            }
            _ => Ok(()),
        }
    }

    /// Why a transaction that is not the current one is refused.
    fn stranger(&self, asked: Transaction) -> TransactionError {
        let id = || self.id.as_str().to_owned();
        match (self.current, self.last) {
            (_, Some((last, decision))) if last == asked => TransactionError::Ended { asked, decision },
            (Some(current), _) if current.producer != asked.producer => TransactionError::Fenced { id: id(), asked },
            (Some(current), _) if asked.epoch < current.epoch => TransactionError::Past { asked },
            (Some(before), _) if matches!(self.phase, Phase::Ending { .. }) => {
                if before.epoch.0.checked_add(1) == Some(asked.epoch.0) {
                    TransactionError::Busy { before }
                } else {
                    TransactionError::Future { asked, next: before }
                }
            }
            (Some(next), _) => TransactionError::Future { asked, next },
            (None, Some(_)) => TransactionError::Fenced { id: id(), asked },
            (None, None) => TransactionError::unknown(&self.id),
        }
    }

    /// From here on there is no way back.
    pub(crate) fn decide(&mut self, now: Now, decision: Decision) {
        let Phase::Open { participants, .. } = &mut self.phase else { panic!("only what goes on is decided") };
        let left = std::mem::take(participants);
        match decision {
            Decision::Commit => self.stats.committed += 1,
            Decision::Abort => self.stats.aborted += 1,
        }
        self.phase = Phase::Ending { decision, left };
        self.round.is_decided = true;
        self.touch(now);
    }

    /// A participant has the decision about the transaction durably. What is known already changes nothing.
    pub fn on_applied(&mut self, now: Now, transaction: Transaction, participant: &Participant) {
        let Phase::Ending { decision, left } = &mut self.phase else { return };
        if self.current != Some(transaction) || !left.remove(participant) || !left.is_empty() {
            return;
        }
        let decision = *decision;
        self.go_on(now, transaction, decision);
        for ticket in std::mem::take(&mut self.ends) {
            self.round.ended.push((ticket, self.current));
        }
        self.begin_producer(now);
        self.check();
    }

    /// A transaction is over everywhere: the next one may begin, if the producer has an epoch left.
    fn go_on(&mut self, now: Now, over: Transaction, decision: Decision) {
        self.last = Some((over, decision));
        let epoch = over.epoch.0.checked_add(1);
        self.current = epoch.map(|epoch| Transaction::new(over.producer, ProducerEpoch(epoch)));
        self.phase = if self.current.is_some() { Phase::Empty } else { Phase::Unused };
        self.touch(now);
    }

    /// Something happened: it is written at the end of the round.
    pub(crate) fn touch(&mut self, now: Now) {
        self.touched = now.wall;
        self.arm_expiry(now);
        self.round.is_changed = true;
    }

    /// What must hold after each change.
    pub(crate) fn check(&self) {
        match &self.phase {
            Phase::Unused | Phase::Forgotten => assert_eq!(self.current, None, "without a producer nothing goes on"),
            Phase::Empty => assert!(self.current.is_some(), "what may begin has a name"),
            Phase::Open { participants, .. } => {
                assert!(
                    self.current.is_some() && !participants.is_empty(),
                    "what goes on has a name and a participant"
                );
                assert!(participants.len() <= TRANSACTION_PARTICIPANTS_MAX, "{} participants", participants.len());
            }
            Phase::Ending { left, .. } => {
                assert!(
                    self.current.is_some() && !left.is_empty(),
                    "what is ending has a name and somebody to hear of it"
                );
            }
        }
        let is_ending = matches!(self.phase, Phase::Ending { .. });
        assert!(is_ending || (self.ends.is_empty() && self.waiting.is_none()), "only an end is waited for");
    }
}

fn check_timeout(timeout: Duration) -> Result<(), TransactionError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if (TRANSACTION_TIMEOUT_MIN..=TRANSACTION_TIMEOUT_MAX).contains(&timeout) {
        return Ok(());
    }
    let (value, min, max) = (millis(timeout), millis(TRANSACTION_TIMEOUT_MIN), millis(TRANSACTION_TIMEOUT_MAX));
    Err(TransactionError::OutOfBounds { value, min, max })
}
