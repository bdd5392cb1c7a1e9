//! The whole backend against a small model of what iptables-restore, ipset and the file system do.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{rules::JUMP, *};
use crate::{
    error::ErrorKind,
    host::{FileSeen, Look, Output},
    nft::{TableFamily, TableId},
    plan::{Protocol, Step},
};

/// Rules by chain, in the order in which chains were made.
type Chains = BTreeMap<String, Vec<String>>;

#[derive(Debug, Clone, Default, PartialEq)]
struct World {
    tables: BTreeMap<String, Chains>,
    policy: &'static str,
    sets: BTreeMap<String, (String, BTreeSet<String>)>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    programs: BTreeSet<&'static str>,
    asked: RefCell<Vec<String>>,
    /// Whether the kernel answers by netlink what there is.
    netlink: bool,
}

const NFT: [&str; 8] = [
    "iptables-nft-save",
    "iptables-nft-restore",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
];

impl World {
    fn new(policy: &'static str) -> Self {
        let mut world = Self { policy, ..Self::default() };
        world.programs.extend(NFT);
        world.programs.extend(["ipset", "iptables"]);
        for sign in ["/proc/net/dev", "/proc/net/if_inet6", "/sys/module", "/sys/module/ip_set"] {
            world.files.insert(sign.into(), vec![]);
        }
        for table in ["iptables-nft", "ip6tables-nft"] {
            world.tables.entry(table.into()).or_default().insert("INPUT".into(), vec!["-i lo -j ACCEPT".into()]);
        }
        world
    }

    fn input(&mut self, table: &str) -> &mut Vec<String> {
        self.tables.entry(table.into()).or_default().entry("INPUT".into()).or_default()
    }

    fn save(&self, table: &str) -> String {
        let Some(chains) = self.tables.get(table) else { return String::new() };
        let mut out = "*filter\n".to_owned();
        for name in chains.keys() {
            let policy = if name == "INPUT" { self.policy } else { "-" };
            out.push_str(&format!(":{name} {policy} [0:0]\n"));
        }
        for (name, rules) in chains {
            rules.iter().for_each(|r| out.push_str(&format!("-A {name} {r}\n")));
        }
        out + "COMMIT\n"
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(write) => {
                assert_eq!(self.files.get(&write.path).map(Vec::as_slice), write.was.as_deref());
                self.files.insert(write.path.clone(), write.content.to_vec());
            }
            Step::Run(run) => {
                let script = String::from_utf8(run.stdin.as_deref().unwrap().to_vec()).unwrap();
                match run.argv[0].strip_suffix("-restore") {
                    Some(table) => self.restore(table, &script),
                    None => script.lines().for_each(|line| self.ipset(line)),
                }
            }
            other => panic!("no such step in this backend: {other:?}"),
        }
    }

    fn restore(&mut self, table: &str, script: &str) {
        let chains = self.tables.entry(table.into()).or_default();
        // The kernel makes the built-in chains with the table.
        chains.entry("INPUT".into()).or_default();
        assert!(script.starts_with("*filter\n") && script.ends_with("COMMIT\n"), "{script}");
        for line in script.lines().filter(|l| !matches!(*l, "*filter" | "COMMIT")) {
            if let Some(chain) = line.strip_prefix(':') {
                chains.insert(chain.split(' ').next().unwrap().into(), vec![]);
                continue;
            }
            let mut words = line.splitn(3, ' ');
            let (verb, chain, rule) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
            let rules = chains.get_mut(chain).unwrap_or_else(|| panic!("no chain {chain}"));
            match verb {
                "-A" => rules.push(rule.into()),
                "-I" => {
                    let (at, rule) = rule.split_once(' ').unwrap();
                    rules.insert(at.parse::<usize>().unwrap() - 1, rule.into());
                }
                "-D" => {
                    let at = rules.iter().position(|r| save::split_words(r) == save::split_words(rule)).unwrap();
                    rules.remove(at);
                }
                "-F" => rules.clear(),
                "-X" => {
                    assert!(chains.remove(chain).unwrap().is_empty());
                    let into = format!("-j {chain}");
                    assert!(chains.values().flatten().all(|r| !r.ends_with(&into)), "{chain} is in use");
                }
                _ => panic!("{line}"),
            }
        }
    }

    fn references(&self, set: &str) -> usize {
        let word = format!("--match-set {set} src");
        self.tables.values().flat_map(BTreeMap::values).flatten().filter(|r| r.contains(&word)).count()
    }

    fn ipset(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (verb, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        match verb {
            "create" => assert!(self.sets.insert(name.into(), (rest.into(), BTreeSet::new())).is_none(), "{line}"),
            "add" => assert!(self.sets.get_mut(name).unwrap().1.insert(rest.into()), "{line}"),
            "del" => assert!(self.sets.get_mut(name).unwrap().1.remove(rest), "{line}"),
            "flush" => self.sets.get_mut(name).unwrap().1.clear(),
            "destroy" => {
                assert_eq!(self.references(name), 0, "{name} is in use");
                assert!(self.sets.remove(name).is_some());
            }
            "swap" => {
                let (a, b) = (self.sets.remove(name).unwrap(), self.sets.remove(rest).unwrap());
                self.sets.insert(name.into(), b);
                self.sets.insert(rest.into(), a);
            }
            _ => panic!("{line}"),
        }
    }
}

