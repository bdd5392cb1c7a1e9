//! Tests of ipsets, once the sets' types are known.
//!
//! Belongs here: set type and directions to the facts that are tested. Does not: elements (`elements`).

use std::collections::BTreeSet;

use super::{
    basic::{daddr, saddr},
    elements::{Shape, Slot},
    ipset::{Ipsets, Kind, View},
    read::Saved,
    setmatch::{SetTest, Way},
    values::{masked, never},
};
use crate::{
    allowlist::Family,
    nft::TableFamily,
    reach::model::{Among, Field, Key, Part, Test},
};

impl Saved {
    /// The ipsets that its rules test.
    #[must_use]
    pub fn ipsets_named(&self) -> BTreeSet<String> {
        self.uses.iter().map(|u| u.test.name.clone()).collect()
    }

    /// Puts the tests of ipsets in their places. A set that isn't among them, or whose type looks at what the model doesn't
    /// know, stays a puzzle. To be called once.
    pub fn bind(&mut self, ipsets: &Ipsets) {
        for at in std::mem::take(&mut self.uses) {
            let Some(table) = self.tables.get_mut(at.table) else { continue };
            let family = if table.family == TableFamily::Ip6 { Family::V6 } else { Family::V4 };
            let rule = table.chains.get_mut(&at.chain).and_then(|c| c.rules.get_mut(at.rule));
            let Some(part) = rule.and_then(|r| r.parts.get_mut(at.part)) else { continue };
            match bound(&at.test, family, ipsets) {
                Ok(test) => *part = test,
                Err(why) => {
                    if let Part::Puzzle(text) = part {
                        *text = format!("{text} ({why})");
                    }
                }
            }
        }
    }
}

/// A use as a test. The error says why it can't be one.
fn bound(test: &SetTest, family: Family, ipsets: &Ipsets) -> Result<Part, String> {
    let kind = ipsets.kinds.get(&test.name).ok_or("there is no such ipset")?;
    let view;
    let (set, shapes) = match kind {
        Kind::Plain(shape) => (&test.name, std::slice::from_ref(shape)),
        Kind::List { v4, v6 } => {
            view = if family == Family::V4 { v4 } else { v6 };
            match view {
                View::Empty => return Ok(never(test.negated)),
                View::Puzzle(why) => return Err(why.clone()),
                View::Members { set, shapes } => (set, shapes.as_slice()),
            }
        }
    };
    if !shapes.iter().all(Shape::is_known) {
        return Err("the set looks at what this program doesn't follow".to_owned());
    }
    // A set of the other family, or with more dimensions than the rule gives directions, has no packet (`ip_set_test`).
    let can = |s: &&Shape| s.family.is_none_or(|f| f == family) && s.dims.len() <= test.ways.len();
    match shapes.iter().filter(can).count() {
        0 => return Ok(never(test.negated)),
        n if n < shapes.len() => return Err("some members of the list have more dimensions than the rule".to_owned()),
        _ => {}
    }
    let key = shapes.iter().flat_map(|s| s.slots().into_iter().map(|slot| key(slot, s, family, &test.ways)));
    let key = key.collect::<Option<Vec<_>>>().ok_or("the set has more dimensions than the rule")?;
    Ok(Part::Test(Test { key, among: Among::Ipset(set.clone()), negated: test.negated }))
}

fn key(slot: Slot, shape: &Shape, family: Family, ways: &[Way]) -> Option<Key> {
    let either = |at: usize, src: Field, dst: Field| {
        Some(match ways.get(at)? {
            Way::Src => src,
            Way::Dst => dst,
        })
    };
    let field = match slot {
        Slot::Address(at) => either(at, saddr(family), daddr(family))?,
        Slot::Protocol => Field::L4Proto,
        Slot::Port(at) => either(at, Field::Sport, Field::Dport)?,
        Slot::Iface(at) => either(at, Field::Iif, Field::Oif)?,
        Slot::Mark if shape.markmask != u32::MAX => return Some(masked(Field::Mark, shape.markmask.into())),
        Slot::Mark => Field::Mark,
    };
    Some(field.into())
}
