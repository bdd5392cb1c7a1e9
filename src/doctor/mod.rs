//! Why would Cloudflare answer with an error here? A look at everything on the origin that can be the cause.
//!
//! One folder or file a room ([`Room`]), in the order in which an expert would look. Each gathers what it needs through
//! [`crate::host::Look`] and [`crate::probe`] into a plain value, and judges that value in a pure function that is tested
//! without a machine. What several rooms need is gathered once, in the [`Context`].
//!
//! Belongs here: what is looked at, what it means, how it is mended. Does not: reading the machine ([`crate::host`]), client
//! sockets ([`crate::probe`]), words' layout ([`crate::report`]).
//!
//! # One cause is named once
//!
//! A stopped server makes every request fail, every handshake, and every log stay empty. So each room judges only what is
//! its own: it asks the [`Context`] whether something before it explains what it sees, and says `skipped` then.

mod beyond;
mod commands;
mod conclude;
mod directives;
mod dns;
mod firewall;
mod logs;
mod online;
mod resources;
pub mod site;
mod sudo;
pub mod tls;

use std::{borrow::Cow, cell::OnceCell, collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc};

use jiff::SignedDuration;

use self::directives::Configs;
use crate::{
    allowlist::{Prefixes, snapshot},
    backends::Warning,
    engine::{
        sync::{LOOKS_WAIT, Options, Session},
        verify::Ask as ReachAsk,
    },
    error::{Error, Exit, Result},
    host::{Link, ListenSocket},
    plan::Desired,
    report::{BackendReport, DoctorReport, Finding, Finds, ReachReport, ReachVerdict, Report, Room, SourceReport},
};

/// Ports that Cloudflare proxies to plain HTTP at the origin (CLOUDFLARE.md, "Ports that Cloudflare proxies").
const HTTP_PORTS: [u16; 7] = [80, 8080, 8880, 2052, 2082, 2086, 2095];
/// Ports that it proxies to HTTPS, but 443 under Flexible.
const HTTPS_PORTS: [u16; 6] = [443, 2053, 2083, 2087, 2096, 8443];

/// The lines by which nginx listens on these ports, for people.
fn nginx_listens(ports: &[u16], v4: bool) -> String {
    let line = |port: &u16| {
        let (at, tls) = (if v4 { "" } else { "[::]:" }, if HTTPS_PORTS.contains(port) { " ssl" } else { "" });
        format!("`listen {at}{port}{tls};`")
    };
    ports.iter().map(line).collect::<Vec<_>>().join(" and ")
}

/// The zone's encryption mode: how Cloudflare connects to the origin (CLOUDFLARE.md, "Encryption modes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// Off or Flexible: plain HTTP to port 80.
    Flexible,
    /// The visitor's scheme; any certificate.
    Full,
    /// The visitor's scheme; an unexpired certificate for the name, of a public authority or Cloudflare's own.
    Strict,
    /// Not known here.
    #[default]
    Unknown,
}

impl Mode {
    /// The word on the command line and in the report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flexible => "flexible",
            Self::Full => "full",
            Self::Strict => "strict",
            Self::Unknown => "unknown",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The site's names, as the DNS and TLS take them ([`site::Site`]).
    pub hosts: Vec<String>,
    /// The zone's mode.
    pub mode: Mode,
    /// Whether Cloudflare sends the client certificate that the server wants: Authenticated Origin Pulls are on, and a
    /// certificate of the operator's own is uploaded where one is wanted.
    pub origin_pulls: bool,
    /// The origin's address, instead of each global one of this host.
    pub origin: Option<IpAddr>,
    /// These ports instead of the configured ones.
    pub ports: BTreeSet<u16>,
    /// How far back logs are read.
    pub since: SignedDuration,
    /// More log files; `-` is standard input.
    pub logs: Vec<PathBuf>,
    /// Where the page is to be written.
    pub report: Option<PathBuf>,
    /// What is wrong with edgeallow's own configuration, where the built-in settings stand in for it.
    pub broken: Option<Broken>,
}

