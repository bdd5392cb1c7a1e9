//! Servers that are stopped, bound to where nobody gets, or answer what Cloudflare can do nothing with.

use std::net::TcpListener;

use serde_json::Value;

use super::{
    dns::doctor as with_the_network,
    doctor, expect_cause, expect_healthy, follow, ids,
    site::{self, NAME},
};
use crate::{
    lab::{CLIENT4, EDGE4, Lab, SERVER4, SERVER6},
    run::PUBLISHED,
};

fn lab() -> Lab {
    Lab::without_listeners()
}

/// The finding of this id.
fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("findings");
    all.iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id} in {report:#}"))
}

fn text(finding: &Value) -> &str {
    finding["text"].as_str().expect("a text")
}

#[test]
fn healthy_sites_have_no_cause_and_no_warning() {
    for name in ["nginx", "Apache"] {
        let lab = lab();
        let start = if name == "nginx" { site::site } else { site::apache };
        start(&lab);
        for args in [&[][..], &[NAME], &[NAME, "--mode", "flexible"], &[NAME, "--mode", "full"]] {
            let report = doctor(&lab, args);
            expect_healthy(&report);
            let answers = finding(&report, "online.answers");
            assert!(text(answers).contains(name) && text(answers).contains(SERVER6), "{answers:#}");
            assert!(answers["evidence"][0]["shows"].as_str().unwrap().starts_with("200 after "), "{answers:#}");
        }
    }
}

#[test]
fn a_healthy_site_of_a_server_that_nobody_knows() {
    let lab = lab();
    let _caddy = site::Caddy::start(&lab);
    for args in [&[][..], &[NAME], &[NAME, "--mode", "full"]] {
        expect_healthy(&doctor(&lab, args));
    }
    let note = doctor(&lab, &[NAME]);
    assert_eq!(finding(&note, "online.redirects-to-https")["verdict"], "note");
}

#[test]
fn a_stopped_server_is_the_cause_and_starting_it_the_command() {
    for mode in ["unknown", "flexible", "full", "strict"] {
        let lab = lab();
        site::nginx_stopped(&lab, &site::nginx_site(""));
        let report = doctor(&lab, &[NAME, "--mode", mode]);
        let cause = expect_cause(&report, "online.nothing-listens", 521);
        assert!(text(cause).contains("nginx is installed and doesn't run"), "{cause:#}");
        assert_eq!(report["conclusion"]["next"], "service nginx start");
        assert_eq!(ids(&report, "warning"), Vec::<&str>::new(), "{report:#}");
        let command: Vec<&str> = report["conclusion"]["next"].as_str().unwrap().split(' ').collect();
        lab.run(command);
        expect_healthy(&doctor(&lab, &[NAME, "--mode", mode]));
    }
}

#[test]
fn a_stopped_apache_whose_configuration_is_broken_is_not_told_to_start() {
    let lab = lab();
    site::apache_stopped(&lab, "Nonsense\n");
    let report = doctor(&lab, &[NAME]);
    let cause = expect_cause(&report, "online.nothing-listens", 521);
    assert!(text(cause).contains("Apache is installed, doesn't run, and its configuration has an error"), "{cause:#}");
    let said = cause["evidence"][1]["shows"].as_str().unwrap();
    assert!(said.contains("Syntax error on line 1") && said.contains("Invalid command 'Nonsense'"), "{said}");
    assert_eq!(report["conclusion"]["next"], "apachectl -t");
}

#[test]
fn a_stopped_nginx_whose_configuration_is_broken_is_not_told_to_start() {
    let lab = lab();
    site::nginx_stopped(&lab, "server { lisen 80; }\n");
    let report = doctor(&lab, &[]);
    let cause = expect_cause(&report, "online.nothing-listens", 521);
    let said = cause["evidence"][1]["shows"].as_str().unwrap();
    assert!(said.contains("[emerg]") && said.contains("unknown directive \"lisen\""), "{said}");
    assert_eq!(report["conclusion"]["next"], "nginx -t");
}

