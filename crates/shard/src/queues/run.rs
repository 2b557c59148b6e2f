//! Requests at the home of their queue.

use std::collections::BTreeMap;

use corelane_model::{ErrorCode, MemberId, Now, Offset, PartitionIndex, QueueSettings, QueueWish, TopicId, TopicName};
use corelane_queue::{Join, LeaseRun, Queue, QueueError, QueueName, RedriveAt, RequestTicket, Restore, Verdict};
use corelane_session::{MemberCredit, QueueAsk, QueueJoinAsk, QueueTopic, Refused};
use corelane_wire::LeaseRange;

use super::home::{Asked, Broken, Homed};
use super::{QueueKey, QueueRequest};
use crate::Shard;
use crate::ask::Asker;
use crate::groups::{HomePhase, HomeRequest, Remains};

/// Queues that have one home; more are refused.
const HOME_QUEUES_MAX: usize = 4096;

/// A queue that may be asked.
struct Admitted {
    name: QueueName,
    /// It was made for this request, and nothing of it was written.
    is_made: bool,
}

impl Shard {
    /// Takes in a request for a queue whose home is here.
    pub(crate) fn run_queue(&mut self, request: QueueRequest) {
        let home = request.group.home();
        let request = match self.groups.home_phase(home) {
            Some(HomePhase::Restoring(restoring)) => match restoring.hold(HomeRequest::Queue(request)) {
                Some(HomeRequest::Queue(request)) => request,
                Some(HomeRequest::Group(_)) | None => return,
            },
            _ => request,
        };
        let admitted = match self.admit_queue(home, &request) {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.hear_queue_member(home, &request);
                return self.refuse_queue(&request, refused);
            }
        };
        if let QueueAsk::Describe { .. } = request.ask {
            return self.describe_queue(home, &admitted.name, &request);
        }
        self.run_queue_ticketed(home, admitted, &request);
    }

    /// Who speaks lives, also when what it says is refused.
    fn hear_queue_member(&mut self, home: PartitionIndex, request: &QueueRequest) {
        let now = self.now;
        let (Some(member), QueueTopic::Id(topic)) = (request.ask.member(), &request.topic) else { return };
        let name = QueueName { group: request.group.clone(), topic: *topic };
        let homed = self.groups.queues_of(home).and_then(|queues| queues.by_name.get_mut(&name));
        if let Some(homed) = homed {
            homed.queue.hear_of(now, member);
        }
    }

    /// Everything that stands against a request before its queue is asked; a queue is made for those that may.
    fn admit_queue(&mut self, home: PartitionIndex, request: &QueueRequest) -> Result<Admitted, Refused> {
        if let Some(refused) = self.refuse_phase() {
            return Err(refused);
        }
        match request.ask {
            // Nobody answers it, so nobody would say it again.
            QueueAsk::Credit { .. } => self.groups.check_open(home)?,
            _ => self.groups.check_home(home)?,
        }
        let group = &request.group;
        if self.groups.has_group(home, group) {
            let text = format!("the name {group} is in use as a consumer group; a shared queue needs another");
            return Err(Refused::new(ErrorCode::QueueIsGroup, text));
        }
        let topic = self.topic_of_queue(request)?;
        let name = QueueName { group: group.clone(), topic };
        self.check_dead_letter(topic, wish_of(&request.ask))?;
        let queues = self.groups.queues_of(home).expect("the home was just checked");
        if let Some(broken) = queues.broken.get(&name) {
            let QueueAsk::Delete { .. } = request.ask else { return Err(broken.refused.clone()) };
            self.raise_remains(home, &name);
            return Ok(Admitted { name, is_made: false });
        }
        match (queues.by_name.contains_key(&name), &request.ask) {
            (true, _) => Ok(Admitted { name, is_made: false }),
            (false, QueueAsk::Join(_)) if HOME_QUEUES_MAX <= queues.by_name.len() => {
                let text = format!("the home of group {group} keeps {HOME_QUEUES_MAX} queues already");
                Err(Refused::new(ErrorCode::LimitReached, text))
            }
            (false, QueueAsk::Join(join)) => self.make_queue(home, name, join),
            (false, _) if request.ask.member().is_some() => {
                let topic = self.name_of_topic(topic);
                let text = format!(
                    "there is no shared queue of group {group} on topic {topic}, so nobody is a member of it; join it first"
                );
                Err(Refused::new(ErrorCode::UnknownQueueMember, text))
            }
            (false, _) => {
                let topic = self.name_of_topic(topic);
                let text =
                    format!("there is no shared queue of group {group} on topic {topic}; the first member makes it");
                Err(Refused::new(ErrorCode::UnknownQueue, text))
            }
        }
    }

    fn topic_of_queue(&self, request: &QueueRequest) -> Result<TopicId, Refused> {
        let name = match &request.topic {
            QueueTopic::Id(id) => return Ok(*id),
            QueueTopic::Name(name) => name,
        };
        let catalog = self.catalog.as_ref().expect("homes are opened when the catalog is known");
        match catalog.find(name).filter(|topic| !topic.name.is_internal()) {
            Some(topic) => Ok(topic.id),
            None => Err(Refused::new(ErrorCode::UnknownTopic, format!("there is no topic {name}"))),
        }
    }

    /// A dead-letter topic has to be there, and another than the queue's own.
    fn check_dead_letter(&self, topic: TopicId, wish: Option<&QueueWish>) -> Result<(), Refused> {
        let Some(name) = wish.and_then(|wish| wish.dead_letter.as_ref()) else { return Ok(()) };
        let catalog = self.catalog.as_ref().expect("homes are opened when the catalog is known");
        match catalog.find(name.as_str()).filter(|topic| !topic.name.is_internal()) {
            Some(found) if found.id == topic => {
                let text = format!("topic {name} cannot take the dead letters of a queue that consumes it");
                Err(Refused::new(ErrorCode::InvalidSetting, text))
            }
            Some(_) => Ok(()),
            None => {
                Err(Refused::new(ErrorCode::UnknownTopic, format!("there is no dead-letter topic {name}; create it")))
            }
        }
    }

    fn make_queue(&mut self, home: PartitionIndex, name: QueueName, join: &QueueJoinAsk) -> Result<Admitted, Refused> {
        let catalog = self.catalog.as_ref().expect("homes are opened when the catalog is known");
        let Some(topic) = catalog.topic(name.topic) else {
            return Err(Refused::new(ErrorCode::UnknownTopic, format!("there is no topic with id {}", name.topic)));
        };
        let (topic, partitions) = (topic.name.clone(), topic.partition_count());
        let settings = QueueSettings::default().with(&join.wish);
        let serial = self.groups.ticket();
        let queue = Queue::new(name.clone(), settings, partitions, join.start, serial)
            .map_err(|error| Refused::new(error.code(), error.to_string()))?;
        let queues = self.groups.queues_of(home).expect("the home was just checked");
        queues.insert(&name, Homed::new(queue, serial, topic));
        Ok(Admitted { name, is_made: true })
    }

    fn run_queue_ticketed(&mut self, home: PartitionIndex, admitted: Admitted, request: &QueueRequest) {
        let Admitted { name, is_made } = admitted;
        let ticket = RequestTicket(self.groups.ticket());
        let now = self.now;
        let queues = self.groups.queues_of(home).expect("the request was admitted");
        let homed = queues.by_name.get_mut(&name).expect("the request was admitted");
        let key = QueueKey { home, name, serial: homed.serial };
        match run(&mut homed.queue, now, ticket, request) {
            Ok(joined) => {
                note_speaker(&mut homed.speakers, request);
                if request.ask.is_answered() {
                    homed.asked.insert(ticket, Asked { asker: request.asker, joined });
                }
                // What is answered at once, or asks for something, goes on its way in this round.
                self.touch_queue(&key);
            }
            Err(error) => {
                let refused = Refused::new(error.code(), error.to_string());
                self.hear_queue_member(home, request);
                if is_made {
                    self.groups.queues_of(home).expect("it was just there").remove(&key.name);
                }
                self.refuse_queue(request, refused);
            }
        }
    }

    /// The queues of a home's log, and those whose records cannot be read, with why.
    pub(crate) fn restore_queues(
        &mut self,
        home: PartitionIndex,
        restores: BTreeMap<QueueName, Restore>,
        broken: BTreeMap<QueueName, Remains>,
    ) {
        for (name, Remains { why, keys }) in broken {
            let topic = self.name_of_topic(name.topic);
            let text = format!(
                "the shared queue of group {} on topic {topic} cannot be read: {why}; deleted, it can be made anew",
                name.group
            );
            let refused = Refused::new(ErrorCode::CorruptLog, text);
            let broken = Broken { why, refused, keys: keys.into_iter().collect() };
            let queues = self.groups.queues_of(home).expect("it is being restored");
            queues.broken.insert(name, broken);
            queues.are_stale = true;
        }
        for (name, restore) in restores {
            if restore.is_nothing() {
                continue;
            }
            let found = self.catalog.as_ref().and_then(|catalog| catalog.topic(name.topic));
            let partitions = found.map_or(0, corelane_catalog::Topic::partition_count);
            let topic = topic_name(found);
            let serial = self.groups.ticket();
            let queue = restore.finish(partitions, serial);
            let queues = self.groups.queues_of(home).expect("it is being restored");
            queues.insert(&name, Homed::new(queue, serial, topic));
            // The topic may have gone while nobody looked.
            queues.are_stale = true;
        }
        self.is_storage_touched = true;
    }

    /// Makes a queue of what is left of one that cannot be read, only for it to be deleted in the same round.
    pub(super) fn raise_remains(&mut self, home: PartitionIndex, name: &QueueName) {
        let topic = topic_name(self.catalog.as_ref().and_then(|catalog| catalog.topic(name.topic)));
        let serial = self.groups.ticket();
        let queues = self.groups.queues_of(home).expect("a queue of it is broken");
        let Some(broken) = queues.broken.remove(name) else { return };
        let queue = Queue::remains(name.clone(), broken.keys, serial);
        queues.insert(name, Homed::new(queue, serial, topic));
    }
}

