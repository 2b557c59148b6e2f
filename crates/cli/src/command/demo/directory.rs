//! Where a demo's broker has its data. Nothing is removed that no demo has made.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::command::bench::lab::remove;
use crate::failure::{Failure, Outcome};

/// What a demo has below the directory that it is given.
const NAME: &str = "demo";
/// The file by which a demo knows its directory; whoever has it locked is at work there.
const MARK: &str = "made-by-corelane-demo";
/// The broker's data in there, which is all that a demo removes.
const DATA: &str = "data";

/// The directory of a demo that is at work.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked as long as this is here.
    _mark: File,
}

impl Directory {
    /// Takes `demo` below a directory and removes the data that an earlier demo has left in it.
    ///
    /// # Errors
    /// There is a `demo` that no demo has made, another demo is at work in it, or the operating system refuses it; then nothing
    /// was removed.
    pub(super) fn take(parent: &Path) -> Outcome<Self> {
        let path = parent.join(NAME);
        let refused = |error: io::Error| Failure::failed(format!("cannot use {}: {error}", path.display()));
        fs::create_dir_all(&path).map_err(refused)?;
        let mark = path.join(MARK);
        if !mark.exists() && fs::read_dir(&path).map_err(refused)?.next().is_some() {
            return Err(Failure::failed(format!(
                "{} holds something that no demo has made, and was left alone: remove it, or give another directory with \
                 --data",
                path.display()
            )));
        }
        let mark = OpenOptions::new().create(true).truncate(false).write(true).open(mark).map_err(refused)?;
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::failed(format!(
                    "another demo is at work in {}: wait for its end, or give another directory with --data",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
        let directory = Self { path, _mark: mark };
        remove(&directory.data()).map_err(|error| Failure::failed(format!("{error:#}")))?;
        Ok(directory)
    }

    /// The broker's data.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        path
    }

    #[test]
    fn a_demo_removes_what_an_earlier_one_left_and_nothing_beside_it() {
        let parent = tempfile::tempdir().unwrap();
        let foreign = write(parent.path().join("photos/ada.png"));
        let directory = Directory::take(parent.path()).unwrap();
        let (data, own) = (write(directory.data().join("journal/0")), write(directory.path.join("notes")));
        drop(directory);
        drop(Directory::take(parent.path()).unwrap());
        assert!(!data.exists(), "a demo begins afresh");
        assert!(foreign.exists() && own.exists(), "what is not the demo's stays");
    }

    #[test]
    fn a_directory_that_no_demo_has_made_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let foreign = write(parent.path().join("demo/data/ada.png"));
        let error = Directory::take(parent.path()).unwrap_err().to_string();
        assert!(error.contains("no demo has made") && error.contains("--data"), "{error}");
        assert!(foreign.exists() && !parent.path().join("demo").join(MARK).exists());
    }

    #[test]
    fn two_demos_do_not_share_a_directory() {
        let parent = tempfile::tempdir().unwrap();
        let first = Directory::take(parent.path()).unwrap();
        let kept = write(first.data().join("journal/0"));
        let error = Directory::take(parent.path()).unwrap_err().to_string();
        assert!(error.contains("another demo") && kept.exists(), "{error}");
    }
}
