//! nftables against the real kernel: every test in a network namespace of its own, made by a thread for itself.
//!
//! Without the privilege to make one, or without `nft`, these tests fail and say so: a firewall can't be tested by
//! skipping. Files are a map in memory, so nothing of the machine's own is read or written.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests drive the real nft, and fail by panicking")]

#[path = "support/nft.rs"]
mod support;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use edgeallow::{
    allowlist::{Family, Prefixes},
    backends::{
        Backend, Context, Probe, Verified,
        nftables::{Nftables, NftablesConfig, Owned, Seen},
    },
    error::{Error, ErrorKind, Result},
    host::{Act as _, FileSeen, Look, Machine, Output, netlink},
    nft::{Elements, Interval, NftBatch, NftOp, Ruleset, SetId, SetKind, TableFamily, TableId, Verdict},
    plan::{Check, Desired, Plan, Protocol, Step},
};
use support::{alone, nft};

/// The namespace's kernel, and files in memory.
#[derive(Default)]
struct Host {
    files: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
}

impl Look for Host {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        let seen =
            |text: &Vec<u8>| FileSeen { content: text.clone().into(), mode: 0o644, owner: (0, 0), symlink: false };
        Ok(self.files.borrow().get(path).map(seen))
    }
    fn folder(&self, path: &Path) -> Result<Vec<String>> {
        let files = self.files.borrow();
        let inside = files.keys().filter_map(|p| p.strip_prefix(path).ok()?.iter().next()?.to_str().map(str::to_owned));
        Ok(inside.collect::<BTreeSet<_>>().into_iter().collect())
    }
    fn exists(&self, path: &Path) -> bool {
        self.files.borrow().keys().any(|p| p.starts_with(path))
    }
    fn program(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new("/usr/sbin").join(name))
    }
    fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
        panic!("nothing to run: {argv:?}")
    }
    fn may_administer(&self) -> bool {
        true
    }
    fn nft_generation(&self) -> Result<Option<u32>> {
        netlink::generation()
    }
    fn nft_ruleset(&self) -> Result<Ruleset> {
        netlink::ruleset()
    }
    fn nft_elements(&self, set: &SetId, kind: SetKind) -> Result<Vec<Interval>> {
        netlink::elements(set, kind)
    }
    fn nft_ports(&self, set: &SetId) -> Result<BTreeSet<u16>> {
        netlink::ports(set)
    }
    fn nft_verdicts(&self, map: &SetId) -> Result<Vec<Verdict>> {
        netlink::verdicts(map)
    }
    fn nft_sample(&self, set: &SetId, list: &Prefixes, family: Family, many: usize) -> Result<bool> {
        netlink::sample(set, list, family, many)
    }
}

impl Host {
    fn with(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()));
        Self { files: RefCell::new(files.collect()) }
    }

    fn carry_out(&self, plan: &Plan) {
        for change in &plan.changes {
            match &change.step {
                Step::Nft(batch) => netlink::apply(batch).unwrap(),
                Step::Write(w) => _ = self.files.borrow_mut().insert(w.path.clone(), w.content.to_vec()),
                Step::Remove(r) => _ = self.files.borrow_mut().remove(&r.path),
                Step::Mkdir(_) | Step::Rmdir(_) | Step::Touch(_) => {}
                Step::Run(run) => panic!("{run}"),
            }
        }
    }
}

fn load(script: &str) {
    nft(&["-f", "-"], script).unwrap();
}

fn listing() -> String {
    nft(&["list", "ruleset"], "").unwrap()
}

fn list(nets: &[&str]) -> Arc<Prefixes> {
    Arc::new(nets.iter().map(|n| n.parse().unwrap()).collect())
}

fn want(prefixes: Arc<Prefixes>) -> Desired {
    Desired { prefixes, ports: BTreeSet::from([80, 443]), protocols: BTreeSet::from([Protocol::Tcp]) }
}

fn few() -> Desired {
    want(list(&["104.16.0.0/13", "104.24.0.0/14", "131.0.72.0/22", "2400:cb00::/32", "2606:4700::/32"]))
}

fn context(host: &Host) -> Context<'_> {
    Context { host, applied: None, full_check: 10_000, deep: false, leave_stored: false }
}

