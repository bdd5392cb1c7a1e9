//! firewalld's own files: ipsets, policies and zones.
//!
//! Belongs here: their text. Does not: which of them, and what should be in them ([`super::target`]).
//!
//! Two kinds are ours from the first byte to the last, and are written in the form in which firewalld writes them.
//! A zone is the administrator's: of its text only whole `<rule>` elements that are exactly ours are touched.

use std::{collections::BTreeSet, fmt::Write as _, ops::Range, sync::Arc};

use ipnet::IpNet;
use roxmltree::{Document, Node};

use super::rule::{Rule, set_name};
use crate::{
    allowlist::Family,
    plan::{Protocol, TAG},
};

const PROLOGUE: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
const WORDS: &str = "  <short>edgeallow</short>\n  \
    <description>Written by edgeallow; its next run overwrites what is changed here.</description>\n";
/// Marks a zone file that is a copy of the distribution's, made for our rules.
const COPY: &str = "<!-- edgeallow copied this zone; it goes with edgeallow's rules -->";
/// ipset's own default (`maxelem`).
const DEFAULT_ROOM: usize = 65_536;

/// The file of a set.
#[must_use]
pub fn ipset(family: Family, nets: &[IpNet]) -> Arc<[u8]> {
    let mut out = format!("{PROLOGUE}<ipset type=\"hash:net\">\n{WORDS}");
    let inet = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let _ = writeln!(out, "  <option name=\"family\" value=\"{inet}\"/>");
    if nets.len() * 2 > DEFAULT_ROOM {
        let _ = writeln!(out, "  <option name=\"maxelem\" value=\"{}\"/>", (nets.len() * 2).next_power_of_two());
    }
    for net in nets {
        let _ = writeln!(out, "  <entry>{net}</entry>");
    }
    out.push_str("</ipset>\n");
    out.into_bytes().into()
}

/// The file of our policy: everybody to this host, before the zones have their say (priority −10).
#[must_use]
pub fn policy(rules: &BTreeSet<Rule>) -> Arc<[u8]> {
    let mut out = format!("{PROLOGUE}<policy priority=\"-10\" target=\"CONTINUE\">\n{WORDS}");
    rules.iter().for_each(|rule| out.push_str(&element(*rule)));
    out.push_str("  <ingress-zone name=\"ANY\"/>\n  <egress-zone name=\"HOST\"/>\n</policy>\n");
    out.into_bytes().into()
}

/// A rule as firewalld writes it.
fn element(rule: Rule) -> String {
    rule_with(rule, ["  ", "\n    ", "\n  ", "\n"])
}

/// A rule in one line, for a file of the administrator's: so each line of ours bears our name.
fn line(rule: Rule, indent: &str, eol: &str) -> String {
    rule_with(rule, [indent, "", "", eol])
}

fn rule_with(rule: Rule, [indent, inner, last, eol]: [&str; 4]) -> String {
    format!(
        "{indent}<rule family=\"{}\">{inner}<source ipset=\"{}\"/>{inner}<port port=\"{}\" protocol=\"{}\"/>{inner}<accept/>\
         {last}</rule>{eol}",
        rule.family_word(),
        set_name(rule.family),
        rule.port,
        rule.protocol.as_str()
    )
}

/// The entries of an ipset file that are prefixes; none of a file that isn't one.
#[must_use]
pub fn entries(text: &[u8]) -> Vec<IpNet> {
    let Ok(text) = std::str::from_utf8(text) else { return Vec::new() };
    let Ok(document) = Document::parse(text) else { return Vec::new() };
    let all = document.descendants().filter(|n| n.has_tag_name("entry"));
    all.filter_map(|n| crate::backends::iptables::rules::net(n.text()?.trim())).collect()
}

/// The rules in a policy or zone that are exactly ours.
///
/// # Errors
/// In words, if it isn't XML.
pub fn rules(text: &[u8]) -> Result<BTreeSet<Rule>, String> {
    let text = utf8(text)?;
    let document = parse(text)?;
    Ok(document.root_element().children().filter_map(ours).collect())
}

