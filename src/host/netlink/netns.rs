//! A network namespace of one's own, for as long as a closure runs.

use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::error::{Error, ErrorKind, Result, io_reason};

/// Runs `work` in a thread that lives in a fresh network namespace: the sockets it opens and the programs it spawns
/// live there too. The namespace is gone when the last of them is.
///
/// # Errors
/// `no-privilege` where no namespace can be made, else what `work` says.
pub fn in_fresh_netns<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: only the network namespace is left, and only by this thread, which was made for it. Open
            // descriptors, memory and file system stay shared, so nothing that other threads rely on changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|e| {
                let reason = io_reason(&e.into());
                Error::new(ErrorKind::NoPrivilege, format!("cannot make a network namespace to test in: {reason}"))
                    .hint("run edgeallow as root, with CAP_SYS_ADMIN")
            })?;
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
