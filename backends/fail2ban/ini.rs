//! The language of fail2ban's files: Python's ConfigParser with `;` for comments behind a value.
//!
//! Belongs here: one file's text into sections and values, and the substitution of `%(name)s`. Does not: which files
//! are read, and in which order ([`super::jails`]).
//!
//! The rules were read off Python's documentation of configparser and tried against fail2ban 1.0.2: names of options
//! are of no case, names of sections are; an indented line goes on; a file that isn't UTF-8 is skipped whole; a second
//! section of the same name, or text before the first, makes the whole configuration fail to load.

use std::collections::BTreeMap;

/// Options and their raw values: not yet substituted, lines joined by `\n`.
pub type Options = BTreeMap<String, String>;

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ini {
    /// `[DEFAULT]`
    pub defaults: Options,
    /// Every other section.
    pub sections: BTreeMap<String, Options>,
}

/// Reads a file.
///
/// # Errors
/// Why fail2ban would refuse to load it, with the line.
pub fn parse(text: &str) -> Result<Ini, String> {
    let mut ini = Ini::default();
    let mut section: Option<String> = None;
    let mut option: Option<String> = None;
    let mut indent = 0;
    for (number, line) in text.lines().enumerate() {
        let refused = |why: &str| Err(format!("line {}: {why}", number + 1));
        let (code, commented) = without_comment(line);
        let value = code.trim();
        let level = line.len() - line.trim_start().len();
        if value.is_empty() {
            if let (false, Some(open)) = (commented, open(&mut ini, section.as_deref(), option.as_deref())) {
                open.push('\n');
            }
            continue;
        }
        if level > indent
            && let Some(open) = open(&mut ini, section.as_deref(), option.as_deref())
        {
            open.push('\n');
            open.push_str(value);
            continue;
        }
        indent = level;
        if let Some(name) = header(value) {
            option = None;
            if name != "DEFAULT" && ini.sections.insert(name.to_owned(), Options::new()).is_some() {
                return refused("the section is there already");
            }
            section = Some(name.to_owned());
            continue;
        }
        if section.is_none() {
            return refused("there is no section yet");
        }
        let Some((name, value)) = value.split_once(['=', ':']) else {
            return refused("neither a section nor an option");
        };
        let name = name.trim_end().to_lowercase();
        let Some(options) = options(&mut ini, section.as_deref()) else { continue };
        if options.insert(name.clone(), value.trim().to_owned()).is_some() {
            return refused("the option is there already");
        }
        option = Some(name);
    }
    let all = ini.sections.values_mut().chain(std::iter::once(&mut ini.defaults));
    for value in all.flat_map(BTreeMap::values_mut) {
        value.truncate(value.trim_end().len());
    }
    Ok(ini)
}

/// The line up to a comment, and whether there was one.
fn without_comment(line: &str) -> (&str, bool) {
    if line.trim_start().starts_with('#') {
        return ("", true);
    }
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == ';' && before.is_whitespace() {
            return (&line[..at], true);
        }
        before = c;
    }
    (line, false)
}

fn header(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('[')?;
    let name = &inner[..inner.rfind(']')?];
    (!name.is_empty()).then_some(name)
}

fn options<'i>(ini: &'i mut Ini, section: Option<&str>) -> Option<&'i mut Options> {
    match section? {
        "DEFAULT" => Some(&mut ini.defaults),
        name => ini.sections.get_mut(name),
    }
}

/// The value that an indented line would go on with.
fn open<'i>(ini: &'i mut Ini, section: Option<&str>, option: Option<&str>) -> Option<&'i mut String> {
    options(ini, section)?.get_mut(option?)
}

/// Replaces every `%(name)s` by what `lookup` knows, as deep as ConfigParser goes; what it doesn't know stays.
#[must_use]
pub fn substitute(value: &str, lookup: &impl Fn(&str) -> Option<String>) -> String {
    deep(value, lookup, 10)
}

fn deep(value: &str, lookup: &impl Fn(&str) -> Option<String>, depth: u8) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find("%(") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = from.find(")s") else {
            rest = from;
            break;
        };
        match lookup(&from[2..end]) {
            Some(found) if depth > 0 => out.push_str(&deep(&found, lookup, depth - 1)),
            _ => out.push_str(&from[..end + 2]),
        }
        rest = &from[end + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn continuation_lines_comments_and_crlf() {
        let text = "# first\r\n[DEFAULT]\r\nBackend: polling ; inline\r\n\r\n[web]\r\nignoreip = 192.0.2.1\r\n  192.0.2.2, \
                    ; two\r\n  # between\r\n\r\n\thost.example;x\r\nenabled=true\r\n";
        let ini = parse(text).unwrap();
        assert_eq!(ini.defaults["backend"], "polling");
        let web = &ini.sections["web"];
        assert_eq!(web["ignoreip"], "192.0.2.1\n192.0.2.2,\n\nhost.example;x");
        assert_eq!(web["enabled"], "true");
    }

    #[test]
    fn what_fail2ban_refuses_is_refused() {
        for text in ["\u{feff}[DEFAULT]\n", "x = 1\n", "[a]\n[a]\n", "[a]\nx = 1\nx = 2\n", "[a]\nnothing\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse("[DEFAULT]\na=1\n[DEFAULT]\nb=2\n").is_ok());
    }

    #[test]
    fn substitution_stops_at_a_loop() {
        let know = |name: &str| match name {
            "a" => Some("1 %(b)s".to_owned()),
            "b" => Some("2".to_owned()),
            "loop" => Some("%(loop)s".to_owned()),
            _ => None,
        };
        assert_eq!(substitute("%(a)s, %(c)s %(", &know), "1 2, %(c)s %(");
        assert_eq!(substitute("%(loop)s", &know), "%(loop)s");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(\\[|\\]|=|;|#|%\\(|\\)s|[a-z]| |\\t|\\r|\\n|é){0,80}") {
            let _ = parse(&text);
            let _ = substitute(&text, &|_| Some(text.clone()).filter(|t| t.len() < 20));
        }
    }
}
