//! Where a request for a partition goes: here, next door, or on the bench until the catalog is newer.

use std::collections::VecDeque;
use std::time::Duration;

use corelane_model::{ErrorCode, MonotonicNanos, PartitionId, ShardId, SubscriptionId};
use corelane_session::Refused;

use crate::Shard;
use crate::ask::{Ask, Asker, Outcome, PartitionRequest, Peer};
use crate::mesh::Message;
use crate::produce::bytes_of;

/// How long a request waits for a catalog that knows its topic: long beside a sync and a message, short for a person.
const CATALOG_WAIT: Duration = Duration::from_millis(250);
/// Requests that wait for a newer catalog at once; more are refused.
const PARKED_MAX: usize = 4096;
/// Bytes of batches that wait at once.
const PARKED_BYTES_MAX: u64 = 16 << 20;

/// Requests for topics or partitions that this shard has not heard of but that may exist already: another shard may have
/// applied a change that is still on its way here.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    /// In the order of arrival and thus of their deadlines.
    requests: VecDeque<(MonotonicNanos, PartitionRequest)>,
    /// Bytes of their batches.
    bytes: u64,
}

impl Parked {
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn deadline(&self) -> Option<MonotonicNanos> {
        self.requests.front().map(|(deadline, _)| *deadline)
    }

    fn has_room(&self, request: &PartitionRequest) -> bool {
        self.requests.len() < PARKED_MAX && self.bytes + bytes_of(request) <= PARKED_BYTES_MAX
    }

    fn push_back(&mut self, deadline: MonotonicNanos, request: PartitionRequest) {
        self.bytes += bytes_of(&request);
        self.requests.push_back((deadline, request));
    }

    fn pop_front(&mut self) -> Option<(MonotonicNanos, PartitionRequest)> {
        let (deadline, request) = self.requests.pop_front()?;
        self.bytes -= bytes_of(&request);
        Some((deadline, request))
    }

    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = PartitionRequest> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.requests).into_iter().map(|(_, request)| request)
    }

    /// Drops what a connection asked that is gone.
    pub(crate) fn forget(&mut self, peer: Peer) {
        let Self { requests, bytes } = self;
        requests.retain(|(_, request)| {
            let stays = request.asker.peer != peer;
            *bytes -= if stays { 0 } else { bytes_of(request) };
            stays
        });
    }

    /// Takes out the subscribe of that subscription, if it waits here.
    pub(crate) fn take_subscribe(&mut self, peer: Peer, wanted: SubscriptionId) -> Option<PartitionRequest> {
        let at = self.requests.iter().position(|(_, request)| {
            request.asker.peer == peer
                && matches!(request.ask, Ask::Subscribe { subscription, .. } if subscription == wanted)
        })?;
        self.requests.remove(at).map(|(_, request)| request)
    }
}

/// Where a partition is.
enum Place {
    Owner(ShardId),
    /// Neither in this catalog nor known to have gone: it may come.
    Later(Refused),
    Nowhere(Refused),
}

impl Shard {
    /// Fulfils, forwards, parks or refuses a request for a partition.
    pub(crate) fn route(&mut self, request: PartitionRequest) {
        if let Some(refused) = self.refuse_ask(&request.ask) {
            return self.refuse_request(request, refused);
        }
        match self.locate(request.partition) {
            Place::Owner(owner) if owner == self.me() => self.fulfil(request),
            Place::Owner(owner) => self.forward(owner, request),
            Place::Later(refused) if self.parked.has_room(&request) => {
                drop(refused);
                let deadline = self.now.monotonic.after(CATALOG_WAIT);
                self.parked.push_back(deadline, request);
            }
            Place::Later(refused) | Place::Nowhere(refused) => self.refuse_request(request, refused),
        }
    }

    /// Tries the parked requests again, after the catalog changed.
    pub(crate) fn route_parked(&mut self) {
        for (deadline, request) in std::mem::take(&mut self.parked).requests {
            match self.locate(request.partition) {
                Place::Later(_) => self.parked.push_back(deadline, request),
                Place::Owner(_) | Place::Nowhere(_) => self.route(request),
            }
        }
    }

