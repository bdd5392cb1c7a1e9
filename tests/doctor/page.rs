//! What is handed on: the page, the words, the JSON. Whole, readable, and without anything secret.

use std::os::unix::fs::MetadataExt as _;

use super::{doctor, expect_cause, list, site};
use crate::lab::{EDGE4, EDGE6, Lab};

/// Where the page is written to.
const PAGE: &str = "/var/lib/page.html";

/// A site that denies an address of Cloudflare's, and is asked with everything that must not be told.
fn with_secrets(lab: &Lab) -> Vec<&'static str> {
    site::nginx(
        lab,
        &site::nginx_site(&format!(
            "  location = / {{ add_header Set-Cookie session=COOKIE1; return 302 \
             http://bob:PASSWORD1@other.example/next?ticket=QUERY1#FRAGMENT1; }}\n  deny {EDGE4};\n  deny {EDGE6};"
        )),
    );
    for (from, to) in [(EDGE4, "192.0.2.1"), (EDGE6, "[2001:db8:2::1]")] {
        let url = format!("http://{to}/index.html?token=QUERY2&user=QUERY3");
        let asked = lab.command([
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--interface",
            from,
            "--cookie",
            "id=COOKIE2",
            "--referer",
            "https://eve:PASSWORD2@shop.example/?q=QUERY4",
            "--user",
            "carol:PASSWORD3",
            "--user-agent",
            "AGENT1",
            "-m",
            "20",
            &url,
        ]);
        assert_eq!(asked.on_the_internet().run().stdout, "403");
    }
    site::settled(lab);
    vec!["COOKIE", "PASSWORD", "QUERY", "FRAGMENT", "AGENT1", "carol", "WORD4", "PRIVATE KEY"]
}

/// The tags of a page, in order: `(name, closes, attributes)`.
fn tags(page: &str) -> Vec<(String, bool, String)> {
    page.split('<')
        .skip(1)
        .map(|tag| {
            let tag = tag.split_once('>').expect("a tag that ends").0;
            let (name, rest) = tag.split_once(' ').unwrap_or((tag, ""));
            let closes = name.starts_with('/');
            (name.trim_start_matches('/').to_lowercase(), closes, rest.to_owned())
        })
        .collect()
}

#[test]
fn the_page_is_whole_in_itself_and_for_everybody_to_read() {
    let lab = Lab::without_listeners();
    site::site(&lab);
    lab.run(["nft", "add table inet guard"]);
    lab.run(["nft", "add chain inet guard input { type filter hook input priority -10; policy accept; }"]);
    lab.run(["nft", "add rule inet guard input tcp dport { 80, 443 } ip saddr 173.245.48.0/20 drop comment \"<b>&x\""]);
    let output = lab.edgeallow(["doctor", "--offline", "shop.example", "--report", PAGE]);
    assert_eq!(output.status, Some(7), "{output:?}");
    assert!(output.stdout.starts_with("Most likely: the administrator's own nftables rules drop "), "{output:?}");
    assert_eq!(lab.files(|| std::fs::metadata(PAGE)).mode() & 0o7777, 0o644);
    let page = lab.read_file(PAGE);
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{page}");
    assert!(page.contains("Most likely: ") && page.contains("Error 522"), "{page}");
    assert!(page.contains("edgeallow sync") && page.contains("&lt;b&gt;&amp;x"), "{page}");
    let mut open: Vec<String> = Vec::new();
    for (name, closes, attributes) in tags(&page) {
        for foreign in ["src", "href", "srcset", "action", "onload", "onclick", "data"] {
            let has = attributes.split_whitespace().any(|a| a.starts_with(&format!("{foreign}=")));
            assert!(!has, "<{name} {attributes}>");
        }
        assert!(!["script", "img", "link", "iframe", "object", "form", "base"].contains(&name.as_str()), "<{name}>");
        match (closes, ["!doctype", "meta"].contains(&name.as_str())) {
            (_, true) => {}
            (true, _) => assert_eq!(open.pop().as_deref(), Some(name.as_str()), "closed, but not open last"),
            (false, _) => open.push(name),
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    for fetches in ["url(", "@import", "@font-face"] {
        assert!(!page.contains(fetches), "{fetches}");
    }
    // Once more, over what is there.
    lab.edgeallow(["doctor", "--offline", "--report", PAGE]).expect(7);
    assert_ne!(lab.read_file(PAGE), page);
}

#[test]
fn a_page_that_cannot_be_written_is_said_and_what_was_found_is_told() {
    let lab = Lab::without_listeners();
    site::site(&lab);
    let output = lab.edgeallow(["doctor", "--offline", "--report", "/nowhere/at/all/page.html"]).expect(1);
    assert!(output.stdout.contains("the page was not written: ") && output.stdout.contains("/nowhere"), "{output:?}");
    assert!(output.stdout.contains("Nothing on this machine would make Cloudflare answer"), "{output:?}");
    let json =
        lab.edgeallow(["doctor", "--offline", "--format", "json", "--report", "/proc/page.html"]).expect(1).json();
    assert_eq!(list(&json["warnings"])[0]["id"], "report-failed", "{json:#}");
    assert_eq!(json["doctor"]["conclusion"]["verdict"], "ok", "{json:#}");
    // A page that was asked for and isn't there counts for more than what it would have told.
    site::stop_nginx(&lab, "stop");
    lab.edgeallow(["doctor", "--offline", "--report", "/nowhere/page.html"]).expect(1);
    lab.edgeallow(["doctor", "--offline"]).expect(7);
}

#[test]
fn nothing_secret_is_in_any_output() {
    let lab = Lab::without_listeners();
    let secrets = with_secrets(&lab);
    // What is logged does hold them.
    let logged = lab.read_file("/var/log/nginx/error.log") + &lab.read_file("/var/log/nginx/access.log");
    for secret in ["QUERY2", "PASSWORD2", "QUERY4", "carol", "AGENT1"] {
        assert!(logged.contains(secret), "{secret} is not in {logged}");
    }
    let site = "https://dave:WORD4@shop.example/shop?basket=QUERY5";
    let ask = |more: &[&str]| lab.edgeallow([&["doctor", "--offline", "-v", site][..], more].concat());
    let words = ask(&["--report", PAGE]);
    let outputs = [
        ("words", words.stdout + &words.stderr),
        ("json", ask(&["--format", "json"]).stdout),
        ("page", lab.read_file(PAGE)),
    ];
    for (output, text) in &outputs {
        assert!(text.contains("logs.nginx-denies") || text.contains("nginx denied 2 requests"), "{output}: {text}");
        assert!(text.contains("http://other.example/next"), "{output}: {text}");
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} in {output}: {text}");
        }
    }
}

