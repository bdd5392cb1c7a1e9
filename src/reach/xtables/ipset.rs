//! `ipset save`: sets, their types, and lists of sets.
//!
//! Belongs here: the frame, and what each set looks at. Does not: elements (`elements`), rules that use sets (`bind`).

use std::collections::{BTreeSet, HashMap};

use super::{
    elements::{self, Dim, Shape},
    values::int,
};
use crate::{
    allowlist::Family,
    error::{Error, ErrorKind, Result},
    reach::{
        model::{Element, Elements, Set, Value},
        sources::Sources,
    },
};

/// The kernel's ipsets, with what is needed to know what a test of one looks at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ipsets {
    /// Their elements by name, for [`Picture::ipsets`](crate::reach::Picture::ipsets). A list of sets is the union of its
    /// members; one that has members of both families has those of IPv6 under `NAME (inet6)`.
    pub sets: HashMap<String, Set>,
    pub(super) kinds: HashMap<String, Kind>,
}

/// What a test of a set looks at.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A set of that shape.
    Plain(Shape),
    /// A list of sets, as packets of IPv4 and of IPv6 see it.
    List { v4: View, v6: View },
}

/// What packets of one family see of a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum View {
    /// Nothing.
    Empty,
    /// Elements under that name, whose keys are those of each shape in turn.
    Members { set: String, shapes: Vec<Shape> },
    /// It can't be told, and why.
    Puzzle(String),
}

/// A set as it is read.
struct Building<'a> {
    name: &'a str,
    /// None for a list.
    shape: Option<Shape>,
    /// What stands behind `add NAME`.
    elements: Vec<&'a str>,
    /// Why it can't be read.
    puzzle: Option<String>,
}

/// Reads what `ipset save` printed. Read all sets at once: a list's members are needed too.
///
/// # Errors
/// With the line, if the text isn't that. A set whose type or elements aren't understood is a [`Set::Puzzle`].
pub fn ipsets(save: &[u8]) -> Result<Ipsets> {
    let text = String::from_utf8_lossy(save);
    let mut all: Vec<Building<'_>> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let bad = |what: &str| {
            Error::new(ErrorKind::Program, format!("cannot read the saved ipsets, line {}: {what}", at + 1))
                .hint("look at what `ipset save` prints")
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line == "COMMIT" {
            continue;
        }
        if let Some(created) = line.strip_prefix("create ") {
            let set = create(created).ok_or_else(|| bad("a set without a type"))?;
            if index.insert(set.name, all.len()).is_some() {
                return Err(bad(&format!("set {} comes twice", set.name)));
            }
            all.push(set);
        } else if let Some(added) = line.strip_prefix("add ") {
            // The elements of a set follow it; only a name without blanks can be found otherwise.
            let here = all.last().and_then(|s| Some((all.len() - 1, added.strip_prefix(s.name)?.strip_prefix(' ')?)));
            let named = || {
                let (name, element) = added.split_once(' ')?;
                Some((*index.get(name)?, element))
            };
            let (set, element) = here.or_else(named).ok_or_else(|| bad("an element of a set that wasn't created"))?;
            all[set].elements.push(element);
        } else {
            return Err(bad("neither a set nor an element"));
        }
    }
    Ok(build(&all))
}

/// `NAME TYPE OPTION…`. The name may hold blanks.
fn create(text: &str) -> Option<Building<'_>> {
    let is_type = |w: &str| ["hash:", "bitmap:", "list:"].iter().any(|t| w.starts_with(t));
    let at = text.match_indices(' ').map(|(i, _)| i).find(|i| is_type(&text[i + 1..]))?;
    let (name, rest) = (&text[..at], &text[at + 1..]);
    let mut words = rest.split(' ');
    let kind = words.next()?;
    let mut set = Building { name, shape: None, elements: Vec::new(), puzzle: None };
    if name.contains('\u{fffd}') {
        set.puzzle = Some("its name isn't text".to_owned());
    }
    if kind != "list:set" {
        match Shape::read(kind, words) {
            Ok(shape) => set.shape = Some(shape),
            Err(why) => {
                set.shape = Some(Shape::unknown());
                set.puzzle = Some(why);
            }
        }
    }
    Some(set)
}

fn build(all: &[Building<'_>]) -> Ipsets {
    let mut made = Ipsets::default();
    for set in all {
        let Some(shape) = &set.shape else { continue };
        let content = match &set.puzzle {
            Some(why) => Err(why.clone()),
            None => elements::read(shape, &set.elements),
        };
        let content = content.map_or_else(|why| Set::Puzzle(format!("ipset {}: {why}", set.name)), Set::Plain);
        made.sets.insert(set.name.to_owned(), content);
        made.kinds.insert(set.name.to_owned(), Kind::Plain(shape.clone()));
    }
    for list in all.iter().filter(|s| s.shape.is_none()) {
        let members: Vec<_> = list.elements.iter().map(|e| member(e, &made)).collect();
        let both = [Family::V4, Family::V6].map(|family| seen_by(family, &members, &made));
        let [v4, v6] = &both;
        // One name if one family sees something, or both the same.
        let apart = !v4.is_empty() && !v6.is_empty() && v4 != v6;
        let [v4, v6] = [(v4, false), (v6, apart)].map(|(seen, second)| {
            let name = if second { format!("{} (inet6)", list.name) } else { list.name.to_owned() };
            match seen {
                Seen::Empty => View::Empty,
                Seen::Puzzle(why) => View::Puzzle(why.clone()),
                Seen::Members(shapes, elements) => {
                    made.sets.insert(name.clone(), Set::Plain(elements.clone()));
                    View::Members { set: name, shapes: shapes.clone() }
                }
            }
        });
        made.sets.entry(list.name.to_owned()).or_insert_with(|| match (&v4, &v6) {
            (View::Puzzle(why), _) | (_, View::Puzzle(why)) => Set::Puzzle(format!("ipset {}: {why}", list.name)),
            _ => Set::Plain(Elements::Numbers(Sources::default(), ())),
        });
        made.kinds.insert(list.name.to_owned(), Kind::List { v4, v6 });
    }
    made
}

/// The member's name, which may hold blanks, before options.
fn member<'a>(element: &'a str, made: &Ipsets) -> Result<&'a str, &'a str> {
    let ends = element.match_indices(' ').map(|(i, _)| i).chain([element.len()]);
    ends.map(|i| &element[..i]).find(|name| matches!(made.kinds.get(*name), Some(Kind::Plain(_)))).ok_or(element)
}

