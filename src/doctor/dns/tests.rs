use super::*;
use crate::{
    allowlist::snapshot,
    probe::dns::{Address, Alias, Says, Told},
};

const HERE4: &str = "192.0.2.1";
const HERE6: &str = "2001:db8:2::1";
const EDGE4: &str = "104.16.1.1";
const EDGE6: &str = "2606:4700::1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn here(listening: &[&str]) -> Here {
    let list = snapshot::built_in().unwrap();
    Here {
        edge: crate::allowlist::Prefixes::new(list.v4, list.v6),
        own: BTreeSet::from([ip(HERE4), ip(HERE6), ip("127.0.0.1"), ip("10.0.0.5")]),
        origins: vec![ip(HERE4), ip(HERE6)],
        ports: BTreeSet::from([80, 443]),
        listens: Some(listening.iter().map(|at| at.parse().unwrap()).collect()),
    }
}

const EVERYWHERE: [&str; 4] = ["192.0.2.1:80", "192.0.2.1:443", "[2001:db8:2::1]:80", "[2001:db8:2::1]:443"];

fn told(says: Says) -> Told {
    Told { by: Some("192.0.2.53:53".parse().unwrap()), aliases: vec![], says }
}

fn at(ips: &[&str], ttl: u32) -> Told {
    let all: Vec<Address> = ips.iter().map(|text| Address { ip: ip(text), ttl }).collect();
    told(if all.is_empty() { Says::NoData } else { Says::Addresses(all) })
}

fn judged(a: Told, aaaa: Told, here: &Here) -> (Vec<Finding>, Option<bool>) {
    judge::judge(&[("site.example".to_owned(), Names { a, aaaa })], here)
}

