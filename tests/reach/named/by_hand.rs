//! Rules that an administrator wrote himself.

use super::Host;
use crate::{
    lab::{EDGE4, EDGE6, OTHER_EDGE4, Reach},
    reach::DROPPING,
    run::sync,
};

#[test]
fn another_table_that_drops_beside_the_one_with_ours() {
    Host {
        setup: &|lab| {
            lab.feed(["nft", "-f", "-"], DROPPING);
            sync(lab, &[]);
            let chain = "type filter hook input priority 5; policy drop; ct state established accept";
            lab.feed(["nft", "-f", "-"], &format!("table inet second {{ chain in {{ {chain}; }}; }}"));
        },
        before: &[(EDGE4, 443, Reach::Timeout), (EDGE6, 80, Reach::Timeout)],
        says: &[
            "refused by the administrator's own nftables rules: inet second in: policy → 522; all on 80/tcp 443/tcp",
        ],
    }
    .is_told_and_mended(7);
}

#[test]
fn rules_of_iptables_in_several_places() {
    // Deleted by number the second one would be another by then.
    Host {
        setup: &|lab| {
            for rule in [
                "iptables -A INPUT -s 173.245.48.0/24 -p tcp -j REJECT --reject-with tcp-reset",
                "iptables -A INPUT -s 9.9.9.9 -j DROP",
                "iptables -A INPUT -s 104.23.0.0/16 -p tcp -m multiport --dports 443,8443 -j DROP",
                "ip6tables -t raw -A PREROUTING -s 2400:cb00::/48 -j DROP",
                "iptables -t mangle -A OUTPUT -d 162.158.0.0/16 -p tcp --sport 80 -j DROP",
            ] {
                lab.run(rule.split(' '));
            }
            lab.internet_address("162.158.0.9");
        },
        before: &[
            (EDGE4, 443, Reach::Refused),
            (OTHER_EDGE4, 443, Reach::Timeout),
            (EDGE6, 443, Reach::Timeout),
            ("162.158.0.9", 80, Reach::Timeout),
        ],
        says: &[
            "refused by the administrator's own iptables rules: ip6 raw PREROUTING: -A PREROUTING -s 2400:cb00::/48 -j DROP → 522; 2400:cb00::/48 on 80/tcp 443/tcp",
            "refused by the administrator's own iptables rules: ip filter INPUT: -A INPUT -s 173.245.48.0/24 -p tcp -j REJECT --reject-with tcp-reset → 521; 173.245.48.0/24 on 80/tcp 443/tcp",
            "refused by the administrator's own iptables rules: ip filter INPUT: -A INPUT -s 104.23.0.0/16 -p tcp -m multiport --dports 443,8443 -j DROP → 522; 104.23.0.0/16 on 443/tcp",
            "refused by the administrator's own iptables rules: ip mangle OUTPUT: -A OUTPUT -d 162.158.0.0/16 -p tcp -m tcp --sport 80 -j DROP (answer) → 522; 162.158.0.0/16 on 80/tcp",
        ],
    }
    .is_told_and_mended(7);
}

#[test]
fn answers_that_a_policy_drops() {
    Host {
        setup: &|lab| drop(lab.feed(["nft", "-f", "-"], "table inet out { chain out { type filter hook output priority 0; policy drop; }; }")),
        before: &[(EDGE4, 443, Reach::Timeout)],
        says: &[
            "refused by the administrator's own nftables rules: inet out out: policy (answer) → 522; all on 80/tcp 443/tcp",
        ],
    }
    .is_told_and_mended(7);
    Host {
        setup: &|lab| {
            lab.run(["iptables-legacy", "-P", "OUTPUT", "DROP"]);
            lab.run(["ip6tables-legacy", "-P", "OUTPUT", "DROP"]);
        },
        before: &[(EDGE4, 443, Reach::Timeout), (EDGE6, 443, Reach::Timeout)],
        says: &[
            "refused by the administrator's own iptables rules: ip filter OUTPUT: policy (answer) → 522; all on 80/tcp 443/tcp",
            "refused by the administrator's own iptables rules: ip6 filter OUTPUT: policy (answer) → 522; all on 80/tcp 443/tcp",
        ],
    }
    .is_told_and_mended(7);
}

#[test]
fn a_chain_on_the_device_itself() {
    Host {
        setup: &|lab| {
            let chain = "type filter hook ingress device s0 priority -500; policy accept; ip saddr 173.245.48.29 drop";
            lab.feed(["nft", "-f", "-"], &format!("table netdev edge {{ chain in {{ {chain}; }}; }}"));
        },
        before: &[(EDGE4, 443, Reach::Timeout)],
        says: &[
            "refused by the administrator's own nftables rules: netdev edge in: ip saddr 173.245.48.29 drop → 522; 173.245.48.29/32 on 80/tcp 443/tcp",
        ],
    }
    .is_told_and_mended(7);
}
