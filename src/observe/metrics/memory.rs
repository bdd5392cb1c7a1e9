//! What the metrics remember: when a command last ended well, and the list and backends as they were last seen.
//!
//! A run that fails says nothing of the list or the backends, and what was known of them stays. It lies in a file of
//! its own in the state folder, written only where metrics are wanted, so that runs without changes need not write the
//! state.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{
    engine::sync::NOTHING_APPLIED,
    error::{Error, ErrorKind, Exit, Result},
    host::replace_own,
    observe::story,
    report::{BackendReport, BackendState, PageReport, PageState, ReachReport, Report, WayReport},
};

/// The file's name in the state folder.
const NAME: &str = "metrics.json";

/// How long another run that is just writing is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    /// By command: `sync`, `keep` and so on; `dry-run` for dry runs of commands that act.
    pub runs: BTreeMap<String, Runs>,
    pub list: Option<List>,
    pub backends: BTreeMap<String, Backend>,
    pub reach: Option<Reach>,
    pub watch: Option<Watch>,
}

/// The pages as a watch last saw them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Watch {
    pub pages: BTreeMap<String, Page>,
    /// How often its command was run.
    pub acts: usize,
    pub at: Timestamp,
}

/// A page that is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Page {
    pub down: bool,
    pub failures: u32,
    /// 0 is none.
    pub cloudflare_error: u16,
    /// By way: whether it went well, where that could be told, and how many seconds it took.
    pub success: BTreeMap<String, bool>,
    pub seconds: BTreeMap<String, f64>,
}

/// The runs of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Runs {
    pub last_run: Timestamp,
    pub last_success: Option<Timestamp>,
    pub exit: u8,
    /// Seconds.
    pub took: f64,
    pub changes: usize,
    /// How many ended with each exit status.
    pub total: BTreeMap<String, usize>,
    /// How many warnings of each id the last one had.
    #[serde(default)]
    pub warnings: BTreeMap<String, usize>,
}

/// The list as it was last used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct List {
    pub source: String,
    pub origin: String,
    pub fetched_at: Option<Timestamp>,
    pub v4: usize,
    pub v6: usize,
    pub added: usize,
    pub removed: usize,
    pub pending: usize,
}

/// A backend as it was last seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Backend {
    pub state: String,
    pub drift: bool,
    pub changes: usize,
    pub at: Timestamp,
}

/// Whether the ranges get through, as it was last judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Reach {
    pub questions: Vec<Question>,
    /// What stands in the way, by the tool that it belongs to and what it does to connections.
    pub culprits: BTreeMap<String, BTreeMap<String, usize>>,
    pub gaps: usize,
    pub at: Timestamp,
}

/// Whether they reach an address and port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Question {
    pub to: String,
    pub port: String,
    pub protocol: String,
    pub interface: String,
    pub verdict: String,
    pub ranges: usize,
    pub accepted: usize,
}

/// One process at a time adds to what is remembered: also looks do, which take no lock of a run.
pub(super) struct Seat {
    file: PathBuf,
    // Dropping it releases the lock.
    _folder: File,
}

impl Seat {
    /// # Errors
    /// The state folder can't be made or opened, or somebody else holds it for too long.
    pub fn take(state_dir: &Path) -> Result<Self> {
        crate::engine::state::make_folder(state_dir)?;
        let folder = File::open(state_dir).map_err(|e| Error::io(ErrorKind::State, "open", state_dir, &e))?;
        let start = Instant::now();
        loop {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { file: state_dir.join(NAME), _folder: folder }),
                Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(e) => return Err(Error::io(ErrorKind::State, "lock", state_dir, &e.into())),
            }
        }
    }

    /// Stores what is remembered.
    ///
    /// # Errors
    /// `io`, `file-refused`.
    pub fn keep(&self, memory: &Memory) -> Result<()> {
        let mut json = serde_json::to_string_pretty(memory)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write the metrics as JSON: {e}")))?;
        json.push('\n');
        replace_own(&self.file, json.as_bytes(), 0o644)
    }
}

