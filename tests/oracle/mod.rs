//! The oracle: random rule sets are loaded by the real programs, real connections are made, and the verdict has to
//! be what happened.
//!
//! A rule set and who tries it follow from one number. `EDGEALLOW_ORACLE_SEED` is the first one's,
//! `EDGEALLOW_ORACLE_RULE_SETS` how many are tried; a failure says what to set to see it again.
//!
//! Belongs here: the comparison, and what is printed when it fails. In the rooms: choosing (`pick`), inventing rule
//! sets (`native`, `xtables`), loading them and connecting (`host`).

mod host;
pub mod inside;
mod native;
mod pick;
mod rule_set;
mod xtables;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, Instant},
};

use edgeallow::{
    allowlist::Family,
    plan::Protocol,
    reach::{Effect, Facts, Judgement, Leg, Picture, Probe, Sources, sources::number, walk},
};
use host::Host;
use pick::Picker;
use rule_set::RuleSet;

use crate::lab::{Lab, Outcome, SERVER4, SERVER6, Shot};

/// How long is waited for what a rule set drops; then, where that isn't what was expected, longer: the machine may be busy.
/// TCP's own second try comes after a second.
const PATIENCE: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(400), Duration::from_millis(1500)];
/// How many rule sets `make test` tries, and how many `make oracle` and `make test-all`.
const RULE_SETS: u64 = if cfg!(feature = "thorough") { 600 } else { 40 };
/// Of a thousand verdicts so many may be "unknown", although all that is invented is meant to be understood: what depends on the
/// client's port, and what nft 1.0.6 can't print beside a sleeping table.
const UNKNOWN_PER_MILLE: usize = 50;
/// How long a rule set that failed is made smaller.
const SHRINKING: Duration = Duration::from_secs(60);

/// What was expected and what came of it, where the two are not the same.
#[derive(Debug)]
struct Disagreement {
    shot: Shot,
    expected: Judgement,
    happened: Outcome,
}

/// How many verdicts of each kind there were.
type Tally = BTreeMap<&'static str, usize>;

fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {value}")))
}

fn invent(picker: &mut Picker) -> RuleSet {
    let mut busy = Vec::new();
    let natives = (0..picker.rng.usize(..4)).map(|n| native::table(picker, n, &mut busy)).collect();
    let (xtables, ipsets) = xtables::tables(picker);
    RuleSet { natives, xtables, ipsets }
}

fn shots(tried: &[IpAddr]) -> Vec<Shot> {
    tried.iter().flat_map(|from| pick::PORTS.map(|port| Shot { from: *from, port })).collect()
}

fn probe(shot: Shot) -> Probe {
    let to = if shot.from.is_ipv4() { SERVER4 } else { SERVER6 };
    let to = to.parse().expect("the host's address");
    Probe { to, port: shot.port, protocol: Protocol::Tcp, interface: "s0".to_owned(), way_back: true }
}

/// What should come of these connections. All addresses there are are judged at once, as `verify` judges ranges.
fn expected((picture, facts): &(Picture, Facts), shots: &[Shot]) -> HashMap<Shot, Judgement> {
    let mut expected = HashMap::new();
    for family in Family::BOTH {
        let everybody = match family {
            Family::V4 => Sources::new(vec![(0, u128::from(u32::MAX))]),
            Family::V6 => Sources::all(),
        };
        let of_family = shots.iter().filter(|s| s.from.is_ipv4() == (family == Family::V4));
        let mut by_port: BTreeMap<u16, Vec<Shot>> = BTreeMap::new();
        of_family.for_each(|s| by_port.entry(s.port).or_default().push(*s));
        for shots in by_port.into_values() {
            let judged = walk::judge(picture, facts, &probe(shots[0]), &everybody);
            let mut rest = everybody.clone();
            for part in &judged {
                assert!(!part.sources.is_empty() && rest.covers(&part.sources), "judged twice or in vain: {judged:?}");
                rest = rest.minus(&part.sources);
            }
            assert!(rest.is_empty(), "not judged: {rest:?}");
            for shot in shots {
                let part = judged.iter().find(|j| j.sources.contains(number(shot.from))).expect("all are judged");
                expected.insert(shot, part.judgement.clone());
            }
        }
    }
    expected
}

