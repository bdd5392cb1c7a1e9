use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{
    plan::Protocol,
    reach::{
        model::{
            Among, Base, Element, Elements, Field, Key, Language, MarkValue, Operand, Part, Rule, Set, SetMark, Test,
            Value, Verdict,
        },
        packet::Interface,
        sources::number,
    },
};

const SERVER: &str = "192.0.2.1";
const CONTAINER: &str = "10.0.0.5";

fn ip(text: &str) -> u128 {
    number(text.parse().unwrap())
}

fn net(text: &str) -> Sources {
    [text.parse().unwrap()].iter().collect()
}

fn facts() -> Facts {
    let interface = |name: &str, address: &str| Interface {
        name: name.to_owned(),
        addresses: vec![(address.parse().unwrap(), 24)],
        programs: vec![],
    };
    Facts {
        interfaces: vec![interface("eth0", SERVER), interface("docker0", "10.0.0.1")],
        forwards: (true, true),
        dead_ends: vec![],
    }
}

fn probe() -> Probe {
    Probe {
        to: SERVER.parse().unwrap(),
        port: 443,
        protocol: Protocol::Tcp,
        interface: "eth0".to_owned(),
        way_back: true,
    }
}

fn is(field: Field, values: Sources) -> Part {
    let among = Among::These(Elements::Numbers(values, ()));
    Part::Test(Test { key: vec![field.into()], among, negated: false })
}

fn not(part: Part) -> Part {
    let Part::Test(test) = part else { panic!("only tests are negated") };
    Part::Test(Test { negated: !test.negated, ..test })
}

fn from(range: &str) -> Part {
    is(Field::Saddr4, net(range))
}

fn port(number: u16) -> Part {
    is(Field::Dport, Sources::one(number.into()))
}

fn on(hook: Hook, priority: i32, drops: bool, rules: Vec<Vec<Part>>) -> Chain {
    let base = Base { hook, priority, kind: ChainKind::Filter, drops, devices: vec![] };
    Chain { base: Some(base), rules: numbered(rules) }
}

fn numbered(rules: Vec<Vec<Part>>) -> Vec<Rule> {
    let rule = |(i, parts)| Rule { position: i + 1, parts, ..Rule::default() };
    rules.into_iter().enumerate().map(rule).collect()
}

fn table(name: &str, chains: Vec<(&str, Chain)>) -> Table {
    let chains = chains.into_iter().map(|(n, c)| (n.to_owned(), c)).collect();
    Table { chains, ..Table::new(TableFamily::Inet, name, Language::Nft) }
}

fn picture(tables: Vec<Table>) -> Picture {
    Picture { tables, ..Picture::default() }
}

/// What becomes of 173.245.48.0/20, in words: `accepted`, or the judgement, the chain and the rule's place.
fn fate(picture: &Picture) -> Vec<(String, String)> {
    let mut all: Vec<_> = judge(picture, &facts(), &probe(), &net("173.245.48.0/20"))
        .into_iter()
        .map(|j| {
            let sources: Vec<_> =
                j.sources.prefixes(crate::allowlist::Family::V4).iter().map(|n| n.to_string()).collect();
            (sources.join(" "), words(&j.judgement))
        })
        .collect();
    all.sort();
    all
}

fn words(judgement: &Judgement) -> String {
    let kind = match judgement {
        Judgement::Accepted => "accepted",
        Judgement::Throttled(_) => "throttled",
        Judgement::Unknown(_) => "unknown",
        Judgement::Refused(_) => "refused",
    };
    let Some(obstacle) = judgement.obstacle() else { return kind.to_owned() };
    let place = obstacle.place.as_ref().map_or(String::new(), |p| {
        format!(" {} {}", p.chain, p.position.map_or_else(|| "policy".to_owned(), |n| n.to_string()))
    });
    format!("{kind}{place} {:?}", obstacle.leg)
}

fn all(what: &str) -> Vec<(String, String)> {
    vec![("173.245.48.0/20".to_owned(), what.to_owned())]
}

