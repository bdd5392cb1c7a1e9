//! What the doctor says of conditions on addresses, in both servers' languages.

use super::*;
use crate::doctor::directives::tests::{said_by_apache, said_by_nginx};

const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn edge() -> Prefixes {
    ["173.245.48.0/20", "104.16.0.0/13", "2400:cb00::/32"].iter().map(|n| n.parse::<IpNet>().expect("a net")).collect()
}

fn asking<'a>(edge: &'a Prefixes, hosts: &'a [String]) -> Asking<'a> {
    Asking { edge, own: &[OWN], doors: &[(OWN, 80), (OWN, 443)], hosts, mode: Mode::Unknown }
}

fn of_nginx(config: &str) -> Vec<Finding> {
    nginx(&said_by_nginx(&format!("http {{ {config} }}")), &asking(&edge(), &[]))
}

fn of_apache(config: &str) -> Vec<Finding> {
    let said = said_by_apache(&format!("DocumentRoot /var/www\n{config}"));
    apache(&Apache::new(&said, &|_| Ok(None)), &said, &asking(&edge(), &[]))
}

fn texts(found: &[Finding]) -> Vec<&str> {
    found.iter().map(|f| f.text.as_str()).collect()
}

#[test]
fn nginx_conditions_are_named_with_whom_they_refuse() {
    let bad = "geo $bad { default 0; 173.245.48.0/20 1; }";
    let one = "nginx denies Cloudflare's 173.245.48.0/20, or a part of it: its visitors";
    let forbidden = "see 403 Forbidden";
    for (config, said) in [
        (format!("{bad} server {{ if ($bad) {{ return 403; }} }}"), vec![format!("{one} {forbidden}")]),
        (format!("{bad} server {{ if ($bad) {{ return 503; }} }}"), vec![format!("{one} see status 503")]),
        (
            format!("{bad} server {{ if ($bad) {{ return 444; }} }}"),
            vec![format!("{one} get no answer (`return 444`)")],
        ),
        (
            "geo $ok { default 0; 203.0.113.0/24 1; } server { if ($ok = 0) { return 403; } }".to_owned(),
            vec![format!("nginx denies all of Cloudflare: its visitors {forbidden}")],
        ),
        (
            "server { if ($remote_addr ~ ^173\\.245\\.) { return 403; } }".to_owned(),
            vec![format!("nginx denies some of Cloudflare's 173.245.48.0/20: its visitors {forbidden}")],
        ),
        (
            "server { if ($remote_addr !~ ^203\\.) { return 403; } }".to_owned(),
            vec![format!("nginx denies addresses of all of Cloudflare's ranges: its visitors {forbidden}")],
        ),
        // Whoever the visitor is, it is he who is asked for; where his address isn't shown, it is Cloudflare's.
        (
            format!(
                "{bad} real_ip_header CF-Connecting-IP; set_real_ip_from 173.245.48.0/20; server {{ if ($bad) {{ return 403; }} }}"
            ),
            vec![],
        ),
        (
            format!(
                "{bad} real_ip_header CF-Connecting-IP; set_real_ip_from 104.16.0.0/13; server {{ if ($bad) {{ return 403; }} }}"
            ),
            vec![format!("{one} {forbidden}")],
        ),
        (format!("{bad} real_ip_header X-Other; set_real_ip_from 0.0.0.0/0; server {{ if ($bad) {{ return 403; }} }}"), vec![]),
        (
            "geo $realip_remote_addr $peer { default 0; 173.245.48.0/20 1; } real_ip_header CF-Connecting-IP; \
             set_real_ip_from 0.0.0.0/0; set_real_ip_from ::/0; server { if ($peer) { return 403; } }"
                .to_owned(),
            vec![format!("{one} {forbidden}")],
        ),
        (
            "geo $cf { default 0; 173.245.48.0/20 1; 104.16.0.0/13 1; 2400:cb00::/32 1; } real_ip_header \
             CF-Connecting-IP; set_real_ip_from 0.0.0.0/0; set_real_ip_from ::/0; server { if ($cf = 0) { return 403; } }"
                .to_owned(),
            vec![format!(
                "nginx lets in Cloudflare's addresses only, after it has put the visitors' in their place: all of them \
                 {forbidden}"
            )],
        ),
        // What nobody understands.
        ("server { if ($bad) { return 403; } }".to_owned(), vec![]),
        ("geo $arg_ip $bad { default 1; } server { if ($bad) { return 403; } }".to_owned(), vec![]),
    ] {
        let found = of_nginx(&config);
        let causes: Vec<&Finding> = found.iter().filter(|f| f.verdict == Finds::Cause).collect();
        assert_eq!(causes.iter().map(|f| f.text.clone()).collect::<Vec<_>>(), said, "{config}");
        let errors: &[u16] = if config.contains("444") { &[520] } else { &[] };
        assert!(causes.iter().all(|f| f.cloudflare_errors == errors), "{config}");
    }
}

