//! Routes that swallow a published range: what comes from there is answered to somewhere else.
//!
//! Belongs here: comparing the way back to Cloudflare with the way to everybody else. Does not: routes that lead nowhere,
//! which `verify` judges.

use std::net::IpAddr;

use ipnet::IpNet;

use super::finding;
use crate::{
    doctor::Context,
    host::Route,
    report::{Finding, Finds},
};

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    let edge: Vec<IpNet> = cx.edge.iter().collect();
    // What can't be read of these is a gap of `verify`'s.
    let mut found = dead_ends(&cx.session.host.dead_ends().unwrap_or_default(), &edge);
    found.extend(match cx.session.host.routes() {
        Ok(routes) => swallowed(&routes, &edge),
        Err(e) => {
            let text = format!("the routes could not be read: {}", e.message);
            vec![finding("firewall.routes-unseen", Finds::Skipped, text)]
        }
    });
    found
}

/// Routes that lead nowhere, over a part of Cloudflare.
fn dead_ends(routes: &[(IpNet, String)], edge: &[IpNet]) -> Vec<Finding> {
    let over = |net: &IpNet| edge.iter().find(|range| range.contains(net) || net.contains(*range));
    let each = routes.iter().filter_map(|(net, words)| {
        let range = over(net)?;
        let text = format!("{words} leads nowhere: visitors from Cloudflare's {range} get no answer");
        // "the route `blackhole 104.16.0.0/13`"
        let route = words.split('`').nth(1).unwrap_or(words);
        let family = if net.addr().is_ipv4() { "" } else { "-6 " };
        let found = finding("firewall.route", Finds::Cause, text).seen(format!("ip {family}route"), route.to_owned());
        Some(
            found
                .gives(&[522, 523])
                .mend_by("take the route away where it is made", format!("ip {family}route delete {route}")),
        )
    });
    each.collect()
}

/// Routes that are about a part of Cloudflare and leave by another interface than everything else.
fn swallowed(routes: &[Route], edge: &[IpNet]) -> Vec<Finding> {
    let usual = |v4: bool| routes.iter().find(|r| r.to.prefix_len() == 0 && r.to.addr().is_ipv4() == v4);
    let mut found = Vec::new();
    for route in routes.iter().filter(|r| r.to.prefix_len() > 0) {
        let touches = |range: &&IpNet| range.contains(&route.to) || route.to.contains(*range);
        let Some(range) = edge.iter().find(touches) else { continue };
        let v4 = route.to.addr().is_ipv4();
        // Without a way for everybody else there is none to differ from; another router on the same wire is as good.
        let Some(usual) = usual(v4).filter(|usual| usual.interface != route.interface) else { continue };
        let by = |r: &Route| match r.gateway {
            Some(gateway) => format!("by {gateway} on {}", r.interface),
            None => format!("on {}", r.interface),
        };
        let text = format!(
            "answers to Cloudflare's {range} leave {}, and those to everybody else {}: visitors from there get none",
            by(route),
            by(usual)
        );
        found.push(
            finding("firewall.route", Finds::Cause, text)
                .seen(if v4 { "ip route" } else { "ip -6 route" }, shown(route))
                .gives(&[522, 523])
                .mend_by(
                    "take the route away where it is made (a VPN, a static route), or make it narrower; until it is made again, this \
                     takes it away",
                    format!("ip {}route delete {}", if v4 { "" } else { "-6 " }, shown(route)),
                ),
        );
    }
    found
}

/// As `ip route` prints it.
fn shown(route: &Route) -> String {
    let via = route.gateway.map(|g: IpAddr| format!(" via {g}")).unwrap_or_default();
    format!("{}{via} dev {}", route.to, route.interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, gateway: Option<&str>, interface: &str) -> Route {
        Route { to: to.parse().unwrap(), gateway: gateway.map(|g| g.parse().unwrap()), interface: interface.to_owned() }
    }

    #[test]
    fn a_route_that_leads_nowhere_is_taken_away_by_its_own_words() {
        let edge = ["104.16.0.0/13".parse().unwrap()];
        let route = |to: &str| vec![(to.parse().unwrap(), format!("the route `blackhole {to}`"))];
        let found = dead_ends(&route("104.16.0.0/12"), &edge);
        assert_eq!(found[0].fix.as_ref().unwrap().command.as_deref(), Some("ip route delete blackhole 104.16.0.0/12"));
        assert!(dead_ends(&route("10.0.0.0/8"), &edge).is_empty());
    }

    #[test]
    fn a_route_of_ones_own_for_a_part_of_cloudflare_swallows_it() {
        let edge = ["104.16.0.0/13".parse().unwrap(), "2400:cb00::/32".parse().unwrap()];
        let usual = [route("0.0.0.0/0", Some("192.0.2.2"), "eth0"), route("192.0.2.0/24", None, "eth0")];
        let with = |more: Route| swallowed(&[&usual[..], &[more]].concat(), &edge);
        assert!(swallowed(&usual, &edge).is_empty());
        assert!(with(route("104.16.0.0/13", Some("192.0.2.2"), "eth0")).is_empty(), "the same way as everybody's");
        assert!(swallowed(&[route("104.16.0.0/13", None, "eth0")], &edge).is_empty(), "there is no other way");
        assert!(with(route("10.0.0.0/8", None, "tun0")).is_empty());
        for to in ["104.16.0.0/12", "104.17.0.0/16"] {
            let found = with(route(to, Some("10.8.0.1"), "tun0"));
            assert_eq!(found.len(), 1);
            let command = found[0].fix.as_ref().unwrap().command.as_deref().unwrap();
            assert_eq!(command, format!("ip route delete {to} via 10.8.0.1 dev tun0"));
        }
    }
}
