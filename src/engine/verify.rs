//! Whether the ranges reach the ports: the questions, the picture, and the verdicts as a report.
//!
//! Belongs here: what is asked about which address, and what is made of the answers. Does not: taking the picture
//! ([`super::picture`]), judging it ([`crate::reach`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use super::{
    acquire::acquire,
    asked::{Asked, Caught, place_of, step, verdict},
    picture,
    state::Loaded,
    sync::{Options, Session},
};
use crate::{
    allowlist::{Family, Prefixes},
    backends::Warning,
    error::{Error, ErrorKind, Exit, Result},
    host::{Address, Link},
    plan::Desired,
    reach::{Facts, Judged, Judgement, Picture, Place, Probe, owner, sources as numbers, walk},
    report::{
        BackendReport, BackendState, CulpritReport, ReachReport, ReachVerdict, Report, TraceReport, human::in_a_line,
    },
};

/// The warnings of a sync about what it doesn't change: whether Cloudflare gets through.
pub(super) const OF_REACH: [&str; 3] = [REFUSED, UNKNOWN, THROTTLED];
const REFUSED: &str = "still-refused";
const UNKNOWN: &str = "reach-unknown";
const THROTTLED: &str = "throttled";

/// What takes an entry out of csf.deny, and its rules.
const CSF_LIFTS: &str = "csf -dr ";

/// What the operator asks about; the default is everything that is configured.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// This address instead of each global one of this host.
    pub to: Option<IpAddr>,
    /// These ports instead of the configured ones.
    pub ports: BTreeSet<u16>,
    /// The interface that the packets come in by.
    pub interface: Option<String>,
    /// The way of a single packet from there, instead of the ranges.
    pub address: Option<IpAddr>,
}

impl Ask {
    /// Whether it can be asked at all.
    fn check(&self) -> Result<()> {
        let name = |ip: IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        match (self.address, self.to) {
            (Some(from), Some(to)) if from.is_ipv4() != to.is_ipv4() => {
                let (one, other) = (name(from), name(to));
                let what =
                    format!("{from} is an {one} address and {to} an {other} one: no packet goes from one to the other");
                Err(Error::new(ErrorKind::Usage, what).hint(format!("give --to an {one} address of this machine")))
            }
            _ => Ok(()),
        }
    }
}

