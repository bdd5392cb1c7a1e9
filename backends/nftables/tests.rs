//! Planning against a machine in memory that takes transactions as the kernel does.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use proptest::prelude::*;

use super::{machine::Machine, *};
use crate::{
    error::ErrorKind,
    nft::{Elements, Policy},
    plan::{Protocol, TAG},
};

const CONF: &str = "/etc/nftables.conf";
const POOL: [&str; 14] = [
    "10.0.0.0/8",
    "10.0.0.0/9",
    "10.128.0.0/9",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "104.16.0.0/12",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "255.255.255.255/32",
    "2400:cb00::/32",
    "2400:cb00::/33",
    "::/1",
    "8000::/1",
    "ff00::/8",
];

fn want(nets: &[&str], ports: &[u16], protocols: &[Protocol]) -> Desired {
    Desired {
        prefixes: Arc::new(nets.iter().map(|n| n.parse().unwrap()).collect()),
        ports: ports.iter().copied().collect(),
        protocols: protocols.iter().copied().collect(),
    }
}

fn usual() -> Desired {
    want(&["104.16.0.0/13", "104.24.0.0/14", "2400:cb00::/32"], &[80, 443], &[Protocol::Tcp])
}

fn context(machine: &Machine) -> Context<'_> {
    Context { host: machine, applied: None, full_check: 10_000, deep: false, leave_stored: false }
}

fn plan(b: &Nftables, machine: &Machine, want: &Desired) -> (Seen, Plan) {
    let seen = b.observe(&context(machine)).unwrap();
    let plan = b.steps(&seen, &b.target(want, &seen).unwrap()).unwrap();
    (seen, plan)
}

fn sync(b: &Nftables, machine: &mut Machine, want: &Desired) -> Plan {
    let (_, todo) = plan(b, machine, want);
    machine.carry_out(&todo);
    let (_, rest) = plan(b, machine, want);
    assert!(rest.is_empty(), "left over: {rest:#?}");
    todo
}

fn lead_back(b: &Nftables, machine: &mut Machine, to: &Owned) {
    let seen = b.observe(&context(machine)).unwrap();
    machine.carry_out(&b.steps(&seen, to).unwrap());
    let seen = b.observe(&context(machine)).unwrap();
    let rest = b.steps(&seen, to).unwrap();
    assert!(rest.is_empty(), "left over: {rest:#?}");
}

fn backend(persist: Persist) -> Nftables {
    Nftables { config: NftablesConfig { persist, ..NftablesConfig::default() }, named: true }
}

fn filter(policy: Policy) -> Machine {
    Machine::new(&[(TableFamily::Inet, "filter", "input", policy)])
}

fn with_systemd(mut machine: Machine) -> Machine {
    for path in ["/run/systemd/system/x", "/lib/systemd/system/nftables.service"] {
        machine.files.insert(path.into(), Vec::new());
    }
    machine
}

fn written(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|c| c.step.to_string()).filter(|s| !s.starts_with("nft")).collect()
}

#[test]
fn a_look_that_equals_the_goal_plans_nothing() {
    let (b, mut machine) = (backend(Persist::None), filter(Policy::Drop));
    let first = sync(&b, &mut machine, &usual());
    assert_eq!(first.changes.len(), 1);
    assert!(first.checks.is_empty() && first.activate.is_empty());
}

