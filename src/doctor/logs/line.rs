//! What a line of a log says.
//!
//! Whoever sends a request writes in a log: a path, a name, a header. So a line is read from its beginning, each part
//! in the place where the program itself writes it, and never searched for words.
//!
//! Belongs here: the formats of lines. Does not: times ([`super::times`]), what may be shown of a line
//! ([`super::redact`]).

use std::{net::IpAddr, sync::LazyLock};

use jiff::Timestamp;
use memchr::{memchr_iter, memchr2, memrchr_iter};

use super::{
    guarded::guarded,
    killed,
    symptom::{Kind, Rule, Symptom},
    times::Clock,
    words::{Searcher, after, after_digits, before, begins, cut, cut_last, words},
};
use crate::allowlist::Prefixes;

/// Reads the lines of one log.
pub(super) struct Reader<'a> {
    clock: &'a Clock,
    edge: &'a Prefixes,
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
struct Message<'a> {
    kind: Kind,
    client: Option<IpAddr>,
    rule: Rule<'a>,
    port: Option<u16>,
    guarded: bool,
    ours: bool,
}

impl<'a> Message<'a> {
    /// By a rule that is a fixed word, and its name.
    const fn new(kind: Kind, client: Option<IpAddr>, what: &'static str, name: &'a str) -> Self {
        Self { kind, client, rule: Rule::new(what, name), port: None, guarded: false, ours: false }
    }
}

impl<'a> Reader<'a> {
    /// Packets are read only if they are from `edge`: a log of refused ones has millions, and nearly all are strangers'.
    pub const fn new(clock: &'a Clock, edge: &'a Prefixes) -> Self {
        Self { clock, edge, iis: None }
    }

    /// What the line says, if it is something that is looked for.
    pub fn read<'l>(&mut self, line: &'l str) -> Option<Symptom<'l>> {
        let line = line.strip_prefix("\u{feff}").unwrap_or(line);
        if let Some(columns) = line.strip_prefix("#Fields: ") {
            self.iis = Iis::new(columns);
            return None;
        }
        let (at, message) = self.message(line)?;
        let Message { kind, client, rule, port, guarded, ours } = message;
        Some(Symptom { kind, at, client, rule, port, guarded, ours })
    }

    fn message<'l>(&self, line: &'l str) -> Option<(Timestamp, Message<'l>)> {
        if let Some(found) = self.iis.as_ref().and_then(|iis| iis.read(line)) {
            return Some(found);
        }
        if let Some((at, rest)) = self.clock.nginx(line) {
            return Some((at, nginx(rest)?));
        }
        if let Some(rest) = after(line, b'[') {
            if let Some((at, rest)) = self.clock.apache(rest) {
                let rest = rest.strip_prefix("] ")?;
                return Some((at, if is_apaches(rest) { apache(rest) } else { self.kernel(rest) }?));
            }
            let (at, rest) = self.clock.php(rest)?;
            return Some((at, php(cut(rest.strip_prefix("] ")?, ": ")?.1)?));
        }
        if let Some((at, rest)) = self.clock.iso(line) {
            let rest = after(rest, b' ')?;
            let own = if line.as_bytes().get(10) == Some(&b'T') { self.program(rest) } else { None };
            return Some((at, own.or_else(|| fail2ban(rest)).or_else(|| litespeed(rest))?));
        }
        if let Some((at, rest)) = self.clock.syslog(line) {
            return Some((at, self.program(after(rest, b' ')?)?));
        }
        self.access(line)
    }

    /// `host program[1234]: message`
    fn program<'l>(&self, text: &'l str) -> Option<Message<'l>> {
        let (tag, message) = cut(cut(text, " ")?.1, ": ")?;
        if cut(tag, " ").is_some() {
            return None;
        }
        let name = before(tag, "[");
        match name {
            "kernel" => self.kernel(message),
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

    /// `[12345.678901] [UFW BLOCK] IN=eth0 OUT= … SRC=192.0.2.1 DST=… PROTO=TCP SPT=… DPT=443 … SYN URGP=0`
    fn kernel<'l>(&self, message: &'l str) -> Option<Message<'l>> {
        let stamped = message.strip_prefix('[').and_then(|rest| cut(rest, "] "));
        let seconds = |text: &str| text.trim().bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let message = stamped.filter(|(stamp, _)| seconds(stamp)).map_or(message, |(_, rest)| rest);
        if let Some((prefix, packet)) = cut(message, "IN=") {
            return dropped(prefix.trim(), packet, self.edge);
        }
        if let Some((_, rest)) = cut(message, "ossible SYN flooding on port ") {
            let word = before(rest, " ").trim_end_matches('.');
            let mut found = Message::new(Kind::SynFlood, None, "port ", word);
            found.port = Some(cut_last(word, ":").map_or(word, |(_, port)| port).parse().ok()?);
            return Some(found);
        }
        if message.starts_with("nf_conntrack: ") && cut(message, "table full, dropping packet").is_some() {
            return Some(Message::new(Kind::Conntrack, None, "nf_conntrack", ""));
        }
        if message.starts_with("TCP: ") && cut(message, "too many orphaned sockets").is_some() {
            return Some(Message::new(Kind::Orphans, None, "tcp_max_orphans", ""));
        }
        if let Some(name) = killed::killed(message) {
            return Some(Message::new(killed::kind(name), None, "", name));
        }
        message.starts_with("VFS: file-max limit ").then(|| Message::new(Kind::FileMax, None, "fs.file-max", ""))
    }

    /// `192.0.2.1 - - [22/Nov/2026:18:00:00 +0000] "GET / HTTP/1.1" 444 0`, or with the site's name before it.
    fn access<'l>(&self, line: &'l str) -> Option<(Timestamp, Message<'l>)> {
        let (who, rest) = cut(line, " [")?;
        let client = words(who).take(2).find_map(address)?;
        let (at, rest) = self.clock.common(rest)?;
        // The server puts no bare quotation mark into a request.
        let (request, rest) = cut(rest.strip_prefix("] \"")?, "\"")?;
        let status = before(after(rest, b' ')?, " ");
        let ours = is_ours(rest);
        if status == "444" {
            let mut found = Message::new(Kind::Unanswered, Some(client), "return 444", "");
            (found.guarded, found.ours) = (guarded(path_of(request)), ours);
            return Some((at, found));
        }
        ours.then(|| (at, Message { ours, ..Message::new(Kind::Own, Some(client), "doctor", "") }))
    }
}

