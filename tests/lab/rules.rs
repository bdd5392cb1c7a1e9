//! Pictures of every rule set in the lab, to compare before and after.

use std::fmt::Write as _;

use serde_json::Value;

use super::Lab;

/// The rule sets of a host in the tools' own words, without counters, dates and handles.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rules(pub String);

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What can print rules without making any: `-S` of legacy iptables would create the table by looking.
const XTABLES: [[&str; 2]; 2] =
    [["iptables-nft-save", "ip6tables-nft-save"], ["iptables-legacy-save", "ip6tables-legacy-save"]];

impl Lab {
    /// Every rule set as it is: native nftables, both variants of iptables in both families, ipsets.
    pub fn rules(&self) -> Rules {
        let mut all = String::new();
        section(&mut all, "nft", &without_warnings(&self.run(["nft", "-s", "list", "ruleset"]).stdout));
        for program in XTABLES.into_iter().flatten() {
            section(&mut all, program, &self.xtables(program));
        }
        let sets = self.run(["ipset", "save"]).stdout;
        // The seed of a set's hash is chosen anew whenever it is made, and the members come in the hash's order.
        let mut sets: Vec<_> = sets.lines().map(|l| l.split(" initval ").next().unwrap_or(l)).collect();
        sets.sort_unstable();
        section(&mut all, "ipset", &sets.join("\n"));
        Rules(all)
    }

    /// Every rule set but for what carries the tag `edgeallow`.
    pub fn foreign_rules(&self) -> Rules {
        let mut all = String::new();
        let native = self.run(["nft", "-j", "-s", "list", "ruleset"]).json();
        let objects = native["nftables"].as_array().cloned().unwrap_or_default();
        for mut object in objects.into_iter().filter(|o| o.get("metainfo").is_none()) {
            strip_handles(&mut object);
            let text = object.to_string();
            if !text.to_lowercase().contains("edgeallow") {
                writeln!(all, "{text}").expect("write to a string");
            }
        }
        for program in XTABLES.into_iter().flatten() {
            section(&mut all, program, &foreign_lines(&self.xtables(program)));
        }
        section(&mut all, "ipset", &foreign_lines(&self.run(["ipset", "save"]).stdout));
        Rules(all)
    }

    fn xtables(&self, program: &str) -> String {
        let text = self.run([program]).stdout;
        let lines = text.lines().filter(|l| !l.starts_with('#')).map(|l| match l.rsplit_once(" [") {
            Some((policy, _)) if l.starts_with(':') => policy,
            _ => l,
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn section(all: &mut String, title: &str, text: &str) {
    if !text.is_empty() {
        writeln!(all, "── {title}\n{text}").expect("write to a string");
    }
}

fn without_warnings(text: &str) -> String {
    text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n")
}

fn foreign_lines(text: &str) -> String {
    text.lines().filter(|l| !l.to_lowercase().contains("edgeallow")).collect::<Vec<_>>().join("\n")
}

fn strip_handles(value: &mut Value) {
    if let Value::Object(map) = value {
        map.remove("handle");
        map.values_mut().for_each(strip_handles);
    } else if let Value::Array(list) = value {
        list.iter_mut().for_each(strip_handles);
    }
}