impl Session<'_> {
    /// Judges whether the ranges reach the ports, and changes nothing.
    #[must_use]
    pub fn verify(&self, options: &Options, ask: &Ask) -> Report {
        let mut report = Report::blank("verify", true);
        if let Err(e) = self.try_verify(options, ask, &mut report) {
            report.exit = report.exit.worst(e.kind.exit());
            report.error = Some((&e).into());
        }
        report
    }

    fn try_verify(&self, options: &Options, ask: &Ask, report: &mut Report) -> Result<()> {
        ask.check()?;
        let Loaded { state, known, warnings } = self.store.load(false)?;
        report.warnings.extend(warnings);
        let got = acquire(self, options, &state, &mut report.warnings)?;
        report.source = Some(got.report());
        // Ranges that wait for their removal are still to be let in.
        let held = state.held.as_ref().filter(|_| known).and_then(|digest| self.store.list(digest).ok());
        let settled = self.settle(&got, &held.unwrap_or_default(), &state, known, options);
        let want = self.desired(&settled.hold);
        let reach = self.reach(&want, ask, &BTreeSet::new())?;
        if reach.verdict == ReachVerdict::Throttled {
            report.warnings.push(throttled(&reach));
        }
        if reach.verdict >= ReachVerdict::Unknown {
            report.exit = Exit::Refused;
        }
        report.reach = Some(reach);
        Ok(())
    }

    /// What every backend shall make true for this list.
    pub(crate) fn desired(&self, hold: &Prefixes) -> Desired {
        let extra = &self.config.extra;
        Desired {
            prefixes: Arc::new(if extra.is_empty() { hold.clone() } else { hold.union(extra) }),
            ports: self.config.ports.clone(),
            protocols: self.config.protocols.clone(),
        }
    }

    /// The same check at the end of a sync: what remains refused is not edgeallow's, and is said loudly.
    pub(super) fn check_reach(&self, want: &Desired, options: &Options, report: &mut Report) {
        (self.progress)("checking that Cloudflare gets through");
        let done = |state| matches!(state, BackendState::InSync | BackendState::Applied);
        // What failed a moment ago would fail again.
        let of = |b: &&BackendReport| done(b.state) || b.error.is_some();
        let synced: BTreeSet<&str> = report.backends.iter().filter(of).map(|b| b.name).collect();
        let failed = report.backends.iter().filter(|b| b.error.is_some() && !done(b.state)).map(|b| b.name);
        let failed = failed.collect::<Vec<_>>().join(" and ");
        let why = match failed.as_str() {
            "" => "something that isn't edgeallow's stands in the way".to_owned(),
            names => format!("what would let it in could not be done in {names}, whose error says why"),
        };
        let warning = match self.reach(want, &Ask::default(), &synced) {
            Ok(reach) => {
                let warning = match reach.verdict {
                    ReachVerdict::Accepted => None,
                    ReachVerdict::Throttled => Some(throttled(&reach)),
                    ReachVerdict::Unknown => Some(Warning::new(
                        UNKNOWN,
                        format!(
                            "whether Cloudflare gets through can't be told: {}; `edgeallow verify --address ADDRESS` \
                             shows a packet's way",
                            worst(&reach, ReachVerdict::Unknown)
                        ),
                    )),
                    ReachVerdict::Refused => Some(Warning::new(
                        REFUSED,
                        format!(
                            "CLOUDFLARE IS STILL REFUSED by {}: {why}: {}",
                            names(&reach, ReachVerdict::Refused),
                            worst(&reach, ReachVerdict::Refused)
                        ),
                    )),
                };
                report.reach = Some(reach);
                warning
            }
            Err(e) => Some(Warning::new(UNKNOWN, format!("whether Cloudflare gets through can't be told: {e}"))),
        };
        let told = report.reach.as_ref().is_some_and(|r| r.verdict < ReachVerdict::Unknown);
        if options.require_reach && !told {
            report.exit = report.exit.worst(Exit::Refused);
        }
        report.warnings.extend(warning);
    }

    /// Judges whether what is wanted gets through. `synced` are the backends that are known to be in sync: syncing them
    /// again would mend nothing.
    ///
    /// # Errors
    /// `usage` for what can't be asked, `netlink`.
    pub(crate) fn reach(&self, want: &Desired, ask: &Ask, synced: &BTreeSet<&str>) -> Result<ReachReport> {
        let links = self.host.links()?;
        let mut report = ReachReport::default();
        let probes = self.probes(want, ask, &links, &mut report)?;
        let mut picture = picture::take(self.host, &want.prefixes);
        let facts = picture::facts(self.host, &links, &mut picture.gaps);
        if probes.is_empty() {
            picture.gaps.push("this host has no address that Cloudflare could reach: name one with --to".to_owned());
        }
        report.gaps.clone_from(&picture.gaps);
        if !picture.gaps.is_empty() {
            report.verdict = ReachVerdict::Unknown;
        }
        let asked = Asked::new(want, ask);
        let mut found: BTreeMap<Judgement, Vec<Caught<'_>>> = BTreeMap::new();
        for probe in &probes {
            let judged = asked.judge(&picture, &facts, probe);
            report.questions.push(asked.question(probe, &judged));
            for Judged { sources, judgement } in judged {
                if judgement != Judgement::Accepted && !sources.is_empty() {
                    found.entry(judgement).or_default().push(Caught { probe, sources });
                }
            }
        }
        report.verdict = report.questions.iter().map(|q| q.verdict).max().unwrap_or_default().max(report.verdict);
        let mut found: Vec<_> = found.into_iter().collect();
        self.add_texts(found.iter_mut().filter_map(|(judgement, _)| place_of(judgement)));
        report.culprits = found.iter().filter_map(|(j, caught)| asked.culprit(&picture, j, caught, synced)).collect();
        self.mind_temporary(&mut report.culprits);
        let weight = |c: &CulpritReport| -> usize {
            c.catches.iter().map(|c| if c.all { c.asked } else { c.ranges.len() }).sum()
        };
        report.culprits.sort_by_key(|c| std::cmp::Reverse((c.verdict, weight(c))));
        if let Some(address) = ask.address {
            if !want.prefixes.contains(address) {
                outside(&mut report, address);
            }
            for probe in &probes {
                report.traces.push(self.trace(&picture, &facts, probe, address));
            }
        }
        Ok(report)
    }

    fn trace(&self, picture: &Picture, facts: &Facts, probe: &Probe, address: IpAddr) -> TraceReport {
        let (mut steps, judgement) = walk::trace(picture, facts, probe, numbers::number(address));
        self.add_texts(steps.iter_mut().map(|s| &mut s.place));
        TraceReport {
            from: address.to_string(),
            to: probe.to.to_string(),
            port: probe.port,
            protocol: probe.protocol.as_str(),
            interface: probe.interface.clone(),
            verdict: verdict(&judgement),
            steps: steps.iter().map(step).collect(),
        }
    }

    pub(super) fn add_texts<'p>(&self, places: impl Iterator<Item = &'p mut Place>) {
        let mut places: Vec<&mut Place> = places.collect();
        picture::texts(self.host, &mut places);
        // The kernel doesn't have the comments of ufw's rules, and they tell whose a rule is.
        for (start, file) in [("ufw-user-", "/etc/ufw/user.rules"), ("ufw6-user-", "/etc/ufw/user6.rules")] {
            let mut bare = places.iter_mut().filter(|p| p.comment.is_none() && p.chain.starts_with(start)).peekable();
            if bare.peek().is_none() {
                continue;
            }
            let Ok(Some(seen)) = self.host.file(Path::new(file)) else { continue };
            let rules = String::from_utf8_lossy(&seen.content);
            for place in bare {
                place.comment = owner::ufw_comment(&rules, place);
            }
        }
    }

    /// What CSF blocks for a time only is not lifted by the command for what stands in csf.deny.
    fn mind_temporary(&self, culprits: &mut [CulpritReport]) {
        let mut commands =
            culprits.iter_mut().flat_map(|c| &mut c.mend).filter(|m| m.starts_with(CSF_LIFTS)).peekable();
        if commands.peek().is_none() {
            return;
        }
        let text = |path: &str| {
            let seen = self.host.file(Path::new(path)).ok().flatten();
            seen.map(|f| String::from_utf8_lossy(&f.content).into_owned()).unwrap_or_default()
        };
        let (denied, temporary) = (text("/etc/csf/csf.deny"), text("/var/lib/csf/csf.tempban"));
        for command in commands {
            let Some(ip) = command.strip_prefix(CSF_LIFTS) else { continue };
            let is_denied = denied.lines().any(|l| l.split_whitespace().next() == Some(ip));
            // `time|address|ports|way|seconds|why`
            if !is_denied && temporary.lines().any(|l| l.split('|').nth(1) == Some(ip)) {
                *command = format!("csf -tr {ip}");
            }
        }
    }

    /// The addresses of this host that are asked about, each with every port.
    pub(super) fn probes(
        &self,
        want: &Desired,
        ask: &Ask,
        links: &[Link],
        report: &mut ReachReport,
    ) -> Result<Vec<Probe>> {
        if let Some(name) = &ask.interface
            && !links.iter().any(|l| l.name == *name)
        {
            let all: Vec<&str> = links.iter().map(|l| l.name.as_str()).collect();
            return Err(Error::new(ErrorKind::Usage, format!("there is no interface {name}"))
                .hint(format!("there are: {}", all.join(", "))));
        }
        let ports = if ask.ports.is_empty() { &want.ports } else { &ask.ports };
        let mut probes = Vec::new();
        for family in Family::BOTH {
            let is = |ip: IpAddr| ip.is_ipv4() == (family == Family::V4);
            let toward = match ask.address {
                Some(address) => Some(address).filter(|a| is(*a)),
                None => want.prefixes.family(family).next().map(|net| net.network()),
            };
            // Nothing of this family is asked about.
            let Some(toward) = toward else { continue };
            let addresses = self.addresses(ask, links, toward);
            let addresses: Vec<_> = addresses.into_iter().filter(|(ip, _)| is(*ip)).collect();
            if addresses.is_empty() && ask.to.is_none() {
                let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
                report.notes.push(format!("This host has no global {name} address, so nothing of {name} was asked"));
            }
            let back = self.host.route(None, toward).ok().flatten().map(|way| way.interface);
            for (to, interface) in addresses {
                let way_back = back.as_ref() == Some(&interface);
                for (port, protocol) in ports.iter().flat_map(|p| want.protocols.iter().map(move |t| (*p, *t))) {
                    probes.push(Probe { to, port, protocol, interface: interface.clone(), way_back });
                }
            }
        }
        Ok(probes)
    }

    /// Addresses with the interface that packets for them come in by: the one that the answers leave by.
    pub(super) fn addresses(&self, ask: &Ask, links: &[Link], toward: IpAddr) -> Vec<(IpAddr, String)> {
        let way = |from: Option<IpAddr>| self.host.route(from, toward).ok().flatten().map(|way| way.interface);
        if let Some(to) = ask.to {
            let holder = links.iter().find(|l| l.addresses.iter().any(|a| a.ip == to)).map(|l| l.name.clone());
            let local = holder.is_some();
            let interface = ask.interface.clone().or_else(|| way(local.then_some(to))).or(holder);
            let interface = interface.or_else(|| links.iter().find(|l| l.name != "lo").map(|l| l.name.clone()));
            return interface.map(|i| (to, i)).into_iter().collect();
        }
        let mut all = Vec::new();
        for (link, Address { ip, .. }) in
            links.iter().flat_map(|l| l.addresses.iter().filter(|a| a.global).map(move |a| (l, a)))
        {
            if ip.is_ipv4() != toward.is_ipv4() || ip.is_loopback() {
                continue;
            }
            let interface = ask.interface.clone().or_else(|| way(Some(*ip))).unwrap_or_else(|| link.name.clone());
            // A bridge of containers, a VPN: nothing from outside is sent to a private address but by the way out.
            if interface == link.name || !is_private(*ip) {
                all.push((*ip, interface));
            }
        }
        all
    }
}

