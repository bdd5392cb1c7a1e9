//! What a person reads at 3 a.m., as it is read.

use super::*;
use crate::report::QuestionReport;

fn question(to: &str, port: u16, verdict: ReachVerdict) -> QuestionReport {
    let ranges = if to.contains(':') { 7 } else { 15 };
    QuestionReport {
        to: to.into(),
        port,
        protocol: "tcp",
        interface: "eth0".into(),
        verdict,
        ranges,
        accepted: if verdict == ReachVerdict::Accepted { ranges } else { 0 },
    }
}

fn questions(verdict: ReachVerdict) -> Vec<QuestionReport> {
    let to = ["192.0.2.1", "2001:db8:2::1"];
    to.iter().flat_map(|to| [80, 443].map(|port| question(to, port, verdict))).collect()
}

fn rule(text: &str) -> PlaceReport {
    PlaceReport {
        language: "iptables",
        hook: "input",
        family: "ip".into(),
        table: "filter".into(),
        chain: "ufw-user-input".into(),
        base: "INPUT".into(),
        position: Some(3),
        handle: None,
        text: Some(text.into()),
        comment: None,
        sets: vec![],
    }
}

fn part(range: &str, except: &[&str]) -> PartReport {
    PartReport { range: range.into(), except: except.iter().map(|e| (*e).into()).collect() }
}

fn shown(reach: &ReachReport, all: bool) -> String {
    let mut out = String::new();
    lines(&mut out, reach, 80, all);
    let plain = anstream::adapter::strip_str(&out).to_string();
    assert!(plain.lines().all(|l| l.chars().count() <= 80), "{plain}");
    plain
}

