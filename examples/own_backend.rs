//! A backend of one's own, as small as a real one can be: nginx keeps a list of addresses that may come in, and
//! edgeallow keeps that list. CONTRIBUTING.md, "Add a backend in an hour", builds it step by step.
//!
//! What is ours is one file, `/etc/nginx/edgeallow.allow`. The administrator takes it in where only Cloudflare shall
//! get in. The `*` makes it no error when the file isn't there:
//!
//! ```text
//! include /etc/nginx/edgeallow*.allow;
//! deny all;
//! ```
//!
//! `cargo run --example own_backend` shows what a sync would do on this machine, and does nothing.

use std::{collections::BTreeSet, path::Path, process::ExitCode, sync::Arc};

use edgeallow::{
    allowlist::{self, Prefixes},
    backends::{Auto, Backend, Context, Goal, Meta, Probe},
    engine::apply::{End, preview},
    error::{Error, ErrorKind, Result},
    host::{Machine, utf8},
    plan::{Check, Desired, Plan, Protocol, Remove, Run, Step, Write, counted},
};

/// The one file that is ours. Its name carries the tag.
const FILE: &str = "/etc/nginx/edgeallow.allow";
/// Made by nginx when it starts, removed when it ends (nginx manual, `pid`; the place is Debian's and RHEL's).
const PID: &str = "/run/nginx.pid";

static META: Meta = Meta {
    name: "nginx",
    summary: "a list of addresses for nginx to let in",
    files: &[FILE],
    // It answers 403; it drops no packet. So `auto` doesn't ask it whether it refuses any.
    packet_filter: false,
};

/// The backend.
struct Nginx;

/// What a look returns.
#[derive(Debug)]
struct Seen {
    /// Our file's content, if it is there.
    file: Option<Arc<[u8]>>,
    /// Whether nginx runs, so that it must be told to read the file.
    running: bool,
}

impl Backend for Nginx {
    /// All that is ours: the content of the file. `None`, the default, is "nothing of ours is here".
    type Owned = Option<Arc<[u8]>>;
    type Seen = Seen;

    fn meta(&self) -> &'static Meta {
        &META
    }

    fn probe(&self, cx: &Context<'_>) -> Probe {
        if cx.host.program("nginx").is_none() {
            return Probe::Absent("nginx is not installed".to_owned());
        }
        // Nothing that can be read cheaply says whether somebody includes the file; having it does no harm.
        Probe::Ready { version: "installed".to_owned(), auto: Auto::Yes("nginx is installed".to_owned()) }
    }

    fn observe(&self, cx: &Context<'_>) -> Result<Seen> {
        let file = cx.host.file(Path::new(FILE))?;
        Ok(Seen { file: file.map(|f| f.content), running: cx.host.exists(Path::new(PID)) })
    }

    fn owned(&self, seen: &Seen) -> Self::Owned {
        seen.file.clone()
    }

    fn target(&self, want: &Desired, _seen: &Seen) -> Result<Self::Owned> {
        let lines: String = want.prefixes.iter().map(|net| format!("allow {net};\n")).collect();
        Ok(Some(format!("# Written by edgeallow. Changes made here are undone.\n{lines}").into_bytes().into()))
    }

    fn steps(&self, seen: &Seen, to: &Self::Owned) -> Result<Plan> {
        let mut plan = Plan::default();
        match (&seen.file, to) {
            (was, Some(content)) if was.as_ref() != Some(content) => {
                let why = if was.is_some() { "the list is not as it should be" } else { "nginx doesn't have the list" };
                plan.change(why, Step::Write(Write::ours(FILE, content.clone(), was.clone())));
            }
            (Some(was), None) => {
                plan.change("the list is not needed", Step::Remove(Remove { path: FILE.into(), was: was.clone() }));
            }
            _ => {}
        }
        // If nginx's own test passes before the change and fails after it, all of it is undone.
        plan.checks.push(Check::NotWorse { what: "nginx's own test passes".into(), run: Run::new(["nginx", "-t"]) });
        if seen.running {
            // Also where there is nothing to change: a run that was cut off may have left this undone.
            plan.activate.push(Step::Run(Run::new(["nginx", "-s", "reload"])));
        }
        Ok(plan)
    }

    fn held(&self, seen: &Seen) -> Prefixes {
        // Only what can be read counts; a line that somebody garbled holds nothing open.
        let text = seen.file.as_deref().map(|bytes| utf8(Path::new(FILE), bytes).unwrap_or_default());
        let nets = text.unwrap_or_default().lines().filter_map(|l| l.strip_prefix("allow ")?.strip_suffix(';'));
        nets.filter_map(|net| allowlist::parse::entries(FILE, [net]).ok())
            .fold(Prefixes::default(), |all, raw| all.union(&Prefixes::new(raw.v4, raw.v6)))
    }

    fn pending(&self, seen: &Seen) -> Option<String> {
        (!seen.running && seen.file.is_some()).then(|| "nginx is not running: it reads the list when it starts".into())
    }
}

/// What a sync would do here, from the list in the binary.
fn show() -> Result<()> {
    let raw = allowlist::snapshot::built_in()?;
    let want = Desired {
        prefixes: Arc::new(Prefixes::new(raw.v4, raw.v6)),
        ports: BTreeSet::from([80, 443]),
        protocols: BTreeSet::from([Protocol::Tcp]),
    };
    let machine = Machine::new();
    let cx = Context { host: &machine, applied: None, full_check: 10_000, deep: false, leave_stored: false };
    match Nginx.probe(&cx) {
        Probe::Ready { .. } => {}
        Probe::Absent(why) => return Err(Error::new(ErrorKind::BackendUnusable, why)),
        Probe::Unusable(e) => return Err(e),
    }
    let outcome = preview(&Nginx, &cx, Goal::Hold(&want));
    if let End::Failed(e) = outcome.end {
        return Err(e);
    }
    for change in &outcome.plan.changes {
        println!("{}: {}", change.why, change.step);
    }
    for step in outcome.plan.activate.iter().filter(|_| !outcome.plan.is_empty()) {
        println!("then: {step}");
    }
    println!("{}; nothing was done", counted(outcome.plan.changes.len(), "change", "changes"));
    Ok(())
}

fn main() -> ExitCode {
    match show() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.kind.exit() as u8)
        }
    }
}

#[cfg(test)]
#[path = "own_backend/tests.rs"]
mod tests;
