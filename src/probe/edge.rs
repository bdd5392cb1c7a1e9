//! A page asked for as a visitor would: by its name, through whatever answers for it, most often Cloudflare's edge.
//!
//! The name is resolved as the system does it, the certificate has to be one that the system or `source.ca_file` vouches
//! for, no redirect is followed, and no connection is used twice.
//!
//! Belongs here: asking, and who it was that answered. Does not: what follows from that ([`crate::watch`]).

use std::time::Duration;

use reqwest::{
    Url,
    header::{CONNECTION, HeaderMap, SERVER},
};
use tokio::time::{Instant, timeout};

use crate::{
    error::Result,
    source::{Clients, SourceConfig, explain},
};

/// What a visitor sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// There is an answer.
    Answered(Answer),
    /// A connection was made, and there was no answer in time.
    Stalled,
    /// The edge could not be reached, and why: that says nothing of the origin.
    Unreachable(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Whether Cloudflare sent it: `server: cloudflare`, or a Ray ID.
    pub cloudflare: bool,
    /// Whether Cloudflare wants to know first if there is a human here, so that the origin wasn't asked.
    pub challenge: bool,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// The error, if it is Cloudflare's own: 520 to 527 and 530 (CLOUDFLARE.md, "The errors"). From anybody else these
    /// are an application's.
    #[must_use]
    pub const fn cloudflare_error(&self) -> Option<u16> {
        match self.status {
            status @ (520..=527 | 530) if self.cloudflare => Some(status),
            _ => None,
        }
    }
}

/// Somebody who visits pages.
pub struct Visitor {
    clients: Clients,
    connect_timeout: Duration,
}

impl Visitor {
    /// Reads the authorities.
    ///
    /// # Errors
    /// `config` if `source.ca_file` can't be used.
    pub fn new(source: &SourceConfig) -> Result<Self> {
        Ok(Self { clients: Clients::straight(source)?, connect_timeout: source.connect_timeout })
    }

    /// Asks for a page; it takes this long at most.
    pub async fn visit(&self, url: &Url, limit: Duration) -> Seen {
        let began = Instant::now();
        let request = self.clients.towards(url).get(url.clone()).header(CONNECTION, "close");
        match timeout(limit, request.send()).await {
            // The connection has a time of its own.
            Err(_) if limit > self.connect_timeout => Seen::Stalled,
            Err(_) => Seen::Unreachable(format!("no answer within {}", crate::source::seconds(limit))),
            Ok(Err(e)) => Seen::Unreachable(explain(&e, url, self.connect_timeout)),
            Ok(Ok(response)) => Seen::Answered(answer(response.status().as_u16(), response.headers(), began.elapsed())),
        }
    }
}

fn answer(status: u16, headers: &HeaderMap, took: Duration) -> Answer {
    let is = |name: &str, value: &str| {
        headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.trim().eq_ignore_ascii_case(value))
    };
    let cloudflare = is(SERVER.as_str(), "cloudflare") || headers.contains_key("cf-ray");
    Answer { status, cloudflare, challenge: cloudflare && is("cf-mitigated", "challenge"), took }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, fields: &[(&'static str, &'static str)]) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        answer(status, &headers, Duration::ZERO)
    }

    #[test]
    fn only_cloudflare_s_own_errors_are_taken_for_cloudflare_s() {
        assert_eq!(told(521, &[("server", "cloudflare")]).cloudflare_error(), Some(521));
        assert_eq!(told(526, &[("cf-ray", "9a2e4d-FRA")]).cloudflare_error(), Some(526));
        assert_eq!(told(521, &[("server", "nginx")]).cloudflare_error(), None);
        assert_eq!(told(502, &[("server", "cloudflare")]).cloudflare_error(), None);
        assert!(told(403, &[("cf-ray", "9a"), ("cf-mitigated", "challenge")]).challenge);
        assert!(!told(403, &[("cf-mitigated", "challenge")]).challenge);
    }
}
