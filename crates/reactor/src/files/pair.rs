//! A journal write with the sync behind it, handed to the kernel together.
//!
//! glommio tells of a completion after a turn of its own loop, and finds one only by going over its rings. For the one
//! write that a producer waits for, the shard has a ring of its own: the write and an fdatasync, linked, so that the kernel
//! starts the sync when the write is through, and a completion is a word in memory that the shard looks at.
//!
//! Nothing is promised that the machine did not ask for. It orders the write, hears that it is written, and orders the
//! sync; that order *adopts* the one under way, if that one began after every write that the machine has been told of. If
//! not, another sync is made. A sync that failed is never followed by one that succeeds: the file's later syncs fail too.
#![expect(unsafe_code, reason = "requests for the kernel point to memory of ours")]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use corelane_storage::{FileDone, FileError, FileName, FileOutcome, IoId};
use glommio::io::{DmaBuffer, DmaFile};
use io_uring::{IoUring, opcode, squeue, types};

use super::os_error;

/// Requests that the ring holds; a pair is two.
const ENTRIES: u32 = 4;
/// Bytes of a write that goes with its sync; larger ones overlap with others and share a sync.
pub(super) const PAIR_BYTES_MAX: usize = 64 << 10;
/// A pair that takes longer is not worth looking for.
pub(crate) const PATIENCE: Duration = Duration::from_micros(400);
/// Writes that go the other way after a pair that took too long.
const REST: u32 = 64;

const WRITE: u64 = 0;
const SYNC: u64 = 1;

/// A write and its sync on their way, or through and not yet adopted.
struct Flight {
    name: FileName,
    write: IoId,
    length: usize,
    /// What the kernel said of the write: bytes, or a negated errno.
    written: Option<i32>,
    synced: Option<i32>,
    /// The sync that the machine ordered and that this one is.
    adopter: Option<IoId>,
    /// Another write to the file completed: the sync may not cover it.
    is_outrun: bool,
    since: Instant,
    /// Both must outlive what the kernel does with them.
    _buffer: DmaBuffer,
    _file: Rc<DmaFile>,
}

impl Flight {
    fn is_over(&self) -> bool {
        self.written.is_some() && self.synced.is_some() && self.adopter.is_none()
    }
}

/// The ring for pairs; one pair at a time.
pub(super) struct Pairs {
    ring: IoUring,
    flight: Option<Flight>,
    /// The kernel has not taken the requests yet.
    is_unsubmitted: bool,
    done: VecDeque<FileDone>,
    /// Files of which a sync failed.
    failed: BTreeMap<FileName, FileError>,
    rest: u32,
    pub(super) adopted: u64,
    pub(super) wasted: u64,
}