impl Look for World {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        for (names, table) in [("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy")] {
            if path.ends_with(names) && self.exists(Path::new("/proc/net/dev")) {
                let listed: &[u8] = if self.tables.contains_key(table) { b"nat\nfilter\n" } else { b"" };
                return Ok(Some(FileSeen { content: listed.into(), mode: 0o440, owner: (0, 0), symlink: false }));
            }
        }
        let seen = |c: &Vec<u8>| FileSeen { content: c.as_slice().into(), mode: 0o640, owner: (0, 0), symlink: false };
        Ok(self.files.get(path).map(seen))
    }
    fn folder(&self, _: &Path) -> Result<Vec<String>> {
        Ok(vec![])
    }
    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
    fn program(&self, name: &str) -> Option<PathBuf> {
        self.programs.get(name).map(|n| Path::new("/usr/sbin").join(n))
    }
    fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
        assert!(crate::host::look_only::is_look_only(argv), "{argv:?}");
        self.asked.borrow_mut().push(argv.join(" "));
        let stdout = match argv {
            ["iptables", "--version"] => "iptables v1.8.9 (nf_tables)\n".to_owned(),
            ["ipset", "list", "-t"] => self
                .sets
                .iter()
                .map(|(name, (create, all))| {
                    let (kind, options) = create.split_once(' ').unwrap();
                    let (references, n) = (self.references(name), all.len());
                    format!("Name: {name}\nType: {kind}\nHeader: {options}\nReferences: {references}\nNumber of entries: {n}\n\n")
                })
                .collect(),
            ["ipset", "save", name] => self.sets[*name].1.iter().map(|e| format!("add {name} {e}\n")).collect(),
            [save] => self.save(save.strip_suffix("-save").unwrap()),
            _ => panic!("{argv:?}"),
        };
        Ok(Output { status: Some(0), stdout: stdout.into_bytes(), stderr: vec![] })
    }
    fn may_administer(&self) -> bool {
        true
    }
    fn nft_has_table(&self, table: &TableId) -> Result<Option<bool>> {
        let ours = match table.family {
            TableFamily::Ip => "iptables-nft",
            _ => "ip6tables-nft",
        };
        Ok(self.netlink.then(|| self.tables.contains_key(ours)))
    }
    fn has_ipset(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.netlink.then(|| self.sets.contains_key(name)))
    }
}

fn look(backend: &Iptables, world: &World, full_check: usize, applied: Option<Arc<Prefixes>>) -> Seen {
    backend.observe(&Context { host: world, applied, full_check, deep: false, leave_stored: false }).unwrap()
}

fn want(nets: &[&str]) -> Desired {
    Desired {
        prefixes: Arc::new(nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect()),
        ports: [80, 443].into(),
        protocols: [Protocol::Tcp].into(),
    }
}

