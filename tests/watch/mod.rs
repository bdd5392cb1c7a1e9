//! `edgeallow watch` against a real nginx in a lab, behind an edge that answers as Cloudflare's does.
//!
//! Belongs here: what is told and done, and when. Does not: the state machine at random (`src/watch/rules_tests.rs`).

mod service;

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::{
    doctor::{
        edge::{Edge, Mode},
        site,
    },
    exposition,
    lab::{Lab, Output, SERVER4},
};

const URL: &str = "https://shop.example/";

/// A healthy site behind the edge, and a configuration with this in `[watch]`.
fn host(mode: Mode, watch: &str) -> (Lab, Edge) {
    let lab = Lab::without_listeners();
    site::site(&lab);
    configure(&lab, watch);
    lab.write_file(
        "/usr/local/bin/act",
        "#!/bin/sh\nn=$(ls /run/acts 2>/dev/null | wc -l)\nmkdir -p /run/acts\ncat >/run/acts/$n\necho mended\n",
    );
    lab.chmod("/usr/local/bin/act", 0o755);
    let edge = Edge::start(&lab, mode);
    (lab, edge)
}

fn configure(lab: &Lab, watch: &str) {
    lab.write_file("/etc/edgeallow/config.toml", format!("[watch]\nurls = ['{URL}']\ntimeout = '8s'\n{watch}\n"));
}

fn once(lab: &Lab, args: &[&str]) -> Output {
    lab.edgeallow([&["watch", "--once"], args].concat())
}

/// One round as JSON, which has to end with this status.
fn told(lab: &Lab, status: i32, args: &[&str]) -> Value {
    let report = once(lab, &[&["--format", "json"], args].concat()).expect(status).json();
    assert!(report["error"].is_null(), "{report:#}");
    report["watch"].clone()
}

/// The events of a round.
fn events(watch: &Value) -> Vec<&str> {
    watch["news"].as_array().expect("news").iter().map(|n| n["event"].as_str().expect("an event")).collect()
}

fn trouble(watch: &Value) -> (&str, u64) {
    let trouble = &watch["pages"][0]["trouble"];
    (trouble["whose"].as_str().unwrap_or_default(), trouble["status"].as_u64().unwrap_or_default())
}

fn acts(lab: &Lab) -> usize {
    if lab.exists("/run/acts") {
        lab.tree(&["/run/acts"]).keys().filter(|name| name.contains("/acts/")).count()
    } else {
        0
    }
}

fn stop(lab: &Lab) {
    site::stop_nginx(lab, "quit");
}

#[test]
fn a_stopped_origin_is_a_521_after_n_rounds_and_recovery_is_told_once() {
    let (lab, _edge) = host(Mode::Strict, "on_fail = ['act']");
    let quiet = once(&lab, &[]).expect(0);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "all is well, and it says: {quiet:?}");
    let memory = lab.read_file("/var/lib/edgeallow/watch.json");
    once(&lab, &[]).expect(0);
    assert_eq!(memory, lab.read_file("/var/lib/edgeallow/watch.json"), "nothing happened");

    stop(&lab);
    for _ in 0..2 {
        let failing = told(&lab, 0, &[]);
        assert_eq!((events(&failing), &failing["pages"][0]["state"]), (vec![], &"failing".into()), "{failing:#}");
    }
    assert_eq!(acts(&lab), 0, "nothing is done before the third failure in a row");
    let down = once(&lab, &[]).expect(7);
    assert!(down.stdout.contains("https://shop.example/ is down: Cloudflare answers with its error 521"), "{down:?}");
    assert!(down.stdout.contains(&format!("asked straight at {SERVER4}: the connection is refused")), "{down:?}");
    assert!(down.stdout.contains("The on-fail command was run."), "{down:?}");
    assert_eq!(acts(&lab), 1);
    let fed: Value = serde_json::from_str(&lab.read_file("/run/acts/0")).expect("the report");
    assert_eq!((trouble(&fed["watch"]), events(&fed["watch"])), (("cloudflare", 521), vec!["down"]));
    assert_eq!((&fed["watch"]["pages"][0]["failures"], &fed["watch"]["acts"]), (&3.into(), &true.into()));

    let held = told(&lab, 7, &[]);
    assert_eq!((events(&held), held["acts"].as_bool()), (vec!["held"], Some(false)));
    let silent = once(&lab, &[]).expect(7);
    assert!(silent.stdout.is_empty() && silent.stderr.is_empty(), "it is told once: {silent:?}");
    assert_eq!(acts(&lab), 1, "the cooldown isn't over");

    site::start_nginx(&lab);
    let up = told(&lab, 0, &[]);
    assert_eq!((events(&up), &up["pages"][0]["state"]), (vec!["recovered"], &"well".into()));
    assert!(once(&lab, &[]).expect(0).stdout.is_empty());
}

