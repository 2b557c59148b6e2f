//! One UDP port for all shards: the kernel hands each datagram to the socket that its connection id names.
#![expect(unsafe_code, reason = "attaching a program to a socket is a raw system call")]

use std::io;
use std::os::fd::AsRawFd;

/// Bit of byte 0 that tells a long head (a handshake) from a short one.
const LONG_HEAD: u32 = 0x80;
/// Where the first byte of the connection id lies behind a short head.
const SHORT_ID_AT: u32 = 1;
/// Where it lies behind a long head: after the first byte, the version and the id's length.
const LONG_ID_AT: u32 = 6;

const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_SET: u16 = 0x45;
const JUMP: u16 = 0x05;
const MODULO: u16 = 0x94;
const RETURN_ACCUMULATOR: u16 = 0x16;

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// The program, in classic BPF over the UDP payload: byte 0 of the destination connection id modulo `shards` is the index
/// of the socket, in the order in which the group's sockets were bound. A datagram that is too short goes to socket 0.
const fn program(shards: u32) -> [libc::sock_filter; 7] {
    [
        instruction(LOAD_BYTE, 0, 0, 0),
        instruction(JUMP_IF_SET, 2, 0, LONG_HEAD),
        instruction(LOAD_BYTE, 0, 0, SHORT_ID_AT),
        instruction(JUMP, 0, 0, 1),
        instruction(LOAD_BYTE, 0, 0, LONG_ID_AT),
        instruction(MODULO, 0, 0, shards),
        instruction(RETURN_ACCUMULATOR, 0, 0, 0),
    ]
}

/// Attaches the program to the reuse-port group that `socket` belongs to.
pub(crate) fn attach(socket: &impl AsRawFd, shards: u32) -> io::Result<()> {
    assert!(0 < shards, "a division by zero is no program");
    let mut instructions = program(shards);
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).expect("a program of seven instructions"),
        filter: instructions.as_mut_ptr(),
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).expect("a struct of 16 bytes");
    // SAFETY: the descriptor is open while `socket` is borrowed; the option's value is a sock_fprog of the given length
    // whose instructions outlive the call, and the kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&program).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for a buffer beyond the system's limit, which needs a privilege; returns whether it was granted.
pub(crate) fn force_buffer(socket: &impl AsRawFd, option: libc::c_int, bytes: libc::c_int) -> bool {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("an int of 4 bytes");
    // SAFETY: the descriptor is open while `socket` is borrowed; the value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(&bytes).cast(), length)
    };
    result == 0
}
