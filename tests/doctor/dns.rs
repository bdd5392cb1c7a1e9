//! Names, addresses and ports: a resolver on the internet, and what the doctor makes of its answers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, TcpListener, UdpSocket},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use serde_json::Value;

use super::{
    expect_cause, expect_healthy, ids,
    site::{self, NAME as SITE},
};
use crate::lab::{EDGE4, EDGE6, Lab, SERVER4, SERVER6, STRANGER4};

/// No list is fetched in these tests: nothing listens there, and the built-in list is taken.
const NO_LIST: &str = "[source]\napi_url = 'http://127.0.0.1:1/'\nv4_url = 'http://127.0.0.1:1/'\n\
                       v6_url = 'http://127.0.0.1:1/'\nretry_wait = '1ms'\n";

/// A resolver on the internet that knows some names; it ends when it is dropped.
struct Resolver {
    socket: UdpSocket,
    thread: Option<JoinHandle<()>>,
}

/// What the resolver says: a name's code and its addresses.
type Zone = BTreeMap<&'static str, (ResponseCode, Vec<&'static str>)>;

fn zone(addresses: &[&'static str]) -> Zone {
    BTreeMap::from([(SITE, (ResponseCode::NoError, addresses.to_vec()))])
}

impl Resolver {
    /// Starts it, and makes it the host's own.
    fn of(lab: &Lab, zone: Zone) -> Self {
        name_resolver(lab, STRANGER4);
        let socket = lab.on_the_internet(|| {
            // A program that another test is just starting may hold the socket of the one before for a moment.
            let begun = std::time::Instant::now();
            loop {
                match UdpSocket::bind((STRANGER4, 53)) {
                    Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && begun.elapsed().as_secs() < 10 => {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                    }
                    bound => break bound.expect("be a resolver"),
                }
            }
        });
        let asked = socket.try_clone().expect("clone a socket");
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = asked.recv_from(&mut buffer) {
                // An empty datagram wakes it up to end.
                if len == 0 {
                    return;
                }
                let answer = answer(&zone, &Message::from_vec(&buffer[..len]).expect("a question"));
                asked.send_to(&answer.to_vec().expect("an answer"), from).expect("answer");
            }
        });
        Self { socket, thread: Some(thread) }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // To itself, within the namespace that the socket belongs to.
        if let Ok(own) = self.socket.local_addr() {
            let _ = self.socket.send_to(&[], own);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(zone: &Zone, question: &Message) -> Message {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    answer.queries.clone_from(&question.queries);
    let asked = &question.queries[0];
    let name = asked.name().to_ascii();
    let Some((code, addresses)) = zone.get(name.trim_end_matches('.')) else {
        answer.metadata.response_code = ResponseCode::NXDomain;
        return answer;
    };
    answer.metadata.response_code = *code;
    let addresses = addresses.iter().map(|text| text.parse::<IpAddr>().expect("an address"));
    for ip in addresses.filter(|ip| ip.is_ipv4() == (asked.query_type() == RecordType::A)) {
        let data = match ip {
            IpAddr::V4(ip) => RData::A(rdata::A(ip)),
            IpAddr::V6(ip) => RData::AAAA(rdata::AAAA(ip)),
        };
        answer.answers.push(Record::from_rdata(Name::from_ascii(&name).expect("a name"), 300, data));
    }
    answer
}

fn name_resolver(lab: &Lab, address: &str) {
    lab.files(|| match std::fs::remove_file("/etc/resolv.conf") {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => std::fs::write("/etc/resolv.conf", format!("# the lab's\nnameserver {address}\n")),
    });
}

/// `edgeallow doctor` with the network; its report.
pub fn doctor(lab: &Lab, args: &[&str]) -> Value {
    lab.write_file("/etc/edgeallow/config.toml", NO_LIST);
    let report = lab.edgeallow([&["doctor", "--format", "json"], args].concat()).json();
    assert!(report["error"].is_null(), "{report:#}");
    report["doctor"].clone()
}

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("findings");
    all.iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id} in {report:#}"))
}

/// A host with a site that is well.
fn served() -> Lab {
    let lab = Lab::without_listeners();
    site::site(&lab);
    lab
}

#[test]
fn a_proxied_name_is_well_and_the_records_behind_it_are_told() {
    let lab = served();
    let _resolver = Resolver::of(&lab, zone(&[EDGE4, EDGE6]));
    // As it is copied out of a browser.
    let report = doctor(&lab, &["HTTPS://Shop.Example./cart?session=secret"]);
    expect_healthy(&report);
    assert_eq!(report["hosts"], serde_json::json!([SITE]));
    assert!(!report.to_string().contains("secret"), "{report:#}");
    let proxied = finding(&report, "dns.proxied");
    assert!(proxied["text"].as_str().expect("a text").contains("5 minutes"), "{proxied:#}");
    assert_eq!(proxied["evidence"][0]["source"], format!("dig @{STRANGER4} {SITE} A"));
    assert_eq!(proxied["evidence"][1]["shows"], format!("{EDGE6} (TTL 300)"));
    let hidden = finding(&report, "dns.origin-hidden");
    let records = format!("(A {SERVER4}, AAAA {SERVER6})");
    assert!(hidden["text"].as_str().expect("a text").contains(&records), "{hidden:#}");
}

#[test]
fn healthy_sites_behind_the_proxy_give_nothing_to_worry_about() {
    let sites: [fn(&Lab); 2] = [site::site, site::apache];
    for start in sites {
        let lab = Lab::without_listeners();
        start(&lab);
        let _resolver = Resolver::of(&lab, zone(&[EDGE4, EDGE6]));
        let report = doctor(&lab, &[SITE]);
        expect_healthy(&report);
        let notes: Vec<&str> = ids(&report, "note").into_iter().filter(|id| id.starts_with("dns.")).collect();
        assert_eq!(notes, ["dns.origin-hidden"], "{report:#}");
        let skipped = ids(&report, "skipped");
        assert!(!skipped.iter().any(|id| id.starts_with("dns.") || id.starts_with("beyond.")), "{report:#}");
    }
}

#[test]
fn whose_the_addresses_are_is_told() {
    let lab = served();
    let no_name = Zone::new();
    let refusing = |code| BTreeMap::from([(SITE, (code, vec![]))]);
    for (zone, verdict, id) in [
        (zone(&[SERVER4, SERVER6]), "warning", "dns.direct"),
        (zone(&[EDGE4, SERVER6]), "warning", "dns.mixed"),
        (zone(&["198.51.100.7"]), "warning", "dns.elsewhere"),
        (refusing(ResponseCode::ServFail), "warning", "dns.servfail"),
        (refusing(ResponseCode::Refused), "skipped", "dns.refused"),
        (zone(&["127.0.1.1"]), "skipped", "dns.inside"),
        (zone(&[]), "cause", "dns.no-address"),
        (no_name, "cause", "dns.no-such-name"),
    ] {
        let _resolver = Resolver::of(&lab, zone);
        let report = doctor(&lab, &[SITE]);
        assert_eq!(finding(&report, id)["verdict"], verdict, "{report:#}");
        let causes = if verdict == "cause" { vec![id] } else { vec![] };
        let warnings = if verdict == "warning" { vec![id] } else { vec![] };
        assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (causes, warnings), "{id}: {report:#}");
    }
    // The origin has another address than this machine knows, and that is where the name points.
    let _resolver = Resolver::of(&lab, zone(&["198.51.100.7"]));
    let report = doctor(&lab, &[SITE, "--origin", "198.51.100.7"]);
    assert_eq!(finding(&report, "dns.direct")["verdict"], "warning", "{report:#}");
}

