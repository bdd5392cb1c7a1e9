//! The whole backend against a small model of CSF: its files, its chains, and how it makes one of the other.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    super::iptables::save::split_words,
    line::{Shape, Way},
    lists::{ALLOW, HIS_ALLOW, HIS_IGNORE, IGNORE},
    *,
};
use crate::{
    host::{FileSeen, Look, Output},
    plan::{LockOn, Step},
};

const TABLES: [(&str, Family); 2] = [("iptables-nft", Family::V4), ("ip6tables-nft", Family::V6)];

const SKELETON: &str = ":INPUT DROP [0:0]\n:ALLOWIN - [0:0]\n:ALLOWOUT - [0:0]\n:LOCALINPUT - [0:0]\n:DENYIN - [0:0]\n\
    -A INPUT ! -i lo -j LOCALINPUT\n-A INPUT -j DROP\n-A LOCALINPUT ! -i lo -j ALLOWIN\n-A LOCALINPUT ! -i lo -j DENYIN\n";

#[derive(Debug, Clone, Default, PartialEq)]
struct World {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// The rules of ALLOWIN and ALLOWOUT by program; a table that isn't here has no CSF in it.
    loaded: BTreeMap<&'static str, BTreeMap<String, Vec<String>>>,
    asked: RefCell<Vec<String>>,
}

impl World {
    fn new(csf_allow: &[u8]) -> Self {
        let mut world = Self::default();
        for (path, content) in [
            (super::seen::CONF, &b"TESTING = \"0\"\nIPV6 = \"1\"\nTCP_IN = \"22\"\n"[..]),
            (HIS_ALLOW, csf_allow),
            (HIS_IGNORE, b"127.0.0.1\n"),
            ("/etc/csf/version.txt", b"15.10\n"),
            ("/var/lib/csf", b""),
            ("/proc/net/if_inet6", b""),
        ] {
            world.files.insert(path.into(), content.to_vec());
        }
        world.start();
        world
    }

    fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(Path::new(path)).map(Vec::as_slice)
    }

    fn set(&mut self, path: &str, content: &str) {
        self.files.insert(path.into(), content.into());
    }

    /// csf.allow and all that it includes, or that without ours.
    fn lists(&self, with_ours: bool) -> Vec<Allow> {
        let mut lists = vec![PathBuf::from(HIS_ALLOW)];
        let mut at = 0;
        while let Some(path) = lists.get(at) {
            let content = self.files.get(path).cloned().unwrap_or_default();
            // A list that includes itself would hold CSF for ever.
            let more = super::lists::includes(&content).into_iter().filter(|p| with_ours || p != ALLOW);
            let more: Vec<_> = more.map(PathBuf::from).filter(|p| !lists.contains(p)).collect();
            lists.extend(more);
            at += 1;
        }
        lists.iter().filter_map(|p| self.files.get(p)).flat_map(|c| super::lists::allows(c)).collect()
    }

    /// What CSF does when it starts: each line of the lists becomes a rule, first in its chain.
    fn start(&mut self) {
        self.loaded.clear();
        for (program, family) in TABLES {
            let mut chains = BTreeMap::from([("ALLOWIN".to_owned(), vec![]), ("ALLOWOUT".to_owned(), vec![])]);
            for allow in self.lists(true).into_iter().filter(|a| a.family() == family) {
                chains.get_mut(allow.way.chain()).unwrap().insert(0, allow.rule(&shape()));
            }
            self.loaded.insert(program, chains);
        }
    }

    fn save(&self, program: &str) -> String {
        let Some(chains) = self.loaded.get(program) else { return String::new() };
        let rules = chains.iter().flat_map(|(c, all)| all.iter().map(move |r| format!("-A {c} {r}\n")));
        format!("*filter\n{SKELETON}{}COMMIT\n", rules.collect::<String>())
    }

    /// `systemctl stop csf`: what is live is saved, and gone.
    fn stop(&mut self) {
        for (program, path) in [("iptables-nft", "csf.4.saved"), ("ip6tables-nft", "csf.6.saved")] {
            let saved = self.save(program);
            self.set(&format!("/var/lib/csf/{path}"), &saved);
        }
        self.loaded.clear();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(write) => {
                assert_eq!(self.files.get(&write.path).map(Vec::as_slice), write.was.as_deref());
                assert_eq!(write.in_place, write.path.ends_with("csf.allow") || write.path.ends_with("csf.ignore"));
                self.files.insert(write.path.clone(), write.content.to_vec());
            }
            Step::Remove(remove) => assert_eq!(self.files.remove(&remove.path).as_deref(), Some(&*remove.was)),
            Step::Touch(path) => drop(self.files.insert(path.clone(), vec![])),
            Step::Run(run) => {
                assert_eq!(run.argv[1..], ["--noflush", "-w", "5"]);
                let script = String::from_utf8(run.stdin.as_deref().unwrap().to_vec()).unwrap();
                self.restore(run.argv[0].strip_suffix("-restore").unwrap(), &script);
            }
            other => panic!("no such step in this backend: {other:?}"),
        }
        // Whatever is live and ours has its name in our list, so that no moment leaves a rule that nobody knows.
        let named: BTreeSet<Allow> = self.file(ALLOW).map(super::lists::allows).into_iter().flatten().collect();
        for (way, rule) in self.rules() {
            let allow = Allow::of_rule(&split_words(&rule), way, &shape()).unwrap();
            assert!(
                named.contains(&allow) || self.lists(false).contains(&allow),
                "{rule} is in no list after {step:?}"
            );
        }
    }

    fn rules(&self) -> Vec<(Way, String)> {
        let chains = self.loaded.values();
        let of = |c: &BTreeMap<String, Vec<String>>, way: Way| {
            c[way.chain()].iter().map(|r| (way, r.clone())).collect::<Vec<_>>()
        };
        chains.flat_map(|c| Way::BOTH.into_iter().flat_map(|w| of(c, w)).collect::<Vec<_>>()).collect()
    }

    fn restore(&mut self, program: &str, script: &str) {
        let chains = self.loaded.iter_mut().find(|(p, _)| **p == program).unwrap().1;
        for line in script.lines().filter(|l| !matches!(*l, "*filter" | "COMMIT")) {
            let words: Vec<_> = line.splitn(3, ' ').collect();
            let rule = split_words(words[2]).join(" ");
            let chain = chains.get_mut(words[1]).unwrap();
            match words[0] {
                "-I" => chain.insert(0, rule),
                "-D" => drop(chain.remove(chain.iter().position(|r| *r == rule).unwrap())),
                _ => panic!("{line}"),
            }
        }
    }
}

