//! A resolver of one answer each, on loopback.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    thread,
    time::Instant,
};

use hickory_proto::rr::{
    Record,
    rdata::{A, AAAA, CNAME},
};

use super::*;

/// How long somebody is waited for who says nothing.
const SOON: Duration = Duration::from_millis(300);
/// How long somebody is who answers, on a machine however busy.
const LONG: Duration = Duration::from_secs(20);

fn answered(question: &Message, code: ResponseCode, records: &[(&str, u32, RData)]) -> Message {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.response_code = code;
    answer.queries.clone_from(&question.queries);
    let record = |(name, ttl, data): &(&str, u32, RData)| {
        Record::from_rdata(Name::from_ascii(name).unwrap(), *ttl, data.clone())
    };
    answer.answers = records.iter().map(record).collect();
    answer
}

/// Answers each question by what `with` makes of it.
fn resolver(with: impl Fn(&Message) -> Vec<Message> + Send + 'static) -> SocketAddr {
    resolver_at("127.0.0.1:0".parse().unwrap(), with)
}

fn resolver_at(address: SocketAddr, with: impl Fn(&Message) -> Vec<Message> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            for answer in with(&Message::from_vec(&buffer[..len]).unwrap()) {
                socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
            }
        }
    });
    address
}

fn asked(resolvers: &[SocketAddr], name: &str) -> Names {
    asked_for(resolvers, name, LONG)
}

fn asked_for(resolvers: &[SocketAddr], name: &str, limit: Duration) -> Names {
    crate::probe::wait(addresses(resolvers, name, limit)).unwrap().unwrap()
}

fn v4(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
}

#[test]
fn both_families_come_with_their_time_to_live_and_by_way_of_aliases() {
    let at = resolver(|q| {
        let alias = |to: &str| RData::CNAME(CNAME(Name::from_ascii(to).unwrap()));
        vec![if q.queries[0].query_type() == RecordType::A {
            let all = [
                ("WWW.site.example.", 60, alias("edge.example.")),
                ("other.example.", 5, v4(9)),
                ("edge.example.", 20, v4(7)),
                ("edge.example.", 20, v4(1)),
            ];
            answered(q, ResponseCode::NoError, &all)
        } else {
            let ip = "2001:db8::1".parse().unwrap();
            answered(q, ResponseCode::NoError, &[("www.site.example.", 300, RData::AAAA(AAAA(ip)))])
        }]
    });
    let names = asked(&[at], "www.site.example");
    let ip = |text: &str, ttl| Address { ip: text.parse::<IpAddr>().unwrap(), ttl };
    assert_eq!(names.a.addresses(), [ip("192.0.2.1", 20), ip("192.0.2.7", 20)]);
    assert_eq!(names.a.aliases, [Alias { to: "edge.example".into(), ttl: 60 }]);
    assert_eq!(names.aaaa.addresses(), [ip("2001:db8::1", 300)]);
    assert_eq!((names.aaaa.by, names.aaaa.aliases.len()), (Some(at), 0));
}

#[test]
fn what_is_no_address_is_told_apart() {
    for (code, says) in [
        (ResponseCode::NoError, Says::NoData),
        (ResponseCode::NXDomain, Says::NoName),
        (ResponseCode::ServFail, Says::ServFail),
        (ResponseCode::Refused, Says::Refused("Query Refused".into())),
    ] {
        let at = resolver(move |q| vec![answered(q, code, &[])]);
        let names = asked(&[at], "site.example");
        assert_eq!((&names.a.says, &names.aaaa.says), (&says, &says));
        assert_eq!(names.a.by, Some(at));
    }
}

#[test]
fn aliases_that_go_round_come_to_an_end() {
    let at = resolver(|q| {
        let alias = |to: &str| RData::CNAME(CNAME(Name::from_ascii(to).unwrap()));
        let round = [("a.example.", 1, alias("b.example.")), ("b.example.", 1, alias("a.example."))];
        vec![answered(q, ResponseCode::NoError, &round)]
    });
    let names = asked(&[at], "a.example");
    assert_eq!((names.a.aliases.len(), names.a.says), (MOST_ALIASES, Says::NoData));
}

