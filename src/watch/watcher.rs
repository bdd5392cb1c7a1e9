//! A watch as it goes on: what it is to do next, and what it makes of a round.
//!
//! Belongs here: the thread from one round to the next. Does not: waiting ([`super::service`]), asking
//! ([`super::round`]).

use std::{path::Path, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    judge::{judge, refused},
    memory::{Keeper, Memory},
    round::{Look, Plan, Round},
    rules::{Firewalls, News, Rules},
    settings::{Target, WatchConfig},
    tell,
};
use crate::{
    backends::Warning,
    config::Config,
    error::{Error, ErrorKind, Exit, Result},
    host::find_hook,
    observe::hooks::Events,
    probe::edge::Visitor,
    report::{ReachVerdict, Report, WatchReport},
};

/// What is watched and how, as it is configured.
pub struct Orders {
    /// The whole configuration.
    pub config: Config,
    /// The part of it that is about watching, with the command line on top.
    pub watch: WatchConfig,
    /// Whether no connection to anybody outside may be opened.
    pub offline: bool,
    targets: Vec<Arc<Target>>,
    visitor: Option<Arc<Visitor>>,
}

impl Orders {
    /// Checks the settings and reads the authorities.
    ///
    /// # Errors
    /// `config`, `usage` where there is nothing to watch.
    pub fn new(config: Config, watch: WatchConfig, offline: bool) -> Result<Self> {
        watch.check()?;
        let targets: Vec<_> = watch.targets()?.into_iter().map(Arc::new).collect();
        if targets.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "there is nothing to watch").hint(
                "name a page: `edgeallow watch https://www.example.com/`, or set watch.urls in the configuration",
            ));
        }
        let visitor = if offline { None } else { Some(Arc::new(Visitor::new(&config.source)?)) };
        Ok(Self { config, watch, offline, targets, visitor })
    }

    /// The ports that are watched.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.targets.iter().map(|t| t.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    fn rules(&self) -> Rules {
        let length = |time| SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        Rules {
            fail_after: self.watch.fail_after,
            acts: !self.watch.on_fail.is_empty(),
            cooldown: length(self.watch.cooldown),
            max_per_hour: self.watch.max_per_hour,
        }
    }
}

/// What came of a round, besides what is logged.
pub struct Done {
    /// All of it.
    pub report: Report,
    /// Of what the operator's hooks are told.
    pub events: Events,
}

/// A watch.
pub struct Watcher {
    orders: Orders,
    memory: Memory,
    keeper: Option<Keeper>,
    /// Whether it goes on, so that it logs what happens for those who look at it.
    service: bool,
    /// A restarted service doesn't know what happened meanwhile.
    looked: bool,
    /// What was wrong with keeping the memory, when it was last said.
    unkept: Option<String>,
    /// Why the command can't be run, when that was last said.
    unrunnable: Option<String>,
}

impl Watcher {
    /// Begins, or goes on where the last one with this state folder ended. A service that can't remember begins anew each
    /// time; a single round that can't is of no use.
    ///
    /// # Errors
    /// `locked` where somebody watches with this state folder; for a single round also `state`, `no-privilege`.
    pub fn new(orders: Orders, state_dir: &Path, service: bool, now: Timestamp) -> Result<(Self, Vec<Warning>)> {
        let mut watcher = Self {
            orders,
            memory: Memory::default(),
            keeper: None,
            service,
            looked: !service,
            unkept: None,
            unrunnable: None,
        };
        let mut warnings = Vec::new();
        match Keeper::take(state_dir) {
            Ok(mut keeper) => {
                let (memory, warning) = keeper.load(now);
                warnings.extend(warning);
                (watcher.memory, watcher.keeper) = (memory, Some(keeper));
            }
            Err(e) if service && e.kind != ErrorKind::Locked => {
                let what = format!("nothing can be remembered, so a restart begins anew: {}", e.message);
                warnings.push(Warning::new("watch-memory-lost", what));
            }
            Err(e) => return Err(e),
        }
        Ok((watcher, warnings))
    }

    /// What it is to do.
    #[must_use]
    pub const fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Goes on by other orders, and looks at everything in the next round.
    pub fn take(&mut self, orders: Orders) {
        (self.orders, self.looked) = (orders, false);
    }

    /// What the next round is to do.
    #[must_use]
    pub fn plan(&self, now: Timestamp) -> Plan {
        let odd = |t: &Arc<Target>| self.memory.sites.get(&t.shown).is_some_and(|s| s.odd);
        Plan {
            pages: self.orders.targets.iter().map(|t| (Arc::clone(t), odd(t))).collect(),
            look: !self.looked || self.memory.is_look_due(now),
            limit: self.orders.watch.timeout,
            visitor: self.orders.visitor.clone(),
        }
    }

