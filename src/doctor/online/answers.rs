//! What answers come to.
//!
//! Belongs here: ports that are listened on, and their visits. Does not: whether anything listens (`judge`).

use std::time::Duration;

use super::{
    gather::{Door, Port, Seen, Way},
    judge::{finding, lack},
    patience::{ELSEWHERE, LONGER},
    servers,
    visit::{PATIENCE, Visit},
    words::{came_to, curl, curl_for, list, other_came_to, ports, socket, ss, who},
};
use crate::{
    doctor::{Mode, commands::edit_at},
    probe::http::{Answer, Outcome, Rest, Scheme},
    report::{Finding, Finds},
};

/// An answer that takes longer will take too long under load: Cloudflare gives up after 120 s.
const SLOW: Duration = Duration::from_secs(5);
/// What is said of a refusal, before what visitors may make of it.
pub(super) const OWN_REQUEST: &str = " to this machine's own request";
/// A server that takes connections and doesn't answer.
pub(super) const STALLS: &str = "online.stalls";
const WAITS_FOR: &str = "find out what it waits for: a database, another server, workers that are all busy";
/// How much evidence is shown of one problem.
const SHOWN: usize = 4;

/// Something that is wrong with an answer.
struct Problem {
    id: &'static str,
    verdict: Finds,
    errors: &'static [u16],
    text: String,
    fix: Option<String>,
    /// The web server's log says more.
    logged: bool,
}

/// A visit that came to no good, and where.
type Place<'a> = (&'a Port, &'a Door, &'a Visit);

pub(super) fn judge(seen: &Seen, ports: &[&Port]) -> Vec<Finding> {
    // Alike are those of one kind about one site: at several addresses and ports it is the same program.
    let mut wrong: Vec<(&'static str, String, Vec<Place<'_>>)> = Vec::new();
    let mut found = Vec::new();
    for &port in ports {
        let mut well: Vec<&Visit> = Vec::new();
        for (door, visit) in port.doors.iter().flat_map(|d| d.visits.iter().map(move |v| (d, v))) {
            let place = (port, door, visit);
            let Some(problem) = problem(seen, place, Said::default()) else {
                well.push(visit);
                continue;
            };
            let who = who(port);
            let same = wrong.iter_mut().find(|(id, by, places)| {
                let is_same = |(.., v): &Place<'_>| {
                    v.host == visit.host || (v.is_circle_of(&visit.host) && visit.is_circle_of(&v.host))
                };
                *id == problem.id && *by == who && (!seen.named || places.first().is_some_and(is_same))
            });
            match same {
                Some((.., places)) => places.push(place),
                None => wrong.push((problem.id, who, vec![place])),
            }
        }
        // What is sent to where nothing takes it is told by itself.
        let is_lost = port.sockets.is_empty() && port.doors.iter().any(|d| matches!(d.way, Way::Astray(..)));
        if !is_lost {
            found.push(if well.is_empty() { listens(port) } else { answers(port, &well) });
        }
    }
    found.splice(0..0, wrong.iter().filter_map(|(.., places)| told(seen, places)));
    found
}

