//! What was logged: web servers, bans, packet filters and the kernel, since the time that was asked for.
//!
//! A log has gigabytes. It is read once, in blocks, and only lines with certain words are looked at ([`scan`]); a line is
//! read from its beginning ([`line`]), counted if it is about Cloudflare ([`tally`]), and weighed at the end ([`judge`]).
//!
//! Belongs here: logs. Does not: what is so now, which the other rooms look at.

mod guarded;
mod judge;
mod killed;
mod lately;
mod line;
mod own;
mod places;
mod redact;
mod scan;
mod symptom;
mod tally;
#[cfg(test)]
mod tests;
mod times;
mod words;

use std::{
    borrow::Cow,
    cell::Cell,
    collections::BTreeSet,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, ToSpan as _, tz::TimeZone};

pub(super) use self::{judge::Seen, lately::Lately};
use self::{
    judge::{Present, bytes, judge},
    line::Reader,
    own::Own,
    places::{Packer, Place, Role, Unread},
    scan::Scan,
    symptom::{Kind, Symptom},
    times::Clock,
};
use super::{Context, directives::Configs};
use crate::{
    allowlist::Prefixes,
    error::io_reason,
    host::{Look, OpenLog},
    probe::http::VISITOR,
    report::{BackendState, Finding},
};

/// What the journal is asked for.
const IDENTIFIERS: [&str; 9] =
    ["kernel", "mod_evasive", "fail2ban.actions", "fail2ban-server", "lfd", "nginx", "apache2", "httpd", "php-fpm"];

/// How long the journal may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    let known = |state| matches!(state, BackendState::InSync | BackendState::Planned | BackendState::Pending);
    let present = Present {
        reach: cx.reach.is_ok(),
        backends: cx.backends.iter().filter(|b| known(b.state)).map(|b| b.name.to_string()).collect(),
        asked: cx.ask.words(cx.session.offline),
    };
    judge(cx.logged(), &present)
}

/// Reads the logs, which [`Context::logged`] does once.
pub(super) fn read(cx: &Context<'_>) -> Seen {
    let ask = Ask {
        own: &cx.links.iter().flat_map(|l| &l.addresses).map(|a| a.ip).chain([VISITOR.into()]).collect(),
        host: cx.session.host,
        configs: &cx.configs,
        edge: &cx.edge,
        ports: &cx.ports,
        given: &cx.ask.logs,
        since: cx.ask.since,
        now: cx.session.now,
        progress: cx.session.progress,
    };
    ask.read()
}

/// What is asked of the logs.
struct Ask<'a> {
    host: &'a dyn Look,
    configs: &'a Configs<'a>,
    edge: &'a Prefixes,
    ports: &'a BTreeSet<u16>,
    /// This machine's addresses, and that of the visitor on whose behalf doctor asks.
    own: &'a BTreeSet<IpAddr>,
    /// Files that were named.
    given: &'a [PathBuf],
    since: SignedDuration,
    /// When doctor began, too.
    now: Timestamp,
    progress: &'a dyn Fn(&str),
}

impl Ask<'_> {
    fn read(&self) -> Seen {
        let mut seen = Seen { since: self.since, ..Seen::default() };
        let Some(scan) = Scan::new() else { return seen };
        let from = self.now.checked_sub(self.since).unwrap_or(Timestamp::MIN);
        let until = self.now.checked_add(26.hours()).unwrap_or(Timestamp::MAX);
        let clock = Clock::new(zone(self.host), self.now);
        let mut work = Work {
            ask: self,
            clock,
            window: from..=until,
            scan,
            ids: BTreeSet::new(),
            done: 0,
            total: 0,
            has_fail2ban: false,
            has_lfd: false,
            own: Own::new(self.own, self.now),
            seen: &mut seen,
        };
        let given = self.given.iter().map(|path| Place { path: path.clone(), role: Role::Own, given: true });
        let mut places: Vec<Place> = given.chain(places::own(self.host, &mut work.seen.unread)).collect();
        work.keep_recent(&mut places);
        for place in &places {
            work.file(place);
        }
        if !work.journal() {
            let mut places = places::system(self.host, &mut work.seen.unread);
            work.seen.system |= !places.is_empty();
            work.keep_recent(&mut places);
            for place in &places {
                work.file(place);
            }
        } else {
            work.seen.system = true;
        }
        for line in work.own.others() {
            count(self, work.seen, line.found, &line.text, &line.file, line.given);
        }
        seen
    }
}

