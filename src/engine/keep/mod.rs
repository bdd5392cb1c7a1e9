//! Keeping what is applied: waits for changes of the rule set and of files, and puts back what they undid.
//!
//! A look is an offline sync, and one that changed something is followed by another: what is heard between the two is
//! the first one's own doing, and the second finds nothing to do unless somebody else was at work as well. What is
//! heard from the beginning of the last look on is somebody else's, so no change is ever overheard.
//!
//! That Cloudflare is refused all the same is said once it stands for a second, with the rule and what would mend it.
//!
//! Belongs here: the loop. Does not: when to look ([`timing`]), which files to watch ([`places`]), how a change is
//! heard ([`crate::host`]), what a sync does ([`super::sync`]).

pub mod places;
pub mod timing;

use std::{
    collections::BTreeSet,
    os::fd::AsFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use self::{
    places::places,
    timing::{End, Timing},
};
use crate::{
    backends::Warning,
    engine::verify::OF_REACH,
    error::{Error, ErrorKind, Exit, Result, io_reason},
    host::{
        netlink::{Listener, Writer},
        service::Manager,
        signals::Signals,
        watch::Watcher,
    },
    report::{BackendState, Report},
};

/// One offline sync: its report, and the files that decide what the next one finds.
pub struct Round {
    /// What it did.
    pub report: Report,
    /// Files to watch from now on; `None` if that isn't known, and those known before still hold.
    pub files: Option<Vec<PathBuf>>,
    /// What is wrong with the configuration, where it was done by the one of the last sync. A warning in the report says
    /// so. It is a failure to be told of, and none that looking again would mend.
    pub broken: Option<Error>,
}

/// A look that found no other edgeallow at work.
pub struct Seen {
    /// What it did. [`UNDONE_AGAIN`] is among its warnings while somebody keeps undoing what is done.
    pub report: Report,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub end: End,
    /// Whether it is worth telling that it changed something.
    pub change: bool,
    /// Whether it is worth telling that something failed.
    pub failure: bool,
}

/// At most so many programs are remembered as having changed the rule set.
const WRITERS: usize = 4;

/// What stands in Cloudflare's way must be there this long before it is said: whoever loads his rules in several steps
/// may have refused it in between.
const STANDS: Duration = Duration::from_secs(1);

/// The warning that somebody keeps undoing what is done, so that it is put back only from time to time.
pub const UNDONE_AGAIN: &str = "undone-again";

/// What a keeper has done for it.
pub trait Work {
    /// One offline sync.
    fn round(&mut self) -> Round;

    /// Takes notice of a look. A heal is told when the second look has confirmed it, and that second look isn't.
    ///
    /// Nothing is heard or healed meanwhile, so this may not take long.
    fn seen(&mut self, seen: Seen);
}

/// Listens, waits and keeps.
pub struct Keeper<'a> {
    changes: Listener,
    watcher: Watcher,
    signals: Signals,
    manager: Manager,
    timing: Timing,
    work: &'a mut dyn Work,
    /// Who has changed the rule set since the last look ended, the latest first.
    writers: Vec<Writer>,
    /// Who had done so when something was last put back, as [`said_by`] says it.
    undone_by: String,
    /// What was said already and still holds.
    said: BTreeSet<String>,
    /// What failed in the last look.
    failing: BTreeSet<String>,
    /// Whether the configuration could not be read in the last look.
    broken: bool,
    /// Since when Cloudflare is found not to get through whatever is healed.
    shut_since: Option<Instant>,
    /// Looks that put something back.
    heals: u64,
}

impl<'a> Keeper<'a> {
    /// Listens from now on. `every` is the longest time between two looks, `work` makes them.
    ///
    /// # Errors
    /// `no-privilege` without CAP_NET_ADMIN; `netlink`, `io`, `internal` where something can't be listened to.
    pub fn new(every: Duration, work: &'a mut dyn Work) -> Result<Self> {
        Ok(Self {
            changes: Listener::open()?,
            watcher: Watcher::new()?,
            signals: Signals::catch()?,
            manager: Manager::from_env(),
            timing: Timing::new(Instant::now(), every),
            work,
            writers: Vec::new(),
            undone_by: String::new(),
            said: BTreeSet::new(),
            failing: BTreeSet::new(),
            broken: false,
            shut_since: None,
            heals: 0,
        })
    }

