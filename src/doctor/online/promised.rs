//! What a web server would listen on, and for which sites, if it were started with the configuration that it has now.
//!
//! Belongs here: the directives of nginx and Apache that say so. Does not: whether anything listens (`gather`), what
//! follows from it (`lacking`).

use std::net::{IpAddr, SocketAddr};

use crate::doctor::directives::{Directive, Said, is_loaded};

/// What a configuration promises.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Promised {
    /// The ports on which others would be listened to, each with the place that says so.
    pub listens: Vec<(u16, String)>,
    /// Those of the sites that were asked about that it has.
    pub sites: Vec<String>,
    /// The first site that has a name, asked about or not: a package's default page has none.
    pub named: Option<String>,
    /// The ports on which these sites would be served, each with the place that says so; known of nginx only.
    pub serves: Vec<(u16, String)>,
}

impl Promised {
    /// The first of these ports that it would listen on, and the place that says so.
    pub(super) fn on(&self, ports: &[u16]) -> Option<&(u16, String)> {
        self.listens.iter().find(|(port, _)| ports.contains(port))
    }
}

/// Where plain HTTP is taken unless something else is said.
const HTTP: u16 = 80;

pub(super) fn nginx(said: &Said, hosts: &[String]) -> Promised {
    let mut promised = Promised::default();
    // Each `server` of HTTP, whether it says where to listen, where that is, and whether it is for one of the sites.
    let mut servers: Vec<Block<'_>> = Vec::new();
    for directive in &said.directives {
        let mut around = said.around_of(directive).filter(|head| !head.is("if"));
        let (Some(server), Some(http)) = (around.next(), around.next()) else { continue };
        if !(server.is("server") && http.is("http")) {
            continue;
        }
        let known = servers.iter().position(|block| std::ptr::eq(block.head, server));
        let at = known.unwrap_or(servers.len());
        if known.is_none() {
            servers.push(Block { head: server, says: false, listens: Vec::new(), is_asked: false });
        }
        let Some(block) = servers.get_mut(at) else { continue };
        if directive.is("listen") {
            block.says = true;
            let here = port(directive.value()).map(|port| (port, directive.place()));
            block.listens.extend(here.clone());
            promised.listens.extend(here);
        }
        if directive.is("server_name") {
            let names = directive.words.iter().skip(1);
            block.is_asked |= names.clone().any(|name| hosts.iter().any(|host| is_for(name, host)));
            promised.named = promised.named.take().or_else(|| names.clone().find_map(|name| own_name(name)));
            add_sites(&mut promised, names, hosts);
        }
    }
    let silent = servers.iter().filter(|block| !block.says);
    promised.listens.extend(silent.map(|block| (HTTP, block.head.place())));
    promised.serves = servers.into_iter().filter(|block| block.is_asked).flat_map(|block| block.listens).collect();
    promised
}

/// A `server` of nginx.
struct Block<'a> {
    head: &'a Directive,
    says: bool,
    listens: Vec<(u16, String)>,
    is_asked: bool,
}

pub(super) fn apache(said: &Said, hosts: &[String]) -> Promised {
    let mut promised = Promised::default();
    for directive in &said.directives {
        let holds =
            |head: &Directive| !head.is("<IfModule") || is_loaded(head.value().trim_end_matches('>'), &said.modules);
        if directive.is("Listen") && said.around_of(directive).all(holds) {
            promised.listens.extend(port(directive.value()).map(|port| (port, directive.place())));
        }
        if directive.is("ServerName") || directive.is("ServerAlias") {
            // Outside of any, it is the name of the machine.
            if promised.named.is_none() && said.around_of(directive).any(|head| head.is("<VirtualHost")) {
                promised.named = own_name(directive.value());
            }
            add_sites(&mut promised, directive.words.iter().skip(1), hosts);
        }
    }
    promised
}

/// The name of a site, if it is one that somebody gave it: no `_`, `localhost`, address or expression.
fn own_name(name: &str) -> Option<String> {
    let name = bare(name);
    let is_own = name.contains('.') && !name.starts_with('~') && name.parse::<IpAddr>().is_err();
    is_own.then(|| name.to_owned())
}

/// The port that others would be listened to on; none for a Unix socket or a loopback address.
fn port(value: &str) -> Option<u16> {
    if value.starts_with("unix:") || value.is_empty() {
        return None;
    }
    if let Ok(port) = value.parse() {
        return Some(port);
    }
    if let Ok(at) = value.parse::<SocketAddr>() {
        return (!at.ip().is_loopback()).then(|| at.port());
    }
    if let Ok(ip) = value.trim_matches(['[', ']']).parse::<IpAddr>() {
        return (!ip.is_loopback()).then_some(HTTP);
    }
    let (host, port) = value.rsplit_once(':').map_or((value, Some(HTTP)), |(host, port)| (host, port.parse().ok()));
    port.filter(|_| host != "localhost")
}

