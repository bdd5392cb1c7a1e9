//! Where programs log, and which of their files are of the time that is asked about.
//!
//! Belongs here: paths, and what is configured about addresses in logs. Does not: reading logs ([`super::scan`]).

use std::path::{Path, PathBuf};

use super::super::directives::Configs;
use crate::host::Look;

/// Folders in which every file is a log of a web server.
const WEB: [&str; 13] = [
    "/var/log/nginx",
    "/usr/local/nginx/logs",
    "/usr/local/openresty/nginx/logs",
    // Debian, and Ubuntu.
    "/var/log/apache2",
    // RHEL and its kin.
    "/var/log/httpd",
    // cPanel; some of these are links to others, and each file is read once.
    "/usr/local/apache/logs",
    "/usr/local/apache/domlogs",
    "/etc/apache2/logs",
    "/etc/apache2/logs/domlogs",
    "/var/log/apache2/domlogs",
    "/usr/local/apache2/logs",
    "/usr/local/lsws/logs",
    "/var/log/litespeed",
];

/// Plesk keeps a folder for each site here.
const PLESK: &str = "/var/www/vhosts/system";

/// Files of the system log, best first: what the kernel says stands in more than one of them, and is counted once.
pub(super) const SYSTEM: [&str; 4] = ["kern.log", "syslog", "messages", "ufw.log"];

/// What a file is to the one who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A program's own log, or a file that was named on the command line.
    Own,
    /// A system log whose lines of the kernel count.
    Kernel,
    /// A system log beside one with the lines of the kernel.
    System,
}

/// A file that may be a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub path: PathBuf,
    pub role: Role,
    /// Whether it was named on the command line: then it is read whatever its age.
    pub given: bool,
}

impl Place {
    /// Whether it is standard input: `--log -`.
    pub fn is_input(&self) -> bool {
        self.given && self.path.as_os_str() == "-"
    }

    /// Its name for people.
    pub fn name(&self) -> String {
        if self.is_input() { "standard input".to_owned() } else { self.path.display().to_string() }
    }
}

/// A folder or file that can't be read, and why.
#[derive(Debug)]
pub(super) struct Unread {
    pub path: String,
    pub why: String,
    /// Whether it was named on the command line.
    pub given: bool,
}

/// The logs of web servers, fail2ban and lfd, the newest of each first.
pub(super) fn own(host: &dyn Look, unread: &mut Vec<Unread>) -> Vec<Place> {
    let mut places = Vec::new();
    let mut take = |folder: &str, wanted: &dyn Fn(&str) -> bool| {
        for name in names(host, folder, unread) {
            if wanted(&name) && !is_no_log(&name) {
                places.push(Place { path: Path::new(folder).join(name), role: Role::Own, given: false });
            }
        }
    };
    for folder in WEB {
        take(folder, &|_| true);
    }
    take("/var/log", &|name| name.starts_with("fail2ban.log") || name.starts_with("lfd.log") || is_php(name));
    for site in host.folder(Path::new(PLESK)).unwrap_or_default() {
        take(&format!("{PLESK}/{site}/logs"), &|_| true);
    }
    places
}

/// The system log in files, for hosts without a journal.
pub(super) fn system(host: &dyn Look, unread: &mut Vec<Unread>) -> Vec<Place> {
    const FOLDER: &str = "/var/log";
    let names = names(host, FOLDER, unread);
    let mut role = Role::Kernel;
    let mut places = Vec::new();
    for base in SYSTEM {
        let of_this = names.iter().filter(|n| rotated_of(n, base));
        let found: Vec<Place> =
            of_this.map(|n| Place { path: Path::new(FOLDER).join(n), role, given: false }).collect();
        if !found.is_empty() {
            role = Role::System;
        }
        places.extend(found);
    }
    places
}

fn names(host: &dyn Look, folder: &str, unread: &mut Vec<Unread>) -> Vec<String> {
    host.folder(Path::new(folder)).unwrap_or_else(|e| {
        unread.push(Unread { path: folder.to_owned(), why: e.message, given: false });
        Vec::new()
    })
}

/// `kern.log`, `kern.log.1`, `kern.log.2.gz`, `messages-20261115`, `messages-20261115.gz`.
fn rotated_of(name: &str, base: &str) -> bool {
    name.strip_prefix(base).is_some_and(|rest| {
        let rest =
            ["gz", "xz", "bz2", "zst"].iter().find_map(|e| rest.strip_suffix(e)?.strip_suffix('.')).unwrap_or(rest);
        let number = rest.strip_prefix(['.', '-']);
        rest.is_empty() || number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
    })
}