#[test]
fn a_server_that_listens_elsewhere_is_told_where_to_listen() {
    let lab = lab();
    site::nginx(&lab, "server { listen 8080; listen [::]:8080; root /var/www/shop; }\n");
    let report = doctor(&lab, &[]);
    let cause = expect_cause(&report, "online.nothing-listens", 521);
    assert!(text(cause).contains(&format!("of {SERVER4} and {SERVER6}, though nginx runs (pid ")), "{cause:#}");
    assert!(text(cause).ends_with(") and listens on 0.0.0.0:8080 and [::]:8080 only"), "{cause:#}");
    assert!(report["conclusion"]["next"].as_str().unwrap().starts_with("grep "), "{report:#}");
    // With the port that it listens on there is nothing to complain of.
    expect_healthy(&doctor(&lab, &["--port", "8080"]));
}

#[test]
fn a_port_that_is_sent_on_to_where_something_listens_lacks_nothing() {
    let lab = lab();
    site::nginx(&lab, "server { listen 8080; listen [::]:8080; root /var/www/shop; }\n");
    let rules =
        "table inet site { chain pre { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :8080; }; }";
    lab.feed(["nft", "-f", "-"], rules);
    let report = doctor(&lab, &["--mode", "flexible"]);
    expect_healthy(&report);
    let seen = &finding(&report, "online.sent-on")["evidence"][0]["shows"];
    assert_eq!(seen, "redirect to port 8080");
    site::stop_nginx(&lab, "stop");
    expect_cause(&doctor(&lab, &["--mode", "flexible"]), "online.nothing-listens", 521);
}

#[test]
fn a_container_that_takes_no_connections_or_is_gone_is_the_cause() {
    let lab = lab();
    let ip = |words: &str| {
        lab.run(words.split(' '));
    };
    lab.write_file("/proc/sys/net/ipv4/ip_forward", "1");
    ip("ip netns add ct");
    ip("ip link add ve0 type veth peer name eth0 netns ct");
    ip("ip addr add 172.17.0.1/24 dev ve0");
    ip("ip link set ve0 up");
    ip("ip -n ct addr add 172.17.0.2/24 dev eth0");
    ip("ip -n ct link set eth0 up");
    ip("iptables -t nat -N DOCKER");
    ip("iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER");
    ip("iptables -t nat -A DOCKER ! -i ve0 -p tcp -m multiport --dports 80,443 -j DNAT --to-destination 172.17.0.2");
    let report = doctor(&lab, &[NAME, "--mode", "full"]);
    let cause = expect_cause(&report, "online.sent-to-nothing", 521);
    assert!(text(cause).contains("on to port 443 of 172.17.0.2, where nothing listens"), "{cause:#}");
    assert_eq!(cause["fix"]["command"], "docker ps --all --filter publish=443");
    ip("ip -n ct addr flush dev eth0");
    ip("ip neigh flush dev ve0");
    let report = doctor(&lab, &[NAME, "--mode", "full"]);
    let cause = expect_cause(&report, "online.sent-to-nothing", 522);
    assert!(text(cause).contains("on to port 443 of 172.17.0.2, which isn't there"), "{cause:#}");
}

