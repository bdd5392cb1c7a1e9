//! What the DNS says, and what it means here.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Here, finding};
use crate::{
    doctor::nginx_listens,
    probe::dns::{Names, Says, TRIES, TRY, Told},
    report::{Finding, Finds},
};

/// Whose addresses a name has.
struct Whose {
    edge: Vec<IpAddr>,
    own: Vec<IpAddr>,
    other: Vec<IpAddr>,
}

/// What to say of these names, and whether any is proxied; `None` where that can't be told.
pub(super) fn judge(names: &[(String, Names)], here: &Here) -> (Vec<Finding>, Option<bool>) {
    let mut found = Vec::new();
    let (mut proxied, mut known) = (Vec::new(), true);
    for (name, told) in names {
        let all: BTreeSet<IpAddr> = [&told.a, &told.aaaa].iter().flat_map(|t| t.addresses()).map(|a| a.ip).collect();
        if all.is_empty() {
            known = false;
            found.push(with_evidence(nothing(name, told), name, told));
            continue;
        }
        let whose = whose(&all, here);
        if !whose.edge.is_empty() {
            proxied.push(name.as_str());
        }
        found.push(with_evidence(points_to(name, told, &whose), name, told));
        found.extend(deaf(name, told, &whose, here));
    }
    if !proxied.is_empty() {
        found.push(behind(&proxied, here));
    }
    let any = !proxied.is_empty();
    (found, (any || known).then_some(any))
}

fn whose(all: &BTreeSet<IpAddr>, here: &Here) -> Whose {
    let of = |is: &dyn Fn(IpAddr) -> bool| all.iter().copied().filter(|ip| is(*ip)).collect::<Vec<_>>();
    let (edge, own) = (|ip| here.edge.contains(ip), |ip| here.own.contains(&ip));
    Whose { edge: of(&edge), own: of(&|ip| own(ip) && !edge(ip)), other: of(&|ip| !own(ip) && !edge(ip)) }
}

/// No address at all.
fn nothing(name: &str, told: &Names) -> Finding {
    let says = |is: fn(&Says) -> bool| is(&told.a.says) || is(&told.aaaa.says);
    if says(|s| *s == Says::NoName) {
        let alias = told.a.aliases.last().or(told.aaaa.aliases.last());
        let text = match alias {
            Some(alias) => format!("the name {name} stands for {}, and there is no such name in the DNS", alias.to),
            None => format!("there is no name {name} in the DNS"),
        };
        return finding("dns.no-such-name", Finds::Cause, text).mend(
            "if it is typed right, make its record in the zone's DNS tab, and see at the registrar that the zone's name \
             servers are Cloudflare's",
        );
    }
    if says(|s| *s == Says::ServFail) {
        return finding(
            "dns.servfail",
            Finds::Warning,
            format!("the resolver finds no usable answer for {name} (SERVFAIL), and visitors' resolvers may find none either"),
        )
        .mend(
            "most often DNSSEC is broken: after a change of name servers the DS record at the registrar must be that of \
             the zone's DNS tab, or go away",
        );
    }
    if let Some(Says::Refused(why)) =
        [&told.a.says, &told.aaaa.says].into_iter().find(|s| matches!(s, Says::Refused(_)))
    {
        let text = format!("the resolver doesn't answer for {name} ({why})");
        return finding("dns.refused", Finds::Skipped, text).mend("ask another resolver: see /etc/resolv.conf");
    }
    if says(|s| *s == Says::Silent) {
        let text = format!("no resolver answered for {name} within {} seconds", (TRY * TRIES).as_secs());
        return finding("dns.silent", Finds::Skipped, text)
            .mend("see whether a firewall keeps this machine's own questions (UDP port 53) in, and /etc/resolv.conf");
    }
    finding("dns.no-address", Finds::Cause, format!("the name {name} has neither an A nor an AAAA record"))
        .mend("make one in the zone's DNS tab, with this machine's address, and proxied")
}

fn points_to(name: &str, told: &Names, whose: &Whose) -> Finding {
    let kept = kept(told);
    let all = || whose.own.iter().chain(&whose.other).chain(&whose.edge);
    if let Some(inside) = all().find(|ip| is_inside(**ip)) {
        let text = format!(
            "the resolver here says {inside} for {name}, which is nothing that visitors could use: they are told \
             something else"
        );
        return finding("dns.inside", Finds::Skipped, text)
            .mend("see /etc/hosts and the resolver's own zones, or ask from another network");
    }
    match (whose.edge.is_empty(), whose.own.is_empty(), whose.other.is_empty()) {
        (false, true, true) => finding(
            "dns.proxied",
            Finds::Ok,
            format!("the name {name} is proxied: all its addresses are Cloudflare's (resolvers keep that for {kept})"),
        ),
        (false, ..) => {
            let past = list(whose.own.iter().chain(&whose.other));
            finding(
                "dns.mixed",
                Finds::Warning,
                format!("the name {name} is proxied in part: {past} is not Cloudflare's, so some visitors don't come through it"),
            )
            .mend(format!(
                "see whether the zone lives at another DNS provider too: its name servers must be Cloudflare's alone, and \
                 each A and AAAA record proxied. Resolvers keep the old answer for {kept}"
            ))
        }
        (true, false, true) => finding(
            "dns.direct",
            Finds::Warning,
            format!(
                "the name {name} points straight here ({}): visitors don't come through Cloudflare, and a firewall that lets in \
                 Cloudflare alone turns them away",
                list(whose.own.iter())
            ),
        )
        .mend(format!("set its record to Proxied in the zone's DNS tab; resolvers keep the old answer for {kept}")),
        (true, ..) => {
            let other = list(whose.other.iter());
            finding(
                "dns.elsewhere",
                Finds::Warning,
                format!("the name {name} points to {other}, which is neither Cloudflare nor this machine"),
            )
            .mend(format!(
                "if that address leads here (NAT, a load balancer), ask again with --origin; otherwise change the record \
                 in the zone's DNS tab. Resolvers keep the old answer for {kept}"
            ))
        }
    }
}