/// RFC 1918, RFC 6598, RFC 4193.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.is_private() || (a.octets()[0] == 100 && a.octets()[1] & 0xc0 == 64),
        IpAddr::V6(a) => a.is_unique_local(),
    }
}

/// Says that the address isn't on the list, and takes back the advice to sync: that would change nothing for it.
fn outside(report: &mut ReachReport, address: IpAddr) {
    report.notes.push(format!("{address} is outside every range of the list, so edgeallow does not let it in"));
    for culprit in &mut report.culprits {
        culprit.mend.retain(|command| !command.starts_with("edgeallow sync"));
    }
}

/// Whose rules they are.
fn names(reach: &ReachReport, verdict: ReachVerdict) -> String {
    let mut names: Vec<&str> = Vec::new();
    for culprit in reach.culprits.iter().filter(|c| c.verdict == verdict) {
        let name = culprit.name.as_deref().unwrap_or("something that is no rule");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" and ")
}

/// The worst of them with its rule and its mend, as not everybody who reads a warning has the report.
fn worst(reach: &ReachReport, verdict: ReachVerdict) -> String {
    let culprits = reach.culprits.iter().filter(|c| c.verdict == verdict).map(in_a_line);
    // What a gap makes unknown is a culprit too, but for gaps that catch nothing.
    let gaps = reach.gaps.iter().filter(|_| verdict == ReachVerdict::Unknown).cloned();
    let mut unique: Vec<String> = Vec::new();
    for what in culprits.chain(gaps) {
        if !unique.contains(&what) {
            unique.push(what);
        }
    }
    match unique.as_slice() {
        [] => "`edgeallow verify` says more".to_owned(),
        [one] => one.clone(),
        [one, more @ ..] => format!("{one}; and {} more, which `edgeallow verify` shows", more.len()),
    }
}