/// One finding for all of these, in the words for the worst of them.
fn told(seen: &Seen, places: &[Place<'_>]) -> Option<Finding> {
    let mut numbers: Vec<u16> = places.iter().map(|(port, ..)| port.number).collect();
    numbers.dedup();
    let mut names: Vec<&str> = Vec::new();
    for (.., visit) in places {
        if !names.contains(&visit.host.as_str()) {
            names.push(&visit.host);
        }
    }
    let (on, names) = (ports(&numbers, "and"), list(names, "and"));
    let said = Said { on: &on, names: &names };
    // Of those that are as bad, the first.
    let problems: Vec<Problem> = places.iter().filter_map(|p| problem(seen, *p, said)).collect();
    let worst = problems.iter().rev().max_by_key(|p| p.verdict)?;
    let mut errors: Vec<u16> = problems.iter().flat_map(|p| p.errors).copied().collect();
    errors.sort_unstable();
    errors.dedup();
    let mut found = finding(worst.id, worst.verdict, worst.text.clone()).gives(&errors);
    for (.., visit) in places.iter().take(SHOWN) {
        found = found.seen(curl(visit), came_to(visit));
    }
    if let Some((.., visit)) = places.iter().find(|(.., v)| v.stalls()).filter(|_| worst.id == STALLS)
        && let Some(other) = &visit.other
    {
        found = found.seen(curl_for(visit, ELSEWHERE), other_came_to(other));
    }
    let is_on_a_condition = worst.id == "online.empty" && worst.verdict == Finds::Warning;
    if let Some((place, says)) = seen.hangs_up.as_ref().filter(|_| is_on_a_condition) {
        found = found.seen(place.clone(), says.clone());
        return Some(match (&worst.fix, edit_at(place)) {
            (Some(fix), Some(edit)) => found.mend_by(fix.clone(), edit),
            (fix, _) => found.mend_if(fix.clone()),
        });
    }
    let programs = || places.iter().flat_map(|(port, ..)| &port.sockets).flat_map(|s| &s.programs);
    let log = programs().find_map(|p| servers::error_log(p)).filter(|_| worst.logged);
    Some(match (&worst.fix, log) {
        (Some(fix), Some(log)) => found.mend_by(fix.clone(), format!("tail -n 50 {log}")),
        (Some(fix), None) => found.mend(fix.clone()),
        (None, _) => found,
    })
}

fn listens(port: &Port) -> Finding {
    let open: Vec<&Door> = port.doors.iter().filter(|d| d.way.is_open()).collect();
    if open.iter().any(|d| matches!(d.way, Way::Far(_))) {
        let text = format!(
            "something takes connections on port {} of {}",
            port.number,
            list(open.iter().map(|d| d.ip), "and")
        );
        return finding("online.listens", Finds::Ok, text).seen("a connection", "accepted");
    }
    if port.sockets.is_empty() {
        let by = open.iter().find_map(|d| match &d.way {
            Way::SentOn(words) => words.clone(),
            _ => None,
        });
        let text = format!("connections to port {} are sent on to elsewhere", port.number);
        return finding("online.sent-on", Finds::Ok, text)
            .seen(format!("edgeallow verify --port {}", port.number), by.unwrap_or_else(|| "a connection".to_owned()));
    }
    let text = format!("{} listens on port {} of {}", who(port), port.number, list(open.iter().map(|d| d.ip), "and"));
    finding("online.listens", Finds::Ok, text).seen(ss(&[port.number]), list(port.sockets.iter().map(socket), "and"))
}

fn answers(port: &Port, well: &[&Visit]) -> Finding {
    let mut at: Vec<_> = well.iter().map(|v| v.door.ip()).collect();
    at.dedup();
    let text = format!("{} answers on port {} of {}", who(port), port.number, list(at, "and"));
    let mut found = finding("online.answers", Finds::Ok, text);
    for visit in well.iter().take(SHOWN) {
        found = found.seen(curl(visit), came_to(visit));
    }
    found
}

/// What a problem on this port is to visitors.
pub(super) fn weight(seen: &Seen, port: u16) -> Finds {
    match (seen.mode, port) {
        // Only who comes by http:// gets here, and Cloudflare may redirect all of them.
        (Mode::Full | Mode::Strict, 80) => Finds::Warning,
        (_, 80 | 443) => Finds::Cause,
        _ if seen.ports_asked => Finds::Cause,
        _ => Finds::Warning,
    }
}

/// What the words for a problem are about.
#[derive(Debug, Clone, Copy, Default)]
struct Said<'a> {
    /// `port 80`
    on: &'a str,
    /// The sites.
    names: &'a str,
}

