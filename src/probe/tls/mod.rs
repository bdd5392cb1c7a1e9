//! A TLS handshake as Cloudflare would make it, and what the server shows in it, whatever that is worth.
//!
//! Only what Cloudflare offers to origins is offered (its page "Cipher suites — Origin"). rustls finishes handshakes of
//! TLS 1.2 and 1.3; what a server does that wants anything older is learned from [`hello`], which ends after the
//! server's first flight.
//!
//! Belongs here: the handshake, and asking whether a server goes on without a client certificate. Does not: whether what
//! is shown can be trusted, and what follows from that ([`crate::doctor`]).

mod hello;
pub(crate) mod words;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    AlertDescription, CipherSuite, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    http::{self, Scheme},
    tcp::{self, Connection},
};

/// HTTP/2 and HTTP/1.1, as Cloudflare offers them.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// HTTP/1.1 only.
pub const ALPN_HTTP1: [&[u8]; 1] = [b"http/1.1"];

/// Whom to ask for what.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The server.
    pub to: SocketAddr,
    /// The site's name, sent as SNI. Without one, or where it is an address, none is sent.
    pub name: Option<ServerName<'static>>,
    /// The protocols offered, the best first.
    pub alpn: &'static [&'static [u8]],
    /// The time for each step: a connection, a handshake, an answer.
    pub limit: Duration,
}

/// A version of the protocol, as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl Version {
    /// RFC 5246, the oldest that is still to be used (RFC 8996).
    pub const TLS12: Self = Self(0x0303);
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0x0300 => f.write_str("SSL 3.0"),
            0x0301..=0x0304 => write!(f, "TLS 1.{}", self.0 - 0x0301),
            other => write!(f, "version {other:#06x}"),
        }
    }
}

/// What a server showed in a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The version that it chose.
    pub version: Version,
    /// The cipher suite that it chose, by IANA's name; by number where rustls doesn't know it.
    pub cipher: String,
    /// The protocol that it chose: `h2`, `http/1.1`.
    pub alpn: Option<String>,
    /// The chain as it was sent, the server's own certificate first. DER.
    pub chain: Vec<Vec<u8>>,
    /// Whether it wants a certificate of the client.
    pub wants: Option<Wants>,
}

/// A server wants a certificate of the client, and that of these authorities.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wants {
    /// The names of the authorities, DER. None: any.
    pub authorities: Vec<Vec<u8>>,
}

/// A handshake that came to its end.
#[derive(Debug)]
pub struct Handshake {
    /// What was shown.
    pub shown: Shown,
    /// For the request that follows.
    pub stream: TlsStream<TcpStream>,
}

/// A handshake that didn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How it failed.
    pub how: How,
    /// What had been shown of the chain until then. DER.
    pub chain: Vec<Vec<u8>>,
    /// Whether the server had asked for a certificate of the client by then; most likely that is why it failed.
    pub wants: Option<Wants>,
}

/// How a handshake fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// There was no connection: refused.
    Refused,
    /// There was no connection: no answer.
    Unanswered,
    /// There was no connection: no route.
    NoRoute,
    /// There was no connection, for a reason of this machine's.
    Unconnected(String),
    /// The server sent this alert, by its name in RFC 8446.
    Alert(String),
    /// The server ended the connection without a word.
    Closed,
    /// The server took the connection and said nothing in time.
    Silent,
    /// The server doesn't speak TLS at all; whether it speaks HTTP.
    NotTls {
        /// Plain HTTP.
        http: bool,
    },
    /// The server would go on, but only with a version or a cipher suite that rustls doesn't have.
    Older {
        /// What it showed until then.
        shown: Box<Shown>,
        /// Whether Cloudflare offers that cipher suite to origins.
        offered: bool,
    },
    /// Something else, in words.
    Other(String),
}

impl How {
    /// Whether the server turns away who offers HTTP/1.1 only (RFC 7301, section 3.2): it speaks HTTP/2 and nothing else.
    #[must_use]
    pub fn objects_to_http1(&self) -> bool {
        matches!(self, Self::Alert(name) if name == "no_application_protocol")
    }
}

