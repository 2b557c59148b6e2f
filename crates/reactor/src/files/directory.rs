//! Directories: made, synced and removed by the executor's plain thread, since the kernel has no asynchronous way.

use std::io;
use std::path::{Path, PathBuf};

use corelane_storage::FileError;

use super::os_error;

/// Runs what blocks on the executor's plain thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(work).await
}

/// Makes the directory and those above it below `root`; each new one's entry is on disk afterwards.
pub(super) async fn ensure_directory(root: &Path, directory: &Path) -> Result<(), FileError> {
    let (root, directory) = (root.to_owned(), directory.to_owned());
    blocking(move || ensure(&root, &directory)).await.map_err(|error| os_error(&error))
}

/// Puts the directory's entries on disk.
pub(super) async fn sync_directory(directory: &Path) -> Result<(), FileError> {
    let directory = directory.to_owned();
    blocking(move || sync(&directory)).await.map_err(|error| os_error(&error))
}

/// Removes a file, and the directories below `root` that are empty without it. No error if it is not there.
pub(super) async fn remove_file(root: &Path, path: PathBuf) -> Result<(), FileError> {
    let root = root.to_owned();
    blocking(move || remove(&root, &path)).await.map_err(|error| os_error(&error))
}

/// The files of a directory whose names are numbers, in order; none if there is no such directory.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u32>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn ensure(root: &Path, directory: &Path) -> io::Result<()> {
    if directory == root || directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(root);
    ensure(root, parent)?;
    match std::fs::create_dir(directory) {
        Ok(()) => {}
        // Another shard was quicker, and may not have synced it yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    sync(parent)
}

fn sync(directory: &Path) -> io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

fn remove(root: &Path, path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let kept = [root.to_owned(), root.join("topics"), root.join("journal")];
    let mut directory = path.parent();
    while let Some(empty) = directory.filter(|directory| !kept.iter().any(|kept| kept == directory)) {
        // Not empty, most often; whatever the reason, a directory that stays harms nobody.
        if std::fs::remove_dir(empty).is_err() {
            break;
        }
        directory = empty.parent();
    }
    Ok(())
}
