//! Syslog, as local programs speak it: one datagram an event to `/dev/log`, `<PRI>edgeallow[PID]: text` (RFC 3164).
//!
//! Without a time of its own: RFC 3164, section 4.3.2, lets the receiver add it, which every receiver does anyway, and
//! the local time zone needs not be known here.

use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::outlet::{self, Outlet};

/// Where every syslog of Linux listens.
pub(super) const PATH: &str = "/dev/log";

/// Facility "system daemons" of RFC 3164, section 4.1.1, shifted as PRI has it.
const DAEMON: u8 = 3 << 3;

/// The longest text of an event: RFC 3164, section 4.1, allows 1024 bytes in all.
const LONGEST: usize = 960;

/// The local syslog.
pub(super) struct Syslog {
    outlet: Outlet,
}

impl Syslog {
    /// # Errors
    /// There is none, or it doesn't listen.
    pub fn connect() -> io::Result<Self> {
        Ok(Self { outlet: Outlet::to(PATH)? })
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { outlet: &self.outlet, severity: 6, text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { outlet: &self.outlet, severity: severity(*meta.level()), text: Vec::new() }
    }
}

/// RFC 3164, section 4.1.1: error, warning, informational, debug.
pub(super) const fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// One event, sent when it is complete.
pub(super) struct Line<'a> {
    outlet: &'a Outlet,
    severity: u8,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let pid = std::process::id();
        let missed = self.outlet.send(&datagram(self.severity, pid, &self.text));
        if missed > 0 {
            self.outlet.send(&datagram(severity(Level::WARN), pid, outlet::lost(missed).as_bytes()));
        }
    }
}

fn datagram(severity: u8, pid: u32, text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("<{}>edgeallow[{pid}]: {}", DAEMON | severity, outlet::cut(&line, LONGEST)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_short_line_with_its_priority() {
        assert_eq!(datagram(severity(Level::WARN), 7, b" two\nlines\n"), b"<28>edgeallow[7]: two lines");
        assert_eq!(datagram(severity(Level::INFO), 7, b"x"), b"<30>edgeallow[7]: x");
        let long = "ä".repeat(2000);
        let sent = String::from_utf8(datagram(3, 7, long.as_bytes())).unwrap();
        assert!(sent.len() <= 1024 && sent.starts_with("<27>edgeallow[7]: ä"));
    }
}
