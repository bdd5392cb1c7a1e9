//! Real TCP connections from the internet to the host: the only thing that decides whether something is allowed.

use std::{
    collections::BTreeMap,
    fmt,
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Lab,
    namespace::{enter_network, on_a_thread},
    net::{SERVER4, SERVER6},
    stall,
};

/// A second SYN would go out after one second; a verdict is clear before that.
const PATIENCE4: Duration = Duration::from_millis(700);
/// Over veth an IPv6 connect(2) heeds an ICMP reject only at its second SYN, so that one is waited for.
const PATIENCE6: Duration = Duration::from_millis(1500);

/// How an attempt to connect ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The listener answered.
    Accepted,
    /// Refused by RST or by ICMP port unreachable: what Cloudflare calls a 521.
    Refused,
    /// Nothing came back: what Cloudflare calls a 522.
    Timeout,
    /// Something else, in the operating system's words.
    Other(String),
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.pad("accepted"),
            Self::Refused => f.pad("refused"),
            Self::Timeout => f.pad("timeout"),
            Self::Other(why) => f.pad(why),
        }
    }
}

/// Who reaches which port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table(pub BTreeMap<(String, u16), Reach>);

impl Table {
    /// Whether every attempt was answered.
    pub fn all_accepted(&self) -> bool {
        self.0.values().all(|r| *r == Reach::Accepted)
    }

    /// Whether no attempt was answered.
    pub fn none_accepted(&self) -> bool {
        self.0.values().all(|r| *r != Reach::Accepted)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((from, port), reach) in &self.0 {
            write!(f, "\n  {from:18} → {port:<5} {reach}")?;
        }
        Ok(())
    }
}

impl Lab {
    /// One connection from an address of the internet to a port of the host.
    pub fn connect(&self, from: &str, port: u16) -> Reach {
        let internet = self.namespaces.internet();
        on_a_thread(|| {
            enter_network(internet);
            connect(from, port)
        })
    }

    /// From each of these addresses to each of these ports, all at once.
    pub fn table(&self, from: &[&str], ports: &[u16]) -> Table {
        let internet = self.namespaces.internet();
        let attempts: Vec<_> = from.iter().flat_map(|f| ports.iter().map(move |p| (*f, *p))).collect();
        Table(std::thread::scope(|scope| {
            let running: Vec<_> = attempts
                .into_iter()
                .map(|(from, port)| {
                    let attempt = move || {
                        enter_network(internet);
                        connect(from, port)
                    };
                    ((from.to_owned(), port), scope.spawn(attempt))
                })
                .collect();
            running.into_iter().map(|(key, thread)| (key, thread.join().expect("a probe"))).collect()
        }))
    }
}

fn connect(from: &str, port: u16) -> Reach {
    let mut reach = Reach::Timeout;
    for _ in 0..5 {
        let start = Instant::now();
        reach = connect_once(from, port);
        if reach != Reach::Timeout || !stall::since(start) {
            break;
        }
    }
    reach
}

fn connect_once(from: &str, port: u16) -> Reach {
    let from: IpAddr = from.parse().unwrap_or_else(|_| panic!("{from} is not an address"));
    let (domain, to, patience) = match from {
        IpAddr::V4(_) => (Domain::IPV4, SERVER4, PATIENCE4),
        IpAddr::V6(_) => (Domain::IPV6, SERVER6, PATIENCE6),
    };
    let to: IpAddr = to.parse().expect("the host's address");
    let mut socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("make a socket");
    if let Err(e) = socket.bind(&SocketAddr::new(from, 0).into()) {
        panic!("the internet has no address {from}: {e}");
    }
    if let Err(e) = socket.connect_timeout(&SocketAddr::new(to, port).into(), patience) {
        // Whoever gets his turn too late finds the time over, and the answer may be there all the same.
        let late = if e.kind() == ErrorKind::TimedOut { socket.take_error().ok().flatten() } else { None };
        let e = late.unwrap_or(e);
        match e.kind() {
            ErrorKind::ConnectionRefused => return Reach::Refused,
            ErrorKind::TimedOut if socket.peer_addr().is_ok() => {}
            ErrorKind::TimedOut => return Reach::Timeout,
            _ => return Reach::Other(e.to_string()),
        }
    }
    // Connected is allowed; the byte only needs the listener's thread to get a turn, on a machine however busy.
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set a timeout");
    match socket.read(&mut [0]) {
        Ok(1) => Reach::Accepted,
        Ok(_) => Reach::Other("closed without an answer".to_owned()),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Reach::Timeout,
        Err(e) => Reach::Other(e.to_string()),
    }
}
