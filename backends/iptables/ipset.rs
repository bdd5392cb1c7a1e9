//! Our sets: what `ipset` says of them, and the restore scripts that make them right.
//!
//! Belongs here: names, the two output formats of ipset(8) that are read, and its restore language. Does not: when a
//! set is wanted ([`super::target`]).
//!
//! `ipset restore` is not a transaction: it stops at the first line that fails. So every script is of a kind whose
//! every prefix is harmless: additions before deletions, or a new set built aside and swapped in by one line.

use std::{fmt::Write as _, sync::Arc};

use ipnet::IpNet;

use crate::{
    allowlist::{Family, Prefixes, missing},
    plan::counted,
};

/// The smallest `maxelem` that we ask for (ipset's own default).
const MIN_MAXELEM: usize = 65_536;

/// The name of a family's set; at most 31 bytes (`IPSET_MAXNAMELEN`, linux/netfilter/ipset/ip_set.h).
#[must_use]
pub const fn set_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "edgeallow4",
        Family::V6 => "edgeallow6",
    }
}

/// The name under which a family's next set is built.
#[must_use]
pub const fn new_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "edgeallow4-new",
        Family::V6 => "edgeallow6-new",
    }
}

/// A set of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its type and options, as `create NAME` would take them, without those that only say how it is stored.
    pub create: Vec<String>,
    /// What is in it.
    pub content: Content,
}

/// What is in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Every element.
    Known {
        /// Plain prefixes, sorted.
        nets: Arc<Vec<IpNet>>,
        /// Whatever isn't a plain prefix (`10.0.0.0/8 nomatch`), as `add NAME` would take it.
        odd: Vec<String>,
    },
    /// Only how many, and that they aren't those that were applied last.
    Unknown(usize),
}

/// A set as `ipset list -t` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Type and options: see [`Set::create`].
    pub create: Vec<String>,
    /// How many rules, of whomever, look into it.
    pub references: usize,
    /// How many elements; old programs and kernels don't say.
    pub entries: Option<usize>,
}

/// Reads `ipset list -t`.
#[must_use]
pub fn parse_headers(output: &[u8]) -> Vec<Header> {
    let text = String::from_utf8_lossy(output);
    let mut found: Vec<Header> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if key == "Name" {
            let name = value.to_owned();
            found.push(Header { name, create: Vec::new(), references: 0, entries: None });
            continue;
        }
        let Some(set) = found.last_mut() else { continue };
        match key {
            "Type" => set.create.insert(0, value.to_owned()),
            "Header" => set.create.extend(lasting_options(value.split_whitespace())),
            "References" => set.references = value.parse().unwrap_or(0),
            "Number of entries" => set.entries = value.parse().ok(),
            _ => {}
        }
    }
    found
}

/// Leaves out what the kernel chooses for itself and changes as a set grows.
fn lasting_options<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut out = Vec::new();
    let mut words = words;
    while let Some(word) = words.next() {
        if matches!(word, "hashsize" | "bucketsize" | "initval") {
            words.next();
        } else {
            out.push(word.to_owned());
        }
    }
    out
}

/// Reads the elements of one set from `ipset save NAME`.
#[must_use]
pub fn parse_elements(output: &[u8]) -> Content {
    let text = String::from_utf8_lossy(output);
    let (mut nets, mut odd) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Some((_name, element)) = line.strip_prefix("add ").and_then(|l| l.split_once(' ')) else { continue };
        match super::rules::net(element) {
            Some(net) => nets.push(net),
            None => odd.push(element.to_owned()),
        }
    }
    nets.sort_unstable();
    nets.dedup();
    odd.sort_unstable();
    Content::Known { nets: Arc::new(nets), odd }
}

/// The elements for a family's prefixes. `hash:net` can't hold `/0`, so that becomes its two halves.
#[must_use]
pub fn elements(want: &Prefixes, family: Family) -> Arc<Vec<IpNet>> {
    let halves = |net: IpNet| net.subnets(1).into_iter().flatten();
    let mut out = Vec::with_capacity(want.count(family));
    for net in want.family(family) {
        if net.prefix_len() == 0 { out.extend(halves(net)) } else { out.push(net) }
    }
    Arc::new(out)
}

