//! What goes out beside the report, on real hosts: logs, metrics, hooks. Whatever goes wrong with them, the firewall is
//! open, the report is whole, and the exit status is the run's own.

mod files;
mod hooks;
mod logs;
mod webhook;

use serde_json::Value;

use crate::{
    lab::{EDGES, Lab, Output},
    run::{PORTS, list_with},
};

/// The address that nobody but the webhook's owner may learn.
const SECRET: &str = "T0-secret-B0";

const FIREWALL: &str = "table inet filter {\n chain input {\n  type filter hook input priority filter; policy drop;\n  \
                        iif lo accept\n }\n}\n";

/// A host whose firewall turns everybody away, and a configuration with these lines.
fn host(config: &str) -> Lab {
    let lab = Lab::new();
    lab.feed(["nft", "-f", "-"], FIREWALL);
    configure(&lab, config);
    lab
}

fn configure(lab: &Lab, config: &str) {
    lab.write_file("/etc/edgeallow/config.toml", format!("{config}\n[nftables]\npersist = \"none\"\n"));
}

/// A sync that may use the network, with a list that has this prefix besides the published ones.
fn sync_to(lab: &Lab, prefix: &str, args: &[&str]) -> Output {
    let list = list_with(lab, "list", &[prefix]);
    lab.edgeallow([&["sync", "--format", "json", "--list", &list], args].concat())
}

/// A sync that did its work, whatever else went wrong; its report.
fn done(lab: &Lab, output: Output) -> Value {
    let report = output.expect_ok().json();
    assert_eq!(report["error"], Value::Null, "{report:#}");
    let table = lab.table(&EDGES, &PORTS);
    assert!(table.all_accepted(), "{table:?}");
    report
}

/// The warnings of an id.
fn warnings(report: &Value, id: &str) -> Vec<String> {
    let all = report["warnings"].as_array().unwrap_or_else(|| panic!("no warnings in {report:#}"));
    let texts = all.iter().filter(|w| w["id"] == id).map(|w| w["message"].as_str().unwrap_or_default().to_owned());
    texts.collect()
}