fn input(rules: Vec<Vec<Part>>) -> Picture {
    picture(vec![table("filter", vec![("input", on(Hook::Input, 0, true, rules))])])
}

const ACCEPT: Part = Part::Verdict(Verdict::Accept);
const DROP: Part = Part::Verdict(Verdict::Drop);

#[test]
fn nothing_in_the_way() {
    assert_eq!(fate(&Picture::default()), all("accepted"));
    assert_eq!(fate(&input(vec![])), all("refused input policy Syn"));
    assert_eq!(fate(&input(vec![vec![port(443), ACCEPT]])), all("accepted"));
}

#[test]
fn a_dormant_table_sees_nothing() {
    let mut asleep = input(vec![]);
    asleep.tables[0].dormant = true;
    assert_eq!(fate(&asleep), all("accepted"));
}

#[test]
fn a_ban_inside_the_range_cuts_out_exactly_itself() {
    let picture = input(vec![vec![from("173.245.48.0/24"), DROP], vec![from("173.245.48.0/20"), ACCEPT]]);
    let expected = [
        ("173.245.48.0/24".to_owned(), "refused input 1 Syn".to_owned()),
        ("173.245.49.0/24 173.245.50.0/23 173.245.52.0/22 173.245.56.0/21".to_owned(), "accepted".to_owned()),
    ];
    assert_eq!(fate(&picture), expected);
}

#[test]
fn an_accept_is_not_final_for_other_base_chains() {
    let ours = table("ours", vec![("input", on(Hook::Input, -10, false, vec![vec![from("0.0.0.0/0"), ACCEPT]]))]);
    let his = table("his", vec![("guard", on(Hook::Input, 0, true, vec![]))]);
    assert_eq!(fate(&picture(vec![ours, his])), all("refused guard policy Syn"));
}

#[test]
fn a_drop_of_the_answer_is_a_refusal() {
    let ban = is(Field::Daddr4, net("173.245.48.0/20"));
    let picture = picture(vec![table("csf", vec![("out", on(Hook::Output, 0, false, vec![vec![ban, DROP]]))])]);
    assert_eq!(fate(&picture), all("refused out 1 SynAck"));
}

#[test]
fn new_connections_alone_are_not_enough() {
    let state = |bit| is(Field::CtState, Sources::one(bit));
    assert_eq!(fate(&input(vec![vec![state(8), port(443), ACCEPT]])), all("refused input policy Ack"));
    assert_eq!(fate(&input(vec![vec![state(2), ACCEPT], vec![state(8), port(443), ACCEPT]])), all("accepted"));
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let called = |call: Verdict| {
        let chains = vec![
            ("input", on(Hook::Input, 0, true, vec![vec![Part::Verdict(call)], vec![ACCEPT]])),
            (
                "web",
                Chain {
                    base: None,
                    rules: numbered(vec![vec![from("173.245.48.0/21"), Part::Verdict(Verdict::Return)]]),
                },
            ),
        ];
        fate(&picture(vec![table("filter", chains)]))
    };
    assert_eq!(called(Verdict::Jump("web".into())), all("accepted"));
    assert_eq!(called(Verdict::Goto("web".into())), all("refused input policy Syn"));
    assert_eq!(called(Verdict::Jump("gone".into())), all("unknown input 1 Syn"));
}

#[test]
fn rates_throttle_and_only_when_something_comes_of_them() {
    let rate = || Part::Rate("limit rate 10/second".into());
    assert_eq!(fate(&input(vec![vec![rate(), ACCEPT]])), all("throttled input 1 Syn"));
    assert_eq!(fate(&input(vec![vec![rate(), DROP], vec![ACCEPT]])), all("throttled input 1 Syn"));
    // A limited log is no obstacle.
    assert_eq!(fate(&input(vec![vec![rate()], vec![ACCEPT]])), all("accepted"));
    assert_eq!(fate(&input(vec![vec![rate(), ACCEPT], vec![ACCEPT]])), all("accepted"));
    assert_eq!(fate(&input(vec![vec![rate(), DROP], vec![DROP]])), all("refused input 2 Syn"));
}

