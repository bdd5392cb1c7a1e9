//! A web server with every fault that a source of lists can have, on loopback, with TLS from an authority of its own.
//!
//! Include it with `#[path]`. It depends on no test: what a fault must lead to stands beside the fault, in
//! [`Fault::outcome`], so that tests of the library and of the whole program can hold to the same table.
//! HTTP is written by hand here, byte for byte, because a library would refuse to be so wrong.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

mod authority;
mod faults;

use authority::{authority, tls};
pub use faults::{Fault, Outcome};

const JSON: &[u8] = include_bytes!("../../src/allowlist/data/ips.json");
const V4: &[u8] = include_bytes!("../../src/allowlist/data/ips-v4");
const V6: &[u8] = include_bytes!("../../src/allowlist/data/ips-v6");
const ETAG: &str = "\"as-of-this-autumn\"";
const PATHS: [&str; 3] = ["/client/v4/ips", "/ips-v4", "/ips-v6"];
/// How long a connection may idle before its thread gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two bytes of [`Fault::SlowDrip`]: even the shortest list takes longer than [`SLOW`] allows.
const DRIP: Duration = Duration::from_millis(150);
/// The time for a document and for a connection where a fault costs just that time. The other documents, which are good, have
/// no more of it, on a machine however busy.
const SLOW: (&str, &str) = ("8s", "3s");
/// The same where no fault takes its time, so that none is ever over.
const PATIENT: (&str, &str) = ("100s", "50s");
/// For how many seconds [`Fault::BusyOnce`] wants to be left alone.
pub const PAUSE: u64 = 4;

/// Three small servers: the API, the IPv4 list and the IPv6 list. They end when this is dropped.
pub struct FaultServer {
    endpoints: [Endpoint; 3],
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    ca_file: tempfile::NamedTempFile,
}

struct Endpoint {
    fault: Fault,
    address: SocketAddr,
    /// A bound socket that nobody listens on keeps its port refused and out of others' hands.
    _held: Option<OwnedFd>,
}

impl FaultServer {
    /// Starts the three, each with its own fault.
    pub fn start(api: Fault, v4: Fault, v6: Fault) -> Self {
        let mut ca_file = tempfile::NamedTempFile::new().expect("a temporary file");
        ca_file.write_all(authority().pem.as_bytes()).expect("room for a certificate");
        let (requests, stop) = (Arc::default(), Arc::default());
        let endpoints = [api, v4, v6].map(|fault| endpoint(fault, &requests, &stop));
        Self { endpoints, requests, stop, ca_file }
    }

    /// The lines of a `[source]` section that points here, with times that are short where the fault costs time.
    pub fn source_section(&self) -> String {
        let urls = [0, 1, 2].map(|i| {
            let Endpoint { fault, address, .. } = &self.endpoints[i];
            let scheme = if *fault == Fault::PlainHttp { "http" } else { "https" };
            let host = if *fault == Fault::UnknownName { "edgeallow.invalid".into() } else { address.to_string() };
            format!("{scheme}://{host}{}", PATHS[i])
        });
        let slow = self.endpoints.iter().any(|e| matches!(e.fault, Fault::Silent | Fault::Stalled | Fault::SlowDrip));
        let (timeout, connect) = if slow { SLOW } else { PATIENT };
        format!(
            "api_url = \"{}\"\nv4_url = \"{}\"\nv6_url = \"{}\"\nca_file = \"{}\"\n\
             timeout = \"{timeout}\"\nconnect_timeout = \"{connect}\"\nretry_wait = \"10ms\"\n",
            urls[0],
            urls[1],
            urls[2],
            self.ca_file.path().display()
        )
    }

    /// The heads of all HTTP requests so far, in order: request line and header fields, a line each.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no thread has panicked").clone()
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for endpoint in &self.endpoints {
            // Wakes the thread that waits for connections. Where nothing listens there is no thread either.
            let _ = TcpStream::connect_timeout(&endpoint.address, Duration::from_millis(200));
        }
    }
}

fn endpoint(fault: Fault, requests: &Arc<Mutex<Vec<String>>>, stop: &Arc<AtomicBool>) -> Endpoint {
    if fault == Fault::Refused {
        let (address, held) = deaf_port();
        return Endpoint { fault, address, _held: Some(held) };
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
    let address = listener.local_addr().expect("it has an address");
    let server = Arc::new(Server {
        fault,
        port: address.port(),
        tls: tls(fault),
        seen: AtomicUsize::new(0),
        requests: requests.clone(),
        stop: stop.clone(),
    });
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            if server.stopped() {
                break;
            }
            let server = server.clone();
            // A client that goes away is what most faults are about; it is no error of the server's.
            thread::spawn(move || server.connection(connection).unwrap_or_default());
        }
    });
    Endpoint { fault, address, _held: None }
}

