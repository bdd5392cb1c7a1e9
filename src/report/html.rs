//! `edgeallow doctor --report`: one page to send to a hoster, with nothing in it that is fetched from elsewhere.
//!
//! Belongs here: layout for a browser, light and dark, narrow and wide, and on paper. Does not: facts, all of which are in
//! the [`DoctorReport`]; escaping, which is maud's.

use std::cmp::Reverse;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{DoctorReport, Evidence, Finding, Finds, Fix, Room};

const STYLE: &str = include_str!("html.css");

/// Evidence longer than this is folded away.
const FOLDED: usize = 1200;
/// More than this in a room that is well is folded away.
const MOST_OK: usize = 3;

/// The page.
#[must_use]
pub fn page(report: &DoctorReport, at: Timestamp) -> String {
    let title = match report.hosts.as_slice() {
        [] => "A web server behind Cloudflare".to_owned(),
        hosts => format!("{} behind Cloudflare", hosts.join(", ")),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // What others may have put into a log or a comment can't make a browser fetch or run anything.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="robots" content="noindex";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header {
                        h1 { (title) }
                        p.about { (about(report, at)) }
                    }
                    (conclusion(report))
                    @for room in Room::ALL {
                        @let found: Vec<&Finding> = report.findings.iter().filter(|f| f.room == room).collect();
                        @if !found.is_empty() {
                            section {
                                h2 { (room.as_str()) }
                                (findings(found))
                            }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn about(report: &DoctorReport, at: Timestamp) -> String {
    let ports: Vec<String> = report.ports.iter().map(u16::to_string).collect();
    let origins = if report.origins.is_empty() { "no address".to_owned() } else { report.origins.join(", ") };
    format!(
        "What makes Cloudflare answer with an error here, and what doesn't. Looked at on {} (UTC) by edgeallow {}: \
         {origins}; ports {}; encryption mode {}.",
        at.strftime("%Y-%m-%d %H:%M"),
        env!("CARGO_PKG_VERSION"),
        ports.join(", "),
        report.mode
    )
}

fn conclusion(report: &DoctorReport) -> Markup {
    let conclusion = &report.conclusion;
    html! {
        div class=(format!("conclusion {}", conclusion.verdict.as_str())) {
            p { (words(&conclusion.text)) }
            @if let Some(next) = &conclusion.next {
                p.about { "Run next:" }
                pre { (next) }
            }
        }
    }
}

/// Those of one room, the worst first.
fn findings(mut found: Vec<&Finding>) -> Markup {
    found.sort_by_key(|f| Reverse(f.verdict));
    let well = found.partition_point(|f| f.verdict > Finds::Ok);
    let (rest, well) = found.split_at(well);
    html! {
        @for finding in rest { (one(finding)) }
        @if well.len() > MOST_OK {
            details.well {
                summary { span.verdict { "ok" } " " (well.len()) " more, all well" }
                @for finding in well { (one(finding)) }
            }
        } @else {
            @for finding in well { (one(finding)) }
        }
    }
}

fn one(f: &Finding) -> Markup {
    let calm = f.verdict <= Finds::Note;
    html! {
        article data-id=(f.id) class=(f.verdict.as_str()) {
            p.verdict { (f.verdict.as_str()) }
            p {
                (words(&f.text))
                @for error in &f.cloudflare_errors { " " span.errors { "Error " (error) } }
            }
            @if !f.evidence.is_empty() {
                @if calm || length(&f.evidence) > FOLDED {
                    details { summary { "What was looked at" } (evidence(&f.evidence)) }
                } @else {
                    (evidence(&f.evidence))
                }
            }
            @if let Some(fix) = &f.fix { (mend(fix, f.verdict)) }
        }
    }
}

fn length(evidence: &[Evidence]) -> usize {
    evidence.iter().map(|e| e.shows.len()).sum()
}

fn evidence(evidence: &[Evidence]) -> Markup {
    html! {
        dl {
            @for e in evidence {
                dt { (e.source) }
                @if !e.shows.is_empty() { dd { pre { (e.shows) } } }
            }
        }
    }
}

fn mend(fix: &Fix, verdict: Finds) -> Markup {
    let what = if verdict >= Finds::Warning { "To fix it: " } else { "To change it: " };
    html! {
        dl.fix {
            dt { (what) (words(&fix.text)) }
            @if let Some(command) = &fix.command { dd { pre { (command) } } }
        }
    }
}

/// A sentence in which names and commands stand between backticks.
fn words(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Conclusion;

    #[test]
    fn the_page_is_whole_and_what_others_wrote_is_text_in_it() {
        let finding = Finding::new(Room::Logs, "logs.denied", Finds::Cause, "denied <script>alert(1)</script>")
            .seen("/var/log/x", "\"><img src=http://evil.example/x>")
            .gives(&[521])
            .mend_by("take it out & reload", "rm '<x>'");
        let report = DoctorReport {
            conclusion: Conclusion {
                verdict: Finds::Cause,
                text: "Most likely: x".into(),
                finding: Some("logs.denied"),
                next: Some("rm '<x>'".into()),
            },
            mode: "full",
            hosts: vec!["shop.example".into()],
            origins: vec!["192.0.2.1".into()],
            ports: vec![80, 443],
            findings: vec![finding],
        };
        let page = page(&report, Timestamp::UNIX_EPOCH);
        assert!(
            page.contains("&lt;script&gt;") && page.contains("Error 521") && page.contains("take it out &amp; reload")
        );
        for foreign in ["<script", "<img", "src=\"", "href=", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign} in {page}");
        }
    }

    #[test]
    fn what_is_wrong_is_open_and_comes_first_and_much_that_is_well_is_folded() {
        let mut all: Vec<Finding> =
            ["a", "b", "c", "d"].map(|text| Finding::new(Room::Logs, "logs.read", Finds::Ok, text)).into();
        all.push(Finding::new(Room::Logs, "logs.x", Finds::Warning, "wrong").seen("file", "line"));
        let room = |all: &[Finding]| findings(all.iter().collect()).into_string();
        let page = room(&all);
        assert!(
            page.starts_with("<article data-id=\"logs.x\" class=\"warning\">") && !page.contains("What was"),
            "{page}"
        );
        assert!(page.contains(" 4 more, all well"), "{page}");
        assert!(!room(&all[1..]).contains("all well"));
        assert_eq!(words("let `a < b` be").into_string(), "let <code>a &lt; b</code> be");
    }
}
