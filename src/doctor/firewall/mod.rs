//! Packet filters and everything like them: is Cloudflare turned away?
//!
//! Belongs here: what `verify` says and how old the list is, as findings. Does not: how they know ([`crate::reach`]).

mod routes;
mod servers;
mod tools;

pub(super) use tools::blame_evasive;

use super::Context;
use crate::report::{CulpritReport, Finding, Finds, ReachVerdict, Room};

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
            return vec![match &e.hint {
                Some(hint) => skipped.mend(hint.clone()),
                None => skipped,
            }];
        }
    };
    let asked = reach.questions.iter().map(|q| format!("{} port {}: {}", q.to, q.port, q.verdict.as_str()));
    let asked = asked.collect::<Vec<_>>().join(", ");
    let mut found: Vec<Finding> = reach.culprits.iter().map(culprit).collect();
    for gap in &reach.gaps {
        found.push(finding("firewall.gap", Finds::Skipped, gap.clone()).seen(SOURCE, asked.clone()));
    }
    if found.is_empty() && reach.verdict == ReachVerdict::Accepted {
        let text = format!("every packet filter lets all {} ranges through", cx.edge.len());
        found.push(finding("firewall.accepts", Finds::Ok, text).seen(SOURCE, asked));
    }
    found
}

fn culprit(c: &CulpritReport) -> Finding {
    let name = c.name.as_deref().unwrap_or("something that is no rule");
    let ports: Vec<&str> = c.catches.iter().flat_map(|c| &c.ports).map(String::as_str).collect();
    let whole = c.catches.iter().any(|c| c.all);
    let ranges = c.catches.iter().flat_map(|c| &c.ranges);
    let whom = if whole {
        "all of Cloudflare".to_owned()
    } else {
        let all: Vec<&str> = ranges.map(String::as_str).collect();
        match all.as_slice() {
            [] => "parts of Cloudflare".to_owned(),
            few if few.len() <= 3 => few.join(", "),
            [first, rest @ ..] => format!("{first} and {} more ranges of Cloudflare", rest.len()),
        }
    };
    let mut ports: Vec<&str> = ports.iter().map(|p| p.trim_end_matches("/tcp")).collect();
    ports.sort_unstable();
    ports.dedup();
    let on = format!("on port{} {}", if ports.len() == 1 { "" } else { "s" }, ports.join(" and "));
    let does = match c.effect {
        "drop" => "drops",
        "reject" => "rejects",
        "rate" => "limits",
        _ => "does something that isn't understood to",
    };
    let (id, verdict) = match c.verdict {
        ReachVerdict::Refused => ("firewall.refused", Finds::Cause),
        ReachVerdict::Throttled => ("firewall.throttled", Finds::Warning),
        ReachVerdict::Unknown | ReachVerdict::Accepted => ("firewall.unknown", Finds::Skipped),
    };
    let detail = c.detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default();
    let mut found = finding(id, verdict, format!("{name} {does} {whom} {on}{detail}"));
    if let Some(error) = c.cloudflare_error {
        found = found.gives(&[error]);
    }
    if let Some(place) = &c.place {
        let source = match place.language {
            "nftables" => format!("nft list chain {} {} {}", place.family, place.table, place.chain),
            _ => format!("table {}, chain {}", place.table, place.chain),
        };
        found = found.seen(source, place.text.clone().unwrap_or_else(|| "the chain's policy".to_owned()));
    }
    match c.mend.first() {
        Some(command) => found.mend_by("let Cloudflare's ranges through", command.clone()),
        None => found,
    }
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
