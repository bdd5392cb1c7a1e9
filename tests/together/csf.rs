//! CSF, and native nftables rules beside it. Tried on the stand-in, and on a release of CSF where one is named (see
//! `tests/conformance/csf.rs`).

use super::{Blocker, Door, NATIVE, one_sync_opens};
use crate::{
    conformance::csf::{Csf, on_csf},
    lab::{EDGES, Lab},
};

on_csf! {
    blocked_by_a_deny_of_csfs,
    blocked_by_nftables_beside_csf,
    blocked_by_csf_and_nftables_at_once,
}

/// A CSF that lets everybody in but the strangers whom it bans.
fn host(kind: &Csf) -> Lab {
    let lab = Lab::new();
    kind.install(&lab);
    for ports in ["TCP_IN", "TCP6_IN"] {
        Csf::set(&lab, ports, "22,80,443");
    }
    Csf::restart(&lab);
    assert_eq!(Door::of_packets(&lab, &EDGES), Door::Open);
    lab
}

const DENY: Blocker = Blocker {
    backend: "csf",
    block: |lab| {
        let denied: String = EDGES.iter().map(|e| format!("{e} # lfd: (mod_security)\n")).collect();
        let deny = "/etc/csf/csf.deny";
        lab.write_file(deny, lab.read_file(deny) + &denied);
        Csf::restart(lab);
    },
    door: Door::of_packets,
};

fn blocked_by_a_deny_of_csfs(kind: &Csf) {
    one_sync_opens(&host(kind), &["csf"], &[&DENY]);
}

fn blocked_by_nftables_beside_csf(kind: &Csf) {
    one_sync_opens(&host(kind), &["csf"], &[&NATIVE]);
}

fn blocked_by_csf_and_nftables_at_once(kind: &Csf) {
    one_sync_opens(&host(kind), &["csf"], &[&DENY, &NATIVE]);
}
