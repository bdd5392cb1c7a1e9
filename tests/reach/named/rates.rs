//! Rates, which are no refusal until there is a rush.

use super::Host;
use crate::lab::{EDGE4, Lab, Reach};

/// One connection gets in, a rush doesn't, and the advice lets the rush in.
fn throttles(setup: &dyn Fn(&Lab), says: &[&str]) {
    let host = Host { setup, before: &[(EDGE4, 443, Reach::Accepted)], says };
    let (lab, report) = host.is_told(0);
    assert_eq!(report["reach"]["verdict"], "throttled");
    assert!(report["warnings"].to_string().contains("throttled"), "{report:#}");
    assert!(rush(&lab), "nothing is limited\n{:?}", lab.rules());
    host.is_told_and_mended(0);
}

/// Whether one of some connections in quick succession is turned away.
fn rush(lab: &Lab) -> bool {
    (0..8).any(|_| lab.connect(EDGE4, 443) != Reach::Accepted)
}

fn nft(rule: &str) -> String {
    format!(
        "table inet filter {{ chain input {{ type filter hook input priority 0; policy accept; tcp dport 443 ct state new {rule}; }}; }}"
    )
}

#[test]
fn hashlimit() {
    let rule = "iptables -A INPUT -p tcp --dport 443 -m conntrack --ctstate NEW -m hashlimit --hashlimit-above 2/minute \
                --hashlimit-burst 3 --hashlimit-mode srcip --hashlimit-name web -j DROP";
    throttles(
        &|lab| drop(lab.run(rule.split_whitespace())),
        &[
            "throttled by the administrator's own iptables rules: ip filter INPUT: -A INPUT -p tcp -m tcp --dport 443 -m conntrack --ctstate NEW -m hashlimit --hashlimit-above 2/min --hashlimit-burst 3 --hashlimit-mode srcip --hashlimit-name web -j DROP [--hashlimit-above 2/min --hashlimit-burst 3 --hashlimit-mode srcip --hashlimit-name web] → 522; all on 443/tcp",
        ],
    );
}

#[test]
fn recent() {
    let rules = [
        "iptables -A INPUT -p tcp --dport 443 -m conntrack --ctstate NEW -m recent --set --name web",
        "iptables -A INPUT -p tcp --dport 443 -m conntrack --ctstate NEW -m recent --update --seconds 60 --hitcount 4 --name web -j DROP",
    ];
    throttles(
        &|lab| rules.iter().for_each(|rule| drop(lab.run(rule.split(' ')))),
        &[
            "throttled by the administrator's own iptables rules: ip filter INPUT: -A INPUT -p tcp -m tcp --dport 443 -m conntrack --ctstate NEW -m recent --update --seconds 60 --hitcount 4 --name web --mask 255.255.255.255 --rsource -j DROP [--update --seconds 60 --hitcount 4 --name web --mask 255.255.255.255 --rsource] → 522; all on 443/tcp",
        ],
    );
}

#[test]
fn a_limit_before_a_policy_that_drops() {
    let rules = "*filter\n:INPUT DROP [0:0]\n-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
                 -A INPUT -p tcp -m multiport --dports 80,443 -m limit --limit 2/minute --limit-burst 3 -j ACCEPT\nCOMMIT\n";
    throttles(
        &|lab| drop(lab.feed(["iptables-legacy-restore"], rules)),
        &[
            "throttled by the administrator's own iptables rules: ip filter INPUT: -A INPUT -p tcp -m multiport --dports 80,443 -m limit --limit 2/min --limit-burst 3 -j ACCEPT [--limit 2/min --limit-burst 3] → 522; all on 80/tcp 443/tcp",
        ],
    );
}

#[test]
fn a_limit_of_nftables() {
    throttles(
        &|lab| drop(lab.feed(["nft", "-f", "-"], &nft("limit rate over 2/minute burst 3 packets drop"))),
        &[
            "throttled by the administrator's own nftables rules: inet filter input: tcp dport 443 ct state new limit rate over 2/minute burst 3 packets drop [limit rate over 2/minute burst 3 packets] → 522; all on 443/tcp",
        ],
    );
}

#[test]
fn a_meter_of_nftables() {
    let rule = nft("meter web { ip saddr limit rate over 2/minute burst 3 packets } drop");
    throttles(
        &|lab| drop(lab.feed(["nft", "-f", "-"], &rule)),
        &[
            "throttled by the administrator's own nftables rules: inet filter input: tcp dport 443 ct state new meter web size 65535 { ip saddr limit rate over 2/minute burst 3 packets } drop [limit rate over 2/minute burst 3 packets] → 522; all on 443/tcp",
        ],
    );
}

#[test]
fn a_set_of_nftables_that_counts_for_each_address() {
    let rule = nft("add @seen { ip saddr limit rate over 2/minute burst 3 packets } reject with tcp reset");
    let rule = rule.replace("filter {", "filter { set seen { type ipv4_addr; size 999; flags dynamic; };");
    throttles(
        &|lab| drop(lab.feed(["nft", "-f", "-"], &rule)),
        &[
            "throttled by the administrator's own nftables rules: inet filter input: tcp dport 443 ct state new add @seen { ip saddr limit rate over 2/minute burst 3 packets } reject with tcp reset [limit rate over 2/minute burst 3 packets] → 521; all on 443/tcp",
        ],
    );
}

#[test]
fn connections_at_a_time() {
    let rule =
        "iptables -A INPUT -p tcp --dport 443 -m connlimit --connlimit-above 2 -j REJECT --reject-with tcp-reset";
    Host {
        setup: &|lab| drop(lab.run(rule.split(' '))),
        before: &[(EDGE4, 443, Reach::Accepted)],
        says: &[
            "throttled by the administrator's own iptables rules: ip filter INPUT: -A INPUT -p tcp -m tcp --dport 443 -m connlimit --connlimit-above 2 --connlimit-mask 32 --connlimit-saddr -j REJECT --reject-with tcp-reset [--connlimit-above 2 --connlimit-mask 32 --connlimit-saddr] → 521; all on 443/tcp",
        ],
    }
    .is_told_and_mended(0);
}