/// The set that shall hold these elements; a set that is there keeps its options if they will do.
#[must_use]
pub fn wanted(family: Family, nets: Arc<Vec<IpNet>>, there: Option<&Set>) -> Set {
    let create = match there {
        Some(set) if good_enough(family, &set.create, nets.len()) => set.create.clone(),
        _ => {
            // Room to grow, so that the next change is a few additions and not a new set.
            let maxelem = nets.len().saturating_mul(2).next_power_of_two().max(MIN_MAXELEM);
            ["hash:net", "family", inet(family), "maxelem", &maxelem.to_string()].map(str::to_owned).to_vec()
        }
    };
    Set { create, content: Content::Known { nets, odd: Vec::new() } }
}

const fn inet(family: Family) -> &'static str {
    match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    }
}

/// Whether a set with these options can hold so many prefixes for us, for ever.
fn good_enough(family: Family, create: &[String], needed: usize) -> bool {
    matches!(create, [kind, f, i, m, max] if kind == "hash:net" && f == "family" && i == inet(family)
        && m == "maxelem" && max.parse::<usize>().is_ok_and(|max| max >= needed))
}

/// What has to be done to a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Why, for people.
    pub why: String,
    /// Input for `ipset restore`.
    pub script: String,
}

/// Leads from the set that is there to the one that shall be; `None` if they are the same.
///
/// A set whose content can't be known (undoing towards a set that was only counted) is left as it is.
#[must_use]
pub fn work(family: Family, there: Option<&Set>, to: &Set) -> Option<Work> {
    let Content::Known { nets: wanted, odd: wanted_odd } = &to.content else { return None };
    let name = set_name(family);
    let Some(set) = there else {
        let script = build(name, to, wanted, wanted_odd);
        return Some(Work { why: format!("set {name} is missing"), script });
    };
    if set == to {
        return None;
    }
    if set.create == to.create
        && let Content::Known { nets: seen, odd } = &set.content
    {
        return Some(delta(name, (seen, odd), (wanted, wanted_odd)));
    }
    let aside = new_name(family);
    let mut script = build(aside, to, wanted, wanted_odd);
    let _ = writeln!(script, "swap {aside} {name}\ndestroy {aside}");
    let why = if set.create == to.create {
        format!("set {name} holds other prefixes than were applied last")
    } else {
        format!("set {name} has other options, or no room")
    };
    Some(Work { why, script })
}

/// Whether a set of our name is of the type that ours have. One of another type is somebody else's, and can't be
/// swapped for one of ours.
#[must_use]
pub fn is_ours(family: Family, create: &[String]) -> bool {
    matches!(create, [kind, f, i, ..] if kind == "hash:net" && f == "family" && i == inet(family))
}

fn build(name: &str, set: &Set, nets: &[IpNet], odd: &[String]) -> String {
    // A hash that needn't grow while it is filled.
    let hashsize = nets.len().next_power_of_two().max(1024);
    let mut out = String::with_capacity(nets.len() * 36 + 128);
    let _ = writeln!(out, "create {name} {} hashsize {hashsize}", set.create.join(" "));
    for net in nets {
        let _ = writeln!(out, "add {name} {net}");
    }
    for element in odd {
        let _ = writeln!(out, "add {name} {element}");
    }
    out
}

