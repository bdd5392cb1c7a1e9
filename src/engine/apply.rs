//! Brings one backend to a goal: look, plan, act, look again; undo what can't be confirmed.

use std::{any::Any, sync::Arc};

use super::{fault, marks::Marks};
use crate::{
    allowlist::Prefixes,
    backends::{AnyBackend, AnySeen, Context, Goal, Verified, Warning},
    error::{Error, ErrorKind, Result},
    host::{Act, Look},
    plan::{Change, Check, Plan, Step},
};

/// How often a lost race is run again from the look.
const ATTEMPTS: u32 = 3;

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// There was nothing to do.
    InSync,
    /// There would be something to do; nothing was done.
    Planned,
    /// Done, and confirmed by a second look.
    Applied,
    /// It failed, and the machine is as it was.
    Undone(Error),
    /// It failed before anything was changed, or the way back failed too (then the message says so).
    Failed(Error),
}

/// What became of one backend.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What was planned at the first look.
    pub plan: Plan,
    /// What the operator should know, from the last look.
    pub warnings: Vec<Warning>,
    /// How thoroughly the last look compared.
    pub verified: Verified,
    /// Stored, but live only when the tool is next started: the reason.
    pub pending: Option<String>,
    /// Whether what should be stored for the next boot could not be: the warnings say why.
    pub not_stored: bool,
    /// Why the run fails though what is live is as it should be: the file system took nothing of what is stored.
    pub live_only: Option<Error>,
}

impl Outcome {
    fn failed(error: Error) -> Self {
        Self {
            end: End::Failed(error),
            plan: Plan::default(),
            warnings: vec![],
            verified: Verified::Full,
            pending: None,
            not_stored: false,
            live_only: None,
        }
    }

    fn after(seen: &dyn AnySeen, goal: Goal<'_>, end: End, plan: Plan) -> Self {
        let (warnings, verified) = (seen.warnings(goal), seen.verified());
        // Where nothing of ours is, nothing waits for the tool's start either.
        let pending = seen.pending().filter(|_| !seen.bare());
        Self { end, plan, warnings, verified, pending, not_stored: false, live_only: None }
    }
}

/// Looks and plans, and does nothing: a dry run, and `status`.
pub fn preview(backend: &dyn AnyBackend, cx: &Context<'_>, goal: Goal<'_>) -> Outcome {
    match look_and_plan(backend, cx, goal) {
        Err(e) => Outcome::failed(e),
        Ok((seen, plan)) => {
            let end = if plan.is_empty() { End::InSync } else { End::Planned };
            Outcome::after(&*seen, goal, end, plan)
        }
    }
}

fn look_and_plan<'b>(
    backend: &'b dyn AnyBackend,
    cx: &Context<'_>,
    goal: Goal<'_>,
) -> Result<(Box<dyn AnySeen + 'b>, Plan)> {
    let seen = backend.look(cx)?;
    let plan = seen.plan(goal)?;
    Ok((seen, plan))
}

/// Everything one application needs.
pub struct Job<'a> {
    /// The machine, to change.
    pub host: &'a dyn Act,
    /// The backend.
    pub backend: &'a dyn AnyBackend,
    /// What it may know.
    pub cx: Context<'a>,
    /// What it will hold if all goes well, for the second look at big sets.
    pub will_hold: Option<Arc<Prefixes>>,
    /// Where it is marked that a change is under way.
    pub marks: &'a Marks,
}

/// A look, the goal that was planned for it, and what the look was allowed to know.
type Planned<'a> = (&'a dyn AnySeen, Goal<'a>, &'a Context<'a>);

/// What ended a plan.
enum Failure {
    /// What would be stored for the next boot doesn't pass its rehearsal; nothing was changed yet.
    Rehearsal(Error),
    /// The backend forbids it, having looked more closely; nothing was changed yet.
    Forbidden(Error),
    /// The file system took nothing of the change with this index.
    TakesNothing(Error, usize),
    /// Anything else.
    Step(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Self::Rehearsal(e) | Self::Forbidden(e) | Self::TakesNothing(e, _) | Self::Step(e) => e,
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Step(e)
    }
}

/// Whether the kernel, or the program before it, refused a change.
fn refused(e: &Error) -> bool {
    matches!(e.kind, ErrorKind::Netlink | ErrorKind::Program)
}