/// Whether an agent in quotation marks calls itself by this program's name ([`crate::probe::http`]).
fn is_ours(text: &str) -> bool {
    let text = text.as_bytes();
    memchr_iter(b'"', text).any(|at| at > 0 && text[at - 1] == b' ' && text[at + 1..].starts_with(b"edgeallow/"))
}

/// ` [error] 12#12: *3 message`
fn nginx(text: &str) -> Option<Message<'_>> {
    let (_, rest) = cut(text.trim_start().strip_prefix('[')?, "] ")?;
    let (ids, rest) = cut(rest, ": ")?;
    if !ids.bytes().all(|b| b.is_ascii_digit() || b == b'#') {
        return None;
    }
    let rest = match after(rest, b'*') {
        Some(rest) => cut(rest, " ")?.1,
        None => rest,
    };
    let client = |text| address(before(before(cut(text, ", client: ")?.1, ","), " "));
    if let Some(rest) = rest.strip_prefix("access forbidden by rule") {
        let mut message = Message::new(Kind::NginxDenies, client(rest), "deny of server ", server(rest));
        message.guarded = guarded(request_path(rest));
        return Some(message);
    }
    if let Some(rest) = rest.strip_prefix("limiting requests, excess: ") {
        let (_, zone) = cut(rest, " by zone \"")?;
        return Some(Message::new(Kind::NginxLimits, client(zone), "limit_req zone ", before(zone, "\"")));
    }
    if let Some(zone) = rest.strip_prefix("limiting connections by zone \"") {
        return Some(Message::new(Kind::NginxLimits, client(zone), "limit_conn zone ", before(zone, "\"")));
    }
    let unnumbered = after_digits(rest);
    // With `, reusing connections` it closes idle ones instead, and turns nobody away.
    const LACKING: &str = " worker_connections are not enough";
    let lacking = unnumbered.strip_prefix(LACKING).is_some_and(|how| !how.starts_with(", reusing "));
    if unnumbered.len() < rest.len() && lacking {
        let number = &rest[..rest.len() - unnumbered.len()];
        return Some(Message::new(Kind::Connections, None, "worker_connections ", number));
    }
    if let Some(rest) = rest.strip_prefix("[client ") {
        let (client, rest) = cut(rest, "] ")?;
        return rest.starts_with(MODSECURITY).then(|| modsecurity(address(client), rest));
    }
    // The system's word comes before the client, what the client sent after it.
    cut(before(rest, ", client: "), "(24: Too many open files)")?;
    Some(Message::new(Kind::OpenFiles, None, "nginx", ""))
}

