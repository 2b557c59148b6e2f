//! File effects by glommio: direct I/O, one task for each effect.
//!
//! What someone waits for runs in the shard's own latency-sensitive task queue; the background has a queue and a ring of its
//! own, so that settling does not delay the journal. A small write to the journal goes past glommio, see [`pair`].
//! Every file that is open is this process's, see [`hold`].

mod directory;
mod handles;
mod hold;
mod pair;
mod path;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_model::ShardId;
use corelane_model::limits::BLOCK_BYTES;
use corelane_storage::{FileDone, FileEffect, FileError, FileName, FileOp, FileOutcome, Urgency};
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};
use glommio::sync::Semaphore;
use glommio::{GlommioError, TaskQueueHandle};

use crate::bell::LocalBell;
use directory::{blocking, ensure_directory, numbers, remove_file, sync_directory};
use handles::{Handles, Slot};
use hold::{HOLD_WAIT, hold};
use pair::{PAIR_BYTES_MAX, Pairs};

pub(crate) use pair::PATIENCE;

/// Background effects under way at once.
const BACKGROUND_MAX: u64 = 8;
/// Bytes that the background copies before it lets others have the core: some 10 µs.
const COPY_BYTES: usize = 128 << 10;
/// Bytes of zeros written at a time.
const ZERO_BYTES: usize = 1 << 20;
/// The longest that the files of a shard that ends wait for what is under way.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How often a file is created anew when its directory vanishes under it.
const CREATE_TRIES: u32 = 3;
/// Bytes of the file that tells glommio what the device can do.
const PROBE_BYTES: usize = 8192;

/// Does file effects and remembers what came of them.
#[derive(Clone)]
pub(crate) struct Files {
    inner: Rc<Inner>,
}

struct Inner {
    root: PathBuf,
    handles: RefCell<Handles>,
    /// `None` where the kernel gave no second ring.
    pairs: RefCell<Option<Pairs>>,
    /// Journal writes under way by glommio.
    writes: Cell<usize>,
    done: RefCell<VecDeque<FileDone>>,
    bell: Rc<LocalBell>,
    background: TaskQueueHandle,
    room: Semaphore,
    zeros: RefCell<Option<Rc<DmaBuffer>>>,
    under_way: Cell<usize>,
    under_way_now: Cell<usize>,
    /// Whether something was handed to glommio that it has not given to the kernel yet.
    is_unsubmitted: Cell<bool>,
    completed: Cell<u64>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

impl Files {
    /// Files of a shard under `root`, an existing directory. Must be called on the shard's executor. Nothing of an earlier
    /// process is written to the shard's journal afterwards.
    ///
    /// # Errors
    /// The probe file cannot be written or read: the directory is not writable. Or another process holds a file of the
    /// journal.
    pub(crate) async fn open(
        root: &Path,
        shard: ShardId,
        background: TaskQueueHandle,
        bell: Rc<LocalBell>,
    ) -> io::Result<Self> {
        probe(root).await?;
        let pairs = Pairs::new();
        if let Err(error) = &pairs {
            tracing::info!(%error, "there is no ring of its own for the journal: its syncs go the common way");
        }
        let pairs = pairs.ok();
        let inner = Inner {
            root: root.to_owned(),
            handles: RefCell::new(Handles::default()),
            pairs: RefCell::new(pairs),
            writes: Cell::new(0),
            done: RefCell::new(VecDeque::new()),
            bell,
            background,
            room: Semaphore::new(BACKGROUND_MAX),
            zeros: RefCell::new(None),
            under_way: Cell::new(0),
            under_way_now: Cell::new(0),
            is_unsubmitted: Cell::new(false),
            completed: Cell::new(0),
        };
        inner.hold_journal(shard, HOLD_WAIT).await?;
        Ok(Self { inner: Rc::new(inner) })
    }

