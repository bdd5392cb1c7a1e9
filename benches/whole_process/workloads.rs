//! What is measured.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::measure::{Contestant, compare, run};

pub const EDGEALLOW: &str = env!("CARGO_BIN_EXE_edgeallow");
const V6: &str = "2400:cb00::/32\n2606:4700::/32\n2803:f800::/32\n";

/// A table that drops by default, with a few rules of an administrator.
pub const NFT: &str = "table inet filter {\n chain input {\n  type filter hook input priority filter; policy drop;\n  \
                   ct state established,related accept\n  iif lo accept\n  tcp dport 22 accept\n }\n}\n";

pub fn quiet(argv: &[&str]) {
    let status = Command::new(argv[0]).args(&argv[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.is_ok_and(|s| s.success()), "{argv:?}");
}

pub fn feed(argv: &[&str], text: &str) {
    let path = Path::new("/run/bench/stdin");
    fs::write(path, text).unwrap();
    run(&argv.iter().map(|&a| a.to_owned()).collect::<Vec<_>>(), Some(path));
}

/// Private folders, so that nothing of the machine's is read or written.
pub fn prepare() {
    for dir in ["/run", "/var/lib", "/etc"] {
        quiet(&["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", dir]);
    }
    fs::create_dir_all("/run/bench").unwrap();
    fs::create_dir_all("/etc/alternatives").unwrap();
    // Debian's /usr/sbin/iptables leads through /etc/alternatives.
    for name in ["iptables", "ip6tables"] {
        for suffix in ["", "-save", "-restore"] {
            let link = format!("/etc/alternatives/{name}{suffix}");
            std::os::unix::fs::symlink(format!("/usr/sbin/{name}-nft{suffix}"), link).unwrap();
        }
    }
    quiet(&["ip", "link", "set", "lo", "up"]);
}

pub fn flush() {
    quiet(&["nft", "flush", "ruleset"]);
    let _ = Command::new("ipset").arg("destroy").stderr(Stdio::null()).status();
    let _ = fs::remove_dir_all("/var/lib/edgeallow");
}

pub fn config(name: &str, text: &str) -> String {
    let path = format!("/run/bench/{name}.toml");
    fs::write(&path, text).unwrap();
    path
}

pub fn published() -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/allowlist/data");
    format!(
        "{}\n{}\n",
        fs::read_to_string(data.join("ips-v4")).unwrap(),
        fs::read_to_string(data.join("ips-v6")).unwrap()
    )
}

/// nft syntax of what edgeallow holds, for `nft -f`.
fn nft_script(list: &str) -> String {
    let (v6, v4): (Vec<&str>, Vec<&str>) = list.lines().filter(|l| !l.is_empty()).partition(|l| l.contains(':'));
    let mut text = String::from(
        "add set inet filter a4 { type ipv4_addr; flags interval; }\nadd set inet filter a6 { type ipv6_addr; flags interval; }\n",
    );
    for (set, nets) in [("a4", v4), ("a6", v6)] {
        if !nets.is_empty() {
            let _ = writeln!(text, "add element inet filter {set} {{ {} }}", nets.join(",\n"));
        }
    }
    for (family, set) in [("ip", "a4"), ("ip6", "a6")] {
        let _ = writeln!(
            text,
            "insert rule inet filter input {family} saddr @{set} tcp dport {{ 80, 443 }} counter accept"
        );
    }
    text
}

fn iptables_script(list: &str, v6: bool) -> String {
    let mut text = String::from("*filter\n:A - [0:0]\n");
    for net in list.lines().filter(|l| !l.is_empty() && l.contains(':') == v6) {
        let _ = writeln!(text, "-A A -s {net} -p tcp -m multiport --dports 80,443 -j ACCEPT");
    }
    text + "-I INPUT 1 -j A\nCOMMIT\n"
}

fn ipset_script(list: &str) -> String {
    let mut text = String::from("create a4 hash:net family inet hashsize 262144 maxelem 2000000\n");
    for net in list.lines().filter(|l| !l.is_empty() && !l.contains(':')) {
        let _ = writeln!(text, "add a4 {net}");
    }
    text
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(format!("/run/bench/{name}"));
    fs::write(&path, text).unwrap();
    path
}

