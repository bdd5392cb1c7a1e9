//! Sending a batch: every operation as its message, all of them as one transaction.
//!
//! Belongs here: the layout of messages that change something. Does not: which operations, and in which order.

use std::{
    ffi::{CString, c_void},
    mem,
};

use nftnl::{
    Batch, Chain, ChainType, Hook, MsgType, NlMsg, Policy as NftPolicy, ProtoFamily, Rule, Table,
    expr::{
        Cmp, CmpOp, Counter, Ipv4HeaderField, Ipv6HeaderField, Lookup, Meta, NetworkHeaderField, Payload,
        TcpHeaderField, TransportHeaderField, UdpHeaderField, Verdict,
    },
    nft_nlmsg_maxsize,
    set::{Set, SetKey},
};

use super::{
    attr::{nest, put, put_be32, put_str},
    socket::{Socket, failed, message, refused},
};
use crate::{
    allowlist::Family,
    error::{Error, ErrorKind, Result},
    nft::{AcceptRule, ChainId, Elements, Hooked, NftBatch, NftOp, Policy, SetId, SetKind, TableFamily, TableId},
    plan::Protocol,
};

/// Prefixes in a message of elements: 1,600 starts and ends of IPv6 intervals stay below the 64 KiB of an attribute.
const CHUNK: usize = 1_000;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 0x1;
/// What nft notes at an element whose interval is open at the end (libnftables: `NFTNL_UDATA_SET_ELEM_FLAGS`, four
/// bytes, `SET_ELEM_F_INTERVAL_OPEN`).
const OPEN_END: [u8; 6] = [1, 4, 1, 0, 0, 0];

/// Sends a batch as one transaction.
///
/// Too many acknowledgements to hear (`ENOBUFS`) leave the outcome unknown; that is no error here: the second look
/// decides.
///
/// # Errors
/// `race-lost` if the rule set is of another generation by now, `no-privilege`, `netlink` naming the operation that
/// the kernel refused. Then nothing has changed.
pub fn apply(batch: &NftBatch) -> Result<()> {
    if batch.ops.is_empty() {
        return Ok(());
    }
    let mut out = Out { batch: Batch::new(), labels: Vec::new(), sets: 0 };
    for (i, op) in batch.ops.iter().enumerate() {
        out.op(i, op)?;
    }
    let Out { batch: pages, labels, .. } = out;
    let pages = pages.finalize();
    let mut parts: Vec<&[u8]> = pages.iter().collect();
    // The crate's batches can't name a generation: its opening message is replaced by one that does.
    let begin = begin(batch.generation);
    if let Some(first) = parts.first_mut() {
        let len = first.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b)) as usize;
        *first = first.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    parts.insert(0, &begin);
    let first_seq = parts.get(1).and_then(|p| p.get(8..)?.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b));

    let socket = Socket::open().map_err(|e| failed("open a netlink socket", &e))?;
    let verdicts = socket.transact(&parts, labels.len() + 2)?;
    match verdicts.iter().find(|(_, errno)| *errno != 0) {
        None => Ok(()),
        Some((seq, errno)) => {
            let op = seq.checked_sub(first_seq).and_then(|i| labels.get(i as usize)).and_then(|i| batch.ops.get(*i));
            Err(refused(&op.map_or_else(|| "the batch as a whole".to_owned(), |op| format!("nft {op}")), *errno))
        }
    }
}

