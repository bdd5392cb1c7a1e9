//! What targets do (`-j`, `-g`).
//!
//! Belongs here: which targets decide, and what they change that a later rule or the way of the packet depends on.

use std::net::IpAddr;

use super::{
    rule::{Context, Opt, texts},
    values::{address, int, mark},
};
use crate::{
    allowlist::Family,
    reach::model::{Among, Field, Hook, MarkValue, Operand, Part, SetMark, Verdict},
};

/// Targets after which the packet goes on to the next rule, unchanged in all that the model knows. Some are from
/// xtables-addons.
const WITHOUT_EFFECT: [&str; 20] = [
    "LOG",
    "NFLOG",
    "ULOG",
    "AUDIT",
    "TCPMSS",
    "TCPOPTSTRIP",
    "CLASSIFY",
    "DSCP",
    "TOS",
    "ECN",
    "CHECKSUM",
    "SECMARK",
    "CONNSECMARK",
    "IDLETIMER",
    "LED",
    "RATEEST",
    "TEE",
    "TRACE",
    "ACCOUNT",
    "LOGMARK",
];

/// Reads a rule's target.
pub(super) fn read(jump: &Opt<'_>, own: &[Opt<'_>], cx: &Context<'_>) -> Vec<Part> {
    let said = format!("{} {}", jump.values.join(" "), texts(own)).trim_end().to_owned();
    let elsewhere = || vec![Part::Verdict(Verdict::Elsewhere(said.clone()))];
    let verdict = |v| vec![Part::Verdict(v)];
    let Some(name) = jump.value().filter(|_| !jump.negated) else { return elsewhere() };
    if jump.name == "-g" {
        return match cx.chains.contains_key(name) && own.is_empty() {
            true => verdict(Verdict::Goto(name.to_owned())),
            false => elsewhere(),
        };
    }
    match (name, own) {
        ("ACCEPT", []) => verdict(Verdict::Accept),
        ("DROP", []) => verdict(Verdict::Drop),
        ("RETURN", []) => verdict(Verdict::Return),
        ("ACCEPT" | "DROP" | "RETURN", _) => elsewhere(),
        // The program lets nobody make a chain with the name of a target, but nft does.
        (chain, []) if cx.chains.contains_key(chain) => verdict(Verdict::Jump(chain.to_owned())),
        ("REJECT", []) => verdict(Verdict::Reject(
            match cx.family {
                Family::V4 => "icmp-port-unreachable",
                Family::V6 => "icmp6-port-unreachable",
            }
            .to_owned(),
        )),
        ("REJECT", [with]) if with.name == "--reject-with" && !with.negated => match with.value() {
            Some(with) => verdict(Verdict::Reject(with.to_owned())),
            None => elsewhere(),
        },
        // They answer in the server's place, or not at all, and all that they take is gone (xtables-addons).
        ("TARPIT" | "DELUDE" | "CHAOS", _) => verdict(Verdict::Drop),
        ("NOTRACK", []) => vec![Part::Notrack],
        ("CT", _) => tracking(own).unwrap_or_else(elsewhere),
        ("MARK", [set]) => vec![set_mark(Field::Mark, packet_mark(set), said)],
        ("CONNMARK", _) => vec![connection_mark(own, said)],
        ("HMARK" | "IPMARK", _) => vec![set_mark(Field::Mark, None, said)],
        ("SET", _) if own.iter().any(|o| o.name == "--map-mark") => vec![set_mark(Field::Mark, None, said)],
        ("SET", _) => own.iter().filter_map(fed).collect(),
        // A packet that arrives with a few hops left reaches its client or not.
        ("TTL" | "HL", [set]) if far_enough(set) => Vec::new(),
        ("SNAT" | "MASQUERADE" | "SAME", _) => vec![Part::Snat],
        ("DNAT", _) => vec![dnat(own, cx.family, said)],
        ("REDIRECT", _) => vec![redirect(own, said)],
        ("NETMAP", _) => match cx.in_base.map(|b| b.hook) {
            Some(Hook::Postrouting | Hook::Input) => vec![Part::Snat],
            Some(Hook::Prerouting | Hook::Output) => {
                vec![Part::Dnat { address: Operand::Puzzle(said), port: Operand::None, to_this_host: false }]
            }
            // Which address it changes depends on where the chain was called from.
            _ => elsewhere(),
        },
        (name, _) if WITHOUT_EFFECT.contains(&name) => Vec::new(),
        _ => elsewhere(),
    }
}

/// The set that `--add-set NAME DIRECTIONS` or `--del-set` changes.
fn fed(opt: &Opt<'_>) -> Option<Part> {
    let name = opt.values.first().filter(|_| matches!(opt.name, "--add-set" | "--del-set"))?;
    Some(Part::Feed(Among::Ipset((*name).to_string())))
}

/// Whether a packet still gets everywhere: 64 hops are what systems begin with.
fn far_enough(set: &Opt<'_>) -> bool {
    match set.name {
        "--ttl-inc" | "--hl-inc" => true,
        "--ttl-set" | "--hl-set" => set.value().and_then(|v| v.parse::<u8>().ok()).is_some_and(|n| n >= 64),
        _ => false,
    }
}

/// `CT`: conntrack's zone changes whether an answer is found to belong to its request; helpers and timeouts don't.
fn tracking(own: &[Opt<'_>]) -> Option<Vec<Part>> {
    let harmless = |o: &Opt<'_>| {
        !o.negated && matches!(o.name, "--helper" | "--timeout" | "--ctevents" | "--expevents" | "--notrack")
    };
    if own.is_empty() || !own.iter().all(harmless) {
        return None;
    }
    Some(own.iter().filter(|o| o.name == "--notrack").map(|_| Part::Notrack).collect())
}