fn not_stored(e: &Error) -> Warning {
    let hint = e.hint.as_ref().map_or_else(String::new, |h| format!(" ({h})"));
    Warning::new(
        "not-stored",
        format!("what is stored for the next boot was left as it is, because its rehearsal failed: {e}{hint}"),
    )
}

/// What is left as it is isn't looked at, so a backend may take it for what can't be stored on this machine at all.
pub fn drop_not_persisted(outcome: &mut Outcome) {
    outcome.warnings.retain(|w| w.id != "not-persisted");
}

/// What is said where only the storing failed.
fn live_only(e: &Error) -> Error {
    let what = format!("what lets Cloudflare in is live but not stored, so a reboot loses it: {e}");
    let hint = e.hint.as_ref().map_or_else(String::new, |h| format!("{h}; "));
    Error::new(ErrorKind::NotStored, what).hint(format!("{hint}`edgeallow sync` stores it as soon as that is possible"))
}

/// Whether a change is one of files: with what is stored left as it is, of those that the tool is loaded from.
fn of_files(change: &Change) -> bool {
    !matches!(change.step, Step::Nft(_) | Step::Run(_))
}

impl Job<'_> {
    /// Brings the backend to the goal.
    #[must_use]
    pub fn apply(&self, goal: Goal<'_>) -> Outcome {
        let name = self.backend.meta().name;
        let cut_off = self.marks.is_set(name);
        let (seen, plan) = match look_and_plan(self.backend, &self.cx, goal) {
            Ok(both) => both,
            Err(e) => return Outcome::failed(e),
        };
        if plan.is_empty() {
            // Everything is in its place, but after a crash the tool may never have read it.
            let done = if cut_off { self.finish_activation(&plan) } else { Ok(()) };
            return Outcome::after(&*seen, goal, done.map_or_else(End::Failed, |()| End::InSync), plan);
        }
        let mark = !plan.activate.is_empty() || self.large();
        if mark && let Err(e) = self.marks.set(name) {
            return Outcome::after(&*seen, goal, End::Failed(e), plan);
        }
        let outcome = self.attempts(goal, seen, plan);
        let settled = matches!(outcome.end, End::InSync | End::Applied | End::Undone(_));
        if (mark || cut_off)
            && settled
            && let Err(e) = self.marks.clear(name)
        {
            tracing::warn!("{e}");
        }
        outcome
    }

    fn large(&self) -> bool {
        self.will_hold.as_ref().is_some_and(|p| p.len() > self.cx.full_check)
    }

    fn finish_activation(&self, plan: &Plan) -> Result<()> {
        tracing::warn!("an earlier run was cut off; {} is made to read its files again", self.backend.meta().name);
        plan.activate.iter().try_for_each(|step| self.step(step))?;
        self.marks.clear(self.backend.meta().name)
    }

    fn attempts(&self, goal: Goal<'_>, first: Box<dyn AnySeen + '_>, planned: Plan) -> Outcome {
        let before = first.owned();
        let mut warnings = Vec::new();
        let (mut seen, mut plan) = (first, planned.clone());
        let (mut attempt, mut cx) = (1, self.cx.clone());
        // Why nothing could be stored, and what was made live before that was found out.
        let mut not_taken: Option<(Error, Vec<Change>)> = None;
        let error = loop {
            tracing::info!(backend = self.backend.meta().name, changes = plan.changes.len(), attempt, "applying");
            let ran = self.run(&plan, Some((&*seen, goal, &cx)), &mut warnings);
            match ran.and_then(|()| self.confirm(&cx, goal).map_err(Failure::Step)) {
                Ok(seen) => {
                    if let Some((_, done)) = &mut not_taken {
                        plan.changes.splice(..0, done.drain(..));
                    }
                    // What was done is the plan that ran, not the one that was first made.
                    let end = if plan.is_empty() { End::InSync } else { End::Applied };
                    let mut outcome = Outcome::after(&*seen, goal, end, plan);
                    outcome.not_stored = cx.leave_stored && !self.cx.leave_stored;
                    outcome.warnings.extend(warnings);
                    outcome.live_only = not_taken.as_ref().map(|(e, _)| live_only(e));
                    if outcome.live_only.is_some() {
                        drop_not_persisted(&mut outcome);
                    }
                    return outcome;
                }
                // What is live must not wait for what can't be stored.
                Err(Failure::Rehearsal(e)) if !cx.leave_stored => {
                    warnings.push(not_stored(&e));
                    cx.leave_stored = true;
                }
                // Neither must it go for want of room. To take out what opens is done wholly or not at all.
                Err(Failure::TakesNothing(e, n)) if !cx.leave_stored && matches!(goal, Goal::Hold(_)) => {
                    let without = Context { leave_stored: true, ..cx.clone() };
                    match look_and_plan(self.backend, &without, goal) {
                        Ok((_, live)) if !live.changes.iter().any(of_files) => {}
                        _ => break e,
                    }
                    self.activate_stored(&plan);
                    let done = plan.changes.iter().take(n).filter(|c| !of_files(c)).cloned();
                    (cx.leave_stored, not_taken) = (true, Some((e, done.collect())));
                }
                // At the first attempt there is nothing to undo, and what was seen may differ from what an undoing
                // would lead to.
                Err(Failure::Forbidden(e)) if attempt == 1 => {
                    return Outcome::after(&*seen, goal, End::Failed(e), planned);
                }
                Err(Failure::Rehearsal(e) | Failure::Forbidden(e) | Failure::TakesNothing(e, _)) => break e,
                // A big set isn't what it was presumed to be, although it has the right number of elements: without
                // the presumption it is filled anew.
                Err(Failure::Step(e)) if cx.applied.is_some() && self.large() && refused(&e) => {
                    tracing::warn!("{e}; the set is filled anew");
                    cx.applied = None;
                }
                Err(Failure::Step(e)) if e.kind == ErrorKind::RaceLost && attempt < ATTEMPTS => {
                    tracing::warn!("{e}; looking again");
                    attempt += 1;
                }
                Err(Failure::Step(e)) => break e,
            }
            match look_and_plan(self.backend, &cx, goal) {
                Ok(both) => (seen, plan) = both,
                Err(e) => break e,
            }
        };
        self.undo(&*before, error, planned)
    }

    /// What was stored before the file system took nothing more is read as far as it goes.
    fn activate_stored(&self, plan: &Plan) {
        for e in plan.activate.iter().filter_map(|step| self.step(step).err()) {
            tracing::warn!("{e}");
        }
    }

    /// The second look: confirmed means that there is nothing left to plan.
    fn confirm(&self, cx: &Context<'_>, goal: Goal<'_>) -> Result<Box<dyn AnySeen + '_>> {
        let cx = Context { applied: self.will_hold.clone(), ..cx.clone() };
        let seen = self.backend.look(&cx)?;
        let left = seen.plan(goal)?;
        match left.changes.first() {
            None => seen.confirm(&cx).map(|()| seen),
            Some(change) => Err(Error::new(
                ErrorKind::Unconfirmed,
                format!("all steps succeeded, and yet a second look finds: {} ({})", change.why, change.step),
            )
            .hint("something else changes this firewall at the same time, or ignores what it is told")),
        }
    }

    /// Back to what was ours at the first look, by the same machinery.
    fn undo(&self, before: &(dyn Any + Send + Sync), error: Error, first: Plan) -> Outcome {
        let goal = Goal::Back(before);
        let mut changed = false;
        for attempt in 1..=ATTEMPTS {
            // Nobody knows how far the change got, so a big set's content is presumed only by the look that confirms.
            let applied = self.cx.applied.clone().filter(|_| !self.large());
            let tried = self.backend.look(&Context { applied, ..self.cx.clone() }).and_then(|seen| {
                let plan = Plan { checks: vec![], ..seen.plan(goal)? };
                if plan.is_empty() {
                    return Ok(seen);
                }
                changed = true;
                self.run(&plan, None, &mut Vec::new()).map_err(Failure::into_error)?;
                let again = self.backend.look(&self.cx)?;
                match again.plan(goal)?.is_empty() {
                    true => Ok(again),
                    false => Err(Error::new(ErrorKind::RaceLost, "what was undone doesn't stay undone")),
                }
            });
            match tried {
                Ok(seen) => {
                    // A second look that finds something else is "applied but not confirmed", even if it is found
                    // that in the end there was nothing to take back.
                    let undone = changed || error.kind == ErrorKind::Unconfirmed;
                    let end = if undone { End::Undone(error) } else { End::Failed(error) };
                    return Outcome::after(&*seen, goal, end, first);
                }
                Err(e) if e.kind == ErrorKind::RaceLost && attempt < ATTEMPTS => {}
                Err(e) => {
                    let both = format!("{error}; and undoing it failed too: {e}");
                    let hint = "look at `edgeallow status`; the next `edgeallow sync` tries again from what it finds";
                    return Outcome {
                        plan: first,
                        ..Outcome::failed(Error::new(ErrorKind::UndoFailed, both).hint(hint))
                    };
                }
            }
        }
        // The loop returns in its last round: nothing but RaceLost goes on, and that not at the last attempt.
        Outcome { plan: first, ..Outcome::failed(error) }
    }

    /// Carries a plan out: locks, checks, changes, activation.
    fn run(&self, plan: &Plan, planned: Option<Planned<'_>>, warnings: &mut Vec<Warning>) -> Result<(), Failure> {
        if plan.is_empty() {
            return Ok(());
        }
        let mut held = Vec::with_capacity(plan.locks.len());
        for lock in &plan.locks {
            held.push(self.host.lock(lock)?);
        }
        if let Some((_, goal, cx)) = planned.filter(|_| !held.is_empty()) {
            // The tool may have been at work until it gave up its lock.
            let under_lock = self.backend.look(cx)?.plan(goal)?;
            if under_lock.changes != plan.changes {
                let moved = format!("{} was changed before its lock was taken", self.backend.meta().name);
                return Err(Error::new(ErrorKind::RaceLost, moved).into());
            }
        }
        let mut good = Vec::new();
        for check in &plan.checks {
            match check {
                Check::NotWorse { what, run } if self.host.execute(run).is_ok() => good.push((what, run)),
                Check::NotWorse { what, .. } => {
                    tracing::info!("before anything is changed it doesn't hold that {what}")
                }
                _ => self.check(check, planned, warnings)?,
            }
        }
        if let Some((seen, ..)) = planned {
            seen.before(&self.cx, plan).map_err(Failure::Forbidden)?;
        }
        fault::boundary()?;
        for (n, change) in plan.changes.iter().enumerate() {
            tracing::debug!(why = change.why, "{}", change.step);
            self.step(&change.step).map_err(|e| match e.takes_nothing {
                true => Failure::TakesNothing(e, n),
                false => Failure::Step(e),
            })?;
            fault::boundary()?;
        }
        for (what, run) in good {
            self.host.execute(run).map_err(|e| {
                Error::new(ErrorKind::ToolConfig, format!("before the change {what}, after it not: {e}"))
            })?;
        }
        for step in &plan.activate {
            tracing::debug!("{step}");
            self.step(step)?;
            fault::boundary()?;
        }
        Ok(())
    }

    fn check(&self, check: &Check, planned: Option<Planned<'_>>, warnings: &mut Vec<Warning>) -> Result<(), Failure> {
        match (check, planned) {
            (Check::NftRehearsal { scripts, his, .. }, Some((seen, goal, _))) => {
                let (full_check, leave_stored) = (self.cx.full_check, false);
                let judge = |look: &dyn Look| {
                    seen.judge(&Context { host: look, applied: None, full_check, deep: true, leave_stored }, goal)
                };
                warnings.extend(self.host.rehearse(scripts, *his, &judge).map_err(Failure::Rehearsal)?);
                Ok(())
            }
            // The way back is not rehearsed: it leads to what was there.
            (Check::NftRehearsal { .. }, None) => Ok(()),
            // Tried by the caller, twice.
            (Check::NotWorse { .. }, _) => Ok(()),
            (Check::Succeeds { what, run }, _) => {
                self.host.execute(run).map_err(|e| {
                    let refused = Error::new(ErrorKind::ToolConfig, format!("{what}: {e}"));
                    Failure::Step(refused.hint("mend that first; nothing was changed"))
                })?;
                Ok(())
            }
        }
    }

    fn step(&self, step: &Step) -> Result<()> {
        match step {
            Step::Write(w) => self.host.write(w),
            Step::Remove(r) => self.host.remove(r),
            Step::Mkdir(p) => self.host.mkdir(p),
            Step::Rmdir(p) => self.host.rmdir(p),
            Step::Touch(p) => self.host.touch(p),
            Step::Run(r) => self.host.execute(r).map(drop),
            Step::Nft(b) => self.host.nft(b),
        }
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
pub(super) mod tests;
