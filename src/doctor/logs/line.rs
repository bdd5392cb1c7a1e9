//! What a line of a log says.
//!
//! Whoever sends a request writes in a log: a path, a name, a header. So a line is read from its beginning, each part
//! in the place where the program itself writes it, and never searched for words.
//!
//! Belongs here: the formats of lines. Does not: times ([`super::times`]), what may be shown of a line
//! ([`super::redact`]).

use std::net::IpAddr;

use jiff::Timestamp;

use super::{
    symptom::{Kind, Symptom},
    times::Clock,
};

/// Reads the lines of one log.
pub(super) struct Reader<'a> {
    pub clock: &'a Clock,
    /// The columns of IIS, as the last header named them.
    iis: Option<Iis>,
}

/// Where in a line of IIS the columns are.
struct Iis {
    date: usize,
    time: usize,
    client: usize,
    path: Option<usize>,
    status: usize,
    substatus: usize,
}

/// A message, whoever wrote it.
struct Message {
    kind: Kind,
    client: Option<IpAddr>,
    rule: String,
    port: Option<u16>,
    guarded: bool,
    ours: bool,
}

impl Message {
    fn new(kind: Kind, client: Option<IpAddr>, rule: impl Into<String>) -> Self {
        Self { kind, client, rule: rule.into(), port: None, guarded: false, ours: false }
    }
}

impl<'a> Reader<'a> {
    pub const fn new(clock: &'a Clock) -> Self {
        Self { clock, iis: None }
    }

    /// What the line says, if it is something that is looked for.
    pub fn read(&mut self, line: &str) -> Option<Symptom> {
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        if let Some(columns) = line.strip_prefix("#Fields: ") {
            self.iis = Iis::new(columns);
            return None;
        }
        let (at, message) = self.message(line)?;
        let Message { kind, client, rule, port, guarded, ours } = message;
        Some(Symptom { kind, at, client, rule: short(&rule), port, guarded, ours })
    }

    fn message(&self, line: &str) -> Option<(Timestamp, Message)> {
        if let Some(found) = self.iis.as_ref().and_then(|iis| iis.read(line)) {
            return Some(found);
        }
        if let Some((at, rest)) = self.clock.nginx(line) {
            return Some((at, nginx(rest)?));
        }
        if let Some(rest) = line.strip_prefix('[') {
            if let Some((at, rest)) = self.clock.apache(rest) {
                let rest = rest.strip_prefix("] ")?;
                return Some((at, if is_apaches(rest) { apache(rest) } else { kernel(rest) }?));
            }
            let (at, rest) = self.clock.php(rest)?;
            return Some((at, php(rest.strip_prefix("] ")?.split_once(": ")?.1)?));
        }
        if let Some((at, rest)) = self.clock.iso(line) {
            let rest = rest.strip_prefix(' ')?;
            let own = if line.as_bytes().get(10) == Some(&b'T') { self.program(rest) } else { None };
            return Some((at, own.or_else(|| fail2ban(rest)).or_else(|| litespeed(rest))?));
        }
        if let Some((at, rest)) = self.clock.syslog(line) {
            return Some((at, self.program(rest.strip_prefix(' ')?)?));
        }
        access(line)
    }

    /// `host program[1234]: message`
    fn program(&self, text: &str) -> Option<Message> {
        let (_, rest) = text.split_once(' ')?;
        let (tag, message) = rest.split_once(": ")?;
        if tag.contains(' ') {
            return None;
        }
        let name = tag.split_once('[').map_or(tag, |(name, _)| name);
        match name {
            "kernel" => kernel(message),
            "mod_evasive" => evasive(message),
            "lfd" => lfd(message),
            "nginx" => match self.clock.nginx(message) {
                Some((_, rest)) => nginx(rest),
                None => nginx(message),
            },
            "apache2" | "httpd" => apache(message),
            // By itself, or caught by the service manager with a time of its own.
            _ if name.starts_with("fail2ban") => {
                let timed = || fail2ban(self.clock.iso(message)?.1.strip_prefix(' ')?);
                banned(message).or_else(timed)
            }
            _ if name.starts_with("php") => php(message),
            _ => None,
        }
    }
}

