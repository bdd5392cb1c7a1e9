//! Connection tracking: `-m conntrack` and `-m state`.
//!
//! Belongs here: how `conntrack_mt` (net/netfilter/xt_conntrack.c) decides, in facts of the model. A packet without a
//! connection fails every test of one, negated or not, except that of the state.

use super::{
    matches::each,
    rule::Opt,
    values::{any_of, masked, net, ports, protocol, test},
};
use crate::{
    allowlist::Family,
    reach::{
        model::{Field, Part, Value},
        sources::Sources,
    },
};

/// Bits of `ct state`.
const INVALID: u128 = 1;
const UNTRACKED: u128 = 64;
/// Bits of `ct status` (`IPS_SRC_NAT`, `IPS_DST_NAT`).
const SNAT: u128 = 16;
const DNAT: u128 = 32;

/// Reads the match with its options. None: not understood.
pub(super) fn read(name: &str, own: &[Opt<'_>], family: Family) -> Option<Vec<Part>> {
    let state = own.iter().find(|o| matches!(o.name, "--ctstate" | "--state"));
    if let Some(state) = state {
        // Without a connection the kernel looks at the state and at nothing else: then not all of the rest has to hold, and to a
        // packet without a connection the words SNAT and DNAT are no test that fails.
        let (states, status) = states(state)?;
        let without = [INVALID, UNTRACKED].iter().any(|s| states.contains(s) != state.negated);
        if without && (own.len() > 1 || status != 0) {
            return None;
        }
    }
    each(name, own, |opt| one(opt, family))
}

fn one(opt: &Opt<'_>, family: Family) -> Option<Part> {
    let address = |field| {
        let (key, numbers) = net(opt.value()?, field, family)?;
        Some(test(key, numbers, opt.negated))
    };
    let port = |field| Some(test(field, ports(opt.value()?)?, opt.negated));
    match opt.name {
        "--ctstate" | "--state" => Some(by_state(opt)?),
        "--ctproto" => Some(test(Field::CtProto, Sources::one(protocol(opt.value()?)?.into()), opt.negated)),
        "--ctorigsrc" => address(Field::CtOriginalSaddr),
        "--ctorigdst" => address(Field::CtOriginalDaddr),
        "--ctorigsrcport" => port(Field::CtOriginalSport),
        "--ctorigdstport" => port(Field::CtOriginalDport),
        "--ctstatus" => by_status(opt),
        "--ctdir" => {
            let reply = match opt.value()? {
                "ORIGINAL" => 0,
                "REPLY" => 1,
                _ => return None,
            };
            Some(test(Field::CtDirection, Sources::one(reply), opt.negated))
        }
        // The addresses of the answer and the time that is left are no facts of the model.
        _ => None,
    }
}

/// The states among the words, and the bits of the status that stand for the words SNAT and DNAT.
fn states(opt: &Opt<'_>) -> Option<(Vec<u128>, u128)> {
    let (mut states, mut status) = (Vec::new(), 0);
    for word in opt.value()?.split(',') {
        match word {
            "INVALID" => states.push(INVALID),
            "ESTABLISHED" => states.push(2),
            "RELATED" => states.push(4),
            "NEW" => states.push(8),
            "UNTRACKED" => states.push(UNTRACKED),
            "SNAT" => status |= SNAT,
            "DNAT" => status |= DNAT,
            _ => return None,
        }
    }
    Some((states, status))
}

fn by_state(opt: &Opt<'_>) -> Option<Part> {
    let (states, status) = states(opt)?;
    let states = Sources::new(states.into_iter().map(|s| (s, s)).collect());
    if status == 0 {
        return Some(test(Field::CtState, states, opt.negated));
    }
    let translated = masked(Field::CtStatus, status);
    if states.is_empty() {
        return Some(test(translated, Sources::new(vec![(1, status)]), opt.negated));
    }
    let either = vec![
        vec![Value::Numbers(states), Value::Any],
        vec![Value::Any, Value::Numbers(Sources::new(vec![(1, status)]))],
    ];
    Some(any_of(vec![Field::CtState.into(), translated], either, opt.negated))
}

/// Any of the bits; `NONE` is no bit, so that nothing has it.
fn by_status(opt: &Opt<'_>) -> Option<Part> {
    let bits = opt.value()?.split(',').try_fold(0, |bits, word| {
        Some(
            bits | match word {
                "NONE" => 0,
                "EXPECTED" => 1,
                "SEEN_REPLY" => 2,
                "ASSURED" => 4,
                "CONFIRMED" => 8,
                _ => return None,
            },
        )
    })?;
    Some(test(masked(Field::CtStatus, bits), Sources::new(vec![(1, bits)]), opt.negated))
}
