//! Packet filters and everything like them: is Cloudflare turned away?
//!
//! Belongs here: what `verify` says and how old the list is, as findings. Does not: how they know ([`crate::reach`]).

mod routes;
mod servers;
mod tools;

use std::collections::BTreeSet;

pub(super) use tools::blame_evasive;

use super::{Context, Mode};
use crate::report::{CaughtReport, CulpritReport, Finding, Finds, ReachReport, ReachVerdict, Room};

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    let mut found = reach(cx);
    found.extend(routes::look(cx));
    found.extend(tools::look(cx));
    found.extend(servers::look(cx));
    found.extend(list(cx));
    found
}

fn finding(id: &'static str, verdict: Finds, text: impl Into<String>) -> Finding {
    Finding::new(Room::Firewall, id, verdict, text)
}

/// The verdict of `verify`, one finding a culprit.
fn reach(cx: &Context<'_>) -> Vec<Finding> {
    const SOURCE: &str = "edgeallow verify";
    let reach = match &cx.reach {
        Ok(reach) => reach,
        Err(e) => {
            let text = format!("whether Cloudflare gets through the packet filters can't be told: {}", e.message);
            let skipped = finding("firewall.unseen", Finds::Skipped, text);
            return vec![skipped.mend_if(e.hint.clone())];
        }
    };
    let asked = reach.questions.iter().map(|q| format!("{} port {}: {}", q.to, q.port, q.verdict.as_str()));
    let asked = asked.collect::<Vec<_>>().join(", ");
    let mut found: Vec<Finding> = reach.culprits.iter().map(|c| culprit(c, matters(cx, reach, c))).collect();
    // What a gap makes unknown has been said of it as a culprit.
    let said = |gap: &&String| reach.culprits.iter().any(|c| c.detail.as_ref() == Some(*gap));
    for gap in reach.gaps.iter().filter(|gap| !said(gap)) {
        found.push(finding("firewall.gap", Finds::Skipped, gap.clone()).seen(SOURCE, asked.clone()));
    }
    if found.is_empty() && reach.verdict == ReachVerdict::Accepted {
        let text = format!("every packet filter lets all {} ranges through", cx.edge.len());
        found.push(finding("firewall.accepts", Finds::Ok, text).seen(SOURCE, asked));
    }
    found
}

/// How much it matters that this culprit refuses what it catches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Matters {
    /// Visitors come there.
    Much,
    /// They may come there, or not: another address or scheme of the site is open. At these addresses it is caught.
    Perhaps(BTreeSet<String>),
    /// Nobody comes there: nothing listens.
    Not,
}

fn matters(cx: &Context<'_>, reach: &ReachReport, c: &CulpritReport) -> Matters {
    use std::net::IpAddr;
    const HTTP: u16 = 80;
    const HTTPS: u16 = 443;
    let serves = |ip: IpAddr, port: u16| !cx.listening(ip, port).is_empty();
    let caught: Vec<(IpAddr, u16)> = c
        .catches
        .iter()
        .flat_map(|caught| {
            let ports = caught.ports.iter().filter_map(|p| p.trim_end_matches("/tcp").parse::<u16>().ok());
            let ports: Vec<u16> = ports.collect();
            caught
                .to
                .iter()
                .filter_map(|to| to.parse().ok())
                .flat_map(move |to| ports.clone().into_iter().map(move |p| (to, p)))
        })
        .collect();
    // A forwarded port is served by somebody else than this host. And where nothing listens at all, that is its own finding.
    let is_forwarded = c.place.as_ref().is_some_and(|p| p.hook == "forward" || p.hook == "postrouting");
    let any = cx.origins.iter().any(|ip| cx.ports.iter().any(|port| serves(*ip, *port)));
    if is_forwarded || !any || caught.is_empty() {
        return Matters::Much;
    }
    let relevant: Vec<(IpAddr, u16)> = caught.into_iter().filter(|(ip, port)| serves(*ip, *port)).collect();
    if relevant.is_empty() {
        return Matters::Not;
    }
    let is_open = |ip: IpAddr, port: u16| {
        let to = ip.to_string();
        let is =
            |q: &crate::report::QuestionReport| q.to == to && q.port == port && q.verdict <= ReachVerdict::Throttled;
        serves(ip, port) && reach.questions.iter().any(is)
    };
    let elsewhere = |(ip, port): &(IpAddr, u16)| {
        let another = |other: &IpAddr| *other != *ip && other.is_ipv4() == ip.is_ipv4() && is_open(*other, *port);
        let over_tls = *port == HTTP && cx.ask.mode != Mode::Flexible && is_open(*ip, HTTPS);
        over_tls || cx.origins.iter().any(another)
    };
    if relevant.iter().all(elsewhere) {
        return Matters::Perhaps(relevant.iter().map(|(ip, _)| ip.to_string()).collect());
    }
    Matters::Much
}

