//! Whom real web servers let in, and what the doctor says of it: a configuration a row, each a site of its own.
//!
//! Belongs here: that. Does not: packet filters (`firewall`).

use serde_json::Value;

use super::{doctor, ids, site};
use crate::{
    above::mod_evasive,
    lab::{EDGES, Lab},
};

/// The rows: their formats are told at their beginnings.
const APACHE: &str = include_str!("samples/apache_access.txt");
const NGINX: &str = include_str!("samples/nginx_access.txt");
/// What the conditions of nginx's rows ask for.
const VARIABLES: &str = include_str!("samples/nginx_variables.txt");

/// A site.
#[derive(Debug)]
struct Row {
    name: &'static str,
    /// Whether the server refuses somebody of Cloudflare's.
    refuses: bool,
    /// Whether the doctor says so: never of a site that refuses nobody.
    told: bool,
    config: &'static str,
    htaccess: &'static str,
}

fn rows(table: &'static str) -> Vec<Row> {
    let row = |text: &'static str| {
        let (head, rest) = text.split_once('\n').unwrap_or((text, ""));
        let (name, told) = head.split_once(": ").unwrap_or_else(|| panic!("{head}"));
        assert!(["denies", "open", "untold"].contains(&told), "{head}");
        // What comes after an empty line is said of the next row.
        let rest = rest.split("\n\n").next().unwrap_or_default();
        let (config, htaccess) = rest.split_once("-- .htaccess\n").unwrap_or((rest, ""));
        Row { name, refuses: told != "open", told: told == "denies", config, htaccess }
    };
    let rows: Vec<Row> = table.split("\n== ").skip(1).map(row).collect();
    assert!(rows.len() > 20, "{rows:?}");
    rows
}

fn name(row: &str) -> String {
    format!("{row}.example")
}

/// All of Cloudflare's ranges that the lab's edgeallow has built in.
fn edge(lab: &Lab) -> Vec<String> {
    let printed = lab.edgeallow(["fetch", "--offline"]).expect_ok().stdout;
    let ranges: Vec<String> = printed.split_whitespace().filter(|w| w.contains('/')).map(str::to_owned).collect();
    assert!(ranges.len() > 20, "{printed}");
    ranges
}

