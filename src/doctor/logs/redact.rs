//! What may be shown of a line: who, when, which path, by which rule. Never a query, a cookie, a header or a password,
//! for a report is sent to others.
//!
//! Belongs here: cutting. Does not: what the line means ([`super::line`]).

use super::{line::tag, symptom::Kind};

/// How many characters of a line are shown.
const SHOWN: usize = 280;

/// The line as an example of its kind.
pub(super) fn example(kind: Kind, line: &str) -> String {
    let kept = match kind {
        // What was matched is the visitor's own words, be it a password.
        Kind::ModSecurity => modsecurity(line),
        Kind::Unanswered => access(line),
        Kind::IisDenies => iis(line),
        Kind::OpenFiles => line.split("oo many open files").next().unwrap_or("").to_owned() + "oo many open files",
        _ => [", referer: ", ", referrer: ", ", upstream: "]
            .iter()
            .fold(line, |kept, word| kept.split(word).next().unwrap_or(kept))
            .to_owned(),
    };
    let kept: String = without_query(&kept).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match kept.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &kept[..end]),
        None => kept,
    }
}

/// Without what stands between a question mark and the next quotation mark.
fn without_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, query)) = rest.split_once('?') {
        out.push_str(before);
        out.push_str("?…");
        rest = query.find('"').map_or("", |end| &query[end..]);
    }
    out.push_str(rest);
    out
}

/// Up to the code, then the tags that are the rule's own words.
fn modsecurity(line: &str) -> String {
    let Some((before, after)) = line.split_once("ModSecurity: Access denied") else { return String::new() };
    let how = after.split(['.', '[', '"']).next().unwrap_or("").trim_end();
    let value = |name: &str| Some(tag(line, name)?.split('?').next().unwrap_or(""));
    let tags: String =
        ["id", "msg", "uri"].iter().filter_map(|name| Some(format!(" [{name} \"{}\"]", value(name)?))).collect();
    format!("{before}ModSecurity: Access denied{how}{tags}")
}

/// Client, time, request, status; no user, referrer or browser.
fn access(line: &str) -> String {
    let parts = line.split_once(" [").and_then(|(who, rest)| {
        let (time, rest) = rest.split_once(']')?;
        let (request, rest) = rest.strip_prefix(" \"")?.split_once('"')?;
        let who: Vec<&str> = who.split(' ').take(2).filter(|w| *w != "-").collect();
        let status = rest.trim_start().split(' ').next()?;
        Some(format!("{} [{time}] \"{request}\" {status}", who.join(" ")))
    });
    parts.unwrap_or_default()
}

/// The line without what has an equals sign or a percent sign: queries, cookies, browsers, referrers.
fn iis(line: &str) -> String {
    let plain = |word: &&str| !word.contains(['=', '%', '+', '(', '?']) && !word.contains("://");
    line.split(' ').filter(plain).take(16).collect::<Vec<_>>().join(" ")
}

/// The Ray ID that ties a line to a visitor's error page: sixteen hexadecimal digits, a dash, and an airport.
pub(super) fn ray(line: &str) -> Option<&str> {
    let bytes = line.as_bytes();
    let part_of_word = |at: Option<usize>| at.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_alphanumeric);
    memchr::memchr_iter(b'-', bytes).find_map(|dash| {
        // Most dashes go no further.
        bytes.get(dash + 1).filter(|b| b.is_ascii_uppercase())?;
        let start = dash.checked_sub(16)?;
        let id = line.get(start..dash + 4)?;
        let hex = id.as_bytes()[..16].iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
        let airport = id.as_bytes()[17..].iter().all(u8::is_ascii_uppercase);
        let alone = !part_of_word(start.checked_sub(1)) && !part_of_word(Some(dash + 4));
        (hex && airport && alone).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let lines = [
            (
                Kind::NginxDenies,
                "2026/11/22 18:00:00 [error] 1#1: *2 access forbidden by rule, client: 173.245.48.29, server: a, \
                 request: \"GET /in?token=SECRET HTTP/1.1\", upstream: \"http://x/?SECRET\", host: \"a\", \
                 referrer: \"https://a/?SECRET\"",
            ),
            (
                Kind::ModSecurity,
                "[Sun Nov 22 18:00:00 2026] [:error] [client 173.245.48.29:5] ModSecurity: Access denied with code 403 \
                 (phase 2). Matched \"x\" at REQUEST_COOKIES:s (Value: `SECRET' ) [id \"942100\"] [msg \"SQL\"] \
                 [data \"SECRET\"] [uri \"/in?SECRET\"]",
            ),
            (
                Kind::Unanswered,
                "173.245.48.29 - SECRET [22/Nov/2026:18:00:00 +0000] \"GET /in?a=SECRET HTTP/1.1\" 444 0 \
                 \"http://SECRET\" \"SECRET\"",
            ),
            (
                Kind::IisDenies,
                "2026-11-22 18:00:00 10.0.0.1 GET /in token=SECRET 443 - 173.245.48.29 Moz+SECRET sid=SECRET 403 6 0 1",
            ),
            (
                Kind::OpenFiles,
                "2026/11/22 18:00:00 [crit] 1#1: accept4() failed (24: Too many open files), client: 1, request: \"SECRET\"",
            ),
        ];
        for (kind, line) in lines {
            let shown = example(kind, line);
            assert!(!shown.contains("SECRET"), "{shown}");
            assert!(shown.contains("18:00:00"), "{shown}");
        }
        let shown = example(lines[0].0, lines[0].1);
        assert!(shown.ends_with("request: \"GET /in?…\""), "{shown}");
        assert!(
            example(lines[1].0, lines[1].1).ends_with("(phase 2) [id \"942100\"] [msg \"SQL\"] [uri \"/in\"]"),
            "{}",
            example(lines[1].0, lines[1].1)
        );
        assert!(example(Kind::Bans, &"é".repeat(1000)).chars().count() <= SHOWN + 1);
    }

    #[test]
    fn a_ray_id_is_found_where_it_stands_alone() {
        assert_eq!(ray("x \"8d3f1c2b4a5e6f70-FRA\" y"), Some("8d3f1c2b4a5e6f70-FRA"));
        assert_eq!(ray("8d3f1c2b4a5e6f70-FRA"), Some("8d3f1c2b4a5e6f70-FRA"));
        for text in [
            "a8d3f1c2b4a5e6f70-FRA",
            "8d3f1c2b4a5e6f70-FRAU",
            "8d3f1c2b4a5e6f7-FRA",
            "8d3f1c2b4a5e6f70-fra",
            "-",
            "ü-FRA",
            "",
        ] {
            assert_eq!(ray(text), None, "{text}");
        }
    }
}
