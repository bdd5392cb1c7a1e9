//! An origin that is none of this machine's addresses: it can be asked, and who listens there can't be seen.
//!
//! A machine behind address translation has its public address nowhere. There, if nothing is taken at the address that was
//! asked about, this machine's own are looked at: not every router leads back in. Of another machine it is told what
//! becomes of connections from here. A refusal is most often one for everybody; silence isn't, because a packet filter
//! that lets in Cloudflare only is silent too.
//!
//! Belongs here: asking it, and connections that fail. Does not: what it answers (`answers`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;

use super::{
    answers,
    gather::{Door, Port, Seen, Way, ask, told_names},
    judge::{Need, finding, lack, need},
    limits::Limits,
    words::ports,
};
use crate::{
    doctor::{Context, HTTPS_PORTS},
    error::Result,
    probe::{
        tcp::{Connection, connect},
        wait,
    },
    report::{Finding, Finds},
};

/// How long a connection is waited for: for the first, and two more attempts of the kernel's (after 1 s and 3 s).
const CONNECT: Duration = Duration::from_secs(5);

/// The origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    pub ip: IpAddr,
    /// What was asked.
    pub asked: Asked,
}

/// What was asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Itself.
    There,
    /// This machine's own addresses.
    Here,
    /// Nothing, for `--offline` was asked for.
    Nothing,
}

/// What became of a connection that was closed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Far {
    Open,
    Refused,
    Silent,
    NoRoute,
    Failed(String),
}

/// What there is to see of it; nothing where this machine's own addresses tell more.
///
/// # Errors
/// `internal` if the kernel gives no means to wait.
pub(super) fn gather(cx: &Context<'_>, ip: IpAddr) -> Result<Option<Seen>> {
    let may_be_here = cx.another_machine().is_none();
    let blank = Seen {
        mode: cx.ask.mode,
        ports_asked: !cx.ask.ports.is_empty(),
        named: !cx.ask.hosts.is_empty(),
        foreign: Some(Foreign { ip, asked: Asked::Nothing }),
        ..Seen::default()
    };
    if cx.session.offline {
        return Ok((!may_be_here).then_some(blank));
    }
    let at: Vec<SocketAddr> = cx.ports.iter().map(|port| SocketAddr::new(ip, *port)).collect();
    let ways = wait(knock(at, CONNECT))?;
    if may_be_here && !ways.values().any(|far| *far == Far::Open) {
        return Ok(None);
    }
    let door = |far| Door { ip, way: Way::Far(far), filtered: false, full: false, visits: Vec::new() };
    let port = |(at, far): (SocketAddr, Far)| Port { number: at.port(), sockets: Vec::new(), doors: vec![door(far)] };
    let mut all: Vec<Port> = ways.into_iter().map(port).collect();
    let limited = wait(ask(cx, &mut all, Arc::new(Limits::default())))?;
    // Which sites another machine has isn't known.
    let strange = if blank.named { Vec::new() } else { told_names(&all) };
    Ok(Some(Seen { foreign: Some(Foreign { ip, asked: Asked::There }), strange, ports: all, limited, ..blank }))
}

/// Connects to each of these, to all at once; what becomes of it.
pub(super) async fn knock(at: impl IntoIterator<Item = SocketAddr>, limit: Duration) -> BTreeMap<SocketAddr, Far> {
    let mut knocks = JoinSet::new();
    for to in at {
        knocks.spawn(async move {
            let far = match connect(to, limit).await {
                Connection::Open(_) => Far::Open,
                Connection::Refused => Far::Refused,
                Connection::Silent => Far::Silent,
                Connection::NoRoute => Far::NoRoute,
                Connection::Failed(why) => Far::Failed(why),
            };
            (to, far)
        });
    }
    knocks.join_all().await.into_iter().collect()
}

/// That it is no address of this machine's.
pub(super) fn note(foreign: Foreign) -> Finding {
    let ip = foreign.ip;
    let (verdict, rest) = match foreign.asked {
        Asked::There => (Finds::Note, "it was asked from here, and who listens there can't be seen"),
        Asked::Here => (Finds::Note, "as behind a cloud's address translation: its own were looked at"),
        Asked::Nothing => (Finds::Skipped, "and --offline was asked for: it was not asked"),
    };
    let text = format!("{ip} is none of this machine's addresses, {rest}");
    finding("online.foreign-address", verdict, text).seen("ip address", "no such address")
}

/// What it does with connections, and what it answers.
pub(super) fn judge(seen: &Seen, foreign: Foreign) -> Vec<Finding> {
    let mut found = vec![note(foreign)];
    let far =
        |port: &Port| port.doors.iter().find_map(|d| if let Way::Far(far) = &d.way { Some(far.clone()) } else { None });
    let mut closed: Vec<(Far, Vec<&Port>)> = Vec::new();
    for port in seen.ports.iter().filter(|p| lack(p).is_some()) {
        let Some(far) = far(port) else { continue };
        match closed.iter_mut().find(|(other, _)| *other == far) {
            Some((_, ports)) => ports.push(port),
            None => closed.push((far, vec![port])),
        }
    }
    found.extend(closed.iter().map(|(far, ports)| told(seen, foreign.ip, far, ports)));
    let open: Vec<&Port> = seen.ports.iter().filter(|p| lack(p).is_none()).collect();
    found.extend(answers::judge(seen, &open));
    found
}

