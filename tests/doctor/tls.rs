//! Certificates and handshakes that Cloudflare would not take, shown by real web servers.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::Value;

use super::{
    doctor, expect_cause, expect_healthy, ids,
    site::{self, CHAIN, KEY, NAME},
};
use crate::lab::Lab;

/// Where another authority's certificate is.
const CLIENT_CA: &str = "/etc/ssl/site/clients.pem";

/// An authority made up for one test, by these parts of its name.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority(name: &[(DnType, &str)]) -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, text) in name {
        params.distinguished_name.push(kind.clone(), *text);
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("a certificate").pem();
    Authority { issuer: Issuer::new(params, key), pem }
}

fn ours() -> Authority {
    authority(&[(DnType::OrganizationName, "Lab"), (DnType::CommonName, "Lab Authority 2")])
}

/// A site of nginx's with this certificate; none means signed by itself. `trusted` authorities are public ones.
fn shows(params: &CertificateParams, by: Option<&Authority>, trusted: &[&Authority]) -> Lab {
    let lab = Lab::without_listeners();
    site::nginx_stopped(&lab, &site::nginx_site(""));
    let key = KeyPair::generate().expect("a key");
    let certificate = match by {
        Some(authority) => params.signed_by(&key, &authority.issuer),
        None => params.self_signed(&key),
    };
    lab.write_file(CHAIN, certificate.expect("a certificate").pem());
    lab.write_file(KEY, key.serialize_pem());
    trusted.iter().for_each(|authority| lab.publish(&authority.pem));
    site::start_nginx(&lab);
    lab
}

/// For the site, and for as long as these tests will ever run.
fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("plain names");
    (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2100, 1, 1));
    params
}

fn strict(lab: &Lab) -> Value {
    doctor(lab, &[NAME, "--mode", "strict"])
}

/// The finding about the mode: its text, and what it says of each.
fn mode(report: &Value) -> (String, Vec<String>) {
    let all = report["findings"].as_array().expect("findings");
    let mode = all.iter().find(|f| f["id"] == "tls.mode").unwrap_or_else(|| panic!("no mode: {report:#}"));
    let modes = mode["evidence"].as_array().expect("evidence")[1..].iter();
    (
        mode["text"].as_str().expect("a text").to_owned(),
        modes.map(|e| e["shows"].as_str().expect("a text").to_owned()).collect(),
    )
}

/// Only this cause under strict; a warning where the mode isn't known; and the mode to choose is Full.
fn expect_bad_certificate(lab: &Lab, id: &str, says: &str) {
    let report = strict(lab);
    let cause = expect_cause(&report, id, 526);
    let text = cause["text"].as_str().expect("a text");
    assert!(text.contains(says), "{text}");
    let (choose, modes) = mode(&report);
    assert_eq!(choose, format!("the mode to choose for {NAME} is Full"));
    assert_eq!(modes, ["works, by plain HTTP over port 80", "works", "Error 526"]);
    let report = doctor(lab, &[NAME]);
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec![id]), "{report:#}");
    expect_healthy(&doctor(lab, &[NAME, "--mode", "full"]));
}

#[test]
fn an_expired_certificate() {
    let ours = ours();
    let mut old = params(&[NAME]);
    (old.not_before, old.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 3, 4));
    expect_bad_certificate(&shows(&old, Some(&ours), &[&ours]), "tls.expired", "expired on 2021-03-04");
}

#[test]
fn a_certificate_that_is_not_valid_yet() {
    let ours = ours();
    let mut early = params(&[NAME]);
    (early.not_before, early.not_after) = (date_time_ymd(2098, 1, 1), date_time_ymd(2099, 1, 1));
    expect_bad_certificate(&shows(&early, Some(&ours), &[&ours]), "tls.not-yet-valid", "before 2098-01-01");
}

#[test]
fn a_self_signed_certificate() {
    expect_bad_certificate(&shows(&params(&[NAME]), None, &[]), "tls.self-signed", "is self-signed");
}

#[test]
fn a_certificate_of_an_authority_that_nobody_knows() {
    const STORE: &str = "/etc/ssl/certs/ca-certificates.crt";
    let ours = ours();
    let lab = shows(&params(&[NAME]), Some(&ours), &[]);
    expect_bad_certificate(&lab, "tls.unknown-issuer", "Lab (Lab Authority 2)");
    // That this machine trusts it is of no use at Cloudflare.
    lab.write_file(STORE, lab.read_file(STORE) + &ours.pem);
    expect_bad_certificate(&lab, "tls.private-issuer", "that this machine trusts");
}

