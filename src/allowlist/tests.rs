//! The rules of trust as a table: forty lists and more, each with the verdict it must get.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{
    Family, Policy, Prefixes, RawList, parse,
    removal::{Patience, PendingRemoval, settle},
    snapshot, vet,
};
use crate::error::ErrorKind::{self, *};

const V4: &str = include_str!("data/ips-v4");
const V6: &str = include_str!("data/ips-v6");

fn published() -> String {
    format!("{V4}\n{V6}")
}

fn judge_with(bytes: &[u8], last: Option<&Prefixes>, policy: &Policy) -> Result<Prefixes, ErrorKind> {
    parse::text("test", bytes)
        .and_then(|raw| vet(raw, last, policy))
        .map(super::Vetted::into_prefixes)
        .map_err(|e| e.kind)
}

fn judge(bytes: impl AsRef<[u8]>) -> Result<usize, ErrorKind> {
    judge_with(bytes.as_ref(), None, &Policy::default()).map(|p| p.len())
}

fn with(extra: &str) -> String {
    format!("{}\n{extra}\n", published())
}

/// As many distinct /24 of global space as asked for.
fn many(count: u32) -> String {
    (0..count).fold(format!("{V6}\n"), |mut text, i| {
        let a = (0x1700_0000_u32 + i * 256).to_be_bytes();
        writeln!(text, "{}.{}.{}.0/24", a[0], a[1], a[2]).unwrap();
        text
    })
}

#[test]
fn lists_that_are_accepted_alike() {
    let crlf = published().replace('\n', "\r\n");
    let bom = format!("\u{feff}{}", published());
    let reversed: Vec<String> = published().lines().rev().map(str::to_owned).collect();
    let cases: Vec<(&str, String, usize)> = vec![
        ("as published, both joined", published(), 22),
        ("CRLF", crlf, 22),
        ("byte-order mark", bom, 22),
        ("final newline", format!("{}\n", published()), 22),
        ("blank lines", published().replace('\n', "\n\n \n"), 22),
        ("comments", format!("# Cloudflare\n{}\n# end", published().replace('\n', " # one\n")), 22),
        ("blanks around", published().replace('\n', " \t\n  "), 22),
        ("another order", reversed.join("\n"), 22),
        ("duplicates", with("173.245.48.0/20\n2400:cb00::/32"), 22),
        ("a contained prefix", with("104.17.0.0/16"), 22),
        ("one new v4", with("8.8.8.0/24"), 23),
        ("one new v6", with("2a00:1450::/32"), 23),
        ("upper case", published().to_uppercase(), 22),
        ("the widest that is believed", with("64.0.0.0/10\n2a00::/24"), 24),
        ("a single host", with("8.8.8.8/32\n2a00:1450::1/128"), 24),
        ("512 prefixes", many(512 - 7), 512),
    ];
    for (name, text, count) in cases {
        assert_eq!(judge(&text), Ok(count), "{name}");
    }
}

