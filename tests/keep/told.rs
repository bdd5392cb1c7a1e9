//! What `edgeallow keep` tells: hooks are run and metrics written, and nothing of that holds up a heal.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{host, keeper::Keeper};
use crate::{
    conformance::nftables,
    exposition::{Exposition, read},
    lab::{EDGE4, Lab, Reach},
};

const FILE: &str = "/var/lib/node/edgeallow.prom";
const KEEP: [(&str, &str); 1] = [("command", "keep")];

/// A host that is kept, and a program there for hooks, which does this.
fn hooked(script: &str) -> Lab {
    let lab = host(&nftables::WITH_INCLUDE);
    lab.write_file("/usr/local/bin/hook", format!("#!/bin/sh\n{script}\n"));
    lab.chmod("/usr/local/bin/hook", 0o755);
    lab
}

fn configure(lab: &Lab, config: &str) {
    let include = lab.exists("/etc/edgeallow/config.toml").then(|| lab.read_file("/etc/edgeallow/config.toml"));
    let include = include.unwrap_or_default();
    lab.write_file("/etc/edgeallow/config.toml", format!("{config}\n{include}"));
}

const BOTH: &str = "[on_change]\ncommand = [\"hook\"]\n[on_failure]\ncommand = [\"hook\"]";

/// Writes down each report that it gets, with the event as its name.
const NOTES: &str = "n=$(ls /run/told 2>/dev/null | wc -l); mkdir -p /run/told; cat >/run/$$ && \
                     mv /run/$$ /run/told/$(printf %03d $n).$EDGEALLOW_EVENT";

/// The reports that hooks got so far, with their events.
fn told(lab: &Lab) -> Vec<(String, Value)> {
    let tree = if lab.exists("/run/told") { lab.tree(&["/run/told"]) } else { return vec![] };
    let names = tree.into_keys().filter(|name| name.contains("/told/"));
    let read = |name: String| {
        let report = serde_json::from_str(&lab.read_file(&name)).expect("JSON");
        (name.rsplit('.').next().unwrap_or_default().to_owned(), report)
    };
    names.map(read).collect()
}

fn events(lab: &Lab) -> Vec<String> {
    told(lab).into_iter().map(|(event, _)| event).collect()
}

