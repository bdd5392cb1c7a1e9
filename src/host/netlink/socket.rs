//! One netlink socket: questions with their answers, and one large message at once.
//!
//! Belongs here: sending, receiving, and what the kernel's error numbers mean. Does not: what the messages say.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd},
};

use mnl::{Bus, Socket as Mnl};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::{FdFlags, fcntl_setfd},
    net::{SendAncillaryBuffer, SendFlags, sendmsg, sockopt},
};

use crate::error::{Error, ErrorKind, Result, io_reason};

/// `NFNL_SUBSYS_NFTABLES` of linux/netfilter/nfnetlink.h, in the upper half of a message's type.
pub(super) const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
/// `NLM_F_DUMP_INTR` of linux/netlink.h: the rule set changed while it was being told.
const DUMP_INTERRUPTED: u16 = 0x10;
/// Length of `struct nlmsghdr`, and of it with the `struct nfgenmsg` behind.
const HEADER: usize = 16;
pub(super) const FULL_HEADER: usize = 20;

/// The error number of a lost race: `ERESTART`, not in userspace's headers (linux/errno.h).
pub(super) const ERESTART: i32 = 85;

/// An open socket to nf_tables.
pub(super) struct Socket(Mnl);

/// A received message.
pub(super) struct Message<'a> {
    /// The family in its header.
    pub family: u8,
    /// Its attributes.
    pub attrs: &'a [u8],
    /// All that follows the netlink header: what is not netfilter's has another header of its own there.
    pub body: &'a [u8],
}

