//! Producing.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use corelane_client_core::{Delivery, DeliveryTime, NewRecord, ProducerKey, ProducerSettings, Reservation, Sent};
use corelane_model::{Acks, PartitionIndex, TopicClass, TopicName, WallMillis};
use corelane_record::{BatchBuilder, Compression, PushError};
use tokio::sync::oneshot;

use crate::client::Handle;
use crate::shared::Inner;
use crate::ticket::BatchCell;
use crate::{Error, SendError, Ticket};

/// A record to send. It borrows; [`Producer::send`] copies its bytes once, into the batch.
///
/// ```
/// use corelane::Record;
///
/// let record = Record::new(b"hit").key(b"player-7").header(&[("source", Some(b"server-3"))]);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a>(NewRecord<'a>);

impl<'a> Record<'a> {
    /// A record with a value.
    #[must_use]
    pub fn new(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self(NewRecord { value: Some(value.as_ref()), ..NewRecord::default() })
    }

    /// A record without a value, which is not the same as an empty one: it says that its key is gone.
    #[must_use]
    pub fn without_value() -> Self {
        Self::default()
    }

    /// The same record with a value.
    #[must_use]
    pub(crate) fn value<'b>(self, value: &'b [u8]) -> Record<'b>
    where
        'a: 'b,
    {
        Record(NewRecord { value: Some(value), ..self.0 })
    }

    /// Sets the key. Records of one key go to one partition and stay in order.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.0.key = Some(key.as_ref());
        self
    }

    /// Sets the headers: names and values, in order; a name may come more than once.
    #[must_use]
    pub const fn header(mut self, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Self {
        self.0.headers = headers;
        self
    }

    /// Sets the message id, which travels as the header `message-id`. A topic that was created with a deduplication window
    /// takes no second record with an id that it remembers: the ticket then tells of the first one.
    #[must_use]
    pub fn message_id(mut self, id: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.0.message_id = Some(id.as_ref());
        self
    }

    pub(crate) const fn parts(&self) -> &NewRecord<'a> {
        &self.0
    }

    /// Lets shared queues hand it out at `time` at the earliest; consumers and members of groups read it at once. It travels as
    /// the header `corelane-deliver-at`, which is not to be among [`Self::header`]'s then. At most 7 days from the moment of
    /// sending: a record with a later one is refused.
    #[must_use]
    pub const fn deliver_at(mut self, time: WallMillis) -> Self {
        self.0.delivery_time = Some(DeliveryTime::At(time));
        self
    }

    /// As [`Self::deliver_at`], so long after the moment of sending, by this machine's clock.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let record = corelane::Record::new("remind ada").delay(Duration::from_secs(30));
    /// ```
    #[must_use]
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.0.delivery_time = Some(DeliveryTime::After(delay));
        self
    }

    /// Adds it to a batch, made now unless it says otherwise.
    pub(crate) fn push_into(&self, now: WallMillis, builder: &mut BatchBuilder) -> Result<(), PushError> {
        self.0.push_into(now, builder)
    }

    /// Sets the timestamp; without it the moment of sending is taken.
    #[must_use]
    pub const fn timestamp(mut self, timestamp: WallMillis) -> Self {
        self.0.timestamp = Some(timestamp);
        self
    }

    /// Sets the partition, whatever the key.
    #[must_use]
    pub const fn partition(mut self, partition: PartitionIndex) -> Self {
        self.0.partition = Some(partition);
        self
    }
}

/// How a producer is to be opened; from [`crate::Client::producer`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `open`"]
pub struct ProducerBuilder {
    handle: Arc<Handle>,
    topic: String,
    settings: ProducerSettings,
}

impl ProducerBuilder {
    pub(crate) fn new(handle: Arc<Handle>, topic: &str) -> Self {
        Self { handle, topic: topic.to_owned(), settings: ProducerSettings::default() }
    }

    /// What a record's delivery means: [`Acks::Stored`] by default.
    pub const fn acks(mut self, acks: Acks) -> Self {
        self.settings.acks = acks;
        self
    }

    /// Lets a batch wait so long for more records. At zero, the default, a record leaves at once, and records gather only
    /// while earlier batches of their partition are under way.
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// A batch of so many bytes is full.
    pub const fn batch_bytes(mut self, bytes: u32) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// A batch of so many records is full.
    pub const fn batch_records(mut self, records: u32) -> Self {
        self.settings.batch_records = records;
        self
    }

    /// Compresses values; keys and headers stay readable for the broker.
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Opens the producer: asks for the topic, an identity, and connections to all owners of its partitions.
    ///
    /// # Errors
    /// The topic does not exist, or no broker answers in time.
    pub async fn open(self) -> Result<Producer, Error> {
        let topic = TopicName::parse(&self.topic)?;
        let (sender, receiver) = oneshot::channel();
        let key = self.handle.shared.act(|inner, now| {
            let key = inner.core.open_producer(now, &topic, self.settings);
            inner.opening.insert(key, sender);
            key
        });
        let (partitions, class) = receiver.await.unwrap_or(Err(corelane_client_core::RequestError::Closed))?;
        Ok(Producer { open: Arc::new(Open { handle: self.handle, key, topic, partitions, class }) })
    }
}

