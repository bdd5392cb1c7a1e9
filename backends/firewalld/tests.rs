//! The whole backend against a small model of what firewalld does with its files and commands, as seen on 1.3.3.

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
    live::{Holder, Live},
    rule::set_name,
    seen::{policy_path, set_path, zone_path},
    *,
};
use crate::{
    allowlist::Family,
    error::ErrorKind,
    host::{FileSeen, Look, Output},
    nft::{Chain, Expr, Interval, Ruleset, Set, SetId, SetKind, Table, TableFamily, TableId, Verdict},
    plan::Protocol,
};

const PUBLIC: &str =
    "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<zone>\n  <short>Public</short>\n  <service name=\"ssh\"/>\n</zone>\n";

/// A machine with firewalld.
#[derive(Debug, Clone, Default, PartialEq)]
struct World {
    files: BTreeMap<PathBuf, Vec<u8>>,
    running: bool,
    /// What firewalld believes to be loaded, and what is.
    believed: Live,
    kernel: Live,
    asked: RefCell<Vec<String>>,
}

impl World {
    fn new(running: bool) -> Self {
        let mut world = Self { running, ..Self::default() };
        let zone = |name: &str| format!("/usr/lib/firewalld/zones/{name}.xml");
        for (path, text) in [
            (zone("public"), PUBLIC),
            ("/usr/lib/firewalld/policies/allow-host-ipv6.xml".into(), "<policy/>"),
            ("/etc/firewalld/firewalld.conf".into(), "DefaultZone=public\nFlushAllOnReload=yes\n"),
            ("/etc/firewalld/zones/home.xml".into(), "<zone><service name=\"ssh\"/></zone>"),
            ("/proc/net/if_inet6".into(), ""),
            ("/proc/7/stat".into(), "7 (firewalld) Z 1 7\n"),
        ] {
            world.write(&path, text);
        }
        if running {
            world.write("/proc/8/stat", "8 (firewalld) S 1 8\n");
        }
        world
    }

    fn write(&mut self, path: &str, text: &str) {
        self.files.insert(path.into(), text.as_bytes().to_vec());
    }

    fn flush_all(&self) -> bool {
        !String::from_utf8_lossy(&self.files[Path::new("/etc/firewalld/firewalld.conf")]).contains("Reload=no")
    }

    /// What the files say.
    fn stored(&self) -> Live {
        let mut live = Live::default();
        for family in Family::BOTH {
            if let Some(text) = self.files.get(&set_path(family)) {
                live.sets.insert(family, xml::entries(text).into_iter().collect());
            }
        }
        if let Some(text) = self.files.get(&policy_path()) {
            live.rules.insert(Holder::Policy, xml::rules(text).unwrap());
        }
        for zone in ["public", "home"] {
            let rules = self.files.get(&zone_path(zone)).map(|t| xml::rules(t).unwrap()).unwrap_or_default();
            if !rules.is_empty() {
                live.rules.insert(Holder::Zone(zone.to_owned()), rules);
            }
        }
        live
    }

    fn reload(&mut self) {
        let mut next = self.stored();
        for rule in next.rules.values().flatten() {
            assert!(next.sets.contains_key(&rule.family), "INVALID_IPSET: the rule set is empty now");
        }
        if !self.flush_all() {
            for (family, nets) in &self.believed.sets {
                next.sets.entry(*family).or_default().extend(nets);
            }
        }
        (self.believed, self.kernel) = (next.clone(), next);
    }

    fn carry_out(&mut self, plan: &Plan, many: usize) {
        for change in plan.changes.iter().take(many) {
            match &change.step {
                Step::Write(w) => {
                    assert_eq!(self.files.get(&w.path).map(Vec::as_slice), w.was.as_deref(), "{}", w.path.display());
                    self.files.insert(w.path.clone(), w.content.to_vec());
                }
                Step::Remove(r) => assert_eq!(self.files.remove(&r.path).as_deref(), Some(&*r.was)),
                Step::Mkdir(_) => {}
                Step::Run(run) => self.firewall_cmd(&run.argv[1..]),
                other => panic!("no such step in this backend: {other:?}"),
            }
            // At no moment may firewalld find a rule without its set: after a boot all would be open.
            let stored = self.stored();
            assert!(stored.rules.values().flatten().all(|r| stored.sets.contains_key(&r.family)), "{}", change.step);
        }
    }