fn culprit(c: &CulpritReport, matters: Matters) -> Finding {
    let name = c.name.as_deref().unwrap_or("something that is no rule");
    let whom = whom(&c.catches);
    let mut ports: Vec<&str> =
        c.catches.iter().flat_map(|c| &c.ports).map(|port| port.trim_end_matches("/tcp")).collect();
    ports.sort_unstable_by_key(|port| (port.parse::<u16>().ok(), *port));
    ports.dedup();
    let on = format!("on port{} {}", if ports.len() == 1 { "" } else { "s" }, ports.join(" and "));
    let does = match c.effect {
        "drop" => "drop",
        "reject" => "reject",
        "rate" => "limit",
        _ => "do something that isn't understood to",
    };
    // `ufw drops`, `the administrator's own nftables rules drop`
    let does = match (does, name.contains(" rules")) {
        (does, true) => does.to_owned(),
        (does, false) => does.split_once(' ').map_or_else(|| format!("{does}s"), |(_, rest)| format!("does {rest}")),
    };
    let (id, verdict) = match c.verdict {
        ReachVerdict::Refused => ("firewall.refused", Finds::Cause),
        ReachVerdict::Throttled => ("firewall.throttled", Finds::Warning),
        ReachVerdict::Unknown | ReachVerdict::Accepted => ("firewall.unknown", Finds::Skipped),
    };
    let detail = match &c.detail {
        Some(with) if c.effect == "reject" => format!(" with {with}"),
        Some(detail) => format!(" ({detail})"),
        None => String::new(),
    };
    let text = match (&c.detail, &c.name) {
        // Not a rule, but a gap in what can be read.
        (Some(why), None) if verdict == Finds::Skipped => {
            format!("whether {whom} gets through {on} can't be told: {why}")
        }
        _ => format!("{name} {does} {whom} {on}{detail}"),
    };
    let (verdict, text) = match matters {
        Matters::Not if verdict >= Finds::Warning => (Finds::Note, format!("{text}, where nothing listens")),
        Matters::Perhaps(at) if verdict == Finds::Cause => {
            let at: Vec<String> = at.into_iter().collect();
            (Finds::Warning, format!("{text} of {}; it is open elsewhere", at.join(" and ")))
        }
        _ => (verdict, text),
    };
    let mut found = finding(id, verdict, text);
    if let Some(error) = c.cloudflare_error {
        found = found.gives(&[error]);
    }
    if let Some(place) = &c.place {
        let source = match place.language {
            "nftables" => format!("nft list chain {} {} {}", place.family, place.table, place.chain),
            language => {
                let program = match place.family.as_str() {
                    "ip6" => language.replacen("iptables", "ip6tables", 1),
                    _ => language.to_owned(),
                };
                format!("{program} -t {} -S {}", place.table, place.chain)
            }
        };
        found = found.seen(source, place.text.clone().unwrap_or_else(|| format!("policy {}", c.effect)));
    }
    match c.mend.first() {
        Some(command) if command.contains(" unbanip ") || command.contains("decisions delete") => {
            found.mend_by("lift the ban; `edgeallow sync` also keeps it from coming back", command.clone())
        }
        Some(command) => found.mend_by("let Cloudflare's ranges through", command.clone()),
        None => found,
    }
}

/// Whom a rule catches: `all of Cloudflare`, `173.245.48.0/20 and 13 more ranges of Cloudflare`.
fn whom<'a>(catches: &'a [CaughtReport]) -> String {
    if !catches.is_empty() && catches.iter().all(|c| c.all) {
        return "all of Cloudflare".to_owned();
    }
    // What is asked about an address are the ranges of its family.
    let whole = |v6: bool| catches.iter().any(|c| c.all && c.to.iter().any(|to| to.contains(':') == v6));
    let one = |range: &'a str| range.strip_suffix("/32").or_else(|| range.strip_suffix("/128")).unwrap_or(range);
    let ranges: BTreeSet<&str> = catches.iter().flat_map(|c| &c.ranges).map(|range| one(range)).collect();
    let mut whom: Vec<String> = Vec::new();
    for (v6, family) in [(false, "IPv4"), (true, "IPv6")] {
        let mut some = ranges.iter().filter(|range| range.contains(':') == v6);
        match (whole(v6), some.next(), some.count()) {
            (true, ..) => whom.push(format!("all of Cloudflare's {family} ranges")),
            (false, None, _) => {}
            (false, Some(one), 0) => whom.push(format!("Cloudflare's {one}")),
            (false, Some(one), 1) => whom.push(format!("Cloudflare's {one} and one more range")),
            (false, Some(one), more) => whom.push(format!("Cloudflare's {one} and {more} more ranges")),
        }
    }
    if whom.is_empty() { "parts of Cloudflare".to_owned() } else { whom.join(" and ") }
}

/// How old the list is.
fn list(cx: &Context<'_>) -> Option<Finding> {
    /// Cloudflare publishes a range weeks before it is used (CLOUDFLARE.md).
    const OLD_DAYS: i64 = 30;
    let source = cx.source.as_ref()?;
    let at = source.fetched_at?;
    let days = cx.session.now.duration_since(at).as_hours() / 24;
    let shows = format!("{} IPv4 and {} IPv6 prefixes of {at}, {}", source.v4, source.v6, source.origin);
    Some(if days > OLD_DAYS {
        finding("firewall.list-old", Finds::Warning, format!("the list of Cloudflare's ranges is {days} days old"))
            .seen("edgeallow status", shows)
            .mend_by("fetch it anew; a weekly run keeps it fresh", "edgeallow sync")
    } else {
        finding("firewall.list", Finds::Ok, "the list of Cloudflare's ranges is recent").seen("edgeallow status", shows)
    })
}
