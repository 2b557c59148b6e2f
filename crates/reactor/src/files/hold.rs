//! Whose a file is: a lock that requests under way hold too.
//!
//! A process that is killed leaves requests in the kernel, which may write after it is gone, and after the lock of its data
//! directory is. A lock by flock belongs to the open file, and each request holds the open file that it was made for; so a
//! lock that is taken through the file that is written by ends with the last of its requests, and not before. Whoever has
//! it knows that nothing of an earlier process comes any more. (flock(2); io_uring keeps `struct file` until a request is
//! complete, also when its ring is taken apart after the process.)

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use glommio::io::DmaFile;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The longest that a file is waited for. What a killed process leaves is through in milliseconds, unless the disk hangs.
pub(super) const HOLD_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Makes the file this process's, until it is closed and nothing is under way for it.
///
/// # Errors
/// It is another's for longer than `wait` ([`io::ErrorKind::WouldBlock`], with a text for people), or the file system knows no
/// such locks. The file is not to be written then.
pub(super) async fn hold(file: &DmaFile, path: &Path, wait: Duration) -> io::Result<()> {
    let begin = Instant::now();
    while !is_held(file)? {
        if wait <= begin.elapsed() {
            let text = format!(
                "{} is still being written by another process after {wait:?}: most likely the last write of a broker that \
                 was killed hangs in its disk. See with `fuser -v` whether a process has the file open and end it; if none \
                 has, look at the disk, and start again when it answers or after a restart of the machine",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        glommio::timer::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "glommio's files tell only the number of their descriptor")]
fn is_held(file: &DmaFile) -> io::Result<bool> {
    // SAFETY: the file keeps its descriptor open for longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    match flock(descriptor, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions, TryLockError};
    use std::io::Write;

    use io_uring::{IoUring, opcode, types};

    use super::*;

    /// What [`hold`] relies on, with a request that takes as long as we like: a read of a pipe.
    #[test]
    #[expect(unsafe_code, reason = "the request points to memory of the test")]
    fn a_request_under_way_holds_the_lock_of_a_file_that_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // Open at both ends, so that nobody waits for anybody.
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let is_locked = |file: &File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        let (earlier, mut later) = (open(), open());
        earlier.try_lock().unwrap();
        let mut byte = [0_u8; 1];
        let mut ring = IoUring::new(2).unwrap();
        let read = opcode::Read::new(types::Fd(earlier.as_raw_fd()), byte.as_mut_ptr(), 1).build();
        // SAFETY: the byte lives until the completion is there.
        unsafe { ring.submission().push(&read) }.unwrap();
        ring.submit().unwrap();
        drop(earlier);
        assert!(is_locked(&later), "the request is under way");
        later.write_all(b"x").unwrap();
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completion().next().map(|done| done.result()), Some(1));
        let begin = Instant::now();
        while is_locked(&later) {
            assert!(begin.elapsed() < Duration::from_secs(60), "the request is through and the lock is there");
            std::thread::yield_now();
        }
    }
}
