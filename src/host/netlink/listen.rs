//! Hearing that the rule set changes: nf_tables' own notifications.
//!
//! The kernel tells every listener of group `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h) what a transaction has
//! changed, whoever sent it: `nft`, a library, or the nft variant of iptables. Legacy iptables and ipset tell nobody.
//!
//! Belongs here: the socket, and emptying it. Does not: what a change means.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, socket_with,
    },
};

use super::socket::failed;
use crate::error::Result;

/// `NFNLGRP_NFTABLES` is group 7, as a bit of a socket address.
const NFTABLES: u32 = 1 << 6;

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

    /// Takes all that has been announced off the socket; says whether there was anything.
    ///
    /// `ENOBUFS` means that there was more than the socket could hold: a change like any other.
    ///
    /// # Errors
    /// `netlink` when the socket can't be read.
    pub fn drain(&self) -> Result<bool> {
        // What doesn't fit is cut off, and nobody reads it anyway.
        let mut space = [0_u8; 1024];
        let mut heard = false;
        loop {
            match recv(&self.0, &mut space, RecvFlags::TRUNC) {
                Ok(_) | Err(Errno::NOBUFS) => heard = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(heard),
                Err(e) => return Err(failed("hear of changes of nftables", &e.into())),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
