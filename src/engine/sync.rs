//! One run from the list to the report: what `sync`, `status` and `remove` have in common.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use jiff::Timestamp;

use super::{
    acquire::{Acquired, acquire},
    apply::{End, Job, Outcome, drop_not_persisted, preview},
    lock,
    marks::Marks,
    select::{Asked, Selection, known, select},
    state::{Applied, Digest, Event, FOLDER, Loaded, State, Store, StoredList, applied_prefixes},
};
use crate::{
    allowlist::{
        Prefixes,
        removal::{Patience, Settled, settle},
    },
    backends::{AnyBackend, Context, Goal, Warning},
    config::Config,
    error::{Error, ErrorKind, Exit, Result},
    host::{Act, executable_is_gone},
    plan::Desired,
    report::{BackendReport, BackendState, ListReport, Report},
};

/// What a run works with.
pub struct Session<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Its text, if it is the operator's own: a sync keeps it beside what it has applied by it.
    pub text: Option<&'a str>,
    /// The machine.
    pub host: &'a dyn Act,
    /// Every backend there is.
    pub backends: &'a [Box<dyn AnyBackend>],
    /// What is remembered.
    pub store: Store,
    /// Now; given, so that a test can say what time it is.
    pub now: Timestamp,
    /// Never open a network connection.
    pub offline: bool,
    /// How long another run is waited for.
    pub lock_timeout: std::time::Duration,
    /// Told what is going on.
    pub progress: &'a dyn Fn(&str),
}

/// The warning of a run that should put the last applied state back, where nothing is applied.
pub const NOTHING_APPLIED: &str = "nothing-applied";

/// What the operator said on the command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Change nothing.
    pub dry_run: bool,
    /// Compare element by element whatever the size.
    pub deep: bool,
    /// Only these backends.
    pub backends: Vec<String>,
    /// Lists in files, instead of Cloudflare's.
    pub lists: Vec<std::path::PathBuf>,
    /// Believe a list however much is gone.
    pub allow_shrink: bool,
    /// Don't wait before removing what vanished.
    pub remove_now: bool,
    /// A range that doesn't get through after a sync, or about which that can't be told, is a failure.
    pub require_reach: bool,
    /// Only put back what is applied: do nothing where nothing is.
    pub restore: bool,
    /// Something was applied when the operator asked for this run: do nothing where nothing is any more.
    pub while_applied: bool,
    /// The text of the kept configuration that this session goes by.
    pub by_copy: Option<String>,
    /// A list that another process has fetched: see [`super::fetched`].
    pub fetched: Option<std::path::PathBuf>,
    /// How long the network may take in all before an older list is used; nothing: as long as the configuration says.
    pub fetch_limit: Option<std::time::Duration>,
}

/// For commands that only look: somebody waits, and an older list tells as well who Cloudflare is.
pub const LOOKS_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

