//! What a set looks at, and its elements.
//!
//! Elements that differ in one address only are put together: a set of a hundred thousand addresses with one port is one
//! element of the model.
//!
//! Belongs here: one set. Does not: lists of sets (`ipset`).

use std::collections::HashMap;

use super::values::{address, int, prefix, protocol, span, width};
use crate::{
    allowlist::Family,
    reach::{
        model::{Element, Elements, Value},
        sources::{Sources, number},
    },
};

/// What one dimension of a set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dim {
    Ip,
    Net,
    Port,
    Iface,
    Mark,
    Mac,
}

impl Dim {
    pub fn read(word: &str) -> Option<Self> {
        Some(match word {
            "ip" => Self::Ip,
            "net" => Self::Net,
            "port" => Self::Port,
            "iface" => Self::Iface,
            "mark" => Self::Mark,
            "mac" => Self::Mac,
            _ => return None,
        })
    }
}

/// What part of a packet an element's value is compared with; with the dimension, whose direction the rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Address(usize),
    Protocol,
    Port(usize),
    Iface(usize),
    Mark,
}

/// A set's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// What it looks at.
    pub dims: Vec<Dim>,
    /// Whether it is a bitmap.
    pub bitmap: bool,
    /// Whose packets; none for both.
    pub family: Option<Family>,
    /// How many bits of an address count.
    pub netmask: Option<u32>,
    /// Which bits of a mark count.
    pub markmask: u32,
}

impl Shape {
    /// Of a set that can't be read.
    pub const fn unknown() -> Self {
        Self { dims: Vec::new(), bitmap: false, family: None, netmask: None, markmask: u32::MAX }
    }

    /// Whether the same tests ask both.
    pub fn looks_like(&self, other: &Self) -> bool {
        self.slots() == other.slots() && self.dims.len() == other.dims.len() && self.markmask == other.markmask
    }

    /// Whether all it looks at are facts of the model: hardware addresses aren't.
    pub fn is_known(&self) -> bool {
        !self.dims.is_empty() && !self.dims.contains(&Dim::Mac)
    }

    /// The parts of its elements' keys. A port is always one of a protocol.
    pub fn slots(&self) -> Vec<Slot> {
        let of = |(at, dim): (usize, &Dim)| match dim {
            Dim::Ip | Dim::Net => vec![Slot::Address(at)],
            Dim::Port => vec![Slot::Protocol, Slot::Port(at)],
            Dim::Iface => vec![Slot::Iface(at)],
            Dim::Mark => vec![Slot::Mark],
            Dim::Mac => Vec::new(),
        };
        self.dims.iter().enumerate().flat_map(of).collect()
    }

    /// The dimension that elements are put together by: the one that has most values. First or last in every type there is.
    fn main(&self) -> usize {
        let find = |dim| self.dims.iter().position(|d| *d == dim);
        find(Dim::Net).or_else(|| find(Dim::Ip)).unwrap_or(0)
    }
}

/// The addresses of elements that are alike in all else.
#[derive(Default)]
struct Group {
    ranges: Vec<(u128, u128)>,
    /// Prefixes by length, and whether they are exceptions; only where there are any.
    lengths: Vec<(u32, bool)>,
    excepts: bool,
    wildcard: bool,
}

/// Reads the elements of a set, each as it stands behind `add NAME`. The error says why it can't be read.
pub(super) fn read(shape: &Shape, elements: &[&str]) -> Result<Elements<()>, String> {
    if !shape.is_known() {
        return Err("it looks at what this program doesn't follow".to_owned());
    }
    let main = shape.main();
    if main != 0 && main + 1 != shape.dims.len() {
        return Err("its type isn't known".to_owned());
    }
    let family = shape.family.unwrap_or(Family::V4);
    let mut groups: Vec<(&str, Group)> = Vec::new();
    let mut index: HashMap<(&str, bool), usize> = HashMap::new();
    let mut at = usize::MAX;
    for text in elements {
        let (element, options) = text.split_once(' ').unwrap_or((text, ""));
        let flags = flags(options).ok_or_else(|| format!("options of the element {text}"))?;
        let (own, rest) = split(element, main, shape.dims.len()).ok_or_else(|| format!("the element {element}"))?;
        let (range, len) = main_value(shape, main, own, family).ok_or_else(|| format!("the element {element}"))?;
        // Elements that are alike often follow each other, and in most types all are.
        if groups.get(at).is_none_or(|(r, g)| *r != rest || g.wildcard != flags.wildcard) {
            at = *index.entry((rest, flags.wildcard)).or_insert_with(|| {
                groups.push((rest, Group { wildcard: flags.wildcard, ..Group::default() }));
                groups.len() - 1
            });
        }
        let group = &mut groups[at].1;
        group.ranges.push(range);
        group.lengths.push((len, flags.nomatch));
        group.excepts |= flags.nomatch;
    }
    let excepts = groups.iter().any(|(_, g)| g.excepts);
    let nets = shape.dims.iter().filter(|d| **d == Dim::Net).count();
    if excepts && (nets != 1 || groups.iter().any(|(_, g)| g.wildcard)) {
        return Err("which of several elements with nomatch is the nearest isn't followed here".to_owned());
    }
    if shape.dims.len() == 1 && shape.dims[0] != Dim::Port {
        let numbers = groups.into_iter().next().map_or_else(Sources::default, |(_, group)| group.sources());
        return Ok(Elements::Numbers(numbers, ()));
    }
    let list = groups.into_iter().map(|(rest, group)| {
        let mut others = rest.split(',');
        let mut key = Vec::new();
        let wildcard = group.wildcard;
        let mut of_main = Some(group.sources());
        for (at, dim) in shape.dims.iter().enumerate() {
            if at == main {
                if *dim == Dim::Port {
                    key.push(numbers(6, 6).union(&numbers(17, 17)).into());
                }
                key.extend(of_main.take().map(Value::from));
            } else {
                let text = others.next().ok_or("an element with too few parts")?;
                key.extend(value(*dim, text, wildcard, family).ok_or_else(|| format!("the element part {text}"))?);
            }
        }
        Ok(Element { key, data: () })
    });
    list.collect::<Result<Vec<_>, String>>().map(Elements::List)
}

