//! Elements of sets and maps, written in a rule or in a declaration.
//!
//! Belongs here: elements and declarations of sets. Does not: single values (`kinds`), what rules do with sets (`matches`,
//! `statements`).

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use super::{json::Json, keys::looks, kinds::Kind, statements::verdict, words::words};
use crate::{
    nft::TableFamily,
    reach::{
        model::{Element, Elements, Key, Set, Value, Verdict},
        sources::Sources,
    },
};

/// An element's key as it is written, what is written besides it, and for maps its data.
struct Written<'j, 'a> {
    key: &'j Json<'a>,
    data: Option<&'j Json<'a>>,
}

impl<'j, 'a> Written<'j, 'a> {
    fn of(element: &'j Json<'a>, is_map: bool) -> Option<Self> {
        let (key, data) = match element {
            Json::List(pair) if is_map && pair.len() == 2 => (&pair[0], Some(&pair[1])),
            _ if is_map => return None,
            key => (key, None),
        };
        match key.only() {
            Some(("elem", elem)) => Some(Self { key: elem.get("val")?, data }),
            _ => Some(Self { key, data }),
        }
    }
}

/// What elements do besides being there, in words: a `limit` of each element stops packets that match it.
pub fn stateful<'j>(elements: &'j [Json<'_>]) -> impl Iterator<Item = (&'j str, &'j Json<'j>)> + use<'j> {
    let extra = |elem: &'j Json<'_>| match elem.get("elem") {
        Some(Json::Object(members)) => members.as_slice(),
        _ => &[],
    };
    let members = elements.iter().flat_map(move |e| match e {
        Json::List(pair) => pair.first().map_or(&[][..], extra),
        e => extra(e),
    });
    const HARMLESS: [&str; 6] = ["val", "timeout", "expires", "comment", "counter", "last"];
    members.filter(|(name, _)| !HARMLESS.contains(&name.as_ref())).map(|(name, value)| (name.as_ref(), value))
}

/// A key of one part: numbers, a name, or anything.
fn single(key: &Json<'_>, kind: Kind) -> Option<Value> {
    match key.text() {
        Some("*") => Some(Value::Any),
        _ => kind.value(key),
    }
}

fn several(key: &Json<'_>, kinds: &[Kind]) -> Option<Vec<Value>> {
    if key.text() == Some("*") {
        return Some(vec![Value::Any; kinds.len()]);
    }
    let parts = match key.only() {
        Some(("concat", Json::List(parts))) if parts.len() == kinds.len() => parts,
        _ => return None,
    };
    // A part that is "*" is the interface wildcard; for other kinds there is no such thing.
    let part = |(part, kind): (&Json<'_>, &Kind)| match (part.text(), kind) {
        (Some("*"), Kind::Name) => Some(Value::Any),
        _ => kind.value(part),
    };
    parts.iter().zip(kinds).map(part).collect()
}

