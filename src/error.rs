//! The one error type: a machine-readable kind, what happened, and what to do next.
//!
//! Belongs here: kinds and their exit codes. Does not: the sentences themselves, which are written where the
//! fault is seen and the path, prefix or program is at hand.

use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $exit:expr;)*) => {
        /// What went wrong, as scripts see it: the `error.kind` of the JSON report.
        ///
        /// Kinds are stable: one is never renamed, and never reused for another fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $variant,)* }

        impl ErrorKind {
            /// Every kind there is, for documentation and tests.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name used in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The exit status that this kind alone would give.
            #[must_use]
            pub const fn exit(self) -> Exit {
                match self { $(Self::$variant => $exit,)* }
            }
        }
    };
}

/// Exit statuses. When several apply, [`Exit::worst`] chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done; in sync, changed or not.
    Ok = 0,
    /// Unexpected failure.
    Unexpected = 1,
    /// Usage or configuration error.
    Usage = 2,
    /// No trustworthy list; nothing was changed.
    List = 3,
    /// At least one backend failed or is unusable though asked for.
    Backend = 4,
    /// Applied but not confirmed by the second look; undone.
    Unconfirmed = 5,
    /// Changes are pending.
    Pending = 6,
    /// Cloudflare would be refused somewhere.
    Refused = 7,
    /// Another edgeallow is running.
    Locked = 75,
}

impl Exit {
    /// Of two outcomes the one to exit with: the first of 2, 75, 3, 1, 5, 4, 7, 6, 0.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        const ORDER: [Exit; 9] = [
            Exit::Usage,
            Exit::Locked,
            Exit::List,
            Exit::Unexpected,
            Exit::Unconfirmed,
            Exit::Backend,
            Exit::Refused,
            Exit::Pending,
            Exit::Ok,
        ];
        ORDER.into_iter().find(|e| *e == self || *e == other).unwrap_or(Self::Ok)
    }
}

kinds! {
    /// The command line can't be understood.
    Usage = "usage", Exit::Usage;
    /// The configuration file is wrong.
    Config = "config", Exit::Usage;
    /// Another run holds the lock.
    Locked = "locked", Exit::Locked;

    /// A list file named by the operator can't be read.
    ListFile = "list-file", Exit::List;
    /// No source could be reached, and nothing is stored.
    ListUnreachable = "list-unreachable", Exit::List;
    /// The name of the server can't be resolved.
    FetchDns = "fetch-dns", Exit::List;
    /// No connection could be made, or it broke.
    FetchConnect = "fetch-connect", Exit::List;
    /// The server was too slow.
    FetchTimeout = "fetch-timeout", Exit::List;
    /// The server's certificate or TLS version can't be accepted.
    FetchTls = "fetch-tls", Exit::List;
    /// The server redirects to another host, or to plain HTTP.
    FetchRedirect = "fetch-redirect", Exit::List;
    /// The server answered with another status than 200.
    FetchStatus = "fetch-status", Exit::List;
    /// The answer ended early.
    FetchTruncated = "fetch-truncated", Exit::List;
    /// The answer is larger than a list can be.
    FetchTooLarge = "fetch-too-large", Exit::List;
    /// The API said `"success": false`.
    FetchApiFailure = "fetch-api-failure", Exit::List;

    /// Not a list: HTML, binary, JSON of another shape, nothing at all.
    ListNotAList = "list-not-a-list", Exit::List;
    /// An entry is not a prefix.
    ListSyntax = "list-syntax", Exit::List;
    /// A prefix has bits set behind its length.
    ListHostBits = "list-host-bits", Exit::List;
    /// A prefix is wider than Cloudflare would ever publish.
    ListTooWide = "list-too-wide", Exit::List;
    /// A prefix overlaps special-purpose address space.
    ListSpecialPurpose = "list-special-purpose", Exit::List;
    /// IPv4 or IPv6 is missing altogether.
    ListFamilyMissing = "list-family-missing", Exit::List;
    /// Fewer prefixes than Cloudflare has ever had.
    ListTooFew = "list-too-few", Exit::List;
    /// More prefixes than the limit.
    ListTooMany = "list-too-many", Exit::List;
    /// Too much of the last list's address space is gone.
    ListShrunk = "list-shrunk", Exit::List;
    /// Far more address space than the last list had.
    ListGrown = "list-grown", Exit::List;

    /// A file or folder can't be read or written.
    Io = "io", Exit::Unexpected;
    /// The state folder can't be used.
    State = "state", Exit::Unexpected;
    /// Anything that should not happen.
    Internal = "internal", Exit::Unexpected;

    /// The backend's tool is missing or too old for what is asked.
    BackendUnusable = "backend-unusable", Exit::Backend;
    /// A capability is missing: most often not run as root.
    NoPrivilege = "no-privilege", Exit::Backend;
    /// A program answered with an error, or not in time.
    Program = "program", Exit::Backend;
    /// The kernel refused a netlink transaction.
    Netlink = "netlink", Exit::Backend;
    /// A file that is about to be changed is not what was looked at, or not ours to replace.
    FileRefused = "file-refused", Exit::Backend;
    /// Something else changed the machine between the look and the change.
    RaceLost = "race-lost", Exit::Backend;
    /// It is live, and could not be stored for the next boot: no room, or a read-only file system.
    NotStored = "not-stored", Exit::Backend;
    /// What would be stored does not load, or not to the live state.
    LoadTest = "load-test", Exit::Backend;
    /// A configuration of the tool itself is in the way.
    ToolConfig = "tool-config", Exit::Backend;
    /// The second look shows something else than was planned.
    Unconfirmed = "unconfirmed", Exit::Unconfirmed;
    /// A step failed and the way back failed too.
    UndoFailed = "undo-failed", Exit::Backend;
    /// A test asked for this failure (feature `fault-injection`).
    Injected = "injected", Exit::Backend;
}

