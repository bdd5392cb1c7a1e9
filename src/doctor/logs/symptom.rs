//! The kinds of things that origins log when they turn Cloudflare away, and what each means.
//!
//! Belongs here: the kinds, in words. Does not: recognising them ([`super::line`]), or weighing them ([`super::judge`]).

use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;

/// A kind of thing that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// nginx: `access forbidden by rule`.
    NginxDenies,
    /// nginx: `limiting requests`, `limiting connections`.
    NginxLimits,
    /// Apache: `client denied by server configuration`.
    ApacheDenies,
    /// `ModSecurity: Access denied`, in whatever server.
    ModSecurity,
    /// mod_evasive: `Blacklisting address`.
    ModEvasive,
    /// LiteSpeed: `[ACL] Access to context […] is denied!`.
    LiteSpeedDenies,
    /// LiteSpeed: `is over per client soft connection limit`, `Reached per client connection hard limit`.
    LiteSpeedLimits,
    /// IIS: 403.1, 403.6, 403.501 to 403.503.
    IisDenies,
    /// A packet filter's log of what it did not let through.
    Packets,
    /// fail2ban: `Ban`.
    Bans,
    /// fail2ban: `Unban`; it is no symptom, but ends one.
    Unbans,
    /// lfd: `Blocked in csf`.
    Lfd,
    /// The kernel: `Possible SYN flooding on port`.
    SynFlood,
    /// The kernel: `nf_conntrack: table full, dropping packet`.
    Conntrack,
    /// The kernel: `TCP: too many orphaned sockets`.
    Orphans,
    /// The kernel: `Out of memory: Killed process`, of a program that serves sites.
    ServerKilled,
    /// The same of any other program.
    Killed,
    /// The kernel: `VFS: file-max limit … reached`.
    FileMax,
    /// `Too many open files`, of web servers.
    OpenFiles,
    /// nginx: `worker_connections are not enough`.
    Connections,
    /// Apache: `server reached MaxRequestWorkers`; PHP-FPM: `server reached pm.max_children`.
    Workers,
    /// nginx: a request that was not answered (444).
    Unanswered,
    /// An access log: a request of doctor's own. It is no symptom, but tells which of the others are doctor's doing.
    Own,
}

/// What a kind means.
pub(super) struct Meaning {
    /// The finding's id.
    pub id: &'static str,
    /// Who did what: `nginx denied`, to be followed by how often.
    pub who: &'static str,
    /// What is counted: `request`.
    pub what: &'static str,
    /// The errors that visitors see at Cloudflare for it; none where they see the origin's own answer.
    pub gives: &'static [u16],
    /// How to mend it.
    pub mend: &'static str,
    /// The command that shows more.
    pub command: Option<&'static str>,
}

