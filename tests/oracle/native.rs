//! Inventing nftables tables.
//!
//! Belongs here: nftables' language and what the kernel takes of it where. Does not: what it means.

use std::fmt::Write as _;

use edgeallow::allowlist::Family;

use super::{
    host::{BOX_PORTS, BOX4, BOX6},
    pick::Picker,
    rule_set::{Native, NativeChain},
};
use crate::lab::{SERVER4, SERVER6};

/// What a chain may hold: the kernel checks what a base chain can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// What may stand on every hook.
    Plain,
    /// `reject` too.
    Local,
    /// `dnat` and `redirect` too.
    Nat,
    /// Of a `netdev` table or on `ingress`: nothing of connection tracking.
    Device,
}

/// The chain that named verdict maps jump to. It uses none itself, so that there is no loop.
const LEAF: &str = "leaf";

/// Which end of the connection the rules are likely to look at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// What a named set or map holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Addresses(Family),
    AddressesAndPorts(Family),
    Ports,
    Interfaces,
    AddressVerdicts(Family),
    PortVerdicts,
    AddressMarks(Family),
}

/// A kind of base chain: hook, type, what may stand in it, which way its packets go, how often.
type Kind = (&'static str, &'static str, Class, Way);
const KINDS: [(u32, Kind); 12] = [
    (24, ("input", "filter", Class::Local, Way::In)),
    (10, ("prerouting", "filter", Class::Local, Way::In)),
    (8, ("output", "filter", Class::Local, Way::Out)),
    (6, ("postrouting", "filter", Class::Plain, Way::Out)),
    (9, ("forward", "filter", Class::Local, Way::In)),
    (12, ("prerouting", "nat", Class::Nat, Way::In)),
    (2, ("input", "nat", Class::Plain, Way::In)),
    (1, ("output", "nat", Class::Plain, Way::Out)),
    (2, ("postrouting", "nat", Class::Plain, Way::In)),
    (3, ("output", "route", Class::Local, Way::Out)),
    (2, ("ingress", "filter", Class::Device, Way::In)),
    (1, ("egress", "filter", Class::Device, Way::Out)),
];

/// Writes one table.
struct Writer<'p> {
    picker: &'p mut Picker,
    family: &'static str,
    sets: Vec<(String, Holds)>,
}

/// A table; `busy` holds the hooks and priorities that are taken, as whose turn is first is anybody's guess otherwise.
pub fn table(picker: &mut Picker, number: usize, busy: &mut Vec<(&'static str, i32)>) -> Native {
    let family = picker.weighted(&[(5, "inet"), (2, "ip"), (2, "ip6"), (1, "netdev")]);
    let mut table =
        Native { family, name: format!("t{number}"), dormant: picker.percent(2), sets: Vec::new(), chains: Vec::new() };
    let mut bases = Vec::new();
    for n in 0..picker.rng.usize(1..=3) {
        let kind = loop {
            let kind = picker.weighted(&KINDS);
            let fits = match kind.0 {
                "ingress" => family == "netdev" || family == "inet",
                "egress" => family == "netdev",
                _ => family != "netdev",
            };
            if fits {
                break kind;
            }
        };
        bases.push((format!("b{n}"), kind));
    }
    // His own chains; a chain jumps only to later ones.
    let classes: &[(u32, Class)] = if family == "netdev" {
        &[(1, Class::Device)]
    } else {
        &[(3, Class::Plain), (3, Class::Local), (1, Class::Nat)]
    };
    let own: Vec<_> = (0..picker.rng.usize(..4)).map(|n| (format!("r{n}"), picker.weighted(classes))).collect();
    let mut writer = Writer { picker, family, sets: Vec::new() };
    table.sets = writer.sets();
    if table.sets.iter().any(|s| s.contains(LEAF)) {
        let plain = if family == "netdev" { Class::Device } else { Class::Plain };
        let rules = (0..2).map(|_| writer.decision(plain, Way::In)).collect();
        table.chains.push(NativeChain { name: LEAF.to_owned(), head: None, rules });
    }
    for (n, (name, class)) in own.iter().enumerate() {
        let way = if writer.picker.percent(75) { Way::In } else { Way::Out };
        let rules = writer.rules(*class, way, &reachable(*class, &own[n + 1..]), 4);
        table.chains.push(NativeChain { name: name.clone(), head: None, rules });
    }
    for (name, (hook, kind, class, way)) in &bases {
        // A chain on a device of an inet table must not reach what looks at connections.
        let targets = if *hook == "ingress" && family == "inet" { Vec::new() } else { reachable(*class, &own) };
        let priority = writer.priority(hook, kind, busy);
        let drops = match (*hook, *kind) {
            ("input" | "forward", "filter") => writer.picker.percent(25),
            _ => writer.picker.percent(4),
        };
        let mut rules = writer.rules(*class, *way, &targets, 5);
        if drops {
            // Such chains begin with what is established, and let something new in; most do.
            if *class != Class::Device && writer.picker.percent(75) {
                rules.insert(0, "ct state established,related accept".to_owned());
            }
            rules.extend((0..2).map(|_| writer.decision(*class, *way).replace("drop", "accept")));
        }
        let device = match *hook {
            "ingress" | "egress" => writer.picker.one(&[" device \"s0\"", " device \"d0\"", " devices = { s0, d0 }"]),
            _ => "",
        };
        // An inet table's nft takes one device only.
        let device = if family == "inet" && device.contains("devices") { " device \"s0\"" } else { device };
        let policy = if drops { "drop" } else { "accept" };
        let head = format!("type {kind} hook {hook}{device} priority {priority}; policy {policy};");
        table.chains.push(NativeChain { name: name.clone(), head: Some(head), rules });
    }
    table
}

/// The chains that one of this class may jump to.
fn reachable(class: Class, chains: &[(String, Class)]) -> Vec<String> {
    let fits = |to: Class| to == class || to == Class::Plain;
    chains.iter().filter(|(_, to)| fits(*to)).map(|(name, _)| name.clone()).collect()
}

fn word(family: Family) -> &'static str {
    if family == Family::V4 { "ip" } else { "ip6" }
}

