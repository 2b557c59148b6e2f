//! The floors of the house: which crate may import which. docs/architecture.md draws the same table for people.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cargo_metadata::{DependencyKind, Package, PackageId};

use super::Tree;

/// A crate's place.
struct Place {
    /// Its package.
    package: &'static str,
    /// 0 words, 1 one thing, 2 one core, 3 the world, 4 programs.
    floor: u8,
    /// Which of our packages it may import.
    may_import: &'static [&'static str],
}

const WORDS: &[&str] = &["corelane-model", "corelane-record", "corelane-wire", "corelane-telemetry"];

const PLACES: &[Place] = &[
    Place { package: "corelane-model", floor: 0, may_import: &[] },
    Place { package: "corelane-record", floor: 0, may_import: &["corelane-model"] },
    Place { package: "corelane-wire", floor: 0, may_import: &["corelane-model", "corelane-record"] },
    Place { package: "corelane-telemetry", floor: 0, may_import: &["corelane-model"] },
    Place { package: "corelane-commitlog", floor: 1, may_import: WORDS },
    Place { package: "corelane-journal", floor: 1, may_import: WORDS },
    Place { package: "corelane-group", floor: 1, may_import: WORDS },
    Place { package: "corelane-transaction", floor: 1, may_import: WORDS },
    Place { package: "corelane-queue", floor: 1, may_import: WORDS },
    Place { package: "corelane-catalog", floor: 1, may_import: WORDS },
    Place { package: "corelane-session", floor: 1, may_import: WORDS },
    Place { package: "corelane-client-core", floor: 1, may_import: WORDS },
    Place { package: "corelane-quic", floor: 1, may_import: WORDS },
    Place {
        package: "corelane-storage",
        floor: 2,
        may_import: &[
            "corelane-model",
            "corelane-record",
            "corelane-wire",
            "corelane-telemetry",
            "corelane-commitlog",
            "corelane-journal",
        ],
    },
    Place {
        package: "corelane-shard",
        floor: 2,
        may_import: &[
            "corelane-model",
            "corelane-record",
            "corelane-wire",
            "corelane-telemetry",
            "corelane-commitlog",
            "corelane-journal",
            "corelane-group",
            "corelane-queue",
            "corelane-transaction",
            "corelane-catalog",
            "corelane-session",
            "corelane-storage",
        ],
    },
    Place {
        package: "corelane-reactor",
        floor: 3,
        may_import: &[
            "corelane-model",
            "corelane-record",
            "corelane-wire",
            "corelane-telemetry",
            "corelane-commitlog",
            "corelane-journal",
            "corelane-catalog",
            "corelane-session",
            "corelane-quic",
            "corelane-storage",
            "corelane-shard",
        ],
    },
    Place {
        package: "corelane",
        floor: 3,
        may_import: &[
            "corelane-model",
            "corelane-record",
            "corelane-wire",
            "corelane-telemetry",
            "corelane-client-core",
        ],
    },
    Place {
        package: "corelane-sim",
        floor: 3,
        may_import: &[
            "corelane-model",
            "corelane-record",
            "corelane-wire",
            "corelane-telemetry",
            "corelane-commitlog",
            "corelane-journal",
            "corelane-group",
            "corelane-queue",
            "corelane-transaction",
            "corelane-catalog",
            "corelane-session",
            "corelane-client-core",
            "corelane-storage",
            "corelane-shard",
        ],
    },
    Place {
        package: "corelane-broker",
        floor: 4,
        may_import: &[
            "corelane-model",
            "corelane-record",
            "corelane-wire",
            "corelane-telemetry",
            "corelane-commitlog",
            "corelane-journal",
            "corelane-catalog",
            "corelane-session",
            "corelane-quic",
            "corelane-storage",
            "corelane-shard",
            "corelane-reactor",
        ],
    },
    Place {
        package: "corelane-loadgen",
        floor: 4,
        may_import: &["corelane", "corelane-model", "corelane-record", "corelane-telemetry"],
    },
    Place {
        package: "corelane-cli",
        floor: 4,
        may_import: &[
            "corelane-model",
            "corelane-record",
            "corelane-wire",
            "corelane-telemetry",
            "corelane-reactor",
            "corelane",
            "corelane-broker",
            "corelane-loadgen",
        ],
    },
    Place { package: "corelane-xtask", floor: 4, may_import: &["corelane-sim", "corelane-model"] },
];