impl Kind {
    pub const fn meaning(self) -> Meaning {
        let (id, who, what, gives, mend, command): (_, _, _, &[u16], _, Option<&str>) = match self {
            Self::NginxDenies => (
                "logs.nginx-denies",
                "nginx denied",
                "request",
                &[],
                "take Cloudflare's ranges out of what is denied, and let nginx see visitors' own addresses \
                 (set_real_ip_from, real_ip_header CF-Connecting-IP) where it shall judge them",
                Some("nginx -T 2>/dev/null | grep -nE '^ *(deny|allow|real_ip_header) '"),
            ),
            Self::NginxLimits => (
                "logs.nginx-limits",
                "nginx limited",
                "request",
                &[],
                "let nginx count visitors instead of Cloudflare's servers: set_real_ip_from for each range and \
                 real_ip_header CF-Connecting-IP",
                Some("nginx -T 2>/dev/null | grep -nE '^ *(limit_|real_ip_header)'"),
            ),
            Self::ApacheDenies => (
                "logs.apache-denies",
                "Apache denied",
                "request",
                &[],
                "let Cloudflare's ranges in where Apache requires an address, or let it see visitors' own \
                 (RemoteIPHeader CF-Connecting-IP) where it shall judge them",
                Some(
                    "grep -rnE 'Require (not )?(ip|host|all)|(Allow|Deny) from|RemoteIPHeader' /etc/apache2 /etc/httpd",
                ),
            ),
            Self::ModSecurity => (
                "logs.modsecurity",
                "ModSecurity denied",
                "request",
                &[],
                "let the web server see visitors' own addresses (CF-Connecting-IP), so that nobody's attack counts \
                 against Cloudflare, and leave out the rules that refuse good visitors",
                None,
            ),
            Self::ModEvasive => (
                "logs.mod-evasive",
                "mod_evasive blocked",
                "time",
                &[],
                "put Cloudflare's ranges on its white list",
                Some("edgeallow sync"),
            ),
            Self::LiteSpeedDenies => (
                "logs.litespeed-denies",
                "LiteSpeed denied",
                "request",
                &[],
                "add Cloudflare's ranges to the allowed list of its access control (Security, Access Control), each \
                 with a T for trusted",
                None,
            ),
            Self::LiteSpeedLimits => (
                "logs.litespeed-limits",
                "LiteSpeed's limit for a client closed",
                "connection",
                &[520, 521],
                "let LiteSpeed see visitors' own addresses (Use Client IP in Header: Trusted IP Only) and trust \
                 Cloudflare's ranges",
                None,
            ),
            Self::IisDenies => (
                "logs.iis-denies",
                "IIS denied",
                "request",
                &[],
                "allow Cloudflare's ranges in IP Address and Domain Restrictions, and let dynamic restrictions run in \
                 proxy mode",
                None,
            ),
            Self::Packets => (
                "logs.packets",
                "a packet filter kept out",
                "connection attempt",
                &[521, 522],
                "let Cloudflare's ranges through",
                Some("edgeallow verify"),
            ),
            Self::Bans => (
                "logs.fail2ban",
                "fail2ban banned",
                "time",
                &[521, 522],
                "let every jail ignore Cloudflare's ranges, and lift the bans",
                Some("edgeallow sync"),
            ),
            Self::Own => ("logs.read", "doctor asked", "time", &[], "", None),
            Self::Unbans => ("logs.fail2ban", "fail2ban lifted", "time", &[], "", None),
            Self::Lfd => (
                "logs.lfd",
                "lfd blocked",
                "time",
                &[521, 522],
                "let lfd ignore Cloudflare's ranges, and lift the blocks",
                Some("edgeallow sync"),
            ),
            Self::SynFlood => (
                "logs.syn-flood",
                "the kernel reported a full queue of new connections",
                "time",
                &[522],
                "let the web server's backlog and net.core.somaxconn be larger, and look at what keeps it from \
                 accepting",
                Some("ss -ltn"),
            ),
            Self::Conntrack => (
                "logs.conntrack",
                "the kernel dropped packets because its table of connections was full",
                "time",
                &[522],
                "let the table be larger",
                Some("sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max"),
            ),
            Self::Orphans => (
                "logs.orphans",
                "the kernel had too many orphaned sockets",
                "time",
                &[520, 522],
                "look at who closes connections without end, and let net.ipv4.tcp_max_orphans be larger",
                Some("cat /proc/net/sockstat"),
            ),
            Self::ServerKilled => (
                "logs.out-of-memory",
                "for want of memory the kernel killed a program that serves sites",
                "time",
                &[502, 520, 521],
                "look at what takes the memory: allow fewer workers (pm.max_children of PHP-FPM, MaxRequestWorkers of \
                 Apache), raise the limit of its unit or container if it has one, or add memory; and let systemd start \
                 what was killed again (Restart=on-failure)",
                Some("ps -eo rss,pid,comm --sort=-rss | head -n 15"),
            ),
            Self::Killed => (
                "logs.out-of-memory",
                "for want of memory the kernel killed a program, none that is known to serve sites,",
                "time",
                &[],
                "look at what takes the memory",
                Some("ps -eo rss,pid,comm --sort=-rss | head -n 15"),
            ),
            Self::FileMax => (
                "logs.open-files",
                "the whole machine ran out of open files",
                "time",
                &[520, 521, 522],
                "look at which program holds so many, and let fs.file-max be larger",
                Some("sysctl fs.file-nr fs.file-max"),
            ),
            Self::OpenFiles => (
                "logs.open-files",
                "a server ran out of open files",
                "time",
                &[520, 521, 522],
                "let it open more files: LimitNOFILE of its unit, worker_rlimit_nofile of nginx",
                None,
            ),
            Self::Connections => (
                "logs.worker-connections",
                "nginx had no worker_connections left",
                "time",
                &[520, 525],
                "let worker_connections be larger, and worker_rlimit_nofile at least twice as large",
                Some("nginx -T 2>/dev/null | grep -nE 'worker_(connections|processes|rlimit_nofile)'"),
            ),
            Self::Workers => (
                "logs.workers",
                "every worker was busy",
                "time",
                &[522, 524],
                "look at what keeps the workers busy, and allow more of them (MaxRequestWorkers of Apache, \
                 pm.max_children of PHP-FPM) as far as memory goes",
                None,
            ),
            Self::Unanswered => (
                "logs.unanswered",
                "nginx closed without an answer (444)",
                "request",
                &[520],
                "look at each `return 444`: a visitor behind Cloudflare sees an error page for it",
                Some("nginx -T 2>/dev/null | grep -n 'return 444'"),
            ),
        };
        Meaning { id, who, what, gives, mend, command }
    }

