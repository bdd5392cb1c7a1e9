//! The machine, in two halves: [`Look`] reads it, [`Act`] changes it.
//!
//! This is the only folder that spawns programs, writes files or talks netlink. A backend is handed a `&dyn Look`
//! and so cannot change anything; only the executor ([`crate::engine`]) holds an [`Act`].
//!
//! Belongs here: how a thing is read or done, safely. Does not: what should be done, or why.

pub mod xtables;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

mod files;
mod hook;
mod logs;
pub mod look_only;
mod machine;
mod proc;
pub mod service;
pub mod signals;
mod spawn;
pub mod watch;

pub use files::{make_folder, read_bounded, replace_own};
pub use hook::{Ended, asked, find_hook, run_hook};
pub use logs::OpenLog;
pub use machine::Machine;
pub use proc::{Process, Program, executable_is_gone};
pub mod netlink;

use crate::{
    allowlist::{Family, Prefixes},
    backends::Warning,
    error::{Error, ErrorKind, Result},
    nft::{Interval, Ruleset, SetId, SetKind, TableId, Verdict},
    plan,
};

/// A file as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSeen {
    /// The whole content.
    pub content: Arc<[u8]>,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Whether the path itself is a symbolic link (the content is that of its target).
    pub symlink: bool,
}

/// What a program answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether the program ended with status 0. Many tools do without having done anything: judge by the state.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }

    /// The first line of standard error that says something, for messages.
    #[must_use]
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("it gave no reason").to_owned()
    }
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// What runs on it before or after every rule, by name: `XDP program 12`, `tc ingress filter (bpf)`.
    pub programs: Vec<String>,
    /// Whether it is one end of a tunnel (a VPN): it has no neighbours, and it is no line to a provider (PPP, a modem).
    pub tunnel: bool,
    /// Whether it belongs to a VRF, which has routes of its own.
    pub in_vrf: bool,
}

/// An address of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The length of its network's prefix.
    pub prefix: u8,
    /// Whether others can be told to use it: of global scope, neither tentative nor a temporary one of IPv6. Private
    /// addresses are global in this sense.
    pub global: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What it is about; of length 0: everything else.
    pub to: ipnet::IpNet,
    /// The router; `None` where the destination is on the wire.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub interface: String,
}

/// A rule of routing (`ip rule`) that refuses: `prohibit`, `unreachable`, `blackhole`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusingRule {
    /// Whose packets; of length 0: everybody's.
    pub from: ipnet::IpNet,
    /// To whom; of length 0: everybody.
    pub to: ipnet::IpNet,
    /// As `ip rule delete` takes it.
    pub words: String,
}

/// How packets to an address leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The interface.
    pub interface: String,
    /// The address of this host that they are given where they have none yet.
    pub source: Option<IpAddr>,
}

/// A TCP socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenSocket {
    /// Where; an unspecified address is every address of its family.
    pub address: SocketAddr,
    /// Whether it takes IPv4 connections too: an IPv6 socket on the unspecified address that isn't kept from it.
    pub both_families: bool,
    /// Connections that are established and wait for the program to accept them.
    pub waiting: u32,
    /// How many may wait; one more is let wait, and what comes then is dropped.
    pub backlog: u32,
    /// The socket's number, as in `/proc/PID/fd`.
    pub inode: u32,
    /// The programs that hold it, as far as they may be seen.
    pub programs: Vec<Program>,
}

impl ListenSocket {
    /// Whether connections to this address are its.
    #[must_use]
    pub fn takes(&self, ip: IpAddr) -> bool {
        let own = self.address.ip();
        own == ip || (own.is_unspecified() && (own.is_ipv4() == ip.is_ipv4() || self.both_families))
    }
}

/// An established TCP connection to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The port of this host.
    pub port: u16,
    /// The socket's number, as in `/proc/PID/fd`; 0 as long as no program has accepted it.
    pub inode: u32,
}

/// A stream socket of the Unix family that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixListener {
    /// Where it is bound, as the program wrote it; empty for one that isn't bound to a path.
    pub path: String,
    /// Connections that wait for the program to accept them.
    pub waiting: u32,
    /// How many may wait.
    pub backlog: u32,
    /// The socket's number, as in `/proc/PID/fd`.
    pub inode: u32,
}

