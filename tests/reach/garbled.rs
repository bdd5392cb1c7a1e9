//! Answers that are cut off, garbled or of a kind that nobody expects: no panic, and never "accepted".
//!
//! The answers are those that the real programs give on hosts whose policy drops. Each is then damaged in many ways; what is
//! made of the damaged ones may be "refused" or "unknown". Damage that turns a rule into another valid one is left out.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use edgeallow::{
    allowlist::Prefixes,
    engine::picture,
    error::{Error, ErrorKind, Result},
    host::{FileSeen, Look, Machine, Output},
    nft::Ruleset,
    plan::Protocol,
    reach::{Facts, Interface, Judgement, Picture, Probe, Sources, walk},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    lab::{Lab, SERVER4, SERVER6},
    oracle::inside::Inside,
};

/// How often the answers of one host are damaged.
const TIMES: u32 = if cfg!(feature = "thorough") { 20_000 } else { 1_500 };

/// What a host answered while the picture was taken.
#[derive(Default, Clone)]
struct Answers {
    files: RefCell<HashMap<PathBuf, Option<FileSeen>>>,
    there: RefCell<HashMap<PathBuf, bool>>,
    programs: RefCell<HashMap<String, Option<PathBuf>>>,
    said: RefCell<HashMap<Vec<String>, Output>>,
    rules: RefCell<Ruleset>,
}

/// Writes down what a host answers.
struct Recorder {
    host: Inside,
    answers: Answers,
}

impl Look for Recorder {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        let seen = self.host.file(path)?;
        self.answers.files.borrow_mut().insert(path.to_owned(), seen.clone());
        Ok(seen)
    }

    fn folder(&self, path: &Path) -> Result<Vec<String>> {
        self.host.folder(path)
    }

    fn exists(&self, path: &Path) -> bool {
        let is = self.host.exists(path);
        self.answers.there.borrow_mut().insert(path.to_owned(), is);
        is
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.host.program(name);
        self.answers.programs.borrow_mut().insert(name.to_owned(), path.clone());
        path
    }

    fn run(&self, argv: &[&str], timeout: Duration) -> Result<Output> {
        let output = self.host.run(argv, timeout)?;
        self.answers.said.borrow_mut().insert(argv.iter().map(|w| (*w).to_owned()).collect(), output.clone());
        Ok(output)
    }

    fn may_administer(&self) -> bool {
        true
    }

    fn nft_generation(&self) -> Result<Option<u32>> {
        self.host.nft_generation()
    }

    fn nft_ruleset(&self) -> Result<Ruleset> {
        let rules = self.host.nft_ruleset()?;
        *self.answers.rules.borrow_mut() = rules.clone();
        Ok(rules)
    }
}

impl Look for Answers {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        Ok(self.files.borrow().get(path).cloned().flatten())
    }

    fn folder(&self, _path: &Path) -> Result<Vec<String>> {
        Ok(vec![])
    }

    fn exists(&self, path: &Path) -> bool {
        self.there.borrow().get(path).copied().unwrap_or_default()
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        self.programs.borrow().get(name).cloned().flatten()
    }

    fn run(&self, argv: &[&str], _timeout: Duration) -> Result<Output> {
        let argv: Vec<String> = argv.iter().map(|w| (*w).to_owned()).collect();
        let unasked = || Error::new(ErrorKind::Program, format!("{} wasn't asked then", argv.join(" ")));
        self.said.borrow().get(&argv).cloned().ok_or_else(unasked)
    }

    fn may_administer(&self) -> bool {
        true
    }

    fn nft_generation(&self) -> Result<Option<u32>> {
        Ok(Some(1))
    }

    fn nft_ruleset(&self) -> Result<Ruleset> {
        Ok(self.rules.borrow().clone())
    }
}

/// One way to damage an answer. Places are counted modulo what there is.
#[derive(Debug, Clone)]
enum Damage {
    /// It ends here.
    Cut(usize),
    /// Something else stands here instead of as many bytes.
    Overwrite(usize, Vec<u8>),
    /// Something stands here as well.
    Insert(usize, Vec<u8>),
    /// A line is missing, or an object of nft's.
    Lose(usize),
    /// A value of the JSON is another, of a kind that nobody expects.
    Replace(usize, Value),
    /// A name in the JSON is another.
    Rename(usize),
    /// A name in the JSON is missing, with what belongs to it.
    Forget(usize),
    /// The program says that it failed.
    Fail(Option<i32>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = || any::<usize>();
    // Nothing that could be an address, a port, a verdict or a `!`, which makes another valid rule.
    let junk = || proptest::collection::vec(prop::sample::select(b"~#{}[]\"'\\\0\xff\xc3 \n:;,@".to_vec()), 1..9);
    let deep = (0..200).fold(json!(0), |inner, _| json!([inner]));
    let odd = prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!("frobnicate"),
        json!(""),
        json!("@"),
        json!([]),
        json!({}),
        json!({"frobnicate": {"x": 1}}),
        json!({"set": []}),
        json!([[null]]),
        json!({"prefix": {"addr": 1}}),
        json!({"range": [2, 1]}),
        json!({"concat": []}),
        json!({"&": ["x", 0]}),
        deep,
    ]);
    prop_oneof![
        2 => place().prop_map(Damage::Cut),
        3 => (place(), junk()).prop_map(|(at, with)| Damage::Overwrite(at, with)),
        2 => (place(), junk()).prop_map(|(at, with)| Damage::Insert(at, with)),
        2 => place().prop_map(Damage::Lose),
        6 => (place(), odd).prop_map(|(at, with)| Damage::Replace(at, with)),
        2 => place().prop_map(Damage::Rename),
        2 => place().prop_map(Damage::Forget),
        1 => prop::sample::select(vec![None, Some(1), Some(139)]).prop_map(Damage::Fail),
    ]
}