/// A name's own IPv6 address, at which nothing listens though something does over IPv4.
fn deaf(name: &str, told: &Names, whose: &Whose, here: &Here) -> Vec<Finding> {
    let own = whose.own.iter().filter(|ip| ip.is_ipv6() && !is_inside(**ip));
    let found = own.filter_map(|ip| {
        let ports = here.deaf_ports(*ip);
        ports.first()?;
        let text = format!(
            "the AAAA record of {name}, {ip}, leads here, and nothing listens there on {}, only over IPv4: who comes over IPv6 is refused",
            on_ports(&ports)
        );
        let found = finding("dns.aaaa-without-listener", Finds::Cause, text).gives(&[521]);
        let apache: Vec<String> = ports.iter().map(|port| format!("`Listen {port}`")).collect();
        Some(with_told(found, name, "AAAA", &told.aaaa).seen(unheard(&ports), "nothing").mend(format!(
            "let the web server listen over IPv6 too (nginx: {}, Apache: {} without an address), or take the AAAA record \
             away",
            nginx_listens(&ports, false),
            apache.join(" and ")
        )))
    });
    found.collect()
}

/// What can't be seen of proxied names. That nothing listens over one family is for the room `online` to say.
fn behind(proxied: &[&str], here: &Here) -> Finding {
    let names = proxied.join(", ");
    let (inside, outside): (Vec<IpAddr>, Vec<IpAddr>) = here.origins.iter().partition(|ip| is_inside(**ip));
    let record = |ip: &IpAddr| format!("{} {ip}", if ip.is_ipv4() { "A" } else { "AAAA" });
    let must = match (outside.is_empty(), inside.is_empty()) {
        (false, _) => format!("this machine's ({})", outside.iter().map(record).collect::<Vec<_>>().join(", ")),
        (true, false) => format!("the public one that leads here (this machine knows only {})", list(inside.iter())),
        (true, true) => "this machine's".to_owned(),
    };
    let text = format!(
        "the DNS doesn't tell to which address Cloudflare connects for {names}: in the zone's DNS tab it must be {must}; \
         a wrong one gives Error 523 or 522, or another machine's site"
    );
    finding("dns.origin-hidden", Finds::Note, text)
        .seen("this machine's addresses", here.origins.iter().map(record).collect::<Vec<_>>().join(", "))
}

/// Addresses that no visitor is ever sent to (IANA's special-purpose registries: private, loopback, link-local, shared).
pub(in crate::doctor) fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn with_evidence(found: Finding, name: &str, told: &Names) -> Finding {
    let found = with_told(found, name, "A", &told.a);
    with_told(found, name, "AAAA", &told.aaaa)
}

/// What was asked of whom, and what was said; for people who would ask with dig.
fn with_told(found: Finding, name: &str, kind: &str, told: &Told) -> Finding {
    let by = told.by.map(|by| format!(" @{}", by.ip())).unwrap_or_default();
    let aliases = told.aliases.iter().map(|a| format!("CNAME {} (TTL {}), ", a.to, a.ttl)).collect::<String>();
    let says = match &told.says {
        Says::Addresses(all) => all.iter().map(|a| format!("{} (TTL {})", a.ip, a.ttl)).collect::<Vec<_>>().join(", "),
        Says::NoData => "no record".to_owned(),
        Says::NoName => "NXDOMAIN".to_owned(),
        Says::ServFail => "SERVFAIL".to_owned(),
        Says::Refused(why) => why.clone(),
        Says::Silent => "no answer".to_owned(),
    };
    found.seen(format!("dig{by} {name} {kind}"), format!("{aliases}{says}"))
}

/// For how long resolvers keep what they were told: the longest time to live of all that was seen.
fn kept(told: &Names) -> String {
    let both = [&told.a, &told.aaaa];
    let of_addresses = both.iter().flat_map(|t| t.addresses()).map(|a| a.ttl);
    let of_aliases = both.iter().flat_map(|t| &t.aliases).map(|a| a.ttl);
    let seconds = of_addresses.chain(of_aliases).max().unwrap_or_default();
    let (n, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds.div_ceil(60), "minute"),
        _ => (seconds.div_ceil(3600), "hour"),
    };
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

/// Where one would look for a listener.
fn unheard(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(|port| format!("sport = :{port}")).collect();
    format!("ss -6tlnH '{}'", ports.join(" or "))
}

fn on_ports(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    match ports.as_slice() {
        [one] => format!("port {one}"),
        many => format!("ports {}", many.join(" and ")),
    }
}

fn list<'a>(ips: impl Iterator<Item = &'a IpAddr>) -> String {
    ips.map(IpAddr::to_string).collect::<Vec<_>>().join(" and ")
}
