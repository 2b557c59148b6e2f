//! What no compiler checks. Each rule yields findings; one finding fails the task.
//!
//! A new rule starts as a ratchet: today's offenders are listed in the rule, and the list may only shrink.

mod docs;
mod files;
mod layers;
mod lock;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cargo_metadata::{Metadata, MetadataCommand};

use crate::root;

/// The platform whose dependencies are judged: the broker's.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Where the rules find what they check.
struct Tree {
    root: PathBuf,
    metadata: Metadata,
    /// Every file that git knows, relative to the root.
    files: Vec<PathBuf>,
}

impl Tree {
    fn read() -> anyhow::Result<Self> {
        let root = root();
        let metadata = MetadataCommand::new()
            .current_dir(&root)
            // Without a platform the graph holds what only other platforms need.
            .other_options(["--locked", "--filter-platform", PLATFORM].map(str::to_owned).to_vec())
            .exec()
            .context("cargo metadata failed; is Cargo.lock up to date?")?;
        let listed = std::process::Command::new("git")
            .current_dir(&root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .context("cannot start git")?;
        let mut files = if listed.status.success() {
            let names = String::from_utf8(listed.stdout).context("a file name is not UTF-8")?;
            names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect::<Vec<_>>()
        } else {
            bail!("git cannot list the files of {}", root.display());
        };
        files.retain(|file| root.join(file).is_file());
        files.sort();
        files.dedup();
        Ok(Self { root, metadata, files })
    }

    fn text(&self, file: &Path) -> anyhow::Result<String> {
        std::fs::read_to_string(self.root.join(file)).with_context(|| format!("cannot read {}", file.display()))
    }

    fn rust_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
    }
}

/// Checks all rules and prints every finding.
pub(crate) fn run() -> anyhow::Result<()> {
    let tree = Tree::read()?;
    let mut findings = layers::check(&tree);
    findings.extend(files::check(&tree)?);
    findings.extend(lock::check(&tree)?);
    findings.extend(docs::check(&tree)?);
    for finding in &findings {
        println!("tidy: {finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} findings"),
    }
}
