//! What is wanted, and what would have to be done: plain data that no part of the machine is needed to make.
//!
//! Belongs here: the vocabulary that backends plan in and the executor carries out, and how a step is shown to a
//! person. Does not: reading or changing anything ([`crate::host`]), carrying plans out ([`crate::engine`]).

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{allowlist::Prefixes, nft::NftBatch};

/// The tag in every comment, set, chain and file name that marks a thing as ours.
pub const TAG: &str = "edgeallow";

/// A transport protocol that Cloudflare may speak to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Protocol {
    /// TCP: what Cloudflare's edge uses towards origins.
    Tcp,
    /// UDP: for Spectrum and the operator's own wishes.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The number in the IP header (RFC 9293, RFC 768).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// What every backend shall make true: these prefixes reach these ports. Knows no backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The vetted list, ranges whose removal is still waiting, and the operator's own extra prefixes.
    pub prefixes: Arc<Prefixes>,
    /// Destination ports; never empty, never 0.
    pub ports: BTreeSet<u16>,
    /// Transport protocols; never empty.
    pub protocols: BTreeSet<Protocol>,
}

/// A plan: everything that would be done to one backend's tool, in order. An empty plan means "in sync".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The tool's own locks, held from the first change to the last.
    pub locks: Vec<LockOn>,
    /// What must hold before the first change, or still hold after the last.
    pub checks: Vec<Check>,
    /// The changes, each with its reason.
    pub changes: Vec<Change>,
    /// What makes the tool read it: once, after the changes, only if there were any.
    pub activate: Vec<Step>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds a reversible change.
    pub fn change(&mut self, why: impl Into<String>, step: Step) {
        self.changes.push(Change { why: why.into(), step, reversible: Reversible::Yes });
    }
}

/// One change with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Why, in words an administrator uses: `2 prefixes are new`.
    pub why: String,
    /// What.
    pub step: Step,
    /// Whether planning towards the old state brings the old state back.
    pub reversible: Reversible,
}

/// Whether a change can be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reversible {
    /// Planning back undoes it.
    Yes,
    /// It can't be undone, and why that is all right: a lifted ban.
    No(String),
}

/// A lock of the tool itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockOn {
    /// `flock(2)` exclusive on a file that exists.
    Flock(PathBuf),
    /// The same on a file that is made (mode 0600) if it isn't there, as the tool itself does.
    FlockMade(PathBuf),
    /// A POSIX record lock (`fcntl(2)`) on a file, made if it isn't there.
    Posix(PathBuf),
}

/// What is tested before the first change; [`Check::NotWorse`] again after the last one, before anything is activated.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// The scripts, fed one after the other to `nft -f -` in a fresh network namespace, load, and what the backend
    /// then observes there is what it wants to hold live.
    NftRehearsal {
        /// What is tried, in words: `the boot configuration loads`.
        what: String,
        /// nft scripts, in order of loading.
        scripts: Vec<Arc<[u8]>>,
        /// How many of the first scripts are the administrator's: if one of those doesn't load it is not our fault,
        /// so what is live is still changed, and only what is stored isn't.
        his: usize,
    },
    /// If the program succeeds before the first change, it succeeds after the last one, too. Only for commands that
    /// change nothing. What it says before the first change is no reason not to begin: it may fail for the
    /// administrator's own reasons.
    NotWorse {
        /// What is tried, in words: `the configuration loads`.
        what: String,
        /// The command.
        run: Run,
    },
    /// The program succeeds. Only for commands that change nothing (a tool's own configuration test).
    Succeeds {
        /// What is tried, in words.
        what: String,
        /// The command.
        run: Run,
    },
}

/// A number with its noun, in the form that goes with it: `1 rule is`, `2 rules are`. For reasons and warnings.
#[must_use]
pub fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// One thing to be done. Data; its `Display` is what an administrator would type or do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Replace a file's content atomically. Refused if the file is not what was looked at.
    Write(Write),
    /// Remove a file. Refused if it is not what was looked at.
    Remove(Remove),
    /// Make a folder of ours (mode 0755) with its parents.
    Mkdir(PathBuf),
    /// Remove a folder of ours if nothing is left in it.
    Rmdir(PathBuf),
    /// Make an empty file (mode 0600) if it isn't there, and set its time: a sign that a tool waits for.
    Touch(PathBuf),
    /// Run a program.
    Run(Run),
    /// One netlink transaction.
    Nft(NftBatch),
}

/// Whose file it is, which decides about symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Ours: a symbolic link in its place is refused.
    Edgeallow,
    /// The administrator's or the distribution's: a symbolic link is followed, and its target replaced.
    Administrator,
}

/// An atomic replacement of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// Where.
    pub path: PathBuf,
    /// The new content, whole.
    pub content: Arc<[u8]>,
    /// The mode if the file is new; a file that exists keeps its mode, owner and security label.
    pub mode: u32,
    /// Whose file it is.
    pub owner: Owner,
    /// What was there when it was looked at; `None` if there was no file.
    pub was: Option<Arc<[u8]>>,
    /// Written in place instead of atomically, for tools whose lock is on the file itself.
    pub in_place: bool,
}

impl Write {
    /// A file of ours, to be read by everybody and replaced atomically.
    #[must_use]
    pub fn ours(path: impl Into<PathBuf>, content: Arc<[u8]>, was: Option<Arc<[u8]>>) -> Self {
        Self { path: path.into(), content, mode: 0o644, owner: Owner::Edgeallow, was, in_place: false }
    }
}

/// The removal of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Remove {
    /// Where.
    pub path: PathBuf,
    /// What was there when it was looked at.
    pub was: Arc<[u8]>,
}

/// A program with its arguments: never a shell.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Program (a name, or an absolute path) and arguments.
    pub argv: Vec<String>,
    /// Standard input.
    pub stdin: Option<Arc<[u8]>>,
    /// How long it may take.
    pub timeout: Duration,
}

impl Run {
    /// A program without input, with the usual thirty seconds.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), stdin: None, timeout: Duration::from_secs(30) }
    }

    /// The same with standard input.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(text.into().into());
        self
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, arg) in self.argv.iter().enumerate() {
            let plain = !arg.is_empty() && arg.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
            let space = if i == 0 { "" } else { " " };
            if plain {
                write!(f, "{space}{arg}")?;
            } else {
                write!(f, "{space}'{}'", arg.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(w) if w.was.is_none() => write!(f, "create {}", w.path.display()),
            Self::Write(w) => write!(f, "edit {}", w.path.display()),
            Self::Remove(r) => write!(f, "rm {}", r.path.display()),
            Self::Mkdir(p) => write!(f, "mkdir -p {}", p.display()),
            Self::Rmdir(p) => write!(f, "rmdir {}", p.display()),
            Self::Touch(p) => write!(f, "touch {}", p.display()),
            Self::Run(r) => write!(f, "{r}"),
            Self::Nft(b) => write!(f, "{b}"),
        }
    }
}