impl Look for World {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        let seen = |c: &Vec<u8>| FileSeen { content: c.as_slice().into(), mode: 0o600, owner: (0, 0), symlink: false };
        Ok(self.files.get(path).map(seen))
    }
    fn folder(&self, _: &Path) -> Result<Vec<String>> {
        Ok(vec![])
    }
    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
    fn program(&self, name: &str) -> Option<PathBuf> {
        let stem = name.strip_suffix("-save").or_else(|| name.strip_suffix("-restore"))?;
        TABLES.iter().any(|(p, _)| *p == stem).then(|| Path::new("/usr/sbin").join(name))
    }
    fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
        assert!(crate::host::look_only::is_look_only(argv), "{argv:?}");
        self.asked.borrow_mut().push(argv.join(" "));
        let stdout = self.save(argv[0].strip_suffix("-save").unwrap()).into_bytes();
        Ok(Output { status: Some(0), stdout, stderr: vec![] })
    }
    fn may_administer(&self) -> bool {
        true
    }
}

fn shape() -> Shape {
    Shape { device: None, accept: "ACCEPT" }
}

fn backend() -> Csf {
    Csf { ports: [80, 443].into(), protocols: [Protocol::Tcp].into() }
}

fn cx(host: &World) -> Context<'_> {
    Context { host, applied: None, full_check: 10_000, deep: false, leave_stored: false }
}

fn want(nets: &[&str], ports: &[u16]) -> Desired {
    Desired {
        prefixes: Arc::new(nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect()),
        ports: ports.iter().copied().collect(),
        protocols: [Protocol::Tcp].into(),
    }
}

const NETS: [&str; 3] = ["173.245.48.0/20", "104.16.0.0/13", "2400:cb00::/32"];

fn look(world: &World) -> Seen {
    backend().observe(&cx(world)).unwrap()
}

fn plan_for(world: &World, want: &Desired) -> Plan {
    let seen = look(world);
    backend().steps(&seen, &backend().target(want, &seen).unwrap()).unwrap()
}

fn carry_out(world: &mut World, plan: &Plan) {
    plan.changes.iter().for_each(|c| world.step(&c.step));
    if !plan.is_empty() {
        plan.activate.iter().for_each(|s| world.step(s));
    }
}

fn sync(world: &mut World, want: &Desired) -> Plan {
    let plan = plan_for(world, want);
    carry_out(world, &plan);
    let left = plan_for(world, want);
    assert!(left.is_empty(), "{left:?}");
    plan
}

