//! Bans: fail2ban's with each of its actions, and sets as CrowdSec's bouncer keeps them.

use super::{Host, follow, verify};
use crate::{
    above::fail2ban,
    lab::{EDGE4, EDGE6, Lab, OTHER_EDGE4, Reach},
};

/// A fail2ban that bans by this action, and has banned two addresses of Cloudflare's.
fn banned(lab: &Lab, action: &str) {
    fail2ban::install(lab, &fail2ban::JAILS.replace("iptables-multiport", action));
    fail2ban::start(lab);
    lab.run(["fail2ban-client", "set", "door", "banip", EDGE4, EDGE6]);
    // The server acts on it a moment later.
    let begun = std::time::Instant::now();
    while [EDGE4, EDGE6].iter().any(|a| lab.connect(a, 443) == Reach::Accepted) {
        assert!(begun.elapsed().as_secs() < 20, "{action} doesn't ban\n{:?}", lab.rules());
    }
}

fn fail2bans(action: &str, says: &[&str]) {
    Host {
        setup: &|lab| banned(lab, action),
        before: &[(EDGE4, 443, Reach::Refused), (EDGE6, 80, Reach::Refused)],
        says,
    }
    .is_told_and_mended(7);
}

#[test]
fn fail2ban_with_nftables() {
    fail2bans(
        "nftables-multiport",
        &[
            "refused by fail2ban (jail door): inet f2b-table f2b-chain: tcp dport { 80, 443 } ip saddr @addr-set-door reject with icmp port-unreachable → 521; 173.245.48.29/32 on 80/tcp 443/tcp",
            "refused by fail2ban (jail door): inet f2b-table f2b-chain: tcp dport { 80, 443 } ip6 saddr @addr6-set-door reject with icmpv6 port-unreachable → 521; 2400:cb00::9/128 on 80/tcp 443/tcp",
        ],
    );
}

#[test]
fn fail2ban_with_iptables() {
    fail2bans(
        "iptables-multiport",
        &[
            "refused by fail2ban (jail door): ip filter f2b-door: -A f2b-door -s 173.245.48.29/32 -j REJECT --reject-with icmp-port-unreachable → 521; 173.245.48.29/32 on 80/tcp 443/tcp",
            "refused by fail2ban (jail door): ip6 filter f2b-door: -A f2b-door -s 2400:cb00::9/128 -j REJECT --reject-with icmp6-port-unreachable → 521; 2400:cb00::9/128 on 80/tcp 443/tcp",
        ],
    );
}

#[test]
fn fail2ban_with_ipsets() {
    fail2bans(
        "iptables-ipset-proto6",
        &[
            "refused by fail2ban (jail door): ip filter INPUT: -A INPUT -p tcp -m multiport --dports 80,443 -m set --match-set f2b-door src -j REJECT --reject-with icmp-port-unreachable → 521; 173.245.48.29/32 on 80/tcp 443/tcp",
            "refused by fail2ban (jail door): ip6 filter INPUT: -A INPUT -p tcp -m multiport --dports 80,443 -m set --match-set f2b-door6 src -j REJECT --reject-with icmp6-port-unreachable → 521; 2400:cb00::9/128 on 80/tcp 443/tcp",
        ],
    );
}

/// What CrowdSec's nftables bouncer makes.
pub const CROWDSEC: &str = "\
table ip crowdsec {
    set crowdsec-blacklists { type ipv4_addr; flags interval, timeout; elements = { 173.245.48.29 timeout 4h, 104.23.0.0/16 timeout 4h }; }
    chain crowdsec-chain { type filter hook input priority filter - 10; policy accept; ip saddr @crowdsec-blacklists drop; }
}
table ip6 crowdsec6 {
    set crowdsec6-blacklists { type ipv6_addr; flags interval, timeout; elements = { 2400:cb00::9 timeout 4h }; }
    chain crowdsec6-chain { type filter hook input priority filter - 10; policy accept; ip6 saddr @crowdsec6-blacklists drop; }
}
";

/// Stands in for `cscli decisions delete --ip|--range X` and the bouncer that hears of it.
const CSCLI: &str = "#!/bin/sh
[ \"$1 $2\" = 'decisions delete' ] || exit 1
case $4 in
    *:*) exec nft delete element ip6 crowdsec6 crowdsec6-blacklists \"{ $4 }\" ;;
    *) exec nft delete element ip crowdsec crowdsec-blacklists \"{ $4 }\" ;;
esac
";

#[test]
fn crowdsec() {
    let (lab, report) = Host {
        setup: &|lab| {
            lab.feed(["nft", "-f", "-"], CROWDSEC);
            lab.write_file("/usr/bin/cscli", CSCLI);
            lab.chmod("/usr/bin/cscli", 0o755);
        },
        before: &[(EDGE4, 443, Reach::Timeout), (OTHER_EDGE4, 80, Reach::Timeout), (EDGE6, 443, Reach::Timeout)],
        says: &[
            "refused by CrowdSec: ip crowdsec crowdsec-chain: ip saddr @crowdsec-blacklists drop → 522; 104.23.0.0/16 173.245.48.29/32 on 80/tcp 443/tcp",
            "refused by CrowdSec: ip6 crowdsec6 crowdsec6-chain: ip6 saddr @crowdsec6-blacklists drop → 522; 2400:cb00::9/128 on 80/tcp 443/tcp",
        ],
    }
    .is_told(7);
    // One command for each decision; all of them are needed.
    for culprit in super::culprits(&report) {
        super::advice(culprit).iter().for_each(|command| follow(&lab, command));
    }
    verify(&lab, 0, &[]);
    assert!(lab.table(&[EDGE4, OTHER_EDGE4, EDGE6], &[80, 443]).all_accepted());
}
