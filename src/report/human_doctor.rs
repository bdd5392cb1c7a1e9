//! `edgeallow doctor` in words: the conclusion first, then room by room.
//!
//! Who asks on a terminal wants the cause and not a list: so what is well takes a line or two a room, and notes as little
//! as they can. `-v` tells all of it.

use std::cmp::Reverse;

use super::{BOLD, DIM, GREEN, Ink, RED, Style, YELLOW, hanging, sentence, visible, visible_line, wrapped};
use crate::report::{DoctorReport, Evidence, Finding, Finds, Room};

/// Where the text of a finding begins.
const INDENT: &str = "          ";
/// More than this in a room that is well is told by names alone.
const MOST_OK: usize = 3;
/// More than this of one kind, where nothing is wrong with it, is counted.
const MOST_ALIKE: usize = 2;
/// So much evidence is shown of what is wrong: pieces, and characters of each.
const MOST_EVIDENCE: (usize, usize) = (3, 300);

pub(super) fn lines(out: &mut String, report: &DoctorReport, style: &Style<'_>) {
    let width = style.width;
    wrapped(out, "", &visible(&report.conclusion.text), width);
    if let Some(next) = &report.conclusion.next {
        out.push('\n');
        hanging(out, &format!("  {BOLD}run{BOLD:#}  "), "       ", &visible_line(next), usize::MAX);
    }
    for room in Room::ALL {
        let mut found: Vec<&Finding> = report.findings.iter().filter(|f| f.room == room).collect();
        if style.quiet {
            found.retain(|f| f.verdict >= Finds::Warning);
        }
        if found.is_empty() {
            continue;
        }
        found.sort_by_key(|f| Reverse(f.verdict));
        out.push('\n');
        wrapped(out, "", &format!("{BOLD}{}{BOLD:#}", room.as_str()), usize::MAX);
        if style.verbose {
            found.iter().for_each(|f| whole(out, f, width));
        } else {
            briefly(out, &found, width);
        }
    }
    if !style.verbose && !style.quiet {
        out.push('\n');
        let more = "With -v everything that was looked at; with --report FILE.html a page to send to your hoster.";
        hanging(out, "", "", more, width);
    }
}

/// One room; what is wrong comes first.
fn briefly(out: &mut String, found: &[&Finding], width: usize) {
    let ok = found.iter().filter(|f| f.verdict == Finds::Ok).count();
    for (n, f) in found.iter().enumerate() {
        match f.verdict {
            Finds::Cause | Finds::Warning => wrong(out, f, width),
            Finds::Ok if ok > MOST_OK => {
                names(out, &found[n..], width);
                break;
            }
            Finds::Ok => said(out, f, &f.text, width),
            Finds::Note | Finds::Skipped => {
                let like = |other: &&&Finding| (other.id, other.verdict) == (f.id, f.verdict);
                let (before, all) = (found[..n].iter().filter(like).count(), found.iter().filter(like).count());
                if all > MOST_ALIKE + 1 && before >= MOST_ALIKE {
                    if before == MOST_ALIKE {
                        said(out, f, &format!("and {} more of this kind", all - before), width);
                    }
                    continue;
                }
                said(out, f, &short(f, width.saturating_sub(INDENT.len())), width);
            }
        }
    }
}