fn back(world: &mut World, to: &Owned) {
    let plan = backend().steps(&look(world), to).unwrap();
    carry_out(world, &plan);
    assert!(backend().steps(&look(world), to).unwrap().is_empty());
}

fn text<'a>(world: &'a World, path: &str) -> &'a str {
    std::str::from_utf8(world.file(path).unwrap()).unwrap()
}

fn steps_of(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|c| c.step.to_string()).collect()
}

#[test]
fn a_first_run_writes_the_lists_and_the_live_rules_under_csfs_locks() {
    let mut world = World::new(b"1.2.3.4 # friend\n");
    let plan = sync(&mut world, &want(&NETS, &[80, 443]));
    assert_eq!(
        steps_of(&plan),
        [
            "create /etc/csf/edgeallow.allow",
            "edit /etc/csf/csf.allow",
            "iptables-nft-restore --noflush -w 5",
            "ip6tables-nft-restore --noflush -w 5",
            "create /etc/csf/edgeallow.ignore",
            "edit /etc/csf/csf.ignore",
        ]
    );
    let flock = |p: &str| LockOn::Flock(p.into());
    assert_eq!(plan.locks, [LockOn::FlockMade("/var/lib/csf/csf.lock".into()), flock(HIS_ALLOW), flock(HIS_IGNORE)]);
    assert_eq!(text(&world, HIS_ALLOW), "1.2.3.4 # friend\nInclude /etc/csf/edgeallow.allow\n");
    assert!(text(&world, ALLOW).contains("\ntcp|in|d=80,443|s=104.16.0.0/13\ntcp|out|s=80,443|d=104.16.0.0/13\n"));
    assert!(text(&world, IGNORE).ends_with("\n104.16.0.0/13\n173.245.48.0/20\n2400:cb00::/32\n"));
    // What CSF itself makes of the lists is what is live already.
    let live: BTreeSet<_> = world.rules().into_iter().map(|(_, r)| r).collect();
    world.start();
    assert_eq!(live, world.rules().into_iter().map(|(_, r)| r).collect());
    assert!(plan_for(&world, &want(&NETS, &[80, 443])).is_empty());
}

#[test]
fn a_run_with_nothing_to_do_asks_two_programs_and_takes_no_lock() {
    let mut world = World::new(b"");
    sync(&mut world, &want(&NETS, &[80]));
    world.asked.borrow_mut().clear();
    let plan = plan_for(&world, &want(&NETS, &[80]));
    assert!(plan.is_empty() && plan.locks.is_empty());
    assert_eq!(*world.asked.borrow(), ["iptables-nft-save", "ip6tables-nft-save"]);
}

#[test]
fn lfd_restart_is_touched_when_the_ignore_file_changed_and_only_then() {
    let mut world = World::new(b"");
    let touch = [Step::Touch("/var/lib/csf/lfd.restart".into())];
    assert_eq!(sync(&mut world, &want(&NETS, &[80])).activate, touch);
    assert!(sync(&mut world, &want(&NETS, &[443])).activate.is_empty(), "other ports are nothing to lfd");
    assert_eq!(sync(&mut world, &want(&NETS[..1], &[443])).activate, touch);
    // A run that was cut off before lfd was told has only that left to do.
    assert_eq!(plan_for(&world, &want(&NETS[..1], &[443])).activate, touch);
}

#[test]
fn csf_stopped_means_the_saved_rules_go_and_it_is_pending() {
    let mut world = World::new(b"");
    world.stop();
    let before = look(&world);
    assert_eq!(backend().pending(&before), None);
    let plan = sync(&mut world, &want(&NETS, &[80]));
    assert!(steps_of(&plan).contains(&"rm /var/lib/csf/csf.4.saved".to_owned()), "{plan:?}");
    assert!(world.file("/var/lib/csf/csf.6.saved").is_none());
    assert!(backend().pending(&look(&world)).unwrap().contains("csf -s"));
    world.start();
    assert!(plan_for(&world, &want(&NETS, &[80])).is_empty());
    // Saved with what is wanted in it, it may stay.
    world.stop();
    assert!(plan_for(&world, &want(&NETS, &[80])).is_empty());
    assert_eq!(sync(&mut world, &want(&NETS[1..], &[80])).changes.len(), 4);
    // And on removal it goes, because it would bring ours back.
    world.start();
    world.stop();
    back(&mut world, &Owned::default());
    assert!(world.file("/var/lib/csf/csf.4.saved").is_none());
}

