//! The addresses of a name, as the system's resolvers tell them: over UDP, and over TCP where an answer is cut short
//! (RFC 1035, RFC 7766).
//!
//! The resolvers are asked and nothing else: `/etc/hosts` and search domains are this machine's own affair, and visitors
//! know neither.
//!
//! Belongs here: one name's A and AAAA, with their time to live. Does not: whose addresses those are ([`crate::doctor`]).

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use rustix::net::netdevice::name_to_index;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::error::{Error, ErrorKind, Result};

/// How often every resolver is asked.
pub const TRIES: u32 = 2;
/// How long one try may take; the resolvers share it, so that a question is over after twice this time.
pub const TRY: Duration = Duration::from_secs(3);
/// Where a resolver listens.
const PORT: u16 = 53;
/// resolv.conf(5), MAXNS: further ones are not asked.
const MOST_RESOLVERS: usize = 3;
/// More aliases in a row are a loop, or as good as one.
const MOST_ALIASES: usize = 16;

/// An address, and for how many seconds resolvers keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Seconds that are left of its time to live.
    pub ttl: u32,
}

/// A name that stands for another one: CNAME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The name that it stands for, without the final dot.
    pub to: String,
    /// Seconds that are left of its time to live.
    pub ttl: u32,
}

/// What was said of a name's addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// These; at least one.
    Addresses(Vec<Address>),
    /// There is the name, and it has no address of that family.
    NoData,
    /// NXDOMAIN: there is no such name.
    NoName,
    /// SERVFAIL: the resolver got no answer that it can use; a broken DNSSEC chain looks like this.
    ServFail,
    /// Another refusal to answer, in the words of the DNS.
    Refused(String),
    /// No resolver answered in time.
    Silent,
}

/// What a resolver told of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Who told; `None` where nobody did.
    pub by: Option<SocketAddr>,
    /// The aliases that were followed, in order.
    pub aliases: Vec<Alias>,
    /// And what is at their end.
    pub says: Says,
}

impl Told {
    /// The addresses; none where something else was said.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        if let Says::Addresses(all) = &self.says { all } else { &[] }
    }
}

/// Both families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// IPv4.
    pub a: Told,
    /// IPv6.
    pub aaaa: Told,
}

/// The resolvers that `/etc/resolv.conf` names, at most three; resolv.conf(5).
#[must_use]
pub fn resolvers(resolv_conf: &str) -> Vec<SocketAddr> {
    let named = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // The keyword begins the line.
        let server = line.starts_with("nameserver").then(|| words.next().zip(words.next()))?;
        server.filter(|(keyword, _)| *keyword == "nameserver").map(|(_, address)| address)
    });
    named.filter_map(address).take(MOST_RESOLVERS).collect()
}

/// An address, which for a link-local one names its interface: `fe80::1%eth0`, `fe80::1%2`.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((ip, interface)) = text.split_once('%') else { return Some((text.parse::<IpAddr>().ok()?, PORT).into()) };
    let index = || name_to_index(std::net::UdpSocket::bind("[::]:0").ok()?, interface).ok();
    let index = interface.parse().ok().or_else(index)?;
    Some(SocketAddrV6::new(ip.parse().ok()?, PORT, 0, index).into())
}

/// Asks these resolvers in turn for both families of a name, [`TRIES`] times, each time for `limit` at most.
///
/// # Errors
/// `usage` for a name that the DNS can't hold: a part of it is longer than 63 letters, or the whole than 253.
pub async fn addresses(resolvers: &[SocketAddr], name: &str, limit: Duration) -> Result<Names> {
    let mut asked = Name::from_ascii(name)
        .map_err(|e| Error::new(ErrorKind::Usage, format!("`{name}` can't be a name in the DNS: {e}")))?;
    asked.set_fqdn(true);
    let (a, aaaa) =
        tokio::join!(told(resolvers, &asked, RecordType::A, limit), told(resolvers, &asked, RecordType::AAAA, limit));
    Ok(Names { a, aaaa })
}

