//! The types behind `--format json`. Stable: fields are added, never renamed. The published schema in `docs/schema/`
//! is made from them, and a test keeps the two together.

use jiff::Timestamp;
use serde::Serialize;

use super::{DoctorReport, ReachReport, WatchReport};
use crate::{
    allowlist::removal::PendingRemoval,
    backends::{Verified, Warning},
    engine::apply::{End, Outcome},
    error::{Error, Exit},
    plan::{Change, Step},
};

/// What one run of `sync`, `status`, `verify`, `doctor` or `remove`, one look of `keep` or one round of `watch` did, would do, or found.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// The version of this layout: 1.
    pub schema: u32,
    /// `sync`, `status`, `verify`, `doctor`, `remove` or `watch`; `keep` in what its hooks get.
    pub command: &'static str,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// Whether something was changed; in a dry run, whether a run would change something.
    pub changed: bool,
    /// Where the list came from; absent for `remove` and when there was no list.
    pub source: Option<SourceReport>,
    /// How the list differs from the last one.
    pub list: Option<ListReport>,
    /// What became of each backend.
    pub backends: Vec<BackendReport>,
    /// Whether every range reaches every port: of `verify`, and of a `sync` that was no dry run.
    pub reach: Option<ReachReport>,
    /// Why Cloudflare would answer with an error: of `doctor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doctor: Option<DoctorReport>,
    /// How the watched pages are: of `watch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchReport>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
    /// What ended the run before any backend.
    pub error: Option<ErrorReport>,
    /// The exit status that this report stands for.
    #[serde(skip)]
    pub exit: Exit,
}

impl Report {
    /// A report of nothing yet.
    #[must_use]
    pub fn blank(command: &'static str, dry_run: bool) -> Self {
        Self {
            schema: 1,
            command,
            dry_run,
            changed: false,
            source: None,
            list: None,
            backends: vec![],
            reach: None,
            doctor: None,
            watch: None,
            warnings: vec![],
            error: None,
            exit: Exit::Ok,
        }
    }

    /// A run that ended before it began.
    #[must_use]
    pub fn failed(command: &'static str, e: &Error) -> Self {
        Self {
            error: Some(e.into()),
            exit: e.kind.exit(),
            ..Self::blank(command, matches!(command, "status" | "verify" | "doctor"))
        }
    }

    /// Has it fail for this reason too. What it has failed for already stays the one that is told.
    pub fn fails_too(&mut self, e: &Error) {
        self.exit = self.exit.worst(e.kind.exit());
        self.error.get_or_insert_with(|| e.into());
    }
}

/// Where the list came from.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SourceReport {
    /// Whose list it is: `cloudflare`, or the name of the file.
    pub name: String,
    /// `api`, `text`, `cache`, `built-in`, `file` or `fetched`.
    pub origin: String,
    /// The validator that the server gave.
    pub etag: Option<String>,
    /// When the list was last read from its source; for the built-in list the day it was taken.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub fetched_at: Option<Timestamp>,
    /// IPv4 prefixes in it.
    pub v4: usize,
    /// IPv6 prefixes in it.
    pub v6: usize,
}

/// How the list differs from what was held before.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListReport {
    /// Prefixes that are new.
    pub added: Vec<String>,
    /// Prefixes that are gone and no longer allowed.
    pub removed: Vec<String>,
    /// Prefixes that are gone from the list and still allowed.
    pub pending_removal: Vec<PendingReport>,
}

/// A vanished range that waits.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PendingReport {
    /// The range.
    pub prefix: String,
    /// When it was first found missing.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub missing_since: Timestamp,
}

impl From<&PendingRemoval> for PendingReport {
    fn from(p: &PendingRemoval) -> Self {
        Self { prefix: p.prefix.to_string(), missing_since: p.missing_since }
    }
}

/// What became of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum BackendState {
    /// There was nothing to do.
    InSync,
    /// There would be something to do.
    Planned,
    /// Done and confirmed.
    Applied,
    /// Nothing of ours is left.
    Removed,
    /// It failed, and the machine is as it was.
    Undone,
    /// Stored; goes live when the tool is next started.
    Pending,
    /// Not wanted here.
    Skipped,
    /// Wanted, and can't be worked with.
    Unusable,
    /// It failed.
    Failed,
}

impl BackendState {
    /// Every state there is.
    pub const ALL: [Self; 9] = [
        Self::InSync,
        Self::Planned,
        Self::Applied,
        Self::Removed,
        Self::Undone,
        Self::Pending,
        Self::Skipped,
        Self::Unusable,
        Self::Failed,
    ];

    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "in sync",
            Self::Planned => "planned",
            Self::Applied => "applied",
            Self::Removed => "removed",
            Self::Undone => "undone",
            Self::Pending => "pending",
            Self::Skipped => "skipped",
            Self::Unusable => "unusable",
            Self::Failed => "failed",
        }
    }
}