impl Damage {
    fn to(&self, output: &mut Output) {
        let text = &mut output.stdout;
        let end = text.len().max(1);
        match self {
            Self::Cut(at) => text.truncate(at % end),
            Self::Overwrite(at, with) => {
                let at = (at % end).min(text.len());
                let to = (at + with.len()).min(text.len());
                text.splice(at..to, with.iter().copied());
            }
            Self::Insert(at, with) => {
                let at = (at % end).min(text.len());
                text.splice(at..at, with.iter().copied());
            }
            Self::Fail(status) => output.status = *status,
            Self::Lose(at) => match serde_json::from_slice::<Value>(text) {
                Ok(mut json) => {
                    if let Some(all) = json["nftables"].as_array_mut().filter(|all| !all.is_empty()) {
                        all.remove(at % all.len());
                    }
                    *text = json.to_string().into_bytes();
                }
                Err(_) => {
                    let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
                    if lines.is_empty() {
                        return;
                    }
                    let lost = at % lines.len();
                    *text =
                        lines.iter().enumerate().filter(|(n, _)| *n != lost).flat_map(|(_, l)| l.to_vec()).collect();
                }
            },
            Self::Replace(at, _) | Self::Rename(at) | Self::Forget(at) => {
                let Ok(mut json) = serde_json::from_slice::<Value>(text) else { return };
                let mut left = at % count(&json).max(1);
                self.inside(&mut json, &mut left);
                *text = json.to_string().into_bytes();
            }
        }
    }

    /// Damages the value that so many others come before; whether it did.
    fn inside(&self, json: &mut Value, left: &mut usize) -> bool {
        match json {
            Value::Object(map) => {
                for key in map.keys().cloned().collect::<Vec<_>>() {
                    if *left == 0 {
                        let value = map.remove(&key).unwrap_or_default();
                        match self {
                            Self::Replace(_, with) => drop(map.insert(key, with.clone())),
                            Self::Rename(_) => drop(map.insert(format!("{key}x"), value)),
                            _ => {}
                        }
                        return true;
                    }
                    *left -= 1;
                    if map.get_mut(&key).is_some_and(|value| self.inside(value, left)) {
                        return true;
                    }
                }
                false
            }
            Value::Array(list) => list.iter_mut().any(|value| {
                if *left == 0 {
                    if let Self::Replace(_, with) = self {
                        *value = with.clone();
                    }
                    return true;
                }
                *left -= 1;
                self.inside(value, left)
            }),
            _ => false,
        }
    }
}

/// How many values there are inside one.
fn count(json: &Value) -> usize {
    match json {
        Value::Object(map) => map.values().map(|v| 1 + count(v)).sum(),
        Value::Array(list) => list.iter().map(|v| 1 + count(v)).sum(),
        _ => 0,
    }
}

/// Whether anybody gets in.
fn lets_in(picture: &Picture) -> Option<String> {
    let addresses = [(SERVER4, 24), (SERVER6, 64)].map(|(a, len)| (a.parse().expect("an address"), len));
    let s0 = Interface { name: "s0".to_owned(), addresses: addresses.to_vec(), programs: vec![] };
    let facts = Facts { interfaces: vec![s0], ..Facts::default() };
    for (to, everybody) in [(SERVER4, u128::from(u32::MAX)), (SERVER6, u128::MAX)] {
        let to = to.parse().expect("an address");
        let probe = Probe { to, port: 443, protocol: Protocol::Tcp, interface: "s0".to_owned(), way_back: true };
        for judged in walk::judge(picture, &facts, &probe, &Sources::new(vec![(0, everybody)])) {
            if matches!(judged.judgement, Judgement::Accepted | Judgement::Throttled(_)) {
                return Some(format!("{judged:?}"));
            }
        }
    }
    None
}

