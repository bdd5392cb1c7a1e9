//! What sockets come to: the ports that Cloudflare needs, and those that nothing listens on.
//!
//! Belongs here: who listens. Does not: why nothing does (`lacking`), what is answered (`answers`).

use super::{
    answers, astray,
    elsewhere::{self, Asked},
    gather::{Port, Seen},
    lacking::{nothing_listens, unread_configurations},
    servers,
    words::{addresses, list, ports, socket, ss, who},
};
use crate::{
    doctor::{HTTP_PORTS, HTTPS_PORTS, Mode, nginx_listens},
    report::{Finding, Finds, Room},
};

pub(super) fn finding(id: &'static str, verdict: Finds, text: impl Into<String>) -> Finding {
    Finding::new(Room::Online, id, verdict, text)
}

/// How much it matters that something listens on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Visitors get a 521 without.
    Must,
    /// Some visitors do, if there are any.
    Should,
    /// It tells which modes are possible.
    Tell,
    /// Cloudflare doesn't go there.
    None,
}

/// Why nothing takes connections to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// There is a socket, on loopback addresses only.
    Loopback,
    /// There is none, or only on addresses that aren't the origin's.
    Nothing,
}

pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    match seen.foreign {
        Some(foreign) if foreign.asked != Asked::Here => return elsewhere::judge(seen, foreign),
        Some(foreign) => found.push(elsewhere::note(foreign)),
        None => {}
    }
    if seen.ports.iter().all(|p| p.doors.is_empty()) {
        let text = "this machine has no address that others could connect to";
        found.push(finding("online.no-address", Finds::Skipped, text).mend("name the origin's address with --origin"));
        return found;
    }
    found.extend(lacking(seen));
    let used: Vec<&Port> = seen.ports.iter().filter(|p| need(seen, p.number) != Need::None).collect();
    found.extend(astray::judge(seen, &used));
    found.extend(unread_configurations(seen, &found));
    found.extend(one_family(seen));
    let open: Vec<&Port> = seen.ports.iter().filter(|p| lack(p).is_none()).collect();
    found.extend(answers::judge(seen, &open));
    found
}

/// Whether nothing takes connections to any of the origin's addresses.
pub(super) fn lack(port: &Port) -> Option<Lack> {
    if port.doors.iter().any(|d| d.way.is_open()) {
        return None;
    }
    let loopback = !port.sockets.is_empty() && port.sockets.iter().all(|s| s.address.ip().is_loopback());
    Some(if loopback { Lack::Loopback } else { Lack::Nothing })
}

pub(super) fn need(seen: &Seen, port: u16) -> Need {
    let open = |other: u16| seen.ports.iter().any(|p| p.number == other && lack(p).is_none());
    match (seen.mode, port) {
        (Mode::Flexible, 80) | (Mode::Full | Mode::Strict, 443) => Need::Must,
        (Mode::Flexible, 443) => Need::None,
        (Mode::Full | Mode::Strict, 80) => Need::Should,
        (Mode::Unknown, 80) if open(443) => Need::Tell,
        (Mode::Unknown, 443) if open(80) => Need::Tell,
        (Mode::Unknown, 80 | 443) => Need::Must,
        // Who named the port wants it to work; who only let the firewall have it may not use it.
        (_, port) if HTTP_PORTS.contains(&port) || HTTPS_PORTS.contains(&port) => {
            if seen.ports_asked {
                Need::Must
            } else {
                Need::Should
            }
        }
        _ => Need::None,
    }
}

/// Ports that nothing takes connections to.
fn lacking(seen: &Seen) -> Vec<Finding> {
    let lacks: Vec<(&Port, Lack, Need)> =
        seen.ports.iter().filter_map(|p| Some((p, lack(p)?, need(seen, p.number)))).collect();
    let of = |lack: Lack, needs: &[Need]| -> Vec<&Port> {
        lacks.iter().filter(|(_, l, n)| *l == lack && needs.contains(n)).map(|(p, ..)| *p).collect()
    };
    let mut found = Vec::new();
    let mut loopback = of(Lack::Loopback, &[Need::Must]);
    let beside = of(Lack::Loopback, &[Need::Should]);
    let mut nothing = of(Lack::Nothing, &[Need::Must]);
    if loopback.is_empty() {
        found.extend((!beside.is_empty()).then(|| loopback_only(&beside, Finds::Warning)));
    } else {
        // One `listen` too few is one cause.
        loopback.extend(beside);
        loopback.sort_by_key(|p| p.number);
        found.push(loopback_only(&loopback, Finds::Cause));
        // Either of the two would do where the mode isn't known, and one of them is nearly there.
        if seen.mode == Mode::Unknown && loopback.iter().any(|p| matches!(p.number, 80 | 443)) {
            nothing.retain(|p| !matches!(p.number, 80 | 443));
        }
    }
    let some = of(Lack::Nothing, &[Need::Should]);
    if nothing.is_empty() {
        found.extend((!some.is_empty()).then(|| nothing_listens(seen, &some, Finds::Warning)));
    } else {
        // One stopped server is one cause.
        nothing.extend(some);
        nothing.sort_by_key(|p| p.number);
        found.push(nothing_listens(seen, &nothing, Finds::Cause));
    }
    found.extend(lacks.iter().filter(|(.., need)| *need == Need::Tell).map(|(port, ..)| one_scheme(port)));
    for (port, ..) in lacks.iter().filter(|(.., need)| *need == Need::None) {
        let at = addresses([*port]);
        let text = match port.number {
            443 => format!("nothing listens on port 443 of {at}, where Cloudflare doesn't go under Flexible"),
            n => format!("nothing listens on port {n} of {at}, which Cloudflare doesn't proxy"),
        };
        found.push(finding("online.unused-port", Finds::Note, text).seen(ss(&[port.number]), "no socket"));
    }
    found
}

