//! The signals that ask a service to end or to look again, as something that poll(2) can wait for.
//!
//! A signal only leaves a note; whoever polls reads it when it suits him, so nothing is ever cut off in the middle.
//!
//! Belongs here: catching signals. Does not: what is done about them.

// Registering a handler is unsafe, because only few functions may be called in one.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::{Interest, unix::AsyncFd};

use crate::error::{Error, ErrorKind, Result, io_reason};

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
