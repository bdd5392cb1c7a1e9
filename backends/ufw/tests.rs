//! Planning as a whole, on a model of ufw: two files, two chains, and what steps do to them.

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use super::{
    Owned, Ufw,
    file::Document,
    live::Live,
    rule::{Allow, chain},
    seen::{Program, Seen, Settings, Side},
    tuple::MARK,
};
use crate::{
    allowlist::{Family, Prefixes},
    backends::{Auto, Backend, iptables::save::split_words},
    plan::{Desired, LockOn, Plan, Protocol, Step},
};

/// A host with ufw.
#[derive(Debug, Clone, PartialEq)]
struct Host {
    /// The rules files.
    files: [Vec<u8>; 2],
    /// The chains, if ufw is active.
    chains: Option<[Vec<Vec<String>>; 2]>,
    ipv6: bool,
    known: bool,
}

fn rules_file(family: Family, blocks: &[&str]) -> Vec<u8> {
    let chain = chain(family);
    format!("*filter\n:{chain} - [0:0]\n### RULES ###\n{}\n### END RULES ###\nCOMMIT\n", blocks.concat()).into_bytes()
}

fn loaded(file: &[u8], family: Family) -> Vec<Vec<String>> {
    let start = format!("-A {} ", chain(family));
    let text = String::from_utf8_lossy(file);
    text.lines().filter_map(|l| l.strip_prefix(&start)).map(split_words).collect()
}

impl Host {
    /// The administrator's rules, IPv4; active or not.
    fn new(blocks: &[&str], active: bool) -> Self {
        let files = [rules_file(Family::V4, blocks), rules_file(Family::V6, &[])];
        let mut host = Self { files, chains: None, ipv6: true, known: true };
        if active {
            host.load();
        }
        host
    }

    /// What `ufw reload` and a boot do.
    fn load(&mut self) {
        self.chains = Some([loaded(&self.files[0], Family::V4), loaded(&self.files[1], Family::V6)]);
    }

    fn look(&self) -> Seen {
        let side = |i: usize, family| {
            let file = Document::parse(self.files[i].as_slice().into(), family);
            let chain = self.chains.as_ref().filter(|_| family == Family::V4 || self.ipv6).map(|c| c[i].clone());
            Side { file, mode: 0o640, chain }
        };
        let policy = "drop".to_owned();
        Seen {
            settings: Settings { enabled: self.chains.is_some(), ipv6: self.ipv6, policy },
            program: Program { version: Some("0.36.2".to_owned()), known: self.known },
            sides: vec![side(0, Family::V4), side(1, Family::V6)],
            ipv6: self.ipv6,
            without_v6: (!self.ipv6).then_some("/etc/default/ufw says IPV6=no"),
        }
    }

    fn plan(&self, want: &Desired) -> Plan {
        let seen = self.look();
        Ufw.steps(&seen, &Ufw.target(want, &seen).unwrap()).unwrap()
    }

    fn plan_to(&self, owned: &Owned) -> Plan {
        Ufw.steps(&self.look(), owned).unwrap()
    }

    /// Carries out so many steps.
    fn run(&mut self, plan: &Plan, most: usize) {
        for change in plan.changes.iter().take(most) {
            match &change.step {
                Step::Write(w) => {
                    let file = usize::from(w.path.ends_with("user6.rules"));
                    assert_eq!(w.was.as_deref(), Some(&self.files[file][..]), "the executor refuses");
                    self.files[file] = w.content.to_vec();
                }
                Step::Run(run) => {
                    let family = usize::from(run.argv[0] == "ip6tables-restore");
                    assert_eq!(run.argv[1..], ["--noflush", "-w", "5"]);
                    let script = String::from_utf8(run.stdin.as_ref().unwrap().to_vec()).unwrap();
                    restore(&mut self.chains.as_mut().unwrap()[family], &script);
                }
                other => panic!("{other}"),
            }
        }
    }

    /// Plans and does everything; the plan.
    fn sync(&mut self, want: &Desired) -> Plan {
        let plan = self.plan(want);
        self.run(&plan, usize::MAX);
        assert_eq!(self.plan(want), Plan::default(), "a second look finds something to do");
        plan
    }

