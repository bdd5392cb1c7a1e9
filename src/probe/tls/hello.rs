//! A `ClientHello` of older days, laid by hand, and the server's first flight in answer to it.
//!
//! rustls says nothing below TLS 1.2 and knows no CBC and no RSA key exchange, but Cloudflare still offers these to
//! origins. Up to TLS 1.2 the server's certificate and its wish for a client's come in the clear, so that one question
//! and its answer tell all there is to know; the connection is dropped after that.
//!
//! Belongs here: these bytes (RFC 5246, and RFC 2246 for what a server may choose). Does not: finishing a handshake.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::Wants;

/// A first flight is a few thousand bytes; what is longer than this is no first flight.
const MOST: usize = 128 * 1024;

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// It would go on.
    Flight(Flight),
    /// It objects with the alert of this number.
    Alert(u8),
    /// It doesn't speak TLS; whether it speaks HTTP.
    NotTls { http: bool },
    /// It ended the connection without a word.
    Closed,
    /// It said nothing in time.
    Silent,
}

/// What a server says before the client has anything more to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Flight {
    pub version: u16,
    pub cipher: u16,
    pub chain: Vec<Vec<u8>>,
    pub wants: Option<Wants>,
}

/// Asks, and reads until the flight is whole.
pub(super) async fn ask(mut stream: TcpStream, name: Option<&str>, limit: Duration) -> Reply {
    let mut random = [0; 32];
    fastrand::fill(&mut random);
    let mut got = Vec::new();
    let talk = async {
        stream.write_all(&client_hello(name, &random)).await?;
        let mut piece = [0; 4096];
        while got.len() < MOST && !is_whole(&got) {
            match stream.read(&mut piece).await? {
                0 => break,
                n => got.extend_from_slice(piece.get(..n).unwrap_or_default()),
            }
        }
        io::Result::Ok(())
    };
    let late = timeout(limit, talk).await.is_err();
    match read(&got) {
        Some(reply) => reply,
        None if late => Reply::Silent,
        None => Reply::Closed,
    }
}

/// Cloudflare's cipher suites for origins up to TLS 1.2 (its page "Cipher suites — Origin"), by IANA's numbers, the AEAD
/// ones that rustls has as well. The last two are none of Cloudflare's: they let a server with an ECDSA certificate and
/// nothing newer than TLS 1.1 say so, instead of failing for want of a cipher.
const CIPHERS: [u16; 13] = [
    0xc02b, // ECDHE-ECDSA-AES128-GCM-SHA256
    0xc02f, // ECDHE-RSA-AES128-GCM-SHA256
    0xc013, // ECDHE-RSA-AES128-SHA
    0x009c, // AES128-GCM-SHA256
    0x002f, // AES128-SHA
    0xc02c, // ECDHE-ECDSA-AES256-GCM-SHA384
    0xc030, // ECDHE-RSA-AES256-GCM-SHA384
    0xc028, // ECDHE-RSA-AES256-SHA384
    0x0035, // AES256-SHA
    0x000a, // DES-CBC3-SHA
    0x00ff, // TLS_EMPTY_RENEGOTIATION_INFO_SCSV, RFC 5746
    0xc009, // ECDHE-ECDSA-AES128-SHA
    0xc00a, // ECDHE-ECDSA-AES256-SHA
];

/// Whether Cloudflare offers this one too.
pub(super) fn is_offered(cipher: u16) -> bool {
    CIPHERS.contains(&cipher) && !matches!(cipher, 0xc009 | 0xc00a)
}

/// A length of so many bytes, and then what it is the length of (RFC 5246, 4.3: vectors).
fn vector<const LENGTH: usize>(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [length.get(length.len() - LENGTH..).unwrap_or_default(), content].concat()
}

