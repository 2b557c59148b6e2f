//! What reaches a shard from other threads: its neighbours and the supervisor.
//!
//! Each shard has one inbox for all of them, a bounded queue without locks, and a [`Bell`]. glommio's `shared_channel`
//! was tried first: it can only be looked at by registering a waker, once for each neighbour and look, which a shard that
//! goes round without parking would do a million times a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel};

use corelane_model::ShardId;
use corelane_model::limits::MESH_MESSAGES_MAX;
use corelane_shard::{AdminAnswer, AdminId, AdminQuery, MeshMessage};

use crate::bell::Bell;
use crate::stats::ReactorStats;

/// Something from another thread.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// What a neighbour's round had for this shard, in order.
    Mesh { from: ShardId, messages: Vec<MeshMessage> },
    /// A question of the supervisor; the answer goes to `reply`.
    Admin { id: AdminId, query: AdminQuery, reply: Sender<(ShardId, AdminAnswer)> },
    /// Asks for the reactor's own counters.
    Stats { reply: Sender<(ShardId, ReactorStats)> },
    /// Shut down in order.
    Drain,
    /// Close all connections and end.
    Stop,
}

/// A message that was not taken.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) message: Inbound,
    /// Whether the shard has ended; else its inbox is full.
    pub(crate) is_gone: bool,
}

/// The end of an inbox that others hold.
#[derive(Clone, Debug)]
pub(crate) struct Postbox {
    sender: SyncSender<Inbound>,
    bell: Arc<Bell>,
}

impl Postbox {
    /// Posts without waiting.
    ///
    /// # Errors
    /// The inbox is full or its shard is gone; the message comes back.
    pub(crate) fn post(&self, message: Inbound) -> Result<(), Refused> {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.bell.ring();
                Ok(())
            }
            Err(TrySendError::Full(message)) => Err(Refused { message, is_gone: false }),
            Err(TrySendError::Disconnected(message)) => Err(Refused { message, is_gone: true }),
        }
    }
}

/// The shard's end of its inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: Receiver<Inbound>,
    next: Option<Inbound>,
    pub(crate) bell: Arc<Bell>,
}

impl Inbox {
    pub(crate) fn take(&mut self) -> Option<Inbound> {
        self.next.take().or_else(|| self.receive())
    }

    /// Whether [`Self::take`] would yield something.
    pub(crate) fn has_news(&mut self) -> bool {
        if self.next.is_none() {
            self.next = self.receive();
        }
        self.next.is_some()
    }

    fn receive(&self) -> Option<Inbound> {
        self.receiver.try_recv().ok()
    }
}

/// An inbox and what others post to it with.
pub(crate) fn inbox() -> (Postbox, Inbox) {
    let (sender, receiver) = sync_channel(MESH_MESSAGES_MAX);
    let bell = Arc::new(Bell::default());
    (Postbox { sender, bell: Arc::clone(&bell) }, Inbox { receiver, next: None, bell })
}

/// What a round has for the neighbours: one post for each of them, however many messages.
#[derive(Debug)]
pub(crate) struct Outboxes {
    own: ShardId,
    neighbours: Vec<Postbox>,
    waiting: BTreeMap<ShardId, Vec<MeshMessage>>,
}

impl Outboxes {
    /// `neighbours` by shard id, this shard included.
    pub(crate) const fn new(own: ShardId, neighbours: Vec<Postbox>) -> Self {
        Self { own, neighbours, waiting: BTreeMap::new() }
    }

    pub(crate) fn push(&mut self, to: ShardId, message: MeshMessage) {
        assert!(usize::from(to.0) < self.neighbours.len(), "shard {to} does not exist");
        self.waiting.entry(to).or_default().push(message);
    }

    /// Posts what waits. What a full inbox does not take stays, in order, for the next time.
    pub(crate) fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (own, neighbours) = (self.own, &self.neighbours);
        self.waiting.retain(|to, messages| {
            let post = Inbound::Mesh { from: own, messages: std::mem::take(messages) };
            match neighbours[usize::from(to.0)].post(post) {
                Err(Refused { message: Inbound::Mesh { messages: kept, .. }, is_gone: false }) => {
                    *messages = kept;
                    true
                }
                _ => false,
            }
        });
    }

    /// Whether something waits for a neighbour that is behind.
    pub(crate) fn is_stuck(&self) -> bool {
        !self.waiting.is_empty()
    }
}