#[test]
fn the_words_fit_a_terminal_and_a_pipe_and_colours_are_left_out_where_they_are_not_wanted() {
    let lab = Lab::without_listeners();
    site::nginx_stopped(&lab, &site::nginx_site(""));
    let report = doctor(&lab, &[]);
    expect_cause(&report, "online.nothing-listens", 521);
    let next = report["conclusion"]["next"].as_str().expect("a command");
    let terminal = |env: &str| {
        let command = format!("stty cols 80; {env} {} doctor --offline", "/usr/local/bin/edgeallow");
        lab.command(["script", "-qec", &command, "/dev/null"]).env("TERM", "xterm-256color").run().stdout
    };
    let shown = terminal("");
    assert!(shown.contains("\u{1b}[1mOnline") && shown.contains("cause"), "{shown}");
    let shown = terminal("NO_COLOR=1");
    assert!(!shown.contains("\u{1b}[1m"), "{shown}");
    // What goes on is shown on a line that is erased.
    let lines: Vec<&str> = shown.lines().map(|l| l.rsplit("\u{1b}[K").next().unwrap_or_default().trim_end()).collect();
    let wide = lines.iter().find(|l| l.chars().count() > 80 && !l.contains("  run  ") && !l.starts_with("          "));
    assert_eq!(wide, None, "{shown}");
    // The paragraph, then the command, then the table, and all of it on one screen or two.
    let at = |line: &str| lines.iter().position(|l| l.contains(line)).unwrap_or_else(|| panic!("no {line} in {shown}"));
    assert!(at("Most likely: nothing listens on port") < at(&format!("  run  {next}")) && lines.len() < 60, "{shown}");
    assert!(at(&format!("  run  {next}")) < at("Online"), "{shown}");

    let piped = lab.edgeallow(["doctor", "--offline"]).expect(7).stdout;
    assert!(!piped.contains('\u{1b}') && piped.lines().next().is_some_and(|l| l.contains("Error 521")), "{piped}");
    let quiet = lab.edgeallow(["doctor", "--offline", "-q"]).expect(7).stdout;
    assert!(quiet.contains("cause") && !quiet.contains("  note") && !quiet.contains("  ok"), "{quiet}");
    let verbose = lab.edgeallow(["doctor", "--offline", "-v"]).expect(7).stdout;
    assert!(verbose.contains("  ok ") && verbose.lines().count() > piped.lines().count(), "{verbose}");
    site::start_nginx(&lab);
    assert_eq!(lab.edgeallow(["doctor", "--offline", "-q"]).expect(0).stdout, "");
}