/// What is well, by the names of what was looked at.
fn names(out: &mut String, well: &[&Finding], width: usize) {
    let mut names: Vec<String> = Vec::new();
    for f in well {
        let name = f.id.split_once('.').map_or(f.id, |(_, name)| name).replace('-', " ");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    hanging(out, &head(Finds::Ok), INDENT, &names.join(", "), width);
}

/// A note is cut where a clause ends if it doesn't fit into a line. Why something was skipped is told whole, and what to
/// do about it.
fn short(f: &Finding, width: usize) -> String {
    if f.verdict == Finds::Skipped {
        return match &f.fix {
            Some(fix) if !f.text.contains(&fix.text) => format!("{}; {}", f.text.trim_end_matches('.'), fix.text),
            _ => f.text.clone(),
        };
    }
    let text = f.text.as_str();
    if text.chars().count() < width {
        return text.to_owned();
    }
    let end = [". ", "; ", ": "].iter().filter_map(|mark| text.find(mark)).min();
    end.map_or_else(|| text.to_owned(), |end| format!("{} …", &text[..end]))
}

fn said(out: &mut String, f: &Finding, text: &str, width: usize) {
    let text = if text.ends_with('…') { visible(text).into_owned() } else { sentence(text) };
    hanging(out, &head(f.verdict), INDENT, &text, width);
}

/// A cause or a warning, with the first of its evidence.
fn wrong(out: &mut String, f: &Finding, width: usize) {
    let (pieces, characters) = MOST_EVIDENCE;
    said(out, f, &with_errors(f), width);
    for e in f.evidence.iter().take(pieces) {
        let text = evidence(e);
        let text = match text.char_indices().nth(characters) {
            Some((end, _)) => format!("{} …", &text[..end]),
            None => text,
        };
        hanging(out, &head_of("seen"), INDENT, &text, width);
    }
    fix(out, f, width);
}

/// All of it.
fn whole(out: &mut String, f: &Finding, width: usize) {
    said(out, f, &with_errors(f), width);
    for e in &f.evidence {
        hanging(out, &head_of("seen"), INDENT, &evidence(e), width);
    }
    fix(out, f, width);
}

fn with_errors(f: &Finding) -> String {
    match f.errors() {
        Some(errors) if !f.text.contains(&errors) => format!("{} ({errors})", f.text),
        _ => f.text.clone(),
    }
}

fn evidence(e: &Evidence) -> String {
    let (source, shows) = (visible_line(&e.source), visible(&e.shows));
    if shows.is_empty() { source.into_owned() } else { format!("{source}: {shows}") }
}

fn fix(out: &mut String, f: &Finding, width: usize) {
    let Some(fix) = &f.fix else { return };
    hanging(out, &head_of("fix"), INDENT, &sentence(&fix.text), width);
    if let Some(command) = &fix.command {
        hanging(out, INDENT, INDENT, &visible_line(command), usize::MAX);
    }
}

fn head(verdict: Finds) -> String {
    let ink = match verdict {
        Finds::Ok => GREEN,
        Finds::Note | Finds::Skipped => DIM,
        Finds::Warning => YELLOW,
        Finds::Cause => RED.bold(),
    };
    padded(verdict.as_str(), 2, ink)
}

fn head_of(word: &str) -> String {
    padded(word, 4, DIM)
}

fn padded(word: &str, indent: usize, ink: Ink) -> String {
    format!("{:indent$}{ink}{word}{ink:#}{:pad$}", "", "", pad = INDENT.len() - indent - word.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Conclusion;

    fn told(findings: Vec<Finding>, width: usize, verbose: bool, quiet: bool) -> String {
        let conclusion =
            Conclusion { verdict: Finds::Ok, text: "All is told.".into(), finding: None, next: Some("true".into()) };
        let report =
            DoctorReport { conclusion, mode: "full", hosts: vec![], origins: vec![], ports: vec![443], findings };
        let mut out = String::new();
        lines(&mut out, &report, &Style { width, quiet, verbose, acknowledged: &[] });
        anstream::adapter::strip_str(&out).to_string()
    }

    fn finding(id: &'static str, verdict: Finds, text: &str) -> Finding {
        Finding::new(Room::Resources, id, verdict, text)
    }

    fn room() -> Vec<Finding> {
        let mut all: Vec<Finding> = ["resources.load", "resources.file-max", "resources.drops", "resources.memory"]
            .map(|id| finding(id, Finds::Ok, "that is well").seen("/proc/x", "1"))
            .into();
        all.push(finding("resources.packages", Finds::Note, &format!("an outline: {}", "details ".repeat(12))));
        all.extend((0..5).map(|n| finding("resources.x", Finds::Skipped, &format!("no {n}")).mend("ask again")));
        let cause = finding("resources.full", Finds::Cause, "it is full").gives(&[521, 522]);
        all.push((0..5).fold(cause, |f, n| f.seen(format!("look {n}"), "x".repeat(500))).mend_by("empty it", "drain"));
        all
    }

    #[test]
    fn what_is_wrong_comes_first_and_what_is_well_in_a_line() {
        let text = told(room(), 80, false, false);
        assert!(
            text.starts_with("All is told.\n\n  run  true\n\nResources\n  cause   it is full (Error 521 or 522).\n")
        );
        for line in [
            "    fix   empty it.",
            "          drain",
            "  skipped no 1; ask again.",
            "  skipped and 3 more of this kind.",
            "  note    an outline …",
            "  ok      load, file max, drops, memory",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert_eq!(text.matches("seen").count(), 3, "{text}");
        assert!(!text.contains(&"x".repeat(300)) && !text.contains("/proc/x"), "{text}");
    }

    #[test]
    fn verbose_is_all_of_it_and_quiet_what_is_wrong() {
        let text = told(room(), usize::MAX, true, false);
        assert_eq!(text.matches("that is well.").count(), 4, "{text}");
        assert_eq!((text.matches("ask again.").count(), text.matches("    seen  ").count()), (5, 9), "{text}");
        assert!(text.contains(&"x".repeat(500)) && text.contains(&"details ".repeat(11)), "{text}");
        let text = told(room(), 80, false, true);
        assert!(text.contains("cause   it is full") && !text.contains("skipped") && !text.contains("ok  "), "{text}");
    }
}