impl Pairs {
    /// # Errors
    /// The kernel gives no ring.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            ring: IoUring::new(ENTRIES)?,
            flight: None,
            is_unsubmitted: false,
            done: VecDeque::new(),
            failed: BTreeMap::new(),
            rest: 0,
            adopted: 0,
            wasted: 0,
        })
    }

    /// Whether a pair may begin: none is on its way, and the last ones were quick enough to be looked for.
    pub(super) fn is_free(&mut self) -> bool {
        if 0 < self.rest {
            self.rest -= 1;
            return false;
        }
        self.flight.as_ref().is_none_or(Flight::is_over)
    }

    /// Hands a write with a sync behind it to the kernel.
    pub(super) fn start(&mut self, id: IoId, name: FileName, file: Rc<DmaFile>, mut buffer: DmaBuffer, position: u64) {
        assert!(self.flight.as_ref().is_none_or(Flight::is_over), "a pair is on its way");
        self.forget();
        let length = buffer.len();
        let bytes = u32::try_from(length).expect("at most 64 KiB");
        let fd = types::Fd(file.as_raw_fd());
        let write = opcode::Write::new(fd, buffer.as_bytes_mut().as_mut_ptr(), bytes).offset(position).build();
        let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        let requests = [write.flags(squeue::Flags::IO_LINK).user_data(WRITE), sync.user_data(SYNC)];
        // SAFETY: the flight keeps the buffer and the file until both completions are there, also when this is dropped.
        unsafe { self.ring.submission().push_multiple(&requests) }.expect("the ring holds a pair, and none is in it");
        self.flight = Some(Flight {
            name,
            write: id,
            length,
            written: None,
            synced: None,
            adopter: None,
            is_outrun: false,
            since: Instant::now(),
            _buffer: buffer,
            _file: file,
        });
        self.submit();
    }

    /// A write that went another way completed: a sync that is under way may have begun before.
    pub(super) fn on_other_write(&mut self, name: FileName) {
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.name == name) {
            flight.is_outrun = true;
        }
    }

    /// Takes the order of a sync, if the one behind the write is as good; its completion comes out of [`Self::take_done`].
    pub(super) fn adopt(&mut self, id: IoId, name: FileName) -> bool {
        if let Some(error) = self.failed.get(&name) {
            self.done.push_back(FileDone { id, result: Err(error.clone()) });
            return true;
        }
        let Some(flight) = self.flight.as_mut() else { return false };
        let is_whole = flight.written.and_then(|bytes| usize::try_from(bytes).ok()) == Some(flight.length);
        let is_good = flight.synced.is_none_or(|result| 0 <= result);
        if flight.name != name || flight.is_outrun || !is_whole || !is_good || flight.adopter.is_some() {
            return false;
        }
        flight.adopter = Some(id);
        self.adopted += 1;
        self.tell_adopter();
        true
    }

    /// Whether a completion is to be looked for.
    pub(super) fn is_under_way(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.written.is_none() || flight.synced.is_none())
    }

    /// Effects that the machine waits for.
    pub(super) fn waits(&self) -> usize {
        let flight = self.flight.as_ref();
        let flying =
            flight.map_or(0, |flight| usize::from(flight.written.is_none()) + usize::from(flight.adopter.is_some()));
        flying + self.done.len()
    }

    /// What completed, oldest first.
    pub(super) fn take_done(&mut self) -> Option<FileDone> {
        if self.is_under_way() {
            self.look();
        }
        self.done.pop_front()
    }

    fn look(&mut self) {
        if self.is_unsubmitted {
            self.submit();
        }
        for entry in self.ring.completion() {
            let Some(flight) = &mut self.flight else { continue };
            if entry.user_data() == WRITE {
                flight.written = Some(entry.result());
                let result = outcome(entry.result()).map(|bytes| FileOutcome::Written(u64::from(bytes)));
                self.done.push_back(FileDone { id: flight.write, result });
            } else {
                flight.synced = Some(entry.result());
                if PATIENCE < flight.since.elapsed() {
                    self.rest = REST;
                }
                // Cancelled it is when the write was not whole: then there was no sync.
                if entry.result() != -libc::ECANCELED
                    && let Err(error) = outcome(entry.result())
                {
                    self.failed.insert(flight.name, error);
                }
            }
        }
        self.tell_adopter();
    }

    #[cfg(test)]
    pub(super) fn set_failed(&mut self, name: FileName, error: FileError) {
        self.failed.insert(name, error);
    }

    fn tell_adopter(&mut self) {
        let Some(flight) = &mut self.flight else { return };
        if let Some(result) = flight.synced
            && let Some(id) = flight.adopter.take()
        {
            self.done.push_back(FileDone { id, result: outcome(result).map(|_| FileOutcome::Done) });
            self.flight = None;
        }
    }

    fn forget(&mut self) {
        self.wasted += u64::from(self.flight.take().is_some());
    }

    /// What the kernel does not take now is offered again at the next look.
    fn submit(&mut self) {
        self.is_unsubmitted = self.ring.submit().is_err();
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        while self.is_under_way() {
            // An interrupted wait is waited for again; anything else would be a ring that is no ring.
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "the kernel keeps a write of a journal");
                    let _kept_for_good = std::mem::ManuallyDrop::new(self.flight.take());
                    return;
                }
            }
            self.look();
        }
    }
}

fn outcome(result: i32) -> Result<u32, FileError> {
    u32::try_from(result).map_err(|_| os_error(&io::Error::from_raw_os_error(-result)))
}