    fn firewall_cmd(&mut self, args: &[String]) {
        assert!(self.running, "FirewallD is not running");
        if args == ["--reload"] {
            return self.reload();
        }
        for arg in &args[1..] {
            let (verb, value) = arg.split_once('=').unwrap();
            if let Some(name) = args[0].strip_prefix("--ipset=") {
                let family = Family::BOTH.into_iter().find(|f| set_name(*f) == name).unwrap();
                let net: IpNet = value.parse().unwrap();
                for live in [&mut self.believed, &mut self.kernel] {
                    let set = live.sets.get_mut(&family).expect("INVALID_IPSET");
                    if verb == "--add-entry" {
                        assert!(
                            !set.iter().any(|n| n.contains(&net) || net.contains(n)),
                            "INVALID_ENTRY {net} {set:?}"
                        );
                        set.insert(net);
                    } else {
                        assert!(set.remove(&net), "NOT_ENABLED {net}");
                    }
                }
                continue;
            }
            let holder = match args[0].strip_prefix("--zone=") {
                Some(zone) => Holder::Zone(zone.to_owned()),
                None => Holder::Policy,
            };
            let rule = rules().into_iter().find(|r| r.to_string() == value).unwrap_or_else(|| panic!("{value}"));
            for live in [&mut self.believed, &mut self.kernel] {
                if holder == Holder::Policy {
                    assert!(live.rules.contains_key(&holder), "INVALID_POLICY");
                }
                let rules = live.rules.entry(holder.clone()).or_default();
                let changed = if verb == "--add-rich-rule" { rules.insert(rule) } else { rules.remove(&rule) };
                assert!(changed, "{verb} {value}");
                live.rules.retain(|h, rules| *h == Holder::Policy || !rules.is_empty());
            }
        }
    }

    fn table(&self) -> Table {
        let rule = |exprs| crate::nft::Rule { handle: 0, comment: None, exprs };
        let chain = |name: &str, rules| Chain { name: name.to_owned(), hooked: None, rules };
        let jump = |to: &str| rule(vec![Expr::Counter, Expr::Verdict(Verdict::Jump(to.to_owned()))]);
        let loaded = |rules: Option<&BTreeSet<Rule>>| {
            rules.into_iter().flatten().map(|r| rule(rule::exprs(*r))).collect::<Vec<_>>()
        };
        let public = self.kernel.rules.get(&Holder::Zone("public".to_owned()));
        let mut chains = vec![chain("filter_IN_public_allow", loaded(public))];
        let mut pre = vec![jump("filter_IN_policy_allow-host-ipv6")];
        if let Some(rules) = self.kernel.rules.get(&Holder::Policy) {
            let ours = "filter_IN_policy_edgeallow";
            pre.push(jump(ours));
            chains.push(chain(ours, vec![jump(&format!("{ours}_pre")), jump(&format!("{ours}_allow"))]));
            chains.push(chain(&format!("{ours}_pre"), vec![]));
            chains.push(chain(&format!("{ours}_allow"), loaded(Some(rules))));
        }
        chains.push(chain("filter_INPUT_POLICIES_pre", pre));
        let set = |family: &Family| {
            let kind = SetKind::from(*family);
            let (flags, key_type, key_len) = (kind.flags(), kind.key_type(), kind.key_len());
            Set { name: set_name(*family).to_owned(), flags, key_type, key_len, expires: false, count: None }
        };
        let sets = self.kernel.sets.keys().map(set).collect();
        Table { id: TableId::new(TableFamily::Inet, "firewalld"), owned: false, dormant: false, chains, sets }
    }
}

