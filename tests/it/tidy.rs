//! The house rules as a test: arrows, forbidden dependencies, sizes, and SPEC rules cited by tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest source file, in lines; tests apart.
const FILE_LINES_MAX: usize = 800;
/// Longest function, in lines, signature and braces included.
const FUNCTION_LINES_MAX: usize = 70;

/// The one file that builds the parts in a single reading from top to bottom: its functions are lists, not logic.
const RECIPE: &str = "node/src/assemble.rs";

/// Package, folder, and the house's packages that it may use.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("hie-protocol", "protocol", &[]),
    ("hie-consent", "consent", &["hie-protocol"]),
    ("hie-gateway-dialect", "gateway/dialect", &[]),
    (
        "hie-gateway",
        "gateway",
        &["hie-protocol", "hie-consent", "hie-gateway-dialect"],
    ),
    ("hie-node-federation", "node/federation", &["hie-protocol"]),
    (
        "hie-node-core",
        "node/core",
        &["hie-protocol", "hie-consent", "hie-node-federation"],
    ),
    ("hie-node-store", "node/store", &["hie-node-core", "hie-protocol"]),
    ("hie-node-pki", "node/pki", &["hie-protocol"]),
    (
        "hie-node-peer",
        "node/peer",
        &["hie-protocol", "hie-node-federation", "hie-node-pki"],
    ),
];

/// What a package must never depend on.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "protocol",
        &["tokio", "libp2p", "axum", "rocksdb", "rustls", "rand", "reqwest"],
    ),
    (
        "consent",
        &["tokio", "libp2p", "axum", "rocksdb", "rustls", "rand", "ring"],
    ),
    ("gateway/dialect", &["tokio", "axum", "libp2p", "rocksdb", "rustls"]),
    ("gateway", &["rocksdb", "libp2p"]),
    (
        "node/federation",
        &["tokio", "rand", "libp2p", "axum", "rocksdb", "rustls", "futures"],
    ),
    (
        "node/core",
        &["rocksdb", "libp2p", "axum", "rustls", "tokio-rustls", "axum-server"],
    ),
    ("node/store", &["libp2p", "axum", "rustls"]),
    ("node/pki", &["tokio", "libp2p", "axum", "rocksdb"]),
    ("node/peer", &["axum", "rocksdb"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every file below the workspace with that ending, relative to the root, sorted.
fn files(ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                folders.push(path);
            } else if name.ends_with(ending) {
                let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((relative, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn is_test_file(path: &str) -> bool {
    let frozen = path.ends_with("/vectors.rs") || path.contains("/vectors/");
    frozen || path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Names under `[dependencies]` of a manifest, dev-dependencies apart.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let mut names = BTreeSet::new();
    for section in ["dependencies", "build-dependencies"] {
        names.extend(
            manifest
                .get(section)
                .and_then(|table| table.as_table())
                .into_iter()
                .flat_map(|table| table.keys().cloned()),
        );
    }
    names
}

#[test]
fn spec_h_arrows_run_down() {
    for (package, folder, allowed) in ARROWS {
        let ours: Vec<String> = dependencies(folder)
            .into_iter()
            .filter(|name| name == "hie" || name.starts_with("hie-"))
            .collect();
        for name in ours {
            assert!(allowed.contains(&name.as_str()), "{package} must not use {name}");
        }
    }
}

#[test]
fn spec_h_fences_hold() {
    for (folder, forbidden) in FORBIDDEN {
        let names = dependencies(folder);
        for name in *forbidden {
            assert!(!names.contains(*name), "{folder} must not depend on {name}");
        }
    }
    let federation = files(".rs")
        .into_iter()
        .filter(|(path, _)| path.starts_with("node/federation/src"));
    for (path, text) in federation {
        for word in [
            "std::time",
            "HashMap",
            "HashSet",
            "std::thread",
            "SystemTime",
            "Instant",
        ] {
            let used = text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(word));
            assert!(!used, "{path} uses {word}");
        }
    }
}

#[test]
fn every_package_takes_the_workspace_lints() {
    for (package, folder, _) in ARROWS {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{package}");
    }
}

#[test]
fn rooms_are_small() {
    let mut faults = Vec::new();
    for (path, text) in files(".rs") {
        if is_test_file(&path) {
            continue;
        }
        let body = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = body.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{path} has {lines} lines"));
        }
        assert!(!path.ends_with("/mod.rs"), "{path}: write foo.rs beside foo/");
        for (name, length) in functions(body) {
            if length > FUNCTION_LINES_MAX && path != RECIPE {
                faults.push(format!("{path}: fn {name} has {length} lines"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Functions of a formatted source with their length: from the `fn` line to the closing brace of the same indent.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let head = code.split("fn ").next().unwrap_or_default();
        let plain = head
            .split_whitespace()
            .all(|word| matches!(word, "pub" | "async" | "const") || word.starts_with("pub("));
        if !code.contains("fn ") || !plain || code.ends_with(';') {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let close = format!("{indent}}}");
        if let Some(length) = lines[start..].iter().position(|next| **next == close) {
            let name = code.split("fn ").nth(1).unwrap_or_default();
            let name = name
                .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .next()
                .unwrap_or_default();
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

/// Measuring programs are no tests: they sample memory and kill at chosen moments, and run on request only.
fn is_measuring(path: &str) -> bool {
    path.starts_with("tests/bench/") || path == "tests/src/stage.rs"
}

#[test]
fn tests_neither_sleep_nor_hide() {
    for (path, text) in files(".rs") {
        let ignore = ["#[ig", "nore"].concat();
        assert!(!text.contains(&ignore), "{path} hides a test");
        if is_test_file(&path) && !is_measuring(&path) {
            for word in ["thread::sl", "time::sl"] {
                assert!(
                    !text.contains(&format!("{word}eep(")),
                    "{path} sleeps: wait for a condition or move the clock"
                );
            }
        }
    }
}

/// Rule ids as SPEC.md declares them: a list item that starts with the id in bold.
fn declared() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(root().join("SPEC.md")).unwrap();
    let mut rules = BTreeMap::new();
    for line in text.lines() {
        let Some((id, _)) = line.strip_prefix("- **").and_then(|rest| rest.split_once("**")) else {
            continue;
        };
        let shape = id
            .split_once('-')
            .is_some_and(|(part, name)| part.len() == 1 && !name.is_empty());
        let letters = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '-';
        if shape && id.chars().all(letters) {
            *rules.entry(id.to_owned()).or_default() += 1;
        }
    }
    rules
}

#[test]
fn every_rule_of_the_spec_is_cited_by_a_test() {
    let rules = declared();
    assert!(rules.len() >= 20, "SPEC.md declares {} rules", rules.len());
    let sources: String = files(".rs").into_iter().map(|(_, text)| text).collect();
    let mut uncited = Vec::new();
    for (id, times) in &rules {
        assert_eq!(*times, 1, "{id} is declared {times} times");
        let name = format!("fn spec_{}", id.to_lowercase().replace('-', "_"));
        if !sources.contains(&name) {
            uncited.push(id.clone());
        }
    }
    assert!(uncited.is_empty(), "no test cites {}", uncited.join(", "));
    for cited in sources.match_indices("fn spec_").map(|(at, _)| &sources[at + 8..]) {
        let name: String = cited
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect();
        if name.is_empty() {
            continue;
        }
        let known = rules
            .keys()
            .any(|id| name.starts_with(&id.to_lowercase().replace('-', "_")));
        assert!(known, "a test cites spec_{name}, which SPEC.md does not declare");
    }
}
