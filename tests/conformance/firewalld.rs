//! Hosts guarded by firewalld, with our rules in a policy and, as before version 0.9, in the default zone.

use std::{
    fs,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Drift, Kind};
use crate::lab::{Lab, STRANGER4, STRANGER6};

/// As every firewalld since 0.9 has it.
pub const POLICY: Firewalld = Firewalld { method: "policy", drop: false };
/// The default zone drops by itself, which a rule in a zone can't beat and a policy does.
pub const DROPPING_ZONE: Firewalld = Firewalld { method: "policy", drop: true };
/// As older ones have it.
pub const ZONE: Firewalld = Firewalld { method: "zone", drop: false };

pub struct Firewalld {
    method: &'static str,
    drop: bool,
}

/// It is a Python program, which takes a second to start where nothing else is at work.
const PATIENCE: Duration = Duration::from_secs(120);
const CONF: &str = "/etc/firewalld/firewalld.conf";
const SETS: [&str; 2] = ["/etc/firewalld/ipsets/edgeallow-v4.xml", "/etc/firewalld/ipsets/edgeallow-v6.xml"];

/// The administrator's zone, which is the default one.
pub fn administrators_zone(dropping: bool) -> String {
    let (target, ban) = if dropping {
        // What it denies comes before all that it allows.
        let deny = "  <rule family=\"ipv4\">\n    <source address=\"104.16.0.0/13\"/>\n    <port port=\"443\" protocol=\"tcp\"/>\n    <drop/>\n  </rule>\n";
        (" target=\"DROP\"", deny)
    } else {
        ("", "")
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>
<zone{target}>
  <short>Mine</short>
  <!-- what the administrator wants -->
  <service name=\"ssh\"/>
{ban}  <rule family=\"ipv4\">
    <source address=\"{STRANGER4}/32\"/>
    <drop/>
  </rule>
  <rule family=\"ipv6\">
    <source address=\"{STRANGER6}/128\"/>
    <drop/>
  </rule>
  <rule family=\"ipv4\">
    <source address=\"192.0.2.2/32\"/>
    <port port=\"8443\" protocol=\"tcp\"/>
    <accept/>
  </rule>
</zone>
"
    )
}

