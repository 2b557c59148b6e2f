//! What lies under a broker's data directory: a durable figure means nothing without it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// File system and device of a directory, as far as the operating system says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Type of the file system, such as `ext4`; tmpfs is no disk.
    pub file_system: Option<String>,
    /// The device.
    pub device: Option<String>,
    /// `write back` (a sync flushes the device's cache) or `write through`.
    pub write_cache: Option<String>,
}

impl Disk {
    /// Looks at the mount that `directory` lies on. What cannot be found out stays empty.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        let Ok(directory) = directory.canonicalize() else { return Self::default() };
        let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else { return Self::default() };
        // The longest mount point that contains the directory is the one that it lies on.
        let mount = mounts
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?, words.next()?, words.next()?))
            })
            .filter(|(_, point, _)| directory.starts_with(point.replace("\\040", " ")))
            .max_by_key(|(_, point, _)| point.len());
        let Some((device, _, file_system)) = mount else { return Self::default() };
        Self {
            file_system: Some(file_system.to_owned()),
            device: Some(device.to_owned()),
            write_cache: write_cache(device),
        }
    }
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or = |field: &Option<String>| field.clone().unwrap_or_else(|| "unknown".to_owned());
        write!(f, "{} on {}, write cache {}", or(&self.file_system), or(&self.device), or(&self.write_cache))
    }
}

/// What the block layer says of the device, or of the disk that the partition is part of.
fn write_cache(device: &str) -> Option<String> {
    let device = fs::canonicalize(device).ok()?;
    let name = device.file_name()?.to_str()?;
    let of = |path: std::path::PathBuf| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let block = Path::new("/sys/class/block").join(name).canonicalize().ok()?;
    of(block.join("queue/write_cache")).or_else(|| of(block.parent()?.join("queue/write_cache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_unknown_and_the_root_is_something() {
        assert_eq!(Disk::of(Path::new("/no such directory")), Disk::default());
        assert!(Disk::of(Path::new("/")).to_string().contains("write cache"));
    }
}
