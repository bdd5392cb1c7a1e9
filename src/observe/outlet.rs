//! The socket of a local log, which may not hold up a firewall.
//!
//! Belongs here: sending a datagram, and not waiting for a reader that doesn't read. Does not: what is in it.

use std::{
    io,
    os::unix::net::UnixDatagram,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How long a reader whose queue is full is waited for: once, and not again until it has read.
const PATIENCE: Duration = Duration::from_millis(500);

/// A way to a local log.
pub(super) struct Outlet {
    socket: UnixDatagram,
    path: &'static str,
    is_stuck: AtomicBool,
    lost: AtomicU64,
}

impl Outlet {
    /// # Errors
    /// Nobody listens at this path.
    pub fn to(path: &'static str) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        // The one that sends isn't connected: a log that is restarted is found again.
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, path, is_stuck: AtomicBool::new(false), lost: AtomicU64::new(0) })
    }

    /// Sends a datagram, or loses it: there is nowhere to say that a log can't be written. Says how many were lost before
    /// this one arrived.
    pub fn send(&self, datagram: &[u8]) -> u64 {
        match self.socket.send_to(datagram, self.path) {
            Ok(_) => {
                self.wait(true);
                self.lost.swap(0, Relaxed)
            }
            Err(e) => {
                self.lost.fetch_add(1, Relaxed);
                if e.kind() == io::ErrorKind::WouldBlock {
                    self.wait(false);
                }
                0
            }
        }
    }

    /// Whether the next one may wait.
    fn wait(&self, may: bool) {
        if self.is_stuck.swap(!may, Relaxed) == may {
            // A socket that can't be told so waits a little longer.
            let _ = self.socket.set_nonblocking(!may);
        }
    }
}

/// A text without what is longer than this many bytes.
pub(super) fn cut(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// What is said of lines that were lost.
pub(super) fn lost(lines: u64) -> String {
    let (s, were) = if lines == 1 { ("", "was") } else { ("s", "were") };
    format!("{lines} line{s} of edgeallow's log {were} lost, because the log was not read in time")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_reader_that_does_not_read_is_waited_for_once_and_told_what_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path: &'static str = Box::leak(dir.path().join("log").to_str().unwrap().to_owned().into_boxed_str());
        assert!(Outlet::to(path).is_err(), "nobody listens");
        let reader = UnixDatagram::bind(path).unwrap();
        let outlet = Outlet::to(path).unwrap();
        let (mut sent, began) = (0_u64, Instant::now());
        while !outlet.is_stuck.load(Relaxed) {
            outlet.send(b"x");
            sent += 1;
        }
        assert!(began.elapsed() >= PATIENCE);
        let began = Instant::now();
        for _ in 0..100 {
            assert_eq!(outlet.send(b"x"), 0);
        }
        assert!(began.elapsed() < PATIENCE * 50, "each was waited for");
        for _ in 1..sent {
            reader.recv(&mut [0; 8]).unwrap();
        }
        assert_eq!((outlet.send(b"y"), outlet.send(b"z")), (101, 0));
        assert!(!outlet.is_stuck.load(Relaxed), "the next one may wait again");
    }
}
