//! Beyond the list: notes, also for who isn't root.

use std::net::UdpSocket;

use serde_json::Value;

use super::{doctor, expect_healthy, site};
use crate::lab::Lab;

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("findings");
    all.iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id} in {report:#}"))
}

fn shows(finding: &Value, n: usize) -> &str {
    finding["evidence"][n]["shows"].as_str().unwrap_or_else(|| panic!("no evidence {n}: {finding:#}"))
}

/// Writes into nginx's configuration that a client certificate of this authority is required. The running nginx isn't
/// told: what becomes of handshakes then is another room's.
fn require(lab: &Lab, authority: &str) {
    let more = "  ssl_client_certificate /etc/ssl/client-authority.pem;\n  ssl_verify_client on;";
    lab.write_file(site::NGINX_SITE, site::nginx_site(more));
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, authority);
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    lab.write_file("/etc/ssl/client-authority.pem", pem);
}

#[test]
fn any_customer_gets_in_unless_the_client_certificate_is_ones_own() {
    let lab = Lab::without_listeners();
    site::site(&lab);
    let report = doctor(&lab, &[]);
    expect_healthy(&report);
    let note = finding(&report, "beyond.any-customer");
    assert_eq!(note["verdict"], "note");
    assert!(shows(note, 0).starts_with("not required in any of the"), "{note:#}");

    require(&lab, "origin-pull.cloudflare.net");
    let report = doctor(&lab, &[]);
    let note = finding(&report, "beyond.any-customer");
    let source = note["evidence"][0]["source"].as_str().expect("a place");
    assert!(source.starts_with(site::NGINX_SITE), "{note:#}");
    assert!(note["text"].as_str().expect("a text").contains("all of them share"), "{note:#}");

    require(&lab, "Our own authority");
    let report = doctor(&lab, &[]);
    let note = finding(&report, "beyond.origin-pulls");
    assert_eq!(note["verdict"], "note", "{report:#}");
    assert!(note["text"].as_str().expect("a text").ends_with("see TLS"), "{note:#}");
}

#[test]
fn apache_is_asked_which_files_it_reads() {
    let lab = Lab::without_listeners();
    site::apache(&lab);
    expect_healthy(&doctor(&lab, &[]));
    lab.write_file(site::APACHE_SITE, site::apache_site("SSLVerifyClient require\n"));
    let report = doctor(&lab, &[]);
    let note = finding(&report, "beyond.origin-pulls");
    let source = note["evidence"][0]["source"].as_str().expect("a place");
    assert!(source.starts_with(site::APACHE_SITE), "{report:#}");
    // A configuration that doesn't parse is no cause here.
    lab.write_file(site::APACHE_SITE, "<VirtualHost *:443>\n");
    let skipped = doctor(&lab, &[]);
    assert_eq!(finding(&skipped, "beyond.unread")["verdict"], "skipped", "{skipped:#}");
}

#[test]
fn http3_is_left_to_cloudflare() {
    let lab = Lab::without_listeners();
    site::site(&lab);
    let closed = doctor(&lab, &[]);
    assert!(finding(&closed, "beyond.http3")["fix"].is_null());
    let _open = lab.inside(|| UdpSocket::bind("[::]:443").expect("bind"));
    let open = doctor(&lab, &[]);
    expect_healthy(&open);
    assert!(finding(&open, "beyond.http3")["fix"]["text"].is_string(), "{open:#}");
}

#[test]
fn without_root_there_is_a_text_to_send() {
    let lab = Lab::new();
    let doctor = "/usr/local/bin/edgeallow";
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", doctor, "doctor"];
    let report = lab.command([&nobody[..], &["--offline", "--format", "json", "site.example"]].concat()).run().json();
    let note = finding(&report["doctor"], "beyond.ask-hoster");
    assert!(shows(note, 0).contains("site.example is behind Cloudflare"), "{note:#}");
    let list = shows(note, 1).trim();
    assert!(list.lines().count() == 22 && list.lines().any(|l| l == "104.16.0.0/13"), "{list}");
    let words = lab.command([&nobody[..], &["--offline", "-v"]].concat()).run();
    assert!(words.stdout.lines().any(|l| l.trim() == "2400:cb00::/32"), "{words:?}");
    // What may not be read is said.
    lab.write_file("/etc/nginx/nginx.conf", "events {}\ninclude secret.conf;\n");
    lab.write_file("/etc/nginx/secret.conf", "");
    lab.chmod("/etc/nginx/secret.conf", 0o600);
    let report = lab.command([&nobody[..], &["--offline", "--format", "json"]].concat()).run().json();
    let skipped = finding(&report["doctor"], "beyond.unread");
    assert!(shows(skipped, 0).contains("/etc/nginx/secret.conf"), "{skipped:#}");
    let root = lab.edgeallow(["doctor", "--offline", "--format", "json"]).json();
    assert!(!root.to_string().contains("beyond.ask-hoster") && !root.to_string().contains("beyond.unread"));
}