    pub(crate) fn expire_parked(&mut self) {
        while let Some((deadline, _)) = self.parked.requests.front()
            && *deadline <= self.now.monotonic
        {
            let (_, request) = self.parked.pop_front().expect("it was there");
            match self.locate(request.partition) {
                Place::Later(refused) | Place::Nowhere(refused) => self.refuse_request(request, refused),
                // A shard that is drained opens nothing more and leaves what waits to its time.
                Place::Owner(_) => self.route(request),
            }
        }
    }

    /// Refuses a request in the way that its kind is answered.
    pub(crate) fn refuse_request(&mut self, request: PartitionRequest, refused: Refused) {
        let PartitionRequest { asker, ask, .. } = request;
        match ask {
            Ask::Append { batch, .. } => {
                self.send_outcome(asker, batch.bytes().len() as u64, Err(Box::new(refused)), false);
            }
            Ask::Subscribe { subscription, serial, .. } => {
                self.refuse(asker, Some((subscription, serial)), refused);
            }
            Ask::Find { .. } | Ask::Truncate { .. } => self.refuse(asker, None, refused),
        }
    }

    /// Tells the outcome of an append, here or through the shard that the asker is on; `is_end_due` says that its durable
    /// end is to follow.
    pub(crate) fn send_outcome(&mut self, asker: Asker, batch_bytes: u64, outcome: Outcome, is_end_due: bool) {
        let Asker { peer: Peer { shard, connection }, correlation } = asker;
        if shard == self.me() {
            self.tell_outcome(connection, correlation, batch_bytes, &outcome, is_end_due);
        } else {
            self.send_mesh(shard, Message::Outcome { connection, correlation, batch_bytes, outcome, is_end_due });
        }
    }

    /// Records and changes are not taken while the shard drains; what is there can be read to the end.
    fn refuse_ask(&self, ask: &Ask) -> Option<Refused> {
        let refused = self.refuse_phase()?;
        match ask {
            Ask::Append { .. } | Ask::Truncate { .. } => Some(refused),
            Ask::Find { .. } | Ask::Subscribe { .. } => (refused.code == ErrorCode::Recovering).then_some(refused),
        }
    }

    fn locate(&self, partition: PartitionId) -> Place {
        let Some(catalog) = &self.catalog else {
            // A drain may come before the catalog.
            return Place::Nowhere(Refused::new(ErrorCode::Recovering, "the shard has not heard of the catalog yet"));
        };
        let PartitionId { topic: id, index } = partition;
        let Some(topic) = catalog.topic(id) else {
            let refused = Refused::new(ErrorCode::UnknownTopic, format!("there is no topic with id {id}"));
            return if catalog.next_topic() <= id { Place::Later(refused) } else { Place::Nowhere(refused) };
        };
        if topic.name.is_internal() {
            let text = format!("topic {} is the broker's own; it can be neither written nor read", topic.name);
            return Place::Nowhere(Refused::new(ErrorCode::Forbidden, text));
        }
        match topic.shards.get(index.0 as usize) {
            Some(&owner) => Place::Owner(owner),
            None => {
                let text = format!("topic {} has partitions 0 to {}", topic.name, topic.partition_count() - 1);
                Place::Later(Refused::new(ErrorCode::UnknownPartition, text))
            }
        }
    }

    fn forward(&mut self, owner: ShardId, request: PartitionRequest) {
        let Peer { shard, connection } = request.asker.peer;
        assert_eq!(shard, self.me(), "partition {} has two owners", request.partition);
        self.stats.forwards += 1;
        if let Ask::Subscribe { subscription, .. } = request.ask
            && let Some(state) = self.connections.get_mut(&connection)
        {
            // The owner keeps something for the connection and must hear when it goes, or takes nothing more.
            state.known_to.insert(owner);
            state.session.move_subscription(subscription, owner);
            if state.is_congested {
                self.send_mesh(owner, Message::Congested { connection });
            }
        }
        self.send_mesh(owner, Message::Request(Box::new(request)));
    }

    fn fulfil(&mut self, request: PartitionRequest) {
        let PartitionRequest { asker, partition, .. } = request;
        match request.ask {
            Ask::Append { .. } => self.append(request),
            Ask::Find { start, isolation } => self.find_offset(asker, partition, start, isolation),
            Ask::Truncate { before } => self.truncate(asker, partition, before),
            Ask::Subscribe { subscription, serial, start, credit, isolation } => {
                self.subscribe(asker, partition, (subscription, serial), start, (credit, isolation));
            }
        }
    }
}