/// Whether a policy or zone uses a set of this name in another way than our rules do.
#[must_use]
pub fn uses(text: &[u8], family: Family) -> bool {
    let name = set_name(family);
    let plain = || String::from_utf8_lossy(text).contains(name);
    let Ok(text) = std::str::from_utf8(text) else { return plain() };
    let Ok(document) = Document::parse(text) else { return plain() };
    let within_ours = |n: Node<'_, '_>| n.ancestors().any(|a| ours(a).is_some());
    let names_it = |n: Node<'_, '_>| n.attributes().any(|a| a.value() == name || a.value() == format!("ipset:{name}"));
    document.descendants().any(|n| !within_ours(n) && (names_it(n) || n.text().is_some_and(|t| t.contains(name))))
}

/// Every ipset that a policy or zone uses.
#[must_use]
pub fn ipsets(text: &[u8]) -> BTreeSet<String> {
    let Ok(text) = std::str::from_utf8(text) else { return BTreeSet::new() };
    let Ok(document) = Document::parse(text) else { return BTreeSet::new() };
    document.descendants().filter_map(|n| n.attribute("ipset")).map(str::to_owned).collect()
}

/// A zone with exactly these rules of ours; every other byte stays.
///
/// # Errors
/// In words, if the text can't be edited safely.
pub fn edit_zone(text: &[u8], to: &BTreeSet<Rule>) -> Result<Vec<u8>, String> {
    let text = utf8(text)?;
    let document = parse(text)?;
    let mut stay = BTreeSet::new();
    let mut cut: Vec<Range<usize>> = Vec::new();
    for node in document.root_element().children() {
        let Some(rule) = ours(node) else { continue };
        if !to.contains(&rule) || !stay.insert(rule) {
            cut.push(whole_lines(text, node.range()));
        }
    }
    let (at, eol, indent) = end_of_content(text, document.root_element().range())?;
    let mut out = String::with_capacity(text.len() + 1024);
    let mut from = 0;
    for range in cut {
        out.push_str(&text[from..range.start]);
        from = range.end;
    }
    out.push_str(&text[from..at]);
    to.difference(&stay).for_each(|rule| out.push_str(&line(*rule, indent, eol)));
    out.push_str(&text[at..]);
    Ok(out.into_bytes())
}

/// The distribution's zone as a file of the administrator's folder, marked as a copy.
///
/// # Errors
/// Those of [`edit_zone`].
pub fn copy_zone(text: &[u8], to: &BTreeSet<Rule>) -> Result<Vec<u8>, String> {
    let text = utf8(text)?;
    let (at, eol, indent) = end_of_content(text, parse(text)?.root_element().range())?;
    edit_zone(format!("{}{indent}{COPY}{eol}{}", &text[..at], &text[at..]).as_bytes(), to)
}

/// A zone without our mark of a copy; `None` if it bears none.
#[must_use]
pub fn unmarked(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let start = text.find(COPY)?;
    let range = whole_lines(text, start..start + COPY.len());
    Some([&text[..range.start], &text[range.end..]].concat().into_bytes())
}

fn utf8(text: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())
}

fn parse(text: &str) -> Result<Document<'_>, String> {
    Document::parse(text).map_err(|e| format!("it is not well-formed XML: {e}"))
}

/// The rule that an element is, if it is exactly one of ours.
fn ours(node: Node<'_, '_>) -> Option<Rule> {
    if !node.has_tag_name("rule") || node.attributes().len() != 1 {
        return None;
    }
    let mut parts = node.children().filter(|n| !n.is_text() || n.text().is_some_and(|t| !t.trim().is_empty()));
    let (source, port, accept) = (parts.next()?, parts.next()?, parts.next()?);
    let shape = source.has_tag_name("source") && source.attributes().len() == 1;
    let shape = shape && port.has_tag_name("port") && port.attributes().len() == 2;
    if !shape || !accept.has_tag_name("accept") || accept.has_children() || parts.next().is_some() {
        return None;
    }
    let family = Family::BOTH.into_iter().find(|f| source.attribute("ipset") == Some(set_name(*f)))?;
    let protocol =
        [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| port.attribute("protocol") == Some(p.as_str()))?;
    let rule = Rule { family, protocol, port: port.attribute("port")?.parse().ok()? };
    (node.attribute("family") == Some(rule.family_word())).then_some(rule)
}