/// A mark's new value; what isn't understood makes it unknown.
fn set_mark(to: Field, value: Option<MarkValue>, said: String) -> Part {
    Part::SetMark(SetMark { to, value: value.unwrap_or(MarkValue::Operand(Operand::Puzzle(said))) })
}

/// The options that `MARK` and `CONNMARK` have in common: `--set-xmark v/m` is `(mark & ~m) ^ v`.
fn bits(opt: &Opt<'_>, of: Field) -> Option<MarkValue> {
    let (value, mask) = mark(opt.value().filter(|_| !opt.negated)?)?;
    let plain = mask == u32::MAX;
    let (and, xor) = match opt.name {
        "--set-xmark" => (!mask, value),
        "--set-mark" => (!(mask | value), value),
        "--and-mark" if plain => (value, 0),
        "--or-mark" if plain => (!value, value),
        "--xor-mark" if plain => (u32::MAX, value),
        _ => return None,
    };
    Some(MarkValue::Bits { of, and, xor })
}

fn packet_mark(opt: &Opt<'_>) -> Option<MarkValue> {
    bits(opt, Field::Mark)
}

/// `CONNMARK`: sets the connection's mark, or copies it from or to the packet's (`connmark_tg`, net/netfilter/xt_connmark.c). A copy
/// that keeps some of the old bits depends on two marks, which the model can't say.
fn connection_mark(own: &[Opt<'_>], said: String) -> Part {
    let mask = |name: &str| match own.iter().find(|o| o.name == name) {
        Some(opt) => int(opt.value().filter(|_| !opt.negated)?, u32::MAX),
        None => Some(u32::MAX),
    };
    let copies = |o: &Opt<'_>| matches!(o.name, "--nfmask" | "--ctmask") && !o.negated;
    let copy = |from: Field, kept: &str, replaced: &str| {
        let and = mask(kept)?;
        (mask(replaced)? == u32::MAX).then_some(MarkValue::Bits { of: from, and, xor: 0 })
    };
    match own {
        [what, rest @ ..] if what.name == "--save-mark" => {
            let value = copy(Field::Mark, "--nfmask", "--ctmask");
            set_mark(Field::CtMark, value.filter(|_| rest.iter().all(copies) && what.values.is_empty()), said)
        }
        [what, rest @ ..] if what.name == "--restore-mark" => {
            let value = copy(Field::CtMark, "--ctmask", "--nfmask");
            set_mark(Field::Mark, value.filter(|_| rest.iter().all(copies) && what.values.is_empty()), said)
        }
        [what] => set_mark(Field::CtMark, bits(what, Field::CtMark), said),
        _ => set_mark(Field::CtMark, None, said),
    }
}

/// Whether the options besides that one leave the new address and port as they are said.
fn only_how(own: &[Opt<'_>], what: &str) -> bool {
    own.iter().filter(|o| o.name == what).count() <= 1
        && own
            .iter()
            .all(|o| !o.negated && (o.name == what || matches!(o.name, "--random" | "--random-fully" | "--persistent")))
}

fn dnat(own: &[Opt<'_>], family: Family, said: String) -> Part {
    let given = own.iter().find(|o| o.name == "--to-destination").and_then(Opt::value);
    let read = given.filter(|_| only_how(own, "--to-destination")).and_then(|to| destination(to, family, &said));
    let (address, port) = read.unwrap_or((Operand::Puzzle(said.clone()), Operand::Puzzle(said)));
    Part::Dnat { address, port, to_this_host: false }
}

/// A new destination; only a map of nft's would give a port with it.
type Address = Operand<(IpAddr, Option<u16>)>;

/// `1.2.3.4`, `1.2.3.4:80`, `:80`, `[2001:db8::1]:80`; a range of either is chosen from by the kernel.
fn destination(to: &str, family: Family, said: &str) -> Option<(Address, Operand<u16>)> {
    let (host, port) = match (family, to.strip_prefix('[')) {
        (Family::V6, Some(bracketed)) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        (Family::V6, None) => (to, None),
        (Family::V4, _) => to.split_once(':').map_or((to, None), |(host, port)| (host, Some(port))),
    };
    let unknown = || Operand::Puzzle(said.to_owned());
    let host = match host {
        "" if port.is_some() => Operand::None,
        range if range.contains('-') => Operand::Puzzle(said.to_owned()),
        one => Operand::Is((address(one, family)?, None)),
    };
    let port = match port {
        None => Operand::None,
        Some(one) => one_port(one).map_or_else(unknown, Operand::Is),
    };
    Some((host, port))
}

/// A port, or a range of only one.
fn one_port(text: &str) -> Option<u16> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    (first == last).then(|| int(first, 0xffff)).flatten().and_then(|n| u16::try_from(n).ok())
}

fn redirect(own: &[Opt<'_>], said: String) -> Part {
    let port = match own.iter().find(|o| o.name == "--to-ports") {
        _ if !only_how(own, "--to-ports") => Operand::Puzzle(said),
        None => Operand::None,
        Some(to) => match to.value().and_then(one_port) {
            Some(port) => Operand::Is(port),
            None => Operand::Puzzle(said),
        },
    };
    Part::Dnat { address: Operand::None, port, to_this_host: true }
}
