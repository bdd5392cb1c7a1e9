use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use rustls::{RootCertStore, pki_types::CertificateDer};

use super::*;

/// An authority by these parts of its name.
fn issuer(name: &[(DnType, &str)]) -> (Issuer<'static, KeyPair>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, text) in name {
        params.distinguished_name.push(kind.clone(), *text);
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (Issuer::new(params, key), der)
}

/// A certificate of the year 2026 for these names.
fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    params
}

fn store(known: &[&Vec<u8>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    known.iter().for_each(|der| store.add(CertificateDer::from(der.as_slice())).unwrap());
    store
}

/// With these as the public authorities.
fn read(chain: &[Vec<u8>], known: &[&Vec<u8>]) -> Certificate {
    let roots = Roots { public: store(known), here: RootCertStore::empty() };
    Certificate::read(chain, &roots, at("2026-06-01")).unwrap()
}

fn at(day: &str) -> Timestamp {
    format!("{day}T12:00:00Z").parse().unwrap()
}

#[test]
fn whose_word_a_certificate_is() {
    let (lab, lab_der) = issuer(&[(DnType::OrganizationName, "Lab"), (DnType::CommonName, "Lab Root")]);
    let (_, other) = issuer(&[(DnType::CommonName, "Other")]);
    let (origin, _) = issuer(&[
        (DnType::OrganizationName, "CloudFlare, Inc."),
        (DnType::OrganizationalUnitName, "CloudFlare Origin SSL Certificate Authority"),
    ]);
    let key = KeyPair::generate().unwrap();
    let by = |issuer: &Issuer<'_, KeyPair>| params(&["a.example"]).signed_by(&key, issuer).unwrap().der().to_vec();
    let own = params(&["a.example"]).self_signed(&key).unwrap().der().to_vec();

    let known = read(&[by(&lab)], &[&lab_der]);
    assert_eq!((known.trust.clone(), known.issuer.as_str()), (Trust::Known, "Lab (Lab Root)"));
    assert_eq!(known.faults(Some("a.example"), at("2026-06-01")), []);
    assert_eq!(read(&[by(&lab)], &[&other]).trust, Trust::Unknown);
    assert_eq!(read(&[by(&origin)], &[&other]).trust, Trust::OriginCa);
    assert_eq!(read(&[own], &[&other]).trust, Trust::SelfSigned);
    assert_eq!(read(&[by(&lab)], &[]).trust, Trust::Unknown);
    let here = Roots { public: store(&[&other]), here: store(&[&other, &lab_der]) };
    let private = Certificate::read(&[by(&lab)], &here, at("2026-06-01")).unwrap();
    assert_eq!(private.trust, Trust::Here);
    assert_eq!(private.faults(Some("a.example"), at("2026-06-01")), [Fault::PrivateIssuer]);
    assert!(Certificate::read(&[b"no".to_vec()], &here, at("2026-06-01")).is_err());
}

#[test]
fn an_issuer_that_could_have_been_had_was_left_out() {
    let (root, root_der) = issuer(&[(DnType::CommonName, "Root")]);
    let key = KeyPair::generate().unwrap();
    let mut between = CertificateParams::default();
    between.distinguished_name.push(DnType::CommonName, "Between");
    between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let between_der = between.signed_by(&key, &root).unwrap().der().to_vec();
    let between = Issuer::new(between, key);
    let mut leaf = params(&["a.example"]);
    // AuthorityInfoAccess with one caIssuers, http://a/: SEQUENCE { SEQUENCE { OID 1.3.6.1.5.5.7.48.2, [6] URI } }.
    let access = b"\x30\x17\x30\x15\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x09http://a/".to_vec();
    leaf.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access)];
    let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &between).unwrap().der().to_vec();
    assert_eq!(read(std::slice::from_ref(&leaf), &[&root_der]).trust, Trust::Incomplete);
    assert_eq!(read(&[leaf.clone(), between_der.clone()], &[&root_der]).trust, Trust::Known);
    let (_, other) = issuer(&[(DnType::CommonName, "Other")]);
    assert_eq!(read(&[leaf, between_der], &[&other]).trust, Trust::Unknown);
}

