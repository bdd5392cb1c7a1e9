//! `edgeallow watch`: is the site up, and what is done when it isn't.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{print, with_session};
use crate::{
    backends::Warning,
    cli::{self, Format, Global},
    config::Config,
    engine::verify::Ask,
    error::{Exit, Result},
    host::signals::Leaving,
    observe::{
        self,
        hooks::{self, Manner},
        meter::Meter,
        teller::{News, Teller},
    },
    probe,
    report::Report,
    watch::{
        act::act,
        round::{Host, Look, round},
        service::{self, Work},
        watcher::{Done, Orders, Watcher},
    },
};

/// Rounds in which nothing happens are written into the metrics no more often than this.
const QUIET: Duration = Duration::from_secs(60);

pub(super) fn run(global: &Global, args: &cli::Watch) -> Result<Exit> {
    if args.once { once(global, args) } else { keep_watching(global, args) }
}

/// The settings as the configuration has them, with the command line on top.
fn orders(global: &Global, args: &cli::Watch) -> Result<(Orders, Arc<dyn Host>)> {
    let (path, is_named) = global.config_file();
    let config = Config::load(&path, is_named)?;
    let mut watch = config.watch.clone();
    if !args.urls.is_empty() {
        watch.urls.clone_from(&args.urls);
    }
    watch.origin = args.origin.or(watch.origin);
    watch.every = args.every.unwrap_or(watch.every);
    watch.fail_after = args.fail_after.unwrap_or(watch.fail_after);
    watch.cooldown = args.cooldown.unwrap_or(watch.cooldown);
    watch.max_per_hour = args.max_per_hour.unwrap_or(watch.max_per_hour);
    if let Some(on_fail) = &args.on_fail {
        watch.on_fail.clone_from(&on_fail.0);
    }
    let orders = Orders::new(config, watch, global.offline)?;
    let host = This {
        global: Global { offline: true, quiet: true, ..global.clone() },
        origin: orders.watch.origin,
        ports: orders.ports(),
    };
    Ok((orders, Arc::new(host)))
}

/// This machine.
struct This {
    global: Global,
    origin: Option<IpAddr>,
    ports: Vec<u16>,
}

impl Host for This {
    fn origins(&self) -> Vec<IpAddr> {
        if let Some(origin) = self.origin {
            return vec![origin];
        }
        let found = with_session(&self.global, &[], |session| session.own_addresses());
        found.and_then(|own| own).unwrap_or_else(|e| {
            tracing::debug!("this machine's addresses can't be told: {e}");
            Vec::new()
        })
    }

    fn look(&self) -> Option<Look> {
        let looked = with_session(&self.global, &[], |session| {
            // The packet filters of a machine that only watches say nothing of the origin's.
            let own = session.host.links().is_ok_and(|links| {
                self.origin.is_none_or(|ip| links.iter().any(|l| l.addresses.iter().any(|a| a.ip == ip)))
            });
            own.then(|| {
                // All that others ask too: what is found goes into the same metrics.
                let ports = session.config.ports.iter().chain(&self.ports).copied().collect();
                let ask = Ask { ports, ..Ask::default() };
                let (backends, want) = session.drift();
                let reach = want.and_then(|want| session.reach(&want, &ask, &BTreeSet::new()));
                Look { reach: reach.map_err(|e| e.message), backends }
            })
        });
        looked.unwrap_or_else(|e| Some(Look { reach: Err(e.message), backends: Vec::new() }))
    }
}

/// One round, from cron: what is remembered comes from a file, and nothing is said where nothing happened.
fn once(global: &Global, args: &cli::Watch) -> Result<Exit> {
    let (orders, host) = orders(global, args)?;
    let began = Instant::now();
    let (mut watcher, warnings) = Watcher::new(orders, &global.state_dir, false, Timestamp::now())?;
    let found = probe::wait(round(host, watcher.plan(Timestamp::now())))?;
    let Done { mut report, events } = watcher.digest(found, Timestamp::now(), false)?;
    report.warnings.extend(warnings);
    let Orders { config, watch, .. } = watcher.orders();
    let leaving = Leaving::catch();
    let (acts, happened) = report.watch.as_ref().map_or((false, false), |w| (w.acts, !w.news.is_empty()));
    if acts && let Err(why) = act(&watch.on_fail, &report, watch.on_fail_timeout, leaving.asked()) {
        report.warnings.push(Warning::new("on-fail-failed", format!("the on-fail command failed: {why}")));
    }
    let metrics = args.monitoring.metrics.as_deref();
    let run = observe::Run {
        metrics,
        state_dir: &global.state_dir,
        config: Some(config),
        offline: global.offline,
        now: Timestamp::now(),
        took: began.elapsed(),
        progress: &|_| {},
    };
    observe::measure(&run, &mut report);
    let manner = Manner { offline: global.offline, progress: &|_| {}, leave: leaving.asked() };
    report.warnings.extend(hooks::run(config, events, &report, &manner));
    drop(leaving);
    if happened || acts || !report.warnings.is_empty() || global.verbose > 0 || global.format == Format::Json {
        return Ok(print(global, &report, &config.acknowledged));
    }
    Ok(report.exit)
}

fn keep_watching(global: &Global, args: &cli::Watch) -> Result<Exit> {
    let (first, host) = orders(global, args)?;
    let (watcher, warnings) = Watcher::new(first, &global.state_dir, true, Timestamp::now())?;
    for warning in warnings {
        tracing::warn!("{} [{}]", warning.message, warning.id);
    }
    let mut service = Service { global, args, teller: Teller::default(), meter: Meter::default() };
    service::keep_watching(watcher, host, &mut service)?;
    service.teller.close();
    Ok(Exit::Ok)
}

struct Service<'a> {
    global: &'a Global,
    args: &'a cli::Watch,
    teller: Teller,
    meter: Meter,
}

impl Work for Service<'_> {
    fn orders(&mut self) -> Result<(Orders, Arc<dyn Host>)> {
        orders(self.global, self.args)
    }

    fn seen(&mut self, orders: &Orders, done: Done, took: Duration, failed: Option<&str>) {
        let Done { mut report, events } = done;
        if let Some(why) = failed {
            report.warnings.push(Warning::new("on-fail-failed", format!("the on-fail command failed: {why}")));
        }
        let happened = report.watch.as_ref().is_some_and(|w| w.acts || !w.news.is_empty());
        // A round may be a moment early.
        let lately = QUIET.min(orders.watch.every).mul_f64(0.9);
        if happened || self.meter.age().is_none_or(|age| age >= lately) {
            self.measure(&orders.config, &report, took);
        }
        if events.change || events.failure {
            let config = orders.config.clone();
            self.teller.tell(News { config, events, report, offline: self.global.offline });
        }
    }
}

impl Service<'_> {
    /// Writes the metrics, where somebody wants them.
    fn measure(&mut self, config: &Config, report: &Report, took: Duration) {
        let run = observe::Run {
            metrics: self.args.monitoring.metrics.as_deref(),
            state_dir: &self.global.state_dir,
            config: Some(config),
            offline: true,
            now: Timestamp::now(),
            took,
            progress: &|_| {},
        };
        // What went wrong has been logged.
        let _ = self.meter.measure(&run, report, self.teller.failed());
    }
}
