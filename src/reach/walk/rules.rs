//! One class through one rule, one chain, one base chain.
//!
//! Belongs here: what verdicts, jumps, marks and NAT do. Does not: which base chains there are and in what order (`mod`).

use std::borrow::Cow;

use super::{
    Walk,
    class::{Class, Ended, Known, State, Why, merge},
    nat::Destination,
    sets::elements,
    test::{Split, Spot, named},
};
use crate::reach::{
    model::{Among, Chain, ChainKind, Field, Key, MarkValue, Operand, Part, Rule, Set, SetMark, Table, Verdict},
    sources::Sources,
    verdict::{Effect, Obstacle, Place, Step},
};

/// Jumps deeper than this don't exist: nf_tables allows 16, x_tables as many as there are chains.
const DEEPEST: usize = 256;

/// Where a rule stands.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub spot: Spot<'a>,
    pub table: &'a Table,
    pub base: &'a str,
    pub kind: ChainKind,
    pub chain: &'a str,
    pub depth: usize,
}

/// What is left of a class behind a rule.
#[derive(Default)]
pub(super) struct Behind {
    /// Goes on with the next rule.
    pub next: Vec<Class>,
    /// Leaves the chain as if it had ended.
    pub returned: Vec<Class>,
}

impl<'a> Walk<'a> {
    /// Sends classes through a base chain; answers with those that it lets pass.
    pub(super) fn base_chain(&mut self, at: At<'a>, chain: &'a Chain, drops: bool, classes: Vec<Class>) -> Vec<Class> {
        let outer = std::mem::take(&mut self.accepted);
        let fell_out = self.chain(at, chain, classes);
        let mut passed = std::mem::replace(&mut self.accepted, outer);
        for class in fell_out {
            let verdict = if drops { "policy drop" } else { "policy accept" };
            self.told(at, None, verdict, true);
            if drops {
                self.ends(at, None, class, Effect::Drop);
            } else {
                passed.push(class);
            }
        }
        merge(passed)
    }

    /// Sends classes through a chain; answers with those that fall out of its end or return.
    fn chain(&mut self, at: At<'a>, chain: &'a Chain, classes: Vec<Class>) -> Vec<Class> {
        let (mut inside, mut out) = (merge(classes), Vec::new());
        for rule in &chain.rules {
            if inside.is_empty() {
                break;
            }
            let mut next = Vec::with_capacity(inside.len());
            for class in inside {
                if self.too_much(at, &class) {
                    continue;
                }
                let behind = self.rule(at, rule, class);
                next.extend(behind.next);
                out.extend(behind.returned);
            }
            inside = if next.len() > 1 { merge(next) } else { next };
        }
        out.extend(inside);
        merge(out)
    }

    /// Sends a class through a rule. Where the rule could not be decided and yet nothing came of it, the class goes on as
    /// certain as it was.
    fn rule(&mut self, at: At<'a>, rule: &'a Rule, class: Class) -> Behind {
        let ends = (self.ended.len(), self.accepted.len());
        let (was, forks) = (class.clone(), self.forks);
        let mut behind = self.parts(at, rule, class);
        if self.forks == forks {
            return behind;
        }
        let ended = self.ended[ends.0..].iter().map(|e| &e.sources);
        let gone = ended.chain(self.accepted[ends.1..].iter().map(|c| &c.sources));
        let other = behind.next.iter().filter(|c| c.state != was.state).chain(&behind.returned).map(|c| &c.sources);
        let touched = Sources::of_all(gone.chain(other));
        let untouched = was.sources.minus(&touched);
        behind.next = behind.next.into_iter().map(|c| c.with(c.sources.intersect(&touched))).collect();
        behind.next.push(was.with(untouched));
        behind.next = merge(behind.next);
        behind
    }

