//! docs/doctor.md names every finding that the code has, and no other. Verdicts and errors are held against what real hosts
//! give by `tests/doctor`.

use std::{collections::BTreeSet, fs, path::Path};

use super::{place, text};

const ROOMS: [&str; 7] = ["online", "firewall", "tls", "dns", "resources", "logs", "beyond"];

/// Whether this is the name of a finding: `online.nothing-listens`.
fn is_id(word: &str) -> bool {
    let plain =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    word.split_once('.').is_some_and(|(room, name)| ROOMS.contains(&room) && plain(name))
}

/// The ids that stand in the code as literals, without that of tests.
fn in_code(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_code(&path, into);
        } else if !path.to_string_lossy().ends_with("tests.rs") {
            let source = fs::read_to_string(&path).unwrap();
            let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
            into.extend(source.split('"').filter(|word| is_id(word)).map(str::to_owned));
        }
    }
}

#[test]
fn every_finding_is_in_the_page() {
    let mut known = BTreeSet::new();
    in_code(&place("src/doctor"), &mut known);
    assert!(known.len() > 100, "the code is not read as it is written: {known:?}");
    let page = text("docs/doctor.md");
    let rows = page.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).filter(|id| is_id(id));
    let told: Vec<String> = rows.map(str::to_owned).collect();
    let twice: Vec<&String> = told.iter().filter(|id| told.iter().filter(|other| other == id).count() > 1).collect();
    assert!(twice.is_empty(), "in the page twice: {twice:?}");
    let told: BTreeSet<String> = told.into_iter().collect();
    let missing: Vec<&String> = known.difference(&told).collect();
    let gone: Vec<&String> = told.difference(&known).collect();
    assert!(missing.is_empty() && gone.is_empty(), "docs/doctor.md lacks {missing:?}, and tells of {gone:?}");
}
