//! A run that dies or fails between any two of its steps: the machine holds the old state or the new one, and the next
//! run converges without any repair.
//!
//! The binary is built with the feature `fault-injection`, by which `EDGEALLOW_FAULT=kill:N` or `fail:N` strikes at the
//! N-th step boundary. Each test goes on until a run comes through without being struck.

use crate::{
    conformance::Kind,
    lab::{EDGES, Lab, Output, Rules, STRANGERS, Table},
    run::{PORTS, PUBLISHED, list_with, try_sync},
};

/// On the second list only.
const NEWCOMERS: [&str; 2] = ["9.9.9.9", "2620:fe::9"];
/// On the first list only: in 131.0.72.0/22 and 2c0f:f248::/32.
const LEAVERS: [&str; 2] = ["131.0.72.9", "2c0f:f248::9"];
/// How many runs are struck at the same time, each in its own lab.
const AT_ONCE: usize = 4;
/// No plan has so many steps: a test that gets here doesn't inject anything.
const FAR: usize = 120;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Kill,
    Fail,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    First,
    Change,
    Remove,
}

impl What {
    /// Brings the host to the state before the run that is struck.
    fn prepare(self, lab: &Lab) {
        lab.internet_addresses(NEWCOMERS.into_iter().chain(LEAVERS));
        let list = list_with(lab, "old", &[]);
        if self != Self::First {
            try_sync(lab, &["--list", &list]).expect_ok();
        }
        let new: Vec<_> = PUBLISHED.into_iter().filter(|p| *p != "131.0.72.0/22" && *p != "2c0f:f248::/32").collect();
        let new = [new.as_slice(), &["9.9.9.0/24", "2620:fe::/48"]].concat().join("\n");
        lab.write_file("/run/lists/new", new);
    }

    /// The run that is struck; the same without `fault` heals.
    fn run(self, lab: &Lab, fault: Option<(How, usize)>) -> Output {
        let sync = ["sync", "--offline", "--format", "json", "--remove-now", "--list"];
        let args = match self {
            Self::First => [sync.as_slice(), &["/run/lists/old"]].concat(),
            Self::Change => [sync.as_slice(), &["/run/lists/new"]].concat(),
            Self::Remove => vec!["remove", "--format", "json"],
        };
        let mut command = lab.edgeallow_command(args);
        if let Some((how, at)) = fault {
            let how = if how == How::Kill { "kill" } else { "fail" };
            command = command.env("EDGEALLOW_FAULT", format!("{how}:{at}"));
        }
        command.run()
    }
}

/// Who gets in by the list, in each of the lists, and never.
fn reach(lab: &Lab) -> Table {
    lab.table(&[EDGES.as_slice(), &NEWCOMERS, &LEAVERS, &STRANGERS].concat(), &PORTS)
}

fn host(kind: &dyn Kind, what: What) -> Lab {
    let lab = Lab::new();
    kind.setup(&lab);
    what.prepare(&lab);
    lab
}

/// Strikes at every boundary, several at once.
fn strike_everywhere(kind: &dyn Kind, how: How, what: What) {
    // What it is like before, and after a run that nothing happens to.
    let lab = host(kind, what);
    let old = (reach(&lab), lab.rules());
    what.run(&lab, None).expect_ok();
    let new = (reach(&lab), lab.rules());
    assert_ne!(old.0, new.0, "the run changes something");

    let mut at = 0;
    loop {
        let struck: Vec<bool> = std::thread::scope(|scope| {
            let running: Vec<_> = (at..at + AT_ONCE)
                .map(|at| {
                    let (old, new) = (&old, &new);
                    scope.spawn(move || strike(kind, how, what, at, old, new))
                })
                .collect();
            running.into_iter().map(|r| r.join().expect("see the panic above")).collect()
        });
        if let Some(last) = struck.iter().position(|s| !s) {
            println!("{}: {} boundaries", kind.backend(), at + last);
            assert!(at + last > 0, "no boundary at all was struck: is the binary built with fault-injection?");
            return;
        }
        at += AT_ONCE;
        assert!(at < FAR, "{at} boundaries were struck and there are still more");
    }
}

/// Strikes at one boundary; whether there was one.
fn strike(kind: &dyn Kind, how: How, what: What, at: usize, old: &(Table, Rules), new: &(Table, Rules)) -> bool {
    let lab = host(kind, what);
    let output = what.run(&lab, Some((how, at)));
    let struck = match how {
        How::Kill => output.signal == Some(9),
        How::Fail => output.stdout.contains("a test made step boundary") || output.stderr.contains("a test made step"),
    };
    let place = format!("{} {how:?} at boundary {at} of {what:?}", kind.backend());
    if !struck {
        output.expect_ok();
    } else if how == How::Fail {
        assert!(matches!(output.status, Some(1 | 4 | 5)), "{place}: {output:?}");
    }
    let now = reach(&lab);
    for (key, reach) in &now.0 {
        let known = [&old.0.0[key], &new.0.0[key]];
        assert!(known.contains(&reach), "{place}: {key:?} is {reach}, neither old nor new\n{now:?}");
    }
    // iptables has a transaction a family, and between the two a killed run leaves one of each.
    let one_transaction = kind.backend() == "nftables" || how == How::Fail;
    assert!(!one_transaction || now == old.0 || now == new.0, "{place}: neither the old state nor the new:{now:?}");

    // The next run needs no repair tool.
    what.run(&lab, None).expect_ok();
    let (now, rules) = (reach(&lab), lab.rules());
    assert!(now == new.0, "{place}: the next run ends with{now:?}\ninstead of{:?}", new.0);
    assert!(rules == new.1, "{place}: the next run ends with\n{rules:?}\ninstead of\n{:?}", new.1);
    let again = what.run(&lab, None).expect_ok().json();
    assert_eq!(again["changed"], false, "{place}: the run after that still finds something: {again:#}");
    struck
}

#[cfg(feature = "thorough")]
use crate::conformance::on_each_backend as on_each_chosen_backend;
#[cfg(not(feature = "thorough"))]
use crate::conformance::on_each_quick_backend as on_each_chosen_backend;

on_each_chosen_backend! {
    a_first_sync_killed_anywhere_heals,
    a_first_sync_failing_anywhere_heals,
    a_change_of_the_list_killed_anywhere_heals,
    a_change_of_the_list_failing_anywhere_heals,
    a_remove_killed_anywhere_heals,
    a_remove_failing_anywhere_heals,
}

fn a_first_sync_killed_anywhere_heals(kind: &dyn Kind) {
    strike_everywhere(kind, How::Kill, What::First);
}

fn a_first_sync_failing_anywhere_heals(kind: &dyn Kind) {
    strike_everywhere(kind, How::Fail, What::First);
}

fn a_change_of_the_list_killed_anywhere_heals(kind: &dyn Kind) {
    strike_everywhere(kind, How::Kill, What::Change);
}

fn a_change_of_the_list_failing_anywhere_heals(kind: &dyn Kind) {
    strike_everywhere(kind, How::Fail, What::Change);
}

fn a_remove_killed_anywhere_heals(kind: &dyn Kind) {
    strike_everywhere(kind, How::Kill, What::Remove);
}

fn a_remove_failing_anywhere_heals(kind: &dyn Kind) {
    strike_everywhere(kind, How::Fail, What::Remove);
}
