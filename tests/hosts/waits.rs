//! Runs that wait for their time, as those of a fleet do, and what may happen to the machine meanwhile.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::told;
use crate::{
    conformance::{Kind as _, nftables::WITH_INCLUDE},
    lab::{EDGE4, Lab, Reach},
    run::{remove, sync, try_sync},
};

/// A copy of the program, which a test may take away.
const PROGRAM: &str = "/usr/local/sbin/edgeallow";

/// A host with that copy, on which these ranges are let in.
fn applied() -> Lab {
    let lab = Lab::new();
    WITH_INCLUDE.setup(&lab);
    lab.run(["cp", "/usr/local/bin/edgeallow", PROGRAM]);
    sync(&lab, &[]);
    lab
}

/// Starts a sync, lets something happen while it waits, and lets it go on: its report. `before` is done before each try:
/// a sync that didn't wait for long enough to be held has done its work.
fn meanwhile(lab: &Lab, before: impl Fn(), what: impl FnOnce()) -> Value {
    let held = (0..50).find_map(|_| {
        before();
        hold(lab)
    });
    let held = held.expect("of fifty runs one waits for long enough");
    what();
    kill_process(Pid::from_child(&held), Signal::CONT).expect("let it go on");
    let output = held.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a report")
}

/// A sync that is stopped while it waits; none if it didn't have to wait for long enough to be met in it.
fn hold(lab: &Lab) -> Option<Child> {
    let mut child = lab.inside(|| {
        let mut command = Command::new(PROGRAM);
        command.args(["sync", "--offline", "--format", "json", "--random-delay", "4"]).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start edgeallow")
    });
    let of_it = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap_or_default();
    let waits = || {
        let number = of_it("syscall").split_whitespace().next().and_then(|n| n.parse().ok());
        number.is_some_and(|n: i64| n == libc::SYS_clock_nanosleep || n == libc::SYS_nanosleep)
    };
    // The state stands behind the program's name (proc(5)): Z, it has ended; T, it is stopped.
    let is = |state: &str| of_it("stat").rsplit(") ").next().is_some_and(|rest| rest.starts_with(state));
    let until = |fact: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !fact() && !is("Z") {
            assert!(start.elapsed() < Duration::from_secs(60), "it neither waits nor ends");
            sleep(Duration::from_millis(1));
        }
    };
    until(&waits);
    kill_process(Pid::from_child(&child), Signal::STOP).expect("hold it");
    until(&|| is("T"));
    if !is("Z") && waits() {
        return Some(child);
    }
    // Its wait was over before it stopped.
    kill_process(Pid::from_child(&child), Signal::CONT).expect("let it go on");
    child.wait().expect("its end");
    None
}

#[test]
fn what_was_removed_while_a_run_waited_stays_removed() {
    let lab = applied();
    let rules = lab.rules();
    let nothing = || ();
    let report = meanwhile(&lab, nothing, || drop(remove(&lab, &[])));
    assert_eq!((told(&report), &report["changed"]), (vec!["nothing-applied"], &false.into()), "{report:#}");
    assert_ne!(lab.connect(EDGE4, 443), Reach::Accepted);
    // Where nothing was applied before, a first sync is what was asked for.
    let report = meanwhile(&lab, || drop(remove(&lab, &[])), nothing);
    assert_eq!(report["changed"], true, "{report:#}");
    assert_eq!(lab.rules(), rules);
    // As is one that finds its rules gone, but not by its own hand.
    let report = meanwhile(&lab, nothing, || drop(lab.run(["nft", "flush", "chain", "inet", "filter", "input"])));
    assert_eq!((told(&report).contains(&"nothing-applied"), &report["changed"]), (false, &true.into()), "{report:#}");
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
}

#[test]
fn a_run_whose_program_was_removed_while_it_waited_does_nothing_and_one_that_was_upgraded_goes_on() {
    let lab = applied();
    let report = meanwhile(
        &lab,
        || (),
        || {
            lab.run(["nft", "flush", "chain", "inet", "filter", "input"]);
            lab.run(["cp", PROGRAM, "/usr/local/sbin/edgeallow.new"]);
            lab.run(["mv", "/usr/local/sbin/edgeallow.new", PROGRAM]);
        },
    );
    assert_eq!(report["changed"], true, "{report:#}");

    // Also where nobody took the rules out before.
    let everything = ["/etc/edgeallow", "/var/lib/edgeallow", PROGRAM];
    let report = meanwhile(
        &lab,
        || (),
        || {
            lab.run(["nft", "flush", "chain", "inet", "filter", "input"]);
            lab.run([["rm", "-r"].as_slice(), &everything].concat());
        },
    );
    assert_eq!((told(&report), &report["changed"]), (vec!["nothing-applied"], &false.into()), "{report:#}");
    assert!(everything.iter().all(|path| !lab.exists(path)), "something came back");
    assert_ne!(lab.connect(EDGE4, 443), Reach::Accepted);
}

#[test]
fn nothing_comes_back_while_a_package_takes_edgeallow_out() {
    const MARK: &str = "/run/edgeallow.leaving";
    let lab = applied();
    let rules = lab.rules();
    lab.write_file(MARK, "");
    remove(&lab, &[]);
    let bare = lab.rules();
    assert_ne!(bare, rules);
    // Nothing was applied when they began, so that nothing else holds them back.
    for more in [&["--metrics", "/run/own.prom"][..], &["--restore"], &["--random-delay", "1"]] {
        let report = try_sync(&lab, more).expect(75).json();
        assert_eq!((&report["error"]["kind"], &report["changed"]), (&"locked".into(), &false.into()), "{report:#}");
        assert!(report["error"]["hint"].as_str().is_some_and(|hint| hint.contains(MARK)), "{report:#}");
        assert_eq!(lab.rules(), bare);
    }
    assert!(!lab.exists("/run/own.prom"), "nobody looks after these figures any more");
    // Whoever only asks is told.
    assert_eq!(sync(&lab, &["--dry-run"])["changed"], true);
    // The package stays.
    lab.run(["rm", MARK]);
    sync(&lab, &[]);
    assert_eq!(lab.rules(), rules);
}