/// The same range with its indentation and line end, if nothing else stands in its lines.
fn whole_lines(text: &str, range: Range<usize>) -> Range<usize> {
    let before = text[..range.start].trim_end_matches([' ', '\t']);
    let after = &text[range.end..];
    let end = if after.starts_with("\r\n") { 2 } else { usize::from(after.starts_with('\n')) };
    if before.ends_with('\n') && end > 0 { before.len()..range.end + end } else { range }
}

/// Where another element would go: the place, the line end and the indentation (both empty in the middle of a line).
fn end_of_content(text: &str, root: Range<usize>) -> Result<(usize, &'static str, &'static str), String> {
    let close = text[root.clone()].rfind("</").map(|n| root.start + n);
    let Some(close) = close else { return Err("it is an empty element".to_owned()) };
    let line = text[..close].trim_end_matches([' ', '\t']);
    Ok(if line.ends_with("\r\n") {
        (line.len(), "\r\n", "  ")
    } else if line.ends_with('\n') {
        (line.len(), "\n", "  ")
    } else {
        (close, "", "")
    })
}

/// Whether a text names us at all, which is cheaper to ask than [`rules`].
#[must_use]
pub fn mentions_us(text: &[u8]) -> bool {
    text.windows(TAG.len()).any(|w| w == TAG.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ZONE: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<zone target=\"DROP\">\n  <short>Public</short>\n  \
        <service name=\"ssh\"/>\n  <!-- mine -->\n  <rule family=\"ipv4\"><source address=\"203.0.113.9\"/><drop/></rule>\n\
        </zone>\n";

    fn some() -> BTreeSet<Rule> {
        let rule = |family, port| Rule { family, protocol: Protocol::Tcp, port };
        BTreeSet::from([rule(Family::V4, 80), rule(Family::V4, 443), rule(Family::V6, 443)])
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let list = nets(&["173.245.48.0/20", "104.16.0.0/13"]);
        assert_eq!(entries(&ipset(Family::V4, &list)), list);
        assert_eq!(rules(&policy(&some())).unwrap(), some());
        let text = String::from_utf8(policy(&some()).to_vec()).unwrap();
        assert!(text.contains(
            "  <rule family=\"ipv6\">\n    <source ipset=\"edgeallow-v6\"/>\n    <port port=\"443\" protocol=\"tcp\"/>\n    \
             <accept/>\n  </rule>\n"
        ));
    }

    #[test]
    fn long_lists_get_room() {
        let list: Vec<IpNet> =
            (0..40_000_u32).map(|n| format!("{}/32", std::net::Ipv4Addr::from(n)).parse().unwrap()).collect();
        assert!(
            String::from_utf8_lossy(&ipset(Family::V4, &list)).contains("<option name=\"maxelem\" value=\"131072\"/>")
        );
    }

    #[test]
    fn a_zone_gets_ours_and_loses_them_to_the_byte() {
        for his in [
            ZONE.to_owned(),
            ZONE.replace('\n', "\r\n"),
            ZONE.trim_end().to_owned(),
            ZONE.replace("\n</zone>", "\n\t </zone >"),
            "<zone><service name=\"ssh\"/></zone>".to_owned(),
            "<zone></zone>".to_owned(),
        ] {
            let with = edit_zone(his.as_bytes(), &some()).unwrap();
            assert_eq!(rules(&with).unwrap(), some(), "{his}");
            assert_eq!(edit_zone(&with, &some()).unwrap(), with);
            assert_eq!(String::from_utf8(edit_zone(&with, &BTreeSet::new()).unwrap()).unwrap(), his);
        }
    }

    #[test]
    fn doubled_and_stale_rules_of_ours_go() {
        let with = String::from_utf8(edit_zone(ZONE.as_bytes(), &some()).unwrap()).unwrap();
        let one = line(Rule { family: Family::V4, protocol: Protocol::Udp, port: 53 }, "  ", "\n");
        let two = line(*some().first().unwrap(), "  ", "\n");
        let harmed = with.replace("</zone>", &format!("{one}{two}</zone>"));
        assert_eq!(edit_zone(harmed.as_bytes(), &some()).unwrap(), with.as_bytes());
    }

    #[test]
    fn a_copy_is_known_as_one() {
        let copy = copy_zone(ZONE.as_bytes(), &some()).unwrap();
        let bare = edit_zone(&copy, &BTreeSet::new()).unwrap();
        assert_eq!(unmarked(&bare).unwrap(), ZONE.as_bytes());
        assert_eq!(unmarked(ZONE.as_bytes()), None);
    }

    #[test]
    fn his_use_of_our_set_is_not_ours() {
        let his = [
            "<zone><rule family=\"ipv4\"><source ipset=\"edgeallow-v4\"/><service name=\"ssh\"/><accept/></rule></zone>",
            "<zone><rule family=\"ipv4\"><source ipset=\"edgeallow-v4\"/><port port=\"80\" protocol=\"tcp\"/><drop/></rule></zone>",
            "<zone><source ipset=\"edgeallow-v4\"/></zone>",
            "<zone><rule family=\"ipv4\" priority=\"1\"><source ipset=\"edgeallow-v4\"/><port port=\"80\" protocol=\"tcp\"/><accept/></rule></zone>",
            "<zone><rule family=\"ipv4\"><source ipset=\"edgeallow-v4\"/><port port=\"80\" protocol=\"tcp\"/><accept><limit value=\"1/s\"/></accept></rule></zone>",
            "<direct><rule ipv=\"ipv4\">-m set --match-set edgeallow-v4 src -j DROP</rule></direct>",
            "<zone edgeallow-v4 not XML",
        ];
        for text in his {
            assert!(uses(text.as_bytes(), Family::V4), "{text}");
            assert!(!uses(text.as_bytes(), Family::V6), "{text}");
            assert!(rules(text.as_bytes()).is_err() || rules(text.as_bytes()).unwrap().is_empty(), "{text}");
        }
        assert!(!uses(&edit_zone(ZONE.as_bytes(), &some()).unwrap(), Family::V4));
        assert_eq!(ipsets(his[2].as_bytes()), BTreeSet::from(["edgeallow-v4".to_owned()]));
    }

    #[test]
    fn what_cannot_be_edited_safely_is_left() {
        for text in
            [&b""[..], b"<zone/>", b"<zone>", b"<zone>\xff</zone>", b"<!DOCTYPE z [<!ENTITY e 'x'>]><zone></zone>"]
        {
            assert!(edit_zone(text, &some()).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for text in [text.as_bytes(), &bytes] {
                let _ = (rules(text), entries(text), uses(text, Family::V4), ipsets(text), unmarked(text));
                let _ = (edit_zone(text, &some()), copy_zone(text, &some()));
            }
        }

        #[test]
        fn his_bytes_never_change(
            his in proptest::collection::vec("[ \t]{0,3}(<service name=\"ssh\"/>|<!-- ünd -->|<rule><drop/></rule>|)", 0..6),
            eol in prop_oneof![Just("\n"), Just("\r\n"), Just("")],
            first in proptest::collection::btree_set(1_u16.., 0..4),
            second in proptest::collection::btree_set(1_u16.., 0..4),
        ) {
            let of = |ports: BTreeSet<u16>| -> BTreeSet<Rule> {
                ports.into_iter().map(|port| Rule { family: Family::V6, protocol: Protocol::Udp, port }).collect()
            };
            let his = format!("<zone>{eol}{}{eol}</zone>{eol}", his.join(eol));
            let with = edit_zone(his.as_bytes(), &of(first)).unwrap();
            let next = edit_zone(&with, &of(second.clone())).unwrap();
            prop_assert_eq!(rules(&next).unwrap(), of(second));
            prop_assert_eq!(edit_zone(&next, &BTreeSet::new()).unwrap(), his.into_bytes());
        }
    }
}
