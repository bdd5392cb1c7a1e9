//! `edgeallow doctor` in words: the conclusion first, then room by room.

use super::{BOLD, DIM, GREEN, Ink, RED, YELLOW, hanging, sentence, visible, visible_line, wrapped};
use crate::report::{DoctorReport, Finding, Finds, Room};

/// Where the text of a finding begins.
const INDENT: &str = "          ";

pub(super) fn lines(out: &mut String, report: &DoctorReport, width: usize, verbose: bool) {
    wrapped(out, "", &visible(&report.conclusion.text), width);
    if let Some(next) = &report.conclusion.next {
        hanging(out, &format!("  {BOLD}run{BOLD:#}  "), "       ", &visible_line(next), usize::MAX);
    }
    for room in Room::ALL {
        let found: Vec<&Finding> = report.findings.iter().filter(|f| f.room == room).collect();
        if found.is_empty() {
            continue;
        }
        out.push('\n');
        wrapped(out, "", &format!("{BOLD}{}{BOLD:#}", room.as_str()), usize::MAX);
        for finding in found {
            one(out, finding, width, verbose);
        }
    }
}

fn one(out: &mut String, f: &Finding, width: usize, verbose: bool) {
    let ink = match f.verdict {
        Finds::Ok => GREEN,
        Finds::Note | Finds::Skipped => DIM,
        Finds::Warning => YELLOW,
        Finds::Cause => RED.bold(),
    };
    let errors: Vec<String> = f.cloudflare_errors.iter().map(u16::to_string).collect();
    let errors = if errors.is_empty() { String::new() } else { format!(" [{}]", errors.join(", ")) };
    let head = head(f.verdict.as_str(), ink);
    hanging(out, &head, INDENT, &sentence(&format!("{}{errors}", f.text)), width);
    if f.verdict <= Finds::Note && !verbose {
        return;
    }
    for e in &f.evidence {
        let shows = visible(&e.shows);
        let text = if shows.is_empty() { e.source.clone() } else { format!("{}: {shows}", e.source) };
        hanging(out, &head_of("seen"), INDENT, &text, width);
    }
    if let Some(fix) = &f.fix {
        hanging(out, &head_of("mend"), INDENT, &sentence(&fix.text), width);
        if let Some(command) = &fix.command {
            hanging(out, INDENT, INDENT, &visible_line(command), usize::MAX);
        }
    }
}

fn head(word: &str, ink: Ink) -> String {
    format!("  {ink}{word:<8}{ink:#}")
}

fn head_of(word: &str) -> String {
    format!("    {DIM}{word:<6}{DIM:#}")
}