/// The message that opens a batch. `NFNL_BATCH_GENID` (1) makes the kernel compare generations.
fn begin(generation: Option<u32>) -> Vec<u8> {
    let mut attrs = Vec::new();
    if let Some(generation) = generation {
        put_be32(&mut attrs, 1, generation);
    }
    let mut bytes = message(0, 0, 0, 0, &attrs);
    bytes[4..6].copy_from_slice(&(libc::NFNL_MSG_BATCH_BEGIN as u16).to_ne_bytes());
    // The resource id of struct nfgenmsg names the subsystem.
    bytes[18..20].copy_from_slice(&(libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes());
    bytes
}

/// A batch in the making.
struct Out {
    batch: Batch,
    /// For every message the operation that it came from.
    labels: Vec<usize>,
    sets: u32,
}

impl Out {
    fn op(&mut self, i: usize, op: &NftOp) -> Result<()> {
        match op {
            NftOp::AddTable(id) => self.put(i, &table(id)?, MsgType::Add),
            NftOp::DelTable(id) => self.put(i, &table(id)?, MsgType::Del),
            NftOp::AddChain { chain, hooked } => self.base_chain(i, chain, hooked)?,
            NftOp::DelChain(id) => self.put(i, &Chain::new(c_string(&id.name)?, &table(&id.table)?), MsgType::Del),
            NftOp::AddSet { set, kind } => {
                self.sets += 1;
                let attrs = new_set(set, *kind, self.sets);
                self.raw(i, libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, &set.table, attrs);
            }
            NftOp::DelSet(set) => self.raw(i, libc::NFT_MSG_DELSET, 0, &set.table, names(set)),
            // Deleting elements without naming any deletes all.
            NftOp::FlushSet(set) => self.raw(i, libc::NFT_MSG_DELSETELEM, 0, &set.table, names(set)),
            NftOp::AddElements { set, elements } => {
                self.elements(i, libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE | libc::NLM_F_EXCL, set, elements);
            }
            NftOp::DelElements { set, elements } => self.elements(i, libc::NFT_MSG_DELSETELEM, 0, set, elements),
            NftOp::InsertRule { chain, rule } => self.insert(i, chain, rule)?,
            NftOp::DelRule { chain, handle } => {
                let table = table(&chain.table)?;
                let chain = Chain::new(c_string(&chain.name)?, &table);
                let mut rule = Rule::new(&chain);
                rule.set_handle(*handle);
                self.put(i, &rule, MsgType::Del);
            }
        }
        Ok(())
    }

    fn put(&mut self, i: usize, msg: &impl NlMsg, kind: MsgType) {
        self.batch.add(msg, kind);
        self.labels.push(i);
    }

    fn raw(&mut self, i: usize, kind: i32, flags: i32, table: &TableId, attrs: Vec<u8>) {
        self.put(i, &Raw { kind, flags, family: table.family, attrs }, MsgType::Add);
    }

    fn base_chain(&mut self, i: usize, id: &ChainId, hooked: &Hooked) -> Result<()> {
        if hooked.hook != Hooked::INPUT || hooked.kind != "filter" {
            return Err(Error::new(ErrorKind::Internal, format!("{id} is no filter chain on input")));
        }
        let table = table(&id.table)?;
        let mut chain = Chain::new(c_string(&id.name)?, &table);
        chain.set_type(ChainType::Filter);
        chain.set_hook(Hook::In, hooked.priority);
        chain.set_policy(if hooked.policy == Policy::Drop { NftPolicy::Drop } else { NftPolicy::Accept });
        self.put(i, &chain, MsgType::Add);
        Ok(())
    }

    fn insert(&mut self, i: usize, id: &ChainId, accept: &AcceptRule) -> Result<()> {
        let table = table(&id.table)?;
        let chain = Chain::new(c_string(&id.name)?, &table);
        let mut rule = Rule::new(&chain);
        let (nfproto, saddr) = match accept.family {
            Family::V4 => (libc::NFPROTO_IPV4, NetworkHeaderField::Ipv4(Ipv4HeaderField::Saddr)),
            Family::V6 => (libc::NFPROTO_IPV6, NetworkHeaderField::Ipv6(Ipv6HeaderField::Saddr)),
        };
        if id.table.family == TableFamily::Inet {
            rule.add_expr(&Meta::NfProto);
            rule.add_expr(&Cmp::new(CmpOp::Eq, nfproto as u8));
        }
        rule.add_expr(&Payload::Network(saddr));
        rule.add_expr(&in_set::<4>(&accept.sources, &table)?);
        rule.add_expr(&Meta::L4Proto);
        rule.add_expr(&Cmp::new(CmpOp::Eq, accept.protocol.number()));
        rule.add_expr(&Payload::Transport(match accept.protocol {
            Protocol::Tcp => TransportHeaderField::Tcp(TcpHeaderField::Dport),
            Protocol::Udp => TransportHeaderField::Udp(UdpHeaderField::Dport),
        }));
        rule.add_expr(&in_set::<2>(&accept.ports, &table)?);
        rule.add_expr(&Counter);
        rule.add_expr(&Verdict::Accept);
        rule.set_comment(c_string(&accept.comment)?).map_err(|e| Error::new(ErrorKind::Internal, e))?;
        self.put(i, &First(&rule), MsgType::Add);
        Ok(())
    }

    fn elements(&mut self, i: usize, kind: i32, flags: i32, set: &SetId, elements: &Elements) {
        let interval = |list: &mut Vec<u8>, first: &[u8], after: Option<&[u8]>| {
            element(list, first, 0, after.is_none() && kind == libc::NFT_MSG_NEWSETELEM);
            if let Some(after) = after {
                element(list, after, INTERVAL_END, false);
            }
        };
        for nets in elements.v4().chunks(CHUNK) {
            self.chunk(i, kind, flags, set, |list| {
                for net in nets {
                    let after = u32::from(net.broadcast()).checked_add(1).map(u32::to_be_bytes);
                    interval(list, &net.network().octets(), after.as_ref().map(|a| &a[..]));
                }
            });
        }
        for nets in elements.v6().chunks(CHUNK) {
            self.chunk(i, kind, flags, set, |list| {
                for net in nets {
                    let after = u128::from(net.broadcast()).checked_add(1).map(u128::to_be_bytes);
                    interval(list, &net.network().octets(), after.as_ref().map(|a| &a[..]));
                }
            });
        }
        if let Elements::Ports(ports) = elements {
            let ports: Vec<u16> = ports.iter().copied().collect();
            for some in ports.chunks(CHUNK) {
                self.chunk(i, kind, flags, set, |list| {
                    some.iter().for_each(|port| element(list, &port.to_be_bytes(), 0, false));
                });
            }
        }
    }

    fn chunk(&mut self, i: usize, kind: i32, flags: i32, set: &SetId, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut attrs = names(set);
        nest(&mut attrs, 3, fill);
        self.raw(i, kind, flags, &set.table, attrs);
    }
}

/// One element: NFTA_SET_ELEM_KEY (1), _FLAGS (3), _USERDATA (6).
fn element(list: &mut Vec<u8>, key: &[u8], flags: u32, open_end: bool) {
    nest(list, 1, |e| {
        nest(e, 1, |k| put(k, 1, key));
        if flags != 0 {
            put_be32(e, 3, flags);
        }
        if open_end {
            put(e, 6, &OPEN_END);
        }
    });
}

/// NFTA_SET_TABLE and _NAME, which have the same numbers in messages of elements.
fn names(set: &SetId) -> Vec<u8> {
    let mut attrs = Vec::new();
    put_str(&mut attrs, 1, &set.table.name);
    put_str(&mut attrs, 2, &set.name);
    attrs
}

fn new_set(set: &SetId, kind: SetKind, id: u32) -> Vec<u8> {
    let mut attrs = names(set);
    put_be32(&mut attrs, 3, kind.flags());
    put_be32(&mut attrs, 4, kind.key_type());
    put_be32(&mut attrs, 5, kind.key_len());
    put_be32(&mut attrs, 10, id);
    attrs
}

fn c_string(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::new(ErrorKind::Internal, format!("a NUL byte in the name {name:?}")))
}

