//! The data directory and the disk below it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use corelane_model::limits::{BLOCK_BYTES, JOURNAL_FILE_BYTES};

use super::{Finding, Verdict};
use crate::data::{DataDir, DataError};
use crate::quantity::ByteSize;

/// What a directory lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its type, as in `mount`.
    pub kind: String,
    /// The block device, as in `mount`.
    pub device: String,
    /// `write through` or `write back`: whether a sync has a cache of the disk to empty. `None` when unknown.
    pub write_cache: Option<String>,
}

/// The file system that a directory, or the nearest parent that exists, lies on.
#[must_use]
pub fn file_system(directory: &Path) -> Option<FileSystem> {
    let directory = fs::canonicalize(nearest(directory)).ok()?;
    let device = fs::metadata(&directory).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (kind, source) = mounts.lines().filter_map(|line| parse_mount(line, major, minor)).next_back()?;
    Some(FileSystem { kind, device: source, write_cache: write_cache(major, minor) })
}

/// Type and device from a line of `/proc/self/mountinfo` when it is about the device.
fn parse_mount(line: &str, major: u32, minor: u32) -> Option<(String, String)> {
    let (before, after) = line.split_once(" - ")?;
    let is_it = before.split(' ').nth(2)? == format!("{major}:{minor}");
    let mut words = after.split(' ');
    is_it.then_some((words.next()?.to_owned(), words.next()?.to_owned()))
}

fn write_cache(major: u32, minor: u32) -> Option<String> {
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // A partition has no queue of its own: its disk's counts.
    let found = device.ancestors().take(2).find_map(|path| fs::read_to_string(path.join("queue/write_cache")).ok())?;
    Some(found.trim().to_owned())
}

/// The directory itself or the nearest parent that exists.
fn nearest(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/")).to_owned()
}

pub(super) fn examine(data: &Path, shards: usize, journal_files: u32) -> Vec<Finding> {
    let place = nearest(data);
    let mut findings = vec![ownership(data, &place)];
    // What cannot be written to at all says nothing about direct writes.
    if findings[0].verdict != Verdict::Bad {
        findings.push(direct_io(&place));
    }
    findings.push(space(&place, data, shards as u64 * u64::from(journal_files) * JOURNAL_FILE_BYTES));
    if let Some(FileSystem { kind, device, write_cache }) = file_system(&place) {
        let cache = write_cache.map_or_else(String::new, |cache| format!(", write cache {cache}"));
        findings.push(Finding::good("disk", format!("{kind} on {device}{cache}")));
    }
    findings
}

fn ownership(data: &Path, place: &Path) -> Finding {
    let name = "data";
    let shown = data.display();
    let metadata = match fs::metadata(place) {
        Ok(metadata) => metadata,
        Err(error) => return Finding::bad(name, format!("{shown}: {error}"), "give another directory with --data"),
    };
    if !metadata.is_dir() {
        return Finding::bad(name, format!("{} is a file", place.display()), "give a directory with --data");
    }
    let user = rustix::process::geteuid();
    let chown = format!("chown -R {} {}, or give another directory with --data", user.as_raw(), place.display());
    if let Err(error) = probe_file(place, 0).map(drop) {
        let advice = unwritable(error.kind()).map_or(chown, str::to_owned);
        return Finding::bad(name, format!("cannot write to {}: {error}", place.display()), advice);
    }
    if data.exists() && metadata.uid() != user.as_raw() {
        return Finding::warning(name, format!("{shown} belongs to user {}", metadata.uid()), chown);
    }
    let state = if data.exists() { "is writable" } else { "will be made" };
    Finding::good(name, format!("{shown} {state}"))
}

/// What to do where no file can be made; `None` when its owner is in the way.
const fn unwritable(why: io::ErrorKind) -> Option<&'static str> {
    match why {
        io::ErrorKind::PermissionDenied => None,
        io::ErrorKind::ReadOnlyFilesystem => Some("mount it writable, or give another directory with --data"),
        io::ErrorKind::StorageFull => Some("make room, or give another directory with --data"),
        // Such as /proc, in which there are no files of ours.
        _ => Some("give a directory with --data in which files can be made, on ext4 or XFS"),
    }
}

/// Tries an aligned write as the journal makes them.
fn direct_io(place: &Path) -> Finding {
    let name = "direct I/O";
    let advice = "put the data directory on ext4 or XFS on a disk of its own, with --data";
    let kind = file_system(place).map_or_else(|| "this file system".to_owned(), |found| found.kind);
    if matches!(kind.as_str(), "tmpfs" | "ramfs") {
        return Finding::warning(name, format!("{kind} keeps files in memory: nothing survives the machine"), advice);
    }
    match probe_file(place, libc::O_DIRECT).and_then(|file| write_block(&file)) {
        Ok(())
            if matches!(kind.as_str(), "overlay" | "nfs" | "nfs4" | "fuse" | "9p" | "virtiofs" | "btrfs" | "zfs") =>
        {
            Finding::warning(name, format!("{kind} takes direct writes, but not straight to a disk"), advice)
        }
        Ok(()) => Finding::good(name, format!("{kind} takes direct writes")),
        Err(error) => Finding::bad(name, format!("{kind} refuses direct writes: {error}"), advice),
    }
}