/// Whether `[module:level]`, or `[level]` as it once was, begins this: `dmesg -T` writes its times as Apache does.
fn is_apaches(text: &str) -> bool {
    let group = after(text, b'[').and_then(|rest| cut(rest, "]"));
    group.is_some_and(|(group, _)| {
        group.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:".contains(&b))
    })
}

/// `[module:level] [pid 1:tid 2] [client 192.0.2.1:5] AH01630: message`
fn apache(text: &str) -> Option<Message<'_>> {
    let (mut rest, mut client, mut evasive_denies) = (text, None, false);
    while let Some((group, after)) = after(rest, b'[').and_then(|r| cut(r, "] ")) {
        client = client.or_else(|| address_and_port(group.strip_prefix("client ")?));
        evasive_denies |= group.starts_with("evasive");
        rest = after;
    }
    if rest.starts_with("(24)Too many open files: ") {
        return Some(Message::new(Kind::OpenFiles, None, "Apache", ""));
    }
    if rest.starts_with(MODSECURITY) {
        return Some(modsecurity(client, rest));
    }
    let (code, rest) = match cut(rest, ": ") {
        Some((code, rest)) if code.len() == 7 && code.starts_with("AH") => (code, rest),
        _ => ("", rest),
    };
    if let Some(path) = rest.strip_prefix("client denied by server configuration: ") {
        if evasive_denies {
            return Some(Message::new(Kind::ModEvasive, client, "answered 403", ""));
        }
        let mut message = Message::new(Kind::ApacheDenies, client, "", if code.is_empty() { "denied" } else { code });
        message.guarded = guarded(before(path, ", referer: "));
        return Some(message);
    }
    if rest.starts_with("server reached MaxRequestWorkers") || rest.starts_with("server reached MaxClients") {
        return Some(Message::new(Kind::Workers, None, "MaxRequestWorkers of Apache", ""));
    }
    evasive(rest)
}

/// `Blacklisting address 192.0.2.1: possible DoS attack.`; newer releases have another word for the list.
fn evasive(message: &str) -> Option<Message<'_>> {
    let rest = ["Blacklisting address ", "Blocklisting address "].iter().find_map(|p| message.strip_prefix(p))?;
    let (client, _) = cut(rest, ": possible ")?;
    Some(Message::new(Kind::ModEvasive, Some(address(client)?), "blacklisted", ""))
}

const MODSECURITY: &str = "ModSecurity: Access denied";

/// The tags come after what was matched, which the visitor wrote; the last of a name is ModSecurity's own.
fn modsecurity(client: Option<IpAddr>, text: &str) -> Message<'_> {
    let id = tag(text, "id").filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()));
    let (what, name) = id.map_or(("a rule", ""), |id| ("rule ", id));
    Message::new(Kind::ModSecurity, client, what, name)
}

/// `[name "value"]`
pub(super) fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |at: usize| text[at + 1..].strip_prefix(name)?.strip_prefix(" \"");
    Some(cut(memrchr_iter(b'[', text.as_bytes()).find_map(value)?, "\"]")?.0)
}