/// The ids, the verdicts, and whether it is proxied.
fn ids(a: Told, aaaa: Told, here: &Here) -> (Vec<(&'static str, Finds)>, Option<bool>) {
    let (found, proxied) = judged(a, aaaa, here);
    assert!(found.iter().all(|f| !f.evidence.is_empty()), "{found:#?}");
    let worse = |f: &&Finding| f.verdict >= Finds::Warning;
    assert!(found.iter().filter(worse).all(|f| f.fix.is_some()), "{found:#?}");
    (found.iter().map(|f| (f.id, f.verdict)).collect(), proxied)
}

#[test]
fn whose_the_addresses_are_decides() {
    let well = here(&EVERYWHERE);
    let hidden = ("dns.origin-hidden", Finds::Note);
    for (a, aaaa, first, proxied) in [
        (&[EDGE4][..], &[EDGE6][..], ("dns.proxied", Finds::Ok), Some(true)),
        (&[EDGE4], &[], ("dns.proxied", Finds::Ok), Some(true)),
        (&[EDGE4], &[HERE6], ("dns.mixed", Finds::Warning), Some(true)),
        (&[EDGE4, "198.51.100.7"], &[], ("dns.mixed", Finds::Warning), Some(true)),
        (&[HERE4], &[HERE6], ("dns.direct", Finds::Warning), Some(false)),
        (&["198.51.100.7"], &[], ("dns.elsewhere", Finds::Warning), Some(false)),
        (&["198.51.100.7", HERE4], &[], ("dns.elsewhere", Finds::Warning), Some(false)),
        (&["127.0.0.1"], &[], ("dns.inside", Finds::Skipped), Some(false)),
        (&["10.0.0.5"], &[], ("dns.inside", Finds::Skipped), Some(false)),
        (&["100.64.0.1"], &["fd00::1"], ("dns.inside", Finds::Skipped), Some(false)),
    ] {
        let expected = if proxied == Some(true) { vec![first, hidden] } else { vec![first] };
        assert_eq!(ids(at(a, 300), at(aaaa, 300), &well), (expected, proxied), "{a:?} {aaaa:?}");
    }
}

#[test]
fn no_address_is_told_by_what_was_said_instead() {
    let well = here(&EVERYWHERE);
    for (a, aaaa, first) in [
        (Says::NoName, Says::NoName, ("dns.no-such-name", Finds::Cause)),
        (Says::NoData, Says::NoData, ("dns.no-address", Finds::Cause)),
        (Says::ServFail, Says::ServFail, ("dns.servfail", Finds::Warning)),
        (Says::NoData, Says::ServFail, ("dns.servfail", Finds::Warning)),
        (Says::Refused("Query Refused".into()), Says::Silent, ("dns.refused", Finds::Skipped)),
        (Says::Silent, Says::Silent, ("dns.silent", Finds::Skipped)),
        (Says::Silent, Says::NoData, ("dns.silent", Finds::Skipped)),
    ] {
        assert_eq!(ids(told(a), told(aaaa), &well), (vec![first], None));
    }
    let alias = |to: &str| vec![Alias { to: to.into(), ttl: 9 }];
    let gone = Told { aliases: alias("gone.example"), ..told(Says::NoName) };
    let (found, _) = judged(gone, told(Says::NoName), &well);
    assert!(found[0].text.contains("stands for gone.example"), "{found:?}");
}

#[test]
fn an_ipv6_record_needs_a_listener() {
    let over_v4 = ["192.0.2.1:80", "192.0.2.1:443", "[2001:db8:2::1]:80"];
    let direct = ("dns.direct", Finds::Warning);
    let cause = ("dns.aaaa-without-listener", Finds::Cause);
    assert_eq!(ids(at(&[HERE4], 60), at(&[HERE6], 60), &here(&over_v4)).0, [direct, cause]);
    let (found, _) = judged(at(&[HERE4], 60), at(&[HERE6], 60), &here(&over_v4));
    assert!(found[1].text.contains("port 443, only over IPv4"), "{found:?}");
    assert_eq!(found[1].cloudflare_errors, [521]);
    // Each port that lacks it is told.
    let (found, _) = judged(at(&[HERE4], 60), at(&[HERE6], 60), &here(&over_v4[..2]));
    let fix = &found[1].fix.as_ref().unwrap().text;
    let lines = "(nginx: `listen [::]:80;` and `listen [::]:443 ssl;`, Apache: `Listen 80` and `Listen 443` without";
    assert!(fix.contains(lines), "{fix}");
    assert_eq!(found[1].evidence.last().unwrap().source, "ss -6tlnH 'sport = :80 or sport = :443'");
    // The record isn't this machine's: nobody's concern here.
    assert_eq!(ids(at(&[HERE4], 60), at(&[], 60), &here(&over_v4)).0, [direct]);
    // Nothing listens at all, or nobody knows: for others to say.
    assert_eq!(ids(at(&[HERE4], 60), at(&[HERE6], 60), &here(&[])).0, [direct]);
    let unknown = Here { listens: None, ..here(&[]) };
    assert_eq!(ids(at(&[HERE4], 60), at(&[HERE6], 60), &unknown).0, [direct]);
    // Behind the proxy the record can't be seen.
    let hidden = ("dns.origin-hidden", Finds::Note);
    let proxied = ("dns.proxied", Finds::Ok);
    assert_eq!(ids(at(&[EDGE4], 60), at(&[EDGE6], 60), &here(&over_v4)).0, [proxied, hidden]);
}

#[test]
fn the_records_that_must_be_in_the_zone_are_told() {
    let (found, _) = judged(at(&[EDGE4], 300), at(&[], 0), &here(&EVERYWHERE));
    assert!(found[0].text.ends_with("(resolvers keep that for 5 minutes)"), "{}", found[0].text);
    assert_eq!(found[0].evidence[0].source, "dig @192.0.2.53 site.example A");
    assert_eq!(found[0].evidence[0].shows, "104.16.1.1 (TTL 300)");
    assert_eq!(found[0].evidence[1].shows, "no record");
    assert!(found[1].text.contains("this machine's (A 192.0.2.1, AAAA 2001:db8:2::1)"), "{}", found[1].text);
    let behind_nat = Here { origins: vec![ip("10.0.0.5")], ..here(&EVERYWHERE) };
    let (found, _) = judged(at(&[EDGE4], 1), at(&[], 0), &behind_nat);
    assert!(found[0].text.contains("for 1 second)"), "{}", found[0].text);
    assert!(found[1].text.contains("this machine knows only 10.0.0.5"), "{}", found[1].text);
}

#[test]
fn one_name_that_is_proxied_is_enough_to_care_for_ports() {
    let names = |a: Told| Names { a, aaaa: at(&[], 0) };
    let well = here(&EVERYWHERE);
    let silent = || ("silent.example".to_owned(), names(told(Says::Silent)));
    let proxied = || ("site.example".to_owned(), names(at(&[EDGE4], 60)));
    let direct = || ("old.example".to_owned(), names(at(&[HERE4], 60)));
    assert_eq!(judge::judge(&[silent(), proxied()], &well).1, Some(true));
    assert_eq!(judge::judge(&[silent(), direct()], &well).1, None);
    assert_eq!(judge::judge(&[direct(), direct()], &well).1, Some(false));
}
