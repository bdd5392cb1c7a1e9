//! A web server with UFW, fail2ban, and Apache with mod_evasive.

use super::{Blocker, Door, one_sync_opens};
use crate::{
    above::{fail2ban, mod_evasive},
    conformance::ufw,
    lab::{EDGES, Lab, STRANGERS},
};

const PRESENT: [&str; 3] = ["ufw", "fail2ban", "mod_evasive"];

/// All three at work, and nobody turned away yet. Apache is on a port of its own (see there).
fn host() -> Lab {
    let lab = Lab::new();
    ufw::enable(&lab);
    lab.run(["ufw", "allow", "80,443,8080/tcp"]);
    fail2ban::install(&lab, fail2ban::JAILS);
    fail2ban::start(&lab);
    mod_evasive::install(&lab);
    mod_evasive::start(&lab);
    assert_eq!(Door::of_packets(&lab, &EDGES), Door::Open);
    lab
}

const UFW: Blocker = Blocker {
    backend: "ufw",
    block: |lab| drop(lab.run(["ufw", "prepend", "deny", "proto", "tcp", "to", "any", "port", "80,443"])),
    door: Door::of_packets,
};

const FAIL2BAN: Blocker = Blocker {
    backend: "fail2ban",
    block: |lab| fail2ban::attack_until_banned(lab, &[EDGES.as_slice(), &STRANGERS].concat()),
    door: Door::of_packets,
};

/// It counts requests, so whoever knocks like this is refused. It knows no IPv6.
const APACHE: Blocker = Blocker {
    backend: "mod_evasive",
    block: |_| {},
    door: |lab, from| {
        let from: Vec<_> = from.iter().filter(|a| !a.contains(':')).collect();
        match from.iter().filter(|a| mod_evasive::refused(lab, a) > 0).count() {
            0 => Door::Open,
            shut if shut == from.len() => Door::Shut,
            _ => Door::Ajar,
        }
    },
};

fn blocked_by(blockers: &[&Blocker]) {
    let lab = host();
    one_sync_opens(&lab, &PRESENT, blockers);
}

#[test]
fn blocked_by_a_deny_of_ufws() {
    blocked_by(&[&UFW]);
}

#[test]
fn blocked_by_a_ban_of_fail2bans() {
    blocked_by(&[&FAIL2BAN]);
}

#[test]
fn blocked_by_mod_evasives_counter() {
    blocked_by(&[&APACHE]);
}

#[test]
fn blocked_by_ufw_and_fail2ban_at_once() {
    // In this order, so that it is the ban which is waited for.
    blocked_by(&[&FAIL2BAN, &UFW]);
}

#[test]
fn blocked_by_all_three_at_once() {
    blocked_by(&[&APACHE, &FAIL2BAN, &UFW]);
}
