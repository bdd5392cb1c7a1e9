//! One visitor's way through the redirects of one site, as Cloudflare would carry his requests to the origin.
//!
//! Belongs here: requests, and which of the redirects lead back here. Does not: what the way means (`judge`).

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::time::sleep;

use crate::probe::{
    http::{self, Get, Limits, Outcome, Scheme, get_at},
    tls::{self, ALPN_HTTP1, How},
};

/// How long an answer is waited for. Cloudflare waits 120 s, an operator doesn't.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection within this host is waited for.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How many redirects are followed; browsers give up at about twenty.
const HOPS: usize = 8;

/// Who visits what, and where Cloudflare brings him.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub door: SocketAddr,
    /// The site.
    pub host: String,
    /// What he typed before it.
    pub scheme: Scheme,
    /// All names of the site: redirects to them lead here again.
    pub sites: Vec<String>,
    /// Whether he is brought by TLS.
    pub tls: bool,
    /// Whether there is a door for plain HTTP too: port 80 of the same address.
    pub plain: bool,
    /// How long to wait before what a redirect leads to is asked for.
    pub pause: Duration,
    /// What he asks for.
    pub path: String,
    /// How long he waits for it.
    pub patience: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visit {
    pub door: SocketAddr,
    pub host: String,
    pub visitor: Scheme,
    /// Whether it went over TLS.
    pub tls: bool,
    /// Whether the server said nothing at all, so that there was not even a handshake.
    pub mute: bool,
    /// What was asked for, in order, without queries.
    pub trail: Vec<String>,
    /// What became of the last request.
    pub outcome: Outcome,
    /// Whether the last redirect leads to something that was asked for before.
    pub loops: bool,
    /// The longest that an answer took, with the handshake before it.
    pub slowest: Duration,
    /// What became of another path, where the page was asked for once more (`patience`).
    pub other: Option<Outcome>,
}

/// What came of one request.
enum Asked {
    /// This.
    Came(Outcome),
    /// The server took the connection, and no handshake came of it.
    Mute,
    /// There was no request, for a reason that the room `tls` looks at.
    NoHandshake,
}

impl Visit {
    /// Whether the server took the request, as far as that can be told, and didn't answer.
    pub fn stalls(&self) -> bool {
        self.outcome == Outcome::Stalled && !self.mute
    }

    /// Whether the server redirected at all.
    pub fn is_redirected(&self) -> bool {
        self.trail.len() > 1 || self.outcome.answer().is_some_and(|a| a.location.is_some())
    }

    /// The name of a site to which it was redirected in the end.
    pub fn told_name(&self) -> Option<String> {
        let next = redirect(&Url::parse(self.trail.last()?).ok()?, &self.outcome)?;
        let is_usual = matches!(next.scheme(), "http" | "https") && next.port().is_none();
        next.domain().filter(|_| is_usual && !self.loops).map(str::to_owned)
    }

    /// Whether it goes in a circle, and this site is one of its stations.
    pub fn is_circle_of(&self, host: &str) -> bool {
        let of = |url: &String| Url::parse(url).is_ok_and(|url| url.host_str() == Some(host));
        self.loops && self.trail.iter().any(of)
    }
}

impl Visitor {
    /// Whether he knows the machine's address only, and no site.
    pub fn names_no_site(&self) -> bool {
        is_address(&self.host)
    }

    /// Asks, and follows what leads here again. None where it is the handshake that fails.
    pub async fn visit(self) -> Option<Visit> {
        let mut visit = Visit {
            door: self.door,
            host: self.host.clone(),
            visitor: self.scheme,
            tls: self.tls,
            mute: false,
            trail: Vec::new(),
            outcome: Outcome::Failed(format!("`{}` is not a host name", self.host)),
            loops: false,
            slowest: Duration::ZERO,
            other: None,
        };
        let port = if self.port(self.scheme) { String::new() } else { format!(":{}", self.door.port()) };
        let Ok(mut url) = Url::parse(&format!("{}://{}{port}{}", self.scheme.as_str(), self.host, self.path)) else {
            return Some(visit);
        };
        if url.path() != self.path || url.query().is_some() || !url.username().is_empty() {
            return Some(visit);
        }
        let mut seen = Vec::new();
        loop {
            visit.trail.push(shown(&url));
            visit.outcome = match self.ask(&url).await {
                Asked::Came(outcome) => outcome,
                Asked::Mute => {
                    visit.mute = true;
                    Outcome::Stalled
                }
                Asked::NoHandshake => return None,
            };
            visit.slowest = visit.slowest.max(visit.outcome.answer().map_or(Duration::ZERO, |a| a.took));
            let Some(next) = redirect(&url, &visit.outcome) else { return Some(visit) };
            seen.push(url);
            let again = |url: &Url| seen.iter().any(|s| same(s, url));
            match self.leads(&next) {
                Leads::Away => return Some(visit),
                Leads::ToPlain => {
                    sleep(self.pause).await;
                    // What else port 80 does is seen by those who come there first.
                    let back = match self.ask(&next).await {
                        Asked::Came(outcome) => redirect(&next, &outcome).filter(|b| again(b)),
                        Asked::Mute | Asked::NoHandshake => None,
                    };
                    if let Some(back) = back {
                        visit.trail.extend([shown(&next), shown(&back)]);
                        visit.loops = true;
                    }
                    return Some(visit);
                }
                Leads::Here if again(&next) => {
                    visit.trail.push(shown(&next));
                    visit.loops = true;
                    return Some(visit);
                }
                Leads::Here if seen.len() == HOPS => return Some(visit),
                Leads::Here => {
                    sleep(self.pause).await;
                    url = next;
                }
            }
        }
    }