/// Holds what doctor says of all rows against what the server answers in each to Cloudflare.
fn hold(lab: &Lab, rows: &[Row], finding: &str, file: impl Fn(&str) -> String) {
    let names: Vec<String> = rows.iter().map(|row| name(row.name)).collect();
    let args: Vec<&str> = names.iter().map(String::as_str).chain(["--mode", "flexible", "--port", "80"]).collect();
    let report = doctor(lab, &args);
    let causes: Vec<&Value> =
        super::list(&report["findings"]).iter().filter(|f| f["id"] == finding && f["verdict"] == "cause").collect();
    let mut wrong = Vec::new();
    for Row { name: row, refuses, told, .. } in rows {
        let answers = EDGES.map(|from| site::visit_of(lab, &name(row), from, false));
        let refused = answers.iter().any(|a| a.is_empty() || a.contains(" 403 ") || a.contains(" 410 "));
        let files = [file(row), format!("/var/www/{row}/.htaccess"), format!("/etc/apache2/included/{row}.conf")];
        let says = causes.iter().any(|f| {
            let seen = f["evidence"].to_string();
            files.iter().any(|file| seen.contains(&format!("\"{file} line ")))
        });
        if (refused, says) != (*refuses, *told) {
            wrong.push(format!("{row}: answers {answers:?}, and it is a cause: {says}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the doctor says of one row.
fn of(lab: &Lab, row: &str) -> Value {
    doctor(lab, &[&name(row), "--mode", "flexible", "--port", "80"])
}

/// What it makes of the answer to its own request.
fn forbidden(report: &Value) -> Vec<&str> {
    let all = super::list(&report["findings"]).iter().filter(|f| f["id"] == "online.forbidden");
    all.filter_map(|f| f["verdict"].as_str()).collect()
}

#[test]
fn apache_denies_what_the_doctor_says_it_denies() {
    let lab = Lab::without_listeners();
    site::apache_stopped(&lab, "");
    lab.run(["a2enmod", "-q", "remoteip", "proxy", "proxy_http", "access_compat", "alias", "auth_basic", "setenvif"]);
    lab.write_file("/etc/apache2/ports.conf", format!("Listen 80\nServerName {}\n", site::NAME));
    let edge = edge(&lab).join(" ");
    lab.write_file("/etc/apache2/edge", edge.replace(' ', "\n") + "\n# and nobody else\n");
    lab.write_file("/etc/apache2/included/included.conf", "<Location />\nRequire all denied\n</Location>\n");
    let file = |row: &str| format!("/etc/apache2/sites-enabled/{row}.conf");
    let rows = rows(APACHE);
    for Row { name: row, config, htaccess, .. } in &rows {
        let root = format!("/var/www/{row}");
        lab.write_file(&format!("{root}/index.html"), "Open.\n");
        if !htaccess.is_empty() {
            lab.write_file(&format!("{root}/.htaccess"), htaccess);
        }
        let config = config.replace("{root}", &root).replace("{edge}", &edge).replace("{name}", row);
        let text =
            format!("<VirtualHost *:80>\nServerName {}\nDocumentRoot {root}\n{config}\n</VirtualHost>\n", name(row));
        // The last one that is said would hold.
        let text =
            if config.starts_with("DocumentRoot") { text.replace(&format!("DocumentRoot {root}\n"), "") } else { text };
        lab.write_file(&file(row), text);
    }
    for file in ["/srv/elsewhere/index.html", "/srv/granted/index.html", "/var/www/htaccess-above/public/index.html"] {
        lab.write_file(file, "Open.\n");
    }
    lab.run(["apachectl", "start"]);
    hold(&lab, &rows, "firewall.apache-denies", file);

    for (row, verdict) in
        [("variable", "warning"), ("password", "note"), ("list", "skipped"), ("whole-list", "skipped")]
    {
        let report = of(&lab, row);
        assert_eq!(forbidden(&report), [verdict], "{row} {report:#}");
    }
    let report = of(&lab, "another-root");
    let told = report["conclusion"]["text"].as_str().unwrap_or_default();
    assert!(told.contains("`<Directory /srv/elsewhere>` with `Require all granted`"), "{told}");
}

#[test]
fn nginx_denies_what_the_doctor_says_it_denies() {
    let lab = Lab::without_listeners();
    let edge = edge(&lab);
    let each = |what: &str| edge.iter().map(|range| format!("{what} {range};")).collect::<String>();
    let ranges = edge.iter().map(|range| format!("{range} 1;")).collect::<String>();
    site::nginx_stopped(&lab, &VARIABLES.replace("{ranges}", &ranges));
    lab.write_file("/etc/nginx/bad.list", "104.16.0.0/13 1;\n");
    let file = |row: &str| format!("/etc/nginx/sites-enabled/row-{row}");
    let rows = rows(NGINX);
    for Row { name: row, config, .. } in &rows {
        let root = format!("/var/www/{row}");
        lab.write_file(&format!("{root}/index.html"), "Open.\n");
        let config = config.replace("{allow}", &each("allow")).replace("{from}", &each("set_real_ip_from"));
        let name = name(row);
        let listen = "listen 80; listen [::]:80;";
        lab.write_file(&file(row), format!("server {{ {listen} server_name {name}; root {root};\n{config}\n}}\n"));
    }
    site::start_nginx(&lab);
    hold(&lab, &rows, "firewall.nginx-denies", file);

    // What it answers to this machine itself.
    let untold = of(&lab, "condition-of-something");
    assert_eq!((ids(&untold, "cause"), forbidden(&untold)), (vec![], vec!["warning"]), "{untold:#}");
    let unanswered = of(&lab, "geo-444");
    let cause = super::list(&unanswered["findings"]).iter().find(|f| f["verdict"] == "cause").expect("a cause");
    assert_eq!(cause["cloudflare_errors"], serde_json::json!([520]), "{cause:#}");
    let seen = cause["evidence"].to_string();
    assert!(
        seen.contains("geo $bad { 173.245.48.0/20 1; }") && seen.contains("if ($bad) { return 444; }"),
        "{cause:#}"
    );
    assert_eq!(forbidden(&of(&lab, "password-or-list")), ["note"]);
    for row in ["all", "whole-list", "visitor-list", "geo-list"] {
        let report = of(&lab, row);
        assert_eq!(forbidden(&report), ["skipped"], "{row} {report:#}");
        assert_eq!(ids(&report, "note").contains(&"firewall.own-denied"), row != "all", "{row} {report:#}");
    }
    // Whose limits there are in another server, which doesn't run, has nothing to do with it.
    mod_evasive::install(&lab);
    let report = of(&lab, "whole-list");
    let findings = super::list(&report["findings"]);
    let said = findings.iter().find(|f| f["id"] == "online.forbidden").expect("the refusal");
    assert!(!said["text"].as_str().unwrap_or_default().contains("visitors"), "{said:#}");
    assert!(findings.iter().all(|f| f["id"] != "online.limited"), "{report:#}");
    let unnamed = doctor(&lab, &["--port", "80"]);
    assert_eq!(ids(&unnamed, "cause"), [""; 0], "{unnamed:#}");
    assert!(ids(&unnamed, "warning").contains(&"firewall.nginx-denies"), "{unnamed:#}");
}

#[test]
fn a_limit_that_knows_the_visitors_of_some_ranges_only_names_the_others() {
    let lab = Lab::without_listeners();
    let edge = edge(&lab);
    let zone = "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/s;\nreal_ip_header CF-Connecting-IP;\n";
    let limited = |ranges: &[String]| {
        let from = ranges.iter().map(|range| format!("set_real_ip_from {range};\n")).collect::<String>();
        format!("{zone}{from}{}", site::nginx_site("  limit_req zone=one burst=20 nodelay;"))
    };
    site::nginx(&lab, &limited(&edge));
    super::expect_healthy(&doctor(&lab, &[]));
    let (known, missing) = edge.split_at(edge.len() - 2);
    lab.write_file(site::NGINX_SITE, limited(known));
    let report = doctor(&lab, &[]);
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec!["firewall.nginx-limits"]), "{report:#}");
    let told = report["conclusion"]["text"].as_str().unwrap_or_default();
    for range in missing {
        assert!(told.contains(range), "{told}");
    }
    assert!(!told.contains(&known[0]), "{told}");
    // The command prints what mends it, for all of them.
    let next = report["conclusion"]["next"].as_str().expect("a command");
    let printed = lab.run(["sh", "-c", next]).stdout;
    lab.write_file(site::NGINX_SITE, limited(&[]).replace("real_ip_header", &format!("{printed}real_ip_header")));
    lab.run(["nginx", "-t"]);
    super::expect_healthy(&doctor(&lab, &[]));
}