impl From<Sources> for Value {
    fn from(numbers: Sources) -> Self {
        Self::Numbers(numbers)
    }
}

fn numbers(first: u128, last: u128) -> Sources {
    Sources::new(vec![(first, last)])
}

impl Group {
    /// The addresses that are in it: of all prefixes that hold an address, the longest decides.
    fn sources(self) -> Sources {
        if !self.excepts {
            return Sources::new(self.ranges);
        }
        let mut levels: Vec<u32> = self.lengths.iter().map(|(len, _)| *len).collect();
        levels.sort_unstable();
        levels.dedup();
        levels.into_iter().fold(Sources::default(), |held, level| {
            let of = |except: bool| {
                let here = self.ranges.iter().zip(&self.lengths).filter(|(_, l)| **l == (level, except));
                Sources::new(here.map(|(r, _)| *r).collect())
            };
            held.union(&of(false)).minus(&of(true))
        })
    }
}

/// What an element's options say about matching.
#[derive(Default)]
struct Flags {
    nomatch: bool,
    wildcard: bool,
}

fn flags(options: &str) -> Option<Flags> {
    let mut flags = Flags::default();
    let mut rest = options.trim_start();
    while !rest.is_empty() {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        match word {
            "nomatch" => flags.nomatch = true,
            "wildcard" => flags.wildcard = true,
            "timeout" | "packets" | "bytes" | "skbmark" | "skbprio" | "skbqueue" => {
                rest = rest.split_once(' ').map_or("", |(_, after)| after);
            }
            // A comment holds no quotes; ipset refuses them.
            "comment" => rest = rest.strip_prefix('"')?.split_once('"')?.1,
            _ => return None,
        }
        rest = rest.trim_start();
    }
    Some(flags)
}

/// The main dimension's text, and all others'.
fn split(element: &str, main: usize, dims: usize) -> Option<(&str, &str)> {
    match (main, dims) {
        (_, 1) => Some((element, "")),
        (0, _) => element.split_once(','),
        _ => element.rsplit_once(',').map(|(rest, own)| (own, rest)),
    }
}

/// First and last number, and the length of the prefix.
fn main_value(shape: &Shape, main: usize, text: &str, family: Family) -> Option<((u128, u128), u32)> {
    let all = width(family);
    match shape.dims.get(main)? {
        Dim::Ip | Dim::Net => {
            let (first, last, len) = addresses(text, family)?;
            match shape.netmask {
                Some(mask) => Some(((prefix(first, mask, family)?.0, prefix(last, mask, family)?.1), mask)),
                None => Some(((first, last), len)),
            }
        }
        // Of TCP or UDP alike (`ip_set_get_ip_port`).
        Dim::Port if shape.bitmap => Some((span(text, '-', 0xffff)?, all)),
        _ => None,
    }
}

/// `1.2.3.4`, `1.2.3.0/24`, `1.2.3.4-1.2.3.9`.
fn addresses(text: &str, family: Family) -> Option<(u128, u128, u32)> {
    if let Some((ip, len)) = text.split_once('/') {
        let len = int(len, width(family))?;
        let (first, last) = prefix(number(address(ip, family)?), len, family)?;
        return Some((first, last, len));
    }
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (number(address(first, family)?), number(address(last, family)?));
        return (first <= last).then_some((first, last, width(family)));
    }
    let one = number(address(text, family)?);
    Some((one, one, width(family)))
}

/// The values of a dimension that isn't the main one.
fn value(dim: Dim, text: &str, wildcard: bool, family: Family) -> Option<Vec<Value>> {
    match dim {
        Dim::Ip | Dim::Net => {
            let (first, last, _) = addresses(text, family)?;
            Some(vec![numbers(first, last).into()])
        }
        Dim::Port => {
            let (proto, port) = text.split_once(':')?;
            let proto = protocol(proto)?;
            let port = match proto {
                // TCP, UDP, SCTP, UDP-Lite.
                6 | 17 | 132 | 136 => {
                    let (first, last) = span(port, '-', 0xffff)?;
                    numbers(first, last).into()
                }
                // ICMP has types there, others nothing: the protocol has told them from every connection already.
                _ => Value::Any,
            };
            Some(vec![Sources::one(proto.into()).into(), port])
        }
        // `physdev:` is a bridge's port. A `*` would be an ordinary letter to ipset, and isn't one in the model.
        Dim::Iface if text.is_empty() || text.contains(':') || text.ends_with('*') => None,
        Dim::Iface => Some(vec![Value::Name(format!("{text}{}", if wildcard { "*" } else { "" }))]),
        Dim::Mark => Some(vec![Sources::one(int(text, u32::MAX)?.into()).into()]),
        Dim::Mac => None,
    }
}
