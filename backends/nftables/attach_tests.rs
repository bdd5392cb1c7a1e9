//! The judgement over rule sets made by hand.

use super::*;
use crate::nft::{Rule, TableId};

fn rule(exprs: Vec<Expr>) -> Rule {
    Rule { handle: 1, comment: None, exprs }
}

fn verdict(v: Verdict) -> Rule {
    rule(vec![Expr::Verdict(v)])
}

fn base(name: &str, policy: Policy, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), hooked: Some(Hooked { policy, ..Hooked::input() }), rules }
}

fn regular(name: &str, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), hooked: None, rules }
}

fn table(family: TableFamily, name: &str, chains: Vec<Chain>) -> Table {
    Table { id: TableId::new(family, name), owned: false, dormant: false, chains, sets: Vec::new() }
}

fn why(tables: Vec<Table>, verdicts: &Verdicts) -> Vec<(String, Option<String>)> {
    places(&Ruleset { tables }, verdicts).into_iter().map(|p| (p.chain.to_string(), p.refuses)).collect()
}

fn refuses(chains: Vec<Chain>, verdicts: &Verdicts) -> Option<String> {
    why(vec![table(TableFamily::Inet, "filter", chains)], verdicts)[0].1.clone()
}

#[test]
fn policy_and_own_rules_count() {
    let none = Verdicts::new();
    assert_eq!(refuses(vec![base("input", Policy::Drop, vec![])], &none).unwrap(), "has policy drop");
    assert_eq!(refuses(vec![base("input", Policy::Accept, vec![])], &none), None);
    assert_eq!(refuses(vec![base("input", Policy::Accept, vec![verdict(Verdict::Accept)])], &none), None);
    for refusing in [verdict(Verdict::Drop), rule(vec![Expr::Meta(1), Expr::Reject])] {
        assert_eq!(
            refuses(vec![base("input", Policy::Accept, vec![refusing])], &none).unwrap(),
            "has rules that refuse"
        );
    }
}

#[test]
fn jumps_and_gotos_are_followed_and_loops_end() {
    let none = Verdicts::new();
    let chains = vec![
        regular("b", vec![verdict(Verdict::Jump("a".into())), verdict(Verdict::Goto("c".into()))]),
        regular("a", vec![verdict(Verdict::Jump("b".into()))]),
        regular("c", vec![verdict(Verdict::Drop)]),
        base("input", Policy::Accept, vec![verdict(Verdict::Jump("a".into()))]),
    ];
    assert_eq!(refuses(chains, &none).unwrap(), "leads to chain c, which refuses");
    let unreached = vec![base("input", Policy::Accept, vec![]), regular("c", vec![verdict(Verdict::Drop)])];
    assert_eq!(refuses(unreached, &none), None);
}

#[test]
fn verdict_maps_are_followed() {
    let map = || {
        vec![
            base("input", Policy::Accept, vec![rule(vec![Expr::VerdictMap("m".into())])]),
            regular("c", vec![rule(vec![Expr::Reject])]),
        ]
    };
    let id = TableId::new(TableFamily::Inet, "filter").set("m");
    assert_eq!(
        maps(&Ruleset { tables: vec![table(TableFamily::Inet, "filter", map())] }),
        BTreeSet::from([id.clone()])
    );
    for (verdicts, expected) in [
        (vec![Verdict::Accept], None),
        (vec![Verdict::Accept, Verdict::Drop], Some("has rules that refuse")),
        (vec![Verdict::Jump("c".into())], Some("leads to chain c, which refuses")),
    ] {
        assert_eq!(refuses(map(), &Verdicts::from([(id.clone(), verdicts)])).as_deref(), expected);
    }
}

