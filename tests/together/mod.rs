//! Hosts on which more than one tool can turn Cloudflare away: each of them in turn, two at once, and one `sync` of
//! `auto` that has to open them all.
//!
//! Belongs here: what several tools do to one door. Does not: what is particular to one of them (`tests/above`,
//! `tests/packets`, `tests/tools`).

mod csf;
mod fighting;
mod firewalld;
mod instances;
mod nftables_and_iptables;
mod web_server;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    above::mod_evasive,
    lab::{EDGES, Lab, STRANGERS},
    quiet::expect_quiet,
    run::{PORTS, expect_status, part_of, sync},
};

/// A tool, and how it comes to turn everybody away.
pub struct Blocker {
    /// The backend whose affair it is.
    pub backend: &'static str,
    /// Lets it turn Cloudflare and strangers away.
    pub block: fn(&Lab),
    /// How it treats these.
    pub door: fn(&Lab, &[&str]) -> Door,
}

/// Whether some addresses get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// All of them.
    Open,
    /// None of them.
    Shut,
    /// Some.
    Ajar,
}

impl Door {
    /// Judged by connections to 80 and 443.
    pub fn of_packets(lab: &Lab, from: &[&str]) -> Self {
        let table = lab.table(from, &PORTS);
        match (table.all_accepted(), table.none_accepted()) {
            (true, _) => Self::Open,
            (_, true) => Self::Shut,
            _ => Self::Ajar,
        }
    }
}

/// Native nftables rules beside whatever else there is, which drop everybody on 80 and 443.
pub const NATIVE: Blocker = Blocker {
    backend: "nftables",
    block: |lab| {
        let chain = "type filter hook input priority -5; policy accept; tcp dport { 80, 443 } drop";
        lab.feed(["nft", "-f", "-"], &format!("table inet guard {{ chain in {{ {chain}; }}; }}"));
    },
    door: Door::of_packets,
};

/// These turn Cloudflare away; one `sync` opens the door to it and to nobody else, and the next has nothing to do.
/// `present` are the backends that such a host has anyway.
pub fn one_sync_opens(lab: &Lab, present: &[&str], blockers: &[&Blocker]) {
    for blocker in blockers {
        (blocker.block)(lab);
        expect_door(lab, blocker, &EDGES, Door::Shut, "before the sync");
    }
    let workers = mod_evasive::workers(lab);
    let report = sync(lab, &[]);
    if !workers.is_empty() {
        // Apache goes on with what it was told after the sync has ended.
        mod_evasive::await_workers(lab, &workers);
    }
    let backends: Vec<_> = present.iter().copied().chain(blockers.iter().map(|b| b.backend)).collect();
    for backend in &backends {
        assert_eq!(part_of(&report, backend)["state"], "applied", "{report:#}");
    }
    let as_wanted = |when| {
        for blocker in blockers {
            expect_door(lab, blocker, &EDGES, Door::Open, when);
            expect_door(lab, blocker, &STRANGERS, Door::Shut, when);
        }
    };
    as_wanted("after the sync");
    expect_quiet(lab, &backends);
    as_wanted("after the second sync");
    expect_status(lab, 0);
}

fn expect_door(lab: &Lab, blocker: &Blocker, from: &[&str], expected: Door, when: &str) {
    // A ban comes some time after what it is for.
    let start = Instant::now();
    loop {
        let door = (blocker.door)(lab, from);
        if door == expected {
            return;
        }
        let backend = blocker.backend;
        assert!(
            start.elapsed() < Duration::from_secs(90),
            "{when}, of {backend}: the door is {door:?} to {from:?}, not {expected:?}\n{:?}",
            lab.rules()
        );
        sleep(Duration::from_millis(200));
    }
}