/// A reading under way.
struct Work<'a, 's> {
    ask: &'a Ask<'a>,
    clock: Clock,
    window: std::ops::RangeInclusive<Timestamp>,
    scan: Scan,
    /// Files that were read, under whatever name.
    ids: BTreeSet<(u64, u64)>,
    /// Bytes on disk that were read, and that are there to be read.
    done: u64,
    total: u64,
    /// Whether these have logs of their own, so that the system log only repeats them.
    has_fail2ban: bool,
    has_lfd: bool,
    own: Own<'a>,
    seen: &'s mut Seen,
}

impl Work<'_, '_> {
    /// Only what was written in the time that is asked about, and what was named.
    fn keep_recent(&mut self, places: &mut Vec<Place>) {
        let since = *self.window.start();
        let mut ids = BTreeSet::new();
        places.retain(|place| match self.ask.host.log(&place.path) {
            _ if place.is_input() => true,
            Ok(Some(log)) => {
                let wanted = place.given || (log.modified >= since && log.size > 0);
                if wanted && ids.insert(log.id) {
                    self.total += log.size;
                }
                wanted
            }
            // Said when it is read.
            _ if place.given => true,
            Ok(None) => false,
            // Folders and pipes beside logs are none.
            Err(e) if e.kind == crate::error::ErrorKind::FileRefused => false,
            Err(e) => {
                self.unread(place, e.message);
                false
            }
        });
    }

    fn unread(&mut self, place: &Place, why: String) {
        self.seen.unread.push(Unread { path: place.name(), why, given: place.given });
    }

    /// What somebody feeds to this program, of which neither the size nor the age is known before.
    fn input(&mut self, place: &Place) {
        let raw = Counting { inner: self.ask.host.standard_input(), taken: Rc::default() };
        match unpacked(raw) {
            Ok(Content::Plain(mut content) | Content::Unpacked(mut content)) => {
                self.lines(&mut content, &place.name(), place, &Rc::default());
            }
            Ok(Content::Packed(packer)) => {
                let why = format!("standard input is {}: pipe it through {}", packer.done, packer.cat);
                self.unread(place, why);
            }
            Err(e) => self.unread(place, format!("cannot read standard input: {}", io_reason(&e))),
        }
    }

    fn file(&mut self, place: &Place) {
        if place.is_input() {
            return self.input(place);
        }
        let name = place.name();
        let log = match self.ask.host.log(&place.path) {
            Ok(Some(log)) => log,
            Ok(None) if place.given => return self.unread(place, format!("there is no file {name}")),
            Ok(None) => return,
            Err(e) => return self.unread(place, e.message),
        };
        if !self.ids.insert(log.id) {
            return;
        }
        let base = place.path.file_name().unwrap_or_default().to_string_lossy();
        self.has_fail2ban |= base.starts_with("fail2ban.log");
        self.has_lfd |= base.starts_with("lfd.log");
        let OpenLog { content, size, .. } = log;
        let taken = Rc::new(Cell::new(0));
        let raw = Counting { inner: content, taken: Rc::clone(&taken) };
        match unpacked(raw) {
            Ok(Content::Plain(mut content)) => {
                self.lines(&mut content, &name, place, &taken);
                if taken.get() < size {
                    self.unread(place, format!("{name} was cut off while it was read; ask again for the rest"));
                }
            }
            Ok(Content::Unpacked(mut content)) => {
                self.lines(&mut content, &name, place, &taken);
            }
            Ok(Content::Packed(packer)) => self.seen.packed.entry((packer, place.given)).or_default().push(name),
            Err(e) => self.unread(place, format!("cannot read {name}: {}", io_reason(&e))),
        }
        self.done += size;
    }

    /// Whether there is a journal with anything in it.
    fn journal(&mut self) -> bool {
        if self.ask.host.program("journalctl").is_none() {
            return false;
        }
        let since = format!("--since=@{}", self.window.start().as_second().max(0));
        let identifiers = IDENTIFIERS.map(|i| format!("--identifier={i}"));
        let mut argv = vec!["journalctl", "--no-pager", "--quiet", "--output=short-iso", since.as_str()];
        argv.extend(identifiers.iter().map(String::as_str));
        let Ok(mut content) = self.ask.host.stream(&argv, PATIENCE) else { return false };
        let place = Place { path: PathBuf::from("journalctl"), role: Role::Kernel, given: false };
        self.lines(&mut content, "journalctl", &place, &Rc::default()) > 0
    }

