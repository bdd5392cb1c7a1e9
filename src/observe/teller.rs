//! The hooks of a service, in a thread of their own: one that hangs holds up nothing but other hooks.
//!
//! The thread is there only while there is something to tell. News wait for each other, so they arrive in their order.
//!
//! Belongs here: that thread. Does not: what is told to whom ([`super::hooks`]), and what is news (`engine::keep`).

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::hooks::{self, Events, Manner};
use crate::{backends::Warning, config::Config, report::Report};

/// So many news wait; of more the oldest are told to nobody.
const MOST: usize = 8;
/// How long the hook that is just running is waited for when the service ends.
const GRACE: Duration = Duration::from_secs(5);
/// How long it may then take until it is dead.
const DEATH: Duration = Duration::from_secs(1);

/// Something to tell.
pub struct News {
    /// Whom, and how.
    pub config: Config,
    /// Of which events.
    pub events: Events,
    /// What came of the work.
    pub report: Report,
    /// Whether no network connection may be opened.
    pub offline: bool,
}

#[derive(Default)]
struct Desk {
    waiting: VecDeque<News>,
    at_work: bool,
    failed: Vec<Warning>,
}

#[derive(Default)]
struct Room {
    desk: Mutex<Desk>,
    done: Condvar,
    leave: AtomicBool,
}

/// Tells the operator's hooks, and waits for none of them.
#[derive(Default)]
pub struct Teller(Arc<Room>);

impl Teller {
    /// Tells this when its turn comes. What goes wrong is logged.
    pub fn tell(&self, news: News) {
        let mut desk = self.0.desk();
        if desk.waiting.len() >= MOST {
            desk.waiting.pop_front();
            tracing::warn!(
                "the hooks take longer than it takes until there is more to tell: one report was told to nobody"
            );
        }
        desk.waiting.push_back(news);
        if desk.at_work {
            return;
        }
        let room = Arc::clone(&self.0);
        match thread::Builder::new().name("hooks".to_owned()).spawn(move || room.work()) {
            Ok(_) => desk.at_work = true,
            Err(e) => tracing::warn!("the hooks can't be run now: {}", crate::error::io_reason(&e)),
        }
    }

    /// What went wrong with the last news that were told.
    #[must_use]
    pub fn failed(&self) -> Vec<Warning> {
        self.0.desk().failed.clone()
    }

    /// Ends within seconds: a hook that is running gets a little time, and what waits is told to nobody.
    pub fn close(self) {
        let mut desk = self.0.desk();
        let untold = desk.waiting.len();
        if untold > 0 {
            tracing::warn!("{untold} reports are told to nobody, because the hook before them is still running");
            desk.waiting.clear();
        }
        let desk = self.0.wait(desk, GRACE);
        if desk.at_work {
            self.0.leave.store(true, Ordering::SeqCst);
            // A webhook that is waited for ends with the process.
            drop(self.0.wait(desk, DEATH));
        }
    }
}

impl Room {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until everything is told, but not longer.
    fn wait<'a>(&self, desk: MutexGuard<'a, Desk>, limit: Duration) -> MutexGuard<'a, Desk> {
        self.done.wait_timeout_while(desk, limit, |desk| desk.at_work).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Tells everything that waits, and ends.
    fn work(&self) {
        loop {
            let mut desk = self.desk();
            let Some(news) = desk.waiting.pop_front() else {
                desk.at_work = false;
                self.done.notify_all();
                return;
            };
            drop(desk);
            let manner =
                Manner { offline: news.offline, progress: &|what| tracing::debug!("{what}"), leave: &self.leave };
            let failed = hooks::run(&news.config, news.events, &news.report, &manner);
            for warning in &failed {
                tracing::warn!("{} [{}]", warning.message, warning.id);
            }
            self.desk().failed = failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::observe::hooks::HookConfig;

    fn news(script: &str) -> News {
        let command = vec!["/bin/sh".into(), "-c".into(), script.to_owned()];
        let config = Config { on_change: HookConfig { command, ..HookConfig::default() }, ..Config::default() };
        let events = Events { change: true, failure: false };
        News { config, events, report: Report::blank("keep", false), offline: true }
    }

    fn wait_for(what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn news_are_told_in_their_order_and_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (file, gate, teller) = (dir.path().join("told"), dir.path().join("gate"), Teller::default());
        let say = |n| format!("while [ ! -e {} ]; do sleep 0.02; done; echo {n} >>{}", gate.display(), file.display());
        (1..=3).for_each(|n| teller.tell(news(&say(n))));
        // Who waited for the hooks would be here when they had been killed.
        assert!(teller.0.desk().at_work && teller.failed().is_empty());
        std::fs::DirBuilder::new().create(&gate).unwrap();
        wait_for(|| std::fs::read_to_string(&file).is_ok_and(|told| told == "1\n2\n3\n"));
        // Its thread is gone, and comes back.
        wait_for(|| !teller.0.desk().at_work);
        teller.tell(news("exit 3"));
        wait_for(|| teller.failed().len() == 1);
        teller.tell(news("true"));
        wait_for(|| teller.failed().is_empty());
        teller.close();
    }

    #[test]
    fn where_hooks_are_too_slow_the_oldest_news_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (file, gate, teller) = (dir.path().join("told"), dir.path().join("gate"), Teller::default());
        teller.tell(news(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display())));
        wait_for(|| teller.0.desk().waiting.is_empty());
        (1..=MOST + 2).for_each(|n| teller.tell(news(&format!("echo {n} >>{}", file.display()))));
        std::fs::DirBuilder::new().create(&gate).unwrap();
        wait_for(|| !teller.0.desk().at_work);
        let told: Vec<_> = std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(told, (3..=MOST + 2).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn it_ends_within_seconds_whatever_hangs() {
        let teller = Teller::default();
        teller.tell(news("trap '' TERM; sleep 300"));
        teller.tell(news("true"));
        wait_for(|| teller.0.desk().waiting.len() == 1);
        let (room, began) = (Arc::clone(&teller.0), Instant::now());
        teller.close();
        let took = began.elapsed();
        // The upper bound is for a busy machine, on which the hook may also die a moment later.
        assert!(took >= GRACE && took < GRACE + Duration::from_secs(20), "{took:?}");
        wait_for(|| !room.desk().at_work);
        assert!(room.desk().failed[0].message.contains("asked to end"));
    }
}