/// A host that lets nobody in, and all that can go wrong in looking at it.
fn whatever_is_answered_nobody_counts_as_let_in(setup: impl Fn(&Lab)) {
    let lab = Lab::new();
    setup(&lab);
    let answers = lab.inside(|| {
        let recorder = Recorder { host: Inside(Machine::new()), answers: Answers::default() };
        let picture = picture::take(&recorder, &Prefixes::default());
        assert!(picture.gaps.is_empty(), "{:?}", picture.gaps);
        recorder.answers
    });
    drop(lab);
    let whole = picture::take(&answers, &Prefixes::default());
    assert!(whole.gaps.is_empty() && !whole.tables.is_empty(), "{:?}", whole.gaps);
    assert_eq!(lets_in(&whole), None);
    let mut commands: Vec<Vec<String>> = answers.said.borrow().keys().cloned().collect();
    commands.sort();
    let config = Config { cases: TIMES, failure_persistence: None, ..Config::default() };
    let several = proptest::collection::vec((any::<usize>(), damage()), 1..3);
    let tried = TestRunner::new(config).run(&several, |damages| {
        let damaged = answers.clone();
        for (which, damage) in &damages {
            let mut said = damaged.said.borrow_mut();
            damage.to(said.get_mut(&commands[which % commands.len()]).expect("an answer"));
        }
        let let_in = lets_in(&picture::take(&damaged, &Prefixes::default()));
        let texts = || -> Vec<String> {
            damaged.said.borrow().values().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).collect()
        };
        prop_assert_eq!(let_in, None, "{:#?}", texts());
        Ok(())
    });
    tried.unwrap_or_else(|e| panic!("{e}"));
}

const NATIVE: &str = "
table inet filter {
    set banned { type ipv4_addr; flags interval, timeout; elements = { 173.245.48.0/24 timeout 1h, 104.16.0.0/13 } }
    set six { type ipv6_addr; elements = { 2400:cb00::9 } }
    map doors { type inet_service : verdict; elements = { 22 : jump admin, 25 : drop } }
    chain admin { ip saddr { 192.0.2.2, 198.51.100.0-198.51.100.9 } tcp dport . meta iifname { 22 . \"s0\" } accept; drop; }
    chain input {
        type filter hook input priority 0; policy drop;
        meta mark & 0xff == 0x7 counter log prefix \"x \" accept
        iifname \"lo\" accept
        tcp dport vmap @doors
        ip saddr @banned limit rate 3/minute reject with icmp port-unreachable
        ip6 saddr @six tcp flags & (syn | ack) == syn drop
        tcp dport { 8080, 9000-9009 } ct state new meta l4proto tcp accept
        ct state vmap { invalid : drop, related : accept }
    }
    chain output { type filter hook output priority 0; policy drop; ct state established accept; }
}
table netdev early { chain in { type filter hook ingress device s0 priority 5; policy accept; ip saddr 192.0.2.99 drop; }; }
";

#[test]
fn of_nft() {
    whatever_is_answered_nobody_counts_as_let_in(|lab| drop(lab.feed(["nft", "-f", "-"], NATIVE)));
}

/// Rules of an administrator, who bans with a set.
fn xtables(lab: &Lab, variant: &str) {
    lab.run(["ipset", "create", "banned", "hash:net"]);
    lab.run(["ipset", "add", "banned", "104.16.0.0/13"]);
    lab.run(["ipset", "create", "admins", "hash:ip,port"]);
    lab.run(["ipset", "add", "admins", "192.0.2.2,tcp:22"]);
    let rules = |six: bool| {
        let sets = "-A INPUT -m set --match-set banned src -j REJECT --reject-with icmp-port-unreachable\n\
                    -A INPUT -m set --match-set admins src,dst -j ACCEPT\n";
        format!(
            "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [1:60]\n:OUTPUT DROP [0:0]\n:mine - [0:0]\n-A INPUT -i lo -j ACCEPT\n{}\
             -A INPUT -p tcp -m multiport --dports 22,8080:8090 -m conntrack --ctstate NEW -j mine\n\
             -A INPUT -m mark --mark 0x7/0xff -j ACCEPT\n-A mine -m comment --comment \"a \\\" b\" -j LOG --log-prefix \"x \"\n\
             -A mine -p tcp -m hashlimit --hashlimit-upto 3/min --hashlimit-name web -j ACCEPT\n-A mine -j RETURN\n\
             -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n*mangle\n:PREROUTING ACCEPT [0:0]\n\
             -A PREROUTING -p tcp --dport 25 -j MARK --set-xmark 0x1/0xffffffff\nCOMMIT\n",
            if six { "" } else { sets }
        )
    };
    lab.feed([format!("iptables-{variant}-restore")], &rules(false));
    lab.feed([format!("ip6tables-{variant}-restore")], &rules(true));
}

#[test]
fn of_iptables_through_nf_tables() {
    whatever_is_answered_nobody_counts_as_let_in(|lab| xtables(lab, "nft"));
}

#[test]
fn of_legacy_iptables() {
    whatever_is_answered_nobody_counts_as_let_in(|lab| xtables(lab, "legacy"));
}
