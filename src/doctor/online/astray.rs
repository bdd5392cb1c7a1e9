//! Doors that a rule leads past: what comes from outside is sent to where nothing takes it, whether something listens here or
//! not. This host's own connections don't meet such a rule, so only the rules tell.
//!
//! Belongs here: what that comes to. Does not: finding the rules ([`crate::engine::sent_on`]), doors at which nothing
//! listens anyway (`lacking`).

use std::net::{IpAddr, SocketAddr};

use super::{
    answers::weight,
    gather::{Dead, Door, Port, Seen, Way},
    judge::finding,
    words::{list, ports, ss, who},
};
use crate::{
    engine::sent_on::SentOn,
    report::{Finding, Finds},
};

/// Where a rule sends: a new address, if it has one, and a port.
type Target = (Option<IpAddr>, u16, Dead);
/// What is sent, and the rule.
type Place<'a> = (&'a Port, &'a Door, &'a SentOn);

/// One finding for all that is sent to the same place, by however many rules.
pub(super) fn judge(seen: &Seen, on: &[&Port]) -> Vec<Finding> {
    let mut ways: Vec<(Target, Vec<Place<'_>>)> = Vec::new();
    for &port in on {
        for door in &port.doors {
            let Some((sent, dead)) = astray(door) else { continue };
            let to = (sent.to, sent.port, dead);
            match ways.iter_mut().find(|(other, _)| *other == to) {
                Some((_, doors)) => doors.push((port, door, sent)),
                None => ways.push((to, vec![(port, door, sent)])),
            }
        }
    }
    ways.iter().map(|(to, doors)| told(seen, *to, doors)).collect()
}

/// The rule, unless a packet filter keeps Cloudflare away from there as well: then it is the first to be mended.
fn astray(door: &Door) -> Option<(&SentOn, Dead)> {
    match &door.way {
        Way::Astray(sent, dead) if !door.filtered => Some((sent, *dead)),
        _ => None,
    }
}

fn told(seen: &Seen, (to, port, dead): Target, doors: &[Place<'_>]) -> Finding {
    let mut numbers: Vec<u16> = doors.iter().map(|(p, ..)| p.number).collect();
    numbers.dedup();
    let mut at: Vec<IpAddr> = doors.iter().map(|(_, d, _)| d.ip).collect();
    at.sort_unstable();
    at.dedup();
    let mut rules: Vec<&SentOn> = Vec::new();
    for (.., sent) in doors {
        if !rules.iter().any(|r| (&r.show, &r.rule) == (&sent.show, &sent.rule)) {
            rules.push(sent);
        }
    }
    let place = to.map_or_else(|| format!("port {port}"), |to| format!("port {port} of {to}"));
    let (subject, rest) = if rules.len() == 1 { ("a rule sends", "the rule") } else { ("rules send", "the rules") };
    let past = doors.iter().map(|(p, ..)| p).find(|p| !p.sockets.is_empty());
    let (why, errors, shows) = match dead {
        Dead::Refuses => ("where nothing listens", &[521][..], "refused"),
        Dead::Gone => ("which isn't there", &[522, 523][..], "no answer to ARP or neighbour discovery"),
        Dead::Silent => ("which doesn't answer this host", &[522][..], "no answer"),
    };
    let text = format!(
        "{subject} what comes from outside to {} of {} on to {place}, {why}{}",
        ports(&numbers, "and"),
        list(at, "and"),
        past.map(|p| format!(", past {}", who(p))).unwrap_or_default(),
    );
    let worst = doors
        .iter()
        .map(|(p, ..)| if is_missed(p) && dead != Dead::Silent { weight(seen, p.number) } else { Finds::Warning })
        .max();
    let mut found = finding("online.sent-to-nothing", worst.unwrap_or(Finds::Warning), text).gives(errors);
    for rule in &rules {
        found = found.seen(rule.show.clone(), rule.rule.clone().unwrap_or_else(|| rule.words.clone()));
    }
    let is_beside = |to: &IpAddr| dead != Dead::Refuses || doors.iter().all(|(_, d, _)| d.ip != *to);
    found = match to.filter(is_beside) {
        Some(to) => found.seen(format!("a connection to {}", SocketAddr::new(to, port)), shows),
        None => found.seen(ss(&[port]), "nothing that takes connections from outside"),
    };
    let deletes: Option<Vec<&str>> = rules.iter().map(|r| r.delete.as_deref()).collect();
    let is_docker = rules.iter().all(|r| r.rule.as_ref().is_some_and(|rule| rule.starts_with("-A DOCKER ")));
    match deletes {
        _ if is_docker => found.mend_by(
            format!("start the container that publishes {}, or what should listen in it", ports(&numbers, "and")),
            numbers.iter().map(|n| format!("docker ps --all --filter publish={n}")).collect::<Vec<_>>().join(" && "),
        ),
        Some(all) if past.is_some() => found.mend_by(
            format!(
                "take {rest} out (and out of where it is kept for the next boot), or let the program it was made for \
                     listen on {place}"
            ),
            all.join(" && "),
        ),
        _ => found.mend_by(
            format!("start what should listen on {place}, or have {rest} taken out by what made it"),
            rules.first().map(|r| r.show.clone()).unwrap_or_default(),
        ),
    }
}

/// Whether nobody from outside gets to this port as Cloudflare would come: by IPv4 where there is any, for every site has
/// that and a record for IPv6 may be missing.
fn is_missed(port: &Port) -> bool {
    let is_public = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if !ip.is_private());
    let kinds: [&dyn Fn(IpAddr) -> bool; 3] = [&is_public, &|ip| ip.is_ipv4(), &|_| true];
    let of = |is: &dyn Fn(IpAddr) -> bool| port.doors.iter().filter(|d| is(d.ip)).collect::<Vec<_>>();
    kinds
        .into_iter()
        .map(of)
        .find(|doors| !doors.is_empty())
        .is_some_and(|doors| doors.iter().all(|d| astray(d).is_some()))
}

#[cfg(test)]
mod tests {
    use super::{super::gather::Socket, *};
    use crate::doctor::Mode;

    /// nginx listens on these ports of two addresses, of which some are sent on to port 9443.
    fn seen(mode: Mode, astray: &[(u16, &str)]) -> Seen {
        let port = |number: u16| {
            let door = |ip: &str| {
                let from = SocketAddr::new(ip.parse().unwrap(), number);
                let program = if from.is_ipv4() { "iptables" } else { "ip6tables" };
                let sent = SentOn {
                    from,
                    to: None,
                    port: 9443,
                    words: "redirect to port 9443".into(),
                    rule: Some(format!("-A PREROUTING -j REDIRECT ({program})")),
                    show: format!("{program} -t nat -S PREROUTING"),
                    delete: Some(format!("{program} -t nat -D PREROUTING 1")),
                };
                let is_astray = astray.contains(&(number, ip));
                let way = if is_astray { Way::Astray(Box::new(sent), Dead::Refuses) } else { Way::Socket };
                Door { ip: from.ip(), way, filtered: false, full: false, visits: Vec::new() }
            };
            let socket =
                Socket { address: SocketAddr::from(([0, 0, 0, 0], number)), programs: vec!["nginx".into()], pid: None };
            Port { number, sockets: vec![socket], doors: ["192.0.2.1", "2001:db8:2::1"].map(door).into() }
        };
        Seen { mode, ports: [80, 443].map(port).into(), ..Seen::default() }
    }

    fn found(seen: &Seen) -> Vec<Finding> {
        super::super::judge::judge(seen).into_iter().filter(|f| f.id == "online.sent-to-nothing").collect()
    }

    #[test]
    fn a_port_that_is_sent_to_nothing_is_a_cause() {
        for (mode, verdict) in [(Mode::Unknown, Finds::Cause), (Mode::Strict, Finds::Cause)] {
            let found = found(&seen(mode, &[(443, "192.0.2.1")]));
            let [one] = &found[..] else { panic!("{found:#?}") };
            assert_eq!((one.verdict, &one.cloudflare_errors[..]), (verdict, &[521][..]));
            assert_eq!(
                one.text,
                "a rule sends what comes from outside to port 443 of 192.0.2.1 on to port 9443, where nothing listens, past \
                 nginx"
            );
            assert_eq!(one.fix.as_ref().unwrap().command.as_deref(), Some("iptables -t nat -D PREROUTING 1"));
        }
        assert_eq!(found(&seen(Mode::Flexible, &[(443, "192.0.2.1")])), []);
        assert_eq!(found(&seen(Mode::Strict, &[(80, "192.0.2.1")]))[0].verdict, Finds::Warning);
        assert_eq!(found(&seen(Mode::Strict, &[(443, "2001:db8:2::1")]))[0].verdict, Finds::Warning);
    }

    #[test]
    fn one_rule_for_two_ports_and_one_for_each_family_are_one_cause() {
        let doors = [80, 443].map(|p| ["192.0.2.1", "2001:db8:2::1"].map(|ip| (p, ip))).concat();
        let found = found(&seen(Mode::Full, &doors));
        let [one] = &found[..] else { panic!("{found:#?}") };
        assert_eq!(one.verdict, Finds::Cause);
        assert!(one.text.starts_with("rules send what comes from outside to ports 80 and 443 of 192.0.2.1 and 2001:"));
        assert_eq!(
            one.fix.as_ref().unwrap().command.as_deref(),
            Some("iptables -t nat -D PREROUTING 1 && ip6tables -t nat -D PREROUTING 1")
        );
    }

    #[test]
    fn a_packet_filter_before_it_is_the_cause() {
        let mut seen = seen(Mode::Full, &[(443, "192.0.2.1")]);
        seen.ports[1].doors[0].filtered = true;
        assert_eq!(found(&seen), []);
    }
}
