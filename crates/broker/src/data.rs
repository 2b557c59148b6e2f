//! The data directory: whose it is, what format it has, and which start this is.
//!
//! ```text
//! corelane.json     format, data id, shards, incarnation, whether the last stop was clean
//! lock              locked by the broker that runs; holds its process id
//! journal/<shard>/  one ring of journal files for each shard
//! topics/           segments, a directory for each partition
//! tls/              the development certificate and its key
//! moving            the state of all partitions, while the number of shards changes
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use corelane_model::Incarnation;

/// The format that this build reads and writes.
pub const FORMAT: u32 = 1;

const MANIFEST: &str = "corelane.json";
const LOCK: &str = "lock";

/// What `corelane.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of everything in the directory.
    pub format: u32,
    /// Random 128 bits in hexadecimal, made once: journals of another directory are not taken for this one's.
    pub data_id: String,
    /// Number of shards whose journals are here.
    pub shards: usize,
    /// Whether a start got as far as serving clients: from then on every journal holds something.
    pub has_served: bool,
    /// Counts the starts.
    pub incarnation: u64,
    /// Whether the last stop was clean.
    pub clean: bool,
    /// Whether `moving` holds the partitions' state and what is in the journals is void: the number of shards was
    /// being changed.
    #[serde(default)]
    pub moving: bool,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refuses something.
    #[error("cannot {action} {}: {error}{}", path.display(), hint(error))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Another broker runs on it.
    #[error("the data directory {} is in use by {holder}: a directory belongs to one broker; stop the other or give this one its own with --data", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other broker, as far as known.
        holder: String,
    },
    /// Made by a newer version.
    #[error("the data directory {} has format {found}, this build knows {known}: use the newer version of corelane that wrote it", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// What this build knows.
        known: u32,
    },
    /// The manifest cannot be understood.
    #[error("{} is damaged: {reason}; restore it from a backup, or start with an empty directory", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A journal is gone.
    #[error(
        "{} is missing or empty, and with it what was not in segments yet and where the segments belong: restore it from a \
         backup; nothing was changed",
        path.display()
    )]
    NoJournal {
        /// The journal's directory.
        path: PathBuf,
    },
    /// It was a data directory.
    #[error(
        "{} holds {found:?} and no corelane.json, so it looks like a data directory that lost it: restore corelane.json from \
         a backup; nothing was changed",
        path.display()
    )]
    NoManifest {
        /// The directory.
        path: PathBuf,
        /// One of the directories there.
        found: &'static str,
    },
    /// Something else lives there.
    #[error("{} holds {found:?} and no corelane.json, so it is not a data directory: give an empty one with --data", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files there.
        found: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (it must belong to the user that runs the broker)",
        io::ErrorKind::ReadOnlyFilesystem => " (mount the file system writable, or give another directory with --data)",
        io::ErrorKind::StorageFull => " (make room, or give another directory with --data)",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => " (a file is in the way)",
        _ => "",
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
    move |error| DataError::Io { action, path: path.to_owned(), error }
}

/// A data directory that this process holds the lock of; dropping it gives the lock back.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    manifest: Manifest,
    is_new: bool,
    _lock: File,
}

impl DataDir {
    /// Takes the directory, making it if it does not exist.
    ///
    /// `shards` is the number for a new directory; `random` is its data id.
    ///
    /// # Errors
    /// Another broker holds it, its format is newer, its manifest is damaged, something else lives there, or the
    /// operating system refuses. Nothing is changed then, except that the directory and the lock file may have been made.
    pub fn open(path: &Path, shards: usize, random: u128) -> Result<Self, DataError> {
        make_directory(path, &mut sync_directory)?;
        let path = fs::canonicalize(path).map_err(failed("find", path))?;
        refuse_foreign(&path)?;
        let lock = lock(&path)?;
        let (manifest, is_new) = match read_manifest(&path)? {
            Some(manifest) => (manifest, false),
            None => {
                let data_id = format!("{random:032x}");
                let manifest = Manifest {
                    format: FORMAT,
                    data_id,
                    shards,
                    has_served: false,
                    incarnation: 0,
                    clean: true,
                    moving: false,
                };
                (manifest, true)
            }
        };
        let data = Self { path, manifest, is_new, _lock: lock };
        data.data_id()?;
        Ok(data)
    }

