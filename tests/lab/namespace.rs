//! Making namespaces, entering them, and being sure that nothing is left of them.
//!
//! Belongs here: unshare, setns, mounts and the lab's pid 1. Does not: interfaces and addresses (`net`).

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    panic::resume_unwind,
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// The programs that the lab itself and the packet filters' tests run, and the Debian package of each.
const PROGRAMS: [(&str, &str); 12] = [
    ("firewalld", "firewalld"),
    ("dbus-daemon", "dbus"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables-nft-save", "iptables"),
    ("iptables-legacy-save", "iptables"),
    ("ip6tables-legacy-save", "iptables"),
    ("ipset", "ipset"),
    ("ufw", "ufw"),
    ("mount", "mount"),
    ("setpriv", "util-linux"),
    ("cat", "coreutils"),
];

/// Where in the lab the parts of the overlays are kept, and the name of the internet's namespace.
const STORE: &str = "/mnt";
const INTERNET: &str = "/mnt/internet";
/// The limit of open files, soft and hard.
const OPEN_FILES: u64 = 20_000;
/// Where edgeallow is installed in the lab.
pub const EDGEALLOW: &str = "/usr/local/bin/edgeallow";

/// Fails with all that is missing, once for the whole test process, which it makes ready to start programs.
pub fn check_prerequisites() {
    static MISSING: OnceLock<Vec<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        keep_descriptors_to_ourselves();
        // As a service has it: servers read files that the tests write, under names of their own.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        settle_open_files();
        let mut missing = Vec::new();
        if !rustix::process::geteuid().is_root() {
            missing.push("these tests make throwaway hosts of namespaces: run them as root".to_owned());
        }
        for (program, package) in PROGRAMS {
            if !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|d| Path::new(d).join(program).exists()) {
                missing.push(format!("{program} is not installed: apt-get install {package}"));
            }
        }
        missing
    });
    assert!(missing.is_empty(), "no lab can be made here:\n  {}", missing.join("\n  "));
}

/// What started the tests may have left files open for them. No program of a lab gets one: some are tested at their limit of
/// open files, to the last.
fn keep_descriptors_to_ourselves() {
    let open = fs::read_dir("/proc/self/fd").expect("the open files");
    for fd in open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2) {
        // SAFETY: only a flag is set, through a borrow that ends here. What was closed meanwhile is refused, and what another
        // thread opened in its place has that flag already, as everything that Rust opens.
        #[allow(unsafe_code)]
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = rustix::io::fcntl_setfd(file, rustix::io::FdFlags::CLOEXEC);
    }
}

/// How many files may be open, for dozens of labs at once and for the programs in them, is the same whoever starts the tests.
fn settle_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    // Raising what is the most takes a privilege. Then it is what it may be.
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let most = getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    }
}

/// The namespaces of one lab, and the process that keeps them.
pub struct Namespaces {
    init: Child,
    host: Vec<File>,
    internet: File,
}

