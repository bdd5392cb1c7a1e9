//! firewalld, and native nftables rules beside it.

use super::{Blocker, Door, NATIVE, one_sync_opens};
use crate::{
    conformance::{
        Kind as _,
        firewalld::{POLICY, cmd},
    },
    lab::{EDGES, Lab},
};

/// Both what runs and what is stored, or a reload would forget it and be refused.
fn services(lab: &Lab, verb: &str) {
    let services = [format!("--{verb}-service=http"), format!("--{verb}-service=https")];
    cmd(lab, &[&services[0], &services[1]]);
    cmd(lab, &["--permanent", &services[0], &services[1]]);
}

/// A firewalld that lets everybody in but the strangers whom it bans.
fn host() -> Lab {
    let lab = Lab::new();
    POLICY.setup(&lab);
    services(&lab, "add");
    assert_eq!(Door::of_packets(&lab, &EDGES), Door::Open);
    lab
}

const ZONE: Blocker = Blocker { backend: "firewalld", block: |lab| services(lab, "remove"), door: Door::of_packets };

#[test]
fn blocked_by_a_zone_of_firewallds() {
    one_sync_opens(&host(), &["firewalld"], &[&ZONE]);
}

#[test]
fn blocked_by_nftables_beside_firewalld() {
    one_sync_opens(&host(), &["firewalld"], &[&NATIVE]);
}

#[test]
fn blocked_by_firewalld_and_nftables_at_once() {
    one_sync_opens(&host(), &["firewalld"], &[&ZONE, &NATIVE]);
}