/// Packages that only some of ours may name as a dependency.
const RESERVED: &[(&str, &[&str])] = &[
    ("glommio", &["corelane-reactor"]),
    ("io-uring", &["corelane-reactor"]),
    ("tokio", &["corelane", "corelane-loadgen", "corelane-cli"]),
    ("quinn", &["corelane"]),
    ("quinn-udp", &["corelane-reactor"]),
    ("anyhow", &["corelane-broker", "corelane-loadgen", "corelane-cli", "corelane-xtask"]),
];

/// What floors 0 to 2 may not even reach through others.
const ASYNC: &[&str] = &[
    "async-executor",
    "async-global-executor",
    "async-io",
    "async-std",
    "async-trait",
    "futures",
    "futures-core",
    "futures-lite",
    "futures-util",
    "glommio",
    "mio",
    "quinn",
    "smol",
    "tokio",
    "tokio-util",
];

/// Crates of floors 0 to 2, whose decisions must replay from a seed, by the names of their folders.
pub(super) fn machines() -> impl Iterator<Item = &'static str> {
    PLACES.iter().filter(|place| place.floor <= 2).filter_map(|place| place.package.strip_prefix("corelane-"))
}

/// Each forbidden edge by name.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let members: BTreeMap<&str, &Package> =
        tree.metadata.workspace_packages().into_iter().map(|package| (package.name.as_str(), package)).collect();
    let places: BTreeMap<&str, &Place> = PLACES.iter().map(|place| (place.package, place)).collect();
    let mut findings = Vec::new();
    for name in members.keys().filter(|name| !places.contains_key(*name)) {
        findings.push(format!("{name} has no floor: add it to the table of places with a decision record"));
    }
    for name in places.keys().filter(|name| !members.contains_key(*name)) {
        findings.push(format!("{name} is in the table of places but not in the workspace"));
    }
    for (name, package) in &members {
        let Some(place) = places.get(name) else { continue };
        edges(package, place, &places, &mut findings);
        if place.floor <= 2 {
            asynchronous(tree, package, &mut findings);
        }
    }
    findings
}

fn edges(package: &Package, place: &Place, places: &BTreeMap<&str, &Place>, findings: &mut Vec<String>) {
    for dependency in &package.dependencies {
        let to = dependency.name.as_str();
        let is_for_tests = dependency.kind == DependencyKind::Development;
        if let Some(target) = places.get(to) {
            if is_for_tests && place.floor < target.floor {
                findings.push(format!("{} may not import {to} for its tests: it is on a higher floor", place.package));
            }
            if !is_for_tests && !place.may_import.contains(&to) {
                findings.push(format!("{} may not import {to}", place.package));
            }
        }
        if let Some((_, allowed)) = RESERVED.iter().find(|(name, _)| *name == to)
            && !is_for_tests
            && !allowed.contains(&place.package)
        {
            findings.push(format!("{} may not import {to}: that is for {}", place.package, allowed.join(", ")));
        }
    }
}

/// Walks what a machine crate reaches in a normal build.
fn asynchronous(tree: &Tree, package: &Package, findings: &mut Vec<String>) {
    let Some(resolve) = &tree.metadata.resolve else { return };
    let nodes: HashMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: HashMap<&PackageId, &str> =
        tree.metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![&package.id];
    while let Some(id) = waiting.pop() {
        let Some(node) = nodes.get(id) else { continue };
        for dependency in &node.deps {
            let is_normal = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if is_normal && seen.insert(&dependency.pkg) {
                waiting.push(&dependency.pkg);
            }
        }
    }
    for id in seen {
        if let Some(name) = names.get(id).filter(|name| ASYNC.contains(name)) {
            findings.push(format!("{} reaches {name}: floors 0 to 2 know nothing of async", package.name));
        }
    }
}
