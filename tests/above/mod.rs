//! Tools above the packet filters, for real: a fail2ban that bans, an Apache that answers 403.
//!
//! They refuse for another reason than a packet filter, and some of what they did can't be put back (a ban that was
//! lifted), so they have claims of their own instead of the conformance suite's.

pub mod fail2ban;
pub mod mod_evasive;
#[cfg(feature = "fault-injection")]
mod struck;

use serde_json::Value;

use crate::{lab::Lab, run::part_of};

/// The backends that are covered here.
pub const BACKENDS: [&str; 2] = ["fail2ban", "mod_evasive"];

/// Where nothing of edgeallow's is, nothing waits for the tool to be started, whatever is looked for.
fn expect_nothing_of_ours(lab: &Lab, backend: &str) {
    for command in [&["remove"][..], &["remove", "--dry-run"]] {
        let report = lab.edgeallow([command, &["--format", "json"]].concat()).expect_ok().json();
        let part = part_of(&report, backend);
        assert_eq!((&part["state"], &part["reason"]), (&"in_sync".into(), &Value::Null), "{command:?}: {report:#}");
    }
    let report = lab.edgeallow(["status", "--offline", "--format", "json"]).expect(6).json();
    let part = part_of(&report, backend);
    let stored = part["reason"].as_str().is_some_and(|r| r.contains("stored"));
    assert!(part["state"] == "planned" && !stored, "{report:#}");
}
