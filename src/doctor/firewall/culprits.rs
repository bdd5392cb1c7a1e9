//! What refuses Cloudflare: one finding for whatever is one thing to mend.
//!
//! A rule for IPv4 and the same for IPv6, a policy of both, and the bans in one list of one tool are several rules to the
//! kernel, and one to who made them.
//!
//! Belongs here: joining culprits of `verify`, how much each matters, and its words. Does not: finding them
//! ([`crate::reach`]).

use std::{collections::BTreeSet, net::IpAddr};

use super::finding;
use crate::{
    doctor::{Context, Mode},
    report::{CaughtReport, CulpritReport, Finding, Finds, QuestionReport, ReachReport, ReachVerdict},
};

/// How many rules are shown of those that are one.
const SHOWN: usize = 8;
/// How many commands are joined at most; where there are more, one `sync` does it.
const JOINED: usize = 5;

/// What commands begin with that lift bans, those of a tool and those of a set.
const LIFTS: [&str; 4] = [" unbanip ", "decisions delete", "csf -dr ", "csf -tr "];
const OUT_OF_SET: [&str; 2] = ["ipset del ", "nft delete element "];

pub(super) fn judge(cx: &Context<'_>, reach: &ReachReport) -> Vec<Finding> {
    let asked = |v6: bool| reach.questions.iter().any(|q| q.to.contains(':') == v6);
    let both = asked(false) && asked(true);
    let mut joined: Vec<(Vec<&CulpritReport>, Matters)> = Vec::new();
    for culprit in &reach.culprits {
        let matters = matters(cx, reach, culprit);
        match joined.iter_mut().find_map(|(ones, other)| {
            // The order matters: joining takes in.
            (is_same(ones, culprit) && other.join(&matters)).then_some(ones)
        }) {
            Some(ones) => ones.push(culprit),
            None => joined.push((vec![culprit], matters)),
        }
    }
    joined.into_iter().map(|(ones, matters)| told(&ones, matters, both)).collect()
}

/// Whether who made these made this one with them.
fn is_same(ones: &[&CulpritReport], other: &CulpritReport) -> bool {
    // A rate's words hold the family's mask, what is rejected with has the family's name.
    let detail = |c: &CulpritReport| match c.effect {
        "reject" => None,
        "rate" => c.detail.as_deref().and_then(|d| d.split(" --mask").next()).map(str::to_owned),
        _ => c.detail.clone(),
    };
    // `ufw6-user-input` is `ufw-user-input` for IPv6.
    let place = |c: &CulpritReport| {
        let place = c.place.as_ref();
        place.map(|p| (p.chain.replace('6', ""), p.hook, p.language, p.position.is_none()))
    };
    let key = |c: &CulpritReport| {
        let whose = (c.tool, c.name.clone(), place(c));
        let on = ports(&c.catches).join(" ");
        (whose, (c.verdict, c.effect, detail(c), c.packet, c.cloudflare_error, on))
    };
    other.name.is_some() && ones.first().is_some_and(|one| key(one) == key(other))
}

/// How much it matters that this culprit refuses what it catches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Matters {
    /// Visitors come there.
    Much,
    /// They may come there, or not: another address or scheme of the site is open. At these addresses it is caught.
    Perhaps(BTreeSet<String>),
    /// Nobody comes there: nothing listens.
    Not,
}

impl Matters {
    /// Takes in the other, if it is of the same kind.
    fn join(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Perhaps(at), Self::Perhaps(more)) => {
                at.extend(more.iter().cloned());
                true
            }
            (one, other) => one == other,
        }
    }
}

