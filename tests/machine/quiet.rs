//! What "nothing to do" means: a sync that changes nothing, starts nothing that could, and leaves no mark.

use crate::{
    lab::{CHANGED_IN_USR, Lab, Tree, diff},
    run::{part_of, sync},
};

/// A sync with nothing to do: these backends are in sync, no program that could change the machine is started, no
/// transaction sent, no rule and no file touched.
pub fn expect_quiet(lab: &Lab, backends: &[&str]) {
    lab.record_programs();
    let folders = ["/etc", CHANGED_IN_USR, "/run"];
    // The run's lock and the stores that the tools' own lock files are in may be touched; nothing else.
    let stamps = || {
        let mut stamps = lab.stamps(&folders);
        stamps.retain(|p, _| {
            !p.contains("edgeallow.lock") && !p.contains("xtables.lock") && p != "/run" && p != "/run/lock"
        });
        stamps
    };
    let (rules, files) = (lab.rules(), stamps());
    let ((report, programs), transactions) = lab.transactions(|| {
        lab.recorded_programs();
        let report = sync(lab, &[]);
        (report, lab.recorded_programs())
    });
    assert_eq!(report["changed"], false, "{report:#}");
    for backend in backends {
        assert_eq!(part_of(&report, backend)["state"], "in_sync", "{report:#}");
    }
    assert!(transactions.is_empty(), "a sync with nothing to do sent {transactions:#?}");
    let changing: Vec<_> = programs.iter().filter(|p| !only_looks(p)).collect();
    assert!(changing.is_empty(), "a sync with nothing to do started {changing:#?}");
    assert_same(&files, &stamps(), "a sync with nothing to do");
    assert_eq!(rules, lab.rules());
}

/// Fails with what differs between two pictures of files.
pub fn assert_same(before: &Tree, after: &Tree, what: &str) {
    let found = diff(before, after);
    assert!(found.is_empty(), "{what} left its mark:\n{}", found.join("\n"));
}

/// Whether a recorded command can't change anything, whatever its arguments do.
fn only_looks(command: &str) -> bool {
    let (program, args) = command.split_once(' ').unwrap_or((command, ""));
    let args: Vec<_> = args.split_whitespace().collect();
    program.ends_with("tables-save")
        || program.ends_with("-nft-save")
        || program.ends_with("-legacy-save")
        || args == ["--version"]
        || args == ["-V"]
        || (program == "nft" && args.contains(&"list") && !args.contains(&"-f"))
        || (program == "ipset" && matches!(args.first(), Some(&"save" | &"list")))
        || (program == "systemctl" && matches!(args.first(), Some(&"is-enabled" | &"is-active" | &"show" | &"cat")))
        // What the dialogue (`-i`) may say is decided in src/host/look_only.rs: questions only.
        || (program == "fail2ban-client" && (args == ["-d"] || args == ["-i"]))
        || (program == "apachectl" && matches!(args.as_slice(), ["-t", "-D", ..] | ["-L"]))
}