/// Syncs, and sees to it that nothing is left to do; returns what was seen before.
fn sync(backend: &Iptables, world: &mut World, want: &Desired) -> (Seen, Plan) {
    let seen = look(backend, world, 10_000, None);
    let plan = backend.steps(&seen, &backend.target(want, &seen).unwrap()).unwrap();
    plan.changes.iter().for_each(|c| world.step(&c.step));
    let again = look(backend, world, 10_000, None);
    let left = backend.steps(&again, &backend.target(want, &again).unwrap()).unwrap();
    assert!(left.is_empty(), "{left:?}");
    (seen, plan)
}

/// What the operator is told beside a plan.
fn told(backend: &Iptables, world: &World, want: &Desired) -> Vec<Warning> {
    let seen = look(backend, world, 10_000, None);
    let mut warnings = backend.warnings(&seen);
    warnings.extend(backend.foreseen(&seen, &backend.target(want, &seen).unwrap()));
    warnings
}

fn back(backend: &Iptables, world: &mut World, to: &Owned) {
    let seen = look(backend, world, 10_000, None);
    backend.steps(&seen, to).unwrap().changes.iter().for_each(|c| world.step(&c.step));
}

#[test]
fn a_run_with_nothing_to_do_asks_three_programs_and_no_legacy_table() {
    let (backend, mut world) = (Iptables::default(), World::new("DROP"));
    sync(&backend, &mut world, &want(&["10.0.0.0/8", "2001:db8::/32"]));
    world.asked.borrow_mut().clear();
    look(&backend, &world, 10_000, None);
    assert_eq!(*world.asked.borrow(), ["iptables-nft-save", "ip6tables-nft-save", "ipset list -t"]);
    assert!(!world.tables.contains_key("iptables-legacy"));
}

#[test]
fn no_program_is_asked_about_what_the_kernel_says_is_not_there() {
    let (backend, mut world) = (Iptables::default(), World::new("DROP"));
    world.netlink = true;
    world.tables.remove("ip6tables-nft");
    let asked = |world: &World| {
        look(&backend, world, 10_000, None);
        world.asked.take()
    };
    assert_eq!(asked(&world), ["iptables-nft-save"]);
    world.ipset("create edgeallow6-new hash:net family inet6 maxelem 9");
    assert_eq!(asked(&world), ["iptables-nft-save", "ipset list -t"]);
    world.tables.clear();
    world.sets.clear();
    assert!(asked(&world).is_empty());
}

#[test]
fn where_nothing_refuses_nothing_is_done_unless_it_is_named() {
    let mut world = World::new("ACCEPT");
    let (auto, named) = (Iptables::default(), Iptables { named: true, ..Iptables::default() });
    let cx = Context { host: &world.clone(), applied: None, full_check: 10, deep: false, leave_stored: false };
    assert!(matches!(auto.probe(&cx), Probe::Ready { auto: super::super::Auto::No(_), .. }));
    assert!(sync(&auto, &mut world, &want(&["10.0.0.0/8"])).1.is_empty());
    assert_eq!(sync(&named, &mut world, &want(&["10.0.0.0/8"])).1.changes.len(), 1);
    assert!(world.tables["iptables-nft"].contains_key("EDGEALLOW"));
}

#[test]
fn legacy_gets_it_where_legacy_refuses() {
    let mut world = World::new("ACCEPT");
    world.input("iptables-legacy").push("-p tcp -j DROP".into());
    sync(&Iptables::default(), &mut world, &want(&["10.0.0.0/8", "2001:db8::/32"]));
    let with: Vec<_> =
        world.tables.iter().filter(|(_, c)| c.contains_key("EDGEALLOW")).map(|(n, _)| n.as_str()).collect();
    assert_eq!(with, ["ip6tables-legacy", "iptables-legacy"]);
}

#[test]
fn without_proc_net_it_is_not_known_which_legacy_tables_there_are() {
    let mut world = World::new("ACCEPT");
    world.input("iptables-legacy").push("-p tcp -j DROP".into());
    world.files.remove(Path::new("/proc/net/dev"));
    let cx = Context { host: &world, applied: None, full_check: 10, deep: false, leave_stored: false };
    assert!(Iptables::default().observe(&cx).unwrap_err().message.contains("legacy tables"));
}

