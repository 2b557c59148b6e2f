//! How a shard sleeps, and how it lets glommio at its rings without sleeping.
#![expect(unsafe_code, reason = "a duplicated descriptor becomes a socket of glommio's")]

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::channels::shared_channel::{ConnectedReceiver, ConnectedSender, new_bounded};
use glommio::net::UdpSocket;
use glommio::timer::Timer;

use crate::bell::{Bell, LocalBell};

type Readable = Pin<Box<dyn Future<Output = ()>>>;

/// Sleeps until there is a datagram, a ring of a bell or a deadline.
pub(crate) struct Parking {
    socket: Rc<UdpSocket>,
    /// Lives over several parks: a peek that is dropped must be cancelled in the kernel.
    readable: Option<Readable>,
    local: Rc<LocalBell>,
    pass: Pass,
}

impl std::fmt::Debug for Parking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parking").finish_non_exhaustive()
    }
}

impl Parking {
    /// Watches a duplicate of the socket. Must be called on the shard's executor.
    pub(crate) async fn new(socket: &std::net::UdpSocket, local: Rc<LocalBell>) -> io::Result<Self> {
        let descriptor = socket.try_clone()?.into_raw_fd();
        // SAFETY: the descriptor was duplicated for this and belongs to nobody else.
        let socket = unsafe { UdpSocket::from_raw_fd(descriptor) };
        Ok(Self { socket: Rc::new(socket), readable: None, local, pass: Pass::new().await })
    }

    /// Sleeps. `is_listening` says whether datagrams wake; `has_news` is asked once more after the bells know that the shard
    /// sleeps, so that nothing that came in between is overslept. Returns whether it slept; if not, glommio was not let at
    /// its rings.
    pub(crate) async fn park(
        &mut self,
        bell: &Bell,
        limit: Option<Duration>,
        is_listening: bool,
        mut has_news: impl FnMut() -> bool,
    ) -> bool {
        let mut timer = pin!(limit.map(Timer::new));
        let mut is_first = true;
        let mut is_asleep = false;
        std::future::poll_fn(|context| {
            if !is_first {
                return Poll::Ready(());
            }
            is_first = false;
            bell.park(context.waker());
            self.local.park(context.waker());
            if has_news() || (is_listening && self.poll_readable(context).is_ready()) {
                return Poll::Ready(());
            }
            let result = match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(context).map(|_| ()),
                None => Poll::Pending,
            };
            is_asleep = result.is_pending();
            result
        })
        .await;
        bell.unpark();
        // Whatever woke the shard: a peek that is through must not stay behind.
        if self.readable.is_some() {
            std::future::poll_fn(|context| {
                let _ = self.poll_readable(context);
                Poll::Ready(())
            })
            .await;
        }
        is_asleep
    }

    /// Lets glommio submit what was handed to it and collect what is complete.
    pub(crate) async fn pass(&self) {
        self.pass.run().await;
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let socket = &self.socket;
        let readable = self.readable.get_or_insert_with(|| {
            let socket = Rc::clone(socket);
            Box::pin(async move {
                // An error is news too: reading will meet and clear it.
                drop(socket.peek_from(&mut [0; 1]).await);
            })
        });
        let result = readable.as_mut().poll(context);
        if result.is_ready() {
            self.readable = None;
        }
        result
    }
}

/// A channel from the shard to itself.
///
/// glommio hands requests to the kernel, and looks for completions of its main ring, only when all task queues are empty; a
/// shard that goes round without parking never lets it come to that. Waiting for one's own message does: queues run empty,
/// glommio goes over its rings, finds the message and wakes the shard, some microseconds later.
struct Pass {
    sender: ConnectedSender<()>,
    receiver: ConnectedReceiver<()>,
}

impl Pass {
    async fn new() -> Self {
        let (sender, receiver) = new_bounded::<()>(2);
        let receiving = glommio::spawn_local(async move { receiver.connect().await });
        let sender = sender.connect().await;
        Self { sender, receiver: receiving.await }
    }

    async fn run(&self) {
        let mut receive = pin!(self.receiver.recv());
        let mut is_sent = false;
        std::future::poll_fn(|context| {
            let result = receive.as_mut().poll(context).map(|_| ());
            if !is_sent {
                is_sent = true;
                self.sender.try_send(()).expect("the channel is empty and its other end is here");
            }
            result
        })
        .await;
    }
}
