//! Whose rule it is: the tool that a rule or policy belongs to, by the names that the tools really give, and the
//! command that would mend it.
//!
//! Belongs here: names of tables, chains, sets and comments, and advice. Does not: whether the rule refuses (`walk`).

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;

use super::{
    except,
    model::{Chain, Elements, Hook, Language, Part, Picture, Set, Table, Verdict},
    sources::bounds,
    verdict::{Leg, Place},
};
use crate::{nft::TableFamily, plan::TAG};

/// A tool that writes packet filters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
    /// This program.
    Edgeallow,
    /// ufw.
    Ufw,
    /// ConfigServer Firewall and its daemon lfd.
    Csf,
    /// A jail of fail2ban, by name where it can be told.
    Fail2ban(Option<String>),
    /// firewalld.
    Firewalld,
    /// Docker's own rules.
    Docker,
    /// The administrator's rules in the chain that Docker keeps for them.
    DockerUser,
    /// A bouncer of CrowdSec.
    Crowdsec,
    /// Another tool that is known by its names only.
    Other(&'static str),
    /// Nobody that is known.
    ByHand(Language),
}

impl Tool {
    /// The stable word for it in JSON.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Edgeallow => TAG,
            Self::Ufw => "ufw",
            Self::Csf => "csf",
            Self::Fail2ban(_) => "fail2ban",
            Self::Firewalld => "firewalld",
            Self::Docker => "docker",
            Self::DockerUser => "docker-user",
            Self::Crowdsec => "crowdsec",
            Self::Other(_) => "other",
            Self::ByHand(Language::Nft) => "nftables",
            Self::ByHand(_) => "iptables",
        }
    }

    /// The backend of ours that lets Cloudflare in before it on input.
    const fn backend(&self) -> Option<&'static str> {
        match self {
            Self::Ufw => Some("ufw"),
            Self::Csf => Some("csf"),
            Self::Fail2ban(_) => Some("fail2ban"),
            Self::Firewalld => Some("firewalld"),
            Self::ByHand(Language::Nft) => Some("nftables"),
            Self::ByHand(_) => Some("iptables"),
            Self::Edgeallow | Self::Docker | Self::DockerUser | Self::Crowdsec | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edgeallow => f.write_str(TAG),
            Self::Ufw => f.write_str("UFW"),
            Self::Csf => f.write_str("CSF"),
            Self::Fail2ban(Some(jail)) => write!(f, "fail2ban (jail {jail})"),
            Self::Fail2ban(None) => f.write_str("fail2ban"),
            Self::Firewalld => f.write_str("firewalld"),
            Self::Docker => f.write_str("Docker"),
            Self::DockerUser => f.write_str("the administrator's own rules for Docker"),
            Self::Crowdsec => f.write_str("CrowdSec"),
            Self::Other(name) => f.write_str(name),
            Self::ByHand(Language::Nft) => f.write_str("the administrator's own nftables rules"),
            Self::ByHand(_) => f.write_str("the administrator's own iptables rules"),
        }
    }
}

/// Beginnings of chain names of tools that are known by nothing else.
const BY_CHAIN: [(&str, Tool); 15] = [
    ("DOCKER-USER", Tool::DockerUser),
    ("DOCKER", Tool::Docker),
    ("CROWDSEC", Tool::Crowdsec),
    ("crowdsec", Tool::Crowdsec),
    ("KUBE-", Tool::Other("Kubernetes")),
    ("cali-", Tool::Other("Calico")),
    ("CILIUM_", Tool::Other("Cilium")),
    ("FLANNEL-", Tool::Other("Flannel")),
    ("CNI-", Tool::Other("CNI")),
    ("NETAVARK", Tool::Other("Podman")),
    ("LIBVIRT_", Tool::Other("libvirt")),
    ("ts-", Tool::Other("Tailscale")),
    ("sshguard", Tool::Other("SSHGuard")),
    ("IMUNIFY360", Tool::Other("Imunify360")),
    ("INPUT_imunify360", Tool::Other("Imunify360")),
];