    /// Makes something of a round, logs what is news, and remembers. Whether to act is in the report, and counts as done.
    ///
    /// # Errors
    /// For a single round: `io`, `file-refused` if what happened can't be remembered. Then nothing may be done.
    pub fn digest(&mut self, round: Round, now: Timestamp, running: bool) -> Result<Done> {
        let rules = self.orders.rules();
        let firewalls = round.look.as_ref().map(|look| self.firewalls(look));
        self.looked |= firewalls.is_some();
        let reach = round.look.as_ref().and_then(|look| look.reach.as_ref().ok());
        let mut pages = Vec::new();
        for (target, answers) in self.orders.targets.iter().zip(&round.answers) {
            let odd = self.memory.sites.get(&target.shown).is_some_and(|s| s.odd);
            let judged = judge(answers, reach.and_then(|r| refused(r, target.port, self.orders.watch.origin)), odd);
            pages.push((target.shown.clone(), judged));
        }
        let mut outcome = self.memory.round(&rules, now, &pages, firewalls.as_ref(), running);
        // What can't even be begun is not done, and is tried again in the next round.
        let missing = outcome.act.then(|| find_hook(&self.orders.watch.on_fail).err()).flatten().map(|e| e.message);
        if missing.is_some() {
            outcome.act = false;
            self.memory.take_back();
        }
        self.remember()?;

        let mut told = Vec::new();
        for ((target, answers), (url, judged)) in self.orders.targets.iter().zip(&round.answers).zip(&pages) {
            told.push(tell::page(target, answers, judged, self.memory.sites.get(url)));
        }
        let mut report = Report::blank("watch", false);
        let mut news = Vec::new();
        for one in &outcome.news {
            let words = tell::news(one, &told, &rules);
            tell::log(one, &words, self.service);
            news.push(words);
        }
        // Pages that another call asked about are remembered, and are no affair of this one.
        if pages.iter().any(|(url, _)| self.memory.sites.get(url).is_some_and(|s| s.down.is_some())) {
            report.exit = Exit::Refused;
        }
        if let Some(look) = round.look {
            (report.backends, report.reach) = (look.backends, look.reach.ok());
        }
        let happened = |what: fn(&News) -> bool| outcome.news.iter().any(what);
        let events = Events {
            change: happened(|n| matches!(n, News::Recovered { .. })),
            failure: happened(|n| matches!(n, News::Down { .. })),
        };
        let drift = self.memory.drift.clone();
        let acts_total = self.memory.acts_total;
        report.watch = Some(WatchReport { pages: told, news, acts: outcome.act, acts_total, drift });
        self.say_missing(missing, &mut report);
        self.renew(pages.iter().any(|(_, judged)| !judged.seen));
        Ok(Done { report, events })
    }

    fn firewalls(&self, look: &Look) -> Firewalls {
        let drift =
            look.backends.iter().filter(|b| b.changed || b.error.is_some()).map(|b| b.name.to_owned()).collect();
        let ports = self.orders.ports();
        let (refused, unknown) = match &look.reach {
            Ok(reach) => (
                ports.iter().any(|p| refused(reach, *p, self.orders.watch.origin).is_some()),
                reach.verdict == ReachVerdict::Unknown,
            ),
            Err(_) => (false, true),
        };
        Firewalls { drift, refused, unknown }
    }

    fn remember(&mut self) -> Result<()> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        let kept = keeper.keep(&self.memory);
        if !self.service {
            return kept;
        }
        let why = kept.err().map(|e| e.message);
        if let Some(why) = why.as_ref().filter(|why| self.unkept.as_ref() != Some(why)) {
            tracing::warn!("what happened can't be remembered, so a restart would begin anew: {why}");
        }
        self.unkept = why;
        Ok(())
    }

    /// A service says once why its command can't be run, and a single round each time.
    fn say_missing(&mut self, missing: Option<String>, report: &mut Report) {
        let Some(why) = missing else {
            if report.watch.as_ref().is_some_and(|w| w.acts) {
                self.unrunnable = None;
            }
            return;
        };
        let what = format!("the on-fail command can't be run: {why}");
        if self.service && self.unrunnable.as_ref() != Some(&why) {
            tracing::warn!("{what} [on-fail-failed]");
        }
        self.unrunnable = Some(why);
        report.warnings.push(Warning::new("on-fail-failed", what));
    }

    /// Where the edge isn't seen, it may be that the authorities were renewed since they were read.
    fn renew(&mut self, unseen: bool) {
        if unseen
            && self.service
            && !self.orders.offline
            && let Ok(visitor) = Visitor::new(&self.orders.config.source)
        {
            self.orders.visitor = Some(Arc::new(visitor));
        }
    }
}
