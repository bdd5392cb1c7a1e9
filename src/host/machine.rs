//! The real machine behind [`Look`] and [`Act`].

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Act, Connection, FileSeen, Guard, Judge, Link, ListenSocket, Look, OpenLog, Output, Process, RefusingRule, Route,
    UnixListener, Way, files, logs,
    look_only::{is_look_only, is_look_only_fed},
    netlink, proc, spawn,
};
use crate::{
    allowlist::{Family, Prefixes},
    backends::Warning,
    error::{Error, ErrorKind, Result},
    nft::{Interval, NftBatch, Ruleset, SetId, SetKind, TableId, Verdict},
    plan,
};

/// How long a tool's own lock is waited for.
const TOOL_LOCK: Duration = Duration::from_secs(10);

/// How long one file of a rehearsal may take to load: a million elements take nft some ten seconds.
const REHEARSAL: Duration = Duration::from_secs(120);

/// A program with its arguments, and what it was fed.
type Question = (Vec<String>, Option<String>);

/// This machine, or the throwaway network namespace that the calling thread lives in.
#[derive(Default)]
pub struct Machine {
    runtime: OnceCell<tokio::runtime::Runtime>,
    /// What look-only programs answered since anything was last changed: choosing a backend and planning it ask the
    /// same questions, and each costs a process.
    answers: RefCell<BTreeMap<Question, Output>>,
    /// The generation of the nftables rule set that they were given in: somebody else may change it at any time.
    generation: Cell<Option<u32>>,
}

impl Machine {
    /// Nothing is read or started before it is asked for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn spawn(&self, commands: &[(Vec<&str>, Option<&[u8]>)], limit: Duration) -> Vec<Result<Output>> {
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime,
            None => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => self.runtime.get_or_init(|| runtime),
                Err(e) => {
                    let failed = Error::new(ErrorKind::Internal, format!("cannot wait for programs: {e}"));
                    return commands.iter().map(|_| Err(failed.clone())).collect();
                }
            },
        };
        spawn::run(runtime, commands, limit)
    }

    /// From here on everything is looked at anew.
    fn forget(&self) {
        self.answers.borrow_mut().clear();
    }

    fn one(&self, argv: Vec<&str>, stdin: Option<&[u8]>, limit: Duration) -> Result<Output> {
        // `spawn` answers each command.
        self.spawn(&[(argv, stdin)], limit).pop().unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "no answer")))
    }
}

