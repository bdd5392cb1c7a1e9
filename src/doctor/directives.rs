//! What the web servers' configurations say, directive by directive.
//!
//! nginx's files are read, because nginx shows its configuration only while it binds ports and opens logs; which files
//! Apache reads it tells itself.
//!
//! Belongs here: the two languages, and following includes. Does not: what a directive means (the rooms).

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::host::Look;

/// Where nginx's configuration begins: on Debian and Red Hat, from source, in OpenResty.
const NGINX: [&str; 3] =
    ["/etc/nginx/nginx.conf", "/usr/local/nginx/conf/nginx.conf", "/usr/local/openresty/nginx/conf/nginx.conf"];
/// Nobody's configuration has as many files; a loop of includes has.
const MOST_FILES: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(10);

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
}

impl<'a> Configs<'a> {
    pub(super) fn new(host: &'a dyn Look) -> Self {
        Self { host, nginx: OnceCell::new(), apache: OnceCell::new() }
    }

    /// nginx's, from where it begins unless its arguments say otherwise.
    pub(super) fn nginx(&self) -> &Said {
        self.nginx.get_or_init(|| nginx(self.host))
    }

    /// Apache's.
    pub(super) fn apache(&self) -> &Said {
        self.apache.get_or_init(|| apache(self.host))
    }
}

/// nginx's configuration, with whatever it includes in its place.
fn nginx(host: &dyn Look) -> Said {
    nginx_file(host).map_or_else(Said::default, |main| nginx_at(host, main))
}

/// Where nginx's configuration begins unless its arguments say otherwise.
pub(super) fn nginx_file(host: &dyn Look) -> Option<PathBuf> {
    NGINX.into_iter().map(PathBuf::from).find(|f| host.exists(f))
}

/// The same of an nginx whose configuration begins elsewhere.
pub(super) fn nginx_at(host: &dyn Look, main: PathBuf) -> Said {
    let mut said = Said::default();
    let base = main.parent().unwrap_or(Path::new("/")).to_owned();
    said.follow(host, &base, vec![Rest::File(main)]);
    said
}

enum Rest {
    File(PathBuf),
    One(Directive),
    Open(Directive),
    Close,
}

/// Directives, and the beginnings and ends of blocks, of one file.
fn nginx_text(text: &str, file: &Path) -> Vec<Rest> {
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

/// Apache's configuration, sections included.
fn apache(host: &dyn Look) -> Said {
    let mut said = Said::default();
    let dump = match apache_dump(host) {
        Some(Ok(dump)) => dump,
        Some(Err(why)) => return Said { unread: vec![format!("Apache's configuration: {why}")], ..said },
        None => return said,
    };
    // ` mpm_event_module (shared)`
    let name = |l: &str| l.split_whitespace().next()?.strip_suffix("_module").map(str::to_owned);
    said.modules = dump.lines().filter_map(name).collect();
    let mut files: Vec<Included> = dump.lines().filter_map(included).take(MOST_FILES).collect();
    // The last one first, as it is taken from the end.
    files.reverse();
    while let Some(file) = files.pop() {
        said.take_in(&mut |path: &Path, said: &mut Said| said.text(host, path), file, &mut files, None);
    }
    said
}

/// A file of Apache's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Included {
    /// How many files are around it, doubled.
    depth: usize,
    /// In which line of the file around it.
    line: usize,
    path: PathBuf,
}

/// `    (146) /etc/apache2/mods-enabled/mpm_event.conf`, and `  (*) /etc/apache2/apache2.conf`
fn included(line: &str) -> Option<Included> {
    let (at, path) = line.trim_start().strip_prefix('(')?.split_once(") ")?;
    let depth = line.len() - line.trim_start().len();
    Some(Included { depth, line: at.parse().unwrap_or(0), path: PathBuf::from(path.trim()) })
}

/// What Apache says of its files and modules, or why it doesn't; nothing where it isn't installed.
fn apache_dump(host: &dyn Look) -> Option<Result<String, String>> {
    let control = ["apachectl", "apache2ctl", "httpd"].into_iter().find(|p| host.program(p).is_some())?;
    Some(match host.run(&[control, "-t", "-D", "DUMP_MODULES", "-D", "DUMP_INCLUDES"], PATIENCE) {
        Ok(dump) if dump.ok() => Ok(String::from_utf8_lossy(&dump.stdout).into_owned()),
        Ok(dump) => Err(dump.complaint()),
        Err(e) => Err(e.message),
    })
}

/// Whether Apache has this module, or hasn't it: `mpm_event_module`, `event.c`, `!mpm_prefork_module`.
pub(super) fn is_loaded(condition: &str, modules: &[String]) -> bool {
    let (wanted, name) = condition.strip_prefix('!').map_or((true, condition), |name| (false, name));
    let name = name.trim_end_matches("_module").trim_end_matches(".c").trim_start_matches("mod_");
    modules.iter().any(|m| m == name || m.strip_prefix("mpm_") == Some(name)) == wanted
}

/// Apache's directives of one file, such as a `.htaccess`, with nothing included.
pub(super) fn apache_lines(text: &str, file: &Path) -> Said {
    let mut said = Said::default();
    let one = Included { depth: 0, line: 0, path: file.to_owned() };
    said.take_in(&mut |_, _| text.to_owned(), one, &mut vec![], None);
    said
}

