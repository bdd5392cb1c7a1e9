//! Every way in which a source of lists can fail, over real sockets and real TLS on loopback.

mod end_to_end;
#[path = "../support/fault_server.rs"]
mod fault_server;
mod process;
mod proxy;

use std::{
    thread,
    time::{Duration, Instant},
};

use edgeallow::{
    error::{Error, ErrorKind},
    source::{self, Document, Fetched, Origin, SourceConfig, Validator},
};
use fault_server::{Fault, FaultServer, Outcome};

fn config(server: &FaultServer) -> SourceConfig {
    toml::from_str(&server.source_section()).expect("the section is well-formed")
}

/// A fetch, with what it stepped over.
fn fetch(config: &SourceConfig, stored: Option<&Validator>) -> (Result<Fetched, source::Fault>, Vec<Error>) {
    let mut stepped_over = Vec::new();
    (source::fetch(config, stored, &mut stepped_over), stepped_over)
}

fn outcome(result: &Result<Fetched, source::Fault>) -> Outcome {
    match result {
        Ok(_) => Outcome::Good,
        Err(source::Fault::Unreachable(e)) => Outcome::Unreachable(e.kind.as_str()),
        Err(source::Fault::Bad(e)) => Outcome::Bad(e.kind.as_str()),
    }
}

