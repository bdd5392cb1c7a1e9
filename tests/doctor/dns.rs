//! Names, addresses and ports: a resolver on the internet, and what the doctor makes of its answers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use super::{expect_cause, ids};
use crate::lab::{EDGE4, EDGE6, Lab, SERVER4, SERVER6, STRANGER4};

const SITE: &str = "site.example";
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
        let socket = lab.on_the_internet(|| UdpSocket::bind((STRANGER4, 53)).expect("be a resolver"));
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
fn doctor(lab: &Lab, args: &[&str]) -> Value {
    lab.write_file("/etc/edgeallow/config.toml", NO_LIST);
    let report = lab.edgeallow([&["doctor", "--format", "json"], args].concat()).json();
    assert!(report["error"].is_null(), "{report:#}");
    report["doctor"].clone()
}

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("findings");
    all.iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id} in {report:#}"))
}

/// Only over IPv4, as a web server without `listen [::]:443` does.
fn listen_over_v4(lab: &Lab, ports: &[u16]) -> Vec<Socket> {
    let one = |port: &u16| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("make a socket");
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], *port)).into()).expect("bind");
        socket.listen(8).expect("listen");
        socket
    };
    lab.inside(|| ports.iter().map(one).collect())
}

#[test]
fn a_proxied_name_is_well_and_the_records_behind_it_are_told() {
    let lab = Lab::new();
    let _resolver = Resolver::of(&lab, zone(&[EDGE4, EDGE6]));
    // As it is copied out of a browser.
    let report = doctor(&lab, &["HTTPS://Site.Example./shop?session=secret"]);
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec![]), "{report:#}");
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
fn whose_the_addresses_are_is_told() {
    let lab = Lab::new();
    let name = |code, addresses: &[&'static str]| (code, addresses.to_vec());
    let _resolver = Resolver::of(
        &lab,
        BTreeMap::from([
            ("direct.example", name(ResponseCode::NoError, &[SERVER4, SERVER6])),
            ("mixed.example", name(ResponseCode::NoError, &[EDGE4, SERVER6])),
            ("elsewhere.example", name(ResponseCode::NoError, &["198.51.100.7"])),
            ("broken.example", name(ResponseCode::ServFail, &[])),
            ("refused.example", name(ResponseCode::Refused, &[])),
            ("xn--bcher-kva.example", name(ResponseCode::NoError, &["127.0.1.1"])),
            ("bare.example", name(ResponseCode::NoError, &[])),
        ]),
    );
    for (name, verdict, id) in [
        ("direct.example", "warning", "dns.direct"),
        ("mixed.example", "warning", "dns.mixed"),
        ("elsewhere.example", "warning", "dns.elsewhere"),
        ("broken.example", "warning", "dns.servfail"),
        ("refused.example", "skipped", "dns.refused"),
        ("bücher.example", "skipped", "dns.inside"),
        ("bare.example", "cause", "dns.no-address"),
        ("gone.example", "cause", "dns.no-such-name"),
    ] {
        let report = doctor(&lab, &[name]);
        assert_eq!(finding(&report, id)["verdict"], verdict, "{report:#}");
        let causes = if verdict == "cause" { vec![id] } else { vec![] };
        let warnings = if verdict == "warning" { vec![id] } else { vec![] };
        assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (causes, warnings), "{name}: {report:#}");
    }
    // The origin is another machine, and that is where the name points.
    let report = doctor(&lab, &["elsewhere.example", "--origin", "198.51.100.7"]);
    assert_eq!(finding(&report, "dns.direct")["verdict"], "warning", "{report:#}");
}

#[test]
fn an_ipv6_record_without_a_listener_is_the_cause() {
    let lab = Lab::without_listeners();
    let _listening = listen_over_v4(&lab, &[80, 443]);
    let resolver = Resolver::of(&lab, zone(&[SERVER4, SERVER6]));
    let report = doctor(&lab, &[SITE]);
    let cause = expect_cause(&report, "dns.aaaa-without-listener", 521);
    assert!(cause["text"].as_str().expect("a text").contains(SERVER6), "{cause:#}");
    drop(resolver);
    // Behind the proxy nobody can see the record: a note.
    let _resolver = Resolver::of(&lab, zone(&[EDGE4]));
    let report = doctor(&lab, &[SITE]);
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec![]), "{report:#}");
    assert_eq!(finding(&report, "dns.aaaa-origin")["verdict"], "note");
}

#[test]
fn a_port_that_cloudflare_does_not_proxy_is_the_cause() {
    let lab = Lab::new();
    lab.listen(9000);
    let _resolver = Resolver::of(&lab, zone(&[EDGE4]));
    for asked in [&[SITE, "--port", "9000"][..], &["https://site.example:9000/"], &["--port", "443", "--port", "9000"]]
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
fn a_silent_resolver_costs_six_seconds_and_none_costs_nothing() {
    let lab = Lab::new();
    name_resolver(&lab, STRANGER4);
    let _mute = lab.on_the_internet(|| UdpSocket::bind((STRANGER4, 53)).expect("be a resolver"));
    let begun = Instant::now();
    let report = doctor(&lab, &[SITE, "www.site.example"]);
    let took = begun.elapsed();
    assert!((Duration::from_secs(6)..Duration::from_secs(20)).contains(&took), "{took:?}");
    assert_eq!(finding(&report, "dns.silent")["verdict"], "skipped");
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec![]), "{report:#}");

    lab.write_file("/etc/resolv.conf", "search example\n");
    let report = doctor(&lab, &[SITE]);
    assert_eq!(finding(&report, "dns.no-resolver")["verdict"], "skipped");
}

#[test]
fn offline_nobody_is_asked() {
    let lab = Lab::new();
    name_resolver(&lab, STRANGER4);
    let socket = lab.on_the_internet(|| UdpSocket::bind((STRANGER4, 53)).expect("be a resolver"));
    let report = super::doctor(&lab, &[SITE]);
    assert_eq!(finding(&report, "dns.offline")["verdict"], "skipped");
    super::expect_healthy(&report);
    socket.set_nonblocking(true).expect("don't wait");
    assert!(socket.recv(&mut [0; 512]).is_err(), "the resolver was asked");
    assert_eq!(finding(&super::doctor(&lab, &[]), "dns.no-host")["verdict"], "skipped");
}

#[test]
fn an_address_is_no_name() {
    let lab = Lab::new();
    let refused = lab.edgeallow(["doctor", "--offline", SERVER4]).expect(2);
    assert!(refused.stderr.contains("--origin 192.0.2.1"), "{refused:?}");
}