fn sync<'a>(name: &str, config: &str, backends: &[&str], list: Option<&Path>, more: &[&str]) -> Contestant<'a> {
    let mut argv = vec![EDGEALLOW, "sync", "--offline", "--config", config, "-q"];
    for backend in backends {
        argv.extend(["--backend", backend]);
    }
    let list = list.map(|l| l.display().to_string());
    if let Some(list) = &list {
        argv.extend(["--list", list]);
    }
    argv.extend(more);
    Contestant::new(name, &argv)
}

fn once(contestant: &Contestant<'_>) {
    run(&contestant.argv, contestant.stdin);
}

/// Today's 22 prefixes.
pub fn small() {
    prepare();
    let plain = config("plain", "[nftables]\npersist = \"none\"\n[iptables]\npersist = false\n");
    let stored = config("stored", "[nftables]\npersist = \"include\"\n");
    let (list, changed) = (published(), published().replace("131.0.72.0/22", "131.0.76.0/22"));
    let (now, then) = (file("now.txt", &list), file("then.txt", &changed));
    let both = ["nftables", "iptables"];
    let scene = || {
        flush();
        feed(&["nft", "-f", "-"], NFT);
        feed(&["iptables-nft-restore"], "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n");
        feed(&["ip6tables-nft-restore"], "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n");
    };
    scene();
    once(&sync("", &plain, &both, Some(&now), &[]));
    compare(
        "Nothing to change",
        41,
        &[
            Contestant::new("`/bin/true`", &["/bin/true"]),
            Contestant::new("`edgeallow --version`", &[EDGEALLOW, "--version"]),
            sync("`edgeallow sync --offline`, nftables", &plain, &["nftables"], None, &[]),
            sync("`edgeallow sync --offline`, iptables", &plain, &["iptables"], None, &[]),
            sync("`edgeallow sync --offline`, both", &plain, &both, None, &[]),
        ],
    );
    let script = file("22.nft", &nft_script(&list));
    let (rules4, rules6) =
        (file("22.v4", &iptables_script(&list, false)), file("22.v6", &iptables_script(&list, true)));
    let conf = || fs::write("/etc/nftables.conf", format!("flush ruleset\n{NFT}")).unwrap();
    compare(
        "First sync, 22 prefixes",
        21,
        &[
            Contestant::new("`nft -f` of the same rules", &["nft", "-f", script.to_str().unwrap()]).before(scene),
            sync("`edgeallow sync`, nftables, live", &plain, &["nftables"], Some(&now), &[]).before(scene),
            sync("`edgeallow sync`, nftables, live, stored and rehearsed", &stored, &["nftables"], Some(&now), &[])
                .before(|| {
                    scene();
                    conf();
                    let _ = fs::remove_dir_all("/etc/edgeallow");
                }),
            Contestant::new("`iptables-restore --noflush`, IPv4 only", &["iptables-nft-restore", "--noflush"])
                .stdin(&rules4)
                .before(scene),
            Contestant::new("`ip6tables-restore --noflush`, IPv6 only", &["ip6tables-nft-restore", "--noflush"])
                .stdin(&rules6)
                .before(scene),
            sync("`edgeallow sync`, iptables, both families", &plain, &["iptables"], Some(&now), &[]).before(scene),
        ],
    );
    let _ = fs::remove_file("/etc/nftables.conf");
    let _ = fs::remove_dir_all("/etc/edgeallow");
    let prepared = |backend: &'static str| {
        let (plain, now) = (plain.clone(), now.clone());
        move || {
            scene();
            once(&sync("", &plain, &[backend], Some(&now), &[]));
        }
    };
    let delta = file(
        "delta.nft",
        "add element inet filter a4 { 131.0.76.0/22 }\ndelete element inet filter a4 { 131.0.72.0/22 }\n",
    );
    compare(
        "List change, one prefix out and one in",
        21,
        &[
            Contestant::new("`nft -f` of the difference", &["nft", "-f", delta.to_str().unwrap()]).before(|| {
                scene();
                feed(&["nft", "-f", "-"], &nft_script(&list));
            }),
            sync("`edgeallow sync`, nftables", &plain, &["nftables"], Some(&then), &["--remove-now"])
                .before(prepared("nftables")),
            sync("`edgeallow sync`, iptables", &plain, &["iptables"], Some(&then), &["--remove-now"])
                .before(prepared("iptables")),
        ],
    );
}

/// As many distinct /24 of global space, spread evenly, and three IPv6 prefixes.
fn many(count: u32, shift: u32) -> String {
    let mut text = String::from(V6);
    let reserved = [10, 100, 127, 169, 172, 192, 198, 203];
    let mut left = count;
    let mut net = 0x0100_0000_u32 + shift * 256;
    while left > 0 {
        let address = Ipv4Addr::from(net);
        if !reserved.contains(&address.octets()[0]) {
            let _ = writeln!(text, "{address}/24");
            left -= 1;
        }
        net += 13 * 256;
    }
    text
}