    /// Closes all files when nothing is under way for them, so that another shard of this process can hold them. What is
    /// under way for too long keeps its file.
    pub(crate) async fn close(&self) {
        let begin = Instant::now();
        while 0 < self.under_way_by_glommio() && begin.elapsed() < CLOSE_WAIT {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        // What it waits for in the kernel ends before it does.
        self.inner.pairs.borrow_mut().take();
        let files = self.inner.handles.borrow_mut().take_all();
        for file in files {
            close(file).await;
        }
    }

    /// Starts an effect; its completion comes out of [`Self::take_done`]. `may_look` says that the shard may go on looking
    /// for completions without parking.
    pub(crate) fn start(&self, effect: FileEffect, may_look: bool) {
        let inner = Rc::clone(&self.inner);
        inner.under_way.set(inner.under_way.get() + 1);
        let Some(effect) = inner.start_pair(effect, may_look) else { return };
        inner.is_unsubmitted.set(true);
        inner.count_write(&effect, 1);
        match effect.urgency {
            Urgency::Now => {
                inner.under_way_now.set(inner.under_way_now.get() + 1);
                glommio::spawn_local(perform(inner, effect)).detach()
            }
            Urgency::Background => {
                let queue = inner.background;
                let task = async move {
                    let room = Rc::clone(&inner);
                    let _permit = room.room.acquire_permit(1).await;
                    perform(inner, effect).await;
                };
                glommio::spawn_local_into(task, queue).expect("the queue exists as long as the executor").detach()
            }
        };
    }

    pub(crate) fn take_done(&self) -> Option<FileDone> {
        let paired = self.inner.pairs.borrow_mut().as_mut().and_then(Pairs::take_done);
        if paired.is_some() {
            self.inner.under_way.set(self.inner.under_way.get() - 1);
            self.inner.completed.set(self.inner.completed.get() + 1);
            return paired;
        }
        self.inner.done.borrow_mut().pop_front()
    }

    /// Whether a completion comes that nothing wakes the shard for: it must look.
    pub(crate) fn is_pair_under_way(&self) -> bool {
        self.inner.pairs.borrow().as_ref().is_some_and(Pairs::is_under_way)
    }

    /// Syncs that were made together with their write, and those of them that nobody asked for.
    pub(crate) fn pairs(&self) -> (u64, u64) {
        self.inner.pairs.borrow().as_ref().map_or((0, 0), |pairs| (pairs.adopted, pairs.wasted))
    }

    pub(crate) fn has_done(&self) -> bool {
        !self.inner.done.borrow().is_empty()
    }

    /// Effects that have not completed.
    pub(crate) fn under_way(&self) -> usize {
        self.inner.under_way.get()
    }

    /// Those of them that glommio does.
    pub(crate) fn under_way_by_glommio(&self) -> usize {
        self.inner.under_way.get() - self.inner.pairs.borrow().as_ref().map_or(0, Pairs::waits)
    }

    /// Those of them that someone waits for.
    pub(crate) fn under_way_now(&self) -> usize {
        self.inner.under_way_now.get()
    }

    pub(crate) fn completed(&self) -> u64 {
        self.inner.completed.get()
    }

    pub(crate) fn open_files(&self) -> usize {
        self.inner.handles.borrow().len()
    }

    /// Whether something was handed to glommio that the kernel has not seen yet.
    pub(crate) fn is_unsubmitted(&self) -> bool {
        self.inner.is_unsubmitted.get()
    }

    /// Whether glommio must be let at its rings; asking takes note that it will be.
    pub(crate) fn take_unsubmitted(&self) -> bool {
        self.inner.is_unsubmitted.replace(false)
    }
}

/// Lets glommio find out on a file that holds something whether the device can be polled: on an empty file it comes to the
/// wrong answer, for all files of this thread, and an append then takes 4 ms instead of 0.25 ms (measured, glommio 0.9.0).
/// Shards start together, so that the file comes to its name whole: nobody finds it while another is at its beginning.
async fn probe(root: &Path) -> io::Result<()> {
    let path = root.join(".probe");
    let (new, old) = (root.join(format!(".probe.{}", glommio::executor().id())), path.clone());
    blocking(move || {
        // Written once: a start must not need room on a full disk.
        if std::fs::metadata(&old).is_ok_and(|metadata| metadata.len() == PROBE_BYTES as u64) {
            return Ok(());
        }
        std::fs::write(&new, vec![1_u8; PROBE_BYTES]).and_then(|()| std::fs::rename(new, old))
    })
    .await?;
    let file = DmaFile::open(&path).await.map_err(io::Error::from)?;
    file.close().await.map_err(io::Error::from)
}

async fn perform(inner: Rc<Inner>, effect: FileEffect) {
    let is_journal_write = is_journal_write(&effect);
    let FileEffect { id, file, op, urgency } = effect;
    let result = match op {
        FileOp::CreateZeroed { length } => inner.create_zeroed(file, length).await.map(|()| FileOutcome::Done),
        FileOp::CreateEmpty => inner.create_empty(file).await.map(|()| FileOutcome::Done),
        FileOp::Write { position, pieces } => {
            inner.write(file, position, pieces, urgency).await.map(FileOutcome::Written)
        }
        FileOp::Sync => inner.sync(file).await.map(|()| FileOutcome::Done),
        FileOp::Read { position, length } => inner.read(file, position, length).await.map(FileOutcome::Read),
        FileOp::Delete => inner.delete(file).await.map(|()| FileOutcome::Done),
        FileOp::Length => inner.length(file).await.map(FileOutcome::Length),
    };
    inner.under_way.set(inner.under_way.get() - 1);
    if is_journal_write {
        inner.writes.set(inner.writes.get() - 1);
        if let Some(pairs) = inner.pairs.borrow_mut().as_mut() {
            pairs.on_other_write(file);
        }
    }
    if urgency == Urgency::Now {
        inner.under_way_now.set(inner.under_way_now.get() - 1);
    }
    inner.completed.set(inner.completed.get() + 1);
    inner.done.borrow_mut().push_back(FileDone { id, result });
    inner.bell.ring();
}

fn is_journal_write(effect: &FileEffect) -> bool {
    matches!((&effect.op, effect.file), (FileOp::Write { .. }, FileName::Journal { .. }))
}

impl Inner {
    fn count_write(&self, effect: &FileEffect, count: usize) {
        if is_journal_write(effect) {
            self.writes.set(self.writes.get() + count);
        }
    }

