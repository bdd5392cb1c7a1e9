//! Apache's language: lines, sections, what `Include` takes in; and which modules are there.
//!
//! Belongs here: reading it. Does not: what a directive means.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Directive, MOST_FILES, Said};
use crate::host::Look;

const PATIENCE: Duration = Duration::from_secs(10);

/// Where Apache's configuration begins: on Debian, on Red Hat, from source, on Alpine and Arch. Beside it the folder that
/// relative paths start from, unless `ServerRoot` names another one.
const APACHE: [(&str, &str); 4] = [
    ("/etc/apache2/apache2.conf", "/etc/apache2"),
    ("/etc/httpd/conf/httpd.conf", "/etc/httpd"),
    ("/usr/local/apache2/conf/httpd.conf", "/usr/local/apache2"),
    ("/etc/apache2/httpd.conf", "/etc/apache2"),
];
/// Includes within includes.
const DEEPEST: usize = 16;

/// Apache's configuration, sections included.
pub(super) fn read(host: &dyn Look) -> Said {
    let mut said = Said::default();
    let dump = match dumped(host) {
        Some(Ok(dump)) => dump,
        Some(Err(why)) => return Said { unread: vec![format!("Apache's configuration: {why}")], ..said },
        None => return said,
    };
    // ` mpm_event_module (shared)`
    let name = |l: &str| l.split_whitespace().next()?.strip_suffix("_module").map(str::to_owned);
    said.modules = dump.lines().filter_map(name).collect();
    said.take_all(host, dump.lines().filter_map(included).take(MOST_FILES).collect());
    said
}