#[test]
fn the_five_states_are_told_from_files_and_chains() {
    let states = |world: &World| {
        let auto = match backend().probe(&cx(world)) {
            Probe::Ready { version, auto } => {
                assert_eq!(version, "15.10");
                matches!(auto, Auto::Yes(_))
            }
            other => panic!("{other:?}"),
        };
        let seen = look(world);
        (auto, backend().pending(&seen), backend().warnings(&seen).into_iter().map(|w| w.id).collect::<Vec<_>>())
    };
    let mut world = World::new(b"");
    assert_eq!(states(&world), (true, None, vec![]), "active");
    world.loaded.clear();
    assert_eq!(states(&world), (false, None, vec![]), "not loaded, nothing of ours stored");
    sync(&mut world, &want(&NETS, &[80, 443]));
    assert!(matches!(states(&world), (true, Some(why), _) if why.contains("not loaded")));
    world.set("/etc/csf/csf.error", "Error: iptables: Bad argument, at line 7\n");
    assert!(matches!(states(&world), (true, Some(why), _) if why.contains("Bad argument, at line 7")));
    world.set("/etc/csf/csf.disable", "");
    assert!(matches!(states(&world), (true, Some(why), _) if why.contains("disabled")));
    let mut world = World::new(b"");
    world.set(super::seen::CONF, "TESTING = \"1\"\nIPV6 = \"1\"\n");
    assert_eq!(states(&world), (true, None, vec!["csf-testing".to_owned()]));
    world.files.remove(Path::new(super::seen::CONF));
    assert!(matches!(backend().probe(&cx(&world)), Probe::Absent(_)));
}

#[test]
fn every_warning_names_its_fix() {
    let mut world = World::new(b"");
    world.set(
        super::seen::CONF,
        "TESTING = \"1\"\nTCP_IN = \"22,80,400:500\"\nMESSENGER = \"1\"\nCT_SUBNET_LIMIT = \"24\"\nDOCKER = \"1\"\n",
    );
    world.set("/etc/csf/csf.deny", "173.245.48.29 # lfd\n9.9.9.9\nInclude /etc/csf/more.deny\n");
    world.set("/etc/csf/more.deny", "tcp|in|d=443|s=104.16.1.0/24\n");
    world.set("/var/lib/csf/csf.tempban", "1700000000|2400:cb00::9||in|3600|lfd\n1700000000|9.9.9.9|80|in|3600|x\n");
    sync(&mut world, &want(&NETS, &[80, 443]));
    let all = backend().warnings(&look(&world));
    let ids: Vec<_> = all.iter().map(|w| w.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "csf-testing",
            "csf-open-to-all",
            "csf-without-ipv6",
            "csf-messenger",
            "csf-ct-subnet-limit",
            "csf-docker",
            "csf-blocks-cloudflare",
            "csf-blocks-cloudflare",
        ]
    );
    assert!(all[1].message.contains("80, 443"), "{}", all[1].message);
    assert!(all[6].message.contains("`csf -dr 173.245.48.29`") && all[6].message.contains("104.16.1.0/24"));
    assert!(all[7].message.contains("`csf -tr 2400:cb00::9`"), "{}", all[7].message);
    assert!(all.iter().all(|w| !w.message.contains("9.9.9.9") && w.message.contains('`') || w.id == "csf-docker"));
}

#[test]
fn without_ipv6_in_csf_the_lines_are_stored_and_no_table_is_touched() {
    let mut world = World::new(b"");
    world.loaded.remove("ip6tables-nft");
    let plan = sync(&mut world, &want(&NETS, &[80]));
    assert!(!steps_of(&plan).iter().any(|s| s.starts_with("ip6tables")));
    assert!(text(&world, ALLOW).contains("s=2400:cb00::/32"));
    assert!(backend().pending(&look(&world)).unwrap().contains("IPv6"));
    world.set(super::seen::CONF, "IPV6 = \"0\"\n");
    assert_eq!(backend().pending(&look(&world)), None);
}

#[test]
fn his_own_entries_for_the_same_ranges_stay_his() {
    let his = b"tcp|in|d=80,443|s=173.245.48.0/20 # mine\n173.245.48.0/20\nInclude /etc/csf/more.allow\n";
    let mut world = World::new(his);
    world.set("/etc/csf/more.allow", "tcp|out|s=80,443|d=173.245.48.0/20\n");
    world.start();
    let before = world.clone();
    sync(&mut world, &want(&NETS, &[80, 443]));
    let count = |world: &World, words: &str| world.rules().iter().filter(|(_, r)| r.contains(words)).count();
    assert_eq!((count(&world, "-s 173.245.48.0/20"), count(&world, "-d 173.245.48.0/20")), (2, 2));
    back(&mut world, &Owned::default());
    world.files.remove(Path::new("/var/lib/csf/lfd.restart"));
    assert_eq!((&world.files, world.rules()), (&before.files, before.rules()));
}