#[test]
fn what_loads_a_file_comes_after_it_and_goes_before_it() {
    let (b, mut machine) = (backend(Persist::Auto), filter(Policy::Drop));
    machine.files.insert(CONF.into(), b"flush ruleset\n".to_vec());
    let first = sync(&b, &mut machine, &usual());
    assert_eq!(
        written(&first),
        [
            "mkdir -p /etc/edgeallow/nftables",
            "create /etc/edgeallow/nftables/inet-filter.nft",
            "edit /etc/nftables.conf"
        ]
    );
    assert_eq!(first.checks.len(), 1);
    let text =
        String::from_utf8(machine.files[&PathBuf::from("/etc/edgeallow/nftables/inet-filter.nft")].clone()).unwrap();
    insta::assert_snapshot!(text, @r#"
    # edgeallow: made by edgeallow, which overwrites what is changed here.
    add table inet filter
    add chain inet filter input
    add set inet filter edgeallow4 { type ipv4_addr; flags interval; }
    add set inet filter edgeallow6 { type ipv6_addr; flags interval; }
    add set inet filter edgeallow_ports { type inet_service; }
    flush set inet filter edgeallow4
    add element inet filter edgeallow4 {
    	104.16.0.0/13,
    	104.24.0.0/14,
    }
    flush set inet filter edgeallow6
    add element inet filter edgeallow6 {
    	2400:cb00::/32,
    }
    flush set inet filter edgeallow_ports
    add element inet filter edgeallow_ports {
    	80,
    	443,
    }
    insert rule inet filter input ip6 saddr @edgeallow6 tcp dport @edgeallow_ports counter accept comment "edgeallow"
    insert rule inet filter input ip saddr @edgeallow4 tcp dport @edgeallow_ports counter accept comment "edgeallow"
    "#);
    let seen = b.observe(&context(&machine)).unwrap();
    let last = b.steps(&seen, &Owned::default()).unwrap();
    assert_eq!(
        written(&last),
        [
            "edit /etc/nftables.conf",
            "rm /etc/edgeallow/nftables/inet-filter.nft",
            "rmdir /etc/edgeallow/nftables",
            "rmdir /etc/edgeallow"
        ]
    );
    // What stays is not listed, nor counted.
    machine.files.insert("/etc/edgeallow/config.toml".into(), vec![]);
    let seen = b.observe(&context(&machine)).unwrap();
    let last = b.steps(&seen, &Owned::default()).unwrap();
    assert_eq!(written(&last).last().unwrap(), "rmdir /etc/edgeallow/nftables");
}

#[test]
fn the_drop_in_shrugs_off_failures_and_is_reread_only_when_it_changes() {
    let (b, mut machine) = (backend(Persist::Auto), with_systemd(filter(Policy::Drop)));
    machine.files.insert(CONF.into(), b"flush ruleset".to_vec());
    let first = sync(&b, &mut machine, &usual());
    assert_eq!(first.activate.iter().map(ToString::to_string).collect::<Vec<_>>(), ["systemctl daemon-reload"]);
    assert_eq!(machine.files[&PathBuf::from(CONF)], b"flush ruleset");
    let text = String::from_utf8(machine.files[&PathBuf::from(boot::DROP_IN)].clone()).unwrap();
    insta::assert_snapshot!(text, @r"
    # edgeallow: made by edgeallow, which overwrites what is changed here.
    [Service]
    ExecStartPost=-/usr/sbin/nft -f /etc/edgeallow/nftables/inet-filter.nft
    ExecReload=-/usr/sbin/nft -f /etc/edgeallow/nftables/inet-filter.nft
    ");
    let file = &machine.files[&PathBuf::from("/etc/edgeallow/nftables/inet-filter.nft")];
    assert!(!String::from_utf8_lossy(file).contains("add table"), "what is gone must stay gone");
    let second = sync(&b, &mut machine, &want(&["10.0.0.0/8"], &[80], &[Protocol::Tcp]));
    assert!(second.activate.is_empty());
    let moved = backend(Persist::Include);
    let third = sync(&moved, &mut machine, &usual());
    assert_eq!(third.activate.len(), 1);
    assert!(!machine.files.contains_key(&PathBuf::from(boot::DROP_IN)));
}

#[test]
fn an_include_that_is_no_longer_last_is_moved() {
    let (b, mut machine) = (backend(Persist::Include), filter(Policy::Drop));
    machine.files.insert(CONF.into(), b"flush ruleset\n".to_vec());
    sync(&b, &mut machine, &usual());
    machine.files.get_mut(&PathBuf::from(CONF)).unwrap().extend_from_slice(b"table inet late {\n}\n");
    assert_eq!(written(&sync(&b, &mut machine, &usual())), ["edit /etc/nftables.conf"]);
    lead_back(&b, &mut machine, &Owned::default());
    assert_eq!(machine.files[&PathBuf::from(CONF)], b"flush ruleset\ntable inet late {\n}\n");
}

#[test]
fn links_in_place_of_our_files_are_refused() {
    let (b, mut machine) = (backend(Persist::Include), filter(Policy::Drop));
    machine.files.insert(CONF.into(), Vec::new());
    let path = PathBuf::from("/etc/edgeallow/nftables/inet-filter.nft");
    machine.files.insert(path.clone(), b"# edgeallow: old".to_vec());
    machine.links.insert(path);
    let seen = b.observe(&context(&machine)).unwrap();
    let error = b.steps(&seen, &b.target(&usual(), &seen).unwrap()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::FileRefused);
}

#[test]
fn without_nft_what_is_stored_stays_as_it_is() {
    let (b, mut machine) = (backend(Persist::Include), filter(Policy::Drop));
    machine.files.insert(CONF.into(), Vec::new());
    sync(&b, &mut machine, &usual());
    machine.without_nft = true;
    let todo = sync(&b, &mut machine, &want(&["10.0.0.0/8"], &[80], &[Protocol::Tcp]));
    assert_eq!(written(&todo), Vec::<String>::new());
    let seen = b.observe(&context(&machine)).unwrap();
    assert_eq!(b.warnings(&seen)[0].id, "nft-missing");
}

#[test]
fn warnings_say_what_a_boot_would_miss() {
    let ids = |b: &Nftables, machine: &Machine| -> Vec<String> {
        b.warnings(&b.observe(&context(machine)).unwrap()).into_iter().map(|w| w.id).collect()
    };
    let (b, machine) = (backend(Persist::Auto), filter(Policy::Drop));
    assert_eq!(ids(&b, &machine), ["not-persisted"]);
    assert_eq!(ids(&backend(Persist::None), &machine), Vec::<String>::new());
    let mut machine = with_systemd(machine);
    assert_eq!(ids(&b, &machine), ["nftables-not-enabled"]);
    machine.files.insert("/etc/systemd/system/sysinit.target.wants/nftables.service".into(), Vec::new());
    assert_eq!(ids(&b, &machine), Vec::<String>::new());
    let mut firewalld = Machine::new(&[(TableFamily::Inet, "firewalld", "filter_INPUT", Policy::Drop)]);
    sync(&backend(Persist::None), &mut firewalld, &usual());
    assert_eq!(ids(&backend(Persist::None), &firewalld), ["accept-not-final"]);
}

#[test]
fn large_lists_are_tested_with_a_few_elements() {
    let (b, mut machine) = (backend(Persist::Include), filter(Policy::Drop));
    machine.files.insert(CONF.into(), Vec::new());
    let v4 = (0..200_u32).map(|i| ipnet::Ipv4Net::new_assert((0x0b00_0000 + i * 512).into(), 24)).collect();
    let mut many = usual();
    many.prefixes = Arc::new(crate::allowlist::Prefixes::new(v4, many.prefixes.v6().to_vec()));
    let seen = b.observe(&Context { full_check: 100, ..context(&machine) }).unwrap();
    let plan = b.steps(&seen, &b.target(&many, &seen).unwrap()).unwrap();
    let crate::plan::Check::NftRehearsal { scripts, his, .. } = &plan.checks[0] else { panic!("{plan:?}") };
    assert_eq!((scripts.len(), *his), (2, 1));
    assert_eq!(String::from_utf8_lossy(&scripts[1]).matches("/24,").count(), 16);
}

/// What an administrator or an accident may have done.
#[derive(Debug, Clone)]
enum Drift {
    Displaced,
    Doubled,
    RuleGone,
    RuleChanged,
    ElementsGone,
    Foreign,
}

fn drift(machine: &mut Machine, what: &Drift) {
    let Some(table) = machine.rules.tables.iter_mut().find(|t| !t.sets.is_empty()) else { return };
    let id = table.id.clone();
    let Some(chain) = table.chains.iter_mut().find(|c| c.rules.iter().any(|r| r.comment.is_some())) else { return };
    match what {
        Drift::Displaced => chain.rules.rotate_left(1),
        Drift::Doubled => chain.rules.insert(0, chain.rules[0].clone()),
        Drift::RuleGone => chain.rules.retain(|r| r.comment.is_none()),
        Drift::RuleChanged => _ = chain.rules[0].exprs.pop(),
        Drift::ElementsGone => {
            machine.elements.iter_mut().filter(|(s, _)| s.table == id).for_each(|(_, e)| *e = e.minus(&e.clone()))
        }
        Drift::Foreign => {
            if let Some(Elements::Ports(ports)) = machine.elements.get_mut(&id.set(SET_PORTS)) {
                ports.insert(9);
            }
        }
    }
    // A doubled rule has a handle of its own in the kernel.
    let mut handle = 1_000;
    for rule in machine.rules.tables.iter_mut().flat_map(|t| &mut t.chains).flat_map(|c| &mut c.rules) {
        handle += 1;
        rule.handle = handle;
    }
}

fn any_drift() -> impl Strategy<Value = Drift> {
    use Drift::{Displaced, Doubled, ElementsGone, Foreign, RuleChanged, RuleGone};
    prop::sample::select(vec![Displaced, Doubled, RuleGone, RuleChanged, ElementsGone, Foreign])
}

fn any_want() -> impl Strategy<Value = Desired> {
    let nets = prop::sample::subsequence(POOL.to_vec(), 1..POOL.len());
    let ports = prop::sample::subsequence(vec![25, 80, 443], 1..=3);
    let protocols = prop::sample::subsequence(vec![Protocol::Tcp, Protocol::Udp], 1..=2);
    (nets, ports, protocols).prop_map(|(n, p, q)| want(&n, &p, &q))
}

fn any_backend() -> impl Strategy<Value = Nftables> {
    let persist = prop::sample::select(vec![Persist::Auto, Persist::DropIn, Persist::Include, Persist::None]);
    let attach = prop::option::of(Just("inet filter input".to_owned()));
    (persist, attach).prop_map(|(persist, attach)| {
        let attach = attach.into_iter().map(|a| ChainName::try_from(a).unwrap()).collect();
        Nftables { config: NftablesConfig { attach, persist }, named: true }
    })
}

fn any_machine() -> impl Strategy<Value = Machine> {
    let policy = || prop::sample::select(vec![Policy::Accept, Policy::Drop]);
    let conf =
        prop::option::of(prop::collection::vec(any::<u8>().prop_map(|b| if b == b'\\' { b'x' } else { b }), 0..40));
    (policy(), policy(), policy(), conf, any::<bool>()).prop_map(|(a, b, c, conf, systemd)| {
        let mut machine = Machine::new(&[
            (TableFamily::Inet, "filter", "input", a),
            (TableFamily::Ip, "four", "in", b),
            (TableFamily::Ip6, "six", "in", c),
        ]);
        machine.files.extend(conf.map(|text| (CONF.into(), text)));
        if systemd { with_systemd(machine) } else { machine }
    })
}

proptest! {
    #[test]
    fn applying_a_plan_leaves_nothing_to_plan(
        b in any_backend(), mut machine in any_machine(), wants in prop::collection::vec(any_want(), 1..4),
        drifts in prop::collection::vec(any_drift(), 0..3),
    ) {
        for want in wants {
            sync(&b, &mut machine, &want);
            drifts.iter().for_each(|d| drift(&mut machine, d));
        }
        sync(&b, &mut machine, &usual());
    }

    #[test]
    fn undo_leads_back_from_every_partial_state(
        (b, other) in (any_backend(), any_backend()), mut machine in any_machine(),
        old in prop::option::of(any_want()), new in any_want(), done in 0_usize..8,
    ) {
        if let Some(old) = old {
            sync(&b, &mut machine, &old);
        }
        let before = machine.settled();
        let seen = b.observe(&context(&machine)).unwrap();
        let owned = b.owned(&seen);
        let (_, todo) = plan(&other, &machine, &new);
        machine.carry_out_first(&todo, done);
        lead_back(&other, &mut machine, &owned);
        prop_assert_eq!(machine.settled(), before);
    }

    #[test]
    fn removing_leaves_the_machine_as_it_was(
        b in any_backend(), mut machine in any_machine(), want in any_want(),
        drifts in prop::collection::vec(any_drift(), 0..2),
    ) {
        let before = machine.settled();
        sync(&b, &mut machine, &want);
        drifts.iter().for_each(|d| drift(&mut machine, d));
        lead_back(&b, &mut machine, &Owned::default());
        let mut after = machine.settled();
        // A displaced rule of his may have changed places with ours; his own order is his.
        if drifts.is_empty() {
            prop_assert_eq!(&after, &before);
        }
        let ours = after.rules.tables.iter_mut().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
        prop_assert!(ours.filter(|r| r.comment.as_deref() == Some(TAG)).count() == 0);
        prop_assert_eq!(after.elements, before.elements);
        prop_assert_eq!(after.files, before.files);
    }

    #[test]
    fn an_attachment_stays_when_the_chain_no_longer_refuses(want in any_want()) {
        let (b, mut machine) = (backend(Persist::None), filter(Policy::Drop));
        sync(&b, &mut machine, &want);
        let places: BTreeSet<_> = machine.elements.keys().map(|s| s.table.clone()).collect();
        machine.rules.tables[0].chains[0].hooked.as_mut().unwrap().policy = Policy::Accept;
        let (_, rest) = plan(&b, &machine, &want);
        prop_assert!(rest.is_empty());
        prop_assert_eq!(places.len(), 1);
    }
}
