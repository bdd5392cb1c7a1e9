//! Reachability in words: one line when all is well, else culprit by culprit, worst first; a trace rule by rule.

use std::fmt::Write as _;

use anstyle::Style as Ink;

use super::{BOLD, DIM, GREEN, MOST_LINES, RED, YELLOW, hanging, sentence, visible_line, wrapped};
use crate::report::{
    CaughtReport, CulpritReport, PartReport, PlaceReport, ReachReport, ReachVerdict, StepReport, TraceReport,
};

/// What is said about reachability. `steps` also shows the rules of a trace that don't match.
pub(super) fn lines(out: &mut String, reach: &ReachReport, width: usize, steps: bool) {
    for trace in &reach.traces {
        trace_lines(out, trace, width, steps);
    }
    match reach.verdict {
        ReachVerdict::Accepted if reach.traces.is_empty() => {
            let line = visible_line(&accepted(reach)).into_owned();
            wrapped(out, "", &format!("{GREEN}{line}{GREEN:#}"), width);
        }
        _ => {
            for (n, group) in alike(&reach.culprits).iter().enumerate() {
                if n > 0 || !reach.traces.is_empty() {
                    out.push('\n');
                }
                group_lines(out, group, width);
            }
        }
    }
    // What a gap makes unknown has been said of it as a culprit.
    let said = |gap: &&String| reach.culprits.iter().any(|c| c.detail.as_ref() == Some(*gap));
    for gap in reach.gaps.iter().filter(|gap| !said(gap)) {
        let head = format!("{YELLOW}{BOLD}{:<10}{BOLD:#}{YELLOW:#}", ReachVerdict::Unknown.as_str());
        out.push('\n');
        hanging(out, &head, &" ".repeat(10), &sentence(gap), width);
    }
    for note in &reach.notes {
        wrapped(out, "", &sentence(note), width);
    }
}

const fn ink(verdict: ReachVerdict) -> Ink {
    match verdict {
        ReachVerdict::Accepted => GREEN,
        ReachVerdict::Throttled | ReachVerdict::Unknown => YELLOW,
        ReachVerdict::Refused => RED,
    }
}

/// `All 22 ranges reach ports 80 and 443 on 192.0.2.1 and 2001:db8:2::1 (eth0).`
fn accepted(reach: &ReachReport) -> String {
    let unique = |all: Vec<String>| {
        let mut seen: Vec<String> = Vec::new();
        for word in all {
            if !seen.contains(&word) {
                seen.push(word);
            }
        }
        seen
    };
    // An address of each family stands for all of its ranges.
    let of = |v6: bool| reach.questions.iter().find(|q| q.to.contains(':') == v6).map_or(0, |q| q.ranges);
    let ports = unique(reach.questions.iter().map(|q| port(&format!("{}/{}", q.port, q.protocol))).collect());
    let to = unique(reach.questions.iter().map(|q| q.to.clone()).collect());
    let interfaces = unique(reach.questions.iter().map(|q| q.interface.clone()).collect());
    let reaches = match of(false) + of(true) {
        1 => "The 1 range reaches".to_owned(),
        n => format!("All {n} ranges reach"),
    };
    format!("{reaches} {} on {} ({}).", ports_words(&ports), list(&to), list(&interfaces))
}

/// `80`, or `443/udp` where it isn't TCP.
fn port(with_protocol: &str) -> String {
    with_protocol.strip_suffix("/tcp").unwrap_or(with_protocol).to_owned()
}

fn ports_words(ports: &[String]) -> String {
    format!("port{} {}", if ports.len() == 1 { "" } else { "s" }, list(ports))
}

/// `a`, `a and b`, `a, b and c`
fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// Rules of the same chain that do the same to the same ports, such as sixty bans: all that differs is the source.
fn alike(culprits: &[CulpritReport]) -> Vec<Vec<&CulpritReport>> {
    let mut groups: Vec<Vec<&CulpritReport>> = Vec::new();
    for culprit in culprits {
        match groups.iter_mut().find(|g| g.first().is_some_and(|first| is_alike(first, culprit))) {
            Some(group) => group.push(culprit),
            None => groups.push(vec![culprit]),
        }
    }
    groups
}

