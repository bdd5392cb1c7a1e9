//! Native nftables beside iptables. That whole firewalls of both kinds are opened is in `tests/packets`.

use super::{Blocker, Door, NATIVE, one_sync_opens};
use crate::lab::Lab;

const IPTABLES: Blocker = Blocker {
    backend: "iptables",
    block: |lab| {
        for program in ["iptables", "ip6tables"] {
            let rule = "-A INPUT -p tcp -m multiport --dports 80,443 -j DROP";
            lab.run([program].into_iter().chain(rule.split(' ')));
        }
    },
    door: Door::of_packets,
};

#[test]
fn blocked_by_native_nftables() {
    one_sync_opens(&Lab::new(), &[], &[&NATIVE]);
}

#[test]
fn blocked_by_iptables() {
    one_sync_opens(&Lab::new(), &[], &[&IPTABLES]);
}

#[test]
fn blocked_by_nftables_and_iptables_at_once() {
    one_sync_opens(&Lab::new(), &[], &[&NATIVE, &IPTABLES]);
}
