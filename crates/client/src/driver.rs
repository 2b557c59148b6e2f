//! The task that owns the sending side of all connections and the clock.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use corelane_model::{ConnectionKey, MonotonicNanos};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::link::{self, ConnectionIo};
use crate::shared::{Outbox, Shared};

/// Goes round when it is woken or a deadline is due: ends the machine's round, writes what the streams take, starts
/// connections. Ends when the client is closed.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    connections: BTreeMap<ConnectionKey, ConnectionIo>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, connections: BTreeMap::new(), sleep: None }
    }

    fn round(&mut self, context: &mut Context<'_>) {
        self.shared.begin_round();
        let mut inner = self.shared.lock();
        let now = inner.clock.now();
        inner.core.finish_round(now);
        let words = self.shared.collect(&mut inner);
        let outbox = std::mem::take(&mut inner.outbox);
        drop(inner);
        self.shared.say(words);
        self.carry_out(outbox);
        self.connections.values_mut().for_each(|connection| connection.poll_write(context));
    }

    fn carry_out(&mut self, outbox: Outbox) {
        for (key, io) in outbox.established {
            self.connections.insert(key, io);
        }
        for (key, stream, frame) in outbox.frames {
            if let Some(connection) = self.connections.get_mut(&key) {
                connection.queue(stream, frame);
            }
        }
        for (key, code, reason) in outbox.closes {
            if let Some(mut connection) = self.connections.remove(&key) {
                connection.close(code, &reason);
            }
        }
        for (key, shard) in outbox.connects {
            tokio::spawn(link::run(Arc::clone(&self.shared), key, shard));
        }
        self.connections.retain(|_, connection| !connection.is_closed());
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            self.round(context);
            let shared = Arc::clone(&self.shared);
            let mut inner = shared.lock();
            if inner.is_closed {
                return Poll::Ready(());
            }
            let deadline = inner.core.next_deadline();
            if !shared.may_sleep(&mut inner, context.waker(), deadline) {
                continue;
            }
            drop(inner);
            let Some(deadline) = deadline else {
                self.sleep = None;
                return Poll::Pending;
            };
            if deadline == MonotonicNanos::default() {
                // There is more to send. The connections' own tasks take what was written first.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let moment = Instant::from_std(shared.instant(deadline));
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(moment)));
            if sleep.deadline() != moment {
                sleep.as_mut().reset(moment);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
        }
    }
}
