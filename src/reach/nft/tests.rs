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

fn operand<T: ToString>(o: &Operand<T>) -> String {
    match o {
        Operand::None => "-".into(),
        Operand::Is(it) => it.to_string(),
        Operand::Map { key: k, map } => format!("({} {})", key(k), among(map, T::to_string)),
        Operand::Puzzle(text) => format!("PUZZLE<{text}>"),
    }
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
            MarkValue::Operand(o) => format!("{:?}:={}", set.to, operand(o)),
        },
        Part::Dnat { address, port, to_this_host } => {
            format!("dnat {} {}{}", operand(address), operand(port), if *to_this_host { " here" } else { "" })
        }
        Part::Snat => "snat".into(),
        Part::Notrack => "notrack".into(),
    }
}

/// A rule in the table of `declared.json`.
fn document(family: &str, expr: &str) -> String {
    let rule = format!(r#"{{"rule": {{"family": "inet", "table": "t", "chain": "c", "handle": 7, "expr": {expr}}}}}"#);
    let text = DECLARED.trim_end().strip_suffix("]}").unwrap();
    format!("{text}, {rule}]}}").replace(r#""family": "inet", "t"#, &format!(r#""family": "{family}", "t"#))
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
            None => found.push((line, family, lines.next().unwrap().trim(), lines.next().unwrap_or_default().trim())),
        }
    }
    found
}

#[test]
fn rules_mean_what_nft_means() {
    let mut wrong = String::new();
    for (rule, family, json, expected) in cases() {
        let shown = parts(&document(family, json)).iter().map(show).collect::<Vec<_>>().join("; ");
        if shown != expected {
            writeln!(wrong, "{rule}\n  {json}\n  {shown}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{wrong}");
}
