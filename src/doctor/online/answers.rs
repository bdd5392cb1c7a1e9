//! What answers come to.
//!
//! Belongs here: one port that is listened on, and its visits. Does not: whether anything listens (`judge`).

use std::time::Duration;

use super::{
    gather::{Door, Port, Seen, Way},
    judge::{finding, lack},
    servers,
    visit::{PATIENCE, Visit},
    words::{came_to, curl, list, socket, ss, who},
};
use crate::{
    doctor::Mode,
    probe::http::{Answer, Outcome, Rest, Scheme},
    report::{Finding, Finds},
};

/// An answer that takes longer will take too long under load: Cloudflare gives up after 120 s.
const SLOW: Duration = Duration::from_secs(5);
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

pub(super) fn judge(seen: &Seen, port: &Port) -> Vec<Finding> {
    // Alike are those of one kind about one site: at several addresses it is the same program.
    let mut wrong: Vec<(Finding, &str)> = Vec::new();
    let mut well: Vec<&Visit> = Vec::new();
    let visits = port.doors.iter().flat_map(|d| d.visits.iter().map(move |v| (d, v)));
    for (door, visit) in visits {
        let Some(problem) = problem(seen, port, door, visit) else {
            well.push(visit);
            continue;
        };
        let same = wrong.iter().position(|(f, host)| f.id == problem.id && (!seen.named || *host == visit.host));
        let at = same.unwrap_or_else(|| {
            wrong.push((told(port, &problem), &visit.host));
            wrong.len() - 1
        });
        if let Some((found, _)) = wrong.get_mut(at)
            && found.evidence.len() < SHOWN
        {
            *found = found.clone().seen(curl(visit), came_to(visit));
        }
    }
    let mut found: Vec<Finding> = wrong.into_iter().map(|(f, _)| f).collect();
    found.push(if well.is_empty() { listens(port) } else { answers(port, &well) });
    found
}

fn told(port: &Port, problem: &Problem) -> Finding {
    let mut found = finding(problem.id, problem.verdict, problem.text.clone()).gives(problem.errors);
    let log = port.sockets.iter().flat_map(|s| &s.programs).find_map(|p| servers::error_log(p));
    if let Some(fix) = &problem.fix {
        found = match log.filter(|_| problem.logged) {
            Some(log) => found.mend_by(fix.clone(), format!("tail -n 50 {log}")),
            None => found.mend(fix.clone()),
        };
    }
    found
}

