//! Sites that a visitor would be happy with: real web servers in a lab, ports 80 and 443, both families, and a
//! certificate of an authority that the lab trusts.
//!
//! Belongs here: healthy servers, and the pieces that tests make sick ones from. Does not: what the doctor says of them.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, OnceLock},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use socket2::{Domain, Socket, Type};

use super::wait_until;
use crate::lab::{EDGE4, EDGE6, Lab, SERVER4, SERVER6, STRANGER4};

/// The site's name; the certificate is for this and `www.` of it.
pub const NAME: &str = "shop.example";
/// Where the certificate with its chain is in the lab, once there is a site.
pub const CHAIN: &str = "/etc/ssl/site/chain.pem";
/// Where its key is.
pub const KEY: &str = "/etc/ssl/site/key.pem";
/// Where the site's own configuration of nginx is.
pub const NGINX_SITE: &str = "/etc/nginx/sites-enabled/shop";
/// Where the site's own configuration of Apache is.
pub const APACHE_SITE: &str = "/etc/apache2/sites-enabled/000-default.conf";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate, all as PEM: with what is between it and the root, and its key.
pub struct Papers {
    pub chain: String,
    pub key: String,
}

/// Those who sign: a root, and an authority under it. One pair a process.
struct Authority {
    root: String,
    between: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let now = SystemTime::now();
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            (params.not_before, params.not_after) = ((now - 400 * DAY).into(), (now + 3000 * DAY).into());
            (params, KeyPair::generate().expect("a key"))
        };
        let (root_params, root_key) = authority("Lab Root");
        let root = root_params.self_signed(&root_key).expect("a certificate").pem();
        let root_issuer = Issuer::new(root_params, root_key);
        let (between_params, between_key) = authority("Lab Authority 1");
        let between = between_params.signed_by(&between_key, &root_issuer).expect("a certificate").pem();
        Authority { root, between, issuer: Issuer::new(between_params, between_key) }
    })
}

/// Whom the lab trusts, as PEM.
pub fn root() -> &'static str {
    &authority().root
}

/// Papers for ninety days, for these names.
pub fn papers_for(names: &[&str]) -> Papers {
    let now = SystemTime::now();
    let all: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let mut params = CertificateParams::new(all).expect("plain names");
    params.distinguished_name.push(DnType::CommonName, names[0]);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = ((now - DAY).into(), (now + 89 * DAY).into());
    let key = KeyPair::generate().expect("a key");
    let leaf = params.signed_by(&key, &authority().issuer).expect("a certificate").pem();
    Papers { chain: leaf + &authority().between, key: key.serialize_pem() }
}

/// The papers of [`NAME`] and `www.` of it, one set a process.
pub fn papers() -> &'static Papers {
    static PAPERS: OnceLock<Papers> = OnceLock::new();
    PAPERS.get_or_init(|| papers_for(&[NAME, &format!("www.{NAME}")]))
}

/// Lays papers where [`CHAIN`] and [`KEY`] say, and makes the lab trust who signed them, as everybody does. A site also
/// has a way to its visitors.
pub fn certify(lab: &Lab, papers: &Papers) {
    super::give_default_routes(lab);
    const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";
    lab.write_file(CHAIN, &papers.chain);
    lab.write_file(KEY, &papers.key);
    lab.chmod(KEY, 0o600);
    let trusted = lab.read_file(TRUSTED);
    if !trusted.contains(&authority().root) {
        lab.write_file(TRUSTED, trusted + &authority().root);
        lab.publish(&authority().root);
    }
}

/// A healthy site of nginx's in a lab where nothing listens on its ports yet.
pub fn site(lab: &Lab) {
    nginx(lab, &nginx_site(""));
}

/// The site's configuration, with more directives in its one server.
pub fn nginx_site(more: &str) -> String {
    let mut text = "server {\n".to_owned();
    for address in ["", "[::]:"] {
        writeln!(text, "  listen {address}80;\n  listen {address}443 ssl http2;").expect("write to a string");
    }
    write!(
        text,
        "  server_name {NAME} www.{NAME};\n  root /var/www/shop;\n  ssl_certificate {CHAIN};\n  \
         ssl_certificate_key {KEY};\n  ssl_protocols TLSv1.2 TLSv1.3;\n{more}\n}}\n"
    )
    .expect("write to a string");
    text
}

