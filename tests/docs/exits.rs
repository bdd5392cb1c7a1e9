//! docs/exit-codes.md names every exit status and every kind of error, with the status that the code gives it.

use std::collections::BTreeMap;

use edgeallow::error::ErrorKind;

use super::text;

/// The first two cells of each row of the table under a heading.
fn rows(page: &str, heading: &str) -> BTreeMap<String, String> {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = rest.split("\n## ").next().unwrap();
    let cells = section.lines().filter(|l| l.starts_with('|')).skip(2).map(|l| {
        let mut cells = l.split('|').skip(1).map(|c| c.trim().trim_matches('`').to_owned());
        (cells.next().unwrap(), cells.next().unwrap())
    });
    cells.collect()
}

#[test]
fn every_kind_of_error_is_there_with_its_status() {
    let page = text("docs/exit-codes.md");
    let told = rows(&page, "Kinds of error");
    let known: BTreeMap<String, String> =
        ErrorKind::ALL.iter().map(|k| (k.as_str().to_owned(), (k.exit() as u8).to_string())).collect();
    assert_eq!(told, known);
}

#[test]
fn every_status_is_there_as_the_readme_and_the_help_tell_it() {
    let told = rows(&text("docs/exit-codes.md"), "Statuses");
    assert_eq!(told, rows(&text("README.md"), "Exit status"), "the README");
    let help = edgeallow::cli::definition().render_help().to_string();
    for status in told.keys() {
        let line = help.lines().any(|l| l.split_whitespace().next() == Some(status));
        assert!(line, "`edgeallow --help` doesn't tell status {status}");
    }
    for kind in ErrorKind::ALL {
        assert!(told.contains_key(&(kind.exit() as u8).to_string()), "{kind:?}");
    }
}
