//! What a failed attempt means: its kind, in plain words, what to do, and whether another attempt makes sense.
//!
//! Belongs here: reading the errors of the HTTP and TLS libraries and the status of an answer. Does not: carrying the
//! decision out ([`super::request`]).

use std::{error::Error as StdError, io, time::Duration};

use jiff::Timestamp;
use reqwest::{StatusCode, Url, header::HeaderMap};
use rustls::CertificateError;

use super::{Fault, client::Refused, config, text};
use crate::{
    error::{Error, ErrorKind, io_reason},
    probe::tls::words,
};

/// One attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whether another attempt makes sense.
    pub again: Again,
    /// Whether the server answered, but with something that is not a list.
    content: bool,
    kind: ErrorKind,
    what: String,
    hint: &'static str,
}

/// Whether and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would only fail again.
    Never,
    /// After a pause.
    Soon,
    /// After the pause that the server asked for.
    After(Duration),
}

impl Failure {
    fn new(kind: ErrorKind, what: impl Into<String>, hint: &'static str) -> Self {
        Self { again: Again::Never, content: false, kind, what: what.into(), hint }
    }

    fn soon(self) -> Self {
        Self { again: Again::Soon, ..self }
    }

    /// A whole answer that is not a list.
    fn content(kind: ErrorKind, what: &str) -> Self {
        let hint =
            "the address may be wrong, or something stands between this machine and the server; nothing was changed";
        Self { content: true, ..Self::new(kind, what, hint) }
    }

    /// The time for this document is over.
    pub fn out_of_time(timeout: Duration) -> Self {
        let what = format!("no complete answer within {}", seconds(timeout));
        Self::new(ErrorKind::FetchTimeout, what, "try again later, or raise source.timeout on a slow line")
    }

    /// The body is larger than a list can be.
    pub fn too_large(limit: usize) -> Self {
        let what = format!("the answer is larger than the {} KiB that a list can have", limit / 1024);
        Self::content(ErrorKind::FetchTooLarge, &what)
    }

    /// A "304 Not Modified" that nobody asked for.
    pub fn unasked_304() -> Self {
        let what = "the server answered 304 Not Modified though nothing was said to be stored here";
        Self::new(ErrorKind::FetchStatus, what, "a cache between this machine and the server may be at fault")
    }

    /// What happened, without the address.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The verdict after the last attempt.
    pub fn into_fault(self, url: &Url, attempts: u32) -> Fault {
        let times = if attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() };
        let error = Error::new(self.kind, format!("{}: {}{times}", config::shown(url), self.what)).hint(self.hint);
        if self.content { Fault::Bad(error) } else { Fault::Unreachable(error) }
    }
}

/// An answer whose status is neither 200 nor 304.
pub(super) fn status(status: StatusCode, headers: &HeaderMap, longest_wait: Duration) -> Failure {
    if status.is_redirection() {
        let what = format!("the server answered {status}, a redirect that leads nowhere");
        return Failure::new(ErrorKind::FetchRedirect, what, "write the final address into the configuration");
    }
    let hint = match status.as_u16() {
        401 | 403 => "the server refuses this machine: check the address, its credentials, and any proxy",
        404 | 410 => "check the address in the [source] section of the configuration",
        407 => "the proxy wants credentials: write them into HTTPS_PROXY",
        429 => "it was asked too often: run edgeallow less often",
        500..=599 => "the server has a fault of its own: try again later",
        _ => "check the address in the [source] section of the configuration, and any proxy",
    };
    let failure = Failure::new(ErrorKind::FetchStatus, format!("the server answered {status}"), hint);
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return failure;
    }
    match retry_after(headers, Timestamp::now()) {
        None => failure.soon(),
        Some(wait) if wait <= longest_wait => Failure { again: Again::After(wait), ..failure },
        Some(wait) => Failure { what: format!("{} and asks to wait {}", failure.what, seconds(wait)), ..failure },
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a u64 has is a very long time, too.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Why an attempt brought no answer, in words, without the address.
pub(crate) fn explain(error: &reqwest::Error, url: &Url, connect_timeout: Duration) -> String {
    transport(error, url, connect_timeout).what
}

/// An attempt that brought no answer at all, or an answer that broke off.
pub(super) fn transport(error: &reqwest::Error, url: &Url, connect_timeout: Duration) -> Failure {
    if let Some(refused) = find::<Refused>(error) {
        return Failure::new(
            ErrorKind::FetchRedirect,
            refused.to_string(),
            "write the final address into the configuration",
        );
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return handshake(tls);
    }
    if error.is_dns() {
        let host = url.host_str().unwrap_or_default();
        let what = format!("the name {host} can't be resolved: {}", reason(error));
        let hint = "check /etc/resolv.conf and the network; behind a proxy set HTTPS_PROXY";
        return Failure::new(ErrorKind::FetchDns, what, hint).soon();
    }
    if error.is_connect() && error.is_timeout() {
        let what = format!("no connection within {}", seconds(connect_timeout));
        let hint = "a firewall may drop the packets, or the name server is silent; behind a proxy set HTTPS_PROXY";
        return Failure::new(ErrorKind::FetchTimeout, what, hint).soon();
    }
    if error.is_connect() {
        let hint = "check the network and outgoing firewall rules; behind a proxy set HTTPS_PROXY";
        return Failure::new(ErrorKind::FetchConnect, format!("no connection: {}", reason(error)), hint).soon();
    }
    let what = format!("the connection broke before the answer: {}", reason(error));
    Failure::new(ErrorKind::FetchConnect, what, "try again later").soon()
}

/// A body that can't be read to its end.
pub(super) fn body(error: &reqwest::Error) -> Failure {
    let transfer = find::<hyper::Error>(error).is_some();
    let ended_early = find::<io::Error>(error).is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof);
    if transfer || ended_early {
        let what = format!("the answer broke off: {}", reason(error));
        return Failure::new(ErrorKind::FetchTruncated, what, "try again later").soon();
    }
    Failure::content(ErrorKind::ListNotAList, &format!("the answer's compression is damaged: {}", reason(error)))
}