#[test]
fn dates_and_names() {
    let (lab, der) = issuer(&[(DnType::CommonName, "Lab")]);
    let key = KeyPair::generate().unwrap();
    let names = ["a.example", "*.b.example", "192.0.2.1"];
    let leaf = params(&names).signed_by(&key, &lab).unwrap().der().to_vec();
    let one = read(&[leaf], &[&der]);
    for (host, is_for) in [
        ("a.example", true),
        ("A.Example.", true),
        ("www.a.example", false),
        ("www.b.example", true),
        ("b.example", false),
        ("x.www.b.example", false),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
    ] {
        assert_eq!(one.is_for(host), is_for, "{host}");
    }
    let faults = |day| one.faults(Some("a.example"), at(day));
    assert!(matches!(faults("2025-12-31")[..], [Fault::NotYetValid(_)]));
    assert!(matches!(faults("2027-01-01")[..], [Fault::Expired(_)]));
    assert_eq!(one.faults(Some("c.example"), at("2026-06-01")), [Fault::WrongName]);
    assert_eq!(one.faults(None, at("2026-06-01")), []);
    assert_eq!(one.days_left(at("2026-12-30")), 1);
}

#[test]
fn a_certificate_without_alternative_names_is_for_its_common_name() {
    let key = KeyPair::generate().unwrap();
    let mut plain = params(&[]);
    plain.distinguished_name = DistinguishedName::new();
    plain.distinguished_name.push(DnType::CommonName, "Old.Example");
    let (lab, der) = issuer(&[(DnType::CommonName, "Lab")]);
    let one = read(&[plain.signed_by(&key, &lab).unwrap().der().to_vec()], &[&der]);
    assert_eq!((one.names.clone(), one.is_for("old.example")), (vec!["old.example".to_owned()], true));
    assert_eq!(one.trust, Trust::Known);
}

#[test]
fn odd_certificates_are_read_as_cloudflare_would() {
    let (lab, der) = issuer(&[(DnType::CommonName, "Lab")]);
    let key = KeyPair::generate().unwrap();
    let named = |common: &str, names: &[&str]| {
        let mut odd = params(names);
        odd.distinguished_name = DistinguishedName::new();
        odd.distinguished_name.push(DnType::CommonName, common);
        read(&[odd.signed_by(&key, &lab).unwrap().der().to_vec()], &[&der])
    };
    // Addresses alone don't take the place of the common name; a DNS name does.
    let addresses = named("a.example", &["192.0.2.1", "2001:db8::1"]);
    assert!(addresses.is_for("a.example") && addresses.is_for("2001:db8::1") && !addresses.is_for("192.0.2.9"));
    assert!(!named("a.example", &["b.example"]).is_for("a.example"));
    let nobodys = named("", &[]);
    assert!(!nobodys.is_for("a.example") && !nobodys.is_for(""), "{nobodys:?}");
    // A name of another script is its ASCII form, and a wildcard stands for a whole label.
    let wide = named("x", &["*.xn--bcher-kva.example", "*.example", "w*.c.example"]);
    assert!(wide.is_for("www.xn--bcher-kva.example"));
    for not in ["xn--bcher-kva.example", "a.example", "www.c.example"] {
        assert!(!wide.is_for(not), "{not}");
    }

    let mut endless = params(&["a.example"]);
    endless.not_after = date_time_ymd(9999, 12, 31);
    let endless = read(&[endless.signed_by(&key, &lab).unwrap().der().to_vec()], &[&der]);
    assert_eq!((endless.trust.clone(), endless.faults(Some("a.example"), at("2026-06-01"))), (Trust::Known, vec![]));
    assert!(!endless.edwards);

    let edwards = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let edwards = read(&[params(&["a.example"]).signed_by(&edwards, &lab).unwrap().der().to_vec()], &[&der]);
    assert!(edwards.edwards && edwards.trust == Trust::Known);
}

#[test]
fn cloudflares_own_authority_for_origin_pulls_is_known_by_its_name() {
    let name = |parts: &[(DnType, &str)]| {
        let (_, der) = issuer(parts);
        X509Certificate::from_der(&der).unwrap().1.subject().as_raw().to_vec()
    };
    let pull = name(&[
        (DnType::CountryName, "US"),
        (DnType::OrganizationName, "CloudFlare, Inc."),
        (DnType::OrganizationalUnitName, "Origin Pull"),
        (DnType::CommonName, "origin-pull.cloudflare.net"),
    ]);
    assert!(is_origin_pull(&pull));
    assert!(!is_origin_pull(&name(&[(DnType::CommonName, "Ours")])));
    assert!(!is_origin_pull(b"\x30\x05no"));
    assert_eq!(authority(&pull), "CloudFlare, Inc. (origin-pull.cloudflare.net)");
}
