//! Inventing iptables and ip6tables tables, and the ipsets that they use.
//!
//! Belongs here: iptables' and ipset's language. Does not: what it means.

use edgeallow::allowlist::Family;

use super::{
    host::{BOX_PORTS, BOX4, BOX6},
    pick::{PORTS, Picker},
    rule_set::{Ipset, Variant, Xtables, built_in},
};
use crate::lab::{SERVER4, SERVER6};

/// An ipset to test against: its name, and how many things an element names.
#[derive(Debug, Clone)]
struct Known {
    name: String,
    family: Option<Family>,
    dimensions: &'static str,
}

/// Writes tables of one family and variant.
struct Writer<'p> {
    picker: &'p mut Picker,
    family: Family,
    ipsets: Vec<Known>,
}

/// Tables of both families and variants, and ipsets.
pub fn tables(picker: &mut Picker) -> (Vec<Xtables>, Vec<Ipset>) {
    let (ipsets, known) = ipsets(picker);
    let mut tables = Vec::new();
    for family in Family::BOTH {
        let variants = picker.weighted(&[
            (3, &[][..]),
            (3, &[Variant::Nft]),
            (3, &[Variant::Legacy]),
            (2, &[Variant::Legacy, Variant::Nft]),
        ]);
        for (n, variant) in variants.iter().enumerate() {
            let ipsets = known.iter().filter(|k| k.family.is_none_or(|f| f == family)).cloned().collect();
            let mut writer = Writer { picker, family, ipsets };
            for table in ["raw", "mangle", "nat", "filter"] {
                let chance = match table {
                    "filter" => 90,
                    "nat" => 30,
                    // Where both variants have it, whose turn is first is anybody's guess, and they do more than decide.
                    _ if n > 0 => 0,
                    _ => 30,
                };
                let nat_taken = table == "nat" && n > 0;
                if writer.picker.percent(chance) && !nat_taken {
                    tables.push(writer.table(*variant, table));
                }
            }
        }
    }
    (tables, ipsets)
}

fn ipsets(picker: &mut Picker) -> (Vec<Ipset>, Vec<Known>) {
    let (mut sets, mut known) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        let word = if family == Family::V4 { "inet" } else { "inet6" };
        let mut members_of_list = Vec::new();
        for n in 0..picker.rng.usize(..4) {
            let name = format!("{word}{n}");
            let kind = picker.weighted(&[(2, "hash:ip"), (4, "hash:net"), (2, "hash:ip,port"), (2, "hash:net,port")]);
            let members: Vec<String> = match kind {
                "hash:ip" => (0..picker.rng.usize(1..4)).map(|_| picker.tried(family).to_string()).collect(),
                "hash:net" => {
                    let prefixes: Vec<_> = (0..picker.rng.usize(1..6)).map(|_| picker.prefix(family)).collect();
                    let member = |p: ipnet::IpNet, picker: &mut Picker| match picker.percent(25) {
                        true => format!("{p} nomatch"),
                        false => p.to_string(),
                    };
                    prefixes.into_iter().map(|p| member(p, picker)).collect()
                }
                "hash:ip,port" => (0..picker.rng.usize(1..5))
                    .map(|_| format!("{},tcp:{}", picker.tried(family), picker.port()))
                    .collect(),
                _ => (0..picker.rng.usize(1..5))
                    .map(|_| format!("{},tcp:{}", picker.prefix(family), picker.port()))
                    .collect(),
            };
            let dimensions = if kind.ends_with("port") { "src,dst" } else { "src" };
            if dimensions == "src" {
                members_of_list.push(name.clone());
            }
            sets.push(Ipset { head: format!("{name} {kind} family {word} -exist"), members: exist(members) });
            known.push(Known { name, family: Some(family), dimensions });
        }
        if !members_of_list.is_empty() && picker.percent(50) {
            let name = format!("{word}list");
            sets.push(Ipset { head: format!("{name} list:set"), members: exist(members_of_list) });
            known.push(Known { name, family: Some(family), dimensions: "src" });
        }
    }
    if picker.percent(15) {
        let members = picker.ports(3).iter().map(ToString::to_string).collect();
        sets.push(Ipset { head: "ports bitmap:port range 0-65535".to_owned(), members: exist(members) });
        known.push(Known { name: "ports".to_owned(), family: None, dimensions: "dst" });
    }
    (sets, known)
}

/// The same member twice is no error then.
fn exist(members: Vec<String>) -> Vec<String> {
    members.into_iter().map(|m| format!("{m} -exist")).collect()
}

