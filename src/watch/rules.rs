//! When a page counts as down, when something may be done about it, and what of all that is news. Pure: it is told what
//! time it is.
//!
//! Belongs here: the state machine. Does not: how a page is ([`super::judge`]), where the memory lies
//! ([`super::memory`]), doing anything.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    judge::{Judged, Trouble, Verdict, Whose},
    memory::{Memory, Site},
};

/// The time in which acts are counted.
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// How long the firewalls' part of a look is good for, while all is well.
const LOOK_EVERY: SignedDuration = SignedDuration::from_mins(10);

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// So many failures in a row of the same page make it count as down.
    pub fail_after: u32,
    /// Whether there is anything that could be done.
    pub acts: bool,
    /// The shortest time between two acts.
    pub cooldown: SignedDuration,
    /// Acts within an hour at most.
    pub max_per_hour: u32,
}

/// Why an act is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Held {
    /// The last one is too recent.
    Cooldown,
    /// It isn't known when the last one was: what was remembered is lost, or the clock was set back.
    Unsure,
    /// There were as many as there may be in an hour.
    MaxPerHour,
    /// The last one is still running.
    Running,
}

/// Something that is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A page is down.
    Down {
        /// Which.
        url: String,
        /// What is wrong.
        trouble: Trouble,
        /// So many failures in a row.
        failures: u32,
        /// Since the first of them.
        since: Timestamp,
    },
    /// It is down for another reason.
    Changed {
        /// Which.
        url: String,
        /// What was wrong.
        from: Trouble,
        /// What is wrong now.
        to: Trouble,
    },
    /// It is up again.
    Recovered {
        /// Which.
        url: String,
        /// What was wrong.
        trouble: Trouble,
        /// From the first failure until now.
        lasted: SignedDuration,
    },
    /// The edge can't be seen from here.
    Unseen {
        /// For which page.
        url: String,
    },
    /// It can be seen again.
    Seen {
        /// For which page.
        url: String,
    },
    /// The page is well through the edge, and the origin, asked straight, isn't.
    Odd {
        /// Which.
        url: String,
    },
    /// Both are well again.
    Even {
        /// Which.
        url: String,
    },
    /// Something should be done, and is held back.
    Held(Held),
    /// These backends hold something else than edgeallow applied.
    Drift(Vec<String>),
    /// All hold again what was applied.
    InSync,
    /// Whether Cloudflare gets through this host's packet filters can't be told.
    ReachUnknown,
    /// That can be told again.
    ReachKnown,
}

/// What a look at the firewalls found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firewalls {
    /// Backends that hold something else than was applied.
    pub drift: Vec<String>,
    /// Whether any of Cloudflare's addresses is refused on a port that is watched.
    pub refused: bool,
    /// Whether that can't be told.
    pub unknown: bool,
}

/// What comes of a round.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What is to be told.
    pub news: Vec<News>,
    /// Whether to act now. That it was done is remembered already.
    pub act: bool,
}

impl Memory {
    /// Whether it is time to look at the firewalls though nothing fails.
    #[must_use]
    pub fn is_look_due(&self, now: Timestamp) -> bool {
        self.refused || self.looked.is_none_or(|at| at > now || now.duration_since(at) >= LOOK_EVERY)
    }

    /// Takes note of a round. `running` says that the last act is still going on.
    pub fn round(
        &mut self,
        rules: &Rules,
        now: Timestamp,
        pages: &[(String, Judged)],
        firewalls: Option<&Firewalls>,
        running: bool,
    ) -> Outcome {
        let mut news = Vec::new();
        if let Some(found) = firewalls {
            self.firewalls(found, now, &mut news);
        }
        let mut down = false;
        for (url, judged) in pages {
            let mut site = self.sites.remove(url).unwrap_or_default();
            let before = site.clone();
            let mut judged = *judged;
            // What a packet filter did is over when it does so no more, also where the page itself can't be seen.
            let free = firewalls.is_some_and(|f| !f.refused && !f.unknown);
            let is_free = free && site.down.is_some_and(|t| t.whose == Whose::Firewall);
            // What the origin alone has told, because the edge isn't seen, the origin alone may take back.
            if judged.verdict == Verdict::Unknown && (is_free || judged.straight && site.straight) {
                judged.verdict = Verdict::Well;
            }
            down |= site.step(url, &judged, rules, now, &mut news);
            if site != before {
                site.changed = Some(now);
            }
            if !site.is_blank() {
                self.sites.insert(url.clone(), site);
            }
        }
        let act = down && rules.acts && self.may_act(rules, now, running, &mut news);
        if act {
            self.acts.push(now);
            self.acts_total = self.acts_total.saturating_add(1);
        } else if !down {
            self.held = None;
        }
        Outcome { news, act }
    }