/// What happened, to what, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The stable kind.
    pub kind: ErrorKind,
    /// What happened and to what: one sentence without a final full stop.
    pub message: String,
    /// What to do next, where there is something to be done.
    pub hint: Option<String>,
    /// Whether a file system took nothing: full, over its quota, or read-only.
    pub(crate) takes_nothing: bool,
}

impl Error {
    /// An error without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, takes_nothing: false }
    }

    /// The same error with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error about a path, with the operating system's reason.
    pub fn io(kind: ErrorKind, doing: &str, path: &std::path::Path, err: &std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let mut e = Self::new(kind, format!("cannot {doing} {}: {}", path.display(), io_reason(err)));
        e.takes_nothing = matches!(err.kind(), K::StorageFull | K::QuotaExceeded | K::ReadOnlyFilesystem);
        match err.kind() {
            K::PermissionDenied if rustix::process::geteuid().is_root() => e.hint(
                "root has not every right here: in a systemd unit it lacks CAP_DAC_OVERRIDE. Let root use it, or give the \
                 unit that capability in a drop-in",
            ),
            K::PermissionDenied => e.hint("run edgeallow as root"),
            K::StorageFull | K::QuotaExceeded => e.hint("free some space on that file system and run edgeallow again"),
            K::ReadOnlyFilesystem => e.hint(
                "in a systemd unit that is most often ProtectSystem=strict: name the folder in a drop-in with \
                     ReadWritePaths=; else remount that file system read-write",
            ),
            _ => e,
        }
    }
}

/// An operating system's error in plain words, without Rust's "(os error N)".
#[must_use]
pub fn io_reason(err: &std::io::Error) -> String {
    let text = err.to_string();
    // The end of a connection under TLS comes with a link to a library's manual.
    let ends = [" (os error", ": https://"];
    let end = ends.iter().filter_map(|end| text.find(end)).min();
    end.and_then(|end| text.get(..end)).map_or_else(|| text.clone(), str::to_owned)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_plain_words() {
        let words =
            "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/manual/";
        let cut = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, words);
        assert_eq!(io_reason(&cut), "peer closed connection without sending TLS close_notify");
        assert_eq!(io_reason(&std::io::Error::from_raw_os_error(13)), "Permission denied");
        assert_eq!(io_reason(&std::io::Error::other("odd")), "odd");
    }

    #[test]
    fn a_file_system_that_takes_nothing_is_told_from_other_faults() {
        use rustix::io::Errno;
        let of = |errno: Errno| Error::io(ErrorKind::Io, "write", std::path::Path::new("/f"), &errno.into());
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS] {
            assert!(of(errno).takes_nothing && of(errno).hint.is_some(), "{errno:?}");
        }
        for errno in [Errno::ACCESS, Errno::NOENT, Errno::IO, Errno::FBIG] {
            assert!(!of(errno).takes_nothing, "{errno:?}");
        }
    }

    #[test]
    fn kinds_are_unique_and_kebab_case() {
        let mut names: Vec<_> = ErrorKind::ALL.iter().map(|k| k.as_str()).collect();
        assert!(names.iter().all(|n| n.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn the_worst_exit_wins_in_the_documented_order() {
        assert_eq!(Exit::Pending.worst(Exit::Refused), Exit::Refused);
        assert_eq!(Exit::Backend.worst(Exit::Unconfirmed), Exit::Unconfirmed);
        assert_eq!(Exit::Ok.worst(Exit::Pending), Exit::Pending);
        assert_eq!(Exit::List.worst(Exit::Locked), Exit::Locked);
    }
}