#[test]
fn without_ipv6_the_rest_is_done_and_it_is_said() {
    let mut world = World::new("DROP");
    world.files.remove(Path::new("/proc/net/if_inet6"));
    let backend = Iptables::default();
    assert_eq!(sync(&backend, &mut world, &want(&["10.0.0.0/8", "2001:db8::/32"])).1.changes.len(), 1);
    let ids: Vec<_> = told(&backend, &world, &want(&["10.0.0.0/8"])).into_iter().map(|w| w.id).collect();
    assert_eq!(ids, ["ipv6-skipped", "not-persisted"]);
    world.programs.retain(|p| !p.starts_with("ip6tables"));
    world.files.insert("/proc/net/if_inet6".into(), vec![]);
    assert_eq!(backend.warnings(&look(&backend, &world, 10, None))[0].id, "ipv6-skipped");
}

#[test]
fn no_iptables_is_absent_and_plain_names_are_found() {
    let mut world = World::new("DROP");
    world.programs.clear();
    let cx = |host| Context { host, applied: None, full_check: 10, deep: false, leave_stored: false };
    assert!(matches!(Iptables::default().probe(&cx(&world)), Probe::Absent(_)));
    world.programs.extend(["iptables", "iptables-save", "iptables-restore"]);
    let tools = seen::tools(&world);
    assert_eq!((tools.len(), tools[0].variant, tools[0].save.as_str()), (1, Variant::Nft, "iptables-save"));
}

#[test]
fn a_missing_ipset_is_an_error_only_where_it_matters() {
    let mut world = World::new("DROP");
    world.programs.remove("ipset");
    let many = |n: u32| Desired {
        prefixes: Arc::new(
            (0..n).map(|i| format!("10.{}.{}.0/24", i / 256, i % 256).parse::<IpNet>().unwrap()).collect(),
        ),
        ..want(&[])
    };
    let backend = Iptables::default();
    let before = told(&backend, &world, &many(100));
    sync(&backend, &mut world, &many(100));
    let seen = look(&backend, &world, 10_000, None);
    assert!(before.iter().any(|w| w.id == "ipset-missing"));
    assert_eq!(told(&backend, &world, &many(100)), before);
    assert_eq!(backend.target(&many(2000), &seen).unwrap_err().kind, ErrorKind::BackendUnusable);
}

#[test]
fn a_large_set_is_counted_and_a_wrong_count_is_rebuilt() {
    let (backend, mut world) = (Iptables::default(), World::new("DROP"));
    let backend = Iptables { config: IptablesConfig { ipset: IpsetUse::Always, ..backend.config }, named: false };
    let wanted = want(&["10.0.0.0/8", "11.0.0.0/8", "2001:db8::/32"]);
    sync(&backend, &mut world, &wanted);
    let plan = |world: &World, applied| {
        let seen = look(&backend, world, 1, applied);
        (backend.verified(&seen), backend.steps(&seen, &backend.target(&wanted, &seen).unwrap()).unwrap())
    };
    let (verified, left) = plan(&world, Some(wanted.prefixes.clone()));
    assert!(verified == Verified::Count && left.is_empty());
    assert!(!plan(&world, None).1.is_empty());
    world.ipset("del edgeallow4 11.0.0.0/8");
    world.ipset("add edgeallow4 12.0.0.0/9");
    world.ipset("add edgeallow4 12.128.0.0/9");
    let rebuild = plan(&world, Some(wanted.prefixes.clone())).1;
    assert_eq!(rebuild.changes.len(), 1, "{rebuild:?}");
    rebuild.changes.iter().for_each(|c| world.step(&c.step));
    assert!(sync(&backend, &mut world, &wanted).1.is_empty());
}

#[test]
fn what_others_lead_into_stays_empty_on_removal() {
    let mut world = World::new("DROP");
    let backend =
        Iptables { config: IptablesConfig { ipset: IpsetUse::Always, ..IptablesConfig::default() }, named: false };
    sync(&backend, &mut world, &want(&["10.0.0.0/8"]));
    world.input("iptables-nft").push("-p udp -j EDGEALLOW".into());
    world.input("iptables-nft").push("-m set --match-set edgeallow4 src -j ACCEPT".into());
    back(&backend, &mut world, &Owned::default());
    let seen = look(&backend, &world, 10, None);
    assert_eq!(seen.owned(), Owned::default());
    assert!(backend.steps(&seen, &Owned::default()).unwrap().is_empty());
    assert!(world.sets["edgeallow4"].1.is_empty() && world.tables["iptables-nft"]["EDGEALLOW"].is_empty());
}