    /// Forgets the act that the last round asked for: there was none.
    pub fn take_back(&mut self) {
        if self.acts.pop().is_some() {
            self.acts_total = self.acts_total.saturating_sub(1);
        }
    }

    fn firewalls(&mut self, found: &Firewalls, now: Timestamp, news: &mut Vec<News>) {
        (self.looked, self.refused) = (Some(now), found.refused);
        if self.drift != found.drift {
            news.push(if found.drift.is_empty() { News::InSync } else { News::Drift(found.drift.clone()) });
            self.drift.clone_from(&found.drift);
        }
        if self.reach_unknown != found.unknown {
            news.push(if found.unknown { News::ReachUnknown } else { News::ReachKnown });
            self.reach_unknown = found.unknown;
        }
    }

    fn may_act(&mut self, rules: &Rules, now: Timestamp, running: bool, news: &mut Vec<News>) -> bool {
        // A clock that was set back makes acts come from the future: as if they were done just now.
        if self.acts.iter().chain(&self.unsure).any(|at| *at > now) {
            self.acts.iter_mut().for_each(|at| *at = (*at).min(now));
            self.unsure = Some(now);
        }
        self.acts.retain(|at| now.duration_since(*at) < HOUR.max(rules.cooldown));
        self.unsure = self.unsure.filter(|until| self.acts.iter().any(|at| at <= until));
        let known = |at: &Timestamp| self.unsure.is_none_or(|until| *at > until);
        let mut recent = self.acts.iter().filter(|at| now.duration_since(**at) < rules.cooldown).peekable();
        let lately = self.acts.iter().filter(|at| now.duration_since(**at) < HOUR).count();
        let held = if running {
            Some(Held::Running)
        } else if lately >= usize::try_from(rules.max_per_hour).unwrap_or(usize::MAX) {
            Some(Held::MaxPerHour)
        } else if recent.peek().is_some() {
            Some(if recent.any(known) { Held::Cooldown } else { Held::Unsure })
        } else {
            None
        };
        if let Some(held) = held.filter(|held| self.held != Some(*held)) {
            news.push(News::Held(held));
        }
        self.held = held;
        held.is_none()
    }
}

impl Site {
    /// Takes note of one page; says whether it fails now and has done so often enough.
    fn step(&mut self, url: &str, judged: &Judged, rules: &Rules, now: Timestamp, news: &mut Vec<News>) -> bool {
        let url = || url.to_owned();
        self.sight(judged.seen, rules, url(), news);
        if let Some(odd) = judged.odd.filter(|odd| *odd != self.odd) {
            news.push(if odd { News::Odd { url: url() } } else { News::Even { url: url() } });
            self.odd = odd;
        }
        match judged.verdict {
            Verdict::Failing(trouble) => {
                self.failures = self.failures.saturating_add(1);
                let since = *self.since.get_or_insert(now);
                if self.failures < rules.fail_after {
                    return false;
                }
                match self.down {
                    None => news.push(News::Down { url: url(), trouble, failures: self.failures, since }),
                    Some(from) if from != trouble => news.push(News::Changed { url: url(), from, to: trouble }),
                    Some(_) => {}
                }
                self.down = Some(trouble);
                self.straight = !judged.seen && trouble.whose != Whose::Firewall;
                true
            }
            Verdict::Well => {
                if let Some(trouble) = self.down {
                    let lasted = self.since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
                    news.push(News::Recovered { url: url(), trouble, lasted: lasted.max(SignedDuration::ZERO) });
                }
                (self.failures, self.since, self.down, self.straight) = (0, None, None, false);
                false
            }
            // A row that was interrupted is none. What is down stays so until it is seen to be up.
            Verdict::Unknown => {
                self.failures = 0;
                if self.down.is_none() {
                    self.since = None;
                }
                false
            }
        }
    }

    /// One time that the edge isn't seen is no news.
    fn sight(&mut self, seen: bool, rules: &Rules, url: String, news: &mut Vec<News>) {
        if seen {
            if self.unseen >= rules.fail_after {
                news.push(News::Seen { url });
            }
            self.unseen = 0;
        } else if self.unseen < rules.fail_after {
            self.unseen += 1;
            if self.unseen == rules.fail_after {
                news.push(News::Unseen { url });
            }
        }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
