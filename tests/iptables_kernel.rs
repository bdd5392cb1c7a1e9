//! The iptables backend against the real programs and the real kernel, in throwaway namespaces.
//!
//! Each test starts itself again in namespaces of its own (`again`), where `/etc` and `/usr/share` are overlays.

#![allow(clippy::unwrap_used, reason = "a failing step of a test shall end it")]
#![allow(clippy::disallowed_methods, reason = "the lab starts programs; the rule is about the tool itself")]

#[path = "support/again.rs"]
mod again;

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::Arc,
    time::Duration,
};

use again::{is_inside, sh};
use edgeallow::{
    allowlist::Prefixes,
    backends::{
        Auto, Backend, Context, Probe, Verified,
        iptables::{IpsetUse, Iptables, IptablesConfig, Owned, Seen},
    },
    error::ErrorKind,
    host::{Act, Look as _, Machine},
    nft::{TableFamily, TableId},
    plan::{Desired, Plan, Protocol, Step},
};
use ipnet::IpNet;

const CLOUDFLARE: [u8; 4] = [173, 245, 48, 29];
const STRANGER: [u8; 4] = [203, 0, 113, 9];

/// Runs the body of the named test in namespaces of its own.
fn lab(name: &str, body: impl FnOnce()) {
    if !is_inside(name) {
        return;
    }
    sh("mount -t tmpfs tmpfs /mnt; mkdir -p /mnt/e /mnt/ew /mnt/s /mnt/sw
        mount -t overlay o -o lowerdir=/etc,upperdir=/mnt/e,workdir=/mnt/ew /etc
        mount -t overlay o -o lowerdir=/usr/share,upperdir=/mnt/s,workdir=/mnt/sw /usr/share
        ip link set lo up
        for a in 192.0.2.1 173.245.48.29 203.0.113.9; do ip addr add $a/32 dev lo; done");
    body();
}

/// An administrator's rules that drop by default, in both families.
fn refuse(variant: &str) {
    for ip in ["iptables", "ip6tables"] {
        sh(&format!(
            "{ip}-{variant}-restore <<'X'
*filter
:INPUT DROP [0:0]
:mine - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -m comment --comment \"it's \\\"mine\\\"\" -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A INPUT -j mine
COMMIT
X"
        ));
    }
}

/// What `*-save` prints of both families, without counters, comments and what is ours.
fn theirs(variant: &str) -> String {
    sh(&format!("iptables-{variant}-save; ip6tables-{variant}-save"))
        .lines()
        .filter(|l| !l.starts_with('#') && !l.contains("EDGEALLOW"))
        .map(|l| l.split(" [").next().unwrap_or_default().to_owned() + "\n")
        .collect()
}

/// Whether a TCP connection from that address to port 80 of this host succeeds.
fn reaches(from: [u8; 4]) -> bool {
    use rustix::net::{AddressFamily, SocketType, bind, connect, getpeername, socket, sockopt};
    let listener = TcpListener::bind("192.0.2.1:80").unwrap();
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_timeout(&client, sockopt::Timeout::Send, Some(Duration::from_millis(400))).unwrap();
    bind(&client, &SocketAddrV4::new(Ipv4Addr::from(from), 0)).unwrap();
    let connected = connect(&client, &SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80)).is_ok();
    // The packets pass while the call is made. Whoever is woken too late is told that the time is over all the same.
    let connected = connected || getpeername(&client).is_ok_and(|peer| peer.is_some());
    drop(listener);
    connected
}

fn want(nets: &[&str]) -> Desired {
    wanting(nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect())
}

fn wanting(prefixes: Prefixes) -> Desired {
    Desired { prefixes: Arc::new(prefixes), ports: [80, 443].into(), protocols: [Protocol::Tcp].into() }
}

fn by_set() -> Iptables {
    Iptables { config: IptablesConfig { ipset: IpsetUse::Always, ..IptablesConfig::default() }, named: false }
}

fn cx(host: &Machine, applied: Option<Arc<Prefixes>>) -> Context<'_> {
    Context { host, applied, full_check: 500, deep: false, leave_stored: false }
}