fn backend(config: &str) -> Nftables {
    Nftables { config: toml::from_str::<NftablesConfig>(config).unwrap(), named: true }
}

fn plan(b: &Nftables, cx: &Context<'_>, want: &Desired) -> (Seen, Plan) {
    let seen = b.observe(cx).unwrap();
    let to = b.target(want, &seen).unwrap();
    let plan = b.steps(&seen, &to).unwrap();
    (seen, plan)
}

/// One run, and the proof that there is nothing left to do.
fn sync(b: &Nftables, host: &Host, want: &Desired) -> Plan {
    let (_, todo) = plan(b, &context(host), want);
    host.carry_out(&todo);
    let (_, rest) = plan(b, &context(host), want);
    assert!(rest.is_empty(), "left over: {rest:#?}");
    todo
}

fn shown(plan: &Plan) -> String {
    plan.changes.iter().map(|c| c.step.to_string()).collect::<Vec<_>>().join("\n")
}

const NONE: &str = "persist = \"none\"";
const DROPPING: &str = "
    table inet filter {
        chain other { reject; }
        chain input {
            type filter hook input priority filter; policy drop;
            iif lo accept
            tcp dport 22 accept
        }
        chain maps {
            type filter hook input priority 5; policy accept;
            tcp dport vmap { 81 : accept, 82 : jump other }
        }
        chain quiet { type filter hook input priority 6; policy accept; }
        chain forward { type filter hook forward priority filter; policy drop; }
    }
    table ip6 six {
        chain in6 { type filter hook input priority 1; udp dport 9 drop; }
    }
";

#[test]
fn it_attaches_where_packets_are_refused_and_leaves_no_trace() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load(DROPPING);
        let before = listing();
        let Probe::Ready { auto, .. } = b.probe(&context(&host)) else { panic!("not ready") };
        assert_eq!(format!("{auto:?}"), "Yes(\"inet filter input has policy drop\")");

        let first = sync(&b, &host, &few());
        assert_eq!(first.changes.len(), 1, "both families and all tables in one batch");
        let after = listing();
        let rules = after.lines().filter(|l| l.contains("comment \"edgeallow\"")).count();
        assert_eq!(rules, 5, "{after}");
        let v4 = "\t\tip saddr @edgeallow4 tcp dport @edgeallow_ports counter packets 0 bytes 0 accept comment \"edgeallow\"\n";
        let at = after.find("chain input").unwrap();
        assert_eq!(after[at..].lines().nth(2).unwrap(), v4.trim_end());
        assert!(after.contains("elements = { 104.16.0.0/13, 104.24.0.0/14,"), "{after}");

        let seen = b.observe(&context(&host)).unwrap();
        host.carry_out(&b.steps(&seen, &Owned::default()).unwrap());
        assert_eq!(listing(), before);
        let seen = b.observe(&context(&host)).unwrap();
        assert!(b.steps(&seen, &Owned::default()).unwrap().is_empty());
    });
}

#[test]
fn a_change_of_two_ranges_sends_two_ranges() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load(DROPPING);
        sync(&b, &host, &few());
        let changed = want(list(&["104.16.0.0/12", "131.0.72.0/22", "2400:cb00::/32", "2606:4700::/32"]));
        let todo = sync(&b, &host, &changed);
        assert_eq!(
            shown(&todo),
            "nft delete element inet filter edgeallow4 { 104.16.0.0/13, 104.24.0.0/14 }\n\
             nft add element inet filter edgeallow4 { 104.16.0.0/12 }"
        );
        let mut ports = changed.clone();
        ports.ports = BTreeSet::from([443, 8443]);
        let todo = shown(&sync(&b, &host, &ports));
        assert!(todo.starts_with("nft delete element inet filter edgeallow_ports { 80 }"), "{todo}");
        assert!(!todo.contains("rule"), "{todo}");
        ports.protocols = BTreeSet::from([Protocol::Udp, Protocol::Tcp]);
        sync(&b, &host, &ports);
        assert_eq!(listing().matches("udp dport @edgeallow_ports").count(), 5);
    });
}