#[test]
fn hostile_lists_keep_every_byte() {
    for his in [
        &b"1.2.3.4 # no newline"[..],
        b"1.2.3.4\r\n# \xe9\xff\r\n",
        b"",
        b"\n\n\n",
        b"Include /etc/csf/cpanel.allow\nInclude /etc/csf/csf.allow\n#Include /etc/csf/edgeallow.allow\n",
    ] {
        let mut world = World::new(b"");
        world.files.insert(HIS_ALLOW.into(), his.to_vec());
        sync(&mut world, &want(&NETS, &[80]));
        let with = world.file(HIS_ALLOW).unwrap();
        assert_eq!(super::lists::find(with, ALLOW).good, 1);
        back(&mut world, &Owned::default());
        assert_eq!(world.file(HIS_ALLOW).unwrap(), his);
    }
}

#[test]
fn eacces_on_the_closed_folder_is_no_absence() {
    struct Closed;
    impl Look for Closed {
        fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
            Err(Error::new(ErrorKind::Io, format!("cannot read {}: Permission denied", path.display())))
        }
        fn folder(&self, _: &Path) -> Result<Vec<String>> {
            Ok(vec![])
        }
        fn exists(&self, _: &Path) -> bool {
            false
        }
        fn program(&self, _: &str) -> Option<PathBuf> {
            None
        }
        fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
            panic!("{argv:?}")
        }
        fn may_administer(&self) -> bool {
            true
        }
    }
    let cx = Context { host: &Closed, applied: None, full_check: 1, deep: false, leave_stored: false };
    let Probe::Unusable(e) = backend().probe(&cx) else { panic!("a closed folder passes for no CSF") };
    assert!(e.kind == ErrorKind::NoPrivilege && e.hint.unwrap().contains("CAP_DAC_OVERRIDE"));
}

fn nets() -> impl Strategy<Value = Vec<&'static str>> {
    let all = vec!["173.245.48.0/20", "104.16.0.0/13", "131.0.72.0/22", "2400:cb00::/32", "2606:4700::/32"];
    proptest::sample::subsequence(all, 1..=5)
}

fn ports() -> impl Strategy<Value = Vec<u16>> {
    proptest::sample::subsequence(vec![80, 443, 8443, 2053], 1..=4)
}

fn his_lists() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(b"1.2.3.4 # friend\n".to_vec()),
        Just(b"tcp|in|d=80,443|s=104.16.0.0/13\r\n".to_vec()),
        Just(b"tcp|in|d=443|s=2400:cb00::/32\n".to_vec()),
        Just(b"tcp|out|s=80|d=173.245.48.0/20\n".to_vec()),
        Just(b"# \xff\n".to_vec()),
        Just(b"no newline".to_vec()),
    ];
    proptest::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn what_is_planned_is_reached_from_anywhere_and_back(
        his in his_lists(), loaded: bool, first in nets(), ports1 in ports(), second in nets(), ports2 in ports(),
        cut in 0_usize..8,
    ) {
        let mut world = World::new(&his);
        if !loaded {
            world.loaded.clear();
        }
        let untouched = world.clone();
        sync(&mut world, &want(&first, &ports1));
        let (before, owned) = (world.clone(), look(&world).owned());

        // Cut off anywhere: the next run gets there, and so does the way back.
        let plan = plan_for(&world, &want(&second, &ports2));
        let mut torn = world.clone();
        plan.changes.iter().take(cut).for_each(|c| torn.step(&c.step));
        let mut undone = torn.clone();
        back(&mut undone, &owned);
        prop_assert_eq!(sorted(&undone), sorted(&before));
        sync(&mut torn, &want(&second, &ports2));

        sync(&mut world, &want(&second, &ports2));
        prop_assert_eq!(sorted(&torn), sorted(&world));
        back(&mut world, &Owned::default());
        prop_assert_eq!(sorted(&world), sorted(&untouched));
    }
}

/// Files and rules, but for the sign to lfd and the order of rules, which all accept.
fn sorted(world: &World) -> (BTreeMap<PathBuf, Vec<u8>>, Vec<String>) {
    let mut files = world.files.clone();
    files.remove(Path::new("/var/lib/csf/lfd.restart"));
    let mut rules: Vec<_> = world.rules().into_iter().map(|(way, r)| format!("{way:?} {r}")).collect();
    rules.sort();
    (files, rules)
}
