//! A real Apache with mod_evasive, flooded from Cloudflare's addresses and a stranger's; one test for each trap.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    lab::{EDGE4, Lab, OTHER_EDGE4, STRANGER4, diff},
    run::{expect_status, part_of, remove, sync, try_sync},
};

const OURS: &str = "/etc/apache2/conf-enabled/edgeallow-evasive.conf";

/// Apache with one process, because each counts for itself, on port 8080 so that the lab's own listeners may stay.
fn stopped() -> Lab {
    let lab = Lab::new();
    install(&lab);
    lab
}

/// The same in a host that there is already.
pub fn install(lab: &Lab) {
    lab.install(&["apachectl"], "apache2 libapache2-mod-evasive");
    lab.write_file("/etc/apache2/ports.conf", "Listen 8080\nServerName lab\n");
    lab.write_file(
        "/etc/apache2/sites-enabled/000-default.conf",
        "<VirtualHost *:8080>\nDocumentRoot /var/www/html\n</VirtualHost>\n",
    );
    lab.write_file(
        "/etc/apache2/mods-enabled/evasive.conf",
        "DOSPageCount 3\nDOSSiteCount 20\nDOSPageInterval 5\nDOSSiteInterval 5\nDOSBlockingPeriod 30\n\
         DOSLogDir /var/log/evasive\n",
    );
    lab.write_file(
        "/etc/apache2/mods-enabled/mpm_event.conf",
        "StartServers 1\nServerLimit 1\nThreadsPerChild 16\nMaxRequestWorkers 16\nMinSpareThreads 1\nMaxSpareThreads 16\n",
    );
    lab.write_file("/var/www/html/index.html", "hello\n");
    lab.run(["mkdir", "-p", "/var/log/evasive", "/var/log/apache2"]);
    lab.run(["chown", "www-data", "/var/log/evasive"]);
}

pub(super) fn host() -> Lab {
    let lab = stopped();
    start(&lab);
    lab
}

const PID: &str = "/run/apache2/apache2.pid";

/// Starts Apache, and waits until it is at work: `apachectl` ends before its ports are open.
pub fn start(lab: &Lab) {
    lab.run(["apachectl", "start"]);
    await_workers(lab, &[]);
}

/// The processes that answer requests.
pub fn workers(lab: &Lab) -> Vec<u32> {
    lab.inside(|| {
        let main = fs::read_to_string(PID).unwrap_or_default();
        // The parent is the second word behind the program's name (proc(5)).
        let is_of_it = |stat: &str| stat.rsplit(") ").next()?.split(' ').nth(1).map(|parent| parent == main.trim());
        let all = fs::read_dir("/proc").expect("the process table").flatten();
        let numbers = all.filter_map(|e| e.file_name().to_str()?.parse().ok());
        let of_it =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| is_of_it(&s) == Some(true));
        numbers.filter(of_it).collect()
    })
}

/// Waits until all that answer are others than these. A graceful restart replaces them one after the other.
pub fn await_workers(lab: &Lab, before: &[u32]) {
    let start = Instant::now();
    loop {
        let now = workers(lab);
        if !now.is_empty() && now.iter().all(|pid| !before.contains(pid)) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "Apache's processes were {before:?} and are {now:?}");
        sleep(Duration::from_millis(20));
    }
}

const PATIENCE: Duration = Duration::from_secs(90);

/// Forty requests from an address: how many were not answered 200.
pub fn refused(lab: &Lab, from: &str) -> u32 {
    let ab = ["ab", "-q", "-n", "40", "-c", "2", "-B", from, "http://192.0.2.1:8080/index.html"];
    let out = lab.command(ab).on_the_internet().run().expect_ok().stdout;
    let count = |what: &str| {
        let line = out.lines().find_map(|l| l.trim().strip_prefix(what));
        line.map_or(0, |n| n.trim().parse().unwrap_or_else(|_| panic!("{out}")))
    };
    assert_eq!(count("Complete requests:"), 40, "{out}");
    count("Non-2xx responses:")
}

#[test]
fn floods_from_cloudflare_are_answered_throughout_and_a_strangers_are_not() {
    let lab = host();
    assert!(refused(&lab, EDGE4) > 0, "mod_evasive refuses before");
    let before = workers(&lab);
    let report = sync(&lab, &[]);
    await_workers(&lab, &before);
    assert_eq!(part_of(&report, "mod_evasive")["state"], "applied", "{report:#}");
    for edge in [EDGE4, OTHER_EDGE4] {
        assert_eq!(refused(&lab, edge), 0, "{edge}");
    }
    assert!(refused(&lab, STRANGER4) > 0);
    let lines = lab.read_file(OURS).lines().filter(|l| l.trim().starts_with("DOSWhitelist ")).count();
    assert_eq!(lines, 346);
    let warned = report["warnings"].as_array().is_some_and(|w| w.iter().any(|w| w["id"] == "mod-evasive-ipv6"));
    assert!(warned, "IPv6 is a limit that is said: {report:#}");
    expect_status(&lab, 0);
}

#[test]
fn cidr_is_silently_ignored_by_1_10_1() {
    let lab = stopped();
    lab.write_file("/etc/apache2/conf-enabled/his.conf", "DOSWhitelist 173.245.48.0/20\n");
    lab.run(["apachectl", "configtest"]);
    start(&lab);
    assert!(refused(&lab, EDGE4) > 0);
    let before = workers(&lab);
    sync(&lab, &[]);
    await_workers(&lab, &before);
    assert_eq!(refused(&lab, EDGE4), 0);
}