/// A configuration of edgeallow's that can't be used.
#[derive(Debug, Clone)]
pub struct Broken {
    /// What is wrong with it, with its file and line.
    pub error: Error,
    /// Whether it can't even be read, which somebody with more rights may.
    pub unreadable: bool,
}

impl Broken {
    /// An origin whose list isn't kept turns Cloudflare's next range away.
    fn finding(&self) -> Finding {
        let Self { error, unreadable } = self;
        let (verdict, what) = if *unreadable {
            (Finds::Skipped, "edgeallow's own configuration can't be read here")
        } else {
            (
                Finds::Warning,
                "edgeallow's own configuration is broken, so that nothing keeps Cloudflare's ranges up to date",
            )
        };
        let text = format!("{what}; the built-in settings were used: {}", error.message);
        Finding::new(Room::Firewall, "firewall.own-configuration", verdict, text)
            .mend_if(error.hint.as_ref().or(Some(&"mend what it says, then ask `edgeallow status`".to_owned())))
    }
}

impl Ask {
    /// How far back logs are read where nothing else is asked.
    pub(crate) const SINCE: SignedDuration = SignedDuration::from_hours(24);

    /// The command that asks the same as root.
    fn as_root(&self, offline: bool) -> String {
        let mut words = vec!["sudo edgeallow doctor".to_owned()];
        words.extend(self.words(offline));
        words.extend(self.logs.iter().map(|path| format!("--log {}", word(&path.to_string_lossy()))));
        words.join(" ")
    }

    /// What asks the same, without the logs.
    fn words(&self, offline: bool) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.hosts.iter().map(|host| word(host)));
        if self.mode != Mode::Unknown {
            words.push(format!("--mode {}", self.mode.as_str()));
        }
        words.extend(self.origin_pulls.then(|| "--origin-pulls".to_owned()));
        words.extend(self.origin.iter().map(|ip| format!("--origin {ip}")));
        words.extend(self.ports.iter().map(|port| format!("--port {port}")));
        words.extend(offline.then(|| "--offline".to_owned()));
        let since = match self.since.as_secs() {
            seconds if seconds % 3600 == 0 => format!("--since {}h", seconds / 3600),
            seconds if seconds % 60 == 0 => format!("--since {}m", seconds / 60),
            seconds => format!("--since {seconds}s"),
        };
        words.extend((!matches!(self.since, SignedDuration::ZERO | Self::SINCE)).then_some(since));
        words.extend(self.report.iter().map(|path| format!("--report {}", word(&path.to_string_lossy()))));
        words
    }
}

/// A name as a shell takes it.
fn word(name: &str) -> String {
    // Only a NUL can't be quoted, and no path and no name has one.
    shlex::try_quote(name).map_or_else(|_| name.to_owned(), Cow::into_owned)
}

/// What every room may know.
pub struct Context<'a> {
    /// The machine, the configuration, the clock.
    pub session: &'a Session<'a>,
    /// What was asked.
    pub ask: &'a Ask,
    /// What shall get in: Cloudflare's ranges and the operator's own.
    pub edge: Arc<Prefixes>,
    /// Where the ranges came from.
    pub source: Option<SourceReport>,
    /// The addresses that are asked about: of the origin.
    pub origins: Vec<IpAddr>,
    /// The ports that are asked about.
    pub ports: BTreeSet<u16>,
    /// The interfaces with their addresses.
    pub links: Vec<Link>,
    /// Who listens, or why that can't be told.
    pub listeners: Result<Vec<ListenSocket>>,
    /// What packet filters do to Cloudflare, or why that can't be told.
    pub reach: Result<ReachReport>,
    /// The backends, as `status` sees them.
    pub backends: Vec<BackendReport>,
    /// What `status` warns of.
    pub told: Vec<Warning>,
    /// What the web servers' configurations say.
    configs: Configs<'a>,
    /// What the web server answered, once it is asked.
    asked: OnceCell<online::Answers>,
    /// What was logged, once it is read.
    logged: OnceCell<logs::Seen>,
    /// How many packets connection tracking had dropped before doctor asked anybody.
    untracked: u64,
    /// The requests of doctor's own that were not answered, once it has asked.
    unanswered: OnceCell<Vec<online::Unanswered>>,
}

