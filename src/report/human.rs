//! A report in words, for 80 columns, a pipe, or a mail from cron.
//!
//! Belongs here: sentences, layout, colours. Does not: facts, all of which are in the [`Report`].

use std::{borrow::Cow, fmt::Write as _};

use anstyle::{AnsiColor, Style as Ink};

use super::BackendRow;
use super::{BackendReport, BackendState, ChangeReport, ErrorReport, Finds, ListReport, Report, SourceReport};
use crate::{backends::Warning, engine::sync::NOTHING_APPLIED, error::ErrorKind};

#[path = "human_doctor.rs"]
mod doctor;
#[path = "human_reach.rs"]
mod reach;
#[path = "human_watch.rs"]
mod watch;

pub(crate) use reach::in_a_line;

const BOLD: Ink = Ink::new().bold();
const DIM: Ink = Ink::new().dimmed();
const GREEN: Ink = AnsiColor::Green.on_default();
const RED: Ink = AnsiColor::Red.on_default();
const YELLOW: Ink = AnsiColor::Yellow.on_default();

/// How many prefixes or lines of a change are shown before "and N more".
const MOST_LINES: usize = 60;

/// How to lay it out.
#[derive(Debug, Clone, Copy)]
pub struct Style<'a> {
    /// Columns; `usize::MAX` in a pipe.
    pub width: usize,
    /// Only what changed or needs attention.
    pub quiet: bool,
    /// Warnings that are no reason to speak, by their ids.
    pub acknowledged: &'a [String],
    /// Also what is of interest only when something is looked for: the rules of a trace that don't match.
    pub verbose: bool,
}

/// The report for standard output, and what goes to standard error.
#[must_use]
pub fn render(report: &Report, style: &Style<'_>) -> (String, String) {
    let mut out = String::new();
    // That nothing is applied is told to those who restore, and most often it is as they left it.
    let known = |id: &str| id == NOTHING_APPLIED || style.acknowledged.iter().any(|a| a == id);
    let calm = report.warnings.iter().all(|w| known(&w.id))
        && report.error.is_none()
        && report.doctor.as_ref().is_none_or(|found| found.findings.iter().all(|f| f.verdict < Finds::Warning))
        && !report.changed
        && report.exit as u8 == 0;
    if !(style.quiet && calm) {
        // One line says all when all is well.
        let proven =
            matches!(report.command, "doctor" | "watch") || report.command == "verify" && report.exit as u8 == 0;
        if let Some(source) = report.source.as_ref().filter(|_| !proven) {
            wrapped(&mut out, "", &visible(&source_line(source)), style.width);
        }
        if let Some(list) = &report.list {
            list_lines(&mut out, list, style.width);
        }
        if report.watch.is_none() {
            backend_lines(&mut out, report, style.width);
        }
        // A watch tells of it only what its pages have to do with.
        let told = |r: &&super::ReachReport| report.watch.is_none() || r.verdict == super::ReachVerdict::Refused;
        if let Some(reach) = report.reach.as_ref().filter(told) {
            reach::lines(&mut out, reach, style.width, style.verbose);
        }
        for warning in &report.warnings {
            warning_lines(&mut out, warning, style.width);
        }
        if let Some(watch) = &report.watch {
            watch::lines(&mut out, watch, style.width, style.verbose);
        }
        if let Some(found) = &report.doctor {
            doctor::lines(&mut out, found, style);
        }
        wrapped(&mut out, "", &verdict(report), style.width);
    }
    let err = report.error.as_ref().map(|e| error(e, style.width)).unwrap_or_default();
    (out, err)
}

/// An error with its hint.
#[must_use]
pub fn error(e: &ErrorReport, width: usize) -> String {
    let mut text = String::new();
    let mark = format!("{}error:{} ", RED.bold(), RED.bold().render_reset());
    hanging(&mut text, &mark, "  ", &sentence(&e.message), width);
    if let Some(hint) = &e.hint {
        let mark = format!("  {BOLD}hint:{BOLD:#} ");
        hanging(&mut text, &mark, "        ", &sentence(hint), width);
    }
    text
}

/// `edgeallow backends`
#[must_use]
pub fn backends(rows: &[BackendRow], width: usize) -> String {
    let mut out = String::new();
    for row in rows {
        let (ink, word) = match (row.used, row.state) {
            (true, _) => (GREEN, "used"),
            (false, "unusable") => (RED, "unusable"),
            (false, "absent") => (DIM, "absent"),
            (false, _) => (DIM, "not used"),
        };
        let version = row.version.as_ref().map_or_else(String::new, |v| format!("{v}: "));
        let head = format!("{BOLD}{:<12}{BOLD:#}{ink}{word:<10}{ink:#}", row.name);
        hanging(&mut out, &head, &" ".repeat(22), &visible(&format!("{version}{}", row.reason)), width);
    }
    out
}