#[test]
fn a_certificate_for_another_name() {
    let ours = ours();
    let lab = shows(&params(&["other.example", "www.other.example"]), Some(&ours), &[&ours]);
    expect_bad_certificate(&lab, "tls.wrong-name", "not for shop.example but for other.example, www.other.example");
    // Nobody has asked for a name here.
    let report = doctor(&lab, &["--mode", "strict"]);
    expect_healthy(&report);
    assert!(mode(&report).0.contains("if the certificate is for every name"), "{report:#}");
}

#[test]
fn a_certificate_that_nothing_has_renewed() {
    let ours = ours();
    let mut late = params(&[NAME]);
    late.not_after = (std::time::SystemTime::now() + std::time::Duration::from_secs(5 * 24 * 60 * 60)).into();
    let report = strict(&shows(&late, Some(&ours), &[&ours]));
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec!["tls.expires-soon"]), "{report:#}");
}

#[test]
fn no_certificate_for_the_name() {
    let lab = Lab::without_listeners();
    let other = "server {\n  listen 443 ssl default_server;\n  listen [::]:443 ssl default_server;\n  \
                 ssl_reject_handshake on;\n}\n";
    let plain: String =
        site::nginx_site("").lines().filter(|l| !l.contains("443 ssl")).map(|l| format!("{l}\n")).collect();
    site::nginx(&lab, &(other.to_owned() + &plain));
    for mode in ["full", "strict", "unknown"] {
        let report = doctor(&lab, &[NAME, "--mode", mode]);
        let cause = expect_cause(&report, "tls.no-certificate", 525);
        assert!(cause["evidence"][0]["shows"].as_str().expect("a text").contains("unrecognized_name"), "{cause:#}");
        assert_eq!(self::mode(&report).1, ["works, by plain HTTP over port 80", "Error 525", "Error 525"]);
    }
    // A server may well refuse those who name nobody.
    expect_healthy(&doctor(&lab, &["--mode", "strict"]));
}

#[test]
fn plain_http_on_the_https_port() {
    let lab = Lab::without_listeners();
    site::nginx(&lab, &site::nginx_site("").replace(" ssl http2", ""));
    let report = strict(&lab);
    let cause = expect_cause(&report, "tls.no-tls", 525);
    assert!(cause["text"].as_str().expect("a text").contains("plain HTTP"), "{cause:#}");
}

#[test]
fn nothing_newer_than_tls_1_0() {
    let lab = Lab::without_listeners();
    let old = "  ssl_ciphers ALL:@SECLEVEL=0;";
    site::nginx_stopped(&lab, &site::nginx_site(old).replace("TLSv1.2 TLSv1.3", "TLSv1"));
    // As many keep their sites: elsewhere, with a link.
    lab.run(["mv", site::NGINX_SITE, "/var/lib/shop.conf"]);
    lab.run(["ln", "-s", "/var/lib/shop.conf", site::NGINX_SITE]);
    lab.run(["nginx"]);
    let report = strict(&lab);
    let cause = expect_cause(&report, "tls.old-version", 525);
    assert!(cause["text"].as_str().expect("a text").contains("nothing newer than TLS 1.0"), "{cause:#}");
    // The command shows the line.
    let command = cause["fix"]["command"].as_str().expect("a command");
    let shown = lab.run(["sh", "-c", command]).stdout;
    let line = |l: &str| l.starts_with(site::NGINX_SITE) && l.ends_with("ssl_protocols TLSv1;");
    assert!(shown.lines().any(line) && !shown.contains("apache"), "{command}: {shown}");
}

/// A site that turns away clients without a certificate of this authority.
fn demanding(apache: bool, authority: &Authority) -> Lab {
    let lab = Lab::without_listeners();
    lab.write_file(CLIENT_CA, &authority.pem);
    if apache {
        let more = format!("SSLVerifyClient require\nSSLCACertificateFile {CLIENT_CA}\n");
        site::apache_stopped(&lab, &site::apache_site(&more));
        lab.run(["apachectl", "start"]);
    } else {
        let more = format!("  ssl_client_certificate {CLIENT_CA};\n  ssl_verify_client on;");
        site::nginx(&lab, &site::nginx_site(&more));
    }
    lab
}

