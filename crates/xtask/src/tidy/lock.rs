//! Rules about what `Cargo.lock` names.

use cargo_metadata::semver::Version;

use super::Tree;

/// Older versions have known security bugs.
const MINIMA: &[(&str, Version)] = &[("quinn-proto", Version::new(0, 11, 14)), ("rkyv", Version::new(0, 8, 17))];

/// Two copies of these would mean two worlds: sockets, archives or keys of one that the other does not know.
const SINGLE: &[&str] = &["bytes", "glommio", "quinn", "quinn-proto", "quinn-udp", "ring", "rkyv", "rustls", "tokio"];

/// What must not come in by any way.
const BANNED: &[&str] = &["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"];

/// Checks the packages that cargo resolved.
pub(super) fn check(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    let packages = lock_packages(&tree.text("Cargo.lock".as_ref())?)?;
    for (name, least) in MINIMA {
        for (_, version) in packages.iter().filter(|(found, version)| found == name && version < least) {
            findings.push(format!("Cargo.lock has {name} {version}; at least {least} is needed"));
        }
    }
    for name in SINGLE {
        let count = packages.iter().filter(|(found, _)| found == name).count();
        if 1 < count {
            findings.push(format!("Cargo.lock has {count} versions of {name}; there must be one"));
        }
    }
    for (name, version) in packages.iter().filter(|(name, _)| BANNED.contains(&&**name)) {
        findings.push(format!("Cargo.lock has {name} {version}, which is banned"));
    }
    Ok(findings)
}

/// The names and versions in a lock file, which cargo writes as one `name` and one `version` line for each package.
fn lock_packages(text: &str) -> anyhow::Result<Vec<(String, Version)>> {
    let mut packages = Vec::new();
    let mut name = None;
    for line in text.lines() {
        if let Some(value) = quoted(line, "name") {
            name = Some(value.to_owned());
        } else if let (Some(value), Some(name)) =
            (quoted(line, "version"), name.take_if(|_| line.starts_with("version")))
        {
            packages.push((name, Version::parse(value)?));
        }
    }
    Ok(packages)
}

fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_a_lock_file() {
        let text = "version = 4\n\n[[package]]\nname = \"rkyv\"\nversion = \"0.8.18\"\nsource = \"x\"\n";
        assert_eq!(lock_packages(text).unwrap(), [("rkyv".to_owned(), Version::new(0, 8, 18))]);
    }
}
