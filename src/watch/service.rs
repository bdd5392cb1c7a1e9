//! A watch that goes on: rounds at their time, the service manager told that it lives, and nothing ever waited for but
//! the next thing to happen. Rounds, looks and the command run beside that.
//!
//! Belongs here: the loop. Does not: what a round does, and what follows from it.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};

use super::{
    act::act,
    round::{Host, Round, round},
    watcher::{Done, Orders, Watcher},
};
use crate::{
    error::{Error, ErrorKind, Result, io_reason},
    host::{service::Manager, signals::Signals},
    report::{PageState, Report},
};

/// How long the command gets to die when the service ends.
const DEATH: Duration = Duration::from_secs(1);

/// What a service has done for it.
pub trait Work {
    /// The settings as they are now, and the machine as a round needs it.
    ///
    /// # Errors
    /// `config`
    fn orders(&mut self) -> Result<(Orders, Arc<dyn Host>)>;
    /// Tells those who want to know of a round. May not take long. `failed` is why the last command failed, if it did.
    fn seen(&mut self, orders: &Orders, done: Done, took: Duration, failed: Option<&str>);
}

/// Time that goes on at its pace, whatever is done to the clock.
struct Clock(Timestamp, Instant);

impl Clock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.1.elapsed()).unwrap_or(SignedDuration::MAX);
        self.0.saturating_add(passed).unwrap_or(self.0)
    }
}

type Asking = Pin<Box<dyn Future<Output = Round>>>;
type Acting = JoinHandle<Result<(), String>>;

/// Watches until it is asked to end.
///
/// # Errors
/// `internal` where signals or time can't be waited for.
pub fn keep_watching(watcher: Watcher, host: Arc<dyn Host>, work: &mut dyn Work) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(&e))?;
    let ended = runtime.block_on(run(watcher, host, work));
    // A name that is being resolved, or a look, is not waited for.
    runtime.shutdown_background();
    ended
}

fn failed(e: &std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("cannot wait: {}", io_reason(e)))
}

async fn run(mut watcher: Watcher, mut host: Arc<dyn Host>, work: &mut dyn Work) -> Result<()> {
    let signals = Signals::catch()?;
    let bell = signals.bell()?;
    let manager = Manager::from_env();
    let clock = Clock(Timestamp::now(), Instant::now());
    let leave = Arc::new(AtomicBool::new(false));
    let (mut asking, mut acting): (Option<Asking>, Option<Acting>) = (None, None);
    let (mut next, mut beat) = (Instant::now(), Instant::now());
    let mut last_failed = None;
    manager.ready();
    loop {
        let due = asking.is_none().then_some(next);
        tokio::select! {
            biased;
            ready = bell.readable() => {
                ready.map_err(|e| failed(&e))?.clear_ready();
                let again = signals.take_again();
                if signals.end() {
                    break;
                }
                if again {
                    match work.orders() {
                        Ok((orders, machine)) => {
                            tracing::info!("asked to look again, with the configuration as it is now");
                            watcher.take(orders);
                            host = machine;
                            asking = None;
                            next = Instant::now();
                        }
                        Err(e) => tracing::error!("asked to look again; the configuration stays what it was: {e}"),
                    }
                }
            }
            () = at(manager.interval().map(|_| beat)) => {
                manager.alive();
                beat = Instant::now() + manager.interval().unwrap_or_default();
            }
            round = ended(&mut asking) => {
                asking = None;
                let took = round.took;
                let done = watcher.digest(round, clock.now(), acting.is_some())?;
                manager.status(&status(&done.report));
                if done.report.watch.as_ref().is_some_and(|w| w.acts) {
                    acting = Some(begin(watcher.orders(), &done.report, &leave));
                }
                work.seen(watcher.orders(), done, took, last_failed.as_deref());
            }
            end = ended(&mut acting) => {
                acting = None;
                last_failed = end.unwrap_or_else(|e| Err(e.to_string())).err();
                if let Some(why) = &last_failed {
                    tracing::warn!("the on-fail command failed: {why} [on-fail-failed]");
                }
            }
            () = at(due) => {
                asking = Some(Box::pin(round(Arc::clone(&host), watcher.plan(clock.now()))));
                // Late rounds are not made up for.
                next = (next + watcher.orders().watch.every).max(Instant::now());
            }
        }
    }
    manager.stopping();
    leave.store(true, Ordering::SeqCst);
    if let Some(acting) = acting {
        // It is killed.
        if let Ok(Ok(Err(why))) = timeout(DEATH, acting).await {
            tracing::warn!("the on-fail command failed: {why} [on-fail-failed]");
        }
    }
    tracing::info!("ended");
    Ok(())
}

/// The end of something, if it is there; else never.
async fn ended<F: Future + Unpin>(what: &mut Option<F>) -> F::Output {
    match what {
        Some(what) => what.await,
        None => pending().await,
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

fn begin(orders: &Orders, report: &Report, leave: &Arc<AtomicBool>) -> Acting {
    let (argv, limit) = (orders.watch.on_fail.clone(), orders.watch.on_fail_timeout);
    let (report, leave) = (report.clone(), Arc::clone(leave));
    spawn_blocking(move || act(&argv, &report, limit, &leave))
}

/// One line for `systemctl status`.
fn status(report: &Report) -> String {
    let pages = report.watch.as_ref().map(|w| w.pages.as_slice()).unwrap_or_default();
    let bad: Vec<String> = pages
        .iter()
        .filter(|p| p.state != PageState::Well)
        .map(|p| format!("{} is {}", p.url, p.state.as_str()))
        .collect();
    if bad.is_empty() { format!("all is well; {} watched", pages.len()) } else { bad.join("; ") }
}
