//! Catching changes in the act: programs that are started, and transactions that reach the kernel.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::Lab;

const SPAWNED: &str = "/mnt/spawned";
const HEARD: &str = "/mnt/heard";

/// The programs whose start is recorded: everything that can change a packet filter or a service. Debian's
/// `apachectl` is a link to `apache2ctl`.
const RECORDED: [&str; 12] = [
    "nft",
    "xtables-nft-multi",
    "xtables-legacy-multi",
    "ipset",
    "systemctl",
    "netfilter-persistent",
    "sysctl",
    "ufw",
    "firewall-cmd",
    "firewall-offline-cmd",
    "fail2ban-client",
    "apache2ctl",
];

impl Lab {
    /// From now on every start of a firewall's program is written down.
    pub fn record_programs(&self) {
        let places = |name: &str| ["/usr/sbin", "/usr/bin"].map(|folder| format!("{folder}/{name}"));
        let found: Vec<(&str, String)> = self.inside(|| {
            RECORDED.iter().filter_map(|n| Some((*n, places(n).into_iter().find(|p| is_file(p))?))).collect()
        });
        // Renamed into their places: nothing that a daemon executes just now is written to.
        let (mut copied, mut placed) = (String::new(), String::new());
        for (name, path) in found {
            // The xtables programs are one file with many names, and take the name as their first argument too.
            let call = if name.starts_with("xtables") { "\"${0##*/}\" \"$@\"" } else { "\"$@\"" };
            let script = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >>{SPAWNED}\nexec /mnt/real/{name} {call}\n");
            self.write_file(&format!("{path}.new"), script);
            copied += &format!(" {path}");
            placed += &format!("chmod --reference={path} {path}.new\nmv {path}.new {path}\n");
        }
        let line = format!("set -e\nmkdir -p /mnt/real\ncp {copied} /mnt/real\n{placed}");
        self.run(["sh", "-c", &line]);
        self.write_file(SPAWNED, "");
    }

    /// What has been started since the last call, a command a line.
    pub fn recorded_programs(&self) -> Vec<String> {
        let lines = self.read_file(SPAWNED).lines().map(str::to_owned).collect();
        self.write_file(SPAWNED, "");
        lines
    }

    /// The nf_tables transactions that reach the kernel while something is done, as `nft monitor` tells them.
    ///
    /// Covers native nftables and the nft variant of iptables, whoever sends: a program or a library.
    pub fn transactions<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<String>) {
        self.write_file(HEARD, "");
        let monitor = self.inside(|| {
            let heard = fs::File::create(HEARD).expect("a file for the monitor");
            let mut monitor = Command::new("/usr/sbin/nft");
            monitor.args(["monitor"]).stdin(Stdio::null()).stdout(heard).stderr(Stdio::null());
            monitor.spawn().expect("start nft monitor")
        });
        let mut monitor = Ended(monitor);
        // The monitor takes a moment to subscribe: it listens when it has heard of a mark.
        let start = Instant::now();
        loop {
            self.run(["nft", "add", "table", "inet", "lab_begin"]);
            self.run(["nft", "delete", "table", "inet", "lab_begin"]);
            if self.hears("delete table inet lab_begin") {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "nft monitor stays silent");
            sleep(Duration::from_millis(20));
        }
        let work = work();
        self.run(["nft", "add", "table", "inet", "lab_end"]);
        let start = Instant::now();
        while !self.hears("add table inet lab_end") {
            assert!(start.elapsed() < Duration::from_secs(60), "nft monitor fell silent");
            sleep(Duration::from_millis(5));
        }
        self.run(["nft", "delete", "table", "inet", "lab_end"]);
        monitor.end();
        let heard = self.read_file(HEARD);
        let lines =
            heard.lines().skip_while(|l| !l.contains("inet lab_begin")).filter(|l| !l.contains("inet lab_begin"));
        let lines = lines.take_while(|l| !l.contains("inet lab_end"));
        // A transaction's announcement names its process; those of the marks' own `nft` are not counted.
        let lines = lines.filter(|l| !l.starts_with("# new generation")).map(str::to_owned).collect();
        (work, lines)
    }

    fn hears(&self, words: &str) -> bool {
        self.read_file(HEARD).contains(words)
    }
}

fn is_file(path: &str) -> bool {
    fs::symlink_metadata(Path::new(path)).is_ok_and(|m| m.is_file())
}

/// A child that doesn't outlive its owner.
struct Ended(Child);

impl Ended {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.end();
    }
}