/// What came back, message by message.
pub(super) enum Answer<'a> {
    /// The kernel's verdict on a message: 0 is an acknowledgement.
    Verdict {
        /// The sequence number of the message it is about.
        seq: u32,
        /// The error number.
        errno: i32,
    },
    /// Data.
    Data(Message<'a>),
    /// The end of a dump, with an error number if it was cut short.
    Done(i32),
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let socket = Self(Mnl::new(Bus::Netfilter)?);
        fcntl_setfd(socket.fd(), FdFlags::CLOEXEC)?;
        Ok(socket)
    }

    /// Opens one to the kernel's routing part: interfaces, addresses, routes, queueing disciplines.
    pub(super) fn open_route() -> io::Result<Self> {
        let socket = Self(Mnl::new(Bus::Route)?);
        fcntl_setfd(socket.fd(), FdFlags::CLOEXEC)?;
        Ok(socket)
    }

    /// Opens one to the kernel's lists of sockets.
    pub(super) fn open_diag() -> io::Result<Self> {
        let socket = Self(Mnl::new(Bus::SockDiag)?);
        fcntl_setfd(socket.fd(), FdFlags::CLOEXEC)?;
        Ok(socket)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.0`, which stays open as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }

    /// Asks and hands every message of the answer to `each`. `Ok(Some(errno))` is a refusal by the kernel.
    pub(super) fn ask(
        &self,
        kind: i32,
        flags: i32,
        family: u8,
        attrs: &[u8],
        each: &mut dyn FnMut(Message<'_>) -> Result<()>,
    ) -> Result<Option<i32>> {
        self.ask_of(SUBSYSTEM, kind, flags, family, attrs, each)
    }

    /// The same of another part of netfilter: `subsystem` is its number in the upper half of the message's type.
    pub(super) fn ask_of(
        &self,
        subsystem: u16,
        kind: i32,
        flags: i32,
        family: u8,
        attrs: &[u8],
        each: &mut dyn FnMut(Message<'_>) -> Result<()>,
    ) -> Result<Option<i32>> {
        // struct nfgenmsg: family, version 0, resource id 0.
        let body = [&[family, 0, 0, 0], attrs].concat();
        self.ask_raw(subsystem | kind as u16, flags, &body, each)
    }

    /// Asks with a message whose header after netlink's is the caller's affair.
    pub(super) fn ask_raw(
        &self,
        kind: u16,
        flags: i32,
        body: &[u8],
        each: &mut dyn FnMut(Message<'_>) -> Result<()>,
    ) -> Result<Option<i32>> {
        let dump = flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        self.0.send(&request(kind, flags, 1, body)).map_err(|e| failed("ask the kernel", &e))?;
        let mut space = Buffer::new();
        loop {
            let received = self.0.recv(space.bytes()).map_err(|e| failed("hear the kernel's answer", &e))?;
            for bytes in received {
                match decode(bytes.map_err(|e| failed("understand the kernel's answer", &e))?)? {
                    Answer::Verdict { errno: 0, .. } | Answer::Done(0) => return Ok(None),
                    Answer::Verdict { errno, .. } | Answer::Done(errno) => return Ok(Some(errno)),
                    Answer::Data(data) => each(data)?,
                }
            }
            if !dump {
                return Ok(None);
            }
        }
    }

    /// Sends all parts as one message, so that the kernel sees one batch, and hears the verdicts that follow.
    ///
    /// The kernel works a batch off inside the system call: afterwards every verdict is waiting. `ENOBUFS` (too many
    /// of them) says nothing about the outcome, so it ends the hearing without an error.
    pub(super) fn transact(&self, parts: &[&[u8]], messages: usize) -> Result<Vec<(u32, i32)>> {
        let bytes: usize = parts.iter().map(|p| p.len()).sum();
        let can = |e: rustix::io::Errno| failed("enlarge the netlink socket's buffers", &e.into());
        sockopt::set_socket_send_buffer_size_force(self.fd(), limit(bytes + 4096)).map_err(can)?;
        sockopt::set_socket_recv_buffer_size_force(self.fd(), limit(messages * 2048 + 65_536)).map_err(can)?;
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        let sent = sendmsg(self.fd(), &slices, &mut SendAncillaryBuffer::default(), SendFlags::empty())
            .map_err(|e| failed("send the batch to the kernel", &e.into()))?;
        if sent != bytes {
            return Err(Error::new(
                ErrorKind::Netlink,
                format!("the kernel took {sent} of {bytes} bytes of the batch"),
            ));
        }
        fcntl_setfl(self.fd(), OFlags::RDWR | OFlags::NONBLOCK)
            .map_err(|e| failed("hear the kernel's answer", &e.into()))?;
        let mut verdicts = Vec::new();
        let mut space = Buffer::new();
        loop {
            let received = match self.0.recv(space.bytes()) {
                Ok(received) => received,
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => return Ok(verdicts),
                Err(e) => return Err(failed("hear the kernel's answer", &e)),
            };
            for bytes in received {
                let bytes = bytes.map_err(|e| failed("understand the kernel's answer", &e))?;
                if let Answer::Verdict { seq, errno } = decode(bytes)? {
                    verdicts.push((seq, errno));
                }
            }
        }
    }
}

/// Buffer sizes are C ints, and the kernel doubles them.
fn limit(bytes: usize) -> usize {
    bytes.min(i32::MAX as usize / 2)
}

/// Space for an answer, aligned as netlink headers want it.
struct Buffer(Vec<u64>);

impl Buffer {
    /// Netlink dumps come in pieces of at most 32 KiB; a single large object may take 64.
    fn new() -> Self {
        Self(vec![0; 8192])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let len = self.0.len() * size_of::<u64>();
        // SAFETY: the pointer and length describe exactly the vector's own initialised memory, any byte is valid in a
        // u64 and the other way round, and the exclusive borrow lasts as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast::<u8>(), len) }
    }
}

/// A request to nf_tables: headers and attributes.
pub(super) fn message(kind: i32, flags: i32, family: u8, seq: u32, attrs: &[u8]) -> Vec<u8> {
    // struct nfgenmsg: family, version 0, resource id 0.
    request(SUBSYSTEM | kind as u16, flags, seq, &[&[family, 0, 0, 0], attrs].concat())
}

fn request(kind: u16, flags: i32, seq: u32, body: &[u8]) -> Vec<u8> {
    let len = HEADER + body.len();
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
    bytes.extend_from_slice(&seq.to_ne_bytes());
    bytes.extend_from_slice(&0_u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// What one received message says.
fn decode(bytes: &[u8]) -> Result<Answer<'_>> {
    let torn = || Error::new(ErrorKind::Netlink, "the kernel sent a netlink message that is too short");
    let word = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).copied().map(u32::from_ne_bytes);
    let half = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).copied().map(u16::from_ne_bytes);
    let (kind, flags, seq) = (half(4).ok_or_else(torn)?, half(6).ok_or_else(torn)?, word(8).ok_or_else(torn)?);
    if flags & DUMP_INTERRUPTED != 0 {
        return Err(Error::new(ErrorKind::RaceLost, "the nftables rule set changed while it was read"));
    }
    match kind {
        NLMSG_ERROR => Ok(Answer::Verdict { seq, errno: -(word(HEADER).ok_or_else(torn)? as i32) }),
        NLMSG_DONE => Ok(Answer::Done(-(word(HEADER).unwrap_or(0) as i32))),
        _ => Ok(Answer::Data(Message {
            family: *bytes.get(HEADER).ok_or_else(torn)?,
            attrs: bytes.get(FULL_HEADER..).ok_or_else(torn)?,
            body: &bytes[HEADER..],
        })),
    }
}

/// An error of the socket itself.
pub(super) fn failed(doing: &str, err: &io::Error) -> Error {
    match err.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => no_privilege(),
        _ => Error::new(ErrorKind::Netlink, format!("cannot {doing}: {}", io_reason(err))),
    }
}

/// nf_tables answers only to CAP_NET_ADMIN.
pub(super) fn no_privilege() -> Error {
    Error::new(ErrorKind::NoPrivilege, "nftables can be read and changed with CAP_NET_ADMIN only")
        .hint("run edgeallow as root")
}

/// A refusal by the kernel, by error number.
pub(super) fn refused(what: &str, errno: i32) -> Error {
    match errno {
        libc::EPERM => no_privilege(),
        ERESTART => Error::new(ErrorKind::RaceLost, "something else changed the nftables rule set in the meantime")
            .hint("run edgeallow again"),
        _ => {
            let reason = io_reason(&io::Error::from_raw_os_error(errno));
            Error::new(ErrorKind::Netlink, format!("the kernel refused `{what}`: {reason}"))
        }
    }
}
