//! The language that `iptables-save` writes and `iptables-restore` reads, word by word.
//!
//! Belongs here: splitting a line into words as iptables-restore does, quoting a word so that it comes back, and the
//! `filter` table as `*-save` prints it. Does not: which rules are ours ([`super::rules`]), files ([`super::persist`]).
//!
//! The rules of quoting are iptables' own (`xtables_save_string` and `add_param_to_argv`): a double quote opens and
//! closes, a backslash escapes inside quotes only, a single quote is an ordinary character.

use std::collections::BTreeMap;

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
    let mut word = String::new();
    // A word may be there and empty: `--comment ""`.
    let (mut begun, mut quoted, mut escaped) = (false, false, false);
    for c in line.chars() {
        if quoted {
            match c {
                _ if escaped => {
                    word.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => quoted = false,
                _ => word.push(c),
            }
        } else if c == '"' {
            (quoted, begun) = (true, true);
        } else if c.is_ascii_whitespace() {
            if begun {
                words.push(std::mem::take(&mut word));
                begun = false;
            }
        } else {
            word.push(c);
            begun = true;
        }
    }
    if begun {
        words.push(word);
    }
    words
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

/// The filter table of one family in one variant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// The policy of a built-in chain.
    pub policy: Option<String>,
    /// Its rules, each as its words without `-A CHAIN`.
    pub rules: Vec<Vec<String>>,
}

/// What a `*-save` program printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// The filter table, if it exists.
    pub filter: Option<Filter>,
    /// There is a filter table that iptables can't show, because nft wrote it.
    pub unreadable: bool,
    /// `v1.8.9`, from the header.
    pub version: Option<String>,
}

/// Reads the output of a `*-save` program. Packet counters are left out.
#[must_use]
pub fn parse(output: &[u8]) -> Saved {
    let text = String::from_utf8_lossy(output);
    let mut saved = Saved::default();
    let mut inside = false;
    for line in text.lines() {
        match classify(line) {
            Line::Table(name) => {
                inside = name == "filter";
                if inside {
                    saved.filter.get_or_insert_default();
                }
            }
            Line::Commit => inside = false,
            Line::Chain { name, policy } if inside => {
                let chain = saved.filter.get_or_insert_default().chains.entry(name).or_default();
                chain.policy = (policy != "-").then_some(policy);
            }
            Line::Append { chain, rule } if inside => {
                saved.filter.get_or_insert_default().chains.entry(chain).or_default().rules.push(rule);
            }
            Line::Blank if line.contains("Table `filter' is incompatible") => saved.unreadable = true,
            Line::Blank if saved.version.is_none() && line.starts_with("# Generated by ") => {
                saved.version = line
                    .split_whitespace()
                    .find(|w| w.starts_with('v') && w[1..].starts_with(|c: char| c.is_ascii_digit()))
                    .map(str::to_owned);
            }
            _ => {}
        }
    }
    saved
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
    fn both_variants_read_alike() {
        let nft = parse(
            b"# Generated by iptables-nft-save v1.8.9 (nf_tables) on Sun Nov 22 11:34:45 2026\n*filter\n\
              :INPUT DROP [12:3400]\n:EDGEALLOW - [0:0]\n-A INPUT -m comment --comment \"edgeallow\" -j EDGEALLOW\n\
              COMMIT\n# Completed\n*nat\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\nCOMMIT\n",
        );
        let legacy = parse(
            b"# Generated by iptables-save v1.8.9 on Sun Nov 22 11:34:45 2026\n*filter\n:INPUT DROP [0:0]\n\
              :EDGEALLOW - [0:0]\n[5:300] -A INPUT -m comment --comment edgeallow -j EDGEALLOW\nCOMMIT\n",
        );
        assert_eq!(nft, legacy);
        let filter = nft.filter.unwrap();
        assert_eq!(filter.chains["INPUT"].policy.as_deref(), Some("DROP"));
        assert_eq!(filter.chains["INPUT"].rules.len(), 1);
        assert_eq!(filter.chains["EDGEALLOW"], Chain::default());
        assert_eq!(nft.version.as_deref(), Some("v1.8.9"));
    }

    #[test]
    fn a_table_of_nft_is_seen_to_be_unreadable() {
        let saved = parse(b"# Table `filter' is incompatible, use 'nft' tool.\n");
        assert!(saved.unreadable && saved.filter.is_none());
        assert_eq!(parse(b""), Saved::default());
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn reading_never_panics_near_the_grammar(text in r#"([*:#\[\]"\\ A-Za-z0-9\-\n\r!]|COMMIT\n|\*filter\n|-A |v){0,80}"#) {
            let _ = parse(text.as_bytes());
            let _ = classify(&text);
        }

        #[test]
        fn quoted_words_come_back(all in proptest::collection::vec("[^\n\r]{0,12}", 0..6)) {
            let line = all.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split_words(&line), all);
        }
    }
}