#[test]
fn undo_leads_back_from_any_step() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load(DROPPING);
        sync(&b, &host, &few());
        let seen = b.observe(&context(&host)).unwrap();
        let (owned, before) = (b.owned(&seen), listing());
        let mut other = want(list(&["1.1.1.0/24", "2400:cb00::/33"]));
        other.ports = BTreeSet::from([25]);
        sync(&b, &host, &other);
        load("delete table ip6 six");
        load("table ip6 six { chain in6 { type filter hook input priority 1; udp dport 9 drop; }\n }");
        let seen = b.observe(&context(&host)).unwrap();
        host.carry_out(&b.steps(&seen, &owned).unwrap());
        assert_eq!(listing(), before);
    });
}

#[test]
fn every_drift_is_healed() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load(DROPPING);
        sync(&b, &host, &few());
        let good = listing();
        for drift in [
            "insert rule inet filter input tcp dport 80 drop",
            "insert rule inet filter input ip saddr @edgeallow4 tcp dport @edgeallow_ports counter accept comment \"edgeallow\"",
            "insert rule inet filter input ip saddr 10.0.0.1 accept comment \"edgeallow\"",
            "delete element inet filter edgeallow4 { 131.0.72.0/22 }",
            "add element inet filter edgeallow4 { 10.0.0.0/8 }",
            "add element inet filter edgeallow4 { 10.0.0.1-10.0.0.5 }",
            "add element inet filter edgeallow_ports { 22 }",
            "flush set inet filter edgeallow6",
            "flush chain inet filter input\nadd rule inet filter input iif lo accept\nadd rule inet filter input tcp dport 22 accept",
            "add table inet stray; add set inet stray edgeallow4 { type ipv4_addr; flags interval; }",
            "add chain inet filter loose; add rule inet filter loose accept comment \"edgeallow\"",
        ] {
            load(drift);
            let (_, todo) = plan(&b, &context(&host), &few());
            assert!(!todo.is_empty(), "not seen: {drift}");
            sync(&b, &host, &few());
        }
        for foreign in ["delete table inet stray", "delete chain inet filter loose"] {
            load(foreign);
        }
        let handle = nft(&["-a", "list", "chain", "inet", "filter", "input"], "").unwrap();
        let his = handle.lines().find(|l| l.contains("tcp dport 80 drop")).unwrap_or_default();
        if let Some(handle) = his.rsplit(' ').next().filter(|h| h.parse::<u64>().is_ok()) {
            load(&format!("delete rule inet filter input handle {handle}"));
        }
        assert_eq!(listing(), good);
    });
}

#[test]
fn a_set_of_another_make_is_made_anew_unless_somebody_uses_it() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load(DROPPING);
        load("add set inet filter edgeallow4 { type ipv4_addr; flags timeout; }");
        load("add set inet filter edgeallow6 { type ipv6_addr; flags interval; timeout 5m; }");
        sync(&b, &host, &few());
        load("add rule inet filter forward ip saddr @edgeallow4 accept");
        let seen = b.observe(&context(&host)).unwrap();
        let error = b.steps(&seen, &Owned::default()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ToolConfig);
        assert!(error.message.contains("chain inet filter forward"), "{error}");
    });
}

#[test]
fn where_nothing_refuses_a_named_backend_has_its_own_table_until_something_does() {
    alone(|| {
        let (host, mut b) = (Host::default(), backend(NONE));
        sync(&b, &host, &few());
        assert!(listing().starts_with("table inet edgeallow {"), "{}", listing());
        load("flush chain inet edgeallow input; delete chain inet edgeallow input");
        sync(&b, &host, &few());
        load(DROPPING);
        let todo = shown(&sync(&b, &host, &few()));
        assert!(todo.starts_with("nft delete table inet edgeallow\n"), "{todo}");
        load("delete table inet filter; delete table ip6 six");
        b.named = false;
        sync(&b, &host, &few());
        assert_eq!(listing(), "");
    });
}

