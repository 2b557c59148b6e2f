//! Rules that tie the docs to the code.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{Tree, layers};

/// Last words of a constant's name that make it part of a format.
const FORMAT_WORDS: &[&str] = &["MAGIC", "FORMAT", "VERSION", "HEAD_BYTES", "HEADER_BYTES", "FOOTER_BYTES"];

/// Pages that must exist. Every other one is reached from them: see [`orphans`].
const PAGES: &[&str] = &[
    "README.md",
    "docs/architecture.md",
    "docs/configuration.md",
    "docs/CHANGELOG.md",
    "docs/CONTRIBUTING.md",
    "docs/decisions/README.md",
    "docs/delivery.md",
    "docs/glossary.md",
    "docs/groups.md",
    "docs/operations.md",
    "docs/queues.md",
    "docs/report.md",
    "docs/testing.md",
    "docs/topics.md",
    "docs/transactions.md",
    "docs/formats/catalog.md",
    "docs/formats/checkpoint.md",
    "docs/formats/frame.md",
    "docs/formats/group.md",
    "docs/formats/journal.md",
    "docs/formats/log-state.md",
    "docs/formats/queue.md",
    "docs/formats/record-batch.md",
    "docs/formats/segment.md",
    "docs/formats/storage-items.md",
    "docs/formats/transaction.md",
];

/// The longest that the bird's-eye view may be.
const ARCHITECTURE_LINES_MAX: usize = 500;

/// Checks that pages exist and that they know what the code has.
pub(super) fn check(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for page in PAGES.iter().filter(|page| !tree.root.join(page).is_file()) {
        findings.push(format!("{page} is missing"));
    }
    architecture(tree, &mut findings)?;
    formats(tree, &mut findings)?;
    dependencies(tree, &mut findings)?;
    links(tree, &mut findings)?;
    Ok(findings)
}

fn architecture(tree: &Tree, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let page = Path::new("docs/architecture.md");
    if !tree.root.join(page).is_file() {
        return Ok(());
    }
    let text = tree.text(page)?;
    let lines = text.lines().count();
    if ARCHITECTURE_LINES_MAX < lines {
        findings.push(format!("docs/architecture.md has {lines} lines; {ARCHITECTURE_LINES_MAX} is the end"));
    }
    for package in tree.metadata.workspace_packages() {
        let folder = package.manifest_path.parent().and_then(|folder| folder.strip_prefix(&tree.root).ok());
        if let Some(folder) = folder.filter(|folder| !text.contains(&format!("`{folder}`"))) {
            findings.push(format!("docs/architecture.md does not name `{folder}`"));
        }
    }
    Ok(())
}

/// Every constant that is part of a format stands in docs/formats under its own name.
fn formats(tree: &Tree, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let mut pages = String::new();
    for file in tree.files.iter().filter(|file| file.starts_with("docs/formats")) {
        pages.push_str(&tree.text(file)?);
    }
    for file in tree.rust_files() {
        // Whatever is laid on the wire or on disk is laid by a machine.
        let is_format = layers::machines().any(|name| file.starts_with(Path::new("crates").join(name).join("src")));
        if !is_format {
            continue;
        }
        for line in tree.text(file)?.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
            let Some(name) = constant(line) else { continue };
            if is_of_format(name) && !pages.contains(name) {
                findings
                    .push(format!("{}: {name} is part of a format that docs/formats does not name", file.display()));
            }
        }
    }
    Ok(())
}

fn is_of_format(constant: &str) -> bool {
    let ends = |word| constant.strip_suffix(word).is_some_and(|front: &str| front.is_empty() || front.ends_with('_'));
    FORMAT_WORDS.iter().any(|&word| ends(word))
}

/// The name of the constant that a line declares.
fn constant(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub(super) ")).unwrap_or(line);
    let line = line.strip_prefix("pub ").unwrap_or(line);
    line.strip_prefix("const ")?.split(':').next()
}

/// Each dependency of the workspace has its reason in the decision record about dependencies, or in one of its own.
fn dependencies(tree: &Tree, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let mut records = String::new();
    for file in tree.files.iter().filter(|file| file.starts_with("docs/decisions")) {
        records.push_str(&tree.text(file)?);
    }
    let manifest = tree.text("Cargo.toml".as_ref())?;
    let lines = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    for line in lines.take_while(|line| !line.starts_with('[')) {
        let Some((name, value)) = line.split_once(" = ") else { continue };
        if !value.contains("path =") && !records.contains(&format!("`{name}`")) {
            findings.push(format!("docs/decisions gives no reason for the dependency `{name}`"));
        }
    }
    Ok(())
}

/// Relative links between pages lead somewhere, and some link leads to each page.
fn links(tree: &Tree, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let mut reached = BTreeSet::new();
    for file in tree.files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = tree.text(file)?;
        for part in text.split("](").skip(1) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = resolved(file.parent().unwrap_or_else(|| Path::new("")), target);
            if !tree.root.join(&path).exists() {
                findings.push(format!("{}: the link to {target} leads nowhere", file.display()));
            }
            if path != *file {
                reached.insert(path);
            }
        }
    }
    orphans(tree, &reached, findings);
    Ok(())
}

/// Nobody finds a page in docs that no other page links to. Changes are read by whoever makes a release.
fn orphans(tree: &Tree, reached: &BTreeSet<PathBuf>, findings: &mut Vec<String>) {
    for file in tree.files.iter().filter(|file| file.starts_with("docs") && !file.starts_with("docs/changes")) {
        if file.extension().is_some_and(|extension| extension == "md") && !reached.contains(file) {
            findings.push(format!("{}: no page links to it", file.display()));
        }
    }
}

/// A link's target relative to the root.
fn resolved(folder: &Path, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_recognised() {
        assert_eq!(constant("    pub(crate) const JOURNAL_MAGIC: u32 = 7;"), Some("JOURNAL_MAGIC"));
        assert_eq!(constant("pub const BATCH_HEAD_BYTES: usize = 80;"), Some("BATCH_HEAD_BYTES"));
        assert_eq!(constant("let x = 1;"), None);
        assert!(is_of_format("HEAD_BYTES") && is_of_format("BATCH_HEAD_BYTES"));
        assert!(!is_of_format("QUEUE_READ_AHEAD_BYTES"), "the last word is another");
    }

    #[test]
    fn links_are_followed_from_their_page() {
        assert_eq!(resolved("docs/formats".as_ref(), "../groups.md"), Path::new("docs/groups.md"));
        assert_eq!(resolved("docs".as_ref(), "./formats/frame.md"), Path::new("docs/formats/frame.md"));
    }
}