#[test]
fn a_rule_that_sends_a_port_past_the_server_to_where_nothing_listens_is_the_cause() {
    let lab = lab();
    site::site(&lab);
    // This host's own connections don't meet it.
    lab.run("iptables -t nat -A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 9443".split(' '));
    let report = doctor(&lab, &[NAME, "--mode", "full"]);
    let cause = expect_cause(&report, "online.sent-to-nothing", 521);
    assert!(text(cause).contains(&format!("to port 443 of {SERVER4} on to port 9443, where nothing")), "{cause:#}");
    assert!(cause["evidence"][0]["shows"].as_str().unwrap().contains("--to-ports 9443"), "{cause:#}");
    follow(&lab, &report);
    expect_healthy(&doctor(&lab, &[NAME, "--mode", "full"]));
    for sends in ["redirect to :9443".to_owned(), format!("meta nfproto ipv4 dnat ip to {SERVER4}:9443")] {
        let rules = format!(
            "table inet site {{ chain pre {{ type nat hook prerouting priority dstnat; tcp dport {{ 80, 443 }} {sends}; }}; }}"
        );
        lab.feed(["nft", "-f", "-"], &rules);
        let report = doctor(&lab, &[NAME]);
        let cause = expect_cause(&report, "online.sent-to-nothing", 521);
        assert!(text(cause).starts_with("a rule sends what comes from outside to ports 80 and 443 of"), "{cause:#}");
        let listens = lab.inside(|| TcpListener::bind("[::]:9443").expect("listen"));
        expect_healthy(&doctor(&lab, &[NAME]));
        // Also where a program that another test is just starting still has it open.
        rustix::net::shutdown(&listens, rustix::net::Shutdown::Both).expect("listen no more");
        drop(listens);
        follow(&lab, &report);
        expect_healthy(&doctor(&lab, &[NAME]));
        lab.run(["nft", "delete", "table", "inet", "site"]);
    }
}

#[test]
fn a_server_on_loopback_only_is_the_cause() {
    let lab = lab();
    site::nginx(
        &lab,
        &site::nginx_site("")
            .replace("listen [::]:", "listen [::1]:")
            .replace("listen 80", "listen 127.0.0.1:80")
            .replace("listen 443", "listen 127.0.0.1:443"),
    );
    for mode in ["unknown", "flexible", "full"] {
        let report = doctor(&lab, &[NAME, "--mode", mode]);
        let cause = expect_cause(&report, "online.loopback-only", 521);
        let said = cause["evidence"][0]["shows"].as_str().unwrap();
        assert!(said.contains("127.0.0.1:") && said.contains("nginx (pid "), "{said}");
        assert_eq!(ids(&report, "warning"), Vec::<&str>::new(), "{report:#}");
    }
}

#[test]
fn one_family_or_one_scheme_is_worth_a_note() {
    let lab = lab();
    site::nginx(&lab, &site::nginx_site("").replace("listen [::]:", "# "));
    let report = doctor(&lab, &[NAME]);
    expect_healthy(&report);
    assert!(text(finding(&report, "online.one-family")).contains("AAAA record"), "{report:#}");

    let lab = self::lab();
    site::nginx(&lab, "server { listen 80; listen [::]:80; root /var/www/shop; }\n");
    expect_healthy(&doctor(&lab, &[NAME, "--mode", "flexible"]));
    let report = doctor(&lab, &[NAME]);
    assert_eq!(finding(&report, "online.no-https-port")["verdict"], "note");
    let report = doctor(&lab, &[NAME, "--mode", "full"]);
    let cause = expect_cause(&report, "online.nothing-listens", 521);
    assert!(text(cause).contains("port 443") && text(cause).contains("though nginx runs"), "{cause:#}");
}

#[test]
fn a_redirect_to_https_is_a_loop_under_flexible_and_well_under_full() {
    let redirecting: [fn(&Lab); 2] = [
        |lab| {
            site::nginx(lab, &site::nginx_site("if ($scheme = http) { return 301 https://shop.example$request_uri; }"))
        },
        |lab| {
            let redirect = "RewriteEngine on\nRewriteCond %{HTTPS} !=on\nRewriteRule ^ https://%{HTTP_HOST}%{REQUEST_URI} [R=301,L]";
            site::apache_stopped(lab, &site::apache_site(redirect));
            lab.run(["apachectl", "start"]);
        },
    ];
    for start in redirecting {
        let lab = lab();
        start(&lab);
        let report = doctor(&lab, &[NAME, "--mode", "flexible"]);
        assert_eq!(ids(&report, "cause"), ["online.redirect-loop"], "{report:#}");
        let said = &finding(&report, "online.redirect-loop")["evidence"][0]["shows"];
        assert_eq!(said, "https://shop.example/ → https://shop.example/");
        let command = report["conclusion"]["next"].as_str().expect("a command");
        let shown = lab.run(["sh", "-c", command]).stdout;
        assert!(shown.contains("https://"), "{command}: {shown}");
        // Where no name is given, the redirect tells it.
        let report = doctor(&lab, &["--mode", "flexible"]);
        assert_eq!(ids(&report, "cause"), ["online.redirect-loop"], "{report:#}");
        for args in [&[NAME][..], &[NAME, "--mode", "full"], &[]] {
            expect_healthy(&doctor(&lab, args));
        }
    }
}

