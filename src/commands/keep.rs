//! `edgeallow keep`: a service that puts back what others undo.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;

use super::{
    applied::{self, Applied, Notes},
    with_config,
};
use crate::{
    cli::{self, Global},
    config::Config,
    engine::{
        keep::{Keeper, Round, Seen, Work, timing::End},
        lock,
        sync::Options,
    },
    error::{Exit, Result},
    observe::{
        self,
        hooks::Events,
        meter::Meter,
        teller::{News, Teller},
    },
    report::{ReachVerdict, Report},
};

/// Looks that find nothing are written into the metrics no more often than this.
const QUIET: Duration = Duration::from_secs(60);

pub(super) fn run(global: &Global, args: &cli::Keep) -> Result<Exit> {
    // Whoever starts it shall hear that it couldn't keep anything.
    applied::or_copy(global)?;
    let every = Duration::from_secs(args.look_every.into());
    let mut service = Service {
        // Another edgeallow is not waited for here, where nothing else could be heard: it is asked again a little later.
        global: Global { offline: true, quiet: true, lock_timeout: 0, ..global.clone() },
        configuration: global.config_file().0,
        metrics: args.monitoring.metrics.clone(),
        no_webhooks: global.offline,
        every,
        config: None,
        teller: Teller::default(),
        meter: Meter::default(),
        verdict: None,
    };
    let keeper = Keeper::new(every, &mut service)?;
    let _alone = lock::keep_alone(&global.state_dir)?;
    keeper.run()?;
    service.teller.close();
    Ok(Exit::Ok)
}

struct Service {
    global: Global,
    configuration: PathBuf,
    metrics: Option<PathBuf>,
    /// The looks never open a connection; a webhook may, unless the operator forbids it.
    no_webhooks: bool,
    every: Duration,
    /// The last one that could be read: of what is wrong with a later one its hooks are told.
    config: Option<Config>,
    teller: Teller,
    meter: Meter,
    /// What the metrics say of Cloudflare's way.
    verdict: Option<ReachVerdict>,
}

impl Work for Service {
    // The configuration is read anew each time, so that an edit of it counts.
    fn round(&mut self) -> Round {
        let options = Options { restore: true, ..Options::default() };
        let Self { global, configuration, config, .. } = self;
        let Applied { configured, notes: Notes { broken, warnings, .. } } = match applied::or_copy(global) {
            Ok(applied) => applied,
            Err(e) => return Round { report: Report::failed("keep", &e), files: None, broken: None },
        };
        with_config(global, &configured, &[], |session| {
            let of_backends = session.backends.iter().flat_map(|b| b.meta().files).map(PathBuf::from);
            let files = of_backends.chain([configuration.clone()]).collect();
            // The latest that could be read is newer than the copy.
            if broken.is_none() || config.is_none() {
                *config = Some(session.config.clone());
            }
            let mut report = session.sync("keep", &options);
            report.warnings.extend(warnings);
            Round { report, files: Some(files), broken }
        })
    }

    fn seen(&mut self, seen: Seen) {
        let Seen { mut report, took, end, change, failure } = seen;
        let often = || self.meter.age().is_some_and(|age| age < QUIET.min(self.every));
        // Whether Cloudflare gets through may change without a heal.
        let verdict = report.reach.as_ref().map(|r| r.verdict);
        if !(end == End::Clean && verdict == self.verdict && often()) {
            self.verdict = verdict;
            report.warnings.extend(self.measure(&report, took));
        }
        let Some(config) = self.config.as_ref().filter(|_| change || failure) else { return };
        let events = Events { change, failure };
        self.teller.tell(News { config: config.clone(), events, report, offline: self.no_webhooks });
    }
}

impl Service {
    /// Writes the metrics, where somebody wants them; what went wrong comes back.
    fn measure(&mut self, report: &Report, took: Duration) -> Option<crate::backends::Warning> {
        let run = observe::Run {
            metrics: self.metrics.as_deref(),
            state_dir: &self.global.state_dir,
            config: self.config.as_ref(),
            offline: true,
            now: Timestamp::now(),
            took,
            progress: &|_| {},
        };
        self.meter.measure(&run, report, self.teller.failed())
    }
}
