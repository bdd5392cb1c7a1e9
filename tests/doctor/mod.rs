//! `edgeallow doctor`: each cause is produced for real in a throwaway host, and must be named, by one room only.
//!
//! Belongs here: one file a room. Does not: what `verify` knows of rules (`tests/reach`).

mod beyond;
mod dns;
pub mod edge;
mod filters;
mod firewall;
mod footprints;
mod lacking;
mod logs;
mod online;
mod page;
mod resources;
mod servers;
pub mod site;
mod tls;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::Lab;

/// What comes a moment later has come by then, on a machine however busy.
const SETTLED: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SETTLED, "{what}: not within {SETTLED:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `edgeallow doctor --offline --format json`; its report.
pub fn doctor(lab: &Lab, args: &[&str]) -> Value {
    give_default_routes(lab);
    look(lab, args)
}

/// The same of a lab whose routes are as they are.
pub fn look(lab: &Lab, args: &[&str]) -> Value {
    let output = lab.edgeallow([&["doctor", "--offline", "--format", "json"], args].concat());
    let report = output.json();
    assert!(report["error"].is_null(), "{report:#}");
    list(&report["doctor"]["findings"]).iter().for_each(expect_documented);
    report["doctor"].clone()
}

/// As a host has that is to answer the whole Internet, where the lab has none yet.
pub fn give_default_routes(lab: &Lab) {
    const ROUTES: &str = "route add default via 192.0.2.2\nroute add ::/0 via 2001:db8:2::2\n";
    // Each may be there.
    drop(lab.command(["ip", "-force", "-batch", "-"]).stdin(ROUTES).run());
}

/// docs/doctor.md has a row for it: `| `id` | verdicts | errors | … |`.
fn expect_documented(finding: &Value) {
    const PAGE: &str = include_str!("../../docs/doctor.md");
    let id = finding["id"].as_str().expect("an id");
    let row = PAGE.lines().find(|l| l.starts_with(&format!("| `{id}` |"))).unwrap_or_else(|| panic!("{id} has no row"));
    let cells: Vec<Vec<&str>> = row.split('|').map(|cell| cell.split(',').map(str::trim).collect()).collect();
    assert!(cells[2].iter().any(|verdict| finding["verdict"] == *verdict), "{row}\n{finding:#}");
    for error in list(&finding["cloudflare_errors"]) {
        assert!(cells[3].contains(&error.to_string().as_str()), "{row}\n{finding:#}");
    }
}

/// The ids of the findings with this verdict, in order, without repetitions.
pub fn ids<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let mut ids: Vec<&str> =
        list(&report["findings"]).iter().filter(|f| f["verdict"] == verdict).filter_map(|f| f["id"].as_str()).collect();
    ids.dedup();
    ids
}

/// The report has to name exactly this cause, which gives this error; its finding.
pub fn expect_cause<'a>(report: &'a Value, id: &str, error: u16) -> &'a Value {
    assert_eq!(ids(report, "cause"), [id], "{report:#}");
    assert_eq!(report["conclusion"]["finding"], id, "{report:#}");
    let finding = list(&report["findings"]).iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id}"));
    assert!(list(&finding["cloudflare_errors"]).iter().any(|e| e == error), "{finding:#}");
    assert!(!list(&finding["evidence"]).is_empty(), "a cause without evidence: {finding:#}");
    assert!(finding["fix"]["text"].is_string(), "a cause without a fix: {finding:#}");
    assert!(report["conclusion"]["next"].is_string(), "a cause without a command: {finding:#}");
    finding
}

/// Types what the report says to run next; edgeallow's are told that there is no network.
pub fn follow(lab: &Lab, report: &Value) {
    let next = report["conclusion"]["next"].as_str().unwrap_or_else(|| panic!("nothing to run: {report:#}"));
    for command in next.split(" && ") {
        let mut words: Vec<&str> = command.split(' ').collect();
        if words[0] == "edgeallow" {
            words.push("--offline");
        }
        lab.run(words);
    }
}

/// A healthy host: no cause and no warning.
pub fn expect_healthy(report: &Value) {
    assert_eq!((ids(report, "cause"), ids(report, "warning")), (vec![], vec![]), "{report:#}");
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value:#}"))
}