/// nginx as its package sets it up, with this in place of the package's site, started.
pub fn nginx(lab: &Lab, config: &str) {
    nginx_stopped(lab, config);
    start_nginx(lab);
}

/// Starts nginx, and waits for what it does when the command has ended: it writes its number down and starts its workers.
pub fn start_nginx(lab: &Lab) {
    lab.run(["nginx"]);
    let workers = |master: u32| {
        let file = format!("/proc/{master}/task/{master}/children");
        lab.inside(|| std::fs::read_to_string(file)).unwrap_or_default()
    };
    wait_until("nginx has workers", || master_of_nginx(lab).is_some_and(|master| !workers(master).is_empty()));
}

/// Ends nginx by what `nginx -s` knows, `stop` or `quit`, and waits until it is gone. Its last deed is to close its sockets.
pub fn stop_nginx(lab: &Lab, how: &str) {
    let master = master_of_nginx(lab).expect("the number of a running nginx");
    lab.run(["nginx", "-s", how]);
    // Nobody may have waited for it yet.
    let is_gone = |stat: String| stat.is_empty() || stat.contains(") Z ");
    let stat = || lab.inside(|| std::fs::read_to_string(format!("/proc/{master}/stat"))).unwrap_or_default();
    wait_until("nginx has ended", || is_gone(stat()));
}

fn master_of_nginx(lab: &Lab) -> Option<u32> {
    lab.inside(|| std::fs::read_to_string("/run/nginx.pid")).ok()?.trim().parse().ok()
}

/// Waits until no server has a connection any more: what was asked has an end then, and a server may log it only after it
/// has answered.
pub fn settled(lab: &Lab) {
    const OPEN: [&str; 6] = ["state", "syn-recv", "state", "established", "state", "close-wait"];
    wait_until("the servers have closed their connections", || {
        lab.run([&["ss", "-H", "-t", "-n"][..], &OPEN].concat()).stdout.is_empty()
    });
}

/// The same before it is started.
pub fn nginx_stopped(lab: &Lab, config: &str) {
    lab.install(&["nginx"], "nginx");
    content(lab);
    lab.run(["find", "/etc/nginx/sites-enabled", "/etc/nginx/conf.d", "-mindepth", "1", "-delete"]);
    lab.write_file(NGINX_SITE, config);
}

/// A healthy site of Apache's, with its package's configuration but without mod_evasive, which a test of another room
/// may have installed.
pub fn apache(lab: &Lab) {
    apache_stopped(lab, &apache_site(""));
    lab.run(["apachectl", "start"]);
}

/// The site's configuration of Apache, with more directives in both virtual hosts.
pub fn apache_site(more: &str) -> String {
    let host = |port: u16, tls: &str| {
        format!(
            "<VirtualHost *:{port}>\nServerName {NAME}\nServerAlias www.{NAME}\nDocumentRoot /var/www/shop\n\
             <Directory /var/www/shop>\nRequire all granted\n</Directory>\n{tls}{more}\n</VirtualHost>\n"
        )
    };
    let tls = format!(
        "SSLEngine on\nSSLCertificateFile {CHAIN}\nSSLCertificateKeyFile {KEY}\nSSLProtocol -all +TLSv1.2 +TLSv1.3\n"
    );
    host(80, "") + &host(443, &tls)
}

/// Apache before it is started, with this as its only site.
pub fn apache_stopped(lab: &Lab, config: &str) {
    lab.install(&["apachectl"], "apache2");
    content(lab);
    lab.run(["rm", "-f", "/etc/apache2/mods-enabled/evasive.load", "/etc/apache2/mods-enabled/evasive.conf"]);
    lab.run(["a2enmod", "-q", "ssl", "http2", "rewrite"]);
    lab.run(["find", "/etc/apache2/sites-enabled", "-mindepth", "1", "-delete"]);
    lab.write_file("/etc/apache2/ports.conf", format!("Listen 80\nListen 443\nServerName {NAME}\n"));
    lab.write_file(APACHE_SITE, config);
}