#[test]
fn tables_of_others_are_left_alone() {
    let drop = |name: &str| vec![base(name, Policy::Drop, vec![])];
    let mut owned = table(TableFamily::Inet, "mine", drop("input"));
    owned.owned = true;
    let compat = table(TableFamily::Ip, "odd", vec![base("input", Policy::Drop, vec![rule(vec![Expr::Compat])])]);
    let tables = vec![
        owned,
        compat,
        table(TableFamily::Ip, "filter", drop("INPUT")),
        table(TableFamily::Ip6, "raw", drop("INPUT")),
        table(TableFamily::Inet, "firewalld", drop("filter_INPUT")),
        table(TableFamily::Inet, "f2b-table", drop("f2b-chain")),
        table(TableFamily::Ip, "crowdsec", drop("crowdsec-chain")),
        table(TableFamily::Inet, "edgeallow", drop("input")),
        table(TableFamily::Other(7), "bridge", drop("input")),
        // Native though they look alike: lower case, or another family.
        table(TableFamily::Ip, "filter", drop("input")),
        table(TableFamily::Inet, "filter", drop("INPUT")),
    ];
    let foreign = foreign_refusals(&Ruleset { tables: tables.clone() }, &Verdicts::new());
    assert_eq!(foreign.len(), 7, "{foreign:?}");
    assert!(foreign.contains(&"ip filter (owned by iptables)".to_owned()));
    let native: Vec<_> = why(tables, &Verdicts::new()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(native, ["ip filter input", "inet filter INPUT"]);
}

#[test]
fn only_filter_chains_on_input_are_places() {
    let mut nat = base("nat", Policy::Drop, vec![]);
    nat.hooked.as_mut().unwrap().kind = "nat".into();
    let mut forward = base("forward", Policy::Drop, vec![]);
    forward.hooked.as_mut().unwrap().hook = 2;
    let all = why(vec![table(TableFamily::Inet, "t", vec![nat, forward, regular("r", vec![])])], &Verdicts::new());
    assert_eq!(all, []);
}

#[test]
fn a_table_that_sleeps_refuses_nothing() {
    let mut asleep = table(TableFamily::Inet, "fw", vec![base("input", Policy::Drop, vec![])]);
    asleep.dormant = true;
    let mut foreign = asleep.clone();
    foreign.id.name = "firewalld".into();
    assert_eq!(why(vec![asleep.clone()], &Verdicts::new()), []);
    assert!(foreign_refusals(&Ruleset { tables: vec![asleep, foreign] }, &Verdicts::new()).is_empty());
}

#[test]
fn what_iptables_cannot_read_is_native() {
    let place = |family, rules| {
        let chains = vec![base("INPUT", Policy::Drop, rules)];
        places(&Ruleset { tables: vec![table(family, "filter", chains)] }, &Verdicts::new()).len()
    };
    let other = |name: &str| rule(vec![Expr::Other(name.into()), Expr::Counter, Expr::Verdict(Verdict::Accept)]);
    for family in [TableFamily::Ip, TableFamily::Ip6] {
        assert_eq!(place(family, vec![]), 0);
        assert_eq!(place(family, vec![rule(vec![Expr::Compat, Expr::Counter]), other("limit"), other("range")]), 0);
        for native in ["ct", "fib", "log", "quota"] {
            assert_eq!(place(family, vec![other(native)]), 1, "{native}");
            assert_eq!(
                place(family, vec![rule(vec![Expr::Compat]), other(native)]),
                1,
                "{native} beside iptables' own"
            );
        }
        assert_eq!(place(family, vec![rule(vec![Expr::Reject])]), 1);
        assert_eq!(place(family, vec![rule(vec![Expr::Lookup("s".into())])]), 1);
    }
    // Another base chain, or INPUT elsewhere than iptables puts it.
    let extra = vec![base("INPUT", Policy::Drop, vec![]), base("mine", Policy::Accept, vec![])];
    assert_eq!(why(vec![table(TableFamily::Ip, "filter", extra)], &Verdicts::new()).len(), 2);
    let mut early = base("INPUT", Policy::Drop, vec![]);
    early.hooked.as_mut().unwrap().priority = -5;
    assert_eq!(why(vec![table(TableFamily::Ip, "filter", vec![early])], &Verdicts::new()).len(), 1);
}
