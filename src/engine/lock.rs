//! One run a machine: an advisory lock in /run, whatever the state folder.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, ErrorKind, Result};

/// The lock file. It stays; only the lock on it comes and goes.
pub const PATH: &str = "/run/edgeallow.lock";

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct RunLock {
    // Dropping it releases the lock.
    _file: File,
}

/// Opens a lock file, and makes it where there is none.
///
/// # Errors
/// What the kernel says.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Only root can put a link into such a folder; one is refused all the same.
    let flags = libc::O_NOFOLLOW;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

/// Takes the lock, waiting at most `limit`.
///
/// # Errors
/// `locked` if another run holds it for longer; `no-privilege` or `io` if the file can't be opened.
pub fn take(limit: Duration) -> Result<RunLock> {
    let path = Path::new(PATH);
    let file = open(path).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::new(ErrorKind::NoPrivilege, format!("cannot open the lock {PATH}: permission denied"))
                .hint("run edgeallow as root; to look without changing anything, use --dry-run")
        }
        _ => Error::io(ErrorKind::Io, "open the lock", path, &e),
    })?;
    let start = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(RunLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(50).min(limit));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::new(
                    ErrorKind::Locked,
                    format!("another edgeallow is running (it holds {PATH}); waited {} s", limit.as_secs()),
                )
                .hint("try again when it is done, or wait longer with --lock-timeout"));
            }
            Err(e) => return Err(Error::io(ErrorKind::Io, "lock", path, &e.into())),
        }
    }
}