fn handshake(error: &rustls::Error) -> Failure {
    use rustls::{AlertDescription::ProtocolVersion, Error as Tls};
    let clock = "check this machine's clock; if it is right, the server's owner must renew the certificate";
    let (what, hint) = match error {
        Tls::InvalidCertificate(e) => match e {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("the server's certificate has expired".into(), clock)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("the server's certificate is not valid yet".into(), clock)
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                "the server's certificate is for another name".into(),
                "check the address; something may stand between this machine and the server",
            ),
            CertificateError::UnknownIssuer => (
                "the server's certificate is from an authority that this machine doesn't know".into(),
                "install the package ca-certificates; for an inner mirror or proxy name its authority in source.ca_file",
            ),
            other => (
                format!("the server's certificate is refused: {}", words::objection(other)),
                "the server's owner must replace the certificate",
            ),
        },
        Tls::PeerIncompatible(_) | Tls::AlertReceived(ProtocolVersion) => (
            "the server and this program share no TLS version and cipher".into(),
            "the server must offer TLS 1.2 or newer",
        ),
        other => (words::reason(other), "check that the address is that of an https server, and any proxy"),
    };
    Failure::new(ErrorKind::FetchTls, what, hint)
}

/// The causes of an error, from the outside in. An `io::Error` that only wraps another one leads to that one.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| match e.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn StdError + 'static)),
        None => e.source(),
    })
}

fn find<T: StdError + 'static>(error: &reqwest::Error) -> Option<&T> {
    causes(error).find_map(|e| e.downcast_ref::<T>())
}

/// The innermost cause in its own words: the outer ones only say where it passed by.
fn reason(error: &reqwest::Error) -> String {
    reason_of(error)
}

fn reason_of(error: &(dyn StdError + 'static)) -> String {
    // An end that comes too early is said in many ways, none of which tells more; some bring a link to a library's manual.
    let mut io = causes(error).filter_map(|e| e.downcast_ref::<io::Error>());
    if io.any(|e| e.kind() == io::ErrorKind::UnexpectedEof) {
        return "it was closed too early".to_owned();
    }
    let Some(cause) = causes(error).last() else { return String::new() };
    let words = match cause.downcast_ref::<io::Error>() {
        Some(e) => io_reason(e),
        None => cause.to_string(),
    };
    text::clean(words.trim_start_matches("failed to lookup address information: "))
}

/// A length of time for people.
pub(crate) fn seconds(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{} s", time.as_secs()) } else { format!("{} ms", time.as_millis()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        let table = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:49:29 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (value, wait) in table {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", value.parse().unwrap());
            assert_eq!(retry_after(&headers, now), wait.map(Duration::from_secs), "{value:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_library_s_words_about_an_early_end_are_not_passed_on() {
        // As rustls makes it: an error whose inner one is its words.
        let words =
            "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/manual/";
        let cut = io::Error::new(io::ErrorKind::UnexpectedEof, words);
        assert_eq!(reason_of(&cut), "it was closed too early");
        assert_eq!(reason_of(&io::Error::other(cut)), "it was closed too early");
        assert_eq!(reason_of(&io::Error::other("odd")), "odd");
    }

    #[test]
    fn which_status_is_tried_again() {
        let again =
            |code: u16| status(StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), Duration::from_secs(10)).again;
        for code in [429, 500, 502, 503, 504] {
            assert_eq!(again(code), Again::Soon, "{code}");
        }
        for code in [204, 206, 301, 400, 401, 403, 404, 407, 410, 418] {
            assert_eq!(again(code), Again::Never, "{code}");
        }
    }
}
