//! A real fail2ban that watches a log file and bans with iptables; one test for each trap.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    lab::{EDGE4, EDGE6, EDGES, Lab, Output, Reach, STRANGER4, STRANGER6, diff},
    run::{expect_status, list_with, part_of, remove, sync, try_sync},
};

const LOG: &str = "/var/log/door.log";
/// Where a client that is recorded writes its arguments.
const STARTED: &str = "/run/started";
const OURS: &str = "/etc/fail2ban/jail.d/zz-edgeallow.local";

/// A jail that bans from ports 80 and 443 after two refused attempts.
pub const JAILS: &str = "\
[DEFAULT]
backend = polling
allowipv6 = auto
banaction = iptables-multiport
bantime = 1h
[door]
enabled = true
filter = door
logpath = /var/log/door.log
port = 80,443
maxretry = 2
";

/// A host whose fail2ban is configured and not running.
fn stopped(jails: &str) -> Lab {
    let lab = Lab::new();
    install(&lab, jails);
    lab
}

/// fail2ban with these jails, and a filter for the door; not running.
pub fn install(lab: &Lab, jails: &str) {
    lab.install(&["fail2ban-client"], "fail2ban");
    lab.run(["rm", "-f", "/etc/fail2ban/jail.d/defaults-debian.conf", "/var/lib/fail2ban/fail2ban.sqlite3"]);
    lab.run(["mkdir", "-p", "/run/fail2ban"]);
    lab.write_file(
        "/etc/fail2ban/filter.d/door.conf",
        "[Definition]\nfailregex = ^refused <HOST>$\ndatepattern = {NONE}\n",
    );
    lab.write_file("/etc/fail2ban/jail.local", jails);
    lab.write_file(LOG, "");
}

/// A host with a fail2ban at work.
pub(super) fn host(jails: &str) -> Lab {
    let lab = stopped(jails);
    start(&lab);
    lab
}

pub fn start(lab: &Lab) {
    lab.run(["fail2ban-client", "start"]);
}

pub(super) fn client(lab: &Lab, words: &str) -> Output {
    lab.run(std::iter::once("fail2ban-client").chain(words.split(' ')))
}

/// A client that does `first` before anything else, and writes down what it was started with.
fn wrap(lab: &Lab, first: &str) {
    lab.run(["cp", "/usr/bin/fail2ban-client", "/usr/bin/fail2ban-real"]);
    let script = format!("#!/bin/sh\n{first}\necho \"$*\" >>{STARTED}\nexec /usr/bin/fail2ban-real \"$@\"\n");
    lab.write_file("/usr/bin/fail2ban-client", script);
}

fn record(lab: &Lab) {
    wrap(lab, "");
}

/// Failed log-ins from each of these, enough for a ban.
fn attack(lab: &Lab, from: &[&str]) {
    let lines: String = from.iter().map(|a| format!("refused {a}\n").repeat(3)).collect();
    lab.feed(["tee", "-a", LOG], &lines);
}

/// Waits until an address is refused: fail2ban reads its log about once a second.
fn expect_banned(lab: &Lab, address: &str) {
    let start = Instant::now();
    while lab.connect(address, 443) == Reach::Accepted {
        assert!(start.elapsed() < Duration::from_secs(90), "{address} is not banned: {:?}", lab.rules());
        sleep(Duration::from_millis(100));
    }
}

/// A host on which two addresses of Cloudflare and two strangers were banned by what they did.
pub(super) fn under_attack(jails: &str) -> Lab {
    let lab = host(jails);
    attack_until_banned(&lab, &[EDGE4, EDGE6, STRANGER4, STRANGER6]);
    lab
}

/// Failed log-ins from each of these, until each is refused.
pub fn attack_until_banned(lab: &Lab, from: &[&str]) {
    attack(lab, from);
    from.iter().for_each(|a| expect_banned(lab, a));
}

fn expect_open_to_cloudflare(lab: &Lab) {
    let table = lab.table(&EDGES, &[80, 443]);
    assert!(table.all_accepted(), "{table:?}\n{:?}", lab.rules());
}

/// What `-d` says that a jail would ignore.
fn ignored(lab: &Lab, jail: &str) -> String {
    let dump = client(lab, "-d").stdout;
    let start = format!("['set', '{jail}', 'addignoreip'");
    dump.lines().find(|l| l.starts_with(&start)).unwrap_or_else(|| panic!("{dump}")).to_owned()
}

