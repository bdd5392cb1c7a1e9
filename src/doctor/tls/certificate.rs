//! A certificate and its chain, read and judged: when, for whom, and whose word it is.
//!
//! Belongs here: facts about one chain. Does not: what they mean under which encryption mode ([`super::modes`]).

use std::{fmt, net::IpAddr};

use jiff::{Timestamp, tz::TimeZone};
use rustls::{CertificateError, Error as TlsError};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate, X509Name};

use super::roots::{Roots, verify};
use crate::probe::tls::words;

/// How many names of a certificate are told.
const NAMES: usize = 6;

/// What a certificate says, and what its chain is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// For whom it is, as it says itself: the common name, or all of the subject.
    pub subject: String,
    /// Who made it out.
    pub issuer: String,
    /// The names that it is for: DNS names, lower case, and addresses.
    pub names: Vec<String>,
    /// From when on.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Whose word it is.
    pub trust: Trust,
    /// How many certificates were sent.
    pub sent: usize,
    /// Whether its key is one of Ed25519 or Ed448.
    pub edwards: bool,
}

/// Whose word it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// That of a public authority.
    Known,
    /// That of an authority which this machine's store or `source.ca_file` holds, and the public doesn't know.
    Here,
    /// Cloudflare's Origin CA's, by the issuer's name.
    OriginCa,
    /// Nobody's but its own.
    SelfSigned,
    /// That of an authority that nobody knows.
    Unknown,
    /// The certificate of the authority that issued it, which says where it can be had, was not sent.
    Incomplete,
    /// The chain can't be accepted for this reason.
    Bad(String),
}

/// Something that keeps Cloudflare from accepting a certificate under Full (strict).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Expired(Timestamp),
    NotYetValid(Timestamp),
    WrongName,
    SelfSigned,
    UnknownIssuer,
    PrivateIssuer,
    Incomplete,
    Bad(String),
}

impl Fault {
    /// The finding's id.
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Expired(_) => "tls.expired",
            Self::NotYetValid(_) => "tls.not-yet-valid",
            Self::WrongName => "tls.wrong-name",
            Self::SelfSigned => "tls.self-signed",
            Self::UnknownIssuer => "tls.unknown-issuer",
            Self::PrivateIssuer => "tls.private-issuer",
            Self::Incomplete => "tls.incomplete-chain",
            Self::Bad(_) => "tls.untrusted",
        }
    }
}

/// A day, as it is written in a certificate's favour or against it.
pub(super) fn day(at: Timestamp) -> impl fmt::Display {
    at.to_zoned(TimeZone::UTC).date()
}

impl Certificate {
    /// Reads a chain.
    ///
    /// # Errors
    /// What is wrong with the first certificate, in words.
    pub fn read(chain: &[Vec<u8>], roots: &Roots, now: Timestamp) -> Result<Self, String> {
        let leaf = chain.first().ok_or("the server sent no certificate")?;
        let (_, x509) = X509Certificate::from_der(leaf).map_err(|e| format!("it can't be read: {e}"))?;
        // What never expires does so in the last second of 9999 (RFC 5280, 4.1.2.5), which is later than can be counted.
        let most = Timestamp::MAX.as_second();
        let time = |t: i64| Timestamp::from_second(t.min(most)).map_err(|e| format!("it can't be read: {e}"));
        let not_before = time(x509.validity().not_before.timestamp())?;
        let not_after = time(x509.validity().not_after.timestamp())?;
        Ok(Self {
            subject: common_name(x509.subject()),
            issuer: organization(x509.issuer()),
            names: names(&x509),
            not_before,
            not_after,
            trust: trust(&x509, chain, roots, now.min(not_after).max(not_before)),
            sent: chain.len(),
            edwards: is_edwards(&x509),
        })
    }

    /// Whether it is for this name. Wildcards stand for one label (RFC 6125, 6.4.3).
    pub fn is_for(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let under = host.split_once('.').map(|(_, under)| under);
        let is_address = host.parse::<IpAddr>().is_ok();
        self.names.iter().any(|name| {
            *name == host
                || (!is_address && name.strip_prefix("*.").is_some_and(|n| n.contains('.') && Some(n) == under))
        })
    }

    /// What speaks against it, the gravest first. A site's name is judged where there is one.
    pub fn faults(&self, host: Option<&str>, now: Timestamp) -> Vec<Fault> {
        let mut all = Vec::new();
        if now > self.not_after {
            all.push(Fault::Expired(self.not_after));
        }
        if now < self.not_before {
            all.push(Fault::NotYetValid(self.not_before));
        }
        if host.is_some_and(|h| !self.is_for(h)) {
            all.push(Fault::WrongName);
        }
        match &self.trust {
            Trust::SelfSigned => all.push(Fault::SelfSigned),
            Trust::Unknown => all.push(Fault::UnknownIssuer),
            Trust::Here => all.push(Fault::PrivateIssuer),
            Trust::Incomplete => all.push(Fault::Incomplete),
            Trust::Bad(why) => all.push(Fault::Bad(why.clone())),
            Trust::Known | Trust::OriginCa => {}
        }
        all
    }

    /// How many whole days are left.
    pub fn days_left(&self, now: Timestamp) -> i64 {
        self.not_after.duration_since(now).as_hours() / 24
    }