    /// Starts the effect on the ring for pairs, or gives it back: what is no small write to the journal, alone, or the sync
    /// behind it, goes the common way.
    fn start_pair(&self, effect: FileEffect, may_look: bool) -> Option<FileEffect> {
        let mut pairs = self.pairs.borrow_mut();
        let (Some(pairs), Urgency::Now, FileName::Journal { .. }) = (pairs.as_mut(), effect.urgency, effect.file)
        else {
            return Some(effect);
        };
        match &effect.op {
            FileOp::Sync => (!pairs.adopt(effect.id, effect.file)).then_some(effect),
            FileOp::Write { position, pieces } => {
                let length: usize = pieces.iter().map(Bytes::len).sum();
                if !may_look || PAIR_BYTES_MAX < length || length == 0 || 0 < self.writes.get() || !pairs.is_free() {
                    return Some(effect);
                }
                let file = self.handles.borrow_mut().slot(effect.file).file();
                let Some(file) = file else { return Some(effect) };
                assert!(position.is_multiple_of(BLOCK_BYTES), "position {position} is not aligned");
                assert!((length as u64).is_multiple_of(BLOCK_BYTES), "length {length} is not aligned");
                let mut buffer = file.alloc_dma_buffer(length);
                let mut at = 0;
                for piece in pieces {
                    buffer.as_bytes_mut()[at..at + piece.len()].copy_from_slice(piece);
                    at += piece.len();
                }
                pairs.start(effect.id, effect.file, file, buffer, *position);
                None
            }
            _ => Some(effect),
        }
    }

    /// Opens the files of the shard's journal that are there. A journal is read only when it is held: what an earlier process
    /// still writes would come after what was read, or go over what is written from then on.
    async fn hold_journal(&self, shard: ShardId, wait: Duration) -> io::Result<()> {
        let any = path::of(&self.root, FileName::Journal { shard, slot: 0 });
        let directory = any.parent().expect("every file lies in a directory").to_owned();
        for slot in blocking(move || numbers(&directory)).await? {
            let name = FileName::Journal { shard, slot };
            let path = path::of(&self.root, name);
            let file = OpenOptions::new().read(true).write(true).dma_open(&path).await.map_err(io::Error::from)?;
            hold(&file, &path, wait).await?;
            self.handles.borrow_mut().slot(name).fill(file);
        }
        Ok(())
    }

