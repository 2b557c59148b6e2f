//! What it costs a group of many members, and everybody else, that one more joins.
//!
//! One join would be over before a p99 of some seconds could notice it. So the member comes and goes for as long as the load
//! lasts, with a pause of 200 ms after each: some five joins and leaves a second. Their rounds show in the p99 of others when
//! together they hold up more than one message in a hundred, which is harsher than a line that says "one joins".

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use corelane::{Client, Event, GroupConsumer, TopicClass};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::figure::start::{PATIENCE, create, fresh};
use crate::patience::Patience;
use crate::report::Report;
use crate::run::{RunOptions, run};
use crate::scenario::NxM;
use crate::server::{Server, ServerOptions};

/// The knobs.
#[derive(Clone, Copy, Debug)]
pub struct JoinBench {
    /// Members, the one that joins included.
    pub members: u32,
    /// Partitions of the group's topic.
    pub partitions: u32,
    /// Connections that the members share.
    pub connections: u32,
    /// Rounds; in each a load of others runs twice, undisturbed and while a member joins and leaves again and again.
    pub rounds: u32,
    /// How long each of these loads is.
    pub load: Duration,
    /// How long a round that is void is repeated.
    pub patience: Duration,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Joins {
    /// Members, the one that joins included.
    pub members: u32,
    /// Partitions of the group's topic.
    pub partitions: u32,
    /// Seconds until all but one had joined, one after another on each connection, and every partition had its owner.
    pub assembled_s: f64,
    /// Milliseconds of each join until every partition had an owner that knew of it and nobody had more than its share.
    pub settled_ms: Vec<f64>,
    /// Processor time of the broker for one join and one leave, in milliseconds, all threads together: of each round what it
    /// took beyond the undisturbed load, divided by the joins.
    pub busy_ms: Vec<f64>,
    /// The others' p99 from due to consumed in microseconds, undisturbed; of each round that was not void.
    pub p99_quiet_us: Vec<f64>,
    /// The same while the member joined and left.
    pub p99_joining_us: Vec<f64>,
    /// Rounds whose load was late by itself.
    pub void_rounds: u32,
}

const TOPIC: &str = "join";
const GROUP: &str = "join";
/// Members and messages a second of each, of the load of others.
const LOAD_MEMBERS: u32 = 2;
const LOAD_RATE: u32 = 2_000;
/// Between a member that came and its going, and the other way round.
const PAUSE: Duration = Duration::from_millis(200);
/// Members do not expire in a run.
const SESSION: Duration = Duration::from_secs(60);

/// Lets a member join and leave a large group again and again, beside a load of others.
///
/// # Errors
/// The broker cannot be started, a member was put out, a share did not settle, or the load was not right.
pub async fn measure(options: &ServerOptions, bench: JoinBench, show: impl Fn(&str)) -> anyhow::Result<Joins> {
    fresh(&options.data)?;
    let server = Server::start(options)?;
    let address = format!("corelane://{}", server.quic);
    create(&address, TOPIC, bench.partitions, None).await?;
    let mut clients = Vec::new();
    for _ in 0..bench.connections.max(1) {
        clients.push(super::connect(&address).await?);
    }
    let owners = Arc::new(Owners::new(bench.partitions, bench.members));
    let begun = Instant::now();
    let crowd = assemble(&clients, bench.members - 1, &owners).await?;
    owners.settled(bench.members - 1).await?;
    let mut joins = Joins {
        members: bench.members,
        partitions: bench.partitions,
        assembled_s: begun.elapsed().as_secs_f64(),
        settled_ms: Vec::new(),
        busy_ms: Vec::new(),
        p99_quiet_us: Vec::new(),
        p99_joining_us: Vec::new(),
        void_rounds: 0,
    };
    show(&format!("joins: {} members are there after {:.1} s", bench.members - 1, joins.assembled_s));
    for round in 0..bench.rounds {
        let mut patience = Patience::new(bench.patience, 1);
        let (rounds, mut valid) = (joins.p99_quiet_us.len(), false);
        while !valid {
            // On a thread of its own: members have to speak meanwhile.
            let wait = move || (patience.goes_on(), patience);
            let goes_on;
            (goes_on, patience) =
                tokio::task::spawn_blocking(wait).await.context("waiting for quiet ended by a panic")?;
            if !goes_on {
                break;
            }
            joins.round(&server, &address, bench, &clients[0], &owners).await?;
            valid = rounds < joins.p99_quiet_us.len();
        }
        show(&format!("joins: round {} of {} is over", round + 1, bench.rounds));
    }
    for member in crowd {
        member.abort();
    }
    for client in clients {
        client.close().await;
    }
    server.stop()?;
    fresh(&options.data)?;
    Ok(joins)
}

impl Joins {
    async fn round(
        &mut self,
        server: &Server,
        address: &str,
        bench: JoinBench,
        client: &Client,
        owners: &Arc<Owners>,
    ) -> anyhow::Result<()> {
        let before = server.processor_time()?;
        let quiet = load(address, bench.load).await?;
        let between = server.processor_time()?;
        let (is_over, over) = tokio::sync::watch::channel(false);
        let joining = come_and_go(client.clone(), bench.members - 1, Arc::clone(owners), over);
        let loading = async {
            let report = load(address, bench.load).await;
            // The one who comes and goes looks at it when it has gone.
            let _listening = is_over.send(true);
            report
        };
        let (disturbed, settled_ms) = tokio::join!(loading, joining);
        let (disturbed, settled_ms) = (disturbed?, settled_ms?);
        let after = server.processor_time()?;
        let beyond = (after - between).saturating_sub(between - before).as_secs_f64() * 1e3;
        #[expect(clippy::cast_precision_loss, reason = "some joins")]
        self.busy_ms.push(beyond / settled_ms.len().max(1) as f64);
        self.settled_ms.extend(settled_ms);
        match (quiet.void || disturbed.void, quiet.latency_us.consumed.p99, disturbed.latency_us.consumed.p99) {
            (false, Some(quiet), Some(disturbed)) => {
                self.p99_quiet_us.push(quiet);
                self.p99_joining_us.push(disturbed);
            }
            _ => self.void_rounds += 1,
        }
        Ok(())
    }
}

/// Others' messages, which have nothing to do with the group.
async fn load(address: &str, duration: Duration) -> anyhow::Result<Report> {
    let plan = NxM {
        members: LOAD_MEMBERS,
        rate: LOAD_RATE,
        partitions_per_member: 2,
        size: 100,
        duration,
        class: TopicClass::Durable,
    }
    .plan();
    let options = RunOptions::new(address.to_owned());
    let report = run(plan, &options).await?;
    ensure!(report.is_right(), "the load beside the group was not right: {report}");
    Ok(report)
}

/// Joins and leaves until the load is over; answers the milliseconds of each join until all was settled.
async fn come_and_go(
    client: Client,
    others: u32,
    owners: Arc<Owners>,
    over: tokio::sync::watch::Receiver<bool>,
) -> anyhow::Result<Vec<f64>> {
    let mut settled_ms = Vec::new();
    tokio::time::sleep(PAUSE).await;
    while !*over.borrow() {
        let begun = Instant::now();
        let consumer = join(&client).await?;
        let (leave, left) = tokio::sync::oneshot::channel();
        let member = tokio::spawn(Arc::clone(&owners).follow(others, consumer, left));
        owners.settled(others + 1).await?;
        settled_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(PAUSE).await;
        // A member that ended by itself says so below.
        let _gone = leave.send(());
        member.await.context("the member that joins ended by a panic")??;
        owners.settled(others).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(settled_ms)
}

async fn join(client: &Client) -> anyhow::Result<GroupConsumer> {
    Ok(client.group(GROUP).topics([TOPIC]).session_timeout(SESSION).manual_commit().join().await?)
}

/// Lets members join, on all connections at once.
async fn assemble(
    clients: &[Client],
    members: u32,
    owners: &Arc<Owners>,
) -> anyhow::Result<Vec<JoinHandle<anyhow::Result<()>>>> {
    let lanes = u32::try_from(clients.len()).context("some connections")?;
    let assembling = clients.iter().zip(0..).map(|(client, lane)| {
        let (client, owners) = (client.clone(), Arc::clone(owners));
        tokio::spawn(async move {
            let mut tasks = Vec::new();
            for member in (lane..members).step_by(lanes as usize) {
                let consumer = join(&client).await?;
                // Nobody tells these to leave.
                tasks.push(tokio::spawn(Arc::clone(&owners).follow(member, consumer, std::future::pending::<()>())));
            }
            anyhow::Ok(tasks)
        })
    });
    let mut tasks = Vec::new();
    for lane in assembling.collect::<Vec<_>>() {
        tasks.extend(lane.await.context("a lane of members ended by a panic")??);
    }
    Ok(tasks)
}

/// Who has which partition, as members were told.
struct Owners {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// The owner of each partition; `None` while it is on its way.
    of: Vec<Option<u32>>,
    /// How many each member has.
    counts: Vec<u32>,
    /// Partitions without an owner.
    ownerless: usize,
}

impl Owners {
    fn new(partitions: u32, members: u32) -> Self {
        let of = vec![None; partitions as usize];
        let state = State { ownerless: of.len(), of, counts: vec![0; members as usize] };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    /// Follows a member's events until it is told to leave; then it leaves.
    async fn follow(
        self: Arc<Self>,
        member: u32,
        mut consumer: GroupConsumer,
        leave: impl Future,
    ) -> anyhow::Result<()> {
        tokio::pin!(leave);
        loop {
            let event = tokio::select! {
                _told = &mut leave => break,
                event = consumer.next() => event.context("the membership ended")??,
            };
            match event {
                Event::Assigned(assigned) => {
                    assigned.iter().for_each(|one| self.lock().set(one.partition.partition.0, Some(member)));
                    self.changed.notify_one();
                }
                Event::Revoking { partitions, .. } => {
                    partitions.iter().for_each(|one| self.lock().unset(one.partition.0, member));
                }
                Event::Lost { reason, .. } => anyhow::bail!("member {member} lost partitions: {reason:?}"),
                _ => {}
            }
        }
        let held: Vec<u32> = consumer.partitions().map(|one| one.partition.0).collect();
        consumer.close().await?;
        held.into_iter().for_each(|partition| self.lock().unset(partition, member));
        Ok(())
    }

    /// Waits until every partition has an owner and no member has more than its share.
    async fn settled(&self, members: u32) -> anyhow::Result<()> {
        let settled = async {
            while !self.lock().is_settled(members) {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, settled)
            .await
            .with_context(|| format!("{members} members do not come to share the partitions"))
    }
}

impl State {
    fn set(&mut self, partition: u32, owner: Option<u32>) {
        let place = &mut self.of[partition as usize];
        let before = std::mem::replace(place, owner);
        self.ownerless += usize::from(before.is_some() && owner.is_none());
        self.ownerless -= usize::from(before.is_none() && owner.is_some());
        if let Some(before) = before {
            self.counts[before as usize] -= 1;
        }
        if let Some(owner) = owner {
            self.counts[owner as usize] += 1;
        }
    }

    /// Takes a partition from a member that gave it up, unless another one has it already.
    fn unset(&mut self, partition: u32, member: u32) {
        if self.of[partition as usize] == Some(member) {
            self.set(partition, None);
        }
    }

    fn is_settled(&self, members: u32) -> bool {
        let partitions = u32::try_from(self.of.len()).expect("a topic has fewer partitions");
        let (least, most) = (partitions / members, partitions.div_ceil(members));
        let is_fair = |count: &u32| (least..=most).contains(count);
        self.ownerless == 0 && self.counts.iter().take(members as usize).all(is_fair)
    }
}
