//! What a round's answers mean for a page. Pure.
//!
//! The edge is believed first: it is what visitors see. What the origin does when it is asked straight counts only where
//! the edge can't be seen, for a page may well be up while its origin doesn't answer this very machine.
//!
//! Belongs here: from answers to a verdict. Does not: asking ([`super::round`]), what is done about it ([`super::rules`]).

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    probe::edge::{Answer, Seen},
    report::{ReachReport, ReachVerdict},
};

/// Who says that something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Whose {
    /// Cloudflare: the edge answers with an error of its own.
    Cloudflare,
    /// The origin, asked straight: the way in which it fails would give this error. The edge could not be seen.
    Origin,
    /// The application: an answer of 500 or more that isn't Cloudflare's.
    Application,
    /// A packet filter of this host refuses some of Cloudflare's addresses, whatever a single page says.
    Firewall,
}

/// What is wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Trouble {
    /// Who says so.
    pub whose: Whose,
    /// The status that visitors get.
    pub status: u16,
}

impl Trouble {
    /// The error of Cloudflare's that visitors get, if it is one.
    #[must_use]
    pub const fn cloudflare_error(self) -> Option<u16> {
        match self.whose {
            Whose::Application => None,
            Whose::Cloudflare | Whose::Origin | Whose::Firewall => Some(self.status),
        }
    }
}

impl Trouble {
    /// The sentence for what is over: `Cloudflare answered with its error 521`.
    #[must_use]
    pub fn past(self) -> String {
        let status = self.status;
        match self.whose {
            Whose::Cloudflare => format!("Cloudflare answered with its error {status}"),
            Whose::Origin => format!("the origin failed in a way that gives Cloudflare's error {status}"),
            Whose::Application => format!("the application answered {status}"),
            Whose::Firewall => {
                format!("a packet filter refused some of Cloudflare's addresses, which gives its error {status}")
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        match self.whose {
            Whose::Cloudflare => write!(f, "Cloudflare answers with its error {status}"),
            Whose::Origin => write!(f, "the origin fails in a way that gives Cloudflare's error {status}"),
            Whose::Application => write!(f, "the application answers {status}"),
            Whose::Firewall => {
                write!(f, "a packet filter refuses some of Cloudflare's addresses, which gives its error {status}")
            }
        }
    }
}

/// What the origin did, asked straight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It answered.
    Answered {
        /// With this status.
        status: u16,
        /// After this time.
        took: Duration,
        /// Why Cloudflare would not take its certificate in the mode Full (strict), as far as that is seen here.
        objection: Option<&'static str>,
    },
    /// It failed.
    Failed {
        /// The error that Cloudflare makes of such a failure.
        error: u16,
        /// In which way.
        how: String,
    },
    /// Whether Cloudflare would get an answer can't be told, and why.
    Unsure(String),
}

/// The answers that were got for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Through the edge.
    pub edge: Seen,
    /// Straight from the origin, at each of its addresses.
    pub origins: Vec<(IpAddr, Origin)>,
}

/// How a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Visitors get an answer.
    Well,
    /// They don't.
    Failing(Trouble),
    /// That can't be told from here.
    Unknown,
}

/// What is made of the answers for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// How it is.
    pub verdict: Verdict,
    /// Whether the edge was seen.
    pub seen: bool,
    /// Whether the origin, asked straight, answers, where the edge wasn't seen.
    pub straight: bool,
    /// Whether the page is well through the edge and the origin, asked straight, isn't; `None` where that can't be said.
    pub odd: Option<bool>,
}

/// Judges a page. `odd` is what was said of it before; `refused` is the error that a packet filter gives some of
/// Cloudflare's addresses.
#[must_use]
pub fn judge(answers: &Answers, refused: Option<u16>, odd: bool) -> Judged {
    let straight = straight(&answers.origins);
    let mut judged = match &answers.edge {
        Seen::Answered(answer) if !answer.challenge => {
            let verdict = visible(answer);
            let odd = (verdict == Verdict::Well).then_some(matches!(straight, Verdict::Failing(_)));
            Judged { verdict, seen: true, straight: false, odd }
        }
        // What fails while the page is well through the edge proves nothing when that can't be seen.
        _ if odd => Judged { verdict: Verdict::Unknown, seen: false, straight: false, odd: None },
        _ => {
            let is_well = straight == Verdict::Well;
            let verdict = if is_well { Verdict::Unknown } else { straight };
            Judged { verdict, seen: false, straight: is_well, odd: None }
        }
    };
    if let (Verdict::Well | Verdict::Unknown, Some(status)) = (judged.verdict, refused) {
        judged.verdict = Verdict::Failing(Trouble { whose: Whose::Firewall, status });
    }
    judged
}

fn visible(answer: &Answer) -> Verdict {
    match answer.cloudflare_error() {
        Some(status) => Verdict::Failing(Trouble { whose: Whose::Cloudflare, status }),
        None if answer.status >= 500 => Verdict::Failing(Trouble { whose: Whose::Application, status: answer.status }),
        None => Verdict::Well,
    }
}