    /// Whether it is about an address, and says something only if that is Cloudflare's.
    pub const fn has_address(self) -> bool {
        !matches!(
            self,
            Self::SynFlood
                | Self::Conntrack
                | Self::Orphans
                | Self::ServerKilled
                | Self::Killed
                | Self::FileMax
                | Self::OpenFiles
                | Self::Connections
                | Self::Workers
        )
    }

    /// Whether it says what became of a request.
    pub const fn is_of_a_request(self) -> bool {
        matches!(self, Self::ModSecurity | Self::ModEvasive | Self::IisDenies) || self.web_server().is_some()
    }

    /// The web server whose word it is, where that can be made to see visitors' addresses instead of Cloudflare's.
    pub const fn web_server(self) -> Option<&'static str> {
        match self {
            Self::NginxDenies | Self::NginxLimits | Self::Unanswered => Some("nginx"),
            Self::ApacheDenies => Some("Apache"),
            Self::LiteSpeedDenies | Self::LiteSpeedLimits => Some("LiteSpeed"),
            _ => None,
        }
    }
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Symptom<'a> {
    pub kind: Kind,
    /// When it was written.
    pub at: Timestamp,
    /// Whom it is about.
    pub client: Option<IpAddr>,
    pub rule: Rule<'a>,
    /// The port that was asked for, where the line names one.
    pub port: Option<u16>,
    /// Whether it was denied for what only an intruder asks for, and would have been denied to anybody.
    pub guarded: bool,
    /// Whether the one who asked called himself by this program's name.
    pub ours: bool,
}

impl Symptom<'_> {
    /// Without the line.
    pub fn into_owned(self) -> Symptom<'static> {
        let Rule { what, name } = self.rule;
        Symptom { rule: Rule { what, name: Cow::Owned(name.into_owned()) }, ..self }
    }
}

/// By which rule: a zone, a jail, the number of a rule, a prefix. In two parts, so that nothing is put together for a line
/// that is like one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule<'a> {
    what: &'static str,
    name: Cow<'a, str>,
}

impl<'a> Rule<'a> {
    pub const fn new(what: &'static str, name: &'a str) -> Self {
        Self { what, name: Cow::Borrowed(name) }
    }

    /// Short enough for a table, and in one line.
    pub fn short(&self) -> String {
        self.what.chars().chain(self.name.chars()).filter(|c| !c.is_control()).take(60).collect()
    }

    /// Whether it is this, letter for letter.
    pub fn is(&self, text: &str) -> bool {
        let (what, name) = (self.what, &*self.name);
        text.len() == what.len() + name.len() && text.ends_with(name) && text.starts_with(what)
    }
}
