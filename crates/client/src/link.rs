//! One connection: its streams, who reads them, and what waits to be written.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use corelane_client_core::{Event, OutStream};
use corelane_model::{ConnectionKey, ErrorCode, ShardId};
use corelane_wire::{FrameDecoder, FrameError, OutFrame};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};

use crate::shared::Shared;
use crate::transport::close_code;

/// The sending side of one connection; the driver owns it.
#[derive(Debug)]
pub(crate) struct ConnectionIo {
    connection: Connection,
    control: OutgoingStream,
    produce: Vec<OutgoingStream>,
    is_dead: bool,
}

type Opening = Pin<Box<dyn Future<Output = Result<SendStream, ConnectionError>> + Send>>;

/// A stream that is there or on its way, and the bytes that wait for it.
struct OutgoingStream {
    stream: StreamState,
    backlog: Vec<Bytes>,
    /// Pieces of the backlog that have left.
    sent: usize,
}

enum StreamState {
    Opening(Opening),
    Open(SendStream),
}

impl std::fmt::Debug for OutgoingStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutgoingStream").field("waiting", &(self.backlog.len() - self.sent)).finish_non_exhaustive()
    }
}

impl ConnectionIo {
    /// Queues a frame behind what waits on its stream already.
    pub(crate) fn queue(&mut self, stream: OutStream, frame: OutFrame) {
        let outgoing = match stream {
            OutStream::Control => &mut self.control,
            OutStream::Produce(slot) => {
                while self.produce.len() <= usize::from(slot) {
                    let connection = self.connection.clone();
                    let opening: Opening = Box::pin(async move { connection.open_uni().await });
                    self.produce.push(OutgoingStream::new(StreamState::Opening(opening)));
                }
                &mut self.produce[usize::from(slot)]
            }
        };
        outgoing.backlog.extend(frame.into_pieces());
    }

    /// Writes what the streams take now; the task is woken when a full one takes more.
    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>) {
        if self.is_dead {
            return;
        }
        let streams = std::iter::once(&mut self.control).chain(&mut self.produce);
        let is_broken = streams.map(|stream| stream.poll_write(context)).any(|result| result.is_err());
        if is_broken {
            // Whatever broke one stream leaves the connection without use. The reader tells the machine.
            self.close(Some(ErrorCode::Malformed), "the broker stopped a stream");
        }
    }

    /// Whether nothing can be written any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_dead || self.connection.close_reason().is_some()
    }

    pub(crate) fn close(&mut self, code: Option<ErrorCode>, reason: &str) {
        self.is_dead = true;
        let code = code.map_or(0, |code| u32::from(code.to_wire()));
        self.connection.close(VarInt::from_u32(code), reason.as_bytes());
    }
}

impl OutgoingStream {
    const fn new(stream: StreamState) -> Self {
        Self { stream, backlog: Vec::new(), sent: 0 }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), ()> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        if let StreamState::Opening(opening) = &mut self.stream {
            match opening.as_mut().poll(context) {
                Poll::Ready(Ok(stream)) => self.stream = StreamState::Open(stream),
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => return Ok(()),
            }
        }
        let StreamState::Open(stream) = &mut self.stream else { return Ok(()) };
        while self.sent < self.backlog.len() {
            let written = pin!(stream.write_chunks(&mut self.backlog[self.sent..])).poll(context);
            match written {
                Poll::Ready(Ok(written)) => self.sent += written.chunks,
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => return Ok(()),
            }
        }
        self.backlog.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Makes a connection and reads it to its end. Both ends are told to the machine.
pub(crate) async fn run(shared: Arc<Shared>, key: ConnectionKey, shard: ShardId) {
    let made = async {
        let connection = shared.transport.connect(shard).await?;
        let control = connection.open_bi().await.map_err(|error| shared.transport.failure(&error, None))?;
        Ok((connection, control))
    };
    let (connection, (send, receive)) = match made.await {
        Ok(made) => made,
        Err(failure) => return shared.handle(Event::ConnectFailed { connection: key, failure }),
    };
    let io = ConnectionIo {
        connection: connection.clone(),
        control: OutgoingStream::new(StreamState::Open(send)),
        produce: Vec::new(),
        is_dead: false,
    };
    if !establish(&shared, key, io) {
        return connection.close(VarInt::from_u32(0), b"not needed any more");
    }
    shared.handle(Event::Connected { connection: key });
    tokio::spawn(read(Arc::clone(&shared), connection.clone(), key, receive));
    let error = loop {
        match connection.accept_uni().await {
            Ok(stream) => drop(tokio::spawn(read(Arc::clone(&shared), connection.clone(), key, stream))),
            Err(error) => break error,
        }
    };
    let (code, reason) = match &error {
        ConnectionError::ApplicationClosed(close) => (close_code(close), String::from_utf8_lossy(&close.reason).into()),
        error => (None, error.to_string()),
    };
    shared.handle(Event::Disconnected { connection: key, code, reason });
}

/// Gives the driver the sending side; false when the client was closed meanwhile.
fn establish(shared: &Shared, key: ConnectionKey, io: ConnectionIo) -> bool {
    let mut inner = shared.lock();
    let is_wanted = inner.core.has_connection(key);
    if is_wanted {
        inner.outbox.established.push((key, io));
    }
    is_wanted
}

/// Chunks that one read takes at most. A chunk is what of one packet belongs to the stream; a frame that lies whole within
/// one is not copied.
const READ_CHUNKS_MAX: usize = 32;

/// Reads one stream to its end. A stream that does not end in order takes the connection with it.
async fn read(shared: Arc<Shared>, connection: Connection, key: ConnectionKey, mut stream: RecvStream) {
    let mut decoder = FrameDecoder::default();
    let mut chunks = [const { Bytes::new() }; READ_CHUNKS_MAX];
    loop {
        match stream.read_chunks(&mut chunks).await {
            Ok(Some(count)) => {
                let chunks = chunks[..count].iter_mut().map(std::mem::take);
                if let Err(error) = take_chunks(&shared, key, &mut decoder, chunks) {
                    return shared.handle(Event::Garbage { connection: key, error });
                }
            }
            Ok(None) if !decoder.is_inside_frame() => return,
            Ok(None) | Err(_) => {
                let code = VarInt::from_u32(u32::from(ErrorCode::Malformed.to_wire()));
                connection.close(code, b"a stream ended inside a frame");
                return;
            }
        }
    }
}

/// Hands all whole frames of some chunks to the machine, under one lock and in one round.
fn take_chunks(
    shared: &Shared,
    connection: ConnectionKey,
    decoder: &mut FrameDecoder,
    mut chunks: impl Iterator<Item = Bytes>,
) -> Result<(), FrameError> {
    let mut round = None;
    let mut take_chunk = |chunk| {
        decoder.push(chunk);
        while let Some(frame) = decoder.poll_frame()? {
            let (now, inner) = round.get_or_insert_with(|| {
                let mut inner = shared.lock();
                (inner.clock.now(), inner)
            });
            inner.core.handle(*now, Event::Frame { connection, frame });
        }
        Ok(())
    };
    let result = chunks.try_for_each(&mut take_chunk);
    if let Some((now, inner)) = round {
        shared.finish(inner, now);
    }
    result
}
