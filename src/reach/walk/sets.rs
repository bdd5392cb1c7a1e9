//! What is looked up: tests, maps, and the sets that they look into.
//!
//! Belongs here: where elements come from, and which part of a class they are for. Does not: whether a packet fits one
//! element (`test`), what then becomes of the class (`rules`).

use std::collections::HashMap;

use super::{
    Walk,
    class::{Class, merge},
    rules::{At, Behind},
    test::Split,
};
use crate::reach::{
    model::{Among, Elements, Key, Rule, Set, Table, Test, Verdict},
    sources::Sources,
};

impl<'a> Walk<'a> {
    /// Divides a class at a test.
    pub(super) fn test(
        &mut self,
        at: At<'a>,
        rule: &'a Rule,
        test: &'a Test,
        class: Class,
        on: &mut Vec<Class>,
        next: &mut Vec<Class>,
    ) {
        if at.spot.lacks(&test.key, &class.state) {
            self.failed(at, rule, &test.key);
            next.push(class);
            return;
        }
        let mut split = match self.keys(at, &test.among) {
            Ok(elements) => at.spot.among(&class, &test.key, elements),
            Err(why) => Split::puzzle(&class.sources, why),
        };
        if let Some((name, fed)) = self.fed_into(at, &test.among) {
            let open = class.sources.intersect(fed);
            if !open.is_empty() {
                split.why.get_or_insert_with(|| changing(name));
                split.yes = split.yes.minus(&open);
                split.maybe = split.maybe.union(&open);
            }
        }
        if test.negated {
            split.yes = class.sources.minus(&split.yes).minus(&split.maybe);
        }
        if split.yes.is_empty() && split.maybe.is_empty() {
            self.failed(at, rule, &test.key);
        }
        self.divide(at, rule, class, split, on, next);
    }

    pub(super) fn verdict_map(
        &mut self,
        at: At<'a>,
        rule: &'a Rule,
        key: &[Key],
        map: &'a Among<Verdict>,
        class: Class,
        behind: &mut Behind,
    ) {
        let class = self.unless_fed(at, rule, map, class);
        let of_kind = |set: &'a Set| if let Set::Verdicts(e) = set { Some(e) } else { None };
        let elements = match elements(map, at.table, &self.picture.ipsets, of_kind) {
            Ok(elements) => elements,
            Err(why) => return self.lost(at, Some(rule), class, why),
        };
        let (hits, rest) = self.look_up(at, rule, key, elements, class);
        if hits.is_empty() {
            self.failed(at, rule, key);
        }
        behind.next.extend(rest);
        for (verdict, class) in hits {
            self.verdict(at, rule, verdict, class, behind);
        }
    }

    /// What a map gives to which part of a class, and what it has nothing for.
    pub(super) fn look_up<'e, D>(
        &mut self,
        at: At<'a>,
        rule: &'a Rule,
        key: &[Key],
        elements: &'e Elements<D>,
        class: Class,
    ) -> (Vec<(&'e D, Class)>, Vec<Class>) {
        let mut hits = Vec::new();
        if at.spot.lacks(key, &class.state) {
            return (hits, vec![class]);
        }
        let mut rest = vec![class];
        let mut one = |walk: &mut Self, rest: Vec<Class>, data: &'e D, split: &dyn Fn(&Class) -> Split| {
            let mut left = Vec::new();
            for class in rest {
                let split = split(&class);
                let mut on = Vec::new();
                walk.divide(at, rule, class, split, &mut on, &mut left);
                hits.extend(on.into_iter().filter(|c| !c.sources.is_empty()).map(|c| (data, c)));
            }
            merge(left)
        };
        match elements {
            Elements::Numbers(_, data) => rest = one(self, rest, data, &|c| at.spot.among(c, key, elements)),
            Elements::List(list) => {
                for element in list {
                    if rest.is_empty() {
                        break;
                    }
                    rest = one(self, rest, &element.data, &|c| at.spot.element(c, &c.sources, key, element));
                }
            }
        }
        (hits, rest)
    }

    /// Remembers whose packets change a set.
    pub(super) fn feed(&mut self, at: At<'a>, set: &Among<()>, sources: &Sources) {
        if let Some(key) = fed_key(at, set) {
            let fed = self.fed.entry(key).or_default();
            *fed = fed.union(sources);
        }
    }

    /// Takes out those whose packets change a map: what it gives them can't be told.
    pub(super) fn unless_fed<D>(&mut self, at: At<'a>, rule: &'a Rule, map: &Among<D>, class: Class) -> Class {
        let Some((name, fed)) = self.fed_into(at, map) else { return class };
        let (open, why) = (class.with(class.sources.intersect(fed)), changing(name));
        let rest = class.with(class.sources.minus(&open.sources));
        if !open.sources.is_empty() {
            self.lost(at, Some(rule), open, why);
        }
        rest
    }

    /// What rules have put into a set, or taken out of it, as far as it is known.
    fn fed_into<'n, D>(&self, at: At<'a>, among: &'n Among<D>) -> Option<(&'n str, &Sources)> {
        let (Among::Named(name) | Among::Ipset(name)) = among else { return None };
        Some((name, self.fed.get(&fed_key(at, among)?)?))
    }

    /// The keys of a set.
    fn keys(&self, at: At<'a>, among: &'a Among<()>) -> Result<&'a Elements<()>, String> {
        let of_kind = |set: &'a Set| if let Set::Plain(e) = set { Some(e) } else { None };
        elements(among, at.table, &self.picture.ipsets, of_kind)
    }
}

/// The elements that a key is looked up in, or why they aren't known. `of_kind` picks them out of a set that has them.
pub(super) fn elements<'a, D>(
    among: &'a Among<D>,
    table: &'a Table,
    ipsets: &'a HashMap<String, Set>,
    of_kind: impl Fn(&'a Set) -> Option<&'a Elements<D>>,
) -> Result<&'a Elements<D>, String> {
    let (name, set) = match among {
        Among::These(elements) => return Ok(elements),
        Among::Named(name) => (name, table.sets.get(name)),
        Among::Ipset(name) => (name, ipsets.get(name)),
    };
    match set {
        None => Err(format!("set {name}, which could not be read")),
        Some(Set::Puzzle(why)) => Err(format!("set {name}: {why}")),
        Some(set) => {
            of_kind(set).ok_or_else(|| format!("set {name}, which holds something else than the rule looks for"))
        }
    }
}

/// Which set it is: those of nftables belong to their table, ipsets to the machine.
fn fed_key<D>(at: At<'_>, among: &Among<D>) -> Option<(usize, String)> {
    match among {
        Among::These(_) => None,
        Among::Named(name) => Some((std::ptr::from_ref(at.table) as usize, name.clone())),
        Among::Ipset(name) => Some((0, name.clone())),
    }
}

fn changing(name: &str) -> String {
    format!("set {name}, which rules change as packets pass")
}
