//! Web servers that run and don't listen where they are needed, those that are stopped beside others, and configurations
//! that can't be read again.

use serde_json::Value;

use super::{
    doctor, expect_cause, expect_healthy, follow, ids,
    site::{self, NAME, NGINX_SITE},
    wait_until,
};
use crate::lab::{EDGE4, EDGE6, Lab, Reach, diff};

/// What nothing but a test of a configuration, or its reload, would write to.
const WRITTEN: [&str; 5] =
    ["/var/log/nginx/error.log", "/var/lib/nginx", "/etc/nginx", "/etc/apache2", "/run/nginx.pid"];

fn text(finding: &Value) -> &str {
    finding["text"].as_str().expect("a text")
}

/// The site is there, a moment after a reload.
fn expect_open(lab: &Lab) {
    wait_until("something listens", || [EDGE4, EDGE6].iter().all(|edge| lab.connect(edge, 443) != Reach::Refused));
    assert!([EDGE4, EDGE6].iter().all(|edge| site::visit(lab, edge, true).contains(" 200 ")));
}

#[test]
fn an_nginx_that_runs_and_listens_on_nothing_is_said_to_run() {
    let lab = Lab::without_listeners();
    site::nginx(&lab, "");
    let report = doctor(&lab, &[NAME]);
    let cause = expect_cause(&report, "online.nothing-listens", 521);
    let pid = lab.read_file("/run/nginx.pid");
    let end = format!(", though nginx runs (pid {}) and listens on nothing", pid.trim());
    assert!(text(cause).ends_with(&end), "{cause:#}");
    assert!(cause["fix"]["text"].as_str().is_some_and(|fix| fix.contains("sites-enabled")), "{cause:#}");

    // Its configuration is mended, and not read yet.
    lab.write_file(NGINX_SITE, site::nginx_site(""));
    let report = doctor(&lab, &[NAME]);
    let cause = expect_cause(&report, "online.nothing-listens", 521);
    let seen = cause["evidence"].to_string();
    assert!(seen.contains(&format!("{NGINX_SITE} line ")), "{cause:#}");
    follow(&lab, &report);
    expect_open(&lab);
    expect_healthy(&doctor(&lab, &[NAME]));
}

#[test]
fn an_nginx_on_a_unix_socket_only_is_said_to_be_there() {
    let lab = Lab::without_listeners();
    site::nginx(&lab, "server { listen unix:/run/site.sock; root /var/www/shop; }\n");
    let report = doctor(&lab, &[NAME]);
    let cause = expect_cause(&report, "online.nothing-listens", 521);
    assert!(text(cause).ends_with(") and listens on unix:/run/site.sock only"), "{cause:#}");
    assert!(cause["fix"]["text"].as_str().is_some_and(|fix| fix.contains("that socket")), "{cause:#}");
}

/// The report warns of this configuration, and of nothing else; its finding.
fn expect_broken<'a>(report: &'a Value, line: &str) -> &'a Value {
    assert_eq!((ids(report, "cause"), ids(report, "warning")), (vec![], vec!["online.broken-config"]), "{report:#}");
    let all = report["findings"].as_array().expect("findings");
    let warning = all.iter().find(|f| f["id"] == "online.broken-config").expect("a warning");
    assert!(warning["evidence"][0]["shows"].as_str().is_some_and(|said| said.contains(line)), "{warning:#}");
    assert_eq!(warning["fix"]["command"], warning["evidence"][0]["source"], "{warning:#}");
    warning
}

/// doctor's report, which has changed nothing.
fn untouched(lab: &Lab) -> Value {
    let look = || (lab.stamps(&WRITTEN), lab.tree(&["/var/log/nginx"]).into_keys().collect::<Vec<_>>());
    let before = look();
    let report = doctor(lab, &[NAME]);
    let after = look();
    assert_eq!((diff(&before.0, &after.0), before.1), (vec![], after.1));
    report
}

