//! `cases.txt` holds what nft 1.0.6 printed for each rule, and what is to be understood by it.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::reach::{
    model::{Among, Elements, Key, MarkValue, Operand, Part, Test, Value, Verdict},
    sources::Sources,
};

const CASES: &str = include_str!("cases.txt");

/// Sets and chains of the table that the rules of `cases.txt` are in, as nft printed them.
const DECLARED: &str = include_str!("declared.json");

fn numbers(n: &Sources) -> String {
    let one = |(f, l): &(u128, u128)| match (f, l) {
        (0, &u128::MAX) => "any".into(),
        (f, l) if f == l => format!("{f:#x}"),
        (f, l) => format!("{f:#x}-{l:#x}"),
    };
    n.ranges().iter().map(one).collect::<Vec<_>>().join(",")
}

fn key(keys: &[Key]) -> String {
    let one = |k: &Key| format!("{:?}{}", k.field, k.mask.map(|m| format!("&{m:#x}")).unwrap_or_default());
    keys.iter().map(one).collect::<Vec<_>>().join(".")
}

fn among<D>(among: &Among<D>, data: impl Fn(&D) -> String) -> String {
    let value = |v: &Value| match v {
        Value::Numbers(n) => numbers(n),
        Value::Name(name) => name.clone(),
        Value::Any => "*".into(),
    };
    let put = |key: String, d: &D| {
        let data = data(d);
        if data.is_empty() { key } else { format!("{key}:{data}") }
    };
    match among {
        Among::Named(name) => format!("@{name}"),
        Among::Ipset(name) => format!("ipset {name}"),
        Among::These(Elements::Numbers(n, d)) => put(numbers(n), d),
        Among::These(Elements::List(list)) => {
            let one = |e: &crate::reach::model::Element<D>| {
                put(e.key.iter().map(value).collect::<Vec<_>>().join("."), &e.data)
            };
            format!("[{}]", list.iter().map(one).collect::<Vec<_>>().join(" "))
        }
    }
}

