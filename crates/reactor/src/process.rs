//! What the process needs before the first shard starts, and what a thread can learn about itself.
#![expect(unsafe_code, reason = "system calls that no safe crate offers")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Registers the process for expedited memory barriers: glommio uses them whenever a shard parks.
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// Prepares the process. Call it once, before any thread is made.
///
/// * Registers memory barriers: the first registration costs up to 80 ms once threads run (measured), and otherwise a
///   shard would pay for it when it first parks.
/// * Raises the limit of open files to what is allowed: a shard keeps a file open for each segment in use.
///
/// Neither can make the start fail: without the first a shard starts slower, without the second fewer files stay open.
pub fn prepare_process() {
    // SAFETY: membarrier takes numbers only and touches no memory of ours.
    let registered = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_REGISTER_PRIVATE_EXPEDITED, 0, 0) };
    if registered != 0 {
        tracing::warn!(error = %io::Error::last_os_error(), "memory barriers could not be registered");
    }
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// Sets up a ring and gives it back: whether this process may use `io_uring` at all.
///
/// # Errors
/// The kernel's: `ENOSYS` without support, `EPERM` where a policy or a container's profile forbids it, `ENOMEM` where too
/// little memory may be locked.
pub fn probe_io_uring() -> io::Result<()> {
    const ENTRIES: libc::c_uint = 4;
    /// Bytes of `struct io_uring_params`.
    const PARAMS_BYTES: usize = 120;
    let mut params = [0_u64; PARAMS_BYTES / size_of::<u64>()];
    // SAFETY: the pointer is to zeroed, writable memory of the size of io_uring_params, aligned for it.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, params.as_mut_ptr()) };
    let Ok(ring @ 0..) = i32::try_from(ring) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel made the descriptor just now, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(ring) });
    Ok(())
}

/// How often the calling thread was taken off its core although it wanted to go on.
pub(crate) fn involuntary_switches() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole rusage that lives through the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    if result != 0 {
        return 0;
    }
    // SAFETY: it was zeroed, which is a valid rusage, and the kernel filled it in.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_nivcsw).unwrap_or(0)
}

/// Cores of the machine that are on line, whatever this process may use of them.
pub(crate) fn online_cores() -> usize {
    // SAFETY: sysconf takes a number and returns one.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1).max(1)
}