    /// Keeps until it is asked to end.
    ///
    /// # Errors
    /// `netlink`, `io` when nothing can be heard any more.
    pub fn run(mut self) -> Result<()> {
        self.look("the start");
        self.manager.ready();
        let mut alive = Instant::now();
        while !self.signals.end() {
            let now = Instant::now();
            if self.signals.take_again() {
                tracing::info!("asked to look again");
                self.timing.now(now);
            }
            if self.hear()? {
                self.timing.changed(now);
            }
            if let Some(interval) = self.manager.interval()
                && now.duration_since(alive) >= interval
            {
                self.manager.alive();
                alive = now;
            }
            if self.timing.due() <= now {
                let why = if self.timing.is_changed() { "a change" } else { "the time being up" };
                self.look(why);
            } else {
                let call = self.manager.interval().map(|interval| alive + interval);
                self.wait(call.map_or(self.timing.due(), |call| call.min(self.timing.due())))?;
            }
        }
        self.manager.stopping();
        tracing::info!("ended after {} heals", self.heals);
        Ok(())
    }

    /// Whether anything has changed since this was last asked.
    fn hear(&mut self) -> Result<bool> {
        let ours = std::process::id();
        let rules = self.changes.drain(|writer| {
            if writer.pid != ours && !self.writers.contains(&writer) {
                // A program that is run again and again has a new number each time; of those the latest are told.
                self.writers.truncate(WRITERS - 1);
                self.writers.insert(0, writer);
            }
        })?;
        Ok(self.watcher.drain()? || rules)
    }