/// Sends records to one topic. Cheap to clone; clones are the same producer and keep one order.
///
/// [`Self::send`] does not wait and does no I/O: it copies the record into a batch under a lock that is held for moments,
/// and wakes the client's task. When the last clone is dropped, what was taken is still delivered for as long as the client
/// lives; to be sure of it, [`Self::flush`] first.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use corelane::Record;
///
/// let client = corelane::connect("corelane://127.0.0.1:7420").await?;
/// let producer = client.producer("inputs").open().await?;
/// let ticket = producer.send(Record::new(b"jump").key(b"player-7")).expect("the buffer has room");
/// let delivered = ticket.stored().await?;
/// println!("partition {} offset {}", delivered.partition, delivered.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Producer {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    handle: Arc<Handle>,
    key: ProducerKey,
    topic: TopicName,
    partitions: u32,
    class: TopicClass,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.handle.shared.act(|inner, _| inner.core.close_producer(self.key));
    }
}

impl Producer {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.open.topic
    }

    /// Partitions that the topic had when the producer was opened.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.open.partitions
    }

    /// What the topic's records survive.
    #[must_use]
    pub fn class(&self) -> TopicClass {
        self.open.class
    }

    /// Takes a record and returns a ticket for it. Does not wait.
    ///
    /// # Errors
    /// [`SendError::Full`] hands the record back; anything else says why it can never be sent.
    pub fn send<'a>(&self, record: Record<'a>) -> Result<Ticket, SendError<'a>> {
        self.take(record, Delivery::Ticket, None).map(|ticket| ticket.expect("a ticket was asked for"))
    }

    /// Takes a record that nobody waits for. If it is not delivered, that is logged and counted in
    /// [`crate::ClientStats::detached_failed`].
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_detached<'a>(&self, record: Record<'a>) -> Result<(), SendError<'a>> {
        self.take(record, Delivery::Detached, None).map(|_| ())
    }

    /// Waits until there is room for `record`, which can then be sent without being refused as full.
    pub async fn reserve(&self, record: &Record<'_>) -> Permit<'_> {
        let shared = &self.open.handle.shared;
        let charge = record.0.charge();
        let mut room = pin!(shared.room.notified());
        let reservation = poll_fn(|context| {
            loop {
                // Listen before looking, so that room that comes between is not missed.
                room.as_mut().enable();
                let reserved = shared.lock().core.reserve(charge);
                if reserved.is_err() {
                    // Room comes only when records leave, also those that gather.
                    shared.notify();
                }
                match reserved {
                    Ok(reservation) => return Poll::Ready(reservation),
                    Err(_) if room.as_mut().poll(context).is_pending() => return Poll::Pending,
                    Err(_) => room.set(shared.room.notified()),
                }
            }
        })
        .await;
        Permit { producer: self, reservation: Some(reservation) }
    }

    /// Waits until every record taken so far has its last word; records do not linger meanwhile.
    pub async fn flush(&self) {
        let cells: Vec<BatchCell> = self.open.handle.shared.act(|inner, _| {
            inner.core.flush(self.open.key);
            inner.batches.cells(Some(self.open.key)).cloned().collect()
        });
        for cell in cells {
            cell.ended().await;
        }
    }

    fn take<'a>(
        &self,
        record: Record<'a>,
        delivery: Delivery,
        reservation: Option<Reservation>,
    ) -> Result<Option<Ticket>, SendError<'a>> {
        let Open { handle, key, class, .. } = &*self.open;
        let shared = &handle.shared;
        let mut inner = shared.lock();
        let now = inner.clock.now();
        let sent = match reservation {
            Some(reservation) => inner.core.send_reserved(now, *key, &record.0, delivery, reservation),
            None => inner.core.send(now, *key, &record.0, delivery),
        };
        let sent = sent.map_err(|error| match error {
            corelane_client_core::SendError::Full { .. } => SendError::Full(record),
            error => SendError::Refused(error),
        })?;
        let ticket = issue(&mut inner, sent, *key, *class, delivery);
        let driver = shared.notify_taken(&mut inner);
        drop(inner);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(ticket)
    }
}

/// The ticket for a record; the first record of a batch makes the batch's cell.
fn issue(
    inner: &mut Inner,
    sent: Sent,
    producer: ProducerKey,
    class: TopicClass,
    delivery: Delivery,
) -> Option<Ticket> {
    let is_first = sent.index == 0;
    if delivery == Delivery::Detached && !is_first {
        return None;
    }
    let cell = inner.batches.cell(sent.batch, producer);
    match delivery {
        Delivery::Ticket => Some(Ticket::new(cell.clone(), class, sent)),
        Delivery::Detached => None,
    }
}

/// Room in the send buffer for one record; dropped unused, the room is given back.
#[derive(Debug)]
#[must_use = "the room is given back when the permit is dropped"]
pub struct Permit<'p> {
    producer: &'p Producer,
    reservation: Option<Reservation>,
}

impl Permit<'_> {
    /// As [`Producer::send`], but never [`SendError::Full`].
    ///
    /// # Errors
    /// Why the record can never be sent.
    pub fn send(mut self, record: Record<'_>) -> Result<Ticket, SendError<'_>> {
        let reservation = self.reservation.take();
        let ticket = self.producer.take(record, Delivery::Ticket, reservation);
        ticket.map(|ticket| ticket.expect("a ticket was asked for"))
    }

    /// As [`Producer::send_detached`], but never [`SendError::Full`].
    ///
    /// # Errors
    /// Why the record can never be sent.
    pub fn send_detached(mut self, record: Record<'_>) -> Result<(), SendError<'_>> {
        let reservation = self.reservation.take();
        self.producer.take(record, Delivery::Detached, reservation).map(|_| ())
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            let shared = &self.producer.open.handle.shared;
            shared.lock().core.release(reservation);
            shared.room.notify_waiters();
        }
    }
}
