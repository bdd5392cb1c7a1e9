//! A run that dies or fails between any two of its steps: the old state or the new one, and the next run converges.

use super::{fail2ban, mod_evasive};
use crate::{
    lab::{EDGE4, Lab, OTHER_EDGE4, Output},
    run::{expect_status, sync},
};

/// No plan here has so many steps.
const FAR: usize = 40;

/// A tool whose runs are struck.
struct Tool {
    host: fn() -> Lab,
    /// What a failed run has to leave as it was, and a later one has to bring about.
    picture: fn(&Lab) -> String,
    /// What has to be true after a sync besides.
    works: fn(&Lab),
}

const FAIL2BAN: Tool = Tool {
    host: || fail2ban::host(fail2ban::JAILS),
    picture: |lab| {
        let live = fail2ban::client(lab, "get door ignoreip").stdout;
        let mut live: Vec<_> = live.lines().map(|l| l.trim_start_matches(['|', '`', '-', ' '])).collect();
        live.sort_unstable();
        format!("{:?} {live:?}", lab.tree(&["/etc/fail2ban"]))
    },
    works: |_| {},
};

const MOD_EVASIVE: Tool = Tool {
    host: mod_evasive::host,
    picture: |lab| format!("{:?}", lab.tree(&["/etc/apache2"])),
    // A run that was cut off before `graceful` must not leave an Apache that never reads its list.
    works: |lab| {
        for edge in [OTHER_EDGE4, EDGE4] {
            mod_evasive::wait_for(lab, edge, |refused| refused == 0);
        }
    },
};

fn run(lab: &Lab, removing: bool, fault: Option<String>) -> Output {
    let args: &[&str] = if removing { &["remove"] } else { &["sync", "--offline"] };
    let command = lab.edgeallow_command(args);
    match fault {
        Some(fault) => command.env("EDGEALLOW_FAULT", fault).run(),
        None => command.run(),
    }
}

fn strike_everywhere(tool: &Tool, how: &str, removing: bool) {
    let prepared = || {
        let lab = (tool.host)();
        if removing {
            sync(&lab, &[]);
        }
        lab
    };
    let lab = prepared();
    let old = (tool.picture)(&lab);
    run(&lab, removing, None).expect_ok();
    let new = (tool.picture)(&lab);
    assert_ne!(old, new);
    let mut undone = 0;
    for at in 0..FAR {
        let lab = prepared();
        let output = run(&lab, removing, Some(format!("{how}:{at}")));
        if output.status == Some(0) {
            assert!(at > 1, "nothing was struck: is the binary built with fault-injection?");
            assert!(how != "fail" || undone > 1, "{undone} runs were undone");
            return;
        }
        if how == "fail" {
            // The last boundaries lie behind the tool's own steps, where only the state is still to be written.
            let expected = if output.stdout.contains(" applied ") { &new } else { &old };
            assert_eq!((tool.picture)(&lab), *expected, "boundary {at}: {output:?}");
            undone += usize::from(output.stdout.contains(" undone "));
        }
        run(&lab, removing, None).expect_ok();
        assert_eq!((tool.picture)(&lab), new, "healed after boundary {at}");
        if !removing {
            (tool.works)(&lab);
            expect_status(&lab, 0);
        }
    }
    panic!("there is no end to the boundaries");
}

#[test]
fn a_killed_sync_of_fail2ban_is_healed() {
    strike_everywhere(&FAIL2BAN, "kill", false);
}

#[test]
fn a_failed_sync_of_fail2ban_is_undone() {
    strike_everywhere(&FAIL2BAN, "fail", false);
}

#[test]
fn a_killed_removal_from_fail2ban_is_healed() {
    strike_everywhere(&FAIL2BAN, "kill", true);
}

#[test]
fn a_killed_sync_of_mod_evasive_is_healed() {
    strike_everywhere(&MOD_EVASIVE, "kill", false);
}

#[test]
fn a_failed_sync_of_mod_evasive_is_undone() {
    strike_everywhere(&MOD_EVASIVE, "fail", false);
}

#[test]
fn a_killed_removal_from_mod_evasive_is_healed() {
    strike_everywhere(&MOD_EVASIVE, "kill", true);
}
