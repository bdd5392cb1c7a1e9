//! When to look: soon after a change, not while changes are still coming, and ever more rarely where somebody keeps
//! undoing what is done.
//!
//! Belongs here: the clock's part of `keep`. Pure: it is told what time it is. Does not: waiting, or looking.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Changes come in bursts; a look begins when it has been quiet for this long.
const QUIET: Duration = Duration::from_millis(300);
/// But not later than this after the first change of a burst.
const LONGEST: Duration = Duration::from_secs(1);
/// In this time so many heals are taken without a word.
const SPAN: Duration = Duration::from_secs(60);
const HEALS: usize = 5;
/// The first and the longest wait when something keeps undoing, or keeps failing.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long another edgeallow is given before it is asked again.
const BUSY: Duration = Duration::from_secs(1);
/// Looks that find nothing are limited to a tenth of the time once there are this many in a span.
const LOOKS: usize = 10;

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// There was nothing to do.
    Clean,
    /// Something was put right.
    Healed,
    /// It could not be done.
    Failed,
    /// Another edgeallow is running.
    Busy,
}

/// When to look next.
#[derive(Debug)]
pub struct Timing {
    every: Duration,
    /// The first and the latest change since the last look.
    changed: Option<(Instant, Instant)>,
    not_before: Option<Instant>,
    next_round: Instant,
    heals: VecDeque<Instant>,
    looks: VecDeque<Instant>,
    /// How long to wait after a heal; zero while nobody undoes them.
    wait: Duration,
    failures: u32,
}

impl Timing {
    /// The first look is due at once; `every` is the longest time between two.
    #[must_use]
    pub fn new(now: Instant, every: Duration) -> Self {
        Self {
            every,
            changed: None,
            not_before: None,
            next_round: now,
            heals: VecDeque::new(),
            looks: VecDeque::new(),
            wait: Duration::ZERO,
            failures: 0,
        }
    }

    /// Something has changed.
    pub fn changed(&mut self, now: Instant) {
        self.changed = Some(self.changed.map_or((now, now), |(first, _)| (first, now)));
    }

    /// The operator wants a look at once.
    pub fn now(&mut self, now: Instant) {
        (self.next_round, self.not_before, self.wait, self.failures) = (now, None, Duration::ZERO, 0);
        self.heals.clear();
    }

    /// A look shall come by then, unless looks are held back.
    pub fn by(&mut self, then: Instant) {
        self.next_round = self.next_round.min(then);
    }

    /// Whether a change waits to be looked at.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed.is_some()
    }

    /// When the next look is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        let asked = match self.changed {
            Some((first, last)) => (last + QUIET).min(first + LONGEST).min(self.next_round),
            None => self.next_round,
        };
        self.not_before.map_or(asked, |bound| asked.max(bound))
    }

    /// How long heals are held back, because somebody keeps undoing them.
    #[must_use]
    pub fn held_back(&self) -> Option<Duration> {
        Some(self.wait).filter(|wait| !wait.is_zero())
    }

    /// A look begins: the changes so far are what it looks at.
    pub fn begin(&mut self) {
        self.changed = None;
    }

    /// A look has ended. Says how long heals are held back from now on, if that is news.
    pub fn ended(&mut self, now: Instant, end: End, took: Duration) -> Option<Duration> {
        self.next_round = now + self.every;
        self.not_before = None;
        if !matches!(end, End::Failed | End::Busy) {
            self.failures = 0;
        }
        match end {
            End::Clean => {
                remember(&mut self.looks, now);
                if self.looks.len() > LOOKS {
                    self.not_before = Some(now + (took * 10).min(FIRST_WAIT));
                }
                None
            }
            End::Busy => {
                self.changed(now);
                self.not_before = Some(now + BUSY);
                None
            }
            End::Failed => {
                let wait = (FIRST_WAIT * 2_u32.saturating_pow(self.failures.min(8))).min(LONGEST_WAIT);
                self.failures += 1;
                // A change that comes before that is looked at: one backend that can't be mended doesn't hold up the others.
                // But what fails may itself be heard as a change, so it counts like a heal.
                self.next_round = now + wait;
                self.healed(now)
            }
            End::Healed => self.healed(now),
        }
    }

    fn healed(&mut self, now: Instant) -> Option<Duration> {
        let before = self.wait;
        let calm = |last: &Instant| now.duration_since(*last) > SPAN + self.wait * 2;
        if self.heals.back().is_some_and(calm) {
            self.wait = Duration::ZERO;
        }
        remember(&mut self.heals, now);
        if !self.wait.is_zero() {
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        } else if self.heals.len() > HEALS {
            self.wait = FIRST_WAIT;
        }
        if !self.wait.is_zero() {
            self.not_before = Some(now + self.wait);
        }
        (self.wait != before).then_some(self.wait)
    }
}