pub(super) fn numbers(ports: &[&Port]) -> Vec<u16> {
    ports.iter().map(|p| p.number).collect()
}

fn loopback_only(on: &[&Port], verdict: Finds) -> Finding {
    let numbers = numbers(on);
    let sockets: Vec<_> = on.iter().flat_map(|p| &p.sockets).collect();
    let text = format!(
        "{} listens on {} of loopback addresses only, where nobody but this machine gets",
        on.first().map(|p| who(p)).unwrap_or_default(),
        ports(&numbers, "and")
    );
    let found = finding("online.loopback-only", verdict, text)
        .seen(ss(&numbers), list(sockets.iter().map(|s| socket(s)), "and"))
        .gives(&[521]);
    let server = sockets.iter().flat_map(|s| &s.programs).find_map(|p| servers::by_process(p));
    match server {
        Some(server) => shown_by(
            found,
            format!("let {} listen on every address instead, and reload it; this shows where that is set", server.name),
            server.find_listen,
        ),
        None => found.mend("let it listen on every address (0.0.0.0 and [::]) instead"),
    }
}

/// With the command that shows where it is mended, unless that is found in the configuration later.
pub(super) fn shown_by(found: Finding, fix: String, command: Option<&str>) -> Finding {
    match command {
        Some(command) => found.mend_by(fix, command),
        None => found.mend(fix),
    }
}

/// One of 80 and 443 is served, and the mode isn't known.
fn one_scheme(port: &Port) -> Finding {
    let (id, what) = match port.number {
        443 => ("online.no-https-port", "only Flexible works, Full and Full (strict) give an error"),
        _ => (
            "online.no-http-port",
            "Flexible gives an error, and so do visits by http:// unless Cloudflare redirects them (Always Use HTTPS)",
        ),
    };
    let text = format!("nothing listens on port {} of {}: {what}", port.number, addresses([port]));
    finding(id, Finds::Note, text).seen(ss(&[port.number]), "no socket that others could connect to")
}

/// Ports that are served over one family only.
fn one_family(seen: &Seen) -> Option<Finding> {
    let lacks = |port: &&Port, v4: bool| {
        let of = |v4: bool| port.doors.iter().filter(move |d| d.ip.is_ipv4() == v4 && !local(d.ip));
        let open = |v4: bool| of(v4).any(|d| d.way.is_open());
        of(v4).next().is_some() && !open(v4) && open(!v4)
    };
    let without = |v4: bool| seen.ports.iter().filter(|p| lacks(p, v4)).collect::<Vec<_>>();
    let (v4, on) = [true, false].into_iter().map(|v4| (v4, without(v4))).find(|(_, on)| !on.is_empty())?;
    let (family, record) = if v4 { ("IPv4", "A") } else { ("IPv6", "AAAA") };
    let numbers = numbers(&on);
    let sockets = on.iter().flat_map(|p| &p.sockets).map(socket);
    let text = format!(
        "nothing listens on {} over {family}: if an {record} record points here, see below, its visitors get a 521",
        ports(&numbers, "and")
    );
    let fix = format!(
        "let the web server listen over {family} too (nginx: {}), or have no {record} record in the zone's DNS",
        nginx_listens(&numbers, v4)
    );
    Some(finding("online.one-family", Finds::Note, text).seen(ss(&numbers), list(sockets, "and")).mend(fix))
}