#[test]
fn a_condition_weighs_what_a_list_weighs() {
    let bad = "geo $bad { default 0; 173.245.48.0/20 1; }";
    let by = "if ($bad) { return 403; }";
    let two = format!("{bad} server {{ server_name a.example; {by} }} server {{ server_name b.example; }}");
    let verdicts = |config: &str| of_nginx(config).iter().map(|f| f.verdict).collect::<Vec<_>>();
    assert_eq!(verdicts(&two), [Finds::Warning], "another site is open");
    let ports = format!("{bad} server {{ listen 80; {by} }} server {{ listen 443 ssl; }}");
    assert_eq!(verdicts(&ports), [Finds::Warning], "HTTPS is open");
    let redirect =
        format!("{bad} server {{ listen 80; {by} return 301 https://x/; }} server {{ listen 443 ssl; {by} }}");
    assert_eq!(verdicts(&redirect), [Finds::Cause], "and once, for one line");
    let own = of_nginx("geo $own { default 0; 192.0.2.1 1; } server { if ($own) { return 444; } }");
    assert_eq!((own[0].id, own[0].verdict), ("firewall.own-denied", Finds::Note));
    assert_eq!(own[0].evidence[0].shows, "geo $own { 192.0.2.1 1; }");
    // Two names that one line denies.
    let hosts = ["a.example", "b.example", "c.example"].map(str::to_owned);
    let config = format!(
        "http {{ {bad} server {{ server_name a.example b.example; {by} }} server {{ server_name c.example; }} }}"
    );
    let found = nginx(&said_by_nginx(&config), &asking(&edge(), &hosts));
    assert!(found[0].text.contains(" for a.example and b.example: "), "{:?}", texts(&found));
}

#[test]
fn the_line_of_a_table_that_refuses_is_to_be_mended() {
    let fix = |config: &str| of_nginx(config).remove(0).fix.expect("a fix").text;
    let by = "server { if ($v) { return 403; } }";
    for (table, wanted) in [
        ("geo $v { default 0; 173.245.48.0/20 1; }", "take Cloudflare's addresses out of `geo $v` in"),
        ("map $remote_addr $v { default 0; ~^173 1; }", "take Cloudflare's addresses out of `map $remote_addr $v` in"),
        ("geo $v { default 1; 203.0.113.0/24 0; }", "give Cloudflare's ranges lines of their own in `geo $v` in"),
    ] {
        let said = fix(&format!("{table} {by}"));
        assert!(said.starts_with(wanted) && said.ends_with("`systemctl reload nginx`"), "{said}");
    }
    let said = fix("server { if ($remote_addr ~ ^173) { return 403; } }");
    assert!(said.starts_with("take Cloudflare's addresses out of the condition in"), "{said}");
}