async fn told(resolvers: &[SocketAddr], name: &Name, kind: RecordType, limit: Duration) -> Told {
    let share = limit / u32::try_from(resolvers.len().max(1)).unwrap_or(u32::MAX);
    let mut told = Told { by: None, aliases: Vec::new(), says: Says::Silent };
    for _ in 0..TRIES {
        for resolver in resolvers {
            let Ok(Some(answer)) = timeout(share, ask(*resolver, name, kind)).await else { continue };
            let (aliases, says) = read(&answer, name, kind);
            let settled = !matches!(says, Says::ServFail | Says::Refused(_));
            told = Told { by: Some(*resolver), aliases, says };
            if settled {
                return told;
            }
        }
    }
    told
}

/// One question to one resolver; nothing where it gives no answer to it.
async fn ask(resolver: SocketAddr, name: &Name, kind: RecordType) -> Option<Message> {
    let mut question = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let bytes = question.to_vec().ok()?;

    let any = if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.ok()?;
    // From then on only that resolver's datagrams arrive, and an ICMP refusal is an error.
    socket.connect(resolver).await.ok()?;
    socket.send(&bytes).await.ok()?;
    // Without EDNS no answer over UDP is longer than 512 bytes (RFC 1035, 4.2.1).
    let mut buffer = [0; 512];
    loop {
        let len = socket.recv(&mut buffer).await.ok()?;
        let Some(answer) = answer_to(&question, buffer.get(..len)?) else { continue };
        if !answer.metadata.truncation {
            return Some(answer);
        }
        return answer_to(&question, &over_tcp(resolver, &bytes).await?);
    }
}

/// RFC 1035, 4.2.2: each message behind its length.
async fn over_tcp(resolver: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await.ok()?;
    stream.write_all(&[&u16::try_from(question.len()).ok()?.to_be_bytes()[..], question].concat()).await.ok()?;
    let len = stream.read_u16().await.ok()?;
    let mut answer = vec![0; usize::from(len)];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer)
}

/// The message, if it is one and answers this question.
fn answer_to(question: &Message, bytes: &[u8]) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let is_it = message.metadata.message_type == MessageType::Response
        && message.metadata.id == question.metadata.id
        && message.queries == question.queries;
    is_it.then_some(message)
}

fn read(answer: &Message, name: &Name, kind: RecordType) -> (Vec<Alias>, Says) {
    let mut at = name.clone();
    let mut aliases = Vec::new();
    while aliases.len() < MOST_ALIASES {
        let next = answer.answers.iter().find_map(|r| match &r.data {
            RData::CNAME(to) if r.name == at => Some((to.0.clone(), r.ttl)),
            _ => None,
        });
        let Some((to, ttl)) = next else { break };
        aliases.push(Alias { to: to.to_ascii().trim_end_matches('.').to_owned(), ttl });
        at = to;
    }
    let addresses = answer.answers.iter().filter(|r| r.name == at).filter_map(|r| match &r.data {
        RData::A(ip) if kind == RecordType::A => Some(Address { ip: ip.0.into(), ttl: r.ttl }),
        RData::AAAA(ip) if kind == RecordType::AAAA => Some(Address { ip: ip.0.into(), ttl: r.ttl }),
        _ => None,
    });
    let mut addresses: Vec<Address> = addresses.collect();
    addresses.sort();
    let says = match answer.metadata.response_code {
        ResponseCode::NoError if addresses.is_empty() => Says::NoData,
        ResponseCode::NoError => Says::Addresses(addresses),
        ResponseCode::NXDomain => Says::NoName,
        ResponseCode::ServFail => Says::ServFail,
        other => Says::Refused(other.to_str().to_owned()),
    };
    (aliases, says)
}

#[cfg(test)]
mod tests;