    /// The open file, from the cache or opened now.
    async fn open(&self, name: FileName) -> Result<Rc<DmaFile>, FileError> {
        let slot = self.handles.borrow_mut().slot(name);
        if let Some(file) = slot.file() {
            return Ok(file);
        }
        let _turn = slot.turn().await;
        if let Some(file) = slot.file() {
            return Ok(file);
        }
        let path = path::of(&self.root, name);
        let file = OpenOptions::new().read(true).write(true).dma_open(&path).await.map_err(file_error)?;
        self.hold(&file, &path).await?;
        Ok(self.keep(&slot, file).await)
    }

    async fn hold(&self, file: &DmaFile, path: &Path) -> Result<(), FileError> {
        self.is_unsubmitted.set(true);
        hold(file, path, HOLD_WAIT).await.map_err(|error| {
            tracing::error!(%error, "a file cannot be had");
            os_error(&error)
        })
    }

    async fn keep(&self, slot: &Slot, file: DmaFile) -> Rc<DmaFile> {
        let file = slot.fill(file);
        let surplus = self.handles.borrow_mut().take_surplus();
        for old in surplus {
            close(old).await;
        }
        self.is_unsubmitted.set(true);
        file
    }

    async fn write(
        &self,
        name: FileName,
        position: u64,
        pieces: Vec<Bytes>,
        urgency: Urgency,
    ) -> Result<u64, FileError> {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        assert!(position.is_multiple_of(BLOCK_BYTES), "position {position} is not aligned");
        assert!((length as u64).is_multiple_of(BLOCK_BYTES), "length {length} is not aligned");
        let file = self.open(name).await?;
        if length == 0 {
            return Ok(0);
        }
        let mut buffer = file.alloc_dma_buffer(length);
        let mut at = 0;
        for chunk in pieces.iter().flat_map(|piece| piece.chunks(COPY_BYTES)) {
            buffer.as_bytes_mut()[at..at + chunk.len()].copy_from_slice(chunk);
            at += chunk.len();
            if urgency == Urgency::Background {
                glommio::executor().yield_task_queue_now().await;
            }
        }
        drop(pieces);
        self.is_unsubmitted.set(true);
        let written = file.write_at(buffer, position).await.map_err(file_error)?;
        Ok(written as u64)
    }

    async fn sync(&self, name: FileName) -> Result<(), FileError> {
        let file = self.open(name).await?;
        self.is_unsubmitted.set(true);
        file.fdatasync().await.map_err(file_error)
    }

    async fn read(&self, name: FileName, position: u64, length: u32) -> Result<Bytes, FileError> {
        assert!(position.is_multiple_of(BLOCK_BYTES), "position {position} is not aligned");
        assert!(u64::from(length).is_multiple_of(BLOCK_BYTES), "length {length} is not aligned");
        let file = self.open(name).await?;
        self.is_unsubmitted.set(true);
        let result = file.read_at_aligned(position, length as usize).await.map_err(file_error)?;
        // glommio's buffer may not leave its thread, and what was read may.
        Ok(Bytes::copy_from_slice(&result))
    }

    async fn create_empty(&self, name: FileName) -> Result<(), FileError> {
        let slot = self.handles.borrow_mut().slot(name);
        let _turn = slot.turn().await;
        if slot.file().is_none() {
            let file = self.create(name).await?;
            self.keep(&slot, file).await;
        }
        self.sync_parent(name).await
    }