#[test]
fn ignoring_never_lifts_a_ban_so_bans_are_lifted_and_a_second_attack_brings_none_back() {
    let lab = under_attack(JAILS);
    let report = sync(&lab, &[]);
    assert_eq!(part_of(&report, "fail2ban")["state"], "applied", "{report:#}");
    expect_open_to_cloudflare(&lab);
    let strangers = lab.table(&[STRANGER4, STRANGER6], &[80, 443]);
    assert!(strangers.none_accepted(), "{strangers:?}");
    // The newcomer's lines come last: when it is banned, all before them were judged.
    lab.internet_addresses(["203.0.113.77", "2001:db8:bad::77"]);
    attack(&lab, &[EDGE4, EDGE6, "203.0.113.77", "2001:db8:bad::77"]);
    expect_banned(&lab, "203.0.113.77");
    expect_banned(&lab, "2001:db8:bad::77");
    expect_open_to_cloudflare(&lab);
    expect_status(&lab, 0);
}

#[test]
fn a_second_sync_changes_nothing_and_only_looks() {
    let lab = under_attack(JAILS);
    sync(&lab, &[]);
    let picture = || (lab.stamps(&["/etc", "/run/fail2ban"]), client(&lab, "get door ignoreip").stdout, lab.rules());
    record(&lab);
    let before = picture();
    lab.write_file(STARTED, "");
    let start = Instant::now();
    let report = sync(&lab, &[]);
    println!("a sync with nothing to do took {:?}", start.elapsed());
    assert_eq!(part_of(&report, "fail2ban")["state"], "in_sync", "{report:#}");
    let mut started: Vec<_> = lab.read_file(STARTED).lines().map(str::to_owned).collect();
    started.sort();
    assert_eq!(started, ["-d", "-i"]);
    assert!(before == picture(), "a sync with nothing to do left its mark");
}

#[test]
fn a_reload_drops_what_was_added_live_so_it_is_stored_too() {
    let lab = under_attack(JAILS);
    sync(&lab, &[]);
    client(&lab, "reload");
    expect_status(&lab, 0);
    lab.internet_address("203.0.113.77");
    attack(&lab, &[EDGE4, EDGE6, "203.0.113.77"]);
    expect_banned(&lab, "203.0.113.77");
    expect_open_to_cloudflare(&lab);
}

#[test]
fn every_drift_is_seen_and_healed() {
    let lab = under_attack(JAILS);
    sync(&lab, &[]);
    let harms: [&dyn Fn(); 4] = [
        &|| drop(client(&lab, "set door delignoreip 173.245.48.0/20")),
        &|| drop(client(&lab, &format!("set door banip {EDGE4}"))),
        &|| drop(lab.run(["rm", OURS])),
        &|| lab.write_file(OURS, "[DEFAULT]\nedgeallow_ips = 203.0.113.0/24\n"),
    ];
    for (i, harm) in harms.iter().enumerate() {
        harm();
        expect_status(&lab, 6);
        assert_eq!(sync(&lab, &[])["changed"], true, "drift {i}");
        expect_status(&lab, 0);
        expect_open_to_cloudflare(&lab);
    }
}

#[test]
fn his_known_ignoreip_does_not_recurse_and_his_own_addresses_stay() {
    // Without a default somewhere this would be his own "Bad value substitution".
    let jails = JAILS.replace("[DEFAULT]\n", "[DEFAULT]\nignoreip = 198.51.100.6\n");
    let jails = format!("{jails}ignoreip = %(known/ignoreip)s\r\n  # mine\n  198.51.100.7, ; home\n");
    let lab = under_attack(&jails);
    let report = sync(&lab, &[]);
    assert_eq!(part_of(&report, "fail2ban")["state"], "applied", "{report:#}");
    let line = ignored(&lab, "door");
    assert!(line.contains("'198.51.100.7'") && line.contains("'173.245.48.0/20'"), "{line}");
    // He adds another file that uses it, which is what would send two such files round in circles.
    lab.write_file("/etc/fail2ban/jail.d/his.local", "[door]\nignoreip = %(known/ignoreip)s 198.51.100.8\n");
    assert_eq!(sync(&lab, &[])["changed"], true);
    let line = ignored(&lab, "door");
    assert!(
        ["198.51.100.6", "198.51.100.7", "198.51.100.8", "2400:cb00::/32"].iter().all(|a| line.contains(a)),
        "{line}"
    );
    client(&lab, "restart");
    expect_status(&lab, 0);
    expect_open_to_cloudflare(&lab);
}

#[test]
fn ignoreip_defined_nowhere_is_no_bad_value_substitution_and_a_later_default_is_followed() {
    let lab = host(JAILS);
    sync(&lab, &[]);
    assert!(ignored(&lab, "door").contains("'173.245.48.0/20'"));
    lab.write_file("/etc/fail2ban/jail.local", JAILS.replace("[DEFAULT]\n", "[DEFAULT]\nignoreip = 198.51.100.9\n"));
    let line = ignored(&lab, "door");
    assert!(line.contains("'198.51.100.9'") && line.contains("'173.245.48.0/20'"), "{line}");
    expect_status(&lab, 0);
}

