//! Routing: do answers to Cloudflare leave, and by the interface that visitors come in by?
//!
//! The kernel is asked, as `ip route get RANGE from ADDRESS` does, so that policy rules and all tables count. What several
//! uplinks make of that is most often well: only what can't be is called a cause.
//!
//! Belongs here: judging the kernel's answers, and naming the route or rule behind them. Does not: how it is asked
//! ([`crate::host`]).

use std::net::IpAddr;

use ipnet::IpNet;

use super::finding;
use crate::{
    doctor::Context,
    engine::verify::is_private,
    error::Result,
    host::{Link, RefusingRule, Route, Way},
    report::{Finding, Finds},
};

/// Narrower routes inside the ranges that are asked about one by one: a host with all routes of the Internet has many.
const MOST_PARTS: usize = 100;

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    let edge: Vec<IpNet> = cx.edge.iter().collect();
    match listed(cx).and_then(|lists| Ok((ask(cx, &edge, &lists)?, lists))) {
        Ok((asked, lists)) => [false, true].into_iter().flat_map(|v6| judge(&asked, v6, &lists)).collect(),
        Err(e) => {
            let text = format!("the routes could not be read: {}", e.message);
            vec![finding("firewall.routes-unseen", Finds::Skipped, text)]
        }
    }
}

/// What the machine lists, which tells what is behind the kernel's answers.
#[derive(Debug, Default)]
struct Lists {
    links: Vec<Link>,
    routes: Vec<Route>,
    dead_ends: Vec<(IpNet, String)>,
    rules: Vec<RefusingRule>,
}

fn listed(cx: &Context<'_>) -> Result<Lists> {
    let host = cx.session.host;
    // What can't be read of dead ends is a gap of `verify`'s, and rules only make the words better.
    Ok(Lists {
        links: cx.links.clone(),
        routes: host.routes()?,
        dead_ends: host.dead_ends().unwrap_or_default(),
        rules: host.refusing_rules().unwrap_or_default(),
    })
}

/// A question to the kernel, and its answer.
#[derive(Debug, Clone)]
struct Asked {
    /// Of this host.
    from: IpAddr,
    /// The interface that has it.
    at: String,
    /// Whether it is alone there (`/32`, and no router), so that it says nothing of where packets for it come in.
    alone: bool,
    /// Cloudflare's.
    range: IpNet,
    /// An address in it.
    to: IpAddr,
    /// How answers leave, if at all.
    way: Option<Way>,
    /// What address the host would choose for a connection there of its own.
    chosen: Option<IpAddr>,
}

impl Asked {
    /// Whether answers leave by the interface that has the address, or where that says nothing.
    fn returns(&self) -> bool {
        let own = self.chosen == Some(self.from) || self.alone;
        self.way.as_ref().is_some_and(|way| own || way.interface == self.at || self.at == "lo")
    }
}

fn ask(cx: &Context<'_>, edge: &[IpNet], lists: &Lists) -> Result<Vec<Asked>> {
    let host = cx.session.host;
    let mut asked = Vec::new();
    let own = lists.links.iter().filter(|l| !l.in_vrf).flat_map(|l| l.addresses.iter().map(move |a| (l, a)));
    // The routes to another machine's visitors are its own affair.
    let is_meant = |ip: IpAddr| cx.ask.origin.is_none_or(|origin| origin == ip);
    for (link, address) in own.filter(|(_, a)| a.global && !a.ip.is_loopback() && is_meant(a.ip)) {
        let v4 = address.ip.is_ipv4();
        let has_router =
            lists.routes.iter().any(|r| r.interface == link.name && r.gateway.is_some_and(|g| g.is_ipv4() == v4));
        for (range, to) in targets(edge, lists, v4) {
            let way = host.route(Some(address.ip), to)?;
            let elsewhere = way.as_ref().filter(|way| way.interface != link.name);
            let chosen = match elsewhere {
                Some(_) => host.route(None, to)?.filter(|own| Some(&own.interface) == elsewhere.map(|w| &w.interface)),
                None => None,
            };
            asked.push(Asked {
                from: address.ip,
                at: link.name.clone(),
                alone: address.prefix == if v4 { 32 } else { 128 } && !has_router,
                range,
                to,
                way,
                chosen: chosen.and_then(|own| own.source),
            });
        }
    }
    Ok(asked)
}