#[test]
fn the_configuration_chooses_the_chains() {
    alone(|| {
        load(DROPPING);
        let host = Host::default();
        sync(&backend(NONE), &host, &few());
        let only = backend("persist = \"none\"\nattach = [\"inet filter quiet\"]");
        sync(&only, &host, &few());
        assert_eq!(listing().matches("comment \"edgeallow\"").count(), 2);
        let wrong = backend("attach = [\"inet filter inputt\"]");
        let seen = wrong.observe(&context(&host)).unwrap();
        let error = wrong.target(&few(), &seen).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::BackendUnusable, "nftables has no chain inet filter inputt")
        );
        assert!(error.hint.unwrap().contains("nft list chains"));
    });
}

#[test]
fn the_ends_of_the_address_space_are_ranges_like_others() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load(DROPPING);
        for nets in [
            &["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"][..],
            &["0.0.0.0/0", "::/0"],
            &["255.255.255.255/32", "0.0.0.0/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "::/128"],
            &["104.16.0.0/13", "104.24.0.0/14", "104.28.0.0/14", "fe00::/9", "fe80::/9"],
            &["240.0.0.0/4", "224.0.0.0/4", "ff00::/8", "fe00::/8"],
        ] {
            sync(&b, &host, &want(list(nets)));
            // What was sent over netlink reads, for nft, as what was meant.
            let text = listing();
            nft(&["-f", "-"], &format!("flush ruleset\n{text}")).unwrap();
            let (_, rest) = plan(&b, &context(&host), &want(list(nets)));
            assert!(rest.is_empty(), "{nets:?} as nft tells and loads it: {}\n{text}", shown(&rest));
        }
    });
}

#[test]
fn a_stale_generation_loses_the_race() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load(DROPPING);
        let (_, todo) = plan(&b, &context(&host), &few());
        load("add table inet meanwhile");
        let before = listing();
        let Step::Nft(batch) = &todo.changes[0].step else { panic!("{todo:?}") };
        assert_eq!(netlink::apply(batch).unwrap_err().kind, ErrorKind::RaceLost);
        assert_eq!(listing(), before);
    });
}

#[test]
fn a_refused_batch_changes_nothing_and_names_the_operation() {
    alone(|| {
        load("table inet t { set s { type ipv4_addr; flags interval; }\n }");
        let before = listing();
        let set = TableId::new(TableFamily::Inet, "t").set("s");
        let some = |net| Elements::Prefixes { of: list(&[net]), family: Family::V4 };
        let batch = NftBatch {
            generation: netlink::generation().unwrap(),
            ops: vec![
                NftOp::AddElements { set: set.clone(), elements: some("10.0.0.0/8") },
                NftOp::DelElements { set, elements: some("11.0.0.0/8") },
            ],
        };
        let error = netlink::apply(&batch).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Netlink);
        assert!(error.message.contains("`nft delete element inet t s { 11.0.0.0/8 }`: No such file"), "{error}");
        assert_eq!(listing(), before);
    });
}

#[test]
fn without_privilege_it_says_so() {
    alone(|| {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective.remove(rustix::thread::CapabilitySet::NET_ADMIN);
        sets.permitted.remove(rustix::thread::CapabilitySet::NET_ADMIN);
        rustix::thread::set_capabilities(None, sets).unwrap();
        let errors: [Error; 2] = [netlink::generation().unwrap_err(), netlink::ruleset().unwrap_err()];
        for error in errors {
            assert_eq!(error.kind, ErrorKind::NoPrivilege);
            assert_eq!(error.hint.unwrap(), "run edgeallow as root");
        }
        let host = Host::default();
        assert!(matches!(backend(NONE).probe(&context(&host)), Probe::Unusable(e) if e.kind == ErrorKind::NoPrivilege));
    });
}

/// `count` IPv4 /28 and as many IPv6 /48 prefixes, no two touching.
fn many(count: u32) -> Arc<Prefixes> {
    let v4 = (0..count).map(|i| ipnet::Ipv4Net::new_assert((0x0b00_0000 + i * 32).into(), 28)).collect();
    let v6 = (0..count).map(|i| ipnet::Ipv6Net::new_assert(((0x2a00_u128 << 112) + (u128::from(i) << 81)).into(), 48));
    Arc::new(Prefixes::new(v4, v6.collect()))
}