fn topic_name(found: Option<&corelane_catalog::Topic>) -> TopicName {
    found.map_or_else(|| TopicName::parse("gone").expect("it is a good name"), |topic| topic.name.clone())
}

const fn wish_of(ask: &QueueAsk) -> Option<&QueueWish> {
    match ask {
        QueueAsk::Join(join) => Some(&join.wish),
        QueueAsk::Alter { wish } => Some(wish),
        _ => None,
    }
}

/// Where a member is sent its records from now on.
fn note_speaker(speakers: &mut BTreeMap<MemberId, crate::ask::Peer>, request: &QueueRequest) {
    let Some(member) = request.ask.member() else { return };
    let Asker { peer, .. } = request.asker;
    if let QueueAsk::Leave { .. } = request.ask {
        speakers.remove(&member);
    } else {
        speakers.insert(member, peer);
    }
}

pub(super) fn runs_of(leases: &[LeaseRange]) -> Vec<LeaseRun> {
    let run = |range: &LeaseRange| LeaseRun {
        partition: PartitionIndex(range.partition),
        first: Offset(range.first),
        count: range.count,
        attempt: range.attempt,
    };
    leases.iter().map(run).collect()
}

/// Asks the queue itself. The session time-out in milliseconds, of a join.
fn run(queue: &mut Queue, now: Now, ticket: RequestTicket, request: &QueueRequest) -> Result<Option<u32>, QueueError> {
    let more = |queue: &mut Queue, member: MemberId, credit: MemberCredit| {
        queue.credit(now, member, credit.records, credit.bytes)
    };
    match &request.ask {
        QueueAsk::Join(join) => {
            let timeout = join.session_timeout;
            queue.join(now, ticket, join_of(join, &request.client))?;
            return Ok(Some(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)));
        }
        QueueAsk::Credit { member, credit } => more(queue, *member, *credit)?,
        QueueAsk::Acknowledge { member, leases, processing_micros, credit } => {
            queue.acknowledge(now, ticket, *member, &runs_of(leases), *processing_micros)?;
            more(queue, *member, *credit)?;
        }
        QueueAsk::Reject { member, leases, delay, is_dead, reason, credit } => {
            let verdict = if *is_dead { Verdict::Dead } else { Verdict::Retry(*delay) };
            queue.reject(now, ticket, *member, &runs_of(leases), verdict, reason)?;
            more(queue, *member, *credit)?;
        }
        QueueAsk::Extend { member, leases, lease } => {
            queue.extend(now, ticket, *member, &runs_of(leases), *lease)?;
        }
        QueueAsk::Leave { member } => queue.leave(now, ticket, *member)?,
        QueueAsk::Alter { wish } => queue.alter(ticket, wish)?,
        QueueAsk::Delete { is_forced } => queue.delete(now, ticket, *is_forced)?,
        QueueAsk::Redrive { most, partition, end } => {
            queue.redrive(ticket, *most, RedriveAt { partition: *partition, end: *end })?;
        }
        QueueAsk::Describe { .. } => unreachable!("questions take no ticket"),
    }
    Ok(None)
}

fn join_of(join: &QueueJoinAsk, client: &str) -> Join {
    Join {
        member: join.member,
        client: client.to_owned(),
        weight: join.weight,
        session_timeout: join.session_timeout,
        wish: join.wish.clone(),
        credit_records: join.credit.records,
        credit_bytes: join.credit.bytes,
    }
}
