//! What the process needs before the first shard starts, and what a thread can learn about itself.
#![expect(unsafe_code, reason = "system calls that no safe crate offers")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Registers the process for expedited memory barriers: glommio uses them whenever a shard parks.
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// Freed memory is kept up to this size, and blocks up to [`MMAP_BYTES`] come from it.
const TRIM_BYTES: libc::c_int = 1 << 30;
/// Blocks beyond this size are mapped and unmapped one by one.
const MMAP_BYTES: libc::c_int = 8 << 20;

/// Prepares the process. Call it once, before any thread is made.
///
/// * Tells the allocator to keep what a round frees: a shard that takes in a megabyte and frees it otherwise grows and
///   shrinks its heap page by page, with a system call for every few packets (seen by strace).
/// * Registers memory barriers: the first registration costs up to 80 ms once threads run (measured), and otherwise a
///   shard would pay for it when it first parks.
/// * Raises the limit of open files to what is allowed: a shard keeps a file open for each segment in use.
///
/// None of them can make the start fail: without them shards are slower and fewer files stay open.
pub fn prepare_process() {
    for (option, bytes) in [(libc::M_TRIM_THRESHOLD, TRIM_BYTES), (libc::M_MMAP_THRESHOLD, MMAP_BYTES)] {
        // SAFETY: mallopt takes numbers only; an option that it does not know it refuses.
        if unsafe { libc::mallopt(option, bytes) } == 0 {
            tracing::warn!(option, "the allocator refused an option");
        }
    }
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

/// Lets the kernel's workers of this thread's rings run on the given cores. They inherit the thread's single core, and a
/// shard that is busy would keep them from syncing a file until the scheduler takes the core from it.
///
/// Call it on a thread that has a ring. Without success the workers stay where they are.
pub(crate) fn free_ring_workers(cores: &[usize]) -> io::Result<()> {
    const REGISTER_IOWQ_AFFINITY: libc::c_uint = 17;
    let mut mask = [0_u8; 128];
    for core in cores {
        if let Some(byte) = mask.get_mut(core / 8) {
            *byte |= 1 << (core % 8);
        }
    }
    let ring = std::fs::read_dir("/proc/self/fd")?
        .filter_map(Result::ok)
        .filter(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:[io_uring]")
        })
        .find_map(|entry| entry.file_name().to_str()?.parse::<libc::c_int>().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    // SAFETY: the mask is as long as is said and outlives the call, which copies it; a descriptor that is no ring any more
    // is refused.
    let result =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_IOWQ_AFFINITY, mask.as_ptr(), mask.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Cores that the calling thread may use.
pub(crate) fn allowed_cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => Vec::new(),
    }
}

/// Cores of the machine that are on line, whatever this process may use of them.
pub(crate) fn online_cores() -> usize {
    // SAFETY: sysconf takes a number and returns one.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1).max(1)
}
