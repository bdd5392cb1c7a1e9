//! Making the handshakes.
//!
//! Belongs here: whom to ask, and what was answered. Does not: what that means ([`super::judge`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::task::JoinSet;

use super::{certificate::Certificate, roots::Roots};
use crate::{
    doctor::{Context, HTTPS_PORTS, online, site::Site},
    error::Result,
    probe::{
        self,
        tls::{self, ALPN, ALPN_HTTP1, Answer, Ask, Failure, How, Shown},
    },
};

/// An origin is near: Cloudflare itself waits longer.
const LIMIT: Duration = Duration::from_secs(5);
/// So many handshakes run beside each other: a server isn't to be put to the test here.
const BESIDE: usize = 16;

/// What a question is about.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The site's name, if one was given.
    pub host: Option<String>,
    /// The origin.
    pub at: SocketAddr,
    /// Whether plain HTTP could be had at port 80 of the same address; none if that can't be told.
    pub plain: Option<bool>,
}

/// One question, and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// What it is about.
    pub place: Place,
    /// The answer.
    pub outcome: Outcome,
}

/// What became of a question.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Nothing takes connections there.
    NotListening,
    /// It was not asked, for this reason.
    Skipped(String),
    /// It was asked.
    Asked(Box<Asked>),
}

/// What a server did.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// The handshake.
    pub handshake: std::result::Result<Shown, Failure>,
    /// What it did without a client certificate, if it wants one and finished the handshake.
    pub without: Option<Answer>,
    /// The certificate, or why it can't be read; none where none was shown.
    pub certificate: Option<std::result::Result<Certificate, String>>,
    /// Whether it speaks HTTP/2 and nothing else.
    pub only_http2: bool,
}

/// Asks every origin, on every HTTPS port that is asked about, for every name.
pub(super) fn gather(cx: &Context<'_>) -> Result<Vec<Look>> {
    let sites: Vec<Option<&String>> =
        if cx.ask.hosts.is_empty() { vec![None] } else { cx.ask.hosts.iter().map(Some).collect() };
    let mut places = Vec::new();
    for typed in sites {
        // What can't be a name is kept as it is: that it isn't asked for is said below.
        let site = typed.map(|t| t.parse().unwrap_or(Site { name: t.clone(), port: None }));
        let also = site.as_ref().and_then(|s| s.port);
        let ports: BTreeSet<u16> = cx.ports.iter().copied().chain(also).filter(|p| HTTPS_PORTS.contains(p)).collect();
        for port in ports {
            for &ip in &cx.origins {
                let plain = (is_here(cx, ip) && cx.listeners.is_ok()).then(|| !cx.listening(ip, 80).is_empty());
                let host = site.as_ref().map(|s| s.name.clone());
                let place = Place { host, at: SocketAddr::new(ip, port), plain };
                places.push((before(cx, &place), place));
            }
        }
    }
    let to_ask = places.iter().enumerate().filter_map(|(i, (before, place))| Some((i, place.at, before.clone().ok()?)));
    let to_ask: Vec<_> = to_ask.collect();
    if !to_ask.is_empty() {
        (cx.session.progress)("shaking hands over TLS");
    }
    let mut seen = probe::wait(ask_all(to_ask))?;
    let roots = Roots::of(&cx.session.config.source);
    let looks = places.into_iter().enumerate().map(|(i, (before, place))| {
        let filtered = cx.is_filtered(place.at.ip(), place.at.port());
        let outcome = match (before, seen.remove(&i)) {
            (Err(known), _) => known,
            (Ok(_), Some(seen)) => outcome(seen, filtered, &roots, cx.session.now),
            (Ok(_), None) => Outcome::Skipped("it was not asked".into()),
        };
        Look { place, outcome }
    });
    Ok(looks.collect())
}