fn deaf_port() -> (SocketAddr, OwnedFd) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&held, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port on loopback");
    let address = getsockname(&held).ok().and_then(|a| SocketAddr::try_from(a).ok()).expect("an IPv4 address");
    (address, held)
}

struct Server {
    fault: Fault,
    port: u16,
    tls: Arc<ServerConfig>,
    seen: AtomicUsize,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn connection(&self, mut tcp: TcpStream) -> io::Result<()> {
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        let first = self.seen.fetch_add(1, Ordering::Relaxed) == 0;
        match self.fault {
            Fault::Silent => return self.hold(),
            Fault::Reset => return reset(tcp),
            Fault::ResetOnce if first => return reset(tcp),
            Fault::Tls11 => {
                let _client_hello = tcp.read(&mut [0; 4096])?;
                tcp.write_all(&server_hello_of_tls_1_1())?;
                // Reading on lets the client's alert arrive before the connection closes.
                let _alert = tcp.read(&mut [0; 4096])?;
                return Ok(());
            }
            Fault::NotTls => {
                let _client_hello = tcp.read(&mut [0; 4096])?;
                tcp.write_all(&answer("400 Bad Request", "", b"this is http"))?;
                let _alert = tcp.read(&mut [0; 4096])?;
                return Ok(());
            }
            Fault::PlainHttp => return self.http(&mut tcp, first),
            _ => {}
        }
        let session = ServerConnection::new(self.tls.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, tcp);
        self.http(&mut stream, first)?;
        if self.fault == Fault::ResetMidway {
            // A reset throws away what the client has not read yet, and it shall have read the head.
            thread::sleep(Duration::from_millis(500));
            return reset(stream.sock);
        }
        if self.fault != Fault::NoGoodbye {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        Ok(())
    }

    /// One request and its answer.
    fn http(&self, stream: &mut (impl Read + Write), first: bool) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let has_current = head.to_ascii_lowercase().contains(&format!("if-none-match: {ETAG}"));
        self.requests.lock().expect("no thread has panicked").push(head);
        self.answer(stream, &path, first, has_current)
    }