#[test]
fn a_dry_run_tells_what_the_run_tells() {
    let always = IptablesConfig { ipset: IpsetUse::Always, ..IptablesConfig::default() };
    let file = PathBuf::from("/etc/iptables/rules.v4");
    for config in [IptablesConfig::default(), always] {
        for text in [None, Some("*filter\nCOMMIT\n"), Some("*filter\r\nCOMMIT\r\n")] {
            let (backend, mut world) = (Iptables { config: config.clone(), named: false }, World::new("DROP"));
            if let Some(text) = text {
                world.files.insert("/usr/share/netfilter-persistent/plugins.d/15-ip4tables".into(), vec![]);
                world.files.insert(file.clone(), text.into());
            }
            let wanted = want(&["10.0.0.0/8", "2001:db8::/32"]);
            let dry = told(&backend, &world, &wanted);
            assert!(dry.iter().any(|w| w.id == "not-persisted"), "{dry:?}");
            sync(&backend, &mut world, &wanted);
            assert_eq!(told(&backend, &world, &wanted), dry);
        }
    }
    let world = World::new("ACCEPT");
    assert_eq!(told(&Iptables::default(), &world, &want(&["10.0.0.0/8"])), []);
}

#[test]
fn a_chain_of_an_administrator_under_our_name_is_refused_and_stays() {
    let mut world = World::new("DROP");
    let his = vec!["-s 203.0.113.9/32 -j ACCEPT".to_owned()];
    world.tables.get_mut("iptables-nft").unwrap().insert("EDGEALLOW".into(), his.clone());
    world.input("iptables-nft").push("-j EDGEALLOW".into());
    let (backend, before) = (Iptables::default(), world.clone());
    let seen = look(&backend, &world, 10_000, None);
    assert_eq!((seen.owned(), seen.held()), (Owned::default(), Prefixes::default()));
    let wanted = want(&["10.0.0.0/8"]);
    let e = backend.steps(&seen, &backend.target(&wanted, &seen).unwrap()).unwrap_err();
    assert_eq!(e.kind, ErrorKind::ToolConfig);
    assert!(e.hint.unwrap().contains("iptables-nft -E EDGEALLOW"));
    back(&backend, &mut world, &Owned::default());
    assert_eq!(world.tables, before.tables);
    // Among rules of ours it is drift, which is healed, and said.
    world.input("iptables-nft").push(JUMP.join(" "));
    let plan = sync(&backend, &mut world, &wanted).1;
    assert_eq!(
        plan.changes[0].why,
        "IPv4 (nft): 1 rule is missing, 1 rule doesn't belong there; the jump is not the first rule of INPUT; \
         1 rule without edgeallow's comment goes from chain EDGEALLOW"
    );
}

#[test]
fn a_set_of_an_administrator_under_our_name_is_refused_and_stays() {
    let mut world = World::new("DROP");
    world.ipset("create edgeallow4 hash:ip family inet maxelem 9");
    world.ipset("add edgeallow4 203.0.113.9");
    let (sets, wanted) = (world.sets.clone(), want(&["10.0.0.0/8"]));
    let config = IptablesConfig { ipset: IpsetUse::Always, ..IptablesConfig::default() };
    let (linear, by_set) = (Iptables::default(), Iptables { config, named: false });
    let seen = look(&by_set, &world, 10_000, None);
    let e = by_set.steps(&seen, &by_set.target(&wanted, &seen).unwrap()).unwrap_err();
    assert_eq!(e.kind, ErrorKind::ToolConfig);
    sync(&linear, &mut world, &wanted);
    back(&linear, &mut world, &Owned::default());
    assert_eq!(world.sets, sets);
}