#[test]
fn a_redirect_to_a_port_where_nothing_listens_works_under_no_mode() {
    let lab = lab();
    site::nginx(&lab, "server { listen 80; listen [::]:80; return 301 https://shop.example$request_uri; }\n");
    expect_cause(&doctor(&lab, &[NAME]), "online.redirects-to-nothing", 521);
    let report = doctor(&lab, &[NAME, "--mode", "full"]);
    expect_cause(&report, "online.nothing-listens", 521);
    // Whether a name that only the redirect tells is this machine's can't be told.
    let report = doctor(&lab, &["--mode", "flexible"]);
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec!["online.redirect-loop"]), "{report:#}");
}

#[test]
fn a_redirect_that_heeds_what_the_visitor_used_is_no_loop() {
    let lab = lab();
    let heeding = "if ($http_x_forwarded_proto = http) { return 301 https://$host$request_uri; }";
    site::nginx(&lab, &site::nginx_site(heeding));
    expect_healthy(&doctor(&lab, &[NAME, "--mode", "flexible"]));
}

#[test]
fn a_redirect_in_a_circle_is_a_loop_under_any_mode() {
    let lab = lab();
    site::nginx(&lab, &site::nginx_site("location = / { return 302 /de?t=secret; }\nlocation /de { return 302 /; }"));
    let report = doctor(&lab, &[NAME]);
    assert_eq!(ids(&report, "cause"), ["online.redirect-loop"], "{report:#}");
    assert!(!report.to_string().contains("secret"), "{report:#}");
    // Two names that lead to each other are one circle.
    let lab = self::lab();
    let www = format!("www.{NAME}");
    let there = format!("if ($host = {NAME}) {{ return 301 https://{www}/; }}\nreturn 301 https://{NAME}/;");
    site::nginx(&lab, &site::nginx_site(&there));
    let report = doctor(&lab, &[NAME, &www, "--mode", "full"]);
    let causes = report["findings"].as_array().unwrap().iter().filter(|f| f["verdict"] == "cause");
    assert_eq!(causes.count(), 1, "{report:#}");
    assert!(
        text(finding(&report, "online.redirect-loop")).contains(&format!("redirects {NAME} and {www} ")),
        "{report:#}"
    );
}

#[test]
fn an_application_that_does_not_answer_is_the_cause() {
    let lab = lab();
    // Connections to it are made by the kernel and taken by nobody.
    let _hangs = lab.inside(|| TcpListener::bind("127.0.0.1:9000").expect("listen"));
    site::nginx(&lab, &site::nginx_site("location / { proxy_pass http://127.0.0.1:9000; }"));
    let report = doctor(&lab, &[NAME, "--mode", "flexible"]);
    let cause = expect_cause(&report, "online.stalls", 524);
    assert_eq!(cause["fix"]["command"], "tail -n 50 /var/log/nginx/error.log");
}