#[test]
fn each_of_cloudflare_s_errors_is_told_from_the_others_and_from_the_application_s() {
    let (lab, edge) = host(Mode::Strict, "fail_after = 1");
    let drop = "table ip f { chain in { type filter hook input priority 0; iif s0 tcp dport 443 drop; }; }";
    lab.feed(["nft", "-f", "-"], drop);
    let silent = told(&lab, 7, &[]);
    assert_eq!((trouble(&silent), events(&silent)), (("cloudflare", 522), vec!["down"]), "{silent:#}");
    assert_eq!(silent["pages"][0]["origins"][0]["status"], 200, "this machine's own packets aren't dropped");
    lab.run(["nft", "delete", "table", "ip", "f"]);

    // An expired certificate is a 526 in the mode Full (strict), and none of Cloudflare's business in Full.
    expire(&lab);
    let expired = told(&lab, 7, &[]);
    assert_eq!((trouble(&expired), events(&expired)), (("cloudflare", 526), vec!["changed"]), "{expired:#}");
    let detail = expired["pages"][0]["origins"][0]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("has expired"), "{expired:#}");
    edge.set(Mode::Full);
    assert_eq!(events(&told(&lab, 0, &[])), ["recovered"]);

    nginx(&lab, "server { listen 443; return 200; }");
    let plain = told(&lab, 7, &[]);
    assert_eq!(
        (trouble(&plain), &plain["pages"][0]["origins"][0]["cloudflare_error"]),
        (("cloudflare", 525), &525.into())
    );
    nginx(&lab, &site::nginx_site("return 444;"));
    assert_eq!(trouble(&told(&lab, 7, &[])), ("cloudflare", 520));
    for status in [500_u64, 503] {
        nginx(&lab, &site::nginx_site(&format!("return {status};")));
        let own = told(&lab, 7, &[]);
        assert_eq!((trouble(&own), events(&own)), (("application", status), vec!["changed"]));
        assert!(own["pages"][0]["cloudflare_error"].is_null(), "{own:#}");
    }
}

fn nginx(lab: &Lab, config: &str) {
    lab.write_file(site::NGINX_SITE, config);
    stop(lab);
    site::start_nginx(lab);
}

fn expire(lab: &Lab) {
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 60 * 60));
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([site::NAME.to_owned()]).expect("a plain name");
    (params.not_before, params.not_after) = ((now - 90 * day).into(), (now - day).into());
    lab.write_file(site::CHAIN, params.self_signed(&key).expect("a certificate").pem());
    lab.write_file(site::KEY, key.serialize_pem());
    nginx(lab, &site::nginx_site(""));
}