/// What became of a request without a client certificate, where one is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was answered with this status, as any other.
    Status(u16),
    /// It was refused for want of a certificate, with this status.
    Needs(u16),
    /// It was refused with this alert.
    Alert(String),
    /// The connection ended.
    Closed,
    /// No answer in time.
    Silent,
}

/// Makes a handshake.
///
/// # Errors
/// The way in which it fails.
pub async fn handshake(ask: &Ask) -> Result<Handshake, Failure> {
    let told = Arc::new(Told::default());
    let how = match attempt(ask, &told).await {
        Ok(done) => return Ok(done),
        Err(how) => how,
    };
    let (chain, wants) = (told.chain(), told.wants());
    let how = match how {
        // What the server objects to is known.
        How::Alert(name) if name == "unrecognized_name" || name == "certificate_required" => How::Alert(name),
        how if how.objects_to_http1() => how,
        How::Alert(_) | How::Closed | How::Other(_) if wants.is_none() => match older(ask).await {
            Some(better) => better,
            None => how,
        },
        how => how,
    };
    Err(Failure { how, chain, wants })
}

async fn connect(ask: &Ask) -> Result<TcpStream, How> {
    Err(match tcp::connect(ask.to, ask.limit).await {
        Connection::Open(stream) => return Ok(stream),
        Connection::Refused => How::Refused,
        Connection::Silent => How::Unanswered,
        Connection::NoRoute => How::NoRoute,
        Connection::Failed(why) => How::Unconnected(why),
    })
}

async fn attempt(ask: &Ask, told: &Arc<Told>) -> Result<Handshake, How> {
    let stream = connect(ask).await?;
    let config = config(ask.alpn, told).map_err(|e| How::Other(words::reason(&e)))?;
    // rustls sends no SNI for an address.
    let name = ask.name.clone().unwrap_or_else(|| ServerName::from(ask.to.ip()));
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = match timeout(ask.limit, connecting).await {
        Err(_) => return Err(How::Silent),
        Ok(Err(e)) => return Err(how(&e)),
        Ok(Ok(stream)) => stream,
    };
    let (_, tls) = stream.get_ref();
    let shown = Shown {
        version: Version(tls.protocol_version().map_or(0, u16::from)),
        cipher: tls.negotiated_cipher_suite().map(|s| suite(s.suite())).unwrap_or_default(),
        alpn: tls.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned()),
        chain: told.chain(),
        wants: told.wants(),
    };
    Ok(Handshake { shown, stream })
}

/// What the server does with a `ClientHello` of older days, if that tells more.
async fn older(ask: &Ask) -> Option<How> {
    let stream = connect(ask).await.ok()?;
    let name = match &ask.name {
        Some(ServerName::DnsName(name)) => Some(name.as_ref()),
        _ => None,
    };
    match hello::ask(stream, name, ask.limit).await {
        hello::Reply::Flight(flight) => Some(How::Older {
            offered: hello::is_offered(flight.cipher),
            shown: Box::new(Shown {
                version: Version(flight.version),
                cipher: suite(CipherSuite::from(flight.cipher)),
                alpn: None,
                chain: flight.chain,
                wants: flight.wants,
            }),
        }),
        hello::Reply::NotTls { http } => Some(How::NotTls { http }),
        hello::Reply::Alert(_) | hello::Reply::Closed | hello::Reply::Silent => None,
    }
}

/// Asks for the first page without a client certificate. The server has to be one that speaks HTTP/1.1 now.
///
/// Not through [`super::http`], to which an alert is a closed connection like any other.
pub async fn go_on(mut handshake: Handshake, host: &str, limit: Duration) -> Answer {
    let fields = http::cloudflares(Scheme::Https).map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: edgeallow/{}\r\n{fields}Connection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut answer = Vec::new();
    let talk = async {
        handshake.stream.write_all(request.as_bytes()).await?;
        handshake.stream.flush().await?;
        (&mut handshake.stream).take(16 * 1024).read_to_end(&mut answer).await
    };
    let end = timeout(limit, talk).await;
    if let Some(answer) = read_answer(&answer) {
        return answer;
    }
    match end {
        Err(_) => Answer::Silent,
        Ok(Err(e)) => match how(&e) {
            How::Alert(name) => Answer::Alert(name),
            _ => Answer::Closed,
        },
        Ok(Ok(_)) => Answer::Closed,
    }
}