    fn parts(&mut self, at: At<'a>, rule: &'a Rule, class: Class) -> Behind {
        let mut behind = Behind::default();
        let mut live = vec![class];
        let mut decided = false;
        for part in &rule.parts {
            live.retain(|c| !c.sources.is_empty());
            if live.is_empty() {
                return behind;
            }
            let mut on = Vec::with_capacity(live.len());
            for class in live {
                match part {
                    Part::Test(test) => self.test(at, rule, test, class, &mut on, &mut behind.next),
                    Part::Rate(words) => {
                        let why = Why::Rate(self.obstacle(
                            at,
                            Some(rule),
                            Effect::Rate { rate: words.clone(), rejects: false },
                        ));
                        self.fork(&class, class.sources.clone(), why, &mut on, &mut behind.next);
                    }
                    Part::Puzzle(words) => {
                        let why = Why::Puzzle(self.obstacle(at, Some(rule), Effect::Puzzle(words.clone())));
                        self.fork(&class, class.sources.clone(), why, &mut on, &mut behind.next);
                    }
                    Part::Verdict(verdict) => {
                        decided = true;
                        self.verdict(at, rule, verdict, class, &mut behind);
                    }
                    Part::VerdictMap { key, map } => {
                        decided = true;
                        self.verdict_map(at, rule, key, map, class, &mut behind);
                    }
                    Part::SetMark(set) => self.set_mark(at, rule, set, class, &mut on, &mut behind.next),
                    Part::Dnat { address, port, to_this_host } => {
                        decided = true;
                        let to = Destination { address, port, to_this_host: *to_this_host };
                        self.dnat(at, rule, to, class, &mut behind);
                    }
                    Part::Snat => {
                        decided = true;
                        self.told(at, Some(rule), "source NAT", true);
                        let snat = at.kind == ChainKind::Nat || class.state.snat;
                        self.accepted.push(Class { state: State { snat, ..class.state }, ..class });
                    }
                    Part::Feed(set) => {
                        self.feed(at, set, &class.sources);
                        on.push(class);
                    }
                    Part::Notrack => {
                        let untracked = class.state.untracked || !at.spot.is_tracked(&class.state);
                        // What belongs to no connection is not translated, and neither end knows it then.
                        if untracked && at.spot.needs_translation(&class.state) {
                            decided = true;
                            self.verdict(at, rule, &Verdict::Drop, class, &mut behind);
                            continue;
                        }
                        on.push(Class { state: State { untracked, ..class.state }, ..class });
                    }
                }
            }
            live = on;
            if decided {
                break;
            }
        }
        if !decided && live.iter().any(|c| !c.sources.is_empty()) {
            self.told(at, Some(rule), "goes on", true);
        }
        behind.next.extend(live);
        behind
    }

    /// Sends the parts of a class where its split says.
    pub(super) fn divide(
        &mut self,
        at: At<'a>,
        rule: &'a Rule,
        class: Class,
        split: Split,
        on: &mut Vec<Class>,
        next: &mut Vec<Class>,
    ) {
        if split.maybe.is_empty() {
            if split.yes.is_empty() {
                next.push(class);
            } else if split.yes == class.sources {
                on.push(class);
            } else {
                next.push(class.with(class.sources.minus(&split.yes)));
                on.push(class.with(split.yes));
            }
            return;
        }
        let words = split.why.unwrap_or_else(|| "a test that can't be decided".to_owned());
        let why = Why::Puzzle(self.obstacle(at, Some(rule), Effect::Puzzle(words)));
        next.push(class.with(class.sources.minus(&split.yes).minus(&split.maybe)));
        on.push(class.with(split.yes));
        self.fork(&class, split.maybe, why, on, next);
    }

    /// Sends sources both ways.
    fn fork(&mut self, class: &Class, sources: Sources, why: Why, on: &mut Vec<Class>, next: &mut Vec<Class>) {
        self.forks += 1;
        let both = Class { doubt: class.doubt.and(why), ..class.with(sources) };
        on.push(both.clone());
        next.push(both);
    }

