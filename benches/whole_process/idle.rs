//! What `edgeallow keep` costs while nothing happens.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::workloads::{EDGEALLOW, NFT, feed, prepare, quiet};

/// What the kernel has noted of a process.
struct Usage {
    /// Time on a processor.
    cpu: Duration,
    /// How often it fell asleep.
    sleeps: u64,
    /// Resident memory, and the part of it that no other process shares, in KiB.
    resident: u64,
    own: u64,
}

/// Lets it do nothing for ten minutes, or `EDGEALLOW_IDLE_SECONDS`, and prints what that took.
pub fn keep() {
    let seconds = env::var("EDGEALLOW_IDLE_SECONDS").map_or(600, |s| s.parse().expect("a number of seconds"));
    prepare();
    feed(&["nft", "-f", "-"], NFT);
    fs::create_dir_all("/etc/edgeallow").unwrap();
    fs::write("/etc/edgeallow/config.toml", "backends = [\"nftables\"]\n[nftables]\npersist = \"none\"\n").unwrap();
    quiet(&[EDGEALLOW, "sync", "--offline"]);
    let mut command = Command::new(EDGEALLOW);
    let mut keeper = command.args(["keep", "-v"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(keeper.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("nothing to do") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
    }
    // It falls asleep.
    sleep(Duration::from_secs(1));
    let before = usage(keeper.id());
    sleep(Duration::from_secs(seconds));
    let after = usage(keeper.id());
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    println!("## `edgeallow keep` with nothing to do, {seconds} s\n");
    println!("| CPU time | woken up | resident MB | of which its own |\n|---:|---:|---:|---:|");
    #[allow(clippy::cast_precision_loss)]
    let mb = |kib: u64| kib as f64 / 1024.0;
    println!(
        "| {:.1} ms | {} × | {:.1} | {:.1} |",
        (after.cpu - before.cpu).as_secs_f64() * 1e3,
        after.sleeps - before.sleeps,
        mb(after.resident),
        mb(after.own)
    );
}

fn usage(pid: u32) -> Usage {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let (status, memory) = (read("status"), read("smaps_rollup"));
    let number = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    // The first number: nanoseconds on a processor.
    let cpu = Duration::from_nanos(number(&read("schedstat"), ""));
    Usage {
        cpu,
        sleeps: number(&status, "voluntary_ctxt_switches:"),
        resident: number(&status, "VmRSS:"),
        own: number(&memory, "Private_Clean:") + number(&memory, "Private_Dirty:"),
    }
}
