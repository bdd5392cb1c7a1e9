//! The journal, in its own language: one datagram an event, `NAME`, the value's length and the value for each field
//! (systemd.io, "Native Journal Protocol").
//!
//! tracing-journald waits for ever where journald doesn't read, also while it is being set up.
//!
//! Belongs here: from an event to fields. Does not: sending ([`super::outlet`]), which events there are.

use std::{fmt, io};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::{
    outlet::{self, Outlet},
    syslog::severity,
};

/// systemd-journald.service(8), "Native Journal Protocol".
const PATH: &str = "/run/systemd/journal/socket";
/// What stands before the names of fields that are edgeallow's own.
const PREFIX: &str = "EDGEALLOW_";
/// The longest value: a datagram has to fit into the socket's buffer, of 208 KiB where nobody has changed that
/// (socket(7), `wmem_default`).
const LONGEST: usize = 32 << 10;

/// Tells the journal.
pub(super) struct Journal {
    outlet: Outlet,
}

impl Journal {
    /// # Errors
    /// There is no journal here.
    pub fn connect() -> io::Result<Self> {
        Ok(Self { outlet: Outlet::to(PATH)? })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::of(event.metadata());
        event.record(&mut fields);
        let missed = self.outlet.send(&fields.0);
        if missed > 0 {
            let mut fields = Fields::new(Level::WARN);
            fields.put("MESSAGE", &outlet::lost(missed));
            self.outlet.send(&fields.0);
        }
    }
}

/// An event as the journal takes it.
struct Fields(Vec<u8>);

impl Fields {
    fn new(level: Level) -> Self {
        let mut fields = Self(Vec::with_capacity(512));
        fields.put("PRIORITY", &severity(level).to_string());
        fields.put("SYSLOG_IDENTIFIER", "edgeallow");
        fields
    }

    fn of(metadata: &Metadata<'_>) -> Self {
        let mut fields = Self::new(*metadata.level());
        fields.put("TARGET", metadata.target());
        if let Some(file) = metadata.file() {
            fields.put("CODE_FILE", file);
        }
        if let Some(line) = metadata.line() {
            fields.put("CODE_LINE", &line.to_string());
        }
        fields
    }

    fn put(&mut self, name: &str, value: &str) {
        let value = outlet::cut(value, LONGEST).as_bytes();
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// The message has a field of the journal's, all else is edgeallow's.
    fn record(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.put("MESSAGE", value),
            name => self.put(&own(name), value),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, &format!("{value:?}"));
    }
}

/// Names of fields are capital letters, digits and `_` (systemd.journal-fields(7)).
fn own(name: &str) -> String {
    let capital = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    PREFIX.chars().chain(name.chars().map(capital)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_a_name_of_the_journal_s_and_a_value_of_any_kind() {
        assert_eq!(own("fail2ban.jail"), "EDGEALLOW_FAIL2BAN_JAIL");
        let mut fields = Fields(Vec::new());
        fields.put("MESSAGE", "two\nlines");
        assert_eq!(fields.0, b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\n");
        let mut long = Fields(Vec::new());
        long.put("X", &"ä".repeat(LONGEST));
        assert_eq!(long.0.len(), LONGEST + "X\n".len() + 8 + 1);
    }
}
