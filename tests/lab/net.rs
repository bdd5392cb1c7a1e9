//! The wire between the host and the internet, addresses, and what listens on the host.

use std::{
    fmt::Write as _,
    fs::File,
    io::{ErrorKind, Write as _},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr},
    thread::JoinHandle,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{EDGES, Lab, STRANGERS, namespace::enter_network};

/// The host's address, IPv4.
pub const SERVER4: &str = "192.0.2.1";
/// The host's address, IPv6.
pub const SERVER6: &str = "2001:db8:2::1";
/// The other end of the wire, IPv4.
pub const CLIENT4: &str = "192.0.2.2";
/// The other end of the wire, IPv6.
pub const CLIENT6: &str = "2001:db8:2::2";

/// The hardware addresses are fixed and known to the other side beforehand, so that neither ARP nor neighbour
/// discovery is part of what a test judges.
const WIRE: &str = "\
link set lo up
link add s0 address 02:00:00:00:00:01 type veth peer name c0 address 02:00:00:00:00:02 netns /mnt/internet
addr add 192.0.2.1/24 dev s0
addr add 2001:db8:2::1/64 dev s0 nodad
link set s0 up
neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev s0 nud permanent
neigh replace 2001:db8:2::2 lladdr 02:00:00:00:00:02 dev s0 nud permanent
";
const FAR_END: &str = "\
link set lo up
link set c0 up
addr add 192.0.2.2/24 dev c0
addr add 2001:db8:2::2/64 dev c0 nodad
neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev c0 nud permanent
neigh replace 2001:db8:2::1 lladdr 02:00:00:00:00:01 dev c0 nud permanent
";

impl Lab {
    pub(super) fn connect_to_the_internet(&self) {
        self.command(["ip", "-batch", "-"]).stdin(WIRE).run().expect_ok();
        self.command(["ip", "-batch", "-"]).stdin(FAR_END).on_the_internet().run().expect_ok();
        self.internet_addresses(EDGES.into_iter().chain(STRANGERS));
    }

    /// Gives the internet another address to connect from.
    pub fn internet_address(&self, address: &str) {
        self.internet_addresses([address]);
    }

    /// Gives the internet more addresses to connect from.
    pub fn internet_addresses<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) {
        let (mut there, mut here) = (String::new(), String::new());
        let mut known = self.addresses.lock().expect("no panic elsewhere");
        for address in addresses {
            let ip: IpAddr = address.parse().unwrap_or_else(|_| panic!("{address} is not an address"));
            if !known.insert(address.to_owned()) {
                continue;
            }
            let (length, nodad, gateway) = if ip.is_ipv4() { (32, "", CLIENT4) } else { (128, " nodad", CLIENT6) };
            writeln!(there, "addr add {ip}/{length} dev c0{nodad}").expect("write to a string");
            writeln!(here, "route add {ip}/{length} via {gateway} dev s0").expect("write to a string");
        }
        if !there.is_empty() {
            self.command(["ip", "-batch", "-"]).stdin(there).on_the_internet().run().expect_ok();
            self.command(["ip", "-batch", "-"]).stdin(here).run().expect_ok();
        }
    }

    /// Lets something listen on a TCP port of the host, IPv4 and IPv6; it answers each connection with one byte.
    pub fn listen(&self, port: u16) {
        self.listen_on(self.inside(|| listening(port)));
    }

    /// The same in another network namespace, which this file of the lab's names.
    pub fn listen_in(&self, namespace: &str, port: u16) {
        let socket = self.inside(|| {
            enter_network(&File::open(namespace).unwrap_or_else(|e| panic!("cannot open {namespace}: {e}")));
            listening(port)
        });
        self.listen_on(socket);
    }

    fn listen_on(&self, socket: Socket) {
        self.listeners.lock().expect("no panic elsewhere").push(Listener::start(socket));
    }
}

fn listening(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).expect("make a socket");
    socket.set_only_v6(false).expect("listen on both families");
    socket.set_reuse_address(true).expect("reuse the address");
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).expect("bind");
    socket.listen(1024).expect("listen");
    socket
}

/// A listening socket, and the thread that answers.
pub struct Listener {
    socket: Socket,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(socket: Socket) -> Self {
        let accepting = socket.try_clone().expect("clone a socket");
        let thread = std::thread::spawn(move || {
            loop {
                match accepting.accept() {
                    // The client may be gone by now; that is its own affair.
                    Ok((mut connection, _)) => drop(connection.write_all(b".")),
                    // It is shut down (see below).
                    Err(e) if e.kind() == ErrorKind::InvalidInput => break,
                    // Of one connection, or of the moment.
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { socket, thread: Some(thread) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Wakes accept(2), which then answers EINVAL.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