fn is_alike(a: &CulpritReport, b: &CulpritReport) -> bool {
    let (Some(p), Some(q)) = (&a.place, &b.place) else { return false };
    let chain =
        |p: &PlaceReport| (p.language, p.hook, p.family.clone(), p.table.clone(), p.chain.clone(), p.base.clone());
    let does = |c: &CulpritReport| (c.verdict, c.tool, c.name.clone(), c.effect, c.detail.clone(), c.packet);
    // What catches nearly everything is worth a block of its own.
    let some = |c: &CaughtReport| !c.all && c.except.is_empty();
    let same = |(c, d): (&CaughtReport, &CaughtReport)| c.to == d.to && c.ports == d.ports && some(c) && some(d);
    p.position.is_some()
        && q.position.is_some()
        && chain(p) == chain(q)
        && does(a) == does(b)
        && a.catches.len() == b.catches.len()
        && a.catches.iter().zip(&b.catches).all(same)
}

/// What all rules of a group catch.
fn caught_by_all(group: &[&CulpritReport]) -> Vec<CaughtReport> {
    let mut all = group.first().map(|c| c.catches.clone()).unwrap_or_default();
    for culprit in group.iter().skip(1) {
        for (caught, more) in all.iter_mut().zip(&culprit.catches) {
            caught.ranges.extend(more.ranges.iter().cloned());
            caught.parts.extend(more.parts.iter().filter(|p| !caught.parts.contains(p)).cloned().collect::<Vec<_>>());
        }
    }
    all
}

/// What mends all of a group: a command that takes several addresses once, and one of each other kind with the number
/// of those that are left out.
fn mended(group: &[&CulpritReport]) -> Vec<(String, usize)> {
    let mut kinds: Vec<(String, Vec<&str>)> = Vec::new();
    for command in group.iter().flat_map(|c| &c.mend) {
        let mut words = command.split(' ');
        let kind = match command.split_once(" unbanip ") {
            Some((jail, _)) => jail.to_owned(),
            None => words.by_ref().take(2).collect::<Vec<_>>().join(" "),
        };
        match kinds.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, commands)) if !commands.contains(&command.as_str()) => commands.push(command),
            Some(_) => {}
            None => kinds.push((kind, vec![command])),
        }
    }
    let one = |(_, commands): (String, Vec<&str>)| {
        let addresses: Option<Vec<&str>> =
            commands.iter().map(|c| c.split_once(" unbanip ").map(|(_, addresses)| addresses)).collect();
        match (addresses, commands.first().and_then(|c| c.split_once(" unbanip "))) {
            (Some(addresses), Some((jail, _))) => (format!("{jail} unbanip {}", addresses.join(" ")), 0),
            _ => (commands.first().copied().unwrap_or_default().to_owned(), commands.len().saturating_sub(1)),
        }
    };
    kinds.into_iter().map(one).collect()
}

fn group_lines(out: &mut String, group: &[&CulpritReport], width: usize) {
    let Some(c) = group.first() else { return };
    let more = group.len() - 1;
    let ink = ink(c.verdict);
    let head = format!("{ink}{BOLD}{:<10}{BOLD:#}{ink:#}", c.verdict.as_str());
    hanging(out, &head, &" ".repeat(10), &sentence(&what(c)), width);
    for caught in &caught_by_all(group) {
        caught_lines(out, caught, if more > 0 { FIRST_FEW } else { MOST_LINES }, width);
    }
    if let Some(place) = &c.place {
        hanging(out, &label("rule"), &" ".repeat(10), &visible_line(&place_words(place)), width);
        if let Some(text) = &place.text {
            // As the tool prints it: not broken, so that it can be searched for.
            let _ = writeln!(out, "          {DIM}{}{DIM:#}", visible_line(text));
        }
        if more > 0 {
            let _ = writeln!(out, "          and {more} more like it");
        }
    }
    let mends = if more > 0 { mended(group) } else { c.mend.iter().map(|m| (m.clone(), 0)).collect() };
    for (n, (command, left_out)) in mends.iter().enumerate() {
        let label = label(if n == 0 { "mend" } else { "or" });
        let _ = writeln!(out, "{label}{GREEN}{}{GREEN:#}", visible_line(command));
        if *left_out > 0 {
            let _ = writeln!(out, "          and {left_out} more like it, which --format json shows");
        }
    }
}

