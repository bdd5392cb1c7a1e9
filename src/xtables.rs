//! The language that `iptables-save` writes and `iptables-restore` reads, word by word.
//!
//! Belongs here: kinds of line, splitting a line into words as iptables-restore does, quoting a word so that it comes back.
//! Does not: what the words mean, to a backend (`backends/iptables`, ufw, csf) or to a packet ([`crate::reach::xtables`]).
//!
//! The rules of quoting are iptables' own (`xtables_save_string` and `add_param_to_argv`): a double quote opens and
//! closes, a backslash escapes inside quotes only, a single quote is an ordinary character.

/// One line of a rules file or of `*-save`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// `*filter`
    Table(String),
    /// `COMMIT`
    Commit,
    /// `:INPUT DROP [0:0]`; the policy is `-` for a chain of the user's.
    Chain {
        /// Its name.
        name: String,
        /// `ACCEPT`, `DROP` or `-`.
        policy: String,
    },
    /// `-A INPUT …`: the words after the chain.
    Append {
        /// Which chain.
        chain: String,
        /// The rule.
        rule: Vec<String>,
    },
    /// `-I`, `-D` or `-R`: found only in files that a person wrote; the words after the chain.
    Edit {
        /// Which chain.
        chain: String,
        /// A number perhaps, and the rule.
        rule: Vec<String>,
    },
    /// `-N NAME`
    NewChain(String),
    /// Blank, or a comment.
    Blank,
    /// Anything else.
    Other,
}

/// Reads one line, without or with its line end.
#[must_use]
pub fn classify(line: &str) -> Line {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Line::Blank;
    }
    if line == "COMMIT" {
        return Line::Commit;
    }
    if let Some(table) = line.strip_prefix('*') {
        return Line::Table(table.trim().to_owned());
    }
    if let Some(chain) = line.strip_prefix(':') {
        let mut words = chain.split_whitespace();
        return match (words.next(), words.next()) {
            (Some(name), policy) => Line::Chain { name: name.to_owned(), policy: policy.unwrap_or("-").to_owned() },
            _ => Line::Other,
        };
    }
    // `iptables-save -c` puts [packets:bytes] before a rule.
    let rule = match line.strip_prefix('[').and_then(|l| l.split_once(']')) {
        Some((_, rest)) => rest,
        None => line,
    };
    let mut words = split_words(rule).into_iter();
    let (Some(verb), Some(chain)) = (words.next(), words.next()) else { return Line::Other };
    let rule = words.collect();
    match verb.as_str() {
        "-A" | "--append" => Line::Append { chain, rule },
        "-I" | "--insert" | "-D" | "--delete" | "-R" | "--replace" => Line::Edit { chain, rule },
        "-N" | "--new-chain" | "--new" => Line::NewChain(chain),
        _ => Line::Other,
    }
}

/// Splits as iptables-restore does. A quote that is never closed ends with the line.
#[must_use]
pub fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        // Most words are without quotes, and end at the next blank.
        let end = rest.bytes().position(|c| c == b'"' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        if rest.as_bytes().get(end) == Some(&b'"') {
            let (word, behind) = quoted_word(rest);
            words.push(word);
            rest = behind;
        } else {
            words.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        rest = rest.trim_ascii_start();
    }
    words
}

/// The word that the text begins with, and what is behind it. It may be there and empty: `--comment ""`.
fn quoted_word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut rest = text;
    let mut quoted = false;
    // What is looked for is ASCII, so that every cut is between letters.
    let ends = |quoted: bool, c: u8| c == b'"' || if quoted { c == b'\\' } else { c.is_ascii_whitespace() };
    while let Some(at) = rest.bytes().position(|c| ends(quoted, c)) {
        word.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => {
                quoted = !quoted;
                rest = &rest[at + 1..];
            }
            b'\\' => {
                let mut behind = rest[at + 1..].chars();
                word.extend(behind.next());
                rest = behind.as_str();
            }
            _ => return (word, &rest[at..]),
        }
    }
    word.push_str(rest);
    (word, "")
}

/// Writes a word so that [`split_words`], and iptables-restore, read the same word back.
#[must_use]
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=!@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut out = String::with_capacity(word.len() + 2);
    out.push('"');
    for c in word.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Whether every quote in the text is closed. A comment may hold line ends, so that a rule may go over several lines.
#[must_use]
pub fn is_closed(text: &str) -> bool {
    if !text.contains('"') {
        return true;
    }
    let (mut quoted, mut escaped) = (false, false);
    for c in text.bytes() {
        match c {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        split_words(line)
    }

    #[test]
    fn quoting_is_that_of_iptables() {
        assert_eq!(words(r#"--comment "we\'i\"rd \\ x" -j A"#), ["--comment", r#"we'i"rd \ x"#, "-j", "A"]);
        assert_eq!(words(r#"--comment """#), ["--comment", ""]);
        assert_eq!(words(r"--comment it's\n"), ["--comment", r"it's\n"]);
        assert_eq!(words("  ! -s 10.0.0.0/8\t-j DROP "), ["!", "-s", "10.0.0.0/8", "-j", "DROP"]);
        assert_eq!(words(r#"--log-prefix "[UFW BLOCK] ""#), ["--log-prefix", "[UFW BLOCK] "]);
        assert_eq!(words(r#"a "never closed"#), ["a", "never closed"]);
    }

    #[test]
    fn quotes_are_closed_or_not() {
        for (text, closed) in
            [("a", true), (r#"a"b"#, false), (r#""a \" b""#, true), (r#""a\""#, false), (r#"a\"b""#, true)]
        {
            assert_eq!(is_closed(text), closed, "{text}");
        }
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(all in proptest::collection::vec("[^\n\r]{0,12}", 0..6)) {
            let line = all.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split_words(&line), all);
        }
    }
}
