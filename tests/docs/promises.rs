//! docs/promises.md: every promise names tests, and every test that it names is there and is run.

use super::text;

/// Whether a file has a test of that name: marked as one, or handed to a macro that makes tests of it.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|l| l.starts_with(&format!("fn {name}("))) else { return false };
    let attributes = lines[..at].iter().rev().take_while(|l| l.starts_with("#[") || l.starts_with("//"));
    let mut marked = attributes.filter(|l| l.starts_with("#[")).copied();
    let listed = || lines.iter().any(|l| *l == format!("{name},") || *l == name);
    marked.any(|l| l == "#[test]") || listed()
}

/// What a page lists under each `### promise`: file and name of each test.
fn promises(page: &str) -> Vec<(String, Vec<(String, String)>)> {
    let sections = page.split("\n### ").skip(1).map(|s| s.split("\n## ").next().unwrap());
    let read = |section: &str| {
        let (title, body) = section.split_once('\n').unwrap();
        let proofs = body.lines().filter_map(|l| l.strip_prefix("- `"));
        let proofs = proofs.flat_map(|l| {
            let words: Vec<String> = l.split('`').step_by(2).map(str::to_owned).collect();
            let file = words[0].clone();
            words[1..].iter().filter(|w| !w.is_empty()).map(|w| (file.clone(), w.clone())).collect::<Vec<_>>()
        });
        (title.to_owned(), proofs.collect())
    };
    sections.map(read).collect()
}

#[test]
fn every_promise_names_tests_that_there_are() {
    let promises = promises(&text("docs/promises.md"));
    assert!(promises.len() > 15, "the page is not read as it is written: {promises:?}");
    let mut wrong = Vec::new();
    for (promise, proofs) in &promises {
        if proofs.is_empty() {
            wrong.push(format!("no test proves: {promise}"));
        }
        for (file, name) in proofs {
            if !is_test(&text(file), name) {
                wrong.push(format!("{promise}: no test {name} in {file}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_page_is_read_as_it_is_written() {
    let page = "# T\n\n### One\nWhy.\n\n- `a.rs`: `x`, `y`\n- `b.rs`: `z`\n\n### Two\n\n## Not this\n- `c.rs`: `n`\n";
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let one = vec![pair("a.rs", "x"), pair("a.rs", "y"), pair("b.rs", "z")];
    assert_eq!(promises(page), [("One".to_owned(), one), ("Two".to_owned(), vec![])]);
}

#[test]
fn a_function_is_not_a_test_yet() {
    let source = "claims! {\n    listed,\n}\nfn listed() {}\n#[test]\nfn marked() {}\nfn helper() {}\n";
    let found: Vec<bool> = ["listed", "marked", "helper", "missing"].map(|n| is_test(source, n)).to_vec();
    assert_eq!(found, [true, true, false, false]);
}