/// What is wrong with an answer.
fn problem(seen: &Seen, (port, door, visit): Place<'_>, Said { on, names }: Said<'_>) -> Option<Problem> {
    let host = &visit.host;
    let who = who(port);
    let weight = weight(seen, port.number);
    let new = |id, verdict, errors, text: String| Problem { id, verdict, errors, text, fix: None, logged: false };
    let mend = |problem: Problem, fix: &str| Some(Problem { fix: Some(fix.to_owned()), ..problem });
    let mend_by_log = |problem, fix| mend(problem, fix).map(|p| Problem { logged: true, ..p });
    if visit.loops {
        let mut problem = redirect_loop(seen, weight, &who, visit, names);
        if seen.strange.contains(host) {
            problem.verdict = problem.verdict.min(Finds::Warning);
            problem.text.push_str(", if it is a site of this machine's: only the redirect tells the name");
        }
        return Some(problem);
    }
    match &visit.outcome {
        Outcome::Answered(answer) => answered(seen, weight, on, &who, visit, answer),
        Outcome::Closed if seen.named && matches!(door.way, Way::Far(_)) => mend(
            new(
                "online.empty",
                Finds::Warning,
                &[520],
                format!(
                    "{who} ends the connection on {on} without an answer for {host}, which may be meant for all but \
                     Cloudflare"
                ),
            ),
            "see in its log why: a crash, a rule that hangs up (`return 444` of nginx), a limit",
        ),
        Outcome::Closed if seen.named && seen.hangs_up.is_some() => mend(
            new(
                "online.empty",
                Finds::Warning,
                &[520],
                format!(
                    "{who} ends the connection on {on} without an answer for {host}, as its configuration wants it on a \
                     condition: if that keeps out all but Cloudflare, its visitors are answered"
                ),
            ),
            "see whether Cloudflare meets the condition; if it does, see in the log what else ends connections",
        ),
        Outcome::Closed if seen.named => mend_by_log(
            new(
                "online.empty",
                weight,
                &[520],
                format!("{who} ends the connection on {on} without an answer for {host}"),
            ),
            "see in its log why: a crash, a rule that hangs up (`return 444` of nginx), a limit",
        ),
        Outcome::Closed => mend(
            new(
                "online.empty",
                Finds::Skipped,
                &[],
                format!(
                    "{who} ends the connection on {on} without an answer, which may be meant for who names no site"
                ),
            ),
            "name the site: `edgeallow doctor shop.example`",
        ),
        Outcome::Garbled(_) => mend(
            new("online.garbled", weight, &[520], format!("what {who} answers on {on} is no HTTP")),
            if visit.tls {
                "let a web server have the port"
            } else {
                "let a web server have the port; one that speaks TLS there belongs on port 443"
            },
        ),
        Outcome::Oversized => mend(
            new(
                "online.head-too-long",
                weight,
                &[520],
                format!("the head of the answer for {host} on {on} is longer than 128 KB"),
            ),
            "find out which header fields grow, cookies mostly, and set fewer",
        ),
        Outcome::Stalled if door.full => Some(new(
            "online.queue-full",
            Finds::Skipped,
            &[],
            format!("{who} could not be asked on {on}: as many connections as may wait to be accepted, see Resources"),
        )),
        Outcome::Stalled if visit.mute => mend_by_log(
            new(
                STALLS,
                weight,
                &[525],
                format!(
                    "{who} takes the connection on {on} and then says nothing: there was no TLS handshake within {} s",
                    PATIENCE.as_secs()
                ),
            ),
            "find out what it waits for: processes that hang, workers that are all busy",
        ),
        Outcome::Stalled => mend_by_log(stalls(weight, &who, on, host, visit), WAITS_FOR),
        Outcome::Refused | Outcome::Silent | Outcome::NoRoute | Outcome::Failed(_) => {
            let why = match &door.way {
                _ if door.full => "as many connections as may wait to be accepted, see Resources",
                Way::SentOn(_) => {
                    "a rule sends what comes from outside elsewhere, which doesn't hold for this host's own"
                }
                _ if door.filtered => "a packet filter is in the way, see Firewall",
                _ if matches!(visit.outcome, Outcome::Failed(_)) => "see below",
                _ => "a packet filter catches this host's own connections, which says nothing about Cloudflare's",
            };
            Some(new("online.not-asked", Finds::Skipped, &[], format!("{who} could not be asked on {on}: {why}")))
        }
    }
}

/// A page that isn't answered may be a slow one; where nothing else is answered either, it is no page's fault.
fn stalls(weight: Finds, who: &str, on: &str, host: &str, visit: &Visit) -> Problem {
    let takes = format!("{who} takes the connection on {on} and has not answered for {host} after");
    let (verdict, text) = match &visit.other {
        None => {
            let waited = PATIENCE.as_secs();
            (weight.min(Finds::Warning), format!("{takes} {waited} s; Cloudflare gives up after 120 s"))
        }
        Some(Outcome::Stalled) => {
            let text = format!("{takes} {} s, nor for another path; Cloudflare gives up after 120 s", LONGER.as_secs());
            (weight, text)
        }
        Some(_) => {
            let text = format!(
                "{takes} {} s, though it answers for another path: Cloudflare gives up on that page after 120 s",
                LONGER.as_secs()
            );
            (weight.min(Finds::Warning), text)
        }
    };
    Problem { id: STALLS, verdict, errors: &[524], text, fix: None, logged: false }
}