#[test]
fn puzzles_count_only_where_they_decide() {
    let puzzle = || Part::Puzzle("numgen random mod 10".into());
    assert_eq!(fate(&input(vec![vec![puzzle(), ACCEPT]])), all("unknown input 1 Syn"));
    assert_eq!(fate(&input(vec![vec![puzzle(), DROP], vec![ACCEPT]])), all("unknown input 1 Syn"));
    assert_eq!(fate(&input(vec![vec![puzzle(), ACCEPT], vec![ACCEPT]])), all("accepted"));
    assert_eq!(fate(&input(vec![vec![from("8.8.8.0/24"), puzzle(), DROP], vec![ACCEPT]])), all("accepted"));
    assert_eq!(
        fate(&input(vec![vec![puzzle(), Part::Verdict(Verdict::Elsewhere("queue".into()))], vec![ACCEPT]])),
        all("unknown input 1 Syn")
    );
    // A rate that matters only if a puzzle has one of its outcomes can't be called a mere rate.
    let rate = Part::Rate("limit rate 10/second".into());
    assert_eq!(fate(&input(vec![vec![puzzle(), rate, DROP], vec![ACCEPT]])), all("unknown input 1 Syn"));
}

#[test]
fn the_way_back_is_known_or_not() {
    let missing = || is(Field::ReversePath, Sources::one(0));
    let firewalld = input(vec![vec![missing(), DROP], vec![ACCEPT]]);
    assert_eq!(fate(&firewalld), all("accepted"));
    let elsewhere = Probe { way_back: false, ..probe() };
    let judged = judge(&firewalld, &facts(), &elsewhere, &net("173.245.48.0/20"));
    assert_eq!(judged.iter().map(|j| words(&j.judgement)).collect::<Vec<_>>(), ["unknown input 1 Syn"]);
}

#[test]
fn a_route_that_leads_nowhere_and_a_host_that_forwards_nothing() {
    let dead =
        Facts { dead_ends: vec![("173.245.48.29/32".parse().unwrap(), "unreachable 173.245.48.29".into())], ..facts() };
    let judged = judge(&Picture::default(), &dead, &probe(), &net("173.245.48.0/20"));
    let unknown: Vec<_> = judged.iter().filter(|j| matches!(j.judgement, Judgement::Unknown(_))).collect();
    assert_eq!(unknown.iter().map(|j| j.sources.clone()).collect::<Vec<_>>(), [net("173.245.48.29/32")]);
    let to = Operand::Is((CONTAINER.parse().unwrap(), None));
    let mut nat = on(
        Hook::Prerouting,
        -100,
        false,
        vec![vec![Part::Dnat { address: to, port: Operand::None, to_this_host: false }]],
    );
    nat.base.as_mut().unwrap().kind = ChainKind::Nat;
    let picture = picture(vec![table("t", vec![("nat", nat)])]);
    assert_eq!(fate(&picture), all("accepted"));
    let judged = judge(&picture, &Facts { forwards: (false, true), ..facts() }, &probe(), &net("173.245.48.0/20"));
    assert_eq!(judged.iter().map(|j| words(&j.judgement)).collect::<Vec<_>>(), ["unknown Syn"]);
}

#[test]
fn what_packets_put_into_a_set_is_found_by_the_next_ones() {
    let named = || Among::Named("seen".to_owned());
    let lookup = Part::Test(Test { key: vec![Field::Saddr4.into()], among: named(), negated: false });
    let feed = |from_: &str| vec![from(from_), Part::Feed(named())];
    let early = on(Hook::Prerouting, 0, false, vec![vec![lookup, DROP]]);
    let run = |fed: Vec<Part>| {
        let mut table = table("t", vec![("early", early.clone()), ("in", on(Hook::Input, 0, false, vec![fed]))]);
        table.sets.insert("seen".into(), Set::Plain(Elements::Numbers(Sources::default(), ())));
        let picture = picture(vec![table]);
        let steps = trace(&picture, &facts(), &probe(), ip("173.245.48.29")).0;
        (fate(&picture), steps.iter().any(|s| s.outcome == "drop"))
    };
    // The set is looked at before it is filled, and yet the second connection is dropped. Its trace shows where.
    assert_eq!(run(feed("173.245.48.0/20")), (all("unknown early 1 Syn"), true));
    assert_eq!(run(feed("8.8.8.0/24")), (all("accepted"), false));
}

