//! Running a program to its end and knowing what it took.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What one run took.
#[derive(Clone, Copy)]
pub struct Cost {
    pub time: Duration,
    /// What it computed itself, whatever else the machine did.
    pub user: Duration,
    /// Peak resident memory in KiB, of the program itself.
    pub memory: i64,
}

/// A program under measurement: how to set the scene, and what to run.
pub struct Contestant<'a> {
    pub name: String,
    pub before: Box<dyn Fn() + 'a>,
    pub argv: Vec<String>,
    pub stdin: Option<&'a Path>,
}

impl<'a> Contestant<'a> {
    pub fn new(name: &str, argv: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            before: Box::new(|| ()),
            argv: argv.iter().map(|&a| a.to_owned()).collect(),
            stdin: None,
        }
    }
    pub fn before(mut self, scene: impl Fn() + 'a) -> Self {
        self.before = Box::new(scene);
        self
    }
    pub fn stdin(mut self, path: &'a Path) -> Self {
        self.stdin = Some(path);
        self
    }
}

/// Runs a program and says what it took; it must succeed.
pub fn run(argv: &[String], stdin: Option<&Path>) -> Cost {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdout(Stdio::null()).stderr(Stdio::piped());
    command.stdin(stdin.map_or_else(Stdio::null, |p| File::open(p).unwrap().into()));
    let start = Instant::now();
    #[expect(clippy::zombie_processes, reason = "wait4 below waits for it, and tells what it used")]
    let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", argv[0]));
    let (mut status, mut usage) = (0, unsafe {
        // SAFETY: rusage is plain numbers; all zeroes is a value of it.
        std::mem::zeroed::<libc::rusage>()
    });
    // SAFETY: both pointers are to live locals; the pid is of our own child, which nobody else waits for.
    let waited = unsafe { libc::wait4(i32::try_from(child.id()).unwrap(), &raw mut status, 0, &raw mut usage) };
    let time = start.elapsed();
    assert!(waited > 0 && libc::WIFEXITED(status), "{argv:?} was ended");
    let code = libc::WEXITSTATUS(status);
    if code != 0 {
        let mut words = String::new();
        let _ = std::io::Read::read_to_string(&mut child.stderr.unwrap(), &mut words);
        panic!("{argv:?} failed with {code}: {words}");
    }
    let user = Duration::from_secs(usage.ru_utime.tv_sec.cast_unsigned())
        + Duration::from_micros(usage.ru_utime.tv_usec.cast_unsigned());
    Cost { time, user, memory: usage.ru_maxrss }
}

/// The middle one of the times, and the highest memory.
fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by_key(|c| c.time);
    Cost { memory: costs.iter().map(|c| c.memory).max().unwrap(), ..costs[costs.len() / 2] }
}

/// Lets the contestants run in turn and prints a table; the first one is what the others are compared with.
pub fn compare(title: &str, rounds: usize, contestants: &[Contestant<'_>]) {
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); contestants.len()];
    for _ in 0..rounds {
        for (contestant, costs) in contestants.iter().zip(&mut costs) {
            (contestant.before)();
            costs.push(run(&contestant.argv, contestant.stdin));
        }
    }
    let medians: Vec<Cost> = costs.into_iter().map(median).collect();
    println!("## {title}\n\nMedian of {rounds}.\n\n| program | ms | × the first | peak MB |\n|---|---:|---:|---:|");
    for (contestant, cost) in contestants.iter().zip(&medians) {
        #[allow(clippy::cast_precision_loss)]
        let (ms, mb) = (cost.time.as_secs_f64() * 1e3, cost.memory as f64 / 1024.0);
        let ratio = cost.time.as_secs_f64() / medians[0].time.as_secs_f64();
        println!("| {} | {ms:.1} | {ratio:.2} | {mb:.1} |", contestant.name);
    }
    println!();
}

/// Date, kernel, cores, memory, versions.
pub fn machine() -> String {
    let first = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("").to_owned();
    let said = |argv: &[&str]| {
        let output = Command::new(argv[0]).args(&argv[1..]).output();
        output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = first("/proc/meminfo").split_whitespace().nth(1).and_then(|k| k.parse::<u64>().ok()).unwrap_or(0);
    let mut text = String::new();
    let _ = write!(
        text,
        "{}: {cores} cores, {} GiB, Linux {}; {}; {}; {}.",
        jiff::Zoned::now().strftime("%Y-%m-%d"),
        memory >> 20,
        first("/proc/sys/kernel/osrelease"),
        said(&["nft", "--version"]),
        said(&["iptables", "--version"]),
        said(&["ipset", "--version"]).lines().next().unwrap_or_default(),
    );
    text
}
