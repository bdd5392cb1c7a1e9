//! A round of `edgeallow watch` in words: what is news, then how each page is.

use super::{BOLD, DIM, GREEN, RED, YELLOW, hanging, sentence, visible};
use crate::report::{PageReport, PageState, WatchReport, WayReport};

/// Where the text of a page begins.
const INDENT: &str = "          ";

pub(super) fn lines(out: &mut String, report: &WatchReport, width: usize, verbose: bool) {
    for news in &report.news {
        hanging(out, "", "  ", &sentence(&news.text), width);
    }
    if report.acts {
        hanging(out, "", "  ", "The on-fail command was run.", width);
    }
    for page in &report.pages {
        let ink = match page.state {
            PageState::Well => GREEN,
            PageState::Failing => YELLOW,
            PageState::Down => RED.bold(),
            PageState::Unknown => DIM,
        };
        let head = format!("  {ink}{:<8}{ink:#}", page.state.as_str());
        let what = page.trouble.map_or_else(String::new, |t| format!(": {t}"));
        hanging(out, &head, INDENT, &visible(&format!("{}{what}", page.url)), width);
        if page.state != PageState::Well || verbose {
            ways(out, page, width);
        }
    }
}

fn ways(out: &mut String, page: &PageReport, width: usize) {
    let edge = if page.edge.cloudflare == Some(true) { "through Cloudflare" } else { "by its name" };
    way(out, edge, &page.edge, width);
    for origin in &page.origins {
        way(out, &format!("straight at {}", origin.address.as_deref().unwrap_or_default()), origin, width);
    }
}

fn way(out: &mut String, name: &str, way: &WayReport, width: usize) {
    let mut parts = Vec::new();
    parts.extend(way.status.map(|status| status.to_string()));
    parts.extend(way.detail.clone());
    if way.status.is_none() {
        parts.extend(way.cloudflare_error.map(|error| format!("which gives error {error}")));
    }
    hanging(out, &format!("{INDENT}{BOLD}{name}{BOLD:#}: "), INDENT, &visible(&parts.join(", ")), width);
}
