//! Where lists come from, and where news goes: the only code that opens a client socket.
//!
//! [`fetch`] asks Cloudflare's JSON API, and the two text lists where the API can't be reached. A source that can't be
//! *reached* makes way for the next; a source that answers with something that is not a list ends the search, for then
//! something is wrong that another source would only hide.
//!
//! What this folder promises of every request: https with TLS 1.2 or newer and a certificate that the system or
//! `source.ca_file` vouches for (plain http from loopback only), redirects within the same host and never away from
//! https, at most 64 KiB after decompression, at most `source.timeout` a document, three attempts at most.
//!
//! Belongs here: order of sources, HTTP, TLS, and the outer shape of the documents. Does not: prefixes and trust
//! ([`crate::allowlist`]), and the copies on disk.

mod client;
mod config;
mod failure;
pub mod json;
mod post;
mod request;
pub mod text;

use std::{fmt::Write as _, time::Duration};

use reqwest::Url;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

pub(crate) use client::{Clients, roots};
pub use config::SourceConfig;
pub(crate) use config::duration;
pub(crate) use failure::{explain, seconds};
pub use post::{Webhook, post};

use self::request::Answer;
use crate::error::{Error, ErrorKind, Result};

/// Which source answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The JSON API.
    Api,
    /// The two text lists.
    Text,
}

impl Origin {
    /// `api` or `text`: `source.origin` in the JSON report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Text => "text",
        }
    }
}

/// What was fetched. The prefixes in it are not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// The API's document: both families of one moment.
    Json(json::List),
    /// The two text lists, fetched one right after the other.
    Text {
        /// Lines of IPv4 prefixes.
        v4: Vec<u8>,
        /// Lines of IPv6 prefixes.
        v6: Vec<u8>,
    },
    /// The list that belongs to the [`Validator`] is still current.
    NotModified,
}

/// A successful fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Which source answered.
    pub origin: Origin,
    /// What it answered.
    pub document: Document,
    /// What to store beside the list, in place of any older one, and to give to the next [`fetch`].
    pub validator: Option<Validator>,
}

/// What lets a server say "not modified": the marks of a document, and which address they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validator {
    /// A digest of the address: the address itself may hold a password.
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
}

impl Validator {
    fn new(url: &Url, etag: Option<String>, last_modified: Option<String>) -> Self {
        Self { address: fingerprint(url), etag, last_modified }
    }

    fn is_for(&self, url: &Url) -> bool {
        self.address == fingerprint(url)
    }
}