#[test]
fn an_nginx_that_runs_on_what_it_read_before_its_configuration_broke_is_a_warning() {
    let lab = Lab::without_listeners();
    site::site(&lab);
    expect_healthy(&untouched(&lab));
    let second = "/etc/nginx/sites-enabled/second";
    for (config, line) in [
        ("server { listen 80; lisen 81; }\n", "unknown directive \"lisen\" in /etc/nginx/sites-enabled/second:1"),
        // A log that isn't there yet.
        ("server {\n access_log /var/log/nginx/second.log;\n root\n}\n", "/etc/nginx/sites-enabled/second:4"),
        ("server { listen 443 ssl; ssl_certificate /no.pem; ssl_certificate_key /no.key; }\n", "/no.pem"),
    ] {
        lab.write_file(second, config);
        let report = untouched(&lab);
        let warning = expect_broken(&report, line);
        assert!(text(warning).contains("nginx runs (pid "), "{warning:#}");
        assert_eq!(warning["fix"]["command"], "nginx -t");
    }
    // What would be made by the test is not made, and it is said that there was none.
    lab.write_file(second, "server { listen 80; access_log /var/log/nginx/second.log; }\n");
    let report = untouched(&lab);
    expect_healthy(&report);
    assert!(ids(&report, "skipped").contains(&"online.untested-config"), "{report:#}");
    lab.run(["rm", second]);
    let main = lab.read_file("/etc/nginx/nginx.conf");
    let other = main.replace("user www-data;", "user daemon;");
    assert_ne!(main, other);
    lab.write_file("/etc/nginx/nginx.conf", other);
    let report = untouched(&lab);
    expect_healthy(&report);
    assert!(ids(&report, "skipped").contains(&"online.untested-config"), "{report:#}");
    lab.write_file("/etc/nginx/nginx.conf", main);
    expect_healthy(&untouched(&lab));
}

#[test]
fn an_apache_that_runs_on_what_it_read_before_its_configuration_broke_is_a_warning() {
    let lab = Lab::without_listeners();
    site::apache(&lab);
    expect_healthy(&untouched(&lab));
    lab.write_file("/etc/apache2/sites-enabled/second.conf", "Nonsense\n");
    let report = untouched(&lab);
    let warning =
        expect_broken(&report, "line 1 of /etc/apache2/sites-enabled/second.conf: Invalid command 'Nonsense'");
    assert!(text(warning).contains("Apache runs (pid "), "{warning:#}");
}

#[test]
fn of_two_stopped_servers_the_one_that_serves_the_site_is_started() {
    let lab = Lab::without_listeners();
    let elsewhere = site::nginx_site("").replace(NAME, "other.example");
    site::nginx_stopped(&lab, &elsewhere);
    site::apache_stopped(&lab, &site::apache_site(""));
    let wants = |service: &str| format!("/etc/systemd/system/multi-user.target.wants/{service}.service");
    lab.run(["rm", "-f", &wants("nginx"), &wants("apache2")]);
    let told = |host: &[&str]| {
        let report = doctor(&lab, host);
        let cause = expect_cause(&report, "online.nothing-listens", 521);
        assert!(text(cause).ends_with(" are installed and don't run"), "{cause:#}");
        (cause["fix"]["text"].as_str().expect("a fix").to_owned(), report)
    };
    let (fix, _) = told(&["other.example"]);
    assert!(fix.starts_with("start nginx, which has a site for other.example; ") && fix.contains("Apache"), "{fix}");
    let (fix, report) = told(&[]);
    assert!(fix.starts_with("start nginx, which has a site for other.example; "), "{fix}");
    assert!(report["conclusion"]["next"].as_str().is_some_and(|next| !next.contains("sudo")), "{report:#}");
    // Who is not root can't start it without.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"];
    let ask = ["/usr/local/bin/edgeallow", "doctor", "--offline", "--format", "json"];
    let report = lab.command([&nobody[..], &ask].concat()).run().json()["doctor"].clone();
    assert!(report["conclusion"]["next"].as_str().is_some_and(|next| next.starts_with("sudo ")), "{report:#}");
    lab.link("/lib/systemd/system/apache2.service", &wants("apache2"));
    let (fix, _) = told(&[]);
    assert!(
        fix.starts_with("start Apache, which is started at boot; ") && fix.contains("`service nginx start`"),
        "{fix}"
    );
    lab.run(["rm", &wants("apache2")]);
    // An error that keeps Apache from telling its sites keeps nobody from seeing that it has this one.
    let second = "/etc/apache2/sites-enabled/second.conf";
    lab.write_file(second, "Nonsense\n");
    let report = doctor(&lab, &[NAME]);
    let cause = expect_cause(&report, "online.nothing-listens", 521);
    assert!(text(cause).ends_with("its configuration has an error; nginx is stopped too"), "{cause:#}");
    assert!(cause["fix"]["text"].as_str().expect("a fix").contains("of Apache, which has a site for"), "{cause:#}");
    assert_eq!(report["conclusion"]["next"], "apachectl -t");
    lab.run(["rm", second]);
    let (fix, report) = told(&[NAME]);
    assert!(fix.starts_with("start Apache, which has a site for shop.example; "), "{fix}");
    follow(&lab, &report);
    expect_open(&lab);
    expect_healthy(&doctor(&lab, &[NAME]));
}
