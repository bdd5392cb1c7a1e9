//! Every link within the project leads somewhere, and every page can be found from the README.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use super::place;

/// The targets of a page's links, but for those to other sites, code left out.
fn links(text: &str) -> Vec<String> {
    let mut prose = String::new();
    for (i, part) in text.split("```").enumerate() {
        prose.push_str(if i % 2 == 0 { part } else { "\n" });
    }
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|t| !t.contains("://") && !t.starts_with("mailto:")).map(str::to_owned).collect()
}

/// A heading as a link names it, in GitHub's way.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut all, part| {
        match part {
            Component::ParentDir => drop(all.pop()),
            Component::CurDir => {}
            other => all.push(other),
        }
        all
    })
}

fn pages(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|e| e == "md") {
            found.insert(path);
        }
    }
}

#[test]
fn every_link_leads_somewhere_and_every_page_is_found() {
    let mut all = BTreeSet::new();
    pages(&place("docs"), &mut all);
    all.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(place));
    let mut wrong = Vec::new();
    let (mut found, mut next) = (BTreeSet::new(), vec![place("README.md")]);
    while let Some(page) = next.pop() {
        if !found.insert(page.clone()) {
            continue;
        }
        for link in links(&fs::read_to_string(&page).unwrap()) {
            let (path, to) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { page.clone() } else { plain(&page.parent().unwrap().join(path)) };
            let is_page = target.extension().is_some_and(|e| e == "md");
            let Ok(there) = fs::read_to_string(&target) else {
                if !target.is_dir() {
                    wrong.push(format!("{}: {link} is not there", page.display()));
                }
                continue;
            };
            let headings = there.lines().filter(|l| l.starts_with('#')).map(|l| anchor(l.trim_start_matches('#')));
            if !to.is_empty() && is_page && !headings.collect::<Vec<_>>().contains(&to.to_owned()) {
                wrong.push(format!("{}: {link} names no heading", page.display()));
            }
            if is_page {
                next.push(target);
            }
        }
    }
    wrong.extend(all.difference(&found).map(|p| format!("no link leads to {}", p.display())));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
