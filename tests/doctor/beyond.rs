//! Beyond the list: notes, also for who isn't root.

use std::net::UdpSocket;

use serde_json::Value;

use super::{doctor, expect_healthy};
use crate::lab::Lab;

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("findings");
    all.iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id} in {report:#}"))
}

fn shows(finding: &Value, n: usize) -> &str {
    finding["evidence"][n]["shows"].as_str().unwrap_or_else(|| panic!("no evidence {n}: {finding:#}"))
}

/// A site of nginx's that requires a client certificate of this authority.
fn require(lab: &Lab, authority: &str) {
    let text = "server {\n  listen 443 ssl;\n  ssl_client_certificate /etc/ssl/client-authority.pem;\n  \
                ssl_verify_client on;\n}\n";
    lab.write_file("/etc/nginx/nginx.conf", "events {}\nhttp {\n  include /etc/nginx/sites-*/site;\n}\n");
    lab.write_file("/etc/nginx/sites-enabled/site", text);
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, authority);
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    lab.write_file("/etc/ssl/client-authority.pem", pem);
}

#[test]
fn any_customer_gets_in_unless_the_client_certificate_is_ones_own() {
    let lab = Lab::new();
    lab.write_file("/etc/nginx/nginx.conf", "events {}\nhttp { server { listen 443; } }\n");
    let report = doctor(&lab, &[]);
    expect_healthy(&report);
    let note = finding(&report, "beyond.any-customer");
    assert_eq!(
        (&note["verdict"], shows(note, 0)),
        (&"note".into(), "not required in the one file of the web server's configuration")
    );

    require(&lab, "origin-pull.cloudflare.net");
    let report = doctor(&lab, &[]);
    let note = finding(&report, "beyond.any-customer");
    assert_eq!(note["evidence"][0]["source"], "/etc/nginx/sites-enabled/site line 4");
    assert!(note["text"].as_str().expect("a text").contains("all of them share"), "{note:#}");

    require(&lab, "Our own authority");
    let report = doctor(&lab, &[]);
    expect_healthy(&report);
    assert_eq!(finding(&report, "beyond.origin-pulls")["verdict"], "ok", "{report:#}");
}

#[test]
fn apache_is_asked_which_files_it_reads() {
    let lab = Lab::new();
    lab.install(&["apachectl"], "apache2");
    lab.run(["mkdir", "-p", "/var/log/apache2"]);
    lab.run(["find", "/etc/apache2/sites-enabled", "/etc/nginx", "-mindepth", "1", "-delete"]);
    lab.run(["rm", "-f", "/etc/apache2/mods-enabled/evasive.load", "/etc/apache2/mods-enabled/evasive.conf"]);
    lab.run(["a2enmod", "-q", "ssl"]);
    let text = "<VirtualHost *:443>\n  ServerName site.example\n  SSLVerifyClient require\n</VirtualHost>\n";
    lab.write_file("/etc/apache2/sites-enabled/site.conf", text);
    let report = doctor(&lab, &[]);
    let note = finding(&report, "beyond.origin-pulls");
    assert_eq!(note["evidence"][0]["source"], "/etc/apache2/sites-enabled/site.conf line 3", "{report:#}");
    // A configuration that doesn't parse is no cause here.
    lab.write_file("/etc/apache2/sites-enabled/site.conf", "<VirtualHost *:443>\n");
    let skipped = doctor(&lab, &[]);
    assert_eq!(finding(&skipped, "beyond.unread")["verdict"], "skipped", "{skipped:#}");
}

#[test]
fn http3_is_left_to_cloudflare() {
    let lab = Lab::new();
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
