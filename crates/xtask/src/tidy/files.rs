//! Rules about files and what stands in them.

use std::path::{Component, Path};

use super::{Tree, layers};

/// A file with more lines has a seam that was not found yet.
const LINES_MAX: usize = 600;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager"];

/// The top level of the repository, dotfiles aside: `.deny.toml` is for those who have cargo-deny.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "bench",
    "crates",
    "docs",
    "loadgen",
    "tests",
];

/// What a machine must be handed instead of fetching it. Looked for outside of tests.
const FOREIGN_TO_MACHINES: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "RandomState::new",
    "thread_rng",
    "getrandom",
    "async fn",
    ".await",
];

/// Checks names, lengths, leftovers and words that are out of place.
pub(super) fn check(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    top_level(tree, &mut findings);
    for file in tree.rust_files() {
        let text = tree.text(file)?;
        let lines = text.lines().count();
        if LINES_MAX < lines {
            findings.push(format!("{} has {lines} lines; {LINES_MAX} is the end", file.display()));
        }
        if file.components().any(|part| is_empty_name(part)) {
            findings.push(format!("{} has a name that says nothing", file.display()));
        }
        leftovers(file, &text, &mut findings);
        out_of_place(file, &text, &mut findings);
    }
    Ok(findings)
}

fn top_level(tree: &Tree, findings: &mut Vec<String>) {
    let mut last = None;
    for file in &tree.files {
        let Some(Component::Normal(first)) = file.components().next() else { continue };
        let name = first.to_string_lossy();
        if last.as_deref() != Some(&*name) && !name.starts_with('.') && !TOP_LEVEL.contains(&&*name) {
            findings.push(format!("{name} stands at the top level, which is fixed"));
        }
        last = Some(name.into_owned());
    }
}

fn is_empty_name(part: Component<'_>) -> bool {
    let name = part.as_os_str().to_string_lossy();
    EMPTY_NAMES.contains(&name.trim_end_matches(".rs"))
}

fn leftovers(file: &Path, text: &str, findings: &mut Vec<String>) {
    // Spelled in halves, so that this file does not accuse itself.
    let words = [
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("TO", "DO"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
    ];
    for (number, line) in text.lines().enumerate() {
        if let Some(word) = words.iter().find(|word| line.contains(**word)) {
            findings.push(format!("{}:{}: {word} is left over", file.display(), number + 1));
        }
    }
}

fn out_of_place(file: &Path, text: &str, findings: &mut Vec<String>) {
    let parts = file.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>();
    let [top, crate_name, ..] = &parts[..] else { return };
    if top != "crates" {
        return;
    }
    let is_source = parts.get(2).is_some_and(|part| part == "src");
    let is_test = parts.iter().any(|part| matches!(&**part, "tests" | "tests.rs" | "benches" | "examples"));
    if crate_name == "xtask" {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if crate_name != "reactor" && has_word(code, "unsafe") && !code.contains("unsafe_code") {
            findings.push(format!("{}:{}: unsafe is for crates/reactor", file.display(), number + 1));
        }
        if line.contains("glommio::") && crate_name != "reactor" {
            findings.push(format!("{}:{}: glommio is for crates/reactor", file.display(), number + 1));
        }
    }
    if is_test || !is_source || !layers::machines().any(|machine| machine == crate_name) {
        return;
    }
    for (number, line) in text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]")) {
        let code = line.split("//").next().unwrap_or_default();
        if let Some(word) = FOREIGN_TO_MACHINES.iter().find(|word| stands_in(code, word)) {
            findings.push(format!("{}:{}: {word} is not for floors 0 to 2", file.display(), number + 1));
        }
    }
}

/// Whether the phrase stands in the code and does not go on as a longer name.
fn stands_in(code: &str, phrase: &str) -> bool {
    let mut rest = code;
    while let Some((_, after)) = rest.split_once(phrase) {
        if !after.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return true;
        }
        rest = after;
    }
    false
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_name_is_another_word() {
        assert!(stands_in("self.socket.recv().await?", ".await"));
        assert!(!stands_in("self.awaiting.push(1)", ".await"));
        assert!(has_word("unsafe { x }", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
    }
}
