//! What the web servers' configurations say, directive by directive.
//!
//! nginx's files are read, because nginx shows its configuration only while it binds ports and opens logs; which files
//! Apache reads it tells itself, unless there is an error in one of them.
//!
//! Belongs here: directives in their blocks, and the files that they stand in. Does not: the two languages (`nginx`,
//! `apache`), what a directive means (the rooms).

mod apache;
mod nginx;

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
};

pub(super) use self::{
    apache::{is_loaded, lines as apache_lines},
    nginx::{at as nginx_at, main_file as nginx_file},
};
use crate::host::Look;

/// Nobody's configuration has as many files; a loop of includes has.
const MOST_FILES: usize = 2000;

/// What a server's configuration says, as far as it may be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// In the order in which the server reads them; none where it isn't installed.
    pub(super) directives: Vec<Directive>,
    /// The blocks and sections that they stand in.
    blocks: Vec<Block>,
    /// What stands in none of them.
    top: Vec<usize>,
    /// The files and folders that couldn't be read, with the reason.
    pub(super) unread: Vec<String>,
    /// The modules that Apache has loaded, without the `_module` that every name ends with.
    pub(super) modules: Vec<String>,
}

/// A block of nginx or a section of Apache.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// The directive that opens it.
    head: usize,
    /// The block that it stands in itself.
    within: Option<usize>,
    /// What stands directly in it.
    inside: Vec<usize>,
}

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its name and what follows.
    pub(super) words: Vec<String>,
    /// Where it stands.
    pub(super) file: PathBuf,
    pub(super) line: usize,
    /// The innermost block that it stands in, by number; two directives of one block have the same.
    pub(super) block: Option<usize>,
    /// The block that it opens.
    pub(super) opens: Option<usize>,
}

impl Directive {
    /// Whether it has this name; Apache doesn't care for capitals, and nginx has none.
    pub(super) fn is(&self, name: &str) -> bool {
        self.words.first().is_some_and(|w| w.eq_ignore_ascii_case(name))
    }

    /// What follows the name.
    pub(super) fn value(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }

    /// For people.
    pub(super) fn place(&self) -> String {
        format!("{} line {}", self.file.display(), self.line)
    }
}

/// The configurations of this machine's web servers, each read when it is first asked for.
pub(super) struct Configs<'a> {
    host: &'a dyn Look,
    nginx: OnceCell<Said>,
    apache: OnceCell<Said>,
    apache_text: OnceCell<Said>,
}

impl<'a> Configs<'a> {
    pub(super) fn new(host: &'a dyn Look) -> Self {
        Self { host, nginx: OnceCell::new(), apache: OnceCell::new(), apache_text: OnceCell::new() }
    }

    /// nginx's, from where it begins unless its arguments say otherwise.
    pub(super) fn nginx(&self) -> &Said {
        self.nginx.get_or_init(|| nginx::read(self.host))
    }

    /// Apache's.
    pub(super) fn apache(&self) -> &Said {
        self.apache.get_or_init(|| apache::read(self.host))
    }

    /// Apache's, also where Apache finds an error in it and tells nothing of it: then as far as its text can be read. What
    /// Apache would serve is not decided by that, but whether the site is in it is.
    pub(super) fn apache_text(&self) -> &Said {
        let own = self.apache();
        if !own.directives.is_empty() {
            return own;
        }
        self.apache_text.get_or_init(|| apache::read_text(self.host))
    }
}

impl Said {
    /// What stands directly in the block that this directive opens, or in none.
    pub(super) fn inside(&self, head: Option<&Directive>) -> impl Iterator<Item = &Directive> {
        let there: &[usize] = match head {
            Some(head) => head.opens.and_then(|block| self.blocks.get(block)).map_or(&[], |block| &block.inside),
            None => &self.top,
        };
        there.iter().filter_map(|at| self.directives.get(*at))
    }

