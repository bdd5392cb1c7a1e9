//! Matches and verdict maps: what is looked at, and what it must be.
//!
//! Belongs here: `match` and `vmap`, and looking things up in general. Does not: statements (`statements`).

use std::collections::HashMap;

use super::{
    json::Json,
    keys::{Looks, looks},
    kinds::Kind,
    sets::{self, Declared, Stateful},
    words::words,
};
use crate::{
    nft::TableFamily,
    reach::{
        model::{Among, Elements, Key, Part, Test, Value, Verdict},
        sources::Sources,
    },
};

/// A rule while it is read.
pub struct Reading<'d> {
    /// The family of its table.
    pub family: TableFamily,
    /// The sets of its table by name.
    pub declared: &'d HashMap<String, Declared>,
    /// What nft hides because of its age, in words: see [`super::parse`].
    pub hides_statements: bool,
    /// What has been read so far.
    pub parts: Vec<Part>,
}

impl Reading<'_> {
    /// Adds a part.
    pub fn push(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// Adds something that isn't understood.
    pub fn puzzle(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Puzzle(text.into()));
    }

    /// Adds a test that the rule doesn't show, unless it stands there already.
    pub fn take_for_granted(&mut self, part: Part) {
        if !self.parts.contains(&part) {
            self.parts.push(part);
        }
    }

    /// What an expression looks at; what it takes for granted is added.
    pub fn look(&mut self, expression: &Json<'_>) -> Result<Vec<(Key, Kind)>, String> {
        let Looks { first, at } = looks(self.family, expression);
        first.into_iter().for_each(|part| self.take_for_granted(part));
        at
    }

    /// Adds what an expression takes for granted, where its value makes no difference: a packet that hasn't got it goes no further.
    pub fn require(&mut self, expression: &Json<'_>) {
        if let Ok(keys) = self.look(expression) {
            self.families(&keys).into_iter().for_each(|part| self.take_for_granted(part));
        }
    }

    /// What the elements of a set do besides being there.
    pub fn run(&mut self, statements: Vec<Stateful>) {
        for statement in statements {
            self.push(match statement {
                Stateful::Rate(text) => Part::Rate(text),
                Stateful::Puzzle(text) => Part::Puzzle(text),
            });
        }
    }

    /// A `match`.
    pub fn compare(&mut self, whole: &Json<'_>, body: &Json<'_>) {
        let (Some(left), Some(right)) = (body.get("left"), body.get("right")) else { return self.puzzle(words(whole)) };
        let Some(op) = body.text_of("op") else { return self.puzzle(words(whole)) };
        let Ok(keys) = self.look(left) else { return self.puzzle(words(whole)) };
        match self.test(&keys, op, right) {
            Some((test, statements)) => {
                let hit = !test.negated;
                self.push(Part::Test(test));
                if hit {
                    self.run(statements);
                }
            }
            None => self.puzzle(words(whole)),
        }
    }

    fn test(&self, keys: &[(Key, Kind)], op: &str, right: &Json<'_>) -> Option<(Test, Vec<Stateful>)> {
        let negated = match op {
            "==" | "in" => false,
            "!=" => true,
            "!" | "<" | ">" | "<=" | ">=" => return bits_or_order(keys, op, right).map(|test| (test, Vec::new())),
            _ => return None,
        };
        let test = |among| Test { key: Looks::keys(keys), among, negated };
        if let Some(name) = right.text().and_then(|text| text.strip_prefix('@')) {
            let (name, statements) = self.named(keys, name)?;
            return Some((test(Among::Named(name)), statements));
        }
        if let Some(("set", elements)) = right.only() {
            // nft writes no empty set in a rule; `!= {}` would let everything pass.
            let elements = elements.list().filter(|e| !e.is_empty())?;
            let among = sets::plain(elements, &sets::kinds_of(keys)).ok()?;
            let statements = sets::stateful(elements).filter_map(|(name, value)| Stateful::of(name, value)).collect();
            return Some((test(Among::These(among)), statements));
        }
        if op == "in" {
            return bits_or_order(keys, op, right).map(|test| (test, Vec::new()));
        }
        let elements = match keys {
            [(_, kind)] => match kind.value(right)? {
                Value::Numbers(numbers) => Elements::Numbers(numbers, ()),
                other => Elements::List(vec![crate::reach::model::Element { key: vec![other], data: () }]),
            },
            // `ip saddr . tcp dport == 10.0.0.1 . 80`
            _ => {
                right.get("concat")?;
                sets::plain(std::slice::from_ref(right), &sets::kinds_of(keys)).ok()?
            }
        };
        Some((test(Among::These(elements)), Vec::new()))
    }

    /// A set or map of the table, if its keys are as many as are looked up, and of the same kinds.
    pub fn named(&self, keys: &[(Key, Kind)], name: &str) -> Option<(String, Vec<Stateful>)> {
        let declared = self.declared.get(name)?;
        let fits = |(one, other): (&(Key, Kind), &Kind)| {
            let name = |k: Kind| matches!(k, Kind::Name | Kind::Index);
            one.1 == *other || *other == Kind::Number && one.1 != Kind::Zero || name(one.1) && name(*other)
        };
        // What isn't understood of a declaration is said by the set itself.
        let fit = declared.kinds.as_ref().is_none_or(|k| k.len() == keys.len() && keys.iter().zip(k).all(fits));
        fit.then(|| (name.to_owned(), declared.statements.clone()))
    }

    /// A `vmap`.
    pub fn decide(&mut self, whole: &Json<'_>, body: &Json<'_>) {
        // Which verdict it would be isn't known, nor whether there is one.
        let unknown = || Part::Verdict(Verdict::Elsewhere(words(whole)));
        let (Some(key), Some(data)) = (body.get("key"), body.get("data")) else { return self.push(unknown()) };
        let Ok(keys) = self.look(key) else { return self.push(unknown()) };
        // An address that a packet hasn't got is no missing entry: the rule ends.
        for part in self.families(&keys) {
            self.take_for_granted(part);
        }
        let (map, statements) = if let Some(name) = data.text().and_then(|t| t.strip_prefix('@')) {
            match self.named(&keys, name) {
                Some((name, statements)) => (Among::Named(name), statements),
                None => return self.push(unknown()),
            }
        } else {
            let elements = data.get("set").and_then(Json::list);
            match elements.map(|e| (e, sets::verdicts(e, &sets::kinds_of(&keys)))) {
                Some((e, Ok(map))) => {
                    let statements = sets::stateful(e).filter_map(|(name, value)| Stateful::of(name, value)).collect();
                    (Among::These(map), statements)
                }
                _ => return self.push(unknown()),
            }
        };
        self.run(statements);
        self.push(Part::VerdictMap { key: Looks::keys(&keys), map });
    }

    fn families(&self, keys: &[(Key, Kind)]) -> Vec<Part> {
        let v6 = |kind: Kind| match kind {
            Kind::V4 => Some(false),
            Kind::V6 => Some(true),
            _ => None,
        };
        keys.iter().filter_map(|(_, kind)| super::keys::network(self.family, v6(*kind)?)).collect()
    }
}