#[test]
fn an_ipv6_record_without_a_listener_is_the_cause() {
    let lab = Lab::without_listeners();
    let over_v4 = site::nginx_site("").lines().filter(|l| !l.contains("[::]")).collect::<Vec<_>>().join("\n");
    site::nginx(&lab, &over_v4);
    let resolver = Resolver::of(&lab, zone(&[SERVER4, SERVER6]));
    let report = doctor(&lab, &[SITE]);
    let cause = expect_cause(&report, "dns.aaaa-without-listener", 521);
    assert!(cause["text"].as_str().expect("a text").contains(SERVER6), "{cause:#}");
    drop(resolver);
    // Behind the proxy nobody can see the record: a note, and one only.
    let _resolver = Resolver::of(&lab, zone(&[EDGE4]));
    let report = doctor(&lab, &[SITE]);
    expect_healthy(&report);
    let about_ipv6 = report["findings"].as_array().expect("findings").iter();
    let about_ipv6: Vec<_> =
        about_ipv6.filter(|f| f["text"].as_str().expect("a text").contains("nothing listens")).collect();
    assert!(about_ipv6.len() == 1 && about_ipv6[0]["id"] == "online.one-family", "{about_ipv6:#?}");
}

#[test]
fn a_port_that_cloudflare_does_not_proxy_is_the_cause() {
    let lab = Lab::without_listeners();
    site::nginx(&lab, &site::nginx_site("  listen 9000 ssl;\n  listen [::]:9000 ssl;"));
    let _resolver = Resolver::of(&lab, zone(&[EDGE4]));
    for asked in [&[SITE, "--port", "9000"][..], &["https://shop.example:9000/"], &["--port", "443", "--port", "9000"]]
    {
        let report = doctor(&lab, asked);
        assert_eq!(ids(&report, "cause"), ["dns.port-not-proxied"], "{report:#}");
        let cause = finding(&report, "dns.port-not-proxied");
        assert_eq!(cause["cloudflare_errors"], serde_json::json!([]), "{cause:#}");
        let fix = cause["fix"]["text"].as_str().expect("a fix");
        assert!(fix.contains("port 8443 for HTTPS or 8880 for HTTP"), "{fix}");
    }
    // What else listens is no concern.
    assert_eq!(ids(&doctor(&lab, &[SITE]), "cause"), Vec::<&str>::new());
}