fn source_line(s: &SourceReport) -> String {
    let at = s.fetched_at.map(|t| t.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
    let origin = match s.origin.as_str() {
        "api" => "from Cloudflare's API".to_owned(),
        "text" => "from Cloudflare's text lists".to_owned(),
        "cache" => format!("from the last good copy of {at}"),
        "built-in" => format!("built in, as of {at}"),
        _ => format!("from {}", s.name),
    };
    format!("List: {} IPv4 and {} IPv6 prefixes, {origin}", s.v4, s.v6)
}

fn list_lines(out: &mut String, list: &ListReport, width: usize) {
    for (nets, sign, ink) in [(&list.added, '+', GREEN), (&list.removed, '-', RED)] {
        if nets.is_empty() {
            continue;
        }
        let more = nets.len().saturating_sub(MOST_LINES);
        let mut text = nets[..nets.len() - more].join(" ");
        if more > 0 {
            let _ = write!(text, " and {more} more");
        }
        hanging(out, &format!("  {ink}{sign}{ink:#} "), "    ", &text, width);
    }
}

fn backend_lines(out: &mut String, report: &Report, width: usize) {
    for backend in &report.backends {
        if backend.state == BackendState::Skipped && report.command != "status" {
            continue;
        }
        let ink = match backend.state {
            BackendState::InSync | BackendState::Applied | BackendState::Removed => GREEN,
            BackendState::Planned | BackendState::Pending => YELLOW,
            BackendState::Skipped => DIM,
            BackendState::Undone | BackendState::Unusable | BackendState::Failed => RED,
        };
        let detail = visible(&detail(backend, report)).into_owned();
        // No blanks at the end of a line.
        let pad = if detail.is_empty() { 0 } else { 10 };
        let head = format!("{BOLD}{:<12}{BOLD:#}{ink}{:<pad$}{ink:#}", backend.name, backend.state.as_str());
        hanging(out, &head, &" ".repeat(22), &detail, width);
        if let Some(e) = &backend.error {
            for line in error(e, width.saturating_sub(2).max(20)).lines() {
                let _ = writeln!(out, "  {line}");
            }
        }
        for change in &backend.changes {
            if report.dry_run {
                change_lines(out, change, width);
            } else {
                hanging(out, "  - ", "    ", &visible(&done(change)), width);
            }
        }
    }
}

fn detail(backend: &BackendReport, report: &Report) -> String {
    match backend.state {
        BackendState::Planned | BackendState::Applied | BackendState::Removed => count(backend.changes.len(), "change"),
        BackendState::InSync if report.command == "remove" => "nothing of edgeallow's is here".to_owned(),
        BackendState::InSync => match backend.verified {
            Some(crate::backends::Verified::Count) => "checked by its rules and the number of elements".to_owned(),
            Some(crate::backends::Verified::Sample) => "checked by its rules and a sample of the elements".to_owned(),
            _ => backend.reason.clone().unwrap_or_default(),
        },
        BackendState::Pending | BackendState::Skipped => backend.reason.clone().unwrap_or_default(),
        BackendState::Undone => "it failed, and the machine is as it was".to_owned(),
        BackendState::Unusable | BackendState::Failed => String::new(),
    }
}

/// What was done and why, in a line: the command where it is short enough to say what "it" is.
fn done(change: &ChangeReport) -> String {
    if change.preview.contains('\n') || change.preview.len() > 72 {
        return change.why.clone();
    }
    format!("{}: {}", change.preview, change.why)
}

fn change_lines(out: &mut String, change: &ChangeReport, width: usize) {
    let _ = writeln!(out);
    for reason in change.why.split("; ") {
        hanging(out, "  # ", "  # ", &visible(reason), width);
    }
    let lines: Vec<&str> = change.preview.lines().collect();
    limited(out, &lines, |out, line| {
        let ink = if takes_away(line) { RED } else { GREEN };
        let _ = writeln!(out, "  {ink}{}{ink:#}", visible_line(line));
    });
    let lines: Vec<&str> = change
        .diff
        .as_deref()
        .unwrap_or_default()
        .lines()
        .filter(|l| !l.starts_with("---") && !l.starts_with("+++"))
        .collect();
    limited(out, &lines, |out, line| {
        let ink = match line.as_bytes().first() {
            Some(b'+') => GREEN,
            Some(b'-') if !line.starts_with("-A ") && !line.starts_with("-I ") => RED,
            Some(b'@') => DIM,
            _ => Ink::new(),
        };
        let _ = writeln!(out, "    {ink}{}{ink:#}", visible_line(line));
    });
}

fn limited(out: &mut String, lines: &[&str], show: impl Fn(&mut String, &str)) {
    let more = lines.len().saturating_sub(MOST_LINES);
    // One line more costs as much as saying that it is left out.
    let more = if more <= 1 { 0 } else { more };
    for line in &lines[..lines.len() - more] {
        show(out, line);
    }
    if more > 0 {
        let _ = writeln!(out, "    {DIM}… {more} more lines{DIM:#}");
    }
}

fn takes_away(command: &str) -> bool {
    ["nft delete", "nft flush", "rm ", "rmdir "].iter().any(|word| command.starts_with(word))
}

fn warning_lines(out: &mut String, warning: &Warning, width: usize) {
    let mark = format!("{}warning:{} ", YELLOW.bold(), YELLOW.bold().render_reset());
    hanging(out, &mark, "  ", &format!("{} [{}]", sentence(&warning.message), warning.id), width);
}

fn verdict(report: &Report) -> String {
    if matches!(report.command, "verify" | "doctor" | "watch") {
        return String::new();
    }
    // A restore goes on without the configuration.
    let ended_by = report.error.as_ref().filter(|e| e.kind != ErrorKind::Config.as_str());
    if report.error.is_some() && !report.changed {
        return "Nothing was changed.".to_owned();
    }
    let failed = report
        .backends
        .iter()
        .filter(|b| {
            // What is live and not stored has an error, whatever its state.
            b.error.is_some() || matches!(b.state, BackendState::Failed | BackendState::Undone | BackendState::Unusable)
        })
        .count();
    let changes: usize = report.backends.iter().filter(|b| b.changed).map(|b| b.changes.len()).sum();
    let mut text = match (report.changed, report.dry_run) {
        (true, true) if report.command == "status" => {
            format!("Out of sync: {}. `edgeallow sync` makes them.", count(changes, "change"))
        }
        (true, true) => format!("Nothing was changed. A run would make {}.", count(changes, "change")),
        // What comes after the changes is remembering them.
        (true, false) if ended_by.is_some() => {
            format!("{} made and confirmed, and not remembered.", count(changes, "change"))
        }
        (true, false) => format!("Done: {} made and confirmed.", count(changes, "change")),
        (false, _) if failed > 0 => String::new(),
        (false, _) if report.command == "remove" => "Nothing to remove.".to_owned(),
        (false, _) if report.command == "status" => "In sync.".to_owned(),
        (false, _) => "Nothing to change.".to_owned(),
    };
    if failed > 0 {
        let _ = write!(text, "{}{} failed.", if text.is_empty() { "" } else { " " }, count(failed, "backend"));
    }
    text
}

fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Text of others (a rule's comment, a name, what a program said) with whatever could steer a terminal written out:
/// `\x1b`. Lines stay lines.
fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n' || c == '\t')
}

/// The same for what has to be one line.
fn visible_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\t')
}

