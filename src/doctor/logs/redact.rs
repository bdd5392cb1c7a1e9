//! What may be shown of a line: who, when, which path, by which rule. Never a query, a cookie, a header or a password,
//! for a report is sent to others.
//!
//! Belongs here: cutting. Does not: what the line means ([`super::line`]).

use std::net::IpAddr;

use super::{line::tag, symptom::Kind};

/// How many characters of a line are shown.
const SHOWN: usize = 280;
/// How many bytes of a line are looked at for that.
const LOOKED_AT: usize = 2048;

/// The line as an example of its kind.
pub(super) fn example(kind: Kind, line: &str) -> String {
    let kept = match kind {
        // What was matched is the visitor's own words, be it a password.
        Kind::ModSecurity => modsecurity(line),
        Kind::Unanswered => access(line),
        Kind::IisDenies => iis(line),
        Kind::OpenFiles => open_files(line).to_owned(),
        _ => [", referer: ", ", referrer: ", ", upstream: "]
            .iter()
            .fold(line, |kept, word| kept.split(word).next().unwrap_or(kept))
            .to_owned(),
    };
    let kept = without_queries(&without_logins(&without_headers(beginning(&kept))));
    // A packet's fields are the kernel's own words.
    let kept = if kind == Kind::Packets { kept } else { without_values(&kept) };
    let kept: String = kept.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match kept.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &kept[..end]),
        None => kept,
    }
}

/// As much as is looked at, in whole words: one that is cut off may be a secret that no longer looks like one.
fn beginning(text: &str) -> &str {
    if text.len() <= LOOKED_AT {
        return text;
    }
    let end = (0..=LOOKED_AT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let cut = &text[..end];
    cut.rfind(char::is_whitespace).map_or("", |end| &cut[..end])
}

/// What a header is called that holds a secret, or a part of its name.
const HEADERS: [&str; 7] = ["cookie", "authorization", "token", "secret", "api-key", "password", "passwd"];

/// Without the values of such headers: up to the quotation mark that ends the text they stand in, else to the end of the
/// line.
fn without_headers(text: &str) -> String {
    let small = text.to_ascii_lowercase();
    let value_after = |name_end: usize| {
        let rest = &small[name_end..];
        let rest = rest.strip_prefix('s').unwrap_or(rest).trim_start_matches(['"', '\'', ' ']);
        let value = rest.strip_prefix([':', '='])?.trim_start();
        Some(small.len() - value.len())
    };
    // Those that no backslash stands before.
    let quotes = || text.match_indices('"').map(|(at, _)| at).filter(|at| !text[..*at].ends_with('\\'));
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    let next = |from: usize| {
        let names = HEADERS.iter().flat_map(|name| small[from..].match_indices(name).map(|(at, n)| at + n.len()));
        names.filter_map(|end| value_after(from + end)).min()
    };
    while let Some(value) = next(from) {
        out.push_str(&text[from..value]);
        out.push('…');
        let quoted = quotes().filter(|at| *at < value).count() % 2 == 1;
        from = quotes().find(|at| quoted && *at >= value).unwrap_or(text.len());
    }
    out.push_str(&text[from..]);
    out
}

/// Without who logs in by an address: `https://user:password@host`, `user:password@host`.
fn without_logins(text: &str) -> String {
    // Where the login begins that ends here.
    let login = |before: &str| match before.rfind("//") {
        Some(at) if !before[at + 2..].contains(['/', '#']) => Some(at + 2),
        _ => {
            let start = before.rfind(['/', '=', '[', '(', '<']).map_or(0, |at| at + 1);
            before[start..].contains(':').then_some(start)
        }
    };
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| c.is_whitespace() || c == '"') {
        let mut shown = 0;
        for (at, _) in word.match_indices('@') {
            let Some(start) = login(&word[..at]) else { continue };
            if start >= shown {
                out.push_str(&word[shown..start]);
                out.push('…');
            }
            shown = at;
        }
        out.push_str(&word[shown..]);
    }
    out
}

/// Without what stands between a question mark, written plainly or not, and the next quotation mark.
fn without_queries(text: &str) -> String {
    let small = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    while let Some(at) = ["?", "%3f"].iter().filter_map(|mark| small[from..].find(mark)).min() {
        let at = from + at;
        out.push_str(&text[from..at]);
        out.push_str("?…");
        from = text[at..].find('"').map_or(text.len(), |end| at + end);
    }
    out.push_str(&text[from..]);
    out
}

/// Without what follows an equals sign: `;jsessionid=…`, `sid="…"`.
fn without_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, value)) = rest.split_once('=') {
        let plain = value.trim_start();
        let end = match plain.strip_prefix('"') {
            Some(quoted) => quoted.find('"').map_or(plain.len(), |end| end + 2),
            None => plain.find(|c: char| c.is_whitespace() || "\";&".contains(c)).unwrap_or(plain.len()),
        };
        // What separates it from the next part.
        let hidden = plain[..end].trim_end_matches(',');
        out.push_str(before);
        out.push_str(if hidden.is_empty() { "=" } else { "=…" });
        rest = &plain[hidden.len()..];
    }
    out.push_str(rest);
    out
}

