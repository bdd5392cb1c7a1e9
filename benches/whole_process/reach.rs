//! The proof that Cloudflare gets through: what it adds to a sync, and how long it takes on large rule sets.
//!
//! Belongs here: `verify`, beside the programs that print what it reads. Does not: changing anything (`workloads`).

use std::{fmt::Write as _, fs, path::Path};

use crate::{
    measure::{Contestant, compare},
    tools,
    workloads::{EDGEALLOW, NFT, feed, flush, quiet},
};

/// A host with an address and a way to the world; without them there is nothing to ask about.
fn network() {
    for line in [
        "link add s0 type veth peer name c0",
        "addr add 192.0.2.1/24 dev s0",
        "addr add 2001:db8:2::1/64 dev s0 nodad",
        "link set s0 up",
        "link set c0 up",
        "route add default via 192.0.2.2",
        "-6 route add default via 2001:db8:2::2",
    ] {
        quiet(&std::iter::once("ip").chain(line.split(' ')).collect::<Vec<_>>());
    }
}

const WITHOUT: &str = "/run/bench/without.toml";

/// A sync with nothing to do, without the check and with it.
fn what_it_adds(host: &str, backend: &str) {
    let sync = |name: &str, more: &[&str]| {
        let argv = [&[EDGEALLOW, "sync", "--offline", "-q", "--backend", backend], more].concat();
        Contestant::new(name, &argv)
    };
    quiet(&[EDGEALLOW, "sync", "--offline", "-q", "--backend", backend, "--require-reach"]);
    quiet(&[EDGEALLOW, "status", "--offline"]);
    compare(
        &format!("What the check adds to a sync with nothing to do: {host}"),
        41,
        &[
            sync("`edgeallow sync --offline`, `verify = false`", &["--config", WITHOUT]),
            sync("`edgeallow sync --offline`", &[]),
            Contestant::new("`edgeallow verify --offline`", &[EDGEALLOW, "verify", "--offline", "-q"]),
        ],
    );
}

/// Addresses that are nobody's here: 20.0.0.0, 20.0.0.2, …
fn addresses(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|n| std::net::Ipv4Addr::from(0x1400_0000 + 2 * n).to_string())
}

/// `verify`, beside what prints the rules.
fn verify_beside(title: &str, argv: &[&str]) {
    let shown = Contestant::new(&format!("`{}`", argv.join(" ")), argv);
    let verify = Contestant::new("`edgeallow verify --offline`", &[EDGEALLOW, "verify", "--offline", "-q"]);
    compare(&format!("Does it reach? {title}"), 7, &[shown, verify]);
}

fn sizes() {
    let listing = ["nft", "-j", "list", "ruleset"];
    for (flags, words) in [("", "an nftables set of 100,000 addresses"), ("flags interval; ", "the same as intervals")]
    {
        flush();
        let elements = addresses(100_000).collect::<Vec<_>>().join(",\n");
        let rules = format!(
            "table inet ban {{ set banned {{ type ipv4_addr; {flags}elements = {{ {elements} }}; }}; chain in {{ \
             type filter hook input priority -5; policy accept; ip saddr @banned drop; }}; }}"
        );
        feed(&["nft", "-f", "-"], &rules.replace("; }; chain", "\n}\n chain").replace("; }; }", "\n}\n}"));
        verify_beside(words, &listing);
    }
    flush();
    let mut sets = String::from("create banned hash:ip family inet hashsize 131072 maxelem 200000\n");
    addresses(100_000).for_each(|a| writeln!(sets, "add banned {a}").unwrap());
    feed(&["ipset", "restore"], &sets);
    feed(
        &["iptables-restore"],
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m set --match-set banned src -j DROP\nCOMMIT\n",
    );
    verify_beside("an ipset of 100,000 addresses", &["ipset", "save"]);

    // For every set without a name nft asks the kernel once more.
    for (ports, words) in [
        ("443", "10,000 rules of nftables, one after the other"),
        ("{ 80, 443 }", "the same, each with a set of ports"),
    ] {
        flush();
        let mut rules =
            String::from("table inet ban { chain in { type filter hook input priority -5; policy accept;\n");
        addresses(10_000).for_each(|a| writeln!(rules, "ip saddr {a} tcp dport {ports} counter drop").unwrap());
        feed(&["nft", "-f", "-"], &(rules + "}\n}\n"));
        verify_beside(words, &listing);
    }

    flush();
    let mut rules = String::from("*filter\n:INPUT ACCEPT [0:0]\n");
    addresses(10_000)
        .for_each(|a| writeln!(rules, "-A INPUT -s {a} -p tcp -m multiport --dports 80,443 -j DROP").unwrap());
    feed(&["iptables-restore"], &(rules + "COMMIT\n"));
    verify_beside("10,000 rules of iptables, one after the other", &["iptables-save"]);
}

/// Everything that is measured of it.
pub fn all() {
    tools::prepare();
    tools::install(false);
    network();
    fs::create_dir_all("/run/bench").unwrap();
    fs::create_dir_all("/etc/edgeallow").unwrap();
    let config = "[nftables]\npersist = \"none\"\n[iptables]\npersist = false\n";
    fs::write("/etc/edgeallow/config.toml", config).unwrap();
    fs::write(WITHOUT, format!("verify = false\n{config}")).unwrap();

    feed(&["nft", "-f", "-"], NFT);
    what_it_adds("nftables", "nftables");
    flush();
    for program in ["iptables-restore", "ip6tables-restore"] {
        feed(
            &[program],
            "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n",
        );
    }
    what_it_adds("iptables", "iptables");
    flush();
    sizes();
    flush();
    assert!(Path::new("/etc/ufw").exists(), "ufw is not installed");
    quiet(&["ufw", "--force", "enable"]);
    what_it_adds("ufw", "ufw");
}