impl Look for World {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        Ok(self.files.get(path).map(|text| FileSeen {
            content: text.clone().into(),
            mode: 0o644,
            owner: (0, 0),
            symlink: false,
        }))
    }
    fn folder(&self, path: &Path) -> Result<Vec<String>> {
        let inside =
            self.files.keys().filter_map(|p| p.strip_prefix(path).ok()?.iter().next()?.to_str().map(str::to_owned));
        Ok(inside.collect::<BTreeSet<_>>().into_iter().collect())
    }
    fn exists(&self, path: &Path) -> bool {
        self.files.keys().any(|p| p.starts_with(path))
    }
    fn program(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new("/usr/bin").join(name))
    }
    fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
        assert!(crate::host::look_only::is_look_only(argv), "{argv:?}");
        self.asked.borrow_mut().push(argv.join(" "));
        let text = match argv {
            ["firewall-cmd", set, "--get-entries"] => {
                let family = Family::BOTH.into_iter().find(|f| set.ends_with(set_name(*f))).unwrap();
                self.believed.sets.get(&family).into_iter().flatten().map(|n| format!("{n}\n")).collect()
            }
            ["firewall-cmd", holder, "--list-rich-rules"] => {
                let rules = self.believed.rules.iter().filter(|(h, _)| h.option() == *holder).flat_map(|(_, r)| r);
                rules.map(|r| format!("{r}\n")).collect()
            }
            _ => String::new(),
        };
        Ok(Output { status: Some(0), stdout: text.into_bytes(), stderr: vec![] })
    }
    fn may_administer(&self) -> bool {
        true
    }
    fn nft_ruleset(&self) -> Result<Ruleset> {
        Ok(Ruleset { tables: if self.running { vec![self.table()] } else { vec![] } })
    }
    fn nft_elements(&self, set: &SetId, _: SetKind) -> Result<Vec<Interval>> {
        let (_, nets) = self.kernel.sets.iter().find(|(f, _)| set_name(**f) == set.name).unwrap();
        let interval = |n: &IpNet| match n {
            IpNet::V4(n) => Interval { first: u32::from(n.network()).into(), last: u32::from(n.broadcast()).into() },
            IpNet::V6(n) => Interval { first: n.network().into(), last: n.broadcast().into() },
        };
        Ok(nets.iter().map(interval).collect())
    }
}

/// Every rule that these tests use.
fn rules() -> Vec<Rule> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            out.extend([80, 443, 8443].map(|port| Rule { family, protocol, port }));
        }
    }
    out
}

fn cx(world: &World) -> Context<'_> {
    Context { host: world, applied: None, full_check: 10_000, deep: false, leave_stored: false }
}

fn want(nets: &[&str], ports: &[u16]) -> Desired {
    Desired {
        prefixes: Arc::new(nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect()),
        ports: ports.iter().copied().collect(),
        protocols: BTreeSet::from([Protocol::Tcp]),
    }
}

fn usual() -> Desired {
    want(&["173.245.48.0/20", "104.16.0.0/13", "104.24.0.0/14", "2400:cb00::/32"], &[80, 443])
}

fn backend(method: Method) -> Firewalld {
    Firewalld { config: FirewalldConfig { method, ..FirewalldConfig::default() }, named: false }
}

fn plan(backend: &Firewalld, world: &World, want: Option<&Desired>) -> Plan {
    let seen = backend.observe(&cx(world)).unwrap();
    let to = want.map_or_else(Owned::default, |want| backend.target(want, &seen).unwrap());
    backend.steps(&seen, &to).unwrap()
}

/// Plans, carries out, and finds nothing left to plan.
fn bring(backend: &Firewalld, world: &mut World, want: Option<&Desired>) -> Plan {
    let done = plan(backend, world, want);
    world.carry_out(&done, usize::MAX);
    let left = plan(backend, world, want);
    assert!(left.is_empty(), "left {left:#?}\nafter {done:#?}");
    done
}

fn reloads(plan: &Plan) -> usize {
    plan.changes.iter().filter(|c| c.step == Step::Run(steps::reload())).count()
}

