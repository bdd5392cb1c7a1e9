//! `edgeallow keep` running in a lab, and what it says.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{EDGE4, Lab, Reach};

const LOG: &str = "/run/keep.log";
/// Nothing that is waited for takes longer, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A keeper that doesn't outlive its test.
pub struct Keeper<'a> {
    lab: &'a Lab,
    child: Child,
}

impl<'a> Keeper<'a> {
    /// Starts one and waits until its first look has ended.
    pub fn start(lab: &'a Lab, args: &[&str]) -> Self {
        let keeper = Self::begin(lab, args, &[]);
        keeper.wait_for("after the start", 1);
        keeper
    }

    /// Starts one.
    pub fn begin(lab: &'a Lab, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::of(lab, &[&["keep", "-v"], args].concat(), env)
    }

    /// The same for any service of edgeallow's.
    pub fn of(lab: &'a Lab, args: &[&str], env: &[(&str, &str)]) -> Self {
        let child = lab.inside(|| {
            let log = fs::File::create(LOG).expect("a file for the log");
            let mut command = Command::new("/usr/local/bin/edgeallow");
            command.args(args).env_clear().envs(env.iter().copied()).current_dir("/");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("start edgeallow keep")
        });
        Self { lab, child }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.lab.read_file(LOG)
    }

    /// How many lines of its log hold these words.
    pub fn said(&self, words: &str) -> usize {
        self.log().lines().filter(|l| l.contains(words)).count()
    }

    /// Waits until so many lines hold these words.
    pub fn wait_for(&self, words: &str, times: usize) {
        self.wait_until(&format!("{times} × `{words}`"), || self.said(words) >= times);
    }

    /// Waits until something is true.
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}; the log:\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("send a signal");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// A line of its /proc/PID/status, as a number.
    pub fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).expect("such a line");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("ask for its end") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it doesn't end; the log:\n{}", self.log());
            sleep(Duration::from_millis(2));
        }
    }

    /// Asks it to end; it has to do so with status 0. Says how long that took.
    pub fn end(mut self) -> Duration {
        let start = Instant::now();
        self.signal(Signal::TERM);
        let status = self.ended();
        assert!(status.code() == Some(0), "{status:?} signal {:?}; the log:\n{}", status.signal(), self.log());
        start.elapsed()
    }

    /// Harms something while the keeper can see it, and waits until that was put right so many times in all.
    pub fn harmed_and_healed(&self, times: usize) {
        self.lab.run(["nft", "flush", "chain", "inet", "filter", "input"]);
        self.wait_for("healed nftables", times);
        self.wait_for("after the heal before", times);
    }

    /// Harms something while the keeper can't see it, proves by a packet that Cloudflare is shut out, lets the keeper go
    /// on, and says how long it takes until Cloudflare is let in.
    pub fn heals(&self, harm: impl Fn(&Lab)) -> Duration {
        self.signal(Signal::STOP);
        harm(self.lab);
        assert_ne!(self.lab.connect(EDGE4, 443), Reach::Accepted, "no harm was done");
        let start = Instant::now();
        self.signal(Signal::CONT);
        self.wait_until("Cloudflare to be let in", || self.lab.connect(EDGE4, 443) == Reach::Accepted);
        start.elapsed()
    }
}

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