    fn text(&self) -> String {
        String::from_utf8(self.files[0].clone()).unwrap()
    }

    /// What the kernel says to a new connection: the first rule that decides.
    fn open(&self, from: &str, port: u16) -> bool {
        let family = if from.contains(':') { Family::V6 } else { Family::V4 };
        let rules = &self.chains.as_ref().unwrap()[usize::from(family == Family::V6)];
        let address: ipnet::IpNet = from.parse::<std::net::IpAddr>().unwrap().into();
        for rule in rules {
            if let Some(allow) = Allow::read(rule, family) {
                if allow.from.contains(&address) && allow.ports.contains(&port) && allow.protocol == Protocol::Tcp {
                    return true;
                }
            } else {
                let live = Live::of(std::slice::from_ref(rule), family, [], &[]);
                let rule = Allow { from: address, protocol: Protocol::Tcp, ports: vec![port] };
                if live.refused_before(1, &rule) {
                    return false;
                }
            }
        }
        false
    }
}

/// What `iptables-restore --noflush` does with a script of ours.
fn restore(rules: &mut Vec<Vec<String>>, script: &str) {
    let read = |r: &[String]| [Family::V4, Family::V6].map(|f| Allow::read(r, f));
    for line in script.lines() {
        let words = split_words(line);
        match words.first().map(String::as_str) {
            Some("-D") => {
                let at = rules.iter().position(|r| read(r) == read(&words[2..]) && read(r)[0].is_some());
                rules.remove(at.expect("a rule to delete"));
            }
            Some("-I") => rules.insert(words[2].parse::<usize>().unwrap() - 1, words[3..].to_vec()),
            _ => assert!(matches!(line, "*filter" | "COMMIT"), "{line}"),
        }
    }
}

fn want(nets: &[&str], ports: &[u16]) -> Desired {
    let prefixes: Prefixes = nets.iter().map(|n| n.parse::<ipnet::IpNet>().unwrap()).collect();
    Desired {
        prefixes: Arc::new(prefixes),
        ports: ports.iter().copied().collect(),
        protocols: BTreeSet::from([Protocol::Tcp]),
    }
}

const DENY: &str = "\n### tuple ### deny any 443 0.0.0.0/0 any 0.0.0.0/0 in\n\
    -A ufw-user-input -p tcp --dport 443 -j DROP\n-A ufw-user-input -p udp --dport 443 -j DROP\n";
const LIMIT: &str = "\n### tuple ### limit tcp 443 0.0.0.0/0 any 0.0.0.0/0 in\n\
    -A ufw-user-input -p tcp --dport 443 -m conntrack --ctstate NEW -m recent --set\n\
    -A ufw-user-input -p tcp --dport 443 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 -j ufw-user-limit\n\
    -A ufw-user-input -p tcp --dport 443 -j ufw-user-limit-accept\n";
const HIS: &str = "\n### tuple ### allow tcp 80,443 0.0.0.0/0 any 173.245.48.0/20 in\n\
    -A ufw-user-input -p tcp -m multiport --dports 80,443 -s 173.245.48.0/20 -j ACCEPT\n";
const SSH: &str = "\n### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment=68c3b66d\n\
    -A ufw-user-input -p tcp --dport 22 -j ACCEPT\n";

const EDGE: &str = "173.245.48.29";

#[test]
fn ours_go_before_a_deny_and_the_lock_is_ufws() {
    let mut host = Host::new(&[SSH, DENY], true);
    let plan = host.sync(&want(&["173.245.48.0/20", "2400:cb00::/32"], &[80, 443]));
    assert_eq!(plan.locks, [LockOn::Posix("/run/ufw.lock".into())]);
    assert!(plan.changes[0].why.contains("to stand before `deny 443`"), "{}", plan.changes[0].why);
    assert!(host.open(EDGE, 443) && host.open("2400:cb00::9", 443) && !host.open("203.0.113.9", 443));
}