#[test]
fn sets_that_are_filled_one_from_the_other_are_not_followed_for_ever() {
    let named = |n: usize| Among::Named(format!("s{n}"));
    let lookup = |n| Part::Test(Test { key: vec![Field::Saddr4.into()], among: named(n), negated: false });
    // The last set is looked at first, so each packet comes one set further.
    let run = |many: usize| {
        let mut rules = vec![vec![lookup(many), DROP]];
        rules.extend((0..many).rev().map(|n| vec![lookup(n), Part::Feed(named(n + 1))]));
        rules.push(vec![Part::Feed(named(0))]);
        let mut table = table("t", vec![("in", on(Hook::Input, 0, false, rules))]);
        for n in 0..=many {
            table.sets.insert(format!("s{n}"), Set::Plain(Elements::Numbers(Sources::default(), ())));
        }
        fate(&picture(vec![table]))
    };
    assert_eq!(run(2), all("unknown in 1 Syn"));
    for many in 3..16 {
        assert!(matches!(&run(many)[..], [(_, fate)] if fate.starts_with("unknown ")), "{many}: {:?}", run(many));
    }
}

#[test]
fn what_packets_put_into_a_map_is_found_by_the_next_ones() {
    let named = "seen".to_owned();
    let run = |part: Part, empty: Set| {
        let mut early =
            on(Hook::Prerouting, -100, false, vec![vec![part], vec![is(Field::Mark, Sources::one(7)), DROP]]);
        early.base.as_mut().unwrap().kind = ChainKind::Nat;
        let fed = vec![from("173.245.48.0/21"), Part::Feed(Among::Named(named.clone()))];
        let mut table = table("t", vec![("early", early), ("in", on(Hook::Input, 0, false, vec![fed]))]);
        table.sets.insert(named.clone(), empty);
        fate(&picture(vec![table]))
    };
    let unknown_half = [
        ("173.245.48.0/21".to_owned(), "unknown early 1 Syn".to_owned()),
        ("173.245.56.0/21".to_owned(), "accepted".to_owned()),
    ];
    let key = || vec![Field::Dport.into()];
    let mark = Operand::Map { key: key(), map: Among::Named(named.clone()) };
    let mark = Part::SetMark(SetMark { to: Field::Mark, value: MarkValue::Operand(mark) });
    assert_eq!(run(mark, Set::Numbers(Elements::List(vec![]))), unknown_half);
    let address = Operand::Map { key: key(), map: Among::Named(named.clone()) };
    let dnat = Part::Dnat { address, port: Operand::None, to_this_host: false };
    assert_eq!(run(dnat, Set::Addresses(Elements::List(vec![]))), unknown_half);
    let port = Operand::Map { key: key(), map: Among::Named(named.clone()) };
    let dnat = Part::Dnat { address: Operand::None, port, to_this_host: false };
    assert_eq!(run(dnat, Set::Ports(Elements::List(vec![]))), unknown_half);
    let map = Part::VerdictMap { key: key(), map: Among::Named(named.clone()) };
    assert_eq!(run(map, Set::Verdicts(Elements::List(vec![]))), unknown_half);
}

#[test]
fn of_two_refusals_the_certain_one_is_named() {
    let puzzle = Part::Puzzle("numgen random mod 10".into());
    assert_eq!(fate(&input(vec![vec![puzzle, DROP]])), all("refused input policy Syn"));
}

#[test]
fn a_negated_test_of_what_the_packet_has_not_fails_too() {
    let v6 = not(is(Field::Saddr6, Sources::one(1)));
    assert_eq!(fate(&input(vec![vec![v6, ACCEPT]])), all("refused input policy Syn"));
    assert_eq!(fate(&input(vec![vec![not(from("10.0.0.0/8")), ACCEPT]])), all("accepted"));
}

