//! Limits of requests per address that doctor itself may meet: it asks as one visitor what many visitors ask.
//!
//! It asks one address after the other question, and slower where a limit is configured. What a server refuses all the
//! same is asked for once more, a second later. If that is answered, or if a limit may refuse it, the answer is not the
//! application's, and no error of it.
//!
//! Belongs here: what is configured about requests per address, and what an answer under a limit means. Does not: that
//! the limit strikes Cloudflare too (`firewall`).

use std::time::Duration;

use super::{
    gather::Seen,
    judge::finding,
    visit::Visit,
    words::{came_to, curl, ports, who},
};
use crate::{
    doctor::{
        Context,
        directives::{Directive, Said},
    },
    probe::http::{Answer, Rest},
    report::{BackendState, Finding, Finds},
};

/// Between two requests to one address where nothing is known of a limit.
const PAUSE: Duration = Duration::from_millis(100);
/// The same under a limit whose rate isn't written as one.
const SLOW: Duration = Duration::from_millis(1100);
/// However slow a limit wants it, an operator waits.
const SLOWEST: Duration = Duration::from_millis(2100);
/// How long all pauses at one address may be together.
const TOGETHER: Duration = Duration::from_secs(20);
/// What the names of the servers' processes begin with.
const NGINX: [&str; 2] = ["nginx", "openresty"];
const APACHE: [&str; 2] = ["apache", "httpd"];
/// How much evidence is shown.
const SHOWN: usize = 4;

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    /// Where it stands, and what it says.
    place: String,
    says: String,
    /// What it answers beyond the limit.
    status: u16,
    /// Whether nginx makes the answer, which then is its own short page.
    is_nginx: bool,
    /// The part of the site that it is about, if that is all that can be asked for.
    path: Option<String>,
    /// Whether asking again only makes it last.
    grows: bool,
    /// What it wants to be between two requests.
    pause: Duration,
}

/// The limits of this machine's web servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Limits {
    all: Vec<Limit>,
    /// Whether nginx may have pages for errors that aren't its own.
    has_pages: bool,
}

/// What a limit may have refused.
#[derive(Debug, Clone)]
pub(super) struct Limited {
    pub port: u16,
    /// What came of it at first.
    pub first: Visit,
    /// What came of it when it was asked for again.
    pub second: Option<Visit>,
    /// Whether the second answer was another one.
    pub changed: bool,
    /// The limit that may have done it.
    pub by: Option<Limit>,
}

/// The limits that are configured here.
pub(super) fn limits(cx: &Context<'_>) -> Limits {
    let nginx = cx.configs.nginx();
    let known = |state| matches!(state, BackendState::InSync | BackendState::Planned | BackendState::Pending);
    let evasive = cx.backends.iter().any(|b| b.name == "mod_evasive" && known(b.state));
    let listeners = cx.listeners.as_deref().unwrap_or_default();
    let runs = |programs: &[&str]| {
        let names: Vec<Vec<&str>> =
            listeners.iter().map(|s| s.programs.iter().map(|p| p.name.as_str()).collect()).collect();
        may_run(programs, &names)
    };
    let mut all = Vec::new();
    if runs(&NGINX) {
        all.extend(in_nginx(nginx));
    }
    // Behind a proxy of this machine it listens on another port.
    if runs(&APACHE) {
        all.extend(in_apache(cx.configs.apache(), evasive));
    }
    Limits { all, has_pages: nginx.directives.iter().any(|d| d.is("error_page")) }
}

/// Whether one of these programs listens, as far as it may be seen who does.
fn may_run(programs: &[&str], listening: &[Vec<&str>]) -> bool {
    listening.iter().any(|names| names.is_empty() || names.iter().any(|n| programs.iter().any(|p| n.starts_with(p))))
}

fn in_nginx(said: &Said) -> Vec<Limit> {
    let value = |name: &str| said.directives.iter().find(|d| d.is(name)).and_then(|d| d.value().parse().ok());
    let one = |d: &Directive| {
        let is_rate = d.is("limit_req");
        if !is_rate && !d.is("limit_conn") {
            return None;
        }
        Some(Limit {
            place: d.place(),
            says: d.words.join(" "),
            status: value(if is_rate { "limit_req_status" } else { "limit_conn_status" }).unwrap_or(503),
            is_nginx: true,
            path: path(said, d),
            grows: false,
            pause: d.zone().map_or(PAUSE, |zone| pause(said, zone)),
        })
    };
    said.directives.iter().filter_map(one).collect()
}

/// The part of the site that a directive is about, unless that is decided by an expression.
fn path(said: &Said, directive: &Directive) -> Option<String> {
    let location = said.around_of(directive).find(|head| head.is("location"))?;
    let path = location.words.last()?;
    path.starts_with('/').then(|| path.clone()).filter(|_| !location.words.iter().any(|w| w.starts_with('~')))
}