#[test]
fn his_identical_rule_stays_his_and_is_enough_where_nothing_refuses_before_it() {
    for before in [&[][..], &[SSH], &["\n### tuple ### deny any 443 0.0.0.0/0 any 10.0.0.0/8 in\n"]] {
        let host = Host::new(&[before, &[HIS]].concat(), true);
        assert_eq!(host.plan(&want(&["173.245.48.0/20"], &[80, 443])), Plan::default(), "{before:?}");
    }
}

#[test]
fn behind_a_deny_or_limit_his_rule_is_not_enough_and_ours_takes_another_form() {
    for refusal in [DENY, LIMIT] {
        let mut host = Host::new(&[refusal, HIS], true);
        let was = host.clone();
        host.sync(&want(&["173.245.48.0/20"], &[80, 443]));
        // Port 80 he has opened himself.
        assert!(host.text().contains("### tuple ### allow tcp 443 0.0.0.0/0 any 173.245.48.0/20 in comment="));
        assert!(host.text().contains(HIS) && host.open(EDGE, 443) && host.open(EDGE, 80));
        let warnings = Ufw.warnings(&host.look());
        assert_eq!(warnings[0].id, "ufw-allow-behind-refusal");
        let text = &warnings[0].message;
        assert!(
            text.contains("443") && text.contains("`allow from 173.245.48.0/20 to any port 80,443 proto tcp`"),
            "{text}"
        );
        host.run(&host.plan_to(&Owned::default()), usize::MAX);
        assert_eq!(host, was);
    }
}

#[test]
fn where_ufw_would_take_it_for_one_rule_the_port_is_named_twice() {
    let his = HIS.replace("80,443", "443");
    let mut host = Host::new(&[DENY, &his], true);
    host.sync(&want(&["173.245.48.0/20"], &[443]));
    assert!(host.text().contains("### tuple ### allow tcp 443,443 0.0.0.0/0 any 173.245.48.0/20 in comment="));
    assert!(host.open(EDGE, 443));
}

#[test]
fn ours_behind_a_deny_that_came_later_moves_to_the_front() {
    let mut host = Host::new(&[SSH], true);
    let want = want(&["173.245.48.0/20"], &[80, 443]);
    host.sync(&want);
    let text = host.text().replace("### RULES ###\n", &format!("### RULES ###\n{DENY}"));
    host.files[0] = text.into_bytes();
    host.load();
    assert!(!host.open(EDGE, 443));
    host.sync(&want);
    assert!(host.open(EDGE, 443));
}

#[test]
fn a_flushed_chain_gets_ours_back_and_nothing_else() {
    let mut host = Host::new(&[SSH, DENY], true);
    let want = want(&["173.245.48.0/20", "131.0.72.0/22"], &[80, 443]);
    host.sync(&want);
    host.chains.as_mut().unwrap()[0].clear();
    let plan = host.sync(&want);
    assert_eq!(plan.changes.len(), 1, "the file is as it should be");
    assert_eq!(host.chains.as_ref().unwrap()[0].len(), 2);
}

#[test]
fn what_the_kernel_still_holds_of_ours_is_known_again_when_the_file_is_written_anew() {
    let mut host = Host::new(&[SSH, DENY], true);
    let (bare, want) = (host.clone(), want(&["173.245.48.0/20", "131.0.72.0/22"], &[80, 443]));
    host.sync(&want);
    host.files = bare.files.clone();
    let plan = host.sync(&want);
    assert_eq!(plan.changes.len(), 1, "only the file lacks something");
    host.run(&host.plan_to(&Owned::default()), usize::MAX);
    assert_eq!(host, bare);
}

#[test]
fn inactive_means_stored_and_pending() {
    let mut host = Host::new(&[DENY], false);
    assert!(matches!(super::target::auto(&host.look().settings, &[]), Auto::No(_)));
    let plan = host.sync(&want(&["173.245.48.0/20"], &[80, 443]));
    assert!(matches!(plan.changes.as_slice(), [c] if matches!(c.step, Step::Write(_))));
    assert!(Ufw.pending(&host.look()).unwrap().contains("inactive"));
    host.load();
    assert_eq!(Ufw.pending(&host.look()), None);
    assert!(host.open(EDGE, 443));
}