/// An address of each range of a family, and of each listed route that is about a part of one.
fn targets(edge: &[IpNet], lists: &Lists, v4: bool) -> Vec<(IpNet, IpAddr)> {
    let edge = || edge.iter().filter(|range| range.addr().is_ipv4() == v4);
    let usual = lists.routes.iter().find(|r| r.to.prefix_len() == 0 && r.to.addr().is_ipv4() == v4);
    let others = lists.routes.iter().filter(|r| usual.is_none_or(|usual| usual.interface != r.interface));
    let narrow = lists.dead_ends.iter().map(|(net, _)| net).chain(others.map(|r| &r.to));
    let refused = lists.rules.iter().map(|rule| &rule.to);
    let within = |net: &IpNet| edge().find(|range| range.contains(net) && *range != net).map(|r| (*r, net.network()));
    let parts = narrow.chain(refused).filter_map(within).take(MOST_PARTS);
    edge().map(|range| (*range, range.network())).chain(parts).collect()
}

fn judge(asked: &[Asked], v6: bool, lists: &Lists) -> Vec<Finding> {
    let of = |v6: bool| asked.iter().filter(move |a| a.from.is_ipv6() == v6);
    // Visitors come to a public address where there is one.
    let has_public = of(v6).any(|a| !is_private(a.from));
    let serving: Vec<&Asked> = of(v6).filter(|a| !has_public || !is_private(a.from)).collect();
    let score = |ip: IpAddr| {
        let its = || serving.iter().filter(move |a| a.from == ip);
        (its().filter(|a| a.returns()).count(), its().filter(|a| a.way.is_some()).count())
    };
    let mut best: Option<(IpAddr, (usize, usize))> = None;
    for ip in serving.iter().map(|a| a.from) {
        if best.is_none_or(|(known, most)| known != ip && score(ip) > most) {
            best = Some((ip, score(ip)));
        }
    }
    // One address that all can be answered from is enough to be reached at.
    let Some((best, (well, _))) = best else { return Vec::new() };
    let its: Vec<&Asked> = serving.iter().copied().filter(|a| a.from == best).collect();
    let (dead, alive): (Vec<&Asked>, Vec<&Asked>) = its.into_iter().partition(|a| a.way.is_none());
    let astray: Vec<&Asked> = alive.iter().copied().filter(|a| !a.returns()).collect();
    // A route to a few addresses, a monitor's for one, is no way to the others.
    let dead_ranges: Vec<&Asked> = dead.iter().copied().filter(|a| a.to == a.range.network()).collect();
    if !alive.iter().any(|a| a.to == a.range.network()) {
        let other_family = of(!v6).any(|a| a.way.is_some() && !is_private(a.from));
        return nowhere(&dead_ranges, has_public, other_family, lists).into_iter().collect();
    }
    let mut found = refused(&dead, lists);
    if well > 0 {
        found.extend(swallowed(&astray, has_public, lists));
        found.extend(behind_a_tunnel(&serving, best, has_public, lists));
    } else {
        found.extend(elsewhere(&astray, has_public, lists));
    }
    found
}

fn ip_of(to: IpAddr) -> &'static str {
    if to.is_ipv4() { "ip" } else { "ip -6" }
}

/// What shows the same.
fn get(a: &Asked) -> String {
    format!("{} route get {} from {}", ip_of(a.to), a.to, a.from)
}

fn shown_way(a: &Asked) -> String {
    a.way.as_ref().map_or_else(|| "unreachable".to_owned(), |way| format!("dev {}", way.interface))
}

