//! The webhook: told in Slack's words, and unable to do harm to the run.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::{SECRET, configure, done, host, sync_to, warnings};
use crate::lab::Lab;

/// What is waited for here is under way already.
const PATIENCE: Duration = Duration::from_secs(60);

/// A web server on the host's loopback that answers every request with the same bytes, or with silence.
struct Server {
    address: SocketAddr,
    requests: Receiver<(String, String)>,
}

impl Server {
    fn start(lab: &Lab, answer: Option<String>) -> Self {
        // The socket is in the lab's network, whichever thread accepts.
        let listener = lab.inside(|| TcpListener::bind("127.0.0.1:0")).expect("a port on loopback");
        let address = listener.local_addr().expect("it has an address");
        let (sender, requests) = channel();
        // It ends with the test process: the lab may be gone before.
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                if let Some(request) = request(&mut connection) {
                    let _ = sender.send(request);
                }
                match &answer {
                    Some(answer) => drop(connection.write_all(answer.as_bytes())),
                    None => thread::sleep(Duration::from_secs(20)),
                }
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}/services/{SECRET}", self.address)
    }
}

/// Head and body of a request.
fn request(connection: &mut TcpStream) -> Option<(String, String)> {
    connection.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while reader.read_line(&mut head).ok()? > 2 {}
    let length = head.to_lowercase().lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

/// A port of loopback that nobody listens on.
fn taken_port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port on loopback");
    socket
}

fn answer(status: &str, more: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{more}\r\n"))
}

/// More time than any answer takes, on a machine however busy.
const LONG: &str = "2m";

fn hooked(lab: &Lab, url: &str, timeout: &str) {
    let hook = format!("webhook = \"{url}\"\ntimeout = \"{timeout}\"");
    configure(lab, &format!("[on_change]\n{hook}\n[on_failure]\n{hook}"));
}

#[test]
fn it_is_told_in_slack_s_words() {
    let lab = host("");
    let server = Server::start(&lab, answer("200 OK", ""));
    hooked(&lab, &server.url(), LONG);
    let report = done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    assert_eq!(warnings(&report, "hook-failed"), [""; 0]);
    let (head, body) = server.requests.recv_timeout(PATIENCE).expect("a request");
    assert!(head.starts_with(&format!("POST /services/{SECRET} HTTP/1.1\r\n")), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let text = body["text"].as_str().expect("a text");
    assert!(text.starts_with("edgeallow sync on lab: ") && text.contains("nftables: applied"), "{text}");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1));

    done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    lab.write_file("/run/lists/bad", "<html>");
    lab.edgeallow(["sync", "--list", "/run/lists/bad"]).expect(3);
    let (_, body) = server.requests.recv_timeout(PATIENCE).expect("the failure is told");
    assert!(body.contains("failed with exit status 3"), "nothing is told of a run without changes: {body}");

    // The address may also lie in a file of its own, which only root can read.
    lab.write_file("/etc/edgeallow/webhook", format!("{}\n", server.url()));
    lab.chmod("/etc/edgeallow/webhook", 0o600);
    configure(&lab, &format!("[on_change]\nwebhook_file = \"/etc/edgeallow/webhook\"\ntimeout = \"{LONG}\""));
    let report = done(&lab, sync_to(&lab, "9.9.8.0/24", &[]));
    assert_eq!(warnings(&report, "hook-failed"), [""; 0]);
    server.requests.recv_timeout(PATIENCE).expect("a request");
    for (text, words) in [("", "doesn't hold the address"), ("\0secret", "doesn't hold the address")] {
        lab.write_file("/etc/edgeallow/webhook", text);
        let report = done(&lab, sync_to(&lab, &format!("9.7.{}.0/24", text.len()), &[]));
        let said = warnings(&report, "hook-failed");
        assert!(said.len() == 1 && said[0].contains(words) && !said[0].contains("secret"), "{said:?}");
    }
}

