//! Reachability in words: one line when all is well, else culprit by culprit, worst first; a trace rule by rule.

use std::fmt::Write as _;

use anstyle::Style as Ink;

use super::{BOLD, DIM, GREEN, MOST_LINES, RED, YELLOW, hanging, sentence, wrapped};
use crate::report::{CaughtReport, CulpritReport, PlaceReport, ReachReport, ReachVerdict, StepReport, TraceReport};

/// What is said about reachability. `steps` also shows the rules of a trace that don't match.
pub(super) fn lines(out: &mut String, reach: &ReachReport, width: usize, steps: bool) {
    for trace in &reach.traces {
        trace_lines(out, trace, width, steps);
    }
    match reach.verdict {
        ReachVerdict::Accepted if reach.traces.is_empty() => {
            let line = accepted(reach);
            wrapped(out, "", &format!("{GREEN}{}{GREEN:#}", line), width);
        }
        _ => {
            for (n, culprit) in reach.culprits.iter().enumerate() {
                if n > 0 || !reach.traces.is_empty() {
                    out.push('\n');
                }
                culprit_lines(out, culprit, width);
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

fn culprit_lines(out: &mut String, c: &CulpritReport, width: usize) {
    let ink = ink(c.verdict);
    let head = format!("{ink}{BOLD}{:<10}{BOLD:#}{ink:#}", c.verdict.as_str());
    hanging(out, &head, &" ".repeat(10), &sentence(&what(c)), width);
    for caught in &c.catches {
        caught_lines(out, caught, width);
    }
    if let Some(place) = &c.place {
        hanging(out, &label("rule"), &" ".repeat(10), &place_words(place), width);
        if let Some(text) = &place.text {
            // As the tool prints it: not broken, so that it can be searched for.
            let _ = writeln!(out, "          {DIM}{text}{DIM:#}");
        }
    }
    for (n, command) in c.mend.iter().enumerate() {
        let _ = writeln!(out, "{}{GREEN}{command}{GREEN:#}", label(if n == 0 { "mend" } else { "or" }));
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

fn caught_lines(out: &mut String, caught: &CaughtReport, width: usize) {
    let ports: Vec<String> = caught.ports.iter().map(|p| port(p)).collect();
    let shown = caught.ranges.len().min(MOST_LINES);
    let mut from = match (caught.all, caught.asked) {
        (true, 1) => "the range".to_owned(),
        (true, n) => format!("all {n} ranges"),
        (false, n) if !caught.except.is_empty() => format!("all {n} ranges but {}", caught.except.join(" ")),
        (false, _) => caught.ranges[..shown].join(" "),
    };
    if caught.ranges.len() > shown && caught.except.is_empty() {
        let _ = write!(from, " and {} more", caught.ranges.len() - shown);
    }
    hanging(out, &label("from"), &" ".repeat(10), &from, width);
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

fn trace_lines(out: &mut String, trace: &TraceReport, width: usize, all: bool) {
    let ink = ink(trace.verdict);
    let title = format!(
        "{} → {} port {} by {}: ",
        trace.from,
        trace.to,
        port(&format!("{}/{}", trace.port, trace.protocol)),
        trace.interface
    );
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
            let _ = writeln!(out, "    {DIM}{}:{DIM:#} {} {} {}{mark}", p.hook, p.family, p.table, p.base);
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
        &format!("{rule} → {}{ink:#}", step.outcome),
        width,
    );
}

#[cfg(test)]
#[path = "human_reach_tests.rs"]
mod tests;
