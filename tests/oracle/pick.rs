//! Choosing: addresses to try, and prefixes, ranges and ports that contain or border what is tried.
//!
//! A random prefix would never meet a random address, and a test where nothing meets proves nothing.
//!
//! Belongs here: choices without a language. Does not: rules (`native`, `xtables`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use edgeallow::{
    allowlist::Family,
    reach::sources::{address, number},
};
use fastrand::Rng;
use ipnet::IpNet;

use crate::run::PUBLISHED;

/// The ports that are tried.
pub const PORTS: [u16; 3] = [80, 443, 8443];
/// How many addresses of each family a rule set is tried from.
pub const TRIED: usize = 8;
/// How many addresses of each family the internet has.
const POOL: usize = 200;

/// Addresses of the internet: inside, at the edges of and just outside Cloudflare's ranges, and anywhere else. The same
/// whenever it is asked, so that a rule set's seed alone says what it is and who tries it.
pub fn pool() -> Vec<IpAddr> {
    let rng = &mut Rng::with_seed(0);
    let mut pool = Vec::new();
    for family in Family::BOTH {
        let published: Vec<IpNet> = published(family);
        let mut of_family = Vec::new();
        while of_family.len() < POOL {
            let net = published[rng.usize(..published.len())];
            let (first, last) = (number(net.network()), number(net.broadcast()));
            let at = match rng.u8(..10) {
                0 => first,
                1 => last,
                2 => first - 1,
                3 => last + 1,
                4..=6 => rng.u128(first..=last),
                _ => match family {
                    Family::V4 => u128::from(u32::from(stranger4(rng))),
                    Family::V6 => u128::from(Ipv6Addr::new(0x2001, 0xdb8, rng.u16(3..), 0, 0, 0, 0, rng.u16(..))),
                },
            };
            let at = address(at, family);
            if !of_family.contains(&at) {
                of_family.push(at);
            }
        }
        pool.extend(of_family);
    }
    pool
}

fn stranger4(rng: &mut Rng) -> Ipv4Addr {
    let net = [[203, 0, 113], [198, 51, 100], [8, 8, 8], [93, 184, 216]][rng.usize(..4)];
    Ipv4Addr::new(net[0], net[1], net[2], rng.u8(1..255))
}

/// Cloudflare's ranges of a family.
pub fn published(family: Family) -> Vec<IpNet> {
    let all = PUBLISHED.iter().map(|p| p.parse::<IpNet>().expect("a prefix"));
    all.filter(|p| matches!((p, family), (IpNet::V4(_), Family::V4) | (IpNet::V6(_), Family::V6))).collect()
}

/// A source of choices about a rule set, and the addresses that it will be tried from.
pub struct Picker {
    /// The source of all randomness.
    pub rng: Rng,
    /// What will be tried, both families.
    pub tried: Vec<IpAddr>,
}

impl Picker {
    /// For one rule set.
    pub fn new(seed: u64, pool: &[IpAddr]) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut tried = Vec::new();
        for v4 in [true, false] {
            let of_family: Vec<_> = pool.iter().copied().filter(|a| a.is_ipv4() == v4).collect();
            tried.extend(rng.choose_multiple(of_family, TRIED));
        }
        Self { rng, tried }
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    /// One of these.
    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(..of.len())].clone()
    }

    /// One of these, each as often as its weight says.
    pub fn weighted<T: Clone>(&mut self, of: &[(u32, T)]) -> T {
        let sum: u32 = of.iter().map(|(weight, _)| weight).sum();
        let mut at = self.rng.u32(..sum);
        for (weight, item) in of {
            if at < *weight {
                return item.clone();
            }
            at -= weight;
        }
        unreachable!("the weights were summed up")
    }

    /// One of the addresses that are tried.
    pub fn tried(&mut self, family: Family) -> IpAddr {
        let of_family: Vec<_> = self.tried.iter().copied().filter(|a| a.is_ipv4() == (family == Family::V4)).collect();
        self.one(&of_family)
    }

    /// A prefix that contains or borders an address that is tried; seldom one that has nothing to do with any.
    pub fn prefix(&mut self, family: Family) -> IpNet {
        let bits = if family == Family::V4 { 32 } else { 128 };
        let tried = number(self.tried(family));
        let (at, length) = match self.rng.u8(..12) {
            0..=2 => (tried, bits),
            3 => (tried.saturating_sub(1), bits - self.rng.u8(..4)),
            4 => ((tried + 1) & ones(bits), bits - self.rng.u8(..4)),
            5..=7 => (tried, self.rng.u8(bits / 4..bits)),
            8 => (tried, self.rng.u8(1..4)),
            9 => return self.one(&published(family)),
            10 => {
                let published = published(family);
                let around = published.into_iter().find(|p| p.contains(&address(tried, family)));
                return around
                    .unwrap_or_else(|| IpNet::new(address(tried, family), bits / 2).expect("a length").trunc());
            }
            _ => (self.rng.u128(..) & ones(bits), self.rng.u8(bits / 2..bits)),
        };
        IpNet::new(address(at, family), length).expect("a length").trunc()
    }

    /// A range, not a prefix, one of whose ends is near an address that is tried.
    pub fn range(&mut self, family: Family) -> (IpAddr, IpAddr) {
        let bits = if family == Family::V4 { 32 } else { 128 };
        let tried = number(self.tried(family));
        let magnitude = self.rng.u8(1..bits / 2);
        let width = self.rng.u128(1..1 << magnitude);
        let top = ones(bits);
        let (first, last) = match self.rng.u8(..5) {
            0 => (tried, (tried + width).min(top)),
            1 => (tried + 1, (tried + 1 + width).min(top)),
            2 => (tried.saturating_sub(width), tried),
            3 => (tried.saturating_sub(width + 1), tried - 1),
            _ => (tried.saturating_sub(width), (tried + width).min(top)),
        };
        (address(first, family), address(last, family))
    }

    /// Prefixes none of which meets another.
    pub fn prefixes(&mut self, family: Family, most: usize) -> Vec<IpNet> {
        if self.percent(12) {
            return published(family);
        }
        let mut found: Vec<IpNet> = Vec::new();
        for _ in 0..self.rng.usize(1..=most) {
            let prefix = self.prefix(family);
            if found.iter().all(|f| !f.contains(&prefix) && !prefix.contains(f)) {
                found.push(prefix);
            }
        }
        found
    }

    /// A port: one that is tried, but for a few.
    pub fn port(&mut self) -> u16 {
        self.weighted(&[(4, 80), (4, 443), (4, 8443), (1, 22), (1, 8080)])
    }

    /// Different ports, ascending.
    pub fn ports(&mut self, most: usize) -> Vec<u16> {
        let mut ports: Vec<_> = (0..self.rng.usize(1..=most)).map(|_| self.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// A range of ports that begins or ends at one that is tried, or next to it.
    pub fn port_range(&mut self) -> (u16, u16) {
        let (a, b) = (self.port() - self.rng.u16(..2), self.rng.u16(1..20_000));
        if self.percent(50) { (a, a + b) } else { (a.saturating_sub(b), a) }
    }
}

fn ones(bits: u8) -> u128 {
    u128::MAX >> (128 - bits)
}