    pub(super) fn verdict(
        &mut self,
        at: At<'a>,
        rule: &'a Rule,
        verdict: &'a Verdict,
        class: Class,
        behind: &mut Behind,
    ) {
        let words = match verdict {
            Verdict::Accept => Cow::Borrowed("accept"),
            Verdict::Drop => Cow::Borrowed("drop"),
            Verdict::Reject(with) => Cow::Owned(format!("reject with {with}")),
            Verdict::Jump(to) => Cow::Owned(format!("jump {to}")),
            Verdict::Goto(to) => Cow::Owned(format!("goto {to}")),
            Verdict::Return => Cow::Borrowed("return"),
            Verdict::Continue => Cow::Borrowed("goes on"),
            Verdict::Elsewhere(what) => Cow::Owned(format!("goes where this can't be followed: {what}")),
        };
        self.told(at, Some(rule), &words, true);
        match verdict {
            Verdict::Accept => self.accepted.push(class),
            Verdict::Drop => self.ends(at, Some(rule), class, Effect::Drop),
            Verdict::Reject(with) => self.ends(at, Some(rule), class, Effect::Reject(with.clone())),
            Verdict::Elsewhere(what) => self.lost(at, Some(rule), class, what.clone()),
            Verdict::Return => behind.returned.push(class),
            Verdict::Continue => behind.next.push(class),
            Verdict::Jump(to) | Verdict::Goto(to) => {
                let Some((name, chain)) = at.table.chains.get_key_value(to.as_str()).filter(|_| at.depth < DEEPEST)
                else {
                    return self.lost(at, Some(rule), class, format!("chain {to}, which could not be read"));
                };
                let deeper = At { chain: name, depth: at.depth + 1, ..at };
                let back = self.chain(deeper, chain, vec![class]);
                match verdict {
                    Verdict::Jump(_) => behind.next.extend(back),
                    _ => behind.returned.extend(back),
                }
            }
        }
    }

    fn set_mark(
        &mut self,
        at: At<'a>,
        rule: &'a Rule,
        set: &'a SetMark,
        class: Class,
        on: &mut Vec<Class>,
        next: &mut Vec<Class>,
    ) {
        let marked = |class: Class, value: Known| {
            let mut state = class.state;
            match set.to {
                // Without a connection there is nothing to set it on, and the rule goes on (nft_ct_set_eval, connmark_tg).
                Field::CtMark if !at.spot.is_tracked(&class.state) => {}
                Field::CtMark => state.ct_mark = value,
                _ => state.mark = value,
            }
            Class { state, ..class }
        };
        match &set.value {
            // What reads the mark of a connection that isn't there ends the rule (nft_ct_get_eval).
            MarkValue::Bits { of, and, .. } if *and != 0 && at.spot.lacks(&[(*of).into()], &class.state) => {
                next.push(class)
            }
            MarkValue::Bits { of: _, and: 0, xor } => on.push(marked(class, Known::Is(*xor))),
            MarkValue::Bits { of, and, xor } => {
                let value = match at.spot.number(*of, &class.state) {
                    Known::Is(n) => Known::Is((n & and) ^ xor),
                    Known::Unknown => Known::Unknown,
                };
                on.push(marked(class, value));
            }
            MarkValue::Operand(Operand::Is(value)) => on.push(marked(class, Known::Is(*value))),
            MarkValue::Operand(Operand::None | Operand::Puzzle(_)) => on.push(marked(class, Known::Unknown)),
            MarkValue::Operand(Operand::Map { key, map }) => {
                let class = self.unless_fed(at, rule, map, class);
                let of_kind = |set: &'a Set| if let Set::Numbers(e) = set { Some(e) } else { None };
                match elements(map, at.table, &self.picture.ipsets, of_kind) {
                    Err(_) => on.push(marked(class, Known::Unknown)),
                    Ok(elements) => {
                        let (hits, rest) = self.look_up(at, rule, key, elements, class);
                        next.extend(rest);
                        on.extend(hits.into_iter().map(|(value, class)| marked(class, Known::Is(*value))));
                    }
                }
            }
        }
    }

