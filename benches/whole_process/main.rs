//! Whole processes, timed beside the alternative in the same run: medians, ratios, peak memory, as a Markdown table.
//!
//! Everything happens in network and mount namespaces of its own; the machine's firewall and folders are not touched.
//! Run it with `make bench`; the tables of a quiet machine go to `docs/benchmarks.md`. It is a benchmark, not a test:
//! nothing here fails for being slow.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unsafe_code)]

mod idle;
mod logs;
mod measure;
mod reach;
mod tools;
mod workloads;

use std::{env, process::Command};

/// The parts, each in namespaces of its own.
const PARTS: [&str; 5] = ["small", "tools", "reach", "logs", "large"];

/// Arguments: the parts to be run (all of them), and the size of the largest list (a million).
fn main() {
    let args: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let largest = args.iter().find_map(|a| a.parse().ok()).unwrap_or(1_000_000);
    match env::var("EDGEALLOW_BENCH_INSIDE").as_deref() {
        Ok("small") => workloads::small(),
        Ok("tools") => tools::all(),
        Ok("idle") => idle::keep(),
        Ok("reach") => reach::all(),
        Ok("logs") => logs::all(),
        Ok(_) => workloads::large(largest),
        Err(_) => {
            println!("# Benchmarks\n\n{}\n", measure::machine());
            println!(
                "Whole processes from start to end, wall clock, in a throwaway network namespace. Medians; each row's \
                 programs ran in turn, one after the other, so that a busy moment hits all of them. `make bench` prints \
                 these tables.\n"
            );
            // Ten minutes of doing nothing are measured only when asked for: `make bench-idle`.
            if args.iter().any(|a| a == "idle") {
                return inside("idle", &args);
            }
            let named = PARTS.iter().any(|p| args.iter().any(|a| a == p));
            PARTS.iter().filter(|p| !named || args.iter().any(|a| a == *p)).for_each(|part| inside(part, &args));
        }
    }
}

/// The same program again, in namespaces that end with it.
fn inside(part: &str, args: &[String]) {
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"])
        .arg(env::current_exe().unwrap())
        .args(args)
        .env("EDGEALLOW_BENCH_INSIDE", part)
        .status()
        .expect("unshare(1) of util-linux is needed");
    if !status.success() {
        std::process::exit(status.code().unwrap_or(1));
    }
}
