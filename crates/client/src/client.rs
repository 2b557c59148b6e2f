//! One client of one broker.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use corelane_client_core::{ClientCore, ClientSettings, ClientStats};
use corelane_model::SessionId;
use corelane_model::limits::TOKEN_BYTES_MAX;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::oneshot;

use crate::driver::Driver;
use crate::gather::Gathering;
use crate::shared::Shared;
use crate::transport::Transport;
use crate::{
    Address, Admin, ConnectError, ConsumerBuilder, GroupBuilder, Groups, ProducerBuilder, QueueBuilder, Queues,
    TransactionalBuilder,
};

/// What a client is told beside the address.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long [`connect_with`] waits for the broker.
    pub connect_timeout: Duration,
    /// Bytes of records that may wait for their delivery, over all producers.
    pub buffer_bytes: u64,
    /// Records that may wait for their delivery, over all producers.
    pub buffer_records: u64,
    /// A record that is not delivered after this long fails.
    pub delivery_timeout: Duration,
    /// A request that is not answered after this long fails.
    pub request_timeout: Duration,
    /// What the client calls itself in the broker's log.
    pub name: Option<String>,
    /// Bearer token; the address may name a file with it instead.
    pub token: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let ClientSettings { buffer_bytes_max, buffer_records_max, delivery_timeout, request_timeout, .. } =
            ClientSettings::new(SessionId(0), 0);
        Self {
            connect_timeout: Duration::from_secs(5),
            buffer_bytes: buffer_bytes_max,
            buffer_records: buffer_records_max,
            delivery_timeout,
            request_timeout,
            name: None,
            token: None,
        }
    }
}

/// Connects to a broker. Needs a tokio runtime with I/O and time.
///
/// The address is `corelane://HOST[:PORT]`, or without `corelane://`; the port is 7420 unless it is named. On this machine
/// the broker's development certificate is found by itself. Elsewhere add `?pin=sha256:…` with the fingerprint that the
/// broker prints, or `?ca=FILE`; a bearer token is read from `token-file=FILE`.
///
/// # Errors
/// See [`ConnectError`]; each says what to do.
///
/// ```no_run
/// # async fn example() -> Result<(), corelane::ConnectError> {
/// let client = corelane::connect("corelane://127.0.0.1:7420").await?;
/// # Ok(())
/// # }
/// ```
pub async fn connect(address: &str) -> Result<Client, ConnectError> {
    connect_with(address, Options::default()).await
}

/// As [`connect`], with options.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(address: &str, options: Options) -> Result<Client, ConnectError> {
    let address = Address::parse(address)?;
    let token = match (&options.token, &address.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => read_token(path)?,
        (None, None) => String::new(),
    };
    let connect_timeout = options.connect_timeout;
    let transport = Transport::open(address).await?;
    let core = ClientCore::new(settings(options, token));
    let (sender, first) = oneshot::channel();
    let shared = Arc::new(Shared::new(core, transport, sender));
    let client = Client { handle: Arc::new(Handle { shared: Arc::clone(&shared) }) };
    tokio::spawn(Driver::new(Arc::clone(&shared)));
    match tokio::time::timeout(connect_timeout, first).await {
        Ok(Ok(Ok(()))) => Ok(client),
        Ok(Ok(Err(failure))) => Err(ConnectError::Refused(failure)),
        Ok(Err(_)) | Err(_) => {
            let reason = match &shared.lock().last_failure {
                Some(failure) => failure.to_string(),
                None => "nothing came back".to_owned(),
            };
            let address = shared.transport.address().to_string();
            Err(ConnectError::Unreachable { address, seconds: connect_timeout.as_secs(), reason })
        }
    }
}