fn numbers(all: &[u16]) -> Vec<u8> {
    all.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// One record with one message. It names TLS 1.2 as the newest version and has no `supported_versions`, so that a server
/// chooses what it likes best below (RFC 5246, appendix E.1).
fn client_hello(name: Option<&str>, random: &[u8; 32]) -> Vec<u8> {
    let extension = |number: u16, content: Vec<u8>| [number.to_be_bytes().to_vec(), vector::<2>(&content)].concat();
    let mut extensions = Vec::new();
    if let Some(name) = name {
        // server_name, RFC 6066, 3: a list of one, of type host_name (0).
        let entry = [vec![0], vector::<2>(name.as_bytes())].concat();
        extensions.extend(extension(0, vector::<2>(&entry)));
    }
    // supported_groups, RFC 8422, 5.1.1: x25519, secp256r1, secp384r1, secp521r1.
    extensions.extend(extension(10, vector::<2>(&numbers(&[29, 23, 24, 25]))));
    // ec_point_formats: uncompressed.
    extensions.extend(extension(11, vector::<1>(&[0])));
    // signature_algorithms, RFC 5246, 7.4.1.4.1: SHA-256, SHA-384, SHA-512, SHA-1, each with RSA-PSS, RSA and ECDSA.
    let schemes = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0603, 0x0806, 0x0601, 0x0203, 0x0201];
    extensions.extend(extension(13, vector::<2>(&numbers(&schemes))));

    let body = [
        vec![0x03, 0x03], // client_version: TLS 1.2
        random.to_vec(),
        vector::<1>(&[]), // session_id: none
        vector::<2>(&numbers(&CIPHERS)),
        vector::<1>(&[0]), // compression_methods: null
        vector::<2>(&extensions),
    ]
    .concat();
    let message = [vec![1], vector::<3>(&body)].concat(); // client_hello
    // The record names TLS 1.0, which even servers understand that take offence at more.
    [vec![22, 0x03, 0x01], vector::<2>(&message)].concat() // handshake
}

/// The content of all whole handshake records (RFC 5246, 6.2.1), and the alert that came instead of one.
fn records(mut bytes: &[u8]) -> (Vec<u8>, Option<u8>) {
    let mut handshake = Vec::new();
    while let Some((kind, rest)) = take_number(bytes, 1)
        && let Some((_, rest)) = take_number(rest, 2)
        && let Some((content, rest)) = take_vector(rest, 2)
    {
        match (kind, content) {
            (22, content) => handshake.extend_from_slice(content),
            (21, &[_, alert]) => return (handshake, Some(alert)),
            _ => break,
        }
        bytes = rest;
    }
    (handshake, None)
}

/// The whole messages (RFC 5246, 7.4): type and body.
fn messages(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut all = Vec::new();
    while let Some((kind, rest)) = take_number(bytes, 1)
        && let Some((body, rest)) = take_vector(rest, 3)
    {
        all.push((kind, body));
        bytes = rest;
    }
    all
}

fn is_whole(bytes: &[u8]) -> bool {
    const SERVER_HELLO_DONE: u64 = 14;
    if bytes.first().is_some_and(|&kind| kind != 22) {
        // An alert is seven bytes, and plain text tells what it is by then.
        return bytes.len() >= 7;
    }
    let (handshake, alert) = records(bytes);
    alert.is_some() || messages(&handshake).iter().any(|m| m.0 == SERVER_HELLO_DONE)
}

/// `None` where nothing came that says anything.
fn read(bytes: &[u8]) -> Option<Reply> {
    let first = *bytes.first()?;
    if !(20..=23).contains(&first) {
        return Some(Reply::NotTls { http: bytes.starts_with(b"HTTP/") || bytes.starts_with(b"<!DOC") });
    }
    let (handshake, alert) = records(bytes);
    let mut flight = None;
    for (kind, body) in messages(&handshake) {
        match kind {
            2 => flight = server_hello(body),
            11 => {
                let Some(flight) = flight.as_mut() else { continue };
                flight.chain = chain(body).unwrap_or_default();
            }
            13 => {
                let Some(flight) = flight.as_mut() else { continue };
                flight.wants = Some(Wants { authorities: authorities(body, flight.version).unwrap_or_default() });
            }
            _ => {}
        }
    }
    flight.map(Reply::Flight).or(alert.map(Reply::Alert))
}

