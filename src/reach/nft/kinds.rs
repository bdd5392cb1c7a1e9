//! What numbers mean: nft writes `"syn"`, `"tcp"`, `"10.0.0.0/8"` where the kernel compares numbers.
//!
//! Belongs here: the kinds of data that facts about a packet have, their names for numbers, and reading one value or
//! range of them. Does not: which fact has which kind (`keys`), elements of sets (`sets`).

use std::net::IpAddr;

use super::json::Json;
use crate::reach::{
    model::Value,
    sources::{Sources, number},
};

/// A kind of data: nft's datatypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `ipv4_addr`.
    V4,
    /// `ipv6_addr`.
    V6,
    /// `inet_service`.
    Port,
    /// `inet_proto`.
    Proto,
    /// `mark`, and other numbers of at most 32 bits.
    Number,
    /// `ifname`.
    Name,
    /// `iface_index`: written as a name unless there is no such interface any more.
    Index,
    /// `ct_state`.
    CtState,
    /// `ct_status`.
    CtStatus,
    /// `ct_dir`.
    CtDirection,
    /// `tcp_flag`.
    TcpFlags,
    /// `ether_type`.
    EtherType,
    /// `nf_proto`.
    NfProto,
    /// `fib_addrtype`.
    AddrType,
    /// `pkt_type`.
    PktType,
    /// Whether something is there: `exists` and `missing`.
    Bool,
    /// Only whether it is zero can be told.
    Zero,
}

/// Transport protocols: what `getprotobynumber(3)` knows on common systems, and what nft itself says.
const PROTOCOLS: &[(&str, u128)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("ggp", 3),
    ("ipencap", 4),
    ("ipv4", 4),
    ("st", 5),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("pup", 12),
    ("udp", 17),
    ("hmp", 20),
    ("xns-idp", 22),
    ("rdp", 27),
    ("iso-tp4", 29),
    ("dccp", 33),
    ("xtp", 36),
    ("ddp", 37),
    ("idpr-cmtp", 38),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("idrp", 45),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("skip", 57),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("eigrp", 88),
    ("ospf", 89),
    ("ospfigp", 89),
    ("ipip", 94),
    ("etherip", 97),
    ("encap", 98),
    ("pim", 103),
    ("comp", 108),
    ("ipcomp", 108),
    ("vrrp", 112),
    ("l2tp", 115),
    ("isis", 124),
    ("sctp", 132),
    ("fc", 133),
    ("mobility-header", 135),
    ("udplite", 136),
    ("mpls-in-ip", 137),
    ("manet", 138),
    ("hip", 139),
    ("shim6", 140),
    ("wesp", 141),
    ("rohc", 142),
];

/// `RTN_*` of linux/rtnetlink.h.
const ADDR_TYPES: &[(&str, u128)] = &[
    ("unspec", 0),
    ("unicast", 1),
    ("local", 2),
    ("broadcast", 3),
    ("anycast", 4),
    ("multicast", 5),
    ("blackhole", 6),
    ("unreachable", 7),
    ("prohibit", 8),
    ("throw", 9),
    ("nat", 10),
    ("xresolve", 11),
];

impl Kind {
    /// By nft's name for the datatype, in the declaration of a set.
    pub fn of_type(name: &str) -> Option<Self> {
        Some(match name {
            "ipv4_addr" => Self::V4,
            "ipv6_addr" => Self::V6,
            "inet_service" => Self::Port,
            "inet_proto" => Self::Proto,
            "mark" | "integer" => Self::Number,
            "ifname" => Self::Name,
            "iface_index" => Self::Index,
            "ct_state" => Self::CtState,
            "ct_status" => Self::CtStatus,
            "ct_dir" => Self::CtDirection,
            "tcp_flag" => Self::TcpFlags,
            "ether_type" => Self::EtherType,
            "nf_proto" => Self::NfProto,
            "fib_addrtype" => Self::AddrType,
            "pkt_type" => Self::PktType,
            _ => return None,
        })
    }