/// ` [error] 12#12: *3 message`
fn nginx(text: &str) -> Option<Message> {
    let text = text.trim_start();
    let (_, rest) = text.strip_prefix('[')?.split_once("] ")?;
    let (ids, rest) = rest.split_once(": ")?;
    if !ids.bytes().all(|b| b.is_ascii_digit() || b == b'#') {
        return None;
    }
    let rest = match rest.strip_prefix('*') {
        Some(rest) => rest.split_once(' ')?.1,
        None => rest,
    };
    let client = |text: &str| address(text.split_once(", client: ")?.1.split([',', ' ']).next()?);
    if let Some(rest) = rest.strip_prefix("access forbidden by rule") {
        let mut message = Message::new(Kind::NginxDenies, client(rest), format!("deny of server {}", server(rest)));
        message.guarded = guarded(request_path(rest));
        return Some(message);
    }
    if let Some(rest) = rest.strip_prefix("limiting requests, excess: ") {
        let (_, zone) = rest.split_once(" by zone \"")?;
        return Some(Message::new(Kind::NginxLimits, client(zone), format!("limit_req zone {}", quoted(zone))));
    }
    if let Some(zone) = rest.strip_prefix("limiting connections by zone \"") {
        return Some(Message::new(Kind::NginxLimits, client(zone), format!("limit_conn zone {}", quoted(zone))));
    }
    let unnumbered = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    if unnumbered.len() < rest.len() && unnumbered.starts_with(" worker_connections are not enough") {
        let number = &rest[..rest.len() - unnumbered.len()];
        return Some(Message::new(Kind::Connections, None, format!("worker_connections {number}")));
    }
    if let Some(rest) = rest.strip_prefix("[client ") {
        let (client, rest) = rest.split_once("] ")?;
        return rest.starts_with(MODSECURITY).then(|| modsecurity(address(client), rest));
    }
    // The system's word comes before the client, what the client sent after it.
    let own = rest.split(", client: ").next()?;
    own.contains("(24: Too many open files)").then(|| Message::new(Kind::OpenFiles, None, "nginx"))
}

/// Whether `[module:level]`, or `[level]` as it once was, begins this: `dmesg -T` writes its times as Apache does.
fn is_apaches(text: &str) -> bool {
    let group = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    group.is_some_and(|(group, _)| {
        group.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:".contains(&b))
    })
}

/// `[module:level] [pid 1:tid 2] [client 192.0.2.1:5] AH01630: message`
fn apache(text: &str) -> Option<Message> {
    let (mut rest, mut client, mut evasive_denies) = (text, None, false);
    while let Some((group, after)) = rest.strip_prefix('[').and_then(|r| r.split_once("] ")) {
        client = client.or_else(|| address_and_port(group.strip_prefix("client ")?));
        evasive_denies |= group.starts_with("evasive");
        rest = after;
    }
    if rest.starts_with("(24)Too many open files: ") {
        return Some(Message::new(Kind::OpenFiles, None, "Apache"));
    }
    if rest.starts_with(MODSECURITY) {
        return Some(modsecurity(client, rest));
    }
    let (code, rest) = match rest.split_once(": ") {
        Some((code, rest)) if code.len() == 7 && code.starts_with("AH") => (code, rest),
        _ => ("", rest),
    };
    if let Some(path) = rest.strip_prefix("client denied by server configuration: ") {
        if evasive_denies {
            return Some(Message::new(Kind::ModEvasive, client, "answered 403"));
        }
        let mut message = Message::new(Kind::ApacheDenies, client, if code.is_empty() { "denied" } else { code });
        message.guarded = guarded(path.split(", referer: ").next().unwrap_or(path));
        return Some(message);
    }
    if rest.starts_with("server reached MaxRequestWorkers") || rest.starts_with("server reached MaxClients") {
        return Some(Message::new(Kind::Workers, None, "MaxRequestWorkers of Apache"));
    }
    evasive(rest)
}

