//! Cloudflare's edge, as far as an origin can tell: a proxy on the lab's internet that visitors reach by the site's name.
//! It connects to the origin as Cloudflare does, and answers with Cloudflare's errors when that fails.
//!
//! Belongs here: that proxy. Does not: what anybody makes of its answers.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use socket2::{Domain, Socket, Type};

use super::site::{NAME, root, server_side};
use crate::lab::{EDGE4, Lab, SERVER4};

/// How long it waits for a SYN-ACK; Cloudflare waits for some 19 seconds.
const PATIENCE: Duration = Duration::from_millis(1200);
/// How long it waits for an answer, on a machine however busy: for less time than those who ask it do. Cloudflare waits for
/// 120 seconds.
const ANSWER: Duration = Duration::from_secs(6);

/// The zone's encryption mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Port 80, plain.
    Flexible,
    /// Port 443, any certificate.
    Full,
    /// Port 443, and the certificate has to be valid.
    Strict,
}

/// The edge; it ends when it is dropped, and is then out of everybody's reach.
pub struct Edge {
    socket: Socket,
    mode: Arc<Mutex<Mode>>,
    thread: Option<JoinHandle<()>>,
}

impl Edge {
    /// Starts it at [`EDGE4`], port 443, and makes the lab's host know the site's name by that address.
    pub fn start(lab: &Lab, mode: Mode) -> Self {
        lab.write_file("/etc/hosts", format!("127.0.0.1 localhost\n{EDGE4} {NAME} www.{NAME}\n"));
        let socket = lab.on_the_internet(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
            socket.set_reuse_address(true).expect("reuse the address");
            socket.bind(&address(EDGE4, 443).into()).expect("be the edge");
            socket.listen(64).expect("listen");
            socket
        });
        let (accepting, internet) = (socket.try_clone().expect("clone a socket"), lab.internet());
        let mode = Arc::new(Mutex::new(mode));
        let now = Arc::clone(&mode);
        let tls = Arc::new(server_side());
        let thread = std::thread::spawn(move || {
            internet.enter();
            while let Ok((visitor, _)) = accepting.accept() {
                let (mode, tls) = (*now.lock().expect("no panic elsewhere"), Arc::clone(&tls));
                // It is in the same network as this thread. A visitor who leaves is his own affair.
                std::thread::spawn(move || drop(serve(visitor.into(), &tls, mode)));
            }
        });
        Self { socket, mode, thread: Some(thread) }
    }

    /// From now on the zone has this mode.
    pub fn set(&self, mode: Mode) {
        *self.mode.lock().expect("no panic elsewhere") = mode;
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Wakes accept(2), which then answers EINVAL.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port)
}

fn serve(visitor: TcpStream, tls: &Arc<ServerConfig>, mode: Mode) -> std::io::Result<()> {
    visitor.set_read_timeout(Some(ANSWER))?;
    let connection = ServerConnection::new(Arc::clone(tls)).expect("a connection");
    let mut visitor = StreamOwned::new(connection, visitor);
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        visitor.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let status = asked(&request, mode).unwrap_or_else(|error| error);
    write!(
        visitor,
        "HTTP/1.1 {status} Status\r\nServer: cloudflare\r\nCF-RAY: 9a2e4d0f1b2c3d4e-LAB\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    )?;
    visitor.conn.send_close_notify();
    visitor.flush()
}

/// The origin's status, or Cloudflare's error.
fn asked(request: &[u8], mode: Mode) -> Result<u16, u16> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
    socket.bind(&address(EDGE4, 0).into()).expect("one of the internet's addresses");
    let port = if mode == Mode::Flexible { 80 } else { 443 };
    socket.connect_timeout(&address(SERVER4, port).into(), PATIENCE).map_err(|e| match e.kind() {
        ErrorKind::ConnectionRefused => 521_u16,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => 522,
        _ => 523,
    })?;
    let origin = TcpStream::from(socket);
    origin.set_read_timeout(Some(ANSWER)).expect("set a timeout");
    if mode == Mode::Flexible {
        return answer(origin, request);
    }
    let name = ServerName::try_from(NAME).expect("a name");
    let mut tls = ClientConnection::new(Arc::new(towards_the_origin(mode)), name).expect("a handshake");
    let mut origin = origin;
    while tls.is_handshaking() {
        if let Err(e) = tls.complete_io(&mut origin) {
            let refused = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
            return Err(if matches!(refused, Some(rustls::Error::InvalidCertificate(_))) { 526 } else { 525 });
        }
    }
    answer(StreamOwned::new(tls, origin), request)
}

fn answer(mut origin: impl Read + Write, request: &[u8]) -> Result<u16, u16> {
    origin.write_all(request).map_err(|_| 520_u16)?;
    let mut head = [0; 12];
    origin.read_exact(&mut head).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => 524_u16,
        _ => 520,
    })?;
    let text = String::from_utf8_lossy(&head).into_owned();
    text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok()).ok_or(520)
}

fn towards_the_origin(mode: Mode) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has all versions");
    if mode == Mode::Full {
        return builder.dangerous().with_custom_certificate_verifier(Arc::new(Any)).with_no_client_auth();
    }
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(root().as_bytes()).expect("a certificate");
    roots.add(authority).expect("an authority");
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// Takes any certificate.
#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