impl Context<'_> {
    /// The sockets that take connections to this address and port: those bound to the address itself, else the others.
    #[must_use]
    pub fn listening(&self, ip: IpAddr, port: u16) -> Vec<&ListenSocket> {
        let sockets = self.listeners.as_deref().unwrap_or_default();
        let on_port = || sockets.iter().filter(move |s| s.address.port() == port);
        let exact: Vec<&ListenSocket> = on_port().filter(|s| s.address.ip() == ip).collect();
        if exact.is_empty() { on_port().filter(|s| s.takes(ip)).collect() } else { exact }
    }

    /// This machine's global addresses of a family.
    fn global(&self, v4: bool) -> impl Iterator<Item = IpAddr> {
        let all = self.links.iter().flat_map(|l| &l.addresses).filter(|a| a.global && !a.ip.is_loopback());
        all.map(|a| a.ip).filter(move |ip| ip.is_ipv4() == v4)
    }

    /// The origin that was asked about, where it is none of this machine's addresses.
    fn foreign(&self) -> Option<IpAddr> {
        let own = |ip: &IpAddr| self.links.iter().flat_map(|l| &l.addresses).any(|a| a.ip == *ip);
        self.ask.origin.filter(|ip| !ip.is_loopback() && !own(ip))
    }

    /// The same, where it can't be this machine's by address translation, which has addresses of the inside only.
    fn another_machine(&self) -> Option<IpAddr> {
        let is_translated = |ip: &IpAddr| {
            let mut own = self.global(ip.is_ipv4()).peekable();
            !dns::is_inside(*ip) && own.peek().is_some() && own.all(dns::is_inside)
        };
        self.foreign().filter(|ip| !is_translated(ip))
    }

    /// What was logged; it is read when it is first asked for, which may take its time.
    fn logged(&self) -> &logs::Seen {
        self.logged.get_or_init(|| logs::read(self))
    }

    /// Whether a packet filter keeps Cloudflare from this address and port, wholly or in part, or may do so.
    #[must_use]
    pub fn is_filtered(&self, ip: IpAddr, port: u16) -> bool {
        let to = ip.to_string();
        self.reach.as_ref().is_ok_and(|reach| {
            reach.questions.iter().any(|q| q.to == to && q.port == port && q.verdict > ReachVerdict::Throttled)
        })
    }
}

