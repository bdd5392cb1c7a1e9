//! One round: every page asked for through the edge and straight at the origin, all at once, and the firewalls looked at
//! where that is due or something fails.
//!
//! Belongs here: what is asked, in which order, and how long that may take. Does not: what it means ([`super::judge`]).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::{JoinSet, spawn_blocking};

use super::{
    judge::{Answers, Origin, Verdict, judge},
    settings::Target,
};
use crate::{
    probe::{
        edge::{Seen, Visitor},
        http::{self, Get, Limits, Outcome, Scheme},
        tls::{self, How},
    },
    report::{BackendReport, ReachReport},
};

/// How long each step of asking the origin may take: it is near.
const STEP: Duration = Duration::from_secs(10);

/// This machine, as far as a round needs it. Both calls may take their time and are made where nobody waits for them.
pub trait Host: Send + Sync + 'static {
    /// The addresses of the origin.
    fn origins(&self) -> Vec<IpAddr>;
    /// What packet filters and backends do. Nothing where the origin is another machine.
    fn look(&self) -> Option<Look>;
}

/// What a look at the firewalls found.
#[derive(Debug, Clone)]
pub struct Look {
    /// Whether Cloudflare gets through, or why that can't be told.
    pub reach: Result<ReachReport, String>,
    /// The backends, as `status` sees them.
    pub backends: Vec<BackendReport>,
}

/// What a round is to do.
#[derive(Clone)]
pub struct Plan {
    /// The pages, and whether each was odd before.
    pub pages: Vec<(Arc<Target>, bool)>,
    /// Whether the firewalls are looked at though nothing fails.
    pub look: bool,
    /// How long an answer through the edge is waited for.
    pub limit: Duration,
    /// Who asks through the edge; nobody where no connection may be opened.
    pub visitor: Option<Arc<Visitor>>,
}

/// What it brought.
#[derive(Debug)]
pub struct Round {
    /// The answers for each page, in the order of the plan.
    pub answers: Vec<Answers>,
    /// What a look found, if there was one.
    pub look: Option<Look>,
    /// How long all of it took.
    pub took: Duration,
}

/// Makes a round.
pub async fn round(host: Arc<dyn Host>, plan: Plan) -> Round {
    let began = Instant::now();
    let machine = Arc::clone(&host);
    let origins = spawn_blocking(move || machine.origins()).await.unwrap_or_default();
    let (limit, step) = (plan.limit, STEP.min(plan.limit));
    let mut asking = JoinSet::new();
    for (n, (target, _)) in plan.pages.iter().enumerate() {
        let (target, visitor) = (Arc::clone(target), plan.visitor.clone());
        asking.spawn(async move { (n, through_the_edge(visitor, &target, limit).await) });
    }
    let mut straight = JoinSet::new();
    for (n, (target, _)) in plan.pages.iter().enumerate() {
        for (m, ip) in origins.iter().copied().enumerate() {
            let target = Arc::clone(target);
            straight.spawn(async move { (n, m, ip, at_the_origin(&target, ip, step).await) });
        }
    }
    let look = plan.look.then(|| look(&host));
    let mut edges: Vec<Option<Seen>> = plan.pages.iter().map(|_| None).collect();
    while let Some(done) = asking.join_next().await {
        if let Ok((n, seen)) = done {
            edges[n] = Some(seen);
        }
    }
    let mut found: Vec<Vec<(usize, IpAddr, Origin)>> = plan.pages.iter().map(|_| Vec::new()).collect();
    while let Some(done) = straight.join_next().await {
        if let Ok((n, m, ip, origin)) = done {
            found[n].push((m, ip, origin));
        }
    }
    let answers: Vec<Answers> = edges
        .into_iter()
        .zip(found)
        .map(|(edge, mut origins)| {
            origins.sort_by_key(|(m, ..)| *m);
            Answers {
                edge: edge.unwrap_or_else(|| Seen::Unreachable("asking failed".to_owned())),
                origins: origins.into_iter().map(|(_, ip, origin)| (ip, origin)).collect(),
            }
        })
        .collect();
    let fails = plan
        .pages
        .iter()
        .zip(&answers)
        .any(|((_, odd), answers)| matches!(judge(answers, None, *odd).verdict, Verdict::Failing(_)));
    let look = match look {
        Some(look) => look.await,
        None if fails => self::look(&host).await,
        None => None,
    };
    Round { answers, look, took: began.elapsed() }
}