    /// Names for its numbers.
    const fn names(self) -> &'static [(&'static str, u128)] {
        match self {
            Self::Proto => PROTOCOLS,
            Self::AddrType => ADDR_TYPES,
            Self::CtState => &[("invalid", 1), ("established", 2), ("related", 4), ("new", 8), ("untracked", 64)],
            Self::CtStatus => &[
                ("expected", 1),
                ("seen-reply", 2),
                ("assured", 4),
                ("confirmed", 8),
                ("snat", 16),
                ("dnat", 32),
                ("dying", 512),
            ],
            Self::CtDirection => &[("original", 0), ("reply", 1)],
            Self::TcpFlags => {
                &[("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ecn", 64), ("cwr", 128)]
            }
            Self::EtherType => &[
                ("ip", 0x0800),
                ("arp", 0x0806),
                ("ip6", 0x86dd),
                ("8021q", 0x8100),
                ("vlan", 0x8100),
                ("8021ad", 0x88a8),
            ],
            Self::NfProto => &[("ipv4", 2), ("ipv6", 10)],
            Self::PktType => &[("host", 0), ("unicast", 0), ("broadcast", 1), ("multicast", 2), ("other", 3)],
            _ => &[],
        }
    }

    /// Whether several values in a row mean their bits together.
    pub const fn is_flags(self) -> bool {
        matches!(self, Self::CtState | Self::CtStatus | Self::TcpFlags)
    }

    /// How many bits it has.
    pub const fn bits(self) -> u32 {
        match self {
            Self::V6 => 128,
            Self::V4 | Self::Number | Self::CtState | Self::CtStatus | Self::Name | Self::Index | Self::AddrType => 32,
            Self::Port | Self::EtherType => 16,
            _ => 8,
        }
    }

    /// The highest number.
    pub const fn highest(self) -> u128 {
        u128::MAX >> (128 - self.bits())
    }

    /// One number, written as such, as an address or as a name; flags may be several.
    pub fn single(self, json: &Json<'_>) -> Option<u128> {
        let found = match json {
            Json::Bool(is) if self == Self::Bool => u128::from(*is),
            Json::Number(n) if !matches!(self, Self::V4 | Self::V6 | Self::Name | Self::Index | Self::Bool) => {
                u128::try_from(*n).ok()?
            }
            Json::Text(text) => self.named(text)?,
            Json::List(flags) if self.is_flags() && !flags.is_empty() => self.together(flags)?,
            Json::Object(_) if self.is_flags() => match json.only()? {
                ("|", Json::List(flags)) if !flags.is_empty() => self.together(flags)?,
                _ => return None,
            },
            _ => return None,
        };
        let known = match self {
            Self::Zero => found == 0,
            _ => found <= self.highest(),
        };
        known.then_some(found)
    }

    fn together(self, flags: &[Json<'_>]) -> Option<u128> {
        flags.iter().try_fold(0, |all, flag| Some(all | self.single(flag)?))
    }

    fn named(self, text: &str) -> Option<u128> {
        match self {
            Self::V4 | Self::V6 => {
                let address: IpAddr = text.parse().ok()?;
                (address.is_ipv4() == (self == Self::V4)).then(|| number(address))
            }
            Self::Name | Self::Index | Self::Bool | Self::Zero => None,
            _ => {
                let known = self.names().iter().find(|(name, _)| *name == text).map(|(_, n)| *n);
                // nft 1.0.6 loses the type of `ct original proto-dst { 80 }` and writes "0x50 [invalid type]".
                known.or_else(|| {
                    let hex = text.strip_suffix(" [invalid type]").unwrap_or(text).strip_prefix("0x")?;
                    u128::from_str_radix(hex, 16).ok()
                })
            }
        }
    }

    /// First and last number of a value, a prefix or a range.
    pub fn span(self, json: &Json<'_>) -> Option<(u128, u128)> {
        match json.only() {
            Some(("prefix", prefix)) => {
                let len = prefix.get("len")?.number::<u32>().filter(|len| *len <= self.bits())?;
                let hosts = self.highest().checked_shr(len).unwrap_or(0) & self.highest();
                let hosts = if len == self.bits() { 0 } else { hosts };
                let first = self.single(prefix.get("addr")?)? & !hosts;
                (self != Self::Zero).then_some((first, first | hosts))
            }
            Some(("range", range)) => {
                let (first, last) = match range {
                    Json::List(ends) if ends.len() == 2 => (&ends[0], &ends[1]),
                    _ => (range.get("min")?, range.get("max")?),
                };
                let (first, last) = (self.single(first)?, self.single(last)?);
                (first <= last && self != Self::Zero).then_some((first, last))
            }
            _ => self.single(json).map(|n| (n, n)),
        }
    }

    /// A value, prefix, range or name.
    pub fn value(self, json: &Json<'_>) -> Option<Value> {
        match self {
            Self::Name | Self::Index => {
                let name = json.text().filter(|n| !n.is_empty() && !n.contains('\\'))?;
                // The number of an interface that is gone, or isn't there yet: whose it will be isn't known.
                let gone = self == Self::Index && name.bytes().all(|b| b.is_ascii_digit());
                (!gone).then(|| Value::Name(name.to_owned()))
            }
            _ => self.span(json).map(|span| Value::Numbers(Sources::new(vec![span]))),
        }
    }
}