impl Namespaces {
    /// Makes them all, mounts included.
    pub fn new() -> Self {
        // A thread of its own: unshare(2) is about the calling thread, and this one is thrown away afterwards.
        let made = std::thread::scope(|s| s.spawn(make).join());
        match made {
            Ok(Ok(namespaces)) => namespaces,
            Ok(Err((doing, err))) => panic!(
                "no lab can be made here: cannot {doing}: {err}\n  \
                 a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN, and mount(2) allowed (docker run --privileged)"
            ),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs something on a thread in the lab's namespaces. Programs that it starts are in the lab too.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            // A mount namespace can only be entered by a thread that shares root and working directory with none.
            unshare(CloneFlags::CLONE_FS).expect("unshare the working directory");
            for namespace in &self.host {
                setns(namespace.as_fd(), CloneFlags::empty()).expect("enter the lab");
            }
            work()
        })
    }

    /// Runs something on a thread in the lab whose network is the internet's.
    pub fn on_the_internet<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside(|| {
            setns(self.internet.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the internet");
            work()
        })
    }

    /// The internet's network namespace, for threads that need nothing else of the lab.
    pub fn internet(&self) -> &File {
        &self.internet
    }

    /// The process id of the lab's pid 1, as this process sees it.
    pub fn init(&self) -> u32 {
        self.init.id()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Errors don't matter: it may be gone already. Waiting returns when every process in the lab has ended.
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

/// Enters a network namespace with the calling thread.
pub fn enter_network(namespace: &File) {
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
}

/// Runs something on a thread that is thrown away, and passes its panic on.
pub fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| s.spawn(work).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

type Step<T> = Result<T, (String, io::Error)>;

trait Doing<T> {
    fn doing(self, what: &str) -> Step<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Step<T> {
        self.map_err(|e| (what.to_owned(), e.into()))
    }
}

fn make() -> Step<Namespaces> {
    use CloneFlags as C;
    let all = C::CLONE_FS | C::CLONE_NEWNS | C::CLONE_NEWNET | C::CLONE_NEWUTS | C::CLONE_NEWIPC | C::CLONE_NEWPID;
    unshare(all).doing("make namespaces")?;
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).doing("make mounts private")?;
    mount_tmpfs(STORE, "mode=755,size=512m")?;
    fs::write("/mnt/edgeallow", "").doing("write to the lab's store")?;
    bind(env!("CARGO_BIN_EXE_edgeallow"), "/mnt/edgeallow")?;

    // The network namespace just made is the internet; it gets a name, and the host gets the next one.
    fs::write(INTERNET, "").doing("write to the lab's store")?;
    bind("/proc/thread-self/ns/net", INTERNET)?;
    let internet = File::open(INTERNET).doing("open a network namespace")?;
    without_address_detection()?;
    unshare(C::CLONE_NEWNET).doing("make a network namespace")?;
    without_address_detection()?;

    for folder in ["etc", "var", "usr"] {
        overlay(folder)?;
    }
    for ours in ["/etc/edgeallow", "/var/lib/edgeallow"] {
        match fs::remove_dir_all(ours) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).doing("hide the machine's own edgeallow")?,
            _ => {}
        }
    }
    fs::create_dir_all("/usr/local/bin").doing("make /usr/local/bin")?;
    fs::write(EDGEALLOW, "").doing("install edgeallow in the lab")?;
    bind("/mnt/edgeallow", EDGEALLOW)?;
    mount_tmpfs("/run", "mode=755,size=64m")?;
    fs::create_dir_all("/run/lock").doing("make /run/lock")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), nothing).doing("mount /sys")?;

    // SIGCHLD is ignored so that the kernel reaps what is orphaned in the lab. The program ends with its input.
    let mut init = Command::new("/bin/sh");
    init.args(["-c", "trap '' CHLD; exec cat"]).env_clear().current_dir("/");
    let init = init.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let init = init.spawn().doing("start the lab's pid 1")?;
    let mut namespaces = Namespaces { init, host: Vec::new(), internet };
    // /proc shows the process table of whoever mounts it, so that is for a child to do.
    let proc = Command::new("/bin/mount").args(["-t", "proc", "proc", "/proc"]).status().doing("start mount")?;
    if !proc.success() {
        return Err(io::Error::other(proc.to_string())).doing("mount /proc");
    }
    fs::write("/proc/sys/kernel/hostname", "lab").doing("name the lab")?;
    for kind in ["mnt", "net", "uts", "ipc", "pid"] {
        namespaces.host.push(File::open(format!("/proc/1/ns/{kind}")).doing("open a namespace")?);
    }
    Ok(namespaces)
}

fn bind(from: &str, to: &str) -> Step<()> {
    let nothing: Option<&str> = None;
    mount(Some(from), to, nothing, MsFlags::MS_BIND, nothing).doing(&format!("bind {from} to {to}"))
}

fn mount_tmpfs(at: &str, options: &str) -> Step<()> {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options)).doing(&format!("mount a tmpfs on {at}"))
}

fn overlay(folder: &str) -> Step<()> {
    let (upper, work) = (format!("{STORE}/{folder}/upper"), format!("{STORE}/{folder}/work"));
    for part in [&upper, &work] {
        fs::create_dir_all(part).doing("make the parts of an overlay")?;
    }
    let at = format!("/{folder}");
    let options = format!("lowerdir={at},upperdir={upper},workdir={work}");
    mount(Some("overlay"), at.as_str(), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .doing(&format!("mount an overlay on {at}"))
}

/// Without duplicate address detection an IPv6 address is usable at once.
fn without_address_detection() -> Step<()> {
    for interface in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/accept_dad");
        if Path::new(&path).exists() {
            fs::write(path, "0").doing("switch duplicate address detection off")?;
        }
    }
    Ok(())
}