/// A file that has no name and goes when it is closed.
fn probe_file(place: &Path, flags: i32) -> io::Result<fs::File> {
    let path = place.join(format!(".corelane-probe-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&path);
    let removed = fs::remove_file(&path);
    let file = file?;
    removed?;
    Ok(file)
}

fn write_block(file: &fs::File) -> io::Result<()> {
    let block = usize::try_from(BLOCK_BYTES).expect("a block fits into memory");
    let memory = vec![0_u8; 2 * block];
    let start = memory.as_ptr().align_offset(block);
    file.write_all_at(&memory[start..start + block], 0)?;
    file.sync_data()
}

fn space(place: &Path, data: &Path, journal_bytes: u64) -> Finding {
    let Ok(found) = rustix::fs::statvfs(place) else {
        return Finding::warning("space", "cannot be told", "check with df");
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let needed = if data.join("journal").exists() { 0 } else { journal_bytes };
    judge_space(free, needed)
}

/// Room beside the journals, without which nothing can be written.
const ROOM_MIN: u64 = 64 << 20;

fn judge_space(free: u64, journal_bytes: u64) -> Finding {
    let found = format!("{} free, {} for new journals", ByteSize(free), ByteSize(journal_bytes));
    // A broker whose journals are there starts on a full disk too: it serves what it has, and heals when there is room.
    if 0 < journal_bytes && free < journal_bytes + ROOM_MIN {
        Finding::bad("space", found, "make room, give another directory with --data, or lower journal_files")
    } else if free < (4 * journal_bytes).max(ROOM_MIN) {
        Finding::warning("space", found, "records need room too: writes are refused when the disk is full")
    } else {
        Finding::good("space", found)
    }
}

/// Whether a broker runs on the directory.
pub(super) fn running(data: &Path) -> Finding {
    if !data.join("corelane.json").exists() && !data.join("journal").exists() {
        return Finding::good("broker", "none has run here yet");
    }
    match DataDir::open(data, 1, 0) {
        Ok(found) => {
            let manifest = found.manifest();
            let end = if manifest.clean { "stopped cleanly" } else { "was killed: the next start recovers" };
            Finding::good("broker", format!("start {} with {} shards {end}", manifest.incarnation, manifest.shards))
        }
        Err(DataError::InUse { holder, .. }) => Finding::good("broker", format!("{holder} is running")),
        Err(error) => Finding::bad("broker", error.to_string(), "mend that, or give another directory with --data"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_device_number() {
        let line = "36 35 254:0 / /mnt rw,noatime shared:1 - ext4 /dev/vda rw,errors=continue";
        assert_eq!(parse_mount(line, 254, 0), Some(("ext4".to_owned(), "/dev/vda".to_owned())));
        assert_eq!(parse_mount(line, 254, 1), None);
        assert_eq!(parse_mount("nonsense", 1, 1), None);
    }

    #[test]
    fn missing_space_is_bad_and_little_a_warning() {
        assert_eq!(judge_space(1 << 30, 1 << 30).verdict, Verdict::Bad);
        assert_eq!(judge_space(2 << 30, 1 << 30).verdict, Verdict::Warning);
        assert_eq!(judge_space(9 << 30, 1 << 30).verdict, Verdict::Good);
        assert_eq!(judge_space(0, 0).verdict, Verdict::Warning);
    }

    #[test]
    fn a_file_in_the_way_and_a_running_broker_are_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(ownership(&file, &file).verdict, Verdict::Bad);
        let mut data = DataDir::open(&root.path().join("data"), 1, 1).unwrap();
        data.update(|manifest| manifest.clean = false).unwrap();
        assert!(running(data.path()).found.contains("is running"));
        let path = data.path().to_owned();
        drop(data);
        assert!(running(&path).found.contains("was killed"));
    }

    #[test]
    fn a_change_of_owner_is_advised_where_the_owner_is_in_the_way_alone() {
        let place = Path::new("/proc");
        let finding = ownership(&place.join("x"), place);
        assert_eq!(finding.verdict, Verdict::Bad, "{finding}");
        assert!(!finding.advice.contains("chown") && finding.advice.contains("--data"), "{finding}");
        assert_eq!(unwritable(io::ErrorKind::PermissionDenied), None);
    }

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let _finding = direct_io(root.path());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