impl Kind for Firewalld {
    fn backend(&self) -> &'static str {
        "firewalld"
    }

    fn folder(&self) -> &'static str {
        "/etc/firewalld/ipsets"
    }

    fn setup(&self, lab: &Lab) {
        lab.write_file("/etc/edgeallow/config.toml", format!("[firewalld]\nmethod = \"{}\"\n", self.method));
        let conf = lab.read_file(CONF).replace("DefaultZone=public", "DefaultZone=mine");
        lab.write_file(CONF, conf);
        lab.write_file("/etc/firewalld/zones/mine.xml", administrators_zone(self.drop));
        lab.files(|| fs::create_dir_all("/run/dbus"));
        daemon(lab, &["/usr/bin/dbus-daemon", "--system", "--nofork", "--nopidfile"]);
        // firewalld ends where it finds no bus.
        let begun = Instant::now();
        while lab.inside(|| UnixStream::connect("/run/dbus/system_bus_socket").is_err()) {
            assert!(begun.elapsed() < PATIENCE, "the bus does not come up");
            sleep(Duration::from_millis(10));
        }
        start(lab);
    }

    fn drifts(&self) -> Vec<Drift> {
        let mut drifts = vec![
            Drift::new("a prefix is removed from the running set", |lab| {
                cmd(lab, &["--ipset=edgeallow-v4", "--remove-entry=173.245.48.0/20"]);
            }),
            Drift::new("a prefix too many is in the running set", |lab| {
                cmd(lab, &["--ipset=edgeallow-v6", "--add-entry=2001:db8:bad::/48"]);
            }),
            Drift::new("a prefix is deleted behind firewalld's back", |lab| {
                let element = ["inet", "firewalld", "edgeallow-v4", "{ 104.16.0.0/13 }"];
                lab.run([["nft", "delete", "element"].as_slice(), &element].concat());
            }),
            Drift::new("the stored set is edited", |lab| {
                let text = lab.read_file(SETS[0]).replace("  <entry>173.245.48.0/20</entry>\n", "");
                lab.write_file(SETS[0], text);
            }),
            Drift::new("the stored set is edited and loaded", |lab| {
                let text = lab.read_file(SETS[1]).replace("  <entry>2400:cb00::/32</entry>\n", "");
                lab.write_file(SETS[1], text);
                cmd(lab, &["--reload"]);
            }),
        ];
        let holder = if self.method == "zone" { "--zone=mine" } else { "--policy=edgeallow" };
        drifts.push(Drift::new("a rule is removed from the running firewall", move |lab| {
            let rule = "rule family=ipv4 source ipset=edgeallow-v4 port port=443 protocol=tcp accept";
            cmd(lab, &[holder, &format!("--remove-rich-rule={rule}")]);
        }));
        if self.method == "zone" {
            drifts.push(Drift::new("the zone is written anew and loaded", |lab| {
                lab.write_file("/etc/firewalld/zones/mine.xml", administrators_zone(false));
                cmd(lab, &["--reload"]);
            }));
        } else {
            drifts.push(Drift::new("the stored policy is gone", |lab| {
                lab.files(|| fs::remove_file("/etc/firewalld/policies/edgeallow.xml"));
            }));
            drifts.push(Drift::new("the policy is deleted and firewalld reloaded", |lab| {
                cmd(lab, &["--permanent", "--delete-policy=edgeallow"]);
                cmd(lab, &["--reload"]);
            }));
            drifts.push(Drift::new("a rule of somebody else is in our policy", |lab| {
                cmd(lab, &["--policy=edgeallow", "--add-service=http"]);
            }));
        }
        drifts
    }

    fn reload(&self, lab: &Lab) {
        cmd(lab, &["--reload"]);
    }

    fn boot(&self, lab: &Lab) {
        stop(lab);
        lab.run(["nft", "flush", "ruleset"]);
        start(lab);
    }
}

/// `firewall-cmd` as the administrator types it.
pub fn cmd(lab: &Lab, args: &[&str]) {
    lab.run([["firewall-cmd"].as_slice(), args].concat());
}

/// Starts a program that runs until the lab ends. It gets no pipe of ours, whose end something would wait for, and is the
/// child of the lab's first process: one of ours would have to be waited for before the lab can end.
fn daemon(lab: &Lab, program: &[&str]) {
    lab.inside(|| {
        let mut daemon = Command::new("/usr/bin/setsid");
        daemon.arg("--fork").args(program).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(daemon.status().is_ok_and(|s| s.success()), "cannot start {program:?}");
    });
}

/// Starts firewalld as its service does, and waits until it is ready.
pub fn start(lab: &Lab) {
    daemon(lab, &["/usr/sbin/firewalld", "--nofork", "--nopid"]);
    let begun = Instant::now();
    while lab.command(["firewall-cmd", "--state"]).run().status != Some(0) {
        assert!(begun.elapsed() < PATIENCE, "firewalld does not come up");
        sleep(Duration::from_millis(100));
    }
}

/// Stops firewalld, and waits until it is gone.
pub fn stop(lab: &Lab) {
    let Some(pid) = process(lab) else { return };
    lab.run(["kill", &pid]);
    let begun = Instant::now();
    while process(lab).is_some() {
        assert!(begun.elapsed() < PATIENCE, "firewalld does not stop");
        sleep(Duration::from_millis(100));
    }
}

fn process(lab: &Lab) -> Option<String> {
    lab.inside(|| {
        let all = fs::read_dir("/proc").expect("the process table").flatten();
        let mut names = all.filter_map(|e| e.file_name().into_string().ok());
        names.find(|pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // One that has ended waits for the lab to end.
            comm == "firewalld\n" && !state.contains(") Z ")
        })
    })
}