#[test]
fn marks_are_carried_along_and_forgotten_with_the_packet() {
    let set = |to, n| Part::SetMark(SetMark { to, value: MarkValue::Bits { of: Field::Mark, and: 0, xor: n } });
    let early = |to| on(Hook::Prerouting, -150, false, vec![vec![from("173.245.48.0/21"), set(to, 0x10)]]);
    let marked = |field| is(field, Sources::one(0x10));
    let run = |field, hook| {
        let late = on(hook, 0, false, vec![vec![marked(field), DROP]]);
        fate(&picture(vec![table("t", vec![("early", early(field)), ("late", late)])]))
    };
    let half = |what: &str| {
        vec![("173.245.48.0/21".to_owned(), what.to_owned()), ("173.245.56.0/21".to_owned(), "accepted".to_owned())]
    };
    assert_eq!(run(Field::Mark, Hook::Input), half("refused late 1 Syn"));
    assert_eq!(run(Field::Mark, Hook::Output), all("accepted"));
    assert_eq!(run(Field::CtMark, Hook::Output), half("refused late 1 SynAck"));
}

#[test]
fn before_conntrack_no_connection_is_marked() {
    let set = Part::SetMark(SetMark { to: Field::CtMark, value: MarkValue::Bits { of: Field::Mark, and: 0, xor: 7 } });
    let copy =
        |and| Part::SetMark(SetMark { to: Field::Mark, value: MarkValue::Bits { of: Field::CtMark, and, xor: 7 } });
    let run = |priority, part: Part, field| {
        let early = on(Hook::Prerouting, priority, false, vec![vec![part, set.clone()]]);
        let late = on(Hook::Input, 0, false, vec![vec![is(field, Sources::one(7)), DROP]]);
        fate(&picture(vec![table("t", vec![("early", early), ("late", late)])]))
    };
    assert_eq!(run(-300, set.clone(), Field::CtMark), all("accepted"));
    assert_eq!(run(-150, set.clone(), Field::CtMark), all("refused late 1 Syn"));
    // What reads the mark of no connection ends the rule; a constant reads nothing.
    assert_eq!(run(-300, copy(!0), Field::Mark), all("accepted"));
    assert_eq!(run(-300, copy(0), Field::Mark), all("refused late 1 Syn"));
}

#[test]
fn of_two_chains_at_one_priority_the_later_one_is_first() {
    let set = Part::SetMark(SetMark { to: Field::Mark, value: MarkValue::Bits { of: Field::Mark, and: 0, xor: 7 } });
    let sets = table("sets", vec![("sets", on(Hook::Input, 0, false, vec![vec![set]]))]);
    let drops = vec![vec![is(Field::Mark, Sources::one(7)), DROP]];
    let drops = table("drops", vec![("drops", on(Hook::Input, 0, false, drops))]);
    assert_eq!(fate(&picture(vec![sets.clone(), drops.clone()])), all("accepted"));
    assert_eq!(fate(&picture(vec![drops, sets])), all("refused drops 1 Syn"));
}

#[test]
fn a_published_port_is_a_matter_of_the_forward_hook() {
    let to = Operand::Is((CONTAINER.parse().unwrap(), None));
    let dnat = Part::Dnat { address: to, port: Operand::Is(80), to_this_host: false };
    let mut nat = on(Hook::Prerouting, -100, false, vec![vec![port(443), dnat]]);
    nat.base.as_mut().unwrap().kind = ChainKind::Nat;
    let run = |forward: Vec<Vec<Part>>| {
        let chains = vec![
            ("nat", nat.clone()),
            ("input", on(Hook::Input, 0, true, vec![])),
            ("forward", on(Hook::Forward, 0, true, forward)),
        ];
        fate(&picture(vec![table("t", chains)]))
    };
    assert_eq!(run(vec![]), all("refused forward policy Syn"));
    // The container's port in the packet, the published one in conntrack, both directions.
    let original = is(Field::CtOriginalDport, Sources::one(443));
    assert_eq!(run(vec![vec![original, ACCEPT]]), all("accepted"));
    let one_way = vec![port(80), ACCEPT];
    assert_eq!(run(vec![one_way.clone()]), all("refused forward policy SynAck"));
    let back = vec![is(Field::Sport, Sources::one(80)), ACCEPT];
    assert_eq!(run(vec![one_way, back]), all("accepted"));
}

