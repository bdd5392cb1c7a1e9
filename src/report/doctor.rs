//! What `edgeallow doctor` says: findings with their evidence, and what they come to.
//!
//! Belongs here: the shape. Does not: finding anything ([`crate::doctor`]), the words and the page for people
//! (`human_doctor`, `html`).

use serde::Serialize;

/// What a finding means for visitors, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Finds {
    /// Looked at, and well.
    Ok,
    /// Worth knowing; never a cause.
    Note,
    /// Could not be looked at, or need not be: the text says why.
    Skipped,
    /// Not the cause of an error now, but of one to come, for some visitors, or under load.
    Warning,
    /// Visitors get an error because of this.
    Cause,
}

impl Finds {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Cause => "cause",
        }
    }
}

/// The rooms in which is looked, in the order in which an expert would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Room {
    /// Who listens, and what it answers.
    Online,
    /// Packet filters, bans, what web servers deny, routes.
    Firewall,
    /// Certificates, versions, the zone's encryption mode.
    Tls,
    /// Names, addresses, ports.
    Dns,
    /// What the machine or a program can run out of.
    Resources,
    /// What was logged.
    Logs,
    /// Beyond the list.
    Beyond,
}

impl Room {
    /// Every room, in order.
    pub const ALL: [Self; 7] =
        [Self::Online, Self::Firewall, Self::Tls, Self::Dns, Self::Resources, Self::Logs, Self::Beyond];

    /// Its name for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "Online",
            Self::Firewall => "Firewall",
            Self::Tls => "TLS",
            Self::Dns => "DNS and ports",
            Self::Resources => "Resources",
            Self::Logs => "Logs",
            Self::Beyond => "Beyond the list",
        }
    }
}

/// Something that was looked at, and what was found there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Evidence {
    /// The command, file or address: somebody else could look there too.
    pub source: String,
    /// What it said, shortened, without anything secret.
    pub shows: String,
}

/// How to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fix {
    /// In words: a sentence.
    pub text: String,
    /// As a command to copy, where there is one.
    pub command: Option<String>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// Stable: `online.nothing-listens`. The part before the dot is the room.
    pub id: &'static str,
    /// Where it was looked.
    pub room: Room,
    /// What it means.
    pub verdict: Finds,
    /// What was found, in a sentence without a full stop.
    pub text: String,
    /// What was looked at.
    pub evidence: Vec<Evidence>,
    /// The errors that visitors see at Cloudflare: 520 to 526, and 502 and 504 of a web server whose application fails.
    pub cloudflare_errors: Vec<u16>,
    /// How to mend it.
    pub fix: Option<Fix>,
}

impl Finding {
    /// A finding without evidence, error or fix.
    #[must_use]
    pub fn new(room: Room, id: &'static str, verdict: Finds, text: impl Into<String>) -> Self {
        Self { id, room, verdict, text: text.into(), evidence: vec![], cloudflare_errors: vec![], fix: None }
    }

    /// With something that was looked at.
    #[must_use]
    pub fn seen(mut self, source: impl Into<String>, shows: impl Into<String>) -> Self {
        self.evidence.push(Evidence { source: source.into(), shows: shows.into() });
        self
    }

    /// With what another room looked at, where it did.
    #[must_use]
    pub fn seen_too(mut self, evidence: Option<&Evidence>) -> Self {
        self.evidence.extend(evidence.cloned());
        self
    }

    /// With the errors that it gives.
    #[must_use]
    pub fn gives(mut self, errors: &[u16]) -> Self {
        self.cloudflare_errors = errors.to_vec();
        self
    }

    /// The errors that it gives, for people: `Error 521 or 522`.
    #[must_use]
    pub fn errors(&self) -> Option<String> {
        let (last, others) = self.cloudflare_errors.split_last()?;
        let others: Vec<String> = others.iter().map(u16::to_string).collect();
        Some(if others.is_empty() { format!("Error {last}") } else { format!("Error {} or {last}", others.join(", ")) })
    }

    /// With a way to mend it in words.
    #[must_use]
    pub fn mend(mut self, text: impl Into<String>) -> Self {
        self.fix = Some(Fix { text: text.into(), command: None });
        self
    }

    /// With a way to mend it, where one is known.
    #[must_use]
    pub fn mend_if(self, text: Option<impl Into<String>>) -> Self {
        match text {
            Some(text) => self.mend(text),
            None => self,
        }
    }

    /// With a way to mend it, and the command.
    #[must_use]
    pub fn mend_by(mut self, text: impl Into<String>, command: impl Into<String>) -> Self {
        self.fix = Some(Fix { text: text.into(), command: Some(command.into()) });
        self
    }
}

/// What it all comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Conclusion {
    /// The worst that was found.
    pub verdict: Finds,
    /// The most likely cause, why, and what to do next: a paragraph.
    pub text: String,
    /// The finding that it is about.
    pub finding: Option<&'static str>,
    /// The one command to run next.
    pub next: Option<String>,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DoctorReport {
    /// What it comes to.
    pub conclusion: Conclusion,
    /// The encryption mode that was assumed: `flexible`, `full`, `strict` or `unknown`.
    pub mode: &'static str,
    /// The names that were asked about.
    pub hosts: Vec<String>,
    /// The addresses of the origin that were asked about.
    pub origins: Vec<String>,
    /// The ports.
    pub ports: Vec<u16>,
    /// Every finding, in the order of the rooms.
    pub findings: Vec<Finding>,
}
