//! Web servers that turn Cloudflare away themselves: lists of addresses, conditions on them, limits per address.
//!
//! Where a module puts the visitor's address in place of Cloudflare's (nginx's realip, mod_remoteip), lists and limits are
//! about visitors, and are none of this room's business.
//!
//! Belongs here: what lists, conditions and limits come to, in words. Does not: reading directives
//! ([`crate::doctor::directives`]), what they let in (`nginx`, `apache`, `access`, `conditions`); mod_evasive, which is a
//! backend.

mod access;
mod apache;
mod conditions;
#[cfg(test)]
mod conditions_tests;
mod nginx;

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use self::{
    access::{Asked, FORBIDDEN, Mend, Site, Turned, asked},
    apache::Apache,
    conditions::Refusal,
};
use super::finding;
use crate::{
    allowlist::{Prefixes, short},
    doctor::{Context, Mode, directives::Said},
    report::{Finding, Finds},
};

/// Apache's directives that limit what one address may do: mod_qos, mod_antiloris, mod_limitipconn.
const APACHE_LIMITS: [&str; 5] =
    ["QS_SrvMaxConnPerIP", "QS_ClientEventPerSecLimit", "IPReadLimit", "IPTotalLimit", "MaxConnPerIP"];
/// The status with which nginx closes a connection without an answer.
const NO_ANSWER: u16 = 444;
/// How many ranges are named in a sentence.
const NAMED: usize = 3;

/// A web server.
struct Server {
    name: &'static str,
    /// What its processes' names begin with.
    programs: [&'static str; 2],
    /// The finding.
    denies: &'static str,
    /// How one has a changed configuration read.
    reload: &'static str,
}

const NGINX: Server = Server {
    name: "nginx",
    programs: ["nginx", "openresty"],
    denies: "firewall.nginx-denies",
    reload: "`nginx -t` and `systemctl reload nginx`",
};
const APACHE: Server = Server {
    name: "Apache",
    programs: ["apache", "httpd"],
    denies: "firewall.apache-denies",
    reload: "`apachectl -t` and `systemctl reload apache2`",
};

/// What is asked about.
struct Asking<'a> {
    edge: &'a Prefixes,
    /// This machine's own addresses.
    own: &'a [IpAddr],
    /// Addresses and ports at which the server listens.
    doors: &'a [(IpAddr, u16)],
    hosts: &'a [String],
    mode: Mode,
}

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    let edge = cx.edge.minus(&cx.session.config.extra);
    let own: Vec<IpAddr> =
        cx.links.iter().flat_map(|l| &l.addresses).filter(|a| a.global && !a.ip.is_loopback()).map(|a| a.ip).collect();
    let (on_nginx, on_apache) = (doors(cx, &own, &NGINX), doors(cx, &own, &APACHE));
    let asking = |doors| Asking { edge: &edge, own: &own, doors, hosts: &cx.ask.hosts, mode: cx.ask.mode };
    let mut found = nginx(cx.configs.nginx(), &asking(&on_nginx));
    let read = |path: &std::path::Path| match cx.session.host.file(path) {
        Ok(file) => Ok(file.map(|f| String::from_utf8_lossy(&f.content).into_owned())),
        Err(_) => Err(()),
    };
    found.extend(apache(&Apache::new(cx.configs.apache(), &read), cx.configs.apache(), &asking(&on_apache)));
    found
}

/// Where a server listens, of the origin's addresses and the ports that are asked about. Who listens may be unknown: then
/// it is this one unless the other is installed too.
fn doors(cx: &Context<'_>, own: &[IpAddr], server: &Server) -> Vec<(IpAddr, u16)> {
    let asked: Vec<IpAddr> = own.iter().copied().filter(|ip| cx.origins.contains(ip)).collect();
    let origins = if asked.is_empty() { own } else { &asked };
    let both = !cx.configs.nginx().directives.is_empty() && !cx.configs.apache().directives.is_empty();
    let is_its = |ip: IpAddr, port: u16| {
        cx.listening(ip, port).iter().any(|socket| {
            let its = |name: &str| server.programs.iter().any(|p| name.starts_with(p));
            if socket.programs.is_empty() { !both } else { socket.programs.iter().any(|p| its(&p.name)) }
        })
    };
    let each = origins.iter().flat_map(|ip| cx.ports.iter().map(|port| (*ip, *port)));
    each.filter(|(ip, port)| is_its(*ip, *port)).collect()
}