fn redirect_loop(seen: &Seen, weight: Finds, who: &str, visit: &Visit, host: &str) -> Problem {
    const FIX: &str = "choose Full or Full (strict) at Cloudflare (SSL/TLS, Overview) and have a certificate here, or redirect \
                       nothing that comes with `X-Forwarded-Proto: https`";
    let new = |id, verdict, text| Problem { id, verdict, errors: &[], text, fix: Some(FIX.to_owned()), logged: false };
    if visit.tls {
        let how = if visit.trail.iter().any(|url| url.starts_with("http://")) {
            "from https:// to http:// and back"
        } else {
            "from https:// to https:// in a circle"
        };
        return Problem {
            fix: Some(
                "take out the redirect that leads back to where it came from; an application behind a proxy of this \
                 machine's must be told by it (`X-Forwarded-Proto`) that the visitor used https"
                    .to_owned(),
            ),
            ..new("online.redirect-loop", weight, format!("{who} redirects {host} {how}: a redirect loop"))
        };
    }
    match (visit.visitor, seen.mode) {
        // Then there is no mode that works.
        (Scheme::Https, Mode::Unknown) if seen.ports.iter().any(|p| p.number == 443 && lack(p).is_some()) => Problem {
            errors: &[521],
            fix: Some(
                "serve TLS on port 443 with a certificate, and choose Full or Full (strict) at Cloudflare".to_owned(),
            ),
            ..new(
                "online.redirects-to-nothing",
                Finds::Cause,
                format!(
                    "{who} redirects {host} to https://, and nothing listens on port 443: a loop under Flexible, refused \
                     under Full"
                ),
            )
        },
        (Scheme::Https, Mode::Unknown) => new(
            "online.redirects-to-https",
            Finds::Note,
            format!(
                "{who} redirects {host} from http:// to https://: under Flexible that is a loop, under Full it is well"
            ),
        ),
        (Scheme::Https, _) => new(
            "online.redirect-loop",
            weight,
            format!(
                "{who} redirects {host} to https://, and under Flexible Cloudflare brings that by plain HTTP again: a \
                 redirect loop"
            ),
        ),
        (Scheme::Http, _) => Problem {
            fix: Some("take out the redirect that leads back to where it came from".to_owned()),
            ..new("online.redirect-loop", weight, format!("{who} redirects {host} in a circle: a redirect loop"))
        },
    }
}

fn answered(seen: &Seen, weight: Finds, on: &str, who: &str, visit: &Visit, answer: &Answer) -> Option<Problem> {
    const HTTPS_WANTED: [&str; 2] =
        ["plain HTTP request was sent to HTTPS port", "plain HTTP to an SSL-enabled server port"];
    let host = &visit.host;
    let new = |id, verdict, errors, text, fix: &str, logged| {
        Some(Problem { id, verdict, errors, text, fix: Some(fix.to_owned()), logged })
    };
    let body = String::from_utf8_lossy(&answer.body);
    if !visit.tls && answer.status == 400 && HTTPS_WANTED.iter().any(|w| body.contains(w)) {
        let text = format!("{who} wants TLS on {on}, where Cloudflare speaks plain HTTP");
        return new("online.tls-on-http-port", weight, &[], text, "serve TLS on port 443, and plain HTTP here", false);
    }
    if answer.rest == Rest::Broken {
        let text = format!("{who} ends its answer for {host} on {on} too early");
        return new("online.cut-short", Finds::Warning, &[520], text, "see in its log why", true);
    }
    if answer.status >= 500 {
        let text = format!(
            "{who} answers {} for {host} on {on}: the application's own error, which Cloudflare passes on",
            answer.status
        );
        return new("online.application-error", Finds::Warning, &[], text, "see in its log why", true);
    }
    if matches!(answer.status, 401 | 403) {
        let verdict =
            if seen.named && is_a_servers_refusal(answer.status, &body) { Finds::Warning } else { Finds::Note };
        let (status, what) =
            if answer.status == 401 { ("401", "asks for a password") } else { ("403 Forbidden", "turns it away") };
        let text = format!(
            "{who} answers {status} for {host} on {on}{OWN_REQUEST}: it {what}, and likely visitors by way of Cloudflare \
             too, unless it looks at the client's address"
        );
        let fix = "see in its log why; if it isn't meant, look for rules (nginx: `deny`, `return 403` after `if`, `geo` or \
                   `map`; Apache: `Require`, `Deny`, `[F]` of a RewriteRule, a `.htaccess`) and for a folder without an index \
                   file or that the server may not read";
        return new("online.forbidden", verdict, &[], text, fix, true);
    }
    if visit.slowest >= SLOW {
        let text = format!("{who} takes {} s to answer for {host} on {on}", visit.slowest.as_secs());
        let fix = "find out what it waits for: Cloudflare gives up after 120 s";
        return new("online.slow", Finds::Warning, &[524], text, fix, true);
    }
    None
}