    fn answer(&self, to: &mut impl Write, path: &str, first: bool, has_current: bool) -> io::Result<()> {
        let good = match path.trim_end_matches('/') {
            "/ips-v4" => V4,
            "/ips-v6" => V6,
            _ => JSON,
        };
        let gzip = "Content-Encoding: gzip\r\n";
        let ok = |body: &[u8]| answer("200 OK", "", body);
        let json = |body: &str| if good == JSON { ok(body.as_bytes()) } else { ok(good) };
        let redirect = |to: String| answer("301 Moved Permanently", &format!("Location: {to}\r\n"), b"");
        let port = self.port;
        let bytes = match self.fault {
            Fault::FailsOnce if first => answer("500 Internal Server Error", "", b"oops"),
            Fault::BusyOnce if first => answer("429 Too Many Requests", &format!("Retry-After: {PAUSE}\r\n"), b""),
            Fault::Gzip => answer("200 OK", gzip, &gzipped(good)),
            Fault::TrailingSlash if !path.ends_with('/') => redirect(format!("{path}/")),
            Fault::NotHttp => b"220 mail.example ESMTP\r\n\r\n".to_vec(),
            Fault::NoAnswer => Vec::new(),
            Fault::Stalled => {
                to.write_all(&announced(good.len(), &good[..good.len() / 2]))?;
                to.flush()?;
                return self.hold();
            }
            Fault::SlowDrip => return self.drip(to, &ok(good)),
            Fault::Truncated => announced(good.len() + 100, good),
            Fault::ChunkCut => chunked("", &[&[good.len().to_string().as_bytes(), b"\r\n"].concat(), &good[..40]]),
            Fault::BadChunk => chunked("", &[b"many\r\n", good]),
            Fault::ResetMidway => announced(good.len(), &good[..good.len() / 2]),
            Fault::NoGoodbye => [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", good].concat(),
            Fault::GzipCut => answer("200 OK", gzip, &gzipped(good)[..60]),
            Fault::RedirectElsewhere => redirect(format!("https://localhost:{port}{path}")),
            Fault::RedirectToHttp => redirect(format!("http://127.0.0.1:{port}{path}")),
            Fault::RedirectLoop => redirect(path.to_owned()),
            Fault::RedirectNowhere => answer("302 Found", "", b""),
            Fault::Fails => answer("500 Internal Server Error", "", b"oops"),
            Fault::Forbidden => answer("403 Forbidden", "Content-Type: text/html\r\n", b"<html>no</html>"),
            Fault::NotFound => answer("404 Not Found", "", b""),
            Fault::NoContent => b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec(),
            Fault::Busy => answer("429 Too Many Requests", "", b""),
            Fault::BusyForAnHour => answer("429 Too Many Requests", "Retry-After: 3600\r\n", b""),
            Fault::NotModified => b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_vec(),
            Fault::Empty => ok(b""),
            Fault::Html => answer("200 OK", "Content-Type: text/html\r\n", b"<!DOCTYPE html>\n<title>Log in</title>"),
            Fault::Binary => ok(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0xff]),
            Fault::BrokenGzip => answer("200 OK", gzip, good),
            Fault::HugeLength => announced(1 << 30, good),
            Fault::Endless => return self.endless(to, "", b"", &b"173.245.48.0/20\n".repeat(1024)),
            Fault::GzipBomb => return self.endless(to, gzip, &GZIP_HEAD, bomb()),
            Fault::SuccessFalse => json(
                "{\"result\":null,\"success\":false,\"errors\":[{\"code\":1000,\"message\":\"try later\"}],\"messages\":[]}",
            ),
            Fault::V4Missing => json("{\"result\":{\"ipv6_cidrs\":[\"2400:cb00::/32\"]},\"success\":true}"),
            Fault::V6Empty => {
                json("{\"result\":{\"ipv4_cidrs\":[\"173.245.48.0/20\"],\"ipv6_cidrs\":[]},\"success\":true}")
            }
            Fault::WrongTypes => json(
                "{\"result\":{\"ipv4_cidrs\":\"173.245.48.0/20\",\"ipv6_cidrs\":[\"2400:cb00::/32\"]},\"success\":true}",
            ),
            Fault::OtherJson => json("{\"prefixes\":[{\"ip_prefix\":\"3.5.140.0/22\"}]}"),
            Fault::HalfJson if good == JSON => ok(&JSON[..JSON.len() / 2]),
            _ if has_current => {
                format!("HTTP/1.1 304 Not Modified\r\nETag: {ETAG}\r\nConnection: close\r\n\r\n").into_bytes()
            }
            _ => answer("200 OK", &format!("ETag: {ETAG}\r\n"), good),
        };
        to.write_all(&bytes)?;
        to.flush()
    }

    /// Keeps the connection open until the server ends.
    fn hold(&self) -> io::Result<()> {
        while !self.stopped() {
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn drip(&self, to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            if self.stopped() {
                break;
            }
            to.write_all(&[*byte])?;
            to.flush()?;
            thread::sleep(DRIP);
        }
        Ok(())
    }

    fn endless(&self, to: &mut impl Write, fields: &str, begin: &[u8], again: &[u8]) -> io::Result<()> {
        to.write_all(&chunked(fields, &[]))?;
        if !begin.is_empty() {
            to.write_all(&chunk(begin))?;
        }
        let again = chunk(again);
        while !self.stopped() {
            to.write_all(&again)?;
        }
        Ok(())
    }
}

fn answer(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A good answer whose announced length has nothing to do with its body.
fn announced(length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// The head of a chunked answer and some raw pieces of its body.
fn chunked(fields: &str, raw: &[&[u8]]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), &raw.concat()].concat()
}

fn chunk(body: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a Vec takes everything")
}

/// RFC 1952: magic, deflate, no flags, no time, fastest, Unix.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];

/// A piece of a deflate stream that stands for a megabyte of zeros and can be repeated for ever: it ends with a flush,
/// so the next one begins at a whole byte, and all its references lead to zeros.
fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let mut out = Vec::with_capacity(1 << 16);
        let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
        deflate.compress_vec(&vec![0; 1 << 20], &mut out, flate2::FlushCompress::Sync).expect("zeros compress well");
        out
    })
}

fn reset(tcp: TcpStream) -> io::Result<()> {
    // Closing with a linger time of zero sends RST instead of FIN.
    rustix::net::sockopt::set_socket_linger(&tcp, Some(Duration::ZERO))?;
    Ok(())
}

/// A ServerHello (RFC 4346, section 7.4.1.3) of a server that knows nothing newer than TLS 1.1.
fn server_hello_of_tls_1_1() -> Vec<u8> {
    let version = [3, 2];
    let random = [7; 32];
    // No session id, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
    let hello = [&version[..], &random, &[0], &[0, 0x2f], &[0]].concat();
    let handshake = [&[2, 0, 0, 38][..], &hello].concat();
    [&[22][..], &version, &[0, 42], &handshake].concat()
}