#[test]
fn the_first_run_stores_sets_then_rules_and_reloads_once() {
    let mut world = World::new(true);
    let done = bring(&backend(Method::Auto), &mut world, Some(&usual()));
    let shown: Vec<_> = done.changes.iter().map(|c| c.step.to_string()).collect();
    assert_eq!(
        shown,
        [
            "mkdir -p /etc/firewalld/ipsets",
            "mkdir -p /etc/firewalld/policies",
            "create /etc/firewalld/ipsets/edgeallow-v4.xml",
            "create /etc/firewalld/ipsets/edgeallow-v6.xml",
            "create /etc/firewalld/policies/edgeallow.xml",
            "firewall-cmd --reload"
        ]
    );
    assert_eq!(world.kernel.rules[&Holder::Policy].len(), 4);
}

#[test]
fn nothing_to_do_asks_nobody() {
    for method in [Method::Policy, Method::Zone] {
        let mut world = World::new(true);
        bring(&backend(method), &mut world, Some(&usual()));
        world.asked.borrow_mut().clear();
        assert!(plan(&backend(method), &world, Some(&usual())).is_empty());
        assert!(world.asked.borrow().is_empty(), "{:?}", world.asked);
    }
}

#[test]
fn entries_and_ports_change_without_a_reload_additions_first() {
    for method in [Method::Policy, Method::Zone] {
        let mut world = World::new(true);
        bring(&backend(method), &mut world, Some(&usual()));
        let next = want(&["173.245.48.0/20", "104.16.0.0/13", "9.9.9.0/24", "2400:cb00::/32"], &[443, 8443]);
        let done = bring(&backend(method), &mut world, Some(&next));
        assert_eq!(reloads(&done), 0, "{done:#?}");
        let runs: Vec<_> =
            done.changes.iter().filter(|c| matches!(c.step, Step::Run(_))).map(|c| c.step.to_string()).collect();
        assert_eq!(runs[0], "firewall-cmd --ipset=edgeallow-v4 --add-entry=9.9.9.0/24");
        assert!(runs[1].contains("--add-rich-rule") && runs[1].contains("port=\"8443\""), "{runs:?}");
        assert_eq!(runs[2], "firewall-cmd --ipset=edgeallow-v4 --remove-entry=104.24.0.0/14");
        assert!(runs[3].contains("--remove-rich-rule") && runs[3].contains("port=\"80\""), "{runs:?}");
    }
}

#[test]
fn a_split_prefix_cannot_be_added_beside_the_old_one_and_is_reloaded() {
    let mut world = World::new(true);
    bring(&backend(Method::Auto), &mut world, Some(&want(&["104.16.0.0/12", "2400:cb00::/32"], &[443])));
    let done = bring(&backend(Method::Auto), &mut world, Some(&want(&["104.16.0.0/13", "2400:cb00::/32"], &[443])));
    assert_eq!(reloads(&done), 1);
}

#[test]
fn what_firewalld_believes_otherwise_is_reloaded() {
    let mut world = World::new(true);
    bring(&backend(Method::Auto), &mut world, Some(&usual()));
    // Somebody deletes an element by nft: firewalld would answer ALREADY_ENABLED to every addition.
    world.kernel.sets.get_mut(&Family::V4).unwrap().pop_first();
    let done = bring(&backend(Method::Auto), &mut world, Some(&usual()));
    assert_eq!((reloads(&done), done.changes.len()), (1, 1));
    assert!(!world.asked.borrow().is_empty());
    // The same told to firewalld takes one call.
    let gone = *world.kernel.sets[&Family::V4].first().unwrap();
    world.firewall_cmd(&["--ipset=edgeallow-v4".to_owned(), format!("--remove-entry={gone}")]);
    assert_eq!(reloads(&bring(&backend(Method::Auto), &mut world, Some(&usual()))), 0);
}