/// nginx finishes the handshake, answers 400 (its own 496), and names the reason on the page only.
fn read_answer(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let status: u16 = text.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let needs = is_for_want_of_a_certificate(status, bytes);
    Some(if needs { Answer::Needs(status) } else { Answer::Status(status) })
}

/// Whether a page is that by which nginx refuses who has no client certificate.
#[must_use]
pub fn is_for_want_of_a_certificate(status: u16, page: &[u8]) -> bool {
    (400..500).contains(&status) && String::from_utf8_lossy(page).contains("No required SSL certificate was sent")
}

fn how(e: &io::Error) -> How {
    use rustls::Error as E;
    match e.get_ref().and_then(|inner| inner.downcast_ref::<E>()) {
        Some(E::AlertReceived(alert)) => How::Alert(alert_name(*alert)),
        Some(other) => How::Other(words::reason(other)),
        None => match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => How::Closed,
            _ => How::Other(crate::error::io_reason(e)),
        },
    }
}

/// `HandshakeFailure` as RFC 8446, section 6 writes it: `handshake_failure`.
fn alert_name(alert: AlertDescription) -> String {
    if alert == AlertDescription::UnrecognisedName {
        return "unrecognized_name".to_owned();
    }
    let camel = format!("{alert:?}");
    let mut name = String::new();
    let mut before = '_';
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() && before.is_ascii_lowercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
        before = letter;
    }
    name
}

fn suite(suite: CipherSuite) -> String {
    match suite.as_str() {
        Some(name) => name.replace("TLS13_", "TLS_"),
        None => format!("{:#06x}", u16::from(suite)),
    }
}

/// A client's side of TLS that Cloudflare's would agree with, as far as rustls can, and that takes any certificate.
fn config(alpn: &[&[u8]], told: &Arc<Told>) -> Result<ClientConfig, rustls::Error> {
    let mut provider: CryptoProvider = rustls::crypto::ring::default_provider();
    // Cloudflare offers it to origins with TLS 1.3 only.
    provider.cipher_suites.retain(|s| s.tls13().is_some() || !suite(s.suite()).contains("CHACHA20"));
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(told.clone())
        .with_client_cert_resolver(told.clone());
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    // A resumed handshake shows no chain.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes down what the server shows, and objects to nothing: what it is worth is judged elsewhere.
#[derive(Debug, Default)]
struct Told {
    chain: Mutex<Vec<Vec<u8>>>,
    wants: Mutex<Option<Wants>>,
}

impl Told {
    fn chain(&self) -> Vec<Vec<u8>> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wants(&self) -> Option<Wants> {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Told {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(end_entity).chain(intermediates).map(|c| c.to_vec()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(ServerCertVerified::assertion())
    }

    // Nothing secret is sent and nothing that is answered is believed, so who it really is doesn't matter here; and a
    // certificate that webpki can't read, or a key that ring finds weak, is still to be seen.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme as S;
        vec![
            S::ECDSA_NISTP256_SHA256,
            S::RSA_PSS_SHA256,
            S::RSA_PKCS1_SHA256,
            S::ECDSA_NISTP384_SHA384,
            S::RSA_PSS_SHA384,
            S::RSA_PKCS1_SHA384,
            S::ECDSA_NISTP521_SHA512,
            S::RSA_PSS_SHA512,
            S::RSA_PKCS1_SHA512,
            S::ED25519,
            S::RSA_PKCS1_SHA1,
            S::ECDSA_SHA1_Legacy,
        ]
    }
}

impl ResolvesClientCert for Told {
    fn resolve(&self, authorities: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let authorities = authorities.iter().map(|a| a.to_vec()).collect();
        *self.wants.lock().unwrap_or_else(PoisonError::into_inner) = Some(Wants { authorities });
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