    /// Counts what is in a log; how many bytes it has.
    fn lines(&mut self, content: &mut dyn Read, name: &str, place: &Place, taken: &Cell<u64>) -> u64 {
        let Self { ask, clock, window, scan, done, total, has_fail2ban, has_lfd, own, seen, .. } = self;
        let file: Arc<str> = name.into();
        let mut reader = Reader::new(clock, ask.edge);
        let mut bytes = 0_u64;
        let mut told = u64::MAX;
        let mut each = |raw: &[u8]| {
            let text = std::str::from_utf8(raw).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Borrowed);
            let Some(found) = reader.read(&text) else { return };
            let repeated = place.role != Role::Own
                && match found.kind {
                    Kind::Bans | Kind::Unbans => *has_fail2ban,
                    Kind::Lfd => *has_lfd,
                    kind => place.role == Role::System && is_kernels(kind),
                };
            let counts = !repeated && window.contains(&found.at);
            if counts && !own.takes(&found, &text, &file, place.given) {
                count(ask, seen, found, &text, &file, place.given);
            }
        };
        let mut read = |n: usize| {
            bytes += n as u64;
            // What a program says has no size that is known before.
            let now = if taken.get() > 0 { *done + taken.get() } else { 0 };
            let step = if now > 0 { now.saturating_mul(100) / (*total).max(1) } else { bytes >> 26 };
            if step != told {
                told = step;
                (ask.progress)(&going_on(name, now, *total, bytes));
            }
        };
        let ended = scan.lines(content, &mut each, &mut read);
        if let Err(e) = ended {
            let why = format!("cannot read all of {name}: {}", io_reason(&e));
            seen.unread.push(Unread { path: name.to_owned(), why, given: place.given });
        }
        if bytes > 0 {
            seen.read.push((name.to_owned(), bytes));
        }
        bytes
    }
}

/// `reading the logs [####----------------] 23 % of 3.2 GB, /var/log/nginx/access.log`
fn going_on(name: &str, done: u64, total: u64, said: u64) -> String {
    if done == 0 {
        return format!("reading what {name} says: {}", bytes(said));
    }
    let percent = (done.saturating_mul(100) / total.max(1)).min(100);
    let full = usize::try_from(percent / 5).unwrap_or(0);
    format!("reading the logs [{}{}] {percent} % of {}, {name}", "#".repeat(full), "-".repeat(20 - full), bytes(total))
}

/// Whether it is the kernel's word, which more than one file of the system log holds.
const fn is_kernels(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Packets
            | Kind::SynFlood
            | Kind::Conntrack
            | Kind::Orphans
            | Kind::ServerKilled
            | Kind::Killed
            | Kind::FileMax
    )
}

fn count(ask: &Ask<'_>, seen: &mut Seen, found: Symptom<'_>, line: &str, file: &Arc<str>, given: bool) {
    if found.port.is_some_and(|port| !ask.ports.contains(&port)) {
        return;
    }
    let tallies = match (found.client, found.kind.web_server()) {
        (Some(client), _) if ask.edge.contains(client) => &mut seen.tallies,
        (Some(_), Some(server)) if !found.guarded => {
            let masks = seen.masks.get_or_insert_with(|| places::masks(ask.host, ask.configs));
            if !masks.iter().any(|mask| mask.server == server) {
                return;
            }
            &mut seen.visitors
        }
        (None, _) if !found.kind.has_address() => &mut seen.tallies,
        _ => return,
    };
    tallies.entry(found.kind).or_default().add(found, line, file, given);
}

/// Counts what is read of a file, packed or not.
struct Counting {
    inner: Box<dyn Read>,
    taken: Rc<Cell<u64>>,
}

impl Read for Counting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.taken.set(self.taken.get() + n as u64);
        Ok(n)
    }
}

/// What there is to read of a log.
enum Content {
    /// It, as it is.
    Plain(Box<dyn Read>),
    /// What was gzipped.
    Unpacked(Box<dyn Read>),
    /// Nothing, for it was packed by this one.
    Packed(Packer),
}

/// The content of a log that may be packed, whatever its name.
fn unpacked(mut raw: Counting) -> io::Result<Content> {
    let mut magic = Vec::with_capacity(places::MAGIC);
    (&mut raw).take(places::MAGIC as u64).read_to_end(&mut magic)?;
    if let Some(packer) = places::packer(&magic) {
        return Ok(Content::Packed(packer));
    }
    let gzipped = magic.starts_with(&[0x1f, 0x8b]);
    let whole = io::Cursor::new(magic).chain(raw);
    Ok(if gzipped {
        let whole = io::BufReader::with_capacity(1 << 16, whole);
        Content::Unpacked(Box::new(flate2::read::MultiGzDecoder::new(whole)))
    } else {
        Content::Plain(Box::new(whole))
    })
}

/// The zone of this machine's clocks.
fn zone(host: &dyn Look) -> TimeZone {
    let seen = host.file(Path::new("/etc/localtime")).ok().flatten();
    seen.and_then(|f| TimeZone::tzif("local", &f.content).ok()).unwrap_or(TimeZone::UTC)
}