#[test]
fn apache_conditions_are_named_with_whom_they_refuse() {
    let on = "RewriteEngine on\n";
    let some = "Apache denies some of Cloudflare's 173.245.48.0/20: its visitors see";
    let location = "<Location />\n<RequireAll>\nRequire all granted\nRequire not env bad\n</RequireAll>\n</Location>";
    for (config, said, mend) in [
        (
            format!("{on}RewriteCond %{{REMOTE_ADDR}} ^173\\.245\\.\nRewriteRule ^ - [F]"),
            Some(format!("{some} 403 Forbidden")),
            "out of the conditions (`RewriteCond`)",
        ),
        (
            format!("{on}RewriteCond expr \"-R '173.245.48.0/20'\"\nRewriteRule ^ - [G]"),
            Some("Apache denies Cloudflare's 173.245.48.0/20, or a part of it: its visitors see status 410".to_owned()),
            "RewriteCond expr \"! -R 'RANGE'\"",
        ),
        (
            format!("SetEnvIf Remote_Addr ^173\\.245\\. bad\n{location}"),
            Some(format!("{some} 403 Forbidden")),
            "out of the lines that set `bad`",
        ),
        (
            "SetEnvIf Remote_Addr ^203\\. good\n<Location />\nRequire env good\n</Location>".to_owned(),
            Some("Apache denies addresses of all of Cloudflare's ranges: its visitors see 403 Forbidden".to_owned()),
            "set `good` for Cloudflare's addresses too",
        ),
        (
            format!(
                "RemoteIPHeader CF-Connecting-IP\n{on}RewriteCond %{{REMOTE_ADDR}} ^173\\.245\\.\nRewriteRule ^ - [F]"
            ),
            None,
            "",
        ),
        (format!("{on}RewriteCond %{{ENV:BAD}} =1\nRewriteRule ^ - [F]"), None, ""),
        (location.to_owned(), None, ""),
    ] {
        let found = of_apache(&config);
        assert_eq!(texts(&found), said.iter().collect::<Vec<_>>(), "{config}");
        for fix in found.iter().filter_map(|f| f.fix.as_ref()) {
            assert!(fix.text.contains(mend) && fix.text.ends_with("`systemctl reload apache2`"), "{}", fix.text);
        }
    }
}

#[test]
fn a_folders_rewriting_comes_from_its_htaccess() {
    let config = "DocumentRoot /var/www\n<Directory /var/www>\nAllowOverride All\n</Directory>";
    let text = "RewriteEngine on\nRewriteCond %{REMOTE_ADDR} ^173\\.245\\.\nRewriteRule ^ - [F]\n";
    let read = |path: &std::path::Path| Ok((path.ends_with("www/.htaccess")).then(|| text.to_owned()));
    let found = |config: &str| {
        let said = said_by_apache(config);
        apache(&Apache::new(&said, &read), &said, &asking(&edge(), &[]))
    };
    let told = found(config);
    assert_eq!(told[0].evidence[0].source, "/var/www/.htaccess line 2");
    assert!(!told[0].fix.as_ref().expect("a fix").text.contains("reload"), "it is read with each request");
    for other in ["AllowOverride AuthConfig", "AllowOverride None"] {
        assert_eq!(found(&config.replace("AllowOverride All", other)).len(), 0, "{other}");
    }
    assert_eq!(found(&format!("Redirect permanent / https://www.example/\n{config}")).len(), 0);
    assert_eq!(found(&format!("ProxyPass / http://127.0.0.1:9/\n{config}")).len(), 0);
}

#[test]
fn one_address_of_many_is_found() {
    let lines = (1..20_000_u32).map(|n| format!("{} 1;", std::net::Ipv4Addr::from_bits(n << 17)));
    let lines = lines.collect::<String>();
    let servers = "server { if ($v) { return 403; } } server { server_name x; if ($v) { return 403; } }";
    let found = of_nginx(&format!("geo $v {{ default 0; {lines} }} {servers}"));
    assert_eq!(texts(&found).len(), 1, "both say it of one line");
    assert!(found[0].text.contains("104.16.0.0/13, or a part"), "{}", found[0].text);
    assert_eq!(found[0].evidence[0].shows, "geo $v { 104.16.0.0 1; }");
}
