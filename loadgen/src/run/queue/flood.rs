//! The thread of a closed run: sends as fast as messages are done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use corelane::{Client, PartitionIndex, Producer, Record, SendError};
use corelane_model::MonotonicNanos;
use tokio::runtime::Handle;

use crate::plan::StreamPlan;
use crate::run::Counts;
use crate::run::sender::SenderEnd;
use crate::scenario::queue::stream_of;
use crate::stamp::{Stamp, write_message};
use crate::stolen;

/// Messages that were sent and are not done; no more leave before.
const WINDOW: u64 = 32_768;
/// Messages that leave together.
const TOGETHER: u64 = 256;
/// How long it waits before it looks again whether messages are done.
const PAUSE: Duration = Duration::from_micros(100);

/// A producer that keeps a fixed number of messages under way.
pub(super) struct Flood {
    pub(super) origin: Instant,
    pub(super) duration: Duration,
    pub(super) client: Client,
    pub(super) producer: Producer,
    pub(super) streams: Vec<StreamPlan>,
    pub(super) size: u32,
    pub(super) counts: Arc<Counts>,
}

impl Flood {
    /// Sends until the time is over. A message is due when it is handed over.
    pub(super) fn run(self, runtime: &Handle) -> SenderEnd {
        let stolen_before = stolen::stolen();
        let mut end = SenderEnd { sent: vec![0; self.streams.len()], ..SenderEnd::default() };
        let streams = u32::try_from(self.streams.len()).expect("a run has fewer streams");
        let mut message = Vec::new();
        let mut sent = 0_u64;
        end.first_due = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        while self.origin.elapsed() < self.duration && !self.counts.is_stopped.load(Ordering::Relaxed) {
            if self.counts.consumed.load(Ordering::Relaxed) + WINDOW < sent + TOGETHER {
                thread::sleep(PAUSE);
                continue;
            }
            let gathering = self.client.gather();
            let due = MonotonicNanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
            for _ in 0..TOGETHER {
                let stream = stream_of(sent, streams);
                let number = &mut end.sent[stream.0 as usize];
                write_message(&mut message, stream, Stamp { sequence: *number, due }, self.size as usize);
                let key = stream.to_key();
                let partition = PartitionIndex(self.streams[stream.0 as usize].partition);
                match self.send(Record::new(&message).key(&key).partition(partition), runtime) {
                    Ok(()) => *number += 1,
                    Err(refusal) => {
                        end.refused += 1;
                        end.first_refusal.get_or_insert(refusal);
                    }
                }
                sent += 1;
            }
            drop(gathering);
            self.counts.sent.store(sent, Ordering::Relaxed);
        }
        end.stolen = stolen::since(stolen_before);
        end
    }

    fn send(&self, record: Record<'_>, runtime: &Handle) -> Result<(), String> {
        match self.producer.send_detached(record) {
            Ok(()) => Ok(()),
            Err(SendError::Full(record)) => {
                let permit = runtime.block_on(self.producer.reserve(&record));
                permit.send_detached(record).map_err(|error| error.to_string())
            }
            Err(error @ SendError::Refused(_)) => Err(error.to_string()),
        }
    }
}
