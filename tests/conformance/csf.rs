//! A host guarded by CSF: a stand-in for it, or a real release of it where one is at hand.
//!
//! CSF is not in Debian, and none of it is in this project. Without a release the suite runs on a host that is built
//! from what CSF is known to do: its configuration files, its chains in their order, its lock, its way of making rules
//! of lists and of saving them when it is stopped: the tests in modules `csf_stand_in`. With the environment
//! variable `EDGEALLOW_CSF_ROOT` naming an unpacked release (the folder with `csf.pl` in it) the same claims are tried
//! on the real program too: the tests in modules `csf_release`.

use std::{fs, path::Path};

use super::{Drift, Kind};
use crate::lab::{Lab, Rules, STRANGER4, STRANGER6};

/// The stand-in.
pub const STAND_IN: Csf = Csf { release: false };
/// The real program.
#[cfg(csf_release)]
pub const RELEASE: Csf = Csf { release: true };

/// Makes a test of each of these functions for the stand-in, and for a release of CSF where one is named.
macro_rules! on_csf {
    ($($claim:ident),* $(,)?) => {
        mod csf_stand_in { $(#[test] fn $claim() { super::$claim(&crate::conformance::csf::STAND_IN); })* }
        #[cfg(csf_release)]
        mod csf_release { $(#[test] fn $claim() { super::$claim(&crate::conformance::csf::RELEASE); })* }
    };
}
pub(crate) use on_csf;

pub struct Csf {
    release: bool,
}

/// Names the folder of an unpacked release.
const ROOT: &str = "EDGEALLOW_CSF_ROOT";

/// The settings that the suite's firewall needs. The rest is as a release has it.
const SETTINGS: [(&str, &str); 7] = [
    ("TESTING", "0"),
    ("IPV6", "1"),
    ("TCP_IN", "22"),
    ("TCP6_IN", "22"),
    ("UDP_IN", ""),
    ("UDP6_IN", ""),
    ("FASTSTART", "1"),
];

/// The administrator's lists: entries of his, one for a range of Cloudflare's, no newline at the end.
const HIS_ALLOW: &str = "# my friends\r\n192.0.2.2 # a friend\ntcp|in|d=8443|s=192.0.2.2\n2001:db8:2::2";
const HIS_IGNORE: &str = "127.0.0.1\n192.0.2.2\n";

/// What `csf -r`, and its service, do: rules of lists, under the lock. An advanced line is `proto|way|ports|address`.
const SCRIPT: &str = include_str!("csf_stand_in.sh");

impl Csf {
    /// CSF, installed and not started.
    pub fn install(&self, lab: &Lab) {
        for folder in ["/etc/csf", "/var/lib/csf"] {
            lab.files(|| fs::create_dir_all(folder));
        }
        if self.release {
            let root = std::env::var_os(ROOT).unwrap_or_else(|| panic!("{ROOT} names no unpacked release of CSF"));
            install_release(lab, Path::new(&root));
        } else {
            lab.write_file("/etc/csf/csf.conf", SCRIPTS_CONF);
            lab.write_file("/etc/csf/version.txt", "15.10\n");
            lab.write_file("/usr/sbin/csf", SCRIPT);
            lab.chmod("/usr/sbin/csf", 0o700);
        }
        for (name, value) in SETTINGS {
            Self::set(lab, name, value);
        }
        lab.write_file("/etc/csf/csf.allow", HIS_ALLOW);
        lab.write_file("/etc/csf/csf.ignore", HIS_IGNORE);
        lab.write_file("/etc/csf/csf.deny", format!("{STRANGER4} # banned\n{STRANGER6} # banned\n"));
        for file in ["csf.conf", "csf.allow", "csf.ignore", "csf.deny"] {
            lab.chmod(&format!("/etc/csf/{file}"), 0o600);
        }
        for folder in ["/etc/csf", "/var/lib/csf"] {
            lab.chmod(folder, 0o600);
        }
    }

    /// A setting in csf.conf.
    pub fn set(lab: &Lab, name: &str, value: &str) {
        let path = "/etc/csf/csf.conf";
        let text = lab.read_file(path);
        let ours = |l: &&str| l.split('=').next().is_some_and(|n| n.trim() == name);
        let rest: String = text.lines().filter(|l| !ours(l)).map(|l| format!("{l}\n")).collect();
        lab.write_file(path, format!("{rest}{name} = \"{value}\"\n"));
    }

    /// `csf` with these arguments. It answers 0 whatever happened, so the chains have to tell.
    pub fn csf(lab: &Lab, args: &[&str]) -> String {
        let output = lab.command([["/usr/sbin/csf"].as_slice(), args].concat()).run();
        format!("{output:?}")
    }

    /// Starts or restarts CSF; fails the test if it isn't loaded then.
    pub fn restart(lab: &Lab) {
        let said = Self::csf(lab, &["-r"]);
        let loaded = lab.run(["iptables-save"]).stdout.contains("-j LOCALINPUT");
        assert!(loaded, "CSF doesn't load: {said}");
    }
}

/// What the stand-in reads; a release brings its own, with some hundred settings more.
const SCRIPTS_CONF: &str = "# the stand-in's configuration\nETH_DEVICE = \"\"\nETH6_DEVICE = \"\"\nLF_IPSET = \"0\"\n\
    MESSENGER = \"0\"\nCT_SUBNET_LIMIT = \"0\"\nDOCKER = \"0\"\nWATCH_MODE = \"0\"\n";

/// What a release's installer for a server without a control panel puts in place, as far as csf needs it.
fn install_release(lab: &Lab, root: &Path) {
    let copy = |from: &str, to: &str, mode: u32| {
        let content = fs::read(root.join(from)).unwrap_or_else(|e| panic!("{ROOT}: cannot read {from}: {e}"));
        lab.write_file(to, content);
        lab.chmod(to, mode);
    };
    copy("csf.pl", "/usr/sbin/csf", 0o700);
    copy("lfd.pl", "/usr/sbin/lfd", 0o700);
    copy("version.txt", "/etc/csf/version.txt", 0o600);
    copy("csf.generic.conf", "/etc/csf/csf.conf", 0o600);
    copy("csf.generic.pignore", "/etc/csf/csf.pignore", 0o600);
    for name in [
        "redirect",
        "resellers",
        "dirwatch",
        "syslogs",
        "logfiles",
        "logignore",
        "blocklists",
        "rignore",
        "fignore",
        "signore",
        "suignore",
        "uidignore",
        "mignore",
        "sips",
        "dyndns",
        "syslogusers",
        "smtpauth",
        "rblconf",
    ] {
        copy(&format!("csf.{name}"), &format!("/etc/csf/csf.{name}"), 0o600);
    }
    for folder in ["lock", "stats", "zone", "ui", "Geo"] {
        lab.files(|| fs::create_dir_all(format!("/var/lib/csf/{folder}")));
    }
    // `csf -x` stops halfway where it can't stop lfd.
    lab.write_file("/etc/init.d/lfd", "#!/bin/sh\n");
    lab.chmod("/etc/init.d/lfd", 0o755);
    let mut modules = vec![root.to_owned()];
    for folder in ["ConfigServer", "Crypt", "HTTP", "JSON", "Module", "Net", "version"] {
        modules.push(root.join(folder));
    }
    while let Some(path) = modules.pop() {
        for entry in fs::read_dir(&path).unwrap_or_else(|e| panic!("{ROOT}: cannot list {}: {e}", path.display())) {
            let entry = entry.expect("an entry").path();
            let inner = entry.strip_prefix(root).expect("inside the release").display().to_string();
            let top = path == *root;
            if entry.is_dir() && !top {
                modules.push(entry);
            } else if entry.is_file() && !top {
                copy(&inner, &format!("/usr/local/csf/lib/{inner}"), 0o600);
            } else if top && (inner.ends_with(".pm") || inner.ends_with(".pl")) {
                copy(&inner, &format!("/usr/local/csf/bin/{inner}"), 0o700);
            } else if top && inner.ends_with(".txt") {
                copy(&inner, &format!("/usr/local/csf/tpl/{inner}"), 0o600);
            }
        }
    }
}

impl Kind for Csf {
    fn backend(&self) -> &'static str {
        "csf"
    }

    fn folder(&self) -> &'static str {
        "/etc/csf"
    }

    fn setup(&self, lab: &Lab) {
        self.install(lab);
        Self::restart(lab);
        // Rules that come back from what was saved make the tables in another order than those made of lists.
        self.boot(lab);
    }

    fn drifts(&self) -> Vec<Drift> {
        let flush = |program: &'static str, chain: &'static str| move |lab: &Lab| drop(lab.run([program, "-F", chain]));
        vec![
            Drift::new("ALLOWIN is empty", |lab| {
                // His own entries are CSF's to put back; ours alone are taken out.
                each_rule(lab, "iptables", "ALLOWIN", |lab, rule| drop(lab.run([&["iptables", "-D"], rule].concat())));
            }),
            Drift::new("ALLOWOUT is empty in IPv6", |lab| {
                each_rule(lab, "ip6tables", "ALLOWOUT", |lab, rule| {
                    drop(lab.run([&["ip6tables", "-D"], rule].concat()))
                });
            }),
            Drift::new("a rule of ours is there twice", |lab| {
                each_rule(lab, "iptables", "ALLOWIN", |lab, rule| drop(lab.run([&["iptables", "-A"], rule].concat())));
            }),
            Drift::new("the administrator puts a rule before ours", |lab| {
                lab.run([
                    "iptables",
                    "-I",
                    "ALLOWIN",
                    "1",
                    "-s",
                    "173.245.48.0/20",
                    "-p",
                    "tcp",
                    "--dport",
                    "443",
                    "-j",
                    "DROP",
                ]);
            }),
            Drift::new("our list is gone", |lab| lab.files(|| fs::remove_file("/etc/csf/edgeallow.allow"))),
            Drift::new("our list is edited", |lab| {
                lab.write_file("/etc/csf/edgeallow.allow", "tcp|in|d=80,443|s=173.245.48.0/20\n");
            }),
            Drift::new("our list for lfd is gone", |lab| lab.files(|| fs::remove_file("/etc/csf/edgeallow.ignore"))),
            Drift::new("csf.allow doesn't include our list any more", |lab| {
                let text = lab.read_file("/etc/csf/csf.allow");
                lab.write_file("/etc/csf/csf.allow", text.replace("Include /etc/csf/edgeallow.allow\n", ""));
            }),
            Drift::new("csf.allow includes our list with a blank at the end", |lab| {
                let text = lab.read_file("/etc/csf/csf.allow");
                lab.write_file("/etc/csf/csf.allow", text.replace("edgeallow.allow\n", "edgeallow.allow \n"));
            }),
            Drift::new("everything of CSF's chains is flushed in IPv6", move |lab| {
                flush("ip6tables", "ALLOWIN")(lab);
                flush("ip6tables", "ALLOWOUT")(lab);
                for (chain, side) in [("ALLOWIN", "-s"), ("ALLOWOUT", "-d")] {
                    let device = if chain == "ALLOWIN" { "-i" } else { "-o" };
                    lab.run(["ip6tables", "-A", chain, "!", device, "lo", side, "2001:db8:2::2", "-j", "ACCEPT"]);
                }
            }),
        ]
    }

    fn reload(&self, lab: &Lab) {
        Self::restart(lab);
    }

    fn boot(&self, lab: &Lab) {
        // What the service does when the machine goes down and comes up.
        Self::csf(lab, &["--initdown"]);
        Self::csf(lab, &["--stop"]);
        lab.run(["nft", "flush", "ruleset"]);
        Self::csf(lab, &["--initup"]);
        assert!(lab.run(["iptables-save"]).stdout.contains("-j LOCALINPUT"), "CSF doesn't start");
    }

    /// Our rules are those that CSF makes of our lines: they carry no tag, and are known by the two ports.
    fn foreign_rules(&self, lab: &Lab) -> Rules {
        let text = lab.foreign_rules().0;
        Rules(text.lines().filter(|l| !of_ours(l)).map(|l| format!("{l}\n")).collect())
    }
}

fn of_ours(line: &str) -> bool {
    (line.contains("ALLOWIN") || line.contains("ALLOWOUT")) && line.contains("multiport")
}

/// Every rule of a chain of CSF's that is ours, as the words that `-A` or `-D` would take.
fn each_rule(lab: &Lab, program: &str, chain: &str, work: impl Fn(&Lab, &[&str])) {
    let saved = lab.run([&format!("{program}-save")]).stdout;
    let start = format!("-A {chain} ");
    let ours: Vec<_> = saved.lines().filter(|l| l.starts_with(&start) && of_ours(l)).collect();
    assert!(!ours.is_empty(), "no rule of ours in {chain}: {saved}");
    for rule in ours {
        work(lab, &rule.split_whitespace().skip(1).collect::<Vec<_>>());
    }
}
