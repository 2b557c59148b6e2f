//! Raising a log start, and producer ids: small things that wait for the journal.

use corelane_model::{ErrorCode, Offset, PartitionId, ProducerEpoch, ProducerId};
use corelane_session::Refused;
use corelane_storage::ChangeTicket;
use corelane_wire::ProducerIdAnswer;

use crate::Shard;
use crate::ask::{Answer, Asker};

/// Clients that wait for a producer id at once; more are refused.
const PRODUCER_ASKERS_MAX: usize = 16_384;

impl Shard {
    /// Raises the log start of a partition of this shard; `None` up to the durable end.
    pub(crate) fn truncate(&mut self, asker: Asker, partition: PartitionId, before: Option<Offset>) {
        let Some(status) = self.storage.describe(partition) else {
            let text = format!("{} is not open on its shard", self.name_of_partition(partition));
            return self.refuse(asker, None, Refused::new(ErrorCode::UnknownPartition, text));
        };
        self.is_storage_touched = true;
        match self.storage.truncate(self.now, partition, before.unwrap_or(status.durable_end)) {
            Ok(ticket) => {
                self.truncations.insert(ticket, (asker, partition));
            }
            Err(error) => self.refuse(asker, None, Refused::new(error.code(), error.to_string())),
        }
    }

    pub(crate) fn on_truncated(&mut self, ticket: ChangeTicket, log_start: Offset) {
        // The topic may have been deleted meanwhile; then the asker has its answer.
        if let Some((asker, _)) = self.truncations.remove(&ticket) {
            self.answer(asker, None, Answer::Truncated { log_start });
        }
    }

    /// Answers with a new producer id, or with the next epoch of one that the client has.
    pub(crate) fn ask_producer_id(&mut self, asker: Asker, raise: Option<(ProducerId, ProducerEpoch)>) {
        if let Some(refused) = self.refuse_phase() {
            return self.refuse(asker, None, refused);
        }
        let session = self.session_of(asker.peer.connection);
        if let Some((producer, ProducerEpoch(epoch))) = raise
            && session.is_some_and(|session| self.seal.is_of(session, producer))
            && let Some(next) = epoch.checked_add(1)
        {
            return self.tell_producer_id(asker, producer, ProducerEpoch(next));
        }
        // An id whose epochs are used up is given up for a new one, and so is one that is another client's.
        if PRODUCER_ASKERS_MAX <= self.producer_askers.len() {
            let text = format!("{PRODUCER_ASKERS_MAX} clients wait for a producer id already");
            return self.refuse(asker, None, Refused::new(ErrorCode::Busy, text));
        }
        self.producer_askers.push_back(asker);
        self.hand_out_producer_ids();
    }

    /// Gives those who wait an id each, as far as the lease goes.
    pub(crate) fn hand_out_producer_ids(&mut self) {
        while !self.producer_askers.is_empty() {
            self.is_storage_touched = true;
            let Some(count) = self.storage.next_producer_id(self.now) else { return };
            let asker = self.producer_askers.pop_front().expect("it is not empty");
            if let Some(session) = self.session_of(asker.peer.connection) {
                self.tell_producer_id(asker, self.seal.seal(session, self.me(), count.0), ProducerEpoch(0));
            }
        }
    }

    fn tell_producer_id(&mut self, asker: Asker, producer: ProducerId, epoch: ProducerEpoch) {
        assert_eq!(asker.peer.shard, self.me(), "producer ids come from the shard that is asked");
        let Some(state) = self.connections.get_mut(&asker.peer.connection) else { return };
        let body = ProducerIdAnswer { producer: producer.0, epoch: epoch.0 };
        let frame = state.session.answer(asker.correlation, &body);
        self.send_control(asker.peer.connection, frame);
    }
}
