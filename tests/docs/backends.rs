//! Every backend has what CONTRIBUTING.md asks for: a page, a row in the README, a link from the index, and a word in the
//! list of changes.

use edgeallow::{backends::registry, config::Config};

use super::{place, text};

#[test]
fn every_backend_is_told_of() {
    let (readme, index, changes) = (text("README.md"), text("docs/README.md"), text("CHANGELOG.md"));
    let mut missing = Vec::new();
    let all = registry(&Config::default(), &[]);
    assert!(!all.is_empty());
    for backend in all {
        let name = backend.meta().name;
        let page = format!("docs/backends/{name}.md");
        if !place(&page).is_file() {
            missing.push(page.clone());
        }
        for (file, has) in [
            ("README.md: a row", readme.contains(&format!("| [{name}]({page}) |"))),
            ("docs/README.md: a link", index.contains(&format!("](backends/{name}.md)"))),
            ("CHANGELOG.md: a word", changes.to_lowercase().contains(name)),
        ] {
            if !has {
                missing.push(format!("{file} for {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