#[test]
fn whatever_it_does_the_sync_is_done_and_its_address_stays_secret() {
    let lab = host("");
    // Taken, so that no server below gets it, and nobody listens.
    let down = lab.inside(taken_port);
    let down_at = down.local_addr().expect("it has an address").as_socket().expect("an address of IPv4");
    let silent = Server::start(&lab, None);
    let broken = Server::start(&lab, answer("500 Internal Server Error", ""));
    let moved = Server::start(&lab, answer("302 Found", "Location: /elsewhere\r\n"));
    let garbage = Server::start(&lab, Some("220 mail.example ESMTP\r\n".into()));
    let cases = [
        (format!("http://{down_at}/{SECRET}"), LONG, "no connection"),
        (silent.url(), "1s", "no answer within 1 s"),
        (broken.url(), LONG, "it answered 500 Internal Server Error"),
        (moved.url(), LONG, "it answered 302 Found, and redirects are not followed"),
        (garbage.url(), LONG, "the connection broke"),
        (broken.url().replace("http:", "https:"), LONG, "TLS"),
        (format!("https://edgeallow.invalid/{SECRET}"), LONG, "the webhook at edgeallow.invalid"),
    ];
    for (n, (url, timeout, words)) in cases.iter().enumerate() {
        hooked(&lab, url, timeout);
        let began = Instant::now();
        // Everything is logged, and the address is not in it.
        let output = sync_to(&lab, &format!("9.9.{n}.0/24"), &["-vv"]);
        assert!(began.elapsed() < Duration::from_secs(60), "{words}");
        assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
        let report = done(&lab, output);
        assert_eq!(report["changed"], true, "{report:#}");
        let said = warnings(&report, "hook-failed");
        assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:?}");
    }
    let asked: Vec<_> = moved.requests.try_iter().map(|(head, _)| head).collect();
    assert!(asked.len() == 1 && asked[0].starts_with("POST"), "{asked:?}");
    assert_eq!(broken.requests.try_iter().count(), 1, "nothing is tried again");
}

#[test]
fn offline_means_that_no_connection_is_opened() {
    let lab = host("");
    let server = Server::start(&lab, answer("200 OK", ""));
    hooked(&lab, &server.url(), LONG);
    let report = done(&lab, sync_to(&lab, "9.9.9.0/24", &["--offline"]));
    assert_eq!(warnings(&report, "hook-skipped"), ["--offline: the on_change webhook was not told"]);
    assert_eq!(server.requests.try_iter().count(), 0);
}

#[test]
fn a_wrong_address_is_a_configuration_error_that_keeps_it_secret() {
    let lab = host("");
    for line in [
        format!("webhook = \"http://hooks.example/{SECRET}\""),
        format!("webhook = \"{SECRET}\""),
        format!("webhook = [\"https://hooks.example/{SECRET}\"]"),
        format!("webhok = \"https://hooks.example/{SECRET}\""),
        format!("webhook = \"https://hooks.example/{SECRET}"),
        // In a place that isn't its own.
        format!("webhook_file = \"https://hooks.example/{SECRET}\""),
        format!("webhook_file = \"hooks.example/{SECRET}\""),
        format!("command = \"curl https://hooks.example/{SECRET}\""),
        format!("timeout = \"{SECRET}\""),
        format!("[on_failure.webhook]\nurl = \"{SECRET}\""),
    ] {
        configure(&lab, &format!("[on_change]\n{line}"));
        let output = sync_to(&lab, "9.9.9.0/24", &["-vv"]).expect(2);
        assert!(!format!("{output:?}").contains(SECRET), "{line}: {output:?}");
        assert_eq!(output.json()["error"]["kind"], "config", "{output:?}");
    }
    configure(&lab, &format!("on_change = \"https://hooks.example/{SECRET}\""));
    for log in ["human", "json"] {
        let output = lab.edgeallow(["sync", "-vv", "--log-format", log]).expect(2);
        assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
        assert!(output.stderr.contains("on_change"), "{output:?}");
    }
}