#[test]
fn stock_jails_enabled_later_are_covered() {
    let lab = host(JAILS);
    sync(&lab, &[]);
    lab.write_file("/etc/fail2ban/jail.local", format!("{JAILS}[sshd]\nenabled = true\nlogpath = {LOG}\n"));
    client(&lab, "reload");
    assert!(client(&lab, "get sshd ignoreip").stdout.contains("2400:cb00::/32"));
    expect_status(&lab, 0);
}

#[test]
fn a_server_that_is_down_gets_the_files_and_is_pending() {
    let lab = stopped(JAILS);
    super::expect_nothing_of_ours(&lab, "fail2ban");
    let report = sync(&lab, &[]);
    assert_eq!(part_of(&report, "fail2ban")["state"], "pending", "{report:#}");
    let report = remove(&lab, &[]);
    assert_eq!(part_of(&report, "fail2ban")["state"], "removed", "{report:#}");
    super::expect_nothing_of_ours(&lab, "fail2ban");
    sync(&lab, &[]);
    start(&lab);
    expect_status(&lab, 0);
    attack(&lab, &[EDGE4, EDGE6, STRANGER4]);
    expect_banned(&lab, STRANGER4);
    expect_open_to_cloudflare(&lab);
}

#[test]
fn bans_kept_over_a_restart_do_not_come_back() {
    let lab = under_attack(JAILS);
    client(&lab, "stop");
    let report = sync(&lab, &[]);
    assert_eq!(part_of(&report, "fail2ban")["state"], "pending", "{report:#}");
    start(&lab);
    expect_banned(&lab, STRANGER4);
    sync(&lab, &[]);
    expect_open_to_cloudflare(&lab);
}

#[test]
fn delignoreip_takes_only_its_first_argument_so_a_shorter_list_goes_one_by_one() {
    let lab = under_attack(JAILS);
    let list = list_with(&lab, "longer", &["9.9.9.0/24", "9.9.8.0/24", "2620:fe::/48"]);
    sync(&lab, &["--list", &list]);
    assert!(client(&lab, "get door ignoreip").stdout.contains("2620:fe::/48"));
    let list = list_with(&lab, "shorter", &[]);
    sync(&lab, &["--list", &list, "--remove-now"]);
    let live = client(&lab, "get door ignoreip").stdout;
    assert!(!live.contains("9.9.") && !live.contains("2620:fe") && live.contains("173.245.48.0/20"), "{live}");
    expect_status(&lab, 0);
}

#[test]
fn removal_restores_the_files_and_the_jails() {
    let lab = under_attack(&format!("{JAILS}ignoreip = 198.41.128.0/17\n"));
    let before = (lab.tree(&["/etc"]), client(&lab, "get door ignoreip").stdout);
    sync(&lab, &[]);
    let report = remove(&lab, &[]);
    assert_eq!(part_of(&report, "fail2ban")["state"], "removed", "{report:#}");
    let found = diff(&before.0, &lab.tree(&["/etc"]));
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(client(&lab, "get door ignoreip").stdout, before.1);
    attack(&lab, &[EDGE4]);
    expect_banned(&lab, EDGE4);
    assert_eq!(remove(&lab, &[])["changed"], false);
}

#[test]
fn a_configuration_that_fails_its_test_already_is_no_reason_to_give_up() {
    // A stock Debian fails `-t` for want of a log file.
    let lab = host(JAILS);
    lab.write_file("/etc/fail2ban/jail.d/stock.conf", "[sshd]\nenabled = true\nlogpath = /var/log/no-such.log\n");
    assert_ne!(lab.command(["fail2ban-client", "-t"]).run().status, Some(0));
    let report = sync(&lab, &[]);
    assert_eq!(part_of(&report, "fail2ban")["state"], "applied", "{report:#}");
}

#[test]
fn what_made_the_configuration_worse_goes_back() {
    let lab = host(JAILS);
    let before = (lab.tree(&["/etc"]), client(&lab, "get door ignoreip").stdout);
    // A fail2ban that can't stand our file.
    wrap(&lab, &format!("if [ \"$1\" = -d ] && [ -e {OURS} ]; then echo 'x ERROR too much' >&2; exit 255; fi"));
    let report = try_sync(&lab, &[]).expect(4).json();
    let part = part_of(&report, "fail2ban");
    assert_eq!(part["state"], "undone", "{report:#}");
    assert_eq!(part["error"]["kind"], "tool-config", "{report:#}");
    let found = diff(&before.0, &lab.tree(&["/etc"]));
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(client(&lab, "get door ignoreip").stdout, before.1);
}