    /// Overwrites in place what is there: the blocks stay allocated, so that the journal's later writes find them.
    async fn create_zeroed(&self, name: FileName, length: u64) -> Result<(), FileError> {
        assert!(length.is_multiple_of(BLOCK_BYTES), "length {length} is not aligned");
        let slot = self.handles.borrow_mut().slot(name);
        let _turn = slot.turn().await;
        let file = match slot.file() {
            Some(file) => file,
            None => {
                let file = self.create(name).await?;
                self.keep(&slot, file).await
            }
        };
        let zeros = self.zeros(&file);
        let mut position = 0;
        while position < length {
            let left = usize::try_from(length - position).unwrap_or(usize::MAX);
            let written = if left < ZERO_BYTES {
                let mut rest = file.alloc_dma_buffer(left);
                rest.as_bytes_mut().fill(0);
                file.write_at(rest, position).await
            } else {
                file.write_rc_at(Rc::clone(&zeros), position).await
            };
            let written = written.map_err(file_error)?;
            if written == 0 || !(written as u64).is_multiple_of(BLOCK_BYTES) {
                return Err(FileError::NoSpace);
            }
            position += written as u64;
        }
        if length < file.file_size().await.map_err(file_error)? {
            file.truncate(length).await.map_err(file_error)?;
        }
        file.fdatasync().await.map_err(file_error)?;
        self.sync_parent(name).await
    }

    /// Creates the file if it is not there, and its directories.
    async fn create(&self, name: FileName) -> Result<DmaFile, FileError> {
        let path = path::of(&self.root, name);
        let mut tries = 0;
        loop {
            ensure_directory(&self.root, path.parent().expect("every file lies in a directory")).await?;
            match OpenOptions::new().read(true).write(true).create(true).dma_open(&path).await.map_err(file_error) {
                // The deletion of a neighbour took the directory that was empty at that moment.
                Err(FileError::NotFound) if tries < CREATE_TRIES => tries += 1,
                Err(error) => return Err(error),
                Ok(file) => {
                    self.hold(&file, &path).await?;
                    return Ok(file);
                }
            }
        }
    }

    async fn sync_parent(&self, name: FileName) -> Result<(), FileError> {
        let path = path::of(&self.root, name);
        sync_directory(path.parent().expect("every file lies in a directory")).await
    }

    async fn delete(&self, name: FileName) -> Result<(), FileError> {
        let slot = self.handles.borrow_mut().slot(name);
        let _turn = slot.turn().await;
        if let Some(file) = slot.empty() {
            close(file).await;
        }
        // Until it is gone nobody opens it: glommio looks at the path once more after an open, and panics if it finds nothing.
        let removed = remove_file(&self.root, path::of(&self.root, name)).await;
        self.handles.borrow_mut().forget(name);
        removed
    }

    async fn length(&self, name: FileName) -> Result<Option<u64>, FileError> {
        let path = path::of(&self.root, name);
        match blocking(move || std::fs::metadata(path)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(os_error(&error)),
        }
    }

    fn zeros(&self, file: &DmaFile) -> Rc<DmaBuffer> {
        let mut kept = self.zeros.borrow_mut();
        Rc::clone(kept.get_or_insert_with(|| {
            let mut buffer = file.alloc_dma_buffer(ZERO_BYTES);
            buffer.as_bytes_mut().fill(0);
            Rc::new(buffer)
        }))
    }
}

/// Closes a file that nobody else uses; in other hands it is closed by the last of them.
async fn close(file: Rc<DmaFile>) {
    if let Err(error) = file.close_rc().await {
        tracing::warn!(error = %error, "a file could not be closed");
    }
}

/// What went wrong, in the words of storage.
fn file_error(error: GlommioError<()>) -> FileError {
    match error {
        GlommioError::IoError(error) | GlommioError::EnhancedIoError { source: error, .. } => os_error(&error),
        other => {
            tracing::error!(error = %other, "glommio failed a file effect");
            FileError::Os { errno: libc::EIO }
        }
    }
}

fn os_error(error: &io::Error) -> FileError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => FileError::NoSpace,
        Some(libc::ENOENT) => FileError::NotFound,
        Some(errno) => FileError::Os { errno },
        None if error.kind() == io::ErrorKind::WouldBlock => FileError::Os { errno: libc::EWOULDBLOCK },
        None => FileError::Os { errno: libc::EIO },
    }
}