fn read_token(path: &Path) -> Result<String, ConnectError> {
    let unusable = |reason: String| ConnectError::Token { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    // The same file may serve a broker, which takes several tokens, a line each.
    let mut lines = text.lines().map(str::trim);
    let Some(token) = lines.find(|line| !line.is_empty() && !line.starts_with('#')) else {
        return Err(unusable("it is empty".to_owned()));
    };
    if TOKEN_BYTES_MAX < token.len() {
        return Err(unusable(format!("a token of {} bytes is over the limit of {TOKEN_BYTES_MAX}", token.len())));
    }
    Ok(token.to_owned())
}

fn settings(options: Options, token: String) -> ClientSettings {
    let mut random = [0; 24];
    SystemRandom::new().fill(&mut random).expect("the system gives random bytes");
    let (session, seed) = random.split_at(16);
    let session = SessionId(u128::from_le_bytes(session.try_into().expect("16 bytes")));
    let seed = u64::from_le_bytes(seed.try_into().expect("8 bytes"));
    let defaults = ClientSettings::new(session, seed);
    ClientSettings {
        name: options.name.unwrap_or_else(|| defaults.name.clone()),
        token,
        buffer_bytes_max: options.buffer_bytes,
        buffer_records_max: options.buffer_records,
        delivery_timeout: options.delivery_timeout,
        request_timeout: options.request_timeout,
        ..defaults
    }
}

/// A client of one broker. Cheap to clone; clones share connections and the send buffer.
///
/// Connections are made for the shards that are needed, made again by themselves when they break, and given up when the
/// last of client, producers and consumers is dropped. What was taken by then and has no last word is lost: call
/// [`Self::drain`] for an orderly end.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Held by everything of the application's; when the last one goes, so does the client.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    fn close(&self) {
        self.shared.act(|inner, _| {
            inner.core.close();
            inner.is_closed = true;
        });
        self.shared.notify();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl Client {
    /// A producer for a topic; set what differs from the defaults, then
    /// [`open`](ProducerBuilder::open) it.
    pub fn producer(&self, topic: &str) -> ProducerBuilder {
        ProducerBuilder::new(Arc::clone(&self.handle), topic)
    }

    /// A consumer of a topic; set what differs from the defaults, then [`open`](ConsumerBuilder::open) it.
    pub fn consumer(&self, topic: &str) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.handle), topic)
    }

    /// A member of a consumer group; set what it reads and what differs from the defaults, then
    /// [`join`](GroupBuilder::join).
    pub fn group(&self, name: &str) -> GroupBuilder {
        GroupBuilder::new(Arc::clone(&self.handle), name)
    }

    /// Manages consumer groups.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups::new(Arc::clone(&self.handle))
    }

    /// A member of a shared queue: the queue of a group on a topic. Set what differs from the defaults, then
    /// [`join`](QueueBuilder::join).
    pub fn queue(&self, group: &str, topic: &str) -> QueueBuilder {
        QueueBuilder::new(Arc::clone(&self.handle), group, topic)
    }

    /// Manages shared queues.
    #[must_use]
    pub fn queues(&self) -> Queues {
        Queues::new(Arc::clone(&self.handle))
    }

    /// Transactions under a transactional id, a name that outlives the process; set what differs from the defaults, then
    /// [`open`](TransactionalBuilder::open).
    pub fn transactional(&self, id: &str) -> TransactionalBuilder {
        TransactionalBuilder::new(Arc::clone(&self.handle), id)
    }

    /// Lets records gather for as long as what it returns is held: for those who send many at once, such as a server at
    /// each tick. Without it every record wakes the client's task, and many leave alone.
    ///
    /// ```no_run
    /// # fn example(client: &corelane::Client, states: &corelane::Producer, players: &[&str]) {
    /// let _tick = client.gather();
    /// for player in players {
    ///     states.send_detached(corelane::Record::new(b"state").key(player)).expect("the buffer has room");
    /// }
    /// # }
    /// ```
    pub fn gather(&self) -> Gathering {
        Gathering::new(Arc::clone(&self.handle))
    }

    /// Manages topics.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.handle))
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.handle.shared.lock().core.stats()
    }

    /// Waits until every record taken so far has its last word, then closes the client. Producers and consumers of it are
    /// of no more use.
    pub async fn drain(self) {
        let cells: Vec<_> = self.handle.shared.act(|inner, _| {
            inner.core.flush_all();
            inner.batches.cells(None).cloned().collect()
        });
        for cell in cells {
            cell.ended().await;
        }
        self.close().await;
    }

    /// Closes the client now. Records without a last word fail: those that have left with
    /// [`DeliveryError::Unknown`](crate::DeliveryError::Unknown), the others with
    /// [`DeliveryError::Closed`](crate::DeliveryError::Closed).
    pub async fn close(self) {
        self.handle.close();
        self.handle.shared.transport.wait_idle().await;
    }
}