#[test]
fn a_silent_resolver_is_left_in_time_and_the_next_one_asked() {
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mute = (mute.local_addr().unwrap(), mute);
    let begun = Instant::now();
    let names = asked_for(&[mute.0], "site.example", SOON);
    assert_eq!(names.a, Told { by: None, aliases: vec![], says: Says::Silent });
    let took = begun.elapsed();
    // The upper bound is for a busy machine.
    assert!(took >= SOON * TRIES && took < SOON * TRIES * 50, "{took:?}");

    let at = resolver(|q| vec![answered(q, ResponseCode::NoError, &[("site.example.", 9, v4(1))])]);
    // Who is connected to somebody else is as good as gone for all others, and nobody else gets the port.
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
    gone.connect(mute.0).unwrap();
    // Each has a third of it.
    let names = asked_for(&[gone.local_addr().unwrap(), mute.0, at], "site.example", 3 * Duration::from_secs(2));
    assert_eq!((names.a.addresses().len(), names.a.by), (1, Some(at)));
}

#[test]
fn answers_to_other_questions_are_not_heard() {
    let at = resolver(|q| {
        let mut forged = answered(q, ResponseCode::NoError, &[("site.example.", 9, v4(66))]);
        forged.metadata.id ^= 1;
        let mut other = answered(q, ResponseCode::NXDomain, &[]);
        other.queries[0].name = Name::from_ascii("other.example.").unwrap();
        let right = answered(q, ResponseCode::NoError, &[("site.example.", 9, v4(1))]);
        vec![forged, other, right]
    });
    let names = asked(&[at], "site.example");
    assert_eq!(names.a.addresses()[0].ip, IpAddr::from([192, 0, 2, 1]));
}

#[test]
fn what_is_cut_short_is_asked_for_over_tcp() {
    // At an address of its own, where nobody else has the port.
    let server = TcpListener::bind("127.0.53.1:0").unwrap();
    let at = resolver_at(server.local_addr().unwrap(), |q| {
        let mut short = answered(q, ResponseCode::NoError, &[]);
        short.metadata.truncation = true;
        vec![short]
    });
    thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for _ in 0..2 {
            let (mut stream, _) = server.accept().unwrap();
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut question).unwrap();
            let all: Vec<_> = (0..60).map(|n| ("site.example.", 9, v4(n))).collect();
            let answer = answered(&Message::from_vec(&question).unwrap(), ResponseCode::NoError, &all);
            let answer = answer.to_vec().unwrap();
            stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    let names = asked(&[at], "site.example");
    assert_eq!((names.a.addresses().len(), names.aaaa.says), (60, Says::NoData));
}

#[test]
fn resolvers_are_read_as_the_manual_says() {
    let text = "# nameserver 9.9.9.9\n; nameserver 9.9.9.8\nsearch example.com\nnameserver\t127.0.0.53 # stub\n \
                nameserver 8.8.8.8\nnameserver 2001:db8::53\nnameservers 1.1.1.1\nnameserver nonsense\n\
                nameserver 1.1.1.1\nnameserver 1.0.0.1\noptions edns0\n";
    let all: Vec<String> = resolvers(text).iter().map(SocketAddr::to_string).collect();
    assert_eq!(all, ["127.0.0.53:53", "[2001:db8::53]:53", "1.1.1.1:53"]);
    assert!(resolvers("").is_empty());
    for scoped in ["fe80::1%lo", "fe80::1%1"] {
        assert_eq!(resolvers(&format!("nameserver {scoped}"))[0].to_string(), "[fe80::1%1]:53");
    }
    assert!(resolvers("nameserver fe80::1%there-is-none").is_empty());
}

#[test]
fn a_name_that_cannot_be_is_an_error() {
    let long = format!("{}.example", "a".repeat(64));
    let e = crate::probe::wait(addresses(&[], &long, SOON)).unwrap().unwrap_err();
    assert_eq!(e.kind, ErrorKind::Usage);
}
