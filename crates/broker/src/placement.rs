//! Which cores and how much memory this process may use: the scheduler's affinity, and the quotas of its control group.

use std::path::{Path, PathBuf};

/// The files in which Linux says what a process may use.
#[derive(Clone, Debug)]
pub(crate) struct System {
    root: PathBuf,
    affinity: Vec<usize>,
}

impl System {
    /// This process on this machine.
    pub(crate) fn this() -> Self {
        Self { root: PathBuf::from("/"), affinity: affinity() }
    }

    /// Cores that the affinity allows: the first thread of every physical core before any second thread, so that few
    /// shards do not share a core while another idles.
    pub(crate) fn cores(&self) -> Vec<usize> {
        let mut cores: Vec<(usize, usize)> =
            self.affinity.iter().map(|&core| (self.sibling_rank(core), core)).collect();
        cores.sort_unstable();
        cores.into_iter().map(|(_, core)| core).collect()
    }

    /// Whole cores of the smallest `cpu.max` between this process's control group and the root, at least 1.
    pub(crate) fn quota_cores(&self) -> Option<usize> {
        self.control_groups()
            .iter()
            .filter_map(|group| read(&group.join("cpu.max")))
            .filter_map(|text| quota(&text))
            .min()
    }

    /// The machine's memory, or the smallest `memory.max` between this process's control group and the root.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let limits =
            self.control_groups().into_iter().filter_map(|group| read(&group.join("memory.max"))?.trim().parse().ok());
        limits.chain(self.machine_memory()).min().unwrap_or(1 << 30)
    }

    fn machine_memory(&self) -> Option<u64> {
        let text = read(&self.root.join("proc/meminfo"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// Place of the core among the threads of its physical core.
    fn sibling_rank(&self, core: usize) -> usize {
        let path = format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        let siblings = read(&self.root.join(path)).map(|text| parse_list(&text)).unwrap_or_default();
        siblings.iter().position(|&sibling| sibling == core).unwrap_or(0)
    }

    /// Directories of the version 2 control groups from this process's own up to the root.
    fn control_groups(&self) -> Vec<PathBuf> {
        let Some(text) = read(&self.root.join("proc/self/cgroup")) else { return Vec::new() };
        let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
        let Some(mounts) = read(&self.root.join("proc/self/mounts")) else { return Vec::new() };
        let mount = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (point, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then_some(point)
        });
        let Some(mount) = mount else { return Vec::new() };
        let mount = self.root.join(mount.trim_start_matches('/'));
        let own = mount.join(own);
        own.ancestors().take_while(|group| group.starts_with(&mount)).map(Path::to_owned).collect()
    }
}

#[cfg(target_os = "linux")]
fn affinity() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect(),
        Err(_) => vec![0],
    }
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> Vec<usize> {
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `cpu.max` holds "quota period" in microseconds, or "max period".
fn quota(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let cores = quota.parse::<usize>().ok()?.checked_div(period.parse().ok()?)?;
    Some(cores.max(1))
}

/// A list such as `0-2,8`.
fn parse_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine in a directory: files and their contents.
    fn system(affinity: &[usize], files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let system = System { root: root.path().to_owned(), affinity: affinity.to_owned() };
        (root, system)
    }

    const MOUNTS: (&str, &str) =
        ("proc/self/mounts", "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
    const GROUP: (&str, &str) = ("proc/self/cgroup", "4:memory:/old\n0::/pod/broker\n");

    #[test]
    fn the_smallest_quota_on_the_way_to_the_root_counts() {
        let files = [
            MOUNTS,
            GROUP,
            ("sys/fs/cgroup/pod/broker/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/pod/cpu.max", "350000 100000\n"),
            ("sys/fs/cgroup/pod/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/pod/broker/memory.max", "max\n"),
            ("proc/meminfo", "MemTotal:       16000000 kB\n"),
        ];
        let (_root, system) = system(&[0, 1, 2, 3], &files);
        assert_eq!(system.quota_cores(), Some(3));
        assert_eq!(system.memory_bytes(), 1 << 30);
    }

    #[test]
    fn part_of_a_core_is_one_shard() {
        let (_root, system) = system(&[0, 1], &[MOUNTS, GROUP, ("sys/fs/cgroup/pod/broker/cpu.max", "50000 100000")]);
        assert_eq!(system.quota_cores(), Some(1));
    }

    #[test]
    fn without_files_only_the_affinity_counts() {
        let (_root, system) = system(&[2, 5], &[]);
        assert_eq!((system.quota_cores(), system.cores()), (None, vec![2, 5]));
    }

    #[test]
    fn whole_cores_come_before_their_second_threads() {
        let siblings = |core: usize, list: &'static str| {
            (format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"), list)
        };
        let files = [siblings(0, "0-1\n"), siblings(1, "0-1\n"), siblings(2, "2,3\n"), siblings(3, "2,3\n")];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let (_root, system) = system(&[0, 1, 2, 3], &files);
        assert_eq!(system.cores(), [0, 2, 1, 3]);
    }

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let system = System::this();
        assert!(!system.cores().is_empty());
        assert!((64 << 20) < system.memory_bytes());
    }
}