/// No range of a family can be answered.
fn nowhere(dead: &[&Asked], has_public: bool, other_family: bool, lists: &Lists) -> Option<Finding> {
    let first = dead.first()?;
    let v4 = first.to.is_ipv4();
    if !has_public && (other_family || !v4) {
        // A network of its own, which nobody comes from outside to.
        return None;
    }
    let by_rules = refused(dead, lists);
    if let Some(rule) = by_rules.into_iter().find(|_| dead.iter().all(|a| behind(a, lists).is_some())) {
        return Some(rule);
    }
    let family = if v4 { "IPv4" } else { "IPv6" };
    let verdict = if has_public && (v4 || !other_family) { Finds::Cause } else { Finds::Warning };
    let text = format!(
        "this host has no route to any of Cloudflare's {family} ranges: whoever connects to {} gets no answer",
        first.from
    );
    let ip = ip_of(first.to);
    Some(finding("firewall.route", verdict, text).seen(get(first), shown_way(first)).gives(&[522, 523]).mend_by(
        "give it its default route again, by the router's address, where its network is set up; this shows the routes \
             there are",
        format!("{ip} route show table all"),
    ))
}

/// The route or rule that refuses, and what takes it away.
fn behind(a: &Asked, lists: &Lists) -> Option<(String, String)> {
    let ip = ip_of(a.to);
    let rule = lists.rules.iter().find(|rule| rule.to.contains(&a.to) && rule.from.contains(&a.from));
    if let Some(RefusingRule { words, .. }) = rule {
        return Some((format!("the routing rule `{words}`"), format!("{ip} rule delete {words}")));
    }
    // The narrowest one counts.
    let routes = lists.dead_ends.iter().filter(|(net, _)| net.contains(&a.to));
    let (_, words) = routes.max_by_key(|(net, _)| net.prefix_len())?;
    // "the route `blackhole 104.16.0.0/13`"
    let route = words.split('`').nth(1).unwrap_or(words);
    Some((words.clone(), format!("{ip} route delete {route}")))
}

/// Answers that are refused, one finding for each route or rule.
fn refused(dead: &[&Asked], lists: &Lists) -> Vec<Finding> {
    let mut known: Vec<Option<(String, String)>> = Vec::new();
    let mut found = Vec::new();
    for a in dead {
        let behind = behind(a, lists);
        if known.contains(&behind) {
            continue;
        }
        let (range, ip) = (a.range, ip_of(a.to));
        found.push(match &behind {
            Some((what, command)) => {
                let what_shows = if command.contains(" rule ") { "rule" } else { "route" };
                let text = format!("{what} leads nowhere: visitors from Cloudflare's {range} get no answer");
                finding("firewall.route", Finds::Cause, text)
                    .seen(format!("{ip} {what_shows}"), what.split('`').nth(1).unwrap_or(what))
                    .seen(get(a), shown_way(a))
                    .gives(&[522, 523])
                    .mend_by(format!("take the {what_shows} away where it is made"), command.clone())
            }
            None => {
                let text = format!("there is no route to Cloudflare's {range}: visitors from there get no answer");
                finding("firewall.route", Finds::Cause, text).seen(get(a), shown_way(a)).gives(&[522, 523]).mend_by(
                    "find the rule or the table of routes that has none, and mend it where it is made",
                    format!("{ip} rule && {ip} route show table all"),
                )
            }
        });
        known.push(behind);
    }
    found
}

/// Whether an interface has a public address of the same family, so that it may be an uplink.
fn is_uplink(interface: &str, like: IpAddr, lists: &Lists) -> bool {
    let link = lists.links.iter().find(|l| l.name == interface);
    let public = |ip: IpAddr| ip.is_ipv4() == like.is_ipv4() && !is_private(ip);
    link.is_some_and(|l| l.addresses.iter().any(|a| a.global && public(a.ip)))
}

