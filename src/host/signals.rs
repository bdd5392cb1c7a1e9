//! The signals that ask a service to end or to look again, as something that poll(2) can wait for.
//!
//! A signal only leaves a note; whoever polls reads it when it suits him, so nothing is ever cut off in the middle.
//!
//! Belongs here: catching signals. Does not: what is done about them.

// Registering a handler is unsafe, because only few functions may be called in one.
#![allow(unsafe_code)]

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::{Interest, unix::AsyncFd};

use crate::error::{Error, ErrorKind, Result, io_reason};

/// Whether somebody has asked a process to end that would do so by itself: see [`Leaving`].
static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    ASKED.store(true, Ordering::SeqCst);
}

/// While it is there, SIGTERM, SIGINT and SIGHUP don't end the process but are wishes to end. For the time in which it has
/// children that must not outlive it.
pub struct Leaving(Vec<(libc::c_int, libc::sigaction)>);

impl Leaving {
    /// From now on. A signal that was ignored before, as `nohup` has it, stays so.
    #[must_use]
    pub fn catch() -> Self {
        ASKED.store(false, Ordering::SeqCst);
        let mut before = Vec::new();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: all of it is numbers, and zeros are an empty mask, no flags and the default action.
            let (mut old, mut new): (libc::sigaction, libc::sigaction) = unsafe { (mem::zeroed(), mem::zeroed()) };
            new.sa_sigaction = note as *const () as libc::sighandler_t;
            new.sa_flags = libc::SA_RESTART;
            // SAFETY: the structures are whole; the handler does nothing but store to an atomic, which is never freed.
            let set = unsafe {
                libc::sigaction(signal, ptr::null(), &raw mut old) == 0
                    && old.sa_sigaction != libc::SIG_IGN
                    && libc::sigaction(signal, &raw const new, ptr::null_mut()) == 0
            };
            if set {
                before.push((signal, old));
            }
        }
        Self(before)
    }

    /// Becomes true when the process is asked to end.
    #[must_use]
    pub fn asked(&self) -> &AtomicBool {
        &ASKED
    }
}

impl Drop for Leaving {
    /// The signals do again what they did before.
    fn drop(&mut self) {
        for (signal, old) in &self.0 {
            // SAFETY: it is what the kernel has filled in.
            unsafe { libc::sigaction(*signal, ptr::from_ref(old), ptr::null_mut()) };
        }
    }
}

/// What has been asked for by signals.
pub struct Signals {
    end: Arc<AtomicBool>,
    again: Arc<AtomicBool>,
    bell: Arc<OwnedFd>,
}

impl Signals {
    /// From now on SIGTERM and SIGINT are wishes to end, and SIGHUP is a wish to look again.
    ///
    /// # Errors
    /// `internal` where no handler can be installed.
    pub fn catch() -> Result<Self> {
        let failed =
            |e: io::Error| Error::new(ErrorKind::Internal, format!("cannot prepare for signals: {}", io_reason(&e)));
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
        let signals = Self { end: Arc::default(), again: Arc::default(), bell: Arc::new(bell) };
        for (signal, flag) in
            [(libc::SIGTERM, &signals.end), (libc::SIGINT, &signals.end), (libc::SIGHUP, &signals.again)]
        {
            let (flag, bell) = (Arc::clone(flag), Arc::clone(&signals.bell));
            let note = move || {
                flag.store(true, Ordering::SeqCst);
                // A bell that rings already needs no second stroke.
                let _ = rustix::io::write(&*bell, &1_u64.to_ne_bytes());
            };
            // SAFETY: the handler stores to an atomic and makes one write(2) call by number; both are
            // async-signal-safe, neither allocates, locks or panics, and what they refer to is never freed.
            unsafe { signal_hook_registry::register(signal, note) }.map_err(failed)?;
        }
        Ok(signals)
    }

    /// The bell, for whoever waits in a runtime: readable when there is something to ask about.
    ///
    /// # Errors
    /// `internal` where it can't be waited for.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn bell(&self) -> Result<AsyncFd<OwnedFd>> {
        let failed =
            |e: io::Error| Error::new(ErrorKind::Internal, format!("cannot wait for signals: {}", io_reason(&e)));
        let own = self.bell.try_clone().map_err(failed)?;
        // SAFETY: the descriptor is owned by what is returned, which neither closes nor replaces it while it is registered.
        unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }.map_err(|e| failed(e.into()))
    }

    /// Whether the process was asked to end.
    #[must_use]
    pub fn end(&self) -> bool {
        self.end.load(Ordering::SeqCst)
    }

    /// Whether it was asked to look again since this was last asked; quiets the bell.
    #[must_use]
    pub fn take_again(&self) -> bool {
        let _ = rustix::io::read(&*self.bell, &mut [0_u8; 8]);
        self.again.swap(false, Ordering::SeqCst)
    }
}

impl AsFd for Signals {
    /// Readable when there is something to ask about.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