impl Session<'_> {
    /// Makes every chosen backend hold the list. `command` is `sync` or `status`.
    #[must_use]
    pub fn sync(&self, command: &'static str, options: &Options) -> Report {
        self.sync_and_tell(command, options).0
    }

    /// The same, with what the backends were to hold; nothing where there was no list to hold.
    pub(crate) fn sync_and_tell(&self, command: &'static str, options: &Options) -> (Report, Option<Desired>) {
        let mut report = Report::blank(command, options.dry_run);
        let mut wanted = None;
        if let Err(e) = self.try_sync(options, &mut report, &mut wanted) {
            report.exit = report.exit.worst(e.kind.exit());
            report.error = Some((&e).into());
        }
        (report, wanted)
    }

    /// That there is every backend that the configuration names.
    ///
    /// # Errors
    /// `usage` with the name that there isn't, and what may have been meant.
    pub fn knows_configured(&self) -> Result<()> {
        let mut names = self.config.backends.iter();
        names
            .try_for_each(|name| known(self.backends, name))
            .map_err(|e| Error { message: format!("`backends` in the configuration: {}", e.message), ..e })
    }

    fn try_sync(&self, options: &Options, report: &mut Report, wanted: &mut Option<Desired>) -> Result<()> {
        let only_these = !options.backends.is_empty();
        let names = if only_these { &options.backends } else { &self.config.backends };
        if only_these {
            names.iter().try_for_each(|name| known(self.backends, name))?;
        } else {
            self.knows_configured()?;
        }
        let _lock = self.lock(options.dry_run)?;
        if !options.dry_run && lock::is_leaving() {
            return nobody_would_own_it(report);
        }
        if options.by_copy.is_some() && options.by_copy != self.store.configuration() {
            let what = "another edgeallow has applied another configuration meanwhile";
            return Err(Error::new(ErrorKind::RaceLost, what).hint("run `edgeallow sync --restore` again"));
        }
        let Loaded { mut state, known, warnings } = self.store.load(!options.dry_run)?;
        // A state that is there and can't be read doesn't say that nothing is applied.
        let nothing_applied = state.backends.is_empty() && warnings.is_empty();
        report.warnings.extend(warnings);
        if options.restore && nothing_applied {
            let what = format!(
                "by {} nothing is applied on this machine, so nothing was put back; `edgeallow sync` applies the list",
                self.store.dir().display()
            );
            report.warnings.push(Warning::new(NOTHING_APPLIED, what));
            return Ok(());
        }
        if options.while_applied && nothing_applied {
            let what = "what was applied was taken out while this run waited, so nothing was put back; `edgeallow sync` \
                        applies the list";
            report.warnings.push(Warning::new(NOTHING_APPLIED, what));
            return Ok(());
        }

        let asked = Asked { names, only_these };
        let used: Vec<&str> = state.backends.keys().map(String::as_str).collect();
        let mut chosen = select(self.backends, &self.context(None, options), &asked, &used);
        if options.restore && !known {
            self.leave_the_bare(&mut chosen, options);
            if chosen.chosen.is_empty() {
                let what = "what was applied is not known, and no firewall holds anything of edgeallow's, so nothing was \
                            put back; `edgeallow sync` applies the list";
                report.warnings.push(Warning::new(NOTHING_APPLIED, what));
                return Ok(());
            }
        }
        let got = acquire(self, options, &state, &mut report.warnings)?;
        report.source = Some(got.report());
        report.warnings.extend(chosen.warnings.iter().cloned());
        report.warnings.extend(too_wide(&self.config.extra));

        let held = self.held(&state, known, &chosen, options, report);
        // Without a usable state it isn't known what the list had before, so nothing is removed this time.
        let settled = self.settle(&got, &held, &state, known, options);
        if !known && !settled.pending.is_empty() {
            report
                .warnings
                .push(Warning::new("no-removals", "without its state edgeallow removes nothing in this run"));
        }
        report.list = Some(difference(&settled, &held));
        warn_of_waiting(&settled, report);
        let want = wanted.insert(self.desired(&settled.hold)).clone();
        // The lists are stored first: with a state folder that is full or read-only nothing new is opened.
        let digests = if options.dry_run {
            None
        } else {
            match self.put_lists(&got.list, &settled.hold, &want.prefixes) {
                Ok(digests) => Some(digests),
                Err(e) => return Err(self.keep_to_the_old(e, &state, chosen, options, report)),
            }
        };
        let done = self.run_backends(&chosen, &state, &want, options, report);
        let Some(digests) = digests else { return Ok(()) };
        super::fault::boundary()?;
        let remembered = self.remember(&mut state, known, got, settled, digests, &done, report);
        if remembered.is_ok() {
            self.keep_configuration(&done, report);
        }
        super::fault::boundary()?;
        // Last, because nothing depends on it; what can't be remembered is there all the same.
        if self.config.verify || options.require_reach {
            self.check_reach(&want, options, report);
        }
        remembered
    }

    /// Most often the three are one list, which is written out and digested once.
    fn put_lists(&self, list: &Prefixes, hold: &Prefixes, want: &Prefixes) -> Result<Digests> {
        let digest = self.store.put_list(list)?;
        let held = if hold == list { digest.clone() } else { self.store.put_list(hold)? };
        let all = if want == hold { held.clone() } else { self.store.put_list(want)? };
        Ok(Digests { list: digest, held, all })
    }

    /// Where a new list can't be stored for want of room: what is applied by the old one is put back if it is gone.
    fn keep_to_the_old(
        &self,
        e: Error,
        state: &State,
        mut chosen: Selection<'_>,
        options: &Options,
        report: &mut Report,
    ) -> Error {
        let applied = |name: &str| state.backends.get(name);
        chosen.chosen.retain(|(backend, _)| applied(backend.meta().name).is_some());
        chosen.dropped.clear();
        let names: Vec<&str> = chosen.chosen.iter().map(|(backend, _)| backend.meta().name).collect();
        let Some((first, old)) = names.first().and_then(|name| Some((*name, applied(name)?))) else { return e };
        // One that is behind the others is not brought to something else now.
        let alike = |a: &Applied| (&a.digest, &a.ports, &a.protocols) == (&old.digest, &old.ports, &old.protocols);
        let Some(prefixes) = applied_prefixes(&self.store, state, first)
            .filter(|_| e.takes_nothing && names.iter().all(|name| applied(name).is_some_and(alike)))
        else {
            return e;
        };
        let (ports, protocols) = (old.ports.iter().copied().collect(), old.protocols.iter().copied().collect());
        let want = Desired { prefixes, ports, protocols };
        report.list = None;
        self.run_backends(&chosen, state, &want, options, report);
        if self.config.verify || options.require_reach {
            self.check_reach(&want, options, report);
        }
        let message = format!("{}; so it goes by the list that was applied before", e.message);
        Error { message, ..e }
    }

    /// Takes out all that is ours: of the named backends, or of every one.
    #[must_use]
    pub fn remove(&self, options: &Options) -> Report {
        let mut report = Report::blank("remove", options.dry_run);
        if let Err(e) = self.try_remove(options, &mut report) {
            report.exit = report.exit.worst(e.kind.exit());
            report.error = Some((&e).into());
        }
        report
    }

    fn try_remove(&self, options: &Options, report: &mut Report) -> Result<()> {
        let _lock = self.lock(options.dry_run)?;
        let Loaded { mut state, warnings, .. } = self.store.load(!options.dry_run)?;
        let before = state.clone();
        report.warnings.extend(warnings);
        for name in &options.backends {
            known(self.backends, name)?;
        }
        let mut changed = Vec::new();
        for backend in self.backends {
            let meta = backend.meta();
            if !options.backends.is_empty() && !options.backends.iter().any(|n| n == meta.name) {
                continue;
            }
            if options.backends.is_empty() && self.is_anothers(meta.name, &state) {
                let why = format!(
                    "by {} nothing was applied there; what another instance has put there stays",
                    self.store.dir().display()
                );
                report.backends.push(BackendReport::idle(meta.name, BackendState::Skipped, Some(why)));
                continue;
            }
            match backend.probe(&self.context(None, options)) {
                crate::backends::Probe::Absent(why) => {
                    // What isn't here holds nothing, and must not count as applied for ever.
                    state.backends.remove(meta.name);
                    report.backends.push(BackendReport::idle(meta.name, BackendState::Skipped, Some(why)));
                }
                crate::backends::Probe::Unusable(e) => {
                    report.exit = report.exit.worst(Exit::Backend);
                    report.backends.push(BackendReport::unusable(meta.name, &e));
                }
                crate::backends::Probe::Ready { .. } => {
                    (self.progress)(&format!("removing from {}", meta.name));
                    let outcome = self.one(&**backend, &state, Goal::Nothing, None, options);
                    if matches!(outcome.end, End::InSync | End::Applied) {
                        state.backends.remove(meta.name);
                    }
                    if outcome.end == End::Applied {
                        changed.push(meta.name.to_owned());
                    }
                    self.tell(meta.name, &outcome, true, None, report);
                }
            }
        }
        if state.backends.is_empty() {
            // Nothing is held any more, so nothing can vanish from it.
            (state.held, state.pending) = (None, vec![]);
        }
        if !changed.is_empty() {
            state.remember(Event { at: self.now, command: "remove".into(), added: 0, removed: 0, backends: changed });
        }
        if state.backends.is_empty() && !options.dry_run {
            self.store.drop_configuration();
        }
        // Also where somebody else had taken out what was applied: it must not come back with the next restore.
        if options.dry_run || state == before {
            return Ok(());
        }
        let state = State { schema: 1, ..state };
        let Err(e) = self.store.save(&state) else { return Ok(()) };
        // To forget takes no space.
        if state.backends.is_empty() && self.store.forget() {
            let what = format!(
                "{e}; so the state was deleted: nothing counts as applied any more, and the last good list and the \
                 history are lost"
            );
            report.warnings.push(Warning::new("state-lost", what));
            return Ok(());
        }
        let message = format!(
            "{}; what was taken out still counts as applied, so `edgeallow keep` and a restore will put it back",
            e.message
        );
        Err(Error { message, ..e })
    }

    /// Of a state that can't be read nobody knows whether it said that anything is applied: a restore then keeps to the
    /// backends that hold something of ours, live or stored, and opens no other.
    fn leave_the_bare(&self, chosen: &mut Selection<'_>, options: &Options) {
        let all = std::mem::take(&mut chosen.chosen);
        for (backend, why) in all {
            // One that can't be looked at fails with its own words when its turn comes, and changes nothing.
            let leave_stored = self.stored_by_another(backend, &State::default());
            let cx = Context { leave_stored, ..self.context(None, options) };
            if backend.look(&cx).is_ok_and(|seen| seen.bare()) {
                let why = "the state can't be read, and nothing of edgeallow's is here".to_owned();
                chosen.skipped.push((backend.meta().name, why));
            } else {
                chosen.chosen.push((backend, why));
            }
        }
    }

    /// Whether this is an instance beside the host's own, by its state folder: that of a network namespace, for one.
    fn is_apart(&self) -> bool {
        self.store.dir() != Path::new(FOLDER)
    }

    /// Whether an instance has nothing to do with a backend: neither its configuration nor its state names it.
    fn is_anothers(&self, name: &str, state: &State) -> bool {
        let named = self.config.backends.iter().any(|n| n == name || n == "auto");
        self.is_apart() && !named && !state.backends.contains_key(name)
    }

    /// Whether what a backend finds stored for the next boot is another instance's: this one stores nothing there, and
    /// its state doesn't say that it ever did. All instances have one tag.
    fn stored_by_another(&self, backend: &dyn AnyBackend, state: &State) -> bool {
        let once = || state.backends.get(backend.meta().name).is_some_and(|a| a.stored);
        self.is_apart() && !backend.stores() && !once()
    }

    fn lock(&self, dry_run: bool) -> Result<Option<lock::RunLock>> {
        if dry_run {
            return Ok(None);
        }
        (self.progress)("waiting for another edgeallow");
        lock::take(self.lock_timeout).map(Some)
    }

    fn context(&self, applied: Option<Arc<Prefixes>>, options: &Options) -> Context<'_> {
        Context {
            host: self.host,
            applied,
            full_check: self.config.limits.full_check,
            deep: options.deep,
            leave_stored: false,
        }
    }

    /// What was held so far. Without a usable state: what is found live, so that nothing is removed this time.
    fn held(
        &self,
        state: &State,
        known: bool,
        chosen: &Selection<'_>,
        options: &Options,
        report: &mut Report,
    ) -> Prefixes {
        if let Some(digest) = state.held.as_ref().filter(|_| known) {
            match self.store.list(digest) {
                Ok(held) => return held,
                // Whoever read it before has said so.
                Err(warning) if report.warnings.contains(&warning) => {}
                Err(warning) => report.warnings.push(warning),
            }
        }
        let mut held = Prefixes::default();
        for (backend, _) in &chosen.chosen {
            // A backend that can't be looked at now fails with its own words when its turn comes.
            if let Ok(seen) = backend.look(&Context { deep: true, ..self.context(None, options) }) {
                held = held.union(&seen.held());
            }
        }
        // The operator's own prefixes are not the list's.
        held.minus(&self.config.extra)
    }

    pub(super) fn settle(
        &self,
        got: &Acquired,
        held: &Prefixes,
        state: &State,
        known: bool,
        options: &Options,
    ) -> Settled {
        let patience = Patience {
            grace: self.config.removal_grace,
            remove_now: options.remove_now && known,
            fresh_read: got.fresh_read,
        };
        settle(&got.list, held, &state.pending, self.now, patience)
    }

    fn run_backends(
        &self,
        chosen: &Selection<'_>,
        state: &State,
        want: &Desired,
        options: &Options,
        report: &mut Report,
    ) -> Vec<Done> {
        let mut done = Vec::new();
        for (backend, why) in &chosen.chosen {
            let name = backend.meta().name;
            (self.progress)(&format!("comparing {name}"));
            let outcome = self.one(*backend, state, Goal::Hold(want), Some(&want.prefixes), options);
            self.tell(name, &outcome, false, Some(why), report);
            let Outcome { end, not_stored, .. } = outcome;
            done.push(Done { name, end, held: true, not_stored, stores: backend.stores() });
        }
        for (backend, why) in &chosen.dropped {
            let name = backend.meta().name;
            let outcome = self.one(*backend, state, Goal::Nothing, None, options);
            report.warnings.push(Warning::new(
                "backend-dropped",
                format!(
                    "{name} was used before and is no longer chosen ({why}), so what edgeallow left there is taken out"
                ),
            ));
            self.tell(name, &outcome, true, Some(why), report);
            done.push(Done { name, end: outcome.end, held: false, not_stored: false, stores: false });
        }
        for (name, e) in &chosen.unusable {
            report.exit = report.exit.worst(Exit::Backend);
            report.backends.push(BackendReport::unusable(name, e));
        }
        for (name, why) in &chosen.skipped {
            report.backends.push(BackendReport::idle(name, BackendState::Skipped, Some(why.clone())));
        }
        done
    }

    fn one(
        &self,
        backend: &dyn AnyBackend,
        state: &State,
        goal: Goal<'_>,
        will_hold: Option<&Arc<Prefixes>>,
        options: &Options,
    ) -> Outcome {
        let marks = Marks::new(self.store.dir());
        let name = backend.meta().name;
        // After a run that was cut off, what the state says of this backend proves nothing.
        let trusted = !marks.is_set(name);
        let big = state.backends.contains_key(name) && trusted;
        let applied = big.then(|| applied_prefixes(&self.store, state, name)).flatten();
        let mut cx = self.context(applied, options);
        cx.leave_stored = self.stored_by_another(backend, state);
        if options.dry_run {
            // What the last run could not store, the next one will try again; it is said, and no difference.
            let again = state.backends.get(name).is_some_and(|a| a.not_stored) && matches!(goal, Goal::Hold(_));
            cx.leave_stored |= again;
            let mut outcome = preview(backend, &cx, goal);
            if again {
                let what = format!("what {name} should load at the next boot could not be stored; a sync says why");
                drop_not_persisted(&mut outcome);
                outcome.warnings.push(Warning::new("not-stored", what));
            }
            return outcome;
        }
        Job { host: self.host, backend, cx, will_hold: will_hold.cloned(), marks: &marks }.apply(goal)
    }

    fn tell(&self, name: &'static str, outcome: &Outcome, removing: bool, why: Option<&String>, report: &mut Report) {
        let (mut backend, exit) = BackendReport::of(name, outcome, removing);
        backend.reason = backend.reason.or_else(|| why.cloned());
        report.changed |= backend.changed;
        report.exit = report.exit.worst(exit);
        report.backends.push(backend);
        if !removing {
            report.warnings.extend(outcome.warnings.iter().cloned());
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn remember(
        &self,
        state: &mut State,
        known: bool,
        got: Acquired,
        settled: Settled,
        digests: Digests,
        done: &[Done],
        report: &Report,
    ) -> Result<()> {
        let before = state.clone();
        state.schema = 1;
        state.held = Some(digests.held);
        state.pending = settled.pending;
        // A copy is stored already, and the built-in list must not pass for one that was once fetched.
        if got.fresh_read {
            state.list = Some(StoredList {
                digest: digests.list,
                origin: got.origin.as_str().to_owned(),
                etag: got.etag,
                validator: got.validator,
                fetched_at: got.fetched_at,
            });
        }
        let all = digests.all;
        for Done { name, end, not_stored, stores, .. } in done {
            let dropped = !report.backends.iter().any(|b| b.name == *name && b.state != BackendState::Removed);
            match end {
                End::Applied | End::InSync if dropped => drop(state.backends.remove(*name)),
                End::Applied | End::InSync => {
                    let ports: Vec<u16> = self.config.ports.iter().copied().collect();
                    let protocols: Vec<_> = self.config.protocols.iter().copied().collect();
                    let same = state
                        .backends
                        .get(*name)
                        .filter(|a| a.digest == all && a.ports == ports && a.protocols == protocols);
                    let since = same.map_or(self.now, |a| a.since);
                    let (not_stored, stored) = (*not_stored, *stores);
                    let applied = Applied { digest: all.clone(), ports, protocols, since, not_stored, stored };
                    state.backends.insert((*name).to_owned(), applied);
                }
                _ => {}
            }
        }
        let changed: Vec<String> = done.iter().filter(|d| d.end == End::Applied).map(|d| d.name.to_owned()).collect();
        if !changed.is_empty() {
            let list = report.list.as_ref();
            state.remember(Event {
                at: self.now,
                command: "sync".into(),
                added: list.map_or(0, |l| l.added.len()),
                removed: list.map_or(0, |l| l.removed.len()),
                backends: changed,
            });
        }
        // Nothing new to remember: nothing is written.
        if known && *state == before { Ok(()) } else { self.store.save(state) }
    }

    /// Keeps the configuration by which something is held now. It is not needed until the operator's own can't be read.
    fn keep_configuration(&self, done: &[Done], report: &mut Report) {
        let holds = |d: &Done| d.held && matches!(d.end, End::Applied | End::InSync);
        let Some(text) = self.text.filter(|_| done.iter().any(holds)) else { return };
        if let Err(e) = self.store.put_configuration(text) {
            let what = format!("{e}; so a restore won't know by which configuration this was applied");
            report.warnings.push(Warning::new("config-not-kept", what));
        }
    }
}

/// Instead of a run, where edgeallow is being taken off the machine.
fn nobody_would_own_it(report: &mut Report) -> Result<()> {
    if executable_is_gone() {
        report.warnings.push(removed());
        return Ok(());
    }
    let what = "the package of edgeallow is being removed from this machine, so nothing was applied";
    let hint = format!("if it stays installed, delete {}, which its removal has left behind", lock::LEAVING);
    Err(Error::new(ErrorKind::Locked, what).hint(hint))
}

/// The warning of a run whose program was removed before it could begin.
#[must_use]
pub fn removed() -> Warning {
    let what = "edgeallow was removed from this machine while this run waited, so nothing was done";
    Warning::new(NOTHING_APPLIED, what)
}

/// What became of a backend, for the state.
struct Done {
    name: &'static str,
    end: End,
    /// Whether it was to hold the list, not to be cleaned up.
    held: bool,
    not_stored: bool,
    stores: bool,
}

/// The lists of a run, as they are stored.
struct Digests {
    /// The list itself.
    list: Digest,
    /// With the ranges that wait for their removal.
    held: Digest,
    /// With the operator's own prefixes.
    all: Digest,
}

/// The operator's own prefixes are his own; but one that is most of the internet is most often a slip.
fn too_wide(extra: &Prefixes) -> Option<Warning> {
    let wide: Vec<String> =
        extra.iter().filter(|net| net.prefix_len() < 8).map(|net| net.to_string()).take(5).collect();
    (!wide.is_empty()).then(|| {
        let what = format!(
            "`extra` in the configuration opens the ports to {}: that is not a list of known senders any more",
            wide.join(", ")
        );
        Warning::new("extra-wide", what)
    })
}

fn difference(settled: &Settled, held: &Prefixes) -> ListReport {
    let words = |p: Prefixes| p.iter().map(|n| n.to_string()).collect();
    ListReport {
        added: words(settled.hold.minus(held)),
        removed: words(held.minus(&settled.hold)),
        pending_removal: settled.pending.iter().map(Into::into).collect(),
    }
}

fn warn_of_waiting(settled: &Settled, report: &mut Report) {
    let names: BTreeSet<String> = settled.pending.iter().take(5).map(|p| p.prefix.to_string()).collect();
    if !names.is_empty() {
        let more = settled.pending.len() - names.len();
        let names: Vec<String> = names.into_iter().collect();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        report.warnings.push(Warning::new(
            "pending-removal",
            format!(
                "gone from the list, and allowed until missing for the grace period: {}{more}; --remove-now closes them \
                 at once",
                names.join(", ")
            ),
        ));
    }
}
