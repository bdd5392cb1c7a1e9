//! One run a machine: an advisory lock in /run, whatever the state folder. One keeper a state folder: a lock in there.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::state::make_folder;
use crate::{
    error::{Error, ErrorKind, Result},
    host::executable_is_gone,
};

/// The lock file. It stays; only the lock on it comes and goes.
pub const PATH: &str = "/run/edgeallow.lock";

/// Made by a package before it takes the rules out, so that no run puts them back while the program is still there. Taken
/// away with the program, or when the package stays; a boot takes it away in any case.
pub const LEAVING: &str = "/run/edgeallow.leaving";

/// Whether a package is taking edgeallow off this machine, or the program that runs here is gone already. It holds for as
/// long as the lock is held, because whoever takes edgeallow off takes the lock in between, to take the rules out.
#[must_use]
pub fn is_leaving() -> bool {
    Path::new(LEAVING).exists() || executable_is_gone()
}

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

/// The lock of the keeper, in the state folder.
const KEEPER: &str = "keep.lock";

/// Makes the caller the one `keep` of a state folder, until what is returned is dropped: two would each take the other's
/// heals for somebody else's changes. Nothing if the lock can't be opened, which each look will say in its own words.
///
/// # Errors
/// `locked` if another keeper has it.
pub fn keep_alone(state_dir: &Path) -> Result<Option<RunLock>> {
    let Some(file) = make_folder(state_dir).ok().and_then(|()| open(&state_dir.join(KEEPER)).ok()) else {
        return Ok(None);
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(
            ErrorKind::Locked,
            format!("another `edgeallow keep` is at work for {}, and one is enough", state_dir.display()),
        )
        .hint("as a service it is `systemctl status edgeallow-keep`; `--state-dir` chooses another folder")),
        _ => Ok(Some(RunLock { _file: file })),
    }
}
