//! Datagrams in trains: many for each system call, in both directions.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;

use bytes::BytesMut;
use corelane_quic::{Datagram, EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

/// Bytes of one receive buffer: what the kernel joins at most.
const BUFFER_BYTES: usize = 1 << 16;
/// Buffers offered while there is little traffic: the system call prepares each of them.
const BUFFERS_QUIET: usize = 4;
/// Calls for one round: more would make the first datagrams wait for the last.
const CALLS_MAX: usize = 4;
/// Packets of one transmit at most.
const SEGMENTS_MAX: usize = 44;

const _: () = assert!(BUFFERS_QUIET <= BATCH_SIZE);

/// A shard's socket with its buffers.
#[derive(Debug)]
pub(crate) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    buffers: Vec<u8>,
    metas: Vec<RecvMeta>,
    is_busy: bool,
    /// A transmit that the socket had no room for.
    kept: Option<Transmit>,
    /// The bytes of the transmit at hand.
    pub(crate) out: Vec<u8>,
    pub(crate) receives: u64,
    pub(crate) sends: u64,
    pub(crate) sends_blocked: u64,
}

impl Port {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self {
            socket,
            state,
            buffers: vec![0; BUFFER_BYTES * BATCH_SIZE],
            metas: vec![RecvMeta::default(); BATCH_SIZE],
            is_busy: false,
            kept: None,
            out: Vec::with_capacity(BUFFER_BYTES),
            receives: 0,
            sends: 0,
            sends_blocked: 0,
        })
    }

    pub(crate) const fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Packets that one transmit may hold.
    pub(crate) fn segments_max(&self) -> usize {
        self.state.max_gso_segments().min(SEGMENTS_MAX)
    }

    /// Whether the system lets packets be fragmented on their way, because it knows no better.
    pub(crate) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Hands out what has arrived, at most [`CALLS_MAX`] calls' worth; returns how many datagrams it was.
    pub(crate) fn receive(&mut self, mut sink: impl FnMut(Datagram)) -> usize {
        let mut count = 0;
        for _ in 0..CALLS_MAX {
            let offered = if self.is_busy { BATCH_SIZE } else { BUFFERS_QUIET };
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            for (slice, buffer) in slices.iter_mut().zip(self.buffers.chunks_exact_mut(BUFFER_BYTES)).take(offered) {
                *slice = IoSliceMut::new(buffer);
            }
            let metas = &mut self.metas[..offered];
            // An error is "would block", or an ICMP message that a former send earned: there is nothing to read either way.
            let Ok(filled) = self.state.recv((&self.socket).into(), &mut slices[..offered], metas) else { break };
            self.receives += 1;
            for (slice, meta) in slices.iter().zip(&self.metas[..filled]) {
                count += split(&slice[..meta.len], meta, &mut sink);
            }
            self.is_busy = filled == offered;
            if !self.is_busy {
                break;
            }
        }
        count
    }

    /// Whether datagrams wait that were not handed out.
    pub(crate) fn has_input(&self) -> bool {
        rustix::io::ioctl_fionread(&self.socket).is_ok_and(|bytes| 0 < bytes)
    }

    /// Sends the transmit whose bytes lie in `out`, or keeps it when the socket has no room. Returns whether it went.
    pub(crate) fn send(&mut self, transmit: Transmit) -> bool {
        // The kernel or the device may turn out not to cut trains into packets; then they leave one by one.
        let piece = match transmit.segment_size {
            Some(segment) if self.state.max_gso_segments() < 2 => segment,
            _ => transmit.size,
        };
        for contents in self.out[..transmit.size].chunks(piece.max(1)) {
            let packet = quinn_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
                contents,
                segment_size: transmit.segment_size.filter(|segment| *segment < contents.len()),
                src_ip: transmit.src_ip,
            };
            self.sends += 1;
            // Other errors than "would block" are logged there and treated as loss, which QUIC repairs. What of a train
            // went before the socket was full goes once more with the rest: QUIC drops duplicates.
            if self.state.send((&self.socket).into(), &packet).is_err() {
                self.sends_blocked += 1;
                self.kept = Some(transmit);
                return false;
            }
        }
        self.out.clear();
        true
    }

    /// Tries again what was kept. Returns whether nothing is kept any more.
    pub(crate) fn resend(&mut self) -> bool {
        match self.kept.take() {
            Some(transmit) => self.send(transmit),
            None => true,
        }
    }

    /// Whether a transmit waits for room in the socket.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.kept.is_some()
    }
}

/// Cuts what the kernel joined into datagrams that share one allocation.
fn split(bytes: &[u8], meta: &RecvMeta, sink: &mut impl FnMut(Datagram)) -> usize {
    let mut rest = BytesMut::from(bytes);
    let mut count = 0;
    while !rest.is_empty() {
        let one = rest.split_to(meta.stride.clamp(1, rest.len()));
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        sink(Datagram { remote: meta.addr, local_ip: meta.dst_ip, ecn, bytes: one });
        count += 1;
    }
    count
}
