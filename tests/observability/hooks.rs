//! The operator's command: told of changes and failures, and unable to do harm to the run.

use std::{
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{configure, done, host, sync_to, warnings};
use crate::{lab::Lab, run::list_with};

/// A program on the host.
fn program(lab: &Lab, path: &str, script: &str) {
    lab.write_file(path, format!("#!/bin/sh\n{script}\n"));
    lab.chmod(path, 0o755);
}

#[test]
fn it_gets_the_report_when_the_work_is_done_and_only_then() {
    let lab =
        host("[on_change]\ncommand = [\"/usr/local/bin/hook\", \"two words\"]\n[on_failure]\ncommand = [\"hook\"]");
    let script = "cat >/run/report.$EDGEALLOW_EVENT\nenv >/run/env\necho \"$1\" >/run/args\n\
                  flock -n /run/edgeallow.lock cp /var/lib/edgeallow/state.json /run/state.seen";
    program(&lab, "/usr/local/bin/hook", script);
    let dry = sync_to(&lab, "9.9.9.0/24", &["--dry-run"]).expect_ok().json();
    assert!(dry["changed"] == true && !lab.exists("/run/report.change"), "a dry run tells nobody: {dry:#}");

    let report = done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    assert_eq!(warnings(&report, "hook-failed"), [""; 0]);
    let seen: Value = serde_json::from_str(&lab.read_file("/run/report.change")).expect("the hook got JSON");
    assert_eq!(seen, report);
    assert_eq!(lab.read_file("/run/args"), "two words\n");
    assert_eq!(lab.read_file("/run/state.seen"), lab.read_file("/var/lib/edgeallow/state.json"), "saved and unlocked");
    let env = lab.read_file("/run/env");
    for line in ["EDGEALLOW_EVENT=change", "EDGEALLOW_COMMAND=sync", "EDGEALLOW_EXIT_STATUS=0", "LC_ALL=C.UTF-8"] {
        assert!(env.lines().any(|l| l == line), "{line} in {env}");
    }
    let allowed = ["EDGEALLOW_", "PATH=", "LC_ALL=", "PWD=", "SHLVL=", "OLDPWD=", "_="];
    assert!(env.lines().all(|l| allowed.iter().any(|a| l.starts_with(a))), "{env}");

    lab.run(["rm", "/run/report.change"]);
    done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    assert!(!lab.exists("/run/report.change"), "nothing has changed");

    // A list that can't be trusted, which is the tool's own verdict and stays it.
    lab.write_file("/run/lists/bad", "<html>");
    let failed = lab.edgeallow(["sync", "--format", "json", "--list", "/run/lists/bad"]).expect(3).json();
    let seen: Value = serde_json::from_str(&lab.read_file("/run/report.failure")).expect("the hook got JSON");
    assert_eq!(seen, failed);
    assert!(lab.read_file("/run/env").contains("EDGEALLOW_EXIT_STATUS=3"));

    lab.run(["rm", "/run/report.failure"]);
    lab.edgeallow(["remove"]).expect_ok();
    assert!(lab.read_file("/run/report.change").contains("\"remove\""));
    assert!(!lab.exists("/run/report.failure"));
}

#[test]
fn another_run_at_work_is_no_failure() {
    let lab = host("[on_failure]\ncommand = [\"touch\", \"/run/told\"]");
    let list = list_with(&lab, "list", &[]);
    let run = format!("flock /run/edgeallow.lock edgeallow sync --lock-timeout 0 --list {list}");
    lab.run(["touch", "/run/edgeallow.lock"]);
    lab.command(["sh", "-c", &run]).run().expect(75);
    assert!(!lab.exists("/run/told"));
}

#[test]
fn whatever_it_does_the_sync_is_done() {
    let lab = host("");
    // Only the first is out of time, however slow the machine; with the others' time no run would end soon enough.
    for (n, (timeout, script, words)) in [
        ("1s", "sleep 300 & trap '' TERM; sleep 300", Some("did not finish within 1 s and was killed")),
        ("2m", "echo all is lost >&2; exit 3", Some("ended with status 3: all is lost")),
        ("2m", "kill -9 $$", Some("was ended by a signal")),
        ("2m", "head -c 2000000 /dev/urandom; head -c 2000000 /dev/urandom >&2", None),
        ("2m", "echo '{\"changed\": false}'", None),
        ("2m", "exec <&-; sleep 0.1", None),
        ("2m", "head -c 1 >/dev/null", None),
        ("2m", "setsid sleep 300 & exit 0", None),
    ]
    .into_iter()
    .enumerate()
    {
        program(&lab, "/usr/local/bin/hook", script);
        configure(&lab, &format!("[on_change]\ncommand = [\"hook\"]\ntimeout = \"{timeout}\""));
        let began = Instant::now();
        let output = sync_to(&lab, &format!("9.9.{n}.0/24"), &[]);
        assert_eq!(output.stderr, "", "{script}");
        let report = done(&lab, output);
        assert!(began.elapsed() < Duration::from_secs(60), "{script}");
        assert_eq!(report["changed"], true, "{script}: {report:#}");
        let said = warnings(&report, "hook-failed");
        match words {
            Some(words) => assert!(said.len() == 1 && said[0].contains(words), "{script}: {said:?}"),
            None => assert_eq!(said, [""; 0], "{script}"),
        }
    }
    // One that isn't there, and one that isn't allowed to be run.
    lab.write_file("/usr/local/bin/plain", "echo");
    for (n, name) in ["/no/such/hook", "nohook", "plain", "/etc"].into_iter().enumerate() {
        configure(&lab, &format!("[on_change]\ncommand = [\"{name}\"]"));
        let report = done(&lab, sync_to(&lab, &format!("9.10.{n}.0/24"), &[]));
        let said = warnings(&report, "hook-failed");
        assert!(said.len() == 1 && said[0].contains(name), "{name}: {said:?}");
    }
}

#[test]
fn it_does_not_outlive_a_run_that_is_asked_to_end_and_the_report_is_there() {
    let hooks = "command = [\"hook\"]\nwebhook = \"http://127.0.0.1:9/x\"\ntimeout = \"300s\"";
    let lab = host(&format!("[on_change]\n{hooks}"));
    program(
        &lab,
        "/usr/local/bin/hook",
        "trap '' TERM INT HUP\necho $$ >/run/hook.new\nmv /run/hook.new /run/hook.pid\nsleep 300",
    );
    let asks = [(Signal::TERM, "9.9.1.0/24"), (Signal::INT, "9.9.2.0/24"), (Signal::HUP, "9.9.3.0/24")];
    for (signal, prefix) in asks {
        let list = list_with(&lab, "list", &[prefix]);
        let run = lab.inside(|| {
            // Whoever started the tests in the background may have had some of these ignored.
            let mut command = Command::new("/usr/bin/env");
            command.args(["--default-signal=TERM,INT,HUP", "/usr/local/bin/edgeallow"]);
            command.args(["sync", "--format", "json", "--list", &list]).env_clear().current_dir("/");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start edgeallow")
        });
        let began = Instant::now();
        while !lab.exists("/run/hook.pid") {
            assert!(began.elapsed() < Duration::from_secs(60), "no hook is run");
            sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_child(&run), signal).expect("ask it to end");
        let output = run.wait_with_output().expect("its end");
        assert_eq!(output.status.code(), Some(0), "{signal:?}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(warnings(&report, "hook-failed").len(), 1, "{report:#}");
        assert!(
            warnings(&report, "hook-failed")[0].ends_with("killed because edgeallow was asked to end"),
            "{report:#}"
        );
        let untold = "edgeallow was asked to end: the on_change webhook was not told";
        assert_eq!(warnings(&report, "hook-skipped"), [untold], "{report:#}");
        assert_eq!(report["changed"], true, "{report:#}");
        let lives = lab.command(["sh", "-c", "kill -0 $(cat /run/hook.pid)"]).run();
        assert_ne!(lives.status, Some(0), "{signal:?}: the hook goes on");
        lab.run(["rm", "/run/hook.pid"]);
    }
}

#[test]
fn for_people_a_failed_hook_is_a_warning_among_others() {
    let lab = host("[on_change]\ncommand = [\"false\"]");
    let list = list_with(&lab, "list", &[]);
    let output = lab.edgeallow(["sync", "-q", "--list", &list]).expect_ok();
    let words = "warning: the on_change command failed: false ended with status 1. [hook-failed]";
    assert!(output.stdout.contains(words) && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_example_command_sends_a_mail() {
    let lab = host("[on_change]\ncommand = [\"/usr/local/bin/hook\", \"admin@example.net\"]");
    program(&lab, "/usr/local/bin/mail", "echo \"$*\" >/run/mail; cat >>/run/mail");
    lab.write_file("/usr/local/bin/hook", include_str!("../../examples/hooks/mail.sh"));
    lab.chmod("/usr/local/bin/hook", 0o755);
    let report = done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    assert_eq!(warnings(&report, "hook-failed"), [""; 0]);
    let mail = lab.read_file("/run/mail");
    assert!(mail.starts_with("-s edgeallow: change on lab (sync, status 0) admin@example.net\n"), "{mail}");
    assert!(mail.contains("\"9.9.9.0/24\""), "{mail}");
}