fn look(host: &Arc<dyn Host>) -> impl Future<Output = Option<Look>> + use<> {
    let host = Arc::clone(host);
    let looking = spawn_blocking(move || host.look());
    async move { looking.await.ok().flatten() }
}

async fn through_the_edge(visitor: Option<Arc<Visitor>>, target: &Target, limit: Duration) -> Seen {
    match visitor {
        Some(visitor) => visitor.visit(&target.url, limit).await,
        None => Seen::Unreachable("--offline: nobody outside was asked".to_owned()),
    }
}

/// Asks as Cloudflare would, at the port that the address names.
async fn at_the_origin(target: &Target, ip: IpAddr, limit: Duration) -> Origin {
    let to = SocketAddr::new(ip, target.port);
    let ask = Get { host: &target.host, path: &target.path, visitor: target.scheme };
    if target.scheme == Scheme::Http {
        return answered(http::get_at(to, ask, Limits { connect: limit, answer: limit }).await, None);
    }
    let handshake = tls::Ask { to, name: Some(target.name.clone()), alpn: &tls::ALPN_HTTP1, limit };
    match tls::handshake(&handshake).await {
        Ok(done) => {
            let objection = objection(&done.shown.chain);
            answered(http::get(done.stream, ask, limit).await, objection)
        }
        Err(failure) if failure.wants.is_some() => {
            Origin::Unsure("it wants a certificate that only Cloudflare has".to_owned())
        }
        Err(failure) if failure.how.objects_to_http1() => {
            Origin::Unsure("it speaks HTTP/2 only, which isn't asked in here".to_owned())
        }
        Err(failure) => failed(failure.how),
    }
}

fn answered(outcome: Outcome, objection: Option<&'static str>) -> Origin {
    let error = outcome.cloudflare_error();
    let how = match outcome {
        Outcome::Answered(answer) if error.is_none() => {
            return Origin::Answered { status: answer.status, took: answer.took, objection };
        }
        Outcome::Answered(_) => "the connection ends within the answer".to_owned(),
        Outcome::Refused => "the connection is refused".to_owned(),
        Outcome::Silent => "there is no answer to the connection".to_owned(),
        Outcome::NoRoute => "there is no way to it".to_owned(),
        Outcome::Closed => "the connection ends before there is an answer".to_owned(),
        Outcome::Garbled(_) => "what it answers is not HTTP".to_owned(),
        Outcome::Oversized => "the head of its answer is too long".to_owned(),
        Outcome::Stalled => "it takes the request and does not answer in time".to_owned(),
        Outcome::Failed(why) => return Origin::Unsure(why),
    };
    match error {
        Some(error) => Origin::Failed { error, how },
        None => Origin::Unsure(how),
    }
}

fn failed(how: How) -> Origin {
    let (error, how) = match how {
        How::Refused => (521, "the connection is refused".to_owned()),
        How::Unanswered => (522, "there is no answer to the connection".to_owned()),
        How::NoRoute => (523, "there is no way to it".to_owned()),
        How::Alert(name) => (525, format!("the TLS handshake fails: {name}")),
        How::Closed => (525, "the connection ends within the TLS handshake".to_owned()),
        How::Silent => (522, "it takes the connection and does not answer to the TLS handshake".to_owned()),
        How::NotTls { .. } => (525, "it doesn't speak TLS on that port".to_owned()),
        How::Older { offered: false, .. } => (525, "it speaks only TLS of older days".to_owned()),
        How::Older { offered: true, .. } => {
            return Origin::Unsure("it wants a cipher suite that can't be tried here".to_owned());
        }
        How::Unconnected(why) | How::Other(why) => return Origin::Unsure(why),
    };
    Origin::Failed { error, how }
}

/// What the mode Full (strict) would have against the certificate, as far as its dates tell.
fn objection(chain: &[Vec<u8>]) -> Option<&'static str> {
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let (validity, now) = (certificate.validity(), x509_parser::time::ASN1Time::now());
    match () {
        () if now > validity.not_after => Some("its certificate has expired: error 526 in the mode Full (strict)"),
        () if now < validity.not_before => {
            Some("its certificate is not valid yet: error 526 in the mode Full (strict)")
        }
        () => None,
    }
}
