//! Tests that need an environment or a memory of their own: they run a second time, alone, in a process of their own.

/// Names the part of a test that a child process is to run.
const PART: &str = "EDGEALLOW_TEST_PART";

/// Runs `body` in a fresh process of this very test program, with `environment` added to this one's.
///
/// The child starts the same test, `test`, again and does what comes before this call, too; it ends with `body`.
#[expect(clippy::disallowed_methods, reason = "a process of one's own is the point; it is this test itself")]
pub fn alone(test: &str, part: &str, environment: &[(&str, &str)], body: impl FnOnce()) {
    match std::env::var(PART) {
        Ok(wanted) if wanted == part => {
            body();
            std::process::exit(0);
        }
        Ok(_) => {}
        Err(_) => {
            let output = std::process::Command::new(std::env::current_exe().expect("this program has a path"))
                .args(["--exact", test, "--nocapture"])
                .env(PART, part)
                .envs(environment.iter().copied())
                .output()
                .expect("this program can be started again");
            assert!(
                output.status.success(),
                "{part}: {}\n{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// The most memory that this process has ever held, in KiB: proc_pid_status(5), `VmHWM`.
pub fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells every process about itself");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("it tells the peak");
    line.trim().trim_end_matches(" kB").parse().expect("in numbers")
}
