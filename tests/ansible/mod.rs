//! The collection in `examples/ansible`, by the real ansible-core over the real OpenSSH, on hosts of three kinds.

mod fleet;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use fleet::{Fleet, HOSTS, Played};

use crate::{
    lab::{EDGES, Reach, Rules, STRANGERS, Tree, diff},
    run::{PORTS, PUBLISHED},
};

/// In none of the published ranges.
const NEWCOMER: &str = "9.9.9.9";
/// Another configuration than the default.
const CONFIGURATION: &str = r#"{"edgeallow_config": {"ports": [443], "removal_grace": "2h", "limits": {"min_v6": 2},
    "extra": ["198.51.100.7/32"], "iptables": {"persist": true}}}"#;
/// What `iptables` and its like are links to.
const IPTABLES: &str = "/usr/sbin/xtables-nft-multi";
/// What it says on a kernel without nf_tables.
const BROKEN: &str = "#!/bin/sh
echo 'iptables: Failed to initialize nft: Protocol not supported' >&2
exit 1
";

#[test]
fn a_fleet_by_the_oldest_ansible_core() {
    a_fleet("floor", &["2.16."]);
}

#[test]
fn a_fleet_by_the_newest_ansible_core() {
    // The second is the newest for Python 3.11 and older.
    a_fleet("newest", &["2.21.", "2.19."]);
}

/// From nothing to a list that has changed, with a host that is broken on the way.
fn a_fleet(environment: &str, versions: &[&str]) {
    let fleet = Fleet::new(environment);
    let told = fleet.ansible("ansible-playbook", &["--version"]).expect_ok().stdout;
    let first = told.lines().next().unwrap_or_default();
    println!("{first}");
    assert!(versions.iter().any(|v| first.contains(&format!("[core {v}"))), "{told}");
    let untouched = rules(&fleet);

    check_mode_changes_nothing(&fleet);
    the_first_run_changes_all_and_the_second_none(&fleet);
    a_changed_list_rolls_through(&fleet);
    a_broken_host_fails_alone(&fleet);
    where_cloudflare_is_refused_the_roll_out_stops(&fleet);
    absent_leaves_nothing(&fleet, &untouched);
}