#[test]
fn ten_thousand_prefixes_are_one_batch_and_a_difference_of_two_stays_two() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load("table inet f { chain in { type filter hook input priority 0; policy drop; }\n }");
        let all = many(10_000);
        assert_eq!(sync(&b, &host, &want(all.clone())).changes.len(), 1);
        let fewer = Arc::new(Prefixes::new(all.v4()[1..].to_vec(), all.v6()[..9_999].to_vec()));
        let todo = sync(&b, &host, &want(fewer));
        assert_eq!(shown(&todo).matches('/').count(), 2, "{}", shown(&todo));
    });
}

#[test]
fn above_the_limit_it_counts_and_what_does_not_match_is_filled_anew() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load("table inet f { chain in { type filter hook input priority 0; policy drop; }\n }");
        let all = many(300);
        let small = |applied| Context { applied, full_check: 100, ..context(&host) };
        let (_, first) = plan(&b, &small(None), &want(all.clone()));
        host.carry_out(&first);
        let set = TableId::new(TableFamily::Inet, "f").set("edgeallow4");
        let counted = netlink::ruleset().unwrap().tables[0].set("edgeallow4").unwrap().count;

        let (seen, rest) = plan(&b, &small(Some(all.clone())), &want(all.clone()));
        assert!(rest.is_empty(), "{}", shown(&rest));
        assert_eq!(b.verified(&seen), if counted.is_some() { Verified::Count } else { Verified::Sample });
        assert_eq!(b.verified(&b.observe(&Context { deep: true, ..small(None) }).unwrap()), Verified::Full);

        let change = Arc::new(Prefixes::new(all.v4()[5..].to_vec(), all.v6().to_vec()));
        let (_, todo) = plan(&b, &small(Some(all.clone())), &want(change.clone()));
        assert!(shown(&todo).starts_with("nft delete element inet f edgeallow4 { 11.0.0.0/28,"), "{}", shown(&todo));

        load("delete element inet f edgeallow4 { 11.0.0.0/28 }");
        let (_, todo) = plan(&b, &small(Some(all.clone())), &want(all.clone()));
        assert!(shown(&todo).starts_with("nft flush set inet f edgeallow4\n"), "{}", shown(&todo));
        host.carry_out(&todo);
        assert!(plan(&b, &context(&host), &want(all.clone())).1.is_empty());

        assert!(netlink::sample(&set, &all, Family::V4, 64).unwrap());
        let inside = Prefixes::new(vec!["11.0.0.0/29".parse().unwrap()], Vec::new());
        assert!(!netlink::sample(&set, &inside, Family::V4, 64).unwrap(), "a part of an interval is not the interval");
        assert!(!netlink::sample(&set, &list(&["9.0.0.0/8"]), Family::V4, 64).unwrap());
    });
}

/// Loads a plan's test as the engine does, and judges it.
fn rehearse(b: &Nftables, check: &Check, to: &Owned) -> Result<Vec<String>> {
    let Check::NftRehearsal { scripts, .. } = check else { panic!("{check:?}") };
    netlink::in_fresh_netns(|| {
        for script in scripts {
            let text = std::str::from_utf8(script).unwrap();
            nft(&["-f", "-"], text).map_err(|e| Error::new(ErrorKind::LoadTest, e))?;
        }
        let there = Host::with(&[]);
        let there = b.observe(&Context { deep: true, ..context(&there) })?;
        Ok(b.rehearsed(&there, to)?.into_iter().map(|w| w.id).collect())
    })
}

const CONF: &str = "#!/usr/sbin/nft -f\nflush ruleset\n";

fn boots(conf: &str, unit: bool) -> Host {
    let host = Host::with(&[("/etc/nftables.conf", conf)]);
    if unit {
        let mut files = host.files.borrow_mut();
        for path in ["/run/systemd/system/x", "/lib/systemd/system/nftables.service"] {
            files.insert(path.into(), Vec::new());
        }
    }
    host
}