/// The table that `firewall-cmd --panic-on` drops every packet with (firewalld's `core/nftables.py`).
const PANIC: &str = "firewalld_policy_drop";

/// Names of nftables' tables.
const BY_TABLE: [(&str, Tool); 10] = [
    ("firewalld", Tool::Firewalld),
    (PANIC, Tool::Firewalld),
    ("crowdsec", Tool::Crowdsec),
    ("crowdsec6", Tool::Crowdsec),
    ("docker-bridges", Tool::Docker),
    ("kube-proxy", Tool::Other("Kubernetes")),
    ("netavark", Tool::Other("Podman")),
    ("libvirt_network", Tool::Other("libvirt")),
    ("sshguard", Tool::Other("SSHGuard")),
    (TAG, Tool::Edgeallow),
];

/// Beginnings of the names of sets where bans are kept.
const BY_SET: [(&str, Tool); 3] =
    [("crowdsec", Tool::Crowdsec), ("i360", Tool::Other("Imunify360")), ("sshguard", Tool::Other("SSHGuard"))];

/// Whose rule or policy it is.
#[must_use]
pub fn owner(place: &Place, picture: &Picture) -> Tool {
    let chain = place.chain.as_str();
    let is_rule = place.position.is_some();
    let ours = place.comment.as_deref() == Some(TAG) || chain == TAG.to_uppercase();
    if is_rule && (ours || (place.language == Language::Nft && place.table == TAG)) {
        return Tool::Edgeallow;
    }
    if let Some(jail) = jail(place) {
        return Tool::Fail2ban(jail);
    }
    if let Some((_, tool)) = BY_SET.iter().find(|(start, _)| place.sets.iter().any(|s| s.starts_with(start))) {
        return tool.clone();
    }
    if let Some((_, tool)) = BY_TABLE.iter().find(|(name, _)| place.language == Language::Nft && place.table == *name) {
        return tool.clone();
    }
    if is_ufw(chain) {
        return Tool::Ufw;
    }
    if let Some((_, tool)) = BY_CHAIN.iter().find(|(start, _)| chain.starts_with(start)) {
        return tool.clone();
    }
    if place.language == Language::Nft {
        return Tool::ByHand(Language::Nft);
    }
    let table = picture
        .tables
        .iter()
        .find(|t| t.language == place.language && t.family == place.family && t.name == place.table);
    let Some(table) = table else { return Tool::ByHand(place.language) };
    let has = |name: &str| table.chains.contains_key(name);
    // CSF takes the whole table: it flushes what others wrote there.
    if has("LOCALINPUT") && (has("DENYIN") || has("ALLOWIN") || has("LOGDROPIN")) {
        return Tool::Csf;
    }
    if chain.ends_with("_direct")
        || (table.chains.keys().any(|c| c.ends_with("_ZONES")) && (chain.contains('_') || closes_zones(place)))
    {
        return Tool::Firewalld;
    }
    if !is_rule {
        let jumps = |to: &dyn Fn(&str) -> bool| table.chains.get(chain).is_some_and(|c| leads(c, to));
        if jumps(&is_ufw) {
            return Tool::Ufw;
        }
        if place.hook == Hook::Forward && jumps(&|c| c.starts_with("DOCKER")) {
            return Tool::Docker;
        }
    }
    Tool::ByHand(place.language)
}

fn is_ufw(chain: &str) -> bool {
    chain.starts_with("ufw-") || chain.starts_with("ufw6-")
}

/// The two rules that firewalld's iptables variant puts at the end of INPUT and FORWARD themselves.
fn closes_zones(place: &Place) -> bool {
    place.text.as_deref().is_some_and(|t| t.contains("INVALID") || t.contains("-prohibited"))
}

fn leads(chain: &Chain, to: &dyn Fn(&str) -> bool) -> bool {
    let goes = |part: &Part| matches!(part, Part::Verdict(Verdict::Jump(c) | Verdict::Goto(c)) if to(c));
    chain.rules.iter().flat_map(|r| &r.parts).any(goes)
}