#[test]
fn the_module_makes_the_right_thing_of_every_report() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ansible/module_test.py");
    for environment in ["floor", "newest"] {
        let python = fleet::environment(environment).join("bin/python");
        let output = Command::new(python).arg(tests).stdin(Stdio::null()).output().expect("start Python");
        assert!(output.status.success(), "{environment}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn rules(fleet: &Fleet) -> Vec<Rules> {
    fleet.hosts().map(|(_, lab)| lab.rules()).collect()
}

/// A run of the playbook for hosts that fetch nothing themselves.
fn site(fleet: &Fleet, args: &[&str]) -> Played {
    fleet.play("site", &[&["-e", "edgeallow_offline=true"], args].concat())
}

fn check_mode_changes_nothing(fleet: &Fleet) {
    let before = fleet.picture();
    let played = site(fleet, &["--check", "--diff"]);
    played.expect_all_changed();
    // The plan of the host that has the program: what would be run, why, and the lines of files.
    for words in ["# iptables: ", "EDGEALLOW", "# fail2ban: ", "zz-edgeallow.local", "173.245.48.0/20"] {
        assert!(played.said(words), "the plan doesn't speak of {words}: {:?}", played.output);
    }
    assert!(played.said("isn't installed here yet"), "{:?}", played.output);
    expect_same(&before, &fleet.picture(), "check mode", &played);
}

fn the_first_run_changes_all_and_the_second_none(fleet: &Fleet) {
    let played = site(fleet, &[]);
    played.expect_all_changed();
    for (name, lab) in fleet.hosts() {
        let (edges, strangers) = (lab.table(&EDGES, &PORTS), lab.table(&STRANGERS, &PORTS));
        assert!(edges.all_accepted(), "{name}: {edges:?}\n{:?}", played.output);
        assert!(strangers.none_accepted(), "{name}: {strangers:?}");
        assert!(lab.read_file("/etc/edgeallow/config.toml").starts_with('#'), "{name} has no configuration");
    }
    // Each has a schedule that names the program where it is.
    let [binary, package, image] = HOSTS.map(|name| fleet.host(name));
    assert!(binary.exists("/usr/local/bin/edgeallow") && !binary.exists("/etc/cron.d/edgeallow"));
    assert!(binary.exists("/etc/systemd/system/timers.target.wants/edgeallow.timer"), "the timer isn't enabled");
    assert!(binary.read_file("/etc/systemd/system/edgeallow.service.d/nftables.conf").contains("CAP_SYS_ADMIN"));
    for (lab, file, words) in [
        (binary, "/etc/systemd/system/edgeallow.service", "=/usr/local/bin/edgeallow sync --lock"),
        (package, "/etc/cron.d/edgeallow", " root /usr/bin/edgeallow sync --quiet "),
        (image, "/etc/cron.d/edgeallow", " root /usr/local/bin/edgeallow sync --offline --quiet "),
    ] {
        let text = lab.read_file(file);
        assert!(text.contains(words) && text.contains("sync"), "{file}: {text}");
    }
    package.run(["dpkg", "--verify", "edgeallow"]);

    let before = fleet.picture();
    let played = site(fleet, &["--diff"]);
    played.expect_unchanged();
    expect_same(&before, &fleet.picture(), "the second run", &played);
}

/// Fetched on the controller, handed to the hosts one after the other, with another configuration at that.
fn a_changed_list_rolls_through(fleet: &Fleet) {
    fleet.hosts().for_each(|(_, lab)| lab.internet_address(NEWCOMER));
    let list = write_list(fleet, &["9.9.9.0/24"]);
    let args = ["-e", list.as_str(), "-e", CONFIGURATION];

    // Without a fresh list no host is asked anything.
    let before = fleet.picture();
    let played = fleet.play("fleet", &["-e", "{\"edgeallow_fetch_arguments\": [\"--offline\"]}"]);
    assert!(played.output.status != Some(0) && played.said("only its built-in one"), "{:?}", played.output);
    assert!(!played.said("Validating arguments"), "{:?}", played.output);

    let played = fleet.play("fleet", &[["--check", "--diff"].as_slice(), &args].concat());
    played.expect_all_changed();
    assert!(played.output.stdout.matches("9.9.9.0/24").count() >= HOSTS.len(), "{:?}", played.output);
    expect_same(&before, &fleet.picture(), "check mode", &played);

    let played = fleet.play("fleet", &args);
    played.expect_all_changed();
    for (name, lab) in fleet.hosts() {
        assert_eq!(lab.connect(NEWCOMER, 443), Reach::Accepted, "{name}: {:?}", played.output);
        assert_ne!(lab.connect(NEWCOMER, 80), Reach::Accepted, "{name}");
        assert!(lab.read_file("/etc/edgeallow/config.toml").contains("ports = [443]"), "{name}");
    }
}

fn a_broken_host_fails_alone(fleet: &Fleet) {
    let broken = fleet.host("ipt3");
    broken.run(["cp", "-a", IPTABLES, "/mnt/iptables"]);
    let rules = broken.rules();
    broken.files(|| {
        fs::remove_file(IPTABLES)?;
        fs::write(IPTABLES, BROKEN)?;
        fs::set_permissions(IPTABLES, fs::Permissions::from_mode(0o755))
    });
    // Without the configuration of the last run: port 80 is opened again.
    let played = site(fleet, &[]);
    assert_eq!(played.output.status, Some(2), "{:?}", played.output);
    assert_eq!(played.hosts_with("failed"), ["ipt3"], "{:?}", played.output);
    assert!(played.said("Failed to initialize nft: Protocol not supported"), "{:?}", played.output);
    for name in ["nft1", "ufw2"] {
        assert_eq!(fleet.host(name).connect(NEWCOMER, 80), Reach::Accepted, "{name}: {:?}", played.output);
    }
    broken.run(["cp", "-a", "/mnt/iptables", IPTABLES]);
    assert_eq!(rules, broken.rules());
}

/// A rule that isn't edgeallow's, and where it has none, stands in the way on the second host: the first is done, the
/// third isn't touched.
fn where_cloudflare_is_refused_the_roll_out_stops(fleet: &Fleet) {
    let [first, second, third] = HOSTS.map(|name| fleet.host(name));
    second.feed(
        ["nft", "-f", "-"],
        "table inet audit { chain early { type filter hook prerouting priority raw; policy accept; \
         ip saddr 173.245.48.0/20 tcp dport 443 drop comment \"until the audit is over\"; }; }",
    );
    let before = third.rules();
    let list = write_list(fleet, &["9.9.9.0/24", "9.9.8.0/24"]);
    let played = fleet.play("fleet", &["-e", &list]);
    assert_ne!(played.output.status, Some(0), "{:?}", played.output);
    assert_eq!(played.hosts_with("failed"), ["ufw2"], "{:?}", played.output);
    assert!(played.said("port 443/tcp is refused") && played.said("until the audit is over"), "{:?}", played.output);
    for (lab, reached) in [(first, true), (second, true), (third, false)] {
        assert_eq!(lab.rules().0.contains("9.9.8.0/2"), reached, "{:?}", played.output);
    }
    assert_eq!(before, third.rules(), "{:?}", played.output);
    second.run(["nft", "delete", "table", "inet", "audit"]);
}

fn absent_leaves_nothing(fleet: &Fleet, untouched: &[Rules]) {
    let played = site(fleet, &["-e", "edgeallow_state=absent"]);
    played.expect_all_changed();
    for ((name, lab), before) in fleet.hosts().zip(untouched) {
        assert_eq!(lab.rules(), *before, "{name}: {:?}", played.output);
        for path in ["/etc/edgeallow", "/var/lib/edgeallow", "/etc/cron.d/edgeallow", "/usr/bin/edgeallow"] {
            assert!(!lab.exists(path), "{path} is left on {name}: {:?}", played.output);
        }
    }
    assert!(!fleet.host("nft1").exists("/usr/local/bin/edgeallow"));
}

/// Writes a list on the controller, and returns the variable that makes the playbook read it.
fn write_list(fleet: &Fleet, more: &[&str]) -> String {
    let path = "/var/fleet/list.txt";
    let list: String = PUBLISHED.iter().chain(more).map(|p| format!("{p}\n")).collect();
    fleet.controller().write_file(path, list);
    format!("{{\"edgeallow_fetch_arguments\": [\"--list\", \"{path}\"]}}")
}

fn expect_same(before: &[(Rules, Tree)], after: &[(Rules, Tree)], who: &str, played: &Played) {
    for (name, (before, after)) in HOSTS.iter().zip(before.iter().zip(after)) {
        assert!(before.0 == after.0, "{who} changed rules on {name}:\n{:?}\n{:?}", before.0, after.0);
        let found = diff(&before.1, &after.1);
        assert!(found.is_empty(), "{who} changed files on {name}: {found:#?}\n{:?}", played.output);
    }
}
