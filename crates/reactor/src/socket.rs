//! The broker's UDP sockets: one for each shard, all on one port.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use corelane_model::ShardId;
use corelane_model::limits::SHARDS_MAX;
use socket2::{Domain, Protocol, Socket, Type};

use crate::steering;

/// Bytes of a socket's receive buffer that are asked for: what a fast client sends while a shard is busy with a round.
pub const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Bytes of a socket's send buffer that are asked for.
pub const SEND_BUFFER_BYTES: usize = 4 << 20;

/// Why the port could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is in use, is not this machine's, or needs a privilege.
    #[error("UDP address {address} cannot be listened on: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The kernel refused the program that steers datagrams to shards.
    #[error("datagrams cannot be steered to {shards} shards: {source}")]
    Steering {
        /// How many shards.
        shards: usize,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The socket of one shard, bound and not yet read from.
#[derive(Debug)]
pub struct ShardSocket {
    /// The shard.
    pub shard: ShardId,
    pub(crate) socket: UdpSocket,
}

/// Makes the sockets.
#[derive(Debug)]
pub struct Sockets;

impl Sockets {
    /// Binds one socket for each shard to `address`; port 0 takes any free port, the same for all.
    ///
    /// The kernel numbers the sockets of a port in the order of binding, so they are bound one after another; none may be
    /// closed while the others are in use. Take the data directory's lock first: a second broker on the same port would
    /// not be refused but share its datagrams.
    ///
    /// # Errors
    /// The address cannot be had, or the kernel lacks what steering needs.
    pub fn bind(address: SocketAddr, shards: usize) -> Result<Vec<ShardSocket>, BindError> {
        assert!(0 < shards && shards <= SHARDS_MAX, "{shards} shards are not between 1 and {SHARDS_MAX}");
        let mut sockets: Vec<ShardSocket> = Vec::with_capacity(shards);
        let mut wanted = address;
        for index in 0..shards {
            let socket =
                bind_one(wanted, 1 < shards).map_err(|source| BindError::Address { address: wanted, source })?;
            if index == 0 {
                wanted = socket.local_addr().map_err(|source| BindError::Address { address: wanted, source })?;
            }
            let shard = ShardId(u8::try_from(index).expect("at most 256 shards"));
            sockets.push(ShardSocket { shard, socket });
        }
        if 1 < shards {
            steering::attach(&sockets[0].socket, u32::try_from(shards).expect("at most 256 shards"))
                .map_err(|source| BindError::Steering { shards, source })?;
        }
        Ok(sockets)
    }
}

impl ShardSocket {
    /// The address that clients connect to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Bytes of the receive and the send buffer that the kernel granted; it doubles what is asked for.
    ///
    /// # Errors
    /// The operating system's.
    pub fn buffer_bytes(&self) -> io::Result<(usize, usize)> {
        let socket = socket2::SockRef::from(&self.socket);
        Ok((socket.recv_buffer_size()?, socket.send_buffer_size()?))
    }
}

fn bind_one(address: SocketAddr, is_shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // A single socket is exclusive: a second broker on the port is then refused by the kernel.
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    enlarge_buffers(&socket);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Small buffers lose datagrams in bursts; they do not stop anything, so that what is granted is taken.
fn enlarge_buffers(socket: &Socket) {
    let force = |option, bytes: usize| {
        libc::c_int::try_from(bytes).is_ok_and(|bytes| steering::force_buffer(socket, option, bytes))
    };
    if !force(libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        && let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
    {
        tracing::warn!(%error, "the receive buffer stays as it is");
    }
    if !force(libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        && let Err(error) = socket.set_send_buffer_size(SEND_BUFFER_BYTES)
    {
        tracing::warn!(%error, "the send buffer stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(sockets: &[ShardSocket]) -> usize {
        let mut buffer = [0; 64];
        loop {
            if let Some(index) = sockets.iter().position(|one| one.socket.recv_from(&mut buffer).is_ok()) {
                return index;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_connection_id_names_the_socket_whoever_sends() {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let to = sockets[0].local_address().unwrap();
        for sender in 0..4_u8 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            for id in [0_u8, 1, 2, 3, 77, 255] {
                let mut long = [0_u8; 20];
                long[0] = 0xc0 | sender;
                long[6] = id;
                client.send_to(&long, to).unwrap();
                assert_eq!(receive(&sockets), usize::from(id) % 3, "long head, id {id}");
                client.send_to(&[0x40, id, 9, 9], to).unwrap();
                assert_eq!(receive(&sockets), usize::from(id) % 3, "short head, id {id}");
            }
        }
    }

    #[test]
    fn one_shard_has_the_port_for_itself() {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let taken = sockets[0].local_address().unwrap();
        assert!(matches!(Sockets::bind(taken, 1), Err(BindError::Address { .. })));
        assert!(RECEIVE_BUFFER_BYTES.min(200_000) <= sockets[0].buffer_bytes().unwrap().0);
    }
}
