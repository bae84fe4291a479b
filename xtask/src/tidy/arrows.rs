//! Who may know whom: rooms know only rooms below them, and few of them know the network.

use super::{Finding, Tree, room};

/// The one table of allowed edges: DESIGN's drawing in `ARCHITECTURE.md`, room by room. `types` and `proto` are open
/// to all. Order matters: it is the order of the floors, from the ground up; a room's tests may use any floor below it.
///
/// Beyond the drawing: `api` reads the state machine's reader and the store's records directly instead of through
/// re-exports of `node`, and `server` opens the store that it hands to the machine.
const EDGES: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("proto", &[]),
    ("env", &[]),
    ("wal", &["env"]),
    ("bolt", &["env"]),
    ("engine", &["env"]),
    ("mvcc", &["engine"]),
    ("machine", &["mvcc", "engine", "bolt"]),
    ("node", &["wal", "machine", "mvcc", "env"]),
    ("trust", &[]),
    ("peers", &["env", "trust"]),
    ("api", &["node", "machine", "mvcc", "trust"]),
    ("client", &["trust"]),
    ("proxy", &["client", "api"]),
    ("server", &["api", "peers", "node", "machine", "mvcc", "wal", "engine", "bolt", "client", "env", "proxy"]),
    ("utl", &["machine", "mvcc", "engine", "bolt", "wal", "env"]),
    ("ctl", &["client"]),
    ("bench", &["client"]),
    ("bin", &["server", "ctl", "utl", "bench"]),
    ("xtask", &[]),
    ("test", &["node", "machine", "mvcc", "engine", "wal", "env"]),
];

const OPEN_TO_ALL: &[&str] = &["types", "proto"];

/// Libraries that stop at certain rooms: name or start of a name, rooms, reason.
const WORLD: &[(&str, &[&str], &str)] = &[
    ("tonic", &["api", "peers", "client"], "gRPC stops at the doors: handlers stay free to move to another transport"),
    ("hyper", &["api", "peers", "client"], "HTTP stops at the doors"),
    ("rustls", &["api", "peers", "client", "trust"], "TLS stops at the doors"),
    ("tokio-rustls", &["api", "peers", "client"], "TLS stops at the doors"),
    ("h2", &["api", "peers", "client", "bench"], "HTTP/2 stops at the doors and the load generator"),
    (
        "tokio",
        &["api", "peers", "client", "server", "node", "ctl", "bench"],
        "what decides is synchronous; only shells wait",
    ),
    ("raft", &["node"], "one room knows the consensus library"),
    ("heed", &["engine"], "one room knows the embedded store"),
    ("lmdb", &["engine"], "one room knows the embedded store"),
];

/// All violations in the manifests of `tree`.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending("Cargo.toml") {
        // The workspace's own manifest lists versions, it depends on nothing.
        if path == "Cargo.toml" {
            continue;
        }
        let from = room(path);
        let Some(floor) = EDGES.iter().position(|(name, _)| *name == from) else {
            let text = format!("room {from:?} is not in the table of arrows: add it to xtask/src/tidy/arrows.rs");
            findings.push(Finding::error(path, 1, text));
            continue;
        };
        for dependency in dependencies(text) {
            if let Some(complaint) = complaint(floor, &dependency) {
                findings.push(Finding::error(path, dependency.line, complaint));
            }
        }
        if !inherits_lints(text) {
            findings.push(Finding::error(path, 1, "lints are not the workspace's: add [lints] workspace = true"));
        }
    }
    findings
}

fn complaint(floor: usize, dependency: &Dependency) -> Option<String> {
    let (from, allowed) = EDGES[floor];
    let Some(to) = dependency.name.strip_prefix("milepost-") else { return world(from, dependency) };
    let below = EDGES[..floor].iter().any(|(name, _)| *name == to);
    let fine = if dependency.tests_only { below } else { allowed.contains(&to) || OPEN_TO_ALL.contains(&to) };
    if fine {
        return None;
    }
    let kind = if dependency.tests_only { "tests of " } else { "" };
    Some(format!("{kind}{from} must not know {to}: a new arrow is a decision, and a line in xtask/src/tidy/arrows.rs"))
}

fn world(from: &str, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    let is = |known: &str| name == known || name.strip_prefix(known).is_some_and(|tail| tail.starts_with('-'));
    // The longest match decides: tokio-rustls is TLS before it is tokio.
    let (known, rooms, reason) =
        WORLD.iter().filter(|(known, _, _)| is(known)).max_by_key(|(known, _, _)| known.len())?;
    if rooms.contains(&from) {
        return None;
    }
    Some(format!("{from} must not use {name}: {reason} ({known} only in {})", rooms.join(", ")))
}

struct Dependency {
    name: String,
    line: usize,
    tests_only: bool,
}