impl Writer<'_> {
    fn table(&mut self, variant: Variant, table: &'static str) -> Xtables {
        let mut made = Xtables {
            variant,
            family: self.family,
            table,
            dropping: Vec::new(),
            chains: Vec::new(),
            rules: Vec::new(),
        };
        made.chains = (0..self.picker.rng.usize(..4)).map(|n| format!("own{n}")).collect();
        let chains = made.chains.clone();
        for (n, chain) in chains.iter().enumerate() {
            for _ in 0..self.picker.rng.usize(1..4) {
                let rule = self.rule(table, chain, &chains[n + 1..]);
                made.rules.push(rule);
            }
        }
        for chain in built_in(table) {
            let busy = match *chain {
                "INPUT" | "PREROUTING" => 90,
                "FORWARD" => 50,
                _ => 30,
            };
            if !self.picker.percent(busy) {
                continue;
            }
            let dropping = table != "nat" && self.picker.percent(if table == "filter" { 25 } else { 3 });
            if dropping {
                made.dropping.push(chain);
                if self.picker.percent(75) {
                    made.rules.push(format!("-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
                }
            }
            for _ in 0..self.picker.rng.usize(1..5) {
                let rule = self.rule(table, chain, &chains);
                made.rules.push(rule);
            }
            for _ in 0..if dropping { 2 } else { 0 } {
                let tests = self.tests(chain);
                made.rules.push(format!("-A {chain}{tests} -j ACCEPT"));
            }
        }
        made
    }

    fn rule(&mut self, table: &str, chain: &str, targets: &[String]) -> String {
        let tests = self.tests(chain);
        let comment = if self.picker.percent(10) { " -m comment --comment \"of no importance\"" } else { "" };
        let (tests, target) = self.target(table, chain, targets, tests);
        format!("-A {chain}{tests}{comment}{target}")
    }

    fn not(&mut self) -> &'static str {
        if self.picker.percent(22) { " !" } else { "" }
    }

    fn tests(&mut self, chain: &str) -> String {
        let outbound = matches!(chain, "OUTPUT" | "POSTROUTING");
        let (mut tests, mut used) = (String::new(), Vec::new());
        let mut ports = false;
        for _ in 0..self.picker.weighted(&[(1, 0), (9, 1), (9, 2), (3, 3)]) {
            let kind = self.picker.weighted(&[
                (22, "address"),
                (14, "port"),
                (5, "interface"),
                (10, "state"),
                (5, "addrtype"),
                (5, "mark"),
                (4, "connmark"),
                (if self.ipsets.is_empty() { 0 } else { 16 }, "set"),
                (4, "iprange"),
            ]);
            if used.contains(&kind) {
                continue;
            }
            used.push(kind);
            let outbound = outbound != self.picker.percent(6);
            let not = self.not();
            let test = match kind {
                "address" => {
                    let field = if outbound { "-d" } else { "-s" };
                    format!("{not} {field} {}", self.picker.prefix(self.family))
                }
                "port" => {
                    ports = true;
                    self.port(outbound, not)
                }
                "interface" => self.interface(chain, not),
                "state" => self.state(not),
                "addrtype" => {
                    let (side, kind) = self.picker.one(&[
                        ("dst", "LOCAL"),
                        ("dst", "LOCAL"),
                        ("src", "LOCAL"),
                        ("dst", "UNICAST,LOCAL"),
                        ("src", "UNICAST"),
                    ]);
                    format!(" -m addrtype{not} --{side}-type {kind}")
                }
                "mark" => format!(" -m mark{not} --mark {}", self.mark()),
                "connmark" => format!(" -m connmark{not} --mark {}", self.mark()),
                "iprange" => {
                    let (first, last) = self.picker.range(self.family);
                    format!(" -m iprange{not} --{}-range {first}-{last}", if outbound { "dst" } else { "src" })
                }
                _ => {
                    let set = self.picker.one(&self.ipsets);
                    let flip = |d: &str| if d == "src" { "dst" } else { "src" };
                    let dimensions: Vec<_> =
                        set.dimensions.split(',').map(|d| if outbound { flip(d) } else { d }).collect();
                    format!(" -m set{not} --match-set {} {}", set.name, dimensions.join(","))
                }
            };
            tests.push_str(&test);
        }
        if ports { format!(" -p tcp{tests}") } else { tests }
    }

    fn port(&mut self, outbound: bool, not: &str) -> String {
        let field = if outbound { "sport" } else { "dport" };
        match self.picker.rng.u8(..9) {
            0..=3 => format!(" -m tcp{not} --{field} {}", self.picker.port()),
            4 => {
                let (first, last) = self.picker.port_range();
                format!(" -m tcp{not} --{field} {first}:{last}")
            }
            5 => " -m tcp --syn".to_owned(),
            6 => self
                .picker
                .one(&[
                    " -m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
                    " -m tcp --tcp-flags SYN,ACK SYN,ACK",
                    " -m tcp ! --syn",
                ])
                .to_owned(),
            _ => {
                let mut ports: Vec<_> = self.picker.ports(4).iter().map(ToString::to_string).collect();
                if self.picker.percent(30) {
                    let (first, last) = self.picker.port_range();
                    ports.push(format!("{first}:{last}"));
                }
                let field = if self.picker.percent(12) { "ports".to_owned() } else { format!("{field}s") };
                format!(" -m multiport{not} --{field} {}", ports.join(","))
            }
        }
    }

    fn interface(&mut self, chain: &str, not: &str) -> String {
        let names = ["s0", "s0", "s+", "d0", "lo", "eth+"];
        let field = match chain {
            "PREROUTING" | "INPUT" => "-i",
            "OUTPUT" | "POSTROUTING" => "-o",
            _ => self.picker.one(&["-i", "-i", "-o"]),
        };
        format!("{not} {field} {}", self.picker.one(&names))
    }

    fn state(&mut self, not: &str) -> String {
        let port = self.picker.port();
        let tests = [
            format!(" -m conntrack{not} --ctstate NEW"),
            format!(" -m conntrack{not} --ctstate RELATED,ESTABLISHED"),
            format!(" -m conntrack{not} --ctstate INVALID"),
            format!(" -m conntrack{not} --ctstate NEW,UNTRACKED"),
            format!(" -m conntrack{not} --ctstate DNAT"),
            format!(" -m state{not} --state NEW"),
            format!(" -m conntrack{not} --ctorigdstport {port}"),
            format!(" -m conntrack --ctorigdstport {port} --ctdir ORIGINAL"),
            " -m conntrack --ctdir REPLY".to_owned(),
        ];
        self.picker.one(&tests)
    }

    fn mark(&mut self) -> String {
        let value = self.picker.rng.u8(..4);
        if self.picker.percent(50) { format!("{value:#x}") } else { format!("{value:#x}/0x3") }
    }

    fn target(&mut self, table: &str, chain: &str, targets: &[String], tests: String) -> (String, String) {
        let on = |chains: &[&str]| chains.contains(&chain);
        let reject = u32::from(table == "filter");
        let nat = u32::from(table == "nat");
        let dnat = u32::from(table == "nat" && on(&["PREROUTING"]));
        let word = self.picker.weighted(&[
            (34 - 15 * nat, " -j ACCEPT"),
            (13 * (1 - nat), " -j DROP"),
            (6, " -j RETURN"),
            (8 * reject, "reject"),
            (if targets.is_empty() { 0 } else { 18 }, "jump"),
            (if targets.is_empty() { 0 } else { 4 }, "goto"),
            (3, " -j LOG --log-prefix \"seen: \""),
            (2, ""),
            (25 * u32::from(table == "mangle"), "mark"),
            (6 * u32::from(table == "raw"), " -j CT --notrack"),
            (45 * dnat, "dnat"),
            // Where the filter tables of both variants stand at the same place, who sees the other's mark is anybody's guess.
            (if table == "filter" { 0 } else { 6 }, "connmark"),
        ]);
        let target = match word {
            "reject" => {
                let word = if self.family == Family::V4 { "icmp-admin-prohibited" } else { "icmp6-adm-prohibited" };
                if self.picker.percent(35) {
                    // That one wants to know that it is TCP.
                    let tests = if tests.contains("-p tcp") { tests } else { format!(" -p tcp{tests}") };
                    return (tests, " -j REJECT --reject-with tcp-reset".to_owned());
                }
                self.picker.one(&[" -j REJECT".to_owned(), format!(" -j REJECT --reject-with {word}")])
            }
            "jump" => format!(" -j {}", self.picker.one(targets)),
            "goto" => format!(" -g {}", self.picker.one(targets)),
            "mark" => {
                let bits = self.picker.rng.u8(1..4);
                let words = ["--set-mark", "--set-xmark", "--or-mark", "--and-mark", "--xor-mark"];
                format!(" -j MARK {} {bits:#x}", self.picker.one(&words))
            }
            "connmark" => {
                let bits = self.picker.rng.u8(1..4);
                let words = [format!("--set-mark {bits:#x}"), "--save-mark".to_owned(), "--restore-mark".to_owned()];
                // In the other tables it may not touch the packet's own mark.
                let words = if table == "mangle" { &words[..] } else { &words[..1] };
                format!(" -j CONNMARK {}", self.picker.one(words))
            }
            "dnat" => {
                let tests = if tests.contains("-p tcp") { tests } else { format!(" -p tcp{tests}") };
                let v4 = self.family == Family::V4;
                let (inner, host) = if v4 { (BOX4, SERVER4) } else { (BOX6, SERVER6) };
                let with = |a: &str, port: u16| if v4 { format!("{a}:{port}") } else { format!("[{a}]:{port}") };
                let (inner_port, port) = (self.picker.one(&BOX_PORTS), self.picker.one(&PORTS));
                let targets = [
                    format!(" -j REDIRECT --to-ports {port}"),
                    format!(" -j DNAT --to-destination {}", with(host, port)),
                    format!(" -j DNAT --to-destination {inner}"),
                    format!(" -j DNAT --to-destination {}", with(inner, inner_port)),
                    format!(" -j DNAT --to-destination {}", with(inner, inner_port)),
                ];
                return (tests, self.picker.one(&targets));
            }
            word => word.to_owned(),
        };
        (tests, target)
    }
}
