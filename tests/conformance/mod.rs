//! One suite, every backend: what each of them must make true, judged by packets and by comparing bytes.
//!
//! To add a backend: implement [`Kind`] in a file here, and name it in the macro and the list below. A backend in edgeallow's
//! registry that no kind covers fails `every_backend_is_covered`.
//!
//! Belongs here: what holds for every backend. Does not: what is particular to one (`tests/packets`, `tests/hosts`).

/// Makes a test of each of these functions for each kind of host, so that each has a name and a verdict of its own.
macro_rules! on_every_kind {
    ($($claim:ident),* $(,)?) => {
        crate::conformance::on_each_backend! { $($claim),* }
        crate::conformance::on_each_backend! { @ firewalld_dropping_zone, firewalld::DROPPING_ZONE, $($claim),* }
        crate::conformance::on_each_backend! { @ firewalld_zone, firewalld::ZONE, $($claim),* }
    };
}

/// The same with one kind of firewalld host instead of three, which take the processor for seconds a run.
macro_rules! on_each_backend {
    ($($claim:ident),* $(,)?) => {
        crate::conformance::on_each_backend! { @ firewalld_policy, firewalld::POLICY, $($claim),* }
        crate::conformance::on_each_quick_backend! { $($claim),* }
    };
    (@ $name:ident, $module:ident::$kind:ident, $($claim:ident),*) => {
        crate::conformance::on_each_quick_backend! { @ $name, $module::$kind, $($claim),* }
    };
}
pub(crate) use on_each_backend;

/// The same without firewalld: for what is tried dozens of times over. With the feature `thorough` firewalld is there.
macro_rules! on_each_quick_backend {
    ($($claim:ident),* $(,)?) => {
        crate::conformance::on_each_quick_backend! { @ nftables_with_include, nftables::WITH_INCLUDE, $($claim),* }
        crate::conformance::on_each_quick_backend! { @ nftables_with_systemd, nftables::WITH_SYSTEMD, $($claim),* }
        crate::conformance::on_each_quick_backend! { @ iptables_nft, iptables::NFT, $($claim),* }
        crate::conformance::on_each_quick_backend! { @ iptables_legacy, iptables::LEGACY, $($claim),* }
        crate::conformance::on_each_quick_backend! { @ ufw, ufw::UFW, $($claim),* }
        crate::conformance::on_each_quick_backend! { @ csf_stand_in, csf::STAND_IN, $($claim),* }
        #[cfg(csf_release)]
        crate::conformance::on_each_quick_backend! { @ csf_release, csf::RELEASE, $($claim),* }
    };
    (@ $name:ident, $module:ident::$kind:ident, $($claim:ident),*) => {
        mod $name {
            $(#[test] fn $claim() { super::$claim(&crate::conformance::$module::$kind); })*
        }
    };
}
pub(crate) use on_each_quick_backend;

mod claims;
pub mod csf;
pub mod firewalld;
pub mod iptables;
pub mod nftables;
pub mod ufw;

use crate::lab::{Lab, Rules};

/// A host that some packet filter or tool guards, and what can happen to it.
pub trait Kind: Sync {
    /// The backend's name in the registry.
    fn backend(&self) -> &'static str;

    /// A firewall as an administrator sets it up: it drops by default, lets everybody in on port 22, has rules
    /// before and after the place where ours belong, and bans a stranger. Cloudflare is refused on 80 and 443.
    fn setup(&self, lab: &Lab);

    /// Ways to damage what is ours, after a sync. Each gets a host of its own.
    fn drifts(&self) -> Vec<Drift>;

    /// What the tool's own command or service does when the administrator reloads it.
    fn reload(&self, lab: &Lab);

    /// The machine starts again: nothing is left of what was live, and the services load what is stored.
    fn boot(&self, lab: &Lab);

    /// Whether a line of a rule set or of a file is ours, though the tag doesn't stand in it.
    fn ours_without_tag(&self, _line: &str) -> bool {
        false
    }

    /// The folder that a sync writes to.
    fn folder(&self) -> &'static str;

    /// Every rule set but for what is ours.
    fn foreign_rules(&self, lab: &Lab) -> Rules {
        let all = lab.foreign_rules().0;
        Rules(all.lines().filter(|l| !self.ours_without_tag(l)).map(|l| format!("{l}\n")).collect())
    }
}

/// One way to damage what is ours.
pub struct Drift {
    /// In words, for the test's message.
    pub what: &'static str,
    /// Does it.
    pub harm: Box<dyn Fn(&Lab)>,
}

impl Drift {
    fn new(what: &'static str, harm: impl Fn(&Lab) + 'static) -> Self {
        Self { what, harm: Box::new(harm) }
    }
}

/// A host with its firewall.
fn host(kind: &dyn Kind) -> Lab {
    let lab = Lab::new();
    kind.setup(&lab);
    lab
}

/// Every kind of host in the suite.
pub const KINDS: [&dyn Kind; 9] = [
    &nftables::WITH_INCLUDE,
    &nftables::WITH_SYSTEMD,
    &iptables::NFT,
    &iptables::LEGACY,
    &ufw::UFW,
    &csf::STAND_IN,
    &firewalld::POLICY,
    &firewalld::DROPPING_ZONE,
    &firewalld::ZONE,
];

#[test]
fn every_backend_is_covered() {
    let report = Lab::new().edgeallow(["backends", "--format", "json"]).expect_ok().json();
    let backends = report["backends"].as_array().expect("a list of backends");
    assert!(!backends.is_empty());
    for backend in backends {
        let name = backend["name"].as_str().expect("a backend's name");
        let covered = KINDS.iter().any(|k| k.backend() == name) || crate::above::BACKENDS.contains(&name);
        assert!(covered, "no kind in tests/conformance, and no room of tests/above, covers the backend {name}");
    }
}