/// What can be told before anything is asked, or the name to ask for.
fn before(cx: &Context<'_>, place: &Place) -> std::result::Result<Option<ServerName<'static>>, Outcome> {
    let (ip, port) = (place.at.ip(), place.at.port());
    let here = is_here(cx, ip);
    if here && cx.listeners.is_ok() && cx.listening(ip, port).is_empty() && !online::is_sent_on(cx, ip, port) {
        return Err(Outcome::NotListening);
    }
    if !here && cx.session.offline {
        return Err(Outcome::Skipped(format!("{ip} is not this machine's, and --offline was asked for")));
    }
    match &place.host {
        None => Ok(None),
        Some(host) => match ServerName::try_from(host.clone()) {
            Ok(name) => Ok(Some(name)),
            Err(_) => Err(Outcome::Skipped(format!("{host} is no name that a handshake can ask for"))),
        },
    }
}

fn is_here(cx: &Context<'_>, ip: IpAddr) -> bool {
    ip.is_loopback() || cx.links.iter().flat_map(|l| &l.addresses).any(|a| a.ip == ip)
}

/// A handshake; what came of going on without a client certificate; whether the server speaks HTTP/2 only.
type Seen = (std::result::Result<Shown, Failure>, Option<Answer>, bool);

async fn ask_all(mut to_ask: Vec<(usize, SocketAddr, Option<ServerName<'static>>)>) -> BTreeMap<usize, Seen> {
    let (mut running, mut done) = (JoinSet::new(), BTreeMap::new());
    loop {
        while running.len() < BESIDE
            && let Some((index, to, name)) = to_ask.pop()
        {
            running.spawn(async move { (index, ask(to, name).await) });
        }
        match running.join_next().await {
            Some(Ok((index, seen))) => drop(done.insert(index, seen)),
            // A panic in a probe is one of this program's, and ends it.
            Some(Err(e)) => std::panic::resume_unwind(e.into_panic()),
            None => return done,
        }
    }
}

async fn ask(to: SocketAddr, name: Option<ServerName<'static>>) -> Seen {
    let ask = Ask { to, name, alpn: &ALPN, limit: LIMIT };
    let shown = match tls::handshake(&ask).await {
        Ok(done) => done.shown,
        Err(failure) => return (Err(failure), None, false),
    };
    let speaks_http2 = shown.alpn.as_deref() == Some("h2");
    if shown.wants.is_none() && !speaks_http2 {
        return (Ok(shown), None, false);
    }
    let again = tls::handshake(&Ask { alpn: &ALPN_HTTP1, ..ask.clone() }).await;
    let only_http2 = speaks_http2 && again.as_ref().is_err_and(|f| f.how.objects_to_http1());
    if shown.wants.is_none() || only_http2 {
        return (Ok(shown), None, only_http2);
    }
    // With TLS 1.3 a server says only after the handshake that it doesn't go on, and nginx says so over HTTP.
    let host = ask.name.as_ref().map_or_else(|| to.ip().to_string(), |n| n.to_str().into_owned());
    let without = match again {
        Ok(done) => tls::go_on(done, &host, LIMIT).await,
        Err(_) => Answer::Closed,
    };
    (Ok(shown), Some(without), false)
}

fn outcome((handshake, without, only_http2): Seen, filtered: bool, roots: &Roots, now: jiff::Timestamp) -> Outcome {
    let (chain, connected) = match &handshake {
        Ok(shown) => (&shown.chain, Ok(())),
        Err(failure) => {
            let skipped = |why: &str| Err(why.to_owned());
            match &failure.how {
                How::Older { shown, .. } => (&shown.chain, Ok(())),
                How::Refused => (&failure.chain, skipped("the connection is refused")),
                How::Unanswered => (&failure.chain, skipped("the connection is not answered")),
                How::NoRoute => (&failure.chain, skipped("there is no route")),
                How::Unconnected(why) => (&failure.chain, skipped(&format!("there is no connection: {why}"))),
                How::Silent => (&failure.chain, skipped("the server takes connections and says nothing")),
                _ => (&failure.chain, Ok(())),
            }
        }
    };
    match connected {
        Err(why) if filtered => Outcome::Skipped(format!("{why}, and a packet filter is in the way")),
        Err(why) => Outcome::Skipped(why),
        Ok(()) => {
            let certificate = (!chain.is_empty()).then(|| Certificate::read(chain, roots, now));
            Outcome::Asked(Box::new(Asked { handshake, without, certificate, only_http2 }))
        }
    }
}