/// Reading the machine. Nothing behind this trait changes it.
pub trait Look {
    /// A file's content and attributes; `None` where there is no file.
    ///
    /// # Errors
    /// `io` when there is something that can't be read: a folder, or for lack of permission.
    fn file(&self, path: &Path) -> Result<Option<FileSeen>>;

    /// A file to be read in passing, which may be larger than memory; `None` where there is none. See [`OpenLog`].
    ///
    /// # Errors
    /// `io` when it can't be read, `file-refused` for what is no regular file: a pipe would be waited for.
    fn log(&self, path: &Path) -> Result<Option<OpenLog>> {
        Ok(self.file(path)?.map(|seen| OpenLog {
            size: seen.content.len() as u64,
            content: Box::new(std::io::Cursor::new(seen.content)),
            modified: jiff::Timestamp::MAX,
            id: (
                0,
                path.as_os_str().as_encoded_bytes().iter().fold(0, |sum: u64, b| sum.wrapping_mul(31) + u64::from(*b)),
            ),
        }))
    }

    /// What a program prints that only looks, to be read in passing; it is ended when that is dropped. Silence of this
    /// length is an error of the reader.
    ///
    /// # Errors
    /// As [`Look::run`].
    fn stream(&self, argv: &[&str], _patience: Duration) -> Result<Box<dyn std::io::Read>> {
        self.run(argv, Duration::ZERO).map(|o| Box::new(std::io::Cursor::new(o.stdout)) as Box<dyn std::io::Read>)
    }

    /// What is fed to this program on its standard input, to be read in passing.
    fn standard_input(&self) -> Box<dyn std::io::Read> {
        Box::new(std::io::stdin())
    }

    /// The names in a folder, sorted; none where there is no folder.
    ///
    /// # Errors
    /// `io` when it can't be read.
    fn folder(&self, path: &Path) -> Result<Vec<String>>;

    /// Whether anything exists at the path (following symbolic links).
    fn exists(&self, path: &Path) -> bool;

    /// Whether a folder is an ordinary one, which its last user may remove: no link, no mount point.
    fn ordinary_folder(&self, _path: &Path) -> bool {
        true
    }

    /// Where a program is, looked for in the system's folders, never in the caller's PATH.
    fn program(&self, name: &str) -> Option<PathBuf>;

    /// Runs a program that only looks. Which ones those are is decided in [`look_only`], not by the caller.
    ///
    /// # Errors
    /// `internal` for a command that is not known to be look-only, `program` if it can't be started or is too slow.
    /// A non-zero exit status is not an error here.
    fn run(&self, argv: &[&str], timeout: Duration) -> Result<Output>;

    /// Several look-only programs at once; the answers come in the order of the questions.
    fn run_all(&self, commands: &[Vec<&str>], timeout: Duration) -> Vec<Result<Output>> {
        commands.iter().map(|argv| self.run(argv, timeout)).collect()
    }

    /// The same, with standard input for those that read commands from it: the input decides whether they only look.
    ///
    /// # Errors
    /// As [`Look::run`].
    fn run_fed(&self, commands: &[(Vec<&str>, Option<&str>)], timeout: Duration) -> Vec<Result<Output>> {
        let one = |(argv, stdin): &(Vec<&str>, Option<&str>)| match stdin {
            None => self.run(argv, timeout),
            Some(_) => Err(Error::new(crate::error::ErrorKind::Internal, "this machine feeds no programs")),
        };
        commands.iter().map(one).collect()
    }

    /// Asks an iptables program whether a rule is there: see [`xtables::has`] for when that may be asked.
    ///
    /// # Errors
    /// `program` if there is no such program, or it gives neither of its two answers.
    fn iptables_has(&self, command: &str, table: &str, rule: &str) -> Result<bool> {
        let missing = || Error::new(crate::error::ErrorKind::Program, format!("{command} is not installed"));
        xtables::has(&self.program(command).ok_or_else(missing)?, table, rule)
    }

    /// Whether this process holds CAP_NET_ADMIN in its user namespace.
    fn may_administer(&self) -> bool;

