//! A round in words and numbers: the report of it, and the events for the log.
//!
//! Belongs here: from answers, memory and news to a report. Does not: deciding what is news ([`super::rules`]).

use std::time::Duration;

use jiff::SignedDuration;

use super::{
    judge::{Answers, Judged, Origin, Trouble, Verdict},
    memory::Site,
    rules::{Held, News, Rules},
    settings::Target,
};
use crate::{
    probe::edge::Seen,
    report::{NewsReport, PageReport, PageState, WayReport},
};

/// How a page is, for the report.
#[must_use]
pub fn page(target: &Target, answers: &Answers, judged: &Judged, site: Option<&Site>) -> PageReport {
    let down = site.is_some_and(|s| s.down.is_some());
    let (state, trouble) = match judged.verdict {
        Verdict::Well => (PageState::Well, None),
        Verdict::Failing(trouble) => (if down { PageState::Down } else { PageState::Failing }, Some(trouble)),
        Verdict::Unknown if down => (PageState::Down, site.and_then(|s| s.down)),
        Verdict::Unknown => (PageState::Unknown, None),
    };
    PageReport {
        url: target.shown.clone(),
        state,
        trouble,
        cloudflare_error: trouble.and_then(Trouble::cloudflare_error),
        failures: site.map_or(0, |s| s.failures),
        since: site.and_then(|s| s.since),
        edge: edge(&answers.edge),
        origins: answers
            .origins
            .iter()
            .map(|(ip, o)| WayReport { address: Some(ip.to_string()), ..origin(o) })
            .collect(),
    }
}

fn edge(seen: &Seen) -> WayReport {
    match seen {
        Seen::Answered(answer) => WayReport {
            status: Some(answer.status),
            cloudflare: Some(answer.cloudflare),
            cloudflare_error: answer.cloudflare_error(),
            seconds: Some(seconds(answer.took)),
            detail: answer.challenge.then(|| "Cloudflare asks this machine to prove that it is human".to_owned()),
            ..WayReport::default()
        },
        Seen::Stalled => WayReport { detail: Some("no answer in time".to_owned()), ..WayReport::default() },
        Seen::Unreachable(why) => WayReport { detail: Some(why.clone()), ..WayReport::default() },
    }
}

fn origin(origin: &Origin) -> WayReport {
    match origin {
        Origin::Answered { status, took, objection } => WayReport {
            status: Some(*status),
            seconds: Some(seconds(*took)),
            detail: objection.map(str::to_owned),
            ..WayReport::default()
        },
        Origin::Failed { error, how } => {
            WayReport { cloudflare_error: Some(*error), detail: Some(how.clone()), ..WayReport::default() }
        }
        Origin::Unsure(why) => WayReport { detail: Some(why.clone()), ..WayReport::default() },
    }
}

/// To the millisecond.
fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1000.0).round() / 1000.0
}

/// News in words. `pages` are those of the same round.
#[must_use]
pub fn news(news: &News, pages: &[PageReport], rules: &Rules) -> NewsReport {
    let (event, url, text) = match news {
        News::Down { url, trouble, failures, .. } => {
            let times = if *failures == 1 { "1 failure".to_owned() } else { format!("{failures} failures in a row") };
            ("down", Some(url), format!("{url} is down: {trouble} ({times}){}", straight(url, pages)))
        }
        News::Changed { url, from, to } => {
            ("changed", Some(url), format!("{url} is down for another reason: {to}; before, {}", from.past()))
        }
        News::Recovered { url, trouble, lasted } => {
            let what = format!("{url} is up again after {}; before, {}", length(*lasted), trouble.past());
            ("recovered", Some(url), what)
        }
        News::Unseen { url } => {
            let page = pages.iter().find(|p| p.url == *url);
            let why = page.and_then(|p| p.edge.detail.clone()).unwrap_or_default();
            let what = format!("{url} can't be seen as visitors see it ({why}): only the origin is watched now");
            ("unseen", Some(url), what)
        }
        News::Seen { url } => ("seen", Some(url), format!("{url} can be seen as visitors see it again")),
        News::Odd { url } => {
            let what = format!(
                "{url} is well for visitors, and not when the origin is asked straight{}: what that does is not taken \
                 for a failure",
                straight(url, pages)
            );
            ("odd", Some(url), what)
        }
        News::Even { url } => ("even", Some(url), format!("{url} is well also when the origin is asked straight")),
        News::Held(held) => ("held", None, held_back(*held, rules)),
        News::Drift(backends) => (
            "drift",
            None,
            format!("{}: not what edgeallow applied; `edgeallow sync` puts it back", backends.join(", ")),
        ),
        News::InSync => ("in_sync", None, "the firewalls hold again what edgeallow applied".to_owned()),
        News::ReachUnknown => (
            "reach_unknown",
            None,
            "whether Cloudflare gets through this host's packet filters can't be told; `edgeallow verify` says why"
                .to_owned(),
        ),
        News::ReachKnown => (
            "reach_known",
            None,
            "whether Cloudflare gets through this host's packet filters can be told again".to_owned(),
        ),
    };
    NewsReport { event, url: url.cloned(), text }
}