/// `limit_req_zone $binary_remote_addr zone=one:10m rate=30r/m`: with a little more than two seconds it is kept.
fn pause(said: &Said, zone: &str) -> Duration {
    let is_it = |d: &&Directive| d.is("limit_req_zone") && d.zone() == Some(zone);
    let rate = said.directives.iter().find(is_it).and_then(|d| d.words.iter().find_map(|w| w.strip_prefix("rate=")));
    let in_seconds = |rate: &str| {
        let (number, seconds) = match rate.strip_suffix("r/s") {
            Some(number) => (number, 1),
            None => (rate.strip_suffix("r/m")?, 60),
        };
        Some(SLOW.saturating_mul(seconds) / number.parse::<u32>().ok().filter(|n| *n > 0)?)
    };
    rate.and_then(in_seconds).unwrap_or(SLOW)
}

fn in_apache(said: &Said, evasive: bool) -> Vec<Limit> {
    let find = |name: &str| said.directives.iter().find(|d| d.is(name));
    let status = |name: &str| find(name).and_then(|d| d.value().parse().ok());
    let limit = |d: Option<&Directive>, status| Limit {
        place: d.map_or_else(|| "apachectl -M".to_owned(), Directive::place),
        says: d.map_or_else(|| "mod_evasive".to_owned(), |d| d.words.join(" ")),
        status,
        is_nginx: false,
        path: None,
        grows: false,
        pause: SLOW,
    };
    let mut found = Vec::new();
    if evasive {
        let set = ["DOSPageCount", "DOSSiteCount"].iter().find_map(|name| find(name));
        let seconds = find("DOSPageInterval").and_then(|d| d.value().parse().ok()).map_or(SLOW, Duration::from_secs);
        let answers = limit(set, status("DOSHTTPResponseCode").unwrap_or(403));
        found.push(Limit { grows: true, pause: SLOW.max(seconds), ..answers });
    }
    let of_qos = ["QS_SrvMaxConnPerIP", "QS_ClientEventPerSecLimit", "QS_ClientEventLimitCount"];
    let answers = status("QS_ErrorResponseCode").unwrap_or(500);
    found.extend(of_qos.iter().find_map(|name| find(name)).map(|d| limit(Some(d), answers)));
    found
}

impl Limits {
    /// How long to wait between so many requests to one address.
    pub fn pause(&self, requests: usize) -> Duration {
        let wanted = self.all.iter().map(|l| l.pause).max().unwrap_or(PAUSE).clamp(PAUSE, SLOWEST);
        wanted.min(TOGETHER / u32::try_from(requests).unwrap_or(u32::MAX).max(1))
    }

    /// The limit that may have made this answer.
    pub fn behind(&self, visit: &Visit) -> Option<&Limit> {
        let answer = visit.outcome.answer()?;
        let asked = visit.trail.last().and_then(|url| Some(url.split_once("://")?.1.split_once('/')?.1));
        let asked = format!("/{}", asked.unwrap_or_default());
        self.all.iter().find(|limit| {
            answer.status == limit.status
                && limit.path.as_ref().is_none_or(|path| asked.starts_with(path))
                && if limit.is_nginx { self.has_pages || is_short_page(answer) } else { !is_nginxs(answer) }
        })
    }

    /// Whether to ask once more: it is the word of a limit, and asking does no harm.
    pub fn asks_again(&self, visit: &Visit, answered_before: bool) -> bool {
        match self.behind(visit) {
            Some(limit) => !limit.grows,
            None => answered_before && visit.outcome.answer().is_some_and(|a| matches!(a.status, 429 | 503)),
        }
    }
}

/// nginx's own page, in all of its builds; what is cut off may be one.
fn is_short_page(answer: &Answer) -> bool {
    answer.rest != Rest::Whole || String::from_utf8_lossy(&answer.body).contains("<center>")
}

/// Whether nginx has written the page, which is no other server's then.
fn is_nginxs(answer: &Answer) -> bool {
    let page = String::from_utf8_lossy(&answer.body);
    page.contains("<hr><center>nginx") || page.contains("<hr><center>openresty")
}

/// Whether a server serves.
pub(super) fn is_well(visit: &Visit) -> bool {
    visit.outcome.answer().is_some_and(|a| a.status < 500 && a.status != 429)
}

/// What limits did to doctor's own requests.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    let of = |changed| seen.limited.iter().filter(move |l| l.changed == changed).collect::<Vec<_>>();
    [told(seen, &of(false)), told(seen, &of(true))].into_iter().flatten().collect()
}