#[test]
fn one_line_when_all_is_well() {
    let reach = ReachReport { questions: questions(ReachVerdict::Accepted), ..ReachReport::default() };
    insta::assert_snapshot!(shown(&reach, false), @"All 22 ranges reach ports 80 and 443 on 192.0.2.1 and 2001:db8:2::1 (eth0).");
    let udp = QuestionReport { protocol: "udp", ranges: 1, ..question("192.0.2.1", 443, ReachVerdict::Accepted) };
    let note = "This host has no global IPv6 address, so nothing of IPv6 was asked".to_owned();
    let reach = ReachReport { questions: vec![udp], notes: vec![note], ..ReachReport::default() };
    insta::assert_snapshot!(shown(&reach, false), @r"
    The 1 range reaches port 443/udp on 192.0.2.1 (eth0).
    This host has no global IPv6 address, so nothing of IPv6 was asked.
    ");
}

#[test]
fn a_culprit_is_shown_with_what_it_catches_and_what_mends_it() {
    let refused = CulpritReport {
        verdict: ReachVerdict::Refused,
        tool: Some("ufw"),
        name: Some("UFW".into()),
        effect: "drop",
        detail: None,
        packet: "request",
        place: Some(rule("-A ufw-user-input -p tcp -m tcp --dport 443 -j DROP")),
        cloudflare_error: Some(522),
        catches: vec![CaughtReport {
            to: vec!["192.0.2.1".into()],
            ports: vec!["443/tcp".into()],
            all: true,
            asked: 15,
            ranges: vec![],
            except: vec![],
            parts: vec![],
        }],
        mend: vec!["edgeallow sync --backend ufw".into()],
    };
    let banned = CulpritReport {
        tool: Some("fail2ban"),
        name: Some("fail2ban (jail nginx-botsearch)".into()),
        effect: "reject",
        detail: Some("icmp port-unreachable".into()),
        cloudflare_error: Some(521),
        place: Some(PlaceReport {
            language: "nftables",
            family: "inet".into(),
            table: "f2b-table".into(),
            chain: "f2b-chain".into(),
            base: "f2b-chain".into(),
            position: Some(1),
            handle: Some(9),
            text: Some("tcp dport { 80, 443 } ip saddr @addr-set-nginx-botsearch reject".into()),
            sets: vec!["addr-set-nginx-botsearch".into()],
            ..rule("")
        }),
        catches: vec![CaughtReport {
            to: vec!["192.0.2.1".into()],
            ports: vec!["80/tcp".into(), "443/tcp".into()],
            all: false,
            asked: 15,
            ranges: vec!["173.245.48.29/32".into()],
            except: vec![],
            parts: vec![part("173.245.48.29/32", &[])],
        }],
        mend: vec![
            "fail2ban-client set nginx-botsearch unbanip 173.245.48.29".into(),
            "edgeallow sync --backend fail2ban".into(),
        ],
        ..refused.clone()
    };
    let throttled = CulpritReport {
        verdict: ReachVerdict::Throttled,
        tool: Some("iptables"),
        name: Some("the administrator's own iptables rules".into()),
        effect: "rate",
        detail: Some("hashlimit above 10/sec burst 20 mode srcip".into()),
        packet: "answer",
        place: Some(PlaceReport { position: None, text: None, chain: "INPUT".into(), ..rule("") }),
        catches: vec![CaughtReport {
            all: false,
            ranges: (0..9).map(|n| format!("20.0.{n}.0/24")).collect(),
            except: vec!["173.245.48.29/32".into()],
            parts: (0..9).map(|n| part(&format!("20.0.{n}.0/24"), &[])).collect(),
            ..refused.catches[0].clone()
        }],
        mend: vec![],
        ..refused.clone()
    };
    let reach = ReachReport {
        verdict: ReachVerdict::Refused,
        questions: questions(ReachVerdict::Refused),
        culprits: vec![refused, banned, throttled],
        gaps: vec!["rules name the ipsets a, b, and there is no ipset program to read them".into()],
        ..ReachReport::default()
    };
    insta::assert_snapshot!(shown(&reach, false), @r"
    refused   dropped by UFW; visitors see Error 522.
        from  all 15 ranges
          to  port 443 on 192.0.2.1
        rule  iptables -t filter, chain ufw-user-input, rule 3, reached from INPUT
              -A ufw-user-input -p tcp -m tcp --dport 443 -j DROP
        mend  edgeallow sync --backend ufw

    refused   rejected with icmp port-unreachable by fail2ban (jail
              nginx-botsearch); visitors see Error 521.
        from  173.245.48.29/32
          to  ports 80 and 443 on 192.0.2.1
        rule  table inet f2b-table, chain f2b-chain, rule 1 (handle 9)
              tcp dport { 80, 443 } ip saddr @addr-set-nginx-botsearch reject
        mend  fail2ban-client set nginx-botsearch unbanip 173.245.48.29
          or  edgeallow sync --backend fail2ban

    throttled limited by the administrator's own iptables rules: hashlimit above
              10/sec burst 20 mode srcip; above that visitors see Error 522.
        from  all 15 ranges but 173.245.48.29/32
          to  port 443 on 192.0.2.1
        rule  iptables -t filter, chain INPUT, its policy

    unknown   rules name the ipsets a, b, and there is no ipset program to read
              them.
    ");
}

#[test]
fn a_trace_can_be_followed() {
    let step = |depth, chain: &str, position, text: Option<&str>, matched, outcome: &str| StepReport {
        packet: "request",
        depth,
        place: PlaceReport { chain: chain.into(), position, text: text.map(Into::into), ..rule("") },
        matched,
        outcome: outcome.into(),
    };
    let steps = vec![
        step(0, "INPUT", Some(1), Some("-A INPUT -i lo -j ACCEPT"), false, "doesn't match: interface"),
        step(0, "INPUT", Some(2), Some("-A INPUT -j ufw-user-input"), true, "jump ufw-user-input"),
        step(
            1,
            "ufw-user-input",
            Some(1),
            Some("-A ufw-user-input -s 9.9.9.9/32 -j DROP"),
            false,
            "doesn't match: source",
        ),
        step(0, "INPUT", None, None, true, "drop"),
    ];
    let trace = TraceReport {
        from: "173.245.48.29".into(),
        to: "192.0.2.1".into(),
        port: 443,
        protocol: "tcp",
        interface: "eth0".into(),
        verdict: ReachVerdict::Refused,
        steps,
    };
    let reach = ReachReport { verdict: ReachVerdict::Refused, traces: vec![trace], ..ReachReport::default() };
    insta::assert_snapshot!(shown(&reach, false), @r"
    173.245.48.29 → 192.0.2.1 port 443 by eth0: refused
      the request
        input: ip filter INPUT (iptables)
          2. -A INPUT -j ufw-user-input → jump ufw-user-input
          policy of INPUT → drop
    ");
    insta::assert_snapshot!(shown(&reach, true), @r"
    173.245.48.29 → 192.0.2.1 port 443 by eth0: refused
      the request
        input: ip filter INPUT (iptables)
          1. -A INPUT -i lo -j ACCEPT → doesn't match: interface
          2. -A INPUT -j ufw-user-input → jump ufw-user-input
            1. -A ufw-user-input -s 9.9.9.9/32 -j DROP → doesn't match: source
          policy of INPUT → drop
    ");
}

fn ban(n: usize) -> CulpritReport {
    let address = format!("173.245.48.{n}");
    CulpritReport {
        verdict: ReachVerdict::Refused,
        tool: Some("fail2ban"),
        name: Some("fail2ban (jail web)".into()),
        effect: "reject",
        detail: Some("icmp port-unreachable".into()),
        packet: "request",
        place: Some(PlaceReport {
            chain: "f2b-web".into(),
            position: Some(n),
            ..rule(&format!("-A f2b-web -s {address}/32 -j REJECT"))
        }),
        cloudflare_error: Some(521),
        catches: vec![CaughtReport {
            to: vec!["192.0.2.1".into()],
            ports: vec!["80/tcp".into(), "443/tcp".into()],
            all: false,
            asked: 15,
            ranges: vec![format!("{address}/32")],
            except: vec![],
            parts: vec![part(&format!("{address}/32"), &[])],
        }],
        mend: vec![format!("fail2ban-client set web unbanip {address}"), "edgeallow sync --backend fail2ban".into()],
    }
}

#[test]
fn many_bans_of_a_jail_are_one_block_and_one_command() {
    let mut culprits: Vec<CulpritReport> = (1..=9).map(ban).collect();
    // Another jail's ban stays a block of its own, and so does one of other ports.
    culprits.push(CulpritReport { name: Some("fail2ban (jail ssh)".into()), ..ban(10) });
    let mut other = ban(11);
    other.catches[0].ports.truncate(1);
    culprits.push(other);
    let all = ReachReport { verdict: ReachVerdict::Refused, culprits, ..ReachReport::default() };
    let mut out = String::new();
    lines(&mut out, &all, 80, false);
    let plain = anstream::adapter::strip_str(&out).to_string();
    assert_eq!(plain.matches("refused ").count(), 3, "{plain}");
    let first = plain.split("\n\n").next().unwrap();
    let unban: Vec<String> = (1..=9).map(|n| format!("173.245.48.{n}")).collect();
    let command = format!("fail2ban-client set web unbanip {}\n", unban.join(" "));
    assert!(first.contains(&command), "{first}");
    insta::assert_snapshot!(first.replace(&command, "COMMAND\n"), @r"
    refused   rejected with icmp port-unreachable by fail2ban (jail web); visitors
              see Error 521.
        from  9 addresses: 173.245.48.1/32 173.245.48.2/32 173.245.48.3/32
              173.245.48.4/32 173.245.48.5/32 and 4 more
          to  ports 80 and 443 on 192.0.2.1
        rule  iptables -t filter, chain f2b-web, rule 1, reached from INPUT
              -A f2b-web -s 173.245.48.1/32 -j REJECT
              and 8 more like it
        mend  COMMAND
          or  edgeallow sync --backend fail2ban
    ");

    // Rules that are deleted one by one: the first stands for the others.
    let mut culprits: Vec<CulpritReport> = (1..=3).map(ban).collect();
    for (n, culprit) in culprits.iter_mut().enumerate() {
        culprit.mend = vec![format!("nft delete rule inet a b handle {n}")];
    }
    let all = ReachReport { verdict: ReachVerdict::Refused, culprits, ..ReachReport::default() };
    let text = shown(&all, false);
    assert!(text.contains("handle 0\n          and 2 more like it, which --format json shows"), "{text}");
    assert!(!text.contains("handle 1"), "{text}");
}

#[test]
fn what_is_caught_is_said_the_shorter_way() {
    let caught = |asked, except: &[&str], parts: Vec<PartReport>| CaughtReport {
        asked,
        except: except.iter().map(|e| (*e).into()).collect(),
        all: false,
        parts,
        ..ban(1).catches.remove(0)
    };
    let from = |c: &CaughtReport| from_words(c, MOST_LINES);
    // All of one of seven but an address: not "all 7 but" the other six and that address.
    let others = ["A/32", "B/32", "C/32", "D/32", "E/32", "F/32", "2400:cb00::9/128"];
    let most = caught(7, &others, vec![part("2400:cb00::/32", &["2400:cb00::9/128"])]);
    assert_eq!(from(&most), "2400:cb00::/32 but 2400:cb00::9/128");
    let two = vec![part("A/32", &["B/128"]), part("C/32", &[])];
    assert_eq!(from(&caught(7, &[], two)), "A/32 but B/128, C/32");
    let one = caught(7, &["A/32"], (0..6).map(|n| part(&format!("{n}::/32"), &[])).collect());
    assert_eq!(from(&one), "all 7 ranges but A/32");
    let all = |range| CaughtReport { all: true, ..caught(1, &[], vec![part(range, &[])]) };
    assert_eq!(from(&all("173.245.48.29/32")), "the address 173.245.48.29");
    assert_eq!(from(&all("2400:cb00::9/128")), "the address 2400:cb00::9");
    assert_eq!(from(&all("173.245.48.0/20")), "the range 173.245.48.0/20");
}

#[test]
fn nothing_of_a_rule_steers_the_terminal() {
    let evil = "\x1b]0;owned\x07\u{9b}2J\r\n\u{202e}";
    let mut culprit = ban(1);
    culprit.name = Some(format!("fail2ban (jail {evil})"));
    culprit.detail = Some(evil.into());
    culprit.mend = vec![format!("fail2ban-client set {evil} unbanip 192.0.2.1")];
    let mut place = PlaceReport { chain: evil.into(), table: evil.into(), ..rule(&format!("drop comment \"{evil}\"")) };
    culprit.place = Some(place.clone());
    let step =
        |place: PlaceReport| StepReport { packet: "request", depth: 0, place, matched: true, outcome: evil.into() };
    let mut steps = vec![step(place.clone())];
    place.text = None;
    place.comment = Some(evil.into());
    steps.push(step(place));
    let trace = TraceReport {
        from: "173.245.48.29".into(),
        to: "192.0.2.1".into(),
        port: 443,
        protocol: "tcp",
        interface: evil.into(),
        verdict: ReachVerdict::Refused,
        steps,
    };
    let reach = ReachReport {
        verdict: ReachVerdict::Refused,
        culprits: vec![culprit.clone(), CulpritReport { mend: vec![], ..culprit }],
        gaps: vec![evil.into()],
        notes: vec![evil.into()],
        traces: vec![trace],
        ..ReachReport::default()
    };
    let mut out = String::new();
    lines(&mut out, &reach, 200, true);
    // The only escapes are those of our own inks.
    let inks = out.matches("\x1b[").count();
    assert_eq!(out.matches('\x1b').count(), inks, "{out:?}");
    assert!(!out.contains("\x1b]") && !out.contains(['\x07', '\u{9b}', '\r', '\u{202e}']), "{out:?}");
    assert!(out.contains(r#"drop comment "\x1b]0;owned\x07\x9b2J\r\n\u{202e}""#), "{out:?}");
}