/// Whether this verdict means this outcome.
fn agree(expected: &Judgement, shot: Shot, happened: Outcome, rules: &RuleSet) -> bool {
    let obstacle = match expected {
        Judgement::Accepted => return happened == Outcome::Accepted,
        Judgement::Refused(obstacle) => obstacle,
        // No claim.
        Judgement::Unknown(_) => return true,
        // Nothing here counts packets.
        Judgement::Throttled(_) => return false,
    };
    let family = if shot.from.is_ipv4() { Family::V4 } else { Family::V6 };
    match (obstacle.leg, &obstacle.effect) {
        // That it is refused is certain; with what, if one rule of two variants rejects and another drops, is not.
        (Leg::Syn, _) if rules.filters_twice(family) => matches!(happened, Outcome::Refused | Outcome::Silence),
        // What tells the client so may be kept in by a rule.
        (Leg::Syn, Effect::Reject(_)) if rules.filters_output() => {
            matches!(happened, Outcome::Refused | Outcome::Silence)
        }
        (Leg::Syn, Effect::Reject(_)) => happened == Outcome::Refused,
        // What a rejected answer is answered with goes to the server, and may be rejected in its turn, to the client.
        (Leg::SynAck, Effect::Reject(_)) => matches!(happened, Outcome::Refused | Outcome::Silence),
        (Leg::Syn | Leg::SynAck, _) => happened == Outcome::Silence,
        (Leg::Ack | Leg::Data, _) => happened == Outcome::Stuck,
    }
}

/// Whether a connection is refused in either case, by one rule or another, depending on what can't be told: on the client's
/// port, for one.
fn refused_one_way_or_the_other(host: &Host<'_>, d: &Disagreement) -> bool {
    let Judgement::Refused(obstacle) = &d.expected else { return false };
    if matches!(obstacle.effect, Effect::Puzzle(_)) || d.happened == Outcome::Accepted {
        return false;
    }
    let (picture, facts) = host.picture();
    let (steps, _) = walk::trace(&picture, &facts, &probe(d.shot), number(d.shot.from));
    let refusals = ["drop", "reject", "policy drop"];
    let refuses = |outcome: &str| refusals.iter().any(|r| outcome.starts_with(r));
    steps.iter().filter(|s| s.matched && refuses(&s.outcome)).count() > 1
}

/// Where the expectation and the packets differ, also when they are given time.
fn disagreements(
    host: &mut Host<'_>,
    rules: &RuleSet,
    expected: &HashMap<Shot, Judgement>,
    in_time: &[Duration],
) -> Vec<Disagreement> {
    let mut shots: Vec<Shot> = expected.keys().copied().collect();
    shots.sort_unstable();
    let mut found = Vec::new();
    for patience in in_time {
        let happened = host.fire(&shots, *patience);
        let differs = |s: &Shot| !agree(&expected[s], *s, happened[s], rules);
        let differing = shots.iter().filter(|s| differs(s));
        found = differing
            .map(|s| Disagreement { shot: *s, expected: expected[s].clone(), happened: happened[s] })
            .collect::<Vec<_>>();
        shots.retain(differs);
        if shots.is_empty() {
            break;
        }
    }
    found.retain(|d| !refused_one_way_or_the_other(host, d));
    found
}

fn count(expected: &HashMap<Shot, Judgement>, tally: &mut Tally) {
    for judgement in expected.values() {
        let kind = match judgement {
            Judgement::Accepted => "accepted",
            Judgement::Throttled(_) => "throttled",
            Judgement::Unknown(_) => "unknown",
            Judgement::Refused(o) => match (o.leg, &o.effect) {
                (Leg::Syn, Effect::Reject(_)) => "request rejected",
                (Leg::Syn, _) => "request dropped",
                (Leg::SynAck, _) => "answer refused",
                (Leg::Ack, _) => "what follows refused",
                (Leg::Data, _) => "data refused",
            },
        };
        *tally.entry(kind).or_default() += 1;
    }
}