/// Answers to some ranges leave by another interface than those to the rest.
fn swallowed(astray: &[&Asked], has_public: bool, lists: &Lists) -> Vec<Finding> {
    let mut known: Vec<(String, Option<&Route>)> = Vec::new();
    let mut found = Vec::new();
    for a in astray {
        let Some(Way { interface, .. }) = &a.way else { continue };
        let its = |r: &&Route| r.to.prefix_len() > 0 && r.to.contains(&a.to) && r.interface == *interface;
        let route = lists.routes.iter().filter(its).max_by_key(|r| r.to.prefix_len());
        let one = (interface.clone(), route);
        if known.contains(&one) {
            continue;
        }
        known.push(one);
        if has_public && is_uplink(interface, a.to, lists) {
            found.push(may_arrive(a, interface, &format!("Cloudflare's {}", a.range)));
            continue;
        }
        let ip = ip_of(a.to);
        let by = match route.and_then(|r| r.gateway) {
            Some(gateway) => format!("by {gateway} on {interface}"),
            None => format!("on {interface}"),
        };
        let text = format!(
            "answers to Cloudflare's {} leave {by}, and those to its other ranges on {}: visitors from there get none",
            a.range, a.at
        );
        let cause = finding("firewall.route", Finds::Cause, text).gives(&[522, 523]);
        found.push(match route {
            Some(route) => cause.seen(format!("{ip} route"), shown(route)).seen(get(a), shown_way(a)).mend_by(
                "take the route away where it is made (a VPN, a static route), or make it narrower; until it is made again, this \
                 takes it away",
                format!("{ip} route delete {}", shown(route)),
            ),
            None => cause.seen(get(a), shown_way(a)).mend_by(
                "find the rule that chooses another table of routes for it, and mend it where it is made",
                format!("{ip} rule && {ip} route show table all"),
            ),
        });
    }
    found
}

/// All answers leave by another interface.
fn elsewhere(astray: &[&Asked], has_public: bool, lists: &Lists) -> Option<Finding> {
    let a = astray.first()?;
    let Way { interface, .. } = a.way.as_ref()?;
    let is_tunnel = lists.links.iter().any(|l| l.name == *interface && l.tunnel);
    if !has_public || !is_tunnel || is_uplink(interface, a.to, lists) {
        return Some(may_arrive(a, interface, "Cloudflare"));
    }
    let text = format!(
        "answers from {} leave by the tunnel {interface}, and not by {}, which has that address: as a rule they don't arrive \
         with it",
        a.from, a.at
    );
    let ip = ip_of(a.to);
    let fix = "keep the web server's answers out of the tunnel: give that address its own table of routes (`ip rule add from \
               ADDRESS table 100`, with a default route by the router in it), or let the VPN take less than everything";
    Some(
        finding("firewall.route-tunnel", Finds::Warning, text)
            .seen(get(a), shown_way(a))
            .gives(&[522])
            .mend_by(fix, format!("{ip} rule && {ip} route show table all")),
    )
}

/// Of private addresses it is the tunnel's that is answered from: which one visitors are sent to can't be seen.
fn behind_a_tunnel(serving: &[&Asked], best: IpAddr, has_public: bool, lists: &Lists) -> Option<Finding> {
    let tunnel = lists.links.iter().find(|l| l.tunnel && l.addresses.iter().any(|a| a.ip == best))?;
    let leaves = |a: &&&Asked| a.from != best && a.way.as_ref().is_some_and(|way| way.interface == tunnel.name);
    let other = serving.iter().find(leaves).filter(|_| !has_public)?;
    Some(may_arrive(other, &tunnel.name, "Cloudflare"))
}

fn may_arrive(a: &Asked, interface: &str, whom: &str) -> Finding {
    let text = format!(
        "whether answers from {} arrive at {whom} can't be told: they leave by {interface}, and {} has that address",
        a.from, a.at
    );
    finding("firewall.route-elsewhere", Finds::Skipped, text).seen(get(a), shown_way(a))
}

/// As `ip route` prints it.
fn shown(route: &Route) -> String {
    let via = route.gateway.map(|g: IpAddr| format!(" via {g}")).unwrap_or_default();
    format!("{}{via} dev {}", route.to, route.interface)
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