fn apache_text(text: &str, file: &Path) -> Vec<Directive> {
    let mut found = Vec::new();
    let mut whole = String::new();
    for (n, line) in text.lines().enumerate() {
        whole.push_str(line.trim());
        if whole.ends_with('\\') {
            whole.pop();
            whole.push(' ');
            continue;
        }
        let words = apache_words(&whole);
        if !words.is_empty() && !whole.starts_with('#') {
            found.push(Directive { words, file: file.to_owned(), line: n + 1, block: None, opens: None });
        }
        whole.clear();
    }
    found
}

/// The words of a line: a quoted one may have spaces.
fn apache_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote): (Option<String>, Option<char>) = (None, None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c.is_whitespace() => words.extend(word.take()),
            None if word.is_none() && matches!(c, '"' | '\'') => {
                quote = Some(c);
                word = Some(String::new());
            }
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

impl Said {
    /// Takes in what is still to be read, the next one last, and what that includes.
    fn follow(&mut self, host: &dyn Look, base: &Path, mut left: Vec<Rest>) {
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
                    left.extend(nginx_text(&text, &file).into_iter().rev());
                }
                Rest::File(_) => {}
            }
        }
    }

    /// Takes in a file of Apache's, which ends each section that it begins, and where it stands what it includes: the
    /// files that come next, the next one last.
    fn take_in(
        &mut self,
        read: &mut dyn FnMut(&Path, &mut Self) -> String,
        file: Included,
        next: &mut Vec<Included>,
        around: Option<usize>,
    ) {
        let text = read(&file.path, self);
        let mut section = around;
        for directive in apache_text(&text, &file.path) {
            let (line, includes) = (directive.line, directive.is("Include") || directive.is("IncludeOptional"));
            match directive.words.first() {
                Some(word) if word.starts_with("</") => {
                    section = self.around(section);
                    self.push(Directive { block: section, ..directive });
                }
                Some(word) if word.starts_with('<') => section = Some(self.open(directive, section)),
                _ => self.push(Directive { block: section, ..directive }),
            }
            while includes && next.last().is_some_and(|n| n.depth > file.depth && n.line == line) {
                let Some(inner) = next.pop() else { break };
                self.take_in(read, inner, next, section);
            }
        }
    }

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
        let left = nginx_text(text, Path::new("/etc/nginx/nginx.conf")).into_iter().rev().collect();
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

    fn words(found: &[Directive]) -> Vec<(usize, Vec<&str>)> {
        found.iter().map(|d| (d.line, d.words.iter().map(String::as_str).collect())).collect()
    }

    #[test]
    fn nginx_is_read_as_nginx_reads_it() {
        let text = "http { # comment; with {\n  include \"a b\\\".conf\";\n\tserver{listen 443 ssl;}\n  \
                    set $x ${y}z;if ($z ~ '^a\\.;{2}$') { return 403; }\n  log_format main '$a; '\n    \"$b\";\n}\nlast 1";
        let found: Vec<Directive> = nginx_text(text, Path::new("/x"))
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

    #[test]
    fn apache_is_read_line_by_line() {
        let text =
            "# SSLVerifyClient require\n<VirtualHost *:443>\n  SSLVerifyClient \\\n    \"require\"\n</VirtualHost>\n";
        let found = apache_text(text, Path::new("/x"));
        assert_eq!(
            words(&found),
            [(2, vec!["<VirtualHost", "*:443>"]), (4, vec!["SSLVerifyClient", "require"]), (5, vec!["</VirtualHost>"])]
        );
        assert!(found[1].is("sslverifyclient") && found[1].value() == "require");
        let found = apache_text("<Directory \"/srv/my site\">\nRequire expr \"%{TIME} -gt 1\"\n", Path::new("/x"));
        assert_eq!(
            words(&found),
            [(1, vec!["<Directory", "/srv/my site>"]), (2, vec!["Require", "expr", "%{TIME} -gt 1"])]
        );
    }

    #[test]
    fn what_apache_includes_stands_where_it_includes_it() {
        let dump =
            "Included configuration files:\n  (*) /main\n    (1) /a\n      (2) /b\n    (3) /c\nLoaded Modules:\n";
        let mut files: Vec<Included> = dump.lines().filter_map(included).collect();
        files.reverse();
        let mut read = |path: &Path, _: &mut Said| {
            let text = match path.to_str() {
                Some("/main") => "Include a\n<VirtualHost *>\nInclude c\n</VirtualHost>\nlast",
                Some("/a") => "of-a\nInclude b",
                Some("/b") => "of-b",
                _ => "of-c",
            };
            text.to_owned()
        };
        let mut said = Said::default();
        while let Some(file) = files.pop() {
            said.take_in(&mut read, file, &mut files, None);
        }
        let told: Vec<(&str, usize)> =
            said.directives.iter().map(|d| (d.words[0].as_str(), said.around_of(d).count())).collect();
        let expected = [("Include", 0), ("of-a", 0), ("Include", 0), ("of-b", 0), ("<VirtualHost", 0), ("Include", 1)];
        assert_eq!(told, [&expected[..], &[("of-c", 1), ("</VirtualHost>", 0), ("last", 0)]].concat());
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