impl Look for Machine {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        files::read(path)
    }

    fn log(&self, path: &Path) -> Result<Option<OpenLog>> {
        logs::open(path)
    }

    fn stream(&self, argv: &[&str], patience: Duration) -> Result<Box<dyn std::io::Read>> {
        if is_look_only(argv) {
            return logs::stream(argv, patience);
        }
        Err(Error::new(ErrorKind::Internal, format!("`{}` is not known to be look-only", argv.join(" "))))
    }

    fn folder(&self, path: &Path) -> Result<Vec<String>> {
        files::names(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn ordinary_folder(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let device = |p: &Path| fs::symlink_metadata(p).ok().filter(fs::Metadata::is_dir).map(|m| m.dev());
        device(path).is_some_and(|d| path.parent().and_then(device) == Some(d)) && !is_mount(path)
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        spawn::find(name)
    }

    fn run(&self, argv: &[&str], timeout: Duration) -> Result<Output> {
        self.run_all(&[argv.to_vec()], timeout)
            .pop()
            .unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "no answer")))
    }

    fn run_all(&self, commands: &[Vec<&str>], timeout: Duration) -> Vec<Result<Output>> {
        let unfed: Vec<_> = commands.iter().map(|argv| (argv.clone(), None)).collect();
        self.run_fed(&unfed, timeout)
    }

    fn run_fed(&self, commands: &[(Vec<&str>, Option<&str>)], timeout: Duration) -> Vec<Result<Output>> {
        let looks = |argv: &[&str], stdin: Option<&str>| match stdin {
            None => is_look_only(argv),
            Some(stdin) => is_look_only_fed(argv, stdin),
        };
        if let Some((argv, _)) = commands.iter().find(|(argv, stdin)| !looks(argv, *stdin)) {
            let refused = Error::new(ErrorKind::Internal, format!("`{}` is not known to be look-only", argv.join(" ")));
            return commands.iter().map(|_| Err(refused.clone())).collect();
        }
        let key = |(argv, stdin): &(Vec<&str>, Option<&str>)| -> Question {
            let (program, args) = argv.split_first().map_or(("", &argv[..]), |(p, args)| (*p, args));
            let argv = std::iter::once(spawn::known_as(program)).chain(args.iter().map(|&a| a.to_owned()));
            (argv.collect(), stdin.map(str::to_owned))
        };
        let generation = netlink::generation().ok().flatten();
        if self.generation.replace(generation) != generation {
            self.forget();
        }
        let unknown: Vec<_> =
            commands.iter().filter(|command| !self.answers.borrow().contains_key(&key(command))).collect();
        let fed: Vec<_> = unknown.iter().map(|(argv, stdin)| (argv.clone(), stdin.map(str::as_bytes))).collect();
        let mut failed = BTreeMap::new();
        for (command, answer) in unknown.iter().zip(self.spawn(&fed, timeout)) {
            match answer {
                Ok(output) => drop(self.answers.borrow_mut().insert(key(command), output)),
                Err(e) => drop(failed.insert(key(command), e)),
            }
        }
        let answers = self.answers.borrow();
        let missing = || Error::new(ErrorKind::Internal, "a program gave no answer");
        let answer = |question: Question| match answers.get(&question) {
            Some(output) => Ok(output.clone()),
            None => Err(failed.get(&question).cloned().unwrap_or_else(missing)),
        };
        commands.iter().map(|command| answer(key(command))).collect()
    }

    fn nft_generation(&self) -> Result<Option<u32>> {
        netlink::generation()
    }

    fn nft_has_table(&self, table: &TableId) -> Result<Option<bool>> {
        netlink::has_table(table)
    }

    fn has_ipset(&self, name: &str) -> Result<Option<bool>> {
        netlink::has_ipset(name).map(Some)
    }

    fn nft_ruleset(&self) -> Result<Ruleset> {
        netlink::ruleset()
    }

    fn nft_elements(&self, set: &SetId, kind: SetKind) -> Result<Vec<Interval>> {
        netlink::elements(set, kind)
    }

    fn nft_ports(&self, set: &SetId) -> Result<BTreeSet<u16>> {
        netlink::ports(set)
    }

    fn nft_verdicts(&self, map: &SetId) -> Result<Vec<Verdict>> {
        netlink::verdicts(map)
    }

    fn nft_sample(&self, set: &SetId, list: &Prefixes, family: Family, many: usize) -> Result<bool> {
        netlink::sample(set, list, family, many)
    }

    fn links(&self) -> Result<Vec<Link>> {
        netlink::links()
    }

    fn listeners(&self) -> Result<Vec<ListenSocket>> {
        let mut sockets = netlink::listeners()?;
        let inodes: Vec<u32> = sockets.iter().map(|s| s.inode).collect();
        let mut programs = proc::holders(&inodes);
        for socket in &mut sockets {
            socket.programs = programs.remove(&socket.inode).unwrap_or_default();
        }
        Ok(sockets)
    }

    fn routes(&self) -> Result<Vec<Route>> {
        netlink::routes()
    }

    fn connections(&self, ports: &BTreeSet<u16>) -> Result<Vec<Connection>> {
        netlink::connections(ports)
    }

    fn unix_listeners(&self) -> Result<Vec<UnixListener>> {
        netlink::unix_listeners()
    }

    fn processes(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<Process> {
        proc::running(wanted)
    }

    fn dead_ends(&self) -> Result<Vec<(ipnet::IpNet, String)>> {
        netlink::dead_ends()
    }

    fn route(&self, from: Option<IpAddr>, to: IpAddr) -> Result<Option<Way>> {
        netlink::route(from, to)
    }

    fn refusing_rules(&self) -> Result<Vec<RefusingRule>> {
        netlink::refusing_rules()
    }

    fn may_administer(&self) -> bool {
        rustix::thread::capabilities(None).is_ok_and(|c| c.effective.contains(rustix::thread::CapabilitySet::NET_ADMIN))
    }
}

