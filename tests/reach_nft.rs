//! nft's JSON as the real nft prints it for real rules: every case of `src/reach/nft/cases.txt` is loaded into a network
//! namespace and read back. What is understood there must be understood here, and nothing else.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests drive the real nft, and fail by panicking")]

#[path = "support/nft.rs"]
mod support;

use std::{collections::BTreeMap, fmt::Write as _};

use edgeallow::{
    nft::{TableFamily, TableId},
    reach::{
        model::{Elements, MarkValue, Operand, Part, Set, Verdict},
        nft,
    },
};
use support::{alone, nft as run};

/// What the rules of the cases refer to.
const OBJECTS: &str = r#"
table FAMILY t {
    set s4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 1.2.3.4, 5.5.5.5-5.5.5.9 }; }
    set s6 { type ipv6_addr; flags interval; elements = { 2001:db8::/32 }; }
    set dyn { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }
    set dyn2 { type ipv4_addr; size 65535; flags dynamic; }
    set lim { type ipv4_addr; flags dynamic; limit rate 10/second; elements = { 1.2.3.4 }; }
    set ap { type ipv4_addr . inet_service; flags interval; elements = { 1.2.3.0/24 . 80, 5.5.5.5 . 100-200 }; }
    map vm { type ipv4_addr : verdict; flags interval; elements = { 1.2.3.0/24 : drop, 9.9.9.9 : jump other }; }
    map pm { type inet_service : mark; flags dynamic; elements = { 80 : 0x10 }; }
    map am { type inet_service : ipv4_addr; elements = { 80 : 10.0.0.2 }; }
    map aam { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.0.2 . 8080 }; }
    map ppm { type inet_service : inet_service; elements = { 80 : 8080 }; }
    map cm { type inet_service : counter; }
    counter cn { }
    quota q1 { over 10 mbytes; }
    limit l1 { rate 10/second; }
    ct helper ftph { type "ftp" protocol tcp; }
    ct timeout tmo { protocol tcp; policy = { established : 60 }; }
    chain other { accept; }
}
"#;

/// Where a rule may stand: not every rule may stand everywhere.
const HOOKS: [&str; 5] = [
    "type filter hook input priority 0",
    "type filter hook prerouting priority 0",
    "type filter hook forward priority 0",
    "type nat hook prerouting priority 0",
    "type nat hook postrouting priority 0",
];

/// Family, rule and what it is in this program's words; only those that were given to nft.
fn cases() -> Vec<(&'static str, &'static str, &'static str)> {
    let (mut family, mut by_hand) = ("", false);
    let mut found = Vec::new();
    let mut lines = include_str!("../src/reach/nft/cases.txt").lines().filter(|l| !l.is_empty());
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("family ") {
            (family, by_hand) = (name, name == "netdev");
        } else if line.starts_with("# Written by hand") {
            by_hand = true;
        } else if !line.starts_with('#') {
            let _json = lines.next().unwrap();
            let parts = lines.next().unwrap().trim();
            if !by_hand {
                found.push((family, line, parts));
            }
        }
    }
    found
}

fn puzzling(part: &Part) -> bool {
    match part {
        Part::Puzzle(_) | Part::Verdict(Verdict::Elsewhere(_)) => true,
        Part::SetMark(set) => matches!(set.value, MarkValue::Operand(Operand::Puzzle(_))),
        Part::Dnat { address, port, .. } => matches!(address, Operand::Puzzle(_)) || matches!(port, Operand::Puzzle(_)),
        _ => false,
    }
}