/// What a boot loads: his configuration (without our line), then our files; or with systemd, those that the drop-in names.
fn boot(host: &Host) {
    load("flush ruleset");
    let files = host.files.borrow();
    let text = |path: &Path| String::from_utf8(files[path].clone()).unwrap();
    let conf = text(Path::new("/etc/nftables.conf"));
    let (his, included) = match conf.split_once("include \"/etc/edgeallow") {
        Some((his, _)) => (his.to_owned(), true),
        None => (conf, false),
    };
    let ours: Vec<_> = files.keys().filter(|p| p.starts_with("/etc/edgeallow/nftables")).cloned().collect();
    if included {
        let whole = his + &ours.iter().map(|p| text(p)).collect::<String>();
        load(&whole);
    } else {
        load(&his);
        let drop_in = text(Path::new("/etc/systemd/system/nftables.service.d/edgeallow.conf"));
        for path in ours {
            assert!(drop_in.contains(&format!("ExecStartPost=-/usr/sbin/nft -f {}\n", path.display())), "{drop_in}");
            _ = nft(&["-f", "-"], &text(&path));
        }
    }
}

#[test]
fn what_is_stored_loads_to_exactly_what_is_live() {
    for unit in [false, true] {
        alone(|| {
            let both = DROPPING.to_owned()
                + "table ip four { chain in4 { type filter hook input priority 2; policy drop; }\n }\n";
            let conf = CONF.to_owned() + &both;
            let (host, b) = (boots(conf.trim_end(), unit), backend(""));
            load(&both);
            let mut all = few();
            all.protocols.insert(Protocol::Udp);
            let seen = b.observe(&context(&host)).unwrap();
            let to = b.target(&all, &seen).unwrap();
            let todo = b.steps(&seen, &to).unwrap();
            assert_eq!(rehearse(&b, &todo.checks[0], &to).unwrap(), Vec::<String>::new());
            assert_eq!(todo.activate.len(), usize::from(unit));
            host.carry_out(&todo);
            assert!(plan(&b, &context(&host), &all).1.is_empty());
            let live = listing();
            boot(&host);
            let (_, rest) = plan(&b, &context(&host), &all);
            assert!(rest.is_empty(), "after a boot: {}", shown(&rest));
            assert_eq!(listing(), live);

            let seen = b.observe(&context(&host)).unwrap();
            host.carry_out(&b.steps(&seen, &Owned::default()).unwrap());
            let left: Vec<_> =
                host.files.borrow().keys().filter(|p| p.to_string_lossy().contains("edgeallow")).cloned().collect();
            assert_eq!(left, Vec::<PathBuf>::new());
            assert_eq!(host.files.borrow()[Path::new("/etc/nftables.conf")], conf.trim_end().as_bytes());
        });
    }
}

#[test]
fn the_own_table_is_stored_whole() {
    alone(|| {
        let (host, b) = (boots(CONF, true), backend(""));
        sync(&b, &host, &few());
        boot(&host);
        assert!(plan(&b, &context(&host), &few()).1.is_empty());
        boot(&host);
        assert!(plan(&b, &context(&host), &few()).1.is_empty());
    });
}

#[test]
fn the_administrators_changes_never_keep_his_configuration_from_loading() {
    for unit in [false, true] {
        alone(|| {
            let (host, b) = (boots(&(CONF.to_owned() + DROPPING), unit), backend(""));
            load(DROPPING);
            sync(&b, &host, &few());
            for his in [
                CONF.to_owned(),
                CONF.to_owned()
                    + "table inet renamed { chain input { type filter hook input priority 0; policy drop; }\n }\n",
                DROPPING.to_owned(),
            ] {
                let text = host.files.borrow()[Path::new("/etc/nftables.conf")].clone();
                let text = String::from_utf8(text).unwrap();
                let line =
                    text.lines().rfind(|l| l.starts_with("include")).map(|l| format!("{l}\n")).unwrap_or_default();
                host.files.borrow_mut().insert("/etc/nftables.conf".into(), (his.clone() + &line).into_bytes());
                boot(&host);
            }
        });
    }
}

