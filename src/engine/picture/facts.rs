//! What of this host a packet's way depends on, besides its packet filters.
//!
//! Belongs here: asking for it. Does not: what follows from it ([`crate::reach`]).

use std::path::Path;

use crate::{
    host::{Link, Look},
    reach::{Facts, Interface},
};

/// The interfaces, what is forwarded, and the routes that lead nowhere. What can't be read is a gap.
pub fn facts(host: &dyn Look, links: &[Link], gaps: &mut Vec<String>) -> Facts {
    let interface = |link: &Link| Interface {
        name: link.name.clone(),
        addresses: link.addresses.iter().map(|a| (a.ip, a.prefix)).collect(),
        programs: link.programs.clone(),
    };
    let on = |path: &str| {
        host.file(Path::new(path)).ok().flatten().is_some_and(|f| f.content.first().is_some_and(|c| *c != b'0'))
    };
    let forwards = (on("/proc/sys/net/ipv4/ip_forward"), on("/proc/sys/net/ipv6/conf/all/forwarding"));
    let dead_ends = host.dead_ends().unwrap_or_else(|e| {
        gaps.push(format!("the routes that lead nowhere can't be read: {e}"));
        Vec::new()
    });
    Facts { interfaces: links.iter().map(interface).collect(), forwards, dead_ends }
}
