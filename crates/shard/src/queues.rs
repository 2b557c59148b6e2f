//! Shared queues: their requests on the way home, and the queues of the homes of this shard.
//!
//! A queue lives with its group's home partition, beside consumer groups. All decisions are made by
//! [`corelane_queue::Queue`]; here its requests, records, timers and members meet the shard:
//!
//! ```text
//!  a connection's shard          the home's shard                              a partition's owner
//!   request ── route ──mesh──▶ run ─▶ Queue ─▶ records ─▶ home's log            subscriptions, dead letters
//!      ▲                        │  ▲ └───── reads, appends ─────mesh──────────────▶ │
//!      └── answers, records ────┘  └────────────── batches, outcomes ◀──────────────┘
//! ```
//!
//! To the owners of partitions, the queues of a shard are one more connection of it, [`INSIDE`]: they subscribe, ask for
//! offsets and append as any client does, and what would be sent to that connection comes back here.
//!
//! - `route`: from a connection to the home. `run`: requests there. `home`: a queue and who talks to it.
//! - `round`: what a round does for the queues of a home. `tell`: answers and frames.
//! - `reading`: subscriptions to data partitions. `held`: batches that were read, and records out of them.
//! - `letters`: dead letters on their way. `redrive`: and back. `describe`, `list`, `status`: for people.

mod describe;
mod held;
mod home;
mod letters;
mod list;
mod reading;
mod redrive;
mod round;
mod route;
mod run;
mod status;
mod tell;

use std::collections::BTreeMap;

use corelane_model::{ConnectionKey, GroupName, MonotonicNanos, PartitionIndex};
use corelane_queue::{QueueName, QueueStats};
use corelane_session::{QueueAsk, QueueTopic};

pub(crate) use describe::fill_in_queue;
pub(crate) use home::{Broken as BrokenQueue, Homed, QueuesOfHome};
pub(crate) use list::Listed;
pub(crate) use tell::QueueAnswer;

use crate::ask::Asker;
use letters::Letters;
use list::Lists;
use reading::{Question, ReaderOf};
use redrive::Redrives;

/// The connection by which the queues of a shard speak to the owners of partitions. No client's has this key.
pub(crate) const INSIDE: ConnectionKey = ConnectionKey(u64::MAX);

/// A request for a queue on its way home.
#[derive(Debug)]
pub(crate) struct QueueRequest {
    pub(crate) asker: Asker,
    pub(crate) group: GroupName,
    pub(crate) topic: QueueTopic,
    /// What the client calls itself; only with a join.
    pub(crate) client: Box<str>,
    pub(crate) ask: QueueAsk,
}

/// A queue, and the home that it is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    home: PartitionIndex,
    name: QueueName,
    /// Which life of the name it is.
    serial: u64,
}

/// What the queues of a shard wait for from the owners of partitions.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// Subscriptions, by id.
    readers: BTreeMap<u64, ReaderOf>,
    /// Questions for offsets, by correlation id.
    questions: BTreeMap<u64, Question>,
    letters: Letters,
    redrives: Redrives,
    lists: Lists,
    /// Counters of queues that are gone.
    retired: QueueStats,
    last_id: u64,
}

impl Queues {
    /// When the queues want a round even if nothing happens, beside their own deadlines.
    pub(crate) fn deadline(&self) -> Option<MonotonicNanos> {
        let again = self.letters.again.front().map(|again| again.at);
        [again, self.lists.deadline()].into_iter().flatten().min()
    }

    /// Everybody who waits for a list; nobody does afterwards.
    pub(crate) fn take_list_askers(&mut self) -> impl Iterator<Item = Asker> + use<> {
        self.lists.take_askers()
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}
