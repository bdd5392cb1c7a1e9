//! TCP sockets that listen: sock_diag (linux/sock_diag.h, linux/inet_diag.h, sock_diag(7)).
//!
//! Belongs here: the question and the layout of its answer. Does not: whose sockets they are ([`crate::host`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    attr::find,
    socket::{Socket, failed, refused},
};
use crate::{error::Result, host::ListenSocket};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN` of net/tcp_states.h, as a bit.
const LISTEN: u32 = 1 << 10;
/// Lengths of `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
/// `INET_DIAG_SKV6ONLY`; asked for always, told of IPv6 sockets.
const V6_ONLY: u16 = 11;

/// Every TCP socket that listens in the calling thread's network namespace, without the programs that hold them.
///
/// # Errors
/// `netlink`; `race-lost` if the list changed while it was read.
pub fn listeners() -> Result<Vec<ListenSocket>> {
    let socket = Socket::open_diag().map_err(|e| failed("open a netlink socket", &e))?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0; REQUEST];
        request[..2].copy_from_slice(&[family as u8, libc::IPPROTO_TCP as u8]);
        request[4..8].copy_from_slice(&LISTEN.to_ne_bytes());
        let refusal = socket.ask_raw(BY_FAMILY, libc::NLM_F_DUMP, &request, &mut |m| {
            found.extend(listener(m.body));
            Ok(())
        })?;
        match refusal {
            // A kernel without that family.
            None | Some(libc::ENOENT) => {}
            Some(errno) => return Err(refused("list sockets", errno)),
        }
    }
    found.sort_by_key(|l: &ListenSocket| (l.address.port(), l.address));
    Ok(found)
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
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listening_socket_is_told_with_its_queue() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let of = |all: Vec<ListenSocket>| all.into_iter().find(|l| l.address == address).unwrap();
        assert_eq!(of(listeners().unwrap()).waiting, 0);
        let _client = TcpStream::connect(address).unwrap();
        let seen = of(listeners().unwrap());
        assert_eq!(seen.waiting, 1);
        assert!(seen.backlog >= 128 && seen.inode > 0 && !seen.both_families, "{seen:?}");
    }

    #[test]
    fn torn_messages_say_nothing() {
        let full = [2; MESSAGE];
        for len in 0..full.len() {
            assert!(listener(&full[..len]).is_none());
        }
    }
}
