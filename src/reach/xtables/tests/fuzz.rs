//! Damaged text: never a panic, and never a rule that matches more because it is read worse.

use proptest::prelude::*;

use super::*;
use crate::reach::model::Verdict;

/// Rules with a number of conditions each.
const RULES: [(&str, usize); 9] = [
    ("-s 10.2.3.0/24 -d 10.9.8.7/32 -i eth7", 3),
    ("-p tcp -m tcp --sport 1024:2048 --dport 443", 3),
    ("! -s 10.0.0.0/255.0.255.0 -m mark --mark 0x1/0xff", 2),
    ("-m conntrack --ctstate NEW --ctdir ORIGINAL", 2),
    ("-p udp -m multiport --dports 80,443", 2),
    ("-m limit --limit 10/sec --limit-burst 7", 1),
    ("-m set --match-set bans src -m ttl --ttl-lt 9", 2),
    ("-m string --string \"a -j b\" --algo bm", 1),
    ("-m iprange --src-range 1.2.3.4-1.2.3.9", 1),
];

fn conditions(parts: &[Part]) -> usize {
    parts.iter().filter(|p| matches!(p, Part::Test(_) | Part::Rate(_) | Part::Puzzle(_))).count()
}

/// One letter less, more, or another one.
fn damage(text: &str, at: usize, how: u8, with: char) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let at = at % letters.len();
    match how % 3 {
        0 => drop(letters.remove(at)),
        1 => letters.insert(at, with),
        _ => letters[at] = with,
    }
    letters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_damaged_test_never_becomes_always(rule in 0..RULES.len(), at in 0_usize..80, how in 0_u8..3, with in r#"[ -~\n]"#) {
        let (words, least) = RULES[rule];
        let words = damage(words, at, how, with.chars().next().unwrap());
        let text = format!("*filter\n:c - [0:0]\n-A c {words} -j ACCEPT\nCOMMIT\n");
        let Ok(saved) = tables(text.as_bytes(), Family::V4, Language::IptablesLegacy) else { return Ok(()) };
        let rules = &saved.tables[0].chains["c"].rules;
        prop_assert_eq!(rules.len(), 1);
        let parts = &rules[0].parts;
        let elsewhere = parts.iter().any(|p| matches!(p, Part::Verdict(Verdict::Elsewhere(_))));
        let puzzled = parts.iter().any(|p| matches!(p, Part::Puzzle(_)));
        // Led elsewhere, or held by a puzzle, or by as many conditions as there were.
        prop_assert!(elsewhere || puzzled || conditions(parts) >= least, "{}: {:?}", words, parts);
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = tables(&bytes, Family::V4, Language::IptablesNft);
        let _ = ipsets(&bytes);
    }

    #[test]
    fn nothing_panics_near_the_grammar(
        lines in proptest::collection::vec(
            r#"(-A c |\*filter\n|:c - \[0:0\]\n|COMMIT\n|-[sdiopmjg] |--[a-z-]{2,12} |! |[0-9.:/,-]{1,9} |[a-zA-Z]{1,5} |"|\n|tcp |set |src,dst |0x|\\|,){0,14}"#, 0..6),
        v6 in any::<bool>(),
    ) {
        let text = format!("*filter\n:c - [0:0]\n-A c {}\nCOMMIT\n", lines.join("\n-A c "));
        let family = if v6 { Family::V6 } else { Family::V4 };
        if let Ok(mut saved) = tables(text.as_bytes(), family, Language::IptablesNft) {
            saved.bind(&Ipsets::default());
        }
    }

    #[test]
    fn sets_never_panic_near_the_grammar(
        lines in proptest::collection::vec(
            r"(create (x|y) (hash:(ip|net|ip,port|net,iface|ip,port,net|net,net|mac|ip,mark)|bitmap:(ip|port)|list:set)( family inet6?| netmask [0-9]{1,3}| range [0-9-]{1,5}| timeout 5)?|add (x|y) ([0-9a-f.:/,-]{1,18}|tcp:80|1\.2\.3\.4(,tcp:80|/[0-9]{1,2}|,eth0|)|x|y)( nomatch| wildcard| timeout [0-9]| comment .{0,5})?)", 0..8),
    ) {
        let Ok(read) = ipsets(lines.join("\n").as_bytes()) else { return Ok(()) };
        let mut saved = rules_of("filter", &["-m set --match-set x src,dst", "-m set ! --match-set y src"], Family::V4);
        saved.bind(&read);
    }

    #[test]
    fn exceptions_are_the_kernels(
        nets in proptest::collection::btree_map((0_u8..16, 28_u8..=32), any::<bool>(), 0..12),
    ) {
        // Canonical prefixes within 10.0.0.0/28, each an element or an exception.
        let nets: std::collections::BTreeMap<(u8, u8), bool> =
            nets.into_iter().map(|((a, len), except)| ((a & (0xff_u16 << (32 - len)) as u8, len), except)).collect();
        let mut save = "create x hash:net family inet\n".to_owned();
        for ((a, len), except) in &nets {
            save += &format!("add x 10.0.0.{a}/{len}{}\n", if *except { " nomatch" } else { "" });
        }
        let Set::Plain(Elements::Numbers(held, ())) = set("x", &save) else { panic!("{save}") };
        for n in 0_u8..16 {
            let holds = |(a, len): &(u8, u8)| n & (0xff_u16 << (32 - len)) as u8 == *a;
            let nearest = nets.iter().filter(|(net, _)| holds(net)).max_by_key(|((_, len), _)| *len);
            let expected = nearest.is_some_and(|(_, except)| !except);
            prop_assert_eq!(held.contains((10 << 24) + u128::from(n)), expected, "{} in {}", n, save);
        }
    }
}
