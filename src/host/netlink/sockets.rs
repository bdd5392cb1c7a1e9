//! Sockets that listen, and who is connected to them: sock_diag (linux/sock_diag.h, linux/inet_diag.h,
//! linux/unix_diag.h, sock_diag(7)).
//!
//! Belongs here: the question and the layout of its answer. Does not: whose sockets they are ([`crate::host`]).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{
    attr::{find, string},
    socket::{Socket, failed, refused},
};
use crate::{
    error::Result,
    host::{Connection, ListenSocket, UnixListener},
};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN` of net/tcp_states.h, as a bit.
const LISTEN: u32 = 1 << 10;
/// `TCP_ESTABLISHED`, likewise.
const ESTABLISHED: u32 = 1 << 1;
/// Lengths of `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
/// `INET_DIAG_SKV6ONLY`; asked for always, told of IPv6 sockets.
const V6_ONLY: u16 = 11;
/// Lengths of `struct unix_diag_req` and `struct unix_diag_msg`.
const UNIX_REQUEST: usize = 24;
const UNIX_MESSAGE: usize = 16;
/// `UDIAG_SHOW_NAME` and `UDIAG_SHOW_RQLEN`, and the attributes that they ask for.
const UNIX_SHOW: u32 = 1 | 0x10;
const UNIX_NAME: u16 = 0;
const UNIX_QUEUE: u16 = 4;

/// Every TCP socket that listens in the calling thread's network namespace, without the programs that hold them.
///
/// # Errors
/// `netlink`; `race-lost` if the list changed while it was read.
pub fn listeners() -> Result<Vec<ListenSocket>> {
    let mut found = Vec::new();
    tcp(LISTEN, &mut |body| found.extend(listener(body)))?;
    found.sort_by_key(|l: &ListenSocket| (l.address.port(), l.address));
    Ok(found)
}

/// Every established TCP connection to one of these ports of this host.
///
/// # Errors
/// As [`listeners`].
pub fn connections(ports: &BTreeSet<u16>) -> Result<Vec<Connection>> {
    let mut found = Vec::new();
    tcp(ESTABLISHED, &mut |body| found.extend(connection(body).filter(|c| ports.contains(&c.port))))?;
    Ok(found)
}

/// Every stream socket of the Unix family that listens, in the calling thread's network namespace.
///
/// # Errors
/// As [`listeners`].
pub fn unix_listeners() -> Result<Vec<UnixListener>> {
    let socket = Socket::open_diag().map_err(|e| failed("open a netlink socket", &e))?;
    let mut request = [0; UNIX_REQUEST];
    request[0] = libc::AF_UNIX as u8;
    request[4..8].copy_from_slice(&LISTEN.to_ne_bytes());
    request[12..16].copy_from_slice(&UNIX_SHOW.to_ne_bytes());
    let mut found = Vec::new();
    let refusal = socket.ask_raw(BY_FAMILY, libc::NLM_F_DUMP, &request, &mut |m| {
        found.extend(unix_listener(m.body));
        Ok(())
    })?;
    match refusal {
        // A kernel without that part.
        None | Some(libc::ENOENT) => Ok(found),
        Some(errno) => Err(refused("list sockets", errno)),
    }
}

/// Every TCP socket of both families in one of these states.
fn tcp(states: u32, each: &mut dyn FnMut(&[u8])) -> Result<()> {
    let socket = Socket::open_diag().map_err(|e| failed("open a netlink socket", &e))?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0; REQUEST];
        request[..2].copy_from_slice(&[family as u8, libc::IPPROTO_TCP as u8]);
        request[4..8].copy_from_slice(&states.to_ne_bytes());
        let refusal = socket.ask_raw(BY_FAMILY, libc::NLM_F_DUMP, &request, &mut |m| {
            each(m.body);
            Ok(())
        })?;
        match refusal {
            // A kernel without that family.
            None | Some(libc::ENOENT) => {}
            Some(errno) => return Err(refused("list sockets", errno)),
        }
    }
    Ok(())
}