/// Runs a check for many faults at once and reports every one that fails it.
fn for_each(faults: impl Iterator<Item = Fault>, check: impl Fn(Fault) -> Result<(), String> + Sync) {
    let wrong: Vec<String> = thread::scope(|scope| {
        let check = &check;
        let checks: Vec<_> = faults.map(|fault| (fault, scope.spawn(move || check(fault)))).collect();
        assert!(!checks.is_empty());
        checks
            .into_iter()
            .filter_map(|(fault, check)| {
                check.join().unwrap_or_else(|_| Err("panicked".into())).err().map(|e| format!("{fault:?}: {e}"))
            })
            .collect()
    });
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn unreachable_ones() -> impl Iterator<Item = Fault> {
    Fault::ALL.iter().copied().filter(|f| matches!(f.outcome(), Outcome::Unreachable(_)))
}

fn bad_ones() -> impl Iterator<Item = Fault> {
    Fault::ALL.iter().copied().filter(|f| matches!(f.outcome(), Outcome::Bad(_)))
}

/// An error that a person can do something with.
fn tells(error: &Error, url: &str) -> Result<(), String> {
    ensure(error.message.starts_with(&format!("{url}: ")), || format!("doesn't name {url}: {error}"))?;
    ensure(error.hint.is_some(), || format!("has no hint: {error}"))?;
    ensure(!error.message.contains("os error") && !error.message.contains('\n'), || format!("is not plain: {error}"))
}

#[test]
fn every_fault_in_every_document_has_its_outcome() {
    for_each(Fault::ALL.iter().copied(), |fault| {
        let server = FaultServer::start(fault, fault, fault);
        let config = config(&server);
        let began = Instant::now();
        let (result, stepped_over) = fetch(&config, None);
        let took = began.elapsed();
        ensure(outcome(&result) == fault.outcome(), || format!("{result:?}, not {:?}", fault.outcome()))?;
        // The time for two documents, on a busy machine.
        ensure(took < Duration::from_secs(100), || format!("took {took:?}"))?;
        match result {
            Ok(fetched) => {
                ensure(fetched.origin == Origin::Api && stepped_over.is_empty(), || format!("{stepped_over:?}"))?;
                let Document::Json(list) = fetched.document else { return Err("not JSON".into()) };
                ensure((list.v4.len(), list.v6.len()) == (15, 7), || format!("{list:?}"))
            }
            Err(source::Fault::Bad(error)) => {
                ensure(stepped_over.is_empty(), || format!("stepped over {stepped_over:?}"))?;
                tells(&error, &config.api_url)
            }
            Err(source::Fault::Unreachable(error)) => {
                ensure(stepped_over.len() == 1, || format!("stepped over {stepped_over:?}"))?;
                ensure(stepped_over[0].kind == error.kind, || format!("{stepped_over:?}"))?;
                tells(&stepped_over[0], &config.api_url)?;
                tells(&error, &config.v4_url)
            }
        }
    });
}

#[test]
fn an_api_that_cannot_be_reached_makes_way_for_the_text_lists() {
    for_each(unreachable_ones(), |fault| {
        let server = FaultServer::start(fault, Fault::None, Fault::None);
        let (result, stepped_over) = fetch(&config(&server), None);
        let fetched = result.map_err(|e| format!("{e:?}"))?;
        ensure(fetched.origin == Origin::Text && fetched.validator.is_none(), || format!("{fetched:?}"))?;
        let Document::Text { v4, v6 } = fetched.document else { return Err("not text".into()) };
        ensure(v4 == include_bytes!("../../src/allowlist/data/ips-v4"), || "another v4".into())?;
        ensure(v6 == include_bytes!("../../src/allowlist/data/ips-v6"), || "another v6".into())?;
        ensure(stepped_over.len() == 1, || format!("stepped over {stepped_over:?}"))?;
        ensure(Outcome::Unreachable(stepped_over[0].kind.as_str()) == fault.outcome(), || format!("{stepped_over:?}"))
    });
}

#[test]
fn an_api_with_bad_content_ends_the_search() {
    for_each(bad_ones(), |fault| {
        let server = FaultServer::start(fault, Fault::None, Fault::None);
        let (result, stepped_over) = fetch(&config(&server), None);
        ensure(outcome(&result) == fault.outcome(), || format!("{result:?}"))?;
        ensure(stepped_over.is_empty(), || format!("{stepped_over:?}"))?;
        let asked = server.requests();
        ensure(asked.len() == 1 && asked[0].starts_with("GET /client/v4/ips "), || format!("asked {asked:?}"))
    });
}

#[test]
fn both_families_or_none_from_the_text_lists() {
    let only_for_the_api =
        [Fault::SuccessFalse, Fault::V4Missing, Fault::V6Empty, Fault::WrongTypes, Fault::OtherJson, Fault::HalfJson];
    for_each(unreachable_ones().chain(bad_ones()).filter(|f| !only_for_the_api.contains(f)), |fault| {
        for (v4, v6, path) in [(fault, Fault::None, "/ips-v4"), (Fault::None, fault, "/ips-v6")] {
            let server = FaultServer::start(Fault::NotFound, v4, v6);
            let (result, stepped_over) = fetch(&config(&server), None);
            ensure(outcome(&result) == fault.outcome(), || format!("{path}: {result:?}"))?;
            ensure(stepped_over.len() == 1 && stepped_over[0].kind == ErrorKind::FetchStatus, || {
                format!("{path}: stepped over {stepped_over:?}")
            })?;
            if let Err(source::Fault::Unreachable(error) | source::Fault::Bad(error)) = result {
                ensure(error.message.contains(path), || format!("doesn't name {path}: {error}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn only_what_may_pass_is_tried_again() {
    let table = [
        (Fault::None, 1),
        (Fault::FailsOnce, 2),
        (Fault::BusyOnce, 2),
        (Fault::ResetOnce, 1),
        (Fault::TrailingSlash, 2),
        (Fault::Fails, 3),
        (Fault::Busy, 3),
        (Fault::NoAnswer, 3),
        (Fault::NotHttp, 3),
        (Fault::Truncated, 3),
        (Fault::ChunkCut, 3),
        (Fault::BusyForAnHour, 1),
        (Fault::NotFound, 1),
        (Fault::Forbidden, 1),
        (Fault::NotModified, 1),
        (Fault::RedirectElsewhere, 1),
        (Fault::RedirectToHttp, 1),
        (Fault::RedirectLoop, 4),
        (Fault::Expired, 0),
        (Fault::Html, 1),
        (Fault::Empty, 1),
    ];
    for_each(table.iter().map(|(fault, _)| *fault), |fault| {
        let server = FaultServer::start(fault, Fault::None, Fault::None);
        let _ = fetch(&config(&server), None);
        let asked = server.requests().iter().filter(|r| r.starts_with("GET /client/v4/ips")).count();
        let expected = table.iter().find(|(f, _)| *f == fault).map(|(_, n)| *n);
        ensure(Some(asked) == expected, || format!("asked {asked} times, not {expected:?}"))
    });
}

#[test]
fn a_pause_that_the_server_asks_for_is_kept() {
    let server = FaultServer::start(Fault::BusyOnce, Fault::None, Fault::None);
    // The pause is longer than the time for the document, which it doesn't count against.
    let pause = Duration::from_secs(fault_server::PAUSE);
    let config = SourceConfig { timeout: pause - Duration::from_millis(50), ..config(&server) };
    let began = Instant::now();
    let (result, _) = fetch(&config, None);
    assert_eq!(outcome(&result), Outcome::Good, "{result:?}");
    assert!(began.elapsed() >= pause, "{:?}", began.elapsed());
}

#[test]
fn an_hour_is_too_long_a_pause_and_said() {
    let server = FaultServer::start(Fault::BusyForAnHour, Fault::None, Fault::None);
    let began = Instant::now();
    let (_, stepped_over) = fetch(&config(&server), None);
    assert!(began.elapsed() < Duration::from_secs(600));
    let message = &stepped_over[0].message;
    assert!(message.ends_with("the server answered 429 Too Many Requests and asks to wait 3600 s"), "{message}");
}

#[test]
fn a_stored_list_that_is_still_current_is_not_sent_again() {
    let server = FaultServer::start(Fault::None, Fault::None, Fault::None);
    let config = config(&server);
    let first = fetch(&config, None).0.unwrap();
    let stored = first.validator.clone().expect("the server sends an ETag");
    // It survives the way through the state file.
    let stored: Validator = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();

    let again = fetch(&config, Some(&stored)).0.unwrap();
    assert_eq!((again.origin, &again.document), (Origin::Api, &Document::NotModified));
    assert_eq!(again.validator.as_ref(), Some(&stored));

    // For another address it says nothing.
    let other = SourceConfig { api_url: format!("{}?networks=jdcloud", config.api_url), ..config };
    assert!(matches!(fetch(&other, Some(&stored)).0.unwrap().document, Document::Json(_)));
    let conditional: Vec<bool> = server.requests().iter().map(|r| r.contains("if-none-match")).collect();
    assert_eq!(conditional, [false, true, false]);
}

#[test]
fn it_says_who_it_is_and_keeps_secrets() {
    let server = FaultServer::start(Fault::Fails, Fault::Fails, Fault::Fails);
    let config = config(&server);
    let api_url = config.api_url.replace("https://", "https://me:secret@") + "?token=secret";
    let (result, mut errors) = fetch(&SourceConfig { api_url, ..config }, None);
    let Err(source::Fault::Unreachable(last)) = result else { panic!("{result:?}") };
    errors.push(last);
    let request = &server.requests()[0];
    assert!(request.starts_with("GET /client/v4/ips?token=secret HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("user-agent: edgeallow/{}\r\n", env!("CARGO_PKG_VERSION"))), "{request}");
    assert!(request.contains("authorization: Basic bWU6c2VjcmV0\r\n"), "{request}");
    for error in errors {
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[test]
fn what_cannot_be_used_is_said_before_anything_is_asked() {
    let server = FaultServer::start(Fault::None, Fault::None, Fault::None);
    let good = config(&server);
    let wrong = [
        SourceConfig { v6_url: "http://www.cloudflare.com/ips-v6".into(), ..good.clone() },
        SourceConfig { api_url: "cloudflare".into(), ..good.clone() },
        SourceConfig { ca_file: Some("/does/not/exist.pem".into()), ..good.clone() },
        SourceConfig { timeout: Duration::ZERO, ..good },
    ];
    for config in wrong {
        let (result, _) = fetch(&config, None);
        assert_eq!(outcome(&result), Outcome::Bad("config"), "{result:?}");
    }
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[test]
fn a_bomb_costs_no_memory() {
    process::alone("a_bomb_costs_no_memory", "measured", &[], || {
        for fault in [Fault::GzipBomb, Fault::Endless] {
            let server = FaultServer::start(fault, fault, fault);
            let before = process::peak_kib();
            let (result, _) = fetch(&config(&server), None);
            assert_eq!(outcome(&result), Outcome::Bad("fetch-too-large"), "{result:?}");
            let grown = process::peak_kib() - before;
            // Root certificates, the client, and the server's own buffers are in this, too.
            assert!(grown < 16 * 1024, "{fault:?}: {grown} KiB");
        }
    });
}

#[test]
fn a_proxy_is_used_for_the_world_and_not_for_loopback() {
    let name = "a_proxy_is_used_for_the_world_and_not_for_loopback";
    let proxy = proxy::Proxy::start();
    let through = format!("http://{}", proxy.address);
    // The name exists nowhere: only the proxy knows a way, and the certificate must still be right.
    let far = |near: &SourceConfig| near.api_url.replace("127.0.0.1", "edgeallow.test");

    let all = [("HTTPS_PROXY", &*through), ("HTTP_PROXY", &*through), ("ALL_PROXY", &*through), ("NO_PROXY", "")];
    process::alone(name, "loopback", &all, || {
        for fault in [Fault::None, Fault::PlainHttp] {
            let server = FaultServer::start(fault, fault, fault);
            assert_eq!(outcome(&fetch(&config(&server), None).0), Outcome::Good);
        }
    });
    process::alone(name, "world", &all, || {
        let server = FaultServer::start(Fault::None, Fault::None, Fault::None);
        let config = config(&server);
        let config = SourceConfig { api_url: far(&config), ..config };
        let (result, stepped_over) = fetch(&config, None);
        assert_eq!(result.map(|f| f.origin), Ok(Origin::Api), "{stepped_over:?}");
    });
    process::alone(name, "exempt", &[("HTTPS_PROXY", &*through), ("NO_PROXY", "edgeallow.test")], || {
        let server = FaultServer::start(Fault::None, Fault::None, Fault::None);
        let config = config(&server);
        let config = SourceConfig { api_url: far(&config), ..config };
        assert_eq!(fetch(&config, None).1[0].kind, ErrorKind::FetchDns);
    });
    // Only the second part may have come by; a child, whose proxy is another one, never gets here.
    assert_eq!(proxy.asked(), 1);
}

#[test]
fn the_systems_authorities_are_those_that_ssl_cert_file_names() {
    let server = FaultServer::start(Fault::None, Fault::None, Fault::None);
    let ca_file = config(&server).ca_file.expect("the section names one");
    let section = server.source_section();
    let section: String = section.lines().filter(|l| !l.starts_with("ca_file")).map(|l| format!("{l}\n")).collect();
    let check = || {
        let config: SourceConfig = toml::from_str(&std::env::var("SECTION").unwrap()).unwrap();
        let expected = match std::env::var("TRUSTED").unwrap().as_str() {
            "yes" => Outcome::Good,
            _ => Outcome::Unreachable("fetch-tls"),
        };
        assert_eq!(outcome(&fetch(&config, None).0), expected);
    };
    let name = "the_systems_authorities_are_those_that_ssl_cert_file_names";
    let ca_file = ca_file.to_str().unwrap();
    process::alone(name, "trusted", &[("SECTION", &section), ("TRUSTED", "yes"), ("SSL_CERT_FILE", ca_file)], check);
    process::alone(name, "not trusted", &[("SECTION", &section), ("TRUSTED", "no")], check);
}
