//! What the operator should know of CSF: settings that undo or defeat what edgeallow does, each with its fix.
//!
//! Belongs here: words. Pure. Does not: changing a setting of CSF's; those are the administrator's.

use std::collections::BTreeSet;

use super::Seen;
use crate::{
    allowlist::{Family, Prefixes, short, snapshot},
    backends::Warning,
    plan::Protocol,
};

/// How many addresses a message names.
const NAMED: usize = 5;

/// From this many rules on, going through them one by one is felt by every new connection.
const MANY: usize = 1024;

/// Why what is stored isn't live, if so.
#[must_use]
pub fn pending(seen: &Seen) -> Option<String> {
    if seen.allow.is_none() && seen.his_allow.found.good == 0 {
        return None;
    }
    if !seen.tables.is_empty() {
        let late =
            seen.conf.on("IPV6") && !seen.loaded(Family::V6) && seen.ours().iter().any(|a| a.family() == Family::V6);
        return late.then(|| "CSF is not loaded for IPv6, though IPV6 = \"1\": `csf -r` loads it".to_owned());
    }
    Some(if seen.disabled {
        "CSF is disabled; the lists count from `csf -e` on".to_owned()
    } else if let Some(error) = &seen.error {
        format!("CSF stopped at an error ({error}); mend that, and the lists count from `csf -r` on")
    } else {
        "CSF is not loaded; the lists count from `csf -s` on".to_owned()
    })
}

/// What the operator should know of what was seen.
#[must_use]
pub fn warnings(seen: &Seen, ports: &BTreeSet<u16>, protocols: &BTreeSet<Protocol>) -> Vec<Warning> {
    let conf = &seen.conf;
    let mut out = Vec::new();
    let mut warn = |id: &str, message: String| out.push(Warning::new(id, message));
    if conf.on("TESTING") {
        let message = "TESTING = \"1\": CSF clears its firewall every few minutes and lfd doesn't run; set TESTING = \
                       \"0\" in /etc/csf/csf.conf and run `csf -r`";
        warn("csf-testing", message.to_owned());
    }
    for (protocol, family, setting) in [
        (Protocol::Tcp, Family::V4, "TCP_IN"),
        (Protocol::Tcp, Family::V6, "TCP6_IN"),
        (Protocol::Udp, Family::V4, "UDP_IN"),
        (Protocol::Udp, Family::V6, "UDP6_IN"),
    ] {
        let asked = protocols.contains(&protocol) && (family == Family::V4 || conf.on("IPV6"));
        let open: Vec<_> = ports.iter().filter(|p| asked && conf.lists(setting, **p)).map(u16::to_string).collect();
        if !open.is_empty() {
            let open = open.join(", ");
            warn(
                "csf-open-to-all",
                format!(
                    "{setting} lets everybody reach port {open}, not Cloudflare alone; if only Cloudflare should, take \
                     {open} out of {setting} in /etc/csf/csf.conf and run `csf -r`"
                ),
            );
        }
    }
    if !conf.on("IPV6") {
        let message = "IPV6 = \"0\": CSF leaves IPv6 alone, so nothing is restricted there and edgeallow's IPv6 lines \
                       wait; set IPV6 = \"1\" in /etc/csf/csf.conf and run `csf -r`";
        warn("csf-without-ipv6", message.to_owned());
    }
    for setting in ["MESSENGER", "MESSENGER6"].into_iter().filter(|s| conf.on(s)) {
        let message = format!(
            "{setting} = \"1\": a blocked address is sent to CSF's messenger before its allow list is looked at; set \
             {setting} = \"0\" in /etc/csf/csf.conf and run `csf -ra`"
        );
        warn("csf-messenger", message);
    }
    if conf.on("CT_SUBNET_LIMIT") {
        let message = "CT_SUBNET_LIMIT is set: lfd blocks whole networks by it and doesn't ask csf.ignore, so Cloudflare's \
                       may be among them (they still reach the allowed ports); set CT_SUBNET_LIMIT = \"0\" in \
                       /etc/csf/csf.conf and run `csf -ra`";
        warn("csf-ct-subnet-limit", message.to_owned());
    }
    if conf.on("DOCKER") {
        let message = "DOCKER = \"1\": ports that containers publish bypass CSF's lists, so they are open to everybody; \
                       publish them on 127.0.0.1, or restrict them in chain DOCKER-USER";
        warn("csf-docker", message.to_owned());
    }
    if seen.ours().len() > MANY {
        let message = format!(
            "CSF goes through {} rules one by one for each new connection; it knows no sets for addresses with ports",
            seen.ours().len()
        );
        warn("csf-many-rules", message);
    }
    blocked(seen, &mut warn);
    out
}

/// Cloudflare's addresses among those that CSF or lfd blocks.
fn blocked(seen: &Seen, warn: &mut impl FnMut(&str, String)) {
    let mut held = seen.held();
    if held.is_empty() {
        held = snapshot::built_in().map(|list| Prefixes::new(list.v4, list.v6)).unwrap_or_default();
    }
    for (file, fix) in [("/etc/csf/csf.deny", "csf -dr"), ("/var/lib/csf/csf.tempban", "csf -tr")] {
        let inside = |net: &ipnet::IpNet| held.covers(net) || held.iter().any(|h| net.contains(&h));
        let ours: Vec<_> = seen.blocked.iter().filter(|(f, net)| *f == file && inside(net)).map(|(_, n)| n).collect();
        if ours.is_empty() {
            continue;
        }
        let names: Vec<_> = ours.iter().take(NAMED).map(|n| short(n)).collect();
        let more = if ours.len() > NAMED { format!(" and {} more", ours.len() - NAMED) } else { String::new() };
        let message = format!(
            "{file} blocks {}{more} inside Cloudflare's ranges; the allowed ports stay reachable, the others don't: \
             `{fix} {}` lifts it",
            names.join(", "),
            names[0]
        );
        warn("csf-blocks-cloudflare", message);
    }
}