/// `Blacklisting address 192.0.2.1: possible DoS attack.`; newer releases have another word for the list.
fn evasive(message: &str) -> Option<Message> {
    let rest = ["Blacklisting address ", "Blocklisting address "].iter().find_map(|p| message.strip_prefix(p))?;
    let (client, _) = rest.split_once(": possible ")?;
    Some(Message::new(Kind::ModEvasive, Some(address(client)?), "blacklisted"))
}

const MODSECURITY: &str = "ModSecurity: Access denied";

/// The tags come after what was matched, which the visitor wrote; the last of a name is ModSecurity's own.
fn modsecurity(client: Option<IpAddr>, text: &str) -> Message {
    let id = tag(text, "id").filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()));
    Message::new(Kind::ModSecurity, client, id.map_or_else(|| "a rule".to_owned(), |id| format!("rule {id}")))
}

/// `[name "value"]`
pub(super) fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.rsplit_once(&format!("[{name} \""))?;
    Some(rest.split_once("\"]")?.0)
}

/// `[NOTICE] [1234] [192.0.2.1:50000#site] [ACL] Access to context [/] is denied!`
fn litespeed(text: &str) -> Option<Message> {
    let (mut rest, mut client, mut last) = (text, None, "");
    while let Some((group, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        client = client.or_else(|| peer(group));
        (last, rest) = (group, after.trim_start());
    }
    if last == "ACL" && rest.starts_with("Access to context [") {
        let context = rest.strip_prefix("Access to context [")?.split_once(']')?.0;
        return Some(Message::new(Kind::LiteSpeedDenies, client, format!("access control of {context}")));
    }
    if rest.starts_with("is over per client soft connection limit") {
        return Some(Message::new(Kind::LiteSpeedLimits, client, "soft connection limit"));
    }
    if rest.starts_with("Reached per client connection hard limit") {
        return Some(Message::new(Kind::LiteSpeedLimits, client, "hard connection limit"));
    }
    if rest.starts_with(MODSECURITY) {
        return Some(modsecurity(client, rest));
    }
    rest.contains("Too many open files")
        .then(|| Message::new(Kind::OpenFiles, None, "LiteSpeed"))
        .filter(|_| client.is_none())
}

/// `192.0.2.1:50000:HTTP2-1#site`, `192.0.2.1`
fn peer(group: &str) -> Option<IpAddr> {
    let mut text = group.split('#').next()?.trim_start_matches('[');
    for _ in 0..3 {
        if let Some(ip) = address(text) {
            return Some(ip);
        }
        text = text.rsplit_once(':')?.0;
    }
    None
}

/// `fail2ban.actions        [1234]: NOTICE  [jail] Ban 192.0.2.1`
fn fail2ban(text: &str) -> Option<Message> {
    let (head, message) = text.split_once("]: ")?;
    let known = head.starts_with("fail2ban.") && head.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with('[');
    if known { banned(message) } else { None }
}

/// `NOTICE  [jail] Ban 192.0.2.1`
fn banned(message: &str) -> Option<Message> {
    let (_, rest) =
        message.strip_prefix("NOTICE")?.trim_start().split_at_checked(1).filter(|(open, _)| *open == "[")?;
    let (jail, rest) = rest.split_once("] ")?;
    let of = |kind, word: &str| rest.strip_prefix(word).map(|rest| (kind, rest));
    let (kind, rest) = of(Kind::Bans, "Ban ")
        .or_else(|| of(Kind::Bans, "Restore Ban "))
        .or_else(|| of(Kind::Bans, "Increase Ban "))
        .or_else(|| of(Kind::Unbans, "Unban "))?;
    Some(Message::new(kind, Some(address(rest.split(' ').next()?)?), format!("jail {jail}")))
}

/// `(sshd) Failed SSH login from 192.0.2.1 (US/United States/-): 5 in the last 3600 secs - *Blocked in csf* [LF_SSHD]`
fn lfd(message: &str) -> Option<Message> {
    let (before, after) = message.rsplit_once("Blocked in csf")?;
    let bare = |word: &str| address(word.trim_start_matches('(').trim_end_matches([')', ':', ',']));
    let client = before.split(' ').find_map(|word| address(word).or_else(|| bare(word)));
    let trigger = after.rsplit_once('[').and_then(|(_, t)| t.split_once(']')).map_or("", |(t, _)| t);
    Some(Message::new(Kind::Lfd, Some(client?), if trigger.is_empty() { "lfd" } else { trigger }))
}

/// `WARNING: [pool www] server reached pm.max_children setting (5), consider raising it`
fn php(message: &str) -> Option<Message> {
    let message = message.strip_prefix("WARNING: ").unwrap_or(message);
    let (pool, rest) = message.strip_prefix("[pool ")?.split_once("] ")?;
    let reached = rest.starts_with("server reached pm.max_children setting");
    reached.then(|| Message::new(Kind::Workers, None, format!("pm.max_children of pool {pool}")))
}

/// `[12345.678901] [UFW BLOCK] IN=eth0 OUT= … SRC=192.0.2.1 DST=… PROTO=TCP SPT=… DPT=443 … SYN URGP=0`
fn kernel(message: &str) -> Option<Message> {
    let stamped = message.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let seconds = |text: &str| text.trim().bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let message = stamped.filter(|(stamp, _)| seconds(stamp)).map_or(message, |(_, rest)| rest);
    if let Some((prefix, packet)) = message.split_once("IN=") {
        return dropped(prefix.trim(), packet);
    }
    if let Some((_, rest)) = message.split_once("ossible SYN flooding on port ") {
        let word = rest.split(' ').next()?.trim_end_matches('.');
        let mut found = Message::new(Kind::SynFlood, None, format!("port {word}"));
        found.port = Some(word.rsplit(':').next()?.parse().ok()?);
        return Some(found);
    }
    if message.starts_with("nf_conntrack: ") && message.contains("table full, dropping packet") {
        return Some(Message::new(Kind::Conntrack, None, "nf_conntrack"));
    }
    if message.starts_with("TCP: ") && message.contains("too many orphaned sockets") {
        return Some(Message::new(Kind::Orphans, None, "tcp_max_orphans"));
    }
    message.starts_with("VFS: file-max limit ").then(|| Message::new(Kind::OpenFiles, None, "fs.file-max"))
}

/// What is logged of a packet, if its prefix says that it was refused, and it is the first one of a connection: the
/// last packets of a connection that is forgotten already are refused everywhere, every day.
fn dropped(prefix: &str, packet: &str) -> Option<Message> {
    let word = prefix.to_ascii_lowercase();
    if !["block", "drop", "reject", "deny", "denied", "refuse"].iter().any(|w| word.contains(w)) {
        return None;
    }
    let (mut from, mut port, mut is_tcp, mut syn, mut ack) = (None, None, false, false, false);
    for word in packet.split(' ') {
        match word {
            "PROTO=TCP" => is_tcp = true,
            "SYN" => syn = true,
            "ACK" => ack = true,
            _ if word.starts_with("SRC=") => from = from.or(word.get(4..)),
            _ if word.starts_with("DPT=") => port = port.or(word.get(4..)),
            _ => {}
        }
    }
    if !is_tcp || !syn || ack {
        return None;
    }
    let mut found = Message::new(Kind::Packets, Some(address(from?)?), prefix);
    found.port = port.and_then(|p| p.parse().ok());
    Some(found)
}

/// How the agent of this program ([`crate::probe::http`]) begins in an access log.
const OUR_AGENT: &str = " \"edgeallow/";

/// `192.0.2.1 - - [22/Nov/2026:18:00:00 +0000] "GET / HTTP/1.1" 444 0`, or with the site's name before it.
fn access(line: &str) -> Option<(Timestamp, Message)> {
    let (who, rest) = line.split_once(" [")?;
    let client = who.split(' ').take(2).find_map(address)?;
    let (at, rest) = Clock::common(rest)?;
    // The server puts no bare quotation mark into a request.
    let (request, rest) = rest.strip_prefix("] \"")?.split_once('"')?;
    let status = rest.strip_prefix(' ')?.split(' ').next()?;
    let ours = rest.contains(OUR_AGENT);
    if status == "444" {
        let mut found = Message::new(Kind::Unanswered, Some(client), "return 444");
        (found.guarded, found.ours) = (guarded(path_of(request)), ours);
        return Some((at, found));
    }
    ours.then(|| (at, Message { ours, ..Message::new(Kind::Own, Some(client), "doctor") }))
}

impl Iis {
    fn new(columns: &str) -> Option<Self> {
        let at = |name: &str| columns.split(' ').position(|c| c == name);
        Some(Self {
            date: at("date")?,
            time: at("time")?,
            client: at("c-ip")?,
            path: at("cs-uri-stem"),
            status: at("sc-status")?,
            substatus: at("sc-substatus")?,
        })
    }

    fn read(&self, line: &str) -> Option<(Timestamp, Message)> {
        let column = |at: usize| line.split(' ').nth(at);
        let at = Clock::iis(column(self.date)?, column(self.time)?)?;
        let substatus = column(self.substatus)?;
        if column(self.status)? != "403" || !matches!(substatus, "1" | "6" | "501" | "502" | "503") {
            return None;
        }
        let mut found = Message::new(Kind::IisDenies, Some(address(column(self.client)?)?), format!("403.{substatus}"));
        found.guarded = self.path.and_then(column).is_some_and(guarded);
        Some((at, found))
    }
}

/// An address, and never one of the other family in disguise.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// `192.0.2.1:5`, `2001:db8::1:5`, or the address alone: Apache puts no brackets around it.
fn address_and_port(text: &str) -> Option<IpAddr> {
    let with_port = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    with_port.and_then(|(ip, _)| address(ip)).or_else(|| address(text))
}

/// Up to the next quotation mark.
fn quoted(text: &str) -> &str {
    text.split('"').next().unwrap_or(text)
}

/// The server's name in an error of nginx.
fn server(text: &str) -> &str {
    text.split_once(", server: ").and_then(|(_, rest)| rest.split(',').next()).unwrap_or("_")
}

/// The path in `, request: "GET /path?query HTTP/1.1"`.
fn request_path(text: &str) -> &str {
    text.split_once(", request: \"").map_or("", |(_, rest)| path_of(quoted(rest)))
}

/// The path in `GET /path?query HTTP/1.1`.
fn path_of(request: &str) -> &str {
    request.split(' ').nth(1).unwrap_or("").split('?').next().unwrap_or("")
}

/// Whether sites keep everybody from such a path: hidden files, and what nobody but an intruder asks for. A denial of
/// these says nothing about the one who asked.
fn guarded(path: &str) -> bool {
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
    const ENDINGS: [&str; 12] =
        [".sql", ".bak", ".ini", ".log", ".sh", ".conf", ".yml", ".inc", ".lock", ".swp", ".old", ".orig"];
    const FOLDERS: [&str; 6] = ["/vendor/", "/node_modules/", "/wp-includes/", "/phpmyadmin", "/cgi-bin/", "/uploads/"];
    let path = path.to_ascii_lowercase();
    let hidden = path.split('/').any(|part| part.len() > 1 && part.starts_with('.') && part != ".well-known");
    let last = path.rsplit('/').next().unwrap_or("");
    hidden
        || NAMES.contains(&last)
        || ENDINGS.iter().any(|e| last.ends_with(e))
        || FOLDERS.iter().any(|f| path.contains(f))
}

/// Short enough for a table, and in one line.
fn short(rule: &str) -> String {
    rule.chars().filter(|c| !c.is_control()).take(60).collect()
}
