//! Which paths sites keep from everybody, so that a denial of them says nothing about the one who asked.
//!
//! Belongs here: paths. Does not: where a line names one ([`super::line`]).

use memchr::{memchr, memchr_iter, memrchr};

use super::words::begins;

const NAMES: [&str; 8] = [
    "xmlrpc.php",
    "wp-config.php",
    "server-status",
    "server-info",
    "phpinfo.php",
    "readme.html",
    "install.php",
    "web.config",
];
/// Each from its only dot.
const ENDINGS: [&str; 12] =
    [".sql", ".bak", ".ini", ".log", ".sh", ".conf", ".yml", ".inc", ".lock", ".swp", ".old", ".orig"];
/// Each from a slash.
const FOLDERS: [&str; 6] = ["/vendor/", "/node_modules/", "/wp-includes/", "/phpmyadmin", "/cgi-bin/", "/uploads/"];

/// Whether sites keep everybody from such a path: hidden files, and what nobody but an intruder asks for.
pub(super) fn guarded(path: &str) -> bool {
    let path = path.as_bytes();
    let last = memrchr(b'/', path).map_or(path, |at| &path[at + 1..]);
    let ending = memrchr(b'.', last).map_or(&b""[..], |at| &last[at..]);
    is_one_of(&NAMES, last)
        || is_one_of(&ENDINGS, ending)
        || memchr_iter(b'/', path).any(|at| is_folder(&path[at..]))
        || memchr_iter(b'.', path).any(|at| (at == 0 || path[at - 1] == b'/') && is_hidden(&path[at..]))
}

fn is_one_of(small: &[&str], name: &[u8]) -> bool {
    let same = |s: &&str| s.len() == name.len() && s.as_bytes().eq_ignore_ascii_case(name);
    small.iter().any(same)
}

/// Whether one of the folders begins here, which the letter after the slash nearly always tells.
fn is_folder(path: &[u8]) -> bool {
    let letter = path.get(1).map(u8::to_ascii_lowercase);
    matches!(letter, Some(b'c' | b'n' | b'p' | b'u' | b'v' | b'w')) && FOLDERS.iter().any(|folder| begins(path, folder))
}

/// Whether the name that begins with this dot is a hidden one.
fn is_hidden(path: &[u8]) -> bool {
    let name = &path[..memchr(b'/', path).unwrap_or(path.len())];
    name.len() > 1 && !name.eq_ignore_ascii_case(b".well-known")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same in other words.
    fn plainly(path: &str) -> bool {
        let path = path.to_ascii_lowercase();
        let hidden = path.split('/').any(|part| part.len() > 1 && part.starts_with('.') && part != ".well-known");
        let last = path.rsplit('/').next().unwrap_or("");
        hidden
            || NAMES.contains(&last)
            || ENDINGS.iter().any(|e| last.ends_with(e))
            || FOLDERS.iter().any(|f| path.contains(f))
    }

    #[test]
    fn what_intruders_ask_for_is_guarded_and_pages_are_not() {
        for path in [
            "/.git/config",
            "/a/.env",
            "/wp/XMLRPC.php",
            "/dump.SQL",
            "/vendor/x",
            "/PhpMyAdmin2/",
            ".htaccess",
            "/..a",
        ] {
            assert!(guarded(path) && plainly(path), "{path}");
        }
        for path in
            ["", "/", "/.", "/a.b/c", "/.well-known/acme", "/.WELL-known", "/a.sql/b", "/vendor", "/xmlrpc.phpx"]
        {
            assert!(!guarded(path) && !plainly(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_same_in_other_words(
            parts in prop::collection::vec((0_usize..40, "[/.a]{0,3}"), 0..5),
        ) {
            let known = [&NAMES[..], &ENDINGS[..], &FOLDERS[..], &["/.well-known", "/.GIT"]].concat();
            let part = |(at, other): &(usize, String)| known.get(*at).map_or(other.clone(), |k| (*k).to_owned());
            let path: String = parts.iter().map(part).collect();
            prop_assert_eq!(guarded(&path), plainly(&path), "{}", path);
            prop_assert_eq!(guarded(&path.to_ascii_uppercase()), plainly(&path), "{}", path);
        }
    }
}