fn matters(cx: &Context<'_>, reach: &ReachReport, c: &CulpritReport) -> Matters {
    const HTTP: u16 = 80;
    const HTTPS: u16 = 443;
    let serves = |ip: IpAddr, port: u16| !cx.listening(ip, port).is_empty();
    let caught: Vec<(IpAddr, u16)> = c
        .catches
        .iter()
        .flat_map(|caught| {
            let ports = caught.ports.iter().filter_map(|p| p.trim_end_matches("/tcp").parse::<u16>().ok());
            let ports: Vec<u16> = ports.collect();
            caught
                .to
                .iter()
                .filter_map(|to| to.parse().ok())
                .flat_map(move |to| ports.clone().into_iter().map(move |p| (to, p)))
        })
        .collect();
    // A forwarded port is served by somebody else than this host. And where nothing listens at all, that is its own finding.
    let is_forwarded = c.place.as_ref().is_some_and(|p| p.hook == "forward" || p.hook == "postrouting");
    let any = cx.origins.iter().any(|ip| cx.ports.iter().any(|port| serves(*ip, *port)));
    if is_forwarded || !any || caught.is_empty() {
        return Matters::Much;
    }
    let relevant: Vec<(IpAddr, u16)> = caught.into_iter().filter(|(ip, port)| serves(*ip, *port)).collect();
    if relevant.is_empty() {
        return Matters::Not;
    }
    let is_open = |ip: IpAddr, port: u16| {
        let to = ip.to_string();
        let is = |q: &QuestionReport| q.to == to && q.port == port && q.verdict <= ReachVerdict::Throttled;
        serves(ip, port) && reach.questions.iter().any(is)
    };
    let elsewhere = |(ip, port): &(IpAddr, u16)| {
        let another = |other: &IpAddr| *other != *ip && other.is_ipv4() == ip.is_ipv4() && is_open(*other, *port);
        let over_tls = *port == HTTP && cx.ask.mode != Mode::Flexible && is_open(*ip, HTTPS);
        over_tls || cx.origins.iter().any(another)
    };
    if relevant.iter().all(elsewhere) {
        return Matters::Perhaps(relevant.iter().map(|(ip, _)| ip.to_string()).collect());
    }
    Matters::Much
}

/// The ports that are caught, in ascending order.
fn ports(catches: &[CaughtReport]) -> Vec<&str> {
    let mut ports: Vec<&str> =
        catches.iter().flat_map(|caught| &caught.ports).map(|port| port.trim_end_matches("/tcp")).collect();
    ports.sort_unstable_by_key(|port| (port.parse::<u16>().ok(), *port));
    ports.dedup();
    ports
}

/// One finding for all of these; `both`: whether both families were asked about.
fn told(ones: &[&CulpritReport], matters: Matters, both: bool) -> Finding {
    let Some(c) = ones.first() else { return finding("firewall.unknown", Finds::Skipped, "nothing") };
    let name = c.name.as_deref().unwrap_or("something that is no rule");
    let catches: Vec<CaughtReport> = ones.iter().flat_map(|c| &c.catches).cloned().collect();
    let whom = whom(&catches, both);
    let ports = ports(&catches);
    let on = format!("on port{} {}", if ports.len() == 1 { "" } else { "s" }, ports.join(" and "));
    let does = match c.effect {
        "drop" => "drop",
        "reject" => "reject",
        "rate" => "limit",
        _ => "do something that isn't understood to",
    };
    // `ufw drops`, `the administrator's own nftables rules drop`
    let does = match (does, name.contains(" rules")) {
        (does, true) => does.to_owned(),
        (does, false) => does.split_once(' ').map_or_else(|| format!("{does}s"), |(_, rest)| format!("does {rest}")),
    };
    let (id, verdict) = match c.verdict {
        ReachVerdict::Refused => ("firewall.refused", Finds::Cause),
        ReachVerdict::Throttled => ("firewall.throttled", Finds::Warning),
        ReachVerdict::Unknown | ReachVerdict::Accepted => ("firewall.unknown", Finds::Skipped),
    };
    let mut details: Vec<&str> = ones.iter().filter_map(|c| c.detail.as_deref()).collect();
    details.dedup();
    let detail = match details.as_slice() {
        [] => String::new(),
        with if c.effect == "reject" => format!(" with {}", with.join(" and ")),
        [detail, ..] => format!(" ({detail})"),
    };
    let text = match (&c.detail, &c.name) {
        // Not a rule, but a gap in what can be read.
        (Some(why), None) if verdict == Finds::Skipped => {
            format!("whether {whom} gets through {on} can't be told: {why}")
        }
        _ => format!("{name} {does} {whom} {on}{detail}"),
    };
    let (verdict, text) = match matters {
        Matters::Not if verdict >= Finds::Warning => (Finds::Note, format!("{text}, where nothing listens")),
        Matters::Perhaps(at) if verdict == Finds::Cause => {
            let at: Vec<String> = at.into_iter().collect();
            (Finds::Warning, format!("{text} of {}; it is open elsewhere", at.join(" and ")))
        }
        _ => (verdict, text),
    };
    let mut found = finding(id, verdict, text);
    if let Some(error) = c.cloudflare_error {
        found = found.gives(&[error]);
    }
    for place in ones.iter().filter_map(|c| c.place.as_ref()).take(SHOWN) {
        let source = match place.language {
            "nftables" => format!("nft list chain {} {} {}", place.family, place.table, place.chain),
            language => {
                let program = match place.family.as_str() {
                    "ip6" => language.replacen("iptables", "ip6tables", 1),
                    _ => language.to_owned(),
                };
                format!("{program} -t {} -S {}", place.table, place.chain)
            }
        };
        found = found.seen(source, place.text.clone().unwrap_or_else(|| format!("policy {}", c.effect)));
    }
    let Some(command) = mend(ones) else { return found };
    let is_ban = LIFTS.iter().any(|lifts| command.contains(lifts));
    let is_set = is_out_of_set(&command);
    if is_set {
        for (source, shows) in in_sets(&command) {
            found = found.seen(source, shows);
        }
    }
    let syncs = ones.iter().flat_map(|c| &c.mend).any(|m| m.starts_with("edgeallow sync"));
    let fix = match c.tool {
        _ if is_set && syncs => {
            "take that out of the set; `edgeallow sync` lets Cloudflare in before the rule, whatever comes into it"
        }
        _ if is_set => "take that out of the set, and have whatever fills it leave Cloudflare out",
        Some("crowdsec") if is_ban => "lift the ban, and put Cloudflare's ranges on CrowdSec's allowlist",
        _ if is_ban => "lift the ban; `edgeallow sync` also keeps it from coming back",
        _ if is_exception(&command) => {
            "let Cloudflare's ranges through before the rule, which goes on for everybody else; say the same where your rules \
             are stored"
        }
        _ => "let Cloudflare's ranges through",
    };
    found.mend_by(fix, command)
}