#[test]
fn a_silent_resolver_is_asked_twice_and_costs_six_seconds_in_all() {
    let lab = served();
    name_resolver(&lab, STRANGER4);
    let mute = lab.on_the_internet(|| UdpSocket::bind((STRANGER4, 53)).expect("be a resolver"));
    mute.set_nonblocking(true).expect("don't wait");
    let begun = Instant::now();
    let report = doctor(&lab, &[SITE, "www.shop.example"]);
    let took = begun.elapsed();
    // The upper bound is for a busy machine.
    assert!((Duration::from_secs(6)..Duration::from_secs(60)).contains(&took), "{took:?}");
    let questions = std::iter::from_fn(|| mute.recv(&mut [0; 512]).ok()).count();
    assert_eq!(questions, 8, "two names, two families, twice each");
    assert_eq!(finding(&report, "dns.silent")["verdict"], "skipped");
    expect_healthy(&report);

    // Nor does one who asks what is wrong wait for the list of ranges as long as a sync would.
    let _hangs = lab.inside(|| TcpListener::bind("127.0.0.1:3000").expect("listen"));
    let hanging = NO_LIST.replace("127.0.0.1:1/", "127.0.0.1:3000/");
    lab.write_file("/etc/edgeallow/config.toml", hanging + "timeout = '1h'\nconnect_timeout = '1h'\n");
    let begun = Instant::now();
    expect_healthy(&lab.edgeallow(["doctor", "--format", "json"]).json()["doctor"]);
    let took = begun.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(90)).contains(&took), "{took:?}");

    drop(mute);
    lab.write_file("/etc/resolv.conf", "search example\n");
    let report = doctor(&lab, &[SITE]);
    assert_eq!(finding(&report, "dns.no-resolver")["verdict"], "skipped");
}

#[test]
fn offline_nobody_is_asked() {
    let lab = served();
    name_resolver(&lab, STRANGER4);
    let socket = lab.on_the_internet(|| UdpSocket::bind((STRANGER4, 53)).expect("be a resolver"));
    let report = super::doctor(&lab, &[SITE]);
    assert_eq!(finding(&report, "dns.offline")["verdict"], "skipped");
    expect_healthy(&report);
    socket.set_nonblocking(true).expect("don't wait");
    assert!(socket.recv(&mut [0; 512]).is_err(), "the resolver was asked");
    assert_eq!(finding(&super::doctor(&lab, &[]), "dns.no-host")["verdict"], "skipped");
}

#[test]
fn an_address_is_no_name() {
    let lab = Lab::new();
    let refused = lab.edgeallow(["doctor", "--offline", SERVER4]).expect(2);
    assert!(refused.stderr.contains("--origin 192.0.2.1"), "{refused:?}");
    for odd in ["shop.example;id", "*.shop.example", "$(id).example"] {
        let refused = lab.edgeallow(["doctor", "--offline", odd]).expect(2);
        assert!(refused.stderr.contains("letters, digits and hyphens between dots"), "{refused:?}");
    }
}
