//! From a connection to the home of a queue.

use corelane_model::ErrorCode;
use corelane_queue::QueueName;
use corelane_session::{QueueAsk, QueueRequest as Requested, QueueTopic, Refused};

use super::QueueRequest;
use super::tell::fenced;
use crate::Shard;
use crate::ask::{Asker, Peer};
use crate::groups::HomeRequest;
use crate::mesh::Message;

impl Shard {
    /// A request of a connection here.
    pub(crate) fn handle_queue(&mut self, peer: Peer, requested: Requested) {
        let Requested { correlation, group, topic, ask } = requested;
        let client = match &ask {
            QueueAsk::Join(_) => {
                self.connections.get(&peer.connection).and_then(|state| state.session.client()).map(|(_, name)| name)
            }
            _ => None,
        };
        let client = client.unwrap_or_default().into();
        self.route_queue(QueueRequest { asker: Asker { peer, correlation }, group, topic, client, ask });
    }

    /// Runs, forwards, holds back or refuses a request for a queue.
    pub(crate) fn route_queue(&mut self, request: QueueRequest) {
        if let Some(refused) = self.refuse_phase() {
            return self.refuse_queue(&request, refused);
        }
        match self.home_owner(&request.group) {
            Some(owner) if owner == self.me() => self.run_queue(request),
            Some(owner) => {
                assert_eq!(request.asker.peer.shard, self.me(), "the home of group {} has two owners", request.group);
                self.stats.forwards += 1;
                self.send_mesh(owner, Message::Queue(Box::new(request)));
            }
            None if matches!(request.ask, QueueAsk::Join(_)) || self.may_be_behind(request.ask.member()) => {
                self.hold_back(HomeRequest::Queue(request));
            }
            None => {
                let text = format!("there is no shared queue of group {}", request.group);
                self.refuse_queue(&request, Refused::new(ErrorCode::UnknownQueue, text));
            }
        }
    }

    /// Refuses a request for a queue in the way that its kind is answered.
    pub(crate) fn refuse_queue(&mut self, request: &QueueRequest, refused: Refused) {
        if request.ask.is_answered() {
            return self.refuse(request.asker, None, refused);
        }
        // What is not answered is not refused either; but a member that is none has to hear of it.
        let is_no_member = matches!(refused.code, ErrorCode::UnknownQueueMember | ErrorCode::UnknownQueue);
        if let (Some(member), QueueTopic::Id(topic), true) = (request.ask.member(), &request.topic, is_no_member) {
            let name = QueueName { group: request.group.clone(), topic: *topic };
            self.notify_member(request.asker.peer, fenced(&name, member, 3, refused.text));
        }
    }
}