/// What the origin did, asked straight, where it did not do well.
fn straight(url: &str, pages: &[PageReport]) -> String {
    let Some(page) = pages.iter().find(|p| p.url == *url) else { return String::new() };
    let one = |way: &WayReport| {
        let what = match (way.status, &way.detail) {
            (Some(status), None) => format!("it answers {status}"),
            (Some(status), Some(detail)) => format!("it answers {status}, and {detail}"),
            (None, detail) => detail.clone().unwrap_or_default(),
        };
        Some(format!("{}: {what}", way.address.as_ref()?))
    };
    let all: Vec<String> = page.origins.iter().filter_map(one).collect();
    if all.is_empty() { String::new() } else { format!("; asked straight at {}", all.join("; at ")) }
}

fn held_back(held: Held, rules: &Rules) -> String {
    match held {
        Held::Cooldown => {
            format!("the on-fail command is held back: it was run less than {} ago", length(rules.cooldown))
        }
        Held::Unsure => format!(
            "the on-fail command is held back for {} at most, because it isn't known when it was last run",
            length(rules.cooldown)
        ),
        Held::MaxPerHour => {
            format!("the on-fail command is held back: it may be run {} times an hour", rules.max_per_hour)
        }
        Held::Running => "the on-fail command is held back: the last one is still running".to_owned(),
    }
}

/// A length of time for people.
fn length(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut parts = Vec::new();
    if hours > 0 {
        parts.push(format!("{hours} h"));
    }
    if minutes > 0 {
        parts.push(format!("{minutes} min"));
    }
    if rest > 0 && hours == 0 || parts.is_empty() {
        parts.push(format!("{rest} s"));
    }
    parts.join(" ")
}

/// Logs something that happened. A single round has a report that people read instead.
pub fn log(news: &News, told: &NewsReport, service: bool) {
    let (event, url, text) = (told.event, told.url.as_deref(), told.text.as_str());
    let trouble = match news {
        News::Down { trouble, .. } | News::Recovered { trouble, .. } => Some(trouble),
        News::Changed { to, .. } => Some(to),
        _ => None,
    };
    let (status, whose) = (trouble.map(|t| t.status), trouble.map(|t| whose(*t)));
    let failures = if let News::Down { failures, .. } = news { Some(*failures) } else { None };
    let lasted = if let News::Recovered { lasted, .. } = news { Some(lasted.as_secs()) } else { None };
    macro_rules! log {
        ($level:ident) => {
            if service {
                tracing::$level!(event, url, status, whose, failures, lasted_seconds = lasted, "{text}");
            } else {
                tracing::$level!(
                    target: crate::observe::TOLD, event, url, status, whose, failures, lasted_seconds = lasted, "{text}"
                );
            }
        };
    }
    match news {
        News::Down { .. } | News::Changed { .. } => log!(error),
        News::Unseen { .. } | News::Odd { .. } | News::Held(_) | News::Drift(_) | News::ReachUnknown => log!(warn),
        News::Recovered { .. } | News::Seen { .. } | News::Even { .. } | News::InSync | News::ReachKnown => log!(info),
    }
}

const fn whose(trouble: Trouble) -> &'static str {
    use super::judge::Whose;
    match trouble.whose {
        Whose::Cloudflare => "cloudflare",
        Whose::Origin => "origin",
        Whose::Application => "application",
        Whose::Firewall => "firewall",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::judge::Whose, *};

    #[test]
    fn why_the_command_is_held_back_is_told_as_it_is() {
        let rules = Rules { fail_after: 1, acts: true, cooldown: SignedDuration::from_mins(10), max_per_hour: 3 };
        let told = |held| news(&News::Held(held), &[], &rules).text;
        assert!(told(Held::Cooldown).ends_with("it was run less than 10 min ago"));
        assert!(!told(Held::Unsure).contains("it was run") && told(Held::Unsure).contains("for 10 min at most"));
    }

    #[test]
    fn what_is_over_is_told_in_the_past() {
        let rules = Rules { fail_after: 1, acts: false, cooldown: SignedDuration::ZERO, max_per_hour: 0 };
        let of = |whose, status| Trouble { whose, status };
        let (cloudflare, application) = (of(Whose::Cloudflare, 521), of(Whose::Application, 502));
        let url = "https://shop.example/".to_owned();
        let recovered =
            News::Recovered { url: url.clone(), trouble: cloudflare, lasted: SignedDuration::from_mins(10) };
        assert_eq!(
            news(&recovered, &[], &rules).text,
            "https://shop.example/ is up again after 10 min; before, Cloudflare answered with its error 521"
        );
        let changed = News::Changed { url, from: application, to: cloudflare };
        assert_eq!(
            news(&changed, &[], &rules).text,
            "https://shop.example/ is down for another reason: Cloudflare answers with its error 521; before, the \
             application answered 502"
        );
    }

    #[test]
    fn lengths_are_told_as_people_tell_them() {
        for (seconds, words) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (600, "10 min"), (754, "12 min 34 s")] {
            assert_eq!(length(SignedDuration::from_secs(seconds)), words);
        }
        assert_eq!(length(SignedDuration::from_secs(7265)), "2 h 1 min");
        assert_eq!(length(SignedDuration::from_secs(-5)), "0 s");
    }
}