/// Whether the web server itself refuses, by the page that it writes: what an application answers is its own affair, and
/// so is whom it asks for a password.
fn is_a_servers_refusal(status: u16, page: &str) -> bool {
    const APACHE: &str = "You don't have permission to access";
    let is_nginx = page.contains("<title>403 Forbidden</title>") && page.contains("<hr><center>");
    status == 403 && (is_nginx || page.contains(APACHE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one visit comes to under Full, where the site is named.
    fn judged(port: u16, outcome: Outcome, other: Option<Outcome>, hangs_up: Option<&str>) -> Vec<Finding> {
        let door: std::net::SocketAddr = ([192, 0, 2, 1], port).into();
        let (host, slowest) = ("shop.example".to_owned(), Duration::ZERO);
        let visitor = if port == 80 { Scheme::Http } else { Scheme::Https };
        let trail = vec![format!("{}://{host}/", visitor.as_str())];
        let visit =
            Visit { door, host, visitor, tls: port == 443, mute: false, trail, outcome, loops: false, slowest, other };
        let visits = vec![visit];
        let door = Door { ip: door.ip(), way: Way::Socket, filtered: false, full: false, visits };
        let seen = Seen {
            mode: Mode::Full,
            named: true,
            ports: vec![Port { number: port, sockets: Vec::new(), doors: vec![door] }],
            hangs_up: hangs_up.map(|says| ("/etc/nginx/nginx.conf line 3".to_owned(), says.to_owned())),
            ..Seen::default()
        };
        let mut found = judge(&seen, &seen.ports.iter().collect::<Vec<_>>());
        found.retain(|f| f.verdict > Finds::Note);
        found
    }

    #[test]
    fn a_page_that_is_not_answered_is_no_cause_by_itself() {
        let of = |port, other| judged(port, Outcome::Stalled, other, None).remove(0);
        let first = of(443, None);
        assert_eq!((first.id, first.verdict), (STALLS, Finds::Warning));
        assert!(first.text.contains("after 10 s;"), "{}", first.text);
        let slow = of(443, Some(Outcome::Closed));
        assert_eq!(slow.verdict, Finds::Warning);
        assert!(slow.text.contains("after 30 s, though it answers for another path"), "{}", slow.text);
        let hangs = of(443, Some(Outcome::Stalled));
        assert_eq!((hangs.verdict, &hangs.cloudflare_errors[..]), (Finds::Cause, &[524][..]));
        assert!(hangs.text.contains("after 30 s, nor for another path"), "{}", hangs.text);
        assert_eq!(hangs.evidence[1].shows, "no answer within 30 s");
        assert!(hangs.evidence[1].source.ends_with("https://shop.example/edgeallow-doctor"), "{hangs:#?}");
        assert_eq!(of(80, Some(Outcome::Stalled)).verdict, Finds::Warning, "Cloudflare may redirect them all");
    }

    #[test]
    fn no_answer_is_a_warning_where_a_condition_wants_it_for_some() {
        let of = |hangs_up| judged(443, Outcome::Closed, None, hangs_up).remove(0);
        assert_eq!((of(None).id, of(None).verdict), ("online.empty", Finds::Cause));
        let meant = of(Some("if ($cf = 0)"));
        assert_eq!((meant.id, meant.verdict), ("online.empty", Finds::Warning));
        assert_eq!(meant.evidence[1].shows, "if ($cf = 0)");
        let command = meant.fix.and_then(|f| f.command);
        assert_eq!(command.as_deref(), Some("${EDITOR:-vi} +3 /etc/nginx/nginx.conf"));
    }

    #[test]
    fn a_web_servers_refusal_is_known_by_its_page() {
        let nginx = "<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\
                     \r\n<hr><center>nginx</center>\r\n";
        let apache = "<p>You don't have permission to access this resource.</p>";
        for (status, page, is) in [
            (403, nginx, true),
            (403, apache, true),
            (401, apache, false),
            (403, "{\"error\":\"no token\"}", false),
            (403, "<title>403 Forbidden</title><p>Please log in.", false),
        ] {
            assert_eq!(is_a_servers_refusal(status, page), is, "{status} {page}");
        }
    }
}