fn connection(body: &[u8]) -> Option<Connection> {
    let message = body.get(..MESSAGE)?;
    Some(Connection {
        port: u16::from_be_bytes(*message.get(4..)?.first_chunk()?),
        inode: u32::from_ne_bytes(*message.get(68..)?.first_chunk()?),
    })
}

fn unix_listener(body: &[u8]) -> Option<UnixListener> {
    let inode = u32::from_ne_bytes(*body.get(4..UNIX_MESSAGE)?.first_chunk()?);
    let attrs = body.get(UNIX_MESSAGE..)?;
    // struct unix_diag_rqlen; of a listening socket: who waits, and sk_max_ack_backlog (net/unix/diag.c).
    let queue = find(attrs, UNIX_QUEUE)?;
    let word = |at: usize| queue.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b));
    Some(UnixListener {
        path: string(attrs, UNIX_NAME).unwrap_or_default(),
        waiting: word(0)?,
        backlog: word(4)?,
        inode,
    })
}

fn listener(body: &[u8]) -> Option<ListenSocket> {
    let message = body.get(..MESSAGE)?;
    let word = |at: usize| message.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b));
    let port = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
    let source = message.get(8..)?;
    let ip = match i32::from(*message.first()?) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*source.first_chunk::<4>()?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(*source.first_chunk::<16>()?)),
        _ => return None,
    };
    let v6_only = body.get(MESSAGE..).and_then(|attrs| find(attrs, V6_ONLY)).is_some_and(|v| v.first() == Some(&1));
    Some(ListenSocket {
        address: SocketAddr::new(ip, port),
        both_families: ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !v6_only,
        // For a listening socket these are sk_ack_backlog and sk_max_ack_backlog (net/ipv4/inet_diag.c).
        waiting: word(56)?,
        backlog: word(60)?,
        inode: word(68)?,
        programs: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;

    /// What is seen once it is so: a busy kernel queues a connection a moment after the client has it.
    fn soon<T>(see: impl Fn() -> T, is_so: impl Fn(&T) -> bool) -> T {
        let begun = Instant::now();
        loop {
            let seen = see();
            if is_so(&seen) || begun.elapsed() > Duration::from_secs(20) {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_listening_socket_is_told_with_its_queue() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let of = || listeners().unwrap().into_iter().find(|l| l.address == address).unwrap();
        assert_eq!(of().waiting, 0);
        let _client = TcpStream::connect(address).unwrap();
        let seen = soon(of, |seen| seen.waiting > 0);
        assert_eq!(seen.waiting, 1);
        assert!(seen.backlog >= 128 && seen.inode > 0 && !seen.both_families, "{seen:?}");
    }

    #[test]
    fn connections_are_told_by_the_port_of_this_side() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let of = || connections(&[port].into()).unwrap();
        assert_eq!(of(), []);
        let _client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        // Not accepted yet: no file, so no inode.
        assert_eq!(soon(of, |seen| !seen.is_empty()), [Connection { port, inode: 0 }]);
        let _accepted = server.accept().unwrap();
        assert!(of()[0].inode > 0);
        assert_eq!(connections(&BTreeSet::new()).unwrap(), []);
    }

    #[test]
    fn a_unix_socket_that_listens_is_told_with_its_queue() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _server = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let of = || unix_listeners().unwrap().into_iter().find(|l| l.path == path.to_str().unwrap()).unwrap();
        assert_eq!(of().waiting, 0);
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(of().waiting == 1 && of().backlog >= 128 && of().inode > 0, "{:?}", of());
    }

    #[test]
    fn torn_messages_say_nothing() {
        let full = [2; MESSAGE];
        for len in 0..full.len() {
            assert!(listener(&full[..len]).is_none() && connection(&full[..len]).is_none());
            assert!(unix_listener(&full[..len.min(UNIX_MESSAGE)]).is_none());
        }
    }
}