fn delta(name: &str, (seen, seen_odd): (&[IpNet], &[String]), (wanted, odd): (&[IpNet], &[String])) -> Work {
    let (new, gone) = (missing(wanted, seen), missing(seen, wanted));
    let (new_odd, gone_odd) = (missing(odd, seen_odd), missing(seen_odd, odd));
    let mut script = String::new();
    // `10.0.0.0/8 nomatch` and `10.0.0.0/8` are one element in two forms: it must go before it can come again.
    for element in &gone_odd {
        let _ = writeln!(script, "del {name} {}", element.split(' ').next().unwrap_or(element));
    }
    for net in &new {
        let _ = writeln!(script, "add {name} {net}");
    }
    for net in &gone {
        let _ = writeln!(script, "del {name} {net}");
    }
    for element in &new_odd {
        let _ = writeln!(script, "add {name} {element}");
    }
    let short = |n| counted(n, "prefix is missing", "prefixes are missing");
    let strayed = |n, place: &str| format!("{} {place}", counted(n, "prefix doesn't belong", "prefixes don't belong"));
    let why = match (new.len() + new_odd.len(), gone.len() + gone_odd.len()) {
        (n, 0) => format!("{} in set {name}", short(n)),
        (0, n) => strayed(n, &format!("in set {name}")),
        (n, m) => format!("{} in set {name}, {}", short(n), strayed(m, "there")),
    };
    Work { why, script }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(all: &[&str]) -> Arc<Vec<IpNet>> {
        let mut nets: Vec<IpNet> = all.iter().map(|n| n.parse().unwrap()).collect();
        nets.sort_unstable();
        Arc::new(nets)
    }

    #[test]
    fn both_outputs_of_ipset_are_read() {
        let headers = parse_headers(
            b"Name: f2b-x\nType: hash:ip\nHeader: family inet hashsize 1024 maxelem 65536 timeout 600\n\
              References: 1\nNumber of entries: 0\n\nName: edgeallow4\nType: hash:net\nRevision: 7\n\
              Header: family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0xdc72857d\n\
              Size in memory: 584\nReferences: 2\nNumber of entries: 15\n",
        );
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[1].create, ["hash:net", "family", "inet", "maxelem", "65536"]);
        assert_eq!((headers[1].references, headers[1].entries), (2, Some(15)));
        let content = parse_elements(
            b"create edgeallow4 hash:net family inet\nadd edgeallow4 10.0.0.0/8\nadd edgeallow4 1.2.3.4\n\
              add edgeallow4 10.1.0.0/16 nomatch\n",
        );
        let odd = vec!["10.1.0.0/16 nomatch".to_owned()];
        assert_eq!(content, Content::Known { nets: nets(&["1.2.3.4/32", "10.0.0.0/8"]), odd });
    }

    #[test]
    fn everything_becomes_two_halves() {
        let all: Prefixes = ["0.0.0.0/0", "::/0"].iter().map(|n| n.parse::<IpNet>().unwrap()).collect();
        assert_eq!(elements(&all, Family::V4), nets(&["0.0.0.0/1", "128.0.0.0/1"]));
        assert_eq!(elements(&all, Family::V6), nets(&["::/1", "8000::/1"]));
    }

    #[test]
    fn a_good_set_gets_the_difference_additions_first() {
        let old = wanted(Family::V4, nets(&["10.0.0.0/8", "11.0.0.0/8"]), None);
        let new = wanted(Family::V4, nets(&["11.0.0.0/8", "12.0.0.0/8"]), Some(&old));
        let work = work(Family::V4, Some(&old), &new).unwrap();
        assert_eq!(work.script, "add edgeallow4 12.0.0.0/8\ndel edgeallow4 10.0.0.0/8\n");
        assert_eq!(work.why, "1 prefix is missing in set edgeallow4, 1 prefix doesn't belong there");
    }

    #[test]
    fn an_unknown_or_odd_set_is_built_aside_and_swapped() {
        let mut old = wanted(Family::V6, nets(&["2001::/16"]), None);
        old.content = Content::Unknown(7);
        let new = wanted(Family::V6, nets(&["2002::/16"]), Some(&old));
        let swapped = work(Family::V6, Some(&old), &new).unwrap().script;
        assert_eq!(
            swapped,
            "create edgeallow6-new hash:net family inet6 maxelem 65536 hashsize 1024\nadd edgeallow6-new 2002::/16\n\
             swap edgeallow6-new edgeallow6\ndestroy edgeallow6-new\n"
        );
        old.create.push("counters".to_owned());
        let new = wanted(Family::V6, nets(&["2002::/16"]), Some(&old));
        assert!(work(Family::V6, Some(&old), &new).unwrap().script.contains("swap"));
    }

    #[test]
    fn a_set_of_another_type_is_not_ours() {
        let ours = |line: &str| is_ours(Family::V4, &line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(ours("hash:net family inet maxelem 9 timeout 60"));
        for line in ["hash:ip family inet maxelem 65536", "hash:net family inet6 maxelem 65536", "list:set size 8"] {
            assert!(!ours(line), "{line}");
        }
    }

    #[test]
    fn a_set_without_room_gives_way_to_a_larger_one() {
        let small = Set {
            create: ["hash:net", "family", "inet", "maxelem", "1"].map(str::to_owned).to_vec(),
            content: Content::Known { nets: nets(&["10.0.0.0/8"]), odd: Vec::new() },
        };
        let new = wanted(Family::V4, nets(&["10.0.0.0/8", "11.0.0.0/8"]), Some(&small));
        assert_eq!(new.create[4], "65536");
        assert_eq!(wanted(Family::V4, nets(&["11.0.0.0/8"]), Some(&small)).create[4], "1");
    }
}