/// `[NOTICE] [1234] [192.0.2.1:50000#site] [ACL] Access to context [/] is denied!`
fn litespeed(text: &str) -> Option<Message<'_>> {
    let (mut rest, mut client, mut last) = (text, None, "");
    while let Some((group, after)) = after(rest, b'[').and_then(|r| cut(r, "]")) {
        client = client.or_else(|| peer(group));
        (last, rest) = (group, after.trim_start());
    }
    if last == "ACL" && rest.starts_with("Access to context [") {
        let context = cut(rest.strip_prefix("Access to context [")?, "]")?.0;
        return Some(Message::new(Kind::LiteSpeedDenies, client, "access control of ", context));
    }
    if rest.starts_with("is over per client soft connection limit") {
        return Some(Message::new(Kind::LiteSpeedLimits, client, "soft connection limit", ""));
    }
    if rest.starts_with("Reached per client connection hard limit") {
        return Some(Message::new(Kind::LiteSpeedLimits, client, "hard connection limit", ""));
    }
    if rest.starts_with(MODSECURITY) {
        return Some(modsecurity(client, rest));
    }
    let lacks = client.is_none() && cut(rest, "Too many open files").is_some();
    lacks.then(|| Message::new(Kind::OpenFiles, None, "LiteSpeed", ""))
}

/// `192.0.2.1:50000:HTTP2-1#site`, `192.0.2.1`
fn peer(group: &str) -> Option<IpAddr> {
    let mut text = before(group, "#").trim_start_matches('[');
    for _ in 0..3 {
        if let Some(ip) = address(text) {
            return Some(ip);
        }
        text = cut_last(text, ":")?.0;
    }
    None
}

/// `fail2ban.actions        [1234]: NOTICE  [jail] Ban 192.0.2.1`
fn fail2ban(text: &str) -> Option<Message<'_>> {
    let (head, message) = cut(text.strip_prefix("fail2ban.")?, "]: ")?;
    let known = head.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with('[');
    if known { banned(message) } else { None }
}

/// `NOTICE  [jail] Ban 192.0.2.1`
fn banned(message: &str) -> Option<Message<'_>> {
    let (_, rest) =
        message.strip_prefix("NOTICE")?.trim_start().split_at_checked(1).filter(|(open, _)| *open == "[")?;
    let (jail, rest) = cut(rest, "] ")?;
    let of = |kind, word: &str| rest.strip_prefix(word).map(|rest| (kind, rest));
    let (kind, rest) = of(Kind::Bans, "Ban ")
        .or_else(|| of(Kind::Bans, "Restore Ban "))
        .or_else(|| of(Kind::Bans, "Increase Ban "))
        .or_else(|| of(Kind::Unbans, "Unban "))?;
    Some(Message::new(kind, Some(address(before(rest, " "))?), "jail ", jail))
}

/// `(sshd) Failed SSH login from 192.0.2.1 (US/United States/-): 5 in the last 3600 secs - *Blocked in csf* [LF_SSHD]`
fn lfd(message: &str) -> Option<Message<'_>> {
    let (text, after) = cut_last(message, "Blocked in csf")?;
    let like = |word: &&str| memchr2(b'.', b':', word.as_bytes()).is_some();
    let bare = |word: &str| address(word.trim_start_matches('(').trim_end_matches([')', ':', ',']));
    let client = words(text).filter(like).find_map(|word| address(word).or_else(|| bare(word)));
    let trigger = cut_last(after, "[").and_then(|(_, t)| cut(t, "]")).map_or("", |(t, _)| t);
    Some(Message::new(Kind::Lfd, Some(client?), "", if trigger.is_empty() { "lfd" } else { trigger }))
}

/// `WARNING: [pool www] server reached pm.max_children setting (5), consider raising it`
fn php(message: &str) -> Option<Message<'_>> {
    let message = message.strip_prefix("WARNING: ").unwrap_or(message);
    let (pool, rest) = cut(message.strip_prefix("[pool ")?, "] ")?;
    let reached = rest.starts_with("server reached pm.max_children setting");
    reached.then(|| Message::new(Kind::Workers, None, "pm.max_children of pool ", pool))
}

/// The words that matter of what is logged of a packet, in the order in which [`dropped`] knows them.
static PACKET: LazyLock<Option<Searcher>> =
    LazyLock::new(|| Searcher::new(&[" SRC=", " DPT=", " PROTO=TCP", " SYN", " ACK"]));