/// The elements of a set without data. `Err`, in words, when one isn't understood.
pub fn plain(elements: &[Json<'_>], kinds: &[Kind]) -> Result<Elements<()>, String> {
    keyed(elements, kinds, false, |_| Some(()))
}

/// The elements of a map. `Err`, in words, when one isn't understood.
pub fn mapped<D: Clone + Eq + Hash>(
    elements: &[Json<'_>],
    kinds: &[Kind],
    data: impl Fn(&Json<'_>) -> Option<D>,
) -> Result<Elements<D>, String> {
    keyed(elements, kinds, true, |json| data(json?))
}

fn keyed<D: Clone + Eq + Hash>(
    elements: &[Json<'_>],
    kinds: &[Kind],
    is_map: bool,
    data: impl Fn(Option<&Json<'_>>) -> Option<D>,
) -> Result<Elements<D>, String> {
    let mut groups: Vec<(Vec<(u128, u128)>, D)> = Vec::new();
    let mut group_of: HashMap<D, usize> = HashMap::new();
    let mut others = Vec::new();
    let mut last = Vec::new();
    for element in elements {
        let unknown = || format!("element {}", words(element));
        let written = Written::of(element, is_map).ok_or_else(unknown)?;
        let data = data(written.data).ok_or_else(unknown)?;
        let wild = written.key.text() == Some("*");
        match kinds {
            // Keys of one number don't overlap: they can be put together by what they map to, however many there are.
            [kind] if !wild && !matches!(kind, Kind::Name | Kind::Index) => {
                let span = kind.span(written.key).ok_or_else(unknown)?;
                let at = *group_of.entry(data).or_insert_with_key(|data| {
                    groups.push((Vec::new(), data.clone()));
                    groups.len() - 1
                });
                groups[at].0.push(span);
            }
            [kind] => {
                let key = single(written.key, *kind).ok_or_else(unknown)?;
                // The element for everything else is looked at after all others.
                if wild { &mut last } else { &mut others }.push(Element { key: vec![key], data });
            }
            kinds => {
                let key = several(written.key, kinds).ok_or_else(unknown)?;
                if wild { &mut last } else { &mut others }.push(Element { key, data });
            }
        }
    }
    let mut groups = groups.into_iter().map(|(spans, data)| (Sources::new(spans), data));
    if others.is_empty()
        && last.is_empty()
        && groups.len() == 1
        && let Some((keys, data)) = groups.next()
    {
        return Ok(Elements::Numbers(keys, data));
    }
    let mut list: Vec<Element<D>> =
        groups.map(|(keys, data)| Element { key: vec![Value::Numbers(keys)], data }).collect();
    list.extend(others);
    list.extend(last);
    Ok(Elements::List(list))
}

/// An address of either family.
fn address(json: &Json<'_>) -> Option<IpAddr> {
    json.text()?.parse().ok()
}

/// A port.
pub fn port(json: &Json<'_>) -> Option<u16> {
    Kind::Port.single(json).and_then(|n| u16::try_from(n).ok())
}

/// A mark.
pub fn mark(json: &Json<'_>) -> Option<u32> {
    Kind::Number.single(json).and_then(|n| u32::try_from(n).ok())
}

/// An address, or an address and a port.
pub fn target(json: &Json<'_>) -> Option<(IpAddr, Option<u16>)> {
    match json.only() {
        Some(("concat", Json::List(parts))) if parts.len() == 2 => Some((address(&parts[0])?, Some(port(&parts[1])?))),
        Some(_) => None,
        None => Some((address(json)?, None)),
    }
}

/// What a declaration says of a set: what it may be asked, and what each element does besides.
#[derive(Debug, Clone)]
pub struct Declared {
    /// The kinds of the parts of its keys; none if they aren't understood.
    pub kinds: Option<Vec<Kind>>,
    /// Statements that are run for an element that is hit, in words: limits.
    pub statements: Vec<Stateful>,
}

/// A statement that is run for an element that is hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stateful {
    /// It lets pass up to a rate or number.
    Rate(String),
    /// It lets pass or doesn't.
    Puzzle(String),
}

impl Stateful {
    /// From a statement's name and value; none for those that let everything pass.
    pub fn of(name: &str, value: &Json<'_>) -> Option<Self> {
        use super::words::{count, limit, quota};
        match name {
            "counter" | "last" => None,
            "limit" => Some(Self::Rate(limit(value))),
            "ct count" => Some(Self::Rate(count(value))),
            "quota" => Some(Self::Puzzle(quota(value))),
            other => Some(Self::Puzzle(format!("{other} {}", words(value)))),
        }
    }

    /// Of several statements as in `"stmt": […]`.
    pub fn all(statements: &Json<'_>) -> Vec<Self> {
        let each = statements.each().iter();
        each.filter_map(|s| match s.only() {
            Some((name, value)) => Self::of(name, value),
            None if *s == Json::Null => None,
            None => Some(Self::Puzzle(words(s))),
        })
        .collect()
    }
}

/// The kinds of the parts of a key, or of a map's data: a name, several names, `a . b`, or since nft 1.1 `{"typeof": …}`.
fn kinds(family: TableFamily, declared: &Json<'_>) -> Option<Vec<Kind>> {
    match declared {
        Json::Text(names) => names.split(" . ").map(Kind::of_type).collect(),
        Json::List(names) => names.iter().map(|n| Kind::of_type(n.text()?)).collect(),
        _ => {
            let keys = looks(family, declared.get("typeof")?).at.ok()?;
            Some(keys.into_iter().map(|(_, kind)| kind).collect())
        }
    }
}

/// What a declaration says, without its elements.
pub fn declared(family: TableFamily, set: &Json<'_>) -> Declared {
    let elements = set.get("elem").map_or(&[][..], |e| e.list().unwrap_or_default());
    let mut statements = set.get("stmt").map(Stateful::all).unwrap_or_default();
    for (name, value) in stateful(elements) {
        statements.extend(Stateful::of(name, value).filter(|s| !statements.contains(s)));
    }
    Declared { kinds: set.get("type").and_then(|t| kinds(family, t)), statements }
}

/// A named set or map with its elements.
pub fn named(family: TableFamily, set: &Json<'_>) -> Set {
    let name = set.text_of("name").unwrap_or_default();
    read(family, set).unwrap_or_else(|why| Set::Puzzle(format!("set {name}: {why}")))
}

fn read(family: TableFamily, set: &Json<'_>) -> Result<Set, String> {
    let elements = match set.get("elem") {
        None => &[],
        Some(Json::List(elements)) => elements.as_slice(),
        Some(_) => return Err("elements that aren't a list".into()),
    };
    let declared_type = set.get("type").ok_or("no type")?;
    let kinds = kinds(family, declared_type)
        .filter(|k| !k.is_empty() && !k.contains(&Kind::Zero))
        .ok_or_else(|| format!("keys of type {}", words(declared_type)))?;
    let Some(data) = set.get("map") else { return plain(elements, &kinds).map(Set::Plain) };
    match data.text() {
        Some("verdict") => return verdicts(elements, &kinds).map(Set::Verdicts),
        // Maps to objects: whether there is one is all that decides.
        Some(
            "counter" | "quota" | "limit" | "secmark" | "synproxy" | "ct helper" | "ct timeout" | "ct expectation",
        ) => {
            return mapped(elements, &kinds, |_| Some(())).map(Set::Plain);
        }
        _ => {}
    }
    match self::kinds(family, data).as_deref() {
        Some([Kind::V4 | Kind::V6] | [Kind::V4 | Kind::V6, Kind::Port]) => {
            mapped(elements, &kinds, target).map(Set::Addresses)
        }
        Some([Kind::Port]) => mapped(elements, &kinds, port).map(Set::Ports),
        Some([Kind::Number]) => mapped(elements, &kinds, mark).map(Set::Numbers),
        _ => Err(format!("a map to {}", words(data))),
    }
}

/// The elements of a verdict map.
pub fn verdicts(elements: &[Json<'_>], kinds: &[Kind]) -> Result<Elements<Verdict>, String> {
    mapped(elements, kinds, |json| json.only().and_then(|(name, value)| verdict(name, value)))
}

/// The kinds of what an expression looks at, for elements that are written in the rule.
pub fn kinds_of(looked: &[(Key, Kind)]) -> Vec<Kind> {
    looked.iter().map(|(_, kind)| *kind).collect()
}
