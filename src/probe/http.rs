//! One request to one address, and what became of it: HTTP/1.1, as Cloudflare speaks it to origins that don't offer more.
//!
//! The connection is anybody's who can read and write, so the same request goes over TCP or TLS. Redirects are told, not
//! followed. What is read has limits: a server can't keep a probe busy or fill its memory.
//!
//! Belongs here: asking, and in which way there was no answer. Does not: what an answer means ([`crate::doctor`]).

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request,
    body::{Body as _, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, LOCATION, SERVER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

use super::tcp::{Connection, connect};

/// How long the head of an answer may be; Cloudflare answers 520 to longer ones (CLOUDFLARE.md).
pub const HEAD_LIMIT: usize = 128 * 1024;
/// How many header fields an answer may have; the limit of the head is met long before.
const FIELDS_LIMIT: usize = 1024;
/// How much of a body is read: enough for an error page to say what it is about.
pub const BODY_LIMIT: usize = 16 * 1024;

/// The visitor on whose behalf a probe asks: of a range for documentation (RFC 5737), so that a limit, a ban or a log that
/// takes Cloudflare's word for it is about nobody, and nothing that trusts this machine trusts the probe.
pub const VISITOR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);
/// The Ray ID of every probe: of the form that Cloudflare's have, and in any log this program's.
pub const RAY: &str = "ed9ea110ed9ea110-FRA";

/// The header fields that Cloudflare adds to a visitor's request (its documentation, "Cloudflare HTTP headers"): a server
/// may answer only to those who send them. Without the country, which not every zone sends.
#[must_use]
pub fn cloudflares(visitor: Scheme) -> [(&'static str, String); 6] {
    [
        ("cf-ray", RAY.to_owned()),
        ("cf-connecting-ip", VISITOR.to_string()),
        ("cf-visitor", format!("{{\"scheme\":\"{}\"}}", visitor.as_str())),
        ("cdn-loop", "cloudflare".to_owned()),
        ("x-forwarded-for", VISITOR.to_string()),
        ("x-forwarded-proto", visitor.as_str().to_owned()),
    ]
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Get<'a> {
    /// The site, as in the `Host` field: a name or an address, with a port that isn't the scheme's own.
    pub host: &'a str,
    /// The path, from `/`, with its query.
    pub path: &'a str,
    /// The scheme that the visitor used, as Cloudflare tells it (`X-Forwarded-Proto`): an application may redirect by it.
    pub visitor: Scheme,
}

/// What a visitor typed before the colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is an answer.
    Answered(Answer),
    /// The connection was refused.
    Refused,
    /// There was no connection in time.
    Silent,
    /// There is no way to that address.
    NoRoute,
    /// The connection was made, and ended before there was an answer.
    Closed,
    /// What came is not HTTP; its beginning, with everything unprintable escaped.
    Garbled(String),
    /// The head of the answer is longer than [`HEAD_LIMIT`].
    Oversized,
    /// The connection was made, and there was no answer in time.
    Stalled,
    /// Something else went wrong here, and what.
    Failed(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status: 200.
    pub status: u16,
    /// Where it redirects to, as the server put it.
    pub location: Option<String>,
    /// The program that calls itself the server.
    pub server: Option<String>,
    /// From the request to the head of the answer.
    pub took: Duration,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// What became of the rest of it.
    pub rest: Rest,
}

/// What became of the rest of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// There was none.
    Whole,
    /// It is longer than [`BODY_LIMIT`] or takes its time; it was not waited for.
    Unread,
    /// The connection ended before the end of the answer.
    Broken,
}

impl Outcome {
    /// The error that Cloudflare makes of it. An answer of the application's own is passed on, whatever it says.
    #[must_use]
    pub const fn cloudflare_error(&self) -> Option<u16> {
        match self {
            Self::Answered(Answer { rest: Rest::Broken, .. }) | Self::Closed | Self::Garbled(_) | Self::Oversized => {
                Some(520)
            }
            Self::Refused => Some(521),
            Self::Silent => Some(522),
            Self::NoRoute => Some(523),
            Self::Stalled => Some(524),
            Self::Answered(_) | Self::Failed(_) => None,
        }
    }

    /// The answer, if there is one.
    #[must_use]
    pub const fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answered(answer) => Some(answer),
            _ => None,
        }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the connection.
    pub connect: Duration,
    /// For the answer, from the connection on.
    pub answer: Duration,
}

/// Connects to an address and asks there, without TLS.
pub async fn get_at(to: SocketAddr, ask: Get<'_>, limits: Limits) -> Outcome {
    match connect(to, limits.connect).await {
        Connection::Open(stream) => exchange(stream, ask, limits.answer).await.0,
        Connection::Refused => Outcome::Refused,
        Connection::Silent => Outcome::Silent,
        Connection::NoRoute => Outcome::NoRoute,
        Connection::Failed(why) => Outcome::Failed(why),
    }
}