fn content(lab: &Lab) {
    certify(lab, papers());
    lab.write_file("/var/www/shop/index.html", "<!doctype html><title>Shop</title><p>Open.\n");
    // What the packages' scripts and boot scripts make.
    lab.run(["mkdir", "-p", "/var/log/nginx", "/var/lib/nginx", "/var/log/apache2"]);
}

/// A healthy site of a server that nobody knows by name, and that does as Caddy does: plain HTTP is redirected, and
/// HTTPS has HTTP/1.1. It ends when this is dropped.
pub struct Caddy {
    sockets: Vec<Socket>,
    threads: Vec<JoinHandle<()>>,
}

/// What such a server does with one connection.
type Serve = Arc<dyn Fn(TcpStream) + Send + Sync>;

impl Caddy {
    /// In a lab where nothing listens on its ports yet.
    pub fn start(lab: &Lab) -> Self {
        certify(lab, papers());
        let tls = Arc::new(server_side());
        let mut caddy = Self { sockets: Vec::new(), threads: Vec::new() };
        caddy.serve(lab, 80, |mut client| {
            let moved = format!("HTTP/1.1 308 Permanent Redirect\r\nLocation: https://{NAME}/\r\nServer: Caddy\r\n");
            answer(&mut client, &(moved + "Connection: close\r\nContent-Length: 0\r\n\r\n"));
        });
        caddy.serve(lab, 443, move |client| {
            let Ok(handshake) = ServerConnection::new(Arc::clone(&tls)) else { return };
            let mut client = StreamOwned::new(handshake, client);
            answer(
                &mut client,
                "HTTP/1.1 200 OK\r\nServer: Caddy\r\nConnection: close\r\nContent-Length: 5\r\n\r\nOpen.",
            );
            client.conn.send_close_notify();
            let _ = client.flush();
        });
        caddy
    }

    /// The same, but what it answers over TLS ends where the connection does, and without saying so.
    pub fn rude(lab: &Lab) -> Self {
        certify(lab, papers());
        let tls = Arc::new(server_side());
        Self::with(lab, 443, move |client| {
            let Ok(handshake) = ServerConnection::new(Arc::clone(&tls)) else { return };
            let mut client = StreamOwned::new(handshake, client);
            answer(&mut client, "HTTP/1.1 200 OK\r\nServer: Caddy\r\nConnection: close\r\n\r\nOpen.");
        })
    }

    /// The same, but it speaks HTTP/2 only, and says so in the handshake (ALPN) or, as older ones do, just begins.
    pub fn http2_only(lab: &Lab, by_alpn: bool) -> Self {
        /// An empty SETTINGS frame of stream 0.
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        certify(lab, papers());
        let mut tls = server_side();
        if by_alpn {
            tls.alpn_protocols = vec![b"h2".to_vec()];
        }
        let tls = Arc::new(tls);
        Self::with(lab, 443, move |client| {
            let Ok(handshake) = ServerConnection::new(Arc::clone(&tls)) else { return };
            let mut client = StreamOwned::new(handshake, client);
            let _ = client.write_all(&SETTINGS).and_then(|()| client.flush());
            let _ = client.read(&mut [0; 4096]);
        })
    }

    /// Something else on one port, of both families.
    pub fn with(lab: &Lab, port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let mut caddy = Self { sockets: Vec::new(), threads: Vec::new() };
        caddy.serve(lab, port, serve);
        caddy
    }

    /// The same on another machine.
    pub fn on_the_internet(lab: &Lab, port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let mut caddy = Self { sockets: Vec::new(), threads: Vec::new() };
        caddy.accept(lab.on_the_internet(|| Self::listen(port)), serve);
        caddy
    }

