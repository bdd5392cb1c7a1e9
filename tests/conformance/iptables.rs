//! Hosts guarded by iptables and ip6tables, in both variants, with Debian's netfilter-persistent.

use super::{Drift, Kind};
use crate::lab::{Lab, STRANGER4, STRANGER6};

/// iptables on top of nf_tables, the default of Debian and Ubuntu.
pub const NFT: Iptables = Iptables { variant: "nft" };
/// The iptables of old.
pub const LEGACY: Iptables = Iptables { variant: "legacy" };

pub struct Iptables {
    variant: &'static str,
}

/// IPv4 and IPv6: the program, the file that is loaded at boot.
const FAMILIES: [(&str, &str); 2] = [("iptables", "/etc/iptables/rules.v4"), ("ip6tables", "/etc/iptables/rules.v6")];

/// What Debian's package iptables-persistent puts in place, as far as it matters: its plugins load the files.
const PLUGINS: [(&str, &str); 2] = [
    ("/usr/share/netfilter-persistent/plugins.d/15-ip4tables", "#!/bin/sh\niptables-restore </etc/iptables/rules.v4\n"),
    (
        "/usr/share/netfilter-persistent/plugins.d/25-ip6tables",
        "#!/bin/sh\nip6tables-restore </etc/iptables/rules.v6\n",
    ),
];

/// An administrator's rules: some before the place where ours belong, some after; a second table; an apostrophe.
pub fn administrators_rules(program: &str) -> String {
    let (stranger, icmp, friend) = if program == "iptables" {
        (format!("{STRANGER4}/32"), "icmp", "192.0.2.2/32")
    } else {
        (format!("{STRANGER6}/128"), "ipv6-icmp", "2001:db8:2::2/128")
    };
    format!(
        "# what the administrator wants
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:banned - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -j banned
-A INPUT -p {icmp} -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -s {friend} -p tcp -m tcp --dport 8443 -m comment --comment \"a friend's door\" -j ACCEPT
-A banned -s {stranger} -j DROP
COMMIT
"
    )
}

impl Kind for Iptables {
    fn backend(&self) -> &'static str {
        "iptables"
    }

    fn folder(&self) -> &'static str {
        "/etc/iptables"
    }

    fn setup(&self, lab: &Lab) {
        for (program, stored) in FAMILIES {
            for part in ["", "-save", "-restore"] {
                let target = format!("/usr/sbin/{program}-{}{part}", self.variant);
                lab.link(&target, &format!("/etc/alternatives/{program}{part}"));
            }
            lab.write_file(stored, administrators_rules(program));
            lab.chmod(stored, 0o640);
        }
        for (path, script) in PLUGINS {
            lab.write_file(path, script);
            lab.chmod(path, 0o755);
        }
        lab.write_file(
            "/usr/sbin/netfilter-persistent",
            "#!/bin/sh\nrun-parts -a \"$1\" /usr/share/netfilter-persistent/plugins.d\n",
        );
        lab.chmod("/usr/sbin/netfilter-persistent", 0o755);
        self.boot(lab);
    }

    fn drifts(&self) -> Vec<Drift> {
        vec![
            Drift::new("our chain is empty", |lab| drop(lab.run(["iptables", "-F", "EDGEALLOW"]))),
            Drift::new("our chain for IPv6 is empty", |lab| drop(lab.run(["ip6tables", "-F", "EDGEALLOW"]))),
            Drift::new("a rule is missing from our chain", |lab| drop(lab.run(["iptables", "-D", "EDGEALLOW", "1"]))),
            Drift::new("somebody's rule is in our chain", |lab| {
                lab.run(["iptables", "-A", "EDGEALLOW", "-s", "203.0.113.0/24", "-j", "ACCEPT"]);
            }),
            Drift::new("the jump is gone", |lab| {
                each_jump(lab, |lab, jump| {
                    lab.run([["iptables", "-D"].as_slice(), jump].concat());
                })
            }),
            Drift::new("the jump is there twice", |lab| {
                each_jump(lab, |lab, jump| {
                    lab.run([["iptables", "-A"].as_slice(), jump].concat());
                })
            }),
            Drift::new("the administrator puts a rule before ours", |lab| {
                let rule = ["-s", "173.245.48.0/20", "-p", "tcp", "--dport", "443", "-j", "DROP"];
                lab.run([["iptables", "-I", "INPUT", "1"].as_slice(), &rule].concat());
            }),
            Drift::new("the chain is gone with its jump", |lab| {
                each_jump(lab, |lab, jump| drop(lab.run([["iptables", "-D"].as_slice(), jump].concat())));
                lab.run(["iptables", "-F", "EDGEALLOW"]);
                lab.run(["iptables", "-X", "EDGEALLOW"]);
            }),
            Drift::new("the old configuration is loaded", |lab| {
                for (program, _) in FAMILIES {
                    lab.feed([&format!("{program}-restore")], &administrators_rules(program));
                }
            }),
            Drift::new("a stored file is written anew", |lab| {
                lab.write_file(FAMILIES[0].1, administrators_rules("iptables"));
            }),
            Drift::new("the other stored file is written anew", |lab| {
                lab.write_file(FAMILIES[1].1, administrators_rules("ip6tables"));
            }),
        ]
    }

    fn reload(&self, lab: &Lab) {
        for (program, stored) in FAMILIES {
            lab.feed([&format!("{program}-restore")], &lab.read_file(stored));
        }
    }

    fn boot(&self, lab: &Lab) {
        lab.run(["nft", "flush", "ruleset"]);
        if self.variant == "legacy" {
            for program in FAMILIES.map(|(p, _)| p) {
                for table in ["filter", "mangle"] {
                    lab.run([program, "-t", table, "-F"]);
                    lab.run([program, "-t", table, "-X"]);
                }
                lab.run([program, "-P", "INPUT", "ACCEPT"]);
            }
        }
        lab.run(["ipset", "destroy"]);
        self.reload(lab);
    }
}

/// Every rule of INPUT that goes to our chain, as the words that `-A` or `-D` would take.
fn each_jump(lab: &Lab, work: impl Fn(&Lab, &[&str])) {
    let saved = lab.run(["iptables-save", "-t", "filter"]).stdout;
    let jumps: Vec<_> = saved.lines().filter(|l| l.starts_with("-A INPUT ") && l.contains("-j EDGEALLOW")).collect();
    assert!(!jumps.is_empty(), "no jump to our chain: {saved}");
    for jump in jumps {
        // Our comment is one word, so quotes are all there is to take away.
        let words: Vec<_> = jump.split_whitespace().skip(1).map(|w| w.trim_matches('"')).collect();
        work(lab, &words);
    }
}