#[test]
fn the_real_nft_prints_what_is_understood() {
    alone(|| {
        let cases = cases();
        assert!(cases.len() > 300, "{}", cases.len());
        for family in ["inet", "ip"] {
            run(&["-f", "-"], &OBJECTS.replace("FAMILY", family)).unwrap();
        }
        let mut refused = String::new();
        for (n, (family, rule, _)) in cases.iter().enumerate() {
            let in_hook = |hook: &&str| {
                run(
                    &["-f", "-"],
                    &format!("add chain {family} t r{n} {{ {hook}; }}\nadd rule {family} t r{n} {rule}\n"),
                )
            };
            if HOOKS.iter().all(|hook| in_hook(hook).is_err()) {
                writeln!(refused, "{rule}").unwrap();
            }
        }
        assert!(refused.is_empty(), "nft takes none of these:\n{refused}");
        let json = run(&["-j", "list", "ruleset"], "").unwrap();
        let tables = nft::parse(json.as_bytes(), &|_| false).unwrap();
        let table: BTreeMap<&str, _> = tables.iter().map(|t| (t.family.as_str(), t)).collect();
        let listing = nft::texts(&run(&["-a", "-t", "list", "ruleset"], "").unwrap());
        let mut wrong = String::new();
        for (n, (family, rule, expected)) in cases.iter().enumerate() {
            let name = format!("r{n}");
            let seen = &table[family].chains[&name].rules[0];
            let (known, foreseen) =
                (!seen.parts.iter().any(puzzling), !expected.contains("PUZZLE<") && !expected.contains("ELSEWHERE<"));
            if known != foreseen {
                writeln!(wrong, "{rule}\n  {:?}", seen.parts).unwrap();
            }
            let family = if *family == "ip" { TableFamily::Ip } else { TableFamily::Inet };
            let text = listing.rule(&TableId::new(family, "t").chain(&name), seen.handle.unwrap());
            assert!(text.is_some_and(|t| !t.is_empty() && !t.contains("# handle")), "{rule}: {text:?}");
        }
        assert!(wrong.is_empty(), "understood or not, but not as foreseen:\n{wrong}");
        let unread: Vec<_> = table["inet"].sets.iter().filter(|(_, s)| matches!(s, Set::Puzzle(_))).collect();
        assert!(unread.is_empty(), "{unread:?}");
    });
}

#[test]
fn sets_read_one_by_one_are_those_of_the_whole_listing() {
    alone(|| {
        run(&["-f", "-"], &OBJECTS.replace("FAMILY", "inet")).unwrap();
        let whole = nft::parse(run(&["-j", "list", "ruleset"], "").unwrap().as_bytes(), &|_| false).unwrap();
        let mut terse =
            nft::parse_terse(run(&["-j", "-t", "list", "ruleset"], "").unwrap().as_bytes(), &|_| false).unwrap();
        assert!(terse[0].sets.values().all(|s| matches!(s, Set::Puzzle(_))));
        for name in whole[0].sets.keys() {
            let kind = if name.ends_with('m') && name != "lim" { "map" } else { "set" };
            let one = run(&["-j", "list", kind, "inet", "t", name], "").unwrap();
            nft::merge_set(&mut terse, one.as_bytes()).unwrap();
        }
        assert_eq!(whole, terse);
        let Set::Plain(Elements::Numbers(numbers, ())) = &whole[0].sets["s4"] else {
            panic!("{:?}", whole[0].sets["s4"])
        };
        assert_eq!(numbers.ranges().len(), 3);
    });
}

#[test]
fn ingress_chains_get_their_devices_and_sleeping_tables_are_told() {
    alone(|| {
        run(
            &["-f", "-"],
            "table netdev nd {\n chain i { type filter hook ingress device lo priority -500; policy drop; }\n}\n\
             table inet awake {\n chain i { type filter hook ingress device lo priority 0; }\n}\n",
        )
        .unwrap();
        let mut tables = nft::parse(run(&["-j", "list", "ruleset"], "").unwrap().as_bytes(), &|_| false).unwrap();
        nft::texts(&run(&["-a", "-t", "list", "ruleset"], "").unwrap()).complete(&mut tables);
        for table in &tables {
            assert_eq!(table.chains["i"].base.as_ref().unwrap().devices, ["lo"], "{}", table.name);
            assert!(!table.dormant);
        }
        run(&["-f", "-"], "add table inet asleep { flags dormant; }\n").unwrap();
        let listing = nft::texts(&run(&["-a", "-t", "list", "ruleset"], "").unwrap());
        let mut tables = vec![edgeallow::reach::model::Table::new(
            TableFamily::Inet,
            "asleep",
            edgeallow::reach::model::Language::Nft,
        )];
        listing.complete(&mut tables);
        assert!(tables[0].dormant);
    });
}
