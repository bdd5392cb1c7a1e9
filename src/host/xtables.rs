//! A second witness for iptables: the `iptables` crate, which asks the program itself whether a rule is there.
//!
//! Belongs here: one question, `-C`. Does not: looking at whole tables (`*-save`, read in `backends/iptables`) and
//! changing anything (`*-restore`, one transaction).
//!
//! Why here and nowhere else: the crate spawns programs, and only this folder may. Why for this and for nothing else:
//! the backend reads the text of `*-save` with a reader of its own and verifies a change with the same reader, so a
//! fault of that reader would confirm itself. `-C` compares by iptables' own code in the kernel's form, which is a
//! different road to the same answer. It costs a process for each question, so it is asked after a change and never
//! in a run without one. Its other calls are no match for what is needed: `list()` of a missing chain answers
//! `Ok([""])`, and each `append` is a transaction of its own.

use std::path::Path;

use iptables::IPTables;

use crate::error::{Error, ErrorKind, Result};

/// Whether the rule is there. `rule` begins with its chain: `INPUT -m comment --comment edgeallow -j EDGEALLOW`.
///
/// Only for tables that are known to exist: the legacy program makes the table that it is asked about.
///
/// # Errors
/// `program` if the program can't be started, or answers with anything but "there" (0) and "not there" (1).
pub fn has(program: &Path, table: &str, rule: &str) -> Result<bool> {
    let shown = program.display();
    // The crate wants its program for ever. There are at most four of them, and the process is a short one.
    let cmd: &'static str = program.to_string_lossy().into_owned().leak();
    // Made by hand, not by `iptables::new`: that would search the caller's PATH and start one process more. Every
    // program that has the variants we know has -C (1.4.11) and --wait (1.4.20).
    let iptables = IPTables { cmd, has_check: true, has_wait: true, is_numeric: false };
    let output = iptables
        .execute(table, &format!("-C {rule}"))
        .map_err(|e| Error::new(ErrorKind::Program, format!("{shown} can't be started: {e}")))?;
    match output.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("it gave no reason").to_owned();
            Err(Error::new(ErrorKind::Program, format!("{shown} -t {table} -C {rule} failed: {said}")))
        }
    }
}