/// `tcp flags syn` (any of the bits), `tcp flags ! syn` (none of them), `tcp dport < 1024`.
fn bits_or_order(keys: &[(Key, Kind)], op: &str, right: &Json<'_>) -> Option<Test> {
    let [(key, kind)] = keys else { return None };
    let number = kind.single(right)?;
    let among = |numbers| Among::These(Elements::Numbers(numbers, ()));
    if matches!(op, "in" | "!") {
        if !kind.is_flags() || number == 0 {
            return None;
        }
        let mask = Some(key.mask.map_or(number, |m| m & number));
        let key = vec![Key { field: key.field, mask }];
        return Some(Test { key, among: among(Sources::one(0)), negated: op == "in" });
    }
    if !matches!(kind, Kind::V4 | Kind::V6 | Kind::Port | Kind::Proto | Kind::Number) {
        return None;
    }
    let below = |n: u128| n.checked_sub(1).map_or_else(Sources::default, |last| Sources::new(vec![(0, last)]));
    let from = |n: u128| Sources::new(vec![(n, kind.highest())]);
    let numbers = match op {
        "<" => below(number),
        "<=" => Sources::new(vec![(0, number)]),
        ">" => from(number.checked_add(1)?),
        _ => from(number),
    };
    Some(Test { key: vec![*key], among: among(numbers), negated: false })
}
