use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    pki_types::PrivateKeyDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::*;
use crate::probe::wait;

const LIMIT: Duration = Duration::from_secs(10);

/// A server that takes this many connections, does this with each, and is gone.
fn server(times: usize, serve: impl Fn(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || (0..times).for_each(|_| serve(listener.accept().unwrap().0)));
    at
}

fn ask(to: SocketAddr, name: &'static str) -> Ask {
    Ask { to, name: Some(name.try_into().unwrap()), alpn: &ALPN, limit: LIMIT }
}

/// A server's side of TLS, and its certificate. With `asks` it wants a client's certificate of its own issuer.
fn tls(version: &'static SupportedProtocolVersion, asks: bool) -> (Arc<ServerConfig>, Vec<u8>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["shop.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let verifier: Arc<dyn ClientCertVerifier> = if asks {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap()
    } else {
        Arc::new(rustls::server::NoClientAuth)
    };
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (Arc::new(config), certificate.der().to_vec())
}

fn serve(config: &Arc<ServerConfig>, stream: std::net::TcpStream, answer: &str) {
    let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
    let mut request = [0; 1024];
    if stream.read(&mut request).is_ok_and(|n| n > 0) {
        let _ = stream.write_all(answer.as_bytes());
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
}

#[test]
fn what_a_server_shows_is_taken_down() {
    for (version, name) in [(&TLS12, "TLS 1.2"), (&TLS13, "TLS 1.3")] {
        let (config, certificate) = tls(version, false);
        let at = server(1, move |s| serve(&config, s, "HTTP/1.1 204 No Content\r\n\r\n"));
        let (shown, answer) = wait(async {
            let done = handshake(&Ask { alpn: &ALPN_HTTP1, ..ask(at, "shop.example") }).await.unwrap();
            (done.shown.clone(), go_on(done, "shop.example", LIMIT).await)
        })
        .unwrap();
        assert_eq!(shown.version.to_string(), name);
        assert_eq!((shown.chain, shown.alpn.as_deref(), shown.wants), (vec![certificate], Some("http/1.1"), None));
        assert!(shown.cipher.starts_with("TLS_"), "{}", shown.cipher);
        assert_eq!(answer, Answer::Status(204));
    }
}

#[test]
fn a_client_certificate_that_is_wanted_is_noticed_before_and_after_the_end_of_the_handshake() {
    let (config, certificate) = tls(&TLS12, true);
    let at = server(1, move |s| serve(&config, s, ""));
    let failure = wait(handshake(&ask(at, "shop.example"))).unwrap().unwrap_err();
    assert!(matches!(&failure.how, How::Alert(_)), "{failure:?}");
    assert_eq!(failure.chain, [certificate]);
    assert_eq!(failure.wants.unwrap().authorities.len(), 1);

    let (config, _) = tls(&TLS13, true);
    let at = server(1, move |s| serve(&config, s, ""));
    let (wants, answer) = wait(async {
        let done = handshake(&ask(at, "shop.example")).await.unwrap();
        (done.shown.wants.clone(), go_on(done, "shop.example", LIMIT).await)
    })
    .unwrap();
    assert_eq!(wants.unwrap().authorities.len(), 1);
    assert_eq!(answer, Answer::Alert("certificate_required".into()));
}

#[test]
fn a_server_of_http2_only_is_known_by_its_alert() {
    let (config, _) = tls(&TLS13, false);
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let at = server(2, move |s| serve(&Arc::new(config.clone()), s, ""));
    let done = wait(async { handshake(&ask(at, "shop.example")).await.unwrap().shown }).unwrap();
    assert_eq!(done.alpn.as_deref(), Some("h2"));
    let failure = wait(handshake(&Ask { alpn: &ALPN_HTTP1, ..ask(at, "shop.example") })).unwrap().unwrap_err();
    assert!(failure.how.objects_to_http1(), "{failure:?}");
}

#[test]
fn servers_that_speak_no_tls() {
    let http = |mut s: std::net::TcpStream| {
        let _ = s.read(&mut [0; 4096]);
        let _ = s.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    };
    let failure = wait(handshake(&ask(server(2, http), "shop.example"))).unwrap().unwrap_err();
    assert_eq!(failure.how, How::NotTls { http: true });
    let failure = wait(handshake(&ask(server(2, |s| drop((s.peek(&mut [0]), s))), "x.example"))).unwrap().unwrap_err();
    assert_eq!(failure.how, How::Closed);
    // It listens no more, and nobody else gets its port.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::shutdown(&gone, rustix::net::Shutdown::Both).unwrap();
    let gone = ask(gone.local_addr().unwrap(), "shop.example");
    assert_eq!(wait(handshake(&gone)).unwrap().unwrap_err().how, How::Refused);
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let limit = Duration::from_millis(100);
    let failure = wait(handshake(&Ask { limit, ..ask(listener.local_addr().unwrap(), "shop.example") })).unwrap();
    assert_eq!(failure.unwrap_err().how, How::Silent);
}

#[test]
fn an_older_server_is_heard_out() {
    let at = server(2, |mut s| {
        let mut hello = [0; 4096];
        let n = s.read(&mut hello).unwrap();
        // An alert, protocol_version, to whoever says supported_versions (43); else a ServerHello of TLS 1.0.
        let modern = hello[..n].windows(2).any(|w| w == [0, 43]) && n > 250;
        let body = [&[3, 1][..], &[7; 32], &[0, 0xc0, 0x13, 0]].concat();
        let message = [&[2, 0, 0, u8::try_from(body.len()).unwrap()][..], &body, &[14, 0, 0, 0]].concat();
        let reply = if modern {
            vec![21, 3, 1, 0, 2, 2, 70]
        } else {
            [&[22, 3, 1, 0, u8::try_from(message.len()).unwrap()][..], &message].concat()
        };
        s.write_all(&reply).unwrap();
    });
    let failure = wait(handshake(&ask(at, "shop.example"))).unwrap().unwrap_err();
    let How::Older { shown, offered } = failure.how else { panic!("{failure:?}") };
    assert_eq!((shown.version.to_string().as_str(), offered), ("TLS 1.0", true));
    assert_eq!(shown.cipher, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA");
}

#[test]
fn the_names_of_alerts_are_those_of_the_rfc() {
    for (alert, name) in [
        (AlertDescription::HandshakeFailure, "handshake_failure"),
        (AlertDescription::ProtocolVersion, "protocol_version"),
        (AlertDescription::UnrecognisedName, "unrecognized_name"),
        (AlertDescription::UnknownCA, "unknown_ca"),
        (AlertDescription::CertificateRequired, "certificate_required"),
    ] {
        assert_eq!(alert_name(alert), name);
    }
}