fn look(backend: &Iptables, applied: Option<Arc<Prefixes>>) -> Seen {
    backend.observe(&cx(&Machine::new(), applied)).unwrap()
}

fn plan(backend: &Iptables, want: &Desired, seen: &Seen) -> Plan {
    backend.steps(seen, &backend.target(want, seen).unwrap()).unwrap()
}

fn run(plan: &Plan) {
    let machine = Machine::new();
    for change in &plan.changes {
        match &change.step {
            Step::Run(run) => drop(machine.execute(run).unwrap_or_else(|e| panic!("{}: {e}", change.why))),
            Step::Write(write) => machine.write(write).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

/// Syncs; nothing may be left to do then, and iptables itself must agree. Returns what was done.
fn sync(backend: &Iptables, want: &Desired) -> Plan {
    let first = plan(backend, want, &look(backend, None));
    run(&first);
    let again = look(backend, Some(want.prefixes.clone()));
    let left = plan(backend, want, &again);
    assert!(left.is_empty(), "{left:?}");
    backend.confirm(&cx(&Machine::new(), None), &again).unwrap();
    first
}

fn back(backend: &Iptables, to: &Owned) {
    run(&backend.steps(&look(backend, None), to).unwrap());
    assert_eq!(look(backend, None).owned(), *to);
}

fn through_its_life(variant: &str, backend: &Iptables) {
    refuse(variant);
    let before = theirs(variant);
    let Probe::Ready { auto: Auto::Yes(why), .. } = backend.probe(&cx(&Machine::new(), None)) else {
        panic!("{:?}", backend.probe(&cx(&Machine::new(), None)))
    };
    assert!(why.contains(&format!("iptables-{variant}: INPUT has policy DROP")), "{why}");

    assert!(!reaches(CLOUDFLARE) && !reaches(STRANGER));
    let cloudflare = want(&["173.245.48.0/20", "104.16.0.0/13", "104.24.0.0/14", "2400:cb00::/32"]);
    assert!(!sync(backend, &cloudflare).is_empty());
    assert!(reaches(CLOUDFLARE) && !reaches(STRANGER));
    assert_eq!(theirs(variant), before);
    assert!(sync(backend, &cloudflare).is_empty());

    // Drift: displaced and doubled jumps, rules added, rules gone.
    let ip = format!("iptables-{variant}");
    let jump = "-m comment --comment edgeallow -j EDGEALLOW";
    for (drift, mend) in [
        (
            format!("{ip} -I INPUT 1 -p tcp --dport 80 -j DROP; {ip} -A INPUT {jump}"),
            format!("{ip} -D INPUT -p tcp --dport 80 -j DROP"),
        ),
        (format!("{ip} -D INPUT {jump}"), "true".to_owned()),
        (format!("{ip} -I EDGEALLOW 1 -m comment --comment 'x \"y\"' -j DROP"), "true".to_owned()),
        (format!("{ip} -F EDGEALLOW"), "true".to_owned()),
    ] {
        sh(&drift);
        let drifted = look(backend, None).owned();
        assert!(!reaches(CLOUDFLARE), "{drift}");
        assert!(!sync(backend, &cloudflare).is_empty());
        assert!(reaches(CLOUDFLARE), "{drift}");
        // The way back works to any state, also to one that somebody else made.
        back(backend, &drifted);
        sync(backend, &cloudflare);
        sh(&mend);
    }
    assert_eq!(theirs(variant), before);

    // Another list and other ports; a run that stops after its first step goes back.
    let mut other = want(&["104.16.0.0/13", "2400:cb00::/32", "2606:4700::/32"]);
    other.ports = (8000..8020).collect();
    let seen = look(backend, None);
    let mut half = plan(backend, &other, &seen);
    half.changes.truncate(1);
    run(&half);
    back(backend, &seen.owned());
    assert!(reaches(CLOUDFLARE));
    sync(backend, &other);
    assert!(!reaches(CLOUDFLARE));
    back(backend, &Owned::default());
    assert_eq!(theirs(variant), before);
    let left = sh(&format!("{ip}-save; ip6tables-{variant}-save; ipset list -n"));
    assert!(!left.to_lowercase().contains("edgeallow"), "{left}");
}

#[test]
fn nft_linear() {
    lab("nft_linear", || {
        through_its_life("nft", &Iptables::default());
        let legacy = sh("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null || true");
        assert_eq!(legacy, "", "a legacy table was made");
    });
}

#[test]
fn nft_by_set() {
    lab("nft_by_set", || through_its_life("nft", &by_set()));
}

#[test]
fn legacy_linear() {
    lab("legacy_linear", || {
        through_its_life("legacy", &Iptables::default());
        assert_eq!(sh("nft list ruleset"), "", "nf_tables was written");
    });
}

#[test]
fn legacy_by_set() {
    lab("legacy_by_set", || through_its_life("legacy", &by_set()));
}

#[test]
fn both_variants_at_once_and_a_cut_off_run_goes_back() {
    lab("both_variants_at_once_and_a_cut_off_run_goes_back", || {
        refuse("nft");
        refuse("legacy");
        let backend = Iptables::default();
        let cloudflare = want(&["173.245.48.0/20", "2400:cb00::/32"]);
        assert_eq!(sync(&backend, &cloudflare).changes.len(), 4);
        assert!(reaches(CLOUDFLARE) && !reaches(STRANGER));
        back(&backend, &Owned::default());
        for cut in 1..4 {
            let mut part = plan(&backend, &cloudflare, &look(&backend, None));
            part.changes.truncate(cut);
            run(&part);
            back(&backend, &Owned::default());
            assert!(!reaches(CLOUDFLARE));
        }
    });
}

#[test]
fn sets_of_any_size_and_shape() {
    lab("sets_of_any_size_and_shape", || {
        refuse("nft");
        let backend = Iptables::default();
        let many: Prefixes = (0..10_000_u32)
            .map(|i| IpNet::new(Ipv4Addr::from(0x6440_0000 + i * 256).into(), 24).unwrap())
            .chain(["2400:cb00::/32".parse().unwrap(), "173.245.48.0/20".parse().unwrap()])
            .collect();
        sync(&backend, &wanting(many.clone()));
        assert!(reaches(CLOUDFLARE) && !reaches(STRANGER));
        let seen = look(&backend, Some(Arc::new(many.clone())));
        assert_eq!(backend.verified(&seen), Verified::Count);
        assert_eq!(backend.held(&seen), many);

        // A foreign element: the count differs, so the set is built anew and swapped in.
        sh("ipset add edgeallow4 203.0.113.9; ipset del edgeallow4 173.245.48.0/20; ipset add edgeallow4 10.0.0.0/8");
        assert!(reaches(STRANGER) && !reaches(CLOUDFLARE));
        assert!(!sync(&backend, &wanting(many.clone())).is_empty());
        assert!(reaches(CLOUDFLARE) && !reaches(STRANGER));

        // A list small enough for linear rules needs no set, and the set goes after its last rule.
        sync(&backend, &want(&["173.245.48.0/20", "2400:cb00::/32"]));
        assert_eq!(sh("ipset list -n"), "");
        assert!(reaches(CLOUDFLARE));

        // Everything; what a cut-off run left; a set with other options; an element of another kind.
        sh("ipset create edgeallow4-new hash:net; ipset create edgeallow4 hash:net timeout 60 comment
            ipset add edgeallow4 10.0.0.0/8 comment 'a b'");
        sync(&by_set(), &want(&["0.0.0.0/0", "::/0"]));
        assert!(reaches(CLOUDFLARE) && reaches(STRANGER));
        sh("ipset add edgeallow4 173.245.48.0/24 nomatch");
        assert!(!reaches(CLOUDFLARE));
        let odd = look(&backend, None).owned();
        assert!(!sync(&by_set(), &want(&["0.0.0.0/0", "::/0"])).is_empty());
        assert!(reaches(CLOUDFLARE));
        back(&backend, &odd);
        back(&backend, &Owned::default());
        assert_eq!(sh("ipset list -n"), "");
    });
}

#[test]
fn stored_rules_load_and_his_lines_stay() {
    lab("stored_rules_load_and_his_lines_stay", || {
        refuse("nft");
        let default = sh("iptables --version");
        assert!(default.contains("nf_tables"), "this test expects the default of Debian and Ubuntu, not {default}");
        sh("mkdir -p /usr/share/netfilter-persistent/plugins.d /etc/iptables
            cd /usr/share/netfilter-persistent/plugins.d; touch 15-ip4tables 25-ip6tables
            iptables-nft-save -c > /etc/iptables/rules.v4; ip6tables-nft-save > /etc/iptables/rules.v6");
        let stored = || ["v4", "v6"].map(|v| std::fs::read(format!("/etc/iptables/rules.{v}")).unwrap());
        let skeleton = "(iptables-nft-save; ip6tables-nft-save) | grep -v '^#' | sed 's/ \\[[0-9:]*\\]$//'";
        let at_boot = || {
            sh("iptables-restore --test < /etc/iptables/rules.v4; ip6tables-restore --test < /etc/iptables/rules.v6");
            sh(&format!(
                "unshare -n sh -ec \"iptables-restore < /etc/iptables/rules.v4; ip6tables-restore < /etc/iptables/rules.v6
                {skeleton}\""
            ))
        };
        let (before, boot) = (stored(), at_boot());
        let cloudflare = want(&["173.245.48.0/20", "2400:cb00::/32"]);
        assert_eq!(sync(&Iptables::default(), &cloudflare).changes.len(), 4);
        assert_eq!(at_boot(), sh(skeleton), "what is loaded at boot is what is live");
        let his: String = at_boot().lines().filter(|l| !l.contains("EDGEALLOW")).map(|l| format!("{l}\n")).collect();
        assert_eq!(his, boot);

        // By set: the file must load where the set is not.
        sync(&by_set(), &cloudflare);
        let text = stored().concat();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(":EDGEALLOW") && text.contains("-j EDGEALLOW") && !text.contains("match-set"), "{text}");
        at_boot();
        back(&Iptables::default(), &Owned::default());
        assert_eq!(stored(), before);
    });
}

fn a_chain_of_our_name(variant: &str) {
    refuse(variant);
    let ip = format!("iptables-{variant}");
    sh(&format!("{ip} -N EDGEALLOW; {ip} -A EDGEALLOW -s 203.0.113.9 -j ACCEPT; {ip} -I INPUT -j EDGEALLOW"));
    let rules = || sh(&format!("{ip} -S"));
    let (before, backend, cloudflare) = (rules(), Iptables::default(), want(&["173.245.48.0/20"]));
    let seen = look(&backend, None);
    let refused = backend.steps(&seen, &backend.target(&cloudflare, &seen).unwrap()).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::ToolConfig);
    back(&backend, &Owned::default());
    assert_eq!(rules(), before);
    assert!(reaches(STRANGER) && !reaches(CLOUDFLARE));
    // As the error says: under another name it is in nobody's way.
    sh(&format!("{ip} -E EDGEALLOW HIS"));
    sync(&backend, &cloudflare);
    assert!(reaches(STRANGER) && reaches(CLOUDFLARE));
    back(&backend, &Owned::default());
    assert!(reaches(STRANGER) && !reaches(CLOUDFLARE));
}

#[test]
fn a_chain_of_our_name_in_nft_is_not_ours() {
    lab("a_chain_of_our_name_in_nft_is_not_ours", || a_chain_of_our_name("nft"));
}

#[test]
fn a_chain_of_our_name_in_legacy_is_not_ours() {
    lab("a_chain_of_our_name_in_legacy_is_not_ours", || a_chain_of_our_name("legacy"));
}

#[test]
fn a_stored_file_that_cannot_be_loaded_is_left_alone() {
    lab("a_stored_file_that_cannot_be_loaded_is_left_alone", || {
        refuse("nft");
        sh("mkdir -p /usr/share/netfilter-persistent/plugins.d /etc/iptables
            touch /usr/share/netfilter-persistent/plugins.d/15-ip4tables
            printf '# mine\\r\\n*filter\\r\\n:INPUT DROP [0:0]\\r\\n-A INPUT -i lo -j ACCEPT\\r\\nCOMMIT\\r\\n' >/etc/iptables/rules.v4
            ! iptables-restore --test </etc/iptables/rules.v4");
        let before = std::fs::read("/etc/iptables/rules.v4").unwrap();
        let (backend, cloudflare) = (Iptables::default(), want(&["173.245.48.0/20"]));
        sync(&backend, &cloudflare);
        assert!(reaches(CLOUDFLARE));
        assert_eq!(std::fs::read("/etc/iptables/rules.v4").unwrap(), before);
        let seen = look(&backend, None);
        let warnings = backend.foreseen(&seen, &backend.target(&cloudflare, &seen).unwrap());
        assert!(warnings.iter().any(|w| w.id == "not-persisted" && w.message.contains("CR LF")), "{warnings:?}");
    });
}

#[test]
fn looking_changes_nothing_where_nothing_refuses() {
    lab("looking_changes_nothing_where_nothing_refuses", || {
        let backend = Iptables::default();
        assert!(matches!(backend.probe(&cx(&Machine::new(), None)), Probe::Ready { auto: Auto::No(_), .. }));
        assert!(sync(&backend, &want(&["173.245.48.0/20"])).is_empty());
        assert_eq!(
            sh("nft list ruleset; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null || true"),
            ""
        );
        // Named, it is applied by the default variant.
        sync(&Iptables { named: true, ..backend }, &want(&["173.245.48.0/20"]));
        assert!(sh("iptables-save").contains("-A INPUT -m comment --comment edgeallow -j EDGEALLOW"));
    });
}

#[test]
fn the_kernel_tells_by_netlink_what_there_is() {
    lab("the_kernel_tells_by_netlink_what_there_is", || {
        let (machine, filter) = (Machine::new(), TableId::new(TableFamily::Ip6, "filter"));
        let seen = || (machine.nft_has_table(&filter).unwrap(), machine.has_ipset("edgeallow4").unwrap());
        assert_eq!(seen(), (Some(false), Some(false)));
        sh("iptables-nft -A INPUT -j ACCEPT; ipset create edgeallow4-new hash:net");
        assert_eq!(seen(), (Some(false), Some(false)));
        sh("ip6tables-nft -A INPUT -j ACCEPT; ipset create edgeallow4 list:set");
        assert_eq!(seen(), (Some(true), Some(true)));
    });
}

#[test]
fn the_second_witness_can_contradict() {
    lab("the_second_witness_can_contradict", || {
        refuse("nft");
        let backend = Iptables::default();
        sync(&backend, &want(&["173.245.48.0/20"]));
        let seen = look(&backend, None);
        sh("iptables-nft -F EDGEALLOW");
        let e = backend.confirm(&cx(&Machine::new(), None), &seen).unwrap_err();
        assert_eq!(e.kind, ErrorKind::Unconfirmed);
    });
}

#[test]
fn a_table_that_nft_wrote_is_left_alone() {
    lab("a_table_that_nft_wrote_is_left_alone", || {
        sh("nft 'add table ip filter; \
            add chain ip filter INPUT { type filter hook input priority 0; policy drop; }; \
            add rule ip filter INPUT ct state vmap { invalid : drop }; \
            add rule ip filter INPUT socket transparent 1 accept'");
        let before = sh("nft list ruleset");
        let named = Iptables { named: true, ..Iptables::default() };
        let seen = look(&named, None);
        assert!(named.warnings(&seen).iter().any(|w| w.id == "table-unreadable"));
        let e = named.target(&want(&["173.245.48.0/20"]), &seen).unwrap_err();
        assert_eq!(e.kind, ErrorKind::BackendUnusable);
        assert_eq!(sh("nft list ruleset"), before);
    });
}