/// A thousand prefixes and more, loaded, and then ten in and ten out.
pub fn large(largest: u32) {
    prepare();
    let config = config(
        "large",
        "[limits]\nmax_prefixes = 2000000\nmin_v4 = 0\n[nftables]\npersist = \"none\"\n[iptables]\npersist = false\n",
    );
    for count in [1_000, 10_000, 100_000, 1_000_000] {
        if count > largest {
            break;
        }
        let list = many(count, 0);
        let changed: String = list
            .lines()
            .enumerate()
            .map(|(n, l)| {
                let replace = n >= 3 && n % (count as usize / 10) == 5;
                // The neighbouring /24, which is free: prefixes are thirteen apart.
                let moved = || {
                    let base: Ipv4Addr = l.trim_end_matches("/24").parse().unwrap();
                    format!("{}/24\n", Ipv4Addr::from(u32::from(base) + 256))
                };
                if replace { moved() } else { format!("{l}\n") }
            })
            .collect();
        let (now, then) = (file("many.txt", &list), file("changed.txt", &changed));
        let script = file("many.nft", &nft_script(&list));
        let rules = file("many.v4", &iptables_script(&list, false));
        let sets = file("many.ipset", &ipset_script(&list));
        let scene = || {
            flush();
            feed(&["nft", "-f", "-"], NFT);
            feed(&["iptables-nft-restore"], "*filter\n:INPUT DROP [0:0]\nCOMMIT\n");
        };
        let rounds = match count {
            1_000 => 11,
            10_000 => 7,
            100_000 => 5,
            _ => 1,
        };
        let mut contestants = vec![
            Contestant::new("`nft -f` of the same rules", &["nft", "-f", script.to_str().unwrap()]).before(scene),
            sync("`edgeallow sync`, nftables", &config, &["nftables"], Some(&now), &[]).before(scene),
            Contestant::new("`ipset restore`, IPv4 only", &["ipset", "restore"]).stdin(&sets).before(scene),
            sync("`edgeallow sync`, iptables with an ipset", &config, &["iptables"], Some(&now), &[]).before(scene),
        ];
        if count <= 10_000 {
            contestants.push(
                Contestant::new("`iptables-restore --noflush`, IPv4 only", &["iptables-nft-restore", "--noflush"])
                    .stdin(&rules)
                    .before(scene),
            );
        }
        compare(&format!("{count} prefixes, first load"), rounds, &contestants);
        drop(contestants);

        let prepared = |backend: &'static str| {
            let (config, now) = (config.clone(), now.clone());
            move || {
                scene();
                once(&sync("", &config, &[backend], Some(&now), &[]));
            }
        };
        let old: std::collections::BTreeSet<&str> = list.lines().collect();
        let new: std::collections::BTreeSet<&str> = changed.lines().collect();
        let words = |nets: Vec<&&str>| nets.iter().map(|n| **n).collect::<Vec<_>>().join(", ");
        let (added, gone) = (words(new.difference(&old).collect()), words(old.difference(&new).collect()));
        let delta = file(
            "delta.nft",
            &format!("add element inet filter a4 {{ {added} }}\ndelete element inet filter a4 {{ {gone} }}\n"),
        );
        let mut contestants = vec![
            sync("`edgeallow sync`, nftables", &config, &["nftables"], Some(&then), &["--remove-now"])
                .before(prepared("nftables")),
            sync("`edgeallow sync`, iptables with an ipset", &config, &["iptables"], Some(&then), &["--remove-now"])
                .before(prepared("iptables")),
        ];
        // At a million it dumps the whole set first, which takes the kernel minutes.
        if count <= 100_000 {
            contestants.push(
                Contestant::new("`nft -f` of the difference", &["nft", "-f", delta.to_str().unwrap()]).before(|| {
                    scene();
                    feed(&["nft", "-f", "-"], &nft_script(&list));
                }),
            );
        }
        compare(&format!("{count} prefixes, ten in and ten out"), rounds.max(3), &contestants);
        let same = [sync("`edgeallow sync`, nftables", &config, &["nftables"], Some(&now), &[])];
        prepared("nftables")();
        compare(&format!("{count} prefixes, nothing to change"), rounds.max(3), &same);
    }
}
