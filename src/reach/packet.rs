//! The packets that a verdict is about, and the facts about this host that their way depends on.
//!
//! Belongs here: the question. Does not: the rules (`model`), the answer (`verdict`).

use std::net::IpAddr;

use crate::{allowlist::Family, plan::Protocol};

/// A question: may clients open connections to this address and port?
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Probe {
    /// The server's address that they aim at.
    pub to: IpAddr,
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The interface that their packets come in by, and the answers leave by.
    pub interface: String,
    /// Whether the kernel's routes agree: it would answer the clients by that interface.
    pub way_back: bool,
}

impl Probe {
    /// The family of the addresses.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.to {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// What of the host a packet's way depends on, besides its packet filters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// Whether packets for other hosts are forwarded (`net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`).
    pub forwards: (bool, bool),
    /// Routes that lead nowhere, as `ip route` prints them: `unreachable 173.245.48.29`.
    pub dead_ends: Vec<(ipnet::IpNet, String)>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// What runs on it before or after every rule and can't be looked into, by name: `XDP program 12`, `tc ingress filter`.
    pub programs: Vec<String>,
}

impl Facts {
    /// Whether packets of a family for other hosts are forwarded.
    #[must_use]
    pub const fn forwards(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.forwards.0,
            Family::V6 => self.forwards.1,
        }
    }

    /// The interface that has this address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.addresses.iter().any(|(a, _)| *a == address))
    }

    /// Whether the address is this host's own.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.owner(address).is_some()
    }

    /// The interface whose network an address of another host lies in: the longest prefix counts.
    #[must_use]
    pub fn towards(&self, address: IpAddr) -> Option<&Interface> {
        let nets = self.interfaces.iter().flat_map(|i| i.addresses.iter().map(move |(a, len)| (i, *a, *len)));
        let near = nets.filter(|(_, a, len)| ipnet::IpNet::new(*a, *len).is_ok_and(|net| net.contains(&address)));
        near.max_by_key(|(_, _, len)| *len).map(|(i, _, _)| i)
    }
}