/// The dependencies of a manifest, as our manifests write them: one per line in a section, or a section of their own.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut section = None;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            // [target.'cfg(…)'.dependencies], [dependencies.name]
            let kind = ["build-dependencies", "dev-dependencies", "dependencies"]
                .into_iter()
                .find(|kind| header.split('.').any(|part| part == *kind));
            section = kind;
            if let Some((head, name)) = header.rsplit_once('.')
                && kind.is_some_and(|kind| head.ends_with(kind))
            {
                let tests_only = kind == Some("dev-dependencies");
                found.push(Dependency { name: unquoted(name), line: index + 1, tests_only });
                section = None;
            }
            continue;
        }
        // Build scripts run at home, before there is a server: only rooms and tests are of interest.
        let (Some(kind @ ("dependencies" | "dev-dependencies")), Some((name, _))) = (section, line.split_once('='))
        else {
            continue;
        };
        let name = name.trim().split('.').next().unwrap_or("");
        found.push(Dependency { name: unquoted(name), line: index + 1, tests_only: kind == "dev-dependencies" });
    }
    found
}

fn unquoted(name: &str) -> String {
    name.trim_matches('"').to_owned()
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty()).is_some_and(|line| line.replace(' ', "") == "workspace=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, dependencies: &str) -> Vec<String> {
        let manifest = format!("[package]\nname = \"x\"\n{dependencies}\n[lints]\nworkspace = true\n");
        let tree = Tree::planted(&[(path, &manifest)]);
        check(&tree).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_found_with_its_line() {
        let found = complaints(
            "crates/mvcc/Cargo.toml",
            "[dependencies]\nmilepost-engine.workspace = true\nmilepost-wal = { path = \"../wal\" }",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("crates/mvcc/Cargo.toml:5: mvcc must not know wal"), "{found:?}");
        assert_eq!(complaints("crates/mvcc/Cargo.toml", "[dependencies.milepost-node]\npath = \"../node\"").len(), 1);
        assert_eq!(complaints("crates/types/Cargo.toml", "[dependencies]\nmilepost-env.workspace = true").len(), 1);
    }

    #[test]
    fn tests_may_look_down_but_not_up() {
        let with = |name: &str| format!("[dev-dependencies]\n{name}.workspace = true");
        assert!(complaints("crates/mvcc/Cargo.toml", &with("milepost-env")).is_empty());
        assert!(
            complaints("crates/mvcc/Cargo.toml", &with("milepost-node"))[0].contains("tests of mvcc must not know")
        );
        assert_eq!(complaints("crates/mvcc/Cargo.toml", &with("milepost-mvcc")).len(), 1);
    }

    #[test]
    fn libraries_stop_at_their_rooms() {
        let with = |name: &str| format!("[dependencies]\n{name} = \"1\"");
        for name in
            ["tonic", "tonic-prost", "hyper", "hyper-util", "h2", "tokio", "tokio-util", "rustls", "raft", "heed"]
        {
            assert_eq!(complaints("crates/machine/Cargo.toml", &with(name)).len(), 1, "{name}");
        }
        assert!(complaints("crates/machine/Cargo.toml", &with("raftable")).is_empty());
        assert!(complaints("crates/api/Cargo.toml", &with("tonic")).is_empty());
        assert!(complaints("crates/bench/Cargo.toml", &with("h2")).is_empty());
        assert_eq!(complaints("crates/bench/Cargo.toml", &with("tonic")).len(), 1);
        assert!(complaints("crates/bench/Cargo.toml", &with("tokio-rustls"))[0].contains("TLS"));
        assert_eq!(complaints("crates/mvcc/Cargo.toml", "[target.'cfg(unix)'.dependencies]\ntokio = \"1\"").len(), 1);
    }

    #[test]
    fn comments_and_build_scripts_are_no_arrows() {
        assert!(complaints("crates/wal/Cargo.toml", "[dependencies]\n# milepost-node = \"1\"").is_empty());
        assert!(complaints("crates/wal/Cargo.toml", "[build-dependencies]\ntonic-prost-build = \"1\"").is_empty());
    }

    #[test]
    fn unknown_rooms_and_own_lints_are_found() {
        assert!(complaints("crates/attic/Cargo.toml", "")[0].contains("\"attic\" is not in the table"));
        let tree = Tree::planted(&[("crates/wal/Cargo.toml", "[package]\n[lints.rust]\nunsafe_code = \"allow\"\n")]);
        assert!(check(&tree)[0].to_string().contains("lints are not the workspace's"));
    }

    #[test]
    fn the_table_itself_points_down() {
        for (floor, (from, allowed)) in EDGES.iter().enumerate() {
            for to in *allowed {
                assert!(EDGES[..floor].iter().any(|(name, _)| name == to), "{from} → {to} does not point down");
            }
        }
    }
}