/// `server_version`, `random`, `session_id`, `cipher_suite` (RFC 5246, 7.4.1.3).
fn server_hello(body: &[u8]) -> Option<Flight> {
    let (version, rest) = take_number(body, 2)?;
    let (_, rest) = rest.split_at_checked(32)?;
    let (_, rest) = take_vector(rest, 1)?;
    let (cipher, _) = take_number(rest, 2)?;
    Some(Flight { version: version.try_into().ok()?, cipher: cipher.try_into().ok()?, ..Flight::default() })
}

/// `certificate_list` (RFC 5246, 7.4.2).
fn chain(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    vectors(take_vector(body, 3)?.0, 3)
}

/// `certificate_types`, from TLS 1.2 on `supported_signature_algorithms`, `certificate_authorities` (RFC 5246, 7.4.4;
/// RFC 2246, 7.4.4).
fn authorities(body: &[u8], version: u16) -> Option<Vec<Vec<u8>>> {
    let (_, mut rest) = take_vector(body, 1)?;
    if version >= 0x0303 {
        rest = take_vector(rest, 2)?.1;
    }
    vectors(take_vector(rest, 2)?.0, 2)
}

fn vectors(mut bytes: &[u8], length: usize) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (one, rest) = take_vector(bytes, length)?;
        all.push(one.to_vec());
        bytes = rest;
    }
    Some(all)
}

/// A number of so many bytes, and what follows it.
fn take_number(bytes: &[u8], length: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(length)?;
    Some((number.iter().fold(0, |n, &b| n << 8 | u64::from(b)), rest))
}

/// A vector behind a length of so many bytes, and what follows it.
fn take_vector(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_number(bytes, length)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        [vec![kind, 3, 1], vector::<2>(content)].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [vec![kind], vector::<3>(body)].concat()
    }

    #[test]
    fn a_first_flight_is_read_however_it_is_cut_into_records() {
        let hello = [vec![3, 1], vec![7; 32], vector::<1>(&[]), vec![0xc0, 0x13, 0]].concat();
        let certificate = vector::<3>(&[vector::<3>(b"leaf"), vector::<3>(b"issuer")].concat());
        let request = [vector::<1>(&[1]), vector::<2>(&vector::<2>(b"name"))].concat();
        let all = [message(2, &hello), message(11, &certificate), message(13, &request), message(14, b"")].concat();
        let flight = Flight {
            version: 0x0301,
            cipher: 0xc013,
            chain: vec![b"leaf".to_vec(), b"issuer".to_vec()],
            wants: Some(Wants { authorities: vec![b"name".to_vec()] }),
        };
        for size in [1, 7, all.len()] {
            let bytes: Vec<u8> = all.chunks(size).flat_map(|c| record(22, c)).collect();
            assert!(is_whole(&bytes));
            assert!(!is_whole(&bytes[..bytes.len() - 1]));
            assert_eq!(read(&bytes), Some(Reply::Flight(flight.clone())));
        }
    }

    #[test]
    fn what_else_may_come() {
        assert_eq!(read(b""), None);
        assert_eq!(read(b"HTTP/1.1 400 Bad Request\r\n"), Some(Reply::NotTls { http: true }));
        assert_eq!(read(b"SSH-2.0-x\r\n"), Some(Reply::NotTls { http: false }));
        assert_eq!(read(&record(21, &[2, 70])), Some(Reply::Alert(70)));
        assert!(is_whole(&record(21, &[2, 70])));
        assert_eq!(read(&record(22, b"\x02\x00")), None);
    }

    #[test]
    fn the_question_names_the_site() {
        let hello = client_hello(Some("shop.example"), &[0; 32]);
        let (handshake, _) = records(&hello);
        assert_eq!(messages(&handshake).len(), 1);
        assert!(hello.windows(12).any(|w| w == b"shop.example"));
        assert!(client_hello(None, &[0; 32]).len() < hello.len());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 20u8..24) {
            let _ = (read(&bytes), is_whole(&bytes));
            let _ = (read(&record(kind, &bytes)), is_whole(&record(kind, &bytes)));
            let _ = (server_hello(&bytes), chain(&bytes), authorities(&bytes, 0x0303), authorities(&bytes, 0x0301));
        }
    }
}
