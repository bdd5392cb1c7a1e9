//! The HTTP client: which certificates and versions of TLS are accepted, which proxy is used, which redirects are followed.
//!
//! Belongs here: what holds for every request. Does not: asking, trying again, limits ([`super::request`]).

use std::{fmt, sync::Arc};

use reqwest::{Client, Url, redirect};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::config::{self, SourceConfig};
use crate::{
    error::{Error, ErrorKind, Result},
    host::read_bounded,
    probe::tls::words,
};

/// The largest file of authorities that is read: a whole system's have 300 kB.
const LARGEST_CA_FILE: u64 = 16 << 20;

/// How many redirects are followed for one document.
const HOPS: usize = 3;

/// Two clients: a proxy is for the world outside, never for this very machine.
pub(crate) struct Clients {
    direct: Client,
    proxied: Client,
}

impl Clients {
    /// Reads the system's authorities (or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name) and the operator's own.
    ///
    /// # Errors
    /// `config` if `ca_file` can't be read or holds no certificate.
    pub fn new(config: &SourceConfig) -> Result<Self> {
        Self::with(config, || redirect::Policy::custom(follow))
    }

    /// The same, which follow no redirect at all: what is sent must not go anywhere else, nor be lost on the way.
    ///
    /// # Errors
    /// As above.
    pub fn straight(config: &SourceConfig) -> Result<Self> {
        Self::with(config, redirect::Policy::none)
    }

    fn with(config: &SourceConfig, redirects: impl Fn() -> redirect::Policy) -> Result<Self> {
        let tls = tls(config)?;
        let build = |tls: ClientConfig, proxied: bool| {
            let builder = Client::builder()
                .user_agent(concat!("edgeallow/", env!("CARGO_PKG_VERSION")))
                .tls_backend_preconfigured(tls)
                .connect_timeout(config.connect_timeout)
                .redirect(redirects())
                .referer(false)
                .retry(reqwest::retry::never())
                .http1_only();
            let builder = if proxied { builder } else { builder.no_proxy() };
            builder.build().map_err(|e| Error::new(ErrorKind::Internal, format!("cannot set up the HTTP client: {e}")))
        };
        Ok(Self { direct: build(tls.clone(), false)?, proxied: build(tls, true)? })
    }

    /// The client for an address. Redirects stay on the same host, so the choice holds for the whole request.
    pub fn towards(&self, url: &Url) -> &Client {
        if config::is_loopback(url) { &self.direct } else { &self.proxied }
    }
}

/// The system's authorities (or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name) and the operator's own.
///
/// # Errors
/// `config` if `ca_file` can't be read or holds no certificate.
pub(crate) fn roots(config: &SourceConfig) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // A system without any, or with a broken one among them, is no fault yet: what can't be verified is refused later.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &config.ca_file {
        let wrong = |why: String| {
            Error::new(ErrorKind::Config, format!("source.ca_file {} can't be used: {why}", path.display()))
                .hint("it must be a readable PEM file with at least one CERTIFICATE block")
        };
        let pem = read_bounded(path, LARGEST_CA_FILE, true).map_err(|e| wrong(crate::error::io_reason(&e)))?;
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
            roots.add(certificate).map_err(|e| wrong(words::reason(&e)))?;
            found += 1;
        }
        if found == 0 {
            return Err(wrong("there is no certificate in it".into()));
        }
    }
    Ok(roots)
}

fn tls(config: &SourceConfig) -> Result<ClientConfig> {
    let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot set up TLS: {e}")))?
        .with_root_certificates(roots(config)?)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// A redirect that is not followed, and why: a piece of a sentence.
#[derive(Debug)]
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    match objection(attempt.previous(), attempt.url()) {
        None => attempt.follow(),
        Some(why) => attempt.error(why),
    }
}

/// What speaks against following a redirect. `been` are the addresses asked so far, the first one first.
fn objection(been: &[Url], to: &Url) -> Option<Refused> {
    let first = been.first()?;
    let target = config::shown(to);
    if to.host_str() != first.host_str() {
        return Some(Refused(format!("it redirects to another host, {target}")));
    }
    // Plain http stays allowed where it was allowed to begin with: on loopback. What began as https stays https.
    let plain_before = been.last().is_some_and(|u| u.scheme() == "http");
    if to.scheme() != "https" && !(to.scheme() == "http" && plain_before) {
        return Some(Refused(format!("it redirects to {target}, which is not https")));
    }
    (been.len() > HOPS).then(|| Refused(format!("it redirects more than {HOPS} times, last to {target}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_redirects_are_followed() {
        let url = |s: &str| s.parse::<Url>().unwrap();
        let table = [
            ("https://a.example/ips", "https://a.example/ips/", true),
            ("https://a.example/ips", "https://a.example:8443/ips", true),
            ("https://a.example/ips", "https://A.example/ips", true),
            ("https://a.example/ips", "http://a.example/ips", false),
            ("https://a.example/ips", "https://b.example/ips", false),
            ("https://a.example/ips", "https://www.a.example/ips", false),
            ("https://a.example/ips", "ftp://a.example/ips", false),
            ("https://127.0.0.1/ips", "http://127.0.0.1/ips", false),
            ("http://127.0.0.1/ips", "http://127.0.0.1:81/ips", true),
            ("http://127.0.0.1/ips", "https://127.0.0.1/ips", true),
            ("http://127.0.0.1/ips", "http://localhost/ips", false),
        ];
        for (from, to, followed) in table {
            assert_eq!(objection(&[url(from)], &url(to)).is_none(), followed, "{from} -> {to}");
        }
        let step = url("https://a.example/");
        assert!(objection(&vec![step.clone(); HOPS], &step).is_none());
        assert!(objection(&vec![step.clone(); HOPS + 1], &step).is_some());
        let up_and_down = [url("http://127.0.0.1/"), url("https://127.0.0.1/")];
        assert!(objection(&up_and_down, &url("http://127.0.0.1/")).is_some());
    }

    #[test]
    fn a_ca_file_that_is_none_is_a_configuration_error() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, empty) = (folder.path().join("missing.pem"), tempfile::NamedTempFile::new().unwrap());
        for path in [missing.as_path(), folder.path(), empty.path(), std::path::Path::new("/dev/zero")] {
            let config = SourceConfig { ca_file: Some(path.to_owned()), ..SourceConfig::default() };
            let error = Clients::new(&config).err().expect("it can't be used");
            assert_eq!(error.kind, ErrorKind::Config, "{error}");
            assert!(error.message.contains(&path.display().to_string()));
        }
    }
}