#[test]
fn an_edge_that_can_t_be_reached_never_acts_by_itself() {
    let (lab, edge) = host(Mode::Strict, "fail_after = 1\non_fail = ['act']");
    drop(edge);
    let blind = told(&lab, 0, &[]);
    assert_eq!((events(&blind), &blind["pages"][0]["state"]), (vec!["unseen"], &"unknown".into()), "{blind:#}");
    assert_eq!(events(&told(&lab, 0, &[])), Vec::<&str>::new());
    // Nor does a name that can't be resolved.
    lab.write_file("/etc/hosts", "127.0.0.1 localhost\n");
    lab.write_file("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    told(&lab, 0, &[]);
    told(&lab, 0, &["--offline"]);
    assert_eq!(acts(&lab), 0);
    // What the origin does is seen all the same.
    stop(&lab);
    let down = told(&lab, 7, &[]);
    assert_eq!((trouble(&down), events(&down), acts(&lab)), (("origin", 521), vec!["down"], 1), "{down:#}");
}

#[test]
fn what_is_well_for_visitors_is_no_failure_however_the_origin_answers_here() {
    let (lab, edge) = host(Mode::Flexible, "fail_after = 1\non_fail = ['act']");
    nginx(&lab, "server { listen 80; return 200; }");
    let odd = told(&lab, 0, &[]);
    assert_eq!((events(&odd), &odd["pages"][0]["state"]), (vec!["odd"], &"well".into()), "{odd:#}");
    assert_eq!(events(&told(&lab, 0, &[])), Vec::<&str>::new(), "it is told once");
    // What failed while all was well proves nothing when the edge is out of reach.
    drop(edge);
    assert_eq!(events(&told(&lab, 0, &[])), ["unseen"]);
    assert_eq!(acts(&lab), 0);
}

#[test]
fn what_a_filter_refuses_counts_also_where_the_page_is_well() {
    let (lab, _edge) = host(Mode::Strict, "fail_after = 2");
    lab.feed(
        ["nft", "-f", "-"],
        "table ip f { chain in { type filter hook input priority 0; ip saddr 104.16.0.0/13 tcp dport 443 drop; }; }",
    );
    let first = told(&lab, 0, &[]);
    assert_eq!((trouble(&first), events(&first)), (("firewall", 522), vec![]), "{first:#}");
    let second = told(&lab, 7, &[]);
    assert_eq!((trouble(&second), events(&second)), (("firewall", 522), vec!["down"]), "{second:#}");
    lab.run(["nft", "delete", "table", "ip", "f"]);
    assert_eq!(events(&told(&lab, 0, &[])), ["recovered"]);
    // Another machine's packet filters say nothing of this origin.
    assert_eq!(told(&lab, 0, &["--origin", "198.51.100.7"])["pages"][0]["edge"]["status"], 200);
}

#[test]
fn a_command_that_hangs_is_killed_and_one_that_fails_is_said_and_the_limits_outlive_the_process() {
    let (lab, _edge) = host(Mode::Strict, "fail_after = 1\non_fail_timeout = '5s'\ncooldown = '1s'\nmax_per_hour = 2");
    stop(&lab);
    // What isn't there is not run, counts for nothing and may be tried again at once.
    for _ in 0..2 {
        let report = once(&lab, &["--on-fail", "/nonexist x", "--format", "json"]).expect(7).json();
        assert_eq!(report["watch"]["acts"], false, "{report:#}");
        assert_eq!(report["warnings"][0]["id"], "on-fail-failed", "{report:#}");
        assert_eq!(report["warnings"].as_array().map(Vec::len), Some(1), "{report:#}");
    }
    let missing = once(&lab, &["--on-fail", "/nonexist x"]).expect(7);
    let why = "the on-fail command can't be run: there is no program /nonexist that could be run";
    assert!(missing.stdout.contains(why) && !missing.stdout.contains("was run."), "{missing:?}");
    let hung = once(&lab, &["--on-fail", "sh -c 'echo x >>/run/begun; sleep 300'"]).expect(7);
    assert!(hung.stdout.contains("did not finish within 5 s and was killed"), "{hung:?}");
    std::thread::sleep(Duration::from_millis(1100));
    let failed = once(&lab, &["--on-fail", "sh -c 'echo no such unit >&2; exit 5'"]).expect(7);
    assert!(failed.stdout.contains("sh ended with status 5: no such unit"), "{failed:?}");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(events(&told(&lab, 7, &["--on-fail", "act"])), ["held"], "two an hour");
    assert_eq!((acts(&lab), lab.read_file("/run/begun").as_str()), (0, "x\n"));
    // Without a memory nobody knows what was done before.
    lab.write_file("/var/lib/edgeallow/watch.json", "{");
    let lost = once(&lab, &["--on-fail", "act", "--cooldown", "1h"]).expect(7);
    assert!(
        lost.stdout.contains("watch-memory-lost") && lab.exists("/var/lib/edgeallow/watch.json.corrupt"),
        "{lost:?}"
    );
    assert!(lost.stdout.contains("it isn't known when it was last run"), "{lost:?}");
    assert_eq!(acts(&lab), 0);
}

#[test]
fn hooks_and_metrics_hear_of_it_without_secrets() {
    let (lab, _edge) = host(Mode::Strict, "fail_after = 1");
    let secret = format!("{URL}?token=secret");
    let hooks = format!(
        "metrics = '/run/edgeallow.prom'\n[watch]\nurls = ['{secret}']\nfail_after = 1\n[on_failure]\ncommand = \
         ['sh', '-c', 'cat >/run/failure']\n[on_change]\ncommand = ['sh', '-c', 'cat >/run/change']\n"
    );
    lab.write_file("/etc/edgeallow/config.toml", &hooks);
    let well = once(&lab, &["-v"]).expect(0);
    stop(&lab);
    let down = once(&lab, &[]).expect(7);
    let metrics = |name: &str, labels: &[(&str, &str)]| {
        let text = lab.read_file("/run/edgeallow.prom");
        assert!(!text.contains("secret"), "{text}");
        exposition::read(&text).unwrap_or_else(|e| panic!("{e}\n{text}")).value(name, labels)
    };
    let url = ("url", "https://shop.example/?…");
    for way in ["edge", "origin"] {
        assert_eq!(metrics("edgeallow_probe_success", &[url, ("way", way)]), 0.0);
    }
    assert_eq!(metrics("edgeallow_probe_cloudflare_error", &[url]), 521.0);
    assert_eq!(metrics("edgeallow_probe_failures_in_a_row", &[url]), 1.0);
    assert_eq!((metrics("edgeallow_watch_down", &[url]), metrics("edgeallow_watch_acts_total", &[])), (1.0, 0.0));
    // The counter counts also what was done by a round that wrote no metrics.
    for config in ["", &hooks] {
        lab.write_file("/etc/edgeallow/config.toml", config);
        once(&lab, &[&secret, "--fail-after", "1", "--cooldown", "0s", "--on-fail", "act"]).expect(7);
    }
    once(&lab, &[&secret, "--fail-after", "1"]).expect(7);
    assert_eq!(metrics("edgeallow_watch_acts_total", &[]), 2.0);
    let failure = lab.read_file("/run/failure");
    assert!(failure.contains("\"event\":\"down\"") && !lab.exists("/run/change"), "{failure}");
    lab.files(|| std::fs::remove_file("/run/failure"));
    once(&lab, &[]).expect(7);
    assert!(!lab.exists("/run/failure"), "it is told once");
    site::start_nginx(&lab);
    once(&lab, &[]).expect(0);
    assert!(lab.read_file("/run/change").contains("\"event\":\"recovered\""));
    assert_eq!(metrics("edgeallow_probe_success", &[url, ("way", "edge")]), 1.0);
    for text in [failure, well.stdout, down.stdout, lab.read_file("/var/lib/edgeallow/watch.json")] {
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn what_can_t_be_watched_is_refused() {
    let lab = Lab::without_listeners();
    for (args, status, words) in [
        (&["watch", "--once"][..], 2, "nothing to watch"),
        (&["watch", "ftp://a.example"], 2, "ftp can't be watched"),
        (&["watch", "https://me:secret@a.example/"], 2, "leave it out"),
        (&["watch", URL, "--on-fail", "echo 'open"], 2, "not closed"),
        (&["watch", URL, "--fail-after", "0"], 2, "0"),
        (&["watch", URL, "--every", "soon"], 2, "not a length of time"),
    ] {
        let refused = lab.edgeallow(args).expect(status);
        assert!(refused.stderr.contains(words), "{refused:?}");
        assert!(!refused.stderr.contains("secret"), "{refused:?}");
    }
}
