//! The smallest HTTP proxy: it knows CONNECT (RFC 9110, section 9.3.6), and leads every name to loopback.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Runs until the process ends.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts it.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("it has an address");
        let asked: Arc<AtomicUsize> = Arc::default();
        let count = asked.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                // A client that goes away is no error of the proxy's.
                thread::spawn(move || tunnel(client).unwrap_or_default());
            }
        });
        Self { address, asked }
    }

    /// How many connections it was asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn tunnel(mut client: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let port = head.strip_prefix("CONNECT ").and_then(|h| h.split(' ').next()?.rsplit(':').next()?.parse::<u16>().ok());
    let Some(port) = port else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
    };
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let copied = io::copy(&mut from_client, &mut to_server);
        // It may be closed already.
        let _ = to_server.shutdown(Shutdown::Write);
        copied
    });
    io::copy(&mut &server, &mut client)?;
    client.shutdown(Shutdown::Write)
}