/// Up to the system's word: what the client sent comes after it.
fn open_files(line: &str) -> &str {
    let Some((_, after)) = line.split_once("oo many open files") else { return line };
    let bracket = usize::from(after.starts_with(')'));
    &line[..line.len() - after.len() + bracket]
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

/// Times, addresses, numbers, the method and the path; not the query, which follows the path, and no names, cookies,
/// browsers or referrers.
fn iis(line: &str) -> String {
    let mut after_path = false;
    let plain = |word: &&str| {
        let is_path = word.starts_with('/');
        let is_query = std::mem::replace(&mut after_path, is_path);
        let is_number = word.bytes().all(|b| b.is_ascii_digit() || b"-:.".contains(&b));
        let is_method = word.len() < 9 && word.bytes().all(|b| b.is_ascii_uppercase());
        let shown = is_path && !word.contains(['=', '%', '+', '(']);
        !is_query && (shown || is_number || is_method || word.parse::<IpAddr>().is_ok())
    };
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
                Kind::IisDenies,
                "2026-11-22 18:00:00 10.0.0.1 GET /in SECRET 443 EXAMPLE\\SECRET 173.245.48.29 SECRET/1.0 - 403 6 0 1",
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
        assert!(example(Kind::Bans, &"é ".repeat(3000)).chars().count() <= SHOWN + 1);
        let cut = format!("a \"/{}\" https://u:{}@a/", "?".repeat(LOOKED_AT - 40), "S3".repeat(40));
        assert_eq!(example(Kind::NginxDenies, &cut), "a \"/?…\"");
    }

    #[test]
    fn secrets_are_left_out_wherever_a_line_has_them() {
        let plain = |what: &str| format!("2026/11/22 18:00:00 [error] 1#1: *2 access forbidden by rule, {what}");
        for (line, shown) in [
            (
                r#"request: "GET https://bob:S3@a/x HTTP/1.1", host: "a""#,
                r#"request: "GET https://…@a/x HTTP/1.1", host: "a""#,
            ),
            (
                r#"request: "GET https://S3@a/b@2x.png", host: "a@b""#,
                r#"request: "GET https://…@a/b@2x.png", host: "a@b""#,
            ),
            (r#""CONNECT bob:S3@a:443 HTTP/1.1""#, r#""CONNECT …@a:443 HTTP/1.1""#),
            ("x:http://u:S3@S3@127.0.0.1/x?y=S3, z", "x:http://…@127.0.0.1/x?…"),
            ("/go/http://u:S3,S3@a/http://v:S3@b", "/go/http://…@a/http://…@b"),
            (r#""GET /a;jsessionid=S3;v=S3/b HTTP/1.1", x"#, r#""GET /a;jsessionid=…;v=… HTTP/1.1", x"#),
            (r#""GET /a%3Fpw=S3&x=1#S3 HTTP/1.1", x"#, r#""GET /a?…", x"#),
            (r#"Cookie: sid=S3; Authorization: Basic S3, host: "a""#, "Cookie: …"),
            (r#""set-cookie: sid=S3; S3" "Mozilla""#, r#""set-cookie: …" "Mozilla""#),
            (
                r#""Proxy-Authorization: Basic S3 S3" "AUTHORIZATION: S3" "m""#,
                r#""Proxy-Authorization: …" "AUTHORIZATION: …" "m""#,
            ),
            (r#"{"cookie":"a=\"S3\"; S3","x":"y"}"#, r#"{"cookie":…"#),
            (r#""Cookie: a=\"S3\"; S3" "m""#, r#""Cookie: …" "m""#),
            ("cookie=S3 S3", "cookie=…"),
            ("X-Api-Key: S3 S3", "X-Api-Key: …"),
            (r#"sid = S3, sid="S3 S3" pw=S3, host: "a""#, r#"sid =…, sid=… pw=…, host: "a""#),
            ("=", "="),
        ] {
            assert_eq!(example(Kind::NginxDenies, &plain(line)), plain(shown), "{line}");
        }
        let packet = "Nov 22 18:00:00 web kernel: [UFW BLOCK] IN=eth0 OUT= SRC=173.245.48.29 DST=192.0.2.1 PROTO=TCP";
        assert_eq!(example(Kind::Packets, packet), packet);
    }

    #[test]
    fn what_is_shown_stands_in_the_log() {
        for line in [
            "Nov 22 18:00:00 host kernel: VFS: file-max limit 100000 reached",
            "2026/11/22 18:00:00 [crit] 1#1: accept4() failed (24: Too many open files)",
            "[Sun Nov 22 18:00:00.1 2026] [mpm_event:error] [pid 1] (24)Too many open files",
        ] {
            assert_eq!(example(Kind::OpenFiles, line), line);
            assert_eq!(example(Kind::FileMax, line), line);
        }
        let more = "1#1: *7 open() \"/x\" failed (24: Too many open files), client: 173.245.48.29, server: a";
        assert!(example(Kind::OpenFiles, more).ends_with("(24: Too many open files)"));
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