#[test]
fn a_rehearsal_tells_apart_what_is_whose_fault() {
    alone(|| {
        load(DROPPING);
        let b = backend("");
        let first = |conf: &str| {
            let host = boots(conf, false);
            let seen = b.observe(&context(&host)).unwrap();
            let to = b.target(&few(), &seen).unwrap();
            let plan = b.steps(&seen, &to).unwrap();
            rehearse(&b, &plan.checks[0], &to)
        };
        // Made by hand: his configuration doesn't know the chains.
        assert_eq!(first(CONF).unwrap(), ["chain-not-persisted"; 3]);
        // He saved the live rule set with ours in it.
        let host = Host::default();
        let before = listing();
        sync(&backend(NONE), &host, &few());
        let saved = CONF.to_owned() + &listing();
        assert_eq!(first(&saved).unwrap(), ["rules-saved-twice"; 3]);
        assert_ne!(listing(), before);
        // A configuration of his that clashes with ours.
        let clash = CONF.to_owned() + "table inet filter { set edgeallow4 { type ipv6_addr; }\n }\n";
        assert_eq!(first(&clash).unwrap_err().kind, ErrorKind::LoadTest);
    });
}

#[test]
fn a_table_that_sleeps_is_left_asleep() {
    alone(|| {
        let (host, b) = (Host::default(), backend(""));
        load("table inet fw { flags dormant; chain input { type filter hook input priority 0; policy drop; }\n }");
        let before = listing();
        let Probe::Ready { auto, .. } = b.probe(&context(&host)) else { panic!("not ready") };
        assert!(matches!(auto, edgeallow::backends::Auto::No(_)), "{auto:?}");
        let unnamed = Nftables { named: false, ..backend("") };
        assert!(sync(&unnamed, &host, &few()).is_empty());
        let asked = backend("attach = [\"inet fw input\"]");
        let seen = asked.observe(&context(&host)).unwrap();
        let error = asked.target(&few(), &seen).unwrap_err();
        assert!(error.message.contains("dormant"), "{error}");
        assert_eq!(listing(), before);
        // It was awake when ours went in.
        load("add table inet fw");
        let include = Host::with(&[("/etc/nftables.conf", "table inet fw {\n}\n")]);
        sync(&b, &include, &few());
        load("add table inet fw { flags dormant; }");
        sync(&unnamed, &include, &few());
        assert_eq!(listing(), before);
        assert_eq!(include.files.borrow().len(), 1, "nothing of ours that names it is stored");
    });
}

#[test]
fn exactly_one_backend_takes_a_table_that_looks_like_iptables() {
    use edgeallow::backends::{Auto, iptables::Iptables};
    let yes = |probe: Probe| matches!(probe, Probe::Ready { auto: Auto::Yes(_), .. });
    for (rule, native) in [
        ("", false),
        ("counter accept", false),
        ("tcp dport 22 accept", false),
        ("limit rate 1/second accept", false),
        ("ct state established accept", true),
        ("log prefix \"x\"", true),
        ("limit rate over 1/second drop", true),
        ("reject", true),
        ("tcp dport { 22, 80 } accept", true),
        ("tcp dport vmap { 22 : drop }", true),
        ("fib daddr type local accept", true),
    ] {
        for family in ["ip", "ip6"] {
            alone(|| {
                load(&format!(
                    "table {family} filter {{ chain INPUT {{ type filter hook input priority 0; policy drop; {rule}; }}\n }}"
                ));
                let machine = Machine::new();
                let cx = Context { host: &machine, applied: None, full_check: 9, deep: false, leave_stored: false };
                let (nft, ipt) = (yes(backend(NONE).probe(&cx)), yes(Iptables::default().probe(&cx)));
                assert_eq!((nft, ipt), (native, !native), "{family}: {rule}");
            });
        }
    }
}

#[test]
fn a_chain_of_iptables_in_a_table_that_became_nfts_is_taken_out() {
    use edgeallow::backends::iptables;
    alone(|| {
        load(
            "table ip filter {
                chain EDGEALLOW { ip saddr 104.16.0.0/13 tcp dport 443 counter accept; }
                chain INPUT {
                    type filter hook input priority 0; policy drop;
                    counter jump EDGEALLOW
                    ct state established accept
                }
            }",
        );
        let machine = Machine::new();
        let cx = Context { host: &machine, applied: None, full_check: 9, deep: false, leave_stored: false };
        let b = iptables::Iptables::default();
        let plan = b.steps(&b.observe(&cx).unwrap(), &iptables::Owned::default()).unwrap();
        let Step::Nft(batch) = &plan.changes[0].step else { panic!("{plan:?}") };
        netlink::apply(batch).unwrap();
        assert!(!listing().contains("EDGEALLOW"), "{}", listing());
        assert!(b.steps(&b.observe(&cx).unwrap(), &iptables::Owned::default()).unwrap().is_empty());
        load("add chain ip filter EDGEALLOW; add rule ip filter INPUT tcp dport 22 jump EDGEALLOW");
        let error = b.steps(&b.observe(&cx).unwrap(), &iptables::Owned::default()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ToolConfig);
    });
}

