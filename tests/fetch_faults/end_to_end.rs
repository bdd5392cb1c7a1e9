//! The same faults, seen by an administrator: the program runs, the server misbehaves, the firewall stays.
//!
//! Each fault has a network namespace and a `/run` of its own, a real nftables firewall in it, and a first good sync.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::Value;

use crate::{
    ensure,
    fault_server::{Fault, FaultServer, Outcome},
    for_each,
};

const FIREWALL: &str = "table inet filter {\n chain input {\n  type filter hook input priority filter; policy drop;\n  \
                        iif lo accept\n }\n}\n";

fn program(name: &str, arguments: &[&str], stdin: &str) -> Result<Output, String> {
    #[expect(clippy::disallowed_methods, reason = "the test plays the administrator")]
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{name}: {e}"))?;
    // A program that doesn't read its input closes it early, which is not a fault.
    let _ = child.stdin.take().expect("it is piped").write_all(stdin.as_bytes());
    child.wait_with_output().map_err(|e| format!("{name}: {e}"))
}

fn must(name: &str, arguments: &[&str], stdin: &str) -> Result<String, String> {
    let output = program(name, arguments, stdin)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{name} {arguments:?}: {output:?}")) }
}

/// Leaves the machine's network, /etc and /run behind, for this thread and what it starts.
fn leave() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for (folder, size) in [("/run", "size=1m"), ("/mnt", "size=8m")] {
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(size))?;
    }
    fs::create_dir_all("/mnt/upper")?;
    fs::create_dir_all("/mnt/work")?;
    let parts = "lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work";
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(parts))?;
    Ok(())
}

/// One host: its configuration points to a server, its state is in a folder of its own.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Result<Self, String> {
        leave().map_err(|e| format!("no namespaces can be made here (run the tests as root): {e}"))?;
        must("ip", &["link", "set", "lo", "up"], "")?;
        must("nft", &["-f", "-"], FIREWALL)?;
        Ok(Self { dir: tempfile::tempdir().map_err(|e| e.to_string())? })
    }

    fn sync(&self, server: &FaultServer) -> Result<(Option<i32>, Value), String> {
        let config = self.dir.path().join("config.toml");
        let text = format!("[source]\n{}[nftables]\npersist = \"none\"\n", server.source_section());
        #[expect(clippy::disallowed_methods, reason = "the test plays the administrator")]
        fs::write(&config, text).map_err(|e| e.to_string())?;
        let path = |p: &Path| p.display().to_string();
        let (config, state) = (path(&config), path(&self.dir.path().join("state")));
        let arguments =
            ["sync", "--backend", "nftables", "--format", "json", "--config", &config, "--state-dir", &state];
        let output = program(env!("CARGO_BIN_EXE_edgeallow"), &arguments, "")?;
        let report = serde_json::from_slice(&output.stdout).map_err(|e| format!("{e}: {output:?}"))?;
        Ok((output.status.code(), report))
    }
}

fn check(fault: Fault) -> Result<(), String> {
    let host = Host::new()?;
    let (status, report) = host.sync(&FaultServer::start(Fault::None, Fault::None, Fault::None))?;
    ensure(status == Some(0) && report["changed"] == true, || format!("the first sync: {status:?} {report:#}"))?;
    let before = must("nft", &["-a", "list", "ruleset"], "")?;

    let (status, report) = host.sync(&FaultServer::start(fault, fault, fault))?;
    let after = must("nft", &["-a", "list", "ruleset"], "")?;
    ensure(before == after, || format!("the firewall changed from\n{before}\nto\n{after}"))?;
    ensure(report["changed"] == false, || format!("it says that it changed something: {report:#}"))?;
    let told = |kind: &str| report["warnings"].as_array().into_iter().flatten().any(|w| w["id"] == kind);
    match fault.outcome() {
        Outcome::Good => ensure(status == Some(0) && report["error"].is_null(), || format!("{status:?} {report:#}")),
        Outcome::Unreachable(kind) => {
            ensure(status == Some(0) && report["source"]["origin"] == "cache", || format!("{status:?} {report:#}"))?;
            ensure(told(kind), || format!("no warning `{kind}`: {report:#}"))
        }
        Outcome::Bad(kind) => {
            ensure(status == Some(3), || format!("status {status:?}: {report:#}"))?;
            ensure(report["error"]["kind"] == kind, || format!("not `{kind}`: {:#}", report["error"]))?;
            ensure(report["error"]["hint"].is_string(), || format!("no hint: {:#}", report["error"]))
        }
    }
}

#[test]
fn whatever_the_source_does_the_firewall_stays_and_the_report_says_why() {
    // Not all at once: each has three servers, a firewall and two runs.
    for some in Fault::ALL.chunks(12) {
        for_each(some.iter().copied(), |fault| {
            // A thread of its own for its own namespaces; the servers that it starts live there too.
            thread::scope(|scope| scope.spawn(|| check(fault)).join().unwrap_or_else(|_| Err("panicked".into())))
        });
    }
}