/// Whom a site turns away; where only some addresses of each range were `tried`, no more is said than that.
fn whom(denied: &[IpNet], edge: &Prefixes, tried: bool) -> String {
    match denied {
        all if all.len() == edge.len() && tried => "addresses of all of Cloudflare's ranges".to_owned(),
        all if all.len() == edge.len() => "all of Cloudflare".to_owned(),
        [one] if tried => format!("some of Cloudflare's {one}"),
        [one] => format!("Cloudflare's {one}, or a part of it"),
        [first, rest @ ..] => {
            let some = if tried { "some of " } else { "" };
            format!("{some}Cloudflare's {first} and {} more of its ranges", rest.len())
        }
        [] => "nobody".to_owned(),
    }
}

/// What the sites that are asked about deny.
fn denials(server: &Server, sites: &[Site<'_>], asking: &Asking<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let all = asked(sites, asking.doors, asking.hosts, asking.mode);
    // Of each site once: many a name may be served by one.
    let mut told: BTreeMap<usize, (Turned, Option<Refusal>)> = BTreeMap::new();
    for number in all.iter().flatten().map(|one| one.site) {
        if let (Some(site), false) = (sites.get(number), told.contains_key(&number)) {
            let turned = site.turned(asking.edge, asking.own);
            let why = (turned != Turned::Nobody).then(|| site.why(&turned, asking.edge, asking.own));
            told.insert(number, (turned, why));
        }
    }
    let is_bad = |turned: &Turned| matches!(turned, Turned::Edge(_) | Turned::Visitors);
    for of_a_name in &all {
        let judged = of_a_name.iter().filter_map(|one| Some((sites.get(one.site)?, one.port, told.get(&one.site)?)));
        let judged: Vec<_> = judged.collect();
        let good: Vec<(&Site<'_>, u16)> =
            judged.iter().filter(|(.., told)| !is_bad(&told.0)).map(|(site, port, _)| (*site, *port)).collect();
        for (site, port, (turned, why)) in &judged {
            let Some(why) = why else { continue };
            let next = match turned {
                Turned::Nobody => continue,
                Turned::Own => own_denied(server, why),
                bad => {
                    // Without a name it can't be told whether this is the site that Cloudflare is asked for.
                    let others = asking.hosts.is_empty() && good.iter().any(|(other, _)| other.names != site.names);
                    let open = *port == 80 && good.iter().any(|(_, port)| *port == 443);
                    let mut names: Vec<&[String]> = judged.iter().map(|(site, ..)| &site.names[..]).collect();
                    names.sort_unstable();
                    names.dedup();
                    // What is denied to one name by a rule may be denied to another by the same.
                    let by_it = |one: &Asked| {
                        let (turned, other) = told.get(&one.site)?;
                        other.as_ref().filter(|other| is_bad(turned) && other.seen == why.seen)
                    };
                    let to = asking.hosts.iter().zip(&all).filter(|(_, of)| of.iter().any(|one| by_it(one).is_some()));
                    let to: Vec<&str> = to.map(|(host, _)| host.as_str()).collect();
                    let (verdict, before) = match (others, open) {
                        (true, _) => {
                            let name = site.names.first().map_or_else(String::new, |name| format!(", {name}"));
                            (Finds::Warning, format!("one of {}'s {} sites{name}: ", server.name, names.len()))
                        }
                        (false, true) => (Finds::Warning, "on port 80 only: ".to_owned()),
                        (false, false) => (Finds::Cause, String::new()),
                    };
                    let of = if to.len() < asking.hosts.len() {
                        format!(" for {}", to.join(" and "))
                    } else {
                        String::new()
                    };
                    denied(server, (why.clone(), bad), (asking.edge, site.tried), verdict, (&before, &of))
                }
            };
            if !found.iter().any(|f| f.id == next.id && f.evidence == next.evidence) {
                found.push(next);
            }
        }
    }
    found
}

fn denied(
    server: &Server,
    (why, turned): (Refusal, &Turned),
    (edge, tried): (&Prefixes, bool),
    verdict: Finds,
    (before, of): (&str, &str),
) -> Finding {
    let Server { name, .. } = server;
    let Refusal { status, seen, mend: Mend { what, file } } = why;
    // What stands there is read anew with each request.
    let is_read = file.file_name().is_some_and(|name| name == ".htaccess");
    let reload = if is_read { String::new() } else { server.reload.to_owned() };
    let see = match status {
        FORBIDDEN => "see 403 Forbidden".to_owned(),
        NO_ANSWER => "get no answer (`return 444`)".to_owned(),
        status => format!("see status {status}"),
    };
    let (text, fix) = match turned {
        Turned::Edge(denied) => (
            format!("{before}{name} denies {}{of}: its visitors {see}", whom(denied, edge, tried)),
            if is_read { what } else { format!("{what}, then {reload}") },
        ),
        // By then the address is the visitor's own, and none of Cloudflare's any more.
        _ => (
            format!(
                "{before}{name} lets in Cloudflare's addresses only{of}, after it has put the visitors' in their place: all \
                 of them {see}"
            ),
            format!(
                "take the list out of {}: a packet filter keeps others away as well (`edgeallow sync`){}",
                file.display(),
                if is_read { String::new() } else { format!(". Then {reload}") }
            ),
        ),
    };
    let found = finding(server.denies, verdict, text).mend(fix);
    let found = if status == NO_ANSWER { found.gives(&[520]) } else { found };
    seen.into_iter().fold(found, |f, (place, words)| f.seen(place, words))
}

fn own_denied(server: &Server, why: &Refusal) -> Finding {
    let text = format!(
        "{} denies this machine's own address, and not Cloudflare's: what it answers to doctor itself says nothing about \
         visitors",
        server.name
    );
    let found = finding("firewall.own-denied", Finds::Note, text);
    why.seen.iter().fold(found, |f, (place, words)| f.seen(place.clone(), words.clone()))
}

/// `173.245.48.0/20, 2400:cb00::/32 and 3 more`
fn few(ranges: &[IpNet]) -> String {
    let named: Vec<String> = ranges.iter().take(NAMED).map(short).collect();
    match ranges.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn nginx(said: &Said, asking: &Asking<'_>) -> Vec<Finding> {
    let sites = nginx::sites(said);
    // What can't be read may let them in.
    let mut found = if said.unread.is_empty() { denials(&NGINX, &sites, asking) } else { Vec::new() };
    let is_known = found.iter().any(|f| f.id == "firewall.own-denied");
    if let Some((geo, names)) = nginx::tells_apart(said, asking.edge).filter(|_| !is_known) {
        let text = "nginx tells Cloudflare's addresses from others (`geo`): where it lets in those only, what it answers to \
                    doctor itself says nothing about visitors";
        let ours = asked(&sites, asking.doors, asking.hosts, asking.mode).into_iter().flatten();
        if ours.filter_map(|one| sites.get(one.site)).any(|site| names.contains(&site.names)) {
            found.push(finding("firewall.own-denied", Finds::Note, text).seen(geo.place(), geo.words.join(" ")));
        }
    }
    found.extend(nginx_limits(said, asking.edge));
    found
}

/// Limits that count by the client's address, which is Cloudflare's: all visitors are one client then.
fn nginx_limits(said: &Said, edge: &Prefixes) -> Option<Finding> {
    let limits = said.directives.iter().filter(|d| d.is("limit_req") || d.is("limit_conn")).filter(|d| {
        // `limit_req zone=NAME burst=5`, `limit_conn NAME 10`
        let name = d.zone().unwrap_or(d.value());
        let zone = said
            .directives
            .iter()
            .find(|z| (z.is("limit_req_zone") || z.is("limit_conn_zone")) && z.zone() == Some(name));
        zone.is_some_and(|z| matches!(z.value(), "$binary_remote_addr" | "$remote_addr"))
    });
    let by_missing = limits.map(|d| (d, nginx::shown(said, &nginx::scope_of(said, d)).missing(edge)));
    let (limit, missing) = by_missing.filter(|(_, missing)| !missing.is_empty()).max_by_key(|(_, m)| m.len())?;
    let (text, fix) = if missing.len() == edge.len() {
        (
            "nginx limits requests per address, and behind Cloudflare many visitors share one: above the limit they see 503"
                .to_owned(),
            "let nginx take the visitor's address from Cloudflare: `real_ip_header CF-Connecting-IP;` and one \
             `set_real_ip_from` for each range, as the command prints them"
                .to_owned(),
        )
    } else {
        (
            format!(
                "nginx limits requests per address, and takes the visitor's from a part of Cloudflare only: who comes by \
                 way of {} is counted together with many others, and sees 503 above the limit",
                few(&missing)
            ),
            format!("add what is missing of the lines that the command prints, then {}", NGINX.reload),
        )
    };
    let lines = "edgeallow fetch | sed 's/.*/set_real_ip_from &;/'";
    let found = finding("firewall.nginx-limits", Finds::Warning, text).mend_by(fix, lines);
    Some(found.seen(limit.place(), limit.words.join(" ")))
}

fn apache(rules: &Apache<'_>, said: &Said, asking: &Asking<'_>) -> Vec<Finding> {
    let sites = rules.sites();
    // What can't be read may let them in.
    let mut found = if said.unread.is_empty() { denials(&APACHE, &sites, asking) } else { Vec::new() };
    let missing = |site: &Site<'_>| site.shown.missing(asking.edge);
    let Some(missing) = sites.iter().map(missing).min_by_key(Vec::len).filter(|m| !m.is_empty()) else { return found };
    for name in APACHE_LIMITS {
        if let Some(limit) = said.directives.iter().find(|d| d.is(name)) {
            found.push(apache_limit(name, &missing, asking.edge).seen(limit.place(), limit.words.join(" ")));
        }
    }
    if let Some(engine) = said.directives.iter().find(|d| d.is("SecRuleEngine") && d.value().eq_ignore_ascii_case("on"))
    {
        found.push(
            finding(
                "firewall.modsecurity",
                Finds::Note,
                "ModSecurity is switched on: what it denies is answered 403, whoever asks; see the logs",
            )
            .seen(engine.place(), engine.words.join(" ")),
        );
    }
    found
}

fn apache_limit(name: &str, missing: &[IpNet], edge: &Prefixes) -> Finding {
    let limits = format!("Apache limits connections or requests per address ({name}), and");
    let (text, fix) = if missing.len() == edge.len() {
        (
            format!("{limits} behind Cloudflare many visitors share one"),
            "let Apache take the visitor's address from Cloudflare (mod_remoteip: `RemoteIPHeader CF-Connecting-IP` and \
             `RemoteIPTrustedProxy` for each range, as the command prints them), or raise the limit"
                .to_owned(),
        )
    } else {
        (
            format!(
                "{limits} takes the visitor's from a part of Cloudflare only: who comes by way of {} is counted together \
                 with many others",
                few(missing)
            ),
            format!("add what is missing of the lines that the command prints, then {}", APACHE.reload),
        )
    };
    finding("firewall.apache-limits", Finds::Warning, text)
        .mend_by(fix, "edgeallow fetch | sed 's/^/RemoteIPTrustedProxy /'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::directives::tests::{said_by_apache, said_by_nginx};

    fn edge() -> Prefixes {
        ["173.245.48.0/20", "104.16.0.0/13", "2400:cb00::/32"]
            .iter()
            .map(|n| n.parse::<IpNet>().expect("a net"))
            .collect()
    }

    /// About a server that listens on both ports, and no name.
    fn asking(edge: &Prefixes) -> Asking<'_> {
        const AT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
        Asking { edge, own: &[AT], doors: &[(AT, 80), (AT, 443)], hosts: &[], mode: Mode::Unknown }
    }

    fn causes(config: &str, hosts: &[&str]) -> Vec<String> {
        let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
        let found = nginx(&said_by_nginx(config), &Asking { hosts: &hosts, ..asking(&edge()) });
        found.into_iter().filter(|f| f.verdict == Finds::Cause).map(|f| f.text).collect()
    }

    #[test]
    fn what_nginx_denies_to_the_whole_site_is_a_cause() {
        let all = "nginx denies all of Cloudflare: its visitors see 403 Forbidden";
        for (config, said) in [
            ("http { server { deny all; } }", vec![all]),
            (
                "http { deny 104.16.0.0/12; server { } }",
                vec!["nginx denies Cloudflare's 104.16.0.0/13, or a part of it: its visitors see 403 Forbidden"],
            ),
            (
                "http { server { location / { deny 104.17.1.1; } } }",
                vec!["nginx denies Cloudflare's 104.16.0.0/13, or a part of it: its visitors see 403 Forbidden"],
            ),
            (
                "http { server { allow 173.245.48.0/20; allow 104.0.0.0/8; deny all; } }",
                vec!["nginx denies Cloudflare's 2400:cb00::/32, or a part of it: its visitors see 403 Forbidden"],
            ),
            ("http { server { allow 173.245.48.0/20; allow 104.0.0.0/8; allow 2400:cb00::/32; deny all; } }", vec![]),
            ("http { server { deny 203.0.113.0/24; allow all; } }", vec![]),
            // A part of the site, and somebody else's visitors.
            ("http { server { location /admin { deny all; } location ~ /\\.ht { deny all; } } }", vec![]),
            (
                "http { real_ip_header CF-Connecting-IP; set_real_ip_from 104.0.0.0/8; server { deny 104.16.0.0/13; } }",
                vec![],
            ),
            // Nobody is believed.
            (
                "http { real_ip_header CF-Connecting-IP; server { deny 104.16.0.0/13; } }",
                vec!["nginx denies Cloudflare's 104.16.0.0/13, or a part of it: its visitors see 403 Forbidden"],
            ),
            // What stands further in holds, and a redirect comes first.
            ("http { deny all; server { allow all; } }", vec![]),
            ("http { server { deny all; location / { allow all; } location = /x { deny all; } } }", vec![]),
            ("http { server { deny all; return 301 https://www.example/; } }", vec![]),
            ("http { server { allow all; location = / { deny all; } } }", vec![all]),
            ("stream { server { deny all; } }", vec![]),
            ("http { server { listen 127.0.0.1:80; deny all; } server { listen 8080; deny all; } }", vec![]),
            ("http { server { satisfy any; allow 203.0.113.9; deny all; } }", vec![]),
            (
                "http { real_ip_header CF-Connecting-IP; set_real_ip_from 0.0.0.0/0; set_real_ip_from ::/0; server { allow \
                 104.16.0.0/13; deny all; } }",
                vec![
                    "nginx lets in Cloudflare's addresses only, after it has put the visitors' in their place: all of them \
                     see 403 Forbidden",
                ],
            ),
        ] {
            assert_eq!(causes(config, &[]), said, "{config}");
        }
    }

    #[test]
    fn another_site_of_the_same_server_may_deny_whom_it_likes() {
        let config = "http { server { server_name intern.example; deny all; } server { server_name www.example; } }";
        let default = "http { server { server_name _; deny all; } server { server_name www.example; } }";
        assert_eq!(causes(default, &["www.example"]), Vec::<String>::new());
        assert_eq!(causes(default, &["other.example"]).len(), 1);
        assert_eq!(causes(config, &[]), Vec::<String>::new(), "a warning: which site is meant can't be told");
        assert_eq!(causes(config, &["www.example"]), Vec::<String>::new());
        assert_eq!(causes(config, &["intern.example"]).len(), 1);
    }

    #[test]
    fn the_site_that_denies_is_named_where_there_are_others() {
        let config = "http { server { server_name shop.example; } server { server_name admin.example; deny all; } }";
        let denied = "nginx denies all of Cloudflare";
        let forbidden = ": its visitors see 403 Forbidden";
        let causes = |hosts: &[&str]| causes(config, hosts);
        assert_eq!(causes(&["shop.example", "admin.example"]), [format!("{denied} for admin.example{forbidden}")]);
        assert_eq!(causes(&["admin.example"]), [format!("{denied}{forbidden}")]);
        let found = nginx(&said_by_nginx(config), &asking(&edge()));
        assert_eq!(found[0].text, format!("one of nginx's 2 sites, admin.example: {denied}{forbidden}"));
        let both = "http { deny all; server { server_name a.example; } server { server_name b.example; } server { \
                    server_name c.example; allow all; } }";
        let hosts = ["a.example", "b.example", "c.example"].map(str::to_owned);
        let found = nginx(&said_by_nginx(both), &Asking { hosts: &hosts, ..asking(&edge()) });
        let texts: Vec<&str> = found.iter().map(|f| f.text.as_str()).collect();
        assert_eq!(texts, [format!("{denied} for a.example and b.example{forbidden}")]);
    }

    #[test]
    fn what_mends_it_depends_on_the_rule() {
        let edge = edge();
        let fix = |config: &str, htaccess: Option<&str>| {
            let said = said_by_apache(&format!("DocumentRoot /var/www\n{config}"));
            let read =
                |path: &std::path::Path| Ok(htaccess.filter(|_| path.starts_with("/var/www")).map(str::to_owned));
            let mut found = apache(&Apache::new(&said, &read), &said, &asking(&edge));
            found.pop().and_then(|f| f.fix).map(|f| f.text).unwrap_or_default()
        };
        let location = |rules: &str| fix(&format!("<Location />\n{rules}\n</Location>"), None);
        let out = "take Cloudflare's ranges out of the line that names them";
        let add = "add Cloudflare's ranges to the line with `Require ip`";
        for (rules, wanted) in [
            ("<RequireAll>\nRequire all granted\nRequire not ip 104.16.0.0/13\n</RequireAll>", out),
            ("<RequireAll>\nRequire ip 10.0.0.0/8 104.0.0.0/8\nRequire not ip 104.16.0.0/13\n</RequireAll>", out),
            (
                "<RequireAll>\nRequire all granted\n<RequireNone>\nRequire ip 104.16.0.0/13\n</RequireNone>\n</RequireAll>",
                out,
            ),
            ("Require ip 173.245.48.0/20 10.0.0.0/8", add),
            ("<RequireAll>\nRequire ip 10.0.0.0/8\n</RequireAll>", add),
            ("Require all denied", "put `Require ip` with all"),
            ("Deny from 104.16.0.0/13", "take Cloudflare's ranges out of `Deny from`"),
            ("Order Deny,Allow\nDeny from all\nAllow from 10", "let Cloudflare's ranges in with `Allow from`"),
            ("Order Allow,Deny\nAllow from 10", "let Cloudflare's ranges in with `Allow from`"),
            ("Order Allow,Deny\nAllow from all\nDeny from 104.16", "take Cloudflare's ranges out of `Deny from`"),
        ] {
            let said = location(rules);
            assert!(said.starts_with(wanted) && said.ends_with("`systemctl reload apache2`"), "{rules}: {said}");
            assert!(!said.contains("before it"), "{said}");
        }
        let all = "<Directory /var/www>\nAllowOverride All\n</Directory>";
        let said = fix(all, Some("Require ip 10.0.0.0/8"));
        assert!(said.starts_with(add) && said.contains("/var/www/.htaccess") && !said.contains("reload"), "{said}");
    }

    #[test]
    fn limits_by_the_address_are_a_warning_unless_it_is_the_visitors() {
        let limits =
            "limit_req_zone $binary_remote_addr zone=one:10m rate=1r/s; server { limit_req zone=one burst=5; }";
        let limited = |config: &str| nginx_limits(&said_by_nginx(config), &edge());
        assert!(limited(&format!("http {{ {limits} }}")).is_some());
        let from = |nets: &str| {
            let each = nets.split_whitespace().map(|net| format!("set_real_ip_from {net};")).collect::<String>();
            limited(&format!("http {{ real_ip_header CF-Connecting-IP; {each} {limits} }}"))
        };
        assert!(from("").is_some(), "nobody is believed");
        assert!(from("173.245.48.0/20 104.16.0.0/12 2400:cb00::/32").is_none());
        let partly = from("173.245.48.0/20").expect("a warning");
        assert!(partly.text.contains("104.16.0.0/13, 2400:cb00::/32 is counted"), "{}", partly.text);
        let other = limits.replace("$binary_remote_addr", "$server_name");
        assert!(limited(&format!("http {{ {other} }}")).is_none());
    }

    #[test]
    fn apache_denies_by_either_language() {
        let texts = |config: &str| {
            let said = said_by_apache(&format!("DocumentRoot /var/www\n{config}"));
            let read = |_: &std::path::Path| Ok(None);
            let edge = edge();
            let found = apache(&Apache::new(&said, &read), &said, &asking(&edge));
            found.into_iter().map(|f| f.id).collect::<Vec<_>>()
        };
        assert_eq!(
            texts(
                "<Directory /var/www>\n<RequireAll>\nRequire all granted\nRequire not ip 104.16.0.0/13\n</RequireAll>\n\
                 </Directory>"
            ),
            ["firewall.apache-denies"]
        );
        assert_eq!(texts("<Location />\nDeny from 173.245.48.29 9.9.9.9\n</Location>"), ["firewall.apache-denies"]);
        assert_eq!(texts("<Location /admin>\nDeny from 173.245.48.29\n</Location>"), [""; 0]);
        assert_eq!(texts("Deny from all"), [""; 0]);
        assert_eq!(texts("RemoteIPHeader CF-Connecting-IP\nDeny from 173.245.48.29"), [""; 0]);
        assert_eq!(texts("QS_SrvMaxConnPerIP 30"), ["firewall.apache-limits"]);
        let header = "RemoteIPHeader CF-Connecting-IP\n";
        assert_eq!(texts(&format!("{header}QS_SrvMaxConnPerIP 30")), [""; 0]);
        let partly = "RemoteIPTrustedProxy 104.16.0.0/13\nQS_SrvMaxConnPerIP 30";
        assert_eq!(texts(&format!("{header}{partly}")), ["firewall.apache-limits"]);
    }
}