    async fn ask(&self, url: &Url) -> Asked {
        let name = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        let path = url.query().map_or_else(|| url.path().to_owned(), |q| format!("{}?{q}", url.path()));
        let visitor = if url.scheme() == "https" { Scheme::Https } else { Scheme::Http };
        let get = Get { host: &host, path: &path, visitor };
        if self.tls && visitor == Scheme::Https {
            return match url.domain().map(|name| ServerName::try_from(name.to_owned())).transpose() {
                Ok(name) => self.ask_over_tls(name, get).await,
                Err(_) => Asked::NoHandshake,
            };
        }
        let door = if self.tls { SocketAddr::new(self.door.ip(), 80) } else { self.door };
        Asked::Came(get_at(door, get, Limits { connect: CONNECT, answer: self.patience }).await)
    }

    async fn ask_over_tls(&self, name: Option<ServerName<'static>>, get: Get<'_>) -> Asked {
        let begun = Instant::now();
        let ask = tls::Ask { to: self.door, name, alpn: &ALPN_HTTP1, limit: self.patience };
        let done = match tls::handshake(&ask).await {
            Ok(done) => done,
            Err(failure) => {
                return match failure.how {
                    How::Refused => Asked::Came(Outcome::Refused),
                    How::Unanswered => Asked::Came(Outcome::Silent),
                    How::NoRoute => Asked::Came(Outcome::NoRoute),
                    How::Unconnected(why) => Asked::Came(Outcome::Failed(why)),
                    How::Silent => Asked::Mute,
                    _ => Asked::NoHandshake,
                };
            }
        };
        let shaken = begun.elapsed();
        let wants = done.shown.wants.is_some();
        let mut outcome = http::get(done.stream, get, self.patience).await;
        if let Outcome::Answered(answer) = &mut outcome {
            answer.took += shaken;
        }
        if wants && is_for_want_of_a_certificate(&outcome) { Asked::NoHandshake } else { Asked::Came(outcome) }
    }

    /// Whether a visitor by this scheme comes to this door without naming a port.
    fn port(&self, scheme: Scheme) -> bool {
        match (self.tls, scheme) {
            (true, _) => self.door.port() == 443,
            // By https only under Flexible.
            (false, Scheme::Https) => true,
            (false, Scheme::Http) => self.door.port() == 80,
        }
    }

    fn leads(&self, next: &Url) -> Leads {
        let bare = |name: &str| name.trim_start_matches("www.").trim_end_matches('.').to_ascii_lowercase();
        let Some(host) = next.host_str().map(bare) else { return Leads::Away };
        if !self.sites.iter().any(|s| bare(s) == host) {
            return Leads::Away;
        }
        match (next.scheme(), next.port_or_known_default()) {
            ("https", Some(port)) if self.tls && port == self.door.port() => Leads::Here,
            ("http", Some(80)) if self.tls && self.plain => Leads::ToPlain,
            _ if self.tls => Leads::Away,
            ("http", Some(port)) if port == self.door.port() => Leads::Here,
            // Cloudflare brings him by plain HTTP again.
            ("https", Some(443)) if self.scheme == Scheme::Https => Leads::Here,
            _ => Leads::Away,
        }
    }
}