/// Whether something is mounted there, be it the folder itself: a service manager does so with folders that a service may
/// write in an otherwise read-only file system.
fn is_mount(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
        .is_ok_and(|s| s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Reasons to leave a folder be that are no failure: it isn't there, others use it, or the administrator put a link or
/// a mount in its place.
fn leaves_it(e: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(e.kind(), K::NotFound | K::DirectoryNotEmpty | K::NotADirectory | K::ResourceBusy)
}

impl Act for Machine {
    fn write(&self, write: &plan::Write) -> Result<()> {
        self.forget();
        files::write(write)
    }

    fn remove(&self, remove: &plan::Remove) -> Result<()> {
        self.forget();
        files::remove(remove)
    }

    fn mkdir(&self, path: &Path) -> Result<()> {
        self.forget();
        files::make_folder(path).map_err(|e| Error::io(ErrorKind::Io, "make the folder", path, &e))
    }

    fn rmdir(&self, path: &Path) -> Result<()> {
        self.forget();
        match fs::remove_dir(path) {
            Ok(()) => Ok(()),
            Err(e) if leaves_it(&e) || is_mount(path) => Ok(()),
            Err(e) => Err(Error::io(ErrorKind::Io, "remove the folder", path, &e)),
        }
    }

    fn touch(&self, path: &Path) -> Result<()> {
        self.forget();
        files::touch(path)
    }

    fn execute(&self, run: &plan::Run) -> Result<Output> {
        self.forget();
        let argv = run.argv.iter().map(String::as_str).collect();
        let output = self.one(argv, run.stdin.as_deref(), run.timeout)?;
        if output.ok() {
            return Ok(output);
        }
        let how =
            output.status.map_or_else(|| "was ended by a signal".to_owned(), |s| format!("failed with status {s}"));
        Err(Error::new(ErrorKind::Program, format!("`{run}` {how}: {}", output.complaint())))
    }

    fn nft(&self, batch: &NftBatch) -> Result<()> {
        self.forget();
        netlink::apply(batch)
    }

    fn lock(&self, on: &plan::LockOn) -> Result<Box<dyn Guard>> {
        self.forget();
        lock(on, TOOL_LOCK)
    }

    fn rehearse(&self, scripts: &[Arc<[u8]>], his: usize, judge: Judge<'_>) -> Result<Vec<Warning>> {
        self.forget();
        let interfaces = interfaces();
        netlink::in_fresh_netns(|| {
            let there = Self::new();
            there.stand_ins(&interfaces);
            for (n, script) in scripts.iter().enumerate() {
                let load = there.one(vec!["nft", "-f", "-"], Some(script), REHEARSAL);
                // A program that is missing, hangs or is killed says nothing about anybody's files.
                let load = load.and_then(|output| match output.status {
                    Some(_) => Ok(output),
                    None => Err(Error::new(ErrorKind::Program, "nft was ended by a signal")),
                });
                let load = load.map_err(|e| {
                    Error::new(ErrorKind::LoadTest, format!("the boot configuration could not be tested: {e}"))
                        .hint(e.hint.unwrap_or_else(|| "run `nft -c -f /etc/nftables.conf` by hand".to_owned()))
                })?;
                if load.ok() {
                    continue;
                }
                let why = load.complaint();
                if n >= his {
                    return Err(Error::new(ErrorKind::LoadTest, format!("edgeallow's file doesn't load: {why}")));
                }
                // What is ours names no interface, so there is nothing in it that this could break.
                if why.contains("Interface does not exist") || why.contains("No such device") {
                    return Ok(vec![Warning::new(
                        "rehearsal-incomplete",
                        format!(
                            "the boot configuration could not be tested as a whole, because it names a network \
                             interface that isn't here now ({why}): if it isn't there at boot either, no firewall is \
                             loaded; `iifname` in place of `iif` does without"
                        ),
                    )]);
                }
                let broken = format!("the administrator's own configuration doesn't load: {why}");
                return Err(Error::new(ErrorKind::ToolConfig, broken).hint("mend it: the firewall would not start"));
            }
            judge(&there)
        })
    }
}

impl Machine {
    /// Makes an interface of each of these names in the throwaway namespace that the calling thread lives in: rules
    /// that name one by `iif` don't load without. As many as the kernel and `ip` can make; the rest is nft's to miss.
    fn stand_ins(&self, names: &[String]) {
        // Which kinds the kernel has is not known before: the second and third try fails where the first did not.
        let kinds = |name: &String| ["dummy", "ifb", "veth"].map(|kind| format!("link add name {name} type {kind}\n"));
        let script: String = names.iter().flat_map(kinds).collect();
        if !names.is_empty()
            && let Err(e) = self.one(vec!["ip", "-force", "-batch", "-"], Some(script.as_bytes()), REHEARSAL)
        {
            tracing::debug!("no interfaces for the rehearsal: {e}");
        }
    }
}

/// The names of the network interfaces that the calling thread sees, but `lo`, which every namespace has.
fn interfaces() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names = table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    // What `ip -batch` would take for something else than a name is left out.
    let plain = |n: &String| *n != "lo" && n.chars().all(|c| c.is_ascii_alphanumeric() || "_-.@".contains(c));
    names.filter(plain).collect()
}

struct Held {
    // Dropping it releases the lock.
    _file: fs::File,
}
impl Guard for Held {}

fn lock(on: &plan::LockOn, limit: Duration) -> Result<Box<dyn Guard>> {
    use rustix::fs::FlockOperation::NonBlockingLockExclusive as Exclusive;
    let (path, create) = match on {
        plan::LockOn::Flock(path) => (path, false),
        plan::LockOn::FlockMade(path) | plan::LockOn::Posix(path) => (path, true),
    };
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .mode(0o600)
        .truncate(false)
        .open(path)
        .map_err(|e| Error::io(ErrorKind::Io, "open the lock", path, &e))?;
    let start = Instant::now();
    loop {
        let tried = match on {
            plan::LockOn::Flock(_) | plan::LockOn::FlockMade(_) => rustix::fs::flock(&file, Exclusive),
            plan::LockOn::Posix(_) => rustix::fs::fcntl_lock(&file, Exclusive),
        };
        match tried {
            Ok(()) => return Ok(Box::new(Held { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS) if start.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS) => {
                return Err(Error::new(
                    ErrorKind::RaceLost,
                    format!("another program has held {} for {} s", path.display(), limit.as_secs()),
                )
                .hint(format!("see who with `fuser {}`", path.display())));
            }
            Err(e) => return Err(Error::io(ErrorKind::Io, "lock", path, &e.into())),
        }
    }
}
