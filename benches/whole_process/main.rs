//! Whole processes, timed beside the alternative in the same run: medians, ratios, peak memory, as a Markdown table.
//!
//! Everything happens in network and mount namespaces of its own; the machine's firewall and folders are not touched.
//! Run it with `make bench`; the tables of a quiet machine go to `docs/benchmarks.md`. It is a benchmark, not a test:
//! nothing here fails for being slow.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unsafe_code)]

mod measure;
mod workloads;

use std::{env, process::Command};

fn main() {
    if env::var_os("EDGEALLOW_BENCH_INSIDE").is_none() {
        // The same program again, in namespaces that end with it.
        let status = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"])
            .arg(env::current_exe().unwrap())
            .args(env::args().skip(1).filter(|a| a != "--bench"))
            .env("EDGEALLOW_BENCH_INSIDE", "1")
            .status()
            .expect("unshare(1) of util-linux is needed");
        std::process::exit(status.code().unwrap_or(1));
    }
    let largest = env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1_000_000);
    workloads::prepare();
    println!("# Benchmarks\n");
    println!("{}\n", measure::machine());
    println!(
        "Whole processes from start to end, wall clock, in a throwaway network namespace. Medians; each row's programs \
         ran in turn, one after the other, so that a busy moment hits all of them. `make bench` prints these tables.\n"
    );
    workloads::small();
    workloads::large(largest);
}
