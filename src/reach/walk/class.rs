//! Sources that have fared alike so far, and what became of those whose way has ended.
//!
//! A class is a set of source addresses with everything that rules have changed about their packets. Where a rule can't
//! be decided a class goes both ways, and both halves carry the reason. A class without a reason is certain: no other
//! class holds any of its sources.
//!
//! Belongs here: bookkeeping. Does not: why a class splits (`test`, `rules`).

use std::{collections::HashMap, net::IpAddr};

use crate::reach::{
    sources::Sources,
    verdict::{Effect, Judged, Judgement, Obstacle},
};

/// What rules have changed about a packet, and what the connection remembers of its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct State {
    /// `meta mark`; none if it isn't known.
    pub mark: Known,
    /// `ct mark`.
    pub ct_mark: Known,
    /// Whether conntrack was kept away from this packet.
    pub untracked: bool,
    /// Whether it was kept away from the packets before: of the first, and of the answer.
    pub untracked_before: (bool, bool),
    /// The connection's new destination.
    pub dnat: Option<(IpAddr, u16)>,
    /// Whether the connection has got another source.
    pub snat: bool,
}

/// A mark that is known, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Known {
    /// It is this.
    Is(u32),
    /// It could be anything.
    Unknown,
}

impl Default for Known {
    fn default() -> Self {
        Self::Is(0)
    }
}

/// Why a class may not be where it is: the first reason of each kind, as indices into the walk's obstacles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Doubt {
    /// A rate: which way depends on how many packets there are.
    pub rate: Option<usize>,
    /// Something that can't be decided.
    pub puzzle: Option<usize>,
}

impl Doubt {
    /// With one more reason; the first of a kind stays.
    pub fn and(self, why: Why) -> Self {
        match why {
            Why::Rate(r) => Self { rate: self.rate.or(Some(r)), ..self },
            Why::Puzzle(p) => Self { puzzle: self.puzzle.or(Some(p)), ..self },
        }
    }
}

/// Why a class goes both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// A rate.
    Rate(usize),
    /// Something else.
    Puzzle(usize),
}

/// Sources that have fared alike so far.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Class {
    pub sources: Sources,
    pub state: State,
    pub doubt: Doubt,
}

impl Class {
    /// The same with other sources.
    pub fn with(&self, sources: Sources) -> Self {
        Self { sources, ..*self }
    }
}

/// Classes that don't differ but in their sources become one; empty ones go.
pub(super) fn merge(classes: Vec<Class>) -> Vec<Class> {
    if classes.len() < 2 {
        return classes.into_iter().filter(|c| !c.sources.is_empty()).collect();
    }
    let mut place: HashMap<(State, Doubt), usize> = HashMap::new();
    let mut grouped: Vec<Vec<Class>> = Vec::new();
    for class in classes.into_iter().filter(|c| !c.sources.is_empty()) {
        let at = *place.entry((class.state, class.doubt)).or_insert_with(|| {
            grouped.push(Vec::new());
            grouped.len() - 1
        });
        grouped[at].push(class);
    }
    let whole = |group: Vec<Class>| group[0].with(Sources::of_all(group.iter().map(|c| &c.sources)));
    grouped.into_iter().map(whole).collect()
}

/// A way that ended before the connection stood.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub sources: Sources,
    pub doubt: Doubt,
    /// What ended it, as an index into the walk's obstacles.
    pub by: usize,
    /// Whether it was refused, or went where it can't be followed.
    pub refused: bool,
}

/// Weighs all ways together: a source is accepted if every way of its passes, refused if every one is refused.
pub(super) fn weigh(passed: &[Class], ended: &[Ended], obstacles: &[Obstacle]) -> Vec<Judged> {
    let passing = Sources::of_all(passed.iter().map(|c| &c.sources));
    let refused = Sources::of_all(ended.iter().filter(|e| e.refused).map(|e| &e.sources));
    let elsewhere = Sources::of_all(ended.iter().filter(|e| !e.refused).map(|e| &e.sources));
    let mut judged = Vec::new();
    let mut say = |sources: Sources, judgement: Judgement| {
        if !sources.is_empty() {
            judged.push(Judged { sources, judgement });
        }
    };
    say(passing.minus(&refused).minus(&elsewhere), Judgement::Accepted);

    // Refused on every way: by the first rule that was found to do so for certain, were it on one way only. A rule whose
    // own test is the puzzle is named last.
    let mut ends: Vec<&Ended> = ended.iter().filter(|e| e.refused).collect();
    let same_place =
        |a: usize, b: usize| obstacles[a].leg == obstacles[b].leg && obstacles[a].place == obstacles[b].place;
    ends.sort_by_key(|e| [e.doubt.puzzle, e.doubt.rate].into_iter().flatten().any(|why| same_place(why, e.by)));
    let mut rest = refused.minus(&passing).minus(&elsewhere);
    for end in ends {
        let here = rest.intersect(&end.sources);
        rest = rest.minus(&here);
        say(here, Judgement::Refused(obstacles[end.by].clone()));
    }
    // What went where it can't be followed, whatever else might become of it.
    let mut rest = elsewhere.clone();
    for end in ended.iter().filter(|e| !e.refused) {
        let here = rest.intersect(&end.sources);
        rest = rest.minus(&here);
        say(here, Judgement::Unknown(obstacles[end.by].clone()));
    }
    // Some ways pass, some are refused.
    let mut mixed = refused.intersect(&passing).minus(&elsewhere);
    for end in ended.iter().filter(|e| e.refused) {
        if let Some(puzzle) = end.doubt.puzzle {
            let here = mixed.intersect(&end.sources);
            mixed = mixed.minus(&here);
            say(here, Judgement::Unknown(obstacles[puzzle].clone()));
        }
    }
    for end in ended.iter().filter(|e| e.refused) {
        let here = mixed.intersect(&end.sources);
        mixed = mixed.minus(&here);
        // A way that is refused beside one that passes has a reason; were there none, the refusal itself is named.
        match end.doubt.rate {
            Some(rate) => {
                let mut obstacle = obstacles[rate].clone();
                if let Effect::Rate { rejects, .. } = &mut obstacle.effect {
                    *rejects = matches!(obstacles[end.by].effect, Effect::Reject(_));
                }
                say(here, Judgement::Throttled(obstacle));
            }
            None => say(here, Judgement::Unknown(obstacles[end.by].clone())),
        }
    }
    together(judged)
}

/// Equal judgements become one.
fn together(judged: Vec<Judged>) -> Vec<Judged> {
    let mut whole: Vec<Judged> = Vec::new();
    for one in judged {
        match whole.iter_mut().find(|w| w.judgement == one.judgement) {
            Some(same) => same.sources = same.sources.union(&one.sources),
            None => whole.push(one),
        }
    }
    whole
}