fn listens(port: &Port) -> Finding {
    let open: Vec<&Door> = port.doors.iter().filter(|d| d.way != Way::Nothing).collect();
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

/// What a problem of plain HTTP on this port is to visitors.
fn weight(seen: &Seen, port: u16) -> Finds {
    match (seen.mode, port) {
        // Only who comes by http:// gets here, and Cloudflare may redirect all of them.
        (Mode::Full | Mode::Strict, 80) => Finds::Warning,
        (_, 80) => Finds::Cause,
        _ if seen.ports_asked => Finds::Cause,
        _ => Finds::Warning,
    }
}

fn problem(seen: &Seen, port: &Port, door: &Door, visit: &Visit) -> Option<Problem> {
    let n = port.number;
    let host = &visit.host;
    let who = who(port);
    let weight = weight(seen, n);
    let new = |id, verdict, errors, text: String| Problem { id, verdict, errors, text, fix: None, logged: false };
    let mend = |problem: Problem, fix: &str| Some(Problem { fix: Some(fix.to_owned()), ..problem });
    let mend_by_log = |problem, fix| mend(problem, fix).map(|p| Problem { logged: true, ..p });
    if visit.loops {
        return redirect_loop(seen, weight, &who, visit);
    }
    match &visit.outcome {
        Outcome::Answered(answer) => answered(weight, n, &who, visit, answer),
        Outcome::Closed if seen.named => mend_by_log(
            new(
                "online.empty",
                weight,
                &[520],
                format!("{who} ends the connection on port {n} without an answer for {host}"),
            ),
            "see in its log why: a crash, a rule that hangs up (`return 444` of nginx), a limit",
        ),
        Outcome::Closed => mend(
            new(
                "online.empty",
                Finds::Skipped,
                &[],
                format!(
                    "{who} ends the connection on port {n} without an answer, which may be meant for who names no site"
                ),
            ),
            "name the site: `edgeallow doctor shop.example`",
        ),
        Outcome::Garbled(_) => mend(
            new("online.garbled", weight, &[520], format!("what {who} answers on port {n} is no HTTP")),
            "let a web server have the port; one that speaks TLS there belongs on port 443",
        ),
        Outcome::Oversized => mend(
            new(
                "online.head-too-long",
                weight,
                &[520],
                format!("the head of the answer for {host} on port {n} is longer than 128 KB"),
            ),
            "find out which header fields grow, cookies mostly, and set fewer",
        ),
        Outcome::Stalled if door.full => Some(new(
            "online.queue-full",
            Finds::Skipped,
            &[],
            format!(
                "{who} could not be asked on port {n}: as many connections as may wait to be accepted, see Resources"
            ),
        )),
        Outcome::Stalled => mend_by_log(
            new(
                "online.stalls",
                weight,
                &[524],
                format!(
                    "{who} takes the connection on port {n} and has not answered for {host} after {} s; Cloudflare gives up \
                     after 120 s",
                    PATIENCE.as_secs()
                ),
            ),
            "find out what it waits for: a database, another server, workers that are all busy",
        ),
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
            Some(new("online.not-asked", Finds::Skipped, &[], format!("{who} could not be asked on port {n}: {why}")))
        }
    }
}

fn redirect_loop(seen: &Seen, weight: Finds, who: &str, visit: &Visit) -> Option<Problem> {
    const FIX: &str = "choose Full or Full (strict) at Cloudflare (SSL/TLS, Overview) and have a certificate here, or redirect \
                       nothing that comes with `X-Forwarded-Proto: https`";
    let host = &visit.host;
    let new = |id, verdict, text| Problem { id, verdict, errors: &[], text, fix: Some(FIX.to_owned()), logged: false };
    Some(match (visit.visitor, seen.mode) {
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
    })
}

fn answered(weight: Finds, n: u16, who: &str, visit: &Visit, answer: &Answer) -> Option<Problem> {
    const HTTPS_WANTED: [&str; 2] =
        ["plain HTTP request was sent to HTTPS port", "plain HTTP to an SSL-enabled server port"];
    let host = &visit.host;
    let new = |id, verdict, errors, text, fix: &str, logged| {
        Some(Problem { id, verdict, errors, text, fix: Some(fix.to_owned()), logged })
    };
    let body = String::from_utf8_lossy(&answer.body);
    if answer.status == 400 && HTTPS_WANTED.iter().any(|w| body.contains(w)) {
        let text = format!("{who} wants TLS on port {n}, where Cloudflare speaks plain HTTP");
        return new("online.tls-on-http-port", weight, &[], text, "serve TLS on port 443, and plain HTTP here", false);
    }
    if answer.rest == Rest::Broken {
        let text = format!("{who} ends its answer for {host} on port {n} too early");
        return new("online.cut-short", Finds::Warning, &[520], text, "see in its log why", true);
    }
    if answer.status >= 500 {
        let text = format!(
            "{who} answers {} for {host} on port {n}: the application's own error, which Cloudflare passes on",
            answer.status
        );
        return new("online.application-error", Finds::Warning, &[], text, "see in its log why", true);
    }
    if visit.slowest >= SLOW {
        let text = format!("{who} takes {} s to answer for {host} on port {n}", visit.slowest.as_secs());
        let fix = "find out what it waits for: Cloudflare gives up after 120 s";
        return new("online.slow", Finds::Warning, &[524], text, fix, true);
    }
    None
}
