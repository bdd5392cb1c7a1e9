//! nginx's language: words, blocks, `include`.
//!
//! Belongs here: reading it. Does not: what a directive means.

use std::path::{Path, PathBuf};

use super::{Directive, MOST_FILES, Said};
use crate::host::Look;

/// Where nginx's configuration begins: on Debian and Red Hat, from source, in OpenResty.
const NGINX: [&str; 3] =
    ["/etc/nginx/nginx.conf", "/usr/local/nginx/conf/nginx.conf", "/usr/local/openresty/nginx/conf/nginx.conf"];

/// nginx's configuration, with whatever it includes in its place.
pub(super) fn read(host: &dyn Look) -> Said {
    main_file(host).map_or_else(Said::default, |main| at(host, main))
}

/// Where nginx's configuration begins unless its arguments say otherwise.
pub(in crate::doctor) fn main_file(host: &dyn Look) -> Option<PathBuf> {
    NGINX.into_iter().map(PathBuf::from).find(|f| host.exists(f))
}

/// The same of an nginx whose configuration begins elsewhere.
pub(in crate::doctor) fn at(host: &dyn Look, main: PathBuf) -> Said {
    let mut said = Said::default();
    let base = main.parent().unwrap_or(Path::new("/")).to_owned();
    said.follow(host, &base, vec![Rest::File(main)]);
    said
}

pub(super) enum Rest {
    File(PathBuf),
    One(Directive),
    Open(Directive),
    Close,
}

/// Directives, and the beginnings and ends of blocks, of one file.
pub(super) fn parse(text: &str, file: &Path) -> Vec<Rest> {
    let mut found = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let (mut quote, mut comment, mut escaped) = (None, false, false);
    let mut line = 1;
    for c in text.chars().chain(['\n']) {
        match (quote, c) {
            _ if comment => comment = c != '\n',
            // Before other letters the backslash stays: `\.` in an expression.
            _ if escaped => {
                let word = word.get_or_insert_default();
                word.extend((!matches!(c, '"' | '\'' | '\\')).then_some('\\'));
                word.push(c);
                escaped = false;
            }
            (_, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') if word.is_none() => {
                quote = Some(c);
                word = Some(String::new());
            }
            (None, '#') if word.is_none() => comment = true,
            // `${name}` is part of a word.
            (None, '{') if word.as_ref().is_some_and(|w| w.ends_with('$')) => word.get_or_insert_default().push(c),
            (None, '}') if word.as_ref().is_some_and(|w| w.contains("${") && !w.ends_with('}')) => {
                word.get_or_insert_default().push(c);
            }
            (None, ' ' | '\t' | '\r' | '\n' | ';' | '{' | '}') => {
                words.extend(word.take());
                let ends = matches!(c, ';' | '{' | '}');
                let words = if ends { std::mem::take(&mut words) } else { vec![] };
                let whole = Directive { words, file: file.to_owned(), line, block: None, opens: None };
                match c {
                    '{' => found.push(Rest::Open(whole)),
                    _ if !whole.words.is_empty() => found.push(Rest::One(whole)),
                    _ => {}
                }
                found.extend((c == '}').then_some(Rest::Close));
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
        line += usize::from(c == '\n');
    }
    found
}

impl Directive {
    /// The zone of shared memory that it names: `zone=one:10m` where it is made, `zone=one` where it is used.
    pub(in crate::doctor) fn zone(&self) -> Option<&str> {
        self.words.iter().find_map(|w| w.strip_prefix("zone=")?.split(':').next())
    }
}

impl Said {
    /// Takes in what is still to be read, the next one last, and what that includes.
    pub(super) fn follow(&mut self, host: &dyn Look, base: &Path, mut left: Vec<Rest>) {
        let (mut read, mut block) = (0, None);
        while let Some(next) = left.pop() {
            match next {
                Rest::One(one) if one.is("include") => {
                    left.extend(self.glob(host, &base.join(one.value())).into_iter().rev().map(Rest::File));
                }
                Rest::One(one) => self.push(Directive { block, ..one }),
                Rest::Open(head) => block = Some(self.open(head, block)),
                Rest::Close => block = self.around(block),
                Rest::File(file) if read < MOST_FILES => {
                    read += 1;
                    let text = self.text(host, &file);
                    left.extend(parse(&text, &file).into_iter().rev());
                }
                Rest::File(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::words, *};

    #[test]
    fn nginx_is_read_as_nginx_reads_it() {
        let text = "http { # comment; with {\n  include \"a b\\\".conf\";\n\tserver{listen 443 ssl;}\n  \
                    set $x ${y}z;if ($z ~ '^a\\.;{2}$') { return 403; }\n  log_format main '$a; '\n    \"$b\";\n}\nlast 1";
        let found: Vec<Directive> = parse(text, Path::new("/x"))
            .into_iter()
            .filter_map(|rest| match rest {
                Rest::One(one) | Rest::Open(one) => Some(one),
                Rest::File(_) | Rest::Close => None,
            })
            .collect();
        assert_eq!(
            words(&found),
            [
                (1, vec!["http"]),
                (2, vec!["include", "a b\".conf"]),
                (3, vec!["server"]),
                (3, vec!["listen", "443", "ssl"]),
                (4, vec!["set", "$x", "${y}z"]),
                (4, vec!["if", "($z", "~", "^a\\.;{2}$)"]),
                (4, vec!["return", "403"]),
                (6, vec!["log_format", "main", "$a; ", "$b"]),
            ]
        );
    }
}
