//! `-m set`: which ipset is tested, with which directions.
//!
//! Belongs here: the match's options. Does not: what a set of some type looks at (`bind`).

use super::rule::{Found, Opt, texts};
use crate::reach::model::Part;

/// Source or destination: of an address, a port, an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Src,
    Dst,
}

/// A test of an ipset, as far as the rule tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetTest {
    /// The set's name.
    pub name: String,
    /// One for each dimension of the set; those too many mean nothing.
    pub ways: Vec<Way>,
    /// Whether the packet must not be in it.
    pub negated: bool,
}

/// Where such a test stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    /// Index of the table.
    pub table: usize,
    /// Name of the chain.
    pub chain: String,
    /// Index of the rule.
    pub rule: usize,
    /// Index of the part, a puzzle until it is bound.
    pub part: usize,
    /// What is tested.
    pub test: SetTest,
}

/// Reads the match's options.
pub(super) fn read(own: &[Opt<'_>], puzzle: impl Fn() -> Part, found: &mut Found) {
    // That nothing is counted decides nothing. Counters and nomatch turned round do: they stay puzzles.
    let counts = |o: &&Opt<'_>| o.negated && matches!(o.name, "--update-counters" | "--update-subcounters");
    let mut rest = own.iter().filter(|o| !counts(o));
    match (rest.next().and_then(set_test), rest.next()) {
        (Some(test), None) => found.push_set(format!("-m set {}", texts(own)), test),
        _ => found.push(puzzle()),
    }
}

/// `--match-set NAME src,dst`. The name is printed without quotes, and may hold blanks.
fn set_test(opt: &Opt<'_>) -> Option<SetTest> {
    let (ways, name) = opt.values.split_last().filter(|(_, name)| !name.is_empty() && opt.name == "--match-set")?;
    let way = |w| match w {
        "src" => Some(Way::Src),
        "dst" => Some(Way::Dst),
        _ => None,
    };
    let ways = ways.split(',').map(way).collect::<Option<Vec<_>>>()?;
    Some(SetTest { name: name.join(" "), ways, negated: opt.negated })
}