/// The jail that a rule of fail2ban's belongs to; `Some(None)` if it is fail2ban's and names none.
fn jail(place: &Place) -> Option<Option<String>> {
    // ipset's action names a jail's second set by a 6 at the end.
    let sixless = |name: &str| match place.family {
        TableFamily::Ip6 => name.strip_suffix('6').unwrap_or(name).to_owned(),
        _ => name.to_owned(),
    };
    for set in &place.sets {
        let nft = set.strip_prefix("addr-set-").or_else(|| set.strip_prefix("addr6-set-"));
        if let Some(jail) = nft.filter(|_| place.table.starts_with("f2b")) {
            return Some(Some(jail.to_owned()));
        }
        if let Some(jail) = set.strip_prefix("f2b-").or_else(|| set.strip_prefix("fail2ban-")) {
            return Some(Some(sixless(jail)));
        }
    }
    if place.language == Language::Nft {
        return place.table.starts_with("f2b-").then_some(None);
    }
    // What its actions `ufw` and `iptables-xt_recent-echo` write.
    if let Some(comment) = place.comment.as_deref().filter(|c| c.starts_with("by Fail2Ban")) {
        return Some(comment.rsplit_once(" against ").map(|(_, jail)| jail.trim().to_owned()));
    }
    if let Some(jail) = place.text.as_deref().and_then(recent) {
        return Some(Some(sixless(jail)));
    }
    let jail = place.chain.strip_prefix("f2b-").or_else(|| place.chain.strip_prefix("fail2ban-"))?;
    Some(Some(jail.to_owned()))
}

/// The jail whose list a rule of iptables looks the source up in.
fn recent(text: &str) -> Option<&str> {
    let words: Vec<&str> = text.split(' ').collect();
    let is_recent = words.windows(2).any(|w| w == ["-m", "recent"]);
    let name = words.windows(2).find(|w| w[0] == "--name").map(|w| w[1].trim_matches('"'))?;
    name.strip_prefix("f2b-").filter(|_| is_recent)
}

/// The comment that a rule of ufw's was given, if any: it stands in the file where ufw keeps its rules (`user.rules`), each
/// behind a line `### tuple ### ACTION PROTOCOL DPORT DST SPORT SRC DIRECTION comment=HEX`, and not in the kernel.
#[must_use]
pub fn ufw_comment(file: &str, place: &Place) -> Option<String> {
    let net = |word: &str| word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from)).ok();
    let from = source(place)?;
    let text = place.text.as_deref()?;
    let has_ports = text.contains("--dport");
    let does = match text.rsplit_once(" -j ")?.1.split(' ').next()? {
        "ACCEPT" => "allow",
        "DROP" => "deny",
        "REJECT" => "reject",
        _ => "limit",
    };
    // One source may have several rules: his that denies, and ours that allows.
    let of = |line: &str| {
        let tuple = line.strip_prefix("### tuple ### ")?;
        let words: Vec<&str> = tuple.split(' ').collect();
        let action = words.first()?.trim_start_matches("route:");
        let same = action.strip_prefix(does).is_some_and(|log| log.is_empty() || log.starts_with('_'));
        let is_it = same && (*words.get(2)? != "any") == has_ports && net(words.get(5)?)? == from;
        is_it.then(|| tuple.rsplit_once(" comment=").and_then(|(_, hex)| unhex(hex.trim())))
    };
    file.lines().find_map(of)?
}

fn unhex(hex: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = hex
        .as_bytes()
        .chunks(2)
        .map(|two| std::str::from_utf8(two).ok().filter(|t| t.len() == 2).and_then(|t| u8::from_str_radix(t, 16).ok()))
        .collect();
    String::from_utf8(bytes?).ok()
}

/// How many addresses a command is shown with.
const MOST: usize = 5;