/// Whether no record points there that Cloudflare could follow: RFC 4193.
fn local(ip: std::net::IpAddr) -> bool {
    matches!(ip, std::net::IpAddr::V6(ip) if ip.is_unique_local())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{
        super::gather::{Door, Socket, Way},
        *,
    };

    /// Two addresses and these ports; `on` is what each socket is bound to.
    fn seen(mode: Mode, ports: &[(u16, &[&str])]) -> Seen {
        let port = |(number, on): &(u16, &[&str])| {
            let sockets: Vec<Socket> = on
                .iter()
                .map(|ip| Socket {
                    address: SocketAddr::new(ip.parse().unwrap(), *number),
                    programs: vec!["nginx".to_owned()],
                    pid: Some(7),
                })
                .collect();
            let door = |ip: &str| {
                let ip: std::net::IpAddr = ip.parse().unwrap();
                let takes = |s: &Socket| s.address.ip().is_unspecified() && s.address.is_ipv4() == ip.is_ipv4();
                let way = if sockets.iter().any(takes) { Way::Socket } else { Way::Nothing };
                Door { ip, way, filtered: false, full: false, visits: Vec::new() }
            };
            let doors = ["192.0.2.1", "2001:db8:2::1"].map(door).into();
            Port { number: *number, sockets, doors }
        };
        Seen { mode, ports: ports.iter().map(port).collect(), ..Seen::default() }
    }

    const BOTH: &[&str] = &["0.0.0.0", "::"];
    const LOOPBACK: &[&str] = &["127.0.0.1", "::1"];
    const NONE: &[&str] = &[];

    /// What is found, without what is well.
    fn found(seen: &Seen) -> Vec<(&'static str, Finds)> {
        judge(seen).into_iter().filter(|f| f.verdict > Finds::Ok).map(|f| (f.id, f.verdict)).collect()
    }

    #[test]
    fn the_mode_says_which_ports_matter() {
        use Finds::{Cause, Note, Warning};
        use Mode::{Flexible, Full, Strict, Unknown};
        const NOTHING: &str = "online.nothing-listens";
        const ONLY_LOOPBACK: &str = "online.loopback-only";
        for (mode, on_80, on_443, expected) in [
            (Unknown, BOTH, BOTH, vec![]),
            (Unknown, NONE, NONE, vec![(NOTHING, Cause)]),
            (Unknown, BOTH, NONE, vec![("online.no-https-port", Note)]),
            (Unknown, NONE, BOTH, vec![("online.no-http-port", Note)]),
            (Unknown, LOOPBACK, BOTH, vec![("online.no-http-port", Note)]),
            (Unknown, LOOPBACK, NONE, vec![(ONLY_LOOPBACK, Cause)]),
            (Unknown, LOOPBACK, LOOPBACK, vec![(ONLY_LOOPBACK, Cause)]),
            (Flexible, BOTH, NONE, vec![("online.unused-port", Note)]),
            (Flexible, NONE, BOTH, vec![(NOTHING, Cause)]),
            (Flexible, LOOPBACK, BOTH, vec![(ONLY_LOOPBACK, Cause)]),
            (Full, NONE, BOTH, vec![(NOTHING, Warning)]),
            (Strict, LOOPBACK, BOTH, vec![(ONLY_LOOPBACK, Warning)]),
            (Full, BOTH, NONE, vec![(NOTHING, Cause)]),
            (Strict, NONE, NONE, vec![(NOTHING, Cause)]),
            (Full, LOOPBACK, LOOPBACK, vec![(ONLY_LOOPBACK, Cause)]),
            (Full, NONE, LOOPBACK, vec![(ONLY_LOOPBACK, Cause), (NOTHING, Warning)]),
        ] {
            assert_eq!(found(&seen(mode, &[(80, on_80), (443, on_443)])), expected, "{mode:?} {on_80:?} {on_443:?}");
        }
    }

    #[test]
    fn a_port_that_was_asked_about_has_to_work_and_one_that_is_configured_may_be_unused() {
        let mut seen = seen(Mode::Unknown, &[(80, BOTH), (443, BOTH), (3000, NONE), (8443, NONE)]);
        let unused = ("online.unused-port", Finds::Note);
        assert_eq!(found(&seen), [("online.nothing-listens", Finds::Warning), unused]);
        seen.ports_asked = true;
        assert_eq!(found(&seen), [("online.nothing-listens", Finds::Cause), unused]);
    }

    #[test]
    fn one_family_is_a_note() {
        for (on, record) in [("0.0.0.0", "AAAA"), ("::", "A")] {
            let seen = seen(Mode::Unknown, &[(80, &[on]), (443, &[on])]);
            assert_eq!(found(&seen), [("online.one-family", Finds::Note)]);
            assert!(judge(&seen)[0].text.contains(&format!("an {record} record")));
        }
    }

    #[test]
    fn a_machine_without_addresses_is_not_judged() {
        let mut seen = seen(Mode::Unknown, &[(80, NONE)]);
        seen.ports[0].doors.clear();
        assert_eq!(found(&seen), [("online.no-address", Finds::Skipped)]);
    }
}
