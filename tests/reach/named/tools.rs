//! ufw, firewalld and CSF.

use super::Host;
use crate::{
    conformance::{Kind as _, csf, firewalld, ufw::enable},
    lab::{EDGE4, EDGE6, Lab, Reach},
};

fn words(lab: &Lab, command: &str) {
    lab.run(command.split(' '));
}

#[test]
fn a_deny_of_ufws_before_the_allow() {
    Host {
        setup: &|lab| {
            enable(lab);
            words(lab, "ufw allow 80,443/tcp");
            words(lab, "ufw insert 1 deny from 173.245.48.0/24");
        },
        before: &[(EDGE4, 443, Reach::Timeout)],
        says: &["refused by UFW: ip filter ufw-user-input: -A ufw-user-input -s 173.245.48.0/24 -j DROP → 522; \
                 173.245.48.0/24 on 80/tcp 443/tcp"],
    }
    .is_told_and_mended(7);
}

#[test]
fn ufw_s_limit_is_a_rate() {
    let host = Host {
        setup: &|lab| {
            enable(lab);
            words(lab, "ufw allow 80/tcp");
            words(lab, "ufw limit 443/tcp");
        },
        before: &[(EDGE4, 80, Reach::Accepted), (EDGE4, 443, Reach::Accepted)],
        says: &[
            "throttled by UFW: ip filter ufw-user-input: -A ufw-user-input -p tcp -m tcp --dport 443 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --mask 255.255.255.255 --rsource -j ufw-user-limit [--update --seconds 30 --hitcount 6 --name DEFAULT --mask 255.255.255.255 --rsource] → 521; all on 443/tcp",
            "throttled by UFW: ip6 filter ufw6-user-input: -A ufw6-user-input -p tcp -m tcp --dport 443 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource -j ufw6-user-limit [--update --seconds 30 --hitcount 6 --name DEFAULT --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource] → 521; all on 443/tcp",
        ],
    };
    let (lab, _) = host.is_told(0);
    let often = (0..8).any(|_| lab.connect(EDGE4, 443) == Reach::Refused);
    assert!(often, "ufw lets six in within thirty seconds, and this was more\n{:?}", lab.rules());
    host.is_told_and_mended(0);
}

#[test]
fn the_default_zone_of_firewalld_without_the_service() {
    Host {
        setup: &|lab| {
            // firewalld drops what it couldn't answer.
            lab.run("ip route add default via 192.0.2.2".split(' '));
            lab.run("ip -6 route add default via 2001:db8:2::2".split(' '));
            firewalld::POLICY.setup(lab);
        },
        before: &[
            (EDGE4, 443, Reach::Other("No route to host (os error 113)".to_owned())),
            (EDGE6, 443, Reach::Other("Permission denied (os error 13)".to_owned())),
        ],
        says: &["refused by firewalld: inet firewalld filter_IN_mine: reject with icmpx admin-prohibited → 521; \
                 all on 80/tcp 443/tcp"],
    }
    .is_told_and_mended(7);
}

/// CSF that lets everybody in on 80 and 443, but for these lines of csf.deny.
fn csf_denies(lab: &Lab, allow: &str, deny: &str) {
    csf::STAND_IN.install(lab);
    for name in ["TCP_IN", "TCP6_IN"] {
        csf::Csf::set(lab, name, "22,80,443");
    }
    lab.write_file("/etc/csf/csf.allow", allow);
    lab.write_file("/etc/csf/csf.deny", deny);
    csf::Csf::restart(lab);
}

#[test]
fn a_deny_of_csfs() {
    Host {
        setup: &|lab| csf_denies(lab, "", "104.16.0.0/12 # far too much\n2400:cb00::9 # lfd\n"),
        before: &[("104.23.7.7", 443, Reach::Timeout), (EDGE6, 443, Reach::Timeout)],
        says: &[
            "refused by CSF: ip filter DENYIN: -A DENYIN -s 104.16.0.0/12 ! -i lo -j DROP → 522; 104.16.0.0/13 104.24.0.0/14 on 80/tcp 443/tcp",
            "refused by CSF: ip6 filter DENYIN: -A DENYIN -s 2400:cb00::9/128 ! -i lo -j DROP → 522; 2400:cb00::9/128 on 80/tcp 443/tcp",
        ],
    }
    .is_told_and_mended(7);
}

#[test]
fn a_deny_of_csfs_that_drops_only_the_answer() {
    // What is let in by a line of csf.allow for the way in alone is still denied its answer.
    Host {
        setup: &|lab| csf_denies(lab, "tcp|in|d=80,443|s=173.245.48.0/20\n", "173.245.48.29\n"),
        before: &[(EDGE4, 443, Reach::Timeout), (EDGE4, 80, Reach::Timeout)],
        says: &[
            "refused by CSF: ip filter DENYOUT: -A DENYOUT -d 173.245.48.29/32 ! -o lo -j DROP (answer) → 522; 173.245.48.29/32 on 80/tcp 443/tcp",
        ],
    }
    .is_told_and_mended(7);
}
