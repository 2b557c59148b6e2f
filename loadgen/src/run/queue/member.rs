//! One member of a queue: a connection of its own, says of each record by itself what became of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use corelane::{Client, Leased, Nack, QueueConsumer, VerdictTicket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::judge::{Judge, Message, Say};
use crate::run::Counts;

/// A member.
pub(super) struct QueueMember {
    pub(super) client: Client,
    pub(super) consumer: QueueConsumer,
    pub(super) judge: Arc<Judge>,
    pub(super) counts: Arc<Counts>,
}

/// What a member found.
#[derive(Debug, Default)]
pub(super) struct MemberEnd {
    pub(super) handed_out: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

impl MemberEnd {
    fn fail(&mut self, error: &impl std::fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

/// What was said of records that came together.
struct Said {
    at: Instant,
    words: Vec<(VerdictTicket, Say, Message)>,
}

impl QueueMember {
    /// Works until it is told to stop.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> MemberEnd {
        let mut end = MemberEnd::default();
        let (said, answers) = unbounded_channel();
        let collector = tokio::spawn(collect(answers, Arc::clone(&self.judge), Arc::clone(&self.counts)));
        loop {
            let next = tokio::select! {
                biased;
                next = self.consumer.next() => next,
                _ = stop.changed() => break,
            };
            match next {
                Some(Ok(leased)) => {
                    end.handed_out += leased.len() as u64;
                    self.work(&leased, &said);
                }
                Some(Err(error)) => end.fail(&error),
                None => break,
            }
        }
        drop(said);
        if let Err(error) = self.consumer.close().await {
            end.fail(&error);
        }
        if let Err(error) = collector.await {
            end.fail(&error);
        }
        self.client.close().await;
        end
    }

    fn work(&self, leased: &Leased, said: &UnboundedSender<Said>) {
        let mut words = Vec::with_capacity(leased.len());
        let mut sitting = self.judge.sit();
        let at = Instant::now();
        for record in leased {
            let (say, message) = sitting.on_handed_out(record.key, record.value);
            let ticket = match say {
                Say::Ack => self.consumer.ack(record.lease),
                Say::Nack => self.consumer.nack(record.lease, Nack::because("the run wants it so")),
            };
            words.extend(message.map(|message| (ticket, say, message)));
        }
        drop(sitting);
        // The collector listens until the member is gone.
        let _always_heard = said.send(Said { at, words });
    }
}

/// Waits for every answer in the order of speaking, until the member is gone.
async fn collect(mut queue: UnboundedReceiver<Said>, judge: Arc<Judge>, counts: Arc<Counts>) {
    while let Some(Said { at, words }) = queue.recv().await {
        let Some((last, ..)) = words.last() else { continue };
        // Words are settled in their order: when the last one is, all are. Each is asked below, this one too.
        let _asked_below = last.durable().await;
        let waited = u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut sitting = judge.sit();
        let mut acknowledged = 0;
        for (ticket, say, message) in words {
            match (ticket.try_durable(), say) {
                (Some(Ok(())), Say::Ack) => acknowledged += 1,
                (Some(Ok(())), Say::Nack) => {}
                (Some(Err(_)) | None, _) => sitting.on_refused(message),
            }
        }
        sitting.on_acknowledged(acknowledged, waited);
        drop(sitting);
        counts.consumed.fetch_add(acknowledged, Ordering::Relaxed);
    }
}

/// How long a member may be silent: longer than any run's pause, so that nobody is put out by a busy machine.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