fn label(word: &str) -> String {
    format!("{DIM}{word:>8}{DIM:#}  ")
}

fn what(c: &CulpritReport) -> String {
    let by = c.name.as_ref().map_or_else(String::new, |name| format!(" by {name}"));
    let detail = c.detail.as_deref().unwrap_or_default();
    let mut text = match (c.effect, c.packet) {
        ("drop", "request") => format!("dropped{by}"),
        ("drop", packet) => format!("{} dropped{by}", packet_words(packet)),
        ("reject", "request") => format!("rejected with {detail}{by}"),
        ("reject", packet) => format!("{} rejected with {detail}{by}", packet_words(packet)),
        ("rate", _) => format!("limited{by}: {detail}"),
        _ if c.place.is_none() => detail.to_owned(),
        _ => format!("not understood{by}: {detail}"),
    };
    match (c.cloudflare_error, c.effect) {
        (Some(error), "rate") => {
            let _ = write!(text, "; above that visitors see Error {error}");
        }
        (Some(error), _) => {
            let _ = write!(text, "; visitors see Error {error}");
        }
        (None, _) => {}
    }
    text
}

fn packet_words(packet: &str) -> &'static str {
    match packet {
        "answer" => "let in, and the answer",
        "after" => "let in, and what follows the answer",
        "data" => "let in, and what the server sends then",
        _ => "the request",
    }
}

/// How many addresses of a group are shown.
const FIRST_FEW: usize = 5;

/// The first of them, and how many more there are.
fn some(words: &[String], most: usize, between: &str) -> String {
    // One more costs as much as saying that it is left out.
    let shown = if words.len() <= most + 1 { words.len() } else { most };
    let more = if shown < words.len() { format!(" and {} more", words.len() - shown) } else { String::new() };
    format!("{}{more}", words[..shown].join(between))
}

/// `173.245.48.29` of `173.245.48.29/32`
fn one_address(range: &str) -> Option<&str> {
    let (address, length) = range.split_once('/')?;
    (length == if address.contains(':') { "128" } else { "32" }).then_some(address)
}

/// From where: everything, everything but a few, or what it is.
fn from_words(caught: &CaughtReport, most: usize) -> String {
    let parts = &caught.parts;
    let words: usize = parts.iter().map(|p| 1 + p.except.len()).sum();
    match (caught.all, parts.as_slice()) {
        (true, [part]) if caught.asked == 1 => match one_address(&part.range) {
            Some(address) => format!("the address {address}"),
            None => format!("the range {}", part.range),
        },
        (true, _) => format!("all {} ranges", caught.asked),
        (false, _) if !caught.except.is_empty() && caught.except.len() < words => {
            format!("all {} ranges but {}", caught.asked, some(&caught.except, most, " "))
        }
        (false, _) => {
            let word = |p: &PartReport| match p.except.as_slice() {
                [] => p.range.clone(),
                except => format!("{} but {}", p.range, some(except, FIRST_FEW, " ")),
            };
            let between = if parts.iter().any(|p| !p.except.is_empty()) { ", " } else { " " };
            let shown = some(&parts.iter().map(word).collect::<Vec<_>>(), most, between);
            if parts.len() <= most + 1 {
                return shown;
            }
            let thing = if parts.iter().all(|p| one_address(&p.range).is_some()) { "addresses" } else { "ranges" };
            format!("{} {thing}: {shown}", parts.len())
        }
    }
}

fn caught_lines(out: &mut String, caught: &CaughtReport, most: usize, width: usize) {
    let ports: Vec<String> = caught.ports.iter().map(|p| port(p)).collect();
    hanging(out, &label("from"), &" ".repeat(10), &from_words(caught, most), width);
    let to = format!("{} on {}", ports_words(&ports), list(&caught.to));
    hanging(out, &label("to"), &" ".repeat(10), &to, width);
}

