//! What is particular to firewalld, each trap by its name: the real daemon, real packets.

use crate::{
    conformance::{
        Kind,
        firewalld::{DROPPING_ZONE, POLICY, cmd, start, stop},
    },
    lab::{EDGE4, EDGES, Lab, Reach, STRANGER6},
    run::{expect_reach, expect_status, list_with, opened, part_of, reach, remove, sync, try_sync},
};

fn host(kind: &dyn Kind) -> Lab {
    let lab = Lab::new();
    kind.setup(&lab);
    lab
}

/// A zone with the sets as sources would take all traffic from there.
#[test]
fn ssh_from_cloudflare_is_still_the_zones_affair() {
    let lab = host(&POLICY);
    let zone = lab.read_file("/etc/firewalld/zones/mine.xml").replace("  <service name=\"ssh\"/>\n", "");
    lab.write_file("/etc/firewalld/zones/mine.xml", zone);
    cmd(&lab, &["--reload"]);
    sync(&lab, &[]);
    for edge in EDGES {
        assert_eq!(lab.connect(edge, 443), Reach::Accepted, "{edge}");
        assert_ne!(lab.connect(edge, 22), Reach::Accepted, "{edge} on port 22, which the zone doesn't allow");
        assert_ne!(lab.connect(edge, 8443), Reach::Accepted, "{edge} on port 8443");
    }
}

#[test]
fn a_zones_own_drop_and_its_denies_are_beaten() {
    let lab = host(&DROPPING_ZONE);
    assert_eq!(lab.connect(EDGES[1], 443), Reach::Timeout, "the zone drops this edge by a rule of its own");
    sync(&lab, &[]);
    assert_eq!(lab.connect(EDGES[1], 443), Reach::Accepted);
}

/// Deleting a set in use is allowed, and the next reload ends with an empty rule set: everything is open.
#[test]
fn removal_never_ends_with_an_empty_rule_set() {
    let lab = host(&POLICY);
    let before = reach(&lab);
    sync(&lab, &[]);
    remove(&lab, &[]);
    assert!(lab.rules().0.contains("chain filter_IN_mine_allow"), "{:?}", lab.rules());
    cmd(&lab, &["--reload"]);
    lab.run(["firewall-cmd", "--state"]);
    expect_reach(&lab, &before, "after remove and a reload");
}

/// A runtime-only rule is gone after any reload, so it tells whether there was one.
#[test]
fn prefixes_and_ports_change_without_a_reload() {
    let lab = host(&POLICY);
    sync(&lab, &[]);
    cmd(&lab, &["--add-rich-rule=rule family=ipv6 source address=2001:db8:bad::9 port port=8443 protocol=tcp accept"]);
    let list = list_with(&lab, "longer", &["9.9.9.0/24"]);
    sync(&lab, &["--list", &list]);
    lab.write_file("/etc/edgeallow/config.toml", "ports = [443, 8443]\n");
    sync(&lab, &["--list", &list]);
    let rules = lab.rules().0;
    assert!(rules.contains("2001:db8:bad::9 tcp dport 8443 accept"), "a reload forgot it:\n{rules}");
    assert_eq!(lab.connect(EDGE4, 8443), Reach::Accepted);
    assert_ne!(lab.connect(EDGE4, 80), Reach::Accepted);
    expect_status(&lab, 0);
}

#[test]
fn a_reload_that_would_forget_what_is_only_running_is_refused() {
    let lab = host(&POLICY);
    cmd(&lab, &["--add-port=8443/tcp"]);
    let (rules, files) = (lab.rules(), lab.tree(&["/etc"]));
    let refused = try_sync(&lab, &[]).expect(4).json();
    let error = &part_of(&refused, "firewalld")["error"];
    assert!(error["message"].as_str().is_some_and(|m| m.contains("8443/tcp")), "{refused:#}");
    assert_eq!((rules, files), (lab.rules(), lab.tree(&["/etc"])), "nothing is changed");
    // He stores it: then there is nothing to lose.
    cmd(&lab, &["--permanent", "--add-port=8443/tcp"]);
    sync(&lab, &[]);
    assert_eq!(lab.connect(STRANGER6, 443), lab.connect(STRANGER6, 80));
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
}

/// What firewalld believes otherwise than the kernel is mended by a reload, and that one is forbidden too.
#[test]
fn a_forbidden_reload_is_not_made_by_undoing_either() {
    let lab = host(&POLICY);
    sync(&lab, &[]);
    cmd(&lab, &["--add-port=8443/tcp"]);
    lab.run(["nft", "delete", "element", "inet", "firewalld", "edgeallow-v4", "{ 104.16.0.0/13 }"]);
    let rules = lab.rules();
    try_sync(&lab, &[]).expect(4);
    assert_eq!(rules, lab.rules());
}

/// `firewall-cmd --check-config` says that such a configuration is fine.
#[test]
fn a_stored_rule_whose_ipset_is_missing_forbids_the_reload() {
    let lab = host(&POLICY);
    let rule = "<zone><rule family=\"ipv4\"><source ipset=\"gone\"/><accept/></rule></zone>";
    lab.write_file("/etc/firewalld/zones/other.xml", rule);
    lab.run(["firewall-cmd", "--check-config"]);
    let before = (lab.rules(), lab.tree(&["/etc"]));
    let refused = try_sync(&lab, &[]).expect(4).json();
    assert!(refused.to_string().contains("uses the ipset gone"), "{refused:#}");
    assert_eq!(before, (lab.rules(), lab.tree(&["/etc"])));
}

#[test]
fn stopped_it_is_stored_for_and_goes_live_when_it_starts() {
    let lab = host(&POLICY);
    let before = reach(&lab);
    stop(&lab);
    let report = sync(&lab, &["--backend", "firewalld"]);
    assert_eq!(part_of(&report, "firewalld")["state"], "pending", "{report:#}");
    assert_eq!(sync(&lab, &["--backend", "firewalld"])["changed"], false);
    start(&lab);
    expect_reach(&lab, &opened(&before), "after the start");
    expect_status(&lab, 0);
    // And stopped again, what is stored stays and is kept up to date.
    stop(&lab);
    let list = list_with(&lab, "longer", &["9.9.9.0/24"]);
    let report = sync(&lab, &["--list", &list]);
    assert_eq!(part_of(&report, "firewalld")["state"], "pending", "{report:#}");
    assert!(lab.read_file("/etc/firewalld/ipsets/edgeallow-v4.xml").contains("9.9.9.0/24"));
}

/// The older way of firewalld to load its rules, which other distributions still set.
#[test]
fn firewalld_on_top_of_iptables_works_the_same() {
    let lab = Lab::new();
    let conf = "/etc/firewalld/firewalld.conf";
    let text = lab.read_file(conf).replace("FirewallBackend=nftables", "FirewallBackend=iptables");
    lab.write_file(conf, text);
    POLICY.setup(&lab);
    let before = reach(&lab);
    sync(&lab, &[]);
    expect_reach(&lab, &opened(&before), "after a sync");
    assert_eq!(sync(&lab, &[])["changed"], false);
    cmd(&lab, &["--ipset=edgeallow-v4", "--remove-entry=173.245.48.0/20"]);
    assert_eq!(sync(&lab, &[])["changed"], true);
    expect_reach(&lab, &opened(&before), "after healing");
    remove(&lab, &[]);
    expect_reach(&lab, &before, "after remove");
}