fn metrics(lab: &Lab) -> Exposition {
    let text = lab.read_file(FILE);
    read(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn hooks_hear_of_heals_and_of_one_that_is_undone_again_and_again() {
    let lab = hooked(NOTES);
    configure(&lab, BOTH);
    let keeper = Keeper::start(&lab, &[]);
    assert_eq!(told(&lab).len(), 0, "a look that finds nothing tells nobody");
    keeper.harmed_and_healed(1);
    keeper.wait_until("the hook to be told", || told(&lab).len() == 1);
    let (event, report) = told(&lab).remove(0);
    assert_eq!((event.as_str(), &report["command"], &report["changed"]), ("change", &"keep".into(), &true.into()));
    assert_eq!(
        (&report["backends"][0]["name"], &report["backends"][0]["state"]),
        (&"nftables".into(), &"applied".into())
    );
    for heals in 2..=6 {
        keeper.harmed_and_healed(heals);
    }
    keeper.wait_for("SOMETHING KEEPS UNDOING", 1);
    keeper.wait_until("the hooks to be told", || told(&lab).len() == 7);
    assert_eq!(events(&lab)[1..], ["change", "change", "change", "change", "change", "failure"]);
    let (_, last) = told(&lab).pop().expect("a report");
    assert!(last["warnings"].as_array().is_some_and(|all| all.iter().any(|w| w["id"] == "undone-again")), "{last:#}");
    keeper.end();
}

#[test]
fn hooks_hear_once_of_what_fails_and_of_a_configuration_that_can_t_be_read() {
    let lab = hooked(NOTES);
    configure(&lab, BOTH);
    let good = lab.read_file("/etc/edgeallow/config.toml");
    let keeper = Keeper::start(&lab, &["--look-every", "1"]);
    lab.write_file("/etc/edgeallow/config.toml", "prots = [80]\n");
    keeper.wait_until("the hook to be told", || told(&lab).len() == 1);
    let (event, report) = told(&lab).remove(0);
    assert!(event == "failure" && report["error"]["kind"] == "config", "{event}: {report:#}");
    // The same failure is found again, and is no news.
    keeper.signal(Signal::HUP);
    keeper.wait_for("asked to look again", 1);
    let looks = keeper.said("looked for");
    keeper.wait_for("looked for", looks + 2);
    assert_eq!(events(&lab), ["failure"]);
    // When it was mended it may be told again.
    lab.write_file("/etc/edgeallow/config.toml", &good);
    keeper.wait_for("the configuration can be read again, and counts", 1);
    lab.write_file("/etc/edgeallow/config.toml", "prots = [80]\n");
    keeper.wait_until("the hook to be told", || told(&lab).len() == 2);
    keeper.end();
}

#[test]
fn a_hook_that_hangs_holds_up_no_heal_no_signal_and_no_end() {
    let lab = hooked("echo x >>/run/begun; trap '' TERM; sleep 300 & sleep 300");
    configure(&lab, "[on_change]\ncommand = [\"hook\"]\ntimeout = \"100s\"");
    let keeper = Keeper::start(&lab, &[]);
    keeper.harmed_and_healed(1);
    keeper.wait_until("the hook to hang", || lab.exists("/run/begun"));
    let mut best = Duration::MAX;
    for _ in 0..3 {
        best = best.min(keeper.heals(|lab| drop(lab.run(["nft", "flush", "chain", "inet", "filter", "input"]))));
    }
    assert!(best < Duration::from_secs(2), "{best:?}\n{}", keeper.log());
    keeper.signal(Signal::HUP);
    keeper.wait_for("asked to look again", 1);
    assert_eq!(lab.read_file("/run/begun"), "x\n", "one after the other");
    // Asked to end it gives the hook a little time, and kills it then with what it has started.
    let log = || keeper_log(&lab);
    let took = keeper.end();
    assert!(took < Duration::from_secs(10), "{took:?}\n{}", log());
    assert!(log().contains("hook was killed because edgeallow was asked to end [hook-failed]"), "{}", log());
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
}

fn keeper_log(lab: &Lab) -> String {
    lab.read_file("/run/keep.log")
}

#[test]
fn a_hook_that_takes_too_long_is_killed_and_said_and_the_next_one_is_run() {
    let lab = hooked("[ -e /run/begun ] && exec touch /run/again; touch /run/begun; sleep 300");
    lab.run(["mkdir", "/var/lib/node"]);
    let config = format!("metrics = \"{FILE}\"\n[on_change]\ncommand = [\"hook\"]\ntimeout = \"1s\"");
    configure(&lab, &config);
    let keeper = Keeper::start(&lab, &["--look-every", "1"]);
    keeper.harmed_and_healed(1);
    keeper.wait_for("the on_change command failed: hook did not finish within 1 s and was killed [hook-failed]", 1);
    let failed = [("command", "keep"), ("id", "hook-failed")];
    keeper.wait_until("the metrics to tell of it", || metrics(&lab).get("edgeallow_warnings", &failed) == Some(1.0));
    lab.run(["nft", "flush", "chain", "inet", "filter", "input"]);
    keeper.wait_until("the hook to be run again", || lab.exists("/run/again"));
    keeper.wait_until("the metrics to forget it", || metrics(&lab).get("edgeallow_warnings", &failed).is_none());
    keeper.end();
}

#[test]
fn a_webhook_is_told_unless_no_connection_may_be_opened() {
    let lab = hooked("");
    let listener = lab.inside(|| TcpListener::bind("127.0.0.1:0")).expect("a port on loopback");
    let url = format!("http://{}/T0-secret", listener.local_addr().expect("it has an address"));
    configure(&lab, &format!("[on_change]\nwebhook = \"{url}\"\ntimeout = \"5s\""));
    // Ours goes, and loopback stays open for the server.
    let harm = || {
        drop(lab.feed(["nft", "-f", "-"], "flush chain inet filter input\nadd rule inet filter input iif lo accept"))
    };
    let keeper = Keeper::start(&lab, &["--offline"]);
    harm();
    keeper.wait_for("--offline: the on_change webhook was not told [hook-skipped]", 1);
    keeper.end();

    listener.set_nonblocking(true).expect("a listener that doesn't wait");
    let keeper = Keeper::start(&lab, &[]);
    harm();
    let mut accepted = None;
    keeper.wait_until("a connection", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (mut connection, _) = accepted.expect("a connection");
    connection.set_nonblocking(false).expect("a connection that waits");
    connection.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    let mut request = String::new();
    while !request.contains("confirmed") {
        let mut space = [0; 2048];
        let length = connection.read(&mut space).unwrap_or_else(|e| panic!("{e} after {request}"));
        assert!(length > 0, "{request}");
        request.push_str(&String::from_utf8_lossy(&space[..length]));
    }
    assert!(request.starts_with("POST /T0-secret ") && request.contains("edgeallow keep on lab: "), "{request}");
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("answer");
    assert!(!keeper.log().contains("secret"), "{}", keeper.log());
    keeper.end();
}

#[test]
fn metrics_tell_of_heals_and_of_quiet_looks() {
    let lab = host(&nftables::WITH_INCLUDE);
    lab.run(["mkdir", "/var/lib/node"]);
    let keeper = Keeper::start(&lab, &["--look-every", "1", "--metrics", FILE]);
    let value = |name: &str| metrics(&lab).value(name, &KEEP);
    keeper.wait_until("the metrics", || lab.exists(FILE));
    let first = value("edgeallow_last_success_timestamp_seconds");
    keeper.wait_until("a newer success", || value("edgeallow_last_success_timestamp_seconds") > first);
    assert_eq!(metrics(&lab).value("edgeallow_backend_state", &[("backend", "nftables"), ("state", "in_sync")]), 1.0);
    keeper.end();

    // Every ten minutes there is a quiet look; a heal is told at once.
    let keeper = Keeper::start(&lab, &["--metrics", FILE]);
    let before = value("edgeallow_last_success_timestamp_seconds");
    keeper.harmed_and_healed(1);
    keeper.wait_until("the heal to be told", || value("edgeallow_last_run_changes") > 0.0);
    assert!(value("edgeallow_last_success_timestamp_seconds") > before);
    assert_eq!(value("edgeallow_last_run_exit_status"), 0.0);

    // A folder that is gone is said once, and holds up nothing.
    lab.files(|| std::fs::remove_dir_all("/var/lib/node"));
    for heals in 2..=3 {
        keeper.harmed_and_healed(heals);
    }
    keeper.wait_for("[metrics-failed]", 1);
    assert_eq!(keeper.said("metrics-failed"), 1, "{}", keeper.log());
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
    keeper.end();
}

#[test]
fn with_hooks_and_metrics_it_still_sleeps_when_there_is_nothing_to_do() {
    let lab = hooked("true");
    lab.run(["mkdir", "/var/lib/node"]);
    configure(&lab, &format!("metrics = \"{FILE}\"\n{BOTH}"));
    let keeper = Keeper::start(&lab, &[]);
    keeper.harmed_and_healed(1);
    keeper.wait_until("the hook's thread to be gone", || keeper.status("Threads") == 1);
    // What was heard of the heal itself may be looked at once more.
    keeper.wait_until("the last look to be over", || {
        let was = lab.read_file(FILE);
        sleep(Duration::from_millis(1500));
        lab.read_file(FILE) == was
    });
    let (metrics, switches) = (lab.read_file(FILE), keeper.status("voluntary_ctxt_switches"));
    let start = Instant::now();
    // This is not waiting for something: for five seconds nothing may happen.
    while start.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(500));
        assert_eq!(metrics, lab.read_file(FILE));
    }
    let woken = keeper.status("voluntary_ctxt_switches") - switches;
    assert!(woken <= 1, "it woke up {woken} times in five seconds of idleness");
    keeper.end();
}