/// One backend.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BackendReport {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub state: BackendState,
    /// Whether it was changed, or would be.
    pub changed: bool,
    /// Why it was chosen, skipped, or is pending.
    pub reason: Option<String>,
    /// How thoroughly it was compared.
    pub verified: Option<Verified>,
    /// Each change, with its reason.
    pub changes: Vec<ChangeReport>,
    /// What went wrong.
    pub error: Option<ErrorReport>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChangeReport {
    /// Why.
    pub why: String,
    /// What an administrator would type or do.
    pub preview: String,
    /// For files and scripts: the lines that come and go, as a unified diff.
    pub diff: Option<String>,
}

/// An error as scripts see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorReport {
    /// The stable kind.
    pub kind: &'static str,
    /// What happened, to what.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl From<&Error> for ErrorReport {
    fn from(e: &Error) -> Self {
        Self { kind: e.kind.as_str(), message: e.message.clone(), hint: e.hint.clone() }
    }
}

impl From<&Change> for ChangeReport {
    fn from(change: &Change) -> Self {
        Self { why: change.why.clone(), preview: change.step.to_string(), diff: diff(&change.step) }
    }
}

/// Files longer than this are previewed by their size: nobody reads a diff of a hundred thousand prefixes.
const LONGEST_DIFF: usize = 256 << 10;

fn diff(step: &Step) -> Option<String> {
    let (path, old, new): (_, &[u8], &[u8]) = match step {
        Step::Write(w) => (&w.path, w.was.as_deref().unwrap_or_default(), &w.content),
        Step::Remove(r) => (&r.path, &r.was, &[]),
        Step::Run(r) => return r.stdin.as_ref().map(|s| short(s)),
        Step::Mkdir(_) | Step::Rmdir(_) | Step::Touch(_) | Step::Nft(_) => return None,
    };
    if old.len() > LONGEST_DIFF || new.len() > LONGEST_DIFF {
        return Some(format!("{} bytes before, {} bytes after", old.len(), new.len()));
    }
    let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
    let name = path.display().to_string();
    Some(similar::TextDiff::from_lines(&*old, &*new).unified_diff().context_radius(2).header(&name, &name).to_string())
}

fn short(bytes: &[u8]) -> String {
    if bytes.len() > LONGEST_DIFF {
        return format!("{} bytes of input", bytes.len());
    }
    String::from_utf8_lossy(bytes).into_owned()
}

impl BackendReport {
    /// A backend that was not worked with.
    #[must_use]
    pub fn idle(name: &'static str, state: BackendState, reason: Option<String>) -> Self {
        Self { name, state, changed: false, reason, verified: None, changes: vec![], error: None }
    }

    /// A backend that can't be worked with.
    #[must_use]
    pub fn unusable(name: &'static str, error: &Error) -> Self {
        Self { error: Some(error.into()), ..Self::idle(name, BackendState::Unusable, None) }
    }

    /// What became of a backend. `removing` tells `removed` from `applied`.
    #[must_use]
    pub fn of(name: &'static str, outcome: &Outcome, removing: bool) -> (Self, Exit) {
        let (state, changed, error, exit) = match &outcome.end {
            End::InSync if outcome.pending.is_some() => (BackendState::Pending, false, None, Exit::Ok),
            End::InSync => (BackendState::InSync, false, None, Exit::Ok),
            End::Planned => (BackendState::Planned, true, None, Exit::Ok),
            End::Applied if removing => (BackendState::Removed, true, None, Exit::Ok),
            End::Applied if outcome.pending.is_some() => (BackendState::Pending, true, None, Exit::Ok),
            End::Applied => (BackendState::Applied, true, None, Exit::Ok),
            End::Undone(e) => (BackendState::Undone, false, Some(e), worst_backend(e)),
            End::Failed(e) => (BackendState::Failed, false, Some(e), worst_backend(e)),
        };
        let (error, exit) = match outcome.live_only.as_ref().filter(|_| error.is_none()) {
            Some(e) => (Some(e), worst_backend(e)),
            None => (error, exit),
        };
        let report = Self {
            name,
            state,
            changed,
            reason: outcome.pending.clone(),
            verified: Some(outcome.verified),
            changes: outcome.plan.changes.iter().map(ChangeReport::from).collect(),
            error: error.map(ErrorReport::from),
        };
        (report, exit)
    }
}

/// A failure inside a backend is exit 5 if it is about confirmation, else 4, whatever its kind.
fn worst_backend(e: &Error) -> Exit {
    match e.kind.exit() {
        Exit::Unconfirmed => Exit::Unconfirmed,
        _ => Exit::Backend,
    }
}

/// One backend, as `edgeallow backends` shows it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BackendRow {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// `ready`, `absent` or `unusable`.
    pub state: &'static str,
    /// Version or variant of the tool.
    pub version: Option<String>,
    /// Whether a sync would use it.
    pub used: bool,
    /// Why, or why not.
    pub reason: String,
    /// Every path that it may write.
    pub files: &'static [&'static str],
    /// Why it is unusable.
    pub error: Option<ErrorReport>,
}
