//! Many connections at once, each judged by what a handshake and one exchange after it need.
//!
//! One thread plays clients and servers in turns, so that nothing depends on when another thread is scheduled: what the
//! packet filter lets pass has passed within microseconds, and the rest never will.
//!
//! Belongs here: sockets and what became of them. Does not: what was to be expected.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Lab,
    net::{SERVER4, SERVER6},
};

/// What a server says to whom it accepts, and what a client answers: the client's is sent back.
const GREETING: &[u8] = b".";
const ANSWER: &[u8] = b"x";
/// How often everybody is given a turn.
const TURN: Duration = Duration::from_millis(1);
/// What one round counts for at most: a machine that stands still for a second has given nobody a second's turns.
const ROUND: Duration = Duration::from_millis(20);

/// One connection to try: from this address to this port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shot {
    /// The client's address, which the internet must have.
    pub from: IpAddr,
    /// The port.
    pub port: u16,
}

/// How a connection fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Connected, greeted, and what the client said came back.
    Accepted,
    /// The first packet was answered by a reset or by ICMP.
    Refused,
    /// Nothing came back.
    Silence,
    /// Connected as the client sees it, and then nothing, or a reset.
    Stuck,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "connected and answered",
            Self::Refused => "refused",
            Self::Silence => "no answer",
            Self::Stuck => "connected and then stuck",
        })
    }
}

/// Sockets that listen, in whichever network namespaces they were made.
#[derive(Default)]
pub struct Doors(Vec<Socket>);

impl Doors {
    /// Opens a TCP port of both families in the calling thread's network namespace.
    pub fn open(&mut self, port: u16) {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).expect("make a socket");
        socket.set_only_v6(false).expect("listen on both families");
        socket.set_reuse_address(true).expect("reuse the address");
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).expect("bind");
        socket.listen(4096).expect("listen");
        socket.set_nonblocking(true).expect("no waiting");
        self.0.push(socket);
    }
}

/// What shoots: the internet's ears for ICMP, and a source port for each shot that no other ever had, so that what
/// connection tracking remembers of one never meets another.
pub struct Volley<'a> {
    lab: &'a Lab,
    doors: Doors,
    icmp4: Socket,
    icmp6: Socket,
    next_port: u16,
}

struct Client {
    shot: Shot,
    socket: Socket,
    port: u16,
    greeted: bool,
}

impl<'a> Volley<'a> {
    /// On this lab, whose servers are these.
    pub fn new(lab: &'a Lab, doors: Doors) -> Self {
        let (icmp4, icmp6) = lab.on_the_internet(|| {
            let ear = |domain, protocol| {
                let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("make a raw socket");
                socket.set_nonblocking(true).expect("no waiting");
                socket
            };
            (ear(Domain::IPV4, Protocol::ICMPV4), ear(Domain::IPV6, Protocol::ICMPV6))
        });
        Self { lab, doors, icmp4, icmp6, next_port: 1024 }
    }

    /// Tries them all at once. What is not decided after `patience`, counted in turns that everybody had, never will be: the
    /// next try of TCP comes after a second.
    pub fn fire(&mut self, shots: &[Shot], patience: Duration) -> HashMap<Shot, Outcome> {
        // What is left of the last time is no answer to this one.
        self.rejects();
        self.callers();
        let mut waiting = self.connect(shots);
        let (mut waited, mut round) = (Duration::ZERO, Instant::now());
        let mut outcomes = HashMap::new();
        let mut servers = Vec::new();
        let mut rejected = HashSet::new();
        while !waiting.is_empty() {
            waited += round.elapsed().min(ROUND);
            round = Instant::now();
            let late = waited >= patience;
            rejected.extend(self.rejects());
            servers.extend(self.callers());
            servers.retain_mut(|s| !echo(s));
            waiting.retain_mut(|client| match client.turn(&rejected, late) {
                Some(outcome) => {
                    outcomes.insert(client.shot, outcome);
                    false
                }
                None => true,
            });
            std::thread::sleep(TURN);
        }
        outcomes
    }

