//! What a rule tests without a match: addresses, interfaces, protocol, fragments.
//!
//! Belongs here: options with one dash. Does not: those of matches (`matches`).

use super::{
    rule::Opt,
    values::{any_of, net, protocol, test},
};
use crate::{
    allowlist::Family,
    reach::{
        model::{Field, Part, Value},
        sources::Sources,
    },
};

/// Reads one; what isn't understood is a puzzle.
pub(super) fn read(opt: &Opt<'_>, family: Family) -> Vec<Part> {
    let part = match opt.name {
        "-s" => by_address(opt, saddr(family), family),
        "-d" => by_address(opt, daddr(family), family),
        "-i" => interface(opt, Field::Iif),
        "-o" => interface(opt, Field::Oif),
        "-p" => match opt.value() {
            // Printed by no version, but taken by all.
            Some("all" | "0") if !opt.negated => return Vec::new(),
            Some("all" | "0") | None => None,
            Some(name) => protocol(name).map(|n| test(Field::L4Proto, Sources::one(n.into()), opt.negated)),
        },
        "-f" if family == Family::V4 && opt.values.is_empty() => {
            Some(test(Field::Fragment, Sources::one(1), opt.negated))
        }
        // Counters behind the rule, as old versions print them.
        "-c" if !opt.negated && opt.values.len() == 2 && opt.values.iter().all(|v| v.parse::<u64>().is_ok()) => {
            return Vec::new();
        }
        _ => None,
    };
    vec![part.unwrap_or_else(|| Part::Puzzle(opt.text()))]
}

/// The source's address.
pub(super) const fn saddr(family: Family) -> Field {
    match family {
        Family::V4 => Field::Saddr4,
        Family::V6 => Field::Saddr6,
    }
}

/// The destination's address.
pub(super) const fn daddr(family: Family) -> Field {
    match family {
        Family::V4 => Field::Daddr4,
        Family::V6 => Field::Daddr6,
    }
}

fn by_address(opt: &Opt<'_>, field: Field, family: Family) -> Option<Part> {
    let (key, sources) = net(opt.value()?, field, family)?;
    Some(test(key, sources, opt.negated))
}

/// `eth0`, `eth+`. A `*` would be an ordinary letter to iptables, and isn't one in the model.
fn interface(opt: &Opt<'_>, field: Field) -> Option<Part> {
    let name = opt.value().filter(|n| !n.is_empty() && !n.ends_with('*'))?;
    let name = name.strip_suffix('+').map_or_else(|| name.to_owned(), |begin| format!("{begin}*"));
    Some(any_of(vec![field.into()], vec![vec![Value::Name(name)]], opt.negated))
}
