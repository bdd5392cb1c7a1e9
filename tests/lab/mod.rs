//! The lab: throwaway hosts, in which every packet filter runs for real and nothing reaches the machine.
//!
//! A [`Lab`] has its own network, mounts, processes, host name and IPC. `/etc`, `/var` and `/usr` are overlays whose
//! upper halves live in memory, `/run` is empty, and a second network namespace plays the internet, with real
//! Cloudflare source addresses and strangers. "Allowed" means that a TCP connection from there was answered.
//!
//! One process, the lab's pid 1, holds all of it: when it ends, the kernel ends every other process in the lab and
//! takes the mounts and interfaces away. It ends when the lab is dropped, and also when the test process dies in
//! whatever way, because it reads from a pipe that only that process has the other end of.
//!
//! Belongs here: hosts, packets, files, and pictures of rule sets. Does not: what a firewall should look like
//! (`tests/conformance`), or any knowledge of what edgeallow does.

mod command;
mod files;
mod namespace;
mod net;
mod probe;
mod rules;
mod stall;
mod tools;
mod volley;
mod watch;

use std::{collections::BTreeSet, sync::Mutex};

pub use command::Output;
pub use files::{Tree, diff};
pub use net::{CLIENT4, SERVER4, SERVER6};
pub use probe::{Reach, Table};
pub use rules::Rules;
pub use stall::since as stood_still_since;
pub use volley::{Doors, Outcome, Shot, Volley};

/// Cloudflare, IPv4: in 173.245.48.0/20.
pub const EDGE4: &str = "173.245.48.29";
/// Cloudflare, IPv4: in 104.16.0.0/13.
pub const OTHER_EDGE4: &str = "104.23.7.7";
/// Cloudflare, IPv6: in 2400:cb00::/32.
pub const EDGE6: &str = "2400:cb00::9";
/// Nobody in particular, IPv4.
pub const STRANGER4: &str = "203.0.113.9";
/// Nobody in particular, IPv6.
pub const STRANGER6: &str = "2001:db8:bad::9";
/// Every Cloudflare address that the internet starts with.
pub const EDGES: [&str; 3] = [EDGE4, OTHER_EDGE4, EDGE6];
/// Every stranger that the internet starts with.
pub const STRANGERS: [&str; 2] = [STRANGER4, STRANGER6];
/// The ports that something listens on from the start.
pub const LISTENING: [u16; 4] = [22, 80, 443, 8443];

/// What the lab has changed of `/usr` so far: the upper half of the overlay. `/usr` itself is too large to compare.
pub const CHANGED_IN_USR: &str = "/mnt/usr/upper";
/// What the lab has changed of `/var` so far.
pub const CHANGED_IN_VAR: &str = "/mnt/var/upper";

/// A throwaway host, and the internet that it is connected to.
pub struct Lab {
    listeners: Mutex<Vec<net::Listener>>,
    addresses: Mutex<BTreeSet<String>>,
    // Last, so that it is dropped last: listeners keep the network namespace alive.
    namespaces: namespace::Namespaces,
}

impl Lab {
    /// A host without firewall rules, with something listening on [`LISTENING`].
    ///
    /// # Panics
    /// Where no lab can be made, saying what is missing. A test that can't run must fail.
    pub fn new() -> Self {
        let lab = Self::without_listeners();
        for port in LISTENING {
            lab.listen(port);
        }
        lab
    }

    /// The same with nothing that listens.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn without_listeners() -> Self {
        namespace::check_prerequisites();
        // Here, where its thread is in no lab's namespaces, which it would keep alive.
        stall::watch();
        let namespaces = namespace::Namespaces::new();
        let lab = Self { namespaces, listeners: Mutex::default(), addresses: Mutex::default() };
        lab.hide_tools();
        lab.hide_logs();
        lab.connect_to_the_internet();
        lab
    }

    /// Runs something in the lab: its files, its network, and children in its process table.
    ///
    /// Threads can't be started in there, because the kernel wants all threads of a process in one process table.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespaces.inside(work)
    }

    /// The same on the far end of the wire.
    pub fn on_the_internet<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespaces.on_the_internet(work)
    }

    /// The far end of the wire, for threads of a test that stay there.
    pub fn internet(&self) -> Internet {
        Internet(self.namespaces.internet().try_clone().expect("one more handle"))
    }

    /// The process id of the lab's pid 1, as the test process sees it.
    pub fn init(&self) -> u32 {
        self.namespaces.init()
    }
}

/// The far end of the wire: a network, and nothing else of the lab.
pub struct Internet(std::fs::File);

impl Internet {
    /// Moves the calling thread there, and those that it starts from now on.
    pub fn enter(&self) {
        namespace::enter_network(&self.0);
    }
}