/// One command that mends all of these.
fn mend(ones: &[&CulpritReport]) -> Option<String> {
    let is_sync = |command: &&String| command.starts_with("edgeallow ");
    let mut commands: Vec<String> = Vec::new();
    for c in ones {
        // Each of these lifts another ban; of others the first is the best.
        let lifts = matches!(c.tool, Some("crowdsec" | "csf")) && !c.mend.first().as_ref().is_some_and(is_sync);
        let needed =
            if lifts { c.mend.iter().filter(|c| !is_sync(c)).collect() } else { Vec::from_iter(c.mend.first()) };
        needed.into_iter().for_each(|command| add(&mut commands, command));
    }
    if commands.len() > JOINED
        && let Some(sync) = ones.iter().flat_map(|c| &c.mend).find(is_sync)
    {
        return Some(sync.clone());
    }
    (!commands.is_empty()).then(|| commands.join(" && "))
}

fn is_out_of_set(command: &str) -> bool {
    OUT_OF_SET.iter().any(|out| command.starts_with(out))
}

/// Whether it puts a rule for some sources before another (`crate::reach::owner::mend`).
fn is_exception(command: &str) -> bool {
    (command.contains(" -I ") && [" -s ", " -d "].iter().any(|of| command.contains(of)))
        || (command.contains("nft insert rule ") && command.contains("addr {"))
}

/// The sets that these commands take elements out of, by what shows them, with the elements.
fn in_sets(commands: &str) -> Vec<(String, String)> {
    let mut sets: Vec<(String, String)> = Vec::new();
    for command in commands.split(" && ") {
        let words: Vec<&str> = command.split(' ').collect();
        let (source, element) = match words.as_slice() {
            ["ipset", "del", set, element] => (format!("ipset list {set}"), (*element).to_owned()),
            ["nft", "delete", "element", family, table, set, "{", elements @ .., "}"] => {
                (format!("nft list set {family} {table} {set}"), elements.join(" "))
            }
            _ => continue,
        };
        match sets.iter_mut().find(|(other, _)| *other == source) {
            Some((_, elements)) => *elements = format!("{elements}, {element}"),
            None => sets.push((source, element)),
        }
    }
    sets
}