fn told(seen: &Seen, ip: IpAddr, far: &Far, on: &[&Port]) -> Finding {
    let numbers: Vec<u16> = on.iter().map(|p| p.number).collect();
    let on = ports(&numbers, "and");
    let needs = |wanted: &[Need]| numbers.iter().any(|port| wanted.contains(&need(seen, *port)));
    let (must, should) = (needs(&[Need::Must]), needs(&[Need::Must, Need::Should]));
    let at_most = if should { Finds::Warning } else { Finds::Note };
    let (id, verdict, errors, text, shows) = match far {
        Far::Open | Far::Refused => (
            "online.origin-refuses",
            if must { Finds::Cause } else { at_most },
            &[521][..],
            format!(
                "{ip} refuses this machine's connections to {on}: nothing listens there, or a packet filter rejects them"
            ),
            "connection refused",
        ),
        Far::Silent => (
            "online.origin-silent",
            at_most,
            &[522][..],
            format!(
                "{ip} doesn't answer this machine's connections to {on} within {} s: it is down, or a packet filter drops \
                 them; one that lets in Cloudflare only does so too",
                CONNECT.as_secs()
            ),
            "no connection",
        ),
        Far::NoRoute => (
            "online.origin-unreachable",
            at_most,
            &[523][..],
            format!(
                "there is no way from this machine to {on} of {ip}: it is down, or a packet filter says so; one that lets \
                 in Cloudflare only may do so too"
            ),
            "no route to it",
        ),
        Far::Failed(why) => {
            return finding("online.not-asked", Finds::Skipped, format!("{ip} could not be asked on {on}: {why}"));
        }
    };
    let curl = curl(ip, numbers.first().copied().unwrap_or(443));
    finding(id, verdict, text)
        .gives(errors)
        .seen(curl.clone(), shows)
        .mend_by("ask there: run `edgeallow doctor` on that machine. From here this asks it again", curl)
}

/// The command that asks the same.
fn curl(ip: IpAddr, port: u16) -> String {
    let scheme = if HTTPS_PORTS.contains(&port) { "https" } else { "http" };
    format!("curl -sSik --connect-timeout {} {scheme}://{}/", CONNECT.as_secs(), SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Mode;

    fn seen(mode: Mode, ports: &[(u16, Far)]) -> Seen {
        let ip = IpAddr::from([198, 51, 100, 7]);
        let port = |(number, far): &(u16, Far)| Port {
            number: *number,
            sockets: Vec::new(),
            doors: vec![Door { ip, way: Way::Far(far.clone()), filtered: false, full: false, visits: Vec::new() }],
        };
        let foreign = Some(Foreign { ip, asked: Asked::There });
        Seen { mode, foreign, named: true, ports: ports.iter().map(port).collect(), ..Seen::default() }
    }

    fn found(mode: Mode, ports: &[(u16, Far)]) -> Vec<(&'static str, Finds, Vec<u16>)> {
        let all = super::super::judge::judge(&seen(mode, ports));
        all.into_iter().map(|f| (f.id, f.verdict, f.cloudflare_errors)).collect()
    }

    #[test]
    fn a_refusal_is_a_cause_and_silence_a_warning() {
        use Finds::{Cause, Note, Ok, Warning};
        let note = ("online.foreign-address", Note, vec![]);
        let listens = ("online.listens", Ok, vec![]);
        let refuses = |verdict| ("online.origin-refuses", verdict, vec![521]);
        let silent = |verdict| ("online.origin-silent", verdict, vec![522]);
        for (mode, on_80, on_443, expected) in [
            (Mode::Full, Far::Refused, Far::Refused, vec![refuses(Cause)]),
            (Mode::Full, Far::Open, Far::Refused, vec![refuses(Cause), listens.clone()]),
            (Mode::Full, Far::Refused, Far::Open, vec![refuses(Warning), listens.clone()]),
            (Mode::Unknown, Far::Refused, Far::Open, vec![refuses(Note), listens.clone()]),
            (Mode::Flexible, Far::Open, Far::Silent, vec![silent(Note), listens.clone()]),
            (Mode::Unknown, Far::Silent, Far::Silent, vec![silent(Warning)]),
            (Mode::Full, Far::NoRoute, Far::NoRoute, vec![("online.origin-unreachable", Warning, vec![523])]),
        ] {
            let mut all = vec![note.clone()];
            all.extend(expected);
            assert_eq!(
                found(mode, &[(80, on_80.clone()), (443, on_443.clone())]),
                all,
                "{mode:?} {on_80:?} {on_443:?}"
            );
        }
    }

    #[test]
    fn the_command_asks_there() {
        assert_eq!(curl([198, 51, 100, 7].into(), 8443), "curl -sSik --connect-timeout 5 https://198.51.100.7:8443/");
        assert_eq!(curl("2001:db8::7".parse().unwrap(), 80), "curl -sSik --connect-timeout 5 http://[2001:db8::7]:80/");
    }
}