fn escaped(text: &str, harmless: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Those that turn the direction of writing show a text that isn't there, too.
    let steers =
        |c: char| (c.is_control() && !harmless(c)) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(steers) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' if steers(c) => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if steers(c) && u32::from(c) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if steers(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.into()
}

/// With a full stop at the end, whatever stood there.
fn sentence(text: &str) -> String {
    let text = visible(text.trim_end());
    if text.ends_with(['.', '?', '!']) { text.into_owned() } else { format!("{text}.") }
}

fn wrapped(out: &mut String, indent: &str, text: &str, width: usize) {
    if text.is_empty() {
        return;
    }
    hanging(out, indent, indent, text, width);
}

/// A head on the first line, an indent on the others. Colours in the head don't count as columns.
fn hanging(out: &mut String, head: &str, indent: &str, text: &str, width: usize) {
    let plain = anstream::adapter::strip_str(head).to_string();
    let first = " ".repeat(plain.chars().count());
    let options = textwrap::Options::new(width.min(usize::from(u16::MAX)))
        .initial_indent(&first)
        .subsequent_indent(indent)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .break_words(false);
    let lines = if width == usize::MAX {
        vec![std::borrow::Cow::from(format!("{first}{text}"))]
    } else {
        textwrap::wrap(text, options)
    };
    for (n, line) in lines.iter().enumerate() {
        match line.strip_prefix(first.as_str()) {
            Some(rest) if n == 0 => {
                let _ = writeln!(out, "{}", format!("{head}{rest}").trim_end());
            }
            // textwrap drops an indent before nothing.
            _ if n == 0 => {
                let _ = writeln!(out, "{}", format!("{head}{line}").trim_end());
            }
            _ => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
}

#[cfg(test)]
#[path = "human_tests.rs"]
mod tests;