    /// The generation of the nftables rule set; `None` where the kernel has no nf_tables, which is what a host says
    /// that doesn't implement this. See [`netlink::generation`].
    ///
    /// # Errors
    /// `no-privilege`, `netlink`.
    fn nft_generation(&self) -> Result<Option<u32>> {
        Ok(None)
    }

    /// Whether there is such a table in nf_tables; `None` where that can't be told, which is what a host says that
    /// doesn't implement this. See [`netlink::has_table`].
    ///
    /// # Errors
    /// `no-privilege`, `netlink`.
    fn nft_has_table(&self, _table: &TableId) -> Result<Option<bool>> {
        Ok(None)
    }

    /// Whether there is an ipset of that name; `None` where that can't be told, which is what a host says that
    /// doesn't implement this. Only for a kernel that has ip_set loaded: asking loads it. See [`netlink::has_ipset`].
    ///
    /// # Errors
    /// `no-privilege`, `netlink`.
    fn has_ipset(&self, _name: &str) -> Result<Option<bool>> {
        Ok(None)
    }

    /// The nftables rule set without the sets' elements. See [`netlink::ruleset`].
    ///
    /// # Errors
    /// `no-privilege`, `race-lost`, `netlink`.
    fn nft_ruleset(&self) -> Result<Ruleset> {
        Ok(Ruleset::default())
    }

    /// The ranges in an interval set. See [`netlink::elements`].
    ///
    /// # Errors
    /// As [`Look::nft_ruleset`].
    fn nft_elements(&self, set: &SetId, _kind: SetKind) -> Result<Vec<Interval>> {
        Err(no_set(set))
    }

    /// The ports in a set of ports. See [`netlink::ports`].
    ///
    /// # Errors
    /// As [`Look::nft_ruleset`].
    fn nft_ports(&self, set: &SetId) -> Result<BTreeSet<u16>> {
        Err(no_set(set))
    }

    /// The verdicts in a verdict map. See [`netlink::verdicts`].
    ///
    /// # Errors
    /// As [`Look::nft_ruleset`].
    fn nft_verdicts(&self, map: &SetId) -> Result<Vec<Verdict>> {
        Err(no_set(map))
    }

    /// Whether an interval set holds these prefixes, tried at up to `many` of them. See [`netlink::sample`].
    ///
    /// # Errors
    /// As [`Look::nft_ruleset`].
    fn nft_sample(&self, set: &SetId, _list: &Prefixes, _family: Family, _many: usize) -> Result<bool> {
        Err(no_set(set))
    }

    /// The network interfaces, with addresses and programs; none is what a host says that doesn't implement this. See
    /// [`netlink::links`].
    ///
    /// # Errors
    /// `netlink`, `race-lost`.
    fn links(&self) -> Result<Vec<Link>> {
        Ok(Vec::new())
    }

    /// The routes of the main table; none is what a host says that doesn't implement this. See [`netlink::routes`].
    ///
    /// # Errors
    /// `netlink`.
    fn routes(&self) -> Result<Vec<Route>> {
        Ok(Vec::new())
    }

    /// Routes that lead nowhere, as `ip route` prints them. See [`netlink::dead_ends`].
    ///
    /// # Errors
    /// `netlink`.
    fn dead_ends(&self) -> Result<Vec<(ipnet::IpNet, String)>> {
        Ok(Vec::new())
    }

    /// Rules of routing that refuse by destination or source, as `ip rule` takes them. See [`netlink::refusing_rules`].
    ///
    /// # Errors
    /// `netlink`.
    fn refusing_rules(&self) -> Result<Vec<RefusingRule>> {
        Ok(Vec::new())
    }

    /// Every TCP socket that listens, with the programs that hold it; none is what a host says that doesn't implement
    /// this. See [`netlink::listeners`].
    ///
    /// # Errors
    /// `netlink`, `race-lost`.
    fn listeners(&self) -> Result<Vec<ListenSocket>> {
        Ok(Vec::new())
    }