/// Asks over a connection with TLS that there is already. It takes this long at most. A server that speaks HTTP/2 only,
/// which Cloudflare speaks over TLS, can't be asked.
pub async fn get<S>(stream: S, ask: Get<'_>, limit: Duration) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match exchange(stream, ask, limit).await {
        (Outcome::Garbled(_), first) if is_http2(&first) => {
            Outcome::Failed("it speaks HTTP/2 only, which isn't asked in here".to_owned())
        }
        (outcome, _) => outcome,
    }
}

/// Whether this is how a server of HTTP/2 begins: a SETTINGS frame of stream 0 (RFC 9113, sections 3.4 and 4.1).
fn is_http2(first: &[u8]) -> bool {
    matches!(first, [0, _, _, 4, 0, 0, 0, 0, 0, ..])
}

/// What became of it, and how what was answered begins.
async fn exchange<S>(stream: S, ask: Get<'_>, limit: Duration) -> (Outcome, Vec<u8>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let start = Instant::now();
    let end = start + limit;
    let request = match request(ask) {
        Ok(request) => request,
        Err(why) => return (Outcome::Failed(why), Vec::new()),
    };
    let mut http = http1::Builder::new();
    http.max_buf_size(2 * HEAD_LIMIT).max_header_size(HEAD_LIMIT).max_headers(FIELDS_LIMIT);
    let first = Mutex::new(Vec::new());
    let tapped = Tapped { stream, first: &first };
    let (mut sender, connection) = match http.handshake(TokioIo::new(tapped)).await {
        Ok(pair) => pair,
        Err(e) => return (Outcome::Failed(format!("cannot speak HTTP: {e}")), Vec::new()),
    };
    // It moves the bytes, and is done when the other side is; the exchange tells what came of it.
    let mover = async {
        if let Err(e) = connection.await {
            tracing::debug!("the connection ended: {e}");
        }
        pending::<Infallible>().await
    };
    let talk = async {
        match timeout_at(end, sender.send_request(request)).await {
            Err(_) => Outcome::Stalled,
            Ok(Err(e)) => failure(&e, &first.lock().unwrap_or_else(PoisonError::into_inner)),
            Ok(Ok(response)) => {
                let took = start.elapsed();
                let (head, body) = response.into_parts();
                let (body, rest) = read(body, end).await;
                let field = |name| text(&head.headers, name);
                let (location, server) = (field(LOCATION), field(SERVER));
                Outcome::Answered(Answer { status: head.status.as_u16(), location, server, took, body, rest })
            }
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = talk => outcome,
        never = mover => match never {},
    };
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (outcome, first)
}

fn request(ask: Get<'_>) -> Result<Request<String>, String> {
    let plain = Request::get(ask.path)
        .header(HOST, ask.host)
        .header(USER_AGENT, concat!("edgeallow/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*");
    cloudflares(ask.visitor)
        .into_iter()
        .fold(plain, |request, (name, value)| request.header(name, value))
        .header(CONNECTION, "close")
        .body(String::new())
        .map_err(|e| format!("{} with the path {} can't be asked for: {e}", ask.host, ask.path))
}

/// What kept a head from being read, by what came first. Whether the connection ended in order, was reset, or was gone
/// before the request could be sent, is the same for Cloudflare.
fn failure(e: &hyper::Error, first: &[u8]) -> Outcome {
    const START: &[u8] = b"HTTP/1.";
    match () {
        // hyper has a question for this, which belongs to its server half.
        () if e.is_parse() && e.to_string().contains("too large") => Outcome::Oversized,
        () if e.is_parse() || !START.starts_with(first.get(..START.len()).unwrap_or(first)) => {
            Outcome::Garbled(first.escape_ascii().to_string())
        }
        () => Outcome::Closed,
    }
}

/// How much of what comes first is kept.
const FIRST: usize = 24;

/// A connection of which the first bytes that come are kept.
struct Tapped<'a, S> {
    stream: S,
    first: &'a Mutex<Vec<u8>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = match Pin::new(&mut self.stream).poll_read(cx, buf) {
            // Over TLS, an end without a goodbye (`close_notify`) is an end to those who ask, Cloudflare among them.
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            polled => polled,
        };
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let room = FIRST - first.len();
        first.extend(buf.filled().iter().skip(before).take(room));
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The beginning of a body.
async fn read(mut body: Incoming, end: Instant) -> (Vec<u8>, Rest) {
    let mut bytes = Vec::new();
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        match timeout_at(end, frame).await {
            Err(_) => return (bytes, Rest::Unread),
            Ok(None) => return (bytes, Rest::Whole),
            Ok(Some(Err(_))) => return (bytes, Rest::Broken),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                let room = BODY_LIMIT - bytes.len();
                bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
                if data.len() > room || bytes.len() == BODY_LIMIT {
                    return (bytes, Rest::Unread);
                }
            }
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::probe::wait;

    const ASK: Get<'_> = Get { host: "shop.example", path: "/a?b=c", visitor: Scheme::Https };
    const LONG: Limits = Limits { connect: Duration::from_secs(20), answer: Duration::from_secs(20) };

    /// What is made of a server that answers this and closes, or stays and is waited for so long, and the request that it got.
    fn asked(answer: Vec<u8>, stays: Option<Duration>) -> (Outcome, String) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut request = vec![0; 4096];
            let length = client.read(&mut request).unwrap();
            // A client that has read enough hangs up.
            let _ = client.write_all(&answer);
            if stays.is_some() {
                let _ = client.read(&mut [0]);
            }
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let limits = Limits { answer: stays.unwrap_or(LONG.answer), ..LONG };
        let outcome = wait(get_at(to, ASK, limits)).unwrap();
        (outcome, thread.join().unwrap())
    }

    fn outcome(answer: impl Into<Vec<u8>>) -> Outcome {
        asked(answer.into(), None).0
    }

    #[test]
    fn an_answer_is_told_and_the_request_is_what_cloudflare_would_send() {
        let answer =
            "HTTP/1.1 301 Moved\r\nLocation: https://shop.example/\r\nServer: nginx\r\nContent-Length: 2\r\n\r\nhi";
        let (outcome, request) = asked(answer.into(), Some(LONG.answer));
        let answer = outcome.answer().unwrap_or_else(|| panic!("{outcome:?}"));
        assert_eq!(
            (answer.status, answer.location.as_deref(), answer.server.as_deref(), &answer.body[..], answer.rest),
            (301, Some("https://shop.example/"), Some("nginx"), &b"hi"[..], Rest::Whole)
        );
        assert!(answer.took > Duration::ZERO && answer.took < Duration::from_secs(20));
        assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n") && request.ends_with("\r\n\r\n"), "{request}");
        for line in [
            "host: shop.example\r\n",
            "user-agent: edgeallow/",
            "cf-ray: ed9ea110ed9ea110-FRA\r\n",
            "cf-connecting-ip: 203.0.113.250\r\n",
            "cf-visitor: {\"scheme\":\"https\"}\r\n",
            "cdn-loop: cloudflare\r\n",
            "x-forwarded-for: 203.0.113.250\r\n",
            "x-forwarded-proto: https\r\n",
        ] {
            assert!(request.contains(line), "{request}");
        }
    }

    #[test]
    fn each_way_not_to_answer_is_told_apart() {
        assert_eq!(outcome(""), Outcome::Closed);
        assert_eq!(outcome("HTTP/1.1 200 OK\r\nServer: n"), Outcome::Closed);
        assert_eq!(outcome("SSH-2.0-OpenSSH_9.2\r\n"), Outcome::Garbled("SSH-2.0-OpenSSH_9.2\\r\\n".into()));
        // A TLS alert: "unexpected message".
        assert_eq!(outcome([21, 3, 1, 0, 2, 2, 10]), Outcome::Garbled("\\x15\\x03\\x01\\x00\\x02\\x02\\n".into()));
        let huge =
            "HTTP/1.1 200 OK\r\n".to_owned() + &format!("Set-Cookie: {}\r\n", "x".repeat(8000)).repeat(20) + "\r\n";
        assert_eq!(outcome(huge), Outcome::Oversized);
        assert_eq!(asked(b"HTTP/1.1 20".into(), Some(Duration::from_millis(300))).0, Outcome::Stalled);
        let long =
            "HTTP/1.1 200 OK\r\n".to_owned() + &format!("Set-Cookie: {}\r\n", "x".repeat(8000)).repeat(15) + "\r\n";
        assert_eq!(outcome(long).answer().map(|a| a.status), Some(200), "up to the limit it is well");
    }

    #[test]
    fn http2_over_tls_is_nothing_that_cloudflare_would_stumble_over() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 250];
        assert!(matches!(outcome(settings), Outcome::Garbled(_)), "over plain HTTP nobody asks in it");
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            client.write_all(&settings).unwrap();
            // Closed with a request unread, it would be reset.
            while client.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {}
        });
        let asked = async { get(tokio::net::TcpStream::connect(to).await.unwrap(), ASK, LONG.answer).await };
        let Outcome::Failed(why) = wait(asked).unwrap() else { panic!("it is no failure of the server's") };
        assert!(why.contains("HTTP/2 only"), "{why}");
        thread.join().unwrap();
    }

    #[test]
    fn a_refusal_and_a_name_that_is_none_are_outcomes() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        // It listens no more, and nobody else gets its port.
        rustix::net::shutdown(&server, rustix::net::Shutdown::Both).unwrap();
        assert_eq!(wait(get_at(to, ASK, LONG)).unwrap(), Outcome::Refused);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let ask = Get { host: "shop\r\nevil: yes", ..ASK };
        assert!(matches!(wait(get_at(to, ask, LONG)).unwrap(), Outcome::Failed(_)));
    }

    #[test]
    fn a_body_is_read_up_to_its_limit_and_known_to_be_broken() {
        let of = |body: &str, length: usize| {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            let outcome = outcome(answer);
            let answer = outcome.answer().unwrap_or_else(|| panic!("{outcome:?}")).clone();
            (answer.body.len(), answer.rest, outcome.cloudflare_error())
        };
        assert_eq!(of("abc", 3), (3, Rest::Whole, None));
        assert_eq!(of("abc", 4), (3, Rest::Broken, Some(520)));
        let long = "x".repeat(2 * BODY_LIMIT);
        assert_eq!(of(&long, long.len()), (BODY_LIMIT, Rest::Unread, None));
    }
}