#[test]
fn lists_that_are_refused_each_by_its_own_rule() {
    let cases: Vec<(&str, Vec<u8>, ErrorKind)> = vec![
        ("empty", b"".to_vec(), ListNotAList),
        ("blank", b" \n\r\n".to_vec(), ListNotAList),
        ("comments only", b"# nothing\n".to_vec(), ListNotAList),
        ("an HTML page", b"<!DOCTYPE html><html>1.2.3.0/24</html>".to_vec(), ListNotAList),
        ("an HTML page behind blank lines", b"\n\n <html></html>".to_vec(), ListNotAList),
        ("JSON of another shape", b"[\"1.2.3.0/24\"]".to_vec(), ListNotAList),
        ("binary", b"1.2.3.0/24\0".to_vec(), ListNotAList),
        ("UTF-16", b"\xff\xfe1\0.\0".to_vec(), ListNotAList),
        ("not UTF-8", b"1.2.3.0/24 # caf\xe9\n".to_vec(), ListNotAList),
        ("gzip", b"\x1f\x8b\x08\x00\x00".to_vec(), ListNotAList),
        ("two lists glued together", V4.replace("131.0.72.0/22", "131.0.72.0/222400:cb00::/32").into(), ListSyntax),
        ("words", with("hello").into(), ListSyntax),
        ("a bare address", with("8.8.8.8").into(), ListSyntax),
        ("a bare IPv6 address", with("2400:cb00::").into(), ListSyntax),
        ("a length too long", with("8.8.8.0/33").into(), ListSyntax),
        ("an IPv6 length too long", with("2400:cb00::/129").into(), ListSyntax),
        ("a negative length", with("8.8.8.0/-1").into(), ListSyntax),
        ("leading zeros", with("008.8.8.0/24").into(), ListSyntax),
        ("three octets", with("8.8.8/24").into(), ListSyntax),
        ("a range", with("8.8.8.0-8.8.8.255").into(), ListSyntax),
        ("two on a line", with("8.8.8.0/24 9.9.9.0/24").into(), ListSyntax),
        ("a netmask", with("8.8.8.0/255.255.255.0").into(), ListSyntax),
        ("a scoped address", with("fe80::%eth0/64").into(), ListSyntax),
        ("host bits", with("8.8.8.8/24").into(), ListHostBits),
        ("IPv6 host bits", with("2400:cb00::1/32").into(), ListHostBits),
        ("everything", with("0.0.0.0/0").into(), ListTooWide),
        ("everything IPv6", with("::/0").into(), ListTooWide),
        ("wider than /10", with("64.0.0.0/9").into(), ListTooWide),
        ("wider than /24", with("2a00::/23").into(), ListTooWide),
        ("private 192.168", with("192.168.1.0/24").into(), ListSpecialPurpose),
        ("around a special block", with("192.0.0.0/16").into(), ListSpecialPurpose),
        ("private 172.16", with("172.31.0.0/16").into(), ListSpecialPurpose),
        ("private 10", with("10.64.0.0/10").into(), ListSpecialPurpose),
        ("CGNAT", with("100.64.0.0/10").into(), ListSpecialPurpose),
        ("loopback", with("127.0.0.1/32").into(), ListSpecialPurpose),
        ("this network", with("0.0.0.0/32").into(), ListSpecialPurpose),
        ("link-local", with("169.254.0.0/16").into(), ListSpecialPurpose),
        ("documentation", with("203.0.113.0/24").into(), ListSpecialPurpose),
        ("benchmarks", with("198.18.0.0/16").into(), ListSpecialPurpose),
        ("multicast", with("224.0.0.0/24").into(), ListSpecialPurpose),
        ("reserved", with("255.255.255.255/32").into(), ListSpecialPurpose),
        ("IPv6 documentation", with("2001:db8::/32").into(), ListSpecialPurpose),
        ("IPv6 loopback", with("::1/128").into(), ListSpecialPurpose),
        ("IPv4-mapped", with("::ffff:8.8.8.0/120").into(), ListSpecialPurpose),
        ("unique local", with("fd00::/24").into(), ListSpecialPurpose),
        ("IPv6 link-local", with("fe80::/64").into(), ListSpecialPurpose),
        ("IPv6 multicast", with("ff02::/32").into(), ListSpecialPurpose),
        ("not global unicast", with("9000::/32").into(), ListSpecialPurpose),
        ("6to4", with("2002::/32").into(), ListSpecialPurpose),
        ("no IPv6", V4.into(), ListFamilyMissing),
        ("no IPv4", V6.into(), ListFamilyMissing),
        ("four IPv4", format!("8.8.8.0/24\n8.8.9.0/24\n9.9.9.0/24\n1.1.1.0/24\n{V6}").into(), ListTooFew),
        ("two IPv6", format!("{V4}\n2400:cb00::/32\n2606:4700::/32").into(), ListTooFew),
        (
            "five that are one",
            format!("8.8.0.0/16\n8.8.1.0/24\n8.8.2.0/24\n8.8.3.0/24\n8.8.4.0/24\n{V6}").into(),
            ListTooFew,
        ),
        ("513 prefixes", many(513 - 7).into(), ListTooMany),
    ];
    for (name, bytes, kind) in cases {
        assert_eq!(judge(&bytes), Err(kind), "{name}");
    }
}

fn built_in() -> Prefixes {
    vet(snapshot::built_in().unwrap(), None, &Policy::default()).unwrap().into_prefixes()
}

#[test]
fn the_built_in_list_passes_its_own_rules() {
    assert_eq!((built_in().count(Family::V4), built_in().count(Family::V6)), (15, 7));
    assert!(snapshot::DATE.parse::<jiff::civil::Date>().is_ok());
}