/// `inet filter input, rule 3 (handle 7)`
fn place_words(p: &PlaceReport) -> String {
    let mut text = match p.language {
        "nftables" => format!("table {} {}, chain {}", p.family, p.table, p.chain),
        language => {
            let six =
                if p.family == "ip6" { language.replacen("iptables", "ip6tables", 1) } else { language.to_owned() };
            format!("{six} -t {}, chain {}", p.table, p.chain)
        }
    };
    match p.position {
        Some(n) => {
            let _ = write!(text, ", rule {n}");
        }
        None => text.push_str(", its policy"),
    }
    if let Some(handle) = p.handle {
        let _ = write!(text, " (handle {handle})");
    }
    if p.base != p.chain {
        let _ = write!(text, ", reached from {}", p.base);
    }
    text
}

/// A rule's text may list a thousand ports, and a log is no place for them.
const LONGEST_RULE: usize = 200;

/// What it is, and what would mend it, for those who read no report: a log, a message.
pub(crate) fn in_a_line(c: &CulpritReport) -> String {
    let mut line = match (&c.place, &c.detail) {
        (Some(place), _) => place_words(place),
        (None, detail) => detail.clone().unwrap_or_default(),
    };
    if let Some(text) = c.place.as_ref().and_then(|p| p.text.as_ref()) {
        let cut: String = text.chars().take(LONGEST_RULE).collect();
        let _ = write!(line, ": `{cut}{}`", if cut.len() < text.len() { "…" } else { "" });
    }
    if let Some(command) = c.mend.first() {
        let _ = write!(line, "; `{command}` would mend it");
    }
    visible_line(&line).into_owned()
}

fn trace_lines(out: &mut String, trace: &TraceReport, width: usize, all: bool) {
    let ink = ink(trace.verdict);
    let title = format!(
        "{} → {} port {} by {}: ",
        trace.from,
        trace.to,
        port(&format!("{}/{}", trace.port, trace.protocol)),
        trace.interface
    );
    let title = visible_line(&title);
    let _ = writeln!(out, "{BOLD}{title}{BOLD:#}{ink}{}{ink:#}", trace.verdict.as_str());
    let mut at: Option<(&str, &PlaceReport)> = None;
    for step in trace.steps.iter().filter(|s| all || s.matched) {
        let base = |p: &PlaceReport| (p.hook, p.family.clone(), p.table.clone(), p.base.clone(), p.language);
        if at.is_none_or(|(packet, _)| packet != step.packet) {
            let what = match step.packet {
                "answer" => "the answer",
                "after" => "what follows",
                "data" => "what the server sends then",
                _ => "the request",
            };
            let _ = writeln!(out, "  {what}");
        }
        if at.is_none_or(|(packet, p)| packet != step.packet || base(p) != base(&step.place)) {
            let p = &step.place;
            let mark = if p.language == "nftables" { "" } else { p.language };
            let mark = if mark.is_empty() { String::new() } else { format!(" ({mark})") };
            let _ = writeln!(
                out,
                "    {DIM}{}:{DIM:#} {}{mark}",
                p.hook,
                visible_line(&format!("{} {} {}", p.family, p.table, p.base))
            );
        }
        at = Some((step.packet, &step.place));
        step_line(out, step, width);
    }
}

fn step_line(out: &mut String, step: &StepReport, width: usize) {
    let indent = 6 + 2 * step.depth.min(12);
    let p = &step.place;
    let rule = match (p.position, &p.text) {
        (None, _) => format!("policy of {}", p.chain),
        (Some(n), Some(text)) => format!("{n}. {text}"),
        (Some(n), None) => format!("{n}. {}", p.comment.as_deref().unwrap_or("(rule)")),
    };
    let ink = if step.matched { Ink::new() } else { DIM };
    hanging(
        out,
        &format!("{}{ink}", " ".repeat(indent)),
        &" ".repeat(indent + 3),
        &format!("{}{ink:#}", visible_line(&format!("{rule} → {}", step.outcome))),
        width,
    );
}

#[cfg(test)]
#[path = "human_reach_tests.rs"]
mod tests;