    /// Where it is, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its manifest holds.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether it was made just now.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// The 128 bits that journals are bound to.
    ///
    /// # Errors
    /// The manifest holds no such number.
    pub fn data_id(&self) -> Result<u128, DataError> {
        let text = &self.manifest.data_id;
        u128::from_str_radix(text, 16).map_err(|_| DataError::Manifest {
            path: self.path.join(MANIFEST),
            reason: format!("data_id {text:?} is not 32 hexadecimal digits"),
        })
    }

    /// Which start this is.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        Incarnation(self.manifest.incarnation)
    }

    /// Looks whether every journal is there that must be: recovery would take a missing one for a new one, and give up the
    /// segments that it knows of.
    ///
    /// # Errors
    /// One is not.
    pub fn check_journals(&self) -> Result<(), DataError> {
        if !self.manifest.has_served || self.manifest.moving {
            return Ok(());
        }
        for shard in 0..self.manifest.shards {
            let path = self.path.join("journal").join(shard.to_string());
            let has_content = |entry: fs::DirEntry| entry.metadata().is_ok_and(|file| 0 < file.len());
            let is_there = fs::read_dir(&path).is_ok_and(|files| files.flatten().any(has_content));
            if !is_there {
                return Err(DataError::NoJournal { path });
            }
        }
        Ok(())
    }

    /// Changes the manifest, durably, before it returns.
    ///
    /// # Errors
    /// The operating system refuses; the old manifest is still there.
    pub fn update(&mut self, change: impl FnOnce(&mut Manifest)) -> Result<(), DataError> {
        let mut manifest = self.manifest.clone();
        change(&mut manifest);
        let mut text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        text.push(b'\n');
        write_durably(&self.path.join(MANIFEST), &text)?;
        self.manifest = manifest;
        self.is_new = false;
        Ok(())
    }
}

/// Replaces a file so that after a crash either the old or the new one is there, whole.
///
/// # Errors
/// The operating system refuses; the old file is still there.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    write_durably_with_mode(path, bytes, 0o600)
}