    /// The heads of the blocks that a directive stands in, from the inside out.
    pub(super) fn around_of<'s>(&'s self, directive: &Directive) -> impl Iterator<Item = &'s Directive> {
        let blocks = std::iter::successors(directive.block, |block| self.around(Some(*block)));
        blocks.filter_map(|block| self.directives.get(self.blocks.get(block)?.head))
    }

    /// Begins a block, and returns its number.
    fn open(&mut self, head: Directive, within: Option<usize>) -> usize {
        let number = self.blocks.len();
        self.blocks.push(Block { head: self.directives.len(), within, inside: Vec::new() });
        self.push(Directive { block: within, opens: Some(number), ..head });
        number
    }

    fn push(&mut self, directive: Directive) {
        let at = self.directives.len();
        match directive.block.and_then(|block| self.blocks.get_mut(block)) {
            Some(block) => block.inside.push(at),
            None => self.top.push(at),
        }
        self.directives.push(directive);
    }

    /// The block that a block stands in.
    fn around(&self, block: Option<usize>) -> Option<usize> {
        self.blocks.get(block?)?.within
    }

    /// A file's text, whatever its encoding; nothing where it can't be read.
    pub(super) fn text(&mut self, host: &dyn Look, path: &Path) -> String {
        match host.file(path) {
            Ok(file) => file.map(|f| String::from_utf8_lossy(&f.content).into_owned()).unwrap_or_default(),
            Err(e) => {
                self.unread.push(e.message);
                String::new()
            }
        }
    }

    /// The files that a path with `*` and `?` means, in the order of their names.
    pub(super) fn glob(&mut self, host: &dyn Look, pattern: &Path) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::from("/")];
        for part in pattern.components().skip(1).map(|part| part.as_os_str().to_string_lossy()) {
            if !part.contains(['*', '?']) {
                found.iter_mut().for_each(|path| path.push(&*part));
                continue;
            }
            let mut next = Vec::new();
            for folder in found {
                match host.folder(&folder) {
                    Ok(mut names) => {
                        names.retain(|name| !name.starts_with('.') && fits(part.as_bytes(), name.as_bytes()));
                        next.extend(names.into_iter().map(|name| folder.join(name)));
                    }
                    Err(e) => self.unread.push(e.message),
                }
            }
            next.truncate(MOST_FILES);
            found = next;
        }
        found.retain(|path| host.exists(path));
        found
    }
}

/// Whether a name fits a pattern of `*` and `?`.
pub(super) fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skip| fits(rest, name.get(skip..).unwrap_or_default())),
        ([b'?', rest @ ..], [_, more @ ..]) => fits(rest, more),
        ([p, rest @ ..], [n, more @ ..]) => p == n && fits(rest, more),
        ([], []) => true,
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What nginx would take from a text that includes nothing.
    pub fn said_by_nginx(text: &str) -> Said {
        let mut said = Said::default();
        // The machine is asked for what is included only.
        let left = nginx::parse(text, Path::new("/etc/nginx/nginx.conf")).into_iter().rev().collect();
        said.follow(&crate::host::Machine::new(), Path::new("/nowhere"), left);
        said
    }

    pub fn said_by_apache(text: &str) -> Said {
        apache_lines(text, Path::new("/etc/apache2/apache2.conf"))
    }

    #[test]
    fn a_directive_knows_the_blocks_around_it() {
        let said = said_by_nginx("a; http { b; server { location / { c; } d; } e; }");
        let around = |name: &str| {
            let one = said.directives.iter().find(|d| d.is(name)).unwrap();
            said.around_of(one).map(|head| head.words.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(around("a"), [""; 0]);
        assert_eq!(around("b"), ["http"]);
        assert_eq!(around("c"), ["location /", "server", "http"]);
        assert_eq!(around("d"), ["server", "http"]);
        assert_eq!(around("e"), ["http"]);
    }

    pub fn words(found: &[Directive]) -> Vec<(usize, Vec<&str>)> {
        found.iter().map(|d| (d.line, d.words.iter().map(String::as_str).collect())).collect()
    }

    #[test]
    fn wildcards_mean_what_they_mean_in_a_shell() {
        for (pattern, name, is) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*", "x", true),
            ("a?c*", "abcd", true),
            ("a?c", "ac", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), is, "{pattern} {name}");
        }
    }
}