#[test]
fn removal_takes_the_policy_then_the_sets_then_reloads() {
    let (before, mut world) = (World::new(true), World::new(true));
    bring(&backend(Method::Auto), &mut world, Some(&usual()));
    let done = bring(&backend(Method::Auto), &mut world, None);
    let shown: Vec<_> = done.changes.iter().map(|c| c.step.to_string()).collect();
    assert_eq!(
        shown,
        [
            "rm /etc/firewalld/policies/edgeallow.xml",
            "rm /etc/firewalld/ipsets/edgeallow-v4.xml",
            "rm /etc/firewalld/ipsets/edgeallow-v6.xml",
            "firewall-cmd --reload"
        ]
    );
    assert_eq!((&world.files, &world.kernel), (&before.files, &before.kernel));
}

#[test]
fn a_set_that_his_zone_uses_stays_empty() {
    let mut world = World::new(true);
    bring(&backend(Method::Auto), &mut world, Some(&usual()));
    world.write("/etc/firewalld/zones/home.xml", "<zone><source ipset=\"edgeallow-v4\"/></zone>");
    bring(&backend(Method::Auto), &mut world, None);
    assert_eq!(xml::entries(&world.files[&set_path(Family::V4)]), []);
    assert!(!world.files.contains_key(&set_path(Family::V6)));
    let seen = backend(Method::Auto).observe(&cx(&world)).unwrap();
    assert_eq!(seen.owned(), Owned::default());
    assert_eq!(target::warnings(&seen)[0].id, "set-held");
}

#[test]
fn a_firewalld_that_does_not_run_is_stored_for_and_pending() {
    let mut world = World::new(false);
    let named = Firewalld { named: true, ..backend(Method::Auto) };
    assert!(plan(&backend(Method::Auto), &world, Some(&usual())).is_empty(), "not named, and nothing stored");
    let done = bring(&named, &mut world, Some(&usual()));
    assert!(!done.changes.iter().any(|c| matches!(c.step, Step::Run(_))));
    let seen = named.observe(&cx(&world)).unwrap();
    assert!(named.pending(&seen).is_some());
    assert!(matches!(backend(Method::Auto).probe(&cx(&world)), Probe::Ready { auto: Auto::Yes(_), .. }));
    // Once stored it is kept up to date, named or not.
    let next = want(&["9.9.9.0/24", "2400:cb00::/32"], &[443]);
    assert_eq!(bring(&backend(Method::Auto), &mut world, Some(&next)).changes.len(), 2);
    bring(&backend(Method::Auto), &mut world, None);
    assert_eq!(world.files, World::new(false).files);
}

#[test]
fn without_policies_the_default_zone_gets_the_rules() {
    let mut world = World::new(true);
    world.files.remove(Path::new("/usr/lib/firewalld/policies/allow-host-ipv6.xml"));
    let before = world.clone();
    bring(&backend(Method::Auto), &mut world, Some(&usual()));
    assert!(!world.files.contains_key(&policy_path()));
    assert_eq!(world.kernel.rules[&Holder::Zone("public".to_owned())].len(), 4);
    // The default zone becomes another one: the rules move.
    world.write("/etc/firewalld/firewalld.conf", "DefaultZone=home\n");
    bring(&backend(Method::Auto), &mut world, None);
    world.write("/etc/firewalld/firewalld.conf", "DefaultZone=public\nFlushAllOnReload=yes\n");
    assert_eq!(world.files, before.files);
    let refused = backend(Method::Policy);
    let seen = refused.observe(&cx(&world)).unwrap();
    assert_eq!(refused.target(&usual(), &seen).unwrap_err().kind, ErrorKind::BackendUnusable);
}

#[test]
fn a_firewalld_that_keeps_its_runtime_is_emptied_by_hand() {
    let mut world = World::new(true);
    world.write("/etc/firewalld/firewalld.conf", "FlushAllOnReload=no\n");
    bring(&backend(Method::Auto), &mut world, Some(&usual()));
    bring(&backend(Method::Auto), &mut world, None);
    assert!(world.kernel.rules.is_empty() && world.kernel.sets.values().all(BTreeSet::is_empty));
}

