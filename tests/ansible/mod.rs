//! The collection in `examples/ansible`, by the real ansible-core over the real OpenSSH, on hosts of three kinds.

mod fleet;

use std::{
    fs,
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
const SYSTEMCTL: &str = "/usr/bin/systemctl";
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

/// One host with systemd, whose operator changes his mind.
#[test]
fn what_is_no_longer_wanted_goes_and_no_secret_is_shown() {
    let fleet = Fleet::new("newest");
    let untouched = fleet.host("nft1").rules();
    let first = site(&fleet, &["--limit", "nft1"]);
    assert_eq!(first.output.status, Some(0), "{:?}", first.output);
    other_units_take_the_place_of_the_first(&fleet);
    secrets_are_not_shown(&fleet);
    rules_go_also_where_a_unit_cannot_be_stopped(&fleet, &untouched);
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
    broken.files(|| fs::remove_file(IPTABLES));
    broken.write_file(IPTABLES, BROKEN);
    broken.chmod(IPTABLES, 0o755);
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

/// What is no longer wanted goes, what is new comes, and the keeper learns of it; then there is nothing left to do.
fn other_units_take_the_place_of_the_first(fleet: &Fleet) {
    const WANTED: &str = r#"{"edgeallow_units": ["edgeallow-fetch.timer", "edgeallow-keep.service"],
        "edgeallow_drop_ins": ["metrics"], "edgeallow_config": {"metrics": "/srv/metrics/edgeallow.prom"},
        "edgeallow_sync": false}"#;
    let host = fleet.host("nft1");
    let there = |path: &str| host.exists(&format!("/etc/systemd/system/{path}"));
    let play = |args: &[&str]| site(fleet, &[&["--limit", "nft1"], args].concat());
    let unwanted = [
        "edgeallow.timer",
        "timers.target.wants/edgeallow.timer",
        "edgeallow-restore.service",
        "multi-user.target.wants/edgeallow-reload.service",
        "multi-user.target.wants/edgeallow-reload-late.service",
    ];
    let wanted = [
        "edgeallow-fetch.timer",
        "timers.target.wants/edgeallow-fetch.timer",
        "edgeallow-apply.service",
        "multi-user.target.wants/edgeallow-keep.service",
        "edgeallow-keep.service.d/metrics.conf",
        // The sync was left out: which backends there are is known all the same.
        "edgeallow-apply.service.d/nftables.conf",
    ];
    assert!(unwanted.iter().all(|path| there(path)) && !wanted.iter().any(|path| there(path)));
    let before = host.tree(&["/etc"]);
    let played = play(&["-e", WANTED, "--check"]);
    assert_eq!(played.output.status, Some(0), "{:?}", played.output);
    assert_eq!(diff(&before, &host.tree(&["/etc"])), [""; 0], "check mode: {:?}", played.output);
    for again in [false, true] {
        let played = play(&["-e", WANTED]);
        assert_eq!(played.output.status, Some(0), "{:?}", played.output);
        assert_eq!(played.count("nft1", "changed") > 0, !again, "{:?}", played.output);
        assert_eq!(played.said("Restart the keeper"), !again, "{:?}", played.output);
        for path in unwanted {
            assert!(!there(path), "{path} is still there: {:?}", played.output);
        }
        for path in wanted {
            assert!(there(path), "{path} isn't there: {:?}", played.output);
        }
    }
    let folder = host.read_file("/etc/systemd/system/edgeallow-keep.service.d/metrics-folder.conf");
    assert!(folder.contains("ReadWritePaths=-/srv/metrics\n"), "{folder}");
    // Who fetches could not read it.
    let closed = play(&["-e", WANTED, "-e", "edgeallow_config_mode=0600"]);
    assert!(
        closed.output.status != Some(0) && closed.said("edgeallow-fetch.service runs as a user"),
        "{:?}",
        closed.output
    );
    let back = play(&[]);
    assert_eq!(back.output.status, Some(0), "{:?}", back.output);
    for path in wanted.into_iter().chain(["edgeallow-keep.service.d/metrics-folder.conf"]) {
        assert!(!there(path), "{path} is still there: {:?}", back.output);
    }
    assert!(unwanted.iter().all(|path| there(path)), "{:?}", back.output);
}

/// The address of a webhook is in a file for root alone, or in the configuration, and in no output.
fn secrets_are_not_shown(fleet: &Fleet) {
    const SECRET: &str = "T0-secret-B0";
    let host = fleet.host("nft1");
    let in_a_file = format!(r#"{{"edgeallow_webhook": "https://hooks.example/{SECRET}"}}"#);
    let inside =
        format!(r#"{{"edgeallow_config": {{"on_failure": {{"webhook": "https://hooks.example/{SECRET}"}}}}}}"#);
    for variable in [&in_a_file, &inside] {
        for check in [true, false] {
            let more = if check { vec!["--check"] } else { vec![] };
            let args = [&["--limit", "nft1", "-e", variable.as_str(), "--diff", "-vvv"], more.as_slice()].concat();
            let output = site(fleet, &args).output;
            assert_eq!(output.status, Some(0), "{output:?}");
            let all = format!("{}{}", output.stdout, output.stderr);
            let shown: Vec<_> = all.lines().filter(|l| l.contains(SECRET)).collect();
            assert!(shown.is_empty(), "check mode {check}: {shown:#?}");
        }
    }
    // Where it doesn't belong it is refused, and the user learns why without seeing it.
    for (misplaced, told) in [
        (format!(r#""on_change": "https://hooks.example/{SECRET}""#), "`on_change`: what stands there can't be used"),
        (
            format!(r#""on_change": {{"command": "https://hooks.example/{SECRET}"}}"#),
            "`command`: what stands there can't be used",
        ),
        (
            format!(r#""on_change": {{"command": ["/bin/true"]}}, "extra": ["https://hooks.example/{SECRET}"]"#),
            "`extra`: what stands there can't be used",
        ),
    ] {
        let variable = format!(r#"{{"edgeallow_config": {{{misplaced}}}}}"#);
        let played = site(fleet, &["--limit", "nft1", "-e", &variable, "--diff"]);
        assert!(played.output.status != Some(0) && played.said(told), "{:?}", played.output);
        // The command line, which is part of an output's picture, has the secret in any case.
        assert!(!played.said(SECRET), "{:?}", played.output);
    }
    let tree = host.tree(&["/etc/edgeallow"]);
    assert!(tree["/etc/edgeallow/webhook"].starts_with("100600 0:0 "), "{tree:#?}");
    assert!(host.read_file("/etc/edgeallow/webhook").contains(SECRET));
    assert!(host.read_file("/etc/edgeallow/config.toml").contains(SECRET));
}

fn rules_go_also_where_a_unit_cannot_be_stopped(fleet: &Fleet, untouched: &Rules) {
    let host = fleet.host("nft1");
    host.run(["mv", SYSTEMCTL, "/mnt/systemctl"]);
    let stubborn = "#!/bin/sh\n[ \"$1\" = disable ] && { echo 'it stays' >&2; exit 1; }\nexec /mnt/systemctl \"$@\"\n";
    host.write_file(SYSTEMCTL, stubborn);
    host.chmod(SYSTEMCTL, 0o755);
    let args = ["--limit", "nft1", "-e", "edgeallow_state=absent"];
    // Nobody says where the program is: nothing is touched, and check mode says so.
    let before = (host.rules(), host.tree(&["/etc", "/var/lib/edgeallow"]));
    for check in [&["--check"][..], &[]] {
        let played = site(fleet, &[&args, check, &["-e", "edgeallow_artifact="]].concat());
        assert_eq!(played.hosts_with("failed"), ["nft1"], "{:?}", played.output);
        assert!(played.said("edgeallow_path") && played.said("edgeallow_artifact"), "{:?}", played.output);
        assert_eq!(host.rules(), before.0, "{:?}", played.output);
        assert_eq!(diff(&before.1, &host.tree(&["/etc", "/var/lib/edgeallow"])), [""; 0], "{:?}", played.output);
    }
    let played = site(fleet, &args);
    assert!(played.output.status != Some(0) && played.said("it stays"), "{:?}", played.output);
    assert_eq!(host.rules(), *untouched, "{:?}", played.output);
    assert!(host.exists("/usr/local/bin/edgeallow"), "the next run has nothing to work with: {:?}", played.output);
    host.run(["mv", "/mnt/systemctl", SYSTEMCTL]);
    let played = site(fleet, &args);
    assert_eq!(played.output.status, Some(0), "{:?}", played.output);
    assert!(!host.exists("/usr/local/bin/edgeallow") && !host.exists("/etc/systemd/system/edgeallow.timer"));
}

fn absent_leaves_nothing(fleet: &Fleet, untouched: &[Rules]) {
    // Where two of them write metrics; what stands in the third's place for them is somebody else's.
    let places = [("nft1", "/run/own.prom"), ("ufw2", "/run/own.prom"), ("ipt3", "/run/other.prom")];
    for (name, file) in places {
        let host = fleet.host(name);
        let config = host.read_file("/etc/edgeallow/config.toml");
        host.write_file("/etc/edgeallow/config.toml", format!("metrics = \"{file}\"\n{config}"));
        let own = if file.contains("other") { "other" } else { "edgeallow" };
        host.write_file(file, format!("# HELP {own}_x\n"));
    }
    // What systemd makes for the units. On the second host it isn't theirs alone.
    const BESIDE: &str = "/etc/systemd/system/nftables.service.d";
    const FETCHED: [&str; 2] = ["/var/lib/private/edgeallow-fetch", "/var/lib/edgeallow-fetch"];
    for name in ["nft1", "ufw2"] {
        let host = fleet.host(name);
        host.run(["mkdir", "-p", BESIDE, FETCHED[0]]);
        host.run(["ln", "-s", "private/edgeallow-fetch", FETCHED[1]]);
    }
    fleet.host("ufw2").write_file(&format!("{BESIDE}/own.conf"), "[Unit]\n");
    let played = site(fleet, &["-e", "edgeallow_state=absent"]);
    played.expect_all_changed();
    for (name, file) in places {
        assert_eq!(fleet.host(name).exists(file), file.contains("other"), "{name}: {:?}", played.output);
    }
    for ((name, lab), before) in fleet.hosts().zip(untouched) {
        assert_eq!(lab.rules(), *before, "{name}: {:?}", played.output);
        for path in ["/etc/edgeallow", "/var/lib/edgeallow", "/etc/cron.d/edgeallow", "/usr/bin/edgeallow"] {
            assert!(!lab.exists(path), "{path} is left on {name}: {:?}", played.output);
        }
    }
    let [first, second] = ["nft1", "ufw2"].map(|name| fleet.host(name));
    assert!(!first.exists("/usr/local/bin/edgeallow"));
    assert!(!first.exists(BESIDE) && second.exists(&format!("{BESIDE}/own.conf")), "{:?}", played.output);
    for path in FETCHED {
        assert!(!first.exists(path) && !second.exists(path), "{path} is left: {:?}", played.output);
    }
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
