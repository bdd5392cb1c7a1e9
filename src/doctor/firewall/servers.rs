//! Web servers that turn Cloudflare away themselves: lists of addresses, limits per address.
//!
//! Where a module puts the visitor's address in place of Cloudflare's (nginx's realip, mod_remoteip), lists and limits are
//! about visitors, and are none of this room's business.
//!
//! Belongs here: what directives about addresses mean for Cloudflare's ranges. Does not: reading them
//! ([`crate::doctor::directives`]); mod_evasive, which is a backend.

use ipnet::IpNet;

use super::finding;
use crate::{
    allowlist::Prefixes,
    doctor::{
        Context,
        directives::{Directive, Said},
    },
    report::{Finding, Finds},
};

/// Apache's directives that limit what one address may do: mod_qos, mod_antiloris, mod_limitipconn.
const APACHE_LIMITS: [&str; 5] =
    ["QS_SrvMaxConnPerIP", "QS_ClientEventPerSecLimit", "IPReadLimit", "IPTotalLimit", "MaxConnPerIP"];

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    let mut found = nginx(cx.configs.nginx(), &cx.edge, &cx.ask.hosts);
    found.extend(apache(cx.configs.apache(), &cx.edge));
    found
}

/// The published ranges that a list of rules turns away, the first one that matches deciding, as in nginx's access module.
fn denied<'e>(edge: &'e Prefixes, rules: &'e [(bool, Option<IpNet>)]) -> impl Iterator<Item = IpNet> + 'e {
    edge.iter().filter(|range| {
        let touches = |net: &IpNet| net.contains(range) || range.contains(net);
        let decides = |(allows, net): &&(bool, Option<IpNet>)| match net {
            None => true,
            // An allow for a part leaves the rest to what follows; a deny of a part turns that part away.
            Some(net) => {
                if *allows {
                    net.contains(range)
                } else {
                    touches(net)
                }
            }
        };
        rules.iter().find(decides).is_some_and(|(allows, _)| !allows)
    })
}

