//! The fault server's certificates: right ones from an authority made up for this process, and wrong ones.

use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use super::faults::Fault;

/// A certificate authority that exists as long as this process.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, for `ca_file`.
    pub pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }
}

/// The authority whose file the `[source]` section names: one a process, so that servers can be mixed.
pub fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("edgeallow fault server"))
}

/// The server's side of TLS, with the certificate that the fault asks for.
pub fn tls(fault: Fault) -> Arc<ServerConfig> {
    let names = if fault == Fault::WrongHost {
        vec!["wrong.example".to_owned()]
    } else {
        ["127.0.0.1", "localhost", "edgeallow.test"].map(str::to_owned).to_vec()
    };
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(names).expect("plain names");
    match fault {
        Fault::Expired => {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        Fault::NotYetValid => params.not_before = date_time_ymd(3000, 1, 1),
        _ => {}
    }
    let certificate = match fault {
        Fault::SelfSigned => params.self_signed(&key),
        Fault::UnknownAuthority => params.signed_by(&key, &Authority::new("nobody knows me").issuer),
        _ => params.signed_by(&key, &authority().issuer),
    };
    let chain: Vec<CertificateDer<'static>> = vec![certificate.expect("a certificate").der().clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has all versions")
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("the key fits the certificate");
    Arc::new(config)
}