fn told(seen: &Seen, all: &[&Limited]) -> Option<Finding> {
    let first = all.first()?;
    let mut numbers: Vec<u16> = all.iter().map(|l| l.port).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let on = ports(&numbers, "and");
    let who = seen.ports.iter().find(|p| p.number == first.port).map_or_else(|| "a program".to_owned(), who);
    let status = first.first.outcome.answer()?.status;
    let host = &first.first.host;
    let (verdict, text) = if first.changed {
        let text = format!("{who} answered {status} for {host} on {on} first, and better a second later: a limit");
        (Finds::Note, format!("{text} that doctor's own requests met, or an application that has little to spare"))
    } else {
        let text =
            format!("{who} answers {status} for {host} on {on}, which its limit of requests per address does too");
        (Finds::Skipped, format!("{text}: what the application would answer can't be told"))
    };
    let mut found = finding("online.limited", verdict, text);
    for limited in all.iter().take(SHOWN) {
        let second = limited.second.as_ref().map_or_else(String::new, |v| format!(", then {}", came_to(v)));
        found = found.seen(curl(&limited.first), format!("{}{second}", came_to(&limited.first)));
    }
    let by = all.iter().find_map(|l| l.by.as_ref());
    if let Some(by) = by {
        found = found.seen(&by.place, &by.says);
    }
    Some(if first.changed {
        found
    } else {
        found.mend("ask again later, or where the limit doesn't count this machine")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::directives::tests::{said_by_apache, said_by_nginx},
        probe::http::{Outcome, Scheme},
    };

    fn nginx(text: &str) -> Limits {
        let said = said_by_nginx(text);
        Limits { has_pages: said.directives.iter().any(|d| d.is("error_page")), all: in_nginx(&said) }
    }

    fn visit(status: u16, url: &str, body: &str) -> Visit {
        let answer =
            Answer { status, location: None, server: None, took: Duration::ZERO, body: body.into(), rest: Rest::Whole };
        Visit {
            door: ([192, 0, 2, 1], 80).into(),
            host: "shop.example".into(),
            visitor: Scheme::Http,
            tls: false,
            mute: false,
            trail: vec![url.to_owned()],
            outcome: Outcome::Answered(answer),
            loops: false,
            slowest: Duration::ZERO,
            other: None,
        }
    }

    const HOME: &str = "http://shop.example/";
    const PAGE: &str = "<html><center><h1>503</h1></center><hr><center>nginx</center></html>";

    #[test]
    fn a_limit_is_behind_what_it_would_answer_where_it_would() {
        let limits = nginx("http { limit_req_zone $a zone=one:1m rate=1r/s; server { limit_req zone=one burst=2; } }");
        assert!(limits.behind(&visit(503, HOME, PAGE)).is_some());
        assert!(limits.behind(&visit(503, HOME, "maintenance")).is_none(), "the application's own page");
        assert!(limits.behind(&visit(429, HOME, PAGE)).is_none() && limits.behind(&visit(200, HOME, PAGE)).is_none());
        let pages = nginx("http { limit_conn all 1; limit_conn_status 429; error_page 429 /busy.html; }");
        assert!(pages.behind(&visit(429, HOME, "busy")).is_some());
        let login = nginx("http { server { location /login { limit_req zone=one; } } }");
        assert!(login.behind(&visit(503, HOME, PAGE)).is_none());
        assert!(login.behind(&visit(503, "http://shop.example/login?a", PAGE)).is_some());
        let pattern = nginx("http { server { location ~ ^/ { limit_req zone=one; } } }");
        assert!(pattern.behind(&visit(503, HOME, PAGE)).is_some());
        assert!(nginx("").behind(&visit(503, HOME, PAGE)).is_none());
    }

    #[test]
    fn what_asking_again_makes_worse_is_not_asked_again() {
        let none = Limits::default();
        assert!(none.asks_again(&visit(503, HOME, ""), true) && !none.asks_again(&visit(503, HOME, ""), false));
        assert!(!none.asks_again(&visit(502, HOME, ""), true) && !none.asks_again(&visit(403, HOME, ""), true));
        let evasive = Limits { all: in_apache(&said_by_apache("DOSPageCount 2\n"), true), has_pages: false };
        assert!(evasive.behind(&visit(403, HOME, "")).is_some() && !evasive.asks_again(&visit(403, HOME, ""), true));
        assert!(evasive.behind(&visit(403, HOME, PAGE)).is_none(), "nginx says so");
        let qos = Limits { all: in_apache(&said_by_apache("QS_SrvMaxConnPerIP 5\n"), false), has_pages: false };
        assert!(qos.asks_again(&visit(500, HOME, ""), false));
        assert!(in_apache(&said_by_apache("DOSPageCount 2\n"), false).is_empty(), "it isn't loaded");
    }

    #[test]
    fn only_a_server_that_may_run_has_limits() {
        assert!(may_run(&APACHE, &[vec!["nginx"], vec!["apache2"]]) && may_run(&APACHE, &[vec!["nginx"], vec![]]));
        assert!(!may_run(&APACHE, &[vec!["nginx"], vec!["sshd"]]) && !may_run(&NGINX, &[]));
    }

    #[test]
    fn the_pause_is_what_the_rate_wants_and_bounded() {
        let of = |rate: &str| {
            nginx(&format!("http {{ limit_req_zone $a zone=one:1m rate={rate}; limit_req zone=one; }}")).pause(3)
        };
        assert_eq!([of("1r/s"), of("100r/s"), of("30r/m"), of("1r/m")], [SLOW, PAUSE, SLOWEST, SLOWEST]);
        assert_eq!(Limits::default().pause(3), PAUSE);
        assert_eq!(nginx("limit_conn all 1;").pause(3), PAUSE, "one after the other is enough");
        assert_eq!(nginx("limit_req zone=two;").pause(100) * 100, TOGETHER);
    }
}