#[test]
fn a_dos_directive_inside_a_later_virtual_host_wipes_the_list_so_it_is_read_last() {
    let lab = host();
    let before = workers(&lab);
    sync(&lab, &[]);
    await_workers(&lab, &before);
    let site = "<VirtualHost *:8080>\nDocumentRoot /var/www/html\nDOSPageCount 3\n</VirtualHost>\n";
    lab.write_file("/etc/apache2/sites-enabled/000-default.conf", site);
    let before = workers(&lab);
    lab.run(["apachectl", "graceful"]);
    await_workers(&lab, &before);
    assert!(refused(&lab, OTHER_EDGE4) > 0);
    let before = workers(&lab);
    let report = sync(&lab, &[]);
    assert_eq!(part_of(&report, "mod_evasive")["state"], "applied", "{report:#}");
    await_workers(&lab, &before);
    for edge in [EDGE4, OTHER_EDGE4] {
        assert_eq!(refused(&lab, edge), 0, "{edge}");
    }
    assert!(!lab.exists(OURS) && lab.exists("/etc/apache2/sites-enabled/zzz-edgeallow-evasive.conf"));
    let warned = report["warnings"].as_array().is_some_and(|w| w.iter().any(|w| w["id"] == "mod-evasive-vhost"));
    assert!(warned, "{report:#}");
    expect_status(&lab, 0);
}

/// Waits until an address fares like this: which of several restarts was the last is not known.
pub(super) fn wait_for(lab: &Lab, from: &str, good: impl Fn(u32) -> bool) {
    let start = Instant::now();
    while !good(refused(lab, from)) {
        assert!(start.elapsed() < PATIENCE, "Apache doesn't read its new configuration");
        sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_second_sync_changes_nothing_and_only_looks() {
    let lab = host();
    sync(&lab, &[]);
    let stamps = || lab.stamps(&["/etc", "/run/apache2", "/usr/sbin"]);
    let before = stamps();
    let start = Instant::now();
    let report = sync(&lab, &[]);
    println!("a sync with nothing to do took {:?}", start.elapsed());
    assert_eq!(part_of(&report, "mod_evasive")["state"], "in_sync", "{report:#}");
    let found = diff(&before, &stamps());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn drift_is_seen_and_healed() {
    let lab = host();
    sync(&lab, &[]);
    let harms: [&dyn Fn(); 2] = [&|| drop(lab.run(["a2disconf", "-q", "edgeallow-evasive"])), &|| {
        lab.write_file("/etc/apache2/conf-available/edgeallow-evasive.conf", "DOSWhitelist 203.0.113.*\n")
    }];
    for (i, harm) in harms.iter().enumerate() {
        harm();
        expect_status(&lab, 6);
        assert_eq!(sync(&lab, &[])["changed"], true, "drift {i}");
        expect_status(&lab, 0);
    }
}

#[test]
fn a_configtest_that_fails_already_is_refused() {
    let lab = host();
    lab.write_file("/etc/apache2/sites-enabled/broken.conf", "Nonsense\n");
    let before = lab.tree(&["/etc/apache2"]);
    let report = try_sync(&lab, &[]).expect(4).json();
    let said = part_of(&report, "mod_evasive")["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("fails already") && said.contains("broken.conf"), "{report:#}");
    let found = diff(&before, &lab.tree(&["/etc/apache2"]));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_breaks_the_configuration_goes_back_before_apache_reads_it() {
    let lab = host();
    let before = lab.tree(&["/etc/apache2"]);
    lab.run(["cp", "/usr/sbin/apachectl", "/usr/sbin/apachectl-real"]);
    lab.write_file(
        "/usr/sbin/apachectl",
        format!(
            "#!/bin/sh\nif [ \"$*\" = -t ] && [ -e {OURS} ]; then echo 'Syntax error' >&2; exit 1; fi\n\
             [ \"$1\" != graceful ] || echo graceful >>/run/graceful\nexec /usr/sbin/apachectl-real \"$@\"\n"
        ),
    );
    let report = try_sync(&lab, &[]).expect(4).json();
    assert_eq!(part_of(&report, "mod_evasive")["state"], "undone", "{report:#}");
    let found = diff(&before, &lab.tree(&["/etc/apache2"]));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn an_apache_that_is_stopped_is_not_started() {
    let lab = stopped();
    super::expect_nothing_of_ours(&lab, "mod_evasive");
    let report = sync(&lab, &[]);
    assert_eq!(part_of(&report, "mod_evasive")["state"], "pending", "{report:#}");
    let report = remove(&lab, &[]);
    assert_eq!(part_of(&report, "mod_evasive")["state"], "removed", "{report:#}");
    super::expect_nothing_of_ours(&lab, "mod_evasive");
    sync(&lab, &[]);
    assert!(!lab.exists(PID));
    start(&lab);
    expect_status(&lab, 0);
    assert_eq!(refused(&lab, EDGE4), 0);
}

#[test]
fn removal_restores_the_machine() {
    let lab = host();
    let before = lab.tree(&["/etc"]);
    sync(&lab, &[]);
    let report = remove(&lab, &[]);
    assert_eq!(part_of(&report, "mod_evasive")["state"], "removed", "{report:#}");
    let found = diff(&before, &lab.tree(&["/etc"]));
    assert!(found.is_empty(), "{}", found.join("\n"));
    wait_for(&lab, OTHER_EDGE4, |n| n > 0);
    assert_eq!(remove(&lab, &[])["changed"], false);
}