fn add_sites<'a>(promised: &mut Promised, names: impl Iterator<Item = &'a String>, hosts: &[String]) {
    for name in names {
        let is_for = |host: &&String| is_for(name, host) && !promised.sites.contains(host);
        let more: Vec<String> = hosts.iter().filter(is_for).cloned().collect();
        promised.sites.extend(more);
    }
}

/// A site's name without the scheme and the port that Apache takes beside it.
fn bare(name: &str) -> &str {
    let name = name.split_once("://").map_or(name, |(_, name)| name);
    name.split_once(':').map_or(name, |(name, _)| name)
}

/// Whether a name of a site, of nginx or Apache, is for this host.
fn is_for(name: &str, host: &str) -> bool {
    let name = bare(name).to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
        Some(domain) => {
            host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')) || (name == format!(".{host}"))
        }
        None => name == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::directives::tests::{said_by_apache, said_by_nginx};

    fn ports(promised: &Promised) -> Vec<u16> {
        promised.listens.iter().map(|(port, _)| *port).collect()
    }

    #[test]
    fn nginx_listens_where_a_server_of_http_says_so() {
        let said = said_by_nginx(
            "stream { server { listen 5432; } }\nhttp {\n server { listen 443 ssl; listen [::]:443 ssl; listen unix:/run/x; }\n \
             server { listen 127.0.0.1:8080; listen localhost:81; }\n server { server_name www.Shop.example; root /x; }\n \
             server { listen 192.0.2.1; location / { deny all; } }\n}",
        );
        let hosts = ["www.shop.example".to_owned(), "shop.example".to_owned()];
        let promised = nginx(&said, &hosts);
        assert_eq!(ports(&promised), [443, 443, 80, 80]);
        assert_eq!(promised.on(&[80, 443]).unwrap().1, "/etc/nginx/nginx.conf line 3");
        assert_eq!(promised.on(&[5432]), None);
        assert_eq!(promised.sites, ["www.shop.example"]);
        assert_eq!(promised.serves, []);
    }

    #[test]
    fn it_is_known_where_nginx_serves_the_sites() {
        let said = said_by_nginx(
            "http {\n server { server_name shop.example;\n listen 8443 ssl; listen 127.0.0.1:81; }\n server { listen 82; }\n}",
        );
        let promised = nginx(&said, &["shop.example".to_owned()]);
        assert_eq!(promised.serves, [(8443, "/etc/nginx/nginx.conf line 3".to_owned())]);
    }

    #[test]
    fn apache_listens_where_the_module_is_there_that_a_section_asks_for() {
        let mut said = said_by_apache(
            "Listen 80\n<IfModule ssl_module>\nListen 443\n</IfModule>\n<IfModule mod_gnutls.c>\nListen 8443\n</IfModule>\n\
             Listen 127.0.0.1:8081\n<VirtualHost *:80>\nServerName http://shop.example:80\nServerAlias *.blog.example\n\
             </VirtualHost>\n",
        );
        let hosts = ["shop.example", "a.blog.example", "blog.example"].map(str::to_owned);
        assert_eq!(ports(&apache(&said, &hosts)), [80]);
        said.modules.push("ssl".to_owned());
        let with = apache(&said, &hosts);
        assert_eq!((ports(&with), &with.sites[..]), (vec![80, 443], &hosts[..2]));
    }

    #[test]
    fn a_default_page_is_no_site_with_a_name() {
        let of_nginx =
            |names: &str| nginx(&said_by_nginx(&format!("http {{ server {{ server_name {names}; }} }}")), &[]).named;
        assert_eq!([of_nginx("_"), of_nginx("localhost 192.0.2.1"), of_nginx("~^www\\.")], [None, None, None]);
        assert_eq!(of_nginx("_ shop.example").as_deref(), Some("shop.example"));
        let of_apache = |text: &str| apache(&said_by_apache(text), &[]).named;
        assert_eq!(
            of_apache("ServerName machine.example\n<VirtualHost *:80>\nDocumentRoot /x\n</VirtualHost>\n"),
            None
        );
        let named = of_apache("<VirtualHost *:80>\nServerName http://shop.example:80\n</VirtualHost>\n");
        assert_eq!(named.as_deref(), Some("shop.example"));
    }

    #[test]
    fn names_of_sites() {
        for (name, host, is) in [
            ("shop.example", "Shop.example", true),
            ("*.shop.example", "www.shop.example", true),
            ("*.shop.example", "shop.example", false),
            (".shop.example", "shop.example", true),
            (".shop.example", "a.shop.example", true),
            ("_", "shop.example", false),
            ("*.shop.example", "workshop.example", false),
        ] {
            assert_eq!(is_for(name, host), is, "{name} {host}");
        }
    }
}