impl Memory {
    /// Reads what is remembered. What can't be read is forgotten: counters may start anew, and Prometheus knows that.
    pub fn load(state_dir: &Path) -> Self {
        let bytes = fs::read(state_dir.join(NAME)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Adds a run.
    pub fn add(&mut self, report: &Report, now: Timestamp, took: Duration) {
        // One that had nothing to put back is no sync: where nothing is applied none is expected.
        if report.command == "sync" && report.warnings.iter().any(|w| w.id == NOTHING_APPLIED) {
            return;
        }
        let command = name(report);
        let before = self.runs.get(command);
        // Pending changes are what a look is for, and no failure of it.
        let success = matches!(report.exit, Exit::Ok | Exit::Pending);
        // A clock that was set back must not make an old success look new for as long as it takes to catch up.
        let last_success = if success { Some(now) } else { before.and_then(|b| b.last_success).map(|t| t.min(now)) };
        let mut total = before.map(|b| b.total.clone()).unwrap_or_default();
        *total.entry((report.exit as u8).to_string()).or_default() += 1;
        let changes = story::changes(report);
        let exit = report.exit as u8;
        let runs = Runs {
            last_run: now,
            last_success,
            exit,
            took: took.as_secs_f64(),
            changes,
            total,
            warnings: warnings(report),
        };
        self.runs.insert(command.to_owned(), runs);
        self.list(report);
        for backend in &report.backends {
            self.backends.insert(backend.name.to_owned(), Backend::of(backend, report, now));
        }
        // The way of a single packet says nothing of the ranges.
        if let Some(reach) = report.reach.as_ref().filter(|r| r.traces.is_empty()) {
            self.reach = Some(Reach::of(reach, now));
        }
        if let Some(watch) = &report.watch {
            let pages = watch.pages.iter().map(|p| (p.url.clone(), Page::of(p))).collect();
            self.watch = Some(Watch { pages, acts: watch.acts_total, at: now });
        }
    }

    fn list(&mut self, report: &Report) {
        // What is kept is what a sync has applied: nothing new, and less is known of where it came from.
        if report.command == "keep" && self.list.is_some() {
            return;
        }
        if let (Some(source), Some(list)) = (&report.source, &report.list) {
            self.list = Some(List {
                source: source.name.clone(),
                origin: source.origin.clone(),
                fetched_at: source.fetched_at,
                v4: source.v4,
                v6: source.v6,
                added: list.added.len(),
                removed: list.removed.len(),
                pending: list.pending_removal.len(),
            });
        }
    }

    /// Forgets what was to be kept up, after a removal that left nothing of it: nothing can grow old any more, nobody has to
    /// get through, and of a sync that never comes nobody shall be warned for ever. Whoever goes on, such as `keep`, is here
    /// again with his next run; `watch` has to do with pages, which are still there.
    pub fn forget(&mut self) {
        self.runs.retain(|command, _| matches!(command.as_str(), "remove" | "watch"));
        (self.list, self.reach) = (None, None);
    }

    /// Takes the report's warnings as they are now.
    pub fn warnings_are(&mut self, report: &Report) {
        if let Some(runs) = self.runs.get_mut(name(report)) {
            runs.warnings = warnings(report);
        }
    }
}

/// What a run counts as.
fn name(report: &Report) -> &'static str {
    let acts = !matches!(report.command, "status" | "verify");
    if report.dry_run && acts { "dry-run" } else { report.command }
}

fn warnings(report: &Report) -> BTreeMap<String, usize> {
    let mut warnings = BTreeMap::new();
    for warning in &report.warnings {
        *warnings.entry(warning.id.clone()).or_default() += 1;
    }
    warnings
}

impl Backend {
    fn of(backend: &BackendReport, report: &Report, now: Timestamp) -> Self {
        let drift = match backend.state {
            BackendState::Planned => true,
            BackendState::Undone | BackendState::Failed | BackendState::Unusable => true,
            BackendState::Pending => report.dry_run && backend.changed,
            BackendState::InSync | BackendState::Applied | BackendState::Removed | BackendState::Skipped => false,
        };
        Self { state: story::word(backend.state).to_owned(), drift, changes: backend.changes.len(), at: now }
    }
}

impl Page {
    fn of(page: &PageReport) -> Self {
        let (mut success, mut seconds) = (BTreeMap::new(), BTreeMap::new());
        // An answer that can't be had from here says nothing of the page.
        let well = |way: &WayReport| match (way.status, way.cloudflare_error) {
            (_, Some(_)) => Some(false),
            (Some(status), None) => Some(status < 500),
            (None, None) => None,
        };
        let best = page.origins.iter().max_by_key(|way| well(way));
        for (name, way) in [("edge", Some(&page.edge)), ("origin", best)] {
            let Some(way) = way else { continue };
            if let Some(well) = well(way) {
                success.insert(name.to_owned(), well);
            }
            if let Some(took) = way.seconds {
                seconds.insert(name.to_owned(), took);
            }
        }
        Self {
            down: page.state == PageState::Down,
            failures: page.failures,
            cloudflare_error: page.cloudflare_error.unwrap_or(0),
            success,
            seconds,
        }
    }
}

impl Reach {
    fn of(reach: &ReachReport, now: Timestamp) -> Self {
        let questions = reach.questions.iter().map(|q| Question {
            to: q.to.clone(),
            port: q.port.to_string(),
            protocol: q.protocol.to_owned(),
            interface: q.interface.clone(),
            verdict: q.verdict.as_str().to_owned(),
            ranges: q.ranges,
            accepted: q.accepted,
        });
        let mut culprits: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for culprit in &reach.culprits {
            let of_tool = culprits.entry(culprit.tool.unwrap_or("none").to_owned()).or_default();
            *of_tool.entry(culprit.verdict.as_str().to_owned()).or_default() += 1;
        }
        Self { questions: questions.collect(), culprits, gaps: reach.gaps.len(), at: now }
    }
}