    fn connect(&mut self, shots: &[Shot]) -> Vec<Client> {
        let first = self.next_port;
        let ports: Vec<u16> = (0..shots.len()).map(|_| self.port()).collect();
        assert!(first <= self.next_port || shots.len() < 40_000, "more shots than ports");
        self.lab.on_the_internet(|| {
            let pairs = shots.iter().zip(&ports);
            pairs
                .map(|(shot, port)| {
                    let (domain, to) = match shot.from {
                        IpAddr::V4(_) => (Domain::IPV4, SERVER4),
                        IpAddr::V6(_) => (Domain::IPV6, SERVER6),
                    };
                    let to: IpAddr = to.parse().expect("the host's address");
                    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("make a socket");
                    socket.set_linger(Some(Duration::ZERO)).expect("leave nothing behind");
                    socket.set_nonblocking(true).expect("no waiting");
                    if let Err(e) = socket.bind(&SocketAddr::new(shot.from, *port).into()) {
                        panic!("the internet has no address {} or its port {port} is taken: {e}", shot.from);
                    }
                    // It is under way, or has failed at once, which the first read tells.
                    let _ = socket.connect(&SocketAddr::new(to, shot.port).into());
                    Client { shot: *shot, socket, port: *port, greeted: false }
                })
                .collect()
        })
    }

    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(1024);
        port
    }

    /// Who came in at the doors since the last turn, greeted.
    fn callers(&self) -> Vec<Socket> {
        let mut callers = Vec::new();
        for door in &self.doors.0 {
            while let Ok((mut caller, _)) = door.accept() {
                let ready = caller.set_nonblocking(true).and_then(|()| caller.set_linger(Some(Duration::ZERO)));
                // The client may be gone by now; that is its own affair.
                if ready.and_then(|()| caller.write_all(GREETING)).is_ok() {
                    callers.push(caller);
                }
            }
        }
        callers
    }

    /// Whose packets were answered by ICMP since the last turn: addresses and ports of clients.
    fn rejects(&mut self) -> Vec<(IpAddr, u16)> {
        let mut rejects = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = self.icmp4.read(&mut buffer) {
            rejects.extend(unreachable4(&buffer[..length]));
        }
        while let Ok(length) = self.icmp6.read(&mut buffer) {
            rejects.extend(unreachable6(&buffer[..length]));
        }
        rejects
    }
}

impl Client {
    fn turn(&mut self, rejected: &HashSet<(IpAddr, u16)>, late: bool) -> Option<Outcome> {
        let connected = self.socket.peer_addr().is_ok();
        let mut byte = [0];
        match self.socket.read(&mut byte) {
            Ok(1) if self.greeted && byte == ANSWER => return Some(Outcome::Accepted),
            Ok(1) if !self.greeted && byte == GREETING => {
                self.greeted = true;
                // A failure shows at the next read.
                let _ = self.socket.write_all(ANSWER);
                return None;
            }
            Ok(_) => return Some(Outcome::Stuck),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => return Some(Outcome::Refused),
            Err(e) if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::NotConnected => {}
            Err(e) if self.greeted || e.kind() == ErrorKind::ConnectionReset => return Some(Outcome::Stuck),
            // ICMP's other reasons: no route, forbidden.
            Err(_) => return Some(Outcome::Refused),
        }
        if !connected && rejected.contains(&(self.shot.from, self.port)) {
            return Some(Outcome::Refused);
        }
        late.then_some(if connected { Outcome::Stuck } else { Outcome::Silence })
    }
}

/// Sends back what a client said; whether it is done with that.
fn echo(server: &mut Socket) -> bool {
    let mut byte = [0];
    match server.read(&mut byte) {
        Ok(1) => {
            // Not done: closing it here would take the byte back.
            let _ = server.write_all(&byte);
            false
        }
        Ok(_) => true,
        Err(e) => e.kind() != ErrorKind::WouldBlock,
    }
}

/// The client's address and port in what an ICMP "destination unreachable" quotes (RFC 792). The packet begins with its IP header.
fn unreachable4(packet: &[u8]) -> Option<(IpAddr, u16)> {
    let header = |p: &[u8]| p.first().map(|b| usize::from(b & 15) * 4);
    let icmp = packet.get(header(packet)?..)?;
    let quoted = (*icmp.first()? == 3).then_some(icmp.get(8..)?)?;
    let from: [u8; 4] = quoted.get(12..16)?.try_into().ok()?;
    let ports = quoted.get(header(quoted)?..)?;
    Some((Ipv4Addr::from(from).into(), u16::from_be_bytes(ports.get(..2)?.try_into().ok()?)))
}

/// The same of ICMPv6 (RFC 4443, type 1), which the kernel hands over without its IP header.
fn unreachable6(icmp: &[u8]) -> Option<(IpAddr, u16)> {
    let quoted = (*icmp.first()? == 1).then_some(icmp.get(8..)?)?;
    let from: [u8; 16] = quoted.get(8..24)?.try_into().ok()?;
    Some((Ipv6Addr::from(from).into(), u16::from_be_bytes(quoted.get(40..42)?.try_into().ok()?)))
}