#[test]
fn how_much_may_be_gone_and_come() {
    let last = built_in();
    let policy = Policy::default();
    let without =
        |gone: &[&str]| -> String { published().lines().filter(|l| !gone.contains(l)).collect::<Vec<_>>().join("\n") };
    // 2a06:98c0::/29 is eight of fourteen /32: 57 %, which is believed; one /32 more is not.
    let cases: Vec<(&str, String, bool, Option<ErrorKind>)> = vec![
        ("the same", published(), false, None),
        ("one /29 gone", without(&["2a06:98c0::/29"]), false, None),
        ("a /29 and a /32 gone", without(&["2a06:98c0::/29", "2400:cb00::/32"]), false, Some(ListShrunk)),
        ("a /29 and a /32 gone, allowed", without(&["2a06:98c0::/29", "2400:cb00::/32"]), true, None),
        ("two of three big v4 gone", without(&["104.16.0.0/13", "172.64.0.0/13"]), false, Some(ListShrunk)),
        ("one big v4 gone", without(&["172.64.0.0/13"]), false, None),
        ("/12 instead of /13 and /14", without(&["104.16.0.0/13", "104.24.0.0/14"]) + "\n104.16.0.0/12", false, None),
        (
            "wholly other v4",
            format!("8.8.8.0/24\n8.8.9.0/24\n9.9.9.0/24\n1.1.1.0/24\n1.0.0.0/24\n{V6}"),
            false,
            Some(ListShrunk),
        ),
        ("twice as much", with("64.0.0.0/11"), false, None),
        ("five times as much", with("64.0.0.0/10\n128.0.0.0/10"), false, Some(ListGrown)),
        ("five times as much IPv6", with("2a00::/26"), false, Some(ListGrown)),
        ("grown is not a matter of --allow-shrink", with("64.0.0.0/10\n128.0.0.0/10"), true, Some(ListGrown)),
    ];
    for (name, text, allow_shrink, refused) in cases {
        let policy = Policy { allow_shrink, ..policy.clone() };
        assert_eq!(judge_with(text.as_bytes(), Some(&last), &policy).err(), refused, "{name}");
    }
}

#[test]
fn a_refusal_names_the_place_and_the_prefix() {
    let e = parse::text("ips.txt", b"173.245.48.0/20\n\n8.8.8.8/24\n").unwrap_err();
    assert_eq!(e.message, "ips.txt, line 3: 8.8.8.8/24 has bits set behind its length");
    assert_eq!(e.hint.as_deref(), Some("the network would be 8.8.8.0/24; if that is meant, write it so"));
}

fn nets(list: &[&str]) -> Prefixes {
    list.iter().map(|n| n.parse::<ipnet::IpNet>().unwrap()).collect()
}

fn at(hours: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1_000_000 + hours)
}

#[test]
fn a_vanished_range_waits_for_a_day_and_two_reads() {
    let patience = |fresh_read| Patience { grace: SignedDuration::from_hours(24), remove_now: false, fresh_read };
    let held = nets(&["8.8.8.0/24", "9.9.9.0/24"]);
    let list = nets(&["8.8.8.0/24", "1.1.1.0/24"]);
    let first = settle(&list, &held, &[], at(0), patience(true));
    assert_eq!(first.hold, nets(&["1.1.1.0/24", "8.8.8.0/24", "9.9.9.0/24"]), "new at once, old stays");
    assert_eq!(first.pending.len(), 1);

    // Time alone isn't enough when no source was read again, and reads alone aren't enough.
    let offline = settle(&list, &first.hold, &first.pending, at(48), patience(false));
    assert_eq!(offline.pending[0].reads, 1);
    let soon = settle(&list, &first.hold, &first.pending, at(1), patience(true));
    assert_eq!((soon.pending[0].reads, soon.hold.len()), (2, 3));
    let later = settle(&list, &soon.hold, &soon.pending, at(24), patience(true));
    assert_eq!((later.pending.len(), later.hold), (0, list.clone()));

    // It came back: forgotten. It vanishes again: from the beginning.
    let back = settle(&held, &first.hold, &first.pending, at(2), patience(true));
    assert!(back.pending.iter().all(|p| p.prefix != "9.9.9.0/24".parse().unwrap()));
    let again = settle(&list, &held, &[], at(30), patience(true));
    assert_eq!(again.pending[0].missing_since, at(30));

    let now = settle(&list, &held, &[], at(0), Patience { remove_now: true, ..patience(true) });
    assert_eq!(now.hold, list);
}