#[derive(PartialEq)]
enum Seen {
    Empty,
    Members(Vec<Shape>, Elements<()>),
    Puzzle(String),
}

impl Seen {
    const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// What packets of a family find in a list: the first member that has them counts (`list_set_ktest`), so any. Members of the
/// other family never do, and `nomatch` in one says nothing about the others (`ip_set_test`).
fn seen_by(family: Family, members: &[Result<&str, &str>], made: &Ipsets) -> Seen {
    let mut mine: Vec<(&Shape, &Elements<()>)> = Vec::new();
    for member in members {
        let name = match member {
            Ok(name) => *name,
            Err(text) => return Seen::Puzzle(format!("its member {text} is missing")),
        };
        match (made.kinds.get(name), made.sets.get(name)) {
            (Some(Kind::Plain(shape)), _) if shape.family.is_some_and(|f| f != family) => {}
            (Some(Kind::Plain(shape)), Some(Set::Plain(elements))) => mine.push((shape, elements)),
            _ => return Seen::Puzzle(format!("its member {name} can't be read")),
        }
    }
    let mut shapes: Vec<Shape> = Vec::new();
    for (shape, _) in &mine {
        if !shapes.iter().any(|s| s.looks_like(shape)) {
            shapes.push((*shape).clone());
        }
    }
    let width: usize = shapes.iter().map(|s| s.slots().len()).sum();
    match (shapes.as_slice(), width) {
        ([], _) => Seen::Empty,
        (_, 1) => {
            let ranges = mine.iter().filter_map(|(_, e)| match e {
                Elements::Numbers(numbers, ()) => Some(numbers.ranges()),
                Elements::List(_) => None,
            });
            let union = Sources::new(ranges.flatten().copied().collect());
            Seen::Members(shapes, Elements::Numbers(union, ()))
        }
        _ => {
            let mut all = Vec::new();
            for (shape, elements) in mine {
                let before = shapes.iter().take_while(|s| !s.looks_like(shape)).map(|s| s.slots().len()).sum();
                all.extend(widen(elements, before, width));
            }
            Seen::Members(shapes, Elements::List(all))
        }
    }
}

/// The elements with anything in the places of other members.
fn widen(elements: &Elements<()>, before: usize, width: usize) -> Vec<Element<()>> {
    let keys: Vec<Vec<Value>> = match elements {
        Elements::Numbers(numbers, ()) => vec![vec![Value::Numbers(numbers.clone())]],
        Elements::List(list) => list.iter().map(|e| e.key.clone()).collect(),
    };
    let wide = |key: Vec<Value>| {
        let mut all = vec![Value::Any; width];
        for (slot, value) in all.iter_mut().skip(before).zip(key) {
            *slot = value;
        }
        Element { key: all, data: () }
    };
    keys.into_iter().map(wide).collect()
}

impl Shape {
    /// From `hash:ip,port` and the words behind it.
    fn read<'a>(kind: &str, mut words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let unknown = || format!("the type {kind} isn't known");
        let (method, dims) = kind.split_once(':').ok_or_else(unknown)?;
        let dims = dims.split(',').map(|d| Dim::read(d).ok_or_else(unknown)).collect::<Result<Vec<_>, _>>()?;
        let mut shape = Self { dims, ..Self::unknown() };
        let has_address = shape.dims.iter().any(|d| matches!(d, Dim::Ip | Dim::Net));
        shape.bitmap = match method {
            "hash" => false,
            "bitmap" => true,
            _ => return Err(unknown()),
        };
        shape.family = has_address.then_some(Family::V4);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("the option {word} has no value"));
            match word {
                "family" => match value()? {
                    "inet6" if has_address => shape.family = Some(Family::V6),
                    "inet" | "inet6" => {}
                    other => return Err(format!("the family {other} isn't known")),
                },
                "netmask" if matches!(kind, "hash:ip" | "hash:ip,port" | "bitmap:ip") => {
                    shape.netmask = Some(int(value()?, 128).ok_or("its netmask is no length")?);
                }
                "markmask" => shape.markmask = int(value()?, u32::MAX).ok_or("its markmask is no number")?,
                "hashsize" | "maxelem" | "bucketsize" | "initval" | "timeout" | "range" | "size" | "probes"
                | "resize" => {
                    value()?;
                }
                "counters" | "comment" | "skbinfo" | "forceadd" => {}
                other => return Err(format!("the option {other} isn't known")),
            }
        }
        Ok(shape)
    }
}

impl Ipsets {
    /// The names of the sets and lists that were read.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        self.kinds.keys().cloned().collect()
    }
}
