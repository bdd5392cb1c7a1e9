//! One visitor's way through the redirects of one site, as Cloudflare would carry his requests to the origin.
//!
//! Belongs here: requests, and which of the redirects lead back here. Does not: what the way means (`judge`).

use std::{net::SocketAddr, time::Duration};

use reqwest::Url;

use crate::probe::http::{Get, Limits, Outcome, Scheme, get_at};

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
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visit {
    pub door: SocketAddr,
    pub host: String,
    pub visitor: Scheme,
    /// What was asked for, in order, without queries.
    pub trail: Vec<String>,
    /// What became of the last request.
    pub outcome: Outcome,
    /// Whether the last redirect leads to something that was asked for before.
    pub loops: bool,
    /// Whether it leads to the site's own HTTPS, which isn't asked for here.
    pub to_tls: bool,
    /// The longest that an answer took.
    pub slowest: Duration,
}

impl Visitor {
    /// Asks, and follows what leads here again.
    pub async fn visit(self) -> Visit {
        let mut visit = Visit {
            door: self.door,
            host: self.host.clone(),
            visitor: self.scheme,
            trail: Vec::new(),
            outcome: Outcome::Failed(format!("`{}` is not a host name", self.host)),
            loops: false,
            to_tls: false,
            slowest: Duration::ZERO,
        };
        let port = if self.port(self.scheme) { String::new() } else { format!(":{}", self.door.port()) };
        let Ok(mut url) = Url::parse(&format!("{}://{}{port}/", self.scheme.as_str(), self.host)) else {
            return visit;
        };
        if url.path() != "/" || url.query().is_some() || !url.username().is_empty() {
            return visit;
        }
        let mut seen = Vec::new();
        loop {
            visit.trail.push(shown(&url));
            visit.outcome = self.ask(&url).await;
            let Some(answer) = visit.outcome.answer() else { return visit };
            visit.slowest = visit.slowest.max(answer.took);
            let location = answer.location.as_deref().filter(|_| matches!(answer.status, 301 | 302 | 303 | 307 | 308));
            let Some(next) = location.and_then(|l| url.join(l).ok()) else { return visit };
            seen.push(url);
            match self.leads(&next) {
                Leads::Away => return visit,
                Leads::ToTls => {
                    visit.to_tls = true;
                    return visit;
                }
                Leads::Here if seen.iter().any(|s| same(s, &next)) => {
                    visit.trail.push(shown(&next));
                    visit.loops = true;
                    return visit;
                }
                Leads::Here if seen.len() == HOPS => return visit,
                Leads::Here => url = next,
            }
        }
    }

    async fn ask(&self, url: &Url) -> Outcome {
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = url.query().map_or_else(|| url.path().to_owned(), |q| format!("{}?{q}", url.path()));
        let visitor = if url.scheme() == "https" { Scheme::Https } else { Scheme::Http };
        let limits = Limits { connect: CONNECT, answer: PATIENCE };
        get_at(self.door, Get { host: &host, path: &path, visitor }, limits).await
    }

    /// Whether a visitor by this scheme comes to this door without naming a port.
    fn port(&self, scheme: Scheme) -> bool {
        // By https only under Flexible.
        scheme == Scheme::Https || self.door.port() == 80
    }

    fn leads(&self, next: &Url) -> Leads {
        let bare = |name: &str| name.trim_start_matches("www.").trim_end_matches('.').to_ascii_lowercase();
        let Some(host) = next.host_str().map(bare) else { return Leads::Away };
        if !self.sites.iter().any(|s| bare(s) == host) {
            return Leads::Away;
        }
        match (next.scheme(), next.port_or_known_default()) {
            ("http", Some(port)) if port == self.door.port() => Leads::Here,
            // Cloudflare brings him by plain HTTP again.
            ("https", Some(443)) if self.scheme == Scheme::Https => Leads::Here,
            ("https", _) => Leads::ToTls,
            _ => Leads::Away,
        }
    }
}

/// Where a redirect leads.
#[derive(Debug, PartialEq, Eq)]
enum Leads {
    /// To another site, or another port.
    Away,
    /// To the site's own HTTPS.
    ToTls,
    /// To this door.
    Here,
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

    fn leads(scheme: Scheme, door: u16, to: &str) -> Leads {
        let door = SocketAddr::from(([192, 0, 2, 1], door));
        let sites = vec!["shop.example".to_owned()];
        Visitor { door, host: "shop.example".into(), scheme, sites }.leads(&Url::parse(to).unwrap())
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
        assert_eq!(leads(Http, 80, "https://shop.example/"), Leads::ToTls);
        assert_eq!(leads(Https, 80, "https://shop.example:8443/"), Leads::ToTls);
        assert_eq!(leads(Http, 8080, "http://shop.example:8080/x"), Leads::Here);
        assert_eq!(leads(Http, 8080, "http://shop.example/"), Leads::Away);
        assert_eq!(leads(Https, 80, "https://login.example/"), Leads::Away);
        assert_eq!(leads(Https, 80, "mailto:me@shop.example"), Leads::Away);
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let url = Url::parse("https://me:pass@shop.example/a?token=1#there").unwrap();
        assert_eq!(shown(&url), "https://shop.example/a");
    }
}