#[test]
fn a_set_left_half_built_is_cleared_away() {
    let mut world = World::new("DROP");
    world.ipset("create edgeallow4-new hash:net family inet maxelem 65536");
    sync(&Iptables::default(), &mut world, &want(&["10.0.0.0/8"]));
    assert!(world.sets.is_empty());
}

fn jumps() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0_usize..4, 0..3)
}

fn prefixes() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(
        vec!["10.0.0.0/8", "11.0.0.0/8", "12.1.0.0/16", "0.0.0.0/0", "2001:db8::/32", "::/0"],
        0..6,
    )
}

proptest! {
    #[test]
    fn planning_is_done_when_it_is_done_and_undoing_brings_back(
        his in proptest::collection::vec(prop_oneof!["-p tcp -j DROP", "-s 10\\.0\\.0\\.1/32 -j ACCEPT"], 0..4),
        at in jumps(),
        chain in proptest::option::of(proptest::collection::vec(prop_oneof![
            Just("-j RETURN".to_owned()),
            Just("-s 11.0.0.0/8 -p tcp -m multiport --dports 80,443 -m comment --comment edgeallow -j ACCEPT".to_owned()),
            Just("-m comment --comment \"a b\" -j ACCEPT".to_owned()),
        ], 0..3)),
        set in proptest::option::of((any::<bool>(), proptest::sample::subsequence(vec!["10.0.0.0/8", "13.0.0.0/8"], 0..2))),
        stored in any::<bool>(),
        always in any::<bool>(),
        before in prefixes(),
        after in prefixes(),
    ) {
        let mut world = World::new("DROP");
        *world.input("iptables-nft") = his.clone();
        if let Some(mut rules) = chain {
            // Without any sign of ours it would be an administrator's.
            if at.is_empty() && !rules.iter().any(|r| r.contains("edgeallow")) {
                rules.clear();
            }
            world.tables.get_mut("iptables-nft").unwrap().insert("EDGEALLOW".into(), rules);
            for at in at {
                let input = world.input("iptables-nft");
                input.insert(at.min(input.len()), JUMP.join(" "));
            }
        }
        if let Some((good, elements)) = set {
            world.ipset(if good { "create edgeallow4 hash:net family inet maxelem 65536" } else { "create edgeallow4 hash:net family inet maxelem 9 counters" });
            elements.iter().for_each(|e| world.ipset(&format!("add edgeallow4 {e}")));
        }
        let file = PathBuf::from("/etc/iptables/rules.v4");
        let text = b"*filter\n:INPUT DROP [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n".to_vec();
        if stored {
            world.files.insert("/usr/share/netfilter-persistent/plugins.d/15-ip4tables".into(), vec![]);
            world.files.insert(file.clone(), text.clone());
        }
        let ipset = if always { IpsetUse::Always } else { IpsetUse::Never };
        let backend = Iptables { config: IptablesConfig { ipset, ..IptablesConfig::default() }, named: true };
        let original = world.clone();
        let mut states = Vec::new();
        for nets in [&before, &after] {
            let (seen, plan) = sync(&backend, &mut world, &want(nets));
            // Cut off after every step: the way back and the way on both work from there.
            for cut in 0..=plan.changes.len() {
                let mut half = states.last().map_or_else(|| original.clone(), |(_, w): &(Owned, World)| w.clone());
                plan.changes[..cut].iter().for_each(|c| half.step(&c.step));
                let mut on = half.clone();
                sync(&backend, &mut on, &want(nets));
                back(&backend, &mut half, &seen.owned());
                prop_assert_eq!(look(&backend, &half, 10_000, None).owned(), seen.owned());
            }
            states.push((seen.owned(), world.clone()));
            let input = |w: &World| w.tables["iptables-nft"]["INPUT"].iter().filter(|r| !r.contains("EDGEALLOW")).cloned().collect::<Vec<_>>();
            prop_assert_eq!(input(&world), his.clone());
        }
        back(&backend, &mut world, &Owned::default());
        prop_assert_eq!(look(&backend, &world, 10_000, None).owned(), Owned::default());
        prop_assert_eq!(&world.tables["iptables-nft"]["INPUT"], &his);
        if stored {
            prop_assert_eq!(&world.files[&file], &text);
        }
    }
}
