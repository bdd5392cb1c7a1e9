//! Packet filters and everything like them: is Cloudflare turned away?
//!
//! Belongs here: what `verify` says as a whole and how old the list is, as findings. Does not: what refuses (`culprits`),
//! how that is known ([`crate::reach`]).

mod culprits;
mod routes;
mod servers;
mod tools;

pub(super) use tools::blame_evasive;

use super::Context;
use crate::report::{Finding, Finds, ReachVerdict, Room};

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

/// The verdict of `verify`.
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
    let mut found = culprits::judge(cx, reach);
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
