//! What the machine offers, read once at boot.

use std::path::PathBuf;

use crate::placement;

/// What the machine offers to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Cores by the process's affinity, in the order in which shards should take them.
    pub cores: Vec<usize>,
    /// Whole cores that the control group's quota leaves, at least 1; `None` without a quota.
    pub quota_cores: Option<usize>,
    /// Memory that the process may use: the machine's, or the control group's limit.
    pub memory_bytes: u64,
    /// Where programs keep their data, if the environment says so.
    pub data_home: Option<PathBuf>,
}

impl Machine {
    /// The machine that this process runs on.
    #[must_use]
    pub fn this() -> Self {
        let system = placement::System::this();
        Self {
            cores: system.cores(),
            quota_cores: system.quota_cores(),
            memory_bytes: system.memory_bytes(),
            data_home: data_home(),
        }
    }

    /// Shards when nothing else is said: a core each, within the quota and the limit.
    #[must_use]
    pub fn shards_default(&self) -> usize {
        let quota = self.quota_cores.unwrap_or(usize::MAX);
        self.cores.len().min(quota).clamp(1, corelane_model::limits::SHARDS_MAX)
    }
}

fn data_home() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
}