/// Adds a command that isn't there yet, or what it is about to one that takes any number.
fn add(commands: &mut Vec<String>, command: &str) {
    const UNBAN: &str = " unbanip ";
    let unban = |c: &str| c.split_once(UNBAN).map(|(jail, banned)| (jail.to_owned(), banned.to_owned()));
    if let Some((jail, banned)) = unban(command)
        && let Some(same) = commands.iter_mut().find(|c| unban(c).is_some_and(|(other, _)| other == jail))
    {
        for ip in banned.split(' ') {
            if !same.split(' ').any(|known| known == ip) {
                *same = format!("{same} {ip}");
            }
        }
    } else if !commands.iter().any(|c| c == command) {
        commands.push(command.to_owned());
    }
}

/// Whom a rule catches: `all of Cloudflare`, `Cloudflare's 173.245.48.0/20 and 13 more ranges`. Of `both` families, one that
/// is caught alone is named.
fn whom(catches: &[CaughtReport], both: bool) -> String {
    // What is asked about an address are the ranges of its family.
    let whole = |v6: bool| catches.iter().any(|c| c.all && c.to.iter().any(|to| to.contains(':') == v6));
    if !catches.is_empty() && catches.iter().all(|c| c.all) && (!both || (whole(false) && whole(true))) {
        return "all of Cloudflare".to_owned();
    }
    let one =
        |range: &'_ str| range.strip_suffix("/32").or_else(|| range.strip_suffix("/128")).unwrap_or(range).to_owned();
    let ranges: BTreeSet<String> = catches.iter().flat_map(|c| &c.ranges).map(|range| one(range)).collect();
    let mut whom: Vec<String> = Vec::new();
    for (v6, family) in [(false, "IPv4"), (true, "IPv6")] {
        let mut some = ranges.iter().filter(|range| range.contains(':') == v6);
        match (whole(v6), some.next(), some.count()) {
            (true, ..) => whom.push(format!("all of Cloudflare's {family} ranges")),
            (false, None, _) => {}
            (false, Some(one), 0) => whom.push(format!("Cloudflare's {one}")),
            (false, Some(one), 1) => whom.push(format!("Cloudflare's {one} and one more range")),
            (false, Some(one), more) => whom.push(format!("Cloudflare's {one} and {more} more ranges")),
        }
    }
    if whom.is_empty() { "parts of Cloudflare".to_owned() } else { whom.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PlaceReport;

    fn caught(to: &[&str], ranges: &[&str]) -> CaughtReport {
        let words = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        CaughtReport {
            to: words(to),
            ports: words(&["80/tcp", "443/tcp"]),
            all: ranges.is_empty(),
            asked: 15,
            ranges: words(ranges),
            except: vec![],
            parts: vec![],
        }
    }

    /// A rule of this chain and family, which drops what comes from these ranges.
    fn rule(
        tool: &'static str,
        name: &str,
        (family, chain): (&str, &str),
        ranges: &[&str],
        mend: &[&str],
    ) -> CulpritReport {
        let to = if family == "ip" { "192.0.2.1" } else { "2001:db8::1" };
        CulpritReport {
            verdict: ReachVerdict::Refused,
            tool: Some(tool),
            name: Some(name.to_owned()),
            effect: "drop",
            detail: None,
            packet: "request",
            place: Some(PlaceReport {
                language: "iptables",
                hook: "input",
                family: family.to_owned(),
                table: "filter".to_owned(),
                chain: chain.to_owned(),
                base: "INPUT".to_owned(),
                position: Some(1),
                handle: None,
                text: Some("a rule".to_owned()),
                comment: None,
                sets: vec![],
            }),
            cloudflare_error: Some(522),
            catches: vec![caught(&[to], ranges)],
            mend: mend.iter().map(|&m| m.to_owned()).collect(),
        }
    }

    fn said(ones: &[&CulpritReport]) -> (String, String) {
        assert!(ones.iter().skip(1).all(|c| is_same(&ones[..1], c)), "{ones:#?}");
        let found = told(ones, Matters::Much, true);
        assert_eq!(found.evidence.len(), ones.len());
        (found.text, found.fix.and_then(|f| f.command).unwrap_or_default())
    }

    #[test]
    fn a_rule_for_both_families_is_one_and_one_for_a_single_family_says_so() {
        let sync = "edgeallow sync --backend ufw";
        let v4 = rule("ufw", "UFW", ("ip", "ufw-user-input"), &[], &[sync]);
        let v6 = rule("ufw", "UFW", ("ip6", "ufw6-user-input"), &[], &[sync]);
        assert_eq!(said(&[&v4, &v6]), ("UFW drops all of Cloudflare on ports 80 and 443".into(), sync.into()));
        assert_eq!(said(&[&v6]).0, "UFW drops all of Cloudflare's IPv6 ranges on ports 80 and 443");
        assert_eq!(told(&[&v6], Matters::Much, false).text, "UFW drops all of Cloudflare on ports 80 and 443");
        let other = rule("ufw", "UFW", ("ip6", "ufw6-before-input"), &[], &[sync]);
        assert!(!is_same(&[&v4], &other));
        let reject = CulpritReport { effect: "reject", ..v4.clone() };
        assert!(!is_same(&[&v4], &reject));
        let with = |detail: &str, c: &CulpritReport| CulpritReport {
            effect: "reject",
            detail: Some(detail.into()),
            ..c.clone()
        };
        let (v4, v6) = (with("icmp-port-unreachable", &v4), with("icmp6-port-unreachable", &v6));
        assert!(said(&[&v4, &v6]).0.ends_with(" with icmp-port-unreachable and icmp6-port-unreachable"));
    }

    #[test]
    fn bans_of_one_list_are_lifted_by_one_command() {
        let fail2ban = |family, ip: &str| {
            let name = "fail2ban (jail door)";
            let lift = format!("fail2ban-client set door unbanip {ip}");
            rule("fail2ban", name, (family, "f2b-door"), &[ip], &[&lift, "edgeallow sync --backend fail2ban"])
        };
        let (text, command) = said(&[&fail2ban("ip", "173.245.48.29/32"), &fail2ban("ip6", "2400:cb00::9/128")]);
        assert!(text.contains("drops Cloudflare's 173.245.48.29 and Cloudflare's 2400:cb00::9 on"), "{text}");
        assert_eq!(command, "fail2ban-client set door unbanip 173.245.48.29/32 2400:cb00::9/128");

        let lifts = ["cscli decisions delete --ip 173.245.48.29", "cscli decisions delete --range 104.23.0.0/16"];
        let crowdsec = rule("crowdsec", "CrowdSec", ("ip", "crowdsec-chain"), &["173.245.48.29/32"], &lifts);
        assert_eq!(said(&[&crowdsec]).1, lifts.join(" && "));

        let csf = |n: u8| {
            let ip = format!("173.245.48.{n}");
            let lift = format!("csf -dr {ip}");
            rule("csf", "CSF", ("ip", "DENYIN"), &[&ip], &[&lift, "edgeallow sync --backend csf"])
        };
        assert_eq!(said(&[&csf(1), &csf(2)]).1, "csf -dr 173.245.48.1 && csf -dr 173.245.48.2");
        let sync = "edgeallow sync --backend iptables";
        let of_set = |mend: &[&str]| rule("iptables", "own rules", ("ip", "INPUT"), &["104.16.5.0/24"], mend);
        let set = of_set(&["ipset del bl 104.16.5.0/24 && ipset del bl 104.17.0.9", sync, "iptables -D INPUT 1"]);
        let found = told(&[&set], Matters::Much, true);
        let shown = found.evidence.last().map(|e| (e.source.as_str(), e.shows.as_str()));
        assert_eq!(shown, Some(("ipset list bl", "104.16.5.0/24, 104.17.0.9")));
        let fix = found.fix.expect("a fix");
        assert_eq!(fix.command.as_deref(), Some("ipset del bl 104.16.5.0/24 && ipset del bl 104.17.0.9"));
        assert!(fix.text.contains("`edgeallow sync` lets Cloudflare in before"), "{}", fix.text);
        let named = of_set(&["nft delete element inet f bad { 104.16.5.0/24, 104.17.0.9 }"]);
        let found = told(&[&named], Matters::Much, true);
        let shown = found.evidence.last().map(|e| (e.source.as_str(), e.shows.as_str()));
        assert_eq!(shown, Some(("nft list set inet f bad", "104.16.5.0/24, 104.17.0.9")));
        assert!(found.fix.is_some_and(|f| !f.text.contains("sync")));

        let many: Vec<CulpritReport> = (1..9).map(csf).collect();
        assert_eq!(said(&many.iter().collect::<Vec<_>>()).1, "edgeallow sync --backend csf");
    }
}