/// What an administrator could type to mend it, best first; nothing where no single command would.
///
/// `caught` are the sources that the rule catches and the ports that they aim at, `synced` the backends of ours that have done all they can.
#[must_use]
pub fn mend(
    place: &Place,
    leg: Leg,
    tool: &Tool,
    (caught, ports): (&[IpNet], &BTreeSet<u16>),
    synced: &BTreeSet<&str>,
) -> Vec<String> {
    let sync = tool.backend().filter(|b| !synced.contains(b)).map(|b| format!("edgeallow sync --backend {b}"));
    let mut all = Vec::new();
    match tool {
        Tool::Edgeallow => all.push("edgeallow sync".to_owned()),
        Tool::Fail2ban(jail) => {
            all.extend(jail.as_ref().map(|jail| {
                // It takes any number, and a whole range for all the bans in it.
                let all: Vec<String> = caught.iter().map(bare).collect();
                format!("fail2ban-client set {jail} unbanip {}", all.join(" "))
            }));
            all.extend(sync);
        }
        Tool::Crowdsec => all.extend(caught.iter().take(MOST).map(|net| {
            let what = if is_one(net) { "ip" } else { "range" };
            format!("cscli decisions delete --{what} {}", bare(net))
        })),
        Tool::Csf => {
            if place.chain.starts_with("DENY") {
                // An entry of the list may be wider than what it catches.
                match denied(place) {
                    Some(entry) => all.push(format!("csf -dr {entry}")),
                    None => all.extend(caught.iter().take(MOST).map(|net| format!("csf -dr {}", bare(net)))),
                }
            }
            all.extend(sync);
        }
        Tool::Ufw => all.extend(ufw(place, sync)),
        Tool::Firewalld => {
            if place.table == PANIC {
                all.push("firewall-cmd --panic-off".to_owned());
            } else if place.chain.ends_with("_direct") {
                all.push("firewall-cmd --direct --get-all-rules".to_owned());
            } else if place.hook == Hook::Input {
                all.extend(sync);
            }
        }
        Tool::DockerUser => all.extend(except::before(place, leg, tool, caught, ports).or_else(|| delete(place))),
        Tool::ByHand(_) => {
            // Ours goes first in a base chain on input; nowhere else.
            let ours_helps = place.hook == Hook::Input && (place.language == Language::Nft || place.table == "filter");
            all.extend(sync.filter(|_| ours_helps && leg == Leg::Syn));
            let let_in = || except::before(place, leg, tool, caught, ports).or_else(|| delete(place));
            all.extend(let_in().or_else(|| open_answers(place, leg)));
        }
        Tool::Docker | Tool::Other(_) => {}
    }
    all
}

/// What takes the caught sources out of the set that a rule of the administrator's own refuses by.
///
/// Nothing where they are more than a few, or none of the set's elements but parts of them: a wider element also stands
/// for others.
#[must_use]
pub fn lifts(place: &Place, picture: &Picture, tool: &Tool, caught: &[IpNet]) -> Option<String> {
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let ([name], Tool::ByHand(_) | Tool::DockerUser) = (place.sets.as_slice(), tool) else { return None };
    let set = match place.language {
        Language::Nft => {
            let its = |t: &&Table| t.language == place.language && t.family == place.family && t.name == place.table;
            picture.tables.iter().find(its).and_then(|table| table.sets.get(name))
        }
        _ => picture.ipsets.get(name),
    };
    let Some(Set::Plain(Elements::Numbers(held, ()))) = set else { return None };
    let is_element = |net: &IpNet| held.ranges().contains(&bounds(net));
    if caught.is_empty()
        || caught.len() > MOST
        || !caught.iter().all(is_element)
        || !plain(name)
        || !plain(&place.table)
    {
        return None;
    }
    let elements: Vec<String> = caught.iter().map(bare).collect();
    match place.language {
        Language::Nft => {
            let (family, table) = (place.family.as_str(), &place.table);
            Some(format!("nft delete element {family} {table} {name} {{ {} }}", elements.join(", ")))
        }
        _ => {
            let each: Vec<String> = elements.iter().map(|element| format!("ipset del {name} {element}")).collect();
            Some(each.join(" && "))
        }
    }
}