/// What is logged of a packet, if its prefix says that it was refused, and it is the first one of a connection: the
/// last packets of a connection that is forgotten already are refused everywhere, every day.
fn dropped<'a>(prefix: &'a str, packet: &'a str, edge: &Prefixes) -> Option<Message<'a>> {
    if !refuses(prefix) {
        return None;
    }
    let (mut from, mut port, mut is_tcp, mut syn, mut ack) = (None, None, false, false, false);
    let (marks, mut at) = (PACKET.as_ref()?, 0);
    while let Some(mark) = marks.find(packet.as_bytes(), at) {
        at = mark.end();
        let rest = &packet[at..];
        let ends = matches!(rest.as_bytes().first(), None | Some(b' '));
        match mark.pattern().as_u32() {
            0 if from.is_none() => from = Some(address(before(rest, " ")).filter(|from| edge.contains(*from))?),
            0 => {}
            1 => port = port.or(Some(rest)),
            2 => is_tcp |= ends,
            3 => syn |= ends,
            _ => ack |= ends,
        }
    }
    if !is_tcp || !syn || ack {
        return None;
    }
    let mut found = Message::new(Kind::Packets, Some(from?), "", prefix);
    found.port = port.and_then(|p| before(p, " ").parse().ok());
    Some(found)
}

/// Whether a word of refusal stands anywhere in a prefix.
fn refuses(prefix: &str) -> bool {
    let prefix = prefix.as_bytes();
    let here = |at: usize| match prefix[at].to_ascii_lowercase() {
        b'b' => begins(&prefix[at..], "block"),
        b'd' => ["drop", "deny", "denied"].iter().any(|word| begins(&prefix[at..], word)),
        b'r' => ["reject", "refuse"].iter().any(|word| begins(&prefix[at..], word)),
        _ => false,
    };
    (0..prefix.len()).any(here)
}

impl Iis {
    fn new(columns: &str) -> Option<Self> {
        let at = |name: &str| words(columns).position(|c| c == name);
        Some(Self {
            date: at("date")?,
            time: at("time")?,
            client: at("c-ip")?,
            path: at("cs-uri-stem"),
            status: at("sc-status")?,
            substatus: at("sc-substatus")?,
        })
    }

    fn read<'l>(&self, line: &'l str) -> Option<(Timestamp, Message<'l>)> {
        let mut columns = Vec::with_capacity(32);
        columns.extend(words(line));
        let column = |at: usize| columns.get(at).copied();
        let (status, substatus) = (column(self.status)?, column(self.substatus)?);
        if status != "403" || !matches!(substatus, "1" | "6" | "501" | "502" | "503") {
            return None;
        }
        let at = Clock::iis(column(self.date)?, column(self.time)?)?;
        let mut found = Message::new(Kind::IisDenies, Some(address(column(self.client)?)?), "403.", substatus);
        found.guarded = self.path.and_then(column).is_some_and(guarded);
        Some((at, found))
    }
}

/// An address, and never one of the other family in disguise.
fn address(text: &str) -> Option<IpAddr> {
    // Most words don't even begin like one.
    text.bytes().next().filter(|b| b.is_ascii_hexdigit() || *b == b':')?;
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// `192.0.2.1:5`, `2001:db8::1:5`, or the address alone: Apache puts no brackets around it.
fn address_and_port(text: &str) -> Option<IpAddr> {
    let with_port = cut_last(text, ":").filter(|(_, port)| port.parse::<u16>().is_ok());
    with_port.and_then(|(ip, _)| address(ip)).or_else(|| address(text))
}

/// The server's name in an error of nginx.
fn server(text: &str) -> &str {
    cut(text, ", server: ").map_or("_", |(_, rest)| before(rest, ","))
}

/// The path in `, request: "GET /path?query HTTP/1.1"`.
fn request_path(text: &str) -> &str {
    cut(text, ", request: \"").map_or("", |(_, rest)| path_of(before(rest, "\"")))
}

/// The path in `GET /path?query HTTP/1.1`.
fn path_of(request: &str) -> &str {
    before(words(request).nth(1).unwrap_or(""), "?")
}