/// The same as far as its text tells without Apache, for one that can't read its configuration itself. Variables are not
/// known, and every section is taken to hold.
pub(super) fn read_text(host: &dyn Look) -> Said {
    let mut said = Said::default();
    let Some((main, base)) = APACHE.into_iter().find(|(main, _)| host.exists(Path::new(main))) else { return said };
    let mut base = PathBuf::from(base);
    let mut files = Vec::new();
    said.find_files(host, &mut base, Included { depth: 0, line: 0, path: main.into() }, &mut files);
    said.take_all(host, files);
    // `LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so`
    let loaded = said.directives.iter().filter(|d| d.is("LoadModule"));
    said.modules = loaded.filter_map(|d| Some(d.value().strip_suffix("_module")?.to_owned())).collect();
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
fn dumped(host: &dyn Look) -> Option<Result<String, String>> {
    let control = ["apachectl", "apache2ctl", "httpd"].into_iter().find(|p| host.program(p).is_some())?;
    Some(match host.run(&[control, "-t", "-D", "DUMP_MODULES", "-D", "DUMP_INCLUDES"], PATIENCE) {
        Ok(dump) if dump.ok() => Ok(String::from_utf8_lossy(&dump.stdout).into_owned()),
        Ok(dump) => Err(dump.complaint()),
        Err(e) => Err(e.message),
    })
}

/// Whether Apache has this module, or hasn't it: `mpm_event_module`, `event.c`, `!mpm_prefork_module`.
pub(in crate::doctor) fn is_loaded(condition: &str, modules: &[String]) -> bool {
    let (wanted, name) = condition.strip_prefix('!').map_or((true, condition), |name| (false, name));
    let name = name.trim_end_matches("_module").trim_end_matches(".c").trim_start_matches("mod_");
    modules.iter().any(|m| m == name || m.strip_prefix("mpm_") == Some(name)) == wanted
}

/// Apache's directives of one file, such as a `.htaccess`, with nothing included.
pub(in crate::doctor) fn lines(text: &str, file: &Path) -> Said {
    let mut said = Said::default();
    let one = Included { depth: 0, line: 0, path: file.to_owned() };
    said.take_in(&mut |_, _| text.to_owned(), one, &mut vec![], None);
    said
}

fn parse(text: &str, file: &Path) -> Vec<Directive> {
    let mut found = Vec::new();
    let mut whole = String::new();
    for (n, line) in text.lines().enumerate() {
        whole.push_str(line.trim());
        if whole.ends_with('\\') {
            whole.pop();
            whole.push(' ');
            continue;
        }
        let words = words(&whole);
        if !words.is_empty() && !whole.starts_with('#') {
            found.push(Directive { words, file: file.to_owned(), line: n + 1, block: None, opens: None });
        }
        whole.clear();
    }
    found
}

/// The words of a line: a quoted one may have spaces.
fn words(line: &str) -> Vec<String> {
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
    /// Takes in all of these, which are in the order in which they are read.
    fn take_all(&mut self, host: &dyn Look, mut files: Vec<Included>) {
        // The last one first, as it is taken from the end.
        files.reverse();
        while let Some(file) = files.pop() {
            self.take_in(&mut |path: &Path, said: &mut Self| said.text(host, path), file, &mut files, None);
        }
    }

    /// The file and those that it includes, as Apache itself would list them.
    fn find_files(&mut self, host: &dyn Look, base: &mut PathBuf, file: Included, into: &mut Vec<Included>) {
        let (depth, path) = (file.depth + 2, file.path.clone());
        if depth > 2 * DEEPEST || into.len() >= MOST_FILES {
            return;
        }
        into.push(file);
        let text = self.text(host, &path);
        for directive in parse(&text, &path) {
            let value = directive.value();
            if directive.is("ServerRoot") && value.starts_with('/') {
                *base = PathBuf::from(value);
            } else if directive.is("Include") || directive.is("IncludeOptional") {
                // A folder means what is in it.
                let all = if value.ends_with('/') { "*" } else { "" };
                for path in self.glob(host, &base.join(format!("{value}{all}"))) {
                    self.find_files(host, base, Included { depth, line: directive.line, path }, into);
                }
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
        for directive in parse(&text, &file.path) {
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
}

#[cfg(test)]
mod tests {
    use super::{super::tests::words, *};

    #[test]
    fn apache_is_read_line_by_line() {
        let text =
            "# SSLVerifyClient require\n<VirtualHost *:443>\n  SSLVerifyClient \\\n    \"require\"\n</VirtualHost>\n";
        let found = parse(text, Path::new("/x"));
        assert_eq!(
            words(&found),
            [(2, vec!["<VirtualHost", "*:443>"]), (4, vec!["SSLVerifyClient", "require"]), (5, vec!["</VirtualHost>"])]
        );
        assert!(found[1].is("sslverifyclient") && found[1].value() == "require");
        let found = parse("<Directory \"/srv/my site\">\nRequire expr \"%{TIME} -gt 1\"\n", Path::new("/x"));
        assert_eq!(
            words(&found),
            [(1, vec!["<Directory", "/srv/my site>"]), (2, vec!["Require", "expr", "%{TIME} -gt 1"])]
        );
    }

    #[test]
    fn files_are_found_without_apache() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        #[allow(clippy::disallowed_methods)]
        let write = |name: &str, text: String| std::fs::write(path(name), text).unwrap();
        std::fs::create_dir(path("sites")).unwrap();
        write(
            "main",
            format!("ServerRoot {}\nBogus\nInclude ports\nInclude sites/\nInclude main\n", folder.path().display()),
        );
        write("ports", "Listen 80\n".to_owned());
        write("sites/a.conf", "<VirtualHost *:80>\nServerName a.example\nInclude ports\n</VirtualHost>\n".to_owned());
        let mut said = Said::default();
        let mut files = Vec::new();
        let main = Included { depth: 0, line: 0, path: path("main") };
        said.find_files(&crate::host::Machine::new(), &mut PathBuf::from("/nowhere"), main, &mut files);
        let of = |depth, line, name: &str| Included { depth, line, path: path(name) };
        let expected =
            [of(0, 0, "main"), of(2, 3, "ports"), of(2, 4, "sites/a.conf"), of(4, 3, "ports"), of(2, 5, "main")];
        assert_eq!(files[..5], expected, "a file that includes itself comes to an end");
        assert!(files.len() < 100, "{}", files.len());
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
}