#[test]
fn a_client_certificate_that_cloudflare_does_not_have() {
    let ours = authority(&[(DnType::CommonName, "Our Clients")]);
    // Apache ends the connection with an alert, nginx answers with a page.
    let report = strict(&demanding(true, &ours));
    let cause = expect_cause(&report, "tls.client-certificate", 525);
    assert!(cause["text"].as_str().expect("a text").contains("a certificate of Our Clients"), "{cause:#}");
    assert!(
        cause["evidence"][0]["shows"].as_str().expect("a text").contains("alert certificate_required"),
        "{cause:#}"
    );

    let lab = demanding(false, &ours);
    let report = strict(&lab);
    assert_eq!(ids(&report, "cause"), ["tls.client-certificate"], "{report:#}");
    let all = report["findings"].as_array().expect("findings");
    let of = |id: &str| all.iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id}: {report:#}"));
    let fix = of("tls.client-certificate")["fix"]["text"].as_str().expect("a text");
    assert!(fix.contains("upload a certificate") && fix.contains("Cloudflare's authority instead"), "{fix}");
    assert_eq!(of("beyond.origin-pulls")["verdict"], "note", "{report:#}");
    assert_eq!(mode(&report).0, format!("the mode to choose for {NAME} is Full (strict)"));
    let uploaded = doctor(&lab, &[NAME, "--mode", "strict", "--origin-pulls"]);
    expect_healthy(&uploaded);
    assert!(ids(&uploaded, "note").contains(&"tls.origin-pull"), "{uploaded:#}");
}

#[test]
fn authenticated_origin_pulls_of_cloudflares_own_are_no_fault() {
    let pull = authority(&[
        (DnType::OrganizationName, "CloudFlare, Inc."),
        (DnType::OrganizationalUnitName, "Origin Pull"),
        (DnType::CommonName, "origin-pull.cloudflare.net"),
    ]);
    for apache in [false, true] {
        let report = strict(&demanding(apache, &pull));
        expect_healthy(&report);
        assert!(!ids(&report, "skipped").iter().any(|id| id.starts_with("online.")), "{report:#}");
        assert!(ids(&report, "note").contains(&"tls.origin-pull"), "{report:#}");
    }
}

#[test]
fn a_certificate_of_cloudflares_origin_ca_is_good_for_strict() {
    let origin_ca = authority(&[
        (DnType::OrganizationName, "CloudFlare, Inc."),
        (DnType::OrganizationalUnitName, "CloudFlare Origin SSL Certificate Authority"),
    ]);
    let report = strict(&shows(&params(&[NAME]), Some(&origin_ca), &[]));
    expect_healthy(&report);
    assert!(ids(&report, "note").contains(&"tls.origin-ca"), "{report:#}");
    assert_eq!(mode(&report).0, format!("the mode to choose for {NAME} is Full (strict)"));
}

/// Cloudflare speaks it too, and what isn't asked for is not called broken.
#[test]
fn servers_of_http2_only() {
    let lab = Lab::without_listeners();
    for (by_alpn, skipped) in [(true, "tls.only-http2"), (false, "online.not-asked")] {
        let _server = site::Caddy::http2_only(&lab, by_alpn);
        let report = doctor(&lab, &[NAME, "--port", "443", "--mode", "strict"]);
        expect_healthy(&report);
        assert!(ids(&report, "skipped").contains(&skipped), "{report:#}");
    }
}

#[test]
fn healthy_sites_are_fit_for_strict() {
    for start in [site::site, site::apache] {
        let lab = Lab::without_listeners();
        start(&lab);
        for mode in ["flexible", "full", "strict", "unknown"] {
            let report = doctor(&lab, &[NAME, &format!("www.{NAME}"), "--mode", mode]);
            expect_healthy(&report);
            assert!(ids(&report, "ok").contains(&"tls.certificate"), "{report:#}");
        }
        let (choose, modes) = mode(&strict(&lab));
        assert_eq!(choose, format!("the mode to choose for {NAME} is Full (strict)"));
        assert_eq!(modes, ["works, by plain HTTP over port 80", "works", "works"]);
    }
}