#[test]
fn without_ipv6_only_ipv4_is_told_and_it_is_said() {
    let mut host = Host { ipv6: false, ..Host::new(&[], true) };
    let v6 = host.files[1].clone();
    host.sync(&want(&["173.245.48.0/20", "2400:cb00::/32"], &[80, 443]));
    assert_eq!(host.files[1], v6);
    assert_eq!(Ufw.warnings(&host.look())[0].id, "ipv6-skipped");
}

#[test]
fn a_version_that_we_dont_know_is_told_by_its_own_command() {
    let host = Host { known: false, ..Host::new(&[DENY], true) };
    let plan = host.plan(&want(&["173.245.48.0/20", "131.0.72.0/22", "2400:cb00::/32"], &[80, 443]));
    let shown: Vec<String> = plan.changes.iter().map(|c| c.step.to_string()).collect();
    assert_eq!(
        shown,
        [
            "ufw prepend allow from 173.245.48.0/20 to any port 80,443 proto tcp comment edgeallow",
            "ufw prepend allow from 131.0.72.0/22 to any port 80,443 proto tcp comment edgeallow",
            "ufw prepend allow from 2400:cb00::/32 to any port 80,443 proto tcp comment edgeallow",
        ]
    );
    assert!(plan.locks.is_empty(), "ufw would wait for a lock that we hold");
    let mut synced = Host { known: true, ..host };
    synced.sync(&want(&["173.245.48.0/20"], &[80, 443]));
    let gone = Host { known: false, ..synced }.plan_to(&Owned::default());
    assert_eq!(
        gone.changes[0].step.to_string(),
        "ufw delete allow from 173.245.48.0/20 to any port 80,443 proto tcp comment edgeallow"
    );
}

#[test]
fn many_ports_take_several_rules() {
    let mut host = Host::new(&[], true);
    let ports: Vec<u16> = (1000..1040).collect();
    host.sync(&want(&["173.245.48.0/20"], &ports));
    assert_eq!(host.text().matches(MARK).count(), 3);
}

fn blocks() -> impl Strategy<Value = Vec<&'static str>> {
    let one = prop_oneof![Just(SSH), Just(DENY), Just(LIMIT), Just(HIS)];
    proptest::collection::vec(one, 0..5).prop_map(|mut all| {
        // ufw holds a rule once.
        let mut seen = BTreeSet::new();
        all.retain(|b| seen.insert(*b));
        all
    })
}

fn desired() -> impl Strategy<Value = Desired> {
    let nets = ["173.245.48.0/20", "131.0.72.0/22", "104.16.0.0/13", "2400:cb00::/32", "2606:4700::/32"];
    let nets = proptest::sample::subsequence(nets.to_vec(), 0..=5);
    let ports = proptest::sample::subsequence(vec![80_u16, 443, 8443], 1..=3);
    (nets, ports).prop_map(|(n, p)| want(&n, &p))
}

proptest! {
    #[test]
    fn a_run_leaves_nothing_to_do_and_undoing_leaves_no_trace(
        blocks in blocks(), first in desired(), then in desired(), active in any::<bool>(), cut in 0_usize..8,
    ) {
        let bare = Host::new(&blocks, active);
        let mut host = bare.clone();
        host.sync(&first);
        let (before, owned) = (host.clone(), host.look().owned());
        let plan = host.plan(&then);
        // Cut off anywhere, and undone.
        let mut undone = host.clone();
        undone.run(&plan, cut);
        undone.run(&undone.plan_to(&owned), usize::MAX);
        prop_assert_eq!(undone.plan_to(&owned), Plan::default());
        prop_assert_eq!(&undone, &before);
        // Cut off anywhere, and run again.
        let mut again = host.clone();
        again.run(&plan, cut);
        again.sync(&then);
        again.run(&again.plan_to(&Owned::default()), usize::MAX);
        prop_assert_eq!(&again, &bare);
        // What is wanted is open.
        host.sync(&then);
        if active {
            for net in then.prefixes.iter() {
                for port in &then.ports {
                    prop_assert!(host.open(&net.addr().to_string(), *port), "{} {}", net, port);
                }
            }
        }
        host.run(&host.plan_to(&Owned::default()), usize::MAX);
        prop_assert_eq!(&host, &bare);
    }
}