/// The rooms that can be looked into, in order.
const ROOMS: [fn(&Context<'_>) -> Vec<Finding>; 7] =
    [online::look, firewall::look, tls::look, dns::look, resources::look, logs::look, beyond::look];

/// Those that ask the origin itself, whichever machine it is.
const ROOMS_ANYWHERE: [fn(&Context<'_>) -> Vec<Finding>; 3] = [online::look, tls::look, dns::look];

/// What is said of an origin that is another machine, instead of this machine's.
fn left_out(cx: &Context<'_>, ip: IpAddr) -> Vec<Finding> {
    let left = |room, id, verdict, what: &str| {
        let text = format!("{ip} is another machine, and what is seen here of {what} is this one's");
        Finding::new(room, id, verdict, text).mend("run `edgeallow doctor` there")
    };
    let mut found = vec![
        left(Room::Firewall, "firewall.another-machine", Finds::Skipped, "packet filters, bans and routes"),
        left(Room::Resources, "resources.another-machine", Finds::Skipped, "resources"),
    ];
    if cx.ask.logs.is_empty() {
        found.push(left(Room::Logs, "logs.another-machine", Finds::Skipped, "logs"));
    } else {
        found.push(left(Room::Logs, "logs.another-machine", Finds::Note, "logs that weren't named"));
        found.extend(logs::look(cx));
    }
    found
}

impl Session<'_> {
    /// Looks at everything that can be the cause of an error at Cloudflare, and changes nothing.
    #[must_use]
    pub fn doctor(&self, ask: &Ask) -> Report {
        let mut report = Report::blank("doctor", true);
        match self.try_doctor(ask) {
            Ok(found) => {
                if found.conclusion.verdict == Finds::Cause {
                    report.exit = Exit::Refused;
                }
                report.doctor = Some(found);
            }
            Err(e) => {
                report.exit = e.kind.exit();
                report.error = Some((&e).into());
            }
        }
        report
    }

    fn try_doctor(&self, ask: &Ask) -> Result<DoctorReport> {
        let mut cx = self.gather(ask)?;
        let another = cx.another_machine();
        let rooms = if another.is_some() { &ROOMS_ANYWHERE[..] } else { &ROOMS };
        let mut findings: Vec<Finding> = rooms.iter().flat_map(|look| look(&cx)).collect();
        findings.extend(another.into_iter().flat_map(|ip| left_out(&cx, ip)));
        findings.extend(ask.broken.as_ref().map(Broken::finding));
        findings.sort_by_key(|f| f.room);
        online::give_way(&mut findings);
        online::wait_longer(&mut cx, &mut findings);
        firewall::blame_evasive(&mut findings);
        commands::complete(
            self.host,
            &cx.configs,
            cx.listeners.as_deref().unwrap_or_default(),
            &mut findings,
            another.is_some(),
        );
        if another.is_none() && !rustix::process::geteuid().is_root() {
            sudo::prefix(&mut findings);
        }
        // More rights here tell nothing about another machine.
        let as_root = (another.is_none() && !self.host.may_administer()).then(|| ask.as_root(self.offline));
        Ok(DoctorReport {
            conclusion: conclude::conclude(&findings, as_root),
            mode: ask.mode.as_str(),
            hosts: ask.hosts.clone(),
            origins: cx.origins.iter().map(IpAddr::to_string).collect(),
            ports: cx.ports.iter().copied().collect(),
            findings,
        })
    }

    fn gather<'s>(&'s self, ask: &'s Ask) -> Result<Context<'s>> {
        (self.progress)("looking at the firewalls");
        let links = self.host.links()?;
        // A status, whose errors are findings here: without a list the built-in one still tells who Cloudflare is.
        let options = Options { dry_run: true, fetch_limit: Some(LOOKS_WAIT), ..Options::default() };
        let (status, wanted) = self.sync_and_tell("doctor", &options);
        let want = match wanted {
            Some(want) => want,
            None => {
                let list = snapshot::built_in()?;
                self.desired(&Prefixes::new(list.v4, list.v6))
            }
        };
        let ports = if ask.ports.is_empty() { want.ports.clone() } else { ask.ports.clone() };
        let want = Desired { ports: ports.clone(), ..want };
        let reach = self.reach(&want, &ReachAsk { to: ask.origin, ..ReachAsk::default() }, &BTreeSet::new());
        let origins = match ask.origin {
            Some(origin) => vec![origin],
            None => links
                .iter()
                .flat_map(|l| &l.addresses)
                .filter(|a| a.global && !a.ip.is_loopback())
                .map(|a| a.ip)
                .collect(),
        };
        Ok(Context {
            session: self,
            ask,
            edge: want.prefixes,
            source: status.source,
            origins,
            ports,
            links,
            listeners: self.host.listeners(),
            reach,
            backends: status.backends,
            told: status.warnings,
            configs: Configs::new(self.host),
            asked: OnceCell::new(),
            logged: OnceCell::new(),
            untracked: resources::untracked(self.host),
            unanswered: OnceCell::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_root_asks_the_same() {
        let ask = Ask {
            hosts: vec!["shop.example".to_owned()],
            mode: Mode::Strict,
            ports: [443].into(),
            since: SignedDuration::from_mins(90),
            logs: vec!["-".into(), "/var/log/it's.log".into()],
            report: Some("page.html".into()),
            ..Ask::default()
        };
        assert_eq!(
            ask.as_root(true),
            r#"sudo edgeallow doctor shop.example --mode strict --port 443 --offline --since 90m --report page.html --log - --log "/var/log/it's.log""#
        );
        let plain = Ask { since: Ask::SINCE, ..Ask::default() };
        assert_eq!(plain.as_root(false), "sudo edgeallow doctor");
    }
}
