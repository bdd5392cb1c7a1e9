//! One longer wait for a page that wasn't answered: a slow one is none that Cloudflare gives up on.
//!
//! Cloudflare waits 120 s, an operator doesn't want to. So where nothing else says why a page wasn't answered, it is
//! asked for once more, and waited for three times as long, and beside it another path. A server that answers neither is
//! taken to answer nothing.
//!
//! Belongs here: that. Does not: what it means (`answers`).

use std::{collections::BTreeMap, time::Duration};

use reqwest::Url;
use tokio::{join, task::JoinSet};

use super::{
    answers::weight,
    gather::Seen,
    visit::{Visit, Visitor},
};
use crate::{
    error::Result,
    probe::{
        http::{Outcome, Scheme},
        wait,
    },
};

/// How long a page is waited for then. Nothing is proved by it about the rest of Cloudflare's time.
pub(super) const LONGER: Duration = Duration::from_secs(30);
/// What is asked for beside the page: nothing that is there, so that a server need not work for it.
pub(super) const ELSEWHERE: &str = "/edgeallow-doctor";
/// For how many sites that is done.
const SITES: usize = 4;

/// Asks once more for each site that wasn't answered, at one of its doors.
///
/// # Errors
/// `internal` if the kernel gives no means to wait.
pub(super) fn ask_again(seen: &mut Seen) -> Result<()> {
    let mut lanes: BTreeMap<String, (u16, Visitor)> = BTreeMap::new();
    for port in &seen.ports {
        let here = port.doors.iter().filter(|d| !d.full).flat_map(|d| &d.visits).filter(|v| v.stalls());
        for visit in here {
            let better = |(number, _): &(u16, _)| weight(seen, port.number) > weight(seen, *number);
            let site = site(seen.named, visit);
            if lanes.get(&site).is_none_or(better) {
                lanes.extend(visitor(visit).map(|visitor| (site, (port.number, visitor))));
            }
        }
    }
    let mut asking = JoinSet::new();
    let answers = wait(async {
        for (site, (_, visitor)) in lanes.into_iter().take(SITES) {
            asking.spawn(async move { (site, answers(visitor).await) });
        }
        asking.join_all().await
    })?;
    let named = seen.named;
    for visit in seen.ports.iter_mut().flat_map(|p| &mut p.doors).flat_map(|d| &mut d.visits).filter(|v| v.stalls()) {
        let site = site(named, visit);
        let Some((page, other)) = answers.iter().find(|(of, _)| *of == site).and_then(|(_, found)| found.clone())
        else {
            continue;
        };
        visit.slowest = page.slowest;
        visit.outcome = page.outcome;
        visit.other = Some(other);
    }
    Ok(())
}

/// What the waits are told apart by: without a name, all doors are of one site.
fn site(named: bool, visit: &Visit) -> String {
    if named { visit.host.clone() } else { String::new() }
}

/// Who asks for what the visit ended with, and follows no redirect from there.
fn visitor(visit: &Visit) -> Option<Visitor> {
    let url = Url::parse(visit.trail.last()?).ok()?;
    Some(Visitor {
        door: visit.door,
        host: url.host_str()?.to_owned(),
        scheme: if url.scheme() == "https" { Scheme::Https } else { Scheme::Http },
        sites: Vec::new(),
        tls: visit.tls,
        plain: false,
        pause: Duration::ZERO,
        path: url.path().to_owned(),
        patience: LONGER,
    })
}

/// What came of the page, and of the other path. Nothing where it is the handshake that fails.
async fn answers(visitor: Visitor) -> Option<(Visit, Outcome)> {
    let other = Visitor { path: ELSEWHERE.to_owned(), ..visitor.clone() };
    let (page, other) = join!(visitor.visit(), other.visit());
    Some((page?, other?.outcome))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn visit(trail: &[&str], tls: bool) -> Visit {
        Visit {
            door: SocketAddr::from(([192, 0, 2, 1], if tls { 443 } else { 80 })),
            host: "shop.example".into(),
            visitor: Scheme::Https,
            tls,
            mute: false,
            trail: trail.iter().map(|&url| url.to_owned()).collect(),
            outcome: Outcome::Stalled,
            loops: false,
            slowest: Duration::ZERO,
            other: None,
        }
    }

    #[test]
    fn it_is_asked_for_what_was_not_answered() {
        let of = |trail: &[&str]| visitor(&visit(trail, true)).map(|v| (v.host, v.path, v.scheme));
        let first = of(&["https://shop.example/"]).unwrap();
        assert_eq!(first, ("shop.example".into(), "/".into(), Scheme::Https));
        let second = of(&["https://shop.example/", "https://www.shop.example/de/"]).unwrap();
        assert_eq!(second, ("www.shop.example".into(), "/de/".into(), Scheme::Https));
        assert_eq!(of(&["http://[2001:db8::1]/"]).unwrap().0, "[2001:db8::1]");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn without_a_name_all_doors_are_of_one_site() {
        let one = visit(&[], true);
        let other = Visit { host: "www.shop.example".into(), ..one.clone() };
        assert_ne!(site(true, &one), site(true, &other));
        assert_eq!(site(false, &one), site(false, &other));
    }
}