/// The same disagreement with as few rules as possible.
fn shrink(host: &mut Host<'_>, mut rules: RuleSet, shot: Shot) -> RuleSet {
    let start = Instant::now();
    let still = |host: &mut Host<'_>, rules: &RuleSet| {
        host.load(rules).is_ok() && {
            let expected = expected(&host.picture(), &[shot]);
            !disagreements(host, rules, &expected, &PATIENCE[..2]).is_empty()
        }
    };
    let mut n = 0;
    while let Some(less) = rules.without(n).filter(|_| start.elapsed() < SHRINKING) {
        if still(host, &less) {
            rules = less;
        } else {
            n += 1;
        }
    }
    rules
}

/// Everything that a person needs to find out who is wrong.
fn report(host: &mut Host<'_>, seed: u64, rules: RuleSet, found: &[Disagreement]) -> String {
    let first = &found[0];
    let rules = shrink(host, rules, first.shot);
    let loaded = host.load(&rules);
    let mut text = format!(
        "rule set {seed}: {} of its verdicts are not what happened.\n\
         Again: EDGEALLOW_ORACLE_SEED={seed} EDGEALLOW_ORACLE_RULE_SETS=1\n\
         the first: from {} to port {}: {}, but the verdict was {:?}\n\
         it needs these rules ({loaded:?}):\n{rules}\nas they were loaded:\n{:?}\n",
        found.len(),
        first.shot.from,
        first.shot.port,
        first.happened,
        first.expected,
        host.lab.rules(),
    );
    let (picture, facts) = host.picture();
    let (steps, judgement) = walk::trace(&picture, &facts, &probe(first.shot), number(first.shot.from));
    for step in steps {
        let place = step.place;
        writeln!(
            text,
            "  {:9} {:11} {}{} {} {} {:?}: {}",
            format!("{:?}", step.leg),
            step.hook.as_str(),
            "  ".repeat(step.depth),
            place.table,
            place.chain,
            place.position.map_or("policy".to_owned(), |p| p.to_string()),
            place.text,
            step.outcome
        )
        .expect("write to a string");
    }
    writeln!(text, "  in the end: {judgement:?}").expect("write to a string");
    text
}

