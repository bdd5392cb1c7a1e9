//! How these tests call edgeallow, and the lists they hand it.

use serde_json::Value;

use crate::lab::{EDGES, LISTENING, Lab, Output, Reach, STRANGERS, Table};

/// The ports that edgeallow opens unless told otherwise.
pub const PORTS: [u16; 2] = [80, 443];

/// The ranges that Cloudflare published in autumn 2026.
pub const PUBLISHED: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

/// Writes a list of these prefixes on top of the published ones, and returns its path in the lab.
pub fn list_with(lab: &Lab, name: &str, more: &[&str]) -> String {
    let path = format!("/run/lists/{name}");
    lab.write_file(&path, PUBLISHED.iter().chain(more).map(|p| format!("{p}\n")).collect::<String>());
    path
}

/// `edgeallow sync --offline --format json` with more arguments, whatever comes of it.
pub fn try_sync(lab: &Lab, args: &[&str]) -> Output {
    lab.edgeallow([&["sync", "--offline", "--format", "json"], args].concat())
}

/// The same, which has to succeed; the report.
pub fn sync(lab: &Lab, args: &[&str]) -> Value {
    try_sync(lab, args).expect_ok().json()
}

/// `edgeallow status --offline`: its exit status has to be this one.
pub fn expect_status(lab: &Lab, status: i32) {
    lab.edgeallow(["status", "--offline", "--format", "json"]).expect(status);
}

/// `edgeallow remove`, which has to succeed; the report.
pub fn remove(lab: &Lab, args: &[&str]) -> Value {
    lab.edgeallow([&["remove", "--format", "json"], args].concat()).expect_ok().json()
}

/// A backend's part of a report.
pub fn part_of<'a>(report: &'a Value, backend: &str) -> &'a Value {
    let all = report["backends"].as_array().unwrap_or_else(|| panic!("no backends in {report:#}"));
    all.iter().find(|b| b["name"] == backend).unwrap_or_else(|| panic!("no backend {backend} in {report:#}"))
}

/// Who reaches what: every Cloudflare address and stranger, every port that something listens on.
pub fn reach(lab: &Lab) -> Table {
    lab.table(&[EDGES.as_slice(), &STRANGERS].concat(), &LISTENING)
}

/// What a sync has to make of that: Cloudflare is answered on [`PORTS`], and nothing else is different.
pub fn opened(before: &Table) -> Table {
    let mut after = before.clone();
    for ((from, port), reach) in &mut after.0 {
        if EDGES.contains(&from.as_str()) && PORTS.contains(port) {
            *reach = Reach::Accepted;
        }
    }
    after
}

/// Fails unless the two tables are the same.
pub fn expect_reach(lab: &Lab, expected: &Table, when: &str) {
    let now = reach(lab);
    assert!(now == *expected, "{when}: expected{expected:?}\nbut it is{now:?}\nrules:\n{:?}", lab.rules());
}
