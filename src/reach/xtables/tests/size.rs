//! Large inputs, read whole.

use super::*;

#[test]
fn ten_thousand_rules_are_read() {
    let rules: Vec<String> = (0..10_000_u32)
        .map(|n| {
            let (a, b) = (n >> 8, n & 255);
            format!(
                "-s 10.{a}.{b}.0/24 -i eth0 -p tcp -m tcp --dport {b} -m conntrack --ctstate NEW -m comment --comment \"rule {n}\" -j DROP"
            )
        })
        .collect();
    let lines: Vec<&str> = rules.iter().map(String::as_str).collect();
    let saved = rules_of("filter", &lines, Family::V4);
    assert_eq!(saved.tables[0].chains["c"].rules.len(), 10_000);
}

#[test]
fn a_hundred_thousand_elements_are_read() {
    for (kind, tail) in [("hash:ip", ""), ("hash:net", "/31"), ("hash:ip,port", ",tcp:80")] {
        let mut save = format!("create x {kind} family inet hashsize 1024 maxelem 200000 timeout 60 comment\n");
        for n in 0..100_000_u32 {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + 4 * n);
            save += &format!("add x {ip}{tail} timeout 59 comment \"banned\"\n");
        }
        let read = ipsets(save.as_bytes()).unwrap();
        let ranges = match &read.sets["x"] {
            Set::Plain(Elements::Numbers(numbers, ())) => numbers.ranges().len(),
            Set::Plain(Elements::List(list)) => match (list.len(), &list[0].key[0]) {
                (1, Value::Numbers(numbers)) => numbers.ranges().len(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(ranges, 100_000);
    }
}