    /// Ends a class's way at a rule, or at the policy.
    fn ends(&mut self, at: At<'a>, rule: Option<&Rule>, class: Class, effect: Effect) {
        let refused = !matches!(effect, Effect::Puzzle(_));
        let by = self.obstacle(at, rule, effect);
        self.ended.push(Ended { sources: class.sources, doubt: class.doubt, by, refused });
    }

    /// Ends it where it can't be followed any further.
    pub(super) fn lost(&mut self, at: At<'a>, rule: Option<&Rule>, class: Class, why: impl Into<String>) {
        self.ends(at, rule, class, Effect::Puzzle(why.into()));
    }

    /// Conntrack may take up in the middle what it was kept from before; NAT then treats it as something new.
    pub(super) fn taken_up(&mut self, at: At<'a>, class: Class) {
        self.lost(at, None, class, "NAT of a connection whose first packets weren't tracked");
    }

    /// What stands in the way, remembered once.
    pub(super) fn obstacle(&mut self, at: At<'a>, rule: Option<&Rule>, effect: Effect) -> usize {
        let key = (at.spot.leg, rule.map_or(std::ptr::from_ref(at.table) as usize, |r| std::ptr::from_ref(r) as usize));
        let same = self.known.entry(key).or_default();
        if let Some(known) = same.iter().find(|i| self.obstacles[**i].effect == effect) {
            return *known;
        }
        let index = self.obstacles.len();
        same.push(index);
        let place = Some(place(at, rule));
        self.obstacles.push(Obstacle { leg: at.spot.leg, place, effect });
        index
    }

    pub(super) fn failed(&mut self, at: At<'a>, rule: &'a Rule, key: &[Key]) {
        if self.steps.is_some() {
            let words = format!("another {}", named(key));
            self.told(at, Some(rule), &words, false);
        }
    }

    /// Writes down a step, if somebody wants to know.
    pub(super) fn told(&mut self, at: At<'a>, rule: Option<&Rule>, outcome: &str, matched: bool) {
        if let Some(steps) = &mut self.steps {
            steps.push(Step {
                leg: at.spot.leg,
                hook: at.spot.hook,
                depth: at.depth,
                place: place(at, rule),
                outcome: outcome.to_owned(),
                matched,
            });
        }
    }

    /// Ends a class when the rule set is too intricate to follow in bounded time.
    fn too_much(&mut self, at: At<'a>, class: &Class) -> bool {
        self.budget = self.budget.saturating_sub(1 + class.sources.ranges().len() as u64 / 64);
        if self.budget > 0 {
            return false;
        }
        self.lost(at, None, class.clone(), "a rule set too intricate to be followed");
        true
    }
}

/// Where a rule or a policy stands, in words that outlive the picture.
fn place(at: At<'_>, rule: Option<&Rule>) -> Place {
    let about_sets = |part: &Part| match part {
        Part::Test(test) => match &test.among {
            Among::Named(name) | Among::Ipset(name)
                if test.key.iter().any(|k| at.spot.is_about_the_client(k.field, &State::default())) =>
            {
                Some(name.clone())
            }
            _ => None,
        },
        _ => None,
    };
    Place {
        hook: at.spot.hook,
        language: at.table.language,
        family: at.table.family,
        table: at.table.name.clone(),
        chain: if rule.is_some() { at.chain.to_owned() } else { at.base.to_owned() },
        base: at.base.to_owned(),
        position: rule.map(|r| r.position),
        handle: rule.and_then(|r| r.handle),
        text: rule.and_then(|r| r.text.clone()),
        comment: rule.and_then(|r| r.comment.clone()),
        sets: rule.map(|r| r.parts.iter().filter_map(about_sets).collect()).unwrap_or_default(),
    }
}