#[test]
fn untracked_packets_have_no_connection() {
    let raw = on(Hook::Prerouting, -300, false, vec![vec![Part::Notrack]]);
    let state = |bit| is(Field::CtState, Sources::one(bit));
    let run =
        |rules| fate(&picture(vec![table("t", vec![("raw", raw.clone()), ("in", on(Hook::Input, 0, true, rules))])]));
    assert_eq!(run(vec![vec![state(10), ACCEPT]]), all("refused in policy Syn"));
    assert_eq!(run(vec![vec![state(64), ACCEPT]]), all("accepted"));
}

#[test]
fn what_the_server_sends_after_its_answer_has_to_pass_too() {
    let answers = is(Field::TcpFlags, Sources::one(18));
    let only = on(Hook::Output, 0, true, vec![vec![answers, ACCEPT]]);
    assert_eq!(fate(&picture(vec![table("t", vec![("out", only)])])), all("refused out policy Data"));
    // Conntrack makes no sense of an answer to what it hasn't seen, and takes up what comes then as something new, perhaps.
    let raw = on(Hook::Prerouting, -300, false, vec![vec![Part::Notrack]]);
    let run = |state| {
        let out = on(Hook::Output, 0, false, vec![vec![is(Field::CtState, Sources::one(state)), DROP]]);
        fate(&picture(vec![table("t", vec![("raw", raw.clone()), ("out", out)])]))
    };
    assert_eq!(run(1), all("refused out 1 SynAck"));
    assert_eq!(run(8), all("unknown out 1 Data"));
}

#[test]
fn nat_of_what_conntrack_takes_up_in_the_middle_is_anybodys_guess() {
    let raw = on(Hook::Prerouting, -300, false, vec![vec![Part::Notrack]]);
    let run = |rules| {
        let mut nat = on(Hook::Postrouting, 100, false, rules);
        nat.base.as_mut().unwrap().kind = ChainKind::Nat;
        fate(&picture(vec![table("t", vec![("raw", raw.clone()), ("nat", nat)])]))
    };
    assert_eq!(run(vec![]), all("accepted"));
    assert_eq!(run(vec![vec![port(80), DROP]]), all("unknown nat policy Data"));
}

#[test]
fn a_connection_mark_that_an_established_packet_sets_is_there_for_the_next() {
    let set = Part::SetMark(SetMark { to: Field::CtMark, value: MarkValue::Bits { of: Field::Mark, and: 0, xor: 7 } });
    let marked = vec![is(Field::CtMark, Sources::one(7)), DROP];
    let rules = vec![marked, vec![is(Field::CtState, Sources::one(2)), from("173.245.48.0/21"), set]];
    let fates = fate(&picture(vec![table("t", vec![("in", on(Hook::Input, 0, false, rules))])]));
    let half = |range: &str, what: &str| (range.to_owned(), what.to_owned());
    assert_eq!(fates, [half("173.245.48.0/21", "refused in 1 Ack"), half("173.245.56.0/21", "accepted")]);
}

#[test]
fn an_answer_that_is_not_translated_back_reaches_nobody() {
    let dnat = |port| Part::Dnat { address: Operand::None, port: Operand::Is(port), to_this_host: true };
    let run = |port| {
        let mut nat = on(Hook::Prerouting, -100, false, vec![vec![dnat(port)]]);
        nat.base.as_mut().unwrap().kind = ChainKind::Nat;
        let raw = on(Hook::Output, -300, false, vec![vec![Part::Notrack]]);
        fate(&picture(vec![table("t", vec![("nat", nat), ("raw", raw)])]))
    };
    assert_eq!(run(80), all("refused raw 1 SynAck"));
    assert_eq!(run(443), all("accepted"));
}