#[test]
fn a_rule_whose_ipset_is_missing_forbids_the_reload() {
    let mut world = World::new(true);
    let rule = "<zone><rule family=\"ipv4\"><source ipset=\"gone\"/><accept/></rule></zone>";
    world.write("/etc/firewalld/zones/home.xml", rule);
    let backend = backend(Method::Auto);
    let seen = backend.observe(&cx(&world)).unwrap();
    let planned = plan(&backend, &world, Some(&usual()));
    let refused = backend.before(&cx(&world), &seen, &planned).unwrap_err();
    assert!(refused.kind == ErrorKind::ToolConfig && refused.message.contains("gone"), "{refused}");
    world.write("/usr/lib/firewalld/ipsets/gone.xml", "<ipset type=\"hash:net\"/>");
    backend.before(&cx(&world), &seen, &planned).unwrap();
}

#[test]
fn the_version_is_read_from_its_own_file() {
    let mut world = World::new(true);
    assert_eq!(seen::version(&world), None);
    world.write("/usr/lib/python3.9/site-packages/firewall/config/__init__.py", "X = 1\nVERSION = '1.3.4'\n");
    assert_eq!(seen::version(&world).as_deref(), Some("1.3.4"));
}

fn any_want() -> impl Strategy<Value = Desired> {
    let nets = ["173.245.48.0/20", "104.16.0.0/12", "104.16.0.0/13", "104.24.0.0/14", "9.9.9.0/24"];
    let v6 = ["2400:cb00::/32", "2606:4700::/32", "2606:4700::/29"];
    let four = proptest::sample::subsequence(nets.to_vec(), 1..4);
    let six = proptest::sample::subsequence(v6.to_vec(), 0..3);
    let ports = proptest::sample::subsequence(vec![80, 443, 8443], 1..=3);
    (four, six, ports).prop_map(|(four, six, ports)| want(&[four, six].concat(), &ports))
}

proptest! {
    #[test]
    fn every_road_leads_there_and_back(
        first in any_want(),
        second in any_want(),
        running: bool,
        zone: bool,
        flush_all: bool,
        starts in any::<bool>(),
        cut in 0..8_usize,
        tampered: bool,
    ) {
        let backend = Firewalld { named: true, ..backend(if zone { Method::Zone } else { Method::Policy }) };
        let mut world = World::new(running);
        if !flush_all {
            world.write("/etc/firewalld/firewalld.conf", "DefaultZone=public\nFlushAllOnReload=no\n");
        }
        let files = world.files.clone();
        bring(&backend, &mut world, Some(&first));
        if starts && !running {
            world.running = true;
            world.write("/proc/8/stat", "8 (firewalld) S 1 8\n");
            world.reload();
        }
        if tampered && world.running {
            world.kernel.rules.values_mut().for_each(|rules| {
                rules.pop_first();
            });
            world.kernel.rules.retain(|h, rules| *h == Holder::Policy || !rules.is_empty());
            bring(&backend, &mut world, Some(&first));
        }
        // Cut off anywhere, undone, and done again.
        let before = backend.observe(&cx(&world)).unwrap().owned();
        let planned = plan(&backend, &world, Some(&second));
        world.carry_out(&planned, cut);
        let mut undone = false;
        for _ in 0..3 {
            let seen = backend.observe(&cx(&world)).unwrap();
            let back = backend.steps(&seen, &before).unwrap();
            undone = back.is_empty();
            world.carry_out(&back, usize::MAX);
        }
        prop_assert!(undone);
        prop_assert_eq!(&backend.observe(&cx(&world)).unwrap().owned(), &before);
        bring(&backend, &mut world, Some(&second));
        if world.running {
            // A set that such a firewalld doesn't forget is left empty.
            let mut kernel = world.kernel.clone();
            kernel.sets.retain(|_, nets| flush_all || !nets.is_empty());
            prop_assert_eq!(&kernel, &world.stored());
        }
        bring(&backend, &mut world, None);
        world.files.retain(|p, _| files.contains_key(p) || !p.starts_with("/proc"));
        prop_assert_eq!(&world.files, &files);
    }
}