fn throttled(reach: &ReachReport) -> Warning {
    let who = names(reach, ReachVerdict::Throttled);
    Warning::new(
        THROTTLED,
        format!("Cloudflare gets through, but only up to a rate set by {who}: a busy site would lose visitors"),
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        config::Config,
        engine::{apply::tests::Toy, state::Store},
    };

    #[test]
    fn while_the_routes_cannot_be_read_nothing_counts_as_accepted() {
        let (config, toy, folder) = (Config::default(), Toy::default(), tempfile::tempdir().unwrap());
        let session = Session {
            config: &config,
            text: None,
            host: &toy,
            backends: &[],
            store: Store::new(folder.path()),
            now: Timestamp::UNIX_EPOCH,
            offline: true,
            lock_timeout: std::time::Duration::ZERO,
            progress: &|_| (),
        };
        let want = session.desired(&["173.245.48.0/20".parse().unwrap()].into_iter().collect());
        let reach = || session.reach(&want, &Ask::default(), &BTreeSet::new()).unwrap();
        let before = reach();
        assert_eq!((before.verdict, before.questions[0].accepted), (ReachVerdict::Accepted, 1), "{:?}", before.gaps);
        toy.hides_routes.set(true);
        let after = reach();
        assert_eq!((after.verdict, after.questions[0].accepted), (ReachVerdict::Unknown, 0));
        assert!(after.gaps[0].contains("routes"), "{:?}", after.gaps);
    }

    #[test]
    fn no_packet_goes_from_one_family_to_the_other() {
        let ask = |address: &str, to: &str| Ask {
            address: Some(address.parse().unwrap()),
            to: Some(to.parse().unwrap()),
            ..Ask::default()
        };
        assert!(ask("173.245.48.29", "192.0.2.1").check().is_ok());
        assert!(ask("2400:cb00::9", "2001:db8::1").check().is_ok());
        for (address, to) in [("173.245.48.29", "2001:db8::1"), ("2400:cb00::9", "192.0.2.1")] {
            assert_eq!(ask(address, to).check().unwrap_err().kind, ErrorKind::Usage);
        }
    }

    #[test]
    fn no_sync_is_advised_for_an_address_that_is_not_on_the_list() {
        let culprit = CulpritReport {
            verdict: ReachVerdict::Refused,
            tool: Some("nftables"),
            name: None,
            effect: "drop",
            detail: None,
            packet: "request",
            place: None,
            cloudflare_error: Some(522),
            catches: vec![],
            mend: vec!["edgeallow sync --backend nftables".into(), "nft delete rule inet filter input handle 7".into()],
        };
        let mut report = ReachReport { culprits: vec![culprit], ..ReachReport::default() };
        outside(&mut report, "198.51.100.7".parse().unwrap());
        assert_eq!(report.culprits[0].mend, ["nft delete rule inet filter input handle 7"]);
        assert_eq!(report.notes, ["198.51.100.7 is outside every range of the list, so edgeallow does not let it in"]);
    }
}
