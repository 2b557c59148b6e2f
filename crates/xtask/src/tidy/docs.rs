//! Rules that tie the docs to the code.

use std::path::Path;

use super::Tree;

/// Crates that lay bytes on the wire or on disk.
const FORMATS: &[&str] = &["record", "wire", "journal", "storage", "commitlog", "catalog", "group", "queue"];

/// Ends of a constant's name that make it part of a format.
const FORMAT_WORDS: &[&str] = &["MAGIC", "FORMAT", "VERSION", "HEAD_BYTES", "HEADER_BYTES", "FOOTER_BYTES"];

/// Pages that must exist.
const PAGES: &[&str] = &[
    "README.md",
    "docs/architecture.md",
    "docs/glossary.md",
    "docs/testing.md",
    "docs/operations.md",
    "docs/CONTRIBUTING.md",
    "docs/CHANGELOG.md",
    "docs/formats/frame.md",
    "docs/formats/record-batch.md",
    "docs/formats/journal.md",
    "docs/formats/checkpoint.md",
    "docs/formats/segment.md",
    "docs/formats/catalog.md",
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
        let is_format = FORMATS.iter().any(|name| file.starts_with(Path::new("crates").join(name).join("src")));
        if !is_format {
            continue;
        }
        for line in tree.text(file)?.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
            let Some(name) = constant(line) else { continue };
            if FORMAT_WORDS.iter().any(|word| name.ends_with(word)) && !pages.contains(name) {
                findings
                    .push(format!("{}: {name} is part of a format that docs/formats does not name", file.display()));
            }
        }
    }
    Ok(())
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

/// Relative links between pages lead somewhere.
fn links(tree: &Tree, findings: &mut Vec<String>) -> anyhow::Result<()> {
    for file in tree.files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = tree.text(file)?;
        for part in text.split("](").skip(1) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let folder = file.parent().unwrap_or_else(|| Path::new(""));
            if !tree.root.join(folder).join(target).exists() {
                findings.push(format!("{}: the link to {target} leads nowhere", file.display()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_recognised() {
        assert_eq!(constant("    pub(crate) const JOURNAL_MAGIC: u32 = 7;"), Some("JOURNAL_MAGIC"));
        assert_eq!(constant("pub const BATCH_HEAD_BYTES: usize = 80;"), Some("BATCH_HEAD_BYTES"));
        assert_eq!(constant("let x = 1;"), None);
    }
}
