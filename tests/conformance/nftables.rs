//! Hosts guarded by native nftables, with the configuration loaded by hand or by systemd.

use serde_json::Value;

use super::{Drift, Kind};
use crate::lab::{Lab, STRANGER4, STRANGER6};

/// No service manager: what loads the rules at boot is `nft -f` of the distribution's configuration.
pub const WITH_INCLUDE: Nftables = Nftables { systemd: false };
/// systemd runs nftables.service.
pub const WITH_SYSTEMD: Nftables = Nftables { systemd: true };

pub struct Nftables {
    systemd: bool,
}

/// The distribution's configuration, with an administrator's rules.
pub const CONFIGURATION: &str = "/etc/nftables.conf";
/// The unit that Debian's and Ubuntu's package `nftables` brings.
const UNIT: &str = "/usr/lib/systemd/system/nftables.service";
const DROP_INS: &str = "/etc/systemd/system/nftables.service.d";

/// What stands in for systemctl: there is no service manager in a lab to talk to.
const SYSTEMCTL: &str = "#!/bin/sh
case \"$1\" in
    is-enabled) echo enabled ;;
    is-active) echo active ;;
esac
exit 0
";

/// An administrator's rules: some before the place where ours belong, some after.
pub fn administrators_rules() -> String {
    format!(
        "#!/usr/sbin/nft -f
# what the administrator wants
flush ruleset

table inet filter {{
    set banned {{
        type ipv4_addr
        elements = {{ {STRANGER4} }}
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iif \"lo\" accept
        ct state vmap {{ established : accept, related : accept, invalid : drop }}
        ip saddr @banned counter drop comment \"a stranger's ban\"
        ip6 saddr {STRANGER6} drop
        meta l4proto {{ icmp, ipv6-icmp }} accept
        tcp dport 22 accept
        ip saddr 192.0.2.2 tcp dport 8443 accept
        counter comment \"what falls through\"
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
    }}
}}
table ip mine {{
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
    }}
}}
"
    )
}

impl Kind for Nftables {
    fn backend(&self) -> &'static str {
        "nftables"
    }

    fn folder(&self) -> &'static str {
        "/etc/edgeallow"
    }

    fn setup(&self, lab: &Lab) {
        lab.write_file(CONFIGURATION, administrators_rules());
        lab.chmod(CONFIGURATION, 0o755);
        if self.systemd {
            lab.files(|| std::fs::create_dir_all("/run/systemd/system"));
            lab.write_file("/usr/bin/systemctl", SYSTEMCTL);
            lab.chmod("/usr/bin/systemctl", 0o755);
        }
        self.boot(lab);
    }

    fn drifts(&self) -> Vec<Drift> {
        let mut drifts = vec![
            Drift::new("a rule of ours is deleted", |lab| delete_rules(lab, 1)),
            Drift::new("all rules of ours are deleted", |lab| delete_rules(lab, usize::MAX)),
            Drift::new("a range is missing from a set", |lab| {
                each_set(lab, "delete", "173.245.48.0/20", "2400:cb00::/32")
            }),
            Drift::new("a range too many is in a set", |lab| {
                each_set(lab, "add", "203.0.113.0/24", "2001:db8:bad::/48")
            }),
            Drift::new("the administrator puts a rule before ours", |lab| {
                let rule = ["ip", "saddr", "173.245.48.0/20", "tcp", "dport", "443", "drop"];
                lab.run([["nft", "insert", "rule", "inet", "filter", "input"].as_slice(), &rule].concat());
            }),
            Drift::new("everything is flushed and the old configuration loaded", |lab| {
                lab.run(["nft", "flush", "ruleset"]);
                lab.feed(["nft", "-f", "-"], &administrators_rules());
            }),
            Drift::new("the stored file is gone", |lab| {
                let file = stored(lab);
                lab.files(|| std::fs::remove_file(file));
            }),
            Drift::new("the stored file is cut short", |lab| {
                let file = stored(lab);
                let first = lab.read_file(&file).lines().next().map(|l| format!("{l}\n"));
                lab.write_file(&file, first.expect("a first line"));
            }),
        ];
        if self.systemd {
            drifts.push(Drift::new("the drop-in is gone", |lab| lab.files(|| std::fs::remove_dir_all(DROP_INS))));
        } else {
            drifts.push(Drift::new("the administrator's configuration is written anew", |lab| {
                lab.write_file(CONFIGURATION, administrators_rules());
            }));
        }
        drifts
    }

    fn reload(&self, lab: &Lab) {
        if self.systemd { service(lab, &["ExecReload"]) } else { drop(lab.run(["nft", "-f", CONFIGURATION])) }
    }

    fn boot(&self, lab: &Lab) {
        lab.run(["nft", "flush", "ruleset"]);
        if self.systemd {
            service(lab, &["ExecStart", "ExecStartPost"]);
        } else {
            lab.run(["nft", "-f", CONFIGURATION]);
        }
    }
}

/// The file under `/etc/edgeallow/nftables/`: there is one.
fn stored(lab: &Lab) -> String {
    let files: Vec<_> = lab.tree(&["/etc/edgeallow/nftables"]).into_keys().filter(|p| p.ends_with(".nft")).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().expect("one file")
}

/// Does what nftables.service and the drop-ins say, as systemd does: a line that begins with `-` may fail.
fn service(lab: &Lab, keys: &[&str]) {
    let mut text = lab.read_file(UNIT);
    for (path, _) in lab.tree(&[DROP_INS]).into_iter().filter(|(p, _)| p.ends_with(".conf")) {
        text += &lab.read_file(&path);
    }
    for key in keys {
        let commands = text.lines().filter_map(|l| l.trim().strip_prefix(key)?.strip_prefix('='));
        for command in commands {
            let (may_fail, command) = command.strip_prefix('-').map_or((false, command), |c| (true, c));
            let output = lab.command(command.split_whitespace()).run();
            assert!(may_fail || output.status == Some(0), "{key} of nftables.service failed: {output:?}");
        }
    }
}

/// What the kernel holds of one kind of object, ours only.
fn ours(lab: &Lab, kind: &str) -> Vec<Value> {
    let all = lab.run(["nft", "-j", "list", "ruleset"]).json();
    let all = all["nftables"].as_array().expect("objects");
    let of_kind = all.iter().filter_map(|o| o.get(kind));
    of_kind.filter(|o| o.to_string().to_lowercase().contains("edgeallow")).cloned().collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn delete_rules(lab: &Lab, at_most: usize) {
    let rules = ours(lab, "rule");
    assert!(!rules.is_empty(), "no rule of ours: {:?}", lab.rules());
    for rule in rules.iter().take(at_most) {
        let handle = rule["handle"].to_string();
        let place = [text(&rule["family"]), text(&rule["table"]), text(&rule["chain"])];
        lab.run([["nft", "delete", "rule"].as_slice(), &place, &["handle", &handle]].concat());
    }
}

fn each_set(lab: &Lab, verb: &str, v4: &str, v6: &str) {
    let mut sets = ours(lab, "set");
    sets.retain(|s| matches!(text(&s["type"]), "ipv4_addr" | "ipv6_addr"));
    assert!(sets.len() >= 2, "fewer than two sets of addresses of ours: {:?}", lab.rules());
    for set in &sets {
        let prefix = if set["type"] == "ipv4_addr" { v4 } else { v6 };
        let elements = format!("{{ {prefix} }}");
        let place = [text(&set["family"]), text(&set["table"]), text(&set["name"])];
        lab.run([["nft", verb, "element"].as_slice(), &place, &[&elements]].concat());
    }
}