    /// Its names, the first few.
    pub fn names_told(&self) -> String {
        match self.names.get(..NAMES) {
            _ if self.names.is_empty() => "no name at all".to_owned(),
            Some(few) if self.names.len() > NAMES => {
                format!("{} and {} more", few.join(", "), self.names.len() - NAMES)
            }
            _ => self.names.join(", "),
        }
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "subject {}, for {}, from {} until {}, issued by {}, sent {}",
            self.subject,
            self.names_told(),
            self.not_before,
            self.not_after,
            self.issuer,
            if self.sent == 1 { "alone".to_owned() } else { format!("in a chain of {}", self.sent) }
        )
    }
}

fn common_name(name: &X509Name<'_>) -> String {
    name.iter_common_name().find_map(|n| n.as_str().ok()).map_or_else(|| name.to_string(), str::to_owned)
}

/// Organisation and common name, as far as they are there.
fn organization(name: &X509Name<'_>) -> String {
    let organization = name.iter_organization().find_map(|n| n.as_str().ok());
    let last = name.iter_common_name().chain(name.iter_organizational_unit()).find_map(|n| n.as_str().ok());
    match (organization, last) {
        (Some(o), Some(last)) => format!("{o} ({last})"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => name.to_string(),
    }
}

/// The alternative names; where no DNS name is among them (RFC 6125, 6.4.4), the common name, which Cloudflare takes as
/// well.
fn names(x509: &X509Certificate<'_>) -> Vec<String> {
    let mut all = Vec::new();
    if let Ok(Some(alternative)) = x509.subject_alternative_name() {
        for name in &alternative.value.general_names {
            match name {
                GeneralName::DNSName(name) => all.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => all.extend(address(bytes).map(|ip| ip.to_string())),
                _ => {}
            }
        }
    }
    if all.iter().all(|name| name.parse::<IpAddr>().is_ok()) {
        let common = x509.subject().iter_common_name().filter_map(|n| n.as_str().ok()).filter(|n| !n.is_empty());
        all.extend(common.map(str::to_ascii_lowercase));
    }
    all
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// `at` lies within the certificate's own dates, so that those don't speak against its issuer.
fn trust(x509: &X509Certificate<'_>, chain: &[Vec<u8>], roots: &Roots, at: Timestamp) -> Trust {
    if is_origin_ca(x509.issuer()) && x509.issuer() != x509.subject() {
        return Trust::OriginCa;
    }
    // By the names: a certificate that names itself as its issuer, and isn't, is trusted no more.
    if x509.issuer() == x509.subject() {
        return Trust::SelfSigned;
    }
    match verify(chain, &roots.public, at) {
        Ok(()) => Trust::Known,
        Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer))
            if verify(chain, &roots.here, at).is_ok() =>
        {
            Trust::Here
        }
        Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) if lacks_its_issuer(x509, chain) => {
            Trust::Incomplete
        }
        Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => Trust::Unknown,
        Err(TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            Trust::Bad("a certificate between it and the authority has expired".into())
        }
        Err(TlsError::InvalidCertificate(e)) => Trust::Bad(words::objection(&e)),
        Err(e) => Trust::Bad(words::reason(&e)),
    }
}

/// Whether the issuer's certificate was not sent though it could have been had: public authorities name the place
/// (RFC 5280, 4.2.2.1), those of one's own making seldom do.
fn lacks_its_issuer(x509: &X509Certificate<'_>, chain: &[Vec<u8>]) -> bool {
    let sent = chain.iter().skip(1).filter_map(|der| X509Certificate::from_der(der).ok());
    let has_issuer = sent.map(|(_, c)| c).any(|c| c.subject() == x509.issuer());
    let names_place = x509.iter_extensions().any(|e| {
        matches!(e.parsed_extension(), ParsedExtension::AuthorityInfoAccess(access)
        if access.accessdescs.iter().any(|a| {
            a.access_method == x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS
        }))
    });
    names_place && !has_issuer
}

/// Whether the key is of RFC 8410's kinds for signatures: 1.3.101.112 and 113.
fn is_edwards(x509: &X509Certificate<'_>) -> bool {
    matches!(x509.public_key().algorithm.algorithm.to_id_string().as_str(), "1.3.101.112" | "1.3.101.113")
}

/// `O=CloudFlare, Inc.` and `OU=CloudFlare Origin SSL Certificate Authority` or the ECC one.
fn is_origin_ca(issuer: &X509Name<'_>) -> bool {
    let has = |text: &str, part: &str| text.to_ascii_lowercase().contains(part);
    let organization = issuer.iter_organization().filter_map(|n| n.as_str().ok()).any(|o| has(o, "cloudflare"));
    let mut units = issuer.iter_organizational_unit().chain(issuer.iter_common_name()).filter_map(|n| n.as_str().ok());
    organization && units.any(|u| has(u, "cloudflare origin") && has(u, "certificate authority"))
}

/// Whether this is the name of the authority of Cloudflare's own Authenticated Origin Pulls:
/// `CN=origin-pull.cloudflare.net`.
pub(super) fn is_origin_pull(der: &[u8]) -> bool {
    X509Name::from_der(der).is_ok_and(|(_, name)| common_name(&name).eq_ignore_ascii_case("origin-pull.cloudflare.net"))
}

/// An authority's name for people.
pub(super) fn authority(der: &[u8]) -> String {
    X509Name::from_der(der)
        .map_or_else(|_| "an authority without a readable name".to_owned(), |(_, n)| organization(&n))
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
