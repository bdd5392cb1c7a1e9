//! What marks are set to: `meta mark set meta mark & 0xff | 1`.
//!
//! Belongs here: the arithmetic of marks. Does not: tests of marks (`keys`).

use super::{json::Json, matches::Reading, sets, words::words};
use crate::reach::model::{Field, MarkValue, Operand, Part, SetMark};

/// A number computed from a fact: `(of & and) ^ xor`; a constant keeps no bit.
#[derive(Clone, Copy)]
struct Bits {
    of: Option<Field>,
    and: u32,
    xor: u32,
}

/// Sets a mark.
pub fn set(rule: &mut Reading<'_>, field: Field, to: &Json<'_>) -> Part {
    let value = match (bits(to), to.get("map")) {
        (Some(Bits { of, and, xor }), _) => MarkValue::Bits { of: of.unwrap_or(field), and, xor },
        (None, Some(map)) => {
            let found = rule.lookup(map, sets::mark);
            MarkValue::Operand(found.unwrap_or_else(|| Operand::Puzzle(words(to))))
        }
        (None, None) => {
            // A fact that the packet hasn't got ends the rule.
            rule.require(to);
            MarkValue::Operand(Operand::Puzzle(words(to)))
        }
    };
    Part::SetMark(SetMark { to: field, value })
}

fn bits(value: &Json<'_>) -> Option<Bits> {
    if let Some(n) = sets::mark(value) {
        return Some(Bits { of: None, and: 0, xor: n });
    }
    let whole = |of| Some(Bits { of: Some(of), and: u32::MAX, xor: 0 });
    let (name, operands) = match value.only()? {
        ("meta", meta) if meta.text_of("key") == Some("mark") => return whole(Field::Mark),
        ("ct", ct) if ct.text_of("key") == Some("mark") => return whole(Field::CtMark),
        (name @ ("&" | "|" | "^"), Json::List(operands)) if operands.len() >= 2 => (name, operands),
        _ => return None,
    };
    let mut all = bits(&operands[0])?;
    for operand in &operands[1..] {
        let mut other = bits(operand)?;
        if all.and == 0 {
            std::mem::swap(&mut all, &mut other);
        }
        // Two facts at once are beyond what a mark is computed from here.
        let Bits { and: 0, xor: n, .. } = other else { return None };
        (all.and, all.xor) = match name {
            "&" => (all.and & n, all.xor & n),
            "|" => (all.and & !n, all.xor & !n | n),
            _ => (all.and, all.xor ^ n),
        };
    }
    Some(all)
}