fn write_durably_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DataError> {
    let directory = path.parent().expect("files of the data directory have a parent");
    let mut name = path.file_name().expect("files of the data directory have a name").to_owned();
    name.push(".new");
    let new = directory.join(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new)
        .map_err(failed("write", &new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", &new))?;
    fs::rename(&new, path).map_err(failed("replace", path))?;
    sync_directory(directory)
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// The operating system refuses.
pub fn sync_directory(path: &Path) -> Result<(), DataError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

/// Makes a directory and those above it, and syncs above each that it made: else a power loss could take the directory with
/// all that was ever synced in it.
fn make_directory(path: &Path, sync: &mut impl FnMut(&Path) -> Result<(), DataError>) -> Result<(), DataError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_directory(parent, sync)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        // Somebody was quicker, and may not have synced it yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(failed("make the data directory", path)(error)),
    }
    sync(parent)
}

/// A directory with files, and none of ours among them, is somebody else's.
fn refuse_foreign(path: &Path) -> Result<(), DataError> {
    if path.join(MANIFEST).exists() {
        return Ok(());
    }
    if let Some(found) = ["journal", "topics"].into_iter().find(|name| path.join(name).is_dir()) {
        return Err(DataError::NoManifest { path: path.to_owned(), found });
    }
    // A first start that failed late, on a port in use for example, leaves these without a manifest.
    let is_begun = path.join(LOCK).exists();
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let name = entry.map_err(failed("list", path))?.file_name();
        let is_ours = name == LOCK || name == "corelane.json.new" || (is_begun && name == "tls");
        // A file system's root has this one.
        if !is_ours && name != "lost+found" {
            return Err(DataError::Foreign { path: path.to_owned(), found: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, DataError> {
    let path = path.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let is_known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if is_known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
            return Err(DataError::InUse { path: path.with_file_name(""), holder });
        }
        Err(error) => return Err(failed("lock", &path)(error.into())),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).map_err(failed("write", &path))?;
    Ok(file)
}

/// The manifest, `None` when there is none.
fn read_manifest(path: &Path) -> Result<Option<Manifest>, DataError> {
    let file = path.join(MANIFEST);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &file)(error)),
    };
    let damaged = |reason: String| DataError::Manifest { path: file.clone(), reason };
    // The format comes first: a newer manifest may hold what this build cannot read.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    let format = format.ok_or_else(|| damaged("it has no format number".to_owned()))?;
    if u64::from(FORMAT) < format {
        return Err(DataError::NewerFormat { path: path.to_owned(), found: format, known: FORMAT });
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    if manifest.shards == 0 || corelane_model::limits::SHARDS_MAX < manifest.shards {
        return Err(damaged(format!("shards = {} is out of bounds", manifest.shards)));
    }
    Ok(Some(manifest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_remembered() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let mut data = DataDir::open(&path, 2, 7).unwrap();
        assert!(data.is_new());
        data.update(|manifest| manifest.incarnation += 1).unwrap();
        drop(data);
        let data = DataDir::open(&path, 5, 8).unwrap();
        assert!(!data.is_new());
        assert_eq!((data.manifest().shards, data.data_id().unwrap(), data.incarnation()), (2, 7, Incarnation(1)));
    }

    #[test]
    fn above_each_directory_that_is_made_there_is_a_sync() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c");
        let mut synced = Vec::new();
        let mut make = |path: &Path| {
            let mut sync = |synced_path: &Path| {
                synced.push(synced_path.strip_prefix(root.path()).unwrap().to_owned());
                sync_directory(synced_path)
            };
            make_directory(path, &mut sync).unwrap();
            std::mem::take(&mut synced)
        };
        assert_eq!(make(&path), ["", "a", "a/b"].map(PathBuf::from), "each before what is in it");
        assert!(make(&path).is_empty(), "all of it was there");
        assert_eq!(make(&root.path().join("a/d")), [PathBuf::from("a")]);
    }

    #[test]
    fn a_second_broker_is_refused_and_told_who_holds_it() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path(), 1, 1).unwrap();
        let error = DataDir::open(root.path(), 1, 1).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        assert!(DataDir::open(root.path(), 1, 1).is_ok());
    }

    #[test]
    fn a_newer_format_is_refused_even_when_it_holds_more() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(MANIFEST), r#"{"format": 9, "what": "ever"}"#).unwrap();
        let error = DataDir::open(root.path(), 1, 1).unwrap_err();
        assert!(matches!(error, DataError::NewerFormat { found: 9, known: FORMAT, .. }), "{error}");
    }

    #[test]
    fn a_damaged_manifest_is_an_error_that_says_where() {
        for text in [
            "",
            "{",
            "{}",
            r#"{"format": 1}"#,
            r#"{"format":1,"data_id":"x","shards":1,"has_served":true,"incarnation":1,"clean":true}"#,
        ] {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join(MANIFEST), text).unwrap();
            let error = DataDir::open(root.path(), 1, 1).unwrap_err();
            assert!(matches!(error, DataError::Manifest { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn a_manifest_that_is_lost_is_to_be_restored() {
        for name in ["journal", "topics"] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join(name)).unwrap();
            let error = DataDir::open(root.path(), 1, 1).unwrap_err();
            assert!(matches!(&error, DataError::NoManifest { found, .. } if *found == name), "{error}");
            assert!(error.to_string().contains("restore corelane.json"), "{error}");
            assert!(!root.path().join(LOCK).exists());
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.odt"), "x").unwrap();
        let error = DataDir::open(root.path(), 1, 1).unwrap_err();
        assert!(matches!(&error, DataError::Foreign { found, .. } if found == "thesis.odt"), "{error}");
        assert!(!root.path().join(LOCK).exists());
        // Certificates alone may be anybody's; beside a lock of ours a first start left them.
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("tls")).unwrap();
        assert!(matches!(DataDir::open(root.path(), 1, 1), Err(DataError::Foreign { .. })));
        fs::write(root.path().join(LOCK), "1\n").unwrap();
        assert!(DataDir::open(root.path(), 1, 1).unwrap().is_new());
    }

    #[test]
    fn a_journal_that_is_gone_is_noticed_once_there_was_one() {
        let root = tempfile::tempdir().unwrap();
        let mut data = DataDir::open(root.path(), 2, 1).unwrap();
        data.check_journals().unwrap();
        data.update(|manifest| manifest.has_served = true).unwrap();
        for shard in ["0", "1"] {
            let error = data.check_journals().unwrap_err();
            assert!(matches!(&error, DataError::NoJournal { path } if path.ends_with(shard)), "{error}");
            let journal = data.path().join("journal").join(shard);
            fs::create_dir_all(&journal).unwrap();
            fs::write(journal.join("0"), "x").unwrap();
        }
        data.check_journals().unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = DataDir::open(&file, 1, 1).unwrap_err().to_string();
        assert!(error.contains("in the way"), "{error}");
    }
}
