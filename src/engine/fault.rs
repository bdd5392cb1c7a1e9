//! Where a test can make a run die or fail: at every step boundary. Empty in a released binary.

use crate::error::Result;

/// A place between two steps. With the feature `fault-injection` the N-th one that a run passes kills it
/// (`EDGEALLOW_FAULT=kill:N`) or fails (`fail:N`).
#[cfg(not(feature = "fault-injection"))]
#[allow(clippy::unnecessary_wraps)]
pub(crate) const fn boundary() -> Result<()> {
    Ok(())
}

/// See above.
#[cfg(feature = "fault-injection")]
pub(crate) fn boundary() -> Result<()> {
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::error::{Error, ErrorKind};

    static PASSED: AtomicU32 = AtomicU32::new(0);
    let here = PASSED.fetch_add(1, Ordering::Relaxed);
    let asked = std::env::var("EDGEALLOW_FAULT").unwrap_or_default();
    let Some((how, at)) = asked.split_once(':') else { return Ok(()) };
    if at.parse() != Ok(here) {
        return Ok(());
    }
    if how == "kill" {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        unreachable!("SIGKILL can't be survived");
    }
    Err(Error::new(ErrorKind::Injected, format!("a test made step boundary {here} fail")))
}
