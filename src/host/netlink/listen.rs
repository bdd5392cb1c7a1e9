//! Hearing that the rule set changes: nf_tables' own notifications.
//!
//! The kernel tells every listener of group `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h) what a transaction has
//! changed, whoever sent it: `nft`, a library, or the nft variant of iptables. Legacy iptables and ipset tell nobody.
//!
//! The last message of each transaction says who sent it (`NFTA_GEN_PROC_PID`, `NFTA_GEN_PROC_NAME`).
//!
//! Belongs here: the socket, emptying it, and who was heard. Does not: what a change means.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, socket_with,
    },
};

use super::{
    attr,
    socket::{FULL_HEADER, SUBSYSTEM, failed},
};
use crate::error::Result;

/// `NFNLGRP_NFTABLES` is group 7, as a bit of a socket address.
const NFTABLES: u32 = 1 << 6;

/// `NFT_MSG_NEWGEN` of the subsystem `NFNL_SUBSYS_NFTABLES`, as a message's type.
const NEW_GENERATION: u16 = SUBSYSTEM | libc::NFT_MSG_NEWGEN as u16;
/// `NFTA_GEN_PROC_PID` and `NFTA_GEN_PROC_NAME` (linux/netfilter/nf_tables.h, since Linux 4.16).
const PROC_PID: u16 = 2;
const PROC_NAME: u16 = 3;

/// A program that has changed the rule set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Its process id, as the kernel counts them.
    pub pid: u32,
    /// Its name, as the kernel knows it: at most 15 characters, none of them a control character.
    pub name: String,
}

/// A socket on which the kernel announces every change of the calling thread's nf_tables.
pub struct Listener(OwnedFd);

impl Listener {
    /// Begins to listen: what happens from now on is heard.
    ///
    /// # Errors
    /// `no-privilege` without CAP_NET_ADMIN, `netlink` where the kernel has no netfilter.
    pub fn open() -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let subscribe = || -> Result<OwnedFd, Errno> {
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
            bind(&socket, &SocketAddrNetlink::new(0, NFTABLES))?;
            Ok(socket)
        };
        subscribe().map(Self).map_err(|e| failed("listen for changes of nftables", &e.into()))
    }

    /// Takes all that has been announced off the socket; says whether there was anything, and tells `writer` of who
    /// sent it.
    ///
    /// `ENOBUFS` means that there was more than the socket could hold: a change like any other, of which nobody is known.
    ///
    /// # Errors
    /// `netlink` when the socket can't be read.
    pub fn drain(&self, mut writer: impl FnMut(Writer)) -> Result<bool> {
        // What doesn't fit is cut off. The message that names the sender is short and comes in a datagram of its own.
        let mut space = [0_u8; 1024];
        let mut heard = false;
        loop {
            match recv(&self.0, &mut space, RecvFlags::TRUNC) {
                Ok((read, _)) => {
                    heard = true;
                    sender(&space[..read]).into_iter().for_each(&mut writer);
                }
                Err(Errno::NOBUFS) => heard = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(heard),
                Err(e) => return Err(failed("hear of changes of nftables", &e.into())),
            }
        }
    }
}

/// Who sent a transaction, if this datagram says so.
fn sender(datagram: &[u8]) -> Option<Writer> {
    let kind = u16::from_ne_bytes(*datagram.get(4..)?.first_chunk()?);
    let attrs = datagram.get(FULL_HEADER..).filter(|_| kind == NEW_GENERATION)?;
    // A process may call itself what it likes; it shall not write lines of its own into a log.
    let name = attr::string(attrs, PROC_NAME)?.replace(char::is_control, "?");
    Some(Writer { pid: attr::be32(attrs, PROC_PID)?, name })
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::attr, *};

    #[test]
    fn the_sender_of_a_transaction_is_known_and_can_not_forge_log_lines() {
        let mut datagram = vec![0; FULL_HEADER];
        datagram[4..6].copy_from_slice(&NEW_GENERATION.to_ne_bytes());
        attr::put_be32(&mut datagram, 1, 17);
        assert_eq!(sender(&datagram), None, "an older kernel doesn't say it");
        attr::put_be32(&mut datagram, PROC_PID, 4711);
        attr::put_str(&mut datagram, PROC_NAME, "a\nb");
        assert_eq!(sender(&datagram), Some(Writer { pid: 4711, name: "a?b".to_owned() }));
        datagram[4] ^= 1;
        assert_eq!(sender(&datagram), None, "another message");
        assert_eq!(sender(&datagram[..7]), None);
    }
}