fn fingerprint(url: &Url) -> String {
    Sha256::digest(url.as_str()).iter().take(16).fold(String::new(), |mut hex, byte| {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// An address as messages may show it: without user, password, and what stands in its query.
#[must_use]
pub fn shown(address: &str) -> String {
    // What can't be parsed can't be censored either.
    Url::parse(address).map_or_else(|_| "the configured address".into(), |url| config::shown(&url))
}

/// Why there is no list from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No answer that could be judged: name, connection, TLS, time, a refused redirect, a status other than 200.
    /// The caller steps down to the next source.
    Unreachable(Error),
    /// An answer that is not a list, or a configuration that can't be used: the run ends with the error's own exit.
    Bad(Error),
}

/// Fetches the list from the first source that can be reached, both families from that one source.
///
/// `stored` belongs to the API's document whose list is stored, if there is one; the text lists are always fetched
/// whole, because a "not modified" for one family only would mix the lists of two days. Each source that was stepped
/// over is added to `stepped_over`; what the last one says is the result.
///
/// The call blocks; how long at most is documented at [`SourceConfig::timeout`]. A name server that never answers
/// delays neither this call nor the end of the program beyond that.
///
/// # Errors
/// See [`Fault`]. Every error names the address, without credentials, and has a hint.
pub fn fetch(
    config: &SourceConfig,
    stored: Option<&Validator>,
    stepped_over: &mut Vec<Error>,
) -> Result<Fetched, Fault> {
    fetch_within(config, stored, stepped_over, None)
}

/// The same, given up after so long in all: for somebody who waits for an answer that an older list is good enough for.
///
/// # Errors
/// As above; `Unreachable` when the time is over.
pub fn fetch_within(
    config: &SourceConfig,
    stored: Option<&Validator>,
    stepped_over: &mut Vec<Error>,
    limit: Option<Duration>,
) -> Result<Fetched, Fault> {
    config.check().map_err(Fault::Bad)?;
    let clients = Clients::new(config).map_err(Fault::Bad)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(|e| {
        Fault::Bad(Error::new(
            ErrorKind::Internal,
            format!("cannot start the network runtime: {}", crate::error::io_reason(&e)),
        ))
    })?;
    let asked = in_order(&clients, config, stored, stepped_over);
    let outcome = match limit {
        None => runtime.block_on(asked),
        Some(limit) => runtime.block_on(async {
            timeout(limit, asked).await.unwrap_or_else(|_| {
                let what = format!("no source gave the list within {}", seconds(limit));
                let hint = "`edgeallow fetch` waits longer, and says what each of them answers";
                Err(Fault::Unreachable(Error::new(ErrorKind::FetchTimeout, what).hint(hint)))
            })
        }),
    };
    // Names are resolved on a thread of their own, which can't be stopped: dropping the runtime would wait for it.
    runtime.shutdown_background();
    outcome
}

async fn in_order(
    clients: &Clients,
    config: &SourceConfig,
    stored: Option<&Validator>,
    stepped_over: &mut Vec<Error>,
) -> Result<Fetched, Fault> {
    match api(clients, config, stored).await {
        Err(Fault::Unreachable(error)) => stepped_over.push(error),
        outcome => return outcome,
    }
    texts(clients, config).await
}

async fn api(clients: &Clients, config: &SourceConfig, stored: Option<&Validator>) -> Result<Fetched, Fault> {
    let url = config::endpoint(&config.api_url).map_err(Fault::Bad)?;
    let (document, validator) = match request::document(clients, config, &url, stored).await? {
        Answer::Document { body, validator } => (Document::Json(about(&url, json::parse(&body))?), validator),
        Answer::NotModified => (Document::NotModified, stored.cloned()),
    };
    Ok(Fetched { origin: Origin::Api, document, validator })
}

async fn texts(clients: &Clients, config: &SourceConfig) -> Result<Fetched, Fault> {
    let v4 = lines(clients, config, &config.v4_url).await?;
    let v6 = lines(clients, config, &config.v6_url).await?;
    Ok(Fetched { origin: Origin::Text, document: Document::Text { v4, v6 }, validator: None })
}

async fn lines(clients: &Clients, config: &SourceConfig, url: &str) -> Result<Vec<u8>, Fault> {
    let url = config::endpoint(url).map_err(Fault::Bad)?;
    match request::document(clients, config, &url, None).await? {
        Answer::Document { body, .. } => {
            about(&url, text::check(&body))?;
            Ok(body)
        }
        Answer::NotModified => Err(failure::Failure::unasked_304().into_fault(&url, 1)),
    }
}

/// A verdict on a document, with the address that it came from.
fn about<T>(url: &Url, verdict: Result<T>) -> Result<T, Fault> {
    verdict.map_err(|e| Fault::Bad(Error { message: format!("{}: {}", config::shown(url), e.message), ..e }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_in_time_that_no_source_answers() {
        // Connections to it are made by the kernel and taken by nobody.
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/ips", mute.local_addr().unwrap());
        let config = SourceConfig { api_url: url.clone(), v4_url: url.clone(), v6_url: url, ..SourceConfig::default() };
        let begun = std::time::Instant::now();
        let fetched = fetch_within(&config, None, &mut Vec::new(), Some(Duration::from_millis(50)));
        assert!(begun.elapsed() < config.timeout, "{:?}", begun.elapsed());
        let Err(Fault::Unreachable(error)) = fetched else { panic!("{fetched:?}") };
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::FetchTimeout, "no source gave the list within 50 ms")
        );
    }

    #[test]
    fn a_validator_is_for_its_own_address_only_and_keeps_no_secret() {
        let url = |s: &str| s.parse::<Url>().unwrap();
        let at = url("https://me:secret@mirror.example/ips?networks=jdcloud");
        let validator = Validator::new(&at, Some("\"x\"".into()), None);
        assert!(validator.is_for(&at));
        assert!(!validator.is_for(&url("https://me:secret@mirror.example/ips")));
        assert_eq!(shown(at.as_str()), "https://mirror.example/ips?…");
        assert_eq!(shown("secret"), "the configured address");
        let stored = serde_json::to_string(&validator).unwrap();
        assert!(!stored.contains("secret"), "{stored}");
        assert_eq!(serde_json::from_str::<Validator>(&stored).unwrap(), validator);
    }
}
