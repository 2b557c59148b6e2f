//! The thread that hands out messages when they are due.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use corelane::{Client, PartitionIndex, Producer, Record, SendError, Ticket};
use corelane_model::MonotonicNanos;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use super::Counts;
use crate::measure::Latency;
use crate::pacer::Pacer;
use crate::plan::{Schedule, StreamPlan};
use crate::slice::{LATE_SHARE, SliceCounts, SliceJudge, Slices};
use crate::stamp::{Stamp, write_message};
use crate::stolen;

/// A message that was taken: when it was due, and the promise about it.
pub(crate) type Sent = (MonotonicNanos, Ticket);

/// Tickets that are passed on together at most.
const TICKETS_TOGETHER_MAX: usize = 4096;

/// The pacer and its producers.
pub(crate) struct Sender {
    pacer: Pacer,
    judge: SliceJudge,
    client: Client,
    producers: Vec<Producer>,
    streams: Vec<StreamPlan>,
    counts: Arc<Counts>,
    /// Where promises go, those of an edge together; without it nobody asks what became of a single message, and the client
    /// counts failures.
    tickets: Option<UnboundedSender<Vec<Sent>>>,
    end: SenderEnd,
}

/// What came of sending.
#[derive(Debug, Default)]
pub(crate) struct SenderEnd {
    /// Messages taken, by stream.
    pub(crate) sent: Vec<u32>,
    /// Messages that the SDK refused for good.
    pub(crate) refused: u64,
    /// Why, the first time.
    pub(crate) first_refusal: Option<String>,
    /// How late the generator was.
    pub(crate) lateness: Latency,
    /// Which slices of the run count.
    pub(crate) slices: SliceCounts,
    /// How many messages were handed out too late.
    pub(crate) late: u64,
    /// When the first message was due, in nanoseconds since the origin.
    pub(crate) first_due: u64,
    /// Processor time that the machine's host took meanwhile, of all cores.
    pub(crate) stolen: Option<Duration>,
}

impl SenderEnd {
    /// Messages taken, over all streams.
    pub(crate) fn total(&self) -> u64 {
        self.sent.iter().map(|&sent| u64::from(sent)).sum()
    }

    /// Why the run is void, if it is: in most of its slices messages were late by more than [`LATE_SHARE`] of `tick`.
    pub(crate) fn void_reason(&self, tick: Duration) -> Option<String> {
        let SliceCounts { slice_ms, total, void } = self.slices;
        self.slices.is_void().then(|| {
            let (late, late_us) = (self.late, (tick / LATE_SHARE).as_micros());
            let reason = format!(
                "in {void} of {total} slices of {slice_ms} ms the generator was late: {late} of {} messages by more than \
                 {late_us} µs (5 % of a tick)",
                self.total()
            );
            match self.stolen {
                Some(stolen) if !stolen.is_zero() => {
                    format!("{reason}; meanwhile the machine's host took {} ms of its cores' time", stolen.as_millis())
                }
                _ => reason,
            }
        })
    }

    /// What the machine's host took, in milliseconds.
    pub(crate) fn stolen_ms(&self) -> Option<f64> {
        self.stolen.map(|stolen| stolen.as_secs_f64() * 1e3)
    }
}

impl Sender {
    pub(crate) fn new(
        origin: Instant,
        slices: &Arc<Slices>,
        client: Client,
        producers: Vec<Producer>,
        streams: Vec<StreamPlan>,
        counts: Arc<Counts>,
        tickets: Option<UnboundedSender<Vec<Sent>>>,
    ) -> Self {
        let end = SenderEnd { sent: vec![0; streams.len()], ..SenderEnd::default() };
        let judge = SliceJudge::new(Arc::clone(slices));
        Self { pacer: Pacer::new(origin), judge, client, producers, streams, counts, tickets, end }
    }

    /// Sends the whole schedule.
    pub(crate) fn run(mut self, schedule: Schedule, runtime: &Handle) -> SenderEnd {
        let stolen_before = stolen::stolen();
        let mut message = Vec::new();
        let mut is_first = true;
        let mut schedule = schedule.peekable();
        let mut gathering = None;
        let mut tickets = Vec::new();
        while let Some(due) = schedule.next() {
            let lateness = self.pacer.wait_until(due.at);
            self.judge.on_sent(due.at, lateness);
            if self.counts.is_stopped.load(Ordering::Relaxed) {
                break;
            }
            if is_first {
                is_first = false;
                self.end.first_due = due.at.0;
            }
            // What is due at one moment is handed over at once, as a server does at each tick.
            let is_last_of_edge = schedule.peek().is_none_or(|next| due.at < next.at);
            if !is_last_of_edge && gathering.is_none() {
                gathering = Some(self.client.gather());
            }
            let stream = due.stream.0 as usize;
            let stamp = Stamp { sequence: self.end.sent[stream], due: due.at };
            write_message(&mut message, due.stream, stamp, due.size as usize);
            let key = due.stream.to_key();
            let plan = self.streams[stream];
            let record = Record::new(&message).key(&key).partition(PartitionIndex(plan.partition));
            match self.send(plan.topic, record, runtime) {
                Ok(ticket) => {
                    self.end.sent[stream] += 1;
                    self.counts.sent.fetch_add(1, Ordering::Relaxed);
                    tickets.extend(ticket.map(|ticket| (due.at, ticket)));
                }
                Err(refusal) => {
                    self.end.refused += 1;
                    self.end.first_refusal.get_or_insert(refusal);
                }
            }
            if is_last_of_edge {
                gathering = None;
            }
            // Passed on when the edge is through: the collector would take the core from the messages that are still due.
            if is_last_of_edge || TICKETS_TOGETHER_MAX <= tickets.len() {
                self.pass_on(&mut tickets);
            }
        }
        self.pass_on(&mut tickets);
        self.end.lateness = self.pacer.lateness().clone();
        // Before tickets end: who records them looks at the last slice then.
        (self.end.slices, self.end.late) = self.judge.finish();
        self.end.stolen = stolen::since(stolen_before);
        self.end
    }

    fn pass_on(&self, gathered: &mut Vec<Sent>) {
        if let Some(tickets) = &self.tickets
            && !gathered.is_empty()
        {
            // The collector listens until the last sender is gone.
            let _always_heard = tickets.send(std::mem::take(gathered));
        }
    }

    /// Sends at once; waits for room when the buffer is full, which is the broker's lateness and not the generator's.
    fn send(&mut self, topic: usize, record: Record<'_>, runtime: &Handle) -> Result<Option<Ticket>, String> {
        let producer = &self.producers[topic];
        let is_asked = self.tickets.is_some();
        let sent =
            if is_asked { producer.send(record).map(Some) } else { producer.send_detached(record).map(|()| None) };
        match sent {
            Ok(ticket) => Ok(ticket),
            Err(SendError::Full(record)) => {
                let permit = runtime.block_on(producer.reserve(&record));
                self.pacer.excuse();
                let sent =
                    if is_asked { permit.send(record).map(Some) } else { permit.send_detached(record).map(|()| None) };
                sent.map_err(|error| error.to_string())
            }
            Err(error @ SendError::Refused(_)) => Err(error.to_string()),
        }
    }
}