    /// Sleeps until something happens, but not longer.
    fn wait(&self, until: Instant) -> Result<()> {
        // Rounded up: waking a moment too early would mean to wake twice.
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let limit = Timespec::try_from(left).ok();
        let mut all = [self.signals.as_fd(), self.changes.as_fd(), self.watcher.as_fd()]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut all, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(Error::new(ErrorKind::Internal, format!("cannot wait: {}", io_reason(&e.into())))),
        }
    }

    /// Looks, and puts right what isn't.
    fn look(&mut self, why: &str) {
        let started = Instant::now();
        self.timing.begin();
        if let Err(e) = self.hear() {
            tracing::debug!("{e}");
        }
        let by = said_by(&std::mem::take(&mut self.writers));
        let mut looks = vec![self.once(&format!("{why}{by}"))];
        if looks[0].end == End::Healed {
            self.undone_by = by;
            let second = self.once("the heal before");
            // What it finds of Cloudflare's way is what the heal has led to.
            let (report, after) = (&mut looks[0].report, &second.report);
            if after.reach.is_some() {
                report.reach.clone_from(&after.reach);
                report.warnings.retain(|w| !of_reach(w));
                report.warnings.extend(after.warnings.iter().filter(|w| of_reach(w)).cloned());
            }
            // It goes without saying if it finds nothing.
            if second.end != End::Clean {
                looks.push(second);
            }
            // Who was heard meanwhile are the programs that the first look ran.
            self.writers.clear();
        }
        let (now, end) = (Instant::now(), looks[looks.len() - 1].end);
        let step = self.timing.ended(now, end, now.duration_since(started));
        if let Some(wait) = step {
            self.tell_of(wait, end);
        }
        if let Some(since) = self.shut_since.filter(|since| now.duration_since(*since) < STANDS) {
            self.timing.by(since + STANDS);
        }
        for look in looks.into_iter().filter(|look| look.end != End::Busy) {
            let seen = self.news(look, step.is_some_and(|wait| !wait.is_zero()));
            self.work.seen(seen);
        }
    }

    /// Decides what of a look is worth telling. `step` says that heals are held back for longer than before.
    ///
    /// While something keeps undoing them, each step is told and not each heal; what fails is told once.
    fn news(&mut self, look: Seen, step: bool) -> Seen {
        let Seen { mut report, took, end, .. } = look;
        let failed = end == End::Failed || report.exit != Exit::Ok;
        let failing = if failed { failures(&report) } else { BTreeSet::new() };
        let fails_anew = !failing.is_subset(&self.failing);
        self.failing = failing;
        let wait = self.timing.held_back();
        if let Some(wait) = wait.filter(|_| end == End::Healed) {
            let what = format!(
                "something keeps undoing edgeallow's changes: they are put back only every {} s; find what writes the rules \
                 and end it{}",
                wait.as_secs(),
                self.suspects()
            );
            report.warnings.push(Warning::new(UNDONE_AGAIN, what));
        }
        let change = report.changed && (wait.is_none() || step);
        Seen { report, took, end, change, failure: fails_anew || (end == End::Healed && step) }
    }

    /// One look, with what was heard before it taken as seen.
    fn once(&mut self, why: &str) -> Seen {
        if let Err(e) = self.hear() {
            tracing::debug!("{e}");
        }
        let started = Instant::now();
        let Round { mut report, files, broken } = self.work.round();
        let took = started.elapsed();
        if std::mem::replace(&mut self.broken, broken.is_some()) && broken.is_none() {
            tracing::info!("the configuration can be read again, and counts");
        }
        let unwatched =
            files.map_or_else(Vec::new, |files| self.watcher.follow(&places(files.iter().map(PathBuf::as_path))));
        let end = self.tell(&report, unwatched, why, took);
        if let Some(e) = broken {
            report.fails_too(&e);
        }
        Seen { report, took, end, change: false, failure: false }
    }

    fn tell(&mut self, report: &Report, unwatched: Vec<String>, why: &str, took: Duration) -> End {
        let took = took.as_millis();
        if report.exit == Exit::Locked {
            tracing::debug!("another edgeallow is running; looking again when it is done");
            return End::Busy;
        }
        let (mut news, mut failed) = (Vec::new(), false);
        news.extend(unwatched.into_iter().map(|what| (what, true)));
        let shut = report.warnings.iter().any(of_reach);
        self.shut_since = shut.then(|| self.shut_since.unwrap_or_else(Instant::now));
        let stands = self.shut_since.is_some_and(|since| since.elapsed() >= STANDS);
        for warning in report.warnings.iter().filter(|w| stands || !of_reach(w)) {
            news.push((format!("{} [{}]", warning.message, warning.id), true));
        }
        let of_backends = report.backends.iter().filter_map(|b| Some((b.name, b.error.as_ref()?)));
        for (name, e) in report.error.iter().map(|e| ("", e)).chain(of_backends) {
            let hint = e.hint.as_ref().map_or_else(String::new, |h| format!(" ({h})"));
            let place = if name.is_empty() { String::new() } else { format!("{name}: ") };
            news.push((format!("{place}{}{hint}", e.message), false));
            failed = true;
        }
        self.say_new(news);
        let mut healed = false;
        for backend in report.backends.iter().filter(|b| b.changed && b.state != BackendState::Failed) {
            healed = true;
            let whys: BTreeSet<&str> = backend.changes.iter().map(|c| c.why.as_str()).collect();
            let whys = whys.into_iter().collect::<Vec<_>>().join("; ");
            tracing::info!("healed {} in {took} ms, after {why}: {whys}", backend.name);
        }
        let end = match (failed || report.exit != Exit::Ok, report.changed) {
            (true, _) => End::Failed,
            (false, true) => End::Healed,
            (false, false) => End::Clean,
        };
        // Also where something else failed: what is said to be healed counts.
        self.heals += u64::from(healed);
        if end == End::Clean {
            tracing::debug!("looked for {took} ms, after {why}: nothing to do");
        }
        self.manager.status(&match end {
            End::Failed => "something could not be put right; see the log".to_owned(),
            _ if report.warnings.iter().any(|w| w.id == super::sync::NOTHING_APPLIED) => {
                "nothing is applied on this machine".to_owned()
            }
            _ => format!("keeping watch; {} heals so far", self.heals),
        });
        end
    }

    /// Says what wasn't said before, warnings apart from errors. What doesn't hold any more may be said again.
    fn say_new(&mut self, what: impl IntoIterator<Item = (String, bool)>) {
        let mut now = BTreeSet::new();
        for (words, warning) in what {
            if !self.said.contains(&words) {
                if warning { tracing::warn!("{words}") } else { tracing::error!("{words}") }
            }
            now.insert(words);
        }
        self.said = now;
    }

    fn tell_of(&self, wait: Duration, end: End) {
        if wait.is_zero() {
            tracing::info!("nobody undoes edgeallow's changes any more; they are put back at once again");
            return;
        }
        if end == End::Failed {
            tracing::error!("what fails again and again is tried only every {} s from now on", wait.as_secs());
            return;
        }
        tracing::error!(
            "SOMETHING KEEPS UNDOING edgeallow's changes: from now on they are put back only every {} s, and Cloudflare may \
             be turned away in between. Find what writes the rules (`nft monitor`, cron, another firewall manager) and \
             end it{}; `systemctl reload edgeallow-keep` or SIGHUP looks at once",
            wait.as_secs(),
            self.suspects()
        );
    }

    /// Who had changed the rule set when something was last put back, in brackets; nothing if that isn't known.
    fn suspects(&self) -> String {
        if self.undone_by.is_empty() { String::new() } else { format!(" (it was last changed{})", self.undone_by) }
    }
}

/// Whether it is about Cloudflare getting through, which others may change at any moment.
fn of_reach(warning: &Warning) -> bool {
    OF_REACH.contains(&warning.id.as_str())
}

/// Who changed the rule set, as the end of a sentence: nothing if nobody is known.
fn said_by(writers: &[Writer]) -> String {
    let each = writers.iter().map(|w| format!("{} (process {})", w.name, w.pid));
    let all = each.collect::<Vec<_>>().join(", ");
    if all.is_empty() { all } else { format!(" by {all}") }
}

/// What failed, in words.
fn failures(report: &Report) -> BTreeSet<String> {
    let of_backends = report.backends.iter().filter_map(|b| Some(format!("{}: {}", b.name, b.error.as_ref()?.message)));
    let of_all = report.error.iter().map(|e| e.message.clone());
    of_backends.chain(of_all).chain([format!("exit status {}", report.exit as u8)]).collect()
}
