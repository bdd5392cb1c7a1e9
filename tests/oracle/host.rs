//! The host that rule sets are tried on: a lab with a container behind it, loaded anew for every rule set.
//!
//! Belongs here: loading, and what became of connections. Does not: what a verdict should be.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use edgeallow::{
    allowlist::{Family, Prefixes},
    engine::picture,
    host::{Look as _, Machine},
    reach::{Facts, Picture},
};
use nix::sched::{CloneFlags, setns};

use super::{
    inside::Inside,
    pick,
    rule_set::{RuleSet, Variant, built_in},
};
use crate::lab::{Doors, Lab, Outcome, Shot, Volley};

/// The container's addresses, behind the interface `d0`.
pub const BOX4: &str = "10.9.0.2";
/// See [`BOX4`].
pub const BOX6: &str = "fd09::2";
/// The ports that the container listens on; the host listens on [`pick::PORTS`].
pub const BOX_PORTS: [u16; 4] = [80, 443, 8443, 8080];

/// As in the lab, neither ARP nor neighbour discovery is part of what is judged.
const WIRE: &str = "\
link add d0 address 02:00:00:00:01:01 type veth peer name e0 address 02:00:00:00:01:02 netns box
addr add 10.9.0.1/24 dev d0
addr add fd09::1/64 dev d0 nodad
link set d0 up
neigh replace 10.9.0.2 lladdr 02:00:00:00:01:02 dev d0 nud permanent
neigh replace fd09::2 lladdr 02:00:00:00:01:02 dev d0 nud permanent
";
const BOX: &str = "\
link set lo up
link set e0 up
addr add 10.9.0.2/24 dev e0
addr add fd09::2/64 dev e0 nodad
neigh replace 10.9.0.1 lladdr 02:00:00:00:01:01 dev e0 nud permanent
neigh replace fd09::1 lladdr 02:00:00:00:01:01 dev e0 nud permanent
route add 0.0.0.0/0 via 10.9.0.1
route add ::/0 via fd09::1
";
/// Packets are forwarded, and ICMP is not rationed: a hundred refusals a second are what is wanted.
const SETTINGS: [(&str, &str); 7] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv4/icmp_msgs_per_sec", "1000000"),
    ("net/ipv4/icmp_msgs_burst", "1000000"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv4/tcp_synack_retries", "1"),
];

/// Conntrack works in a network namespace only while some rule there asks for it, and NAT chains see no packet without it. A
/// host with a firewall always has such a rule; this one is never reached.
const CONNTRACK: &str = "table inet conntrack { chain never { ct state new accept; }; }";

/// Where programs of a variant and family are found.
const RESTORERS: [(Variant, Family, &str); 4] = [
    (Variant::Legacy, Family::V4, "iptables-legacy"),
    (Variant::Legacy, Family::V6, "ip6tables-legacy"),
    (Variant::Nft, Family::V4, "iptables-nft"),
    (Variant::Nft, Family::V6, "ip6tables-nft"),
];

/// A host, the internet and the addresses on it that connections come from.
pub struct Host<'a> {
    /// Where it is.
    pub lab: &'a Lab,
    /// The internet's addresses.
    pub pool: Vec<IpAddr>,
    volley: Volley<'a>,
    dirty: Vec<&'static str>,
    sets: bool,
}

impl<'a> Host<'a> {
    /// On a lab without listeners.
    pub fn new(lab: &'a Lab) -> Self {
        let pool = pick::pool();
        let texts: Vec<_> = pool.iter().map(ToString::to_string).collect();
        lab.internet_addresses(texts.iter().map(String::as_str));
        lab.run(["ip", "netns", "add", "box"]);
        lab.feed(["ip", "-batch", "-"], WIRE);
        lab.feed(["ip", "-n", "box", "-batch", "-"], BOX);
        let doors = lab.inside(|| {
            for (name, value) in SETTINGS {
                // Some kernels have no such setting for a namespace of its own.
                let path = format!("/proc/sys/{name}");
                if fs::metadata(&path).is_ok() {
                    fs::write(&path, value).unwrap_or_else(|e| panic!("cannot set {name}: {e}"));
                }
            }
            let mut doors = Doors::default();
            pick::PORTS.into_iter().for_each(|port| doors.open(port));
            let inner = fs::File::open("/run/netns/box").expect("open a network namespace");
            setns(inner, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
            BOX_PORTS.into_iter().for_each(|port| doors.open(port));
            doors
        });
        Self { lab, pool, volley: Volley::new(lab, doors), dirty: Vec::new(), sets: false }
    }

    /// Loads a rule set in the place of the last one.
    ///
    /// # Errors
    /// What the program said that didn't take it.
    pub fn load(&mut self, rules: &RuleSet) -> Result<(), String> {
        let empty: String = ["raw", "mangle", "nat", "filter"].map(empty_table).concat();
        for program in std::mem::take(&mut self.dirty) {
            self.feed(&format!("{program}-restore"), &[], &empty)?;
        }
        self.feed("nft", &["-f", "-"], &format!("flush ruleset\n{CONNTRACK}\n{}", rules.nft()))?;
        if self.sets {
            self.forget_sets()?;
        }
        if !rules.ipsets.is_empty() {
            self.sets = true;
            self.feed("ipset", &["restore"], &rules.ipset())?;
        }
        for (variant, family, program) in RESTORERS {
            let text = rules.restore(variant, family);
            if !text.is_empty() {
                if variant == Variant::Legacy {
                    self.dirty.push(program);
                }
                self.feed(&format!("{program}-restore"), &[], &text)?;
            }
        }
        Ok(())
    }

    /// nf_tables lets go of rules, and they of their ipsets, a moment after it has said that they are gone. Sets of sets
    /// hold their members until they are flushed.
    fn forget_sets(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while let Err(e) = self.feed("ipset", &["restore"], "flush\ndestroy\n") {
            if start.elapsed() > Duration::from_secs(5) {
                return Err(e);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.sets = false;
        Ok(())
    }

    fn feed(&self, program: &str, args: &[&str], text: &str) -> Result<(), String> {
        let argv = std::iter::once(program).chain(args.iter().copied());
        let output = self.lab.command(argv).stdin(text).run();
        if output.status == Some(0) { Ok(()) } else { Err(format!("{output:?}")) }
    }

    /// The host's packet filters as they are, and what else a packet's way depends on: as `verify` takes them.
    pub fn picture(&self) -> (Picture, Facts) {
        self.lab.inside(|| {
            let links = Machine::new().links().expect("the interfaces");
            let host = Inside(Machine::new());
            let mut picture = picture::take(&host, &Prefixes::default());
            let facts = picture::facts(&host, &links, &mut picture.gaps);
            (picture, facts)
        })
    }

    /// Tries connections.
    pub fn fire(&mut self, shots: &[Shot], patience: Duration) -> HashMap<Shot, Outcome> {
        self.volley.fire(shots, patience)
    }
}

fn empty_table(table: &str) -> String {
    let chains: String = built_in(table).iter().map(|c| format!(":{c} ACCEPT [0:0]\n")).collect();
    format!("*{table}\n{chains}COMMIT\n")
}