fn table(id: &TableId) -> Result<Table> {
    let family = match id.family {
        TableFamily::Inet => ProtoFamily::Inet,
        TableFamily::Ip => ProtoFamily::Ipv4,
        TableFamily::Ip6 => ProtoFamily::Ipv6,
        TableFamily::Other(_) => {
            return Err(Error::new(ErrorKind::Internal, format!("nothing of ours belongs in table {id}")));
        }
    };
    Ok(Table::new(c_string(&id.name)?, family))
}

/// A lookup by the set's name. The crate takes names from set objects only, so one is made for its name's sake; id 0
/// is no set's, so the kernel goes by the name.
fn in_set<const LEN: usize>(name: &str, table: &Table) -> Result<Lookup> {
    let set = Set::<Key<LEN>>::new_named(&c_string(name)?, 0, table, table.get_family());
    Ok(Lookup::new(&set))
}

struct Key<const LEN: usize>;

impl<const LEN: usize> SetKey for Key<LEN> {
    const TYPE: u32 = 0;
    const LEN: u32 = LEN as u32;

    fn data(&self) -> Box<[u8]> {
        Box::new([0; LEN])
    }
}

/// A message that the nftnl crate has no type for.
struct Raw {
    kind: i32,
    flags: i32,
    family: TableFamily,
    attrs: Vec<u8>,
}

// SAFETY: `write` copies the whole message, whose length it compares with the space that the trait promises.
unsafe impl NlMsg for Raw {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, _: MsgType) {
        let bytes = message(self.kind, self.flags | libc::NLM_F_ACK, self.family.number(), seq, &self.attrs);
        assert!(bytes.len() <= nft_nlmsg_maxsize() as usize, "a netlink message of {} bytes", bytes.len());
        // SAFETY: the caller promises nft_nlmsg_maxsize() writable bytes at `buf`, the assertion keeps within them,
        // and a fresh vector can't overlap the batch's own memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buf.cast::<u8>(), bytes.len()) };
    }
}

/// A rule to be put first in its chain: the crate knows only how to append.
struct First<'a, 'b>(&'a Rule<'b>);

// SAFETY: writes what the rule itself writes, then changes two bytes inside the header that it has written.
unsafe impl NlMsg for First<'_, '_> {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, kind: MsgType) {
        // SAFETY: the caller's promise about `buf` is passed on unchanged.
        unsafe { self.0.write(buf, seq, kind) };
        let at = mem::offset_of!(libc::nlmsghdr, nlmsg_flags);
        // SAFETY: `write` has put a whole nlmsghdr at `buf`; its flags lie `at` bytes in. Unaligned access makes no
        // demand on the batch's memory.
        unsafe {
            let flags = buf.cast::<u8>().add(at).cast::<u16>();
            let without = flags.read_unaligned() & !((libc::NLM_F_APPEND | libc::NLM_F_EXCL) as u16);
            flags.write_unaligned(without);
        }
    }
}
