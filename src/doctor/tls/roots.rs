//! Authorities: those that everybody knows, and those that only this machine knows.
//!
//! Cloudflare judges by a list of its own, not by the store of the origin. Mozilla's, as the `webpki-roots` crate holds it,
//! is nearest to it: an authority that somebody put into this machine's store is in neither.
//!
//! Belongs here: the two lists, and verifying a chain by one. Does not: what follows ([`super::certificate`]).

use std::time::Duration;

use jiff::Timestamp;
use rustls::{
    RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};

use crate::source::SourceConfig;

/// Authorities by who knows them.
#[derive(Debug)]
pub(super) struct Roots {
    /// The public ones.
    pub public: RootCertStore,
    /// All that this machine's store and `source.ca_file` hold, the public ones among them.
    pub here: RootCertStore,
}

impl Roots {
    pub fn of(config: &SourceConfig) -> Self {
        let mut public = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        public.add_parsable_certificates(more());
        // A file that can't be used is said by whoever fetches the list; here it makes an unknown authority of a private one.
        let here = crate::source::roots(config).unwrap_or_else(|_| RootCertStore::empty());
        Self { public, here }
    }
}

#[cfg(not(feature = "fault-injection"))]
const fn more() -> [CertificateDer<'static>; 0] {
    []
}

/// What tests want to be public: the certificates of the file that `EDGEALLOW_PUBLIC_ROOTS` names.
#[cfg(feature = "fault-injection")]
fn more() -> Vec<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;

    let Some(path) = std::env::var_os("EDGEALLOW_PUBLIC_ROOTS") else { return Vec::new() };
    CertificateDer::pem_file_iter(path).map(|all| all.flatten().collect()).unwrap_or_default()
}

/// Whether a chain leads to one of these authorities, for a server, at that time.
///
/// # Errors
/// What is against it.
pub(super) fn verify(chain: &[Vec<u8>], roots: &RootCertStore, at: Timestamp) -> Result<(), rustls::Error> {
    let ders: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let (leaf, between) = ders.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().try_into().unwrap_or(0)));
    let known = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&ParsedCertificate::try_from(leaf)?, roots, between, at, known)
}
