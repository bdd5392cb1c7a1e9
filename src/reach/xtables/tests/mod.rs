//! Lines as the real programs printed them, and what they must mean.

use std::fmt::Write as _;

use super::*;
use crate::{
    allowlist::Family,
    reach::{
        model::{Among, Elements, Field, Key, Language, Operand, Part, Set, Value},
        sources::{Sources, address},
    },
};

mod fuzz;
mod rules;
mod sets;
mod size;

/// Parts in one line, short enough for a table.
fn show(parts: &[Part]) -> String {
    parts.iter().map(part).collect::<Vec<_>>().join("; ")
}

fn part(part: &Part) -> String {
    match part {
        Part::Test(t) => {
            let among = match &t.among {
                Among::These(elements) => elements_of(&t.key, elements),
                Among::Named(name) | Among::Ipset(name) => format!("@{name}"),
            };
            let keys = t.key.iter().map(key).collect::<Vec<_>>().join("+");
            format!("{}{keys}={among}", if t.negated { "!" } else { "" })
        }
        Part::Dnat { address, port, to_this_host } => {
            let address = match address {
                Operand::Is((address, None)) => address.to_string(),
                other => operand(other),
            };
            format!("Dnat({address}, {}{})", operand(port), if *to_this_host { ", here" } else { "" })
        }
        Part::Verdict(v) => format!("{v:?}"),
        Part::SetMark(m) => format!("{:?}:={:?}", m.to, m.value),
        other => format!("{other:?}"),
    }
}

fn operand<T: std::fmt::Debug>(o: &Operand<T>) -> String {
    match o {
        Operand::None => "-".to_owned(),
        Operand::Is(value) => format!("{value:?}"),
        Operand::Puzzle(_) => "?".to_owned(),
        Operand::Map { .. } => "map".to_owned(),
    }
}

fn key(key: &Key) -> String {
    key.mask.map_or_else(|| format!("{:?}", key.field), |m| format!("{:?}&{m:#x}", key.field))
}

fn elements_of(keys: &[Key], elements: &Elements<()>) -> String {
    match elements {
        Elements::Numbers(numbers, ()) => sources(keys.first(), numbers),
        Elements::List(list) => {
            let one = |e: &crate::reach::model::Element<()>| {
                let value = |(i, v): (usize, &Value)| match v {
                    Value::Numbers(n) => sources(keys.get(i), n),
                    Value::Name(n) => n.clone(),
                    Value::Any => "any".to_owned(),
                };
                e.key.iter().enumerate().map(value).collect::<Vec<_>>().join("+")
            };
            format!("{{{}}}", list.iter().map(one).collect::<Vec<_>>().join(" | "))
        }
    }
}

fn sources(key: Option<&Key>, numbers: &Sources) -> String {
    let family = match key.map(|k| k.field) {
        Some(Field::Saddr4 | Field::Daddr4) => Some(Family::V4),
        Some(Field::Saddr6 | Field::Daddr6) => Some(Family::V6),
        _ => None,
    };
    let one = |n: u128| family.map_or_else(|| n.to_string(), |f| address(n, f).to_string());
    let mut out = String::new();
    for &(first, last) in numbers.ranges() {
        let comma = if out.is_empty() { "" } else { "," };
        let end = if first == last { String::new() } else { format!("-{}", one(last)) };
        write!(out, "{comma}{}{end}", one(first)).unwrap();
    }
    out
}

/// The rules of chain `c` of a table, with `d` beside it.
fn rules_of(table: &str, lines: &[&str], family: Family) -> Saved {
    let mut text = format!("*{table}\n:OUTPUT ACCEPT [0:0]\n:c - [0:0]\n:d - [0:0]\n");
    for line in lines {
        text += &format!("-A c {line}\n");
    }
    tables(format!("{text}COMMIT\n").as_bytes(), family, Language::IptablesNft).unwrap()
}

fn parts(rule: &str, family: Family) -> String {
    show(&rules_of("nat", &[rule], family).tables[0].chains["c"].rules[0].parts)
}

fn set(name: &str, save: &str) -> Set {
    ipsets(save.as_bytes()).unwrap().sets.remove(name).unwrap()
}