/// Whether this is an address, as it stands in a URL.
pub(super) fn is_address(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Where a redirect leads.
#[derive(Debug, PartialEq, Eq)]
enum Leads {
    /// To another site, or another port, where others ask.
    Away,
    /// From HTTPS to the site's plain HTTP, which may lead back.
    ToPlain,
    /// To this door.
    Here,
}

/// Where an answer sends the visitor to.
fn redirect(from: &Url, outcome: &Outcome) -> Option<Url> {
    let answer = outcome.answer().filter(|a| matches!(a.status, 301 | 302 | 303 | 307 | 308))?;
    from.join(answer.location.as_deref()?).ok()
}

/// Whether a server that wants a client certificate ends it here, be it by an alert or, as nginx does, by a page.
fn is_for_want_of_a_certificate(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Closed => true,
        Outcome::Answered(answer) => tls::is_for_want_of_a_certificate(answer.status, &answer.body),
        _ => false,
    }
}

/// Whether it is the same to ask for: what comes after `#` stays in the browser.
fn same(a: &Url, b: &Url) -> bool {
    let bare = |u: &Url| {
        let mut u = u.clone();
        u.set_fragment(None);
        u
    };
    bare(a) == bare(b)
}

/// Without what may be secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(scheme: Scheme, door: u16, tls: bool) -> Visitor {
        let door = SocketAddr::from(([192, 0, 2, 1], door));
        let sites = vec!["shop.example".to_owned()];
        let host = "shop.example".into();
        let (pause, path, patience) = (Duration::ZERO, "/".into(), PATIENCE);
        Visitor { door, host, scheme, sites, tls, plain: true, pause, path, patience }
    }

    fn leads(scheme: Scheme, door: u16, to: &str) -> Leads {
        visitor(scheme, door, false).leads(&Url::parse(to).unwrap())
    }

    #[test]
    fn over_tls_https_leads_to_the_same_door_and_http_to_the_plain_one() {
        for (door, to, expected) in [
            (443, "https://www.shop.example/x", Leads::Here),
            (443, "https://shop.example:8443/", Leads::Away),
            (443, "http://shop.example/", Leads::ToPlain),
            (443, "http://shop.example:8080/", Leads::Away),
            (443, "https://login.example/", Leads::Away),
            (8443, "https://shop.example:8443/", Leads::Here),
            (8443, "https://shop.example/", Leads::Away),
        ] {
            assert_eq!(visitor(Scheme::Https, door, true).leads(&Url::parse(to).unwrap()), expected, "{door} {to}");
        }
        let alone = Visitor { plain: false, ..visitor(Scheme::Https, 443, true) };
        assert_eq!(alone.leads(&Url::parse("http://shop.example/").unwrap()), Leads::Away);
    }

    #[test]
    fn under_flexible_https_leads_to_the_same_door() {
        use Scheme::{Http, Https};
        for to in
            ["https://shop.example/", "https://www.shop.example/de/", "https://SHOP.example./", "http://shop.example/"]
        {
            assert_eq!(leads(Https, 80, to), Leads::Here, "{to}");
        }
        assert_eq!(leads(Http, 80, "http://shop.example/x"), Leads::Here);
        assert_eq!(leads(Http, 80, "https://shop.example/"), Leads::Away);
        assert_eq!(leads(Https, 80, "https://shop.example:8443/"), Leads::Away);
        assert_eq!(leads(Http, 8080, "http://shop.example:8080/x"), Leads::Here);
        assert_eq!(leads(Http, 8080, "http://shop.example/"), Leads::Away);
        assert_eq!(leads(Https, 80, "https://login.example/"), Leads::Away);
        assert_eq!(leads(Https, 80, "mailto:me@shop.example"), Leads::Away);
    }

    #[test]
    fn a_redirect_tells_a_name() {
        let told = |to: &str, loops: bool| {
            let rest = crate::probe::http::Rest::Whole;
            let answer = http::Answer {
                status: 301,
                location: Some(to.into()),
                server: None,
                body: vec![],
                rest,
                took: Duration::ZERO,
            };
            let visit = Visit {
                door: ([192, 0, 2, 1], 80).into(),
                host: "192.0.2.1".into(),
                visitor: Scheme::Https,
                tls: false,
                mute: false,
                trail: vec!["https://192.0.2.1/".into()],
                outcome: Outcome::Answered(answer),
                loops,
                slowest: Duration::ZERO,
                other: None,
            };
            visit.told_name()
        };
        let name = Some("shop.example".to_owned());
        for (to, expected) in [
            ("https://shop.example/", name.clone()),
            ("http://Shop.example/x?y", name),
            ("https://shop.example:8443/", None),
            ("https://192.0.2.7/", None),
            ("/login", None),
            ("mailto:a@shop.example", None),
        ] {
            assert_eq!(told(to, false), expected, "{to}");
        }
        assert_eq!(told("https://shop.example/", true), None);
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let url = Url::parse("https://me:pass@shop.example/a?token=1#there").unwrap();
        assert_eq!(shown(&url), "https://shop.example/a");
    }
}