    fn serve(&mut self, lab: &Lab, port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
        self.accept(lab.inside(|| Self::listen(port)), serve);
    }

    fn listen(port: u16) -> Socket {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("make a socket");
        socket.set_only_v6(false).expect("listen on both families");
        // A server that was there before may have left connections behind.
        socket.set_reuse_address(true).expect("take the port over");
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).expect("bind");
        socket.listen(128).expect("listen");
        socket
    }

    fn accept(&mut self, socket: Socket, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
        let accepting = socket.try_clone().expect("clone a socket");
        let serve: Serve = Arc::new(serve);
        self.sockets.push(socket);
        // Threads start outside of the lab, and what they accept is the lab's all the same.
        self.threads.push(std::thread::spawn(move || {
            while let Ok((client, _)) = accepting.accept() {
                let (serve, client) = (Arc::clone(&serve), TcpStream::from(client));
                let _ = client.set_read_timeout(Some(Duration::from_secs(20)));
                std::thread::spawn(move || serve(client));
            }
        }));
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // Wakes accept(2), which then answers EINVAL.
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Reads the head of a request, and answers. A client that hangs up is left alone.
pub fn answer(client: &mut (impl Read + Write), with: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(client.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    if !head.is_empty() {
        let _ = client.write_all(with.as_bytes()).and_then(|()| client.flush());
    }
}

/// How a server shows the papers.
pub fn server_side() -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(papers().chain.as_bytes()).map(|c| c.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_slice(papers().key.as_bytes()).expect("a key");
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has all versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key fits the certificate")
}

/// One visitor of the site, from this address of the internet: the first line of the answer.
pub fn visit(lab: &Lab, from: &str, tls: bool) -> String {
    visit_of(lab, NAME, from, tls)
}

/// The same of another site. If it is Cloudflare that asks, then for a stranger, as it tells.
pub fn visit_of(lab: &Lab, name: &str, from: &str, tls: bool) -> String {
    let from: IpAddr = from.parse().expect("an address");
    let to: IpAddr = if from.is_ipv4() { SERVER4 } else { SERVER6 }.parse().expect("an address");
    lab.on_the_internet(|| {
        let domain = if from.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, None).expect("make a socket");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("one of the internet's addresses");
        let port = if tls { 443 } else { 80 };
        let patience = Duration::from_secs(10);
        socket.connect_timeout(&SocketAddr::new(to, port).into(), patience).expect("connect to the site");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(patience)).expect("set a timeout");
        let request =
            format!("GET / HTTP/1.1\r\nHost: {name}\r\nCF-Connecting-IP: {STRANGER4}\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        // A server may end its side of TLS without saying so.
        let _ = if tls {
            let mut stream = StreamOwned::new(handshake(), stream);
            stream.write_all(request.as_bytes()).expect("ask over TLS");
            stream.read_to_end(&mut answer)
        } else {
            let mut stream = stream;
            stream.write_all(request.as_bytes()).expect("ask");
            stream.read_to_end(&mut answer)
        };
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    })
}

/// A visitor's side of TLS, who trusts nobody but the lab's authority.
fn handshake() -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority().root.as_bytes()).expect("a certificate");
    roots.add(authority).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has all versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), NAME.try_into().expect("a name")).expect("a handshake")
}

#[test]
fn the_healthy_sites_serve_visitors() {
    let sites: [fn(&Lab); 2] = [site, apache];
    for start in sites {
        let lab = Lab::without_listeners();
        start(&lab);
        for from in [EDGE4, EDGE6] {
            for tls in [false, true] {
                assert_eq!(visit(&lab, from, tls), "HTTP/1.1 200 OK", "{from}, TLS: {tls}");
            }
        }
    }
    let lab = Lab::without_listeners();
    let _caddy = Caddy::start(&lab);
    for from in [EDGE4, EDGE6] {
        assert_eq!(visit(&lab, from, true), "HTTP/1.1 200 OK", "{from}");
        assert_eq!(visit(&lab, from, false), "HTTP/1.1 308 Permanent Redirect", "{from}");
    }
}