fn verdict(v: &Verdict) -> String {
    match v {
        Verdict::Reject(with) => format!("reject<{with}>"),
        Verdict::Jump(to) => format!("jump {to}"),
        Verdict::Goto(to) => format!("goto {to}"),
        Verdict::Elsewhere(to) => format!("ELSEWHERE<{to}>"),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn operand<T>(o: &Operand<T>, text: impl Fn(&T) -> String) -> String {
    match o {
        Operand::None => "-".into(),
        Operand::Is(it) => text(it),
        Operand::Map { key: k, map } => format!("({} {})", key(k), among(map, text)),
        Operand::Puzzle(text) => format!("PUZZLE<{text}>"),
    }
}

/// Where a packet is sent.
fn target((address, port): &(std::net::IpAddr, Option<u16>)) -> String {
    format!("{address}{}", port.map(|p| format!(":{p}")).unwrap_or_default())
}

/// A part, short.
fn show(part: &Part) -> String {
    match part {
        Part::Test(Test { key: k, among: a, negated }) => {
            format!("{}{}{}", key(k), if *negated { "!=" } else { "=" }, among(a, |()| String::new()))
        }
        Part::Rate(text) => format!("RATE<{text}>"),
        Part::Puzzle(text) => format!("PUZZLE<{text}>"),
        Part::Verdict(v) => verdict(v),
        Part::VerdictMap { key: k, map } => format!("{} -> {}", key(k), among(map, verdict)),
        Part::SetMark(set) => match &set.value {
            MarkValue::Bits { of, and, xor } => format!("{:?}:=({of:?}&{and:#x})^{xor:#x}", set.to),
            MarkValue::Operand(o) => format!("{:?}:={}", set.to, operand(o, u32::to_string)),
        },
        Part::Dnat { address, port, to_this_host } => {
            format!(
                "dnat {} {}{}",
                operand(address, target),
                operand(port, u16::to_string),
                if *to_this_host { " here" } else { "" }
            )
        }
        Part::Snat => "snat".into(),
        Part::Notrack => "notrack".into(),
        Part::Feed(set) => format!("feed {}", among(set, |()| String::new())),
    }
}

/// A rule in the table of `declared.json`.
fn document(family: &str, expr: &str) -> String {
    let rule = format!(r#"{{"rule": {{"family": "inet", "table": "t", "chain": "c", "handle": 7, "expr": {expr}}}}}"#);
    let text = DECLARED.trim_end().strip_suffix("]}").unwrap();
    format!("{text}, {rule}]}}")
        .replace(r#""family": "inet", "t"#, &format!(r#""family": "{family}", "t"#))
        .replace(r#""family": "inet", "n"#, &format!(r#""family": "{family}", "n"#))
}

fn parts(document: &str) -> Vec<Part> {
    let tables = parse(document.as_bytes(), &|_| false).unwrap();
    tables[0].chains["c"].rules.last().unwrap().parts.clone()
}

/// Rule, family, JSON, what is expected.
fn cases() -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    let mut family = "inet";
    let mut found = Vec::new();
    let mut lines = CASES.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    while let Some(line) = lines.next() {
        match line.strip_prefix("family ") {
            Some(name) => family = name,
            None => found.push((line, family, lines.next().unwrap().trim(), lines.next().unwrap().trim())),
        }
    }
    found
}

#[test]
fn rules_mean_what_nft_means() {
    let mut wrong = String::new();
    for (rule, family, json, expected) in cases() {
        let shown = parts(&document(family, json)).iter().map(show).collect::<Vec<_>>().join("; ");
        let shown = if shown.is_empty() { "(nothing)".to_owned() } else { shown };
        if shown != expected {
            writeln!(wrong, "{rule}\n  {json}\n  {shown}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{wrong}");
}

/// Parses a document with a set of this declaration in table `inet t`.
fn set(declaration: &str) -> Set {
    let text = format!(
        r#"{{"nftables": [{{"{}": {{"family": "inet", "name": "x", "table": "t", {declaration}}}}}]}}"#,
        if declaration.contains(r#""map":"#) { "map" } else { "set" }
    );
    parse(text.as_bytes(), &|_| false).unwrap()[0].sets["x"].clone()
}

fn shown(set: &Set) -> String {
    match set {
        Set::Plain(e) => among(&Among::These(e.clone()), |()| String::new()),
        Set::Verdicts(e) => among(&Among::These(e.clone()), verdict),
        Set::Numbers(e) => among(&Among::These(e.clone()), u32::to_string),
        Set::Ports(e) => among(&Among::These(e.clone()), u16::to_string),
        Set::Addresses(e) => among(&Among::These(e.clone()), target),
        Set::Puzzle(why) => format!("PUZZLE<{why}>"),
    }
}

#[test]
fn sets_hold_what_nft_says_they_hold() {
    // Declarations and elements as nft 1.0.6 printed them.
    for (declaration, expected) in [
        (
            r#""type": "ipv4_addr", "flags": ["timeout"], "elem": [{"elem": {"val": "1.2.3.4", "timeout": 3600, "expires": 3599}}, {"elem": {"val": "1.2.3.5", "timeout": 3600, "expires": 3599, "comment": "hi"}}]"#,
            "0x1020304-0x1020305",
        ),
        (
            r#""type": "ipv4_addr", "elem": [{"elem": {"val": "1.2.3.4", "comment": "x", "counter": {"packets": 3, "bytes": 5}}}], "stmt": [{"counter": null}]"#,
            "0x1020304",
        ),
        (r#""type": ["ipv4_addr", "inet_service"], "elem": [{"concat": ["1.2.3.4", 80]}]"#, "[0x1020304.0x50]"),
        (r#""type": "mark", "elem": [5, 6]"#, "0x5-0x6"),
        (r#""type": "ifname", "flags": ["interval"], "elem": ["eth*", "lo"]"#, "[eth* lo]"),
        (r#""type": "ipv4_addr", "elem": [{"prefix": {"addr": "0.0.0.0", "len": 1}}]"#, "0x0-0x7fffffff"),
        (r#""type": "inet_service", "elem": [80, 443, {"range": [1000, 2000]}]"#, "0x50,0x1bb,0x3e8-0x7d0"),
        (r#""type": ["inet_proto", "inet_service"], "elem": [{"concat": ["tcp", 80]}]"#, "[0x6.0x50]"),
        (r#""type": "ipv6_addr", "elem": ["::1", {"range": ["::3", "::7"]}]"#, "0x1,0x3-0x7"),
        (r#""type": "ct_state", "elem": ["established", "new"]"#, "0x2,0x8"),
        (r#""type": "iface_index", "elem": ["lo"]"#, "[lo]"),
        (r#""type": "ipv4_addr", "size": 5"#, "[]"),
        (r#""type": "ipv4_addr", "flags": ["interval"], "elem": ["*", "1.2.3.4"]"#, "[0x1020304 *]"),
        (r#""type": "ether_addr", "elem": ["00:11:22:33:44:55"]"#, "PUZZLE<set x: keys of type ether_addr>"),
        (r#""type": "ipv4_addr", "elem": ["1.2.3.4", "nonsense"]"#, "PUZZLE<set x: element nonsense>"),
        (r#""type": "ipv4_addr", "elem": ["::1"]"#, "PUZZLE<set x: element ::1>"),
        (r#""type": "inet_service", "elem": [65536]"#, "PUZZLE<set x: element 65536>"),
        (
            r#""type": "ipv4_addr", "map": "verdict", "elem": [["1.2.3.4", {"accept": null}], ["1.2.3.5", {"jump": {"target": "y"}}]]"#,
            "[0x1020304:accept 0x1020305:jump y]",
        ),
        (r#""type": "inet_service", "map": "mark", "elem": [[80, 5]]"#, "0x50:5"),
        (
            r#""type": ["ipv4_addr", "inet_service"], "map": "ipv4_addr . inet_service", "elem": [[{"concat": ["1.2.3.4", 80]}, {"concat": ["10.0.0.1", 81]}]]"#,
            "[0x1020304.0x50:10.0.0.1:81]",
        ),
        (r#""type": "inet_service", "map": "inet_service", "elem": [[80, 81]]"#, "0x50:81"),
        (
            r#""type": "ipv4_addr", "map": "verdict", "elem": [["*", {"accept": null}], [{"elem": {"val": {"prefix": {"addr": "1.2.3.0", "len": 24}}, "timeout": 18000, "expires": 17999}}, {"drop": null}]]"#,
            "[0x1020300-0x10203ff:drop *:accept]",
        ),
        (r#""type": "mark", "map": "ipv4_addr", "elem": [[1, "1.2.3.4"]]"#, "0x1:1.2.3.4"),
        (
            r#""type": "ipv4_addr", "map": "ipv4_addr", "elem": [["1.2.3.4", {"range": ["10.0.0.1", "10.0.0.5"]}]]"#,
            "PUZZLE<set x: element 1.2.3.4,10.0.0.1-10.0.0.5>",
        ),
        // Since nft 1.1.
        (
            r#""type": {"typeof": {"concat": [{"payload": {"protocol": "ip", "field": "saddr"}}, {"payload": {"protocol": "tcp", "field": "dport"}}]}}, "elem": [{"concat": ["1.2.3.4", 80]}]"#,
            "[0x1020304.0x50]",
        ),
    ] {
        assert_eq!(shown(&set(declaration)), expected, "{declaration}");
    }
}

#[test]
fn terse_listings_know_of_no_element_until_it_is_merged() {
    let mut tables = parse_terse(DECLARED.as_bytes(), &|_| false).unwrap();
    assert!(tables[0].sets.values().all(|s| matches!(s, Set::Puzzle(_))));
    let one = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet", "name": "s4", "table": "t", "type": "ipv4_addr", "handle": 9, "elem": ["1.2.3.4"]}}]}"#;
    merge_set(&mut tables, one).unwrap();
    assert_eq!(shown(&tables[0].sets["s4"]), "0x1020304");
    let limited = br#"{"nftables": [{"set": {"family": "inet", "name": "s4", "table": "t", "type": "ipv4_addr", "elem": [{"elem": {"val": "1.2.3.4", "limit": {"rate": 1, "per": "second"}}}]}}]}"#;
    merge_set(&mut tables, limited).unwrap();
    assert!(matches!(tables[0].sets["s4"], Set::Puzzle(_)));
    let elsewhere =
        br#"{"nftables": [{"set": {"family": "ip", "name": "s4", "table": "other", "type": "ipv4_addr"}}]}"#;
    merge_set(&mut tables, elsewhere).unwrap();
    assert!(merge_set(&mut tables, b"{}").is_err());
}

#[test]
fn chains_and_tables() {
    let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "netdev", "name": "nd", "handle": 1, "flags": ["dormant"]}},
        {"chain": {"family": "netdev", "table": "nd", "name": "a", "handle": 1, "type": "filter", "hook": "ingress", "prio": -500, "policy": "drop"}},
        {"chain": {"family": "netdev", "table": "nd", "name": "b", "handle": 2, "dev": "eth0", "type": "filter", "hook": "egress", "prio": 0, "policy": "accept"}},
        {"chain": {"family": "netdev", "table": "nd", "name": "d", "handle": 2, "dev": ["eth0", "eth1*"], "type": "filter", "hook": "ingress", "prio": 0, "policy": "accept"}},
        {"table": {"family": "ip", "name": "nat", "handle": 2}},
        {"chain": {"family": "ip", "table": "nat", "name": "x", "handle": 2}},
        {"rule": {"family": "ip", "table": "nat", "chain": "x", "handle": 4, "comment": "hi", "expr": [{"accept": null}]}}]}"#;
    let tables = parse(text.as_bytes(), &|_| false).unwrap();
    assert_eq!(tables.len(), 2);
    assert!(tables[0].dormant && !tables[1].dormant);
    let base = |name: &str| tables[0].chains[name].base.clone().unwrap();
    assert_eq!((base("a").hook, base("a").priority, base("a").drops), (Hook::Ingress, -500, true));
    assert_eq!(base("a").devices, ["*"], "1.0.6 doesn't say: it may be any");
    assert_eq!((base("b").hook, base("b").devices), (Hook::Egress, vec!["eth0".to_owned()]));
    assert_eq!(base("d").devices, ["eth0", "eth1*"]);
    let rule = &tables[1].chains["x"].rules[0];
    assert_eq!((rule.position, rule.handle, rule.comment.as_deref()), (1, Some(4), Some("hi")));
    let left = parse(text.as_bytes(), &|id| id.name == "nat").unwrap();
    assert_eq!(left.len(), 1, "skipped tables leave nothing");
}

#[test]
fn what_is_not_nfts_json_is_an_error_with_advice() {
    for text in [
        "",
        "null",
        "{}",
        r#"{"nftables": 5}"#,
        r#"{"nftables": [{"table": {"family": "inet", "name": "t", "flags": "#,
        r#"{"nftables": [5]}"#,
        r#"{"nftables": [{"rule": {"family": "inet", "table": "t", "chain": "c", "expr": []}}]}"#,
        r#"{"nftables": [{"chain": {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "input", "prio": 0}}]}"#,
        r#"{"nftables": [{"chain": {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "nowhere", "prio": 0, "policy": "accept"}}]}"#,
    ] {
        let error = parse(text.as_bytes(), &|_| false).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Program, "{text}");
        assert!(error.hint.is_some());
    }
}

#[test]
fn an_old_nft_may_hide_a_limit() {
    let rule = r#"[{"set": {"op": "add", "elem": {"payload": {"protocol": "ip", "field": "saddr"}}, "set": "@dyn"}}, {"drop": null}]"#;
    let text = document("inet", rule).replace(r#""version": "1.0.6""#, r#""version": "0.9.8""#);
    assert!(matches!(&parts(&text)[2], Part::Rate(text) if text.contains("@dyn")));
}

#[test]
fn the_text_shows_rules_and_mends_what_the_json_leaves_out() {
    // `nft -a -t list ruleset` of nft 1.0.6.
    let text = "table inet t { # handle 1\n\tflags dormant\n\tcomment \"tc\"\n\n\tset a { # handle 6\n\t\ttype ipv4_addr\n\t\tflags timeout\n\t}\n\n\
        \tchain x { # handle 1\n\t}\n\n\tchain in { # handle 2\n\t\tcomment \"of the chain\"\n\t\ttype filter hook input priority filter + 5; policy drop;\n\
        \t\ttcp dport 80 accept comment \"x # handle 5 y\" # handle 41\n\t\ttcp dport { 1, 2,\n\t\t\t     3 } accept # handle 42\n\t}\n}\n\
        table netdev nd { # handle 2\n\tchain i2 { # handle 1\n\t\ttype filter hook ingress devices = { d0, lo } priority -500; policy accept;\n\
        \t\tfwd to \"lo\" # handle 4\n\t}\n\n\tchain eg { # handle 2\n\t\ttype filter hook egress device \"lo\" priority filter; policy accept;\n\t}\n}\n";
    let listing = texts(text);
    let chain = TableId::new(TableFamily::Inet, "t").chain("in");
    assert_eq!(listing.rule(&chain, 41), Some("tcp dport 80 accept comment \"x # handle 5 y\""));
    assert_eq!(listing.rule(&chain, 42), Some("tcp dport { 1, 2, 3 } accept"));
    assert_eq!(listing.rule(&chain, 2), None);
    let json = r#"{"nftables": [{"table": {"family": "inet", "name": "t", "flags": "ow2"}}, {"table": {"family": "netdev", "name": "nd"}},
        {"chain": {"family": "netdev", "table": "nd", "name": "i2", "type": "filter", "hook": "ingress", "prio": -500, "policy": "accept"}},
        {"chain": {"family": "netdev", "table": "nd", "name": "eg", "type": "filter", "hook": "egress", "prio": 0, "policy": "accept"}}]}"#;
    let mut tables = parse(json.as_bytes(), &|_| false).unwrap();
    assert!(!tables[0].dormant);
    listing.complete(&mut tables);
    assert!(tables[0].dormant);
    let devices = |name: &str| tables[1].chains[name].base.clone().unwrap().devices;
    assert_eq!(devices("i2"), ["d0", "lo"]);
    assert_eq!(devices("eg"), ["lo"]);
}

#[test]
fn a_hundred_thousand_elements_are_read_as_numbers() {
    let net =
        |i: u32| format!(r#"{{"prefix": {{"addr": "{}.{}.{}.0", "len": 25}}}}"#, 1 + (i >> 16), i >> 8 & 255, i & 255);
    let elements: Vec<String> = (0..100_000).map(net).collect();
    let text = format!(
        r#"{{"nftables": [{{"set": {{"family": "inet", "name": "x", "table": "t", "type": "ipv4_addr", "flags": ["interval"], "elem": [{}]}}}}]}}"#,
        elements.join(", ")
    );
    let tables = parse(text.as_bytes(), &|_| false).unwrap();
    let Set::Plain(Elements::Numbers(numbers, ())) = &tables[0].sets["x"] else { panic!("not numbers") };
    assert_eq!(numbers.ranges().len(), 100_000);
}

/// Changes one value somewhere inside.
fn mutate(json: &mut serde_json::Value, path: &[usize], how: usize) {
    use serde_json::{Value as J, json};
    let replacement = || {
        [J::Null, json!(true), json!(77), json!("junk"), json!([]), json!({}), json!("@junk"), json!(-1)][how % 8]
            .clone()
    };
    let Some((step, rest)) = path.split_first() else {
        *json = replacement();
        return;
    };
    match json {
        J::Array(items) if !items.is_empty() => {
            let at = step % items.len();
            mutate(&mut items[at], rest, how);
        }
        J::Object(members) if !members.is_empty() => {
            let name = members.keys().nth(step % members.len()).unwrap().clone();
            if how >= 8 && rest.is_empty() {
                members.remove(&name);
            } else {
                mutate(members.get_mut(&name).unwrap(), rest, how);
            }
        }
        other => *other = replacement(),
    }
}

/// Whether every packet passes a part that isn't a verdict.
fn lets_all_pass(part: &Part) -> bool {
    match part {
        Part::Test(Test { among: Among::These(Elements::Numbers(n, ())), negated, .. }) => {
            if *negated {
                n.is_empty()
            } else {
                *n == Sources::all()
            }
        }
        Part::Test(Test { among: Among::These(Elements::List(list)), negated: true, .. }) => list.is_empty(),
        Part::Test(_) | Part::Puzzle(_) | Part::Rate(_) => false,
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The first expression of a rule that tests something is spoilt: the rule must not become one that accepts everything.
    #[test]
    fn a_spoilt_test_never_lets_everything_pass(which in any::<usize>(), path in proptest::collection::vec(any::<usize>(), 0..7), how in 0_usize..12) {
        let tests: Vec<_> = cases().into_iter().filter(|(_, family, json, shown)| {
            *family == "inet" && json.starts_with(r#"[{"match""#) && shown.ends_with("; accept") && !shown.contains("=any")
        }).collect();
        let (rule, _, json, _) = tests[which % tests.len()];
        let mut expr: serde_json::Value = serde_json::from_str(json).unwrap();
        mutate(&mut expr[0], &path, how);
        let expr = serde_json::json!([expr[0], {"accept": null}]);
        if let Ok(tables) = parse(document("inet", &expr.to_string()).as_bytes(), &|_| false) {
            let parts = &tables[0].chains["c"].rules[0].parts;
            let accepts = parts.iter().take_while(|p| lets_all_pass(p)).any(|p| *p == Part::Verdict(Verdict::Accept));
            let elsewhere = parts.iter().any(|p| matches!(p, Part::Verdict(Verdict::Elsewhere(_))));
            prop_assert!(elsewhere || !accepts, "{rule}: {expr} became {parts:?}");
        }
    }

    /// Any document, spoilt anywhere or cut off, is read or refused.
    #[test]
    fn spoilt_documents_never_panic(which in any::<usize>(), path in proptest::collection::vec(any::<usize>(), 0..12), how in 0_usize..12, cut in any::<usize>()) {
        let all = cases();
        let text = document("inet", all[which % all.len()].2);
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        mutate(&mut json, &path, how);
        let _ = parse(json.to_string().as_bytes(), &|_| false);
        let _ = merge_set(&mut parse(DECLARED.as_bytes(), &|_| false).unwrap(), json.to_string().as_bytes());
        prop_assert!(parse(&text.as_bytes()[..cut % text.trim_end().len()], &|_| false).is_err());
        let _ = texts(&text.chars().take(cut % text.len()).collect::<String>());
    }
}