/// The origin fails where none of its addresses does any better.
fn straight(origins: &[(IpAddr, Origin)]) -> Verdict {
    let mut worst: Option<Trouble> = None;
    for (_, origin) in origins {
        let trouble = match origin {
            Origin::Answered { status, .. } if *status >= 500 => Trouble { whose: Whose::Application, status: *status },
            Origin::Answered { .. } => return Verdict::Well,
            Origin::Unsure(_) => return Verdict::Unknown,
            Origin::Failed { error, .. } => Trouble { whose: Whose::Origin, status: *error },
        };
        // One address that gives an answer of the application's says more than another that gives none.
        if worst.is_none_or(|w| w.whose != Whose::Application)
            && (worst.is_none() || trouble.whose == Whose::Application)
        {
            worst = Some(trouble);
        }
    }
    worst.map_or(Verdict::Unknown, Verdict::Failing)
}

/// The error that packet filters give some of Cloudflare's addresses on this port, if they refuse any; `origin` is the one
/// address of this host that counts.
#[must_use]
pub fn refused(reach: &ReachReport, port: u16, origin: Option<IpAddr>) -> Option<u16> {
    let to = origin.map(|ip| ip.to_string());
    let counts = |address: &str| to.as_ref().is_none_or(|to| to == address);
    let asked = reach.questions.iter().any(|q| q.port == port && counts(&q.to) && q.verdict == ReachVerdict::Refused);
    // A dropped packet is the more common way.
    let error =
        || reach.culprits.iter().filter(|c| c.verdict == ReachVerdict::Refused).find_map(|c| c.cloudflare_error);
    asked.then(|| error().unwrap_or(522))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(status: u16, cloudflare: bool) -> Seen {
        Seen::Answered(Answer { status, cloudflare, challenge: false, took: Duration::ZERO })
    }

    fn answered(status: u16) -> Origin {
        Origin::Answered { status, took: Duration::ZERO, objection: None }
    }

    fn failed(error: u16) -> Origin {
        Origin::Failed { error, how: String::new() }
    }

    fn verdict(edge: Seen, origins: &[Origin], refused: Option<u16>, odd: bool) -> Judged {
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        judge(&Answers { edge, origins: origins.iter().map(|o| (ip, o.clone())).collect() }, refused, odd)
    }

    fn failing(whose: Whose, status: u16) -> Verdict {
        Verdict::Failing(Trouble { whose, status })
    }

    #[test]
    fn the_edge_is_believed_first() {
        let seen = |status, cloudflare, origin| verdict(edge(status, cloudflare), &[origin], None, false);
        assert_eq!(
            seen(200, true, answered(200)),
            Judged { verdict: Verdict::Well, seen: true, straight: false, odd: Some(false) }
        );
        assert_eq!(seen(404, true, answered(404)).verdict, Verdict::Well);
        assert_eq!(seen(301, false, answered(200)).verdict, Verdict::Well);
        for status in [520, 521, 522, 523, 524, 525, 526, 530] {
            assert_eq!(seen(status, true, answered(200)).verdict, failing(Whose::Cloudflare, status));
            assert_eq!(seen(status, false, answered(200)).verdict, failing(Whose::Application, status));
        }
        assert_eq!(seen(502, true, failed(521)).verdict, failing(Whose::Application, 502));
        // Well through the edge and not straight: no failure, but odd.
        assert_eq!(
            seen(200, true, failed(521)),
            Judged { verdict: Verdict::Well, seen: true, straight: false, odd: Some(true) }
        );
        assert_eq!(seen(521, true, failed(521)).odd, None);
    }

    #[test]
    fn an_edge_that_is_not_seen_is_no_failure_but_an_origin_that_fails_is() {
        let blind = || Seen::Unreachable("no such name".into());
        let of = |origins: &[Origin], odd| verdict(blind(), origins, None, odd).verdict;
        assert_eq!(of(&[answered(200)], false), Verdict::Unknown);
        assert_eq!(of(&[], false), Verdict::Unknown);
        assert_eq!(of(&[failed(521)], false), failing(Whose::Origin, 521));
        assert_eq!(of(&[failed(521)], true), Verdict::Unknown, "it failed while all was well, too");
        assert_eq!(of(&[failed(521), answered(200)], false), Verdict::Unknown);
        assert_eq!(of(&[failed(521), Origin::Unsure("?".into())], false), Verdict::Unknown);
        assert_eq!(of(&[failed(523), answered(500), failed(521)], false), failing(Whose::Application, 500));
        assert_eq!(of(&[failed(523), failed(521)], false), failing(Whose::Origin, 523));
        assert_eq!(verdict(Seen::Stalled, &[failed(524)], None, false).verdict, failing(Whose::Origin, 524));
        assert!(verdict(blind(), &[answered(200)], None, false).straight);
        assert!(!verdict(blind(), &[answered(500)], None, false).straight);
        assert!(!verdict(edge(521, true), &[answered(200)], None, false).straight);
        let challenge = Answer { status: 403, cloudflare: true, challenge: true, took: Duration::ZERO };
        let asked_for_a_human = verdict(Seen::Answered(challenge), &[failed(521)], None, false);
        assert_eq!((asked_for_a_human.verdict, asked_for_a_human.seen), (failing(Whose::Origin, 521), false));
    }

    #[test]
    fn a_filter_that_refuses_counts_where_nothing_else_fails() {
        assert_eq!(verdict(edge(200, true), &[], Some(522), false).verdict, failing(Whose::Firewall, 522));
        assert_eq!(verdict(edge(525, true), &[], Some(522), false).verdict, failing(Whose::Cloudflare, 525));
        assert_eq!(verdict(Seen::Stalled, &[], Some(521), true).verdict, failing(Whose::Firewall, 521));
    }
}