/// Invents one kind of rule.
type Inventor<I> = fn(&mut I, Way, Family) -> String;

impl Writer<'_> {
    /// A rule's family: in tables of both it is chosen, and all of a rule's tests stay with it.
    fn rule_family(&mut self) -> Family {
        match self.family {
            "ip" => Family::V4,
            "ip6" => Family::V6,
            _ => self.picker.one(&Family::BOTH),
        }
    }

    fn priority(&mut self, hook: &'static str, kind: &str, busy: &mut Vec<(&'static str, i32)>) -> i32 {
        loop {
            let priority = match (hook, kind) {
                (_, "nat") => self.picker.rng.i32(-190..190),
                ("prerouting" | "output", _) => self.picker.one(&[-400, -310, -250, -210, -160, -90, 10, 60]),
                _ => self.picker.rng.i32(-200..200),
            };
            // Those of iptables are taken from the start.
            let standard = [-300, -225, -150, -100, 0, 50, 100].contains(&priority);
            if !standard && !busy.contains(&(hook, priority)) {
                busy.push((hook, priority));
                return priority;
            }
        }
    }

    fn rules(&mut self, class: Class, way: Way, targets: &[String], most: usize) -> Vec<String> {
        (0..self.picker.rng.usize(1..=most)).map(|_| self.rule(class, way, targets)).collect()
    }

    fn rule(&mut self, class: Class, way: Way, targets: &[String]) -> String {
        if self.picker.percent(4) {
            let noise = ["meta l4proto icmp accept", "udp dport 53 drop", "meta l4proto udp accept", "counter"];
            return self.picker.one(&noise).to_owned();
        }
        let family = self.rule_family();
        let mut words = self.tests(class, way, family);
        if self.picker.percent(15) {
            words.push("counter".to_owned());
        }
        if self.picker.percent(6) && class != Class::Device {
            words.push("log prefix \"seen: \"".to_owned());
        }
        words.push(self.statement(class, way, family, targets));
        if self.picker.percent(8) {
            words.push("comment \"of no importance\"".to_owned());
        }
        settled(&words.join(" "))
    }

    /// A rule that jumps nowhere.
    fn decision(&mut self, class: Class, way: Way) -> String {
        let verdict = self.picker.one(&["accept", "drop", "return"]);
        let family = self.rule_family();
        settled(&(self.tests(class, way, family).join(" ") + " " + verdict))
    }

    fn tests(&mut self, class: Class, way: Way, family: Family) -> Vec<String> {
        let count = self.picker.weighted(&[(1, 0), (10, 1), (8, 2), (3, 3)]);
        let mut tests: Vec<String> = Vec::new();
        for _ in 0..count {
            // Most rules look at their side of the connection, some at the other.
            let way = match (way, self.picker.percent(6)) {
                (Way::In, false) | (Way::Out, true) => Way::In,
                _ => Way::Out,
            };
            tests.push(self.test(class, way, family));
        }
        tests.sort_by_key(|t| !t.starts_with("meta nfproto"));
        tests
    }

    fn test(&mut self, class: Class, way: Way, family: Family) -> String {
        let tracked = if class == Class::Device { 0 } else { 1 };
        let kinds: [(u32, Inventor<Self>); 10] = [
            (22, Self::address),
            (7, Self::address_and_port),
            (14, |w, way, _| w.port(way)),
            (4, |w, _, family| w.protocol(family)),
            (7, |w, _, _| w.interface()),
            (10 * tracked, |w, _, _| w.state()),
            (7, |w, _, _| w.mark("meta mark")),
            (5 * tracked, |w, _, _| w.mark("ct mark")),
            (5 * tracked, Self::address_type),
            (4, |w, _, _| w.flags()),
        ];
        let test = self.picker.weighted(&kinds);
        test(self, way, family)
    }

    fn not(&mut self) -> &'static str {
        if self.picker.percent(22) { "!= " } else { "" }
    }

    fn address(&mut self, way: Way, family: Family) -> String {
        let field = format!("{} {}", word(family), if way == Way::In { "saddr" } else { "daddr" });
        let not = self.not();
        let named = self.named(Holds::Addresses(family));
        if let Some(name) = named.filter(|_| self.picker.percent(40)) {
            return format!("{field} {not}@{name}");
        }
        match self.picker.rng.u8(..10) {
            0..=3 => format!("{field} {not}{}", self.picker.prefix(family)),
            4..=5 => {
                let (first, last) = self.picker.range(family);
                format!("{field} {not}{}", interval(first, last))
            }
            6 => {
                let prefix = self.picker.prefix(family);
                format!(
                    "{field} & {} {}{}",
                    prefix.netmask(),
                    if not.is_empty() { "== " } else { not },
                    prefix.network()
                )
            }
            _ => format!("{field} {not}{{ {} }}", self.address_elements(family).join(", ")),
        }
    }

    fn address_elements(&mut self, family: Family) -> Vec<String> {
        let mut elements: Vec<_> = self.picker.prefixes(family, 5).iter().map(ToString::to_string).collect();
        if elements.len() == 1 && self.picker.percent(30) {
            let (first, last) = self.picker.range(family);
            elements = vec![interval(first, last)];
        }
        elements
    }

    fn address_and_port(&mut self, way: Way, family: Family) -> String {
        let not = self.not();
        let (address, port) = if way == Way::In { ("saddr", "dport") } else { ("daddr", "sport") };
        let field = format!("{} {address} . tcp {port}", word(family));
        let named = self.named(Holds::AddressesAndPorts(family));
        if let Some(name) = named.filter(|_| self.picker.percent(60)) {
            return format!("{field} {not}@{name}");
        }
        format!("{field} {not}{{ {} }}", self.pair_elements(family).join(", "))
    }

    fn pair_elements(&mut self, family: Family) -> Vec<String> {
        let prefixes = self.picker.prefixes(family, 4);
        let port = |w: &mut Self| match w.picker.percent(30) {
            true => {
                let (first, last) = w.picker.port_range();
                format!("{first}-{last}")
            }
            false => w.picker.port().to_string(),
        };
        prefixes.iter().map(|p| format!("{p} . {}", port(self))).collect()
    }

    fn port(&mut self, way: Way) -> String {
        let field = match (way, self.picker.percent(15)) {
            (Way::In, false) => "tcp dport",
            (Way::Out, false) => "tcp sport",
            (Way::In, true) => "meta l4proto { tcp, udp } th dport",
            (Way::Out, true) => "meta l4proto { tcp, udp } th sport",
        };
        let not = self.not();
        if let Some(name) = self.named(Holds::Ports).filter(|_| self.picker.percent(40)) {
            return format!("{field} {not}@{name}");
        }
        match self.picker.rng.u8(..8) {
            0..=3 => format!("{field} {not}{}", self.picker.port()),
            4 => {
                let (first, last) = self.picker.port_range();
                format!("{field} {not}{first}-{last}")
            }
            5 => format!("{field} {} {}", self.picker.one(&["<", ">", "<=", ">="]), self.picker.port()),
            _ => format!("{field} {not}{{ {} }}", self.port_elements().join(", ")),
        }
    }

    fn port_elements(&mut self) -> Vec<String> {
        self.picker.ports(4).iter().map(ToString::to_string).collect()
    }

    fn protocol(&mut self, family: Family) -> String {
        let (both, v4) = (self.family == "inet", family == Family::V4);
        match self.picker.rng.u8(..5) {
            0 if both => format!("meta nfproto {}", if v4 { "ipv4" } else { "ipv6" }),
            0 | 1 => format!("meta protocol {}", if v4 { "ip" } else { "ip6" }),
            2 => "meta l4proto tcp".to_owned(),
            3 => "meta l4proto { tcp, udp }".to_owned(),
            _ => (if v4 { "ip protocol tcp" } else { "ip6 nexthdr tcp" }).to_owned(),
        }
    }

    fn interface(&mut self) -> String {
        if let Some(name) = self.named(Holds::Interfaces).filter(|_| self.picker.percent(40)) {
            return format!("{} {}@{name}", self.picker.one(&["iifname", "oifname"]), self.not());
        }
        let not = self.not();
        match self.picker.rng.u8(..8) {
            0..=4 => {
                let names =
                    ["\"s0\"", "\"s0\"", "\"s*\"", "\"d0\"", "\"d*\"", "\"lo\"", "\"eth0\"", "{ \"s0\", \"lo\" }"];
                format!("{} {not}{}", self.picker.one(&["iifname", "iifname", "oifname"]), self.picker.one(&names))
            }
            _ => format!(
                "{} {not}{}",
                self.picker.one(&["iif", "iif", "oif"]),
                self.picker.one(&["\"s0\"", "\"lo\"", "\"d0\""])
            ),
        }
    }

    fn state(&mut self) -> String {
        let not = self.not();
        let tests = [
            "ct state new",
            "ct state established,related",
            "ct state { new, established }",
            "ct state invalid",
            "ct state untracked",
            "ct direction original",
            "ct direction reply",
            "ct status dnat",
            "ct original port",
        ];
        match self.picker.one(&tests) {
            "ct original port" => {
                format!("meta l4proto tcp ct original proto-dst {not}{}", self.picker.port())
            }
            "ct state new" if !not.is_empty() => "ct state != new".to_owned(),
            "ct direction original" if !not.is_empty() => "ct direction != original".to_owned(),
            test => test.to_owned(),
        }
    }

    fn mark(&mut self, field: &str) -> String {
        let not = self.not();
        match self.picker.rng.u8(..6) {
            0..=1 => format!("{field} {not}{:#x}", self.picker.rng.u8(..4)),
            2 => format!(
                "{field} & {:#x} {} {:#x}",
                3,
                if not.is_empty() { "==" } else { "!=" },
                self.picker.rng.u8(..4)
            ),
            3 => format!("{field} {not}{{ 0x1, 0x3 }}"),
            4 => format!("{field} {not}0x1-0x2"),
            _ => format!("{field} != 0"),
        }
    }

    fn address_type(&mut self, _way: Way, _family: Family) -> String {
        let not = self.not();
        let types = ["local", "local", "unicast", "{ local, broadcast }", "multicast"];
        format!("fib {} type {not}{}", self.picker.one(&["daddr", "daddr", "saddr"]), self.picker.one(&types))
    }

    fn flags(&mut self) -> String {
        let tests = [
            "tcp flags syn",
            "tcp flags & (fin | syn | rst | ack) == syn",
            "tcp flags & (syn | ack) == (syn | ack)",
            "tcp flags & (fin | syn | rst | ack) != syn",
            "tcp flags == syn",
            "tcp flags ack",
            "tcp flags & (fin | rst) != 0",
        ];
        self.picker.one(&tests).to_owned()
    }

    fn statement(&mut self, class: Class, way: Way, family: Family, targets: &[String]) -> String {
        let reject = u32::from(class == Class::Local);
        let nat = u32::from(class == Class::Nat);
        let tracked = u32::from(class != Class::Device);
        match self.picker.weighted(&[
            (34 - 20 * nat, "accept"),
            (13 - 10 * nat, "drop"),
            (5, "return"),
            (2, "continue"),
            (8 * reject, "reject"),
            (if targets.is_empty() { 0 } else { 18 }, "jump"),
            (if targets.is_empty() { 0 } else { 4 }, "goto"),
            (12, "vmap"),
            (8, "mark"),
            (8 * tracked, "ct mark"),
            (3 * tracked, "notrack"),
            (45 * nat, "nat"),
        ]) {
            "reject" => self
                .picker
                .one(&["reject", "reject with tcp reset", "reject with icmpx admin-prohibited"])
                .replace("icmpx", if self.family == "inet" { "icmpx" } else { "" })
                .replace("reject with  admin-prohibited", "reject"),
            "jump" => format!("jump {}", self.picker.one(targets)),
            "goto" => format!("goto {}", self.picker.one(targets)),
            "vmap" => self.verdict_map(class, way, family, targets),
            "mark" => self.set_mark(class, family),
            "ct mark" => self.set_ct_mark(),
            "nat" => self.nat(family),
            word => word.to_owned(),
        }
    }

    fn verdicts(&mut self, targets: &[String]) -> String {
        let mut verdicts: Vec<String> =
            ["accept", "accept", "drop", "drop", "return", "continue"].map(str::to_owned).into();
        verdicts.extend(targets.iter().flat_map(|t| [format!("jump {t}"), format!("goto {t}")]));
        self.picker.one(&verdicts)
    }

    fn verdict_map(&mut self, class: Class, way: Way, family: Family, targets: &[String]) -> String {
        let (address, port) = if way == Way::In { ("saddr", "tcp dport") } else { ("daddr", "tcp sport") };
        let address = format!("{} {address}", word(family));
        let holds = [(Holds::AddressVerdicts(family), address.as_str()), (Holds::PortVerdicts, port)];
        let (holds, field) = self.picker.one(&holds);
        // A chain on a device of an inet table must not get to where connections are looked at.
        let may = class != Class::Device || self.family == "netdev";
        if let Some(name) = self.named(holds).filter(|_| may && self.picker.percent(50)) {
            return format!("{field} vmap @{name}");
        }
        let (field, keys): (String, Vec<String>) = match self.picker.rng.u8(..7) {
            0..=1 => (address, self.address_elements(family)),
            2..=3 => (port.to_owned(), self.port_elements()),
            4 => (format!("{address} . {port}"), self.pair_elements(family)),
            5 if class != Class::Device => {
                ("ct state".to_owned(), ["new", "established", "invalid"].map(str::to_owned).into())
            }
            _ => ("meta mark".to_owned(), ["0x0", "0x1", "0x2"].map(str::to_owned).into()),
        };
        let entries: Vec<_> = keys.into_iter().map(|key| format!("{key} : {}", self.verdicts(targets))).collect();
        format!("{field} vmap {{ {} }}", entries.join(", "))
    }

    fn set_mark(&mut self, class: Class, family: Family) -> String {
        if let Some(name) = self.named(Holds::AddressMarks(family)).filter(|_| self.picker.percent(50)) {
            return format!("meta mark set {} saddr map @{name}", word(family));
        }
        let bits = self.picker.rng.u8(1..4);
        match self.picker.rng.u8(..9) {
            0..=2 => format!("meta mark set {bits:#x}"),
            3 => format!("meta mark set {bits:#x} accept"),
            4 => format!("meta mark set meta mark or {bits:#x}"),
            5 => format!("meta mark set meta mark and {bits:#x}"),
            6 => format!("meta mark set meta mark xor {bits:#x}"),
            7 if class != Class::Device => "meta mark set ct mark".to_owned(),
            _ => "meta mark set tcp dport map { 80 : 0x1, 443 : 0x2 }".to_owned(),
        }
    }

    fn set_ct_mark(&mut self) -> String {
        let bits = self.picker.rng.u8(1..4);
        match self.picker.rng.u8(..6) {
            0..=2 => format!("ct mark set {bits:#x}"),
            3 => format!("ct mark set ct mark or {bits:#x}"),
            4 => "ct mark set meta mark".to_owned(),
            _ => "meta mark set ct mark".to_owned(),
        }
    }

    fn nat(&mut self, family: Family) -> String {
        let v4 = family == Family::V4;
        let of = if self.family == "inet" { format!(" {}", word(family)) } else { String::new() };
        let (inner, host) = if v4 { (BOX4, SERVER4) } else { (BOX6, SERVER6) };
        let with =
            |address: &str, port: u16| if v4 { format!("{address}:{port}") } else { format!("[{address}]:{port}") };
        let box_port = self.picker.one(&BOX_PORTS);
        let (from, to) = (self.picker.port(), self.picker.one(&super::pick::PORTS));
        match self.picker.rng.u8(..8) {
            0..=1 => format!("tcp dport {from} redirect to :{to}"),
            2 => format!("tcp dport {from} dnat{of} to {}", with(host, to)),
            3 => "meta l4proto tcp redirect to :tcp dport map { 80 : 443, 8443 : 80 }".to_owned(),
            4 => format!("tcp dport {from} dnat{of} to {inner}"),
            5 => format!("dnat{of} to tcp dport map {{ 80 : {inner}, 443 : {host} }}"),
            _ => format!("tcp dport {from} dnat{of} to {}", with(inner, box_port)),
        }
    }

    /// One of the table's sets and maps that hold this.
    fn named(&mut self, holds: Holds) -> Option<String> {
        let names: Vec<_> = self.sets.iter().filter(|(_, h)| *h == holds).map(|(n, _)| n.clone()).collect();
        (!names.is_empty()).then(|| self.picker.one(&names))
    }

    /// Invents sets and maps, and remembers them for the rules.
    fn sets(&mut self) -> Vec<String> {
        let leaf = [LEAF.to_owned()];
        let mut texts = Vec::new();
        for n in 0..self.picker.rng.usize(..4) {
            let family = self.rule_family();
            let holds = self.picker.weighted(&[
                (6, Holds::Addresses(family)),
                (3, Holds::AddressesAndPorts(family)),
                (2, Holds::Ports),
                (2, Holds::Interfaces),
                (3, Holds::AddressVerdicts(family)),
                (2, Holds::PortVerdicts),
                (2, Holds::AddressMarks(family)),
            ]);
            let address = if family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" };
            let name = format!("s{n}");
            let (kind, of, flags, elements) = match holds {
                Holds::Addresses(_) => {
                    let mut elements = self.address_elements(family);
                    if let Some(first) = elements.first_mut().filter(|_| self.picker.percent(15)) {
                        first.push_str(" comment \"a friend\"");
                    }
                    let flags = self.picker.one(&["interval", "interval", "interval, timeout"]);
                    ("set", address.to_owned(), flags, elements)
                }
                Holds::AddressesAndPorts(_) => {
                    ("set", format!("{address} . inet_service"), "interval", self.pair_elements(family))
                }
                Holds::Ports => ("set", "inet_service".to_owned(), "", self.port_elements()),
                Holds::Interfaces => {
                    let names = self.picker.one(&[&["\"s0\""][..], &["\"lo\"", "\"d0\""], &["\"lo\"", "\"s0\""]]);
                    ("set", "ifname".to_owned(), "", names.iter().map(|n| (*n).to_owned()).collect())
                }
                Holds::AddressVerdicts(_) => {
                    let keys = self.address_elements(family);
                    let entries = keys.into_iter().map(|k| format!("{k} : {}", self.verdicts(&leaf))).collect();
                    ("map", format!("{address} : verdict"), "interval", entries)
                }
                Holds::PortVerdicts => {
                    let keys = self.port_elements();
                    let entries = keys.into_iter().map(|k| format!("{k} : {}", self.verdicts(&leaf))).collect();
                    ("map", "inet_service : verdict".to_owned(), "", entries)
                }
                Holds::AddressMarks(_) => {
                    let keys = self.address_elements(family);
                    let entries = keys.into_iter().map(|k| format!("{k} : {:#x}", self.picker.rng.u8(..4))).collect();
                    ("map", format!("{address} : mark"), "interval", entries)
                }
            };
            let mut text = format!("{kind} {name} {{ type {of};");
            if !flags.is_empty() {
                write!(text, " flags {flags};").expect("write to a string");
            }
            let elements: Vec<String> = elements;
            write!(text, " elements = {{ {} }}; }}", elements.join(", ")).expect("write to a string");
            texts.push(text);
            self.sets.push((name, holds));
        }
        texts
    }
}

/// A rule that nft takes, and prints as what it is.
fn settled(rule: &str) -> String {
    // nft 1.0.6 forgets the family when it prints such a rule, in its JSON too: nobody who asks nft can know.
    let mut rule = rule.to_owned();
    if rule.contains("reject with tcp reset") {
        for family in ["meta nfproto ipv4 ", "meta nfproto ipv6 ", "meta protocol ip ", "meta protocol ip6 "] {
            rule = rule.replace(family, "");
        }
    }
    // It takes no other word on TCP in a rule that has said "TCP or UDP": then all of it is about TCP.
    let loose = rule.replace("meta l4proto { tcp, udp } ", "");
    if loose.len() == rule.len() || !["tcp", "th "].iter().any(|w| loose.replacen("th ", "", 1).contains(w)) {
        return rule;
    }
    loose.replace("th dport", "tcp dport").replace("th sport", "tcp sport")
}

fn interval(first: std::net::IpAddr, last: std::net::IpAddr) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}