#[test]
fn a_rehearsal_knows_this_machines_interfaces() {
    alone(|| {
        assert!(
            std::process::Command::new("ip").args(["link", "add", "eth0", "type", "veth"]).status().unwrap().success()
        );
        let his = |name: &str| -> Vec<Arc<[u8]>> {
            let chain = "type filter hook input priority 0; policy drop;";
            vec![format!("table inet filter {{ chain input {{ {chain} iif {name} accept; }}\n }}").into_bytes().into()]
        };
        let machine = Machine::new();
        let judged = std::sync::atomic::AtomicUsize::new(0);
        let judge = |_: &dyn Look| {
            judged.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(Vec::new())
        };
        assert_eq!(machine.rehearse(&his("eth0"), 1, &judge).unwrap(), []);
        assert_eq!(judged.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(machine.rehearse(&his("eth7"), 1, &judge).unwrap()[0].id, "rehearsal-incomplete");
        let error = machine.rehearse(&his("} nonsense"), 1, &judge).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ToolConfig);
        assert_eq!(listing(), "");
    });
}

#[test]
fn what_is_chosen_must_be_on_input_and_what_is_left_out_is_named() {
    alone(|| {
        load(DROPPING);
        let host = Host::default();
        let b = backend("persist = \"none\"\nattach = [\"inet filter input\"]");
        sync(&b, &host, &few());
        let warnings = b.warnings(&b.observe(&context(&host)).unwrap());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0].id, "accept-not-final");
        let said = &warnings[0].message;
        assert!(said.contains("inet filter maps, ip6 six in6") && !said.contains("quiet"), "{said}");
        let wrong = backend("attach = [\"inet filter forward\"]");
        let error = wrong.target(&few(), &wrong.observe(&context(&host)).unwrap()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ToolConfig);
        assert!(error.message.contains("inet filter forward") && error.hint.is_some(), "{error}");
    });
}

#[test]
fn a_chain_without_a_hook_that_is_in_his_configuration_is_not_missed() {
    let his = "table inet filter {
        chain sub { tcp dport 22 accept; }
        chain input { type filter hook input priority 0; policy drop; jump sub; }
    }";
    for (config, ids) in [(his, &[][..]), ("", &["chain-not-persisted"])] {
        alone(|| {
            let host = Host::with(&[("/etc/nftables.conf", config)]);
            load(his);
            let b = backend("attach = [\"inet filter sub\"]");
            let (seen, plan) = plan(&b, &context(&host), &few());
            let to = b.target(&few(), &seen).unwrap();
            let Check::NftRehearsal { scripts, his, .. } = &plan.checks[0] else { panic!("{plan:?}") };
            let judge = |there: &dyn Look| {
                let cx = Context { host: there, applied: None, full_check: 10_000, deep: true, leave_stored: false };
                b.rehearsed(&b.observe(&cx)?, &to)
            };
            let warnings = Machine::new().rehearse(scripts, *his, &judge).unwrap();
            assert_eq!(warnings.iter().map(|w| w.id.as_str()).collect::<Vec<_>>(), ids);
        });
    }
}

#[test]
fn a_saved_copy_of_our_rules_is_told_of_when_ours_are_gone() {
    alone(|| {
        let (host, b) = (Host::default(), backend(NONE));
        load(DROPPING);
        sync(&b, &host, &few());
        host.files.borrow_mut().insert("/etc/nftables.conf".into(), listing().into_bytes());
        let ids = || b.warnings(&b.observe(&context(&host)).unwrap()).into_iter().map(|w| w.id).collect::<Vec<_>>();
        assert_eq!(ids(), Vec::<String>::new());
        let seen = b.observe(&context(&host)).unwrap();
        host.carry_out(&b.steps(&seen, &Owned::default()).unwrap());
        assert_eq!(ids(), ["rules-in-configuration"]);
    });
}