/// Notes a time and forgets those that lie too far back; the latest stays, however long ago.
fn remember(times: &mut VecDeque<Instant>, now: Instant) {
    while times.front().is_some_and(|t| now.duration_since(*t) > SPAN) {
        times.pop_front();
    }
    times.push_back(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    fn started() -> (Timing, Instant) {
        let now = Instant::now();
        let mut timing = Timing::new(now, S * 600);
        assert_eq!(timing.due(), now);
        timing.begin();
        timing.ended(now, End::Clean, MS);
        (timing, now)
    }

    #[test]
    fn without_a_change_a_look_comes_only_when_the_time_is_up() {
        let (timing, now) = started();
        assert_eq!(timing.due(), now + S * 600);
    }

    #[test]
    fn a_look_waits_for_quiet_but_not_for_ever() {
        let (mut timing, now) = started();
        timing.changed(now);
        assert_eq!(timing.due(), now + QUIET);
        timing.changed(now + MS * 200);
        assert_eq!(timing.due(), now + MS * 500);
        timing.changed(now + MS * 900);
        assert_eq!(timing.due(), now + LONGEST);
    }

    #[test]
    fn what_is_undone_again_and_again_is_healed_ever_more_rarely() {
        let (mut timing, mut now) = started();
        let mut waits = Vec::new();
        for _ in 0..13 {
            timing.changed(now);
            now = timing.due();
            timing.begin();
            waits.extend(timing.ended(now, End::Healed, MS).map(|w| w.as_secs()));
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300], "each step is said once");
        timing.changed(now);
        assert_eq!(timing.due(), now + LONGEST_WAIT);
        // Left alone for a while, the next heal is a quick one again.
        now += S * 700;
        timing.changed(now);
        timing.begin();
        assert_eq!(timing.ended(now, End::Healed, MS), Some(Duration::ZERO));
        timing.changed(now);
        assert_eq!(timing.due(), now + QUIET);
    }

    #[test]
    fn five_heals_a_minute_are_nothing_special() {
        let (mut timing, mut now) = started();
        for _ in 0..50 {
            now += S * 13;
            timing.changed(now);
            timing.begin();
            assert_eq!(timing.ended(now, End::Healed, MS), None);
        }
    }

    #[test]
    fn a_look_can_be_wanted_sooner_and_never_later() {
        let (mut timing, now) = started();
        timing.by(now + S);
        assert_eq!(timing.due(), now + S);
        timing.by(now + S * 5);
        assert_eq!(timing.due(), now + S);
        timing.begin();
        timing.ended(now + S, End::Clean, MS);
        assert_eq!(timing.due(), now + S * 601, "once only");
    }

    #[test]
    fn what_fails_is_tried_again_later_and_later() {
        let (mut timing, mut now) = started();
        for wait in [10, 20, 40, 80, 160, 300, 300] {
            timing.begin();
            timing.ended(now, End::Failed, MS);
            assert_eq!(timing.due(), now + S * wait);
            now = timing.due();
        }
        timing.changed(now - S);
        assert_eq!(timing.due(), now - S + QUIET, "a change is looked at all the same");
        timing.now(now);
        assert_eq!(timing.due(), now - S + QUIET, "and at once if the operator asks");
    }

    #[test]
    fn a_failure_that_is_heard_as_a_change_does_not_go_round_in_circles() {
        let (mut timing, mut now) = started();
        let start = now;
        for _ in 0..10 {
            timing.changed(now);
            now = timing.due();
            timing.begin();
            timing.ended(now, End::Failed, MS);
        }
        assert!(now.duration_since(start) > S * 100, "{:?}", now.duration_since(start));
    }

    #[test]
    fn looks_that_find_nothing_take_a_tenth_of_the_time_at_most() {
        let (mut timing, mut now) = started();
        for _ in 0..LOOKS {
            now += S;
            timing.changed(now);
            timing.begin();
            timing.ended(now, End::Clean, S / 2);
        }
        timing.changed(now);
        assert_eq!(timing.due(), now + S * 5);
        now += S * 5;
        timing.begin();
        timing.ended(now, End::Busy, MS);
        assert_eq!(timing.due(), now + S);
    }
}