#[test]
fn who_is_sent_to_where_he_went_anyway_is_not_translated() {
    let dnat = |port| Part::Dnat { address: Operand::None, port: Operand::Is(port), to_this_host: true };
    let run = |port| {
        let mut nat = on(Hook::Prerouting, -100, false, vec![vec![dnat(port)]]);
        nat.base.as_mut().unwrap().kind = ChainKind::Nat;
        let status = Key { field: Field::CtStatus, mask: Some(32) };
        let among = Among::These(Elements::Numbers(Sources::one(32), ()));
        let translated = Part::Test(Test { key: vec![status], among, negated: false });
        let late = on(Hook::Input, 0, true, vec![vec![translated, ACCEPT]]);
        fate(&picture(vec![table("t", vec![("nat", nat), ("late", late)])]))
    };
    assert_eq!(run(80), all("accepted"));
    assert_eq!(run(443), all("refused late policy Syn"));
}

#[test]
fn concatenations_and_verdict_maps_take_the_source_apart() {
    let element = |range: &str, port: u16, data| Element {
        key: vec![Value::Numbers(net(range)), Value::Numbers(Sources::one(port.into()))],
        data,
    };
    let key: Vec<Key> = vec![Field::Saddr4.into(), Field::Dport.into()];
    let list = vec![
        element("173.245.48.0/22", 443, Verdict::Drop),
        element("173.245.52.0/22", 80, Verdict::Drop),
        element("173.245.56.0/21", 443, Verdict::Accept),
    ];
    let map = Part::VerdictMap { key, map: Among::These(Elements::List(list)) };
    let expected = [
        ("173.245.48.0/22".to_owned(), "refused input 1 Syn".to_owned()),
        ("173.245.52.0/22".to_owned(), "refused input policy Syn".to_owned()),
        ("173.245.56.0/21".to_owned(), "accepted".to_owned()),
    ];
    assert_eq!(fate(&input(vec![vec![map]])), expected);
}

#[test]
fn a_set_that_is_not_known_decides_nothing() {
    let test = |name: &str| {
        Part::Test(Test { key: vec![Field::Saddr4.into()], among: Among::Ipset(name.to_owned()), negated: false })
    };
    let mut picture = input(vec![vec![test("banned"), DROP], vec![ACCEPT]]);
    assert_eq!(fate(&picture), all("unknown input 1 Syn"));
    let banned = Set::Plain(Elements::Numbers(net("8.8.8.0/24"), ()));
    picture.ipsets = HashMap::from([("banned".to_owned(), banned)]);
    assert_eq!(fate(&picture), all("accepted"));
}

#[test]
fn what_cannot_be_looked_into_leaves_nothing_accepted() {
    let gap = Picture { gaps: vec!["ip6tables-save failed".into()], ..input(vec![vec![ACCEPT]]) };
    assert_eq!(fate(&gap), all("unknown Syn"));
    // And yet what a rule refuses is refused.
    let gap = Picture { gaps: vec!["ip6tables-save failed".into()], ..input(vec![]) };
    assert_eq!(fate(&gap), all("refused input policy Syn"));
    let mut facts = facts();
    facts.interfaces[0].programs = vec!["XDP program 7".into()];
    let judged = judge(&Picture::default(), &facts, &probe(), &net("173.245.48.0/20"));
    assert_eq!(judged.iter().map(|j| words(&j.judgement)).collect::<Vec<_>>(), ["unknown Syn"]);
}

#[test]
fn masks_on_addresses_are_prefixes_or_puzzles() {
    let masked = |mask: u32, value: &str| {
        let key = Key { field: Field::Saddr4, mask: Some(mask.into()) };
        let among = Among::These(Elements::Numbers(Sources::one(ip(value)), ()));
        Part::Test(Test { key: vec![key], among, negated: false })
    };
    assert_eq!(fate(&input(vec![vec![masked(0xffff_f000, "173.245.48.0"), ACCEPT]])), all("accepted"));
    assert_eq!(fate(&input(vec![vec![masked(0xffff_00ff, "173.245.0.1"), ACCEPT]])), all("unknown input 1 Syn"));
}

