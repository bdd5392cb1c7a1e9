//! A test that starts itself again under `unshare`, with network and mount namespaces of its own.
//!
//! Include it with `#[path]`. `/run` (the xtables lock) is an empty tmpfs there, and the machine's own rules are out of
//! reach.

use std::process::{Command, Stdio};

const INSIDE: &str = "EDGEALLOW_TEST_INSIDE";

/// Whether this is the test of that name in its namespaces. If not, it has been run there by now, and has passed.
pub fn is_inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        sh("mount -t tmpfs tmpfs /run");
        return true;
    }
    let out = Command::new("unshare")
        .args(["-n", "-m", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .expect("unshare(1) is needed, and root");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("1 passed"), "in its namespaces, {name} said:\n{said}");
    false
}

/// A shell line of the test's own; returns what it printed.
pub fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-ec", script]).stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8(out.stdout).unwrap()
}