/// `php8.4-fpm.log`, `php-fpm.log.1`
fn is_php(name: &str) -> bool {
    name.starts_with("php") && name.contains("fpm") && name.contains(".log")
}

/// Files beside logs that are none: counters of bytes, process ids, sockets.
fn is_no_log(name: &str) -> bool {
    name.contains("bytes_log") || [".pid", ".sock", ".offset", ".offsetftpbytes"].iter().any(|e| name.ends_with(e))
}

/// How many bytes tell how something is packed.
pub(super) const MAGIC: usize = 6;

/// A form that nothing here reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packer {
    /// What was done to the text, in words.
    pub done: &'static str,
    /// What prints such a file as plain text.
    pub cat: &'static str,
}

/// Such a form, by the first bytes of what is in it. UTF-16 is what PowerShell writes.
pub(super) fn packer(begins: &[u8]) -> Option<Packer> {
    const UTF_16: &str = "written in UTF-16";
    let known: [(&[u8], _, _); 6] = [
        (b"\xfd7zXZ\0", "packed with xz", "xzcat"),
        (b"\x28\xb5\x2f\xfd", "packed with zstd", "zstdcat"),
        (b"BZh", "packed with bzip2", "bzcat"),
        (b"\x04\x22\x4d\x18", "packed with lz4", "lz4cat"),
        (b"\xff\xfe", UTF_16, "iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff", UTF_16, "iconv -f UTF-16 -t UTF-8"),
    ];
    let (_, done, cat) = known.into_iter().find(|(magic, ..)| begins.starts_with(magic))?;
    Some(Packer { done, cat })
}

/// A setting that makes a web server write visitors' addresses instead of Cloudflare's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mask {
    pub server: &'static str,
    pub setting: &'static str,
    /// The file, and the line where there are lines.
    pub place: String,
}

/// Such settings, as far as the configurations say so.
pub(super) fn masks(host: &dyn Look, configs: &Configs<'_>) -> Vec<Mask> {
    const LITESPEED: [&str; 2] = ["/usr/local/lsws/conf/httpd_config.conf", "/usr/local/lsws/conf/httpd_config.xml"];
    const IN_HEADER: &str = "useIpInProxyHeader";
    let mut found = Vec::new();
    for (server, setting, said) in
        [("nginx", "real_ip_header", configs.nginx()), ("Apache", "RemoteIPHeader", configs.apache())]
    {
        let set = said.directives.iter().filter(|d| d.is(setting));
        found.extend(set.map(|d| Mask { server, setting, place: d.place() }));
    }
    for file in LITESPEED {
        let Ok(Some(seen)) = host.file(Path::new(file)) else { continue };
        if sets(&String::from_utf8_lossy(&seen.content), IN_HEADER) {
            found.push(Mask { server: "LiteSpeed", setting: IN_HEADER, place: file.to_owned() });
        }
    }
    found
}

/// Whether a line begins with the setting and doesn't switch it off.
fn sets(text: &str, setting: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start().trim_start_matches('<');
        let value =
            line.get(..setting.len()).filter(|w| w.eq_ignore_ascii_case(setting)).map(|_| &line[setting.len()..]);
        value.is_some_and(|v| v.starts_with([' ', '\t', '>']) && !v.trim_start_matches('>').trim().starts_with('0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_known_by_their_names() {
        for name in ["syslog", "syslog.1", "syslog.2.gz", "syslog-20261115", "syslog-20261115.gz", "syslog.3.xz"] {
            assert!(rotated_of(name, "syslog"), "{name}");
        }
        for name in ["syslog-ng.conf", "syslogs", "syslog.", "syslog.old", "kern.log"] {
            assert!(!rotated_of(name, "syslog"), "{name}");
        }
    }

    #[test]
    fn a_setting_counts_where_it_is_set() {
        assert!(sets("<useIpInProxyHeader>2</useIpInProxyHeader>", "useIpInProxyHeader"));
        assert!(sets("{\n  useipinproxyheader 1\n}", "useIpInProxyHeader"));
        for text in ["# useIpInProxyHeader 1", "useIpInProxyHeaders 1", "", "useIpInProxyHeader 0", "é"] {
            assert!(!sets(text, "useIpInProxyHeader"), "{text}");
        }
    }
}