#[test]
fn the_trace_of_one_packet_names_each_rule() {
    let picture = input(vec![vec![from("8.8.8.0/24"), ACCEPT], vec![from("173.245.48.0/24"), DROP], vec![ACCEPT]]);
    let (steps, judgement) = trace(&picture, &facts(), &probe(), ip("173.245.48.29"));
    let told: Vec<_> = steps.iter().map(|s| (s.place.position, s.outcome.as_str(), s.matched)).collect();
    assert_eq!(told, [(Some(1), "another source address", false), (Some(2), "drop", true)]);
    assert_eq!(words(&judgement), "refused input 2 Syn");
}

#[test]
fn ten_thousand_rules_that_cut_the_range_up_are_not_too_intricate() {
    // Not timed here (benches are benches): only that the budget isn't hit.
    let rules = (0..10_000_u32)
        .map(|i| vec![is(Field::Saddr4, Sources::one(ip("173.245.48.0") + u128::from(i * 3 % 4096))), DROP]);
    let judged = judge(&input(rules.chain([vec![ACCEPT]]).collect()), &facts(), &probe(), &net("173.245.48.0/20"));
    assert!(judged.iter().all(|j| !matches!(j.judgement, Judgement::Unknown(_))));
}

/// Small rule sets over eight addresses.
fn rule() -> impl Strategy<Value = Vec<Part>> {
    let test = prop_oneof![
        (0_u128..8, 0_u128..4).prop_map(|(f, n)| is(Field::Saddr4, Sources::new(vec![(f, f + n)]))),
        (0_u128..8, 0_u128..4).prop_map(|(f, n)| not(is(Field::Saddr4, Sources::new(vec![(f, f + n)])))),
        (0_u128..8, 0_u128..4).prop_map(|(f, n)| is(Field::Daddr4, Sources::new(vec![(f, f + n)]))),
        Just(Part::Rate("rate".into())),
        Just(Part::Puzzle("puzzle".into())),
        (0_u32..3).prop_map(|n| Part::SetMark(SetMark {
            to: Field::Mark,
            value: MarkValue::Bits { of: Field::Mark, and: 0, xor: n }
        })),
        (0_u128..3).prop_map(|n| is(Field::Mark, Sources::one(n))),
    ];
    let end = prop_oneof![
        Just(ACCEPT),
        Just(DROP),
        Just(Part::Verdict(Verdict::Return)),
        Just(Part::Verdict(Verdict::Jump("sub".into()))),
        Just(Part::Verdict(Verdict::Goto("sub".into()))),
        Just(Part::Verdict(Verdict::Continue)),
    ];
    (proptest::collection::vec(test, 0..3), end).prop_map(|(mut parts, end)| {
        parts.push(end);
        parts
    })
}

proptest! {
    #[test]
    fn a_set_of_sources_fares_as_each_of_them_alone(
        input in proptest::collection::vec(rule(), 0..6),
        output in proptest::collection::vec(rule(), 0..3),
        sub in proptest::collection::vec(rule().prop_filter("no loops", |r| {
            !matches!(r.last(), Some(Part::Verdict(Verdict::Jump(_) | Verdict::Goto(_))))
        }), 0..4),
        drops: bool,
    ) {
        let chains = vec![
            ("in", on(Hook::Input, 0, drops, input)),
            ("out", on(Hook::Output, 0, false, output)),
            ("sub", Chain { base: None, rules: numbered(sub) }),
        ];
        let picture = picture(vec![table("t", chains)]);
        let together = judge(&picture, &facts(), &probe(), &Sources::new(vec![(0, 9)]));
        let count: u128 = together.iter().map(|j| j.sources.count()).sum();
        prop_assert_eq!(count, 10, "each source is judged once");
        for source in 0..10 {
            let alone = judge(&picture, &facts(), &probe(), &Sources::one(source));
            prop_assert_eq!(alone.len(), 1);
            let group = together.iter().find(|j| j.sources.contains(source)).unwrap();
            prop_assert_eq!(
                std::mem::discriminant(&group.judgement),
                std::mem::discriminant(&alone[0].judgement),
                "{}: {:?} against {:?}", source, group.judgement, alone[0].judgement
            );
        }
    }
}