#[test]
fn a_page_that_takes_its_time_is_no_cause() {
    let lab = lab();
    // The first page of one site takes longer than doctor first waits, the other's longer than it waits at all.
    let _slow = site::Caddy::with(&lab, 9000, |mut client| {
        std::thread::sleep(std::time::Duration::from_secs(12));
        site::answer(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let _hangs = lab.inside(|| TcpListener::bind("127.0.0.1:9001").expect("listen"));
    let site = |name: &str, location: &str, port: u16| {
        format!(
            "server {{ listen 80; listen [::]:80; server_name {name}; root /var/www/shop;\nlocation {location} {{ \
             proxy_pass http://127.0.0.1:{port}; }}\n}}\n"
        )
    };
    site::nginx(&lab, &(site("slow.example", "/", 9000) + &site("page.example", "= /", 9001)));
    let report = doctor(&lab, &["slow.example", "page.example", "--mode", "flexible"]);
    assert_eq!(
        (ids(&report, "cause"), ids(&report, "warning")),
        (vec![], vec!["online.stalls", "online.slow"]),
        "{report:#}"
    );
    let slow = text(finding(&report, "online.slow"));
    let took = slow.split_once(" takes ").and_then(|(_, rest)| rest.split_once(" s to answer for slow.example"));
    // As long as it really took.
    assert!(took.and_then(|(s, _)| s.parse().ok()).is_some_and(|s: u32| (12..30).contains(&s)), "{slow}");
    let stalls = finding(&report, "online.stalls");
    assert!(text(stalls).contains("for page.example after 30 s, though it answers for another path"), "{stalls:#}");
    assert_eq!(stalls["cloudflare_errors"], serde_json::json!([524]));
}

#[test]
fn a_server_that_takes_no_connections_is_the_cause() {
    let lab = lab();
    let _hangs = lab.inside(|| TcpListener::bind("[::]:80").expect("listen"));
    expect_cause(&doctor(&lab, &["--mode", "flexible"]), "online.stalls", 524);
}

#[test]
fn an_empty_answer_is_the_cause_if_the_site_is_named() {
    let lab = lab();
    site::nginx(&lab, &site::nginx_site("return 444;"));
    let report = doctor(&lab, &[NAME, "--mode", "flexible"]);
    expect_cause(&report, "online.empty", 520);
    // Many servers hang up on who names no site.
    let report = doctor(&lab, &["--mode", "flexible"]);
    expect_healthy(&report);
    assert_eq!(finding(&report, "online.empty")["verdict"], "skipped");
}

#[test]
fn a_site_that_turns_away_all_but_cloudflare_is_well() {
    let lab = lab();
    let ranges = PUBLISHED.map(|range| format!("{range} 1;")).concat();
    let server = |name: &str, condition: &str| {
        format!("server {{ listen 80; listen [::]:80; server_name {name}; root /var/www/shop; if ({condition} }}\n")
    };
    let servers = [
        server("ray.example", "$http_cf_ray = \"\") { return 444; }"),
        server("visitor.example", "$http_cf_connecting_ip !~ .) { return 403; }"),
        server("loop.example", "$http_cdn_loop != cloudflare) { return 444; }"),
        server("list.example", "$is_edge = 0) { return 444; }"),
        // What this expression comes to can't be told, because it looks ahead.
        server("pattern.example", "$remote_addr !~ \"^(?=173|2400)\") { return 444; }"),
    ];
    site::nginx(&lab, &format!("geo $is_edge {{ default 0; {ranges} }}\n{}", servers.concat()));
    for name in ["ray.example", "visitor.example", "loop.example"] {
        let report = doctor(&lab, &[name, "--mode", "flexible"]);
        expect_healthy(&report);
        assert!(text(finding(&report, "online.answers")).contains("port 80"), "{report:#}");
    }
    for name in ["list.example", "pattern.example"] {
        assert_eq!(site::visit_of(&lab, name, EDGE4, false), "HTTP/1.1 200 OK");
    }
    let listed = doctor(&lab, &["list.example", "--mode", "flexible"]);
    expect_healthy(&listed);
    assert_eq!(finding(&listed, "online.empty")["verdict"], "skipped", "{listed:#}");
    let pattern = doctor(&lab, &["pattern.example", "--mode", "flexible"]);
    assert_eq!((ids(&pattern, "cause"), ids(&pattern, "warning")), (vec![], vec!["online.empty"]), "{pattern:#}");
    let warning = finding(&pattern, "online.empty");
    assert!(warning.to_string().contains("on a condition"), "{warning:#}");
    assert!(warning["fix"]["command"].as_str().expect("a command").starts_with("${EDITOR:-vi} +"), "{warning:#}");
}

#[test]
fn what_is_no_http_is_the_cause() {
    let lab = Lab::new();
    expect_cause(&doctor(&lab, &["--mode", "flexible"]), "online.garbled", 520);
    let lab = self::lab();
    let _huge = site::Caddy::with(&lab, 80, |mut client| {
        let cookies = format!("Set-Cookie: a={}\r\n", "x".repeat(4000)).repeat(40);
        site::answer(&mut client, &format!("HTTP/1.1 200 OK\r\n{cookies}Content-Length: 0\r\n\r\n"));
    });
    expect_cause(&doctor(&lab, &["--mode", "flexible"]), "online.head-too-long", 520);
}

/// nginx that serves plain HTTP well, and over TLS does this.
fn over_tls(lab: &Lab, more: &str) {
    let plain: String =
        site::nginx_site("").lines().filter(|l| !l.contains("443 ssl")).map(|l| format!("{l}\n")).collect();
    let tls: String = site::nginx_site(more)
        .lines()
        .filter(|l| !(l.ends_with("80;") && l.contains("listen")))
        .map(|l| format!("{l}\n"))
        .collect();
    site::nginx(lab, &(plain + &tls));
}

#[test]
fn what_goes_wrong_over_tls_only_is_the_cause_unless_cloudflare_goes_there_by_plain_http() {
    let nobody_accepts = |lab: &Lab| lab.inside(|| TcpListener::bind("127.0.0.1:9000").expect("listen"));
    for (more, id, error) in [
        ("location / { proxy_pass http://127.0.0.1:9000; }", "online.stalls", Some(524)),
        ("return 444;", "online.empty", Some(520)),
        ("location = / { return 302 /de?t=secret; }\nlocation /de { return 302 /; }", "online.redirect-loop", None),
        ("return 301 https://$host$request_uri;", "online.redirect-loop", None),
    ] {
        let lab = lab();
        let _hangs = nobody_accepts(&lab);
        over_tls(&lab, more);
        // What stalls is waited for longer.
        let modes = if id == "online.stalls" { &["strict"][..] } else { &["strict", "unknown"] };
        for mode in modes {
            let report = doctor(&lab, &[NAME, "--mode", mode]);
            assert_eq!(ids(&report, "cause"), [id], "{more} {mode}: {report:#}");
            let cause = finding(&report, id);
            let errors: Vec<u64> =
                cause["cloudflare_errors"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
            assert_eq!(errors, Vec::from_iter(error), "{cause:#}");
            let asked = cause["evidence"][0]["source"].as_str().unwrap();
            assert_eq!(asked, format!("curl -sik --connect-to '::{SERVER4}:443' https://{NAME}/"));
            assert!(!report.to_string().contains("secret"), "{report:#}");
            assert_eq!(ids(&report, "warning"), Vec::<&str>::new(), "{report:#}");
        }
        expect_healthy(&doctor(&lab, &[NAME, "--mode", "flexible"]));
    }
}

#[test]
fn a_redirect_from_https_to_http_and_back_is_a_loop_and_one_way_is_none() {
    let lab = lab();
    over_tls(&lab, "return 301 http://$host$request_uri;");
    expect_healthy(&doctor(&lab, &[NAME, "--mode", "full"]));
    let lab = self::lab();
    let there = "if ($scheme = https) { return 302 http://$host$request_uri; }\nreturn 301 https://$host$request_uri;";
    site::nginx(&lab, &site::nginx_site(there));
    let report = doctor(&lab, &[NAME, "--mode", "full"]);
    assert_eq!(ids(&report, "cause"), ["online.redirect-loop"], "{report:#}");
    let cause = finding(&report, "online.redirect-loop");
    assert!(text(cause).contains("from https:// to http:// and back"), "{cause:#}");
    let trail = "https://shop.example/ → http://shop.example/ → https://shop.example/";
    assert_eq!(cause["evidence"][0]["shows"], trail);
}

#[test]
fn what_goes_wrong_at_both_ports_is_named_once() {
    let lab = lab();
    let _hangs = lab.inside(|| TcpListener::bind("127.0.0.1:9000").expect("listen"));
    site::nginx(&lab, &site::nginx_site("location / { proxy_pass http://127.0.0.1:9000; }"));
    let report = doctor(&lab, &[NAME]);
    let cause = expect_cause(&report, "online.stalls", 524);
    assert!(text(cause).contains("on ports 80 and 443"), "{cause:#}");
    let stalls = report["findings"].as_array().unwrap().iter().filter(|f| f["id"] == "online.stalls");
    assert_eq!(stalls.count(), 1, "{report:#}");
}

#[test]
fn a_server_that_does_not_even_say_hello_over_tls_is_the_cause() {
    let lab = lab();
    let plain = site::nginx_site("").lines().filter(|l| !l.contains("443 ssl")).collect::<Vec<_>>().join("\n");
    site::nginx(&lab, &plain);
    let _hangs = lab.inside(|| TcpListener::bind("[::]:443").expect("listen"));
    for args in [&[NAME, "--mode", "full"][..], &[NAME], &["--mode", "strict"]] {
        let report = doctor(&lab, args);
        let cause = expect_cause(&report, "online.stalls", 525);
        assert!(text(cause).contains("on port 443 and then says nothing"), "{cause:#}");
        assert_eq!(ids(&report, "warning"), Vec::<&str>::new(), "{report:#}");
    }
    expect_healthy(&doctor(&lab, &[NAME, "--mode", "flexible"]));
}

#[test]
fn who_names_no_site_is_not_told_of_what_a_server_keeps_from_such() {
    let lab = lab();
    over_tls(&lab, "return 444;");
    let report = doctor(&lab, &["--mode", "full"]);
    expect_healthy(&report);
    assert_eq!(finding(&report, "online.empty")["verdict"], "skipped");
}

#[test]
fn an_end_without_a_goodbye_is_an_end() {
    let lab = lab();
    let _caddy = site::Caddy::rude(&lab);
    let report = doctor(&lab, &[NAME, "--mode", "strict", "--port", "443"]);
    expect_healthy(&report);
    assert!(text(finding(&report, "online.answers")).contains("port 443"), "{report:#}");
}

#[test]
fn an_applications_own_error_is_a_warning() {
    let lab = lab();
    site::nginx(&lab, &site::nginx_site("return 503;"));
    let report = doctor(&lab, &[NAME]);
    assert_eq!(
        (ids(&report, "cause"), ids(&report, "warning")),
        (vec![], vec!["online.application-error"]),
        "{report:#}"
    );
    let warning = text(finding(&report, "online.application-error"));
    assert!(warning.contains("answers 503") && warning.contains("on ports 80 and 443"), "{warning}");
    let lab = self::lab();
    over_tls(&lab, "return 503;");
    let report = doctor(&lab, &[NAME, "--mode", "full"]);
    assert_eq!(ids(&report, "warning"), ["online.application-error"], "{report:#}");
}

#[test]
fn tls_where_plain_http_is_spoken_is_the_cause() {
    let lab = lab();
    site::nginx(&lab, &site::nginx_site("").replace("80;", "80 ssl;"));
    let report = doctor(&lab, &[NAME, "--mode", "flexible"]);
    assert_eq!(ids(&report, "cause"), ["online.tls-on-http-port"], "{report:#}");
}

#[test]
fn rules_for_this_hosts_own_connections_say_nothing_about_cloudflares() {
    for statement in ["drop", "reject with tcp reset"] {
        let lab = lab();
        site::site(&lab);
        let rules = format!(
            "table inet site {{ chain input {{ type filter hook input priority 0; \
             ip saddr {SERVER4} {statement}; ip6 saddr {SERVER6} {statement}; }}; }}"
        );
        let rules = rules.replace("saddr 192.0.2.1 reject", "saddr 192.0.2.1 tcp dport 80 reject");
        let rules = rules.replace("saddr 2001:db8:2::1 reject", "saddr 2001:db8:2::1 tcp dport 80 reject");
        lab.feed(["nft", "-f", "-"], &rules);
        let report = doctor(&lab, &[NAME]);
        expect_healthy(&report);
        assert_eq!(finding(&report, "online.not-asked")["verdict"], "skipped", "{report:#}");
    }
}

#[test]
fn an_origin_that_is_another_machine_is_asked_itself() {
    let lab = lab();
    site::nginx_stopped(&lab, &site::nginx_site(""));
    let asked = ["--origin", CLIENT4, "--mode", "flexible"];
    let there = site::Caddy::on_the_internet(&lab, 80, |mut client| {
        site::answer(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let report = with_the_network(&lab, &asked);
    expect_healthy(&report);
    assert!(text(finding(&report, "online.answers")).contains(&format!("port 80 of {CLIENT4}")), "{report:#}");
    for room in ["firewall", "resources", "logs"] {
        let skipped = finding(&report, &format!("{room}.another-machine"));
        assert!(text(skipped).starts_with(&format!("{CLIENT4} is another machine")), "{skipped:#}");
    }
    let said = report["conclusion"]["text"].as_str().unwrap();
    assert!(said.contains("whether a firewall turns it away could not be told"), "{said}");
    let report = doctor(&lab, &asked);
    expect_healthy(&report);
    assert_eq!(finding(&report, "online.foreign-address")["verdict"], "skipped", "{report:#}");

    // What serves here is of no use to who goes there.
    drop(there);
    site::start_nginx(&lab);
    let report = with_the_network(&lab, &asked);
    let cause = expect_cause(&report, "online.origin-refuses", 521);
    assert!(text(cause).starts_with(&format!("{CLIENT4} refuses")), "{cause:#}");
    let rule = "iptables -A INPUT -p tcp --dport 80 -j DROP";
    lab.command(rule.split(' ')).on_the_internet().run().expect_ok();
    let report = with_the_network(&lab, &asked);
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec!["online.origin-silent"]), "{report:#}");
    assert_eq!(finding(&report, "online.origin-silent")["cloudflare_errors"], serde_json::json!([522]));
    lab.run("ip route add unreachable 198.18.0.0/15".split(' '));
    let report = with_the_network(&lab, &["--origin", "198.18.0.1", "--mode", "flexible"]);
    assert_eq!(ids(&report, "warning"), ["online.origin-unreachable"], "{report:#}");
    assert_eq!(finding(&report, "online.origin-unreachable")["cloudflare_errors"], serde_json::json!([523]));
}

#[test]
fn an_address_that_may_be_translated_to_this_machines_is_asked_about_on_its_own_ones() {
    let lab = lab();
    site::site(&lab);
    let inside = "addr add 10.0.0.5/24 dev s0\naddr del 192.0.2.1/24 dev s0\n";
    lab.feed(["ip", "-batch", "-"], inside);
    let report = with_the_network(&lab, &["--origin", "198.18.0.1", "--mode", "flexible"]);
    expect_healthy(&report);
    assert_eq!(finding(&report, "online.foreign-address")["verdict"], "note");
    assert!(text(finding(&report, "online.answers")).contains("port 80 of 10.0.0.5"), "{report:#}");
    assert!(!ids(&report, "skipped").contains(&"firewall.another-machine"), "{report:#}");
}