fn ufw(place: &Place, sync: Option<String>) -> Option<String> {
    if place.chain.contains("-before-") {
        let six = if place.family == TableFamily::Ip6 { "6" } else { "" };
        return Some(format!("editor /etc/ufw/before{six}.rules && ufw reload"));
    }
    match place.hook {
        Hook::Output if place.position.is_none() => Some("ufw default allow outgoing".to_owned()),
        Hook::Forward if place.position.is_none() => Some("ufw default allow routed".to_owned()),
        Hook::Input if sync.is_some() => sync,
        _ => Some("ufw status numbered && ufw delete NUMBER".to_owned()),
    }
}

/// Whether it is a rule that lets packets in, up to a rate or under a condition that isn't understood.
pub(super) fn admits(place: &Place) -> bool {
    let admits = |text: &str| text.split(' ').any(|w| matches!(w, "accept" | "ACCEPT" | "RETURN" | "return"));
    place.text.as_deref().is_some_and(admits)
}

/// Takes the rule out; nothing if it is one that lets packets in.
#[must_use]
pub fn delete(place: &Place) -> Option<String> {
    if admits(place) {
        return None;
    }
    if place.language == Language::Nft {
        let family = place.family.as_str();
        return place.handle.map(|h| format!("nft delete rule {family} {} {} handle {h}", place.table, place.chain));
    }
    let table = if place.table == "filter" { String::new() } else { format!(" -t {}", place.table) };
    match (specification(place), place.position) {
        (Some(rule), _) => Some(format!("{}{table} -D {rule}", program(place))),
        (None, Some(n)) => Some(format!("{}{table} -D {} {n}", program(place), place.chain)),
        (None, None) => None,
    }
}

/// Shows the rule among its neighbours.
#[must_use]
pub fn show(place: &Place) -> String {
    if place.language == Language::Nft {
        return format!("nft -a list chain {} {} {}", place.family.as_str(), place.table, place.chain);
    }
    format!("{} -t {} -S {}", program(place), place.table, place.chain)
}

/// A rule of iptables' as `-D` finds it again, which is safer than its number: that changes with every rule taken out.
///
/// Of some matches `-D` compares what isn't printed (`recent`, `connlimit`), and what needs quotes could be mistyped.
fn specification(place: &Place) -> Option<&str> {
    const COMPARED: [&str; 6] = ["tcp", "udp", "multiport", "conntrack", "set", "addrtype"];
    let rule = place.text.as_deref()?.strip_prefix("-A ")?;
    let words: Vec<&str> = rule.split(' ').collect();
    let plain = !rule.contains(['"', '\'', '\\']);
    let found = words.windows(2).all(|w| w[0] != "-m" || COMPARED.contains(&w[1]));
    (plain && found).then_some(rule)
}

/// A policy that drops what belongs to a connection already let in.
fn open_answers(place: &Place, leg: Leg) -> Option<String> {
    if place.position.is_some() || leg == Leg::Syn {
        return None;
    }
    if place.language == Language::Nft {
        let (family, table, chain) = (place.family.as_str(), &place.table, &place.chain);
        return Some(format!("nft insert rule {family} {table} {chain} ct state established,related accept"));
    }
    let table = if place.table == "filter" { String::new() } else { format!(" -t {}", place.table) };
    let rule = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
    Some(format!("{}{table} -I {} {rule}", program(place), place.chain))
}

pub(super) fn program(place: &Place) -> String {
    let stem = if place.family == TableFamily::Ip6 { "ip6tables" } else { "iptables" };
    let variant = if place.language == Language::IptablesLegacy { "-legacy" } else { "" };
    format!("{stem}{variant}")
}

/// The address that a rule of CSF's denies, as it stands in its list.
fn denied(place: &Place) -> Option<String> {
    source(place).map(|net| bare(&net))
}

/// The one source that a rule of iptables' names; in an answer it is the destination.
fn source(place: &Place) -> Option<IpNet> {
    let mut words = place.text.as_deref()?.split(' ');
    words.find(|w| matches!(*w, "-s" | "-d"))?;
    words.next()?.parse().ok()
}

fn is_one(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// An address without `/32`.
pub(super) fn bare(net: &IpNet) -> String {
    if is_one(net) { net.addr().to_string() } else { net.to_string() }
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod tests;