fn net(word: &str) -> Option<IpNet> {
    word.parse().ok().or_else(|| word.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

fn whom(denied: &[IpNet], edge: &Prefixes) -> String {
    match denied {
        all if all.len() == edge.len() => "all of Cloudflare".to_owned(),
        [one] => format!("Cloudflare's {one}, or a part of it"),
        [first, rest @ ..] => format!("Cloudflare's {first} and {} more of its ranges", rest.len()),
        [] => "nobody".to_owned(),
    }
}

fn nginx(said: &Said, edge: &Prefixes, hosts: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut done = Vec::new();
    for first in said.directives.iter().filter(|d| d.is("allow") || d.is("deny")) {
        if done.contains(&first.block) {
            continue;
        }
        done.push(first.block);
        if !is_whole_site(said, first) || !is_asked_about(said, first, hosts) || asks_for_a_password(said, first) {
            continue;
        }
        let same = said.directives.iter().filter(|d| d.block == first.block && (d.is("allow") || d.is("deny")));
        let of = |d: &Directive| match d.value() {
            "all" => Some((d.is("allow"), None)),
            word => Some((d.is("allow"), Some(net(word)?))),
        };
        let (rules, places): (Vec<_>, Vec<_>) = same.filter_map(|d| Some((of(d)?, d))).unzip();
        let denied: Vec<IpNet> = denied(edge, &rules).collect();
        let text = if shows_visitors(said, first) {
            // By then the address is the visitor's own, and none of Cloudflare's any more.
            let let_in = rules.iter().filter_map(|(allows, net)| net.filter(|_| *allows));
            let only_cloudflare = rules.contains(&(false, None))
                && rules.iter().any(|(allows, net)| *allows && net.is_some_and(|net| edge.covers(&net)))
                && let_in.clone().all(|net| edge.covers(&net) || net.addr().is_loopback());
            if !only_cloudflare {
                continue;
            }
            "nginx lets in Cloudflare's addresses only, after it has put the visitors' in their place: all of them see 403 \
             Forbidden"
                .to_owned()
        } else if denied.is_empty() {
            continue;
        } else {
            format!("nginx denies {}: its visitors see 403 Forbidden", whom(&denied, edge))
        };
        // Without a name it can't be told whether this is the site that Cloudflare is asked for.
        let servers = said.directives.iter().filter(|d| d.is("server")).count();
        let one_of_several = hosts.is_empty() && servers > 1 && said.around_of(first).any(|head| head.is("server"));
        let verdict = if one_of_several { Finds::Warning } else { Finds::Cause };
        let text = if one_of_several { format!("one of nginx's {servers} sites: {text}") } else { text };
        let mut cause = finding("firewall.nginx-denies", verdict, text);
        for directive in places.iter().filter(|d| d.is("deny")).take(3) {
            cause = cause.seen(directive.place(), directive.words.join(" "));
        }
        let file = first.file.display();
        found.push(cause.mend(format!(
            "take the line out of {file}, or let Cloudflare's ranges in before it (`allow`, one a line; `edgeallow fetch` \
             prints them), then `nginx -t` and `systemctl reload nginx`"
        )));
    }
    found.extend(nginx_limits(said));
    found
}

/// Limits that count by the client's address, which is Cloudflare's: all visitors are one client then.
fn nginx_limits(said: &Said) -> Option<Finding> {
    let limit = said.directives.iter().find(|d| {
        if !(d.is("limit_req") || d.is("limit_conn")) || shows_visitors(said, d) {
            return false;
        }
        // `limit_req zone=NAME burst=5`, `limit_conn NAME 10`
        let name = d.words.iter().find_map(|w| w.strip_prefix("zone=")).unwrap_or(d.value());
        let zone = |z: &&Directive| {
            (z.is("limit_req_zone") || z.is("limit_conn_zone"))
                && z.words.iter().any(|w| w.strip_prefix("zone=").is_some_and(|z| z.split(':').next() == Some(name)))
        };
        let zone = said.directives.iter().find(zone);
        zone.is_some_and(|z| matches!(z.value(), "$binary_remote_addr" | "$remote_addr"))
    })?;
    Some(
        finding(
            "firewall.nginx-limits",
            Finds::Warning,
            "nginx limits requests per address, and behind Cloudflare many visitors share one: above the limit they see 503",
        )
        .seen(limit.place(), limit.words.join(" "))
        .mend(
            "let nginx take the visitor's address from Cloudflare: `real_ip_header CF-Connecting-IP;` and one \
             `set_real_ip_from` for each range (`edgeallow fetch` prints them)",
        ),
    )
}

/// Whether what stands in these blocks is about the site as a whole, and not about a part of it.
fn is_whole_site(said: &Said, directive: &Directive) -> bool {
    said.around_of(directive).all(|head| match head.words.first().map(String::as_str) {
        Some("location") => head.words.last().is_some_and(|path| path == "/"),
        Some(word) => matches!(word, "http" | "server"),
        None => false,
    })
}

/// Whether it concerns one of the names that were asked about; without names, whether it concerns whatever is served.
fn is_asked_about(said: &Said, directive: &Directive, hosts: &[String]) -> bool {
    let Some(server) = said.around_of(directive).find(|head| head.is("server")) else { return true };
    let inside = |d: &&Directive| said.around_of(d).next().is_some_and(|head| std::ptr::eq(head, server));
    let names: Vec<&str> = said
        .directives
        .iter()
        .filter(|d| d.is("server_name"))
        .filter(inside)
        .flat_map(|d| d.words.iter().skip(1).map(String::as_str))
        .collect();
    let names_it = |host: &str| {
        let mut all = said.directives.iter().filter(|d| d.is("server_name")).flat_map(|d| d.words.iter().skip(1));
        all.any(|name| serves(name, host))
    };
    let by_default = names.iter().all(|name| *name == "_");
    hosts.is_empty()
        || hosts.iter().any(|host| names.iter().any(|name| serves(name, host)) || (by_default && !names_it(host)))
}

/// Whether a password is as good as an address there: `satisfy any`.
fn asks_for_a_password(said: &Said, directive: &Directive) -> bool {
    let here = blocks_of(said, directive);
    said.directives.iter().any(|d| d.is("satisfy") && d.value() == "any" && here.contains(&d.block))
}

/// The block of a directive, and those around it.
fn blocks_of(said: &Said, directive: &Directive) -> Vec<Option<usize>> {
    std::iter::once(directive.block).chain(said.around_of(directive).map(|head| head.block)).collect()
}

/// `example.org`, `.example.org`, `*.example.org`
fn serves(name: &str, host: &str) -> bool {
    let ends = |end: &str| host.len() > end.len() && host.ends_with(end);
    name.eq_ignore_ascii_case(host)
        || name.starts_with('~')
        || name.strip_prefix('*').is_some_and(ends)
        || (name.starts_with('.') && (ends(name) || &name[1..] == host))
}

/// Whether nginx puts the visitor's address in place of Cloudflare's there.
fn shows_visitors(said: &Said, directive: &Directive) -> bool {
    let here = blocks_of(said, directive);
    said.directives.iter().any(|d| d.is("real_ip_header") && here.contains(&d.block))
}

fn apache(said: &Said, edge: &Prefixes) -> Vec<Finding> {
    if said.directives.iter().any(|d| d.is("RemoteIPHeader")) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for directive in &said.directives {
        let words: Vec<&str> = directive.words.iter().skip(1).map(String::as_str).collect();
        let nets: Vec<&str> = match words.as_slice() {
            ["not", "ip", nets @ ..] if directive.is("Require") => nets.to_vec(),
            ["from", nets @ ..] if directive.is("Deny") => nets.to_vec(),
            _ => continue,
        };
        let partial = |head: &Directive| {
            let word = head.words.first().map_or("", String::as_str).to_ascii_lowercase();
            let path = head.words.get(1).map_or("", |p| p.trim_end_matches('>').trim_matches('"'));
            word.starts_with("<files") || (word.starts_with("<location") && path != "/")
        };
        if said.around_of(directive).any(partial) {
            continue;
        }
        let rules: Vec<(bool, Option<IpNet>)> = nets.iter().filter_map(|n| Some((false, Some(net(n)?)))).collect();
        let denied: Vec<IpNet> = denied(edge, &rules).collect();
        if denied.is_empty() {
            continue;
        }
        let text = format!("Apache denies {}: its visitors see 403 Forbidden", whom(&denied, edge));
        found.push(
            finding("firewall.apache-denies", Finds::Cause, text)
                .seen(directive.place(), directive.words.join(" "))
                .mend(format!(
                    "take the line out of {}, then `apachectl -t` and `systemctl reload apache2`",
                    directive.file.display()
                )),
        );
    }
    for name in APACHE_LIMITS {
        if let Some(limit) = said.directives.iter().find(|d| d.is(name)) {
            let text = format!(
                "Apache limits connections or requests per address ({name}), and behind Cloudflare many visitors share one"
            );
            found.push(
                finding("firewall.apache-limits", Finds::Warning, text)
                    .seen(limit.place(), limit.words.join(" "))
                    .mend(
                        "let Apache take the visitor's address from Cloudflare (mod_remoteip: `RemoteIPHeader \
                         CF-Connecting-IP` and `RemoteIPTrustedProxy` for each range), or raise the limit",
                    ),
            );
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

    fn causes(config: &str, hosts: &[&str]) -> Vec<String> {
        let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
        let found = nginx(&said_by_nginx(config), &edge(), &hosts);
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
            ("http { real_ip_header CF-Connecting-IP; server { deny 104.16.0.0/13; } }", vec![]),
            ("http { server { satisfy any; allow 203.0.113.9; deny all; } }", vec![]),
            (
                "http { real_ip_header CF-Connecting-IP; server { allow 104.16.0.0/13; deny all; } }",
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
    fn limits_by_the_address_are_a_warning_unless_it_is_the_visitors() {
        let limits =
            "limit_req_zone $binary_remote_addr zone=one:10m rate=1r/s; server { limit_req zone=one burst=5; }";
        assert!(nginx_limits(&said_by_nginx(&format!("http {{ {limits} }}"))).is_some());
        assert!(nginx_limits(&said_by_nginx(&format!("http {{ real_ip_header X; {limits} }}"))).is_none());
        let other = limits.replace("$binary_remote_addr", "$server_name");
        assert!(nginx_limits(&said_by_nginx(&format!("http {{ {other} }}"))).is_none());
    }

    #[test]
    fn apache_denies_by_either_language() {
        let texts =
            |config: &str| apache(&said_by_apache(config), &edge()).into_iter().map(|f| f.id).collect::<Vec<_>>();
        assert_eq!(
            texts("<Directory /var/www>\nRequire not ip 104.16.0.0/13\n</Directory>"),
            ["firewall.apache-denies"]
        );
        assert_eq!(texts("<Location />\nDeny from 173.245.48.29 9.9.9.9\n</Location>"), ["firewall.apache-denies"]);
        assert_eq!(texts("<Location /admin>\nDeny from 173.245.48.29\n</Location>"), [""; 0]);
        assert_eq!(texts("Deny from all"), [""; 0]);
        assert_eq!(texts("RemoteIPHeader CF-Connecting-IP\nDeny from 173.245.48.29"), [""; 0]);
        assert_eq!(texts("QS_SrvMaxConnPerIP 30"), ["firewall.apache-limits"]);
    }
}
