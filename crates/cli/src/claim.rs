//! Directories for data that commands make and remove themselves. Nothing is removed that they have not made.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// What is in a claimed directory that its commands may remove.
const DATA: &str = "data";

/// Who makes directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// `corelane demo`.
    Demo,
    /// `corelane bench`.
    Bench,
}

impl Maker {
    const fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Bench => "bench",
        }
    }

    /// The file by which commands know a directory of theirs; whoever has it locked is at work there.
    fn mark(self) -> String {
        format!("made-by-corelane-{}", self.name())
    }
}

/// A directory that a command of ours made, and that is at work in it as long as this is here.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    /// Locked.
    _mark: File,
}

impl Claim {
    /// Takes a directory, making it if it does not exist, and removes the data that an earlier command has left in it.
    ///
    /// # Errors
    /// There is one that holds something and no mark of the maker, another command is at work in it, or the operating system
    /// refuses it; then nothing was removed.
    pub(crate) fn take(path: PathBuf, maker: Maker) -> anyhow::Result<Self> {
        let name = maker.name();
        let cannot_use = || format!("cannot use {}", path.display());
        fs::create_dir_all(&path).with_context(cannot_use)?;
        let mark = path.join(maker.mark());
        if !mark.exists() && fs::read_dir(&path).with_context(cannot_use)?.next().is_some() {
            bail!(
                "{} holds something that no {name} has made, and was left alone: remove it, or give another directory with \
                 --data",
                path.display()
            );
        }
        let mark = OpenOptions::new().create(true).truncate(false).write(true).open(mark).with_context(cannot_use)?;
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another {name} is at work in {}: wait for its end, or give another directory with --data",
                path.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot_use),
        }
        let claim = Self { path, _mark: mark };
        remove(&claim.data())?;
        Ok(claim)
    }

    /// The data in it: not there yet, and all that the next command removes.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
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
    fn a_command_removes_what_an_earlier_one_left_and_nothing_beside_it() {
        for maker in [Maker::Demo, Maker::Bench] {
            let parent = tempfile::tempdir().unwrap();
            let foreign = write(parent.path().join("photos/ada.png"));
            let path = parent.path().join("crash");
            let claim = Claim::take(path.clone(), maker).unwrap();
            let (data, own) = (write(claim.data().join("journal/0")), write(path.join("notes")));
            drop(claim);
            drop(Claim::take(path, maker).unwrap());
            assert!(!data.exists(), "it begins afresh");
            assert!(foreign.exists() && own.exists(), "what is not its own stays");
        }
    }

    #[test]
    fn a_directory_that_no_command_has_made_is_left_alone() {
        for maker in [Maker::Demo, Maker::Bench] {
            let parent = tempfile::tempdir().unwrap();
            let foreign = write(parent.path().join("crash/data/ada.png"));
            let error = Claim::take(parent.path().join("crash"), maker).unwrap_err().to_string();
            let parts = [format!("no {} has made", maker.name()), "--data".to_owned()];
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert!(foreign.exists() && !parent.path().join("crash").join(maker.mark()).exists());
        }
    }

    #[test]
    fn what_one_kind_of_command_made_is_not_the_others() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("crash");
        drop(Claim::take(path.clone(), Maker::Demo).unwrap());
        assert!(Claim::take(path, Maker::Bench).is_err());
    }

    #[test]
    fn two_commands_do_not_share_a_directory() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("crash");
        let first = Claim::take(path.clone(), Maker::Bench).unwrap();
        let kept = write(first.data().join("journal/0"));
        let error = Claim::take(path, Maker::Bench).unwrap_err().to_string();
        assert!(error.contains("another bench") && kept.exists(), "{error}");
    }
}