#[test]
fn every_verdict_is_what_happens() {
    // One number is enough to see a failure again, so that numbers are not kept.
    let first = number_from("EDGEALLOW_ORACLE_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    let rule_sets = number_from("EDGEALLOW_ORACLE_RULE_SETS").unwrap_or(RULE_SETS);
    println!("EDGEALLOW_ORACLE_SEED={first} EDGEALLOW_ORACLE_RULE_SETS={rule_sets}");
    let lab = Lab::without_listeners();
    let mut host = Host::new(&lab);
    let (mut tally, mut failures, mut unknown) = (Tally::new(), Vec::new(), BTreeMap::<String, usize>::new());
    for seed in first..first + rule_sets {
        let mut picker = Picker::new(seed, &host.pool);
        let rules = invent(&mut picker);
        host.load(&rules).unwrap_or_else(|e| panic!("EDGEALLOW_ORACLE_SEED={seed}: doesn't load: {e}\n{rules}"));
        let expected = expected(&host.picture(), &shots(&picker.tried));
        count(&expected, &mut tally);
        for judgement in expected.values() {
            if let Judgement::Unknown(o) = judgement {
                *unknown.entry(format!("{:?}", o.effect)).or_default() += 1;
            }
        }
        let found = disagreements(&mut host, &rules, &expected, &PATIENCE);
        if !found.is_empty() {
            failures.push(report(&mut host, seed, rules, &found));
            if failures.len() == 3 {
                break;
            }
        }
    }
    println!("{tally:?}\n{unknown:#?}");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let all: usize = tally.values().sum();
    let of = |kind: &str| tally.get(kind).copied().unwrap_or_default();
    assert!(of("unknown") * 1000 <= all * UNKNOWN_PER_MILLE, "{} of {all} are unknown: {unknown:#?}", of("unknown"));
    // A test in which everything is open or everything shut would agree with nearly any verdict.
    assert!(of("accepted") * 4 > all && of("accepted") * 10 < all * 9, "{tally:?}");
}

/// The comparison itself: a picture in which one refusing rule is missing has to be noticed by what happens.
#[test]
fn a_verdict_that_is_wrong_is_noticed() {
    let lab = Lab::without_listeners();
    let mut host = Host::new(&lab);
    let (mut wrong, mut noticed) = (0, 0);
    for seed in 0..8 {
        let mut picker = Picker::new(seed, &host.pool);
        let rules = invent(&mut picker);
        host.load(&rules).unwrap_or_else(|e| panic!("rule set {seed} doesn't load: {e}"));
        let shots = shots(&picker.tried);
        let (mut picture, facts) = host.picture();
        let truth = (picture.clone(), facts.clone());
        let right = expected(&truth, &shots);
        let Some(culprit) = right.values().filter_map(Judgement::obstacle).find_map(|o| o.place.clone()) else {
            continue;
        };
        let guilty = |t: &&mut edgeallow::reach::model::Table| {
            t.name == culprit.table && t.family == culprit.family && t.language == culprit.language
        };
        let table = picture.tables.iter_mut().find(guilty).expect("the culprit's table");
        let chain = table.chains.get_mut(&culprit.chain).expect("the culprit's chain");
        match culprit.position {
            Some(position) => chain.rules.retain(|r| r.position != position),
            None => chain.base.as_mut().expect("a policy").drops = false,
        }
        let mistaken = expected(&(picture, facts), &shots);
        let changed =
            shots.iter().any(|s| matches!((&right[s], &mistaken[s]), (Judgement::Refused(_), Judgement::Accepted)));
        if changed {
            wrong += 1;
            noticed += usize::from(!disagreements(&mut host, &rules, &mistaken, &PATIENCE[..1]).is_empty());
        }
    }
    assert!(wrong > 0 && noticed == wrong, "{noticed} of {wrong} mistakes were noticed");
}

/// What counts packets says nothing about a single one, so it isn't invented above.
#[test]
fn what_limits_a_rate_is_throttled_and_connects() {
    let lab = Lab::without_listeners();
    let mut host = Host::new(&lab);
    let nft = |rule: &str| {
        let rules = vec![rule.to_owned(), "tcp dport 443 ct state new drop".to_owned()];
        let head = Some("type filter hook input priority 0; policy accept;".to_owned());
        let chain = rule_set::NativeChain { name: "c".to_owned(), head, rules };
        let set = "set seen { type ipv4_addr; flags dynamic; size 1024; }".to_owned();
        let native = rule_set::Native {
            family: "inet",
            name: "t".to_owned(),
            dormant: false,
            sets: vec![set],
            chains: vec![chain],
        };
        RuleSet { natives: vec![native], ..RuleSet::default() }
    };
    let xt = |variant, rule: &str| {
        let rules = vec![format!("-A INPUT -p tcp --dport 443 {rule}")];
        let table =
            rule_set::Xtables { variant, family: Family::V4, table: "filter", dropping: vec![], chains: vec![], rules };
        RuleSet { xtables: vec![table], ..RuleSet::default() }
    };
    let mut cases = vec![
        nft("tcp dport 443 limit rate 100/second accept"),
        nft("tcp dport 443 add @seen { ip saddr limit rate 100/second } accept"),
        nft("tcp dport 443 ct state new ct count 1000 accept"),
    ];
    for variant in [rule_set::Variant::Legacy, rule_set::Variant::Nft] {
        cases.extend(
            [
                "-m hashlimit --hashlimit-name a --hashlimit-mode srcip --hashlimit-above 100/sec -j DROP",
                "-m connlimit --connlimit-above 1000 -j REJECT",
                "-m recent --name seen --update --seconds 60 --hitcount 20 -j DROP",
            ]
            .map(|rule| xt(variant, rule)),
        );
    }
    let from = host.pool.iter().copied().find(IpAddr::is_ipv4).expect("an address");
    let shot = Shot { from, port: 443 };
    for rules in cases {
        host.load(&rules).unwrap_or_else(|e| panic!("doesn't load: {e}\n{rules}"));
        let judged = expected(&host.picture(), &[shot]).remove(&shot).expect("a judgement");
        assert!(
            matches!(&judged, Judgement::Throttled(o) if matches!(o.effect, Effect::Rate { .. })),
            "{judged:?}\n{rules}"
        );
        assert_eq!(host.fire(&[shot], PATIENCE[1])[&shot], Outcome::Accepted, "{rules}");
    }
}