    /// Every established TCP connection to one of these ports; none is what a host says that doesn't implement this. See
    /// [`netlink::connections`].
    ///
    /// # Errors
    /// `netlink`, `race-lost`.
    fn connections(&self, _ports: &BTreeSet<u16>) -> Result<Vec<Connection>> {
        Ok(Vec::new())
    }

    /// Every Unix socket that listens; none is what a host says that doesn't implement this. See
    /// [`netlink::unix_listeners`].
    ///
    /// # Errors
    /// `netlink`, `race-lost`.
    fn unix_listeners(&self) -> Result<Vec<UnixListener>> {
        Ok(Vec::new())
    }

    /// The running processes whose name is wanted, in the order of their numbers; none is what a host says that doesn't
    /// implement this.
    fn processes(&self, _wanted: &dyn Fn(&str) -> bool) -> Vec<Process> {
        Vec::new()
    }

    /// How packets leave to an address, if given from that address of this host; `None` where there is no way. See
    /// [`netlink::route`].
    ///
    /// # Errors
    /// `netlink`.
    fn route(&self, _from: Option<IpAddr>, _to: IpAddr) -> Result<Option<Way>> {
        Ok(None)
    }
}

fn no_set(set: &SetId) -> Error {
    Error::new(ErrorKind::Netlink, format!("there is no set {set}: this host has no nf_tables"))
}

/// Changing the machine: one method for each kind of [`plan::Step`], and the tests that go before.
pub trait Act: Look {
    /// Replaces a file. See [`plan::Write`].
    ///
    /// # Errors
    /// `file-refused` if it is not what was looked at or a symbolic link stands in place of a file of ours, `io`.
    fn write(&self, write: &plan::Write) -> Result<()>;

    /// Removes a file. See [`plan::Remove`].
    ///
    /// # Errors
    /// `file-refused` if it is not what was looked at, `io`.
    fn remove(&self, remove: &plan::Remove) -> Result<()>;

    /// Makes a folder and its parents, mode 0755.
    ///
    /// # Errors
    /// `io`.
    fn mkdir(&self, path: &Path) -> Result<()>;

    /// Removes a folder if it is empty; an absent or non-empty one is not an error.
    ///
    /// # Errors
    /// `io`.
    fn rmdir(&self, path: &Path) -> Result<()>;

    /// Makes an empty file, mode 0600, or sets the time of one that is there.
    ///
    /// # Errors
    /// `io`, also for a symbolic link in its place.
    fn touch(&self, path: &Path) -> Result<()>;

    /// Runs a program that changes something.
    ///
    /// # Errors
    /// `program` if it can't be started, is too slow, or ends with another status than 0.
    fn execute(&self, run: &plan::Run) -> Result<Output>;

    /// Sends one netlink transaction.
    ///
    /// # Errors
    /// `race-lost` if the rule set is of another generation by now, `netlink` with the kernel's reason.
    fn nft(&self, batch: &crate::nft::NftBatch) -> Result<()>;

    /// Takes one of the tool's own locks; it is released when the guard is dropped.
    ///
    /// # Errors
    /// `race-lost` if the tool holds it for longer than ten seconds.
    fn lock(&self, on: &plan::LockOn) -> Result<Box<dyn Guard>>;

    /// Loads nft scripts one after the other in a fresh network namespace and hands a look at it to `judge`.
    ///
    /// # Errors
    /// `tool-config` with nft's words if one of the first `his` scripts doesn't load, `load-test` if a later one
    /// doesn't; `no-privilege` where no namespace can be made; whatever `judge` says.
    fn rehearse(&self, scripts: &[Arc<[u8]>], his: usize, judge: Judge<'_>) -> Result<Vec<Warning>>;
}

/// Judges what a look finds; shared, because the look happens on a thread that lives in another network namespace.
pub type Judge<'a> = &'a (dyn Fn(&dyn Look) -> Result<Vec<Warning>> + Sync);

/// Holds something until it is dropped.
pub trait Guard {}

/// A helper for [`Look`] implementations and backends: the text of a file that must be UTF-8.
///
/// # Errors
/// `tool-config` if it isn't.
pub fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|e| {
        Error::new(ErrorKind::ToolConfig, format!("{} is not UTF-8 text (byte {})", path.display(), e.valid_up_to()))
    })
}