#[test]
fn a_clock_set_back_neither_ends_the_wait_nor_makes_it_endless() {
    let patience = Patience { grace: SignedDuration::from_hours(24), remove_now: false, fresh_read: true };
    let (held, list) = (nets(&["8.8.8.0/24", "9.9.9.0/24"]), nets(&["8.8.8.0/24"]));
    let waiting = [PendingRemoval { prefix: "9.9.9.0/24".parse().unwrap(), missing_since: at(500), reads: 5 }];
    let set_back = settle(&list, &held, &waiting, at(0), patience);
    assert_eq!(set_back.pending[0].missing_since, at(0));
    assert!(settle(&list, &held, &set_back.pending, at(24), patience).pending.is_empty());
}

#[test]
fn a_wider_range_that_vanishes_covers_what_replaced_it() {
    let patience = Patience { grace: SignedDuration::from_hours(24), remove_now: false, fresh_read: true };
    let (held, list) = (nets(&["104.16.0.0/12"]), nets(&["104.16.0.0/13", "104.24.0.0/14"]));
    assert_eq!(settle(&list, &held, &[], at(0), patience).hold, held);
    // The other way round nothing has vanished: every address is still listed.
    assert_eq!(settle(&held, &list, &[], at(0), patience).pending, []);
}

prop_compose! {
    fn any_net()(bits in any::<u32>(), len in 0_u8..=32) -> ipnet::Ipv4Net {
        ipnet::Ipv4Net::new(bits.into(), len).unwrap().trunc()
    }
}
prop_compose! {
    fn any_net6()(bits in any::<u128>(), len in 0_u8..=128) -> ipnet::Ipv6Net {
        ipnet::Ipv6Net::new(bits.into(), len).unwrap().trunc()
    }
}

proptest! {
    #[test]
    fn parsing_what_was_written_gives_the_same(
        v4 in prop::collection::vec(any_net(), 1..40), v6 in prop::collection::vec(any_net6(), 0..40), crlf: bool,
    ) {
        let list = Prefixes::new(v4, v6);
        let end = if crlf { "\r\n" } else { "\n" };
        let text: String = list.iter().map(|n| format!("{n}{end}")).collect();
        let raw = parse::text("test", text.as_bytes()).unwrap();
        prop_assert_eq!(Prefixes::new(raw.v4, raw.v6), list);
    }

    #[test]
    fn canonical_form_covers_the_same_addresses_with_disjoint_prefixes(
        v4 in prop::collection::vec(any_net(), 1..60), probe in any::<u32>(),
    ) {
        let list = Prefixes::new(v4.clone(), Vec::new());
        let address = std::net::Ipv4Addr::from(probe);
        prop_assert_eq!(list.contains(address.into()), v4.iter().any(|n| n.contains(&address)));
        prop_assert!(list.v4().windows(2).all(|w| w[0].broadcast() < w[1].network()));
    }

    #[test]
    fn a_difference_and_its_rest_make_the_whole(
        a in prop::collection::vec(any_net(), 0..40), b in prop::collection::vec(any_net(), 0..40),
    ) {
        let (a, b) = (Prefixes::new(a, Vec::new()), Prefixes::new(b, Vec::new()));
        let (gone, new) = (a.minus(&b), b.minus(&a));
        let mut nets: Vec<_> = a.v4().iter().filter(|n| !gone.v4().contains(n)).chain(new.v4()).copied().collect();
        nets.sort();
        prop_assert_eq!(nets, b.v4().to_vec());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse::text("test", &bytes).and_then(|raw| vet(raw, None, &Policy::default()));
    }

    #[test]
    fn nothing_special_ever_passes(net in any_net()) {
        let mut raw = RawList::default();
        raw.v4.push(net);
        let policy = Policy { min_v4: 0, min_v6: 0, widest_v4: 0, ..Policy::default() };
        if vet(raw, None, &policy).is_ok() {
            for address in [net.network(), net.broadcast()] {
                prop_assert!(!(address.is_private() || address.is_loopback() || address.is_link_local()
                    || address.is_multicast() || address.is_documentation() || address.is_unspecified()
                    || address.is_broadcast()));
            }
        }
    }
}
